"""Revocation while processes are killed, stopped and starved (FI49, FI50, FI54, FI56).

What a worker knew before it was stopped must open no door after it goes on; what it held when it was killed
must keep nobody waiting for long.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.house import House
from tests.stories.neighbours import Knocking, admin_of, let_in, neighbour, revoke, sign_in_again, visit
from tests.stories.talking import until
from tests.stories.test_upgrades import ASKED, ORIGIN, asking, echo, opened

LEASE = 0.8


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with neighbour(tmp_path_factory.mktemp("processes"), valkey_url) as it:
        yield it


@pytest.fixture
def alice(home: House) -> str:
    """Signed in, and known to the worker that runs now."""
    cookie = sign_in_again(home, "alice")
    until(lambda: let_in(home, cookie))
    return cookie


def the_worker(home: House) -> int:
    (pid,) = home.workers()
    return pid


def test_fi49_a_revocation_right_after_a_worker_was_killed(home: House, alice: str) -> None:
    """Its lease runs out by itself: the revocation is confirmed, and holds for the next worker."""
    bob, dead = visit(home, "bob"), the_worker(home)
    os.kill(dead, signal.SIGKILL)
    with Knocking(home, bob.cookie) as knocking:
        confirmed = revoke(bob, at=home)
        until(lambda: 401 in knocking.begun_after(confirmed))
    assert 200 not in knocking.begun_after(confirmed)
    until(lambda: let_in(home, alice))
    assert the_worker(home) != dead
    until(lambda: home.operations("/readyz").status == 200)


def test_fi54_a_worker_that_was_stopped_for_a_while(home: House, alice: str) -> None:
    """A revocation does not wait for it to go on; and when it does, it lets nobody in on what it knew."""
    bob, worker = visit(home, "bob"), the_worker(home)
    with home.app.playing(echo), home.wire() as socket, home.wire() as waiting:
        socket.send(asking(f"Cookie: {bob.cookie}".encode(), ORIGIN, *ASKED))
        opened(socket)
        assert socket.until(b"hello") and socket.send(b"before").until(b"BEFORE")
        relayed = len(home.app.received)
        os.kill(worker, signal.SIGSTOP)
        try:
            socket.send(b"meanwhile")
            waiting.send(f"GET /u HTTP/1.1\r\nHost: app.test\r\nCookie: {bob.cookie}\r\n\r\n".encode())
            revoke(bob, at=home)
        finally:
            os.kill(worker, signal.SIGCONT)
        head = waiting.until(b"\r\n\r\n")
        assert int(head[9:12]) in (401, 503), "what came first of all after it went on"
        assert b"MEANWHILE" not in socket.rest().data
    assert b"meanwhile" not in home.app.received[relayed:]
    until(lambda: home.get("/u", bob.cookie).status == 401)
    until(lambda: let_in(home, alice))
    assert the_worker(home) == worker


def test_fi54_a_worker_that_was_stopped_and_nothing_happened(home: House, alice: str) -> None:
    """It has no lease when it goes on, and soon another: nobody is signed out."""
    worker, over = the_worker(home), threading.Event()
    with Knocking(home, alice) as knocking:
        os.kill(worker, signal.SIGSTOP)
        over.wait(2 * LEASE)
        os.kill(worker, signal.SIGCONT)
        until(lambda: knocking.knocks[-1:] and knocking.knocks[-1].status == 200)
    assert {knock.status for knock in knocking.knocks} <= {200, 503}
    assert knocking.cookies == []
    assert the_worker(home) == worker


def test_fi56_a_worker_that_hardly_gets_to_run(home: House, alice: str) -> None:
    """It stands still nine tenths of the time, for longer than a lease or not: late, and never wrong."""
    worker, over = the_worker(home), threading.Event()

    def starve() -> None:
        for stopped in [0.3, 0.6, 1.2, 0.1] * 100:
            if over.is_set():
                return
            os.kill(worker, signal.SIGSTOP)
            over.wait(stopped)
            os.kill(worker, signal.SIGCONT)
            over.wait(stopped / 9)

    visitors = [visit(home, person) for person in ("bob", "carol", "mallory")]
    starving = threading.Thread(target=starve, daemon=True)
    knockings = [Knocking(home, each.cookie) for each in visitors]
    for knocking in knockings:
        knocking.__enter__()
    starving.start()
    try:
        for each, knocking in zip(visitors, knockings, strict=True):
            confirmed = revoke(each, at=home)
            until(lambda: len(knocking.begun_after(confirmed)) > 2)  # noqa: B023  asked at once
            assert 200 not in knocking.begun_after(confirmed)
    finally:
        over.set()
        starving.join()
        for knocking in knockings:
            knocking.__exit__()
    until(lambda: let_in(home, alice))


def test_fi50_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """Its workers end, and with them their leases; an embedded store ends too, so that none could go on."""
    with neighbour(tmp_path, "embedded") as home:
        assert admin_of(home).status()["promise"] == "strict"
        bob = visit(home, "bob")
        with home.app.playing(echo), home.wire() as socket, Knocking(home, bob.cookie) as knocking:
            socket.send(asking(f"Cookie: {bob.cookie}".encode(), ORIGIN, *ASKED))
            opened(socket)
            assert socket.until(b"hello") and socket.send(b"before").until(b"BEFORE")
            children = home.children()
            assert len(children) == 3, "a worker, an administration, a store"
            assert home.process is not None
            home.process.kill()
            home.process.wait()
            assert b"AFTER" not in socket.rest().data
            until(lambda: not any(alive(pid) for pid in children))
            until(lambda: knocking.knocks[-1].status == 0)
        home.start()
        until(lambda: let_in(home, bob.cookie))
        admin_of(home).ready()
        revoke(bob, at=home)
        assert home.get("/u", bob.cookie).status == 401


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
