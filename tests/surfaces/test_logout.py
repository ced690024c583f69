"""Providers at our door, over the wire: what is taken for a notice, and what each is answered (L rows)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.core.words import site
from tests.wire.world import Client
from tests.worlds.front import APP, AUTH, SIGNED_IN, Front, Page, front
from tests.worlds.lying_provider import Says
from ztproxy.core.locks import TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.gateway.logout import NOTICES_PER_SECOND
from ztproxy.surfaces.logout import LogoutPages
from ztproxy.surfaces.portal import MAX_FORM

BACK = "/.ztproxy/logout/back/op"
FRONT = "/.ztproxy/logout/front/op"
FORM = "application/x-www-form-urlencoded"
XHR = {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}


@pytest.fixture
async def it() -> AsyncIterator[Front]:
    async with front(site(SIGNED_IN), site(SIGNED_IN, name="other", host="other.test"), auth=AUTH) as built:
        built.front_channel = frozenset({"op"})
        built.reload(site(SIGNED_IN), site(SIGNED_IN, name="other", host="other.test"))
        yield built


async def post(
    it: Front, body: bytes, content_type: str | None = FORM, url: str = f"{APP}{BACK}", method: str = "POST"
) -> Page:
    headers = {"Accept": "*/*"} | ({} if content_type is None else {"Content-Type": content_type})
    return await it.browser().ask(url, headers, method=method, body=body)


def form(token: str, **more: str) -> bytes:
    return urlencode({"logout_token": token, **more}).encode()


def head(framing: str) -> bytes:
    return f"POST {BACK} HTTP/1.1\r\nHost: app.test\r\nContent-Type: {FORM}\r\n{framing}\r\n\r\n".encode()


def is_bare(page: Page) -> bool:
    return (page.field("cache-control"), page.set_cookies, page.location) == ("no-store", [], "")


@pytest.mark.parametrize("host", [APP, "https://other.test", AUTH])
async def test_L01_at_any_host_of_ours(it: Front, host: str) -> None:
    alice = it.browser(sid="i-1")
    await alice.open(APP)
    page = await post(it, form(it.op.logout_token()), url=host + BACK)
    assert (page.status, page.text) == (200, "") and is_bare(page)
    assert (await alice.ask(APP, XHR)).status == 401
    assert [lock.target.kind for lock in it.revoking.locks] == [TargetKind.IDP_SESSION]
    ((event, _),) = it.audit.events
    assert (event.actor, event.request_id != "") == ("provider:op", True)


async def test_L02_all_of_a_person(it: Front) -> None:
    alice, bob = it.browser(), it.browser("bob")
    await alice.open(APP)
    await bob.open(APP)
    body = form(it.op.logout_token(sid=..., sub="alice"), state="what we do not know is left alone")
    page = await post(it, body, f"{FORM}; charset=UTF-8")
    assert page.status == 200
    assert [(await one.ask(APP, XHR)).status for one in (alice, bob)] == [401, 200]
    assert [one.tag.subject for one in it.exchanges if one.tag.decision == "sign_out"] == ["alice"]


async def test_L20_in_chunks(it: Front) -> None:
    body = form(it.op.logout_token())
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    assert (
        await it.raw(head("Transfer-Encoding: chunked") + chunks, "POST")
    ).status == 200 and it.revoking.locks


NOT_A_NOTICE = {
    "no body": (b"", FORM, ""),
    "no token": (b"a=b", FORM, ""),
    "an empty token": (b"logout_token=", FORM, ""),
    "no media type": (b"logout_token=TOKEN", None, ""),
    "JSON": (b'{"logout_token":"TOKEN"}', "application/json", ""),
    "a form that says it is JSON": (b"logout_token=TOKEN", "application/json", ""),
    "a bare token": (b"TOKEN", "application/logout+jwt", ""),
    "multipart": (
        b'--x\r\nContent-Disposition: form-data; name="logout_token"\r\n\r\nTOKEN\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
        "",
    ),
    "twice": (b"logout_token=TOKEN&logout_token=TOKEN", FORM, ""),
    "twice, one escaped": (b"logout_token=TOKEN&logout%5Ftoken=TOKEN", FORM, ""),
    "in the query": (b"", FORM, "?logout_token=TOKEN"),
    "in the query too": (b"logout_token=TOKEN", FORM, "?logout_token=x"),
    "one megabyte": (b"logout_token=TOKEN&x=" + b"a" * 1_000_000, FORM, ""),
    "just too long": (b"logout_token=TOKEN&x=" + b"a" * MAX_FORM, FORM, ""),
    "too many fields": (b"logout_token=TOKEN" + b"&a=b" * 40, FORM, ""),
    "another case": (b"Logout_Token=TOKEN", FORM, ""),
    "no UTF-8": (b"logout_token=TOKEN&x=%ff", FORM, ""),
    "not ASCII": (b"logout_token=TOKEN&x=\xff", FORM, ""),
    "a semicolon for an ampersand": (b"a=b;logout_token=TOKEN", FORM, ""),
}


@pytest.mark.parametrize(
    ("body", "content_type", "query"),
    [pytest.param(*row, id=f"L20 {name}") for name, row in NOT_A_NOTICE.items()],
)
async def test_what_is_no_notice(it: Front, body: bytes, content_type: str | None, query: str) -> None:
    token = it.op.logout_token()
    page = await post(
        it,
        body.replace(b"TOKEN", token.encode()),
        content_type,
        f"{APP}{BACK}{query.replace('TOKEN', token)}",
    )
    assert (page.status, page.json) == (400, {"error": "invalid_request"}) and is_bare(page)
    assert not it.revoking.asked and not it.mistakes
    # Nothing of it is used up: the same token, sent as it should be.
    assert (await post(it, form(token))).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_L20_another_method(it: Front, method: str) -> None:
    url = f"{APP}{BACK}?logout_token={it.op.logout_token()}"
    page = await it.browser().ask(url, XHR, method=method)
    assert (page.status, page.field("allow"), page.field("cache-control")) == (405, "POST", "no-store")
    assert not it.revoking.asked


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"sid": ...}, id="L04"),
        pytest.param({"events": ...}, id="L08"),
        pytest.param({"nonce": "n"}, id="L10"),
        pytest.param({"iss": "https://evil.test"}, id="L11"),
        pytest.param({"aud": "other"}, id="L12"),
        pytest.param({"jti": ...}, id="L17"),
        pytest.param({"exp": 1}, id="L18"),
    ],
)
async def test_a_token_that_is_not_accepted(it: Front, claims: dict[str, Any]) -> None:
    alice = it.browser(sid="i-1")
    await alice.open(APP)
    page = await post(it, form(it.op.logout_token(**claims)))
    assert (page.status, page.json) == (400, {"error": "invalid_request"}) and is_bare(page)
    assert it.exchanges[-1].tag.reasons == (Reason.LOGOUT_TOKEN,) and not it.revoking.asked
    assert (await alice.ask(APP, XHR)).status == 200


@pytest.mark.parametrize("name", ["other", "", "OP", "op%2F", "op/x", "*"])
async def test_a_path_of_no_provider(it: Front, name: str) -> None:
    page = await post(it, form(it.op.logout_token()), url=f"{APP}/.ztproxy/logout/back/{name}")
    assert page.status in (400, 404) and not it.revoking.asked


async def test_L17_L24_once_and_never_an_error(it: Front) -> None:
    body = form(it.op.logout_token())
    pages = await asyncio.gather(*(post(it, body) for _ in range(40)))
    assert sorted(page.status for page in pages) == [200] + [400] * 39
    assert (await post(it, body)).status == 400
    assert len(it.revoking.locks) == 1 and not it.mistakes


@pytest.mark.parametrize("what", ["log", "fence", "store", "provider"])
async def test_what_may_be_sent_again_says_so(it: Front, what: str) -> None:
    body = form(it.op.logout_token())
    it.revoking.away, it.revoking.confirms, it.state.away = what == "log", what != "fence", what == "store"
    if what == "provider":
        it.op.lie("/jwks", Says(status=503))
    page = await post(it, body)
    assert (page.status, page.field("retry-after")) == (503, "1") and is_bare(page)
    assert page.json == {"error": "temporarily_unavailable"} and it.exchanges[-1].tag.decision == "fail"
    it.revoking.away, it.revoking.confirms, it.state.away = False, True, False
    it.op.lies.clear()
    it.later(2)
    assert (await post(it, body)).status == 200


async def test_L27_a_flood_is_told_to_wait(it: Front) -> None:
    tokens = [it.op.logout_token(sid=f"i-{number}") for number in range(NOTICES_PER_SECOND + 1)]
    pages = [await post(it, form(token)) for token in tokens]
    assert [page.status for page in pages] == [200] * NOTICES_PER_SECOND + [429]
    assert pages[-1].field("retry-after") == "1" and is_bare(pages[-1])
    assert it.exchanges[-1].tag.reasons == (Reason.RATE_LIMITED,)
    it.later(1)
    assert (await post(it, form(tokens[-1]))).status == 200


async def test_a_flood_of_frames_is_told_to_wait(it: Front) -> None:
    """Of one sender."""
    url = f"{APP}{FRONT}?{urlencode({'iss': it.op.issuer, 'sid': 'guess'})}"
    pages = [await it.browser().ask(url) for _ in range(NOTICES_PER_SECOND + 1)]
    assert [page.status for page in pages] == [200] * NOTICES_PER_SECOND + [429]
    assert pages[-1].field("retry-after") == "1" and not it.revoking.asked


async def test_a_flood_of_frames_keeps_nobody_signed_in(it: Front) -> None:
    alice = it.browser(sid="i-1")
    await alice.open(APP)
    for _ in range(NOTICES_PER_SECOND + 1):
        last = await it.browser().ask(frame(it, sid="guess"))
    assert last.status == 429 and (await alice.ask(APP, XHR)).status == 200
    elsewhere = Client(*await asyncio.open_connection("127.0.0.1", it.port, local_addr=("127.0.0.2", 0)))
    target = frame(it).removeprefix(APP)
    answer = await elsewhere.ask(f"GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n".encode())
    elsewhere.close()
    assert answer.status == 200 and (await alice.ask(APP, XHR)).status == 401


async def test_a_body_that_stops_half_way(it: Front) -> None:
    client = await it.client()
    await client.send(head("Content-Length: 999") + b"lo")
    await asyncio.sleep(0.02)
    client.close()
    await it.until(lambda: it.exchanges)
    client = await it.client()
    await client.send(head("Transfer-Encoding: chunked") + b"zz\r\n")
    assert b"200" not in await client.rest()
    client.close()
    assert not it.revoking.asked and not it.mistakes
    assert (await post(it, form(it.op.logout_token()))).status == 200


async def test_a_cookie_is_neither_needed_nor_looked_at(it: Front) -> None:
    alice = it.browser()
    await alice.open(APP)
    headers = {"Content-Type": FORM, "Origin": "https://evil.test", "Sec-Fetch-Site": "cross-site"}
    page = await alice.ask(f"{APP}{BACK}", headers, method="POST", body=b"everywhere=1&logout_token=x")
    assert page.status == 400 and not it.revoking.asked and alice.session() is not None


# -- the frame --------------------------------------------------------------------------------------------


def frame(it: Front, **changes: str | None) -> str:
    given = {"iss": it.op.issuer, "sid": "i-1", **changes}
    return f"{APP}{FRONT}?" + urlencode({name: value for name, value in given.items() if value is not None})


async def test_a_frame_ends_a_session_and_shows_nothing(it: Front) -> None:
    alice = it.browser(sid="i-1")
    await alice.open(APP)
    page = await it.browser().ask(frame(it), {"Accept": "text/html", "Sec-Fetch-Dest": "iframe"})
    assert page.status == 200 and is_bare(page) and "<body" not in page.text
    policy = str(page.field("content-security-policy"))
    assert policy.endswith(f"frame-ancestors {it.op.issuer}") and "default-src 'none'" in policy
    assert page.field("x-frame-options") is None
    assert (await alice.ask(APP, XHR)).status == 401
    again = await it.browser().ask(frame(it, sid="unknown"), {"Accept": "text/html"})
    without = [field for field in again.got.fields if field[0] != "date"]
    assert again.text == page.text
    assert without == [field for field in page.got.fields if field[0] != "date"], "no oracle"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("sid=i-1", 400, id="no issuer"),
        pytest.param("iss={iss}", 400, id="no sid"),
        pytest.param("", 400, id="neither"),
        pytest.param("iss=https://evil.test&sid=i-1", 400, id="another issuer"),
        pytest.param("iss={iss}&iss={iss}&sid=i-1", 400, id="an issuer twice"),
        pytest.param("iss={iss}&sid=i-1&sid=i-2", 400, id="a sid twice"),
        pytest.param("iss={iss}&sid=", 400, id="an empty sid"),
    ],
)
async def test_a_frame_that_is_refused(it: Front, query: str, status: int) -> None:
    alice = it.browser(sid="i-1")
    await alice.open(APP)
    url = f"{APP}{FRONT}?{query.replace('{iss}', quote(it.op.issuer, safe=''))}"
    page = await it.browser().ask(url)
    assert page.status == status and page.field("x-frame-options") == "DENY"
    assert (await alice.ask(APP, XHR)).status == 200 and not it.revoking.asked


async def test_only_where_the_operator_wants_it() -> None:
    async with front() as it:
        alice = it.browser(sid="i-1")
        await alice.open(APP)
        assert (await it.browser().ask(frame(it))).status == 404
        assert (await alice.ask(APP, XHR)).status == 200


async def test_a_frame_that_cannot_be_served(it: Front) -> None:
    alice = it.browser(sid="i-1")
    await alice.open(APP)
    it.revoking.away = True
    page = await it.browser().ask(frame(it))
    assert (page.status, page.field("retry-after")) == (503, "1")


@pytest.mark.parametrize(
    ("issuer", "framed_by"),
    [
        pytest.param("https://op.test", "https://op.test", id="plain"),
        pytest.param("https://op.test:8443/realms/a", "https://op.test:8443", id="a port and a path"),
        pytest.param("https://OP.test/x", "https://op.test", id="upper case"),
        pytest.param("https://op.test;script-src *", "'none'", id="what would end the directive"),
        pytest.param("https://*.test", "'none'", id="a wildcard"),
        pytest.param("https://", "'none'", id="nothing"),
    ],
)
async def test_whose_pages_may_frame_it(it: Front, issuer: str, framed_by: str) -> None:
    answer = LogoutPages(it.worker.signing_in._logout, {"op": issuer})._framed["op"]
    policy = dict(answer.fields)[b"Content-Security-Policy"].decode()
    assert policy.partition("frame-ancestors ")[2] == framed_by
