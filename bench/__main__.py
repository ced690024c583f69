"""`python -m bench`: measures, prints the table, writes `build/bench.json`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

from bench import guard, machine, memory, nginx, subject, wrk
from ztproxy.demo.apps import live_app

RESULT = Path("build/bench.json")
GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10
ROUNDS = 3
BUSY = 0.2
"""Rounds of one proxy that differ by more than this say that the machine was not the bench's own."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how much."""

    seconds: int = 5
    rounds: int = ROUNDS
    connections: int = 2000
    websockets: int = 500
    transfer: int = GIB


QUICK = Effort(seconds=2, rounds=1, connections=500, websockets=100, transfer=128 * MIB)


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure that is worth having. `most` is false where more is better."""

    what: str
    measured: float
    aim: float
    unit: str = ""
    most: bool = True

    @property
    def met(self) -> bool:
        return self.measured <= self.aim if self.most else self.measured >= self.aim

    def __str__(self) -> str:
        sign, verdict = ("≤" if self.most else "≥"), ("met" if self.met else "NOT met")
        unit = f" {self.unit}" if self.unit else ""
        return f"  {self.what:<46}{self.measured:>9.2f}{unit:<4}  {sign} {self.aim:g}{unit:<4}  {verdict}"


async def measure(effort: Effort) -> dict[str, Any]:
    """Everything, as `build/bench.json` holds it."""
    proxy_core, other_core = machine.cores()
    os.sched_setaffinity(0, {other_core})
    machine.many_files()
    names = ("nginx", "aiohttp", "port", "operations", "provider", "app", "live", "transfer")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    with _folder() as directory, nginx.upstream(other_core, ports["app"], directory):
        speed = await _speed(effort, proxy_core, other_core, ports, directory)
        space = await _space(effort, proxy_core, ports, directory)
    reading = {name: cost._asdict() for name, cost in guard.measure().items()}
    return {
        **speed,
        **space,
        "reading": reading,
        "machine": machine.description(),
        "quick": effort is QUICK,
    }


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for everything, removed afterwards; kept, and named, when something could not be measured."""
    directory = Path(tempfile.mkdtemp(prefix="ztproxy-bench-"))
    directory.chmod(0o755)  # nginx, started as root, serves as somebody else
    try:
        yield directory
    except machine.CannotMeasure:
        print(f"bench: logs are kept in {directory}", file=sys.stderr)
        raise
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory, ignore_errors=True)


async def _speed(
    effort: Effort, proxy_core: int, other_core: int, ports: Mapping[str, int], directory: Path
) -> dict[str, Any]:
    with (
        nginx.proxy(proxy_core, ports["nginx"], ports["app"], directory),
        machine.process(
            *machine.pinned(
                proxy_core,
                *(sys.executable, "-m", "bench.aiohttp_proxy"),
                *(str(ports["aiohttp"]), str(ports["app"])),
            ),
            log=directory / "aiohttp.log",
        ),
    ):
        async with subject.running(proxy_core, ports, directory / "speed") as ours:
            signed_in = ours.headers["app"]
            where = {"nginx": ports["nginx"], "ztproxy": ours.port, "aiohttp": ports["aiohttp"]}
            for port in (ports["app"], *where.values()):
                await _answers_right(port, signed_in)

            async def load(port: int, seconds: int, rate: float | None = None) -> wrk.Load:
                # In a thread, so that the provider in this process goes on answering.
                return await asyncio.to_thread(
                    wrk.run, other_core, port, signed_in, directory, seconds=seconds, rate=rate
                )

            rates: dict[str, list[float]] = {name: [] for name in where}
            for port in where.values():
                await load(port, 1)  # warm
            for turn in range(effort.rounds):
                for name, port in where.items():
                    rates[name].append((await load(port, effort.seconds)).requests_per_second)
                    print(f"  round {turn + 1}  {name:<9}{rates[name][-1]:>9,.0f} requests/s", flush=True)
            each = {name: statistics.median(values) for name, values in rates.items()}
            spread = max((max(values) - min(values)) / max(values) for values in rates.values())
            half = each["ztproxy"] / 2
            direct = await load(ports["app"], effort.seconds, half)
            through = await load(ours.port, effort.seconds, half)
            _logged(directory / "speed")
    return {
        "ratios": {
            "ztproxy/nginx": round(each["ztproxy"] / each["nginx"], 3),
            "ztproxy/aiohttp": round(each["ztproxy"] / each["aiohttp"], 2),
        },
        "requests_per_second": {name: round(rate) for name, rate in each.items()},
        "rounds": {name: [round(rate) for rate in values] for name, values in rates.items()},
        "spread": round(spread, 2),
        "added_p99_ms_at_half_load": round(through.p99_ms - direct.p99_ms, 3),
        "half_load": {
            "aimed_requests_per_second": round(half),
            "requests_per_second": round(through.requests_per_second),
            "p50_ms": through.p50_ms,
            "p99_ms": through.p99_ms,
            "upstream_alone_p50_ms": direct.p50_ms,
            "upstream_alone_p99_ms": direct.p99_ms,
        },
    }


