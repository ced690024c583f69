"""How many may connect, how a worker drains, and the small things all connections share."""

from __future__ import annotations

import asyncio

import pytest

from tests.wire.recording import OK, Line, silent
from tests.wire.world import world
from ztproxy.core.reasons import Reason
from ztproxy.wire.connections import Connections, Ticker
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(Limits(connections=2), id="in total"),
        pytest.param(Limits(connections_per_address=2), id="per address"),
    ],
)
async def test_one_too_many(limits: Limits) -> None:
    async with world(limits=limits) as it:
        first, second = await it.client(), await it.client()
        for client in (first, second):
            assert (await client.ask(GET)).status == 200
        third = await it.client()
        answer = await third.answer()
        assert (answer.status, answer["connection"]) == (503, "close")
        assert await third.rest() == b""
        assert it.stage.reasons == [Reason.TOO_MANY_CONNECTIONS]
        assert (it.registry.accepted, it.registry.refused, len(it.registry)) == (2, 1, 2)
        first.close()
        await it.until(lambda: len(it.registry) == 1)
        assert (await it.ask(GET)).status == 200


async def test_an_address_from_the_proxy_protocol_is_the_one_that_counts() -> None:
    async with world(limits=Limits(connections_per_address=1)) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], exchange.request.peer.address.encode())
        numbers = iter(range(1, 9))

        def factory() -> Downstream:
            connection = Downstream(it.stage, it.normaliser, it.limits, False, it.registry)
            connection.peer_address = f"203.0.113.{next(numbers)}"
            return connection

        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
        it.port = server.sockets[0].getsockname()[1]
        assert [(await it.ask(GET)).body for _ in range(2)] == [b"203.0.113.1", b"203.0.113.2"]
        server.close()


async def test_drain() -> None:
    async def slow(line: Line) -> None:
        await line.request()
        await asyncio.sleep(0.1)
        await line.send(OK)

    async with world(slow) as it:
        idle, busy = await it.client(), await it.client()
        await busy.send(GET)
        await it.until(lambda: it.app.received and len(it.registry) == 2)
        it.registry.drain()
        assert await idle.rest() == b""
        answer = await busy.answer()
        assert (answer.body, answer["connection"]) == (b"ok", "close")
        assert await busy.rest() == b""
        await it.until(lambda: len(it.registry) == 0)


async def test_abort_ends_every_connection() -> None:
    async with world(silent) as it:
        idle, busy = await it.client(), await it.client()
        await busy.send(GET)
        await it.until(lambda: it.app.received and len(it.registry) == 2)
        it.registry.abort()
        assert await idle.rest() == await busy.rest() == b""
        await it.until(lambda: len(it.registry) == 0)


async def test_request_ids_do_not_repeat() -> None:
    registry = Connections(asyncio.get_running_loop(), Limits())
    ids = {registry.next_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(one) for one in ids} == {32}


async def test_one_timer_that_fails_does_not_stop_the_rest() -> None:
    loop = asyncio.get_running_loop()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))

    class Fails:
        def tick(self, now: float) -> None:
            raise LookupError

    class Counts:
        def __init__(self) -> None:
            self.ticks = 0
            self.third = asyncio.Event()

        def tick(self, now: float) -> None:
            self.ticks += 1
            if self.ticks == 3:
                self.third.set()

    counts = Counts()
    ticker = Ticker(loop, lambda: [Fails(), counts], 0.001)
    await asyncio.wait_for(counts.third.wait(), 10)
    ticker.stop()
    assert set(told) == {"a timer failed"}


async def test_under_way_are_those_with_a_judgement_that_something_can_still_happen_to() -> None:
    async with world(silent) as it:
        deciding: list[Exchange] = []
        clients = [await it.client() for _ in range(4)]
        it.stage.act = deciding.append
        await clients[0].send(GET)
        await it.until(lambda: deciding)
        deciding[0].grant = "let in, and nothing done yet"

        def act(exchange: Exchange) -> None:
            exchange.grant = exchange.request.path.text
            it.stage.forward(exchange)

        it.stage.act = act
        await clients[1].send(GET)
        await clients[2].send(GET)
        await it.until(lambda: len(it.app.lines) == 2 and all(line.received for line in it.app.lines))
        it.stage.act = it.stage.forward
        await clients[3].send(GET)
        await it.until(lambda: len(it.stage.handled) == 4)
        found = it.registry.under_way()
        assert set(map(id, found)) == set(map(id, it.stage.handled[1:3]))
        for exchange in found:
            exchange.cut(Reason.LOCKED)
        assert it.registry.under_way() == []
