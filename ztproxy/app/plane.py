"""What lives as long as a configuration: routes, pools, providers, pages; built whole before any of it is
used.

Knows: which adapter fulfils which port for serving requests. Promises: `build` either gives a `Config` that
works or raises `OperatorError` and leaves nothing behind; kept upstreams keep their connections. Leaves what
lives as long as the process to `worker` and `state`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import aiohttp

from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.jwt import AssertionJWTs
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.redis_devices import RedisDevices
from ztproxy.adapters.redis_directory import RedisDirectory
from ztproxy.adapters.redis_first_hosts import RedisFirstHosts
from ztproxy.adapters.redis_one_time import RedisLocks, RedisOneTime
from ztproxy.adapters.redis_rates import RedisRates
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.app.devices import (
    Verifying,
    device_stands,
    enrolment_of,
    hosts_asked,
    issuers_of,
    token_refused,
    verifying,
)
from ztproxy.app.state import LeasedState, boottime
from ztproxy.config.settings import Listener, Settings
from ztproxy.config.settings import Provider as ProviderConfig
from ztproxy.core.certificate_hosts import CertificateHosts
from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.outbound import ResponseFilter, ResponseSettings
from ztproxy.core.routes import Forwarding
from ztproxy.core.sessions import shortest_idle
from ztproxy.core.upstream import Upstream, UpstreamTLS
from ztproxy.errors import OperatorError
from ztproxy.gateway.astray import Astray
from ztproxy.gateway.devices import DeviceWitness
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.judge import Judge
from ztproxy.gateway.logout import Logout
from ztproxy.gateway.per_person import SessionsPerPerson
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.rates import Buckets, Limiter
from ztproxy.gateway.services import ServiceWitness
from ztproxy.gateway.sign_in import SignIn
from ztproxy.gateway.witness import Witness
from ztproxy.recorder import Recorder
from ztproxy.surfaces.answers import Answers
from ztproxy.surfaces.cookies import SessionCookie
from ztproxy.surfaces.enrolment import EnrolmentPages
from ztproxy.surfaces.enrolment import pages_of as enrolment_pages
from ztproxy.surfaces.logout import LogoutPages
from ztproxy.surfaces.origins import Origins
from ztproxy.surfaces.own_pages import OwnPages
from ztproxy.surfaces.pages import Branding, Pages
from ztproxy.surfaces.portal import Page, Portal, Table
from ztproxy.surfaces.proxy import Lane, Plane, lane
from ztproxy.surfaces.signing_in import SigningIn
from ztproxy.wire.pool import Pool
from ztproxy.wire.tls import upstream_context

_log = logging.getLogger("ztproxy.sign_in")

Pools = dict[tuple[Upstream, bytes], Pool]
"""By what they connect to and the content of their TLS files, for a renewed file keeps its name."""


class Reads(NamedTuple):
    """What a listener's way of reading requests depends on: TLS, and for which hosts it asks for
    certificates."""

    secure: bool
    asks: CertificateHosts | None


def reads(listener: Listener) -> Reads:
    return Reads(listener.tls is not None, hosts_asked(listener))


@dataclass(slots=True)
class Config:
    """One configuration in force: its plane, and what has to be closed when the next one takes over."""

    settings: Settings
    ring: KeyRing
    plane: Plane
    witness: Witness
    verifying: Verifying | None
    origins: Origins
    pools: Pools
    normalisers: Mapping[Reads, Normaliser]


class Builder:
    """Builds configurations over what the process has already."""

    def __init__(
        self,
        state: LeasedState,
        http: aiohttp.ClientSession,
        recorder: Recorder,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._state, self._http, self._recorder, self._loop = state, http, recorder, loop
        self._buckets = Buckets(boottime)  # a reload is no new burst for anybody

    def build(self, settings: Settings, kept: Pools, verifies: Verifying | None = None) -> Config:
        """`kept` are the pools of the configuration before, and `verifies` its verifier of certificates.
        Raises `OperatorError`."""
        ring = KeyRing.load(settings.keys_file)
        enrols = settings.devices is not None and settings.devices.enrolment is not None
        pages = Pages(_branding(settings), devices=enrols)
        answers = Answers(
            pages,
            settings.branding.support,
            settings.hsts,
            settings.levels,
            enrolment=enrols,
        )
        state, client, sealer = self._state, self._state.client, Sealer(ring.records)
        signer, assertions = SignedHandles(ring.handles), AssertionJWTs(ring.assertions)
        store, directory = RedisSessions(client, sealer, settings.session), RedisDirectory(client, sealer)
        one_time, heard = RedisOneTime(client, sealer), Heard(state.keeper)
        first = RedisFirstHosts(client, sealer)
        providers = {one.name: self._provider(one, first) for one in settings.providers}
        cookie = SessionCookie(settings.cookie.name, settings.cookie.domain)
        per_person = SessionsPerPerson(
            settings.sessions_per_person, directory, state.revoke, heard, _log.error
        )
        devices, verifies = RedisDevices(client, sealer), verifying(settings, self._http, verifies)
        enrolment = enrolment_of(settings, devices, one_time, state)
        sign_in = SignIn(
            providers,
            store,
            one_time,
            RedisLocks(client),
            settings.levels,
            settings.session,
            time.time,
            secrets.token_bytes,
            heard,
            per_person,
            partial(device_stands, devices),
            self._buckets,
            settings.limits.sign_ins_per_address,
        )
        front_channel = {one.name: one.issuer for one in settings.providers if one.frontchannel_logout}
        logout = Logout(
            providers,
            store,
            one_time,
            directory,
            heard,
            state.revoke,
            state.audit,
            time.time,
            front_channel=front_channel,
            exp_optional=[one.name for one in settings.providers if one.logout_exp_optional],
            buckets=self._buckets,
        )
        witness = Witness(
            store,
            signer,
            sign_in.refresh,
            state.keeper,
            serves=lambda host, asked: host == asked or cookie.shared_with(asked),
            touch_every=min(60.0, shortest_idle(settings.session) / 4),
            boottime=boottime,
            uses=per_person.uses,
            devices=None if verifies is None else DeviceWitness(verifies.verifier, devices, boottime),
            astray=Astray(state.note, time.time),
        )
        services = ServiceWitness(
            issuers_of(settings, self._http, first), state.keeper, time.time, boottime, token_refused
        )
        judge = Judge(
            witness, services, state.keeper.book, assertions, time.time, lambda: secrets.token_urlsafe(16)
        )
        auth = None if settings.auth_host is None else str(settings.auth_host)
        origins = Origins(settings.routes, auth)
        choices = [(one.name, one.title) for one in settings.providers]
        signing_in = SigningIn(
            routes=settings.routes,
            origins=origins,
            sign_in=sign_in,
            logout=logout,
            meeting=state.keeper.book.meeting,
            witness=witness,
            store=store,
            signer=signer,
            clock=time.time,
            pages=pages,
            answers=answers,
            cookie=cookie,
            providers=choices,
            counted=self._recorder.login,
        )
        own = OwnPages(
            settings.routes,
            witness,
            state.keeper.book.meeting,
            pages,
            assertions.jwks,
            time.time,
            signing_in.sign_in_first,
            answers.not_signed_in,
        )
        table = pages_of(signing_in, own, LogoutPages(logout, front_channel))
        if enrolment is not None:
            enrolling = EnrolmentPages(
                enrolment=enrolment,
                judge=judge,
                device_of=witness.device_of,
                sign_in=sign_in,
                origins=origins,
                pages=pages,
                answers=answers,
                providers=choices,
                clock=time.time,
            )
            table |= behind_prefix(enrolment_pages(enrolling))
        portal = Portal(table, answers, self._unexpected)
        normalisers = {one: Normaliser(_reading(settings, one)) for one in map(reads, settings.listeners)}
        # The last that can fail: pools with health checks are busy at once.
        pools = self._pools(settings, kept)
        plane = Plane(
            routes=settings.routes,
            judge=judge,
            limiter=Limiter(
                self._buckets,
                RedisRates(client),
                settings.limits.requests_per_address,
                settings.limits.requests_per_session,
            ),
            lanes=_lanes(settings, {upstream: pool for (upstream, _), pool in pools.items()}),
            answers=answers,
            portal=portal.take,
            auth_host=origins.auth_host,
        )
        return Config(settings, ring, plane, witness, verifies, origins, pools, normalisers)

    def _provider(self, one: ProviderConfig, first: RedisFirstHosts) -> Provider:
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
                endpoint_hosts=one.endpoint_hosts,
                userinfo=one.userinfo,
                extra_params=one.parameters,
                dangerous_allow_http_issuer=one.dangerous_allow_http,
            ),
            self._http,
            time.time,
            tls,
            first,
        )
        return Provider(client, one.claims, one.asks_by)

    def _pools(self, settings: Settings, kept: Pools) -> Pools:
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


def close_pools(pools: Pools, but: Pools) -> None:
    """Closes those that the next configuration does not keep."""
    for key, pool in pools.items():
        if key not in but:
            pool.close()


def pages_of(signing_in: SigningIn, own: OwnPages, out: LogoutPages) -> Table:
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
        ("POST", "logout/back/*"): out.back,
        ("GET", "logout/front/*"): out.front,
    }
    table = behind_prefix(pages)
    table["GET", (".well-known", "ztproxy", "jwks.json")] = own.jwks
    return table


def behind_prefix(pages: Mapping[tuple[str, str], Page]) -> Table:
    """Pages by method and path, behind `/.ztproxy/`."""
    return {(method, (".ztproxy", *name.split("/"))): page for (method, name), page in pages.items()}


def _lanes(settings: Settings, pools: Mapping[Upstream, Pool]) -> dict[str, Lane]:
    passing = ResponseSettings(hsts=settings.hsts, cookie_prefixes=_cookie_prefixes(settings))
    return {
        route.name: lane(pools[route.action.upstream], ResponseFilter(route, route.action, passing))
        for route in settings.routes.routes
        if isinstance(route.action, Forwarding)
    }


def _reading(settings: Settings, reads: Reads) -> Reading:
    routes = settings.routes.routes
    forwardings = [route.action for route in routes if isinstance(route.action, Forwarding)]
    set_or_removed = {name for one in forwardings for name, _ in one.set_request}.union(
        *(one.remove_request for one in forwardings)
    )
    return Reading(
        secure=reads.secure,
        cookie=settings.cookie.name,
        cookie_prefixes=_cookie_prefixes(settings),
        managed=frozenset(name.decode("ascii") for name in set_or_removed),
        underscores_dropped=settings.drop_underscored_headers,
        methods=frozenset[str]().union(*(route.methods for route in routes)),
        trusted_proxies=settings.trusted_proxies,
        fronts=None if settings.devices is None else settings.devices.fronts,
        asks=reads.asks,
    )


def _cookie_prefixes(settings: Settings) -> tuple[str, ...]:
    return ("__Host-ztp", "__Secure-ztp", settings.cookie.name)


def _branding(settings: Settings) -> Branding:
    templates = settings.branding.templates
    return Branding(settings.branding.name, None if templates is None else str(templates))
