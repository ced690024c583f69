"""Attacks on sessions and identities over real sockets: planted, raced, guessed, copied and claimed.

What a cookie or a field may look like is tried by the hundred in `test_hostile_generated`; here are the
stories in which a sign-in, an app or a page of ours plays a part.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Iterator

import jwt
import pytest

from tests.evidence import Tried
from tests.stories.hostile import HOST, get
from tests.stories.house import COOKIE, Guest, House, house
from tests.stories.talking import Sending
from tests.stories.test_upgrades import ASKED, ORIGIN, asking, echo, opened
from ztproxy.demo.provider import sign_in_as
from ztproxy.demo.security_key import OURS
from ztproxy.demo.visitor import NAVIGATION

APP = "https://app.test"
CLOSE = b"Connection: close"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("edges"), valkey_url) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    return home.sign_in("alice")


def who(received: bytes) -> str:
    """Of whom the app was told."""
    found = re.search(rb"X-Ztproxy-Assertion: (\S+)\r\n", received)
    assert found is not None
    claims = jwt.decode(found[1], options={"verify_signature": False})
    return str(claims["email"]).partition("@")[0]


async def begun(guest: Guest) -> str:
    """A sign-in up to the provider's answer: the URL it sends the browser back to."""
    page = await guest.ask(f"{APP}/.ztproxy/sign_in?rd=/u", NAVIGATION)
    assert page.status == 302, page
    return await sign_in_as(guest._at_provider, page.location, guest.person, "pwd", OURS)


# ---- sessions --------------------------------------------------------------------------------------------


def test_s01_s02_a_planted_session(home: House) -> None:
    """The attacker's own session in the victim's browser while she signs in: hers is a new one, and the
    planted one, which both know, is nobody's."""

    async def story() -> None:
        async with home.guest("bob") as bob, home.guest("alice") as alice:
            await bob.open(f"{APP}/u")
            planted = bob.session(APP)
            back = await begun(alice)
            alice._keep(APP, [f"{planted}; Path=/; Secure"])
            page = await alice.ask(back, NAVIGATION)
            assert (page.status, page.location) == (302, f"{APP}/.ztproxy/sign_in?rd=%2Fu")
            assert alice.session(APP) not in ("", planted)
            assert (await alice.ask(f"{APP}/u")).status == 200
            assert who(home.app.requests[-1]) == "alice"
            before = len(home.app.requests)
            assert (await bob.ask(f"{APP}/u")).status == 401
            assert len(home.app.requests) == before

    home.run(story())


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
def test_s04_two_sign_ins_of_one_browser(home: House, at_once: bool) -> None:
    """The last one wins; the session it came with is over."""

    async def story() -> None:
        async with home.guest("alice") as alice:
            first, second = await begun(alice), await begun(alice)
            if at_once:
                pages = await asyncio.gather(alice.ask(first, NAVIGATION), alice.ask(second, NAVIGATION))
                assert [page.status for page in pages] == [302, 302]
                assert (await alice.ask(f"{APP}/u")).status == 200
                assert who(home.app.requests[-1]) == "alice"
                return
            await alice.ask(first, NAVIGATION)
            before = alice.session(APP)
            assert (await alice.ask(second, NAVIGATION)).status == 302
            after = alice.session(APP)
            assert "" != before != after != ""
            assert (await alice.ask(f"{APP}/u")).status == 200
            alice._keep(APP, [f"{before}; Path=/; Secure"])
            assert (await alice.ask(f"{APP}/u")).status == 401

    home.run(story())


def test_s12_guesses(home: House, alice: str) -> None:
    """Random handles, and a real one with each of its characters changed."""
    guesses = [f"{COOKIE}=v1.{secrets.token_urlsafe(32)}.{secrets.token_urlsafe(32)}" for _ in range(GUESSES)]
    at = range(len(COOKIE) + 1, len(COOKIE) + 1 + CHANGED)
    assert len(alice) == at.stop
    guesses += [alice[:one] + chr(ord(alice[one]) ^ 1) + alice[one + 1 :] for one in at]
    before = len(home.app.requests)
    answers = home.send_all([Sending(get(CLOSE, f"Cookie: {guess}".encode())) for guess in guesses])
    # The last character of base64 carries bits that mean nothing, yet a handle has one spelling.
    assert {answer.status for answer in answers} <= {400, 401}
    assert home.app.requests[before:] == []
    assert home.get("/u", alice).status == 200


GUESSES, CHANGED = 300, 90
SPELLINGS = (
    *("__Host-ztproxy", "__host-ztproxy", "__HOST-ZTPROXY", "__Host-ztproxy-sign-in-x", "__Host-ztp_tx_x"),
    *(" __Host-ztproxy", "\t__Host-ztproxy", '"__Host-ztproxy"', "=__Host-ztproxy", "= __Host-ztproxy"),
    *("__Secure-ztproxy", "__secure-ZTPROXY"),
)


