"""Scenarios of floods that are counted, or that press on memory: FI39, FI40, forged cookies, rate limits."""

from __future__ import annotations

import asyncio
import time
from itertools import groupby

from loadtests.overload.house import MiB, Shape
from loadtests.overload.scenario import Scenario, Stage

_SIGN_IN = "/.ztproxy/sign_in?rd=/"


async def sign_in_flood(stage: Stage) -> None:
    """FI39. Sign-ins begun as fast as it goes: from one address, then from 250."""
    house = stage.house
    memory = await house.store("memory", "used_memory")
    how = {"what": "anonymous", "target": _SIGN_IN, "connections": 16, "fields": ["retry-after"]}
    began = time.perf_counter()
    async with stage.attack("flood", sources=1, rate=1000 * stage.effort.share, **how) as one:
        await stage.go_on(stage.effort.seconds / 2)
    lasted = time.perf_counter() - began
    async with stage.attack("flood", sources=250, rate=1000 * stage.effort.share, **how) as many:
        await stage.go_on(stage.effort.seconds / 2)
    grown = (await house.store("memory", "used_memory") - memory) / MiB
    began_here, budget = one.ended(302), 200 + 20 * (lasted + 1)
    stage.saw(one=one.met, many=many.met, store_mib=round(grown, 2))
    stage.promise(
        "one address begins no more than its budget, 200 and 20/s",
        0 < began_here <= budget,
        f"{began_here} begun, {one.ended(429)} refused in {lasted:.0f} s",
    )
    stage.promise("the others are answered 429", one.ended(429) > 0, one.counts)
    stage.promise(
        "with Retry-After",
        "missing" not in one.met["fields"].get("429 retry-after", ["missing"]),
        one.met["fields"],
    )
    stage.promise("the store grows by 64 MiB at most", grown <= 64, f"{grown:.1f} MiB")


async def memory_pressure(stage: Stage) -> None:
    """FI40. Readers who hardly read are added until the worker is at its limit, and go."""
    house = stage.house
    stages: list[tuple[float, int]] = []
    over = asyncio.Event()

    async def watch() -> None:
        began = time.perf_counter()
        while not over.is_set():
            _, page = await house.operations("/metrics")
            for line in page.splitlines():
                if line.startswith("ztproxy_overload_stage "):
                    stages.append((round(time.perf_counter() - began, 1), int(float(line.split()[1]))))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    how = {"cookie": house.cookies[0], "target": "/wild/huge", "connections": 20, "every": 1000.0}
    try:
        await _fill(stage, how, 24)
        peak = max((level for _, level in stages), default=0)
        calm = await stage.until(lambda: _calm(stages), 15)
    finally:
        over.set()
        await watching
    way = [level for level, _ in groupby(level for _, level in stages)]
    stage.saw(stages=way, calm_after=calm)
    stage.promise("the stages show in the metrics, and more than one", peak >= 2, way)
    stage.promise("all is calm again", calm is not None, f"after {calm:.1f} s" if calm else "never")


async def _fill(stage: Stage, how: dict[str, object], left: int) -> None:
    """Adds readers, one attack within the other, for as long as more are let in."""
    async with stage.attack("read_slowly", **how):
        await asyncio.sleep(0.8)
        if left and stage.house.worker.resident < _MEMORY * MiB:
            await _fill(stage, how, left - 1)
        else:
            await stage.go_on(2.0)


async def _calm(stages: list[tuple[float, int]]) -> bool:
    return bool(stages) and stages[-1][1] == 0


async def forged_cookies(stage: Stage) -> None:
    """Cookies that look right and are not, and one of a session that was revoked, again and again."""
    house = stage.house
    [gone] = await house.people.sign_in(1)
    await house.admin.revoke("session", await house.people.id_of(gone))
    began, before = time.perf_counter(), await house.commands()
    await asyncio.sleep(2.0)
    quiet = (await house.commands() - before) / (time.perf_counter() - began)
    rate = 1000 * stage.effort.share
    figures = {}
    for what, make, cookie in (
        ("forged", "cookie", house.cookies[0]),
        ("revoked", "get", gone),
    ):
        before, began = await house.commands(), time.perf_counter()
        async with stage.attack("flood", what=make, cookie=cookie, connections=16, rate=rate) as flood:
            await stage.go_on(stage.effort.seconds / 2)
        commands = await house.commands() - before - quiet * (time.perf_counter() - began)
        sent = sum(flood.counts.values())
        figures[what] = {"requests": sent, "commands": round(commands), "counts": flood.counts}
        stage.promise(f"none is let in ({what})", sent > 0 and not flood.ended(200), flood.counts)
        stage.promise(
            f"the store is asked for none of them ({what})"
            if what == "forged"
            else "nor more than once each (revoked)",
            commands <= (0.05 if what == "forged" else 1.1) * sent + 20,
            f"{commands:.0f} commands for {sent} requests",
        )
    stage.saw(**figures)


async def over_the_rate(stage: Stage) -> None:
    """Four senders ask more than twice as often as they may; honest people come from another address."""
    house = stage.house
    async with stage.attack(
        "flood",
        what="get",
        cookie=house.cookies[0],
        connections=32,
        sources=4,
        rate=2000,
        fields=["retry-after", "ratelimit", "ratelimit-policy"],
    ) as flood:
        began = time.perf_counter()
        await stage.go_on()
        lasted = time.perf_counter() - began
    allowed, most = flood.ended(200), 4 * (200 + 200 * (lasted + 1.5))
    fields = flood.met["fields"]
    stage.saw(flood=flood.met)
    stage.promise("200/s for each of four, and a burst", 0 < allowed <= most, f"{allowed} in {lasted:.0f} s")
    stage.promise(
        "all else is answered 429", flood.ended(429) > 0 and set(flood.counts) <= {"200", "429"}, flood.counts
    )
    for name in ("retry-after", "ratelimit"):
        values = fields.get(f"429 {name}", ["missing"])
        stage.promise(f"429 with `{name}`", "missing" not in values, values)


_MEMORY = 128
"""MiB that a worker may use where memory is pressed on: about twice of what it has when it is calm."""

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "sign_in_flood",
        "FI39",
        "1,000 sign-ins begun a second: from one address, then from 250",
        sign_in_flood,
    ),
    Scenario(
        "memory_pressure",
        "FI40",
        "answers of 2 GB that nobody reads, more and more, until the worker is at its limit",
        memory_pressure,
        Shape(limits=f"connections_per_address: 16384, memory: {_MEMORY}MiB, write_stall: 10s"),
        growth=_MEMORY,
        forgiven=("503", "WebSocket 503", "download 503", "ConnectionResetError"),
        why="new requests may be refused, 503; WebSockets and downloads under way go on",
    ),
    Scenario(
        "forged_cookies",
        "T12",
        "1,000 requests/s with forged cookies, then with one of a revoked session",
        forged_cookies,
    ),
    Scenario(
        "over_the_rate",
        "429",
        "2,000 requests/s from four addresses, each of which may have 200",
        over_the_rate,
        Shape(limits="connections_per_address: 16384, requests_per_address: {{rate: 200/s, burst: 200}}"),
    ),
)
