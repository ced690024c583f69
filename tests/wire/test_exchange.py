"""What a handler may do with an exchange, and what the client sees when the app does not do its part."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from math import inf

import pytest

from tests.wire.recording import OK, Line, answers, answers_once, silent
from tests.wire.world import Client, Turnstile, World, tls_contexts, world
from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import Timeouts
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits
from ztproxy.wire.upstream import UpstreamConnection

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"
POST = b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc"
POST_LARGE = b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "status", "body", "length"),
    [
        pytest.param(b"GET", 200, b"hello", "5", id="GET"),
        pytest.param(b"HEAD", 200, b"", "5", id="HEAD has the length alone"),
        pytest.param(b"GET", 204, b"", None, id="204 has neither"),
        pytest.param(b"GET", 304, b"", None, id="304 has neither"),
        pytest.param(b"GET", 599, b"hello", "5", id="a status without a phrase"),
    ],
)
async def test_respond(method: bytes, status: int, body: bytes, length: str | None) -> None:
    async with world() as it:
        it.stage.act = lambda exchange: exchange.respond(status, [(b"A", b"b")], b"hello")
        client = await it.client()
        for _ in range(2):
            answer = await client.ask(GET.replace(b"GET", method), method.decode())
            assert (answer.status, answer.body) == (status, body)
            assert (answer["content-length"], answer["a"], answer["connection"]) == (length, "b", None)
            assert answer["date"]
        assert [exchange.status for exchange in it.stage.over] == [status, status]
        assert it.stage.over[0].bytes_out == len(body)


async def test_respond_and_close() -> None:
    async with world() as it:
        it.stage.act = lambda exchange: exchange.respond(200, [], b"", close=True)
        client = await it.client()
        assert (await client.ask(GET))["connection"] == "close"
        assert await client.rest() == b""


async def test_refuse() -> None:
    async with world() as it:
        it.stage.act = lambda exchange: exchange.refuse(Reason.GROUP_MISSING)
        client = await it.client()
        answer = await client.ask(GET)
        assert answer.status == 403
        assert answer.body.decode() == Reason.GROUP_MISSING.sentence + "\n"
        assert (answer["connection"], answer["cache-control"]) == ("close", "no-store")
        assert await client.rest() == b""
        assert it.stage.over[0].failure is Reason.GROUP_MISSING


async def test_acting_twice_is_our_mistake_and_acting_too_late_is_none() -> None:
    async with world(silent) as it:
        client = await it.client()
        await client.send(GET)
        await it.until(lambda: it.app.received)
        exchange = it.stage.handled[0]
        with pytest.raises(RuntimeError):
            exchange.respond(200, [])
        with pytest.raises(RuntimeError):
            it.stage.forward(exchange)
        client.close()
        await it.until(lambda: not exchange.alive)
        exchange.respond(200, [])
        exchange.refuse(Reason.INTERNAL)
        it.stage.forward(exchange)
        exchange.abort()
        assert (exchange.status, len(it.app.lines)) == (0, 1)


async def test_deciding_later() -> None:
    async with world() as it:
        kept: list[Exchange] = []
        it.stage.act = kept.append
        client = await it.client()
        await client.send(GET)
        await it.until(lambda: kept)
        assert kept[0].alive and not kept[0].is_tunnel
        it.stage.forward(kept[0])
        assert (await client.answer()).body == b"ok"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(
            b"HTTP/1.1 200 Fine\r\nContent-Length: 002\r\nX: y\r\nConnection: X\r\n\r\nok",
            b"HTTP/1.1 200 Fine\r\nDate\r\nContent-Length: 2\r\n\r\nok",
            id="counted, the length canonical",
        ),
        pytest.param(
            CHUNKED + b"1;x\r\no\r\n1\r\nk\r\n0\r\nSet-Cookie: a=b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nDate\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            id="U32 chunked anew, trailer dropped",
        ),
        pytest.param(
            CHUNKED + b"0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nDate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="chunked and empty",
        ),
        pytest.param(
            b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 204 No Content\r\nDate\r\n\r\n", id="204"
        ),
        pytest.param(
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nDate\r\nContent-Length: 9\r\n\r\n",
            id="304 announces a length",
        ),
        pytest.param(
            b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 205 Reset\r\nDate\r\nContent-Length: 0\r\n\r\n",
            id="205",
        ),
        pytest.param(
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 C\r\n\r\n" + OK,
            b"HTTP/1.1 200 OK\r\nDate\r\nContent-Length: 2\r\n\r\nok",
            id="U15 interim answers are swallowed",
        ),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_the_answer_byte_for_byte(sent: bytes, expected: bytes, split: bool) -> None:
    async with world(answers(sent, split=split)) as it:
        for _ in range(2):
            client = await it.client()
            await client.send(GET)
            head, _, expected_body = expected.partition(b"\r\n\r\n")
            answer = await client.answer()
            got = b"\r\n".join(
                b"Date" if line.startswith(b"Date: ") else line for line in answer.head[:-4].split(b"\r\n")
            )
            assert got == head
            if not split or b"chunked" not in head:
                assert answer.body == (b"ok" if b"ok" in expected_body else b"")
        assert len(it.app.lines) == 1, "the connection served again"


async def test_http_1_0_gets_a_body_to_the_end_and_never_chunks() -> None:
    async with world(answers(CHUNKED + b"2\r\nok\r\n0\r\n\r\n")) as it:
        client = await it.client()
        answer = await client.ask(GET.replace(b"1.1", b"1.0"))
        assert (answer["transfer-encoding"], answer["connection"], answer.body) == (None, "close", b"ok")


async def test_head_of_a_chunked_answer() -> None:
    async with world(answers(CHUNKED)) as it:
        client = await it.client()
        for _ in range(2):
            answer = await client.ask(GET.replace(b"GET", b"HEAD"), "HEAD")
            assert (answer.status, answer["transfer-encoding"]) == (200, None)
        assert len(it.app.lines) == 1


async def test_a_large_answer_is_relayed_with_back_pressure() -> None:
    size = 32 * 1024 * 1024

    async def large(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(32):
            await line.send(b"a" * (size // 32))

    async with world(large) as it:
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await it.until(lambda: it.stage.handled and it.stage.handled[0].bytes_out)
        before = -1
        while before != it.stage.handled[0].bytes_out:
            before = it.stage.handled[0].bytes_out
            await asyncio.sleep(0.2)
        (connection,) = it.registry._all
        assert connection.transport.get_write_buffer_size() < 1024 * 1024
        assert before < size
        client.writer.transport.resume_reading()
        assert len((await client.answer()).body) == size


async def narrow(it: World) -> UpstreamConnection:
    """A kept connection to the app that takes little at a time, as one over a network does."""
    await it.ask(GET)
    (connection,) = it.pool.connections
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return connection


async def test_a_body_that_comes_with_its_head_has_back_pressure_too() -> None:
    """Beginning to pass it on fills the app's connection at once, and must not let the client go on."""
    size = 64 * 1024 * 1024

    async def reads_nothing(line: Line) -> None:
        await line.request()
        await line.send(OK)
        line.pause()
        await line.ended.wait()

    async with world(reads_nothing) as it:
        connection = await narrow(it)
        client = await it.client()
        client.writer.write(POST_LARGE % size + bytes(size))
        await it.until(lambda: connection.full)
        before = -1
        while before != it.stage.handled[-1].bytes_in:
            before = it.stage.handled[-1].bytes_in
            await asyncio.sleep(0.2)
        assert connection.transport.get_write_buffer_size() < 4 * 1024 * 1024


