"""The ASGI middleware, driven by a small server's side of the ASGI 3 dialogue."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.verify.smith import AUDIENCE, HOSTILE, JWKS, KEY, OTHER, key_set_server, sign
from ztproxy.verify import Rejection, Verifier
from ztproxy.verify.asgi import Receive, RequireIdentity, Scope, Send

Fields = list[tuple[bytes, bytes]]


@dataclass
class Application:
    """Answers what it is asked for and keeps the scopes it was called with."""

    scopes: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": scope["ztproxy"].sub.encode()})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})


async def call(app: RequireIdentity, scope: Scope, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What the application sends when it is given these messages."""
    to_receive = list(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return to_receive.pop(0)

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    return sent


def http(fields: Fields, method: str = "GET") -> Scope:
    return {"type": "http", "method": method, "path": "/", "headers": fields}


def assertion(token: str) -> Fields:
    return [(b"host", b"app.example.com"), (b"x-ztproxy-assertion", token.encode("latin-1"))]


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def guarded(application: Application) -> RequireIdentity:
    return RequireIdentity(application, Verifier(JWKS, AUDIENCE))


async def test_the_application_knows_who_calls(guarded: RequireIdentity, application: Application) -> None:
    scope = http(assertion(sign()))
    sent = await call(guarded, scope)
    assert sent[1]["body"] == b"5f1c"
    assert application.scopes[0]["ztproxy"].groups == ("engineering",)
    assert "ztproxy" not in scope  # the server's own scope is not written to


@pytest.mark.parametrize(("forge", "reason"), HOSTILE)
async def test_no_hostile_token_reaches_the_application(
    guarded: RequireIdentity,
    application: Application,
    forge: Callable[[], str],
    reason: Rejection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    start, _ = await call(guarded, http(assertion(forge())))
    assert start["status"] == 401
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert caplog.messages == [f"assertion rejected: {reason.value}"]
    assert application.scopes == []


TOKEN = sign().encode()
NOT_ONE = [
    pytest.param([], id="no header"),
    pytest.param([(b"x-ztproxy-assertion", TOKEN)] * 2, id="twice"),
    pytest.param([(b"x-ztproxy-assertion", TOKEN), (b"X-Ztproxy-Assertion", b"x")], id="in another case"),
    pytest.param([(b"x-ztproxy-assertion", TOKEN), (b"x_ztproxy_assertion", b"x")], id="with underscores"),
    pytest.param([(b"x-ztproxy-assertion", TOKEN + b"\xff")], id="with a byte beyond ASCII"),
    pytest.param([(b"authorization", b"Bearer " + TOKEN)], id="as a bearer token"),
]


@pytest.mark.parametrize("fields", NOT_ONE)
async def test_anything_but_one_header_is_refused(
    guarded: RequireIdentity, application: Application, fields: Fields
) -> None:
    start, _ = await call(guarded, http(fields))
    assert start["status"] == 401
    assert application.scopes == []


async def test_a_refused_head_has_no_body(guarded: RequireIdentity) -> None:
    _, body = await call(guarded, http([], method="HEAD"))
    assert body["body"] == b""


async def test_a_websocket_is_passed_on_with_its_identity(
    guarded: RequireIdentity, application: Application
) -> None:
    scope: Scope = {"type": "websocket", "path": "/", "headers": assertion(sign())}
    assert await call(guarded, scope, {"type": "websocket.connect"}) == [{"type": "websocket.accept"}]
    assert application.scopes[0]["ztproxy"].sub == "5f1c"


@pytest.mark.parametrize("fields", [*NOT_ONE, pytest.param(assertion(sign(OTHER)), id="of a stranger")])
async def test_a_websocket_without_identity_is_closed_before_it_is_accepted(
    guarded: RequireIdentity, application: Application, fields: Fields
) -> None:
    scope: Scope = {"type": "websocket", "path": "/", "headers": fields}
    sent = await call(guarded, scope, {"type": "websocket.connect"})
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "no valid identity"}]
    assert application.scopes == []


async def test_lifespan_passes_through(guarded: RequireIdentity, application: Application) -> None:
    await call(guarded, {"type": "lifespan"})
    assert application.scopes == [{"type": "lifespan"}]


async def test_a_kind_of_connection_that_is_not_known_does_not(
    guarded: RequireIdentity, application: Application
) -> None:
    with pytest.raises(ValueError, match="`webtransport`"):
        await call(guarded, {"type": "webtransport", "headers": assertion(sign())})
    assert application.scopes == []


async def test_the_loop_runs_on_while_the_key_set_is_fetched(application: Application) -> None:
    with key_set_server() as keys:
        keys.publish(KEY.jwk())
        keys.hold.clear()
        guarded = RequireIdentity(application, Verifier(keys.url, AUDIENCE))
        waiting = [asyncio.create_task(call(guarded, http(assertion(sign())))) for _ in range(50)]
        while keys.hits == 0:  # noqa: ASYNC110 - the fetch is under way, and this loop turns
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in waiting)
        keys.hold.set()
        answers = await asyncio.gather(*waiting)
        assert [start["status"] for start, _ in answers] == [200] * 50
        assert keys.hits == 1


async def test_without_a_key_set_it_is_a_503(application: Application) -> None:
    with key_set_server() as keys:
        keys.status = 500
        start, _ = await call(
            RequireIdentity(application, Verifier(keys.url, AUDIENCE)), http(assertion(sign()))
        )
    assert start["status"] == 503
    assert application.scopes == []
