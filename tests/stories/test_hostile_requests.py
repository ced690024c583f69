"""Hostile requests against a running proxy, as raw bytes: refused with nothing said and nothing passed on, or
forwarded as exactly the bytes of the wire policy.

Every refused row is sent four times: whole and a byte at a time, over plain TCP and over TLS. Each request is
alice's, and carries a mark in a second cookie by which the app's side would show that it got through.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

import jwt
import pytest

from tests.evidence import Tried
from tests.stories.hostile import (
    CHUNKS,
    HOST,
    LISTENERS,
    blurred,
    dechunked,
    get,
    golden,
    is_constant,
    is_refused,
    post,
    refusals,
    request,
)
from tests.stories.house import COOKIE, House, house
from tests.stories.talking import Heard, Sending, until
from ztproxy.core.reasons import Reason

WAYS = {"whole": None, "bytes": 0}
TOO_LONG_FOR_BYTES = 10_000


def hosts(*fields: bytes) -> bytes:
    return request(b"GET /u HTTP/1.1", *fields)


def line(first: bytes) -> bytes:
    return request(first, HOST)


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


# name -> (status, bytes). The letter and number are the case's in the project's book of cases.
HEADS: dict[str, tuple[int, bytes]] = {
    "H01 a length twice": (400, post(b"Content-Length: 3", b"Content-Length: 3")),
    "H02 two lengths": (400, post(b"Content-Length: 3", b"Content-Length: 4")),
    "H04 a sign": (400, post(b"Content-Length: +3")),
    "H05 negative": (400, post(b"Content-Length: -1")),
    "H07 hexadecimal": (400, post(b"Content-Length: 0x3")),
    "H08 a vertical tab": (400, post(b"Content-Length: 3 \x0b")),
    "H10 2^64+3": (400, post(b"Content-Length: 18446744073709551619")),
    "H11 a fraction": (400, post(b"Content-Length: 3.0")),
    "H12 no digits": (400, post(b"Content-Length:")),
    "H14 an underscore twin of the length": (400, post(b"Content-Length: 3", b"Content_Length: 0")),
    "H17 length and chunked": (400, post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=CHUNKS)),
    "H18 chunked and length": (400, post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=CHUNKS)),
    "H20 chunked twice": (400, post(b"Transfer-Encoding: chunked, chunked", body=CHUNKS)),
    "H21 identity": (400, post(b"Transfer-Encoding: identity", body=b"")),
    "H22 identity, chunked": (400, post(b"Transfer-Encoding: identity, chunked", body=CHUNKS)),
    "H24 gzip, chunked": (400, post(b"Transfer-Encoding: gzip, chunked", body=CHUNKS)),
    "H25 xchunked": (400, post(b"Transfer-Encoding: xchunked", body=CHUNKS)),
    "H27 quoted": (400, post(b'Transfer-Encoding: "chunked"', body=CHUNKS)),
    "H28 a vertical tab before it": (400, post(b"Transfer-Encoding:\x0bchunked", body=CHUNKS)),
    "H30 a high byte before it": (400, post(b"Transfer-Encoding: \xffchunked", body=CHUNKS)),
    "H31 folded": (400, post(b"Transfer-Encoding:\r\n chunked", body=CHUNKS)),
    "H32 a space before the colon": (400, post(b"Transfer-Encoding : chunked", body=CHUNKS)),
    "H34 an underscore twin of chunked": (400, post(b"Transfer_Encoding: chunked", b"Content-Length: 3")),
    "H37 chunked in HTTP/1.0": (400, post(b"Transfer-Encoding: chunked", body=CHUNKS, version=b"1.0")),
    "H38 an empty list member": (400, post(b"Transfer-Encoding: ,chunked", body=CHUNKS)),
    "H62 bare line feeds": (400, b"GET /u HTTP/1.1\nHost: app.test\n\n"),
    "H64 a bare carriage return": (400, get(b"W: y\rX: y")),
    "H65 a folded field": (400, get(b"X: a\r\n b")),
    "H67 no colon": (400, get(b"X")),
    "H68 no name": (400, get(b": y")),
    "H70 a control in a value": (400, get(b"X: a\x01b")),
    "H71 a zero in a name": (400, get(b"X\x00Y: b")),
    "H72 a high byte in a name": (400, get(b"\xefoo: b")),
    "H74 a delimiter in a name": (400, get(b"X(Y): b")),
    "H75 HTTP/0.9": (400, b"GET /u\r\n\r\n"),
    "H77 HTTP/2.0": (505, line(b"GET /u HTTP/2.0")),
    "H78 a space behind the version": (400, line(b"GET /u HTTP/1.1 ")),
    "H80 tabs as separators": (400, line(b"GET\t/u\tHTTP/1.1")),
    "H81 a space in the target": (400, line(b"GET /a b HTTP/1.1")),
    "H82 a small version": (400, line(b"GET /u http/1.1")),
    "H84 no token for a method": (400, line(b'G=":<>(e),[T];?" /u HTTP/1.1')),
    "H87 a TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "H88 TRACE": (405, line(b"TRACE /u HTTP/1.1")),
    "H90 no Host": (400, hosts()),
    "H91 two Hosts": (400, hosts(HOST, b"Host: evil.test")),
    "H92 a list of Hosts": (400, hosts(b"Host: app.test, evil.test")),
    "H94 a user in Host": (400, hosts(b"Host: user@app.test")),
    "H95 a path in Host": (400, hosts(b"Host: app.test/evil")),
    "H97 an empty Host": (400, hosts(b"Host: ")),
    "H100 another site in the target": (400, line(b"GET http://evil.test/u HTTP/1.1")),
    "H101 a user in the target": (400, line(b"GET http://app.test@evil.test/u HTTP/1.1")),
    "H102 another scheme in the target": (400, line(b"GET ftp://app.test/u HTTP/1.1")),
    "H104 the asterisk": (400, line(b"OPTIONS * HTTP/1.1")),
    "H105 no slash": (400, line(b"GET u HTTP/1.1")),
    "H107 a high byte in Host": (400, hosts(b"Host: app.test\xff")),
    "H108 an unknown Host": (421, hosts(b"Host: unknown.test")),
    "H110 two ports": (400, hosts(b"Host: app.test:443:80")),
    "H111 a target of 9000": (414, get(target=b"/" + b"a" * 9000)),
    "H112 a field of 9000": (431, get(b"X: " + b"a" * 9000)),
    "H114 80 KiB of fields": (431, get(*(b"X%d: " % number + b"a" * 4000 for number in range(20)))),
    "H118 framing named in Connection": (400, get(b"Connection: Content-Length", b"Content-Length: 0")),
    "H124 an upgrade with a body": (
        400,
        get(b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 3") + b"abc",
    ),
    "H125 an unknown expectation": (417, get(b"Expect: 200-ok")),
    "CONNECT": (405, line(b"CONNECT app.test:443 HTTP/1.1")),
    "our cookie twice": (400, get(f"Cookie: {COOKIE}=a".encode())),
    "P01 dot segments": (400, get(target=b"/public/../admin")),
    "P02 encoded dots": (400, get(target=b"/public/%2e%2e/admin")),
    "P04 an encoded slash": (400, get(target=b"/public/..%2fadmin")),
    "P05 encoded slashes": (400, get(target=b"/public%2f..%2fadmin")),
    "P10 an empty segment": (400, get(target=b"/public//admin")),
    "P11 dots with a parameter": (400, get(target=b"/public/..;/admin")),
    "P12 a dot with a parameter": (400, get(target=b"/public/.;a=b/admin")),
    "P14 a path parameter": (400, get(target=b"/admin;.js")),
    "P15 backslashes": (400, get(target=b"/public\\..\\admin")),
    "P17 an encoded zero": (400, get(target=b"/admin%00.js")),
    "P18 an encoded line feed": (400, get(target=b"/admin%0a")),
    "P20 an encoded tab": (400, get(target=b"/admin%09")),
    "P22 a cut escape": (400, get(target=b"/admin%")),
    "P24 no escape": (400, get(target=b"/admin%zz")),
    "P25 overlong UTF-8": (400, get(target=b"/%c0%ae%c0%ae/admin")),
    "P28 raw UTF-8": (400, get(target=b"/caf\xc3\xa9")),
    "P34 a dot at the end": (400, get(target=b"/admin/.")),
    "P35 a dot alone": (400, get(target=b"/.")),
    "P44 dots behind the callback": (400, get(target=b"/.ztproxy/callback/../admin")),
    "P45 encoded dots behind our prefix": (400, get(target=b"/.ztproxy/%2e%2e/admin")),
    "P48 an escape of IIS": (400, get(target=b"/%u0061dmin")),
    "P52 an encoded slash alone": (400, get(target=b"/group%2Fproj")),
    "P54 an encoded dot alone": (400, get(target=b"/%2e")),
    "a fragment": (400, get(target=b"/admin#x")),
}

# The head is in order, so the app may see it; what follows never becomes a request for it.
BODIES: dict[str, bytes] = {
    "H40 a bare line feed behind the size": b"3\nabc\r\n0\r\n\r\n",
    "H41 a bare line feed behind an extension": b"3;\nabc\r\n0\r\n\r\n",
    "H42 a line feed in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "H44 a flood of extensions": b"3;" + b"x" * 70000 + b"\r\nabc\r\n0\r\n\r\n",
    "H45 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "H47 a negative size": b"-1\r\nabc\r\n0\r\n\r\n",
    "H48 a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "H50 an underscore in the size": b"3_0\r\n" + b"a" * 48 + b"\r\n0\r\n\r\n",
    "H51 a size beyond 64 bits": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "H52 more than the size": b"3\r\nabcd\r\n0\r\n\r\n",
    "H54 a bare line feed behind the data": b"3\r\nabc\n0\r\n\r\n",
    "H55 an empty size": b"\r\n3\r\nabc\r\n0\r\n\r\n",
    "H57 a length in the trailer": b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
    "H58 a flood in the trailer": b"3\r\nabc\r\n0\r\nX: " + b"y" * 100000 + b"\r\n\r\n",
}
REFUSED = HEADS | {name: (400, chunked(body)) for name, body in BODIES.items()}
CELLS = [
    (name, listener, way)
    for name, (_, raw) in REFUSED.items()
    for listener in LISTENERS
    for way in WAYS
    if way == "whole" or len(raw) < TOO_LONG_FOR_BYTES
]
Cell = tuple[str, str, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    parts = {"route": "    max_body: 64KiB"}
    with house(tmp_path_factory.mktemp("hostile"), valkey_url, parts=parts) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    return home.sign_in("alice")


def mark(*parts: object) -> bytes:
    return "-".join(re.sub(r"\W+", "-", str(part)) for part in parts).encode()


def marked(raw: bytes, cookie: str, what: bytes) -> bytes:
    """The request as alice's, marked; what has no line for a Host is left as it is."""
    shown = f"Cookie: {cookie}; mark=".encode() + what
    return re.sub(rb"(\r\nHost:[^\r\n]*\r\n)", lambda found: found[1] + shown + b"\r\n", raw, count=1)


