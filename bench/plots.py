"""The drawings of docs/performance.md: pure functions from figures to SVG.

Knows: how a page of panels is laid out, in light and in dark. Promises: each figure is said in
`<desc>` for who cannot see it, and printed beside its mark where there is room; nothing is told by colour
alone; ztproxy is the coloured one among grey ones; a figure of nought, one round or one point draws as well
as any. Leaves figures to `bench.figures`, and files to its caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log10
from xml.sax.saxutils import escape, quoteattr

from bench.figures import SUBJECT, Curve, Latency, Rounds, Shape
from bench.profile import LAYERS, OURS, Profile

_WIDTH = 960
_EDGE = 24  # around everything
_GAP = 40  # between columns
_BAR = 15
_ROW = 24
_LETTER = 7.0  # the width of one at 12 px, on the safe side

_STYLE = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 }
.head { font-size: 13px; font-weight: 600 }
.quiet { fill: #59636e }
.strong { font-weight: 600 }
.end { text-anchor: end }
.middle { text-anchor: middle }
.paper { fill: #ffffff }
.grid { stroke: #d8dee4; fill: none }
.axis { stroke: #818b98; fill: none }
.ours { fill: #0072b2 }
.theirs { fill: #a3acb6 }
.halo { stroke: #ffffff; stroke-width: 3px; paint-order: stroke }
.whisker { stroke: #1f2328; stroke-width: 1.4; fill: none }
.line { stroke: #0072b2; stroke-width: 2; fill: none }
.line2 { stroke: #b45309; stroke-width: 2; fill: none }
.dot { fill: #0072b2; stroke: #ffffff; stroke-width: 1.5 }
.dot2 { fill: #b45309; stroke: #ffffff; stroke-width: 1.5 }
.band { fill: #0072b2; opacity: .16 }
.band2 { fill: #b45309; opacity: .16 }
.kernel { fill: #8b949e }
.native { fill: #e69f00 }
.rest { fill: #cfd5db }
.cut { stroke: #ffffff; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .quiet { fill: #9198a1 }
  .paper { fill: #0d1117 }
  .grid { stroke: #2a313c }
  .axis { stroke: #6e7681 }
  .ours { fill: #56b4e9 }
  .theirs { fill: #656d78 }
  .halo { stroke: #0d1117 }
  .whisker { stroke: #e6edf3 }
  .line { stroke: #56b4e9 }
  .line2 { stroke: #f0a04b }
  .dot { fill: #56b4e9; stroke: #0d1117 }
  .dot2 { fill: #f0a04b; stroke: #0d1117 }
  .band { fill: #56b4e9 }
  .band2 { fill: #f0a04b }
  .kernel { fill: #7d8590 }
  .rest { fill: #4b535d }
  .cut { stroke: #0d1117 }
}
"""


def speed(shapes: Mapping[str, Shape]) -> str:
    """Bars by proxy, a panel for each shape; a whisker goes from the least round to the most."""
    names = {name for shape in shapes.values() for name in shape["proxies"]}
    panels = [_Bars(shape["what"], shape["unit"], _by_proxy(shape), names) for shape in shapes.values()]
    return _page(
        "Speed, side by side", "Medians of the rounds; whiskers: from the least to the most.", panels
    )


def latency(found: Sequence[Latency]) -> str:
    """What the way through ztproxy adds, by percentile, a panel for each rate."""
    panels = [
        _Bars(
            f"at {one['share']:.0%} of its own maximum",
            f"{one['requests_per_second']:,.0f} requests/s, ms",
            [(name, taken, True) for name, taken in one["added"].items()],
            one["added"],
        )
        for one in found
    ]
    return _page(
        "Added latency",
        "Through ztproxy less direct, percentile by percentile, in milliseconds; whiskers: rounds.",
        panels,
    )


def growth(curves: Sequence[Curve]) -> str:
    """For each curve throughput relative to its first point, and p99."""
    panels: list[_Panel] = []
    for curve in curves:
        points = curve["points"]
        first = points[0]["rate"]["median"] if points else 0.0
        relative = [(point["at"], _divided(point["rate"], first)) for point in points]
        late = [(point["at"], point["p99_ms"]) for point in points]
        panels.append(_Curves(curve["what"], curve["of"], relative, late))
    return _page(
        "Growth",
        "Throughput relative to the first point, and p99 at a fixed rate; bands: rounds; sizes on a "
        "logarithmic scale.",
        panels,
    )


