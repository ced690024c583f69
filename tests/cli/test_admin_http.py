"""One request and its answer: whatever is at the other end, it ends, and says whether anything was sent."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.cli.admin_world import Heard, answering, listening, reply, request_of, served
from ztproxy.cli.admin_http import MAX_ANSWER, Door, Reply, Unreachable, exchange
from ztproxy.demo.running import free_port

TOKEN = "ztp_secret"


def door_at(url: str) -> Door:
    return Door("there", "127.0.0.1", int(url.rpartition(":")[2]), token=TOKEN)


def ask(door: Door, seconds: float = 30.0, body: bytes | None = None) -> Reply:
    method = "GET" if body is None else "POST"
    return exchange(door, method, "/api/v1/whoami", {"X-One": "1"}, body, time.monotonic() + seconds)


def test_a_unix_socket_and_a_port() -> None:
    for unix in (True, False):
        with served(unix=unix) as there:
            path = there.url.removeprefix("unix:") if unix else None
            port = 80 if unix else int(there.url.rpartition(":")[2])
            door = Door("x", "127.0.0.1", port, path, token=there.world.secrets["viewer"])
            answer = ask(door)
            assert (answer.status, answer.media) == (200, "application/json")
            assert b'"viewer-1"' in answer.body


def test_what_is_sent() -> None:
    heard = Heard()
    with answering(
        reply("{}", "429 Later", "Application/JSON; charset=utf-8", "Retry-After: 7"), heard=heard
    ) as url:
        assert ask(door_at(url), body=b"{}") == Reply(429, "application/json", b"{}", 7)
    head = heard.requests[0].decode().lower()
    assert head.startswith("post /api/v1/whoami http/1.1\r\n")
    assert head.count("authorization: bearer ztp_secret\r\n") == 1
    assert "connection: close\r\n" in head and "x-one: 1\r\n" in head
    assert head.endswith("\r\n\r\n{}")


def test_no_token_is_no_field() -> None:
    heard = Heard()
    with answering(reply("{}"), heard=heard) as url:
        ask(Door("there", "127.0.0.1", int(url.rpartition(":")[2])))
    assert b"authorization" not in heard.requests[0].lower()


@pytest.mark.parametrize("wait", ["soon", "-1", "1.5", "١", "9" * 4000])
def test_a_wait_that_is_none(wait: str) -> None:
    with answering(
        reply("{}", "503 No", "x/y").replace(b"\r\n\r\n", f"\r\nRetry-After: {wait}\r\n\r\n".encode())
    ) as url:
        assert ask(door_at(url)).retry_after == 0


def drip(connection: socket.socket) -> None:
    request_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


def silent(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def hang_up(connection: socket.socket) -> None:
    request_of(connection)


def endless(connection: socket.socket) -> None:
    request_of(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        connection.sendall(b" " * 65_536)


def saying(raw: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(raw)

    return serve


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        pytest.param(silent, "in time", id="silence"),
        pytest.param(drip, "in time", id="an octet now and then"),
        pytest.param(saying(b"HTTP/1.1 100 Continue\r\n\r\n" * 3), "whole", id="go on, and nothing"),
        pytest.param(hang_up, "was closed", id="hangs up"),
        pytest.param(saying(reply("{}")[:-1]), "was closed", id="cut short"),
        pytest.param(
            saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), "was closed", id="a chunk"
        ),
        pytest.param(saying(b"\x15\x03\x01\x00\x02\x02\x46"), "no HTTP", id="TLS"),
        pytest.param(saying(b"SSH-2.0-\x1b[2J\r\n"), "no HTTP", id="another protocol"),
        pytest.param(saying(b"HTTP/1.1 abc\r\n\r\n"), "no HTTP", id="no status"),
        pytest.param(saying(b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n"), "no HTTP", id="a long line"),
        pytest.param(
            saying(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"), "no HTTP", id="many fields"
        ),
        pytest.param(endless, "longer than", id="without end"),
        pytest.param(saying(reply(b" " * (MAX_ANSWER + 1))), "longer than", id="too long"),
    ],
)
def test_what_is_no_answer(serve: Callable[[socket.socket], None], said: str) -> None:
    with listening(serve) as url, pytest.raises(Unreachable, match=said) as caught:
        ask(door_at(url), 0.5 if serve in (silent, drip) else 30.0)
    assert caught.value.sent
    assert TOKEN not in str(caught.value)
    assert str(caught.value).isprintable()


def test_nobody_there(tmp_path: Path) -> None:
    for door in (Door("there", "127.0.0.1", free_port()), Door("there", path=str(tmp_path / "none"))):
        with pytest.raises(Unreachable, match="cannot be reached") as caught:
            ask(door)
        assert not caught.value.sent


def test_too_late_already() -> None:
    with listening(silent) as url, pytest.raises(Unreachable, match="in time") as caught:
        ask(door_at(url), -1.0)
    assert not caught.value.sent


def test_the_token_is_not_in_a_repr() -> None:
    assert TOKEN not in repr(Door("there", token=TOKEN))


def test_a_server_without_tls_where_tls_is_asked_for() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(serve) as url:
        door = Door("there", "127.0.0.1", int(url.rpartition(":")[2]), tls=ssl.create_default_context())
        with pytest.raises(Unreachable, match="does not speak TLS") as caught:
            ask(door)
    assert not caught.value.sent


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_that_is_asked_for_and_not_shown(version: ssl.TLSVersion) -> None:
    """In TLS 1.3 a client hears of it only after it sent its request; it was not read all the same."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(server)
    authority.configure_trust(client)
    server.verify_mode, client.maximum_version = ssl.CERT_REQUIRED, version

    def serve(connection: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = server.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65_536))
            except ssl.SSLError:
                connection.sendall(outgoing.read())  # the alert
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
                return

    with listening(serve) as url:
        door = Door("there", "127.0.0.1", int(url.rpartition(":")[2]), tls=client, token=TOKEN)
        with pytest.raises(Unreachable, match="--cert") as caught:
            ask(door)
    assert not caught.value.sent
