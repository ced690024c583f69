"""Counting by a rate, for all workers of all nodes together.

Knows: the question. Promises and leaves: as `ports`.
"""

from __future__ import annotations

from typing import Protocol

from ztproxy.core.rates import Rate, Spent


class RateStore(Protocol):
    """One number for each key, by the store's own clock."""

    async def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        """One more of `key` under the limit of that name: `core.rates.spend`, atomically. The store forgets a
        key once all of its burst is earned again. Raises `WorldError(STATE_UNAVAILABLE)`."""
        ...
