"""Which endpoint gets a request, how many connections there are, and what failures do."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from collections import Counter

import pytest
import trustme

from tests.wire.recording import OK, Line, Recording, answers, answers_once, silent
from tests.wire.world import world
from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import Balance, Ejection, Endpoint, Timeouts, Upstream, UpstreamTLS
from ztproxy.wire.pool import LONGEST_EJECTION, Pool

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"


def endpoints(*weights: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"10.0.0.{n}", 80, weight) for n, weight in enumerate(weights, 1))


def pool(*weights: int, balance: Balance = Balance.ROUND_ROBIN, ejection: Ejection | None = None) -> Pool:
    upstream = Upstream(endpoints(*weights), balance=balance, ejection=ejection)
    return Pool(upstream, None, asyncio.get_running_loop())


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        pytest.param((1, 1), [6, 6], id="equal"),
        pytest.param((2, 1), [8, 4], id="weighted"),
        pytest.param((4, 1, 1), [8, 2, 2], id="three"),
    ],
)
async def test_round_robin(weights: tuple[int, ...], counts: list[int]) -> None:
    it = pool(*weights)
    chosen = Counter(it._choose(()).endpoint.host for _ in range(12))
    assert [chosen[target.endpoint.host] for target in it.targets] == counts


async def test_round_robin_is_smooth() -> None:
    it = pool(2, 1)
    assert [it._choose(()).endpoint.host[-1] for _ in range(6)] == list("121121")


async def test_least_requests() -> None:
    it = pool(1, 1, 2, balance=Balance.LEAST_REQUESTS)
    one, two, three = it.targets
    one.active, two.active, three.active = 2, 1, 3
    assert it._choose(()) is two
    two.active = 2
    assert it._choose(()) is three, "3 on weight 2 is less than 2 on weight 1"
    one.active = two.active = three.active = 0
    assert {it._choose(()) for _ in range(8)} == {one, two, three}


async def test_an_ejected_endpoint_is_skipped_unless_all_are() -> None:
    it = pool(1, 1, ejection=Ejection(failures=2, seconds=100.0))
    one, two = it.targets
    it.blame(one, Reason.UPSTREAM_UNREACHABLE)
    assert one.ejected_until == 0.0
    it.blame(one, Reason.UPSTREAM_UNREACHABLE)
    assert {it._choose(()) for _ in range(4)} == {two}
    two.ejected_until = one.ejected_until
    assert {it._choose(()) for _ in range(4)} == {one, two}
    one.ejected_until = 0.0
    two.ejected_until = 0.0
    one.healthy = False
    assert {it._choose(()) for _ in range(4)} == {two}
    assert it.failures == {Reason.UPSTREAM_UNREACHABLE: 2}


async def test_ejections_grow_to_a_bound() -> None:
    it = pool(1, 1, ejection=Ejection(failures=1, seconds=100.0))
    target = it.targets[0]
    lengths = []
    for _ in range(6):
        it.blame(target, Reason.UPSTREAM_TIMEOUT)
        lengths.append(round((target.ejected_until - it.clock()) / 100.0))
    assert lengths == [1, 2, 4, 8, 8, 8]
    assert lengths[-1] == LONGEST_EJECTION


async def test_a_dead_endpoint_is_passed_over_within_one_request() -> None:
    async with world(dead=2) as it:
        for _ in range(3):
            assert (await it.ask(GET)).status == 200
        assert it.pool.connect_failures >= 2
        assert it.stage.over[0].upstream == f"127.0.0.1:{it.app.port}"


async def test_a_failing_endpoint_is_put_aside_and_comes_back() -> None:
    async with world(answers_once(b"HTTP/1.1 xx"), more=[Recording()], ejection=Ejection(1, 0.2)) as it:
        statuses = [(await it.ask(GET)).status for _ in range(6)]
        assert statuses.count(502) == 1
        assert it.pool.ejections == 1
        it.app.plays = [answers(OK)]
        await asyncio.sleep(0.25)
        before = len(it.app.lines)
        for _ in range(2):
            assert (await it.ask(GET)).status == 200
        assert len(it.app.lines) == before + 1


async def test_over_max_connections_is_busy_and_nothing_waits() -> None:
    async with world(silent, max_connections=1) as it:
        first = await it.client()
        await first.send(GET)
        await it.until(lambda: it.app.received)
        answer = await it.ask(GET)
        assert (answer.status, it.stage.over[0].failure) == (503, Reason.UPSTREAM_BUSY)
        assert it.pool.busy == 1


async def test_an_idle_connection_makes_room_for_another_endpoint() -> None:
    async with world(more=[Recording()], max_connections=1) as it:
        for _ in range(4):
            assert (await it.ask(GET)).status == 200
        assert all(app.lines for app in it.apps)


async def test_idle_connections_end_with_their_keep_alive() -> None:
    async with world(keep_alive=0.1) as it:
        await it.ask(GET)
        assert len(it.pool.connections) == 1
        await it.until(lambda: not it.pool.connections)
        assert it.pool.targets[0].idle == []
        assert it.pool.targets[0].active == 0


async def test_an_app_that_closes_an_idle_connection_is_asked_on_a_new_one() -> None:
    async with world(answers_once(OK)) as it:
        client = await it.client()
        for _ in range(3):
            assert (await client.ask(GET)).status == 200
            await it.until(lambda: not it.pool.connections)
        assert it.pool.retries == 0


async def test_a_request_that_cannot_be_sent_twice_looks_before_it_leaps() -> None:
    """The app's end has reached our kernel but not yet our loop."""
    async with world() as it:
        await it.ask(GET)
        (connection,) = it.pool.connections
        connection.transport.pause_reading()
        it.app.lines[0].close()
        await it.app.lines[0]._writer.wait_closed()
        await asyncio.sleep(0.05)
        assert (await it.ask(GET.replace(b"GET", b"POST"))).status == 200
        assert len(it.app.lines) == 2


