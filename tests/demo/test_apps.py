"""The demo's two applications, over real sockets and without a proxy in front."""

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from tests.verify.smith import AUDIENCE, KEY, OTHER, key_set_server, sign
from ztproxy.demo import apps
from ztproxy.demo.apps import headers_app, live_app


@asynccontextmanager
async def running(app: web.Application) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        try:
            yield f"http://{host}:{port}", http
        finally:
            await runner.cleanup()


@asynccontextmanager
async def headers() -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    with key_set_server() as keys:
        keys.publish(KEY.jwk())
        async with running(headers_app(keys.url, AUDIENCE)) as running_app:
            yield running_app


async def test_the_page_names_the_verified_visitor() -> None:
    async with (
        headers() as (url, http),
        http.get(f"{url}/any/path?q=1", headers={"X-Ztproxy-Assertion": sign()}) as response,
    ):
        text = await response.text()
        assert response.status == 200
        assert response.content_type == "text/html"
    assert "You are Alice." in text
    assert "engineering" in text
    assert "GET /any/path?q=1" in text


async def test_the_same_as_json() -> None:
    async with (
        headers() as (url, http),
        http.put(f"{url}/json", headers={"X-Ztproxy-Assertion": sign(), "X-Two": "b"}) as response,
    ):
        body = await response.json()
    assert (body["method"], body["path"]) == ("PUT", "/json")
    assert ["X-Two", "b"] in body["headers"]
    assert body["assertion"]["status"] == "verified"
    assert body["assertion"]["identity"]["email"] == "alice@example.com"
    assert body["assertion"]["identity"]["groups"] == ["engineering"]


@pytest.mark.parametrize(
    ("fields", "assertion"),
    [
        pytest.param([], {"status": "missing"}, id="none"),
        pytest.param([sign(), sign()], {"status": "duplicated"}, id="two"),
        pytest.param([sign(OTHER)], {"status": "rejected", "reason": "unknown_key"}, id="a stranger's"),
        pytest.param(
            [sign(aud="https://other")], {"status": "rejected", "reason": "audience"}, id="another app's"
        ),
        pytest.param(["alice"], {"status": "rejected", "reason": "format"}, id="just a name"),
    ],
)
async def test_nobody_is_believed_without_a_good_assertion(
    fields: list[str], assertion: dict[str, str]
) -> None:
    given = [("X-Ztproxy-Assertion", value) for value in fields] + [("X-Forwarded-User", "carol")]
    async with headers() as (url, http):
        async with http.get(f"{url}/json", headers=given) as response:
            assert (await response.json())["assertion"] == assertion
        async with http.get(url, headers=given) as response:
            text = await response.text()
    assert "Nobody is believed to be here" in text
    assert "You are" not in text


async def test_without_a_key_set_it_says_that_it_checks_nothing() -> None:
    async with (
        running(headers_app(None, None)) as (url, http),
        http.get(url, headers={"X-Ztproxy-Assertion": sign()}) as response,
    ):
        assert "cannot verify anyone" in await response.text()


async def test_what_a_client_sends_is_shown_as_text() -> None:
    async with (
        headers() as (url, http),
        http.get(url, headers={"X-Evil": "<script>alert(1)</script>"}) as response,
    ):
        text = await response.text()
    assert "&lt;script&gt;" in text
    assert "<script" not in text


@pytest.mark.parametrize("length", [0, 1, 3_000_000])
async def test_echo_measures_the_body(length: int) -> None:
    sent = b"\x5a" * length
    async with (
        running(headers_app(None, None)) as (url, http),
        http.post(f"{url}/echo", data=sent) as response,
    ):
        assert await response.json() == {"bytes": length, "sha256": hashlib.sha256(sent).hexdigest()}


@pytest.mark.parametrize("length", [0, 1, 65536, 200_001])
async def test_download_has_the_length_asked_for(length: int) -> None:
    async with (
        running(headers_app(None, None)) as (url, http),
        http.get(f"{url}/download?bytes={length}") as response,
    ):
        assert response.headers["Content-Length"] == str(length)
        assert await response.read() == bytes(length)


async def test_slow_answers_in_the_end() -> None:
    async with (
        running(headers_app(None, None)) as (url, http),
        http.get(f"{url}/slow?seconds=0.01") as response,
    ):
        assert await response.json() == {"seconds": 0.01}


@pytest.mark.parametrize(
    "query", ["slow?seconds=soon", "slow?seconds=nan", "slow?seconds=-1", "download?bytes=1e99"]
)
async def test_a_number_that_is_none_is_refused(query: str) -> None:
    async with (
        running(headers_app(None, None)) as (url, http),
        http.get(f"{url}/{query}") as response,
    ):
        assert response.status == 400


async def test_the_live_page_says_what_it_can_without_a_script() -> None:
    async with running(live_app()) as (url, http):
        async with http.get(url) as response:
            text = await response.text()
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]
        async with http.get(f"{url}/live.js") as response:
            assert response.content_type == "text/javascript"
            script = await response.text()
    assert "0 live connections were open" in text
    assert 'src="live.js"' in text
    assert "noscript" in text
    assert "new WebSocket" in script


async def test_the_websocket_ticks_and_echoes() -> None:
    async with (
        running(live_app(tick=0.01)) as (url, http),
        http.ws_connect(f"{url}/ws") as socket,
    ):
        await socket.send_str("hello")
        await socket.send_bytes(b"\0\1")
        ticks: list[int] = []
        echoes: list[str | bytes] = []
        while len(ticks) < 3 or len(echoes) < 2:
            message = await socket.receive(timeout=5)
            if message.type is WSMsgType.BINARY:
                echoes.append(message.data)
                continue
            said = json.loads(message.data)
            if said["type"] == "tick":
                ticks.append(said["number"])
            else:
                echoes.append(said["text"])
    assert ticks == list(range(1, len(ticks) + 1))
    assert echoes == ["hello", b"\0\1"]


async def test_the_event_stream_ticks() -> None:
    async with (
        running(live_app(tick=0.01)) as (url, http),
        http.get(f"{url}/events") as response,
    ):
        assert response.content_type == "text/event-stream"
        for number in (1, 2, 3):
            event = (await response.content.readuntil(b"\n\n")).decode().splitlines()
            assert event[:2] == [f"id: {number}", "event: tick"]
            assert json.loads(event[2].removeprefix("data: "))["number"] == number


async def test_open_connections_end_with_the_application() -> None:
    async with running(live_app(tick=60)) as (url, http):
        socket = await http.ws_connect(f"{url}/ws")
        events = await http.get(f"{url}/events")
        await socket.receive(timeout=5)
        await events.content.readuntil(b"\n\n")
        async with http.get(url) as response:
            assert "2 live connections were open" in await response.text()
        closing = asyncio.create_task(socket.receive(timeout=5))
        ending = asyncio.create_task(events.content.read())
        # leaving the block ends the application while both connections are open
        await asyncio.sleep(0)
    message = await closing
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    assert await ending == b""


def node() -> str | None:
    beside = Path(sys.executable).parent / "node"
    return str(beside) if beside.exists() else shutil.which("node")


@pytest.mark.skipif(node() is None, reason="no node, neither beside this python nor on the PATH")
def test_the_script_can_be_parsed() -> None:
    script = Path(apps.__file__).with_name("live.js")
    subprocess.run([str(node()), "--check", str(script)], check=True, timeout=30)
