"""The constant-rate bench: its generator against small servers, and what is made of its records. Nothing is
timed but by the servers' own clocks."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import latency, machine
from bench.figures import rounds
from bench.latency import Generator, Run, aims, percentile, summed_up
from bench.peers import Peer, Upstream
from bench.place import Place

BODY = b"x" * 1024
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n" + BODY
MS = 1_000_000

compiles = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler: apt-get install gcc libc6-dev"
)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(tmp_path_factory.mktemp("pace"), patience=0.3)


@dataclass
class Server:
    """Answers every request with the same bytes, in `pieces`; stands still for `stall` seconds at request
    number `stalls_at`, all of it, and notes when."""

    answer: bytes = GOOD
    pieces: int = 1
    stalls_at: int = -1
    stall: float = 0.0
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    stood_still: tuple[int, int] = (0, 0)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        ended: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ended.append(writer)
            while True:
                try:
                    self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                except (asyncio.IncompleteReadError, ConnectionError):
                    return
                if len(self.requests) == self.stalls_at:
                    begun = time.monotonic_ns()
                    time.sleep(self.stall)  # noqa: ASYNC251 (everybody waits: that is what is tested)
                    self.stood_still = begun, time.monotonic_ns()
                if not self.answer:
                    writer.close()
                    return
                size = -(-len(self.answer) // self.pieces)
                for first in range(0, len(self.answer), size):
                    writer.write(self.answer[first : first + size])
                    await asyncio.sleep(0)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            try:
                yield
            finally:
                for writer in ended:
                    writer.close()


async def paced(generator: Generator, server: Server, count: int = 30, interval: int = MS) -> Run:
    async with server.serving():
        return await asyncio.to_thread(
            lambda: generator.run(
                None, server.port, {"Host": "app"}, count=count, interval=interval, connections=4
            )
        )


@compiles
@pytest.mark.parametrize("pieces", [1, 3, 150], ids=["whole", "in-three", "in-crumbs"])
async def test_each_request_is_due_at_its_time_and_answered_once(generator: Generator, pieces: int) -> None:
    server = Server(pieces=pieces)
    run = await paced(generator, server)
    assert server.requests == [b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"] * 30
    assert [due - run.due[0] for due in run.due] == [MS * number for number in range(30)]
    assert all(due <= sent <= done for due, sent, done in zip(run.due, run.sent, run.done, strict=True))
    assert len(run.latencies()) == 30
    assert len(run.latencies(10)) == 20


@compiles
async def test_a_server_that_stands_still_is_charged_with_all_that_was_due(generator: Generator) -> None:
    server = Server(stalls_at=50, stall=0.2)
    run = await paced(generator, server, count=400)
    begun, ended = server.stood_still
    in_it = [number for number in range(400) if begun <= run.due[number] < ended]
    # One a millisecond: a closed model would have no more than one for each of the four connections.
    assert len(in_it) >= 199
    assert all(run.done[number] >= ended for number in in_it)
    charged = sum((ended - run.due[number]) / MS for number in in_it)
    assert sum(run.latencies()) >= charged >= 100 * 199
    # They waited for the server and not for the generator, whose own lateness does not count them.
    waited = sum(run.waited[number] for number in in_it)
    assert waited >= len(in_it) - 4
    assert len(run.late()) == 400 - sum(run.waited)


@compiles
async def test_without_an_interval_it_goes_as_fast_as_it_is_answered(generator: Generator) -> None:
    run = await paced(generator, Server(), count=200, interval=0)
    assert len(set(run.due)) == 1
    in_flight = [
        sum(1 for sent, done in zip(run.sent, run.done, strict=True) if sent <= at < done) for at in run.sent
    ]
    assert max(in_flight) <= 4


@compiles
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(
            GOOD.replace(b"200 OK", b"503 Away"), "answered: HTTP/1.1 503 Away", id="another-status"
        ),
        pytest.param(b"HTTP/1.1 2000 OK\r\nContent-Length: 1024\r\n\r\n", "HTTP/1.1 2000", id="no-status"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "length of 3 instead of 1024",
            id="another-length",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "length of -1", id="no-length"
        ),
        pytest.param(GOOD + b"x", "more than its length|without being asked", id="too-much"),
        pytest.param(GOOD[:-1], "without an answer", id="too-little"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", "without an answer", id="half-a-head"),
        pytest.param(b"x" * 20_000, "an endless head", id="an-endless-head"),
        pytest.param(b"", "was closed before its answer", id="nothing"),
    ],
)
async def test_one_wrong_answer_makes_a_run_void(generator: Generator, answer: bytes, why: str) -> None:
    with pytest.raises(machine.CannotMeasure, match=why):
        await paced(generator, Server(answer))


@compiles
def test_nobody_there(generator: Generator) -> None:
    with pytest.raises(machine.CannotMeasure, match="cannot connect"):
        generator.run(None, 1, {}, count=1, interval=0)


@compiles
async def test_direct_and_through_are_measured_at_both_shares(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Effort:
        seconds: float = 0.1
        rounds: int = 1

    core = min(os.sched_getaffinity(0))
    app, proxy = Server(), Server()
    async with app.serving(), proxy.serving():
        found = await latency.measure(
            Place(core, core, tmp_path),
            Effort(),
            Upstream(app.port, 0),
            Peer("ztproxy", proxy.port, (), headers={"Host": "app", "Cookie": "a=b"}),
            200.0,
        )
    assert [(one["share"], one["requests_per_second"]) for one in found] == [(0.5, 100.0), (0.8, 160.0)]
    # What warms up is sent as well: 0.3 s before each 0.1 s.
    assert len(app.requests) == len(proxy.requests) == (30 + 10) + (48 + 16)
    assert set(proxy.requests) == {b"GET / HTTP/1.1\r\nHost: app\r\nCookie: a=b\r\n\r\n"}
    for one in found:
        for part in (one["direct"], one["through"], one["added"]):
            assert {name: len(part[name]["rounds"]) for name in part} == {"p50": 1, "p99": 1, "p99.9": 1}
        assert {way: len(shares["rounds"]) for way, shares in one["waited"].items()} == {
            "direct": 1,
            "through": 1,
        }


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(machine.CannotMeasure, match="apt-get install gcc"):
        Generator(tmp_path)


async def test_without_a_compiler_the_rest_of_the_bench_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    monkeypatch.setenv("PATH", str(bin))
    skipped: dict[str, str] = {}
    place, ours = Place(0, 0, tmp_path), Peer("ztproxy", 1, ())
    found = await bench.paced(place, latency.QUICK, Upstream(1, 1), ours, 100.0, skipped)
    assert found == []
    assert "`cc` is missing: apt-get install gcc libc6-dev" in skipped["latency"]
    (aim,) = aims([], skipped["latency"])
    assert (aim.what, aim.measured, aim.met) == ("added p99 at half load", None, None)
    assert aim.why == skipped["latency"]
    assert "without latency" in capsys.readouterr().out


@compiles
def test_a_source_that_does_not_compile_says_why(tmp_path: Path) -> None:
    with pytest.raises(machine.CannotMeasure, match=r"`pace\.c` cannot be compiled: .*no-such-option"):
        latency.compiled("pace", tmp_path, "--no-such-option")


@pytest.mark.parametrize(
    ("ordered", "share", "expected"),
    [
        pytest.param([], 0.99, 0.0, id="none"),
        pytest.param([7], 0.5, 7, id="one"),
        pytest.param([1, 2], 0.5, 1, id="two"),
        pytest.param(range(1, 101), 0.99, 99, id="ninety-nine-of-a-hundred"),
        pytest.param(range(1, 100), 0.99, 99, id="fewer-than-a-hundred-is-the-worst"),
        pytest.param(range(1, 2001), 0.999, 1998, id="of-two-thousand"),
    ],
)
def test_percentile(ordered: Sequence[float], share: float, expected: float) -> None:
    assert percentile(ordered, share) == expected


def test_lateness_is_of_what_had_a_connection() -> None:
    run = Run([0, MS, 2 * MS], [2 * MS, 9 * MS, 3 * MS], [3 * MS, 10 * MS, 7 * MS], [0, 1, 0])
    assert run.latencies() == [3.0, 5.0, 9.0]
    assert run.late() == [1.0, 2.0]
    assert run.late(1) == [1.0]
    assert (run.waiting(), run.waiting(1), run.waiting(2), run.waiting(3)) == (1 / 3, 0.5, 0.0, 0.0)


def figures(
    *, lates: dict[str, list[float]] | None = None, waits: dict[str, list[float]] | None = None
) -> latency.Paced:
    """Two rounds: 0.5 ms and then 2 ms added to each request."""
    direct = [[1.0] * 100, [2.0] * 100]
    through = [[1.5] * 100, [4.0] * 100]
    lates = {"direct": [0.1, 0.1], "through": [0.1, 0.1]} if lates is None else lates
    waits = {"direct": [0.0, 0.001], "through": [0.0, 0.9]} if waits is None else waits
    return summed_up(0.5, 1234.56, {"direct": direct, "through": through}, lates, waits)


def test_what_is_added_is_taken_round_by_round() -> None:
    found = figures()
    assert found["requests_per_second"] == 1234.6
    for name in ("p50", "p99", "p99.9"):
        assert found["added"][name] == {"rounds": [0.5, 2.0], "median": 1.25, "spread": 0.75}
    assert not found["doubts"]


def test_a_generator_that_was_late_itself_is_told_of() -> None:
    found = figures(lates={"direct": [0.1, 0.29], "through": [0.1, 0.31]})
    (doubt,) = found["doubts"]
    assert doubt.startswith("round 2 through at 50% of the maximum is doubtful")
    assert found["late"]["through"] == rounds([0.1, 0.31], 3)


@pytest.mark.parametrize(
    ("direct", "through", "said"),
    [
        pytest.param([0.01, 0.009], [1.0, 1.0], "", id="only-the-proxy-was-slow"),
        pytest.param(
            [0.4, 0.2],
            [0.0, 0.0],
            "at 1,235 requests/s direct had no free connection for 30%: generator and app were the bound, "
            "and what is added says nothing",
            id="so-was-the-app",
        ),
    ],
)
def test_a_rate_at_which_the_app_was_the_bound_is_told_of(
    direct: list[float], through: list[float], said: str
) -> None:
    found = figures(waits={"direct": direct, "through": through})
    assert found["waited"] == {"direct": rounds(direct, 4), "through": rounds(through, 4)}
    assert found["doubts"] == ([said] if said else [])
    (aim,) = aims([found])
    assert aim.why == said


def test_the_aim_is_for_half_load() -> None:
    (aim,) = aims([figures()])
    assert (aim.measured, aim.aim, aim.unit, aim.met) == (1.25, 1.0, "ms", False)
    other = figures()
    other["share"] = 0.8
    (aim,) = aims([other])
    assert aim.met is None
    assert aim.why
