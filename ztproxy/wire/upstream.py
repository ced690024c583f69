"""The client side of one connection to an app: one request out, one answer in, again and again.

Knows: where an answer ends, and whether the connection may serve another request. Promises: its receiver
hears exactly one end for each request (`ended`, `failed` or `switched`), and nothing after it; a connection
goes back to its pool only when request and answer both ended exactly at their frames and nothing lay behind
them, so no octet of one answer can become the start of another (response-queue poisoning). A body that ends
early is reported as failed, never as ended. While it is frozen nothing that arrives is even parsed, and only
the total time runs on. Leaves time-outs to the pool's tick, which calls `expired`, and every choice to the
receiver.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, cast

from ztproxy.core.reasons import Reason
from ztproxy.wire.answer import Answer, read_answer
from ztproxy.wire.bodies import LAST_CHUNK, BodyReader, ChunkedBody, LengthBody, chunk
from ztproxy.wire.head import RESPONSE_HEAD_LIMIT, Body

if TYPE_CHECKING:
    from ztproxy.wire.pool import Pool, Target

# Members looked up through their class cost 90 ns each on Python 3.11.
_NO_BODY: Final = Body.NONE
_LENGTH: Final = Body.LENGTH
INTERIM_LIMIT: Final = 16
"""So many 1xx answers before the real one; an app that sends more is not talking HTTP to us."""

_IDLE, _AWAITING_HEAD, _IN_BODY, _SWITCHED, _CLOSED = range(5)


class Receiver(Protocol):
    """Who asked. `stale` says that a connection used before closed without a single octet of an answer."""

    def answered(self, answer: Answer, payload: bytes, ended: bool) -> None: ...
    def continued(self, payload: bytes, ended: bool) -> None: ...
    def switched(self, answer: Answer, rest: bytes) -> None: ...
    def failed(self, reason: Reason, stale: bool) -> None: ...
    def upstream_full(self) -> None: ...
    def upstream_drained(self) -> None: ...


class Guard(Protocol):
    """Asked before anything that arrived is read. Where it may not be, it is kept until `thaw`, and the guard
    is told `shut`.
    """

    def passes(self) -> bool: ...
    def shut(self) -> None: ...


class UpstreamConnection:
    """One connection, an `asyncio.Protocol` in all but ancestry (ADR 0015). `deadline` is in loop time; the
    pool calls `expired` once it has passed.
    """

    __slots__ = (
        "_body",
        "_frozen",
        "_gone",
        "_guard",
        "_held",
        "_interim",
        "_kept",
        "_method",
        "_paused",
        "_reusable",
        "_state",
        "_total_at",
        "_wants_upgrade",
        "deadline",
        "full",
        "pool",
        "receiver",
        "sending",
        "target",
        "transport",
        "uses",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool, target: Target) -> None:
        self.pool = pool
        self.target = target
        self.receiver: Receiver | None = None
        self.deadline = inf
        self.uses = 0
        self.sending = False  # our request is not complete yet
        self.full = False  # more of it waits to be sent than should
        self._state = _IDLE
        self._held = bytearray()  # of a head that is not complete
        self._body: BodyReader | None = None
        self._paused = False
        self._reusable = False
        self._interim = 0
        self._method = ""
        self._wants_upgrade = False
        self._total_at = inf
        self._guard: Guard | None = None
        self._frozen = False
        self._kept: deque[bytes] = deque()  # what arrived while frozen; b"" is the end of the stream
        self._gone = False  # it was lost while frozen

    # The request.

    def start(
        self,
        receiver: Receiver,
        head: bytes,
        method: str,
        *,
        sending: bool,
        upgrade: bool,
        guard: Guard | None = None,
    ) -> None:
        """Sends a request head; `sending` announces that `send` and `finish` follow."""
        self.receiver = receiver
        self._guard = guard
        self.uses += 1
        self.sending = sending
        self._state = _AWAITING_HEAD
        self._method = method
        self._wants_upgrade = upgrade
        pool = self.pool
        now = pool.clock()
        total_at = self._total_at = now + pool.total
        deadline = now + pool.first_byte
        self.deadline = total_at if sending or deadline > total_at else deadline
        self.transport.write(head)

    def send(self, payload: bytes, chunked: bool) -> None:
        """Passes on a piece of the request's body, which is not empty."""
        if self.transport.is_closing():
            return  # its loss will be told in a moment
        if chunked:
            self.transport.writelines(chunk(payload))
        else:
            self.transport.write(payload)

    def finish(self, chunked: bool) -> None:
        """The request's body is complete."""
        if chunked and not self.transport.is_closing():
            self.transport.write(LAST_CHUNK)
        self.sending = False
        if self._state == _AWAITING_HEAD:
            self.deadline = min(self.pool.clock() + self.pool.first_byte, self._total_at)

    # The answer.

    def data_received(self, data: bytes) -> None:
        guard = self._guard
        if guard is not None and not guard.passes():
            self._kept.append(data)
            guard.shut()
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        if self._state == _AWAITING_HEAD:
            self._read_head(data)
        elif self._state == _IN_BODY:
            self._read_body(data)
        else:
            # Nobody asked: whatever this is, the next answer must not begin with it.
            self.discard()

    def _read_head(self, data: bytes) -> None:
        held = self._held
        if held:
            # Searched on from where its end could begin: a head that comes a byte at a time costs its size.
            start = max(0, len(held) - 3)
            held += data
            if held.find(b"\r\n\r\n", start) < 0:
                self._holds()
                return
            data = bytes(held)
            held.clear()
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                held += data
                self._holds()
                return
            answer = read_answer(data if end == len(data) else data[:end], self._method)
            if answer is None:
                self._violated()
                return
            if answer.status >= 200:
                break
            if answer.status == 101:
                self._switch(answer, data[end:])
                return
            self._interim += 1
            if self._interim > INTERIM_LIMIT:
                self._violated()
                return
            data = data[end:]
            if not data:
                self._waits()
                return
        payload = data[end:] if end < len(data) else b""
        self._interim = 0
        self.target.failures = 0
        self._reusable = answer.reusable
        body: BodyReader | None = None
        kind = answer.body
        if kind is _NO_BODY or answer.length == 0:
            if payload:
                self._reusable = False
            ended, payload = True, b""
        elif kind is _LENGTH:
            length = answer.length or 0
            size = len(payload)
            ended = size >= length
            if not ended:
                body = LengthBody(length - size)
            elif size > length:
                self._reusable = False
                payload = payload[:length]
        elif kind is Body.CHUNKED:
            body = ChunkedBody()
            decoded = body.feed(payload) if payload else b""
            if decoded is None:
                self._violated()
                return
            payload, ended = decoded, body.ended
            if body.rest:
                self._reusable = False
        else:
            ended = False
        receiver = self.receiver
        assert receiver is not None
        if ended:
            self._complete()
        else:
            self._state = _IN_BODY
            self._body = body
            self._waits()
        receiver.answered(answer, payload, ended)

    def _holds(self) -> None:
        """What is held is no whole head yet, and may become one."""
        if len(self._held) > RESPONSE_HEAD_LIMIT or not b"HTTP/1.".startswith(bytes(self._held[:7])):
            self._violated()
        else:
            self._waits()

    def _read_body(self, data: bytes) -> None:
        receiver, body = self.receiver, self._body
        assert receiver is not None
        if body is None:  # to the end of the connection
            self._waits()
            receiver.continued(data, False)
            return
        payload = body.feed(data)
        if payload is None:
            self._violated()
            return
        if body.ended:
            if body.rest:
                self._reusable = False
            self._complete()
            receiver.continued(payload, True)
            return
        self._waits()
        if payload:
            receiver.continued(payload, False)

    def _switch(self, answer: Answer, rest: bytes) -> None:
        receiver = self.receiver
        # Who was frozen and has gone meanwhile cannot be at the other end of a tunnel.
        if not self._wants_upgrade or receiver is None or self._gone or b"" in self._kept:
            self._violated()
            return
        rest += b"".join(self._kept)
        self._kept.clear()
        self._state = _SWITCHED
        self.receiver = None
        self.deadline = inf
        receiver.switched(answer, rest)

    def _waits(self) -> None:
        """More of the answer must come within the idle time, unless it is the client who is slow."""
        if not self._paused:
            self.deadline = min(self.pool.clock() + self.pool.idle, self._total_at)

    def _waits_again(self) -> None:
        """After a pause the app has its whole time anew, for whatever it is that it owes."""
        if self._state == _IN_BODY:
            self._waits()
        elif self._state == _AWAITING_HEAD and not self._paused:
            pool = self.pool
            seconds = pool.idle if self.full else inf if self.sending else pool.first_byte
            self.deadline = min(pool.clock() + seconds, self._total_at)

    def _complete(self) -> None:
        """The answer ended; the connection serves again only if nothing about it is in doubt."""
        self.receiver = self._guard = None
        self._body = None
        self._state = _IDLE
        if self._paused:
            self.resume_reading()
        # Not with a request still on its way out: the next one would neither be told nor be timed.
        if self._reusable and not self.sending and not self.full and not self._kept:
            self.pool.release(self)
        else:
            self.pool.retire(self)

    # Flow.

    def pause_reading(self) -> None:
        """The client is slow; its own timer counts now, not ours."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.deadline = self._total_at
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if self._frozen:
                return
            if not self.transport.is_closing():
                self.transport.resume_reading()
            self._waits_again()

    def pause_writing(self) -> None:
        self.full = True
        if self.receiver is not None:
            if not self._frozen:
                self.deadline = min(self.pool.clock() + self.pool.idle, self._total_at)
            self.receiver.upstream_full()

    def resume_writing(self) -> None:
        self.full = False
        if self.receiver is not None:
            if self.sending:
                self.deadline = self._total_at
            self.receiver.upstream_drained()

    # Frozen.

    def freeze(self, guard: Guard) -> None:
        """Whatever arrives is kept until `thaw`; at most what the transport had in flight."""
        if not self._frozen:
            self._frozen = True
            self._guard = guard
            self.deadline = self._total_at
            if not self._paused and not self.transport.is_closing():
                self.transport.pause_reading()

    def thaw(self) -> None:
        """Goes on, with what was kept first, in order; the receiver may freeze it again at any of it."""
        self._frozen = False
        if not self._paused and not self.transport.is_closing():
            self.transport.resume_reading()
        self._waits_again()
        while self._kept:
            guard = self._guard
            if guard is not None and not guard.passes():
                guard.shut()
                return
            data = self._kept.popleft()
            if data:
                self._read(data)
            else:
                self._read_end()
        if self._gone:
            self._lost()

    # The end.

    def discard(self) -> None:
        """Drops the connection at once; its receiver hears nothing more."""
        self._kept.clear()
        self._frozen = False
        self.receiver = self._guard = None
        self._state = _CLOSED
        self.pool.forget(self)
        self.transport.abort()

    def expired(self) -> None:
        """The deadline has passed."""
        if self.receiver is None:
            self.discard()
        else:
            self._fail(Reason.UPSTREAM_TIMEOUT, False)

    def _violated(self) -> None:
        self._fail(Reason.UPSTREAM_INVALID, False)

    def _fail(self, reason: Reason, stale: bool) -> None:
        receiver = self.receiver
        self.discard()
        if not stale:
            self.pool.blame(self.target, reason)
        if receiver is not None:
            receiver.failed(reason, stale)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not `isinstance`: uvloop's transports are asyncio's in everything but ancestry.
        self.transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> None:
        guard = self._guard
        if self._frozen:
            self._kept.append(b"")
        elif guard is not None and self._ends_with_the_stream and not guard.passes():
            self._kept.append(b"")
            guard.shut()
        else:
            self._read_end()

    @property
    def _ends_with_the_stream(self) -> bool:
        return self._state == _IN_BODY and self._body is None

    def _read_end(self) -> None:
        if self._ends_with_the_stream:
            # RFC 9112 6.3 rule 8: a body without a length ends with the connection, and only with a clean
            # end.
            receiver = self.receiver
            assert receiver is not None
            self._reusable = False
            self._complete()
            receiver.continued(b"", True)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._frozen:
            self._gone = True
        else:
            self._lost()

    def _lost(self) -> None:
        if self._state == _AWAITING_HEAD:
            untouched = not self._held and not self._interim
            reason = Reason.UPSTREAM_UNREACHABLE if untouched else Reason.UPSTREAM_INVALID
            self._fail(reason, untouched and self.uses > 1)
        elif self._state == _IN_BODY:
            self._fail(Reason.UPSTREAM_INVALID, False)
        else:
            self._state = _CLOSED
            self.pool.forget(self)
