"""Judges a history: what happened to requests, streams and revocations, all on one CLOCK_MONOTONIC.

Knows: events, and nothing of how they came about. Promises: a violation is one whatever the scheduling of the
machine was, for each time is taken on the safe side (below); one pass to gather and one to judge. Leaves to
whoever records that the times are on that side, and availability to whoever reads the numbers.

What an `Event` says, by its `op`:

    session   `session` may be met by a lock aimed at one of `names`, if the lock was begun after `t_start`:
              by then the number was known from which its sign-in counts. `t_end`: it could be used.
    request   asked of `worker` with the cookie of `session`. `t_start` before the first octet left, `t_end`
              after the answer was read. `outcome` is `allowed`, `revoked` (refused as such), `refused`,
              `unavailable` or `lost`.
    reached   the same request as its app saw it: `t_start` is the client's, carried in the request.
    down, up  a piece of a stream that arrived, at the client or at the app. `t_start` before it was sent.
    revoke    the lock `id` aimed at `names`. `t_start` before it was asked for, `t_end` after the answer.
              `outcome` is `confirmed`, `unconfirmed` or `failed`; `seq` is its number in the log.
    log       `names` are the ids of all locks in the log at the end.
    well      whether `worker` let a new session in after all faults had ended: `allowed`, or else `never`.
    fault     `outcome` was done to `worker`, or to the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

NOBODY: frozenset[str] = frozenset()
EVERYBODY = "all"


class Event(NamedTuple):
    """One thing that happened. Times are seconds of CLOCK_MONOTONIC."""

    op: str
    worker: str
    session: str
    t_start: float
    t_end: float
    outcome: str
    seq: int = 0
    id: str = ""
    names: frozenset[str] = NOBODY


class Violation(NamedTuple):
    """`kind` is one of

    stale_allow      a request begun after the confirmation was let in (INV-1; INV-5 for a late sign-in)
    stale_octets     a piece of a stream sent after the confirmation was relayed (INV-3)
    forgotten        a confirmed lock is not in the log at the end (INV-4)
    resurrected      a worker that had refused a session as revoked let it in again (INV-5)
    never_well       a worker let nobody in, long after all faults had ended

    `late` is by how many seconds the event began after what forbade it.
    """

    kind: str
    worker: str = ""
    session: str = ""
    id: str = ""
    at: float = 0.0
    late: float = 0.0
    how: str = ""


@dataclass(slots=True)
class Report:
    """What a history, or several, came to. `exposure`: the longest that a session was let in after its
    revocation was asked for and before it was confirmed, in seconds; `confirmed_in`: from the one to the
    other, of each revocation."""

    histories: int = 0
    events: int = 0
    sessions: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    pieces: Counter[str] = field(default_factory=Counter)
    revocations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    confirmed_in: list[float] = field(default_factory=list)
    exposure: float = 0.0
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Takes in what another history came to."""
        self.histories += other.histories
        self.events += other.events
        self.sessions += other.sessions
        for mine, theirs in (
            (self.requests, other.requests),
            (self.pieces, other.pieces),
            (self.revocations, other.revocations),
            (self.faults, other.faults),
        ):
            mine.update(theirs)
        self.confirmed_in += other.confirmed_in
        self.exposure = max(self.exposure, other.exposure)
        self.violations += other.violations

    def as_data(self) -> dict[str, Any]:
        """For a JSON file; times in milliseconds."""
        taken = sorted(self.confirmed_in)
        return {
            "histories": self.histories,
            "events": self.events,
            "sessions": self.sessions,
            "requests": dict(self.requests),
            "stream_pieces": dict(self.pieces),
            "revocations": dict(self.revocations),
            "faults": dict(self.faults),
            "confirmed_in_ms": {
                "p50": _ms(_quantile(taken, 0.5)),
                "p99": _ms(_quantile(taken, 0.99)),
                "max": _ms(_quantile(taken, 1.0)),
            },
            "worst_exposure_before_confirmation_ms": _ms(self.exposure),
            "violations": len(self.violations),
            "first_violations": [violation._asdict() for violation in self.violations[:20]],
        }


