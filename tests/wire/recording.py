"""A recording upstream: it keeps every byte it gets and plays what a test tells it to, byte for byte.

A *play* is a coroutine over one connection; connections take the plays in order and the last one is repeated.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Line:
    """One connection, seen from the app: what it read, and the ways to answer and to misbehave."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.received = b""
        self.ended = asyncio.Event()

    async def more(self, size: int = 65536) -> bytes:
        data = await self._reader.read(size)
        self.received += data
        return data

    async def until(self, mark: bytes) -> bytes:
        data = await self._reader.readuntil(mark)
        self.received += data
        return data

    async def request(self) -> bytes:
        """One whole request, its body as it came."""
        head = await self.until(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
        if length:
            body = await self._reader.readexactly(int(length[1]))
            self.received += body
            return head + body
        if b"\r\nTransfer-Encoding: chunked\r\n" in head:
            return head + await self.until(b"0\r\n\r\n")
        return head

    async def send(self, data: bytes, split: bool = False) -> None:
        pieces = [data[i : i + 1] for i in range(len(data))] if split else [data]
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    def pause(self) -> None:
        self._writer.transport.pause_reading()

    def half_close(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Play = Callable[[Line], Awaitable[None]]


def answers(data: bytes, *, split: bool = False) -> Play:
    """Answers every request with these bytes and stays."""

    async def play(line: Line) -> None:
        while True:
            await line.request()
            await line.send(data, split)

    return play


def answers_once(data: bytes, *, reset: bool = False) -> Play:
    """Answers one request with these bytes, then closes (or resets)."""

    async def play(line: Line) -> None:
        await line.request()
        await line.send(data)
        if reset:
            await asyncio.sleep(0.05)
            line.reset()
        else:
            line.close()

    return play


async def silent(line: Line) -> None:
    """Reads everything and says nothing."""
    while await line.more():
        pass


class Recording:
    """The server; `lines` are its connections so far, `received` all their bytes."""

    def __init__(self, *plays: Play) -> None:
        self.plays = list(plays) or [answers(OK)]
        self.lines: list[Line] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Recording:
        self._server = await asyncio.start_server(self._met, "127.0.0.1", 0, limit=2**24)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self.lines:
            line.close()

    @property
    def received(self) -> bytes:
        return b"".join(line.received for line in self.lines)

    @property
    def requests(self) -> int:
        return len(re.findall(rb"(?:^|\n|\r\n\r\n.*?)[A-Z]+ /\S* HTTP/1\.1\r\n", self.received))

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(reader, writer)
        self.lines.append(line)
        play = self.plays[min(len(self.lines), len(self.plays)) - 1]
        try:
            await play(line)
            while await line.more():
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # gone, or the test is over
        finally:
            line.ended.set()
            writer.close()
