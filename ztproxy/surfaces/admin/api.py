"""One request to the admin API, from its first check to its answer.

Knows: aiohttp's application. Promises: the checks come in one order, host, origin, who, how often, what,
role, form; every answer is JSON with the same header fields, every failure a problem document without a stack
trace. Leaves the listener (TLS, its address, case A28) to the composition root. Other pages may be added to
the router; they get the host check and the header fields, and bring their own way of knowing who asks.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Mapping
from typing import NamedTuple
from urllib.parse import unquote

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports.administration import Told
from ztproxy.surfaces.admin.access import Access
from ztproxy.surfaces.admin.asked import AnyEndpoint, Asked
from ztproxy.surfaces.admin.bodies import MAX_BODY, MAX_BULK, Form, check_text, read_body, read_query
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.endpoints import ENDPOINTS, PREFIX
from ztproxy.surfaces.admin.problems import RETRY_LATER, Kind, Problem
from ztproxy.surfaces.admin.writes import Record, entry_id, question_of
from ztproxy.surfaces.hosts import is_ours, names_of

_log = logging.getLogger("ztproxy.admin")

REQUEST_ID = web.RequestKey("request_id", str)
"""Under which a request's id is found by other pages too."""

BODY_SECONDS = 10.0
BULK_SECONDS = 60.0
_HOUSEKEEPING_SECONDS = 5.0

_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_WITH_BODY = frozenset({"POST", "PUT"})
_CHANGES = _WITH_BODY | {"DELETE"}

_KEY = re.compile(r"[!-~]{1,128}")
_JSON = re.compile(r"application/json(?:\s*;\s*charset=\"?utf-8\"?)?\s*", re.IGNORECASE)


class Found(NamedTuple):
    """An endpoint and the id in the path."""

    endpoint: AnyEndpoint
    id: str


def admin_app(desk: Desk, body_seconds: float = BODY_SECONDS) -> web.Application:
    """The API as an application for a listener of its own. A body must have come after `body_seconds`."""
    api = _Api(desk, body_seconds)
    app = web.Application(middlewares=[api.guard])
    app.router.add_route("*", PREFIX + "/{rest:(?s:.*)}", api.answer)
    app.on_response_prepare.append(api.complete)
    app.on_cleanup.append(api.end)
    return app


