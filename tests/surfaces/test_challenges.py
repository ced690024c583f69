"""What services and scripts are answered: RFC 6750 and RFC 9470, and never a page, a redirect or a cookie."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.core.words import ask, session
from ztproxy.core.assurance import Levels
from ztproxy.core.decision import Deny, Login, StepUp
from ztproxy.core.identity import Credential, Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request
from ztproxy.core.routes import Services
from ztproxy.surfaces.answers import Answer, Answers
from ztproxy.surfaces.challenges import TO_PEOPLE, TO_SERVICES
from ztproxy.surfaces.pages import Branding, Pages

SITE = "https://app.test"
LEVELS = Levels(acr={"urn:otp": 2, "phr": 3, 'a"b\\': 3, "drei\N{LATIN SMALL LETTER SHARP S}": 3})
ANSWERS = Answers(Pages(Branding()), "the help desk", None, LEVELS)

HTML = (b"Accept", b"text/html,*/*")
BROWSER = (HTML, (b"Sec-Fetch-Mode", b"navigate"), (b"Sec-Fetch-Dest", b"document"))
TOKENS = Services(issuers=("ci",), audience="api", scopes=frozenset({"read", "deploy"}), people=False)
MIXED = replace(TOKENS, people=True)
CERTIFICATES = Services(spiffe=("spiffe://corp.test/ci/*",), people=False)
BEARER, NO_TOKEN = b"Bearer a.b.c", None

SERVICE = replace(session(), by=Credential.TOKEN)
MESHED = replace(session(), by=Credential.CERTIFICATE)


def asks(shown: bytes | None = NO_TOKEN, **more: Any) -> Request:
    """A request that looks as much like a person's as it can."""
    return ask("/x", fields=BROWSER, authorization=shown, **more)


def challenges(answer: Answer) -> list[str]:
    return [value.decode() for name, value in answer.fields if name == b"WWW-Authenticate"]


def problem(answer: Answer) -> Any:
    assert dict(answer.fields)[b"Content-Type"] == b"application/problem+json"
    assert dict(answer.fields)[b"Cache-Control"] == b"no-store"
    names = {name for name, _ in answer.fields}
    assert not names & {b"Location", b"Set-Cookie"}
    said = json.loads(answer.body)
    assert (said["status"], said["request_id"]) == (answer.status, "r1")
    return said


def answered(
    decision: Login | StepUp | Deny, request: Request, services: Services, who: Session | None = None
) -> Answer:
    if isinstance(decision, Deny):
        return ANSWERS.refusal(request, decision, "r1", who, ("GET",), services)
    return ANSWERS.challenge(request, decision, "r1", SITE, services)


INVALID = 'Bearer realm="services", error="invalid_token", error_description="{}"'


def invalid(reason: Reason) -> str:
    return INVALID.format(reason.sentence)


@pytest.mark.parametrize(
    ("decision", "shown", "services", "status", "challenge"),
    [
        pytest.param(
            Login((Reason.TOKEN_REQUIRED,)),
            NO_TOKEN,
            TOKENS,
            401,
            'Bearer realm="services"',
            id="no-token-no-error",
        ),
        pytest.param(
            Login((Reason.SERVICES_ONLY,)),
            NO_TOKEN,
            TOKENS,
            401,
            'Bearer realm="services"',
            id="a-cookie-alone",
        ),
        pytest.param(
            Login((Reason.SERVICES_ONLY,)),
            NO_TOKEN,
            CERTIFICATES,
            401,
            'Ztproxy realm="services"',
            id="no-token-helps",
        ),
        pytest.param(
            Deny((Reason.TOKEN_INVALID,)), BEARER, TOKENS, 401, invalid(Reason.TOKEN_INVALID), id="invalid"
        ),
        pytest.param(
            Deny((Reason.TOKEN_INVALID,)),
            BEARER,
            MIXED,
            401,
            invalid(Reason.TOKEN_INVALID),
            id="invalid-of-both",
        ),
        pytest.param(
            Login((Reason.SESSION_EXPIRED,)),
            BEARER,
            MIXED,
            401,
            invalid(Reason.SESSION_EXPIRED),
            id="expired",
        ),
        pytest.param(
            Deny((Reason.SCOPE_MISSING,)),
            BEARER,
            TOKENS,
            403,
            'Bearer realm="services", error="insufficient_scope", '
            f'error_description="{Reason.SCOPE_MISSING.sentence}", scope="deploy read"',
            id="insufficient-scope",
        ),
        pytest.param(
            Deny((Reason.SCOPE_MISSING,)),
            BEARER,
            replace(TOKENS, scopes=frozenset(), roles=frozenset({"secret-role"})),
            403,
            'Bearer realm="services", error="insufficient_scope", '
            f'error_description="{Reason.SCOPE_MISSING.sentence}"',
            id="a-role-is-not-named",
        ),
        pytest.param(
            Deny((Reason.CREDENTIALS_MIXED,)),
            BEARER,
            MIXED,
            400,
            'Bearer realm="services", error="invalid_request", '
            f'error_description="{Reason.CREDENTIALS_MIXED.sentence}"',
            id="mixed",
        ),
        pytest.param(
            Login((Reason.SERVICE_MISMATCH,)), NO_TOKEN, CERTIFICATES, 403, None, id="another-principal"
        ),
        pytest.param(
            Login((Reason.DEVICE_CERTIFICATE_REQUIRED,)),
            NO_TOKEN,
            CERTIFICATES,
            403,
            None,
            id="no-certificate",
        ),
        pytest.param(Deny((Reason.HTTP_METHOD,)), BEARER, MIXED, 405, None, id="method"),
        pytest.param(Deny((Reason.STATE_UNAVAILABLE,)), BEARER, MIXED, 503, None, id="state-away"),
        pytest.param(Deny((Reason.PROVIDER_UNAVAILABLE,)), BEARER, MIXED, 502, None, id="issuer-away"),
        pytest.param(Deny((Reason.LOCKED,), "Ask Bob."), BEARER, MIXED, 403, None, id="locked"),
        pytest.param(Deny((Reason.GROUP_MISSING,)), NO_TOKEN, TOKENS, 403, None, id="policy"),
    ],
)
def test_what_a_service_is_answered(
    decision: Login | Deny, shown: bytes | None, services: Services, status: int, challenge: str | None
) -> None:
    answer = answered(decision, asks(shown, session="cookie"), services)
    assert answer.status == status
    assert challenges(answer) == ([] if challenge is None else [challenge])
    said = problem(answer)
    told = Reason.NO_RULE_ALLOWS if decision.reasons[0] is Reason.GROUP_MISSING else decision.reasons[0]
    assert said["reasons"] == [told]
    assert "sign_in" not in said and "secret-role" not in answer.body.decode()


