"""One request from its first check to its answer; most of these are no requests anybody honest would send."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.surfaces.admin.world import JSON_TYPE, Answer, World, serving
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.surfaces.admin.bodies import MAX_BODY

REVOCATION = {"target": {"kind": "session", "name": "s1"}}


@pytest.fixture
def nothing_changes(world: World) -> Any:
    """Whatever is asked, nothing may come of it."""
    yield
    assert world.log.entries == {}
    assert world.reloads == 0
    assert {outcome for _, outcome, _ in world.outcomes} <= {"refused"}


async def post(world: World, body: bytes, *headers: tuple[str, str], path: str = "/revocations") -> Answer:
    return await world.ask("POST", path, *(headers or (JSON_TYPE,)), body=body)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9903", "127.0.0.1:1", "[::1]:9903", "admin.TEST:9903"]
)
async def test_hosts_that_are_answered(world: World, host: str) -> None:
    assert (await world.ask("GET", "/whoami", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("evil.test", id="a name bound to us (A12)"),
        pytest.param("localhost.evil.test", id="one that begins like us"),
        pytest.param("127.1", id="an address in short"),
        pytest.param("", id="empty"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/whoami", "/api/v1/nothing", "/", "/console"])
async def test_hosts_that_are_not(world: World, host: str, path: str) -> None:
    token = ("Authorization", f"Bearer {world.secrets['admin']}")
    answer = await world.raw(f"GET {path} HTTP/1.1", [("Host", host), token])
    assert (answer.status, answer.kind) == (421, "wrong_host")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        pytest.param("GET", "/revocations", "POST", id="revoking by GET (A10)"),
        pytest.param("GET", "/reload", "POST", id="reloading by GET"),
        pytest.param("GET", "/keys/rotate", "POST", id="rotating by GET"),
        pytest.param("HEAD", "/sessions", "GET", id="HEAD"),
        pytest.param("PUT", "/sessions/s1", "DELETE, GET", id="PUT"),
        pytest.param("POST", "/sessions/s1", "DELETE, GET", id="POST on a session"),
        pytest.param("PATCH", "/locks/l1", "DELETE, GET", id="PATCH"),
        pytest.param("OPTIONS", "/sessions", "GET", id="a preflight is not granted"),
        pytest.param("DELETE", "/locks", "GET, POST", id="DELETE of all"),
        pytest.param("get", "/sessions", "GET", id="in lower case"),
    ],
)
@pytest.mark.usefixtures("nothing_changes")
async def test_methods(world: World, method: str, path: str, allow: str) -> None:
    token = ("Authorization", f"Bearer {world.secrets['admin']}")
    answer = await world.raw(f"{method} /api/v1{path} HTTP/1.1", [("Host", "localhost"), token])
    assert answer.status in ((400, 405) if method == "get" else (405,))
    if method != "get":
        assert answer.headers["allow"] == allow
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/api/v1", id="the root"),
        pytest.param("/api/v1/", id="with a slash"),
        pytest.param("/api/v1/nothing", id="nothing"),
        pytest.param("/api/v1/sessions/", id="an empty id"),
        pytest.param("/api/v1/sessions/a/b", id="further in"),
        pytest.param("/api/v1//sessions", id="two slashes"),
        pytest.param("/api/v1/./sessions", id="a dot"),
        pytest.param("/api/v1/x/../sessions", id="climbing"),
        pytest.param("/api/v1/%73essions", id="escaped"),
        pytest.param("/api/v1/Sessions", id="in another case"),
        pytest.param("/api/v2/sessions", id="another version"),
        pytest.param("/debug", id="debug (A24)"),
        pytest.param("/metrics", id="metrics"),
        pytest.param("/", id="the front door"),
    ],
)
async def test_there_is_nothing_else(world: World, path: str) -> None:
    token = ("Authorization", f"Bearer {world.secrets['admin']}")
    answer = await world.raw(f"GET {path} HTTP/1.1", [("Host", "localhost"), token])
    assert (answer.status, answer.kind) == (404, "not_found")


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
@pytest.mark.usefixtures("nothing_changes")
async def test_a_method_is_not_overridden(world: World, name: str) -> None:
    session = await world.sign_in()
    answer = await world.ask("GET", f"/sessions/{session}", (name, "DELETE"))
    assert answer.json["id"] == session
    answer = await world.ask("GET", f"/sessions?_method=DELETE&kind=session&name={session}")
    assert (answer.status, answer.field) == (400, "_method")
    assert session in world.state.sessions


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Content-Length", "2")], id="with a length"),
        pytest.param([("Transfer-Encoding", "chunked")], id="in chunks"),
    ],
)
@pytest.mark.usefixtures("nothing_changes")
async def test_a_body_where_none_belongs(world: World, method: str, headers: list[tuple[str, str]]) -> None:
    token = ("Authorization", f"Bearer {world.secrets['operator']}")
    chunked = headers[0][0] == "Transfer-Encoding"
    answer = await world.raw(
        f"{method} /api/v1/sessions/s1 HTTP/1.1",
        [("Host", "localhost"), token, *headers],
        b"2\r\n{}\r\n0\r\n\r\n" if chunked else b"{}",
    )
    assert (answer.status, answer.kind) == (400, "bad_request")


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        pytest.param([("Content-Type", "text/plain")], "media_type", id="a form as text (A11)"),
        pytest.param([("Content-Type", "application/x-www-form-urlencoded")], "media_type", id="a form"),
        pytest.param([("Content-Type", "multipart/form-data; boundary=x")], "media_type", id="one of parts"),
        pytest.param([("Content-Type", "application/jsonx")], "media_type", id="nearly JSON"),
        pytest.param([("Content-Type", "application/json; charset=utf-7")], "media_type", id="in UTF-7"),
        pytest.param([("Content-Type", "text/plain; application/json")], "media_type", id="hidden"),
        pytest.param([("X-None", "1")], "media_type", id="no type"),
        pytest.param([JSON_TYPE, ("Content-Encoding", "gzip")], "media_type", id="packed"),
        pytest.param([JSON_TYPE, ("Origin", "https://evil.test")], "cross_site", id="another origin"),
        pytest.param([JSON_TYPE, ("Origin", "null")], "cross_site", id="an origin without a name"),
        pytest.param([JSON_TYPE, ("Origin", "https://localhost")], "cross_site", id="another scheme"),
        pytest.param([JSON_TYPE, ("Origin", "http://localhost:1")], "cross_site", id="another port"),
        pytest.param([JSON_TYPE, ("Sec-Fetch-Site", "cross-site")], "cross_site", id="cross-site"),
        pytest.param([JSON_TYPE, ("Sec-Fetch-Site", "same-site")], "cross_site", id="a sister site"),
    ],
)
@pytest.mark.usefixtures("nothing_changes")
async def test_forged_by_another_site(world: World, headers: list[tuple[str, str]], kind: str) -> None:
    answer = await post(world, json.dumps(REVOCATION).encode(), *headers)
    assert answer.kind == kind
    assert answer.status in (403, 415)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Content-Type", "Application/JSON; charset=UTF-8")], id="with a charset"),
        pytest.param([JSON_TYPE, ("Origin", "http://localhost")], id="from our own origin"),
        pytest.param([JSON_TYPE, ("Sec-Fetch-Site", "same-origin")], id="from our own page"),
        pytest.param([JSON_TYPE, ("Sec-Fetch-Site", "none")], id="typed"),
    ],
)
async def test_not_forged(world: World, headers: list[tuple[str, str]]) -> None:
    assert (await post(world, json.dumps(REVOCATION).encode(), *headers)).status == 200


async def test_another_site_may_not_read_either(world: World) -> None:
    answer = await world.ask("GET", "/sessions", ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors"))
    assert answer.kind == "cross_site"


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        pytest.param(b"", "invalid", "target", id="nothing"),
        pytest.param(b"{}", "invalid", "target", id="no target"),
        pytest.param(b"[]", "bad_request", "", id="a list"),
        pytest.param(b"null", "bad_request", "", id="null"),
        pytest.param(b"{", "bad_request", "", id="cut short"),
        pytest.param(b"{} {}", "bad_request", "", id="two"),
        pytest.param(b"\xef\xbb\xbf{}", "bad_request", "", id="a byte order mark"),
        pytest.param(b'{"target":"\xff"}', "bad_request", "", id="not UTF-8"),
        pytest.param(b'{"target":null}', "invalid", "target", id="a null (A14)"),
        pytest.param(b'{"target":[]}', "invalid", "target", id="another type"),
        pytest.param(b'{"target":{"kind":"all"},"target":{"kind":"all"}}', "invalid", "target", id="doubled"),
        pytest.param(
            b'{"target":{"kind":"user","name":"a","name":"b"}}', "invalid", "name", id="doubled inside"
        ),
        pytest.param(b'{"target":{"kind":"all"},"role":"admin"}', "invalid", "role", id="a role (A15)"),
        pytest.param(b'{"target":{"kind":"all"},"created_by":"x"}', "invalid", "created_by", id="an actor"),
        pytest.param(b'{"target":{"kind":"session","x":1}}', "invalid", "target.x", id="unknown inside"),
        pytest.param(b'{"target":{"kind":"everything"}}', "invalid", "target.kind", id="an unknown kind"),
        pytest.param(b'{"target":{"kind":"session","name":1}}', "invalid", "target.name", id="a number"),
        pytest.param(b'{"target":{"kind":"all"},"dry_run":1}', "invalid", "dry_run", id="1 for true"),
        pytest.param(b'{"target":{"kind":"all"},"dry_run":"no"}', "invalid", "dry_run", id="no for false"),
        pytest.param(b'{"target":NaN}', "bad_request", "", id="NaN"),
        pytest.param(b'{"target":-Infinity}', "bad_request", "", id="infinity"),
        pytest.param(b'{"target":1e999}', "bad_request", "", id="1e999"),
        pytest.param(b'{"target":' + b"9" * 5000 + b"}", "bad_request", "", id="a number of 5,000 digits"),
        pytest.param(b'{"target":9007199254740993}', "bad_request", "", id="one that readers differ on"),
        pytest.param(b'{"target":' * 1000 + b"1" + b"}" * 1000, "bad_request", "", id="depth 1,000"),
        pytest.param(b"[" * 60_000, "bad_request", "", id="depth 60,000"),
        pytest.param(b'{"target":' + b"[" * 17 + b"]" * 17 + b"}", "bad_request", "", id="depth 18"),
        pytest.param(b'{"reason":"' + b"x" * 1025 + b'"}', "invalid", "reason", id="a long text"),
        pytest.param(b'{"reason":"a\\nb"}', "invalid", "reason", id="two lines"),
        pytest.param(b'{"reason":"a\\u0000b"}', "invalid", "reason", id="a NUL"),
        pytest.param(b'{"reason":"a\\u2028b"}', "invalid", "reason", id="a line separator"),
        pytest.param(b'{"reason":"\\ud800"}', "invalid", "reason", id="half a character"),
        pytest.param(b'{"rea\\u001b[2Json":1}', "invalid", "", id="a name for a terminal"),
        pytest.param(b'{"a\\nb":1,"a\\nb":2}', "invalid", "", id="such a name twice"),
        pytest.param(
            b'{"target":{"kind":"session","name":""}}', "invalid", "target.name", id="empty selector"
        ),
        pytest.param(b'{"target":{"kind":"session","name":"  "}}', "invalid", "target.name", id="blank"),
        pytest.param(b'{"target":{"kind":"user","name":"a"}}', "invalid", "target.issuer", id="whose"),
        pytest.param(
            b'{"target":{"kind":"group","name":"a","issuer":"i"}}',
            "invalid",
            "target.issuer",
            id="whose group",
        ),
        pytest.param(b'{"target":{"kind":"all","name":"a"}}', "invalid", "target.name", id="all of a name"),
    ],
)
@pytest.mark.usefixtures("nothing_changes")
async def test_bodies_that_cannot_be_accepted(world: World, body: bytes, kind: str, field: str) -> None:
    answer = await post(world, body)
    assert (answer.status, answer.kind, answer.field) == (400, kind, field)
    assert world.outcomes == [("revocation.create", "refused", "")]
    event, _ = world.audit.events[0]
    assert (event.actor, event.request_id) == ("operator-1", answer.headers["x-request-id"])


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.usefixtures("nothing_changes")
async def test_too_large(world: World, chunked: bool) -> None:
    body = b'{"reason":"' + b"x" * MAX_BODY + b'"}'
    if not chunked:
        answer = await post(world, body)
    else:
        token = ("Authorization", f"Bearer {world.secrets['operator']}")
        fields = [("Host", "localhost"), token, JSON_TYPE, ("Transfer-Encoding", "chunked")]
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = await world.raw("POST /api/v1/revocations HTTP/1.1", fields, sent)
    assert (answer.status, answer.kind) == (413, "too_large")


@pytest.mark.usefixtures("nothing_changes")
async def test_five_megabytes_are_not_waited_for(world: World) -> None:
    token = ("Authorization", f"Bearer {world.secrets['operator']}")
    fields = [("Host", "localhost"), token, JSON_TYPE, ("Content-Length", str(5_000_000))]
    answer = await world.raw("POST /api/v1/revocations HTTP/1.1", fields)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def test_just_not_too_large(world: World) -> None:
    body = json.dumps(REVOCATION).encode()
    assert (await post(world, body + b" " * (MAX_BODY - len(body)))).status == 200


async def test_a_body_that_does_not_come() -> None:
    async with serving(World(), body_seconds=0.05) as world:
        token = ("Authorization", f"Bearer {world.secrets['operator']}")
        fields = [("Host", "localhost"), token, JSON_TYPE, ("Content-Length", "50")]
        answer = await world.raw("POST /api/v1/revocations HTTP/1.1", fields, b"{")
        assert (answer.status, answer.kind) == (408, "timeout")
        assert world.outcomes == [("revocation.create", "refused", "")]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param("?x=1", "x", id="unknown"),
        pytest.param("?text=a&text=b", "text", id="doubled"),
        pytest.param("?limit=0", "limit", id="none"),
        pytest.param("?limit=201", "limit", id="too many"),
        pytest.param("?limit=-1", "limit", id="fewer than none"),
        pytest.param("?limit=ten", "limit", id="in words"),
        pytest.param("?limit=", "limit", id="empty"),
        pytest.param("?text=a%0ab", "text", id="two lines"),
        pytest.param("?text=" + "x" * 1025, "text", id="long"),
        pytest.param("?kind=person", "kind", id="an unknown kind"),
        pytest.param("?name=alice", "kind", id="a name of nothing"),
        pytest.param("?kind=user&name=alice", "issuer", id="whose"),
        pytest.param("?kind=user&issuer=i", "name", id="who"),
    ],
)
async def test_queries_that_cannot_be_accepted(world: World, query: str, field: str) -> None:
    answer = await world.ask("GET", "/sessions" + query)
    assert (answer.status, answer.kind, answer.field) == (400, "invalid", field)


@pytest.mark.usefixtures("nothing_changes")
async def test_a_post_has_no_query(world: World) -> None:
    answer = await world.ask("POST", "/revocations?dry_run=true", json=REVOCATION)
    assert (answer.status, answer.field) == (400, "dry_run")


@pytest.mark.parametrize("name", ["a%0ab", "%ff", "%00", "x" * 1025, "%e2%80%a8"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.usefixtures("nothing_changes")
async def test_ids_that_are_none(world: World, method: str, name: str) -> None:
    answer = await world.ask(method, f"/sessions/{name}")
    assert (answer.status, answer.field) == (400, "id")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        pytest.param(
            RuntimeError("the key is hunter2, in /etc/secret"), 500, "internal", id="a mistake of ours"
        ),
        pytest.param(
            WorldError(Reason.STATE_UNAVAILABLE, "state: 10.0.0.1"), 503, "unavailable", id="the world"
        ),
        pytest.param(ClientError(Reason.LOGIN_STATE, "x"), 500, "internal", id="nothing of ours"),
    ],
)
async def test_failures_tell_nothing(
    world: World, caplog: pytest.LogCaptureFixture, error: Exception, status: int, kind: str
) -> None:
    world.raises = error
    answer = await world.ask("GET", "/revocation")
    assert (answer.status, answer.kind) == (status, kind)
    for secret in (b"hunter2", b"/etc", b"10.0.0.1", b"Error"):
        assert secret not in answer.body
    assert answer.headers["x-request-id"] in caplog.text


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("Authorization : Bearer {}", id="a space before the colon"),
        pytest.param("Authorization: Bearer {}\x01", id="a control character"),
        pytest.param("Authorization: Bearer " + "{}" * 400, id="too long"),
        pytest.param("Content-Type: application/json\r\nContent-Type: {}", id="two types"),
        pytest.param("Content-Length: 3\r\nTransfer-Encoding: chunked\r\nX: {}", id="two lengths"),
    ],
)
async def test_what_is_no_http_is_not_logged(
    world: World, caplog: pytest.LogCaptureFixture, raw: str
) -> None:
    caplog.set_level(logging.DEBUG)
    reader, writer = await world.connect()
    secret = world.secrets["admin"]
    writer.write(f"GET /api/v1/whoami HTTP/1.1\r\nHost: a\r\n{raw.replace('{}', secret)}\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.0 400")
    writer.close()
    assert secret not in caplog.text
    assert "no HTTP" in caplog.text


async def test_no_host(world: World) -> None:
    answer = await world.raw("GET /api/v1/whoami HTTP/1.0", [])
    assert (answer.status, answer.kind) == (421, "wrong_host")


async def test_the_end_waits_for_housekeeping() -> None:
    async with serving(World()) as world:
        session = await world.sign_in()
        world.state.clearing.clear()
        assert (await world.ask("DELETE", f"/sessions/{session}")).status == 200
        asyncio.get_running_loop().call_later(0.05, world.state.clearing.set)
        assert session in world.state.sessions
    assert session not in world.state.sessions


async def test_two_requests_on_one_connection(world: World) -> None:
    """What a refused body leaves on the connection is not read as a request."""
    reader, writer = await world.connect()
    token = f"Authorization: Bearer {world.secrets['operator']}\r\n"
    hidden = f"DELETE /api/v1/sessions/s1 HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"
    writer.write(
        f"GET /api/v1/whoami HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n"
        f"Content-Length: {len(hidden)}\r\n\r\n{hidden}".encode()
    )
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert world.log.entries == {}
