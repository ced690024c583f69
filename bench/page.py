"""`docs/performance.md`, written from the figures of `make bench` and `make bench-growth`.

Knows: the order in which a reader should meet them. Promises: doubts come before figures; an aim that is not
met is said to be so, and by how much; what could not be measured is named with its reason; what is slow has
a section of its own, which the figures write. A run in which everything is missing gives a page that says
so. Leaves drawing to `bench.plots`, measuring and files to its caller.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from bench import page_sections as sections
from bench import plots
from bench.figures import BUSY, PURE, SUBJECT, Aim, Curve, Latency, Shape
from bench.page_sections import GROWTH, LATENCY, PROFILE, SPEED, Figures, capital, listed, table, with_unit
from bench.plots import number
from bench.subject import ANEW

if TYPE_CHECKING:
    from bench.footprint import Footprint

IDLE = 0.5
"""A load average above this, beforehand, says that the machine was not the bench's own."""

FLAT, P99_RISE, P99_RISE_MS = 0.95, 1.5, 0.5
"""A curve that ends below that share of where it began is not flat, nor is one whose p99 rose by more than
that factor, and by more than so many milliseconds."""

LATE_MS = 5.0
"""A tick of the event loop that is seen to be later than this is worth a sentence."""

HALF = 0.5
"""The share of the maximum at which added latency has an aim."""

_FOOTPRINT = {
    "idle_connection": "the memory of an idle connection",
    "idle_tls_connection": "the memory of an idle TLS connection",
    "idle_websocket": "the memory of an idle WebSocket",
    "cached_session": "the memory of a cached session",
    "start_up_s": "the time of a start",
}
"""What of the footprint has rounds that should be alike."""

LIMIT = "nginx"
"""The peer that does nothing else: the limit of what a proxy can do."""

_TO_BARE = (
    "Most of a request is the kernel's sends and reads, which others pay too; of the rest most is CPython's "
    "objects. Fewer of them, or a compiled head parser, would help (reckoned, not tried)."
)

CLOSES: Mapping[str, str] = {
    "small GET, 64 connections, to nginx bare": _TO_BARE,
    "small GET, 64 connections, to Envoy bare": _TO_BARE,
    "added p99 at half load": (
        "What is late is late by others on the same core: the store, the thread that writes the logs, "
        "the kernel's own work (reckoned, not tried)."
    ),
    "a cached session": (
        "The assertion that is sent again for a minute and the tables for permits, of which most sessions "
        "use one entry, are about half (reckoned, not tried)."
    ),
    "two workers to one": "Two cores serve two workers, the app and the load.",
}
"""What would close the gap to an aim that is not met, a sentence by the aim's `what`."""


def page(bench: Figures, growth: Figures | None, closes: Mapping[str, str] = CLOSES) -> str:
    """The whole page. `bench` is `build/bench.json`, `growth` is `build/bench-growth.json`."""
    found = aims(bench, growth)
    curves = [] if growth is None else growth["curves"]
    parts = [
        "# How fast ztproxy is",
        "Written by `make bench ARGS=--page`; not edited by hand. Every figure, with each of its rounds, is\n"
        "in `build/bench.json` and, of the growth, in `build/bench-growth.json`.",
        *doubts(bench, growth),
        _aims(found),
        *_not_fast(bench, curves, found, closes),
        *sections.measured(bench, growth),
        *sections.speed(bench),
        *sections.latency(bench["latency"]),
        *sections.footprint(bench["footprint"]),
        *sections.growing(growth),
        *sections.profiled(bench),
        *sections.reading(bench["reading"]),
    ]
    return "\n\n".join(parts) + "\n"


def drawings(bench: Figures, growth: Figures | None) -> dict[str, str]:
    """The page's plots, by their path as seen from it; none of what was not measured."""
    drawn = {}
    if bench["shapes"]:
        drawn[SPEED] = plots.speed(bench["shapes"])
    if bench["latency"]:
        drawn[LATENCY] = plots.latency(bench["latency"])
    if sampled := sections.sampled(bench):
        how, profile = sampled
        drawn[PROFILE] = plots.profile(profile, how)
    if growth is not None and growth["curves"]:
        drawn[GROWTH] = plots.growth(growth["curves"])
    return drawn