class _End(NamedTuple):
    """The first confirmed revocation that met a session."""

    confirmed_at: float
    asked_at: float
    id: str


_ALIVE = _End(inf, inf, "")


def check(events: Sequence[Event]) -> Report:
    """Judges one history; the order of `events` means nothing but for `request`s of one worker process, which
    are in the order of their ends."""
    report = Report(histories=1, events=len(events))
    ends = _ends(events)
    report.sessions = len(ends)
    refused: dict[tuple[str, str], float] = {}
    for event in events:
        match event.op:
            case "request":
                report.requests[event.outcome] += 1
                if event.outcome == "allowed":
                    _judge(report, event, ends, "stale_allow")
                    _judge_again(report, event, refused)
                elif event.outcome == "revoked":
                    refused.setdefault((event.worker, event.session), event.t_end)
            case "reached":
                _judge(report, event, ends, "stale_allow")
                _judge_again(report, event, refused)
            case "down" | "up":
                report.pieces[event.op] += 1
                _judge(report, event, ends, "stale_octets")
            case "revoke":
                report.revocations[event.outcome] += 1
                if event.outcome == "confirmed":
                    report.confirmed_in.append(event.t_end - event.t_start)
            case "fault":
                report.faults[event.outcome] += 1
            case "well":
                if event.outcome != "allowed":
                    report.violations.append(Violation("never_well", event.worker, at=event.t_end))
    report.violations += _forgotten(events)
    return report


def _ends(events: Iterable[Event]) -> dict[str, _End]:
    """By session: the revocation from whose confirmation on it may not be let in."""
    sessions: dict[str, float] = {}
    named: dict[str, list[str]] = {}
    for event in events:
        if event.op == "session":
            sessions[event.session] = event.t_start
            for name in (*event.names, EVERYBODY):
                named.setdefault(name, []).append(event.session)
    ends = dict.fromkeys(sessions, _ALIVE)
    for event in events:
        if event.op == "revoke" and event.outcome == "confirmed":
            end = _End(event.t_end, event.t_start, event.id)
            for session in (one for name in event.names for one in named.get(name, ())):
                # Whose sign-in may have begun after the lock was in the log is none of its business.
                if sessions[session] < event.t_start:
                    ends[session] = min(ends[session], end)
    return ends


def _judge(report: Report, event: Event, ends: dict[str, _End], kind: str) -> None:
    end = ends.get(event.session, _ALIVE)
    if event.t_start > end.confirmed_at:
        report.violations.append(
            Violation(
                kind,
                event.worker,
                event.session,
                end.id,
                event.t_start,
                event.t_start - end.confirmed_at,
                event.op,
            )
        )
    elif event.t_start > end.asked_at:
        report.exposure = max(report.exposure, event.t_start - end.asked_at)


def _judge_again(report: Report, event: Event, refused: dict[tuple[str, str], float]) -> None:
    since = refused.get((event.worker, event.session), inf)
    if event.t_start > since:
        late = event.t_start - since
        report.violations.append(
            Violation("resurrected", event.worker, event.session, at=event.t_start, late=late, how=event.op)
        )


def _forgotten(events: Iterable[Event]) -> list[Violation]:
    """Nothing is judged where nobody looked into the log at the end."""
    logs = [event.names for event in events if event.op == "log"]
    return [
        Violation("forgotten", id=event.id, at=event.t_end)
        for event in events
        if logs
        and event.op == "revoke"
        and event.outcome == "confirmed"
        and event.id
        and event.id not in logs[-1]
    ]


def story(events: Iterable[Event], violation: Violation, around: float = 4.0) -> list[Event]:
    """What belongs to a violation, in order: its session and all that was aimed at it, and the faults about
    then."""
    events = sorted(events, key=lambda event: event.t_start)
    names = {EVERYBODY}.union(
        *(event.names for event in events if event.op == "session" and event.session == violation.session)
    )
    return [
        event
        for event in events
        if (event.session == violation.session != "")
        or (event.op == "revoke" and (event.id == violation.id or not names.isdisjoint(event.names)))
        or (event.op == "fault" and event.t_start - around < violation.at < event.t_end + around)
    ]


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
