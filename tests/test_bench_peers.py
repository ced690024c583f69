"""The app behind the measured proxies, and each proxy as it is really run. Nothing is timed."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from bench import machine
from bench import upstream as app
from bench.certificates import certificate
from bench.peers import Peer, Upstream, aiohttp_both, apache_oidc, auth_request, envoy, nginx
from bench.peers.all import ALL
from bench.place import Place

pytestmark = pytest.mark.nginx

MIB = 1024 * 1024
ASSERTED = {app.ASSERTION: "head.claims.signature"}
PEERS = [
    pytest.param(nginx, id="nginx"),
    pytest.param(envoy, id="envoy", marks=pytest.mark.envoy),
    pytest.param(aiohttp_both, id="aiohttp"),
    pytest.param(apache_oidc, id="apache"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Not `tmp_path`: nginx, started as root, serves as somebody whom pytest does not let in."""
    if sys.platform != "linux" or not shutil.which("taskset"):
        pytest.skip("the bench needs Linux and `taskset`")
    cores = sorted(os.sched_getaffinity(0))
    folder = Path(tempfile.mkdtemp(prefix="ztproxy-peers-"))
    folder.chmod(0o755)
    yield Place(cores[0], cores[-1], folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def upstream(place: Place) -> Iterator[Upstream]:
    if why := nginx.missing():
        pytest.skip(why)
    with app.running(place) as running:
        yield running


async def asked(
    url: str, fields: Mapping[str, str], place: Place, body: bytes | None = None
) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        http.request(
            "POST" if body else "GET",
            url,
            headers=fields,
            data=body,
            ssl=certificate(place).trusted(),
            allow_redirects=False,
        ) as answer,
    ):
        return answer.status, await answer.read()


