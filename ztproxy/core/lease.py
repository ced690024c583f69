"""The lease: for how long a worker may rely on its book of locks. What the store says, and what follows.

Knows: the store's answers (frozen values), the lengths of time, and one worker's standing towards the log.
Promises: a lease is counted from before its SYNC left and granted only after everything it came with was
applied; a log that is not the one known before ends the lease and the book at once. Leaves to its keeper:
sending, the clock, and putting back what the log lost. The fence that answers it is `core.fence`.

Why it holds: a lease granted without an entry was asked for before that entry was committed, so it ends, on
any clock within one per cent, before `Terms.waited` after the commit; and the store knows of it, because to
ask for a lease is a write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from math import inf
from typing import NamedTuple

from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import ALL, Entry, Lock


class Synced(NamedTuple):
    """The log as the store has it, to one worker.

    `run` names the server process that answered, `data` the data set it has; both are random and change when
    it is another. `number` is that of the newest entry, `first` of the oldest still kept (`number` + 1 if
    there is none). `entries` follow the number asked after, in order, at most a thousand; where the log
    begins later than that, the locks with an end that were trimmed from it come first. `settled` is for how
    many seconds, by the store's clock, `run` and `data` have been what they are.
    """

    run: str
    data: str
    number: int
    first: int
    settled: float
    entries: tuple[Entry, ...] = ()


class Committed(NamedTuple):
    """An entry is in the log as `number`. `holders` may have a live lease that was granted without it.

    `copied` says that it is where it must be to survive what the topology promises; False means nobody knows.
    `longest` is the longest lease that any of the holders asked for, in seconds (0 where it is not known):
    workers of another configuration may have longer ones (V22).
    """

    number: int
    run: str
    data: str
    settled: float
    holders: frozenset[str]
    copied: bool
    longest: float = 0.0


class Applied(NamedTuple):
    """How far each worker has said to have applied the log, by the server process and data set that
    answered."""

    run: str
    data: str
    numbers: Mapping[str, int]


class Topology(NamedTuple):
    """What the store can promise. `strict`: an acknowledged revocation survives the loss of any one server.

    `kind` is `standalone`, `sentinel` or `cluster`; `why` says, in a few words, what makes it strict or not.
    `durable`: the same server comes back from a restart with all it acknowledged. `failover` is for how many
    seconds after another server took over old leases may still live there (0 where none can take over).
    """

    kind: str
    strict: bool
    durable: bool
    failover: float
    why: str


class Revoked(NamedTuple):
    """What became of a revocation. `number` is its place in the log, `seconds` how long it took.

    `confirmed`: no worker lets in what it meets any more, and none will; else it is in the log and holds
    wherever the log is heard, and nobody can say yet that it is everywhere, or that it would survive: ask
    again with the same id. `strict` is the topology's promise.
    """

    number: int
    confirmed: bool
    strict: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Terms:
    """The lengths of time everybody counts with, in seconds. `length` is L; `quarantine` how long a new log
    must have been there before anyone relies on it; `failover` and `durable` are the topology's."""

    length: float
    quarantine: float = 1.0
    failover: float = 0.0
    durable: bool = False

    @property
    def beat(self) -> float:
        """How often a worker asks: several may be lost before the lease is."""
        return self.length / 8

    @property
    def waited(self) -> float:
        """After how long, on a clock of one's own, everybody else's lease has run out. A clock may be off by
        one per cent, theirs to one side and one's own to the other."""
        return outlived(self.length)

    @property
    def settling(self) -> float:
        """For how long after a change of server or data there may be leases this log knows nothing of."""
        return max(self.failover, self.waited)


def outlived(length: float) -> float:
    """After how long a lease of `length` that somebody else counts is over, counted here."""
    return 1.04 * length


class Why(StrEnum):
    """Why a log is not the one known before; the value is for the report."""

    LOST = "the store came back with other data"
    ROLLED_BACK = "the store came back with an older state"
    FAILED_OVER = "another server answers"
    BEHIND = "the log was trimmed past what was applied"
    GAP = "the log has a gap"
    UNTOLD = "a change could not be passed on"


class Hold(StrEnum):
    """What a lease waits for; the value is for the report."""

    OUTDATED = "an answer to an earlier question"
    CATCHING_UP = "catching up with the log"
    COMPARING = "comparing the log with the one before the restart"
    RESTORING = "putting back what the log lacks"
    QUARANTINE = "waiting for others to put back what they know"


@dataclass(frozen=True, slots=True)
class Granted:
    """The lease is live until then, on the worker's own clock."""

    until: float


