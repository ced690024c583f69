"""Autobahn's fuzzing client through the tunnel gives the same report as without ztproxy.

Half of its 517 cases are run here, those that take seconds; `make conformance` runs all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import autobahn
from tests.conformance.autobahn import Report
from tests.evidence import Tried

# Once, the suite is installed first.
pytestmark = pytest.mark.timeout(360)

ALL, FOR_ALL = 249, 57
"""Cases run for who is signed in, and for everybody: no gate watches those tunnels."""
TRIED = (
    Tried(
        "Conformance",
        "Autobahn's fuzzing client through a tunnel, for everybody and for who is signed in",
        ALL,
        ALL + FOR_ALL,
        "the report that the app gets without ztproxy, in every verdict and every frame",
    ),
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[dict[str, Report]]:
    try:
        python = autobahn.python2()
    except autobahn.Missing as why:
        pytest.skip(str(why))
    with autobahn.ways(python, tmp_path_factory.mktemp("autobahn"), valkey_url) as (_, ways):
        cases = {"public": ("5.*", "7.*"), "direct": autobahn.QUICK, "signed in": autobahn.QUICK}
        yield autobahn.ask(python, {name: ways[name]._replace(cases=cases[name]) for name in cases}, 150)


def test_the_suite_was_run(reports: dict[str, Report]) -> None:
    assert {name: len(report) for name, report in reports.items()} == {
        "direct": ALL,
        "signed in": ALL,
        "public": FOR_ALL,
    }
    assert {one["behavior"] for one in reports["direct"].values()} == {"OK", "INFORMATIONAL"}


def test_a_difference_is_told() -> None:
    one: Report = {"1.1.1": {"behavior": "OK"}, "1.1.2": {"behavior": "OK"}}
    assert autobahn.differences(one, dict(one)) == []
    told = autobahn.differences(one, {"1.1.1": {"behavior": "FAILED"}})
    assert told == ["1.1.1: behavior: 'OK' or 'FAILED'", "1.1.2: behavior: 'OK' or None"]


@pytest.mark.parametrize("way", ["public", "signed in"])
def test_a_tunnel_makes_no_difference(reports: dict[str, Report], way: str) -> None:
    direct = {case: reports["direct"][case] for case in reports[way]}
    assert autobahn.differences(direct, reports[way]) == []
