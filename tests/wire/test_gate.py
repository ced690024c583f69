"""While the gate is closed nothing passes, in either direction; when it opens all goes on, in order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

import pytest

from tests.wire.recording import OK, Line, answers, silent
from tests.wire.test_tunnel import ASK, switching
from tests.wire.world import Client, Turnstile, World, tls_contexts, world
from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import Timeouts
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"
POST = b"POST /u HTTP/1.1\r\nHost: app.test\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\n"
MOMENT = 0.03
"""For what must not happen: long enough to be seen, and no test fails for its being short."""


def gated(it: World, *, lets: int = 2**60) -> Turnstile:
    gate = it.stage.gate = Turnstile(lets=lets)
    return gate


async def asked(it: World, data: bytes) -> tuple[Client, Exchange]:
    """A client whose request has reached the app."""
    client = await it.client()
    await client.send(data)
    await it.until(lambda: it.app.received.count(b"\r\n\r\n") == len(it.stage.handled) > 0)
    return client, it.stage.handled[-1]


async def app_sends(it: World, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        await it.app.lines[-1].send(piece)
        await asyncio.sleep(MOMENT)


def body_at(it: World) -> bytes:
    """What of the last request's body the app has read."""
    return it.app.received.rpartition(b"Host: app.test")[2].partition(b"\r\n\r\n")[2]


def plain(body: bytes) -> bytes:
    """A body without the framing of its chunks, if it is of letters that are no digits of a size."""
    return re.sub(rb"[^g-z]", b"", body)


async def settled(it: World) -> None:
    """Nothing was lent and not given back."""
    await it.until(lambda: it.pool.targets[0].active == 0)
    assert it.pool.connections == set(it.pool.targets[0].idle)


# Answers.


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("closes_after", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("request_head", "pieces", "ends"),
    [
        pytest.param(GET, [LENGTH, b"abc", b"def", b"ghi"], False, id="counted"),
        pytest.param(
            GET,
            [CHUNKED, b"3\r\nabc\r\n", b"6\r\ndef", b"ghi\r\n0\r\n\r\n"],
            False,
            id="chunked, server-sent",
        ),
        pytest.param(GET, [TO_THE_END, b"abc", b"def", b"ghi"], True, id="to the end"),
        pytest.param(
            GET.replace(b"1.1", b"1.0"), [TO_THE_END, b"abc", b"def", b"ghi"], True, id="to HTTP/1.0"
        ),
    ],
)
async def test_an_answer_waits_and_goes_on(
    request_head: bytes, pieces: list[bytes], ends: bool, closes_after: int, tls: bool
) -> None:
    async with world(silent, tls=tls_contexts() if tls else None) as it:
        gate = gated(it)
        client, exchange = await asked(it, request_head)
        passed = [0, 0, 3, 6][closes_after]
        await app_sends(it, pieces[:closes_after])
        await it.until(lambda: bool(exchange.status) == (closes_after > 0) and exchange.bytes_out == passed)
        gate.close()
        await app_sends(it, pieces[closes_after:])
        if ends:
            it.app.lines[0].close()
        await it.until(lambda: gate.met)
        await asyncio.sleep(MOMENT)
        assert (bool(exchange.status), exchange.bytes_out) == (closes_after > 0, passed), "nothing passed"
        assert exchange.frozen and exchange.under_way and not it.stage.over
        gate.reopen()
        answer = await client.answer()
        assert (answer.status, answer.body, answer.complete) == (200, b"abcdefghi", True)
        assert gate.met == [exchange], "told once"
        await it.until(lambda: it.stage.over == [exchange])
        assert exchange.failure is None
        await settled(it)
        if not ends:
            assert len(it.pool.connections) == 1, "the connection serves again"


async def test_a_small_answer_asks_twice_and_a_strangers_not_at_all() -> None:
    async with world(answers(OK)) as it:
        gate = gated(it)
        assert (await it.ask(GET)).status == 200
        assert gate.asked == 2
        it.stage.gate = None
        assert (await it.ask(GET)).status == 200
        assert gate.asked == 2
        assert not it.stage.over[1].guarded


