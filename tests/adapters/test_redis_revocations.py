"""One suite for `RevocationLog` on every backend; then what only servers do: restart, lose, stop, split."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.adapters.state_worlds import KEY_A, KEY_B
from tests.adapters.test_redis_connection import SAID, server_that_says
from tests.worlds.fault_proxy import FaultProxy
from tests.worlds.memory_log import MemoryLog, MemoryStore
from tests.worlds.servers import SentinelTrio, Server, cluster, sentinel_trio, server
from ztproxy.adapters.redis_revocations import RedisRevocations
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.lease import Synced
from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import ALL, Action, Entry, Lift, Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError

LEASE = 0.8
KEEP = 3600.0
ALICE = Target(TargetKind.USER, "alice", "https://op.test")
FAR = time.time() + 100_000.0


def revocations(url: str, *keys: bytes, **changes: Any) -> RedisRevocations:
    return RedisRevocations.at(url, Sealer(keys or (KEY_A,)), **({"lease": LEASE, "keep": KEEP} | changes))


@asynccontextmanager
async def log_at(url: str, *keys: bytes, **changes: Any) -> AsyncIterator[Any]:
    log = revocations(url, *keys, **changes)
    yield log
    await log.aclose()


@pytest.fixture(params=["memory", "redis", "cluster"])
def place(request: pytest.FixtureRequest) -> str | None:
    """Where an empty log is; None is in memory."""
    if request.param == "memory":
        return None
    client, url = {"redis": ("state_client", "valkey_url"), "cluster": ("cluster_client", "cluster_url")}[
        request.param
    ]
    request.getfixturevalue(client)  # empties it
    found: str = request.getfixturevalue(url)
    return found


@pytest.fixture
async def log(place: str | None) -> AsyncIterator[Any]:
    if place is None:
        yield MemoryLog(MemoryStore(time.time))
        return
    async with log_at(place) as opened:
        yield opened


@pytest.fixture
async def store(state_client: Redis) -> Any:
    """The server itself, for whoever writes into it behind our back."""
    return state_client


@pytest.fixture
async def redis_log(valkey_url: str, store: Any) -> AsyncIterator[Any]:
    async with log_at(valkey_url) as opened:
        yield opened


def numbers(synced: Synced) -> list[int]:
    return [entry.number for entry in synced.entries]


def ids(synced: Synced) -> list[str]:
    return [entry.id for entry in synced.entries]


# ── every backend ──


async def test_an_empty_log(log: Any) -> None:
    synced = await log.sync("w1", 0, LEASE)
    assert (synced.number, synced.first, synced.entries) == (0, 1, ())
    assert synced.run
    assert synced.data
    again = await log.read(0)
    assert (again.run, again.data) == (synced.run, synced.data)
    assert again.settled >= synced.settled >= 0


ENTRIES = [
    pytest.param(Lock("r1", ALICE), id="revocation"),
    pytest.param(Lock("r1", ALL, made_at=123.5), id="made-at-kept"),
    pytest.param(
        Lock("r1", Target(TargetKind.GROUP, "ad\nmins"), Action.REQUIRE_STEP_UP, "eve", "why", "Älice ‮", FAR),
        id="lock-with-an-end",
    ),
    pytest.param(Lock("r1", ALL, Action.REQUIRE_LOGIN), id="login-again"),
    pytest.param(Lift("r1", "r0", "bob", "mistake"), id="lift"),
    pytest.param(Lock("} {ztp}\0\r\n*", ALICE), id="hostile-id"),
]


@pytest.mark.parametrize("entry", ENTRIES)
async def test_an_entry_comes_back_as_it_was_made(log: Any, entry: Entry) -> None:
    committed = await log.commit(entry)
    assert committed.number == 1
    assert committed.copied is True
    synced = await log.sync("w1", 0, LEASE)
    assert (synced.number, synced.first) == (1, 1)
    (found,) = synced.entries
    assert replace(found, made_at=0.0) == replace(entry, number=1, made_at=0.0)
    assert found.made_at == entry.made_at or abs(found.made_at - time.time()) < 100
    assert (committed.run, committed.data) == (synced.run, synced.data)


async def test_numbers_follow_each_other_and_come_in_order(log: Any) -> None:
    made = [await log.commit(Lock(f"r{number}", ALICE)) for number in range(1, 8)]
    assert [each.number for each in made] == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(await log.sync("w1", 0, LEASE)) == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(await log.sync("w1", 5, LEASE)) == [6, 7]
    assert numbers(await log.read(7)) == []


async def test_a_commit_at_once_by_many_is_one_number_each(log: Any) -> None:
    made = await asyncio.gather(*(log.commit(Lock(f"r{number}", ALICE)) for number in range(40)))
    assert sorted(each.number for each in made) == list(range(1, 41))


async def test_the_same_id_is_the_same_entry(log: Any) -> None:
    first = await log.commit(Lock("r1", ALICE, reason="first"))
    await log.commit(Lock("r2", ALICE))
    await log.sync("w9", 0, LEASE)
    again = await log.commit(Lock("r1", ALL, reason="second"))
    assert again.number == first.number == 1
    assert again.holders == {"w9"}
    synced = await log.read(0)
    assert [getattr(entry, "reason", None) for entry in synced.entries] == ["first", ""]


async def test_who_syncs_is_a_holder_until_it_leaves(log: Any) -> None:
    await log.sync("w1", 0, LEASE)
    await log.sync("w2", 0, 3.0)
    committed = await log.commit(Lock("r1", ALICE))
    assert committed.holders == {"w1", "w2"}
    assert committed.longest == 3.0
    await log.leave("w2")
    await log.leave("w2")
    committed = await log.commit(Lock("r2", ALICE))
    assert (committed.holders, committed.longest) == ({"w1"}, LEASE)
    assert set((await log.applied()).numbers) == {"w1"}


async def test_reading_makes_no_holder(log: Any) -> None:
    await log.read(0)
    committed = await log.commit(Lock("r1", ALICE))
    assert (committed.holders, committed.longest) == (frozenset(), 0.0)


async def test_a_sync_acknowledges_what_was_applied(log: Any) -> None:
    await log.sync("w1", 0, LEASE)
    await log.commit(Lock("r1", ALICE))
    assert (await log.applied()).numbers["w1"] == 0
    synced = await log.sync("w1", 0, LEASE)
    assert (await log.applied()).numbers["w1"] == 0  # given to it is not yet applied
    await log.sync("w1", 1, LEASE)
    applied = await log.applied()
    assert applied.numbers["w1"] == 1
    assert (applied.run, applied.data) == (synced.run, synced.data)


async def test_a_long_log_comes_in_batches_and_without_a_gap(log: Any) -> None:
    for begin in range(0, 2300, 100):
        await asyncio.gather(*(log.commit(Lock(f"r{begin + i}", ALICE)) for i in range(100)))
    book, sizes = LockBook(), []
    while book.applied < 2300:
        synced = await log.sync("w1", book.applied, LEASE)
        assert (synced.number, synced.first) == (2300, 1)
        sizes.append(len(synced.entries))
        book.apply(synced.entries, synced.first)  # refuses a gap
    assert sizes == [1000, 1000, 300]


async def test_news_of_what_is_there_already(log: Any) -> None:
    await log.commit(Lock("r1", ALICE))
    assert await log.news(0) is True


async def test_news_wakes_who_waits(log: Any) -> None:
    waiting = asyncio.ensure_future(log.news(0))
    await asyncio.sleep(0)
    await log.commit(Lock("r1", ALICE))
    assert await waiting is True


async def test_no_news(log: Any) -> None:
    await log.commit(Lock("r1", ALICE))
    assert await log.news(1) is False


# ── trimming, on the store's clock ──


async def age(store: Any, seconds: float) -> None:
    """Makes every entry older. Nobody can set a server's clock, so its notes of time are set instead."""
    rows = await store.xrange("{ztp}:rev")
    await store.delete("{ztp}:rev")
    for key, fields in rows:
        fields[b"t"] = int(fields[b"t"]) - round(seconds * 1000)
        await store.xadd("{ztp}:rev", fields, id=key)


