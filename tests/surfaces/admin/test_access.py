"""Who asks: tokens and certificates in the one place where they count, and how often."""

from __future__ import annotations

import hashlib
import logging
import ssl
from pathlib import Path

import pytest
import trustme

from tests.surfaces.admin.world import LIFE, ROLES, World, serving
from ztproxy.gateway.ports.administration import Role
from ztproxy.surfaces.admin.access import PER_SECOND, UNKNOWN_PER_SECOND, network

STRANGER = "ztp_" + "A" * 43


@pytest.mark.parametrize("role", ROLES)
async def test_a_token(world: World, role: Role) -> None:
    answer = await world.ask("GET", "/whoami", role=role)
    assert answer.status == 200
    assert answer.json == {
        "name": f"{role}-1",
        "role": role,
        "by": "token",
        "expires_at": "2025-07-15T15:06:40Z",
    }


async def test_no_credential(world: World) -> None:
    answer = await world.ask("GET", "/whoami", role=None)
    assert (answer.status, answer.kind) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="ztproxy admin"'


@pytest.mark.parametrize(
    "path", ["/whoami", "/sessions/x", "/nothing", "/openapi.json", "/../../etc/passwd", "/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD", "PROPFIND"])
async def test_nobody_learns_what_there_is(world: World, method: str, path: str) -> None:
    answer = await world.raw(f"{method} /api/v1{path} HTTP/1.1", [("Host", "localhost")])
    assert answer.status == 401