async def _space(effort: Effort, core: int, ports: Mapping[str, int], directory: Path) -> dict[str, Any]:
    runner = web.AppRunner(live_app(tick=3600), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", ports["live"], backlog=1024).start()
    figures: dict[str, Any] = {}
    try:
        async with memory.transfer_server(ports["transfer"]):
            # A fresh worker for each figure: memory freed by one would hide what the next one takes.
            async with subject.running(core, ports, directory / "connections") as ours:
                each = await memory.idle_connections(ours, effort.connections)
                figures["bytes_per_idle_connection"] = round(each)
            async with subject.running(core, ports, directory / "websockets", hosts=("live",)) as ours:
                each = await memory.idle_websockets(ours, effort.websockets)
                figures["bytes_per_idle_websocket"] = round(each)
            for way in ("download", "upload"):
                async with subject.running(core, ports, directory / way, hosts=("transfer",)) as ours:
                    grown = await memory.growth(ours, effort.transfer, upload=way == "upload")
                    figures[f"growth_{way}_bytes"] = grown
    finally:
        await runner.cleanup()
    return figures


async def _answers_right(port: int, headers: Mapping[str, str]) -> None:
    """What is measured is the right answer. Waits for a proxy that is still starting."""
    async with aiohttp.ClientSession(headers=headers, cookie_jar=aiohttp.DummyCookieJar()) as http:
        for _ in range(100):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with http.get(f"http://127.0.0.1:{port}/", allow_redirects=False) as answer:
                    body = await answer.read()
                    if answer.status != 200 or len(body) != nginx.BODY_BYTES:
                        raise machine.CannotMeasure(f"port {port} answers {answer.status}: {body[:200]!r}")
                    return
            await asyncio.sleep(0.1)
    raise machine.CannotMeasure(f"nothing answers on port {port}")


def _logged(directory: Path) -> None:
    """Both logs were really written: speed without them would be another product's."""
    for name in ("access.log", "decisions.log"):
        if not (directory / name).stat().st_size:
            raise machine.CannotMeasure(f"{name} is empty")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def report(figures: Mapping[str, Any]) -> list[str]:
    """The table, and which of the aims are met."""
    rates, half, ratios = figures["requests_per_second"], figures["half_load"], figures["ratios"]
    rows = {
        "nginx proxy_pass, nothing checked": rates["nginx"],
        "ztproxy, signed in, policy, assertion, logs": rates["ztproxy"],
        "aiohttp server + client, nothing checked": rates["aiohttp"],
    }
    aims = (
        Aim("requests/s, to nginx", ratios["ztproxy/nginx"], 0.30, most=False),
        Aim("requests/s, to aiohttp", ratios["ztproxy/aiohttp"], 4, most=False),
        Aim("added p99 at half load", figures["added_p99_ms_at_half_load"], 2, "ms"),
        Aim("an idle kept-alive connection", figures["bytes_per_idle_connection"] / KIB, 8, "KiB"),
        Aim("an idle WebSocket", figures["bytes_per_idle_websocket"] / KIB, 32, "KiB"),
        Aim("growth while downloading", figures["growth_download_bytes"] / MIB, 4, "MiB"),
        Aim("growth while uploading", figures["growth_upload_bytes"] / MIB, 4, "MiB"),
    )
    said = figures["machine"]
    return [
        "",
        f"one core, {wrk.CONNECTIONS} connections, 1 KiB answers; {said['cpu']}, {said['cores']} cores, "
        f"Python {said['python']}, nginx {said['nginx']}",
        "",
        *(f"  {what:<46}{rate:>9,} requests/s  {rate / rates['nginx']:.2f}" for what, rate in rows.items()),
        "",
        f"  at {half['requests_per_second']:,} requests/s: p50 {half['p50_ms']:.2f} ms, "
        f"p99 {half['p99_ms']:.2f} ms (upstream alone {half['upstream_alone_p50_ms']:.2f} and "
        f"{half['upstream_alone_p99_ms']:.2f} ms)",
        "",
        *map(str, aims),
        *guard.report({name: guard.Cost(**cost) for name, cost in figures["reading"].items()}),
        "",
        *_doubts(figures),
        f"written to {RESULT}",
    ]


def _doubts(figures: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing the figures."""
    doubts = []
    if figures["quick"]:
        doubts.append("a quick run: take it for a look, not for a result")
    if figures["spread"] > BUSY:
        doubts.append(f"the rounds differ by {figures['spread']:.0%}: something else kept this machine busy")
    return [*doubts, ""] if doubts else []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory of ztproxy.")
    parser.add_argument("--quick", action="store_true", help="shorter and rougher")
    effort = QUICK if parser.parse_args().quick else Effort()
    try:
        figures = uvloop.run(measure(effort))
    except machine.CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    print("\n".join(report(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
