"""TLS begun late: when the client has begun, and where it matters, when its ClientHello was read.

Knows: how a running connection is given to OpenSSL and then to its protocol. Promises: the protocol hears of
no connection whose handshake failed, and loses no byte of one whose handshake did not; each holds a place in
the room from the moment it is accepted, so that nobody has descriptors which nobody counts; a client that
holds back its hello is gone after `deadline` seconds, hello and handshake together, or when others need its
place, and until it says something OpenSSL keeps nothing for it. Leaves to the context all that TLS is, to the
room whose place it is, and to the protocol everything after it.

Whether a client is asked for a certificate is settled when OpenSSL's connection is made: the SNI callback may
change the context, but the connection keeps the `verify_mode` it was made with. A listener that asks at some
names only must therefore know the name first.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from ztproxy.wire.client_hello import HelloReader

HANDSHAKE_TIMEOUT = 10.0
SHUTDOWN_TIMEOUT = 5.0

ByName = Callable[[str | None], ssl.SSLContext]
"""The context for a connection to that canonical name, or to none."""


class Successor(Protocol):
    """What the connection is handed to. Set before `connection_made`: `peer_address`, and with TLS `carrier`,
    the transport that TLS writes to, where octets wait that its own transport has already counted as sent."""

    peer_address: str | None
    carrier: asyncio.Transport | None

    def connection_made(self, transport: asyncio.BaseTransport, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Room(Protocol):
    """Where connections are counted (`wire.connections`)."""

    def enter(self, gate: HelloGate, /) -> bool:
        """Whether there is a place for one more; not when there is none to be made."""
        ...

    def leave(self, gate: HelloGate, /) -> None:
        """It is a connection now, or none any more. May be told twice."""
        ...


class HelloGate(asyncio.Protocol):
    """Stands in front of TLS until the client has said all of its hello: half a one would cost as much of
    OpenSSL's memory as a connection. Where `tls` depends on the name, it chooses what OpenSSL is begun with.

    `address` is the peer's. `source` is the room's own: under what it counts this one.
    """

    busy = used = False  # nothing is under way on it yet

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Successor],
        tls: ssl.SSLContext | ByName,
        room: Room,
        deadline: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.peer_address: str | None = None
        self.address = ""
        self.source = ""
        self._loop, self._factory, self._tls, self._room = loop, factory, tls, room
        self._deadline = deadline
        self._hello = HelloReader()
        self._received = bytearray()
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.address = self.peer_address or address_of(transport)
        self._timer = self._loop.call_later(self._deadline, transport.abort)
        if not self._room.enter(self):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._received += data
        hello = self._hello.feed(data)
        if hello is not None:
            tls = self._tls
            context = tls if isinstance(tls, ssl.SSLContext) else tls(hello.name)
            self._begin(context, bytes(self._received))

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._room.leave(self)

    def give_way(self) -> None:
        """Its place is needed."""
        self._transport.abort()

    def _begin(self, context: ssl.SSLContext, received: bytes) -> None:
        left = max(0.001, self._timer.when() - self._loop.time())
        self._timer.cancel()
        self._transport.pause_reading()
        self._handshake = self._loop.create_task(self._shake_hands(context, received, left))

    async def _shake_hands(self, context: ssl.SSLContext, received: bytes, left: float) -> None:
        try:
            await start_tls(
                self._loop, self._transport, context, self._successor, received=received, within=left
            )
        finally:
            # INVARIANT: from here on it is nobody's but this task's to say that a handshake has ended: the
            # transport tells TLS of the connection's end, and no longer us.
            self._room.leave(self)

    def _successor(self) -> Successor:
        self._room.leave(self)  # its successor takes the place, before anybody else can
        successor = self._factory()
        successor.peer_address = self.peer_address
        successor.carrier = self._transport
        return successor


def address_of(transport: asyncio.BaseTransport) -> str:
    """The peer's address. That of a unix socket is this machine."""
    name = transport.get_extra_info("peername")
    return str(name[0]).partition("%")[0] if isinstance(name, tuple) else "127.0.0.1"


async def start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    context: ssl.SSLContext,
    successor: Callable[[], Successor],
    *,
    received: bytes = b"",
    within: float = HANDSHAKE_TIMEOUT,
) -> None:
    """Makes the handshake on `transport`, whose reading is paused, and then the successor.

    `received` is what the client has sent of it already. A handshake that fails ends the connection.
    """
    waiting = _Waiting()
    if received:
        # INVARIANT: OpenSSL sees `received` before all that follows. `loop.start_tls` puts its protocol in
        # place before it first awaits, and begins to read two callbacks after this one.
        loop.call_soon(_feed, transport, received)
    try:
        secure = await loop.start_tls(
            transport,
            waiting,
            context,
            server_side=True,
            ssl_handshake_timeout=within,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        )
    except OSError:  # a failed, late or broken off handshake; ssl.SSLError and the time-out are OSErrors
        transport.abort()
        return
    # INVARIANT: a successor that hears of a connection also hears of its end. One that ended just now has
    # told `waiting`, or is about to; then the successor is not made at all.
    if secure is None or transport.is_closing() or waiting.lost:
        return
    protocol = successor()
    secure.set_protocol(protocol)  # type: ignore[arg-type]  # a Protocol in all but name
    protocol.connection_made(secure)
    if waiting.received:
        protocol.data_received(bytes(waiting.received))


def _feed(transport: asyncio.Transport, received: bytes) -> None:
    """Gives the loop's own TLS protocol these octets the way its transport would. It keeps for the handshake
    what comes before `connection_made`."""
    if transport.is_closing():
        return
    protocol = cast("asyncio.BufferedProtocol", transport.get_protocol())
    while received:
        buffer = cast("memoryview", protocol.get_buffer(len(received)))
        piece = received[: len(buffer)]
        buffer[: len(piece)] = piece
        protocol.buffer_updated(len(piece))
        received = received[len(piece) :]


class _Waiting(asyncio.Protocol):
    """Keeps what the first TLS records bring between the end of the handshake and our hearing of it: one
    turn of the loop, so at most one read."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
