"""Those who ask in the device bench: as much as goes, or now and then; over TLS with a certificate, or plain.

Knows: just enough HTTP/1.1. Promises: every answer is looked at, its status and its body; what is not the
right answer ends the measurement with its words. All run in this process, on one core.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from bench import machine, nginx

BODY = b"x" * nginx.BODY_BYTES
CONNECTIONS = 64
PATIENCE = 20.0
"""Seconds for anything that somebody waits for."""


class Way(NamedTuple):
    """How to come to a listener, and as whom."""

    port: int
    host: str
    cookie: str
    tls: ssl.SSLContext | None

    def request(self, path: str = "/") -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nCookie: {self.cookie}\r\n\r\n".encode()

    def to(self, port: int) -> Way:
        """The same request, in plain HTTP at another port."""
        return self._replace(port=port, tls=None)


class Load(NamedTuple):
    """What was asked and answered in `seconds`, and the CPU seconds that those asked had."""

    requests: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def busy(self) -> float:
        """Their share of a core."""
        return self.cpu / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu / self.requests * 1e6


class _Asking(asyncio.Protocol):
    """One connection of a crowd."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd, self._request = crowd, crowd.way.request()
        self._came = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self) -> None:
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._came:
            data = self._came + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or (len(data) < end + 4 + len(BODY) and data.startswith(b"HTTP/1.1 200 ")):
            self._came = data
            return
        self._came = b""
        if not (data.startswith(b"HTTP/1.1 200 ") and data[end + 4 :] == BODY):
            self._crowd.wrong(data)
        elif self._crowd.answered():
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.wrong(self._came or b"a connection was closed")

    def close(self) -> None:
        self._transport.abort()


class Crowd:
    """So many connections on one way, which stay. `pids` are who is asked: their CPU is counted."""

    def __init__(self, way: Way, pids: tuple[int, ...], size: int = CONNECTIONS) -> None:
        self.way, self._pids, self._size = way, pids, size
        self._members: list[_Asking] = []
        self._asking, self._answers, self._waiting = False, 0, 0
        self._done: asyncio.Future[None] | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Crowd]:
        loop, way = asyncio.get_running_loop(), self.way
        name = way.host if way.tls else None
        try:
            for _ in range(self._size):
                _, one = await loop.create_connection(
                    lambda: _Asking(self), "127.0.0.1", way.port, ssl=way.tls, server_hostname=name
                )
                self._members.append(one)
            yield self
        finally:
            for one in self._members:
                one.close()

    async def ask(self, seconds: float) -> Load:
        """Each asks again as soon as it has its answer; all who asked are waited for. Raises `CannotMeasure`
        for one wrong answer."""
        loop = asyncio.get_running_loop()
        done = self._done = loop.create_future()
        self._asking, self._answers, self._waiting = True, 0, len(self._members)
        cpu, began = cpu_of(*self._pids), perf_counter()
        for one in self._members:
            one.ask()
        timer = loop.call_later(seconds, self._enough)
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                await done
        except TimeoutError as error:
            raise machine.CannotMeasure(f"{self.way.host} at {self.way.port} does not answer") from error
        finally:
            timer.cancel()
            self._done = None
        return Load(self._answers, perf_counter() - began, cpu_of(*self._pids) - cpu)

    def answered(self) -> bool:
        """Whether to ask again."""
        self._answers += 1
        if self._asking:
            return True
        self._waiting -= 1
        if not self._waiting and self._done is not None and not self._done.done():
            self._done.set_result(None)
        return False

    def wrong(self, said: bytes) -> None:
        self._asking = False
        if self._done is not None and not self._done.done():
            what = f"{self.way.host} at {self.way.port} answers {said[:300]!r}"
            self._done.set_exception(machine.CannotMeasure(what))

    def _enough(self) -> None:
        self._asking = False


async def ask(way: Way, path: str = "/") -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    name = way.host if way.tls else None
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", way.port, ssl=way.tls, server_hostname=name
        )
        try:
            return await _exchange(reader, writer, way.request(path))
        finally:
            writer.transport.abort()


async def answers(way: Way) -> bool:
    return await ask(way) == (200, BODY)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(head[9:12]), await reader.readexactly(int(rest.split(b"\r\n")[0]) if found else 0)


class Beside:
    """What somebody noticed who went on with their own work: the seconds of each turn, and what failed."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed = 0


@contextlib.asynccontextmanager
async def beside(turn: Callable[[], Awaitable[bool]], every: float) -> AsyncIterator[Beside]:
    """The block, and beside it one turn after the other, `every` so many seconds. A turn answers whether it
    went well."""
    seen, over = Beside(), asyncio.Event()

    async def run() -> None:
        while not over.is_set():
            began = perf_counter()
            try:
                well = await turn()
            except (OSError, EOFError, TimeoutError):
                well = False
            seen.failed += not well
            seen.seconds.append(perf_counter() - began)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), max(0.0, every - seen.seconds[-1]))

    running = asyncio.create_task(run())
    try:
        yield seen
    finally:
        over.set()
        await running


class Door:
    """A connection that stays, for one request at a time."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def lets_in(self) -> bool:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                "127.0.0.1", self._way.port, ssl=self._way.tls, server_hostname=self._way.host
            )
        return await _exchange(*self._streams, self._way.request()) == (200, BODY)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()


async def lookups(
    looks: Mapping[str, Callable[[str], Awaitable[object]]], id: str, times: int
) -> dict[str, float]:
    """Microseconds of one look, the median, for each; they take turns."""
    took: dict[str, list[float]] = {name: [] for name in looks}
    for _ in range(times):
        for name, look in looks.items():
            began = perf_counter()
            if await look(id) is None:
                raise machine.CannotMeasure(f"`{id}` is not in the inventory")
            took[name].append((perf_counter() - began) * 1e6)
    return {name: round(median(values), 1) for name, values in took.items()}


def cpu_of(*pids: int) -> float:
    """Seconds of CPU that they have had so far."""
    tasks = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in tasks) / 1e9
