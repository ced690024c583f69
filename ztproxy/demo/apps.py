"""The two applications of the demo. Neither knows a password or a session: they stand behind ztproxy.

`headers_app` shows what a request looks like when it arrives, and who the visitor is according to the one
header it believes, `X-Ztproxy-Assertion`, verified with `ztproxy.verify` as any application would. `live_app`
keeps a WebSocket and an event stream open, so that one can watch what ztproxy does to them.
"""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from aiohttp import WSMsgType, web

from ztproxy.demo.pages import page, script
from ztproxy.verify import HEADER_NAME, AssertionRejected, Rejection, Verifier

_VERIFIER: web.AppKey[Verifier | None] = web.AppKey("verifier")
_TICK: web.AppKey[float] = web.AppKey("tick", float)
_STREAMS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("streams", set[asyncio.Task[Any]])

_CHUNK = bytes(64 * 1024)
_MAX_SLOW_SECONDS = 600.0


def headers_app(jwks_url: str | None, audience: str | None) -> web.Application:
    """Shows requests. With `jwks_url` and the `audience` of its route, it verifies who sent them.

    `/json` the request as JSON; `/echo` (POST) length and SHA-256 of the body; `/slow?seconds=3`;
    `/download?bytes=N` N zeros, streamed; every other path the page, in HTML.
    """
    app = web.Application()
    app[_VERIFIER] = Verifier(jwks_url, audience) if jwks_url and audience else None
    app.router.add_route("*", "/json", _as_json)
    app.router.add_post("/echo", _echo)
    app.router.add_get("/slow", _slow)
    app.router.add_get("/download", _download)
    app.router.add_route("*", "/{path:.*}", _as_page)
    return app


async def _verified(request: web.Request) -> dict[str, Any]:
    """`{"status": "verified", "identity": …}`, or why nobody is believed to be there."""
    verifier = request.app[_VERIFIER]
    received = request.headers.getall(HEADER_NAME, [])
    if verifier is None:
        return {"status": "not checked"}
    if len(received) != 1:
        return {"status": (Rejection.DUPLICATED if received else Rejection.MISSING).value}
    try:
        identity = await asyncio.to_thread(verifier.verify, received[0])
    except AssertionRejected as rejected:
        return {"status": "rejected", "reason": rejected.reason.value}
    return {"status": "verified", "identity": asdict(identity)}


async def _as_json(request: web.Request) -> web.Response:
    body = {
        "method": request.method,
        "path": request.raw_path,
        "headers": [[name, value] for name, value in request.headers.items()],
        "assertion": await _verified(request),
    }
    return web.json_response(body, headers={"Cache-Control": "no-store"})


async def _as_page(request: web.Request) -> web.Response:
    assertion = await _verified(request)
    return page(
        "headers",
        method=request.method,
        path=request.raw_path,
        headers=list(request.headers.items()),
        assertion=assertion,
        identity=assertion.get("identity"),
    )


async def _echo(request: web.Request) -> web.Response:
    digest, length = hashlib.sha256(), 0
    async for chunk in request.content.iter_chunked(64 * 1024):
        digest.update(chunk)
        length += len(chunk)
    return web.json_response({"bytes": length, "sha256": digest.hexdigest()})


async def _slow(request: web.Request) -> web.Response:
    seconds = min(_number(request, "seconds", 3.0), _MAX_SLOW_SECONDS)
    await asyncio.sleep(seconds)
    return web.json_response({"seconds": seconds})


async def _download(request: web.Request) -> web.StreamResponse:
    left = int(_number(request, "bytes", 1024 * 1024))
    response = web.StreamResponse(
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(left)}
    )
    await response.prepare(request)
    while left:
        sent = _CHUNK[:left]
        await response.write(sent)
        left -= len(sent)
    return response


def _number(request: web.Request, name: str, otherwise: float) -> float:
    try:
        value = float(request.query.get(name, otherwise))
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} is not a number\n") from None
    if not 0 <= value <= 1 << 40:
        raise web.HTTPBadRequest(text=f"{name} is out of range\n")
    return value


def live_app(*, tick: float = 1.0) -> web.Application:
    """Keeps connections open: `/ws` echoes texts and ticks, `/events` ticks, every `tick` seconds.

    The page at `/` shows both, with a script of its own; without one it still says what it would show.
    """
    app = web.Application()
    app[_TICK] = tick
    app[_STREAMS] = set()
    app.router.add_get("/", _live_page)
    app.router.add_get("/live.js", script("live.js"))
    app.router.add_get("/ws", _websocket)
    app.router.add_get("/events", _events)
    app.on_shutdown.append(_end_streams)
    return app


async def _live_page(request: web.Request) -> web.Response:
    return page("live", now=time.strftime("%H:%M:%S", time.gmtime()), open=len(request.app[_STREAMS]))


async def _websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(heartbeat=30, max_msg_size=64 * 1024)
    await socket.prepare(request)
    async with _open_stream(request.app):
        ticking = asyncio.create_task(_tick_into(socket, request.app[_TICK]))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_json({"type": "echo", "text": message.data})
                elif message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
        except asyncio.CancelledError:
            await socket.close(code=1001, message=b"the demo ends")
        finally:
            ticking.cancel()
    return socket


async def _tick_into(socket: web.WebSocketResponse, tick: float) -> None:
    number = 0
    with contextlib.suppress(ConnectionError):
        while not socket.closed:
            number += 1
            await socket.send_json({"type": "tick", "number": number})
            await asyncio.sleep(tick)


async def _events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
    )
    await response.prepare(request)
    number = 0
    async with _open_stream(request.app):
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                number += 1
                data = json.dumps({"number": number, "at": time.strftime("%H:%M:%S", time.gmtime())})
                await response.write(f"id: {number}\nevent: tick\ndata: {data}\n\n".encode())
                await asyncio.sleep(request.app[_TICK])
    return response


@contextlib.asynccontextmanager
async def _open_stream(app: web.Application) -> AsyncIterator[None]:
    """Registers the handler that runs here, so that the end of the application ends it too."""
    task = asyncio.current_task()
    assert task is not None
    app[_STREAMS].add(task)
    try:
        yield
    finally:
        app[_STREAMS].discard(task)


async def _end_streams(app: web.Application) -> None:
    streams = app[_STREAMS]
    for task in tuple(streams):
        task.cancel()
