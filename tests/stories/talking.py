"""Talking in bytes: raw connections to a proxy, the recording app behind it, and waiting for either.

The app (`tests.wire.recording`) and everything else that is asynchronous runs on a loop in a thread of this
process (`Background`), so that tests are plain functions over plain sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from tests.wire.recording import OK, Line, Recording

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which a test that waits has failed; nothing is asserted about shorter times."""


class Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.begin(work).result(PATIENCE * 3)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Gate:
    """Something that somebody in the background waits for, and a test lets happen."""

    def __init__(self, background: Background, opened: bool = False) -> None:
        self._loop = background.loop
        self._event = asyncio.Event()
        if opened:
            self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._event.clear)


class App:
    """The recording app. `requests` are whole requests in order of arrival; `play` answers the next ones."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.play: Callable[[Line, bytes], Awaitable[None]] = answering(OK)
        self.recording = Recording(self._serve)

    async def _serve(self, line: Line) -> None:
        while True:
            request = await line.request()
            self.requests.append(request)
            await self.play(line, request)

    @property
    def port(self) -> int:
        return self.recording.port

    @property
    def connections(self) -> int:
        return len(self.recording.lines)

    @property
    def received(self) -> bytes:
        return self.recording.received

    @contextlib.contextmanager
    def playing(self, play: Callable[[Line, bytes], Awaitable[None]]) -> Iterator[None]:
        self.play = play
        try:
            yield
        finally:
            self.play = answering(OK)

    def answers(self, data: bytes, *, close: bool = False) -> contextlib.AbstractContextManager[None]:
        return self.playing(answering(data, close=close))


def answering(data: bytes, *, close: bool = False) -> Callable[[Line, bytes], Awaitable[None]]:
    async def play(line: Line, request: bytes) -> None:
        await line.send(data)
        if close:
            line.close()

    return play


class Heard(NamedTuple):
    """What came back on a connection; `closed` when its end was seen, `reset` when it was no clean one."""

    data: bytes
    closed: bool
    reset: bool = False

    @property
    def status(self) -> int:
        return int(self.data[9:12]) if self.data.startswith(b"HTTP/1.1 ") else 0

    @property
    def head(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    def fields(self, name: str) -> list[str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}: ")]


class Sending(NamedTuple):
    """Bytes for a new connection: whole (`cut` is None), a byte at a time (0), or cut in two at an offset."""

    data: bytes
    listener: str = "plain"
    cut: int | None = None

    def pieces(self) -> list[bytes]:
        if self.cut is None:
            return [self.data]
        if self.cut == 0:
            return [bytes((byte,)) for byte in self.data]
        return [self.data[: self.cut], self.data[self.cut :]]


class Wire:
    """A raw connection to a listener."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self.socket = connection
        self.data = b""

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def until(self, mark: bytes) -> bytes:
        """Everything up to and including `mark`; the rest stays for the next call. `EOFError` if it ends."""
        while mark not in self.data:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError(f"ended after {self.data!r}")
            self.data += more
        end = self.data.index(mark) + len(mark)
        found, self.data = self.data[:end], self.data[end:]
        return found

    def ok(self) -> bytes:
        """One answer of the recording app, as it answers if not told otherwise."""
        return self.until(b"\r\n\r\nok")

    def rest(self) -> Heard:
        """All until the connection ends."""
        reset = False
        try:
            while more := self.socket.recv(65536):
                self.data += more
        except (ConnectionError, ssl.SSLEOFError):
            reset = True
        found, self.data = self.data, b""
        return Heard(found, True, reset)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def until(condition: Callable[[], object]) -> None:
    """Waits for something the world will do; the test fails if it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Ports that are free now, each given out once in this process, and from below those the kernel gives to
    outgoing connections: only another process that draws the same number could take one first."""
    return {name: _free_port() for name in names}


_given: set[int] = set()
_draw = random.SystemRandom()  # plug-ins of pytest seed the common one


def _free_port() -> int:
    while True:
        port = _draw.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in _given:
                _given.add(port)
                return port
