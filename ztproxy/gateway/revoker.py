"""The revoker: puts an entry into the log and says when it holds everywhere.

Knows: the log, the journal, the order. Promises: the entry is on this node's disk before it is in the log;
"confirmed" is said only after the fence (`core.fence`); an entry that is in the log is never called refused;
everybody who waits shares one question to the store at a time, and one write to the disk, so that ten
thousand revocations in a few seconds are a few hundred questions. Leaves to the caller: the entry's id, with
which the same can be asked again, and the audit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from ztproxy.core.fence import Again, Done, Fence, Generation, Verdict, Wait
from ztproxy.core.lease import Applied, Committed, Revoked, Terms, Topology
from ztproxy.core.locks import Entry
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError, WorldError
from ztproxy.gateway.ports.revocation import Journal, RevocationLog

PATIENCE = 3.0
"""Seconds to wait, beyond what a fence needs, for a store that does not say how far the workers are."""

_AT_ONCE = 8  # commits under way: in a burst the others wait here, where no deadline of the store's runs
_COMMITS = 3  # of one entry, each to another server or other data
_RETRY = 0.1
_POLL = (0.002, 0.02)  # from, to: most workers answer in a moment, and those who do not are waited for


class _Waiting(NamedTuple):
    fence: Fence
    give_up: float
    verdict: asyncio.Future[Verdict]


class Revoker:
    """`lease` is L, in seconds; `boottime` counts seconds and cannot be set."""

    def __init__(
        self, log: RevocationLog, journal: Journal, *, lease: float, boottime: Callable[[], float]
    ) -> None:
        self._log, self._journal, self._lease, self._boottime = log, journal, lease, boottime
        self._topology: Topology | None = None
        self._topology_of = ""
        self._generation: Generation | None = None
        self._waiting: list[_Waiting] = []
        self._poller: asyncio.Task[None] | None = None
        self._unwritten: list[Entry] = []
        self._batch: asyncio.Task[None] | None = None
        self._disk, self._turn = asyncio.Lock(), asyncio.Semaphore(_AT_ONCE)

    async def revoke(self, entry: Entry) -> Revoked:
        """Has `entry` in the log, and waits until it holds everywhere or nobody can say whether it does.

        Raises `WorldError(STATE_UNAVAILABLE)` where it may not be in the log: the same id can be sent again.
        On this node's disk it may be even so; then it is in force after the next start at the latest.
        """
        began = self._boottime()
        topology = self._topology or await self._learn_topology()
        await self._write(entry)
        committed: Committed | None = await self._commit(entry)
        confirmed, number = False, 0
        for _ in range(_COMMITS):
            if committed is None:
                break
            number = committed.number
            topology = await self._topology_for(committed, topology)
            fence = self._raise(committed, topology)
            verdict = await self._wait_for(fence)
            if not isinstance(verdict, Again):
                confirmed = verdict == Done(confirmed=True)
                break
            committed = await self._commit_again(entry)
        return Revoked(number, confirmed, topology.strict, self._boottime() - began)

    def heard(self, run: str, data: str) -> None:
        """Which server and data somebody in this process has just heard from. Told in good time it saves the
        first revocation after a change the wait for leases of before (`core.fence.Generation`)."""
        known = self._generation or Generation(run, data)
        self._generation = known.heard(run, data, self._boottime())

    # ── the disk ──

    async def _write(self, entry: Entry) -> None:
        """On the disk when this returns, together with what others wrote at the same time."""
        self._unwritten.append(entry)
        if self._batch is None:
            self._batch = asyncio.create_task(self._flush())
            self._batch.add_done_callback(_heard_out)
        try:
            await asyncio.shield(self._batch)
        except OperatorError as error:
            raise WorldError(Reason.STATE_UNAVAILABLE, f"journal: {error}") from error

    async def _flush(self) -> None:
        async with self._disk:
            # INVARIANT: in one step. Whoever comes later waits for the next batch.
            self._batch, batch, self._unwritten = None, self._unwritten, []
            # Not on the loop: people's requests may be served on it, and a disk can take its time.
            await asyncio.to_thread(self._journal.keep, batch, sure=True)

    # ── the log ──

    async def _commit(self, entry: Entry) -> Committed:
        async with self._turn:
            try:
                return await self._log.commit(entry)
            except WorldError:
                # A connection that was found dead says nothing of the store, and the id makes twice once.
                return await self._log.commit(entry)

    async def _commit_again(self, entry: Entry) -> Committed | None:
        """Once more, to whoever answers now; None if nobody does."""
        give_up = self._boottime() + PATIENCE
        while self._boottime() < give_up:
            try:
                return await self._commit(entry)
            except WorldError:
                await asyncio.sleep(_RETRY)
        return None

    async def _learn_topology(self) -> Topology:
        self._topology = await self._log.topology()
        return self._topology

    async def _topology_for(self, committed: Committed, known: Topology) -> Topology:
        """The topology of the server it was committed to; the one known before if that cannot be had."""
        if committed.run == self._topology_of:
            return self._topology or known
        try:
            topology = await self._learn_topology()
        except WorldError:
            return known
        self._topology_of = committed.run
        return topology

    # ── the fence ──

    def _raise(self, committed: Committed, topology: Topology) -> Fence:
        self.heard(committed.run, committed.data)
        terms = Terms(self._lease, failover=topology.failover, durable=topology.durable)
        return Fence.after(committed, self._boottime(), terms, self._generation)

    async def _wait_for(self, fence: Fence) -> Verdict:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(fence, max(fence.ends_at, self._boottime()) + PATIENCE, verdict))
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        return await verdict

    async def _poll(self) -> None:
        """Asks the store how far the workers are, for all who wait, until nobody does."""
        asking: list[_Waiting] = []
        pause, longest = _POLL
        try:
            while self._waiting:
                # INVARIANT: only for those whose entry was committed before the question was asked.
                asking, self._waiting = self._waiting, []
                applied = await self._ask()
                now = self._boottime()
                self._waiting += [one for one in asking if not _settled(one, applied, now)]
                asking = []
                if not self._waiting:
                    break  # and the next one begins with short pauses
                # At the very moment when the first of them has waited long enough, if that is sooner.
                ends = [one.fence.ends_at - now for one in self._waiting if now < one.fence.ends_at]
                await asyncio.sleep(min([pause, *ends]))
                pause = min(longest, 1.5 * pause)
        finally:
            self._poller = None
            for one in (*asking, *self._waiting):  # only after a mistake of ours: nobody may be left waiting
                if not one.verdict.done():
                    one.verdict.set_result(Wait(one.give_up))
            self._waiting = []

    async def _ask(self) -> Applied | None:
        try:
            applied = await self._log.applied()
        except WorldError:
            return None
        self.heard(applied.run, applied.data)
        return applied


def _settled(one: _Waiting, applied: Applied | None, now: float) -> bool:
    """Whether this one need not wait any longer; tells it so."""
    if not one.verdict.done():
        verdict = one.fence.verdict(applied, now)
        if isinstance(verdict, Wait) and now < one.give_up:
            return False
        one.verdict.set_result(verdict)
    return True


def _heard_out(task: asyncio.Task[None]) -> None:
    """So that asyncio does not complain where everybody who waited has gone away."""
    if not task.cancelled():
        task.exception()
