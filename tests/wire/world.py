"""A small world for the data plane: a real listener, a real pool, recording apps and raw clients.

world.stage      the handler: it forwards to the first app unless a test gives it another `act`
world.client()   a raw connection: `send`, `answer`, `rest`
answer           what came back: status, fields, body, and whether its end was a clean one
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import trustme

from tests.wire.recording import Play, Recording
from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.outbound import outbound_request
from ztproxy.core.overload import Pressure
from ztproxy.core.policy import Policy
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Peer
from ztproxy.core.routes import Forwarding, IdentityHeaders, Route
from ztproxy.core.upstream import Ejection, Endpoint, HealthCheck, Timeouts, Upstream
from ztproxy.wire.connections import Connections, Ticker
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.gate import Gate
from ztproxy.wire.limits import Limits
from ztproxy.wire.pool import Pool

PATIENCE = 10.0
"""Seconds after which a test that waits has failed; nothing is asserted about shorter times."""


@functools.cache
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A listener's context that takes a client certificate, and a client's that has one."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(server)
    authority.issue_cert("app.test").configure_cert(server)

    def remember(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.server_name = name  # type: ignore[attr-defined]  # what `Downstream` looks for
        connection.asked = True  # type: ignore[attr-defined]

    server.sni_callback = remember  # type: ignore[assignment]
    client = ssl.create_default_context()
    authority.configure_trust(client)
    authority.issue_cert("alice@app.test").configure_cert(client)
    return server, client


class Answer(NamedTuple):
    """`complete` is False when the connection ended before the body did."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    complete: bool
    head: bytes

    def __getitem__(self, name: object) -> str | None:  # type: ignore[override]
        return dict(self.fields).get(str(name))


class Client:
    """A raw connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes, split: bool = False) -> None:
        pieces = [data[i : i + 1] for i in range(len(data))] if split else [data]
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, as an honest client reads it."""
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head[:-4].decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            fields = [
                (name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:])
            ]
            known = dict(fields)
            if method == "HEAD" or status < 200 or status in (204, 304):
                return Answer(status, fields, b"", True, head)
            body, complete = b"", True
            try:
                if "content-length" in known:
                    body = await self.reader.readexactly(int(known["content-length"]))
                elif known.get("transfer-encoding") == "chunked":
                    body = await self._chunks()
                else:
                    body = await self._to_the_end()
            except asyncio.IncompleteReadError as error:
                body, complete = error.partial, False
            except ConnectionResetError:
                complete = False
            return Answer(status, fields, body, complete, head)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self._exactly(self.reader.readuntil(b"\r\n"), body))[:-2], 16):
            body += await self._exactly(self.reader.readexactly(size), body)
            await self._exactly(self.reader.readexactly(2), body)
        await self._exactly(self.reader.readexactly(2), body)
        return body

    @staticmethod
    async def _exactly(reading: object, so_far: bytes) -> bytes:
        try:
            return await reading  # type: ignore[misc,no-any-return]
        except asyncio.IncompleteReadError as error:
            raise asyncio.IncompleteReadError(so_far + error.partial, None) from error

    async def _to_the_end(self) -> bytes:
        return await self.reader.read(-1)

    async def rest(self) -> bytes:
        """All until the connection ends."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.reader.read(-1)
        except ConnectionResetError:
            return b""

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        await self.send(data)
        return await self.answer(method)

    async def ask_raw(self, data: bytes) -> bytes:
        """As many octets as were sent."""
        await self.send(data)
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(len(data))

    def close(self) -> None:
        self.writer.close()


class Turnstile:
    """A gate for a test to close and open. `met` are the exchanges that met it closed; `asked` counts.

    `breaks`: it raises. `lets`: after so many questions it closes by itself. `then` is what `shut` does more.
    """

    def __init__(self, is_open: bool = True, *, breaks: bool = False, lets: int = 2**60) -> None:
        self.is_open = is_open
        self.breaks = breaks
        self.lets = lets
        self.asked = 0
        self.met: list[Exchange] = []
        self.then: Callable[[Exchange], object] = lambda _: None

    def open(self) -> bool:
        self.asked += 1
        if self.breaks:
            raise LookupError("a mistake")
        return self.is_open and self.asked <= self.lets

    def shut(self, exchange: Exchange) -> None:
        assert exchange.frozen
        self.met.append(exchange)
        self.then(exchange)

    def close(self) -> None:
        self.is_open = False

    def reopen(self) -> None:
        """Opens, and lets go on what waits."""
        self.is_open, self.lets = True, 2**60
        for exchange in self.met:
            exchange.thaw()


class Stage:
    """The handler. `act` decides; everything it is told is kept."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.act: Callable[[Exchange], None] = self.forward
        self.max_body: int | None = None
        self.gate: Gate | None = None
        self.on_failure: Callable[[Exchange, Reason], None] | None = None
        self.filter: Callable[[int, list[Field]], list[Field]] = lambda _, fields: fields
        self.handled: list[Exchange] = []
        self.reasons: list[Reason] = []
        self.over: list[Exchange] = []

    def handle(self, exchange: Exchange) -> None:
        self.handled.append(exchange)
        self.act(exchange)

    def refused(self, reason: Reason, peer: Peer) -> None:
        self.reasons.append(reason)

    def finished(self, exchange: Exchange) -> None:
        self.over.append(exchange)

    def forward(self, exchange: Exchange) -> None:
        world = self._world
        head = outbound_request(exchange.request, world.route, world.forwarding, exchange.request_id, b"")
        exchange.forward(
            world.pool,
            head,
            self.filter,
            max_body=self.max_body,
            gate=self.gate,
            on_failure=self.on_failure,
        )


