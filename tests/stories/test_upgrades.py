"""WebSocket and other upgrades against a running proxy: who may open a tunnel, and when it is one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest

from tests.evidence import Tried
from tests.stories.house import House, house
from tests.stories.talking import Wire
from tests.wire.recording import Line

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
ORIGIN = b"Origin: https://app.test"
ASKED = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
WEBSOCKET = SWITCHED + b"Upgrade: websocket\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    other = """\
  - from: https://programs.test
    name: programs
    to: http://127.0.0.1:$upstream
    allow_public_unauthenticated_access: true
    upgrades: [websocket]
    allow_missing_origin: true
    allowed_origins: [https://app.test]
  - from: https://quiet.test
    name: quiet
    to: http://127.0.0.1:$upstream
    allow_public_unauthenticated_access: true
"""
    folder = tmp_path_factory.mktemp("upgrades")
    with house(folder, valkey_url, parts={"routes": other}) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> bytes:
    return f"Cookie: {home.sign_in('alice')}".encode()


def asking(
    *fields: bytes, line: bytes = b"GET /ws HTTP/1.1", host: bytes = b"app.test", body: bytes = b""
) -> bytes:
    return b"\r\n".join((line, b"Host: " + host, *fields, b"", b"")) + body


async def echo(line: Line, request: bytes) -> None:
    """An app that opens every WebSocket, greets, and answers what it hears in capitals, until `bye`."""
    await line.send(WEBSOCKET + b"\r\nhello")
    while data := await line.more():
        await line.send(data.upper())
        if b"bye" in data:
            line.close()


def opened(wire: Wire) -> bytes:
    head = wire.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return head


@pytest.mark.parametrize("listener", ["plain", "tls"])
def test_a_tunnel_both_ways(home: House, alice: bytes, listener: str) -> None:
    with home.app.playing(echo), home.wire(listener) as wire:
        # TLS hides the scheme of the Origin from nobody: it is the route's on either listener.
        head = opened(wire.send(asking(alice, ORIGIN, *ASKED)))
        assert (
            b"\r\nUpgrade: websocket\r\n" in head and b"\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n" in head
        )
        assert wire.until(b"hello") == b"hello"
        assert wire.send(b"\x00one\xff").until(b"\xff") == b"\x00ONE\xff"
        wire.send(b"x" * 300_000 + b"two")
        assert wire.until(b"TWO") == b"X" * 300_000 + b"TWO"
        wire.send(b"bye")
        assert wire.rest().data == b"BYE"
    received = home.app.requests[-1]
    assert received.startswith(b"GET /ws HTTP/1.1\r\nHost: app.test\r\n")
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in received
    assert b"\r\nX-Ztproxy-Assertion: " in received and b"ztproxy=" not in received


ORIGINS = [
    pytest.param((b"Origin: https://evil.test",), 403, id="W01 a foreign site"),
    pytest.param((), 403, id="W02 no Origin"),
    pytest.param((b"Origin: null",), 403, id="W03 null"),
    pytest.param((b"Origin: https://app.test.evil.test",), 403, id="W04 ours as a prefix"),
    pytest.param((b"Origin: https://xapp.test",), 403, id="W04 ours as a suffix"),
    pytest.param((b"Origin: http://app.test",), 403, id="W04 another scheme"),
    pytest.param((b"Origin: https://app.test:8443",), 403, id="W04 another port"),
    pytest.param((b"Origin: https://APP.TEST",), 101, id="W04 capitals"),
    pytest.param((ORIGIN,), 101, id="our own"),
    pytest.param((ORIGIN, ORIGIN), 400, id="W05 twice"),
    pytest.param((b"Origin: https://other.test",), 403, id="W06 a sibling"),
]


MALFORMED = [
    pytest.param(asking(ORIGIN, *ASKED, line=b"POST /ws HTTP/1.1"), id="W11 POST"),
    pytest.param(asking(ORIGIN, *ASKED, line=b"GET /ws HTTP/1.0"), id="W11 HTTP/1.0"),
    pytest.param(asking(ORIGIN, *ASKED, b"Content-Length: 3", body=b"abc"), id="W11 a length"),
    pytest.param(
        asking(ORIGIN, *ASKED, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        id="W11 chunked",
    ),
    pytest.param(asking(ORIGIN, *ASKED[:3]), id="W12 no key"),
    pytest.param(asking(ORIGIN, *ASKED[:3], b"Sec-WebSocket-Key: c2hvcnQ="), id="W12 a short key"),
    pytest.param(
        asking(ORIGIN, *ASKED[:3], b"Sec-WebSocket-Key: ####IHNhbXBsZSBub25jZQ=="), id="W12 no base64"
    ),
    pytest.param(asking(ORIGIN, *ASKED, b"Sec-WebSocket-Key: " + KEY), id="W12 two keys"),
    pytest.param(asking(ORIGIN, *ASKED, b"Upgrade: websocket"), id="two upgrades"),
]


@pytest.mark.parametrize(
    ("fields", "status"),
    ORIGINS,
)
def test_the_origin_decides(home: House, alice: bytes, fields: tuple[bytes, ...], status: int) -> None:
    before = len(home.app.received)
    with home.app.playing(echo), home.wire() as wire:
        head = wire.send(asking(alice, *ASKED, *fields)).until(b"\r\n\r\n")
        assert int(head[9:12]) == status
        if status == 101:
            wire.until(b"hello")
            return
    assert len(home.app.received) == before


@pytest.mark.parametrize(
    "data",
    MALFORMED,
)
def test_malformed_handshakes(home: House, alice: bytes, data: bytes) -> None:
    before = len(home.app.received)
    sent = data.replace(b"Host: app.test\r\n", b"Host: app.test\r\n" + alice + b"\r\n")
    with home.wire() as wire:
        answer = wire.send(sent).rest()
    assert (answer.status, answer.fields("Connection"), answer.data.count(b"HTTP/1.1 ")) == (
        400,
        ["close"],
        1,
    )
    assert len(home.app.received) == before


NO_TUNNELS = [
    pytest.param(
        SWITCHED + b"Upgrade: websocket\r\nSec-WebSocket-Accept: " + KEY + b"\r\n",
        (),
        id="W08 a wrong accept",
    ),
    pytest.param(SWITCHED + b"Upgrade: websocket\r\n", (), id="W08 no accept"),
    pytest.param(SWITCHED + b"Upgrade: h2c\r\n", (), id="W10 h2c"),
    pytest.param(
        WEBSOCKET + b"Sec-WebSocket-Protocol: c\r\n",
        (b"Sec-WebSocket-Protocol: a,b",),
        id="W14 not offered",
    ),
    pytest.param(WEBSOCKET + b"Sec-WebSocket-Protocol: a\r\n", (), id="W14 none was offered"),
]


@pytest.mark.parametrize(
    ("answer", "asked"),
    NO_TUNNELS,
)
def test_a_101_that_is_none(home: House, alice: bytes, answer: bytes, asked: tuple[bytes, ...]) -> None:
    async def play(line: Line, request: bytes) -> None:
        await line.send(answer + b"\r\nEVIL")

    with home.app.playing(play), home.wire() as wire:
        # Frames that came early go nowhere.
        heard = wire.send(asking(alice, ORIGIN, *ASKED, *asked) + b"early frames").rest()
    assert (heard.status, heard.closed, b"EVIL" in heard.data) == (502, True, False)
    assert b"early frames" not in home.app.received


TRIED = (
    Tried(
        "WebSockets",
        "who asks for a tunnel, by Origin",
        len(ORIGINS),
        len(ORIGINS),
        "a tunnel for the site itself, else 403 or 400, and nothing for the app",
    ),
    Tried(
        "WebSockets", "malformed handshakes", len(MALFORMED), len(MALFORMED), "400, and nothing for the app"
    ),
    Tried(
        "WebSockets",
        "answers that switch to something nobody asked for",
        len(NO_TUNNELS),
        len(NO_TUNNELS),
        "502, and no frame passes either way",
    ),
)


def test_a_chosen_protocol_that_was_offered(home: House, alice: bytes) -> None:
    """W14, the good case."""

    async def play(line: Line, request: bytes) -> None:
        await line.send(WEBSOCKET + b"Sec-WebSocket-Protocol: b\r\n\r\nhello")

    with home.app.playing(play), home.wire() as wire:
        head = opened(wire.send(asking(alice, ORIGIN, *ASKED, b"Sec-WebSocket-Protocol: a, b")))
        assert b"\r\nSec-WebSocket-Protocol: b\r\n" in head
        wire.until(b"hello")


def test_an_app_that_does_not_upgrade(home: House, alice: bytes) -> None:
    """W07: 426 is an answer like another; what follows is HTTP again, and judged."""
    refusal = b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno"
    version = b"Sec-WebSocket-Version: 1337"
    with home.wire() as wire:
        with home.app.answers(refusal):
            head = wire.send(asking(alice, ORIGIN, *ASKED[:2], version, ASKED[3])).until(b"\r\n\r\nno")
        assert head.startswith(b"HTTP/1.1 426 ") and b"\r\nSec-WebSocket-Version: 13\r\n" in head
        before = len(home.app.requests)
        wire.send(asking(line=b"GET /admin HTTP/1.1"))
        assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
        assert len(home.app.requests) == before


def test_frames_before_the_101_wait_for_it(home: House, alice: bytes) -> None:
    """W13."""
    gate = home.shut_gate()

    async def play(line: Line, request: bytes) -> None:
        await gate.wait()
        await echo(line, request)

    with home.app.playing(play), home.wire() as wire:
        before = home.app.received.count(b"early")
        wire.send(asking(alice, ORIGIN, *ASKED) + b"early")
        # Another request on another connection goes its whole way meanwhile.
        assert home.get("/.well-known/ztproxy/jwks.json").status == 200
        assert home.app.received.count(b"early") == before
        gate.open()
        opened(wire)
        assert wire.until(b"EARLY") == b"helloEARLY"


def test_a_tunnel_needs_a_session(home: House) -> None:
    before = len(home.app.received)
    for cookie in (b"X: y", b"Cookie: __Host-ztproxy=v1.forged.forged"):
        with home.wire() as wire:
            assert wire.send(asking(cookie, ORIGIN, *ASKED)).until(b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
    assert len(home.app.received) == before


def test_what_a_route_opts_into(home: House) -> None:
    with home.app.playing(echo):
        for fields in ((), (ORIGIN,)):
            with home.wire() as wire:
                opened(wire.send(asking(*ASKED, *fields, host=b"programs.test")))
    with home.wire() as wire:
        origin = b"Origin: https://evil.test"
        head = wire.send(asking(*ASKED, origin, host=b"programs.test")).until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
    before = len(home.app.received)
    with home.wire() as wire:
        origin = b"Origin: https://quiet.test"
        head = wire.send(asking(*ASKED, origin, host=b"quiet.test")).until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
    assert len(home.app.received) == before


def test_the_client_leaves(home: House, alice: bytes) -> None:
    ends = home.shut_gate()

    async def play(line: Line, request: bytes) -> None:
        await line.send(WEBSOCKET + b"\r\nhello")
        while await line.more():
            pass
        ends.open()

    with home.app.playing(play):
        with home.wire() as wire:
            opened(wire.send(asking(alice, ORIGIN, *ASKED)))
            wire.until(b"hello")
        home.run(ends.wait())
