"""What the app receives, byte for byte, and what of its answer the client sees."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.words import APP, ask, person, session, site
from ztproxy.core.fields import fold, is_reserved
from ztproxy.core.identity import Credential, Session
from ztproxy.core.outbound import (
    _MOST_BLOCKS,
    ResponseFilter,
    ResponseSettings,
    assertion_claims,
    identity_block,
    outbound_request,
)
from ztproxy.core.paths import canonical_path
from ztproxy.core.request import Block, Field, Framing, Path, Peer, Request
from ztproxy.core.routes import Forwarding, IdentityHeaders, IdentityPreset, Route, Services

KEPT = replace(APP, preserve_host=True, host=None)


def at(raw: bytes, **more: Any) -> Request:
    path = canonical_path(raw)
    assert isinstance(path, Path)
    return ask(path, **more)


def wire(
    request: Request, forwarding: Forwarding = KEPT, route: Route | None = None, identity: bytes = b""
) -> bytes:
    """The whole head, as `wire` writes it."""
    out = outbound_request(request, route or site(action=forwarding), forwarding, "0193", identity)
    host = out.host if out.host is not None else forwarding.upstream.endpoints[0].authority.encode()
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (out.method, out.target, host, out.block)


def test_the_golden_request() -> None:
    request = ask("/u", query="?x=1", fields=((b"accept", b"*/*"), (b"X-b", b"caf\xe9")))
    assert wire(request, identity=identity_block(site(), session(), "a.b.c")) == (
        b"GET /u?x=1 HTTP/1.1\r\n"
        b"Host: app.test\r\n"
        b"accept: */*\r\n"
        b"X-b: caf\xe9\r\n"
        b"X-Forwarded-For: 203.0.113.9\r\n"
        b"X-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: app.test\r\n"
        b"X-Request-Id: 0193\r\n"
        b"X-Ztproxy-Assertion: a.b.c\r\n"
        b"\r\n"
    )


def test_everything_at_once_in_its_order() -> None:
    forwarding = replace(
        KEPT,
        set_request=((b"x-team", b"a"), (b"authorization", b"Basic b")),
        remove_request=frozenset({b"x-gone"}),
    )
    request = at(
        b"/a",
        method="POST",
        port=8443,
        fields=((b"X-TEAM", b"evil"), (b"X-Gone", b"1"), (b"Authorization", b"Bearer t"), (b"X-Kept", b"2")),
        peer=Peer("2001:db8::1", True, forwarded_for="1.1.1.1, x"),
        framing=Framing.LENGTH,
        length=3,
    )
    assert wire(request, forwarding, identity=b"X-Ztproxy-Assertion: a\r\n") == (
        b"POST /a HTTP/1.1\r\n"
        b"Host: app.test:8443\r\n"
        b"X-Kept: 2\r\n"
        b"Content-Length: 3\r\n"
        b"X-Forwarded-For: 1.1.1.1, x, 2001:db8::1\r\n"
        b"X-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: app.test:8443\r\n"
        b"X-Request-Id: 0193\r\n"
        b"x-team: a\r\n"
        b"authorization: Basic b\r\n"
        b"X-Ztproxy-Assertion: a\r\n"
        b"\r\n"
    )


def lines(head: bytes) -> list[bytes]:
    return head.split(b"\r\n")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param({}, [], id="no body"),
        pytest.param({"framing": Framing.LENGTH}, [b"Content-Length: 0"], id="an empty body"),
        pytest.param(
            {"framing": Framing.LENGTH, "length": 10**17}, [b"Content-Length: 1" + b"0" * 17], id="huge"
        ),
        pytest.param({"framing": Framing.CHUNKED}, [b"Transfer-Encoding: chunked"], id="chunks"),
        pytest.param(
            {"upgrade": "websocket"}, [b"Connection: Upgrade", b"Upgrade: websocket"], id="an upgrade"
        ),
    ],
)
def test_framing_is_written_anew(more: dict[str, Any], expected: list[bytes]) -> None:
    assert lines(wire(ask("/", **more)))[2:-6] == expected


@pytest.mark.parametrize(
    ("port", "scheme", "forwarding", "expected"),
    [
        pytest.param(443, "https", KEPT, b"app.test", id="the client's"),
        pytest.param(80, "http", KEPT, b"app.test", id="the client's over http"),
        pytest.param(8443, "https", KEPT, b"app.test:8443", id="the client's with its port"),
        pytest.param(443, "https", replace(KEPT, host="in.test:1"), b"in.test:1", id="a fixed one"),
        pytest.param(443, "https", replace(KEPT, preserve_host=False), None, id="the endpoint's"),
        pytest.param(
            443, "https", replace(KEPT, preserve_host=False, host="in.test"), b"in.test", id="fixed, not kept"
        ),
    ],
)
def test_host(port: int, scheme: str, forwarding: Forwarding, expected: bytes | None) -> None:
    out = outbound_request(ask("/", port=port, scheme=scheme), site(), forwarding, "0193", b"")
    assert out.host == expected
    # Whatever Host the app gets, it learns which one the client used.
    assert b"\r\nX-Forwarded-Host: app.test" in out.block
    assert b"\r\nX-Forwarded-Proto: " + scheme.encode() in out.block


def test_a_route_may_replace_what_we_say_of_the_client() -> None:
    forwarding = replace(
        KEPT, set_request=((b"x-forwarded-proto", b"http"),), remove_request=frozenset({b"x-forwarded-host"})
    )
    head = wire(ask("/"), forwarding)
    assert lines(head)[2:-2] == [
        b"X-Forwarded-For: 203.0.113.9",
        b"X-Request-Id: 0193",
        b"x-forwarded-proto: http",
    ]


def test_a_set_field_replaces_every_spelling_that_folds_onto_it() -> None:
    forwarding = replace(KEPT, set_request=((b"x-team", b"a"),))
    head = wire(ask("/", fields=((b"X.Team", b"evil"), (b"x-TEAM", b"evil"))), forwarding)
    assert b"evil" not in head and head.count(b"x-team: a") == 1


TAKEN = Services(("ci",), "https://app.test")


@pytest.mark.parametrize(
    ("services", "shown", "forwarding", "received"),
    [
        pytest.param(TAKEN, b"Bearer t", KEPT, [], id="a token for us ends here"),
        pytest.param(TAKEN, b"bEARER t", KEPT, [], id="however its scheme is spelled"),
        pytest.param(
            replace(TAKEN, forward_token=True),
            b"Bearer t",
            KEPT,
            [b"Bearer t"],
            id="unless the route says so",
        ),
        pytest.param(TAKEN, b"Basic b", KEPT, [b"Basic b"], id="another scheme is the app's"),
        pytest.param(None, b"Bearer t", KEPT, [b"Bearer t"], id="without services it is the app's"),
        pytest.param(
            Services(spiffe=("spiffe://corp.test/a",)),
            b"Bearer t",
            KEPT,
            [b"Bearer t"],
            id="certificates alone",
        ),
        pytest.param(
            TAKEN,
            b"Bearer t",
            replace(KEPT, set_request=((b"authorization", b"Basic b"),)),
            [b"Basic b"],
            id="the route's own instead",
        ),
        pytest.param(
            TAKEN,
            b"Bearer t",
            replace(KEPT, remove_request=frozenset({b"x-b"})),
            [],
            id="besides what the route removes",
        ),
    ],
)
def test_a_token_for_us_is_not_the_apps(
    services: Services | None, shown: bytes, forwarding: Forwarding, received: list[bytes]
) -> None:
    fields = ((b"aUTHorization", shown), (b"X-Kept", b"1"))
    head = wire(
        ask("/", fields=fields, authorization=shown), forwarding, site(action=forwarding, services=services)
    )
    there = [line.partition(b": ") for line in lines(head)]
    assert [value for name, _, value in there if name.lower() == b"authorization"] == received
    assert (b"X-Kept", b": ", b"1") in there


STRIP, REWRITE = replace(KEPT, strip_prefix=True), replace(KEPT, rewrite_prefix="/base/")

PREFIXES = [
    pytest.param(STRIP, ("app",), b"/app/x", b"/x", id="strip"),
    pytest.param(STRIP, ("app",), b"/app", b"/", id="strip all"),
    pytest.param(STRIP, ("app",), b"/app/", b"/", id="strip all but a slash"),
    pytest.param(STRIP, ("app",), b"/app/x/", b"/x/", id="strip, a slash at the end"),
    pytest.param(STRIP, ("a", "b"), b"/a/b/c", b"/c", id="strip two"),
    pytest.param(STRIP, (), b"/x", b"/x", id="strip nothing"),
    pytest.param(STRIP, ("caf\u00e9",), b"/caf%C3%A9/x%20y", b"/x%20y", id="strip an escaped prefix"),
    pytest.param(STRIP, ("app",), b"/app//evil.test/x", b"/evil.test/x", id="never a network path"),
    pytest.param(STRIP, ("app",), b"/app/%2Fevil.test", b"/evil.test", id="nor one that is escaped"),
    pytest.param(STRIP, ("app",), b"/app//%2F%2fevil.test/%2Fx", b"/evil.test/%2Fx", id="nor a mixed one"),
    pytest.param(STRIP, ("app",), b"/app/;x/evil.test", b"/evil.test", id="nor one before a parameter"),
    pytest.param(STRIP, ("app",), b"/app/%3Bx=/evil", b"/evil", id="nor before an escaped one"),
    pytest.param(STRIP, ("app",), b"/app/%2F;x%2Fevil", b"/", id="nor one that a parameter may hold"),
    pytest.param(STRIP, ("app",), b"/app/;", b"/", id="nothing but a parameter"),
    pytest.param(REWRITE, ("app",), b"/app/%2Fevil.test", b"/base/evil.test", id="rewrite an escaped one"),
    pytest.param(replace(KEPT, rewrite_prefix="/"), ("app",), b"/app/;/evil", b"/evil", id="rewrite to evil"),
    pytest.param(STRIP, ("app",), b"/app/%2541/%3Fx", b"/%2541/%3Fx", id="strip, with further readings"),
    pytest.param(STRIP, ("app",), b"/app/x//y", b"/x//y", id="an empty segment inside stays"),
    pytest.param(STRIP, ("app",), b"/app/g%2Fp", b"/g%2Fp", id="an escaped slash stays"),
    pytest.param(REWRITE, ("app",), b"/app/x", b"/base/x", id="rewrite"),
    pytest.param(REWRITE, ("app",), b"/app", b"/base", id="rewrite all"),
    pytest.param(REWRITE, ("app",), b"/app/", b"/base/", id="rewrite all but a slash"),
    pytest.param(REWRITE, (), b"/x", b"/base/x", id="rewrite the root"),
    pytest.param(REWRITE, (), b"/", b"/base/", id="rewrite the root alone"),
    pytest.param(replace(KEPT, rewrite_prefix="/"), ("app",), b"/app", b"/", id="rewrite to the root"),
    pytest.param(KEPT, ("app",), b"/app/x", b"/app/x", id="neither"),
]


@pytest.mark.parametrize(("forwarding", "prefix", "raw", "target"), PREFIXES)
def test_prefix(forwarding: Forwarding, prefix: tuple[str, ...], raw: bytes, target: bytes) -> None:
    route = site(action=forwarding, segments=prefix)
    out = outbound_request(at(raw, query="?q=/app"), route, forwarding, "0193", b"")
    assert out.target == target + b"?q=/app"
    again = canonical_path(target)
    assert isinstance(again, Path) and again.text.encode() == target


# ---- identity --------------------------------------------------------------------------------------------


def telling(*presets: IdentityPreset, groups: frozenset[str] | None = None) -> Route:
    return site(identity=IdentityHeaders("https://app.test", presets=presets, groups=groups))


ALICE = session(
    identity=person("eng", "a,b 100%", email="alice@corp.test", name="Alice Caf\u00e9", username="alice")
)

PRESETS = [
    pytest.param(
        IdentityPreset.OAUTH2_PROXY,
        [
            b"X-Forwarded-User: alice-0001",
            b"X-Forwarded-Email: alice@corp.test",
            b"X-Forwarded-Groups: eng,a%2Cb 100%25",
            b"X-Forwarded-Preferred-Username: alice",
        ],
        id="oauth2-proxy",
    ),
    pytest.param(
        IdentityPreset.AUTHELIA,
        [
            b"Remote-User: alice",
            b"Remote-Groups: eng,a%2Cb 100%25",
            b"Remote-Name: Alice Caf\xc3\xa9",
            b"Remote-Email: alice@corp.test",
        ],
        id="authelia",
    ),
    pytest.param(
        IdentityPreset.POMERIUM,
        [
            b"X-Pomerium-Claim-Sub: alice-0001",
            b"X-Pomerium-Claim-Email: alice@corp.test",
            b"X-Pomerium-Claim-Name: Alice Caf\xc3\xa9",
            b"X-Pomerium-Claim-Groups: eng,a%2Cb 100%25",
        ],
        id="pomerium",
    ),
    pytest.param(
        IdentityPreset.GRAFANA,
        [
            b"X-WEBAUTH-USER: alice",
            b"X-WEBAUTH-EMAIL: alice@corp.test",
            b"X-WEBAUTH-NAME: Alice Caf\xc3\xa9",
            b"X-WEBAUTH-GROUPS: eng,a%2Cb 100%25",
        ],
        id="grafana",
    ),
]


@pytest.mark.parametrize(("preset", "expected"), PRESETS)
def test_presets(preset: IdentityPreset, expected: list[bytes]) -> None:
    block = identity_block(telling(preset), ALICE, "a.b.c")
    assert lines(block) == [*expected, b"X-Ztproxy-Assertion: a.b.c", b""]
    # What we write, no client may write.
    assert all(is_reserved(fold(line.partition(b":")[0])) for line in lines(block)[:-1])


def test_every_preset_has_its_row() -> None:
    assert {row.values[0] for row in PRESETS} == set(IdentityPreset)


@pytest.mark.parametrize(
    ("who", "assertion", "expected"),
    [
        pytest.param(None, None, b"", id="nobody"),
        pytest.param(None, "a.b.c", b"X-Ztproxy-Assertion: a.b.c\r\n", id="an assertion alone"),
        pytest.param(session(), None, b"Remote-User: alice-0001\r\n", id="a person with a subject alone"),
    ],
)
def test_what_is_not_known_is_not_said(who: Session | None, assertion: str | None, expected: bytes) -> None:
    assert identity_block(telling(IdentityPreset.AUTHELIA), who, assertion) == expected


HOSTILE = [
    pytest.param("x\r\nX-Ztproxy-Groups: admin", id="I24 a line end"),
    pytest.param("x\x00", id="NUL"),
    pytest.param("x\x7f", id="DEL"),
    pytest.param("x\x85y", id="NEL"),
    pytest.param("x\u2028y", id="line separator"),
    pytest.param("\ud800", id="a lone surrogate"),
    pytest.param(" admin", id="a space that a parser would trim"),
    pytest.param("admin\t", id="a tab that a parser would trim"),
    pytest.param("admin\u00a0", id="a space some apps trim"),
    pytest.param("", id="empty"),
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_that_cannot_be_a_field_unchanged_is_left_out(value: str) -> None:
    who = session(identity=person(email="a@corp.test", name=value, username=value))
    assert identity_block(telling(IdentityPreset.AUTHELIA), who, None) == (
        b"Remote-User: a@corp.test\r\nRemote-Email: a@corp.test\r\n"
    )


@pytest.mark.parametrize(
    ("groups", "only", "expected"),
    [
        pytest.param(("a", "b"), None, b"a,b", id="all"),
        pytest.param(("a", "b", "c"), frozenset({"c", "a", "x"}), b"a,c", id="those named, in order"),
        pytest.param(("a",), frozenset[str](), None, id="none of them"),
        pytest.param((), None, None, id="no groups"),
        pytest.param(("a,admin",), None, b"a%2Cadmin", id="I25 a comma"),
        pytest.param(("%2C",), None, b"%252C", id="a percent sign"),
        pytest.param(("a\r\nb",), None, b"a%0D%0Ab", id="a line end"),
        pytest.param(("caf\u00e9",), None, b"caf%C3%A9", id="a letter that is not ASCII"),
        pytest.param((" admin ",), None, b"%20admin%20", id="spaces around it"),
        pytest.param(("Domain Users",), None, b"Domain Users", id="a space inside"),
        pytest.param(("", "a"), None, b"a", id="an empty name"),
        pytest.param(("\ud800",), None, b"%ED%A0%80", id="a lone surrogate"),
    ],
)
def test_groups(groups: tuple[str, ...], only: frozenset[str] | None, expected: bytes | None) -> None:
    block = identity_block(telling(IdentityPreset.AUTHELIA, groups=only), session(*groups), None)
    written = [line.partition(b": ")[2] for line in lines(block) if line.startswith(b"Remote-Groups")]
    assert written == ([] if expected is None else [expected])


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_no_claim_writes_a_line_of_its_own(name: str, username: str, groups: list[str]) -> None:
    who = session(identity=person(*groups, name=name, username=username))
    block = identity_block(telling(*IdentityPreset), who, "a")
    assert block.endswith(b"X-Ztproxy-Assertion: a\r\n")
    names = [line.partition(b":")[0] for line in lines(block)[:-1]]
    assert len(names) == len(set(names)) and all(map(re.compile(rb"[A-Za-z-]+").fullmatch, names))


def test_assertion_claims() -> None:
    who = replace(ALICE, acr="mfa", amr=("pwd", "otp"), authenticated_at=1_750_000_000.9)
    claims = assertion_claims(
        telling(groups=frozenset({"eng"})), who, 1_750_000_100.7, "j1", "https://app.test:8443"
    )
    assert claims == {
        "iss": "https://app.test:8443",
        "aud": "https://app.test",
        "sub": "alice-0001",
        "iat": 1_750_000_100,
        "exp": 1_750_000_400,
        "jti": "j1",
        "sid": "s1",
        "idp": "https://idp.test",
        "email": "alice@corp.test",
        "name": "Alice Caf\u00e9",
        "preferred_username": "alice",
        "groups": ["eng"],
        "acr": "mfa",
        "amr": ["pwd", "otp"],
        "auth_time": 1_750_000_000,
    }


def test_claims_nobody_made_are_absent_and_groups_are_a_list() -> None:
    claims = assertion_claims(site(), session(), 0.0, "j1", "https://app.test")
    assert claims["groups"] == [] and claims["amr"] == []
    assert not {"email", "name", "preferred_username", "acr", "device", "scope"} & set(claims)


def test_the_app_is_told_the_device_and_what_a_token_covers() -> None:
    who = session(device="laptop-1", by=Credential.TOKEN, scopes=frozenset({"write", "read"}))
    claims = assertion_claims(site(), who, 0.0, "j1", "https://app.test")
    assert (claims["device"], claims["scope"]) == ("laptop-1", "read write")


# ---- responses -------------------------------------------------------------------------------------------

HSTS = b"max-age=31536000"


def answered(
    *fields: Field, authenticated: bool = False, hsts: str | None = None, forwarding: Forwarding = KEPT
) -> list[Field]:
    chosen = ResponseFilter(site(action=forwarding), forwarding, ResponseSettings(hsts))
    answer = chosen.fields(list(fields), authenticated=authenticated)
    for _ in range(2):
        again = chosen.fields(Block(fields, b"the same"), authenticated=authenticated)
        assert list(again) == answer, "what is remembered is the same"
    return list(answer)


RESPONSES = [
    pytest.param(
        [(b"Content-Type", b"text/html"), (b"X-b", b"1"), (b"x-B", b"2")], None, id="ordinary fields"
    ),
    pytest.param([(b"Set-Cookie", b"a=b; Path=/"), (b"Set-Cookie", b"c=d")], None, id="cookies of the app"),
    pytest.param([(b"Set-Cookie", b"__Host-ztproxy=evil; Path=/; Secure")], [], id="U31 our cookie"),
    pytest.param([(b"set-cookie", b"__HOST-ZTP_tx_x=evil")], [], id="S14 ours in capitals"),
    pytest.param([(b"Set-Cookie", b"__Secure-ztproxy=evil")], [], id="S14 another of ours"),
    pytest.param([(b"Set-Cookie", b" =__Host-ztproxy=evil")], [], id="S08 nameless"),
    pytest.param([(b"Set-Cookie", b"x__Host-ztproxy=1")], None, id="a cookie that only ends like ours"),
    pytest.param([(b"Set-Cookie", b"a=__Host-ztproxy")], None, id="a value like our name"),
    pytest.param([(b"Alt-Svc", b'h2="evil.test:443"')], [], id="T28 another address"),
    pytest.param([(b"X-Ztproxy-User", b"x"), (b"x-ztproxy-assertion", b"a")], [], id="ours"),
    pytest.param(
        [(b"Connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"Keep-Alive", b"300"), (b"Upgrade", b"h2c")],
        [],
        id="hop-by-hop",
    ),
    pytest.param(
        [(b"Connection", b"keep-alive"), (b"Close", b"1")], [(b"Close", b"1")], id="options are no names"
    ),
    pytest.param(
        [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), (b"Trailer", b"X")], [], id="framing"
    ),
    pytest.param([(b"Clear-Site-Data", b'"cookies"')], [], id="U37 clear cookies"),
    pytest.param([(b"Clear-Site-Data", b'"*"')], [], id="clear all"),
    pytest.param(
        [(b"Clear-Site-Data", b'"cache", "COOKIES" ,"storage",, ""')],
        [(b"Clear-Site-Data", b'"cache", "storage"')],
        id="clear some",
    ),
    pytest.param([(b"Service-Worker-Allowed", b"/.ztproxy/")], [], id="U38 a worker over ours"),
    pytest.param([(b"Service-Worker-Allowed", b"/")], [], id="a worker over everything"),
    pytest.param([(b"Service-Worker-Allowed", b"/.zt")], [], id="a worker over a prefix of ours"),
    pytest.param([(b"Service-Worker-Allowed", b"/a/../")], [], id="a worker by dots"),
    pytest.param([(b"Service-Worker-Allowed", b"/%2eztproxy/")], [], id="a worker by escapes"),
    pytest.param([(b"Service-Worker-Allowed", b"../")], [], id="a worker by a relative path"),
    pytest.param([(b"Service-Worker-Allowed", b"//app.test/")], [], id="a worker by a network path"),
    pytest.param([(b"Service-Worker-Allowed", b"https://app.test/")], [], id="a worker by a URL"),
    pytest.param([(b"Service-Worker-Allowed", b"/app/")], None, id="a worker over the app's own"),
    pytest.param([(b"Strict-Transport-Security", b"max-age=0")], None, id="HSTS where we have none"),
    pytest.param([(b"Cache-Control", b"public"), (b"Vary", b"*")], None, id="nobody is signed in"),
]


@pytest.mark.parametrize(("fields", "expected"), RESPONSES)
def test_what_of_the_answer_the_client_sees(fields: list[Field], expected: list[Field] | None) -> None:
    before = list(fields)
    assert answered(*fields) == (fields if expected is None else expected)
    assert fields == before


PRIVATE, VARY = (b"Cache-Control", b"private"), (b"Vary", b"Cookie")

CACHING = [
    pytest.param([], [PRIVATE, VARY], id="silent"),
    pytest.param(
        [(b"cache-control", b"max-age=60")], [(b"cache-control", b"max-age=60"), VARY], id="says how"
    ),
    pytest.param(
        [(b"Vary", b"Accept, COOKIE")], [(b"Vary", b"Accept, COOKIE"), PRIVATE], id="varies already"
    ),
    pytest.param([(b"Vary", b"*")], [(b"Vary", b"*"), PRIVATE], id="varies by everything"),
    pytest.param(
        [(b"Vary", b"Accept")], [(b"Vary", b"Accept"), PRIVATE, VARY], id="varies by something else"
    ),
    pytest.param(
        [(b"Vary", b"Cookie"), (b"Vary", b"A")], [(b"Vary", b"Cookie"), (b"Vary", b"A"), PRIVATE], id="two"
    ),
]


@pytest.mark.parametrize(("fields", "expected"), CACHING)
def test_an_answer_for_one_person_is_not_for_the_next(fields: list[Field], expected: list[Field]) -> None:
    assert answered(*fields, authenticated=True) == expected


def test_hsts_is_ours() -> None:
    theirs = (b"strict-transport-security", b"max-age=0")
    assert answered(theirs, hsts=HSTS.decode()) == [(b"Strict-Transport-Security", HSTS)]


ROUTE_FIELDS = [
    pytest.param(
        replace(KEPT, set_response=((b"x-a", b"1"),)),
        [(b"X-A", b"2"), (b"B", b"3")],
        [(b"B", b"3"), (b"x-a", b"1")],
        id="set",
    ),
    pytest.param(
        replace(KEPT, remove_response=frozenset({b"server"})),
        [(b"Server", b"x"), (b"B", b"3")],
        [(b"B", b"3")],
        id="remove",
    ),
    pytest.param(
        replace(KEPT, set_response=((b"service-worker-allowed", b"/"),)),
        [(b"Service-Worker-Allowed", b"/x/")],
        [(b"service-worker-allowed", b"/")],
        id="what we would not let the app say",
    ),
]


@pytest.mark.parametrize(("forwarding", "fields", "expected"), ROUTE_FIELDS)
def test_the_route_has_the_last_word(
    forwarding: Forwarding, fields: list[Field], expected: list[Field]
) -> None:
    assert answered(*fields, forwarding=forwarding) == expected


@pytest.mark.parametrize(
    ("forwarding", "expected"),
    [
        pytest.param(
            replace(KEPT, set_response=((b"strict-transport-security", b"max-age=1"),)),
            [(b"strict-transport-security", b"max-age=1")],
            id="another",
        ),
        pytest.param(replace(KEPT, remove_response=frozenset({b"strict-transport-security"})), [], id="none"),
    ],
)
def test_the_route_may_choose_its_hsts(forwarding: Forwarding, expected: list[Field]) -> None:
    assert (
        answered((b"Strict-Transport-Security", b"x"), hsts=HSTS.decode(), forwarding=forwarding) == expected
    )


def test_a_route_that_sets_caching_is_not_contradicted() -> None:
    forwarding = replace(KEPT, set_response=((b"cache-control", b"no-store"), (b"vary", b"accept")))
    assert answered((b"Cache-Control", b"public"), authenticated=True, forwarding=forwarding) == [
        (b"cache-control", b"no-store"),
        (b"vary", b"accept"),
    ]


def test_a_remembered_answer_is_not_the_same_for_a_person() -> None:
    chosen = ResponseFilter(site(action=KEPT), KEPT, ResponseSettings(None))
    block = Block([(b"A", b"1")], b"A: 1")
    for _ in range(2):
        assert list(chosen.fields(block, authenticated=False)) == [(b"A", b"1")]
        to_a_person = chosen.fields(block, authenticated=True)
        assert (b"Cache-Control", b"private") in to_a_person and (b"Vary", b"Cookie") in to_a_person


def test_what_is_remembered_of_answers_is_bounded() -> None:
    chosen = ResponseFilter(site(action=KEPT), KEPT, ResponseSettings(None))
    for number in range(2 * _MOST_BLOCKS + 1):
        block = Block([(b"A", b"%d" % number)], b"%d" % number)
        assert list(chosen.fields(block, authenticated=False)) == [(b"A", b"%d" % number)]
        assert max(map(len, chosen._remembered)) <= _MOST_BLOCKS
