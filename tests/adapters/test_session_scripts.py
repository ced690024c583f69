"""The scripts by themselves: sent twice (a connection died after the first) or out of turn, without harm."""

from __future__ import annotations

from typing import Any

import pytest

from tests.adapters.state_worlds import ALICE, BOB, SECRETS, RedisWorld
from ztproxy.adapters.session_scripts import SCRIPTS

ID, RECORD, HANDLE = "d" * 32, "{ztp}:s:" + "d" * 32, "{ztp}:h:x"
USER, PROVIDER, DEVICE = "{ztp}:u:x", "{ztp}:i:x", "{ztp}:d:x"
WRITTEN = ("S", "K", "F", 4, USER, PROVIDER, DEVICE, "", "")


async def run(redis: RedisWorld, name: str, *arguments: Any) -> Any:
    return await redis.client.eval(SCRIPTS[name], 1, "{ztp}:all", "{ztp}:", *arguments)


async def create(redis: RedisWorld, absolute: int = 60_000, idle: int = 30_000) -> None:
    await run(redis, "create", ID, "", HANDLE, "sealed", absolute, idle, "", *WRITTEN)


async def test_create_twice_is_create_once(redis: RedisWorld) -> None:
    await create(redis)
    once = await redis.snapshot()
    await create(redis)
    twice = await redis.snapshot()
    for state in (once, twice):  # between the two the clock went on, and with it these three moments
        record: Any = state[RECORD.encode()]
        assert int(record.pop(b"a")) > int(record.pop(b"l")) > 0
        assert len(state.pop(b"{ztp}:due")) == 1  # type: ignore[arg-type]
    assert once == twice


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("attach", (HANDLE, "{ztp}:h:y", "sealed"), id="attach"),
        pytest.param("replace", (HANDLE, "0", "{ztp}:h:y", "sealed", 9_000, *WRITTEN), id="replace"),
        pytest.param("update", (HANDLE, "0", *WRITTEN), id="update"),
        pytest.param("touch", (HANDLE, 9_000, ""), id="touch"),
        pytest.param("end", (), id="end"),
    ],
)
async def test_nothing_comes_from_nothing(redis: RedisWorld, name: str, arguments: tuple[Any, ...]) -> None:
    assert await run(redis, name, ID, *arguments) == 0
    assert await redis.snapshot() == {}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("attach", ("{ztp}:h:y", "sealed"), id="attach"),
        pytest.param("replace", ("0", "{ztp}:h:y", "sealed", 9_000, *WRITTEN), id="replace"),
        pytest.param("update", ("0", *WRITTEN), id="update"),
        pytest.param("touch", (9_000, "N"), id="touch"),
    ],
)
async def test_a_dead_handle_writes_nothing(redis: RedisWorld, name: str, arguments: tuple[Any, ...]) -> None:
    await create(redis)
    before = await redis.snapshot()
    assert await run(redis, name, ID, "{ztp}:h:dead", *arguments) == 0
    assert await redis.snapshot() == before


async def test_a_record_past_its_end_is_gone_even_if_its_key_still_is_there(redis: RedisWorld) -> None:
    await create(redis)
    await redis.client.hset(RECORD, "a", 1)
    for name, arguments in (("touch", (9_000, "N")), ("update", ("0", *WRITTEN))):
        assert await run(redis, name, ID, HANDLE, *arguments) == 0


async def test_the_idle_time_never_reaches_past_the_absolute_end(redis: RedisWorld) -> None:
    await create(redis, absolute=20_000, idle=30_000)
    assert 0 < await redis.client.pttl(RECORD) <= 20_000
    assert await run(redis, "touch", ID, HANDLE, 90_000, "") == 1
    assert 0 < await redis.client.pttl(RECORD) <= 20_000


async def test_dead_members_leave_an_index_when_it_is_touched(redis: RedisWorld) -> None:
    await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    indexes = [(await redis.client.keys(f"{{ztp}}:{kind}:*"))[0] for kind in "uid"]
    for index in indexes:
        await redis.client.zadd(index, {"0" * 32: 5})
    await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    for index in indexes:
        members = await redis.client.zrange(index, 0, -1)
        assert len(members) == 2
        assert b"0" * 32 not in members


async def test_who_ended_by_time_leaves_the_list_of_all_when_somebody_comes(redis: RedisWorld) -> None:
    await create(redis)
    await redis.client.delete(RECORD)
    await redis.client.zadd("{ztp}:due", {ID: 5})
    await redis.sessions.create(BOB, SECRETS, "app.test", None)
    for key in ("{ztp}:all", "{ztp}:due"):
        members = await redis.client.zrange(key, 0, -1)
        assert len(members) == 1 and ID.encode() not in members


async def test_who_is_due_and_still_there_stays_in_the_list(redis: RedisWorld) -> None:
    await create(redis)
    await redis.client.zadd("{ztp}:due", {ID: 5})
    await redis.sessions.create(BOB, SECRETS, "app.test", None)
    assert await redis.client.zcard("{ztp}:all") == 2


