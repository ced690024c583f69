"""Tokens for the API itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.words import NOW
from tests.surfaces.admin.world import World
from ztproxy.gateway.ports.administration import TOKEN_SECONDS, Role
from ztproxy.surfaces.admin.times import MAX_SECONDS


async def test_a_new_token(world: World) -> None:
    made = await world.ask(
        "POST", "/tokens", json={"name": "ci", "role": "operator", "expires_in": 60}, role="admin"
    )
    secret, token = made.json["secret"], made.json["token"]
    assert (token["name"], token["role"], token["created_by"]) == ("ci", "operator", "admin-1")
    assert token["expires_at"] == "2025-06-15T15:07:40Z"
    bearer = ("Authorization", f"Bearer {secret}")
    assert (await world.ask("GET", "/whoami", bearer, role=None)).json["name"] == "ci"
    world.clock.now += 60
    assert (await world.ask("GET", "/whoami", bearer, role=None)).status == 401


async def test_a_secret_is_shown_once(world: World) -> None:
    body, key = {"name": "ci", "role": "viewer"}, ("Idempotency-Key", "k1")
    made = await world.ask("POST", "/tokens", key, json=body, role="admin")
    again = await world.ask("POST", "/tokens", key, json=body, role="admin")
    assert again.status == 200
    assert again.json == {name: value for name, value in made.json.items() if name != "secret"}
    secret = made.json["secret"]
    assert secret not in repr(world.repeats.kept)
    assert secret not in repr(world.audit.events)
    listed = await world.ask("GET", "/tokens", role="admin")
    assert secret.encode() not in listed.body
    assert [one["name"] for one in listed.json["tokens"]].count("ci") == 1


@pytest.mark.parametrize(
    ("more", "end"),
    [
        pytest.param({}, NOW + TOKEN_SECONDS, id="90 days"),
        pytest.param({"expires_in": MAX_SECONDS}, NOW + MAX_SECONDS, id="at most"),
        pytest.param({"until": "2025-06-15T15:07:40Z"}, NOW + 60, id="until"),
    ],
)
async def test_its_end(world: World, more: dict[str, Any], end: float) -> None:
    world.clock.now = NOW
    assert (
        await world.ask("POST", "/tokens", json={"name": "x", "role": "viewer", **more}, role="admin")
    ).status == 200
    token = next(one for one in world.tokens.tokens.values() if one.name == "x")
    assert token.expires_at == pytest.approx(end)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({"role": "viewer"}, "name", id="no name"),
        pytest.param({"name": "", "role": "viewer"}, "name", id="an empty name"),
        pytest.param({"name": "provider:main", "role": "viewer"}, "name", id="a provider's name"),
        pytest.param({"name": "certificate:00", "role": "viewer"}, "name", id="a certificate's"),
        pytest.param({"name": "a b", "role": "viewer"}, "name", id="two words"),
        pytest.param({"name": "x" * 65, "role": "viewer"}, "name", id="a long name"),
        pytest.param({"name": "x"}, "role", id="no role"),
        pytest.param({"name": "x", "role": "root"}, "role", id="no such role"),
        pytest.param({"name": "x", "role": "viewer", "created_by": "y"}, "created_by", id="an author"),
        pytest.param({"name": "x", "role": "viewer", "secret": "ztp_x"}, "secret", id="a secret"),
        pytest.param({"name": "x", "role": "viewer", "expires": "9999"}, "expires", id="expires (A15)"),
        pytest.param(
            {"name": "x", "role": "viewer", "expires_in": MAX_SECONDS + 1}, "expires_in", id="too long"
        ),
        pytest.param({"name": "x", "role": "viewer", "expires_in": 1e300}, "expires_in", id="for ever"),
    ],
)
async def test_tokens_that_cannot_be_made(world: World, body: Any, field: str) -> None:
    answer = await world.ask("POST", "/tokens", json=body, role="admin")
    assert (answer.status, answer.kind, answer.field) == (400, "invalid", field)
    assert len(world.tokens.tokens) == 3


async def test_a_name_is_taken(world: World) -> None:
    answer = await world.ask("POST", "/tokens", json={"name": "operator-1", "role": "viewer"}, role="admin")
    assert (answer.status, answer.kind) == (409, "conflict")
    assert len(world.tokens.tokens) == 3


async def test_revoking(world: World) -> None:
    (token,) = [one for one in await world.tokens.all() if one.role == "operator"]
    assert (await world.ask("GET", "/whoami")).status == 200
    answer = await world.ask("DELETE", f"/tokens/{token.id}", role="admin")
    assert (answer.status, answer.json["id"]) == (200, token.id)
    assert (await world.ask("GET", "/whoami")).status == 401
    assert (await world.ask("DELETE", f"/tokens/{token.id}", role="admin")).status == 404


@pytest.mark.parametrize("role", ["viewer", "operator"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", "/tokens", None, id="list"),
        pytest.param(
            "POST", "/tokens", {"name": "x", "role": "admin"}, id="a role of one's own making (A15)"
        ),
        pytest.param("DELETE", "/tokens/x", None, id="revoke"),
        pytest.param("POST", "/reload", {}, id="reload (A07)"),
        pytest.param("POST", "/keys/rotate", {}, id="keys"),
    ],
)
async def test_for_admins_alone(world: World, role: Role, method: str, path: str, body: Any) -> None:
    before = dict(world.tokens.tokens)
    answer = await world.ask(method, path, json=body, role=role)
    assert (answer.status, answer.kind) == (403, "forbidden")
    assert (world.tokens.tokens, world.reloads) == (before, 0)
