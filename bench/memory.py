"""What a worker keeps in memory: for an idle connection, an idle WebSocket, and while much passes through."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping

from bench import machine
from bench.subject import Subject

CHUNK = bytes(256 * 1024)
_AT_ONCE = 50
_SETTLE = 2.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def idle_connections(subject: Subject, count: int) -> float:
    """Bytes for each kept-alive connection after one request."""
    request = _head("GET / HTTP/1.1", subject.headers["app"])
    return await _each(subject, count, lambda: _asked(subject.port, request))


async def idle_websockets(subject: Subject, count: int) -> float:
    """Bytes for each open WebSocket, both of its connections included."""
    headers = subject.headers["live"]
    handshake = {
        **headers,
        "Origin": f"http://{headers['Host']}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    request = _head("GET /ws HTTP/1.1", handshake)
    return await _each(subject, count, lambda: _asked(subject.port, request, expected=b"101"))


async def growth(subject: Subject, size: int, *, upload: bool) -> int:
    """The most bytes the worker had above what it began with, while `size` bytes passed through it."""
    before = machine.resident(subject.worker)
    passing = asyncio.create_task(_upload(subject, size) if upload else _download(subject, size))
    most = before
    while not passing.done():
        await asyncio.wait([passing], timeout=0.1)
        most = max(most, machine.resident(subject.worker))
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
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                else:
                    left = int(target[1:] or 0)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
                    await _write_out(writer, left)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port, limit=len(CHUNK)):
        yield


async def _each(subject: Subject, count: int, opened: object) -> float:
    assert callable(opened)
    # A few first, so that what is made once (pools, caches, code) is not counted as a connection's.
    first = [await opened() for _ in range(10)]
    await asyncio.sleep(_SETTLE)
    before = machine.resident(subject.worker)
    kept: list[Connection] = []
    try:
        while len(kept) < count:
            kept += await asyncio.gather(*(opened() for _ in range(min(_AT_ONCE, count - len(kept)))))
        await asyncio.sleep(_SETTLE)
        grown = machine.resident(subject.worker) - before
        if any(reader.at_eof() for reader, _ in kept):
            raise machine.CannotMeasure("the proxy closed connections that were to be kept")
        return grown / count
    finally:
        for _, writer in (*first, *kept):
            writer.transport.abort()


async def _asked(port: int, request: bytes, *, expected: bytes = b"200") -> Connection:
    """A connection that has had one complete answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if head.split(b" ", 2)[1] != expected:
        raise machine.CannotMeasure(f"unexpected answer: {head.decode('latin-1')}")
    if expected == b"200":
        await reader.readexactly(_length(head))
    return reader, writer


async def _download(subject: Subject, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", subject.port, limit=len(CHUNK))
    writer.write(_head(f"GET /{size} HTTP/1.1", subject.headers["transfer"]))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200") or _length(head) != size:
        raise machine.CannotMeasure(f"the download began with: {head.decode('latin-1')}")
    await _read_away(reader, size)
    writer.close()


async def _upload(subject: Subject, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
    writer.write(_head("PUT /x HTTP/1.1", {**subject.headers["transfer"], "Content-Length": str(size)}))
    await _write_out(writer, size)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
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
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise machine.CannotMeasure("a head without Content-Length")
