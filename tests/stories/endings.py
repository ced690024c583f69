"""How what is under way ends: WebSockets of a few frames, and whether the audit log tells all of it.

Frames are written and read here by the letter of RFC 6455, with a mask of zeros: what a client says stands
readable in what the app received.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from typer.testing import CliRunner

from tests.stories.house import House
from tests.stories.talking import Wire
from tests.wire.recording import Line
from ztproxy.cli import main

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: " + _ACCEPT + b"\r\n\r\n"
)
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\nOrigin: https://app.test\r\n"
)
TEXT, CLOSE = 0x1, 0x8


class Frame(NamedTuple):
    """`kind` is the opcode."""

    kind: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a close frame."""
        return int.from_bytes(self.payload[:2], "big")


def frame(payload: bytes, *, masked: bool = False) -> bytes:
    """A whole text frame of less than 64 KiB; `masked` as a client must."""
    size, mask = len(payload), 0x80 if masked else 0
    length = bytes((mask | size,)) if size < 126 else bytes((mask | 126,)) + size.to_bytes(2, "big")
    return bytes((0x80 | TEXT,)) + length + (bytes(4) if masked else b"") + payload


def frames(data: bytes) -> Iterator[Frame]:
    """The frames in `data`, unmasked. `ValueError` where it does not end with one of them."""
    while data:
        masked, size, start = data[1] & 0x80, data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        mask = data[start : start + 4] if masked else bytes(4)
        start += 4 if masked else 0
        payload = data[start : start + size]
        if len(payload) < size:
            raise ValueError(f"a frame of {size} octets is cut short after {len(payload)}")
        yield Frame(data[0] & 0xF, bytes(octet ^ mask[i % 4] for i, octet in enumerate(payload)))
        data = data[start + size :]


def request(
    cookie: str, path: str = "/u", fields: bytes = b"", *, method: str = "GET", version: str = "1.1"
) -> bytes:
    """A request's head."""
    shown = f"Cookie: {cookie}\r\n" if cookie else ""
    return f"{method} {path} HTTP/{version}\r\nHost: app.test\r\n{shown}".encode() + fields + b"\r\n"


def opened(wire: Wire, cookie: str, path: str = "/ws") -> Wire:
    """A WebSocket, the app's greeting heard."""
    head = wire.send(request(cookie, path, UPGRADE)).until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    wire.until(frame(b"hello"))
    return wire


def answers(wire: Wire, word: bytes) -> bool:
    """Whether a WebSocket to the echoing app still goes there and back."""
    return wire.send(frame(word, masked=True)).until(frame(word.upper())) != b""


async def echo(line: Line, request: bytes) -> None:
    """An app that answers each word in capitals, in one frame."""
    await line.send(SWITCHED + frame(b"hello"))
    while data := await line.more():
        for one in frames(data):
            if one.kind == TEXT:
                await line.send(frame(one.payload.upper()))


def session_of(home: House, cookie: str) -> str:
    """The public id of a session."""
    answer = home.get("/.ztproxy/user", cookie)
    found = re.search(rb'"sid": "([0-9a-f]+)"', answer.body)
    assert found is not None, answer
    return found[1].decode()


def audit_is_whole(home: House) -> str:
    """What `ztproxy audit verify` says of the house's log, if it did anything worth a record: nothing is
    missing."""
    if not (home.directory / "state" / "audit.log").exists():
        return ""
    said = CliRunner().invoke(main, ["audit", "verify", "--config", str(home.config)])
    assert said.exit_code == 0, said.output
    return said.output
