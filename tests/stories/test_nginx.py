"""nginx on both sides: as the app, as the front that ends TLS, and who is believed about the client.

The front, 127.0.0.1, is a trusted proxy; every other address of this machine is not. The same trust goes for
the listeners that expect a PROXY header, whose sender is written here: Debian's nginx sends version 1 only.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.house import House, house
from tests.stories.talking import PATIENCE, Wire, free_ports, until

pytestmark = pytest.mark.nginx

CLIENT = "127.0.0.3"
CONFIG = """\
daemon off;
master_process off;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path temporary; proxy_temp_path temporary; fastcgi_temp_path temporary;
  uwsgi_temp_path temporary; scgi_temp_path temporary;
  default_type text/plain;
  server {{
    listen 127.0.0.1:{back};
    root files;
    port_in_redirect off;
    gzip on; gzip_types text/plain; gzip_min_length 100;
    location = /who {{ return 200 "$http_x_ztproxy_assertion $http_x_forwarded_for $http_cookie $host"; }}
    location = /moved {{ return 301 /who; }}
    location /private {{ internal; }}
  }}
  server {{
    listen 127.0.0.1:{front} ssl;
    ssl_certificate app.pem;
    ssl_certificate_key app.key;
    client_max_body_size 0;
    location / {{
      proxy_pass http://127.0.0.1:{plain};
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Connection $http_connection;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_request_buffering off;
      proxy_buffering off;
    }}
  }}
}}
"""
ROUTES = """\
  - from: https://nginx.test
    name: nginx
    to: http://127.0.0.1:$back
    allow_public_unauthenticated_access: true
  - from: https://nginx.test
    prefix: /mine
    prefix_rewrite: /
    name: mine
    to: http://127.0.0.1:$back
    allow_any_authenticated_user: true
  - from: https://office.test
    name: office
    to: http://127.0.0.1:$upstream
    policy: [{allow: {public: true, source_network: 127.0.0.3/32}}]
"""
LISTENERS = """\
  - {address: "127.0.0.1:$announced", tls: false, proxy_protocol: true}
  - {address: "127.0.0.1:$announced_tls", tls: true, proxy_protocol: true}
"""
LARGE = random.Random(7).randbytes(6 * 2**20)


@contextlib.contextmanager
def nginx(folder: Path, ports: dict[str, int]) -> Iterator[None]:
    """A running nginx, single process, everything of it in `folder`."""
    (folder / "files").mkdir()
    (folder / "temporary").mkdir()
    (folder / "files" / "large.bin").write_bytes(LARGE)
    (folder / "files" / "text.txt").write_text("nginx says this again and again\n" * 100)
    (folder / "nginx.conf").write_text(CONFIG.format(**ports))
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(
            ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stdout=log, stderr=log
        )
    try:
        until(lambda: process.poll() is not None or all(_open(ports[name]) for name in ("back", "front")))
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    if shutil.which("nginx") is None:
        pytest.skip("there is no nginx")
    parts = {
        "listeners": LISTENERS,
        "routes": ROUTES,
        # The provider and the app talk to it from 127.0.0.1 as well; a client comes from elsewhere.
        "settings": "trusted_proxies: 127.0.0.1/32",
    }
    folder = tmp_path_factory.mktemp("nginx")
    ports = free_ports(("back", "front_tls", "announced", "announced_tls"))
    with (
        house(folder, valkey_url, parts=parts, ports=ports) as it,
        nginx(folder, {**it.ports, "front": ports["front_tls"]}),
    ):
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    """Signed in through nginx."""
    return home.sign_in("alice", door="front_tls")


def asking(path: str, *fields: str, host: str = "app.test") -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", f"Host: {host}", *fields, "", "")).encode()


# -- as the app -------------------------------------------------------------------------------------------


def test_as_the_app(home: House, alice: str) -> None:
    answer = home.get("/large.bin", host="nginx.test")
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(LARGE).digest()
    (tag,) = answer.fields("ETag")
    again = home.get("/large.bin", host="nginx.test", fields=f"If-None-Match: {tag}\r\n")
    assert (again.status, again.body, again.fields("Content-Length")) == (304, b"", [])
    part = home.get("/large.bin", host="nginx.test", fields="Range: bytes=10-19\r\n")
    assert (part.status, part.body) == (206, LARGE[10:20])
    packed = home.get("/text.txt", host="nginx.test", fields="Accept-Encoding: gzip\r\n")
    assert packed.fields("Content-Encoding") == ["gzip"] and packed.fields("Transfer-Encoding") == ["chunked"]
    assert home.get("/moved", host="nginx.test").fields("Location") == ["http://nginx.test/who"]
    assert home.get("/missing", host="nginx.test").status == 404
    assert home.get("/private/x", host="nginx.test").status == 404
    with home.wire() as wire:
        head = wire.send(b"HEAD /large.bin HTTP/1.1\r\nHost: nginx.test\r\n\r\n").until(b"\r\n\r\n")
        assert b"\r\nContent-Length: %d\r\n" % len(LARGE) in head
        # The connection is in step: the next answer is the next request's.
        assert b"nginx.test" in wire.send(asking("/who", host="nginx.test")).until(b" nginx.test")


def test_what_the_app_is_told(home: House) -> None:
    """By nginx's own reading: no forged identity, and the address of the connection."""
    forged = ("X-Ztproxy-Assertion: forged", "X-Forwarded-For: 6.6.6.6")
    with home.wire(source="127.0.0.2") as wire:
        wire.send(asking("/who", *forged, host="nginx.test"))
        assert wire.until(b" nginx.test").endswith(b"\r\n\r\n 127.0.0.2  nginx.test")
    assert home.get("/mine/who", host="nginx.test").status == 401


# -- as the front -----------------------------------------------------------------------------------------


