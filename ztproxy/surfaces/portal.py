"""Our own corner of every protected host: `/.ztproxy/…` and the assertion's public keys.

Knows: which path is which page, and how a connection is handed to aiohttp for one answer. Promises: exactly
one answer, then the connection ends; what was read by our own guard is what is acted on (aiohttp parses the
body, never again the target or the cookies); an exception becomes a page with a reason. Leaves the pages to
`own_pages` and `signing_in`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from aiohttp import web

from ztproxy.core.reasons import Reason
from ztproxy.core.request import Framing, Request
from ztproxy.errors import ClientError, WorldError
from ztproxy.surfaces.answers import Answer, Answers
from ztproxy.surfaces.outcome import Outcome
from ztproxy.wire.exchange import Exchange

MAX_BODY = 64 * 1024


@dataclass(slots=True)
class Asked:
    """One request for a page of ours: `params` of its query, decoded, in order; `outcome` for the log."""

    request: Request
    request_id: str
    params: list[tuple[str, str]]
    outcome: Outcome = field(default_factory=lambda: Outcome("", "portal", (), "", None, ""))

    def param(self, name: str) -> str | None:
        """A parameter given exactly once. Two of one name are two opinions, and so none."""
        found = [value for key, value in self.params if key == name]
        return found[0] if len(found) == 1 else None


Page = Callable[[Asked], Awaitable[Answer]]
Table = dict[tuple[str, tuple[str, ...]], Page]
"""By method and the path's segments, exactly as written; a last `*` stands for one segment."""


class Portal:
    """Serves the pages it is given. `failed` hears of exceptions nobody expected."""

    def __init__(self, pages: Table, answers: Answers, failed: Callable[[BaseException], None]) -> None:
        self._pages, self._answers, self._failed = pages, answers, failed

    def take(self, exchange: Exchange, request: Request) -> None:
        """Hands the connection over. Method and framing are all aiohttp is told: the rest is in `request`."""
        asked = Asked(request, exchange.request_id, _params(request.query))

        async def serve(_: web.BaseRequest) -> web.StreamResponse:
            answer = await self.answer(asked)
            exchange.tag, exchange.status, exchange.bytes_out = asked.outcome, answer.status, len(answer.body)
            response = web.Response(status=answer.status, body=answer.body)
            for name, value in answer.fields:
                response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
            response.headers.setdefault("Server", "ztproxy")
            # INVARIANT: the answer closes the connection. aiohttp would otherwise read the next request on
            # it, which would then meet aiohttp instead of the guard and the policy.
            response.force_close()
            return response

        server = web.Server(serve, keepalive_timeout=0, access_log=None, lingering_time=2.0)
        exchange.hand_over(server, _head(request))

    async def answer(self, asked: Asked) -> Answer:
        """The answer to one request, whatever happens."""
        request = asked.request
        try:
            return await self._page(request)(asked)
        except ClientError as error:
            asked.outcome = asked.outcome._replace(decision="refuse", reasons=(error.reason,))
            if error.reason in (Reason.NO_SUCH_ROUTE, Reason.NO_SUCH_HOST):
                return self._answers.missing(request, error.reason, asked.request_id)
            return self._answers.not_signed_in(request, error.reason, asked.request_id)
        except WorldError as error:
            asked.outcome = asked.outcome._replace(decision="fail", reasons=(error.reason,))
            return self._answers.failure(request, error.reason, asked.request_id)
        except Exception as error:
            self._failed(error)
            asked.outcome = asked.outcome._replace(decision="fail", reasons=(Reason.INTERNAL,))
            return self._answers.failure(request, Reason.INTERNAL, asked.request_id)

    def _page(self, request: Request) -> Page:
        segments = request.path.readings[0]
        if len(request.path.readings) > 1:
            raise ClientError(Reason.NO_SUCH_ROUTE, "a path with two readings is no page of ours")
        method = "GET" if request.method == "HEAD" else request.method
        page = self._pages.get((method, segments)) or self._pages.get((method, (*segments[:-1], "*")))
        if page is None:
            raise ClientError(Reason.NO_SUCH_ROUTE, "no page of ours")
        return page


def _params(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query[1:], keep_blank_values=True, max_num_fields=32, separator="&")


def _head(request: Request) -> bytes:
    """The head aiohttp gets to see: what it needs to read a body and to close afterwards, nothing else."""
    lines = [f"{request.method} {request.path.text} HTTP/1.1", f"Host: {request.host}", "Connection: close"]
    if request.framing is Framing.LENGTH:
        lines.append(f"Content-Length: {request.length}")
    elif request.framing is Framing.CHUNKED:
        lines.append("Transfer-Encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
