"""Our own corner on the wire: one answer and no more, whatever comes after it, whatever goes wrong in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.core.words import ask, path, site
from tests.worlds.front import APP, AUTH, PAGE, SIGNED_IN, Front, front
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity
from ztproxy.errors import ClientError, WorldError
from ztproxy.surfaces.answers import Answer
from ztproxy.surfaces.portal import MAX_FORM, MAX_PARAMS, Asked, Portal

OWN = "/.ztproxy"


class Extra:
    """Pages that show what they were asked, and pages that fail."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.go_on = asyncio.Event()

    async def echo(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        return Answer(200, ((b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")), b"echo")

    async def slow(self, asked: Asked) -> Answer:
        await self.go_on.wait()
        return await self.echo(asked)

    async def breaks(self, asked: Asked) -> Answer:
        raise RuntimeError("a secret path: /etc/shadow")

    async def client(self, asked: Asked) -> Answer:
        raise ClientError(Reason.FORGED_FORM, "a secret detail")

    async def sign_in(self, asked: Asked) -> Answer:
        raise ClientError(Reason.LOGIN_EXPIRED, "a secret detail")

    async def world(self, asked: Asked) -> Answer:
        raise WorldError(Reason.STATE_UNAVAILABLE, "a secret detail")

    async def unfit(self, asked: Asked) -> Answer:
        return Answer(200, ((b"X", b"a\r\nSet-Cookie: evil=1"),), b"")

    def table(self) -> Any:
        names = ("echo", "slow", "breaks", "client", "sign_in", "world", "unfit")
        table: Any = {("GET", (".ztproxy", "t", name)): getattr(self, name) for name in names}
        table["POST", (".ztproxy", "t", "echo")] = self.echo
        table["GET", (".ztproxy", "t", "any", "*")] = self.echo
        return table


@pytest.fixture
async def it() -> AsyncIterator[tuple[Front, Extra]]:
    async with front() as built:
        extra = Extra()
        built.reload(site(SIGNED_IN), extra=extra.table())
        yield built, extra


def head(target: str, method: str = "GET", *fields: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: app.test", *fields, "", ""]).encode()


async def everything(front_: Front, data: bytes, later: bytes = b"") -> bytes:
    client = await front_.client()
    await client.send(data)
    if later:
        await asyncio.sleep(0.02)
        await client.send(later)
    try:
        return await client.rest()
    finally:
        client.close()


SECOND = head("/.ztproxy/t/echo?second=1")


@pytest.mark.parametrize(
    ("data", "later"),
    [
        pytest.param(head(f"{OWN}/t/echo") + SECOND, b"", id="pipelined"),
        pytest.param(
            head(f"{OWN}/t/echo", "GET", "Connection: keep-alive") + SECOND, b"", id="asked to stay"
        ),
        pytest.param(head(f"{OWN}/t/echo"), SECOND, id="a moment later"),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Content-Length: 3") + b"abc" + SECOND, b"", id="behind a body"
        ),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\n\r\n" + SECOND,
            b"",
            id="behind chunks",
        ),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", f"Content-Length: {len(SECOND)}") + SECOND, b"", id="as a body"
        ),
    ],
)
async def test_one_answer_and_then_the_end(it: tuple[Front, Extra], data: bytes, later: bytes) -> None:
    front_, extra = it
    told = await everything(front_, data, later)
    assert told.count(b"HTTP/1.1 ") == 1 and told.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in told and b"\r\nServer: ztproxy\r\n" in told
    assert b"aiohttp" not in told.lower() and b"python" not in told.lower()
    assert len(extra.asked) == 1 and not extra.asked[0].params


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Transfer-Encoding: chunked") + b"zz\r\n", id="chunks that are none"
        ),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Transfer-Encoding: chunked") + b"-1\r\n", id="a negative chunk"
        ),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Content-Length: 999999999999"), id="a body that never comes"
        ),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Content-Length: 10000000") + b"x" * 300_000,
            id="a body nobody wants",
        ),
        pytest.param(head(f"{OWN}/t/echo", "GET", "Content-Length: 1") + b"\x00", id="a body for GET"),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Content-Length: 5", "Expect: 100-continue"), id="waits for 100"
        ),
    ],
)
async def test_a_body_changes_nothing_and_shows_no_page_of_aiohttps(
    it: tuple[Front, Extra], data: bytes
) -> None:
    front_, _ = it
    client = await front_.client()
    await client.send(data)
    try:
        told = await client.reader.read(1024)
    except ConnectionResetError:
        told = b""
    client.close()
    assert told == b"" or told.startswith(b"HTTP/1.1 200 ")
    assert b"<html" not in told and b"aiohttp" not in told.lower()
    assert (await front_.raw(head(f"{OWN}/t/echo"))).status == 200


