"""One suite for every backend of `SessionStore`; then what only Redis has: seals, clocks, attacks."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.adapters.state_worlds import (
    ALICE,
    BOB,
    HOME,
    KEY_A,
    KEY_B,
    KEY_C,
    LATER_SECRETS,
    LIMITS,
    SECRETS,
    TRAIN,
    RedisWorld,
    World,
)
from ztproxy.adapters.redis_directory import RedisDirectory
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.core.identity import Credential, SessionSecrets, Step
from ztproxy.core.locks import ALL, Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError

HOST = "app.test"
NOWHERE = "A" * 43


async def signed_in(world: Any, session: Any = ALICE, replaces: str | None = None) -> str:
    handle: str = await world.sessions.create(session, SECRETS, HOST, replaces, HOME)
    return handle


# ── every backend ──


async def test_what_was_created_is_loaded(world: World) -> None:
    handle = await signed_in(world)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", handle)
    loaded = await world.sessions.load(handle)
    assert loaded.host == HOST
    assert re.fullmatch(r"[0-9a-f]{32}", loaded.session.id)
    assert loaded.session == replace(ALICE, id=loaded.session.id, revision=0)
    assert await world.sessions.secrets(handle) == SECRETS


OF_A_LOG = [
    pytest.param("log", 7, True, id="the log it began under"),
    pytest.param("log", 6, True, id="an older number of it"),
    pytest.param("log", 8, False, id="a number it has not come to: an older copy of it"),
    pytest.param("other", 1, False, id="another log: the data was lost"),
    pytest.param("", 99, True, id="a session on record"),
]


@pytest.mark.parametrize(("log", "as_of", "stored"), OF_A_LOG)
async def test_a_sign_in_counts_only_under_the_log_it_began_under(
    world: World, log: str, as_of: int, stored: bool
) -> None:
    handle = await signed_in(world, BOB)
    before = (await world.sessions.load(handle)).session
    await world.has_log("log", 7)
    session = replace(ALICE, log=log, as_of=as_of)
    stronger = replace(before, log=log, as_of=as_of, rank=3)
    if stored:
        made = await world.sessions.load(await signed_in(world, session))
        assert (made.session.as_of, made.session.log) == (as_of, "")
        assert await world.sessions.replace(handle, stronger, SECRETS)
        return
    with pytest.raises(ClientError) as refused:
        await signed_in(world, session, handle)
    assert refused.value.reason is Reason.LOGIN_REVOKED
    with pytest.raises(ClientError):
        await world.sessions.replace(handle, stronger, SECRETS)
    assert (await world.sessions.load(handle)).session == before  # neither replaced nor ended


async def test_an_unknown_handle_is_nothing_and_makes_nothing(world: World) -> None:
    sessions = world.sessions
    assert await sessions.load(NOWHERE) is None
    assert await sessions.secrets(NOWHERE) is None
    assert await sessions.attach(NOWHERE, HOST) is None
    assert await sessions.replace(NOWHERE, ALICE, SECRETS) is None
    assert await sessions.update(NOWHERE, ALICE, SECRETS) is False
    assert await sessions.touch(NOWHERE) is False
    assert await sessions.end(NOWHERE) is False
    if isinstance(world, RedisWorld):
        assert await world.snapshot() == {}


async def test_attach_gives_each_host_its_own_handle_of_one_session(world: World) -> None:
    first = await signed_in(world)
    second = await world.sessions.attach(first, "wiki.test")
    assert second != first
    one, two = await world.sessions.load(first), await world.sessions.load(second)
    assert (one.host, two.host) == (HOST, "wiki.test")
    assert one.session == two.session
    assert await world.sessions.end(second) is True
    assert await world.sessions.load(first) is None


async def test_a_new_sign_in_ends_the_session_it_replaces_with_all_its_handles(world: World) -> None:
    old = await signed_in(world)
    elsewhere = await world.sessions.attach(old, "wiki.test")
    new = await signed_in(world, BOB, replaces=old)
    assert await world.sessions.load(old) is None
    assert await world.sessions.load(elsewhere) is None
    assert (await world.sessions.load(new)).session.identity.subject == "bob"


async def test_replacing_an_unknown_handle_only_creates(world: World) -> None:
    other = await signed_in(world)
    assert await world.sessions.load(await signed_in(world, BOB, replaces=NOWHERE)) is not None
    assert await world.sessions.load(other) is not None


async def test_step_up_gives_a_new_handle_and_the_old_one_is_dead(world: World) -> None:
    old = await signed_in(world)
    session = (await world.sessions.load(old)).session
    stronger = replace(session, acr="phrh", rank=3)
    new = await world.sessions.replace(old, stronger, LATER_SECRETS)
    assert await world.sessions.load(old) is None
    assert await world.sessions.touch(old) is False
    assert await world.sessions.attach(old, HOST) is None
    loaded = await world.sessions.load(new)
    assert loaded == (replace(stronger, revision=1), HOST, loaded.bookmark)
    assert await world.sessions.secrets(new) == LATER_SECRETS


async def test_step_up_ends_the_handles_of_all_hosts(world: World) -> None:
    """A cookie copied before must not be stepped up with the session (T12)."""
    old = await signed_in(world)
    elsewhere = await world.sessions.attach(old, "wiki.test")
    session = (await world.sessions.load(old)).session
    fresh = await world.sessions.replace(old, replace(session, rank=3), SECRETS)
    assert await world.sessions.load(old) is None
    assert await world.sessions.load(elsewhere) is None
    assert (await world.sessions.load(fresh)).session.rank == 3
    again = await world.sessions.attach(fresh, "wiki.test")
    assert (await world.sessions.load(again)).session.rank == 3


async def test_refresh_writes_and_the_revision_grows(world: World) -> None:
    handle = await signed_in(world)
    session = (await world.sessions.load(handle)).session
    assert await world.sessions.update(handle, replace(session, verified_at=2000.0), LATER_SECRETS)
    loaded = await world.sessions.load(handle)
    assert loaded.session == replace(session, verified_at=2000.0, revision=1)
    assert await world.sessions.secrets(handle) == LATER_SECRETS


@pytest.mark.parametrize("revision", [-1, 1, 7, 2**53])
async def test_a_write_from_another_revision_changes_nothing(world: World, revision: int) -> None:
    handle = await signed_in(world)
    before = await world.sessions.load(handle)
    wrong = replace(before.session, rank=3, revision=revision)
    assert await world.sessions.update(handle, wrong, LATER_SECRETS) is False
    assert await world.sessions.replace(handle, wrong, LATER_SECRETS) is None
    after = await world.sessions.load(handle)
    assert after.session == before.session
    assert await world.sessions.secrets(handle) == SECRETS


async def test_of_writes_at_once_exactly_one_wins(world: World) -> None:
    handle = await signed_in(world)
    session = (await world.sessions.load(handle)).session
    won = await asyncio.gather(
        *(
            world.sessions.update(handle, session, SessionSecrets(refresh_token=f"mine-{number}"))
            for number in range(20)
        )
    )
    assert won.count(True) == 1
    winner = SessionSecrets(refresh_token=f"mine-{won.index(True)}")
    assert await world.sessions.secrets(handle) == winner
    assert (await world.sessions.load(handle)).session.revision == 1


async def test_of_step_ups_at_once_exactly_one_wins(world: World) -> None:
    handle = await signed_in(world)
    session = (await world.sessions.load(handle)).session
    answers = await asyncio.gather(*(world.sessions.replace(handle, session, SECRETS) for _ in range(10)))
    alive = [fresh for fresh in answers if fresh is not None]
    assert len(alive) == 1
    assert await world.sessions.load(alive[0]) is not None


LATE_WRITES: list[Any] = [
    pytest.param(lambda s, h: s.touch(h), id="touch"),
    pytest.param(lambda s, h: s.update(h, ALICE, SECRETS), id="update"),
    pytest.param(lambda s, h: s.replace(h, ALICE, SECRETS), id="replace"),
    pytest.param(lambda s, h: s.attach(h, HOST), id="attach"),
    pytest.param(lambda s, h: s.end(h), id="end"),
]


@pytest.mark.parametrize("write", LATE_WRITES)
async def test_no_write_resurrects_an_ended_session(
    world: World, write: Callable[[Any, str], Awaitable[object]]
) -> None:
    handle = await signed_in(world)
    assert await world.sessions.end(handle) is True
    assert not await write(world.sessions, handle)
    assert await world.sessions.load(handle) is None
    if isinstance(world, RedisWorld):
        assert await world.snapshot() == {}


@pytest.mark.parametrize("write", LATE_WRITES)
async def test_no_write_resurrects_an_idle_session(
    redis: RedisWorld, write: Callable[[Any, str], Awaitable[object]]
) -> None:
    handle = await signed_in(redis)
    await redis.pass_time(LIMITS.idle + 1)
    assert not await write(redis.sessions, handle)
    assert await redis.sessions.load(handle) is None


async def test_an_idle_session_ends_and_a_touched_one_does_not(redis: RedisWorld) -> None:
    idle, busy = await signed_in(redis), await signed_in(redis, BOB)
    await redis.pass_time(LIMITS.idle - 60)
    assert await redis.sessions.touch(busy) is True
    await redis.pass_time(120)
    assert await redis.sessions.load(idle) is None
    assert await redis.sessions.load(busy) is not None


async def test_no_touch_or_write_prolongs_the_absolute_end(redis: Any) -> None:
    handle = await signed_in(redis)
    for _ in range(6):
        await redis.pass_time(LIMITS.idle - 10)
        assert await redis.sessions.touch(handle) is True
        session = (await redis.sessions.load(handle)).session
        longer = replace(session, expires_at=session.expires_at + 10_000)
        handle = await redis.sessions.replace(handle, longer, SECRETS)
    await redis.pass_time(120)  # 6 * 590 + 120 > 3600, and touched within the idle time
    assert await redis.sessions.load(handle) is None
    assert await redis.sessions.touch(handle) is False


async def test_a_date_far_ahead_does_not_outlive_the_absolute_limit(redis: RedisWorld) -> None:
    handle = await signed_in(redis, replace(ALICE, expires_at=ALICE.created_at + 10**9))
    for _ in range(7):
        await redis.pass_time(LIMITS.idle - 60)
        await redis.sessions.touch(handle)
    assert await redis.sessions.load(handle) is None


SHORT = replace(ALICE, idle=60.0)


async def test_a_session_with_an_idle_time_of_its_own_ends_by_it(world: World) -> None:
    idle, busy, other = [await signed_in(world, one) for one in (SHORT, SHORT, BOB)]
    await world.pass_time(50)
    assert await world.sessions.touch(busy) is True
    await world.pass_time(50)
    assert await world.sessions.load(idle) is None
    assert (await world.sessions.load(busy)).session.idle == 60.0
    assert await world.sessions.load(other) is not None
    await world.pass_time(11)
    assert await world.sessions.load(busy) is None
    assert await world.sessions.load(other) is not None


async def test_a_step_up_begins_its_own_idle_time_anew(world: World) -> None:
    handle = await signed_in(world, SHORT)
    await world.pass_time(50)
    session = (await world.sessions.load(handle)).session
    handle = await world.sessions.replace(handle, session, SECRETS)
    await world.pass_time(50)
    assert await world.sessions.load(handle) is not None
    await world.pass_time(11)
    assert await world.sessions.load(handle) is None


async def test_a_refresh_cuts_the_idle_time_and_does_not_begin_it_anew(world: World) -> None:
    handle = await signed_in(world)
    await world.pass_time(100)
    for _ in range(2):
        session = (await world.sessions.load(handle)).session
        assert await world.sessions.update(handle, replace(session, idle=60.0), SECRETS) is True
        await world.pass_time(25)
    assert await world.sessions.load(handle) is not None
    await world.pass_time(11)
    assert await world.sessions.load(handle) is None


async def test_an_idle_time_of_its_own_is_never_longer_than_the_stores(redis: RedisWorld) -> None:
    handle = await signed_in(redis, replace(ALICE, idle=LIMITS.idle * 2))
    await redis.pass_time(LIMITS.idle + 1)
    assert await redis.sessions.load(handle) is None


@pytest.mark.parametrize("by", [Credential.TOKEN, Credential.CERTIFICATE])
async def test_a_session_of_a_service_is_never_stored(world: World, by: Credential) -> None:
    handle = await signed_in(world, BOB)
    before = await world.sessions.load(handle)
    service = replace(before.session, by=by)
    with pytest.raises(ValueError, match="not stored"):
        await signed_in(world, service, replaces=handle)
    with pytest.raises(ValueError, match="not stored"):
        await world.sessions.update(handle, service, LATER_SECRETS)
    with pytest.raises(ValueError, match="not stored"):
        await world.sessions.replace(handle, service, LATER_SECRETS)
    after = await world.sessions.load(handle)
    assert after.session == before.session
    assert await world.sessions.secrets(handle) == SECRETS


BOUND = replace(
    ALICE,
    device="d1",
    certificate="t1",
    fresh=True,
    rank=3,
    steps=(Step(3, ALICE.expires_at - 900), Step(2, ALICE.expires_at)),
    idle=300.0,
)


async def test_what_a_session_is_bound_to_and_remembers_comes_back(world: World) -> None:
    handle = await signed_in(world, BOUND)
    loaded = (await world.sessions.load(handle)).session
    assert loaded == replace(BOUND, id=loaded.id)
    (listed,) = await world.directory.of(Target(TargetKind.DEVICE, "d1"))
    assert listed.session.certificate == "t1"


async def test_a_session_that_is_bound_later_is_found_by_its_device(world: World) -> None:
    handle = await signed_in(world, BOB)
    session = (await world.sessions.load(handle)).session
    assert await world.directory.of(Target(TargetKind.DEVICE, "d1")) == ()
    bound = replace(session, certificate="t1", device="d1")
    assert await world.sessions.update(handle, bound, SECRETS) is True
    (listed,) = await world.directory.of(Target(TargetKind.DEVICE, "d1"))
    assert listed.session.id == session.id


async def test_a_bookmark_changes_the_cost_and_never_the_answer(world: World) -> None:
    handle, other = await signed_in(world), await signed_in(world, BOB)
    seen = await world.sessions.load(handle)
    again = await world.sessions.load(handle, seen.bookmark)
    assert (again.session, again.host) == (seen.session, HOST)
    # the bookmark of one handle says nothing about another
    assert (await world.sessions.load(other, seen.bookmark)).session.identity.subject == "bob"
    assert await world.sessions.load(NOWHERE, seen.bookmark) is None
    # a write is seen
    await world.sessions.update(handle, replace(seen.session, rank=3), SECRETS)
    assert (await world.sessions.load(handle, again.bookmark)).session.rank == 3
    # and so is the end
    await world.sessions.end(handle)
    assert await world.sessions.load(handle, again.bookmark) is None


# ── Redis alone ──


def record_keys(stored: dict[bytes, object]) -> list[bytes]:
    return [key for key in stored if key.startswith(b"{ztp}:s:")]


async def test_nothing_readable_and_no_handle_is_in_redis(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    await redis.sessions.touch(handle, TRAIN)
    dump = repr(await redis.snapshot())
    person = ("alice", "example.com", "engineering", HOST, "op.test", "laptop-1", "sid-1")
    where = (TRAIN.address, TRAIN.agent, TRAIN.route, HOME.address)
    for secret in (handle, "refresh-1", "id-1", *person, *where):
        assert secret not in dump
    assert f"{{ztp}}:h:{hashlib.sha256(handle.encode()).hexdigest()}" in dump


async def test_the_public_id_is_of_the_record_and_the_bookmark_hides_its_secrets(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    loaded = await redis.sessions.load(handle)
    assert loaded is not None
    (record,) = record_keys(await redis.snapshot())
    assert loaded.session.id.encode() == record[len(b"{ztp}:s:") :]
    assert "session_id" not in repr(loaded)
    assert "sealed" not in repr(loaded.bookmark)


async def test_after_the_end_nothing_is_left(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    await redis.sessions.attach(handle, "wiki.test")
    await redis.sessions.end(handle)
    assert await redis.snapshot() == {}


async def test_everything_has_a_time_to_live(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    await redis.sessions.attach(handle, "wiki.test")
    for key in await redis.snapshot():
        left = await redis.client.pttl(key)
        limit = LIMITS.idle if key.startswith(b"{ztp}:s:") else LIMITS.absolute
        assert 0 < left <= limit * 1000, key


async def test_an_index_outlives_its_longest_session(redis: RedisWorld) -> None:
    await signed_in(redis)
    await signed_in(redis, replace(ALICE, expires_at=ALICE.created_at + 10))
    (index,) = await redis.client.keys("{ztp}:u:*")
    assert await redis.client.pttl(index) > 3_000_000


async def test_a_workers_clock_makes_no_session_longer(redis: RedisWorld) -> None:
    # the worker's clock is a year ahead: only the span counts
    year = 365 * 86400.0
    ahead = replace(ALICE, created_at=ALICE.created_at + year, expires_at=ALICE.expires_at + year)
    handle = await signed_in(redis, ahead)
    (record,) = record_keys(await redis.snapshot())
    seconds, _ = await redis.client.time()
    end = int(await redis.client.hget(record, "a")) / 1000
    assert seconds + LIMITS.absolute - 60 <= end <= seconds + LIMITS.absolute + 60
    assert await redis.sessions.load(handle) is not None


async def test_a_span_that_is_over_stores_nothing_that_lasts(redis: RedisWorld) -> None:
    await signed_in(redis, replace(ALICE, expires_at=ALICE.created_at - 5))
    for key in await redis.client.keys("*"):
        assert await redis.client.pttl(key) <= 1


async def test_two_prefixes_do_not_see_each_other(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    other = RedisSessions(redis.client, redis.sealer, LIMITS, prefix="{staging}:")
    assert await other.load(handle) is None
    await other.create(ALICE, SECRETS, HOST, None)
    assert all(key.startswith((b"{ztp}:", b"{staging}:")) for key in await redis.snapshot())
    staged = RedisDirectory(redis.client, redis.sealer, prefix="{staging}:")
    assert await staged.count() == await redis.directory.count() == 1
    assert await staged.clear(Lock("l", ALL, number=9)) == 1
    assert await redis.sessions.load(handle) is not None


async def test_scripts_come_back_after_the_server_forgot_them(world: World) -> None:
    handle = await signed_in(world)
    if isinstance(world, RedisWorld):
        await world.client.script_flush()
    assert await world.sessions.touch(handle) is True


# ── attacks on what Redis holds (T14, T18, FI20, S17, S18) ──


async def mallory_moves_a_record(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    for name in ("s", "k", "r"):
        await redis.client.hset(mallory, name, await redis.client.hget(alice, name))


async def mallory_moves_only_the_tokens(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hset(mallory, "s", await redis.client.hget(mallory, "k"))


async def mallory_turns_the_revision(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hset(mallory, "r", 9)


async def mallory_removes_the_revision(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hdel(mallory, "r")


async def mallory_cuts(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hset(mallory, "s", (await redis.client.hget(mallory, "s"))[:-1])


async def mallory_cuts_nearly_all(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hset(mallory, "s", b"\x01")


async def mallory_empties(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hset(mallory, "s", b"")


async def mallory_writes_a_newer_version(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hset(mallory, "s", b"\x02" + (await redis.client.hget(mallory, "s"))[1:])


async def mallory_names_another_key(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    sealed = await redis.client.hget(mallory, "s")
    await redis.client.hset(mallory, "s", sealed[:1] + b"8 bytes!" + sealed[9:])


async def mallory_writes_plain_text(redis: RedisWorld, alice: bytes, mallory: bytes) -> None:
    await redis.client.hset(mallory, "s", b'{"identity": {"subject": "alice"}}' * 3)


@pytest.mark.parametrize(
    "attack",
    [
        mallory_moves_a_record,
        mallory_moves_only_the_tokens,
        mallory_turns_the_revision,
        mallory_removes_the_revision,
        mallory_cuts,
        mallory_cuts_nearly_all,
        mallory_empties,
        mallory_writes_a_newer_version,
        mallory_names_another_key,
        mallory_writes_plain_text,
    ],
)
async def test_a_record_that_was_meddled_with_lets_nobody_in(
    redis: RedisWorld, attack: Any, caplog: pytest.LogCaptureFixture
) -> None:
    alice = await signed_in(redis)
    (of_alice,) = record_keys(await redis.snapshot())
    mallory = await signed_in(redis, BOB)
    (of_mallory,) = (key for key in record_keys(await redis.snapshot()) if key != of_alice)
    seen = await redis.sessions.load(mallory)
    assert seen is not None
    await attack(redis, of_alice, of_mallory)
    before = await redis.snapshot()
    assert await redis.sessions.load(mallory) is None
    assert await redis.sessions.load(mallory, seen.bookmark) is None
    assert await redis.snapshot() == before
    assert "{ztp}:s:" in caplog.text
    for secret in (alice, mallory, "refresh-1", "id-1"):
        assert secret not in caplog.text
    assert await redis.sessions.load(alice) is not None


async def test_each_flipped_bit_of_a_record_is_noticed(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    (record,) = record_keys(await redis.snapshot())
    sealed = await redis.client.hget(record, "s")
    for position in range(0, len(sealed), 7):
        flipped = bytearray(sealed)
        flipped[position] ^= 1 << (position % 8)
        await redis.client.hset(record, "s", bytes(flipped))
        assert await redis.sessions.load(handle) is None, position
    await redis.client.hset(record, "s", sealed)
    assert await redis.sessions.load(handle) is not None


async def test_what_stands_in_clear_decides_nothing(redis: RedisWorld) -> None:
    """Whoever writes into Redis cannot make a session begin after the lock that ended it."""
    handle = await signed_in(redis)
    (record,) = record_keys(await redis.snapshot())
    await redis.client.hset(
        record, mapping={"o": 999, "l": 1, "u": "x", "i": "y", "d": "z", "b": "", "n": ""}
    )
    loaded = await redis.sessions.load(handle)
    assert loaded is not None and loaded.session == replace(ALICE, id=loaded.session.id)


async def test_a_moved_handle_opens_nothing(redis: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    alice = await signed_in(redis)
    stolen = await redis.client.get("{ztp}:h:" + hashlib.sha256(alice.encode()).hexdigest())
    mallorys = "B" * 42 + "A"
    await redis.client.set("{ztp}:h:" + hashlib.sha256(mallorys.encode()).hexdigest(), stolen)
    assert await redis.sessions.load(mallorys) is None
    assert await redis.sessions.attach(mallorys, HOST) is None
    assert await redis.sessions.end(mallorys) is False
    assert await redis.sessions.load(alice) is not None
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


async def test_an_exchanged_handle_is_not_believed_because_of_a_bookmark(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    seen = await redis.sessions.load(handle)
    assert seen is not None
    await redis.client.set("{ztp}:h:" + hashlib.sha256(handle.encode()).hexdigest(), b"junk" * 20)
    assert await redis.sessions.load(handle, seen.bookmark) is None


async def test_an_authentic_record_that_is_no_session_is_refused(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    (record,) = record_keys(await redis.snapshot())
    found = await redis.sessions._find(handle)
    assert found is not None
    sealed = redis.sealer.seal(found.record.session_id, record + b":s:0", b"\x93 not a map")
    await redis.client.hset(record, "s", sealed)
    assert await redis.sessions.load(handle) is None


async def test_a_key_of_another_kind_is_a_failing_state_and_not_a_session(redis: RedisWorld) -> None:
    handle = await signed_in(redis)
    seen = await redis.sessions.load(handle)
    assert seen is not None
    (record,) = record_keys(await redis.snapshot())
    await redis.client.delete(record)
    await redis.client.rpush(record, "x")
    with pytest.raises(WorldError, match="state: wrongtype"):
        await redis.sessions.load(handle)
    with pytest.raises(WorldError, match="state: wrongtype"):
        await redis.sessions.load(handle, seen.bookmark)


async def test_an_old_server_key_opens_while_it_is_listed(redis: RedisWorld) -> None:
    client = redis.client
    handle = await signed_in(RedisWorld(client, KEY_A))
    rotated = RedisWorld(client, KEY_B, KEY_A)
    loaded = await rotated.sessions.load(handle)
    assert loaded is not None
    gone = RedisWorld(client, KEY_C, KEY_B)
    assert await gone.sessions.load(handle) is None
    # a write reseals the record, but the handle stays under the key that made it
    assert await rotated.sessions.update(handle, loaded.session, SECRETS) is True
    fresh = await rotated.sessions.replace(handle, replace(loaded.session, revision=1), SECRETS)
    assert fresh is not None
    assert await gone.sessions.load(fresh) is not None
