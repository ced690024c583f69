"""A WebSocket client of one's own (RFC 6455): says texts, hears texts, and hears how it ends.

Knows: just enough of it. Promises: every wait has an end. Leaves what is promised to `promises`. It is
written with blocking sockets, which Locust has made gevent's.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_TEXT, _CLOSE = 0x1, 0x8
GONE = 1006
"""The code of an end without a close frame (RFC 6455 7.1.5)."""


class Closed(NamedTuple):
    code: int


class WebSocket:
    """A connection that asks for `url` with these header fields; `head` is what it was answered, all of it
    where that was no 101. Raises `OSError` where there is no answer."""

    def __init__(self, url: str, headers: dict[str, str], patience: float) -> None:
        there = urlsplit(url)
        self._socket = socket.create_connection(("127.0.0.1", there.port or 80), patience)
        lines = {
            "Host": there.netloc,
            "Origin": f"{there.scheme}://{there.netloc}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": _KEY,
            **headers,
        }
        fields = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._came = b""
        try:
            self._socket.sendall(f"GET {there.path} HTTP/1.1\r\n{fields}\r\n".encode())
            while b"\r\n\r\n" not in self._came:
                if not self._more():
                    raise ConnectionResetError("closed without an answer")
        except OSError:
            self._socket.close()
            raise
        head, _, self._came = self._came.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")

    def say(self, text: str) -> None:
        """A text of less than 126 octets."""
        data, mask = text.encode(), os.urandom(4)
        hidden = bytes(octet ^ mask[i % 4] for i, octet in enumerate(data))
        self._socket.sendall(bytes((0x80 | _TEXT, 0x80 | len(data))) + mask + hidden)

    def hear(self, seconds: float) -> str | Closed | None:
        """The next text, how it ended, or None where nothing came for so long."""
        self._socket.settimeout(seconds)
        while True:
            try:
                first, payload = self._frame()
            except TimeoutError:
                return None
            except OSError:
                return Closed(GONE)
            if first & 0xF == _CLOSE:
                return Closed(int.from_bytes(payload[:2], "big") if len(payload) > 1 else 1005)
            if first & 0xF == _TEXT:
                return payload.decode()

    def close(self) -> None:
        self._socket.close()

    def _frame(self) -> tuple[int, bytes]:
        """What came of a frame is kept until all of it is there, whoever is tired of waiting."""
        while True:
            size = self._came[1] & 0x7F if len(self._came) > 1 else 0
            start = 4 if size == 126 else 2
            if size == 126:
                size = int.from_bytes(self._came[2:4], "big")
            if len(self._came) >= start + size and len(self._came) >= start:
                frame = self._came[0], self._came[start : start + size]
                self._came = self._came[start + size :]
                return frame
            if not self._more():
                raise ConnectionResetError("closed without a word")

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        self._came += data
        return data
