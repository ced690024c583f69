"""Imports and reports of posture: all or nothing, every mistake by its place, a feed under its own name."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.core.words import NOW
from tests.surfaces.admin.world import JSON_TYPE, World
from ztproxy.core.device import Device, Fact, Status
from ztproxy.surfaces.admin.access import PER_SECOND
from ztproxy.surfaces.admin.bodies import MAX_BODY, MAX_BULK, MAX_VALUES
from ztproxy.surfaces.admin.device_lists import MOST_UNKNOWN

PRINT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def rows(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"rows": list(rows), **more}


async def test_an_import(world: World) -> None:
    world.devices.devices["L-2"] = Device("L-2", Status.LOST, revision=1)
    sent = rows(
        {"id": "L-1", "owners": "alice@example.com; bob", "status": "approved"},
        {"id": "L-2", "status": "approved"},
        {"id": "L-3", "posture.disk_encrypted": "yes", "posture_at": "2025-06-15T15:00:00Z"},
    )
    dry = await world.ask("POST", "/devices/import", json={**sent, "dry_run": True})
    counts = {"created": 2, "updated": 0, "unchanged": 1, "held": ["L-2"], "audit": "written"}
    assert dry.json == {**counts, "dry_run": True}
    assert (list(world.devices.devices), world.audit.events) == (["L-2"], [])
    answer = await world.ask("POST", "/devices/import", json=sent)
    assert answer.json == {**counts, "dry_run": False}
    devices = world.devices.devices
    assert devices["L-1"].owners == {"alice@example.com", "bob"}
    assert devices["L-2"].status is Status.LOST
    assert devices["L-3"].posture == {"disk_encrypted": Fact(True, "operator-1", NOW - 400)}
    assert world.outcomes == [("devices.import", "intent", "devices"), ("devices.import", "done", "devices")]
    assert world.audit.events[1][0].detail == {"created": 2, "updated": 0, "unchanged": 1, "held": 1}
    again = await world.ask("POST", "/devices/import", json=sent)
    assert (again.json["created"], again.json["unchanged"]) == (0, 3)


@pytest.mark.parametrize("dry", [False, True])
async def test_every_mistake_is_named_and_nothing_is_imported(world: World, dry: bool) -> None:
    sent = rows(
        {"id": "L-1"},
        {"id": "L-2", "owner": "alice"},
        {"id": "L-3", "name": "x" * 2000},
        {"id": "L-1", "certificates": PRINT},
        {"status": "approved"},
        dry_run=dry,
    )
    answer = await world.ask("POST", "/devices/import", json=sent)
    assert (answer.status, answer.kind, answer.field) == (400, "invalid", "rows")
    places = [(one["place"], one["field"]) for one in answer.json["mistakes"]]
    assert places == [("item 2", "owner"), ("item 3", "name"), ("item 4", "id"), ("item 5", "id")]
    assert "did you mean `owners`" in answer.json["mistakes"][0]["text"]
    assert answer.json["more"] == 0
    assert world.devices.devices == {}
    assert world.outcomes == [("devices.import", "refused", "")]


async def test_many_mistakes_are_counted(world: World) -> None:
    answer = await world.ask("POST", "/devices/import", json=rows(*({"id": ""} for _ in range(50))))
    assert (len(answer.json["mistakes"]), answer.json["more"]) == (20, 30)


@pytest.mark.parametrize("dry", [False, True])
async def test_a_certificate_of_another_device(world: World, dry: bool) -> None:
    await world.ask("PUT", "/devices/L-0", json={"certificates": [PRINT]})
    answer = await world.ask(
        "POST", "/devices/import", json=rows({"id": "A"}, {"id": "B", "certificates": PRINT}, dry_run=dry)
    )
    assert (answer.status, answer.kind) == (409, "conflict")
    assert "`B`" in answer.json["detail"] and "`L-0`" in answer.json["detail"]
    assert list(world.devices.devices) == ["L-0"]


async def test_an_import_that_loses_a_device(world: World) -> None:
    world.devices.devices["L-1"] = Device("L-1", Status.APPROVED, revision=1)
    world.log.confirmed = False
    sent, key = rows({"id": "L-1", "status": "lost"}), ("Idempotency-Key", "k")
    answer = await world.ask("POST", "/devices/import", key, json=sent)
    assert (answer.status, answer.kind) == (503, "applied_unconfirmed")
    world.log.confirmed = True
    assert (await world.ask("POST", "/devices/import", key, json=sent)).status == 200
    assert len(world.log.entries) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({}, "rows", id="nothing"),
        pytest.param({"rows": {}}, "rows", id="no list"),
        pytest.param({"rows": ["L-1"]}, "rows[0]", id="a text"),
        pytest.param({"rows": [None]}, "rows[0]", id="null"),
        pytest.param({"rows": [], "facts": {"x": "text"}}, "facts", id="facts of one's own"),
        pytest.param({"rows": [{"id": "x", "posture": [[[[[[]]]]]]}]}, "rows", id="nested"),
        pytest.param({"rows": [{"id": "\ud800"}]}, "rows", id="half a character"),
        pytest.param({"rows": [{"id": "x", "a\u001b[2J": 1}]}, "rows", id="a name for a terminal"),
    ],
)
async def test_what_is_no_import(world: World, body: Any, field: str) -> None:
    answer = await world.ask("POST", "/devices/import", json=body)
    assert (answer.status, answer.field) == (400, field)
    assert b"\x1b" not in answer.body and b"\\u001b" not in answer.body
    assert world.devices.devices == {}


async def test_large_bodies_are_for_lists_alone(world: World) -> None:
    many = rows(*({"id": f"D-{number}", "name": "x" * 100} for number in range(1000)))
    assert len(json.dumps(many)) > MAX_BODY
    assert (await world.ask("POST", "/devices/import", json=many)).json["created"] == 1000
    assert (await world.ask("PUT", "/devices/x", json={"posture": many})).kind == "too_large"
    token = ("Authorization", f"Bearer {world.secrets['operator']}")
    huge = [("Host", "localhost"), token, JSON_TYPE, ("Content-Length", str(MAX_BULK + 1))]
    assert (await world.raw("POST /api/v1/devices/import HTTP/1.1", huge)).kind == "too_large"


@pytest.mark.parametrize("value", [b"[],", b"{},", b"1,"])
async def test_a_large_body_of_very_many_values(world: World, value: bytes) -> None:
    """Three letters of text are seventy bytes of memory: 32 MiB of them would be gigabytes."""
    await world.feed("jamf")
    many = MAX_VALUES // value.count(b"{") if b"{" in value else MAX_VALUES
    body = b'{"reports":[' + value * many + b"{}]}"
    assert len(body) < MAX_BULK
    answer = await world.ask("PUT", "/devices/posture", JSON_TYPE, role="feed", body=body)
    assert (answer.status, answer.kind) == (413, "too_large")


async def test_one_large_body_of_a_caller_at_a_time(world: World) -> None:
    """Else a feed in wrong hands fills the memory of the process that revokes."""
    world.log.go_on.clear()
    first = asyncio.create_task(
        world.ask("POST", "/devices/import", json=rows({"id": "L-1", "status": "lost"}))
    )
    await asyncio.wait_for(world.log.begun.wait(), 30)
    second = await world.ask("POST", "/devices/import", json=rows({"id": "L-2"}))
    assert (second.status, second.kind, second.headers["retry-after"]) == (429, "rate_limited", "1")
    other = await world.ask("POST", "/devices/import", json=rows({"id": "L-3"}), role="admin")
    assert other.status == 200
    world.log.go_on.set()
    assert (await first).status == 200
    assert (await world.ask("POST", "/devices/import", json=rows({"id": "L-2"}))).status == 200


# ── posture ──


def reports(*reports: dict[str, Any]) -> dict[str, Any]:
    return {"reports": list(reports)}


async def test_a_feed(world: World) -> None:
    world.devices.devices |= {id: Device(id, revision=1) for id in ("L-1", "L-2")}
    await world.feed("jamf")
    sent = reports(
        {"device": "L-1", "facts": {"disk_encrypted": True, "os_patch_age": {"value": 12, "at": NOW - 60}}},
        {"device": "L-2", "facts": {"antivirus": "on"}, "at": NOW - 5},
        {"device": "gone", "facts": {"edr_running": False}},
    )
    answer = await world.ask("PUT", "/devices/posture", json=sent, role="feed")
    assert answer.json == {"devices": 2, "unknown": ["gone"], "more": 0, "audit": "written"}
    assert world.devices.devices["L-1"].posture == {
        "disk_encrypted": Fact(True, "jamf", NOW),
        "os_patch_age": Fact(12, "jamf", NOW - 60),
    }
    assert world.devices.devices["L-2"].posture == {"antivirus": Fact("on", "jamf", NOW - 5)}
    assert world.outcomes == [
        ("devices.posture", "intent", "posture"),
        ("devices.posture", "done", "posture"),
    ]
    assert [event.actor for event, _ in world.audit.events] == ["jamf", "jamf"]
    assert world.audit.events[0][0].detail == {"devices": 3, "facts": 4}
    before = dict(world.devices.devices)
    assert (await world.ask("PUT", "/devices/posture", json=sent, role="feed")).status == 200
    assert world.devices.devices == before, "twice is once"


async def test_an_older_report_changes_nothing(world: World) -> None:
    world.devices.devices["L-1"] = Device(
        "L-1", posture={"disk_encrypted": Fact(False, "other", NOW - 10)}, revision=1
    )
    await world.feed()
    old = {"device": "L-1", "facts": {"disk_encrypted": {"value": True, "at": NOW - 11}}}
    assert (await world.ask("PUT", "/devices/posture", json=reports(old), role="feed")).status == 200
    assert world.devices.devices["L-1"].posture == {"disk_encrypted": Fact(False, "other", NOW - 10)}


@pytest.mark.parametrize(
    ("item", "field"),
    [
        pytest.param(
            {"device": "L-1", "facts": {"edr_running": {"value": True, "source": "mdm"}}},
            "facts.edr_running.source",
            id="as another feed",
        ),
        pytest.param(
            {"device": "L-1", "facts": {"edr_running": True}, "source": "mdm"}, "source", id="as a whole"
        ),
        pytest.param(
            {"device": "L-1", "facts": {"edr_running": {"value": True, "at": NOW + 301}}},
            "facts.edr_running.at",
            id="the future",
        ),
        pytest.param({"device": "L-1", "facts": {"owner": "mallory"}}, "facts.owner", id="no fact"),
        pytest.param({"device": "L-1", "facts": {"edr_running": 1}}, "facts.edr_running", id="a number"),
        pytest.param({"device": "L-1", "status": "approved", "facts": {}}, "status", id="a status"),
        pytest.param({"facts": {}}, "device", id="of nothing"),
    ],
)
async def test_what_a_feed_may_not_say(world: World, item: dict[str, Any], field: str) -> None:
    world.devices.devices |= {id: Device(id, revision=1) for id in ("L-1", "L-2")}
    await world.feed()
    before = world.effects()
    good = {"device": "L-2", "facts": {"edr_running": True}}
    answer = await world.ask("PUT", "/devices/posture", json=reports(good, item), role="feed")
    assert (answer.status, answer.kind) == (400, "invalid")
    assert [(one["place"], one["field"]) for one in answer.json["mistakes"]] == [("item 2", field)]
    assert world.effects() == before


async def test_a_fact_a_little_ahead(world: World) -> None:
    world.devices.devices["L-1"] = Device("L-1", revision=1)
    await world.feed()
    ahead = {"device": "L-1", "facts": {"edr_running": {"value": True, "at": NOW + 299}}}
    assert (await world.ask("PUT", "/devices/posture", json=reports(ahead), role="feed")).status == 200


async def test_unknown_devices_are_named_up_to_a_bound(world: World) -> None:
    await world.feed()
    many = reports(*({"device": f"D-{number}", "facts": {}} for number in range(MOST_UNKNOWN + 5)))
    answer = await world.ask("PUT", "/devices/posture", json=many, role="feed")
    assert (len(answer.json["unknown"]), answer.json["more"]) == (MOST_UNKNOWN, 5)
    assert answer.json["devices"] == 0


async def test_a_feed_does_nothing_else(world: World) -> None:
    await world.feed("jamf")
    who = await world.ask("GET", "/whoami", role="feed")
    assert (who.json["name"], who.json["role"]) == ("jamf", "feed")
    before = world.effects()
    for method, path, body in [
        ("GET", "/sessions", None),
        ("GET", "/locks", None),
        ("GET", "/devices", None),
        ("GET", "/openapi.json", None),
        ("GET", "/tokens", None),
        ("POST", "/explain", {"url": "https://app.test/"}),
        ("POST", "/revocations", {"target": {"kind": "all"}}),
        ("POST", "/tokens", {"name": "x", "role": "feed"}),
        ("POST", "/console-links", {}),
        ("POST", "/reload", {}),
    ]:
        answer = await world.ask(method, path, json=body, role="feed")
        assert (answer.status, answer.kind) == (403, "forbidden"), path
    assert world.effects() == before


async def test_an_admin_makes_feeds(world: World) -> None:
    made = await world.ask("POST", "/tokens", json={"name": "jamf", "role": "feed"}, role="admin")
    assert made.json["token"]["role"] == "feed"
    refused = await world.ask("POST", "/tokens", json={"name": "kandji", "role": "feed"}, role="operator")
    assert refused.status == 403


async def test_a_feed_may_ask_so_often(world: World) -> None:
    await world.feed()
    statuses = [
        (await world.ask("PUT", "/devices/posture", json=reports(), role="feed")).status
        for _ in range(int(2 * PER_SECOND["feed"]) + 2)
    ]
    assert statuses == [200] * int(2 * PER_SECOND["feed"]) + [429] * 2
    assert (await world.ask("GET", "/devices")).status == 200, "others go on"
