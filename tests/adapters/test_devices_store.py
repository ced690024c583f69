"""One suite for every backend of `DeviceStore`; then what only Redis has: seals, indexes, batches."""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.adapters.state_worlds import KEY_A, KEY_B
from tests.adapters.state_worlds import RedisWorld as StateWorld
from tests.worlds.memory_devices import MemoryDevices
from ztproxy.adapters.device_scripts import SCRIPTS
from ztproxy.adapters.redis_devices import BATCH, SEARCHED, RedisDevices
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.device import Device, Fact, Status
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports.devices import DeviceStore, DevicesWanted, Report

EVERYTHING = DevicesWanted()
ENCRYPTED = Fact(True, "jamf", 1000.0)
LAPTOP = Device(
    "laptop-1",
    Status.APPROVED,
    "Älice's laptop",
    "macos",
    frozenset({"alice@corp.test", "https://op.test|a-1"}),
    frozenset({"cert-1", "cert-2"}),
    frozenset({"key-1"}),
    MappingProxyType({"disk_encrypted": ENCRYPTED, "os_version": Fact("15.1", "jamf", 900.0)}),
    created_at=1.5,
    changed_at=2.5,
)
PHONE = Device("phone-1", owners=frozenset({"bob@corp.test"}), certificates=frozenset({"cert-9"}))


class RedisWorld(StateWorld):
    def __init__(self, client: Redis, *keys: bytes) -> None:
        super().__init__(client, *keys)
        self.devices = RedisDevices(client, self.sealer)


@pytest.fixture(params=["memory", "redis", "cluster"])
def store(request: pytest.FixtureRequest) -> DeviceStore:
    if request.param == "memory":
        return MemoryDevices()
    name = "state_client" if request.param == "redis" else "cluster_client"
    return RedisWorld(request.getfixturevalue(name)).devices


@pytest.fixture
def redis(state_client: Redis) -> RedisWorld:
    return RedisWorld(state_client)


async def stored(store: DeviceStore, device: Device) -> Device:
    written = await store.put(device)
    assert written is not None
    return written


async def listed(store: DeviceStore, wanted: DevicesWanted = EVERYTHING, limit: int = 100) -> list[str]:
    """The ids of all pages, in order."""
    found: list[str] = []
    cursor = None
    while True:
        page = await store.page(wanted, cursor, limit)
        assert len(page.devices) <= limit
        found += [device.id for device in page.devices]
        if (cursor := page.cursor) is None:
            return found


def report(device: str, **facts: Fact) -> Report:
    return Report(device, facts)


# ── every backend ──


async def test_a_device_comes_back_as_it_was_written(store: DeviceStore) -> None:
    written = await stored(store, LAPTOP)
    assert written == replace(LAPTOP, revision=1)
    assert await store.get("laptop-1") == written
    assert await store.by_certificate("cert-1") == await store.by_certificate("cert-2") == written
    assert await store.by_key("key-1") == written
    assert await store.count() == 1


async def test_nobody_is_found_where_nobody_is(store: DeviceStore) -> None:
    await stored(store, LAPTOP)
    for asked in (
        store.get("laptop-2"),
        store.get(""),
        store.get("{ztp}:x y\ud800"),
        store.by_certificate("key-1"),
        store.by_key("cert-1"),
    ):
        assert await asked is None
    assert await store.page(DevicesWanted(owner="carol@corp.test"), None, 10) == ((), None)
    assert not await store.remove("laptop-2")


@pytest.mark.parametrize("revision", [pytest.param(0, id="as-if-new"), 1, 3])
async def test_a_write_is_refused_where_somebody_wrote_since(store: DeviceStore, revision: int) -> None:
    second = await stored(store, await stored(store, LAPTOP))
    assert await store.put(replace(LAPTOP, status=Status.LOST, revision=revision)) is None
    assert await store.get("laptop-1") == second


async def test_a_write_to_a_device_that_was_removed_is_refused(store: DeviceStore) -> None:
    written = await stored(store, LAPTOP)
    await store.remove("laptop-1")
    assert await store.put(written) is None
    assert await store.count() == 0


