"""The device behind a connection: what it is on each request, whoever is away and whatever changes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from tests.core.words import NOW
from tests.worlds.memory_devices import MemoryDevices
from tests.worlds.memory_state import SetClock
from tests.worlds.verifying import Verifying, certificate, showing
from ztproxy.core.device import Device, NoDevice, OnDevice, Status
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, Unavailable
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate, Peer
from ztproxy.gateway.devices import MAX_BYTES, MAX_KNOWN, DeviceWitness
from ztproxy.gateway.known import FRESH, RELIED_ON

LAPTOP = Device("laptop-1", Status.APPROVED, certificates=frozenset({"registered"}))
NAMED = Device("laptop-2", Status.APPROVED)


@dataclass
class World:
    verifier: Verifying
    store: MemoryDevices
    boottime: SetClock
    witness: DeviceWitness

    async def gather(self, peer: Peer, now: float = NOW) -> DeviceEvidence:
        return await self.witness.gather(peer, now)


@pytest.fixture
def world() -> World:
    verifier = Verifying().knows(
        certificate("registered"),
        certificate("by-id", "laptop-2"),
        certificate("old-of-laptop-1", "laptop-1"),
        certificate("unregistered"),
    )
    store, boottime = MemoryDevices(LAPTOP, NAMED), SetClock(100.0)
    return World(verifier, store, boottime, DeviceWitness(verifier, store, boottime))


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        pytest.param(showing(None, asked=False), NOT_ASKED, id="nobody-asked"),
        pytest.param(showing(None), NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED), id="asked-and-none-shown"),
        pytest.param(
            showing("forged"), NoDevice(Reason.DEVICE_CERTIFICATE_INVALID), id="one-that-does-not-hold"
        ),
    ],
)
async def test_without_a_device_nobody_is_asked(world: World, peer: Peer, expected: DeviceEvidence) -> None:
    world.store.away = True
    assert world.witness.at_hand(peer, NOW) == await world.gather(peer) == expected
    assert not world.verifier.judged


@pytest.mark.parametrize(
    ("shown", "device"),
    [
        pytest.param("registered", "laptop-1", id="by-the-certificate-it-is-registered-with"),
        pytest.param("by-id", "laptop-2", id="by-the-id-its-authority-wrote"),
        pytest.param("unregistered", None, id="of-no-device"),
        pytest.param("old-of-laptop-1", None, id="another-than-the-registered-one"),
    ],
)
async def test_whose_device_it_is(world: World, shown: str, device: str | None) -> None:
    assert world.witness.at_hand(showing(shown), NOW) is None
    found = await world.gather(showing(shown))
    assert isinstance(found, OnDevice) and found.certificate.thumbprint == shown
    assert (None if found.device is None else found.device.id) == device
    assert world.witness.at_hand(showing(shown), NOW) is found


@pytest.mark.parametrize(
    ("status", "reason"),
    [(Status.LOST, Reason.DEVICE_LOST), (Status.RETIRED, Reason.DEVICE_RETIRED)],
)
async def test_a_device_that_is_shut_out_is_none(world: World, status: Status, reason: Reason) -> None:
    world.store.devices["laptop-1"] = Device("laptop-1", status, certificates=LAPTOP.certificates)
    assert await world.gather(showing("registered")) == NoDevice(reason)
    assert world.witness.at_hand(showing("registered"), NOW) == NoDevice(reason)


async def test_what_a_list_revokes_stops_an_open_connection(world: World) -> None:
    """(X08)"""
    peer = showing("registered")
    assert isinstance(await world.gather(peer), OnDevice)
    world.verifier.refused[b"registered"] = Reason.DEVICE_CERTIFICATE_REVOKED
    world.verifier.revision += 1
    revoked = NoDevice(Reason.DEVICE_CERTIFICATE_REVOKED)
    assert world.witness.at_hand(peer, NOW) == await world.gather(peer) == revoked


async def test_what_the_responder_says_of_it_now_counts(world: World) -> None:
    """What must be asked is asked; the refusal of a moment ago does not stay."""
    world.verifier.slow.add(b"registered")
    world.verifier.refused[b"registered"] = Reason.DEVICE_CERTIFICATE_UNCHECKED
    unchecked = Unavailable(Reason.DEVICE_CERTIFICATE_UNCHECKED)
    assert world.witness.at_hand(showing("registered"), NOW) is None
    assert await world.gather(showing("registered")) == unchecked
    del world.verifier.refused[b"registered"]
    assert isinstance(await world.gather(showing("registered")), OnDevice)


@pytest.mark.parametrize(
    "now", [pytest.param(NOW + 60, id="its-end-has-come"), pytest.param(NOW - 1, id="the-clock-was-set-back")]
)
async def test_it_is_judged_anew(world: World, now: float) -> None:
    world.verifier.until = NOW + 60
    await world.gather(showing("registered"))
    assert world.witness.at_hand(showing("registered"), NOW + 59.9) is not None
    assert world.witness.at_hand(showing("registered"), now) is None
    world.verifier.until = NOW + 120
    assert isinstance(await world.gather(showing("registered"), now), OnDevice)


# -- the inventory ----------------------------------------------------------------------------------------


async def test_an_inventory_that_is_away_is_never_an_unknown_device(world: World) -> None:
    world.store.away = True
    assert await world.gather(showing("registered")) == Unavailable(Reason.STATE_UNAVAILABLE)


async def test_an_answer_that_comes_too_late_has_not_come(world: World) -> None:
    world.verifier.wait = asyncio.Event()
    asking = asyncio.create_task(world.gather(showing("registered")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.boottime.now += RELIED_ON
    world.verifier.wait.set()
    assert await asking == Unavailable(Reason.STATE_UNAVAILABLE)


async def test_many_requests_ask_once_and_none_of_them_stops_it(world: World) -> None:
    world.verifier.wait = asyncio.Event()
    asking = [asyncio.create_task(world.gather(showing("registered"))) for _ in range(5)]
    for _ in range(3):
        await asyncio.sleep(0)
    asking[0].cancel()
    world.verifier.wait.set()
    found = await asyncio.gather(*asking[1:])
    assert world.verifier.judged == 1 and all(one is found[0] for one in found)


async def test_it_is_read_again_while_it_is_used_and_never_relied_on_for_long(world: World) -> None:
    peer, before = showing("by-id"), await world.gather(showing("by-id"))
    world.boottime.now += FRESH + 0.01
    assert world.witness.at_hand(peer, NOW) is before
    for _ in range(10):
        await asyncio.sleep(0)
    assert world.verifier.judged == 2
    assert world.witness.at_hand(peer, NOW) is before, "nothing changed, so it is the same evidence"

    world.store.devices["laptop-2"] = Device("laptop-2", Status.PENDING)
    world.boottime.now += FRESH + 0.01
    world.witness.at_hand(peer, NOW)
    for _ in range(10):
        await asyncio.sleep(0)
    after = world.witness.at_hand(peer, NOW)
    assert isinstance(after, OnDevice) and after.device is not None and after.device.status is Status.PENDING

    world.boottime.now += RELIED_ON
    assert world.witness.at_hand(peer, NOW) is None


async def test_what_is_remembered_is_bounded(world: World) -> None:
    for number in range(MAX_KNOWN + 2):
        name = f"c{number}"
        world.verifier.knows(certificate(name))
        await world.gather(showing(name))
    assert world.witness.at_hand(showing("c0"), NOW) is None
    assert world.witness.at_hand(showing(name), NOW) is not None


async def test_one_certificate_with_ever_other_chains_fills_no_memory(world: World) -> None:
    """Whoever has one device could show it with any rubbish behind it."""
    ballast = b"x" * 60_000
    peers = [
        Peer(
            "203.0.113.9", True, None, ClientCertificate(b"registered", (ballast, b"%d" % number)), asked=True
        )
        for number in range(MAX_BYTES // len(ballast) + 2)
    ]
    for peer in peers:
        await world.gather(peer)
    assert world.witness.at_hand(peers[0], NOW) is None
    assert world.witness.at_hand(peers[-1], NOW) is not None
    for peer in peers[-3:]:
        world.boottime.now += RELIED_ON
        await world.gather(peer)
    assert world.witness.at_hand(peers[3], NOW) is None and world.witness.bytes_known <= MAX_BYTES


@pytest.mark.parametrize(
    ("shown", "device"),
    [
        pytest.param("old-of-laptop-1", LAPTOP, id="another-is-registered"),
        pytest.param("by-id", Device("laptop-2", Status.APPROVED, keys=frozenset({"k"})), id="another-key"),
    ],
)
async def test_a_certificate_that_was_taken_away_names_no_device_any_more(
    world: World, shown: str, device: Device
) -> None:
    """Else a session bound to the device would count with it (`bound_to`)."""
    world.store.devices[device.id] = device
    found = await world.gather(showing(shown))
    assert isinstance(found, OnDevice) and (found.device, found.certificate.device) == (None, None)


async def test_a_device_is_known_by_the_key_it_enrolled_with(world: World) -> None:
    enrolled = Device("laptop-2", Status.APPROVED, keys=frozenset({"key-of-by-id"}))
    world.store.devices["laptop-2"] = enrolled
    found = await world.gather(showing("by-id"))
    assert isinstance(found, OnDevice) and found.device == enrolled


async def test_a_device_that_was_shut_out_is_read_anew_also_where_it_is_being_read(world: World) -> None:
    peer = showing("registered")
    before = await world.gather(peer)
    world.store.devices["laptop-1"] = replace(LAPTOP, status=Status.LOST)
    world.witness.forget("laptop-2")
    assert world.witness.at_hand(peer, NOW) is before, "that was another one"
    world.witness.forget("laptop-1")
    assert world.witness.at_hand(peer, NOW) is None
    world.store.devices["laptop-1"] = LAPTOP
    world.verifier.wait = asyncio.Event()
    asking = asyncio.create_task(world.gather(peer))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.witness.forget("laptop-1")
    world.store.devices["laptop-1"] = replace(LAPTOP, status=Status.LOST)
    world.verifier.wait.set()
    assert await asking == NoDevice(Reason.DEVICE_LOST) and world.verifier.judged == 3
