"""Health and metrics, on a listener of their own: `/livez`, `/readyz`, `/metrics`.

Knows: how probes and Prometheus ask. Promises: nothing here changes anything or tells of a person. Leaves to
its caller: what ready means, what is measured, and that the listener's address (127.0.0.1:9902 by default) is
reached by nobody else, for there is no authentication.

A `Host` that is an IP address, `localhost` or configured is answered, any other gets 421 (`hosts`).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from socket import socket

from aiohttp import web

from ztproxy.surfaces.hosts import is_ours, names_of

DEFAULT_ADDRESS = "127.0.0.1:9902"

_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Answer = tuple[int, bytes, str]


def operations_app(
    status: Callable[[], tuple[bool, Mapping[str, str]]],
    metrics: Callable[[], tuple[bytes, str]],
    hosts: Iterable[str] = (),
) -> web.Application:
    """`status` answers (ready, condition by part), `metrics` (text, content type); `hosts`: further names."""
    names = names_of(hosts)

    def livez() -> Answer:
        return 200, b"ok\n", "text/plain; charset=utf-8"

    def readyz() -> Answer:
        ready, checks = status()
        body = json.dumps({"ready": ready, "checks": dict(checks)}).encode() + b"\n"
        return (200 if ready else 503), body, "application/json"

    def metrics_page() -> Answer:
        body, content_type = metrics()
        return 200, body, content_type

    pages = {"/livez": livez, "/readyz": readyz, "/metrics": metrics_page}

    async def answer(request: web.Request) -> web.Response:
        if not is_ours(request.headers.getall("Host", []), names):
            return _text(421, "this host name is not served here\n")
        page = pages.get(request.path) if request.method in ("GET", "HEAD") else None
        if page is None:
            return _text(404, "there is nothing here\n")
        code, body, content_type = page()
        return web.Response(status=code, body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    app.on_response_prepare.append(_harden)
    return app


async def serve_operations(app: web.Application, listening: socket) -> Callable[[], Awaitable[None]]:
    """Serves `app` on a listening socket; the answer ends it."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    return runner.cleanup


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURITY_HEADERS)
    response.headers.popall("Server", None)  # names and versions help only whoever looks for holes
