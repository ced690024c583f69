"""Revocations and locks: 200 means that it holds; all else says what it means."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.core.words import ISSUER, NOW
from tests.surfaces.admin.world import World
from ztproxy.core.locks import Action, Lift, Lock, Target, TargetKind
from ztproxy.surfaces.admin.targets import PAGE
from ztproxy.surfaces.admin.times import MAX_SECONDS

ALICE = {"kind": "user", "name": "alice", "issuer": ISSUER}
TARGETS = [
    pytest.param({"kind": "session", "name": "<id>"}, 1, True, id="session"),
    pytest.param(ALICE, 2, True, id="user"),
    pytest.param({"kind": "idp_session", "name": "sid-1", "issuer": ISSUER}, 1, True, id="idp_session"),
    pytest.param({"kind": "device", "name": "d1"}, 1, True, id="device"),
    pytest.param({"kind": "group", "name": "staff"}, 2, True, id="group"),
    pytest.param({"kind": "route", "name": "app"}, 3, False, id="route"),
    pytest.param({"kind": "all"}, 3, False, id="all"),
]


async def crowd(world: World) -> str:
    first = await world.sign_in("alice", idp_session="sid-1", groups=("staff",))
    await world.sign_in("alice", device="d1")
    await world.sign_in("bob", groups=("staff",))
    return first


def the_lock(world: World) -> Lock:
    (entry,) = world.log.entries.values()
    assert isinstance(entry, Lock)
    return entry


async def settled(world: World) -> None:
    """Housekeeping is over."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("target", "number", "exact"), TARGETS)
async def test_every_target(world: World, target: dict[str, str], number: int, exact: bool) -> None:
    first = await crowd(world)
    target = {name: value.replace("<id>", first) for name, value in target.items()}
    body = {"target": target, "reason": "stolen laptop"}

    dry = await world.ask("POST", "/revocations", json={**body, "dry_run": True}, role="admin")
    assert (dry.json["dry_run"], dry.json["matched"], dry.json["exact"]) == (True, number, exact)
    assert (world.log.entries, world.outcomes) == ({}, [])
    assert len(world.state.sessions) == 3

    done = await world.ask("POST", "/revocations", json=body, role="admin")
    lock = the_lock(world)
    assert done.json == {
        "id": lock.id,
        "number": 1,
        "confirmed": True,
        "topology": "strict",
        "matched": number,
        "exact": exact,
        "seconds": 0.012,
        "audit": "written",
        "dry_run": False,
    }
    assert lock.target == Target(TargetKind(target["kind"]), target.get("name", ""), target.get("issuer", ""))
    assert (lock.action, lock.until, lock.created_by) == (Action.DENY, None, "admin-1")
    assert (lock.reason, lock.message) == ("stolen laptop", "")
    await settled(world)
    kept = 3 if target["kind"] in ("route", "group") else 3 - number
    assert len(world.state.sessions) == kept
    assert world.state.cleared == ([] if target["kind"] == "route" else [replace(lock, made_at=0.0)])


async def test_one_session(world: World) -> None:
    first = await crowd(world)
    answer = await world.ask("DELETE", f"/sessions/{first}?reason=left%20the%20company")
    assert (answer.status, answer.json["matched"]) == (200, 1)
    assert the_lock(world).target == Target(TargetKind.SESSION, first)
    assert the_lock(world).reason == "left the company"
    await settled(world)
    assert first not in world.state.sessions


@pytest.mark.parametrize(
    "name", ["nobody", "*", "[a-z]*", "ztp:s:*", "return redis.call('FLUSHALL')", "a b", "ünï", "../all"]
)
async def test_whoever_is_not_there_is_revoked_all_the_same(world: World, name: str) -> None:
    """A17, A18."""
    await crowd(world)
    for target in ({"kind": "session", "name": name}, {"kind": "user", "name": name, "issuer": ISSUER}):
        answer = await world.ask("POST", "/revocations", json={"target": target})
        assert (answer.status, answer.json["matched"], answer.json["exact"]) == (200, 0, True)
    assert [entry.target.name for entry in world.log.entries.values() if isinstance(entry, Lock)] == [
        name
    ] * 2
    await settled(world)
    assert len(world.state.sessions) == 3