class World:
    """Everything of one test, on one loop. `mistakes` is what the loop's exception handler was told;
    `pressure` is what will be measured next."""

    forwarding: Forwarding
    route: Route
    pool: Pool
    registry: Connections
    normaliser: Normaliser
    port: int
    tls: ssl.SSLContext | None
    mistakes: list[str]
    expected_mistakes: list[str]

    def __init__(self, apps: list[Recording], limits: Limits) -> None:
        self.apps = apps
        self.app = apps[0]
        self.limits = limits
        self.clients: list[Client] = []
        self.pressure = Pressure()
        self.mistakes = []
        self.expected_mistakes = []
        self.stage = Stage(self)

    async def client(self) -> Client:
        name = "app.test" if self.tls else None
        opening = asyncio.open_connection(
            "127.0.0.1", self.port, limit=2**24, ssl=self.tls, server_hostname=name
        )
        client = Client(*await opening)
        self.clients.append(client)
        return client

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        return await (await self.client()).ask(data, method)

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits for something the world will do; the test fails if it never does."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110  # the world has no event for everything a test asks
                await asyncio.sleep(0.005)


@asynccontextmanager
async def world(
    *plays: Play,
    more: list[Recording] | None = None,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    reading: Reading | None = None,
    dead: int = 0,
    ejection: Ejection | None = None,
    health: HealthCheck | None = None,
    max_connections: int = 64,
    keep_alive: float = 60.0,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> AsyncIterator[World]:
    """A running world. `dead` puts so many endpoints where nobody listens in front of the living ones.

    `tls` is the listener's context and the clients'.
    """
    loop = asyncio.get_running_loop()
    apps = [await app.start() for app in [Recording(*plays), *(more or [])]]
    endpoints = [Endpoint("127.0.0.1", 1) for _ in range(dead)]
    endpoints += [Endpoint("127.0.0.1", app.port) for app in apps]
    upstream = Upstream(
        tuple(endpoints),
        timeouts=timeouts or Timeouts(),
        ejection=ejection,
        health=health,
        max_connections=max_connections,
        keep_alive=keep_alive,
    )
    it = World(apps, limits or Limits())
    it.forwarding = Forwarding(upstream)
    it.route = Route(
        "app", "app.test", 80, "http", (), False, it.forwarding, Policy([]), IdentityHeaders("app")
    )
    it.pool = Pool(upstream, None, loop)
    it.registry = Connections(loop, it.limits, lambda: it.pressure)
    it.normaliser = Normaliser(reading or Reading(False, "__Host-ztproxy"))
    factory = functools.partial(Downstream, it.stage, it.normaliser, it.limits, tls is not None, it.registry)
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=tls[0] if tls else None)
    it.tls = tls[1] if tls else None
    it.port = server.sockets[0].getsockname()[1]
    ticker = Ticker(loop, lambda: [it.registry, it.pool], 0.02)
    loop.set_exception_handler(lambda _, context: it.mistakes.append(str(context["message"])))
    try:
        yield it
        assert len(it.stage.over) == len(set(map(id, it.stage.over))), "an exchange was finished twice"
        it.registry.abort()
        await it.until(lambda: len(it.registry) == 0)
        assert len(it.stage.over) == len(it.stage.handled), "an exchange was never finished"
    finally:
        ticker.stop()
        server.close()
        it.pool.close()
        for client in it.clients:
            client.close()
        for app in apps:
            await app.stop()
    assert it.mistakes == it.expected_mistakes, it.mistakes
