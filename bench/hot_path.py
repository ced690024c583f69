"""The way of one request through a worker's data plane, with no socket: nothing but our own work.

    python -m bench.hot_path             CPU for a request, in µs
    python -m bench.hot_path --count N   N requests of each kind, between calls of getpgid(2)

It builds what a worker builds (`app.plane`), signs somebody in by telling the witness of a session, and hands
the same octets to both sides of an exchange again and again: the client's head to `Downstream`, the app's
answer to `UpstreamConnection`. Everything in between is real: guard, llhttp, decision by permit, assertion,
rewriting, both logs, metrics. What the kernel, uvloop and Valkey do is not in it; nor is writing the logs,
which threads do. The same instructions run each time, so callgrind can count them: the calls of getpgid are
its marks (`bench.profile`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from math import inf
from pathlib import Path
from typing import cast

import uvloop

from bench.figures import Rounds, rounds
from bench.machine import CannotMeasure
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.adapters.metrics import Metrics
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.app.plane import Builder, close_pools
from ztproxy.app.state import LeasedState, boottime
from ztproxy.config import load
from ztproxy.core.identity import Identity, Session
from ztproxy.core.request import Request
from ztproxy.gateway.judgement import Judgement
from ztproxy.gateway.known import Known
from ztproxy.gateway.watch import Watch
from ztproxy.recorder import FLUSH_EVERY, Recorder
from ztproxy.surfaces.proxy import ProxySurface
from ztproxy.wire.connections import Connections
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.limits import Limits
from ztproxy.wire.upstream import UpstreamConnection

ROUNDS, AT_ONCE, WARM = 7, 4000, 300

_BODY = b"x" * 1024
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 02:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n" + _BODY
)
HEADS = {
    "a load generator's": (
        b"GET / HTTP/1.1\r\nHost: app.localhost:39991\r\nCookie: __Host-ztproxy=%b\r\n\r\n"
    ),
    "a browser's": (
        b"GET /reports/2026/11?page=3 HTTP/1.1\r\nHost: app.localhost:39991\r\nConnection: keep-alive\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 "
        b"Safari/537.36\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
        b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
        b"Cookie: theme=dark; __Host-ztproxy=%b; consent=1\r\nSec-Fetch-Dest: document\r\n"
        b"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n"
        b"Referer: http://app.localhost:39991/reports\r\n\r\n"
    ),
}
"""What a client sends; the cookie's value goes in."""

_STATE = "redis://127.0.0.1:39993/0"  # nobody connects to it, nor to the other ports
_CONFIG = f"""\
listen: 127.0.0.1:39991
provider: {{issuer: "http://127.0.0.1:39992", client_id: bench, client_secret_file: client-secret}}
keys_file: keys.yaml
state_dir: state
admin: off
state: {_STATE}
log: {{access: access.log, decisions: decisions.log, audit: audit.log}}
routes:
  - from: http://app.localhost:39991
    to: http://127.0.0.1:39994
    policy:
      - deny: {{group: suspended}}
      - allow: {{group: [finance, operations], method: [GET, HEAD]}}
      - allow: {{group: engineering, domain: example.com}}
"""


class _Transport(asyncio.Transport):
    """Takes everything at once; counts octets, and keeps the last writes."""

    def __init__(self) -> None:
        super().__init__()
        self.octets = 0
        self.kept: list[bytes] | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.octets += len(data)
        if self.kept is not None:
            self.kept.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 5555) if name == "peername" else default

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class HotPath:
    """One kept connection of a client and one of the app, with the data plane between them."""

    def __init__(self, downstream: Downstream, upstream: UpstreamConnection, cookie: bytes) -> None:
        self._downstream, self._upstream, self._cookie = downstream, upstream, cookie
        self._client, self._app = _Transport(), _Transport()
        downstream.connection_made(self._client)
        upstream.connection_made(self._app)

    def head(self, kind: str) -> bytes:
        """What a signed-in client sends (`HEADS`)."""
        return HEADS[kind] % self._cookie

    def once(self, head: bytes) -> tuple[bytes, bytes]:
        """One request: what the client got, and what the app got before. Raises `CannotMeasure` unless both
        are right."""
        sent: list[bytes] = []
        asked: list[bytes] = []
        self._client.kept, self._app.kept = sent, asked
        try:
            self._downstream.data_received(head)
            self._upstream.data_received(_ANSWER)
        finally:
            self._client.kept = self._app.kept = None
        answer, request = b"".join(sent), b"".join(asked)
        if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"\r\n\r\n" + _BODY):
            raise CannotMeasure(f"the hot path answers: {answer[:200]!r}")
        if b"\r\nx-ztproxy-assertion: ey" not in request.lower() or self._cookie in request:
            raise CannotMeasure(f"the hot path asks the app: {request[:200]!r}")
        return answer, request

    def times(self, count: int, head: bytes) -> None:
        """`count` requests. Raises `CannotMeasure` unless they were answered like one that was looked at:
        with as many octets, to both sides."""
        answer, request = self.once(head)
        client, app = self._client.octets, self._app.octets
        to_us, to_app = self._downstream.data_received, self._upstream.data_received
        for _ in range(count):
            to_us(head)
            to_app(_ANSWER)
        came = (self._client.octets - client, self._app.octets - app)
        if came != (count * len(answer), count * len(request)):
            raise CannotMeasure(f"{count} requests of the hot path came to {came} octets")


