"""The fence: when a committed entry holds everywhere, so that it may be called done.

Knows: one commit, the terms, and what each worker says it has applied. Promises: says `Done` only when every
worker that may have held a lease without the entry has applied it, or can hold that lease no longer. Counts
on the caller's clock alone: the store's may be set, forward too. Leaves asking again and again to its caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ztproxy.core.lease import Applied, Committed, Terms, outlived


@dataclass(frozen=True, slots=True)
class Done:
    """It holds everywhere. `confirmed` is False where nobody can say that it would survive."""

    confirmed: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody may still go by what was before: until `until`, on the caller's clock, at the latest."""

    until: float


@dataclass(frozen=True, slots=True)
class Again:
    """Another server or other data answers: whether the entry is there is open. Commit it again, with the
    same id, and raise a fence on that."""


Verdict = Done | Wait | Again


@dataclass(frozen=True, slots=True)
class Generation:
    """Which server process and data set a caller hears from, and since when on its own clock.

    The first one it ever hears of counts as having always been there: for how long it has, the store must be
    believed then.
    """

    run: str
    data: str
    since: float = -inf

    def heard(self, run: str, data: str, now: float) -> Generation:
        """The generation after an answer from `run` and `data`; itself if nothing changed."""
        return self if (run, data) == (self.run, self.data) else Generation(run, data, now)


@dataclass(frozen=True, slots=True)
class Fence:
    """Raised on one commit. `runs_out_at` is when every lease granted without it is over, `settles_at` when
    none can be left that this log knows nothing of; both on the caller's clock."""

    committed: Committed
    runs_out_at: float
    settles_at: float

    @staticmethod
    def after(
        committed: Committed, committed_at: float, terms: Terms, generation: Generation | None = None
    ) -> Fence:
        """`committed_at` is the caller's clock when it had the answer, `generation` what it knows of the log
        it committed to."""
        length = max(terms.waited, outlived(committed.longest))
        settling = max(terms.settling, length)
        settles_at = committed_at + settling - min(max(committed.settled, 0.0), settling)
        if generation is not None:
            # INVARIANT: a store whose clock was set forward just after it took over looks settled. Who saw
            # the change counts from there instead.
            settles_at = max(settles_at, generation.since + settling)
        return Fence(committed, committed_at + length, settles_at)

    @property
    def ends_at(self) -> float:
        """When waiting is over, whoever stays silent."""
        return max(self.runs_out_at, self.settles_at)

    def verdict(self, applied: Applied | None, now: float) -> Verdict:
        """`applied` is an answer to a question asked after the commit, None when there was none: then nobody
        knows whether another server took over, and time alone settles nothing."""
        committed = self.committed
        if applied is None:
            return Wait(self.ends_at)
        if (applied.run, applied.data) != (committed.run, committed.data):
            return Again()
        if now < self.settles_at:
            return Wait(self.ends_at)
        if now < self.runs_out_at and not all(
            applied.numbers.get(holder, 0) >= committed.number for holder in committed.holders
        ):
            return Wait(self.runs_out_at)
        return Done(committed.copied)