def profile(found: Profile, how: str) -> str:
    """One bar of all that the worker's event loop does, and a bar for each layer. `how` ztproxy was run."""
    shares = {layer: found["layers"].get(layer, 0.0) for layer in LAYERS}
    groups = {"the kernel": "kernel", "libraries in C": "native", "ztproxy": "ours", "the rest": "rest"}
    totals = {
        name: sum(share for layer, share in shares.items() if _group(layer) == group)
        for name, group in groups.items()
    }
    left, width, top = _EDGE, _WIDTH - 2 * _EDGE, 104
    parts, x = [], float(left)
    for name, group in groups.items():
        members = [layer for layer in LAYERS if _group(layer) == group and shares[layer]]
        if not members:
            continue
        middle = x + sum(shares[layer] for layer in members) * width / 2
        for layer in members:
            size = shares[layer] * width
            parts.append(
                _rect(x, top, size, 40, f"{group} cut", f"{_plain(LAYERS[layer])}: {shares[layer]:.1%}")
            )
            x += size
        if totals[name] * width > len(name) * _LETTER + 40:
            parts.append(_text(middle, top - 10, f"{name} {totals[name]:.0%}", "head middle"))
    y, most = top + 80, max([*shares.values(), 0.001])
    bar_left = left + 330
    for layer, name in LAYERS.items():
        share = shares[layer]
        if share:
            size = share / most * (_WIDTH - _EDGE - 60 - bar_left)
            parts.append(_text(left, y, _plain(name)))
            parts.append(_rect(bar_left, y - 12, size, _BAR, _group(layer)))
            parts.append(_text(bar_left + size + 8, y, f"{share:.1%}", "strong"))
            y += _ROW
    said = "; ".join(f"{_plain(LAYERS[layer])} {share:.1%}" for layer, share in shares.items() if share)
    samples = f"{found['samples']:,} samples"
    lead = f"Shares of {samples} of the worker's event loop, under the small GET at saturation."
    return _svg(f"Where the time goes: ztproxy, {how}", lead, said, parts, y + 4)


# -- panels -----------------------------------------------------------------------------------------------


class _Panel:
    """A part of the page: so high, and drawn from its upper left corner."""

    height: float

    def draw(self, left: float, top: float, width: float) -> list[str]:
        raise NotImplementedError

    def said(self) -> str:
        raise NotImplementedError


class _Bars(_Panel):
    """Horizontal bars: name, what was measured, and whether it is ours. `names` are those of all panels of
    the page, so that their bars begin alike."""

    def __init__(
        self, what: str, unit: str, rows: Sequence[tuple[str, Rounds, bool]], names: Iterable[str]
    ) -> None:
        self._what, self._unit, self._rows = what, unit, rows
        self._indent = max(map(len, names), default=0) * _LETTER + 12
        self.height = 48 + _ROW * len(rows)

    def draw(self, left: float, top: float, width: float) -> list[str]:
        bars = left + min(self._indent, width * 0.45)
        room = width - (bars - left) - 74
        most = max([max(taken["rounds"]) for _, taken, _ in self._rows], default=0.0)
        parts = [_text(left, top + 12, self._what, "head"), _text(left, top + 29, self._unit, "quiet")]
        y = top + 44
        for name, taken, ours in self._rows:
            middle, low, high = (
                max(value, 0.0) / most * room if most > 0 else 0.0
                for value in (taken["median"], min(taken["rounds"]), max(taken["rounds"]))
            )
            parts.append(_text(bars - 8, y + 12, name, "end strong" if ours else "end"))
            parts.append(_rect(bars, y, middle, _BAR, "ours" if ours else "theirs"))
            if high - low > 0.5:
                parts.append(
                    f'<path class="whisker" d="M{bars + low:.1f} {y + 3.5}v8m0 -4H{bars + high:.1f}m0 -4v8"/>'
                )
            beside = bars + max(middle, high) + 8
            parts.append(_text(beside, y + 12, number(taken["median"]), "strong" if ours else ""))
            y += _ROW
        return [*parts, f'<path class="axis" d="M{bars:.1f} {top + 40:.1f}V{y - 4:.1f}"/>']

    def said(self) -> str:
        rows = ", ".join(f"{name} {_with_rounds(taken)}" for name, taken, _ in self._rows)
        return f"{self._what} ({self._unit}): {rows}"


class _Curves(_Panel):
    """Two curves over a logarithmic axis, with bands from the least round to the most."""

    height = 138.0

    def __init__(
        self,
        what: str,
        of: str,
        relative: Sequence[tuple[int, Rounds]],
        late: Sequence[tuple[int, Rounds]],
    ) -> None:
        self._what, self._of, self._relative, self._late = what, of, relative, late

    def draw(self, left: float, top: float, width: float) -> list[str]:
        half = (width - _EDGE) / 2
        return [
            _text(left, top + 12, self._what, "head"),
            *_curve("throughput", self._relative, "", 1.0, left, top, half, self.height),
            *_curve("p99, ms", self._late, "2", 0.0, left + half + _EDGE, top, half, self.height),
        ]

    def said(self) -> str:
        told = [
            f"{name} {', '.join(f'{at:,}: {_with_rounds(taken)}' for at, taken in points)}"
            for name, points in (("throughput", self._relative), ("p99, ms", self._late))
        ]
        return f"{self._what} ({self._of}): {'; '.join(told)}"


