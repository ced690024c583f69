"""What the lease costs the data plane: requests/s with it and without it, and one look at it by itself.

Three workers on one core take turns in front of the same upstream, under the same load: the product with its
default lease, with a longer one, and a worker without any (`revocation_worker`). Whose turn it is not is
stopped, so that it takes nothing from the others. The load and the upstream have the other core. CPU time is
taken too: it is what says something on a machine that is busy with other things.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from bench import load, machine, nginx
from bench.revocation_clients import COOKIE, HOST, Connection, get, until
from bench.revocation_house import LEASE, People, child, configure, keys_in
from bench.revocation_report import ratios
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.app.state import boottime
from ztproxy.demo.running import free_port
from ztproxy.gateway.lease import Lease
from ztproxy.gateway.watch import Watch

LONG = 10.0
"""Seconds of the longer lease; a worker with a much longer one takes too long to get its first."""

LOOKS = 2
"""Looks at the lease for one GET: before the head leaves, and before a small answer is relayed."""

_WAKE = 0.5  # seconds for the next SYNC of one who was stopped


class _Subject(NamedTuple):
    """One of the workers, and where it answers."""

    process: subprocess.Popen[bytes]
    port: int

    @contextmanager
    def turn(self) -> Iterator[None]:
        os.kill(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGSTOP)


async def measure(directory: Path, rounds: int, seconds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Requests/s of each in `rounds` rounds of `seconds`, and nanoseconds of one look."""
    directory.mkdir(mode=0o755)  # noqa: ASYNC240  nobody waits yet
    own_core, other_core = machine.cores()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {own_core})
    try:
        with ExitStack() as stack:
            store = stack.enter_context(EmbeddedValkey(directory / "valkey"))  # on the core of who asks it
            state = store.url
            look = _look_ns()
            os.sched_setaffinity(0, {other_core})
            keys, app = keys_in(directory), free_port()
            stack.enter_context(nginx.upstream(other_core, app, directory))
            people = People(state, keys)
            (cookie,) = await people.sign_in(1)
            await people.close()
            subjects: dict[str, _Subject] = {}
            for name, lease in (("off", LEASE), ("on", LEASE), ("long", LONG)):
                subject = stack.enter_context(
                    _running(name, directory / name, own_core, state, keys, app, lease)
                )
                await _well(subject, cookie)
                os.kill(subject.process.pid, signal.SIGSTOP)
                subjects[name] = subject
            rates, costs = await _rates(subjects, store, cookie, other_core, directory, rounds, seconds, say)
    finally:
        os.sched_setaffinity(0, before)
    each = {name: median(values) for name, values in rates.items()}
    to_off = {name: ratios(values, rates["off"]) for name, values in rates.items()}
    return {
        "long_lease_s": LONG,
        "times_as_often": round(LONG / LEASE, 1),
        "connections": load.CONNECTIONS,
        "requests_per_second": {name: round(rate) for name, rate in each.items()},
        "rounds": {name: [round(value) for value in values] for name, values in rates.items()},
        "to_off": to_off,
        "cpu_us_per_request": {name: round(median(values), 2) for name, values in costs.items()},
        "cost_percent": round(100 * (1 - median(to_off["on"])), 2),
        "spread": round(max((max(values) - min(values)) / max(values) for values in rates.values()), 3),
        "look_ns": round(look, 1),
        "looks_percent": round(LOOKS * look / 1e9 * each["on"] * 100, 3),
    }


async def _rates(
    subjects: dict[str, _Subject],
    store: EmbeddedValkey,
    cookie: str,
    core: int,
    directory: Path,
    rounds: int,
    seconds: int,
    say: Callable[[str], None],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Requests/s, and microseconds of CPU for a request, the store's included; for each subject, by round."""
    headers = {"Host": HOST, "Cookie": f"{COOKIE}={cookie}"}
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    costs: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds + 1):
        for name in names[number % 3 :] + names[: number % 3]:  # nobody is always the first
            subject = subjects[name]
            with subject.turn():
                await asyncio.sleep(_WAKE)
                right = await asyncio.to_thread(load.ask, subject.port, "/", headers)
                before = _cpu(subject, store)
                seen = await asyncio.to_thread(
                    load.wrk,
                    *(core, subject.port, "/", headers, directory),
                    seconds=seconds if number else 1,
                    connections=load.CONNECTIONS,
                    right=right,
                )
                spent = _cpu(subject, store) - before
            if number:  # the first round warms
                rates[name].append(seen.rate)
                costs[name].append(spent / seen.requests * 1e6)
        if number:
            said = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items())
            say(f"round {number}: {said} requests/s")
    return rates, costs


def _cpu(subject: _Subject, store: EmbeddedValkey) -> float:
    """Seconds of CPU that both have had so far."""
    pids = (subject.process.pid, store.pid)
    tasks = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text().split()[0]) for file in tasks) / 1e9


@contextmanager
def _running(
    name: str, directory: Path, core: int, state: str, keys: Path, app: int, lease: float
) -> Iterator[_Subject]:
    port = free_port()
    config = configure(
        directory, port=port, state=state, keys=keys, app=app, lease=lease, more="admin: off\n"
    )
    kind = "off" if name == "off" else "on"
    command = (sys.executable, "-m", "bench.revocation_worker", kind, str(config))
    with child(*machine.pinned(core, *command), log=directory / "said.log") as process:
        try:
            yield _Subject(process, port)
        finally:
            process.kill()  # it may be stopped, and has nothing to lose


async def _well(subject: _Subject, cookie: str) -> None:
    """What is measured is the right answer."""
    door = Connection(subject.port)

    async def answers() -> bool:
        answer = await door.ask(get(cookie))
        return answer.status == 200 and len(answer.body) == nginx.BODY_BYTES

    await until(answers, f"the worker at {subject.port} answers")
    door.close()


def _look_ns() -> float:
    """One question to the product's own gate: is there a lease?"""
    lease = cast(Lease, SimpleNamespace(until=float("inf")))
    loop = asyncio.get_running_loop()

    async def nobody(_: object) -> None:
        return None

    watch = Watch(lease, tuple, nobody, loop, time.time, boottime, 10.0)
    times = 200_000
    return min(timeit.repeat(watch.open, number=times, repeat=5)) / times * 1e9
