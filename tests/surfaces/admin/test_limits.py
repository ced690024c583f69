"""Token buckets against a clock that stands still until it is set."""

from __future__ import annotations

import pytest

from tests.worlds.memory_state import SetClock
from ztproxy.surfaces.admin.limits import Buckets


def test_a_burst_and_then_the_rate() -> None:
    clock = SetClock(100.0)
    buckets = Buckets(clock)
    assert [buckets.take("a", 2, 4) for _ in range(4)] == [0] * 4
    assert buckets.take("a", 2, 4) == pytest.approx(0.5)
    assert buckets.take("a", 2, 4) == pytest.approx(0.5), "asking in vain costs nothing"
    assert buckets.take("b", 2, 4) == 0, "another's bucket is another"
    clock.now += 0.5
    assert buckets.take("a", 2, 4) == 0
    assert buckets.take("a", 2, 4) > 0
    clock.now += 1000
    assert [buckets.take("a", 2, 4) > 0 for _ in range(5)] == [False] * 4 + [True], "no more than the burst"


def test_giving_back() -> None:
    buckets = Buckets(SetClock(0.0))
    assert buckets.take("a", 1, 1) == 0
    buckets.give_back("a")
    assert buckets.take("a", 1, 1) == 0
    buckets.give_back("nobody")


def test_memory_is_bounded() -> None:
    buckets = Buckets(SetClock(0.0), size=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 1, 2)
    assert buckets.take("a", 1, 2) > 0, "whoever came last is still known"
    assert buckets.take("b", 1, 2) == 0, "the least recent was forgotten"
