"""What breaks around a running proxy, and what it promises then: the state, the provider, the apps, a worker.

The state is a Valkey of its own here, reached by a URL, so that it can be killed and started again on its
append-only file. Each test leaves the world whole.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stories.house import House, house
from tests.stories.talking import Heard, until
from tests.wire.recording import OK, Line
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.demo.provider import Fault
from ztproxy.demo.visitor import NAVIGATION, Page

ROUTES = """\
  - from: https://down.test
    name: down
    to: http://127.0.0.1:1
    allow_public_unauthenticated_access: true
  - from: https://slow.test
    name: slow
    to: http://127.0.0.1:$upstream
    first_byte_timeout: 300ms
    allow_public_unauthenticated_access: true
  - from: https://dead.test
    name: dead
    to: http://127.0.0.1:$upstream
    providers: dead
    allow_any_authenticated_user: true
"""
PROVIDERS = """\
  - {name: dead, issuer: "http://127.0.0.1:1", client_id: ztproxy, client_secret_file: client-secret}
"""


@pytest.fixture(scope="module")
def state() -> Iterator[EmbeddedValkey]:
    # Not in pytest's folder, whose paths are too long for a unix socket.
    with (
        tempfile.TemporaryDirectory(prefix="ztproxy-test-") as folder,
        EmbeddedValkey(Path(folder)) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, state: EmbeddedValkey) -> Iterator[House]:
    parts = {"routes": ROUTES, "providers": PROVIDERS, "route": "    providers: demo"}
    hosts = ("app.test", "dead.test")
    with house(tmp_path_factory.mktemp("faults"), state.url, parts=parts, names=hosts) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    return home.sign_in("alice")


# -- the state --------------------------------------------------------------------------------------------


def test_the_state_is_killed_and_comes_back(home: House, alice: str, state: EmbeddedValkey) -> None:
    """FI03, FI10."""
    assert home.get("/u", alice).status == 200
    assert state.pid is not None
    os.kill(state.pid, signal.SIGKILL)
    # What was read a moment ago may still be believed for less than a second.
    until(lambda: home.get("/u", alice).status == 503)
    refused = home.get("/u", alice)
    assert refused.fields("Retry-After") == ["1"]
    assert refused.fields("Set-Cookie") == []
    assert b"state_unavailable" in refused.body
    page = home.get(
        "/u", alice, fields="Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
    )
    assert (page.status, page.fields("Location"), page.fields("Set-Cookie")) == (503, [], [])
    assert home.get("/public/x").body == b"ok"
    assert home.get("/u").status == 401, "who shows no cookie needs no state to be asked to sign in"
    until(lambda: home.operations("/readyz").status == 503)
    assert home.operations("/livez").status == 200
    until(lambda: home.metric("ztproxy_state_up") == 0)

    state.start()
    until(lambda: home.get("/u", alice).status == 200)
    until(lambda: home.operations("/readyz").status == 200)


def test_a_sign_in_while_the_state_is_away(home: House, alice: str, state: EmbeddedValkey) -> None:
    state.stop()
    try:
        answer = navigate(home, "/.ztproxy/sign_in?rd=%2Fu")
        assert (answer.status, answer.fields("Location"), answer.fields("Set-Cookie")) == (503, [], [])
        assert answer.fields("Retry-After") == ["1"]
    finally:
        state.start()
    until(lambda: home.get("/u", alice).status == 200)


def navigate(home: House, path: str, cookie: str = "", host: str = "app.test") -> Heard:
    """Opens a page as a browser does, without following."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in NAVIGATION.items())
    return home.get(path, cookie, host=host, fields=fields)


