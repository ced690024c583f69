"""The hypothesis twin of every target: the same properties wherever the suite runs.

The inputs are the same each time, so that the suite is stable; `FUZZ_EXAMPLES=5000` tries others, and more.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz import corpus
from tests.fuzz.mutating import inputs
from tests.fuzz.registry import TARGETS

MORE = int(os.environ.get("FUZZ_EXAMPLES", "0"))


@pytest.mark.timeout(0 if MORE else 120)
@pytest.mark.parametrize("name", TARGETS)
def test_every_property_holds(name: str) -> None:
    target = TARGETS[name]
    known = [entry.data for entry in corpus.read(name)]
    more = (
        settings(max_examples=MORE, deadline=None, database=None)
        if MORE
        else settings(max_examples=target.examples, deadline=None, database=None, derandomize=True)
    )

    @settings(more, suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink))
    @given(inputs(known, target.words, target.longest))
    def holds(data: bytes) -> None:
        target.run(data)

    holds()
