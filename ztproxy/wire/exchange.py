"""One request and its answer: what a handler may do with it, and the way of the bytes once it has decided.

Knows: the state of one exchange. Promises, whatever happens: the client gets at most one answer head; a
body that came short is never given a clean end; nothing reaches an app before `forward`, and no octet of a
request body is read for an app before its head was sent; nothing is relayed, either way, while the gate it
was forwarded through is closed, or after `cut`; `Handler.finished` is called exactly once. Leaves to the
handler the decision, to who holds the gate when it opens, to `downstream` the client's connection and to
`upstream` the app's.

On the plain path (an idle connection to the app, an answer in one read) this costs no task, future, lock or
timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from ztproxy.core.outbound import OutboundRequest
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, FieldLines, Framing, Peer, Request, lines_of
from ztproxy.wire.answer import Answer
from ztproxy.wire.bodies import LAST_CHUNK
from ztproxy.wire.gate import Gate
from ztproxy.wire.head import Body
from ztproxy.wire.tunnel import Tunnel, accepts
from ztproxy.wire.upstream import UpstreamConnection

if TYPE_CHECKING:
    from ztproxy.wire.downstream import Downstream
    from ztproxy.wire.pool import Pool

AnswerFilter = Callable[[int, list[Field]], Sequence[Field]]
"""(status, the app's end-to-end fields) -> the fields for the client, framing not among them."""

# RFC 9110 9.2.2, without TRACE, which never gets this far.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
SMALL: Final = 4096
"""Up to this size a payload is joined to its head: the copy is cheaper than a second buffer in the
transport.
"""

_CLOSE_LINE: Final = b"Connection: close"
PHRASES: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

_DECIDING, _SEEKING, _FORWARDING, _ANSWERING, _TUNNEL, _CUT, _HANDED, _OVER = range(8)


class Handler(Protocol):
    """Who decides. `handle` is called as soon as a head is complete, and may act at once or later."""

    def handle(self, exchange: Exchange) -> None: ...

    def refused(self, reason: Reason, peer: Peer) -> None:
        """The guard refused a head or a body; a refused head never becomes an exchange."""

    def finished(self, exchange: Exchange) -> None:
        """Called once for each exchange given to `handle`: everything about it is known now."""


class Exchange:
    """One request and its answer. Public attributes are for reading, but for `tag`, `grant` and `check_at`,
    which are the handler's own: what it was let in on, and the loop time to judge it again.

    `started` is loop time. `status` is 0 until an answer head was sent. `bytes_in` and `bytes_out` count
    bodies. `failure` is why it was refused or came to nothing; `upstream` the authority asked, or empty.
    `guarded`: `passes` has to be asked before anything is relayed.
    """

    __slots__ = (
        "_answer",
        "_chunked",
        "_close",
        "_connection",
        "_down",
        "_gate",
        "_max_body",
        "_on_failure",
        "_outbound",
        "_pool",
        "_retried",
        "_state",
        "_tunnel",
        "bytes_in",
        "bytes_out",
        "check_at",
        "failure",
        "frozen",
        "grant",
        "guarded",
        "request",
        "request_id",
        "started",
        "status",
        "tag",
        "upstream",
    )

    # Set by `forward`, `switched` and the answer; read only after them.
    _answer: AnswerFilter
    _chunked: bool
    _close: bool
    _gate: Gate | None
    _max_body: int | None
    _on_failure: Callable[[Exchange, Reason], None] | None
    _outbound: OutboundRequest
    _pool: Pool
    _retried: bool
    _tunnel: Tunnel

    def __init__(self, down: Downstream, request: Request, request_id: str, started: float) -> None:
        self.request = request
        self.request_id = request_id
        self.started = started
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.failure: Reason | None = None
        self.upstream = ""
        self.tag: Any = None
        self.grant: Any = None
        self.check_at = inf
        self.frozen = False
        self.guarded = False
        self._down = down
        self._connection: UpstreamConnection | None = None
        self._state = _DECIDING

    @property
    def alive(self) -> bool:
        """Whether anything can still happen to it."""
        return self._state != _OVER

    @property
    def under_way(self) -> bool:
        """Whether an app is being asked, or bytes are relayed."""
        return _DECIDING < self._state <= _TUNNEL

    @property
    def is_tunnel(self) -> bool:
        return self._state == _TUNNEL

    # What a handler may do.

    def respond(
        self, status: int, fields: Sequence[Field], body: bytes = b"", *, close: bool = False
    ) -> None:
        """Answers with a complete body; framing, Date and Connection are ours to add.

        Does nothing when the client has gone meanwhile. `body` is left out where the method or status forbids
        one. A request body that is still under way is drained if it is short, else the connection closes.
        """
        if not self._deciding():
            return
        down = self._down
        close = close or down.last or not down.can_drain()
        lines = [_status_line(status, PHRASES.get(status, b""))]
        lines += map(b": ".join, fields)
        lines.append(down.registry.date)
        bodiless = status == 204 or status == 304
        if not bodiless:
            lines.append(b"Content-Length: %d" % len(body))
        if close:
            lines.append(_CLOSE_LINE)
        lines.append(b"\r\n")
        if bodiless or self.request.method == "HEAD":
            body = b""
        self.status = status
        self.bytes_out += len(body)
        down.transport.write(b"\r\n".join(lines) + body)
        self._end(close)

    def refuse(self, reason: Reason) -> None:
        """Answers with the reason's sentence and closes: nothing of the input, nothing to be cached."""
        if self._deciding():
            self.failure = reason
            self._say(reason, close=True)

    def forward(
        self,
        pool: Pool,
        outbound: OutboundRequest,
        answer: AnswerFilter,
        *,
        max_body: int | None,
        gate: Gate | None = None,
        on_failure: Callable[[Exchange, Reason], None] | None = None,
    ) -> None:
        """Sends the rebuilt request to an app and relays its answer.

        The `gate` is asked just before the first octet leaves (INV-6: closed, it is a failure), and before
        every piece is relayed, either way (closed, the exchange freezes and the gate is told). `on_failure`
        may `respond` when the app failed before any octet of an answer was sent; without it a plain page is.
        Over `max_body`: 413.
        """
        if not self._deciding():
            return
        self._pool, self._outbound, self._answer = pool, outbound, answer
        self._max_body, self._gate, self._on_failure = max_body, gate, on_failure
        self.guarded = gate is not None
        self._retried = False
        if max_body is not None and self.request.length > max_body:
            self._down.handler.refused(Reason.HTTP_BODY_TOO_LARGE, self.request.peer)
            self.refuse(Reason.HTTP_BODY_TOO_LARGE)
            return
        if self._down.upload is not None and self._down.registry.refusing:
            # Let in before there was too much of it all, but nothing of its body was asked for yet.
            self._down.handler.refused(Reason.OVERLOADED, self.request.peer)
            self.refuse(Reason.OVERLOADED)
            return
        self._seek(fresh=False)

    def hand_over(self, make_protocol: Callable[[], asyncio.Protocol], head: bytes) -> None:
        """Gives this request, and nothing after it, to another protocol, with `head` in place of its own.

        INVARIANT: the connection is never ours again, and the other protocol never sees a second request on
        it: octets after this request's body are dropped, so what was judged here is all that is served
        there. The connection is cut after `Limits.hand_over` seconds. `finished` comes when it has closed.
        """
        if self._deciding():
            self._state = _HANDED
            self._down.hand_over(make_protocol(), head)

    def cut(self, reason: Reason) -> None:
        """Ends it now, on both sides, whatever its state: nothing more of one side reaches the other.

        The client is told why if no octet of an answer was sent yet, or, where a WebSocket is between two
        frames, by 1008; else it sees a truncation. An app never sees an unfinished request body end.
        """
        if self._state == _OVER or self._state == _CUT:
            return
        self.failure = reason
        if self._state == _TUNNEL:
            self._state = _CUT
            self._tunnel.cut()
        elif self._state < _ANSWERING:
            self._drop_upstream()
            self._state = _DECIDING
            self._down.stop_upload()
            self._melt()
            self._say(reason, close=True)
        else:
            self.abort()

    def abort(self) -> None:
        """Drops both sides now. What was sent shows that it is not complete."""
        state = self._state
        if state == _OVER:
            return
        if state in (_TUNNEL, _CUT):
            self._tunnel.abort()
        elif state == _HANDED:
            self._down.transport.abort()
        else:
            self._drop_upstream()
            self._truncate()

    # The gate.

    def passes(self) -> bool:
        """Whether what arrived may be relayed now. If not, it is to be kept, and then `shut` to be called."""
        if self.frozen:
            return False
        gate = self._gate
        if gate is None:
            return True
        try:
            return gate.open()
        except Exception as error:  # fail closed: who cannot say is taken to say no
            self._down.registry.report("a gate failed", error)
            return False

    def shut(self) -> None:
        """A piece met the closed gate: everything stops, and who holds the gate is told."""
        gate = self._gate
        if self.frozen or gate is None:
            return
        self.freeze()
        try:
            gate.shut(self)
        except Exception as error:
            self._down.registry.report("a gate failed", error)
            self.cut(Reason.STATE_UNAVAILABLE)  # nobody would ever thaw it

    def freeze(self) -> None:
        """Stops what is under way: neither side is read, and what arrives all the same is kept, in order.

        Does nothing before the app was asked: then the gate is still to be asked itself.
        """
        if self.frozen or not _FORWARDING <= self._state <= _TUNNEL:
            return
        self.frozen = self.guarded = True
        if self._state == _TUNNEL:
            self._tunnel.freeze()
            return
        self._down.freeze()
        if self._connection is not None:
            self._connection.freeze(self)

    def thaw(self) -> None:
        """Goes on where it was frozen. The gate is asked for all that was kept, as if it came now."""
        if not self.frozen or self._state > _TUNNEL:
            return
        self.frozen = False
        if self._state == _TUNNEL:
            self._tunnel.thaw()
            return
        self._down.thaw()
        # The client's part may have met a closed gate again, or have ended it all.
        if self._connection is not None and not self.frozen:
            self._connection.thaw()

    def _melt(self) -> None:
        """What was frozen has come to nothing, and the client is to be answered."""
        if self.frozen:
            self.frozen = False
            self._down.thaw()

    # The way to the app.

    def _seek(self, *, fresh: bool) -> None:
        self._state = _SEEKING
        found = self._pool.acquire(self, fresh=fresh, sure=self.request.method not in IDEMPOTENT)
        if type(found) is UpstreamConnection:
            self._send(found)
        elif isinstance(found, Reason):
            self._give_up(found)

    def connected(self, connection: UpstreamConnection) -> bool:
        if self._state != _SEEKING:
            return False
        self._send(connection)
        return True

    def unreachable(self, reason: Reason) -> None:
        if self._state == _SEEKING:
            self._give_up(reason)

    def _send(self, connection: UpstreamConnection) -> None:
        # INVARIANT: INV-6, the last moment before the app learns of the request. Nothing may be written to
        # `connection` above this line.
        if self.guarded:
            if not self.passes():
                self._pool.release(connection)
                self._give_up(Reason.STATE_UNAVAILABLE)
                return
            if self._down.known:
                self._down.used = True
            else:
                self._down.registry.know(self._down)
        request, down, target = self.request, self._down, connection.target
        method, path, host, block = self._outbound
        self.upstream = target.authority
        self._connection = connection
        self._state = _FORWARDING
        sending = down.upload is not None
        connection.start(
            self,
            b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (method, path, host or target.host, block),
            request.method,
            sending=sending,
            upgrade=request.upgrade is not None,
            guard=self if self.guarded else None,
        )
        if down.unsent:
            connection.pause_reading()  # the client does not even take what was written before
        if sending:
            down.begin_upload()
            # What had come already may have filled it, and beginning lets the client go on.
            if connection.full and self._connection is connection:
                down.pause_reading()

    def uploaded(self, payload: bytes, ended: bool) -> None:
        """A piece of the request's body, decoded."""
        self.bytes_in += len(payload)
        if self._max_body is not None and self.bytes_in > self._max_body:
            self.upload_failed(Reason.HTTP_BODY_TOO_LARGE)
            return
        connection = self._connection
        if connection is None:
            return
        chunked = self.request.framing is Framing.CHUNKED
        if payload:
            connection.send(payload, chunked)
        if ended:
            connection.finish(chunked)

    def upload_failed(self, reason: Reason) -> None:
        """The request's body cannot be accepted: the app must not take what it has got for the whole."""
        self._drop_upstream()
        self.failure = reason
        self._down.handler.refused(reason, self.request.peer)
        if self._state == _ANSWERING:
            self._truncate()
        else:
            self._state = _DECIDING
            self._say(reason, close=True)

    # What comes back (`upstream.Receiver`).

    def answered(self, answer: Answer, payload: bytes, ended: bool) -> None:
        if ended:
            # INVARIANT: the connection is its pool's again, and soon another request's. What follows writes
            # to the client, who may be full by that, and `client_full` must find nothing to pause.
            self._connection = None
        down = self._down
        if down.transport.is_closing():
            self._drop_upstream()  # the client's loss will be told in a moment
            return
        try:
            fields = self._answer(answer.status, answer.fields)
        except Exception as error:
            down.registry.report("an answer filter failed", error)
            self._drop_upstream()
            self._give_up(Reason.INTERNAL)
            return
        head = _status_line(answer.status, answer.phrase) + b"\r\n"
        head += fields.lines if type(fields) is FieldLines else lines_of(fields)
        if not answer.dated:
            head += down.registry.date + b"\r\n"
        # An app may answer before it has read all; the body still flows, but the connection then ends.
        close = down.last or down.upload is not None
        chunked = False
        if answer.length is not None:
            head += b"Content-Length: %d\r\n" % answer.length
        elif answer.body is not Body.NONE and not self.request.http_1_0:
            chunked = True
            head += b"Transfer-Encoding: chunked\r\n"
        head += b"Connection: close\r\n\r\n" if close else b"\r\n"
        self.status = answer.status
        self._chunked, self._close = chunked, close
        self._state = _ANSWERING
        if not payload:
            down.transport.write(head + LAST_CHUNK if ended and chunked else head)
        else:
            self.bytes_out += len(payload)
            if chunked:
                end = b"\r\n0\r\n\r\n" if ended else b"\r\n"
                down.transport.writelines((b"%b%x\r\n" % (head, len(payload)), payload, end))
            elif len(payload) <= SMALL:
                down.transport.write(head + payload)
            else:
                down.transport.writelines((head, payload))
        if ended:
            self._end(close)

    def continued(self, payload: bytes, ended: bool) -> None:
        if ended:
            self._connection = None  # as in `answered`
        transport = self._down.transport
        if transport.is_closing():
            self._drop_upstream()
            return
        if payload:
            self.bytes_out += len(payload)
            if self._chunked:
                transport.writelines((b"%x\r\n" % len(payload), payload, b"\r\n"))
            else:
                transport.write(payload)
        if ended:
            if self._chunked:
                transport.write(LAST_CHUNK)
            self._end(self._close)

    def switched(self, answer: Answer, rest: bytes) -> None:
        connection, down = self._connection, self._down
        assert connection is not None
        self._connection = None
        if down.transport.is_closing():
            connection.discard()
            return
        if not accepts(self.request, answer):
            self._pool.blame(connection.target, Reason.UPSTREAM_INVALID)
            connection.discard()
            # Both sides close: neither can know what the other took the following octets for.
            down.last = True
            self._give_up(Reason.UPSTREAM_INVALID)
            return
        try:
            fields = self._answer(101, answer.fields)
        except Exception as error:
            down.registry.report("an answer filter failed", error)
            connection.discard()
            self._give_up(Reason.INTERNAL)
            return
        lines = [_status_line(101, answer.phrase)]
        lines += map(b": ".join, fields)
        lines += (b"Connection: Upgrade", b"Upgrade: " + answer.upgrade, b"\r\n")
        self.status = 101
        self._state = _TUNNEL
        down.transport.write(b"\r\n".join(lines))
        self._tunnel = Tunnel(self, down, connection)
        self._tunnel.start(down.take_held(), rest)

    def failed(self, reason: Reason, stale: bool) -> None:
        self._connection = None
        if self._state == _ANSWERING:
            self.failure = reason
            self._truncate()
        elif stale and not self._retried and self.request.method in IDEMPOTENT and self._unread():
            self._retried = True
            self._pool.retries += 1
            self._down.stop_upload()
            self._seek(fresh=True)
        else:
            self._give_up(reason)

    def upstream_full(self) -> None:
        self._down.pause_reading()

    def upstream_drained(self) -> None:
        self._down.resume_reading()

    # What the client's connection tells.

    def client_full(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def client_drained(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def client_gone(self) -> None:
        """The connection is lost; the app's part of it goes at once."""
        self._drop_upstream()
        self._finish()

    def stalled(self) -> None:
        """The client has not read for too long."""
        self._drop_upstream()
        self._truncate()

    def over(self) -> None:
        """A tunnel or a connection handed over has closed."""
        self._finish()

    # The end.

    def _deciding(self) -> bool:
        """Whether the handler may act; not when the client has gone. Acting twice is our own mistake."""
        if self._state != _DECIDING and self._state != _OVER:
            raise RuntimeError("this exchange is being answered already")
        return self._state == _DECIDING and not self._down.transport.is_closing()

    def _unread(self) -> bool:
        """Whether the request could be sent again in full."""
        upload = self._down.upload
        return self.request.framing is Framing.NONE or (upload is not None and not upload.begun)

    def _give_up(self, reason: Reason) -> None:
        """No app answers this; the client is told by the surface's page, or by a plain one."""
        self.failure = reason
        self._state = _DECIDING
        self._down.stop_upload()
        self._melt()
        if self._on_failure is None:
            self._say(reason, close=False)
            return
        try:
            self._on_failure(self, reason)
        except Exception as error:
            self._down.registry.report("a handler failed", error)
            self.fail()

    def fail(self) -> None:
        """Our own mistake: the request ends here, visibly."""
        if self._state == _DECIDING:
            self.failure = Reason.INTERNAL
            self._say(Reason.INTERNAL, close=True)
        else:
            self.abort()

    def _say(self, reason: Reason, *, close: bool) -> None:
        fields = (*PLAIN_FIELDS, RETRY_SOON) if reason.status == 503 else PLAIN_FIELDS
        self.respond(reason.status, fields, reason.sentence.encode() + b"\n", close=close)

    def _drop_upstream(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()

    def _truncate(self) -> None:
        """Ends what was begun so that no client can take it for complete."""
        # To an HTTP/1.0 client a body without length ends with FIN; only a reset tells it from a broken one.
        self._down.abort(reset=self._state == _ANSWERING)
        self._finish()

    def _end(self, close: bool) -> None:
        self._finish()
        self._down.proceed(close)

    def _finish(self) -> None:
        if self._state == _OVER:
            return
        self._state = _OVER
        self._down.exchange = None
        try:
            self._down.handler.finished(self)
        except Exception as error:
            self._down.registry.report("a handler failed", error)


PLAIN_FIELDS: Final[tuple[Field, ...]] = (
    (b"Content-Type", b"text/plain; charset=utf-8"),
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
)

RETRY_SOON: Final[Field] = (b"Retry-After", b"1")

_status_lines: dict[tuple[int, bytes], bytes] = {}


def _status_line(status: int, phrase: bytes) -> bytes:
    line = _status_lines.get((status, phrase))
    if line is None:
        line = b"HTTP/1.1 %d %b" % (status, phrase)
        if len(_status_lines) < 256:  # apps can invent phrases
            _status_lines[status, phrase] = line
    return line
