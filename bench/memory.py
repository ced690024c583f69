"""What a process keeps in memory: for each of many things that stay, and while much passes through.

Knows: how a client opens a connection, a WebSocket, a transfer, and `/proc`. Promises: what is measured was
answered rightly and is still open when it is counted. Leaves the process, and who is signed in, to its
caller. Figures are of resident memory: what the allocator keeps beyond what is in use counts, as it does on
the machine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from bench import machine

CHUNK = bytes(256 * 1024)
SETTLE = 0.6
"""Seconds in which a process comes to rest: longer than its housekeeping's interval."""

_AT_ONCE = 50
_FIRST = 20
_TRIES = 4

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Door:
    """Where the process `pid` answers on loopback, and what its client sends. `trust` where it is TLS."""

    pid: int
    port: int
    headers: Mapping[str, str]
    trust: ssl.SSLContext | None = None

    async def asked(self, headers: Mapping[str, str], path: str = "/", *, expected: int = 200) -> Connection:
        """A connection that has had one complete answer."""
        name = "localhost" if self.trust is not None else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trust, server_hostname=name
        )
        await ask((reader, writer), headers, path, expected=expected)
        return reader, writer


@contextlib.asynccontextmanager
async def kept_connections(door: Door, count: int, batches: int) -> AsyncIterator[list[float]]:
    """Bytes for each of `count` connections that are kept alive after one request, for as long as the block,
    by batch."""
    async with _kept(door.pid, lambda: door.asked(door.headers), count, batches) as each:
        yield each


@contextlib.asynccontextmanager
async def kept_websockets(door: Door, path: str, count: int, batches: int) -> AsyncIterator[list[float]]:
    """Bytes for each of `count` WebSockets, their connections to the app included, that stay open for as long
    as the block, by batch."""
    handshake = {
        **door.headers,
        "Origin": f"{'http' if door.trust is None else 'https'}://{door.headers['Host']}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    async with _kept(door.pid, lambda: door.asked(handshake, path, expected=101), count, batches) as each:
        yield each


async def growth(door: Door, size: int, *, upload: bool) -> int:
    """The most bytes the process had above what it began with, while `size` bytes passed through it to or
    from a `transfer_server`."""
    before = machine.resident(door.pid)
    passing = asyncio.create_task(_upload(door, size) if upload else _download(door, size))
    most = before
    while not passing.done():
        await asyncio.wait([passing], timeout=0.1)
        most = max(most, machine.resident(door.pid))
    await passing
    return most - before


@contextlib.asynccontextmanager
async def transfer_server(port: int) -> AsyncIterator[None]:
    """`GET /N` answers N bytes, `PUT` reads the body and says how much it was. No framework in the way."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target = head.split(b" ", 2)[:2]
                if method == b"PUT":
                    left = _length(head)
                    await _read_away(reader, left)
                    writer.write(b"HTTP/1.1 200 OK\r\nX-Got: %d\r\nContent-Length: 0\r\n\r\n" % left)
                else:
                    left = int(target[1:] or 0)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
                    await _write_out(writer, left)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port, limit=len(CHUNK)):
        yield


async def ask(
    connection: Connection, headers: Mapping[str, str], path: str = "/", *, expected: int = 200
) -> None:
    """One request, and its answer to the end. Raises `CannotMeasure` unless it is the expected one. A 503, as
    a proxy gives that had to stand still on a busy machine until its lease lapsed, is asked again: what stays
    in memory afterwards is the same."""
    reader, writer = connection
    for left in reversed(range(_TRIES)):
        writer.write(_head(f"GET {path} HTTP/1.1", headers))
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status != 101:
            await reader.readexactly(_length(head))
        if status == expected:
            return
        if status != 503 or not left:
            raise machine.CannotMeasure(f"unexpected answer: {head.decode('latin-1')}")
        await asyncio.sleep(SETTLE)


async def grown_by(
    pid: int, count: int, batches: int, add: Callable[[int], Awaitable[object]]
) -> list[float]:
    """Bytes for each of `count` things, by batch; `add(n)` has `pid` keep n more."""
    await asyncio.sleep(SETTLE)
    grown, before = [], machine.resident(pid)
    for batch in range(batches):
        more = count * (batch + 1) // batches - count * batch // batches
        await add(more)
        await asyncio.sleep(SETTLE)
        now = machine.resident(pid)
        grown.append((now - before) / more)
        before = now
    return grown


@contextlib.asynccontextmanager
async def _kept(
    pid: int, opened: Callable[[], Awaitable[Connection]], count: int, batches: int
) -> AsyncIterator[list[float]]:
    # A few first, so that what is made once (pools, caches, code) is not counted as a connection's.
    kept = [await opened() for _ in range(_FIRST)]

    async def more(count: int) -> None:
        for begun in range(0, count, _AT_ONCE):
            kept.extend(await asyncio.gather(*(opened() for _ in range(min(_AT_ONCE, count - begun)))))

    try:
        each = await grown_by(pid, count, batches, more)
        if any(reader.at_eof() for reader, _ in kept):
            raise machine.CannotMeasure("the proxy closed connections that were to be kept")
        yield each
    finally:
        for _, writer in kept:
            writer.transport.abort()


async def _download(door: Door, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=len(CHUNK))
    writer.write(_head(f"GET /{size} HTTP/1.1", door.headers))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200") or _length(head) != size:
        raise machine.CannotMeasure(f"the download began with: {head.decode('latin-1')}")
    await _read_away(reader, size)
    writer.close()


async def _upload(door: Door, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(_head("PUT /x HTTP/1.1", {**door.headers, "Content-Length": str(size)}))
    await _write_out(writer, size)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200") or _number(head, b"x-got") != size:
        raise machine.CannotMeasure(f"the upload ended with: {head.decode('latin-1')}")
    writer.close()


async def _read_away(reader: asyncio.StreamReader, left: int) -> None:
    while left:
        chunk = await reader.read(min(left, len(CHUNK)))
        if not chunk:
            raise machine.CannotMeasure(f"the connection ended {left} bytes early")
        left -= len(chunk)


async def _write_out(writer: asyncio.StreamWriter, left: int) -> None:
    while left:
        sent = CHUNK[:left]
        writer.write(sent)
        await writer.drain()
        left -= len(sent)


def _head(line: str, headers: Mapping[str, str]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _length(head: bytes) -> int:
    return _number(head, b"content-length")


def _number(head: bytes, field: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == field:
            return int(value)
    raise machine.CannotMeasure(f"a head without {field.decode()}")
