"""Revocations and locks.

Knows: what the log of locks takes. Promises: an answer of 200 to a revocation or a lock means that it holds
everywhere; where that is not known the answer is a 503 that says so, and asking again with the same
`Idempotency-Key` asks about the same lock (A22). A revocation of nobody is made all the same: it takes no
look into the store to know whom it meets, and whoever asks learns nothing by it but a number (A18). Leaves
holding to `gateway.revoker`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import Literal

import msgspec

from ztproxy.core.identity import JSON
from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Action, Entry, Lift, Lock, TargetKind
from ztproxy.errors import WorldError, ZtproxyError
from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Form, Nothing, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.targets import (
    Matched,
    TargetForm,
    TargetShown,
    Text,
    matched,
    may_aim,
    on_record,
    target_of,
)
from ztproxy.surfaces.admin.targets import shown as target_shown
from ztproxy.surfaces.admin.times import Moment, Seconds, end_of, moment

_log = logging.getLogger("ztproxy.admin")

Promise = Literal["strict", "bounded"]


class RevocationForm(Form, frozen=True):
    """Ends every session of the target that there is. `reason` is for the record. `dry_run` counts and
    changes nothing. `emergency` goes on when the audit log cannot be written."""

    target: TargetForm
    reason: Text = ""
    dry_run: bool = False
    emergency: bool = False


class LockForm(Form, frozen=True):
    """`deny` closes the door until its end; `require_login` and `require_step_up` ask everybody the target
    meets now, and with an end also whoever comes later. The end is `until` or `expires_in` seconds."""

    target: TargetForm
    action: Action
    reason: Text = ""
    message: Text = ""
    until: Moment | msgspec.UnsetType = msgspec.UNSET
    expires_in: Seconds | msgspec.UnsetType = msgspec.UNSET
    emergency: bool = False


class Why(Form, frozen=True):
    """`reason` is for the record."""

    reason: Text = ""


class LockShown(Shape, frozen=True):
    """A lock. `number` is its place in the log, `until` its end; `revokes`: it ended sessions for good."""

    id: str
    target: TargetShown
    action: Action
    revokes: bool
    reason: str
    message: str
    created_by: str
    made_at: datetime
    until: datetime | None
    number: int


class LocksShown(Shape, frozen=True):
    """Newest first: the locks that stand, and revocations as far back as they are kept."""

    locks: tuple[LockShown, ...]


class Applied(Shape, frozen=True):
    """It holds everywhere (`confirmed`), as entry `number` of the log. `matched` sessions were met: an
    estimate when not `exact`, null when nobody can tell. `audit` is `late` when a part of the record waits to
    be written. Of a dry run only `matched` and `exact` mean anything."""

    id: str
    number: int
    confirmed: bool
    topology: Promise
    matched: int | None
    exact: bool
    seconds: float
    audit: Literal["written", "late"]
    dry_run: bool = False


async def revoke(desk: Desk, asked: Asked[RevocationForm]) -> Applied:
    form = asked.form
    target = target_of(form.target.kind, form.target.name, form.target.issuer)
    may_aim(asked.caller, target)
    # INVARIANT: a revocation is remembered for as long as a session can live. A certificate may live longer,
    # and would be let in again.
    if target.kind is TargetKind.USER and target.issuer.startswith("spiffe://"):
        said = "a service's certificate may outlive a revocation; make a lock with an end"
        raise Problem(Kind.INVALID, said, "target.issuer")
    if form.dry_run:
        return _dry(desk, await matched(desk, target))
    lock = Lock(asked.entry_id, target, Action.DENY, asked.caller.name, form.reason)
    return await _apply(desk, asked, lock, emergency=form.emergency)


async def revoke_session(desk: Desk, asked: Asked[Why]) -> Applied:
    target = target_of(TargetKind.SESSION, asked.id, "", "")
    lock = Lock(asked.entry_id, target, Action.DENY, asked.caller.name, asked.form.reason)
    return await _apply(desk, asked, lock)


async def create_lock(desk: Desk, asked: Asked[LockForm]) -> Applied:
    form = asked.form
    target = target_of(form.target.kind, form.target.name, form.target.issuer)
    may_aim(asked.caller, target)
    until = end_of(form.until, form.expires_in, desk.clock())
    if until is None and form.action is Action.DENY:
        raise Problem(Kind.INVALID, "a `deny` has an end; to end sessions, make a revocation", "until")
    lock = Lock(asked.entry_id, target, form.action, asked.caller.name, form.reason, form.message, until)
    return await _apply(desk, asked, lock, emergency=form.emergency)


async def list_locks(desk: Desk, asked: Asked[Nothing]) -> LocksShown:
    locks = sorted(await desk.locks(), key=lambda lock: lock.number, reverse=True)
    return LocksShown(locks=tuple(map(shown, locks)))


async def show_lock(desk: Desk, asked: Asked[Nothing]) -> LockShown:
    return shown(await _find(desk, asked.id))


async def lift_lock(desk: Desk, asked: Asked[Why]) -> Applied:
    lock = await _find(desk, asked.id)
    may_aim(asked.caller, lock.target)
    if lock.revokes:
        raise Problem(Kind.CONFLICT, "what was revoked stays revoked; the person signs in again")
    before: dict[str, JSON] = {"before": _detail(lock), "reason": asked.form.reason}
    await asked.record.intent(str(lock.target), before)
    lift = Lift(asked.entry_id, lock.id, asked.caller.name, asked.form.reason)
    revoked = await _hold(desk, lift)
    # Lifting opens, so nothing is unsafe where it was not heard yet: it says so, and that is enough.
    await asked.record.outcome("done" if revoked.confirmed else "unconfirmed", {"number": revoked.number})
    return _applied(lift.id, revoked, Matched(None, exact=False), late=asked.record.late)


async def _apply(desk: Desk, asked: Asked[Form], lock: Lock, *, emergency: bool = False) -> Applied:
    await asked.record.intent(str(lock.target), _detail(lock), emergency=emergency)
    revoked = await _hold(desk, lock)
    met = await matched(desk, lock.target)
    facts: dict[str, JSON] = {
        "id": lock.id,
        "number": revoked.number,
        "matched": met.number,
        "strict": revoked.strict,
        "seconds": round(revoked.seconds, 3),
    }
    if not revoked.confirmed:
        await asked.record.outcome("unconfirmed", facts)
        raise Problem(
            Kind.UNCONFIRMED,
            "ask again with the same Idempotency-Key until it is confirmed",
            more={"id": lock.id, "number": revoked.number, "topology": promise(revoked.strict)},
        )
    await asked.record.outcome("done", facts)
    # INVARIANT: a lock on a route leaves the sessions be: they go on elsewhere.
    if lock.revokes and lock.target.kind is not TargetKind.ROUTE:
        asked.later(clear(desk, replace(lock, number=revoked.number)))
    return _applied(lock.id, revoked, met, late=asked.record.late)


async def _hold(desk: Desk, entry: Entry) -> Revoked:
    try:
        return await desk.revoke(entry)
    except WorldError:
        raise Problem(Kind.NOT_APPLIED, "the store is away; nothing is in force, try again") from None


async def clear(desk: Desk, lock: Lock) -> None:
    """Housekeeping: the log alone keeps out whom the lock meets."""
    try:
        await desk.sessions.clear(lock)
    except ZtproxyError as error:
        _log.warning("the records of what lock %s ended stay until they expire: %s", lock.id, error)


async def _find(desk: Desk, lock_id: str) -> Lock:
    for lock in await desk.locks():
        if lock.id == lock_id:
            return lock
    raise Problem(Kind.NOT_FOUND, "there is no such lock")


def _detail(lock: Lock) -> dict[str, JSON]:
    return {
        "id": lock.id,
        "target": on_record(lock.target),
        "action": str(lock.action),
        "until": lock.until,
        "reason": lock.reason,
        "message": lock.message,
    }


def shown(lock: Lock) -> LockShown:
    return LockShown(
        id=lock.id,
        target=target_shown(lock.target),
        action=lock.action,
        revokes=lock.revokes,
        reason=lock.reason,
        message=lock.message,
        created_by=lock.created_by,
        made_at=moment(lock.made_at),
        until=None if lock.until is None else moment(lock.until),
        number=lock.number,
    )


def promise(strict: bool) -> Promise:
    return "strict" if strict else "bounded"


def _applied(entry_id: str, revoked: Revoked, met: Matched, *, late: bool) -> Applied:
    return Applied(
        id=entry_id,
        number=revoked.number,
        confirmed=revoked.confirmed,
        topology=promise(revoked.strict),
        matched=met.number,
        exact=met.exact,
        seconds=round(revoked.seconds, 6),
        audit="late" if late else "written",
    )


def _dry(desk: Desk, met: Matched) -> Applied:
    return Applied(
        id="",
        number=0,
        confirmed=False,
        topology=promise(desk.topology().strict),
        matched=met.number,
        exact=met.exact,
        seconds=0.0,
        audit="written",
        dry_run=True,
    )
