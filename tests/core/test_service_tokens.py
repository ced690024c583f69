"""What a service shows: claims that hold, and every way in which they do not."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from typing import Any

import pytest

from tests.core.words import ask
from ztproxy.core.certificate import Certificate
from ztproxy.core.identity import JSON, Credential, Identity, Session
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import Services
from ztproxy.core.service_tokens import (
    MAX_TOKEN,
    TokenRules,
    certificate_session,
    issuer_named_in,
    judge_token,
    shows_bearer,
)
from ztproxy.errors import ClientError

NOW = 1_750_000_000.0
ISSUER, API = "https://idp.test/realm", "https://api.test"
RULES = TokenRules("ci", ISSUER, keep=("repository", "org.unit"))
SERVICES = Services(issuers=("ci",), audience=API)
NONE: Any = ...
"""A claim that is not there."""


def claims(**changes: Any) -> dict[str, JSON]:
    """A good token's, issued a minute ago for an hour."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": API,
        "sub": "repo:corp/app",
        "iat": int(NOW) - 60,
        "exp": int(NOW) + 3540,
        "jti": "j-1",
    }
    return {name: value for name, value in (good | changes).items() if value is not NONE}


def judge(
    services: Services = SERVICES, rules: TokenRules = RULES, now: float = NOW, **changes: Any
) -> Session:
    return judge_token(rules, services, claims(**changes), now)


def refusal(*args: Any, **changes: Any) -> tuple[Reason, str]:
    with pytest.raises(ClientError) as caught:
        judge(*args, **changes)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize(
    ("services", "shown", "does"),
    [
        pytest.param(SERVICES, b"Bearer t", True, id="a token"),
        pytest.param(SERVICES, b"bEARER t", True, id="the scheme in any case"),
        pytest.param(SERVICES, b"Bearer", True, id="without a token"),
        pytest.param(SERVICES, b"Basic t", False, id="another scheme"),
        pytest.param(SERVICES, None, False, id="nothing"),
        pytest.param(Services(spiffe=("spiffe://a.test/b",)), b"Bearer t", False, id="certificates alone"),
    ],
)
def test_whether_a_token_for_us_is_shown(services: Services, shown: bytes | None, does: bool) -> None:
    assert shows_bearer(ask(authorization=shown), services) is does


# -- what holds --


def test_a_token_that_holds_is_a_session() -> None:
    found = judge(
        scope="read write",
        roles=["deployer"],
        email="ci@corp.test",
        email_verified=True,
        repository="corp/app",
        org={"unit": "ops", "secret": "x"},
        acr="mfa",
        amr=["pwd", "otp"],
        auth_time=int(NOW) - 600,
        sid="i-1",
    )
    assert found == Session(
        id=found.id,
        identity=Identity(
            ISSUER,
            "repo:corp/app",
            email="ci@corp.test",
            groups=("deployer",),
            claims={"repository": "corp/app", "org": {"unit": "ops"}},
        ),
        provider="ci",
        created_at=NOW - 60,
        authenticated_at=NOW - 600,
        verified_at=NOW - 60,
        expires_at=NOW + 3540 + RULES.skew,
        acr="mfa",
        amr=("pwd", "otp"),
        rank=2,
        idp_session="i-1",
        by=Credential.TOKEN,
        scopes=frozenset({"read", "write"}),
    )


def test_the_plainest_token_has_the_lowest_rank_and_nothing_else() -> None:
    found = judge()
    assert (found.rank, found.scopes, found.identity.groups, found.identity.email) == (
        1,
        frozenset(),
        (),
        None,
    )
    assert (found.authenticated_at, found.certificate, found.idp_session) == (NOW - 60, None, None)