async def test_a_connection_with_a_body_still_on_its_way_out_serves_nobody_else() -> None:
    """An app may answer what it has not read; the next request would wait behind that, and no one would be
    told."""

    async def answers_unread(line: Line) -> None:
        while True:
            head = await line.until(b"\r\n\r\n")
            if head.startswith(b"POST"):
                line.pause()
            await line.send(OK)

    async with world(answers_unread) as it:
        connection = await narrow(it)
        client = await it.client()
        await client.send(POST_LARGE % 6_000_000 + bytes(6_000_000))
        assert (await client.answer()).status == 200
        assert connection not in it.pool.connections
        assert (await it.ask(GET)).body == b"ok"
        assert len(it.app.lines) == 2


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_who_is_full_by_the_last_octets_holds_up_nobody_else(chunked: bool) -> None:
    """The app's connection is its pool's again by then: paused there, its next answer would never be read."""
    size, last = 8_000_000, asyncio.Event()
    framing = b"Transfer-Encoding: chunked\r\n\r\n%x" % size if chunked else b"Content-Length: %d\r\n" % size

    async def large(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + b"a" * (size - 1))
        await last.wait()
        await line.send(b"a\r\n0\r\n\r\n" if chunked else b"a")
        await line.request()
        await line.send(OK)

    async with world(large) as it:
        client = await it.client()
        client.writer.transport.pause_reading()
        await it.until(lambda: len(it.registry))
        (connection,) = it.registry._all
        connection.transport.set_write_buffer_limits(high=2 * size)
        await client.send(GET)
        await it.until(lambda: it.stage.handled and it.stage.handled[0].bytes_out == size - 1)
        connection.transport.set_write_buffer_limits(high=connection.transport.get_write_buffer_size())
        last.set()
        await it.until(lambda: it.stage.over)
        assert connection.unsent, "or this tests nothing"
        assert (await it.ask(GET)).body == b"ok"
        assert len(it.app.lines) == 1
        client.writer.transport.resume_reading()
        assert len((await client.answer()).body) == size


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize(
    ("play", "reason"),
    [
        pytest.param(
            answers_once(b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n"), Reason.UPSTREAM_INVALID, id="invalid"
        ),
        pytest.param(answers_once(b""), Reason.UPSTREAM_UNREACHABLE, id="closes at once"),
        pytest.param(answers_once(b"HTTP/1.1 2"), Reason.UPSTREAM_INVALID, id="closes in its head"),
        pytest.param(silent, Reason.UPSTREAM_TIMEOUT, id="FI26 says nothing"),
        pytest.param(None, Reason.UPSTREAM_UNREACHABLE, id="FI25 nobody listens"),
    ],
)
async def test_a_failure_before_the_answer_keeps_the_client(play, reason: Reason, custom: bool) -> None:
    async with world(play or silent, timeouts=Timeouts(first_byte=0.2), dead=0 if play else 1) as it:
        if play is None:
            it.pool.targets = it.pool.targets[:1]
        if custom:
            it.stage.on_failure = lambda exchange, why: exchange.respond(why.status, [(b"A", b"b")], b"page")
        client = await it.client()
        answer = await client.ask(POST)
        assert (answer.status, answer["a"]) == (reason.status, "b" if custom else None)
        assert answer["connection"] is None
        assert it.stage.over[0].failure is reason
        it.stage.act = lambda exchange: exchange.respond(200, [])
        assert (await client.ask(GET)).status == 200
        assert not it.pool.connections


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize(
    "play",
    [
        pytest.param(answers_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), id="short"),
        pytest.param(
            answers_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", reset=True), id="FI27 reset"
        ),
        pytest.param(answers_once(CHUNKED + b"3\r\nabc\r\n"), id="U25 no last chunk"),
        pytest.param(answers_once(b"HTTP/1.1 200 OK\r\n\r\nabc", reset=True), id="reset, no length"),
    ],
)
async def test_a_body_that_comes_short_has_no_clean_end(play, version: bytes) -> None:
    async with world(play) as it:
        client = await it.client()
        await client.send(GET.replace(b"1.1", version))
        answer, clean = None, True
        try:
            answer = await client.answer()
            clean = answer.complete
        except ConnectionResetError:
            clean = False
        assert not clean
        await it.until(lambda: it.stage.over)
        assert it.stage.over[0].failure is Reason.UPSTREAM_INVALID
        assert len(it.app.lines) == 1, "what was answered is not asked again"


