"""Runs histories: starts everything, makes trouble, heals, looks whether all is well, and has it judged.

Knows: what belongs to a history, and what comes first. Promises: all of it is on this machine, and gone when
`history` returns or raises; exit code 1 for any violation. Leaves judging to `checker`.

    --seconds N               how long, in histories of a minute at most
    --workers N               how many worker processes, on two nodes
    --topology standalone | sentinel | alternating
    --seed S                  of every random choice; what the machine schedules is not in our hands
    --mutant NAME             with a seeded mistake, which is to be found
    --report FILE             where the numbers are written
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from loadtests.history.checker import Event, Report, check, story
from loadtests.history.clients import (
    KINDS,
    REGULARS,
    Asked,
    Revoking,
    ask,
    asking,
    signing_in,
    streaming,
)
from loadtests.history.http import Connection
from loadtests.history.mutants import MUTANTS, Mutant
from loadtests.history.nemesis import Nemesis
from loadtests.history.people import Member, People
from loadtests.history.world import World, world
from ztproxy.app.state import State, boottime
from ztproxy.errors import WorldError
from ztproxy.gateway.revoker import Revoker

A_HISTORY = 60.0
"""Seconds of one history at most: all of it is kept in memory until it is judged."""

WELL_WITHIN = 60.0
"""Seconds a worker has, after all faults, to let somebody in. It bounds hanging; nobody measures with it."""

WALKERS = ("wanda", "walt", "willa")
"""Who signs in by walking through it, again and again."""

_SETTLE = 20.0
_LOOK_EVERY = 0.5


@dataclass(frozen=True, slots=True)
class Effort:
    """How much goes on. `revoke_every` and `pause` (between two faults) are seconds, on average."""

    workers: int = 3
    loops: int = 8
    streams: int = 2
    revoke_every: float = 0.25
    pause: float = 1.0


AIMED = Effort(workers=1, revoke_every=0.15, pause=0.8)
"""For a mutant: few seconds, and its own faults one after the other."""


async def history(
    seconds: float,
    seed: int,
    effort: Effort,
    topology: str = "standalone",
    mutant: str = "",
    note: Callable[[str], None] = lambda line: None,
) -> Report:
    """One history of so many seconds, judged; one of a mutant ends when that is found. `note` gets what
    somebody would like to read."""
    wrong = MUTANTS[mutant] if mutant else Mutant(())
    async with world(effort.workers, topology, wrong.lease, mutant if wrong.commit else "") as it:
        rng = Random(seed)
        if wrong.revoker is not Revoker:
            log, journal = it.state.log, it.state._journal
            it.state._revoker = wrong.revoker(log, journal, lease=wrong.lease, boottime=boottime)
        people = People(it.state, it.settings, rng, it.events, it.provider.issuer)
        revoking = Revoking(it.state, people, it.workers, it.provider, effort.revoke_every, Random(seed + 1))
        over = asyncio.Event()
        faults = wrong.faults if mutant else None
        nemesis = Nemesis(it.workers, it.store, it.events, Random(seed + 2), over, wrong.lease, faults)
        if not all((await _well(it, people)).values()):
            raise RuntimeError("\n".join(one.log()[-3000:] for one in it.workers))
        busy: list[Coroutine[Any, Any, None]] = [
            people.keep_up(over),
            revoking.run(over),
            nemesis.run(effort.pause),
        ]
        for who in WALKERS:
            busy.append(
                signing_in(who, it.workers, people, it.provider, revoking, Random(f"{who}{seed}"), over)
            )
        for index, one in enumerate(it.workers):
            own = Random(seed * 100 + index)
            known = deque[Member](maxlen=REGULARS)
            busy += [asking(one, people, known, bool(i % 2), own, over) for i in range(effort.loops)]
            busy += [streaming(one, kind, people, own, over) for kind in KINDS for _ in range(effort.streams)]
        async with asyncio.TaskGroup() as all_of_them:
            for doing in busy:
                all_of_them.create_task(doing)
            for _ in range(math.ceil(seconds / _LOOK_EVERY)):
                await asyncio.sleep(min(seconds, _LOOK_EVERY))
                if mutant and check(it.events).violations:
                    break
            over.set()
        events = it.events
        if mutant:
            await revoking.settle(0.0)
            return check(events)
        events += [
            Event("well", name, "", 0.0, time.monotonic(), "allowed" if well else "never")
            for name, well in (await _well(it, people)).items()
        ]
        await revoking.settle(_SETTLE)
        await _probe(it, people)
        events.append(await _log(it.state))
        report = check(events)
        if report.violations:
            for event in story(events, report.violations[0]):
                note(f"    {event}")
            for one in it.workers:
                note(f"--- {one.name}\n{one.log()[-8000:]}")
        return report


async def _well(it: World, people: People) -> dict[str, bool]:
    """Whether each worker lets somebody in who has just signed in; waits for it."""
    waiting = [asyncio.create_task(_comes_in(one, people)) for one in it.workers]
    return {one.name: await well for one, well in zip(it.workers, waiting, strict=True)}


async def _comes_in(worker: Asked, people: People) -> bool:
    connection, until = Connection(worker.port), time.monotonic() + WELL_WITHIN
    try:
        while time.monotonic() < until:
            try:
                family = await people.family()
                if family and await ask(connection, worker, family[0], people.events) == "allowed":
                    return True
            except WorldError:
                pass
            await asyncio.sleep(0.1)
        return False
    finally:
        connection.close()


async def _probe(it: World, people: People) -> None:
    """Asks every worker once more for those who were revoked of late, now that there is peace."""

    async def probe(worker: Asked) -> None:
        connection = Connection(worker.port)
        for member in people.gone:
            await ask(connection, worker, member, it.events)
        connection.close()

    await asyncio.gather(*map(probe, it.workers))


async def _log(state: State) -> Event:
    """All that is in the log now."""
    began, after, ids = time.monotonic(), 0, set[str]()
    while True:
        synced = await state.log.read(after)
        ids.update(entry.id for entry in synced.entries)
        after = max((entry.number for entry in synced.entries), default=synced.number)
        if after >= synced.number:
            return Event("log", "", "", began, time.monotonic(), "", names=frozenset(ids))


# -- the command line -------------------------------------------------------------------------------------


def main(words: Sequence[str] | None = None) -> int:
    asked = _asked(words)
    effort = AIMED if asked.mutant else Effort(workers=asked.workers)
    total, left, number = Report(), asked.seconds, 0
    while left > 0:
        topology = asked.topology
        if topology == "alternating":
            topology = ("standalone", "sentinel")[number % 2]
        seed, seconds = asked.seed + number, min(left, A_HISTORY)
        print(f"history {number + 1}: {seconds:.0f} s, {topology}, seed {seed}", flush=True)
        report = asyncio.run(history(seconds, seed, effort, topology, asked.mutant, print))
        print(summary(report), flush=True)
        total.add(report)
        left, number = left - seconds, number + 1
        if asked.report is not None:
            asked.report.parent.mkdir(parents=True, exist_ok=True)
            asked.report.write_text(json.dumps(total.as_data(), indent=2) + "\n")
    print(f"{total.histories} histories, {len(total.violations)} violations")
    return 1 if total.violations else 0


def summary(report: Report) -> str:
    """What a history came to, in a few lines."""
    data = report.as_data()
    lines = [
        f"  {name.replace('_', ' ')}: " + ", ".join(f"{key} {count}" for key, count in data[name].items())
        for name in ("requests", "stream_pieces", "revocations", "confirmed_in_ms", "faults")
    ]
    lines.append(f"  worst exposure before confirmation: {data['worst_exposure_before_confirmation_ms']} ms")
    lines.append(f"  violations: {data['violations']}")
    return "\n".join([*lines, *(f"    {violation}" for violation in report.violations[:20])])


def _asked(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.history", description="The history checker.")
    parser.add_argument("--seconds", type=float, default=A_HISTORY)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--topology", choices=("standalone", "sentinel", "alternating"), default="standalone")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="")
    parser.add_argument("--report", type=Path)
    return parser.parse_args(words)