def test_s14_an_app_that_sets_cookies_of_ours(home: House) -> None:
    ours = "".join(f"Set-Cookie: {name}=evil; Path=/; Secure\r\n" for name in SPELLINGS)
    theirs = (
        "Set-Cookie: ztproxy=x; Path=/\r\nset-cookie: a=__Host-ztproxy=b\r\nSet-Cookie: x__Host-ztproxy=c"
    )
    answer = f"HTTP/1.1 200 OK\r\n{ours}{theirs}\r\nContent-Length: 2\r\n\r\nok".encode()
    with home.app.answers(answer):
        heard = home.get("/public/x")
    assert heard.fields("Set-Cookie") == ["ztproxy=x; Path=/", "a=__Host-ztproxy=b", "x__Host-ztproxy=c"]


def test_s21_sign_ins_begun_and_never_ended(home: House) -> None:
    """One browser has at most so many under way, and then is asked to press a button."""

    async def story() -> None:
        async with home.guest("alice") as alice:
            pages = [await alice.ask(f"{APP}/.ztproxy/sign_in?rd=/u", NAVIGATION) for _ in range(9)]
            assert [page.status for page in pages] == [302] * 5 + [429] * 4
            flows = [name for name in alice._cookies["app.test"] if name != COOKIE]
            assert len(flows) == 5
            assert not any(page.location for page in pages[5:])

    home.run(story())


HOOK = "%3Cscript%3Ealert(1)%3C/script%3E%22%27"
REFLECTORS = (
    *("/.ztproxy/sign_in?rd=", "/.ztproxy/sign_in?by_hand=", "/.ztproxy/start/demo?rd=", "/.ztproxy/start/"),
    *("/.ztproxy/callback/demo?state=", "/.ztproxy/callback/demo?error=access_denied&error_description="),
    *("/.ztproxy/callback/demo?error=", "/.ztproxy/callback/", "/.ztproxy/authorize?app=", "/.ztproxy/"),
    *("/.ztproxy/authorize?bind=", "/.ztproxy/ticket?code=", "/.ztproxy/signed_out?state=", "/admin/"),
    *("/.ztproxy/sign_out?next=", "/.ztproxy/apps?q=", "/.ztproxy/session?x=", "/.ztproxy/devices?x="),
)


def test_s24_pages_of_ours_reflect_nothing_and_are_never_framed(home: House, alice: str) -> None:
    fields = [CLOSE, *(f"{name}: {value}".encode() for name, value in NAVIGATION.items())]
    fields += [b'User-Agent: <script>alert(1)</script>"', b'Referer: https://evil.test/<script>alert(1)"']
    for cookie in ([], [f"Cookie: {alice}".encode()]):
        sendings = [Sending(get(*fields, *cookie, target=(one + HOOK).encode()), "tls") for one in REFLECTORS]
        answers = home.send_all(sendings)
        for reflector, answer in zip(REFLECTORS, answers, strict=True):
            assert b"<script>alert" not in answer.data, reflector
            assert b"alert(1)" not in answer.body, reflector
            if b"text/html" in answer.head:
                (policy,) = answer.fields("Content-Security-Policy")
                assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy, reflector
                assert answer.fields("X-Frame-Options") == ["DENY"]
                assert answer.fields("X-Content-Type-Options") == ["nosniff"]
        assert sum(b"text/html" in answer.head for answer in answers) > 5


