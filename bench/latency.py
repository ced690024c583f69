"""What a proxy adds to the time of a request, at a constant rate: an open model, by a generator of ours.

Knows: `pace.c`, which is compiled where a C compiler is. Promises: a request is counted from the moment it
should have been sent, whether or not it could be: a proxy that stands still for 0.2 s is charged with every
request that was due in that time, and not with one per connection (coordinated omission, which wrk and
h2load have). Every answer was a 200 of the right length. Direct and through alternate within each round.
The generator says how late it was itself; a round in which that counts is named, and so is a rate at which
direct had no connection free. Leaves the proxy, the app
and the proxy's own maximum to its caller.

The generator shares its core with the app, direct and through: it takes a few microseconds for a request, and
none while it waits.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import machine
from bench.figures import Aim, Latency, Rounds, rounds
from bench.peers import Peer, Upstream
from bench.place import Place

CONNECTIONS: Final = 64
SHARES: Final = (0.5, 0.8)
"""Of the proxy's own maximum."""

PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

LATE_MS: Final = 0.3
"""A round in which one request in a hundred was sent later than this by the generator's own doing says less
about the proxy than it seems to."""

WAITED: Final = 0.01
"""Where more than this share of the requests found no connection free without a proxy, all were in flight all
the time, and what is measured is how fast generator and app are, with the proxy as without."""

_WARM: Final = 0.3
"""Seconds at the begin of a run that are not counted: the proxy connects to the app then."""

_SMALL: Final = 1024
_COLUMNS: Final = 4
_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Effort:
    """`rounds` of so many seconds each, direct and through, at each share."""

    seconds: float = 3.0
    rounds: int = 3


QUICK: Final = Effort(1.0, 1)


class Paced(Latency):
    """A `Latency` with what is to be known before it is believed: `late`, the p99 in ms of how late the
    generator sent, and `waited`, the share of requests for which no connection was free, each `direct` and
    `through`; `doubts`, a sentence for each round in which the former was too much, and one where the latter
    was."""

    late: dict[str, Rounds]
    waited: dict[str, Rounds]
    doubts: list[str]


@dataclass(frozen=True, slots=True)
class Run:
    """Requests in the order in which they were due; ns of CLOCK_MONOTONIC. `waited`: no connection was free
    when it was due."""

    due: Sequence[int]
    sent: Sequence[int]
    done: Sequence[int]
    waited: Sequence[int]

    def latencies(self, first: int = 0) -> list[float]:
        """Milliseconds from due to done, sorted, without the `first` so many requests."""
        return sorted(
            (done - due) / _MS for due, done in zip(self.due[first:], self.done[first:], strict=True)
        )

    def late(self, first: int = 0) -> list[float]:
        """Milliseconds from due to sent, sorted, of those that had no connection to wait for: what the
        generator took its time with."""
        columns = zip(self.due[first:], self.sent[first:], self.waited[first:], strict=True)
        return sorted((sent - due) / _MS for due, sent, waited in columns if not waited)

    def waiting(self, first: int = 0) -> float:
        """The share of requests for which no connection was free."""
        told = self.waited[first:]
        return sum(told) / len(told) if told else 0.0


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least of the values that `share` of them do not exceed (nearest rank); 0 where there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


class Generator:
    """`pace.c`, compiled into a folder. Raises `CannotMeasure` where that cannot be. `patience`: seconds in
    which nothing comes while something should, after which it gives up."""

    def __init__(self, folder: Path, patience: float = 10.0) -> None:
        self._program, self._folder = compiled("pace", folder, f"-DGRACE_NS={patience * 1e9:.0f}LL"), folder

    def run(
        self,
        core: int | None,
        port: int,
        headers: Mapping[str, str],
        *,
        count: int,
        interval: int,
        connections: int = CONNECTIONS,
        length: int = _SMALL,
        path: str = "/",
    ) -> Run:
        """`count` GET requests, one every `interval` ns (0: as fast as they are answered), on `core` if one
        is given. Raises `CannotMeasure` at the first answer that is not a 200 of `length` bytes."""
        request, records = self._folder / "pace.request", self._folder / "pace.records"
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        request.write_bytes("\r\n".join(lines).encode("latin-1"))
        numbers = (port, count, interval, connections, length)
        command = [str(self._program), *map(str, numbers), str(request), str(records)]
        if core is not None:
            command = machine.pinned(core, *command)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise machine.CannotMeasure(f"port {port}: {done.stderr.strip() or done.returncode}")
        found = array("q")
        found.frombytes(records.read_bytes())
        records.unlink()
        return Run(*(found[column::_COLUMNS] for column in range(_COLUMNS)))


