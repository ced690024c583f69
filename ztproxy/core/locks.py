"""Locks: who or what may not go on as before, from now on; revoking is the plainest of them.

Knows: what a lock can be aimed at, whom it meets, and what it then asks. Promises: no clock decides whether a
lock came before a sign-in: locks are numbered in one log, and a session remembers the last number its sign-in
began after (`Session.as_of`). Leaves keeping them to `lock_book`, and what follows to `decision`.

    without `until`   meets what exists now: sessions whose sign-in began before the lock
    with `until`      meets, until then, also what comes later
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ztproxy.core.identity import Session

STEP_UP_RANK = 2
"""What a lock that asks for a stronger sign-in asks for at least: a second factor."""


class TargetKind(StrEnum):
    """What a lock can be aimed at; the value is its name in the API, the configuration and the log."""

    SESSION = "session"
    USER = "user"
    IDP_SESSION = "idp_session"
    DEVICE = "device"
    GROUP = "group"
    ROUTE = "route"
    ALL = "all"


class Target(NamedTuple):
    """`name` is a public session id, a subject, a `sid`, a device id, a group or a route's name; empty for
    all.

    `issuer` goes with a subject and a `sid`, which mean nothing without it (T10), and is empty else.
    """

    kind: TargetKind
    name: str = ""
    issuer: str = ""

    def __str__(self) -> str:
        """For records: `user:alice`, without the issuer."""
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


class Action(StrEnum):
    """What becomes of whom the lock meets.

    DENY without `until` ends sessions; with it, it closes the door until then. REQUIRE_LOGIN wants the person
    at the provider again; REQUIRE_STEP_UP wants that too, with at least `STEP_UP_RANK`.
    """

    DENY = "deny"
    REQUIRE_STEP_UP = "require_step_up"
    REQUIRE_LOGIN = "require_login"


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock. `id` is chosen by whoever makes it, so that making it twice is making it once.

    `made_at` and `until` are seconds since the epoch by the store's clock; `number` is its place in the log,
    given by the store, 0 before. `message` is for the person it meets, `reason` for the record.
    """

    id: str
    target: Target
    action: Action = Action.DENY
    created_by: str = ""
    reason: str = ""
    message: str = ""
    until: float | None = None
    made_at: float = 0.0
    number: int = 0

    @property
    def revokes(self) -> bool:
        """Whether it ends sessions for good."""
        return self.until is None and self.action is Action.DENY


@dataclass(frozen=True, slots=True)
class Lift:
    """Takes back the lock of the id `lifts`, which has an `until` or asks for something; what was revoked
    stays revoked. A change of the log like any other, so that every worker learns of it in its turn."""

    id: str
    lifts: str
    created_by: str = ""
    reason: str = ""
    made_at: float = 0.0
    number: int = 0


Entry = Lock | Lift
"""One entry of the log."""


def targets_of(session: Session) -> Iterator[Target]:
    """Everything a lock could be aimed at to meet this session, but for a route."""
    who = session.identity
    yield Target(TargetKind.SESSION, session.id)
    yield Target(TargetKind.USER, who.subject, who.issuer)
    if session.idp_session is not None:
        yield Target(TargetKind.IDP_SESSION, session.idp_session, who.issuer)
    if session.device is not None:
        yield Target(TargetKind.DEVICE, session.device)
    for group in who.groups:
        yield Target(TargetKind.GROUP, group)
    yield ALL


ALL = Target(TargetKind.ALL)


def meets(lock: Lock, session: Session | None, now: float) -> bool:
    """Whether a lock aimed at this session, or at the route it is on, concerns it at `now`.

    `session` None is a stranger, whom only a lock with an end can meet (of the route, or of all): a stranger
    has no past. A sign-in that began before the lock was in the log is met however late it ends (INV-5).
    """
    if lock.until is not None and now >= lock.until:
        return False
    if session is None:
        return lock.until is not None and lock.action is Action.DENY
    if session.as_of < lock.number:
        return True
    if lock.until is None or lock.action is Action.REQUIRE_LOGIN:
        return False  # the person has signed in since
    return lock.action is Action.DENY or session.rank < STEP_UP_RANK
