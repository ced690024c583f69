"""The apps behind ztproxy in a scenario: one that is well, and one that does to it what its path says.

    python -m loadtests.overload.app PORT

Knows: just enough of HTTP/1.1 for one request at a time. Promises: it counts what reached it, and tells who
asks for `/counts`. Leaves the meaning to the scenarios.

    /                    200 `ok`, once the request's body is complete
    /ws                  a WebSocket whose frames (of less than 126 octets) come back
    /stream              a piece each 0.1 s without end
    /silent/ID           no answer, ever
    /cut/ID              200 on a new connection; on a used one it takes effect and resets without an answer
    /once/ID             200, and the connection closes when it has been idle for a moment
    /reset/length, /reset/chunked, /reset/none    a head and a part of the body, then RST
    /half                a head, a part of the body, then FIN, and the connection stays
    /drip                a byte a second, 100 of them announced
    /huge                2 GB, as fast as they are taken
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from hashlib import sha1
from random import random
from typing import Any

import uvloop

from bench import machine

HUGE = 2 * 10**9
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"(?i)\r\nsec-websocket-key: *(\S+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked")
_RESET = struct.pack("ii", 1, 0)
_PIECE = bytes(1024)
_BLOCK = bytes(256 * 1024)
_IDLE_FOR = 0.004

counted: Counter[str] = Counter()
"""`effects`: requests by id, as the app took them; `open` and `silent` connections now; `sent` octets."""

effects: Counter[str] = Counter()
_NOTHING = {"open": 0, "connections": 0, "requests": 0, "silent": 0, "sent": 0}


class App(asyncio.Protocol):
    """A connection from ztproxy."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._held = b""
        self._left: int | None = None  # octets of the body to come; None: it is chunked
        self._target = ""
        self._uses = 0
        self._goes_on: Callable[[bytes], None] = self._read_head
        self._timer: asyncio.TimerHandle | None = None
        self._silent = False
        self._owed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        counted["open"] += 1
        counted["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        counted["open"] -= 1
        counted["silent"] -= self._silent
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._goes_on(data)

    # -- requests ----------------------------------------------------------------------------------------

    def _read_head(self, data: bytes) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._held += data
        head, end, body = self._held.partition(b"\r\n\r\n")
        if not end:
            return
        head += b"\r\n"
        self._target = head.split(b" ", 2)[1].decode("latin-1")
        counted["requests"] += 1
        self._uses += 1
        key = _KEY.search(head)
        if key is not None:
            self._become_a_socket(key[1])
            return
        length = _LENGTH.search(head)
        self._left = None if _CHUNKED.search(head) else int(length[1]) if length else 0
        self._held = b""
        self._goes_on = self._read_body
        self._read_body(body)

    def _read_body(self, data: bytes) -> None:
        if self._left is None:
            self._held = (self._held + data)[-5:]
            if self._held != b"0\r\n\r\n":
                return
        else:
            self._left -= len(data)
            if self._left > 0:
                return
        self._held = b""
        self._goes_on = self._read_head
        self._answer()

    def _become_a_socket(self, key: bytes) -> None:
        accept = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._held = b""
        self._goes_on = self._echo

    def _echo(self, data: bytes) -> None:
        self._held += data
        while len(self._held) >= 6 and len(self._held) >= 6 + (self._held[1] & 0x7F):
            size = self._held[1] & 0x7F
            mask, masked = self._held[2:6], self._held[6 : 6 + size]
            piece = bytes(one ^ mask[place % 4] for place, one in enumerate(masked))
            self._transport.write(bytes([self._held[0], size]) + piece)
            self._held = self._held[6 + size :]

    # -- answers -----------------------------------------------------------------------------------------

    def _answer(self) -> None:
        what = self._target.split("/")[1:]
        if what[0] == "wild":  # the prefix of the route to the app that is not well
            what = what[1:]
        match what:
            case ["counts"]:
                said = {**_NOTHING, **counted, "effects": dict(Counter(effects.values())), "twice": _twice()}
                self._say(json.dumps(said).encode())
            case ["stream"]:
                self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                self._stream()
            case ["silent", *_]:
                self._silent = True
                counted["silent"] += 1
            case ["cut", who]:
                effects[who] += 1
                if self._uses > 1:
                    self._reset()
                else:
                    self._say(b"ok")
            case ["once", who]:
                effects[who] += 1
                self._say(b"ok")
                self._after(_IDLE_FOR * random(), self._transport.close)
            case ["reset", how]:
                self._transport.write(_PARTS[how])
                self._after(0.02, self._reset)  # so that the part arrives before the reset can overtake it
            case ["half"]:
                self._transport.write(_PARTS["length"])
                self._transport.write_eof()
            case ["drip"]:
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                self._drip()
            case ["huge"]:
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % HUGE)
                self._owed = HUGE
                self.resume_writing()
            case _:
                self._say(b"ok")

    def _say(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _stream(self) -> None:
        self._transport.write(b"400\r\n" + _PIECE + b"\r\n")
        self._after(0.1, self._stream)

    def _drip(self) -> None:
        self._transport.write(b"x")
        self._after(1.0, self._drip)

    def _reset(self) -> None:
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def pause_writing(self) -> None:
        self._owed = -self._owed

    def resume_writing(self) -> None:
        self._owed = abs(self._owed)
        while self._owed > 0 and not self._transport.is_closing():
            piece = _BLOCK[: self._owed]
            self._owed -= len(piece)
            counted["sent"] += len(piece)
            self._transport.write(piece)  # may pause


def _twice() -> list[str]:
    """Who took effect more than once."""
    return [who for who, times in effects.items() if times > 1][:20]


_PARTS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(65536),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + _PIECE + b"\r\n",
    "none": b"HTTP/1.1 200 OK\r\n\r\n" + bytes(65536),
}


async def serve(port: int) -> None:
    machine.many_files()
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
