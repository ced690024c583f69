"""A listener on loopback that waits for one answer from the browser (RFC 8252 7.3).

Knows: HTTP as far as a browser speaks it to us. Promises: it listens at 127.0.0.1 alone, takes nothing but
a request that brings the state it gave out, gives anything else a 404 and goes on waiting, and ends by its
deadline. Leaves what was brought to its caller: other programs on this machine can ask it too, so that a
ticket counts only together with a secret that never was in a URL.
"""

from __future__ import annotations

import time
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

_PAGE = b"""\
<!doctype html><html lang="en"><meta charset="utf-8"><title>ztproxy</title>
<p>This device was vouched for. How it went on is told in the terminal; you can close this window.</p>
"""
_SLOWEST = 5.0
_POLL = 0.05  # an answer is noticed that late: it is read in another thread


class Loopback:
    """Listens from the beginning of a `with` to its end. `port` is the one the system gave."""

    def __init__(self, state: str) -> None:
        answers: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            timeout = _SLOWEST

            def do_GET(self) -> None:
                try:
                    brought = parse_qs(urlsplit(self.path).query, max_num_fields=8)
                except ValueError:
                    brought = {}
                states, tickets = brought.get("state", []), brought.get("ticket", [])
                ours = len(states) == len(tickets) == 1 and compare_digest(
                    states[0].encode("utf-8", "replace"), state.encode()
                )
                body = _PAGE if ours else b""
                self.send_response(200 if ours else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
                self.end_headers()
                self.wfile.write(body)
                if ours:
                    answers.append(tickets[0])

            def log_message(self, format: str, *args: Any) -> None:
                """INVARIANT: the line it would write holds the ticket."""

        class Server(ThreadingHTTPServer):
            # Browsers open connections in advance and say nothing on them: one must not wait for another.
            daemon_threads, block_on_close = True, False

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Somebody who goes away in the middle, or speaks no HTTP, is nothing to tell of."""

        self._answers = answers
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.timeout = _POLL
        self.port: int = self._server.server_address[1]

    def wait(self, seconds: float) -> str | None:
        """What the browser brought, or None when it did not come in time."""
        deadline = time.monotonic() + seconds
        while not self._answers and time.monotonic() < deadline:
            self._server.handle_request()
        return self._answers[0] if self._answers else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()
