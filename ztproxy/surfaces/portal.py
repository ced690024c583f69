"""Our own corner of every protected host: `/.ztproxy/…` and the assertion's public keys.

Knows: which path is which page, and how a connection is handed to aiohttp for one answer. Promises: exactly
one answer, then the connection ends; what was read by our own guard is what is acted on (aiohttp frames the
body, and never sees target, host or cookies); an exception becomes a page with a reason; a body is read only
by the page that asks for its form, and only as far as a form may be long: what else comes is read past and
dropped. Leaves the pages to `own_pages`, `signing_in` and `logout`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from aiohttp import web

from ztproxy.core.reasons import Reason
from ztproxy.core.request import Framing, Request
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.judgement import Outcome
from ztproxy.surfaces.answers import Answer, Answers, allow
from ztproxy.wire.exchange import Exchange

MAX_PARAMS = 32
MAX_FORM = 64 * 1024
LINGER = 2.0
"""Seconds a body nobody wants is read past, so that closing does not reset the answer away (RFC 9112 9.6)."""


Params = list[tuple[str, str]]
"""Names and values, decoded, in order."""


@dataclass(slots=True)
class Asked:
    """One request for a page of ours: `params` of its query; `body` what comes behind the head, to be read
    once; `outcome` for the log."""

    request: Request
    request_id: str
    params: Params = field(default_factory=list)
    outcome: Outcome = field(default_factory=lambda: Outcome("", "portal", (), "", None, ""))
    body: AsyncIterable[bytes] | None = None

    def param(self, name: str) -> str | None:
        return once(self.params, name)

    async def form(self) -> Params:
        """The form in the body, empty where there is no body. `ClientError(HTTP_BODY)` for anything that is
        no such form, `HTTP_BODY_TOO_LARGE` for one of more than `MAX_FORM` octets."""
        request = self.request
        if request.framing is Framing.NONE or (request.framing is Framing.LENGTH and request.length == 0):
            return []
        media_type = (request.field(b"content-type") or b"").partition(b";")[0].strip().lower()
        if media_type != b"application/x-www-form-urlencoded":
            raise ClientError(Reason.HTTP_BODY, "form: of another media type")
        if request.framing is Framing.LENGTH and request.length > MAX_FORM:
            raise ClientError(Reason.HTTP_BODY_TOO_LARGE, "form: too long")
        raw = bytearray()
        assert self.body is not None  # whoever has framing has a body
        try:
            async for chunk in self.body:
                raw += chunk
                if len(raw) > MAX_FORM:
                    raise ClientError(Reason.HTTP_BODY_TOO_LARGE, "form: too long")
            return _parse(raw.decode("ascii"))
        except (OSError, RuntimeError, ValueError) as error:
            # The first two are aiohttp's for a connection that has ended, which it also has when chunks were
            # none. ValueError: not ASCII, no UTF-8, too many.
            raise ClientError(Reason.HTTP_BODY, "form: malformed, or cut short") from error


def once(params: Params, name: str) -> str | None:
    """A parameter given exactly once. Two of one name are two opinions, and so none."""
    found = [value for key, value in params if key == name]
    return found[0] if len(found) == 1 else None


Page = Callable[[Asked], Awaitable[Answer]]
Table = dict[tuple[str, tuple[str, ...]], Page]
"""By method and the path's segments, exactly as written; a last `*` stands for one segment."""


class Portal:
    """Serves the pages it is given. `failed` hears of exceptions nobody expected."""

    def __init__(self, pages: Table, answers: Answers, failed: Callable[[BaseException], None]) -> None:
        self._answers, self._failed = answers, failed
        self._pages: dict[tuple[str, ...], dict[str, Page]] = {}
        for (method, place), page in pages.items():
            methods = self._pages.setdefault(place, {})
            methods[method] = page
            if method == "GET":
                methods["HEAD"] = page

    def take(self, exchange: Exchange, request: Request) -> None:
        """Hands the connection over. Method and framing are all aiohttp is told: the rest is in `request`."""
        asked = Asked(request, exchange.request_id)
        exchange.tag = asked.outcome

        async def serve(incoming: web.BaseRequest) -> web.StreamResponse:
            asked.body = incoming.content.iter_any()
            answer = self._answers.complete(request, await self.answer(asked))
            exchange.tag, exchange.status = asked.outcome, answer.status
            exchange.bytes_out = 0 if request.method == "HEAD" else len(answer.body)
            response = web.Response(status=answer.status, body=answer.body)
            for name, value in answer.fields:
                response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
            response.headers["Server"] = "ztproxy"
            # INVARIANT: the answer closes the connection. aiohttp would otherwise read the next request on
            # it, which would then meet aiohttp instead of the guard and the policy.
            response.force_close()
            return response

        server = web.Server(serve, keepalive_timeout=0, access_log=None, lingering_time=LINGER)
        exchange.hand_over(server, _head(request))

    async def answer(self, asked: Asked) -> Answer:
        """The answer to one request, whatever happens."""
        request = asked.request
        try:
            methods = self._methods(request)
            if request.method not in methods:
                asked.outcome = asked.outcome._replace(decision="refuse", reasons=(Reason.HTTP_METHOD,))
                fields = (allow(methods),)
                return self._answers.refused(request, Reason.HTTP_METHOD, asked.request_id, fields)
            asked.params = _params(request.query)
            return await methods[request.method](asked)
        except ClientError as error:
            asked.outcome = asked.outcome._replace(decision="refuse", reasons=(error.reason,))
            about_sign_in = error.reason.startswith(("login_", "session_", "step_up_"))
            say = self._answers.not_signed_in if about_sign_in else self._answers.refused
            return say(request, error.reason, asked.request_id)
        except WorldError as error:
            asked.outcome = asked.outcome._replace(decision="fail", reasons=(error.reason,))
            return self._answers.failure(request, error.reason, asked.request_id)
        except Exception as error:
            self._failed(error)
            asked.outcome = asked.outcome._replace(decision="fail", reasons=(Reason.INTERNAL,))
            return self._answers.failure(request, Reason.INTERNAL, asked.request_id)

    def _methods(self, request: Request) -> dict[str, Page]:
        segments = request.path.readings[0]
        if len(request.path.readings) > 1:
            raise ClientError(Reason.NO_SUCH_ROUTE, "a path with two readings is no page of ours")
        methods = self._pages.get(segments) or self._pages.get((*segments[:-1], "*"))
        if methods is None:
            raise ClientError(Reason.NO_SUCH_ROUTE, "no page of ours")
        return methods


def _parse(text: str, errors: str = "strict") -> Params:
    return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARAMS, separator="&", errors=errors)


def _params(query: str) -> Params:
    try:
        return _parse(query[1:], "replace")
    except ValueError:
        raise ClientError(Reason.HTTP_TARGET, "too many parameters") from None


def _head(request: Request) -> bytes:
    """The head aiohttp gets to see: what it needs to frame a body and to close afterwards, nothing else."""
    lines = [f"{request.method} / HTTP/1.1", "Host: portal", "Connection: close"]
    if request.framing is Framing.LENGTH:
        lines.append(f"Content-Length: {request.length}")
    elif request.framing is Framing.CHUNKED:
        lines.append("Transfer-Encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
