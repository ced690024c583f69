"""wrk: as much as goes, or at a given rate, as one session or as many that take turns.

Knows: what wrk counts. Promises: a round counts only if every answer was a 200 (one request in a thousand may
have none), if they were all as long as the one that was looked at before, and if somebody is still let in
after it; else `CannotMeasure`. The app gives 200 for an assertion alone. A given rate is kept by thinking
time, which is no part of the latency.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from bench import machine, nginx
from bench.growth import COOKIE, HOST
from bench.growth.house import Node, cpu_of, lets_in

CONNECTIONS = 64

MOST_BESIDE = 1024
"""Octets of an answer that are not its body, at most."""

# The requests are made before the clock runs; one after the other, in the order of the file.
_SCRIPT = """\
local made, turn, mean = {{}}, 0, {mean}
function init(args)
  for cookie in io.lines("{cookies}") do
    made[#made + 1] = wrk.format("GET", "/", {{["Host"] = "{host}", ["Cookie"] = "{name}=" .. cookie}})
  end
end
function request()
  turn = turn % #made + 1
  return made[turn]
end
if mean > 0 then
  function delay() return math.random(0, 2 * mean) end
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests": %d, "seconds": %f, "p99_us": %d, "bytes": %d, "failed": %d, "errors": %d}}\\n',
    summary.requests, summary.duration / 1000000, latency:percentile(99), summary.bytes,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
"""


class Load(NamedTuple):
    """What a round saw. `cpu_us`: processor time of the node and its store for a request."""

    rate: float
    p99_ms: float
    cpu_us: float
    shares: tuple[float, ...] = ()
    """Of the work, by worker, as their processor time tells."""


def run(
    node: Node,
    core: int,
    folder: Path,
    cookies: Sequence[str],
    *,
    seconds: float,
    rate: float | None = None,
    connections: int = CONNECTIONS,
) -> Load:
    """One round."""
    listed = folder / "cookies"
    listed.write_text("".join(f"{cookie}\n" for cookie in cookies))
    script = folder / "growth.lua"
    mean = round(connections / rate * 1000) if rate is not None else 0
    script.write_text(_SCRIPT.format(mean=mean, cookies=listed, host=HOST, name=COOKIE))
    command = [machine.tool("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(script)]
    command.append(f"http://127.0.0.1:{node.port}/")
    node.see_that_it_is_well()
    before = [cpu_of([pid]) for pid in node.pids]
    began = perf_counter()
    done = subprocess.run(machine.pinned(core, *command), capture_output=True, text=True, check=False)
    node.see_that_it_is_well()
    used = {pid: cpu_of([pid]) - was for pid, was in zip(node.pids, before, strict=True)}
    seen = read(done.stdout, done.stderr, perf_counter() - began)
    if not lets_in(node.port, cookies[0]):
        raise machine.CannotMeasure(f"nobody is let in any more; see {node.directory}")
    workers = [used[pid] for pid in node.workers]
    return Load(
        seen["requests"] / seen["seconds"],
        seen["p99_us"] / 1000,
        sum(used.values()) / seen["requests"] * 1e6,
        tuple(one / sum(workers) for one in workers),
    )


def read(said: str, complained: str, lasted: float) -> dict[str, float]:
    """What wrk counted. Raises `CannotMeasure` for a round that is void."""
    found = re.search(r"^\{.*\}$", said, re.MULTILINE)
    if found is None:
        raise machine.CannotMeasure(f"wrk said:\n{said}{complained}")
    seen: dict[str, float] = json.loads(found[0])
    if not seen["requests"] or seen["failed"] * 1000 > seen["requests"]:
        raise machine.CannotMeasure(f"{seen['failed']} of {seen['requests']} requests failed")
    if seen["errors"]:
        raise machine.CannotMeasure(f"{seen['errors']} of {seen['requests']} answers were errors")
    each = seen["bytes"] / seen["requests"]
    # Of an answer under way at the end some octets count, and the answer does not.
    if not nginx.BODY_BYTES <= each <= nginx.BODY_BYTES + MOST_BESIDE:
        raise machine.CannotMeasure(f"an answer had {each:.0f} octets, and its body should have 1024")
    if seen["seconds"] > lasted:
        raise machine.CannotMeasure("wrk counted more time than there was")
    return seen
