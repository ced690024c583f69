"""The proxy one would write first: aiohttp's server and its client, with uvloop (`bench.aiohttp_proxy`)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

from bench import certificates, machine
from bench.peers import Peer, Upstream
from bench.peers.around import answering, family, folder
from bench.place import Place, free_port

NAME = "aiohttp"
CHECKS = "nothing, and no access log: Python as one would write it first"

_HOST = "app.localhost"


def missing() -> str:
    """Nothing: ztproxy itself needs aiohttp."""
    return ""


@contextlib.asynccontextmanager
async def running(place: Place, upstream: Upstream) -> AsyncIterator[Peer]:
    """One process."""
    certificate = certificates.certificate(place)
    port, tls = free_port(), free_port()
    command = [sys.executable, "-m", "bench.aiohttp_proxy", str(port), str(upstream.port)]
    command += [str(tls), str(certificate.chain), str(certificate.key)]
    log = folder(place, "aiohttp") / "said.log"
    with machine.process(*machine.pinned(place.proxy_core, *command), log=log) as process:
        fields = {"Host": _HOST}
        peer = Peer(NAME, port, (), tls, fields, fields)
        await answering(peer, certificate.trusted())
        yield replace(peer, pids=family(process.pid))
