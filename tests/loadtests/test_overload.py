"""Two overload scenarios in the suite, small and short: what was promised beside times holds.

`make overload` is all of them, at full strength and with times. Here honest people are few, as other tests
run beside them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loadtests.overload import report
from loadtests.overload.run import SCENARIOS
from loadtests.overload.scenario import Effort, perform

BY_NAME = {one.name: one for one in SCENARIOS}
SHORT = Effort(seconds=1.0, before=0.3, after=0.3, share=0.3, rate=20.0, streams=False)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Both at once: most of their time is waiting."""
    names = ("app_closes_when_idle", "idle_flood")

    async def both() -> list[Any]:
        return await asyncio.gather(*(perform(BY_NAME[name], SHORT) for name in names))

    return dict(zip(names, asyncio.run(both()), strict=True))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("name", "least"),
    [
        pytest.param("app_closes_when_idle", 2, id="FI28_no_post_takes_effect_twice"),
        pytest.param("idle_flood", 3, id="FI37_the_unknown_make_way_for_the_known"),
    ],
)
def test_promises(found: dict[str, Any], name: str, least: int) -> None:
    kept = [one for one in found[name].promises if not one.timed]
    assert [one for one in kept if not one.kept] == []
    assert sum(not one.common for one in kept) >= least


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(SCENARIOS) > 20
    assert {f"FI{n}" for n in (*range(25, 33), *range(34, 43))} <= {one.row for one in SCENARIOS}


PROMISE = {"what": "nothing | breaks", "kept": True, "seen": "nothing did", "timed": False, "common": False}
HONEST = {
    "requests": 10,
    "p50": 1.0,
    "p99": 2.0,
    "max": 3.0,
    "echo_p99": 1.0,
    "pieces": 3,
    "held_up": 1.0,
    "wrong": {},
}
FIGURES = {
    "machine": {"cpu": "A", "cores": "2", "kernel": "6", "python": "3.11", "uvloop": "0.2"},
    "load_average_before": 0.1,
    "effort": {"seconds": 8.0, "share": 1.0},
    "seconds": 20,
    "skipped": {"slowhttptest": "it is not installed"},
    "not_measured": {},
    "scenarios": [
        {
            "name": "a_flood",
            "row": "FI99",
            "attack": "much of it",
            "honest": dict.fromkeys(("before", "during", "after"), HONEST),
            "worker": {
                name: {"rss_mib": 60.0, "descriptors": 50, "cpu_percent": 9.0}
                for name in ("before", "during", "after")
            },
            "seen": {},
            "promises": [PROMISE, {**PROMISE, "what": "it lives", "common": True}],
        }
    ],
}


def _with(**changes: Any) -> dict[str, Any]:
    [scenario] = FIGURES["scenarios"]  # type: ignore[misc]
    return {**FIGURES, "scenarios": [{**scenario, **changes}]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("figures", "says", "not_said"),
    [
        pytest.param(FIGURES, "all were kept", "broken", id="all_kept"),
        pytest.param(FIGURES, "nothing \\| breaks", "it lives", id="what_all_promise_is_told_once"),
        pytest.param(FIGURES, "slowhttptest was left out: it is not installed", "load average", id="skipped"),
        pytest.param(
            _with(promises=[{**PROMISE, "kept": False}]), "1 were broken", "all were kept", id="one_broken"
        ),
        pytest.param(
            _with(promises=[{**PROMISE, "common": True, "kept": False}]),
            "**broken**",
            "all were kept",
            id="what_all_promise_broken",
        ),
        pytest.param({**FIGURES, "load_average_before": 5.0}, "load average of 5", "broken", id="busy"),
        pytest.param(
            _with(honest={"during": {**HONEST, "held_up": 50.0}, "before": HONEST, "after": HONEST}),
            "held up for more than 20 ms in: a flood",
            "broken",
            id="held_up",
        ),
        pytest.param({**FIGURES, "effort": {"share": 0.2}}, "With 0.2 of all", "broken", id="a_look"),
    ],
)
def test_the_page_tells_what_was_found(figures: dict[str, Any], says: str, not_said: str) -> None:
    page = report.page(figures)
    assert says in page
    assert not_said not in page


def test_the_terminal_tells_what_was_broken() -> None:
    said = "\n".join(report.summary(_with(promises=[PROMISE, {**PROMISE, "kept": False}])))
    assert "2 promises, 1 broken" in said
    assert "FI99 a_flood: nothing | breaks: nothing did" in said
    assert "slowhttptest: it is not installed" in said
