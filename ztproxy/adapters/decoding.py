"""Decoders of stored records that raise one kind of error.

Knows: msgspec, whose decoders raise `ValueError` for what they cannot read and `RecursionError` for what is
nested some hundred levels deep, even in a field that nobody asked for. Promises: `reader` makes of both a
`ValueError`, so that a record no program wrote is one that cannot be read, and not the end of whoever reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def reader(decode: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """`decode`, which raises `ValueError` and nothing else."""

    def read(raw: bytes) -> T:
        try:
            return decode(raw)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    return read
