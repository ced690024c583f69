"""What of an app's head travels on, and whether its connection may serve again."""

from __future__ import annotations

import pytest

from ztproxy.wire.answer import _ANSWERS_REMEMBERED, Answer, _answers, read_answer
from ztproxy.wire.head import Body, parse_response, response_framing


def read(
    fields: bytes, status: bytes = b"200 OK", method: str = "GET", version: bytes = b"1.1"
) -> Answer | None:
    return read_answer(b"HTTP/" + version + b" " + status + b"\r\n" + fields + b"\r\n", method)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        pytest.param(b"A: 1\r\nB: 2\r\n", [b"A", b"B"], id="in order"),
        pytest.param(b"Keep-Alive: 5\r\nA: 1\r\nTE: x\r\nTrailer: x\r\n", [b"A"], id="hop-by-hop"),
        pytest.param(b"Connection: A, x-b\r\nA: 1\r\nX-B: 2\r\nC: 3\r\n", [b"C"], id="named in Connection"),
        pytest.param(b"Connection: close\r\nConnection: A\r\nA: 1\r\n", [], id="two Connection fields"),
        pytest.param(b"Content-Length: 3\r\nA: 1\r\n", [b"A"], id="framing"),
        pytest.param(b"pRoXy-AuThEnTiCaTe: x\r\n", [], id="any spelling"),
        pytest.param(b"Upgrade: h2c\r\nHTTP2-Settings: x\r\n", [], id="upgrade offers"),
        pytest.param(b"Date: x\r\n", [b"Date"], id="date"),
    ],
)
def test_what_travels_on(fields: bytes, kept: list[bytes]) -> None:
    answer = read(fields)
    assert answer is not None
    assert [name for name, _ in answer.fields] == kept
    assert answer.dated is (b"Date" in kept)


@pytest.mark.parametrize(
    ("fields", "version", "reusable"),
    [
        pytest.param(b"Content-Length: 0\r\n", b"1.1", True, id="1.1 stays"),
        pytest.param(b"Content-Length: 0\r\nConnection: keep-alive\r\n", b"1.1", True, id="says so"),
        pytest.param(b"Content-Length: 0\r\nConnection: Close\r\n", b"1.1", False, id="closes"),
        pytest.param(b"Content-Length: 0\r\nConnection: x, close\r\n", b"1.1", False, id="closes in a list"),
        pytest.param(b"Content-Length: 0\r\nConnection: keep-alive\r\n", b"1.0", False, id="1.0"),
        pytest.param(b"", b"1.1", False, id="a body to the end of the connection"),
    ],
)
def test_reusable(fields: bytes, version: bytes, reusable: bool) -> None:
    answer = read(fields, version=version)
    assert answer is not None
    assert answer.reusable is reusable


@pytest.mark.parametrize(
    ("fields", "method", "body", "length"),
    [
        pytest.param(b"Content-Length: 007\r\n", "GET", Body.LENGTH, 7, id="length"),
        pytest.param(b"Content-Length: 7\r\n", "HEAD", Body.NONE, 7, id="announced to HEAD"),
        pytest.param(b"Transfer-Encoding: Chunked\r\n", "GET", Body.CHUNKED, None, id="chunked"),
        pytest.param(b"", "GET", Body.EOF, None, id="to the end"),
    ],
)
def test_framing(fields: bytes, method: str, body: Body, length: int | None) -> None:
    answer = read(fields, method=method)
    assert answer is not None
    assert (answer.body, answer.length) == (body, length)


def test_upgrade_is_lower_case_and_a_second_one_never_matches() -> None:
    answer = read(b"Upgrade: WebSocket\r\n", b"101 X")
    assert answer is not None
    assert answer.upgrade == b"websocket"
    answer = read(b"Upgrade: websocket\r\nUpgrade: h2c\r\n", b"101 X")
    assert answer is not None
    assert answer.upgrade == b"websocket,h2c"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", id="grammar"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", id="framing"),
    ],
)
def test_refused(head: bytes) -> None:
    assert read_answer(head, "GET") is None


def test_invented_names_are_not_remembered_for_ever() -> None:
    for number in range(3000):
        answer = read(b"X-%d: 1\r\nKEEP-alive: 1\r\n" % number)
        assert answer is not None
        assert [name for name, _ in answer.fields] == [b"X-%d" % number]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [b"101 X", b"200 X", b"204 X", b"205 X", b"304 X", b"404 X", b"500 X"])
@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 1234567890123456789\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
def test_the_short_way_says_what_the_long_one_says(fields: bytes, status: bytes, method: str) -> None:
    answer = read(fields, status, method)
    parsed = parse_response(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n")
    assert parsed is not None
    framing = response_framing(method, parsed)
    assert (None if answer is None else (answer.body, answer.length)) == (framing and tuple(framing))


def test_an_answer_that_comes_again_is_read_once_but_for_head() -> None:
    unknown = read(b"A: again\r\nContent-Length: 3\r\n")
    first = read(b"A: again\r\nContent-Length: 3\r\n")
    assert first is not None and first == unknown and first is not unknown
    assert read(b"A: again\r\nContent-Length: 3\r\n", method="POST") is first
    to_head = read(b"A: again\r\nContent-Length: 3\r\n", method="HEAD")
    assert to_head is not None and (to_head.body, to_head.length) == (Body.NONE, 3)
    assert (first.body, first.length) == (Body.LENGTH, 3)


@pytest.mark.parametrize(
    ("fields", "status", "method"),
    [
        pytest.param(b"Set-COOKIE: a=b\r\n", b"200 OK", "GET", id="a cookie"),
        pytest.param(b"Location: /?code=1\r\n", b"302 Found", "GET", id="a redirect"),
        pytest.param(b"A: " + b"a" * 1024 + b"\r\n", b"200 OK", "GET", id="long"),
        pytest.param(b"A: to-head\r\n", b"200 OK", "HEAD", id="to HEAD"),
        pytest.param(b"Content-Length: x\r\n", b"200 OK", "GET", id="refused"),
    ],
)
def test_what_is_not_remembered(fields: bytes, status: bytes, method: str) -> None:
    before = dict(_answers)
    first, *again = (read(fields, status, method) for _ in range(3))
    assert again == [first, first] and _answers == before


def test_answers_are_remembered_within_bounds() -> None:
    for number in range(2 * _ANSWERS_REMEMBERED + 1):
        for _ in range(3):
            answer = read(b"X-Number: %d\r\n" % number)
        assert answer is not None and answer.fields == [(b"X-Number", b"%d" % number)]
        assert len(_answers) <= _ANSWERS_REMEMBERED