@pytest.fixture(scope="module")
def every(home: House, alice: str) -> tuple[dict[Cell, Heard], Counter[str]]:
    """Every row in every way, all at once: what each connection heard, and what the metrics counted."""
    assert refusals(home).total() == 0
    passed = len(home.app.requests)
    sendings = [
        Sending(marked(REFUSED[name][1], alice, mark(name, listener, way)), listener, WAYS[way])
        for name, listener, way in CELLS
    ]
    answers = home.send_all(sendings)
    # Nothing became a request for the app, the smuggled ones without a mark included.
    assert home.app.requests[passed:] == []
    # Each was counted exactly once.
    until(lambda: refusals(home).total() >= len(CELLS))
    counted = refusals(home)
    assert counted.total() == len(CELLS)
    return dict(zip(CELLS, answers, strict=True)), counted


@pytest.fixture(scope="module")
def heard(every: tuple[dict[Cell, Heard], Counter[str]]) -> dict[Cell, Heard]:
    return every[0]


@pytest.fixture(scope="module")
def counted(every: tuple[dict[Cell, Heard], Counter[str]]) -> Counter[str]:
    return every[1]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=" / ".join(cell)) for cell in CELLS])
def test_refused(home: House, heard: dict[Cell, Heard], cell: Cell) -> None:
    answer = heard[cell]
    is_refused(answer, REFUSED[cell[0]][0])
    if cell[0] in HEADS:
        assert mark(*cell) not in home.app.received


