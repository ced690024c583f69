"""The proxy one would write first: an aiohttp server, an aiohttp client, uvloop. Nothing is checked.

python -m bench.aiohttp_proxy PORT UPSTREAM_PORT [TLS_PORT CERTIFICATE KEY]
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

_HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"}
_HOP_BY_HOP |= {"transfer-encoding", "upgrade", "host", "content-length"}


async def serve(port: int, upstream: int, tls: int, context: ssl.SSLContext | None) -> None:
    """Until SIGTERM."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as client:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            url = URL(f"http://127.0.0.1:{upstream}{request.raw_path}", encoded=True)
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _joined(request, client, url)
            fields = [(name, value) for name, value in request.headers.items() if _passes(name)]
            body = request.content if request.body_exists else None
            if body is not None and request.content_length is not None:
                fields.append(("Content-Length", str(request.content_length)))
            async with client.request(
                request.method, url, headers=fields, data=body, allow_redirects=False
            ) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                for name, value in answer.headers.items():
                    if _passes(name):
                        response.headers.add(name, value)
                response.content_length = answer.content_length
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        runner = web.ServerRunner(web.Server(forward, access_log=None, keepalive_timeout=600))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        if context is not None:
            await web.TCPSite(runner, "127.0.0.1", tls, backlog=4096, ssl_context=context).start()
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        await runner.cleanup()


async def _joined(request: web.BaseRequest, client: aiohttp.ClientSession, url: URL) -> web.StreamResponse:
    """Two WebSockets, message by message, until one side ends."""
    ours = web.WebSocketResponse(compress=False, max_msg_size=0)
    async with client.ws_connect(url, max_msg_size=0) as theirs:
        await ours.prepare(request)

        async def back() -> None:
            async for message in theirs:
                await _send(ours, message)
            await ours.close()

        returning = asyncio.create_task(back())
        async for message in ours:
            await _send(theirs, message)
        await theirs.close()
        await returning
    return ours


async def _send(
    to: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, message: aiohttp.WSMessage
) -> None:
    if message.type is aiohttp.WSMsgType.TEXT:
        await to.send_str(message.data)
    else:
        await to.send_bytes(message.data)


def _passes(name: str) -> bool:
    return name.lower() not in _HOP_BY_HOP


def _main(port: str, upstream: str, tls: str = "0", certificate: str = "", key: str = "") -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
    uvloop.run(serve(int(port), int(upstream), int(tls), context))


if __name__ == "__main__":
    _main(*sys.argv[1:])