async def test_an_unknown_session_by_its_address(world: World) -> None:
    answer = await world.ask("DELETE", "/sessions/nobody")
    assert (answer.status, answer.json["matched"]) == (200, 0)
    assert the_lock(world).target.name == "nobody"


@pytest.mark.parametrize("kind", ["route", "all"])
@pytest.mark.parametrize("path", ["/revocations", "/locks"])
@pytest.mark.parametrize("more", [{}, {"dry_run": True}, {"emergency": True}])
async def test_everybody_is_for_admins(world: World, kind: str, path: str, more: dict[str, Any]) -> None:
    target = {"kind": "all"} if kind == "all" else {"kind": "route", "name": "app"}
    if path == "/locks":
        more = {"action": "deny", "expires_in": 60, **{k: v for k, v in more.items() if k != "dry_run"}}
    answer = await world.ask("POST", path, json={"target": target, **more})
    assert (answer.status, answer.kind) == (403, "forbidden")
    assert world.log.entries == {}


@pytest.mark.parametrize("strict", [True, False])
async def test_the_promise_is_told(world: World, strict: bool) -> None:
    world.log.strict = strict
    answer = await world.ask("POST", "/revocations", json={"target": ALICE})
    promise = "strict" if strict else "bounded"
    assert answer.json["topology"] == answer.headers["ztproxy-revocation"] == promise


async def test_the_store_is_away(world: World) -> None:
    """A22."""
    first = await crowd(world)
    world.log.away = world.state.away = True
    for method, path, body in (
        ("POST", "/revocations", {"target": ALICE}),
        ("POST", "/locks", {"target": ALICE, "action": "require_login"}),
        ("DELETE", f"/sessions/{first}", None),
        ("DELETE", "/locks/l1", None),
    ):
        answer = await world.ask(method, path, json=body)
        assert (answer.status, answer.kind, answer.headers["retry-after"]) == (503, "not_applied", "1")
    assert world.log.entries == {}
    assert len(world.state.sessions) == 3
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "failed"] * 3 + ["refused"]


async def test_unconfirmed(world: World) -> None:
    first = await crowd(world)
    world.log.confirmed = False
    body, key = {"target": ALICE}, ("Idempotency-Key", "k1")
    for _ in range(2):
        answer = await world.ask("POST", "/revocations", key, json=body)
        assert (answer.status, answer.kind) == (503, "applied_unconfirmed")
        assert answer.headers["retry-after"] == "1"
        lock = the_lock(world)
        assert (answer.json["id"], answer.json["number"], answer.json["topology"]) == (lock.id, 1, "strict")
    await settled(world)
    assert first in world.state.sessions, "nothing is tidied away before it is sure"
    world.log.confirmed = True
    answer = await world.ask("POST", "/revocations", key, json=body)
    assert (answer.status, answer.json["id"]) == (200, lock.id)
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "unconfirmed"] * 2 + ["intent", "done"]


async def test_a_count_that_fails_holds_nothing_up(world: World) -> None:
    await crowd(world)
    world.state.away = True
    answer = await world.ask("POST", "/revocations", json={"target": ALICE})
    assert (answer.status, answer.json["matched"], answer.json["exact"]) == (200, None, False)
    await settled(world)
    assert len(world.state.sessions) == 3, "their records stay until they expire"


async def test_a_search_that_takes_long_is_not_waited_for(world: World) -> None:
    for number in range(5 * PAGE):
        await world.sign_in(f"p{number}", groups=("staff",))
    body = {"target": {"kind": "group", "name": "staff"}}
    answer = await world.ask("POST", "/revocations", json=body)
    assert (answer.json["matched"], answer.json["exact"]) == (5 * PAGE, True)
    world.state.page_seconds = 0.4
    answer = await world.ask("POST", "/revocations", json=body)
    assert (answer.json["matched"], answer.json["exact"]) == (3 * PAGE, False)


