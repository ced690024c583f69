"""What ztproxy is for, as stories that are walked over real HTTP against a running demo.

Knows: who may do what in `demo.yaml`, and what a visitor must see. Promises: each is independent of the
others but for the provider and the apps they share. Leaves starting the demo and printing to its caller;
stronger sign-ins to `assurance`, laptops and programs to `devices`, how sessions end to `endings`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from ztproxy.demo.assurance import ASSURANCE
from ztproxy.demo.devices import DEVICES
from ztproxy.demo.endings import ENDINGS
from ztproxy.demo.running import Demo
from ztproxy.demo.telling import NotSo, Story, a_visitor, signed_in, so, true
from ztproxy.demo.visitor import NAVIGATION, Page, Visitor


async def _apps(visitor: Visitor, demo: Demo) -> list[str]:
    """The titles on "my apps", seen from the login host."""
    page = await visitor.ask(demo.site.origin("login") + "/.ztproxy/apps")
    so("the status of my apps", page.status, 200)
    return [app["title"] for app in page.json["apps"]]


# -- nobody is signed in ----------------------------------------------------------------------------------


async def _redirected(demo: Demo) -> None:
    async with a_visitor(demo) as nobody:
        home = demo.site.origin("home")
        page = await nobody.ask(f"{home}/reports?year=2026", NAVIGATION)
        so("the status", page.status, 302)
        so("the way", page.location, f"{home}/.ztproxy/sign_in?rd=%2Freports%3Fyear%3D2026")


async def _program(demo: Demo) -> None:
    async with a_visitor(demo) as nobody:
        page = await nobody.ask(demo.site.origin("home") + "/json")
        so("the status", page.status, 401)
        so("the kind of answer", page.headers.get("Content-Type"), "application/problem+json")
        so("the reason", page.json["reasons"], ["login_required"])


async def _public(demo: Demo) -> None:
    async with a_visitor(demo) as nobody:
        public = demo.site.origin("public")
        page = await nobody.ask(f"{public}/json")
        so("the status of /json", page.status, 200)
        so("what the app is told", page.json["assertion"]["status"], "missing")
        so("the status of /robots.txt", (await nobody.ask(f"{public}/robots.txt")).status, 200)
        so("the status of /private", (await nobody.ask(f"{public}/private")).status, 401)
        so("the status of /private/x", (await nobody.ask(f"{public}/private/x")).status, 401)


async def _public_private(demo: Demo) -> None:
    private = demo.site.origin("public") + "/private/plans"
    async with a_visitor(demo, "alice") as alice:
        so("the status for alice", (await alice.open(private)).status, 200)
    async with a_visitor(demo, "bob") as bob:
        so("the status for bob", (await bob.open(private)).status, 403)


async def _no_such_host(demo: Demo) -> None:
    async with a_visitor(demo) as nobody:
        page = await nobody.ask(demo.site.origin("elsewhere"), NAVIGATION)
        so("the status", page.status, 421)


async def _keys(demo: Demo) -> None:
    async with a_visitor(demo) as nobody:
        page = await nobody.ask(demo.site.jwks_url)
        so("the status", page.status, 200)
        keys = page.json["keys"]
        true(bool(keys) and all(key["crv"] == "P-256" for key in keys), f"no P-256 key in {keys}")
        true(not any("d" in key for key in keys), "a private key is published")


# -- people -----------------------------------------------------------------------------------------------


async def _alice(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice:
        page = await signed_in(alice, demo)
        assertion = page.json["assertion"]
        so("the app's verdict on the assertion", assertion["status"], "verified")
        identity = assertion["identity"]
        so("who the app sees", identity["email"], "alice@example.com")
        so("her groups", identity["groups"], ["engineering"])
        so("the audience", identity["aud"], demo.site.origin("home"))
        headers = _received(page)
        so("the plain header", headers.get("remote-email"), ["alice@example.com"])
        so("the route's own header", headers.get("x-demo"), ["set by the route"])
        true("__Host-" not in str(headers.get("cookie")), "the app received our cookie")


async def _single_sign_on(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        before = demo.provider.hits["authorize"]
        page = await alice.open(demo.site.origin("live") + "/")
        so("the status of live", page.status, 200)
        so("the page", page.url, demo.site.origin("live") + "/")
        so("further visits to the provider", demo.provider.hits["authorize"] - before, 0)


async def _denied(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        finance = demo.site.origin("finance")
        page = await alice.open(finance)
        so("the status", page.status, 403)
        true("not in a group" in page.text, "the page does not say why")
        problem = (await alice.ask(f"{finance}/json")).json
        true("group_missing" in problem["reasons"], f"the reasons are {problem['reasons']}")
        true(bool(problem["request_id"]), "there is no request id")
        true("request" in page.text.lower(), "the page shows no request id")


async def _allowed(demo: Demo) -> None:
    async with a_visitor(demo, "bob", "mfa") as bob:
        page = await bob.open(demo.site.origin("finance") + "/json")
        so("the status", page.status, 200)
        so("who the app sees", page.json["assertion"]["identity"]["email"], "bob@example.com")


async def _nothing(demo: Demo) -> None:
    async with a_visitor(demo, "mallory") as mallory:
        page = await mallory.open(demo.site.origin("home"))
        so("the status of home", page.status, 403)
        so("her apps", await _apps(mallory, demo), [])


async def _my_apps(demo: Demo) -> None:
    expected = {
        "alice": ["Home", "Live", "Deployments", "Console"],
        "bob": ["Home", "Live", "Finance", "Payroll"],
        "carol": ["Home", "Live", "Administration", "Console"],
    }
    for person, apps in expected.items():
        async with a_visitor(demo, person) as visitor:
            await signed_in(visitor, demo)
            so(f"the apps of {person}", await _apps(visitor, demo), apps)


async def _signed_out(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        await alice.open(demo.site.origin("live"))
        live_cookie = alice.cookie_header(demo.site.origin("live"))
        page = await alice.submit(await alice.open(demo.site.origin("home") + "/.ztproxy/sign_out"))
        so("where it ends", page.url, demo.site.origin("login") + "/.ztproxy/signed_out")
        so("the status of home", (await alice.ask(demo.site.origin("home"))).status, 401)
        # The cookie of the other host is still in the browser, and worth nothing any more to anybody.
        async with a_visitor(demo) as thief:
            page = await thief.ask(demo.site.origin("live") + "/", live_cookie)
            so("the status of live with the kept cookie", page.status, 401)


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
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        for name in ("home", "public"):
            page = await alice.ask(demo.site.origin(name) + "/json", {"Accept": "*/*", **forged})
            so(f"the status of {name}", page.status, 200)
            seen = json.dumps(page.json["headers"])
            for value in ("forged", "root", "admins", "203.0.113.9"):
                true(value not in seen, f"{name}'s app received {value!r}")
            if name == "home":
                so("who the app sees", page.json["assertion"]["identity"]["email"], "alice@example.com")
                true("x-debug" not in _received(page), "a header the route removes arrived")


async def _hostile_paths(demo: Demo) -> None:
    async with a_visitor(demo) as nobody:
        for path in (
            "/public/..%2fprivate",
            "/%2e%2e%2fprivate",
            "/private%00",
            "/a\\..\\private",
            "//private",
        ):
            page = await nobody.ask(demo.site.origin("public") + path)
            so(f"the status of {path}", page.status, 400)


async def _foreign_origin(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        live = demo.site.origin("live")
        await alice.open(live)
        try:
            async with alice.http.ws_connect(
                f"{live}/ws", headers=alice.cookie_header(live), origin="http://evil.example"
            ):
                raise NotSo("the WebSocket opened")
        except aiohttp.WSServerHandshakeError as refused:
            so("the status", refused.status, 403)


# -- what stays open --------------------------------------------------------------------------------------


async def _websocket(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        live = demo.site.origin("live")
        await alice.open(live)
        async with (
            asyncio.timeout(10),
            alice.http.ws_connect(f"{live}/ws", headers=alice.cookie_header(live), origin=live) as websocket,
        ):
            await websocket.send_str("hello")
            while (message := await websocket.receive_json())["type"] != "echo":
                so("the message", message["type"], "tick")
            so("the echo", message["text"], "hello")


async def _events(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        live = demo.site.origin("live")
        await alice.open(live)
        async with (
            asyncio.timeout(10),
            alice.http.get(f"{live}/events", headers=alice.cookie_header(live)) as answer,
        ):
            so("the status", answer.status, 200)
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
    Story("bob is in finance and gets in with a one-time code", _allowed),
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
    *ASSURANCE,
    *DEVICES,
    *ENDINGS,
)