class _Api:
    def __init__(self, desk: Desk, body_seconds: float) -> None:
        self._desk, self._body_seconds = desk, body_seconds
        self._access = Access(desk)
        self._names = names_of(desk.hosts)
        self._later: set[asyncio.Future[object]] = set()
        self._bulk: set[str] = set()  # callers whose large body is under way

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around everything on this listener: who may call it at all, and failures as problems."""
        request[REQUEST_ID] = self._desk.new_id()
        try:
            self._check_host(request)
            return await handler(request)
        except Problem as problem:
            return _refusal(request, problem)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            known = {405: Kind.METHOD_NOT_ALLOWED, 413: Kind.TOO_LARGE, 404: Kind.NOT_FOUND}
            return _refusal(request, Problem(known.get(error.status, Kind.BAD_REQUEST)))
        except WorldError as error:
            _log.warning("request %s: %s", request[REQUEST_ID], error)
            return _refusal(request, Problem(Kind.UNAVAILABLE, "try again"))
        except Exception:
            _log.exception("request %s", request[REQUEST_ID])
            return _refusal(request, Problem(Kind.INTERNAL, "the log knows more, by the request's id"))

    async def answer(self, request: web.Request) -> web.Response:
        """A request to the API."""
        _check_origin(request)
        changes = request.method in _CHANGES
        try:
            caller = await self._access.caller(request)
        except WorldError as error:
            _log.warning("request %s: %s", request[REQUEST_ID], error)
            kind = Kind.NOT_APPLIED if changes else Kind.UNAVAILABLE
            raise Problem(kind, "who asks cannot be looked up at the moment") from None
        found = _find(request)
        # What is not there is counted too: this is how often somebody asks, not what for.
        self._access.count(caller, changes=changes, ends=isinstance(found, Found) and found.endpoint.ends)
        if isinstance(found, Problem):
            raise found
        endpoint, name = found
        record = Record(self._desk.audit, caller, request[REQUEST_ID], endpoint.action)
        try:
            if endpoint.bulk:
                return await self._do_bulk(request, endpoint, name, record)
            return await self._do(request, endpoint, name, record)
        except Exception as error:
            if not endpoint.action:
                raise
            problem = _problem_of(error, record)
            await record.refused_or_failed(problem.kind, problem.field)
            raise problem from None

    async def _do_bulk(
        self, request: web.Request, endpoint: AnyEndpoint, name: str, record: Record
    ) -> web.Response:
        # INVARIANT: one large body of each caller at a time. Else a feed that is broken, or in wrong hands,
        # fills the memory of the process that revokes.
        caller = record.caller
        if caller.id in self._bulk:
            raise Problem(
                Kind.RATE_LIMITED, "another one of yours is still under way", headers={"Retry-After": "1"}
            )
        self._bulk.add(caller.id)
        try:
            return await self._do(request, endpoint, name, record)
        finally:
            self._bulk.remove(caller.id)

    async def _do(
        self, request: web.Request, endpoint: AnyEndpoint, name: str, record: Record
    ) -> web.Response:
        caller, record.target = record.caller, check_text(name, "id")
        if not endpoint.open_to(caller):
            raise Problem(Kind.FORBIDDEN, f"this needs the role {endpoint.role}")
        if endpoint.bulk:
            body = await _body(request, max(BULK_SECONDS, self._body_seconds), MAX_BULK)
            # Reading takes seconds, for which nobody else who asks is to wait.
            form = await asyncio.to_thread(_form, request, endpoint, body)
        else:
            body = await _body(request, self._body_seconds, MAX_BODY)
            form = _form(request, endpoint, body)
        key = _idempotency_key(request) if endpoint.action else ""
        question = question_of(request.method, request.raw_path, body)
        entry = entry_id(caller, key, question, self._desk.clock) if key else self._desk.new_id()
        asked = Asked(caller, record.request_id, name, form, entry, record, self._do_later)
        if key:
            return await self._once(endpoint, asked, key, question)
        return _json(msgspec.json.encode(await endpoint.handle(self._desk, asked)))

    async def _once(
        self, endpoint: AnyEndpoint, asked: Asked[Form], key: str, question: bytes
    ) -> web.Response:
        """A write under an idempotency key: done for the first such request, told to the others."""
        repeats, actor = self._desk.repeats, asked.caller.id
        try:
            told = await repeats.begin(actor, key, question)
        except ClientError as error:
            raise _not_a_repeat(error) from None
        if told is not None:
            return _json(told.body, told.status, {"Idempotency-Replayed": "true"})
        kept: Told | None = None
        try:
            shape = await endpoint.handle(self._desk, asked)
            kept = Told(200, msgspec.json.encode(shape.kept()))
        finally:
            # INVARIANT: a failure is forgotten, an unconfirmed revocation too: asking again is how it is
            # confirmed, and the entry's id makes it the same one.
            try:
                await repeats.finish(actor, key, kept)
            except WorldError as error:
                _log.warning("request %s: a repeat of it will not be known: %s", asked.request_id, error)
        return _json(msgspec.json.encode(shape))

    def _check_host(self, request: web.Request) -> None:
        hosts = request.headers.getall("Host", [])
        if _is_unix(request):  # no web page reaches a unix socket, whatever it calls it
            if len(hosts) != 1:
                raise Problem(Kind.BAD_REQUEST, "there must be one", "Host")
        elif not is_ours(hosts, self._names):
            raise Problem(Kind.WRONG_HOST, "ask by address, or name the host in the configuration", "Host")

    async def complete(self, request: web.Request, response: web.StreamResponse) -> None:
        """What every answer has."""
        for name, value in _SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers["Ztproxy-Revocation"] = "strict" if self._desk.topology().strict else "bounded"
        response.headers["X-Request-Id"] = request[REQUEST_ID]
        response.headers.popall("Server", None)  # names and versions help only whoever looks for holes

    def _do_later(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def end(self, app: web.Application) -> None:
        """Waits a little for housekeeping. It is not cancelled: that is not safe in the middle of a
        command."""
        if self._later:
            await asyncio.wait(self._later, timeout=_HOUSEKEEPING_SECONDS)


def _find(request: web.Request) -> Found | Problem:
    """The endpoint of a request, or that there is none. Steps are compared as they came: `%73essions` is not
    `sessions`."""
    steps = request.rel_url.raw_path.removeprefix(PREFIX).split("/")
    methods = []
    for endpoint in ENDPOINTS:
        wanted = endpoint.path.split("/")
        if len(wanted) != len(steps):
            continue
        if all(one == step or (one == "{id}" and step) for one, step in zip(wanted, steps, strict=True)):
            if endpoint.method == request.method:
                name = steps[wanted.index("{id}")] if "{id}" in wanted else ""
                return Found(endpoint, unquote(name, errors="surrogateescape"))
            methods.append(endpoint.method)
    if methods:
        return Problem(Kind.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(methods))})
    return Problem(Kind.NOT_FOUND)


def _check_origin(request: web.Request) -> None:
    """A11: a page of another site cannot have this asked, whatever credentials its visitor's browser adds by
    itself (a client certificate). Reading is refused too; nothing here is for pages."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin"):
        raise Problem(Kind.CROSS_SITE, "it came from another site", "Sec-Fetch-Site")
    origins = request.headers.getall("Origin", [])
    if any(origin.lower() != f"{request.scheme}://{request.host}".lower() for origin in origins):
        raise Problem(Kind.CROSS_SITE, "it came from another site", "Origin")