async def test_what_is_older_than_any_session_is_trimmed(redis_log: Any, store: Any) -> None:
    for name in ("old1", "old2"):
        await redis_log.commit(Lock(name, ALICE))
    await age(store, KEEP - 60)
    await redis_log.commit(Lock("mid", ALICE))
    await age(store, 61)
    await redis_log.commit(Lock("new", ALICE))
    synced = await redis_log.read(0)
    assert (synced.first, synced.number, ids(synced)) == (3, 4, ["mid", "new"])
    assert numbers(await redis_log.read(1)) == [3, 4]
    assert await store.hlen("{ztp}:ids") == 2


async def test_the_newest_stays_however_old(redis_log: Any, store: Any) -> None:
    await redis_log.commit(Lock("old", ALICE))
    await age(store, 2 * KEEP)
    await redis_log.commit(Lock("new", ALICE))
    await age(store, 2 * KEEP)
    synced = await redis_log.read(0)
    assert (synced.first, synced.number, ids(synced)) == (2, 2, ["new"])


async def trimmed(log: Any, store: Any, *entries: Entry) -> Synced:
    """The log with `entries`, all trimmed, and one that is new."""
    for entry in entries:
        await log.commit(entry)
    await age(store, 2 * KEEP)
    await log.commit(Lock("new", ALICE))
    synced: Synced = await log.read(0)
    assert synced.first == synced.number == len(entries) + 1
    return synced


