"""The whole front of the proxy on one socket: surfaces, gateway and wire are real, the state is in memory,
the provider lies on request, the clocks stand still until `later`.

front.browser()      somebody with a cookie jar: `ask` is one request, `open` follows redirects and signs in
front.app            the recording app behind every forwarding route
front.worker         what one configuration is made of; `front.reload(...)` takes another into force
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

from tests.core.words import policy, site
from tests.wire.recording import OK, Recording, answers
from tests.wire.world import Answer as Got
from tests.wire.world import Client
from tests.worlds.leased import Leased
from tests.worlds.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider, lying_provider
from tests.worlds.memory_admin import MemoryAudit
from tests.worlds.memory_devices import MemoryDevices
from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.revoking import Revoking
from tests.worlds.verifying import Verifying, showing
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.app.plane import pages_of
from ztproxy.core.assurance import Levels
from ztproxy.core.claims import ClaimRules
from ztproxy.core.conditions import Authenticated
from ztproxy.core.identity import JSON
from ztproxy.core.normalise import Normaliser, RawHead, Reading
from ztproxy.core.outbound import ResponseFilter, ResponseSettings
from ztproxy.core.rates import Rate, Spent
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer, Request
from ztproxy.core.route_table import RouteTable
from ztproxy.core.routes import Forwarding, Route
from ztproxy.core.sessions import SessionLimits
from ztproxy.core.upstream import Endpoint, Upstream
from ztproxy.gateway.devices import DeviceWitness
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.judge import Judge
from ztproxy.gateway.logout import Logout
from ztproxy.gateway.per_person import SessionsPerPerson
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.rates import Buckets, Limiter
from ztproxy.gateway.services import ServiceWitness
from ztproxy.gateway.sign_in import SignIn
from ztproxy.gateway.watch import Watch
from ztproxy.gateway.witness import Witness
from ztproxy.surfaces.answers import Answers
from ztproxy.surfaces.cookies import SessionCookie
from ztproxy.surfaces.logout import LogoutPages
from ztproxy.surfaces.origins import Origins
from ztproxy.surfaces.own_pages import OwnPages
from ztproxy.surfaces.pages import Branding, Pages
from ztproxy.surfaces.portal import Portal, Table
from ztproxy.surfaces.proxy import Plane, ProxySurface, lane
from ztproxy.surfaces.signing_in import SigningIn
from ztproxy.wire.connections import Connections
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits
from ztproxy.wire.pool import Pool

NOW = 1_750_000_000.0
APP, AUTH = "https://app.test", "https://auth.test"
PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
SIGNED_IN = policy(Authenticated())
HSTS = "max-age=60"


class PlainAssertions:
    """An `AssertionSigner` whose signature is a word: enough to see who is told what, and how often."""

    def __init__(self) -> None:
        self.signed: list[Mapping[str, JSON]] = []

    def sign(self, claims: Mapping[str, JSON]) -> str:
        self.signed.append(claims)
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode() + ".signed"

    def jwks(self) -> dict[str, Any]:
        return {"keys": [{"kid": "k"}]}


class Page(NamedTuple):
    """An answer and the URL it came from."""

    url: str
    got: Got

    @property
    def status(self) -> int:
        return self.got.status

    @property
    def text(self) -> str:
        return self.got.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.got.body)

    @property
    def location(self) -> str:
        return self.field("location") or ""

    def field(self, name: str) -> str | None:
        """The field of this lower-case name, the last where there are several."""
        return dict(self.got.fields).get(name)

    @property
    def set_cookies(self) -> list[str]:
        return [value for name, value in self.got.fields if name == "set-cookie"]


@dataclass
class Browser:
    """`person` are the claims the provider makes about whoever sits in front of it."""

    front: Front
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "alice", "email": "alice@corp.test"})
    jar: dict[str, dict[str, str]] = field(default_factory=dict)
    trail: list[str] = field(default_factory=list)

    def cookies(self, host: str) -> dict[str, str]:
        return self.jar.setdefault(host, {})

    def session(self, host: str = "app.test") -> str | None:
        return self.cookies(host).get(self.front.cookie.name)

    async def ask(
        self, url: str, headers: Mapping[str, str] = PAGE, *, method: str = "GET", body: bytes | None = None
    ) -> Page:
        """One request, as the browser would send it."""
        parts = urlsplit(url)
        target = url.partition(parts.netloc)[2] or "/"
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        cookies = self._shown(parts.hostname or "")
        if cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items()))
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        got = await self.front.raw("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""), method)
        page = Page(url, got)
        self._keep(parts.hostname or "", page.set_cookies)
        return page

    async def open(self, url: str, headers: Mapping[str, str] = PAGE) -> Page:
        """Through every redirect, and through the provider, where the person signs in at once."""
        self.trail = [url]
        for _ in range(20):
            page = await self.ask(url, headers)
            if not page.location:
                return page
            url = urljoin(url, page.location)
            self.trail.append(url)
            provider = self.front.provider_at(url)
            if provider is not None:
                url = self.at_provider(provider, url)
                self.trail.append(url)
        raise AssertionError(f"a loop: {self.trail}")

    def at_provider(self, provider: LyingProvider, url: str) -> str:
        """Signs in there; where the provider sends the browser then."""
        provider.person = {"email_verified": True, **self.person}
        query = dict(item.split("=", 1) for item in urlsplit(url).query.split("&"))
        back = query["redirect_uri"].replace("%3A", ":").replace("%2F", "/")
        return f"{back}?{urlencode(provider.sign_in(url))}"

    def _shown(self, host: str) -> dict[str, str]:
        shown = dict(self.cookies(host))
        for domain, jar in self.jar.items():
            if domain.startswith(".") and (host == domain[1:] or host.endswith(domain)):
                shown |= jar
        return shown

    def _keep(self, host: str, lines: Sequence[str]) -> None:
        for line in lines:
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            given = dict(item.partition("=")[::2] for item in attributes)
            assert (
                {"Secure", "HttpOnly"} <= set(given) and given["Path"] == "/" and given["SameSite"] == "Lax"
            )
            assert "Domain" not in given or not name.startswith("__Host-")
            jar = self.cookies("." + given["Domain"] if "Domain" in given else host)
            if given["Max-Age"] == "0":
                jar.pop(name, None)
            else:
                jar[name] = value


class Counting:
    """Fulfils `RateStore`. `meanwhile` happens while it is asked."""

    def __init__(self, clock: SetClock) -> None:
        self._buckets = Buckets(clock)
        self.asked = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        self.asked += 1
        await asyncio.sleep(0)
        self.meanwhile()
        return self._buckets.spend(limit, key, rate)


class Worker(NamedTuple):
    plane: Plane
    witness: Witness
    sign_in: SignIn
    signing_in: SigningIn
    portal: Portal
    pool: Pool


@dataclass
class Front:
    ops: dict[str, LyingProvider]
    state: MemoryState
    clock: SetClock
    monotonic: SetClock
    cookie: SessionCookie
    auth: str | None
    app: Recording
    http: Any
    worker: Worker = field(init=False)
    surface: ProxySurface = field(init=False)
    watch: Watch = field(init=False)
    lease: Leased = field(default_factory=Leased)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    revoking: Revoking = field(init=False)
    front_channel: frozenset[str] = frozenset()
    failures: list[str] = field(default_factory=list)
    port: int = 0
    assertions: PlainAssertions = field(default_factory=PlainAssertions)
    signer: SignedHandles = field(default_factory=lambda: SignedHandles([b"k" * 32]))
    exchanges: list[Exchange] = field(default_factory=list)
    refused: list[Reason] = field(default_factory=list)
    mistakes: list[BaseException] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    # The certificate that browsers show at a host that asks for one (None: none), by host.
    shown: dict[str, str | None] = field(default_factory=dict)
    verifier: Verifying = field(default_factory=Verifying)
    devices: MemoryDevices = field(default_factory=MemoryDevices)
    # How often is too often; both count from when the next configuration is taken into force.
    per_address: Rate | None = None
    per_session: Rate | None = None
    counting: Counting = field(init=False)
    buckets: Buckets = field(init=False)
    broken: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counting, self.buckets = Counting(self.monotonic), Buckets(self.monotonic)

    @property
    def op(self) -> LyingProvider:
        return self.ops["op"]

    def browser(self, subject: str = "alice", **claims: Any) -> Browser:
        return Browser(self, {"sub": subject, "email": f"{subject}@corp.test", **claims})

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.monotonic.now += seconds

    def provider_at(self, url: str) -> LyingProvider | None:
        return next((op for op in self.ops.values() if url.startswith(f"{op.issuer}/authorize")), None)

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def raw(self, data: bytes, method: str = "GET") -> Got:
        client = await self.client()
        try:
            return await client.ask(data, method)
        finally:
            client.close()

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition)

    def forwarding(self, **more: Any) -> Forwarding:
        return Forwarding(Upstream((Endpoint("127.0.0.1", self.app.port),)), **more)

    def reload(self, *routes: Route, **more: Any) -> None:
        self.worker = self.build(routes, **more)
        self.surface.plane = self.worker.plane

    def build(
        self, routes: Sequence[Route], *, extra: Table | None = None, touch_every: float = 60
    ) -> Worker:
        """As `app` does it."""
        table = RouteTable(routes)
        pages = Pages(Branding())
        answers_ = Answers(pages, "the help desk", HSTS)
        providers = {
            name: Provider(
                OpenIDProvider(
                    ProviderSettings(name, op.issuer, CLIENT_ID, CLIENT_SECRET), self.http, self.clock
                ),
                ClaimRules(op.issuer, CLIENT_ID),
            )
            for name, op in self.ops.items()
        }
        limits = SessionLimits(absolute=36000)
        heard = Heard(self.lease)
        logout = Logout(
            providers,
            self.state,
            self.state,
            self.state,
            heard,
            self.revoking,
            self.audit,
            self.clock,
            front_channel=self.front_channel,
        )
        sign_in = SignIn(
            providers,
            self.state,
            self.state,
            self.state,
            Levels(),
            limits,
            self.clock,
            secrets.token_bytes,
            heard,
        )
        witness = Witness(
            self.state,
            self.signer,
            sign_in.refresh,
            self.lease,
            serves=lambda host, asked: host == asked or self.cookie.shared_with(asked),
            touch_every=touch_every,
            boottime=self.monotonic,
            uses=SessionsPerPerson(None, self.state, self.revoking, heard, self.failures.append).uses,
            devices=DeviceWitness(self.verifier, self.devices, self.monotonic),
        )
        origins = Origins(table, self.auth)
        signing_in = SigningIn(
            routes=table,
            origins=origins,
            sign_in=sign_in,
            logout=logout,
            meeting=self.lease.book.meeting,
            witness=witness,
            store=self.state,
            signer=self.signer,
            clock=self.clock,
            pages=pages,
            answers=answers_,
            cookie=self.cookie,
            providers=[(name, f"The {name}") for name in self.ops],
            counted=lambda *login: self.logins.append(login),
        )
        own = OwnPages(
            table,
            witness,
            self.lease.book.meeting,
            pages,
            self.assertions.jwks,
            self.clock,
            signing_in.sign_in_first,
            answers_.not_signed_in,
        )
        out = LogoutPages(logout, {name: self.ops[name].issuer for name in self.front_channel})
        every: Table = {**pages_of(signing_in, own, out), **(extra or {})}
        portal = Portal(every, answers_, self.mistakes.append)
        pool = Pool(self.forwarding().upstream, None, asyncio.get_running_loop())
        plane = Plane(
            routes=table,
            judge=Judge(
                witness,
                ServiceWitness({}, self.lease, self.clock, self.monotonic, refused=self.failures.append),
                self.lease.book,
                self.assertions,
                self.clock,
                lambda: secrets.token_urlsafe(16),
            ),
            limiter=Limiter(self.buckets, self.counting, self.per_address, self.per_session),
            lanes={
                route.name: lane(pool, ResponseFilter(route, route.action, ResponseSettings(HSTS)))
                for route in routes
                if isinstance(route.action, Forwarding)
            },
            answers=answers_,
            portal=portal.take,
            auth_host=origins.auth_host,
        )
        return Worker(plane, witness, sign_in, signing_in, portal, pool)


class _Reader:
    """Reads heads, and has browsers show their certificates where `Front.shown` says that they are asked."""

    def __init__(self, front: Front, normaliser: Normaliser) -> None:
        self._front, self._normaliser = front, normaliser

    def read(self, head: RawHead, peer: Peer, /) -> Request | Reason:
        request = self._normaliser.read(head, peer)
        if isinstance(request, Reason) or request.host not in self._front.shown:
            return request
        shown = showing(self._front.shown[request.host])
        return request._replace(peer=request.peer._replace(certificate=shown.certificate, asked=True))


async def until(condition: Callable[[], object]) -> None:
    """Waits for something the world will do; the test fails if it never does."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # a poll needs no hook in what is tested
            await asyncio.sleep(0.005)