def front(home: House, data: bytes, source: str = CLIENT) -> Wire:
    return home.wire("front_tls", source=source).send(data)


def received(home: House, name: bytes) -> bytes:
    """A field of the request the app received last."""
    found = re.search(rb"\r\n%b: ([^\r]*)\r\n" % name, home.app.requests[-1])
    return found[1] if found else b""


def test_signed_in_through_the_front(home: House, alice: str) -> None:
    with front(home, asking("/u?x=1", f"Cookie: {alice}; a=b")) as wire:
        assert wire.ok().startswith(b"HTTP/1.1 200 ")
    assert home.app.requests[-1].startswith(b"GET /u?x=1 HTTP/1.1\r\nHost: app.test\r\n")
    assert received(home, b"X-Forwarded-For") == CLIENT.encode()
    assert received(home, b"X-Forwarded-Proto") == b"https"
    assert received(home, b"X-Forwarded-Host") == b"app.test"
    assert received(home, b"Cookie") == b"a=b"
    claims = received(home, b"X-Ztproxy-Assertion").split(b".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + b"=="))["email"] == "alice@example.com"
    until(lambda: any(line["client"] == CLIENT and line.get("user") for line in home.records("access")))


def test_who_is_believed(home: House) -> None:
    """What the client itself wrote stays what it is: something a client wrote."""
    forged = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: ftp", "X-Forwarded-Host: evil.test")
    with front(home, asking("/public/x", *forged)) as wire:
        wire.ok()
    assert received(home, b"X-Forwarded-For") == b"6.6.6.6, " + CLIENT.encode()
    assert received(home, b"X-Forwarded-Proto") == b"https"
    assert received(home, b"X-Forwarded-Host") == b"app.test"
    until(lambda: home.records("access")[-1]["client"] == CLIENT)
    # Past the front, from an address that is trusted with nothing.
    proto = "X-Forwarded-Proto: https"
    with home.wire(source="127.0.0.2") as wire:
        wire.send(asking("/public/x", f"X-Forwarded-For: {CLIENT}", proto, "Forwarded: for=6.6.6.6")).ok()
    assert received(home, b"X-Forwarded-For") == b"127.0.0.2"
    assert received(home, b"X-Forwarded-Proto") == b"http"
    assert b"6.6.6.6" not in home.app.requests[-1]


def test_a_network_condition_sees_the_client(home: House) -> None:
    data = asking("/", host="office.test")
    lying = asking("/", f"X-Forwarded-For: {CLIENT}", host="office.test")
    with front(home, data) as wire:
        assert wire.ok().startswith(b"HTTP/1.1 200 ")
    before = len(home.app.requests)
    for request, source in ((data, "127.0.0.4"), (lying, "127.0.0.4")):
        with front(home, request, source) as wire:
            assert wire.until(b"\r\n\r\n").startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 403 "))
    with home.wire(source="127.0.0.2") as wire:
        assert wire.send(lying).until(b"\r\n\r\n").startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 403 "))
    assert len(home.app.requests) == before


# -- the PROXY protocol -----------------------------------------------------------------------------------


def proxy_header(source: str, rest: bytes = b"") -> bytes:
    """Version 2, PROXY, TCP over IPv4, to 192.0.2.1:443."""
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 443)
    return b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses + rest)) + addresses + rest


@pytest.mark.parametrize("listener", ["announced", "announced_tls"])
@pytest.mark.parametrize("rest", [b"", b"\x04\x00\x02ab"], ids=["plain", "with an extension"])
def test_an_announced_client(home: House, alice: str, listener: str, rest: bytes) -> None:
    """The golden request of the wire policy: alice from 203.0.113.9."""
    announced = proxy_header("203.0.113.9", rest)
    fields = ("Accept: */*", f"Cookie: {alice}", "X-Forwarded-For: 6.6.6.6")
    with home.wire(listener, first=announced) as wire:
        wire.send(asking("/u?x=1", *fields)).ok()
        again = home.app.requests[-1]
        wire.send(asking("/public/x")).ok()
    proto = b"https" if listener.endswith("tls") else b"http"
    blurred = re.sub(rb"(X-Request-Id: )\w+|(X-Ztproxy-Assertion: )\S+", rb"\1\2*", again)
    assert blurred == (
        b"GET /u?x=1 HTTP/1.1\r\nHost: app.test\r\nAccept: */*\r\nX-Forwarded-For: 203.0.113.9\r\n"
        b"X-Forwarded-Proto: " + proto + b"\r\nX-Forwarded-Host: app.test\r\nX-Request-Id: *\r\n"
        b"X-Ztproxy-Assertion: *\r\n\r\n"
    )
    assert received(home, b"X-Forwarded-For") == b"203.0.113.9"


@pytest.mark.parametrize(
    ("source", "data"),
    [
        pytest.param("127.0.0.2", proxy_header("203.0.113.9"), id="from an address nobody trusts"),
        pytest.param("127.0.0.1", b"", id="none at all"),
        pytest.param("127.0.0.1", b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n", id="version 1"),
        pytest.param(
            "127.0.0.1", proxy_header("203.0.113.9", b"\x04\xff\xff"), id="an extension that overflows"
        ),
        pytest.param(
            "127.0.0.1",
            proxy_header("203.0.113.9").replace(b"\x21\x11", b"\x22\x11"),
            id="an unknown command",
        ),
    ],
)
def test_a_listener_that_is_told_nothing_believable(home: House, source: str, data: bytes) -> None:
    before = len(home.app.received)
    with home.wire("announced", source=source, first=data) as wire:
        try:
            heard = wire.send(asking("/public/x")).rest()
        except ConnectionError:
            heard = wire.rest()
    assert heard.data == b""
    assert len(home.app.received) == before
