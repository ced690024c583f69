"""Those who attack, in a process of their own: `python -m loadtests.overload.attackers KIND JSON`.

Knows: how each attack is made. Promises: it goes on until its standard input ends, then says in one line of
JSON what it met; before that it says `standing` once it is at full strength. Everything goes to loopback.
Leaves judging to the scenarios, and its place on a core to who starts it (`scenario.idly`).

Kinds: `hold` keeps connections and sends a little now and then, `flood` makes requests, `read_slowly` takes
answers by a few octets, `shake` makes TLS handshakes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import secrets
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import cycle
from time import perf_counter
from typing import Any

import uvloop

from bench import machine
from bench.revocation_clients import HOST, get
from loadtests.overload.honest import quantile
from loadtests.overload.speaking import Speaker, upgrade

_OPENED_AT_ONCE = 64
_OPENED_A_SECOND = 1000.0
"""Connections, at first. What this machine could do at most would be a flood of another kind beside the one
that is meant."""

_AGAIN = 0.05
"""Seconds after which a connection that was closed is made again."""

_TIMED = 20_000
"""So many answers are timed; more are only counted."""

_PATIENCE = 15.0
_PIECE = 32 * 1024
"""Octets that a slow reader's kernel takes for it, and so what it reads at once."""


Said = dict[str, Any]


def source(number: int, sources: int) -> str:
    """One of the addresses 127.0.1.0 and up; without `sources`, 127.0.0.1 as honest people have it."""
    return "127.0.0.1" if not sources else f"127.0.{1 + number % sources // 250}.{1 + number % sources % 250}"


# -- what is sent -----------------------------------------------------------------------------------------


def _forged_token(where: str) -> bytes:
    """A bearer token of the right issuer, by a key nobody has published; each names another."""

    def part(value: Said) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    header = part({"alg": "RS256", "typ": "at+jwt", "kid": secrets.token_hex(8)})
    claims = part({"iss": where, "aud": "https://svc.test", "sub": "ci", "iat": now, "exp": now + 300})
    signature = base64.urlsafe_b64encode(secrets.token_bytes(256)).rstrip(b"=").decode()
    return (
        f"GET / HTTP/1.1\r\nHost: svc.test\r\nAuthorization: Bearer {header}.{claims}.{signature}\r\n\r\n"
    ).encode()


def _forged_cookie() -> bytes:
    """A session cookie of the right form: a handle and a signature, both of nobody."""
    parts = (secrets.token_urlsafe(32)[:42] + "A" for _ in range(2))
    return get("v1." + ".".join(parts))


def _page(target: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
        "Sec-Fetch-Dest: document\r\n\r\n"
    ).encode()


BOMBS = (
    "many_headers",
    "one_header",
    "many_cookies",
    "url",
    "tiny_chunks",
    "chunk_extension",
    "trailers",
)


def bomb(kind: str, cookie: str) -> bytes:
    """A request that is far too large in one way. What is refused while it is still sent is refused."""
    start = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n".encode()
    match kind:
        case "many_headers":
            return start + b"X: 1\r\n" * 150_000 + b"\r\n"
        case "one_header":
            return start + b"X-Large: " + b"a" * 1_000_000 + b"\r\n\r\n"
        case "many_cookies":
            return start + b"Cookie: " + b"c=1; " * 200_000 + b"c=1" + b"\r\n\r\n"
        case "url":
            return b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: app.test\r\n\r\n"
        case "tiny_chunks":
            post = get(cookie).replace(b"GET", b"POST", 1)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
            return post + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
        case "chunk_extension":
            post = get(cookie).replace(b"GET", b"POST", 1)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
            return post + b"1;" + b"a" * 1_000_000 + b"\r\nx\r\n0\r\n\r\n"
        case "trailers":
            post = get(cookie).replace(b"GET", b"POST", 1)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
            return post + b"1\r\nx\r\n0\r\n" + b"T: 1\r\n" * 150_000 + b"\r\n"
    raise ValueError(kind)