async def test_locks_with_an_end_outlive_their_place_and_come_first(redis_log: Any, store: Any) -> None:
    standing = [Lock(f"s{number}", ALICE, until=FAR - number, message="closed") for number in (1, 2)]
    synced = await trimmed(redis_log, store, Lock("r1", ALL), standing[0], Lift("l1", "x"), standing[1])
    assert [(entry.id, entry.number) for entry in synced.entries] == [("s1", 2), ("s2", 4), ("new", 5)]
    assert abs(synced.entries[0].made_at - time.time()) < 100
    book = LockBook()
    book.apply(synced.entries, synced.first)
    assert book.applied == 5
    # who has applied past them gets them no more
    assert ids(await redis_log.read(4)) == ["new"]


async def test_a_thousand_and_more_of_them_come_at_once(redis_log: Any, store: Any) -> None:
    for begin in range(0, 1100, 100):
        locks = [Lock(f"s{begin + i}", ALICE, until=FAR) for i in range(100)]
        await asyncio.gather(*map(redis_log.commit, locks))
    await age(store, 2 * KEEP)
    for name in ("new", "newer"):  # a thousand are trimmed at once
        await redis_log.commit(Lock(name, ALICE))
    synced = await redis_log.read(0)
    # All come with the first entry of the stream: who has that one asks after it only.
    assert (synced.first, synced.number, len(synced.entries)) == (1101, 1102, 1102)


async def test_a_lifted_lock_does_not_outlive_its_place(redis_log: Any, store: Any) -> None:
    synced = await trimmed(redis_log, store, Lock("s1", ALICE, until=FAR), Lift("l1", "s1"))
    assert ids(synced) == ["new"]
    # and does not come back when a node that remembers it sends it again
    assert (await redis_log.commit(Lock("s1", ALICE, until=FAR))).number == 1
    assert ids(await redis_log.read(0)) == ["new"]
    # until its end, when nobody could send it any more with any effect
    await store.zadd("{ztp}:held", {"1": 1})
    await redis_log.commit(Lock("next", ALICE))
    assert await store.hlen("{ztp}:ids") == 2


async def test_a_lock_whose_end_has_come_is_forgotten(redis_log: Any, store: Any) -> None:
    await trimmed(redis_log, store, Lock("s1", ALICE, until=FAR))
    await store.zadd("{ztp}:held", {"1": 1})
    assert ids(await redis_log.read(0)) == ["new"]
    await redis_log.commit(Lock("next", ALICE))
    assert await store.hlen("{ztp}:held_text") == await store.zcard("{ztp}:held") == 0
    assert await store.hlen("{ztp}:ids") == 2


async def test_a_lock_that_had_ended_before_it_came_is_an_entry_like_any(redis_log: Any, store: Any) -> None:
    await redis_log.commit(Lock("s1", ALICE, until=1.0))
    assert ids(await redis_log.read(0)) == ["s1"]
    assert await store.zcard("{ztp}:held") == 0


async def test_a_rotation_does_not_lose_a_standing_lock(valkey_url: str, redis_log: Any, store: Any) -> None:
    before = await trimmed(redis_log, store, Lock("s1", ALICE, until=FAR))
    async with log_at(valkey_url, KEY_B, KEY_A) as rotated:
        assert await rotated.reseal() == 1
        assert await rotated.reseal() == 0
        assert (await rotated.read(0)).entries[0] == before.entries[0]
    async with log_at(valkey_url, KEY_B) as later:
        assert (await later.read(0)).entries[0] == before.entries[0]


# ── holders that fall silent ──


