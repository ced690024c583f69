"""The admin API on a listening socket.

Knows: aiohttp's runner. Promises: what is not HTTP is answered with a plain 400 and noted by its kind alone:
aiohttp would log the offending line, and that may well be the one with the token (A04). Leaves to its caller
which address is safe to listen on, and asking for client certificates (case A28).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from socket import socket

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

_log = logging.getLogger("ztproxy.admin.http")

_LINGERING = 1.0  # seconds in which the rest of a refused body may still come before the connection ends


def _without_the_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = "a request was no HTTP: %s", (type(error).__name__,)
        record.exc_info, record.levelno, record.levelname = None, logging.INFO, "INFO"
    return True


_log.addFilter(_without_the_line)


async def serve_admin(
    app: web.Application, listening: socket, tls: ssl.SSLContext | None = None
) -> Callable[[], Awaitable[None]]:
    """Serves `app` on a listening socket, TCP or unix; the answer ends it, after what is under way."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, logger=_log, lingering_time=_LINGERING)
    await runner.setup()
    await web.SockSite(runner, listening, ssl_context=tls).start()
    return runner.cleanup