async def test_housekeeping_is_not_waited_for(world: World) -> None:
    first = await crowd(world)
    world.state.clearing.clear()
    assert (await world.ask("DELETE", f"/sessions/{first}")).status == 200
    assert first in world.state.sessions
    world.state.clearing.set()
    await settled(world)
    assert first not in world.state.sessions


@pytest.mark.parametrize(
    ("more", "until"),
    [
        pytest.param({"action": "deny", "expires_in": 60}, NOW + 60, id="a while"),
        pytest.param({"action": "deny", "expires_in": 0.5}, NOW + 0.5, id="a moment"),
        pytest.param({"action": "deny", "until": "2025-06-15T15:07:40Z"}, NOW + 60, id="until"),
        pytest.param({"action": "deny", "until": "2025-06-15T17:07:40+02:00"}, NOW + 60, id="with an offset"),
        pytest.param({"action": "deny", "expires_in": MAX_SECONDS}, NOW + MAX_SECONDS, id="400 days"),
        pytest.param({"action": "require_login"}, None, id="sign in once more"),
        pytest.param({"action": "require_step_up", "expires_in": 60}, NOW + 60, id="step up"),
    ],
)
async def test_a_lock(world: World, more: dict[str, Any], until: float | None) -> None:
    first = await crowd(world)
    answer = await world.ask("POST", "/locks", json={"target": ALICE, "message": "Call us.", **more})
    assert (answer.status, answer.json["matched"]) == (200, 2)
    lock = the_lock(world)
    assert (lock.action, lock.until, lock.message) == (Action(more["action"]), until, "Call us.")
    await settled(world)
    assert first in world.state.sessions, "a lock ends no session"

    (shown,) = (await world.ask("GET", "/locks", role="viewer")).json["locks"]
    assert shown == (await world.ask("GET", f"/locks/{lock.id}", role="viewer")).json
    assert shown["target"] == ALICE
    assert (shown["action"], shown["revokes"], shown["number"]) == (more["action"], False, 1)
    assert (shown["until"] is None) == (until is None)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        pytest.param({"action": "deny"}, "until", id="a deny without an end"),
        pytest.param({"action": "deny", "expires_in": 0}, "expires_in", id="no time"),
        pytest.param({"action": "deny", "expires_in": -1}, "expires_in", id="the past"),
        pytest.param({"action": "deny", "expires_in": MAX_SECONDS + 1}, "expires_in", id="too long"),
        pytest.param({"action": "deny", "expires_in": "60"}, "expires_in", id="a text"),
        pytest.param({"action": "deny", "expires_in": True}, "expires_in", id="true"),
        pytest.param({"action": "deny", "expires_in": None}, "expires_in", id="null"),
        pytest.param({"action": "deny", "until": "9999"}, "until", id="9999 (A15)"),
        pytest.param({"action": "deny", "until": "9999-12-31T23:59:59Z"}, "until", id="the end of time"),
        pytest.param({"action": "deny", "until": "2025-06-15T15:06:40Z"}, "until", id="now"),
        pytest.param(
            {"action": "deny", "until": "0001-01-01T00:00:00Z"}, "until", id="the beginning of time"
        ),
        pytest.param({"action": "deny", "until": "2025-06-15T15:07:40"}, "until", id="no zone"),
        pytest.param({"action": "deny", "until": 1750000060}, "until", id="a number"),
        pytest.param(
            {"action": "deny", "until": "2025-06-15T15:07:40Z", "expires_in": 60}, "expires_in", id="both"
        ),
        pytest.param({"action": "allow", "expires_in": 60}, "action", id="no such action"),
        pytest.param({"expires_in": 60}, "action", id="no action"),
        pytest.param({"action": "deny", "expires_in": 60, "dry_run": True}, "dry_run", id="a dry run"),
        pytest.param({"action": "deny", "expires_in": 60, "number": 1}, "number", id="a number"),
    ],
)
async def test_locks_that_cannot_be_made(world: World, more: dict[str, Any], field: str) -> None:
    answer = await world.ask("POST", "/locks", json={"target": ALICE, **more})
    assert (answer.status, answer.kind, answer.field) == (400, "invalid", field)
    assert world.log.entries == {}