def _idempotency_key(request: web.Request) -> str:
    """The key, "" where there is none."""
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return ""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise Problem(Kind.INVALID, "it is one word of at most 128 printable characters", "Idempotency-Key")
    return keys[0]


def _not_a_repeat(error: ClientError) -> Problem:
    if error.reason is Reason.IDEMPOTENCY_PENDING:
        return Problem(Kind.IDEMPOTENCY_PENDING, "try again", "Idempotency-Key", headers=RETRY_LATER)
    return Problem(Kind.IDEMPOTENCY_MISMATCH, "take another key", "Idempotency-Key")


async def _body(request: web.Request, seconds: float, most: int) -> bytes:
    """The body of a POST or PUT; nothing else may have one (RFC 9110 9.3.1, 9.3.5: it would mean nothing)."""
    if request.method not in _WITH_BODY:
        if request.body_exists:
            raise Problem(Kind.BAD_REQUEST, f"a {request.method} has no body here")
        return b""
    # A form of another site can be sent as text/plain without asking; JSON cannot (A11).
    types = request.headers.getall("Content-Type", [])
    if len(types) != 1 or not _JSON.fullmatch(types[0]):
        raise Problem(Kind.MEDIA_TYPE, "send it as `application/json`", "Content-Type")
    if "Content-Encoding" in request.headers:
        raise Problem(Kind.MEDIA_TYPE, "send it as it is", "Content-Encoding")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            if (request.content_length or 0) <= most:
                async for part in request.content.iter_any():
                    body += part
                    if len(body) > most:
                        break
    except TimeoutError:
        raise Problem(Kind.TIMEOUT, "the body did not come") from None
    if (request.content_length or len(body)) > most:
        raise Problem(Kind.TOO_LARGE, f"a body has at most {most} bytes")
    return bytes(body)


def _form(request: web.Request, endpoint: AnyEndpoint, body: bytes) -> Form:
    form: type[Form] = endpoint.form
    query = request.rel_url.query.items()
    if endpoint.method not in _WITH_BODY:
        return read_query(query, form)
    if query:
        problem = f"a {endpoint.method} has its fields in the body"
        raise Problem(Kind.INVALID, problem, next(iter(query))[0])
    return read_body(body, form, texts=not endpoint.bulk)


def _is_unix(request: web.Request) -> bool:
    its = None if request.transport is None else request.transport.get_extra_info("socket")
    return its is not None and its.family == socket.AF_UNIX


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=body, headers={"Content-Type": "application/json", **(headers or {})}
    )


def _problem_of(error: Exception, record: Record) -> Problem:
    """What became of a write that raised."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, WorldError):
        _log.warning("request %s: %s", record.request_id, error)
        if record.begun:
            return Problem(Kind.UNAVAILABLE, "it may or may not be done; look before trying again")
        return Problem(Kind.NOT_APPLIED, "nothing was done, try again")
    _log.error("request %s", record.request_id, exc_info=error)
    return Problem(Kind.INTERNAL, "the log knows more, by the request's id")


def _refusal(request: web.Request, problem: Problem) -> web.Response:
    response = web.Response(
        status=problem.kind.status,
        body=problem.document(request[REQUEST_ID]),
        headers={"Content-Type": "application/problem+json", **problem.headers},
    )
    if not request.content.is_eof():  # the rest of a body that nobody will read
        response.force_close()
    return response
