"""What every peer needs around it: a folder, its processes, and a first right answer."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from bench import machine
from bench.peers import Peer
from bench.place import Place
from bench.upstream import SIZES

_PATIENCE = 20.0


def folder(place: Place, name: str) -> Path:
    """A new one, however often a peer is started, readable for whoever a server becomes."""
    made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=place.folder))
    made.chmod(0o755)
    return made


def family(pid: int) -> tuple[int, ...]:
    """A process and all below it."""
    return (pid, *machine.descendants(pid))


async def answering(peer: Peer, trusted: ssl.SSLContext) -> None:
    """Waits until both of its ports answer `/` rightly. Raises `CannotMeasure` if they never do."""
    ways: list[tuple[str, Mapping[str, str]]] = [(f"http://127.0.0.1:{peer.port}/", peer.headers)]
    if peer.tls:
        ways.append((f"https://127.0.0.1:{peer.tls}/", peer.tls_headers))
    end = time.monotonic() + _PATIENCE
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=5)
    ) as http:
        for url, fields in ways:
            while said := await _wrong(http, url, fields, trusted):
                if time.monotonic() > end:
                    raise machine.CannotMeasure(f"{peer.name} does not answer {url} rightly: {said}")
                await asyncio.sleep(0.02)


async def _wrong(
    http: aiohttp.ClientSession, url: str, fields: Mapping[str, str], trusted: ssl.SSLContext
) -> str:
    """Empty where the answer is right."""
    try:
        async with http.get(url, headers=fields, ssl=trusted, allow_redirects=False) as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return str(error) or type(error).__name__
    right = answer.status == 200 and len(body) == SIZES["/"]
    return "" if right else f"{answer.status}, {len(body)} bytes: {body[:200]!r}"
