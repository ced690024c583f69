"""`python -m bench.devices`, or `make bench-devices`: what device certificates and the inventory cost.

Measures the product as it is run (`devices_house`), prints the aims and whether they are met, and writes
`build/bench-devices.json` and `docs/devices-speed.md`. `--no-page` writes below `build/` only, and so does
`--quick`, which takes small numbers. Nothing here is a test: a slow machine fails nothing. It ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import uvloop
from redis.asyncio import Redis

from bench import machine
from bench.devices_clients import CONNECTIONS, Beside, Crowd, Door, Load, Way, answers, ask, beside, lookups
from bench.devices_house import (
    BOUND,
    DEVICE,
    OWNER,
    PKI,
    Node,
    app,
    compared,
    node,
    pki_in,
    shakers,
)
from bench.devices_report import page, table
from bench.revocation import folder
from bench.revocation_clients import until
from bench.revocation_house import keys_in
from bench.revocation_report import percentile, ratios
from ztproxy.adapters.certificate_form import DeviceName
from ztproxy.adapters.client_certificates import Authority, ClientCertificates
from ztproxy.adapters.jwt import AssertionJWTs
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.redis_connection import connect
from ztproxy.adapters.redis_devices import RedisDevices
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.certificate import Verified
from ztproxy.core.request import ClientCertificate
from ztproxy.verify import AssertionRejected, Verifier

BUILD, DOCS = Path("build"), Path("docs")
RESULT, PAGE = BUILD / "bench-devices.json", "devices-speed.md"

LIMIT = 360.0
"""Seconds after which it gives up."""

SHAKING = 16
"""Handshakes under way at once."""

_FACTS = {"mdm_enrolled": "true", "disk_encrypted": "true", "os_patch_age": "12"}


@dataclass(frozen=True, slots=True)
class Effort:
    """How much. `seconds` are for each subject in each round."""

    devices: int = 100_000
    reports: int = 10_000
    rounds: int = 24
    seconds: float = 0.5
    lookups: int = 2_000
    firsts: int = 200


QUICK = Effort(devices=5_000, reports=500, rounds=4, seconds=0.3, lookups=300, firsts=50)


def say(what: str) -> None:
    print(f"  {what}", flush=True)


async def measure(effort: Effort) -> dict[str, Any]:
    """Everything, as the result file holds it."""
    began, (busy, *_) = perf_counter(), os.getloadavg()
    own_core, other_core = machine.cores()
    os.sched_setaffinity(0, {other_core})
    machine.many_files()
    with folder() as directory:
        keys, pki = keys_in(directory), pki_in(directory / "pki")
        async with AsyncExitStack() as stack:
            told, anybody = stack.enter_context(app(other_core, directory / "app"))
            one, many = [
                await stack.enter_async_context(node(directory / name, own_core, keys, pki, told))
                for name in ("one", "many")
            ]
            say(f"an import of {effort.devices:,} devices, a feed of {effort.reports:,} reports")
            await _import(one, 1)
            intake = await _intake(effort, many)
            looks = await _lookups(effort, one, many)
            say("requests/s without devices, with one, and with all of them")
            speed = await _requests(effort, one, many)
            nginx_port, nginx_pid = stack.enter_context(compared(own_core, anybody, pki, directory / "nginx"))
            ways = {
                "nginx": one.way("asks")._replace(port=nginx_port),
                **{name: one.way(name) for name in ("asks", "by_name", "quiet")},
            }
            ports = stack.enter_context(shakers(other_core, ways, pki, directory / "shakers"))
            say("handshakes/s beside nginx")
            pids = {name: nginx_pid if name == "nginx" else one.worker for name in ways}
            shaken = await _handshakes(effort, {name: ways[name].to(ports[name]) for name in ways}, pids)
        first = _first_sight_us(effort, pki)
    return {
        "intake": intake,
        "lookup_us": looks,
        "first_us": first,
        "requests": speed,
        "handshakes": shaken,
        "machine": {**machine.description(), "openssl": ssl.OPENSSL_VERSION},
        "connections": CONNECTIONS,
        "shaking": SHAKING,
        "quick": effort is QUICK,
        "load_average_before": round(busy, 1),
        "seconds": round(perf_counter() - began, 1),
    }


# -- the inventory ------------------------------------------------------------------------------------------


async def _intake(effort: Effort, at: Node) -> dict[str, Any]:
    """Many devices, and what is reported of some, while a worker serves somebody and keeps its lease."""
    client, door = connect(at.state), Door(at.way("quiet"))

    async def ping() -> bool:
        return bool(await client.ping())

    figures: dict[str, Any] = {"devices": effort.devices, "reports": effort.reports}
    try:
        before = await _used(client)
        for what, work in (("import", _import(at, effort.devices)), ("feed", _report(at, effort.reports))):
            async with beside(ping, 0.005) as pings, beside(door.lets_in, 0.02) as requests:
                figures[what] = {"seconds": round(await work, 2)}
            figures[what] |= {"ping_ms": _spread(pings), "request_ms": _spread(requests)}
            if pings.failed or requests.failed:
                raise machine.CannotMeasure(
                    f"{what}: {pings.failed} pings, {requests.failed} requests failed"
                )
        figures["bytes_per_device"] = round((await _used(client) - before) / effort.devices)
    finally:
        door.close()
        await client.aclose()
    return figures


async def _import(at: Node, count: int) -> float:
    """`ztproxy devices import` of so many; seconds from its start to its end."""
    file = at.directory / "devices.csv"
    with file.open("w", newline="") as written:
        rows = csv.writer(written)
        rows.writerow(["id", "name", "platform", "owners", "status", *(f"posture.{name}" for name in _FACTS)])
        rows.writerows(
            [f"laptop-{n}", f"laptop {n}", "macos", f"p{n}@corp.test", "approved", *_FACTS.values()]
            for n in range(count)
        )
    return await _command(at, "import", file, f"{count} created")


async def _report(at: Node, count: int) -> float:
    """`ztproxy devices posture` of so many reports, each with three facts."""
    file, now = at.directory / "reports.json", time.time()
    facts = {"mdm_enrolled": True, "disk_encrypted": True, "os_patch_age": 3}
    file.write_text(json.dumps([{"device": f"laptop-{n}", "at": now, "facts": facts} for n in range(count)]))
    return await _command(at, "posture", file, f"reported on {count} devices")


async def _command(at: Node, name: str, file: Path, expected: str) -> float:
    began = perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ztproxy.cli", "devices", name, str(file), "--config", str(at.config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode or expected not in said.decode().replace(",", ""):
        raise machine.CannotMeasure(f"`ztproxy devices {name}` said: {said.decode()}")
    return perf_counter() - began


async def _used(client: Redis) -> int:
    found = await client.info("memory")
    return int(found["used_memory"])


def _spread(seen: Beside) -> dict[str, float]:
    ms = [value * 1000 for value in seen.seconds]
    return {
        "count": len(ms),
        "p50": round(percentile(ms, 50), 2),
        "p99": round(percentile(ms, 99), 2),
        "max": round(max(ms), 2),
    }


async def _lookups(effort: Effort, one: Node, many: Node) -> dict[str, float]:
    """Microseconds to read the device from either inventory, turn and turn about."""
    stores = {name: _inventory(at) for name, at in (("one", one), ("many", many))}
    try:
        if await stores["many"][0].count() != effort.devices:
            raise machine.CannotMeasure("not all devices are in the inventory")
        return await lookups(
            {name: devices.get for name, (devices, _) in stores.items()}, DEVICE, effort.lookups
        )
    finally:
        for _, client in stores.values():
            await client.aclose()


def _inventory(at: Node) -> tuple[RedisDevices, Redis]:
    client = connect(at.state)
    return RedisDevices(client, Sealer(KeyRing.load(at.keys).records)), client


# -- requests -----------------------------------------------------------------------------------------------


async def _requests(effort: Effort, one: Node, many: Node) -> dict[str, Any]:
    """Requests/s of each way in turn, over TLS connections that stay."""
    nodes = {"tls": one, "device": one, "many_tls": many, "many": many}
    ways = {name: at.way("quiet" if name.endswith("tls") else "asks") for name, at in nodes.items()}

    async def right(name: str) -> None:
        await _right(ways[name], nodes[name])

    pids = {name: at.worker for name, at in nodes.items()}
    rounds = await _in_turns(ways, pids, effort.rounds, effort.seconds, right)
    return told(rounds, {"device": "tls", "many": "device", "many_tls": "tls"})


async def _handshakes(effort: Effort, ways: Mapping[str, Way], pids: Mapping[str, int]) -> dict[str, Any]:
    """Handshakes/s of each way in turn, a new connection for each request."""

    async def right(name: str) -> None:
        await until(partial(answers, ways[name]), f"{ways[name].host} answers by {ways[name].port}")

    # Fewer at once, and longer: at the end of each turn all that are under way are waited for.
    rounds = await _in_turns(ways, pids, effort.rounds // 2, 2 * effort.seconds, right, SHAKING)
    return told(rounds, {"asks": "nginx", "by_name": "nginx", "quiet": "nginx"})


async def _in_turns(
    ways: Mapping[str, Way],
    pids: Mapping[str, int],
    rounds: int,
    seconds: float,
    right: Callable[[str], Awaitable[None]],
    connections: int = CONNECTIONS,
) -> dict[str, list[Load]]:
    """Each way for some seconds in each round, once `right` has found it so."""
    found: dict[str, list[Load]] = {name: [] for name in ways}
    async with AsyncExitStack() as stack:
        crowds: dict[str, Crowd] = {}
        for name, way in ways.items():
            await right(name)
            crowds[name] = await stack.enter_async_context(Crowd(way, (pids[name],), connections).opened())
        for number in range(rounds + 1):
            for name in _turned(list(ways), number):
                await right(name)
                load = await crowds[name].ask(seconds)
                if number:  # the first round warms
                    found[name].append(load)
    for name, loads in found.items():
        say(f"{name:<10}{median(one.rate for one in loads):>9,.0f}/s")
    return found


def _turned(names: list[str], number: int) -> list[str]:
    """In another order each round: nobody is always the first."""
    at = number % len(names)
    return names[at:] + names[:at]


def told(rounds: Mapping[str, list[Load]], to: Mapping[str, str]) -> dict[str, Any]:
    """Of each: its rates, how busy it was, CPU for a request, and its ratios to the other, round by round."""
    return {
        "rates": {name: [round(one.rate, 1) for one in loads] for name, loads in rounds.items()},
        "busy": {name: round(median(one.busy for one in loads), 3) for name, loads in rounds.items()},
        "cpu_us": {name: [round(one.cpu_us, 2) for one in loads] for name, loads in rounds.items()},
        "ratios": {
            name: ratios([one.rate for one in rounds[name]], [one.rate for one in rounds[other]])
            for name, other in to.items()
        },
        "cpu_ratios": {
            name: ratios([one.cpu_us for one in rounds[name]], [one.cpu_us for one in rounds[other]])
            for name, other in to.items()
        },
    }


async def _right(way: Way, at: Node) -> None:
    """What is measured is what the app was told, in an assertion that holds and names the person. Where a
    device is asked for, nobody comes in without one."""
    jwks = AssertionJWTs(KeyRing.load(at.keys).assertions).jwks()
    status, body = await ask(way, "/assertion")
    try:
        who = Verifier(jwks, f"https://{way.host}").verify(body.decode())
    except AssertionRejected as error:
        raise machine.CannotMeasure(f"{way.host} answers {status}: {error}; {body[:200]!r}") from error
    if status != 200 or who.email != OWNER:
        raise machine.CannotMeasure(f"the app was told of {who.email} with {status}")
    if way.host == BOUND:
        status, _ = await ask(way._replace(tls=at.pki.context(shows=False)))
        if status == 200:
            raise machine.CannotMeasure("the laptop's cookie came in without the laptop")


def _first_sight_us(effort: Effort, pki: PKI) -> float:
    """Microseconds to verify a certificate that was never shown before."""
    authority = Authority(
        "corp",
        pki.directory / "device-ca.pem",
        device=DeviceName("san_uri", "spiffe://corp.test/device/{id}"),
    )
    verifier, took = ClientCertificates([authority], time.time), []
    for number in range(effort.firsts):
        shown = ClientCertificate(pki.issue(f"laptop-{number}").der, ())
        began = perf_counter()
        verdict = verifier.at_once(shown, time.time())
        took.append((perf_counter() - began) * 1e6)
        if not isinstance(verdict, Verified):
            raise machine.CannotMeasure(f"a good certificate is refused: {verdict}")
    return round(median(took), 1)


async def _in_time(effort: Effort) -> dict[str, Any]:
    try:
        async with asyncio.timeout(LIMIT):
            return await measure(effort)
    except TimeoutError as error:
        raise machine.CannotMeasure(f"it took longer than {LIMIT:.0f} s") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.devices", description="Speed of devices.")
    parser.add_argument("--quick", action="store_true", help="small numbers; docs/ is left alone")
    parser.add_argument("--no-page", action="store_true", help="docs/ is left alone")
    options = parser.parse_args()
    signal.alarm(int(LIMIT) + 30)  # if even giving up hangs, the kernel ends us, and with us all we started
    try:
        figures = uvloop.run(_in_time(QUICK if options.quick else Effort()))
    except machine.CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    BUILD.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")
    where = (BUILD if options.quick or options.no_page else DOCS) / PAGE
    where.write_text(page(figures))
    print("\n".join(table(figures)))
    print(f"written to {RESULT} and {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
