"""Overload in earnest: a real worker that runs out of descriptors, and one that runs out of memory.

What is under way goes on, the operations listener answers, and when there is room again it is as it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.endings import SWITCHED, UPGRADE
from tests.stories.house import House, house
from tests.stories.talking import PATIENCE, Wire, until
from tests.wire.recording import OK, Line

DESCRIPTORS = 256
CAP = (DESCRIPTORS - 128) // 2
PUBLIC = b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n"
PING = b"\x89\x80\x00\x00\x00\x00"
HELD = b"GET /public/held HTTP/1.1\r\nHost: app.test\r\n\r\n" + PUBLIC * 1500
"""A request that the app does not answer, and 64 kB of others, which wait for it in the worker's memory."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("overload"), valkey_url) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    return home.sign_in("alice")


@contextlib.contextmanager
def chatting(home: House, alice: str) -> Iterator[Wire]:
    """What a person has under way: a WebSocket that gives back what it is sent."""

    async def echo(line: Line, request: bytes) -> None:
        if b"/held" in request:
            await line.more()
        if b"Upgrade: websocket" not in request:
            await line.send(OK)
            return
        await line.send(SWITCHED)
        while data := await line.more():
            await line.send(data)

    with home.app.playing(echo), home.wire("tls") as chat:
        asked = f"GET /chat HTTP/1.1\r\nHost: app.test\r\nCookie: {alice}\r\n".encode()
        chat.send(asked + UPGRADE + b"\r\n").until(b"\r\n\r\n")
        goes_on(chat)
        yield chat


def goes_on(chat: Wire) -> None:
    assert chat.send(PING).until(PING) == PING


def worker(home: House) -> int:
    (pid,) = home.workers()
    return pid


def restart_worker(home: House) -> int:
    """By killing it; the supervisor starts another one."""
    before = worker(home)
    os.kill(before, signal.SIGKILL)
    until(lambda: home.workers() not in ([before], []))
    until(lambda: answers(home))
    return worker(home)


def answers(home: House) -> bool:
    with contextlib.suppress(OSError):
        return home.get("/public/x").status == 200
    return False


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def lowest_free(pid: int) -> int:
    taken = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(taken) + 1)) - taken)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(home: House, listener: str, said: bytes = b"") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", home.ports[listener]), PATIENCE)
    with contextlib.suppress(ConnectionError):
        one.sendall(said)
    return one


def heard(home: House) -> bytes:
    with connect(home, "plain", PUBLIC) as one, contextlib.suppress(ConnectionError):
        return one.recv(100)
    return b""


def operations_answer(home: House) -> bool:
    """And tell that the state is reached; a worker says so within a second of its start."""
    until(lambda: home.metric("ztproxy_state_up") == 1)
    return home.operations("/livez").status == 200


def test_descriptors_run_out(home: House, alice: str) -> None:
    """(FI37, FI38)"""
    assert home.process is not None
    # The hard limit too, for a worker takes all it may.
    resource.prlimit(home.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    pid = restart_worker(home)
    with contextlib.ExitStack() as flood, home.wire("plain") as known, chatting(home, alice) as chat:
        request = f"GET /u HTTP/1.1\r\nHost: app.test\r\nCookie: {alice}\r\n\r\n".encode()
        known.send(request).ok()
        # Silent ones, slow heads, and handshakes that never begin or never end: more than twice the cap.
        for _ in range(CAP):
            for listener, said in (
                ("plain", b""),
                ("plain", PUBLIC[:20]),
                ("tls", b""),
                ("tls", b"\x16\x03\x01"),
            ):
                flood.callback(connect(home, listener, said).close)
        until(lambda: home.metric("ztproxy_connections_evicted_total") > CAP)
        assert home.metric("ztproxy_connections") <= CAP
        assert descriptors(pid) < DESCRIPTORS - 64
        assert operations_answer(home)
        goes_on(chat)
        known.send(request).ok()
        assert answers(home), "a newcomer is let in"
        assert home.sign_in("bob"), "people may sign in"

    until(lambda: home.metric("ztproxy_connections") == 0)

    # And none at all: a connection cannot even be accepted.
    with chatting(home, alice) as chat:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free(pid), DESCRIPTORS))
        until(lambda: home.metric("ztproxy_overload_stage") == 3)
        used = processor_time(pid)
        for _ in range(5):
            assert not heard(home), "closed at once"
            assert operations_answer(home)
            goes_on(chat)
            time.sleep(0.1)
        assert processor_time(pid) - used < 0.4, "it does not spin"
        assert worker(home) == pid
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        until(lambda: answers(home))
        until(lambda: "ztproxy.overload: calm after frugal" in home.log("proxy"))
        goes_on(chat)
    assert any(record["path"] == "/public/x" for record in home.records("access"))


def test_memory_runs_out(home: House, alice: str) -> None:
    """(FI40)"""
    full = int(resident(worker(home)) / 0.8) // 1024 * 1024
    home.stop()
    home.write_config(settings=f"limits: {{memory: {full // 1024}KiB}}")
    home.start()
    pid = worker(home)

    def refuses() -> bool:
        heard = home.get("/public/x")
        assert heard.status in (200, 503)
        return heard.status == 503 and heard.fields("Retry-After") == ["1"]

    with chatting(home, alice) as chat:
        with contextlib.ExitStack() as flood:
            deadline = time.monotonic() + PATIENCE
            while not refuses():
                assert time.monotonic() < deadline
                used = resident(pid) / full
                if used < 0.96:
                    for _ in range(20 if used < 0.9 else 5):
                        flood.callback(connect(home, "plain", HELD).close)
            passed = len(home.app.requests)
            assert refuses()
            assert len(home.app.requests) == passed, "nothing of it reaches the app"
            assert operations_answer(home)
            goes_on(chat)
        until(lambda: answers(home))
        goes_on(chat)
    assert re.search(r"ztproxy\.overload: refusing after .*: 9[5-7]\.\d % of the memory", home.log("proxy"))
    assert worker(home) == pid
