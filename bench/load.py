"""The clients of a bench: wrk and h2load for requests, our own for WebSocket messages; and CPU time.

Knows: how each is told what to send, and how to read what it says. Promises: a figure is of right answers
only. No answer may be an error, not one request in a thousand may go without an answer, and what came for
each must weigh what the right answer weighs: to wrk a redirect to a sign-in page is a success, and only its
size tells. With `exact`, wrk looks at status
and body of every single answer; that slows it, so it is for warming up. Leaves to the caller to find out what
the right answer is (`ask`), once, and which core a client has.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from bench import machine

CONNECTIONS = 64
"""Where nothing else is said."""

OFF = 0.01
"""By how much the average answer may weigh less or more than the right one: dates and counters in heads."""

_PATIENCE = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")

_SCRIPT = """\
wrk.method = "{method}"
if {upload} > 0 then wrk.body = string.rep("x", {upload}) end
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init() seen = 0; wrong = 0; example = "" end
if {exact} then
  function response(status, headers, body)
    seen = seen + 1
    if status ~= {status} or #body ~= {size} then
      wrong = wrong + 1
      example = status .. " with " .. #body .. " bytes"
    end
  end
end
function done(summary, latency, requests)
  local errors, thread = summary.errors, threads[1]
  io.write(string.format(
    '{{"requests": %d, "seconds": %f, "bytes": %.0f, "p50_us": %d, "p99_us": %d, "failed": %d, ' ..
    '"errors": %d, "seen": %d, "wrong": %d, "example": "%s"}}\\n',
    summary.requests, summary.duration / 1000000, summary.bytes,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    thread:get("seen"), thread:get("wrong"), thread:get("example")))
