"""Scenarios of apps that are not well: FI25 to FI29."""

from __future__ import annotations

import asyncio
import time

from bench.revocation_clients import get
from loadtests.overload.app import HUGE
from loadtests.overload.house import MiB, Shape
from loadtests.overload.scenario import Scenario, Stage
from loadtests.overload.speaking import Speaker


async def unreachable(stage: Stage) -> None:
    """FI25. Somebody asks an app that refuses, and one whose machine is gone, as fast as that goes."""
    house, cookie = stage.house, stage.house.cookies[0]
    refused = [await house.ask("/refused/") for _ in range(20)]
    stage.promise("an app that refuses: 502", {one.status for one in refused} == {502}, refused[0].status)
    middle = sorted(one.ms for one in refused)[10]
    stage.promise("and that within 50 ms", middle <= 50, f"median {middle} ms", timed=True)
    gone = asyncio.create_task(house.ask("/gone/"))
    how = {"cookie": cookie, "what": "get", "connections": stage.some(50)}
    async with (
        stage.attack("flood", target="/refused/", rate=500, **how) as refusing,
        stage.attack("flood", target="/gone/", rate=200, **how) as silent,
    ):
        await stage.go_on()
    one = await gone
    stage.saw(refusing=refusing.met, gone=silent.met)
    stage.promise("an app whose machine is gone: 504", one.status == 504, one.status)
    stage.promise("and that after 5 s", 4.9 <= one.seconds <= 5.6, f"{one.seconds:.2f} s", timed=True)


async def never_answers(stage: Stage) -> None:
    """FI26. Requests to an app that takes them and says nothing; then their clients leave."""
    house, count = stage.house, stage.some(200)
    async with stage.attack(
        "hold", connections=count, first=get(house.cookies[0], "/wild/silent/1").decode()
    ):
        reached = await stage.until(lambda: _silent(stage, count), 10)
        stage.promise("each request reaches the app", reached is not None, f"{count} requests")
        await stage.go_on(1.0)
    took = await stage.until(lambda: _silent(stage, 0), 5)
    stage.promise(
        "clients who leave take their requests back within 1 s",
        took is not None and took <= 1.0,
        "never" if took is None else f"{took:.2f} s",
        timed=True,
    )
    late = await house.ask("/wild/silent/2")
    stage.promise("who waits gets 504 at the time-out of the route, 4 s", late.status == 504, late.status)
    stage.promise(
        "and that in time (timers are looked at twice a second)",
        3.9 <= late.seconds <= 5.5,
        f"{late.seconds:.2f} s",
        timed=True,
    )


async def _silent(stage: Stage, count: int) -> bool:
    return bool((await stage.house.counts())["silent"] == count)


async def resets_mid_body(stage: Stage) -> None:
    """FI27. Answers that break off in the middle: with a length, in chunks, to the end of the connection."""
    house = stage.house
    requests = (await house.counts())["requests"]
    asked, clean = 1, int((await house.ask("/wild/half")).complete)
    end = time.perf_counter() + stage.effort.seconds
    while time.perf_counter() < end:
        for how in ("length", "chunked", "none"):
            clean += (await house.ask(f"/wild/reset/{how}")).complete
            asked += 1
    reached = (await house.counts())["requests"] - requests - 1
    stage.promise("no client takes a part for the whole", not clean, f"{clean} of {asked} ended cleanly")
    stage.promise(
        "none of them is tried again", reached == asked, f"{asked} asked, {reached} reached the app"
    )