def _requests(how: Said) -> Callable[[], bytes]:
    """What makes each request of a flood."""
    what = how["what"]
    match what:
        case "get":
            return lambda: get(how["cookie"], how.get("target", "/"))
        case "anonymous":
            return lambda: _page(how.get("target", "/"))
        case "post":
            size = how.get("size", 10)

            def post() -> bytes:
                asked = get(how["cookie"], how["target"] + secrets.token_hex(6))
                return (
                    asked.replace(b"GET", b"POST", 1)[:-2]
                    + b"Content-Length: %d\r\n\r\n" % size
                    + bytes(size)
                )

            return post
        case "token":
            return lambda: _forged_token(how["issuer"])
        case "cookie":
            return _forged_cookie
        case "bombs":
            bombs = cycle(bomb(kind, how["cookie"]) for kind in BOMBS if kind != "tiny_chunks")
            return lambda: next(bombs)
    raise ValueError(what)


# -- attacks ----------------------------------------------------------------------------------------------


class Met:
    """What the attackers met."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.times: list[float] = []
        self.lifetimes: list[float] = []
        self.last_closed = 0.0  # seconds since the epoch
        self.fields: dict[str, set[str]] = {}

    def as_data(self) -> Said:
        return {
            "counts": dict(self.counts),
            "last_closed": self.last_closed,
            "ms": {
                name: quantile(self.times, at) for name, at in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            },
            "lived": {name: quantile(self.lifetimes, at) for name, at in (("p50", 0.5), ("max", 1.0))},
            "fields": {name: sorted(values)[:5] for name, values in self.fields.items()},
        }


class Held(asyncio.Protocol):
    """A connection that is kept, with `first` sent and then `drip` every so many seconds."""

    def __init__(self, met: Met) -> None:
        self.met = met
        self.transport: Any = None
        self.since = perf_counter()
        self.gone = asyncio.get_running_loop().create_future()
        self.came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.came:
            self.met.counts[data[9:12].decode("latin-1")] += 1
        self.came = data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


async def hold(how: Said, met: Met, over: asyncio.Event, standing: Callable[[], None]) -> None:
    """`connections` from `sources` addresses, each sending `first`, then `drip` each `every` seconds. One
    that is closed is made `again`, or not. With `upgrade` they are WebSockets of that cookie."""
    loop = asyncio.get_running_loop()
    turn = asyncio.Semaphore(_OPENED_AT_ONCE)
    first, drip, every = (
        how.get("first", "").encode("latin-1"),
        how.get("drip", "").encode(),
        how.get("every"),
    )
    tried, kept = 0, set[Held]()

    async def one(number: int) -> None:
        nonlocal tried
        await asyncio.sleep(number / how.get("opening", _OPENED_A_SECOND))
        while True:
            held = await opened(number)
            tried += 1
            if tried == how["connections"]:
                standing()
            if held is not None:
                kept.add(held)
                while not held.gone.done():
                    await asyncio.wait([held.gone], timeout=every)
                    if drip and not held.gone.done() and not held.transport.is_closing():
                        held.transport.write(drip)
                kept.discard(held)
                met.counts["closed"] += 1
                met.lifetimes.append(perf_counter() - held.since)
                met.last_closed = time.time()
            if not how.get("again"):
                return
            await asyncio.sleep(_AGAIN)

    async def opened(number: int) -> Held | None:
        local = (source(number, how.get("sources", 0)), 0)
        try:
            async with turn, asyncio.timeout(_PATIENCE):
                _, held = await loop.create_connection(
                    lambda: Held(met), "127.0.0.1", how["port"], local_addr=local
                )
        except (OSError, TimeoutError) as error:
            met.counts[type(error).__name__] += 1
            return None
        held.transport.write(upgrade(how["upgrade"]) if "upgrade" in how else first)
        met.counts["opened"] += 1
        return held

    holding = [asyncio.create_task(one(number)) for number in range(how["connections"])]
    await over.wait()
    met.counts["still_open"] = len(kept)
    for task in holding:
        task.cancel()
    for held in kept:
        held.transport.abort()


async def flood(how: Said, met: Met, over: asyncio.Event, standing: Callable[[], None]) -> None:
    """Requests over `connections` that stay where they may, from `sources` addresses, as fast as they are
    answered or at most `rate` a second altogether. `fresh`: each over a connection of its own. `fields` names
    those of the answers whose values are kept."""
    make, connections = _requests(how), how["connections"]
    pause = connections / how["rate"] if "rate" in how else 0.0
    tls = _unchecked() if how.get("tls") else None
    standing()

    async def one(number: int) -> None:
        speaker = Speaker(how["port"], source(number, how.get("sources", 0)), tls, how.get("name", HOST))
        await asyncio.sleep(pause * number / connections)
        while not over.is_set():
            request, began = make(), perf_counter()
            try:
                async with asyncio.timeout(_PATIENCE):
                    answer = await speaker.ask(request)
            except (OSError, TimeoutError) as error:
                met.counts[type(error).__name__] += 1
                speaker.close()
                await asyncio.sleep(_AGAIN)
                continue
            met.counts[str(answer.status)] += 1
            if not answer.complete:
                met.counts["cut short"] += 1
            if len(met.times) < _TIMED:
                met.times.append(1000 * (answer.at - began))
            for name in how.get("fields", ()):
                found = re.search(rf"(?i)\r\n{name}: *([^\r]*)", answer.head.decode("latin-1") + "\r\n")
                kept = met.fields.setdefault(f"{answer.status} {name}", set())
                if len(kept) < 100:
                    kept.add(found[1] if found else "missing")
            if how.get("fresh"):
                speaker.close()
            if pause:
                await asyncio.sleep(max(0.0, pause - (perf_counter() - began)))
            elif answer.status == 429 or not speaker.open:
                await asyncio.sleep(how.get("pause", 0.001))
        speaker.close()

    await asyncio.gather(*(one(number) for number in range(connections)))


async def read_slowly(how: Said, met: Met, over: asyncio.Event, standing: Callable[[], None]) -> None:
    """`connections` that ask for `target` and read, of what has come, one small piece a second."""
    speakers: list[Speaker] = []
    for number in range(how["connections"]):
        speaker = Speaker(how["port"], source(number, how.get("sources", 0)), holds=_PIECE)
        try:
            async with asyncio.timeout(_PATIENCE):
                speaker.streams = True
                answer = await speaker.ask(get(how["cookie"], how["target"]))
        except (OSError, TimeoutError) as error:
            met.counts[type(error).__name__] += 1
            continue
        met.counts[str(answer.status)] += 1
        speaker.pause_reading()
        speakers.append(speaker)
    standing()
    while not over.is_set():
        for speaker in speakers:
            if not speaker.lost:
                speaker.resume_reading()
        await asyncio.sleep(0)
        for speaker in speakers:
            if not speaker.lost:
                speaker.pause_reading()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), how.get("every", 1.0))
    met.counts["octets"] = sum(speaker.received for speaker in speakers)
    met.counts["closed"] = sum(speaker.lost for speaker in speakers)
    for speaker in speakers:
        speaker.close()


async def shake(how: Said, met: Met, over: asyncio.Event, standing: Callable[[], None]) -> None:
    """Whole TLS handshakes, at most `rate` a second altogether on so many `connections`; nothing is asked."""
    tls, pause = _unchecked(), how["connections"] / how["rate"]
    standing()

    async def one(number: int) -> None:
        while not over.is_set():
            speaker = Speaker(how["port"], source(number, how.get("sources", 0)), tls)
            began = perf_counter()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await speaker.connect()
                met.counts["handshakes"] += 1
                met.times.append(1000 * (perf_counter() - began))
            except (OSError, TimeoutError) as error:
                met.counts[type(error).__name__] += 1
            speaker.close()
            await asyncio.sleep(max(0.0, pause - (perf_counter() - began)))

    await asyncio.gather(*(one(number) for number in range(how["connections"])))


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # an attacker does not mind
    return context


Kind = Callable[[Said, Met, asyncio.Event, Callable[[], None]], Coroutine[Any, Any, None]]
_KINDS: dict[str, Kind] = {"hold": hold, "flood": flood, "read_slowly": read_slowly, "shake": shake}


async def attack(kind: str, how: Said) -> None:
    machine.many_files()
    over, met, loop = asyncio.Event(), Met(), asyncio.get_running_loop()

    def heard() -> None:
        if not os.read(0, 100):
            loop.remove_reader(0)
            over.set()

    loop.add_reader(0, heard)
    await _KINDS[kind](how, met, over, lambda: print("standing", flush=True))
    print(json.dumps(met.as_data()), flush=True)


if __name__ == "__main__":
    uvloop.run(attack(sys.argv[1], json.loads(sys.argv[2])))
