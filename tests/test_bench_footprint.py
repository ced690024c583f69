"""The footprint bench: what it reads of a process, against processes of which that is known. Sizes are
bounded by what those keep, and nothing is timed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from bench import latency, machine
from bench.figures import rounds
from bench.footprint import Footprint, aims, cpu_of, loop_late, signed_in_like
from bench.inside import Counters, collections, counted
from bench.inside.sitecustomize import COUNTERS
from bench.memory import Door, growth, kept_connections, kept_websockets, transfer_server
from bench.place import free_port
from bench.subject import Running
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.keys import KeyRing, fresh_keys, write_private
from ztproxy.adapters.redis_connection import connect
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.identity import Identity, Session, SessionSecrets
from ztproxy.core.sessions import SessionLimits

KEPT = 128 * 1024

# Keeps so many bytes for each connection; an upgrade, which has no cookie here, keeps twice as many.
KEEPER = f"""
import asyncio
kept = []
async def serve(reader, writer):
    while True:
        head = await reader.readuntil(b"\\r\\n\\r\\n")
        upgrade = b"Upgrade: websocket" in head
        kept.append(b"x" * ({KEPT} * (1 + upgrade)))
        status = b"101 Switching Protocols" if upgrade else b"200 OK\\r\\nContent-Length: 2"
        writer.write(b"HTTP/1.1 " + status + b"\\r\\n\\r\\n" + (b"" if upgrade else b"ok"))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

# Each line that it reads, it runs.
OBEDIENT = """
import sys
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""

compiles = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler: apt-get install gcc libc6-dev"
)


@contextmanager
def child(program: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str], line: str = "") -> str:
    """What it says, after `line` was said to it."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that gives these answers in turn, the last one for ever; and what it was asked."""
    asked: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(left[0] if len(left) == 1 else left.pop(0))
                if b"close" in asked[-1]:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


# -- memory --------------------------------------------------------------------------------------------------


async def test_what_each_connection_and_socket_keeps_is_seen() -> None:
    with child(KEEPER) as process:
        door = Door(process.pid, int(told(process)), {"Host": "app"})
        async with (
            kept_connections(door, 40, 2) as connections,
            kept_websockets(door, "/ws", 20, 1) as sockets,
        ):
            pass
    assert (len(connections), len(sockets)) == (2, 1)
    # Each has a few KiB of asyncio's besides.
    assert all(KEPT <= each < KEPT * 1.5 for each in connections)
    assert all(2 * KEPT <= each < 2 * KEPT * 1.5 for each in sockets)


async def test_connections_that_are_closed_are_not_counted() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        door = Door(os.getpid(), server.sockets[0].getsockname()[1], {})
        with pytest.raises(machine.CannotMeasure, match="closed connections"):
            async with kept_connections(door, 2, 1):
                pytest.fail("was counted")


BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_who_is_busy_is_asked_again() -> None:
    async with answering(BUSY, OK) as (port, asked):
        _, writer = await Door(0, port, {"Host": "app"}).asked({"Host": "app"}, "/a")
        writer.close()
    assert asked == [b"GET /a HTTP/1.1\r\nHost: app\r\n\r\n"] * 2


async def test_who_refuses_is_not() -> None:
    async with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", OK) as (port, asked):
        with pytest.raises(machine.CannotMeasure, match="403"):
            await Door(0, port, {}).asked({})
    assert len(asked) == 1


@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
async def test_a_transfer_is_of_its_size(upload: bool) -> None:
    port = free_port()
    async with transfer_server(port):
        assert await growth(Door(os.getpid(), port, {"Host": "app"}), 3_000_001, upload=upload) >= 0


async def test_a_short_upload_is_seen() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nX-Got: 3\r\nContent-Length: 0\r\n\r\n") as (port, _):
        with pytest.raises(machine.CannotMeasure, match="upload ended"):
            await growth(Door(os.getpid(), port, {}), 4, upload=True)


async def test_a_short_download_is_seen() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc") as (port, _):
        with pytest.raises(machine.CannotMeasure, match="download began"):
            await growth(Door(os.getpid(), port, {}), 4, upload=False)


# -- counted inside a process --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled counters."""
    folder = tmp_path_factory.mktemp("counters")
    latency.compiled("counters", folder, "-shared", "-fPIC")
    return folder


