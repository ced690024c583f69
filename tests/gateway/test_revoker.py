"""The revoker over a store in memory: the order, the fence, and what is said when nobody can say.

The revoker's clock stands still unless a test moves it; workers are told what to say, or are real keepers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.worlds.memory_log import DURABLE, MemoryJournal, MemoryLog, MemoryStore
from tests.worlds.memory_state import SetClock
from ztproxy.core.lease import Applied, Revoked, Topology
from ztproxy.core.locks import Entry, Lift, Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.gateway.keeper import Keeper
from ztproxy.gateway.revoker import PATIENCE, Revoker

L = 0.8
WAITED = 1.05 * L
SENTINEL = Topology("sentinel", True, False, 6.5, "every replica has it")


def lock(id: str = "a", **more: Any) -> Lock:
    return Lock(id, Target(TargetKind.SESSION, id), **more)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 what is waited for is in the simulator, which knows no events
            await asyncio.sleep(0.001)


class Desk:
    """A revoker, its store and its clock."""

    def __init__(self, topology: Topology = DURABLE) -> None:
        self.clock, self.stores = SetClock(100.0), SetClock(2e6)
        self.store = MemoryStore(self.stores, topology)
        self.store.since -= 3600.0
        self.log, self.journal = MemoryLog(self.store), MemoryJournal()
        self.revoker = Revoker(self.log, self.journal, lease=L, boottime=self.clock)

    def begin(self, entry: Entry | None = None) -> asyncio.Task[Revoked]:
        return asyncio.create_task(self.revoker.revoke(entry or lock()))

    async def waiting(self, *tasks: asyncio.Task[Revoked]) -> None:
        """The store was asked three times more, and none of them is done."""
        asked = self.log.calls["applied"]
        await until(lambda: self.log.calls["applied"] > asked + 2)
        assert not any(task.done() for task in tasks)

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.store.data.entries]


async def test_nobody_to_wait_for() -> None:
    it = Desk()
    assert await it.revoker.revoke(lock()) == Revoked(1, True, True, 0.0)
    assert it.ids == ["a"] and it.journal.sure == [lock()]
    assert it.store.data.entries[0].made_at == it.stores.now


async def test_a_lift_goes_the_same_way() -> None:
    it = Desk()
    await it.revoker.revoke(lock(until=3e6))
    assert (await it.revoker.revoke(Lift("b", "a"))).number == 2
    assert it.ids == ["a", "b"]


async def test_the_same_id_again_is_the_same_entry() -> None:
    it = Desk()
    first, again = await it.revoker.revoke(lock()), await it.revoker.revoke(lock())
    assert first == again and it.ids == ["a"]


async def test_waits_for_every_holder() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    it.store.sync("v", 0, L)
    task = it.begin()
    await it.waiting(task)
    it.store.sync("w", 1, L)
    await it.waiting(task)
    it.clock.now += 0.3
    it.store.sync("v", 1, L)
    assert await task == Revoked(1, True, True, pytest.approx(0.3))


async def test_or_until_its_lease_is_over_on_our_own_clock() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    task = it.begin()
    it.stores.now += 3600.0  # the store's clock says nothing (F7)
    await it.waiting(task)
    it.clock.now += L
    await it.waiting(task)
    it.clock.now = 100.0 + WAITED
    assert (await task).confirmed


async def test_V22_a_holder_with_a_longer_lease() -> None:
    it = Desk()
    it.store.sync("w", 0, 3 * L)
    task = it.begin()
    await it.waiting(task)
    it.clock.now += WAITED
    await it.waiting(task)
    it.clock.now += 2 * WAITED
    assert (await task).confirmed


# -- not in the log --


@pytest.mark.parametrize(
    ("broken", "kept"),
    [
        pytest.param({"topology", "commit"}, [], id="A22_the_store_is_away"),
        pytest.param({"commit"}, [lock()], id="the_entry_is_refused"),
    ],
)
async def test_what_is_not_in_the_log_is_an_error(broken: set[str], kept: list[Entry]) -> None:
    it = Desk()
    it.log.broken |= broken
    with pytest.raises(WorldError) as raised:
        await it.revoker.revoke(lock())
    assert raised.value.reason is Reason.STATE_UNAVAILABLE
    assert it.ids == [] and it.journal.sure == kept
    it.log.broken.clear()
    assert (await it.revoker.revoke(lock())).confirmed


async def test_FI47_nothing_is_committed_that_this_node_could_not_put_back() -> None:
    it = Desk()
    it.journal.full = True
    with pytest.raises(WorldError, match="journal: no space") as raised:
        await it.revoker.revoke(lock())
    assert raised.value.reason is Reason.STATE_UNAVAILABLE
    assert it.ids == [] and it.journal.entries == []
    it.journal.full = False
    assert (await it.revoker.revoke(lock())).confirmed


async def test_an_answer_that_is_lost_is_an_error_and_asking_again_is_harmless() -> None:
    it = Desk()
    await it.revoker.revoke(lock("first"))
    it.log.deaf = True
    with pytest.raises(WorldError):
        await it.revoker.revoke(lock())
    it.log.deaf = False
    assert await it.revoker.revoke(lock()) == Revoked(2, True, True, 0.0)
    assert it.ids == ["first", "a"]


# -- in the log, and nobody can say --


async def test_a_store_that_goes_away_after_the_commit() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    task = it.begin()
    await it.waiting(task)
    it.log.away = True
    it.clock.now += WAITED
    await it.waiting(task)  # time alone settles nothing
    it.clock.now += PATIENCE
    assert await task == Revoked(1, False, True, pytest.approx(WAITED + PATIENCE))
    assert it.ids == ["a"]


async def test_a_store_that_comes_back_in_time() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    task = it.begin()
    await it.waiting(task)
    it.log.away = True
    it.clock.now += WAITED
    await it.waiting(task)
    it.log.away = False
    assert (await task).confirmed


async def test_FI16_a_copy_that_is_missing() -> None:
    it = Desk(SENTINEL)
    it.store.copying = False
    it.store.sync("w", 0, L)
    task = it.begin()
    await it.waiting(task)  # in force everywhere all the same, before it is said
    it.store.sync("w", 1, L)
    assert await task == Revoked(1, False, True, 0.0)
    it.store.copying = True
    assert (await it.revoker.revoke(lock())).confirmed


# -- another server --


async def test_V17_a_restart_between_commit_and_acknowledgement() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    task = it.begin()
    await it.waiting(task)
    it.store.restart()
    await until(lambda: it.log.calls["commit"] == 2)
    it.store.sync("w", 1, L)
    await it.waiting(task)  # for leases of the server before
    it.clock.now += WAITED
    assert await task == Revoked(1, True, True, pytest.approx(WAITED))
    assert it.log.calls["topology"] == 3


async def test_data_that_is_lost_between_commit_and_acknowledgement() -> None:
    it = Desk()
    await it.revoker.revoke(lock("first"))
    it.store.sync("w", 1, L)
    task = it.begin()
    await it.waiting(task)
    it.store.lose()
    await until(lambda: it.ids == ["a"])
    await it.waiting(task)
    it.clock.now += WAITED
    assert await task == Revoked(1, True, True, pytest.approx(WAITED))


async def test_V18_another_server_that_does_not_answer_in_time() -> None:
    it = Desk(SENTINEL)
    it.store.sync("w", 0, L)
    task = it.begin()
    await it.waiting(task)
    it.log.broken |= {"commit", "topology"}
    it.store.restart()
    await until(lambda: it.log.calls["commit"] > 1)
    it.clock.now += PATIENCE
    assert await task == Revoked(1, False, True, pytest.approx(PATIENCE))


async def test_the_topology_of_before_where_the_new_one_cannot_be_had() -> None:
    it = Desk(SENTINEL)
    it.store.sync("w", 0, L)
    task = it.begin()
    await it.waiting(task)
    it.log.broken |= {"topology"}
    it.store.restart()
    await until(lambda: it.log.calls["commit"] > 1)
    it.clock.now += WAITED
    await it.waiting(task)
    it.clock.now += SENTINEL.failover
    assert (await task).confirmed


async def test_servers_that_change_all_the_time() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    task = it.begin()
    for time in (1, 2, 3):
        await until(lambda time=time: it.log.calls["commit"] == time)
        await it.waiting(task)
        it.store.restart()
    assert not (await task).confirmed
    assert it.ids == ["a"]


async def test_F7_who_saw_the_change_believes_no_clock_but_its_own() -> None:
    it = Desk()
    await it.revoker.revoke(lock("first"))
    it.store.lose()
    it.stores.now += 3600.0  # set forward, so that the store looks as if it had long been there
    task = it.begin()
    await it.waiting(task)
    it.clock.now += WAITED
    assert (await task).confirmed
    # Who heard of it in time does not wait now.
    it.store.lose()
    it.stores.now += 3600.0
    it.revoker.heard(it.store.run, it.store.data.id)
    it.clock.now += WAITED
    assert await it.revoker.revoke(lock("b")) == Revoked(1, True, True, 0.0)


# -- many --


async def test_V23_many_at_once_share_questions_and_writes() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    tasks = [it.begin(lock(f"l{number}")) for number in range(2000)]
    await until(lambda: len(it.ids) == 2000)
    await it.waiting(*tasks)
    it.store.sync("w", 1000, L)
    await until(lambda: sum(task.done() for task in tasks) == 1000)
    it.store.sync("w", 2000, L)
    done = await asyncio.gather(*tasks)
    assert all(one.confirmed for one in done) and {one.number for one in done} == set(range(1, 2001))
    assert it.log.calls["applied"] < 400 and it.journal.writes < 100
    assert len(it.journal.sure) == 2000


async def test_who_does_not_wait_holds_up_nobody() -> None:
    it = Desk()
    it.store.sync("w", 0, L)
    impatient, patient = it.begin(), it.begin(lock("b"))
    await until(lambda: it.ids == ["a", "b"])
    impatient.cancel()
    await it.waiting(patient)
    it.store.sync("w", 2, L)
    assert (await patient).confirmed and impatient.cancelled()


async def test_a_mistake_of_ours_leaves_nobody_waiting() -> None:
    class Wrong(MemoryLog):
        async def applied(self) -> Applied:
            raise RuntimeError("no")

    it = Desk()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    revoker = Revoker(Wrong(it.store), it.journal, lease=L, boottime=it.clock)
    assert not (await revoker.revoke(lock())).confirmed
    assert not (await revoker.revoke(lock("b"))).confirmed


async def test_a_question_from_before_the_commit_settles_nothing() -> None:
    """Its answer could be another server's, or acknowledge numbers of a log that is gone."""

    class Slow(MemoryLog):
        held: asyncio.Event | None = None
        holding = False

        async def applied(self) -> Applied:
            applied, held = await super().applied(), self.held
            if held is not None:
                self.holding = True
                await held.wait()
            return applied

    it = Desk()
    log = Slow(it.store)
    revoker = Revoker(log, it.journal, lease=L, boottime=it.clock)
    it.store.sync("w", 0, L)
    first = asyncio.create_task(revoker.revoke(lock()))
    log.held = asyncio.Event()
    await until(lambda: log.holding)
    it.store.restart()
    second = asyncio.create_task(revoker.revoke(lock("b")))
    await until(lambda: it.ids == ["a", "b"])
    log.held.set()
    await until(lambda: log.calls["commit"] == 3)
    it.store.sync("w", 2, L)
    asked = log.calls["applied"]
    await until(lambda: log.calls["applied"] > asked + 2)
    it.clock.now += WAITED
    assert (await first).confirmed and (await second).confirmed
    assert log.calls["commit"] == 3, "the second went to the new server at once, and not once more"