def compiled(name: str, folder: Path, *options: str) -> Path:
    """The program made of `bench/NAME.c`. Raises `CannotMeasure` without a compiler, or if it fails."""
    program = folder / name
    source = Path(__file__).with_name(f"{name}.c")
    command = [
        machine.tool("cc", "gcc libc6-dev"),
        "-std=gnu11",
        "-O2",
        *options,
        "-o",
        str(program),
        str(source),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise machine.CannotMeasure(f"`{source.name}` cannot be compiled: {made.stderr.strip()}")
    return program


async def measure(
    place: Place, effort: Effort, upstream: Upstream, subject: Peer, most: float
) -> list[Paced]:
    """One for each of `SHARES`; `most` is the subject's own maximum in requests/s."""
    generator = Generator(place.sub("latency"))
    # The subject stands before `upstream.asserted` if it asserts: each 200 through it is proof of that.
    ways = {"direct": upstream.port, "through": subject.port}

    async def run(port: int, rate: float) -> tuple[list[float], float, float]:
        first = round(rate * _WARM)
        count = first + max(1, round(rate * effort.seconds))
        # In a thread: what the subject needs of this process (a provider) goes on answering.
        found = await asyncio.to_thread(
            generator.run,
            place.load_core,
            port,
            subject.headers,
            count=count,
            interval=round(1e9 / rate),
        )
        return found.latencies(first), percentile(found.late(first), 0.99), found.waiting(first)

    measured = []
    for share in SHARES:
        rate = most * share
        times: dict[str, list[list[float]]] = {way: [] for way in ways}
        lates: dict[str, list[float]] = {way: [] for way in ways}
        waits: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(effort.rounds):
            for way in sorted(ways, reverse=bool(turn % 2)):
                latencies, late, waited = await run(ways[way], rate)
                times[way].append(latencies)
                lates[way].append(late)
                waits[way].append(waited)
        measured.append(summed_up(share, rate, times, lates, waits))
    return measured


def summed_up(
    share: float,
    rate: float,
    times: Mapping[str, Sequence[Sequence[float]]],
    lates: Mapping[str, Sequence[float]],
    waits: Mapping[str, Sequence[float]],
) -> Paced:
    """By way and round: `times` are sorted latencies and `lates` the generator's own p99, in ms, `waits` the
    shares of requests that had to wait for a connection."""
    each = {
        way: {name: [percentile(one, q) for one in times[way]] for name, q in PERCENTILES.items()}
        for way in ("direct", "through")
    }
    added = {
        name: [
            through - direct
            for through, direct in zip(each["through"][name], each["direct"][name], strict=True)
        ]
        for name in PERCENTILES
    }
    return {
        "share": share,
        "requests_per_second": round(rate, 1),
        "direct": {name: rounds(values, 3) for name, values in each["direct"].items()},
        "through": {name: rounds(values, 3) for name, values in each["through"].items()},
        "added": {name: rounds(values, 3) for name, values in added.items()},
        "late": {way: rounds(values, 3) for way, values in lates.items()},
        "waited": {way: rounds(values, 4) for way, values in waits.items()},
        "doubts": [
            *_bound(rate, rounds(waits["direct"], 4)["median"]),
            *(
                f"round {turn + 1} {way} at {share:.0%} of the maximum is doubtful: the generator itself "
                f"sent {late:.2f} ms late or more, for one request in a hundred"
                for way, values in lates.items()
                for turn, late in enumerate(values)
                if late > LATE_MS
            ),
        ],
    }


def _bound(rate: float, waited: float) -> list[str]:
    if waited <= WAITED:
        return []
    return [
        f"at {rate:,.0f} requests/s direct had no free connection for {waited:.0%}: generator and app were "
        "the bound, and what is added says nothing"
    ]


def aims(found: Sequence[Paced], why: str = "no run at half load") -> list[Aim]:
    """The added p99 at half load; where there is none, not measured, and `why`."""
    what, most = "added p99 at half load", 1.0
    for one in found:
        if one["share"] == 0.5:
            bound = _bound(one["requests_per_second"], one["waited"]["direct"]["median"])
            return [Aim(what, one["added"]["p99"]["median"], most, "ms", why="".join(bound))]
    return [Aim(what, None, most, "ms", why=why)]