async def test_what_arrives_after_the_pause_is_kept_in_order() -> None:
    """A TLS transport may deliver more after `pause_reading`; so the test does."""
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await asked(it, GET)
        (connection,) = it.pool.connections
        gate.close()
        for piece in (CHUNKED[:20], CHUNKED[20:] + b"3\r\nab", b"c\r\n3\r\nde", b"f\r\n0\r\n\r\n"):
            connection.data_received(piece)
        assert (exchange.status, exchange.bytes_out, gate.met) == (0, 0, [exchange])
        gate.reopen()
        assert (await client.answer()).body == b"abcdef"
        await settled(it)
        assert len(it.pool.connections) == 1


@pytest.mark.parametrize(
    ("pieces", "body", "complete"),
    [
        pytest.param([TO_THE_END + b"ab", b"cd"], b"abcd", True, id="its end is the end"),
        pytest.param([LENGTH, b"abcd"], b"abcd", False, id="too short"),
    ],
)
async def test_an_app_that_ends_meanwhile(pieces: list[bytes], body: bytes, complete: bool) -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await asked(it, GET)
        (connection,) = it.pool.connections
        connection.data_received(pieces[0])
        gate.close()
        connection.data_received(pieces[1])
        connection.eof_received()
        connection.connection_lost(None)
        assert exchange.frozen and exchange.alive
        connection.transport.abort()
        await asyncio.sleep(MOMENT)
        gate.reopen()
        answer = await client.answer()
        assert answer.complete is complete
        assert not complete or answer.body == body
        await it.until(lambda: it.stage.over)
        assert it.stage.over[0].failure is (None if complete else Reason.UPSTREAM_INVALID)
        await settled(it)
        assert not it.pool.connections


async def test_the_end_alone_does_not_pass_either() -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await asked(it, GET)
        await app_sends(it, [TO_THE_END + b"abc"])
        await it.until(lambda: exchange.bytes_out == 3)
        gate.close()
        it.app.lines[0].close()
        await it.until(lambda: gate.met)
        assert exchange.alive, "a clean end is a piece too"
        gate.reopen()
        answer = await client.answer()
        assert (answer.body, answer.complete) == (b"abc", True)


async def test_what_lies_behind_a_kept_answer_never_answers_the_next_request() -> None:
    async with world(silent, answers(OK)) as it:
        gate = gated(it)
        client, _ = await asked(it, GET)
        await client.send(GET)
        (connection,) = it.pool.connections
        gate.close()
        connection.data_received(LENGTH + b"abcdefghi")
        connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")
        gate.reopen()
        assert [(await client.answer()).body for _ in range(2)] == [b"abcdefghi", b"ok"]
        assert len(it.app.lines) == 2


async def test_a_gate_that_closes_again_at_what_was_kept() -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await asked(it, GET)
        (connection,) = it.pool.connections
        gate.close()
        for piece in (LENGTH, b"abc", b"def", b"ghi"):
            connection.data_received(piece)
        for passed in (0, 0, 3, 6):
            assert (exchange.bytes_out, exchange.frozen) == (passed, True)
            gate.is_open, gate.lets = True, gate.asked + 1
            exchange.thaw()
        assert len(gate.met) == 4
        assert (await client.answer()).body == b"abcdefghi"