@asynccontextmanager
async def front(
    *routes: Route,
    auth: str | None = None,
    domain: str | None = None,
    providers: Sequence[str] = ("op",),
    limits: Limits | None = None,
    play: bytes = OK,
) -> AsyncIterator[Front]:
    """A running front. Without `routes` there is one site at `app.test` for everybody signed in. Actions that
    forward go to the recording app, whatever they name."""
    clock, loop = SetClock(NOW), asyncio.get_running_loop()
    app = await Recording(answers(play)).start()
    cookie = SessionCookie("__Secure-ztproxy" if domain else "__Host-ztproxy", domain)
    async with provider_session() as http, _all(providers, clock) as ops:
        it = Front(ops, MemoryState(clock), clock, SetClock(1000.0), cookie, auth, app, http)
        loop.set_exception_handler(lambda _, context: it.broken.append(str(context["message"])))
        it.revoking = Revoking(it.lease, clock)
        it.worker = it.build(routes or (site(SIGNED_IN, it.forwarding()),))
        registry = Connections(loop, limits or Limits())
        it.watch = Watch(
            it.lease,
            registry.under_way,
            lambda request: it.surface.rejudge(request),
            loop,
            clock,
            it.monotonic,
            grace=10.0,
        )
        it.surface = ProxySurface(it.worker.plane, it.watch, it.exchanges.append, it.refused.append)
        reader = _Reader(it, Normaliser(Reading(True, cookie.name)))
        make = functools.partial(Downstream, it.surface, reader, registry.limits, True, registry)
        server = await loop.create_server(make, "127.0.0.1", 0)
        it.port = server.sockets[0].getsockname()[1]
        try:
            yield it
        finally:
            server.close()
            registry.abort()
            it.worker.pool.close()
            await app.stop()
    assert it.broken == it.expected, it.broken


@asynccontextmanager
async def _all(names: Sequence[str], clock: SetClock) -> AsyncIterator[dict[str, LyingProvider]]:
    if not names:
        yield {}
        return
    async with lying_provider(clock) as first, _all(names[1:], clock) as others:
        yield {names[0]: first, **others}
