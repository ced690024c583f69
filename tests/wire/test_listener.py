"""Addresses as operators write them, sockets as the kernel gives them, and a dialogue over each kind."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import pytest
import trustme
import uvloop

from tests.worlds.certificates import SERVER, Authority
from ztproxy.errors import OperatorError
from ztproxy.wire.connections import Connections
from ztproxy.wire.limits import Limits
from ztproxy.wire.listener import UNIX_MODE, UNSENT, check_free, open_socket, start, stop_accepting
from ztproxy.wire.proxy_protocol import SIGNATURE
from ztproxy.wire.tls import ClientAuth, ServerTLS, shown_certificate


class Greeting(asyncio.Protocol):
    peer_address: str | None = None
    carrier: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.write(f"hello {self.peer_address}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def room(limits: Limits | None = None) -> Connections:
    return Connections(asyncio.get_running_loop(), limits or Limits())


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[None]]], None]:
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run(dialogue: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(10):
                await dialogue()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return run


Play = Callable[[Callable[[], Awaitable[None]]], None]


def test_the_kernel_takes_little_for_a_client_that_does_not_read() -> None:
    with open_socket("127.0.0.1:0") as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT


@pytest.mark.parametrize(
    ("address", "family", "host"),
    [
        pytest.param("127.0.0.1:0", socket.AF_INET, "127.0.0.1", id="IPv4"),
        pytest.param("localhost:0", socket.AF_INET, "127.0.0.1", id="localhost"),
        pytest.param("0.0.0.0:0", socket.AF_INET, "0.0.0.0", id="every IPv4 address"),
        pytest.param("[::1]:0", socket.AF_INET6, "::1", id="IPv6"),
        pytest.param("[::]:0", socket.AF_INET6, "::", id="every IPv6 address"),
    ],
)
def test_addresses(address: str, family: int, host: str) -> None:
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with open_socket(address) as listening:
        assert (listening.family, listening.getsockname()[0]) == (family, host)
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not listening.getblocking()
        if family == socket.AF_INET6:
            assert listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param("", "names no IP address", id="empty"),
        pytest.param("127.0.0.1", "names no IP address", id="no port"),
        pytest.param(":8443", "names no IP address", id="no host"),
        pytest.param("*:8443", "names no IP address", id="star"),
        pytest.param("app.test:8443", "names no IP address", id="a name"),
        pytest.param("::1:8443", "not an address with a port", id="IPv6 without brackets"),
        pytest.param("[127.0.0.1]:8443", "not an address with a port", id="IPv4 in brackets"),
        pytest.param("127.0.0.1:", "no port between", id="port empty"),
        pytest.param("127.0.0.1:https", "no port between", id="port named"),
        pytest.param("127.0.0.1:-1", "no port between", id="port negative"),
        pytest.param("127.0.0.1:65536", "no port between", id="port too large"),
        pytest.param("127.0.0.1:٨٠", "no port between", id="port in other digits"),
        pytest.param("203.0.113.7:8443", "cannot listen on `203.0.113.7:8443`", id="not of this machine"),
        pytest.param(
            "unix:/nonexistent/x.sock", "cannot listen on `unix:/nonexistent/x.sock`", id="no folder"
        ),
        pytest.param("unix:/tmp/" + "x" * 120, "cannot listen on", id="path too long"),
    ],
)
def test_addresses_that_are_refused(address: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        open_socket(address)


def test_workers_share_a_port_but_a_stranger_is_noticed() -> None:
    with open_socket("127.0.0.1:0") as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        open_socket(address).close()
        with pytest.raises(OperatorError, match="in use, stop the other server"):
            check_free(address)
    check_free(address)
    check_free("unix:/nonexistent/x.sock")  # said by open_socket, which each unix listener calls once


def test_a_unix_socket_has_its_mode_from_the_start(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_socket(f"unix:{tmp_path}/z.sock"):
            assert stat.S_IMODE((tmp_path / "z.sock").stat().st_mode) == UNIX_MODE
    finally:
        os.umask(before)


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    open_socket(f"unix:{tmp_path}/z.sock").close()
    assert (tmp_path / "z.sock").exists()
    open_socket(f"unix:{tmp_path}/z.sock").close()


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    with open_socket(f"unix:{tmp_path}/z.sock") as first:
        with pytest.raises(OperatorError, match="served by another process"):
            open_socket(f"unix:{tmp_path}/z.sock")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{tmp_path}/z.sock")
            first.accept()[0].close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "z.sock").write_text("precious")
    with pytest.raises(OperatorError, match="is not a socket"):
        open_socket(f"unix:{tmp_path}/z.sock")
    assert (tmp_path / "z.sock").read_text() == "precious"


def test_plain_and_stopping(play: Play) -> None:
    async def dialogue() -> None:
        listening = open_socket("127.0.0.1:0")
        port = listening.getsockname()[1]
        server = await start(listening, Greeting, room())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readline() == b"hello None\n"
        stop_accepting(server)
        await asyncio.sleep(0)
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"still served\n")
        assert await reader.readline() == b"still served\n"
        writer.close()

    play(dialogue)


def test_unix(play: Play, tmp_path: Path) -> None:
    async def dialogue() -> None:
        server = await start(open_socket(f"unix:{tmp_path}/z.sock"), Greeting, room())
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/z.sock")
        assert await reader.readline() == b"hello None\n"
        writer.close()
        stop_accepting(server)

    play(dialogue)


@pytest.mark.parametrize("proxied", [False, True], ids=["TLS", "TLS behind a PROXY header"])
def test_tls(play: Play, proxied: bool) -> None:
    ca = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("app.test").configure_cert(serving)
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(asking)
    trusted = [ip_network("127.0.0.1/32")] if proxied else None

    async def dialogue() -> None:
        listening = open_socket("127.0.0.1:0")
        server = await start(listening, Greeting, room(), tls=serving, proxy_protocol_from=trusted)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
        if proxied:
            client = socket.inet_aton("203.0.113.9")
            writer.write(SIGNATURE + b"\x21\x11\x00\x0c" + client + client + b"\x00\x01\x00\x02")
        await writer.start_tls(asking, server_hostname="app.test")
        assert await reader.readline() == (b"hello 203.0.113.9\n" if proxied else b"hello None\n")
        writer.close()
        stop_accepting(server)

    play(dialogue)


@pytest.mark.parametrize("proxied", [False, True], ids=["TLS", "TLS behind a PROXY header"])
def test_a_handshake_has_a_place_from_the_start(play: Play, tmp_path: Path, proxied: bool) -> None:
    """(FI38) A connection that says nothing is counted, by the address it comes from."""
    serving = ServerTLS([Authority.root().issue("server", dns=["open.test"]).files(tmp_path)]).context
    trusted = [ip_network("127.0.0.1/32")] if proxied else None

    async def dialogue() -> None:
        listening, places = open_socket("127.0.0.1:0"), room(Limits(connections_per_address=2))
        server = await start(listening, Greeting, places, tls=serving, proxy_protocol_from=trusted)
        open_ones = []
        for count in (1, 2):
            open_ones.append(await asyncio.open_connection("127.0.0.1", listening.getsockname()[1]))
            open_ones[-1][1].write(announced() if proxied else b"")
            while len(places) < count:  # noqa: ASYNC110  # a place has no event to await
                await asyncio.sleep(0.005)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
        writer.write(announced() if proxied else b"")
        assert await reader.read() == b""
        assert (len(places), places.refused) == (2, 1)
        if proxied:
            _, other = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
            other.write(announced(client="203.0.113.10"))
            while len(places) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            other.close()
        for _, one in open_ones:
            one.close()
        while len(places):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        stop_accepting(server)

    play(dialogue)


class Shown(Greeting):
    """Says what the handshake brought: address, name, whether the client was asked, whether it showed one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        shown = shown_certificate(tls) is not None
        transport.write(f"{self.peer_address} {tls.server_name} {tls.asked} {shown}\n".encode())


