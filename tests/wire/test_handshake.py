"""Handshakes that begin after the hello was read: asked by name, on both loops, with real clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
import uvloop

from tests.worlds.certificates import CLIENT, SERVER, Authority
from ztproxy.wire.connections import Connections
from ztproxy.wire.handshake import ByName, HelloGate
from ztproxy.wire.limits import Limits
from ztproxy.wire.tls import ClientAuth, ServerTLS, shown_certificate

ROOT = Authority.root()
DEVICES = ROOT.intermediate()
SERVING = ROOT.issue("server", dns=["open.test", "secret.test"], usage=(SERVER,))
LAPTOP = DEVICES.issue("laptop", usage=(CLIENT,))
STRANGER = Authority.root("Strangers").issue("stranger")


class Telling(asyncio.Protocol):
    """Says `name asked shown` at once, then what it receives."""

    peer_address: str | None = "never set"
    carrier: asyncio.Transport | None = None

    def __init__(self, made: list[Telling]) -> None:
        self.events: list[str] = []
        made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast("asyncio.Transport", transport)
        self.events.append("made")
        connection = transport.get_extra_info("ssl_object")
        shown = shown_certificate(connection)
        who = {None: "nobody", LAPTOP.shown: "laptop"}.get(shown, "somebody")
        transport.write(f"{connection.server_name} {connection.asked} {who}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.events.append("data")
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")


class World:
    """A gate on a free port, for a server that asks at every name but `open.test`. With `fixed` it asks at
    every name, and need not know it before."""

    def __init__(self, folder: Path, required: bool, deadline: float, limits: Limits, fixed: bool) -> None:
        (folder / "root.pem").write_bytes(ROOT.pem)
        clients = ClientAuth((str(folder / "root.pem"),), required, lambda name: name != "open.test")
        tls = ServerTLS([SERVING.files(folder)], "1.2", clients)
        self.tls = tls.context if fixed else cast("ByName", tls.by_name)
        self.folder, self.deadline = folder, deadline
        self.room = Connections(asyncio.get_running_loop(), limits)
        self.made: list[Telling] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()

        def gate() -> HelloGate:
            return HelloGate(loop, lambda: Telling(self.made), self.tls, self.room, self.deadline)

        self.server = await loop.create_server(gate, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return reader, writer

    async def s_client(self, *arguments: str) -> str:
        """What the server says to `openssl s_client`, or nothing."""
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{self.port}", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        said = (await client.stdout.readline()).decode()
        client.stdin.close()
        if client.returncode is None:
            client.kill()
        await client.wait()
        return said

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  # the protocol has no event to await
            await asyncio.sleep(0.005)


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run(
        dialogue: Callable[[World], Awaitable[None]],
        required: bool = False,
        deadline: float = 60.0,
        limits: Limits | None = None,
        fixed: bool = False,
    ) -> None:
        async def whole() -> None:
            world = World(tmp_path, required, deadline, limits or Limits(), fixed)
            await world.start()
            async with asyncio.timeout(30):
                await dialogue(world)
            world.server.close()
            await world.until(lambda: len(world.room) == 0)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return run


Play = Callable[..., None]


async def closed(reader: asyncio.StreamReader) -> bool:
    """The server has ended the connection, at most with an alert."""
    try:
        said = await reader.read()
    except ConnectionResetError:
        return True
    return said == b"" or said[:1] == b"\x15"


def client_context(tmp_path: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ROOT.pem.decode())
    context.maximum_version = version
    context.load_cert_chain(*LAPTOP.files(tmp_path))
    return context


class Client:
    """A TLS client whose octets the test sends as it likes."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def flight(self) -> bytes | None:
        """The next octets of its handshake; None when that is done."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self.outgoing.read()
        return None

    async def finish(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The handshake from here on, and `hello` in one segment with its end."""
        self.incoming.write(await reader.read(65536))
        while (flight := self.flight()) is not None:
            writer.write(flight)
            self.incoming.write(await reader.read(65536))
        self.tls.write(b"hello\n")
        writer.write(self.outgoing.read())

    async def lines(self, reader: asyncio.StreamReader, count: int) -> list[str]:
        said = b""
        while said.count(b"\n") < count:
            try:
                said += self.tls.read(1000)
            except ssl.SSLWantReadError:
                self.incoming.write(await reader.read(65536))
        return said.decode().splitlines()


def at_once(hello: bytes) -> list[bytes]:
    return [hello]


def byte_by_byte(hello: bytes) -> list[bytes]:
    return [hello[at : at + 1] for at in range(len(hello))]


def in_many_records(hello: bytes) -> list[bytes]:
    message = hello[5:]
    return [
        b"".join(
            hello[:3] + len(message[at : at + 20]).to_bytes(2) + message[at : at + 20]
            for at in range(0, len(message), 20)
        )
    ]


