"""What the revocation bench makes of its figures: percentiles, aims, page and plot. Nothing is timed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.revocation_report import (
    Series,
    aims,
    doubts,
    page,
    percentile,
    plot,
    ratios,
    series,
    summary,
    table,
)

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param([7], 99, 7, id="one-value-is-every-percentile"),
        pytest.param([7], 0, 7, id="nought"),
        pytest.param([3, 1, 2], 50, 2, id="in-any-order"),
        pytest.param([1, 2, 3, 4], 50, 2, id="an-even-number"),
        pytest.param(range(1, 101), 99, 99, id="ninety-nine-of-a-hundred"),
        pytest.param(range(1, 100), 99, 99, id="fewer-than-a-hundred-is-the-worst"),
        pytest.param(range(1, 301), 99, 297, id="of-three-hundred"),
        pytest.param([1, 2], 100, 2, id="all"),
    ],
)
def test_percentile(values: Sequence[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_a_summary_knows_each_round() -> None:
    assert summary([5, 1, 9, 2, 3, 4], rounds=3) == {
        "count": 6,
        "min": 1,
        "p50": 3,
        "p90": 9,
        "p99": 9,
        "max": 9,
        "p99_of_rounds": [5, 9, 4],
    }


def test_ratios_are_of_one_round_each() -> None:
    assert ratios([90, 100], [100, 50]) == [0.9, 2.0]
    with pytest.raises(ValueError, match="longer"):
        ratios([1], [1, 2])


# -- the report -------------------------------------------------------------------------------------------


def figures(**changes: Any) -> dict[str, Any]:
    """A run in which every aim is just met; `changes` by dotted name, with `__` for the dot."""
    good: dict[str, Any] = {
        "machine": {"cpu": "Abacus <2>", "cores": "2", "kernel": "6.1", "python": "3.11.7", "uvloop": "0.21"},
        "quick": False,
        "seconds": 123.4,
        "load_average_before": 0.1,
        "let_in_after_confirmation": 0,
        "setting": {
            "workers": 4,
            "sessions": 10_000,
            "websockets": 1_000,
            "requests_per_second": 200,
            "lease_ms": 800,
            "probe_pause_ms": 2.0,
        },
        "one": {
            "refused_ms": summary([10.0, 50.0], 2),
            "closed_ms": summary([20.0, 200.0], 2),
            "answered_ms": summary([30.0, 100.0], 2),
        },
        "cut_off": {"answered_ms": summary([850.0]), "let_through_ms": summary([799.0])},
        "everybody": {
            "websockets": 10_000,
            "wanted": 10_000,
            "closed_ms": summary([100.0, 2000.0]),
            "answered_ms": 300.0,
            "with_1008": 9_999,
        },
        "load": {"requests_per_second": 199.0, "p50_ms": 2.0, "p99_ms": 9.0, "failed": 0},
        "throughput": {
            "connections": 64,
            "long_lease_s": 10.0,
            "times_as_often": 12.5,
            "requests_per_second": {"off": 10_000, "on": 9_500, "long": 9_700},
            "rounds": {"off": [10_000], "on": [9_500], "long": [9_700]},
            "to_off": {"off": [1.0], "on": [0.95], "long": [0.97]},
            "cpu_us_per_request": {"off": 100.0, "on": 105.0, "long": 103.0},
            "cost_percent": 5.0,
            "spread": 0.02,
            "look_ns": 200.0,
            "looks_percent": 0.4,
        },
        "samples": {
            "refused_ms": [10.0, 50.0],
            "closed_ms": [20.0, 200.0],
            "answered_ms": [30.0, 100.0],
            "cut_answered_ms": [850.0],
        },
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = good
        for step in path:
            inner = inner[step]
        assert last in inner
        inner[last] = value
    return good


def test_an_aim_that_is_reached_exactly_is_met() -> None:
    found = aims(figures())
    assert [aim.verdict for aim in found] == ["met"] * 6
    assert [aim.aim for aim in found] == [50, 200, 100, 850, 2000, 5]


@pytest.mark.parametrize(
    ("which", "changes"),
    [
        pytest.param(0, {"one__refused_ms": summary([50.1])}, id="refused"),
        pytest.param(1, {"one__closed_ms": summary([200.1])}, id="closed"),
        pytest.param(2, {"one__answered_ms": summary([100.1])}, id="answered"),
        pytest.param(3, {"cut_off__answered_ms": summary([850.1])}, id="cut-off"),
        pytest.param(3, {"setting__lease_ms": 500}, id="cut-off-with-a-shorter-lease"),
        pytest.param(4, {"everybody__closed_ms": summary([1.0, 2000.1])}, id="the-last-of-everybody"),
        pytest.param(5, {"throughput__cost_percent": 5.1}, id="throughput"),
    ],
)
def test_an_aim_that_is_missed_is_said(which: int, changes: dict[str, Any]) -> None:
    run = figures(**changes)
    assert [aim.verdict for aim in aims(run)].index("NOT met") == which
    said = [line for line in table(run) if "NOT met" in line]
    written = [line for line in page(run, "plot.svg").splitlines() if "NOT met" in line]
    assert len(said) == len(written) == 1
    assert aims(run)[which].what in said[0]
    assert aims(run)[which].what in written[0]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param({"quick": True}, "quick", id="quick"),
        pytest.param({"load_average_before": 7.7}, "load average of 7.7", id="a-busy-machine"),
        pytest.param({"throughput__spread": 0.3}, "30%", id="rounds-that-differ"),
        pytest.param({"load__requests_per_second": 150.0}, "150 requests/s instead of 200", id="less-load"),
        pytest.param({"load__failed": 3}, "3 requests", id="failed-requests"),
        pytest.param({"everybody__websockets": 8_000}, "8,000 WebSockets", id="fewer-sockets"),
        pytest.param({"let_in_after_confirmation": 1}, "violation", id="a-broken-promise"),
    ],
)
def test_a_doubt_is_on_the_page_and_in_the_table(changes: dict[str, Any], word: str) -> None:
    assert doubts(figures()) == []
    run = figures(**changes)
    (doubt,) = doubts(run)
    assert word in doubt
    assert doubt in page(run, "plot.svg").splitlines()
    assert any(doubt in line for line in table(run))


def test_the_page_says_how_it_was_measured_and_how_to_do_it_again() -> None:
    written = page(figures(), "plot.svg")
    assert written.startswith("# ")
    assert "(plot.svg)" in written
    assert "Abacus <2>, 2 cores, Linux 6.1" in written
    assert "`make bench-revocation`" in written
    assert "9,999 of\n10,000 WebSockets" in written
    assert not re.search(r"[{}]|None", written)
    for block in re.findall(r"(?:^\|.*\n)+", written, re.MULTILINE):
        assert len({row.count("|") for row in block.splitlines()}) == 1, block


def test_the_command_on_the_page_is_there() -> None:
    makefile = Path(__file__).parent.parent / "Makefile"
    assert re.search(r"^bench-revocation:", makefile.read_text(), re.MULTILINE)


# -- the plot ---------------------------------------------------------------------------------------------


def curves(drawing: str) -> list[list[tuple[float, float]]]:
    return [
        [
            (float(x), float(y))
            for x, _, y in (point.partition(",") for point in line.attrib["points"].split())
        ]
        for line in ElementTree.fromstring(drawing).iter(f"{SVG}polyline")
    ]


def test_the_plot_has_a_curve_and_a_ring_for_each_series() -> None:
    drawing = plot(series(figures()))
    root = ElementTree.fromstring(drawing)
    assert len(curves(drawing)) == len(list(root.iter(f"{SVG}circle"))) == 4
    assert "p99 50.0 ms, aim 50 ms" in drawing


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([5.0], id="one"),
        pytest.param([3.0, 1.0, 2.0], id="in-any-order"),
        pytest.param([0.0, 0.0001, 4.0], id="next-to-nothing"),
        pytest.param([1.0, 1.0, 1.0], id="all-alike"),
        pytest.param([0.5, 20_000.0], id="far-apart"),
    ],
)
def test_a_curve_rises_from_none_to_all_within_the_picture(values: list[float]) -> None:
    drawing = plot([Series("a", values)])
    root, (curve,) = ElementTree.fromstring(drawing), curves(drawing)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert all(0 <= x <= width and 0 <= y <= height for x, y in curve)
    assert curve == sorted(curve, key=lambda point: (point[0], -point[1]))
    assert curve[0][1] > curve[-1][1]
    assert len(curve) == 2 * len(values) + 1


def test_a_later_value_is_further_right_by_its_logarithm() -> None:
    one, ten, hundred = (curves(plot([Series("a", [1.0, value, 100.0])]))[0][4][0] for value in (1, 10, 100))
    assert ten - one == pytest.approx(hundred - ten, abs=0.2)
    assert one < ten


def test_a_name_is_text_and_not_markup() -> None:
    drawing = plot([Series("<script>&", [1.0])])
    texts = [text.text for text in ElementTree.fromstring(drawing).iter(f"{SVG}text")]
    assert "<script>&" in texts
    assert "<script" not in drawing
