"""The lists of sessions: who is in them, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.core.words import ISSUER
from tests.surfaces.admin.world import World


async def subjects(world: World, **query: Any) -> list[str]:
    answer = await world.ask("GET", f"/sessions?{urlencode(query)}", role="viewer")
    assert answer.status == 200
    return [one["user"]["subject"] for one in answer.json["sessions"]]


@pytest.fixture
async def crowd(world: World) -> World:
    await world.sign_in("alice", email="Alice@example.com", groups=("staff",), idp_session="sid-1")
    await world.sign_in("bob", name="Bob the *", groups=("staff", "ops"), provider="other")
    await world.sign_in("alice", device="d1", idp_session="sid-2")
    return world


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param({}, ["alice", "bob", "alice"], id="all, newest first"),
        pytest.param({"kind": "user", "name": "alice", "issuer": ISSUER}, ["alice", "alice"], id="a person"),
        pytest.param(
            {"kind": "user", "name": "alice", "issuer": "https://other.test"}, [], id="of another issuer"
        ),
        pytest.param({"kind": "user", "name": "ALICE", "issuer": ISSUER}, [], id="in another case"),
        pytest.param({"kind": "user", "name": "*", "issuer": ISSUER}, [], id="a pattern (A17)"),
        pytest.param({"kind": "user", "name": "[a-z]*", "issuer": ISSUER}, [], id="another"),
        pytest.param({"kind": "user", "name": "ali", "issuer": ISSUER}, [], id="a part"),
        pytest.param({"kind": "group", "name": "staff"}, ["bob", "alice"], id="a group"),
        pytest.param({"kind": "device", "name": "d1"}, ["alice"], id="a device"),
        pytest.param({"kind": "idp_session", "name": "sid-1", "issuer": ISSUER}, ["alice"], id="a sid"),
        pytest.param({"kind": "all"}, ["alice", "bob", "alice"], id="everybody"),
        pytest.param({"provider": "other"}, ["bob"], id="a provider"),
        pytest.param({"provider": "oth*"}, [], id="a pattern of one"),
        pytest.param({"text": "EXAMPLE"}, ["alice"], id="a part of an e-mail"),
        pytest.param({"text": "the *"}, ["bob"], id="a part of a name, to the letter"),
        pytest.param({"text": "b", "kind": "group", "name": "ops"}, ["bob"], id="both must fit"),
        pytest.param({"text": "return redis.call('FLUSHALL')"}, [], id="a script"),
        pytest.param({"limit": 1}, ["alice"], id="one"),
    ],
)
async def test_filters(crowd: World, query: Mapping[str, Any], found: list[str]) -> None:
    assert await subjects(crowd, **query) == found


async def test_pages(world: World) -> None:
    people = [f"p{number:02}" for number in range(7)]
    for one in people:
        await world.sign_in(one, provider="main")
    found, cursor = [], ""
    while True:
        query = urlencode({"limit": 3, "provider": "main"} | ({"cursor": cursor} if cursor else {}))
        answer = (await world.ask("GET", f"/sessions?{query}")).json
        found += [one["user"]["subject"] for one in answer["sessions"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert found == people[::-1]


@pytest.mark.parametrize("change", ["x", "", "another question"])
async def test_forged_cursors(world: World, change: str) -> None:
    for one in ("a", "b", "c"):
        await world.sign_in(one)
    cursor = (await world.ask("GET", "/sessions?limit=1")).json["next"]
    filter = "&provider=main" if change == "another question" else ""
    forged = cursor if filter else f"{cursor[:-1]}{change}"
    answer = await world.ask("GET", f"/sessions?limit=1&cursor={forged}{filter}")
    assert (answer.status, answer.kind, answer.field) == (400, "invalid", "cursor")


async def test_one_session(world: World) -> None:
    session = await world.sign_in(
        "alice", email="alice@example.com", groups=("staff",), amr=("pwd", "otp"), rank=2
    )
    answer = await world.ask("GET", f"/sessions/{session}", role="viewer")
    shown = answer.json
    assert shown["id"] == session
    assert shown["user"] == {
        "issuer": ISSUER,
        "subject": "alice",
        "email": "alice@example.com",
        "name": None,
        "username": None,
        "groups": ["staff"],
    }
    assert (shown["created_at"], shown["amr"], shown["rank"]) == ("2025-06-15T15:06:40Z", ["pwd", "otp"], 2)


async def test_nothing_shown_lets_anybody_in(world: World) -> None:
    session = await world.sign_in("alice", refreshable=True)
    handles = world.state.sessions[session].handles
    for path in ("/sessions", f"/sessions/{session}"):
        body = (await world.ask("GET", path, role="admin")).body.decode()
        assert "refresh-secret" not in body
        assert not any(handle in body for handle in handles)


@pytest.mark.parametrize("name", ["nobody", "*", "s%2F..", "'; DROP TABLE"])
async def test_no_such_session(world: World, name: str) -> None:
    await world.sign_in()
    answer = await world.ask("GET", f"/sessions/{name.replace(' ', '%20')}")
    assert (answer.status, answer.kind) == (404, "not_found")


async def test_the_store_is_away(world: World) -> None:
    world.state.away = True
    for path in ("/sessions", "/sessions/s1"):
        answer = await world.ask("GET", path)
        assert (answer.status, answer.kind, answer.headers["retry-after"]) == (503, "unavailable", "1")
