"""Scenarios of clients that are slow, many or large: FI35 to FI38, FI41, FI42, and floods of handshakes."""

from __future__ import annotations

import asyncio
import re
import time

from bench import machine
from bench.revocation_clients import HOST, get
from loadtests.overload.attackers import bomb as make_bomb
from loadtests.overload.house import MiB, Shape
from loadtests.overload.scenario import Scenario, Stage, idly
from loadtests.overload.speaking import Speaker

_START = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX-A: "
_HELLO = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""The beginning of a TLS record with a ClientHello that never goes on."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


async def slow_heads(stage: Stage) -> None:
    """FI35. Heads that come by an octet a second and never end."""
    count = stage.some(2000)
    async with stage.attack(
        "hold", connections=count, sources=200, first=_START, drip="a", every=1.0, again=True
    ) as slow:
        await stage.go_on(max(stage.effort.seconds, 13.0))
    lived = slow.met["lived"]
    stage.saw(slow=slow.met)
    stage.promise("each is answered 408 and closed", slow.ended(408) >= 0.9 * count, f"{slow.counts}")
    stage.promise(
        "and that 10 s after it began", lived["p50"] >= 9 and lived["max"] <= 13, f"{lived} s", timed=True
    )


async def slow_bodies(stage: Stage) -> None:
    """FI36. Bodies of an octet a second, of somebody who may send some; and of strangers, who may not."""
    house, count = stage.house, stage.some(500)
    head = (
        get(house.cookies[0], "/").decode().replace("GET", "POST", 1)[:-2] + "Content-Length: 100000\r\n\r\nx"
    )
    async with stage.attack("hold", connections=count, first=head, drip="x", every=1.0, again=True) as slow:
        await stage.go_on(max(stage.effort.seconds, 13.0))
    stranger = head.replace(house.cookies[0], "nobody")
    async with stage.attack("hold", connections=count, first=stranger, drip="x", every=1.0) as strange:
        await stage.go_on(3.0)
    lived = slow.met["lived"]
    stage.saw(slow=slow.met, strange=strange.met)
    stage.promise("each is answered 408 and closed", slow.ended(408) >= 0.9 * count, f"{slow.counts}")
    stage.promise("and that after 10 s below 1 KiB/s", lived["max"] <= 13, f"{lived} s", timed=True)
    stage.promise(
        "strangers are refused before their body is waited for",
        strange.ended("closed") == count and not strange.ended(200),
        f"{strange.counts}",
    )


async def slow_reads(stage: Stage) -> None:
    """FI36. Clients who ask for 2 GB and then read nothing."""
    house, count = stage.house, stage.some(100)
    before = house.worker.resident
    async with stage.attack(
        "read_slowly", connections=count, cookie=house.cookies[0], target="/wild/huge", every=1000.0
    ) as readers:
        grown = (house.worker.resident - before) / MiB
        opened = (await house.counts())["open"]
        gone = await stage.until(lambda: _only(stage, 2), 12)
    stage.saw(readers=readers.counts)
    stage.promise("each was answered", readers.ended(200) == count and opened >= count, f"{readers.counts}")
    stage.promise("memory: 512 KiB for each at most", grown <= count * 0.5 + 2, f"{grown:.1f} MiB")
    stage.promise(
        "after `write_stall` (5 s here) without progress both sides are let go",
        gone is not None,
        f"{gone:.1f} s" if gone else "never",
        timed=True,
    )


async def _only(stage: Stage, most: int) -> bool:
    """Whether the app that is not well has so many connections, the one that asks among them."""
    return bool((await stage.house.counts())["open"] <= most)


async def slowhttptest(stage: Stage) -> None:
    """FI35, FI36 by somebody else's tool: slow heads, bodies, reads, and ranges, one after the other."""
    url = f"http://127.0.0.1:{stage.house.port}/wild/huge"
    seconds = max(4, round(stage.effort.seconds / 2))
    common = ["-c", str(stage.some(800)), "-r", "400", "-l", str(seconds), "-i", "1", "-p", "3", "-u", url]
    said: dict[str, str] = {}
    for flag, what in (("-H", "heads"), ("-B", "bodies"), ("-X", "reads"), ("-R", "ranges")):
        command = idly(stage.house.other, machine.tool("slowhttptest", "slowhttptest"), flag, *common)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(seconds + 20):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise machine.CannotMeasure("slowhttptest does not end") from None
        text = _COLOURS.sub("", out.decode(errors="replace"))
        verdicts = re.findall(r"service available:\s+(\w+)", text)
        said[what] = " ".join(verdicts[-1:]) or text[-200:]
        stage.promise(
            f"slow {what}: the service stays available", bool(verdicts) and set(verdicts) == {"YES"}, verdicts
        )
    stage.saw(slowhttptest=said)


