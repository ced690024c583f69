"""What the device bench asks, and what it makes of its figures: answers, aims, page. Nothing is timed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bench import machine
from bench.devices import told
from bench.devices_clients import BODY, Crowd, Load, Way, answers, beside
from bench.devices_report import aims, doubts, page, table

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
GOOD = HEAD + BODY


def figures(**changes: Any) -> dict[str, Any]:
    """A run in which every aim is just met; `changes` by dotted name, with `__` for the dot."""
    taken = {
        "seconds": 30.0,
        "ping_ms": {"count": 9, "p50": 0.5, "p99": 4.0, "max": 7.7},
        "request_ms": {"count": 9, "p50": 1.5, "p99": 9.0, "max": 12.2},
    }
    good: dict[str, Any] = {
        "machine": {
            "cpu": "Abacus",
            "cores": "2",
            "kernel": "6.1",
            "python": "3.11.7",
            "uvloop": "0.21",
            "nginx": "1.22",
            "openssl": "OpenSSL 3",
        },
        "quick": False,
        "seconds": 150.2,
        "load_average_before": 0.1,
        "connections": 64,
        "shaking": 16,
        "first_us": 280.4,
        "lookup_us": {"one": 170.0, "many": 171.0},
        "intake": {
            "devices": 100_000,
            "reports": 10_000,
            "bytes_per_device": 966,
            "import": taken,
            "feed": taken,
        },
        "requests": {
            "rates": {
                "tls": [1000.0, 1001.0],
                "device": [900.0, 901.0],
                "many_tls": [990.0],
                "many": [882.0],
            },
            "busy": {"tls": 0.99, "device": 0.99, "many_tls": 0.99, "many": 0.99},
            "cpu_us": {"tls": [50.0], "device": [55.0], "many_tls": [50.5], "many": [56.0]},
            "ratios": {"device": [0.9, 0.8, 1.0], "many": [0.98], "many_tls": [0.97, 1.01]},
        },
        "handshakes": {
            "rates": {"nginx": [900.0], "asks": [700.0], "by_name": [500.0], "quiet": [800.0]},
            "busy": {"nginx": 0.95, "asks": 0.99, "by_name": 0.99, "quiet": 0.99},
            "cpu_us": {"nginx": [800.0], "asks": [1000.0], "by_name": [1200.0], "quiet": [600.0]},
        },
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = good
        for step in path:
            inner = inner[step]
        inner[last] = value
    return good


def test_aims_that_are_just_met_are_met() -> None:
    assert [aim.verdict for aim in aims(figures())] == ["met", "met"]
    assert doubts(figures()) == []


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        pytest.param({"requests__ratios__device": [0.95, 0.899, 0.1]}, 0, id="by-the-median"),
        pytest.param({"requests__ratios__many": [0.97]}, 1, id="many-devices-cost-something"),
    ],
)
def test_an_aim_that_is_missed_is_said_to_be(change: dict[str, Any], missed: int) -> None:
    told = figures(**change)
    verdicts = [aim.verdict for aim in aims(told)]
    assert verdicts[missed] == "NOT met"
    assert verdicts.count("met") == 1
    assert page(told).count("NOT met") == 1
    assert "\n".join(table(told)).count("NOT met") == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param({"quick": True}, "quick run", id="quick"),
        pytest.param({"load_average_before": 2.5}, "load average of 2.5", id="a-busy-machine"),
        pytest.param({"requests__rates__device": [900.0, 500.0]}, "differ by 44%", id="rounds-that-differ"),
        pytest.param({"requests__busy__tls": 0.6}, "tls 60%", id="the-load-was-too-slow"),
        pytest.param({"handshakes__busy__nginx": 0.7}, "nginx 70%", id="nginx-waited-for-handshakes"),
    ],
)
def test_what_there_is_to_doubt_is_said(change: dict[str, Any], word: str) -> None:
    told = figures(**change)
    (doubt,) = doubts(told)
    assert word in doubt
    assert doubt in page(told)
    assert any(doubt in line for line in table(told))


def test_the_page_has_every_figure() -> None:
    text = page(figures())
    for figure in ("0.900 | 0.800 | 1.000", "1,200.0 µs | 1.50", "7.7 ms", "12.2 ms", "280 µs", "966 bytes"):
        assert figure in text, figure
    assert "{" not in re.sub(r"`[^`\n]*`", "", text)


def test_ratios_are_of_one_round_each() -> None:
    made = told(
        {
            "one": [Load(100, 1.0, 0.5), Load(50, 1.0, 1.0)],
            "other": [Load(200, 1.0, 0.5), Load(50, 1.0, 0.5)],
        },
        {"one": "other"},
    )
    assert made["ratios"] == {"one": [0.5, 1.0]}
    assert made["cpu_ratios"] == {"one": [2.0, 2.0]}
    assert made["cpu_us"]["one"] == [5000.0, 20000.0]
    assert made["busy"]["other"] == 0.5


# -- asking -----------------------------------------------------------------------------------------------


async def with_app(says: list[bytes], then: Callable[[Way], Awaitable[Any]]) -> Any:
    """An app that answers each request with the pieces of `says`; closes the connection after an empty
    one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for piece in says:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                    if not piece:
                        return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        return await then(Way(port, "devices.test", "a=b", None))


async def loaded(way: Way) -> tuple[Load, Load]:
    async with Crowd(way, (), 2).opened() as crowd:
        return await crowd.ask(0.05), await crowd.ask(0.05)


@pytest.mark.parametrize(
    "says",
    [pytest.param([GOOD], id="whole"), pytest.param([GOOD[:9], GOOD[9:60], GOOD[60:]], id="in-pieces")],
)
async def test_right_answers_count(says: list[bytes]) -> None:
    assert all(turn.requests >= 2 for turn in await with_app(says, loaded))
    assert await with_app(says, answers)


@pytest.mark.parametrize(
    "says",
    [
        pytest.param([GOOD.replace(b"200 OK", b"403 No")], id="a-refusal-of-the-same-size"),
        pytest.param([b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"], id="to-the-sign-in"),
        pytest.param([HEAD + b"y" * len(BODY)], id="another-body"),
        pytest.param([HEAD + BODY[1:], b""], id="cut-off"),
        pytest.param([b""], id="no-answer"),
    ],
)
async def test_one_wrong_answer_ends_the_measurement(says: list[bytes]) -> None:
    with pytest.raises(machine.CannotMeasure, match=r"devices\.test"):
        await with_app(says, loaded)


async def test_what_fails_beside_the_work_is_counted() -> None:
    turns: list[int] = []
    five = asyncio.Event()

    async def turn() -> bool:
        turns.append(len(turns))
        if len(turns) == 5:
            five.set()
        if len(turns) == 2:
            raise ConnectionResetError
        return len(turns) != 3

    async with beside(turn, 0.0) as seen:
        await five.wait()
    assert (seen.failed, len(seen.seconds)) == (2, len(turns))