def test_a_service_that_is_known_hears_why() -> None:
    denied = Deny((Reason.GROUP_MISSING, Reason.TIME_MISMATCH))
    for who, request in ((SERVICE, asks(BEARER)), (MESHED, asks())):
        said = problem(answered(denied, request, MIXED, who))
        assert said["reasons"] == [*denied.reasons]


def test_the_scope_that_is_missing_is_in_the_body_too() -> None:
    assert problem(answered(Deny((Reason.SCOPE_MISSING,)), asks(BEARER), TOKENS))["scope"] == "deploy read"


# -- a stronger sign-in (RFC 9470) --


def step(who: Session, rank: int = 2, max_age: float | None = None) -> StepUp:
    return StepUp(who, rank, max_age, (Reason.STEP_UP_REQUIRED,))


LACKS = f'error="insufficient_user_authentication", error_description="{Reason.STEP_UP_REQUIRED.sentence}"'


@pytest.mark.parametrize(
    ("rank", "max_age", "params", "told"),
    [
        pytest.param(
            2,
            300.0,
            r', acr_values="urn:otp phr a\"b\\", max_age="300"',
            ('urn:otp phr a"b\\', 300),
            id="both",
        ),
        pytest.param(0, 0.0, ', max_age="0"', (None, 0), id="age-alone"),
        pytest.param(3, None, r', acr_values="phr a\"b\\"', ('phr a"b\\', None), id="rank-alone"),
        pytest.param(1, None, "", (None, None), id="nothing-to-name"),
    ],
)
@pytest.mark.parametrize("of_token", [True, False], ids=["token", "script"])
def test_a_stronger_sign_in_is_asked_for(
    rank: int, max_age: float | None, params: str, told: tuple[str | None, int | None], of_token: bool
) -> None:
    if of_token:
        answer = answered(step(SERVICE, rank, max_age), asks(BEARER), MIXED)
        scheme = 'Bearer realm="services"'
    else:
        answer = answered(step(session(), rank, max_age), ask("/x", query="?a=b"), MIXED)
        scheme = 'Ztproxy realm="sign-in"'
    said = problem(answer)
    assert (answer.status, challenges(answer)) == (401, [f"{scheme}, {LACKS}{params}"])
    assert (said.get("acr_values"), said.get("max_age")) == told
    assert said.get("sign_in") == (None if of_token else f"{SITE}/.ztproxy/sign_in?rd=%2Fx%3Fa%3Db")


def test_nobody_can_sign_in_more_strongly_with_a_certificate() -> None:
    answer = answered(step(MESHED), asks(), MIXED)
    assert (answer.status, challenges(answer)) == (403, [])
    assert problem(answer)["reasons"] == [Reason.STEP_UP_REQUIRED]


# -- people on a route that services share --


def test_people_are_answered_as_everywhere() -> None:
    login = Login((Reason.LOGIN_REQUIRED,))
    assert answered(login, asks(), MIXED).status == 302
    assert answered(step(session()), asks(session="cookie"), MIXED).status == 302
    page = answered(Deny((Reason.GROUP_MISSING,)), asks(), MIXED, session())
    assert b"You cannot open this" in page.body
    assert b"suspended" in answered(Deny((Reason.LOCKED,)), asks(), MIXED).body
    # An Authorization that is the app's own matter makes nobody a service.
    for mine in (ask("/x", fields=BROWSER, authorization=b"Basic eDp5"), asks()):
        assert answered(login, mine, MIXED).status == 302
    own = replace(CERTIFICATES, people=True)
    assert answered(login, asks(BEARER), own).status == 302


def test_a_program_is_told_both_ways_in() -> None:
    answer = answered(Login((Reason.LOGIN_REQUIRED,)), ask("/x"), MIXED)
    assert [field for field in answer.fields if field[0] == b"WWW-Authenticate"] == [TO_PEOPLE, TO_SERVICES]
    assert problem(answer)["sign_in"] == f"{SITE}/.ztproxy/sign_in"
    alone = answered(Login((Reason.LOGIN_REQUIRED,)), ask("/x"), replace(CERTIFICATES, people=True))
    assert [field for field in alone.fields if field[0] == b"WWW-Authenticate"] == [TO_PEOPLE]
