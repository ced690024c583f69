"""What went wrong elsewhere, tried here: the published incidents of access proxies, and their lessons.

Each has its id and its lesson. Where it was a request, the request is sent to a running proxy, over plain TCP
and over TLS; where it was not, `shown_by` names the tests that keep it from happening here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.evidence import Tried
from tests.stories.hostile import CHUNKS, HOST, Forwarded, Result, Row, get, judged, post, request
from tests.stories.house import COOKIE, House, house
from ztproxy.core.reasons import Reason

ROOT = Path(__file__).parent.parent.parent
ALICE = b"Cookie: ALICE"  # her session, once there is one
REFUSED, ASKED, DENIED = None, 401, 403


class Sent(NamedTuple):
    """A request, and what must become of it (see `hostile.Row`)."""

    raw: bytes
    expected: Forwarded | int | Reason | None


class Incident(NamedTuple):
    name: str
    lesson: str
    sent: tuple[Sent, ...] = ()
    shown_by: tuple[str, ...] = ()


def stranger(*fields: bytes, target: bytes = b"/admin") -> bytes:
    return get(b"Connection: close", *fields, target=target)


def alice(*fields: bytes, target: bytes = b"/u") -> bytes:
    return get(b"Connection: close", ALICE, *fields, target=target)


def asked(*targets: bytes) -> tuple[Sent, ...]:
    return tuple(Sent(stranger(target=target), ASKED) for target in targets)


def refused(*targets: bytes) -> tuple[Sent, ...]:
    return tuple(Sent(stranger(target=target), REFUSED) for target in targets)


MINE = Forwarded(b"/u")  # alice's own request, with nothing of what she claimed
NAME = Reason.HTTP_FIELD_NAME

INCIDENTS = (
    Incident(
        "CVE-2026-40575 oauth2-proxy: rules matched on X-Forwarded-Uri",
        "the request line decides, whatever a field says it is",
        (
            Sent(stranger(b"X-Forwarded-Uri: /public/x"), ASKED),
            Sent(alice(b"X-Forwarded-Uri: /public/x", target=b"/admin"), DENIED),
            Sent(alice(b"X-Original-URL: /admin"), MINE),
        ),
    ),
    Incident(
        "GHSA-5hvv-m4w4-gf6v oauth2-proxy: a health check's User-Agent let in",
        "health has a listener of its own, and no field opens a door",
        tuple(
            Sent(stranger(b"User-Agent: " + agent), ASKED)
            for agent in (b"kube-probe/1.29", b"GoogleHC/1.0", b"GoogleStackdriverMonitoring-UptimeChecks")
        ),
    ),
    Incident(
        "GHSA-pxq7-h93f-9jrg oauth2-proxy: a fragment took part in the match",
        "one canonical path is matched and forwarded",
        refused(b"/admin#/public/x") + asked(b"/admin%23/public/x", b"/admin%3F/public/x"),
    ),
    Incident(
        "GHSA-7rh7-c77v-6434 oauth2-proxy: the query took part in skip-auth",
        "the path alone is matched, from its beginning",
        asked(
            b"/admin?x=/public/x", b"/private?/public/", b"/x/public/y", b"/publicity", b"/?/public/../public"
        ),
    ),
    Incident(
        "CVE-2025-64484 oauth2-proxy: X_Forwarded_Email became the real field",
        "every spelling that folds onto a name of ours is refused",
        tuple(
            Sent(alice(name + b": carol@example.com"), NAME)
            for name in (b"X_Forwarded_Email", b"X-Forwarded_Email", b"x_forwarded-email")
        ),
    ),
    Incident(
        "GHSA-c5c4-8r6x-56w3 oauth2-proxy: the domain of a@evil@corp.com",
        "an address has one @, or nobody signs in with it",
        shown_by=(
            "tests/core/test_claims.py::test_malformed_addresses_refuse_the_sign_in",
            "tests/gateway/test_refresh.py::test_a_refresh_that_vouches_for_somebody_else_ends_the_session",
        ),
    ),
    Incident(
        "GHSA-f24x-5g9q-753f oauth2-proxy: a session from before the sign-in stayed",
        "a sign-in makes a new session and ends the one it found",
        shown_by=(
            "tests/stories/test_hostile_edges.py::test_s01_s02_a_planted_session",
            "tests/surfaces/test_signing_in.py::test_s01_a_planted_session_is_replaced",
        ),
    ),
    Incident(
        "CVE-2020-5233, -11053, -4037, CVE-2021-21291 oauth2-proxy: open redirects",
        "one rule for ways back, and a corpus against it",
        shown_by=(
            "tests/stories/test_hostile_redirects.py::test_they_lead_to_the_site_alone",
            "tests/stories/test_hostile_redirects.py::test_the_end_of_a_real_sign_in",
            "tests/stories/test_hostile_redirects.py::test_a_browser_finds_the_same_site",
        ),
    ),
    Incident(
        "CVE-2021-21411 oauth2-proxy: a group restriction was not enforced",
        "each condition is shown to deny",
        (Sent(alice(target=b"/admin"), DENIED), Sent(alice(target=b"/admin/x?y"), DENIED)),
        ("tests/core/test_decision.py::test_decide",),
    ),
    Incident(
        "CVE-2023-33189 Pomerium: decided on another route than was served",
        "the route that was decided on is the object that is forwarded to",
        refused(b"/public/..%2fadmin", b"/public/%2e%2e/admin", b"/public//admin"),
        (
            "tests/core/test_route_table.py::test_match",
            "tests/core/test_decision.py::test_every_reading_must_be_allowed",
        ),
    ),
    Incident(
        "CVE-2021-41230 Pomerium: changed claims were not seen by policy",
        "what a refresh says is judged anew",
        shown_by=("tests/gateway/test_refresh.py::test_a_refresh_judges_anew",),
    ),
    Incident(
        "2026-06-04 Pomerium: a compressed bomb in a sign-in URL",
        "nothing is decompressed, and what comes before a sign-in is bounded",
        (
            Sent(
                stranger(target=b"/.ztproxy/callback/demo?state=" + b"A" * 9000),
                Reason.HTTP_REQUEST_LINE_TOO_LONG,
            ),
            Sent(stranger(target=b"/.ztproxy/callback/demo?code=x&state=" + b"A" * 8000), 400),
        ),
    ),
    Incident(
        "CVE-2024-39315, -47616 Pomerium: tokens in a page, a foreign service token taken",
        "no page holds a secret, and what is signed for one purpose is good for no other",
        shown_by=(
            "tests/surfaces/test_own_pages.py::test_no_page_holds_a_secret",
            "tests/stories/test_operations_story.py::test_nothing_secret_is_written_down",
            "tests/stories/test_hostile_edges.py::test_i21_i22_an_assertion_that_was_captured",
        ),
    ),
    Incident(
        "CVE-2026-25748 authentik: a malformed session cookie was let through as nobody",
        "a mistake on the way to a decision is a denial",
        tuple(
            Sent(stranger(f"Cookie: {COOKIE}={value}".encode("latin-1"), target=b"/u"), ASKED)
            for value in (
                "",
                "v1",
                "v1..",
                "v1.%00.x",
                '"',
                "v1.\xff\xfe.\xff",
                "=" * 500,
                "{}",
                "null",
                "A" * 7000,
            )
        ),
        (
            "tests/surfaces/test_proxy.py::test_a_mistake_on_the_way_to_a_decision_is_a_denial",
            "tests/surfaces/test_proxy.py::test_a_mistake_in_a_decision_made_at_once_is_a_denial",
        ),
    ),
    Incident(
        "CVE-2024-47070 authentik: an X-Forwarded-For that was none skipped a policy",
        "policies fail closed, and that field is read from listed proxies alone",
        tuple(
            Sent(alice(b"X-Forwarded-For: " + value, target=b"/admin"), DENIED)
            for value in (b"", b"x", b"::1%eth0", b"999.1.1.1", b", ,", b"\xff", b"1.2.3.4" * 900)
        ),
    ),
    Incident(
        "CVE-2023-36456 authentik: proxy fields were believed of everyone",
        "who is in front is listed, and by default nobody is",
        (
            Sent(
                alice(b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-Proto: https", b"X-Real-IP: 10.0.0.1"), MINE
            ),
            Sent(alice(b"X-Forwarded-Host: evil.test", b"Forwarded: for=10.0.0.1;host=evil.test"), MINE),
        ),
    ),
    Incident(
        "CVE-2026-25227 authentik: people who might look could run code",
        "a policy is data, and whoever may look changes nothing",
        shown_by=(
            "tests/config/test_policy.py::test_a_wrong_rule_is_told",
            "tests/surfaces/admin/test_revoking.py::test_a_viewer_only_looks",
        ),
    ),
    Incident(
        "CVE-2026-39858 Traefik: X_Forwarded_Proto reached the auth service",
        "no name with an underscore travels on",
        (
            Sent(alice(b"X_Forwarded_Proto: https"), NAME),
            Sent(alice(b"X-Forwarded_Proto: https"), NAME),
            Sent(alice(b"Anything_at_all: 1"), NAME),
        ),
    ),
    Incident(
        "GHSA-x677-9fxg-v5c5 Traefik: X.Authenticated.User was merged by PHP",
        "dots fold too, as does every character a name may have",
        (
            Sent(alice(b"X.Authenticated.User: carol"), NAME),
            Sent(alice(b"X-Authenticated-User: carol"), MINE),
            Sent(alice(b"X.Forwarded.User: carol"), NAME),
            Sent(alice(b"X-Ztproxy.User: carol"), NAME),
            Sent(alice(b"Remote.User: carol"), NAME),
        ),
    ),
    Incident(
        "GHSA-7r4p-vjf4-gxv4 Caddy: a field the auth service left out was the client's",
        "every managed name is set by us or is not there, for strangers too",
        (
            Sent(
                stranger(
                    b"X-Ztproxy-Assertion: forged",
                    b"X-Ztproxy-User: carol",
                    b"Remote-User: carol",
                    b"X-Forwarded-Groups: admins",
                    target=b"/public/x",
                ),
                Forwarded(b"/public/x", who=False),
            ),
            Sent(alice(b"X-Forwarded-Groups: admins", b"X-Ztproxy-Groups: admins"), MINE),
        ),
    ),
    Incident(
        "CVE-2024-21494 caddy-security: an address out of X-Forwarded-For",
        "the address is the connection's",
        (Sent(alice(b"X-Forwarded-For: 127.0.0.2, 10.1.2.3", b"True-Client-IP: 10.1.2.3"), MINE),),
    ),
    Incident(
        "CVE-2021-32637 Authelia: a malformed URI passed nginx's auth_request",
        "what cannot be read is refused",
        refused(b"/admin%", b"/%zz/admin", b"/%c0%ae/admin", b"/admin\\", b"/%00/admin", b"admin", b"/a b"),
    ),
    Incident(
        "CVE-2026-48794 Authelia: a host in capitals passed a stricter rule",
        "a host is lower-case before anything looks at it",
        tuple(
            Sent(
                request(b"GET /admin HTTP/1.1", HOST, b"Connection: close").replace(b"app.test", host), ASKED
            )
            for host in (b"APP.TEST", b"App.Test", b"app.test.", b"APP.test.")
        ),
    ),
    Incident(
        "CVE-2026-47203 Authelia: a ban looked at another spelling of the name",
        "a lock names whom the provider names: issuer and subject",
        shown_by=(
            "tests/core/test_locks.py::test_targets_of_a_session",
            "tests/core/test_locks.py::test_attack_the_same_subject_of_another_issuer_is_somebody_else",
        ),
    ),
    Incident(
        "CVE-2021-32701 Oathkeeper: a cached introspection skipped scope and audience",
        "who somebody is may be remembered, what they may do is asked each time",
        shown_by=("tests/gateway/test_services.py::test_what_is_good_for_one_route_says_nothing_of_another",),
    ),
    Incident(
        "26.2.0 Oathkeeper: a rule matched the path before it was cleaned",
        "what is not clean is refused",
        refused(b"/public/./../admin", b"/public/x/../../admin", b"/./admin", b"/public/.%2e/admin"),
    ),
    Incident(
        "26.2.5 Oathkeeper: shared errors held claims of other requests",
        "what is shared between requests is a function of their bytes alone",
        shown_by=(
            "tests/core/test_normalise.py::test_what_is_remembered_of_a_block_is_believed_of_nobody_else",
            "tests/core/test_outbound.py::test_a_remembered_answer_is_not_the_same_for_a_person",
        ),
    ),
    Incident(
        "CVE-2026-42274 Heimdall: dots and slashes, raw and encoded",
        "dot segments and encoded slashes are refused",
        refused(
            b"/public/../admin", b"/public/%2e%2e/admin", b"/public%2f..%2fadmin", b"/public/%2E%2E%2Fadmin"
        ),
        ("tests/stories/test_hostile_generated.py::test_paths_to_depth_three",),
    ),
    Incident(
        "CVE-2022-23527 mod_auth_openidc: signing out led anywhere",
        "signing out leads to a page of ours or to the provider, and reads no parameter",
        shown_by=("tests/stories/test_hostile_redirects.py::test_what_is_not_asked_for_is_not_read",),
    ),
    Incident(
        "CVE-2023-28625, CVE-2024-24814 mod_auth_openidc: crashed by a Cookie field",
        "cookies are read in one bounded pass, and ours is never in parts",
        tuple(
            Sent(stranger(b"Cookie: " + value, target=b"/u"), ASKED)
            for value in (
                b";",
                b"=",
                b";;;;=;=;",
                f"{COOKIE}_chunks=99999999; {COOKIE}_0=a".encode(),
                b"; ".join(f"{COOKIE}_{number}=a".encode() for number in range(300)),
                b"a" * 8000,
            )
        ),
        ("tests/stories/test_hostile_generated.py::test_our_cookie_among_hostile_neighbours",),
    ),
    Incident(
        "CVE-2025-31492 mod_auth_openidc: the protected page behind the sign-in page",
        "the app is not asked before the decision",
        (
            Sent(post(b"Connection: close", b"Content-Length: 3"), ASKED),
            Sent(post(b"Connection: close", b"Transfer-Encoding: chunked", body=CHUNKS), ASKED),
        ),
        ("tests/stories/test_hostile_requests.py::test_no_body_is_asked_for_before_the_decision",),
    ),
    Incident(
        "GHSA-wcvh-g65p-v576 mod_auth_openidc: any audience, and no end",
        "issuer, audience and end are asked for",
        shown_by=(
            "tests/core/test_service_tokens.py::test_a_token_that_does_not_hold",
            "tests/core/test_service_tokens.py::test_a_route_without_an_audience_accepts_no_token",
        ),
    ),
    Incident(
        "2026-07-31 mod_auth_openidc: a refreshed ID token was not verified",
        "a refresh is verified as a sign-in is, and names the same person",
        shown_by=(
            "tests/gateway/test_refresh.py::test_a_refresh_that_vouches_for_somebody_else_ends_the_session",
            "tests/adapters/test_oidc.py::test_refresh",
        ),
    ),
    Incident(
        "2026-08 mod_auth_openidc: replays, doubled parameters, OPTIONS, floods of keys",
        "a notice counts once, a parameter given twice is none, OPTIONS is a request",
        (
            Sent(
                request(b"OPTIONS /u HTTP/1.1", HOST, b"Connection: close", b"X-Ztproxy-User: carol"), ASKED
            ),
            Sent(request(b"OPTIONS /u HTTP/1.1", HOST, ALICE, b"Remote-User: carol"), MINE),
        ),
        (
            "tests/gateway/test_logout.py::test_L17_a_notice_counts_once",
            "tests/surfaces/test_portal.py::test_a_parameter_given_twice_is_not_given",
            "tests/adapters/test_oidc.py::test_J21_a_flood_of_unknown_keys_asks_once",
        ),
    ),
    Incident(
        "CVE-2022-29226 Envoy: whoever had a bearer token was signed in",
        "that there is a token proves nothing",
        tuple(
            Sent(stranger(b"Authorization: " + value, target=b"/u"), ASKED)
            for value in (b"Bearer x", b"Bearer e30.e30.", b"Bearer", b"Basic Y2Fyb2w6eA==", b"")
        ),
    ),
    Incident(
        "CVE-2022-21656 Envoy: an e-mail address was taken for a DNS name",
        "a name in a certificate is read as the type it has",
        shown_by=(
            "tests/adapters/test_certificate_form.py::test_SPIFFE_IDs_that_refuse_the_certificate",
            "tests/adapters/test_client_certificates.py::test_refused",
        ),
    ),
    Incident(
        "CVE-2021-29492 Envoy and Istio: %2F, %5C and // passed path rules",
        "each of them is refused where a route does not say that its app has them",
        refused(
            b"/public%2F..%2Fadmin", b"/public/..%5Cadmin", b"//admin", b"/public//../admin", b"/a%2fadmin"
        ),
        ("tests/core/test_decision.py::test_every_reading_must_be_allowed",),
    ),
    Incident(
        "ext_authz of Envoy: a route chosen anew after the decision",
        "the decision's route is the one that serves; a reload judges again",
        shown_by=("tests/surfaces/test_proxy.py::test_what_was_judged_before_a_reload_is_judged_again",),
    ),
    Incident(
        "CVE-2026-48096 OpenFGA: another decision under the same cache key",
        "keys are whole values, never texts put together",
        shown_by=(
            "tests/core/test_logout.py::test_what_makes_two_notices_two",
            "tests/surfaces/test_proxy.py::test_what_the_path_decides_is_decided_for_each_path",
        ),
    ),
    Incident(
        "CVE-2026-86863 pgAdmin: an app believed a field of anybody's",
        "apps are given a signed assertion, and the means to check it",
        shown_by=(
            "tests/verify/test_verifier.py::test_hostile_tokens_are_rejected_for_their_reason",
            "tests/verify/test_examples.py::test_wsgi_refuses",
        ),
    ),
    Incident(
        "2021 Google IAP: tokens for another app, and addresses told by CORS",
        "an assertion is for one app, and no page of ours may be read by another site",
        shown_by=(
            "tests/adapters/test_jwt.py::test_an_assertion_of_our_own_is_known_again",
            "tests/stories/test_incidents.py::test_no_page_of_ours_may_be_read_by_another_site",
        ),
    ),
    Incident(
        "CVE-2026-7776 Boundary: handshakes that never end",
        "a handshake has a deadline, and there is room for so many",
        shown_by=(
            "tests/wire/test_handshake.py::test_a_silent_client_is_closed",
            "tests/wire/test_handshake.py::test_whoever_waited_longest_makes_way",
        ),
    ),
    Incident(
        "CVE-2025-49825 Teleport: a certificate within a certificate",
        "a chain is walked by one strict rule, and a leaf signs nothing",
        shown_by=(
            "tests/adapters/test_client_certificates.py::test_refused",
            "tests/adapters/test_certificate_form.py::test_forms_that_are_refused_whatever_the_verifier_thinks",
        ),
    ),
)
ROWS = [
    Row(f"{one.name} {number}", sent.raw, sent.expected)
    for one in INCIDENTS
    for number, sent in enumerate(one.sent)
]
TRIED = (
    Tried(
        "Incidents elsewhere",
        f"requests of {sum(bool(one.sent) for one in INCIDENTS)} published incidents; "
        f"the other {sum(not one.sent for one in INCIDENTS)} are tests by name",
        len(ROWS),
        2 * len(ROWS),
        "refused, denied, asked to sign in, or forwarded without what was claimed",
    ),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("incidents"), valkey_url) as it:
        yield it


@pytest.fixture(scope="module")
def every(home: House) -> tuple[list[str], list[Result]]:
    cookie = b"Cookie: " + home.sign_in("alice").encode()
    return judged(home, [row._replace(raw=row.raw.replace(ALICE, cookie)) for row in ROWS])


@pytest.mark.parametrize("incident", [pytest.param(one, id=one.name) for one in INCIDENTS if one.sent])
def test_it_does_not_happen_here(every: tuple[list[str], list[Result]], incident: Incident) -> None:
    words, results = every
    assert sum(one.row.name.startswith(incident.name) for one in results) == 2 * len(incident.sent)
    assert [one for one in words if one.startswith(incident.name)] == []


def test_each_refusal_was_counted_once(every: tuple[list[str], list[Result]]) -> None:
    assert every[0] == []


@pytest.mark.parametrize("incident", [pytest.param(one, id=one.name) for one in INCIDENTS if one.shown_by])
def test_it_is_shown_elsewhere(incident: Incident) -> None:
    for one in incident.shown_by:
        path, _, name = one.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert name in names, f"there is no `{one}` any more"


def test_none_is_left_out() -> None:
    assert len(INCIDENTS) == 43
    assert all(one.sent or one.shown_by for one in INCIDENTS)


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_page_of_ours_may_be_read_by_another_site(home: House, method: str) -> None:
    fields = b"Origin: https://evil.test", b"Access-Control-Request-Method: GET", b"Connection: close"
    for page in ("session", "user", "apps", "sign_in", "sign_out", "callback/demo"):
        with home.wire() as wire:
            line = f"{method} /.ztproxy/{page} HTTP/1.1".encode()
            heard = wire.send(request(line, HOST, *fields)).rest()
        assert heard.status and b"access-control" not in heard.head.lower()
