"""The audit log around every write, and the same request sent again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core.words import ISSUER, NOW
from tests.surfaces.admin.world import Answer, World
from ztproxy.core.device import Device
from ztproxy.core.locks import Action, Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError, WorldError
from ztproxy.gateway.ports.administration import Role

ALICE = {"kind": "user", "name": "alice", "issuer": ISSUER}
WRITES = [
    pytest.param(
        "POST", "/revocations", {"target": ALICE}, "revocation.create", "user:alice", id="revocation"
    ),
    pytest.param("DELETE", "/sessions/s1", None, "session.revoke", "session:s1", id="session"),
    pytest.param(
        "POST", "/locks", {"target": ALICE, "action": "require_login"}, "lock.create", "user:alice", id="lock"
    ),
    pytest.param("DELETE", "/locks/l0", None, "lock.lift", "user:bob", id="lift"),
    pytest.param("POST", "/reload", {}, "config.reload", "configuration", id="reload"),
    pytest.param("POST", "/keys/rotate", {}, "keys.rotate", "keys", id="keys"),
    pytest.param("POST", "/tokens", {"name": "ci", "role": "viewer"}, "token.create", "token:ci", id="token"),
    pytest.param("DELETE", "/tokens/<viewer>", None, "token.revoke", "token:viewer-1", id="token taken back"),
    pytest.param("PUT", "/devices/L-2", {"name": "x"}, "device.register", "device:L-2", id="device"),
    pytest.param(
        "POST", "/devices/L-1/status", {"status": "lost"}, "device.status", "device:L-1", id="device lost"
    ),
    pytest.param("DELETE", "/devices/L-1", None, "device.remove", "device:L-1", id="device forgotten"),
    pytest.param(
        "POST", "/devices/import", {"rows": [{"id": "L-3"}]}, "devices.import", "devices", id="devices"
    ),
    pytest.param(
        "PUT",
        "/devices/posture",
        {"reports": [{"device": "L-1", "facts": {"edr_running": True}}]},
        "devices.posture",
        "posture",
        id="posture",
    ),
]


async def prepared(world: World, path: str) -> str:
    """A lock that can be lifted, a device; and the path with what it names."""
    world.devices.devices["L-1"] = Device("L-1", revision=1)
    world.log.entries["l0"] = Lock(
        "l0", Target(TargetKind.USER, "bob", ISSUER), Action.REQUIRE_LOGIN, made_at=NOW
    )
    viewer = next(token.id for token in world.tokens.tokens.values() if token.role == "viewer")
    return path.replace("<viewer>", viewer)


@pytest.mark.parametrize(("method", "path", "body", "action", "target"), WRITES)
async def test_every_write_is_on_record(
    world: World, method: str, path: str, body: Any, action: str, target: str
) -> None:
    """A25: who, what, at what, under which request; before the effect, and after it before the answer."""
    path = await prepared(world, path)
    before = world.effects()
    answer = await world.ask(method, path, json=body, role="admin")
    assert answer.status == 200
    assert answer.json["audit"] == "written"
    assert world.outcomes == [(action, "intent", target), (action, "done", target)]
    saw = [(outcome, then == before) for outcome, then in world.audit.saw]
    assert saw == [("intent", True), ("done", False)]
    for event, late in world.audit.events:
        assert (event.actor, event.request_id, late) == ("admin-1", answer.headers["x-request-id"], False)


@pytest.mark.parametrize(("method", "path", "body", "action", "target"), WRITES)
@pytest.mark.parametrize("key", [[], [("Idempotency-Key", "k1")]], ids=["", "with a key"])
async def test_the_disk_is_full(
    world: World, method: str, path: str, body: Any, action: str, target: str, key: list[tuple[str, str]]
) -> None:
    """A27."""
    path = await prepared(world, path)
    before = world.effects()
    world.audit.full = True
    answer = await world.ask(method, path, *key, json=body, role="admin")
    assert (answer.status, answer.kind, answer.headers["retry-after"]) == (503, "audit_unavailable", "1")
    assert world.effects() == before
    assert (world.audit.events, world.audit.waiting) == ([], [])
    assert (await world.ask("GET", "/sessions", role="admin")).status == 200, "reading goes on"
    world.audit.full = False
    assert (await world.ask(method, path, *key, json=body, role="admin")).status == 200


@pytest.mark.parametrize("role", ["operator", "admin"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/revocations", {"target": ALICE}, id="revocation"),
        pytest.param("/locks", {"target": ALICE, "action": "deny", "expires_in": 60}, id="lock"),
    ],
)
async def test_an_emergency(world: World, role: Role, path: str, body: dict[str, Any]) -> None:
    world.audit.full = True
    answer = await world.ask("POST", path, json={**body, "emergency": True}, role=role)
    assert (answer.status, answer.json["audit"]) == (200, "late")
    assert len(world.log.entries) == 1
    assert [(event.outcome, event.actor) for event in world.audit.waiting] == [
        ("intent", f"{role}-1"),
        ("done", f"{role}-1"),
    ]
    assert world.audit.waiting[0].detail["emergency"] is True
    world.audit.full = False
    await world.audit.flush()
    assert [late for _, late in world.audit.events] == [True, True]


async def test_an_emergency_with_room_is_written_at_once(world: World) -> None:
    answer = await world.ask("POST", "/revocations", json={"target": ALICE, "emergency": True})
    assert (answer.json["audit"], [late for _, late in world.audit.events]) == ("written", [False, False])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/reload", {"emergency": True}, id="reload"),
        pytest.param("/keys/rotate", {"emergency": True}, id="keys"),
        pytest.param("/tokens", {"name": "x", "role": "admin", "emergency": True}, id="tokens"),
    ],
)
async def test_other_things_are_no_emergency(world: World, path: str, body: Any) -> None:
    world.audit.full = True
    answer = await world.ask("POST", path, json=body, role="admin")
    assert (answer.status, answer.field) == (400, "emergency")


async def test_a_viewer_has_no_emergencies(world: World) -> None:
    answer = await world.ask("POST", "/revocations", json={"target": ALICE, "emergency": True}, role="viewer")
    assert answer.status == 403
    assert world.log.entries == {}


async def test_the_disk_fills_in_between(world: World) -> None:
    """What is done is answered as done, and its record is not lost."""
    world.log.meanwhile = lambda: setattr(world.audit, "full", True)
    answer = await world.ask("POST", "/revocations", json={"target": ALICE})
    assert (answer.status, answer.json["audit"]) == (200, "late")
    assert [event.outcome for event in world.audit.waiting] == ["done"]


async def test_a_refusal_that_cannot_be_put_on_record_is_still_one(world: World) -> None:
    world.audit.full = True
    answer = await world.ask("POST", "/revocations", json={"target": {"kind": "all"}})
    assert (answer.status, answer.kind) == (403, "forbidden")
    assert world.audit.waiting == [], "refusals would fill the memory"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        pytest.param(
            OperatorError("`/etc/ztproxy.yaml` is bad"), 409, "conflict", id="what the operator wrote"
        ),
        pytest.param(WorldError(Reason.INTERNAL, "supervisor: away"), 503, "unavailable", id="the world"),
        pytest.param(RuntimeError("hunter2"), 500, "internal", id="a mistake of ours"),
    ],
)
@pytest.mark.parametrize("path", ["/reload", "/keys/rotate"])
async def test_a_failure_is_on_record(
    world: World, error: Exception, status: int, kind: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.raises = error
    answer = await world.ask("POST", path, json={}, role="admin")
    assert (answer.status, answer.kind) == (status, kind)
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "failed"]
    assert world.audit.events[-1][0].detail == {"problem": kind}
    for secret in (b"hunter2", b"/etc", b"supervisor"):
        assert secret not in answer.body
    assert str(error) in caplog.text


async def test_a_revoker_that_breaks_is_never_a_200(world: World) -> None:
    world.log.raises = RuntimeError("boom")
    answer = await world.ask("POST", "/revocations", ("Idempotency-Key", "k"), json={"target": ALICE})
    assert (answer.status, answer.kind) == (500, "internal")
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "failed"]
    world.log.raises = None
    assert (
        await world.ask("POST", "/revocations", ("Idempotency-Key", "k"), json={"target": ALICE})
    ).status == 200


# ── the same request again ──


async def revoke(world: World, key: str, target: Any = ALICE, role: Role = "operator") -> Answer:
    return await world.ask(
        "POST", "/revocations", ("Idempotency-Key", key), json={"target": target}, role=role
    )


async def test_the_same_key_is_the_same_answer(world: World) -> None:
    first = await revoke(world, "k1")
    again = await revoke(world, "k1")
    assert first.status == again.status == 200
    assert first.body == again.body
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert len(world.log.entries) == 1
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "done"]


async def test_without_a_key_each_is_another(world: World) -> None:
    for _ in range(2):
        await world.ask("POST", "/revocations", json={"target": ALICE})
    assert len(world.log.entries) == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", "/revocations", {"target": {**ALICE, "name": "bob"}}, id="another body"),
        pytest.param("POST", "/locks", {"target": ALICE, "action": "require_login"}, id="another path"),
        pytest.param("DELETE", "/sessions/s1", None, id="another method"),
    ],
)
async def test_a_key_is_for_one_question(world: World, method: str, path: str, body: Any) -> None:
    await revoke(world, "k1")
    answer = await world.ask(method, path, ("Idempotency-Key", "k1"), json=body)
    assert (answer.status, answer.kind, answer.field) == (422, "idempotency_mismatch", "Idempotency-Key")
    assert len(world.log.entries) == 1
    assert world.outcomes[-1][1] == "refused"


async def test_a_key_is_its_actors_own(world: World) -> None:
    first = await revoke(world, "k1")
    other = await revoke(world, "k1", role="admin")
    assert first.json["id"] != other.json["id"]
    assert "idempotency-replayed" not in other.headers


async def test_while_the_first_is_under_way(world: World) -> None:
    world.log.go_on.clear()
    first = asyncio.ensure_future(revoke(world, "k1"))
    await world.log.begun.wait()
    answer = await revoke(world, "k1")
    assert (answer.status, answer.kind, answer.headers["retry-after"]) == (409, "idempotency_pending", "1")
    world.log.go_on.set()
    assert (await first).status == 200
    assert len(world.log.entries) == 1


async def test_a_retry_after_a_crash_is_the_same_lock(world: World) -> None:
    first = await revoke(world, "k1")
    world.repeats.kept.clear()
    again = await revoke(world, "k1")
    assert again.json["id"] == first.json["id"]
    assert len(world.log.entries) == 1
    assert "idempotency-replayed" not in again.headers


async def test_after_a_day_a_key_is_a_new_one(world: World) -> None:
    """Else the second revocation would be answered with the first, and do nothing."""
    first = await revoke(world, "every-evening")
    world.clock.now += 86_400
    second = await revoke(world, "every-evening")
    assert second.json["id"] != first.json["id"]
    assert len(world.log.entries) == 2


@pytest.mark.parametrize("text", ["", "a b", "x" * 129, "\x7f", "\xe9"])
async def test_keys_that_are_none(world: World, text: str) -> None:
    token = ("Authorization", f"Bearer {world.secrets['operator']}")
    fields = [("Host", "localhost"), token, ("Idempotency-Key", text)]
    answer = await world.raw("DELETE /api/v1/sessions/s1 HTTP/1.1", fields)
    assert answer.status == 400
    if text != "\x7f":  # what HTTP itself does not allow is answered before us
        assert answer.field == "Idempotency-Key"
    assert world.log.entries == {}


async def test_two_keys(world: World) -> None:
    keys = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await world.ask("DELETE", "/sessions/s1", *keys)
    assert (answer.status, answer.field) == (400, "Idempotency-Key")


async def test_a_key_when_only_looking_means_nothing(world: World) -> None:
    assert (await world.ask("GET", "/whoami", ("Idempotency-Key", "k"))).status == 200
    assert world.repeats.kept == {}


async def test_what_cannot_be_accepted_leaves_no_trace_under_its_key(world: World) -> None:
    answer = await world.ask("POST", "/revocations", ("Idempotency-Key", "k1"), json={"target": 1})
    assert answer.status == 400
    assert world.repeats.kept == {}
    assert (await revoke(world, "k1")).status == 200


async def test_repeats_are_not_known(world: World) -> None:
    world.repeats.away = True
    answer = await revoke(world, "k1")
    assert (answer.status, answer.kind) == (503, "not_applied")
    assert world.log.entries == {}


async def test_repeats_forget_in_between(world: World) -> None:
    world.log.meanwhile = lambda: setattr(world.repeats, "away", True)
    assert (await revoke(world, "k1")).status == 200


async def test_a_key_that_is_free_again_does_not_name_the_first_lock(world: World) -> None:
    """An unconfirmed answer frees the key; another question under it must not be taken for the first."""
    world.log.confirmed = False
    assert (await revoke(world, "k1")).kind == "applied_unconfirmed"
    world.log.confirmed = True
    assert (await revoke(world, "k1", {**ALICE, "name": "bob"})).status == 200
    names = [entry.target.name for entry in world.log.entries.values() if isinstance(entry, Lock)]
    assert names == ["alice", "bob"]
