"""What is said to a person and to a program; and what is not said to a stranger."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.core.words import ask, path, session
from ztproxy.core.decision import Deny, Login, StepUp
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity, Request
from ztproxy.surfaces.answers import Answer, Answers, reads_pages, sign_in_path
from ztproxy.surfaces.pages import Branding, Pages

SITE = "https://app.test"
ANSWERS = Answers(Pages(Branding()), "the help desk", "max-age=60")
HTML = (b"Accept", b"text/html,*/*")
DOCUMENT = ((b"Sec-Fetch-Mode", b"navigate"), (b"Sec-Fetch-Dest", b"document"))

NAVIGATION = ask("/x", fields=(HTML, *DOCUMENT))
OLD_BROWSER = ask("/x", fields=(HTML,))
FORM = ask("/x", method="POST", fields=(HTML,))
API = ask("/x", fields=((b"Accept", b"application/json"),))
SOCKET = ask("/x", fields=(HTML, *DOCUMENT), upgrade="websocket")


def has(answer: Answer, name: bytes) -> bytes | None:
    return dict(answer.fields).get(name)


def problem(answer: Answer) -> Any:
    assert has(answer, b"Content-Type") == b"application/problem+json"
    return json.loads(answer.body)


@pytest.mark.parametrize(
    ("request_", "status", "page"),
    [
        pytest.param(NAVIGATION, 302, False, id="navigation"),
        pytest.param(OLD_BROWSER, 302, False, id="a browser without fetch metadata"),
        pytest.param(ask("/x", method="HEAD", fields=(HTML,)), 302, False, id="HEAD"),
        pytest.param(FORM, 401, True, id="a form: what was typed is not thrown away"),
        pytest.param(API, 401, False, id="a program"),
        pytest.param(ask("/x"), 401, False, id="who says nothing"),
        pytest.param(
            ask("/x", fields=(HTML, (b"X-Requested-With", b"XMLHttpRequest"))), 401, False, id="XHR"
        ),
        pytest.param(ask("/x", fields=(HTML, (b"Sec-Fetch-Mode", b"cors"))), 401, False, id="fetch"),
        pytest.param(
            ask("/x", fields=(HTML, (b"Sec-Fetch-Mode", b"no-cors"), (b"Sec-Fetch-Dest", b"image"))),
            401,
            False,
            id="an image",
        ),
        pytest.param(
            ask("/x", fields=(HTML, (b"Sec-Fetch-Mode", b"navigate"), (b"Sec-Fetch-Dest", b"object"))),
            401,
            True,
            id="an embedded document",
        ),
        pytest.param(SOCKET, 401, False, id="a WebSocket"),
    ],
)
@pytest.mark.parametrize(
    "decision",
    [
        Login((Reason.LOGIN_REQUIRED,)),
        StepUp(session(), 2, None, (Reason.STEP_UP_REQUIRED,)),
    ],
    ids=["login", "step-up"],
)
def test_a_challenge(request_: Request, status: int, page: bool, decision: Login | StepUp) -> None:
    answer = ANSWERS.challenge(request_, decision, "r1", SITE)
    assert answer.status == status and has(answer, b"Cache-Control") == b"no-store"
    assert not has(answer, b"Set-Cookie")
    if status == 302:
        assert has(answer, b"Location") == b"https://app.test/.ztproxy/sign_in?rd=%2Fx"
        return
    assert has(answer, b"Location") is None
    challenge = has(answer, b"WWW-Authenticate") or b""
    assert challenge.startswith(b'Ztproxy realm="sign-in"')
    assert (b"insufficient_user_authentication" in challenge) is (isinstance(decision, StepUp) and not page)
    if page:
        assert b"Please sign in again" in answer.body and b"r1" in answer.body
    else:
        said = problem(answer)
        assert (said["status"], said["reasons"], said["request_id"]) == (401, [decision.reasons[0]], "r1")
        back = "?rd=%2Fx" if isinstance(decision, StepUp) else ""
        assert said["sign_in"] == f"https://app.test/.ztproxy/sign_in{back}"


@pytest.mark.parametrize(
    ("request_", "way"),
    [
        (ask("/a", query="?b=1&c=//evil.test"), "%2Fa%3Fb%3D1%26c%3D%2F%2Fevil.test"),
        (ask("/a", query="?" + "b" * 3000), "%2Fa"),
        (ask("/" + "a" * 3000), "%2F"),
        (ask(path("/a%2Fb", "/a/b", because=Ambiguity.ENCODED_SLASH)), "%2Fa%252Fb"),
    ],
    ids=["path and query", "a query too long", "a path too long", "a path with two readings"],
)
def test_the_way_back_is_one_that_will_be_accepted(request_: Request, way: str) -> None:
    assert sign_in_path(request_) == f"/.ztproxy/sign_in?rd={way}"


POLICY = [
    Reason.RULE_DENIED,
    Reason.NO_RULE_ALLOWS,
    Reason.USER_MISMATCH,
    Reason.EMAIL_MISMATCH,
    Reason.DOMAIN_MISMATCH,
    Reason.GROUP_MISSING,
    Reason.CLAIM_MISMATCH,
    Reason.METHOD_MISMATCH,
    Reason.PATH_MISMATCH,
    Reason.TIME_MISMATCH,
    Reason.NETWORK_MISMATCH,
    Reason.DEVICE_UNKNOWN,
    Reason.DEVICE_NOT_APPROVED,
    Reason.DEVICE_LOST,
    Reason.DEVICE_RETIRED,
    Reason.DEVICE_OWNER,
    Reason.DEVICE_PLATFORM,
    Reason.POSTURE_UNKNOWN,
    Reason.POSTURE_STALE,
    Reason.POSTURE_MISMATCH,
]


@pytest.mark.parametrize("reason", POLICY)
@pytest.mark.parametrize("request_", [NAVIGATION, API], ids=["page", "problem"])
def test_a_stranger_is_not_told_what_the_policy_looks_at(request_: Request, reason: Reason) -> None:
    answer = ANSWERS.refusal(request_, Deny((reason, Reason.GROUP_MISSING)), "r1", None, ())
    assert answer.status == 403
    told = answer.body.decode()
    assert Reason.NO_RULE_ALLOWS.sentence in told
    for other in POLICY:
        if other is not Reason.NO_RULE_ALLOWS:
            assert other.sentence not in told and other.value not in told


def test_a_person_is_told_why_and_what_to_do() -> None:
    denied = Deny((Reason.GROUP_MISSING, Reason.TIME_MISMATCH))
    answer = ANSWERS.refusal(NAVIGATION, denied, "r1", session(), ())
    told = answer.body.decode()
    for text in (
        Reason.GROUP_MISSING.sentence,
        Reason.TIME_MISMATCH.sentence,
        "the help desk",
        "r1",
        "alice-0001",
        "/.ztproxy/sign_out",
    ):
        assert text in told
    assert problem(ANSWERS.refusal(API, denied, "r1", session(), ()))["reasons"] == [*denied.reasons]
    alone = ANSWERS.refusal(NAVIGATION, Deny((Reason.GROUP_MISSING,)), "r1", session(), ())
    assert alone.body.decode().count(Reason.GROUP_MISSING.sentence) == 1


@pytest.mark.parametrize("reason", [Reason.ORIGIN_MISMATCH, Reason.UPGRADE_NOT_ALLOWED])
def test_what_is_wrong_with_the_request_itself_is_said_to_anybody(reason: Reason) -> None:
    assert problem(ANSWERS.refusal(SOCKET, Deny((reason,)), "r1", None, ()))["reasons"] == [reason]


@pytest.mark.parametrize("request_", [NAVIGATION, API], ids=["page", "problem"])
def test_a_405_says_which_methods_there_are(request_: Request) -> None:
    answer = ANSWERS.refusal(request_, Deny((Reason.HTTP_METHOD,)), "r1", None, {"POST", "GET"})
    assert (answer.status, has(answer, b"Allow")) == (405, b"GET, POST")


@pytest.mark.parametrize("request_", [NAVIGATION, FORM, API, SOCKET], ids=["page", "form", "api", "socket"])
def test_a_store_that_is_away_is_a_503_without_redirect_or_cookie(request_: Request) -> None:
    answer = ANSWERS.refusal(request_, Deny((Reason.STATE_UNAVAILABLE,)), "r1", None, ())
    assert (answer.status, has(answer, b"Retry-After")) == (503, b"1")
    assert has(answer, b"Location") is None and has(answer, b"Set-Cookie") is None
    assert b"You stay signed in" in answer.body


@pytest.mark.parametrize(
    ("reason", "title", "challenge"),
    [
        (Reason.LOGIN_REQUIRED, b"Please sign in", True),
        (Reason.SESSION_UNKNOWN, b"Please sign in", True),
        (Reason.LOGIN_STATE, b"This sign-in did not work", False),
        (Reason.STEP_UP_FAILED, b"This sign-in was not strong enough", False),
    ],
)
def test_a_sign_in_that_did_not_succeed(reason: Reason, title: bytes, challenge: bool) -> None:
    page = ANSWERS.not_signed_in(NAVIGATION, reason, "r1", "/.ztproxy/sign_in?rd=%2Fx")
    assert page.status == reason.status and title in page.body
    assert b'href="/.ztproxy/sign_in?rd=%2Fx"' in page.body
    for answer in (page, ANSWERS.not_signed_in(API, reason, "r1")):
        assert (has(answer, b"WWW-Authenticate") is not None) is challenge


@pytest.mark.parametrize(("wait", "told"), [(0.004, "1 second"), (7.2, "8 seconds"), (60.0, "60 seconds")])
def test_too_many_sign_ins_say_how_long_to_wait(wait: float, told: str) -> None:
    page = ANSWERS.not_signed_in(NAVIGATION, Reason.LOGIN_TOO_MANY, "r1", "/.ztproxy/sign_in", wait)
    assert f"Wait {told}, then start the sign-in again." in page.body.decode()
    assert has(page, b"Retry-After") == told.split()[0].encode()


def test_a_loop_ends_at_once_for_a_person_and_later_for_a_program() -> None:
    page = ANSWERS.not_signed_in(NAVIGATION, Reason.LOGIN_TOO_MANY, "r1", "/.ztproxy/sign_in?by_hand=1")
    assert "Start the sign-in again." in page.body.decode() and "Wait" not in page.body.decode()
    assert dict(page.fields)[b"Retry-After"] == b"60"


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        (Reason.NO_SUCH_HOST, b"Not found"),
        (Reason.NO_SUCH_ROUTE, b"Not found"),
        (Reason.FORGED_FORM, b"This cannot be done"),
        (Reason.HTTP_TARGET, b"This cannot be done"),
        (Reason.HTTP_MISDIRECTED, b"This cannot be done"),
    ],
)
def test_a_request_that_cannot_be_served(reason: Reason, title: bytes) -> None:
    page = ANSWERS.refused(NAVIGATION, reason, "r1")
    assert page.status == reason.status and title in page.body
    assert problem(ANSWERS.refused(API, reason, "r1"))["detail"] == reason.sentence


@pytest.mark.parametrize("reason", [Reason.INTERNAL, Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_BUSY])
def test_a_failure(reason: Reason) -> None:
    for request in (NAVIGATION, API):
        answer = ANSWERS.failure(request, reason, "r1")
        assert answer.status == reason.status
        assert (has(answer, b"Retry-After") is not None) is (reason.status == 503)


def test_a_sign_in_that_stayed_too_weak_says_what_happened_and_whom_to_ask() -> None:
    told = ANSWERS.not_signed_in(NAVIGATION, Reason.STEP_UP_FAILED, "r1").body.decode()
    for text in ("twice answered with less", "you still are", "the help desk", "r1"):
        assert text in told
    assert problem(ANSWERS.not_signed_in(API, Reason.STEP_UP_FAILED, "r1"))["reasons"] == ["step_up_failed"]


def test_a_form_that_needs_a_stronger_sign_in_does_not_say_that_the_session_ended() -> None:
    answer = ANSWERS.challenge(FORM, StepUp(session(), 2, None, (Reason.STEP_UP_REQUIRED,)), "r1", SITE)
    assert b"needs a stronger sign-in" in answer.body and b"session ended" not in answer.body
    assert b'href="/.ztproxy/sign_in?rd=%2Fx"' in answer.body


# -- devices --

CERTIFICATES = [
    Reason.DEVICE_CERTIFICATE_REQUIRED,
    Reason.DEVICE_CERTIFICATE_INVALID,
    Reason.DEVICE_CERTIFICATE_EXPIRED,
    Reason.DEVICE_CERTIFICATE_REVOKED,
    Reason.DEVICE_CERTIFICATE_MISMATCH,
]


@pytest.mark.parametrize("reason", [*CERTIFICATES, *(one for one in POLICY if one.startswith("device"))])
def test_a_person_is_told_what_is_wrong_with_their_device(reason: Reason) -> None:
    answer = ANSWERS.refusal(NAVIGATION, Deny((reason,)), "r1", session(), ())
    told = answer.body.decode()
    assert (answer.status, has(answer, b"Location")) == (403, None)
    for text in ("This needs a known device", reason.sentence, "the help desk", "r1", "alice-0001"):
        assert text in told
    assert "/.ztproxy/devices" not in told
    assert problem(ANSWERS.refusal(API, Deny((reason,)), "r1", session(), ()))["reasons"] == [reason]


@pytest.mark.parametrize("reason", CERTIFICATES)
def test_a_stranger_is_told_what_is_wrong_with_their_certificate(reason: Reason) -> None:
    told = ANSWERS.refusal(NAVIGATION, Deny((reason, Reason.GROUP_MISSING)), "r1", None, ()).body.decode()
    assert "This needs a known device" in told and reason.sentence in told
    assert Reason.GROUP_MISSING.sentence not in told


def test_what_to_do_next_is_said() -> None:
    def told(reason: Reason) -> str:
        return ANSWERS.refusal(NAVIGATION, Deny((reason,)), "r1", session(), ()).body.decode()

    assert "Choose the certificate" in told(Reason.DEVICE_CERTIFICATE_REQUIRED)
    assert "Get a new certificate" in told(Reason.DEVICE_CERTIFICATE_EXPIRED)
    assert "Somebody has to approve it" in told(Reason.DEVICE_NOT_APPROVED)
    assert "reported from time to time" in told(Reason.POSTURE_STALE)


@pytest.mark.parametrize(
    ("reason", "led"),
    [
        (Reason.DEVICE_CERTIFICATE_REQUIRED, True),
        (Reason.DEVICE_CERTIFICATE_EXPIRED, True),
        (Reason.DEVICE_UNKNOWN, True),
        (Reason.DEVICE_OWNER, False),
        (Reason.GROUP_MISSING, False),
    ],
)
def test_where_devices_can_be_registered_the_page_leads_there(reason: Reason, led: bool) -> None:
    enrolling = Answers(Pages(Branding()), None, None, enrolment=True)
    told = enrolling.refusal(NAVIGATION, Deny((reason,)), "r1", session(), ()).body
    assert (b'href="/.ztproxy/devices"' in told) is led
    assert b"whoever runs this app" in told


def test_a_certificate_that_cannot_be_checked_is_for_later() -> None:
    answer = ANSWERS.refusal(NAVIGATION, Deny((Reason.DEVICE_CERTIFICATE_UNCHECKED,)), "r1", None, ())
    assert (answer.status, has(answer, b"Retry-After")) == (503, b"1")


@pytest.mark.parametrize("reason", [Reason.DEVICE_MISMATCH, Reason.DEVICE_UNBOUND])
def test_who_comes_from_another_device_signs_in_again(reason: Reason) -> None:
    assert ANSWERS.challenge(NAVIGATION, Login((reason,)), "r1", SITE).status == 302
    assert problem(ANSWERS.challenge(API, Login((reason,)), "r1", SITE))["reasons"] == [reason]


def test_nothing_of_the_input_is_repeated() -> None:
    evil = ask("/<script>x", query="?<script>y", fields=(HTML, (b"Referer", b"<script>z")))
    for answer in (
        ANSWERS.refusal(evil, Deny((Reason.NO_RULE_ALLOWS,)), "r1", session(), ()),
        ANSWERS.refused(evil, Reason.NO_SUCH_ROUTE, "r1"),
        ANSWERS.failure(evil, Reason.INTERNAL, "r1"),
        ANSWERS.not_signed_in(evil, Reason.LOGIN_STATE, "r1"),
    ):
        assert not re.search(rb"<script>|%3Cscript", answer.body)


def test_hsts_is_said_over_tls_only() -> None:
    answer = Answer(200, (), b"")
    hsts = b"Strict-Transport-Security"
    assert has(ANSWERS.complete(ask("/"), answer), hsts) == b"max-age=60"
    assert has(ANSWERS.complete(ask("/", scheme="http"), answer), hsts) is None
    assert Answers(Pages(Branding()), None, None).complete(ask("/"), answer) is answer


def test_who_reads_pages() -> None:
    assert [reads_pages(one) for one in (NAVIGATION, FORM, API, SOCKET)] == [True, True, False, False]