end
"""

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


class Answer(NamedTuple):
    """`weight`: the bytes that came over the wire for it, with its head."""

    status: int
    body: bytes
    weight: int


class Load(NamedTuple):
    """What a client saw. `bytes` are those it read; the milliseconds are of all requests (wrk alone says)."""

    requests: int
    seconds: float
    bytes: int = 0
    failed: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def ask(
    port: int, path: str, headers: Mapping[str, str], *, upload: bytes | None = None, tls: bool = False
) -> Answer:
    """A GET, or a POST of `upload`, as wrk writes it, on a connection of its own. Raises `CannotMeasure`
    where no whole answer comes. Blocks."""
    lines = [f"{'GET' if upload is None else 'POST'} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in {"Host": "localhost", **headers}.items()]
    if upload is not None:
        lines.append(f"Content-Length: {len(upload)}")
    request = "\r\n".join([*lines, "\r\n"]).encode("latin-1") + (upload or b"")
    try:
        with _connected(port, tls) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                head = b"".join(takewhile(lambda line: line != b"\r\n", answer))
                status, length = int(head[9:12]), _LENGTH.search(head)
                size = int(length[1]) if length else 0
                body = answer.read(size)
    except (OSError, ValueError) as error:
        raise machine.CannotMeasure(f"port {port} does not answer `{path}`: {error!r}") from error
    if length is None and status != 204:
        raise machine.CannotMeasure(f"port {port} answers `{path}` without a length: {head!r}")
    if len(body) != size:
        raise machine.CannotMeasure(f"port {port} breaks `{path}` off after {len(body)} bytes")
    return Answer(status, body, len(head) + 2 + size)


def _connected(port: int, tls: bool) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    if not tls:
        return plain
    context = ssl.create_default_context()
    # As wrk and h2load do: whoever answers is taken for who was meant.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname="localhost")


def wrk(
    core: int,
    port: int,
    path: str,
    headers: Mapping[str, str],
    folder: Path,
    *,
    seconds: int,
    connections: int,
    right: Answer,
    upload: int = 0,
    tls: bool = False,
    exact: bool = False,
) -> Load:
    """As much as goes. `upload`: how many bytes each request POSTs, 0 for a GET. Raises `CannotMeasure`
    unless the answers are like `right`. Blocks."""
    script = folder / f"wrk-{port}.lua"
    script.write_text(
        _SCRIPT.format(
            method="POST" if upload else "GET",
            upload=upload,
            exact="true" if exact else "false",
            status=right.status,
            size=len(right.body),
        )
    )
    command = [machine.tool("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http{'s' if tls else ''}://127.0.0.1:{port}{path}")
    return read_wrk(_said(core, command), right, connections)


def read_wrk(said: str, right: Answer, connections: int) -> Load:
    found = re.search(r"^\{.*\}$", said, re.MULTILINE)
    if found is None:
        raise machine.CannotMeasure(f"wrk said:\n{said}")
    seen = json.loads(found[0])
    if seen["wrong"]:
        raise machine.CannotMeasure(
            f"{seen['wrong']} of {seen['seen']} answers were wrong: {seen['example']} instead of "
            f"{right.status} with {len(right.body)}"
        )
    if seen["errors"]:
        raise machine.CannotMeasure(
            f"{seen['errors']} of {seen['requests']} answers were errors (400 or above)"
        )
    load = Load(
        *(seen["requests"], seen["seconds"], seen["bytes"], seen["failed"]),
        *(seen["p50_us"] / 1000, seen["p99_us"] / 1000),
    )
    return _right(load, right, connections)


def h2load(
    core: int,
    port: int,
    path: str,
    headers: Mapping[str, str],
    *,
    requests: int,
    connections: int,
    right: Answer,
) -> Load:
    """So many requests by HTTP/1.1 over TLS; the rest as for `wrk`. A number, for by the clock it does not
    end (nghttp2 1.52, `--h1 -D`)."""
    command = [machine.tool("h2load", "nghttp2-client"), "--h1", "-t1", f"-c{connections}", f"-n{requests}"]
    for name, value in headers.items():
        # It writes a Host of its own beside any other field of that name.
        command += ["-H", f"{':authority' if name == 'Host' else name}: {value}"]
    command.append(f"https://127.0.0.1:{port}{path}")
    return read_h2load(_said(core, command), right, connections)


def read_h2load(said: str, right: Answer, connections: int) -> Load:
    took = re.search(r"^finished in ([\d.]+)(us|ms|s),", said, re.MULTILINE)
    done = re.search(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed", said, re.MULTILINE)
    codes = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said, re.MULTILINE)
    traffic = re.search(r"^traffic: \S+ \((\d+)\) total", said, re.MULTILINE)
    if not (took and done and codes and traffic):
        raise machine.CannotMeasure(f"h2load said:\n{said}")
    good, *bad = map(int, codes.groups())
    requests, failed = int(done[1]), int(done[3])
    if any(bad):
        raise machine.CannotMeasure(f"of {requests} requests only {good} were let through: {codes[0]}")
    unit = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[took[2]]
    return _right(Load(requests, float(took[1]) * unit, int(traffic[1]), failed), right, connections)


def messages(
    core: int, port: int, path: str, headers: Mapping[str, str], *, seconds: float, sockets: int
) -> Load:
    """Each of so many WebSockets sends a message of 64 bytes, waits for its echo, and sends the next.
    `requests` are the echoes. Raises `CannotMeasure` for one that differs, and where one is not let in."""
    asked = {"port": port, "path": path, "headers": dict(headers), "seconds": seconds, "sockets": sockets}
    said = _said(core, [sys.executable, "-m", "bench.load_websockets", json.dumps(asked)])
    try:
        seen = json.loads(said)
        return Load(seen["messages"], seen["seconds"])
    except (ValueError, KeyError) as error:
        raise machine.CannotMeasure(f"the WebSockets ended: {said}") from error


def cpu_seconds(pids: Iterable[int]) -> float:
    """What these processes have had so far, user and system, all their threads together, to 10 ms each."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError as error:
            raise machine.CannotMeasure(f"process {pid}, which was measured, has ended") from error
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def _said(core: int, command: list[str]) -> str:
    done = subprocess.run(machine.pinned(core, *command), capture_output=True, text=True, check=False)
    return done.stdout if not done.returncode else f"{done.stdout}{done.stderr}"


def _right(load: Load, right: Answer, connections: int) -> Load:
    if load.failed * 1000 > load.requests or not load.requests:
        raise machine.CannotMeasure(f"{load.failed} of {load.requests} requests failed")
    # What is on its way at the end is counted by its bytes and not as a request.
    least, most = (
        load.requests * right.weight * (1 - OFF),
        (load.requests * (1 + OFF) + connections) * right.weight,
    )
    if not least <= load.bytes <= most:
        raise machine.CannotMeasure(
            f"{load.bytes / load.requests:,.0f} bytes came for each request, and the right answer has "
            f"{right.weight:,}: these were other answers"
        )
    return load
