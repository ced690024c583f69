"""The plain listener that only says: use HTTPS.

Knows: the origins of the configuration. Promises: the redirect goes to an origin of ours with the canonical
path (never what a Host field or `//evil.test` would make of it); nothing is served in plain. Leaves HSTS,
which only counts over TLS, to the other listener.
"""

from __future__ import annotations

from collections.abc import Callable

from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer, Request
from ztproxy.gateway.judgement import Outcome
from ztproxy.wire.exchange import Exchange


class ToHTTPS:
    """A `wire.Handler`. `origin(request)` is the HTTPS origin of its host, or None for a host not ours."""

    def __init__(
        self,
        origin: Callable[[Request], str | None],
        record: Callable[[Exchange], None],
        refused: Callable[[Reason], None],
    ) -> None:
        self.origin = origin
        self._record, self._refused = record, refused

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        origin = self.origin(request)
        if origin is None:
            exchange.tag = Outcome("", "refuse", (Reason.NO_SUCH_HOST,), "", None, "")
            self._refused(Reason.NO_SUCH_HOST)
            exchange.refuse(Reason.NO_SUCH_HOST)
            return
        exchange.tag = Outcome("", "to_https", (), "", None, "")
        location = origin + request.path.text + request.query
        # 308 keeps the method: a form sent in plain was seen on the way, but at least it is not lost.
        exchange.respond(308, ((b"Location", location.encode("ascii")), (b"Cache-Control", b"no-store")))

    def refused(self, reason: Reason, peer: Peer) -> None:
        self._refused(reason)

    def finished(self, exchange: Exchange) -> None:
        self._record(exchange)
