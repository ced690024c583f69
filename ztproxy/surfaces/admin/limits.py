"""Token buckets: how often somebody may ask.

Knows: who asked how often of late. Promises: bounded memory, and constant work for each request; whoever was
forgotten to stay within the bound starts with a full bucket. Leaves who is who to its caller.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable


class Buckets:
    """A bucket for each key, refilled by `rate` a second up to `burst`; the least recently used go first."""

    def __init__(self, monotonic: Callable[[], float], size: int = 4096) -> None:
        self._monotonic, self._size = monotonic, size
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # key → (content, at)

    def take(self, key: Hashable, rate: float, burst: float) -> float:
        """Takes one; 0 when there was one, else after how many seconds there will be. Nothing is taken
        then."""
        now = self._monotonic()
        content, at = self._buckets.pop(key, (burst, now))
        content = min(burst, content + (now - at) * rate)
        wait = 0.0 if content >= 1 else (1 - content) / rate
        self._buckets[key] = (content if wait else content - 1, now)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        return wait

    def give_back(self, key: Hashable) -> None:
        """What was taken was not used after all."""
        if key in self._buckets:
            content, at = self._buckets[key]
            self._buckets[key] = (content + 1, at)