def test_the_id_is_the_tokens_own_public_and_stable() -> None:
    ids = [
        judge().id,
        judge(now=NOW + 5).id,
        judge(jti="j-2").id,
        judge(jti=NONE).id,
        judge(jti=NONE, exp=int(NOW) + 9).id,
        judge(jti=NONE, sub="other").id,
        judge(rules=replace(RULES, issuer="https://other.test"), iss="https://other.test").id,
    ]
    assert ids[0] == ids[1] and len(set(ids)) == 6
    assert all(one.startswith("t-") and len(one) == 24 for one in ids)
    assert "j-1" not in ids[0]


@pytest.mark.parametrize(
    ("rules", "changes", "scopes"),
    [
        pytest.param(RULES, {"scope": "a b"}, {"a", "b"}, id="text"),
        pytest.param(RULES, {"scope": ["a", "b"]}, {"a", "b"}, id="list"),
        pytest.param(RULES, {"scope": ""}, set(), id="empty-text"),
        pytest.param(RULES, {"scope": None}, set(), id="null"),
        pytest.param(RULES, {"scp": "a"}, set(), id="another-claim-is-not-read"),
        pytest.param(replace(RULES, scopes_claim="scp"), {"scp": ["a"]}, {"a"}, id="renamed"),
        pytest.param(replace(RULES, scopes_claim="x.scp"), {"x": {"scp": "a"}}, {"a"}, id="dotted"),
        pytest.param(
            replace(RULES, scopes_claim="x.scp"), {"x.scp": "b", "x": {"scp": "a"}}, {"b"}, id="exact"
        ),
        pytest.param(replace(RULES, scopes_claim="x.scp"), {"x": "scp"}, set(), id="dotted-into-text"),
    ],
)
def test_scopes(rules: TokenRules, changes: dict[str, Any], scopes: set[str]) -> None:
    assert judge(rules=rules, **changes).scopes == scopes


@pytest.mark.parametrize(
    ("services", "changes", "held"),
    [
        pytest.param(
            replace(SERVICES, scopes=frozenset({"a", "b"})), {"scope": "b a c"}, True, id="all-scopes"
        ),
        pytest.param(
            replace(SERVICES, scopes=frozenset({"a", "b"})), {"scope": "a"}, False, id="one-scope-of-two"
        ),
        pytest.param(replace(SERVICES, scopes=frozenset({"a"})), {"scope": "ab"}, False, id="no-prefix"),
        pytest.param(replace(SERVICES, scopes=frozenset({"a"})), {}, False, id="no-scopes"),
        pytest.param(replace(SERVICES, roles=frozenset({"r", "s"})), {"roles": ["s"]}, True, id="any-role"),
        pytest.param(replace(SERVICES, roles=frozenset({"r"})), {"roles": ["x"]}, False, id="another-role"),
        pytest.param(
            replace(SERVICES, roles=frozenset({"r"})), {"roles": "r"}, False, id="a-text-is-no-list"
        ),
        pytest.param(
            replace(SERVICES, roles=frozenset({"r"})), {"groups": ["r"]}, False, id="groups-are-no-roles"
        ),
        pytest.param(
            replace(SERVICES, scopes=frozenset({"a"}), roles=frozenset({"r"})),
            {"scope": "a"},
            False,
            id="scope-without-role",
        ),
    ],
)
def test_what_a_token_must_cover(services: Services, changes: dict[str, Any], held: bool) -> None:
    if held:
        assert judge(services, **changes).by is Credential.TOKEN
    else:
        assert refusal(services, **changes)[0] is Reason.SCOPE_MISSING


def test_roles_are_found_at_a_dotted_name() -> None:
    rules = replace(RULES, roles_claim="realm_access.roles")
    services = replace(SERVICES, roles=frozenset({"deployer"}))
    assert judge(services, rules, realm_access={"roles": ["deployer"]}).identity.groups == ("deployer",)


# -- when --


