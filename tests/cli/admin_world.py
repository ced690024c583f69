"""The real admin API for the command line to ask, in a thread beside the test; and servers that are none.

`served` is the API over ports in memory (`tests.surfaces.admin.world`), `answering` a server that says what
it is told to say, `losing` a relay that loses whole answers on their way back.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from tests.surfaces.admin.world import MemoryLog, World, serving
from ztproxy.cli import main
from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Entry
from ztproxy.gateway.ports.administration import Role

PATIENCE = 30.0


class SlowToConfirm(MemoryLog):
    """A log that says `unconfirmed` so many times, or is away so many times, before all is well."""

    def __init__(self, *, unconfirmed: int = 0, away: int = 0) -> None:
        super().__init__()
        self.left = ["away"] * away + ["unconfirmed"] * unconfirmed
        self.asked: list[str] = []

    async def revoke(self, entry: Entry) -> Revoked:
        self.asked.append(entry.id)
        now = self.left.pop(0) if self.left else ""
        self.away, self.confirmed = now == "away", now != "unconfirmed"
        try:
            return await super().revoke(entry)
        finally:
            self.away = False


class Installation:
    """A running admin API. `url` is how the command line is told of it."""

    def __init__(self, world: World, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.world, self.url, self._loop = world, url, loop

    def sign_in(self, subject: str = "alice", **more: Any) -> str:
        done: Future[str] = asyncio.run_coroutine_threadsafe(self.world.sign_in(subject, **more), self._loop)
        return done.result(PATIENCE)

    def options(self, role: Role = "operator", url: str = "") -> dict[str, str]:
        """The environment in which the command line finds it."""
        return {
            "ZTPROXY_ADMIN_URL": url or self.url,
            "ZTPROXY_ADMIN_TOKEN": self.world.secrets[role],
            "TERM": "dumb",
        }

    def ask(self, *words: str, role: Role = "operator", url: str = "") -> Result:
        return run(*words, env=self.options(role, url))

    def at_terminal(self, *words: str, typed: str, role: Role = "operator") -> tuple[int, str, str]:
        """The command with a real terminal as its input; exit status, output and errors."""
        master, slave = os.openpty()
        try:
            os.write(master, typed.encode())
            done = subprocess.run(
                [sys.executable, "-m", "ztproxy.cli", *words],
                stdin=slave,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env={**os.environ, **self.options(role)},
            )
        finally:
            os.close(master)
            os.close(slave)
        return done.returncode, done.stdout, done.stderr

    @property
    def targets(self) -> list[tuple[str, str]]:
        """What is in the log, as kind and name."""
        locks = [one for one in self.world.log.entries.values() if hasattr(one, "target")]
        return [(str(one.target.kind), one.target.name) for one in locks]


def run(*words: str | Path, env: dict[str, str] | None = None) -> Result:
    """The command line in this process. What the environment says of an admin API is only what `env` says."""
    none = {"ZTPROXY_ADMIN_URL": None, "ZTPROXY_ADMIN_TOKEN": None, "ZTPROXY_CONFIG": None}
    return CliRunner().invoke(main, [str(word) for word in words], env={**none, **(env or {})})


@contextmanager
def served(
    world: World | None = None, *, unix: bool = True, tls: ssl.SSLContext | None = None
) -> Iterator[Installation]:
    ready = threading.Event()
    loop, stop, world = asyncio.new_event_loop(), asyncio.Event(), world or World()

    async def live(path: str) -> None:
        async with serving(world, tls, path):
            ready.set()
            await stop.wait()

    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as folder:
        path = f"{folder}/admin.sock" if unix else ""
        thread = threading.Thread(target=lambda: loop.run_until_complete(live(path)), daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        scheme = "http" if tls is None else "https"
        url = f"unix:{path}" if unix else f"{scheme}://127.0.0.1:{world.address[1]}"
        try:
            yield Installation(world, url, loop)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(PATIENCE)
            loop.close()


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A URL at which every connection is given to `serve`, in a thread of its own."""
    server = socket.create_server(("127.0.0.1", 0))

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(PATIENCE)


class Heard:
    """The requests that came, byte for byte."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []


@contextmanager
def answering(*answers: bytes, heard: Heard | None = None) -> Iterator[str]:
    """A server that gives each request the next of `answers`, and the last for ever."""
    left = list(answers)

    def serve(connection: socket.socket) -> None:
        request = request_of(connection)
        if heard is not None:
            heard.requests.append(request)
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    with listening(serve) as url:
        yield url


@contextmanager
def losing(installation: Installation, times: int) -> Iterator[str]:
    """A way to the installation on which the first so many answers are lost after they were given."""
    left = [times]

    def serve(connection: socket.socket) -> None:
        request = request_of(connection)
        with socket.socket(socket.AF_UNIX) as onward:
            onward.connect(installation.url.removeprefix("unix:"))
            onward.sendall(request)
            answer = b"".join(iter(lambda: onward.recv(65_536), b""))
        if left[0]:
            left[0] -= 1
            return
        connection.sendall(answer)

    with listening(serve) as url:
        yield url


def request_of(connection: socket.socket) -> bytes:
    """One request, head and body."""
    connection.settimeout(PATIENCE)
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(65_536)
        if not piece:
            return raw
        raw += piece
    head, _, body = raw.partition(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    while len(body) < sum(lengths):
        piece = connection.recv(65_536)
        raw, body = raw + piece, body + piece
    return raw


def reply(body: bytes | str, status: str = "200 OK", media: str = "application/json", *more: str) -> bytes:
    """An answer as it goes over the wire."""
    body = body.encode() if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status}", f"Content-Type: {media}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


def problem(kind: str, status: str, **more: str) -> bytes:
    document = {"type": f"urn:ztproxy:problem:{kind}", "title": kind, "instance": "r-1", **more}
    return reply(json.dumps(document), status, "application/problem+json")
