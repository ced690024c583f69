"""One request to the console, from its first check to its page.

Knows: aiohttp's application. Promises: the checks come in one order: host (by the API's guard), who, where
from, how often, what, role, form; every answer is a page under a policy that allows the console's own style
sheet and script and nothing else, every failure too. Leaves the listener to the composition root.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

from aiohttp import web

from ztproxy.core.rates import Rate
from ztproxy.errors import WorldError
from ztproxy.gateway.rates import Buckets
from ztproxy.surfaces.admin.access import Access
from ztproxy.surfaces.admin.api import REQUEST_ID
from ztproxy.surfaces.admin.bodies import check_text
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.times import moment
from ztproxy.surfaces.admin.writes import Record
from ztproxy.surfaces.console import devices, locks, revoking, sessions, watching
from ztproxy.surfaces.console.asked import Ask, Page, Room, Sheet
from ztproxy.surfaces.console.assets import Assets
from ztproxy.surfaces.console.entrance import (
    COOKIE,
    PREFIX,
    Entrance,
    Links,
    People,
    Visitor,
    Who,
    check_from,
    check_key,
    own_site,
    stranger,
)
from ztproxy.surfaces.console.forms import Fields, read_form
from ztproxy.surfaces.console.views import plain
from ztproxy.surfaces.pages import Pages

_log = logging.getLogger("ztproxy.admin")

ENTERING_PER_SECOND = 5
"""Links tried for one address; ten times as many at once. 256 bits are not guessed; this spares the store."""
_ENTERING = Rate(ENTERING_PER_SECOND, 1.0, 10 * ENTERING_PER_SECOND)

_HOUSEKEEPING_SECONDS = 5.0

# fmt: off
TABLE: tuple[Page, ...] = (
    Page("GET", "/sessions", "viewer", sessions.show_list),
    Page("GET", "/sessions/{id}", "viewer", sessions.show_one),
    Page("GET", "/revoke", "operator", revoking.confirm_target),
    Page("POST", "/revoke/confirm", "operator", revoking.confirm_selected),
    Page("POST", "/revoke", "viewer", revoking.revoke),
    Page("GET", "/devices", "viewer", devices.show_list),
    Page("GET", "/devices/{id}", "viewer", devices.show_one),
    Page("GET", "/devices/status/confirm", "operator", devices.confirm_status),
    Page("POST", "/devices/status", "viewer", devices.set_status),
    Page("GET", "/locks", "viewer", locks.show_list),
    Page("GET", "/locks/new", "operator", locks.show_new),
    Page("POST", "/locks/confirm", "operator", locks.confirm_new),
    Page("POST", "/locks", "viewer", locks.make),
    Page("GET", "/locks/lift", "operator", locks.confirm_lift),
    Page("POST", "/locks/lift", "viewer", locks.lift),
    Page("GET", "/decisions", "viewer", watching.show_decisions),
    Page("GET", "/decisions/rows", "viewer", watching.show_rows),
    Page("GET", "/status", "viewer", watching.show_status),
)
# fmt: on
"""Where a POST says `viewer`, the API's table says who may, and the refusal is on record."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With `no-referrer` browsers send forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# htmx keeps no page in the browser's storage, evaluates nothing, runs no script that comes with a part of a
# page, and adds no style of its own.
_HTMX = json.dumps(
    {
        "allowEval": False,
        "allowScriptTags": False,
        "historyCacheSize": 0,
        "includeIndicatorStyles": False,
        "refreshOnHistoryMiss": True,
        "selfRequestsOnly": True,
    }
)


def add_console(
    app: web.Application,
    desk: Desk,
    *,
    pages: Pages,
    links: Links,
    who: Who,
    people: Callable[[], People],
    providers: Callable[[], Sequence[str]],
) -> None:
    """Adds the console to the application of the admin API, whose guard checks the host."""
    console = _Console(desk, pages, links, Entrance(desk, who, people), providers)
    for path in ("/", PREFIX, PREFIX + "/{rest:.*}"):
        app.router.add_route("*", path, console.answer)
    app.on_cleanup.append(console.end)