@contextlib.asynccontextmanager
async def hot_path(folder: Path) -> AsyncIterator[HotPath]:
    """Ready for requests. `folder`, which is empty, gets the keys and the logs."""
    write_private(folder / "keys.yaml", fresh_keys())
    write_private(folder / "client-secret", "no secret")
    config = folder / "ztproxy.yaml"
    config.write_text(_CONFIG)
    settings, loop = load(config), asyncio.get_running_loop()
    recorder = Recorder(Metrics(), settings.log.access, settings.log.decisions)
    http = provider_session()
    state = LeasedState(
        settings, _STATE, "worker-0", recorder.metrics.revocation, lambda _: None, lambda _: None
    )
    state.keeper.until = inf
    built = Builder(state, http, recorder, loop).build(settings, {})
    (normaliser,), (pool,) = built.normalisers.values(), built.pools.values()
    registry = Connections(loop, Limits())

    async def again(request: Request) -> Judgement | None:
        return await surface.rejudge(request)

    watch = Watch(
        state.keeper,
        registry.under_way,
        again,
        loop,
        time.time,
        boottime,
        settings.revocation.stream_grace,
    )
    surface = ProxySurface(built.plane, watch, recorder.finished, recorder.refused)
    handle, now = "A" * 43, time.time()
    cookie = SignedHandles(built.ring.handles).seal(handle)
    person = Identity(
        "http://127.0.0.1:39992", "alice-sub", "alice@example.com", "Alice", "alice", ("engineering",)
    )
    session = Session(
        "alice-session-id", person, "default", now, now, now, now + 36_000, "mfa", ("pwd", "otp"), 2
    )
    # Read in a time to come, so that it stays fresh and nobody is asked for it again.
    known = Known(handle, "app.localhost", session, None, boottime() + 1e6, inf)
    built.witness.known.learn(cookie, known)
    upstream = UpstreamConnection(pool, pool.targets[0])
    pool.connections.add(upstream)
    pool.targets[0].idle.append(upstream)
    downstream = Downstream(surface, normaliser, registry.limits, False, registry)
    writing = loop.create_task(recorder.keep_writing())
    try:
        yield HotPath(downstream, upstream, cookie.encode("ascii"))
    finally:
        writing.cancel()
        close_pools(built.pools, {})
        await http.close()
        await state.close()
        recorder.close()


async def measure(folder: Path, repeats: int = ROUNDS, at_once: int = AT_ONCE) -> dict[str, Rounds]:
    """µs of CPU for a request, by kind of head. The least of the rounds is the work itself."""
    found = {}
    async with hot_path(folder) as path:
        for kind in HEADS:
            head = path.head(kind)
            path.times(min(WARM, at_once), head)
            _settle()
            taken = []
            for _ in range(repeats):
                begun = time.thread_time()
                path.times(at_once, head)
                taken.append((time.thread_time() - begun) / at_once * 1e6)
                await _logged()
            found[kind] = rounds(taken, 2)
    return found


async def count(folder: Path, requests: int) -> None:
    """For callgrind: `getpgid`, requests of the first kind, `getpgid`, of the second, `getpgid`."""
    async with hot_path(folder) as path:
        heads = [path.head(kind) for kind in HEADS]
        for head in heads:
            path.times(WARM, head)
        _settle()
        await _logged()
        os.getpgid(0)
        for head in heads:
            path.times(requests, head)
            os.getpgid(0)


def _settle() -> None:
    """As a worker does before it serves."""
    gc.collect()
    gc.freeze()


async def _logged() -> None:
    """Until what was logged is with the threads that write it; they would drop what is too much."""
    await asyncio.sleep(2 * FLUSH_EVERY)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.hot_path", description="Our own work for a request."
    )
    parser.add_argument("--count", type=int, metavar="N", help="N requests of each kind, for callgrind")
    parser.add_argument("--json", action="store_true", help="every round, for a program")
    given = parser.parse_args()
    wanted = cast("int | None", given.count)
    with tempfile.TemporaryDirectory(prefix="ztproxy-hot-") as folder:
        if wanted is not None:
            uvloop.run(count(Path(folder), wanted))
            return
        found = uvloop.run(measure(Path(folder)))
        if given.json:
            print(json.dumps(found))
            return
        for kind, taken in found.items():
            print(f"{kind:<20}{min(taken['rounds']):>8.2f} µs  (median {taken['median']:.2f})")


if __name__ == "__main__":
    main()
