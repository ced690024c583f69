"""Upgrades: when there is a tunnel, what goes through it, and how it ends."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import suppress
from hashlib import sha1

import pytest

from tests.wire.recording import Line, answers, silent
from tests.wire.world import Client, World, tls_contexts, world
from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import Timeouts
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.frames import FrameFollower
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


# The end that is forced.


BIG = b"\x82\x7e\x01\x00" + b"a" * 256
MASKED = b"\x81\x83mask" + b"xyz"
GOODBYE = b"\x88\x0e\x03\xf0access ended"
LEAVING = b"\x88\x0c\x03\xe9going away"


def unmasked(frame: bytes) -> bytes:
    """A small frame as it would be without its mask."""
    mask, hidden = frame[2:6], frame[6:]
    return bytes((frame[0], frame[1] & 0x7F)) + bytes(octet ^ mask[i % 4] for i, octet in enumerate(hidden))


async def talked(
    it: World, *, up: bytes = b"", down: bytes = b"", ask: bytes = ASK
) -> tuple[Client, Exchange]:
    """A tunnel through which this has gone; the app's side is `it.app.lines[0]`."""
    client = await it.client()
    await client.send(ask + b"\r\n")
    await it.until(lambda: it.app.received.endswith(b"\r\n\r\n"))
    await it.app.lines[0].send(switching(upgrade=it.stage.handled[0].request.upgrade.encode()))
    assert (await client.answer()).status == 101
    exchange = it.stage.handled[0]
    await client.send(up)
    await it.app.lines[0].send(down)
    if down:
        assert await client.reader.readexactly(len(down)) == down
    await it.until(lambda: it.app.received.endswith(up) and exchange.bytes_in == len(up))
    return client, exchange


def up_to_now(it: World) -> bytes:
    return it.app.received.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("up", "down", "app_told", "client_told"),
    [
        pytest.param(b"", b"", True, True, id="nothing was said yet"),
        pytest.param(MASKED, BIG, True, True, id="FI43 both between two frames"),
        pytest.param(MASKED, BIG[:-1], True, False, id="the app in the middle of a frame"),
        pytest.param(MASKED[:-1], BIG, False, True, id="the client in the middle of one"),
        pytest.param(MASKED[:3], BIG[:3], False, False, id="both in a header"),
        pytest.param(MASKED, BIG + b"\x88\x00", True, False, id="the app has said goodbye"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0\r\n", False, False, id="what is no WebSocket"),
    ],
)
async def test_a_cut_tunnel_says_why_where_it_can(
    up: bytes, down: bytes, app_told: bool, client_told: bool, frozen: bool, tls: bool
) -> None:
    async with world(silent, tls=tls_contexts() if tls else None) as it:
        client, exchange = await talked(it, up=up, down=down)
        app = exchange._tunnel._app
        counted = (exchange.bytes_in, exchange.bytes_out)
        if frozen:
            exchange.freeze()
            app.data_received(b"KEPT")
            await client.send(b"KEPT")
        exchange.cut(Reason.SESSION_REVOKED)
        exchange.cut(Reason.LOCKED)
        assert exchange.alive and not exchange.under_way and not exchange.is_tunnel
        exchange.freeze()
        exchange.thaw()
        app.data_received(BIG)
        with suppress(ConnectionError):
            await client.send(MASKED)
        assert await client.rest() == (GOODBYE if client_told else b"")
        await it.until(lambda: it.app.lines[0].ended.is_set())
        said = up_to_now(it).removeprefix(up)
        assert (unmasked(said) if app_told else said) == (GOODBYE if app_told else b"")
        await it.until(lambda: it.stage.over == [exchange])
        assert (exchange.bytes_in, exchange.bytes_out) == counted
        assert exchange.failure is Reason.SESSION_REVOKED, "the first reason stays"
        assert not it.pool.connections and it.pool.targets[0].active == 0
        assert len(it.registry) == 0


