"""One run: the house in a process of its own, Locust's users in this one, phase after phase, then a report.

Knows: the order of things. Promises: it ends by itself, some seconds after the time it was given; the house
ends with it, however that comes. Leaves judging to `promises`, and what people do to `users`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import gevent  # type: ignore[import-untyped]
from locust.env import Environment
from locust.html import get_html_report
from locust.stats import StatsEntry, stats_history

from loadtests.people.house import WELL_AGAIN, Place
from loadtests.people.promises import BETWEEN_BLIPS, BLIP, CUT, LEASE, Phase, Span, Timeline, Trouble
from loadtests.people.users import VISITORS
from loadtests.people.world import SCENARIOS, World

_ARRIVING = 0.3
"""Seconds before the first phase, for the first to arrive."""

_ENOUGH, _QUICKEST = 45.0, 0.2
"""Seconds in which everything happens at an everyday pace, and what a pause is cut to in a shorter run."""

_CLOSED = 2.0
"""Seconds for which a store that is gone is so past the lease, at least."""

_ROOT = Path(__file__).resolve().parents[2]


class Broken(Exception):
    """The house did not do its part; the message says what it said."""


class House:
    """The house's process: troubles by name, and whether it is well."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.place = Place(**json.loads(self._line()))

    def make(self, trouble: Trouble) -> None:
        """Raises `Broken` where the house is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{trouble}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Broken("the house is gone") from error
        self._line()

    def well(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.place.operations}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(10)
            raise Broken("the house did not start, or ended by itself; what it said is above")
        return line


@contextmanager
def house(mistakes: Sequence[str]) -> Iterator[House]:
    command = [sys.executable, "-m", "loadtests.people", "house", *mistakes]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=_ROOT)
    try:
        yield House(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(slots=True)
class Found:
    """What a run has shown. `wrong` is how many answers were other than promised, `late` the phases after
    which the house was not well again, `never` the scenarios that never happened though there was time."""

    data: dict[str, Any]
    wrong: int
    late: list[str]
    never: list[str]

    @property
    def good(self) -> bool:
        return not (self.wrong or self.late or self.never)


def run(plan: list[tuple[Phase, float]], users: int, html: Path, mistakes: Sequence[str] = ()) -> Found:
    """The phases of `plan`, with so many users. Writes Locust's report to `html`. Raises `Broken`."""
    with house(mistakes) as home:
        timeline = Timeline()
        environment = Environment(user_classes=VISITORS, host=home.place.origin("home"))
        pace = min(1.0, max(_QUICKEST, sum(seconds for _, seconds in plan) / _ENOUGH))
        world = World(home.place, timeline, pace)
        environment.world = world  # type: ignore[attr-defined]
        environment.parsed_options = None
        runner = environment.create_local_runner()
        history = gevent.spawn(stats_history, runner)
        late: list[str] = []
        timeline.enter(plan[0][0], monotonic())
        runner.start(users, spawn_rate=max(1.0, users / 2))
        gevent.sleep(_ARRIVING)
        for number, (phase, seconds) in enumerate(plan):
            span = timeline.now if number == 0 else timeline.enter(phase, monotonic())
            if not _lasts(home, span, seconds):
                late.append(span.label)
        timeline.now.ended = monotonic()
        runner.stop()
        history.kill()
        html.parent.mkdir(parents=True, exist_ok=True)
        report = get_html_report(environment, show_download_link=False)  # type: ignore[no-untyped-call]
        html.write_text(report, encoding="utf-8")
        found = _found(environment, world, users, late)
        runner.quit()
        return found


