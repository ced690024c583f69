"""Runs the scenarios, one after the other, each with a ztproxy of its own, and says which promises held.

Promises: everything is on this machine's loopback and gone at the end; exit code 1 where a promise is broken,
2 where something could not be measured. Leaves what is looked at to `scenario`, telling of it to `report`.

    --only NAME ...       these scenarios (or rows: FI35); without, all
    --seconds N           how long each attack lasts, where that is for us to say
    --share N             a share of every number of attackers, for a look on a busy machine
    --report FILE         where the figures are written
    --page                writes docs/overload.md as well; only after all of them, at full strength
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench import machine
from loadtests.overload import clients, floods, providers, report, upstreams
from loadtests.overload.house import cores
from loadtests.overload.scenario import Effort, Scenario, perform
from ztproxy.errors import WorldError

SCENARIOS: tuple[Scenario, ...] = (
    *upstreams.SCENARIOS,
    *providers.SCENARIOS,
    *clients.SCENARIOS,
    *floods.SCENARIOS,
)
PAGE = Path("docs/overload.md")
SECONDS = 6.0


def main(words: Sequence[str] | None = None) -> int:
    asked = _asked(words)
    chosen = [one for one in SCENARIOS if not asked.only or {one.name, one.row} & set(asked.only)]
    if unknown := set(asked.only) - {name for one in SCENARIOS for name in (one.name, one.row)}:
        print(f"no scenario is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    full = len(chosen) == len(SCENARIOS) and asked.share == 1.0
    if asked.page and not full:
        print("a page is written after all scenarios at full strength alone", file=sys.stderr)
        return 2
    try:
        machine.many_files()
        figures = _figures(chosen, Effort(seconds=asked.seconds, share=asked.share))
    except machine.CannotMeasure as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    asked.report.write_text(json.dumps(figures, indent=2) + "\n")
    if asked.page:
        PAGE.write_text(report.page(figures))
    print("\n".join(report.summary(figures)))
    broken = [one for each in figures["scenarios"] for one in each["promises"] if not one["kept"]]
    return 1 if broken else 2 if figures["not_measured"] else 0


def _figures(chosen: Sequence[Scenario], effort: Effort) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "machine": machine.description(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "effort": {"seconds": effort.seconds, "share": effort.share},
        "scenarios": [],
        "skipped": {},
        "not_measured": {},
    }
    began = time.monotonic()
    os.sched_setaffinity(0, {cores()[1]})
    for one in chosen:
        print(f"{one.row} {one.name}: {one.attack}", flush=True)
        if one.needs and not shutil.which(one.needs):
            figures["skipped"][one.name] = f"`{one.needs}` is not installed"
            print(f"  skipped: `{one.needs}` is not installed", flush=True)
            continue
        try:
            found = uvloop.run(perform(one, effort)).as_data()
        except (machine.CannotMeasure, WorldError, OSError) as error:
            print(f"  could not be measured: {error}", flush=True)
            figures["not_measured"][one.name] = str(error) or type(error).__name__
            continue
        figures["scenarios"].append(found)
        print("\n".join(report.said(found)), flush=True)
    figures["seconds"] = round(time.monotonic() - began)
    return figures


def _asked(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.overload", description="Overload scenarios.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--report", type=Path, default=Path("build/overload.json"))
    parser.add_argument("--page", action="store_true")
    return parser.parse_args(words)
