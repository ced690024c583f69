"""The judge: match, gather, decide. The ten lines of a request that read as the product.

Knows: the routes, the witness, the book of locks, and when a decision may be given again. Promises: the
decision is always that of `core.decision.decide`, or one of its forwards given again for the same session,
route, host and method while all it depended on is unchanged. Leaves acting to the surface.
"""

from __future__ import annotations

from collections.abc import Callable

from ztproxy.core.conditions import Source
from ztproxy.core.decision import Forward, decide
from ztproxy.core.evidence import Evidence, NoSession, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.lock_book import LockBook
from ztproxy.core.outbound import ASSERTION_LIFETIME, assertion_claims, identity_block
from ztproxy.core.request import Request
from ztproxy.core.routes import Route
from ztproxy.core.sessions import live_until
from ztproxy.gateway.judgement import Introduction, Judgement, Permit
from ztproxy.gateway.known import Known
from ztproxy.gateway.ports import AssertionSigner, Clock
from ztproxy.gateway.witness import Witness

ASSERTION_REUSE = 60.0
"""Seconds one assertion is sent again for the same session and audience; far less than it is valid for."""

MOST_KEPT = 256
"""Permits and introductions of one session: a wildcard route has more hosts than anyone has memory."""

_REPEATABLE = frozenset({Source.SESSION, Source.METHOD})


class Judge:
    """Judges requests on routes already matched."""

    def __init__(
        self,
        witness: Witness,
        book: LockBook,
        signer: AssertionSigner,
        clock: Clock,
        token: Callable[[], str],
    ) -> None:
        self._witness, self._book, self._signer = witness, book, signer
        self._clock, self._token = clock, token

    def at_once(self, request: Request, route: Route) -> Judgement | None:
        """The judgement if every fact it needs is at hand, else None. Never awaits, creates no task."""
        found = self._witness.at_hand(request)
        if found is None:
            return None
        now = self._clock()
        if isinstance(found, NoSession):
            return self._judge(request, route, found, now)
        limit = route.session_limit
        if limit is not None and limit.group not in found.groups:
            return None  # whether it is one too many is to be found out first
        permit = found.permits.get((route, request.host, request.method))
        if permit is not None and permit.since <= now < permit.until and _repeats(request, route):
            return permit.judgement
        if live_until(found.session, route.sensitivity) <= now:
            return None  # the provider may vouch again, and that awaits
        return self._judge(request, route, found, now)

    async def judge(self, request: Request, route: Route) -> Judgement:
        """The judgement, after asking whoever must be asked."""
        now = self._clock()
        found = await self._witness.gather(request, route, now)
        return self._judge(request, route, found, self._clock())

    def _judge(
        self, request: Request, route: Route, found: Known | NoSession | Unavailable, now: float
    ) -> Judgement:
        session = found.session if isinstance(found, Known) else found
        locks = self._book.meeting(session if isinstance(session, Session) else None, route.name, now)
        decision = decide(route, request, Evidence(session, now, locks))
        if not isinstance(decision, Forward):
            return Judgement(route, decision, b"", session if isinstance(session, Session) else None)
        if decision.session is None or not isinstance(found, Known):
            return Judgement(route, decision, b"", None)
        identity, since, until = self._introduction(request, route, found, now)
        judgement = Judgement(route, decision, identity, decision.session)
        # INVARIANT: a permit may be kept only where nothing but what it is kept under was read. Whatever a
        # condition reads must be in its `reads`, or a decision would outlive its ground (CVE-2026-48096).
        # Locks were read too: the witness drops the permits whenever the book has changed.
        if route.policy.reads <= _REPEATABLE and _repeats(request, route):
            until = min(until, live_until(decision.session, route.sensitivity))
            permit = Permit(judgement, since, until)
            if len(found.permits) >= MOST_KEPT:
                found.permits.clear()
            found.permits[(route, request.host, request.method)] = permit
        return judgement

    def _introduction(self, request: Request, route: Route, found: Known, now: float) -> Introduction:
        """What the app is told, with one assertion a minute: signing costs more than all the rest."""
        known = found.introductions.get((route, request.host))
        if known is not None and known.since <= now < known.until:
            return known
        assertion = None
        if route.identity.assertion:
            claims = assertion_claims(route, found.session, now, self._token(), route.site(request))
            assertion = self._signer.sign(claims)
        identity = identity_block(route, found.session, assertion)
        made = Introduction(identity, now, now + ASSERTION_REUSE)
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


assert ASSERTION_REUSE < ASSERTION_LIFETIME
