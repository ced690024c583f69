"""The client's side as dialogues: hostile heads, pipelining, bodies, limits and timers."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from tests.wire.recording import OK, Line, answers, answers_once, silent
from tests.wire.world import tls_contexts, world
from ztproxy.core.normalise import Normaliser, RawHead, Reading
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Framing, Peer, Request
from ztproxy.core.upstream import Timeouts
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"
POST = b"POST /u HTTP/1.1\r\nHost: app.test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = [
    pytest.param(POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, id="H01 two lengths"),
    pytest.param(POST + b"Content-Length: +3\r\n\r\nabc", 400, id="H04 signed length"),
    pytest.param(POST + b"Content-Length: 18446744073709551619\r\n\r\nabc", 400, id="H10 wrapping length"),
    pytest.param(POST + b"Content-Length:\r\n\r\nabc", 400, id="H12 empty length"),
    pytest.param(POST + b"Content-Length: 3\r\nContent_Length: 0\r\n\r\nabc", 400, id="H14 underscore twin"),
    pytest.param(
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="H17 CL and TE"
    ),
    pytest.param(POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400, id="H22"),
    pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, id="H24"),
    pytest.param(POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, id="H31 folded"),
    pytest.param(POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, id="H32 space before colon"),
    pytest.param(
        b"POST /u HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="H37"
    ),
    pytest.param(b"GET /u HTTP/1.1\nHost: app.test\n\n", 400, id="H62 bare LF"),
    pytest.param(b"GET /u HTTP/1.1\r\nHost: app.test\rX: y\r\n\r\n", 400, id="H64 bare CR"),
    pytest.param(b"GET /u\r\n\r\n", 400, id="H75 HTTP/0.9"),
    pytest.param(b"GET /u HTTP/2.0\r\nHost: app.test\r\n\r\n", 505, id="H77 version"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="H87 a TLS ClientHello"),
    pytest.param(b"TRACE /u HTTP/1.1\r\nHost: app.test\r\n\r\n", 405, id="H88 TRACE"),
    pytest.param(b"GET /u HTTP/1.1\r\n\r\n", 400, id="H90 no Host"),
    pytest.param(b"GET /u HTTP/1.1\r\nHost: app.test\r\nHost: evil.test\r\n\r\n", 400, id="H91 two Hosts"),
    pytest.param(b"GET http://evil.test/u HTTP/1.1\r\nHost: app.test\r\n\r\n", 400, id="H100 absolute"),
    pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: app.test\r\n\r\n", 414, id="H111 long line"),
    pytest.param(GET[:-2] + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431, id="H112 long field"),
    pytest.param(
        GET[:-2] + b"".join(b"X%d: %b\r\n" % (i, b"a" * 4000) for i in range(20)) + b"\r\n",
        431,
        id="H114 80 KiB of head",
    ),
    pytest.param(GET[:-2] + b"X: y\r\n" * 101 + b"\r\n", 431, id="101 fields"),
    pytest.param(GET[:-2] + b"Expect: 200-ok\r\n\r\n", 417, id="H125 unknown expectation"),
    pytest.param(
        POST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\nabc", 400, id="H124"
    ),
    pytest.param(b"GET /public/%2e%2e/admin HTTP/1.1\r\nHost: app.test\r\n\r\n", 400, id="P02 dots"),
    pytest.param(b"\r\n\r\n\r\n" + GET, 400, id="three empty lines first"),
]


@pytest.mark.parametrize(("data", "status"), REFUSED)
async def test_a_hostile_head_is_refused_once_and_closes(data: bytes, status: int) -> None:
    async with world() as it:
        client = await it.client()
        await client.send(data)
        answer = await client.answer()
        assert answer.status == status
        assert answer["connection"] == "close"
        assert answer["cache-control"] == "no-store"
        assert await client.rest() == b"", "one answer, then the end"
        assert len(it.stage.reasons) == 1
        assert it.stage.reasons[0].status == status
        assert it.stage.handled == []
        assert it.app.lines == [], "the app saw nothing"


async def test_a_method_no_route_takes_is_told_which_there_are() -> None:
    """RFC 9110 15.5.6."""
    async with world() as it:
        it.registry.allow = b"GET, HEAD"
        for method in (b"TRACE", b"BREW", b"get"):
            answer = await it.ask(method + b" /u HTTP/1.1\r\nHost: app.test\r\n\r\n")
            assert (answer.status, answer["allow"], answer["connection"]) == (405, "GET, HEAD", "close")
        assert (await it.ask(b"GET /u HTTP/1.1\r\n\r\n"))["allow"] is None


@pytest.mark.parametrize(
    ("data", "status"),
    [row for row in REFUSED if len(row.values[0]) < 200],  # type: ignore[arg-type]
)
async def test_the_same_one_octet_at_a_time(data: bytes, status: int) -> None:
    async with world() as it:
        client = await it.client()
        try:
            await client.send(data, split=True)
        except OSError:
            pass  # refused before the last octet
        assert (await client.answer()).status == status
        assert it.app.lines == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"3\nabc\r\n0\r\n\r\n", id="H40 bare LF"),
        pytest.param(b"3;" + b"x" * 70000 + b"\r\nabc\r\n0\r\n\r\n", id="H44 extensions"),
        pytest.param(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", id="H57 trailer"),
        pytest.param(b"3\r\nabcd\r\n0\r\n\r\n", id="H52 too much data"),
    ],
)
async def test_a_malformed_body_never_gets_an_end_at_the_app(data: bytes) -> None:
    async with world(silent) as it:
        client = await it.client()
        await client.send(CHUNKED + data)
        answer = await client.answer()
        assert answer.status == 400
        assert answer["connection"] == "close"
        assert it.stage.reasons == [Reason.HTTP_BODY]
        await it.until(lambda: all(line.ended.is_set() for line in it.app.lines))
        assert b"0\r\n\r\n" not in it.app.received.partition(b"\r\n\r\n")[2]
        assert it.stage.over[0].failure is Reason.HTTP_BODY


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("data", "body"),
    [
        pytest.param(POST + b"Content-Length: 000003\r\n\r\nabc", b"abc", id="H15 canonical length"),
        pytest.param(CHUNKED + b"3;x\r\nabc\r\n0\r\nX: y\r\n\r\n", b"0\r\n\r\n", id="chunked, framed anew"),
        pytest.param(b"\r\n\r\n" + GET, b"", id="H85 two empty lines first"),
        pytest.param(POST + b"Content-Length: 0\r\n\r\n", b"", id="an empty body"),
    ],
)
async def test_forwarded(data: bytes, body: bytes, split: bool) -> None:
    async with world() as it:
        client = await it.client()
        await client.send(data, split)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        head, _, received = it.app.received.partition(b"\r\n\r\n")
        if b"Transfer-Encoding: chunked" in head:
            assert b"".join(re.findall(rb"1\r\n(.)\r\n|3\r\n(abc)\r\n", received)[0]) in (b"a", b"abc")
            assert received.endswith(body)
            assert b"X: y" not in received and b";" not in received
        else:
            assert received == body
        if b"000003" in data:
            assert b"\r\nContent-Length: 3\r\n" in head


async def test_the_golden_request() -> None:
    async with world() as it:
        await it.ask(b"GET /u?x=1 HTTP/1.1\r\nHost: APP.TEST.\r\nA: b\r\nKeep-Alive: 1\r\n\r\n")
        request_id = it.stage.handled[0].request_id
        assert re.fullmatch("[0-9a-f]{32}", request_id)
        assert it.app.received == (
            b"GET /u?x=1 HTTP/1.1\r\nHost: app.test\r\nA: b\r\nX-Forwarded-For: 127.0.0.1\r\n"
            b"X-Forwarded-Proto: http\r\nX-Forwarded-Host: app.test\r\n"
            b"X-Request-Id: " + request_id.encode() + b"\r\n\r\n"
        )


async def test_h60_each_pipelined_request_is_judged_by_itself() -> None:
    async with world() as it:

        def act(exchange: Exchange) -> None:
            if exchange.request.path.text == "/admin":
                exchange.refuse(Reason.GROUP_MISSING)
            else:
                it.stage.forward(exchange)

        it.stage.act = act
        client = await it.client()
        await client.send(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + GET.replace(b"/u", b"/admin") + GET)
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 403
        assert await client.rest() == b"", "a refusal closes, and what lies behind it is not served"
        assert [exchange.request.path.text for exchange in it.stage.handled] == ["/u", "/admin"]
        assert b"/admin" not in it.app.received


async def test_pipelined_answers_come_in_order() -> None:
    async with world() as it:
        client = await it.client()
        it.stage.act = lambda exchange: exchange.respond(200, [], exchange.request.path.text.encode())
        await client.send(b"".join(GET.replace(b"/u", b"/%d" % number) for number in range(2000)))
        for number in range(2000):
            assert (await client.answer()).body == b"/%d" % number


@pytest.mark.parametrize("tls", [False, True])
async def test_nothing_is_begun_behind_answers_that_are_not_read(tls: bool) -> None:
    """Else one connection, before any sign-in, could have all of a worker's memory."""
    async with world(tls=tls_contexts() if tls else None) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 10_000)
        client = await it.client()
        client.writer.transport.pause_reading()
        client.writer.write(GET * 5000)
        await it.until(lambda: it.stage.handled and next(iter(it.registry._all)).unsent)
        (connection,) = it.registry._all
        before = -1
        while before != len(it.stage.handled):
            before = len(it.stage.handled)
            assert connection.transport.get_write_buffer_size() < 1024 * 1024
            assert len(connection.buffer) < 512 * 1024
            await asyncio.sleep(0.1)
        assert before < 5000, "and the rest is not lost"
        client.writer.transport.resume_reading()
        for _ in range(5000):
            assert len((await client.answer()).body) == 10_000


