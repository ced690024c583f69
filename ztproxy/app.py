"""The composition root: the one place where concrete classes meet.

Knows: which adapter fulfils which port. Promises: everything a configuration amounts to is built before any
of it is used (`Plane`), so that a reload either swaps all of it or changes nothing. Leaves processes, signals
and the embedded state server to `processes` and `cli`.

    Worker     what lives as long as the process: the listeners, the state's connections, logs and metrics
    _build     what lives as long as a configuration: routes, pools, providers, pages
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.jwt import AssertionJWTs
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.adapters.redis_connection import check_state, connect, ping
from ztproxy.adapters.redis_one_time import RedisLocks, RedisOneTime
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.config.settings import Listener, Settings
from ztproxy.config.settings import Provider as ProviderConfig
from ztproxy.core.normalise import Normaliser, RawHead, Reading
from ztproxy.core.outbound import ResponseFilter, ResponseSettings
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer, Request
from ztproxy.core.routes import Forwarding
from ztproxy.core.upstream import Upstream, UpstreamTLS
from ztproxy.errors import OperatorError, WorldError
from ztproxy.gateway.judge import Judge
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.sign_in import SignIn
from ztproxy.gateway.witness import Witness
from ztproxy.recorder import Recorder
from ztproxy.surfaces.answers import Answers
from ztproxy.surfaces.cookies import SessionCookie
from ztproxy.surfaces.origins import Origins
from ztproxy.surfaces.own_pages import OwnPages
from ztproxy.surfaces.pages import Branding, Pages
from ztproxy.surfaces.portal import Portal, Table
from ztproxy.surfaces.proxy import Lane, Plane, ProxySurface, lane
from ztproxy.surfaces.signing_in import SigningIn
from ztproxy.surfaces.to_https import ToHTTPS
from ztproxy.wire import listener as listening
from ztproxy.wire.connections import Connections, Ticker, Ticking
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.limits import Limits
from ztproxy.wire.pool import Pool
from ztproxy.wire.tls import ServerTLS, upstream_context

_MONOTONIC: Callable[[], float] = time.monotonic

_Pools = dict[tuple[Upstream, bytes], Pool]
"""By what they connect to and the content of their TLS files, for a renewed file keeps its name."""


@dataclass(slots=True)
class _Config:
    """One configuration in force: its plane, and what has to be closed when the next one takes over."""

    settings: Settings
    plane: Plane
    origins: Origins
    pools: _Pools
    normalisers: Mapping[bool, Normaliser]


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
    """

    def __init__(
        self,
        settings: Settings,
        state_url: str,
        recorder: Recorder,
        sockets: Mapping[str, socket.socket] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._recorder = recorder
        self._sockets = dict(sockets or {})
        self._state_url = state_url
        self._client = connect(state_url)
        self._http = provider_session()
        self.connections = Connections(self._loop, _limits(settings))
        self._config = self._build(settings, {})
        self._readers = {secure: _Reader(one) for secure, one in self._config.normalisers.items()}
        self._surface = ProxySurface(self._config.plane, recorder.finished, recorder.refused)
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
        """Opens the listeners. The state may be away: requests then get their 503 until it is back."""
        try:
            await check_state(self._client)
        except WorldError:
            pass
        for one in self._config.settings.listeners:
            await self._listen(one)

    async def ready(self) -> str:
        """Empty when this worker can serve, else what is missing."""
        try:
            await ping(self._client)
        except WorldError as error:
            return str(error)
        return ""

    def reload(self, settings: Settings) -> None:
        """Takes another configuration into force. Raises `OperatorError` and changes nothing if it cannot.

        Open exchanges go on with the configuration they were judged under; kept upstreams keep their
        connections. What a listening socket or the state's connections are made of needs a restart.
        """
        before = self._config
        settings.takes_over_from(before.settings)
        self._config = self._build(settings, before.pools)
        # INVARIANT: nothing from here on can fail, and nothing is awaited: all of it is swapped, or none.
        self._surface.plane = self._config.plane
        for secure, normaliser in self._config.normalisers.items():
            self._readers[secure].normaliser = normaliser
        _close(before.pools, self._config.pools)

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
        _close(self._config.pools, {})
        await self._http.close()
        await self._client.aclose()

    # -- listeners ---------------------------------------------------------------------------------------

    async def _listen(self, one: Listener) -> None:
        tls = None
        if one.tls is not None:
            pairs = [(str(files.certificate), str(files.key)) for files in one.tls.certificates]
            tls = ServerTLS(pairs, one.tls.min_version)
            self._tls.append(tls)
            self._recorder.certificates(tls.expiries())
        secure = tls is not None
        handler = self._to_https if one.redirect_to_https else self._surface

        reader = self._readers[secure]

        def accept() -> Downstream:
            return Downstream(handler, reader, self.connections.limits, secure, self.connections)

        address = str(one.address)
        opened = self._sockets.pop(address, None) or listening.open_socket(address)
        server = await listening.start(
            opened,
            accept,
            tls=None if tls is None else tls.context,
            proxy_protocol_from=self._config.settings.trusted_proxies if one.proxy_protocol else None,
        )
        self._servers.append(server)
        self.addresses.append(_address_of(opened.getsockname()))

    def _https_origin(self, request: Request) -> str | None:
        origin = self._config.origins.of(request)
        return origin if origin is not None and origin.startswith("https:") else None

    def _ticking(self) -> list[Ticking]:
        return [self.connections, *self._config.pools.values()]

    # -- a configuration's own ---------------------------------------------------------------------------

    def _build(self, settings: Settings, kept: _Pools) -> _Config:
        ring = KeyRing.load(settings.keys_file)
        pages = Pages(_branding(settings))
        answers = Answers(pages, settings.branding.support, settings.hsts)
        sealer, signer = Sealer(ring.records), SignedHandles(ring.handles)
        assertions = AssertionJWTs(ring.assertions)
        store = RedisSessions(self._client, sealer, settings.session)
        cookie = SessionCookie(settings.cookie.name, settings.cookie.domain)
        sign_in = SignIn(
            {one.name: self._provider(one) for one in settings.providers},
            store,
            RedisOneTime(self._client, sealer),
            RedisLocks(self._client),
            settings.levels,
            settings.session,
            time.time,
            secrets.token_bytes,
        )
        witness = Witness(
            store,
            signer,
            sign_in.refresh,
            serves=lambda host, asked: host == asked or cookie.shared_with(asked),
            touch_every=min(60.0, settings.session.idle / 4),
            monotonic=_MONOTONIC,
        )
        auth = None if settings.auth_host is None else str(settings.auth_host)
        origins = Origins(settings.routes, auth)
        signing_in = SigningIn(
            routes=settings.routes,
            origins=origins,
            sign_in=sign_in,
            witness=witness,
            store=store,
            signer=signer,
            clock=time.time,
            pages=pages,
            answers=answers,
            cookie=cookie,
            providers=[(one.name, one.title) for one in settings.providers],
            counted=self._recorder.login,
        )
        own = OwnPages(
            settings.routes,
            witness,
            pages,
            assertions.jwks,
            time.time,
            signing_in.sign_in_first,
            answers.not_signed_in,
        )
        portal = Portal(pages_of(signing_in, own), answers, self._unexpected)
        normalisers = {secure: Normaliser(_reading(settings, secure)) for secure in (False, True)}
        pools = self._pools(
            settings, kept
        )  # the last that can fail: pools with health checks are busy at once
        plane = Plane(
            routes=settings.routes,
            judge=Judge(witness, assertions, time.time, lambda: secrets.token_urlsafe(16)),
            lanes=_lanes(settings, {upstream: pool for (upstream, _), pool in pools.items()}),
            answers=answers,
            portal=portal.take,
            auth_host=origins.auth_host,
        )
        return _Config(settings, plane, origins, pools, normalisers)

    def _provider(self, one: ProviderConfig) -> Provider:
        tls = None if one.ca_file is None else upstream_context(UpstreamTLS(ca=str(one.ca_file)))
        client = OpenIDProvider(
            ProviderSettings(
                name=one.name,
                issuer=one.issuer,
                client_id=one.client_id,
                client_secret=None if one.client_secret is None else one.client_secret.reveal(),
                client_auth=one.token_auth,
                scopes=one.scopes,
                algorithms=frozenset({one.algorithm}),
                userinfo=one.userinfo,
                extra_params=one.parameters,
                dangerous_allow_http_issuer=one.dangerous_allow_http,
            ),
            self._http,
            time.time,
            tls,
        )
        return Provider(client, one.claims)

    def _pools(self, settings: Settings, kept: _Pools) -> _Pools:
        actions = [route.action for route in settings.routes.routes]
        upstreams = {action.upstream for action in actions if isinstance(action, Forwarding)}
        contexts: dict[tuple[Upstream, bytes], ssl.SSLContext | None] = {
            (one, b""): None for one in upstreams if one.tls is None
        }
        for one in upstreams:
            if one.tls is not None:
                contexts[one, _content(one.tls)] = upstream_context(one.tls)
        return {
            key: kept[key] if key in kept else Pool(key[0], context, self._loop)
            for key, context in contexts.items()
        }

    def _unexpected(self, error: BaseException) -> None:
        self._loop.call_exception_handler({"message": "a page of ours failed", "exception": error})


def _content(tls: UpstreamTLS) -> bytes:
    """A digest of the files, as they are now."""
    digest = hashlib.sha256()
    for name in (tls.ca, tls.certificate, tls.key):
        try:
            digest.update(b"" if name is None else hashlib.sha256(Path(name).read_bytes()).digest())
        except OSError as error:
            raise OperatorError(f"`{name}` cannot be read: {error.strerror}") from error
    return digest.digest()


def _close(pools: _Pools, but: _Pools) -> None:
    for key, pool in pools.items():
        if key not in but:
            pool.close()


def pages_of(signing_in: SigningIn, own: OwnPages) -> Table:
    """Our own paths, by method."""
    pages = {
        ("GET", ""): own.session,
        ("GET", "session"): own.session,
        ("GET", "user"): own.user,
        ("GET", "apps"): own.apps,
        ("GET", "sign_in"): signing_in.sign_in,
        ("GET", "start/*"): signing_in.start,
        ("GET", "callback/*"): signing_in.callback,
        ("GET", "authorize"): signing_in.authorize,
        ("GET", "ticket"): signing_in.ticket,
        ("GET", "sign_out"): signing_in.sign_out,
        ("POST", "sign_out"): signing_in.signing_out,
        ("GET", "signed_out"): signing_in.signed_out,
    }
    table: Table = {(method, (".ztproxy", *name.split("/"))): page for (method, name), page in pages.items()}
    table["GET", (".well-known", "ztproxy", "jwks.json")] = own.jwks
    return table


def _lanes(settings: Settings, pools: Mapping[Upstream, Pool]) -> dict[str, Lane]:
    passing = ResponseSettings(hsts=settings.hsts, cookie_prefixes=_cookie_prefixes(settings))
    return {
        route.name: lane(pools[route.action.upstream], ResponseFilter(route, route.action, passing))
        for route in settings.routes.routes
        if isinstance(route.action, Forwarding)
    }


def _reading(settings: Settings, secure: bool) -> Reading:
    routes = settings.routes.routes
    forwardings = [route.action for route in routes if isinstance(route.action, Forwarding)]
    set_or_removed = {name for one in forwardings for name, _ in one.set_request}.union(
        *(one.remove_request for one in forwardings)
    )
    return Reading(
        secure=secure,
        cookie=settings.cookie.name,
        cookie_prefixes=_cookie_prefixes(settings),
        managed=frozenset(name.decode("ascii") for name in set_or_removed),
        underscores_dropped=settings.drop_underscored_headers,
        methods=frozenset[str]().union(*(route.methods for route in routes)),
        trusted_proxies=settings.trusted_proxies,
    )


def _cookie_prefixes(settings: Settings) -> tuple[str, ...]:
    return ("__Host-ztp", "__Secure-ztp", settings.cookie.name)


def _limits(settings: Settings) -> Limits:
    theirs = settings.limits
    return Limits(
        first_byte=theirs.first_byte,
        head_time=theirs.head_time,
        keep_alive=theirs.keep_alive,
        body_stall=theirs.body_stall,
        body_rate=theirs.body_rate,
        write_stall=theirs.write_stall,
        connections=theirs.connections,
        connections_per_address=theirs.connections_per_address,
    )


def _branding(settings: Settings) -> Branding:
    templates = settings.branding.templates
    return Branding(settings.branding.name, None if templates is None else str(templates))


def _address_of(name: object) -> str:
    if isinstance(name, tuple):
        host, port = name[0], name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{name}"
