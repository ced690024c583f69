"""`python -m bench.revocation`, or `make bench-revocation`: how long until a revocation holds everywhere.

Measures the product as it is run (`revocation_house`), prints the aims and whether they are met, and writes
`build/bench-revocation.json`, `docs/revocation-speed.md` and its plot. `--quick` takes small numbers and
writes below `build/` only. Nothing here is a test: a slow machine fails nothing. It ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from bench import machine, revocation_lease
from bench.revocation_clients import PROBE_PAUSE, Load, Probe, Socket, is_let_in, patiently, under
from bench.revocation_house import LEASE, NODES, House, running
from bench.revocation_report import page, percentile, plot, series, summary, table

BUILD, DOCS = Path("build"), Path("docs")
RESULT = BUILD / "bench-revocation.json"
PAGE, PLOT = "revocation-speed.md", "revocation-speed.svg"

LIMIT = 240.0
"""Seconds after which it gives up."""

_AT_ONCE = 100  # WebSockets being opened
_SPARE_FILES = 1000
_BYTES_PER_SOCKET = 192 * 1024  # of all its ends: us, the proxy twice, the app, their buffers


@dataclass(frozen=True, slots=True)
class Effort:
    """How much. `lease_seconds` is for each worker in each of `lease_rounds`."""

    sessions: int = 10_000
    websockets: int = 1_000
    requests_per_second: int = 200
    rounds: int = 3
    revocations: int = 100
    cuts: int = 12
    everybody: int = 10_000
    lease_rounds: int = 8
    lease_seconds: int = 2


QUICK = Effort(
    sessions=500,
    websockets=60,
    requests_per_second=50,
    rounds=2,
    revocations=10,
    cuts=3,
    everybody=400,
    lease_rounds=2,
    lease_seconds=1,
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One revocation, in milliseconds since its call began: the last worker's first refusal, the last
    WebSocket's end, the 200, the last answer to anybody who was let in. `broken` counts who was let in after
    the 200."""

    refused: float
    closed: float
    answered: float
    let_through: float
    broken: int


def say(what: str) -> None:
    print(f"  {what}", flush=True)


async def measure(effort: Effort) -> dict[str, Any]:
    """Everything, as the result file holds it."""
    began, (busy, *_) = perf_counter(), os.getloadavg()
    machine.many_files()
    with folder() as directory:
        async with running(directory) as house:
            figures = await _revocations(effort, house)
        say("requests/s with the lease, without it, and with a longer one")
        speed = await revocation_lease.measure(
            directory / "lease", effort.lease_rounds, effort.lease_seconds, say
        )
    return {
        **figures,
        "throughput": speed,
        "machine": machine.description(),
        "quick": effort is QUICK,
        "load_average_before": round(busy, 1),
        "seconds": round(perf_counter() - began, 1),
    }


async def _revocations(effort: Effort, house: House) -> dict[str, Any]:
    say(f"{effort.sessions:,} sessions")
    cookies = await house.people.sign_in(effort.sessions)
    await house.lets_in(cookies[0])
    say(f"{effort.websockets:,} WebSockets")
    sockets = await _open_sockets(house, cookies[: effort.websockets])
    load = Load(house.ports, cookies[effort.websockets :], effort.requests_per_second)
    timings: list[Timing] = []
    async with under(load):
        for number in range(effort.rounds):
            say(f"round {number + 1}: {effort.revocations} revocations")
            timings += [
                await _revoke_one(house, cookie) for cookie in await house.people.sign_in(effort.revocations)
            ]
    if any(one.closed.done() for one in sockets):
        raise machine.CannotMeasure("WebSockets were closed whose sessions nobody revoked")
    everybody, last = await _revoke_everybody(effort, house, cookies, sockets)
    say(f"{effort.cuts} revocations with one worker cut off")
    cuts = await _cut_off(effort, house, last)
    refused, closed = [one.refused for one in timings], [one.closed for one in timings]
    answered, seconds = [one.answered for one in timings], load.seconds
    return {
        "setting": {
            "workers": NODES,
            "sessions": effort.sessions,
            "websockets": effort.websockets,
            "requests_per_second": effort.requests_per_second,
            "lease_ms": round(LEASE * 1000),
            "probe_pause_ms": PROBE_PAUSE * 1000,
        },
        "one": {
            "refused_ms": summary(refused, effort.rounds),
            "closed_ms": summary(closed, effort.rounds),
            "answered_ms": summary(answered, effort.rounds),
        },
        "cut_off": {
            "answered_ms": summary([one.answered for one in cuts]),
            "let_through_ms": summary([one.let_through for one in cuts]),
        },
        "everybody": everybody,
        "load": {
            "requests_per_second": round(load.requests_per_second, 1),
            "p50_ms": round(percentile(seconds, 50) * 1000, 2),
            "p99_ms": round(percentile(seconds, 99) * 1000, 2),
            "failed": load.failed,
        },
        "let_in_after_confirmation": sum(one.broken for one in (*timings, *cuts)),
        "samples": {
            "refused_ms": _rounded(refused),
            "closed_ms": _rounded(closed),
            "answered_ms": _rounded(answered),
            "cut_answered_ms": _rounded([one.answered for one in cuts]),
            "cut_let_through_ms": _rounded([one.let_through for one in cuts]),
        },
    }


