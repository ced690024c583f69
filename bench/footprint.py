"""What ztproxy takes of a machine besides the time of a request: memory, allocations, pauses, idle CPU.

Knows: one proxy with one worker (`bench.subject`), `/proc`, and the store, in which many can be signed in
without walking there. Promises: a fresh worker wherever memory that an earlier figure freed could hide what
the next one takes; whatever is counted was answered rightly. Leaves speed to `bench.speed`. What each figure
is, and is not, stands at `Footprint`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, TypedDict

from bench import latency, machine, memory, subject
from bench.figures import Aim, Rounds, rounds
from bench.inside import Collections, Counters, collections, counted
from bench.peers import Upstream
from bench.place import Place, free_port
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.redis_connection import connect
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.identity import SessionSecrets
from ztproxy.core.sessions import SessionLimits

KIB: Final = 1 << 10
_AT_ONCE: Final = 20
_SAMPLE: Final = 1.0
_WARM: Final = 1000
_BURSTS: Final = 3
_START_SECONDS: Final = 60.0
_WEBSOCKETS: Final = "/ws"


@dataclass(frozen=True, slots=True)
class Effort:
    """How many, and how long in seconds: `idle` to look at an instance nobody asks, `busy` to load one.
    `transfer` in bytes, 0 for none. Things that stay are added in `batches`."""

    connections: int = 2000
    tls_connections: int = 1000
    websockets: int = 1000
    sessions: int = 10_000
    transfer: int = 1 << 30
    idle: float = 10.0
    busy: float = 6.0
    starts: int = 3
    batches: int = 4


QUICK: Final = Effort(500, 200, 200, 1000, 0, idle=2.0, busy=1.0, starts=1, batches=2)


class Idle(TypedDict):
    """A process of an instance that nobody asks, with somebody signed in: `cpu` in seconds of CPU a second,
    `wakes` how often a second it was woken, `resident` its memory in bytes, pages it shares included."""

    cpu: float
    wakes: float
    resident: int


class Busy(TypedDict):
    """Under as much load as goes over 64 connections. `blocks` and `allocated` are what the worker asks of
    Python's allocators for each request, all it does meanwhile included: blocks (new or resized), and bytes;
    what CPython's free lists give is not in it, nor what C libraries take by themselves. `collections` by
    generation. `loop_late_ms` is how late a tick of the event loop came, as ztproxy_event_loop_lag_seconds
    showed it: a sample a second, not the longest stall."""

    requests: int
    blocks: Rounds
    allocated: Rounds
    collections: dict[str, Collections]
    loop_late_ms: Rounds


class Footprint(TypedDict):
    """The first four are bytes of resident memory for each, the worker's, allocator's remains included; a
    round is a batch of them on top of those before. A connection is kept alive after one request. A WebSocket
    has its connection to the app in it. A cached session is one that the worker has decided a request of,
    with all it keeps for the next; the store keeps it besides.

    `growth_*`: the most bytes the worker had above what it began with while `transfer` bytes passed through
    it in one body. `start_up_s` is from the start of the process to the first 200 for somebody who was signed
    in before, on a core of its own and with its files in the page cache. `skipped` says what was not
    measured, and why: `growth`, `busy`.
    """

    idle_connection: Rounds
    idle_tls_connection: Rounds
    idle_websocket: Rounds
    cached_session: Rounds
    transfer: int
    growth_download: int | None
    growth_upload: int | None
    busy: Busy | None
    start_up_s: Rounds
    idle: dict[str, Idle]
    skipped: dict[str, str]


Start = Callable[[Place, Upstream], AbstractAsyncContextManager[subject.Running]]


async def measure(place: Place, effort: Effort, upstream: Upstream, start: Start = subject.peer) -> Footprint:
    """`start` gives a proxy with one worker, fresh each time."""
    house = _House(place, upstream, start)
    skipped: dict[str, str] = {}
    # What is kept in one worker is all kept to the end, each kind on top of those before.
    async with house.fresh("space") as ours:
        idle = await _idle(ours, effort.idle)
        sessions = await _sessions(ours, effort.sessions, effort.batches)
        connections, tls_connections, websockets = await _connections(ours, effort)
    growth: dict[str, int | None] = {"download": None, "upload": None}
    if not effort.transfer:
        skipped["growth"] = "too long for a short look"
    for way in growth if effort.transfer else ():
        port = free_port()
        async with memory.transfer_server(port), house.fresh(way, Upstream(port, port)) as ours:
            growth[way] = await memory.growth(_door(ours), effort.transfer, upload=way == "upload")
    counters = place.sub("counters")
    try:
        generator = _generator(counters)
    except machine.CannotMeasure as error:
        generator, skipped["busy"] = None, str(error)
    with contextlib.nullcontext() if generator is None else counted(counters):
        async with house.fresh("busy") as ours:
            busy = None
            if generator is not None:
                busy = await _busy(
                    ours, generator, Counters.of(ours.workers[0], counters), place.load_core, effort.busy
                )
    started = await _start_up(place, ours, effort.starts)
    return {
        "idle_connection": rounds(connections),
        "idle_tls_connection": rounds(tls_connections),
        "idle_websocket": rounds(websockets),
        "cached_session": rounds(sessions),
        "transfer": effort.transfer,
        "growth_download": growth["download"],
        "growth_upload": growth["upload"],
        "busy": busy,
        "start_up_s": rounds(started, 3),
        "idle": idle,
        "skipped": skipped,
    }


def aims(found: Footprint) -> list[Aim]:
    """Memory for each thing that stays."""
    return [
        Aim("an idle kept-alive connection", found["idle_connection"]["median"] / KIB, 6, "KiB"),
        Aim("an idle WebSocket", found["idle_websocket"]["median"] / KIB, 20, "KiB"),
        Aim("a cached session", found["cached_session"]["median"] / KIB, 2, "KiB"),
    ]


@dataclass(frozen=True, slots=True)
class _House:
    """Proxies, one after the other."""

    place: Place
    upstream: Upstream
    start: Start

    @contextlib.asynccontextmanager
    async def fresh(self, name: str, upstream: Upstream | None = None) -> AsyncIterator[subject.Running]:
        place = replace(self.place, folder=self.place.sub(f"footprint-{name}"))
        async with self.start(place, upstream or self.upstream) as ours:
            yield ours


def _door(ours: subject.Running, *, tls: bool = False) -> memory.Door:
    if not tls:
        return memory.Door(ours.workers[0], ours.port, ours.headers)
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    return memory.Door(ours.workers[0], ours.tls, ours.tls_headers, anybody)


async def _connections(ours: subject.Running, effort: Effort) -> tuple[list[float], list[float], list[float]]:
    """All in one worker, each kind on top of the one before, which stays."""
    plain = _door(ours)
    async with (
        memory.kept_connections(plain, effort.connections, effort.batches) as connections,
        memory.kept_connections(
            _door(ours, tls=True), effort.tls_connections, effort.batches
        ) as tls_connections,
        memory.kept_websockets(plain, _WEBSOCKETS, effort.websockets, effort.batches) as websockets,
    ):
        return connections, tls_connections, websockets


# -- sessions ------------------------------------------------------------------------------------------------


async def _sessions(ours: subject.Running, count: int, batches: int) -> list[float]:
    """Bytes for each, by batch. All are in the store before the first is used."""
    door = _door(ours)
    cookies = iter(await signed_in_like(ours, count + _AT_ONCE))
    connections = [await door.asked(door.headers) for _ in range(_AT_ONCE)]

    async def use(count: int) -> None:
        waiting = iter([next(cookies) for _ in range(count)])

        async def some(connection: memory.Connection) -> None:
            for cookie in waiting:
                await memory.ask(connection, {**door.headers, "Cookie": cookie})

        await asyncio.gather(*map(some, connections))

    try:
        await use(_AT_ONCE)
        return await memory.grown_by(door.pid, count, batches, use)
    finally:
        for _, writer in connections:
            writer.transport.abort()


async def signed_in_like(ours: subject.Running, count: int) -> list[str]:
    """Cookie fields of so many more people, each with a session like the one that is signed in: written into
    the proxy's own store, by its own keys, as a sign-in writes it."""
    ring = KeyRing.load(ours.directory / "keys.yaml")
    signer = SignedHandles(ring.handles)
    client = connect(f"unix://{ours.directory / 'state' / 'valkey.sock'}")
    try:
        store = RedisSessions(client, Sealer(ring.records), SessionLimits())
        pairs = (pair.strip().partition("=") for pair in ours.headers["Cookie"].split(";"))
        (name, handle), *_ = [(name, found) for name, _, value in pairs if (found := signer.open(value))]
        loaded = await store.load(handle)
        if loaded is None:
            raise machine.CannotMeasure("the session that was signed in is not in the store")
        numbers, like = iter(range(count)), loaded.session
        made: list[str] = []

        async def some() -> None:
            for number in numbers:
                person = replace(like.identity, subject=f"{like.identity.subject}-{number}")
                session = replace(like, id="", identity=person)
                handle = await store.create(session, SessionSecrets(), loaded.host, None)
                made.append(f"{name}={signer.seal(handle)}")

        await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
        return made
    finally:
        await client.aclose()


