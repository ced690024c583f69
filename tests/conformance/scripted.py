"""The scriptable provider of the ported modules, and a browser that signs in there through a running ztproxy.

`Scripted` is `LyingProvider` that also keeps what each request said and lets a test forge the finished ID
token. `Visit` is one module's run: a provider of its own, so that nothing another module did is remembered,
and a browser of its own.
"""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from aiohttp import web

from tests.stories.house import Guest, House
from tests.worlds.lying_provider import LyingProvider, serving
from ztproxy.demo.visitor import NAVIGATION, Page

APP = "https://app.test"
Params = list[tuple[str, str]]

_SAME_SITE = {
    **NAVIGATION,
    "Content-Type": "application/x-www-form-urlencoded",
    "Sec-Fetch-Site": "same-origin",
}


class Scripted(LyingProvider):
    """`forge` is given each ID token as it was honestly signed."""

    def __init__(self) -> None:
        super().__init__(time.time)
        self.forge: Callable[[str], str] = lambda token: token
        self.heard: list[tuple[str, dict[str, str], dict[str, str]]] = []

    def id_token(self, nonce: str | None, **changes: Any) -> str:
        return self.forge(super().id_token(nonce, **changes))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.heard.append((request.path, dict(request.query), dict(request.headers)))
        return await super().handle(request)

    @property
    def asked_for(self) -> Counter[str]:
        """How often which document was asked for, by the last word of its path."""
        return Counter({path.rpartition("/")[2]: times for path, times in self.hits.items()})


async def serve(stack: AsyncExitStack) -> Scripted:
    provider = Scripted()
    provider.issuer = await stack.enter_async_context(serving(provider.handle))
    return provider


class Visit:
    """A browser on its way to `/u` of the app by the provider `name`; `page` is the last answer of ours."""

    def __init__(self, house: House, name: str, world: Scripted, guest: Guest) -> None:
        self.house, self.name, self.world, self.guest = house, name, world, guest
        self.asked: dict[str, str] = {}
        self.page = Page("", 0, {}, "")

    @asynccontextmanager
    async def again(self) -> AsyncIterator[Visit]:
        """The same provider, from another browser."""
        async with self.house.guest() as guest:
            yield Visit(self.house, self.name, self.world, guest)

    async def begins(self, **params: str) -> str:
        """The address at the provider where the browser is sent, empty where it is not."""
        way = f"{APP}/.ztproxy/start/{self.name}?{urlencode(params or {'rd': '/u'})}"
        self.page = await self.guest.ask(way, NAVIGATION)
        url = self.page.location
        self.asked = dict(parse_qsl(urlsplit(url).query))
        return url if url.startswith(f"{self.world.issuer}/authorize?") else ""

    async def comes_back(self, answer: Params) -> Page:
        back = f"{APP}/.ztproxy/callback/{self.name}?{urlencode(answer)}"
        self.page = await self.guest.ask(back, NAVIGATION)
        return self.page

    async def signs_in(self, changed: Callable[[Params], Params] = lambda params: params) -> Page:
        """Once through the provider; its answer may be changed on the way."""
        url = await self.begins()
        return await self.comes_back(changed(self.world.sign_in(url))) if url else self.page

    async def status(self, path: str = "/u") -> int:
        """What a program is told there, with this browser's cookie."""
        return (await self.guest.ask(f"{APP}{path}")).status

    async def is_signed_in(self, to: str = f"{APP}/u") -> None:
        """The browser was sent on with a session, and that opens the app."""
        assert self.page.status == 302 and self.guest.session(APP), self.page
        arrived = await self.guest.open(self.page.location)
        assert (arrived.status, arrived.url) == (200, to)

    async def signs_out(self) -> Page:
        url = f"{APP}/.ztproxy/sign_out"
        return await self.guest.ask(url, _SAME_SITE, method="POST", data=b"")

    async def is_told(self, token: str) -> Page:
        """A logout token, as the provider's server posts it: without cookies."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        async with self.house.guest() as server:
            url = f"{APP}/.ztproxy/logout/back/{self.name}"
            return await server.ask(
                url, form, method="POST", data=urlencode({"logout_token": token}).encode()
            )


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned(token: str) -> str:
    """The same claims under `alg: none`; the type stays."""
    header = jwt.get_unverified_header(token)
    return f"{part({**header, 'alg': 'none'})}.{part(claims_of(token))}."


def spoiled(token: str) -> str:
    """The same with another signature of the same length."""
    signed, _, signature = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[len(raw) // 2] ^= 1
    return f"{signed}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


def symmetric(token: str) -> str:
    """The same claims, signed with HS256 and a wrong secret."""
    return jwt.encode(claims_of(token), "not the secret of this client, but long enough", "HS256")