async def test_u24_a_bad_chunk_after_the_head() -> None:
    async def play(line: Line) -> None:
        await line.request()
        await line.send(CHUNKED + b"3\r\nabc\r\n")
        await asyncio.sleep(0.05)
        await line.send(b"ZZ\r\n")

    async with world(play) as it:
        answer = await it.ask(GET)
        assert (answer.status, answer.complete) == (200, False)


@pytest.mark.parametrize(
    ("timeouts", "sent"),
    [
        pytest.param(Timeouts(idle=0.1), CHUNKED + b"3\r\nabc\r\n", id="idle"),
        pytest.param(Timeouts(total=0.1), CHUNKED + b"3\r\nabc\r\n", id="total"),
    ],
)
async def test_time_outs_in_the_body(timeouts: Timeouts, sent: bytes) -> None:
    async with world(answers(sent), timeouts=timeouts) as it:
        answer = await it.ask(GET)
        assert (answer.status, answer.complete) == (200, False)
        assert it.stage.over[0].failure is Reason.UPSTREAM_TIMEOUT


async def test_an_app_that_does_not_read_times_out() -> None:
    async def deaf(line: Line) -> None:
        line.pause()
        await asyncio.Event().wait()

    async with world(deaf, timeouts=Timeouts(idle=0.2)) as it:
        client = await it.client()
        head = b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 100000000\r\n\r\n"
        writing = asyncio.create_task(client.send(head + b"a" * 20_000_000))
        assert (await client.answer()).status == 504
        writing.cancel()