def aims(bench: Figures, growth: Figures | None) -> list[Aim]:
    """All of them, those of the growth last."""
    found = [one for run in (bench, growth or {"aims": []}) for one in run["aims"]]
    return [Aim(*(one[name] for name in Aim._fields)) for one in found]


def verdict(aim: Aim) -> str:
    """`met` (`met, doubtful` where there is more to say), `NOT met` and by how much, or `not measured` and
    why."""
    if aim.measured is None:
        return f"not measured: {aim.why}" if aim.why else "not measured"
    if aim.met:
        return "met, doubtful" if aim.why else "met"
    off = abs(aim.measured / aim.aim - 1) if aim.aim else 1.0
    if off > 1:
        return f"NOT met: {aim.measured / aim.aim:.1f} times the aim"
    share = "less than 0.1%" if off < 0.0005 else f"{off:.1%}"
    return f"NOT met: {share} {'too much' if aim.most else 'short'}"


def doubts(bench: Figures, growth: Figures | None) -> list[str]:
    """What a reader should know before believing the figures; one paragraph each."""
    said = []
    for what, run in (("The bench", bench), ("The growth", growth)):
        if run is None:
            continue
        if run["quick"]:
            said.append(f"**{what} was a quick run: take it for a look, not for a result.**")
        before = run["load_average_before"]
        if before > IDLE:
            said.append(f"{what} found a load average of {before:.1f} before it started anything.")
    said += [f"{capital('; '.join(one['doubts']))}." for one in bench["latency"] if one.get("doubts")]
    restless = [
        (one["rate"]["spread"], f"{name}, {shape['what']}")
        for shape in bench["shapes"].values()
        for name, one in shape["proxies"].items()
    ] + [
        (point["rate"]["spread"], f"{curve['what']} at {point['at']:,}")
        for curve in ([] if growth is None else growth["curves"])
        for point in curve["points"]
    ]
    restless += [
        (one["added"]["p99"]["spread"], f"added p99 at {one['share']:.0%} of the maximum")
        for one in bench["latency"]
        if one["share"] == HALF
    ]
    footprint = bench["footprint"] or {}
    restless += [(footprint[name]["spread"], what) for name, what in _FOOTPRINT.items() if name in footprint]
    wide = sorted((one for one in restless if one[0] > BUSY), reverse=True)
    if wide:
        worst = "; ".join(f"{what} by {spread:.0%}" for spread, what in wide[:5])
        more = f"; and {len(wide) - 5} more" if len(wide) > 5 else ""
        said.append(
            f"Of {len(restless)} figures, {len(wide)} differ{'s' if len(wide) == 1 else ''} by more than "
            f"{BUSY:.0%} from round to round: something else kept this machine busy, or what was measured is "
            f"small beside what it was taken from. {capital(worst)}{more}."
        )
    if growth is not None:
        here, there = bench["machine"], growth["machine"]
        if any(here[name] != there[name] for name in here.keys() & there.keys()):
            said.append("The growth was measured on another machine, or with other versions, than the rest.")
    return said


# -- what came of it --------------------------------------------------------------------------------------


def _aims(found: Sequence[Aim]) -> str:
    rows = [
        (
            aim.what,
            "" if aim.measured is None else _taken(aim.measured, aim),
            f"{'≤' if aim.most else '≥'} {aim.aim:g}{f' {aim.unit}' if aim.unit else ''}",
            verdict(aim),
            "" if aim.measured is None else aim.why,
        )
        for aim in found
    ]
    return f"## Aims\n\n{table(('', 'measured', 'aim', '', 'what to know'), rows)}"


def _taken(measured: float, aim: Aim) -> str:
    """Never looks like an aim that it is not."""
    text = with_unit(measured, aim.unit)
    if measured == aim.aim or text != with_unit(aim.aim, aim.unit):
        return text
    return f"{measured:.6g} {aim.unit}".strip()


def _not_fast(
    bench: Figures, curves: Sequence[Curve], found: Sequence[Aim], closes: Mapping[str, str]
) -> Iterator[str]:
    yield "## What is not fast"
    points = [
        *_missed(found, closes),
        *_behind(bench["shapes"].values()),
        *_ours(bench["shapes"].values()),
        *_sloping(curves),
        *_late(bench["latency"], bench["footprint"]),
    ]
    yield "\n".join(f"- {point}" for point in points) or "Nothing here that the figures would say."


