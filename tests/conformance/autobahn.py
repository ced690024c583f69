"""Autobahn's WebSocket suite against an echo server: directly, and through a running ztproxy.

Knows: how the suite is had (`tools/autobahn`) and run, which cases there are. Promises: every process it
began has ended when it returns, whatever happens. Leaves judging the reports to its caller. The echo server
is the suite's own: what it gets wrong it gets wrong on every way, so only what the tunnel changes can differ.

    python -m tests.conformance.autobahn      the whole suite, in an hour at most; writes build/autobahn.json
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.stories.house import House, house
from tests.stories.talking import PATIENCE, free_ports
from ztproxy.adapters.embedded_valkey import EmbeddedValkey

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "autobahn"

WHOLE = ("*",)
QUICK = (*(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)), "9.1.1", "13.3.1")
"""Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing; one case of mass, one of compression."""

ROUTE = """\
  - from: https://app.test
    prefix: /ws/public
    name: echo for all
    to: http://127.0.0.1:$echo
    preserve_host_header: false
    upgrades: websocket
    allow_missing_origin: true
    outlier_detection: off
    allow_public_unauthenticated_access: true
  - from: https://app.test
    prefix: /ws/people
    name: echo for people
    to: http://127.0.0.1:$echo
    preserve_host_header: false
    upgrades: websocket
    outlier_detection: off
    policy:
      - name: people
        allow: {authenticated: true}
"""

Report = dict[str, dict[str, Any]]
"""By case: what the suite says of it (`SAME` in `python2/fuzzing_client.py`)."""


class Missing(Exception):
    """The suite cannot be had here; says why."""


class Way(NamedTuple):
    """How to come to the echo server, and what to try there."""

    url: str
    address: tuple[str, int]
    headers: Mapping[str, str] = {}
    origin: str | None = None
    cases: Sequence[str] = WHOLE


def python2() -> str:
    """The Python 2.7 to run the suite with, which is installed first if need be. Raises `Missing`."""
    BUILD.parent.mkdir(exist_ok=True)
    # One worker of pytest-xdist installs, the others wait for it.
    with (BUILD.parent / ".autobahn-installing").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        made = subprocess.run([ROOT / "tools" / "autobahn"], capture_output=True, text=True, timeout=150)
    if made.returncode:
        raise Missing(made.stderr.strip() or "tools/autobahn failed")
    return made.stdout.strip()


@contextlib.contextmanager
def running(python: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The fuzzing client, or the echo server; has ended with the block."""
    command = [python, "-W", "ignore", str(HERE / "python2" / "fuzzing_client.py"), *arguments]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(BUILD), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def echo_server(python: str, port: int) -> Iterator[None]:
    with running(python, "serve", str(port)) as process:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, "the echo server did not start"
                time.sleep(0.05)
        yield


def ask(python: str, ways: Mapping[str, Way], within: float) -> dict[str, Report]:
    """Every way's report, all of them asked at once: of the cases that ended within so many seconds."""
    reports: dict[str, Report] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ztproxy-autobahn-")))
        asked = {}
        for number, (name, way) in enumerate(ways.items()):
            spec = {
                **way._asdict(),
                "exclude-cases": [],
                "exclude-agent-cases": {},
                "outdir": str(folder),
                "report": str(folder / f"{number}.json"),
            }
            asked[name] = (Path(str(spec["report"])), stack.enter_context(running(python, json.dumps(spec))))
        deadline = time.monotonic() + within
        for _, process in asked.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for name, (report, _) in asked.items():
            lines = report.read_text().split("\n")[:-1] if report.exists() else []
            reports[name] = dict(json.loads(line) for line in lines)
    return reports


@contextlib.contextmanager
def ways(python: str, directory: Path, state: str) -> Iterator[tuple[House, dict[str, Way]]]:
    """A house with an echo server behind it, and how to come there: `direct` (to another one, so that neither
    waits for the other), `public` and `signed in`."""
    ports = free_ports(("echo", "other"))
    with contextlib.ExitStack() as stack:
        for port in ports.values():
            stack.enter_context(echo_server(python, port))
        it = stack.enter_context(house(directory, state, parts={"routes": ROUTE}, ports=ports))
        door = ("127.0.0.1", it.ports["plain"])
        yield (
            it,
            {
                "direct": Way(f"ws://127.0.0.1:{ports['other']}/ws", ("127.0.0.1", ports["other"])),
                "public": Way("ws://app.test:443/ws/public", door),
                "signed in": Way(
                    "ws://app.test:443/ws/people", door, {"Cookie": it.sign_in("alice")}, "https://app.test"
                ),
            },
        )


def differences(one: Report, other: Report) -> list[str]:
    """What the reports do not have in common, by case."""
    return [
        f"{case}: {name}: {one.get(case, {}).get(name)!r} or {other.get(case, {}).get(name)!r}"
        for case in sorted(one.keys() | other.keys())
        for name in sorted(one.get(case, {}).keys() | other.get(case, {}).keys())
        if one.get(case, {}).get(name) != other.get(case, {}).get(name)
    ]


def main(cases: Sequence[str], minutes: float) -> int:
    """1 where ztproxy makes a difference, 3 where the suite cannot be had."""
    try:
        python = python2()
    except Missing as why:
        print(f"Autobahn's suite is skipped: {why}")
        return 3
    with tempfile.TemporaryDirectory(prefix="ztproxy-") as folder:
        directory, socket_directory = Path(folder) / "house", Path(folder) / "state"
        directory.mkdir()
        socket_directory.mkdir()
        with EmbeddedValkey(socket_directory) as server, ways(python, directory, server.url) as (_, all_ways):
            two = {name: all_ways[name]._replace(cases=cases) for name in ("direct", "signed in")}
            reports = ask(python, two, minutes * 60)
    # What one of them had no time for is not a difference.
    ended = reports["direct"].keys() & reports["signed in"].keys()
    compared = {name: {case: report[case] for case in ended} for name, report in reports.items()}
    verdicts = {
        name: Counter(f"{one['behavior']}, closing {one['behaviorClose']}" for one in report.values())
        for name, report in compared.items()
    }
    found = differences(compared["direct"], compared["signed in"])
    result = {"asked for": list(cases), "compared": len(ended), "verdicts": verdicts, "differences": found}
    (ROOT / "build" / "autobahn.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if found or not ended else 0


def _from_command_line() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.autobahn")
    parser.add_argument("cases", nargs="*", default=WHOLE, help="as Autobahn names them: `9.*`; or all")
    parser.add_argument("--minutes", type=float, default=60.0, help="what has not ended then is left out")
    arguments = parser.parse_args()
    # Whoever stops it stops what it began as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return main(arguments.cases, arguments.minutes)


if __name__ == "__main__":
    sys.exit(_from_command_line())
