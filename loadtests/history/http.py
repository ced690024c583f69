"""Just enough HTTP/1.1 to ask a proxy quickly and to speak in streams, on either side of it.

Knows: heads, lengths, chunks, unmasked reading of frames. Promises: every wait has an end or is its caller's.
A piece of a stream is the moment it was sent, as text between angle brackets, so that whoever receives it
knows without asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import NamedTuple

PATIENCE = 2.0
"""Seconds a client waits for an answer before it gives up."""

EVERY = 0.025
"""Seconds between two pieces of a stream."""

_PIECE = re.compile(rb"<(\d+\.\d{9})>")
_LONGEST_PIECE = 40
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Answer(NamedTuple):
    status: int
    head: str
    body: bytes

    def fields(self, name: str) -> list[str]:
        found = re.findall(rf"(?im)^{name}: (.*?)\r?$", self.head)
        return [str(one) for one in found]

    def field(self, name: str) -> str:
        return next(iter(self.fields(name)), "")


class Connection:
    """A client's connection to the worker at `port`, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises `OSError` or `TimeoutError`."""
        if self._pair is None:
            async with asyncio.timeout(PATIENCE):
                self._pair = await asyncio.open_connection("127.0.0.1", self._port)
        return self._pair

    async def ask(
        self, target: str, cookie: str = "", *, page: bool = False, form: bytes | None = None
    ) -> Answer:
        """One request and its answer. Raises `OSError`, `EOFError` or `TimeoutError`, and is closed then."""
        try:
            reader, writer = await self.open()
            async with asyncio.timeout(PATIENCE):
                writer.write(head(target, cookie, page=page, form=form))
                answer = await read_answer(reader)
        except (OSError, EOFError, TimeoutError):
            self.close()
            raise
        if answer.field("connection").lower() == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._pair is not None:
            self._pair[1].transport.abort()
            self._pair = None


def head(
    target: str, cookie: str = "", more: str = "", *, page: bool = False, form: bytes | None = None
) -> bytes:
    """The head of a request, and its body if it is a form."""
    lines = [f"{'GET' if form is None else 'POST'} {target} HTTP/1.1", "Host: app.test"]
    if cookie:
        lines.append(f"Cookie: {cookie}")
    if page:
        lines += ["Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]
    if form is not None:
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(form)}"]
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode() + (form or b"")


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One answer with a length."""
    raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"(?i)\r\ncontent-length: (\d+)", raw)
    body = await reader.readexactly(int(length[1])) if length else b""
    return Answer(int(raw[9:12]), raw, body)


# -- streams ----------------------------------------------------------------------------------------------


def asking_for(kind: str, target: str, cookie: str) -> bytes:
    """The head that opens a stream: `socket` both ways, `down` or `up`."""
    if kind == "socket":
        upgrade = f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\nOrigin: https://app.test\r\n"
        return head(target, cookie, f"Connection: Upgrade\r\nUpgrade: websocket\r\n{upgrade}")
    if kind == "up":
        return head(target, cookie, "Transfer-Encoding: chunked\r\n").replace(b"GET", b"POST", 1)
    return head(target, cookie)


def accepting(kind: str) -> bytes:
    """The app's answer to that; none to an upload that goes on."""
    if kind == "socket":
        accept = b64encode(sha1(_KEY.encode() + _GUID, usedforsecurity=False).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" if kind == "down" else b""


def _frame(piece: bytes) -> bytes:
    return b"\x82%c%b" % (len(piece), piece)


def _masked(piece: bytes) -> bytes:
    return b"\x82%c\0\0\0\0%b" % (0x80 | len(piece), piece)  # by a key that leaves it readable


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


CLIENT_SENDS: dict[str, Callable[[bytes], bytes]] = {"socket": _masked, "up": _chunk}
APP_SENDS: dict[str, Callable[[bytes], bytes]] = {"socket": _frame, "down": _chunk}


async def talk(writer: asyncio.StreamWriter, wrap: Callable[[bytes], bytes] | None) -> None:
    """Sends a piece every moment until the connection is gone, or never any."""
    with contextlib.suppress(OSError):
        while wrap is not None and not writer.is_closing():
            writer.write(wrap(b"<%.9f>" % time.monotonic()))
            await writer.drain()
            await asyncio.sleep(EVERY)


async def listen(reader: asyncio.StreamReader, heard: Callable[[float], None]) -> bytes:
    """Tells of each piece when it was sent, until the stream ends; answers how it began."""
    rest = began = b""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            began = began or data[:300]
            rest += data
            end = 0
            for piece in _PIECE.finditer(rest):
                heard(float(piece[1]))
                end = piece.end()
            rest = rest[end:][-_LONGEST_PIECE:]
    return began