async def test_close_lets_the_answer_end() -> None:
    async def play(line: Line) -> None:
        await line.request()
        await asyncio.sleep(0.1)
        await line.send(OK)

    async with world(play) as it:
        client = await it.client()
        await client.send(GET)
        await it.until(lambda: it.app.received)
        it.pool.close()
        assert (await client.answer()).status == 200
        await it.until(lambda: not it.pool.connections)
        assert (await client.ask(GET)).status == 502


async def test_close_while_connecting() -> None:
    async with world() as it:
        it.stage.act = lambda exchange: (it.stage.forward(exchange), it.pool.close())
        assert (await it.ask(GET)).status == 200
        assert not it.pool.connections
        assert (await it.ask(GET)).status == 502, "a closed pool opens nothing"


async def test_a_client_that_leaves_while_we_connect_leaves_an_idle_connection() -> None:
    async with world() as it:
        client = await it.client()
        it.stage.act = lambda exchange: (it.stage.forward(exchange), exchange.abort())
        await client.send(GET)
        assert await client.rest() == b""
        await it.until(lambda: it.pool.targets[0].idle)
        assert it.app.received == b""
        assert it.pool.targets[0].active == 0


async def test_connect_time_out() -> None:
    async def never(line: Line) -> None:
        await line.more()

    async with world(never, timeouts=Timeouts(connect=0.2)) as it:
        # A listener that never shakes hands: TLS towards an app that stays silent.
        upstream = Upstream(
            (Endpoint("127.0.0.1", it.app.port),), tls=UpstreamTLS(), timeouts=Timeouts(connect=0.2)
        )
        it.pool.close()
        it.pool = Pool(upstream, ssl.create_default_context(), asyncio.get_running_loop())
        assert (await it.ask(GET)).status == 504


async def test_an_app_is_not_put_aside_because_we_have_no_descriptors() -> None:
    """(FI38)"""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with world(ejection=Ejection(failures=1, seconds=60)) as it:
        client = await it.client()
        await it.until(lambda: len(it.registry) == 1)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
        try:
            answer = await client.ask(GET)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert (answer.status, answer.body) == (503, Reason.OVERLOADED.sentence.encode() + b"\n")
        assert it.stage.over[-1].failure is Reason.OVERLOADED
        (target,) = it.pool.targets
        assert (target.failures, target.ejections) == (0, 0)
        assert (await client.ask(GET)).status == 200


async def test_tls_needs_a_context() -> None:
    with pytest.raises(ValueError, match="context"):
        Pool(Upstream(endpoints(1), tls=UpstreamTLS()), None, asyncio.get_running_loop())


@pytest.mark.parametrize(
    ("server_name", "status"),
    [
        pytest.param("app.internal", 200, id="the name to check is given"),
        pytest.param("other.internal", 502, id="another name is refused"),
        pytest.param(None, 502, id="the endpoint's own name is not in the certificate"),
    ],
)
async def test_tls(server_name: str | None, status: int) -> None:
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("app.internal").configure_cert(served)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with world() as it:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=served)
        port = server.sockets[0].getsockname()[1]
        upstream = Upstream((Endpoint("127.0.0.1", port),), tls=UpstreamTLS(server_name=server_name))
        it.pool.close()
        it.pool = Pool(upstream, trusted, asyncio.get_running_loop())
        assert (await it.ask(GET)).status == status
        server.close()
