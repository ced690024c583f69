"""The bench of reading: its rows are what they say, and nothing in it can be read for nothing."""

from __future__ import annotations

import pytest

from bench import guard
from ztproxy.core.reasons import Reason

REFUSED = {
    "80 KiB of fields": Reason.HTTP_HEAD_TOO_LARGE,
    "a target of 9,000 bytes": Reason.HTTP_REQUEST_LINE_TOO_LONG,
    "60 KiB without a line's end": Reason.HTTP_REQUEST_LINE_TOO_LONG,
    "70 KB of extensions": Reason.HTTP_BODY,
}


@pytest.mark.parametrize("name", [*guard.HEADS, *guard.BODIES])
def test_each_is_read_or_refused_as_its_name_says(name: str) -> None:
    if name in guard.HEADS:
        outcome = guard.read_head(guard.HEADS[name])
    else:
        outcome = guard.read_body(*guard.BODIES[name])
    assert outcome == REFUSED.get(name, "read")


def test_an_aim_that_is_missed_is_told() -> None:
    dear = guard.Cost(100, 51.0, 0, "read")
    large = guard.Cost(guard.SMALLEST, 0.1, 11 * guard.SMALLEST, "read")
    fine = guard.Cost(100, 49.0, 10 * guard.SMALLEST, "read")
    assert guard.report({"fine": fine})[-1].endswith(": met")
    for one in (dear, large):
        assert guard.report({"fine": fine, "not": one})[-1].endswith(": NOT met")
