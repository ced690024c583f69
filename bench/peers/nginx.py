"""nginx with `proxy_pass`: the limit. It decides nothing and writes no log.

Bodies are streamed both ways, and large answers never touch the disk, as ztproxy does it: with its defaults
nginx would write both to files, and be the slower for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from bench import certificates, machine
from bench import nginx as server
from bench.peers import Peer, Upstream
from bench.peers.around import answering, family, folder
from bench.place import Place, free_port

NAME = "nginx"
CHECKS = "nothing, and no access log: the limit"

_HOST = "app.localhost"

_HTTP = """
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096;
        ssl_certificate {certificate.chain};
        ssl_certificate_key {certificate.key};
        ssl_protocols TLSv1.3;
        client_max_body_size 0;
        proxy_request_buffering off;
        client_body_buffer_size 128k;
        proxy_max_temp_file_size 0;
        proxy_buffers 16 32k;
        proxy_busy_buffers_size 128k;
        proxy_http_version 1.1;
        location / {{
            proxy_pass http://app;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }}
        location = /ws {{
            proxy_pass http://app;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $http_host;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
"""


def missing() -> str:
    """Empty, or what to install."""
    try:
        machine.tool("nginx", "nginx-light")
    except machine.CannotMeasure as error:
        return str(error)
    return ""


@contextlib.asynccontextmanager
async def running(place: Place, upstream: Upstream) -> AsyncIterator[Peer]:
    """One worker."""
    certificate = certificates.certificate(place)
    port, tls = free_port(), free_port()
    inside = _HTTP.format(port=port, tls=tls, upstream=upstream.port, certificate=certificate)
    with server.serving(place.proxy_core, inside, folder(place, "nginx") / "it") as process:
        fields = {"Host": _HOST}
        peer = Peer(NAME, port, (), tls, fields, fields)
        await answering(peer, certificate.trusted())
        yield replace(peer, pids=family(process.pid))
