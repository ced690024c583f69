"""aiohttp's server, answering with what it understood. One argument: the port.

The answer to HEAD has no body, so there it stands in a field.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from aiohttp import web


async def answer(request: web.BaseRequest) -> web.Response:
    said = {
        "method": request.method,
        "target": request.raw_path,
        "fields": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers],
        "body": base64.b64encode(await request.read()).decode(),
    }
    words = json.dumps(said).encode()
    headers = {"X-Heard": base64.b64encode(words).decode()} if request.method == "HEAD" else {}
    return web.Response(body=words, headers=headers)


async def main(port: int) -> None:
    server = web.Server(answer, max_line_size=65536, max_field_size=65536, max_headers=200)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1])))
