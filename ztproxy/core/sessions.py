"""How long a login may be relied on: functions of (session, route, now), nothing else.

Knows: idle, absolute and per-sensitivity limits. Promises: a limit is reached *at* its second, never after.
Leaves to the store: forgetting idle sessions (its own clock decides that), and to the sign-in: refreshing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from ztproxy.core.identity import Session
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


class Standing(Enum):
    """Where a session stands for one route."""

    LIVE = auto()
    STALE = auto()  # the provider must vouch for the person again: refresh, else sign in
    ENDED = auto()


def standing(session: Session, sensitivity: Sensitivity, now: float) -> Standing:
    """ENDED past the absolute limit; STALE when the provider last vouched too long ago for this route."""
    if now >= session.expires_at:
        return Standing.ENDED
    within = sensitivity.verified_within
    if within is not None and now >= session.verified_at + within:
        return Standing.STALE
    return Standing.LIVE


def needs_new_sign_in(session: Session, sensitivity: Sensitivity, now: float) -> float | None:
    """The `max_age` to ask for when the person signed in too long ago for this route, else None."""
    within = sensitivity.signed_in_within
    if within is not None and now >= session.authenticated_at + within:
        return within
    return None


def live_until(session: Session, sensitivity: Sensitivity) -> float:
    """The first moment at which the answers above can change by time alone."""
    bounds = [session.expires_at]
    if sensitivity.verified_within is not None:
        bounds.append(session.verified_at + sensitivity.verified_within)
    if sensitivity.signed_in_within is not None:
        bounds.append(session.authenticated_at + sensitivity.signed_in_within)
    return min(bounds)
