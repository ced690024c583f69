"""The header table, and the gate in front of a real protocol: on both loops, with and without TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import pytest
import trustme
import uvloop

from ztproxy.errors import ClientError
from ztproxy.wire.connections import Connections
from ztproxy.wire.handshake import HelloGate, Successor
from ztproxy.wire.limits import Limits
from ztproxy.wire.proxy_protocol import (
    FIXED_LENGTH,
    SIGNATURE,
    Network,
    ProxyProtocolGate,
    parse_fixed,
    parse_source,
)

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"),)


def header(
    source: str = "203.0.113.9",
    *,
    command: int = 0x21,
    family: int | None = None,
    extensions: bytes = b"",
    length: int | None = None,
    addresses: bytes | None = None,
) -> bytes:
    six = ":" in source
    if family is None:
        family = 0x21 if six else 0x11
    if addresses is None:
        kind = socket.AF_INET6 if six else socket.AF_INET
        addresses = 2 * socket.inet_pton(kind, source) + (50000).to_bytes(2) + (443).to_bytes(2)
    rest = addresses + extensions
    return SIGNATURE + bytes([command, family]) + (len(rest) if length is None else length).to_bytes(2) + rest


def extension(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2) + value


def read(data: bytes) -> str | None:
    fixed = parse_fixed(data[:FIXED_LENGTH])
    assert len(data) == FIXED_LENGTH + fixed.length
    return parse_source(fixed, data[FIXED_LENGTH:])


LOCAL = header(command=0x20, family=0x00, addresses=b"")
ACCEPTED = [
    pytest.param(header(), "203.0.113.9", id="TCP over IPv4"),
    pytest.param(header("2001:db8::9"), "2001:db8::9", id="TCP over IPv6"),
    pytest.param(header("::ffff:203.0.113.9"), "203.0.113.9", id="IPv4 in IPv6 clothes"),
    pytest.param(
        header(extensions=extension(0x04, b"") + extension(0x20, b"\x07CN")), "203.0.113.9", id="TLVs"
    ),
    pytest.param(header(extensions=extension(0x04, bytes(536 - 15))), "203.0.113.9", id="as long as may be"),
    pytest.param(LOCAL, None, id="LOCAL"),
    pytest.param(header(command=0x20), None, id="LOCAL with addresses, which do not count"),
    pytest.param(header(command=0x20, family=0xFF, addresses=b"junk"), None, id="LOCAL with junk to skip"),
]
REFUSED_FIXED = [
    pytest.param(b"PROXY TCP4 203.0.113.9 10.0.0.1 50000 443\r\n", id="version 1"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n", id="HTTP"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(9), id="a ClientHello"),
    pytest.param(header().replace(b"QUIT", b"QUIt"), id="signature nearly right"),
    pytest.param(header(command=0x11), id="version 1 in the version field"),
    pytest.param(header(command=0x31), id="version 3"),
    pytest.param(header(command=0x22), id="unknown command"),
    pytest.param(header(family=0x00), id="AF_UNSPEC with PROXY"),
    pytest.param(header(family=0x10), id="IPv4 without transport"),
    pytest.param(header(family=0x12), id="UDP over IPv4"),
    pytest.param(header(family=0x31, addresses=bytes(216)), id="unix"),
    pytest.param(header(length=11), id="shorter than IPv4 addresses"),
    pytest.param(header("2001:db8::9", length=35), id="shorter than IPv6 addresses"),
    pytest.param(header(length=537), id="one byte too long"),
    pytest.param(header(length=65535), id="as long as the field allows"),
    pytest.param(header(command=0x20, length=537), id="LOCAL too long"),
]
REFUSED_REST = [
    pytest.param(header(extensions=b"\x04"), id="TLV of one byte"),
    pytest.param(header(extensions=b"\x04\x00"), id="TLV of two bytes"),
    pytest.param(header(extensions=b"\x04\x00\x02A"), id="TLV longer than the header"),
    pytest.param(header(extensions=extension(4, b"A") + b"\x04\xff\xff"), id="second TLV longer"),
]


@pytest.mark.parametrize(("data", "source"), ACCEPTED)
def test_accepted(data: bytes, source: str | None) -> None:
    assert read(data) == source


@pytest.mark.parametrize("data", REFUSED_FIXED)
def test_refused_after_sixteen_bytes(data: bytes) -> None:
    with pytest.raises(ClientError):
        parse_fixed(data[:FIXED_LENGTH])


@pytest.mark.parametrize("data", REFUSED_REST)
def test_refused_for_its_extensions(data: bytes) -> None:
    with pytest.raises(ClientError):
        read(data)


# The gate


class Echo(asyncio.Protocol):
    """Answers `peer_address|bytes` to what it first receives, then what it receives."""

    peer_address: str | None = "never set"
    carrier: asyncio.Transport | None = None

    def __init__(self, made: list[Echo]) -> None:
        self.events: list[str] = []
        made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        self.events.append("made")
        transport.write(f"{self.peer_address}|".encode())

    def data_received(self, data: bytes) -> None:
        self.events.append("data")
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")


class World:
    """A gate on a free port. `made` lists the protocols it handed connections to."""

    def __init__(self, tls: ssl.SSLContext | None, trusted: tuple[Network, ...], deadline: float) -> None:
        self.tls, self.trusted, self.deadline = tls, trusted, deadline
        self.made: list[Echo] = []

    def first(self) -> Successor:
        loop = asyncio.get_running_loop()
        if self.tls is None:
            return Echo(self.made)
        return HelloGate(loop, lambda: Echo(self.made), self.tls, Connections(loop, Limits()))

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: ProxyProtocolGate(loop, self.first, self.trusted, self.deadline),
            "127.0.0.1",
            0,
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def lost(self, echo: Echo) -> None:
        while "lost" not in echo.events:  # noqa: ASYNC110  # the protocol has no event to await
            await asyncio.sleep(0.005)


Play = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[..., None]:
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run(
        dialogue: Callable[[World], Awaitable[None]],
        tls: ssl.SSLContext | None = None,
        trusted: tuple[Network, ...] = LOOPBACK,
        deadline: float = 60.0,
    ) -> None:
        async def whole() -> None:
            world = World(tls, trusted, deadline)
            await world.start()
            async with asyncio.timeout(10):
                await dialogue(world)
            world.server.close()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return run


async def closed_without_a_word(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(("data", "source"), ACCEPTED)
def test_the_gate_opens(play: Callable[..., None], data: bytes, source: str | None) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(data + b"first bytes behind it")
        assert await reader.readexactly(len(f"{source}|") + 21) == f"{source}|first bytes behind it".encode()
        writer.write(b"more")
        assert await reader.readexactly(4) == b"more"
        writer.close()
        await world.lost(world.made[0])
        assert world.made[0].events == ["made", "data", "data", "lost"]

    play(dialogue)


def test_the_gate_opens_byte_by_byte(play: Callable[..., None]) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header(extensions=extension(0x04, b"AB")):
            assert not world.made
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert await reader.readexactly(12) == b"203.0.113.9|"

    play(dialogue)


@pytest.mark.parametrize("data", REFUSED_FIXED + REFUSED_REST)
def test_the_gate_stays_closed(play: Callable[..., None], data: bytes) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(data + header())
        assert await closed_without_a_word(reader)
        assert not world.made

    play(dialogue)


@pytest.mark.parametrize(
    "trusted",
    [
        pytest.param((), id="nobody is trusted"),
        pytest.param((ip_network("10.0.0.0/8"), ip_network("::1/128")), id="others are trusted"),
    ],
)
def test_a_valid_header_from_an_untrusted_peer(
    play: Callable[..., None], trusted: tuple[Network, ...]
) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(header())
        assert await closed_without_a_word(reader)
        assert not world.made

    play(dialogue, trusted=trusted)


def test_a_peer_that_says_nothing_is_closed(play: Callable[..., None]) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(header()[:20])
        assert await closed_without_a_word(reader)
        assert not world.made

    play(dialogue, deadline=0.05)


def test_the_deadline_ends_with_the_header(play: Callable[..., None]) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(header())
        await reader.readexactly(12)
        await asyncio.sleep(0.15)
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"

    play(dialogue, deadline=0.1)


def test_a_peer_that_leaves_midway(play: Callable[..., None]) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(header()[:20])
        writer.write_eof()
        assert await closed_without_a_word(reader)
        assert not world.made

    play(dialogue)


# TLS behind the header

CA = trustme.CA()


@pytest.fixture(scope="module")
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("app.test").configure_cert(context)
    return context


def client_hello_and_finish(
    client: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> bytes | None:
    """One step of the client's handshake: bytes to send, None when it is done."""
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    return None


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(ssl.TLSVersion.TLSv1_2, id="TLS 1.2"),
        pytest.param(ssl.TLSVersion.TLSv1_3, id="TLS 1.3"),
    ],
)
def test_header_hello_and_request_in_the_fewest_writes(
    play: Callable[..., None], server_context: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    """The ClientHello shares a segment with the header, the first request one with the Finished."""

    async def dialogue(world: World) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        CA.configure_trust(context)
        context.minimum_version = context.maximum_version = version
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="app.test")
        reader, writer = await world.connect()
        prefix = header("2001:db8::9")
        while (flight := client_hello_and_finish(client, incoming, outgoing)) is not None:
            writer.write(prefix + flight)
            prefix = b""
            incoming.write(await reader.read(65536))
        client.write(b"the first request")
        writer.write(outgoing.read())
        answer = b""
        while len(answer) < len(b"2001:db8::9|the first request"):
            try:
                answer += client.read(100)
            except ssl.SSLWantReadError:
                incoming.write(await reader.read(65536))
        assert answer == b"2001:db8::9|the first request"
        writer.close()
        await world.lost(world.made[0])
        assert world.made[0].events == ["made", "data", "lost"]

    play(dialogue, tls=server_context)


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n", id="plain HTTP"),
        pytest.param(header(), id="a second header"),
        pytest.param(b"", id="nothing, and the peer leaves"),
    ],
)
def test_what_is_not_tls_behind_the_header(
    play: Callable[..., None], server_context: ssl.SSLContext, behind: bytes
) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(header() + behind)
        writer.write_eof()
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
        assert b"|" not in answer, "at most a TLS alert"
        assert not world.made

    play(dialogue, tls=server_context)


def test_a_peer_that_resets_in_the_handshake(
    play: Callable[..., None], server_context: ssl.SSLContext
) -> None:
    async def dialogue(world: World) -> None:
        _, writer = await world.connect()
        writer.write(header() + b"\x16\x03\x01")
        await writer.drain()
        writer.transport.abort()
        reader, second = await world.connect()  # the next connection is not touched by it
        second.write(b"GET / HTTP/1.1\r\n")
        assert await closed_without_a_word(reader)
        assert not world.made

    play(dialogue, tls=server_context)


def test_a_unix_socket_is_guarded_by_its_file(play: Callable[..., None], tmp_path: Path) -> None:
    async def dialogue(world: World) -> None:
        loop = asyncio.get_running_loop()
        path = str(tmp_path / "gate.sock")
        server = await loop.create_unix_server(
            lambda: ProxyProtocolGate(loop, lambda: Echo(world.made), ()), path
        )
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(header())
        assert await reader.readexactly(12) == b"203.0.113.9|"
        server.close()

    play(dialogue)