async def test_of_many_writes_at_once_one_is_made(store: DeviceStore) -> None:
    written = await stored(store, LAPTOP)
    made = await asyncio.gather(*(store.put(replace(written, name=f"{n}")) for n in range(8)))
    assert [one for one in made if one is not None] == [await store.get("laptop-1")]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"certificates": frozenset({"cert-9", "cert-1"})}, id="certificate"),
        pytest.param({"keys": frozenset({"key-1"})}, id="key"),
    ],
)
async def test_a_certificate_or_key_of_another_device_is_refused(
    store: DeviceStore, changes: dict[str, Any]
) -> None:
    laptop, phone = await stored(store, LAPTOP), await stored(store, PHONE)
    for attempt in (replace(phone, **changes), replace(PHONE, id="new", **changes)):
        with pytest.raises(ClientError) as refused:
            await store.put(attempt)
        assert refused.value.reason is Reason.DEVICE_MISMATCH
    assert await store.get("phone-1") == phone and await store.get("new") is None
    assert await store.by_certificate("cert-1") == await store.by_key("key-1") == laptop
    assert await store.by_certificate("cert-9") == phone


async def test_what_a_device_gives_up_no_longer_finds_it(store: DeviceStore) -> None:
    written = await stored(store, LAPTOP)
    changed = replace(
        written,
        certificates=frozenset({"cert-2", "cert-3"}),
        keys=frozenset[str](),
        owners=frozenset({"bob@corp.test"}),
    )
    changed = await stored(store, changed)
    assert await store.by_certificate("cert-1") is None and await store.by_key("key-1") is None
    assert await store.by_certificate("cert-2") == await store.by_certificate("cert-3") == changed
    assert await listed(store, DevicesWanted(owner="alice@corp.test")) == []
    assert await listed(store, DevicesWanted(owner="bob@corp.test")) == ["laptop-1"]
    # And it is free for another.
    assert await store.put(replace(PHONE, certificates=frozenset({"cert-1"}), keys=frozenset({"key-1"})))


async def test_a_device_that_is_removed_leaves_nothing_behind(store: DeviceStore) -> None:
    await stored(store, LAPTOP)
    assert await store.remove("laptop-1")
    assert not await store.remove("laptop-1")
    assert await store.get("laptop-1") is None
    assert await store.by_certificate("cert-1") is None and await store.by_key("key-1") is None
    assert await listed(store) == [] and await store.count() == 0
    assert await store.put(replace(LAPTOP, id="laptop-2")) is not None


@pytest.mark.parametrize(
    ("fact", "stays"),
    [
        pytest.param(Fact(False, "other", 1000.1), False, id="newer"),
        pytest.param(Fact(False, "other", 1000.0), True, id="same-time"),
        pytest.param(Fact(False, "other", 999.9), True, id="late"),
    ],
)
async def test_of_two_facts_the_newer_stays(store: DeviceStore, fact: Fact, stays: bool) -> None:
    written = await stored(store, LAPTOP)
    assert await store.report([report("laptop-1", disk_encrypted=fact)]) == ()
    after = await store.get("laptop-1")
    assert after is not None and after.posture["disk_encrypted"] == (ENCRYPTED if stays else fact)
    assert after.revision == (1 if stays else 2)
    assert replace(after, posture=written.posture, revision=1) == written


async def test_a_report_that_comes_twice_changes_nothing(store: DeviceStore) -> None:
    await stored(store, LAPTOP)
    reports = [report("laptop-1", edr_running=Fact(True, "edr", 5.0), os_patch_age=Fact(3, "edr", 5.0))]
    await store.report(reports)
    once = await store.get("laptop-1")
    assert once is not None and once.posture["os_patch_age"] == Fact(3, "edr", 5.0)
    assert await store.report(reports) == ()
    assert await store.get("laptop-1") == once
    assert await store.report([]) == ()


async def test_several_reports_about_one_device_are_taken_together(store: DeviceStore) -> None:
    await stored(store, PHONE)
    older, newer = Fact(1, "a", 1.0), Fact(2, "b", 2.0)
    await store.report([report("phone-1", os_patch_age=newer), report("phone-1", os_patch_age=older)])
    phone = await store.get("phone-1")
    assert phone is not None and phone.posture == {"os_patch_age": newer}


async def test_devices_that_are_not_there_are_named_and_passed_over(store: DeviceStore) -> None:
    await stored(store, PHONE)
    fact = Fact(True, "edr", 5.0)
    ids = ["z", "phone-1", "not an id", "a", "z"]
    assert await store.report([report(id, edr_running=fact) for id in ids]) == ("z", "not an id", "a")
    phone = await store.get("phone-1")
    assert phone is not None and phone.posture == {"edr_running": fact}
    assert await store.count() == 1