# -- the provider -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param(Fault(status=500), 502, id="FI30 token endpoint down"),
        pytest.param(Fault(status=200, body="<html>", content_type="text/html"), 502, id="no JSON"),
        pytest.param(
            Fault(status=400, body='{"error": "invalid_grant"}', content_type="application/json"),
            403,
            id="refuses",
        ),
    ],
)
def test_a_sign_in_with_a_provider_out_of_order(home: House, alice: str, fault: Fault, status: int) -> None:
    home.provider.faults["token"] = fault
    try:
        page, kept = home.run(signing_in(home, "bob"))
    finally:
        del home.provider.faults["token"]
    assert (page.status, kept) == (status, ""), page
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "request" in page.text.lower()
    assert home.get("/u", alice).status == 200
    assert home.sign_in("bob"), "in order again"


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        pytest.param({"nonce": "another"}, "login_token", id="another nonce"),
        pytest.param({"aud": "somebody-else"}, "login_token", id="for somebody else"),
        pytest.param({"iss": "http://evil.test"}, "login_token", id="another issuer"),
        pytest.param({"exp": 1}, "login_token", id="long over"),
        pytest.param({"sub": ""}, "login_claims", id="nobody"),
    ],
)
def test_a_provider_that_lies(home: House, alice: str, lie: dict[str, Any], reason: str) -> None:
    def altered(claims: dict[str, Any]) -> dict[str, Any]:
        return {**claims, **lie}

    home.provider.alter_id_token = altered
    try:
        page, kept = home.run(signing_in(home, "bob"))
    finally:
        home.provider.alter_id_token = None
    assert 400 <= page.status < 500 and kept == "", page
    until(lambda: any(line["reasons"] == [reason] for line in home.records("decisions") if "reasons" in line))
    assert home.get("/u", alice).status == 200


async def signing_in(home: House, person: str) -> tuple[Page, str]:
    """The page a sign-in ended with, and the session cookie it left behind, if any."""
    async with home.guest(person) as guest:
        page = await guest.open("https://app.test/u")
        return page, guest.session("https://app.test")


def test_a_slow_provider_stops_nobody_else(home: House, alice: str) -> None:
    """FI31: the token endpoint does not answer until the others have been served."""
    home.gate.close()
    try:
        pending = home.background.begin(signing_in(home, "bob"))
        hits = home.provider.hits["token"]
        until(lambda: home.provider.hits["token"] > hits or pending.done())
        assert home.get("/u", alice).status == 200
        assert home.get("/public/x").status == 200
        assert not pending.done()
    finally:
        home.gate.open()
    page, kept = pending.result(20)
    assert page.status == 200 and kept


def test_a_provider_that_never_was_there(home: House, alice: str) -> None:
    answer = navigate(home, "/u", host="dead.test")
    assert answer.status == 302
    answer = navigate(home, "/.ztproxy/sign_in?rd=%2Fu", host="dead.test")
    assert (answer.status, answer.fields("Set-Cookie")) == (502, [])
    assert b"request" in answer.body.lower()
    assert home.get("/u", alice).status == 200


# -- apps -------------------------------------------------------------------------------------------------


def test_an_app_that_is_down(home: House) -> None:
    """FI25."""
    before = home.get("/public/x", host="app.test")
    assert before.status == 200
    for _ in range(7):
        answer = home.get("/", host="down.test")
        assert answer.status in (502, 503) and b"request_id" in answer.body
    assert home.get("/public/x", host="app.test").status == 200
    until(lambda: home.metric("ztproxy_upstream_failures_total", route="down") > 0)


def test_an_app_that_says_nothing(home: House) -> None:
    """FI26."""
    ended = home.shut_gate()

    async def play(line: Line, request: bytes) -> None:
        while await line.more():
            pass
        ended.open()

    with home.app.playing(play):
        answer = home.get("/", host="slow.test")
        assert (answer.status, b"upstream_timeout" in answer.body) == (504, True)
        home.run(ended.wait())  # nothing is left open towards the app
    until(lambda: home.get("/", host="slow.test").status == 200)


