"""The process of the admin API, whole: a real store, real keys and files, its own socket."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from redis.asyncio import Redis

from tests.adapters.state_worlds import ALICE, LIMITS, SECRETS
from tests.worlds.running import running
from ztproxy.adapters.jwt import AssertionJWTs
from ztproxy.adapters.keys import KeyRing, fresh_keys, write_private
from ztproxy.adapters.local_token import FILE
from ztproxy.adapters.metrics import Metrics
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.redis_tokens import RedisTokens
from ztproxy.adapters.sealing import Sealer
from ztproxy.app.administrator import Administrator
from ztproxy.config import parse
from ztproxy.errors import OperatorError


def config(directory: Path, state_url: str, admin: str, more: str = "") -> bytes:
    return f"""
listen: {{address: "127.0.0.1:0", tls: false}}
provider: {{issuer: https://op.test, client_id: us, client_secret: secret}}
state: {state_url}
state_dir: {directory}
keys_file: keys.yaml
admin: {admin}
log: {{access: off, decisions: off}}
routes:
  - {{from: https://app.test, name: app, to: http://127.0.0.1:1, allow_any_authenticated_user: true}}
  - from: https://gone.test
    name: moved
    redirect: {{location: https://app.test}}
    policy: [{{name: all, allow: {{public: true}}}}]
  - from: https://admin.test
    name: console
    to: http://127.0.0.1:9901
    policy: [{{name: staff, allow: {{group: staff}}}}]
{more}
""".encode()


@dataclass
class Office:
    administrator: Administrator
    directory: Path
    file: Path
    http: aiohttp.ClientSession
    private: Path

    async def ask(self, method: str, path: str, body: Any = None, **fields: str) -> tuple[int, Any, Any]:
        token = (self.directory / FILE).read_text().strip()
        fields = {"Authorization": f"Bearer {token}"} | fields
        if method in ("POST", "PUT"):
            fields |= {"Content-Type": "application/json"}
        url = f"http://localhost/api/v1{path}"
        data = None if body is None else json.dumps(body)
        async with self.http.request(method, url, data=data, headers=fields) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers


@asynccontextmanager
async def office(
    directory: Path, state_url: str, *, admin: str = "", more: str = ""
) -> AsyncIterator[Office]:
    directory.mkdir(exist_ok=True)  # noqa: ASYNC240  a directory of a test
    write_private(directory / "keys.yaml", fresh_keys())
    file, private = directory / "ztproxy.yaml", directory / "private"
    private.mkdir()
    file.write_bytes(config(directory, state_url, admin or f"unix:{directory}/admin.sock", more))
    settings = parse(file.read_bytes(), file, {})
    administrator = Administrator(settings, file, state_url, Metrics(), private, supervised=False)
    await administrator.start()
    assert settings.admin is not None
    connector = aiohttp.UnixConnector(str(settings.admin.address.path))
    async with aiohttp.ClientSession(connector=connector) as http:
        try:
            yield Office(administrator, directory, file, http, private)
        finally:
            await administrator.close()


async def test_the_socket_and_the_token_are_for_one_user(tmp_path: Path, valkey_url: str) -> None:
    async with office(tmp_path, valkey_url):
        for name in ("admin.sock", FILE):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not (tmp_path / FILE).exists()


async def test_how_revocation_stands(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    async with office(tmp_path, valkey_url) as it:
        assert (await it.ask("GET", "/whoami"))[2]["Ztproxy-Revocation"] == "bounded"  # not known yet
        assert await it.administrator.beat() == ""
        status, body, fields = await it.ask("GET", "/revocation")
        assert status == 200 and fields["Ztproxy-Revocation"] == "strict"
        shown = body["revocation"]
        assert (shown["promise"], shown["topology"], shown["number"]) == ("strict", "standalone", 0)
        assert shown["workers"] == []
    audit = (tmp_path / "audit.log").exists()
    assert not audit  # nobody changed anything


async def test_a_revocation_reaches_a_worker(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    async with running(tmp_path, valkey_url) as worker, office(tmp_path / "office", valkey_url) as it:
        alice = worker.browser()
        assert (await alice.open("https://app.test/x")).status == 200
        assert (await it.ask("GET", "/sessions"))[1]["sessions"] == []  # other keys open none of its seals
        status, body, _ = await it.ask("POST", "/revocations", {"target": {"kind": "all"}, "reason": "test"})
        assert (status, body["confirmed"], body["number"]) == (200, True, 1)


ROUTES = {"app": "https://app.test/", "moved": "https://gone.test/", "console": "https://admin.test/"}


async def test_routes_and_what_would_be_decided(tmp_path: Path, valkey_url: str) -> None:
    async with office(tmp_path, valkey_url) as it:
        _, body, _ = await it.ask("GET", "/routes")
        assert {one["name"]: one["from"] for one in body["routes"]} == ROUTES
        question = {"url": "https://admin.test/", "user": "eve@corp.test", "groups": ["guests"]}
        _, body, _ = await it.ask("POST", "/explain", question)
        assert body["explanation"]["decision"] == "deny" and body["explanation"]["route"] == "console"
        target = {"kind": "route", "name": "console"}
        lock = {"target": target, "action": "deny", "expires_in": 60, "message": "closed for an hour"}
        assert (await it.ask("POST", "/locks", lock))[0] == 200
        await it.ask("GET", "/locks")
        _, body, _ = await it.ask("POST", "/explain", question | {"groups": ["staff"]})
        assert body["explanation"]["reasons"] == ["locked"]


async def test_devices(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    """Registered, reported on with a fact of the operator's own, and lost, in the store that workers read."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    more = """
  - from: https://safe.test
    name: safe
    to: http://127.0.0.1:1
    policy: [{allow: {email: a@corp.test, device: {approved: true, posture: {fido_key: true}}}}]
trusted_proxies: [127.0.0.1]
devices:
  authorities: [{name: corp, ca_file: ca.pem}]
  certificates_from_proxies: client-cert
  facts: {fido_key: boolean}
"""
    question = {"url": "https://safe.test/", "user": "a@corp.test", "device": "L-1"}
    async with office(tmp_path, valkey_url, more=more) as it:
        assert (await it.ask("PUT", "/devices/L-1", {"status": "approved"}))[1]["outcome"] == "created"
        report = {"reports": [{"device": "L-1", "facts": {"fido_key": True}}]}
        assert (await it.ask("PUT", "/devices/posture", report))[1]["devices"] == 1
        _, body, _ = await it.ask("POST", "/explain", question)
        assert body["explanation"]["decision"] == "forward"
        status, body, _ = await it.ask("POST", "/devices/L-1/status", {"status": "lost"})
        assert (status, body["ended"]["confirmed"]) == (200, True)
        _, body, _ = await it.ask("GET", "/locks")
        assert body["locks"][0]["target"] == {"kind": "device", "name": "L-1", "issuer": ""}
        _, body, _ = await it.ask("POST", "/explain", question)
        assert body["explanation"]["reasons"] == ["device_lost"]


async def test_recent_decisions_are_those_of_all_workers(tmp_path: Path, valkey_url: str) -> None:
    async with office(tmp_path, valkey_url) as it:
        for place, times in (("worker-0", "13"), ("worker-1", "24")):
            lines = [json.dumps({"time": time, "path": f"/{time}"}) for time in times]
            (it.private / f"{place}.recent").write_text("\n".join(lines) + "\n")
        _, body, _ = await it.ask("GET", "/decisions?limit=3")
        assert [one["path"] for one in body["decisions"]] == ["/4", "/3", "/2"]


async def test_a_reload(tmp_path: Path, valkey_url: str) -> None:
    async with office(tmp_path, valkey_url) as it:
        before = it.file.read_bytes()
        it.file.write_bytes(before.replace(b"name: app", b"name: renamed"))
        assert (await it.ask("POST", "/reload"))[0] == 200
        _, body, _ = await it.ask("GET", "/routes")
        assert "renamed" in {one["name"] for one in body["routes"]}
        for wrong in (b"routes: nonsense", before + b"workers: 7\n"):
            it.file.write_bytes(wrong)
            status, problem, _ = await it.ask("POST", "/reload")
            assert status == 409 and str(tmp_path) not in json.dumps(problem)
            with pytest.raises(OperatorError):
                it.administrator.reload()
        _, body, _ = await it.ask("GET", "/routes")
        assert "renamed" in {one["name"] for one in body["routes"]}


async def test_a_supervisor_that_is_gone_is_not_signalled(tmp_path: Path, valkey_url: str) -> None:
    async with office(tmp_path, valkey_url) as it:
        it.administrator._supervisor = os.getpid()  # whoever our parent is, it is not ourselves
        it.file.write_bytes(it.file.read_bytes().replace(b"name: app", b"name: renamed"))
        status, body, _ = await it.ask("POST", "/reload")
        assert status == 200 and "no supervisor" in body["result"]
        assert "renamed" in {one["name"] for one in (await it.ask("GET", "/routes"))[1]["routes"]}


async def test_a_rotation_seals_what_may_outlive_its_key(
    tmp_path: Path, valkey_url: str, state_client: Redis
) -> None:
    async with office(tmp_path, valkey_url) as it:
        lock = {"target": {"kind": "route", "name": "app"}, "action": "deny", "expires_in": 3600}
        assert (await it.ask("POST", "/locks", lock))[0] == 200
        sealed, ring = await state_client.hvals("{ztp}:held_text"), KeyRing.load(tmp_path / "keys.yaml")
        status, body, _ = await it.ask("POST", "/keys/rotate")
        after = KeyRing.load(tmp_path / "keys.yaml")
        assert status == 200 and after.records[0] == ring.records[-1]
        assert body["keys"]["assertion_keys"] == [key.kid for key in after.assertions]
        assert await it.administrator.beat() == ""
        assert await state_client.hvals("{ztp}:held_text") != sealed
        assert [one["target"]["name"] for one in (await it.ask("GET", "/locks"))[1]["locks"]] == ["app"]


async def test_what_is_sealed_after_rotations_is_read_too(
    tmp_path: Path, valkey_url: str, state_client: Redis
) -> None:
    async with office(tmp_path, valkey_url) as it:
        for _ in range(4):  # a ring knows one key in advance; more than that must be told
            assert (await it.ask("POST", "/keys/rotate"))[0] == 200
        sealer = Sealer(KeyRing.load(tmp_path / "keys.yaml").records)
        await RedisSessions(state_client, sealer, LIMITS).create(ALICE, SECRETS, "app.test", None)
        _, body, _ = await it.ask("GET", "/sessions")
        assert [one["user"]["email"] for one in body["sessions"]] == ["alice@example.com"]
        status, made, _ = await it.ask("POST", "/tokens", {"name": "ci", "role": "viewer"})
        assert status == 200 and await RedisTokens(state_client, sealer, time.time).find(made["secret"])


async def test_a_store_that_is_away(tmp_path: Path) -> None:
    away = f"unix://{tmp_path}/nobody.sock"
    async with office(tmp_path, away) as it:
        assert await it.administrator.beat() != ""
        status, body, _ = await it.ask("POST", "/revocations", {"target": {"kind": "all"}})
        assert status == 503 and body["type"].endswith("not_applied")
        assert (await it.ask("GET", "/whoami"))[0] == 200


# -- the console by way of ztproxy itself -----------------------------------------------------------------

PEOPLE = "{listen: 127.0.0.1:0, console: {route: console, admin: {groups: [staff]}}}"


def claims(**changes: Any) -> dict[str, Any]:
    usual = {
        "iss": "https://admin.test",
        "aud": "https://admin.test",
        "sub": "alice",
        "sid": "s1",
        "idp": "https://op.test",
        "iat": int(time.time()),
        "exp": int(time.time()) + 300,
        "groups": ["staff"],
        "email": "alice@corp.test",
    }
    return usual | changes


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        pytest.param({}, True, id="a person"),
        pytest.param({"email": 7, "groups": "staff"}, True, id="without address and groups"),
        pytest.param({"aud": "https://app.test"}, False, id="of another app"),
        pytest.param({"exp": 1_700_000_000}, False, id="expired"),
        pytest.param({"sub": None}, False, id="of nobody"),
    ],
)
async def test_whom_an_assertion_names(
    tmp_path: Path, valkey_url: str, changes: dict[str, Any], known: bool
) -> None:
    write_private(tmp_path / "keys.yaml", fresh_keys())
    file = tmp_path / "ztproxy.yaml"
    file.write_bytes(config(tmp_path, valkey_url, PEOPLE))
    settings = parse(file.read_bytes(), file, {})
    administrator = Administrator(settings, file, valkey_url, Metrics(), None, supervised=False)
    try:
        ring = KeyRing.load(tmp_path / "keys.yaml")
        token = AssertionJWTs(ring.assertions).sign(claims(**changes))
        person = administrator._person(token)
        assert (person is not None) is known
        if person is not None:
            assert (person.subject, person.site) == ("alice", "https://admin.test")
            assert person.groups == (("staff",) if not changes else ())
        assert administrator._person(token + "x") is None
    finally:
        await administrator.close()
