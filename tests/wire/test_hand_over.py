"""A connection given away: the other protocol gets one request whole, and nothing behind it."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.wire.world import tls_contexts, world
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits

ON_BOTH_LOOPS = True

HEAD = b"POST /rebuilt HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\n"
POST = b"POST /.ztproxy/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\n"
GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"
CHUNKED = b"POST /.ztproxy/x HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n"


class Keeper(asyncio.Protocol):
    """Keeps what it gets, and says when it is told of the end."""

    def __init__(self) -> None:
        self.received = b""
        self.ends: list[Exception | None] = []
        self.flow: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)

    def pause_writing(self) -> None:
        self.flow.append("pause")

    def resume_writing(self) -> None:
        self.flow.append("resume")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("data", "passed"),
    [
        pytest.param(GET, b"", id="no body"),
        pytest.param(POST + b"abc", b"abc", id="counted"),
        pytest.param(
            CHUNKED + b"3;x\r\nabc\r\n0\r\nX: y\r\n\r\n", b"3;x\r\nabc\r\n0\r\nX: y\r\n\r\n", id="chunked"
        ),
    ],
)
async def test_the_body_is_passed_and_what_follows_is_not(data: bytes, passed: bytes, split: bool) -> None:
    async with world() as it:
        keeper = Keeper()
        it.stage.act = lambda exchange: exchange.hand_over(lambda: keeper, HEAD)
        client = await it.client()
        await client.send(data + GET, split)
        await it.until(lambda: keeper.received == HEAD + passed)
        await client.send(GET)
        await asyncio.sleep(0.05)
        assert keeper.received == HEAD + passed, "a second request meets nobody"
        assert it.stage.over == []
        client.close()
        await it.until(lambda: it.stage.over)
        assert keeper.ends == [None]
        assert len(it.stage.handled) == 1
        assert (it.stage.over[0].status, len(it.registry)) == (0, 0)


async def test_later_and_with_a_body_that_came_meanwhile() -> None:
    async with world() as it:
        kept: list[Exchange] = []
        keeper = Keeper()
        it.stage.act = kept.append
        client = await it.client()
        await client.send(POST + b"ab")
        await it.until(lambda: kept)
        await client.send(b"c" + GET)
        await asyncio.sleep(0.05)
        kept[0].hand_over(lambda: keeper, HEAD)
        await it.until(lambda: keeper.received == HEAD + b"abc")


async def test_a_malformed_body_ends_it() -> None:
    async with world() as it:
        keeper = Keeper()
        it.stage.act = lambda exchange: exchange.hand_over(lambda: keeper, HEAD)
        client = await it.client()
        await client.send(CHUNKED + b"3\nabc")
        assert await client.rest() == b""
        assert keeper.received == HEAD


@pytest.mark.parametrize("how", ["deadline", "abort"])
async def test_it_is_cut(how: str) -> None:
    async with world(limits=Limits(hand_over=0.1 if how == "deadline" else 60.0)) as it:
        keeper = Keeper()
        it.stage.act = lambda exchange: exchange.hand_over(lambda: keeper, HEAD)
        client = await it.client()
        await client.send(GET)
        if how == "abort":
            await it.until(lambda: keeper.received)
            it.stage.handled[0].abort()
        assert await client.rest() == b""
        await it.until(lambda: it.stage.over)
        assert len(keeper.ends) == 1


async def test_flow_control_reaches_the_other_protocol() -> None:
    async with world() as it:
        keeper = Keeper()
        it.stage.act = lambda exchange: exchange.hand_over(lambda: keeper, HEAD)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await it.until(lambda: keeper.received)
        keeper.transport.write(b"a" * 8_000_000)
        await it.until(lambda: keeper.flow == ["pause"])
        client.writer.transport.resume_reading()
        assert len(await client.reader.readexactly(8_000_000)) == 8_000_000
        await it.until(lambda: keeper.flow == ["pause", "resume"])


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("split", [False, True])
async def test_aiohttp_serves_one_request_and_its_end_is_heard(split: bool, tls: bool) -> None:
    async def serve(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        return web.Response(body=b"portal " + request.path.encode() + b" " + body)

    async with world(tls=tls_contexts() if tls else None) as it:
        server = web.Server(serve)
        it.stage.act = lambda exchange: exchange.hand_over(server, HEAD)
        client = await it.client()
        await client.send(POST + b"abc" + GET, split)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"portal /rebuilt abc")
        assert len(it.stage.handled) == 1, "the request behind it is not served by aiohttp"
        await server.shutdown(0.1)
        assert await client.rest() == b""
        await it.until(lambda: it.stage.over)
