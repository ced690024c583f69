"""The proxy one would write first: an aiohttp server, an aiohttp client, uvloop. Nothing is checked.

python -m bench.aiohttp_proxy PORT UPSTREAM_PORT
"""

from __future__ import annotations

import asyncio
import signal
import sys

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

_HOP_BY_HOP = {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"}
_HOP_BY_HOP |= {"transfer-encoding", "upgrade", "host", "content-length"}


async def serve(port: int, upstream: int) -> None:
    """Until SIGTERM."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=600)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as client:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            url = URL(f"http://127.0.0.1:{upstream}{request.raw_path}", encoded=True)
            fields = [(name, value) for name, value in request.headers.items() if _passes(name)]
            body = request.content if request.body_exists else None
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

        runner = web.ServerRunner(web.Server(forward, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        await stopped.wait()
        await runner.cleanup()


def _passes(name: str) -> bool:
    return name.lower() not in _HOP_BY_HOP


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