@compiles
def test_blocks_and_collections_of_another_process_are_counted(counters: Path) -> None:
    environment = dict(os.environ)
    with counted(counters), child(OBEDIENT) as process:
        assert told(process, "import gc; gc.disable()") == "done"
        found = Counters.of(process.pid, counters)
        before = found.read()
        assert told(process, "kept = [[] for _ in [None] * 5000]") == "done"
        after = found.read()
        # The names of this line are a few blocks too.
        assert 5000 <= after[0] - before[0] < 5300
        assert after[1] - before[1] >= 5000 * sys.getsizeof([])
        assert told(process, "large = bytes(1_000_000)") == "done"
        large = found.read()
        # The object allocator asks the raw one for so much: it is one block all the same.
        assert 1_000_000 <= large[1] - after[1] < 1_100_000
        found.clear()
        assert told(process, "gc.collect(); gc.collect(); gc.collect(0)") == "done"
        seen = collections(found.read(), 1000)
        assert [seen[generation]["per_thousand"] for generation in "012"] == [1, 0, 2]
        assert seen["2"]["most_ms"] >= seen["2"]["mean_ms"] > 0
        assert told(process, "sys.exit(0)") == ""
        assert process.wait(10) == 0  # it counts to its end, and ends well
    assert dict(os.environ) == environment


def test_a_process_that_counts_nothing(tmp_path: Path) -> None:
    with pytest.raises(machine.CannotMeasure, match="did not take the counters in"):
        Counters.of(os.getpid(), tmp_path)


def test_collections_of_none() -> None:
    assert collections([0] * COUNTERS, 10)["1"] == {"per_thousand": 0, "mean_ms": 0, "most_ms": 0}


# -- an instance by itself -----------------------------------------------------------------------------------


def test_cpu_and_wakes_of_a_process() -> None:
    with child(OBEDIENT) as process:
        assert told(process, "import time") == "done"
        cpu, wakes = cpu_of(process.pid)
        spin = "end = time.thread_time() + 0.05; [0 for _ in iter(lambda: time.thread_time() < end, False)]"
        assert told(process, spin) == "done"
        busy, _ = cpu_of(process.pid)
        assert busy - cpu >= 0.05
        assert told(process, "[time.sleep(0.001) for _ in range(20)]") == "done"
        assert cpu_of(process.pid)[1] - wakes >= 20


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"ztproxy_event_loop_lag_seconds 0.0125\n", id="bare"),
        pytest.param(b'ztproxy_event_loop_lag_seconds{pid="worker-0"} 0.0125\n', id="labelled"),
    ],
)
async def test_the_lateness_of_the_loop_is_read(line: bytes) -> None:
    text = b"# HELP ztproxy_event_loop_lag_seconds 3\nztproxy_event_loop_lag_seconds_old 9\n" + line
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text) as (port, _):
        assert await loop_late(port) == 0.0125


async def test_metrics_without_it() -> None:
    async with answering(OK) as (port, _):
        with pytest.raises(machine.CannotMeasure, match="event loop"):
            await loop_late(port)


# -- sessions ------------------------------------------------------------------------------------------------


async def test_many_are_signed_in_like_the_one_who_is() -> None:
    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as name:
        folder = Path(name)
        write_private(folder / "keys.yaml", fresh_keys())
        ring = KeyRing.load(folder / "keys.yaml")
        signer = SignedHandles(ring.handles)
        with EmbeddedValkey(folder / "state") as valkey:
            client = connect(valkey.url)
            store, now = RedisSessions(client, Sealer(ring.records), SessionLimits()), time.time()
            alice = Identity("https://idp.test", "alice", "alice@corp.test", groups=("staff",))
            session = Session("", alice, "default", now, now, now, now + 3600, rank=2, device="laptop-0")
            handle = await store.create(session, SessionSecrets(), "app.test", None)
            headers = {"Cookie": f"theme=dark; __Host-ztproxy={signer.seal(handle)}"}
            cookies = await signed_in_like(Running("ztproxy", 0, (), headers=headers, directory=folder), 30)
            found = []
            for cookie in cookies:
                opened = signer.open(cookie.removeprefix("__Host-ztproxy="))
                assert opened is not None
                loaded = await store.load(opened)
                assert loaded is not None
                found.append(loaded)
            await client.aclose()
    assert {one.host for one in found} == {"app.test"}
    assert {(one.session.rank, one.session.device, one.session.identity.email) for one in found} == {
        (2, "laptop-0", "alice@corp.test")
    }
    assert len({one.session.identity.subject for one in found}) == 30


# -- figures -------------------------------------------------------------------------------------------------


def test_aims_are_of_the_three_things_that_stay() -> None:
    found: Footprint = {
        "idle_connection": rounds([6 * 1024.0]),
        "idle_tls_connection": rounds([50_000.0]),
        "idle_websocket": rounds([20 * 1024.0 + 300]),
        "cached_session": rounds([1024.0, 1024.0, 9999.0]),
        "transfer": 0,
        "growth_download": None,
        "growth_upload": None,
        "busy": None,
        "start_up_s": rounds([1.0]),
        "idle": {},
        "skipped": {},
    }
    assert [aim.what for aim in aims(found)] == [
        "an idle kept-alive connection",
        "an idle WebSocket",
        "a cached session",
    ]
    assert [(aim.measured, aim.aim, aim.met) for aim in aims(found)] == [
        (6.0, 6, True),
        (pytest.approx(20.29, abs=0.01), 20, False),
        (1.0, 2, True),
    ]
