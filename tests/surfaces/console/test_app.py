"""Every request from its first check to its page: headers, hosts, methods, bodies, failures."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from tests.surfaces.admin.world import ROLES
from tests.surfaces.console.world import Browser, Console
from ztproxy.core.device import Device
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.surfaces.admin.access import PER_SECOND
from ztproxy.surfaces.admin.bodies import MAX_BODY
from ztproxy.surfaces.console.forms import MAX_FIELDS

PAGES = [
    "/console/sessions",
    "/console/revoke?kind=all",
    "/console/devices",
    "/console/devices/L-1",
    "/console/devices/status/confirm?id=L-1&status=lost",
    "/console/locks",
    "/console/locks/new",
    "/console/decisions",
    "/console/decisions/rows",
    "/console/status",
]
LIST = PAGES[0]


def check_headers(headers: dict[str, str]) -> None:
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert (
        "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy and "form-action 'self'" in policy
    )
    assert "unsafe" not in policy and "*" not in policy
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


@pytest.mark.parametrize("path", [*PAGES, "/console/nothing", "/console/sessions/nobody", "/console/enter"])
async def test_every_page(world: Console, path: str) -> None:
    await world.sign_in("alice")
    world.devices.devices["L-1"] = Device("L-1", revision=1)
    page = await (await world.enter("admin")).get(path)
    check_headers(page.answer.headers)
    assert page.answer.headers["cache-control"] == "no-store"
    assert page.answer.headers["content-type"] == "text/html; charset=utf-8"
    assert page.answer.headers["ztproxy-revocation"] == "strict"
    assert " style=" not in page.html and "<style" not in page.html
    assert not re.search(r" on\w+=", page.html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page.html))


async def test_failures_have_the_headers_too(world: Console) -> None:
    page = await Browser(world).get(LIST)
    assert page.status == 401
    check_headers(page.answer.headers)
    assert page.answer.headers["x-request-id"] in page.text


@pytest.mark.parametrize("path", ["/", "/console", "/console/"])
async def test_the_front_door(world: Console, path: str) -> None:
    page = await (await world.enter()).get(path)
    assert (page.status, page.answer.headers["location"]) == (303, LIST)


async def test_the_navigation_leads_to_pages(world: Console) -> None:
    browser = await world.enter("viewer")
    page = await browser.get(LIST)
    ours = [link for link in page.links if link.startswith("/console")]
    assert len(ours) >= 4
    for link in ours:
        assert (await browser.get(link)).status == 200


async def test_style_and_script_may_be_kept(world: Console) -> None:
    page = await Browser(world).get("/console/enter?code=x")
    (style,) = re.findall(r'href="(/console/static/console-[0-9a-f]{16}\.css)"', page.html)
    (script,) = re.findall(r'src="(/console/static/htmx-[0-9a-f]{16}\.js)"', page.html)
    for path, kind, mark in ((style, "text/css", b"--ground"), (script, "text/javascript", b"htmx")):
        answer = (await Browser(world).get(path)).answer
        assert (answer.status, answer.headers["cache-control"]) == (
            200,
            "public, max-age=31536000, immutable",
        )
        assert answer.headers["content-type"].startswith(kind)
        assert mark in answer.body
        check_headers(answer.headers)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        pytest.param("/console/static/nothing.js", "GET", 404, id="no such file"),
        pytest.param("/console/static/../app.py", "GET", 404, id="a path"),
        pytest.param("/console/static/htmx-2.0.11.LICENSE", "GET", 404, id="a file that is not served"),
        pytest.param("/console/static/nothing.js", "POST", 405, id="a form"),
    ],
)
async def test_nothing_else_is_served(world: Console, path: str, method: str, status: int) -> None:
    assert (await Browser(world).get(path, method=method)).status == status


@pytest.mark.parametrize(
    ("path", "method", "status", "allow"),
    [
        pytest.param("/console/nothing", "GET", 404, None, id="no such page"),
        pytest.param("/console/sessions/", "GET", 404, None, id="an empty id"),
        pytest.param("/console/%73essions", "GET", 404, None, id="another spelling"),
        pytest.param("/console/sessions/a/b", "GET", 404, None, id="one step too many"),
        pytest.param("/console/sessions/" + "a" * 1100, "GET", 400, None, id="a long id"),
        pytest.param("/console/sessions", "DELETE", 405, "GET", id="a page is not deleted"),
        pytest.param("/console/sessions", "PUT", 405, "GET", id="nor put"),
        pytest.param("/console/sessions", "OPTIONS", 405, "GET", id="options"),
        pytest.param("/console/revoke/confirm", "GET", 405, "POST", id="a form alone"),
        pytest.param("/console/leave", "GET", 405, "POST", id="leaving by a link"),
        pytest.param("/console/enter", "PUT", 405, "GET, POST", id="entering in other ways"),
        pytest.param("/console", "PUT", 405, "GET", id="the front door"),
        pytest.param("/console/sessions", "HEAD", 200, None, id="a head"),
    ],
)
async def test_what_there_is(world: Console, path: str, method: str, status: int, allow: str | None) -> None:
    page = await (await world.enter("admin")).get(path, method=method)
    assert (page.status, page.answer.headers.get("allow")) == (status, allow)
    assert (page.answer.body == b"") is (method == "HEAD")


@pytest.mark.parametrize(
    "header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"], ids=lambda it: str(it)
)
async def test_a_method_is_what_it_is(world: Console, header: str) -> None:
    browser = await world.enter("admin")
    world.audit.events.clear()
    page = await browser.get("/console/revoke?kind=all&_method=POST", (header, "POST"))
    assert page.forms[-1].action in ("/console/revoke", "/console/leave")
    assert (world.log.entries, world.audit.events) == ({}, [])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("evil.test", 421, id="a name rebound to our address (A12)"),
        pytest.param("localhost.evil.test", 421, id="a longer name"),
        pytest.param("127.0.0.1", 200, id="an address"),
        pytest.param("admin.test:9901", 200, id="a name of the configuration"),
    ],
)
async def test_hosts(world: Console, host: str, status: int) -> None:
    page = await (await world.enter()).get(LIST, ("Host", host))
    assert page.status == status


@pytest.mark.parametrize(
    ("fetched", "mode", "status"),
    [
        pytest.param("cross-site", "navigate", 200, id="a link of another site"),
        pytest.param("cross-site", "no-cors", 403, id="an image of another site"),
        pytest.param("same-site", "cors", 403, id="a script of a neighbour"),
        pytest.param("same-origin", "cors", 200, id="htmx"),
        pytest.param("none", "navigate", 200, id="typed"),
    ],
)
async def test_who_may_look(world: Console, fetched: str, mode: str, status: int) -> None:
    browser = await world.enter()
    page = await browser.get(LIST, ("Sec-Fetch-Site", fetched), ("Sec-Fetch-Mode", mode))
    assert page.status == status


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{}", [("Content-Type", "application/json")], 415, id="JSON"),
        pytest.param(b"a=1", [("Content-Type", "text/plain")], 415, id="text"),
        pytest.param(b"a=1", [("Content-Type", "multipart/form-data; boundary=a")], 415, id="multipart"),
        pytest.param(b"a=1", [("Content-Encoding", "gzip")], 415, id="packed"),
        pytest.param(b"a=" + b"a" * MAX_BODY, [], 413, id="huge"),
        pytest.param(b"&".join([b"session=a"] * (MAX_FIELDS + 1)), [], 400, id="too many fields"),
        pytest.param(b"a=" + b"a" * 1100, [], 400, id="a long field"),
        pytest.param(b"a=%ff", [], 400, id="no UTF-8"),
        pytest.param("a=ö".encode(), [], 400, id="not encoded"),
        pytest.param(b"reason=a%0d%0aSet-Cookie", [], 400, id="two lines"),
        pytest.param(b"reason=a%00b", [], 400, id="a NUL"),
        pytest.param(b"form_key=a&form_key=b", [], 400, id="two keys"),
        pytest.param(b"", [], 403, id="nothing"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/console/revoke", "/console/locks", "/console/locks/lift", "/console/leave"]
)
async def test_bodies(world: Console, path: str, body: bytes, headers: Any, status: int) -> None:
    browser = await world.enter("admin")
    world.audit.events.clear()
    page = await browser.post(path, body, *headers)
    assert page.status == status
    check_headers(page.answer.headers)
    assert (world.log.entries, world.audit.events) == ({}, [])
    assert (await browser.get(LIST)).status == 200


async def test_a_body_said_to_be_huge(world: Console) -> None:
    browser = await world.enter("admin")
    assert (await browser.post("/console/revoke", b"a=1", ("Content-Length", "99999999"))).status == 413


async def test_a_body_that_grows_without_saying_so(world: Console) -> None:
    browser = await world.enter("admin")
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    headers = [("Content-Length", ""), ("Transfer-Encoding", "chunked")]
    page = await browser.post("/console/revoke", chunk * 2 + b"0\r\n\r\n", *headers)
    assert page.status == 413


@pytest.mark.parametrize(
    "query", ["a=%ff", "&".join(["a=1"] * (MAX_FIELDS + 1)), "text=a%0ab", "kind=nobody"]
)
async def test_queries(world: Console, query: str) -> None:
    assert (await (await world.enter()).get(f"{LIST}?{query}")).status == 400


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_asks_without_end(world: Console, role: Any) -> None:
    browser = await world.enter(role)
    allowed = int(2 * PER_SECOND[role])
    statuses = [(await browser.get("/console/nothing")).status for _ in range(allowed + 1)]
    assert statuses == [404] * allowed + [429]
    world.ticks.now += 1
    assert (await browser.get(LIST)).status == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(WorldError(Reason.STATE_UNAVAILABLE, "state: secret detail"), 503, id="away"),
        pytest.param(ClientError(Reason.LOGIN_STATE, "secret detail"), 500, id="not expected"),
        pytest.param(RuntimeError("secret detail: /etc/shadow"), 500, id="a bug"),
    ],
)
async def test_failures(
    world: Console, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    browser = await world.enter()
    world.raises = error
    with caplog.at_level(logging.WARNING, "ztproxy.admin"):
        page = await browser.get("/console/status")
    assert page.status == status
    assert "secret detail" not in page.html and "Traceback" not in page.html
    assert "secret detail" in caplog.text and page.answer.headers["x-request-id"] in caplog.text
    check_headers(page.answer.headers)


async def test_when_the_store_is_away_nobody_is_sent_out(world: Console) -> None:
    browser = await world.enter()
    world.tokens.away = True
    assert (await browser.get(LIST)).status == 503
    world.tokens.away = False
    assert (await browser.get(LIST)).status == 200


async def test_a_part_of_a_page_that_fails_has_the_whole_page_loaded(world: Console) -> None:
    page = await Browser(world).get("/console/decisions/rows", ("HX-Request", "true"))
    assert (page.status, page.answer.headers["hx-refresh"]) == (401, "true")
    assert "hx-refresh" not in (await Browser(world).get(LIST)).answer.headers
