"""What a client sends: the head, its path, host and cookies, a chunked body, a return address.

Each target holds our reading against another one: llhttp's and h11's of what we would forward, that of eleven
kinds of servers of the path, a browser's of the return address, and our own when the bytes come in pieces.
"""

from __future__ import annotations

import re
import zlib
from ipaddress import IPv4Address, IPv6Address, ip_network
from urllib.parse import urljoin, urlsplit

import h11
import httptools

from tests.core.test_paths import UPSTREAMS, agrees
from tests.core.words import APP, site
from ztproxy.core.fields import fold, is_reserved
from ztproxy.core.normalise import Normaliser, RawHead, Reading
from ztproxy.core.outbound import outbound_request
from ztproxy.core.paths import canonical_path, is_own
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Framing, Path, Peer, Request
from ztproxy.core.returning import HOME, safe_return
from ztproxy.wire.agreement import SecondOpinion
from ztproxy.wire.bodies import ChunkedBody
from ztproxy.wire.head import find_head, parse_request

COOKIE = "__Host-ztproxy"
FRONT = Peer("10.0.0.1", False)
STRANGER = Peer("203.0.113.9", False)
READING = Reading(
    secure=False,
    cookie=COOKIE,
    managed=frozenset({"X-Team"}),
    trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
)
_NORMALISER = Normaliser(READING)
_ROUTE = site()
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade "
    b"transfer-encoding content-length host http2-settings proxy expect".split()
)


def pieces(data: bytes) -> list[bytes]:
    """`data` cut into pieces of a size that depends on all of it; of one octet each where it is short."""
    size = 1 if len(data) <= 48 else 1 + zlib.crc32(data) % 61
    return [data[at : at + size] for at in range(0, len(data), size)]


def read(raw: RawHead, peer: Peer = FRONT) -> Request | Reason:
    """Its meaning, asked for twice: the second answer is remembered and must not differ."""
    found = _NORMALISER.read(raw, peer)
    assert _NORMALISER.read(raw, peer) == found, "the same head means something else the second time"
    return found


# ── heads ──


def request_head(data: bytes) -> None:
    """Found at the same place however it comes; forwarded as what llhttp and h11 read too."""
    end = find_head(data)
    assert end == _in_pieces(data) or _refused_anyway(data), "where the head ends depends on the reads"
    if isinstance(end, Reason) or not end:
        return
    head = data[:end]
    raw = parse_request(head)
    assert parse_request(head) == raw == parse_request(head), "a remembered head reads otherwise"
    if isinstance(raw, Reason):
        return
    for peer in (FRONT, STRANGER):
        request = read(raw, peer)
        if isinstance(request, Request):
            _check(head, request)


def _in_pieces(data: bytes) -> int | Reason:
    buffer, scanned = b"", 0
    for piece in pieces(data):
        buffer += piece
        found = find_head(buffer, scanned)
        if found:
            return found
        scanned = len(buffer)
    return 0


def _refused_anyway(data: bytes) -> bool:
    """In pieces a hopeless head is refused before its end was seen; whole, when it is parsed."""
    end = find_head(data)
    early = isinstance(_in_pieces(data), Reason)
    return early and (not isinstance(end, int) or isinstance(parse_request(data[:end]), Reason))


