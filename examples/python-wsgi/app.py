"""An application on WSGI that knows who is calling. Settings: see README.md."""

import os
from wsgiref.simple_server import make_server

from ztproxy.verify import Verifier
from ztproxy.verify.wsgi import RequireIdentity


def hello(environ, start_response):
    identity = environ["ztproxy.identity"]
    if environ["PATH_INFO"] == "/admin" and "admins" not in identity.groups:
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"This page is for administrators.\n"]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"Hello {identity.name or identity.sub}, signed in by {identity.acr}.\n".encode()]


verifier = Verifier(os.environ["ZTPROXY_JWKS_URL"], audience=os.environ["ZTPROXY_AUDIENCE"])
application = RequireIdentity(hello, verifier)

if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8081")), application) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