async def test_reports_and_writes_at_once_lose_nothing(store: DeviceStore) -> None:
    await stored(store, PHONE)

    async def rename(name: str) -> None:
        while True:
            known = await store.get("phone-1")
            assert known is not None
            if await store.put(replace(known, name=name)):
                return

    feeds = [
        store.report([report("phone-1", **{f"fact_{n}": Fact(n, "feed", 1.0), "same": Fact(n, "feed", n)})])
        for n in range(6)
    ]
    await asyncio.gather(*feeds, rename("renamed"))
    phone = await store.get("phone-1")
    assert phone is not None and phone.name == "renamed" and phone.revision == 8
    assert phone.posture.keys() == {"same", *(f"fact_{n}" for n in range(6))}
    assert phone.posture["same"].value == 5


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        pytest.param(EVERYTHING, ["a", "a-1", "b", "c"], id="all-by-id"),
        pytest.param(DevicesWanted(status=Status.LOST), ["b", "c"], id="status"),
        pytest.param(DevicesWanted(owner="alice@corp.test"), ["a", "c"], id="owner"),
        pytest.param(DevicesWanted(owner="alice"), [], id="owner-in-full"),
        pytest.param(DevicesWanted(text="ALICE"), ["a", "c"], id="text-of-an-owner"),
        pytest.param(DevicesWanted(text="pixel"), ["b"], id="text-of-a-name"),
        pytest.param(DevicesWanted(Status.LOST, "alice@corp.test", "c"), ["c"], id="together"),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 4])
async def test_lists_hold_what_fits_by_id(
    store: DeviceStore, wanted: DevicesWanted, ids: list[str], limit: int
) -> None:
    alice = frozenset({"alice@corp.test"})
    for device in (
        Device("c", Status.LOST, owners=alice),
        Device("a-1"),
        Device("b", Status.LOST, "Pixel 9"),
        Device("a", owners=alice),
    ):
        await stored(store, device)
    assert await listed(store, wanted, limit) == ids


async def test_a_cursor_is_for_one_question(store: DeviceStore) -> None:
    for name in "abc":
        await stored(store, Device(name))
    cursor = (await store.page(EVERYTHING, None, 1)).cursor
    assert cursor is not None
    for question, forged in (
        (DevicesWanted(text="a"), cursor),
        (EVERYTHING, "b"),
        (EVERYTHING, ""),
        (EVERYTHING, cursor[:-4]),
        (EVERYTHING, "ü"),
    ):
        with pytest.raises(ClientError) as refused:
            await store.page(question, forged, 1)
        assert refused.value.reason is Reason.HTTP_SYNTAX
    assert [device.id for device in (await store.page(EVERYTHING, cursor, 5)).devices] == ["b", "c"]


# ── Redis alone ──


async def test_whose_a_device_is_cannot_be_read_in_the_store(redis: RedisWorld) -> None:
    await stored(redis.devices, LAPTOP)
    everything = repr(await redis.snapshot())
    for secret in ("alice", "corp.test", "a-1", "approved", "jamf", "15.1", "lice's", "macos"):
        assert secret not in everything


async def test_removing_all_empties_the_store(redis: RedisWorld) -> None:
    written = await stored(redis.devices, LAPTOP)
    await stored(redis.devices, replace(written, certificates=frozenset({"cert-5"})))
    await redis.devices.remove("laptop-1")
    assert await redis.snapshot() == {}


async def test_a_refused_write_changes_nothing_at_all(redis: RedisWorld) -> None:
    await stored(redis.devices, LAPTOP)
    before = await redis.snapshot()
    with pytest.raises(ClientError):
        await redis.devices.put(
            replace(PHONE, certificates=frozenset({"cert-9", "cert-1"}), keys=frozenset({"key-9"}))
        )
    assert await redis.devices.put(replace(LAPTOP, certificates=frozenset({"cert-7"}), revision=7)) is None
    assert await redis.snapshot() == before


async def reads(redis: RedisWorld) -> int:
    """How often the server has read from anybody."""
    return int((await redis.client.info("stats"))["total_reads_processed"])


@pytest.mark.parametrize("method", ["get", "by_certificate", "by_key"])
@pytest.mark.parametrize("name", ["laptop-1", "cert-1", "key-1", "nobody"])
async def test_looking_a_device_up_is_one_round_trip(redis: RedisWorld, method: str, name: str) -> None:
    await stored(redis.devices, LAPTOP)
    ask = getattr(redis.devices, method)
    await ask("nobody")  # the server knows the script from now on
    before = await reads(redis)
    await ask(name)
    assert await reads(redis) - before == 2, "one, and the one of this question"