@pytest.mark.parametrize(
    ("services", "changes", "ends"),
    [
        pytest.param(SERVICES, {"exp": NOW + 0.5}, NOW + 60.5, id="at-exp-with-the-skew"),
        pytest.param(SERVICES, {"exp": NOW - 59}, NOW + 1, id="expired-within-the-skew"),
        pytest.param(
            SERVICES, {"exp": NOW + 10**7}, NOW - 60 + RULES.remembered, id="no-longer-than-remembered"
        ),
        pytest.param(
            replace(SERVICES, token_within=300.0), {}, NOW + 240, id="no-longer-than-the-route-says"
        ),
        pytest.param(replace(SERVICES, token_within=9e9), {}, NOW + 3600, id="a-long-time-changes-nothing"),
    ],
)
def test_when_it_ends(services: Services, changes: dict[str, Any], ends: float) -> None:
    assert judge(services, **changes).expires_at == ends
    assert judge(services, now=ends - 0.001, **changes)
    assert refusal(services, now=ends, **changes)[0] is Reason.TOKEN_INVALID


def test_a_token_of_a_clock_that_is_ahead_is_not_from_the_future() -> None:
    found = judge(iat=int(NOW) + 30, auth_time=int(NOW) + 30)
    assert (found.created_at, found.verified_at, found.authenticated_at) == (NOW, NOW, NOW)


