"""The lease on the log of locks, as those see it who may decide only while it is live.

Knows: the four things they ask. Leaves keeping it to `gateway.keeper`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ztproxy.core.identity import Session
from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import Lock

Meeting = Callable[[Session, str, float], Sequence[Lock]]
"""`LockBook.meeting`, for who needs nothing else of it: the locks that concern a session on a route at a
moment."""


class Lease(Protocol):
    """`until` is a moment of the keeper's clock, and may be read directly where a call costs too much."""

    @property
    def book(self) -> LockBook: ...

    @property
    def until(self) -> float: ...

    @property
    def era(self) -> int:
        """Grows whenever the log turns out to be another one: what was read from the store before is
        worthless then, also if its answer comes after."""
        ...

    @property
    def data(self) -> str:
        """Which log the book's numbers are of; another name for another log."""
        ...

    def live(self) -> bool:
        """Whether this worker has heard of every lock that anybody may rely on."""
        ...

    async def wait(self, seconds: float) -> bool:
        """Waits for a lease, at most so long, and not at all while the store is known to be away."""
        ...
