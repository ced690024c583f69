"""The keeper: keeps this worker's book of locks up to date, and the lease under which it may be relied on.

Knows: the log, the journal, when to ask. Promises: whatever is new is in the book and told (`applied`) before
the lease is longer; a store that is slow costs no lease as long as its answers are younger than one; a store
that lost entries has them back, from here, before this worker relies on it. Without an answer the lease runs
out by itself; nothing here ends it late. Leaves the arithmetic to `core.lease`.

It never relies on ending a task that waits for the store: on Python 3.11 a cancellation can be lost there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from math import inf
from typing import Any, Literal, NamedTuple
from zlib import crc32

from ztproxy.core.lease import Granted, Hold, Holder, NotYet, Sent, StartOver, Synced, Terms, Topology, Why
from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import Entry, Lock
from ztproxy.errors import OperatorError, WorldError
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.revocation import Journal, RevocationLog

MOST_UNDER_WAY = 8
"""SYNCs sent and not answered: as many as fit into one lease."""

JUMP = 0.05
"""Seconds by which the wall clock may leave the other: beyond, the machine may have been elsewhere (F6)."""

_WITHOUT = 0.1  # between two SYNCs while there is no lease
_GAP = 0.002  # between two SYNCs that cannot wait, so that a burst of revocations is not a burst of these
_AT_ONCE = 8  # entries put back at one time
_MARK_EVERY = 60.0


class _Mark(NamedTuple):
    """What had been applied when: to know, much later, what is old by a clock that cannot be set."""

    at: float
    number: int
    wall: float


class Keeper:
    """`until` is the end of the lease by `boottime`, read directly where each microsecond counts.

    `boottime` counts seconds and cannot be set (CLOCK_BOOTTIME: it goes on while the machine sleeps); `clock`
    is the wall's. `worker` is a name no process had before (F4). `keep`: for how many seconds an entry can
    still meet somebody: the absolute lifetime of a session.

    `applied` gets new locks when they are in the book and before the lease is longer: caches are dropped and
    exchanges cut there. `started_over` is called with no lease and an empty book, when the log is not the one
    it was: every session that was read from the store must be forgotten there, because it carries a number of
    a log that is gone. Neither may await, nor take long. `report` gets sentences for the operator. `heard` is
    told of each answer's server and data (`Revoker.heard`). `gone` are names of processes that are certainly
    dead: their leases end here, so that nobody waits for an acknowledgement that never comes.

    `away`: the last SYNC failed. `pushed`: the store tells of news at once. `hold`: what the lease waits for.
    """

    def __init__(
        self,
        log: RevocationLog,
        journal: Journal,
        *,
        worker: str,
        lease: float,
        quarantine: float,
        on_rollback: Literal["revoke_all", "continue"],
        keep: float,
        boottime: Callable[[], float],
        clock: Clock,
        applied: Callable[[tuple[Lock, ...]], None],
        started_over: Callable[[Why], None],
        report: Callable[[str], None],
        heard: Callable[[str, str], None] = lambda run, data: None,
        gone: Sequence[str] = (),
    ) -> None:
        self.book = LockBook()
        self.until = -inf
        self.away = self.pushed = False
        self.hold: Hold | None = Hold.RESTORING
        self.topology: Topology | None = None
        self._log, self._journal, self._worker = log, journal, worker
        self._lease, self._quarantine, self._keep = lease, quarantine, keep
        self._boottime, self._clock = boottime, clock
        self._applied, self._started_over, self._report = applied, started_over, report
        self._heard = heard
        self._holder = Holder(self.book, Terms(lease, quarantine), revoke_all=on_rollback == "revoke_all")
        self._stopping = False
        self._topology_of: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Task[None] | None = None
        self._under_way = self._asked = self._caught_up_by = 0
        self._urged = self._urgent = self._restoring = self._asking = False
        self._wake, self._turned = asyncio.Event(), asyncio.Event()
        self._journalled: dict[str, int] = {}
        self._offset: float | None = None
        self._marks: deque[_Mark] = deque()
        self._untold: Why | None = None
        self._left = list(gone)
        self._said = ""

    # ── asked on the way of requests ──

    @property
    def data(self) -> str:
        """The data set whose log is in the book."""
        return self._holder.data or ""

    @property
    def era(self) -> int:
        """Grows with each start-over. What was read from the store in one means nothing in another."""
        return self._holder.era

    def live(self) -> bool:
        """Whether this worker may rely on its book now."""
        return self._boottime() < self.until

    async def wait(self, seconds: float) -> bool:
        """Waits for a lease, at most so long, and not at all while the store is known to be away."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self.live():
            left = end - loop.time()
            if self.away or self._stopping or left <= 0:
                return False
            await self._turn(left)
        return True

    # ── life ──

    async def run(self) -> None:
        """Keeps the lease until `stop`. Raises `OperatorError` when the journal cannot be read: what it knows
        must be in the log before anyone is let in."""
        self._journalled = {entry.id: entry.number for entry in self._journal.read()}
        while not self._stopping and not await self._learn_topology():
            await self._pause(self._beat)
        self._listener = self._spawn(self._listen())
        loop = asyncio.get_running_loop()
        next_beat = loop.time()
        while not self._stopping:
            now = loop.time()
            if now >= next_beat:
                # Without a lease there is nothing to be sparing with: a long one would be a long wait.
                beat = self._beat if self.live() else min(self._beat, _WITHOUT)
                next_beat = max(next_beat + beat, now)
                self._on_beat()
            elif self._urged and not self._urgent:
                self._urged, self._urgent = False, True
                self._spawn(self._sync(urgent=True))
                await asyncio.sleep(_GAP)
            await self._pause(next_beat - loop.time())

    def stop(self) -> None:
        """Ends `run`, and with it the lease: from now on nobody is let in here."""
        self._stopping = True
        self._void()
        self._wake.set()
        self._signal()

    async def close(self) -> None:
        """Stops, waits a moment for what is under way, and tells the store, so that nobody waits for this
        worker."""
        self.stop()
        asking = self._tasks - {self._listener}
        if asking:
            await asyncio.wait(asking, timeout=2 * self._lease)
        await self._leave(self._name())
        for task in self._tasks:
            task.cancel()  # at the end of the process, where nothing hangs on whether it is heard

    # ── asking ──

    @property
    def _beat(self) -> float:
        return self._holder.terms.beat

    def _name(self) -> str:
        # INVARIANT: another name after each start-over. What was sent before may arrive later, and must not
        # acknowledge numbers of a log that is gone for somebody who has a lease on another.
        era = self._holder.era
        return f"{self._worker}.{era}" if era else self._worker

    def _on_beat(self) -> None:
        self._compare_clocks()
        self._forget_old()
        if self._topology_of != self._holder.run and not self._asking:
            self._asking = True
            self._spawn(self._ask_topology())
        if self._under_way < MOST_UNDER_WAY:
            self._spawn(self._sync())

    def _urge(self) -> None:
        """One more SYNC at once, or right after the one that could not wait before."""
        self._urged = True
        self._wake.set()

    async def _sync(self, urgent: bool = False) -> None:
        self._under_way += 1
        # INVARIANT: the lease counts from here, before any byte leaves.
        sent, name = self._holder.send(self._boottime()), self._name()
        self._asked += 1
        asked = self._asked
        try:
            reply = await self._log.sync(name, sent.asked, self._lease)
        except WorldError as error:
            self._note_away(str(error))
        else:
            self._note_away("")
            self._heard(reply.run, reply.data)
            self._hear(reply, sent, asked)
        finally:
            self._under_way -= 1
            if urgent:
                self._urgent = False
                self._wake.set()
            self._signal()

    def _hear(self, reply: Synced, sent: Sent, asked: int) -> None:
        before, name = self.book.applied, self._name()
        try:
            answer = self._holder.hear(reply, sent, self._boottime(), self._applied)
        except Exception as error:
            # Whatever it was: the lease is void, nothing was acknowledged, and all of it is told once more.
            self._say(f"{type(error).__name__}: {error}")
            answer = StartOver(Why.UNTOLD)
        if self._stopping:
            return
        self.until = self._holder.until
        match answer:
            case Granted():
                self.hold = None
            case NotYet(Hold.OUTDATED):
                return
            case NotYet(hold):
                self.hold = hold
            case StartOver(why):
                self.hold, self._untold = Hold.RESTORING, why
                self._left.append(name)
                self._marks.clear()
                self._say(why)
                self._tell_start_over()
                return
        if self.hold not in (Hold.CATCHING_UP, Hold.COMPARING):
            self._caught_up_by = max(self._caught_up_by, asked)
        if not self._holder.restored and not self._restoring:
            self._restoring = True
            self._spawn(self._restore())
        if self.book.applied != before:
            self._write_journal(reply.entries)
            self._urge()  # the store hears that it was applied: somebody may be waiting for that
        elif self.hold in (Hold.CATCHING_UP, Hold.COMPARING):
            self._urge()

    def _tell_start_over(self) -> bool:
        """Whether everybody has forgotten what came from the log that is gone."""
        try:
            if self._untold is not None:
                self._started_over(self._untold)
                self._untold = None
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}")
        return self._untold is None

    def _note_away(self, problem: str) -> None:
        if problem:
            self._say(f"the store is away: {problem}")
        elif self.away:
            self._say("the store is back")
        self.away = bool(problem)

    # ── news ──

    async def _listen(self) -> None:
        """Has a SYNC sent as soon as there is something new: a matter of speed alone."""
        while not self._stopping:
            applied = self.book.applied
            try:
                came = await self._log.news(applied)
            except WorldError:
                self.pushed = False
                await self._turn(self._lease)
                continue
            self.pushed = True
            if came:
                self._urge()
                await self._until_applied(applied)

    async def _until_applied(self, number: int) -> None:
        """Until more than `number` is applied, or a moment has passed: before, the same news would come at
        once, again and again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._beat
        while self.book.applied == number and loop.time() < end and not self._stopping:
            await self._turn(end - loop.time())

    # ── a log that is new to us ──

    async def _restore(self) -> None:
        """Puts back what the log lacks, before this worker takes a lease on it."""
        while not self._stopping and not self._holder.restored:
            try:
                journal = await asyncio.to_thread(self._journal.read)
                # INVARIANT: the log is asked after the journal was read. Other processes write there too, and
                # what they had by then would look like something the log has lost.
                after = self._asked
                self._urge()
                while self._caught_up_by <= after and not self._stopping:
                    await self._turn(self._beat)
                if self._holder.caught_up and self._tell_start_over():
                    era = self._holder.era
                    await self._put_back(journal)
                    if self._holder.era == era:
                        self._holder.restore()
                        self._urge()
                        break
            except (WorldError, OperatorError) as error:
                self._say(f"{Hold.RESTORING}: {error}")
            await self._turn(self._beat)
        self._restoring = False
        left, self._left = self._left, []
        for name in left:
            # Its lease was void before this one began. Else everybody would wait for a name nobody has.
            await self._leave(name)

    async def _leave(self, name: str) -> None:
        try:
            await self._log.leave(name)
        except WorldError:
            pass  # its lease is over soon enough without

    async def _put_back(self, journal: tuple[Entry, ...]) -> None:
        owed = self._holder.owed(journal)
        # Each worker begins elsewhere, and passes over what others have put back by then.
        start = crc32(self._worker.encode()) % max(1, len(owed))
        rest = (entry for entry in owed[start:] + owed[:start] if not self.book.has(entry.id))
        while some := tuple(islice(rest, _AT_ONCE)):
            committed = await asyncio.gather(*map(self._log.commit, some), return_exceptions=True)
            for one in committed:
                if isinstance(one, BaseException):
                    raise one
        if owed:
            self._say(f"the log lacked {len(owed)} entries, which are in it again")

    # ── beside ──

    async def _ask_topology(self) -> None:
        await self._learn_topology()
        self._asking = False

    async def _learn_topology(self) -> bool:
        run = self._holder.run
        try:
            topology = await self._log.topology()
        except WorldError as error:
            self._note_away(str(error))
            return False
        if topology != self.topology and not topology.strict:
            self._say(f"bounded on {topology.kind}: {topology.why}")
        self.topology, self._topology_of = topology, run
        self._holder.terms = Terms(self._lease, self._quarantine, topology.failover, topology.durable)
        return True

    def _compare_clocks(self) -> None:
        offset = self._clock() - self._boottime()
        before, self._offset = self._offset, offset
        if before is not None and abs(offset - before) > JUMP:
            # A machine that was copied or stopped with all its clocks may not know how long it was gone.
            self._say(f"the clock jumped by {offset - before:+.3f} s")
            self._void()
            self._urge()

    def _void(self) -> None:
        self._holder.void()
        self.until = -inf

    def _write_journal(self, entries: tuple[Entry, ...]) -> None:
        new = [entry for entry in entries if self._journalled.get(entry.id) != entry.number]
        if not new:
            return
        try:
            self._journal.keep(new, sure=False)
        except OperatorError as error:
            # The log has them, and the book; whoever revoked has them surely.
            self._say(str(error))
            return
        self._journalled.update((entry.id, entry.number) for entry in new)

    def _forget_old(self) -> None:
        # INVARIANT: by a clock that cannot be set. A wall clock a day ahead for a minute must not undo what
        # was revoked today (INV-4).
        now = self._boottime()
        marks = self._marks
        if not marks or now - marks[-1].at >= _MARK_EVERY:
            marks.append(_Mark(now, self.book.applied, self._clock()))
        while marks and now - marks[0].at >= self._keep:
            mark = marks.popleft()
            self.book.forget_before(mark.number + 1, min(self._clock(), mark.wall + self._keep))
            self._journalled = {id: number for id, number in self._journalled.items() if self.book.has(id)}

    def _say(self, what: str) -> None:
        """Reports, once however often in a row it is the case."""
        if what != self._said:
            self._said = what
            self._report(f"revocation: {what}")

    def _spawn(self, doing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _signal(self) -> None:
        """Wakes whoever waits for something to change."""
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    async def _turn(self, seconds: float) -> None:
        """Waits for the next answer, or failure, from the store."""
        await _first(self._turned, seconds)

    async def _pause(self, seconds: float) -> None:
        await _first(self._wake, seconds)
        self._wake.clear()


async def _first(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event of ours, at most so long."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    except TimeoutError:
        pass
