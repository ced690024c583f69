"""A scenario: honest traffic before, during and after something bad, and what was promised of that.

Knows: what every scenario promises (honest people's p99, none of their requests lost, a worker that lives and
stays within bounds) and how it is looked at. Promises: nothing counts as kept that was not looked at. Leaves
what is bad to the scenario, and telling of it to `report`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench import machine
from loadtests.overload.honest import RATE, Honest, Phase, beside
from loadtests.overload.house import House, MiB, Shape, Usage, house

TWICE = 2.0
ROOM = 8.0
"""Milliseconds that p99 may rise in any case. A quiet p99 is 1 to 6 ms, from one few seconds to the next: an
app and its client share a core, and each may wait there for a slice of the kernel's scheduler (4 ms) that
another has. That shows as a rise, and has nothing to do with ztproxy."""

_LOOK_EVERY = 0.1
_LOOK_AT_DESCRIPTORS_EVERY = 5  # looks
_STANDING = 60.0
_SETTLE = 1.0
_KEPT = 128
"""Descriptors more than before: connections to the apps stay for a minute in case somebody needs them."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how much: seconds of each phase, a share of every number of attackers, and how many honest
    requests there are a second, with WebSockets and downloads (`streams`) or without."""

    seconds: float = 6.0
    before: float = 5.0
    after: float = 3.0
    share: float = 1.0
    rate: float = RATE
    streams: bool = True

    def some(self, count: int) -> int:
        return max(1, round(count * self.share))


class Promise(NamedTuple):
    """Something promised, whether it was kept, and what was seen. `timed`: it is about a time, so that a busy
    machine can break it. `common`: every scenario promises it."""

    what: str
    kept: bool
    seen: str
    timed: bool = False
    common: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """`row` is where it comes from; `attack` says how much is done, for readers. Its `run` does it, and
    promises what is particular to it. `growth` is what the worker's memory may grow by, in MiB, at the worst
    moment; `forgiven` is how that begins which honest people may meet meanwhile, and `why` says so;
    `needs` is a program without which it is skipped."""

    name: str
    row: str
    attack: str
    run: Callable[[Stage], Awaitable[None]]
    shape: Shape = field(default_factory=Shape)
    growth: float = 32.0
    forgiven: tuple[str, ...] = ()
    why: str = ""
    tls: bool = False
    needs: str = ""


@dataclass(slots=True)
class Found:
    """What a scenario came to."""

    scenario: Scenario
    phases: dict[str, Phase] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    promises: list[Promise] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> list[Promise]:
        return [one for one in self.promises if not one.kept]

    def as_data(self) -> dict[str, Any]:
        return {
            "name": self.scenario.name,
            "row": self.scenario.row,
            "attack": self.scenario.attack,
            "honest": {name: phase.as_data() for name, phase in self.phases.items()},
            "worker": {name: usage.as_data() for name, usage in self.usage.items()},
            "seen": self.seen,
            "promises": [one._asdict() for one in self.promises],
        }


class Attack:
    """Attackers at work. `met` is what they met, once they have ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.met: dict[str, Any] = {}

    async def stand(self) -> None:
        await self._line("standing")

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.met = json.loads(await self._line("{"))
        await self._process.wait()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.met["counts"]
        return counts

    def ended(self, status: int | str) -> int:
        return self.counts.get(str(status), 0)

    async def _line(self, start: str) -> str:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_STANDING):
                while line := (await self._process.stdout.readline()).decode():
                    if line.startswith(start):
                        return line
        except TimeoutError:
            pass
        raise machine.CannotMeasure("the attackers ended, or never began")


class Stage:
    """A scenario under way: the house it happens in, how much effort it may make, and what it finds."""

    def __init__(self, home: House, effort: Effort, found: Found, honest: Honest) -> None:
        self.house, self.effort, self.found, self.honest = home, effort, found, honest

    def promise(self, what: str, kept: bool, seen: object, *, timed: bool = False) -> None:
        self.found.promises.append(Promise(what, bool(kept), str(seen), timed))

    def saw(self, **seen: Any) -> None:
        self.found.seen.update(seen)

    def some(self, count: int) -> int:
        return self.effort.some(count)

    @contextlib.asynccontextmanager
    async def attack(self, kind: str, **how: Any) -> AsyncIterator[Attack]:
        """The block, with these attackers at full strength; they have ended after it."""
        how = {"port": self.house.port, **how}
        command = idly(
            self.house.other, sys.executable, "-m", "loadtests.overload.attackers", kind, json.dumps(how)
        )
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MiB
        )
        attack = Attack(process)
        try:
            await attack.stand()
            yield attack
            await attack.end()
        finally:
            attack.kill()

    async def go_on(self, seconds: float | None = None) -> None:
        await asyncio.sleep(self.effort.seconds if seconds is None else seconds)

    async def until(self, done: Callable[[], Awaitable[bool]], seconds: float) -> float | None:
        """How many seconds it took, or None."""
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            if await done():
                return time.perf_counter() - began
            await asyncio.sleep(0.05)
        return None


