"""Locks: those that stand, those that ended sessions of late, a new one, and lifting one.

Knows: the form of a lock. Promises: a lock is made only after a page that says what it does and counts whom
it meets; a form that is wrong comes back with what was typed. Leaves holding to the API's own functions.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ztproxy.core.identity import JSON
from ztproxy.core.locks import Action, Lock, TargetKind
from ztproxy.surfaces.admin.bodies import read_body
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.revoking import Applied, LockForm
from ztproxy.surfaces.admin.targets import matched, may_aim, target_of
from ztproxy.surfaces.admin.times import end_of
from ztproxy.surfaces.console.acting import act, dumped
from ztproxy.surfaces.console.asked import Ask, Room, Sheet
from ztproxy.surfaces.console.entrance import PREFIX
from ztproxy.surfaces.console.results import TRY_AGAIN, result
from ztproxy.surfaces.console.views import KINDS, lock_row, moment, said, sessions_of

_SHOWN = 100
_BACK = (f"{PREFIX}/locks", "Back to the locks")
_FIELDS = ("kind", "name", "issuer", "action", "until", "message", "reason")

ACTIONS: dict[Action, str] = {
    Action.DENY: "Keep out until it ends",
    Action.REQUIRE_LOGIN: "Ask to sign in again",
    Action.REQUIRE_STEP_UP: "Ask for a stronger sign-in",
}


async def show_list(room: Room, ask: Ask) -> Sheet:
    now = room.desk.clock()
    locks = sorted(await room.desk.locks(), key=lambda lock: lock.number, reverse=True)
    revocations = [lock for lock in locks if lock.revokes]
    values: dict[str, object] = {
        "standing": [lock_row(lock, now) for lock in locks if not lock.revokes],
        "revocations": [lock_row(lock, now) for lock in revocations[:_SHOWN]],
        "older": max(0, len(revocations) - _SHOWN),
    }
    return Sheet("console_locks.html", values)


async def show_new(room: Room, ask: Ask) -> Sheet:
    return _form(room, ask)


async def confirm_new(room: Room, ask: Ask) -> Sheet:
    """What the lock would do; or the form again, with what is wrong in it."""
    desk, now = room.desk, room.desk.clock()
    try:
        form = read_body(dumped(_members(ask)), LockForm)
        target = target_of(form.target.kind, form.target.name, form.target.issuer, "")
        until = end_of(form.until, form.expires_in, now)
        if until is None and form.action is Action.DENY:
            raise Problem(Kind.INVALID, "say when it ends; to end sessions for good, revoke them", "until")
    except Problem as problem:
        return _form(room, ask, problem)
    may_aim(ask.visitor.caller, target)
    met = await matched(desk, target)
    whom = said(target)
    end = None if until is None else moment(until, now)
    values: dict[str, object] = {
        "title": f"Lock {whom}?",
        "what": f"{ACTIONS[form.action]}: {whom}. It meets {sessions_of(met.number, met.exact)} now"
        + (f", and whoever comes until {end.text}." if end else "; who signs in after it is not met."),
        "button": "Make this lock",
        "rows": [],
        "more": 0,
        "own": target.kind is TargetKind.ALL and ask.visitor.session != "",
        "action": f"{PREFIX}/locks",
        "hidden": [("key", desk.new_id()), *((name, ask.fields.one(name)) for name in _FIELDS)],
        "ask_reason": False,
        "back": _BACK,
    }
    return Sheet("console_confirm.html", values)


async def make(room: Room, ask: Ask) -> Sheet:
    fields = ask.fields
    members = _members(ask) | {"emergency": fields.one("emergency") == "yes"}
    outcome = await _outcome(room, ask, "lock.create", members)
    again = [(name, fields.one(name)) for name in (*_FIELDS, "key")]
    if fields.one("emergency"):
        again.append(("emergency", "yes"))
    return result(ask, [outcome], done="Locked", back=_BACK, again=(f"{PREFIX}/locks", again))


async def confirm_lift(room: Room, ask: Ask) -> Sheet:
    lock = await _find(room, ask.fields.one("id"))
    if lock.revokes:
        raise Problem(Kind.CONFLICT, "What was revoked stays revoked; the person signs in again.")
    may_aim(ask.visitor.caller, lock.target)
    row = lock_row(lock, room.desk.clock())
    values: dict[str, object] = {
        "title": f"Lift the lock on {row.target}?",
        "what": f"This takes back “{row.action}” on {row.target}, "
        f"made by {row.created_by} on {row.made_at.text}.",
        "button": "Lift this lock",
        "rows": [],
        "more": 0,
        "own": False,
        "action": f"{PREFIX}/locks/lift",
        "hidden": [("key", room.desk.new_id()), ("id", lock.id)],
        "ask_reason": True,
        "back": _BACK,
    }
    return Sheet("console_confirm.html", values)


async def lift(room: Room, ask: Ask) -> Sheet:
    fields = ask.fields
    id = fields.one("id")
    outcome = await _outcome(room, ask, "lock.lift", {"reason": fields.one("reason")}, id)
    again = [(name, fields.one(name)) for name in ("id", "key", "reason")]
    address = f"{PREFIX}/locks/lift"
    return result(ask, [outcome], done="Lifted", back=_BACK, again=(address, again), may_hurry=False)


async def _outcome(
    room: Room, ask: Ask, action: str, members: dict[str, JSON], id: str = ""
) -> Applied | Problem:
    try:
        done = await act(room, ask, action, members, id=id, key=ask.fields.one("key"))
    except Problem as problem:
        if problem.kind not in TRY_AGAIN:
            raise
        return problem
    assert isinstance(done, Applied)
    return done


async def _find(room: Room, lock_id: str) -> Lock:
    for lock in await room.desk.locks():
        if lock.id == lock_id:
            return lock
    raise Problem(Kind.NOT_FOUND, "There is no such lock. It may have been lifted, or be over.")


def _members(ask: Ask) -> dict[str, JSON]:
    """The API's form of it. Raises a `Problem`."""
    one = ask.fields.one
    members: dict[str, JSON] = {
        "target": {"kind": one("kind"), "name": one("name"), "issuer": one("issuer")},
        "action": one("action"),
        "reason": one("reason"),
        "message": one("message"),
    }
    if one("until"):
        members["until"] = _moment(one("until"))
    return members


def _moment(text: str) -> str:
    """`2026-12-31T18:00` as browsers send it, which is in UTC here, or with a zone as people may write it."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(Kind.INVALID, "write it like 2026-12-31T18:00", "until") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


def _form(room: Room, ask: Ask, wrong: Problem | None = None) -> Sheet:
    may_all = ask.may("admin")
    kinds = {
        kind: text
        for kind, text in KINDS.items()
        if may_all or kind not in (TargetKind.ROUTE, TargetKind.ALL)
    }
    values: dict[str, object] = {
        "typed": {name: ask.fields.one(name) for name in _FIELDS},
        "kinds": kinds,
        "actions": ACTIONS,
        "wrong": None if wrong is None else (wrong.field.rpartition(".")[2], wrong.detail),
        "back": _BACK,
    }
    return Sheet("console_lock_form.html", values, 200 if wrong is None else wrong.kind.status)
