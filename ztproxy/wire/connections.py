"""All client connections of one worker: how many, how long, and their end; and what they share.

Knows: who is connected, and who is about to be: a handshake under way holds a place like any other. Promises:
the total and per-address caps hold; where the total is reached, one that nothing is under way on makes way,
the oldest that nobody is known on, else, where known ones have more than half of the places, one of them that
was not used of late; `tick`, called about twice a second, enforces every timer of every connection, so that
no request needs a timer of its own, and the stage of overload; a connection that fails at it ends alone;
after `drain` no connection outlives its answer, and WebSockets are told to go. Leaves to its owner: calling
`tick`, measuring the pressure, and when to give up waiting (`abort`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol

from ztproxy.core.overload import Pressure, Stage, next_stage
from ztproxy.core.rates import source_of
from ztproxy.core.reasons import Reason
from ztproxy.wire.agreement import SecondOpinion
from ztproxy.wire.limits import Limits

if TYPE_CHECKING:
    from ztproxy.wire.downstream import Downstream
    from ztproxy.wire.exchange import Exchange
    from ztproxy.wire.handshake import HelloGate

TICK: Final = 0.5
"""Seconds between two looks at the timers, which are all coarse."""

_IDS_AT_ONCE: Final = 256
_ID_LENGTH: Final = 32
_LOOKED_AT: Final = 64
"""Of those who may have to make way, so many are looked at for one newcomer: a flood must not cost a walk
through everybody for each of its connections.
"""

_A_MOMENT: Final = 1.0
"""Seconds in which a newcomer is not ended for being idle while requests are refused: its first one gets 503,
which says when to come again.
"""

_log = logging.getLogger("ztproxy.overload")


class Guest(Protocol):
    """Who holds a place: a connection, or a handshake. `source` is under what it is counted, empty where
    it is not; `busy`: something is under way on it; `used`: something was, since it was looked at last.
    `give_way` ends it at once."""

    source: str
    used: bool

    @property
    def busy(self) -> bool: ...

    def give_way(self) -> None: ...


def no_pressure() -> Pressure:
    return Pressure()


class Connections:
    """The registry. One a worker, made after the fork: request ids must not repeat between workers.

    `date` is the Date field line, as fresh as the last tick. `allow` is the value of an Allow field: the
    methods that some route takes. `exempt`: addresses that the cap per address does not bind, as many people
    come from each of them. `closing`: connections end with their answer; `refusing`: no new request is taken.
    Both are read for each request, and set here alone. `refused`, `evicted`, `accepted` are running totals.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        pressure: Callable[[], Pressure] = no_pressure,
        exempt: Sequence[IPv4Network | IPv6Network] = (),
    ) -> None:
        self.loop = loop
        self.clock = loop.time
        self.limits = limits
        self.exempt = exempt
        self.allow = b""
        self.stage = Stage.CALM
        self.draining = self.closing = self.refusing = False
        self.refused = 0
        self.evicted = 0
        self.accepted = 0
        self.second_opinion = SecondOpinion()
        self.date = _date()
        self.pressure = Pressure()  # when last looked at
        self._measure = pressure
        self._all: set[Downstream] = set()
        self._handshakes: set[HelloGate] = set()
        # INVARIANT: everybody in the two sets is in one of these too: with the time they came, by age, until
        # somebody is known on them; then in the order in which they are looked at.
        self._unknown: OrderedDict[Guest, float] = OrderedDict()
        self._known: OrderedDict[Guest, None] = OrderedDict()
        self._by_source: dict[str, int] = {}
        self._ids = ""
        self._next = 0

    def __len__(self) -> int:
        return len(self._all) + len(self._handshakes)

    # Who is let in.

    def admit(self, connection: Downstream) -> Reason | None:
        """Counts a connection in, or says why not."""
        why = self._place(connection, connection.peer.address)
        if why is None:
            self.accepted += 1
            self._all.add(connection)
        return why

    def enter(self, gate: HelloGate) -> bool:
        """Counts a handshake in, if there is a place."""
        if self.draining or self._place(gate, gate.address) is not None:
            return False
        self._handshakes.add(gate)
        return True

    def leave(self, gate: HelloGate) -> None:
        if gate in self._handshakes:
            self._handshakes.remove(gate)
            self._release(gate)

    def remove(self, connection: Downstream) -> None:
        if connection in self._all:
            self._all.remove(connection)
            self._release(connection)

    def know(self, connection: Downstream) -> None:
        """Something is forwarded on it for a person, for the first time: it makes way after everybody on whom
        this was never so."""
        connection.known = True
        del self._unknown[connection]
        self._known[connection] = None

    def _place(self, guest: Guest, address: str) -> Reason | None:
        if self.stage is Stage.SHEDDING:
            self.refused += 1
            return Reason.OVERLOADED
        source = "" if self._is_exempt(address) else source_of(address)
        already = self._by_source.get(source, 0) if source else 0
        full = len(self) >= self.limits.connections
        if already >= self.limits.connections_per_address or (full and not self._make_room()):
            self.refused += 1
            return Reason.TOO_MANY_CONNECTIONS
        guest.source = source
        if source:
            # Looked up again: the one that made way may have been of the same source.
            self._by_source[source] = self._by_source.get(source, 0) + 1
        self._unknown[guest] = self.clock()
        return None

    def _release(self, guest: Guest) -> None:
        if self._unknown.pop(guest, None) is None:
            self._known.pop(guest, None)
        if guest.source:
            left = self._by_source[guest.source] - 1
            if left:
                self._by_source[guest.source] = left
            else:
                del self._by_source[guest.source]

    def _is_exempt(self, address: str) -> bool:
        if not self.exempt:
            return False
        known = ip_address(address)
        return any(known in network for network in self.exempt)

    def _make_room(self) -> bool:
        """Ends the first that may be ended; False if none was found. What is busy goes to the end of its
        line, so that the next newcomer does not look at it again."""
        if self._first_idle(self._unknown):
            return True
        # INVARIANT: below half of the places those who are known are safe, from strangers with requests under
        # way too; above it one person with very many would keep every newcomer out.
        return 2 * len(self._known) > self.limits.connections and self._first_idle(self._known)

    def _first_idle(self, line: OrderedDict[Guest, Any]) -> bool:
        for _ in range(min(len(line), _LOOKED_AT)):
            first = next(iter(line))
            if not first.busy and not first.used:
                self._evict(first)
                return True
            # A mark, and not a place in the line moved at each use, which every request would pay for.
            first.used = False
            line.move_to_end(first)
        return False

    def _evict(self, guest: Guest) -> None:
        self.evicted += 1
        self._end(guest)

    def _end(self, guest: Guest) -> None:
        # Its place is free from now on, not only when the loop has told of its end: one turn of the loop may
        # bring a thousand newcomers.
        self._all.discard(guest)
        self._handshakes.discard(guest)
        self._release(guest)
        try:
            guest.give_way()
        except Exception as error:  # the newcomer, and the others, have no part in it
            self.report("ending a connection failed", error)

    # Time.

    def tick(self, now: float) -> None:
        """Ends what is overdue at loop time `now`, and looks at the pressure."""
        self.date = _date()
        for connection in [one for one in self._all if one.deadline <= now]:
            self._each(connection, partial(connection.expired, now))
        self._look()
        if self.draining:
            # A WebSocket that was in the middle of a frame when it was to be told may be between two now.
            for connection in [one for one in self._all if one.tunnel is not None]:
                self._each(connection, connection.retire)
        elif self.refusing:
            guests: list[Guest] = [one for one, came in self._unknown.items() if came + _A_MOMENT <= now]
            if self.stage is Stage.SHEDDING:
                guests = [*self._unknown, *self._known]
            for guest in guests:
                if not guest.busy:
                    self._evict(guest)

    def _each(self, connection: Downstream, act: Callable[[], None]) -> None:
        """A mistake of ours about one connection ends that one, and nobody else's timers."""
        try:
            act()
        except Exception as error:
            self.report("a timer of a connection failed", error)
            connection.transport.abort()

    def _look(self) -> None:
        pressure, before = self._measure(), self.stage
        self.pressure = pressure
        stage = self.stage = next_stage(before, pressure)
        self.closing = self.draining or stage >= Stage.FRUGAL
        self.refusing = stage >= Stage.REFUSING
        if stage is not before:
            _log.warning(
                "%s after %s: %.1f %% of the memory and %.1f %% of the descriptors are used, %d connections",
                stage.name.lower(),
                before.name.lower(),
                100 * pressure.memory,
                100 * pressure.descriptors,
                len(self),
            )

    def under_way(self) -> list[Exchange]:
        """The exchanges under way that were let in on a judgement, for those who judge again."""
        exchanges = [one.exchange for one in self._all]
        return [one for one in exchanges if one is not None and one.grant is not None and one.under_way]

    def drain(self) -> None:
        """Idle connections and handshakes end; the others are told `Connection: close` with their answer, or
        1001.
        """
        self.draining = self.closing = True
        for gate in tuple(self._handshakes):
            self._end(gate)
        for connection in tuple(self._all):
            connection.retire()

    def abort(self) -> None:
        """Drops every connection and handshake now."""
        for gate in tuple(self._handshakes):
            self._end(gate)
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
    the rest. `late`: by how many seconds the last one came too late; the loop was busy, or had no processor.
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
        self.late = 0.0

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        self.late = max(0.0, now - self._timer.when())
        self._timer = self._loop.call_later(self._interval, self._tick)
        for one in self._ticking():
            try:
                one.tick(now)
            except Exception as error:
                self._loop.call_exception_handler({"message": "a timer failed", "exception": error})


def _date() -> bytes:
    return b"Date: " + formatdate(usegmt=True).encode("ascii")
