"""How many may connect, who makes way for whom, what is given up under pressure, how a worker drains, and the
small things all connections share."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from ipaddress import ip_network
from typing import cast

import pytest

from tests.wire.recording import OK, Line, silent
from tests.wire.world import Client, Turnstile, World, tls_contexts, world
from ztproxy.core.normalise import Reading
from ztproxy.core.overload import Pressure, Stage
from ztproxy.core.reasons import Reason
from ztproxy.wire import listener
from ztproxy.wire.connections import Connections, Ticker, Ticking
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.handshake import HelloGate
from ztproxy.wire.limits import Limits

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n"


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(Limits(connections=2), id="in total"),
        pytest.param(Limits(connections_per_address=2), id="per address"),
    ],
)
async def test_one_too_many(limits: Limits) -> None:
    """Where something is under way on all of them nobody makes way; and where one address has all it may
    have."""
    async with world(by_what_is_asked, limits=limits) as it:
        first, second = await it.client(), await it.client()
        for client in (first, second):
            await client.send(SLOW)
        await it.until(lambda: it.app.received.count(b"/slow") == 2)
        third = await it.client()
        answer = await third.answer()
        assert (answer.status, answer["connection"], answer["retry-after"]) == (503, "close", "1")
        assert await third.rest() == b""
        assert it.stage.reasons == [Reason.TOO_MANY_CONNECTIONS]
        assert (it.registry.accepted, it.registry.refused, len(it.registry)) == (2, 1, 2)
        assert it.registry.evicted == 0
        first.close()
        await it.until(lambda: len(it.registry) == 1)
        assert (await it.ask(GET)).status == 200


UPGRADE = (
    b"GET /u HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def by_what_is_asked(line: Line) -> None:
    """Waits with an answer to `/slow` for good, talks WebSocket, and answers the rest."""
    while True:
        asked = await line.request()
        if b"/slow" in asked:
            await line.more()
        elif b"Upgrade: websocket" in asked:
            await line.send(SWITCHED)
            while data := await line.more():
                await line.send(data)
        else:
            await line.send(OK)


@pytest.mark.parametrize(
    ("said", "person", "kept"),
    [
        pytest.param(b"", False, False, id="nothing was said"),
        pytest.param(GET[:20], False, False, id="a slow head (FI35)"),
        pytest.param(GET, False, False, id="a request of nobody we know"),
        pytest.param(GET + GET[:20], False, False, id="and a slow head after it"),
        pytest.param(b"GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n", False, True, id="such a one under way"),
        pytest.param(GET, True, True, id="a request of a person"),
        pytest.param(GET + GET[:20], True, True, id="and a head that has begun"),
        pytest.param(b"GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n", True, True, id="a person's under way"),
        pytest.param(UPGRADE, True, True, id="a person's WebSocket"),
        pytest.param(UPGRADE, False, True, id="a WebSocket of nobody we know"),
    ],
)
async def test_who_makes_way_for_a_newcomer(said: bytes, person: bool, kept: bool) -> None:
    """(FI37)"""
    async with world(by_what_is_asked, limits=Limits(connections=3)) as it:
        it.stage.gate = Turnstile() if person else None
        oldest = await it.client()
        await oldest.send(said)
        asked = said.count(b"\r\n\r\n")
        await it.until(lambda: len(it.registry) == 1 and it.app.received.count(b"\r\n\r\n") == asked)
        if asked and b"/slow" not in said:
            assert (await oldest.answer()).status in (200, 101)
        it.stage.gate = Turnstile()
        known = await it.client()
        assert (await known.ask(GET)).status == 200
        silent_one = await it.client()
        await it.until(lambda: len(it.registry) == 3)
        assert (await it.ask(GET)).status == 200, "the newcomer is let in"
        made_way = silent_one if kept else oldest
        assert await made_way.rest() == b""
        assert (it.registry.evicted, it.registry.refused, it.stage.reasons) == (1, 0, [])
        assert (await known.ask(GET)).status == 200
        if said == UPGRADE:
            assert await oldest.ask_raw(b"\x82\x81\0\0\0\0x") == b"\x82\x81\0\0\0\0x"
        elif kept and b"/slow" not in said:
            await oldest.send(GET[20:] if said.endswith(GET[:20]) else GET)
            assert (await oldest.answer()).status == 200
        else:
            assert oldest.reader.at_eof() is not kept


class Form(asyncio.Protocol):
    """A page of ours that waits for all of what is sent to it."""


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        pytest.param(b"Content-Length: 9\r\n\r\nabc", False, id="a form that is not whole"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False, id="nor is this one"),
        pytest.param(b"Content-Length: 3\r\n\r\nabc", True, id="a whole one"),
        pytest.param(b"\r\n", True, id="no body at all"),
    ],
)
async def test_a_form_has_its_place_when_it_is_whole(sent: bytes, kept: bool) -> None:
    async with world(by_what_is_asked, limits=Limits(connections=1)) as it:
        it.stage.act = lambda exchange: exchange.hand_over(Form, b"")
        first = await it.client()
        await first.send(b"POST /u HTTP/1.1\r\nHost: app.test\r\n" + sent)
        await it.until(lambda: it.stage.handled)
        it.stage.act = it.stage.forward
        second = await it.client()
        if kept:
            assert (await second.answer()).status == 503
        else:
            assert (await second.ask(GET)).status == 200
            assert await first.rest() == b""
            assert len(it.stage.over) == 2
        assert it.registry.evicted == (not kept)


async def test_a_body_that_nobody_takes_has_no_place() -> None:
    async with world(limits=Limits(connections=4)) as it:
        it.stage.act = lambda exchange: exchange.respond(401, [], b"who?")
        for _ in range(4):
            answer = await it.ask(b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 60000\r\n\r\n")
            assert (answer.status, answer["connection"]) == (401, None)
        for _ in range(3):
            assert (await it.ask(GET)).status == 401
        assert (it.registry.evicted, it.registry.refused) == (3, 0)


async def test_who_has_asked_last_stays_when_everybody_is_known() -> None:
    """One person with an idle connection in every place keeps nobody out."""
    async with world(by_what_is_asked, limits=Limits(connections=4)) as it:
        it.stage.gate = Turnstile()
        clients = [await it.client() for _ in range(4)]
        for client in clients:
            assert (await client.ask(GET)).status == 200
        await clients[1].send(SLOW)
        assert (await clients[0].ask(GET)).status == 200
        await it.until(lambda: b"/slow" in it.app.received)
        assert (await it.ask(GET)).status == 200, "the newcomer is let in"
        assert await gone(clients[2])
        assert (await clients[0].ask(GET)).status == 200
        stranger, newcomer = await it.client(), await it.client()
        assert (await newcomer.ask(GET)).status == 200
        assert (it.registry.evicted, it.registry.refused, len(it.registry)) == (3, 0, 4)
        assert await gone(clients[3])
        assert await gone(stranger), "nobody is known on it, so it went before those who are"
        assert (await clients[0].ask(GET)).status == 200


async def test_strangers_with_requests_under_way_push_out_nobody_known() -> None:
    async with world(by_what_is_asked, limits=Limits(connections=4)) as it:
        it.stage.gate = Turnstile()
        known = [await it.client() for _ in range(2)]
        for client in known:
            assert (await client.ask(GET)).status == 200
        it.stage.gate = None
        strangers = [await it.client() for _ in range(2)]
        for client in strangers:
            await client.send(SLOW)
        await it.until(lambda: it.app.received.count(b"/slow") == 2)
        assert (await (await it.client()).answer()).status == 503
        it.stage.gate = Turnstile()
        for client in known:
            assert (await client.ask(GET)).status == 200
        assert (it.registry.evicted, it.registry.refused) == (0, 1)


async def full_of_an_answer(it: World, data: bytes, person: bool) -> Client:
    """A client that has not taken all of its answer yet."""
    it.stage.gate = Turnstile() if person else None
    client = await it.client()
    if person:
        assert (await client.ask(GET)).status == 200
    it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 16_000_000)
    client.writer.transport.pause_reading()
    before = len(it.stage.over)
    await client.send(data)
    await it.until(lambda: len(it.stage.over) > before)
    it.stage.act = it.stage.forward
    return client


@pytest.mark.parametrize("how", ["a newcomer", "memory runs out"])
@pytest.mark.parametrize(
    "data", [GET, GET[:-2] + b"Connection: close\r\n\r\n"], ids=["stays", "the last one"]
)
@pytest.mark.parametrize("person", [False, True], ids=["nobody", "somebody"])
async def test_the_end_of_an_answer(person: bool, data: bytes, how: str) -> None:
    """It goes on for somebody known; for nobody it is cut, so that it shows."""
    async with world(limits=Limits(connections=1)) as it:
        client = await full_of_an_answer(it, data, person)
        if how == "a newcomer":
            newcomer = await it.client()
            if person:
                assert (await newcomer.answer()).status == 503
        else:
            await under(it, 0.99, Stage.SHEDDING)
        await it.until(lambda: it.registry.evicted == (not person))
        client.writer.transport.resume_reading()
        if person:
            assert (await client.answer()).complete
        else:
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(10):
                    await client.reader.read(-1)


@pytest.mark.parametrize("person", [False, True], ids=["nobody", "somebody"])
async def test_over_tls_what_waits_below_it_is_unsent_too(person: bool) -> None:
    async with world(limits=Limits(connections=1), reading=Reading(True, "__Host-ztproxy")) as it:
        theirs, it.tls = tls_contexts()
        listening = listener.open_socket("127.0.0.1:0")
        factory = functools.partial(Downstream, it.stage, it.normaliser, it.limits, True, it.registry)
        server = await listener.start(listening, factory, it.registry, tls=theirs)
        it.port = listening.getsockname()[1]
        it.stage.gate = Turnstile() if person else None
        client = await it.client()
        assert (await client.ask(GET)).status == 200
        (connection,) = it.registry._all
        assert connection.carrier is not None
        it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 10_000)
        client.writer.transport.pause_reading()
        while not connection.carrier.get_write_buffer_size():
            over = len(it.stage.over)
            await client.send(GET)
            await it.until(lambda over=over: len(it.stage.over) > over)
            await asyncio.sleep(0.001)
        assert connection.transport.get_write_buffer_size() == 0
        _, newcomer = await asyncio.open_connection("127.0.0.1", it.port)
        await it.until(lambda: it.registry.evicted + it.registry.refused == 1)
        assert it.registry.evicted == (not person)
        if not person:
            client.writer.transport.resume_reading()
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(10):
                    await client.reader.read(-1)
        newcomer.close()
        listener.stop_accepting(server)


class Waiting:
    """What the registry asks of a handshake."""

    def __init__(self, address: str = "192.0.2.1", *, busy: bool = False) -> None:
        self.address, self.source, self.is_busy, self.used = address, "", busy, False
        self.looked_at = 0
        self.ended = False

    @property
    def busy(self) -> bool:
        self.looked_at += 1
        return self.is_busy

    def give_way(self) -> None:
        self.ended = True


def gate(address: str = "192.0.2.1", *, busy: bool = False) -> HelloGate:
    return cast("HelloGate", Waiting(address, busy=busy))


async def test_a_newcomer_costs_no_look_at_everybody() -> None:
    registry = Connections(asyncio.get_running_loop(), Limits(connections=1000, connections_per_address=2000))
    inside = [Waiting(busy=number != 500) for number in range(1000)]
    for one in inside:
        assert registry.enter(cast("HelloGate", one))
    newcomers, let_in = 0, False
    while not let_in:
        before = sum(one.looked_at for one in inside)
        let_in = registry.enter(gate(busy=True))
        newcomers += 1
        assert sum(one.looked_at for one in inside) - before <= 64
    assert inside[500].ended, "the only one that could be ended"
    assert newcomers == 8, "nobody was looked at twice before everybody was looked at once"
    assert max(one.looked_at for one in inside) == 1
    assert (len(registry), registry.evicted, registry.refused) == (1000, 1, 7)


@pytest.mark.parametrize(
    ("addresses", "let_in"),
    [
        pytest.param(["192.0.2.1"] * 3, 2, id="one address"),
        pytest.param(["192.0.2.1", "192.0.2.2", "192.0.2.3"], 3, id="three addresses"),
        pytest.param(["2001:db8::1", "2001:db8::2", "2001:db8::3"], 2, id="one customer's IPv6 (FI37)"),
        pytest.param(["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"], 3, id="three customers' IPv6"),
        pytest.param(["10.0.0.7"] * 3, 3, id="a load balancer's"),
        pytest.param(["fd00::7"] * 3, 3, id="a load balancer's, IPv6"),
        pytest.param(["::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"], 2, id="one address in two dresses"),
    ],
)
async def test_who_counts_as_one(addresses: list[str], let_in: int) -> None:
    exempt = (ip_network("10.0.0.0/24"), ip_network("fd00::/8"))
    limits = Limits(connections_per_address=2)
    registry = Connections(asyncio.get_running_loop(), limits, exempt=exempt)
    gates = [gate(address) for address in addresses]
    assert sum(map(registry.enter, gates)) == let_in == len(registry)
    for one in gates:
        registry.leave(one)
        registry.leave(one)
    assert len(registry) == 0
    assert sum(map(registry.enter, gates)) == let_in, "all places are free again"


async def test_one_that_makes_way_frees_a_place_of_its_address_too() -> None:
    registry = Connections(asyncio.get_running_loop(), Limits(connections=2, connections_per_address=2))
    first, *others = [gate(), gate(), gate("192.0.2.2"), gate()]
    assert registry.enter(first)
    assert registry.enter(others[0])
    assert registry.enter(others[1]), "the first one made way"
    assert registry.enter(others[2])
    assert (len(registry), registry.evicted, registry.refused) == (2, 2, 0)


# -- overload ---------------------------------------------------------------------------------------------


async def under(it: World, memory: float, stage: Stage) -> None:
    it.pressure = Pressure(memory)
    await it.until(lambda: it.registry.stage is stage)


async def gone(client: Client) -> bool:
    return await client.rest() == b""


async def test_frugal_and_back() -> None:
    async with world() as it:
        idle, other = await it.client(), await it.client()
        assert (await idle.ask(GET))["connection"] is None
        await under(it, 0.93, Stage.FRUGAL)
        answer = await other.ask(GET)
        assert (answer.status, answer["connection"]) == (200, "close")
        assert await gone(other)
        await under(it, 0.5, Stage.CALM)
        assert (await idle.ask(GET))["connection"] is None, "it is taken back"
        assert (await idle.ask(GET)).status == 200


async def test_refusing_and_back() -> None:
    """(FI40) Nothing of a new request gets anywhere; what is under way goes on."""

    async def slow(line: Line) -> None:
        while True:
            asked = await line.request()
            if b"POST" not in asked:
                await release.wait()
            await line.send(OK)

    release = asyncio.Event()
    async with world(slow) as it:
        busy, uploading, idle = await it.client(), await it.client(), await it.client()
        await busy.send(GET)
        await uploading.send(b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\na")
        await it.until(lambda: it.app.received.count(b"\r\n\r\n") == 2 and len(it.registry) == 3)
        await under(it, 0.96, Stage.REFUSING)
        for client, data in (
            (idle, GET),
            (await it.client(), GET + GET),
            (await it.client(), b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx"),
            (await it.client(), UPGRADE),
        ):
            answer = await client.ask(data)
            assert (answer.status, answer["connection"], answer["retry-after"]) == (503, "close", "1")
            assert answer["cache-control"] == "no-store"
            assert answer.body == Reason.OVERLOADED.sentence.encode() + b"\n"
            assert await gone(client), "one answer, then the end"
        assert it.stage.reasons == [Reason.OVERLOADED] * 4
        assert len(it.stage.handled) == len(it.app.lines) == 2
        release.set()
        await uploading.send(b"bc")
        for client in (busy, uploading):
            assert (await client.answer()).body == b"ok"
        await under(it, 0.5, Stage.CALM)
        assert (await it.ask(GET)).status == 200


@pytest.mark.parametrize("expects", [b"", b"Expect: 100-continue\r\n"], ids=["sent at once", "asks first"])
async def test_an_upload_that_has_not_begun_is_not_begun(expects: bytes) -> None:
    async with world() as it:
        deciding: list[Exchange] = []
        it.stage.act = deciding.append
        upload, plain = await it.client(), await it.client()
        await upload.send(b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n" + expects + b"\r\n")
        await plain.send(GET)
        await it.until(lambda: len(deciding) == 2)
        await under(it, 0.96, Stage.REFUSING)
        for exchange in tuple(deciding):
            it.stage.forward(exchange)
        assert (await upload.answer()).status == 503
        assert await gone(upload)
        assert (await plain.answer()).status == 200, "what was let in without a body goes on"
        assert it.stage.reasons == [Reason.OVERLOADED]
        assert b"POST" not in it.app.received


async def test_shedding_and_back(caplog: pytest.LogCaptureFixture) -> None:
    async with world(by_what_is_asked) as it:
        idle, half, talking, known, busy = [await it.client() for _ in range(5)]
        assert (await idle.ask(GET)).status == 200
        await half.send(GET[:20])
        assert (await talking.ask(UPGRADE)).status == 101
        it.stage.gate = Turnstile()
        assert (await known.ask(GET)).status == 200
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n")
        await it.until(lambda: b"/slow" in it.app.received and len(it.registry) == 5)
        with caplog.at_level(logging.WARNING, "ztproxy.overload"):
            await under(it, 0.99, Stage.SHEDDING)
            for client in (idle, half, known):
                assert await gone(client)
            for _ in range(3):
                assert await gone(await it.client()), "closed at once, without a word"
            assert it.stage.reasons == [Reason.OVERLOADED] * 3
            assert (it.registry.evicted, it.registry.refused, len(it.registry)) == (3, 3, 2)
            assert await talking.ask_raw(b"\x82\x81\0\0\0\0x") == b"\x82\x81\0\0\0\0x"
            await under(it, 0.5, Stage.CALM)
        said = [record.getMessage() for record in caplog.records if record.name == "ztproxy.overload"]
        assert [line.split(":")[0] for line in said] == [
            "shedding after calm",
            "refusing after shedding",
            "frugal after refusing",
            "calm after frugal",
        ]
        assert said[0].endswith("99.0 % of the memory and 0.0 % of the descriptors are used, 5 connections")
        assert (await it.ask(GET)).status == 200


async def test_refusing_ends_what_is_idle_and_nobodys() -> None:
    """Else what a flood holds in memory would stay, and with it the stage."""
    async with world(by_what_is_asked) as it:
        idle, half, known, busy = [await it.client() for _ in range(4)]
        assert (await idle.ask(GET)).status == 200
        await half.send(GET[:20])
        await busy.send(SLOW)
        it.stage.gate = Turnstile()
        assert (await known.ask(GET)).status == 200
        await it.until(lambda: b"/slow" in it.app.received and len(it.registry) == 4)
        it.registry._measure = lambda: Pressure(0.96)
        it.registry.tick(it.registry.clock())
        assert (it.registry.stage, it.registry.evicted) == (Stage.REFUSING, 0), "all of them came just now"
        it.registry.tick(it.registry.clock() + 1.0)
        assert (it.registry.evicted, len(it.registry)) == (2, 2)
        for client in (idle, half):
            assert await gone(client)
        assert (await known.ask(GET)).status == 503


async def test_a_connection_that_fails_at_its_timer_ends_alone() -> None:
    class Fails:
        """Asked at the timer and at giving way."""

        def get_write_buffer_size(self) -> int:
            raise LookupError("a mistake")

    async with world(limits=Limits(first_byte=0.1, connections=2)) as it:

        def failing_one() -> asyncio.Protocol:
            down = Downstream(it.stage, it.normaliser, it.limits, False, it.registry)
            down.carrier = cast("asyncio.Transport", Fails())
            return cast("asyncio.Protocol", down)

        server = await asyncio.get_running_loop().create_server(failing_one, "127.0.0.1", 0)
        right, it.port = it.port, server.sockets[0].getsockname()[1]
        failing = await it.client()
        await it.until(lambda: len(it.registry) == 1)
        it.port = right
        honest = await it.client()
        assert await gone(failing)
        assert await gone(honest), "its timer runs"
        await under(it, 0.93, Stage.FRUGAL)
        await it.until(lambda: len(it.registry) == 0)
        assert set(it.mistakes) == {"a timer of a connection failed"}
        it.port = server.sockets[0].getsockname()[1]
        await it.client()
        it.port = right
        await it.client()
        await it.until(lambda: len(it.registry) == 2)
        assert (await it.ask(GET)).status == 200
        assert it.mistakes[-1] == "ending a connection failed"
        it.expected_mistakes = it.mistakes
        server.close()


async def test_shedding_lets_no_handshake_in_and_ends_those_that_wait() -> None:
    used = Pressure()
    registry = Connections(asyncio.get_running_loop(), Limits(), lambda: used)
    waiting = Waiting()
    assert registry.enter(cast("HelloGate", waiting))
    used = Pressure(descriptors=0.99)
    registry.tick(0.0)
    assert waiting.ended
    assert not registry.enter(gate())
    assert (len(registry), registry.evicted, registry.refused) == (0, 1, 1)


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


async def test_a_ticker_says_how_late_it_was() -> None:
    late: list[float] = []

    def ticking() -> list[Ticking]:
        late.append(ticker.late)
        return []

    ticker = Ticker(asyncio.get_running_loop(), ticking, 0.001)
    await asyncio.sleep(0)
    time.sleep(0.05)  # noqa: ASYNC251  # what holds up the loop is what is measured
    while not late:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    ticker.stop()
    assert late[0] > 0.04


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
