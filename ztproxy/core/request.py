"""What a decision may look at about one request, and nothing else.

Knows: the canonical form of an HTTP request. Promises: only `core.normalise` builds a `Request`, so holding
one means every rule of the wire policy was met. Leaves to the caller: bodies and connections.

The types are NamedTuples because one of each is built per request: they are frozen, slotted and, in CPython,
the cheapest immutable record there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple, Self

Field = tuple[bytes, bytes]
"""One header field as received: name in the client's spelling, value without surrounding whitespace."""


# W3C Trace Context 3.2.2: `normalise` let only a valid one through; the trace id is its second part.
_TRACE = re.compile(rb"..-([0-9a-f]{32})-")


class Block(list[Field]):
    """The fields of a head together with the octets they came in, by which their meaning is remembered.

    INVARIANT: only whoever accepted `octets` by the byte grammar makes one, and nobody changes it: it is
    shared by every message with the same octets.
    """

    __slots__ = ("octets",)

    def __init__(self, fields: Iterable[Field], octets: bytes) -> None:
        super().__init__(fields)
        self.octets = octets


class FieldLines(tuple[Field, ...]):
    """Fields, and how they are written: `lines`, each with its CRLF. Worked out once, however often they come
    again."""

    lines: bytes

    def __new__(cls, fields: Iterable[Field]) -> Self:
        self = super().__new__(cls, fields)
        self.lines = lines_of(self)
        return self


def lines_of(fields: Iterable[Field]) -> bytes:
    """The field lines of a head, each with its CRLF."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


class Fields(FieldLines):
    """The fields of a request, and what the logs read of them: `user_agent` and `trace_id`, or None."""

    user_agent: str | None
    trace_id: str | None

    def __new__(cls, fields: Iterable[Field]) -> Self:
        self = super().__new__(cls, fields)
        agent = _first(self, b"user-agent")
        self.user_agent = None if agent is None else agent.decode("latin-1")
        traceparent = _first(self, b"traceparent")
        trace = None if traceparent is None else _TRACE.match(traceparent)
        self.trace_id = None if trace is None else trace[1].decode()
        return self


def _first(fields: Iterable[Field], name: bytes) -> bytes | None:
    size = len(name)
    for key, value in fields:
        if len(key) == size and key.lower() == name:
            return value
    return None


class Ambiguity(Enum):
    """A spelling of a path that two parsers may read differently; refused unless the route tolerates it."""

    ENCODED_SLASH = "encoded_slash"
    EMPTY_SEGMENT = "empty_segments"
    PATH_PARAMETER = "path_params"


class Path(NamedTuple):
    """A canonical path: what is decided on is what is forwarded.

    `text` is ASCII, starts with `/`, every escape it holds is needed and upper-case. `readings` holds the
    decoded segments, once for each way an upstream could read `text`, the literal one first. There is more
    than one only where `ambiguities` is not empty, or where `text` holds an escaped `%`, `?` or `#`, which
    some apps decode again or take for syntax; then policy must allow every one of them. A trailing slash is a
    last empty segment: `/a/` is `("a", "")`, `/` is `("",)`.
    """

    text: str
    readings: tuple[tuple[str, ...], ...]
    ambiguities: frozenset[Ambiguity]


class Framing(Enum):
    """How the body is delimited (RFC 9112 section 6): never both, never anything else."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()


class ClientCertificate(NamedTuple):
    """The certificate a client showed, as it came: nothing in it is believed before it was verified.

    `leaf` and `chain` (what else came, in the order it came) are DER. That the client holds the key was
    proven in the handshake with us, or with the trusted proxy in front. `vouched` is False where that proxy
    says that it could not verify it.
    """

    leaf: bytes
    chain: tuple[bytes, ...] = ()
    vouched: bool = True


class Peer(NamedTuple):
    """Who sent the bytes. Facts of this connection, or of a trusted proxy in front of it; never claims.

    `address` is the client's IP as text: the socket's peer, or, where that is a trusted proxy, the right-most
    untrusted address it reports. `forwarded_for` is what a trusted proxy reported to the left of `address`:
    the chain to append it to, mostly empty. `secure`: the client's hop was TLS. `sni` is lower-case, without
    a trailing dot. `asked`: this client was asked for a certificate, so that none means something.
    """

    address: str
    secure: bool
    sni: str | None = None
    certificate: ClientCertificate | None = None
    forwarded_for: str = ""
    asked: bool = False


class Request(NamedTuple):
    """One request, canonical. `host` is lower-case without port or trailing dot; `port` is never None.

    `query` is the raw query with its `?`, or empty: opaque, forwarded byte for byte, never decided on.
    `fields` are the client's end-to-end fields that may travel on: no hop-by-hop field, no managed field, no
    cookie of ours, no Host, no framing. `session` is the value of our one session cookie, or None.
    `cookies` are our other, short-lived cookies, as they came. `length` is meaningful with `Framing.LENGTH`
    only. `upgrade` is the lower-case protocol asked for, or None.
    """

    method: str
    scheme: str
    host: str
    port: int
    path: Path
    query: str
    fields: tuple[Field, ...]
    peer: Peer
    session: str | None = None
    authorization: bytes | None = None
    origin: str | None = None
    framing: Framing = Framing.NONE
    length: int = 0
    upgrade: str | None = None
    expects_continue: bool = False
    keep_alive: bool = True
    http_1_0: bool = False
    cookies: tuple[tuple[str, str], ...] = ()

    @property
    def site(self) -> str:
        """This request's origin as browsers write it (RFC 6454): the default port is left out."""
        default = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")

    def field(self, name: bytes) -> bytes | None:
        """The first field of that lower-case name among `fields`; for the unhurried paths only."""
        return _first(self.fields, name)


def is_navigation(request: Request) -> bool:
    """Whether a person's browser is opening a page, so that a redirect to a login page makes sense.

    Fetch metadata decides where it is present (a cross-document `Sec-Fetch-Mode: navigate` with a document
    destination); otherwise a GET or HEAD that says it accepts HTML and was not sent by a script.
    """
    if request.method not in ("GET", "HEAD") or request.upgrade:
        return False
    mode = request.field(b"sec-fetch-mode")
    if mode is not None:
        destination = request.field(b"sec-fetch-dest")
        return mode == b"navigate" and destination in (None, b"document", b"iframe", b"frame")
    if (request.field(b"x-requested-with") or b"").lower() == b"xmlhttprequest":
        return False
    return b"text/html" in (request.field(b"accept") or b"")


def is_preflight(request: Request) -> bool:
    """A real CORS preflight (Fetch standard 3.2.2): OPTIONS with Origin and a requested method, no body."""
    return (
        request.method == "OPTIONS"
        and request.origin is not None
        and request.field(b"access-control-request-method") is not None
        and request.framing is Framing.NONE
        and request.upgrade is None
    )