def _check(head: bytes, request: Request) -> None:
    has_body = request.framing is Framing.CHUNKED or request.length > 0
    if not SecondOpinion().agrees(head, has_body):
        # The one thing that only the second opinion refuses: an upgrade we would ignore, with a body.
        assert has_body and re.search(rb"(?i)\nupgrade:", head), "llhttp finds another message in it"
        return
    for name, value in request.fields:
        lower, folded = name.lower(), fold(name)
        assert lower not in _HOP_BY_HOP and not is_reserved(folded) and b"_" not in lower, name
        assert folded not in _HOP_BY_HOP and (folded != b"x-team" or lower == b"x-team"), name
        assert not re.search(rb"[\r\n\0]", value) and value.strip(b" \t") == value, "no plain value"
    forwarded = _forwarded(request)
    assert len(forwarded) <= 4 * len(head) + 512
    theirs = _by_llhttp(forwarded)
    assert theirs == _by_h11(forwarded), "llhttp and h11 read what is forwarded differently"
    method, target, fields = theirs
    assert method == request.method.encode() and target == (request.path.text + request.query).encode()
    names = [fold(name) for name, _ in fields]
    for ours in (b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"):
        assert names.count(ours) == 1, ours
    assert (b"content-length" in names) + (b"transfer-encoding" in names) == (
        request.framing is not Framing.NONE
    )


def _forwarded(request: Request) -> bytes:
    out = outbound_request(request, _ROUTE, APP, "0193", b"")
    host = out.host or b"127.0.0.1:8080"
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (out.method, out.target, host, out.block)


class _Heard:
    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.target = b""
        self.body = b""
        self.messages = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_begin(self) -> None:
        self.messages += 1


def _by_llhttp(head: bytes) -> tuple[bytes, bytes, list[Field]]:
    heard = _Heard()
    parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    assert heard.messages == 1
    return parser.get_method(), heard.target, heard.fields


def _by_h11(head: bytes) -> tuple[bytes, bytes, list[Field]]:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    fields = [(name, value.rstrip(b" \t")) for name, value in event.headers]
    return event.method, event.target, fields


# ── hosts ──


def host(data: bytes) -> None:
    """One spelling for each authority, a fixed point, and what a URL parser makes of it too."""
    request = read(RawHead(b"GET", b"/", 1, [(b"Host", data)]))
    absolute = read(RawHead(b"GET", b"http://" + data + b"/", 1, [(b"Host", data)]))
    assert isinstance(absolute, Request) == isinstance(request, Request), "the target names another site"
    if isinstance(request, Reason):
        assert request is absolute is Reason.HTTP_HOST
        return
    assert absolute == request
    name, port = request.host, request.port
    again = read(RawHead(b"GET", b"/", 1, [(b"Host", f"{name}:{port}".encode())]))
    assert isinstance(again, Request) and (again.host, again.port) == (name, port)
    assert 0 < port < 65536 and 0 < len(name) <= 253 and name == name.lower() and not name.endswith(".")
    parts = urlsplit(f"http://{data.decode('ascii')}/x")
    assert parts.username is None and parts.path == "/x" and (parts.port or 80) == port
    bare = name[1:-1] if name.startswith("[") else name
    if name.startswith("["):
        assert str(IPv6Address(bare)) == bare and IPv6Address(parts.hostname or "") == IPv6Address(bare)
    else:
        assert (parts.hostname or "").removesuffix(".") == bare
        if re.search(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\Z", name):
            assert str(IPv4Address(name)) == name, "a browser takes it for another address"
        assert re.fullmatch(r"[a-z0-9.-]+", name)


# ── cookies ──


def cookies(data: bytes) -> None:
    """Each line is one Cookie field: ours are taken out to the last one, the others stay in their order."""
    values = [line.strip(b" \t\r") for line in data.split(b"\n")]
    if len(values) > 100 or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", b"".join(values)):
        return
    fields = [(b"Host", b"app.test"), *((b"Cookie", value) for value in values)]
    request = read(RawHead(b"GET", b"/", 1, fields))
    pairs = [pair.strip(b" \t") for value in values for pair in value.split(b";")]
    sessions = [pair for pair in _exact(values) if pair.startswith(COOKIE.encode() + b"=")]
    if isinstance(request, Reason):
        assert request is Reason.HTTP_COOKIE and len(sessions) > 1
        return
    assert len(sessions) <= 1
    want = sessions[0].partition(b"=")[2].decode("latin-1") if sessions else None
    assert request.session == want, "another session than the one cookie of that name"
    kept = [value for name, value in request.fields if name == b"Cookie"]
    left = [pair.strip(b" \t") for value in kept for pair in value.split(b";")]
    theirs = [pair for pair in pairs if not _looks_ours(pair)]
    assert [one for one in left if one] == [one for one in theirs if one]


def _exact(values: list[bytes]) -> list[bytes]:
    """The pairs as RFC 6265 4.2.1 parts them: a second space would belong to the name."""
    return [
        pair.removeprefix(b" ") if number else pair
        for value in values
        for number, pair in enumerate(value.split(b";"))
    ]


def _looks_ours(pair: bytes) -> bool:
    return pair.lstrip(b' \t="').lower().startswith((b"__host-ztp", b"__secure-ztp"))


# ── paths ──


def path(data: bytes) -> None:
    """A fixed point that every kind of server decodes to segments the policy saw."""
    found = canonical_path(data)
    if isinstance(found, Reason):
        return
    text = found.text.encode("ascii")
    assert canonical_path(text) == found and len(text) <= 3 * len(data)
    assert 1 <= len(found.readings) <= 24 and re.fullmatch(r"/[!$-;=@-Z_a-z~]*", found.text)
    assert is_own(found) == is_own(_path(text))
    for name, upstream in UPSTREAMS.items():
        assert agrees(found, upstream(found.text)), name


def _path(raw: bytes) -> Path:
    found = canonical_path(raw)
    assert isinstance(found, Path)
    return found


# ── bodies ──


def chunked_body(data: bytes) -> None:
    """Whole or in pieces, the same payload ends at the same octet; and it is llhttp's payload."""
    whole, cut = ChunkedBody(), ChunkedBody()
    payload = whole.feed(data) if data else b""
    found: bytes | None = b""
    at = 0
    for piece in pieces(data):
        at += len(piece)
        got = cut.feed(piece)
        found = None if got is None or found is None else found + got
        if found is None or cut.ended:
            break
    rest = cut.rest + data[at:] if cut.ended else b""
    if payload is None:
        # In pieces a hopeless line may be kept until it ends; it is never accepted.
        assert found is None or (not cut.ended and cut.feed(b"\r\n\r\n") is None)
        return
    assert payload == found, "what is accepted depends on the reads"
    assert (whole.ended, whole.rest) == (cut.ended, rest) and len(payload) <= len(data)
    if whole.ended:
        body = data[: len(data) - len(whole.rest)]
        heard = _Heard()
        parser = httptools.HttpRequestParser(heard)
        try:
            parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        except httptools.HttpParserError:
            return  # stricter than we are about extensions, which never travel on
        assert heard.body == payload, "llhttp finds another payload"


# ── return addresses ──

_SITE = "https://app.test"


def redirect(data: bytes) -> None:
    """Kept as it is or `/`; kept only where a browser stays on this site and we would serve it."""
    value = data.decode("utf-8", "surrogateescape")
    kept = safe_return(value)
    assert kept in (value, HOME) and safe_return(kept) == kept
    assert kept.isascii() and kept.isprintable() and " " not in kept
    # WHATWG URL 4.4: tabs and line ends vanish, `\` is `/`, and `//` begins an authority.
    seen = re.sub(r"[\t\r\n]", "", kept.strip("".join(map(chr, range(33))))).replace("\\", "/")
    assert seen.startswith("/") and not seen.startswith("//") and seen == kept
    for once in (kept, urljoin(f"{_SITE}/.ztproxy/callback", kept)):
        there = urlsplit(urljoin(_SITE, once))
        assert (there.scheme, there.netloc) == ("https", "app.test")
        assert not there.path.startswith("//")
    found = canonical_path(kept.partition("?")[0].encode())
    assert isinstance(found, Path) and not is_own(found)
