"""Seeded mistakes: what somebody might get wrong, put into the real product, which the checker must catch.

Knows: the pieces that are replaced. Promises: ztproxy has no switch for any of this; it happens in a process
of the harness only, before the pieces are made. Leaves two mistakes to the model in
`tests.worlds.lease_model`, because they need a store whose clock is set, or that splits, at a chosen moment:
waiting by the store's time, and not waiting after a failover.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from ztproxy.adapters.redis_revocations import RedisRevocations
from ztproxy.app import state
from ztproxy.core.fence import Done, Fence, Verdict
from ztproxy.core.lease import Sent, Synced
from ztproxy.gateway.keeper import Keeper
from ztproxy.gateway.revoker import Revoker

LEASE = 0.8
LATE = 2.0
"""Seconds by which a worker applies the log after it renewed its lease: more than a lease and a fence."""


class WaitsForNobody(Revoker):
    """Says "confirmed" as soon as the entry is in the log."""

    async def _wait_for(self, fence: Fence) -> Verdict:
        return Done(confirmed=True)


class FromTheAnswer(Keeper):
    """Counts the lease from when the answer came, not from before the question left."""

    def _hear(self, reply: Synced, sent: Sent, asked: int) -> None:
        super()._hear(reply, sent._replace(at=self._boottime()), asked)


class RenewsFirst(Keeper):
    """Is content with an answer for a longer lease, and applies what it says later."""

    _early = -inf

    def _hear(self, reply: Synced, sent: Sent, asked: int) -> None:
        self._early = max(self._early, sent.at + self._lease)
        self.until = self._early
        asyncio.get_running_loop().call_later(LATE, self._apply, reply, sent, asked)

    def _apply(self, reply: Synced, sent: Sent, asked: int) -> None:
        super()._hear(reply, sent, asked)
        self.until = max(self.until, self._early)


class TellsNobody(Keeper):
    """Applies locks to what comes, and lets what is under way go on."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **(more | {"applied": lambda locks: None}))


class NeedsNoLease(Keeper):
    """Goes by its book for ever."""

    @property
    def until(self) -> float:
        return inf

    @until.setter
    def until(self, value: float) -> None:
        pass


class Unrecorded(RedisRevocations):
    """Takes leases that the store does not know of."""

    async def sync(self, worker: str, applied: int, lease: float) -> Synced:
        return await self.read(applied)


class Mutant(NamedTuple):
    """`faults`: under which a short history shows it, by their names in `nemesis`. `commit` makes the mistake
    in a worker's process, or `revoker` is one that makes it. `lease`: a longer one, in seconds, where there
    would be little time to see it."""

    faults: tuple[str, ...]
    commit: Callable[[], None] | None = None
    revoker: type[Revoker] = Revoker
    lease: float = LEASE


def _keeper(wrong: type[Keeper]) -> Callable[[], None]:
    def put() -> None:
        vars(state)["Keeper"] = wrong

    return put


def _unrecorded() -> None:
    vars(state)["RedisRevocations"] = Unrecorded


MUTANTS: dict[str, Mutant] = {
    "no_waiting": Mutant(("partition",), revoker=WaitsForNobody),
    "lease_from_the_answer": Mutant(("late_answers",), _keeper(FromTheAnswer), lease=1.5),
    "renewed_before_applied": Mutant((), _keeper(RenewsFirst)),
    "exchanges_not_told": Mutant((), _keeper(TellsNobody)),
    "reads_without_a_lease": Mutant(("partition",), _keeper(NeedsNoLease)),
    "holders_not_recorded": Mutant(("partition",), _unrecorded),
}


def commit(name: str) -> None:
    """Makes the mistake called so in this process; none for an empty name."""
    if name:
        wrong = MUTANTS[name].commit
        if wrong is not None:
            wrong()
