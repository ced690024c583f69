"""Rounds over all sizes of one curve, in turn: what disturbs the machine disturbs all of them.

Promises: every size is up before the first round and has been warmed up; a round goes through all sizes
before the next begins; the rate at which the p99 is taken is one for the whole curve, half of what the first
size can do. Only one is under load at a time. A size with a round that does not count, or that dropped
lines of its logs, is named, and has no point.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.figures import Point, rounds
from bench.growth import load
from bench.growth.house import PUBLISHED, Node
from bench.growth.load import CONNECTIONS, Load


@dataclass(frozen=True, slots=True)
class Effort:
    """How much. Seconds are of each round at each size, full speed and given rate."""

    rounds: int = 3
    seconds: float = 2
    paced: float = 1
    warm: float = 1
    small: bool = False


QUICK = Effort(rounds=1, seconds=1, paced=1, warm=0, small=True)


@dataclass(frozen=True, slots=True)
class Subject:
    """One size, up and waiting. `cookies` says with which sessions the next round asks."""

    at: int
    node: Node
    cookies: Callable[[], Sequence[str]]


class Measured(NamedTuple):
    """One size's rounds. `rate` is the one the p99 was taken at."""

    at: int
    full: list[Load]
    paced: list[Load]
    rate: float

    def point(self) -> Point:
        return {
            "at": self.at,
            "rate": rounds([one.rate for one in self.full]),
            "p99_ms": rounds([one.p99_ms for one in self.paced], 2),
        }

    @property
    def cpu_us(self) -> list[float]:
        """Of a request at full speed, round by round."""
        return [one.cpu_us for one in self.full]


def measure(
    core: int,
    folder: Path,
    subjects: Sequence[Subject],
    effort: Effort,
    connections: int = CONNECTIONS,
) -> tuple[list[Measured], dict[int, str]]:
    """In the order of the subjects; and which sizes had a round that does not count, with the reason. Those
    are left out from then on. Raises `CannotMeasure` where that is the first."""
    void: dict[int, str] = {}
    lost = [subject.node.lost_lines() for subject in subjects]

    def one(subject: Subject, into: list[Load], seconds: float, rate: float | None = None) -> None:
        if subject.at in void:
            return
        cookies = subject.cookies()
        try:
            into.append(
                load.run(
                    subject.node, core, folder, cookies, seconds=seconds, rate=rate, connections=connections
                )
            )
        except machine.CannotMeasure as error:
            leave_out(subject, error)

    def leave_out(subject: Subject, error: machine.CannotMeasure) -> None:
        if subject is subjects[0]:
            raise machine.CannotMeasure(f"at {subject.at:,}: {error}") from error
        void[subject.at] = str(error)

    if effort.warm:
        for subject in subjects:
            one(subject, [], effort.warm)
    full: list[list[Load]] = [[] for _ in subjects]
    paced: list[list[Load]] = [[] for _ in subjects]
    for _ in range(effort.rounds):
        for subject, seen in zip(subjects, full, strict=True):
            one(subject, seen, effort.seconds)
    rate = rounds([each.rate for each in full[0]])["median"] / 2
    for _ in range(effort.rounds):
        for subject, seen in zip(subjects, paced, strict=True):
            one(subject, seen, effort.paced, rate)
    time.sleep(PUBLISHED)
    for subject, before in zip(subjects, lost, strict=True):
        try:
            subject.node.see_that_no_line_was_lost(before)
        except machine.CannotMeasure as error:
            leave_out(subject, error)
    taken = [Measured(s.at, f, p, rate) for s, f, p in zip(subjects, full, paced, strict=True)]
    return [each for each in taken if each.at not in void], void