@pytest.mark.parametrize(
    ("name", "reason", "status"),
    [
        ("breaks", Reason.INTERNAL, 500),
        ("client", Reason.FORGED_FORM, 403),
        ("sign_in", Reason.LOGIN_EXPIRED, 400),
        ("world", Reason.STATE_UNAVAILABLE, 503),
    ],
)
async def test_an_exception_is_a_page(
    it: tuple[Front, Extra], name: str, reason: Reason, status: int
) -> None:
    front_, _ = it
    page = await front_.browser().ask(f"{APP}{OWN}/t/{name}")
    assert page.status == status and reason.sentence in page.text and "secret" not in page.text
    exchange = front_.exchanges[-1]
    assert exchange.tag.reasons == (reason,) and exchange.status == status
    assert [type(one) for one in front_.mistakes] == ([RuntimeError] if name == "breaks" else [])


async def test_an_answer_that_cannot_be_sent_is_none(it: tuple[Front, Extra]) -> None:
    front_, _ = it
    told = await everything(front_, head(f"{OWN}/t/unfit"))
    assert b"evil" not in told and b"200" not in told


NOT_THERE = [
    f"{OWN}/nothing",
    f"{OWN}/t",
    f"{OWN}/t/",
    f"{OWN}/t/echo/",
    f"{OWN}/t/any/a/b",
    OWN,
    "/.ZTPROXY/t/echo",
    "/.Ztproxy/sign_out",
    "/%2Eztproxy/nothing",
    "/%2e%7A%74proxy/nothing",
    "/.well-known/ztproxy/",
    "/.WELL-KNOWN/ZTPROXY/jwks.json",
]
MISREAD = ["/.ztproxy;x/t/echo", "/.ztproxy/t/any/a%2Fb", "/.ztproxy//t/echo", "/x/%2e%2e/.ztproxy/t/echo"]


@pytest.mark.parametrize("target", NOT_THERE + MISREAD)
async def test_what_is_no_page_is_answered_here_and_never_by_an_app(
    it: tuple[Front, Extra], target: str
) -> None:
    front_, extra = it
    told = await front_.raw(head(target))
    assert told.status == (404 if "%2e%2e" not in target else 400)
    assert front_.app.received == b"" and not extra.asked


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_own_paths_of_a_host_that_is_not_ours(it: tuple[Front, Extra], method: str) -> None:
    front_, extra = it
    told = await everything(front_, head(f"{OWN}/t/echo", method).replace(b"app.test", b"evil.test") + SECOND)
    assert told.startswith(b"HTTP/1.1 421 ") and told.count(b"HTTP/1.1") == 1 and not extra.asked


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("DELETE", f"{OWN}/t/echo", "GET, HEAD, POST"),
        ("OPTIONS", f"{OWN}/t/breaks", "GET, HEAD"),
        ("POST", f"{OWN}/sign_in", "GET, HEAD"),
        ("PUT", f"{OWN}/callback/op", "GET, HEAD"),
    ],
)
async def test_another_method(it: tuple[Front, Extra], method: str, target: str, allow: str) -> None:
    front_, extra = it
    page = await front_.browser().ask(f"{APP}{target}", method=method)
    assert (page.status, page.field("allow")) == (405, allow)
    assert not extra.asked and front_.exchanges[-1].tag.reasons == (Reason.HTTP_METHOD,)


async def test_head_has_the_fields_and_no_body(it: tuple[Front, Extra]) -> None:
    front_, extra = it
    told = await everything(front_, head(f"{OWN}/t/echo", "HEAD"))
    assert told.startswith(b"HTTP/1.1 200 ") and told.endswith(b"\r\n\r\n") and len(extra.asked) == 1
    await front_.until(lambda: front_.exchanges)
    assert front_.exchanges[-1].bytes_out == 0