async def silence(store: Any, worker: str, seconds: float = 61.0) -> None:
    await store.zadd("{ztp}:lease", {worker: round((time.time() - seconds) * 1000)})


async def test_a_silent_holder_is_forgotten_only_after_two_spans(redis_log: Any, store: Any) -> None:
    for worker in ("dead", "alive"):
        await redis_log.sync(worker, 0, LEASE)
    # a minute, or a step of the server's clock: nobody can tell
    await silence(store, "dead")
    await silence(store, "alive")
    assert (await redis_log.commit(Lock("r1", ALICE))).holders == {"dead", "alive"}
    await redis_log.sync("alive", 0, LEASE)
    await silence(store, "dead")
    await silence(store, "alive")
    committed = await redis_log.commit(Lock("r2", ALICE))
    assert committed.holders == {"alive"}
    await silence(store, "alive", 59.0)
    assert (await redis_log.commit(Lock("r3", ALICE))).holders == {"alive"}


async def test_an_older_sync_that_arrives_late_takes_nothing_back(redis_log: Any, store: Any) -> None:
    await redis_log.sync("w1", 0, LEASE)
    for number in (1, 2, 3):
        await redis_log.commit(Lock(f"r{number}", ALICE))
    await redis_log.sync("w1", 3, 30.0)
    end = await store.zscore("{ztp}:lease", "w1")
    await redis_log.sync("w1", 1, LEASE)
    assert await store.zscore("{ztp}:lease", "w1") == end
    assert (await redis_log.applied()).numbers == {"w1": 3}


async def test_the_lease_is_recorded_longer_than_it_is(redis_log: Any, store: Any) -> None:
    before = time.time()
    await redis_log.sync("w1", 0, LEASE)
    end = await store.zscore("{ztp}:lease", "w1")
    assert before * 1000 + 1020 * LEASE + 4 <= end <= time.time() * 1000 + 1020 * LEASE + 7


# ── entries of somebody else ──


@pytest.fixture
def critical(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    caplog.set_level(logging.CRITICAL)
    yield lambda: [record.getMessage() for record in caplog.records]


def everyone(synced: Synced) -> list[int]:
    """The numbers of what revokes everyone for want of a readable entry."""
    return [
        entry.number
        for entry in synced.entries
        if isinstance(entry, Lock)
        and entry.target == ALL
        and entry.revokes
        and "cannot be read" in entry.reason
    ]


async def rewrite(store: Any, number: int, **fields: Any) -> None:
    """Puts another entry in the place of `number`, as whoever can write to the store could."""
    rows = await store.xrange("{ztp}:rev")
    await store.delete("{ztp}:rev")
    for key, old in rows:
        changed = {name.encode(): value for name, value in fields.items()}
        await store.xadd("{ztp}:rev", old | changed if key == b"%d-0" % number else old, id=key)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"e": b""}, id="emptied"),
        pytest.param({"e": b"\x01" * 80}, id="made-up"),
        pytest.param({"i": b"0" * 64}, id="filed-as-another"),
        pytest.param({"i": b"short", "e": b"", "t": b"x"}, id="no-form-at-all"),
        pytest.param({"t": b"9" * 40}, id="no-time"),
    ],
)
async def test_a_hostile_entry_signs_everyone_out_and_leaves_no_gap(
    redis_log: Any, store: Any, critical: Any, fields: dict[str, bytes]
) -> None:
    for number in (1, 2, 3):
        await redis_log.commit(Lock(f"r{number}", ALICE))
    await rewrite(store, 2, **fields)
    for _ in range(2):
        synced = await redis_log.sync("w1", 0, LEASE)
        assert numbers(synced) == [1, 2, 3]
        assert everyone(synced) == [2]
    assert len(critical()) == 1  # loud, and once
    assert "entry 2 " in critical()[0]


async def test_another_entrys_seal_moved_here_does_not_open(redis_log: Any, store: Any) -> None:
    for number in (1, 2):
        await redis_log.commit(Lock(f"r{number}", ALICE))
    rows = await store.xrange("{ztp}:rev")
    await rewrite(store, 2, e=rows[0][1][b"e"])
    assert everyone(await redis_log.read(0)) == [2]


async def test_an_entry_taken_out_of_the_middle_signs_everyone_out(
    redis_log: Any, store: Any, critical: Any
) -> None:
    for number in range(1, 6):
        await redis_log.commit(Lock(f"r{number}", ALICE))
    await store.xdel("{ztp}:rev", "3-0", "5-0")
    synced = await redis_log.read(0)
    assert (synced.number, numbers(synced), everyone(synced)) == (5, [1, 2, 3, 4, 5], [3, 5])
    assert len(critical()) == 2


