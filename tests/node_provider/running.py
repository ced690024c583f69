"""Starts the certified oidc-provider under Node, and walks its sign-in as a browser would.

`npm ci` runs once into `build/node`, from the committed lock file. Where Node, npm or the registry is missing
the tests that need it are skipped, with the reason.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp
import pytest
from yarl import URL

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build" / "node"
INSTALL_SECONDS = 100


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


def installed() -> Path:
    """`build/node` with the packages of the lock file; skips the test where that is impossible."""
    npm, lock = _program("npm"), (HERE / "package-lock.json").read_bytes()
    BUILD.mkdir(parents=True, exist_ok=True)
    # One worker of pytest-xdist installs, the others wait for it.
    with (BUILD / ".installing").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        done = BUILD / ".installed"
        if not done.exists() or done.read_bytes() != lock:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, BUILD / name)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            path = f"{Path(npm).parent}{os.pathsep}{os.environ.get('PATH', '')}"
            try:
                subprocess.run(
                    command,
                    cwd=BUILD,
                    env={**os.environ, "PATH": path},
                    check=True,
                    capture_output=True,
                    timeout=INSTALL_SECONDS,
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
                pytest.skip(f"oidc-provider could not be installed: {type(error).__name__}")
            done.write_bytes(lock)
        shutil.copy(HERE / "server.mjs", BUILD / "server.mjs")
    return BUILD


@dataclass(frozen=True, slots=True)
class Door:
    """Where the provider finds every https name: a port of this machine, and the file of the CA that vouches
    for who is there. It is read only when something is sent."""

    port: int
    ca: Path


@dataclass(frozen=True, slots=True)
class API:
    """What the access tokens of services are for: its name, its scopes, and the clients who may get them."""

    resource: str
    scope: str
    clients: tuple[dict[str, object], ...]


@asynccontextmanager
async def node_provider(
    client: dict[str, object], door: Door | None = None, api: API | None = None
) -> AsyncIterator[str]:
    """The issuer of a provider that knows `client`; ends with the block, or with us."""
    folder, node = installed(), _program("node")
    process = await asyncio.create_subprocess_exec(
        node,
        "server.mjs",
        json.dumps(client),
        json.dumps(None if door is None else {"port": door.port, "ca": str(door.ca)}),
        json.dumps(None if api is None else asdict(api)),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line, "the provider did not start"
        yield json.loads(line)["issuer"]
    finally:
        process.stdin.close()
        await process.wait()


async def walk(
    http: aiohttp.ClientSession, url: str, until: str, person: str | None = None, method: str = "pwd"
) -> list[tuple[str, str]]:
    """Follows redirects from `url` to one under `until`, signing in as `person` where asked; its parameters.

    `http` keeps the browser's cookies, for an address: `aiohttp.CookieJar(unsafe=True)`.
    """
    for _ in range(10):
        if url.startswith(until):
            return parse_qsl(urlsplit(url).query, keep_blank_values=True)
        if "/interaction/" in url and person is not None:
            url += f"?person={person}&method={method}"
        async with http.get(URL(url, encoded=True), allow_redirects=False) as response:
            location = response.headers.get("Location")
            assert location is not None, f"{response.status}: {(await response.text())[:500]}"
            url = urljoin(url, location)
    raise AssertionError("too many redirects")
