"""How sessions end, as stories: by an administrator, a lock, the provider, the person; and what is on record.

Knows: what must hold once the end is confirmed. Promises: nothing here waits or asks twice after that: the
very next request is refused, whichever worker it meets. Leaves the judging to `telling`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp

from ztproxy.adapters.audit_log import last_known
from ztproxy.adapters.keys import KeyRing
from ztproxy.core.audit import Broken, ChainKeys, read, verify_chain
from ztproxy.demo.people import ALICE, BOB, Person
from ztproxy.demo.running import Demo
from ztproxy.demo.telling import NotSo, Story, a_visitor, signed_in, so, true
from ztproxy.demo.visitor import NAVIGATION, Visitor
from ztproxy.wire.frames import POLICY_VIOLATION

_PATIENCE = 10.0
"""Seconds until something that does not happen is a failure."""


async def _revoked(demo: Demo) -> None:
    pages = [demo.site.origin(name) + path for name, path in _HERS]
    async with a_visitor(demo, "alice") as alice, a_visitor(demo, "bob") as bob:
        await signed_in(bob, demo)
        for page in pages:
            so(f"the status of {page}", (await alice.open(page)).status, 200)
        await _revoke(demo, ALICE)
        for page in pages:
            so(f"the status of {page} afterwards", (await alice.ask(page)).status, 401)
        so("the status for bob", (await bob.ask(demo.site.origin("home"))).status, 200)
        # What ended were sessions: she may sign in anew.
        await _a_moment()
        await signed_in(alice, demo)


_HERS = (
    ("home", "/json"),
    ("home", "/api"),
    ("live", "/"),
    ("public", "/private"),
    ("console", "/console/sessions"),
    ("login", "/.ztproxy/session"),
)


async def _cut(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice, asyncio.timeout(_PATIENCE):
        live = demo.site.origin("live")
        await alice.open(live)
        cookie = alice.cookie_header(live)
        async with (
            alice.http.ws_connect(f"{live}/ws", headers=cookie, origin=live, autoclose=False) as websocket,
            alice.http.get(f"{live}/events", headers=cookie) as events,
        ):
            so("the first message", (await websocket.receive_json())["type"], "tick")
            so("the first event", (await events.content.readline())[:3], b"id:")
            await _revoke(demo, ALICE)
            so("the code the WebSocket was closed with", await _close_code(websocket), POLICY_VIOLATION)
            await _ended(events)
    await _a_moment()


async def _close_code(websocket: aiohttp.ClientWebSocketResponse) -> object:
    while (message := await websocket.receive()).type is aiohttp.WSMsgType.TEXT:
        pass
    return message.data if message.type is aiohttp.WSMsgType.CLOSE else message.type


async def _ended(answer: aiohttp.ClientResponse) -> None:
    try:
        async for _ in answer.content:
            pass
    except aiohttp.ClientError:
        pass  # cut off, and honestly so: an app's own end would look otherwise


async def _locked(demo: Demo) -> None:
    home, message = demo.site.origin("home"), "Your account is being looked at. Call 4711."
    async with a_visitor(demo, "bob") as bob:
        await signed_in(bob, demo)
        locked = await demo.admin.lock(
            "deny",
            "user",
            BOB.sub,
            demo.issuer,
            expires_in=600,
            message=message,
            reason="a lost laptop",
        )
        _confirmed("the lock", locked)
        try:
            page = await bob.ask(home, NAVIGATION)
            so("the status of home", page.status, 403)
            true(message in page.text, "the page does not show the message")
            true("laptop" not in page.text, "the page shows the reason, which is for the record")
            problem = (await bob.ask(f"{home}/json")).json
            so("the message for a program", problem.get("message"), message)
            async with a_visitor(demo, "bob") as again:
                so("the status after signing in anew", (await again.open(home)).status, 403)
        finally:
            lifted = await demo.admin.lift(locked.body["id"])
        _confirmed("the lift", lifted)
        so("the status of home afterwards", (await bob.ask(home, NAVIGATION)).status, 200)


async def _by_provider(demo: Demo) -> None:
    async with a_visitor(demo, "alice") as alice, a_visitor(demo, "alice") as elsewhere:
        await signed_in(alice, demo)
        await signed_in(elsewhere, demo)
        page = await alice.submit(await alice.open(f"{demo.issuer}/logout"))
        true("signed out" in page.text, f"the provider says {page.status}")
        so("the status of home", (await alice.ask(demo.site.origin("home"))).status, 401)
        so("the status in another browser", (await elsewhere.ask(demo.site.origin("home"))).status, 200)


async def _everywhere(demo: Demo) -> None:
    home = demo.site.origin("home")
    async with a_visitor(demo, "alice") as here, a_visitor(demo, "alice") as there:
        await signed_in(here, demo)
        await signed_in(there, demo)
        await here.submit(await here.open(f"{home}/.ztproxy/sign_out"), everywhere="1")
        so("the status in this browser", (await here.ask(home)).status, 401)
        so("the status in the other browser", (await there.ask(home)).status, 401)
    await _a_moment()


async def _console(demo: Demo) -> None:
    console = demo.site.origin("console") + "/console"
    async with a_visitor(demo, "bob") as bob, a_visitor(demo, "carol", "mfa") as carol:
        await signed_in(bob, demo)
        session = await _session(bob, demo)
        page = await carol.open(f"{console}/sessions?text={BOB.email}")
        so("the status of the console", page.status, 200)
        true(f'href="/console/sessions/{session}"' in page.text, "bob's session is not listed")
        page = await carol.open(f"{console}/revoke?kind=session&name={session}")
        true("This ends 1 session of bob@example.com." in page.text, "the page does not count")
        so("the status for bob before she confirms", await _home(bob, demo), 200)
        page = await carol.submit(page, reason="a story")
        true("It holds everywhere, and met 1 session." in page.text, f"she is told {page.status}")
        so("the status for bob afterwards", await _home(bob, demo), 401)
        so("the status for carol", (await carol.ask(f"{console}/sessions")).status, 200)


async def _looking(demo: Demo) -> None:
    console = demo.site.origin("console")
    async with a_visitor(demo, "alice") as alice:
        page = await alice.open(console)
        so("the status for alice", page.status, 200)
        true("alice@example.com</bdi>, viewer" in page.text, "the console does not call her a viewer")
        page = await alice.open(f"{console}/console/revoke?kind=session&name={await _session(alice, demo)}")
        so("the status of ending sessions", page.status, 403)
    async with a_visitor(demo, "bob") as bob:
        so("the status for bob", (await bob.open(console)).status, 403)
    async with a_visitor(demo, "carol") as carol:
        await signed_in(carol, demo)
        page = await carol.ask(f"{console}/console/sessions")
        so("the status for carol without a second factor", page.status, 401)


async def _on_record(demo: Demo) -> None:
    answer = await demo.admin.revoke("session", "nobody-has-this-one", reason="for the record")
    _confirmed("the revocation", answer)
    async with a_visitor(demo, "alice") as alice:
        await signed_in(alice, demo)
        await alice.submit(await alice.open(f"{demo.issuer}/logout"))
    seen = await asyncio.to_thread(audited, demo.directory)
    for record in (
        ("local", "revocation.create", "intent"),
        ("local", "revocation.create", "done"),
        ("provider:default", "logout.back_channel", "done"),
    ):
        true(record in seen, f"the audit log does not have {record}")


def audited(directory: Path) -> set[tuple[Any, Any, Any]]:
    """Actor, action and outcome of every record of the demo's audit log, which is whole."""
    log = directory / "state/audit.log"
    known = last_known(log)
    with log.open("rb") as lines:
        found = verify_chain(lines, ChainKeys(KeyRing.load(directory / "keys.yaml").records))
    if isinstance(found, Broken):
        raise NotSo(f"line {found.line} of the audit log {found.why}")
    true(known is not None and found.link.number >= known.number, "the end of the audit log is missing")
    records = map(read, log.read_bytes().splitlines(keepends=True))
    fields = [one.fields for one in records if one is not None]
    return {(one.get("actor"), one.get("action"), one.get("outcome")) for one in fields}


