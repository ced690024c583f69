"""ASGI 3 middleware for asyncio servers: nothing reaches the application without a valid assertion.

    app = RequireIdentity(app, Verifier(jwks_url, audience))

The application finds a `VerifiedIdentity` in `scope["ztproxy"]`. A WebSocket without one is closed with 1008
before it is accepted, which servers turn into an HTTP 403. Lifespan events pass through; a kind of connection
that is not known here does not: it would be an unguarded door.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ztproxy.verify.identity import AssertionRejected, FetchNeeded, VerifiedIdentity
from ztproxy.verify.refusal import only_one, refuse
from ztproxy.verify.verifier import HEADER_NAME, Verifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

IDENTITY_KEY = "ztproxy"
_FOLDED_NAME = HEADER_NAME.lower().encode("ascii")


class RequireIdentity:
    """Answers 401 (or 503 without a key set) itself, else calls the application with the identity."""

    def __init__(self, app: ASGIApplication, verifier: Verifier) -> None:
        self._app = app
        self._verifier = verifier
        self._fetching = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            return await self._app(scope, receive, send)
        if kind not in ("http", "websocket"):
            raise ValueError(f"`{kind}` is not a kind of connection whose identity can be verified")
        try:
            identity = await self._verify(_token(scope))
        except AssertionRejected as rejected:
            if kind == "websocket":
                return await _close_websocket(rejected, receive, send)
            return await _answer(rejected, scope, send)
        return await self._app({**scope, IDENTITY_KEY: identity}, receive, send)

    async def _verify(self, token: str) -> VerifiedIdentity:
        try:
            return self._verifier.verify(token, may_fetch=False)
        except FetchNeeded:
            # One thread at most waits for the key set, however many requests ask for it: the loop's threads
            # are shared with the application, and unknown `kid` values cost a stranger nothing.
            async with self._fetching:
                return await asyncio.to_thread(self._verifier.verify, token)


def _token(scope: Scope) -> str:
    # The underscore spelling counts as the same field, as it does to CGI and WSGI programs.
    values = [value for name, value in scope["headers"] if name.lower().replace(b"_", b"-") == _FOLDED_NAME]
    return only_one([value.decode("latin-1") for value in values])


async def _answer(rejected: AssertionRejected, scope: Scope, send: Send) -> None:
    status, headers, body = refuse(rejected)
    raw = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers]
    await send({"type": "http.response.start", "status": status.value, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _close_websocket(rejected: AssertionRejected, receive: Receive, send: Send) -> None:
    refuse(rejected)
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": "no valid identity"})