async def test_small_bodies_one_after_the_other_are_each_answered() -> None:
    """Each is read past and the next one taken: not one within the other, or a few hundred end the stack."""
    async with world() as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"")
        client = await it.client()
        client.writer.write(b"POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\nx" * 4000)
        for _ in range(4000):
            assert (await client.answer()).status == 200


async def test_one_client_does_not_take_the_whole_turn() -> None:
    async with world() as it:
        turns: list[int] = [0]
        loop = asyncio.get_running_loop()

        def act(exchange: Exchange) -> None:
            if not turns[-1]:
                loop.call_soon(turns.append, 0)  # runs behind all that this turn does
            turns[-1] += 1
            exchange.respond(200, [], b"")

        it.stage.act = act
        client = await it.client()
        client.writer.write(GET * 1000 + GET[:20])
        for _ in range(1000):
            assert (await client.answer()).status == 200
        assert sum(turns) == 1000
        assert max(turns) <= 32
        await client.send(GET[20:])
        assert (await client.answer()).status == 200


async def test_a_head_begun_behind_answers_that_were_not_read_has_its_time() -> None:
    async with world(limits=Limits(head_time=0.2)) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 16_000_000)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await it.until(lambda: it.stage.over)
        await client.send(GET[:20])
        await asyncio.sleep(0.4)
        client.writer.transport.resume_reading()
        assert (await client.answer()).complete
        assert (await client.answer()).status == 408