async def idle_flood(stage: Stage) -> None:
    """FI37. Three times as many connections as there may be, and nobody says anything on them."""
    house = stage.house
    async with stage.attack("hold", connections=max(700, stage.some(1500)), sources=250, again=True) as idle:
        newcomers = [await house.ask("/", house.cookies[n % len(house.cookies)]) for n in range(20)]
        await stage.go_on()
        newcomers += [await house.ask("/", house.cookies[n % len(house.cookies)]) for n in range(20)]
        await asyncio.sleep(1.2)  # until the metrics are published
        connections = await house.metric("ztproxy_connections")
        evicted = await house.metric("ztproxy_connections_evicted_total")
    stage.saw(idle=idle.met, evicted=evicted)
    good = sum(one.status == 200 for one in newcomers)
    stage.promise("the cap of 500 holds", 0 < connections <= 500, f"{connections:.0f}")
    stage.promise("the oldest of which nothing is known make way", evicted > 0, f"{evicted:.0f} did")
    stage.promise(
        "who comes newly and is signed in is let in", good == len(newcomers), f"{good} of {len(newcomers)}"
    )


async def descriptors(stage: Stage) -> None:
    """FI38. Everything that can hold a descriptor, with 256 of them."""
    house, cookie = stage.house, stage.house.cookies[0]
    before = house.worker.cpu
    began = time.perf_counter()
    silent = get(cookie, "/wild/silent/1").decode()
    async with (
        stage.attack("hold", connections=stage.some(150), sources=50, first=silent, again=True) as asking,
        stage.attack("hold", connections=stage.some(300), sources=100, again=True) as idle,
    ):
        await stage.go_on(2.0)
        asked = [(await house.operations(path))[0] for path in ("/livez", "/metrics") for _ in range(5)]
        ready, said = await house.operations("/readyz")
        most = house.worker.descriptors
        await stage.go_on(max(0.0, stage.effort.seconds - 2.0))
        busy = (house.worker.cpu - before) / (time.perf_counter() - began)
    back = await stage.until(lambda: _lets_in(stage), 5)
    stage.saw(asking=asking.met, idle=idle.met, descriptors_at_most=most, busy=round(busy, 2))
    stage.promise("health and metrics answer", set(asked) == {200}, asked)
    stage.promise("ready, that is: the store is still there", ready == 200, f"{ready} {said.strip()}")
    stage.promise("below the limit", most < 256, f"{most} of 256")
    stage.promise(
        "people get in within 1 s of their being free",
        back is not None and back <= 1.0,
        "never" if back is None else f"{back:.2f} s",
        timed=True,
    )
    log = (house.directory / "proxy.log").read_text(errors="replace")
    stage.promise(
        "nothing failed for want of one",
        "Too many open files" not in log,
        f"{log.count('Too many open')} lines",
    )


async def _lets_in(stage: Stage) -> bool:
    return (await stage.house.ask("/")).status == 200


_BOMBS = {
    "many_headers": {431},
    "one_header": {431},
    "many_cookies": {431},
    "url": {414, 431},
    "tiny_chunks": {200},
    "chunk_extension": {400},
    "trailers": {400, 431},
}
"""Each a megabyte or so, but for 20,000 chunks of one octet, which are slow to read and not wrong."""


async def bombs(stage: Stage) -> None:
    """FI41."""
    house = stage.house
    for kind, expected in _BOMBS.items():
        before, bomb = house.worker.resident, make_bomb(kind, house.cookies[0])
        cpu, answers = house.worker.cpu, []
        for _ in range(5):
            speaker = Speaker(house.port)
            began = time.perf_counter()
            try:
                async with asyncio.timeout(10):
                    answer = await speaker.ask(bomb)
                answers.append((answer.status, 1000 * (answer.at - began)))
            except (OSError, TimeoutError) as error:
                answers.append((0, 0.0))
                stage.saw(**{f"{kind}_failed": repr(error)})
            speaker.close()
        cpu_ms = 1000 * (house.worker.cpu - cpu) / 5
        middle = sorted(ms for _, ms in answers)[2]
        grown = house.worker.resident - before
        statuses = {status for status, _ in answers}
        stage.saw(**{kind: {"octets": len(bomb), "ms": round(middle, 1), "cpu_ms": round(cpu_ms, 1)}})
        stage.promise(f"{kind}: {' or '.join(map(str, sorted(expected)))}", statuses <= expected, statuses)
        if kind == "tiny_chunks":
            stage.promise(f"{kind}: 50 ms of CPU at most", cpu_ms <= 50, f"{cpu_ms:.0f} ms", timed=True)
        else:
            stage.promise(
                f"{kind}: refused within 10 ms", middle <= 10, f"median {middle:.1f} ms", timed=True
            )
        stage.promise(
            f"{kind}: memory grows by ten times its size at most, and 2 MiB",
            grown <= 10 * len(bomb) + 2 * MiB,
            f"{grown / MiB:.1f} MiB",
        )
    # Without the tiny chunks: nothing is wrong with those, and whoever may send them may make a worker work.
    async with stage.attack("flood", what="bombs", cookie=house.cookies[0], connections=8, rate=40) as flood:
        await stage.go_on()
    stage.saw(flood=flood.met)