CUT = [
    ("H17 length and chunked", "plain"),
    ("H17 length and chunked", "tls"),
    ("H31 folded", "plain"),
    ("H65 a folded field", "plain"),
    ("H75 HTTP/0.9", "plain"),
    ("H91 two Hosts", "plain"),
    ("P02 encoded dots", "plain"),
    ("H42 a line feed in an extension", "plain"),
    ("H52 more than the size", "plain"),
    ("H57 a length in the trailer", "plain"),
]


@pytest.mark.parametrize(
    ("name", "listener"),
    [pytest.param(name, listener, id=f"{name} / {listener}") for name, listener in CUT],
)
def test_refused_cut_at_every_offset(home: House, alice: str, name: str, listener: str) -> None:
    """Without the cookie where the head is refused before anybody looks at it: it would only add offsets."""
    status, raw = REFUSED[name]
    what = mark("cut", name, listener)
    data = raw if name in HEADS else marked(raw, alice, what)
    passed, received = len(home.app.requests), len(home.app.received)
    answers = home.send_all([Sending(data, listener, cut) for cut in range(1, len(data))])
    for cut, answer in enumerate(answers, 1):
        assert (answer.status, answer.data.count(b"HTTP/1.1 "), answer.closed) == (status, 1, True), (
            cut,
            answer,
        )
        assert is_constant(answer)
    assert home.app.requests[passed:] == []
    if name in HEADS:
        assert len(home.app.received) == received