async def test_what_is_pipelined_behind_a_slow_answer_is_bounded() -> None:
    async with world(limits=Limits(held=1000)) as it:
        kept: list[Exchange] = []
        it.stage.act = kept.append
        client = await it.client()
        client.writer.write(GET + GET * 2000)
        await it.until(lambda: kept)
        await asyncio.sleep(0.1)
        (connection,) = it.registry._all
        assert len(connection.buffer) < 1000 + 256 * 1024, "one read more than the bound at most"
        it.stage.act = lambda exchange: exchange.respond(200, [], b"")
        kept[0].respond(200, [], b"")
        for _ in range(2001):
            assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("head", "length"),
    [
        pytest.param(b"Content-Length: 3\r\n", 3, id="counted"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", 3, id="chunked"),
    ],
)
async def test_100_continue_comes_after_the_decision(head: bytes, length: int) -> None:
    async with world() as it:
        kept: list[Exchange] = []
        it.stage.act = kept.append
        client = await it.client()
        await client.send(POST + head + b"Expect: 100-continue\r\n\r\n")
        await it.until(lambda: kept)
        assert it.app.lines == []
        it.stage.forward(kept[0])
        assert (await client.answer()).status == 100
        assert b"xpect" not in it.app.received
        await client.send(b"abc" if b"Length" in head else b"3\r\nabc\r\n0\r\n\r\n")
        assert (await client.answer()).status == 200
        assert kept[0].bytes_in == length


