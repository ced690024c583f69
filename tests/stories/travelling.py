"""A browser that signs in for real at the certified oidc-provider too, and what an app is told of who came.

`house.parts["node"]` is the issuer of that provider, or the issuers of several with a space between.
"""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from yarl import URL

from tests.stories.house import Guest, House
from ztproxy.demo.visitor import NAVIGATION, Page


class Traveller(Guest):
    """A guest who knows both providers' pages. `way` is where each redirect led.

    `more` is what its interactions are told beside the person and the method: see `server.mjs`.
    """

    def __init__(self, house: House, person: str, method: str = "pwd", **more: str) -> None:
        super().__init__(house, person, method)
        self.nodes = tuple(house.parts["node"].split())
        self.more, self.way = more, list[str]()

    @property
    def node(self) -> str:
        return self.nodes[0]

    @property
    def asked(self) -> list[dict[str, str]]:
        """With what the providers under Node were asked since `way` was empty."""
        starts = tuple(f"{node}/auth?" for node in self.nodes)
        return [dict(parse_qsl(urlsplit(url).query)) for url in self.way if url.startswith(starts)]

    @property
    def interactions(self) -> int:
        """How often they asked the person."""
        return sum("/interaction/" in url for url in self.way)

    def forget(self) -> None:
        """The browser's cookies of ours are deleted, and those of the providers stay."""
        self._cookies.clear()

    async def open(self, url: str) -> Page:
        for _ in range(20):
            self.way.append(url)
            if not url.startswith(self.nodes):
                page = await self.ask(url, NAVIGATION)
                if page.location.startswith(self._issuer):
                    return await super().open(page.location)
            else:
                page = await self.at_node(url)
            if not page.location:
                return page
            url = urljoin(url, page.location)
        raise AssertionError(f"too many redirects: {self.way}")

    async def at_node(self, url: str, form: dict[str, str] | None = None) -> Page:
        """A page of Node's; where it asks who is there, the answer is in the query."""
        if "/interaction/" in url:
            url += f"?{urlencode({'person': self.person, 'method': self.method, **self.more})}"
        method = "GET" if form is None else "POST"
        target = URL(url, encoded=True)
        async with self._at_provider.request(method, target, data=form, allow_redirects=False) as answer:
            return Page(url, answer.status, answer.headers, await answer.text())

    async def sign_out_at_node(self, url: str) -> Page:
        """Says yes to the provider's question, and follows where it leads."""
        page = await self.at_node(url)
        xsrf = re.search(r'name="xsrf" value="([^"]+)"', page.text)
        action = re.search(r'action="([^"]+)"', page.text)
        assert xsrf is not None and action is not None, page.text
        page = await self.at_node(unescape(action[1]), {"xsrf": xsrf[1], "logout": "yes"})
        return await self.open(urljoin(url, page.location))

    async def up_to(self, url: str, callback: str) -> str:
        """The way from `url` to a callback, which is where it begins with `callback`, and is not opened."""
        while not url.startswith(callback):
            at_node = url.startswith(self.nodes)
            page = await (self.at_node(url) if at_node else self.ask(url, NAVIGATION))
            url = urljoin(url, page.location)
        return url


def told(received: bytes) -> dict[str, Any]:
    """The claims of the assertion in a request the app received."""
    claims: dict[str, Any] = json.loads(_decoded(assertion(received).split(".")[1]))
    return claims


def assertion(received: bytes) -> str:
    """The assertion in a request the app received."""
    found = re.search(rb"X-Ztproxy-Assertion: (\S+)", received)
    assert found is not None, received
    return found[1].decode()


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "==")
