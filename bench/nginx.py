"""nginx twice: as the upstream that costs least, and as the proxy to be compared with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import machine

BODY_BYTES = 1024

_FRAME = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {inside}
}}
"""

_UPSTREAM = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type text/plain;
        location / {{ return 200 "{body}"; }}
    }}
"""

_PROXY = """
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
"""


@contextmanager
def upstream(core: int, port: int, directory: Path) -> Iterator[None]:
    """Answers everything with 1 KiB from memory."""
    with serving(core, _UPSTREAM.format(port=port, body="x" * BODY_BYTES), directory / "upstream"):
        yield


@contextmanager
def proxy(core: int, port: int, to: int, directory: Path) -> Iterator[None]:
    """`proxy_pass` with keep-alive on both sides."""
    with serving(core, _PROXY.format(port=port, upstream=to), directory / "proxy"):
        yield


@contextmanager
def serving(core: int, inside: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One with `inside` in its `http` block; `directory` is made."""
    directory.mkdir()
    conf = directory / "nginx.conf"
    conf.write_text(_FRAME.format(directory=directory, inside=inside))
    command = (machine.tool("nginx", "nginx-light"), "-p", str(directory), "-c", str(conf))
    with machine.process(*machine.pinned(core, *command), log=directory / "said.log") as process:
        yield process
