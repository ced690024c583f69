"""All client connections of one worker: how many, how long, and their end; and what they share.

Knows: who is connected. Promises: the total and per-address caps hold; `tick`, called about twice a second,
enforces every timer of every connection, so that no request needs a timer of its own; after `drain` no
connection outlives its answer, and WebSockets are told to go. Leaves to its owner: calling `tick`, and when
to give up waiting (`abort`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Final, Protocol

from ztproxy.wire.agreement import SecondOpinion
from ztproxy.wire.limits import Limits

if TYPE_CHECKING:
    from ztproxy.wire.downstream import Downstream
    from ztproxy.wire.exchange import Exchange

TICK: Final = 0.5
"""Seconds between two looks at the timers, which are all coarse."""

_IDS_AT_ONCE: Final = 256
_ID_LENGTH: Final = 32


class Connections:
    """The registry. One a worker, made after the fork: request ids must not repeat between workers.

    `date` is the Date field line, as fresh as the last tick.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self.loop = loop
        self.clock = loop.time
        self.limits = limits
        self.draining = False
        self.refused = 0
        self.accepted = 0
        self.second_opinion = SecondOpinion()
        self.date = _date()
        self._all: set[Downstream] = set()
        self._by_address: dict[str, int] = {}
        self._ids = ""
        self._next = 0

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Downstream) -> bool:
        """Counts a connection in, unless there are too many already."""
        address = connection.peer.address
        already = self._by_address.get(address, 0)
        if len(self._all) >= self.limits.connections or already >= self.limits.connections_per_address:
            self.refused += 1
            return False
        self.accepted += 1
        self._all.add(connection)
        self._by_address[address] = already + 1
        connection.address = address
        return True

    def remove(self, connection: Downstream) -> None:
        if connection in self._all:
            self._all.remove(connection)
            left = self._by_address[connection.address] - 1
            if left:
                self._by_address[connection.address] = left
            else:
                del self._by_address[connection.address]

    def tick(self, now: float) -> None:
        """Ends what is overdue at loop time `now`."""
        self.date = _date()
        for connection in [one for one in self._all if one.deadline <= now]:
            connection.expired(now)
        if self.draining:
            # A WebSocket that was in the middle of a frame when it was to be told may be between two now.
            for connection in [one for one in self._all if one.tunnel is not None]:
                connection.retire()

    def under_way(self) -> list[Exchange]:
        """The exchanges under way that were let in on a judgement, for those who judge again."""
        exchanges = [one.exchange for one in self._all]
        return [one for one in exchanges if one is not None and one.grant is not None and one.under_way]

    def drain(self) -> None:
        """Idle connections close; the others are told `Connection: close` with their answer, or 1001."""
        self.draining = True
        for connection in tuple(self._all):
            connection.retire()

    def abort(self) -> None:
        """Drops every connection now."""
        for connection in tuple(self._all):
            if connection.exchange is not None:
                connection.exchange.abort()
            else:
                connection.abort(reset=False)

    def next_id(self) -> str:
        """A request id: 128 random bits in hexadecimal, cut from a larger draw because `urandom` is a
        system call.
        """
        start = self._next
        if start == len(self._ids):
            self._ids = os.urandom(_IDS_AT_ONCE * _ID_LENGTH // 2).hex()
            start = 0
        self._next = start + _ID_LENGTH
        return self._ids[start : start + _ID_LENGTH]

    def report(self, what: str, error: Exception) -> None:
        """A mistake of ours, for the loop's exception handler, which logs it."""
        self.loop.call_exception_handler({"message": what, "exception": error})


class Ticking(Protocol):
    """Who has timers: `Connections` and every `Pool`."""

    def tick(self, now: float) -> None: ...


class Ticker:
    """Calls `tick` on all of `ticking()` every `TICK` seconds until stopped; one that fails does not stop
    the rest.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ticking: Callable[[], list[Ticking]],
        interval: float = TICK,
    ) -> None:
        self._loop = loop
        self._ticking = ticking
        self._interval = interval
        self._timer = loop.call_later(interval, self._tick)

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._tick)
        now = self._loop.time()
        for one in self._ticking():
            try:
                one.tick(now)
            except Exception as error:
                self._loop.call_exception_handler({"message": "a timer failed", "exception": error})


def _date() -> bytes:
    return b"Date: " + formatdate(usegmt=True).encode("ascii")
