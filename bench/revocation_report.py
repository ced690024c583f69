"""What the revocation bench found, in words and a drawing: pure functions of its figures.

Knows: percentiles, the aims, the page and its plot. Promises: an aim that is not met is said to be so;
figures that a reader should doubt come with the doubt. Leaves measuring, and writing files, to its caller.
All times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log10
from statistics import median
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

BUSY = 0.2
"""Rounds of one thing that differ by more than this say that the machine was not the bench's own."""

IDLE = 0.5
"""A load average above this, beforehand, says so too."""

COMMAND = "make bench-revocation"


class Aim(NamedTuple):
    """A figure that is worth having: at most `aim`."""

    what: str
    measured: float
    aim: float
    unit: str

    @property
    def verdict(self) -> str:
        return "met" if self.measured <= self.aim else "NOT met"

    def row(self) -> tuple[str, str, str, str]:
        return self.what, f"{self.measured:.1f} {self.unit}", f"≤ {self.aim:g} {self.unit}", self.verdict


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that at least so many per cent are not above (nearest rank). `values` is not empty."""
    rank = ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def summary(values: Sequence[float], rounds: int = 1) -> dict[str, Any]:
    """How `values`, taken in so many rounds of equal length, are spread. It is not empty."""
    size = ceil(len(values) / rounds)
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return {
        "count": len(values),
        "min": round(min(values), 2),
        **{f"p{percent}": round(percentile(values, percent), 2) for percent in (50, 90, 99)},
        "max": round(max(values), 2),
        "p99_of_rounds": [round(percentile(part, 99), 2) for part in parts],
    }


def ratios(on: Sequence[float], off: Sequence[float]) -> list[float]:
    """Round by round, for what was measured side by side has the same disturbances."""
    return [round(one / other, 4) for one, other in zip(on, off, strict=True)]


def aims(figures: Mapping[str, Any]) -> list[Aim]:
    """Every aim with what was measured."""
    one, cut, everybody = figures["one"], figures["cut_off"], figures["everybody"]
    lease, cost = figures["setting"]["lease_ms"], figures["throughput"]["cost_percent"]
    return [
        Aim("the last worker refuses, p99", one["refused_ms"]["p99"], 50, "ms"),
        Aim("the last WebSocket is closed, p99", one["closed_ms"]["p99"], 200, "ms"),
        Aim("confirmed by a 200, p99", one["answered_ms"]["p99"], 100, "ms"),
        Aim("the same, one worker cut off, p99", cut["answered_ms"]["p99"], lease + 50, "ms"),
        Aim(
            f"everybody revoked: {everybody['websockets']:,} WebSockets closed",
            everybody["closed_ms"]["max"],
            2000,
            "ms",
        ),
        Aim("requests/s lost by the lease", cost, 5, "%"),
    ]


def doubts(figures: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing the figures; one sentence each."""
    said = []
    if figures["let_in_after_confirmation"]:
        said.append(
            f"**{figures['let_in_after_confirmation']} requests that began after a confirmation were let in: "
            "that is a violation of the promise, and no figure here means anything until it is explained.**"
        )
    if figures["quick"]:
        said.append("A quick run with small numbers: take it for a look, not for a result.")
    before = figures["load_average_before"]
    if before > IDLE:
        said.append(f"The machine had a load average of {before:g} before anything was started.")
    spread = figures["throughput"]["spread"]
    if spread > BUSY:
        said.append(
            f"The rounds of throughput differ by {spread:.0%}: something else kept this machine busy, "
            "and what the lease loses in requests/s cannot be told from it."
        )
    asked, came = figures["setting"]["requests_per_second"], figures["load"]["requests_per_second"]
    if came < 0.95 * asked:
        said.append(f"The load came to {came:.0f} requests/s instead of {asked}.")
    if figures["load"]["failed"]:
        said.append(f"{figures['load']['failed']} requests of the load were not answered with a 200.")
    everybody = figures["everybody"]
    if everybody["websockets"] < everybody["wanted"]:
        said.append(
            f"This machine allows {everybody['websockets']:,} WebSockets and not {everybody['wanted']:,}."
        )
    return said