def _lasts(home: House, span: Span, seconds: float) -> bool:
    """A phase, until everything is well again; False where it is not, in time."""
    trouble, until = span.phase.trouble, monotonic() + seconds
    if trouble is Trouble.STORE_BLIPS:
        while True:
            home.make(trouble)
            gevent.sleep(BLIP)
            home.make(Trouble.NONE)
            if monotonic() + BETWEEN_BLIPS > until:
                break
            gevent.sleep(BETWEEN_BLIPS)
    elif trouble is not Trouble.NONE:
        home.make(trouble)
        span.certain = monotonic()
        # Of a cut the proxy gets over by itself some time is left, to see that it does.
        most = LEASE + CUT if trouble is Trouble.STORE_GONE else seconds
        least = LEASE + _CLOSED if trouble is Trouble.STORE_GONE else 0.0
        gevent.sleep(min(most, max(seconds * 0.8, least)))
        span.healing = monotonic()
        home.make(Trouble.NONE)
    late = monotonic() + WELL_AGAIN
    while not home.well():
        if monotonic() > late:
            return False
        gevent.sleep(0.1)
    gevent.sleep(max(0.5, until - monotonic()))
    return True


def _found(environment: Environment, world: World, users: int, late: list[str]) -> Found:
    assert environment.runner is not None
    stats = environment.stats
    errors: list[dict[str, Any]] = [
        {"what": error.name, "times": error.occurrences, "wrong": str(error.error)}
        for error in sorted(stats.errors.values(), key=lambda one: -one.occurrences)
    ]
    errors += [
        {"what": "in the load test itself", "times": one["count"], "wrong": one["traceback"]}
        for one in environment.runner.exceptions.values()
    ]
    wrong = sum(error["times"] for error in errors)
    never = [one for one in SCENARIOS if not world.happened[one]]
    spans = world.timeline.spans
    long = spans[-1].ended - spans[0].began >= _ENOUGH
    data: dict[str, Any] = {
        "users": users,
        "seconds": round(spans[-1].ended - spans[0].began, 1),
        "requests": stats.total.num_requests,
        "wrong": wrong,
        "scenarios": {one: world.happened[one] for one in SCENARIOS},
        "never_happened": never,
        "not_well_again_after": late,
        "phases": [_phase(span, world, list(stats.entries.values())) for span in spans],
        "errors": errors[:50],
    }
    return Found(data, wrong, late, never if long else [])


def _phase(span: Span, world: World, entries: list[StatsEntry]) -> dict[str, Any]:
    its_own = {
        one.name.removeprefix(f"{span.label}: "): one
        for one in entries
        if one.name.startswith(f"{span.label}: ")
    }
    return {
        "name": span.label,
        "trouble": span.phase.trouble,
        "promised": span.phase.promised,
        "seconds": round(span.ended - span.began, 1),
        "requests": sum(one.num_requests for one in its_own.values()),
        "wrong": sum(one.num_failures for one in its_own.values()),
        "came_to": dict(world.outcomes.get(span.label, Counter())),
        "what": {
            name: {
                "requests": one.num_requests,
                "wrong": one.num_failures,
                "p50_ms": one.get_response_time_percentile(0.5),
                "p99_ms": one.get_response_time_percentile(0.99),
                "max_ms": round(one.max_response_time),
            }
            for name, one in sorted(its_own.items())
        },
    }


def summary(found: Found) -> Iterator[str]:
    """Lines for a terminal."""
    data = found.data
    yield f"{data['users']} users, {data['seconds']} s, {data['requests']} requests, {data['wrong']} wrong"
    for phase in data["phases"]:
        came = ", ".join(f"{name} {times}" for name, times in sorted(phase["came_to"].items()))
        yield f"  {phase['name']:<15}{phase['seconds']:>6} s {phase['requests']:>7} requests  {came}"
    yield "  " + ", ".join(f"{name}: {times}" for name, times in data["scenarios"].items())
    for error in data["errors"][:10]:
        yield f"WRONG  {error['times']} x {error['what']}: {error['wrong'][:300]}"
    for name in found.late:
        yield f"WRONG  not well again {WELL_AGAIN:.0f} s after {name}"
    for name in found.never:
        yield f"WRONG  never happened, so nothing is known of it: {name}"
