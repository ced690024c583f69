"""The inventory of devices: list, show, register, set a status, forget.

Knows: how a device is shown, and in which words it is registered (`core.device_rows`). Promises: a device
that is marked lost or retired, or forgotten, is shut out and its sessions end as every revocation ends them:
an answer of 200 means everywhere, and where that is not known the answer is a 503 that says so. Leaves the
order of steps to `gateway.inventory`, and many devices at once to `device_lists`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from ztproxy.core.device import Device, Status
from ztproxy.core.device_rows import DeviceRow, device_of
from ztproxy.core.identity import JSON
from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.core.posture import BadRow
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.inventory import NotEverywhere, Outcome
from ztproxy.gateway.ports.devices import DevicesWanted
from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Form, Nothing, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.people import Limit, SessionShown
from ztproxy.surfaces.admin.people import shown as session_shown
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.revoking import Promise, Why, clear, promise
from ztproxy.surfaces.admin.targets import Text, matched
from ztproxy.surfaces.admin.times import moment

T = TypeVar("T")

Texts = Annotated[tuple[Text, ...], msgspec.Meta(max_length=64)]


class DevicesFilter(Form, frozen=True):
    """All that is given must fit. `owner` is one of the owners, to the letter; `text` a part of the id, the
    name or an owner, in any case. `cursor` is `next` of the page before, with the same filter."""

    status: Status | msgspec.UnsetType = msgspec.UNSET
    owner: Text = ""
    text: Text = ""
    limit: Limit = 50
    cursor: Text = ""

    def wanted(self) -> DevicesWanted:
        status = None if self.status is msgspec.UNSET else self.status
        # Addresses are kept in lower case; a subject with an issuer is not an address.
        owner = self.owner.lower() if "@" in self.owner and "|" not in self.owner else self.owner
        return DevicesWanted(status, owner or None, self.text.strip() or None)


class DeviceForm(Form, frozen=True):
    """What is not given stays as it is. `owners` are e-mail addresses, subjects or `issuer|subject`;
    `certificates` SHA-256 fingerprints in hex or base64url; `posture` is `{name: value}` or
    `{name: {"value", "source", "at"}}`, of which the newer stays. A device that is new is `pending` unless
    `status` says else; one that is lost or retired is not brought back by this. `reason` is for the
    record."""

    id: Text | msgspec.UnsetType = msgspec.UNSET
    status: Status | msgspec.UnsetType = msgspec.UNSET
    name: Text | msgspec.UnsetType = msgspec.UNSET
    platform: Text | msgspec.UnsetType = msgspec.UNSET
    owners: Texts | msgspec.UnsetType = msgspec.UNSET
    certificates: Texts | msgspec.UnsetType = msgspec.UNSET
    posture: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    posture_at: float | Text | msgspec.UnsetType = msgspec.UNSET
    reason: Text = ""

    def row(self, id: str) -> dict[str, object]:
        given = {name: getattr(self, name) for name in self.__struct_fields__ if name != "reason"}
        return {"id": id, **{name: value for name, value in given.items() if value is not msgspec.UNSET}}


class StatusForm(Form, frozen=True):
    """`lost` and `retired` shut the device out and end its sessions. `reason` is for the record."""

    status: Status
    reason: Text = ""


class FactShown(Shape, frozen=True):
    """What is reported, by whom, and when it was so."""

    value: bool | int | float | str
    source: str
    at: datetime


class DeviceShown(Shape, frozen=True):
    """A device. `certificates` and `keys` are SHA-256 in base64url without padding (x5t#S256, SPKI)."""

    id: str
    status: Status
    name: str
    platform: str
    owners: tuple[str, ...]
    certificates: tuple[str, ...]
    keys: tuple[str, ...]
    posture: dict[str, FactShown]
    created_at: datetime
    changed_at: datetime
    revision: int


class DevicesShown(Shape, frozen=True):
    """By id. A page may be short and yet not the last: the last has no `next`."""

    devices: tuple[DeviceShown, ...]
    next: str | None


class DeviceOpened(Shape, frozen=True):
    """A device, and the sessions that are bound to it, oldest first."""

    device: DeviceShown
    sessions: tuple[SessionShown, ...]


class Ended(Shape, frozen=True):
    """Its sessions have ended everywhere, as entry `number` of the log; the rest as of any revocation."""

    number: int
    confirmed: bool
    topology: Promise
    matched: int | None
    exact: bool
    seconds: float


class DeviceChanged(Shape, frozen=True):
    """The device as it is now. `held`: it is shut out, and stays so against what was asked. `ended` is there
    when this shut it out."""

    device: DeviceShown
    outcome: Outcome
    held: bool
    ended: Ended | None
    audit: Literal["written", "late"]


class DeviceRemoved(Shape, frozen=True):
    """It was shut out and is forgotten."""

    id: str
    audit: Literal["written", "late"]


async def list_devices(desk: Desk, asked: Asked[DevicesFilter]) -> DevicesShown:
    form = asked.form
    try:
        page = await desk.devices.page(form.wanted(), form.cursor or None, form.limit)
    except ClientError:
        raise Problem(Kind.INVALID, "it is not one we gave for this question", "cursor") from None
    return DevicesShown(devices=tuple(map(shown, page.devices)), next=page.cursor)


async def show_device(desk: Desk, asked: Asked[Nothing]) -> DeviceOpened:
    device = await _find(desk, asked.id)
    sessions = await desk.sessions.of(Target(TargetKind.DEVICE, device.id)) or ()
    return DeviceOpened(device=shown(device), sessions=tuple(map(session_shown, sessions)))


async def register_device(desk: Desk, asked: Asked[DeviceForm]) -> DeviceChanged:
    row = asked.form.row(asked.id)
    if row["id"] != asked.id:
        raise Problem(Kind.INVALID, "it is not the one in the path", "id")
    try:
        read = device_of(row, desk.facts(), asked.caller.name, desk.clock())
        if read.id != asked.id:  # spaces around it, which the audit log and the lock would have
            raise BadRow("id", "has spaces around it: take them out")
    except BadRow as bad:
        raise Problem(Kind.INVALID, str(bad).removeprefix(f"`{bad.field}` "), bad.field) from None
    await asked.record.intent(f"device:{asked.id}", _detail(read))
    done = await carried_out(asked, desk.inventory.register(read, asked.caller.name, asked.form.reason))
    ended = None if done.revoked is None else await _ended(desk, asked, asked.id, done.revoked)
    await asked.record.outcome("done", {"outcome": done.outcome, "held": done.held, **_number(ended)})
    return DeviceChanged(
        device=shown(done.device), outcome=done.outcome, held=done.held, ended=ended, audit=_audit(asked)
    )


async def set_status(desk: Desk, asked: Asked[StatusForm]) -> DeviceChanged:
    form, before = asked.form, (await _find(desk, asked.id)).status
    wanted: dict[str, JSON] = {"status": str(form.status), "before": str(before), "reason": form.reason}
    await asked.record.intent(f"device:{asked.id}", wanted)
    device, revoked = await carried_out(
        asked, desk.inventory.set_status(asked.id, form.status, asked.caller.name, form.reason)
    )
    ended = None if revoked is None else await _ended(desk, asked, asked.id, revoked)
    await asked.record.outcome("done", {"status": str(device.status), **_number(ended)})
    return DeviceChanged(
        device=shown(device),
        outcome="unchanged" if before is device.status else "updated",
        held=False,
        ended=ended,
        audit=_audit(asked),
    )


async def remove_device(desk: Desk, asked: Asked[Why]) -> DeviceRemoved:
    try:
        await _find(desk, asked.id)
    except WorldError:
        pass  # a record that cannot be read is mended by this alone; a store that is away fails below
    await asked.record.intent(f"device:{asked.id}", {"reason": asked.form.reason})
    removed = await carried_out(asked, desk.inventory.remove(asked.id, asked.caller.name, asked.form.reason))
    if not removed:
        raise Problem(Kind.NOT_FOUND, "there is no such device any more")
    await asked.record.outcome("done")
    return DeviceRemoved(id=asked.id, audit=_audit(asked))


async def carried_out(asked: Asked[Form], work: Awaitable[T]) -> T:
    """What the inventory answers; what it refuses or cannot confirm as a `Problem`, and on record."""
    try:
        return await work
    except NotEverywhere as error:
        facts: dict[str, JSON] = {"id": error.lock.id}
        if error.revoked is not None:
            facts |= {"number": error.revoked.number, "topology": promise(error.revoked.strict)}
        await asked.record.outcome("unconfirmed", facts)
        raise Problem(
            Kind.UNCONFIRMED,
            f"device `{error.lock.target.name}` is shut out, but its sessions may not have ended everywhere; "
            "ask again with the same Idempotency-Key until it is confirmed",
            more=facts,
        ) from None
    except ClientError as error:
        if error.reason is Reason.DEVICE_UNKNOWN:
            raise Problem(Kind.NOT_FOUND, "there is no such device") from None
        raise Problem(Kind.CONFLICT, str(error), "certificates") from None


def shown(device: Device) -> DeviceShown:
    return DeviceShown(
        id=device.id,
        status=device.status,
        name=device.name,
        platform=device.platform,
        owners=tuple(sorted(device.owners)),
        certificates=tuple(sorted(device.certificates)),
        keys=tuple(sorted(device.keys)),
        posture={
            name: FactShown(value=fact.value, source=fact.source, at=moment(fact.at))
            for name, fact in sorted(device.posture.items())
        },
        created_at=moment(device.created_at),
        changed_at=moment(device.changed_at),
        revision=device.revision,
    )


async def _find(desk: Desk, id: str) -> Device:
    device = await desk.devices.get(id)
    if device is None:
        raise Problem(Kind.NOT_FOUND, "there is no such device")
    return device


async def _ended(desk: Desk, asked: Asked[Form], id: str, revoked: Revoked) -> Ended:
    target = Target(TargetKind.DEVICE, id)
    met = await matched(desk, target)
    asked.later(clear(desk, Lock("", target, number=revoked.number)))
    return Ended(
        number=revoked.number,
        confirmed=revoked.confirmed,
        topology=promise(revoked.strict),
        matched=met.number,
        exact=met.exact,
        seconds=round(revoked.seconds, 6),
    )


def _detail(row: DeviceRow) -> dict[str, JSON]:
    said: dict[str, JSON] = {
        "status": None if row.status is None else str(row.status),
        "name": row.name,
        "platform": row.platform,
        "owners": None if row.owners is None else [*sorted(row.owners)],
        "certificates": None if row.certificates is None else [*sorted(row.certificates)],
        "facts": [*sorted(row.posture)] or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _number(ended: Ended | None) -> dict[str, JSON]:
    return {} if ended is None else {"number": ended.number, "matched": ended.matched}


def _audit(asked: Asked[Form]) -> Literal["written", "late"]:
    return "late" if asked.record.late else "written"
