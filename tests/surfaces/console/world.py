"""The console on a real socket, beside the API it shares a listener with, and a browser without JavaScript.

`Browser` follows no rule of its own making: it keeps the cookie, sends the forms it finds in a page as they
stand there, and says where they come from.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.surfaces.admin.world import ROLES, Answer, World
from ztproxy.core.identity import JSON
from ztproxy.gateway.ports.administration import Role
from ztproxy.surfaces.admin.access import Caller
from ztproxy.surfaces.admin.api import admin_app
from ztproxy.surfaces.console.app import add_console
from ztproxy.surfaces.console.entrance import ASSERTION, COOKIE, Links, People, Person
from ztproxy.surfaces.pages import Branding, Pages

SITE = "https://admin.test"
ISSUER = "https://login.test"

Header = tuple[str, str]


@dataclass
class Form:
    """A form of a page, as a browser would send it when nothing is typed or ticked."""

    action: str = ""
    method: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: list[str] = field(default_factory=list)
    ticks: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.text = ""
        self._open: Form | None = None
        self._button = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        its = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = Form(its["action"], its.get("method", "get"))
            self.forms.append(self._open)
        elif tag == "input" and self._open is not None:
            if its.get("type") == "checkbox" and "checked" not in its:
                self._open.ticks.append(its["value"])
            else:
                self._open.fields.append((its["name"], its.get("value", "")))
        elif tag == "button":
            self._button = True
        elif tag == "a":
            self.links.append(its["href"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
        self._button = self._button and tag != "button"
        if tag in ("dt", "dd", "th", "td", "li", "p"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._button and self._open is not None:
            self._open.buttons.append(data)


@dataclass
class Page:
    """An answer, read as a browser reads it."""

    answer: Answer

    def __post_init__(self) -> None:
        self.html = self.answer.body.decode()
        self._read = _Reader()
        self._read.feed(self.html)

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def text(self) -> str:
        return " ".join(self._read.text.split())

    @property
    def links(self) -> list[str]:
        return self._read.links

    @property
    def forms(self) -> list[Form]:
        return self._read.forms

    def form(self, action: str) -> Form:
        """The one that is sent there."""
        (found,) = [one for one in self.forms if one.action == action]
        return found


class Console(World):
    """`records` are the recent decisions, None where they are not kept. `persons` is whom an assertion
    names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.records: list[dict[str, JSON]] | None = []
        self.persons: dict[str, Person] = {}
        self.people = People({}, {})
        self.report: dict[str, Any] = {"number": 0}
        self.links = Links(self.state)
        self.desk = replace(self.desk, decisions=self.recent)

    async def recent(self, limit: int) -> list[dict[str, JSON]]:
        return (self.records or [])[:limit]

    async def status(self) -> dict[str, Any]:
        self._maybe()
        return self.report

    async def token_caller(self, role: Role) -> Caller:
        token = await self.tokens.find(self.secrets[role])
        assert token is not None
        return Caller(f"token:{token.id}", token.name, token.role, "token", token.expires_at)

    async def link(self, role: Role = "operator") -> str:
        return await self.links.make(await self.token_caller(role))

    async def enter(self, role: Role = "operator") -> Browser:
        """A browser that came by a link."""
        browser = Browser(self)
        page = await browser.get(await self.link(role))
        await browser.send(page.form("/console/enter"))
        assert browser.cookie
        return browser

    def person(self, *groups: str, assertion: str = "good", **more: Any) -> Browser:
        """A browser behind ztproxy, whose requests carry the assertion of a person."""
        plain = {"subject": "carol", "session": "own-session", "email": "carol@example.com"}
        self.persons[assertion] = Person(SITE, ISSUER, groups=groups, **(plain | more))
        return Browser(self, assertion=assertion, site=SITE, host="admin.test")


@dataclass
class Browser:
    world: Console
    cookie: str = ""
    assertion: str = ""
    site: str = "http://localhost"
    host: str = "localhost"
    set_cookie: str = ""

    async def get(self, path: str, *headers: Header, method: str = "GET") -> Page:
        return await self._ask(method, path, list(headers))

    async def send(self, form: Form, *headers: Header, tick: tuple[str, ...] = (), **typed: str) -> Page:
        """Presses the button of a form; `typed` replaces what fields hold, `tick` is ticked."""
        kept = [(name, value) for name, value in form.fields if name not in typed]
        ticked = [("session", one) for one in tick]
        fields = urlencode([*kept, *ticked, *typed.items()])
        if form.method == "get":
            return await self.get(f"{form.action}?{fields}", *headers)
        return await self.post(form.action, fields.encode(), *headers)

    async def post(self, path: str, body: bytes, *headers: Header) -> Page:
        """A form's body; without `headers` of its own as a page of the console sends it."""
        own = {name.lower() for name, _ in headers}
        plain = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Origin", self.site),
            ("Sec-Fetch-Site", "same-origin"),
            ("Content-Length", str(len(body))),
        ]
        fields = [(name, value) for name, value in plain if name.lower() not in own]
        return await self._ask("POST", path, [*fields, *((n, v) for n, v in headers if v)], body)

    async def _ask(self, method: str, path: str, fields: list[Header], body: bytes = b"") -> Page:
        if self.cookie:
            fields.append(("Cookie", f"{COOKIE}={self.cookie}"))
        if self.assertion:
            fields.append((ASSERTION, self.assertion))
        hosts = [] if any(name == "Host" for name, _ in fields) else [("Host", self.host)]
        answer = await self.world.raw(f"{method} {path} HTTP/1.1", [*hosts, *fields], body)
        self.set_cookie = answer.headers.get("set-cookie", "")
        if self.set_cookie:
            self.cookie = self.set_cookie.partition(";")[0].removeprefix(f"{COOKIE}=").strip('"')
        return Page(answer)


@asynccontextmanager
async def serving(world: Console, tls: ssl.SSLContext | None = None) -> AsyncIterator[Console]:
    for role in ROLES:
        world.secrets[role], _ = await world.tokens.create(f"{role}-1", role, 86_400.0, "test")
    app = admin_app(world.desk)
    add_console(
        app,
        world.desk,
        pages=Pages(Branding("Example")),
        links=world.links,
        who=world.persons.get,
        people=lambda: world.people,
        providers=lambda: ["main", "other"],
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, lingering_time=1.0)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    world.address, world.tls = listening.getsockname(), None
    await web.SockSite(runner, listening, ssl_context=tls).start()
    try:
        yield world
    finally:
        await runner.cleanup()