async def test_another_protocol_is_cut_without_a_word() -> None:
    ask = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: spdy/3.1\r\n"
    async with world(silent) as it:
        client, exchange = await talked(it, up=MASKED, down=BIG, ask=ask)
        exchange.cut(Reason.SESSION_REVOKED)
        assert await client.rest() == b""
        await it.until(lambda: it.stage.over)
        assert up_to_now(it) == MASKED


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_has_not_taken_all_is_cut_at_once(tls: bool) -> None:
    """What is still in our buffer was the app's: it would go out before the close frame."""
    frame = b"\x82\x7f" + (65536).to_bytes(8, "big") + b"a" * 65536

    async def floods(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        while True:
            await line.send(frame)

    async with world(floods, tls=tls_contexts() if tls else None) as it:
        client = await it.client()
        await client.send(ASK + b"\r\n")
        assert (await client.answer()).status == 101
        client.writer.transport.pause_reading()
        exchange = it.stage.handled[0]
        await it.until(lambda: exchange._tunnel._client.full)
        exchange._tunnel._app.follower = FrameFollower()  # let it be between two frames, for all we know
        exchange.cut(Reason.SESSION_REVOKED)
        await it.until(lambda: it.stage.over)
        client.writer.transport.resume_reading()
        assert GOODBYE not in await client.rest()


async def test_an_app_that_has_not_taken_all_is_cut_at_once() -> None:
    async def deaf(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        line.pause()
        await asyncio.Event().wait()

    async with world(deaf) as it:
        client = await opened(it)
        sending = asyncio.create_task(client.send(b"b" * 32 * 1024 * 1024))
        exchange = it.stage.handled[0]
        await it.until(lambda: exchange._tunnel._app.full)
        exchange._tunnel._client.follower = FrameFollower()
        exchange.cut(Reason.SESSION_REVOKED)
        assert exchange._tunnel._app.transport.is_closing(), "without a word"
        assert await client.rest() == GOODBYE
        await it.until(lambda: it.stage.over)
        await asyncio.gather(sending, return_exceptions=True)


async def test_who_does_not_take_the_close_frame_is_gone_all_the_same() -> None:
    """It keeps its connection open and goes on talking: nobody listens, and soon it is cut."""

    async def stubborn(line: Line) -> None:
        await silent(line)
        await asyncio.Event().wait()

    async with world(stubborn, limits=Limits(linger=0.2)) as it:
        client, exchange = await talked(it, up=MASKED, down=BIG)
        exchange.cut(Reason.SESSION_REVOKED)
        for _ in range(5):
            client.writer.write(MASKED)
        await it.until(lambda: it.stage.over)
        assert exchange.bytes_in == len(MASKED)


async def test_a_client_that_was_told_the_apps_end_is_told_no_more() -> None:
    async def leaves(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        line.half_close()
        await silent(line)

    async with world(leaves) as it:
        client = await opened(it)
        exchange = it.stage.handled[0]
        await it.until(lambda: exchange._tunnel._app.ended)
        exchange.cut(Reason.SESSION_REVOKED)
        assert await client.rest() == b""
        await it.until(lambda: it.stage.over)
        assert unmasked(up_to_now(it)) == GOODBYE


async def test_a_tunnel_one_side_of_which_has_gone_is_cut() -> None:
    async with world(silent, limits=Limits(last_words=60.0)) as it:
        _, exchange = await talked(it)
        exchange._tunnel._app.transport.abort()
        await asyncio.sleep(0)
        exchange.cut(Reason.SESSION_REVOKED)
        await it.until(lambda: it.stage.over)


async def test_abort_after_cut() -> None:
    async with world(silent) as it:
        client, exchange = await talked(it)
        exchange.cut(Reason.SESSION_REVOKED)
        exchange.abort()
        await it.until(lambda: it.stage.over)
        assert len(await client.rest()) in (0, len(GOODBYE))


# The worker drains.


async def test_fi51_a_websocket_is_told_that_we_leave_and_ends_itself() -> None:
    async def app(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching() + BIG)
        while b"\x88\x80mask" not in line.received:
            await line.more()
        await line.send(b"\x88\x00")
        line.half_close()

    async with world(app) as it:
        client = await opened(it)
        assert await client.reader.readexactly(len(BIG)) == BIG
        it.registry.drain()
        assert await client.reader.readexactly(len(LEAVING)) == LEAVING
        await it.app.lines[0].send(BIG)
        await client.send(MASKED + b"\x88\x80mask")
        assert await client.rest() == b"", "after a close frame there is no other"
        client.writer.write_eof()
        await it.until(lambda: len(it.registry) == 0)
        assert up_to_now(it).endswith(MASKED + b"\x88\x80mask"), "the client's own goes through"
        assert it.stage.over[0].failure is None


async def test_a_websocket_in_the_middle_of_a_frame_is_told_after_it() -> None:
    async with world(silent) as it:
        client, exchange = await talked(it, down=BIG[:100])
        it.registry.drain()
        await asyncio.sleep(0.1)
        await it.app.lines[0].send(BIG[100:])
        assert await client.reader.readexactly(256 + 4 - 100 + len(LEAVING)) == BIG[100:] + LEAVING
        await asyncio.sleep(0.1)
        await it.app.lines[0].send(BIG)
        exchange.cut(Reason.SESSION_REVOKED)
        assert await client.rest() == b"", "told once, and nothing after it"


async def test_a_frozen_websocket_is_told_when_it_goes_on() -> None:
    async with world(silent) as it:
        client, exchange = await talked(it)
        exchange.freeze()
        it.registry.drain()
        await asyncio.sleep(0.1)
        exchange._tunnel._app.data_received(BIG)
        exchange.thaw()
        assert await client.reader.readexactly(len(BIG + LEAVING)) == BIG + LEAVING
        it.registry.abort()


async def test_a_draining_worker_says_nothing_in_a_tunnel_that_was_cut() -> None:
    async with world(silent) as it:
        client, exchange = await talked(it)
        it.registry.draining = True
        exchange.cut(Reason.SESSION_REVOKED)
        it.registry.drain()
        assert await client.rest() == GOODBYE
