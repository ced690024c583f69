"""Just enough HTTP/1.1 for both sides of a scenario, quick enough for an attack: one connection, one request.

Knows: heads, lengths, chunked ends, `Connection: close`. Promises: the moment of an answer is that of its
arrival; a connection lost while an answer is owed raises `ConnectionResetError`. Leaves time limits to its
caller. `bench.revocation_clients.Connection` is not enough here: it takes no answers without a length, hears
no `close`, and comes from one address.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from time import perf_counter
from typing import Any, NamedTuple

from bench.revocation_clients import _upgrade

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CLOSE = re.compile(rb"(?i)\r\nconnection: *close")

upgrade = _upgrade


class Answer(NamedTuple):
    """`complete`: the body ended as its head said; `at`: when the last of it came, by `perf_counter`."""

    status: int
    head: bytes
    body: bytes
    at: float
    complete: bool


class Speaker(asyncio.Protocol):
    """A client's connection, opened when it is needed. `source` is the address it comes from, `holds` how
    many octets the kernel keeps of what was not read (None: what it likes).

    `streams`: the answer counts as come when its head did, and `more` waits for what follows.
    """

    def __init__(
        self,
        port: int,
        source: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        name: str = "app.test",
        holds: int | None = None,
    ) -> None:
        self._holds = holds
        self._port, self._source, self._tls, self._name = port, source, tls, name
        self._transport: Any = None
        self._came = b""
        self._waiting: asyncio.Future[Answer] | None = None
        self._more: asyncio.Future[None] | None = None
        self.streams = False
        self.lost = False
        self.received = 0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and not self.lost

    async def connect(self) -> None:
        """Raises `OSError`."""
        loop = asyncio.get_running_loop()
        own = socket.socket()
        try:
            own.setblocking(False)
            if self._holds is not None:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._holds)
            if self._source != "127.0.0.1":
                own.bind((self._source, 0))
            await loop.sock_connect(own, ("127.0.0.1", self._port))
            name = self._name if self._tls else None
            await loop.create_connection(lambda: self, sock=own, ssl=self._tls, server_hostname=name)
        except BaseException:
            own.close()
            raise

    async def ask(self, request: bytes) -> Answer:
        """One request and its answer; raises `OSError` where none comes. The whole body belongs to it unless
        `streams`; what is cut short is an answer that is not `complete`."""
        if not self.open:
            self.lost, self._came = False, b""
            await self.connect()
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    async def more(self) -> None:
        """Waits until something comes. Raises `ConnectionResetError` when nothing ever will."""
        if self.lost:
            raise ConnectionResetError("closed")
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self._more is not None and not self._more.done():
            self._more.set_result(None)
        if self._waiting is not None and not self._waiting.done():
            self._came += data
            self._look(ended=False)

    def _look(self, *, ended: bool) -> None:
        assert self._waiting is not None
        head, end, body = self._came.partition(b"\r\n\r\n")
        if not end:
            if ended:
                self._waiting.set_exception(ConnectionResetError("closed without an answer"))
            return
        status, length = int(head[9:12]), _LENGTH.search(head)
        bodiless = status in (101, 204, 304)
        whole = len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n") or bodiless
        if not (whole or self.streams or ended):
            return
        answer = Answer(status, head, body, perf_counter(), whole)
        self._came = b""
        self._waiting.set_result(answer)
        if _CLOSE.search(head) and not self.streams:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._waiting is not None and not self._waiting.done():
            self._look(ended=True)
        if self._more is not None and not self._more.done():
            self._more.set_exception(ConnectionResetError("closed"))

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
