"""Upgrades: when there is a tunnel, what goes through it, and how it ends."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hashlib import sha1

import pytest

from tests.wire.recording import Line, answers
from tests.wire.world import Client, World, tls_contexts, world
from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import Timeouts
from ztproxy.wire.limits import Limits

ON_BOTH_LOOPS = True

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b64encode(sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
ASK = (
    b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
)
GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"


def switching(fields: bytes = b"", accept: bytes = ACCEPT, upgrade: bytes = b"websocket") -> bytes:
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + fields + b"\r\n"
    )


async def echo(line: Line) -> None:
    await line.until(b"\r\n\r\n")
    await line.send(switching())
    while data := await line.more():
        await line.send(data)
    line.half_close()


async def opened(it: World) -> Client:
    client = await it.client()
    answer = await client.ask(ASK + b"\r\n")
    assert answer.status == 101
    return client


@pytest.mark.parametrize("tls", [False, True])
async def test_a_tunnel_carries_both_ways(tls: bool) -> None:
    async with world(echo, tls=tls_contexts() if tls else None) as it:
        client = await it.client()
        answer = await client.ask(ASK + b"\r\n")
        assert answer.status == 101
        assert (answer["connection"], answer["upgrade"]) == ("Upgrade", "websocket")
        assert answer["sec-websocket-accept"] == ACCEPT.decode()
        assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in it.app.received
        exchange = it.stage.handled[0]
        assert exchange.is_tunnel
        for word in (b"hello", b"\x00" * 100000):
            await client.send(word)
            assert await client.reader.readexactly(len(word)) == word
        client.close()
        await it.until(lambda: it.stage.over)
        assert (exchange.status, exchange.bytes_in, exchange.bytes_out) == (101, 100005, 100005)
        assert not exchange.is_tunnel
        await it.until(lambda: it.app.lines[0].ended.is_set() and not it.pool.connections)
        assert len(it.registry) == 0


async def test_w13_early_data_is_held_until_the_101() -> None:
    async def late(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        assert b"early" not in line.received
        await line.send(switching() + b"first")
        while data := await line.more():
            await line.send(data)

    async with world(late) as it:
        client = await it.client()
        await client.send(ASK + b"\r\nearly")
        assert (await client.answer()).status == 101
        assert await client.reader.readexactly(10) == b"firstearly"
        assert it.stage.handled[0].bytes_in == 5


@pytest.mark.parametrize(
    ("sent", "offered"),
    [
        pytest.param(switching(accept=b"x" + ACCEPT[1:]), b"", id="W08 wrong accept"),
        pytest.param(switching(b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"), b"", id="two accepts"),
        pytest.param(switching(upgrade=b"h2c"), b"", id="W10 another protocol"),
        pytest.param(switching(b"Upgrade: websocket\r\n"), b"", id="two protocols"),
        pytest.param(switching(b"Sec-WebSocket-Protocol: c\r\n"), b"a, b", id="W14 subprotocol not offered"),
        pytest.param(switching(b"Sec-WebSocket-Protocol: a\r\n"), b"", id="subprotocol, none offered"),
        pytest.param(switching(b"Sec-WebSocket-Protocol: a\r\n" * 2), b"a", id="two subprotocols"),
    ],
)
async def test_a_101_that_does_not_mean_it_is_no_tunnel(sent: bytes, offered: bytes) -> None:
    async with world(answers(sent + b"EVIL")) as it:
        client = await it.client()
        more = b"Sec-WebSocket-Protocol: " + offered + b"\r\n" if offered else b""
        await client.send(ASK + more + b"\r\nearly")
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (502, "close")
        assert b"EVIL" not in answer.body + await client.rest()
        await it.until(lambda: it.app.lines[0].ended.is_set())
        assert b"early" not in it.app.received
        assert it.stage.over[0].failure is Reason.UPSTREAM_INVALID


async def test_an_offered_subprotocol_is_accepted() -> None:
    async with world(answers(switching(b"Sec-WebSocket-Protocol: b\r\n"))) as it:
        client = await it.client()
        answer = await client.ask(ASK + b"Sec-WebSocket-Protocol: a, b\r\n\r\n")
        assert (answer.status, answer["sec-websocket-protocol"]) == (101, "b")


async def test_another_protocol_needs_no_accept() -> None:
    sent = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nhi"
    async with world(answers(sent)) as it:
        client = await it.client()
        ask = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
        assert (await client.ask(ask)).status == 101
        assert await client.reader.readexactly(2) == b"hi"


async def test_w07_no_101_no_tunnel_and_what_follows_is_judged() -> None:
    refusal = b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno"
    async with world(answers(refusal)) as it:
        client = await it.client()
        await client.send(ASK + b"\r\n" + GET)
        assert (await client.answer()).status == 426
        assert (await client.answer()).status == 426
        assert [exchange.request.path.text for exchange in it.stage.handled] == ["/ws", "/u"]
        assert not any(exchange.is_tunnel for exchange in it.stage.handled)


async def test_w15_a_cut_tunnel_relays_nothing_more() -> None:
    async with world(echo) as it:
        client = await opened(it)
        await client.send(b"one")
        assert await client.reader.readexactly(3) == b"one"
        it.stage.handled[0].abort()
        client.writer.write(b"two")
        assert await client.rest() == b""
        await it.until(lambda: it.app.lines[0].ended.is_set())
        assert b"two" not in it.app.received
        assert it.stage.over == it.stage.handled


@pytest.mark.parametrize("who", ["client", "app"])
async def test_a_half_close_is_passed_on(who: str) -> None:
    async def app_first(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching() + b"bye")
        line.half_close()
        while await line.more():
            pass

    async with world(echo if who == "client" else app_first) as it:
        client = await opened(it)
        if who == "client":
            await client.send(b"last words")
            client.writer.write_eof()
            assert await client.rest() == b"last words"
        else:
            assert await client.rest() == b"bye"
            await client.send(b"still here")
            await it.until(lambda: it.app.received.endswith(b"still here"))
            client.writer.write_eof()
        await it.until(lambda: it.stage.over)


async def test_a_reset_at_the_app_ends_the_client() -> None:
    async def resets(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        await line.more()
        line.reset()

    async with world(resets) as it:
        client = await opened(it)
        await client.send(b"x")
        assert await client.rest() == b""
        await it.until(lambda: it.stage.over)


async def test_an_idle_tunnel_is_cut() -> None:
    async with world(echo, timeouts=Timeouts(tunnel_idle=0.2)) as it:
        client = await opened(it)
        for _ in range(4):
            await client.send(b"x")
            assert await client.reader.readexactly(1) == b"x"
            await asyncio.sleep(0.1)
        assert it.stage.handled[0].is_tunnel, "what moves is not idle"
        assert await client.rest() == b""


async def test_back_pressure_both_ways() -> None:
    async def floods(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        line.pause()
        while True:
            await line.send(b"a" * 65536)

    async with world(floods) as it:
        client = await opened(it)
        client.writer.transport.pause_reading()
        sending = asyncio.create_task(client.send(b"b" * 32 * 1024 * 1024))
        exchange = it.stage.handled[0]
        before = (-1, -1)
        while before != (exchange.bytes_in, exchange.bytes_out):
            before = exchange.bytes_in, exchange.bytes_out
            await asyncio.sleep(0.3)
        tunnel = exchange._tunnel
        for side in (tunnel._client, tunnel._app):
            assert side.transport.get_write_buffer_size() < 1024 * 1024
        sending.cancel()
        exchange.abort()


async def test_a_side_that_does_not_take_its_last_words_is_cut() -> None:
    half_closed = asyncio.Event()

    def unsent() -> int:
        return it.stage.handled[0]._tunnel._client.transport.get_write_buffer_size()

    async def leaves(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        await it.until(lambda: it.stage.handled[0].is_tunnel)
        while not unsent():
            await line.send(b"a" * 16384)
            await asyncio.sleep(0.001)
        await half_closed.wait()
        line.close()

    async with world(leaves, limits=Limits(last_words=0.1)) as it:
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(ASK + b"\r\n")
        await it.until(lambda: it.stage.handled and it.stage.handled[0].is_tunnel)
        await it.until(unsent)
        client.writer.write_eof()
        await it.until(lambda: it.stage.handled[0]._tunnel._client.ended)
        half_closed.set()
        await it.until(lambda: it.stage.over)


async def test_a_side_that_takes_nothing_is_idle() -> None:
    async def floods(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching() + b"a" * 64_000_000)

    async with world(floods, timeouts=Timeouts(tunnel_idle=0.3)) as it:
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(ASK + b"\r\n")
        await it.until(lambda: it.stage.over)


async def test_a_filter_that_fails_is_no_tunnel() -> None:
    def fails(*_: object) -> list[tuple[bytes, bytes]]:
        raise LookupError

    async with world(echo) as it:
        it.stage.filter = fails
        it.expected_mistakes = ["an answer filter failed"]
        assert (await it.ask(ASK + b"\r\n")).status == 500
        await it.until(lambda: it.app.lines[0].ended.is_set())
