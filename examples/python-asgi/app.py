"""An application on ASGI that knows who is calling, over HTTP and WebSocket. Settings: see README.md."""

import os

from ztproxy.verify import Verifier
from ztproxy.verify.asgi import RequireIdentity


async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    identity = scope["ztproxy"]
    text = f"Hello {identity.name or identity.sub}, signed in by {identity.acr}.\n"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close", "code": 1000})
        return
    status = 200
    if scope["path"] == "/admin" and "admins" not in identity.groups:
        status, text = 403, "This page is for administrators.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def lifespan(receive, send):
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


verifier = Verifier(os.environ["ZTPROXY_JWKS_URL"], audience=os.environ["ZTPROXY_AUDIENCE"])
app = RequireIdentity(hello, verifier)