# Uploads.


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("closes_after", [0, 1, 2])
@pytest.mark.parametrize(
    ("framing", "pieces"),
    [
        pytest.param(b"Content-Length: 9\r\n", [b"klm", b"nop", b"qrs"], id="counted"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n",
            [b"3\r\nklm\r\n", b"3\r\nnop\r\n", b"3\r\nqrs\r\n0\r\n\r\n"],
            id="chunked",
        ),
    ],
)
async def test_an_upload_waits_and_goes_on(
    framing: bytes, pieces: list[bytes], closes_after: int, tls: bool
) -> None:
    async with world(answers(OK), tls=tls_contexts() if tls else None) as it:
        it.app.plays = [silent]
        gate = gated(it)
        client, exchange = await asked(it, POST + framing + b"\r\n")
        for piece in pieces[:closes_after]:
            await client.send(piece)
        await it.until(lambda: exchange.bytes_in == 3 * closes_after)
        gate.close()
        for piece in pieces[closes_after:]:
            await client.send(piece)
            await asyncio.sleep(MOMENT)
        await it.until(lambda: gate.met)
        assert exchange.bytes_in == 3 * closes_after
        assert plain(body_at(it)) == b"klmnop"[: 3 * closes_after]
        gate.reopen()
        await it.until(lambda: plain(body_at(it)) == b"klmnopqrs" and exchange.bytes_in == 9)
        await app_sends(it, [OK])
        assert (await client.answer()).body == b"ok"
        assert body_at(it).endswith(b"\r\n0\r\n\r\n") is (b"chunked" in framing)
        assert gate.met == [exchange]
        await settled(it)


async def test_it_closes_between_the_head_and_the_body_of_one_read() -> None:
    async with world(answers(OK)) as it:
        gate = gated(it, lets=1)
        client, exchange = await asked(it, POST + b"Content-Length: 3\r\n\r\nabc")
        await it.until(lambda: gate.met)
        assert (body_at(it), exchange.bytes_in) == (b"", 0)
        gate.reopen()
        assert (await client.answer()).body == b"ok"
        assert body_at(it) == b"abc"


async def test_both_directions_at_once() -> None:
    """The client still uploads while it is answered; each side meets the closed gate."""
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await asked(it, POST + b"Content-Length: 6\r\n\r\n")
        await app_sends(it, [LENGTH + b"abc"])
        await client.send(b"uvw")
        await it.until(lambda: (exchange.bytes_in, exchange.bytes_out) == (3, 3))
        gate.close()
        await client.send(b"xyz")
        await app_sends(it, [b"defghi"])
        await it.until(lambda: gate.met)
        await asyncio.sleep(MOMENT)
        assert (exchange.bytes_in, exchange.bytes_out) == (3, 3)
        gate.reopen()
        assert (await client.answer()).body == b"abcdefghi"
        assert gate.met == [exchange]


async def test_what_is_pipelined_behind_a_frozen_exchange_waits_its_turn() -> None:
    async with world(silent, answers(OK)) as it:
        gate = gated(it)
        client, _ = await asked(it, GET)
        gate.close()
        await app_sends(it, [OK])
        await it.until(lambda: gate.met)
        await client.send(GET * 2)
        await asyncio.sleep(MOMENT)
        assert len(it.stage.handled) == 1
        it.app.plays = [silent, answers(OK)]
        gate.reopen()
        assert (await client.answer()).body == b"ok"
        await it.until(lambda: it.app.received.count(b"GET /u") == 2)
        await app_sends(it, [OK])
        assert (await client.answer()).body == b"ok"


