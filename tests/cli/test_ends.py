"""Ends, as the command line says them."""

from __future__ import annotations

import pytest
import typer

from ztproxy.cli.ends import end_of
from ztproxy.core.identity import JSON


@pytest.mark.parametrize(
    ("until", "length", "told"),
    [
        (None, None, {}),
        (None, "30s", {"expires_in": 30}),
        (None, "2h", {"expires_in": 7200}),
        (None, "90d", {"expires_in": 7_776_000}),
        ("2026-12-31T18:00Z", None, {"until": "2026-12-31T18:00:00+00:00"}),
        ("2026-12-31 18:00:30+01:00", None, {"until": "2026-12-31T18:00:30+01:00"}),
    ],
)
def test_ends(until: str | None, length: str | None, told: dict[str, JSON]) -> None:
    assert end_of(until, length) == told


@pytest.mark.parametrize(
    ("until", "length", "said"),
    [
        pytest.param("2026-12-31T18:00Z", "2h", "not both", id="twice"),
        pytest.param("tomorrow", None, "not a moment", id="no moment"),
        pytest.param("2026-12-31T18:00", None, "no zone", id="no zone"),
        pytest.param("", None, "not a moment", id="an empty moment"),
        pytest.param(None, "", "not a length", id="empty"),
        pytest.param(None, "2", "not a length", id="no unit"),
        pytest.param(None, "0d", "not a length", id="nothing"),
        pytest.param(None, "-2h", "not a length", id="backwards"),
        pytest.param(None, "2h\n", "not a length", id="a line's end"),
        pytest.param(None, "٢h", "not a length", id="other digits"),
    ],
)
def test_no_ends(until: str | None, length: str | None, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        end_of(until, length)
