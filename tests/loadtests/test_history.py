"""A history in the suite: real workers on a real store, random faults, and not one violation.

`ZTPROXY_HISTORY_SECONDS` is how long the faults last (30); `make soak` is the long one.
"""

from __future__ import annotations

import os

import pytest

from loadtests.history.run import Effort, history, summary

SECONDS = float(os.environ.get("ZTPROXY_HISTORY_SECONDS", "30"))


@pytest.mark.timeout(max(240.0, 4 * SECONDS))
async def test_nothing_confirmed_is_undone() -> None:
    report = await history(SECONDS, 1, Effort(workers=3))
    assert report.violations == [], summary(report)
    assert report.requests["allowed"] and report.requests["revoked"]
    assert report.pieces["up"] and report.pieces["down"]
    assert report.revocations["confirmed"] and len(report.faults) > 3
