"""Those who ask, wait and revoke in the revocation bench, all in one process so that there is one clock.

Knows: just enough HTTP/1.1. Promises: the moment of an answer is that of its arrival here, taken before
anybody is woken up for it; every wait has an end. Moments are `time.perf_counter()`, for uvloop's own clock
counts whole milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from bench import machine

HOST = "app.test"
COOKIE = "__Host-ztproxy"
PATIENCE = 20.0
"""Seconds for anything that somebody waits for; `START` for what has to be started first."""

START = 60.0
PROBE_PAUSE = 0.002
"""Seconds between an answer and the next request of who asks without end: closer together, those who ask
would be the load that is measured."""

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CLOSE_1008 = b"\x03\xf0"

T = TypeVar("T")


class Answer(NamedTuple):
    """`began`: before the first octet of the request left; `at`: when the answer was complete."""

    status: int
    body: bytes
    began: float
    at: float


class Connection(asyncio.Protocol):
    """A client's connection, opened when it is needed and again when it was closed; one request at a time.

    `to` is a port of this machine or the path of a unix socket.
    """

    def __init__(self, to: int | str) -> None:
        self._to = to
        self._transport: Any = None
        self._came = b""
        self._began = 0.0
        self._waiting: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Raises `CannotMeasure` where no answer comes."""
        self._began, self._came = perf_counter(), b""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()
        self._waiting = waiting
        try:
            async with asyncio.timeout(PATIENCE):
                if self._transport is None or self._transport.is_closing():
                    await self._open(loop)
                self._transport.write(request)
                return await waiting
        except (OSError, TimeoutError) as error:
            raise machine.CannotMeasure(f"no answer from {self._to}: {error!r}") from error

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        if isinstance(self._to, str):
            await loop.create_unix_connection(lambda: self, self._to)
        else:
            await loop.create_connection(lambda: self, "127.0.0.1", self._to)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        at = perf_counter()
        self._came += data
        head, end, body = self._came.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(body) >= int(length[1]) and self._waiting and not self._waiting.done():
            self._waiting.set_result(Answer(int(head[9:12]), body, self._began, at))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("closed without an answer"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Socket(asyncio.Protocol):
    """A WebSocket that says nothing and waits for its end. `closed` is the moment of that; `code_1008`
    whether it was told why."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[float] = loop.create_future()
        self.code_1008 = False
        self._request = request
        self._transport: Any = None
        self._came = b""

    @classmethod
    async def open(cls, port: int, cookie: str) -> Socket:
        """Raises `CannotMeasure` where it is not let in."""
        loop = asyncio.get_running_loop()
        it = cls(_upgrade(cookie))
        try:
            async with asyncio.timeout(PATIENCE):
                await loop.create_connection(lambda: it, "127.0.0.1", port)
                await it.opened
        except (OSError, TimeoutError) as error:
            raise machine.CannotMeasure(f"no WebSocket at {port}: {error!r}") from error
        return it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            # An unmasked close frame: FIN and opcode 8, its length, then the code.
            self.code_1008 |= data[:1] == b"\x88" and data[2:4] == _CLOSE_1008
            return
        self._came += data
        if b"\r\n\r\n" in self._came:
            if self._came.startswith(b"HTTP/1.1 101"):
                self.opened.set_result(None)
            else:
                self.opened.set_exception(ConnectionRefusedError(self._came[:40].decode("latin-1")))

    def eof_received(self) -> None:
        self._over()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over()

    def _over(self) -> None:
        if not self.closed.done():
            self.closed.set_result(perf_counter())
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("closed before it was open"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Probe:
    """Somebody who asks one worker again and again, on one connection, until refused.

    `let_in_began` and `let_in_at`: when the last request that was let in began and was answered. `refused_at`
    is the first refusal; 0 while there is none.
    """

    def __init__(self, port: int, cookie: str) -> None:
        self.port = port
        self.let_in_began = self.let_in_at = self.refused_at = 0.0
        self._door, self._request = Connection(port), get(cookie)

    async def begin(self) -> None:
        """Raises `CannotMeasure` where the first request is refused."""
        await self._ask()
        if self.refused_at:
            raise machine.CannotMeasure("somebody who is signed in is not let in")

    async def run(self) -> None:
        while not self.refused_at:
            await asyncio.sleep(PROBE_PAUSE)
            await self._ask()

    def close(self) -> None:
        self._door.close()

    async def _ask(self) -> None:
        answer = await self._door.ask(self._request)
        if answer.status == 200:
            self.let_in_began, self.let_in_at = answer.began, answer.at
        else:
            self.refused_at = answer.at


async def is_let_in(port: int, cookie: str) -> bool:
    """Asks once, on a connection of its own."""
    door = Connection(port)
    try:
        return (await door.ask(get(cookie))).status == 200
    finally:
        door.close()


class Revoking:
    """The admin API of the node whose state directory this is."""

    def __init__(self, state_dir: Path) -> None:
        self._socket = state_dir / "admin.sock"
        self._token = state_dir / "admin-token"

    async def ready(self) -> None:
        """Waits until it answers: it is a process of its own, and learns by and by of whom it revokes."""
        await until(self._answers, "the admin API answers")

    async def _answers(self) -> bool:
        answer = await self._ask("GET", "/whoami", b"")
        return answer.status == 200

    async def revoke(self, kind: str, name: str = "") -> tuple[Answer, int]:
        """The answer, timed with the opening of its connection, and the lock's number in the log. Raises
        `CannotMeasure` for what is not confirmed."""
        target = {"kind": kind, "name": name} if name else {"kind": kind}
        answer = await self._ask("POST", "/revocations", json.dumps({"target": target}).encode())
        said = json.loads(answer.body)
        if answer.status != 200 or said.get("confirmed") is not True:
            raise machine.CannotMeasure(f"the admin API answers {answer.status}: {said}")
        return answer, int(said["number"])

    async def _ask(self, method: str, path: str, body: bytes) -> Answer:
        lines = [
            f"{method} /api/v1{path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self._token.read_text().strip()}",
            f"Idempotency-Key: {uuid.uuid4()}",
        ]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        connection = Connection(str(self._socket))
        try:
            return await connection.ask("\r\n".join([*lines, "\r\n"]).encode() + body)
        finally:
            connection.close()


class Load:
    """Requests at a steady rate, answered or not, by random people at random workers.

    `seconds` are the answers' times; `failed` counts answers other than 200 and none at all.
    """

    def __init__(self, ports: Sequence[int], cookies: Sequence[str], rate: float) -> None:
        self._ports, self._cookies, self._rate = ports, cookies, rate
        self._idle: dict[int, list[Connection]] = {port: [] for port in ports}
        self._random = Random(1)
        self._over = asyncio.Event()
        self.seconds: list[float] = []
        self.failed = 0
        self._lasted = 0.0

    @property
    def requests_per_second(self) -> float:
        return len(self.seconds) / self._lasted

    async def run(self) -> None:
        """Until `stop`."""
        began, sent = perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            while not self._over.is_set():
                due = int((perf_counter() - began) * self._rate)
                for _ in range(due - sent):
                    group.create_task(self._one())
                sent = max(sent, due)
                await asyncio.sleep(1 / self._rate)
        self._lasted += perf_counter() - began
        for connections in self._idle.values():
            for one in connections:
                one.close()

    def stop(self) -> None:
        self._over.set()

    async def _one(self) -> None:
        port = self._random.choice(self._ports)
        idle = self._idle[port]
        connection = idle.pop() if idle else Connection(port)
        try:
            answer = await connection.ask(get(self._random.choice(self._cookies)))
        except machine.CannotMeasure:
            self.failed += 1
            return
        self.failed += answer.status != 200
        self.seconds.append(answer.at - answer.began)
        idle.append(connection)


@contextlib.asynccontextmanager
async def under(load: Load) -> AsyncIterator[Load]:
    """The block, with that load beside it."""
    running = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        load.stop()
        await running


async def patiently(waiting: Awaitable[T], what: str) -> T:
    """Raises `CannotMeasure` where it does not come."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await waiting
    except TimeoutError as error:
        raise machine.CannotMeasure(f"it never was so that {what}") from error


async def until(done: Callable[[], Coroutine[Any, Any, bool]], what: str) -> None:
    """For what has just been started. Raises `CannotMeasure` where it never is."""
    end = perf_counter() + START
    while perf_counter() < end:
        with contextlib.suppress(machine.CannotMeasure, OSError):
            if await done():
                return
        await asyncio.sleep(0.05)
    raise machine.CannotMeasure(f"it never was so that {what}")


def get(cookie: str, path: str = "/") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {COOKIE}={cookie}\r\n\r\n".encode()


def _upgrade(cookie: str) -> bytes:
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: {HOST}",
        f"Cookie: {COOKIE}={cookie}",
        f"Origin: https://{HOST}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {b64encode(secrets.token_bytes(16)).decode()}",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode()