def idly(core: int, *command: str) -> list[str]:
    """`command`, on that core when nobody else wants it (SCHED_IDLE), and not for longer than this process:
    honest people are to be held up by ztproxy, if at all, and never by the attackers' own work."""
    guarded = [machine.tool("setpriv", "util-linux"), "--pdeathsig", "KILL", *machine.pinned(core, *command)]
    return [machine.tool("chrt", "util-linux"), "--idle", "0", *guarded]


async def perform(scenario: Scenario, effort: Effort) -> Found:
    """One scenario, whole. Raises `CannotMeasure`."""
    found = Found(scenario)
    async with house(scenario.shape) as home:
        tls = None
        if scenario.tls:
            tls = ssl.create_default_context()
            home.ca.configure_trust(tls)
        port = home.ports["tls"] if scenario.tls else home.port
        honest = Honest(port, home.cookies, tls=tls, rate=effort.rate, streams=effort.streams)
        honest.enter("warming up")
        gc.collect()
        gc.freeze()  # a collection of all that was imported here would hold honest people up, for 50 ms
        async with beside(honest):
            await asyncio.sleep(_SETTLE)
            for name, lasting in (("before", effort.before), ("during", None), ("after", effort.after)):
                honest.enter(name)
                async with _looked_at(home, found, name):
                    if lasting is None:
                        await scenario.run(Stage(home, effort, found, honest))
                    else:
                        await asyncio.sleep(lasting)
            honest.enter("ending")
        found.phases = {name: honest.phases[name] for name in ("before", "during", "after")}
        _promised_of_all(home, found)
    return found


@contextlib.asynccontextmanager
async def _looked_at(home: House, found: Found, name: str) -> AsyncIterator[None]:
    usage, worker = found.usage.setdefault(name, Usage()), home.worker
    began, cpu = time.perf_counter(), worker.cpu

    async def look() -> None:
        looks = 0
        while worker.alive:
            with contextlib.suppress(OSError):
                usage.resident = max(usage.resident, worker.resident)
                if looks % _LOOK_AT_DESCRIPTORS_EVERY == 0:
                    usage.descriptors = max(usage.descriptors, worker.descriptors)
            looks += 1
            await asyncio.sleep(_LOOK_EVERY)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        usage.seconds = time.perf_counter() - began
        with contextlib.suppress(OSError):
            usage.cpu = worker.cpu - cpu


def _promised_of_all(home: House, found: Found) -> None:
    scenario, phases, usage = found.scenario, found.phases, found.usage
    before = phases["before"].as_data()
    if phases["before"].wrong or not phases["before"].answers:
        raise machine.CannotMeasure(f"not even before the attack all was well: {before}")

    def promise(what: str, kept: bool, seen: str, *, timed: bool = False) -> None:
        found.promises.append(Promise(what, kept, seen, timed, common=True))

    bound = max(TWICE * before["p99"], before["p99"] + ROOM)
    for name in ("during", "after"):
        p99 = phases[name].as_data()["p99"]
        seen = f"{p99} ms, before {before['p99']} ms"
        promise(f"honest p99 {name} within {bound:.1f} ms", 0 < p99 <= bound, seen, timed=True)
        forgiven = scenario.forgiven if name == "during" else ()
        wrong = phases[name].wrong
        what = f"no honest request, WebSocket or download fails {name}"
        promise(
            f"{what} ({scenario.why})" if forgiven else what,
            all(met.startswith(tuple(forgiven)) for met in wrong),
            str(dict(wrong)) if wrong else "none",
        )
    alive = home.worker.alive
    promise("the worker lives", alive, "it does" if alive else "it is gone")
    grown = (max(one.resident for one in usage.values()) - usage["before"].resident) / MiB
    promise(
        f"its memory grows by {scenario.growth:g} MiB at most", grown <= scenario.growth, f"{grown:.1f} MiB"
    )
    left, had = home.worker.descriptors if alive else 0, usage["before"].descriptors
    promise("its descriptors are given back", left <= had + _KEPT, f"{had} before, {left} after")