async def test_a_key_that_is_not_on_the_ring_is_no_reason_to_pass_over(
    valkey_url: str, redis_log: Any
) -> None:
    await redis_log.commit(Lock("r1", ALICE))
    async with log_at(valkey_url, KEY_B) as stranger:
        assert everyone(await stranger.read(0)) == [1]


@pytest.mark.parametrize("name", ["*", "3-0", "2-1", "99999999999999-7"])
async def test_an_entry_past_the_end_is_taken_out_and_stands_in_nobodys_way(
    redis_log: Any, store: Any, critical: Any, name: str
) -> None:
    for number in (1, 2):
        await redis_log.commit(Lock(f"r{number}", ALICE))
    await store.xadd("{ztp}:rev", {"i": "x", "e": "y", "t": "0"}, id=name)
    synced = await redis_log.sync("w1", 0, LEASE)
    assert (synced.number, numbers(synced), everyone(synced)) == (2, [1, 2], [])
    assert "1 entries that nobody of us wrote" in critical()[0]
    await store.xadd("{ztp}:rev", {"i": "x", "e": "y", "t": "0"}, id="99999999999999-9")
    assert (await redis_log.commit(Lock("r3", ALICE))).number == 3
    synced = await redis_log.read(0)
    assert (ids(synced), everyone(synced)) == (["r1", "r2", "r3"], [])


async def test_a_number_blown_up_does_not_blow_us_up(redis_log: Any, store: Any) -> None:
    await redis_log.commit(Lock("r1", ALICE))
    await store.set("{ztp}:seq", 10**15)
    synced = await redis_log.read(0)
    assert len(synced.entries) == 1000
    assert numbers(synced) == list(range(1, 1001))


async def test_nothing_of_an_entry_can_be_read_in_the_store(redis_log: Any, store: Any) -> None:
    hidden = Lock("hunter2-id", replace_target("hunter2"), reason="hunter2", message="hunter2", until=FAR)
    await redis_log.commit(hidden)
    dumped = b"".join([await store.dump(key) for key in await store.keys("*")])
    assert b"hunter2" not in dumped


def replace_target(name: str) -> Target:
    return Target(TargetKind.USER, name, "https://op.test")


# ── another server process, other data ──


async def test_a_restart_is_another_run_of_the_same_data(caplog: pytest.LogCaptureFixture) -> None:
    with server() as one:
        async with log_at(one.url) as log:
            before = await log.sync("w1", 0, LEASE)
            await log.commit(Lock("r1", ALICE))
            one.restart()
            after = await eventually(lambda: log.sync("w1", 1, LEASE))
            assert after.run != before.run
            assert (after.data, after.number) == (before.data, 1)
            assert after.settled < 100
            assert ids(await log.read(0)) == ["r1"]
            assert (await log.commit(Lock("r1", ALICE))).holders == {"w1"}
            assert (await log.commit(Lock("r2", ALICE))).number == 2


async def test_lost_data_is_other_data_and_its_acknowledgements_do_not_count(
    redis_log: Any, store: Any
) -> None:
    await redis_log.sync("w1", 0, LEASE)
    for number in (1, 2, 3):
        await redis_log.commit(Lock(f"r{number}", ALICE))
    before = await redis_log.sync("w1", 3, LEASE)
    await store.flushall()
    for number in (4, 5, 6):
        await redis_log.commit(Lock(f"r{number}", ALICE))
    after = await redis_log.sync("w1", 3, LEASE)
    assert after.data != before.data
    assert after.run == before.run
    # the three it has applied are not these
    assert (await redis_log.applied()).numbers == {"w1": 0}
    await redis_log.sync("w1", 0, LEASE)
    await redis_log.sync("w1", 2, LEASE)
    assert (await redis_log.applied()).numbers == {"w1": 2}


async def test_a_restart_without_data_is_other_data() -> None:
    with server() as one:
        async with log_at(one.url) as log:
            before = await log.sync("w1", 0, LEASE)
            await log.commit(Lock("r1", ALICE))
            one.restart(data=False)
            after = await eventually(lambda: log.sync("w1", 1, LEASE))
            assert after.number == 0
            assert after.run != before.run
            assert after.data != before.data


