"""The bench of growth: its sizes are what they say, its sessions are real, its curves and aims are right.

Nothing is timed. What needs wrk is skipped by name where there is none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest

import ztproxy
from bench import machine
from bench.growth import COOKIE, HOST, curves, house, load
from bench.growth.__main__ import _asking, table, workers_for
from bench.growth.curves import Kind, aims, curve, sizes_of, slope
from bench.growth.filling import ALL_OF, People
from bench.growth.holding import held
from bench.growth.house import Node, Sizes, Store, configuration, groups_of
from bench.growth.load import Load
from bench.growth.measuring import Effort, Measured, Subject, measure
from bench.place import Place
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.keys import KeyRing, fresh_keys, write_private
from ztproxy.adapters.redis_connection import connect
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.config import load as load_config
from ztproxy.config.settings import Settings
from ztproxy.core.conditions import Source
from ztproxy.core.decision import Deny, Forward, decide
from ztproxy.core.evidence import NOT_ASKED, Evidence
from ztproxy.core.identity import Identity, Session
from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.request import Peer, Request
from ztproxy.core.routes import Forwarding, Route
from ztproxy.core.sessions import SessionLimits
from ztproxy.wire.head import parse_request

APP, LIVE = 9001, 9002
READER = Normaliser(Reading(secure=True, cookie=COOKIE))


def settings(tmp_path: Path, sizes: Sizes) -> Settings:
    keys = tmp_path / "keys.yaml"
    if not keys.exists():
        write_private(keys, fresh_keys())
    file = tmp_path / "ztproxy.yaml"
    file.write_text(
        configuration(
            sizes,
            port=8080,
            operations=8081,
            state="unix:///x.sock",
            keys=keys,
            directory=tmp_path,
            app=APP,
            live=LIVE,
        )
    )
    return load_config(file)


def asked(path: str = "/", host: str = HOST) -> Request:
    raw = parse_request(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    request = READER.read(raw, Peer("127.0.0.1", True))  # type: ignore[arg-type]  # it is well formed
    assert isinstance(request, Request)
    return request


def judged(found: Settings, *groups: str, path: str = "/") -> tuple[Route, object]:
    request = asked(path)
    route = found.routes.match(request.host, request.path)
    assert isinstance(route, Route)
    who = Identity(house.ISSUER, "p0", groups=groups, claims=MappingProxyType({}))
    session = Session("s", who, "default", 0.0, 0.0, 0.0, 3600.0)
    return route, decide(route, request, Evidence(session, 1.0, (), NOT_ASKED))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(Sizes(), id="one-of-everything"),
        pytest.param(Sizes(routes=300), id="hosts"),
        pytest.param(Sizes(routes=300, paths=True), id="paths-of-one-host"),
        pytest.param(Sizes(rules=100), id="rules"),
        pytest.param(Sizes(rules=100, by_path=True), id="rules-that-ask-for-the-path"),
        pytest.param(Sizes(told=True), id="all-groups-are-told"),
        pytest.param(Sizes(workers=2), id="workers"),
    ],
)
def test_a_configuration_holds_what_its_sizes_say(tmp_path: Path, sizes: Sizes) -> None:
    found = settings(tmp_path, sizes)
    assert found.warnings == ()
    assert len(found.routes.routes) == sizes.routes + 2  # the WebSocket's, and the version's
    assert found.workers == sizes.workers
    route, decision = judged(found, house.GROUP)
    assert isinstance(decision, Forward)
    assert isinstance(route.action, Forwarding)
    assert route.action.upstream.endpoints[0].port == APP
    assert len(route.policy.rules) == sizes.rules
    assert (route.identity.groups is None) is sizes.told
    socket, decision = judged(found, house.GROUP, path="/ws")
    assert isinstance(socket.action, Forwarding)
    assert isinstance(decision, Forward)
    assert socket.action.upgrades == {"websocket"}
    assert isinstance(judged(found, "other-0")[1], Deny) or sizes.rules > 1


@pytest.mark.parametrize(
    "by_path", [pytest.param(False, id="group"), pytest.param(True, id="group-and-path")]
)
def test_the_last_rule_alone_matches(tmp_path: Path, by_path: bool) -> None:
    found = settings(tmp_path, Sizes(rules=50, by_path=by_path))
    route, _ = judged(found, house.GROUP)
    request = asked()
    who = Identity(house.ISSUER, "p0", groups=groups_of(10))
    facts = Evidence(Session("s", who, "default", 0.0, 0.0, 0.0, 3600.0), 1.0, (), NOT_ASKED)
    assert isinstance(decide(route, request, facts), Forward)
    assert isinstance(judged(found, *groups_of(10)[:-1])[1], Deny)
    # Nobody has a group that an earlier rule asks for; where it asks for the path too, that is another one.
    assert isinstance(judged(found, "other-7")[1], Deny if by_path else Forward)
    assert (Source.PATH in route.policy.reads) is by_path


def test_the_route_that_is_asked_is_the_last_to_match(tmp_path: Path) -> None:
    found = settings(tmp_path, Sizes(routes=40, paths=True))
    of_host = found.routes.of_host(HOST)
    assert len(of_host) == 41
    assert of_host[-1] is found.routes.match(HOST, asked().path)
    assert found.routes.match(HOST, asked("/p38/x").path) is not of_host[-1]


def test_ten_thousand_routes_have_ten_thousand_upstreams() -> None:
    # As text: to load so many takes seconds.
    text = house.routes_of(Sizes(routes=10_000), APP, LIVE)
    lines = text.splitlines()
    assert len(lines) == 10_001
    for part in (1, 3):
        assert len({line.split('"')[part] for line in lines[:10_000]}) == 10_000
    assert not any(f".{octet}." in text or f".{octet}:" in text for octet in range(256, 300))


@pytest.mark.parametrize("count", [1, 2, 5_000])
def test_the_last_of_so_many_groups_is_the_one_asked_for(count: int) -> None:
    groups = groups_of(count)
    assert len(set(groups)) == len(groups) == count
    assert groups[-1] == house.GROUP


@pytest.mark.parametrize("kind", curves.KINDS, ids=lambda kind: kind.name)
def test_every_curve_begins_at_its_least_size_and_can_be_looked_at(kind: Kind) -> None:
    for sizes in (kind.sizes, kind.small):
        assert list(sizes) == sorted(set(sizes))
        assert len(sizes) >= 2
        assert sizes[0] in (0, 1)
    if kind not in (curves.TOLD,):  # what is told is told of one group too
        assert sizes_of(kind, kind.sizes[0]) in (Sizes(), Sizes(by_path=True))


# -- sessions -----------------------------------------------------------------------------------------------


@contextmanager
def valkey(directory: Path) -> Iterator[Store]:
    with EmbeddedValkey(directory) as server:
        assert server.pid is not None
        yield Store(Path(server.url.removeprefix("unix://")), server.pid)


async def test_sessions_in_bulk_are_the_stores_own(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    write_private(keys, fresh_keys())
    ring = KeyRing.load(keys)
    with valkey(tmp_path / "few") as few, valkey(tmp_path / "many") as many:
        known = People(keys).sign_in([(few, 3), (many, 700)], groups=2, sample=20)
        assert set(range(ALL_OF)) <= set(known) <= set(range(700))
        assert len(set(known.values())) == len(known) >= ALL_OF + 5
        signer = SignedHandles(ring.handles)
        for store, size in ((few, 3), (many, 700)):
            client = connect(store.url)
            sessions = RedisSessions(client, Sealer(ring.records), SessionLimits())
            try:
                assert await client.zcard("{ztp}:all") == size
                for number, cookie in known.items():
                    if number >= size:
                        continue
                    handle = signer.open(cookie)
                    assert handle is not None
                    loaded = await sessions.load(handle)
                    assert loaded is not None
                    assert loaded.host == HOST
                    assert loaded.session.identity.subject == f"p{number}"
                    assert loaded.session.identity.groups == groups_of(2)
            finally:
                await client.aclose()
        assert many.memory() > few.memory()


async def test_a_session_that_the_store_refuses_is_told_of(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    write_private(keys, fresh_keys())
    with valkey(tmp_path / "valkey") as store:
        client = connect(store.url)
        try:
            await client.set("{ztp}:all", "not a list of sessions")
        finally:
            await client.aclose()
        with pytest.raises(machine.CannotMeasure, match="WRONGTYPE"):
            People(keys).sign_in([(store, 1)])


def test_one_session_asks_or_some_in_turn_or_any() -> None:
    known = [f"c{number}" for number in range(50_000)]
    assert _asking(curves.SESSIONS, known)() == known[:1]
    assert _asking(curves.IN_TURN, known)() == known[:ALL_OF]
    page = _asking(curves.AT_RANDOM, known)
    first, second, third, again = page(), page(), page(), page()
    assert {*first, *second, *third} == set(known)
    assert not {*first} & {*second}
    assert again == first


# -- figures ------------------------------------------------------------------------------------------------


def taken(at: int, rates: list[float], p99: float = 1.0, cpu_us: float = 50.0) -> Measured:
    return Measured(at, [Load(rate, 9.9, cpu_us) for rate in rates], [Load(100.0, p99, 50.0)], 500.0)


KIND = Kind("it", "things", "of one kind", (1, 10), (1, 10), why="it walks", late="it waits")


def test_a_curve_takes_its_ratio_round_by_round() -> None:
    found = curve(KIND, [taken(1, [100.0, 200.0, 100.0]), taken(10, [90.0, 100.0, 95.0])], {})
    assert found["ratio"] == 0.9
    assert found["what"] == "things"
    assert found["of"] == "of one kind; p99 at 500 requests/s, or what goes"
    assert [point["at"] for point in found["points"]] == [1, 10]
    assert found["points"][0]["rate"] == {"rounds": [100.0, 200.0, 100.0], "median": 100.0, "spread": 0.5}
    assert found["points"][1]["p99_ms"]["median"] == 1.0
    json.dumps(found)
    assert "things" in table(found, [[50.0], [60.0]])


@pytest.mark.parametrize(
    ("ratio", "p99", "cpu_us", "expected"),
    [
        pytest.param(1.0, 1.0, 50.0, "", id="flat"),
        pytest.param(0.95, 1.0, 90.0, "", id="just-flat"),
        pytest.param(0.94, 1.0, 90.0, "throughput: it walks", id="less"),
        pytest.param(1.0, 2.0, 50.0, "p99: it waits", id="later"),
        pytest.param(0.5, 2.0, 90.0, "throughput: it walks. p99: it waits", id="both"),
        pytest.param(1.0, 1.5, 50.0, "", id="a-little-later"),
        pytest.param(
            0.5,
            1.0,
            52.0,
            "throughput: a request took 52 us of processor, and 50 before: others had the core",
            id="somebody-else",
        ),
    ],
)
def test_a_slope_is_explained_where_there_is_one(
    ratio: float, p99: float, cpu_us: float, expected: str
) -> None:
    measured = [taken(1, [100.0]), taken(10, [100.0 * ratio], p99, cpu_us)]
    assert slope(KIND, measured, ratio) == expected


def test_a_size_without_rounds_that_count_is_named() -> None:
    found = curve(KIND, [taken(1, [100.0]), taken(10, [100.0])], {100: "9 of 10 requests failed"})
    assert [point["at"] for point in found["points"]] == [1, 10]
    assert found["slope"] == "at 100 no round counts: 9 of 10 requests failed"
    both = curve(KIND, [taken(1, [100.0]), taken(10, [50.0], cpu_us=99.0)], {100: "so"})
    assert both["slope"] == "throughput: it walks. at 100 no round counts: so"


def test_a_slope_that_nobody_explains_says_so() -> None:
    silent = Kind("it", "things", "", (1, 10), (1, 10))
    measured = [taken(1, [100.0]), taken(10, [50.0], 9.0, 99.0)]
    assert slope(silent, measured, 0.5).count(curves.UNEXPLAINED) == 2
    assert slope(silent, measured[:1], 1.0) == ""


def test_aims_are_of_the_whole_sizes_alone() -> None:
    met = [aim.met for aim in aims({"routes": 0.95, "sessions": 0.949, "workers": 1.8}, {})]
    assert met == [True, False, True]
    unmeasured = aims({}, {"workers": "one core"})
    assert [aim.met for aim in unmeasured] == [None, None, None]
    assert unmeasured[2].why == "one core"


def test_aims_have_their_names() -> None:
    assert [aim.what for aim in aims({}, {})] == [
        "10,000 routes to 1",
        "1,000,000 sessions to 1, one of them asking",
        "two workers to one",
    ]


def test_the_aim_of_sessions_tells_of_many_that_ask() -> None:
    ratios = {"sessions": 0.99, "sessions_in_turn": 0.62, "sessions_at_random": 0.314}
    assert aims(ratios, {})[1].why == "with more of them asking: 256 in turn 0.62, any at random 0.31"
    del ratios["sessions_in_turn"]
    assert aims(ratios, {"sessions": "so"})[1].why == "so; with more of them asking: any at random 0.31"
    assert aims({"sessions": 0.99}, {})[1].why == ""


def said(**changes: float) -> str:
    seen = {"requests": 1000, "seconds": 1.0, "p99_us": 900, "bytes": 1_200_000, "failed": 1, "errors": 0}
    seen |= changes
    return f"Running\n{json.dumps(seen)}\n"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"failed": 2}, "2 of 1000 requests failed", id="failures"),
        pytest.param({"failed": 0, "errors": 1}, "1 of 1000 answers were errors", id="one-error"),
        pytest.param({"requests": 0, "failed": 0}, "requests failed", id="no-answer-at-all"),
        pytest.param({"bytes": 900_000}, "an answer had 900 octets", id="another-answer-shorter"),
        pytest.param({"bytes": 9_000_000}, "an answer had 9000 octets", id="another-answer-longer"),
        pytest.param({"seconds": 3.0}, "more time than there was", id="more-time-than-there-was"),
    ],
)
def test_a_round_that_proves_nothing_is_void(changes: dict[str, float], why: str) -> None:
    assert load.read(said(), "", 1.5)["p99_us"] == 900
    with pytest.raises(machine.CannotMeasure, match=why):
        load.read(said(**changes), "", 1.5)


def test_words_instead_of_figures_are_void() -> None:
    with pytest.raises(machine.CannotMeasure, match="unable to connect"):
        load.read("", "unable to connect", 1.0)


@pytest.mark.parametrize(
    ("count", "limit", "tunnels", "expected"),
    [
        pytest.param(20_000, 100_000, False, 1, id="plenty"),
        pytest.param(10_000, 100_000, True, 1, id="plenty-for-tunnels"),
        pytest.param(20_000, 20_000, False, 3, id="half-of-them-are-kept-for-the-app"),
        pytest.param(10_000, 20_000, True, 2, id="a-tunnel-takes-two"),
        pytest.param(1_000, 1_024, True, 4, id="few"),
    ],
)
def test_as_many_workers_as_have_enough_descriptors(
    count: int, limit: int, tunnels: bool, expected: int
) -> None:
    assert workers_for(count, limit, tunnels=tunnels) == expected


def test_too_few_descriptors_for_any_number_of_workers() -> None:
    with pytest.raises(machine.CannotMeasure, match="ulimit"):
        workers_for(20_000, 150, tunnels=False)


class _Metrics(BaseHTTPRequestHandler):
    """Answers with what the server says."""

    def do_GET(self) -> None:
        assert self.path == "/metrics"
        assert isinstance(self.server, _Operations)
        status, body = self.server.answers[0] if len(self.server.answers) == 1 else self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class _Operations(HTTPServer):
    answers: list[tuple[int, str]]


@contextmanager
def telling(tmp_path: Path, *answers: tuple[int, str]) -> Iterator[Node]:
    """A node of which there are only the metrics."""
    with _Operations(("127.0.0.1", 0), _Metrics) as server, subprocess.Popen(["true"]) as process:
        server.answers = list(answers)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Node(1, server.server_port, tmp_path, "", process)
        server.shutdown()
        thread.join()


def dropped(count: int) -> tuple[int, str]:
    return 200, f"# TYPE ztproxy_log_dropped_total counter\nztproxy_log_dropped_total {count}.0\nother 9\n"


def test_lines_that_were_dropped_are_counted(tmp_path: Path) -> None:
    labelled = 'ztproxy_log_dropped_total{worker="0"} 2\nztproxy_log_dropped_total{worker="1"} 3\n'
    with telling(tmp_path, dropped(7), (200, labelled), (200, "up 1\n"), (500, "")) as node:
        assert [node.lost_lines(), node.lost_lines()] == [7, 5]
        for _ in range(2):
            with pytest.raises(machine.CannotMeasure, match="do not tell of its log"):
                node.lost_lines()
    with pytest.raises(machine.CannotMeasure, match="no metrics"):
        node.lost_lines()


def test_a_load_that_dropped_lines_is_void(tmp_path: Path) -> None:
    with telling(tmp_path, dropped(3), dropped(5)) as node:
        node.see_that_no_line_was_lost(3)  # those were lost before
        with pytest.raises(machine.CannotMeasure, match="2 lines of its logs were dropped"):
            node.see_that_no_line_was_lost(3)


# -- for real -----------------------------------------------------------------------------------------------


NEEDED = ("wrk", "nginx", "taskset", "setpriv")


@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)) or len(os.sched_getaffinity(0)) < 2,
    reason=f"two cores and {', '.join(NEEDED)} are needed: apt-get install wrk nginx-light util-linux",
)
def test_a_small_size_for_real(tmp_path: Path) -> None:
    place, tree = Place(*machine.cores(), tmp_path), tmp_path / "another-build"
    tree.mkdir()
    (tree / "ztproxy").symlink_to(Path(ztproxy.__file__).parent)
    with house.running(place, tree) as built, house.store(place, "s") as store:
        cookie = People(built.keys).sign_in([(store, 1)])[0]
        with built.node(Sizes(rules=3, by_path=True), store, cookie) as node:
            assert house.ask(node.port, "v1.forged")[0] != 200
            with held(place.load_core, node.port, 5, "ws", cookie):
                assert house.clients_of(node.workers[0], node.port) == 5
                subject = Subject(5, node, partial(list, (cookie,)))
                effort = Effort(rounds=1, seconds=1, paced=1, warm=0)
                forger = Subject(6, node, partial(list, ("v1.forged",)))
                (measured,), void = measure(place.load_core, tmp_path, [subject, forger], effort)
            assert node.lost_lines() == 0
            assert (tmp_path / "node-1" / "access.log").stat().st_size > 0
            assert measured.full[0].rate > 0
            assert measured.full[0].cpu_us > 0
            assert measured.full[0].shares == (1.0,)
            assert list(void) == [6]
            assert re.search("errors|octets", void[6])
            forged = held(place.load_core, node.port, 1, "ws", "v1.forged")
            with pytest.raises(machine.CannotMeasure, match="not 101"), forged:
                pass
            took, longest = house.reloaded(node, cookie)
            assert 0 < longest <= took < house.START
