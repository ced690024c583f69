"""TLS begun late: on connections of which something was read before, a PROXY header or the ClientHello.

Knows: how a running connection is given to OpenSSL and then to its protocol. Promises: the protocol hears of
no connection whose handshake failed, and loses no byte of one whose handshake did not; a client that holds
back its hello is gone after `deadline` seconds, hello and handshake together, or when others need its place.
Leaves to the context all that TLS is, and to the protocol everything after it.

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
MAX_WAITING = 1000

ByName = Callable[[str | None], ssl.SSLContext]
"""The context for a connection to that canonical name, or to none."""


class Successor(Protocol):
    """What the connection is handed to: `peer_address` is set before `connection_made`."""

    peer_address: str | None

    def connection_made(self, transport: asyncio.BaseTransport, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class WaitingRoom:
    """The connections of one listener that have not said hello, `most` at a time.

    The one that waited longest makes way for a newcomer: a client that means it needs one round trip, so
    whoever fills the room with silent connections must go on opening them faster than that.
    """

    def __init__(self, most: int = MAX_WAITING) -> None:
        self._most = most
        self._inside: dict[asyncio.Transport, None] = {}

    def enter(self, transport: asyncio.Transport) -> None:
        if len(self._inside) >= self._most:
            longest = next(iter(self._inside))
            del self._inside[longest]
            longest.abort()
        self._inside[transport] = None

    def leave(self, transport: asyncio.Transport) -> None:
        self._inside.pop(transport, None)


class HelloGate(asyncio.Protocol):
    """Stands in front of TLS and reads the hello, so that `by_name` can choose what OpenSSL is begun with."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Successor],
        by_name: ByName,
        room: WaitingRoom,
        deadline: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        self.peer_address: str | None = None
        self._loop, self._factory, self._by_name, self._room = loop, factory, by_name, room
        self._deadline = deadline
        self._hello = HelloReader()
        self._received = bytearray()
        self._handshake: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._room.enter(transport)
        self._timer = self._loop.call_later(self._deadline, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._received += data
        hello = self._hello.feed(data)
        if hello is None or self._transport.is_closing():
            return
        left = max(0.001, self._timer.when() - self._loop.time())
        self._leave()
        self._transport.pause_reading()
        self._handshake = self._loop.create_task(
            start_tls(
                self._loop,
                self._transport,
                self._by_name(hello.name),
                self._successor,
                received=bytes(self._received),
                within=left,
            )
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._timer.cancel()
        self._room.leave(self._transport)

    def _successor(self) -> Successor:
        successor = self._factory()
        successor.peer_address = self.peer_address
        return successor


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