# Before anything was sent.


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_retry_of_a_stale_connection_meets_the_closed_gate(frozen: bool) -> None:
    """INV-6: the second attempt is asked for by itself, and the app hears nothing of it."""

    async def once_and_then_hang_up(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await line.until(b"\r\n\r\n")
        gate.close()
        if frozen:
            it.stage.handled[1].freeze()
        line.close()

    async with world(once_and_then_hang_up, answers(OK)) as it:
        gate = gated(it)
        client = await it.client()
        assert (await client.ask(GET)).status == 200
        await client.send(GET)
        if frozen:
            await it.until(lambda: it.stage.handled[1:] and it.stage.handled[1].frozen)
            await asyncio.sleep(MOMENT)
            it.stage.handled[1].thaw()
        assert (await client.answer()).status == 503
        assert (it.app.requests, it.pool.retries) == (2, 1)
        assert it.stage.over[1].failure is Reason.STATE_UNAVAILABLE
        assert gate.met == [], "what is given up is nobody's to thaw"
        await settled(it)
        gate.reopen()
        assert (await client.ask(GET)).status == 200, "the client's connection is kept"
        assert len(it.app.lines) == 2, "and what was opened for nothing is used"


# Gates that misbehave.


async def test_a_gate_that_raises_is_closed() -> None:
    async with world(silent) as it:
        gate = gated(it)
        it.expected_mistakes = ["a gate failed"]
        client, exchange = await asked(it, GET)
        gate.breaks = True
        await app_sends(it, [OK])
        await it.until(lambda: gate.met)
        assert (exchange.status, exchange.frozen) == (0, True)
        gate.breaks = False
        gate.reopen()
        assert (await client.answer()).body == b"ok"


async def test_an_exchange_nobody_would_thaw_is_cut() -> None:
    def fails(_: Exchange) -> None:
        raise LookupError

    async with world(silent) as it:
        gate = gated(it)
        gate.then = fails
        it.expected_mistakes = ["a gate failed"]
        client, exchange = await asked(it, GET)
        gate.close()
        await app_sends(it, [OK])
        assert (await client.answer()).status == 503
        assert exchange.failure is Reason.STATE_UNAVAILABLE
        await settled(it)


@pytest.mark.parametrize("way", ["down", "up", "end"])
async def test_who_holds_the_gate_may_cut_at_once(way: str) -> None:
    async with world(silent) as it:
        gate = gated(it)
        gate.then = lambda exchange: exchange.cut(Reason.SESSION_REVOKED)
        client, exchange = await asked(it, POST + b"Content-Length: 3\r\n\r\n")
        if way == "end":
            await app_sends(it, [TO_THE_END])
            await it.until(lambda: exchange.status)
        gate.close()
        if way == "up":
            await client.send(b"abc")
        elif way == "down":
            await app_sends(it, [OK])
        else:
            it.app.lines[0].close()
        await it.until(lambda: it.stage.over)
        assert exchange.failure is Reason.SESSION_REVOKED
        if way != "end":
            assert (await client.answer()).status == 401
        assert body_at(it) == b""
        await settled(it)
        assert not it.pool.connections


# From outside.


@pytest.mark.parametrize("guarded", [False, True])
async def test_a_freeze_from_outside(guarded: bool) -> None:
    async with world(silent) as it:
        if guarded:
            gate = gated(it)
        client, exchange = await asked(it, GET)
        exchange.freeze()
        exchange.freeze()
        await app_sends(it, [LENGTH, b"abcdefghi"])
        assert exchange.status == 0
        assert not guarded or not gate.met, "who froze it knows"
        exchange.thaw()
        exchange.thaw()
        assert (await client.answer()).body == b"abcdefghi"
        exchange.freeze()
        exchange.thaw()
        assert not exchange.frozen


async def test_before_the_app_is_asked_there_is_nothing_to_freeze() -> None:
    async with world(answers(OK)) as it:

        def act(exchange: Exchange) -> None:
            exchange.freeze()
            assert not exchange.frozen and not exchange.under_way
            it.stage.forward(exchange)
            exchange.freeze()
            assert not exchange.frozen and exchange.under_way

        it.stage.act = act
        assert (await it.ask(GET)).body == b"ok"


async def test_a_client_that_leaves_meanwhile_is_noticed_at_the_latest_then() -> None:
    async with world(silent) as it:
        client, exchange = await asked(it, GET)
        exchange.freeze()
        client.close()
        await app_sends(it, [LENGTH])
        exchange.thaw()
        await it.until(lambda: it.stage.over)
        await it.until(lambda: not it.pool.connections)


# Time.


@pytest.mark.parametrize("pieces", [[], [LENGTH], [LENGTH, b"abc"]])
async def test_the_apps_timers_stand_still(pieces: list[bytes]) -> None:
    async with world(silent, timeouts=Timeouts(idle=0.2, first_byte=0.2)) as it:
        client, exchange = await asked(it, GET)
        for piece in pieces:
            await it.app.lines[0].send(piece)
        await it.until(
            lambda: bool(pieces) == bool(exchange.status) and exchange.bytes_out == 3 * (len(pieces) == 2)
        )
        exchange.freeze()
        await it.app.lines[0].send((LENGTH + b"abcdefghi").removeprefix(b"".join(pieces)))
        await asyncio.sleep(0.5)
        assert exchange.alive
        exchange.thaw()
        assert (await client.answer()).body == b"abcdefghi"


@pytest.mark.parametrize("pieces", [[], [LENGTH, b"abc"]])
async def test_but_the_total_runs_on(pieces: list[bytes]) -> None:
    async with world(silent, timeouts=Timeouts(total=0.3)) as it:
        client, exchange = await asked(it, GET)
        await app_sends(it, pieces)
        exchange.freeze()
        await it.app.lines[0].send(b"more")
        answer = await client.answer()
        assert (answer.status, answer.complete) == ((200, False) if pieces else (504, True))
        assert exchange.failure is Reason.UPSTREAM_TIMEOUT
        await settled(it)
        exchange.thaw()
        if not pieces:
            it.app.plays = [answers(OK)]
            assert (await client.ask(GET)).body == b"ok", "the client's connection serves again"


async def test_an_app_that_owes_an_answer_has_its_whole_time_anew() -> None:
    async with world(silent, timeouts=Timeouts(first_byte=0.2)) as it:
        client, exchange = await asked(it, GET)
        exchange.freeze()
        await asyncio.sleep(0.3)
        exchange.thaw()
        assert (await client.answer()).status == 504
        assert exchange.failure is Reason.UPSTREAM_TIMEOUT


async def test_an_upload_is_not_late_because_it_had_to_wait() -> None:
    limits = Limits(body_stall=0.3, body_rate_after=0.1, body_rate=10)
    async with world(silent, limits=limits) as it:
        client, exchange = await asked(it, POST + b"Content-Length: 3\r\n\r\n")
        exchange.freeze()
        await client.send(b"abc")
        await asyncio.sleep(0.8)
        exchange.thaw()
        await it.until(lambda: body_at(it) == b"abc")
        await app_sends(it, [OK])
        assert (await client.answer()).body == b"ok"


async def test_an_upload_that_stalls_after_it_is_late() -> None:
    async with world(silent, limits=Limits(body_stall=0.2)) as it:
        client, exchange = await asked(it, POST + b"Content-Length: 3\r\n\r\n")
        exchange.freeze()
        await asyncio.sleep(0.3)
        exchange.thaw()
        assert (await client.answer()).status == 408


# Back-pressure.


async def floods(line: Line) -> None:
    await line.until(b"\r\n\r\n")
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD)
    for _ in range(FLOOD // 65536):
        await line.send(b"a" * 65536)


FLOOD = 32 * 1024 * 1024


async def full(it: World) -> tuple[Client, Exchange]:
    """A client that reads nothing of a large answer, all buffers on the way being full."""
    client = await it.client()
    client.writer.transport.pause_reading()
    await client.send(GET)
    await it.until(lambda: it.stage.handled and it.stage.handled[0].bytes_out)
    exchange = it.stage.handled[0]
    before = -1
    while before != exchange.bytes_out:
        before = exchange.bytes_out
        await asyncio.sleep(0.2)
    assert before < FLOOD
    return client, exchange


async def test_a_client_that_reads_again_while_it_is_frozen_gets_no_more() -> None:
    async with world(floods) as it:
        client, exchange = await full(it)
        exchange.freeze()
        before = exchange.bytes_out
        client.writer.transport.resume_reading()
        (connection,) = it.registry._all
        await it.until(lambda: not connection.transport.get_write_buffer_size())
        await asyncio.sleep(MOMENT)
        assert exchange.bytes_out == before
        assert not any(one.transport.is_reading() for one in (connection, *it.pool.connections))
        exchange.thaw()
        assert len((await client.answer()).body) == FLOOD


async def test_a_client_that_is_still_full_when_it_thaws_is_not_flooded() -> None:
    limits = Limits(write_stall=0.5)
    async with world(floods, limits=limits) as it:
        client, exchange = await full(it)
        exchange.freeze()
        next(iter(it.registry._all)).pause_writing()  # uvloop may say so only at the end of its round
        await asyncio.sleep(0.7)
        assert exchange.alive, "nobody stalls while nothing may pass"
        before = exchange.bytes_out
        exchange.thaw()
        await asyncio.sleep(MOMENT)
        assert exchange.bytes_out == before
        client.writer.transport.resume_reading()
        assert len((await client.answer()).body) == FLOOD


async def test_an_app_that_is_full_while_it_is_frozen() -> None:
    size = 8 * 1024 * 1024

    async def deaf(line: Line) -> None:
        line.pause()
        await reads.wait()
        line._writer.transport.resume_reading()
        while len(line.received) < size:
            await line.more(size)
        await line.send(OK)

    reads = asyncio.Event()
    async with world(deaf, timeouts=Timeouts(idle=0.5)) as it:
        client = await it.client()
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % size)
        writing = asyncio.create_task(client.send(b"b" * size))
        await it.until(lambda: it.pool.connections and next(iter(it.pool.connections)).full)
        exchange = it.stage.handled[0]
        exchange.freeze()
        before = exchange.bytes_in
        await asyncio.sleep(0.7)
        assert exchange.alive, "nor is the app late"
        reads.set()
        (connection,) = it.pool.connections
        await it.until(lambda: not connection.full)
        await asyncio.sleep(MOMENT)
        assert exchange.bytes_in == before
        assert not any(one.transport.is_reading() for one in (connection, *it.registry._all))
        exchange.thaw()
        assert (await client.answer()).body == b"ok"
        await writing


