"""What runs here and how it stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.core.words import NOW
from tests.surfaces.admin.world import World, serving
from ztproxy.core.device import Device
from ztproxy.errors import OperatorError


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/routes", {"routes": [{"name": "app", "origin": "https://app.test"}]}),
        ("/revocation", {"revocation": {"number": 0, "topology": {"kind": "standalone"}}}),
        ("/decisions", {"decisions": [{"route": "app", "decision": "deny"}]}),
        ("/decisions?limit=1", {"decisions": [{"route": "app", "decision": "deny"}]}),
    ],
)
async def test_looking(world: World, path: str, said: Any) -> None:
    answer = await world.ask("GET", path, role="viewer")
    assert (answer.status, answer.json) == (200, said)
    assert world.audit.events == []


async def test_decisions_that_are_not_kept() -> None:
    world = World()
    world.desk = replace(world.desk, decisions=None)
    async with serving(world):
        answer = await world.ask("GET", "/decisions")
        assert (answer.status, answer.kind) == (404, "not_found")


async def test_explaining_somebody(world: World) -> None:
    body = {
        "url": "https://app.test/x",
        "method": "post",
        "user": "alice@example.com",
        "groups": ["staff"],
        "claims": {"a": {"b": [1, None, "x"]}},
        "amr": ["otp"],
        "address": "10.0.0.1",
        "age": 60,
        "at": "2026-01-01T00:00:00Z",
    }
    answer = await world.ask("POST", "/explain", json=body, role="viewer")
    assert answer.json == {"explanation": {"decision": "deny", "reasons": ["group_missing"]}}
    (question,) = world.questions
    assert (question.url, question.method, question.user) == (
        "https://app.test/x",
        "post",
        "alice@example.com",
    )
    assert (question.groups, question.amr, question.claims) == (
        ("staff",),
        ("otp",),
        {"a": {"b": [1, None, "x"]}},
    )
    assert (question.address, question.age, question.now, question.session) == (
        "10.0.0.1",
        60,
        1767225600,
        None,
    )
    assert world.audit.events == []


async def test_explaining_a_session(world: World) -> None:
    session = await world.sign_in("alice")
    await world.ask("POST", "/explain", json={"url": "https://app.test/", "session": session})
    assert world.questions[0].session == world.state.sessions[session].session
    assert world.questions[0].now == NOW


async def test_explaining_a_device(world: World) -> None:
    world.devices.devices |= {id: Device(id, revision=1) for id in ("L-1", "L-2")}
    bound = await world.sign_in("alice", device="L-1", certificate="thumbprint")
    strange = await world.sign_in("bob", device="gone", certificate="thumbprint")
    for body, device in [
        ({"user": "alice@example.com", "device": "L-2"}, "L-2"),
        ({"session": bound}, "L-1"),
        ({"session": bound, "device": "L-2"}, "L-2"),
        ({"session": strange}, None),
    ]:
        await world.ask("POST", "/explain", json={"url": "https://app.test/", **body})
        found = world.questions[-1].device
        assert (found and found.id) == device


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        pytest.param({"url": "https://app.test/", "device": "L-9"}, 404, "device", id="an unknown device"),
        pytest.param({}, 400, "url", id="what"),
        pytest.param(
            {"url": "https://app.test/", "session": "nobody"}, 404, "session", id="an unknown session"
        ),
        pytest.param({"url": "https://app.test/", "session": "s", "user": "a"}, 400, "user", id="two people"),
        pytest.param({"url": "https://app.test/", "address": "10.1"}, 400, "address", id="no address"),
        pytest.param({"url": "https://app.test/", "method": "GET /"}, 400, "method", id="no method"),
        pytest.param({"url": "https://app.test/", "age": -1}, 400, "age", id="signed in tomorrow"),
        pytest.param({"url": "https://app.test/", "claims": []}, 400, "claims", id="no claims"),
        pytest.param(
            {"url": "https://app.test/", "groups": ["a", 1]}, 400, "groups[1]", id="a group of a number"
        ),
    ],
)
async def test_questions_that_cannot_be_answered(world: World, body: Any, status: int, field: str) -> None:
    answer = await world.ask("POST", "/explain", json=body)
    assert (answer.status, answer.field) == (status, field)
    assert world.questions == []


async def test_a_question_that_is_not_understood(world: World) -> None:
    world.raises = OperatorError("`x` is not a URL", "write it like `https://app.example.com/path`")
    answer = await world.ask("POST", "/explain", json={"url": "x"})
    assert answer.status == 400
    assert answer.json["detail"] == "`x` is not a URL, write it like `https://app.example.com/path`"


async def test_reload_and_rotate(world: World) -> None:
    answer = await world.ask("POST", "/reload", json={}, role="admin")
    assert answer.json == {"result": "loaded", "audit": "written"}
    answer = await world.ask("POST", "/keys/rotate", json={}, role="admin")
    assert answer.json == {"keys": {"signing": "key-2"}, "audit": "written"}
