"""Whatever ztproxy forwards is one request, and the same one, to everybody who may stand behind it.

Everything of `inputs` goes through a real listener; the octets that reach the app are then given, connection
by connection, to real servers, each of which says what it understood. The number of requests, method, target,
host, body and every field an app must be able to trust have to be the same for all of them. After each
connection's last request one more is asked, whose answer has to be the next and the last one.

Not to serve is not to disagree: where a server refuses a request, it must do so once and for one of the
reasons it is known for (`Server.refuses`). Where it shows a decoded path, that may be any of the readings the
policy had to allow.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.agreement.inputs import GENERATED, PIPELINES, REQUESTS, ROWS, Forwarded, forwarded
from tests.agreement.meaning import Meaning, differences, read_all, read_one, told
from tests.agreement.parsers import PARSERS
from tests.agreement.servers import SERVERS, Running, Server, started
from tests.evidence import Tried
from tests.stories.talking import Background
from tests.wire.world import Client

LAST = (
    b"GET /last HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
    b"X-Forwarded-Host: app.test\r\nX-Request-Id: last-%d\r\n\r\n"
)


@pytest.fixture(scope="module")
def sent() -> Forwarded:
    return asyncio.run(forwarded())


@pytest.fixture(scope="module")
def connections(sent: Forwarded) -> list[list[Meaning]]:
    """What each connection to the app carried, by the letter, and the last request of ours."""
    return [[*read_all(stream), read_one(LAST % number)[0]] for number, stream in enumerate(sent.streams)]


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, background: Background) -> Iterator[dict[str, Running]]:
    with started(tmp_path_factory.mktemp("servers"), background) as found:
        yield found


def test_what_is_forwarded(sent: Forwarded, connections: list[list[Meaning]]) -> None:
    """Read by the letter: each answer the app gave was asked for once, no trusted field is there twice."""
    assert [row.name for row in ROWS if sent.passed[row.name] != row.requests] == []
    meanings = [meaning for connection in connections for meaning in connection[:-1]]
    assert len(meanings) == sum(sent.passed.values()) > REQUESTS * 0.8
    assert set(Counter(meaning.mark for meaning in meanings).values()) == {1}
    assert min(map(len, connections)) > 2, "connections are used again"
    for meaning in meanings:
        assert all(len(values) == 1 for values in meaning.managed.values()), meaning.managed
        assert meaning.managed["remote-user"] == (b"alice",)
        assert all(value == value.strip(b" \t") for _, value in meaning.fields or ())


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_agrees(sent: Forwarded, connections: list[list[Meaning]], name: str) -> None:
    for connection in connections:
        heard = PARSERS[name](b"".join(meant.octets for meant in connection))
        assert len(heard) == len(connection)
        for meant, one in zip(connection, heard, strict=True):
            assert differences(meant, one) == [], meant.octets


@pytest.fixture(params=[pytest.param(server, id=server.name) for server in SERVERS])
def server(request: pytest.FixtureRequest, servers: dict[str, Running]) -> Server:
    server: Server = request.param
    if server.name not in servers:
        pytest.skip(f"there is no {server.program}; the package is called {server.package}")
    servers[server.name].listening()
    return server


def test_a_server_agrees(
    connections: list[list[Meaning]], servers: dict[str, Running], server: Server
) -> None:
    verdict = asyncio.run(_compared(server, servers[server.name], connections))
    assert verdict.wrong == []
    meanings = [meant for connection in connections for meant in connection]
    assert verdict.compared + verdict.refused.total() == len(meanings)
    assert set(verdict.refused) <= {why for why, _ in server.refuses}
    assert verdict.compared > len(meanings) * 0.9


ONE, _ = read_one(
    b"POST /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n"
    + LAST.partition(b"test\r\n")[2] % 0
    + b"abc"
)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(ONE._replace(method="PUT"), id="the method"),
        pytest.param(ONE._replace(target=b"/v"), id="the target"),
        pytest.param(ONE._replace(host=b"other.test"), id="the host"),
        pytest.param(ONE._replace(body=b"ab"), id="the body"),
        pytest.param(ONE._replace(managed={**ONE.managed, "x-real-ip": (b"::1",)}), id="a field less"),
        pytest.param(
            ONE._replace(octets=ONE.octets.replace(b"\r\nX-F", b"\r\nX-Remote-User: root\r\nX-F", 1)),
            id="a field more",
        ),
        pytest.param(ONE._replace(octets=ONE.octets + LAST % 1), id="a second request behind it"),
    ],
)
def test_a_difference_would_be_seen(servers: dict[str, Running], server: Server, other: Meaning) -> None:
    """What is told apart above can be: by each server, of each kind."""
    last, _ = read_one(LAST % 2)
    assert asyncio.run(_compared(server, servers[server.name], [[ONE, last]])).wrong == []
    assert asyncio.run(_compared(server, servers[server.name], [[other, last]])).wrong != []


class Verdict(NamedTuple):
    """`wrong` is what was not as it must be, with the octets; `refused` counts by the reason. `again` is how
    often a proxy was asked once more."""

    compared: int
    refused: Counter[str]
    again: int
    wrong: list[str]


async def _compared(server: Server, where: Running, connections: list[list[Meaning]]) -> Verdict:
    where.asked.clear()
    verdicts = await asyncio.gather(*(_talked(server, where.port, one) for one in connections))
    compared, again = sum(one.compared for one in verdicts), sum(one.again for one in verdicts)
    wrong = [line for one in verdicts for line in one.wrong]
    asked = where.asked
    if server.reflected and not wrong and (len(asked), asked.total()) != (compared, compared + again):
        wrong.append(f"its app was asked {asked.total()} times for {compared} answers")
    return Verdict(compared, sum((one.refused for one in verdicts), Counter()), again, wrong)


async def _talked(server: Server, port: int, connection: list[Meaning]) -> Verdict:
    """One connection's requests, one after the other; on a new connection after the server has ended one.

    On a busy machine Caddy cuts off about one answer in 30,000, after its app has answered. Half an answer
    tells nothing of the request, so that is asked again, on a new connection and at most twice.
    """
    compared, refused, again, wrong = 0, Counter[str](), 0, []
    client: Client | None = None
    for meant in connection:
        for last in (False, False, True) if server.reflected else (True,):
            if client is None:
                client = Client(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))
            await client.send(meant.octets)
            try:
                answer = await client.answer(meant.method)
            except (asyncio.IncompleteReadError, TimeoutError, ConnectionError, ValueError) as error:
                wrong.append(f"{error!r} instead of an answer to {meant.octets!r}")
                client.close()
                return Verdict(compared, refused, again, wrong)
            if answer.complete:
                break
            client.close()
            client = None
            if last:
                wrong.append(f"{answer!r} is cut off, to {meant.octets!r}")
                return Verdict(compared, refused, again, wrong)
            again += 1
        assert client is not None
        fields = dict(answer.fields)
        if answer.status == 200:
            words = base64.b64decode(fields["x-heard"]) if meant.method == "HEAD" else answer.body
            wrong += [f"{what} in {meant.octets!r}" for what in differences(meant, told(words))]
            compared += 1
        else:
            why = [why for why, known in server.refuses if known(meant)]
            if why and 400 <= answer.status < 500:
                refused[why[0]] += 1
            else:
                wrong.append(f"{answer.head!r} to {meant.octets!r}")
        if answer.status != 200 or fields.get("connection") == "close" or meant is connection[-1]:
            client.writer.write_eof()
            rest = await client.rest()
            if rest:
                wrong.append(f"{rest!r} behind the answer to {meant.octets!r}")
            client.close()
            client = None
    return Verdict(compared, refused, again, wrong)


TRIED = tuple(
    Tried(
        "Agreement with servers",
        f"what is forwarded of honest and odd requests, as understood by {name}",
        len(ROWS) + GENERATED + PIPELINES,
        REQUESTS,
        "as many requests as we mean, each with the method, target, host, body and trusted fields we mean",
    )
    for name in (*PARSERS, *(server.name for server in SERVERS))
)