def table(figures: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    rows = [aim.row() for aim in aims(figures)]
    return [
        "",
        setting(figures),
        "",
        *(f"  {what:<52}{measured:>12}  {aim:<11}{verdict}" for what, measured, aim, verdict in rows),
        "",
        *(f"  {line}" for line in doubts(figures)),
    ]


def setting(figures: Mapping[str, Any]) -> str:
    """What it was measured with, in a sentence."""
    what, said = figures["setting"], figures["machine"]
    return (
        f"{what['workers']} workers, one Valkey, {what['sessions']:,} sessions, {what['websockets']:,} open "
        f"WebSockets, {what['requests_per_second']} requests/s, lease {what['lease_ms']} ms; {said['cpu']}, "
        f"{said['cores']} cores, Python {said['python']}"
    )


_PAGE = """\
# How fast a revocation is

Written by `{command}`; not edited by hand. What is promised is in [revocation.md](revocation.md).

{doubts}| | measured | aim | |
|--|--:|--:|--|
{aims}

![Shares of the revocations done, by time since the call]({drawing})

## In full

Milliseconds since the call to the admin API began.

| | number | least | p50 | p90 | p99 | most | p99 of each round |
|--|--:|--:|--:|--:|--:|--:|--|
{spreads}

When everybody was revoked, the 200 came after {everybody[answered_ms]:.0f} ms; {everybody[with_1008]:,} of
{everybody[websockets]:,} WebSockets got the close code 1008 before their end.

The load beside the revocations of one session had {load[requests_per_second]:.0f} requests/s, p50
{load[p50_ms]:.1f} ms, p99 {load[p99_ms]:.1f} ms, each by a session that its worker mostly had to read first.
Requests that began after a confirmation and were let in all the same: {broken}.

## What the lease costs

One worker on a core of its own, {speed[connections]} connections, answers of 1 KiB, {rounds} rounds, side by
side. "Off" is a worker that only this bench has: it asks for no lease, and its data plane has no gate. A
lease of {speed[long_lease_s]:g} s is asked for {speed[times_as_often]:g} times less often than the default,
and looked at as often.

| | requests/s (median) | to off, round by round (median) | from | to | CPU for a request |
|--|--:|--:|--:|--:|--:|
{throughput}

The CPU is the worker's and Valkey's. One look at the lease takes {speed[look_ns]:.0f} ns, and a request takes
two: {speed[looks_percent]:.2f} % of the time that it has at this rate.

## How it is measured

- {machine[cpu]}, {machine[cores]} cores, Linux {machine[kernel]}, Python {machine[python]}, uvloop
  {machine[uvloop]}. Everything shares these cores: the proxies, Valkey, the app, the load, the bench itself.
- {what[workers]} nodes, each a `ztproxy run` with one worker, so that a port is a worker; one Valkey on a
  unix socket with `appendfsync always` (`strict`); lease {what[lease_ms]} ms.
- {what[sessions]:,} sessions, written as a sign-in writes them; {what[websockets]:,} WebSockets, each of a
  session of its own, open on all workers; {what[requests_per_second]} requests/s by other sessions.
- {revocations} times: one more session opens a WebSocket on each worker and asks each worker, again
  {what[probe_pause_ms]:g} ms after each answer, on connections that stay. It is revoked by
  `POST /api/v1/revocations` on the admin socket of the first node. A worker refuses when its first refusal
  has arrived; a WebSocket is closed when its end has arrived.
- {cuts} times the same, and from just before the call one worker's way to the store carries nothing (a relay
  that is stopped).
- Once, everybody is revoked (`all`).
- Of so few samples p99 is close to the worst; that is why each round's own is shown.

To repeat it: `{command}` (about {seconds:.0f} s; `ARGS=--quick` for a short look, which leaves this page
alone). Every sample is in `build/bench-revocation.json`.
"""


def page(figures: Mapping[str, Any], drawing: str) -> str:
    """`docs/revocation-speed.md`. `drawing` is the plot's path, seen from there."""
    one, cut, everybody = figures["one"], figures["cut_off"], figures["everybody"]
    speed = figures["throughput"]
    spreads = {
        "the last worker refuses": one["refused_ms"],
        "the last WebSocket is closed": one["closed_ms"],
        "confirmed by a 200": one["answered_ms"],
        "one worker cut off: confirmed by a 200": cut["answered_ms"],
        "one worker cut off: the last answer it let through": cut["let_through_ms"],
        f"everybody: each of {everybody['websockets']:,} WebSockets closed": everybody["closed_ms"],
    }
    return _PAGE.format(
        command=COMMAND,
        doubts="".join(f"{doubt}\n\n" for doubt in doubts(figures)),
        aims="\n".join(_row(aim.row()) for aim in aims(figures)),
        drawing=drawing,
        spreads="\n".join(_row((name, *_cells(spread))) for name, spread in spreads.items()),
        everybody=everybody,
        load=figures["load"],
        broken=figures["let_in_after_confirmation"],
        speed=speed,
        rounds=len(speed["rounds"]["on"]),
        throughput="\n".join(_row(row) for row in _throughput(speed)),
        machine=figures["machine"],
        what=figures["setting"],
        revocations=one["refused_ms"]["count"],
        cuts=cut["answered_ms"]["count"],
        seconds=figures["seconds"],
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(spread: Mapping[str, Any]) -> list[str]:
    each = ", ".join(f"{value:.1f}" for value in spread["p99_of_rounds"])
    figures = [f"{spread[name]:.1f}" for name in ("min", "p50", "p90", "p99", "max")]
    return [f"{spread['count']:,}", *figures, each]


def _throughput(speed: Mapping[str, Any]) -> list[tuple[str, ...]]:
    names = {"off": "off", "on": "on", "long": f"on, {speed['long_lease_s']:g} s"}
    return [
        (
            title,
            f"{speed['requests_per_second'][name]:,}",
            f"{median(speed['to_off'][name]):.3f}",
            f"{min(speed['to_off'][name]):.3f}",
            f"{max(speed['to_off'][name]):.3f}",
            f"{speed['cpu_us_per_request'][name]:.1f} µs",
        )
        for name, title in names.items()
    ]


# -- the plot ---------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 20, 150
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#5b5b5b")  # told apart by the colour-blind too
_DASHES = ("", "8 4", "2 3", "12 4 2 4", "")


class Series(NamedTuple):
    """Milliseconds, in any order; `aim` is where its p99 should be, None for no such aim."""

    name: str
    values: Sequence[float]
    aim: float | None = None


def series(figures: Mapping[str, Any]) -> list[Series]:
    """What the plot shows."""
    samples, lease = figures["samples"], figures["setting"]["lease_ms"]
    return [
        Series("the last worker refuses", samples["refused_ms"], 50),
        Series("the last WebSocket is closed", samples["closed_ms"], 200),
        Series("confirmed by a 200", samples["answered_ms"], 100),
        Series("confirmed, one worker cut off", samples["cut_answered_ms"], lease + 50),
    ]


def plot(shown: Sequence[Series]) -> str:
    """An SVG: for each series the share of its values not above x, x on a logarithmic scale; a ring at 99 %
    is its aim. No series is empty, and no value is below zero."""
    every = [value for one in shown for value in (*one.values, one.aim or 1.0)]
    low, high = _decade_below(max(min(every), 0.1)), _decade_above(max(every))

    def x(value: float) -> float:
        share = (log10(min(max(value, low), high)) - log10(low)) / (log10(high) - log10(low))
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    floor = y(0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#222" role="img">',
        "<title>Time from the call to the admin API, as shares of all revocations</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for tick in _ticks(low, high):
        at = f"{x(tick):.1f}"
        parts.append(f'<path d="M{at} {_TOP}V{floor}" stroke="#ddd"/>')
        parts.append(f'<text x="{at}" y="{floor + 18}" text-anchor="middle">{tick:g}</text>')
    for percent in (0, 25, 50, 75, 99):
        level = f"{y(percent / 100):.1f}"
        parts.append(f'<path d="M{_LEFT} {level}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{level}" dy="4" text-anchor="end">{percent} %</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{floor + 38}" text-anchor="middle">milliseconds since the call (log scale); '
        "a ring: where 99 % should be</text>"
    )
    for number, one in enumerate(shown):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash or "none"}"'
        ordered = sorted(one.values)
        points = [f"{x(ordered[0]):.1f},{floor:.1f}"]
        for position, value in enumerate(ordered):
            points.append(f"{x(value):.1f},{y(position / len(ordered)):.1f}")
            points.append(f"{x(value):.1f},{y((position + 1) / len(ordered)):.1f}")
        parts.append(f'<polyline points="{" ".join(points)}" {style}/>')
        text = one.name
        if one.aim is not None:
            ring = f'cx="{x(one.aim):.1f}" cy="{y(0.99):.1f}" r="5"'
            parts.append(f'<circle {ring} fill="none" stroke="{colour}" stroke-width="2"/>')
            text += f": p99 {percentile(one.values, 99):.1f} ms, aim {one.aim:g} ms"
        left, top = _LEFT, floor + 64 + number * 22
        parts.append(f'<path d="M{left} {top}h28" {style}/>')
        parts.append(f'<text x="{left + 34}" y="{top}" dy="4">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _decade_below(value: float) -> float:
    return max(tick for tick in _all_ticks() if tick <= value)


def _decade_above(value: float) -> float:
    return min(tick for tick in _all_ticks() if tick > value)


def _ticks(low: float, high: float) -> list[float]:
    return [tick for tick in _all_ticks() if low <= tick <= high]


def _all_ticks() -> list[float]:
    return [digit * 10.0**power for power in range(-1, 6) for digit in (1, 2, 5)]
