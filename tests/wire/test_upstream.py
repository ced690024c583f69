"""Hostile answers: each is a 502 whose connection is never used again, or a truncation that shows."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest

from tests.wire.recording import OK, Line, Play, answers, answers_once
from tests.wire.test_cut_anywhere import InMemory
from tests.wire.world import world
from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import Endpoint, Upstream
from ztproxy.wire.answer import Answer as HeadOfAnswer
from ztproxy.wire.head import RESPONSE_HEAD_LIMIT
from ztproxy.wire.pool import Pool
from ztproxy.wire.upstream import INTERIM_LIMIT, UpstreamConnection

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"


def ok(fields: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return status + b"\r\n" + fields + b"Content-Length: 3\r\n\r\nabc"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(ok(b"Content-Length: 3\r\n"), id="U01 two lengths"),
        pytest.param(ok(b"Content-Length: 9\r\n"), id="U02 differing lengths"),
        pytest.param(CHUNKED % b"gzip, chunked", id="U04"),
        pytest.param(CHUNKED % b"xchunked", id="U05"),
        pytest.param(ok(b"X: a\nY: b\r\n"), id="U07 bare LF"),
        pytest.param(ok(b"X: a\rSet-Cookie: s=1\r\n"), id="U08 bare CR"),
        pytest.param(ok(b"X : a\r\n"), id="U10 space before colon"),
        pytest.param(ok(b"X\r\n"), id="U11 no colon"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nEVIL", id="U17"
        ),
        pytest.param(ok(b"", b"HTTP/2.0 200 OK"), id="U20 version"),
        pytest.param(ok(b"", b"HTTP/1.1 999 X"), id="U21 status"),
        pytest.param(ok(b"", b"HTTP/1.1 20 OK"), id="U22 two digits"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", id="U28"),
        pytest.param((CHUNKED % b"chunked").replace(b"1.1", b"1.0"), id="U34 chunked from 1.0"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 100 C\r\n\r\n" * (INTERIM_LIMIT + 1) + OK, id="interim answers for ever"),
        pytest.param(
            CHUNKED[:-13] % b"chunked" + b"3;\nabc\r\n0\r\n\r\n", id="U30 bare LF in the first chunk"
        ),
    ],
)
async def test_refused(sent: bytes, split: bool) -> None:
    async with world(answers(sent, split=split), answers(OK)) as it:
        client = await it.client()
        answer = await client.ask(GET)
        if split and b"3;\n" in sent:
            assert not answer.complete, "the head had gone already"
            return
        assert answer.status == 502
        assert b"abc" not in answer.head + answer.body and b"EVIL" not in answer.body
        assert it.stage.over[0].failure is Reason.UPSTREAM_INVALID
        assert (await client.ask(GET)).body == b"ok", "the client's connection is kept"
        assert len(it.app.lines) == 2, "the app's is not"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(ok(b"X: " + b"a" * 70000 + b"\r\n"), id="U18 70 KiB in one field"),
        pytest.param(ok(b"".join(b"X%d: 1\r\n" % i for i in range(500))), id="U35 500 fields"),
    ],
)
async def test_refused_for_its_size(sent: bytes) -> None:
    async with world(answers(sent)) as it:
        assert (await it.ask(GET)).status == 502


class Ear:
    """A receiver that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, bytes, bool]] = []
        self.failures: list[Reason] = []

    def answered(self, answer: HeadOfAnswer, payload: bytes, ended: bool) -> None:
        self.heard.append((answer.status, payload, ended))

    def continued(self, payload: bytes, ended: bool) -> None:
        self.heard.append((0, payload, ended))

    def switched(self, answer: HeadOfAnswer, rest: bytes) -> None:
        self.heard.append((answer.status, rest, False))

    def failed(self, reason: Reason, stale: bool) -> None:
        self.failures.append(reason)

    def upstream_full(self) -> None: ...

    def upstream_drained(self) -> None: ...


