"""A judgement, and the two things that let one be given again: values only.

Knows: what acting on a decision needs. Promises: frozen. Leaves making them to `gateway.judge`, and keeping
them to `gateway.known`.
"""

from __future__ import annotations

from typing import NamedTuple

from ztproxy.core.decision import Decision
from ztproxy.core.evidence import DeviceEvidence
from ztproxy.core.identity import Session
from ztproxy.core.routes import Route


class Judgement(NamedTuple):
    """A decision, and what acting on it needs. `identity` are the lines that tell the app who it is."""

    route: Route
    decision: Decision
    identity: bytes
    session: Session | None


class Permit(NamedTuple):
    """A forward decision that may be given again.

    It depends on the session, the route, the host, the method and the device alone (`Judge` sees to that);
    `device` is the very evidence it was given on. It counts from `since` until `until`, in seconds since the
    epoch: a clock that is set back must not prolong it (S20).
    """

    judgement: Judgement
    device: DeviceEvidence
    since: float
    until: float


class Introduction(NamedTuple):
    """The identity lines for one app, with an assertion that may be sent again; times as in `Permit`."""

    identity: bytes
    since: float
    until: float
