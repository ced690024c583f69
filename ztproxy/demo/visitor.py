"""A person with a browser, without the browser: real HTTP, cookies kept as a browser keeps them.

Knows: which headers a browser sends when a page is opened, what a secure cookie of `*.localhost` is, how a
sign-in at the demo provider goes. Promises: it follows redirects only where `open` says so, and never answers
a question (sign-in) it was not told how to answer. Leaves judging what came back to the stories.

aiohttp's own cookie jar will not do: it keeps secure cookies from `http://x.localhost`, which browsers treat
as secure, and it does not know the rules of the `__Host-` prefix.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ztproxy.demo.forms import Form
from ztproxy.demo.provider import sign_in_as
from ztproxy.demo.security_key import OURS

NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
}
PROGRAM = {"Accept": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_MAX_STEPS = 20
_REFRESH = re.compile(r"0; *url=(\S+)")


class _Loopback(AbstractResolver):
    """Every name is this machine, as `*.localhost` is to a browser (RFC 6761 6.3)."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Page:
    """An answer. `url` is where it came from, after every redirect that was followed."""

    url: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")


class Visitor:
    """One browser. `person`, `method` and the security `key` are how it answers the provider's sign-in page.

    An async context manager. `issuer` is the provider's origin, `tls` what the browser trusts and which
    certificate it shows (None: what the system trusts, and no certificate).
    """

    def __init__(
        self, issuer: str, person: str = "", method: str = "pwd", tls: ssl.SSLContext | None = None
    ) -> None:
        self.person, self.method, self.key, self._tls = person, method, OURS, tls
        self._issuer = issuer
        self._cookies: dict[str, dict[str, str]] = {}

    async def __aenter__(self) -> Visitor:
        timeout = aiohttp.ClientTimeout(total=20)
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Loopback(), use_dns_cache=False, force_close=True, ssl=self._tls or True
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
        )
        # The provider's cookies are plain ones: there the ordinary jar is a browser's.
        self._at_provider = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self._at_provider.close()

    def cookie_header(self, url: str) -> dict[str, str]:
        """The Cookie header a browser would send to `url`."""
        cookies = self._cookies.get(urlsplit(url).hostname or "", {})
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}

    async def ask(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        data: bytes | None = None,
    ) -> Page:
        """One request as a program sends it; no redirect is followed. `url` is sent as it is written."""
        sent = {**(PROGRAM if headers is None else headers), **self.cookie_header(url)}
        async with self.http.request(
            method, URL(url, encoded=True), headers=sent, data=data, allow_redirects=False
        ) as answer:
            self._keep(url, answer.headers.getall("Set-Cookie", []))
            return Page(url, answer.status, answer.headers, await answer.text())

    async def open(self, url: str) -> Page:
        """Opens a page as a browser does, through redirects and, if need be, the provider's sign-in."""
        for _ in range(_MAX_STEPS):
            if url.startswith(f"{self._issuer}/authorize"):
                url = await sign_in_as(self._at_provider, url, self.person, self.method, self.key)
                continue
            if url.startswith(f"{self._issuer}/"):
                page = await self._ask_provider("GET", url)
            else:
                page = await self.ask(url, NAVIGATION)
            onward = _onward(page)
            if not onward:
                return page
            url = onward
        raise RuntimeError(f"{_MAX_STEPS} redirects, the last to `{url}`")

    async def submit(self, page: Page, **typed: str) -> Page:
        """Sends the first form of `page`, filled in with `typed`, then follows where it leads."""
        answer = await self.send(page, **typed)
        onward = _onward(answer)
        return await self.open(onward) if onward else answer

    async def send(self, page: Page, **typed: str) -> Page:
        """The same, and follows nowhere."""
        form = Form(page.text)
        if form.action is None:
            raise RuntimeError(f"`{page.url}` shows no form, but {page.status}")
        url, data = urljoin(page.url, form.action), urlencode({**form.hidden, **typed}).encode()
        if url.startswith(f"{self._issuer}/"):
            return await self._ask_provider("POST", url, data)
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
        headers = {**NAVIGATION, **_FORM, "Sec-Fetch-Site": "same-origin", "Origin": origin}
        return await self.ask(url, headers, method="POST", data=data)

    async def _ask_provider(self, method: str, url: str, data: bytes | None = None) -> Page:
        async with self._at_provider.request(
            method, URL(url, encoded=True), data=data, headers=_FORM if data else {}, allow_redirects=False
        ) as answer:
            return Page(url, answer.status, answer.headers, await answer.text())

    def _keep(self, url: str, set_cookies: list[str]) -> None:
        host = urlsplit(url).hostname or ""
        for header in set_cookies:
            name, morsel = next(iter(SimpleCookie(header).items()))
            if name.startswith("__Host-") and (
                not morsel["secure"] or morsel["path"] != "/" or morsel["domain"]
            ):
                raise RuntimeError(f"a browser would refuse this cookie: `{name}`")
            if morsel["max-age"] == "0":
                self._cookies.get(host, {}).pop(name, None)
            else:
                self._cookies.setdefault(host, {})[name] = morsel.value


def _onward(page: Page) -> str:
    """Where a page leads on by itself, if it does."""
    found = _REFRESH.fullmatch(page.headers.get("Refresh", ""))
    to = page.location or (found[1] if found else "")
    return urljoin(page.url, to) if to else ""
