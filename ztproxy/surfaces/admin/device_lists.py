"""Many devices at once: an import of the inventory, and reports of posture.

Knows: rows and reports (`core.device_rows`). Promises: whatever is wrong is named by its place, and then
nothing is taken in at all; a feed speaks under its own name, whatever it says; sending the same again changes
nothing. The audit log has counts, not devices. Leaves writing to `gateway.inventory` and the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ztproxy.core.device import FactType
from ztproxy.core.device_files import placed_items
from ztproxy.core.device_rows import MOST_NAMED, DeviceRow, Mistake, devices_of, report_of
from ztproxy.core.posture import BadRow, shown
from ztproxy.gateway.inventory import AT_ONCE, ImportResult
from ztproxy.gateway.ports.devices import Report
from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Form, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.devices import carried_out
from ztproxy.surfaces.admin.problems import Kind, Problem

MOST_UNKNOWN = 1000
"""Unknown devices that are named in an answer; the rest is counted."""


class ImportForm(Form, frozen=True):
    """`rows` are objects with `id`, and `status`, `name`, `platform`, `owners`, `certificates`, `posture`,
    `posture_at`; what a row does not name stays as it is. `dry_run` says what would be done."""

    rows: tuple[dict[str, Any], ...]
    dry_run: bool = False


class Imported(Shape, frozen=True):
    """How many devices. `held` are those that stayed lost or retired against their row."""

    created: int
    updated: int
    unchanged: int
    held: tuple[str, ...]
    audit: Literal["written", "late"]
    dry_run: bool = False


class PostureForm(Form, frozen=True):
    """`reports` are `{"device": id, "facts": {name: value or {"value", "at"}}, "at": …}`; times are epoch
    seconds or RFC 3339, and now where there is none."""

    reports: tuple[dict[str, Any], ...]


class Reported(Shape, frozen=True):
    """How many devices of the inventory were reported on. `unknown` are ids it does not have; they were
    passed over, and so were `more` that are not named."""

    devices: int
    unknown: tuple[str, ...]
    more: int
    audit: Literal["written", "late"]


async def import_devices(desk: Desk, asked: Asked[ImportForm]) -> Imported:
    form, now = asked.form, desk.clock()
    # Many rows take seconds to read, for which nobody else who asks is to wait.
    read = await asyncio.to_thread(devices_of, placed_items(form.rows), desk.facts(), asked.caller.name, now)
    if read.mistakes:
        raise _refused("rows", read.mistakes, read.more)
    if form.dry_run:
        return _imported(await _preview(desk, read.rows, now), late=False, dry_run=True)
    await asked.record.intent("devices", {"rows": len(read.rows)})
    done = await carried_out(asked, desk.inventory.import_all(read.rows, asked.caller.name))
    await asked.record.outcome(
        "done",
        {
            "created": done.created,
            "updated": done.updated,
            "unchanged": done.unchanged,
            "held": len(done.held),
        },
    )
    return _imported(done, late=asked.record.late)


async def report_posture(desk: Desk, asked: Asked[PostureForm]) -> Reported:
    reports = await asyncio.to_thread(
        _reports, asked.form.reports, desk.facts(), asked.caller.name, desk.clock()
    )
    devices = {report.device for report in reports}
    facts = sum(len(report.facts) for report in reports)
    await asked.record.intent("posture", {"devices": len(devices), "facts": facts})
    unknown = await desk.devices.report(reports)
    await asked.record.outcome("done", {"unknown": len(unknown)})
    return Reported(
        devices=len(devices) - len(unknown),
        unknown=unknown[:MOST_UNKNOWN],
        more=max(0, len(unknown) - MOST_UNKNOWN),
        audit="late" if asked.record.late else "written",
    )


def _reports(
    items: Sequence[Mapping[str, object]], facts: Mapping[str, FactType], source: str, now: float
) -> list[Report]:
    reports, mistakes, wrong = [], [], 0
    for place, item in placed_items(items):
        try:
            reports.append(Report(*report_of(item, facts, source, now)))
        except BadRow as bad:
            wrong += 1
            if wrong <= MOST_NAMED:
                mistakes.append(Mistake(place, bad.field, str(bad)))
    if mistakes:
        raise _refused("reports", mistakes, wrong - len(mistakes))
    return reports


def _refused(field: str, mistakes: Sequence[Mistake], more: int) -> Problem:
    return Problem(
        Kind.INVALID,
        f"{len(mistakes) + more} cannot be accepted, so nothing was taken in; {mistakes[0]}",
        field,
        more={
            "mistakes": [{"place": at, "field": shown(name), "text": text} for at, name, text in mistakes],
            "more": more,
        },
    )


async def _preview(desk: Desk, rows: Sequence[DeviceRow], now: float) -> ImportResult:
    """What `Inventory.import_all` would do, by looking alone."""

    async def look(row: DeviceRow) -> tuple[str, bool]:
        for thumbprint in sorted(row.certificates or ()):
            other = await desk.devices.by_certificate(thumbprint)
            if other is not None and other.id != row.id:
                said = f"device `{row.id}`: its certificate `{thumbprint}` is registered with `{other.id}`"
                raise Problem(Kind.CONFLICT, said, "certificates")
        known = await desk.devices.get(row.id)
        if known is None:
            return "created", False
        return "unchanged" if row.onto(known, now) == known else "updated", row.held(known)

    seen: list[tuple[str, bool]] = []
    for start in range(0, len(rows), AT_ONCE):
        seen += await asyncio.gather(*map(look, rows[start : start + AT_ONCE]))
    outcomes = [outcome for outcome, _ in seen]
    held = tuple(row.id for row, (_, is_held) in zip(rows, seen, strict=True) if is_held)
    return ImportResult(
        outcomes.count("created"), outcomes.count("updated"), outcomes.count("unchanged"), held
    )


def _imported(done: ImportResult, *, late: bool, dry_run: bool = False) -> Imported:
    return Imported(
        created=done.created,
        updated=done.updated,
        unchanged=done.unchanged,
        held=done.held,
        audit="late" if late else "written",
        dry_run=dry_run,
    )
