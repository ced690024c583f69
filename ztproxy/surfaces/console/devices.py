"""The inventory of devices: the list with its search, everything about one, and what becomes of it.

Knows: the two steps of a change, as for sessions: first a page that says what it would end, then the deed.
Promises: each change goes through the very function of the API (`device.status`); "done" is said of a device
that is shut out only when its sessions have ended everywhere. Leaves the order of steps to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlencode

from ztproxy.core.device import Device, Status
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.gateway.ports.directory import Listed
from ztproxy.surfaces.admin.bodies import read_query
from ztproxy.surfaces.admin.devices import DeviceChanged, DevicesFilter
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.revoking import Applied
from ztproxy.surfaces.admin.targets import matched
from ztproxy.surfaces.console.acting import act
from ztproxy.surfaces.console.asked import Ask, Room, Sheet
from ztproxy.surfaces.console.entrance import PREFIX
from ztproxy.surfaces.console.results import TRY_AGAIN, Hidden, result
from ztproxy.surfaces.console.views import (
    Book,
    Moment,
    moment,
    plain,
    session_row,
    sessions_of,
    where,
)

_SHOWN = 20


class _Deed(NamedTuple):
    """What a status is called as something to do, and as something that is done. `ends`: it ends sessions."""

    title: str
    what: str
    button: str
    done: str
    ends: bool = False


_DEEDS = {
    Status.APPROVED: _Deed(
        "Approve", "It counts as approved wherever a policy asks for it.", "Approve it", "Approved"
    ),
    Status.PENDING: _Deed(
        "Take back the approval of", "It stays known, and waits for approval.", "Take it back", "Waiting"
    ),
    Status.LOST: _Deed(
        "Mark as lost:", "It is shut out everywhere", "Mark it lost", "Marked as lost", ends=True
    ),
    Status.RETIRED: _Deed("Retire", "It is shut out everywhere", "Retire it", "Retired", ends=True),
}


class DeviceRow(NamedTuple):
    """A device in a list."""

    id: str
    href: str
    name: str
    status: str
    platform: str
    owners: str
    changed: Moment


class FactRow(NamedTuple):
    """What is reported, by whom, and when it was so."""

    name: str
    value: str
    source: str
    at: Moment


async def show_list(room: Room, ask: Ask) -> Sheet:
    desk = room.desk
    form = read_query(ask.fields.filled(), DevicesFilter)
    try:
        page = await desk.devices.page(form.wanted(), form.cursor or None, form.limit)
    except ClientError as error:
        if error.reason is not Reason.HTTP_SYNTAX:
            raise
        raise Problem(Kind.INVALID, "it is not one we gave for this search", "cursor") from None
    now = desk.clock()
    kept = [(name, value) for name, value in ask.fields.filled() if name != "cursor"]
    values: dict[str, object] = {
        "rows": [_row(one, now) for one in page.devices],
        "text": form.text,
        "owner": form.owner,
        "status": str(form.status) if isinstance(form.status, Status) else "",
        "statuses": [str(one) for one in Status],
        "next": f"{PREFIX}/devices?{urlencode([*kept, ('cursor', page.cursor)])}" if page.cursor else "",
        "first": f"{PREFIX}/devices?{urlencode(kept)}" if form.cursor else "",
    }
    return Sheet("console_devices.html", values)


async def show_one(room: Room, ask: Ask) -> Sheet:
    desk, device = room.desk, await _find(room, ask.id)
    now = desk.clock()
    book = Book(await desk.locks(), now)
    sessions = await desk.sessions.of(_target(device.id)) or ()
    facts = [
        ("Device", device.id),
        ("Name", device.name),
        ("Status", str(device.status)),
        ("Platform", device.platform),
        ("Owners", _listed(device.owners)),
        ("Certificates", _listed(device.certificates)),
        ("Enrolled keys", _listed(device.keys)),
    ]
    values: dict[str, object] = {
        "name": plain(device.name or device.id),
        "facts": [(term, plain(value)) for term, value in facts if value],
        "times": [
            ("Registered", moment(device.created_at, now)),
            ("Changed", moment(device.changed_at, now)),
        ],
        "posture": [
            FactRow(plain(name), _value(fact.value), plain(fact.source), moment(fact.at, now))
            for name, fact in sorted(device.posture.items())
        ],
        "sessions": [session_row(one, book, ask.visitor.session, now) for one in sessions[:_SHOWN]],
        "more": max(0, len(sessions) - _SHOWN),
        "all": where("/sessions", kind=TargetKind.DEVICE, name=device.id),
        "actions": [
            (where("/devices/status/confirm", id=device.id, status=status), deed.button)
            for status, deed in _DEEDS.items()
            if status is not device.status
        ],
    }
    return Sheet("console_device.html", values)


async def confirm_status(room: Room, ask: Ask) -> Sheet:
    """What a change of status would do."""
    desk, device, status = room.desk, await _find(room, ask.fields.one("id")), _status(ask)
    deed, now, own = _DEEDS[status], desk.clock(), ask.visitor.session
    sessions: tuple[Listed, ...] = ()
    what = deed.what
    if deed.ends:
        sessions = await desk.sessions.of(_target(device.id)) or ()
        met = await matched(desk, _target(device.id))
        what = f"{deed.what}, and this ends {sessions_of(met.number, met.exact)}."
    book = Book(await desk.locks() if sessions else (), now)
    values: dict[str, object] = {
        "title": f"{deed.title} {plain(device.name or device.id)}?",
        "what": what,
        "button": deed.button,
        "rows": [session_row(one, book, own, now) for one in sessions[:_SHOWN]],
        "more": max(0, len(sessions) - _SHOWN),
        "own": own != "" and any(one.session.id == own for one in sessions),
        "action": f"{PREFIX}/devices/status",
        "hidden": [("key", desk.new_id()), ("id", device.id), ("status", str(status))],
        "ask_reason": True,
        "back": _back(device.id),
    }
    return Sheet("console_confirm.html", values)


async def set_status(room: Room, ask: Ask) -> Sheet:
    """Changes it."""
    fields, status = ask.fields, _status(ask)
    id = fields.one("id")
    members = {"status": str(status), "reason": fields.one("reason")}
    try:
        done = await act(room, ask, "device.status", members, id=id, key=fields.one("key"))
    except Problem as problem:
        if problem.kind not in TRY_AGAIN:
            raise
        again: Hidden = [(name, fields.one(name)) for name in ("id", "status", "reason", "key")]
        return result(
            ask,
            [problem],
            done="",
            back=_back(id),
            again=(f"{PREFIX}/devices/status", again),
            may_hurry=False,
        )
    assert isinstance(done, DeviceChanged)
    deed, ended = _DEEDS[status], done.ended
    if ended is None:
        values: dict[str, object] = {"title": deed.done, "lines": [deed.what], "again": None}
        return Sheet("console_result.html", {**values, "back": _back(id)})
    applied = Applied(
        id="",
        number=ended.number,
        confirmed=ended.confirmed,
        topology=ended.topology,
        matched=ended.matched,
        exact=ended.exact,
        seconds=ended.seconds,
        audit=done.audit,
    )
    return result(ask, [applied], done=deed.done, back=_back(id), again=("", []))


async def _find(room: Room, id: str) -> Device:
    device = await room.desk.devices.get(id)
    if device is None:
        raise Problem(Kind.NOT_FOUND, "There is no such device.")
    return device


def _status(ask: Ask) -> Status:
    try:
        return Status(ask.fields.one("status"))
    except ValueError:
        raise Problem(Kind.INVALID, "there is no such status", "status") from None


def _target(id: str) -> Target:
    return Target(TargetKind.DEVICE, id)


def _back(id: str) -> tuple[str, str]:
    return where(f"/devices/{id}"), "Back to the device"


def _row(device: Device, now: float) -> DeviceRow:
    return DeviceRow(
        id=device.id,
        href=where(f"/devices/{device.id}"),
        name=plain(device.name),
        status=str(device.status),
        platform=plain(device.platform),
        owners=_listed(device.owners),
        changed=moment(device.changed_at, now),
    )


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(map(plain, sorted(texts)))


def _value(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain(str(value))
