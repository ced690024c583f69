"""Connections that are open and idle, held by processes of their own so that no limit of ours is theirs.

Knows: just enough HTTP/1.1 and RFC 6455. Promises: each has had one whole answer (200 or 101) before it
counts, and all of them were open still when the block ended, else `CannotMeasure`. They come from several
addresses of loopback, for an address has only so many ports.

python -m bench.growth.holding PORT COUNT get|ws COOKIE      until its input ends
"""

from __future__ import annotations

import base64
import secrets
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench import machine
from bench.growth import COOKIE, HOST

EACH = 8_000
"""So many a process: half of the least limit of descriptors that is usual for a server."""

_AT_ONCE = 64
_PER_ADDRESS = 4_000


@contextmanager
def held(core: int, port: int, count: int, kind: str, cookie: str) -> Iterator[None]:
    """`kind` is `get` or `ws`."""
    holders = []
    try:
        for first in range(0, count, EACH):
            words = (str(port), str(min(EACH, count - first)), kind, cookie)
            command = machine.pinned(core, sys.executable, "-m", "bench.growth.holding", *words)
            holders.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            _hear(holders[-1], "open")
        yield
        for holder in holders:
            assert holder.stdin is not None
            holder.stdin.close()
            _hear(holder, "open still")
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def _hear(holder: subprocess.Popen[str], expected: str) -> None:
    assert holder.stdout is not None
    said = holder.stdout.readline().strip()
    if said != expected:
        raise machine.CannotMeasure(f"connections that were to be held: {said or 'their holder has ended'}")


def _request(kind: str, cookie: str) -> bytes:
    lines = [f"GET {'/ws' if kind == 'ws' else '/'} HTTP/1.1", f"Host: {HOST}", f"Cookie: {COOKIE}={cookie}"]
    if kind == "ws":
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines += [f"Origin: https://{HOST}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    return "\r\n".join([*lines, "", ""]).encode()


def _open(port: int, count: int, kind: str, cookie: str) -> list[socket.socket]:
    kept: list[socket.socket] = []
    request = _request(kind, cookie)
    while len(kept) < count:
        fresh = []
        for number in range(len(kept), min(count, len(kept) + _AT_ONCE)):
            one = socket.socket()
            one.settimeout(30)
            one.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            one.bind((f"127.0.0.{2 + number // _PER_ADDRESS}", 0))
            one.connect(("127.0.0.1", port))
            one.sendall(request)
            fresh.append(one)
        for one in fresh:
            _answered(one, b"101" if kind == "ws" else b"200")
        kept += fresh
    return kept


def _answered(one: socket.socket, status: bytes) -> None:
    came = b""
    while b"\r\n\r\n" not in came:
        more = one.recv(65536)
        if not more:
            raise SystemExit(f"closed before an answer: {came[:80]!r}")
        came += more
    head, _, body = came.partition(b"\r\n\r\n")
    if head[9:12] != status:
        raise SystemExit(f"not {status.decode()} but {head[:80]!r}")
    if status == b"200":
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while len(body) < int(lengths[0].split(b":")[1]):
            body += one.recv(65536)


def _main(port: int, count: int, kind: str, cookie: str) -> None:
    machine.many_files()
    try:
        kept = _open(port, count, kind, cookie)
    except (SystemExit, OSError) as error:
        print(error, flush=True)
        return
    print("open", flush=True)
    sys.stdin.read()
    # Nobody was to say anything to them: what can be read now is an end.
    poll = select.poll()
    for one in kept:
        poll.register(one, select.POLLIN | select.POLLHUP)
    ended = len(poll.poll(0))
    print(f"{ended} of {count} were closed" if ended else "open still", flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
