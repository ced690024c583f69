"""The page for readers says what the tests do today."""

from __future__ import annotations

import pytest

from tests.evidence import Tried
from tests.security_page import PAGE, PARTS, gathered, page


def test_it_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.security_page`"


@pytest.mark.parametrize(("one", "name"), [pytest.param(*one, id=one[0].what) for one in gathered()])
def test_what_is_said_was_tried(one: Tried, name: str) -> None:
    assert one.part in PARTS
    assert 0 < one.rows <= one.sent
    assert one.what and one.outcome and "|" not in one.what + one.outcome


def test_every_part_has_something() -> None:
    assert {one.part for one, _ in gathered()} == set(PARTS)