FORGED_SIGN_OUTS = {
    "an image": (b"GET", [b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Dest: image"]),
    "a link": (b"GET", [b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate"]),
    "a form of another site": (b"POST", [b"Origin: https://evil.test", b"Sec-Fetch-Site: cross-site"]),
    "a form of a sibling": (b"POST", [b"Origin: https://other.test", b"Sec-Fetch-Site: same-site"]),
    "a form of nowhere": (b"POST", [b"Origin: null"]),
    "a form in plain": (b"POST", [b"Origin: http://app.test"]),
    "a form that says nothing": (b"POST", []),
}


@pytest.mark.parametrize("name", FORGED_SIGN_OUTS)
def test_s25_nobody_is_signed_out_by_another_site(home: House, alice: str, name: str) -> None:
    method, fields = FORGED_SIGN_OUTS[name]
    lines = (method + b" /.ztproxy/sign_out HTTP/1.1", HOST, CLOSE, f"Cookie: {alice}".encode(), *fields)
    with home.wire("tls") as wire:
        heard = wire.send(b"\r\n".join((*lines, b"", b""))).rest()
    assert heard.status == (200 if method == b"GET" else 403)
    assert heard.fields("Set-Cookie") == []
    assert home.get("/u", alice).status == 200


# ---- identities ------------------------------------------------------------------------------------------

PROBES = (
    *("User-Agent: kube-probe/1.29", "User-Agent: GoogleHC/1.0", "User-Agent: ELB-HealthChecker/2.0"),
    *("User-Agent: Prometheus/2.45", "X-Health-Check: true", "X-Forwarded-Uri: /public/x"),
    *("X-Original-URL: /public/x", "X-Original-Uri: /public/x", "X-Rewrite-URL: /public/x"),
    *("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1;host=app.test"),
    *("X-Forwarded-Host: localhost", "X-Forwarded-Method: OPTIONS", "X-HTTP-Method-Override: OPTIONS"),
    *("X-Forwarded-User: carol", "X-Forwarded-Email: carol@example.com", "Remote-User: carol"),
    *(
        "Client-Cert: :MIIB:",
        "X-Forwarded-Client-Cert: Hash=0;URI=spiffe://corp.test/x",
        "X-WEBAUTH-USER: carol",
    ),
    *("Authorization: Bearer carol", "Authorization: Basic Y2Fyb2w6Y2Fyb2w=", "X-SSL-Client-Verify: SUCCESS"),
    *("Access-Control-Request-Method: GET", "Upgrade: websocket", "Referer: https://app.test/public/x"),
)


@pytest.mark.parametrize("person", ["nobody", "alice"])
def test_i18_no_field_opens_a_door(home: House, alice: str, person: str) -> None:
    """What only administrators may open stays shut to a stranger and to alice, whatever they say of
    themselves, and whatever they say they ask for."""
    cookie = [f"Cookie: {alice}".encode()] if person == "alice" else []
    before = len(home.app.requests)
    sendings = [
        Sending(get(CLOSE, *cookie, field.encode(), target=target))
        for field in PROBES
        for target in (b"/admin", b"/admin?x=/public/x", b"/admin/public/x")
    ]
    assert {answer.status for answer in home.send_all(sendings)} == {403 if person == "alice" else 401}
    assert home.app.requests[before:] == []


def test_i21_i22_an_assertion_that_was_captured(home: House, alice: str) -> None:
    """An app that echoes gives its visitors' assertions away; they open nothing here, and pass for nobody."""
    home.get("/u", home.sign_in("bob"))
    found = re.search(rb"X-Ztproxy-Assertion: (\S+)\r\n", home.app.requests[-1])
    assert found is not None
    before = len(home.app.requests)
    for shown in (b"Authorization: Bearer " + found[1], b"X-Ztproxy-Assertion: " + found[1]):
        (answer,) = home.send_all([Sending(get(CLOSE, shown))])
        assert answer.status == 401
    assert home.app.requests[before:] == []
    assert home.get("/u", alice, fields=f"X-Ztproxy-Assertion: {found[1].decode()}\r\n").status == 200
    assert who(home.app.requests[-1]) == "alice"
    assert (
        home.app.requests[-1].count(b"X-Ztproxy-Assertion: ") == 1 and found[1] not in home.app.requests[-1]
    )


def test_i28_a_request_inside_a_tunnel(home: House, alice: str) -> None:
    """Bytes of a tunnel are bytes: they are read as no request, and nothing is said in their name."""
    smuggled = get(b"X-Ztproxy-User: admin", b"X-Forwarded-Email: admin@example.com", target=b"/admin")
    before = len(home.app.requests)
    with home.app.playing(echo), home.wire("tls") as wire:
        opened(wire.send(asking(f"Cookie: {alice}".encode(), ORIGIN, *ASKED)))
        wire.until(b"hello")
        assert wire.send(smuggled).until(b"\r\n\r\n") == smuggled.upper()
        wire.send(b"bye").rest()
    assert len(home.app.requests) == before + 1
    assert who(home.app.requests[-1]) == "alice"


TRIED = (
    Tried(
        "Cookies and sessions",
        "random handles, and a real one with any one character changed",
        GUESSES + CHANGED,
        GUESSES + CHANGED,
        "401, and nothing for the app",
    ),
    Tried(
        "Cookies and sessions",
        "cookies of ours as an app would set them",
        len(SPELLINGS),
        len(SPELLINGS),
        "left out of the answer; cookies of the app's own stay",
    ),
    Tried(
        "Cookies and sessions",
        "markup in every parameter of our pages",
        len(REFLECTORS),
        2 * len(REFLECTORS),
        "nothing of it comes back, and no page of ours may be framed",
    ),
    Tried(
        "Cookies and sessions",
        "sign-outs that another site sends",
        len(FORGED_SIGN_OUTS),
        len(FORGED_SIGN_OUTS),
        "refused, and the session stays",
    ),
    Tried(
        "Identity headers",
        "fields by which some proxy has let strangers in",
        len(PROBES),
        6 * len(PROBES),
        "401 or 403, and nothing for the app",
    ),
)