def asked() -> tuple[UpstreamConnection, Ear]:
    """A connection in memory, so that a piece is read when the test says so, and who asked on it."""
    pool = Pool(Upstream((Endpoint("127.0.0.1", 1),)), None, asyncio.get_running_loop())
    connection, ear = UpstreamConnection(pool, pool.targets[0]), Ear()
    connection.connection_made(InMemory())
    connection.start(ear, GET, "GET", sending=False, upgrade=True)
    return connection, ear


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        pytest.param(ok(b""), b"abc", id="a head"),
        pytest.param(b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n" * 2 + ok(b""), b"abc", id="interim answers first"),
        pytest.param(
            b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc", b"abc", id="an upgrade"
        ),
        pytest.param(CHUNKED % b"chunked", b"abc", id="chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\n \r\n\r\n", None, id="a bad head"),
        pytest.param(b"HTTP/2", None, id="no head"),
    ],
)
async def test_a_head_in_two_pieces_is_the_head_in_one(sent: bytes, heard: bytes | None) -> None:
    for cut in range(1, len(sent)):
        connection, ear = asked()
        connection.data_received(sent[:cut])
        if not ear.failures and not any(status == 101 for status, *_ in ear.heard):
            connection.data_received(sent[cut:])
            assert ear.failures == ([] if heard is not None else [Reason.UPSTREAM_INVALID]), cut
            assert b"".join(payload for _, payload, _ in ear.heard) == (heard or b""), cut


async def test_a_head_that_comes_a_byte_at_a_time_is_held_once() -> None:
    """Adding to it copies nothing, or its length would cost its square."""
    head = b"HTTP/1.1 200 OK\r\nX: " + b"a" * 60_000
    connection, ear = asked()
    pieces = [head[at : at + 1] for at in range(len(head))]
    for piece in pieces[:-2]:
        connection.data_received(piece)
    tracemalloc.start()
    try:
        connection.data_received(pieces[-2])
        connection.data_received(pieces[-1])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < len(head) // 2
    assert (ear.heard, ear.failures) == ([], [])
    for piece in (b"\r", b"\n", b"\r", b"\n", b"rest"):
        connection.data_received(piece)
    assert ear.heard == [(200, b"", False), (0, b"rest", False)]


async def test_a_head_that_never_ends_is_refused_at_the_limit() -> None:
    connection, ear = asked()
    connection.data_received(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(RESPONSE_HEAD_LIMIT // 1000 + 1):
        connection.data_received(b"a" * 1000)
    assert ear.failures == [Reason.UPSTREAM_INVALID]


def and_then(first: bytes, second: bytes) -> Play:
    """Answers, and a moment later says more without being asked."""

    async def play(line: Line) -> None:
        await line.request()
        await line.send(first)
        await asyncio.sleep(0.05)
        await line.send(second)

    return play


@pytest.mark.parametrize(
    ("play", "status", "body"),
    [
        pytest.param(answers(ok(b"") + OK), 200, b"abc", id="U12 a second answer behind the first"),
        pytest.param(answers(b"HTTP/1.1 304 N\r\n\r\nEVIL"), 304, b"", id="U14 a body where none may be"),
        pytest.param(answers(CHUNKED % b"chunked" + b"x"), 200, b"abc", id="behind the last chunk"),
        pytest.param(answers(ok(b"Connection: close\r\n")), 200, b"abc", id="the app says close"),
        pytest.param(answers(ok(b"", b"HTTP/1.0 200 OK")), 200, b"abc", id="HTTP/1.0"),
        pytest.param(answers_once(b"HTTP/1.1 200 OK\r\n\r\nabc"), 200, b"abc", id="U27 to the end"),
        pytest.param(and_then(ok(b""), OK), 200, b"abc", id="an answer to nothing, later"),
        pytest.param(
            and_then(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na", b"bcEVIL"), 200, b"abc", id="longer"
        ),
        pytest.param(
            and_then(CHUNKED[:-7] % b"chunked", b"\r\n0\r\n\r\nEVIL"), 200, b"abc", id="longer in chunks"
        ),
    ],
)
async def test_answered_but_not_used_again(play: Play, status: int, body: bytes) -> None:
    async with world(play, answers(OK)) as it:
        client = await it.client()
        answer = await client.ask(GET)
        assert (answer.status, answer.body, answer.complete) == (status, body, True)
        assert answer["connection"] is None
        await it.until(lambda: not it.pool.connections)
        assert (await client.ask(GET)).body == b"ok"


async def test_to_the_end_is_framed_anew() -> None:
    async with world(answers_once(b"HTTP/1.1 200 OK\r\n\r\nabc")) as it:
        assert (await it.ask(GET))["transfer-encoding"] == "chunked"
