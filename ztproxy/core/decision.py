"""The decision: one plain function of one route, one request and the evidence.

Knows: in which order the gates stand. Promises: default deny; unavailability of the session store never
redirects to a login (no loop) and never forwards a person; the same function serves the proxy and
`ztproxy explain`. Leaves to the surfaces: acting on the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from ztproxy.core.conditions import Ask, Fails, Holds, Needs, Truth
from ztproxy.core.evidence import Evidence, Facts, NoSession, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request, is_preflight
from ztproxy.core.routes import Forwarding, Route
from ztproxy.core.sessions import Standing, needs_new_sign_in, standing


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass it on; `session` is the person to tell the app about, if there is one."""

    session: Session | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Login:
    """Ask the person to sign in."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class StepUp:
    """Ask the person to sign in more strongly (`rank`), or again (`max_age` seconds), or both."""

    session: Session
    rank: int
    max_age: float | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse; `reasons` is never empty and its first chooses the status."""

    reasons: tuple[Reason, ...]

    @property
    def status(self) -> int:
        return self.reasons[0].status


Decision = Forward | Login | StepUp | Deny


def decide(route: Route, request: Request, evidence: Evidence) -> Decision:
    """Judges one request on its route.

    The gates, in order: the method and upgrade the route accepts; a real CORS preflight; the policy, over
    every reading of the path; then, for a person, the route's assurance and freshness.
    """
    refusal = _shape(route, request)
    if refusal is not None:
        return Deny((refusal,))
    if route.cors_preflight and is_preflight(request):
        return Forward(None, (Reason.CORS_PREFLIGHT,))

    known = _still_standing(evidence, route)
    session = known if isinstance(known, Session) else None
    truth, facts = _judge(route, request, session, evidence.now)

    if isinstance(truth, Fails):
        return Deny(truth.reasons)
    if isinstance(truth, Holds):
        if session is not None:
            max_age = needs_new_sign_in(session, route.sensitivity, evidence.now)
            if max_age is not None:
                return StepUp(session, route.sensitivity.rank, max_age, (Reason.STEP_UP_REQUIRED,))
        return Forward(session, (route.policy.grant(facts),))
    # INVARIANT: an unreadable store answers 503 here, before any redirect: sending the browser to a login
    # it does not need would loop, and would end a session that still holds.
    if isinstance(known, Unavailable):
        return Deny((known.reason,))
    if truth.ask is Ask.STEP_UP and session is not None:
        max_age = needs_new_sign_in(session, route.sensitivity, evidence.now)
        return StepUp(session, max(truth.rank, route.sensitivity.rank), max_age, truth.reasons)
    why = known.reason if isinstance(known, NoSession) else Reason.LOGIN_REQUIRED
    return Login((why,))


def _still_standing(evidence: Evidence, route: Route) -> Session | NoSession | Unavailable:
    known = evidence.session
    if isinstance(known, Session) and standing(known, route.sensitivity, evidence.now) is not Standing.LIVE:
        return NoSession(Reason.SESSION_EXPIRED)
    return known


def _shape(route: Route, request: Request) -> Reason | None:
    if request.method not in route.methods:
        return Reason.HTTP_METHOD
    if request.upgrade is None:
        return None
    action = route.action
    if not isinstance(action, Forwarding) or request.upgrade not in action.upgrades:
        return Reason.UPGRADE_NOT_ALLOWED
    if request.origin is None:
        return None if action.allow_missing_origin else Reason.ORIGIN_MISMATCH
    # RFC 6455 10.2, made mandatory: SameSite does not keep sibling sites from opening a socket (T30). Hosts
    # are compared as browsers write them, lower-case, so an upper-case spelling is the same site.
    origin = request.origin.lower()
    return None if origin == route.site(request) or origin in action.origins else Reason.ORIGIN_MISMATCH


def _judge(route: Route, request: Request, session: Session | None, now: float) -> tuple[Truth, Facts]:
    condition = route.guarded
    worst: Truth | None = None
    facts = Facts(request, request.path.readings[0], session, now)
    for reading in request.path.readings:
        facts = Facts(request, reading, session, now)
        truth = condition.ask(facts)
        if isinstance(truth, Fails):
            return truth, facts
        if isinstance(truth, Needs) or worst is None:
            worst = truth
    assert worst is not None
    return worst, facts