@pytest.mark.parametrize("split", [at_once, byte_by_byte, in_many_records])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        pytest.param("secret.test", "secret.test True laptop", id="asked"),
        pytest.param("open.test", "open.test False nobody", id="not asked"),
    ],
)
def test_the_hello_in_pieces(
    play: Play,
    tmp_path: Path,
    name: str,
    greeting: str,
    version: ssl.TLSVersion,
    split: Callable[[bytes], list[bytes]],
) -> None:
    """And the first request shares a segment with the end of the handshake."""

    async def dialogue(world: World) -> None:
        client = Client(client_context(tmp_path, version), name)
        reader, writer = await world.connect()
        hello = client.flight()
        assert hello is not None
        for piece in split(hello):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await client.finish(reader, writer)
        assert await client.lines(reader, 2) == [greeting, "hello"]
        writer.close()
        await world.until(lambda: "lost" in world.made[0].events)
        assert world.made[0].events == ["made", "data", "lost"]
        assert world.made[0].peer_address is None

    play(dialogue)


def test_large_answers_and_requests_pass(play: Play, tmp_path: Path) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=client_context(tmp_path), server_hostname="secret.test"
        )
        assert await reader.readline() == b"secret.test True laptop\n"
        data = bytes(range(250)) * 4000
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()

    play(dialogue)


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        pytest.param(["-servername", "secret.test"], "secret.test True nobody\n", id="asked"),
        pytest.param(["-servername", "open.test"], "open.test False nobody\n", id="not asked"),
        pytest.param(["-servername", "OPEN.test."], "open.test False nobody\n", id="in another spelling"),
        pytest.param(["-noservername"], "None True nobody\n", id="no name"),
        pytest.param(["-servername", "127.0.0.1"], "None True nobody\n", id="an address"),
        pytest.param(["-servername", "open.test.."], "None True nobody\n", id="two dots"),
        pytest.param(["-servername", "*.test"], "None True nobody\n", id="a wildcard"),
        pytest.param(["-servername", "x" * 255], "None True nobody\n", id="too long"),
    ],
)
def test_names_as_openssl_sends_them(play: Play, tmp_path: Path, name: list[str], greeting: str) -> None:
    """(X24)"""
    chain, key = LAPTOP.files(tmp_path)

    async def dialogue(world: World) -> None:
        assert await world.s_client(*name) == greeting
        shown = await world.s_client(*name, "-cert", chain, "-cert_chain", chain, "-key", key)
        assert shown == greeting.replace("True nobody", "True laptop")

    play(dialogue)


@pytest.mark.parametrize(
    ("name", "issued", "said"),
    [
        pytest.param("secret.test", LAPTOP, b"secret.test True laptop\n", id="asked"),
        pytest.param("secret.test", STRANGER, b"", id="a stranger's"),
        pytest.param("open.test", STRANGER, b"open.test False nobody\n", id="not asked for"),
    ],
)
def test_certificates_as_curl_shows_them(
    play: Play, tmp_path: Path, name: str, issued: object, said: bytes
) -> None:
    chain, key = (LAPTOP if issued is LAPTOP else STRANGER).files(tmp_path)

    async def dialogue(world: World) -> None:
        client = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--no-buffer", "--http0.9", "--max-time", "20", "--noproxy", "*"),
            *("--cacert", str(tmp_path / "root.pem"), "--cert", chain, "--key", key),
            *("--resolve", f"{name}:{world.port}:127.0.0.1", f"https://{name}:{world.port}/"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert client.stdout is not None
        assert await client.stdout.readline() == said
        if client.returncode is None and said:
            client.kill()
        await client.wait()

    play(dialogue)


def test_a_handshake_without_what_is_required_makes_nothing(play: Play) -> None:
    async def dialogue(world: World) -> None:
        assert await world.s_client("-servername", "SECRET.test.", "-tls1_2") == ""
        assert await world.s_client("-servername", "127.0.0.1", "-tls1_3") == ""
        assert await world.s_client("-noservername") == ""
        assert not world.made
        assert await world.s_client("-servername", "open.test") == "open.test False nobody\n"

    play(dialogue, required=True)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: open.test\r\n\r\n", id="plain HTTP"),
        pytest.param(b"\x16\x03\x01\x00\x05hello", id="a record that holds none"),
        pytest.param(b"\x16\x03\x01\xff\xff" + b"x" * 70000, id="a record too long"),
        pytest.param(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + b"x" * 70000, id="a hello too long"),
        pytest.param(b"\0" * 100, id="zeros"),
    ],
)
def test_garbage(play: Play, data: bytes) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(data)
        assert await closed(reader)
        assert not world.made

    play(dialogue)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x16\x03\x01\x02", id="a beginning"),
        pytest.param(b"whole", id="the hello, and no more"),
    ],
)
def test_a_silent_client_is_closed(play: Play, tmp_path: Path, data: bytes) -> None:
    if data == b"whole":
        data = Client(client_context(tmp_path), "secret.test").flight() or b""

    async def dialogue(world: World) -> None:
        reader, writer = await world.connect()
        writer.write(data)
        await reader.read()  # the server's own flight, if any, and then the end
        assert not world.made

    play(dialogue, deadline=0.3)