# -- what does not hold --


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        # iss
        pytest.param({"iss": ISSUER + "/"}, "iss", id="issuer-with-a-slash"),
        pytest.param({"iss": ISSUER.upper()}, "iss", id="issuer-in-capitals"),
        pytest.param({"iss": [ISSUER]}, "iss", id="issuer-in-a-list"),
        pytest.param({"iss": NONE}, "iss", id="no-issuer"),
        pytest.param({"iss": "https://ztproxy.test"}, "iss", id="I21-our-own-assertion"),
        # aud
        pytest.param({"aud": NONE}, "aud", id="no-audience"),
        pytest.param({"aud": None}, "aud", id="null-audience"),
        pytest.param({"aud": []}, "aud", id="empty-audience"),
        pytest.param({"aud": API + "/"}, "aud", id="audience-with-a-slash"),
        pytest.param({"aud": f"x {API}"}, "aud", id="audience-in-a-text"),
        pytest.param({"aud": [f"{API}.evil.test"]}, "aud", id="audience-as-a-prefix"),
        pytest.param({"aud": [API, 1]}, "aud", id="audience-beside-a-number"),
        pytest.param({"aud": [[API]]}, "aud", id="audience-nested"),
        pytest.param({"aud": {API: True}}, "aud", id="audience-as-a-key"),
        # exp, iat, nbf
        pytest.param({"exp": NONE}, "exp", id="no-end"),
        pytest.param({"exp": str(int(NOW) + 60)}, "exp", id="end-as-text"),
        pytest.param({"exp": True}, "exp", id="end-true"),
        pytest.param({"exp": float("nan")}, "exp", id="end-nan"),
        pytest.param({"exp": float("inf")}, "exp", id="end-infinite"),
        pytest.param({"exp": -1}, "exp", id="end-negative"),
        pytest.param({"exp": None}, "exp", id="end-null"),
        pytest.param({"exp": int(NOW) - 60}, "exp", id="expired"),
        pytest.param({"exp": int(NOW) - 61}, "exp", id="expired-before-it-was-issued"),
        pytest.param({"iat": NONE}, "iat", id="no-time-of-issue"),
        pytest.param({"iat": "0"}, "iat", id="time-of-issue-as-text"),
        pytest.param({"iat": int(NOW) + 61, "exp": int(NOW) + 99}, "iat", id="issued-in-the-future"),
        pytest.param(
            {"iat": int(NOW - RULES.remembered)}, "iat", id="issued-before-revocations-are-remembered"
        ),
        pytest.param({"nbf": int(NOW) + 61}, "nbf", id="not-yet"),
        pytest.param({"nbf": "soon"}, "nbf", id="not-before-as-text"),
        pytest.param({"nbf": None}, "nbf", id="not-before-null"),
        pytest.param({"auth_time": int(NOW) + 61}, "auth_time", id="authenticated-in-the-future"),
        pytest.param({"auth_time": False}, "auth_time", id="authenticated-false"),
        # another kind of token
        pytest.param({"nonce": "n"}, "nonce", id="an-id-token"),
        pytest.param({"at_hash": "h"}, "at_hash", id="an-id-token-with-at-hash"),
        pytest.param({"c_hash": None}, "c_hash", id="an-id-token-with-c-hash"),
        pytest.param({"events": {}}, "events", id="a-logout-token"),
        # who
        pytest.param({"sub": NONE}, "sub", id="no-subject"),
        pytest.param({"sub": ""}, "sub", id="empty-subject"),
        pytest.param({"sub": 7}, "sub", id="subject-a-number"),
        pytest.param({"sub": "аdmin"}, "sub", id="T36-a-cyrillic-letter"),
        pytest.param({"sub": "a\nb"}, "sub", id="a-line-end"),
        pytest.param({"sub": "a" * 256}, "sub", id="subject-too-long"),
        pytest.param({"sub": NONE, "client_id": "ci"}, "sub", id="a-client-id-is-no-subject"),
        pytest.param({"jti": 5}, "jti", id="jti-a-number"),
        pytest.param(
            {"email": '"a@corp.test"@evil.test', "email_verified": True}, "email", id="T36-quoted-address"
        ),
        pytest.param({"acr": ["phr"]}, "acr", id="acr-a-list"),
        pytest.param({"amr": "otp"}, "amr", id="amr-a-text"),
        pytest.param({"amr": ["otp", 1]}, "amr", id="amr-with-a-number"),
        pytest.param({"amr": ["otp"] * 33}, "amr", id="amr-too-many"),
        pytest.param({"sid": ""}, "sid", id="sid-empty"),
        # scopes of the wrong kind
        pytest.param({"scope": 1}, "scope", id="scope-a-number"),
        pytest.param({"scope": "a  b"}, "scope", id="scope-two-spaces"),
        pytest.param({"scope": 'a"b'}, "scope", id="scope-a-quote"),
        pytest.param({"scope": ["a b"]}, "scope", id="scope-a-space-in-a-list"),
        pytest.param({"scope": ["a", None]}, "scope", id="scope-null-in-a-list"),
        pytest.param({"scope": [["a"]]}, "scope", id="scope-nested"),
        pytest.param({"scope": ["s"] * 1001}, "scope", id="scope-too-many"),
        # bound to something
        pytest.param({"cnf": {"jkt": "k"}}, "cnf", id="bound-to-a-dpop-key"),
        pytest.param({"cnf": {"x5t#S256": "t", "jkt": "k"}}, "cnf", id="bound-twice"),
        pytest.param({"cnf": {"x5t#S256": ""}}, "cnf", id="bound-to-nothing"),
        pytest.param({"cnf": {"x5t#S256": ["t"]}}, "cnf", id="bound-to-a-list"),
        pytest.param({"cnf": None}, "cnf", id="bound-null"),
        pytest.param({"cnf": "x5t#S256"}, "cnf", id="bound-to-a-text"),
    ],
)
def test_a_token_that_does_not_hold(changes: dict[str, Any], claim: str) -> None:
    reason, message = refusal(**changes)
    assert reason is Reason.TOKEN_INVALID
    assert message.startswith(f"{claim}:")


def test_a_token_without_an_address_that_was_verified_has_none() -> None:
    assert judge(email="root@corp.test").identity.email is None
    assert judge(email="root@corp.test", email_verified="true").identity.email is None


def test_a_route_without_an_audience_accepts_no_token() -> None:
    assert refusal(Services(issuers=("ci",)), aud="") == (Reason.TOKEN_INVALID, "aud: this route names none")


def test_a_token_bound_to_a_certificate_says_which() -> None:
    assert judge(cnf={"x5t#S256": "thumb"}).certificate == "thumb"


# -- by which issuer --


