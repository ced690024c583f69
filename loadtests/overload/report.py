"""What the scenarios came to, in words: pure functions of their figures.

Promises: a promise that was broken is said to be so, and so is a scenario that was skipped; figures that a
reader should doubt come with the doubt. Leaves measuring, and writing files, to its caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.revocation_report import IDLE

COMMAND = "make overload"
HELD_UP = 20.0
"""Milliseconds; a process that got its core this much too late was not alone on it."""

Figures = Mapping[str, Any]


def said(found: Figures) -> list[str]:
    """One scenario, for a terminal."""
    times = ", ".join(f"{name} {one['p50']}/{one['p99']} ms" for name, one in found["honest"].items())
    return [
        f"  honest p50/p99: {times}",
        *(
            f"  {'kept  ' if one['kept'] else 'BROKEN'}  {one['what']}: {one['seen']}"
            for one in found["promises"]
        ),
    ]


def summary(figures: Figures) -> list[str]:
    """All of them, for a terminal."""
    broken = list(_broken(figures))
    return [
        "",
        f"{len(figures['scenarios'])} scenarios in {figures['seconds']} s, {_count(figures)} promises, "
        f"{len(broken)} broken, {len(figures['not_measured'])} scenarios not measured",
        *(f"  {row} {name}: {one['what']}: {one['seen']}" for row, name, one in broken),
        *(f"  {name}: {why}" for name, why in {**figures["skipped"], **figures["not_measured"]}.items()),
        *(f"  {doubt}" for doubt in doubts(figures)),
    ]


def doubts(figures: Figures) -> list[str]:
    """What a reader should know before believing the figures; one sentence each."""
    found = []
    if figures["effort"]["share"] != 1.0:
        found.append(f"With {figures['effort']['share']:g} of all attackers: take it for a look.")
    if figures["load_average_before"] > IDLE:
        busy = f"{figures['load_average_before']:g}"
        found.append(f"The machine had a load average of {busy} before anything was started.")
    held_up = [
        one["name"].replace("_", " ")
        for one in figures["scenarios"]
        if max(phase["held_up"] for phase in one["honest"].values()) > HELD_UP
    ]
    if held_up:
        names = ", ".join(held_up)
        found.append(f"Honest people's own process was held up for more than {HELD_UP:g} ms in: {names}.")
    return found


def page(figures: Figures) -> str:
    """The page, Markdown."""
    broken = list(_broken(figures))
    on = figures["machine"]
    return _PAGE.format(
        command=COMMAND,
        doubts="".join(f"{doubt}\n\n" for doubt in doubts(figures)),
        count=_count(figures),
        scenarios=len(figures["scenarios"]),
        verdict="all were kept" if not broken else f"{len(broken)} were broken, marked so below",
        table="\n".join(_row(*_scenario(found)) for found in figures["scenarios"]),
        promises="\n\n".join(_promises(found) for found in figures["scenarios"]),
        left_out="".join(
            f"- {name} was left out: {why}.\n"
            for name, why in {**figures["skipped"], **figures["not_measured"]}.items()
        ),
        seconds=figures["seconds"],
        machine=f"{on['cpu']}, {on['cores']} cores, Linux {on['kernel']}, Python {on['python']}, "
        f"uvloop {on['uvloop']}",
    )


def _scenario(found: Figures) -> Iterator[str]:
    honest, worker = found["honest"], found["worker"]
    broken = sum(not one["kept"] for one in found["promises"])
    wrong = sum(sum(honest[name]["wrong"].values()) for name in ("during", "after"))
    yield found["row"]
    yield found["attack"]
    for name in ("before", "during", "after"):
        yield f"{honest[name]['p99']:.1f}"
    yield f"{wrong} of {sum(honest[name]['requests'] for name in ('during', 'after')):,}"
    yield f"{worker['during']['cpu_percent']:.0f} %"
    yield f"{max(one['rss_mib'] for one in worker.values()) - worker['before']['rss_mib']:.1f}"
    yield "kept" if not broken else f"**{broken} broken**"


def _promises(found: Figures) -> str:
    rows = [
        _row(one["what"], _plain(one["seen"]), "kept" if one["kept"] else "**broken**")
        for one in found["promises"]
        if not one["common"] or not one["kept"] or "(" in one["what"]
    ]
    return "\n".join(
        [
            f"### {found['row']}: {found['name'].replace('_', ' ')}",
            "",
            "| promised | seen | |",
            "|--|--|--|",
            *rows,
        ]
    )


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(seen: str) -> str:
    return seen if len(seen) <= 160 else seen[:157] + "..."


def _broken(figures: Figures) -> Iterator[tuple[str, str, Figures]]:
    for found in figures["scenarios"]:
        for one in found["promises"]:
            if not one["kept"]:
                yield found["row"], found["name"], one


def _count(figures: Figures) -> int:
    return sum(len(found["promises"]) for found in figures["scenarios"])


_PAGE = """\
# What holds under attack

Written by `{command}`; not edited by hand. Each line is a ztproxy of its own, with honest people at work
before, during and after something bad: 150 requests/s over connections that stay, six WebSockets whose
messages must come back, two downloads that must go on.

{doubts}Of {count} promises in {scenarios} scenarios {verdict}. All scenarios promise these: honest p99 is at
most twice what it was before, or 8 ms more if that is larger; no honest request, WebSocket or download fails;
the worker lives; its memory grows by a bounded amount; its descriptors are given back.

| | attack | p99 before, ms | during | after | honest failures | worker's CPU | MiB more | promises |
|--|--|--:|--:|--:|--:|--:|--:|--|
{table}

## What each promises besides

{promises}

## How it is measured

- {machine}.
- One worker and its Valkey have one core. Honest people, the apps and the attackers have the other; attackers
  run only when nobody else wants it (SCHED_IDLE), so that what is seen is ztproxy's doing and not theirs.
- Requests leave when they are due, whether or not those before were answered, and are timed by who sends
  them. The room of 8 ms is for the kernel's scheduler: the apps and their clients share a core, and without
  any attack p99 is 1 to 6 ms, from one few seconds to the next.
- CPU is of one core, memory the largest seen at any time against the largest before.
{left_out}- Clocks that differ (FI33) need libfaketime for a whole process, and are looked at in
  `tests/core/test_claims.py` instead.

To repeat it: `{command}` (about {seconds} s). Every figure is in `build/overload.json`.
"""
