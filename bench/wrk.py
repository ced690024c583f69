"""wrk: as much as goes, or at a given rate.

The rate is kept by thinking time: each connection waits a random while before its next request. The waiting
is not part of the latency. wrk prints little, so a script of ours says the figures as one JSON line.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import machine

CONNECTIONS = 64

_SCRIPT = """\
local mean = {mean}
if mean > 0 then
  function delay() return math.random(0, 2 * mean) end
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{{"requests": %d, "seconds": %f, "p50_us": %d, "p99_us": %d, "failed": %d}}\\n',
    summary.requests, summary.duration / 1000000, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of wrk saw."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float


def run(
    core: int,
    port: int,
    headers: Mapping[str, str],
    directory: Path,
    *,
    seconds: int,
    rate: float | None = None,
) -> Load:
    """Loads the port for some seconds. Raises `CannotMeasure` if one request in a thousand failed."""
    mean = round(CONNECTIONS / rate * 1000) if rate is not None else 0
    script = directory / "wrk.lua"
    script.write_text(_SCRIPT.format(mean=mean))
    command = [machine.tool("wrk", "wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{port}/")
    done = subprocess.run(machine.pinned(core, *command), capture_output=True, text=True, check=False)
    found = re.search(r"^\{.*\}$", done.stdout, re.MULTILINE)
    if found is None:
        raise machine.CannotMeasure(f"wrk said:\n{done.stdout}{done.stderr}")
    seen = json.loads(found[0])
    if seen["failed"] * 1000 > seen["requests"] or not seen["requests"]:
        raise machine.CannotMeasure(f"{seen['failed']} of {seen['requests']} requests failed")
    return Load(seen["requests"] / seen["seconds"], seen["p50_us"] / 1000, seen["p99_us"] / 1000)