async def test_lifting(world: World) -> None:
    body = {"target": ALICE, "action": "deny", "expires_in": 60}
    lock = (await world.ask("POST", "/locks", json=body)).json["id"]
    answer = await world.ask("DELETE", f"/locks/{lock}?reason=a%20mistake")
    assert (answer.status, answer.json["confirmed"]) == (200, True)
    lift = world.log.entries[answer.json["id"]]
    assert lift == Lift(lift.id, lock, "operator-1", "a mistake", NOW, 2)
    assert (await world.ask("GET", f"/locks/{lock}")).status == 404
    assert (await world.ask("DELETE", f"/locks/{lock}")).status == 404
    event = next(event for event, _ in world.audit.events if event.action == "lock.lift")
    assert event.detail["before"]["until"] == NOW + 60  # type: ignore[index,call-overload]


async def test_a_lift_that_not_everybody_heard_of(world: World) -> None:
    lock = (await world.ask("POST", "/locks", json={"target": ALICE, "action": "require_login"})).json["id"]
    world.log.confirmed = False
    answer = await world.ask("DELETE", f"/locks/{lock}")
    assert (answer.status, answer.json["confirmed"]) == (200, False)
    assert world.outcomes[-1] == ("lock.lift", "unconfirmed", "user:alice")


async def test_a_certificate_that_outlives_a_revocation_needs_a_lock_with_an_end(world: World) -> None:
    target = {"kind": "user", "name": "spiffe://corp.test/ci", "issuer": "spiffe://corp.test"}
    refused = await world.ask("POST", "/revocations", json={"target": target}, role="operator")
    assert refused.status == 400 and "lock with an end" in refused.json["detail"] and not world.log.entries
    lock = {"target": target, "action": "deny", "expires_in": 60}
    assert (await world.ask("POST", "/locks", json=lock, role="operator")).status == 200


async def test_what_was_revoked_stays_revoked(world: World) -> None:
    lock = (await world.ask("POST", "/revocations", json={"target": ALICE})).json["id"]
    answer = await world.ask("DELETE", f"/locks/{lock}")
    assert (answer.status, answer.kind) == (409, "conflict")
    assert len(world.log.entries) == 1


async def test_an_operator_does_not_lift_what_is_for_admins(world: World) -> None:
    body = {"target": {"kind": "all"}, "action": "deny", "expires_in": 60}
    lock = (await world.ask("POST", "/locks", json=body, role="admin")).json["id"]
    assert (await world.ask("DELETE", f"/locks/{lock}")).status == 403
    assert len(world.log.entries) == 1
    assert (await world.ask("DELETE", f"/locks/{lock}", role="admin")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", "/revocations", {"target": ALICE}, id="revoking"),
        pytest.param("POST", "/revocations", {"target": ALICE, "dry_run": True}, id="counting"),
        pytest.param("POST", "/locks", {"target": ALICE, "action": "require_login"}, id="locking"),
        pytest.param("DELETE", "/sessions/<id>", None, id="ending a session"),
        pytest.param("DELETE", "/locks/l1", None, id="lifting"),
    ],
)
async def test_a_viewer_only_looks(world: World, method: str, path: str, body: Any) -> None:
    first = await crowd(world)
    answer = await world.ask(method, path.replace("<id>", first), json=body, role="viewer")
    assert (answer.status, answer.kind) == (403, "forbidden")
    assert world.log.entries == {}
    assert [outcome for _, outcome, _ in world.outcomes] == ["refused"]


async def test_newest_locks_first(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.ask("POST", "/revocations", json={"target": {"kind": "session", "name": name}})
    shown = (await world.ask("GET", "/locks")).json["locks"]
    assert [(one["target"]["name"], one["revokes"]) for one in shown] == [
        ("c", True),
        ("b", True),
        ("a", True),
    ]
    oldest = shown[-1]
    assert (await world.ask("GET", f"/locks/{oldest['id']}")).json == oldest
