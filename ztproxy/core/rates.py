"""How often: a rate with room for a burst, and one arithmetic for everybody who counts by it.

Knows: the generic cell rate algorithm (GCRA, ITU-T I.371), which is a token bucket that needs one number for
each key. Promises: over any stretch of time at most `burst` plus what the rate gives for that stretch is
allowed; what was refused costs nothing. Leaves the clock, and keeping the number, to whoever counts: a worker
in its own memory (`gateway.rates`), or the store for all of them (`adapters.redis_rates`).
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple


class Rate(NamedTuple):
    """`most` in `period` seconds, evenly; `burst` at once, by whoever came seldom before. All above 0."""

    most: int
    period: float
    burst: int

    @property
    def interval(self) -> float:
        """Seconds in which one is earned."""
        return self.period / self.most


class Spent(NamedTuple):
    """What trying to spend one came to.

    `until` is the number to keep for the key: when all of its burst will have been earned again. `remaining`:
    how many more would be allowed now. `wait`: seconds until the next one is, 0 where it was allowed.
    """

    allowed: bool
    until: float
    remaining: int
    wait: float


def spend(rate: Rate, until: float, now: float) -> Spent:
    """One more at `now`, after `until` was kept (anything up to `now` for a key nobody has seen). Both are
    seconds of one clock.

    Where it is refused `until` stays as it was, but for one no spending by this rate at `now` could have
    left: from before a clock was set back, or a rate made faster. Then all of the burst counts as spent, so
    that nobody waits for a clock.
    """
    interval = rate.interval
    tolerance = rate.burst * interval
    until = min(until, now + tolerance)
    after = max(until, now) + interval
    early = after - tolerance - now
    if early > interval * _SLACK:
        return Spent(False, until, 0, early)
    return Spent(True, after, int((tolerance - (after - now)) / interval + _SLACK), 0.0)


# Of one: what roundings may add up to on a clock that shows months, and no reason to send anybody away.
_SLACK = 1e-3


class By(StrEnum):
    """What is counted together."""

    ADDRESS = "address"
    SESSION = "session"
    ROUTE = "route"


class RateLimit(NamedTuple):
    """`exact`: counted in the store for all workers of all nodes, else by each worker for itself."""

    by: By
    rate: Rate
    exact: bool = False


@lru_cache(4096)
def source_of(address: str) -> str:
    """Who counts as one sender: an IPv4 address, or the /64 an IPv6 address is in, which is the least that a
    provider gives to one customer; whoever has one has all 2^64 of its addresses."""
    if ":" not in address:
        return address
    try:
        whole = IPv6Address(address)
    except ValueError:
        return address
    if whole.ipv4_mapped is not None:
        return str(whole.ipv4_mapped)
    return str(IPv6Address(int(whole) >> 64 << 64)) + "/64"