async def test_every_field_is_sent_and_hsts_with_them(it: tuple[Front, Extra]) -> None:
    front_, _ = it
    page = await front_.browser().ask(f"{APP}{OWN}/t/client")
    assert page.field("strict-transport-security") == "max-age=60"
    told = await everything(front_, head(f"{OWN}/t/echo"))
    assert told.count(b"Set-Cookie: ") == 2 and told.count(b"Content-Type") <= 1


async def test_the_exchange_tells_what_happened(it: tuple[Front, Extra]) -> None:
    front_, _ = it
    await everything(front_, head(f"{OWN}/t/echo?code=secret"))
    (exchange,) = front_.exchanges
    assert (exchange.status, exchange.bytes_out, exchange.tag.decision) == (200, 4, "portal")
    assert "secret" not in repr(exchange.tag)


async def test_a_client_that_leaves_meanwhile(it: tuple[Front, Extra]) -> None:
    front_, extra = it
    client = await front_.client()
    await client.send(head(f"{OWN}/t/slow"))
    await asyncio.sleep(0.02)
    client.close()
    await front_.until(lambda: front_.exchanges)
    assert (front_.exchanges[-1].status, front_.exchanges[-1].tag.decision) == (0, "portal")
    extra.go_on.set()
    await front_.until(lambda: extra.asked)


# -- parameters, without a socket -------------------------------------------------------------------------


def of(front_: Front) -> Portal:
    return front_.worker.portal


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("?a=1", "1", id="once"),
        pytest.param("?a=1&a=1", None, id="twice"),
        pytest.param("?a=1&%61=2", None, id="twice, one escaped"),
        pytest.param("?a=", "", id="empty"),
        pytest.param("?a", "", id="without a value"),
        pytest.param("?b=1;a=2", None, id="a semicolon parts nothing"),
        pytest.param("", None, id="none"),
    ],
)
async def test_a_parameter_given_twice_is_not_given(
    it: tuple[Front, Extra], query: str, expected: str | None
) -> None:
    front_, extra = it
    await of(front_).answer(Asked(ask(f"{OWN}/t/echo", query=query), "r1"))
    assert extra.asked[0].param("a") == expected


async def test_too_many_parameters_are_the_clients_fault(it: tuple[Front, Extra]) -> None:
    front_, extra = it
    asked = Asked(ask(f"{OWN}/t/echo", query="?" + "&".join(["a=1"] * (MAX_PARAMS + 1))), "r1")
    assert (await of(front_).answer(asked)).status == 400
    assert not extra.asked and asked.outcome.reasons == (Reason.HTTP_TARGET,) and not front_.mistakes


async def test_a_path_with_two_readings_is_no_page(it: tuple[Front, Extra]) -> None:
    front_, extra = it
    two = path(f"{OWN}/t/any/a%2Fb", f"{OWN}/t/any/b", because=Ambiguity.ENCODED_SLASH)
    assert (await of(front_).answer(Asked(ask(two), "r1"))).status == 404 and not extra.asked


async def test_the_auth_host_has_our_pages_and_a_front_door() -> None:
    async with front(site(SIGNED_IN), auth=AUTH) as front_:
        bob = front_.browser("bob")
        assert (await bob.ask(f"{AUTH}/")).location == f"{OWN}/apps"
        assert (await bob.ask(f"{AUTH}/else")).status == 404
        assert (await bob.ask(f"{AUTH}{OWN}/signed_out", PAGE)).status == 200
        assert front_.app.received == b""


# -- forms ------------------------------------------------------------------------------------------------


FORM = "Content-Type: application/x-www-form-urlencoded"


