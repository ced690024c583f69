"""Running it: health, metrics, logs, reloads, a late state, and the end.

Two houses: one that runs through the module, and one that begins without its state and ends in mid-download.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.house import House, house
from tests.stories.talking import PATIENCE, until
from tests.wire.recording import Line
from tests.wire.world import world
from ztproxy.adapters.embedded_valkey import EmbeddedValkey

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("operations"), valkey_url) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    return home.sign_in("alice")


# -- health and metrics -----------------------------------------------------------------------------------


def test_health(home: House) -> None:
    def checks() -> dict[str, str]:
        told: dict[str, str] = json.loads(home.operations("/readyz").body)["checks"]
        return told

    assert (home.operations("/livez").status, home.operations("/livez").body) == (200, b"ok\n")
    until(lambda: home.operations("/readyz").status == 200)
    until(lambda: "administrator" in checks() and checks()["administrator"] == "ready")
    promise = checks().pop("revocation")
    assert checks() == {"worker 0": "ready", "administrator": "ready", "revocation": promise}
    assert promise == "strict: every write is on disk before it is answered"
    assert home.operations("/u").status == 404
    # Never on a data listener: there the path is an app's, and judged.
    assert home.get("/livez").status == 401
    assert home.get("/metrics").status == 401


def test_metrics(home: House, alice: str) -> None:
    def count(**labels: str) -> float:
        return home.metric("ztproxy_requests_total", route="app", **labels)

    for path, cookie, status in (
        ("/u", alice, 200),
        ("/public/x", "", 200),
        ("/admin", alice, 403),
        ("/u", "", 401),
    ):
        assert home.get(path, cookie).status == status
    until(lambda: count(decision="deny", status="4xx") == 1 and count(decision="login", status="4xx") >= 1)
    assert count(decision="forward", status="2xx") >= 2
    assert home.metric("ztproxy_request_seconds_count", route="app") == count()
    assert home.metric("ztproxy_logins_total", provider="demo", outcome="ok") == 1
    assert home.metric("ztproxy_state_up") == 1
    text = home.operations("/metrics").body.decode()
    assert "app.test" not in text and "alice" not in text, "a label that a client can choose, or a person"
    assert "# HELP ztproxy_requests_total " in text and "# TYPE ztproxy_request_seconds histogram" in text


# -- logs -------------------------------------------------------------------------------------------------


def test_the_two_logs(home: House, alice: str) -> None:
    agent = "story/1"
    fields = f"User-Agent: {agent}\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n"
    assert home.get("/u?token=a-secret-of-the-app", alice, fields=fields).status == 200
    assert home.get("/admin/%61", alice, fields=fields).status == 403
    until(lambda: home.log("access").count(agent) == 2 and home.log("decisions").count(TRACE) == 2)
    passed, denied = (line for line in home.records("access") if line.get("user_agent") == agent)
    sent = re.search(rb"X-Request-Id: (\w+)", home.app.requests[-1])
    assert sent is not None
    assert passed["request_id"] == sent[1].decode()
    expected = {
        "log": "access",
        "client": "127.0.0.1",
        "method": "GET",
        "host": "app.test",
        "path": "/u",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 2,
        "route": "app",
        "decision": "forward",
        "upstream": f"127.0.0.1:{home.app.port}",
        "user_agent": agent,
        "trace_id": TRACE,
    }
    assert {name: passed[name] for name in expected} == expected
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z", passed["time"])
    assert passed["duration_ms"] > 0 and passed["user"] and passed["session"]
    assert (denied["path"], denied["status"], denied["decision"]) == ("/admin/a", 403, "deny")
    assert "upstream" not in denied

    decisions = [line for line in home.records("decisions") if line.get("trace_id") == TRACE]
    assert [line["decision"] for line in decisions] == ["forward", "deny"]
    assert decisions[1]["reasons"][0] == "path_mismatch" and "group_missing" in decisions[1]["reasons"]
    assert {line["session"] for line in decisions} == {passed["session"]}
    assert [line["request_id"] for line in decisions] == [passed["request_id"], denied["request_id"]]


def test_nothing_secret_is_written_down(home: House, alice: str) -> None:
    """S22. Every house ends with the same search; here it is shown that there is something to be found."""
    home.get(
        "/u?code=code-in-a-query-0123456789", alice, fields="Authorization: Bearer token-0123456789abcdef\r\n"
    )
    home.get("/.ztproxy/callback/demo?code=stolen-code-0123456789&state=stolen-state-0123456789", alice)
    home.get("/u", f"{alice[:-4]}AAAA")
    home.get(f"/{'x' * 9000}", alice)
    until(lambda: home.log("access").count("/.ztproxy/callback/demo") >= 2)
    home.seen("code-in-a-query-0123456789", "token-0123456789abcdef")
    home.seen("stolen-code-0123456789", "stolen-state-0123456789", alice.partition("=")[2])
    assert len(home.secrets) >= 8
    kinds = {"cookie": "v1.", "token": "eyJ"}
    for kind, start in kinds.items():
        assert any(secret.startswith(start) for secret in home.secrets), f"no {kind} was collected"
    assert home.leaks(home.operations("/metrics").body.decode()) == []
    assert b"code-in-a-query" in home.app.received, "the app's own query is its own business, and passed on"


def test_the_files_are_private_and_reopened(home: House, alice: str) -> None:
    for name in ("access", "decisions"):
        assert (home.directory / f"{name}.log").stat().st_mode & 0o007 == 0
    moved = home.directory / "access.log.1"
    (home.directory / "access.log").rename(moved)
    assert home.process is not None
    home.process.send_signal(signal.SIGUSR1)
    until(lambda: (home.directory / "access.log").exists())
    home.get("/u?after", alice)
    until(lambda: home.records("access"))
    moved.unlink()


# -- reload -----------------------------------------------------------------------------------------------

OPENED = """\
  - from: https://app.test
    path: /opened
    name: opened
    response: {body: opened}
    allow_public_unauthenticated_access: true
