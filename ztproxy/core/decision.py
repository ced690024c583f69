"""The decision: one plain function of one route, one request and the evidence.

Knows: in which order the gates stand. Promises: default deny; unavailability of the session store never
redirects to a login (no loop) and never forwards a person; the same function serves the proxy and
`ztproxy explain`. Leaves to the surfaces: acting on the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ztproxy.core.conditions import HOLDS, Ask, Fails, Holds, Needs, Truth, both
from ztproxy.core.device import NoDevice, OnDevice
from ztproxy.core.evidence import DeviceEvidence, Evidence, Facts, NoSession, Unavailable
from ztproxy.core.identity import Credential, Session
from ztproxy.core.locks import STEP_UP_RANK, Action, Lock
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request, is_preflight
from ztproxy.core.routes import Forwarding, Route
from ztproxy.core.sessions import Standing, at, bound_to, needs_new_sign_in, standing


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
    """Refuse; `reasons` is never empty and its first chooses the status. `message` is a lock's, for
    people."""

    reasons: tuple[Reason, ...]
    message: str = ""

    @property
    def status(self) -> int:
        return self.reasons[0].status


Decision = Forward | Login | StepUp | Deny


def decide(route: Route, request: Request, evidence: Evidence) -> Decision:
    """Judges one request on its route.

    The gates, in order: the method and upgrade the route accepts; a lock that closes the door; a real CORS
    preflight; a service's credential that does not hold; the policy narrowed by the route's assurance, over
    every reading of the path; then, for a person, how fresh the sign-in is, and what a lock asks of it.
    """
    refusal = _shape(route, request)
    if refusal is not None:
        return Deny((refusal,))
    shut = _shut(evidence)
    if shut is not None:
        return shut
    if route.cors_preflight and is_preflight(request):
        return Forward(None, (Reason.CORS_PREFLIGHT,))

    now, device, known = evidence.now, evidence.device, _still_standing(evidence, route)
    if isinstance(known, NoSession) and known.reason in _REFUSED_OUTRIGHT:
        return Deny((known.reason,))
    session = known if isinstance(known, Session) else None
    truth = _judge(route, request, session, device, now)
    if isinstance(truth, Fails):
        return Deny(truth.reasons)
    if session is None:
        if isinstance(truth, Holds):
            return _forward(route, request, None, device, now)
        # INVARIANT: an unreadable store answers 503 here, before any redirect: sending the browser to a login
        # it does not need would loop, and would end a session that still holds.
        if isinstance(known, Unavailable):
            return Deny((known.reason,))
        return Login((known.reason if isinstance(known, NoSession) else Reason.LOGIN_REQUIRED,))

    # What is left of the locks asks for something: it would have shut the door or ended the session above.
    max_age = 0.0 if evidence.locks else needs_new_sign_in(session, route.sensitivity, now)
    reasons: tuple[Reason, ...] = (Reason.STEP_UP_REQUIRED,)
    if isinstance(truth, Holds):
        if max_age is None:
            return _forward(route, request, session, device, now)
        # What is open to strangers stays open to somebody whose sign-in is too old, as a stranger.
        if isinstance(_judge(route, request, None, device, now), Holds):
            return _forward(route, request, None, device, now)
        rank = _rank_asked(route, request, session, device, now)
    elif truth.ask is Ask.STEP_UP:
        rank, reasons = truth.rank, truth.reasons
        if route.sensitivity.fresh:
            max_age = 0.0  # what the provider remembers would not do, and would be asked for once more
    else:
        return Login(truth.reasons)
    if evidence.locks:
        rank, reasons = max(rank, rank_locks_ask(evidence.locks)), (Reason.LOCK_SIGN_IN,)
    return StepUp(session, rank, max_age, reasons)


def _shut(evidence: Evidence) -> Deny | None:
    """A lock that closes the door for now, whatever the policy says and whoever asks."""
    for lock in evidence.locks:
        if lock.action is Action.DENY and not lock.revokes:
            return Deny((Reason.LOCKED,), lock.message)
    return None


def rank_locks_ask(locks: Iterable[Lock]) -> int:
    """The rank that a sign-in must reach for what these locks, which a session has met, ask for."""
    return STEP_UP_RANK if any(lock.action is Action.REQUIRE_STEP_UP for lock in locks) else 0


# A credential that a service brought for this very request, and that does not hold, is never passed over.
_REFUSED_OUTRIGHT = frozenset({Reason.CREDENTIALS_MIXED, Reason.TOKEN_INVALID, Reason.SCOPE_MISSING})


def _still_standing(evidence: Evidence, route: Route) -> Session | NoSession | Unavailable:
    known, now = evidence.session, evidence.now
    if not isinstance(known, Session):
        return known
    person = known.by is Credential.COOKIE
    if any(lock.revokes for lock in evidence.locks):
        return NoSession(Reason.SESSION_REVOKED if person else Reason.TOKEN_INVALID)
    # INVARIANT: who signed in elsewhere than the route accepts is a stranger here, whatever they may claim:
    # two providers can say the same of different people (T10).
    if person and route.providers and known.provider not in route.providers:
        return NoSession(Reason.LOGIN_REQUIRED)
    if standing(known, route.sensitivity, now) is not Standing.LIVE:
        return NoSession(Reason.SESSION_EXPIRED if person else Reason.TOKEN_INVALID)
    # INVARIANT: nobody can say whether this is its device, so it neither counts nor has to end.
    if known.certificate is not None and isinstance(evidence.device, Unavailable):
        return evidence.device
    if not on_its_device(known, evidence.device):
        return NoSession(Reason.DEVICE_MISMATCH)
    return at(known, now)


def on_its_device(session: Session, device: DeviceEvidence) -> bool:
    """Whether a session is used where it belongs: on the device whose certificate it is bound to (T32).

    INVARIANT: a bound session on a connection that was asked for a certificate and showed none, or one that
    does not hold, is a stolen cookie until the person signs in again (X27). Where nobody was asked nothing
    can be said; such a route has no condition about devices. Where nobody can tell (`Unavailable`), the
    caller does not ask.
    """
    if session.certificate is None:
        return True
    match device:
        case OnDevice():
            return bound_to(session, device)
        case NoDevice():
            return False
    return True


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


def _judge(
    route: Route, request: Request, session: Session | None, device: DeviceEvidence, now: float
) -> Truth:
    """The route's condition over the request: every way its path can be read must be allowed."""
    truth: Truth = HOLDS
    for reading in request.path.readings:
        truth = both(truth, route.guarded.ask(Facts(request, reading, session, now, device)))
    return truth


def _forward(
    route: Route, request: Request, session: Session | None, device: DeviceEvidence, now: float
) -> Forward:
    facts = Facts(request, request.path.readings[0], session, now, device)
    return Forward(session, (route.policy.grant(facts),))


def _rank_asked(route: Route, request: Request, session: Session, device: DeviceEvidence, now: float) -> int:
    """The rank a new sign-in must reach, whatever this one reached, so that one step-up is enough."""
    truth = _judge(route, request, replace(session, rank=0), device, now)
    return truth.rank if isinstance(truth, Needs) else 0
