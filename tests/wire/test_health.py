"""Active checks: who is well, when the verdict changes, and that a probe's connection stays a probe's."""

from __future__ import annotations

import asyncio

import pytest

from tests.wire.recording import OK, Line, Recording, answers, answers_once, silent
from tests.wire.world import world
from ztproxy.core.upstream import HealthCheck
from ztproxy.wire.health import probe

ON_BOTH_LOOPS = True

GET = b"GET /u HTTP/1.1\r\nHost: app.test\r\n\r\n"
CHECK = HealthCheck("/health", interval=0.02, timeout=0.2)


@pytest.mark.parametrize(
    ("play", "well"),
    [
        pytest.param(answers(OK), True, id="200"),
        pytest.param(answers(OK.replace(b"200", b"399")), True, id="399"),
        pytest.param(answers(OK.replace(b"200", b"400")), False, id="400"),
        pytest.param(
            answers(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"), True, id="the head is enough"
        ),
        pytest.param(answers(b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n"), False, id="101"),
        pytest.param(answers(b"nonsense\r\n\r\n"), False, id="nonsense"),
        pytest.param(answers_once(b""), False, id="hangs up"),
        pytest.param(silent, False, id="silent"),
    ],
)
async def test_one_probe(play, well: bool) -> None:
    async with world(play) as it:
        assert await probe(it.pool, it.pool.targets[0], CHECK) is well
        assert not it.pool.connections
        assert it.pool.targets[0].active == 0
        if it.app.received:
            port = str(it.app.port).encode()
            assert it.app.received.startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:" + port + b"\r\n")


async def test_nobody_listens() -> None:
    async with world(dead=1) as it:
        assert await probe(it.pool, it.pool.targets[0], CHECK) is False


async def test_an_ill_endpoint_gets_nothing_until_it_is_well() -> None:
    ill = Recording(answers(OK.replace(b"200", b"500")))
    async with world(more=[ill], health=CHECK) as it:
        await it.until(lambda: not it.pool.targets[1].healthy)
        for _ in range(4):
            assert (await it.ask(GET)).status == 200
        assert b"GET /u" not in ill.received
        ill.plays = [answers(OK)]
        await it.until(lambda: it.pool.targets[1].healthy)
        for _ in range(4):
            assert (await it.ask(GET)).status == 200
        assert b"GET /u" in ill.received


async def test_one_bad_answer_is_no_verdict() -> None:
    async def once_ill(line: Line) -> None:
        await line.request()
        await line.send(OK.replace(b"200", b"500"))

    async with world(once_ill, answers(OK), health=CHECK) as it:
        changes: list[bool] = []
        for _ in range(30):
            changes.append(it.pool.targets[0].healthy)
            await asyncio.sleep(0.01)
        assert len(it.app.lines) > 2
        assert all(changes)