def compact(payload: object) -> str:
    return f"h.{urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b'=').decode()}.s"


@pytest.mark.parametrize(
    ("token", "issuer"),
    [
        pytest.param(compact({"iss": ISSUER}), ISSUER, id="named"),
        pytest.param(compact({"iss": [ISSUER]}), None, id="in-a-list"),
        pytest.param(compact({}), None, id="not-named"),
        pytest.param(compact([ISSUER]), None, id="no-object"),
        pytest.param("h", None, id="one-part"),
        pytest.param("h.!!.s", None, id="no-base64"),
        pytest.param("h.x.s", None, id="half-base64"),
        pytest.param("h.\N{KELVIN SIGN}.s", None, id="no-ascii"),
        pytest.param("h./w.s", None, id="no-utf-8"),
        pytest.param(compact(json.loads("[" * 900 + "]" * 900)), None, id="deep"),
        pytest.param("h." + "W1tb" * 4000 + ".s", None, id="deeper-and-broken"),
        pytest.param(compact({"iss": ISSUER, "x": "x" * MAX_TOKEN}), None, id="too-long"),
    ],
)
def test_the_issuer_a_token_names(token: str, issuer: str | None) -> None:
    assert issuer_named_in(token) == issuer


# -- certificates --

CERTIFICATE = Certificate(
    authority="mesh",
    issuer="CN=mesh",
    subject="",
    serial=7,
    thumbprint="thumb",
    spki="key",
    not_before=NOW - 3600,
    not_after=NOW + 3600,
    spiffe="spiffe://corp.test/ci/runner",
)


def test_a_certificate_that_is_accepted_is_a_session() -> None:
    services = Services(spiffe=("spiffe://corp.test/other", "spiffe://corp.test/ci/*"))
    found = certificate_session(services, CERTIFICATE, NOW)
    assert isinstance(found, Session)
    assert found == Session(
        id=found.id,
        identity=Identity("spiffe://corp.test", "spiffe://corp.test/ci/runner"),
        provider="mesh",
        created_at=NOW - 3600,
        authenticated_at=NOW,
        verified_at=NOW,
        expires_at=NOW + 3600,
        certificate="thumb",
        by=Credential.CERTIFICATE,
    )
    assert found.id.startswith("c-") and "thumb" not in found.id


@pytest.mark.parametrize(
    ("in_certificate", "in_inventory", "device"),
    [(None, None, None), ("d-1", None, "d-1"), ("d-1", "d-2", "d-2"), (None, "d-2", "d-2")],
)
def test_the_device_of_a_certificate(
    in_certificate: str | None, in_inventory: str | None, device: str | None
) -> None:
    services = Services(spiffe=("spiffe://corp.test/ci/runner",))
    found = certificate_session(services, replace(CERTIFICATE, device=in_certificate), NOW, in_inventory)
    assert isinstance(found, Session) and found.device == device


@pytest.mark.parametrize(
    ("accepted", "principal"),
    [
        pytest.param((), "spiffe://corp.test/ci/runner", id="none-accepted"),
        pytest.param(("spiffe://corp.test/ci/runner",), None, id="no-principal"),
        pytest.param(("spiffe://corp.test/ci",), "spiffe://corp.test/ci/runner", id="no-prefix"),
        pytest.param(("spiffe://corp.test/ci/*",), "spiffe://corp.test/cinema", id="no-half-a-segment"),
        pytest.param(("spiffe://corp.test/ci/*",), "spiffe://evil.test/ci/runner", id="another-domain"),
        pytest.param(("spiffe://corp.test/ci/*",), "spiffe://corp.test/ci/../root", id="X14-dots"),
    ],
)
def test_a_certificate_that_is_not_accepted(accepted: tuple[str, ...], principal: str | None) -> None:
    certificate = replace(CERTIFICATE, spiffe=principal)
    assert certificate_session(Services(spiffe=accepted), certificate, NOW) is Reason.SERVICE_MISMATCH
