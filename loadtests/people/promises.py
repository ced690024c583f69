"""What is promised to whom, phase by phase: the plan of a run, what happened when, and the judge.

Knows: the phases, and for each what an act may end in. Promises: pure; a time that decides is taken on the
safe side, so that what is judged wrong is wrong however busy the machine was; where an act touches several
phases, or the edge of a trouble, it may end as in either. Leaves asking to `users`, and making the trouble to
`house`. Moments are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

LEASE = 2.0
"""Seconds, of the house's proxy: long enough for a machine that does other things to keep it."""

CUT = 6.0
"""Seconds beyond the lease for which the store is gone at most: less than an open WebSocket waits for it."""

BLIP, BETWEEN_BLIPS = 0.6, 2.4
"""A cut that a lease outlasts, and that ends before a command gives up."""

REVOCATION_NOT_SENT, LONGER_LEASE = "revocation_not_sent", "longer_lease"
MISTAKES = (REVOCATION_NOT_SENT, LONGER_LEASE)
"""What can be wrong in the house on purpose, to see that it is found: an administration that says "confirmed"
and tells nobody; leases longer than anybody was told."""

_LATELY = 2.0
"""Seconds since somebody was let in at an app in which its proxy has no need to ask the store (it need not
for 5 s, `ztproxy.gateway.known`)."""


class Trouble(StrEnum):
    """What the house does to ztproxy."""

    NONE = "none"
    IDP_SLOW = "idp_slow"
    IDP_AWAY = "idp_away"
    STORE_SLOW = "store_slow"
    STORE_BLIPS = "store_blips"
    STORE_GONE = "store_gone"


class Act(StrEnum):
    """What somebody does. `PAGE`: anything at an app that let them in lately; `COLD_PAGE`: at one that did
    not; `SIGN_IN` is with the provider, `MOVE` to another app with the session there is."""

    PAGE = "page"
    COLD_PAGE = "cold_page"
    SIGN_IN = "sign_in"
    MOVE = "move"
    SIGN_OUT = "sign_out"
    REVOKE = "revoke"


class Outcome(StrEnum):
    """What came of it. `BUSY`: 503 with Retry-After, the session's cookie left alone. `NO_PROVIDER`: a page
    with 502. `REFUSED`: asked to sign in. `ONWARD`: a redirect to anywhere else."""

    DONE = "done"
    BUSY = "busy"
    NO_PROVIDER = "no_provider"
    REFUSED = "refused"
    ONWARD = "onward"
    WRONG = "wrong"


Outcomes = frozenset[Outcome]
_DONE = frozenset({Outcome.DONE})
_BUSY = frozenset({Outcome.BUSY})
_MAYBE = _DONE | _BUSY
_NO_PROVIDER = frozenset({Outcome.NO_PROVIDER})


@dataclass(frozen=True, slots=True)
class Phase:
    """`share` of the whole time; of a phase that has an end of its own, the most."""

    name: str
    trouble: Trouble
    share: float
    promised: str


PHASES = (
    Phase("quiet", Trouble.NONE, 0.15, "everybody gets what they came for"),
    Phase("IdP slow", Trouble.IDP_SLOW, 0.15, "the signed-in notice nothing; sign-ins take longer"),
    Phase("IdP away", Trouble.IDP_AWAY, 0.15, "the signed-in notice nothing; sign-ins get a page with 502"),
    Phase("store slow", Trouble.STORE_SLOW, 0.15, "everybody gets what they came for"),
    Phase("store blips", Trouble.STORE_BLIPS, 0.1, "cuts below a lease: the signed-in notice nothing"),
    Phase("store gone", Trouble.STORE_GONE, 0.15, "past the lease 503 with Retry-After, nobody is let in"),
    Phase("quiet again", Trouble.NONE, 0.15, "nobody has lost a session"),
)


@dataclass(slots=True)
class Span:
    """A phase as it was. From `certain` until `healing` its trouble was there for sure; `began` is before it
    could be, `ended` after it could be no more."""

    number: int
    phase: Phase
    began: float
    certain: float = inf
    healing: float = inf
    ended: float = inf

    @property
    def label(self) -> str:
        return f"{self.number} {self.phase.name}"

    def closed_to_all(self, moment: float, slack: float = 0.0) -> bool:
        """Whether at `moment` no worker can have had a lease: each runs from before its question left."""
        sure = self.certain + LEASE + slack
        return self.phase.trouble is Trouble.STORE_GONE and sure < moment < self.healing


