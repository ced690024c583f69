"""Moments and lengths of time, as the API says and takes them.

Knows: RFC 3339. Promises: an end is in the future and at most 400 days away, given in one way. Leaves
nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from ztproxy.gateway.ports.administration import LONGEST_TOKEN_SECONDS
from ztproxy.surfaces.admin.problems import Kind, Problem

MAX_SECONDS = LONGEST_TOKEN_SECONDS

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=MAX_SECONDS)]


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as RFC 3339 has them, to the millisecond."""
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def end_of(
    until: datetime | msgspec.UnsetType, expires_in: float | msgspec.UnsetType, now: float
) -> float | None:
    """The end that a form gives by one of its two fields, in seconds since the epoch; None for no end."""
    if until is not msgspec.UNSET and expires_in is not msgspec.UNSET:
        raise Problem(Kind.INVALID, "`until` says it already", "expires_in")
    if expires_in is not msgspec.UNSET:
        return now + expires_in
    if until is msgspec.UNSET:
        return None
    end = until.timestamp()
    if not now < end <= now + MAX_SECONDS:
        raise Problem(Kind.INVALID, "it must be in the future, at most 400 days away", "until")
    return end
