"""Revocation while the way to the store is out of order: slow, silent, one way only, gone (FI01 to FI09).

Two houses on one real server: `near` behind a network that misbehaves on command, `far` beside the server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.stories.house import House
from tests.stories.neighbours import (
    Knocking,
    admin_of,
    let_in,
    neighbour,
    refused_politely,
    revoke,
    visit,
)
from tests.stories.talking import until
from tests.wire.recording import OK, Line
from tests.worlds.fault_proxy import FaultProxy, fault_proxy
from tests.worlds.servers import HOST, Server, server

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
OPENED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

LEASE = 0.8
"""Of `near`, in seconds."""

PATIENT = "  lease: 3s\n  quarantine: 3s\n  stream_grace: 1s\n"
"""A lease that outlasts a short absence."""


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with server() as one:
        yield one


@pytest.fixture(scope="module")
def network(store: Server) -> Iterator[FaultProxy]:
    with fault_proxy((HOST, store.port)) as one:
        yield one


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory, store: Server) -> Iterator[House]:
    with neighbour(tmp_path_factory.mktemp("far"), store.url, revocation=PATIENT) as it:
        yield it


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory, network: FaultProxy, far: House) -> Iterator[House]:
    with neighbour(tmp_path_factory.mktemp("near"), f"redis://{HOST}:{network.port}", far) as it:
        yield it


@pytest.fixture(scope="module")
def alice(near: House) -> str:
    until(lambda: near.operations("/readyz").status == 200)
    return near.sign_in("alice")


@pytest.fixture(autouse=True)
def healed(near: House, alice: str, network: FaultProxy, store: Server) -> Iterator[None]:
    """Each story begins and ends with everything in order."""
    until(lambda: let_in(near, alice))
    yield
    network.heal()
    if store.process is None:
        store.start()


# -- gone -------------------------------------------------------------------------------------------------


def test_fi01_a_store_that_is_not_there_at_the_start(near: House, alice: str, network: FaultProxy) -> None:
    """Strangers are served, nobody else is, and it goes by itself when the store comes."""
    near.stop()
    network.refuse = True
    network.reset()
    near.start()
    assert refused_politely(near, alice)
    assert near.get("/u").status == 401, "who shows nothing is asked to sign in"
    until(lambda: near.operations("/readyz").status == 503)
    assert near.operations("/livez").status == 200
    admin_of(near).ready()
    answer = admin_of(near).revoke("all")
    assert (answer.status, answer.problem) == (503, "not_applied")

    network.refuse = False
    until(lambda: let_in(near, alice))
    until(lambda: near.operations("/readyz").status == 200)


def test_fi02_a_store_that_is_away_for_less_than_a_lease(
    far: House, near: House, alice: str, store: Server
) -> None:
    """Who is known goes on without noticing."""
    until(lambda: let_in(far, alice))
    with Knocking(far, alice) as knocking:
        store.restart()
        began = time.monotonic()
        until(lambda: let_in(near, alice))
        until(lambda: len(knocking.begun_after(began)) > 20)
    assert {knock.status for knock in knocking.knocks} == {200}
    assert knocking.cookies == []


def test_fi03_a_store_that_is_away_for_longer(near: House, alice: str, store: Server) -> None:
    """A door that is closed and says so; nothing more passes of what was open, and then it ends."""
    told: list[Line] = []

    async def play(line: Line, request: bytes) -> None:
        if request.startswith(b"GET /ws "):
            told.append(line)
            await line.send(OPENED + b"hello")
            while data := await line.more():
                await line.send(data.upper())
        elif request.startswith(b"GET /long "):
            told.append(line)
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
        else:
            await line.send(OK)

    fields = f"Host: app.test\r\nCookie: {alice}\r\n".encode()
    with near.app.playing(play), near.wire() as download, near.wire() as socket:
        download.send(b"GET /long HTTP/1.1\r\n" + fields + b"\r\n").until(b"begun")
        socket.send(b"GET /ws HTTP/1.1\r\n" + fields + _UPGRADE).until(b"hello")
        assert socket.send(b"x").until(b"X") == b"X"
        store.kill()
        until(lambda: refused_politely(near, alice))
        near.run(told[0].send(b"too late"))
        socket.send(b"too late")
        assert download.rest().data == b"", "what came while nobody could say who may have it"
        assert b"TOO LATE" not in socket.rest().data
    assert b"too late" not in told[1].received
    with Knocking(near, alice) as knocking:
        until(lambda: len(knocking.knocks) > 5)
        store.start()
        until(lambda: let_in(near, alice))
    assert {knock.status for knock in knocking.knocks} <= {503, 200}
    assert knocking.cookies == []


_UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nOrigin: https://app.test\r\n\r\n"
)


# -- slow -------------------------------------------------------------------------------------------------


def test_fi04_a_store_that_takes_half_a_second(near: House, alice: str, network: FaultProxy) -> None:
    """Half a second is less than a lease, so who is known is served as ever, and does not wait for it."""
    at_once = 30
    network.delay = 0.25

    def steady() -> bool:
        began = time.monotonic()
        served = all(let_in(near, alice) for _ in range(at_once))
        return served and time.monotonic() - began < at_once * 2 * network.delay

    time.sleep(2 * LEASE)  # of what was heard before nothing is left
    until(steady)


def test_fi05_a_store_that_takes_longer_than_a_lease(
    far: House, near: House, alice: str, network: FaultProxy
) -> None:
    """Its answers are too old to be relied on: closed, and never open on old facts."""
    bob = visit(near, "bob")
    network.delay = 1.5
    until(lambda: refused_politely(near, alice))
    with Knocking(near, bob.cookie) as knocking:
        confirmed = revoke(bob, at=far)
        until(lambda: len(knocking.begun_after(confirmed)) > 5)
        network.heal()
        until(lambda: 401 in knocking.begun_after(confirmed))
    assert 200 not in knocking.begun_after(confirmed)


# -- silent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to_server", "to_client"),
    [
        pytest.param(False, False, id="FI06 both ways"),
        pytest.param(False, True, id="FI07 towards the store"),
        pytest.param(True, False, id="FI07 from the store"),
    ],
)
def test_fi06_fi07_a_worker_that_is_cut_off(
    far: House, near: House, alice: str, network: FaultProxy, to_server: bool, to_client: bool
) -> None:
    """It closes its door by itself; the other's stays open, and what is confirmed there holds here."""
    bob = visit(near, "bob")
    until(lambda: let_in(far, bob.cookie))
    with Knocking(near, bob.cookie) as knocking:
        until(lambda: 200 in knocking.begun_after(0.0))
        network.to_server, network.to_client = to_server, to_client
        confirmed = revoke(bob, at=far)
        assert far.get("/u", bob.cookie).status == 401
        until(lambda: refused_politely(near, alice))
        assert let_in(far, alice)
        until(lambda: near.operations("/readyz").status == 503)
        network.heal()
        until(lambda: 401 in knocking.begun_after(confirmed))
    assert 200 not in knocking.begun_after(confirmed)
    assert set(knocking.begun_after(confirmed)) <= {401, 503}
    until(lambda: let_in(near, alice))


