"""The server side of one client connection: limits, timers, pipelining; each request becomes an `Exchange`.

Knows: RFC 9112 as the wire policy narrows it. Promises: one exchange at a time on a connection, each judged
by itself and answered in order; a head is handed on only when our guard, `core.normalise` and llhttp agree
about it; a refused head costs one constant answer and the connection; no request is begun behind answers
that the client does not read. Bodies are decoded only when an app takes them. Leaves timers to
`Connections.tick`: a connection has one `deadline`, and setting it is an assignment.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, cast

from ztproxy.core.normalise import RawHead
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Framing, Peer, Request
from ztproxy.wire.bodies import BodyReader, ChunkedBody, LengthBody
from ztproxy.wire.exchange import PHRASES, PLAIN_FIELDS, RETRY_SOON, Exchange, Handler
from ztproxy.wire.hand_over import HandedOver
from ztproxy.wire.handshake import address_of
from ztproxy.wire.head import find_head, parse_request
from ztproxy.wire.limits import Limits
from ztproxy.wire.tls import shown_certificate

if TYPE_CHECKING:
    from ztproxy.wire.connections import Connections
    from ztproxy.wire.tunnel import Tunnel

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CHUNKED: Final = Framing.CHUNKED  # a member looked up through its class costs 90 ns on Python 3.11
_AT_ONCE: Final = 32
"""Requests taken in one turn of the loop. One read may bring thousands, and everybody waits meanwhile."""
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: close sends RST


class Reader(Protocol):
    """What makes a canonical request of a head (`core.normalise.Normaliser`)."""

    def read(self, head: RawHead, peer: Peer, /) -> Request | Reason: ...


class Upload:
    """A request body under way. `wanted`: an app takes it; `invited`: we sent 100; `begun`: some of it was
    read.

    `seen` octets came since `since`, the last of them `at`.
    """

    __slots__ = ("at", "begun", "invited", "reader", "seen", "since", "wanted")

    def __init__(self, reader: BodyReader) -> None:
        self.reader = reader
        self.wanted = False
        self.invited = False
        self.begun = False
        self.seen = 0
        self.since = 0.0
        self.at = 0.0


class Downstream:
    """One client connection: an `asyncio.Protocol` in all but ancestry, for with a foreign base it could not
    be compiled to a class of its own (ADR 0015). `peer_address`, set before `connection_made`, replaces the
    socket's (PROXY protocol); `carrier` is what its TLS writes to.
    """

    __slots__ = (
        "_closing",
        "_normaliser",
        "_paused",
        "_scanned",
        "_secure",
        "_stalled_at",
        "_taking",
        "buffer",
        "carrier",
        "deadline",
        "exchange",
        "frozen",
        "handed",
        "handler",
        "known",
        "last",
        "limits",
        "peer",
        "peer_address",
        "registry",
        "source",
        "transport",
        "tunnel",
        "unsent",
        "upload",
        "used",
    )

    transport: asyncio.Transport
    peer: Peer

    def __init__(
        self, handler: Handler, normaliser: Reader, limits: Limits, secure: bool, registry: Connections
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.registry = registry
        self.peer_address: str | None = None
        self.carrier: asyncio.Transport | None = None
        self.source = ""  # under what the registry counts it
        self.known = False  # something was forwarded on it for a person
        self.used = False  # and something more since the registry last looked
        self.exchange: Exchange | None = None
        self.upload: Upload | None = None
        self.tunnel: Tunnel | None = None
        self.handed: HandedOver | None = None
        self.buffer = b""
        self.deadline = inf
        self.last = False  # the present answer ends the connection
        self.frozen = False  # nothing is read until `thaw`
        self.unsent = 0  # octets the client would not take, when last looked at; 0: it keeps up
        self._normaliser = normaliser
        self._secure = secure
        self._scanned = 0
        self._taking = False
        self._paused = False
        self._closing = False
        self._stalled_at = inf  # when the client will have taken nothing for too long

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not `isinstance`: uvloop's transports are asyncio's in everything but ancestry.
        self.transport = cast(asyncio.Transport, transport)
        self.peer = _peer(self.transport, self.peer_address, self._secure)
        why = self.registry.admit(self)
        if why is None:
            self.deadline = self.registry.clock() + self.limits.first_byte
            return
        self._closing = True
        self.handler.refused(why, self.peer)
        if why is Reason.OVERLOADED:
            self.transport.abort()  # a word of farewell would cost what there is none of
        else:
            self.transport.write(_constant(why, self.registry))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.registry.remove(self)
        self.carrier = None
        self._closing = True
        if self.exchange is not None:
            self.exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            if self._closing:
                return  # lingering: read so that the answer is not reset away, and forgotten
            if self.upload is None:
                self._take(self.buffer + data if self.buffer else data)
            else:
                self._drain(data)
        elif self.upload is not None and self.upload.wanted:
            self._offer(self.upload, data)
        else:
            self.buffer = self.buffer + data if self.buffer else data
            if len(self.buffer) > self.limits.held:
                self.pause_reading()

    def eof_received(self) -> None:
        # The transport closes now, as soon as all that was written is taken. Nothing more can be answered,
        # and the client may take its time over the rest for ever.
        exchange = self.exchange
        if exchange is not None and exchange.status:
            exchange.abort()  # its answer will not be whole, and must not seem to be
            return
        if exchange is not None:
            exchange.client_gone()
        self._closing = True
        self.upload = None
        self.buffer = b""
        self.deadline = min(self.deadline, self.registry.clock() + self.limits.write_stall)

    # Heads.

    def _take(self, data: bytes) -> None:
        """Begins the exchanges `data` holds, one after the other, until one has to wait."""
        self._taking = True
        try:
            self._take_each(data)
        finally:
            self._taking = False

    def _take_each(self, data: bytes) -> None:
        left = _AT_ONCE
        while True:
            # INVARIANT: nothing is answered behind answers that are not read: they would pile up without end.
            if self.unsent or not left:
                self._wait(data)
                break
            left -= 1
            end = find_head(data, self._scanned)
            if isinstance(end, Reason):
                self._refuse(end)
                break
            if end == 0:
                if self._scanned == 0:
                    self.deadline = self.registry.clock() + self.limits.head_time
                self.buffer = data
                self._scanned = len(data)
                break
            self._scanned = 0
            if end == len(data):
                self.buffer = b""
                self._begin(data)
            else:
                self.buffer = data[end:]
                self._begin(data[:end])
            data = self.buffer
            if not data or self.exchange is not None or self.upload is not None or self._closing:
                break

    def _wait(self, data: bytes) -> None:
        """What has come is taken later: when the client has read, or after everybody else's turn."""
        self.buffer = data
        if self.unsent:
            self.deadline = self._stalled_at
        elif not self._paused:
            self.registry.loop.call_soon(self._go_on)
        self.pause_reading()

    def _go_on(self) -> None:
        if self.exchange is None and self.upload is None and not self._closing and not self.unsent:
            self.resume_reading()
            self._scanned = 0  # a head that has begun has its full time from now on
            if self.buffer:
                self._take(self.buffer)

    def _begin(self, head: bytes) -> None:
        if self.registry.refusing:
            self._refuse(Reason.OVERLOADED)
            return
        raw = parse_request(head)
        if isinstance(raw, Reason):
            self._refuse(raw)
            return
        request = self._normaliser.read(raw, self.peer)
        if isinstance(request, Reason):
            self._refuse(request)
            return
        registry = self.registry
        framing = request.framing
        has_body = framing is _CHUNKED or request.length > 0
        if not registry.second_opinion.agrees(head, has_body):
            self._refuse(Reason.HTTP_SYNTAX)
            return
        if has_body:
            chunked = framing is _CHUNKED
            self.upload = Upload(ChunkedBody() if chunked else LengthBody(request.length))
        self.last = not request.keep_alive or request.http_1_0 or registry.closing
        self.deadline = inf
        exchange = self.exchange = Exchange(self, request, registry.next_id(), registry.clock())
        try:
            self.handler.handle(exchange)
        except Exception as error:
            registry.report("a handler failed", error)
            exchange.fail()

    def _refuse(self, reason: Reason) -> None:
        self.handler.refused(reason, self.peer)
        self.transport.write(_constant(reason, self.registry))
        self._close(linger=True)

    # Bodies.

    def begin_upload(self) -> None:
        """An app takes the body: invite it if that was asked for, and pass on what has come already."""
        upload = self.upload
        assert upload is not None and self.exchange is not None
        now = self.registry.clock()
        upload.wanted = True
        upload.since = upload.at = now
        self.deadline = now + self.limits.body_rate_after
        if self.exchange.request.expects_continue and not self.buffer and not upload.invited:
            upload.invited = True
            self.transport.write(_CONTINUE)
        data, self.buffer = self.buffer, b""
        if data:
            self._offer(upload, data)
        self.resume_reading()

    def stop_upload(self) -> None:
        """The app takes no more; what comes is held back until somebody does."""
        if self.upload is not None:
            self.upload.wanted = False
            self.deadline = self._unhurried()

    def can_drain(self) -> bool:
        """Whether what is left of the body is so short that reading it is cheaper than a new connection."""
        upload, exchange = self.upload, self.exchange
        if upload is None or exchange is None:
            return True
        reader = upload.reader
        invited = upload.invited or not exchange.request.expects_continue
        return invited and isinstance(reader, LengthBody) and reader.left <= self.limits.drained

    def _offer(self, upload: Upload, data: bytes) -> None:
        """Octets of a body an app takes: it gets them, or they are kept while nothing may pass."""
        exchange = self.exchange
        assert exchange is not None
        if exchange.guarded and not exchange.passes():
            self.buffer = self.buffer + data if self.buffer else data
            exchange.shut()
        else:
            self._feed(upload, data)

    def _feed(self, upload: Upload, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        upload.at = self.registry.clock()
        upload.seen += len(data)
        upload.begun = True
        reader = upload.reader
        payload = reader.feed(data)
        if payload is None:
            exchange.upload_failed(Reason.HTTP_BODY)
        elif reader.ended:
            self.upload = None
            self.buffer = reader.rest
            self.deadline = self._unhurried()
            exchange.uploaded(payload, True)
        elif payload:
            exchange.uploaded(payload, False)

    def _drain(self, data: bytes) -> None:
        """Reads past a body that was answered without being wanted."""
        assert self.upload is not None
        reader = self.upload.reader
        if reader.feed(data) is None:
            self._close(linger=True)
        elif reader.ended:
            self.upload = None
            self.buffer = b""
            self.deadline = self.registry.clock() + self.limits.keep_alive
            if self._taking:
                self.buffer = reader.rest  # who takes goes on with it: not one within the other, without end
            elif reader.rest:
                self._take(reader.rest)

    # After an exchange.

    def proceed(self, close: bool) -> None:
        """The exchange is over: on to the next, or to the end of the connection."""
        # `last` may have been set since the head was written, by a worker that began to drain.
        if close or self.last or self._closing:
            self._close(linger=self.upload is not None or bool(self.buffer))
            return
        if self._paused:
            self.resume_reading()
        if self.upload is not None:
            self.deadline = self.registry.clock() + self.limits.body_stall
            data, self.buffer = self.buffer, b""
            if data:
                self._drain(data)
            return
        self.deadline = self.registry.clock() + self.limits.keep_alive
        if self.buffer and not self._taking:
            self._take(self.buffer)

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or the end of an answer to somebody known.

        Not a body that is read past, nor a form for one of our own pages that is not whole yet: to hold those
        back costs nothing, so strangers could keep every place with them.
        """
        if self.exchange is not None:
            return self.handed is None or self.handed.whole
        return self.known and self._left() > 0

    def give_way(self) -> None:
        """Somebody else needs the place, or the memory: no farewell, which could take its time."""
        if self.exchange is not None:
            self.exchange.abort()
        else:
            self.abort(reset=self._left() > 0)  # an answer without a length would seem to end

    def retire(self) -> None:
        """The worker drains: an idle connection closes now, a busy one with its answer, a tunnel if its
        protocol has a word for it.
        """
        self.last = True
        if self.tunnel is not None:
            self.tunnel.leave()
        if self.exchange is None and self.upload is None and not self.buffer and not self._closing:
            self._close(linger=False)

    def _close(self, *, linger: bool) -> None:
        """Closes after what is written. With `linger` the client's octets are still read for a moment, since
        closing over unread octets sends a reset that can overtake the answer (RFC 9112 9.6)."""
        self._closing = True
        self.upload = None
        self.buffer = b""
        transport = self.transport
        if transport.is_closing():
            return
        now = self.registry.clock()
        if linger:
            self.resume_reading()
            if transport.can_write_eof():
                transport.write_eof()
            self.deadline = now + self.limits.linger
        else:
            self.deadline = now + self.limits.write_stall
            transport.close()

    def abort(self, *, reset: bool) -> None:
        """Drops the connection at once, what is buffered included; `reset` shows it as broken (RST)."""
        self._closing = True
        self.upload = None
        self.buffer = b""
        if reset:
            connection = self.transport.get_extra_info("socket")  # none where TLS has ended
            try:
                if connection is not None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # gone already
        self.transport.abort()

    def hand_over(self, protocol: asyncio.Protocol, head: bytes) -> None:
        """Another protocol serves this one request (see `Exchange.hand_over`)."""
        upload, self.upload = self.upload, None
        self.handed = HandedOver(self, protocol, None if upload is None else upload.reader)
        self.deadline = self.registry.clock() + self.limits.hand_over
        self.handed.start(head, self.take_held())
        self.resume_reading()

    def take_held(self) -> bytes:
        """What was read and belongs to whoever takes the connection over."""
        held, self.buffer = self.buffer, b""
        return held

    # Flow and time.

    def pause_reading(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            if not self.frozen:
                self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if not self.frozen and not self.transport.is_closing():
                self.transport.resume_reading()
            if self.upload is not None:
                # The app was slow, not the client: its rate is measured anew.
                self.upload.since = self.upload.at = self.registry.clock()
                self.upload.seen = 0

    def freeze(self) -> None:
        """Nothing is read, and no timer runs, until `thaw`."""
        self.frozen = True
        self.deadline = inf
        if not self._paused and not self.transport.is_closing():
            self.transport.pause_reading()

    def thaw(self) -> None:
        """Goes on, with what was kept of a body first; the time meanwhile is not held against the client."""
        self.frozen = False
        if not self._paused and not self.transport.is_closing():
            self.transport.resume_reading()
        now = self.registry.clock()
        if self.unsent:
            self.unsent = self._left()
            self._stalled_at = now + self.limits.write_stall
        self.deadline = self._unhurried()
        upload = self.upload
        if upload is not None and upload.wanted:
            upload.since = upload.at = self.deadline = now
            upload.seen = 0
            data, self.buffer = self.buffer, b""
            if data:
                self._offer(upload, data)

    def pause_writing(self) -> None:
        self.unsent = self._left()
        self._stalled_at = self.registry.clock() + self.limits.write_stall
        self.deadline = min(self.deadline, self._stalled_at)
        if self.exchange is not None:
            self.exchange.client_full()

    def resume_writing(self) -> None:
        self.unsent = 0
        if self.exchange is not None:
            self.deadline = inf if self.upload is None else self.registry.clock()
            self.exchange.client_drained()
        elif self._paused:
            self._go_on()

    def expired(self, now: float) -> None:
        """The deadline has passed: find out what is late, and set the next one if nothing is."""
        if self.tunnel is not None:
            self.deadline = self.tunnel.deadline
            if self.deadline <= now:
                self.tunnel.abort()
        elif self.handed is not None:
            self.transport.abort()
        elif self._closing:
            self._finish_closing(now)
        elif self.frozen:
            self.deadline = inf
        elif self.unsent and (self._stalled_at <= now or self.exchange is None) and self._stuck(now):
            self._give_up_writing()
        elif self.exchange is not None:
            if self.upload is not None and self.upload.wanted:
                self._check_upload(self.upload, now)
            else:
                self.deadline = self._unhurried()
        elif self.unsent:
            pass  # slow, but not stuck
        elif self.upload is not None:
            self._close(linger=False)
        elif self.buffer:
            self._refuse(Reason.HTTP_TIMEOUT)
        else:
            self._finish_idle()

    def _finish_closing(self, now: float) -> None:
        if self.transport.is_closing():
            if not self.unsent or self._stuck(now):
                self.transport.abort()
        else:
            self.deadline = now + self.limits.write_stall
            self.transport.close()

    def _finish_idle(self) -> None:
        self._closing = True
        # Nobody read the last answer in all that time; a plain close would wait for ever.
        if self._left():
            self.transport.abort()
        else:
            self._close(linger=False)

    def _stuck(self, now: float) -> bool:
        """Whether the client has taken nothing since the last look."""
        unsent, before = self._left(), self.unsent
        self.unsent = unsent
        self.deadline = self._stalled_at = now + self.limits.write_stall
        return unsent >= before

    def _left(self) -> int:
        """Octets the client has not taken yet."""
        below = 0 if self.carrier is None else self.carrier.get_write_buffer_size()
        try:
            return below + self.transport.get_write_buffer_size()
        except AttributeError:  # asyncio's TLS transport, between its end and our hearing of it
            return below

    def _unhurried(self) -> float:
        """The deadline of a connection on which only what is unsent, if anything, is the client's to hurry
        with.
        """
        return self._stalled_at if self.unsent else inf

    def _give_up_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.stalled()
        else:
            self.abort(reset=True)

    def _check_upload(self, upload: Upload, now: float) -> None:
        limits = self.limits
        self.deadline = now + min(1.0, limits.body_stall)
        if self._paused:
            return
        elapsed = now - upload.since
        slow = elapsed >= limits.body_rate_after and upload.seen < limits.body_rate * elapsed
        if slow or now - upload.at >= limits.body_stall:
            assert self.exchange is not None
            self.exchange.upload_failed(Reason.HTTP_TIMEOUT)


def _peer(transport: asyncio.Transport, address: str | None, secure: bool) -> Peer:
    """The facts of the connection."""
    if address is None:
        address = address_of(transport)
    tls = transport.get_extra_info("ssl_object") if secure else None
    if tls is None:
        return Peer(address, secure)
    # INVARIANT: both attributes are left on the object by the SNI callback of `wire.tls`, which alone knows
    # what the handshake asked for; the object's context is another by now.
    asked: bool = getattr(tls, "asked", False)
    sni: str | None = getattr(tls, "server_name", None)
    return Peer(address, secure, sni, shown_certificate(tls), asked=asked)


def _constant(reason: Reason, registry: Connections) -> bytes:
    """The whole answer to what never became a request; nothing of the input is in it."""
    body = reason.sentence.encode() + b"\n"
    fields: tuple[Field, ...] = PLAIN_FIELDS
    if reason.status == 503:
        fields = (*PLAIN_FIELDS, RETRY_SOON)
    elif reason is Reason.HTTP_METHOD:
        fields = (*PLAIN_FIELDS, (b"Allow", registry.allow))  # RFC 9110 15.5.6
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        reason.status,
        PHRASES[reason.status],
        b"\r\n".join(map(b": ".join, fields)),
        registry.date,
        len(body),
        body,
    )
