"""The log of locks and the lease on it, as ports: what makes a revocation hold everywhere.

Knows: the questions. Promises and leaves: as `ports`. The arithmetic of leases is in `core.lease`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ztproxy.core.lease import Applied, Committed, Synced, Topology
from ztproxy.core.locks import Entry


class RevocationLog(Protocol):
    """The log of locks, and who holds a lease on it (`core.lease`). All raise
    `WorldError(STATE_UNAVAILABLE)` when the store is away, within less than a lease."""

    async def sync(self, worker: str, applied: int, lease: float) -> Synced:
        """INVARIANT: a write. Records, before it answers, that `worker` may hold a lease of `lease` seconds
        from now, and that it has applied everything up to `applied`."""
        ...

    async def read(self, after: int) -> Synced:
        """The same without a lease: for who shows the log and decides nothing."""
        ...

    async def news(self, after: int) -> bool:
        """Waits, a few seconds at most, for an entry after the number `after`; whether one came. Serves
        latency, never safety."""
        ...

    async def commit(self, entry: Entry) -> Committed:
        """Appends an entry, unless its id is there already. `made_at` 0 is replaced by the store's clock."""
        ...

    async def applied(self) -> Applied: ...

    async def leave(self, worker: str) -> None:
        """This worker's lease is over by its own word, given after it stopped deciding."""
        ...

    async def topology(self) -> Topology: ...


class Journal(Protocol):
    """What this node knows of the log, on a disk of its own: for a store that comes back without its data."""

    def keep(self, entries: Sequence[Entry], *, sure: bool) -> None:
        """Appends; with `sure` it is on the disk when this returns. Raises `OperatorError` when it is not."""
        ...

    def read(self) -> tuple[Entry, ...]:
        """Everything kept and not yet outdated; a last line cut short is passed over."""
        ...
