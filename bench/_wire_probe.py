"""A minimal server on the real data plane: the guard, the normaliser, the rebuilt head and the pool, no
policy.

    python -m bench._wire_probe LISTEN_PORT UPSTREAM_PORT [--asyncio] [--profile FILE]

It measures what `wire` and the pure head code cost by themselves: the ceiling for everything built on them.
"""

from __future__ import annotations

import asyncio
import cProfile
import functools
import signal
import sys

import uvloop

from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.outbound import ResponseFilter, ResponseSettings, outbound_request
from ztproxy.core.policy import Policy
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer
from ztproxy.core.routes import Forwarding, IdentityHeaders, Route
from ztproxy.core.upstream import Endpoint, Upstream
from ztproxy.wire.connections import Connections, Ticker
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits
from ztproxy.wire.pool import Pool


class Forwarder:
    """Forwards everything to one upstream."""

    def __init__(self, port: int, loop: asyncio.AbstractEventLoop) -> None:
        upstream = Upstream((Endpoint("127.0.0.1", port),))
        self.action = Forwarding(upstream)
        self.route = Route(
            "all", "127.0.0.1", 80, "http", (), False, self.action, Policy([]), IdentityHeaders("all")
        )
        self.pool = Pool(upstream, None, loop)
        self.filter = functools.partial(
            ResponseFilter(self.route, self.action, ResponseSettings(None)).fields, authenticated=False
        )

    def handle(self, exchange: Exchange) -> None:
        head = outbound_request(exchange.request, self.route, self.action, exchange.request_id, b"")
        exchange.forward(self.pool, head, lambda _, fields: self.filter(fields), max_body=None)

    def refused(self, reason: Reason, peer: Peer) -> None: ...

    def finished(self, exchange: Exchange) -> None: ...


async def serve(port: int, upstream: int) -> None:
    loop = asyncio.get_running_loop()
    limits = Limits()
    registry = Connections(loop, limits)
    handler = Forwarder(upstream, loop)
    normaliser = Normaliser(Reading(False, "__Host-ztproxy"))
    make = functools.partial(Downstream, handler, normaliser, limits, False, registry)
    server = await loop.create_server(make, "127.0.0.1", port)
    ticker = Ticker(loop, lambda: [registry, handler.pool])
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    ticker.stop()
    server.close()


def main() -> None:
    port, upstream = int(sys.argv[1]), int(sys.argv[2])
    run = asyncio.run if "--asyncio" in sys.argv else uvloop.run
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(run, serve(port, upstream))
        profile.dump_stats(sys.argv[sys.argv.index("--profile") + 1])
    else:
        run(serve(port, upstream))


if __name__ == "__main__":
    main()
