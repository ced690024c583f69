"""`decide` as a table: shape, locks, preflight, policy, readings, freshness, a store that is away.

And what it promises, over generated policies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from tests.core.words import ADMINS, APP, EVERYONE, NOW, ask, path, policy, session, site, told
from tests.worlds.verifying import certificate
from ztproxy.core.conditions import (
    LOGIN,
    AllOf,
    AnyOf,
    Anyone,
    Authenticated,
    Condition,
    InGroup,
    MethodIs,
    Not,
    PathUnder,
    RankAtLeast,
    Truth,
    forbids_sign_in,
)
from ztproxy.core.decision import Decision, Deny, Forward, Login, StepUp, decide
from ztproxy.core.device import Device, NoDevice, OnDevice, Status
from ztproxy.core.device_conditions import DeviceApproved
from ztproxy.core.evidence import NOT_ASKED, Facts, NoSession, Unavailable
from ztproxy.core.identity import Credential, Session, Step
from ztproxy.core.locks import ALL, Action, Lock
from ztproxy.core.policy import DENY_ALL, Effect, Policy, Rule
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity, Framing, Request
from ztproxy.core.routes import Redirect, Route, Sensitivity

ADMIN, USER = session("admin"), session("staff")
STRONG_ADMIN = session("admin", rank=3)
GRANTED = (Reason.RULE_ALLOWED,)
STEP_UP = (Reason.STEP_UP_REQUIRED,)
WEAK_OUT = policy(InGroup(frozenset({"admin"})), Not(RankAtLeast(3)))
SOCKETS = replace(APP, upgrades=frozenset({"websocket"}), origins=frozenset({"https://partner.test"}))
HOUR = Sensitivity(verified_within=3600.0)
FRESH = Sensitivity(verified_within=None, signed_in_within=600.0)
PREFLIGHT = ask(
    method="OPTIONS", origin="https://other.test", fields=((b"Access-Control-Request-Method", b"PUT"),)
)


def socket(origin: str | None, **more: str) -> Request:
    return ask(upgrade="websocket", origin=origin, **more)


def denied(reason: Reason) -> Deny:
    return Deny((reason,))


@pytest.mark.parametrize(
    ("route", "request_", "known", "decision"),
    [
        # The policy's four outcomes.
        pytest.param(site(EVERYONE), ask(), None, Forward(None, GRANTED), id="public-stranger"),
        pytest.param(site(EVERYONE), ask(), ADMIN, Forward(ADMIN, GRANTED), id="public-person-is-told"),
        pytest.param(site(ADMINS), ask(), None, Login((Reason.LOGIN_REQUIRED,)), id="stranger-signs-in"),
        pytest.param(
            site(ADMINS),
            ask(),
            NoSession(Reason.SESSION_UNKNOWN),
            Login((Reason.SESSION_UNKNOWN,)),
            id="unknown",
        ),
        pytest.param(site(ADMINS), ask(), ADMIN, Forward(ADMIN, GRANTED), id="admin"),
        pytest.param(site(ADMINS), ask(), USER, denied(Reason.GROUP_MISSING), id="other-group"),
        pytest.param(
            site(ADMINS, providers=("main", "other")),
            ask(),
            ADMIN,
            Forward(ADMIN, GRANTED),
            id="its-provider",
        ),
        pytest.param(
            site(ADMINS, providers=("other",)),
            ask(),
            ADMIN,
            Login((Reason.LOGIN_REQUIRED,)),
            id="attack-admin-by-the-word-of-another-provider",
        ),
        pytest.param(
            site(EVERYONE, providers=("other",)),
            ask(),
            ADMIN,
            Forward(None, GRANTED),
            id="public-stranger-from-another-provider",
        ),
        pytest.param(
            site(DENY_ALL), ask(), None, denied(Reason.NO_RULE_ALLOWS), id="nothing-allows-no-login"
        ),
        pytest.param(site(DENY_ALL), ask(), ADMIN, denied(Reason.NO_RULE_ALLOWS), id="nothing-allows"),
        pytest.param(site(WEAK_OUT), ask(), ADMIN, StepUp(ADMIN, 3, None, STEP_UP), id="step-up"),
        pytest.param(site(WEAK_OUT), ask(), STRONG_ADMIN, Forward(STRONG_ADMIN, GRANTED), id="strong-enough"),
        pytest.param(site(WEAK_OUT), ask(), USER, denied(Reason.GROUP_MISSING), id="no-step-up-in-vain"),
        # What the route accepts at all stands before everything, also before a login.
        pytest.param(site(), ask(method="PURGE"), ADMIN, denied(Reason.HTTP_METHOD), id="method-not-listed"),
        pytest.param(
            site(methods=frozenset({"GET"})),
            ask(method="POST"),
            None,
            denied(Reason.HTTP_METHOD),
            id="method",
        ),
        # Upgrades: the route's own origin, a listed one, nobody else's.
        pytest.param(
            site(),
            socket("https://app.test"),
            ADMIN,
            denied(Reason.UPGRADE_NOT_ALLOWED),
            id="upgrade-not-allowed",
        ),
        pytest.param(
            site(EVERYONE, Redirect("/x")),
            socket("https://app.test"),
            ADMIN,
            denied(Reason.UPGRADE_NOT_ALLOWED),
            id="upgrade-of-a-redirect",
        ),
        pytest.param(
            site(action=SOCKETS), socket("https://app.test"), ADMIN, Forward(ADMIN, GRANTED), id="own-origin"
        ),
        pytest.param(
            site(action=SOCKETS),
            socket("HTTPS://App.Test"),
            ADMIN,
            Forward(ADMIN, GRANTED),
            id="own-origin-case",
        ),
        pytest.param(
            site(action=SOCKETS), socket("https://partner.test"), ADMIN, Forward(ADMIN, GRANTED), id="listed"
        ),
        pytest.param(
            site(action=SOCKETS, host="*.app.test"),
            socket("https://a.app.test", host="a.app.test"),
            ADMIN,
            Forward(ADMIN, GRANTED),
            id="own-origin-of-a-wildcard",
        ),
        pytest.param(
            site(action=SOCKETS, host="*.app.test"),
            socket("https://b.app.test", host="a.app.test"),
            ADMIN,
            denied(Reason.ORIGIN_MISMATCH),
            id="attack-socket-from-a-sibling-site",
        ),
        pytest.param(
            site(action=SOCKETS),
            socket("https://evil.test"),
            ADMIN,
            denied(Reason.ORIGIN_MISMATCH),
            id="attack-cswsh",
        ),
        pytest.param(
            site(action=SOCKETS),
            socket("http://app.test"),
            ADMIN,
            denied(Reason.ORIGIN_MISMATCH),
            id="attack-origin-of-the-plain-site",
        ),
        pytest.param(
            site(action=SOCKETS),
            socket("https://app.test:8443"),
            ADMIN,
            denied(Reason.ORIGIN_MISMATCH),
            id="attack-origin-of-another-port",
        ),
        pytest.param(
            site(action=SOCKETS),
            socket("null"),
            ADMIN,
            denied(Reason.ORIGIN_MISMATCH),
            id="attack-origin-null",
        ),
        pytest.param(
            site(action=SOCKETS), socket(None), ADMIN, denied(Reason.ORIGIN_MISMATCH), id="origin-missing"
        ),
        pytest.param(
            site(action=replace(SOCKETS, allow_missing_origin=True)),
            socket(None),
            ADMIN,
            Forward(ADMIN, GRANTED),
            id="origin-missing-allowed",
        ),
        # Preflights pass only where asked for and only when real; nobody is told to the app.
        pytest.param(
            site(cors_preflight=True),
            PREFLIGHT,
            None,
            Forward(None, (Reason.CORS_PREFLIGHT,)),
            id="preflight",
        ),
        pytest.param(
            site(cors_preflight=True),
            PREFLIGHT,
            ADMIN,
            Forward(None, (Reason.CORS_PREFLIGHT,)),
            id="preflight-known",
        ),
        pytest.param(site(), PREFLIGHT, None, Login((Reason.LOGIN_REQUIRED,)), id="preflight-not-configured"),
        pytest.param(
            site(cors_preflight=True),
            PREFLIGHT._replace(framing=Framing.CHUNKED),
            None,
            Login((Reason.LOGIN_REQUIRED,)),
            id="attack-preflight-with-a-body",
        ),
        pytest.param(
            site(cors_preflight=True),
            PREFLIGHT._replace(method="POST"),
            None,
            Login((Reason.LOGIN_REQUIRED,)),
            id="attack-preflight-that-is-a-post",
        ),
        # Assurance of the route.
        pytest.param(
            site(ADMINS, sensitivity=Sensitivity(rank=2)),
            ask(),
            ADMIN,
            StepUp(ADMIN, 2, None, STEP_UP),
            id="rank",
        ),
        pytest.param(
            site(WEAK_OUT, sensitivity=Sensitivity(rank=2)),
            ask(),
            ADMIN,
            StepUp(ADMIN, 3, None, STEP_UP),
            id="rank-of-rule-and-route-in-one-step",
        ),
        pytest.param(
            site(EVERYONE, sensitivity=Sensitivity(rank=2)),
            ask(),
            None,
            Login((Reason.LOGIN_REQUIRED,)),
            id="rank-0",
        ),
        pytest.param(
            site(EVERYONE, sensitivity=Sensitivity(rank=1)),
            ask(),
            None,
            Forward(None, GRANTED),
            id="rank-1-is-any",
        ),
        # Time: limits are reached at their second.
        pytest.param(
            site(sensitivity=HOUR),
            ask(),
            session("admin", verified_at=NOW - 3599),
            Forward(session("admin", verified_at=NOW - 3599), GRANTED),
            id="vouched-for-in-time",
        ),
        pytest.param(
            site(sensitivity=HOUR),
            ask(),
            session("admin", verified_at=NOW - 3600),
            Login((Reason.SESSION_EXPIRED,)),
            id="stale",
        ),
        pytest.param(
            site(), ask(), session("admin", expires_at=NOW), Login((Reason.SESSION_EXPIRED,)), id="ended"
        ),
        pytest.param(
            site(EVERYONE),
            ask(),
            session("admin", expires_at=NOW),
            Forward(None, GRANTED),
            id="ended-on-a-public-page",
        ),
        pytest.param(
            site(sensitivity=FRESH),
            ask(),
            session("admin", authenticated_at=NOW - 600),
            StepUp(session("admin", authenticated_at=NOW - 600), 0, 600.0, STEP_UP),
            id="signed-in-too-long-ago",
        ),
        pytest.param(
            site(WEAK_OUT, sensitivity=FRESH),
            ask(),
            session("admin", rank=3, authenticated_at=NOW - 600),
            StepUp(session("admin", rank=3, authenticated_at=NOW - 600), 3, 600.0, STEP_UP),
            id="signing-in-again-must-be-as-strong-as-the-rules-ask",
        ),
        pytest.param(
            site(WEAK_OUT, sensitivity=FRESH),
            ask(),
            session("admin", rank=1, authenticated_at=NOW - 600),
            StepUp(session("admin", rank=1, authenticated_at=NOW - 600), 3, 600.0, STEP_UP),
            id="too-weak-and-too-long-ago",
        ),
        pytest.param(
            site(EVERYONE, sensitivity=FRESH),
            ask(),
            session("admin", authenticated_at=NOW - 600),
            Forward(None, GRANTED),
            id="too-long-ago-for-what-is-public",
        ),
        # An unreadable store: 503 where a session was needed, never a login.
        pytest.param(
            site(), ask(), Unavailable(), denied(Reason.STATE_UNAVAILABLE), id="store-away-is-no-login-loop"
        ),
        pytest.param(
            site(),
            ask(),
            Unavailable(Reason.PROVIDER_UNAVAILABLE),
            denied(Reason.PROVIDER_UNAVAILABLE),
            id="provider-away",
        ),
        pytest.param(
            site(EVERYONE), ask(), Unavailable(), Forward(None, GRANTED), id="store-away-for-what-is-public"
        ),
        pytest.param(
            site(DENY_ALL),
            ask(),
            Unavailable(),
            denied(Reason.NO_RULE_ALLOWS),
            id="store-away-where-all-is-denied",
        ),
        pytest.param(
            site(policy(Anyone(), InGroup(frozenset({"banned"})))),
            ask(),
            Unavailable(),
            denied(Reason.STATE_UNAVAILABLE),
            id="attack-store-away-does-not-lift-a-ban",
        ),
    ],
)
def test_decide(route: Route, request_: Request, known, decision: Decision) -> None:
    assert decide(route, request_, told(known)) == decision


# -- the device -------------------------------------------------------------------------------------------

LAPTOP = OnDevice(certificate("alices", "laptop-1"), Device("laptop-1", Status.APPROVED), NOW + 60)
RENEWED = OnDevice(certificate("alices-next", "laptop-1"), Device("laptop-1", Status.APPROVED), NOW + 60)
BOBS = OnDevice(certificate("bobs", "laptop-2"), Device("laptop-2", Status.APPROVED), NOW + 60)
NONE_SHOWN = NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED)
REVOKED = NoDevice(Reason.DEVICE_CERTIFICATE_REVOKED)
BOUND = session("admin", certificate="alices", device="laptop-1")
APPROVED = policy(AllOf([InGroup(frozenset({"admin"})), DeviceApproved()]))
ASTRAY = Login((Reason.DEVICE_MISMATCH,))


@pytest.mark.parametrize(
    ("rules", "known", "device", "decision"),
    [
        # A bound session counts with its own device alone (T32), whatever the route asks.
        pytest.param(ADMINS, BOUND, LAPTOP, Forward(BOUND, GRANTED), id="on-its-device"),
        pytest.param(ADMINS, BOUND, RENEWED, Forward(BOUND, GRANTED), id="with-a-renewed-certificate"),
        pytest.param(ADMINS, BOUND, NOT_ASKED, Forward(BOUND, GRANTED), id="where-nobody-is-asked"),
        pytest.param(ADMINS, BOUND, BOBS, ASTRAY, id="attack-alices-cookie-with-bobs-certificate"),
        pytest.param(ADMINS, BOUND, NONE_SHOWN, ASTRAY, id="attack-a-cookie-without-its-certificate"),
        pytest.param(ADMINS, BOUND, REVOKED, ASTRAY, id="attack-a-revoked-certificate"),
        pytest.param(
            ADMINS, BOUND, Unavailable(), denied(Reason.STATE_UNAVAILABLE), id="whose-nobody-can-say"
        ),
        pytest.param(
            EVERYONE, BOUND, Unavailable(), Forward(None, GRANTED), id="whose-where-it-does-not-matter"
        ),
        pytest.param(
            ADMINS, ADMIN, Unavailable(), Forward(ADMIN, GRANTED), id="unbound-whose-nobody-can-say"
        ),
        pytest.param(EVERYONE, BOUND, BOBS, Forward(None, GRANTED), id="a-stranger-where-strangers-may-come"),
        pytest.param(ADMINS, ADMIN, LAPTOP, Forward(ADMIN, GRANTED), id="unbound-where-no-device-is-asked"),
        # What a policy asks of the device.
        pytest.param(APPROVED, BOUND, LAPTOP, Forward(BOUND, GRANTED), id="approved"),
        pytest.param(
            APPROVED,
            None,
            NONE_SHOWN,
            denied(Reason.DEVICE_CERTIFICATE_REQUIRED),
            id="no-certificate-no-login",
        ),
        pytest.param(
            APPROVED, None, LAPTOP, Login((Reason.LOGIN_REQUIRED,)), id="an-approved-device-signs-in"
        ),
        pytest.param(APPROVED, ADMIN, LAPTOP, Login((Reason.DEVICE_UNBOUND,)), id="signs-in-to-be-bound"),
        pytest.param(
            APPROVED, BOUND, NOT_ASKED, denied(Reason.DEVICE_CERTIFICATE_REQUIRED), id="nobody-asked-for-one"
        ),
        pytest.param(
            APPROVED, None, Unavailable(), denied(Reason.STATE_UNAVAILABLE), id="the-inventory-is-away"
        ),
    ],
)
def test_decide_on_a_device(rules: Policy, known, device, decision: Decision) -> None:
    assert decide(site(rules), ask(), told(known)._replace(device=device)) == decision


# -- services ---------------------------------------------------------------------------------------------

TOKEN = session("admin", by=Credential.TOKEN)
OLD_TOKEN = session("admin", by=Credential.TOKEN, expires_at=NOW)
UNVERIFIED = session("admin", by=Credential.TOKEN, verified_at=NOW - 7200)
SPIFFE = session("admin", by=Credential.CERTIFICATE, certificate="alices")
INVALID = denied(Reason.TOKEN_INVALID)
REVOKES = Lock("l1", ALL, number=7)


@pytest.mark.parametrize(
    ("rules", "known", "more", "decision"),
    [
        pytest.param(ADMINS, TOKEN, {}, Forward(TOKEN, GRANTED), id="a-token"),
        pytest.param(ADMINS, UNVERIFIED, {}, Forward(UNVERIFIED, GRANTED), id="as-long-as-the-token-says"),
        pytest.param(ADMINS, SPIFFE, {"device": LAPTOP}, Forward(SPIFFE, GRANTED), id="a-certificate"),
        pytest.param(ADMINS, SPIFFE, {"device": BOBS}, ASTRAY, id="attack-anothers-certificate"),
        pytest.param(ADMINS, OLD_TOKEN, {}, INVALID, id="expired"),
        pytest.param(ADMINS, TOKEN, {"locks": (REVOKES,)}, INVALID, id="revoked"),
        pytest.param(EVERYONE, OLD_TOKEN, {}, INVALID, id="refused-where-strangers-may-come-too"),
        pytest.param(EVERYONE, NoSession(Reason.TOKEN_INVALID), {}, INVALID, id="a-bad-token-is-never-none"),
        pytest.param(
            EVERYONE,
            NoSession(Reason.CREDENTIALS_MIXED),
            {},
            denied(Reason.CREDENTIALS_MIXED),
            id="attack-a-cookie-and-a-token",
        ),
        pytest.param(
            ADMINS,
            NoSession(Reason.SCOPE_MISSING),
            {},
            denied(Reason.SCOPE_MISSING),
            id="a-token-without-the-scope",
        ),
        pytest.param(
            ADMINS,
            NoSession(Reason.TOKEN_REQUIRED),
            {},
            Login((Reason.TOKEN_REQUIRED,)),
            id="nothing-shown-where-a-token-is-wanted",
        ),
        pytest.param(
            EVERYONE,
            NoSession(Reason.TOKEN_REQUIRED),
            {},
            Forward(None, GRANTED),
            id="nothing-shown-to-the-public",
        ),
    ],
)
def test_decide_about_services(rules: Policy, known, more, decision: Decision) -> None:
    route = site(rules, sensitivity=HOUR, providers=("main",))
    assert decide(route, ask(), told(known)._replace(**more)) == decision


# -- for this very session --------------------------------------------------------------------------------

THIS_SESSION = Sensitivity(verified_within=None, rank=2, fresh=True)
REMEMBERED = session("admin", rank=3, fresh=True, steps=(Step(3, NOW), Step(2, NOW + 60)))


@pytest.mark.parametrize(
    ("known", "decision"),
    [
        pytest.param(session("admin", rank=2, fresh=True), Forward, id="proved-for-this-session"),
        pytest.param(session("admin", rank=2), (2, 0.0), id="remembered-by-the-provider"),
        pytest.param(session("admin", rank=1, fresh=True), (2, 0.0), id="too-weak-and-asked-anew-at-once"),
        pytest.param(REMEMBERED, Forward, id="what-is-still-remembered-will-do"),
        pytest.param(replace(REMEMBERED, steps=(Step(3, NOW),)), (2, 0.0), id="no-longer-remembered"),
        pytest.param(session("admin", rank=2, by=Credential.TOKEN), Forward, id="a-service-has-no-sessions"),
    ],
)
def test_a_sign_in_for_this_very_session(known: Session, decision) -> None:
    found = decide(site(sensitivity=THIS_SESSION), ask(), told(known))
    if isinstance(found, StepUp):
        assert (found.rank, found.max_age) == decision
    else:
        assert type(found) is decision


def test_what_is_not_remembered_any_more_is_not_told() -> None:
    found = decide(site(), ask(), told(REMEMBERED))
    assert isinstance(found, Forward) and found.session is not None
    assert (found.session.rank, found.session.acr, found.session.amr) == (2, None, ())


def under(*segments: str) -> PathUnder:
    return PathUnder(segments)


PUBLIC_PART = policy(AnyOf([under("public"), AllOf([under("admin"), InGroup(frozenset({"admin"}))])]))
BY_RANK = policy(AnyOf([AllOf([under("a"), RankAtLeast(2)]), AllOf([under("b"), RankAtLeast(3)])]))
TWO_WAYS = path("/public%2F..", "/public/x", because=Ambiguity.ENCODED_SLASH)
PUBLIC_OR_NOTHING = path("/public;x", "/secret", because=Ambiguity.PATH_PARAMETER)
A_OR_B = path("/a", "/b")


@pytest.mark.parametrize(
    ("rules", "where", "known", "kind"),
    [
        pytest.param(policy(under("public")), path("/public", "/public/"), None, Forward, id="both-allowed"),
        pytest.param(PUBLIC_PART, path("/public", "/admin"), ADMIN, Forward, id="both-allowed-to-an-admin"),
        pytest.param(PUBLIC_PART, path("/public", "/admin"), None, Login, id="one-needs-a-login"),
        pytest.param(PUBLIC_PART, path("/admin", "/public"), None, Login, id="one-needs-a-login-other-order"),
        pytest.param(PUBLIC_PART, path("/public", "/secret"), ADMIN, Deny, id="attack-one-reading-is-denied"),
        pytest.param(PUBLIC_PART, path("/secret", "/public"), ADMIN, Deny, id="attack-the-other-is-denied"),
        pytest.param(policy(under("public")), TWO_WAYS, None, Deny, id="attack-encoded-slash"),
        pytest.param(PUBLIC_PART, PUBLIC_OR_NOTHING, None, Deny, id="attack-path-parameter"),
    ],
)
def test_every_reading_must_be_allowed(rules, where, known, kind) -> None:
    assert type(decide(site(rules), ask(where), told(known))) is kind


def test_readings_of_different_strength_ask_for_the_stronger() -> None:
    for where in (A_OR_B, A_OR_B._replace(readings=A_OR_B.readings[::-1])):
        decision = decide(site(BY_RANK), ask(where), told(ADMIN))
        assert decision == StepUp(ADMIN, 3, None, STEP_UP)


def test_deny_chooses_its_status_by_the_first_reason() -> None:
    assert Deny((Reason.GROUP_MISSING, Reason.STATE_UNAVAILABLE)).status == 403
    assert Deny((Reason.STATE_UNAVAILABLE,)).status == 503


# ------------------------------------------------------------------ locks

REVOKED = Lock("l1", ALL, number=1)
SHUT = Lock("l2", ALL, until=NOW + 60, message="Out for lunch.", number=2)
AGAIN = Lock("l3", ALL, Action.REQUIRE_LOGIN, number=3)
STRONGER = Lock("l4", ALL, Action.REQUIRE_STEP_UP, until=NOW + 60, number=4)
LOCKED = Deny((Reason.LOCKED,), "Out for lunch.")
ENDED = Login((Reason.SESSION_REVOKED,))
ASKED = (Reason.LOCK_SIGN_IN,)
DOOR = site(cors_preflight=True)
OPEN = site(EVERYONE)


@pytest.mark.parametrize(
    ("route", "request_", "known", "locks", "decision"),
    [
        # A session that was revoked is none.
        pytest.param(site(), ask(), ADMIN, (REVOKED,), ENDED, id="revoked"),
        pytest.param(OPEN, ask(), ADMIN, (REVOKED,), Forward(None, GRANTED), id="revoked_on_a_public_page"),
        pytest.param(
            site(DENY_ALL), ask(), ADMIN, (REVOKED,), denied(Reason.NO_RULE_ALLOWS), id="revoked_no_login"
        ),
        pytest.param(site(), ask(), ADMIN, (AGAIN, STRONGER, REVOKED), ENDED, id="revoked_and_asked"),
        # A closed door is closed to everybody whom it meets, before anything is asked of them.
        pytest.param(site(), ask(), ADMIN, (SHUT,), LOCKED, id="locked"),
        pytest.param(OPEN, ask(), ADMIN, (SHUT,), LOCKED, id="locked_on_a_public_page"),
        pytest.param(OPEN, ask(), None, (SHUT,), LOCKED, id="locked_stranger"),
        pytest.param(site(), ask(), None, (SHUT,), LOCKED, id="locked_stranger_is_not_sent_to_sign_in"),
        pytest.param(site(), ask(), Unavailable(), (SHUT,), LOCKED, id="locked_store_away"),
        pytest.param(DOOR, PREFLIGHT, None, (SHUT,), LOCKED, id="attack_preflight_through_a_closed_door"),
        pytest.param(site(), ask(), ADMIN, (REVOKED, AGAIN, SHUT), LOCKED, id="locked_and_revoked"),
        pytest.param(
            site(), ask(method="PURGE"), ADMIN, (SHUT,), denied(Reason.HTTP_METHOD), id="no_such_method_first"
        ),
        # What a lock asks for: the person, once more.
        pytest.param(site(), ask(), ADMIN, (AGAIN,), StepUp(ADMIN, 0, 0.0, ASKED), id="login_asked"),
        pytest.param(site(), ask(), ADMIN, (STRONGER,), StepUp(ADMIN, 2, 0.0, ASKED), id="step_up_asked"),
        pytest.param(site(), ask(), ADMIN, (AGAIN, STRONGER), StepUp(ADMIN, 2, 0.0, ASKED), id="both_asked"),
        pytest.param(
            site(), ask(), STRONG_ADMIN, (STRONGER,), StepUp(STRONG_ADMIN, 2, 0.0, ASKED), id="strong_before"
        ),
        pytest.param(
            site(WEAK_OUT), ask(), ADMIN, (STRONGER,), StepUp(ADMIN, 3, 0.0, ASKED), id="the_route_asks_more"
        ),
        pytest.param(
            site(WEAK_OUT), ask(), STRONG_ADMIN, (AGAIN,), StepUp(STRONG_ADMIN, 3, 0.0, ASKED), id="as_strong"
        ),
        pytest.param(
            site(WEAK_OUT), ask(), ADMIN, (AGAIN,), StepUp(ADMIN, 3, 0.0, ASKED), id="login_in_one_step"
        ),
        pytest.param(site(), ask(), USER, (AGAIN,), denied(Reason.GROUP_MISSING), id="no_sign_in_in_vain"),
        pytest.param(OPEN, ask(), ADMIN, (AGAIN,), Forward(None, GRANTED), id="public_as_a_stranger"),
        pytest.param(site(), ask(), None, (AGAIN,), Login((Reason.LOGIN_REQUIRED,)), id="nobody_to_ask"),
        pytest.param(
            site(), ask(), Unavailable(), (AGAIN,), denied(Reason.STATE_UNAVAILABLE), id="asked_store_away"
        ),
        pytest.param(
            site(sensitivity=FRESH),
            ask(),
            ADMIN,
            (AGAIN,),
            StepUp(ADMIN, 0, 0.0, ASKED),
            id="at_once_not_soon",
        ),
        pytest.param(
            site(providers=("other",)),
            ask(),
            ADMIN,
            (AGAIN,),
            Login((Reason.LOGIN_REQUIRED,)),
            id="attack_asked_of_somebody_from_elsewhere",
        ),
    ],
)
def test_decide_under_locks(
    route: Route, request_: Request, known, locks: tuple[Lock, ...], decision: Decision
) -> None:
    assert decide(route, request_, told(known)._replace(locks=locks)) == decision


class AsksForSomebodyElse:
    """A condition of an extension: it would hold for another person."""

    reads: frozenset[str] = frozenset()

    def ask(self, facts: Facts) -> Truth:
        return LOGIN


@pytest.mark.parametrize("locks", [pytest.param((), id="no_locks"), pytest.param((AGAIN,), id="asked_too")])
def test_a_condition_may_send_somebody_known_to_sign_in(locks: tuple[Lock, ...]) -> None:
    evidence = told(ADMIN)._replace(locks=locks)
    assert decide(site(policy(AsksForSomebodyElse())), ask(), evidence) == Login((Reason.LOGIN_REQUIRED,))


def test_no_lock_ever_opens_anything() -> None:
    requests = [ask(), ask(method="PURGE"), PREFLIGHT]
    routes = [OPEN, DOOR, site(WEAK_OUT), site(DENY_ALL), site(sensitivity=FRESH)]
    people = [None, Unavailable(), ADMIN, USER, STRONG_ADMIN]
    locks = [(REVOKED,), (SHUT,), (AGAIN,), (STRONGER,), (AGAIN, STRONGER)]
    for route, request, known, those in product(routes, requests, people, locks):
        without = decide(route, request, told(known))
        under = decide(route, request, told(known)._replace(locks=those))
        if isinstance(under, Forward):
            # At most what everybody may, and never with a name.
            assert under == decide(route, request, told()) and under.session is None
        assert not isinstance(without, Deny) or isinstance(under, Deny | Login)


# ------------------------------------------------------------------ the promises, over generated policies

GROUPS = ("a", "b", "c")
PEOPLE: list[Condition] = [InGroup(frozenset({name})) for name in GROUPS]
LEAVES: list[Condition] = [
    *PEOPLE,
    Authenticated(),
    RankAtLeast(2),
    RankAtLeast(3),
    Anyone(),
    MethodIs(frozenset({"POST"})),
    PathUnder(("public",)),
]
REQUESTS = [ask("/public"), ask("/x"), ask(path("/public", "/x"))]
GROUPINGS = [(), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), GROUPS]
SESSIONS = [session(*groups, rank=rank) for groups, rank in product(GROUPINGS, (1, 2, 3))]
ROUTES = [Sensitivity(rank=0), Sensitivity(rank=2), FRESH]
OLD = 601.0


def tree(dice: random.Random, bag: list[Condition]) -> Condition:
    if len(bag) == 1 or dice.random() < 0.2:
        return Not(bag[0]) if dice.random() < 0.3 else bag[0]
    cut = dice.randint(1, len(bag) - 1)
    grown = dice.choice((AllOf, AnyOf))([tree(dice, bag[:cut]), tree(dice, bag[cut:])])
    return Not(grown) if dice.random() < 0.25 else grown


def policies(count: int) -> Iterator[tuple[Policy, Condition, Condition | None]]:
    """Random policies with one allow and perhaps one deny rule, every question asked at most once."""
    dice = random.Random(7)
    while count:
        bag = dice.sample(LEAVES, len(LEAVES))
        cut = dice.randint(1, len(bag) - 1)
        allow, deny = tree(dice, bag[:cut]), tree(dice, bag[cut:]) if dice.random() < 0.6 else None
        if forbids_sign_in(allow) or (deny is not None and forbids_sign_in(Not(deny))):
            continue
        count -= 1
        yield policy(allow, deny), allow, deny


def test_the_promises_of_a_decision() -> None:
    seen: set[type] = set()
    for rules, allow, deny in policies(400):
        for sensitivity, request in product(ROUTES, REQUESTS):
            route = site(rules, sensitivity=sensitivity)
            alone = decide(route, request, told())
            away = decide(route, request, told(Unavailable()))
            known = {id(who): decide(route, request, told(who)) for who in SESSIONS}
            seen |= {type(alone), *(type(one) for one in known.values())}

            # Unavailability never asks for a login, never forwards a person, and opens nothing.
            assert isinstance(away, Deny) or away == alone == Forward(None, GRANTED)
            assert isinstance(away, Deny) == (not isinstance(alone, Forward))
            # Nobody is told to an app who is not there, and a step-up needs somebody.
            assert not isinstance(alone, StepUp)
            # Every login can still end in a forward. (For one path: two readings can contradict each other.)
            if isinstance(alone, Login) and len(request.path.readings) == 1:
                assert any(isinstance(one, Forward) for one in known.values())
            for who in SESSIONS:
                check_person(route, request, who, known[id(who)], allow, deny)
    assert seen == {Forward, Login, StepUp, Deny}


def check_person(
    route: Route, request: Request, who: Session, decision: Decision, allow: Condition, deny: Condition | None
) -> None:
    assert not isinstance(decision, Login)
    if isinstance(decision, Deny):
        assert decision.reasons
    if isinstance(decision, StepUp):
        # One step up is enough, and none that is weaker would do.
        assert isinstance(decide(route, request, told(replace(who, rank=decision.rank))), Forward)
        weaker = decide(route, request, told(replace(who, rank=decision.rank - 1)))
        assert not isinstance(weaker, Forward)
    # A person whose sign-in is too old is asked for exactly what then suffices.
    if route.sensitivity.signed_in_within is not None and isinstance(decision, Forward):
        again = decide(route, request, told(replace(who, authenticated_at=NOW - OLD)))
        if isinstance(again, StepUp):
            fresh = replace(who, rank=max(again.rank, 1))
            assert isinstance(decide(route, request, told(fresh)), Forward)
        else:
            assert again == Forward(None, GRANTED)
    if isinstance(decision, Forward):
        for reading in request.path.readings:
            single = request._replace(path=request.path._replace(readings=(reading,)))
            # Two readings never open what one of them closes, and a deny rule always wins.
            assert isinstance(decide(route, single, told(who)), Forward)
            denying = Policy([Rule(Effect.ALLOW, allow), Rule(Effect.DENY, Anyone())])
            assert isinstance(decide(site(denying), single, told(who)), Deny)
