"""After a valid 101: bytes both ways, until one side ends, nothing moves for too long, or it is cut.

Knows: two transports. Promises: back-pressure both ways (what one side cannot take is not read from the
other); a half-close is passed on where the transport can express it; once `cut` is called no further octet
is relayed. Leaves to its caller whether there may be a tunnel at all, and whether it may go on.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hashlib import sha1
from typing import TYPE_CHECKING, Final

from ztproxy.core.request import Request
from ztproxy.wire.answer import Answer

if TYPE_CHECKING:
    from ztproxy.wire.downstream import Downstream
    from ztproxy.wire.exchange import Exchange
    from ztproxy.wire.upstream import UpstreamConnection

_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accepts(request: Request, answer: Answer) -> bool:
    """Whether a 101 really accepts what was asked (RFC 9110 7.8, RFC 6455 4.1): else it is no tunnel.

    An app that says 101 without meaning it would give the client a raw connection to itself, past every
    check.
    """
    if request.upgrade is None or answer.upgrade != request.upgrade.encode("ascii"):
        return False
    if request.upgrade != "websocket":
        return True
    key = request.field(b"sec-websocket-key") or b""
    expected = b64encode(sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    accepted = [value for name, value in answer.fields if name.lower() == b"sec-websocket-accept"]
    chosen = [value for name, value in answer.fields if name.lower() == b"sec-websocket-protocol"]
    offered = {
        protocol.strip(b" \t")
        for name, value in request.fields
        if name.lower() == b"sec-websocket-protocol"
        for protocol in value.split(b",")
    }
    return accepted == [expected] and len(chosen) <= 1 and all(one in offered for one in chosen)


class _Side(asyncio.Protocol):
    """What arrives on one transport goes to its partner's."""

    __slots__ = ("ended", "from_client", "partner", "transport", "tunnel")

    partner: _Side

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport, from_client: bool) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self.from_client = from_client
        self.ended = False

    def data_received(self, data: bytes) -> None:
        tunnel, other = self.tunnel, self.partner.transport
        if tunnel.severed or other.is_closing():
            return
        tunnel.deadline = tunnel.clock() + tunnel.idle
        if self.from_client:
            tunnel.exchange.bytes_in += len(data)
        else:
            tunnel.exchange.bytes_out += len(data)
        other.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        other = self.partner.transport
        if self.partner.ended or not (self.transport.can_write_eof() and other.can_write_eof()):
            return False  # TLS cannot half-close: this side closes, and the other with it
        if not other.is_closing():
            other.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if exc is None:
            self.partner.transport.close()
        else:
            self.partner.transport.abort()
        self.tunnel.lost()

    def pause_writing(self) -> None:
        if not self.partner.transport.is_closing():
            self.partner.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.partner.transport.is_closing():
            self.partner.transport.resume_reading()


class Tunnel:
    """A pair of sides. `deadline` moves with every octet; the client connection's timer asks for it."""

    __slots__ = (
        "_app",
        "_client",
        "_connection",
        "_down",
        "_left",
        "clock",
        "deadline",
        "exchange",
        "idle",
        "severed",
    )

    def __init__(self, exchange: Exchange, down: Downstream, connection: UpstreamConnection) -> None:
        self.exchange = exchange
        self.idle = connection.pool.tunnel_idle
        self.clock = connection.pool.clock
        self.deadline = self.clock() + self.idle
        self.severed = False
        self._down = down
        self._connection = connection
        self._left = 2
        self._client = _Side(self, down.transport, True)
        self._app = _Side(self, connection.transport, False)
        self._client.partner, self._app.partner = self._app, self._client

    def start(self, early: bytes, rest: bytes) -> None:
        """Takes both transports over. `early`: what the client sent before the 101; `rest`: the app, behind
        it.
        """
        self._down.tunnel = self
        self._down.deadline = self.deadline
        self._client.transport.set_protocol(self._client)
        self._app.transport.set_protocol(self._app)
        if early:
            self._client.data_received(early)
        if rest:
            self._app.data_received(rest)
        self._down.resume_reading()

    def cut(self) -> None:
        """Both sides go now; what is buffered is dropped."""
        self.severed = True
        self._client.transport.abort()
        self._app.transport.abort()

    def lost(self) -> None:
        """One side has gone; with the second the exchange is over."""
        self._left -= 1
        if self._left:
            self.deadline = self._down.deadline = self.clock() + self._down.limits.last_words
        else:
            self._connection.pool.forget(self._connection)
            self._down.registry.remove(self._down)
            self.exchange.over()
