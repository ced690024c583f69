"""The app behind every measured proxy: nginx on the load core, so that the app is never what is measured.

Knows: what is asked of it (`bench.peers.Upstream`). Promises: both ports answer rightly before the block
begins; `/upload` is read to its end before it is answered, into memory, and its connection is kept; `/ws`
and `/head` are answered by a small process of ours behind it (`bench.upstream_live`). All of it ends with the
block.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import machine, nginx
from bench.peers import Upstream
from bench.place import Place, free_port

SIZES = {"/": 1024, "/100k": 100 * 1024, "/10m": 10 * 1024 * 1024}
"""Bytes of each answer."""

ASSERTION = "X-Ztproxy-Assertion"
"""The field that `Upstream.asserted` wants, with something shaped like a JWT."""

_HTTP = """
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16 inactive=600s;
    open_file_cache_valid 600s;
    client_max_body_size 0;
    client_body_buffer_size 2m;
    underscores_in_headers on;
    ignore_invalid_headers off;
    default_type text/plain;
    map $http_x_ztproxy_assertion $asserted { default 0; "~^[\\w-]+\\.[\\w-]+\\.[\\w-]+$" 1; }
    upstream live { server 127.0.0.1:%(live)d; keepalive 16; keepalive_requests 1000000000; }
    upstream itself { server 127.0.0.1:%(port)d; keepalive 64; keepalive_requests 1000000000; }
"""

# `return` in the location of an upload would answer before the body is there. Passing the request on, without
# its body, is what makes nginx read it first.
_SERVER = """
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        root %(files)s;
        %(checked)s
        location = / { return 200 "%(small)s"; }
        location = /100k { }
        location = /10m { }
        location = /read { return 204; }
        location = /upload {
            proxy_pass http://itself/read;
            proxy_pass_request_headers off;
            proxy_pass_request_body off;
            proxy_method GET;
            proxy_http_version 1.1;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
        }
        location = /ws {
            proxy_pass http://live;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $http_host;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }
        location = /head {
            proxy_pass http://live;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }
        location / { return 404; }
    }
"""

_CHECKED = "if ($asserted = 0) { return 500; }"


@contextmanager
def running(place: Place) -> Iterator[Upstream]:
    """Raises `CannotMeasure` where there is no nginx, or where it answers wrongly."""
    found = Upstream(free_port(), free_port())
    live = free_port()
    files = Path(tempfile.mkdtemp(prefix="upstream-", dir=place.folder))
    files.chmod(0o755)
    for path, size in SIZES.items():
        if path != "/":
            (files / path[1:]).write_bytes(b"x" * size)
    said = {"files": files, "small": "x" * SIZES["/"], "live": live}
    inside = _HTTP % {"live": live, "port": found.port}
    inside += _SERVER % {**said, "port": found.port, "checked": ""}
    inside += _SERVER % {**said, "port": found.asserted, "checked": _CHECKED}
    with ExitStack() as stack:
        command = machine.pinned(place.load_core, sys.executable, "-m", "bench.upstream_live", str(live))
        stack.enter_context(machine.process(*command, log=files / "live.log"))
        stack.enter_context(nginx.serving(place.load_core, inside, files / "nginx"))
        _await_answers(live, found)
        yield found


def _await_answers(live: int, found: Upstream) -> None:
    for port in (live, found.port, found.asserted):
        end = time.monotonic() + 15
        while True:
            try:
                told = json.loads(_ask(port, "/head", {ASSERTION: "a.b.c"}))
                break
            except (OSError, ValueError, http.client.HTTPException) as error:
                if time.monotonic() > end:
                    raise machine.CannotMeasure(f"the upstream does not answer: {error}") from error
                time.sleep(0.02)
        if told.get(ASSERTION.lower()) != "a.b.c":
            raise machine.CannotMeasure(f"the upstream was not told an assertion: {told}")


def _ask(port: int, path: str, fields: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=fields)
        return connection.getresponse().read()
    finally:
        connection.close()
