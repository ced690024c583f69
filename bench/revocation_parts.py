"""What stands around the proxies in the revocation bench, each in a process of its own:

python -m bench.revocation_parts app PORT        answers each GET, and takes every WebSocket
python -m bench.revocation_parts relay FROM TO   between two unix sockets; stopped, a way that carries nothing
"""

from __future__ import annotations

import asyncio
import re
import sys
from base64 import b64encode
from hashlib import sha1
from typing import Any

import uvloop

from bench import machine

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"(?i)\r\nsec-websocket-key: *(\S+)")
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class App(asyncio.Protocol):
    """A connection to the app. The proxy sends one GET at a time; of a WebSocket nothing is read."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._head = b""
        self._is_socket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._is_socket:
            return
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        key = _KEY.search(self._head)
        self._head = b""
        if key is None:
            self._transport.write(_OK)
            return
        self._is_socket = True
        accept = b64encode(sha1(key[1] + _GUID, usedforsecurity=False).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )


class _Side(asyncio.Protocol):
    """What arrives on one side of the relay goes to the other."""

    def __init__(self, to: str | None = None, other: Any = None) -> None:
        self._to, self.other = to, other
        self._early: list[bytes] = []
        self.transport: Any = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self._to is not None:
            self._opening = asyncio.ensure_future(self._open(self._to))

    async def _open(self, to: str) -> None:
        try:
            other, _ = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Side(other=self.transport), to
            )
        except OSError:
            self.transport.abort()
            return
        self.other = other
        if self.transport.is_closing():
            other.abort()
        else:
            other.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


async def app(port: int) -> None:
    machine.many_files()
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def relay(listen: str, to: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(lambda: _Side(to), listen)
    await server.serve_forever()


def main() -> None:
    what, *words = sys.argv[1:]
    uvloop.run(app(int(words[0])) if what == "app" else relay(*words))


if __name__ == "__main__":
    main()
