"""Probes and scrapes over real sockets; strange hosts, methods and paths among them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from ztproxy.surfaces.operations import operations_app, serve_operations

Checks = dict[str, str]


class World:
    """The listener on a free port, and one exchange on a raw socket."""

    ready = True
    checks: Checks = {"worker 0": "ready"}  # noqa: RUF012  # replaced, never changed
    port = 0

    async def ask(
        self, path: str = "/livez", method: str = "GET", host: str | None = "localhost"
    ) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        field = "" if host is None else f"Host: {host}\r\n"
        writer.write(f"{method} {path} HTTP/1.1\r\n{field}Connection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *fields = head.decode().split("\r\n")
        named = dict(line.lower().split(": ", 1) for line in fields)
        return int(first.split()[1]), named, body


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    listening = socket.create_server(("127.0.0.1", 0))
    world.port = listening.getsockname()[1]
    app = operations_app(
        lambda: (world.ready, world.checks),
        lambda: (b"metric 1\n", "text/plain; version=1.0.0"),
        ["Ops.test"],
    )
    stop = await serve_operations(app, listening)
    yield world
    await stop()


async def test_alive(world: World) -> None:
    assert (await world.ask("/livez"))[::2] == (200, b"ok\n")


@pytest.mark.parametrize(
    ("ready", "checks", "status"),
    [
        pytest.param(True, {"worker 0": "ready", "worker 1": "starting"}, 200, id="ready"),
        pytest.param(False, {"worker 0": "state is away"}, 503, id="not ready, and why"),
        pytest.param(False, {}, 503, id="nothing is known yet"),
    ],
)
async def test_ready(world: World, ready: bool, checks: Checks, status: int) -> None:
    world.ready, world.checks = ready, checks
    code, headers, body = await world.ask("/readyz")
    assert code == status
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"ready": ready, "checks": checks}
    assert (await world.ask("/livez"))[0] == 200, "alive is another question"


async def test_metrics(world: World) -> None:
    code, headers, body = await world.ask("/metrics")
    assert (code, headers["content-type"], body) == (200, "text/plain; version=1.0.0", b"metric 1\n")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_head(world: World, path: str) -> None:
    code, headers, body = await world.ask(path, method="HEAD")
    assert (code, body) == (200, b"")
    assert headers["content-length"] == str(len((await world.ask(path))[2]))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/", id="root"),
        pytest.param("GET", "/livez/", id="with a slash"),
        pytest.param("GET", "/LIVEZ", id="other case"),
        pytest.param("GET", "//livez", id="two slashes"),
        pytest.param("GET", "/metrics/..%2f", id="climbing"),
        pytest.param("POST", "/livez", id="POST"),
        pytest.param("DELETE", "/metrics", id="DELETE"),
        pytest.param("OPTIONS", "/readyz", id="OPTIONS"),
        pytest.param("PURGE", "/livez", id="PURGE"),
    ],
)
async def test_there_is_nothing_else(world: World, method: str, path: str) -> None:
    assert (await world.ask(path, method=method))[0] == 404


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:9902",
        "127.0.0.1",
        "127.0.0.1:9902",
        "10.1.2.3:9902",
        "[::1]",
        "[::1]:9902",
        "ops.test",
        "OPS.test:9902",
    ],
)
async def test_hosts_that_are_answered(world: World, host: str) -> None:
    assert (await world.ask(host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("evil.test", id="a name bound to us"),
        pytest.param("evil.test:9902", id="with our port"),
        pytest.param("127.0.0.1.evil.test", id="a name that begins like us"),
        pytest.param("localhost.evil.test", id="another"),
        pytest.param("evil.localhost", id="a name that ends like us"),
        pytest.param("xops.test", id="nearly configured"),
        pytest.param("127.1", id="an address in short"),
        pytest.param("2130706433", id="an address as a number"),
        pytest.param("", id="empty"),
        pytest.param(None, id="none"),
    ],
)
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/"])
async def test_hosts_that_are_not(world: World, host: str | None, path: str) -> None:
    code, _, body = await world.ask(path, host=host)
    assert code in (400, 421)
    assert b"metric" not in body
    assert b"worker" not in body


async def test_two_hosts_are_none(world: World) -> None:
    assert (await world.ask(host="localhost\r\nHost: evil.test"))[0] in (400, 421)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nothing"])
async def test_every_answer_is_hardened(world: World, path: str) -> None:
    _, headers, _ = await world.ask(path)
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers
