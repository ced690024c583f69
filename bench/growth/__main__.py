"""python -m bench.growth [--quick] [--only NAME,...]: writes `build/bench-growth.json`.

Knows: how each curve's sizes are set up. Promises: what runs is compiled where `tools/compiled.py` has
done that, as in the image, and the result says whether; a curve that cannot be measured is told of and named
in it, and the others go on; the exit status says whether every aim that was measured is met.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

from bench import machine, page, subject
from bench.figures import Curve, ratios
from bench.growth import curves, house, load
from bench.growth.curves import Kind, sizes_of
from bench.growth.filling import ALL_OF, People
from bench.growth.holding import held
from bench.growth.house import House, Node, Sizes, Store
from bench.growth.load import CONNECTIONS
from bench.growth.measuring import QUICK, Effort, Measured, Subject, measure
from bench.place import place
from ztproxy.adapters.pressure import most_connections, soft_limit
from ztproxy.core.overload import Pressure as Used
from ztproxy.core.overload import Stage, next_stage

RESULT = Path("build") / "bench-growth.json"

FRESH = 20_000
"""Cookies of a round in which any session may be next: more than there are requests in it."""

BALANCED = (64, 512)
"""Connections whose distribution over two workers is counted."""


@dataclass(slots=True)
class Run:
    """What a run has found so far. `extra` are plain figures beside the curves."""

    house: House
    effort: Effort
    people: People
    base: Node
    store: Store
    cookie: str
    found: dict[str, Curve] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    extra: list[dict[str, object]] = field(default_factory=list)

    def sizes(self, kind: Kind) -> tuple[int, ...]:
        return kind.small if self.effort.small else kind.sizes

    def note(self, what: str, value: float, unit: str) -> None:
        self.extra.append({"what": what, "value": round(value, 3), "unit": unit})
        print(f"    {what}: {value:,.3g} {unit}", flush=True)

    def nodes(self, stack: ExitStack, sizes: Sequence[Sizes], alone: bool = False) -> list[Node]:
        """A node for each, of its own. The smallest of all sizes is the one of the whole run where it comes
        first, unless the curve changes its nodes and wants them for itself alone."""
        first = [self.base] if sizes[0] == Sizes() and not alone else []
        fresh = [
            stack.enter_context(self.house.node(one, self.store, self.cookie)) for one in sizes[len(first) :]
        ]
        for node in fresh:  # on top of the stack: all are told to end before the first is waited for
            stack.callback(node.process.terminate)
        return first + fresh

    def measured(self, kind: Kind, subjects: Sequence[Subject], of: str = "") -> list[Measured]:
        """Takes a curve's rounds and keeps them."""
        at = self.house.place
        # Sessions that a worker meets for the first time are another curve's.
        warm = 1 if kind is curves.IN_TURN else self.effort.warm
        measured, void = measure(at.load_core, at.folder, subjects, replace(self.effort, warm=warm))
        curve = self.found[kind.name] = curves.curve(kind, measured, void, of)
        if subjects[-1].at in void:
            self.why[kind.name] = void[subjects[-1].at]
        else:
            self.ratios[kind.name] = curve["ratio"]
        print(table(curve, [one.cpu_us for one in measured]), flush=True)
        return measured


def configured(run: Run, kind: Kind) -> None:
    """What grows stands in the configuration."""
    with ExitStack() as stack:
        sizes = run.sizes(kind)
        nodes = run.nodes(stack, [sizes_of(kind, at) for at in sizes])
        run.measured(
            kind,
            [Subject(at, node, partial(list, (run.cookie,))) for at, node in zip(sizes, nodes, strict=True)],
        )
        last, node = sizes[-1], nodes[-1]
        if kind in (curves.ROUTES, curves.PATHS):
            run.note(f"start with {last:,} {kind.what}", node.seconds, "s")
            run.note(f"worker with {last:,} {kind.what}", node.resident() / 2**20, "MiB")
            took, longest = house.reloaded(node, run.cookie)
            run.note(f"reload of {last:,} {kind.what}", took, "s")
            run.note(f"longest wait for an answer during that reload ({last:,})", longest, "s")


def sessions(run: Run, kinds: Sequence[Kind]) -> None:
    """The same stores for each of the curves."""
    sizes, at = run.sizes(curves.SESSIONS), run.house.place
    with ExitStack() as stack:
        stores = {size: stack.enter_context(house.store(at, f"sessions-{size}")) for size in sizes}
        empty = stores[sizes[-1]].memory()
        began = time.monotonic()
        known = run.people.sign_in([(store, size) for size, store in stores.items()])
        run.note(f"writing {sizes[-1]:,} sessions", time.monotonic() - began, "s")
        run.note(
            "memory of the store for each session", (stores[sizes[-1]].memory() - empty) / sizes[-1], "bytes"
        )
        fewer = {size: [cookie for n, cookie in known.items() if n < size] for size in sizes}
        nodes = {
            size: stack.enter_context(run.house.node(Sizes(), store, known[0]))
            for size, store in stores.items()
        }
        for kind in kinds:
            chosen = {size: _asking(kind, fewer[size]) for size in sizes}
            run.measured(kind, [Subject(size, nodes[size], chosen[size]) for size in sizes])
        last = nodes[sizes[-1]]
        run.note(f"worker beside {sizes[-1]:,} sessions", last.resident() / 2**20, "MiB")


def _asking(kind: Kind, known: Sequence[str]) -> Callable[[], Sequence[str]]:
    if kind is curves.SESSIONS:
        return lambda: known[:1]
    if kind is curves.IN_TURN:
        return lambda: known[:ALL_OF]
    shuffled = list(known)
    Random(7).shuffle(shuffled)
    pages: Iterator[Sequence[str]] = (
        shuffled[start : start + FRESH] for start in itertools.cycle(range(0, len(shuffled), FRESH))
    )
    return lambda: next(pages)


def groups(run: Run, kind: Kind) -> None:
    with ExitStack() as stack:
        (node,) = run.nodes(stack, [sizes_of(kind, 1)])
        subjects = []
        for at in run.sizes(kind):
            cookie = run.people.sign_in([(run.store, 1)], groups=at)[0]
            subjects.append(Subject(at, node, partial(list, (cookie,))))
        run.measured(kind, subjects)


def connections(run: Run, kind: Kind) -> None:
    """One worker, or as many as it takes to have enough descriptors, on the one core."""
    sizes, core = run.sizes(kind), run.house.place.load_core
    workers = workers_for(sizes[-1], soft_limit(), tunnels=kind is curves.SOCKETS)
    of = kind.of
    if workers > 1:
        of += f"; on {workers} workers, for one may have {soft_limit():,} descriptors here"
    with ExitStack() as stack:
        subjects, before, after = [], 0, 0
        for at, node in zip(sizes, run.nodes(stack, [Sizes(workers=workers)] * len(sizes)), strict=True):
            before = node.resident()
            stack.enter_context(
                held(core, node.port, at, "ws" if kind is curves.SOCKETS else "get", run.cookie)
            )
            time.sleep(0 if run.effort.small else 1)
            after = node.resident()
            subjects.append(Subject(at, node, partial(list, (run.cookie,))))
        if not run.effort.small:  # a few show nothing: what was free before is used first
            run.note(f"memory of {sizes[-1]:,} {kind.what}, each", (after - before) / sizes[-1] / 1024, "KiB")
        run.measured(kind, subjects, of)


def workers_for(count: int, limit: int, *, tunnels: bool) -> int:
    """How many workers may hold so many connections without giving anything up, where each may have `limit`
    descriptors: a tunnel takes two, and every connection is let in as if it might."""
    for workers in range(1, 64):
        each = count // workers + count // (20 * workers) + 2 * CONNECTIONS  # they are spread by a hash
        used = 128 + each * (2 if tunnels else 1)
        if each <= most_connections(limit) and next_stage(Stage.CALM, Used(0.0, used / limit)) is Stage.CALM:
            return workers
    raise machine.CannotMeasure(f"{limit} descriptors are too few: raise `ulimit -n`")


def workers(run: Run, kind: Kind) -> None:
    """Each on a core, of which the second is the load generator's and the app's too: on two cores those are a
    bound as well, which processor time for each request does not show and throughput does.

    A share of a core for each, by a cgroup's quota, would leave the load generator its own. It was tried and
    says nothing: a worker that is stopped ever so often takes fewer requests in one turn of its loop, and a
    request then costs 45 to 113 us where it costs 44, so that two workers came to be 1.2 to 3.5 times one.
    """
    at = run.house.place
    with ExitStack() as stack:
        sizes = run.sizes(kind)
        nodes = run.nodes(stack, [sizes_of(kind, size) for size in sizes], alone=True)
        for node in nodes:
            for pid, core in zip(node.workers, (at.proxy_core, at.load_core), strict=False):
                house.hold_on(pid, core)
        subjects = [
            Subject(size, node, partial(list, (run.cookie,))) for size, node in zip(sizes, nodes, strict=True)
        ]
        measured = run.measured(kind, subjects)
        if len(measured) < len(subjects):
            return
        one, two = measured
        used = ratios(one.cpu_us, two.cpu_us)["median"]
        run.note("two workers to one, requests per processor second", used, "")
        run.why[kind.name] = (
            "the load generator and the app have the second worker's core too, so this is what two cores do, "
            f"not what two workers can. For each processor second two answer {used:.2f} of what one does: on "
            f"cores of their own that would be {2 * used:.2f} times as many; reckoned, not measured"
        )
        for count in BALANCED:
            node = nodes[-1]
            with held(at.load_core, node.port, count, "get", run.cookie):
                shares = [house.clients_of(pid, node.port) for pid in node.workers]
            run.note(f"of {count} connections, those at the busier of two workers", max(shares), "")
        run.note("work of the busier of two workers", max(two.full[-1].shares), "of 1")


def table(curve: Curve, cpu_us: Sequence[Sequence[float]]) -> str:
    """One curve for people."""
    lines = [f"  {curve['what']} ({curve['of']})"]
    for point, used in zip(curve["points"], cpu_us, strict=True):
        rate, late = point["rate"], point["p99_ms"]
        lines.append(
            f"  {point['at']:>12,}  {rate['median']:>9,.0f} requests/s ±{rate['spread']:<5.0%}"
            f"  p99 {late['median']:>7.2f} ms  {sorted(used)[len(used) // 2]:>6.0f} us of processor each"
        )
    lines.append(f"  {'last to first':>12}  {curve['ratio']:.3f}  {curve['slope']}")
    return "\n".join(lines)


def measure_all(effort: Effort, only: Sequence[str]) -> dict[str, object]:
    """Everything, as the result file holds it."""
    began, (busy, *_) = time.perf_counter(), os.getloadavg()
    missing: dict[str, str] = {}
    tree = subject.compiled_tree()
    if tree is None:
        print("  its hot modules are not compiled: python tools/compiled.py", flush=True)
    with place() as at, house.running(at, tree) as built, house.store(at, "store") as store:
        people = People(built.keys)
        cookie = people.sign_in([(store, 1)])[0]
        with built.node(Sizes(), store, cookie) as base:
            run = Run(built, effort, people, base, store, cookie)
            run.note("start with one route", base.seconds, "s")
            load.run(base, at.load_core, at.folder, [cookie], seconds=1)  # what runs first is slower
            for kinds, work in _sections(run, only):
                try:
                    work()
                except (machine.CannotMeasure, OSError) as error:  # who has ended leaves no files
                    print(f"bench: {', '.join(kinds)}: {error}", file=sys.stderr, flush=True)
                    missing |= dict.fromkeys(kinds, str(error))
    if effort.small:
        aims = curves.aims({}, dict.fromkeys(run.ratios, "sizes were small: a look, not a measurement"))
    else:
        aims = curves.aims(run.ratios, run.why | missing)
    return {
        "machine": machine.description(),
        "compiled": tree is not None,
        "quick": effort.small,
        "seconds": round(time.perf_counter() - began, 1),
        "load_average_before": round(busy, 1),
        "curves": list(run.found.values()),
        "aims": [{**aim._asdict(), "met": aim.met} for aim in aims],
        "extra": run.extra,
        "missing": missing,
    }


def _sections(run: Run, only: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
    asked = [kind for kind in curves.KINDS if not only or kind.name in only]
    together = [kind for kind in asked if kind in (curves.SESSIONS, curves.IN_TURN, curves.AT_RANDOM)]
    for kind in asked:
        if kind in together:
            if kind is together[0]:
                yield tuple(one.name for one in together), partial(sessions, run, together)
            continue
        if kind in (curves.GROUPS, curves.TOLD):
            work = groups
        elif kind in (curves.IDLE, curves.SOCKETS):
            work = connections
        else:
            work = workers if kind is curves.WORKERS else configured
        yield (kind.name,), partial(work, run, kind)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description="ztproxy as what it holds grows"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, one short round: a look, not a measurement"
    )
    names = ",".join(kind.name for kind in curves.KINDS)
    parser.add_argument("--only", default="", help=f"some curves, to look at without writing a file: {names}")
    asked = parser.parse_args(arguments)
    only = [name for name in asked.only.split(",") if name]
    unknown = set(only) - {kind.name for kind in curves.KINDS}
    if unknown:
        parser.error(f"there is no curve `{sorted(unknown)[0]}`")
    try:
        result = measure_all(QUICK if asked.quick else Effort(), only)
    except machine.CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(f"done after {result['seconds']} s")
    if not only:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
        print(f"wrote {RESULT}")
    for aim in page.aims({"aims": []}, result):
        print(f"  {aim.what}: {page.verdict(aim)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