@dataclass(frozen=True, slots=True)
class NotYet:
    """No more lease from this answer than there was before it."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class StartOver:
    """The lease is void and the book empty. INVARIANT: so must be every cache of sessions, before the next
    lease: they carry numbers of a log that is gone."""

    why: Why


Answer = Granted | NotYet | StartOver


COMPARED = 100
"""How many of the last entries are compared after a restart of the store."""


class Sent(NamedTuple):
    """One SYNC on its way: when it was begun, the number it asks after and thereby acknowledges, what was
    applied, and whether it asks for the last entries once more."""

    at: float
    asked: int
    applied: int
    again: bool
    epoch: int


class Holder:
    """One worker's standing: its book, its lease, and which log they are of. Changed in place; no clock.

    `until` is the end of the lease on the worker's clock; `era` counts how often it started over, `run` and
    `data` are the log's. `revoke_all`: whether a log that lost entries ends all sessions.
    """

    def __init__(self, book: LockBook, terms: Terms, *, revoke_all: bool) -> None:
        self.book, self.terms = book, terms
        self.until = -inf
        self.era = 0
        self.run: str | None = None
        self.data: str | None = None
        self.caught_up = False
        self.restored = False
        self._revoke_all = revoke_all
        self._epoch = 0
        self._quarantined, self._saw_change = True, False
        self._comparing = False
        self._began = -inf
        self._rolled_back = False
        self._lost: dict[str, Entry] = {}

    def send(self, now: float) -> Sent:
        """To be called before the bytes leave."""
        applied = self.book.applied
        asked = max(0, applied - COMPARED) if self._comparing else applied
        return Sent(now, asked, applied, self._comparing, self._epoch)

    def hear(self, reply: Synced, sent: Sent, now: float, tell: Callable[[tuple[Lock, ...]], None]) -> Answer:
        """Takes in one answer. `tell` is called with the new locks after they are in the book and before the
        lease is longer; what it raises voids the lease and is passed on.

        Answers may come late, twice and in any order; those to questions from before a start-over or a
        `void` do nothing at all.
        """
        if sent.epoch != self._epoch:
            return NotYet(Hold.OUTDATED)
        if self.run is None:
            self._began = now
        why = self._changed(reply, sent)
        restarted = self.run not in (None, reply.run)
        if restarted and now >= self.until:
            # INVARIANT: who had no lease may have missed what was acknowledged meanwhile, and would not see
            # that the store lost it. It waits for those who can see that, as if it had just begun.
            self._distrust(now)
        comparing = not sent.again and (self._comparing or restarted)
        self.run, self.data, self._comparing = reply.run, reply.data, comparing and why is None
        if self._comparing:
            # INVARIANT: nothing is applied before it is clear that the entries follow what is in the book.
            return NotYet(Hold.COMPARING)
        new: tuple[Lock, ...] = ()
        if why is None:
            try:
                new = self.book.apply(reply.entries, reply.first)
            except ValueError:
                why = Why.GAP
        if why is not None:
            return self._start_over(why, now)
        if new:
            try:
                tell(new)
            except BaseException:
                # INVARIANT: the next SYNC must not acknowledge what the exchanges were not told.
                self._start_over(Why.UNTOLD, now)
                raise
        self.caught_up = self.book.applied >= reply.number
        hold = self._held_by(reply, sent)
        if hold is not None:
            return NotYet(hold)
        # INVARIANT: from before the bytes left, and only here, after applying; `max`, because an answer to an
        # older question may come after a newer one.
        self.until = max(self.until, sent.at + self.terms.length)
        return Granted(self.until)

    def _changed(self, reply: Synced, sent: Sent) -> Why | None:
        if self.data not in (None, reply.data):
            return Why.LOST
        # Not the book's number: that may have grown since this question was asked.
        if reply.number < sent.applied:
            return Why.ROLLED_BACK
        # INVARIANT: an older state may have grown again before anyone here heard of it. So the last entries
        # are asked for once more after each restart: in no other log are they at their numbers.
        if any(entry.number <= self.book.applied and not self.book.knows(entry) for entry in reply.entries):
            return Why.ROLLED_BACK
        # INVARIANT: a server that took over may have lost entries and numbered others in their place, so that
        # nothing shows in the numbers.
        if self.run not in (None, reply.run) and not self.terms.durable:
            return Why.FAILED_OVER
        if 0 < self.book.applied < reply.first - 1:
            return Why.BEHIND
        return None

    def _held_by(self, reply: Synced, sent: Sent) -> Hold | None:
        if not self.caught_up:
            return Hold.CATCHING_UP
        if not self.restored:
            return Hold.RESTORING
        if self._quarantined:
            # By one's own clock, because the store's may have been set since. Only who has just begun must
            # take its word, or everybody would wait at each start.
            settled = not self._saw_change and reply.settled >= self.terms.quarantine
            if not settled and sent.at - self._began < self.terms.quarantine:
                return Hold.QUARANTINE
            self._quarantined = False
        return None

    def _start_over(self, why: Why, now: float) -> StartOver:
        if why is not Why.BEHIND:  # what was trimmed concerns nobody any more
            self._lost.update((entry.id, entry) for entry in self.book.entries())
        self._rolled_back |= why is Why.ROLLED_BACK
        self.book.reset()
        self.void()
        self.era += 1
        self._comparing = False
        self._distrust(now)
        return StartOver(why)

    def _distrust(self, now: float) -> None:
        """From now on what is owed must be put back first, here and by others."""
        self.caught_up = self.restored = False
        self._quarantined, self._saw_change, self._began = True, True, now

    def void(self) -> None:
        """Ends the lease, and with it what is on its way: a clock jumped, or the worker stops deciding."""
        self.until = -inf
        self._epoch += 1

    def owed(self, journal: Iterable[Entry]) -> tuple[Entry, ...]:
        """What must be in the log before anyone relies on it and is not; asked when caught up.

        An entry that had a number the log has not reached shows that the log was rolled back while nobody
        looked. What else it lost then, nobody may know, so that all who are signed in are signed out.
        """
        known = {entry.id: entry for entry in journal}
        lacking = self.book.lacks((self._lost | known).values())
        unseen = any(entry.number > self.book.applied for entry in lacking)
        if self._revoke_all and (self._rolled_back or unseen):
            everyone = revocation_after_rollback(self.data or "", self.run or "")
            lacking += self.book.lacks((everyone,))
        return lacking

    def restore(self) -> None:
        """What was owed is in the log. Only answers to later questions count, because they have it."""
        self.restored = True
        self._lost.clear()
        self._rolled_back = False
        self._epoch += 1


def revocation_after_rollback(data: str, run: str) -> Lock:
    """Ends all sessions once for this copy of the store; the same from whoever makes it."""
    digest = sha256(f"{len(data)}:{data}{run}".encode()).hexdigest()[:32]
    return Lock(f"rollback-{digest}", ALL, created_by="ztproxy", reason=Why.ROLLED_BACK.value)
