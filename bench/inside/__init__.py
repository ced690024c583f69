"""What is counted inside a measured process, as the bench sees it: allocations, and pauses of the collector.

Knows: the `sitecustomize` beside it, which Python runs at the start of each process that has this folder on
its path. Promises: processes started within `counted` count, and no others. Leaves compiling
`bench/counters.c` into the folder to its caller.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from bench import machine
from bench.inside.sitecustomize import COUNTERS, FOLDER


class Collections(TypedDict):
    """Of one generation of the garbage collector, under load: how many for a thousand requests, and how long
    the worker stood still for one: on average, and at most."""

    per_thousand: float
    mean_ms: float
    most_ms: float


@dataclass(frozen=True, slots=True)
class Counters:
    """What `bench.inside.sitecustomize` counts in one process."""

    file: Path

    @classmethod
    def of(cls, pid: int, folder: Path) -> Counters:
        """Raises `CannotMeasure` if that process counts nothing."""
        file = folder / f"{pid}.counters"
        if not file.exists():
            raise machine.CannotMeasure("the worker did not take the counters in")
        return cls(file)

    def clear(self) -> None:
        with self.file.open("r+b") as file:
            file.write(bytes(COUNTERS * 8))

    def read(self) -> Sequence[int]:
        found = array("q")
        found.frombytes(self.file.read_bytes())
        return found


def collections(counted: Sequence[int], requests: int) -> dict[str, Collections]:
    """By generation, of what `Counters.read` gives after so many requests."""
    found: dict[str, Collections] = {}
    for generation, at in enumerate(range(2, COUNTERS, 3)):
        number, taken, most = counted[at : at + 3]
        found[str(generation)] = {
            "per_thousand": round(number / requests * 1000, 3),
            "mean_ms": round(taken / number / 1e6, 3) if number else 0.0,
            "most_ms": round(most / 1e6, 3),
        }
    return found


@contextlib.contextmanager
def counted(folder: Path) -> Iterator[None]:
    """Python processes that are started in the block count into `folder`."""
    ours = {"PYTHONPATH": str(Path(__file__).parent), FOLDER: str(folder)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
