"""The judge: match, gather, decide. The ten lines of a request that read as the product.

Knows: the routes, the witnesses, the book of locks, and when a decision may be given again. Promises: the
decision is always that of `core.decision.decide`, or one of its forwards given again for the same session,
route, host, method and device while all it depended on is unchanged. Leaves acting to the surface.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ztproxy.core.conditions import Source
from ztproxy.core.decision import Forward, decide
from ztproxy.core.device import OnDevice
from ztproxy.core.device_conditions import posture_until
from ztproxy.core.evidence import DeviceEvidence, Evidence, NoSession, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.lock_book import LockBook
from ztproxy.core.outbound import ASSERTION_LIFETIME, assertion_claims, identity_block
from ztproxy.core.request import Request
from ztproxy.core.routes import Route
from ztproxy.core.sessions import at, live_until
from ztproxy.gateway.judgement import Introduction, Judgement, Permit
from ztproxy.gateway.known import Known
from ztproxy.gateway.ports import AssertionSigner, Clock
from ztproxy.gateway.services import Nobody, ServiceWitness
from ztproxy.gateway.witness import Witness

ASSERTION_REUSE = 60.0
"""Seconds one assertion is sent again for the same session and audience; far less than it is valid for."""

MOST_KEPT = 256
"""Permits and introductions of one session: a wildcard route has more hosts than anyone has memory."""

_REPEATABLE = frozenset({Source.SESSION, Source.METHOD, Source.DEVICE})


class Judge:
    """Judges requests on routes already matched. `services` is who knows those of routes that have some."""

    def __init__(
        self,
        witness: Witness,
        services: ServiceWitness,
        book: LockBook,
        signer: AssertionSigner,
        clock: Clock,
        token: Callable[[], str],
    ) -> None:
        self._witness, self._services, self._book, self._signer = witness, services, book, signer
        self._clock, self._token = clock, token

    def at_once(self, request: Request, route: Route) -> Judgement | None:
        """The judgement if every fact it needs is at hand, else None. Never awaits, creates no task."""
        now = self._clock()
        device = self._witness.device_at_hand(request, now)
        if device is None:
            return None
        if route.services is None:
            found = self._witness.at_hand(request, device)
        else:
            shown = self._services.at_hand(request, route, device)
            found = self._witness.at_hand(request, device) if isinstance(shown, Nobody) else shown
        if found is None:
            return None
        if isinstance(found, NoSession):
            return self._judge(request, route, found, device, now)
        limit = route.session_limit
        if limit is not None and limit.group not in found.groups:
            return None  # whether it is one too many is to be found out first
        permit = found.permits.get((route, request.host, request.method))
        if (
            permit is not None
            and permit.device is device
            and permit.since <= now < permit.until
            and _repeats(request, route)
        ):
            return permit.judgement
        if live_until(at(found.session, now), route.sensitivity) <= now:
            return None  # the provider may vouch again, and that awaits
        return self._judge(request, route, found, device, now)

    async def judge(self, request: Request, route: Route) -> Judgement:
        """The judgement, after asking whoever must be asked."""
        device = await self._witness.device_of(request, self._clock())
        if route.services is not None:
            shown = await self._services.gather(request, route, device, self._clock())
            if not isinstance(shown, Nobody):
                return self._judge(request, route, shown, device, self._clock())
        found = await self._witness.gather(request, route, self._clock(), device)
        return self._judge(request, route, found, device, self._clock())

    def _judge(
        self,
        request: Request,
        route: Route,
        found: Known | NoSession | Unavailable,
        device: DeviceEvidence,
        now: float,
    ) -> Judgement:
        # INVARIANT: as it stands now: a lock that asks for a rank is not met by one that is forgotten.
        session = at(found.session, now) if isinstance(found, Known) else found
        locks = self._book.meeting(session if isinstance(session, Session) else None, route.name, now)
        decision = decide(route, request, Evidence(session, now, locks, device))
        if not isinstance(decision, Forward):
            return Judgement.of(route, decision, b"", session if isinstance(session, Session) else None)
        if decision.session is None or not isinstance(found, Known):
            return Judgement.of(route, decision, b"", None)
        identity, since, until = self._introduction(request, route, found, decision.session, now)
        judgement = Judgement.of(route, decision, identity, decision.session)
        # INVARIANT: a permit may be kept only where nothing but what it is kept under was read. Whatever a
        # condition reads must be in its `reads`, or a decision would outlive its ground (CVE-2026-48096).
        # Locks were read too: the witness drops the permits whenever the book has changed.
        if route.policy.reads <= _REPEATABLE and _repeats(request, route):
            by_time = live_until(decision.session, route.sensitivity), _device_until(route, device, now)
            permit = Permit(judgement, device, since, min(until, *by_time))
            if len(found.permits) >= MOST_KEPT:
                found.permits.clear()
            found.permits[(route, request.host, request.method)] = permit
        return judgement

    def _introduction(
        self, request: Request, route: Route, found: Known, session: Session, now: float
    ) -> Introduction:
        """What the app is told, with one assertion a minute: signing costs more than all the rest.

        INVARIANT: of `session`, as it stands now, and for no longer than it does: what was proved and is not
        remembered any more is not told.
        """
        known = found.introductions.get((route, request.host))
        if known is not None and known.since <= now < known.until:
            return known
        assertion = None
        if route.identity.assertion:
            claims = assertion_claims(route, session, now, self._token(), route.site(request))
            assertion = self._signer.sign(claims)
        identity = identity_block(route, session, assertion)
        made = Introduction(identity, now, min(now + ASSERTION_REUSE, live_until(session, route.sensitivity)))
        if len(found.introductions) >= MOST_KEPT:
            found.introductions.clear()
        found.introductions[(route, request.host)] = made
        return made


def _repeats(request: Request, route: Route) -> bool:
    """Whether this request asks only what a permit answers: an accepted method that is never a preflight, one
    reading, no upgrade."""
    return (
        request.upgrade is None
        and request.method in route.methods
        and request.method != "OPTIONS"
        and len(request.path.readings) == 1
    )


def _device_until(route: Route, device: DeviceEvidence, now: float) -> float:
    """The first moment at which what is known of a device can change an answer by time alone."""
    if not isinstance(device, OnDevice):
        return inf
    if device.device is None or not route.posture_limits:
        return device.until
    return min(device.until, posture_until(device.device, route.posture_limits, now))


assert ASSERTION_REUSE < ASSERTION_LIFETIME
