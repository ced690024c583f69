"""The keeper over a store in memory: what grants a lease, what ends it, and what it puts back.

The keeper's clock stands still unless a test moves it, so that leases end when the test says so; its beats
and waits are real, and short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Any

import pytest

from tests.worlds.memory_log import MOST, MemoryJournal, MemoryLog, MemoryStore
from tests.worlds.memory_state import SetClock
from ztproxy.core.lease import Hold, Topology, Why, revocation_after_rollback
from ztproxy.core.locks import ALL, Entry, Lift, Lock, Target, TargetKind
from ztproxy.errors import OperatorError
from ztproxy.gateway.keeper import MOST_UNDER_WAY, Keeper

L, Q, KEEP = 0.2, 1.0, 1000.0
PATIENT = 400.0  # a lease so long that no beat comes within a test but the first
UNSAFE = Topology("standalone", False, False, 0.0, "the last second may be lost")


def lock(id: str, **more: Any) -> Lock:
    return Lock(id, Target(TargetKind.SESSION, id), made_at=5.0, **more)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 what is waited for is in the simulator, which knows no events
            await asyncio.sleep(0.002)


class Kept:
    """A keeper at work. `told` are the ids it passed on, `over` why it started over, `said` its reports."""

    def __init__(self, *journal: Entry, lease: float = L, topology: Topology | None = None) -> None:
        self.boottime, self.wall, self.stores = SetClock(100.0), SetClock(1e6), SetClock(2e6)
        self.store = MemoryStore(self.stores, topology) if topology else MemoryStore(self.stores)
        self.store.since -= 3600.0
        self.log, self.journal = MemoryLog(self.store), MemoryJournal(*journal)
        self.told: list[list[str]] = []
        self.over: list[Why] = []
        self.said: list[str] = []
        self.on_applied: Callable[[], None] = lambda: None
        self.on_over: Callable[[], None] = lambda: None
        self.options: dict[str, Any] = {"lease": lease, "on_rollback": "revoke_all"}

    def _applied(self, locks: tuple[Lock, ...]) -> None:
        self.on_applied()
        self.told.append([one.id for one in locks])

    def _started_over(self, why: Why) -> None:
        self.on_over()
        self.over.append(why)

    def begin(self) -> None:
        self.keeper = Keeper(
            self.log,
            self.journal,
            worker="w",
            quarantine=Q,
            keep=KEEP,
            boottime=self.boottime,
            clock=self.wall,
            applied=self._applied,
            started_over=self._started_over,
            report=self.said.append,
            **self.options,
        )
        self.task = asyncio.create_task(self.keeper.run())

    async def __aenter__(self) -> Kept:
        self.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.keeper.close()
        await self.task

    async def live(self) -> None:
        await until(self.keeper.live)

    async def pass_time(self, seconds: float) -> None:
        """Both clocks go on; and the keeper has looked at them."""
        self.boottime.now += seconds
        self.wall.now += seconds
        beats = self.log.calls["sync"] + 2 + MOST_UNDER_WAY
        await until(lambda: self.log.calls["sync"] > beats)

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.store.data.entries]


# -- the lease --


async def test_a_lease_from_the_start() -> None:
    it = Kept()
    it.store.commit(lock("a"))
    async with it:
        assert await it.keeper.wait(20)
        assert it.keeper.until == it.boottime.now + L
        assert it.keeper.hold is None and not it.keeper.away
        assert it.keeper.topology == it.store.topology
        assert it.told == [["a"]] and it.keeper.book.applied == 1
        assert it.over == [] and it.keeper.era == 0
        await until(lambda: it.store.data.acks == {"w": 1})
        await until(lambda: it.keeper.pushed)
        # It runs out by itself.
        it.log.away = True
        it.boottime.now += L
        it.wall.now += L
        assert not it.keeper.live()


async def test_nobody_waits_for_a_process_that_is_gone() -> None:
    it = Kept()
    it.store.sync("dead", 0, L)
    it.store.sync("other", 0, L)
    it.options["gone"] = ("dead", "never had one")
    async with it:
        await it.live()
        await until(lambda: "dead" not in it.store.data.leases)
        assert {"other", "w"} == set(it.store.data.leases) == set(it.store.data.acks)


async def test_new_locks_are_told_before_the_lease_is_longer() -> None:
    async with Kept() as it:
        await it.live()
        seen: list[tuple[int, float]] = []
        before = it.keeper.until
        it.on_applied = lambda: seen.append((it.keeper.book.applied, it.keeper.until))
        it.log.gate = asyncio.Event()
        await asyncio.sleep(0.05)
        it.boottime.now += 0.1
        it.wall.now += 0.1
        it.store.commit(lock("a"))
        it.log.gate.set()
        it.log.gate = None
        await until(lambda: it.keeper.until > before)
        await until(lambda: seen)
        assert seen[0][0] == 1


async def test_news_is_applied_and_acknowledged_without_waiting_for_the_beat() -> None:
    it = Kept(lease=PATIENT)
    async with it:
        await it.live()
        for number, id in enumerate("abc", 1):
            it.store.commit(lock(id))
            await until(lambda number=number: it.store.data.acks == {"w": number})
        assert it.told == [["a"], ["b"], ["c"]]


async def test_a_burst_of_news_is_not_a_burst_of_questions() -> None:
    it = Kept(lease=PATIENT)
    async with it:
        await it.live()
        before = it.log.calls["sync"]
        for number in range(500):
            it.store.commit(lock(f"l{number}"))
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: it.store.data.acks == {"w": 500})
        assert it.log.calls["sync"] - before < 100


async def test_without_a_push_channel_the_beat_brings_it() -> None:
    it = Kept()
    it.log.broken.add("news")
    async with it:
        await it.live()
        it.store.commit(lock("a"))
        await until(lambda: it.store.data.acks == {"w": 1})
        assert not it.keeper.pushed
        it.log.broken.clear()
        await until(lambda: it.keeper.pushed)
        it.log.broken.add("news")
        await until(lambda: not it.keeper.pushed)
        assert it.keeper.live()


async def test_FI04_a_slow_store_costs_no_lease() -> None:
    async with Kept() as it:
        await it.live()
        gate = it.log.gate = asyncio.Event()
        held = it.log.calls["sync"]
        await until(lambda: it.log.calls["sync"] >= held + MOST_UNDER_WAY - 1)
        it.boottime.now += 0.6 * L  # the answers were on their way for so long
        it.wall.now += 0.6 * L
        asked = it.log.calls["sync"]
        await asyncio.sleep(0.1)
        assert it.log.calls["sync"] <= asked + 1, "and no more are sent than fit into a lease"
        assert it.keeper.live()
        it.log.gate = None
        gate.set()
        await until(lambda: it.keeper.until == it.boottime.now + L)


async def test_FI05_answers_older_than_a_lease_grant_none() -> None:
    async with Kept() as it:
        await it.live()
        gate = it.log.gate = asyncio.Event()
        held = it.log.calls["sync"]
        await until(lambda: it.log.calls["sync"] >= held + MOST_UNDER_WAY - 1)
        it.boottime.now += L
        it.wall.now += L
        it.log.away = True
        gate.set()
        await until(lambda: it.keeper.away)
        assert not it.keeper.live()


async def test_a_store_that_is_away_and_comes_back() -> None:
    async with Kept() as it:
        await it.live()
        lease = it.keeper.until
        it.log.away = True
        await until(lambda: it.keeper.away)
        assert it.keeper.until == lease, "no error ends a lease early or late"
        it.boottime.now += L
        it.wall.now += L
        assert not await it.keeper.wait(1000)
        it.log.away = False
        await it.live()
        assert not it.keeper.away
        assert it.said.count("revocation: the store is back") == 1
        assert sum("the store is away" in one for one in it.said) == 1


async def test_FI07_who_is_not_answered_has_no_lease() -> None:
    it = Kept()
    it.log.deaf = True
    async with it:
        await until(lambda: it.keeper.away)
        assert not it.keeper.live() and it.keeper.topology is None
        it.log.deaf = False
        await it.live()


async def test_waiting_ends() -> None:
    it = Kept()
    it.store.since = it.stores.now
    async with it:
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)
        assert not await it.keeper.wait(0.01)
        waiting = asyncio.create_task(it.keeper.wait(1000))
        await asyncio.sleep(0.01)
        it.keeper.stop()
        assert not await waiting


async def test_more_than_one_answer_holds() -> None:
    it = Kept(lease=PATIENT)
    for number in range(2 * MOST + 5):
        it.store.commit(lock(f"l{number}"))
    async with it:
        await it.live()
        assert it.keeper.book.applied == 2 * MOST + 5
        assert [len(told) for told in it.told] == [MOST, MOST, 5]


async def test_F6_a_clock_that_jumps_voids_the_lease() -> None:
    async with Kept() as it:
        await it.live()
        it.wall.now += 0.049  # it drifts, and is put right
        asked = it.log.calls["sync"]
        await until(lambda: it.log.calls["sync"] > asked + 2)
        assert it.keeper.live()
        gate = it.log.gate = asyncio.Event()
        asked = it.log.calls["sync"]
        await until(lambda: it.log.calls["sync"] > asked)
        it.wall.now += 5.0
        await until(lambda: it.keeper.until == -inf)
        assert "revocation: the clock jumped by +5.0" in "".join(it.said)
        gate.set()  # answers to questions from before
        it.log.gate = None
        await it.live()
        assert it.keeper.era == 0


# -- other logs --


async def test_quarantine_at_the_start() -> None:
    it = Kept()
    it.store.since = it.stores.now
    async with it:
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)
        assert not it.keeper.live()
        it.boottime.now += Q
        it.wall.now += Q
        await it.live()


async def test_FI11_what_this_node_knows_is_in_the_log_before_anyone_is_let_in() -> None:
    shut, lifted = lock("shut", until=1e9), lock("lifted", until=1e9)
    it = Kept(lock("old", number=1), shut, lifted, Lift("lift", "lifted"))
    it.store.commit(lock("old"))
    it.log.broken.add("commit")
    async with it:
        await until(lambda: it.log.calls["commit"] > 3)
        assert not it.keeper.live() and it.keeper.hold is Hold.RESTORING
        it.log.broken.clear()
        await it.live()
        assert it.ids == ["old", "shut", "lift"]
        assert it.keeper.book.applied == 3
    assert sum("putting back" in one for one in it.said) == 1
    assert "revocation: the log lacked 2 entries, which are in it again" in it.said


async def test_what_another_process_wrote_a_moment_ago_is_nothing_the_log_has_lost() -> None:
    class Shared(MemoryJournal):
        """Just before it is read for putting back, another worker applies one more entry and writes it."""

        reads = 0

        def read(self) -> tuple[Entry, ...]:
            self.reads += 1
            if self.reads == 2:
                it.log.broken.add("sync")
                it.store.commit(lock("new"))
                self.entries.append(lock("new", number=2))
            return super().read()

    it = Kept()
    it.store.commit(lock("old"))
    it.journal = Shared()
    async with it:
        await until(lambda: it.keeper.away)
        asked = it.log.calls["sync"]
        await until(lambda: it.log.calls["sync"] > asked + 2)
        it.log.broken.clear()
        await it.live()
        assert it.ids == ["old", "new"], "nobody is signed out for it"


async def test_FI12_data_that_is_lost() -> None:
    async with Kept() as it:
        it.store.commit(lock("a"))
        it.store.commit(lock("b"))
        await until(lambda: it.store.data.acks.get("w") == 2)
        await it.live()
        seen: list[tuple[float, int]] = []
        it.on_over = lambda: seen.append((it.keeper.until, it.keeper.book.applied))
        it.store.lose()
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)
        assert it.over == [Why.LOST] and seen == [(-inf, 0)]
        assert not it.keeper.live()
        # Sessions went with the data, and everybody is signed out besides: some may be on their way there.
        everyone = revocation_after_rollback(it.store.data.id, it.store.run)
        assert it.ids == ["a", "b", everyone.id]
        it.boottime.now += Q
        it.wall.now += Q
        await it.live()
        assert it.keeper.era == 1
        await until(lambda: it.store.data.leases.keys() == {"w.1"})
        assert it.store.data.acks["w.1"] == 3


@pytest.mark.parametrize(
    ("on_rollback", "count"),
    [pytest.param("revoke_all", 3, id="revoke_all"), pytest.param("continue", 2, id="continue")],
)
async def test_FI13_an_older_state(on_rollback: str, count: int) -> None:
    it = Kept()
    it.options["on_rollback"] = on_rollback
    async with it:
        it.store.commit(lock("a"))
        backup = it.store.data.copy()
        it.store.commit(lock("b"))
        await until(lambda: it.store.data.acks.get("w") == 2)
        it.store.restore(backup)
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)
        assert it.over == [Why.ROLLED_BACK]
        assert it.ids[:2] == ["a", "b"] and len(it.ids) == count
        assert [one.target for one in it.store.data.entries[2:] if isinstance(one, Lock)] == [ALL] * (
            count - 2
        )


async def test_a_restart_of_a_durable_store_is_no_start_over() -> None:
    async with Kept() as it:
        it.store.commit(lock("a"))
        await until(lambda: it.log.calls["topology"] == 2)
        it.store.restart()
        await until(lambda: it.log.calls["topology"] == 3)
        lease = it.keeper.until
        it.boottime.now += 0.1
        it.wall.now += 0.1
        await until(lambda: it.keeper.until > lease)
        assert it.over == [] and it.keeper.era == 0


async def test_another_server_of_a_store_that_may_lose_something() -> None:
    async with Kept(topology=UNSAFE) as it:
        await it.live()
        it.store.restart()
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)
        assert it.over == [Why.FAILED_OVER]


# -- mistakes of others --


async def test_what_could_not_be_told_is_not_acknowledged() -> None:
    async with Kept() as it:
        await it.live()

        def fails() -> None:
            raise RuntimeError("a hook")

        it.on_applied = fails
        it.store.commit(lock("a"))
        await until(lambda: Why.UNTOLD in it.over)
        await asyncio.sleep(0.05)
        assert not it.keeper.live() and it.store.data.acks["w"] == 0
        assert "revocation: RuntimeError: a hook" in it.said
        it.on_applied = lambda: None
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)
        assert it.told[-1] == ["a"]


async def test_nobody_is_let_in_before_everybody_has_started_over() -> None:
    async with Kept() as it:
        await it.live()

        def fails() -> None:
            raise RuntimeError("a cache")

        it.on_over = fails
        it.store.lose()
        await until(lambda: "revocation: RuntimeError: a cache" in it.said)
        await asyncio.sleep(0.05)
        assert it.keeper.hold is Hold.RESTORING and it.over == []
        it.on_over = lambda: None
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)
        assert it.over == [Why.LOST]


# -- the journal --


async def test_what_is_applied_is_written_down_once() -> None:
    it = Kept(lock("a", number=1))
    it.store.commit(lock("a"))
    async with it:
        it.store.commit(lock("b"))
        await until(lambda: it.store.data.acks.get("w") == 2)
        await it.pass_time(0.01)
        assert [one.id for one in it.journal.entries] == ["a", "b"] and it.journal.sure == []


async def test_FI47_a_full_disk_costs_no_lease() -> None:
    async with Kept() as it:
        await it.live()
        it.journal.full = True
        it.store.commit(lock("a"))
        await until(lambda: it.store.data.acks.get("w") == 1)
        await it.pass_time(0.01)
        assert it.keeper.live()
        assert it.said.count("revocation: no space left on the device") == 1


async def test_a_journal_that_cannot_be_read_stops_the_keeper() -> None:
    it = Kept()
    it.journal.torn = True
    it.begin()
    with pytest.raises(OperatorError):
        await it.task
    assert not it.keeper.live()
    await it.keeper.close()


async def test_a_journal_that_cannot_be_read_later_holds_the_lease() -> None:
    async with Kept() as it:
        await it.live()
        it.journal.torn = True
        it.store.lose()
        await until(lambda: any("the disk cannot be read" in one for one in it.said))
        assert not it.keeper.live()
        it.journal.torn = False
        await until(lambda: it.keeper.hold is Hold.QUARANTINE)


# -- time --


async def test_entries_are_forgotten_when_nobody_can_meet_them_any_more() -> None:
    async with Kept() as it:
        it.store.commit(lock("a"))
        await until(lambda: it.store.data.acks.get("w") == 1)
        await it.pass_time(61)
        it.store.commit(lock("b"))
        await until(lambda: it.store.data.acks.get("w") == 2)
        await it.pass_time(KEEP - 1)
        assert it.keeper.book.has("a") and it.keeper.book.has("b")
        await it.pass_time(1)
        assert not it.keeper.book.has("a") and it.keeper.book.has("b")
        await it.pass_time(KEEP)
        assert not it.keeper.book.has("b")


async def test_attack_a_wall_clock_a_day_ahead_forgets_nothing() -> None:
    async with Kept() as it:
        it.store.commit(lock("a"))
        it.store.commit(lock("b", until=it.wall.now + 2 * KEEP))
        await until(lambda: it.store.data.acks.get("w") == 2)
        it.wall.now += 86400.0
        await it.pass_time(61)
        assert it.keeper.book.has("a")
        it.wall.now -= 86400.0
        await it.pass_time(KEEP)
        assert not it.keeper.book.has("a") and it.keeper.book.has("b")


# -- the end --


async def test_close_leaves() -> None:
    it = Kept()
    async with it:
        await it.live()
    assert not it.keeper.live() and it.keeper.until == -inf
    assert it.store.data.leases == {}


async def test_close_while_the_store_is_away() -> None:
    it = Kept()
    async with it:
        await it.live()
        it.log.away = True
    assert not it.keeper.live()
    assert it.store.data.leases != {}


async def test_an_answer_after_the_end_grants_nothing() -> None:
    it = Kept()
    async with it:
        await it.live()
        gate = it.log.gate = asyncio.Event()
        held = it.log.calls["sync"]
        await until(lambda: it.log.calls["sync"] > held)
        it.keeper.stop()
        it.store.commit(lock("a"))
        gate.set()
        it.log.gate = None
    assert it.keeper.until == -inf and it.told == []