# Tunnels.


async def opened(it: World) -> tuple[Client, Exchange]:
    client = await it.client()
    await client.send(ASK + b"\r\n")
    await it.until(lambda: it.app.received)
    await it.app.lines[-1].send(switching())
    assert (await client.answer()).status == 101
    return client, it.stage.handled[-1]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("way", ["down", "up"])
async def test_a_tunnel_waits_and_goes_on(way: str, tls: bool) -> None:
    async with world(silent, tls=tls_contexts() if tls else None) as it:
        gate = gated(it)
        client, exchange = await opened(it)
        gate.close()

        async def talk(word: bytes) -> None:
            if way == "up":
                await client.send(word)
                await app_sends(it, [word])
            else:
                await app_sends(it, [word])
                await client.send(word)

        for word in (b"one", b"two", b"three"):
            await talk(word)
        await it.until(lambda: gate.met)
        await asyncio.sleep(MOMENT)
        assert (exchange.bytes_in, exchange.bytes_out) == (0, 0)
        gate.reopen()
        assert await client.reader.readexactly(11) == b"onetwothree"
        await it.until(lambda: it.app.received.endswith(b"onetwothree"))
        assert gate.met == [exchange]
        await talk(b"four")
        assert await client.reader.readexactly(4) == b"four"
        client.close()
        await it.until(lambda: it.stage.over)
        await settled(it)