async def test_an_older_copy_shows_in_the_numbers_and_to_all_others_as_other_data() -> None:
    with server() as one:
        async with log_at(one.url) as log:
            for worker in ("w1", "w2"):
                await log.sync(worker, 0, LEASE)
            await log.commit(Lock("r1", ALICE))
            copied = one.copy()
            for number in (2, 3):
                await log.commit(Lock(f"r{number}", ALICE))
            for worker in ("w1", "w2"):
                before = await log.sync(worker, 3, LEASE)
            one.restore(copied)
            rolled_back = await eventually(lambda: log.sync("w1", 3, LEASE))
            assert rolled_back.number == 1  # less than it had: so it learns
            assert rolled_back.data == before.data
            # Meanwhile others take the numbers again, so that w2 could not see it from them.
            for number in (4, 5, 6):
                await log.commit(Lock(f"r{number}", ALICE))
            late = await log.sync("w2", 3, LEASE)
            assert late.number == 4
            assert late.data != before.data
            assert (await log.applied()).numbers == {"w1": 0, "w2": 0}
            assert (await log.sync("w1", 0, LEASE)).data == late.data


# ── servers that do not answer, or say no ──


@pytest.mark.parametrize(("answer", "label"), SAID)
async def test_each_refusal_has_its_label(answer: bytes, label: str) -> None:
    async with server_that_says(answer) as client:
        log = RedisRevocations(client, client, Sealer([KEY_A]), lease=LEASE, keep=KEEP)
        for call in (log.sync("w1", 0, LEASE), log.read(0), log.commit(Lock("r1", ALICE)), log.applied()):
            with pytest.raises(WorldError) as caught:
                await call
            assert caught.value.reason is Reason.STATE_UNAVAILABLE
            assert str(caught.value) == f"state: {label}"
        with pytest.raises(WorldError, match=f"state: {label}$"):
            await log.leave("w1")


async def calls(log: Any) -> set[str]:
    """How each call of the port fails, all at once; none succeeds."""
    answers = await asyncio.gather(
        log.sync("w1", 0, LEASE),
        log.read(0),
        log.commit(Lock("r1", ALICE)),
        log.applied(),
        log.leave("w1"),
        log.topology(),
        log.reseal(),
        return_exceptions=True,
    )
    assert all(isinstance(answer, WorldError) for answer in answers), answers
    return {str(answer) for answer in answers}


async def test_a_stopped_server_is_noticed_before_the_lease_is_over() -> None:
    with server() as one:
        async with log_at(one.url) as log:
            await log.sync("w1", 0, LEASE)
            one.pause()
            loop = asyncio.get_running_loop()
            begun = loop.time()
            with pytest.raises(WorldError, match="state: timeout"):
                await log.sync("w1", 0, LEASE)
            failed = loop.time() - begun
            assert await calls(log) == {"state: timeout"}
            # as a keeper does it: more and more of them, none of which waits for another
            syncs = (log.sync("w1", 0, LEASE) for _ in range(40))
            every = await asyncio.gather(*syncs, return_exceptions=True)
            assert {str(each) for each in every} == {"state: timeout"}
            one.resume()
            assert (await log.sync("w1", 0, LEASE)).number <= 1
            assert failed < LEASE * 5  # only that it ended by itself; the deadline is `_PATIENCE`


async def test_a_killed_server_is_unreachable_and_back_at_the_first_try() -> None:
    with server() as one:
        async with log_at(one.url) as log:
            await log.sync("w1", 0, LEASE)
            one.kill()
            assert await calls(log) == {"state: unreachable"}
            with pytest.raises(WorldError, match="state: unreachable"):
                await log.news(0)
            one.start()
            assert (await log.sync("w1", 0, LEASE)).number == 0


async def test_a_server_that_resets_everything_is_not_stormed() -> None:
    with server() as one:
        proxy = FaultProxy(("127.0.0.1", one.port))
        proxy.start()
        proxy.refuse = True
        async with log_at(f"redis://127.0.0.1:{proxy.port}") as log:
            begun = time.monotonic()
            for _ in range(100):
                with pytest.raises(WorldError, match="state: unreachable"):
                    await log.sync("w1", 0, LEASE)
            with pytest.raises(WorldError, match="state: unreachable"):
                await log.news(0)
            seconds = int(time.monotonic() - begun) + 1
            assert proxy.accepted <= 20 * seconds
            proxy.heal()
            while True:  # the pause is over within a second
                try:
                    await log.sync("w1", 0, LEASE)
                    break
                except WorldError:
                    await asyncio.sleep(0.05)
        proxy.stop()


