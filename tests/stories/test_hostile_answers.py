"""Hostile answers of an app, as raw bytes: told as 502, or seen by the client as cut short, never relayed.

After each row the same client connection (where it was kept) and a new one get an honest answer: nothing an
app says spoils what another request hears.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.evidence import Tried
from tests.stories.house import House, house
from tests.wire.recording import OK, Line

LISTENERS = ("plain", "tls")
XYZ = b"\r\nContent-Length: 3\r\n\r\nxyz"
CHUNKS = b"3\r\nxyz\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("answers"), valkey_url) as it:
        yield it


REQUEST = b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n"


def ok(*fields: bytes, body: bytes = XYZ) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *fields)) + body


def chunked(body: bytes, coding: bytes = b"chunked", version: bytes = b"1.1") -> bytes:
    return b"HTTP/" + version + b" 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n" + body


INVALID = {
    "U01 a length twice": ok(b"Content-Length: 3"),
    "U02 two lengths": ok(b"Content-Length: 9"),
    "length and chunked": ok(b"Transfer-Encoding: chunked"),
    "U04 gzip, chunked": chunked(CHUNKS, b"gzip, chunked"),
    "U05 xchunked": chunked(CHUNKS, b"xchunked"),
    "U07 a bare line feed": ok(b"X: a\nY: b"),
    "U08 a bare carriage return": ok(b"X: a\rSet-Cookie: s=1"),
    "U10 a space before the colon": ok(b"X : a"),
    "U11 no colon": ok(b"X"),
    "U17 W09 a tunnel nobody asked for": b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nEVIL",
    "U18 a field of 70000": ok(b"X: " + b"a" * 70000),
    "U20 HTTP/2.0": b"HTTP/2.0 200 OK" + XYZ,
    "U21 status 999": b"HTTP/1.1 999 X" + XYZ,
    "U22 status 20": b"HTTP/1.1 20 OK" + XYZ,
    "U28 a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nxyz",
    "U34 chunked in HTTP/1.0": chunked(CHUNKS, version=b"1.0"),
    "U35 500 fields": ok(*(b"X%d: 1" % number for number in range(500))),
    "no HTTP at all": b"\x16\x03\x01\x00\x05hello",
}
INVALID_SENT = [
    (name, split)
    for name, answer in INVALID.items()
    for split in (False, True)
    if not split or len(answer) < 10_000
]


@pytest.mark.parametrize(
    ("answer", "split"),
    [
        pytest.param(INVALID[name], split, id=f"{name} / {'bytes' if split else 'whole'}")
        for name, split in INVALID_SENT
    ],
)
def test_told_as_a_bad_gateway(home: House, answer: bytes, split: bool) -> None:
    async def play(line: Line, request: bytes) -> None:
        await line.send(answer, split)

    with home.wire() as wire:
        with home.app.playing(play):
            head = wire.send(REQUEST).until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502 ")
        size = re.search(rb"Content-Length: (\d+)\r\n", head)
        assert size is not None
        body = wire.until(b"}")
        assert (len(body), b"upstream_invalid" in body) == (int(size[1]), True)
        for word in (b"EVIL", b"s=1", b"xyz", b"Y: b"):
            assert word not in head + body
        connections = home.app.connections
        wire.send(REQUEST).ok()
    assert home.app.connections == connections + 1, "the app's connection was used again"


CUT_SHORT = [
    pytest.param(chunked(b"3\r\nxyz\r\nZZ\r\n"), False, id="U24 a size that is none"),
    pytest.param(chunked(b"3\r\nxyz\r\n"), True, id="U25 the end before the last chunk"),
    pytest.param(ok(b"Content-Length: 9", body=b"\r\n\r\nxyz"), True, id="U26 the end before the length"),
    pytest.param(chunked(b"3\r\nxyz\r\n3;\nxyz\r\n0\r\n\r\n"), False, id="U30 a bare line feed"),
    pytest.param(chunked(b"3\r\nxyz\r\n3\r\nxyzd\r\n0\r\n\r\n"), False, id="more than the size"),
]


@pytest.mark.parametrize(
    ("answer", "close"),
    CUT_SHORT,
)
@pytest.mark.parametrize("listener", LISTENERS)
def test_cut_short_for_all_to_see(home: House, answer: bytes, close: bool, listener: str) -> None:
    async def play(line: Line, request: bytes) -> None:
        end = answer.index(b"xyz") + 3
        await line.send(answer[:end])
        await gate.wait()
        await line.send(answer[end:])
        if close:
            line.close()

    gate = home.shut_gate()
    with home.app.playing(play), home.wire(listener) as wire:
        begun = wire.send(REQUEST).until(b"xyz")
        assert begun.startswith(b"HTTP/1.1 200 ")
        gate.open()
        rest = wire.rest()
    assert b"0\r\n\r\n" not in rest.data
    assert rest.closed
    if b"Content-Length: 9" in begun:
        assert len(rest.data) < 6
    assert home.get("/public/x").body == b"ok"


PASSED_ON = [
    pytest.param(
        ok() + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
        False,
        b"xyz",
        False,
        id="U12 more than one answer",
    ),
    pytest.param(
        b"HTTP/1.1 304 Not Modified\r\n\r\nEVIL", False, b"", False, id="U14 a body where there is none"
    ),
    pytest.param(
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(),
        False,
        b"xyz",
        True,
        id="U15 an early hint",
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\n\r\nxyz",
        True,
        b"3\r\nxyz\r\n0\r\n\r\n",
        False,
        id="U27 a body without a length",
    ),
    pytest.param(
        chunked(b"3\r\nxyz\r\n0\r\nSet-Cookie: a=b\r\n\r\n"),
        False,
        b"3\r\nxyz\r\n0\r\n\r\n",
        True,
        id="U32 a trailer",
    ),
    pytest.param(
        ok(b"Set-Cookie: __Host-ztproxy=evil; Path=/; Secure"), False, b"xyz", True, id="U31 our cookie"
    ),
    pytest.param(ok(b"Set-Cookie: __HOST-ztproxy-sign-in=evil"), False, b"xyz", True, id="a name like ours"),
    pytest.param(ok(b'Clear-Site-Data: "cookies"'), False, b"xyz", True, id="U37 all cookies away"),
    pytest.param(
        ok(b"Service-Worker-Allowed: /.ztproxy/"), False, b"xyz", True, id="U38 a worker over our pages"
    ),
    pytest.param(
        ok(b"X-Ztproxy-Assertion: forged", b"Keep-Alive: 300"), False, b"xyz", True, id="a managed field"
    ),
    pytest.param(b"HTTP/1.0 200 OK" + XYZ, True, b"xyz", False, id="HTTP/1.0"),
]


@pytest.mark.parametrize(
    ("answer", "close", "expected", "reused"),
    PASSED_ON,
)
def test_passed_on_without_what_it_may_not_say(
    home: House, answer: bytes, close: bool, expected: bytes, reused: bool
) -> None:
    before = home.app.connections
    home.get("/public/x")  # an idle connection to the app, if there was none
    connections = home.app.connections
    assert connections - before <= 1
    with home.wire() as wire:
        with home.app.answers(answer, close=close):
            head = wire.send(REQUEST).until(b"\r\n\r\n")
            body = wire.until(expected) if expected else b""
        assert body == expected
        for word in (
            b"evil",
            b"EVIL",
            b"Set-Cookie",
            b"cookies",
            b"Link",
            b"Service-Worker",
            b"forged",
            b"Keep-",
        ):
            assert word not in head
        assert wire.send(REQUEST).until(b"\r\n\r\nok").count(b"HTTP/1.1 ") == 1
    assert (home.app.connections == connections) is reused


TRIED = (
    Tried(
        "Upstream answers",
        "heads that break the grammar, frame their body twice or open tunnels",
        len(INVALID),
        len(INVALID_SENT),
        "502, nothing of it passed on, the app's connection not used again",
    ),
    Tried(
        "Upstream answers",
        "bodies that end early or break off",
        len(CUT_SHORT),
        len(CUT_SHORT) * len(LISTENERS),
        "the client sees that it was cut short",
    ),
    Tried(
        "Upstream answers",
        "what an app may not say about the edge, and answers behind answers",
        len(PASSED_ON),
        len(PASSED_ON),
        "passed on without it; nothing reaches the next request",
    ),
)


def test_what_passes_is_passed_byte_for_byte(home: House) -> None:
    fields = (
        b"set-cookie: a=b; Path=/",
        b"Set-Cookie: c=d",
        b"X-Odd:   caf\xc3\xa9\xff ",
        b"Content-Encoding: gzip",
    )
    with home.app.answers(ok(*fields)):
        answer = home.get("/public/x")
    assert answer.data.startswith(
        b"HTTP/1.1 200 OK\r\nset-cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nX-Odd: caf\xc3\xa9\xff\r\n"
        b"Content-Encoding: gzip\r\n"
    )
    assert answer.body == b"xyz"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_head_has_no_body(home: House, method: str) -> None:
    data = f"{method} /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n".encode()
    play = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" if method == "HEAD" else OK
    with home.app.answers(play), home.wire() as wire:
        head = wire.send(data).until(b"\r\n\r\n")
        assert b"Content-Length: 2\r\n" in head
        with home.app.answers(OK):
            rest = wire.send(REQUEST).until(b"\r\n\r\nok")
    assert rest.startswith(b"HTTP/1.1 200 " if method == "HEAD" else b"okHTTP/1.1 200 ")


def test_a_truncated_body_without_a_length_is_a_reset_to_http_1_0(home: House) -> None:
    """A client of HTTP/1.0 takes the end of the connection for the end of the body: it must not be a clean
    one."""

    async def play(line: Line, request: bytes) -> None:
        await line.send(chunked(b"3\r\nxyz\r\n"))
        await gate.wait()
        line.close()

    gate = home.shut_gate()
    with home.app.playing(play), home.wire() as wire:
        wire.send(b"GET /public/x HTTP/1.0\r\nHost: app.test\r\n\r\n").until(b"xyz")
        gate.open()
        assert wire.rest().reset