@pytest.mark.parametrize(
    ("request_bytes", "status", "lines"),
    [
        pytest.param(GET, 200, 2, id="GET"),
        pytest.param(GET.replace(b"GET", b"DELETE"), 200, 2, id="DELETE"),
        pytest.param(GET.replace(b"GET", b"POST"), 502, 1, id="POST is never sent twice"),
        pytest.param(GET.replace(b"GET", b"PATCH"), 502, 1, id="PATCH neither"),
        pytest.param(POST.replace(b"POST", b"PUT"), 502, 1, id="PUT whose body was read"),
    ],
)
async def test_fi28_a_stale_connection(request_bytes: bytes, status: int, lines: int) -> None:
    """The app closes the kept connection only when the second request has arrived: the race at its worst."""

    async def once_and_then_hang_up(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await line.until(b"\r\n\r\n")
        line.close()

    async with world(once_and_then_hang_up, answers(OK)) as it:
        client = await it.client()
        assert (await client.ask(GET)).status == 200
        assert (await client.ask(request_bytes)).status == status
        assert len(it.app.lines) == lines
        assert it.pool.retries == lines - 1


async def test_a_fresh_connection_is_not_tried_again() -> None:
    async with world(answers_once(b"")) as it:
        assert (await it.ask(GET)).status == 502
        assert len(it.app.lines) == 1


async def test_a_retry_happens_once() -> None:
    async def twice_bad(line: Line) -> None:
        await line.request()
        line.close()

    async def once(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await line.request()
        line.close()

    async with world(once, twice_bad) as it:
        client = await it.client()
        assert (await client.ask(GET)).status == 200
        assert (await client.ask(GET)).status == 502
        assert len(it.app.lines) == 2


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        pytest.param(POST, False, id="counted: refused before the app hears of it"),
        pytest.param(
            b"POST /u HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            True,
            id="chunked: cut off in the middle",
        ),
    ],
)
async def test_a_body_over_the_limit(data: bytes, seen: bool) -> None:
    async with world(silent) as it:
        it.stage.max_body = 2
        client = await it.client()
        answer = await client.ask(data)
        assert (answer.status, answer["connection"]) == (413, "close")
        assert bool(it.app.lines) is seen
        assert b"abc" not in it.app.received.partition(b"\r\n\r\n")[2]
        assert it.stage.reasons == [Reason.HTTP_BODY_TOO_LARGE]