@pytest.mark.parametrize(
    ("reason", "cells"),
    [
        pytest.param(reason, [cell for cell in CELLS if REFUSED[cell[0]][0] == reason.status], id=reason)
        for reason in (
            Reason.HTTP_VERSION,
            Reason.HTTP_METHOD,
            Reason.HTTP_EXPECT,
            Reason.HTTP_REQUEST_LINE_TOO_LONG,
            Reason.HTTP_HEAD_TOO_LARGE,
            Reason.NO_SUCH_HOST,
        )
    ]
    + [pytest.param(Reason.HTTP_BODY, [cell for cell in CELLS if cell[0] in BODIES], id=Reason.HTTP_BODY)],
)
def test_the_reason_is_counted(home: House, counted: Counter[str], reason: Reason, cells: list[Cell]) -> None:
    assert counted[reason] == len(cells) > 0
    assert home.metric("ztproxy_upstream_failures_total") == 0, "none of it is the app's fault"


LENGTH = (b"Content-Length: 3",)
CHUNKED = (b"Transfer-Encoding: chunked",)
COOKIES = b"a=b; " * 1500
# name -> (sent, (target, what of the client's fields is left), body)
FORWARDED: dict[str, tuple[bytes, bytes, tuple[bytes, ...], bytes]] = {
    "H15 leading zeros": (post(b"Content-Length: 000003"), b"/u", LENGTH, b"abc"),
    "H35 CHUNKED": (post(b"Transfer-Encoding: CHUNKED", body=CHUNKS), b"/u", CHUNKED, CHUNKS),
    "an extension and a trailer": (chunked(b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n"), b"/u", CHUNKED, CHUNKS),
    "H85 empty lines before": (b"\r\n\r\n" + get(), b"/u", (), b""),
    "H98 the name in another spelling": (hosts(b"Host: APP.TEST."), b"/u", (), b""),
    "H115 many cookies": (get(b"Cookie: " + COOKIES), b"/u", (b"Cookie: " + COOKIES.strip(),), b""),
    "H117 our fields named in Connection": (
        get(b"Connection: X-Forwarded-For, X-Forwarded-Proto"),
        b"/u",
        (),
        b"",
    ),
    "H120 credentials named in Connection": (
        get(b"Connection: Cookie, Authorization", b"Cookie: a=b", b"Authorization: Basic eDp5"),
        b"/u",
        (),
        b"",
    ),
    "an offer of HTTP/2": (
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        b"/u",
        (),
        b"",
    ),
    "H121 old hop-by-hop fields": (get(b"Proxy-Connection: keep-alive", b"Keep-Alive: 300"), b"/u", (), b""),
    "H122 httpoxy": (get(b"Proxy: http://evil.test"), b"/u", (), b""),
    "forged identity, in several spellings": (
        get(b"X-Ztproxy-Assertion: forged", b"x-forwarded-for: 6.6.6.6", b"X-Forwarded-Email: root@x"),
        b"/u",
        (),
        b"",
    ),
    "spelling, order and bytes are kept": (
        get(b"x-Two: 2", b"X-ONE:\t1 ", b"X-Bytes: caf\xc3\xa9 \xff", b"Accept: */*"),
        b"/u",
        (b"x-Two: 2", b"X-ONE: 1", b"X-Bytes: caf\xc3\xa9 \xff", b"Accept: */*"),
        b"",
    ),
    "P07 an escaped escape": (get(target=b"/public/%255Fx"), b"/public/%255Fx", (), b""),
    "P21 an escaped space": (get(target=b"/admin%20"), b"/admin%20", (), b""),
    "P27 small hexadecimals": (get(target=b"/caf%c3%a9"), b"/caf%C3%A9", (), b""),
    "P30 an escaped hash": (get(target=b"/admin%23x"), b"/admin%23x", (), b""),
    "P31 a full-width slash": (get(target=b"/%ef%bc%8fadmin"), b"/%EF%BC%8Fadmin", (), b""),
    "P32 capitals": (get(target=b"/ADMIN"), b"/ADMIN", (), b""),
    "P37 dots in the query": (get(target=b"/?next=/../admin"), b"/?next=/../admin", (), b""),
    "P38 a public path in the query": (
        get(target=b"/private?x=/public/health"),
        b"/private?x=/public/health",
        (),
        b"",
    ),
    "P40 an escaped question mark": (get(target=b"/public%3fx"), b"/public%3Fx", (), b""),
    "P41 two kinds of plus": (get(target=b"/a%2Bb+c"), b"/a%2Bb+c", (), b""),
    "P42 a line break in the query": (
        get(target=b"/x?a=%0d%0aSet-Cookie:x"),
        b"/x?a=%0d%0aSet-Cookie:x",
        (),
        b"",
    ),
    "P50 what browsers leave raw": (
        get(target=b'/a|b^c`{d}"<e>[1]'),
        b"/a%7Cb%5Ec%60%7Bd%7D%22%3Ce%3E%5B1%5D",
        (),
        b"",
    ),
    "P51 what browsers leave raw in a query": (
        get(target=b"/x?q={a}|b\\c[1]^`"),
        b"/x?q={a}|b\\c[1]^`",
        (),
        b"",
    ),
}


def _refused(part: str, what: str, names: list[str]) -> Tried:
    """Each way of sending them, and those cut at every offset."""
    cut = sum(len(REFUSED[name][1]) - 1 for name, _ in CUT if name in names)
    return Tried(part, what, len(names), sum(cell[0] in names for cell in CELLS) + cut, "refused")


def _forwarded(part: str, what: str, names: list[str]) -> Tried:
    sent = len(names) * len(LISTENERS) * len(WAYS)
    return Tried(part, what, len(names), sent, "forwarded as exactly the bytes of the wire policy")


PATHS = [name for name in HEADS if name.startswith("P")] + ["a fragment"]
HONEST_PATHS = [name for name in FORWARDED if name.startswith("P")]
TRIED = (
    _refused(
        "Requests",
        "request lines, versions, Host, framing, fields and limits",
        [name for name in HEADS if name not in PATHS],
    ),
    _refused("Requests", "chunked bodies that break the grammar", list(BODIES)),
    _refused("Paths", "dots, slashes, backslashes, parameters, controls and escapes", PATHS),
    _forwarded(
        "Requests",
        "odd but honest requests, and fields that must go",
        [name for name in FORWARDED if name not in HONEST_PATHS],
    ),
    _forwarded("Paths", "odd but honest paths and queries", HONEST_PATHS),
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("name", FORWARDED)
def test_forwarded(home: House, alice: str, name: str, listener: str, way: str) -> None:
    raw, target, fields, body = FORWARDED[name]
    sent = re.sub(
        rb"(Host: [^\r]*\r\n)", lambda found: found[1] + f"Cookie: {alice}\r\n".encode(), raw, count=1
    )
    before = len(home.app.requests)
    (answer,) = home.send_all([Sending(sent, listener, WAYS[way])])
    assert (answer.status, answer.body, answer.closed) == (200, b"ok", False), answer
    method = raw.lstrip().partition(b" ")[0]
    expected = golden(listener, target, *fields, method=method, body=body)
    assert [dechunked(blurred(one)) for one in home.app.requests[before:]] == [dechunked(expected)]


def test_the_golden_request_and_its_assertion(home: House, alice: str) -> None:
    with home.wire("tls") as wire:
        cookie = f"Cookie: a=1; {alice}; b=2"
        wire.send(get(b"Accept: */*", cookie.encode(), b"User-Agent: t", target=b"/u?x=1")).ok()
    received = home.app.requests[-1]
    expected = golden("tls", b"/u?x=1", b"Accept: */*", b"Cookie: a=1; b=2", b"User-Agent: t")
    assert blurred(received) == expected
    found = re.search(rb"X-Ztproxy-Assertion: (\S+)\r\n", received)
    assert found is not None
    keys = jwt.PyJWKSet.from_dict(json.loads(home.get("/.well-known/ztproxy/jwks.json").body))
    key = keys[jwt.get_unverified_header(found[1])["kid"]]
    claims = jwt.decode(
        found[1], key, algorithms=["ES256"], audience="https://app.test", issuer="https://app.test"
    )
    assert (claims["email"], claims["groups"], claims["amr"]) == (
        "alice@example.com",
        ["engineering"],
        ["pwd"],
    )
    assert claims["exp"] - claims["iat"] == 300


def test_a_request_behind_another_is_judged_by_itself(home: House, alice: str) -> None:
    """H60: a body that ends, then a request the first one's cookie must not speak for."""
    first = request(b"POST /u HTTP/1.1", HOST, f"Cookie: {alice}".encode(), *CHUNKED, body=CHUNKS)
    before = len(home.app.requests)
    with home.wire() as wire:
        wire.send(first + line(b"GET /admin HTTP/1.1") + get(f"Cookie: {alice}".encode(), target=b"/admin"))
        assert wire.ok().startswith(b"HTTP/1.1 200 ")
        assert wire.until(b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
        assert wire.until(b"\r\n\r\n").partition(b"HTTP/1.1 ")[2].startswith(b"403 ")
    assert len(home.app.requests) == before + 1


def test_many_small_chunks(home: House, alice: str) -> None:
    """H61."""
    body = b"1\r\na\r\n" * 20000 + b"0\r\n\r\n"
    sent = request(b"POST /u HTTP/1.1", HOST, f"Cookie: {alice}".encode(), *CHUNKED, body=body)
    with home.wire() as wire:
        assert wire.send(sent).ok().startswith(b"HTTP/1.1 200 ")
    assert dechunked(home.app.requests[-1]).endswith(b"\r\n\r\n" + b"a" * 20000)


@pytest.mark.parametrize(
    ("target", "person", "status"),
    [
        pytest.param("/%61dmin", "alice", 403, id="P08 an escaped letter is the letter to the policy"),
        pytest.param("/%61dmin", "carol", 200, id="P08 and to who may open it"),
        pytest.param("/admin%20", "", 401, id="P21 is not /admin, and not public"),
        pytest.param("/private?x=/public/health", "", 401, id="P38 the query does not decide"),
        pytest.param("/public%3fx", "", 401, id="P40 is one segment"),
        pytest.param("/admin%23x", "alice", 200, id="P30 a hash is a letter like any other"),
        pytest.param("/%2561dmin", "alice", 403, id="P07 is /admin to who decodes twice"),
        pytest.param("/admin%3Fx", "alice", 403, id="P40 is /admin to who looks for the query late"),
        pytest.param("/wiki/Who%3F", "alice", 200, id="P40 in an honest path"),
        pytest.param("/.ZTPROXY/logout", "alice", 404, id="P47 our prefix in capitals"),
        pytest.param("/public/x", "", 200, id="the public part"),
        pytest.param("/publicity", "", 401, id="a prefix ends with its segment"),
    ],
)
def test_the_policy_reads_the_canonical_path(home: House, target: str, person: str, status: int) -> None:
    cookie = home.sign_in(person) if person else ""
    before = len(home.app.requests)
    assert home.get(target, cookie).status == status
    passed = home.app.requests[before:]
    assert [one.split(b" ")[1] for one in passed] == (
        [target.replace("%61", "a").encode()] if status == 200 else []
    )


def test_no_body_is_asked_for_before_the_decision(home: House, alice: str) -> None:
    expecting = (b"Content-Length: 3", b"Expect: 100-continue")
    with home.wire() as wire:
        assert wire.send(post(*expecting, body=b"")).until(b"\r\n").startswith(b"HTTP/1.1 401 ")
    with home.wire() as wire:
        wire.send(post(f"Cookie: {alice}".encode(), *expecting, body=b""))
        assert wire.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"abc").ok()
    assert blurred(home.app.requests[-1]) == golden("plain", b"/u", *LENGTH, method=b"POST", body=b"abc")


LARGE = 64 * 1024


@pytest.mark.parametrize(
    ("fields", "body", "status"),
    [
        pytest.param((b"Content-Length: %d" % LARGE,), b"x" * LARGE, 200, id="as much as allowed"),
        pytest.param((b"Content-Length: %d" % (LARGE + 1),), b"", 413, id="announced as one more"),
        pytest.param((b"Content-Length: 999999999999999999",), b"", 413, id="announced as far more"),
        pytest.param(
            CHUNKED, b"%x\r\n" % LARGE + b"x" * LARGE + b"\r\n0\r\n\r\n", 200, id="as much in a chunk"
        ),
        pytest.param(
            CHUNKED,
            b"%x\r\n" % LARGE + b"x" * LARGE + b"\r\n1\r\nx\r\n0\r\n\r\n",
            413,
            id="one more in a second chunk",
        ),
    ],
)
def test_a_body_limit(home: House, alice: str, fields: tuple[bytes, ...], body: bytes, status: int) -> None:
    before = len(home.app.requests)
    sent = post(f"Cookie: {alice}".encode(), *fields, body=body)
    (answer,) = home.send_all([Sending(sent)])
    assert answer.status == status
    assert len(home.app.requests) == before + (status == 200)
    assert answer.closed is (status == 413)


def test_nothing_behind_a_page_of_ours_is_served(home: House, alice: str) -> None:
    """The connection was given away for one answer: what follows meets neither the policy nor an app."""
    cookie = f"Cookie: {alice}".encode()
    before = len(home.app.received)
    first = request(b"POST /.ztproxy/sign_out HTTP/1.1", HOST, cookie, *CHUNKED, body=CHUNKS)
    with home.wire() as wire:
        heard = wire.send(first + get(cookie) + get(cookie, target=b"/.ztproxy/session")).rest()
    assert (heard.status, heard.data.count(b"HTTP/1.1 "), heard.closed) == (403, 1, True)
    assert len(home.app.received) == before


@pytest.mark.parametrize("target", ["/u", "/admin", "/.ztproxy/session", "/.ztproxy/nothing", "/public/x"])
def test_an_answer_to_head_has_no_body(home: House, target: str) -> None:
    """A body there would be read as the next answer."""
    with home.app.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"):
        heard = home.plain(f"HEAD {target} HTTP/1.1\r\nHost: app.test\r\n\r\n".encode())
    assert heard.status and heard.body == b""


def test_pipelined_requests_are_answered_in_order(home: House, alice: str) -> None:
    cookie = f"Cookie: {alice}".encode()
    requests = [get(cookie), get(), get(cookie, target=b"/admin"), get(target=b"/public/x")] * 5
    with home.wire() as wire:
        wire.send(b"".join(requests[:-1]) + requests[-1].replace(HOST, HOST + b"\r\nConnection: close"))
        heard = wire.rest()
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", heard.data)
    assert statuses == [b"200", b"401", b"403", b"200"] * 5
