"""All that an app sends on one connection, through the real client side of it and a real pool.

No octet of one answer may become the start of another: an answer that is whole is whole however its octets
come, what is not is never ended, and only a connection with nothing left on it serves again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.core.words import APP
from tests.fuzz.targets.requests import pieces
from ztproxy.core.reasons import Reason
from ztproxy.wire.answer import Answer
from ztproxy.wire.pool import Pool
from ztproxy.wire.upstream import UpstreamConnection

_LOOP = asyncio.new_event_loop()  # for its clock: nothing here waits


class _Transport(asyncio.Transport):
    """A socket whose other end is `_outcome`: it takes what is written and knows whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Receiver:
    """What was heard: the answer, its payload, and how it ended: `ended`, `switched` or a reason."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.payload = b""
        self.end: str | Reason = ""

    def _more(self, payload: bytes, end: str | Reason) -> None:
        assert not self.end, "something is heard after the end"
        self.payload += payload
        self.end = end

    def answered(self, answer: Answer, payload: bytes, ended: bool) -> None:
        assert self.answer is None, "two answers to one request"
        self.answer = answer
        self._more(payload, "ended" if ended else "")

    def continued(self, payload: bytes, ended: bool) -> None:
        assert self.answer is not None
        self._more(payload, "ended" if ended else "")

    def switched(self, answer: Answer, rest: bytes) -> None:
        self.answer = answer
        self._more(rest, "switched")

    def failed(self, reason: Reason, stale: bool) -> None:
        self._more(b"", reason)

    def upstream_full(self) -> None:
        raise AssertionError("nothing is written that could fill it")

    def upstream_drained(self) -> None:
        raise AssertionError("nothing is written that could fill it")


def _outcome(method: str, given: Iterable[bytes]) -> tuple[_Receiver, bool]:
    """What is heard of `given` and then the end of the stream; whether the connection serves again before."""
    pool = Pool(APP.upstream, None, _LOOP)
    target = pool.targets[0]
    connection, transport, receiver = UpstreamConnection(pool, target), _Transport(), _Receiver()
    connection.connection_made(transport)
    pool.connections.add(connection)
    target.active += 1
    connection.start(receiver, b"", method, sending=False, upgrade=True)
    for piece in given:
        if transport.closed:
            break
        if receiver.end == "switched":
            receiver.payload += piece  # the connection is the tunnel's now
            continue
        connection.data_received(piece)
    again = connection in target.idle
    assert target.active == (0 if again or transport.closed else 1) and not (again and transport.closed)
    if not transport.closed and receiver.end != "switched":
        connection.eof_received()
        connection.connection_lost(None)
    assert receiver.end, "nobody is told how it ended"
    assert not again or receiver.end == "ended"
    return receiver, again


def answer_stream(data: bytes) -> None:
    """The same answer, payload and end whether it comes whole or in pieces."""
    if not data:
        return
    for method in ("GET", "HEAD"):
        whole, again = _outcome(method, [data])
        cut, again_cut = _outcome(method, pieces(data))
        assert (again, whole.end == "ended") == (again_cut, cut.end == "ended"), "the reads decide"
        if whole.end in ("ended", "switched"):
            assert (whole.answer, whole.payload, whole.end) == (cut.answer, cut.payload, cut.end)
        assert len(whole.payload) <= len(data) and (
            method != "HEAD" or not whole.payload or whole.end == "switched"
        )