"""


@pytest.mark.parametrize("how", ["file", "signal", "a large file, which is read in a thread"])
def test_a_reload_changes_what_is_decided(home: House, alice: str, how: str) -> None:
    assert home.get("/opened").status == 401
    with home.wire() as kept:
        kept.send(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n").ok()
        accepted = home.metric("ztproxy_config_reloads_total", outcome="ok")
        home.write_config(routes=OPENED, settings="# large\n" * (8192 if how.startswith("a large") else 0))
        if how == "signal":
            assert home.process is not None
            home.process.send_signal(signal.SIGHUP)
        until(lambda: home.get("/opened").body == b"opened")
        # A connection from before is judged by the new rules, and nobody was signed out.
        kept.send(b"GET /opened HTTP/1.1\r\nHost: app.test\r\n\r\n")
        assert kept.until(b"opened").startswith(b"HTTP/1.1 200 ")
        assert home.get("/u", alice).status == 200
        assert home.metric("ztproxy_config_reloads_total", outcome="ok") > accepted
    home.write_config()
    until(lambda: home.get("/opened").status == 401)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param("polcy: []", ": polcy: unknown key", id="an unknown key"),
        pytest.param("drain: 5", ": drain: the key is written twice", id="a key twice"),
        pytest.param("branding: [", "ztproxy.yaml:", id="no YAML"),
        pytest.param(
            "limits: {connections: 7}",
            "`limits` has changed",
            id="what needs a restart",
        ),
    ],
)
def test_a_bad_reload_changes_nothing(home: House, alice: str, settings: str, told: str) -> None:
    def count(outcome: str) -> float:
        return home.metric("ztproxy_config_reloads_total", outcome=outcome)

    said, accepted, refused = home.log("proxy").count(told), count("ok"), count("refused")
    home.write_config(settings=settings, routes=OPENED)
    try:
        until(lambda: home.log("proxy").count(told) > said)
        assert home.get("/opened").status == 401, "part of it is in force"
        assert home.get("/u", alice).status == 200
        assert (count("ok"), count("refused")) == (accepted, refused + 1)
    finally:
        accepted = count("ok")
        home.write_config()
        until(lambda: count("ok") > accepted)


def test_a_mistake_at_the_start_is_told_before_anything_listens(home: House, tmp_path: Path) -> None:
    """FI52, with the file and the line."""
    bad = tmp_path / "ztproxy.yaml"
    bad.write_text(home.config.read_text().replace("drain: 15s", "drain: soon"))
    command = [sys.executable, "-m", "ztproxy.cli", "run", str(bad)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert re.search(r"ztproxy\.yaml:\d+: drain: ", ended.stderr) and "Traceback" not in ended.stderr


# -- the beginning and the end ----------------------------------------------------------------------------


def test_a_late_state_and_a_last_download(tmp_path: Path) -> None:
    """FI01, then the drain: one proxy, from its first moment to its last."""
    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as folder:
        state = EmbeddedValkey(Path(folder))
        url = state.url
        with house(tmp_path, url) as home:
            assert home.operations("/livez").status == 200
            until(
                lambda: (
                    home.operations("/readyz").status == 503 and b"state" in home.operations("/readyz").body
                )
            )
            assert home.get("/public/x").body == b"ok"
            forged = "__Host-ztproxy=v1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAA"
            assert home.get("/u", forged).status == 401, "a forged cookie needs no state to be refused"
            state.start()
            try:
                until(lambda: home.operations("/readyz").status == 200)
                cookie = home.sign_in("alice")
                _drains(home, cookie)
            finally:
                state.stop()


def signs_in(home: House, person: str) -> bool:
    """Whether that person can; where a lease has just lapsed on a busy machine they are told to try again."""
    try:
        return bool(home.sign_in(person))
    except AssertionError:
        return False


def test_an_embedded_state_and_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """A state of its own that dies is started again and has forgotten nobody; and FI50: nobody is left
    behind."""
    with house(tmp_path, "embedded") as home:
        cookie = home.sign_in("alice")
        assert home.process is not None
        state = home.store()
        os.kill(state, signal.SIGKILL)
        until(lambda: state not in home.children() and len(home.children()) == 3)
        assert "starting it again" in home.log("proxy")
        until(lambda: home.operations("/readyz").status == 200 and home.get("/u", cookie).status == 200)
        until(lambda: signs_in(home, "bob"))
        left = home.children()
        with home.wire() as wire:
            wire.send(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n").ok()
            home.process.kill()
            home.process.wait(20)
            assert wire.rest().data == b""
        until(lambda: not any(_lives(pid) for pid in left))
        assert not _listens(home)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nobody_notices_a_reload(home: House, alice: str) -> None:
    """FI51: requests go on, on one connection and on new ones, while the configuration changes under them."""
    get = f"GET /u HTTP/1.1\r\nHost: app.test\r\nCookie: {alice}\r\n\r\n".encode()
    accepted = home.metric("ztproxy_config_reloads_total", outcome="ok")
    reloads = 0
    with home.wire() as kept:
        while reloads < 3:
            seen = home.metric("ztproxy_config_reloads_total", outcome="ok")
            home.write_config(routes=OPENED * (1 - reloads % 2))
            while home.metric("ztproxy_config_reloads_total", outcome="ok") == seen:
                kept.send(get).ok()
                assert home.get("/u", alice).status == 200
            reloads += 1
    assert home.metric("ztproxy_config_reloads_total", outcome="ok") == accepted + reloads
    home.write_config()


def _drains(home: House, cookie: str) -> None:
    gate = home.shut_gate()

    async def play(line: Line, request: bytes) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await gate.wait()
        await line.send(b"world")

    assert home.process is not None
    (worker,) = home.workers()
    get = f"GET /u HTTP/1.1\r\nHost: app.test\r\nCookie: {cookie}\r\n\r\n".encode()
    with home.wire() as idle, home.wire() as busy:
        idle.send(get).ok()
        with home.app.playing(play):
            busy.send(get).until(b"hello")
        home.process.send_signal(signal.SIGTERM)
        until(lambda: not _listens(home))
        assert idle.rest().data == b"", "an idle connection ends at once"
        assert home.process.poll() is None
        gate.open()
        assert busy.rest() == (b"world", True, False)
    assert home.process.wait(20) == 0
    until(lambda: not os.path.exists(f"/proc/{worker}"))


async def test_the_last_answer_ends_its_connection() -> None:
    gate = asyncio.Event()

    async def play(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await gate.wait()
        await line.send(b"world")

    async with world(play) as it:
        client = await it.client()
        await client.send(b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n")
        await client.reader.readuntil(b"hello")
        it.registry.drain()
        gate.set()
        assert await client.reader.readexactly(5) == b"world"
        async with asyncio.timeout(PATIENCE):
            assert await client.reader.read() == b""


def _listens(home: House) -> bool:
    try:
        socket.create_connection(("127.0.0.1", home.ports["plain"]), 1).close()
    except OSError:
        return False
    return True