async def echoed(url: str, fields: Mapping[str, str], place: Place, *messages: str) -> list[str]:
    """All are sent before the first echo is read."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        http.ws_connect(url, headers=fields, ssl=certificate(place).trusted()) as socket,
    ):
        for message in messages:
            await socket.send_str(message)
        return [await socket.receive_str(timeout=10) for _ in messages]


# ── the app ──


@pytest.mark.parametrize(
    ("path", "status", "size"),
    [
        pytest.param("/", 200, 1024, id="small"),
        pytest.param("/100k", 200, 100 * 1024, id="a page's picture"),
        pytest.param("/10m", 200, 10 * MIB, id="a download"),
        pytest.param("/nothing", 404, None, id="nothing there"),
    ],
)
async def test_both_ports_answer_alike(
    place: Place, upstream: Upstream, path: str, status: int, size: int | None
) -> None:
    for port in (upstream.port, upstream.asserted):
        said, body = await asked(f"http://127.0.0.1:{port}{path}", ASSERTED, place)
        assert (said, size or len(body)) == (status, len(body))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({}, 500, id="no assertion"),
        pytest.param({app.ASSERTION: ""}, 500, id="an empty one"),
        pytest.param({app.ASSERTION: "alice"}, 500, id="not a JWT"),
        pytest.param({"X-Ztproxy-Assertions": "a.b.c"}, 500, id="another field"),
        pytest.param(ASSERTED, 200, id="one shaped like a JWT"),
    ],
)
async def test_one_port_wants_an_assertion(
    place: Place, upstream: Upstream, fields: dict[str, str], status: int
) -> None:
    origin = f"http://127.0.0.1:{upstream.asserted}"
    assert (await asked(f"{origin}/", fields, place))[0] == status
    assert (await asked(f"{origin}/head", fields, place))[0] == status
    uploaded, _ = await asked(f"{origin}/upload", fields, place, b"x" * 1000)
    assert uploaded == (204 if status == 200 else 500)


async def test_an_upload_is_read_to_its_end_before_it_is_answered(upstream: Upstream) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    for _ in range(2):  # on one connection
        writer.write(b"POST /upload HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % MIB)
        writer.write(b"x" * (MIB - 1))
        await writer.drain()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        writer.write(b"x")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 204 ")
    writer.close()


async def test_an_upload_in_chunks_is_read_too(upstream: Upstream) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(b"POST /upload HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(16):
        writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    writer.write(b"0\r\n\r\nGET /head HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 10)
    assert said.startswith(b"HTTP/1.1 204 ")
    assert b'{"host": "app"' in said
    writer.close()


async def test_the_echo_gives_messages_back(place: Place, upstream: Upstream) -> None:
    messages = ["", "a", "x" * 125, "x" * 126, "ü" * 40_000, *(f"{n}" for n in range(100))]
    assert await echoed(f"http://127.0.0.1:{upstream.port}/ws", {}, place, *messages) == messages


async def test_the_echo_answers_control_frames(upstream: Upstream) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: app\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head  # RFC 6455 §1.3
    mask = b"\0\0\0\0"
    writer.write(b"\x89\x82" + mask + b"hi")  # ping
    writer.write(b"\x8a\x80" + mask)  # pong: nothing is to come back
    writer.write(b"\x88\x82" + mask + b"\x03\xe8")  # close
    assert await asyncio.wait_for(reader.read(), 10) == b"\x8a\x02hi\x88\x02\x03\xe8"
    writer.close()


# ── the peers ──


def test_every_peer_is_one() -> None:
    assert {param.values[0] for param in PEERS} | {auth_request} == set(ALL)
    assert len({module.NAME for module in ALL}) == len(ALL)
    for module in ALL:
        assert module.CHECKS
        assert isinstance(module.missing(), str)


async def test_what_cannot_be_asked_yet_says_so(place: Place) -> None:
    assert "no endpoint" in auth_request.missing()
    with pytest.raises(machine.CannotMeasure, match="no endpoint"):
        async with auth_request.running(place, Upstream(1, 2)):
            pass


@pytest.mark.parametrize("module", PEERS)
async def test_a_peer_stands_before_the_app(place: Place, upstream: Upstream, module: ModuleType) -> None:
    if why := module.missing():
        pytest.skip(why)
    async with module.running(place, upstream) as peer:
        assert peer.name == module.NAME
        assert not peer.asserts
        for pid in peer.pids:
            assert os.sched_getaffinity(pid) == {place.proxy_core}
        for origin, fields in origins(peer):
            for path, size in app.SIZES.items():
                status, body = await asked(f"{origin}{path}", fields, place)
                assert (status, len(body)) == (200, size), (origin, path)
            status, body = await asked(f"{origin}/head", {**fields, "X-From": "the client"}, place)
            told = json.loads(body)
            assert told["x-from"] == "the client"
            assert app.ASSERTION.lower() not in told
            if "Cookie" in fields:
                assert told["oidc_claim_groups"] == "engineering"
                await refuses_strangers(origin, fields, place)
            assert (await asked(f"{origin}/upload", fields, place, b"x" * MIB))[0] == 204
            messages = ["a", "x" * 200, "y" * 70_000]
            assert await echoed(f"{origin}/ws", fields, place, *messages) == messages
        await asyncio.to_thread(keeps_connections, peer, place)
    for pid in peer.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def origins(peer: Peer) -> list[tuple[str, Mapping[str, str]]]:
    return [
        (f"http://127.0.0.1:{peer.port}", peer.headers),
        (f"https://127.0.0.1:{peer.tls}", peer.tls_headers),
    ]


async def refuses_strangers(origin: str, fields: Mapping[str, str], place: Place) -> None:
    """Nobody signed in, and somebody with a cookie of their own making."""
    name, _, value = fields["Cookie"].partition("=")
    for cookie in ({}, {"Cookie": f"{name}={value[::-1]}"}):
        for path in ("/", "/head"):
            status, body = await asked(f"{origin}{path}", {"Host": fields["Host"], **cookie}, place)
            assert status in (302, 401), (path, status, body)


def keeps_connections(peer: Peer, place: Place) -> None:
    """Several requests on one connection; TLS 1.3 and P-256 where it is TLS."""
    plain = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
    context = certificate(place).trusted()
    secure = http.client.HTTPSConnection("localhost", peer.tls, timeout=10, context=context)
    for connection, fields in ((plain, peer.headers), (secure, peer.tls_headers)):
        connection.connect()
        local = connection.sock.getsockname()
        for _ in range(3):
            connection.request("GET", "/", headers=dict(fields))
            assert len(connection.getresponse().read()) == app.SIZES["/"]
            assert connection.sock is not None
            assert connection.sock.getsockname() == local
    socket: Any = secure.sock
    assert socket.version() == "TLSv1.3"
    key = x509.load_der_x509_certificate(socket.getpeercert(True)).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    plain.close()
    secure.close()
