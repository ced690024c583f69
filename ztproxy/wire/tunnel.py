"""After a valid 101: bytes both ways, until one side ends, nothing moves for too long, or it is cut.

Knows: two transports and, of a WebSocket, where its frames end. Promises: back-pressure both ways (what one
side cannot take is not read from the other); a half-close is passed on where the transport can express it;
while it is frozen nothing is relayed, and what arrived is relayed in order after it; once `cut` is called no
further octet is relayed, and both sides are gone soon. Leaves to its caller whether there may be a tunnel at
all, and whether it may go on.
"""

from __future__ import annotations

import asyncio
import select
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import sha1
from math import inf
from typing import TYPE_CHECKING, Final

from ztproxy.core.request import Request
from ztproxy.wire.answer import Answer
from ztproxy.wire.frames import GOING_AWAY, POLICY_VIOLATION, FrameFollower, close_frame

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

    __slots__ = (
        "ended",
        "follower",
        "from_client",
        "full",
        "kept",
        "muted",
        "partner",
        "shut_down",
        "transport",
        "tunnel",
    )

    partner: _Side

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport, from_client: bool) -> None:
        self.tunnel = tunnel
        self.transport = transport
        self.from_client = from_client
        self.full = False  # it has more to write than it should
        self.ended = False  # nothing more arrives on it
        self.shut_down = False  # nothing more may be written to it
        self.muted = False  # what arrives on it is dropped
        self.kept: deque[Callable[[], None]] = deque()
        websocket = tunnel.exchange.request.upgrade == "websocket"
        self.follower = FrameFollower() if websocket else None  # of what arrived on it and was relayed

    def data_received(self, data: bytes) -> None:
        tunnel = self.tunnel
        if tunnel.severed:
            return
        exchange = tunnel.exchange
        if exchange.guarded and not exchange.passes():
            self.kept.append(partial(self._relay, data))
            exchange.shut()
        else:
            self._relay(data)

    def _relay(self, data: bytes) -> None:
        tunnel, other = self.tunnel, self.partner.transport
        if self.muted or other.is_closing():
            return
        tunnel.deadline = tunnel.clock() + tunnel.idle
        if self.from_client:
            tunnel.exchange.bytes_in += len(data)
        else:
            tunnel.exchange.bytes_out += len(data)
        if self.follower is not None:
            self.follower.feed(data)
        other.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        other, exchange = self.partner.transport, self.tunnel.exchange
        if self.tunnel.severed or self.partner.ended:
            return False
        if not (self.transport.can_write_eof() and other.can_write_eof()):
            return False  # TLS cannot half-close: this side closes, and the other with it
        if exchange.guarded and not exchange.passes():
            self.kept.append(self._relay_end)
            exchange.shut()
        else:
            self._relay_end()
        return True

    def _relay_end(self) -> None:
        self.partner.shut_down = True
        if not self.partner.transport.is_closing():
            self.partner.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        tunnel, other = self.tunnel, self.partner.transport
        if exc is not None and not tunnel.severed:
            other.abort()
        elif tunnel.exchange.frozen:
            self.kept.append(other.close)
        elif not tunnel.severed:
            other.close()
        tunnel.lost()

    def replay(self) -> None:
        """What arrived meanwhile, in order, as far as the gate lets it."""
        exchange = self.tunnel.exchange
        while self.kept:
            if not exchange.passes():
                exchange.shut()
                return
            self.kept.popleft()()

    def pause_writing(self) -> None:
        self.full = True
        self.partner.steer()

    def resume_writing(self) -> None:
        self.full = False
        self.partner.steer()

    def steer(self) -> None:
        """Reads or does not. A side that was cut is read, for nothing: closing over unread octets sends a
        reset that can overtake the close frame.
        """
        if self.ended or self.transport.is_closing():
            return
        if not self.tunnel.severed and (self.tunnel.exchange.frozen or self.partner.full):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def say_close(self, code: int, text: bytes) -> bool:
        """Writes a close frame to this side, unless it would fall into a frame of its partner's."""
        follower = self.partner.follower
        if follower is None or not follower.at_boundary or self.shut_down or self.transport.is_closing():
            return False
        follower.close()
        self.transport.write(close_frame(code, text, masked=not self.from_client))
        return True

    def end(self) -> None:
        """Says goodbye where that is possible, with nothing of the partner's before it; else goes now."""
        self.kept.clear()
        if not _sent(self.transport) or not self.say_close(POLICY_VIOLATION, b"access ended"):
            self.transport.abort()
        elif self.transport.can_write_eof():
            self.transport.write_eof()
            self.steer()
        else:
            self.transport.close()


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
        self._client.full, self._app.full = down.unsent > 0, connection.full

    def start(self, early: bytes, rest: bytes) -> None:
        """Takes both transports over. `early`: what the client sent before the 101; `rest`: the app, behind
        it.
        """
        self._down.tunnel = self
        self._down.deadline = self.deadline
        for side in (self._client, self._app):
            side.transport.set_protocol(side)
            side.steer()
        if early:
            self._client.data_received(early)
        if rest:
            self._app.data_received(rest)

    def freeze(self) -> None:
        """Nothing is relayed until `thaw`, and nobody is idle meanwhile."""
        self.deadline = inf
        self._client.steer()
        self._app.steer()

    def thaw(self) -> None:
        wait = self.idle if self._left == 2 else self._down.limits.last_words
        self.deadline = self._down.deadline = self.clock() + wait
        self._client.steer()
        self._app.steer()
        self._client.replay()
        self._app.replay()

    def leave(self) -> None:
        """The worker drains: the client of a WebSocket is told 1001 between two frames, if there is such a
        moment now, and hears nothing more of the app; its own close goes through to the app, which ends it.
        """
        if (
            not self.severed
            and not self.exchange.frozen
            and self._client.say_close(GOING_AWAY, b"going away")
        ):
            self._app.muted = True

    def cut(self) -> None:
        """From now on no octet of either side reaches the other; both are gone soon.

        INVARIANT: nothing of the partner's may be left in our buffer where a side is given time to read its
        close frame: it would still be sent.
        """
        if not self.severed:
            self.severed = True
            self.deadline = self._down.deadline = self.clock() + self._down.limits.linger
            self._client.end()
            self._app.end()

    def abort(self) -> None:
        """Both sides go now; what is buffered is dropped."""
        self.severed = True
        self._client.transport.abort()
        self._app.transport.abort()

    def lost(self) -> None:
        """One side has gone; with the second the exchange is over."""
        self._left -= 1
        if not self._left:
            self._connection.pool.forget(self._connection)
            self._down.registry.remove(self._down)
            self.exchange.over()
        elif not self.severed and not self.exchange.frozen:
            self.deadline = self._down.deadline = self.clock() + self._down.limits.last_words


def _sent(transport: asyncio.Transport) -> bool:
    """Whether nothing waits in our process to be sent. A TLS transport does not count what it has encrypted;
    that waits only while the kernel takes no more.
    """
    if transport.is_closing() or transport.get_write_buffer_size():
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(0))