def test_the_deadline_ends_with_the_handshake(play: Play, tmp_path: Path) -> None:
    async def dialogue(world: World) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=client_context(tmp_path), server_hostname="open.test"
        )
        await reader.readline()
        await asyncio.sleep(1.2)
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()

    play(dialogue, deadline=1.0)


@pytest.mark.parametrize("reset", [False, True], ids=["leaves", "resets"])
@pytest.mark.parametrize("whole", [False, True], ids=["midway", "behind its hello"])
def test_a_client_that_goes(play: Play, tmp_path: Path, whole: bool, reset: bool) -> None:
    async def dialogue(world: World) -> None:
        hello = Client(client_context(tmp_path), "secret.test").flight() or b""
        reader, writer = await world.connect()
        writer.write(hello if whole else hello[:100])
        if reset:
            await writer.drain()
            writer.transport.abort()
        else:
            writer.write_eof()
            await reader.read()
        assert await world.s_client("-servername", "open.test") == "open.test False nobody\n"
        assert len(world.made) == 1

    play(dialogue)


def test_whoever_waited_longest_makes_way(play: Play, tmp_path: Path) -> None:
    async def dialogue(world: World) -> None:
        first, _ = await world.connect()
        second, writer = await world.connect()
        writer.write(b"\x16")
        assert await world.s_client("-servername", "open.test") == "open.test False nobody\n"
        assert await closed(first), "there was room for two"
        third, _ = await world.connect()
        assert await world.s_client("-servername", "open.test") == "open.test False nobody\n"
        assert await closed(second), "those that said hello have left the room"
        assert not third.at_eof()

    play(dialogue, limits=Limits(connections=2))


@pytest.mark.parametrize("said", ["nothing", "the hello, and no more"])
@pytest.mark.parametrize("fixed", [False, True], ids=["by name", "fixed"])
def test_a_handshake_holds_its_place_until_it_is_over(
    play: Play, tmp_path: Path, fixed: bool, said: str
) -> None:
    """Each address has room for two, whoever else has more; and the place is free again after the end."""

    async def dialogue(world: World) -> None:
        hello = Client(client_context(tmp_path), "secret.test").flight() or b""
        waiting = [await world.connect(), await world.connect()]
        if said != "nothing":
            for reader, writer in waiting:
                writer.write(hello)
                assert (await reader.read(5))[:1] == b"\x16", "the server's flight"
        await world.until(lambda: len(world.room) == 2)
        third, _ = await world.connect()
        assert await closed(third)
        assert (world.room.refused, world.room.evicted, world.made) == (1, 0, [])
        waiting[0][1].transport.abort()
        await world.until(lambda: len(world.room) == 1)
        assert (await world.s_client("-servername", "secret.test")).startswith("secret.test True")
        for _, writer in waiting:
            writer.transport.abort()

    play(dialogue, limits=Limits(connections_per_address=2), fixed=fixed)


@pytest.mark.parametrize("fixed", [False, True], ids=["by name", "fixed"])
def test_a_drain_ends_who_is_in_front_of_the_gate(play: Play, tmp_path: Path, fixed: bool) -> None:
    async def dialogue(world: World) -> None:
        hello = Client(client_context(tmp_path), "secret.test").flight() or b""
        waiting = []
        for data in (b"", hello[:50], hello):
            waiting.append(await world.connect())
            waiting[-1][1].write(data)
        await world.until(lambda: len(world.room) == 3)
        await asyncio.sleep(0.05)
        world.room.drain()
        assert len(world.room) == 0
        waiting.append(await world.connect())  # accepted by a listener that was about to close
        for reader, _ in waiting:
            await reader.read()
        assert not world.made

    play(dialogue, fixed=fixed)


def test_those_who_wait_end_after_the_listener(play: Play, tmp_path: Path) -> None:
    """Nobody is let in any more, and who is in front of the gate is gone within its deadline."""

    async def dialogue(world: World) -> None:
        hello = Client(client_context(tmp_path), "secret.test").flight() or b""
        readers = []
        for data in (b"", hello[:50], hello):
            reader, writer = await world.connect()
            writer.write(data)
            readers.append(reader)
        await asyncio.sleep(0.05)
        world.server.close()
        for reader in readers:
            await reader.read()
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await world.connect()
        assert not world.made

    play(dialogue, deadline=0.3)