# -- under load ----------------------------------------------------------------------------------------------


def _generator(folder: Path) -> latency.Generator:
    """With what counts beside it. Raises `CannotMeasure` where there is no compiler."""
    latency.compiled("counters", folder, "-shared", "-fPIC")
    return latency.Generator(folder)


async def _busy(
    ours: subject.Running, generator: latency.Generator, counters: Counters, core: int, seconds: float
) -> Busy:
    async def load(count: int) -> float:
        begun = time.monotonic()
        await asyncio.to_thread(generator.run, core, ours.port, ours.headers, count=count, interval=0)
        return time.monotonic() - begun

    await load(_WARM)
    count = max(_WARM, round(_WARM / await load(_WARM) * seconds / _BURSTS))
    counters.clear()
    over = asyncio.Event()
    watching = asyncio.create_task(_late(ours.operations, over))
    told = [counters.read()]
    try:
        for _ in range(_BURSTS):
            await load(count)
            told.append(counters.read())
    finally:
        over.set()
        late = await watching
    each = [
        [(after - before) / count for before, after in zip(*pair, strict=True)] for pair in pairwise(told)
    ]
    if not each[0][0]:
        raise machine.CannotMeasure("the worker counted no allocation of its own")
    return {
        "requests": count * _BURSTS,
        "blocks": rounds([one[0] for one in each]),
        "allocated": rounds([one[1] for one in each]),
        "collections": collections(told[-1], count * _BURSTS),
        "loop_late_ms": rounds([one * 1000 for one in late], 3),
    }


