"""How long a login may be relied on, for how much, and on which device: functions of values, nothing else.

Knows: idle, absolute and per-sensitivity limits, those of groups, what is remembered of a rank, and what a
session is bound to. Promises: a limit is reached *at* its second, never after; nothing here makes a session
longer or stronger than its sign-ins did. Leaves to the store: forgetting idle sessions (its own clock decides
that), and to the sign-in: refreshing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from ztproxy.core.assurance import LOWEST
from ztproxy.core.device import OnDevice
from ztproxy.core.identity import Credential, Session, Step
from ztproxy.core.routes import Sensitivity


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """For members of any of `groups`; None leaves a limit as it is."""

    groups: frozenset[str]
    idle: float | None = None
    absolute: float | None = None


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """For every session, seconds: `idle` without a request, `absolute` since sign-in. `groups` narrows them
    for members of a group; of several the shortest counts."""

    idle: float = 3600.0
    absolute: float = 43200.0
    groups: tuple[GroupLimits, ...] = ()


def limits_for(limits: SessionLimits, groups: Collection[str]) -> tuple[float, float]:
    """(idle, absolute) for somebody in `groups`: of all that apply the shortest."""
    apply = [one for one in limits.groups if not one.groups.isdisjoint(groups)]
    return (
        min([limits.idle, *(one.idle for one in apply if one.idle is not None)]),
        min([limits.absolute, *(one.absolute for one in apply if one.absolute is not None)]),
    )


def narrowed(session: Session, limits: SessionLimits) -> Session:
    """The session within the limits of the groups its person is in now.

    INVARIANT: it only ever becomes shorter: whoever leaves a group with short limits has the longer ones from
    the next sign-in on, and no refresh prolongs a session (T35).
    """
    idle, absolute = limits_for(limits, session.identity.groups)
    return replace(
        session,
        expires_at=min(session.expires_at, session.created_at + absolute),
        idle=shorter(session.idle, idle if idle < limits.idle else None),
    )


def shortest_idle(limits: SessionLimits) -> float:
    """The shortest time without a request after which anybody's session ends."""
    return min([limits.idle, *(group.idle for group in limits.groups if group.idle is not None)])


def shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two spans, where None sets no limit."""
    return min((span for span in (one, other) if span is not None), default=None)


class Standing(Enum):
    """Where a session stands for one route."""

    LIVE = auto()
    STALE = auto()  # the provider must vouch for the person again: refresh, else sign in
    ENDED = auto()


def standing(session: Session, sensitivity: Sensitivity, now: float) -> Standing:
    """ENDED past the absolute limit; STALE when the provider last vouched too long ago for this route. For a
    service nobody vouches again: what it shows says how long it holds."""
    if now >= session.expires_at:
        return Standing.ENDED
    within = sensitivity.verified_within if session.by is Credential.COOKIE else None
    if within is not None and now >= session.verified_at + within:
        return Standing.STALE
    return Standing.LIVE


def needs_new_sign_in(session: Session, sensitivity: Sensitivity, now: float) -> float | None:
    """The `max_age` to ask for when the person signed in too long ago for this route, or not for this very
    session where it wants that; else None. Of services only a token says when its person signed in."""
    if sensitivity.fresh and not session.fresh and session.by is Credential.COOKIE:
        return 0.0
    within = sensitivity.signed_in_within if session.by is not Credential.CERTIFICATE else None
    if within is not None and now >= session.authenticated_at + within:
        return within
    return None


def live_until(session: Session, sensitivity: Sensitivity) -> float:
    """The first moment at which the answers above, and the rank of a session as `at` gives it, can change by
    time alone."""
    bounds = [session.expires_at, *(step.until for step in session.steps)]
    if sensitivity.verified_within is not None and session.by is Credential.COOKIE:
        bounds.append(session.verified_at + sensitivity.verified_within)
    if sensitivity.signed_in_within is not None and session.by is not Credential.CERTIFICATE:
        bounds.append(session.authenticated_at + sensitivity.signed_in_within)
    return min(bounds)


def remembered(steps: Iterable[Step], until: float, now: float) -> tuple[int, tuple[Step, ...]]:
    """The rank that these steps give at `now`, in a session that ends at `until`, and those of them that can
    still matter: the strongest first, each outlived by the next. None matter where the strongest is
    remembered as long as the session lives."""
    kept: list[Step] = []
    for step in sorted((Step(one.rank, min(one.until, until)) for one in steps), reverse=True):
        if step.rank > LOWEST and step.until > (kept[-1].until if kept else now):
            kept.append(step)
    if not kept:
        return LOWEST, ()
    return kept[0].rank, () if kept[0].until >= until else tuple(kept)


def at(session: Session, now: float) -> Session:
    """The session with the rank that is still remembered; the very same object while that has not changed.

    INVARIANT: how a rank was proved goes with it. An app that is told `acr` relies on it (T35).
    """
    if not session.steps or now < session.steps[0].until:
        return session
    rank, steps = remembered(session.steps, session.expires_at, now)
    return replace(session, rank=rank, steps=steps, acr=None, amr=())


def proved(session: Session) -> tuple[Step, ...]:
    """What a session has proved, as steps; without any, its rank holds as long as it does."""
    return session.steps or (Step(session.rank, session.expires_at),)


def bound_to(session: Session, device: OnDevice) -> bool:
    """Whether a bound session is on its device: the one it is bound to, with whatever certificate speaks for
    it now, as after a renewal; or, where no device is known, with the very certificate.

    INVARIANT: a certificate that speaks for the device no more, because somebody took it away, has no say
    here either, although the session was once bound to it.
    """
    if session.device is not None:
        return session.device == device_id(device)
    return session.certificate is not None and session.certificate == device.certificate.thumbprint


def rebound(session: Session, device: OnDevice) -> Session:
    """The session bound to this certificate and its device.

    INVARIANT: the caller knows that the session is not bound, or that it is `bound_to` this device (T32).
    """
    return replace(session, certificate=device.certificate.thumbprint, device=device_id(device))


def device_id(device: OnDevice) -> str | None:
    """What the inventory calls it, else what its certificate does."""
    return device.certificate.device if device.device is None else device.device.id