def announced(*extensions: bytes, client: str = "203.0.113.9") -> bytes:
    """A PROXY header."""
    addresses = socket.inet_aton(client) * 2 + b"\x00\x01\x00\x02"
    rest = addresses + b"".join(extensions)
    return SIGNATURE + b"\x21\x11" + len(rest).to_bytes(2) + rest


# PP2_TYPE_SSL: "the client showed a certificate, verified, of CN=admin".
VOUCHED = b"\x20\x00\x0d" + b"\x07\x00\x00\x00\x00" + b"\x22\x00\x05admin"


@pytest.mark.parametrize(
    ("header", "address"),
    [
        pytest.param(b"", None, id="directly"),
        pytest.param(announced(), "203.0.113.9", id="behind a PROXY header"),
        pytest.param(announced(VOUCHED), "203.0.113.9", id="behind one that speaks of a certificate (X22)"),
    ],
)
@pytest.mark.parametrize("by_name", [False, True], ids=["everybody is asked", "by name"])
@pytest.mark.parametrize("name", ["open.test", "secret.test"])
@pytest.mark.parametrize("has_one", [False, True], ids=["without", "with"])
def test_asking_for_certificates(
    play: Play, tmp_path: Path, header: bytes, address: str | None, by_name: bool, name: str, has_one: bool
) -> None:
    root = Authority.root()
    (tmp_path / "root.pem").write_bytes(root.pem)
    pair = root.issue("server", dns=["open.test", "secret.test"], usage=(SERVER,)).files(tmp_path)
    asks = (lambda one: one != "open.test") if by_name else None
    tls = ServerTLS([pair], "1.2", ClientAuth((str(tmp_path / "root.pem"),), asks=asks))
    client = ssl.create_default_context(cadata=root.pem.decode())
    if has_one:
        client.load_cert_chain(*root.issue("laptop").files(tmp_path))
    asked = not by_name or name == "secret.test"

    async def dialogue() -> None:
        listening = open_socket("127.0.0.1:0")
        trusted = [ip_network("127.0.0.1/32")] if header else None
        server = await start(
            listening, Shown, room(), tls=tls.by_name or tls.context, proxy_protocol_from=trusted
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
        writer.write(header)
        await writer.start_tls(client, server_hostname=name)
        assert await reader.readline() == f"{address} {name} {asked} {asked and has_one}\n".encode()
        writer.write(b"and on\n")
        assert await reader.readline() == b"and on\n"
        writer.close()
        stop_accepting(server)

    play(dialogue)


@pytest.mark.parametrize("by_name", [False, True], ids=["everybody is asked", "by name"])
def test_a_header_nobody_asked_for_is_no_hello(play: Play, tmp_path: Path, by_name: bool) -> None:
    """(X22) On a listener without the PROXY protocol it closes the connection."""
    root = Authority.root()
    (tmp_path / "root.pem").write_bytes(root.pem)
    pair = root.issue("server", dns=["open.test"], usage=(SERVER,)).files(tmp_path)
    asks = (lambda one: one != "open.test") if by_name else None
    tls = ServerTLS([pair], "1.2", ClientAuth((str(tmp_path / "root.pem"),), asks=asks))

    async def dialogue() -> None:
        listening = open_socket("127.0.0.1:0")
        server = await start(listening, Shown, room(), tls=tls.by_name or tls.context)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
        writer.write(announced(VOUCHED))
        try:
            said = await reader.read()
        except ConnectionResetError:
            said = b""
        assert said[:1] in (b"", b"\x15"), "at most a TLS alert"
        stop_accepting(server)

    play(dialogue)
