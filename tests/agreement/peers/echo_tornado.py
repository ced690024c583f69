"""tornado, answering with what it understood. One argument: the port.

The answer to HEAD has no body, so there it stands in a field.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine


def answer(request: HTTPServerRequest) -> None:
    said = {
        "method": request.method,
        "target": request.uri,
        "variables": list(request.headers.get_all()),
        "body": base64.b64encode(request.body).decode(),
    }
    words = json.dumps(said).encode()
    headers = HTTPHeaders({"Content-Length": str(len(words))})
    if request.method == "HEAD":
        headers["X-Heard"] = base64.b64encode(words).decode()
        words = b""
    assert request.connection is not None
    request.connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, words)
    request.connection.finish()


async def main(port: int) -> None:
    HTTPServer(answer, max_header_size=131072, max_body_size=2**30).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1])))
