"""A provider that hurts whoever listens (D05 to D08), and documents that are kept (J21, J31)."""

import asyncio
import gzip
import logging
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.abc import ResolveResult

from tests.evidence import Tried
from tests.worlds.lying_provider import serving
from tests.worlds.memory_state import SetClock
from ztproxy.adapters.oidc_fetch import (
    MAX_BYTES,
    Answer,
    Kept,
    _WithinLimits,
    fetch,
    is_off_limits,
    provider_session,
)
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def says(**response: object) -> Handler:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(**response)  # type: ignore[arg-type]

    return handler


async def endless(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


async def a_byte_now_and_then(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def silence(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def ask(url: str, *, form: str | None = None, tls: ssl.SSLContext | None = None) -> Answer:
    async with provider_session() as http:
        return await fetch(http, url, form=form, tls=tls, within=0.5)


async def refused(url: str, tls: ssl.SSLContext | None = None) -> str:
    with pytest.raises(WorldError) as failed:
        await ask(url, tls=tls)
    assert failed.value.reason is Reason.PROVIDER_UNAVAILABLE
    assert url not in str(failed.value)
    return str(failed.value)


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        pytest.param(
            says(body=b"{}", content_type="application/json"),
            Answer(200, "application/json", b"{}"),
            id="ordinary",
        ),
        pytest.param(
            says(body=b"{}", headers={"Content-Type": "Application/JSON; charset=utf-8"}),
            Answer(200, "application/json", b"{}"),
            id="media_type_in_another_spelling",
        ),
        pytest.param(
            says(body=b"x" * MAX_BYTES, content_type="text/plain"),
            Answer(200, "text/plain", b"x" * MAX_BYTES),
            id="as_large_as_it_may_be",
        ),
        pytest.param(
            says(status=500), Answer(500, "application/octet-stream", b""), id="an_error_is_an_answer"
        ),
        pytest.param(
            says(status=302, headers={"Location": "http://127.0.0.1:1/"}),
            Answer(302, "application/octet-stream", b""),
            id="D05_a_redirect_is_not_followed",
        ),
    ],
)
async def test_answers(handler: Handler, answer: Answer) -> None:
    async with serving(handler) as origin:
        assert await ask(origin + "/x") == answer


BOMB = gzip.compress(bytes(10 * 2**20))


BAD_ANSWERS = [
    pytest.param(says(body=b"x" * (MAX_BYTES + 1)), "larger", id="D07_one_byte_too_many"),
    pytest.param(endless, "larger", id="D07_endless"),
    pytest.param(a_byte_now_and_then, "within", id="D07_a_byte_now_and_then"),
    pytest.param(silence, "within", id="D11_silence"),
    pytest.param(says(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "compressed", id="D07_gzip"),
    pytest.param(says(body=BOMB, headers={"Content-Encoding": "gzip"}), "compressed", id="D07_gzip_bomb"),
    pytest.param(
        says(body=BOMB, headers={"Content-Encoding": "identity, gzip"}), "compressed", id="D07_gzip_too"
    ),
    pytest.param(
        says(body=b"x", headers={"Content-Encoding": "br"}), "compressed", id="D07_another_compression"
    ),
    pytest.param(says(headers={"X-A": "a" * 20000}), "no usable answer", id="huge_header"),
]


@pytest.mark.parametrize(("handler", "word"), BAD_ANSWERS)
async def test_answers_that_are_none(handler: Handler, word: str) -> None:
    async with serving(handler) as origin:
        assert word in await refused(origin + "/x")


@asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[str]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"


BROKEN = [
    pytest.param(b"", id="closed_at_once"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", id="cut_short"),
    pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another_protocol"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", id="bad_chunk"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", id="two_lengths"),
    pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", id="many_headers"),
]


@pytest.mark.parametrize("answer", BROKEN)
async def test_broken_answers(answer: bytes) -> None:
    async with raw(answer) as url:
        assert "no usable answer" in await refused(url)


ADDRESSES = [
    pytest.param("169.254.169.254", True, id="clouds"),
    pytest.param("169.254.0.1", True, id="link_local"),
    pytest.param("169.254.43518", True, id="three_parts"),
    pytest.param("2852039166", True, id="one_number"),
    pytest.param("0xa9fea9fe", True, id="hexadecimal"),
    pytest.param("0251.0376.0251.0376", True, id="octal"),
    pytest.param("fe80::1", True, id="link_local_6"),
    pytest.param("fe80::1%eth0", True, id="of_an_interface"),
    pytest.param("::ffff:169.254.169.254", True, id="mapped"),
    pytest.param("fd00:ec2::254", True, id="clouds_6"),
    pytest.param("168.63.129.16", True, id="another_cloud"),
    pytest.param("fd20:ce::254", True, id="a_third_cloud_6"),
    pytest.param("fd00:c1::a9fe:a9fe", True, id="a_fourth_cloud_6"),
    pytest.param("169.254.169.254.", True, id="a_dot_at_the_end"),
    pytest.param("64:ff9b::169.254.169.254", True, id="NAT64"),
    pytest.param("64:ff9b::6464:64c8", True, id="NAT64_of_another_cloud"),
    pytest.param("64:ff9b:1:a9fe:a9:fe00::", True, id="own_NAT64_after_48_bits"),
    pytest.param("64:ff9b:1:a9:fe:a9fe::", True, id="own_NAT64_after_56_bits"),
    pytest.param("64:ff9b:1:7:a9:fea9:fe00:0", True, id="own_NAT64_after_64_bits"),
    pytest.param("64:ff9b:1::a9fe:a9fe", True, id="own_NAT64_after_96_bits"),
    pytest.param("2002:a9fe:a9fe::1", True, id="6to4"),
    pytest.param("::169.254.169.254", True, id="compatible"),
    pytest.param("64:ff9b::10.0.0.7", False, id="NAT64_of_a_private"),
    pytest.param("64:ff9b:1::10.0.0.230", False, id="own_NAT64_of_a_private"),
    pytest.param("2002:a00:7::1", False, id="6to4_of_a_private"),
    pytest.param("::1", False, id="this_machine_6"),
    pytest.param("op.test\0", False, id="a_zero"),
    pytest.param("0.0.0.0", True, id="none"),
    pytest.param("0", True, id="none_in_short"),
    pytest.param("::", True, id="none_6"),
    pytest.param("224.0.0.1", True, id="many"),
    pytest.param("10.1.2.3", False, id="private"),
    pytest.param("172.16.0.1", False, id="private_too"),
    pytest.param("fd12::1", False, id="private_6"),
    pytest.param("127.0.0.1", False, id="this_machine"),
    pytest.param("100.64.0.9", False, id="carrier"),
    pytest.param("93.184.216.34", False, id="public"),
    pytest.param("op.test", False, id="a_name"),
    pytest.param("ｏp.test", False, id="a_name_beyond_ASCII"),
    pytest.param("", False, id="nothing"),
]


@pytest.mark.parametrize(("host", "off"), ADDRESSES)
def test_T26_where_no_provider_is(host: str, off: bool) -> None:
    assert is_off_limits(host) is off


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "http://2852039166/", "http://[fe80::1]/", "http://0:1/"]
)
async def test_D05_T26_nothing_is_sent_there(url: str) -> None:
    assert await refused(url) == "no provider is at such an address"


async def test_T26_a_name_that_leads_there_is_as_good_as_none() -> None:
    async with provider_session() as http:
        assert isinstance(http.connector, aiohttp.TCPConnector)
        find = http.connector._resolver.resolve
        # The system takes it for a spelling of 169.254.169.254, as it would take a name that says so.
        with pytest.raises(OSError, match="off limits"):
            await find("0xa9fea9fe", 80)
        assert [one["host"] for one in await find("127.0.0.1", 80)] == ["127.0.0.1"]


class ToTheCloud(aiohttp.ThreadedResolver):
    """DNS of somebody who is curious: every name leads to where a cloud answers."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await super().resolve("169.254.169.254", port, family)


class Curious(_WithinLimits, ToTheCloud):
    """The names of a provider session, with that DNS behind it."""


async def test_T26_a_name_that_leads_there_is_refused_by_its_name() -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Curious())) as http:
        with pytest.raises(WorldError) as failed:
            await fetch(http, "http://op.test/latest")
    assert str(failed.value) == "the name leads to an address no provider is at"


async def test_nobody_listens() -> None:
    async with raw(b"") as url:
        pass
    assert "no usable answer" in await refused(url)


async def test_a_form_is_posted_and_nothing_of_ours_is_told() -> None:
    seen: list[tuple[str, bytes, list[str]]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.method, await request.read(), sorted(map(str.lower, request.headers))))
        return web.Response(headers={"Set-Cookie": "a=b; Path=/"})

    async with serving(handler) as origin, provider_session() as http:
        await fetch(http, origin + "/token?x=%2F", form="a=1&b=%2B")
        await fetch(http, origin + "/token")
    usual = ["accept", "accept-encoding", "host", "user-agent"]
    assert seen == [
        ("POST", b"a=1&b=%2B", sorted([*usual, "content-length", "content-type"])),
        ("GET", b"", usual),
    ]


@asynccontextmanager
async def tls_server(
    certificate: trustme.LeafCert, weaken: Callable[[ssl.SSLContext], object] = bool
) -> AsyncIterator[str]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    weaken(context)
    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"


CA = trustme.CA()
HONEST = CA.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
# The group of RFC 2409 6.2, of 1024 bits.
OAKLEY = """\
-----BEGIN DH PARAMETERS-----
MIGHAoGBAP//////////yQ/aoiFowjTExmKLgNwc0SkCTgiKZ8x0Agu+pjsTmyJR
Sgh5jjQE3e+VGbPNOkMbMCsKbfJfFDdP4TVtbVHCReSFtXZiXn7G9ExC6aY37WsL
/1y29Aa37e44a/taiZ+lrp8kEXxLH+ZJKGZR7OZTgf//////////AgEC
-----END DH PARAMETERS-----
"""


def old(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1


def weak_group(context: ssl.SSLContext) -> None:
    context.set_ciphers("DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(OAKLEY)
        file.flush()
        context.load_dh_params(file.name)


def without_secrecy(context: ssl.SSLContext) -> None:
    context.set_ciphers("NULL-SHA256:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def expired() -> trustme.LeafCert:
    return CA.issue_cert("127.0.0.1", not_before=datetime(2020, 1, 1), not_after=datetime(2020, 2, 1))


async def test_D08_a_trusted_certificate() -> None:
    trust = ssl.create_default_context()
    CA.configure_trust(trust)
    async with tls_server(HONEST) as url:
        assert (await ask(url, tls=trust)).body == b"{}"


@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(trustme.CA().issue_cert("127.0.0.1"), id="another_authority"),
        pytest.param(CA.issue_cert("other.test"), id="wrong_host"),
        pytest.param(CA.issue_cert("*.0.0.1"), id="wildcard_for_an_address"),
        pytest.param(expired(), id="expired"),
    ],
)
async def test_D08_certificates_that_prove_nothing(certificate: trustme.LeafCert) -> None:
    trust = ssl.create_default_context()
    CA.configure_trust(trust)
    async with tls_server(certificate) as url:
        assert (await refused(url, tls=trust)).startswith("TLS")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    "weaken",
    [
        pytest.param(old, id="TLS_1.0_and_1.1"),
        pytest.param(weak_group, id="weak_group"),
        pytest.param(without_secrecy, id="no_cipher"),
    ],
)
async def test_D08_a_connection_that_could_be_read(weaken: Callable[[ssl.SSLContext], None]) -> None:
    trust, careless = ssl.create_default_context(), ssl.create_default_context()
    for context in (trust, careless):
        CA.configure_trust(context)
    careless.set_ciphers("ALL:NULL:@SECLEVEL=0")
    careless.minimum_version = ssl.TLSVersion.TLSv1
    async with tls_server(HONEST, weaken) as url:
        assert (await ask(url, tls=careless)).body == b"{}"
        await refused(url, tls=trust)


class Source:
    """What a kept document is fetched from: answers its count, or fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.down = False

    async def __call__(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise WorldError(Reason.PROVIDER_UNAVAILABLE, "down")
        return f"document {self.asked}"


@pytest.fixture
def clock() -> SetClock:
    return SetClock(1000.0)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def kept(source: Source, clock: SetClock) -> Kept[str]:
    return Kept(source, clock, fresh=100.0)


async def test_a_document_is_fetched_once_by_many(kept: Kept[str], source: Source) -> None:
    assert set(await asyncio.gather(*(kept.get() for _ in range(50)))) == {"document 1"}
    assert source.asked == 1


@pytest.mark.parametrize(
    ("later", "asked"),
    [
        pytest.param(99, 1, id="still_fresh"),
        pytest.param(100, 2, id="no_longer_fresh"),
        pytest.param(-500, 2, id="the_clock_was_put_back"),
    ],
)
async def test_how_long_a_document_is_fresh(
    kept: Kept[str], source: Source, clock: SetClock, later: float, asked: int
) -> None:
    await kept.get()
    clock.now += later
    assert await kept.get() == f"document {asked}"


async def test_J31_the_last_good_one_serves_for_a_day(
    kept: Kept[str], source: Source, clock: SetClock
) -> None:
    await kept.get()
    source.down = True
    for seconds, asked in ((200, 2), (10, 2), (25, 3), (3600, 4)):
        clock.now += seconds
        assert await kept.get() == "document 1"
        assert (source.asked, kept.trouble) == (asked, "down")
    clock.now = 1000 + 24 * 3600
    with pytest.raises(WorldError, match="down"):
        await kept.get()
    source.down = False
    clock.now += 30
    assert await kept.get() == "document 6"
    assert kept.trouble is None


async def test_J31_trouble_is_told_when_it_begins_and_when_it_ends(
    source: Source, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(source, clock, 100.0, "provider `op`")
    await kept.get()
    for down in (True, True, True, False, False):
        source.down = down
        clock.now += 200
        await kept.get()
    assert [(one.levelno, one.getMessage()) for one in caplog.records if one.name == "ztproxy.providers"] == [
        (logging.ERROR, "provider `op`: down"),
        (logging.WARNING, "provider `op`: well again"),
    ]


async def test_a_first_failure_is_tried_again_after_a_second(
    kept: Kept[str], source: Source, clock: SetClock
) -> None:
    source.down = True
    for _ in range(5):
        with pytest.raises(WorldError, match="down"):
            await kept.get()
    assert source.asked == 1
    source.down = False
    clock.now += 1
    assert await kept.get() == "document 2"


async def test_J21_something_missing_is_asked_for_once_in_30_seconds(
    kept: Kept[str], source: Source, clock: SetClock
) -> None:
    first = await kept.get()
    newer = await asyncio.gather(*(kept.newer_than(first) for _ in range(50)))
    assert set(newer) == {"document 2"}
    for _ in range(50):
        assert await kept.newer_than(newer[0]) == "document 2"
    assert source.asked == 2
    clock.now += 30
    assert await kept.newer_than(newer[0]) == "document 3"


async def test_who_has_an_old_one_gets_the_newer_without_asking(kept: Kept[str], source: Source) -> None:
    first = await kept.get()
    await kept.newer_than(first)
    assert await kept.newer_than(first) == "document 2"
    assert source.asked == 2


async def test_a_newer_one_that_cannot_be_had_leaves_the_old(kept: Kept[str], source: Source) -> None:
    first = await kept.get()
    source.down = True
    assert await kept.newer_than(first) is first


async def test_a_caller_that_goes_away_does_not_count_as_an_attempt(kept: Kept[str], source: Source) -> None:
    gone = asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await kept.get() == "document 2"


TRIED = (
    Tried(
        "Sign-in",
        "answers of a provider that never end, are compressed, silent or no HTTP",
        len(BAD_ANSWERS) + len(BROKEN),
        len(BAD_ANSWERS) + len(BROKEN),
        "given up at 512 KiB or 10 s, as a provider that is away",
    ),
    Tried(
        "Sign-in",
        "addresses in the metadata, in every spelling a connection understands",
        len(ADDRESSES),
        len(ADDRESSES),
        "nothing is sent to a link-local one; private ones are ordinary",
    ),
)