@dataclass(slots=True)
class Timeline:
    """What happened, as it happens."""

    spans: list[Span] = field(default_factory=list)

    @property
    def now(self) -> Span:
        return self.spans[-1]

    def enter(self, phase: Phase, moment: float) -> Span:
        if self.spans:
            self.now.ended = moment
        self.spans.append(Span(len(self.spans) + 1, phase, moment))
        return self.now

    def touched(self, began: float, ended: float) -> list[Span]:
        return [span for span in self.spans if span.began <= ended and span.ended >= began]

    def promised(self, act: Act, began: float, ended: float) -> Outcomes:
        """What an act that took from `began` to `ended` may have come to."""
        return frozenset().union(*(_in(span, act, began, ended) for span in self.touched(began, ended)))

    def closed_to_all(self, moment: float, slack: float = 0.0) -> bool:
        return any(span.closed_to_all(moment, slack) for span in self.spans)


def _in(span: Span, act: Act, began: float, ended: float) -> Outcomes:
    if span.phase.trouble is Trouble.IDP_AWAY:
        if act is not Act.SIGN_IN:
            return _DONE
        within = span.certain <= began and ended < span.healing
        return _NO_PROVIDER if within else _DONE | _NO_PROVIDER
    if span.phase.trouble is Trouble.STORE_BLIPS:
        return _DONE if act is Act.PAGE else _MAYBE
    if span.phase.trouble is Trouble.STORE_GONE:
        # Signing out lets nobody in; where it is not confirmed, its page says so.
        closed = span.closed_to_all(began) and ended < span.healing and act is not Act.SIGN_OUT
        return _BUSY if closed else _MAYBE
    return _DONE


@dataclass(slots=True, eq=False)
class Session:
    """Somebody's session, and what they and the security team know of it. `asked`: before the revocation
    left; `revoked`: after its confirmation came. `seen`: when it was last let in, by app. `talks`: over a
    WebSocket."""

    sid: str
    since: float
    asked: float = inf
    revoked: float = inf
    talks: bool = False
    seen: dict[str, float] = field(default_factory=dict)

    def act(self, app: str, began: float) -> Act:
        return Act.PAGE if began - self.seen.get(app, -inf) < _LATELY else Act.COLD_PAGE


def wrong(
    timeline: Timeline, act: Act, outcome: Outcome, began: float, ended: float, session: Session | None = None
) -> str:
    """What promise an answer broke, in words; empty where it kept them all."""
    allowed = timeline.promised(act, began, ended)
    if session is not None and began > session.revoked:
        if outcome is Outcome.DONE:
            return "let in after its revocation was confirmed"
        allowed = (allowed - _DONE) | {Outcome.REFUSED}
    elif session is not None and session.asked <= ended:
        allowed |= {Outcome.REFUSED}
    if outcome in allowed:
        return ""
    if outcome is Outcome.DONE and act is not Act.REVOKE and timeline.closed_to_all(began):
        return "let in when no worker can have had a lease"
    if outcome is Outcome.REFUSED:
        return "not signed in any more, though nobody ended the session"
    return f"{act}: {outcome}, not {' or '.join(sorted(allowed))}"


def echo_wrong(timeline: Timeline, said: float, heard: float, session: Session) -> str:
    """The same for what came back over a WebSocket. `heard` is infinite where nothing came."""
    if said > session.revoked and heard < inf:
        return "an echo after the session's revocation was confirmed"
    if timeline.closed_to_all(heard, _ON_ITS_WAY):
        return "an echo when no worker can have had a lease"
    return "" if heard < inf else "no echo"


def close_wrong(code: int, at: float, session: Session) -> str:
    """And for the end of a WebSocket that its holder did not end."""
    if session.asked > at:
        return f"closed with {code}, though nobody ended the session"
    return "" if code == 1008 else f"closed with {code}, not with 1008"


_ON_ITS_WAY = 0.25
"""Seconds an octet may have been under way, or waited to be read, since the worker let it pass."""


def plan(seconds: float, names: Sequence[str] = ()) -> list[tuple[Phase, float]]:
    """The phases of a run and how long each takes; of those named, where some are. Raises `ValueError` for a
    name there is none of."""
    known = {phase.trouble.value: phase for phase in PHASES}
    for name in names:
        if name not in known:
            raise ValueError(f"`{name}` is no phase; there are {', '.join(known)}")
    chosen = [phase for phase in PHASES if not names or phase.trouble in (*names, Trouble.NONE)]
    whole = sum(phase.share for phase in chosen)
    return [(phase, seconds * phase.share / whole) for phase in chosen]
