"""Writing the inventory: what a row changes, that a lost device is shut out first and its sessions end after,
and what is left when something fails in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.worlds.leased import Leased
from tests.worlds.memory_devices import MemoryDevices
from tests.worlds.memory_state import SetClock
from tests.worlds.revoking import Revoking
from ztproxy.core.device import Device, Fact, Status
from ztproxy.core.device_rows import DeviceRow
from ztproxy.core.identity import Identity, Session
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.inventory import ASKED_AGAIN, AT_ONCE, ImportResult, Inventory, NotEverywhere
from ztproxy.gateway.ports.devices import Report

NOW = 1_800_000_000.0
LAPTOP = Device(
    "laptop-1",
    Status.APPROVED,
    owners=frozenset({"alice@corp.test"}),
    certificates=frozenset({"cert-1"}),
    keys=frozenset({"key-1"}),
    created_at=1.0,
    changed_at=2.0,
)


class World:
    def __init__(self, *devices: Device) -> None:
        self.clock = SetClock(NOW)
        self.devices = MemoryDevices(*devices)
        self.lease = Leased()
        self.revoke = Revoking(self.lease, self.clock)
        self.inventory = Inventory(self.devices, self.revoke, self.clock)

    def on_file(self, id: str = "laptop-1") -> Device:
        return self.devices.devices[id]

    @property
    def lock_ids(self) -> list[str]:
        return [lock.id for lock in self.revoke.locks]


def session_on(device: str, as_of: int) -> Session:
    who = Identity("https://op.test", "alice")
    return Session("s", who, "demo", 0.0, 0.0, 0.0, NOW * 2, as_of=as_of, device=device)


@pytest.fixture
def world() -> World:
    return World(LAPTOP, Device("phone-1", certificates=frozenset({"cert-9"})))


# ── status ──


@pytest.mark.parametrize("status", [Status.LOST, Status.RETIRED])
async def test_a_device_is_shut_out_before_its_sessions_are_ended(world: World, status: Status) -> None:
    seen: list[Status] = []

    async def look() -> None:
        seen.append(world.on_file().status)

    world.revoke.before = look
    device, revoked = await world.inventory.set_status("laptop-1", status, "ops", "left in a taxi")
    assert seen == [status]
    assert device == world.on_file()
    assert device == replace(LAPTOP, status=status, changed_at=NOW, revision=2)
    assert revoked is not None and revoked.confirmed
    (lock,) = world.revoke.locks
    assert (lock.target, lock.created_by, lock.reason) == (
        Target(TargetKind.DEVICE, "laptop-1"),
        "ops",
        "left in a taxi",
    )
    assert lock.revokes and revoked.number == lock.number
    assert world.lease.book.meeting(session_on("laptop-1", as_of=0), "wiki", NOW) == (lock,)
    assert world.lease.book.meeting(session_on("phone-1", as_of=0), "wiki", NOW) == ()


@pytest.mark.parametrize("status", [Status.PENDING, Status.APPROVED])
async def test_a_device_that_is_not_shut_out_keeps_its_sessions(world: World, status: Status) -> None:
    device, revoked = await world.inventory.set_status("laptop-1", status, "ops")
    assert device.status is status and revoked is None and world.revoke.asked == []


async def test_losing_a_device_twice_is_one_lock_and_losing_it_again_another(world: World) -> None:
    await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    world.clock.now += 60
    await world.devices.report([Report("laptop-1", {"edr_running": Fact(True, "edr", NOW)})])
    await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    assert len(world.lock_ids) == 1 and len(world.revoke.asked) == 2
    await world.inventory.set_status("laptop-1", Status.APPROVED, "ops")
    await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    assert len(world.revoke.asked) == 3 and len(set(world.lock_ids)) == 2


async def test_a_second_loss_is_told_apart_by_any_clock(world: World) -> None:
    for now in (NOW, NOW, NOW - 1000, NOW - 1000):
        world.clock.now = now
        await world.inventory.set_status("laptop-1", Status.LOST, "ops")
        await world.inventory.set_status("laptop-1", Status.APPROVED, "ops")
    # The book keeps one revocation of a target; what was asked for tells the rest.
    assert len({entry.id for entry in world.revoke.asked}) == 4


async def test_two_devices_lost_in_one_moment_are_two_locks(world: World) -> None:
    await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    await world.inventory.set_status("phone-1", Status.LOST, "ops")
    assert len(set(world.lock_ids)) == 2


@pytest.mark.parametrize("written", [False, True])
async def test_where_the_sessions_may_go_on_the_device_is_shut_out_all_the_same(
    world: World, written: bool
) -> None:
    world.revoke.away, world.revoke.confirms = not written, False
    with pytest.raises(NotEverywhere) as failed:
        await world.inventory.set_status("laptop-1", Status.LOST, "ops", "theft")
    assert failed.value.reason is Reason.STATE_UNAVAILABLE
    assert (failed.value.revoked is not None) is written
    assert world.on_file().status is Status.LOST
    world.revoke.away, world.revoke.confirms = False, True
    world.clock.now += 5
    _, revoked = await world.inventory.set_status("laptop-1", Status.LOST, "ops", "theft")
    assert revoked is not None and revoked.confirmed
    assert world.lock_ids == [failed.value.lock.id]


async def test_where_the_store_is_away_nothing_was_done(world: World) -> None:
    world.devices.away = True
    with pytest.raises(WorldError) as failed:
        await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    assert not isinstance(failed.value, NotEverywhere)
    assert world.revoke.asked == [] and world.on_file().status is Status.APPROVED


async def test_a_device_that_is_not_there_has_no_status(world: World) -> None:
    with pytest.raises(ClientError) as refused:
        await world.inventory.set_status("laptop-2", Status.LOST, "ops")
    assert refused.value.reason is Reason.DEVICE_UNKNOWN
    assert world.revoke.asked == [] and await world.devices.count() == 2


async def test_what_somebody_else_wrote_meanwhile_stays(world: World) -> None:
    async def a_feed() -> None:
        await world.devices.report([Report("laptop-1", {"edr_running": Fact(True, "edr", 5.0)})])

    world.devices.before_put = a_feed
    device, _ = await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    assert device.status is Status.LOST and device.posture == {"edr_running": Fact(True, "edr", 5.0)}


async def test_a_device_that_is_always_written_by_others_is_given_up(world: World) -> None:
    async def a_feed() -> None:
        known = world.on_file()
        world.devices.devices["laptop-1"] = replace(known, revision=known.revision + 1)
        world.devices.before_put = a_feed

    world.devices.before_put = a_feed
    with pytest.raises(WorldError):
        await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    assert world.on_file().status is Status.APPROVED and world.revoke.asked == []


# ── rows ──


async def test_a_row_makes_a_device(world: World) -> None:
    done = await world.inventory.register(DeviceRow("new", name="New"), "ops")
    assert done.device == Device("new", name="New", created_at=NOW, changed_at=NOW, revision=1)
    assert done == (world.on_file("new"), "created", False, None)
    assert (await world.inventory.register(DeviceRow("new", name="New"), "ops")).outcome == "unchanged"
    assert world.on_file("new").revision == 1


async def test_a_row_changes_what_it_says(world: World) -> None:
    done = await world.inventory.register(DeviceRow("laptop-1", platform="macos"), "ops")
    assert done.outcome == "updated"
    assert world.on_file() == replace(LAPTOP, platform="macos", changed_at=NOW, revision=2)


@pytest.mark.parametrize("id", ["laptop-1", "new"])
async def test_a_row_that_shuts_a_device_out_ends_its_sessions(world: World, id: str) -> None:
    row = DeviceRow(id, Status.LOST)
    world.revoke.away = True
    with pytest.raises(NotEverywhere):
        await world.inventory.register(row, "ops")
    assert world.on_file(id).status is Status.LOST
    world.revoke.away = False
    again = await world.inventory.register(row, "ops")
    assert again.outcome == "unchanged" and again.revoked is not None
    assert len({entry.id for entry in world.revoke.asked}) == 1 == len(world.lock_ids)


async def test_a_nightly_import_makes_no_lock_of_what_was_retired_long_ago(world: World) -> None:
    row = DeviceRow("laptop-1", Status.RETIRED)
    await world.inventory.register(row, "ops")
    world.clock.now += ASKED_AGAIN
    assert (await world.inventory.register(row, "ops")).revoked is None
    assert len(world.revoke.asked) == 1


async def test_no_row_brings_back_what_was_lost(world: World) -> None:
    await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    done = await world.inventory.register(DeviceRow("laptop-1", Status.APPROVED, name="x"), "mdm")
    assert done.held and done.device.status is Status.LOST and done.device.name == "x"


async def test_a_certificate_of_another_device_is_refused(world: World) -> None:
    with pytest.raises(ClientError) as refused:
        await world.inventory.register(DeviceRow("new", certificates=frozenset({"cert-1"})), "ops")
    assert refused.value.reason is Reason.DEVICE_MISMATCH
    assert await world.devices.count() == 2


# ── removing ──


async def test_a_device_is_retired_and_its_sessions_end_before_it_is_forgotten(world: World) -> None:
    seen: list[Status] = []

    async def look() -> None:
        seen.append(world.on_file().status)

    world.revoke.before = look
    assert await world.inventory.remove("laptop-1", "ops")
    assert seen == [Status.RETIRED] and [lock.reason for lock in world.revoke.locks] == ["removed"]
    assert await world.devices.get("laptop-1") is None
    assert not await world.inventory.remove("laptop-1", "ops")
    assert len(world.revoke.asked) == 1


async def test_a_device_whose_sessions_may_go_on_is_not_forgotten(world: World) -> None:
    world.revoke.confirms = False
    with pytest.raises(NotEverywhere):
        await world.inventory.remove("laptop-1", "ops")
    assert world.on_file().status is Status.RETIRED
    world.revoke.confirms = True
    assert await world.inventory.remove("laptop-1", "ops")
    assert len(world.lock_ids) == 1


async def test_a_record_that_cannot_be_read_can_be_removed(world: World) -> None:
    world.devices.unreadable.add("laptop-1")
    assert await world.inventory.remove("laptop-1", "ops")
    assert await world.devices.get("laptop-1") is None and len(world.lock_ids) == 1


async def test_where_the_store_is_away_nothing_is_removed(world: World) -> None:
    world.devices.away = world.revoke.away = True
    with pytest.raises(WorldError):
        await world.inventory.remove("laptop-1", "ops")
    assert world.on_file() == replace(LAPTOP, revision=1)


async def test_somebody_else_may_remove_it_first(world: World) -> None:
    async def somebody() -> None:
        await world.devices.remove("laptop-1")

    world.devices.before_put = somebody
    assert not await world.inventory.remove("laptop-1", "ops")
    assert world.revoke.asked == []


# ── imports ──


def rows(many: int) -> list[DeviceRow]:
    return [DeviceRow(f"d{number:04}", Status.APPROVED) for number in range(many)]


async def test_an_import_counts_and_can_be_run_again(world: World) -> None:
    many = 2 * AT_ONCE + 3
    mixed = [*rows(many), DeviceRow("laptop-1", name="x"), DeviceRow("phone-1")]
    assert await world.inventory.import_all(mixed, "ops") == ImportResult(many, 1, 1)
    before = dict(world.devices.devices)
    assert await world.inventory.import_all(mixed, "ops") == ImportResult(0, 0, many + 2)
    assert world.devices.devices == before
    assert await world.inventory.import_all([], "ops") == ImportResult(0, 0, 0)


async def test_an_import_with_somebody_elses_certificate_writes_nothing(world: World) -> None:
    bad = DeviceRow("new", certificates=frozenset({"cert-0", "cert-9"}))
    before = dict(world.devices.devices)
    with pytest.raises(ClientError) as refused:
        await world.inventory.import_all([*rows(AT_ONCE), bad], "ops")
    assert refused.value.reason is Reason.DEVICE_MISMATCH
    assert "`new`" in str(refused.value) and "`phone-1`" in str(refused.value)
    assert world.devices.devices == before


async def test_an_import_names_what_stays_shut_out(world: World) -> None:
    await world.inventory.set_status("laptop-1", Status.LOST, "ops")
    own = DeviceRow("laptop-1", Status.APPROVED, certificates=frozenset({"cert-1"}))
    assert await world.inventory.import_all([own, *rows(1)], "mdm") == ImportResult(1, 0, 1, ("laptop-1",))


async def test_an_import_that_is_cut_off_goes_on_when_it_is_run_again(world: World) -> None:
    async def gone() -> None:
        world.devices.away = True

    world.devices.before_put = gone
    many: list[Any] = rows(AT_ONCE + 1)
    with pytest.raises(WorldError):
        await world.inventory.import_all(many, "ops")
    world.devices.away = False
    done = await world.inventory.import_all(many, "ops")
    assert done.created + done.unchanged == AT_ONCE + 1
    assert await world.devices.count() == AT_ONCE + 3
