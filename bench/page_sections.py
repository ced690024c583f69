"""The sections of docs/performance.md that show figures: what was measured, and what it came to.

Knows: words and tables for each part of `build/bench.json`. Promises: a figure stands with the least and the
most of its rounds; a part that is missing is said to be. Leaves judging the figures, and the order of it
all, to `bench.page`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from bench import guard
from bench.figures import SUBJECT, Curve, Latency, Rounds, Shape
from bench.plots import number
from bench.profile import FEW, LAYERS, Profile

if TYPE_CHECKING:
    from bench.footprint import Footprint

FULL = 0.9
"""Below this share of a core, a proxy was not what limited its rate."""

SPEED, LATENCY = "performance/speed.svg", "performance/latency.svg"
GROWTH, PROFILE = "performance/growth.svg", "performance/profile.svg"

_KIB, _MIB = 1 << 10, 1 << 20
FASTER = 1.05
"""A curve that ends above that share of where it began says something of the noise, unless what grows is
`_HELPING`."""

_HELPING = "workers"

_MEMORY = re.compile(r"(?P<what>_*[A-Z]\w*?)_(?P<way>clear|dealloc|traverse|new|setup) (?P<where>\(.*\))")
"""Functions that mypyc writes for each class."""
_WAYS = {
    "clear": "freeing",
    "dealloc": "freeing",
    "traverse": "collecting",
    "new": "making",
    "setup": "making",
}

_OF = {"requests/s": "request", "MiB/s": "MiB", "messages/s": "message"}

Figures = Mapping[str, Any]


def measured(bench: Figures, growth: Figures | None) -> Iterator[str]:
    machine = dict(bench["machine"])
    place = [machine.pop("cpu", "an unknown processor")]
    place.append(f"{machine.pop('cores', '?')} cores")
    place.append(f"Linux {machine.pop('kernel', '?')}")
    if build := machine.pop("python_build", ""):
        machine["python"] = f"{machine.get('python', '?')} (built {build.removeprefix('built ')})"
    yield "## What was measured"
    yield _prose(
        "One proxy at a time has one core; the load, the app behind it and all else have the other. The "
        "same client asks the same app through each proxy in turn, round after round. Each round checks "
        "statuses, bodies and, for ztproxy, that the app got a signed assertion: a benchmark that a proxy "
        "answers with errors is void. A figure is the median of its rounds, and stands with the least and "
        "the most of them. A ratio is taken within one round, for what disturbed one side of it disturbed "
        "the other."
    )
    yield _prose(
        "One person with one cookie asks for the same thing, so that what ztproxy remembers it finds each "
        "time; for many sessions see Growth. The device's certificate comes in a header of a trusted front: "
        "mutual TLS is not in these figures ([devices-speed.md](devices-speed.md) has handshakes). Trust "
        "inputs are not in the run."
    )
    versions = ", ".join(
        version if version.lower().startswith(f"{name} ") else f"{name} {version}"
        for name, version in machine.items()
        if version
    )
    yield f"- {', '.join(place)}\n- {versions}"
    yield table(("proxy", "what it does on each request"), list(bench["checks"].items()))
    if bench["skipped"]:
        yield "\n".join(
            ["Skipped, and so not compared with:", ""]
            + [f"- {peer}: {why}" for peer, why in bench["skipped"].items()]
        )
    grown = "" if growth is None else f" (about {growth['seconds']:,.0f} s)"
    yield _prose(
        f"To repeat it: `make bench-growth`{grown} for the growth, then `make bench ARGS=--page` (about "
        f"{bench['seconds']:,.0f} s) for the rest and this page. `make bench` alone measures and leaves this "
        "page as it is; `ARGS=--quick` gives a short look."
    )


def speed(bench: Figures) -> Iterator[str]:
    shapes: Mapping[str, Shape] = bench["shapes"]
    yield "## Speed"
    if not shapes:
        yield "Not measured."
        return
    yield f"![Bars by proxy for each shape of load; the figures are in the tables below]({SPEED})"
    for shape in shapes.values():
        each = _OF.get(shape["unit"], shape["unit"])
        yield f"### {capital(shape['what'])}"
        ordered = sorted(shape["proxies"].items(), key=lambda item: -item[1]["rate"]["median"])
        yield table(
            (
                "",
                shape["unit"],
                "least",
                "most",
                "spread",
                f"CPU for a {each}",
                "of its core",
                "ztproxy to it",
            ),
            [
                (
                    f"**{name}**" if name.startswith(SUBJECT) else name,
                    number(one["rate"]["median"]),
                    number(min(one["rate"]["rounds"])),
                    number(max(one["rate"]["rounds"])),
                    f"{one['rate']['spread']:.0%}",
                    f"{number(one['cpu_us']['median'])} µs",
                    f"{one['busy']:.0%}",
                    _ratio(shape["ratios"].get(name)),
                )
                for name, one in ordered
            ],
        )
        idle = [f"{name} ({one['busy']:.0%})" for name, one in ordered if one["busy"] < FULL]
        if idle:
            yield _prose(
                f"Less than {FULL:.0%} of its core: {listed(idle)}. Something else was the bound, and the "
                "rate is the least that the proxy can do: compare the CPU."
            )


def latency(found: Sequence[Latency]) -> Iterator[str]:
    yield "## Latency"
    if not found:
        yield "Not measured."
        return
    yield f"![Added milliseconds by percentile]({LATENCY})"
    yield _prose(
        "At a constant rate: who must wait has waited since the moment at which the request was due. Added "
        "is through ztproxy less direct, percentile by percentile, in milliseconds."
    )
    yield table(
        ("of its maximum", "requests/s", "", "direct", "through", "added", "least", "most"),
        [
            (
                f"{one['share']:.0%}",
                f"{one['requests_per_second']:,.0f}",
                name,
                number(one["direct"][name]["median"]),
                number(one["through"][name]["median"]),
                f"**{number(taken['median'])}**",
                number(min(taken["rounds"])),
                number(max(taken["rounds"])),
            )
            for one in found
            for name, taken in one["added"].items()
        ],
    )


def footprint(found: Footprint | None) -> Iterator[str]:
    yield "## Memory, allocations, pauses"
    if not found:
        yield "Not measured."
        return
    through, busy = f"{number(found['transfer'] / _MIB)} MiB", found["busy"]
    rows = [
        _taken("an idle kept-alive connection", found["idle_connection"], _KIB, "KiB"),
        _taken("the same with TLS", found["idle_tls_connection"], _KIB, "KiB"),
        _taken("an idle WebSocket, both its connections", found["idle_websocket"], _KIB, "KiB"),
        _taken("a cached session", found["cached_session"], _KIB, "KiB"),
        *(
            (f"growth while {through} {way}", with_unit(grown / _MIB, "MiB"), "", "")
            for way, grown in (("come down", found["growth_download"]), ("go up", found["growth_upload"]))
            if grown is not None
        ),
        _taken("from the start to the first 200", found["start_up_s"], 1, "s"),
    ]
    if busy is not None:
        rows += [
            _taken("memory asked for, for a request: blocks", busy["blocks"], 1, ""),
            _taken("the same: bytes", busy["allocated"], 1, "B"),
            _taken(
                "how late the event loop's tick was when looked at once a second, under load; "
                "not the longest stall",
                busy["loop_late_ms"],
                1,
                "ms",
            ),
        ]
    yield table(("", "median", "least", "most"), rows)
    if busy is not None and busy["collections"]:
        yield table(
            ("garbage collections under load", "for 1,000 requests", "stands still for", "at most"),
            [
                (
                    name,
                    number(one["per_thousand"]),
                    f"{number(one['mean_ms'])} ms",
                    f"{number(one['most_ms'])} ms",
                )
                for name, one in busy["collections"].items()
            ],
        )
    if found["idle"]:
        yield table(
            ("an instance nobody asks", "of a core", "wakes a second", "resident"),
            [
                (name, f"{one['cpu']:.2%}", number(one["wakes"]), f"{number(one['resident'] / _MIB)} MiB")
                for name, one in found["idle"].items()
            ],
        )
    for what, why in found["skipped"].items():
        yield f"Not measured: {what}: {why}."


def _slope(curve: Curve) -> str:
    if curve["ratio"] <= FASTER or curve["what"] == _HELPING:
        return curve["slope"]
    return ". ".join(filter(None, ["noise: it cannot be faster", curve["slope"]]))


def growing(growth: Figures | None) -> Iterator[str]:
    yield "## Growth"
    curves: Sequence[Curve] = [] if growth is None else growth["curves"]
    if growth is None or not curves:
        yield "Not measured: `make bench-growth`."
        return
    how = "with its hot modules compiled" if growth.get("compiled", False) else "in pure Python, not compiled"
    yield _prose(
        f"ztproxy {how}. There is no device, and one rule where rules are not what grows: compare a rate "
        "with those of its curve, and not with those under Speed."
    )
    yield f"![Throughput relative to the first point, and p99, as one thing grows]({GROWTH})"
    yield table(
        ("", "from", "to", "throughput, last to first", "with", "why it is not flat"),
        [
            (
                curve["what"],
                f"{curve['points'][0]['at']:,}" if curve["points"] else "",
                f"{curve['points'][-1]['at']:,}" if curve["points"] else "",
                f"{curve['ratio']:.2f}",
                curve["of"],
                _slope(curve),
            )
            for curve in curves
        ],
    )
    yield table(
        ("", "at", "requests/s", "least", "most", "p99, ms", "least", "most"),
        [
            (curve["what"], f"{point['at']:,}", *_cells(point["rate"]), *_cells(point["p99_ms"]))
            for curve in curves
            for point in curve["points"]
        ],
    )
    if growth.get("extra"):
        rows = [(one["what"], with_unit(one["value"], one["unit"])) for one in growth["extra"]]
        yield table(("beside the curves", ""), rows)
    for what, why in growth.get("missing", {}).items():
        yield f"Not measured: {what}: {why}."


def sampled(bench: Figures) -> tuple[str, Profile] | None:
    """The profile to draw, and how ztproxy was run: compiled, as the aims have it, where that was sampled."""
    have = [(how, one) for how, one in _profiles(bench).items() if one["samples"]]
    return have[-1] if have else None


def _profiles(bench: Figures) -> dict[str, Profile]:
    each = {"pure": bench["profile"], "compiled": bench.get("profile_compiled")}
    return {how: one for how, one in each.items() if one}


def profiled(bench: Figures) -> Iterator[str]:
    yield "## Where the time goes"
    each = _profiles(bench)
    if not each:
        yield "Not measured."
        return
    build = bench["machine"].get("python_build")
    if build:
        yield _prose(
            f"This Python was built {build.removeprefix('built ')}: what compiling our modules is worth "
            "holds for such a one."
        )
    if drawn := sampled(bench):
        yield f"![Shares of the event loop's time by layer, {drawn[0]}]({PROFILE})"
        counts = [f"{one['samples']:,} of ztproxy {how}" for how, one in each.items() if one["samples"]]
        scarce = any(0 < one["samples"] < FEW for one in each.values())
        few = " So few say little about small shares." if scarce else ""
        yield _prose(
            "Samples by py-spy of the worker's event loop, C and Python, under the small GET at saturation: "
            f"{listed(counts)}; the drawing is of ztproxy {drawn[0]}.{few} What a function has the "
            "interpreter do is counted as its own."
        )
        yield _shares("layer", {how: one["layers"] for how, one in each.items()}, LAYERS)
        functions = {how: _functions(one["functions"]) for how, one in each.items()}
        names = {name: name for shares in functions.values() for name in shares}
        yield _shares("the dearest functions of ours", functions, names)
    if any(one["cpu_us"] for one in each.values()):
        yield _prose(
            "The hot path in one process, with no socket: no kernel, no uvloop, nobody else. Instructions "
            "are counted by callgrind, and are the same each time to a thousandth."
        )
        yield table(
            ("head", "CPU for a request", "least", "most", "instructions"),
            [
                (
                    f"{kind}, {how}",
                    *(f"{cell} µs" for cell in _cells(taken)),
                    f"{one['instructions'][kind]:,}" if kind in one["instructions"] else "",
                )
                for how, one in each.items()
                for kind, taken in one["cpu_us"].items()
            ],
        )
    for how, one in each.items():
        for what, why in one["skipped"].items():
            yield f"Not measured: {what}, {how}: {why}."


def _functions(found: Mapping[str, float]) -> dict[str, float]:
    """By what a reader knows; what mypyc writes for a class, by what it is for."""
    shares: dict[str, float] = {}
    for name, share in found.items():
        written = _MEMORY.fullmatch(name)
        said = f"`{name}`"
        if written is not None:
            said = f"{_WAYS[written['way']]} `{written['what']} {written['where']}`"
        shares[said] = shares.get(said, 0.0) + share
    return shares


def _shares(what: str, each: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> str:
    """A column for each way of running; what is not among the dearest of one has no share there."""
    return table(
        (what, *each),
        [
            (name, *(f"{shares[key]:.1%}" if key in shares else "" for shares in each.values()))
            for key, name in names.items()
            if any(key in shares for shares in each.values())
        ],
    )


def reading(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "## The dearest requests"
    if not found:
        yield "Not measured."
        return
    costs = {name: guard.Cost(**cost) for name, cost in found.items()}
    slowest, largest = (
        max(costs.items(), key=key)
        for key in (lambda item: item[1].cpu_ms, lambda item: item[1].times_its_size)
    )
    yield _prose(
        f"Of {len(costs)} heads and bodies made to be dear, before anybody is asked who they are: the "
        f"slowest to read takes {number(slowest[1].cpu_ms)} ms of CPU ({slowest[0]}; at most "
        f"{guard.MOST_CPU_MS:g}), and the one that holds most memory {number(largest[1].times_its_size)} "
        f"times its size ({largest[0]}; at most {guard.MOST_TIMES_ITS_SIZE:g})."
    )


def _prose(text: str) -> str:
    return fill(text, 110, break_long_words=False, break_on_hyphens=False)


# -- cells ------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Names to the left, figures to the right."""
    words = [
        all(not row[at] or not row[at].strip("*")[0].isdigit() for row in rows) for at in range(len(head))
    ]
    line = ("--" if at == 0 or words[at] else "--:" for at in range(len(head)))
    return "\n".join([_row(head), f"|{'|'.join(line)}|", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '¦') for cell in cells)} |"


def _taken(what: str, taken: Rounds, by: float, unit: str) -> tuple[str, ...]:
    each = (taken["median"], min(taken["rounds"]), max(taken["rounds"]))
    return what, *(with_unit(value / by, unit) for value in each)


def _cells(taken: Rounds) -> tuple[str, ...]:
    return tuple(map(number, (taken["median"], min(taken["rounds"]), max(taken["rounds"]))))


def _ratio(taken: Rounds | None) -> str:
    if taken is None:
        return ""
    return f"{taken['median']:.2f} ({min(taken['rounds']):.2f} to {max(taken['rounds']):.2f})"


def with_unit(value: float, unit: str) -> str:
    """A ratio has three places, so that one just below an aim does not look like it."""
    if unit:
        return f"{number(value)} {unit}"
    return f"{value:z.3f}" if abs(value) < 10 else number(value)


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def capital(text: str) -> str:
    """Leaves names such as p99 as they are."""
    if text[1:2].isdigit():
        return text
    return text[:1].upper() + text[1:]
