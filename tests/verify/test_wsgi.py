"""The WSGI middleware on the server of the standard library, over real sockets."""

import http.client
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest

from tests.verify.smith import AUDIENCE, HOSTILE, JWKS, KEY, key_set_server, sign
from ztproxy.verify import VerifiedIdentity, Verifier
from ztproxy.verify.wsgi import RequireIdentity

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Application:
    """Says who called, and remembers how often it was called at all."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        self.calls += 1
        identity = environ["ztproxy.identity"]
        assert isinstance(identity, VerifiedIdentity)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"sub": identity.sub, "groups": identity.groups}).encode()]


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(application: Any) -> Iterator[WSGIServer]:
    server = WSGIServer(("127.0.0.1", 0), QuietHandler)
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def server(application: Application) -> Iterator[WSGIServer]:
    yield from serve(RequireIdentity(application, Verifier(JWKS, AUDIENCE)))


Answer = tuple[int, dict[str, str], bytes]


def request(server: WSGIServer, *fields: tuple[str, str], method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, "/")
    for name, value in fields:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def test_the_application_knows_who_calls(server: WSGIServer) -> None:
    status, _, body = request(server, ("X-Ztproxy-Assertion", sign()))
    assert status == 200
    assert json.loads(body) == {"sub": "5f1c", "groups": ["engineering"]}


@pytest.mark.parametrize("forge", [pytest.param(row.values[0], id=row.id) for row in HOSTILE])
def test_no_hostile_token_reaches_the_application(
    server: WSGIServer, application: Application, forge: Callable[[], str]
) -> None:
    status, headers, _ = request(server, ("X-Ztproxy-Assertion", forge()))
    assert status == 401
    assert headers["Content-Type"] == "application/problem+json"
    assert application.calls == 0


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([], id="no header"),
        pytest.param([("Ztproxy.Identity", "alice")], id="the environment's key as a header"),
        pytest.param([("X-Ztproxy-Assertion", sign()), ("X-Ztproxy-Assertion", sign())], id="twice"),
        pytest.param([("X-Ztproxy-Assertion", "x"), ("X-Ztproxy-Assertion", sign())], id="a good one second"),
        pytest.param([("X-Ztproxy-Assertion", sign()), ("x-ztproxy-assertion", "x")], id="in another case"),
        pytest.param(
            [("X-Ztproxy-Assertion", sign()), ("X_Ztproxy_Assertion", sign())], id="with underscores"
        ),
        pytest.param([("Authorization", f"Bearer {sign()}")], id="as a bearer token"),
        pytest.param([("Cookie", f"X-Ztproxy-Assertion={sign()}")], id="as a cookie"),
    ],
)
def test_anything_but_one_header_is_refused(
    server: WSGIServer, application: Application, fields: list[tuple[str, str]]
) -> None:
    assert request(server, *fields)[0] == 401
    assert application.calls == 0


def test_a_refused_head_has_no_body(server: WSGIServer) -> None:
    status, headers, body = request(server, method="HEAD")
    assert (status, body) == (401, b"")
    assert int(headers["Content-Length"]) > 0


def test_without_a_key_set_it_is_a_503_and_recovers(application: Application) -> None:
    with key_set_server() as keys:
        keys.status = 500
        moment = [0.0]
        verifier = Verifier(keys.url, AUDIENCE, monotonic=lambda: moment[0])
        for server in serve(RequireIdentity(application, verifier)):
            assert request(server, ("X-Ztproxy-Assertion", sign()))[0] == 503
            assert application.calls == 0
            keys.status = 200
            keys.publish(KEY.jwk())
            moment[0] += 1
            assert request(server, ("X-Ztproxy-Assertion", sign()))[0] == 200
