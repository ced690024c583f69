"""How strongly somebody signed in, as stories: a one-time code, a security key, and what programs are told.

Knows: which apps of `demo.yaml` ask for more than a password. Promises: every step-up goes through the
provider's real questions. Leaves the judging to `telling`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ztproxy.demo.people import METHODS
from ztproxy.demo.provider import SignInFailed
from ztproxy.demo.running import Demo
from ztproxy.demo.security_key import SecurityKey
from ztproxy.demo.telling import NotSo, Story, a_visitor, signed_in, so, true
from ztproxy.gateway.known import FRESH

PASSWORD, CODE, KEY = METHODS


async def soon(what: str, look: Callable[[], Awaitable[object]], expected: object) -> None:
    """A worker reads a session, or a device, again in the background, so it sees one that became stronger a
    little later. What ends a session is never late: no story waits for that."""
    seen = await look()
    for _ in range(20):
        if seen == expected:
            return
        await asyncio.sleep(FRESH / 10)
        seen = await look()
    so(what, seen, expected)


async def _one_time_code(demo: Demo) -> None:
    finance, home = demo.site.origin("finance"), demo.site.origin("home")
    async with a_visitor(demo, "bob") as bob:
        first = (await signed_in(bob, demo)).json["assertion"]["identity"]
        bob.method = CODE.id
        page = await bob.open(f"{finance}/json")
        so("the status of finance", page.status, 200)
        identity = page.json["assertion"]["identity"]
        so("how finance sees he signed in", identity["acr"], CODE.acr)
        so("whether it is the same session", identity["sid"], first["sid"])

        async def at_home() -> object:
            return (await bob.open(f"{home}/json")).json["assertion"]["identity"]["acr"]

        await soon("the same at home", at_home, CODE.acr)


async def _password_again(demo: Demo) -> None:
    async with a_visitor(demo, "bob") as bob:
        await signed_in(bob, demo)
        page = await bob.open(demo.site.origin("finance"))
        true(page.status in (401, 403), f"with a password again the status is {page.status}")
        so("the status of home", (await bob.ask(demo.site.origin("home"))).status, 200)


async def _program(demo: Demo) -> None:
    async with a_visitor(demo, "bob") as bob:
        await signed_in(bob, demo)
        finance = demo.site.origin("finance")
        # A page of ours asks for no rank, so that his script has a session at this host, a weak one.
        so("the status of his session", (await bob.open(f"{finance}/.ztproxy/session")).status, 200)
        page = await bob.ask(f"{finance}/json")
        so("the status", page.status, 401)
        challenge = page.headers.get("WWW-Authenticate", "")
        true('error="insufficient_user_authentication"' in challenge, f"the challenge is {challenge}")
        true(CODE.acr in challenge, f"the challenge does not ask for {CODE.acr}: {challenge}")
        so("the acr values in the body", page.json["acr_values"], f"{CODE.acr} {KEY.acr}")


async def _security_key(demo: Demo) -> None:
    home = demo.site.origin("home")
    async with a_visitor(demo, "alice", KEY.id) as alice:
        page = await signed_in(alice, demo)
        so("how the app sees she signed in", page.json["assertion"]["identity"]["acr"], KEY.acr)
    async with a_visitor(demo, "alice", KEY.id) as impostor:
        impostor.key = SecurityKey()  # has her password, and a key that is not hers
        try:
            await impostor.open(home)
        except SignInFailed:
            so("the status of home", (await impostor.ask(home)).status, 401)
        else:
            raise NotSo("a key that nobody registered signs alice in")


ASSURANCE = (
    Story(
        "finance asks bob for a one-time code; with it the one session is worth more everywhere",
        _one_time_code,
    ),
    Story("the password again is no one-time code: finance stays shut", _password_again),
    Story("bob's script is told what is missing, as RFC 9470 says it", _program),
    Story("alice's security key signs her in, another key with her password does not", _security_key),
)
