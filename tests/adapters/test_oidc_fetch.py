"""A provider that hurts whoever listens (D05 to D08), and documents that are kept (J21, J31)."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web

from tests.worlds.lying_provider import serving
from tests.worlds.memory_state import SetClock
from ztproxy.adapters.oidc_fetch import MAX_BYTES, Answer, Kept, fetch, provider_session
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


@pytest.mark.parametrize(
    ("handler", "word"),
    [
        pytest.param(says(body=b"x" * (MAX_BYTES + 1)), "larger", id="D07_one_byte_too_many"),
        pytest.param(endless, "larger", id="D07_endless"),
        pytest.param(a_byte_now_and_then, "within", id="D07_a_byte_now_and_then"),
        pytest.param(silence, "within", id="D11_silence"),
        pytest.param(
            says(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "compressed", id="D07_gzip"
        ),
        pytest.param(says(headers={"X-A": "a" * 20000}), "no usable answer", id="huge_header"),
    ],
)
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


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="closed_at_once"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", id="cut_short"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another_protocol"),
    ],
)
async def test_broken_answers(answer: bytes) -> None:
    async with raw(answer) as url:
        assert "no usable answer" in await refused(url)


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
async def tls_server(certificate: trustme.LeafCert) -> AsyncIterator[str]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"


async def test_D08_a_trusted_certificate() -> None:
    ca, trust = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(trust)
    async with tls_server(ca.issue_cert("127.0.0.1")) as url:
        assert (await ask(url, tls=trust)).body == b"{}"


@pytest.mark.parametrize("wrong", ["D08_self_signed", "D08_wrong_host"])
async def test_certificates_that_prove_nothing(wrong: str) -> None:
    ca, trust = trustme.CA(), ssl.create_default_context()
    if wrong == "D08_wrong_host":
        ca.configure_trust(trust)
    name = "other.test" if wrong == "D08_wrong_host" else "127.0.0.1"
    async with tls_server(ca.issue_cert(name)) as url:
        assert (await refused(url, tls=trust)).startswith("TLS")


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
