"""The plain listener: only ever a redirect to an origin of ours, and nothing served."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

from tests.core.words import site
from tests.wire.world import Client
from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.reasons import Reason
from ztproxy.core.route_table import RouteTable
from ztproxy.surfaces.origins import Origins
from ztproxy.surfaces.to_https import ToHTTPS
from ztproxy.wire.connections import Connections
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits

ORIGINS = Origins(RouteTable([site(port=8443), site(host="*.wild.test")]), None)


class World:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.refused: list[Reason] = []
        self.port = 0

    async def tell(self, data: str) -> bytes:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        await client.send(data.encode("latin-1"))
        told = await client.rest()
        client.close()
        return told


@pytest.fixture
async def it() -> AsyncIterator[World]:
    world, loop = World(), asyncio.get_running_loop()
    handler = ToHTTPS(ORIGINS.of, world.exchanges.append, world.refused.append)
    registry = Connections(loop, Limits())
    reader = Normaliser(Reading(False, "__Host-ztproxy"))
    make = functools.partial(Downstream, handler, reader, registry.limits, False, registry)
    server = await loop.create_server(make, "127.0.0.1", 0)
    world.port = server.sockets[0].getsockname()[1]
    yield world
    server.close()
    registry.abort()


@pytest.mark.parametrize(
    ("line", "host", "location"),
    [
        pytest.param("GET /", "app.test", "https://app.test:8443/", id="the front door"),
        pytest.param(
            "GET /a%2fb?c=//evil", "app.test:80", "https://app.test:8443/a%2Fb?c=//evil", id="a path"
        ),
        pytest.param("POST /form", "x.wild.test", "https://x.wild.test/form", id="a form keeps its method"),
        pytest.param(
            "GET /.ztproxy/sign_in", "app.test", "https://app.test:8443/.ztproxy/sign_in", id="ours"
        ),
        pytest.param("GET http://app.test/x", "app.test", "https://app.test:8443/x", id="absolute form"),
    ],
)
async def test_use_https(it: World, line: str, host: str, location: str) -> None:
    told = await it.tell(f"{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 308 ") and f"\r\nLocation: {location}\r\n".encode() in told
    assert b"Strict-Transport-Security" not in told and b"\r\nCache-Control: no-store\r\n" in told
    assert it.exchanges[-1].tag.decision == "to_https" and not it.refused


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        pytest.param("GET /", "evil.test", 421, id="another host"),
        pytest.param("GET /", "a.b.wild.test", 421, id="two labels"),
        pytest.param("GET //evil.test/x", "app.test", 400, id="a path that names a host"),
        pytest.param("GET /\\evil.test", "app.test", 400, id="a backslash"),
        pytest.param("GET http://evil.test/x", "app.test", 400, id="another target"),
        pytest.param("GET /x", "app.test@evil.test", 400, id="userinfo"),
        pytest.param("GET /x\x00", "app.test", 400, id="a control"),
        pytest.param("CONNECT app.test:443", "app.test", 405, id="a tunnel"),
    ],
)
async def test_nowhere_else(it: World, line: str, host: str, status: int) -> None:
    first = f"{line} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    told = await it.tell(first + "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
    assert told.startswith(f"HTTP/1.1 {status}".encode()) and told.count(b"HTTP/1.1 ") == 1
    assert b"Location" not in told and b"evil" not in told
    assert len(it.refused) == 1
