"""Seeded mistakes in the real product: the checker finds each, or the checker is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.history.mutants import MUTANTS
from loadtests.history.run import AIMED, history, main, summary

ENOUGH = 60.0
"""Seconds in which a mistake must be found; most take two."""

BY_COMMAND = "exchanges_not_told"

pytestmark = pytest.mark.timeout(3 * ENOUGH)


@pytest.mark.parametrize("mutant", sorted(MUTANTS.keys() - {BY_COMMAND}))
async def test_a_mistake_is_caught(mutant: str) -> None:
    report = await history(ENOUGH, 1, AIMED, mutant=mutant)
    assert report.violations, f"the checker is broken: {summary(report)}"


def test_the_command_ends_with_1_where_it_found_something(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "build" / "history.json"
    words = ["--seconds", str(ENOUGH), "--mutant", BY_COMMAND, "--report", str(written)]
    assert main(words) == 1
    assert json.loads(written.read_text())["first_violations"][0]["kind"] == "stale_octets"
    assert "Violation(kind='stale_octets'" in capsys.readouterr().out