async def test_no_100_continue_for_a_refusal() -> None:
    async with world() as it:
        it.stage.act = lambda exchange: exchange.respond(401, [], b"no")
        client = await it.client()
        await client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (401, "close")
        assert await client.rest() == b""


async def test_no_100_continue_when_the_body_is_here_already() -> None:
    async with world() as it:
        client = await it.client()
        await client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("request_head", "closes"),
    [
        pytest.param(b"GET /u HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n", True, id="asked"),
        pytest.param(b"GET /u HTTP/1.0\r\nHost: app.test\r\n\r\n", True, id="1.0"),
        pytest.param(
            b"GET /u HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n", True, id="1.0 ka"
        ),
        pytest.param(GET, False, id="1.1"),
    ],
)
async def test_keep_alive(request_head: bytes, closes: bool) -> None:
    async with world() as it:
        client = await it.client()
        answer = await client.ask(request_head)
        assert answer.status == 200
        assert (answer["connection"] == "close") is closes
        if closes:
            assert await client.rest() == b""
        else:
            assert (await client.ask(GET)).status == 200


@pytest.mark.parametrize(
    ("head", "body", "stays"),
    [
        pytest.param(b"Content-Length: 3\r\n", b"abc", True, id="a short body is read past"),
        pytest.param(b"Content-Length: 65536\r\n", b"a" * 65536, True, id="64 KiB are"),
        pytest.param(b"Content-Length: 65537\r\n", b"a" * 65537, False, id="one octet more is not"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", False, id="nor a chunked one"),
    ],
)
async def test_an_unwanted_body(head: bytes, body: bytes, stays: bool) -> None:
    async with world() as it:
        it.stage.act = lambda exchange: exchange.respond(401, [(b"A", b"b")], b"no")
        client = await it.client()
        await client.send(POST + head + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (401, None if stays else "close")
        if stays:
            await client.send(body + GET)
            assert (await client.answer()).status == 401
        else:
            assert await client.rest() == b""
        assert it.app.lines == []


async def test_an_upload_of_many_mebibytes_is_bounded_by_back_pressure() -> None:
    async def slow(line: Line) -> None:
        line.pause()
        await asyncio.Event().wait()

    async with world(slow) as it:
        client = await it.client()
        size = 64 * 1024 * 1024
        client.writer.write(POST + b"Content-Length: %d\r\n\r\n" % size)
        piece = b"a" * 1024 * 1024

        async def feed() -> None:
            for _ in range(64):
                client.writer.write(piece)
                await client.writer.drain()

        feeding = asyncio.create_task(feed())
        await it.until(lambda: it.stage.handled and it.stage.handled[0].bytes_in > 0)
        before = -1
        while before != it.stage.handled[0].bytes_in:
            before = it.stage.handled[0].bytes_in
            await asyncio.sleep(0.2)
        (connection,) = it.pool.connections
        assert connection.transport.get_write_buffer_size() < 1024 * 1024
        assert before < size // 2
        feeding.cancel()


async def test_a_body_both_ways_through_small_windows() -> None:
    async def echo(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n")
        got = 0
        while got < 3000000:
            data = await line.more()
            got += len(data)
            await line.send(data)

    async with world(echo) as it:
        client = await it.client()
        body = bytes(range(250)) * 12000
        await client.send(POST + b"Content-Length: 3000000\r\n\r\n")
        await it.until(lambda: it.stage.handled and it.stage.handled[0].status)
        writing = asyncio.create_task(client.send(body))
        answer = await client.answer()
        await writing
        assert answer.body == body
        assert answer["connection"] == "close", "the app answered before it had read all"
        exchange = it.stage.handled[0]
        await it.until(lambda: not exchange.alive)
        assert (exchange.bytes_in, exchange.bytes_out) == (3000000, 3000000)


@pytest.mark.parametrize(
    ("limits", "data", "status", "reason"),
    [
        pytest.param(Limits(head_time=0.1), b"GET /u HT", 408, Reason.HTTP_TIMEOUT, id="half a head"),
        pytest.param(Limits(first_byte=0.1), b"", 0, None, id="nothing at all"),
        pytest.param(
            Limits(body_rate_after=0.05, body_stall=0.1),
            POST + b"Content-Length: 3\r\n\r\na",
            408,
            Reason.HTTP_TIMEOUT,
            id="FI36 a stalled body",
        ),
    ],
)
async def test_slow_clients(limits: Limits, data: bytes, status: int, reason: Reason | None) -> None:
    async with world(silent, limits=limits) as it:
        client = await it.client()
        await client.send(data)
        if status:
            assert (await client.answer()).status == status
        assert await client.rest() == b""
        assert it.stage.reasons == ([reason] if reason else [])
        await it.until(lambda: len(it.registry) == 0 and not it.pool.connections)


async def test_a_body_that_trickles_is_too_slow() -> None:
    async with world(silent, limits=Limits(body_rate_after=0.3, body_rate=1000)) as it:
        client = await it.client()
        await client.send(POST + b"Content-Length: 100000\r\n\r\n")

        async def trickle() -> None:
            while True:
                client.writer.write(b"a")
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        assert (await client.answer()).status == 408
        trickling.cancel()


async def test_an_idle_connection_is_closed() -> None:
    async with world(limits=Limits(keep_alive=0.1)) as it:
        client = await it.client()
        assert (await client.ask(GET)).status == 200
        assert await client.rest() == b""
        assert it.stage.reasons == []


@pytest.mark.parametrize("data", [GET, GET.replace(b"1.1", b"1.0")])
async def test_a_client_that_does_not_read_is_dropped(data: bytes) -> None:
    async def endless(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await line.send(b"10000\r\n" + b"a" * 65536 + b"\r\n")

    async with world(endless, limits=Limits(write_stall=0.2)) as it:
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(data)
        await it.until(lambda: len(it.stage.over) == 1)
        await it.until(lambda: it.app.lines[0].ended.is_set())
        assert it.stage.over[0].status == 200


async def test_a_slow_app_is_not_the_clients_fault() -> None:
    async def slow(line: Line) -> None:
        line.pause()
        await asyncio.sleep(0.6)
        line._writer.transport.resume_reading()
        while await line.more():
            if len(line.received) > 8 * 1024 * 1024:
                await line.send(OK)

    limits = Limits(body_rate_after=0.1, body_stall=0.2, body_rate=1)
    async with world(slow, limits=limits, timeouts=Timeouts(idle=5.0)) as it:
        client = await it.client()
        body = b"a" * 8 * 1024 * 1024
        writing = asyncio.create_task(client.send(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body))
        assert (await client.answer()).status == 200
        await writing


async def test_a_client_that_uploads_has_as_long_to_read_as_any_other() -> None:
    """The looks at its upload are frequent; they are not looks at what it reads."""

    async def floods(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n" + b"a" * 16777216)
        await silent(line)

    async with world(floods, limits=Limits(body_stall=0.2)) as it:
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(POST + b"Content-Length: 100000\r\n\r\n")

        async def trickle() -> None:
            while True:
                client.writer.write(b"a")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        await it.until(lambda: it.registry._all and next(iter(it.registry._all)).unsent)
        await asyncio.sleep(0.7)
        client.writer.transport.resume_reading()
        assert (await client.answer()).complete
        trickling.cancel()


async def test_a_client_stuck_behind_an_earlier_answer_is_dropped() -> None:
    async with world(limits=Limits(write_stall=0.2)) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 16_000_000)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET * 2)
        await it.until(lambda: it.stage.over and len(it.registry) == 0)
        assert len(it.stage.handled) == 1, "the second one was never begun"


@pytest.mark.parametrize(
    ("path", "answered"),
    [
        pytest.param(b"/own", True, id="answered at once"),
        pytest.param(b"/app", False, id="an app is asked"),
    ],
)
async def test_a_client_that_half_closes_behind_its_request(path: bytes, answered: bool) -> None:
    """What was written arrives, whole and to its end; what would come later does not."""
    async with world(silent) as it:
        it.stage.act = lambda exchange: (
            exchange.respond(200, [], b"a" * 16_000_000)
            if exchange.request.path.text == "/own"
            else it.stage.forward(exchange)
        )
        client = await it.client()
        await client.send(GET.replace(b"/u", path))
        client.writer.write_eof()
        if answered:
            assert (await client.answer()).complete
        assert await client.rest() == b""
        await it.until(lambda: len(it.stage.over) == 1 and len(it.registry) == 0)
        assert it.stage.over[0].status == (200 if answered else 0)


@pytest.mark.parametrize("tls", [False, True])
async def test_all_that_was_pipelined_before_a_half_close_is_answered(tls: bool) -> None:
    async with world(tls=tls_contexts() if tls else None) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"ok")
        client = await it.client()
        client.writer.write(GET * 500)
        if tls:
            await it.until(lambda: len(it.stage.handled) == 500)  # its close is one of both sides
        else:
            client.writer.write_eof()
        for _ in range(500):
            assert (await client.answer()).body == b"ok"
        client.close()
        await it.until(lambda: len(it.registry) == 0)


@pytest.mark.parametrize("then", ["nothing", "a request that is judged", "a request that an app answers"])
async def test_a_half_closed_client_that_does_not_read_is_dropped(then: str) -> None:
    """It has less unsent than stops anything, so that only its end, which does not come, would tell."""
    async with world(silent, limits=Limits(write_stall=0.2)) as it:
        it.stage.act = lambda exchange: (
            exchange.respond(200, [], b"a" * 60_000)
            if exchange.request.path.text == "/u"
            else it.stage.forward(exchange)
            if exchange.request.path.text == "/app"
            else None
        )
        client = await it.client()
        client.writer.transport.pause_reading()
        await it.until(lambda: len(it.registry) == 1)
        (connection,) = it.registry._all
        while not connection.transport.get_write_buffer_size():
            over = len(it.stage.over)
            await client.send(GET)
            await it.until(lambda over=over: len(it.stage.over) > over)
            await asyncio.sleep(0.002)
        assert not connection.unsent
        if then != "nothing":
            await client.send(GET.replace(b"/u", b"/app" if "app" in then else b"/judged"))
            await it.until(lambda: it.app.received if "app" in then else connection.exchange is not None)
        client.writer.write_eof()
        await it.until(lambda: connection._closing)
        await it.until(lambda: len(it.registry) == 0 and len(it.stage.over) == len(it.stage.handled))
        await it.until(lambda: not it.pool.connections)


async def test_an_answer_that_a_half_close_breaks_off_shows_it() -> None:
    """Without a length only a reset tells it from a whole one."""

    async def never_ends(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")

    async with world(never_ends) as it:
        client = await it.client()
        await client.send(GET.replace(b"1.1", b"1.0"))
        async with asyncio.timeout(10):
            await client.reader.readuntil(b"\r\n\r\n")
        client.writer.write_eof()
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(10):
                await client.reader.read(-1)
        await it.until(lambda: it.stage.over)


async def test_a_connection_whose_transport_has_no_socket_any_more_is_dropped() -> None:
    class Ended(asyncio.Transport):
        """asyncio's own, over TLS, between its end and our hearing of it."""

        aborted = False

        def abort(self) -> None:
            self.aborted = True

        def get_write_buffer_size(self) -> int:
            raise AttributeError

    async with world() as it:
        connection = Downstream(it.stage, it.normaliser, it.limits, True, it.registry)
        transport = Ended()
        connection.connection_made(transport)
        it.registry.know(connection)
        assert not connection.busy
        connection.abort(reset=True)
        assert transport.aborted
        connection.connection_lost(None)


async def test_a_client_that_leaves_cancels_the_app() -> None:
    async with world(silent) as it:
        client = await it.client()
        await client.send(GET)
        await it.until(lambda: it.app.received)
        client.close()
        await it.until(lambda: it.app.lines[0].ended.is_set())
        await it.until(lambda: it.stage.over)
        assert (it.stage.over[0].status, it.stage.over[0].failure) == (0, None)


async def test_a_client_that_leaves_in_its_body_cancels_the_app() -> None:
    async with world(silent) as it:
        client = await it.client()
        await client.send(CHUNKED + b"3\r\nabc\r\n")
        await it.until(lambda: b"abc" in it.app.received)
        client.close()
        await it.until(lambda: it.app.lines[0].ended.is_set())
        assert b"0\r\n\r\n" not in it.app.received.partition(b"\r\n\r\n")[2]


async def test_a_handler_that_fails_is_a_refusal() -> None:
    async with world() as it:

        def act(exchange: Exchange) -> None:
            raise LookupError("a mistake")

        it.stage.act = act
        it.expected_mistakes = ["a handler failed"]
        answer = await it.ask(GET)
        assert (answer.status, answer["connection"]) == (500, "close")
        assert b"mistake" not in answer.body
        assert it.stage.over[0].failure is Reason.INTERNAL


async def test_the_app_reads_on_after_its_answer_to_the_end_of_the_body() -> None:
    """A short body that arrives after the app has answered: the connection closes, both sides properly."""
    async with world(answers(OK)) as it:

        async def early(line: Line) -> None:
            await line.until(b"\r\n\r\n")
            await line.send(OK)

        it.app.plays = [early]
        client = await it.client()
        await client.send(POST + b"Content-Length: 3\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (200, "close")
        assert await client.rest() == b""
        await it.until(lambda: it.app.lines[0].ended.is_set())
        assert not it.pool.connections


async def test_over_tls_the_peer_is_known() -> None:
    async with world(tls=tls_contexts(), reading=Reading(True, "__Host-ztproxy")) as it:
        client = await it.client()
        for _ in range(2):
            assert (await client.ask(GET)).body == b"ok"
        peer = it.stage.handled[0].request.peer
        assert (peer.address, peer.secure, peer.sni) == ("127.0.0.1", True, "app.test")
        assert peer.asked
        assert peer.certificate is not None
        assert peer.certificate.leaf.startswith(b"\x30\x82")
        assert b"X-Forwarded-Proto: https" in it.app.received


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET /a/../b HTTP/1.1\r\nHost: app.test\r\n\r\n", 400, id="refused"),
        pytest.param(GET[:-2] + b"Connection: close\r\n\r\n", 200, id="the last one"),
        pytest.param(CHUNKED + b"3\nabc", 400, id="a malformed body"),
    ],
)
async def test_over_tls_every_answer_arrives_and_ends(data: bytes, status: int) -> None:
    async with world(silent if status != 200 else answers(OK), tls=tls_contexts()) as it:
        client = await it.client()
        await client.send(data)
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (status, "close")
        assert await client.rest() == b""


async def test_over_tls_a_large_body_both_ways() -> None:
    async def echo(line: Line) -> None:
        request = await line.request()
        body = request.partition(b"\r\n\r\n")[2]
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async with world(echo, tls=tls_contexts()) as it:
        client = await it.client()
        body = bytes(range(250)) * 8000
        assert (await client.ask(POST + b"Content-Length: 2000000\r\n\r\n" + body)).body == body


async def test_over_tls_a_truncated_answer_shows() -> None:
    async with world(
        answers_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), tls=tls_contexts()
    ) as it:
        assert not (await it.ask(GET)).complete


async def test_a_malformed_body_nobody_wants() -> None:
    """It is drained as far as it can be, and then the connection ends."""
    async with world(limits=Limits(body_stall=0.1)) as it:
        it.stage.act = lambda exchange: exchange.respond(401, [])
        client = await it.client()
        answer = await client.ask(POST + b"Content-Length: 9\r\n\r\nabc")
        assert answer["connection"] is None
        assert await client.rest() == b"", "the rest never came"


async def test_llhttp_has_a_say() -> None:
    """A head our guard and the normaliser take for bodiless, and llhttp does not: somebody is wrong."""

    class Careless:
        def __init__(self, careful: Normaliser) -> None:
            self._careful = careful

        def read(self, head: RawHead, peer: Peer) -> Request | Reason:
            request = self._careful.read(head, peer)
            return (
                request if isinstance(request, Reason) else request._replace(framing=Framing.NONE, length=0)
            )

    async with world() as it:
        client = await it.client()
        await it.until(lambda: len(it.registry) == 1)
        (connection,) = it.registry._all
        connection._normaliser = Careless(it.normaliser)
        assert (await client.ask(POST + b"Content-Length: 3\r\n\r\nabc")).status == 400
        assert it.stage.reasons == [Reason.HTTP_SYNTAX]
        assert it.app.lines == []


async def test_an_answer_the_client_never_reads_ends_with_its_keep_alive() -> None:
    async with world(limits=Limits(keep_alive=0.2)) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 16_000_000)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await it.until(lambda: it.stage.over and len(it.registry) == 0)


