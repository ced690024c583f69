"""From bytes on the wire to one canonical request, or the reason why not."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztproxy.core.certificate_hosts import CertificateHosts
from ztproxy.core.fields import fold
from ztproxy.core.normalise import _MOST_BLOCKS, Normaliser, RawHead, Reading
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate, Framing, Path, Peer, Request
from ztproxy.wire.head import find_head, parse_request

PEER = Peer("203.0.113.9", True)
PROXY = Peer("10.0.0.5", True)
COOKIE = b"__Host-ztproxy"
READING: dict[str, Any] = {"secure": True, "cookie": "__Host-ztproxy"}
NORMALISER = Normaliser(Reading(**READING))
TRUSTING: dict[str, Any] = {"trusted_proxies": (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))}


def read(wire: bytes, peer: Peer = PEER, **reading: Any) -> Request | Reason:
    """What the guards make of these bytes: byte grammar first, then meaning."""
    end = find_head(wire)
    if isinstance(end, Reason):
        return end
    assert end, "the row holds no whole head"
    head = parse_request(wire[:end])
    if isinstance(head, Reason):
        assert parse_request(wire[:end]) is head
        return head
    normaliser = Normaliser(Reading(**(READING | reading))) if reading else NORMALISER
    meaning = normaliser.read(head._replace(fields=list(head.fields)), peer)
    for _ in range(3):
        again = parse_request(wire[:end])
        assert again == head
        assert normaliser.read(again, peer) == meaning, "what is remembered means the same"
    return meaning


def get(*lines: bytes, line: bytes = b"GET /u HTTP/1.1", host: bytes = b"app.test") -> bytes:
    return b"\r\n".join([line, b"Host: " + host, *lines]) + b"\r\n\r\n"


def post(*lines: bytes) -> bytes:
    return get(*lines, line=b"POST /u HTTP/1.1")


def accepted(wire: bytes, peer: Peer = PEER, **reading: Any) -> Request:
    request = read(wire, peer, **reading)
    assert isinstance(request, Request), request
    return request


def test_a_whole_request() -> None:
    wire = get(
        b"user-agent: x",
        b"COOKIE: a=b; __Host-ztproxy=v1.abc; c=d",
        b"Authorization: Bearer t",
        b"Origin: https://app.test",
        b"X-Forwarded-For: 10.0.0.1",
        b"Content-Length: 000003",
        b"Expect: 100-Continue",
        b"Connection: keep-alive, X-Hop",
        b"X-Hop: 1",
        b"X-Ztproxy-User: admin",
        line=b"PUT /%61/b?x=%zz&y HTTP/1.1",
        host=b"APP.test.:8443",
    )
    assert accepted(wire) == Request(
        method="PUT",
        scheme="https",
        host="app.test",
        port=8443,
        path=Path("/a/b", (("a", "b"),), frozenset()),
        query="?x=%zz&y",
        fields=(
            (b"user-agent", b"x"),
            (b"COOKIE", b"a=b; c=d"),
            (b"Authorization", b"Bearer t"),
            (b"Origin", b"https://app.test"),
        ),
        peer=PEER,
        session="v1.abc",
        authorization=b"Bearer t",
        origin="https://app.test",
        framing=Framing.LENGTH,
        length=3,
        upgrade=None,
        expects_continue=True,
        keep_alive=True,
        http_1_0=False,
    )


FRAMING, DUPLICATE, NAME = Reason.HTTP_FRAMING, Reason.HTTP_DUPLICATE, Reason.HTTP_FIELD_NAME
HOST, TARGET, PATH, METHOD = Reason.HTTP_HOST, Reason.HTTP_TARGET, Reason.HTTP_PATH, Reason.HTTP_METHOD
UPGRADE, CONNECTION = Reason.HTTP_UPGRADE, Reason.HTTP_CONNECTION
CHUNKED = b"Transfer-Encoding: chunked"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
WEBSOCKET = (b"Connection: Upgrade", b"Upgrade: websocket", KEY, b"Sec-WebSocket-Version: 13")

REFUSED = [
    pytest.param(post(b"Content-Length: 3", b"Content-Length: 3"), DUPLICATE, id="H01 equal lengths"),
    pytest.param(post(b"Content-Length: 3", b"Content-Length: 4"), DUPLICATE, id="H02 two lengths"),
    pytest.param(post(b"Content-Length: 3, 3"), FRAMING, id="a list of lengths"),
    pytest.param(post(b"Content-Length: +3"), FRAMING, id="H04 sign"),
    pytest.param(post(b"Content-Length: -1"), FRAMING, id="H05 negative"),
    pytest.param(post(b"Content-Length: 0x3"), FRAMING, id="H07 hex"),
    pytest.param(post(b"Content-Length: 3 \x0b"), Reason.HTTP_FIELD, id="H08 vertical tab"),
    pytest.param(post(b"Content-Length: 18446744073709551619"), FRAMING, id="H10 2^64+3"),
    pytest.param(post(b"Content-Length: 3.0"), FRAMING, id="H11 fraction"),
    pytest.param(post(b"Content-Length:"), FRAMING, id="H12 empty"),
    pytest.param(post(b"Content-Length: 3_0"), FRAMING, id="underscore in digits"),
    pytest.param(post(b"Content-Length: \xb3"), FRAMING, id="superscript three"),
    pytest.param(post(b"Content-Length: 3", b"Content_Length: 0"), NAME, id="H14 underscore twin of CL"),
    pytest.param(post(b"Content-Length: 3", b"Content.Length: 0"), NAME, id="dotted twin of CL"),
    pytest.param(post(b"Content-Length: 3", CHUNKED), FRAMING, id="H17 CL and TE"),
    pytest.param(post(CHUNKED, b"Content-Length: 3"), FRAMING, id="H18 TE and CL"),
    pytest.param(post(CHUNKED, CHUNKED), DUPLICATE, id="TE twice"),
    pytest.param(post(b"Transfer-Encoding: chunked, chunked"), FRAMING, id="H20"),
    pytest.param(post(b"Transfer-Encoding: identity"), FRAMING, id="H21"),
    pytest.param(post(b"Transfer-Encoding: identity, chunked"), FRAMING, id="H22"),
    pytest.param(post(b"Transfer-Encoding: gzip, chunked"), FRAMING, id="H24"),
    pytest.param(post(b"Transfer-Encoding: xchunked"), FRAMING, id="H25"),
    pytest.param(post(b'Transfer-Encoding: "chunked"'), FRAMING, id="H27 quoted"),
    pytest.param(post(b"Transfer-Encoding:\x0bchunked"), Reason.HTTP_FIELD, id="H28 vertical tab"),
    pytest.param(post(b"Transfer-Encoding: \xffchunked"), FRAMING, id="H30 high octet"),
    pytest.param(post(b"Transfer-Encoding:", b" chunked"), Reason.HTTP_FIELD, id="H31 obs-fold"),
    pytest.param(post(b"Transfer-Encoding : chunked"), NAME, id="H32 space before the colon"),
    pytest.param(post(b"Transfer_Encoding: chunked", b"Content-Length: 3"), NAME, id="H34 underscore twin"),
    pytest.param(get(CHUNKED, line=b"POST /u HTTP/1.0"), FRAMING, id="H37 TE in HTTP/1.0"),
    pytest.param(post(b"Transfer-Encoding: ,chunked"), FRAMING, id="H38 empty list member"),
    pytest.param(post(b"Transfer-Encoding:"), FRAMING, id="empty TE"),
    pytest.param(get(line=b"TRACE /u HTTP/1.1"), METHOD, id="H88 TRACE"),
    pytest.param(get(line=b"CONNECT app.test:443 HTTP/1.1"), METHOD, id="CONNECT"),
    pytest.param(get(line=b"get /u HTTP/1.1"), METHOD, id="a method in lower case"),
    pytest.param(get(line=b"PROPFIND /u HTTP/1.1"), METHOD, id="a method no route has"),
    pytest.param(b"GET /u HTTP/1.1\r\n\r\n", HOST, id="H90 no Host"),
    pytest.param(b"GET /u HTTP/1.0\r\n\r\n", HOST, id="no Host in HTTP/1.0"),
    pytest.param(get(b"Host: evil.test"), DUPLICATE, id="H91 two Hosts"),
    pytest.param(get(b"host: app.test"), DUPLICATE, id="equal Hosts"),
    pytest.param(get(host=b"app.test, evil.test"), HOST, id="H92 list"),
    pytest.param(get(host=b"user@app.test"), HOST, id="H94 userinfo"),
    pytest.param(get(host=b"app.test/evil"), HOST, id="H95 path"),
    pytest.param(get(host=b""), HOST, id="H97 empty"),
    pytest.param(get(host=b"app.test\xff"), HOST, id="H107 8-bit"),
    pytest.param(get(host=b"app.test:443:80"), HOST, id="H110 two ports"),
    pytest.param(get(host=b"app.test:"), HOST, id="empty port"),
    pytest.param(get(host=b"app.test:0"), HOST, id="port 0"),
    pytest.param(get(host=b"app.test:0443"), HOST, id="port with a zero in front"),
    pytest.param(get(host=b"app.test:65536"), HOST, id="port too large"),
    pytest.param(get(host=b"app.test:+80"), HOST, id="port with a sign"),
    pytest.param(get(host=b"app.test.."), HOST, id="two dots at the end"),
    pytest.param(get(host=b".app.test"), HOST, id="a dot in front"),
    pytest.param(get(host=b"app..test"), HOST, id="an empty label"),
    pytest.param(get(host=b"-app.test"), HOST, id="a hyphen in front"),
    pytest.param(get(host=b"app_.test"), HOST, id="an underscore"),
    pytest.param(get(host=b"app%2etest"), HOST, id="percent-encoded"),
    pytest.param(get(host=b"app test"), HOST, id="a space"),
    pytest.param(get(host=b"\xc3\xa4pp.test"), HOST, id="a U-label"),
    pytest.param(get(host=b"a" * 64 + b".test"), HOST, id="a label of 64"),
    pytest.param(get(host=b".".join([b"a" * 50] * 5)), HOST, id="a name of 254"),
    pytest.param(get(host=b"a" * 300), HOST, id="far too long"),
    pytest.param(get(host=b"127.1"), HOST, id="a short address"),
    pytest.param(get(host=b"0x7f.1"), HOST, id="a hexadecimal address"),
    pytest.param(get(host=b"app.0x7f"), HOST, id="a name that ends in a number"),
    pytest.param(get(host=b"2130706433"), HOST, id="an address as one number"),
    pytest.param(get(host=b"127.0.0.01"), HOST, id="an octal octet"),
    pytest.param(get(host=b"[::1"), HOST, id="half a literal"),
    pytest.param(get(host=b"[::1%25eth0]"), HOST, id="a zone"),
    pytest.param(get(host=b"[::g]"), HOST, id="no address"),
    pytest.param(get(host=b"[1.2.3.4]"), HOST, id="IPv4 in brackets"),
    pytest.param(get(host=b"::1"), HOST, id="IPv6 without brackets"),
    pytest.param(get(host=b"[::1]."), HOST, id="a dot behind a literal"),
    pytest.param(
        get(line=b"GET https://evil.test/u HTTP/1.1"), TARGET, id="H100 absolute-form of another host"
    ),
    pytest.param(get(line=b"GET http://app.test/u HTTP/1.1"), TARGET, id="absolute-form of another scheme"),
    pytest.param(
        get(line=b"GET https://app.test:8443/u HTTP/1.1"), TARGET, id="absolute-form of another port"
    ),
    pytest.param(get(line=b"GET https://app.test@evil.test/u HTTP/1.1"), TARGET, id="H101 userinfo"),
    pytest.param(get(line=b"GET https://u@app.test/u HTTP/1.1"), TARGET, id="userinfo and the right host"),
    pytest.param(get(line=b"GET ftp://app.test/u HTTP/1.1"), TARGET, id="H102 scheme"),
    pytest.param(get(line=b"GET https:app.test/u HTTP/1.1"), TARGET, id="no authority"),
    pytest.param(get(line=b"GET https:///u HTTP/1.1"), TARGET, id="empty authority"),
    pytest.param(get(line=b"GET https://app.test\\u HTTP/1.1"), TARGET, id="a backslash for a slash"),
    pytest.param(get(line=b"OPTIONS * HTTP/1.1"), TARGET, id="H104 asterisk-form"),
    pytest.param(get(line=b"OPTIONS https://app.test HTTP/1.1"), TARGET, id="asterisk-form in disguise"),
    pytest.param(get(line=b"GET u HTTP/1.1"), TARGET, id="H105 no slash"),
    pytest.param(get(line=b"GET app.test:443 HTTP/1.1"), TARGET, id="authority-form"),
    pytest.param(get(line=b"GET ?x HTTP/1.1"), TARGET, id="query alone"),
    pytest.param(get(line=b"GET /u#f HTTP/1.1"), TARGET, id="fragment"),
    pytest.param(get(line=b"GET /u?x#f HTTP/1.1"), TARGET, id="fragment behind a query"),
    pytest.param(get(line=b"GET //evil.test/x HTTP/1.1"), PATH, id="a network path"),
    pytest.param(get(line=b"GET /public/../admin HTTP/1.1"), PATH, id="P01"),
    pytest.param(get(line=b"GET /.ztproxy/%2e%2e/admin HTTP/1.1"), PATH, id="P45"),
    pytest.param(get(line=b"GET https://app.test/a/../b HTTP/1.1"), PATH, id="dot segments in absolute-form"),
    pytest.param(
        get(b"Connection: Content-Length", b"Content-Length: 0"), CONNECTION, id="H118 names framing"
    ),
    pytest.param(get(b"Connection: close, TRANSFER-encoding"), CONNECTION, id="names the other framing"),
    pytest.param(get(b"Connection: x", b"Connection: host"), CONNECTION, id="names Host in a second field"),
    pytest.param(get(b'Connection: "close"'), CONNECTION, id="quoted option"),
    pytest.param(get(b"Connection: a b"), CONNECTION, id="two words"),
    pytest.param(get(b"Connection: " + b"x, " * 30 + b"host"), CONNECTION, id="names Host in a long list"),
    pytest.param(get(b"Expect: 200-ok"), Reason.HTTP_EXPECT, id="H125"),
    pytest.param(get(b"Expect:"), Reason.HTTP_EXPECT, id="empty expectation"),
    pytest.param(get(b"Expect: 100-continue", b"Expect: 100-continue"), DUPLICATE, id="two expectations"),
    pytest.param(get(b"Content-Type: a/b", b"content-type: c/d"), DUPLICATE, id="two content types"),
    pytest.param(get(b"Authorization: x", b"Authorization: y"), DUPLICATE, id="A05 two authorizations"),
    pytest.param(get(b"Origin: null", b"Origin: null"), DUPLICATE, id="W05 two origins"),
    pytest.param(get(b"X-Ztproxy_User: admin"), NAME, id="I04"),
    pytest.param(get(b"X_Ztproxy-User: admin"), NAME, id="I04 the other"),
    pytest.param(get(b"X.Ztproxy.User: admin"), NAME, id="I05 dots"),
    pytest.param(get(b"X!Ztproxy!User: admin"), NAME, id="I05 exclamation marks"),
    pytest.param(get(b"X~Ztproxy~User: admin"), NAME, id="I05 tildes"),
    pytest.param(get(b"X'Ztproxy'User: admin"), NAME, id="I05 quotes"),
    pytest.param(get(b"X_Forwarded_Proto: https"), NAME, id="a forwarding field with underscores"),
    pytest.param(get(b"X_Anything: 1"), NAME, id="any underscore"),
    pytest.param(get(*WEBSOCKET, b"Content-Length: 3"), UPGRADE, id="H124 upgrade with a body"),
    pytest.param(get(*WEBSOCKET, b"Content-Length: 0"), UPGRADE, id="upgrade with an empty body"),
    pytest.param(get(*WEBSOCKET, CHUNKED), UPGRADE, id="W11 upgrade with chunks"),
    pytest.param(post(*WEBSOCKET), UPGRADE, id="W11 on POST"),
    pytest.param(get(*WEBSOCKET, line=b"GET /u HTTP/1.0"), UPGRADE, id="W11 in HTTP/1.0"),
    pytest.param(get(*WEBSOCKET[:2], WEBSOCKET[3]), UPGRADE, id="W12 no key"),
    pytest.param(get(*WEBSOCKET, KEY), DUPLICATE, id="W12 two keys"),
    pytest.param(
        get(*WEBSOCKET[:2], WEBSOCKET[3], b"Sec-WebSocket-Key: YQ=="), UPGRADE, id="W12 a short key"
    ),
    pytest.param(
        get(*WEBSOCKET[:2], WEBSOCKET[3], b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="),
        UPGRADE,
        id="W12 stray bits in the key",
    ),
    pytest.param(get(*WEBSOCKET[:3]), UPGRADE, id="no version"),
    pytest.param(get(*WEBSOCKET[:3], b"Sec-WebSocket-Version: 13, 8"), UPGRADE, id="a list of versions"),
    pytest.param(get(*WEBSOCKET, WEBSOCKET[3]), DUPLICATE, id="two versions"),
    pytest.param(get(*WEBSOCKET, WEBSOCKET[1]), DUPLICATE, id="two upgrades"),
    pytest.param(get(WEBSOCKET[0], b"Upgrade: websocket, h2c"), UPGRADE, id="two protocols in one list"),
    pytest.param(get(WEBSOCKET[0], b"Upgrade:"), UPGRADE, id="an empty upgrade"),
]


@pytest.mark.parametrize(("wire", "reason"), REFUSED)
def test_refused(wire: bytes, reason: Reason) -> None:
    assert read(wire) is reason


# ---- Host and target -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param(b"app.test", ("app.test", 443), id="plain"),
        pytest.param(b"APP.TEST.", ("app.test", 443), id="H98 upper case and a dot"),
        pytest.param(b"App.Test.:8443", ("app.test", 8443), id="a dot and a port"),
        pytest.param(b"app.test:443", ("app.test", 443), id="the default port"),
        pytest.param(b"app.test:65535", ("app.test", 65535), id="the last port"),
        pytest.param(b"xn--pp-via.test", ("xn--pp-via.test", 443), id="an A-label"),
        pytest.param(b"localhost", ("localhost", 443), id="one label"),
        pytest.param(b"127.0.0.1:80", ("127.0.0.1", 80), id="IPv4"),
        pytest.param(b"[::1]", ("[::1]", 443), id="IPv6"),
        pytest.param(b"[2001:DB8:0:0::1]:8443", ("[2001:db8::1]", 8443), id="IPv6 in another spelling"),
        pytest.param(b"[::ffff:1.2.3.4]", ("[::ffff:102:304]", 443), id="IPv4 in IPv6"),
        pytest.param(b"a" * 63 + b".test", ("a" * 63 + ".test", 443), id="the longest label"),
        pytest.param(b"1.example", ("1.example", 443), id="a number in front"),
    ],
)
def test_host(host: bytes, expected: tuple[str, int]) -> None:
    request = accepted(get(host=host))
    assert (request.host, request.port) == expected
    assert not any(name.lower() == b"host" for name, _ in request.fields)


@pytest.mark.parametrize(
    ("line", "path", "query"),
    [
        pytest.param(b"GET / HTTP/1.1", "/", "", id="root"),
        pytest.param(b"GET /? HTTP/1.1", "/", "?", id="an empty query is kept"),
        pytest.param(b"GET https://app.test/u?a HTTP/1.1", "/u", "?a", id="absolute-form"),
        pytest.param(
            b"GET HTTPS://APP.test.:443/u HTTP/1.1", "/u", "", id="absolute-form in another spelling"
        ),
        pytest.param(b"GET https://app.test HTTP/1.1", "/", "", id="absolute-form without a path"),
        pytest.param(b"GET https://app.test?a HTTP/1.1", "/", "?a", id="absolute-form with a query alone"),
        pytest.param(b"OPTIONS https://app.test/ HTTP/1.1", "/", "", id="OPTIONS in absolute-form"),
        pytest.param(b"GET /?next=/../admin HTTP/1.1", "/", "?next=/../admin", id="P37 the query is opaque"),
        pytest.param(b"GET /private?x=/public/health HTTP/1.1", "/private", "?x=/public/health", id="P38"),
        pytest.param(b"GET /x?a=%0d%0aSet-Cookie:x HTTP/1.1", "/x", "?a=%0d%0aSet-Cookie:x", id="P42"),
        pytest.param(b"GET /x?q={a}|b\\c[1]^` HTTP/1.1", "/x", "?q={a}|b\\c[1]^`", id="P51"),
        pytest.param(b"GET /a?b?c HTTP/1.1", "/a", "?b?c", id="two question marks"),
        pytest.param(b"GET /public%3fx HTTP/1.1", "/public%3Fx", "", id="P40 not split into a query"),
    ],
)
def test_target(line: bytes, path: str, query: str) -> None:
    request = accepted(get(line=line))
    assert (request.path.text, request.query) == (path, query)


# ---- framing, versions, expectations ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "framing", "length"),
    [
        pytest.param([], Framing.NONE, 0, id="none"),
        pytest.param([b"Content-Length: 0"], Framing.LENGTH, 0, id="an empty body"),
        pytest.param([b"Content-Length: 000003"], Framing.LENGTH, 3, id="H15 leading zeros"),
        pytest.param([b"Content-Length: " + b"9" * 18], Framing.LENGTH, 10**18 - 1, id="18 digits"),
        pytest.param([b"Transfer-Encoding: CHUNKED"], Framing.CHUNKED, 0, id="H35 in capitals"),
    ],
)
def test_framing(lines: list[bytes], framing: Framing, length: int) -> None:
    request = accepted(post(*lines))
    assert (request.framing, request.length, request.fields) == (framing, length, ())


@pytest.mark.parametrize(
    ("wire", "keep_alive", "http_1_0"),
    [
        pytest.param(get(), True, False, id="1.1"),
        pytest.param(get(b"Connection: Close"), False, False, id="close"),
        pytest.param(get(b"Connection: x, ,close"), False, False, id="close in a list with an empty member"),
        pytest.param(get(b"Connection: keep-alive", b"Connection: close"), False, False, id="close later"),
        pytest.param(get(line=b"GET / HTTP/1.0"), False, True, id="1.0"),
        pytest.param(
            get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), False, True, id="1.0 keep-alive"
        ),
    ],
)
def test_keep_alive(wire: bytes, keep_alive: bool, http_1_0: bool) -> None:
    request = accepted(wire)
    assert (request.keep_alive, request.http_1_0) == (keep_alive, http_1_0)


@pytest.mark.parametrize(
    ("wire", "expects"),
    [
        pytest.param(post(b"Expect: 100-continue", CHUNKED), True, id="a body"),
        pytest.param(post(b"Expect: 100-continue"), False, id="no body"),
        pytest.param(
            get(b"Expect: 100-continue", b"Content-Length: 3", line=b"POST / HTTP/1.0"),
            False,
            id="ignored in 1.0",
        ),
    ],
)
def test_expect(wire: bytes, expects: bool) -> None:
    request = accepted(wire)
    assert request.expects_continue is expects
    assert request.fields == ()


def test_methods_of_the_routes_are_accepted_but_never_a_tunnel() -> None:
    methods = frozenset({"PROPFIND", "CONNECT", "TRACE", "TRACK"})
    assert accepted(get(line=b"PROPFIND / HTTP/1.1"), methods=methods).method == "PROPFIND"
    for method in (b"CONNECT", b"TRACE", b"TRACK", b"GET"):
        assert read(get(line=method + b" / HTTP/1.1"), methods=methods) is METHOD


# ---- fields ----------------------------------------------------------------------------------------------

DROPPED = [
    pytest.param(
        [b"X-Ztproxy-User: admin", b"x-ztproxy-user: admin", b"X-ZTPROXY-USER: a"], id="I01 I02 ours"
    ),
    pytest.param([b"X-Ztproxy-User:", b"X-Ztproxy-User:"], id="I07 I08 empty and twice"),
    pytest.param([b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-Host: evil.test"], id="I10 I14 forwarding"),
    pytest.param([b"X-Forwarded-Proto: http", b"X-Forwarded-Proto: https,http"], id="I15"),
    pytest.param([b"X-HTTP-Method-Override: DELETE"], id="I17 method override"),
    pytest.param([b"Client-Cert: :MIIB:", b"X-Forwarded-Client-Cert: Hash=1"], id="I20 certificates"),
    pytest.param([b"X-Ztproxy-Assertion: a.b.c"], id="I22 an assertion"),
    pytest.param([b"X-Request-Id: 1", b"Via: 1.1 x", b"Forwarded: for=x"], id="what we say ourselves"),
    pytest.param([b"Proxy-Connection: keep-alive", b"Keep-Alive: 300"], id="H121"),
    pytest.param([b"Proxy: http://evil.test"], id="H122 httpoxy"),
    pytest.param([b"TE: trailers", b"Trailer: X", b"Proxy-Authorization: Basic x"], id="hop-by-hop"),
    pytest.param([b"Upgrade: websocket"], id="an upgrade the connection does not ask for"),
    pytest.param([b"Connection: upgrade"], id="a connection that asks for no protocol"),
    pytest.param([b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"], id="h2c"),
    pytest.param([b"Connection: Upgrade", b"Upgrade: H2C", b"Content-Length: 3"], id="h2c with a body"),
    pytest.param([b"Connection: X-A, x-b", b"x-A: 1", b"X-B: 2"], id="what the connection list names"),
    pytest.param([b"Connection: X-Forwarded-For, X-Forwarded-Proto"], id="H117"),
    pytest.param([b"Connection: Cookie, Authorization", b"Cookie: a=b"], id="H120"),
]


@pytest.mark.parametrize("lines", DROPPED)
def test_dropped(lines: list[bytes]) -> None:
    request = accepted(get(b"X-First: 1", *lines, b"X-Last: 2"))
    assert request.fields == ((b"X-First", b"1"), (b"X-Last", b"2"))
    assert (request.upgrade, request.peer) == (None, PEER)


def test_kept_in_order_and_spelling() -> None:
    lines = [b"x-b: 1", b"X-A: caf\xe9", b"X-a: 3", b"X.Y: 4", b"Accept:", b"User-Agent: kube-probe/1.0"]
    assert [b"%b: %b" % field for field in accepted(get(*lines)).fields] == [
        line if line[-1:] != b":" else line + b" " for line in lines
    ]


def test_underscores_can_be_dropped_instead() -> None:
    wire = get(b"X_A: 1", b"X_Ztproxy_User: admin", b"Content_Length: 3", b"X-B: 2")
    assert accepted(wire, underscores_dropped=True).fields == ((b"X-B", b"2"),)


def test_a_managed_name_of_a_route_has_one_spelling() -> None:
    assert accepted(get(b"X-Team: a"), managed=frozenset({"x-team"})).fields == ((b"X-Team", b"a"),)
    assert read(get(b"X.Team: a"), managed=frozenset({"x-team"})) is NAME


def test_credentials_are_found_before_the_connection_list_hides_them() -> None:
    request = accepted(
        get(
            b"Connection: cookie, authorization", b"Cookie: a=b; __Host-ztproxy=v", b"Authorization: Bearer t"
        )
    )
    assert (request.session, request.authorization, request.fields) == ("v", b"Bearer t", ())


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        pytest.param([TRACE], True, id="valid"),
        pytest.param([b"01" + TRACE[2:] + b"-more"], True, id="a later version with more"),
        pytest.param([TRACE + b"-more"], False, id="more in version 00"),
        pytest.param([b"ff" + TRACE[2:]], False, id="version ff"),
        pytest.param([TRACE.upper()], False, id="upper case"),
        pytest.param([b"00-" + b"0" * 32 + TRACE[35:]], False, id="a trace id of zeros"),
        pytest.param([TRACE[:36] + b"0" * 16 + b"-01"], False, id="a parent id of zeros"),
        pytest.param([b""], False, id="empty"),
        pytest.param([TRACE, TRACE], False, id="twice"),
    ],
)
def test_trace_context(values: list[bytes], kept: bool) -> None:
    request = accepted(get(b"Tracestate: a=b", *[b"Traceparent: " + value for value in values], b"X: y"))
    assert [name for name, _ in request.fields] == ([b"Tracestate", b"Traceparent", b"X"] if kept else [b"X"])


# ---- cookies ---------------------------------------------------------------------------------------------

OURS = [
    pytest.param([b"__Host-ztproxy=v"], "v", [], id="alone"),
    pytest.param([b"a=b; __Host-ztproxy=v; c=d"], "v", [b"a=b; c=d"], id="S15 in the middle"),
    pytest.param([b"__Host-ztproxy=v; c=d"], "v", [b"c=d"], id="in front"),
    pytest.param([b"a=b; __Host-ztproxy=v"], "v", [b"a=b"], id="at the end"),
    pytest.param([b"a=b;__Host-ztproxy=v;c=d"], "v", [b"a=b;c=d"], id="without spaces"),
    pytest.param([b"A=1", b"__Host-ztproxy=v", b"B=2"], "v", [b"A=1", b"B=2"], id="in a field of its own"),
    pytest.param([b"__Host-ztproxy=a=b"], "a=b", [], id="an equals sign in the value"),
    pytest.param([b"__Host-ztproxy="], "", [], id="an empty value"),
    pytest.param([b"__Host-ztproxy=\xff"], "\xff", [], id="an 8-bit value"),
    pytest.param([b'a=b; c="d;e";  f'], None, [b'a=b; c="d;e";  f'], id="nothing of ours is left untouched"),
    pytest.param([b"a=b ; __Host-ztproxy=v"], "v", [b"a=b"], id="no space is left where ours was"),
    pytest.param([b"__Host-ztp_tx_x=1; a=b"], None, [b"a=b"], id="another cookie of ours"),
    pytest.param([b"__SECURE-ZTPROXY=1"], None, [], id="another in capitals"),
    pytest.param([b"x__Host-ztproxy=1"], None, [b"x__Host-ztproxy=1"], id="a name that only ends like ours"),
    pytest.param([b"a=__Host-ztproxy"], None, [b"a=__Host-ztproxy"], id="a value like our name"),
    pytest.param([b"__host-ztproxy=1"], None, [], id="S07 lower case"),
    pytest.param([b"__Host-ztproxy =1"], None, [], id="S07 a space behind"),
    pytest.param([b"__Host-ztproxy[]=1"], None, [], id="S07 PHP array"),
    pytest.param([b"a=b;  __Host-ztproxy=1"], None, [b"a=b"], id="S07 a space in front"),
    pytest.param([b"a=b;\t__Host-ztproxy=1"], None, [b"a=b"], id="a tab in front"),
    pytest.param([b'"__Host-ztproxy"=1'], None, [], id="S07 quoted"),
    pytest.param([b"__Host-ztproxy%20=1"], None, [], id="S07 escaped space"),
    pytest.param(
        ["__Host\u2011ztproxy=1".encode()], None, ["__Host\u2011ztproxy=1".encode()], id="S07 another hyphen"
    ),
    pytest.param([b"=__Host-ztproxy=evil"], None, [], id="S08 nameless"),
    pytest.param([b"__Host-ztproxy"], None, [], id="a name without a value"),
    pytest.param([b"__host-ztproxy=evil; __Host-ztproxy=v"], "v", [], id="a look-alike before ours"),
    pytest.param(
        [b"; ".join([b"j%d=x" % i for i in range(700)]) + b"; __Host-ztproxy=v"], "v", None, id="S10 junk"
    ),
]


@pytest.mark.parametrize(("values", "session", "left"), OURS)
def test_cookies(values: list[bytes], session: str | None, left: list[bytes] | None) -> None:
    request = accepted(get(*[b"Cookie: " + value for value in values]))
    assert request.session == session
    travelling = [value for name, value in request.fields if name == b"Cookie"]
    assert left is None or travelling == left
    assert not any(COOKIE in value and not value.startswith((b"x", b"a=")) for value in travelling)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"__Host-ztproxy=a; __Host-ztproxy=b"], id="S05 two in one field"),
        pytest.param([b"__Host-ztproxy=b; x=y; __Host-ztproxy=a"], id="S05 two apart"),
        pytest.param([b"__Host-ztproxy=a", b"__Host-ztproxy=a"], id="two fields"),
        pytest.param([b"__Host-ztproxy=;__Host-ztproxy=a"], id="one of them empty"),
    ],
)
def test_two_sessions_are_refused(values: list[bytes]) -> None:
    assert read(get(*[b"Cookie: " + value for value in values])) is Reason.HTTP_COOKIE


def test_a_plain_cookie_name_is_ours_when_configured() -> None:
    request = accepted(get(b"Cookie: ztdev=v; ZTDEV=w; a=b"), cookie="ztdev")
    assert (request.session, request.fields) == ("v", ((b"Cookie", b"a=b"),))


# ---- peers -----------------------------------------------------------------------------------------------


def forwarded(*chains: bytes) -> bytes:
    return get(*[b"X-Forwarded-For: " + chain for chain in chains])


WALKS = [
    pytest.param([], "10.0.0.5", "", id="nothing said"),
    pytest.param([b"198.51.100.7"], "198.51.100.7", "", id="the client"),
    pytest.param([b"1.1.1.1, 198.51.100.7"], "198.51.100.7", "1.1.1.1", id="I11 what the client invented"),
    pytest.param([b"1.1.1.1, 198.51.100.7 ,10.1.1.1"], "198.51.100.7", "1.1.1.1", id="two trusted hops"),
    pytest.param([b"1.1.1.1", b"198.51.100.7, 10.1.1.1"], "198.51.100.7", "1.1.1.1", id="two fields"),
    pytest.param([b"10.2.2.2, 10.1.1.1"], "10.2.2.2", "", id="all trusted"),
    pytest.param([b"2001:DB8::0:1, fd00::1"], "2001:db8::1", "", id="IPv6"),
    pytest.param([b"::ffff:198.51.100.7"], "198.51.100.7", "", id="IPv4 in IPv6 clothes"),
    pytest.param(
        [b'1.2.3.4, "x", ::1%eth0, 999.1.1.1, unknown'],
        "10.0.0.5",
        '1.2.3.4, "x", ::1%eth0, 999.1.1.1, unknown',
        id="I12 an invalid element ends the walk",
    ),
    pytest.param([b"198.51.100.7, fd00::1%eth0"], "10.0.0.5", "198.51.100.7, fd00::1%eth0", id="a zone"),
    pytest.param([b"198.51.100.7:443"], "10.0.0.5", "198.51.100.7:443", id="a port"),
    pytest.param([b""], "10.0.0.5", "", id="empty"),
    pytest.param([b"\xff"], "10.0.0.5", "\xff", id="8-bit"),
]


@pytest.mark.parametrize(("chains", "address", "chain"), WALKS)
def test_a_trusted_proxy_is_believed(chains: list[bytes], address: str, chain: str) -> None:
    request = accepted(forwarded(*chains), PROXY, **TRUSTING)
    assert request.peer == Peer(address, True, forwarded_for=chain)
    assert request.fields == ()


@pytest.mark.parametrize(
    "peer", [pytest.param("203.0.113.9", id="another address"), pytest.param("unix:", id="no address")]
)
def test_others_are_not_believed(peer: str) -> None:
    wire = get(b"X-Forwarded-For: 198.51.100.7", b"X-Forwarded-Proto: http")
    request = accepted(wire, Peer(peer, True), **TRUSTING)
    assert (request.peer, request.scheme) == (Peer(peer, True), "https")


def test_a_trusted_peer_in_ipv6_clothes_is_trusted() -> None:
    request = accepted(forwarded(b"198.51.100.7"), Peer("::ffff:10.0.0.5", True), **TRUSTING)
    assert request.peer.address == "198.51.100.7"


@pytest.mark.parametrize(
    ("secure", "protocols", "scheme"),
    [
        pytest.param(False, [b"HTTPS"], "https", id="TLS ended before us"),
        pytest.param(True, [b"http"], "http", id="the client's hop was clear"),
        pytest.param(False, [], "http", id="nothing said"),
        pytest.param(True, [b"https,http"], "https", id="I15 a list says nothing"),
        pytest.param(False, [b"https", b"https"], "http", id="said twice"),
        pytest.param(False, [b"wss"], "http", id="another word"),
    ],
)
def test_the_scheme_of_a_trusted_proxy(secure: bool, protocols: list[bytes], scheme: str) -> None:
    wire = get(*[b"X-Forwarded-Proto: " + value for value in protocols])
    request = accepted(wire, PROXY._replace(secure=secure), secure=secure, **TRUSTING)
    assert (request.scheme, request.peer.secure, request.port) == (
        scheme,
        scheme == "https",
        443 if scheme == "https" else 80,
    )


def test_the_listener_decides_what_is_secure() -> None:
    clear = Peer("203.0.113.9", False)
    assert accepted(get(), clear, secure=False).scheme == "http"
    request = accepted(get(), clear, secure=True)
    assert (request.scheme, request.peer) == ("https", PEER)
    assert accepted(get(), PEER, secure=False).scheme == "https"


# ---- upgrades --------------------------------------------------------------------------------------------


def test_a_websocket_keeps_its_fields_and_loses_the_hop_by_hop_ones() -> None:
    request = accepted(get(*WEBSOCKET, b"Sec-WebSocket-Protocol: a, b", b"Origin: https://app.test"))
    assert (request.upgrade, request.origin) == ("websocket", "https://app.test")
    assert [name for name, _ in request.fields] == [
        b"Sec-WebSocket-Key",
        b"Sec-WebSocket-Version",
        b"Sec-WebSocket-Protocol",
        b"Origin",
    ]


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        pytest.param(
            [b"Connection: keep-alive, upgrade", b"Upgrade: WebSocket", *WEBSOCKET[2:]],
            "websocket",
            id="case",
        ),
        pytest.param([*WEBSOCKET[:3], b"Sec-WebSocket-Version: 1337"], "websocket", id="W07 another version"),
        pytest.param([b"Connection: upgrade", b"Upgrade: SPDY/3.1"], "spdy/3.1", id="another protocol"),
    ],
)
def test_upgrades(lines: list[bytes], upgrade: str) -> None:
    assert accepted(get(*lines)).upgrade == upgrade


# ---- properties ------------------------------------------------------------------------------------------

NAMES = [
    b"X-Ztproxy-User",
    b"Remote-User",
    b"Content-Length",
    b"Host",
    b"X-Forwarded-Proto",
    b"Cookie",
    b"Accept",
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.text("-_.!~'*+|^`$%&# aA", min_size=1, max_size=3), st.booleans())
def test_no_spelling_of_a_managed_name_travels_on(name: bytes, mark: str, upper: bool) -> None:
    """However the hyphens are written, an app that folds names never sees a managed one from a client."""
    spelt = (name.upper() if upper else name).replace(b"-", mark.encode())
    request = read(b"GET / HTTP/1.1\r\n" + spelt + b": 0\r\n" + get()[len(b"GET /u HTTP/1.1\r\n") :])
    if isinstance(request, Request):
        for kept, _ in request.fields:
            assert fold(kept) not in {b"x-ztproxy-user", b"remote-user", b"content-length", b"host"}
            assert fold(kept) != b"x-forwarded-proto"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"Connection", b"Upgrade", b"Cookie", b"X-Forwarded-For", b"Expect", b"X-A", b"Host"]
            ),
            st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=12),
        ),
        max_size=6,
    ),
    st.binary(min_size=1, max_size=12),
)
def test_reading_never_fails(fields: list[tuple[bytes, str]], target: bytes) -> None:
    """Whatever meets the byte grammar is read or refused; nothing raises."""
    graphic = bytes(octet for octet in target if 0x21 <= octet <= 0x7E) or b"/"
    head = RawHead(
        b"GET", graphic, 1, [(name, value.strip(" \t").encode("latin-1")) for name, value in fields]
    )
    normaliser = Normaliser(Reading(**(READING | TRUSTING)))
    assert isinstance(normaliser.read(head, PROXY), Request | Reason)


# ---- certificates that a trusted proxy passes on -----------------------------------------------------------

SHOWN = ClientCertificate(b"shown to us", (b"ca",))
PASSED, PASSED_ON = b"Client-Cert: :MAMBAf8=:", ClientCertificate(b"\x30\x03\x01\x01\xff")
FRONTS: dict[str, Any] = TRUSTING | {"fronts": "client-cert"}
FORWARDED = b"X-Forwarded-For: 203.0.113.9"
DIRECT = PEER._replace(certificate=SHOWN, asked=True)
VOUCHING = PROXY._replace(certificate=SHOWN, asked=True)


@pytest.mark.parametrize(
    ("peer", "lines", "reading", "certificate", "asked"),
    [
        pytest.param(PROXY, (PASSED,), FRONTS, PASSED_ON, True, id="passed on"),
        pytest.param(PROXY, (PASSED, FORWARDED), FRONTS, PASSED_ON, True, id="passed on with an address"),
        pytest.param(PROXY, (FORWARDED,), FRONTS, None, True, id="none shown to the proxy"),
        pytest.param(VOUCHING, (PASSED,), FRONTS, PASSED_ON, True, id="the proxy's own counts for nothing"),
        pytest.param(VOUCHING, (FORWARDED,), FRONTS, None, True, id="nor where its client showed none"),
        pytest.param(VOUCHING, (), FRONTS, None, True, id="nor where it says nothing at all"),
        pytest.param(
            PROXY, (PASSED, b"Connection: Client-Cert"), FRONTS, PASSED_ON, True, id="not to be hidden"
        ),
        pytest.param(PEER, (PASSED,), FRONTS, None, False, id="X18 an untrusted peer"),
        pytest.param(PEER, (b"X-Forwarded-Client-Cert: Cert=x",), FRONTS, None, False, id="X18 XFCC"),
        pytest.param(
            PEER, (b"X-SSL-Client-Verify: SUCCESS",), FRONTS, None, False, id="X18 a word of success"
        ),
        pytest.param(PEER, (b"Client-Cert: malformed",), FRONTS, None, False, id="X18 whatever it says"),
        pytest.param(PEER, (PASSED, FORWARDED), FRONTS, None, False, id="X18 with an address"),
        pytest.param(DIRECT, (PASSED,), FRONTS, SHOWN, True, id="X18 an untrusted peer keeps its own"),
        pytest.param(PROXY, (PASSED,), TRUSTING, None, False, id="a proxy that is not to pass any on"),
        pytest.param(VOUCHING, (PASSED, FORWARDED), TRUSTING, None, False, id="it speaks for somebody else"),
        pytest.param(
            VOUCHING, (b"X-Forwarded-Proto: https",), TRUSTING, None, False, id="for nobody it names"
        ),
        pytest.param(VOUCHING._replace(asked=False), (FORWARDED,), TRUSTING, None, False, id="shown unasked"),
        pytest.param(
            PROXY._replace(asked=True), (FORWARDED,), TRUSTING, None, False, id="asked, and showed none"
        ),
        pytest.param(VOUCHING, (), TRUSTING, SHOWN, True, id="it speaks for itself"),
        pytest.param(DIRECT, (PASSED,), {}, SHOWN, True, id="nobody is trusted"),
    ],
)
def test_whose_certificate_counts(peer, lines, reading, certificate, asked) -> None:
    request = accepted(get(*lines), peer, **reading)
    assert (request.peer.certificate, request.peer.asked) == (certificate, asked)
    assert request.fields == ()  # and nothing of it travels on


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((b"Client-Cert: MAMBAf8=",), id="X20 not a byte sequence"),
        pytest.param((PASSED, PASSED), id="X20 two values"),
        pytest.param((b"Client-Cert-Chain: :MAMBAf8=:",), id="X20 a chain alone"),
    ],
)
def test_a_malformed_certificate_of_a_trusted_proxy(lines) -> None:
    assert read(get(*lines), PROXY, **FRONTS) is Reason.HTTP_CLIENT_CERTIFICATE
    assert accepted(get(*lines), DIRECT, **FRONTS).peer == DIRECT


def test_a_companion_that_says_unverified() -> None:
    peer = accepted(get(b"X-SSL-Client-Cert: " + PEM), PROXY, **(FRONTS | {"fronts": "nginx"})).peer
    assert peer.certificate == PASSED_ON._replace(vouched=False)  # X21


PEM = b"-----BEGIN%20CERTIFICATE-----%0AMAMBAf8=%0A-----END%20CERTIFICATE-----"


def test_what_is_remembered_of_a_block_is_believed_of_nobody_else() -> None:
    """The very same octets, from a trusted proxy and from anyone, in either order."""
    for order in ((PROXY, DIRECT), (DIRECT, PROXY)):
        normaliser = Normaliser(Reading(**(READING | FRONTS)))
        for peer in order * 2:
            request = again(normaliser, b"GET / HTTP/1.1", PASSED, peer=peer)
            assert isinstance(request, Request)
            assert request.peer.certificate == (PASSED_ON if peer is PROXY else SHOWN)


# ---- certificates and names of connections ----------------------------------------------------------------

ASKING: dict[str, Any] = {"asks": CertificateHosts(frozenset({"app.test", "*.corp.test"}))}


@pytest.mark.parametrize(
    ("host", "sni", "asked", "misdirected"),
    [
        pytest.param(b"app.test", "app.test", True, False, id="asked where it is to be asked"),
        pytest.param(
            b"app.test", "app.test", False, True, id="a host that asks, on a connection that did not"
        ),
        pytest.param(b"app.test", "open.test", False, True, id="T33 opened for a host that does not ask"),
        pytest.param(b"app.test", "open.test", True, True, id="T33 even if it was asked"),
        pytest.param(b"open.test", "app.test", True, True, id="T33 opened for a host that asks"),
        pytest.param(b"open.test", "open.test", False, False, id="nobody is asked"),
        pytest.param(b"open.test", "other.test", False, False, id="two names that do not ask"),
        pytest.param(b"a.corp.test", "app.test", True, False, id="two names that ask"),
        pytest.param(b"a.b.corp.test", "a.corp.test", True, True, id="beneath a wildcard's label"),
        pytest.param(b"APP.test.:443", "app.test", True, False, id="X24 another spelling of the host"),
        pytest.param(b"app.test", None, True, False, id="X24 no name, and asked"),
        pytest.param(b"app.test", None, False, True, id="X24 no name is never weaker"),
        pytest.param(b"open.test", None, True, False, id="no name, and nothing to ask"),
        pytest.param(b"127.0.0.1", None, True, False, id="X24 an address"),
    ],
)
def test_a_host_on_a_connection_made_for_another(host, sni, asked, misdirected) -> None:
    peer = Peer("203.0.113.9", True, sni, asked=asked)
    for reading in (ASKING, ASKING | FRONTS):
        answer = read(get(host=host), peer, **reading)
        assert (answer is Reason.HTTP_MISDIRECTED) is misdirected
        assert isinstance(answer, Reason if misdirected else Request)
    assert isinstance(read(get(host=host), peer), Request)  # where nobody asks, names are not compared
    assert isinstance(read(get(host=host), peer._replace(address="10.0.0.5"), **(ASKING | FRONTS)), Request)
    plain = peer._replace(secure=False)
    assert isinstance(read(get(host=host), plain, **(ASKING | {"secure": False})), Request)


# ---- fields that come again ------------------------------------------------------------------------------


def again(normaliser: Normaliser, line: bytes, *lines: bytes, peer: Peer = PEER) -> Request | Reason:
    parse_request(get(*lines, line=line))
    head = parse_request(get(*lines, line=line))
    assert isinstance(head, RawHead)
    return normaliser.read(head, peer)


def test_the_same_fields_serve_another_request_line_and_another_peer() -> None:
    normaliser = Normaliser(Reading(**(READING | TRUSTING)))
    lines = (b"Cookie: __Host-ztproxy=v1.abc; a=b", b"X-Forwarded-For: 1.2.3.4", b"Expect: 100-continue")
    proxied = again(normaliser, b"GET /a HTTP/1.1", *lines, peer=PROXY)
    direct = again(normaliser, b"DELETE /b?c HTTP/1.0", *lines, peer=Peer("203.0.113.77", False))
    assert isinstance(proxied, Request) and isinstance(direct, Request)
    assert (proxied.method, proxied.path.text, proxied.query) == ("GET", "/a", "")
    assert (direct.method, direct.path.text, direct.query) == ("DELETE", "/b", "?c")
    assert (proxied.peer.address, direct.peer.address) == ("1.2.3.4", "203.0.113.77")
    assert (proxied.keep_alive, direct.keep_alive, direct.http_1_0) == (True, False, True)
    assert proxied.session == direct.session == "v1.abc"


@pytest.mark.parametrize(
    ("first", "second", "lines", "reason"),
    [
        pytest.param(b"POST / HTTP/1.1", b"POST / HTTP/1.0", (CHUNKED,), FRAMING, id="chunked from HTTP/1.0"),
        pytest.param(b"GET / HTTP/1.1", b"POST / HTTP/1.1", WEBSOCKET, UPGRADE, id="WebSocket by POST"),
        pytest.param(b"GET / HTTP/1.1", b"GET / HTTP/1.0", WEBSOCKET, UPGRADE, id="WebSocket from HTTP/1.0"),
        pytest.param(b"GET / HTTP/1.1", b"TRACE / HTTP/1.1", (), METHOD, id="TRACE"),
        pytest.param(b"GET / HTTP/1.1", b"GET https://b.test/ HTTP/1.1", (), TARGET, id="another authority"),
        pytest.param(b"GET / HTTP/1.1", b"GET /a/../b HTTP/1.1", (), PATH, id="dot segments"),
    ],
)
def test_fields_that_were_good_once_excuse_nothing(
    first: bytes, second: bytes, lines: tuple[bytes, ...], reason: Reason
) -> None:
    normaliser = Normaliser(Reading(**READING))
    assert isinstance(again(normaliser, first, *lines), Request)
    assert again(normaliser, second, *lines) is reason
    assert isinstance(again(normaliser, first, *lines), Request)


def test_two_listeners_read_the_same_fields_each_in_its_own_way() -> None:
    one, other = Normaliser(Reading(**READING)), Normaliser(Reading(**(READING | {"cookie": "mine"})))
    for _ in range(2):
        read_by_one = again(one, b"GET / HTTP/1.1", b"Cookie: mine=1")
        read_by_other = again(other, b"GET / HTTP/1.1", b"Cookie: mine=1")
        assert isinstance(read_by_one, Request) and isinstance(read_by_other, Request)
        assert (read_by_one.session, read_by_other.session) == (None, "1")


def test_what_is_remembered_of_fields_is_bounded() -> None:
    normaliser = Normaliser(Reading(**READING))
    for number in range(2 * _MOST_BLOCKS + 1):
        request = again(normaliser, b"GET / HTTP/1.1", b"X-Number: %d" % number)
        assert isinstance(request, Request) and request.field(b"x-number") == b"%d" % number
        assert len(normaliser._blocks) <= _MOST_BLOCKS
    assert isinstance(again(normaliser, b"GET / HTTP/1.1", b"Transfer-Encoding: x"), Reason)


def test_cookies_of_ours_beyond_what_we_set_are_taken_out_and_not_looked_at() -> None:
    pairs = [f"__Host-ztp-flow-{number}={number}" for number in range(40)]
    request = accepted(get(b"Cookie: " + "; ".join(pairs).encode()))
    assert request.cookies == tuple((f"__Host-ztp-flow-{n}", str(n)) for n in range(32))
    assert request.field(b"cookie") is None