# -- with a real keeper --


async def test_confirmed_means_that_the_workers_have_been_told() -> None:
    it = Desk()
    told: list[str] = []
    wall = SetClock(1e6)
    way = MemoryLog(it.store)
    keeper = Keeper(
        way,
        MemoryJournal(),
        worker="w",
        lease=L,
        quarantine=1.0,
        on_rollback="revoke_all",
        keep=1000.0,
        boottime=it.clock,
        clock=wall,
        applied=lambda locks: told.extend(one.id for one in locks),
        started_over=lambda why: None,
        report=lambda text: None,
        heard=it.revoker.heard,
    )
    running = asyncio.create_task(keeper.run())
    assert await keeper.wait(20)
    for number in range(20):
        assert (await it.revoker.revoke(lock(f"l{number}"))).confirmed
        assert told[-1] == f"l{number}" and keeper.live()
    # The revoker hears of another server in time, by the keeper, and need not believe the store's clock.
    it.store.restart()
    it.stores.now += 3600.0
    asked = way.calls["sync"]
    await until(lambda: way.calls["sync"] > asked + 2)
    task = it.begin(lock("after"))
    await it.waiting(task)
    it.clock.now += WAITED
    wall.now += WAITED
    assert (await task).confirmed
    await until(keeper.live)
    # Cut off, it is waited for until it lets nobody in any more.
    way.away = True
    task = it.begin(lock("last"))
    await it.waiting(task)
    assert keeper.live()
    it.clock.now += WAITED
    wall.now += WAITED
    assert (await task).confirmed
    assert not keeper.live() and told[-1] != "last"
    await keeper.close()
    await running