def _missed(found: Sequence[Aim], closes: Mapping[str, str]) -> Iterator[str]:
    for aim in found:
        if aim.met is None:
            yield f"{aim.what}: {verdict(aim)}."
        elif not aim.met:
            assert aim.measured is not None
            was = f"{_taken(aim.measured, aim)} where {with_unit(aim.aim, aim.unit)} was the aim"
            closing = f" {closes[aim.what]}" if aim.what in closes else ""
            yield f"**{aim.what}**: {was}, {verdict(aim).partition(': ')[2]}.{closing}"


def _behind(shapes: Collection[Shape]) -> Iterator[str]:
    """Where ztproxy has least of nginx, and where anybody else is ahead of it."""
    to_limit = sorted(
        (shape["ratios"][LIMIT]["median"], shape["what"]) for shape in shapes if LIMIT in shape["ratios"]
    )
    for ratio, what in to_limit[:3]:
        if ratio < 1:
            yield f"{what}: {ratio:.2f} of what {LIMIT} does, which checks nothing."
    for shape in shapes:
        ahead = [
            f"{name} ({1 / taken['median']:.2f} times as fast)"
            for name, taken in shape["ratios"].items()
            if name != LIMIT and not name.startswith(SUBJECT) and 0 < taken["median"] < 1
        ]
        if ahead:
            yield f"{shape['what']}: ahead of ztproxy {'is' if len(ahead) == 1 else 'are'} {listed(ahead)}."


def _ours(shapes: Collection[Shape]) -> Iterator[str]:
    """What ztproxy costs where it is run otherwise than the aims have it."""
    for name, what in (
        (ANEW, "Where every rule is judged anew, for some ask for path, network or time"),
        (PURE, "In pure Python, its hot modules not compiled"),
    ):
        times = [
            (shape["ratios"][name]["median"], shape["what"]) for shape in shapes if name in shape["ratios"]
        ]
        slowest, fastest = max(times, default=(0.0, "")), min(times, default=(0.0, ""))
        if slowest[0] > 1:
            least = f", {fastest[0]:.2f} times for {fastest[1]}" if len(times) > 1 else ""
            yield f"{what}, ztproxy takes {slowest[0]:.2f} times as long for {slowest[1]}{least}."


def _sloping(curves: Sequence[Curve]) -> Iterator[str]:
    for curve in curves:
        if not curve["points"]:
            continue
        first, last = curve["points"][0], curve["points"][-1]
        p99 = (first["p99_ms"]["median"], last["p99_ms"]["median"])
        falls, rises = curve["ratio"] < FLAT, p99[1] > P99_RISE * p99[0] and p99[1] > p99[0] + P99_RISE_MS
        told = [f"throughput goes to {curve['ratio']:.2f} of what it was"] if falls else []
        told += [f"p99 goes from {number(p99[0])} to {number(p99[1])} ms"] if rises else []
        if told:
            why = capital(curve["slope"].rstrip(".")) or "Why is not known"
            yield f"{first['at']:,} to {last['at']:,} {curve['what']}: {listed(told)}. {why}."


def _late(latencies: Sequence[Latency], footprint: Footprint | None) -> Iterator[str]:
    for one in latencies:
        name, worst = max(one["added"].items(), key=lambda item: item[1]["median"], default=("", None))
        if worst is not None and one["share"] > HALF:
            share, added = f"{one['share']:.0%}", number(worst["median"])
            yield f"at {share} of its maximum, {name} is {added} ms above direct."
    busy = None if footprint is None else footprint["busy"]
    if busy is None:
        return
    late = max(busy["loop_late_ms"]["rounds"])
    if late > LATE_MS:
        yield (
            f"the event loop's tick was {number(late)} ms late under load when looked at once a second; "
            "that is not the longest stall."
        )
    for name, pauses in busy["collections"].items():
        if pauses["most_ms"] > LATE_MS:
            yield f"the worker stood still for {number(pauses['most_ms'])} ms for one collection ({name})."