async def test_what_cannot_be_fetched_does_not_make_news_spin(redis_log: Any) -> None:
    await redis_log.commit(Lock("r1", ALICE))
    begun = time.monotonic()
    assert [await redis_log.news(0) for _ in range(3)] == [True] * 3
    assert time.monotonic() - begun >= 0.4  # it paused twice


async def test_a_caller_that_gives_up_leaves_nothing_behind(redis_log: Any) -> None:
    for turns in range(8):
        task = asyncio.ensure_future(redis_log.sync("w1", 0, LEASE))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await redis_log.sync("w2", 0, LEASE)).number == 0


# ── what it can promise ──


async def test_the_embedded_server_is_strict(redis_log: Any) -> None:
    topology = await redis_log.topology()
    assert (topology.kind, topology.strict, topology.durable, topology.failover) == (
        "standalone",
        True,
        True,
        0.0,
    )


async def test_a_server_that_hides_its_configuration_is_bounded_unless_vouched_for(
    valkey_url: str, store: Any
) -> None:
    await store.execute_command("ACL", "SETUSER", "small", "on", ">pw", "~*", "+@all", "-config")
    url = valkey_url.replace("unix://", "unix://small:pw@")
    async with log_at(url) as log, log_at(url, trust_durability=True) as trusted:
        topology = await log.topology()
        assert (topology.strict, topology.why) == (False, "the server does not show its configuration")
        topology = await trusted.topology()
        assert (topology.strict, topology.why) == (True, "the operator vouches for it")
        # and all else works without CONFIG
        assert (await log.commit(Lock("r1", ALICE))).number == 1
    await store.execute_command("ACL", "DELUSER", "small")


async def test_a_cluster_is_bounded(cluster_url: str) -> None:
    async with log_at(cluster_url, trust_durability=True, expected_replicas=1) as log:
        topology = await log.topology()
        assert (topology.kind, topology.strict, topology.durable) == ("cluster", False, False)
        assert topology.failover == pytest.approx(2 * 1.0 + 1.0 + 1.04 * LEASE)


async def test_a_cluster_answers_although_another_part_of_it_is_down() -> None:
    with cluster() as whole:
        holder = whole.holder("{ztp}:rev")
        async with log_at(whole.url) as log:
            await log.commit(Lock("r1", ALICE))
            run = (await log.sync("w1", 0, LEASE)).run
            holder.kill()
            assert await unreachable(log)
            holder.start()
            after = await eventually(lambda: log.sync("w1", 1, LEASE))
            assert after.run != run
            assert after.number == 1


async def unreachable(log: Any) -> bool:
    with pytest.raises(WorldError) as caught:
        await log.sync("w1", 0, LEASE)
    return str(caught.value) in {"state: unreachable", "state: timeout", "state: cluster"}


async def eventually(call: Any) -> Any:
    """The first answer; whoever depends on the world tries again."""
    while True:
        try:
            return await call()
        except WorldError:
            await asyncio.sleep(0.05)