class Formal(Extra):
    """A page that reads its form, once or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Any] = []

    async def echo(self, asked: Asked) -> Answer:
        self.forms.append(await asked.form())
        return await super().echo(asked)


@pytest.fixture
async def formal() -> AsyncIterator[tuple[Front, Formal]]:
    async with front() as built:
        extra = Formal()
        built.reload(site(SIGNED_IN), extra=extra.table())
        yield built, extra


def sent(body: bytes, *fields: str) -> bytes:
    return head(f"{OWN}/t/echo", "POST", f"Content-Length: {len(body)}", *fields) + body


@pytest.mark.parametrize(
    ("data", "form"),
    [
        pytest.param(sent(b"a=1&b=%20x&a=2", FORM), [("a", "1"), ("b", " x"), ("a", "2")], id="in order"),
        pytest.param(sent(b"a=1", f"{FORM}; charset=utf-8"), [("a", "1")], id="with a parameter"),
        pytest.param(sent(b"a=1", FORM.replace("form", "FORM")), [("a", "1")], id="in another case"),
        pytest.param(sent(b"a=1", FORM) + SECOND, [("a", "1")], id="and a second request"),
        pytest.param(sent(b"a&b=", FORM), [("a", ""), ("b", "")], id="without values"),
        pytest.param(sent(b""), [], id="empty, of no type"),
        pytest.param(head(f"{OWN}/t/echo", "POST"), [], id="no body"),
        pytest.param(sent(b"a=" + b"x" * (MAX_FORM - 2), FORM), [("a", "x" * (MAX_FORM - 2))], id="as long"),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Transfer-Encoding: chunked", FORM)
            + b"2\r\na=\r\n1\r\n1\r\n0\r\n\r\n"
            + SECOND,
            [("a", "1")],
            id="in chunks, and a second request",
        ),
    ],
)
async def test_a_form(formal: tuple[Front, Formal], data: bytes, form: Any) -> None:
    front_, extra = formal
    told = await everything(front_, data)
    assert told.startswith(b"HTTP/1.1 200 ") and told.count(b"HTTP/1.1 ") == 1
    assert extra.forms == [form]


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        pytest.param(sent(b"a=1"), 400, Reason.HTTP_BODY, id="of no type"),
        pytest.param(sent(b"a=1", "Content-Type: text/plain"), 400, Reason.HTTP_BODY, id="as text"),
        pytest.param(
            sent(b"a=1", FORM.replace("encoded", "encoded2")), 400, Reason.HTTP_BODY, id="of nearly the type"
        ),
        pytest.param(sent(b"a=\xff", FORM), 400, Reason.HTTP_BODY, id="not ASCII"),
        pytest.param(sent(b"a=%ff", FORM), 400, Reason.HTTP_BODY, id="no UTF-8"),
        pytest.param(
            sent(b"&".join([b"a=1"] * (MAX_PARAMS + 1)), FORM), 400, Reason.HTTP_BODY, id="too many"
        ),
        pytest.param(sent(b"a" * (MAX_FORM + 1), FORM), 413, Reason.HTTP_BODY_TOO_LARGE, id="too long"),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Content-Length: 99999999999", FORM),
            413,
            Reason.HTTP_BODY_TOO_LARGE,
            id="too long, by its own word",
        ),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Transfer-Encoding: chunked", FORM)
            + b"10000\r\n"
            + b"a" * 0x10000
            + b"\r\n1\r\na\r\n",
            413,
            Reason.HTTP_BODY_TOO_LARGE,
            id="too long, in chunks without an end",
        ),
        pytest.param(
            sent(b"\x1f\x8b\x08", FORM, "Content-Encoding: gzip"), 400, Reason.HTTP_BODY, id="compressed"
        ),
    ],
)
async def test_what_is_no_form(
    formal: tuple[Front, Formal], data: bytes, status: int, reason: Reason
) -> None:
    front_, extra = formal
    client = await front_.client()
    await client.send(data)
    try:
        told = await client.reader.read(1024)
    except ConnectionResetError:
        told = f"HTTP/1.1 {status} ".encode()
    client.close()
    await front_.until(lambda: front_.exchanges)
    assert told.startswith(f"HTTP/1.1 {status} ".encode()) and not extra.forms
    assert front_.exchanges[-1].tag.reasons == (reason,) and not front_.mistakes


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Transfer-Encoding: chunked", FORM) + b"zz\r\n",
            id="chunks that are none",
        ),
        pytest.param(
            head(f"{OWN}/t/echo", "POST", "Content-Length: 9", FORM) + b"a=1", id="a body that stops"
        ),
    ],
)
async def test_a_form_that_is_cut_short_is_nobodys_mistake(formal: tuple[Front, Formal], data: bytes) -> None:
    front_, extra = formal
    client = await front_.client()
    await client.send(data)
    await asyncio.sleep(0.02)
    client.close()
    await front_.until(lambda: front_.exchanges and front_.exchanges[-1].tag.reasons)
    assert front_.exchanges[-1].tag.reasons == (Reason.HTTP_BODY,)
    assert not extra.forms and not front_.mistakes
