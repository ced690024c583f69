"""The connections to one upstream: which endpoint, which connection, how many, and which are ill.

Knows: the endpoints of one `Upstream`, their load and their failures. Promises: `acquire` answers at once
when an idle connection exists (no task, no future, no lock); never more than `max_connections` are open; an
endpoint put aside by its failures or its health check is used only when every endpoint is. Leaves to its
owner: calling `tick` about twice a second, and `close`. Times are loop time in seconds.
"""

from __future__ import annotations

import asyncio
import errno
import select
import ssl
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from math import inf
from typing import Protocol, cast

from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import Balance, Endpoint, Upstream
from ztproxy.wire.health import watch
from ztproxy.wire.upstream import UpstreamConnection

LONGEST_EJECTION = 8
"""An endpoint is put aside for at most so many times the configured seconds."""


class Target:
    """One endpoint and what we know about it."""

    __slots__ = (
        "active",
        "authority",
        "credit",
        "ejected_until",
        "ejections",
        "endpoint",
        "failures",
        "healthy",
        "host",
        "idle",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.authority = endpoint.authority
        self.host = endpoint.authority.encode("ascii")
        self.idle: list[UpstreamConnection] = []
        self.active = 0  # connections that serve a request now
        self.credit = 0  # smooth weighted round robin
        self.failures = 0  # in a row
        self.ejections = 0  # in a row
        self.ejected_until = 0.0
        self.healthy = True


class Seeker(Protocol):
    """Who waits for a connection. `connected` answers whether it still wants it."""

    def connected(self, connection: UpstreamConnection) -> bool: ...
    def unreachable(self, reason: Reason) -> None: ...


class Pool:
    """All connections of this worker to one upstream. The counters are for metrics and only grow."""

    def __init__(
        self, upstream: Upstream, ssl_context: ssl.SSLContext | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        if upstream.tls is not None and ssl_context is None:
            raise ValueError("an upstream with TLS needs a context")
        self.upstream = upstream
        self.loop = loop
        self.clock = loop.time
        self.targets = tuple(Target(endpoint) for endpoint in upstream.endpoints)
        timeouts = upstream.timeouts
        self.first_byte = _limit(timeouts.first_byte)
        self.idle = _limit(timeouts.idle)
        self.total = _limit(timeouts.total)
        self.tunnel_idle = _limit(timeouts.tunnel_idle)
        self.connections: set[UpstreamConnection] = set()
        self.connects = self.connect_failures = self.retries = self.busy = self.ejections = 0
        self.failures: dict[Reason, int] = {}
        self._context = ssl_context
        self._opening = 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        health = upstream.health
        self._watchers = (
            [] if health is None else [self._spawn(watch(self, target, health)) for target in self.targets]
        )

    def acquire(
        self, seeker: Seeker, *, fresh: bool = False, sure: bool = False
    ) -> UpstreamConnection | Reason | None:
        """An idle connection; or a reason why there will be none; or None: `seeker` will be called.

        `fresh` asks for a new connection. `sure` looks at the socket before lending an idle connection: a
        request that cannot be sent twice should not meet one that the app has just closed (the race cannot
        be closed, only made small).
        """
        target = self.targets[0] if len(self.targets) == 1 else self._choose(())
        if not fresh:
            idle = target.idle
            while idle:
                connection = idle.pop()
                if connection.transport.is_closing() or (sure and _has_news(connection)):
                    connection.discard()
                    continue
                target.active += 1
                return connection
        if self._closed:
            return Reason.UPSTREAM_UNREACHABLE
        if len(self.connections) + self._opening >= self.upstream.max_connections and not self._make_room():
            self.busy += 1
            return Reason.UPSTREAM_BUSY
        self._opening += 1
        self._spawn(self._open(target, seeker))
        return None

    def release(self, connection: UpstreamConnection) -> None:
        """Takes back a connection on which everything ended as it should."""
        if self._closed:
            self.retire(connection)
            return
        target = connection.target
        target.active -= 1
        target.ejections = 0
        connection.deadline = self.clock() + self.upstream.keep_alive
        target.idle.append(connection)

    def retire(self, connection: UpstreamConnection) -> None:
        """Closes a connection that did its work but cannot do more."""
        self.forget(connection)
        connection.transport.abort()

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is gone, or is somebody else's now."""
        if connection in self.connections:
            self.connections.remove(connection)
            target = connection.target
            if connection in target.idle:
                target.idle.remove(connection)
            else:
                target.active -= 1

    def blame(self, target: Target, reason: Reason) -> None:
        """One more failure of an endpoint; enough of them in a row put it aside."""
        self.failures[reason] = self.failures.get(reason, 0) + 1
        target.failures += 1
        ejection = self.upstream.ejection
        if ejection is not None and target.failures >= ejection.failures:
            factor = min(2**target.ejections, LONGEST_EJECTION)
            target.ejected_until = self.clock() + ejection.seconds * factor
            target.ejections += 1
            target.failures = 0
            self.ejections += 1

    def tick(self, now: float) -> None:
        """Ends what is overdue: requests past a time-out, idle connections past their keep-alive."""
        overdue = [connection for connection in self.connections if connection.deadline <= now]
        for connection in overdue:
            connection.expired()

    def close(self) -> None:
        """No new requests: idle connections close now, busy ones after their answer, and who waits is
        served.
        """
        self._closed = True
        for watcher in self._watchers:
            watcher.cancel()
        for target in self.targets:
            for connection in tuple(target.idle):
                connection.discard()

    async def connect(self, target: Target) -> UpstreamConnection:
        """A new connection to one endpoint, counted as active. Raises OSError (TimeoutError among them)."""
        endpoint, tls = target.endpoint, self.upstream.tls
        name = None if tls is None else tls.server_name or endpoint.host
        connection = UpstreamConnection(self, target)
        async with asyncio.timeout(self.upstream.timeouts.connect):
            await self.loop.create_connection(
                cast("Callable[[], asyncio.Protocol]", lambda: connection),
                endpoint.host,
                endpoint.port,
                ssl=self._context if tls is not None else None,
                server_hostname=name,
            )
        self.connects += 1
        self.connections.add(connection)
        target.active += 1
        return connection

    async def _open(self, target: Target, seeker: Seeker) -> None:
        """Connects for `seeker`, trying each endpoint at most once: nothing was sent, so nothing can happen
        twice.
        """
        tried = {target}
        connection: UpstreamConnection | None = None
        reason = Reason.UPSTREAM_UNREACHABLE
        try:
            while True:
                try:
                    connection = await self.connect(target)
                    break
                except OSError as error:
                    if error.errno in _OURS:
                        reason = Reason.OVERLOADED
                        break
                    reason = (
                        Reason.UPSTREAM_TIMEOUT
                        if isinstance(error, TimeoutError)
                        else Reason.UPSTREAM_UNREACHABLE
                    )
                    self.connect_failures += 1
                    self.blame(target, reason)
                if len(tried) == len(self.targets):
                    break
                target = self._choose(tried)
                tried.add(target)
        finally:
            self._opening -= 1
        if connection is None:
            seeker.unreachable(reason)
        elif not seeker.connected(connection):
            self.release(connection)

    def _choose(self, tried: AbstractSet[Target] | tuple[()]) -> Target:
        now = self.clock()
        candidates = [
            target
            for target in self.targets
            if target.healthy and target.ejected_until <= now and target not in tried
        ] or [target for target in self.targets if target not in tried]
        for target in candidates:
            target.credit += target.endpoint.weight
        if self.upstream.balance is Balance.LEAST_REQUESTS:
            # Among equals the turn decides, so that a quiet pool still uses every endpoint.
            chosen = min(candidates, key=lambda t: (t.active / t.endpoint.weight, -t.credit))
        else:
            chosen = max(candidates, key=lambda target: target.credit)
        chosen.credit -= sum(target.endpoint.weight for target in candidates)
        return chosen

    def _make_room(self) -> bool:
        """Closes an idle connection of another endpoint, so that idleness never keeps a request out."""
        for target in self.targets:
            if target.idle:
                target.idle[0].discard()
                return True
        return False

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks.add(task)  # the loop alone would not keep it alive
        task.add_done_callback(self._tasks.discard)
        return task


_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What fails here and not at the endpoint, which is not to be put aside for it."""


def _limit(seconds: float | None) -> float:
    return inf if seconds is None else seconds


def _has_news(connection: UpstreamConnection) -> bool:
    """Whether the kernel holds octets or an end for an idle connection: either way it is of no use."""
    descriptor = connection.transport.get_extra_info("socket").fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))
