"""`python -m bench`: measures everything on one core, prints it, writes `build/bench.json`.

Knows: the order of the sections. The aims are about ztproxy as the image has it, its hot modules compiled;
without a C compiler about the pure one, and then that is said. Leaves the growth to `bench.growth`, and
docs/performance.md, which wants a quiet machine, to `--page`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench import footprint, guard, latency, load, machine, page, profile, speed, subject, upstream
from bench.figures import PURE, SUBJECT, Aim
from bench.peers import Peer, Upstream
from bench.peers import all as peers
from bench.place import Place, place

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "build" / "bench.json"
GROWTH = ROOT / "build" / "bench-growth.json"
PURELY = frozenset({"small", "10m", "tls"})
"""The shapes in which the modules that are not compiled take part: those with an aim."""

COUNTED = 200
"""Requests, whose instructions are counted: their number is the same each time."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how much, by section. `profile` in seconds."""

    speed: speed.Effort
    latency: latency.Effort
    footprint: footprint.Effort
    profile: int
    count: bool


FULL = Effort(speed.Effort(), latency.Effort(), footprint.Effort(), 5, count=True)
QUICK = Effort(speed.QUICK, latency.QUICK, footprint.QUICK, 2, count=False)


async def measure(effort: Effort, here: Place) -> dict[str, Any]:
    """Everything, as `build/bench.json` holds it."""
    began, before = time.monotonic(), os.getloadavg()[0]
    tree = subject.compiled_tree()
    contenders: list[speed.Contender] = [
        subject.Ours(tree=tree),
        *([] if tree is None else [subject.Ours(PURE, only=PURELY, CHECKS=subject.CHECKS_PURE)]),
        subject.Ours(subject.ANEW, tree, subject.READING_MORE, frozenset({"small"}), subject.CHECKS_ANEW),
        *peers.ALL,
    ]
    with upstream.running(here) as app:
        shapes, skipped = await speed.measure(here, effort.speed, app, contenders)
        if tree is None:
            skipped[f"{SUBJECT}, compiled"] = (
                "its hot modules are not compiled: apt-get install gcc libc6-dev"
            )
        most = shapes["small"]["proxies"][SUBJECT]["rate"]["median"]
        async with subject.peer(here, app, tree=tree) as ours:
            _say("latency at a constant rate")
            late = await paced(here, effort.latency, app, ours, most, skipped)
            _say("profile")
            taken = await _profiled(here, ours, effort.profile, tree)
        plain: profile.Profile | None = None
        if tree is not None:
            async with subject.peer(here, app) as ours:
                plain = await _profiled(here, ours, effort.profile, None)
        _say("footprint")
        space = await footprint.measure(here, effort.footprint, app, partial(subject.peer, tree=tree))
    if effort.count:
        _say("instructions")
        profiles = [(taken, tree), *([] if plain is None else [(plain, None)])]
        await profile.count(profiles, here.sub("counts"), COUNTED)
    return {
        "machine": machine.description(),
        "quick": effort is QUICK,
        "seconds": round(time.monotonic() - began, 1),
        "load_average_before": round(before, 2),
        "skipped": skipped,
        "checks": {one.NAME: one.CHECKS for one in contenders},
        "shapes": shapes,
        "latency": late,
        "footprint": space,
        "profile": plain or taken,
        "profile_compiled": taken if plain else None,
        "reading": {name: cost._asdict() for name, cost in guard.measure().items()},
        "aims": [
            aim._asdict()
            for aim in (
                *speed.aims(shapes, skipped),
                *(latency.aims(late) if late else latency.aims([], skipped["latency"])),
                *footprint.aims(space),
            )
        ],
    }


async def paced(
    here: Place,
    effort: latency.Effort,
    app: Upstream,
    ours: Peer,
    most: float,
    skipped: dict[str, str],
) -> list[latency.Paced]:
    """At a constant rate; none where that cannot be (there is no C compiler), and `skipped` says so."""
    try:
        return await latency.measure(here, effort, app, ours, most)
    except machine.CannotMeasure as error:
        skipped["latency"] = str(error)
        _say(f"without latency: {error}")
        return []


async def _profiled(here: Place, ours: subject.Running, seconds: int, tree: Path | None) -> profile.Profile:
    right = await asyncio.to_thread(load.ask, ours.port, "/", ours.headers)

    async def busy(lasting: int) -> object:
        return await asyncio.to_thread(
            load.wrk,
            here.load_core,
            ours.port,
            "/",
            ours.headers,
            here.folder,
            seconds=lasting,
            connections=latency.CONNECTIONS,
            right=right,
        )

    folder = here.sub(f"profile-{'pure' if tree is None else 'compiled'}")
    return await profile.measure(ours.workers[0], busy, here.proxy_core, folder, seconds=seconds, tree=tree)


def report(figures: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of it."""
    said = figures["machine"]
    rows = figures["shapes"]["small"]["proxies"]
    first = rows["nginx"]["rate"]["median"] if "nginx" in rows else None
    costs = {name: guard.Cost(**cost) for name, cost in figures["reading"].items()}
    return [
        "",
        f"one core, {latency.CONNECTIONS} connections, 1 KiB answers; {said['cpu']}, Python {said['python']}",
        "",
        *(
            f"  {name:<28}{one['rate']['median']:>9,.0f} requests/s  ±{one['rate']['spread']:<6.0%}"
            f"{one['cpu_us']['median']:>7.1f} µs"
            + ("" if first is None else f"  {one['rate']['median'] / first:6.2f} of nginx")
            for name, one in rows.items()
        ),
        "",
        *(_aimed(aim) for aim in page.aims(figures, None)),
        *guard.report(costs),
        *("" if not name else f"  without {name}: {why}" for name, why in figures["skipped"].items()),
        "",
        *page.doubts(figures, None),
        f"{figures['seconds']:.0f} s; written to {RESULT.relative_to(ROOT)}",
    ]


def _aimed(aim: Aim) -> str:
    sign = "≤" if aim.most else "≥"
    measured = "" if aim.measured is None else f"{aim.measured:.2f} {aim.unit}"
    return f"  {aim.what:<56}{measured:>10}  {sign} {aim.aim:g} {aim.unit:<4} {page.verdict(aim)}"


def _say(what: str) -> None:
    print(f"  {what}", flush=True)


def write_page(docs: Path = ROOT / "docs") -> None:
    """docs/performance.md and its drawings, of the figures that were written last."""
    figures = json.loads(RESULT.read_text())
    growth = json.loads(GROWTH.read_text()) if GROWTH.exists() else None
    for name, svg in page.drawings(figures, growth).items():
        (docs / name).parent.mkdir(exist_ok=True)
        (docs / name).write_text(svg)
    (docs / "performance.md").write_text(page.page(figures, growth))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory of ztproxy.")
    parser.add_argument("--quick", action="store_true", help="shorter and rougher")
    parser.add_argument(
        "--page", action="store_true", help="writes docs/performance.md too; wants a quiet machine"
    )
    parser.add_argument("--page-only", action="store_true", help="writes it from the figures there are")
    asked = parser.parse_args()
    if not asked.page_only:
        try:
            with place() as here:
                figures = uvloop.run(measure(QUICK if asked.quick else FULL, here))
        except machine.CannotMeasure as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(figures, indent=2) + "\n")
        print("\n".join(report(figures)))
    if asked.page or asked.page_only:
        write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