async def _revoke_one(
    house: House, cookie: str, cut: Sequence[int] = (), just_before: Callable[[], None] = lambda: None
) -> Timing:
    """Revokes one session that is busy on every worker. `just_before` is what happens then.

    At the ports in `cut` it has no WebSocket and no refusal is waited for: a request that has met the end of
    the lease on its way back may wait there for the next one.
    """
    name = await house.people.id_of(cookie)
    probes = [Probe(port, cookie) for port in house.ports]
    sockets = [await Socket.open(port, cookie) for port in house.ports if port not in cut]
    for probe in probes:
        await probe.begin()
    asking = {probe: asyncio.create_task(probe.run()) for probe in probes}
    try:
        await asyncio.sleep(random.uniform(0.02, 0.12))  # not in step with anybody's beat
        just_before()
        began = perf_counter()
        answer, _ = await house.admin.revoke("session", name)
        later = sum([await is_let_in(port, cookie) for port in house.ports])
        heard = [probe for probe in probes if probe.port not in cut]
        await patiently(asyncio.gather(*(asking[one] for one in heard)), "every worker refuses")
        closed = await patiently(_all_closed(sockets), "every WebSocket is closed")
    finally:
        for task in asking.values():
            task.cancel()
        await asyncio.gather(*asking.values(), return_exceptions=True)
        for one in probes:
            one.close()
        for socket in sockets:
            socket.close()
    return Timing(
        refused=(max(one.refused_at for one in heard) - began) * 1000,
        closed=(max(closed) - began) * 1000,
        answered=(answer.at - began) * 1000,
        let_through=(max(one.let_in_at for one in probes) - began) * 1000,
        broken=sum(one.let_in_began > answer.at for one in probes) + later,
    )


async def _revoke_everybody(
    effort: Effort, house: House, cookies: Sequence[str], sockets: list[Socket]
) -> tuple[dict[str, Any], int]:
    """The figures, and the lock's number."""
    count = min(effort.everybody, _most_sockets())
    say(f"{count:,} WebSockets, and everybody revoked")
    missing = [cookies[number % len(cookies)] for number in range(len(sockets), count)]
    sockets = [*sockets, *await _open_sockets(house, missing)]
    await asyncio.sleep(1.0)  # what opening them has left to do is not what is measured
    began = perf_counter()
    answer, number = await house.admin.revoke("all")
    ends = await patiently(_all_closed(sockets), "every WebSocket is closed")
    closed = [(end - began) * 1000 for end in ends]
    said = sum(one.code_1008 for one in sockets)
    for one in sockets:
        one.close()
    if min(closed) < 0:
        raise machine.CannotMeasure("WebSockets were closed before anybody was revoked")
    figures = {
        "websockets": count,
        "wanted": effort.everybody,
        "closed_ms": summary(closed),
        "answered_ms": round((answer.at - began) * 1000, 2),
        "with_1008": said,
    }
    return figures, number


async def _cut_off(effort: Effort, house: House, as_of: int) -> list[Timing]:
    """Revocations while the last worker's way to the store carries nothing. `as_of`: the last number in the
    log."""
    *_, far = house.nodes
    bystander, *cookies = await house.people.sign_in(1 + effort.cuts, as_of)
    timings = []
    with house.relayed(far) as relay:
        for cookie in cookies:
            await house.lets_in(bystander)
            await house.lets_in(cookie)
            timings.append(await _revoke_one(house, cookie, (far.port,), relay.pause))
            relay.resume()
    return timings


async def _open_sockets(house: House, cookies: Sequence[str]) -> list[Socket]:
    """One for each cookie, spread over the workers."""
    turn, ports = asyncio.Semaphore(_AT_ONCE), house.ports

    async def one(number: int, cookie: str) -> Socket:
        async with turn:
            return await Socket.open(ports[number % len(ports)], cookie)

    return await asyncio.gather(*(one(number, cookie) for number, cookie in enumerate(cookies)))


async def _all_closed(sockets: Sequence[Socket]) -> list[float]:
    return [await one.closed for one in sockets]


def _most_sockets() -> int:
    """As many as the files and the memory of this machine are enough for. Each takes two files of a proxy, of
    which there are four, one of the app and one of ours."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(found[1]) * 1024 if found else 0
    return min(files - _SPARE_FILES, free // _BYTES_PER_SOCKET)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for everything, removed afterwards; kept, and named, when something could not be measured."""
    directory = Path(tempfile.mkdtemp(prefix="ztp-bench-"))
    directory.chmod(0o755)  # nginx, started as root, serves as somebody else
    try:
        yield directory
    except machine.CannotMeasure:
        print(f"bench: logs are kept in {directory}", file=sys.stderr)
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


async def _in_time(effort: Effort) -> dict[str, Any]:
    try:
        async with asyncio.timeout(LIMIT):
            return await measure(effort)
    except TimeoutError as error:
        raise machine.CannotMeasure(f"it took longer than {LIMIT:.0f} s") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.revocation", description="Speed of revocations.")
    parser.add_argument("--quick", action="store_true", help="small numbers; docs/ is left alone")
    quick = parser.parse_args().quick
    signal.alarm(int(LIMIT) + 30)  # if even giving up hangs, the kernel ends us, and with us all we started
    try:
        figures = uvloop.run(_in_time(QUICK if quick else Effort()))
    except machine.CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    BUILD.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")
    folder = BUILD if quick else DOCS
    (folder / PLOT).write_text(plot(series(figures)))
    (folder / PAGE).write_text(page(figures, PLOT))
    print("\n".join(table(figures)))
    print(f"written to {RESULT}, {folder / PAGE} and {folder / PLOT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