async def test_a_closing_answer_the_client_never_reads_is_cut() -> None:
    async with world(limits=Limits(write_stall=0.2)) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 16_000_000, close=True)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await it.until(lambda: it.stage.over and len(it.registry) == 0)


@pytest.mark.parametrize("close", [False, True])
async def test_a_client_that_reads_slowly_is_served(close: bool) -> None:
    async with world(limits=Limits(write_stall=0.2, keep_alive=0.2, linger=0.1)) as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"a" * 24_000_000, close=close)
        reader = socket.create_connection(("127.0.0.1", it.port))
        reader.sendall(GET)
        reader.setblocking(False)
        loop, got = asyncio.get_running_loop(), 0
        while got < 24_000_000:
            got += len(await loop.sock_recv(reader, 1_000_000))
            await asyncio.sleep(0.02)
        reader.close()


async def test_a_client_that_reads_slowly_what_came_before_is_served() -> None:
    async with world(limits=Limits(write_stall=0.2)) as it:
        waiting: list[Exchange] = []
        it.stage.act = lambda exchange: (
            waiting.append(exchange)
            if len(it.stage.handled) == 2
            else exchange.respond(200, [], b"a" * 24_000_000)
        )
        reader = socket.create_connection(("127.0.0.1", it.port))
        reader.sendall(GET * 2)
        reader.setblocking(False)
        loop, got = asyncio.get_running_loop(), 0
        while got < 24_000_000:
            got += len(await loop.sock_recv(reader, 1_000_000))
            await asyncio.sleep(0.02)
        await it.until(lambda: waiting)
        assert waiting[0].alive
        reader.close()