def test_a_client_that_leaves_ends_the_request_at_the_app(home: House) -> None:
    """FI26."""
    began, ended = home.shut_gate(), home.shut_gate()

    async def play(line: Line, request: bytes) -> None:
        began.open()
        while await line.more():
            pass
        ended.open()

    with home.app.playing(play):
        with home.wire() as wire:
            wire.send(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n")
            home.run(began.wait())
        home.run(ended.wait())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 9\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3\r\n"]
)
@pytest.mark.parametrize("how", ["reset", "close", "half close"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_app_that_breaks_off_in_a_body(home: House, framing: bytes, how: str, method: str) -> None:
    """FI27: the client sees that something is missing, and nothing is sent again."""
    gate = home.shut_gate()

    async def play(line: Line, request: bytes) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\n" + framing + b"abc")
        await gate.wait()
        {"reset": line.reset, "close": line.close, "half close": line.half_close}[how]()

    before = len(home.app.requests)
    with home.app.playing(play), home.wire() as wire:
        data = f"{method} /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi".encode()
        head = wire.send(data).until(b"abc")
        gate.open()
        rest = wire.rest()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"0\r\n\r\n" not in rest.data and b"HTTP/1.1" not in rest.data
    assert len(rest.data) <= 2, "at most the end of the chunk that came whole"
    assert len(home.app.requests) == before + 1


@pytest.mark.parametrize(
    ("method", "status", "asked"),
    [
        pytest.param("GET", 200, 2, id="GET goes once more on a fresh connection"),
        pytest.param("POST", 502, 1, id="POST never twice"),
    ],
)
def test_an_idle_connection_that_was_just_closed(home: House, method: str, status: int, asked: int) -> None:
    """FI28: the app reads the request on a kept connection and closes; on a fresh one it would answer."""
    assert home.get("/public/x").status == 200
    kept = home.app.connections

    async def play(line: Line, request: bytes) -> None:
        if home.app.connections == kept:
            line.close()
        else:
            await line.send(OK)

    before = len(home.app.requests)
    data = f"{method} /public/x HTTP/1.1\r\nHost: app.test\r\n".encode()
    data += b"Content-Length: 2\r\n\r\nhi" if method == "POST" else b"\r\n"
    with home.app.playing(play):
        assert home.plain(data).status == status
    assert len(home.app.requests) == before + asked


def test_a_download_that_nobody_reads_is_not_held(home: House, alice: str) -> None:
    """FI29: what the client does not take is not read from the app; the rest follows when it does."""
    size, sent, done = 64 * 2**20, 0, home.shut_gate()

    async def play(line: Line, request: bytes) -> None:
        nonlocal sent
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 2**18):
            await line.send(b"x" * 2**18)
            sent += 2**18
        done.open()

    before = peak(home)
    with home.wire() as wire:
        with home.app.playing(play):
            wire.send(f"GET /u HTTP/1.1\r\nHost: app.test\r\nCookie: {alice}\r\n\r\n".encode()).until(
                b"\r\n\r\n"
            )
        # The app has to wait: ten whole requests beside it, and it has got no further.
        stuck = 0
        while stuck < 10:
            last = sent
            assert home.get("/u", alice).body == b"ok"
            stuck = stuck + 1 if sent == last else 0
        assert 0 < sent < size
        taken = len(wire.data)
        while taken < size:
            taken += len(wire.socket.recv(2**20))
        home.run(done.wait())
    assert (taken, sent) == (size, size)
    assert peak(home) - before < 16 * 2**20


def peak(home: House) -> int:
    """The most memory the worker ever had resident, in bytes."""
    (pid,) = home.workers()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# -- a worker ---------------------------------------------------------------------------------------------


def test_a_worker_is_killed(home: House, alice: str) -> None:
    """FI49."""
    (before,) = home.workers()
    with home.wire() as open_connection:
        open_connection.send(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n").ok()
        os.kill(before, signal.SIGKILL)
        assert open_connection.rest().data == b""
    until(lambda: answers(home) and home.get("/u", alice).status == 200)
    (after,) = home.workers()
    assert after != before


def answers(home: House) -> bool:
    try:
        return home.get("/public/x").status == 200
    except OSError:
        return False
