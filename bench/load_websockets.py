"""Many WebSockets that send as soon as they are answered: `python -m bench.load_websockets JSON`.

Knows: as much of RFC 6455 as an echo needs. Promises: it costs little itself (frames are made beforehand, and
a message is one read, one comparison and one write, without any framework); every echo is compared with what
was sent, and one that differs ends it with an error. Says `{"messages": ..., "seconds": ...}`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import select
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

SIZE = 64
_MASK = b"\x37\xfa\x21\x3d"


def opened(port: int, path: str, headers: Mapping[str, str]) -> socket.socket:
    """Raises `ConnectionError` where it is not let in."""
    fields = {
        "Host": "localhost",
        **headers,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    fields.setdefault("Origin", f"http://{fields['Host']}")
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall("\r\n".join([*lines, "\r\n"]).encode("latin-1"))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        came = connection.recv(1)  # and nothing of what may follow
        if not came:
            break
        head += came
    if not head.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"a WebSocket is answered with {head[:200]!r}")
    return connection


def frames(number: int) -> tuple[bytes, bytes]:
    """A message as a client sends it, and its echo."""
    message = f"{number:08d}".encode() * (SIZE // 8)
    masked = bytes(byte ^ _MASK[at % 4] for at, byte in enumerate(message))
    return bytes((0x82, 0x80 | SIZE)) + _MASK + masked, bytes((0x82, SIZE)) + message


def play(connections: list[socket.socket], seconds: float) -> tuple[int, float]:
    """How many echoes came, and in how many seconds. Raises `ConnectionError` for a wrong one, or none."""
    poll = select.epoll()
    sends: dict[int, bytes] = {}
    awaits: dict[int, bytes] = {}
    part: dict[int, bytes] = {}
    for number, connection in enumerate(connections):
        fd = connection.fileno()
        sends[fd], awaits[fd] = frames(number)
        poll.register(fd, select.EPOLLIN)
    began = time.perf_counter()
    end, echoes = began + seconds, 0
    for fd, frame in sends.items():
        os.write(fd, frame)
    while time.perf_counter() < end:
        ready = poll.poll(5)
        if not ready:
            raise ConnectionError("no echo comes any more")
        for fd, _ in ready:
            came = os.read(fd, 4096)
            if came != awaits[fd]:
                closed, came = not came, part.pop(fd, b"") + came
                if closed or not awaits[fd].startswith(came):
                    raise ConnectionError(f"instead of an echo there came {came!r}")
                if came != awaits[fd]:
                    part[fd] = came
                    continue
            echoes += 1
            os.write(fd, sends[fd])
    return echoes, time.perf_counter() - began


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    try:
        where = asked["port"], asked["path"], asked["headers"]
        echoes, seconds = play([opened(*where) for _ in range(asked["sockets"])], asked["seconds"])
    except OSError as error:
        sys.exit(str(error))
    print(json.dumps({"messages": echoes, "seconds": seconds}))


if __name__ == "__main__":
    main()