async def test_ending_a_session_takes_it_out_of_its_indexes_only(redis: RedisWorld) -> None:
    first = await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    await redis.sessions.create(BOB, SECRETS, "app.test", None)
    await redis.sessions.end(first)
    counts = sorted([await redis.client.zcard(key) for key in await redis.client.keys("{ztp}:u:*")])
    assert counts == [1, 1]
    for key in ("{ztp}:all", "{ztp}:due"):
        assert await redis.client.zcard(key) == 2


async def test_a_write_takes_the_session_to_the_indexes_it_now_has(redis: RedisWorld) -> None:
    """A step-up may come from another session at the provider, or bind a device."""
    await create(redis)
    (_, began), *_ = await redis.client.zrange("{ztp}:all", 0, -1, withscores=True)
    moved = ("S", "K", "F", 4, USER, "{ztp}:i:y", "", "")
    assert await run(redis, "update", ID, HANDLE, "0", *moved) == 1
    assert await redis.client.exists(PROVIDER, DEVICE) == 0
    for index in (USER, "{ztp}:i:y", "{ztp}:all"):
        assert await redis.client.zrange(index, 0, -1, withscores=True) == [(ID.encode(), began)]
        assert 0 < await redis.client.pttl(index) <= 60_000
    assert await redis.client.hmget(RECORD, "u", "i", "d") == [USER.encode(), b"{ztp}:i:y", None]
    await run(redis, "end", ID)
    assert await redis.snapshot() == {}


async def test_no_two_sessions_have_one_place(redis: RedisWorld) -> None:
    first = "redis.call('ZADD', ALL, whole(MOMENT), 'x') redis.call('ZADD', ALL, whole(MOMENT + 1), 'y')"
    at_once = SCRIPTS["create"].replace("local id, old", f"{first}\nlocal id, old")
    words = (ID, "", HANDLE, "sealed", 60_000, 30_000, "", *WRITTEN)
    await redis.client.eval(at_once, 1, "{ztp}:all", "{ztp}:", *words)
    places = [int(place) for _, place in await redis.client.zrange("{ztp}:all", 0, -1, withscores=True)]
    assert places == [places[0], places[0] + 1, places[0] + 2]
    assert [int(place) for _, place in await redis.client.zrange(USER, 0, -1, withscores=True)] == places[2:]


@pytest.mark.parametrize(
    ("number", "gone"),
    [
        pytest.param(3, 0, id="began-after-a-later-one"),
        pytest.param(4, 0, id="began-just-after-it"),
        pytest.param(5, 1, id="began-before-it"),
    ],
)
async def test_clearing_looks_at_what_each_began_after(redis: RedisWorld, number: int, gone: int) -> None:
    await create(redis)
    before = await redis.snapshot()
    assert await run(redis, "clear", number, ID, "0" * 32) == gone
    assert await redis.snapshot() == ({} if gone else before)


OWN = (*WRITTEN[:7], 5_000, "")


async def test_an_idle_time_of_its_own_is_kept_within_the_stores(redis: RedisWorld) -> None:
    await run(redis, "create", ID, "", HANDLE, "sealed", 60_000, 30_000, "", *OWN)
    assert 0 < await redis.client.pttl(RECORD) <= 5_000
    await redis.client.pexpire(RECORD, 1_000)
    assert await run(redis, "touch", ID, HANDLE, 30_000, "") == 1
    assert 1_000 < await redis.client.pttl(RECORD) <= 5_000
    assert await run(redis, "touch", ID, HANDLE, 3_000, "") == 1
    assert 0 < await redis.client.pttl(RECORD) <= 3_000, "the shorter of the two"
    assert await run(redis, "replace", ID, HANDLE, "0", "{ztp}:h:y", "sealed", 30_000, *OWN) == 1
    assert 3_000 < await redis.client.pttl(RECORD) <= 5_000


async def test_a_write_cuts_the_idle_time_and_never_begins_it_anew(redis: RedisWorld) -> None:
    await create(redis)
    assert await run(redis, "update", ID, HANDLE, "0", *OWN) == 1
    left, (_, due) = (
        await redis.client.pttl(RECORD),
        *await redis.client.zrange("{ztp}:due", 0, -1, withscores=True),
    )
    seconds, micros = await redis.client.time()
    assert 0 < left <= 5_000 and due <= seconds * 1000 + micros / 1000 + 5_000, (
        "in the list of what is due too"
    )
    await redis.client.pexpire(RECORD, 1_000)
    assert await run(redis, "update", ID, HANDLE, "1", *OWN) == 1
    assert 0 < await redis.client.pttl(RECORD) <= 1_000
    # Without one of its own the store's counts again, from the next use on.
    assert await run(redis, "update", ID, HANDLE, "2", *WRITTEN) == 1
    assert await redis.client.hexists(RECORD, "m") == 0
    assert 0 < await redis.client.pttl(RECORD) <= 1_000
    assert await run(redis, "touch", ID, HANDLE, 30_000, "") == 1
    assert 5_000 < await redis.client.pttl(RECORD) <= 30_000
