"""What is sent to ztproxy: honest and hostile, all of which it may forward; and what it makes of it.

`forwarded` sends everything to a real listener with a real pool behind it, and gives the octets that the
app's connections got. Nothing here is random from run to run but the ids of requests.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import NamedTuple

from tests.agreement.meaning import whole
from tests.stories.test_hostile_requests import FORWARDED
from tests.wire.recording import Line
from tests.wire.world import World, world
from ztproxy.core.identity import Identity, Session
from ztproxy.core.normalise import Reading
from ztproxy.core.outbound import identity_block, outbound_request
from ztproxy.core.routes import IdentityHeaders, IdentityPreset
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.limits import Limits

GENERATED = 800
PIPELINES, DEPTH = 40, 4
MORE_METHODS = ("PROPFIND", "REPORT", "MKCOL", "SEARCH", "PURGE", "LOCK", "M-SEARCH")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", *MORE_METHODS)
TOKEN = "!#$%&'*+-.^`|~" + string.digits + string.ascii_letters
ASSERTION = ".".join((string.ascii_letters * 3, string.ascii_letters * 8, string.digits * 8))
UPSTREAMS = 6
PATIENCE = 20.0


class Input(NamedTuple):
    """`data` holds `requests` of them and is sent whole on a connection of its own."""

    name: str
    data: bytes
    requests: int = 1


# What stands in the book of cases as forwarded, and what no generator would come upon.
def _get(target: bytes, *fields: bytes, host: bytes = b"app.test") -> bytes:
    return b"\r\n".join((b"GET %b HTTP/1.1" % target, b"Host: %b" % host, *fields, b"", b""))


def _post(body: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"POST /u HTTP/1.1", b"Host: app.test", *fields, b"", body))


_CHUNKED = b"Transfer-Encoding: chunked"
_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.test\r\nX-Request-Id: smuggled\r\n\r\n"
ROWS = (
    *(Input(name, raw) for name, (raw, *_) in FORWARDED.items()),
    Input("P07 and its neighbours", _get(b"/public/%255Fx/%25/%2525")),
    Input("P08 an escaped letter", _get(b"/%61dmin")),
    Input("P52 an escaped slash", _get(b"/group%2Fproj/-/raw")),
    Input("two escaped slashes", _get(b"/a%2F%2fb/")),
    Input("empty segments", _get(b"/a//b///")),
    Input("a parameter", _get(b"/a;v=1/b;w")),
    Input("an escaped parameter", _get(b"/a%3bv=1/b")),
    Input("all the three", _get(b"/a;x%2Fb//c;y")),
    Input("spaces at the end of every segment", _get(b"/%20a%20/%20%20/b%20")),
    Input("what looks like a site", _get(b"/http://evil.test:80/x")),
    Input("what looks like a user", _get(b"/@evil.test/x:y@z")),
    Input("a colon in the first segment", _get(b"/a:b")),
    Input("three dots and more", _get(b"/.../..a/a../.well-known/x.")),
    Input("everything a segment may hold raw", _get(b"/!$&'()*+,=:@-._~")),
    Input(
        "everything it may hold escaped", _get(b"/%20%21%22%23%24%25%26%27%28%29%2A%2B%2C%3A%3C%3D%3E%3F%40")
    ),
    Input("brackets", _get(b'/a[1]{2}|^`<>"')),
    Input("letters from elsewhere", _get(b"/%e2%80%8b%c2%a0%c2%85%e2%80%ae%f0%9f%94%91/")),
    Input("line separators", _get(b"/a%e2%80%a8b%e2%80%a9%ef%bb%bf")),
    Input("a question mark and nothing", _get(b"/u?")),
    Input("only question marks", _get(b"/???a=?")),
    Input("a query of everything", _get(b"/u?" + bytes(set(range(0x21, 0x7F)) - {0x23}))),
    Input("broken escapes in a query", _get(b"/u?%&%z&%zz&%u0061&%00&%0d%0a&a=%2e%2e%2f;b")),
    Input("a site in a query", _get(b"/u?http://a/b//c/../d")),
    Input("a request in a query", _get(b"/u?x=%20HTTP/1.1%0d%0aHost:%20evil.test")),
    Input("a long query", _get(b"/u?" + b"a" * 8000)),
    Input("a long path", _get(b"/" + b"/".join([b"a" * 200] * 39))),
    Input("a path that grows", _get(b"/" + b"|" * 2600)),
    Input("the absolute form", _get(b"http://app.test/u?x=http://evil.test/")),
    Input("the absolute form without a path", _get(b"http://app.test?x")),
    Input("the absolute form in capitals", _get(b"HTTP://APP.TEST:80/u")),
    Input("a port", _get(b"/u", host=b"app.test:8080")),
    Input("an address", _get(b"/u", host=b"127.0.0.1:81")),
    Input("an IPv6 address", _get(b"/u", host=b"[2001:DB8:0::1]:8080")),
    Input("one label and digits", _get(b"/u", host=b"1-a.xn--caf-dma.test.")),
    Input(
        "an IPv6 client", _get(b"/u", b"X-Forwarded-For: 6.6.6.6, 2001:db8::9", b"X-Forwarded-Proto: https")
    ),
    Input(
        "a list of clients", _get(b"/u", b"X-Forwarded-For: 1.1.1.1", b"X-Forwarded-For: 2.2.2.2, 10.0.0.1")
    ),
    Input("HTTP/1.0", b"GET /u HTTP/1.0\r\nHost: app.test\r\n\r\n"),
    Input("HTTP/1.0 with a body", b"POST /u HTTP/1.0\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc"),
    Input("HTTP/1.0 kept alive", b"GET /u HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n"),
    Input("a body that is a request", _post(_SMUGGLED, b"Content-Length: %d" % len(_SMUGGLED))),
    Input(
        "a chunk that is a request and ends like a body",
        _post(b"%x\r\n0\r\n\r\n%b\r\n0\r\n\r\n" % (len(_SMUGGLED) + 5, _SMUGGLED), _CHUNKED),
    ),
    Input(
        "a GET with a body that is a request", _get(b"/u", b"Content-Length: %d" % len(_SMUGGLED)) + _SMUGGLED
    ),
    Input("a HEAD with a body", b"HEAD /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 3\r\n\r\nabc"),
    Input(
        "a DELETE with chunks",
        b"DELETE /u HTTP/1.1\r\nHost: app.test\r\n%b\r\n\r\n1\r\na\r\n0\r\n\r\n" % _CHUNKED,
    ),
    Input("an OPTIONS with a body", b"OPTIONS /u HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\n\r\na"),
    Input("a length of nothing", _post(b"", b"Content-Length: 0")),
    Input("chunks of nothing", _post(b"0\r\n\r\n", _CHUNKED)),
    Input("a POST without a body", _post(b"")),
    Input("a size with zeros and capitals", _post(b"000A;x\r\n0123456789\r\n00\r\n\r\n", _CHUNKED)),
    Input("extensions", _post(b'3;a;b=c;d="e\\"f;"\r\nabc\r\n0;last=1\r\n\r\n', _CHUNKED)),
    Input("trailers", _post(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Remote-User: root\r\n\r\n", _CHUNKED)),
    Input("many chunks", _post(b"1\r\na\r\n" * 5000 + b"0\r\n\r\n", _CHUNKED)),
    Input("a large body", _post(bytes(range(256)) * 1024, b"Content-Length: 262144")),
    Input("a large chunk", _post(b"40000\r\n" + bytes(range(256)) * 1024 + b"\r\n0\r\n\r\n", _CHUNKED)),
    Input("expecting, with a body", _post(b"abc", b"Content-Length: 3", b"Expect: 100-continue")),
    Input("expecting, without", _get(b"/u", b"Expect: 100-continue")),
    Input("an offer of another protocol", _get(b"/u", b"Connection: upgrade", b"Upgrade: example/1")),
    Input(
        "a WebSocket",
        _get(
            b"/live",
            b"Connection: keep-alive, Upgrade",
            b"Upgrade: WebSocket",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Protocol: a, b",
            b"Sec-WebSocket-Extensions: permessage-deflate",
        ),
    ),
    Input(
        "framing in other words",
        _get(b"/u", b"X-Content-Length: 9", b"Content-Length2: 9", b"XTransfer-Encoding: y"),
    ),
    Input(
        "a method in other words",
        _get(b"/u", b"X-Method: DELETE", b"Method: DELETE", b"X-Http-Method: DELETE"),
    ),
    Input("no value", _get(b"/u", b"X-Empty:", b"X-Space: \t ", b"Accept:")),
    Input(
        "a value that ends like one",
        _get(b"/u", b"X-A: Content-Length: 9", b"X-B: \\r\\nContent-Length: 9", b"X-C: ,;=\\"),
    ),
    Input(
        "every octet of a value",
        _get(b"/u", b"X-All: a" + bytes((*range(0x20, 0x7F), *range(0x80, 0x100))) + b"a"),
    ),
    Input("every octet of a name", _get(b"/u", b"%b: 1" % TOKEN.encode())),
    Input("names that fold", _get(b"/u", b"X.A: 1", b"X-A: 2", b"x+a: 3", b"x-a: 4")),
    Input("a hundred fields", _get(b"/u", *(b"X-%d: %d" % (n, n) for n in range(99)))),
    Input("a long value", _get(b"/u", b"X-Long: " + b"b" * 8000)),
    Input("much in all", _get(b"/u", *(b"X-Long-%d: " % n + b"b" * 7000 for n in range(4)))),
    Input("cookies, twice", _get(b"/u", b"Cookie: a=b; c=d", b"Cookie: __Host-ztproxy=s; e=f")),
    Input("a cookie that is ours alone", _get(b"/u", b"Cookie: __Host-ztproxy=s")),
    Input("odd cookies", _get(b"/u", b'Cookie: a="b;c"; =; ;; d; e=f=g; h="\\""; \xc3\xa9=\xff')),
    Input(
        "a session in other quotes", _get(b"/u", b'Cookie: "__host-ztproxy=a"; x=1;__Host-ztproxy_x=1; y=2')
    ),
    Input(
        "the one origin", _get(b"/u", b"Origin: null", b"Authorization: Basic eDp5", b"Referer: http://x/#y")
    ),
    Input(
        "a name that means more elsewhere",
        _get(b"/u", b"Script-Name: /x", b"Path-Info: /y", b"Http-Host: evil.test"),
    ),
    Input(
        "names a CGI would set",
        _get(b"/u", b"Request-Uri: /x", b"Query-String: a", b"Raw-Uri: /z", b"Server-Name: x"),
    ),
    Input(
        "names of other proxies",
        _get(b"/u", b"X-Host: a", b"X-Forwarded: b", b"X-Scheme: c", b"Front-End-Https: on"),
    ),
    Input(
        "names of intermediaries",
        _get(b"/u", b"Max-Forwards: 0", b"Via: 1.1 x", b"Range: bytes=0-1", b"If-Match: *"),
    ),
    Input(
        "a list of hops", _get(b"/u", b"Connection: x-a, X-Ztproxy-Assertion, close", b"X-A: 1", b"X-B: 2")
    ),
)


# ---- made up ---------------------------------------------------------------------------------------------


def generated() -> Iterator[Input]:
    draw = random.Random(20260501)  # the same ones each time
    for number in range(GENERATED):
        yield Input(f"made up {number}", _made_up(draw))
    for number in range(PIPELINES):
        batch = [_made_up(draw, last=False) for _ in range(DEPTH)]
        yield Input(f"made up, one behind another, {number}", b"".join(batch), DEPTH)


def _made_up(draw: random.Random, *, last: bool = True) -> bytes:
    method = draw.choice(("GET", "POST", draw.choice(METHODS)))
    target = _path(draw) + _query(draw)
    version = b"HTTP/1.1"
    fields = [
        b"Host: " + draw.choice((b"app.test", b"APP.test", b"app.test.", b"app.test:8080", b"other.test"))
    ]
    body = b""
    if last and draw.random() < 0.08:
        version = b"HTTP/1.0"
    if method not in ("GET", "HEAD") or draw.random() < 0.2:
        framing, body = _body(draw, chunks=version == b"HTTP/1.1")
        fields += framing
    elif draw.random() < 0.1 and version == b"HTTP/1.1" and method == "GET":
        fields += [b"Connection: Upgrade", b"Upgrade: " + draw.choice((b"tls/1.3", b"h2c", b"x"))]
    if last and draw.random() < 0.1:
        fields.append(b"Connection: " + draw.choice((b"close", b"keep-alive", b"close, x-hop")))
    fields += _fields(draw)
    draw.shuffle(fields)
    return b"\r\n".join((b"%b %b %b" % (method.encode(), target, version), *fields, b"", body))


# What is worth trying in a path and often: it is refused where it makes a dot segment or the like.
_PIECES = (
    *("a", "B", "7", "-", ".", "_", "~", "!", "$", "&", "'", "(", ")", "*", "+", ",", "=", ":", "@"),
    *(
        '"',
        "<",
        ">",
        "^",
        "`",
        "{",
        "|",
        "}",
        "[",
        "]",
        "%20",
        "%22",
        "%23",
        "%3F",
        "%25",
        "%3A",
        "%41",
        "%7e",
    ),
    *("%5B", "%2a", "%26", "%3d", "%2B", "%2C", "%C3%A9", "%e2%82%ac", "%F0%9F%92%A9", "%c2%a0", "%255F"),
)
_RARE = ("/", ";v=1", "%2F", "%3Bx", "%25zz", "%2520", "..", "%2e", "%EF%BC%8F")


def _path(draw: random.Random) -> bytes:
    segments = []
    for _ in range(draw.randint(0, 5)):
        pieces = [draw.choice(_PIECES if draw.random() < 0.97 else _RARE) for _ in range(draw.randint(1, 9))]
        segments.append("".join(pieces))
    return ("/" + "/".join(segments) + draw.choice(("", "", "/"))).encode()


_QUERY = [chr(code) for code in range(0x21, 0x7F) if code != 0x23]


def _query(draw: random.Random) -> bytes:
    if draw.random() < 0.5:
        return b""
    return ("?" + "".join(draw.choices(_QUERY, k=draw.choice((0, 1, 5, 30, 200))))).encode()


def _body(draw: random.Random, *, chunks: bool) -> tuple[list[bytes], bytes]:
    """Framing, and octets; often ones that would be a request or the end of one."""
    body = draw.randbytes(draw.choice((0, 1, 2, 15, 16, 17, 255, 4096, 8192, 20000)))
    if draw.random() < 0.4:
        body = draw.choice((b"\r\n", b"0\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"")) + _SMUGGLED
    if not chunks or draw.random() < 0.5:
        zeros = b"0" * draw.choice((0, 0, 0, 4))
        return [draw.choice((b"Content-Length: ", b"content-length:")) + zeros + b"%d" % len(body)], body
    cut, at = [], 0
    while at < len(body):
        piece = body[at : at + draw.choice((1, 2, 7, 100, 4096, 9999))]
        at += len(piece)
        size = draw.choice(("%x", "%X", "0%x", "0000%X")) % len(piece)
        cut.append(b"%b%b\r\n%b\r\n" % (size.encode(), _extension(draw), piece))
        if len(cut) == 60:
            break
    trailers = b"X-Check: 1\r\nX-Request-Id: trailing\r\n" if draw.random() < 0.2 else b""
    return [b"Transfer-Encoding: " + draw.choice((b"chunked", b"Chunked"))], (
        b"".join(cut) + b"0" + _extension(draw) + b"\r\n" + trailers + b"\r\n"
    )


def _extension(draw: random.Random) -> bytes:
    return draw.choice((b"", b"", b"", b";a", b";a=b", b';a="b;c"', b";x=0;y=0"))


_VALUE = (*range(0x20, 0x7F), 9, *range(0x80, 0x100))


def _fields(draw: random.Random) -> list[bytes]:
    fields = []
    for _ in range(draw.choice((0, 1, 3, 3, 8, 20))):
        name = "".join(draw.choices(TOKEN, k=draw.choice((1, 2, 8, 30))))
        value = bytes(draw.choices(_VALUE, k=draw.choice((0, 1, 8, 8, 60, 1000))))
        fields.append(
            name.encode() + draw.choice((b": ", b":", b":\t ", b":  ")) + value + draw.choice((b"", b" \t"))
        )
    if draw.random() < 0.3:
        fields.append(b"Cookie: " + b"; ".join(b"%c=%d" % (97 + n, n) for n in range(draw.randint(1, 40))))
    for forged in draw.sample(_FORGED, draw.choice((0, 0, 1, 3))):
        fields.append(forged)
    return fields


# Dropped by us; a twin of one would be two.
_FORGED = (
    b"X-Forwarded-For: 6.6.6.6",
    b"X-Forwarded-Host: evil.test",
    b"X-Forwarded-User: root",
    b"X-ZTPROXY-ASSERTION: forged",
    b"Remote-User: root",
    b"X-Real-IP: 6.6.6.6",
    b"Via: 1.1 somebody",
    b"Forwarded: for=6.6.6.6",
    b"Content-Type: text/plain",
    b"Origin: http://app.test",
    b"Authorization: Basic eDp5",
)


# ---- what ztproxy makes of it ----------------------------------------------------------------------------

_READING = Reading(
    False,
    "__Host-ztproxy",
    methods=frozenset(METHODS),
    trusted_proxies=(ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8")),
)
_WHO = Session(
    "s",
    Identity(
        "https://login.test",
        "alice",
        "alice@example.com",
        'Alicé Ω, "the first"; x=y',
        "alice",
        ("a b", "c,d", "grüße", " e "),
    ),
    "demo",
    0.0,
    0.0,
    0.0,
    2e9,
)
_IDENTITY = IdentityHeaders("app", presets=tuple(IdentityPreset))


REQUESTS = len(ROWS) + GENERATED + PIPELINES * DEPTH


class Forwarded(NamedTuple):
    """`streams` are what each connection to the app got, `passed` is how many answers of the app came back
    for each input, by its name."""

    streams: list[bytes]
    passed: dict[str, int]


async def forwarded() -> Forwarded:
    waiting = iter([*ROWS, *generated()])
    passed: dict[str, int] = {}
    async with world(_plays, reading=_READING, limits=Limits(), max_connections=UPSTREAMS) as it:
        it.stage.act = lambda exchange: _forward(it, exchange)

        async def lane() -> None:
            for one in waiting:
                passed[one.name] = await _ask(it, one)

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(lane() for _ in range(UPSTREAMS)))
        streams = [line.received for line in it.app.lines]
    return Forwarded(streams, passed)


def _forward(it: World, exchange: Exchange) -> None:
    """As the gateway does for somebody signed in, by routes of three kinds in turn."""
    route = replace(it.route, identity=_IDENTITY)
    who = identity_block(route, _WHO, ASSERTION)
    forwarding = it.forwarding
    match len(it.stage.handled) % 4:
        case 1:
            forwarding = replace(
                forwarding,
                set_request=((b"x-from-route", b"1"), (b"authorization", b"Basic eDp6")),
                remove_request=frozenset({b"x-a"}),
            )
        case 3:
            forwarding = replace(forwarding, preserve_host=False, rewrite_prefix="/base/of/it")
    head = outbound_request(exchange.request, route, forwarding, exchange.request_id, who)
    exchange.forward(it.pool, head, it.stage.filter, max_body=None, gate=None, on_failure=None)


async def _ask(it: World, one: Input) -> int:
    """How many of these requests the app answered."""
    client = await it.client()
    await client.send(one.data)
    passed = 0
    for _ in range(one.requests):
        try:
            answer = await client.answer("HEAD")
            while answer.status == 100:
                answer = await client.answer("HEAD")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        if answer.status != 204:
            break
        passed += 1
    client.close()
    return passed


async def _plays(line: Line) -> None:
    """Reads requests by the letter of RFC 9112, and answers so that no method could have a body."""

    async def exactly(size: int) -> bytes:
        octets = b""
        while len(octets) < size:
            octets += await line.more(size - len(octets))
        return octets

    while True:
        await whole(line.until, exactly)
        await line.send(b"HTTP/1.1 204 No Content\r\n\r\n")