async def test_a_101_waits_and_what_follows_it() -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await asked(it, ASK + b"\r\n")
        gate.close()
        (connection,) = it.pool.connections
        head = switching()
        for piece in (head[:30], head[30:] + b"one", b"two", b"three"):
            connection.data_received(piece)
        await client.send(b"early")
        assert (exchange.status, exchange.is_tunnel) == (0, False)
        gate.reopen()
        assert (await client.answer()).status == 101
        assert await client.reader.readexactly(11) == b"onetwothree"
        await it.until(lambda: it.app.received.endswith(b"early"))


async def test_a_gate_that_closes_again_in_a_tunnel() -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await opened(it)
        gate.close()
        for word in (b"one", b"two"):
            exchange._tunnel._client.data_received(word.upper())
            exchange._tunnel._app.data_received(word)
        for passed in ((0, 0), (3, 0), (6, 0), (6, 3)):
            assert (exchange.bytes_in, exchange.bytes_out, exchange.frozen) == (*passed, True)
            gate.is_open, gate.lets = True, gate.asked + 1
            exchange.thaw()
        assert len(gate.met) == 4
        assert await client.reader.readexactly(6) == b"onetwo"
        await it.until(lambda: it.app.received.endswith(b"ONETWO"))


@pytest.mark.parametrize("half", [False, True])
async def test_an_app_that_has_gone_behind_its_101_makes_no_tunnel(half: bool) -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, _ = await asked(it, ASK + b"\r\n")
        gate.close()
        (connection,) = it.pool.connections
        connection.data_received(switching())
        if half:
            connection.eof_received()
        else:
            connection.connection_lost(None)
        gate.reopen()
        assert (await client.answer()).status == 502
        await settled(it)


