"""What a bench writes down: the shape of `build/bench.json` and of `build/bench-growth.json`.

Knows: names and units, how rounds become one figure, and what an aim is. Promises: a figure never stands
without its rounds and their spread, a ratio is taken within one round (what disturbed one side of it
disturbed the other), and what could not be measured is named with its reason. Leaves measuring to the
sections, and words and drawings to `bench.page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, TypedDict

BUSY = 0.2
"""Rounds of one thing that differ by more than this say that the machine was not the bench's own."""

SUBJECT = "ztproxy"
"""With its hot modules compiled where a C compiler is, as the image has them; the aims are about this one."""

PURE = "ztproxy, pure Python"
"""The same source, not compiled."""


class Aim(NamedTuple):
    """A figure that is worth having. `most` is false where more is better. `measured` is None where it could
    not be taken, and `why` then says it; else `why` may say what the figure hides."""

    what: str
    measured: float | None
    aim: float
    unit: str = ""
    most: bool = True
    why: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.aim if self.most else self.measured >= self.aim


class Rounds(TypedDict):
    """One thing measured several times. `spread` is (most - least) / the one furthest from nought: a
    difference may be below it."""

    rounds: list[float]
    median: float
    spread: float


class Speed(TypedDict):
    """One proxy under one shape of load. `rate` is in the shape's unit; `cpu_us` is what the proxy's own
    processes took for each request (or message, or MiB), user and system; `busy` is the share of its core
    that they used: much below 1, something else was the bound and `rate` flatters nobody but the slower one.
    """

    rate: Rounds
    cpu_us: Rounds
    busy: float


class Shape(TypedDict):
    """`unit` is `requests/s`, `MiB/s` or `messages/s`; `proxies` by name; `ratios` of ztproxy to each other,
    round by round."""

    what: str
    unit: str
    connections: int
    proxies: dict[str, Speed]
    ratios: dict[str, Rounds]


class Latency(TypedDict):
    """At a constant rate. Milliseconds; `added` is through the proxy less direct, percentile by percentile
    and round by round: `p50`, `p99`, `p99.9`."""

    share: float
    """Of the proxy's own maximum."""
    requests_per_second: float
    direct: dict[str, Rounds]
    through: dict[str, Rounds]
    added: dict[str, Rounds]


class Point(TypedDict):
    """One step of a curve. `rate` in requests/s, `p99_ms` at the fixed rate the curve says."""

    at: int
    rate: Rounds
    p99_ms: Rounds


class Curve(TypedDict):
    """How throughput goes as one thing grows. `ratio` is last point to first. `slope` says, in a sentence,
    why it is not flat where it is not."""

    what: str
    of: str
    points: list[Point]
    ratio: float
    slope: str


def rounds(values: Sequence[float], digits: int = 1) -> Rounds:
    """`values` as one figure; there is at least one."""
    furthest = max(map(abs, values))
    return {
        "rounds": [round(value, digits) for value in values],
        "median": round(median(values), digits),
        "spread": round((max(values) - min(values)) / furthest, 3) if furthest else 0.0,
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Rounds:
    """Round by round."""
    return rounds([one / other for one, other in zip(ours, theirs, strict=True)], 3)
