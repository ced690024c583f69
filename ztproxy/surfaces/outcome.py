"""What was decided about one exchange, for the logs and the metrics."""

from __future__ import annotations

from typing import NamedTuple

from ztproxy.core.reasons import Reason


class Outcome(NamedTuple):
    """Rides in `Exchange.tag`. `session` is the public id; `route` is empty where none matched; `device` is
    the id of the one the session is bound to."""

    route: str
    decision: str
    reasons: tuple[Reason, ...]
    subject: str
    email: str | None
    session: str
    acr: str | None = None
    device: str | None = None