async def idle_sockets(stage: Stage) -> None:
    """FI42. WebSockets on which nothing is said, then the session they are open on is revoked."""
    house, count = stage.house, stage.some(2000)
    [cookie] = await house.people.sign_in(1)
    before = house.worker.resident
    async with stage.attack("hold", connections=count, upgrade=cookie, sources=20, opening=400) as sockets:
        await asyncio.sleep(2.0)
        cpu, began, answers = house.worker.cpu, time.perf_counter(), _answered(stage)
        await stage.go_on(max(stage.effort.seconds, 15.0))
        lasted = time.perf_counter() - began
        busy = (house.worker.cpu - cpu) / lasted
        others = (_answered(stage) - answers) / lasted
        each = (house.worker.resident - before) / count / 1024
        name = await house.people.id_of(cookie)
        at = time.time()
        answer, _ = await house.admin.revoke("session", name)
        confirmed = answer.at - answer.began
        await asyncio.sleep(3.0)
    closed, last = sockets.ended("closed"), sockets.met["last_closed"] - at
    stage.saw(
        sockets=sockets.met, kib_each=round(each, 1), busy=round(busy, 3), confirmed=round(confirmed, 3)
    )
    stage.promise("each is opened", sockets.ended(101) == count, f"{sockets.ended(101)} of {count}")
    stage.promise("40 KiB for each at most (10,000 in 400 MiB)", each <= 40, f"{each:.1f} KiB")
    quiet = _quiet_share(stage)
    stage.promise(
        "they cost less than 5 % of a core beside the honest requests",
        busy - quiet <= 0.05,
        f"{100 * busy:.0f} % of a core, {100 * quiet:.0f} % before, with {others:.0f} honest requests/s",
        timed=True,
    )
    stage.promise("all are closed when their session is revoked", closed == count, f"{closed} of {count}")
    stage.promise("and that within 2 s", 0 < last <= 2.0, f"{last:.2f} s", timed=True)


def _answered(stage: Stage) -> int:
    return len(stage.honest.phases["during"].answers)


def _quiet_share(stage: Stage) -> float:
    """What the worker had of a core before the attack."""
    before = stage.found.usage["before"]
    return before.cpu / before.seconds


async def hellos(stage: Stage) -> None:
    """TLS handshakes that never go on, and as many whole ones as 300 a second."""
    port = stage.house.ports["tls"]
    async with (
        stage.attack(
            "hold", port=port, connections=stage.some(1500), sources=250, first=_HELLO, again=True
        ) as hellos,
        stage.attack("shake", port=port, connections=8, rate=300 * stage.effort.share) as shaking,
    ):
        await stage.go_on(max(stage.effort.seconds, 12.0))
    lived = hellos.met["lived"]
    stage.saw(hellos=hellos.met, shaking=shaking.met, port=port)
    stage.promise(
        "who holds back the hello is gone after 10 s", 0 < lived["max"] <= 12, f"{lived} s", timed=True
    )
    stage.promise(
        "whole handshakes go on", shaking.ended("handshakes") > 100 * stage.effort.share, f"{shaking.counts}"
    )


_ANYBODY = """\
  - from: http://127.0.0.1:{port}
    name: anybody
    to: http://127.0.0.1:{wild}
    allow_public_unauthenticated_access: true
"""

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "slow_heads", "FI35", "2,000 connections whose heads come by an octet a second", slow_heads, growth=48
    ),
    Scenario(
        "slow_bodies",
        "FI36",
        "500 uploads of an octet a second, by somebody signed in, then strangers",
        slow_bodies,
    ),
    Scenario(
        "slow_reads",
        "FI36",
        "100 clients who ask for 2 GB and read nothing",
        slow_reads,
        Shape(limits="connections_per_address: 16384, write_stall: 5s"),
        growth=64,
    ),
    Scenario(
        "slowhttptest",
        "FI35",
        "slowhttptest -H, -B, -X and -R with 800 connections each, on a public route",
        slowhttptest,
        Shape(routes=_ANYBODY),
        growth=400,
        needs="slowhttptest",
    ),
    Scenario(
        "idle_flood",
        "FI37",
        "1,500 idle connections where 500 are allowed, opened again when they are closed",
        idle_flood,
        Shape(limits="connections_per_address: 400, connections: 500"),
    ),
    Scenario(
        "descriptors",
        "FI38",
        "256 descriptors: 150 requests that are never answered, 300 idle connections",
        descriptors,
        Shape(descriptors=256),
        forgiven=("503", "ConnectionResetError"),
        why="a new connection may be refused while requests under way have all places",
    ),
    Scenario(
        "bombs",
        "FI41",
        "heads, cookies, URLs, trailers and chunk extensions of 1 MB; 20,000 tiny chunks",
        bombs,
    ),
    Scenario("idle_sockets", "FI42", "2,000 idle WebSockets, then a revocation", idle_sockets, growth=96),
    Scenario(
        "hellos",
        "TLS",
        "1,500 connections that begin a hello and stop, and 300 whole handshakes/s",
        hellos,
        growth=96,
        tls=True,
    ),
)