# ── copies ──


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary that goes on without replicas, and its replica."""
    with server() as primary, server(replicaof=f"127.0.0.1 {primary.port}") as replica:
        yield primary, replica


async def test_a_commit_is_copied_only_if_the_replicas_say_so(pair: tuple[Server, Server]) -> None:
    primary, replica = pair
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(log_at(primary.url, expected_replicas=1))
        two = await stack.enter_async_context(log_at(primary.url, expected_replicas=2))
        entry = Lock("r1", ALICE)
        while not (await one.commit(entry)).copied:  # until the replica has taken it all in
            pass
        assert (await two.commit(entry)).copied is False
        replica.pause()
        committed = await one.commit(Lock("r2", ALICE))
        assert (committed.number, committed.copied) == (2, False)
        # INVARIANT: asked again, it writes again; else the replica would have all of nothing
        assert (await one.commit(Lock("r2", ALICE))).copied is False
        assert (await one.commit(entry)).copied is False
        replica.resume()
        while not (await one.commit(Lock("r2", ALICE))).copied:
            pass
        assert ids(await one.read(0)) == ["r1", "r2"]


async def test_a_replica_refuses(pair: tuple[Server, Server]) -> None:
    async with log_at(pair[1].url, expected_replicas=1) as log:
        for call in (log.sync("w1", 0, LEASE), log.commit(Lock("r1", ALICE))):
            with pytest.raises(WorldError, match="state: readonly"):
                await call


async def test_a_primary_cut_off_from_its_replicas_refuses_every_sync(pair: tuple[Server, Server]) -> None:
    primary, replica = pair
    async with log_at(primary.url) as log:
        await log.sync("w1", 0, LEASE)
        await log.commit(Lock("r1", ALICE))
        replica.kill()
        primary.ask("CONFIG", "SET", "min-replicas-to-write", "1")
        before = primary.ask("ZSCORE", "{ztp}:lease", "w1")
        for call in (
            log.sync("w1", 0, LEASE),  # though it has nothing to change
            log.commit(Lock("r1", ALICE)),  # though it is there
            log.commit(Lock("r2", ALICE)),
        ):
            with pytest.raises(WorldError, match="state: noreplicas"):
                await call
        assert primary.ask("ZSCORE", "{ztp}:lease", "w1") == before
        assert primary.ask("GET", "{ztp}:seq") == "1"
        primary.ask("CONFIG", "SET", "min-replicas-to-write", "0")
        assert (await log.sync("w1", 0, LEASE)).number == 1


# ── Sentinel ──


@pytest.fixture
def trio() -> Iterator[SentinelTrio]:
    with sentinel_trio() as three:
        yield three


async def test_sentinel_is_strict_only_with_all_copies(trio: SentinelTrio) -> None:
    for expected, strict in ((0, False), (1, False), (2, True), (3, True)):
        async with log_at(trio.url, expected_replicas=expected) as log:
            topology = await log.topology()
            assert (topology.kind, topology.strict, topology.durable) == ("sentinel", strict, False)
            assert topology.failover == pytest.approx(1.0 + 1.5 + 1.0 + 1.04 * LEASE)


async def test_a_failover_is_another_run_of_the_same_data(trio: SentinelTrio) -> None:
    async with log_at(trio.url, expected_replicas=2) as log:
        before = await log.sync("w1", 0, LEASE)
        while not (await log.commit(Lock("r1", ALICE))).copied:
            pass
        former = trio.primary
        former.kill()
        trio.moved(former)
        after = await eventually(lambda: log.sync("w1", 1, LEASE))
        assert after.run != before.run
        assert (after.data, after.number) == (before.data, 1)
        again = await eventually(lambda: log.commit(Lock("r1", ALICE)))
        assert (again.number, again.copied) == (1, False)  # one of two replicas is down
        assert again.run == after.run
        assert "w1" in again.holders


async def test_a_primary_that_stands_still_is_left_and_when_back_refuses(trio: SentinelTrio) -> None:
    async with log_at(trio.url) as log:
        before = await log.sync("w1", 0, LEASE)
        former = trio.primary
        former.pause()
        trio.moved(former)
        after = await eventually(lambda: log.sync("w1", 0, LEASE))
        assert after.run != before.run
        former.resume()
        async with log_at(former.url) as direct:
            with pytest.raises(WorldError, match=r"state: (noreplicas|readonly)"):
                await direct.sync("w1", 0, LEASE)
                await direct.commit(Lock("r1", ALICE))
        assert (await eventually(lambda: log.sync("w1", 0, LEASE))).run == after.run


async def test_noreplicas_makes_it_ask_the_sentinels_again(trio: SentinelTrio) -> None:
    async with log_at(trio.url, expected_replicas=2) as log:
        while not (await log.commit(Lock("r1", ALICE))).copied:
            pass
        before = await log.sync("w1", 0, LEASE)
        former = trio.primary
        # Its replicas are made to follow another, which the sentinels name, and it does not know.
        for sentinel in trio.sentinels:
            sentinel.kill()
        chosen, third = (node for node in trio.nodes if node is not former)
        chosen.ask("REPLICAOF", "NO", "ONE")
        third.ask("REPLICAOF", "127.0.0.1", str(chosen.port))
        for sentinel in trio.sentinels:
            sentinel.watch(chosen)
        after = await eventually(lambda: log.sync("w1", 0, LEASE))
        while after.run == before.run:  # the former one has not missed its replicas yet
            after = await eventually(lambda: log.sync("w1", 0, LEASE))
        assert after.data == before.data


def test_the_worlds_end_with_their_context() -> None:
    with server() as one:
        process = one.process
        assert process is not None
    assert process.poll() is not None
