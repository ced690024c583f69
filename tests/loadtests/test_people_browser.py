"""What a browser keeps, and what an answer of ztproxy's amounts to."""

from __future__ import annotations

import pytest

from loadtests.people.browser import Answer, Cookies
from loadtests.people.promises import Outcome

HOME = "http://home.localhost:8080/json"
PAGE = ("content-type", "text/html; charset=utf-8")
KEPT = "__Host-ztproxy=abc; Path=/; Secure; HttpOnly; SameSite=Lax"


def answer(status: int, *fields: tuple[str, str], url: str = HOME) -> Answer:
    return Answer(url, status, fields, "", 0.0, 1.0)


@pytest.mark.parametrize(
    ("status", "fields", "outcome"),
    [
        pytest.param(200, [], Outcome.DONE, id="let_in"),
        pytest.param(401, [], Outcome.REFUSED, id="a_script_is_refused"),
        pytest.param(302, [("location", "/.ztproxy/sign_in?rd=%2F")], Outcome.REFUSED, id="a_person_is"),
        pytest.param(302, [("location", "http://idp/authorize?x")], Outcome.ONWARD, id="to_the_provider"),
        pytest.param(502, [PAGE], Outcome.NO_PROVIDER, id="no_provider"),
        pytest.param(502, [], Outcome.WRONG, id="no_provider_and_no_page"),
        pytest.param(502, [PAGE, ("location", "/")], Outcome.WRONG, id="no_provider_and_led_on"),
        pytest.param(503, [("retry-after", "1")], Outcome.BUSY, id="busy"),
        pytest.param(503, [], Outcome.WRONG, id="busy_without_a_word_of_when"),
        pytest.param(503, [("retry-after", "1"), ("location", "/")], Outcome.WRONG, id="busy_and_led_on"),
        pytest.param(
            503,
            [("retry-after", "1"), ("set-cookie", "__Host-ztproxy=; Max-Age=0; Path=/; Secure")],
            Outcome.WRONG,
            id="busy_and_signed_out",
        ),
        pytest.param(
            503,
            [("retry-after", "1"), ("set-cookie", "__Host-ztp_tx_1=; Max-Age=0; Path=/; Secure")],
            Outcome.BUSY,
            id="busy_and_the_flow_is_over",
        ),
        pytest.param(500, [], Outcome.WRONG, id="broken"),
        pytest.param(0, [], Outcome.WRONG, id="no_answer"),
    ],
)
def test_outcomes(status: int, fields: list[tuple[str, str]], outcome: Outcome) -> None:
    assert answer(status, *fields).outcome is outcome


@pytest.mark.parametrize(
    ("field", "onward"),
    [
        pytest.param(("location", "/a?b"), "http://home.localhost:8080/a?b", id="redirect"),
        pytest.param(("refresh", "0; url=http://idp/logout"), "http://idp/logout", id="a_page_leads_on"),
        pytest.param(("refresh", "5; url=http://idp/"), "", id="not_at_once"),
    ],
)
def test_where_it_leads(field: tuple[str, str], onward: str) -> None:
    assert answer(200, field).onward == onward


def test_cookies_are_their_hosts() -> None:
    cookies = Cookies()
    cookies.keep(answer(200, ("set-cookie", KEPT), ("set-cookie", "b=1; Path=/")))
    assert cookies.header(HOME) == {"Cookie": "__Host-ztproxy=abc; b=1"}
    assert cookies.header("http://live.localhost:8080/") == {}
    cookies.keep(answer(200, ("set-cookie", "b=; Path=/; Max-Age=0")))
    assert cookies.header(HOME) == {"Cookie": "__Host-ztproxy=abc"}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("__Host-a=1; Path=/", id="not_secure"),
        pytest.param("__Host-a=1; Secure; Path=/x", id="not_for_all_paths"),
        pytest.param("__Host-a=1; Secure; Path=/; Domain=localhost", id="for_a_domain"),
    ],
)
def test_a_cookie_that_a_browser_would_refuse(line: str) -> None:
    cookies = Cookies()
    with pytest.raises(ValueError, match="would refuse the cookie `__Host-a`"):
        cookies.keep(answer(200, ("set-cookie", line)))
    assert cookies.header(HOME) == {}
