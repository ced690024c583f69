"""What a browser would send of a page's first form, and nothing of what stands beside it."""

from __future__ import annotations

import pytest

from ztproxy.demo.forms import Form


@pytest.mark.parametrize(
    ("page", "action", "hidden"),
    [
        pytest.param("<p>nothing</p>", None, {}, id="no form"),
        pytest.param('<input type="hidden" name="a" value="b">', None, {}, id="a field without a form"),
        pytest.param("<form></form>", "", {}, id="to where it came from"),
        pytest.param(
            '<form action="/there"><input type="hidden" name="a" value="&lt;b&gt;"><input name="c"></form>',
            "/there",
            {"a": "<b>"},
            id="what is typed is not in it",
        ),
        pytest.param(
            '<form action="/one"></form><form action="/two"><input type="hidden" name="a"></form>',
            "/one",
            {},
            id="the first of two",
        ),
    ],
)
def test_the_first_form(page: str, action: str | None, hidden: dict[str, str]) -> None:
    form = Form(page)
    assert (form.action, form.hidden) == (action, hidden)