async def closes_when_idle(stage: Stage) -> None:
    """FI28. An app that closes idle connections just as the next request comes, and one that takes a request
    and resets: for a POST nothing may happen twice."""
    how = {"cookie": stage.house.cookies[0], "connections": stage.some(24), "rate": 1000 * stage.effort.share}
    async with stage.attack("flood", what="post", target="/wild/once/", **how) as once:
        await stage.go_on(stage.effort.seconds / 2)
    async with stage.attack("flood", what="post", target="/wild/cut/", **how) as cut:
        await stage.go_on(stage.effort.seconds / 2)
    said = await stage.house.counts()
    effects = {int(times): count for times, count in said["effects"].items()}
    posts = sum(effects.values())
    stage.saw(once=once.counts, cut=cut.counts, effects=said["effects"])
    stage.promise(
        "no POST takes effect twice", max(effects, default=0) == 1, f"{posts} took effect, {said['twice']}"
    )
    stage.promise(
        "most POSTs meet no race at all: the socket is looked at before it is lent",
        once.ended(200) >= 0.9 * sum(once.counts.values()),
        f"{once.counts}",
    )
    gets = await _gets_are_repeated(stage)
    stage.promise("a GET that met the end of a connection is answered all the same", gets, "each of 20")


async def _gets_are_repeated(stage: Stage) -> bool:
    """GETs one after the other, each on the connection to the app that the one before has left idle."""
    return all([(await stage.house.ask(f"/wild/cut/get{n}")).status == 200 for n in range(20)])


async def slow_and_huge(stage: Stage) -> None:
    """FI29. Answers of 2 GB to clients who hardly read, and answers of a byte a second."""
    house, count = stage.house, stage.some(24)
    before = house.worker.resident
    sent = (await house.counts())["sent"]
    async with stage.attack(
        "read_slowly", connections=count, cookie=house.cookies[0], target="/wild/huge"
    ) as readers:
        await stage.go_on(stage.effort.seconds / 2)
        grown = (house.worker.resident - before) / MiB
        taken = ((await house.counts())["sent"] - sent) / count / MiB
        dripping = [asyncio.create_task(_drips(stage)) for _ in range(5)]
        await stage.go_on(stage.effort.seconds / 2)
        drips = [await one for one in dripping]
    stage.saw(readers=readers.counts, mib_taken_of_each_app=round(taken, 1))
    stage.promise(
        "memory: 512 KiB for each of these streams at most (their buffers both ways)",
        grown <= count * 0.5 + 2,
        f"{grown:.1f} MiB for {count} answers of {HUGE // 10**9} GB",
    )
    stage.promise("the app is slowed, not read ahead of", taken < 64, f"{taken:.1f} MiB taken of each")
    stage.promise("a byte a second is passed on as it comes", min(drips) >= 2, f"{min(drips)} bytes in 3.5 s")


async def _drips(stage: Stage) -> int:
    speaker = Speaker(stage.house.port)
    speaker.streams = True
    try:
        async with asyncio.timeout(5):
            answer = await speaker.ask(get(stage.house.cookies[0], "/wild/drip"))
        before = speaker.received - len(answer.body)
        await asyncio.sleep(3.5)
        return speaker.received - before
    finally:
        speaker.close()


SCENARIOS = (
    Scenario(
        "app_unreachable",
        "FI25",
        "500 requests/s to an app that refuses, 50 at once to one whose machine is gone",
        unreachable,
        Shape(
            routes="""\
  - from: https://app.test
    prefix: /refused
    to: http://127.0.0.1:{nobody}
    policy: [{{allow: {{authenticated: true}}}}]
  - from: https://app.test
    prefix: /gone
    to: http://127.0.0.1:{hole}
    policy: [{{allow: {{authenticated: true}}}}]
"""
        ),
    ),
    Scenario(
        "app_never_answers",
        "FI26",
        "200 requests that are never answered, then their clients leave",
        never_answers,
        Shape(wild="first_byte_timeout: 4s"),
    ),
    Scenario(
        "app_resets_mid_body",
        "FI27",
        "one answer after the other that breaks off: with a length, in chunks, without either",
        resets_mid_body,
        Shape(wild="idle_timeout: 2s"),
    ),
    Scenario(
        "app_closes_when_idle",
        "FI28",
        "1,000 POSTs/s to an app that closes idle connections, then to one that takes them and resets",
        closes_when_idle,
        Shape(wild="outlier_detection: off"),
    ),
    Scenario(
        "app_slow_and_huge",
        "FI29",
        "24 answers of 2 GB to clients who read a piece a second, 5 of a byte a second",
        slow_and_huge,
    ),
)