# -- restless ---------------------------------------------------------------------------------------------


def test_fi08_connections_that_are_reset_all_the_time(
    far: House, near: House, alice: str, network: FaultProxy
) -> None:
    """Most questions get through, so the door stays open; and the server is not stormed with connections."""
    over, bob = threading.Event(), visit(near, "bob")

    def storm() -> None:
        while not over.wait(0.05):
            network.reset()

    def steady() -> bool:
        return all(let_in(near, alice) for _ in range(50) if not over.wait(0.03))

    storming = threading.Thread(target=storm, daemon=True)
    storming.start()
    try:
        over.wait(LEASE)
        accepted, began = network.accepted, time.monotonic()
        until(steady)
        rate = (network.accepted - accepted) / (time.monotonic() - began)
        assert 1 < rate < 30, "of one worker and one administration"
        revoke(bob, at=far)
        assert not let_in(near, bob.cookie)
    finally:
        over.set()
        storming.join()


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_fi09_connections_that_the_server_closes(near: House, store: Server, kind: str) -> None:
    """What tells of news at once is away for a moment; it is heard all the same."""
    bob = visit(near, "bob")
    assert let_in(near, bob.cookie)
    with Knocking(near, bob.cookie) as knocking:
        for _ in range(3):
            store.ask("CLIENT", "KILL", "TYPE", kind)
        confirmed = revoke(bob, at=near)
        until(lambda: len(knocking.begun_after(confirmed)) > 5)
    assert set(knocking.begun_after(confirmed)) == {401}