async def mallory_writes_junk(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hset(alice, "v", b"\x01" * 60)


async def mallory_moves_a_record(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hset(alice, "v", await redis.client.hget(bob, "v"))


async def mallory_turns_the_revision(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hset(alice, "r", "7")


async def mallory_writes_no_revision(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hset(alice, "r", b"\xff")


async def mallory_removes_the_record(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hdel(alice, "v")


@pytest.mark.parametrize(
    "attack",
    [
        mallory_writes_junk,
        mallory_moves_a_record,
        mallory_turns_the_revision,
        mallory_writes_no_revision,
        mallory_removes_the_record,
    ],
)
async def test_a_record_that_was_meddled_with_shuts_its_device_out(
    redis: RedisWorld, attack: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await stored(redis.devices, LAPTOP)
    phone = await stored(redis.devices, PHONE)
    await attack(redis, "{ztp}:device:laptop-1", "{ztp}:device:phone-1")
    for asked in (redis.devices.get("laptop-1"), redis.devices.by_certificate("cert-1")):
        with pytest.raises(WorldError) as failed:
            await asked
        assert failed.value.reason is Reason.STATE_UNAVAILABLE
    assert all(record.levelno >= logging.WARNING for record in caplog.records)
    assert caplog.records
    # Others are not concerned, and feeds go on.
    assert await listed(redis.devices) == ["phone-1"]
    fact = Fact(True, "edr", 1.0)
    assert await redis.devices.report([report(id, edr_running=fact) for id in ("laptop-1", "phone-1")]) == ()
    assert await redis.devices.get("phone-1") == replace(phone, posture={"edr_running": fact}, revision=2)
    # And it can be mended.
    assert await redis.devices.remove("laptop-1")
    assert await redis.devices.put(LAPTOP) is not None


async def test_an_index_that_was_meddled_with_is_not_believed(redis: RedisWorld) -> None:
    await stored(redis.devices, LAPTOP)
    await stored(redis.devices, PHONE)
    await redis.client.hset("{ztp}:device-certificates", "cert-9", "laptop-1")
    await redis.client.hset("{ztp}:device-keys", mapping={"key-1": "phone-1", "key-2": "gone"})
    owners = [key for key in await redis._keys() if b"device-owner" in key]
    for key in owners:
        await redis.client.zadd(key, {"laptop-1": 0, "phone-1": 0, "gone": 0})
    assert await redis.devices.by_certificate("cert-9") is None
    assert await redis.devices.by_key("key-1") is None
    assert await redis.devices.by_key("key-2") is None
    assert len(owners) == 3
    assert await listed(redis.devices, DevicesWanted(owner="bob@corp.test")) == ["phone-1"]


async def test_after_a_rotation_what_is_read_is_sealed_anew(redis: RedisWorld) -> None:
    for number in range(BATCH + 3):
        await stored(redis.devices, Device(f"d{number:03}", certificates=frozenset({f"c{number}"})))
    redis.sealer.use((KEY_B, KEY_A))
    first = await redis.devices.by_certificate("c0")
    new_key_alone = RedisDevices(redis.client, Sealer((KEY_B,)))
    assert await new_key_alone.get("d000") == first
    with pytest.raises(WorldError):
        await new_key_alone.get("d001")
    assert len(await listed(redis.devices, limit=1000)) == BATCH + 3
    assert len(await listed(new_key_alone, limit=1000)) == BATCH + 3
    before = await redis.snapshot()
    await listed(new_key_alone)
    assert await redis.snapshot() == before


async def test_a_store_that_is_full_still_shows_what_an_older_key_sealed(
    redis: RedisWorld, caplog: pytest.LogCaptureFixture
) -> None:
    written = await stored(redis.devices, LAPTOP)
    await redis.devices.by_certificate("cert-1")
    redis.sealer.use((KEY_B, KEY_A))
    await redis.client.config_set("maxmemory", "1")
    try:
        assert await redis.devices.get("laptop-1") == written
        assert await redis.devices.by_certificate("cert-1") == written
    finally:
        await redis.client.config_set("maxmemory", "0")
    assert "could not be sealed anew: state: oom" in caplog.text


async def test_a_bulk_of_thousands_goes_in_batches(redis: RedisWorld) -> None:
    many = 3 * BATCH + 7
    for number in range(many):
        await stored(redis.devices, Device(f"d{number:04}"))
    fact = Fact(True, "edr", 7.0)
    before = await reads(redis)
    bulk = [report(f"d{number:04}", edr_running=fact) for number in range(many)]
    assert await redis.devices.report([*bulk, report("absent", edr_running=fact)]) == ("absent",)
    # A script for reading and one for writing each of four batches; both are unknown to the server at first.
    assert await reads(redis) - before <= 2 * 4 + 4 + 1
    cursor, found = None, []
    while True:
        page = await redis.devices.page(EVERYTHING, cursor, 50)
        found += page.devices
        if (cursor := page.cursor) is None:
            break
    assert len(found) == many and all(device.posture == {"edr_running": fact} for device in found)


async def test_a_page_reads_no_more_than_it_may_and_says_where_to_go_on(redis: RedisWorld) -> None:
    many = SEARCHED + BATCH
    for number in range(many):
        await stored(redis.devices, Device(f"d{number:05}"))
    last = DevicesWanted(text=f"d{many - 1:05}")
    short = await redis.devices.page(last, None, 10)
    assert short.devices == () and short.cursor is not None
    further = await redis.devices.page(last, short.cursor, 10)
    assert [device.id for device in further.devices] == [last.text] and further.cursor is None


async def test_a_cursor_of_another_installation_is_refused(redis: RedisWorld) -> None:
    for name in "abc":
        await stored(redis.devices, Device(name))
    cursor = (await redis.devices.page(EVERYTHING, None, 1)).cursor
    assert cursor is not None
    forged = bytearray(base64.urlsafe_b64decode(cursor))
    forged[-1] ^= 1
    for store, one in (
        (RedisDevices(redis.client, Sealer((KEY_B,))), cursor),
        (RedisDevices(redis.client, redis.sealer, prefix="{staging}:"), cursor),
        (redis.devices, base64.urlsafe_b64encode(forged).decode()),
    ):
        with pytest.raises(ClientError):
            await store.page(EVERYTHING, one, 1)


async def test_a_write_that_is_sent_again_was_made(redis: RedisWorld) -> None:
    """As the client does by itself when a connection is found dead after the server took the command."""
    words = ["{ztp}:", "d", 0, 1, b"sealed", "cert-1", "", ""]
    script = redis.client.register_script(SCRIPTS["put"])
    assert await script(["{ztp}:devices"], words) == 1
    once = await redis.snapshot()
    assert await script(["{ztp}:devices"], words) == 1
    assert await script(["{ztp}:devices"], [*words[:4], b"other", *words[5:]]) == 0
    assert await redis.snapshot() == once


async def test_an_older_program_reads_what_a_newer_one_wrote(redis: RedisWorld) -> None:
    """Fields it does not know are passed over; those it does not find have their default."""
    from msgspec import msgpack

    place = b"{ztp}:device:d:v:4"
    sealed = redis.sealer.seal(b"d", place, msgpack.encode({"status": "lost", "later": [1]}))
    await redis.client.hset("{ztp}:device:d", mapping={"v": sealed, "r": 4})
    assert await redis.devices.get("d") == Device("d", Status.LOST, revision=4)


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x81\xa6status\xa4odd!"])
async def test_a_record_that_is_no_device_cannot_be_read(redis: RedisWorld, raw: bytes) -> None:
    sealed = redis.sealer.seal(b"d", b"{ztp}:device:d:v:1", raw)
    await redis.client.hset("{ztp}:device:d", mapping={"v": sealed, "r": 1})
    with pytest.raises(WorldError):
        await redis.devices.get("d")


async def test_a_store_that_is_away_is_a_world_error(redis: RedisWorld) -> None:
    for key in ("devices", "device:a", "device-certificates", "device-keys"):
        await redis.client.set(f"{{ztp}}:{key}", "x")
    devices = redis.devices
    for asked in (
        devices.get("a"),
        devices.by_certificate("c"),
        devices.by_key("k"),
        devices.put(Device("a")),
        devices.remove("a"),
        devices.report([report("a", edr_running=Fact(True, "x", 1.0))]),
        devices.page(EVERYTHING, None, 1),
        devices.count(),
    ):
        with pytest.raises(WorldError) as failed:
            await asked
        assert failed.value.reason is Reason.STATE_UNAVAILABLE