async def _late(operations: int, over: asyncio.Event) -> list[float]:
    """What `loop_late` says every now and then, once at least."""
    late: list[float] = []
    while not late or not over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), _SAMPLE)
        late.append(await loop_late(operations))
    return late


async def loop_late(operations: int) -> float:
    """Seconds by which the last tick of a worker's event loop was late, as the metrics show it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", operations)
    try:
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = (await reader.read()).decode()
    finally:
        writer.close()
    found = re.search(r"^ztproxy_event_loop_lag_seconds(?:\{[^}]*\})? (\S+)$", said, re.MULTILINE)
    if found is None:
        raise machine.CannotMeasure("the metrics do not tell of the event loop")
    return float(found[1])


# -- an instance by itself -----------------------------------------------------------------------------------


async def _idle(ours: subject.Running, seconds: float) -> dict[str, Idle]:
    """By process. What a second of it is has `seconds` to show."""
    await asyncio.sleep(memory.SETTLE)
    names = {pid: _called(pid, ours.pids[0]) for pid in ours.pids}
    before, begun = {pid: cpu_of(pid) for pid in names}, time.monotonic()
    await asyncio.sleep(seconds)
    after, taken = {pid: cpu_of(pid) for pid in names}, time.monotonic() - begun
    found: dict[str, Idle] = {}
    for pid, name in names.items():
        cpu, wakes = (now - then for now, then in zip(after[pid], before[pid], strict=True))
        found[name] = {
            "cpu": round(cpu / taken, 5),
            "wakes": round(wakes / taken, 1),
            "resident": machine.resident(pid),
        }
    return found


def cpu_of(pid: int) -> tuple[float, int]:
    """Seconds of CPU that its threads have had, to the nanosecond, and how often one of them gave it up to
    wait."""
    nanoseconds = wakes = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((task / "schedstat").read_text().split()[0])
        said = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.MULTILINE)
        wakes += int(said[1]) if said else 0
    return nanoseconds / 1e9, wakes


def _called(pid: int, supervisor: int) -> str:
    """What a process of an instance is."""
    if pid == supervisor:
        return "supervisor"
    for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
        if word.startswith("ztproxy.cli."):
            return word.rpartition(".")[2]
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def _start_up(place: Place, ours: subject.Running, times: int) -> list[float]:
    """Seconds; `ours` has ended, and left its configuration and its store."""
    taken = []
    for _ in range(times):
        command = (sys.executable, "-m", "ztproxy.cli", "run", str(ours.directory / "ztproxy.yaml"))
        begun = time.monotonic()
        with machine.process(
            *machine.pinned(place.proxy_core, *command), log=ours.directory / "again.log"
        ) as process:
            while not await _lets_in(ours):
                if process.poll() is not None or time.monotonic() - begun > _START_SECONDS:
                    raise machine.CannotMeasure(f"the proxy does not start; see {ours.directory}/again.log")
                await asyncio.sleep(0.002)
            taken.append(time.monotonic() - begun)
    return taken


async def _lets_in(ours: subject.Running) -> bool:
    try:
        _, writer = await _door(ours).asked(ours.headers)
    except (OSError, asyncio.IncompleteReadError, machine.CannotMeasure):
        return False  # nobody listens yet, or there is no lease yet
    writer.close()
    return True
