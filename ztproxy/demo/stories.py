"""What ztproxy is for, as stories that are walked over real HTTP against a running demo.

Knows: who may do what in `demo.yaml`, and what a visitor must see. Promises: a story either happened as told
or says what was seen instead; each is independent of the others but for the provider and the apps they share.
Leaves starting the demo and printing to its caller.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import aiohttp

from ztproxy.demo.people import METHODS
from ztproxy.demo.running import Demo
from ztproxy.demo.visitor import NAVIGATION, Page, Visitor
from ztproxy.gateway.known import FRESH

Walk = Callable[[Demo], Awaitable[None]]


class Story(NamedTuple):
    """`told` is one line of English, `walk` raises when it is not true."""

    told: str
    walk: Walk


class Result(NamedTuple):
    """`seen` is empty when the story happened as told."""

    story: Story
    seen: str


class NotSo(Exception):
    """Something else than the story tells was seen."""


async def walk_all(demo: Demo, stories: Sequence[Story] = ()) -> AsyncIterator[Result]:
    """Walks every story (or those given), one after the other, whatever became of those before."""
    for story in stories or STORIES:
        try:
            await story.walk(demo)
        except NotSo as error:
            yield Result(story, str(error))
        except Exception as error:
            yield Result(story, f"{type(error).__name__}: {error}")
        else:
            yield Result(story, "")


def _so(what: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise NotSo(f"{what} is {seen!r}, not {expected!r}")


def _true(fact: bool, otherwise: str) -> None:
    if not fact:
        raise NotSo(otherwise)


async def _soon(what: str, look: Callable[[], Awaitable[object]], expected: object) -> None:
    """A worker relies on a session it has read for less than a second: that long a change may take."""
    seen = await look()
    for _ in range(20):
        if seen == expected:
            return
        await asyncio.sleep(FRESH / 10)
        seen = await look()
    _so(what, seen, expected)


def _visitor(demo: Demo, person: str = "", method: str = "pwd") -> Visitor:
    return Visitor(demo.issuer, person, method)


async def _signed_in(visitor: Visitor, demo: Demo) -> Page:
    """The visitor's first page after signing in: what home's app received."""
    page = await visitor.open(demo.site.origin("home") + "/json")
    _so("the status of home", page.status, 200)
    return page


async def _apps(visitor: Visitor, demo: Demo) -> list[str]:
    """The titles on "my apps", seen from the login host."""
    page = await visitor.ask(demo.site.origin("login") + "/.ztproxy/apps")
    _so("the status of my apps", page.status, 200)
    return [app["title"] for app in page.json["apps"]]


# -- nobody is signed in ----------------------------------------------------------------------------------


async def _redirected(demo: Demo) -> None:
    async with _visitor(demo) as nobody:
        home = demo.site.origin("home")
        page = await nobody.ask(f"{home}/reports?year=2026", NAVIGATION)
        _so("the status", page.status, 302)
        _so("the way", page.location, f"{home}/.ztproxy/sign_in?rd=%2Freports%3Fyear%3D2026")


async def _program(demo: Demo) -> None:
    async with _visitor(demo) as nobody:
        page = await nobody.ask(demo.site.origin("home") + "/json")
        _so("the status", page.status, 401)
        _so("the kind of answer", page.headers.get("Content-Type"), "application/problem+json")
        _so("the reason", page.json["reasons"], ["login_required"])


async def _public(demo: Demo) -> None:
    async with _visitor(demo) as nobody:
        public = demo.site.origin("public")
        page = await nobody.ask(f"{public}/json")
        _so("the status of /json", page.status, 200)
        _so("what the app is told", page.json["assertion"]["status"], "missing")
        _so("the status of /robots.txt", (await nobody.ask(f"{public}/robots.txt")).status, 200)
        _so("the status of /private", (await nobody.ask(f"{public}/private")).status, 401)
        _so("the status of /private/x", (await nobody.ask(f"{public}/private/x")).status, 401)


async def _public_private(demo: Demo) -> None:
    private = demo.site.origin("public") + "/private/plans"
    async with _visitor(demo, "alice") as alice:
        _so("the status for alice", (await alice.open(private)).status, 200)
    async with _visitor(demo, "bob") as bob:
        _so("the status for bob", (await bob.open(private)).status, 403)


async def _no_such_host(demo: Demo) -> None:
    async with _visitor(demo) as nobody:
        page = await nobody.ask(demo.site.origin("elsewhere"), NAVIGATION)
        _so("the status", page.status, 421)


async def _keys(demo: Demo) -> None:
    async with _visitor(demo) as nobody:
        page = await nobody.ask(demo.site.jwks_url)
        _so("the status", page.status, 200)
        keys = page.json["keys"]
        _true(bool(keys) and all(key["crv"] == "P-256" for key in keys), f"no P-256 key in {keys}")
        _true(not any("d" in key for key in keys), "a private key is published")


# -- people -----------------------------------------------------------------------------------------------


async def _alice(demo: Demo) -> None:
    async with _visitor(demo, "alice") as alice:
        page = await _signed_in(alice, demo)
        assertion = page.json["assertion"]
        _so("the app's verdict on the assertion", assertion["status"], "verified")
        identity = assertion["identity"]
        _so("who the app sees", identity["email"], "alice@example.com")
        _so("her groups", identity["groups"], ["engineering"])
        _so("the audience", identity["aud"], demo.site.origin("home"))
        headers = _received(page)
        _so("the plain header", headers.get("remote-email"), ["alice@example.com"])
        _so("the route's own header", headers.get("x-demo"), ["set by the route"])
        _true("__Host-" not in str(headers.get("cookie")), "the app received our cookie")


async def _single_sign_on(demo: Demo) -> None:
    async with _visitor(demo, "alice") as alice:
        await _signed_in(alice, demo)
        before = demo.provider.hits["authorize"]
        page = await alice.open(demo.site.origin("live") + "/")
        _so("the status of live", page.status, 200)
        _so("the page", page.url, demo.site.origin("live") + "/")
        _so("further visits to the provider", demo.provider.hits["authorize"] - before, 0)


async def _denied(demo: Demo) -> None:
    async with _visitor(demo, "alice") as alice:
        await _signed_in(alice, demo)
        finance = demo.site.origin("finance")
        page = await alice.open(finance)
        _so("the status", page.status, 403)
        _true("not in a group" in page.text, "the page does not say why")
        problem = (await alice.ask(f"{finance}/json")).json
        _true("group_missing" in problem["reasons"], f"the reasons are {problem['reasons']}")
        _true(bool(problem["request_id"]), "there is no request id")
        _true("request" in page.text.lower(), "the page shows no request id")


async def _allowed(demo: Demo) -> None:
    async with _visitor(demo, "bob") as bob:
        page = await bob.open(demo.site.origin("finance") + "/json")
        _so("the status", page.status, 200)
        _so("who the app sees", page.json["assertion"]["identity"]["email"], "bob@example.com")


async def _stronger(demo: Demo) -> None:
    admin = demo.site.origin("admin")
    async with _visitor(demo, "carol", "pwd") as carol:
        await _signed_in(carol, demo)
        page = await carol.ask(f"{admin}/json")
        _so("the status for a program", page.status, 401)
        weak = await carol.open(f"{admin}/json")
        _true(weak.status in (401, 403), f"with a password again the status is {weak.status}")
        carol.method = "phr"
        page = await carol.open(f"{admin}/json")
        _so("the status with a security key", page.status, 200)
        identity = page.json["assertion"]["identity"]
        _so("how the app sees she signed in", identity["acr"], METHODS[-1].acr)
        # The step-up raised the one session, so it counts at every host.

        async def at_home() -> str:
            home = await carol.open(demo.site.origin("home") + "/json")
            acr: str = home.json["assertion"]["identity"]["acr"]
            return acr

        await _soon("the same at home", at_home, METHODS[-1].acr)


async def _nothing(demo: Demo) -> None:
    async with _visitor(demo, "mallory") as mallory:
        page = await mallory.open(demo.site.origin("home"))
        _so("the status of home", page.status, 403)
        _so("her apps", await _apps(mallory, demo), [])


async def _my_apps(demo: Demo) -> None:
    expected = {
        "alice": ["Home", "Live"],
        "bob": ["Home", "Live", "Finance"],
        "carol": ["Home", "Live", "Administration"],
    }
    for person, apps in expected.items():
        async with _visitor(demo, person) as visitor:
            await _signed_in(visitor, demo)
            _so(f"the apps of {person}", await _apps(visitor, demo), apps)


async def _signed_out(demo: Demo) -> None:
    async with _visitor(demo, "alice") as alice:
        await _signed_in(alice, demo)
        await alice.open(demo.site.origin("live"))
        live_cookie = alice.cookie_header(demo.site.origin("live"))
        page = await alice.send_form(demo.site.origin("home") + "/.ztproxy/sign_out")
        _so("where it ends", page.url, demo.site.origin("login") + "/.ztproxy/signed_out")
        _so("the status of home", (await alice.ask(demo.site.origin("home"))).status, 401)
        # The cookie of the other host is still in the browser, and worth nothing any more to anybody.
        async with _visitor(demo) as thief:

            async def with_the_cookie() -> int:
                return (await thief.ask(demo.site.origin("live") + "/", live_cookie)).status

            await _soon("the status of live with the kept cookie", with_the_cookie, 401)


# -- attacks ----------------------------------------------------------------------------------------------


async def _forged_headers(demo: Demo) -> None:
    forged = {
        "X-Ztproxy-Assertion": "forged",
        "X-Forwarded-Email": "root@example.com",
        "Remote-User": "root",
        "remote-groups": "admins",
        "X-Debug": "1",
        "X-Forwarded-For": "203.0.113.9",
    }
    async with _visitor(demo, "alice") as alice:
        await _signed_in(alice, demo)
        for name in ("home", "public"):
            page = await alice.ask(demo.site.origin(name) + "/json", {"Accept": "*/*", **forged})
            _so(f"the status of {name}", page.status, 200)
            seen = json.dumps(page.json["headers"])
            for value in ("forged", "root", "admins", "203.0.113.9"):
                _true(value not in seen, f"{name}'s app received {value!r}")
            if name == "home":
                _so("who the app sees", page.json["assertion"]["identity"]["email"], "alice@example.com")
                _true("x-debug" not in _received(page), "a header the route removes arrived")


async def _hostile_paths(demo: Demo) -> None:
    async with _visitor(demo) as nobody:
        for path in (
            "/public/..%2fprivate",
            "/%2e%2e%2fprivate",
            "/private%00",
            "/a\\..\\private",
            "//private",
        ):
            page = await nobody.ask(demo.site.origin("public") + path)
            _so(f"the status of {path}", page.status, 400)


async def _foreign_origin(demo: Demo) -> None:
    async with _visitor(demo, "alice") as alice:
        await _signed_in(alice, demo)
        live = demo.site.origin("live")
        await alice.open(live)
        try:
            async with alice.http.ws_connect(
                f"{live}/ws", headers=alice.cookie_header(live), origin="http://evil.example"
            ):
                raise NotSo("the WebSocket opened")
        except aiohttp.WSServerHandshakeError as refused:
            _so("the status", refused.status, 403)


# -- what stays open --------------------------------------------------------------------------------------


async def _websocket(demo: Demo) -> None:
    async with _visitor(demo, "alice") as alice:
        await _signed_in(alice, demo)
        live = demo.site.origin("live")
        await alice.open(live)
        async with (
            asyncio.timeout(10),
            alice.http.ws_connect(f"{live}/ws", headers=alice.cookie_header(live), origin=live) as websocket,
        ):
            await websocket.send_str("hello")
            while (message := await websocket.receive_json())["type"] != "echo":
                _so("the message", message["type"], "tick")
            _so("the echo", message["text"], "hello")


async def _events(demo: Demo) -> None:
    async with _visitor(demo, "alice") as alice:
        await _signed_in(alice, demo)
        live = demo.site.origin("live")
        await alice.open(live)
        async with (
            asyncio.timeout(10),
            alice.http.get(f"{live}/events", headers=alice.cookie_header(live)) as answer,
        ):
            _so("the status", answer.status, 200)
            events = 0
            async for line in answer.content:
                events += line == b"event: tick\n"
                if events == 2:
                    return
            raise NotSo(f"the stream ended after {events} events")


def _received(page: Page) -> dict[str, list[str]]:
    """The headers the app received, by lower-case name."""
    headers: dict[str, list[str]] = {}
    received: list[Any] = page.json["headers"]
    for name, value in received:
        headers.setdefault(name.lower(), []).append(value)
    return headers


STORIES = (
    Story("who is not signed in is led to the sign-in, and the page they wanted is remembered", _redirected),
    Story("a program that is not signed in gets a 401 with a JSON problem, not a login page", _program),
    Story("alice signs in, and home's app verifies who she is", _alice),
    Story("signed in once, alice opens live without signing in again", _single_sign_on),
    Story("alice is denied at finance, with the reason and a request id", _denied),
    Story("bob is in finance and gets in", _allowed),
    Story("carol needs more than a password at admin; with a security key she gets in", _stronger),
    Story("mallory signs in and may open nothing", _nothing),
    Story("my apps lists what one may open, and nothing else", _my_apps),
    Story("identity headers a client sends never reach an app", _forged_headers),
    Story("a WebSocket opens from its own site", _websocket),
    Story("a WebSocket from a foreign site is refused with 403", _foreign_origin),
    Story("server-sent events arrive as they happen", _events),
    Story("signing out at one host signs out at all, for kept cookies too", _signed_out),
    Story("the public site opens without a sign-in, its private part does not", _public),
    Story("the private part opens for engineers only", _public_private),
    Story("a host nobody configured is refused", _no_such_host),
    Story("a path that could be read in two ways is refused with 400", _hostile_paths),
    Story("the keys to verify assertions are published, and only the public halves", _keys),
)
