"""What nginx cannot answer by itself: an echo of WebSocket messages, and the fields of a request as JSON.

`/head` answers an object of names (in lower case) and values (repeated ones joined by commas). Anything that
asks for an upgrade gets a WebSocket whose data frames come back as they are. It talks to nginx alone and
checks little.

python -m bench.upstream_live PORT
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import signal
import sys

import uvloop

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_CLOSE, _PING, _PONG = 8, 9, 10


class _Connection(asyncio.Protocol):
    """HTTP/1.1 without bodies, then perhaps a WebSocket."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]  # uvloop's is no subclass
        self._waiting = b""
        self._upgraded = False

    def data_received(self, data: bytes) -> None:
        self._waiting = self._waiting + data if self._waiting else data
        if not self._upgraded:
            self._answer_requests()
        if self._upgraded:
            self._echo_frames()

    def _answer_requests(self) -> None:
        while not self._upgraded and (end := self._waiting.find(b"\r\n\r\n")) >= 0:
            head, self._waiting = self._waiting[:end], self._waiting[end + 4 :]
            fields: dict[str, str] = {}
            for line in head.decode("latin-1").split("\r\n")[1:]:
                name, _, value = line.partition(":")
                name, value = name.lower(), value.strip()
                fields[name] = f"{fields[name]}, {value}" if name in fields else value
            key = fields.get("sec-websocket-key")
            if key is not None:
                self._upgraded = True
                accept = base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID).digest())
                self._transport.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
                )
            else:
                body = json.dumps(fields).encode()
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )

    def _echo_frames(self) -> None:
        """All whole frames that are there, answered in one write (RFC 6455 §5.2)."""
        data, at, answers = self._waiting, 0, []
        while len(data) - at >= 6:
            opcode, length, start = data[at] & 0x0F, data[at + 1] & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            elif length == 127:
                length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
            end = start + 4 + length
            if len(data) < end:
                break
            if opcode != _PONG:
                first = data[at] if opcode != _PING else (data[at] & 0xF0) | _PONG
                answers.append(bytes((first, data[at + 1] & 0x7F)))
                answers.append(data[at + 2 : start])
                answers.append(_unmasked(data[start : start + 4], data[start + 4 : end]))
            at = end
            if opcode == _CLOSE:
                self._transport.write(b"".join(answers))
                self._transport.close()
                return
        self._waiting = data[at:]
        if answers:
            self._transport.write(b"".join(answers))


def _unmasked(mask: bytes, payload: bytes) -> bytes:
    """As one large number: the fastest way that pure Python has."""
    size = len(payload)
    masks = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(masks, "big")).to_bytes(size, "big")


async def serve(port: int) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=4096)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
