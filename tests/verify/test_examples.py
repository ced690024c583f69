"""The examples of `examples/`, started as their README says, tried with good and hostile assertions."""

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.verify.smith import (
    AUDIENCE,
    HOSTILE,
    KEY,
    OTHER,
    KeySetServer,
    b64,
    key_set_server,
    sign,
    sign_raw,
)
from ztproxy.verify import Rejection

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def node() -> str | None:
    beside = Path(sys.executable).parent / "node"
    return str(beside) if beside.exists() else shutil.which("node")


needs_node = pytest.mark.skipif(node() is None, reason="no node, neither beside this python nor on the PATH")


class Example:
    """A running example and the key set it reads."""

    def __init__(self, port: int, keys: KeySetServer) -> None:
        self.port = port
        self.keys = keys

    def get(self, *assertions: str, path: str = "/") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest("GET", path)
        for assertion in assertions:
            connection.putheader("X-Ztproxy-Assertion", assertion)
        connection.endheaders()
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[Example]:
    with key_set_server() as keys:
        keys.publish(KEY.jwk())
        settings = {"ZTPROXY_JWKS_URL": keys.url, "ZTPROXY_AUDIENCE": AUDIENCE, "PORT": "0"}
        env = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            said = re.search(r":(\d+)$", process.stdout.readline().strip())
            assert said is not None, "the example did not start"
            yield Example(int(said[1]), keys)
        finally:
            # The whole group: `node` from the wheel is a script that starts the real one.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def node_example() -> Iterator[Example]:
    with started([str(node()), "server.mjs"], EXAMPLES / "node") as example:
        yield example


@pytest.fixture(scope="module")
def wsgi_example() -> Iterator[Example]:
    with started([sys.executable, "app.py"], EXAMPLES / "python-wsgi") as example:
        yield example


GREETING = "Hello Alice, signed in by urn:ztproxy:demo:mfa.\n"

# What only the holder of ztproxy's own key could sign is not the business of an example of a few lines.
BY_STRANGERS = [
    row for row in HOSTILE if row.values[1] is not Rejection.CLAIMS and row.id != "header names alg twice"
]


@needs_node
def test_node_greets_the_visitor(node_example: Example) -> None:
    assert node_example.get(sign()) == (200, GREETING)
    assert node_example.get(sign(), path="/other") == (200, GREETING)


@needs_node
@pytest.mark.parametrize(("forge", "reason"), BY_STRANGERS)
def test_node_refuses(node_example: Example, forge: Callable[[], str], reason: Rejection) -> None:
    assert node_example.get(forge())[0] == 401, reason


@needs_node
@pytest.mark.parametrize(
    "assertions",
    [
        pytest.param([], id="none"),
        pytest.param([sign(), sign()], id="two"),
        pytest.param([sign(aud=...)], id="without aud"),
        pytest.param([sign(exp=...)], id="without exp"),
        pytest.param([sign(iat=...)], id="without iat"),
        pytest.param([sign(sub=...)], id="without sub"),
        pytest.param([sign_raw(b"null", b"{}")], id="a header that is null"),
        pytest.param([f"{b64(b'{}')}.{b64(b'{}')}.{b64(b'x')}"], id="empty objects"),
    ],
)
def test_node_refuses_too(node_example: Example, assertions: list[str]) -> None:
    assert node_example.get(*assertions)[0] == 401
    assert node_example.get(sign()) == (200, GREETING)


@needs_node
def test_node_does_not_let_strangers_make_it_fetch(node_example: Example) -> None:
    node_example.get(sign())
    before = node_example.keys.hits
    assert {node_example.get(sign(OTHER))[0] for _ in range(20)} == {401}
    assert node_example.keys.hits == before


@needs_node
def test_node_uses_no_kid_that_is_given_twice() -> None:
    with started([str(node()), "server.mjs"], EXAMPLES / "node") as example:
        example.keys.publish(KEY.jwk(), OTHER.jwk(kid=KEY.kid))
        assert example.get(sign())[0] == 401


def test_wsgi_greets_the_visitor_and_keeps_its_own_rules(wsgi_example: Example) -> None:
    assert wsgi_example.get(sign()) == (200, GREETING)
    assert wsgi_example.get(sign(), path="/admin")[0] == 403
    assert wsgi_example.get(sign(groups=["admins"]), path="/admin") == (200, GREETING)


@pytest.mark.parametrize(
    "assertions",
    [
        pytest.param([], id="none"),
        pytest.param([sign(), sign()], id="two"),
        pytest.param([sign(OTHER)], id="a stranger's"),
        pytest.param([sign(aud="https://other.example.com")], id="for another application"),
    ],
)
def test_wsgi_refuses(wsgi_example: Example, assertions: list[str]) -> None:
    assert wsgi_example.get(*assertions, path="/admin")[0] == 401


ASGI_DIALOGUE = """
import asyncio, json, sys
import app as example

async def call(scope, *messages):
    messages, sent = list(messages), []
    async def receive():
        return messages.pop(0)
    async def send(message):
        shown = ("type", "status", "text", "code")
        sent.append({name: value for name, value in message.items() if name in shown})
    await example.app(scope, receive, send)
    return sent

async def main():
    good, bad = ([(b"x-ztproxy-assertion", token.encode())] for token in sys.argv[1:])
    http = {"type": "http", "method": "GET", "path": "/admin"}
    socket = {"type": "websocket", "path": "/"}
    connect = {"type": "websocket.connect"}
    print(json.dumps([
        await call({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}),
        await call({**http, "path": "/", "headers": good}),
        await call({**http, "headers": good}),
        await call({**http, "headers": bad}),
        await call({**socket, "headers": good}, connect),
        await call({**socket, "headers": bad}, connect),
    ]))

asyncio.run(main())
"""


def test_asgi_greets_the_visitor_and_refuses_strangers() -> None:
    """No ASGI server is among this project's packages, so its side of the dialogue is spoken here."""
    import json

    with key_set_server() as keys:
        keys.publish(KEY.jwk())
        env = {
            **os.environ,
            "ZTPROXY_JWKS_URL": keys.url,
            "ZTPROXY_AUDIENCE": AUDIENCE,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES / 'python-asgi'}",
        }
        command = [sys.executable, "-c", ASGI_DIALOGUE, sign(), sign(OTHER)]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    answers: list[list[dict[str, Any]]] = json.loads(ran.stdout)
    lifespan, greeted, forbidden, refused, socket, refused_socket = answers
    assert [message["type"] for message in lifespan] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert [answer[0]["status"] for answer in (greeted, forbidden, refused)] == [200, 403, 401]
    assert [message["type"] for message in socket] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert socket[1]["text"] == GREETING
    assert refused_socket == [{"type": "websocket.close", "code": 1008}]