def _curve(
    name: str,
    points: Sequence[tuple[int, Rounds]],
    style: str,
    level: float,
    left: float,
    top: float,
    width: float,
    height: float,
) -> list[str]:
    """`level` is a line to compare with; the axis begins at nought."""
    parts = [_text(left, top + 29, name, "quiet")]
    high, floor = top + 56, top + height - 28
    most = max([level, *(max(taken["rounds"]) for _, taken in points)]) or 1.0
    xs = _along([at for at, _ in points], left + 16, left + width - 16)

    def y(value: float) -> float:
        return floor - max(value, 0.0) / most * (floor - high)

    parts.append(f'<path class="axis" d="M{left:.1f} {floor:.1f}h{width:.1f}"/>')
    if level:
        parts.append(f'<path class="grid" d="M{left:.1f} {y(level):.1f}h{width:.1f}"/>')
    drawn = list(zip(xs, points, strict=True))
    lows = [(x, y(min(taken["rounds"]))) for x, (_, taken) in drawn]
    highs = [(x, y(max(taken["rounds"]))) for x, (_, taken) in drawn]
    middles = [(x, y(taken["median"])) for x, (_, taken) in drawn]
    parts.append(f'<polygon class="band{style}" points="{_points([*lows, *reversed(highs)])}"/>')
    parts.append(f'<polyline class="line{style}" points="{_points(middles)}"/>')
    free = free_number = left - _EDGE
    for (x, (at, taken)), (_, middle), (_, above) in zip(drawn, middles, highs, strict=True):
        parts.append(f'<circle class="dot{style}" cx="{x:.1f}" cy="{middle:.1f}" r="4"/>')
        size, value = _short(at), number(taken["median"])
        if x - len(size) * _LETTER / 2 > free:
            parts.append(_text(x, floor + 17, size, "quiet middle"))
            free = x + len(size) * _LETTER / 2
        if x - len(value) * _LETTER / 2 > free_number:
            parts.append(_text(x, min(above, middle - 3) - 6, value, "halo middle"))
            free_number = x + len(value) * _LETTER / 2
    return parts


def _by_proxy(shape: Shape) -> list[tuple[str, Rounds, bool]]:
    """The fastest first."""
    rows = [(name, one["rate"], name.startswith(SUBJECT)) for name, one in shape["proxies"].items()]
    return sorted(rows, key=lambda row: -row[1]["median"])


def _group(layer: str) -> str:
    if layer in OURS:
        return "ours"
    if layer in ("reading", "writing", "waiting"):
        return "kernel"
    return "native" if layer in ("uvloop", "llhttp") else "rest"


def _divided(taken: Rounds, by: float) -> Rounds:
    each = [value / by if by > 0 else 0.0 for value in taken["rounds"]]
    return {
        "rounds": each,
        "median": taken["median"] / by if by > 0 else 0.0,
        "spread": taken["spread"],
    }


def _along(steps: Sequence[int], left: float, right: float) -> list[float]:
    """Where each step lies; nought has no logarithm, and lies half a decade below the least other."""
    above = [log10(step) for step in steps if step > 0]
    logs = [log10(step) if step > 0 else min(above, default=0.0) - 0.5 for step in steps]
    low, high = min(logs, default=0.0), max(logs, default=0.0)
    if high == low:
        return [(left + right) / 2 for _ in steps]
    return [left + (one - low) / (high - low) * (right - left) for one in logs]


# -- the page ---------------------------------------------------------------------------------------------


def _page(title: str, lead: str, panels: Sequence[_Panel]) -> str:
    """Two columns, row by row."""
    parts: list[str] = []
    width, y = (_WIDTH - 2 * _EDGE - _GAP) / 2, 88.0
    for start in range(0, len(panels), 2):
        row = panels[start : start + 2]
        for column, panel in enumerate(row):
            parts += panel.draw(_EDGE + column * (width + _GAP), y, width)
        y += max(panel.height for panel in row) + 26
    return _svg(title, lead, ". ".join(panel.said() for panel in panels), parts, y)


def _svg(title: str, lead: str, said: str, parts: Iterable[str], height: float) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
            'aria-labelledby="title desc">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="desc">{escape(f"{lead} {said}")}</desc>',
            f"<style>\n{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{height:.0f}"/>',
            _text(_EDGE, 36, title, "title"),
            _text(_EDGE, 57, lead, "quiet"),
            *parts,
            "</svg>",
            "",
        ]
    )


def _text(x: float, y: float, text: str, style: str = "") -> str:
    kind = f" class={quoteattr(style)}" if style else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, style: str, title: str = "") -> str:
    told = f"<title>{escape(title)}</title>" if title else ""
    where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{style}" {where}>{told}</rect>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def number(value: float) -> str:
    """Three digits or more, as a reader needs them; nought has no sign."""
    size = abs(value)
    return f"{value:z,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def _with_rounds(taken: Rounds) -> str:
    return f"{number(taken['median'])} ({number(min(taken['rounds']))} to {number(max(taken['rounds']))})"


def _short(count: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return str(count)


def _plain(text: str) -> str:
    return text.replace("`", "")
