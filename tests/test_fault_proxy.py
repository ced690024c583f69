"""The network that misbehaves does what it says, or no fault test means anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.worlds.fault_proxy import FaultProxy, fault_proxy

PATIENCE = 5.0
A_MOMENT = 0.2


@pytest.fixture
def network() -> Iterator[FaultProxy]:
    """A server that sends back what it gets, behind a proxy."""
    listening = socket.create_server(("127.0.0.1", 0))

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65_536):
                    connection.sendall(data)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with fault_proxy(listening.getsockname()[:2]) as proxy:
        yield proxy
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def client(network: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), PATIENCE)


def hears(connection: socket.socket, seconds: float) -> bytes | None:
    connection.settimeout(seconds)
    try:
        return connection.recv(65_536)
    except TimeoutError:
        return None
    finally:
        connection.settimeout(PATIENCE)


def test_without_a_fault_it_is_a_wire(network: FaultProxy) -> None:
    with client(network) as connection:
        connection.sendall(b"x" * 1000)
        assert hears(connection, PATIENCE) == b"x" * 1000
        connection.shutdown(socket.SHUT_WR)
        assert hears(connection, PATIENCE) == b""


@pytest.mark.parametrize("way", ["to_server", "to_client"])
def test_a_partition_holds_back_and_delivers_when_it_heals(network: FaultProxy, way: str) -> None:
    with client(network) as connection:
        connection.sendall(b"before")
        assert hears(connection, PATIENCE) == b"before"
        setattr(network, way, False)
        connection.sendall(b"during")
        assert hears(connection, A_MOMENT) is None
        network.heal()
        assert hears(connection, PATIENCE) == b"during"


def test_a_delay_delays_both_ways(network: FaultProxy) -> None:
    with client(network) as connection:
        network.delay = A_MOMENT
        connection.sendall(b"late")
        assert hears(connection, A_MOMENT) is None
        assert hears(connection, PATIENCE) == b"late"


def test_a_reset_is_seen_as_one(network: FaultProxy) -> None:
    with client(network) as connection:
        connection.sendall(b"x")
        assert hears(connection, PATIENCE) == b"x"
        network.reset()
        with pytest.raises(ConnectionResetError):
            hears(connection, PATIENCE)


def test_a_cut_comes_at_its_octet(network: FaultProxy) -> None:
    with client(network) as connection:
        network.cut_after = 3
        connection.sendall(b"abcdef")
        heard = b""
        try:
            while more := connection.recv(100):
                heard += more
        except ConnectionResetError:
            pass
        assert heard in (b"", b"abc")  # a reset may overtake what it follows


def test_nobody_new_is_let_in(network: FaultProxy) -> None:
    network.refuse = True
    heard: bytes | None = b""
    with contextlib.suppress(ConnectionError), client(network) as connection:
        connection.sendall(b"x")
        heard = hears(connection, PATIENCE)
    assert heard == b""
