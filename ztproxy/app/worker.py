"""What lives as long as a worker process: the listeners, the state's connections, the lease, logs and
metrics.

Knows: which concrete classes meet here. Promises: a reload either swaps all of a configuration or changes
nothing; no person is let in before this worker holds a lease. Leaves processes and signals to `processes` and
`cli`, and what lives as long as a configuration to `plane`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Mapping

from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.adapters.pressure import Meter, most_connections, soft_limit
from ztproxy.app.devices import client_auth
from ztproxy.app.plane import Builder, close_pools, reads
from ztproxy.app.state import LeasedState, boottime
from ztproxy.config.settings import Listener, Settings
from ztproxy.core.audit import AuditEvent
from ztproxy.core.lease import Why
from ztproxy.core.locks import Lock, TargetKind
from ztproxy.core.normalise import Normaliser, RawHead
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer, Request
from ztproxy.errors import OperatorError
from ztproxy.gateway.judgement import Judgement
from ztproxy.gateway.watch import Watch
from ztproxy.recorder import Recorder
from ztproxy.surfaces.proxy import ProxySurface
from ztproxy.surfaces.to_https import ToHTTPS
from ztproxy.wire import listener as listening
from ztproxy.wire.connections import Connections, Ticker, Ticking
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.limits import Limits
from ztproxy.wire.tls import ServerTLS

_log = logging.getLogger("ztproxy.overload")


class _Reader:
    """Reads heads by the configuration in force, also on connections that are older than it."""

    __slots__ = ("normaliser",)

    def __init__(self, normaliser: Normaliser) -> None:
        self.normaliser = normaliser

    def read(self, head: RawHead, peer: Peer, /) -> Request | Reason:
        return self.normaliser.read(head, peer)


class Worker:
    """One process's share of the proxy: `start`, `reload` as often as needed, then `drain` and `close`.

    `sockets` are listening sockets by address that somebody opened for it; the others it opens itself.
    `place` is its own on this node.
    """

    def __init__(
        self,
        settings: Settings,
        state_url: str,
        recorder: Recorder,
        sockets: Mapping[str, socket.socket] | None = None,
        place: str = "worker-0",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._recorder = recorder
        self._sockets = dict(sockets or {})
        self._http = provider_session()
        pressure = Meter(settings.limits.memory)
        self.connections = Connections(self._loop, _limits(settings), pressure, settings.trusted_proxies)
        self.connections.allow = _methods(settings)
        most = self.connections.limits.connections
        if most < settings.limits.connections:
            _log.info("at most %d connections at once, as %d descriptors are allowed", most, soft_limit())
        self.state = LeasedState(
            settings, state_url, place, recorder.metrics.revocation, self._applied, self._started_over
        )
        self._builder = Builder(self.state, self._http, recorder, self._loop)
        self._config = self._builder.build(settings, {})
        self._readers = {way: _Reader(one) for way, one in self._config.normalisers.items()}
        self._closing: set[asyncio.Task[None]] = set()
        self._judged_by = 0  # the revision of the verifier
        self.watch = Watch(
            self.state.keeper,
            self.connections.under_way,
            self._rejudge,
            self._loop,
            time.time,
            boottime,
            settings.revocation.stream_grace,
        )
        self._surface = ProxySurface(self._config.plane, self.watch, recorder.finished, recorder.refused)
        self._to_https = ToHTTPS(self._https_origin, recorder.finished, recorder.refused)
        self._servers: list[asyncio.Server] = []
        self._tls: list[ServerTLS] = []
        self._ticker = Ticker(self._loop, self._ticking)
        self.addresses: list[str] = []

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self._config.settings

    # -- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the listeners and begins to ask for a lease. The state may be away: people then get their 503
        until it is back. Raises `OperatorError` for a state that must not be used."""
        await self.state.start()
        for one in self._config.settings.listeners:
            await self._listen(one)

    def ready(self) -> str:
        """Empty when this worker can serve people, else what is missing."""
        return self.state.missing()

    def promise(self) -> str:
        """What a confirmed revocation is worth here, in a few words; empty while nobody knows."""
        topology = self.state.keeper.topology
        return "" if topology is None else f"{'strict' if topology.strict else 'bounded'}: {topology.why}"

    def measure(self) -> None:
        """Notes what the metrics show of this moment."""
        metrics, keeper = self._recorder.metrics, self.state.keeper
        metrics.state_up = not keeper.away
        connections, pressure = self.connections, self.connections.pressure
        metrics.connections = len(connections)
        metrics.connections_refused, metrics.connections_evicted = connections.refused, connections.evicted
        metrics.overload_stage, metrics.loop_late = connections.stage, self._ticker.late
        metrics.memory_pressure, metrics.descriptor_pressure = pressure
        metrics.lease_seconds = max(0.0, keeper.until - boottime())
        metrics.push_connected = keeper.pushed
        metrics.applied = keeper.book.applied
        metrics.frozen, metrics.cut = self.watch.frozen, self.watch.cuts
        metrics.audit_failures, metrics.audit_queued = self.state.audit.failures, self.state.audit.queued

    def reload(self, settings: Settings) -> None:
        """Takes another configuration into force. Raises `OperatorError` and changes nothing if it cannot.

        Open exchanges go on until they were judged again, which begins at once; kept upstreams keep their
        connections. What a listening socket or the state's connections are made of needs a restart.
        """
        before = self._config
        settings.takes_over_from(before.settings)
        self._config = self._builder.build(settings, before.pools, before.verifying)
        # INVARIANT: nothing from here on can fail, and nothing is awaited: all of it is swapped, or none.
        self._surface.plane = self._config.plane
        for way, normaliser in self._config.normalisers.items():
            self._readers[way].normaliser = normaliser
        self.connections.allow, self.connections.exempt = _methods(settings), settings.trusted_proxies
        if before.verifying not in (None, self._config.verifying):
            closing = self._loop.create_task(before.verifying.verifier.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        close_pools(before.pools, self._config.pools)
        self.state.use_keys(self._config.ring)
        self.watch.check_all()

    def reload_certificates(self) -> None:
        """Reads listener certificates again where their files changed. Raises `OperatorError` for bad pairs,
        whose old ones stay in service, after all the others were renewed."""
        problems = []
        for tls in self._tls:
            try:
                tls.reload_if_changed()
            except OperatorError as error:
                problems.append(str(error))
            self._recorder.certificates(tls.expiries())
        if problems:
            raise OperatorError("; ".join(problems))

    def reload_revocation_lists(self) -> None:
        """Reads the lists of revoked device certificates again where their files changed, and has everything
        under way judged by them, and by what OCSP responders have said since. Raises `OperatorError` for bad
        ones, as `reload_certificates` does."""
        if self._config.verifying is None:
            return
        verifier = self._config.verifying.verifier
        try:
            verifier.reload_if_changed()
        finally:
            self._recorder.revocation_lists(verifier.expiries())
            if verifier.revision != self._judged_by:
                self._judged_by = verifier.revision
                self.watch.check_all()

    async def drain(self, seconds: float) -> None:
        """No new connections; open ones end with their answer, or after `seconds`."""
        for server in self._servers:
            listening.stop_accepting(server)
        self.connections.drain()
        until = self._loop.time() + seconds
        # A poll needs no hook in any of the many ways a connection ends.
        while len(self.connections) and self._loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.connections.abort()

    async def close(self) -> None:
        self._ticker.stop()
        for server in self._servers:
            server.close()
        close_pools(self._config.pools, {})
        if self._config.verifying is not None:
            await self._config.verifying.verifier.aclose()
        await self._http.close()
        await self.state.close()

    # -- listeners ---------------------------------------------------------------------------------------

    async def _listen(self, one: Listener) -> None:
        tls = None
        if one.tls is not None:
            pairs = [(str(files.certificate), str(files.key)) for files in one.tls.certificates]
            devices = self.settings.devices
            clients = client_auth(one.tls.clients, () if devices is None else devices.authorities)
            tls = ServerTLS(pairs, one.tls.min_version, clients)
            self._tls.append(tls)
            self._recorder.certificates(tls.expiries())
        secure = tls is not None
        handler = self._to_https if one.redirect_to_https else self._surface

        reader = self._readers[reads(one)]

        def accept() -> Downstream:
            return Downstream(handler, reader, self.connections.limits, secure, self.connections)

        address = str(one.address)
        opened = self._sockets.pop(address, None) or listening.open_socket(address)
        server = await listening.start(
            opened,
            accept,
            self.connections,
            tls=None if tls is None else tls.by_name or tls.context,
            proxy_protocol_from=self._config.settings.trusted_proxies if one.proxy_protocol else None,
        )
        self._servers.append(server)
        self.addresses.append(_address_of(opened.getsockname()))

    def _https_origin(self, request: Request) -> str | None:
        origin = self._config.origins.of(request)
        return origin if origin is not None and origin.startswith("https:") else None

    def _ticking(self) -> list[Ticking]:
        return [self.connections, self.watch, *self._config.pools.values()]

    def _applied(self, locks: tuple[Lock, ...]) -> None:
        for lock in locks:
            if lock.target.kind is TargetKind.DEVICE:
                self._config.witness.shut_out(lock.target.name)
        self.watch.applied(locks)

    def _started_over(self, why: Why) -> None:
        """INVARIANT: what was read before, and what was let in on it, carries numbers of a log that is gone,
        and could not be met by a lock that has one of the new."""
        self._config.witness.known.clear()
        self.watch.started_over()
        self.state.note(AuditEvent("ztproxy", "store.changed", "done", detail={"why": str(why)}))

    async def _rejudge(self, request: Request) -> Judgement | None:
        return await self._surface.rejudge(request)


def _limits(settings: Settings) -> Limits:
    theirs = settings.limits
    return Limits(
        first_byte=theirs.first_byte,
        head_time=theirs.head_time,
        keep_alive=theirs.keep_alive,
        body_stall=theirs.body_stall,
        body_rate=theirs.body_rate,
        write_stall=theirs.write_stall,
        connections=min(theirs.connections, most_connections(soft_limit())),
        connections_per_address=theirs.connections_per_address,
    )


def _methods(settings: Settings) -> bytes:
    """What some route takes, as the value of an Allow field."""
    return ", ".join(
        sorted(frozenset[str]().union(*(one.methods for one in settings.routes.routes)))
    ).encode()


def _address_of(name: object) -> str:
    if isinstance(name, tuple):
        host, port = name[0], name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{name}"