async def test_a_gate_that_closes_right_behind_the_101() -> None:
    async with world(silent) as it:
        gate = gated(it, lets=2)
        client, exchange = await asked(it, ASK + b"\r\nearly")
        await it.app.lines[0].send(switching() + b"rest")
        assert (await client.answer()).status == 101
        await it.until(lambda: gate.met)
        assert (exchange.bytes_in, exchange.bytes_out) == (0, 0)
        gate.reopen()
        assert await client.reader.readexactly(4) == b"rest"
        await it.until(lambda: it.app.received.endswith(b"early"))


@pytest.mark.parametrize("who", ["client", "app"])
async def test_a_half_close_waits_behind_what_was_said(who: str) -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, exchange = await opened(it)
        sides = exchange._tunnel._client, exchange._tunnel._app
        side = sides[who == "app"]
        gate.close()
        side.data_received(b"last words")
        assert side.eof_received()
        await asyncio.sleep(MOMENT)
        assert not it.app.lines[0].ended.is_set() and not it.app.received.endswith(b"words")
        gate.reopen()
        if who == "client":
            await it.until(it.app.lines[0].ended.is_set)
            assert it.app.received.endswith(b"last words")
        else:
            assert await client.rest() == b"last words"


async def test_a_half_close_alone_meets_the_gate() -> None:
    async with world(silent) as it:
        gate = gated(it)
        client, _ = await opened(it)
        gate.close()
        client.writer.write_eof()
        await it.until(lambda: gate.met)
        assert not it.app.lines[0].ended.is_set()
        gate.reopen()
        await it.until(it.app.lines[0].ended.is_set)


async def test_over_tls_a_client_that_closes_while_frozen_is_heard_to_the_end() -> None:
    async with world(silent, tls=tls_contexts()) as it:
        gate = gated(it)
        client, exchange = await opened(it)
        gate.close()
        client.writer.write(b"last words")
        await it.until(lambda: gate.met)
        client.writer.transport.abort()
        await asyncio.sleep(MOMENT)
        assert exchange.alive and not it.app.received.endswith(b"words")
        gate.reopen()
        await it.until(lambda: it.app.received.endswith(b"last words"))
        await it.until(lambda: it.stage.over)
        await settled(it)


async def test_a_side_that_breaks_while_frozen_ends_the_other() -> None:
    async with world(silent) as it:
        client, exchange = await opened(it)
        exchange.freeze()
        tunnel = exchange._tunnel
        tunnel._app.data_received(b"one")
        tunnel._app.connection_lost(ConnectionResetError())
        assert await client.rest() == b""
        await it.until(lambda: it.stage.over)
        await settled(it)