@pytest.mark.parametrize(
    "credential",
    [
        pytest.param("Bearer {}x", id="longer"),
        pytest.param("Bearer  {}", id="two spaces (A05)"),
        pytest.param("Bearer\t{}", id="a tab"),
        pytest.param("Bearer {} x", id="two words"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Bearer " + STRANGER, id="unknown"),
        pytest.param("Basic {}", id="another scheme"),
        pytest.param("{}", id="no scheme"),
        pytest.param("Bearer {}, Bearer {}", id="two in one"),
        pytest.param("Bearer ztp_*", id="a pattern"),
        pytest.param("Bearer ztp_" + "a" * 5000, id="huge"),
        pytest.param("Bearer ztp_\xe9", id="not ASCII"),
    ],
)
async def test_what_is_no_token(world: World, credential: str) -> None:
    secret = world.secrets["admin"]
    answer = await world.ask(
        "GET", "/whoami", ("Authorization", credential.format(secret, secret)), role=None
    )
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert secret.encode() not in answer.body


async def test_a_token_in_part_or_in_another_case(world: World) -> None:
    secret = world.secrets["admin"]
    for wrong in (secret[:-1], secret.swapcase(), "ztp_" + secret[4:].swapcase(), secret[4:]):
        answer = await world.ask("GET", "/whoami", ("Authorization", f"Bearer {wrong}"), role=None)
        assert answer.status == 401


async def test_the_scheme_is_in_any_case(world: World) -> None:
    answer = await world.ask(
        "GET", "/whoami", ("Authorization", f"bEARER {world.secrets['viewer']}"), role=None
    )
    assert answer.status == 200


async def test_expired(world: World) -> None:
    world.clock.now += LIFE
    assert (await world.ask("GET", "/whoami")).status == 401


async def test_revoked(world: World) -> None:
    assert (await world.ask("GET", "/whoami")).status == 200, "so it is known"
    (token,) = [one for one in await world.tokens.all() if one.role == "operator"]
    await world.tokens.revoke(token.id)
    assert (await world.ask("GET", "/whoami")).status == 401


async def test_two_credentials_are_none(world: World) -> None:
    for second in (world.secrets["admin"], world.secrets["operator"]):
        answer = await world.ask("GET", "/whoami", ("Authorization", f"Bearer {second}"))
        assert (answer.status, answer.field) == (400, "Authorization")


@pytest.mark.parametrize(
    ("path", "header", "body"),
    [
        pytest.param("?access_token={}", None, b"", id="query"),
        pytest.param("?token={}", None, b"", id="query, by another name"),
        pytest.param("", ("Cookie", "token={}; access_token={}; __Host-ztproxy={}"), b"", id="cookie"),
        pytest.param("", ("X-Api-Key", "{}"), b"", id="another field"),
        pytest.param("", ("Proxy-Authorization", "Bearer {}"), b"", id="the field for proxies"),
        pytest.param(
            "", ("Content-Type", "application/x-www-form-urlencoded"), b"access_token={}", id="body"
        ),
        pytest.param("", ("Content-Type", "application/json"), b'{{"access_token":"{}"}}', id="JSON"),
    ],
)
async def test_a_token_elsewhere(
    world: World, caplog: pytest.LogCaptureFixture, path: str, header: tuple[str, str] | None, body: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = world.secrets["admin"]
    fields = [] if header is None else [(header[0], header[1].replace("{}", secret))]
    method = "POST" if body else "GET"
    sent = body.decode().replace("{{", "{").replace("}}", "}").replace("{}", secret).encode()
    answer = await world.ask(method, "/sessions" + path.format(secret), *fields, role=None, body=sent)
    assert answer.status == 401
    assert secret not in caplog.text
    assert secret.encode() not in answer.body


async def test_a_token_in_the_query_beside_a_good_one(world: World) -> None:
    secret = world.secrets["admin"]
    answer = await world.ask("GET", f"/sessions?access_token={secret}")
    assert (answer.status, answer.field) == (400, "access_token")
    assert secret.encode() not in answer.body


async def test_the_store_is_away(world: World) -> None:
    world.tokens.away = True
    answer = await world.ask("GET", "/whoami")
    assert (answer.status, answer.kind, answer.headers["retry-after"]) == (503, "unavailable", "1")
    answer = await world.ask("POST", "/revocations", json={"target": {"kind": "all"}}, role="admin")
    assert (answer.status, answer.kind) == (503, "not_applied")
    assert world.log.entries == {}


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_may_ask_so_often(world: World, role: Role) -> None:
    for _ in range(int(2 * PER_SECOND[role])):
        assert (await world.ask("GET", "/whoami", role=role)).status == 200
    answer = await world.ask("GET", "/whoami", role=role)
    assert (answer.status, answer.kind, answer.headers["retry-after"]) == (429, "rate_limited", "1")
    for other in set(ROLES) - {role}:
        assert (await world.ask("GET", "/whoami", role=other)).status == 200
    world.ticks.now += 1 / PER_SECOND[role]
    assert (await world.ask("GET", "/whoami", role=role)).status == 200


async def test_looking_too_often_does_not_keep_from_revoking(world: World) -> None:
    for _ in range(int(2 * PER_SECOND["operator"]) + 1):
        last = await world.ask("GET", "/whoami")
    assert last.status == 429
    revocation = {"target": {"kind": "session", "name": "s"}}
    assert (await world.ask("POST", "/revocations", json=revocation)).status == 200


async def test_a_thousand_revocations_at_once(world: World) -> None:
    """A21."""
    statuses = [
        (await world.ask("POST", "/revocations", json={"target": {"kind": "session", "name": "s"}})).status
        for _ in range(int(2 * PER_SECOND["operator"]) + 20)
    ]
    assert statuses == [200] * int(2 * PER_SECOND["operator"]) + [429] * 20
    assert len(world.log.entries) == int(2 * PER_SECOND["operator"])


async def test_writing_too_often_does_not_keep_from_shutting_out(world: World) -> None:
    """A21: an import in a loop, with the very credential that revokes."""
    for _ in range(int(2 * PER_SECOND["operator"]) + 1):
        last = await world.ask("PUT", "/devices/laptop-1", json={"oops": 1})
    assert (last.status, last.headers["retry-after"]) == (429, "1")
    assert (await world.ask("PUT", "/devices/x/nothing", json={})).status == 429
    revocation = {"target": {"kind": "session", "name": "s"}}
    assert (await world.ask("POST", "/revocations", json=revocation)).status == 200
    assert (await world.ask("POST", "/locks", json={**revocation, "action": "require_login"})).status == 200
    assert (await world.ask("DELETE", "/sessions/abc")).status == 200
    assert (await world.ask("POST", "/devices/laptop-1/status", json={"status": "lost"})).status in (200, 404)


async def test_what_is_not_there_is_counted_too(world: World) -> None:
    for _ in range(int(2 * PER_SECOND["operator"])):
        assert (await world.ask("GET", "/nothing")).status == 404
    assert (await world.ask("GET", "/nothing")).status == 429


async def test_guessing_is_slow_and_locks_nobody_out(world: World) -> None:
    assert (await world.ask("GET", "/whoami")).status == 200
    guesses = [
        (await world.ask("GET", "/whoami", ("Authorization", f"Bearer {STRANGER}"), role=None)).status
        for _ in range(int(10 * UNKNOWN_PER_SECOND) + 3)
    ]
    assert guesses == [401] * int(10 * UNKNOWN_PER_SECOND) + [429] * 3
    assert (await world.ask("GET", "/whoami")).status == 200, "a token that was good before"
    assert (await world.ask("GET", "/whoami", role="admin")).status == 429, "one that was not seen before"
    world.ticks.now += 1 / UNKNOWN_PER_SECOND
    assert (await world.ask("GET", "/whoami", role="admin")).status == 200


async def test_good_tokens_use_nothing_up(world: World) -> None:
    for number in range(int(10 * UNKNOWN_PER_SECOND) + 3):
        secret, _ = await world.tokens.create(f"t{number}", "viewer", 60.0, "test")
        answer = await world.ask("GET", "/whoami", ("Authorization", f"Bearer {secret}"), role=None)
        assert answer.status == 200


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, name: str | None) -> tuple[ssl.SSLContext, ssl.SSLContext, bytes]:
    """A server that asks for certificates, a client with one (or without), and that certificate in DER."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_OPTIONAL
    authority.configure_trust(server)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    if name is None:
        return server, client, b""
    leaf = authority.issue_cert(name)
    leaf.configure_cert(client)
    return server, client, ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())


@pytest.mark.parametrize("role", ROLES)
async def test_a_certificate(authority: trustme.CA, role: Role) -> None:
    server, client, der = contexts(authority, "carol@example.com")
    async with serving(World(tls=client, certificates={der: role}), server) as world:
        answer = await world.ask("GET", "/whoami", role=None)
        name = f"certificate:{hashlib.sha256(der).hexdigest()}"
        assert answer.json == {"name": name, "role": role, "by": "certificate", "expires_at": None}
        answer = await world.ask("POST", "/revocations", role=None, json={"target": {"kind": "all"}})
        assert answer.status == (200 if role == "admin" else 403)


@pytest.mark.parametrize("name", [None, "mallory@example.com"])
async def test_no_certificate_or_one_without_a_role(authority: trustme.CA, name: str | None) -> None:
    server, client, _ = contexts(authority, name)
    async with serving(World(tls=client), server) as world:
        assert (await world.ask("GET", "/whoami", role=None)).status == 401
        assert (await world.ask("GET", "/whoami")).status == 200, "a token is as good there"


async def test_a_bad_token_does_not_fall_back_on_a_certificate(authority: trustme.CA) -> None:
    server, client, der = contexts(authority, "carol@example.com")
    async with serving(World(tls=client, certificates={der: "admin"}), server) as world:
        for credential in (f"Bearer {STRANGER}", "Basic eA=="):
            answer = await world.ask("GET", "/whoami", ("Authorization", credential), role=None)
            assert answer.status == 401
        assert (await world.ask("GET", "/whoami")).json["role"] == "operator"


@pytest.mark.parametrize(
    ("remote", "other", "same"),
    [
        pytest.param("10.0.0.1", "10.0.0.1", True, id="an address"),
        pytest.param("10.0.0.1", "10.0.0.2", False, id="two addresses"),
        pytest.param("2001:db8::1", "2001:db8::ffff", True, id="one host has a /64 of IPv6 to itself"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two hosts"),
        pytest.param("", None, True, id="unix sockets have no address"),
    ],
)
def test_whom_failures_are_counted_for(remote: str, other: str | None, same: bool) -> None:
    assert (network(remote) == network(other)) is same


async def test_a_unix_socket(tmp_path: Path) -> None:
    async with serving(World(), unix=str(tmp_path / "admin.sock")) as world:
        assert (await world.ask("GET", "/whoami", role=None)).status == 401
        assert (await world.ask("GET", "/whoami", host="anything.test")).status == 200
        assert (await world.raw("GET /api/v1/whoami HTTP/1.1", [])).status == 400
        two = [("Host", "localhost"), ("Host", "another")]
        assert (await world.raw("GET /api/v1/whoami HTTP/1.1", two)).status == 400
        assert (await world.raw("GET /api/v1/whoami HTTP/1.0", [])).field == "Host"
        answer = await world.ask("GET", "/whoami", ("Origin", "https://evil.test"))
        assert answer.kind == "cross_site"
