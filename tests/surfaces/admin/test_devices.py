"""The inventory of devices: registered, approved, lost, forgotten; and by whom not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.words import NOW
from tests.surfaces.admin.world import World
from ztproxy.core.device import Device, Fact, Status
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.gateway.ports.administration import Role

PRINT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
THUMBPRINT = "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg"
LAPTOP = Device(
    "L-1",
    Status.APPROVED,
    "Alice's laptop",
    "macos",
    frozenset({"alice@example.com"}),
    frozenset({THUMBPRINT}),
    posture={"disk_encrypted": Fact(True, "mdm", NOW - 60)},
    created_at=NOW - 3600,
    changed_at=NOW - 3600,
    revision=1,
)
SHOWN = {
    "id": "L-1",
    "status": "approved",
    "name": "Alice's laptop",
    "platform": "macos",
    "owners": ["alice@example.com"],
    "certificates": [THUMBPRINT],
    "keys": [],
    "posture": {"disk_encrypted": {"value": True, "source": "mdm", "at": "2025-06-15T15:05:40Z"}},
    "created_at": "2025-06-15T14:06:40Z",
    "changed_at": "2025-06-15T14:06:40Z",
    "revision": 1,
}


def put(world: World, *devices: Device) -> None:
    world.devices.devices |= {device.id: device for device in devices}


def locks(world: World) -> list[Lock]:
    return [entry for entry in world.log.entries.values() if isinstance(entry, Lock)]


async def test_showing_one(world: World) -> None:
    put(world, LAPTOP)
    session = await world.sign_in("alice", device="L-1")
    await world.sign_in("bob", device="L-2")
    answer = await world.ask("GET", "/devices/L-1", role="viewer")
    assert answer.json["device"] == SHOWN
    assert [one["id"] for one in answer.json["sessions"]] == [session]
    assert world.audit.events == []


@pytest.mark.parametrize("id", ["L-2", "l-1", "L-1%2F", "%2e%2e", "posture", "import", "%00", "x" * 200])
async def test_there_is_no_such_device(world: World, id: str) -> None:
    put(world, LAPTOP)
    answer = await world.ask("GET", f"/devices/{id}")
    assert answer.kind in ("not_found", "invalid")
    assert answer.status in (400, 404)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param("", ["L-1", "L-2", "P-1"], id="all"),
        pytest.param("?status=pending", ["P-1"], id="by status"),
        pytest.param("?owner=alice@example.com", ["L-1"], id="by owner"),
        pytest.param("?owner=ALICE@Example.com", ["L-1"], id="an address in another case"),
        pytest.param("?owner=Bob", [], id="a subject in another case"),
        pytest.param("?owner=alice", [], id="a part of an owner"),
        pytest.param("?text=LAPTOP", ["L-1"], id="by text"),
        pytest.param("?text=%20bob%20", ["L-2"], id="with spaces around"),
        pytest.param("?status=approved&owner=bob", ["L-2"], id="both"),
        pytest.param("?text=*", [], id="no pattern"),
    ],
)
async def test_lists(world: World, query: str, found: list[str]) -> None:
    put(world, LAPTOP, Device("L-2", Status.APPROVED, owners=frozenset({"bob"})), Device("P-1"))
    answer = await world.ask("GET", f"/devices{query}", role="viewer")
    assert [one["id"] for one in answer.json["devices"]] == found
    assert answer.json["next"] is None


async def test_pages(world: World) -> None:
    put(world, *(Device(f"D-{number}", revision=1) for number in range(5)))
    seen, cursor = [], ""
    while cursor is not None:
        page = (await world.ask("GET", f"/devices?limit=2&cursor={cursor}")).json
        seen += [one["id"] for one in page["devices"]]
        cursor = page["next"]
    assert seen == [f"D-{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=stolen", "status"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("owner=a&owner=b", "owner"),
        ("id=L-1", "id"),
    ],
)
async def test_lists_that_cannot_be_asked_for(world: World, query: str, field: str) -> None:
    answer = await world.ask("GET", f"/devices?{query}")
    assert (answer.status, answer.field) == (400, field)


async def test_registering(world: World) -> None:
    answer = await world.ask(
        "PUT",
        "/devices/L-1",
        json={
            "name": "Alice's laptop",
            "owners": ["Alice@Example.com"],
            "platform": "macOS",
            "certificates": [PRINT],
            "posture": {"antivirus": "on", "disk_encrypted": {"value": True, "at": NOW - 5}},
        },
    )
    told = answer.json
    assert (told["outcome"], told["held"], told["ended"]) == ("created", False, None)
    device = world.devices.devices["L-1"]
    assert (device.status, device.platform) == (Status.PENDING, "macos")
    assert device.owners == {"alice@example.com"} and device.certificates == {THUMBPRINT}
    assert device.posture["antivirus"] == Fact("on", "operator-1", NOW), "whoever says it is the source"
    assert device.posture["disk_encrypted"].at == NOW - 5
    assert world.outcomes == [
        ("device.register", "intent", "device:L-1"),
        ("device.register", "done", "device:L-1"),
    ]
    again = await world.ask("PUT", "/devices/L-1", json={"status": "approved"})
    assert (again.json["outcome"], again.json["device"]["status"]) == ("updated", "approved")
    assert again.json["device"]["owners"] == ["alice@example.com"], "what is not said stays"
    same = await world.ask("PUT", "/devices/L-1", json={"id": "L-1", "status": "approved"})
    assert same.json["outcome"] == "unchanged"
    assert locks(world) == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        pytest.param("L-1", {"id": "L-2"}, "id", id="another id"),
        pytest.param("L%20%31", {}, "id", id="an id that is none"),
        pytest.param("L-1", {"status": "stolen"}, "status", id="status"),
        pytest.param("L-1", {"revision": 7}, "revision", id="what is not for it to say"),
        pytest.param("L-1", {"keys": ["x"]}, "keys", id="keys are enrolled, not written"),
        pytest.param("L-1", {"owners": "alice"}, "owners", id="no list"),
        pytest.param("L-1", {"owners": ["a b"]}, "owners", id="no owner"),
        pytest.param("L-1", {"certificates": ["a9993e36"]}, "certificates", id="no fingerprint"),
        pytest.param("L-1", {"platform": "<script>"}, "platform", id="platform"),
        pytest.param("L-1", {"posture": {"disk": True}}, "posture.disk", id="an unknown fact"),
        pytest.param("L-1", {"posture": {"antivirus": True}}, "posture.antivirus", id="another type"),
        pytest.param(
            "L-1",
            {"posture": {"antivirus": {"value": "on", "at": NOW + 301}}},
            "posture.antivirus.at",
            id="the future",
        ),
        pytest.param("L-1", {"name": "a\nb"}, "name", id="two lines"),
        pytest.param("%20L-1", {}, "id", id="a space before the id"),
        pytest.param("L-1%2F..", {}, "id", id="an id with a slash"),
    ],
)
async def test_what_cannot_be_registered(world: World, path: str, body: Any, field: str) -> None:
    answer = await world.ask("PUT", f"/devices/{path}", json=body)
    assert (answer.status, answer.kind, answer.field) == (400, "invalid", field)
    assert world.devices.devices == {}
    assert world.outcomes == [("device.register", "refused", world.outcomes[0][2])]


async def test_a_certificate_of_another_device(world: World) -> None:
    put(world, LAPTOP)
    answer = await world.ask("PUT", "/devices/L-2", json={"certificates": [PRINT]})
    assert (answer.status, answer.kind) == (409, "conflict")
    assert list(world.devices.devices) == ["L-1"]


async def test_a_put_brings_nothing_back(world: World) -> None:
    put(world, Device("L-1", Status.LOST, revision=1))
    answer = await world.ask("PUT", "/devices/L-1", json={"status": "approved", "name": "found"})
    assert (answer.json["held"], answer.json["device"]["status"]) == (True, "lost")
    answer = await world.ask("POST", "/devices/L-1/status", json={"status": "approved"})
    assert answer.json["device"]["status"] == "approved"


@pytest.mark.parametrize("status", ["lost", "retired"])
@pytest.mark.parametrize("how", ["status", "register"])
async def test_shutting_out(world: World, status: str, how: str) -> None:
    put(world, LAPTOP)
    await world.sign_in("alice", device="L-1")
    other = await world.sign_in("bob", device="L-2")
    if how == "status":
        answer = await world.ask("POST", "/devices/L-1/status", json={"status": status, "reason": "train"})
    else:
        answer = await world.ask("PUT", "/devices/L-1", json={"status": status, "reason": "train"})
    told = answer.json
    assert (told["outcome"], told["device"]["status"]) == ("updated", status)
    ended = told["ended"]
    assert (ended["confirmed"], ended["matched"], ended["exact"]) == (True, 1, True)
    (lock,) = locks(world)
    assert (lock.target, lock.created_by, lock.reason) == (
        Target(TargetKind.DEVICE, "L-1"),
        "operator-1",
        "train",
    )
    assert lock.revokes
    assert list(world.state.sessions) == [other], "its records are cleared away"
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "done"]


async def test_not_confirmed_everywhere(world: World) -> None:
    """The answer is no 200, the device is shut out all the same, and asking again is about the same lock."""
    put(world, LAPTOP)
    world.log.confirmed = False
    key, body = ("Idempotency-Key", "k"), {"status": "lost"}
    answer = await world.ask("POST", "/devices/L-1/status", key, json=body)
    assert (answer.status, answer.kind) == (503, "applied_unconfirmed")
    assert (answer.json["number"], answer.json["topology"]) == (1, "strict")
    assert world.devices.devices["L-1"].status is Status.LOST
    assert world.outcomes[-1][1] == "unconfirmed"
    world.log.confirmed = True
    assert (await world.ask("POST", "/devices/L-1/status", key, json=body)).json["ended"]["number"] == 1
    assert len(locks(world)) == 1


async def test_the_log_is_away(world: World) -> None:
    put(world, LAPTOP)
    world.log.away = True
    answer = await world.ask("POST", "/devices/L-1/status", json={"status": "lost"})
    assert (answer.status, answer.kind) == (503, "applied_unconfirmed")
    assert "number" not in answer.json
    assert world.devices.devices["L-1"].status is Status.LOST
    world.log.away = False
    assert (await world.ask("POST", "/devices/L-1/status", json={"status": "lost"})).status == 200
    assert len(locks(world)) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("GET", "/devices", None, "unavailable"),
        ("GET", "/devices/L-1", None, "unavailable"),
        ("PUT", "/devices/L-1", {}, "unavailable"),
        ("POST", "/devices/L-1/status", {"status": "lost"}, "not_applied"),
        ("DELETE", "/devices/L-1", None, "unavailable"),
        ("POST", "/devices/import", {"rows": [{"id": "L-1"}]}, "unavailable"),
        ("PUT", "/devices/posture", {"reports": []}, "unavailable"),
    ],
)
async def test_the_store_is_away(world: World, method: str, path: str, body: Any, kind: str) -> None:
    world.devices.away = world.log.away = True
    answer = await world.ask(method, path, json=body, role="admin")
    if method == "DELETE":
        assert answer.kind in ("unavailable", "applied_unconfirmed")
    else:
        assert answer.kind == kind
    assert answer.status == 503


async def test_removing(world: World) -> None:
    put(world, LAPTOP)
    answer = await world.ask("DELETE", "/devices/L-1?reason=sold", role="admin")
    assert answer.json == {"id": "L-1", "audit": "written"}
    assert world.devices.devices == {}
    (lock,) = locks(world)
    assert (lock.target.name, lock.reason) == ("L-1", "sold")
    assert (await world.ask("DELETE", "/devices/L-1", role="admin")).status == 404


async def test_removing_what_cannot_be_read(world: World) -> None:
    put(world, LAPTOP)
    world.devices.unreadable.add("L-1")
    assert (await world.ask("GET", "/devices/L-1", role="admin")).status == 503
    assert (await world.ask("DELETE", "/devices/L-1", role="admin")).status == 200
    assert world.devices.devices == {}


async def test_removing_is_done_when_it_is_confirmed(world: World) -> None:
    put(world, LAPTOP)
    world.log.confirmed = False
    answer = await world.ask("DELETE", "/devices/L-1", role="admin")
    assert answer.kind == "applied_unconfirmed"
    assert world.devices.devices["L-1"].status is Status.RETIRED


@pytest.mark.parametrize(
    ("method", "path", "body", "least"),
    [
        ("GET", "/devices", None, "viewer"),
        ("GET", "/devices/L-1", None, "viewer"),
        ("PUT", "/devices/L-1", {"name": "x"}, "operator"),
        ("POST", "/devices/L-1/status", {"status": "lost"}, "operator"),
        ("POST", "/devices/import", {"rows": [{"id": "L-9"}]}, "operator"),
        ("DELETE", "/devices/L-1", None, "admin"),
        ("PUT", "/devices/posture", {"reports": [{"device": "L-1", "facts": {"edr_running": True}}]}, "feed"),
    ],
)
@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "feed"])
async def test_who_may(world: World, method: str, path: str, body: Any, least: Role, role: Role) -> None:
    put(world, LAPTOP)
    await world.feed()
    before = world.effects()
    answer = await world.ask(method, path, json=body, role=role)
    ranks = ["viewer", "operator", "admin"]
    may = role in ("feed", "admin") if least == "feed" else role in ranks[ranks.index(least) :]
    assert (answer.status == 200) is may
    if not may:
        assert answer.kind == "forbidden"
        assert world.effects() == before
