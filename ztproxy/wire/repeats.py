"""Whether octets came before: only what repeats is worth remembering.

Knows: the hashes of what it was shown, and nothing of the octets. Promises: bounded memory; what it answers
decides on speed alone, never on what a message means, so a collision of hashes harms nobody. Leaves the
remembering to its caller.
"""

from __future__ import annotations

LIMIT = 4096


class Repeats:
    """`seen(octets)` is True from the second time on, until so much else was shown that it is forgotten."""

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def seen(self, octets: bytes) -> bool:
        known = hash(octets)
        if known in self._hashes:
            return True
        if len(self._hashes) >= LIMIT:
            self._hashes.clear()
        self._hashes.add(known)
        return False

    def __len__(self) -> int:
        return len(self._hashes)
