"""Every head that is refused, cut in two at every offset and a byte at a time: refused as in one piece.

The connection is one in memory, so that a piece is read when the test says so: over a socket two pieces may
arrive as one. `tests/stories/test_hostile_requests.py` does the same to some of them over real sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.evidence import Tried
from tests.stories.framing_rows import tricks
from tests.stories.test_hostile_requests import BODIES, HEADS
from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer
from ztproxy.wire.bodies import ChunkedBody
from ztproxy.wire.connections import Connections
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits

# What needs a session or the table of routes to be refused is let through by the guard; and of long rows it
# is the length that is refused.
BEHIND = ("H108", "P04", "P10", "P14", "P52", "our cookie twice")
ROWS = {name: row for name, row in HEADS.items() if not name.startswith(BEHIND) and len(row[1]) < 1000} | {
    row.name: (400 if row.expected is None else row.expected.status, row.raw)
    for row in tricks(b"a=b")
    if row.expected is None or isinstance(row.expected, Reason)
}

TRIED = (
    Tried(
        "Requests",
        "refused heads, cut in two at every offset and a byte at a time, on a connection in memory",
        len(ROWS),
        sum(len(raw) + 1 for _, raw in ROWS.values()),
        "the same refusal as in one piece",
    ),
)


class InMemory(asyncio.Transport):
    """The far end of a connection: keeps what it is told."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.said = b""
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.ended = True


class Nobody:
    """A handler for heads that must never get to one."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []
        self.handled = 0

    def handle(self, exchange: Exchange) -> None:
        self.handled += 1

    def refused(self, reason: Reason, peer: Peer) -> None:
        self.reasons.append(reason)

    def finished(self, exchange: Exchange) -> None: ...


def said(
    pieces: Sequence[bytes], registry: Connections, normaliser: Normaliser
) -> tuple[bytes, list[Reason]]:
    """What a new connection says to these pieces, and why."""
    nobody, transport = Nobody(), InMemory()
    connection = Downstream(nobody, normaliser, Limits(), False, registry)
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
    connection.connection_lost(None)
    assert nobody.handled == 0, "it became a request"
    assert transport.ended
    return transport.said, nobody.reasons


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in ROWS])
async def test_wherever_it_is_cut(name: str) -> None:
    status, raw = ROWS[name]
    registry = Connections(asyncio.get_running_loop(), Limits())
    normaliser = Normaliser(Reading(False, "__Host-ztproxy"))
    whole, reasons = said([raw], registry, normaliser)
    assert whole.startswith(b"HTTP/1.1 %d " % status) and whole.count(b"HTTP/1.1 ") == 1
    assert [reason.status for reason in reasons] == [status]
    for cut in range(1, len(raw)):
        heard, why = said([raw[:cut], raw[cut:]], registry, normaliser)
        assert (heard[:13], len(why), why[0].status) == (whole[:13], 1, status), (cut, heard)
    heard, why = said([bytes((byte,)) for byte in raw], registry, normaliser)
    assert (heard[:13], len(why), why[0].status) == (whole[:13], 1, status), heard


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in BODIES])
def test_a_body_wherever_it_is_cut(name: str) -> None:
    """It breaks the grammar, at the latest when all of it is there."""
    data = BODIES[name]
    for cut in range(1, min(len(data), 200)):
        body = ChunkedBody()
        assert body.feed(data[:cut]) is None or (not body.ended and body.feed(data[cut:]) is None)