@pytest.mark.parametrize("warm", [False, True])
async def test_inv_6_is_asked_at_the_last_moment(warm: bool) -> None:
    async with world() as it:
        if warm:
            await it.ask(GET)
        gate = it.stage.gate = Turnstile(False)
        before = it.app.received
        answer = await it.ask(GET)
        assert answer.status == 503
        assert it.app.received == before, "not one octet reached the app"
        assert it.stage.over[-1].failure is Reason.STATE_UNAVAILABLE
        gate.is_open = True
        assert (await it.ask(GET)).status == 200
        assert len(it.app.lines) == 1, "the connection that was not used is used now"


def fails(*_: object) -> bool:
    raise LookupError("a mistake")


async def test_who_cannot_say_whether_it_is_still_allowed_says_no() -> None:
    async with world() as it:
        it.stage.gate = Turnstile(breaks=True)
        it.expected_mistakes = ["a gate failed"]
        assert (await it.ask(GET)).status == 503
        assert it.app.received == b""


@pytest.mark.parametrize("sent", [OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
async def test_a_filter_that_fails_shows_nothing_of_the_answer(sent: bytes) -> None:
    async with world(answers(sent)) as it:
        it.stage.filter = fails  # type: ignore[assignment]
        it.expected_mistakes = ["an answer filter failed"]
        answer = await it.ask(GET)
        assert (answer.status, b"ok" in answer.body) == (500, False)


async def test_a_page_that_fails_is_a_plain_page() -> None:
    async with world(answers_once(b"")) as it:
        it.stage.on_failure = fails  # type: ignore[assignment]
        it.expected_mistakes = ["a handler failed"]
        assert (await it.ask(GET)).status == 500


async def test_a_page_may_come_later() -> None:
    async with world(answers_once(b"")) as it:
        waiting: list[Exchange] = []
        it.stage.on_failure = lambda exchange, reason: waiting.append(exchange)
        client = await it.client()
        await client.send(POST)
        await it.until(lambda: waiting)
        waiting[0].respond(502, [], b"page")
        assert (await client.answer()).body == b"page"


@pytest.mark.parametrize(
    "play",
    [pytest.param(silent, id="waiting"), pytest.param(answers(CHUNKED + b"1\r\na\r\n"), id="relaying")],
)
async def test_abort_drops_both_sides(play) -> None:
    async with world(play) as it:
        client = await it.client()
        await client.send(GET)
        await it.until(lambda: it.app.received)
        if play is not silent:
            await it.until(lambda: it.stage.handled[0].bytes_out)
        it.stage.handled[0].abort()
        assert b"0\r\n\r\n" not in await client.rest()
        await it.until(lambda: it.app.lines[0].ended.is_set())
        assert it.stage.over == it.stage.handled


async def test_abort_before_a_decision() -> None:
    async with world() as it:
        it.stage.act = lambda exchange: exchange.abort()
        client = await it.client()
        await client.send(GET + GET)
        assert await client.rest() == b""
        assert len(it.stage.over) == 1


async def test_finished_may_fail() -> None:
    async with world() as it:
        it.stage.finished = fails  # type: ignore[method-assign]
        it.stage.over = it.stage.handled
        it.expected_mistakes = ["a handler failed"]
        assert (await it.ask(GET)).status == 200


# Cut.


LATER = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nTOO-LATE!"
UPLOAD = b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\nabc"
CHUNKS = b"POST /u HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


async def in_the_app(it: World, data: bytes, *, answered: bytes = b"") -> tuple[Client, Exchange]:
    """A request of which the app has all that was sent, and the client all that was answered."""
    client = await it.client()
    await client.send(data)
    body = data.partition(b"\r\n\r\n")[2]
    await it.until(lambda: it.app.received.partition(b"\r\n\r\n")[2] == body and it.app.received)
    exchange = it.stage.handled[0]
    if answered:
        await it.app.lines[0].send(answered)
        size = len(answered.partition(b"\r\n\r\n")[2])
        await it.until(lambda: exchange.status and (exchange.bytes_out > 0) == (size > 0))
    return client, exchange


async def gone(it: World, exchange: Exchange, reason: Reason) -> None:
    """It is over, once; the app's side too, which was not told a clean end."""
    await it.until(lambda: it.stage.over == [exchange])
    assert exchange.failure is reason
    await it.until(lambda: all(line.ended.is_set() for line in it.app.lines))
    assert not it.app.received.endswith(b"\r\n0\r\n\r\n")
    assert not it.pool.connections and it.pool.targets[0].active == 0


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("reason", [Reason.SESSION_REVOKED, Reason.LOCKED, Reason.STATE_UNAVAILABLE])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(GET, id="no body"),
        pytest.param(POST, id="the whole body"),
        pytest.param(UPLOAD, id="FI45 a counted body"),
        pytest.param(CHUNKS, id="FI45 a chunked body"),
    ],
)
async def test_cut_before_the_answer(data: bytes, reason: Reason, tls: bool, frozen: bool) -> None:
    async with world(silent, tls=tls_contexts() if tls else None) as it:
        client, exchange = await in_the_app(it, data)
        (connection,) = it.pool.connections
        before = it.app.received
        if frozen:
            exchange.freeze()
            await client.send(b"def")
            connection.data_received(LATER)
        exchange.cut(reason)
        connection.data_received(LATER)
        exchange.cut(Reason.INTERNAL)
        exchange.thaw()
        with suppress(ConnectionError):
            await client.send(b"3\r\ndef\r\n0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer["connection"]) == (reason.status, "close")
        assert answer.body.decode() == reason.sentence + "\n"
        assert b"LATE" not in await client.rest()
        assert it.app.received == before
        await gone(it, exchange, reason)
        await it.until(lambda: len(it.registry) == 0)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("data", "answered"),
    [
        pytest.param(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", id="the head"),
        pytest.param(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", id="FI44 counted"),
        pytest.param(GET, CHUNKED + b"3\r\nabc\r\n", id="chunked"),
        pytest.param(GET, b"HTTP/1.1 200 OK\r\n\r\nabc", id="to the end"),
        pytest.param(GET.replace(b"1.1", b"1.0"), b"HTTP/1.1 200 OK\r\n\r\nabc", id="to HTTP/1.0"),
        pytest.param(UPLOAD, CHUNKED + b"3\r\nabc\r\n", id="while it uploads"),
        pytest.param(CHUNKS, CHUNKED + b"3\r\nabc\r\n", id="while it uploads in chunks"),
    ],
)
async def test_cut_in_the_answer(data: bytes, answered: bytes, tls: bool, frozen: bool) -> None:
    async with world(silent, tls=tls_contexts() if tls else None) as it:
        client, exchange = await in_the_app(it, data, answered=answered)
        (connection,) = it.pool.connections
        before, sent = it.app.received, exchange.bytes_out
        if frozen:
            exchange.freeze()
            connection.data_received(b"3\r\nDEF\r\n0\r\n\r\n")
        exchange.cut(Reason.SESSION_REVOKED)
        connection.data_received(b"3\r\nDEF\r\n0\r\n\r\n")
        exchange.thaw()
        with suppress(ConnectionError):
            await client.send(b"3\r\ndef\r\n0\r\n\r\n")
        received, clean = b"", True
        try:
            async with asyncio.timeout(10):
                while piece := await client.reader.read(100):
                    received += piece
        except ConnectionError:
            clean = False
        assert b"DEF" not in received and not received.endswith(b"\r\n0\r\n\r\n")
        assert tls or not clean, "a reset: even a body to the end of the connection shows as broken"
        assert (it.app.received, exchange.bytes_out) == (before, sent)
        await gone(it, exchange, Reason.SESSION_REVOKED)


async def test_cut_before_a_decision() -> None:
    async with world() as it:
        it.stage.act = lambda exchange: None
        client = await it.client()
        await client.send(GET)
        await it.until(lambda: it.stage.handled)
        exchange = it.stage.handled[0]
        assert not exchange.under_way
        exchange.cut(Reason.LOCKED)
        it.stage.forward(exchange)
        assert (await client.answer()).status == 403
        assert it.app.lines == []
        await gone(it, exchange, Reason.LOCKED)


async def test_cut_while_it_seeks_a_connection() -> None:
    async with world() as it:

        def act(exchange: Exchange) -> None:
            it.stage.forward(exchange)
            assert exchange.under_way
            exchange.cut(Reason.LOCKED)

        it.stage.act = act
        assert (await it.ask(POST)).status == 403
        await it.until(lambda: it.pool.targets[0].idle)
        assert it.app.received == b"", "the connection that came too late serves another"
        it.stage.act = it.stage.forward
        assert (await it.ask(GET)).status == 200
        assert len(it.app.lines) == 1


async def test_cut_after_it_was_handed_over() -> None:
    async with world() as it:
        it.stage.act = lambda exchange: exchange.hand_over(asyncio.Protocol, b"")
        client = await it.client()
        await client.send(GET)
        await it.until(lambda: it.stage.handled)
        exchange = it.stage.handled[0]
        exchange.cut(Reason.LOCKED)
        assert await client.rest() == b""
        await gone(it, exchange, Reason.LOCKED)


async def test_cut_after_the_end_changes_nothing() -> None:
    async with world() as it:
        client = await it.client()
        assert (await client.ask(GET)).status == 200
        it.stage.handled[0].cut(Reason.LOCKED)
        assert it.stage.over[0].failure is None
        assert (await client.ask(GET)).status == 200


async def test_cut_drops_what_the_client_has_not_taken() -> None:
    async def floods(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        while True:
            await line.send(b"a" * 65536)

    async with world(floods) as it:
        client = await it.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await it.until(lambda: it.registry._all and next(iter(it.registry._all)).unsent)
        exchange = it.stage.handled[0]
        exchange.cut(Reason.SESSION_REVOKED)
        await gone(it, exchange, Reason.SESSION_REVOKED)
        client.writer.transport.resume_reading()
        assert len(await client.rest()) < exchange.bytes_out


async def test_cut_while_frozen_reads_on_so_that_the_answer_arrives() -> None:
    """Closing over unread octets would send a reset that overtakes the answer."""
    async with world(silent, limits=Limits(linger=5.0)) as it:
        client, exchange = await in_the_app(it, UPLOAD[:-8] + b"999999999\r\n\r\nabc")
        exchange.freeze()
        exchange.cut(Reason.SESSION_REVOKED)
        async with asyncio.timeout(10):
            await client.send(b"a" * 32_000_000)
        assert (await client.answer()).status == 401
        client.close()
        await gone(it, exchange, Reason.SESSION_REVOKED)


async def test_cut_when_the_client_is_leaving_anyway() -> None:
    async with world(silent) as it:
        client, exchange = await in_the_app(it, GET)
        (down,) = it.registry._all
        down.transport.close()
        exchange.cut(Reason.LOCKED)
        assert await client.rest() == b""
        await gone(it, exchange, Reason.LOCKED)


async def test_what_an_exchange_was_let_in_on_is_its_handlers() -> None:
    async with world(silent) as it:
        _, exchange = await in_the_app(it, GET)
        assert (exchange.grant, exchange.check_at) == (None, inf)
        exchange.grant, exchange.check_at = "a judgement", 1.0
        assert it.registry.under_way() == [exchange]
