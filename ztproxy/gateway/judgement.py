"""A judgement, what is written down of it, and the two things that let one be given again: values only.

Knows: what acting on a decision needs. Promises: frozen. Leaves making them to `gateway.judge`, and keeping
them to `gateway.known`.
"""

from __future__ import annotations

from typing import NamedTuple

from ztproxy.core.decision import Decision, Deny, Forward, Login, StepUp
from ztproxy.core.evidence import DeviceEvidence
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import Route


class Outcome(NamedTuple):
    """What was decided about one exchange, for the logs and the metrics; it rides in `Exchange.tag`.

    `session` is the public id; `route` is empty where none matched; `device` is the id of the one the session
    is bound to.
    """

    route: str
    decision: str
    reasons: tuple[Reason, ...]
    subject: str
    email: str | None
    session: str
    acr: str | None = None
    device: str | None = None


class Judgement(NamedTuple):
    """A decision, and what acting on it needs. `identity` are the lines that tell the app who it is."""

    route: Route
    decision: Decision
    identity: bytes
    session: Session | None
    outcome: Outcome

    @classmethod
    def of(cls, route: Route, decision: Decision, identity: bytes, session: Session | None) -> Judgement:
        """With its outcome, which is thus made once however often the judgement is given."""
        return cls(route, decision, identity, session, _outcome(route, decision, session))


def _outcome(route: Route, decision: Decision, session: Session | None) -> Outcome:
    name = _NAMES[type(decision)]
    if session is None:
        return Outcome(route.name, name, decision.reasons, "", None, "")
    who = session.identity
    return Outcome(
        route.name, name, decision.reasons, who.subject, who.email, session.id, session.acr, session.device
    )


_NAMES: dict[type[Decision], str] = {
    Forward: "forward",
    Login: "login",
    StepUp: "stepup",
    Deny: "deny",
}


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
