"""The witness of services: the session behind a bearer token, or behind a certificate with a SPIFFE ID.

Knows: who may vouch for the services of a route, and the lease. Promises: what `Witness` promises for people:
nobody without a live lease (INV-6), and nobody the log of locks has revoked; an issuer away is `Unavailable`,
never a wrong token. A cookie and a token never count together; a token that does not hold is never passed
over for another credential. A signature is checked once a minute, and a token that did not hold is not looked
at again for `PASSED_OVER`, so that a flood of one token costs next to nothing; both memories are bounded.
Judging is the core's.

Only a route with `services` is asked about here. On every other the Authorization field is the app's own
matter, and so it is on a route whose services show certificates alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Generic, NamedTuple, TypeVar

from ztproxy.core.device import NoDevice, NotAsked, OnDevice
from ztproxy.core.evidence import DeviceEvidence, NoSession, Unavailable
from ztproxy.core.identity import Credential, Session
from ztproxy.core.rates import Rate
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request
from ztproxy.core.routes import Route, Services
from ztproxy.core.service_tokens import (
    MAX_TOKEN,
    TokenRules,
    certificate_session,
    issuer_named_in,
    judge_token,
    shows_bearer,
)
from ztproxy.core.sessions import device_id
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.known import Known
from ztproxy.gateway.lease import Lease
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.devices import TokenIssuer
from ztproxy.gateway.rates import Sparing
from ztproxy.gateway.witness import LEASE_PATIENCE

CHECKED_AGAIN = 60.0
"""Seconds after which a signature is checked again: its issuer may have withdrawn the key."""

PASSED_OVER = 5.0
"""Seconds for which a token that did not hold is refused without being looked at."""

MAX_KEPT = 10_000

TOLD = Rate(5, 1.0, 20)
"""How often it is said why a token did not hold: anybody can make up as many as there are."""

# RFC 6750 2.1 and RFC 9110 11.6.2; one space, where the grammar allows several, so that nobody reads another
# token in it than we do.
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] ([A-Za-z0-9\-._~+/]+=*)")

_MIXED = NoSession(Reason.CREDENTIALS_MIXED)
_TOKEN_REQUIRED = NoSession(Reason.TOKEN_REQUIRED)
_TOKEN_INVALID = NoSession(Reason.TOKEN_INVALID)
_SERVICES_ONLY = NoSession(Reason.SERVICES_ONLY)


@dataclass(frozen=True, slots=True)
class Nobody:
    """No service shows anything here: look for a person."""


NOBODY = Nobody()


class Trusted(NamedTuple):
    """What the tokens of an issuer must be, and who verifies them."""

    rules: TokenRules
    issuer: TokenIssuer


class ServiceWitness:
    """Finds the session of a service. `issuers` are by their names in the configuration; `boottime` is the
    keeper's clock. `refused` hears why a token did not hold, once for each and no more often than `TOLD`: for
    the log."""

    def __init__(
        self,
        issuers: Mapping[str, Trusted],
        lease: Lease,
        clock: Clock,
        boottime: Callable[[], float],
        refused: Callable[[str], None],
    ) -> None:
        self._issuers, self._lease = issuers, lease
        self._clock, self._boottime = clock, boottime
        self._refused = Sparing(refused, TOLD, boottime)
        self._held: _Kept[_Held] = _Kept()
        self._bad: _Kept[_Bad] = _Kept()

    def at_hand(
        self, request: Request, route: Route, device: DeviceEvidence | None
    ) -> Known | NoSession | Nobody | None:
        """What is known without asking anybody; None when somebody must be asked. Never awaits.

        `device` is None where it is not at hand; then None is the answer wherever it would matter.
        """
        found = self._find(request, _services(route), device)
        if not isinstance(found, _Held):
            return None if isinstance(found, Unavailable) else found
        if self._boottime() >= self._lease.until:
            return None
        if found.bound and (device is None or isinstance(device, Unavailable)):
            return None
        return self._standing(found, route, device)

    async def gather(
        self, request: Request, route: Route, device: DeviceEvidence, now: float
    ) -> Known | NoSession | Unavailable | Nobody:
        """The same, after asking whoever must be asked."""
        services = _services(route)
        found = self._find(request, services, device)
        if found is None:
            token = _token(request)
            assert token is not None  # of a device, what there is was gathered
            found = await self._ask(token, services, now)
        if not isinstance(found, _Held):
            return found
        # Asked last: a token that does not hold does not, whoever is away.
        if not self._lease.live() and not await self._lease.wait(LEASE_PATIENCE):
            return Unavailable()
        if found.bound and isinstance(device, Unavailable):
            return device
        return self._standing(found, route, device)

    # ── what is shown, and what is remembered of it ──

    def _find(
        self, request: Request, services: Services, device: DeviceEvidence | None
    ) -> _Held | NoSession | Unavailable | Nobody | None:
        """None when an issuer must be asked, or the device is not at hand and would matter."""
        if shows_bearer(request, services):
            if request.session is not None:
                return _MIXED
            token = _token(request)
            return _TOKEN_INVALID if token is None else self._remembered(_key(token, services))
        if request.session is not None:
            # A browser's certificate says which device it is, its cookie says who.
            return NOBODY if services.people else _SERVICES_ONLY
        if not services.spiffe:
            return NOBODY if services.people else _TOKEN_REQUIRED
        if device is None or isinstance(device, Unavailable):
            return device
        found = self._of_certificate(device, services)
        if isinstance(found, NoSession) and services.people:
            return NOBODY
        return _TOKEN_REQUIRED if isinstance(found, NoSession) and services.issuers else found

    def _remembered(self, key: _Key) -> _Held | NoSession | None:
        bad = self._bad.get(key)
        if bad is not None and self._boottime() < bad.until:
            return bad.because
        return self._still_held(key)

    def _still_held(self, key: _Key) -> _Held | None:
        held = self._held.get(key)
        # INVARIANT: neither clock may prolong it: not the wall clock when it is set back (S20), nor a machine
        # that slept.
        if held is None or self._boottime() >= held.until:
            return None
        return held if held.since <= self._clock() < held.known.session.expires_at else None

    async def _ask(
        self, token: str | None, services: Services, now: float
    ) -> _Held | NoSession | Unavailable:
        assert token is not None  # or there would be nothing to ask about
        key, before = _key(token, services), self._boottime()
        try:
            rules, issuer = self._chosen(token, services)
            session = judge_token(rules, services, await issuer.verify(token), now)
        except ClientError as error:
            because = NoSession(error.reason)
            self._bad.put(key, _Bad(because, before + PASSED_OVER), before)
            self._refused(str(error))
            return because
        except WorldError as error:
            return Unavailable(error.reason)
        return self._hold(key, session, session.created_at - rules.skew, now)

    def _chosen(self, token: str, services: Services) -> Trusted:
        """By what the token says of itself, of which nothing else is believed."""
        named = issuer_named_in(token)
        for name in services.issuers:
            trusted = self._issuers[name]
            if trusted.rules.issuer == named:
                return trusted
        raise ClientError(Reason.TOKEN_INVALID, "iss: not an issuer this route accepts")

    def _of_certificate(
        self, device: NotAsked | NoDevice | OnDevice, services: Services
    ) -> _Held | NoSession:
        if not isinstance(device, OnDevice):
            none = Reason.DEVICE_CERTIFICATE_REQUIRED
            return NoSession(none if isinstance(device, NotAsked) else device.reason)
        own = device_id(device)
        key = sha256(f"{device.certificate.thumbprint} {own}".encode()).digest(), services
        held = self._still_held(key)
        if held is not None:
            return held
        now = self._clock()
        session = certificate_session(services, device.certificate, now, own)
        if isinstance(session, Reason):
            return NoSession(session)
        return self._hold(key, session, session.created_at, now)

    def _hold(self, key: _Key, session: Session, issued: float, now: float) -> _Held:
        at = self._boottime()
        held = _Held(Known("", "", session, None, at, at), issued, now, at + CHECKED_AGAIN)
        self._held.put(key, held, at)
        return held

    # ── what is left of it ──

    def _standing(self, held: _Held, route: Route, device: DeviceEvidence | None) -> Known | NoSession:
        """What the log of locks leaves of a session, on the connection it is used on."""
        known, book = held.known, self._lease.book
        if held.bound and not _shows(device, known.session):
            return _TOKEN_INVALID
        if known.revision != book.revision:
            # INVARIANT: `as_of` is a number of this book as it is now. After a loss of data its numbers mean
            # something else.
            known.permits.clear()
            known.session = replace(known.session, as_of=book.as_of(held.issued))
            known.revision = book.revision
            known.revoked = any(lock.revokes for lock in book.meeting(known.session, "", 0.0))
        if known.revoked:
            return _TOKEN_INVALID
        limit = route.session_limit
        if limit is not None and limit.group not in known.groups:
            known.groups = (
                *known.groups,
                limit.group,
            )  # how many sessions a person has is not about services
        return known


@dataclass(slots=True)
class _Held:
    """A session that holds from `since` (seconds since the epoch) until `until` (of the keeper's clock), or
    until it expires. `issued` is the moment whose locks it knows, in seconds since the epoch."""

    known: Known
    issued: float
    since: float
    until: float

    @property
    def bound(self) -> bool:
        """Whether it counts on a connection with its certificate alone (RFC 8705 3)."""
        return self.known.session.by is Credential.TOKEN and self.known.session.certificate is not None


class _Bad(NamedTuple):
    because: NoSession
    until: float


_Key = tuple[bytes, Services]
"""The digest of what was shown (never a token itself: memory may end in a core dump), and for what."""

V = TypeVar("V", _Held, _Bad)


class _Kept(Generic[V]):
    """A bounded memory. All in it stay equally long, so that the first is the first to go."""

    def __init__(self) -> None:
        self._by_key: dict[_Key, V] = {}

    def get(self, key: _Key) -> V | None:
        return self._by_key.get(key)

    def put(self, key: _Key, value: V, now: float) -> None:
        self._by_key.pop(key, None)
        self._by_key[key] = value
        while True:
            first = next(iter(self._by_key))
            if len(self._by_key) <= MAX_KEPT and now < self._by_key[first].until:
                break
            del self._by_key[first]

    def __len__(self) -> int:
        return len(self._by_key)


def _services(route: Route) -> Services:
    assert route.services is not None  # on a route without, nobody asks here
    return route.services


def _token(request: Request) -> str | None:
    """The token of a request that shows one; None where it is malformed or too long."""
    shown = request.authorization
    if shown is None or len(shown) > MAX_TOKEN:
        return None
    found = _BEARER.fullmatch(shown)
    return None if found is None else found[1].decode("ascii")


def _key(token: str, services: Services) -> _Key:
    return sha256(token.encode("ascii")).digest(), services


def _shows(device: DeviceEvidence | None, session: Session) -> bool:
    return isinstance(device, OnDevice) and device.certificate.thumbprint == session.certificate