class _Console:
    def __init__(
        self,
        desk: Desk,
        pages: Pages,
        links: Links,
        entrance: Entrance,
        providers: Callable[[], Sequence[str]],
    ) -> None:
        self._desk, self._pages, self._links, self._entrance = desk, pages, links, entrance
        self._assets = Assets(pages)
        self._access = Access(desk)
        self._tries = Buckets(desk.monotonic)
        self._later: set[asyncio.Future[object]] = set()
        self._room = Room(desk, providers, self._do_later)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Whatever happens, a page."""
        visitor: Visitor | None = None
        try:
            path = request.rel_url.raw_path.removeprefix(PREFIX)
            if path.startswith("/static/"):
                return self._asset(request, path.removeprefix("/static/"))
            if path == "/enter":
                return await self._enter(request)
            visitor = await self._entrance.visitor(request)
            if path in ("", "/"):
                _check_method(request, "GET")
                return _see_other("/sessions")
            return await self._page(request, path, visitor)
        except Problem as problem:
            return self._refusal(request, problem, visitor)
        except WorldError as error:
            _log.warning("request %s: %s", request[REQUEST_ID], error)
            away = Problem(Kind.UNAVAILABLE, "Try again in a moment.")
            return self._refusal(request, away, visitor)
        except Exception:
            _log.exception("request %s", request[REQUEST_ID])
            failed = Problem(Kind.INTERNAL, "The log knows more, by the request's id.")
            return self._refusal(request, failed, visitor)

    async def _page(self, request: web.Request, path: str, visitor: Visitor) -> web.StreamResponse:
        _check_fetch(request)
        changes = request.method == "POST"
        self._access.count(visitor.caller, changes=changes)
        if changes:
            check_from(request, visitor.site)
        if path == "/leave":
            return await self._leave(request, visitor)
        page, id = _find(request, path)
        if not visitor.caller.may(page.role):
            raise Problem(Kind.FORBIDDEN, f"This needs the role {page.role}.")
        fields = await self._fields(request, visitor)
        sheet = await page.show(self._room, Ask(visitor, request[REQUEST_ID], id, fields))
        return self._render(request, sheet, visitor)

    async def _fields(self, request: web.Request, visitor: Visitor) -> Fields:
        if request.method != "POST":
            return Fields(request.rel_url.raw_query_string)
        fields = await read_form(request)
        check_key(visitor, fields.one("form_key"))
        return fields

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        """A link shows a button, and only that spends it: whatever opens links ahead of people, a mail
        scanner or a prefetch, presses none."""
        if request.method != "POST":
            _check_method(request, "GET", "POST")
            code = Fields(request.rel_url.raw_query_string).one("code")
            return self._render(request, Sheet("console_enter.html", {"code": code}), None)
        # INVARIANT: else another site could bring somebody in as somebody else.
        check_from(request, own_site(request))
        if not self._tries.spend("enter", request.remote or "", _ENTERING).allowed:
            raise Problem(Kind.RATE_LIMITED, "Wait a moment.", headers={"Retry-After": "1"})
        caller = await self._links.take((await read_form(request)).one("code"))
        if caller is None:
            raise stranger("This link was used already, or is too old. Ask for another: `ztproxy console`.")
        value, seconds = self._entrance.visits.begin(caller)
        record = Record(self._desk.audit, caller, request[REQUEST_ID], "console.enter", caller.id)
        await record.outcome("done", {"role": caller.role, "seconds": round(seconds)})
        response = _see_other("/sessions")
        _set_cookie(request, response, value, int(seconds))
        return response

    async def _leave(self, request: web.Request, visitor: Visitor) -> web.StreamResponse:
        _check_method(request, "POST")
        await self._fields(request, visitor)
        self._entrance.visits.end(request.cookies.get(COOKIE, ""))
        response = self._render(request, Sheet("console_left.html"), None)
        _set_cookie(request, response, "", 0)
        return response

    def _asset(self, request: web.Request, name: str) -> web.StreamResponse:
        _check_method(request, "GET")
        asset = self._assets.by_name.get(name)
        if asset is None:
            raise Problem(Kind.NOT_FOUND)
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return _response(200, asset.body, asset.content_type, {**_HEADERS, **kept})

    def _render(
        self,
        request: web.Request,
        sheet: Sheet,
        visitor: Visitor | None,
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        page = self._pages.render(
            sheet.template,
            **sheet.values,
            assets=self._assets,
            htmx=_HTMX,
            visitor=visitor,
            visitor_name="" if visitor is None else plain(visitor.caller.name.removeprefix("person:")),
            visitor_until=_until(visitor),
            part=_part(request),
            request_id=request[REQUEST_ID],
        )
        response = _response(
            sheet.status, page.body, "text/html; charset=utf-8", {**_HEADERS, **(headers or {})}
        )
        if not request.content.is_eof():  # the rest of a body that nobody will read
            response.force_close()
        return response

    def _refusal(self, request: web.Request, problem: Problem, visitor: Visitor | None) -> web.Response:
        headers = dict(problem.headers)
        if "HX-Request" in request.headers:  # the whole page says it better than a part that stays as it was
            headers["HX-Refresh"] = "true"
        values: dict[str, object] = {
            "title": problem.kind.headline,
            "what": plain(problem.detail),
            "field": plain(problem.field),
            "phrase": HTTPStatus(problem.kind.status).phrase,
        }
        sheet = Sheet("console_problem.html", values, problem.kind.status)
        return self._render(request, sheet, visitor, headers)

    def _do_later(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def end(self, app: web.Application) -> None:
        """Waits a little for housekeeping. It is not cancelled: that is not safe in the middle of a
        command."""
        if self._later:
            await asyncio.wait(self._later, timeout=_HOUSEKEEPING_SECONDS)


def _find(request: web.Request, path: str) -> tuple[Page, str]:
    """The page of a request, and the id in its path. Steps are compared as they came."""
    steps, methods = path.split("/"), set()
    method = "GET" if request.method == "HEAD" else request.method
    for page in TABLE:
        wanted = page.path.split("/")
        if len(wanted) != len(steps):
            continue
        if all(one == step or (one == "{id}" and step) for one, step in zip(wanted, steps, strict=True)):
            if page.method == method:
                return page, check_text(steps[-1], "id") if wanted[-1] == "{id}" else ""
            methods.add(page.method)
    if methods:
        raise Problem(Kind.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(methods))})
    raise Problem(Kind.NOT_FOUND)


def _check_method(request: web.Request, *allowed: str) -> None:
    method = "GET" if request.method == "HEAD" else request.method
    if method not in allowed:
        raise Problem(Kind.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(allowed)})


def _check_fetch(request: web.Request) -> None:
    """Another site may lead here, and may not look: a page is for a window of its own."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin") and request.headers.get("Sec-Fetch-Mode") != "navigate":
        raise Problem(Kind.CROSS_SITE, "Another site asked for this.")


def _part(request: web.Request) -> str:
    """Which part of the console a page belongs to, for its navigation."""
    return request.rel_url.raw_path.removeprefix(PREFIX).strip("/").partition("/")[0]


def _until(visitor: Visitor | None) -> str:
    end = None if visitor is None else visitor.caller.expires_at
    return "" if end is None else moment(end).strftime("%Y-%m-%d %H:%M UTC")


def _response(status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": content_type, **headers})


def _see_other(path: str) -> web.Response:
    return web.Response(status=303, headers={**_HEADERS, "Location": PREFIX + path})


def _set_cookie(request: web.Request, response: web.Response, value: str, seconds: int) -> None:
    """INVARIANT: `SameSite=Strict`: no request that another site starts has it, not even one that leads
    here."""
    response.set_cookie(
        COOKIE,
        value,
        max_age=seconds,
        path=PREFIX,
        secure=request.secure,
        httponly=True,
        samesite="Strict",
    )
