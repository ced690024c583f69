"""Ending sessions: first a page that counts, then the deed, then what came of it.

Knows: the two steps. Promises: nothing ends that was not first shown and counted; each goes through the very
function of the API (`revocation.create`), one entry of the log for each target. Leaves holding to that.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ztproxy.core.identity import JSON
from ztproxy.core.locks import Target, TargetKind
from ztproxy.gateway.ports.directory import Listed
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.revoking import Applied
from ztproxy.surfaces.admin.targets import matched, may_aim, target_of
from ztproxy.surfaces.console.acting import act
from ztproxy.surfaces.console.asked import Ask, Room, Sheet
from ztproxy.surfaces.console.entrance import PREFIX
from ztproxy.surfaces.console.forms import Fields
from ztproxy.surfaces.console.results import TRY_AGAIN, Hidden, result
from ztproxy.surfaces.console.views import Book, person_of, said, session_row, sessions_of

SELECTED = 200
"""Sessions ended by one form."""

_SHOWN = 20
_AT_ONCE = 8

_BACK = (f"{PREFIX}/sessions", "Back to the sessions")


class _Counted(NamedTuple):
    """How many sessions, whose, and those of them that are known."""

    number: int | None
    exact: bool
    whose: str
    known: tuple[Listed, ...]


async def confirm_target(room: Room, ask: Ask) -> Sheet:
    """Whatever one target meets: a session, all of a person, everybody."""
    target = _target(ask.fields)
    may_aim(ask.visitor.caller, target)
    hidden = [("kind", str(target.kind)), ("name", target.name), ("issuer", target.issuer)]
    return await _confirmation(room, ask, await _count(room, target), hidden)


async def confirm_selected(room: Room, ask: Ask) -> Sheet:
    """The sessions that were ticked."""
    ids = _selected(ask.fields)
    if not ids:
        raise Problem(Kind.INVALID, "Tick the sessions to end, then try again.")
    found = await asyncio.gather(*(room.desk.sessions.show(id) for id in ids))
    known = tuple(one for one in found if one is not None)
    people = dict.fromkeys(person_of(one.session) for one in known)
    whose = next(iter(people)) if len(people) == 1 else f"{len(people)} people"
    counted = _Counted(len(known), exact=True, whose=f"of {whose}", known=known)
    return await _confirmation(room, ask, counted, [("session", id) for id in ids])


async def revoke(room: Room, ask: Ask) -> Sheet:
    """Ends them."""
    fields = ask.fields
    ids = _selected(fields)
    targets = [Target(TargetKind.SESSION, id) for id in ids] or [_target(fields)]
    first = await _revoke_one(room, ask, targets[0])
    gate = asyncio.Semaphore(_AT_ONCE)

    async def in_turn(target: Target) -> Applied | Problem:
        async with gate:
            return await _revoke_one(room, ask, target)

    rest = await asyncio.gather(*(in_turn(target) for target in targets[1:]))
    kept = ("session", "kind", "name", "issuer", "key", "reason")
    again: Hidden = [(name, value) for name in kept for value in fields.all(name)]
    if fields.one("emergency"):
        again = [*again, ("emergency", "yes")]
    return result(ask, [first, *rest], done="Revoked", back=_BACK, again=(f"{PREFIX}/revoke", again))


async def _revoke_one(room: Room, ask: Ask, target: Target) -> Applied | Problem:
    fields = ask.fields
    members: dict[str, JSON] = {
        "target": {"kind": str(target.kind), "name": target.name, "issuer": target.issuer},
        "reason": fields.one("reason"),
        "emergency": fields.one("emergency") == "yes",
    }
    try:
        done = await act(room, ask, "revocation.create", members, key=fields.one("key"))
    except Problem as problem:
        if problem.kind not in TRY_AGAIN:
            raise
        return problem
    assert isinstance(done, Applied)
    return done


def _selected(fields: Fields) -> list[str]:
    ids = list(dict.fromkeys(fields.all("session")))
    if len(ids) > SELECTED:
        raise Problem(Kind.INVALID, f"at most {SELECTED} at once", "session")
    return ids


def _target(fields: Fields) -> Target:
    try:
        kind = TargetKind(fields.one("kind"))
    except ValueError:
        raise Problem(Kind.INVALID, "there is no such kind of target", "kind") from None
    return target_of(kind, fields.one("name"), fields.one("issuer"), "")


async def _count(room: Room, target: Target) -> _Counted:
    met = await matched(room.desk, target)
    known: tuple[Listed, ...] = ()
    if target.kind in (TargetKind.SESSION, TargetKind.USER, TargetKind.IDP_SESSION, TargetKind.DEVICE):
        known = await room.desk.sessions.of(target) or ()
    if target.kind in (TargetKind.SESSION, TargetKind.USER) and known:
        return _Counted(met.number, met.exact, f"of {person_of(known[0].session)}", known)
    return _Counted(met.number, met.exact, f"of {said(target)}", known)


async def _confirmation(room: Room, ask: Ask, counted: _Counted, hidden: Hidden) -> Sheet:
    desk, own = room.desk, ask.visitor.session
    now = desk.clock()
    book = Book(await desk.locks(), now)
    number = sessions_of(counted.number, counted.exact)
    values: dict[str, object] = {
        "title": f"End {number} {counted.whose}?",
        "what": f"This ends {number} {counted.whose}.",
        "button": f"End {number}",
        "rows": [session_row(one, book, own, now) for one in counted.known[:_SHOWN]],
        "more": max(0, len(counted.known) - _SHOWN),
        "own": own != ""
        and (("kind", "all") in hidden or any(one.session.id == own for one in counted.known)),
        "action": f"{PREFIX}/revoke",
        "hidden": [("key", desk.new_id()), *hidden],
        "ask_reason": True,
        "back": _BACK,
    }
    return Sheet("console_confirm.html", values)