async def test_both_sides_may_leave_while_frozen() -> None:
    async with world(silent) as it:
        _, exchange = await opened(it)
        exchange.freeze()
        for side in (exchange._tunnel._app, exchange._tunnel._client):
            side.transport.abort()
        await it.until(lambda: it.stage.over)
        exchange.thaw()
        await settled(it)


async def test_a_frozen_tunnel_is_not_idle() -> None:
    async with world(silent, timeouts=Timeouts(tunnel_idle=0.2)) as it:
        client, exchange = await opened(it)
        exchange.freeze()
        await asyncio.sleep(0.5)
        assert exchange.alive
        await client.send(b"hello")
        exchange.thaw()
        await it.until(lambda: it.app.received.endswith(b"hello"))
        assert await client.rest() == b"", "idle again, it is ended"


async def test_a_tunnel_that_was_full_when_frozen() -> None:
    async def floods_on(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        while True:
            await line.send(b"a" * 65536)

    async with world(floods_on) as it:
        client = await it.client()
        await client.send(ASK + b"\r\n")
        assert (await client.answer()).status == 101
        client.writer.transport.pause_reading()
        exchange = it.stage.handled[0]
        await it.until(lambda: exchange._tunnel._client.full)
        exchange.freeze()
        client.writer.transport.resume_reading()
        await it.until(lambda: not exchange._tunnel._client.full)
        sides = exchange._tunnel._client, exchange._tunnel._app
        assert not any(side.transport.is_reading() for side in sides)
        before = exchange.bytes_out
        await asyncio.sleep(MOMENT)
        assert exchange.bytes_out == before
        client.writer.transport.pause_reading()
        exchange.thaw()
        await it.until(lambda: exchange.bytes_out > before)
        exchange.cut(Reason.SESSION_REVOKED)


def forward_to_a_full_client(it: World) -> Callable[[Exchange], None]:
    """Something of ours is still unsent when the app is asked."""

    def act(exchange: Exchange) -> None:
        (connection,) = it.registry._all
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n" + b"a" * 8_000_000)
        it.stage.forward(exchange)

    return act


async def test_a_client_that_is_full_does_not_let_a_tunnel_flood_us() -> None:
    async def floods_on(line: Line) -> None:
        await line.until(b"\r\n\r\n")
        await line.send(switching())
        while True:
            await line.send(b"a" * 65536)

    async with world(floods_on) as it:
        it.stage.act = forward_to_a_full_client(it)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(ASK + b"\r\n")
        await it.until(lambda: it.app.received)
        await asyncio.sleep(0.2)
        exchange = it.stage.handled[0]
        assert exchange.bytes_out < 1_000_000
        client.writer.transport.resume_reading()
        assert len((await client.answer()).body) == 8_000_000
        assert (await client.answer()).status == 101
        assert await client.reader.readexactly(100_000) == b"a" * 100_000
        exchange.abort()


async def test_nor_one_whose_101_was_on_its_way_already() -> None:
    async with world(silent) as it:
        it.stage.act = forward_to_a_full_client(it)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(ASK + b"\r\n")
        await it.until(lambda: it.app.received)
        (connection,) = it.pool.connections
        connection.data_received(switching())
        assert it.stage.handled[0].is_tunnel
        assert not connection.transport.is_reading()
        client.writer.transport.resume_reading()
        assert len((await client.answer()).body) == 8_000_000
        assert (await client.answer()).status == 101
        await app_sends(it, [b"hello"])
        assert await client.reader.readexactly(5) == b"hello"


async def test_nor_an_answer() -> None:
    async with world(floods, limits=Limits(write_stall=1.0)) as it:
        it.stage.act = forward_to_a_full_client(it)
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await it.until(lambda: it.app.received)
        await asyncio.sleep(0.3)
        assert it.stage.handled[0].bytes_out < 1_000_000
        await it.until(lambda: it.stage.over)
