"""The only HTML of the proxy: escaped, under a policy that fits it, in the operator's look."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from ztproxy.errors import OperatorError
from ztproxy.surfaces.pages import SAFE_FIELDS, Branding, Link, Page, Pages

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"
PAGES = Pages(Branding())

EACH: list[Any] = [
    pytest.param(
        "message.html",
        {
            "title": HOSTILE,
            "what": HOSTILE,
            "why": (HOSTILE,),
            "next": HOSTILE,
            "links": (Link(HOSTILE, HOSTILE),),
            "person": HOSTILE,
            "request_id": HOSTILE,
        },
        id="message",
    ),
    pytest.param("choose.html", {"choices": [Link(HOSTILE, HOSTILE)], "destination": HOSTILE}, id="choose"),
    pytest.param("sign_out.html", {"person": HOSTILE}, id="sign-out"),
    pytest.param(
        "session.html",
        {"rows": ((HOSTILE, HOSTILE),), "groups": (HOSTILE,), "person": HOSTILE},
        id="session",
    ),
    pytest.param(
        "apps.html",
        {"apps": [{"url": HOSTILE, "title": HOSTILE, "description": HOSTILE}], "person": HOSTILE},
        id="apps",
    ),
]


def field(page: Page, name: bytes) -> str:
    (value,) = [value for key, value in page.fields if key == name]
    return value.decode()


@pytest.mark.parametrize(("template", "values"), EACH)
def test_whatever_is_shown_is_escaped(template: str, values: dict[str, Any]) -> None:
    html = PAGES.render(template, **values).body.decode()
    assert "<script" not in html
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    assert "49" not in re.sub(r"(?s)<style>.*?</style>", "", html), "a value is never read as a template"


@pytest.mark.parametrize(("template", "values"), EACH)
def test_the_policy_is_that_of_the_very_style_in_the_page(template: str, values: dict[str, Any]) -> None:
    page = PAGES.render(template, **values)
    (style,) = re.findall(rb"(?s)<style>(.*?)</style>", page.body)
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    policy = field(page, b"Content-Security-Policy")
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy and "unsafe" not in policy
    assert set(SAFE_FIELDS) <= set(page.fields)


def test_a_form_may_lead_to_where_the_page_says_and_nowhere_else() -> None:
    plain = field(PAGES.render("sign_out.html", person=None), b"Content-Security-Policy")
    onward = PAGES.render("sign_out.html", person=None, forms_to="https://login.test")
    assert plain.endswith("form-action 'self'")
    assert field(onward, b"Content-Security-Policy") == f"{plain} https://login.test"


def test_a_template_that_is_not_told_enough_is_our_mistake() -> None:
    with pytest.raises(Exception, match="undefined"):
        PAGES.render("choose.html")


def test_the_operators_templates_stand_before_ours(tmp_path: Path) -> None:
    (tmp_path / "signed_out.html").write_text(
        "{% extends 'base.html' %}{% block main %}Tschüss{% endblock %}"
    )
    (tmp_path / "style.css").write_text("body { color: teal }")
    pages = Pages(Branding("Example <b>", str(tmp_path)))
    page = pages.render("signed_out.html")
    html = page.body.decode()
    assert "Tschüss" in html and "Example &lt;b&gt;" in html
    assert "<style>body { color: teal }</style>" in html
    digest = base64.b64encode(hashlib.sha256(b"body { color: teal }").digest()).decode()
    assert digest in field(page, b"Content-Security-Policy")
    assert "My session" in pages.render("session.html", rows=(), groups=(), person=None).body.decode()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda folder: folder / "missing", "is not a folder", id="no-folder"),
        pytest.param(lambda folder: folder, "contains `</`", id="a-style-that-ends-the-element"),
    ],
)
def test_a_look_that_cannot_be_used_is_told(tmp_path: Path, make: Any, problem: str) -> None:
    (tmp_path / "style.css").write_text("</style><script>alert(1)</script>")
    with pytest.raises(OperatorError, match=problem):
        Pages(Branding(templates=str(make(tmp_path))))


def test_a_message_says_what_why_and_what_next() -> None:
    page = PAGES.message(
        "Title",
        "What happened.",
        why=("One.", "Two."),
        next="Do this.",
        links=(Link("/a", "A"), Link("/b", "B")),
        person="alice",
        request_id="4711",
    )
    html = page.body.decode()
    for said in ("Title", "What happened.", "One.", "Two.", "Do this.", "alice", "4711"):
        assert said in html
    assert '<a class="button" href="/a">A</a>' in html and '<a href="/b">B</a>' in html