async def _revoke(demo: Demo, person: Person) -> None:
    answer = await demo.admin.revoke("user", person.sub, demo.issuer, reason="a story")
    _confirmed("the revocation", answer)
    true(answer.body["matched"] >= 1, "it met nobody")


async def _a_moment() -> None:
    """A provider tells in whole seconds when somebody proved themselves. Whoever was revoked as a person must
    have done so since: within the same second nobody can tell, and no person is as fast."""
    await asyncio.sleep(1.0 - time.time() % 1.0)


def _confirmed(what: str, answer: Any) -> None:
    true(answer.confirmed, f"{what} was not confirmed: {answer.status} {answer.body}")


async def _home(visitor: Visitor, demo: Demo) -> int:
    return (await visitor.ask(demo.site.origin("home") + "/json")).status


async def _session(visitor: Visitor, demo: Demo) -> str:
    """The public id of the visitor's session."""
    page = await visitor.ask(demo.site.origin("login") + "/.ztproxy/session")
    session: str = page.json["sid"]
    return session


ENDINGS = (
    Story("an administrator ends alice's sessions: her very next request at every host is refused", _revoked),
    Story("with her session, alice's WebSocket is closed with 1008, and her event stream ends", _cut),
    Story("who is locked out reads why, and is let in again when the lock is lifted", _locked),
    Story("signing out at the provider ends the session here", _by_provider),
    Story("signing out everywhere ends the session of a second browser", _everywhere),
    Story("carol sees who is signed in, and ends a session after the console has counted it", _console),
    Story("alice may look at the console and end nothing, bob may not open it", _looking),
    Story("what was ended is in the audit log, and the log is whole", _on_record),
)
