"""Enrolment: tickets, keys, limits, and who gets a certificate for what."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.core.words import NOW, asked, person, session
from tests.worlds.enrolling import PORT, RULES, STATE, VERIFIER, asking, csr, new_key
from tests.worlds.memory_admin import MemoryAudit
from tests.worlds.memory_devices import MemoryDevices
from tests.worlds.memory_state import MemoryState, SetClock
from ztproxy.adapters.device_ca import DeviceCA, make
from ztproxy.core.certificate import Certificate
from ztproxy.core.device import Device, OnDevice, Status
from ztproxy.core.evidence import Facts
from ztproxy.core.identity import Identity
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.gateway.enrolment import (
    CERTIFICATE_UNTIL,
    ENROLLED_EVERY,
    ISSUED_EVERY,
    TICKET_LIFETIME,
    Asking,
    Declined,
    Enrolled,
    Enrolment,
    EnrolmentRules,
    challenge_of,
    described,
    is_password,
    short_code,
)

DAY = 86400.0
MAIL = "alice@corp.test"
PASSWORD = "correct horse battery"


@dataclass
class World:
    enrolment: Enrolment
    devices: MemoryDevices
    state: MemoryState
    audit: MemoryAudit
    clock: SetClock

    def snapshot(self) -> Any:
        return dict(self.devices.devices)

    async def ticket(self, facts: Facts, **more: str | None) -> str:
        return await self.enrolment.confirm(Asking.read(asking(**more).get), facts)

    async def enrol(self, facts: Facts, key: Any = None, **more: str | None) -> Enrolled:
        ticket = await self.ticket(facts, **more)
        return await self.enrolment.redeem(ticket, VERIFIER, csr(key).encode(), "r1")

    def later(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> DeviceCA:
    folder: Path = tmp_path_factory.mktemp("ca")
    return DeviceCA.load(*make(folder, "corp.test", 1, NOW), "corp.test", 7 * DAY, NOW)


def world(authority: DeviceCA, rules: EnrolmentRules = RULES, *devices: Device) -> World:
    clock, store, audit = SetClock(NOW), MemoryDevices(*devices), MemoryAudit()
    state, numbers = MemoryState(clock), itertools.count(1)
    enrolment = Enrolment(
        rules, store, state, authority, audit, clock, lambda n: next(numbers).to_bytes(n, "big")
    )
    return World(enrolment, store, state, audit, clock)


@pytest.fixture
def it(authority: DeviceCA) -> Iterator[World]:
    yield world(authority)


def who(*groups: str, now: float = NOW, device: Any = None, **more: Any) -> Facts:
    facts = asked(session(identity=person(*groups, **{"email": "Alice@corp.test", **more})), now=now)
    return facts if device is None else facts._replace(device=device)


IT = who("it")
ALICE = who()


# -- what a tool asks -------------------------------------------------------------------------------------


def test_what_a_tool_asks() -> None:
    found = Asking.read(asking(name="  Alice's laptop ", platform="LINUX").get)
    assert found == Asking(int(PORT), STATE, challenge_of(VERIFIER), "Alice's laptop", "linux")
    assert found.origin == f"http://127.0.0.1:{PORT}" and found.params() == asking()
    assert found.code == short_code(found.challenge) != short_code("c" * 43)
    assert len(found.code) == 9


def test_the_challenge_is_that_of_rfc_7636() -> None:
    # RFC 7636, appendix B
    verifier, challenge = (
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    )
    assert challenge_of(verifier) == challenge


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"port": None}, id="no port"),
        pytest.param({"port": "80"}, id="a port of the system"),
        pytest.param({"port": "1023"}, id="just below"),
        pytest.param({"port": "65536"}, id="beyond"),
        pytest.param({"port": "034567"}, id="a leading zero"),
        pytest.param({"port": "34567@evil.test"}, id="a host behind it"),
        pytest.param({"port": "34567.evil.test"}, id="a host after a dot"),
        pytest.param({"port": "34567/x"}, id="a path behind it"),
        pytest.param({"port": "34567\n"}, id="a line end"),
        pytest.param({"port": "٣٤٥٦٧"}, id="digits of another script"),
        pytest.param({"port": "-3456"}, id="negative"),
        pytest.param({"state": "short"}, id="a short state"),
        pytest.param({"state": "s" * 44}, id="a long state"),
        pytest.param({"state": "s" * 42 + "&"}, id="a state that would be a parameter"),
        pytest.param({"state": "s" * 43 + "\n"}, id="a state with a line end"),
        pytest.param({"challenge": None}, id="no challenge"),
        pytest.param({"challenge": "c" * 42 + "="}, id="a padded challenge"),
        pytest.param({"name": ""}, id="no name"),
        pytest.param({"name": "   "}, id="a blank name"),
        pytest.param({"name": "n" * 65}, id="a long name"),
        pytest.param({"name": "a\x1b[2J"}, id="a name that clears the screen"),
        pytest.param({"name": "a\u202eb"}, id="a name that turns round"),
        pytest.param({"platform": None}, id="no platform"),
        pytest.param({"platform": "my computer"}, id="a platform of two words"),
        pytest.param({"platform": "p" * 33}, id="a long platform"),
        pytest.param({"platform": "<b>"}, id="a tag"),
    ],
)
def test_what_is_no_link(more: dict[str, str | None]) -> None:
    with pytest.raises(Declined) as caught:
        Asking.read(asking(**more).get)
    assert caught.value.status == 400


@pytest.mark.parametrize("port", ["1024", "65535", "8080"])
def test_the_ports_there_are(port: str) -> None:
    assert Asking.read(asking(port=port).get).port == int(port)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("a" * 12, True),
        ("a b c d e f g", True),
        ("~" * 128, True),
        ("a" * 11, False),
        ("a" * 129, False),
        ("pässword pässword", False),
        ("a" * 12 + "\n", False),
        ("", False),
    ],
)
def test_passwords(text: str, good: bool) -> None:
    assert is_password(text) is good


# -- a device and its certificate -------------------------------------------------------------------------


async def test_an_approved_one_gets_its_certificate_at_once(it: World) -> None:
    key = new_key()
    device, issued = await it.enrol(IT, key)
    assert issued is not None
    leaf = x509.load_pem_x509_certificate(issued.pem.encode())
    assert leaf.public_key() == key.public_key() and issued.not_after == NOW + 7 * DAY
    (stored,) = it.devices.devices.values()
    assert (stored.id, stored.status, stored.owners) == (device.id, Status.APPROVED, {MAIL})
    assert (stored.name, stored.platform, len(stored.keys)) == ("Alice's laptop", "linux", 1)
    assert not stored.certificates and stored.created_at == stored.changed_at == NOW
    assert stored.posture[CERTIFICATE_UNTIL].value == int(issued.not_after)
    assert stored.id.startswith("d-") and len(stored.id) == 18
    assert stored.belongs_to(person(email="Alice@corp.test"))
    events = [event for event, _ in it.audit.events]
    assert [event.outcome for event in events] == ["intent", "done"]
    for event in events:
        assert (event.action, event.target) == ("device.enroll", f"device:{stored.id}")
        assert event.actor == "https://idp.test|alice-0001" and event.request_id == "r1"


@pytest.mark.parametrize("rules", [RULES, replace(RULES, approved=None)])
async def test_another_waits_for_approval_and_renews_into_its_first(
    authority: DeviceCA, rules: EnrolmentRules
) -> None:
    it, key = world(authority, rules), new_key()
    device, issued = await it.enrol(ALICE if rules.approved else IT, key)
    assert (device.status, issued) == (Status.PENDING, None)
    assert await it.enrolment.renew(csr(key).encode()) == (device, None)
    await it.devices.put(replace(device, status=Status.APPROVED))
    _, issued = await it.enrolment.renew(csr(key).encode())
    assert issued is not None


async def test_somebody_without_an_address_owns_by_subject(it: World) -> None:
    device, _ = await it.enrol(who("it", email=None))
    assert device.owners == {"https://idp.test|alice-0001"}
    assert [one.id for one in await it.enrolment.mine(person())] == [device.id]


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("verifier", id="without the secret of the challenge"),
        pytest.param("plain", id="the challenge itself as the secret"),
        pytest.param("form", id="a secret of another form"),
        pytest.param("odd", id="a secret of half a character"),
        pytest.param("ticket", id="a made-up ticket"),
        pytest.param("shape", id="a ticket of another shape"),
        pytest.param("late", id="too late"),
        pytest.param("csr", id="a request that is none"),
    ],
)
async def test_a_ticket_that_gives_nothing_and_is_used_up(it: World, attack: str) -> None:
    ticket, verifier, request = await it.ticket(IT), VERIFIER, csr()
    shown = ticket
    match attack:
        case "verifier":
            verifier = "w" * 43
        case "plain":
            verifier = challenge_of(VERIFIER)
        case "form":
            verifier = "v" * 42
        case "odd":
            verifier = "\ud800" * 43
        case "ticket":
            shown = "t" * 43
        case "shape":
            shown = f"{ticket}x"
        case "late":
            it.later(TICKET_LIFETIME)
        case _:
            request = "nothing"
    with pytest.raises(Declined) as caught:
        await it.enrolment.redeem(shown, verifier, request.encode(), "r")
    assert caught.value.status == 400 and not it.snapshot() and not it.audit.events
    if shown == ticket:
        with pytest.raises(Declined, match="used already"):
            await it.enrolment.redeem(ticket, VERIFIER, csr().encode(), "r")
        assert not it.snapshot()


async def test_a_ticket_works_once_however_many_bring_it(it: World) -> None:
    ticket = await it.ticket(IT)
    results = await asyncio.gather(
        *(it.enrolment.redeem(ticket, VERIFIER, csr().encode(), "r") for _ in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, Enrolled) for one in results) == 1 == len(it.snapshot())


async def test_what_the_store_holds_of_a_ticket_is_not_the_ticket(it: World) -> None:
    ticket = await it.ticket(IT)
    assert ticket not in str(it.state.values) and VERIFIER not in str(it.state.values)


# -- how many ---------------------------------------------------------------------------------------------


async def test_one_more_than_the_most(it: World) -> None:
    for _ in range(3):
        await it.enrol(IT)
        it.later(ENROLLED_EVERY)
    with pytest.raises(Declined, match="3 devices, which is the most"):
        await it.ticket(IT)
    before = it.snapshot()
    with pytest.raises(Declined, match="which is the most"):
        await it.enrolment.pack(IT, "n", "linux", PASSWORD, None, "r")
    assert it.snapshot() == before
    lost, retired, _ = before.values()
    await it.devices.put(replace(lost, status=Status.LOST))
    with pytest.raises(Declined):  # a lost one still counts
        await it.ticket(IT)
    it.later(ENROLLED_EVERY)
    await it.devices.put(replace(retired, status=Status.RETIRED))
    assert (await it.enrol(IT))[1] is not None


async def test_two_tickets_at_once_are_not_both_the_last_one(it: World) -> None:
    tickets = []
    for _ in range(2):
        await it.enrol(IT)
        it.later(ENROLLED_EVERY)
    tickets = [await it.ticket(IT) for _ in range(4)]  # each while there was room for one
    results = await asyncio.gather(
        *(it.enrolment.redeem(one, VERIFIER, csr().encode(), "r") for one in tickets),
        return_exceptions=True,
    )
    refused = [one for one in results if isinstance(one, Declined)]
    assert len(it.snapshot()) == 3 and len(refused) == 3
    assert {one.status for one in refused} == {429} and refused[0].retry_after == ENROLLED_EVERY


async def test_others_do_not_count(it: World) -> None:
    for n in range(5):
        await it.enrol(who("it", email=f"p{n}@corp.test"))
    assert len(it.snapshot()) == 5


async def test_many_devices_are_all_counted_and_all_shown(authority: DeviceCA) -> None:
    many = [Device(f"x{n:03}", owners=frozenset({MAIL})) for n in range(230)]
    it = world(authority, replace(RULES, most_per_person=230), *many)
    assert len(await it.enrolment.mine(person(email=MAIL))) == 230
    with pytest.raises(Declined):
        await it.ticket(IT)


async def test_mine_are_mine_alone(authority: DeviceCA) -> None:
    posing = "https://idp.test|alice-0001"
    it = world(
        authority,
        RULES,
        Device("a", owners=frozenset({MAIL})),
        Device("b", owners=frozenset({posing})),
        Device("c", owners=frozenset({"bob@corp.test"})),
        Device("d", owners=frozenset({"alice-0001"})),
    )
    assert [one.id for one in await it.enrolment.mine(person(email=MAIL))] == ["a", "b", "d"]
    stranger = Identity("https://other.test", posing)
    assert await it.enrolment.mine(stranger) == ()


# -- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.APPROVED, Status.LOST, Status.RETIRED])
async def test_a_key_on_record_enrols_no_second_device(it: World, status: Status) -> None:
    key = new_key()
    device, _ = await it.enrol(IT, key)
    found = await it.devices.put(replace(it.devices.devices[device.id], status=status))
    it.later(ENROLLED_EVERY)
    before = it.snapshot()
    with pytest.raises(Declined, match="belongs to a device on record") as caught:
        await it.enrol(who("it", email="mallory@corp.test"), key)
    assert caught.value.status == 409 and it.snapshot() == before and found is not None


async def test_renewal(it: World) -> None:
    key = new_key()
    device, first = await it.enrol(IT, key)
    it.later(ISSUED_EVERY)
    request = csr(key).encode()
    found, second = await it.enrolment.renew(request)
    assert first is not None and second is not None and found.id == device.id
    assert second.thumbprint != first.thumbprint and second.not_after == NOW + ISSUED_EVERY + 7 * DAY
    assert it.devices.devices[device.id].posture[CERTIFICATE_UNTIL].value == int(second.not_after)
    for again in (request, csr(key).encode()):
        with pytest.raises(Declined) as caught:
            await it.enrolment.renew(again)
        assert (caught.value.status, caught.value.retry_after) == (429, ISSUED_EVERY)
    # A request that somebody sends again gives a certificate for this key, which they do not have.
    it.later(ISSUED_EVERY)
    _, third = await it.enrolment.renew(request)
    assert third is not None
    assert x509.load_pem_x509_certificate(third.pem.encode()).public_key() == key.public_key()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (Status.LOST, Reason.DEVICE_LOST),
        (Status.RETIRED, Reason.DEVICE_RETIRED),
        (None, Reason.DEVICE_UNKNOWN),
    ],
)
async def test_what_is_not_renewed(it: World, status: Status | None, reason: Reason) -> None:
    key = new_key()
    device, _ = await it.enrol(IT, key)
    it.later(ISSUED_EVERY)
    if status is None:
        await it.devices.remove(device.id)
    else:
        await it.devices.put(replace(it.devices.devices[device.id], status=status))
    before = it.snapshot()
    with pytest.raises(Declined) as caught:
        await it.enrolment.renew(csr(key).encode())
    assert (caught.value.reason, caught.value.status) == (reason, 403) and it.snapshot() == before


async def test_a_request_signed_with_another_key_renews_nothing(it: World) -> None:
    await it.enrol(IT)
    it.later(ISSUED_EVERY)
    before = it.snapshot()
    for request in (csr(), "", "x" * 20_000):
        with pytest.raises(Declined):
            await it.enrolment.renew(request.encode())
    assert it.snapshot() == before


# -- in a file --------------------------------------------------------------------------------------------


async def test_a_file_for_a_person_without_the_tool(it: World) -> None:
    device, packed = await it.enrolment.pack(IT, "Phone", "ios", PASSWORD, None, "r")
    assert packed is not None
    private, leaf, others = pkcs12.load_key_and_certificates(packed, PASSWORD.encode())
    assert private is not None and leaf is not None and len(others) == 1
    assert leaf.public_key() == private.public_key()
    stored = it.devices.devices[device.id]
    assert (stored.status, stored.name, stored.platform) == (Status.APPROVED, "Phone", "ios")
    assert len(stored.keys) == 1 and CERTIFICATE_UNTIL in stored.posture


async def test_a_file_after_approval_and_then_no_more(it: World) -> None:
    device, packed = await it.enrolment.pack(ALICE, "Phone", "ios", PASSWORD, None, "r")
    assert packed is None and not it.devices.devices[device.id].keys
    assert (await it.enrolment.pack(ALICE, "", "", PASSWORD, device.id, "r")).file is None
    await it.devices.put(replace(it.devices.devices[device.id], status=Status.APPROVED))
    assert (await it.enrolment.pack(ALICE, "", "", PASSWORD, device.id, "r")).file is not None
    it.later(ISSUED_EVERY)
    before = it.snapshot()
    # A session alone makes no second key of an approved device: that would go around the approval.
    with pytest.raises(Declined, match="has its key already"):
        await it.enrolment.pack(ALICE, "", "", PASSWORD, device.id, "r")
    assert it.snapshot() == before
    # Nothing is gained where the device itself is here, or where a new one would be approved at once.
    certificate = Certificate("ours", "", "", 1, "t", "s", 0, 0, device=device.id)
    here = OnDevice(certificate, it.devices.devices[device.id], NOW + DAY)
    assert (await it.enrolment.pack(who(device=here), "", "", PASSWORD, device.id, "r")).file is not None
    it.later(ISSUED_EVERY)
    assert (await it.enrolment.pack(IT, "", "", PASSWORD, device.id, "r")).file is not None
    assert len(it.devices.devices[device.id].keys) == 1


@pytest.mark.parametrize("which", ["another's", "none", "not ours", "lost", "short", "busy", "on another"])
async def test_no_file(it: World, which: str) -> None:
    device, _ = await it.enrol(IT)
    it.later(ISSUED_EVERY)
    id, facts, password, status = device.id, IT, PASSWORD, 403
    match which:
        case "another's":
            facts = who("it", email="bob@corp.test", subject="bob")
        case "none":
            id = "d-aaaaaaaaaaaaaaaa"
        case "not ours":
            id = "SN:1"
            await it.devices.put(Device(id, Status.APPROVED, owners=frozenset({MAIL})))
        case "lost":
            await it.devices.put(replace(it.devices.devices[id], status=Status.LOST))
        case "short":
            password, status = "short", 400
        case "busy":
            status = 429
            await it.enrolment.pack(IT, "", "", PASSWORD, id, "r")
        case _:
            status = 409
            certificate = Certificate("ours", "", "", 1, "t", "s", 0, 0, device="d-2")
            facts = who(device=OnDevice(certificate, Device("d-2"), NOW + DAY))
    before = it.snapshot()
    with pytest.raises(Declined) as caught:
        await it.enrolment.pack(facts, "", "", password, id, "r")
    assert caught.value.status == status and it.snapshot() == before


async def test_a_device_that_changes_meanwhile_gets_no_file(it: World) -> None:
    device, _ = await it.enrol(IT)
    it.later(ISSUED_EVERY)

    async def lost() -> None:
        await it.devices.put(replace(it.devices.devices[device.id], status=Status.LOST))

    it.devices.before_put = lost
    with pytest.raises(Declined, match="changed this device just now"):
        await it.enrolment.pack(IT, "", "", PASSWORD, device.id, "r")
    assert it.devices.devices[device.id].keys == device.keys


# -- what is away -----------------------------------------------------------------------------------------


async def test_what_cannot_be_recorded_has_no_certificate(it: World) -> None:
    key = new_key()
    it.audit.full = True
    with pytest.raises(WorldError, match="audit"):
        await it.enrol(IT, key)
    # Else the first renewal would give what was not recorded.
    assert it.snapshot() == {}
    with pytest.raises(Declined):
        await it.enrolment.renew(csr(key).encode())


async def test_a_key_that_cannot_be_recorded_speaks_for_nothing(it: World) -> None:
    device, _ = await it.enrol(IT)
    it.later(ISSUED_EVERY)
    it.audit.full, before = True, it.snapshot()
    with pytest.raises(WorldError, match="audit"):
        await it.enrolment.pack(IT, "", "", PASSWORD, device.id, "r2")
    assert it.snapshot() == before
    it.later(ISSUED_EVERY)
    it.audit.full = False
    await it.enrolment.pack(IT, "", "", PASSWORD, device.id, "r3")
    told = [(event.action, event.outcome, event.request_id) for event, _ in it.audit.events]
    assert told[2:] == [("device.key", "intent", "r3"), ("device.key", "done", "r3")]


async def test_an_inventory_that_is_away(it: World) -> None:
    ticket = await it.ticket(IT)
    it.devices.away = True
    for ask in (
        it.enrolment.redeem(ticket, VERIFIER, csr().encode(), "r"),
        it.enrolment.renew(csr().encode()),
        it.enrolment.mine(person()),
        it.ticket(IT),
    ):
        with pytest.raises(WorldError):
            await ask


async def test_an_id_that_is_taken(it: World) -> None:
    device, _ = await it.enrol(IT)
    it.later(ENROLLED_EVERY)
    again = Enrolment(
        RULES, it.devices, it.state, it.enrolment._authority, it.audit, it.clock,
        lambda n: (2).to_bytes(n, "big"),
    )  # fmt: skip
    before = it.snapshot()
    with pytest.raises(WorldError, match="taken"):
        await again.pack(IT, "n", "linux", PASSWORD, None, "r")
    assert it.snapshot() == before and device.id in before


def test_a_description_is_one_of_people_and_machines() -> None:
    assert described({"name": "Ünïcode ✓", "platform": "Windows"}.get) == ("Ünïcode ✓", "windows")
