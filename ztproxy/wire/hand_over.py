"""A connection given away: another protocol serves the rest of one request, and never a second one.

Knows: where the request ends. Promises: the other protocol gets the rebuilt head, exactly the octets of the
request's body, and every event of the transport, `connection_lost` included. Octets after the body are
dropped. Leaves to the other protocol the answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ztproxy.wire.bodies import BodyReader

if TYPE_CHECKING:
    from ztproxy.wire.downstream import Downstream


class HandedOver(asyncio.Protocol):
    """Stands between the transport and the other protocol, so that we learn of the end."""

    __slots__ = ("_body", "_down", "_protocol")

    def __init__(self, down: Downstream, protocol: asyncio.Protocol, body: BodyReader | None) -> None:
        self._down = down
        self._protocol = protocol
        self._body = body

    @property
    def whole(self) -> bool:
        """Whether all of the request is here."""
        return self._body is None

    def start(self, head: bytes, held: bytes) -> None:
        transport = self._down.transport
        transport.set_protocol(self)
        self._protocol.connection_made(transport)
        self._protocol.data_received(head)
        if held:
            self.data_received(held)

    def data_received(self, data: bytes) -> None:
        # INVARIANT: what follows the body would be a second request that nobody judged; it goes nowhere.
        body = self._body
        if body is None:
            return
        if body.feed(data) is None:
            self._down.transport.abort()
            return
        if body.ended:
            self._body = None
            data = data[: len(data) - len(body.rest)]
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        down = self._down
        down.registry.remove(down)
        if down.exchange is not None:
            down.exchange.over()
