"""Raw target and raw fields in, one canonical `Request` out, or the reason why not.

Knows: the wire policy's rules for versions, framing, names, singletons, Host, target, hop-by-hop fields,
upgrades and our cookie. Promises: a `Request` says the same to every upstream; what two parsers could read
differently is refused, never repaired; nothing a client sends as a managed field survives. Leaves the byte
grammar to `wire.head`, paths to `paths`, field names to `fields`, and what to add to `outbound`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from ztproxy.core import front_certificates
from ztproxy.core.certificate_hosts import CertificateHosts
from ztproxy.core.fields import COOKIE, DROP, KEEP, LISTED, ONCE, REFUSE, TAKEN, TRACE, FieldNames
from ztproxy.core.paths import canonical_path
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Block, Field, Fields, Framing, Peer, Request

__all__ = ["Normaliser", "RawHead", "Reading", "canonical_path"]


class RawHead(NamedTuple):
    """A request head that met the byte grammar (`wire.head`): nothing is decoded or interpreted yet.

    `minor` is the HTTP/1 minor version, 0 or 1. Values carry no surrounding whitespace.
    """

    method: bytes
    target: bytes
    minor: int
    fields: list[Field]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a listener reads requests. Built once from the configuration.

    `secure`: the listener speaks TLS. `cookie` is our session cookie's name; `cookie_prefixes` are other
    cookie names of ours (a trailing `*` is implied) that must never reach an app. `managed` are further field
    names the routes set or remove: a different spelling that folds onto one is refused, the exact one is left
    to `outbound`, which knows the route. `underscores_dropped`: names with `_` are dropped instead of
    refused. `methods`: the union of the routes' methods. `trusted_proxies`: peers whose forwarding fields are
    believed; `fronts` is how they pass on the certificate a client showed them, None where they do not.
    `asks`: the hosts that ask clients of this listener itself for one, None where it asks nobody.
    """

    secure: bool
    cookie: str
    cookie_prefixes: tuple[str, ...] = ("__Host-ztp", "__Secure-ztp")
    managed: frozenset[str] = frozenset()
    underscores_dropped: bool = False
    methods: frozenset[str] = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    fronts: front_certificates.Format | None = None
    asks: CertificateHosts | None = None


_NEVER = frozenset({"CONNECT", "TRACE", "TRACK"})  # tunnels, and echoes of credentials
_MOST_FLOWS = 32  # of our short-lived cookies; we set five at most, so more are not from us
_MOST_BLOCKS = 1024
_FRAMING_NAMES = frozenset({b"host", b"content-length", b"transfer-encoding"})
_KNOWN_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade"})
_NO_OPTIONS: frozenset[bytes] = frozenset()
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PROTOCOL = re.compile(rb"[a-z0-9!#$%&'*+\-.^_`|~]+(?:/[a-z0-9!#$%&'*+\-.^_`|~]+)?")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)(.*)", re.DOTALL)
_HOST = re.compile(
    rb"(?:(\[[0-9a-f:.]+\])|((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)\.?)"
    rb"(?::([1-9][0-9]{0,4}))?"
)
_LONGEST_HOST = 260  # 253 octets of name, a trailing dot, a colon, five digits
# The last label decides whether a name is an address to a browser (WHATWG URL, "ends in a number").
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # base64 of exactly 16 octets
_WEBSOCKET_VERSION = re.compile(rb"[0-9]{1,4}")
# W3C Trace Context 3.2: ids of zeros and version ff are invalid; later versions may append.
_TRACE_IDS = rb"(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rb"00-" + _TRACE_IDS + rb"|(?!00|ff)[0-9a-f]{2}-" + _TRACE_IDS + rb"(?:-.*)?")


class FieldsRead(NamedTuple):
    """What a block of fields means, whoever sent it and for whatever: all that `Normaliser` finds in it.

    `once` and `listed` are by lower-case name. `authority` is None for a Host that is none. `late` is the
    reason to refuse the block that comes after those of Host, target and path. `asked` is the protocol of an
    upgrade, lower-case, where there is one to look at.
    """

    fields: Fields
    once: dict[bytes, bytes]
    listed: dict[bytes, list[bytes]]
    session: str | None
    cookies: tuple[tuple[str, str], ...]
    authority: tuple[str, int] | None
    authorization: bytes | None
    origin: str | None
    framing: Framing
    length: int
    expects: bool
    asked: bytes | None
    closes: bool
    late: Reason | None


class Normaliser:
    """`read(head, peer)` for one listener. Pure: it remembers how names fold, who is trusted and what blocks
    of fields mean, no more."""

    __slots__ = (
        "_asks",
        "_blocks",
        "_cookie",
        "_fronts",
        "_methods",
        "_names",
        "_ours",
        "_secure",
        "_trusts",
    )

    def __init__(self, reading: Reading) -> None:
        self._secure = reading.secure
        self._methods = {method.encode("ascii"): method for method in reading.methods - _NEVER}
        self._fronts, self._asks = reading.fronts, reading.asks
        self._names = FieldNames(
            reading.managed,
            underscores_dropped=reading.underscores_dropped,
            listed=front_certificates.fields_of(reading.fronts) if reading.fronts is not None else (),
        )
        self._cookie = reading.cookie.encode("ascii") + b"="
        self._ours = our_cookies((reading.cookie, *reading.cookie_prefixes))
        self._trusts = _trust(reading.trusted_proxies) if reading.trusted_proxies else None
        # INVARIANT: a memo of `_meaning`, which is a pure function of the block and of this reading. Nothing
        # of the peer, the request line or the time may go in, or one client's request would become
        # another's. It holds credentials, in memory only, until it is full or the configuration changes.
        self._blocks: dict[bytes, FieldsRead] = {}

    def read(self, head: RawHead, peer: Peer) -> Request | Reason:
        """The one meaning of a head, or why there is none."""
        raw_method, target, minor, block = head
        method = self._methods.get(raw_method)
        if method is None:
            return Reason.HTTP_METHOD

        # 1. The fields; a client mostly sends the same ones again.
        found = self._remembered(block) if type(block) is Block else self._meaning(block)
        if isinstance(found, Reason):
            return found
        (
            fields,
            once,
            listed,
            session,
            cookies,
            authority,
            authorization,
            origin,
            framing,
            length,
            expects,
            asked,
            closes,
            late,
        ) = found

        # 2. Who sent it, and over what.
        asks = self._asks
        if self._trusts is not None and self._trusts(peer.address):
            asks = None
            passed_on = _passed_on(peer, self._fronts, listed)
            if isinstance(passed_on, Reason):
                return passed_on
            peer = _believe(passed_on, self._secure or peer.secure, listed, self._trusts)
        elif self._secure and not peer.secure:
            peer = peer._replace(secure=True)
        secure = peer.secure
        scheme = "https" if secure else "http"

        # 3. Host, exactly one, and the target.
        if authority is None:
            return Reason.HTTP_HOST
        host, port = authority
        if asks is not None and secure and _misdirected(asks, host, peer):
            return Reason.HTTP_MISDIRECTED
        if port == 0:
            port = 443 if secure else 80
        if target[:1] != b"/":
            target = _origin_form(target, method, scheme, host, port)
        if not target or b"#" in target:
            return Reason.HTTP_TARGET
        raw_path, mark, query = target.partition(b"?")
        path = canonical_path(raw_path)
        if isinstance(path, Reason):
            return path

        # 4. Framing and the rest, where the request line has a say.
        if minor == 0 and framing is Framing.CHUNKED:
            return Reason.HTTP_FRAMING
        if late is not None:
            return late
        upgrade: str | None = None
        if asked is not None:
            if not _may_upgrade(asked, method, minor, framing, once):
                return Reason.HTTP_UPGRADE
            upgrade = asked.decode("ascii")

        return Request(
            method,
            scheme,
            host,
            port,
            path,
            f"?{query.decode('ascii')}" if mark else "",
            fields,
            peer,
            session,
            authorization,
            origin,
            framing,
            length,
            upgrade,
            # RFC 9110 10.1.1: ignored from HTTP/1.0, and pointless without a body.
            expects and minor == 1 and framing is not Framing.NONE,
            minor == 1 and not closes,
            minor == 0,
            cookies,
        )

    def _remembered(self, block: Block) -> FieldsRead | Reason:
        found = self._blocks.get(block.octets)
        if found is not None:
            return found
        meaning = self._meaning(block)
        if not isinstance(meaning, Reason):
            if len(self._blocks) >= _MOST_BLOCKS:
                self._blocks.clear()
            self._blocks[block.octets] = meaning
        return meaning

    def _meaning(self, block: list[Field]) -> FieldsRead | Reason:
        """What the fields say by themselves, or why they say nothing.

        The order matters: our cookie and the credentials are found before the client's Connection list is
        applied, so the list can hide them from the app but never from us (H120).
        """
        # 1. One pass over the fields.
        names = self._names
        kept: list[Field] = []
        once: dict[bytes, bytes] = {}
        listed: dict[bytes, list[bytes]] = {}
        session: bytes | None = None
        flows: tuple[tuple[str, str], ...] = ()
        for field in block:
            treatment, name = names[field[0]]
            if treatment == KEEP:
                kept.append(field)
            elif treatment in (ONCE, TAKEN):
                if name in once:
                    return Reason.HTTP_DUPLICATE
                once[name] = field[1]
                if treatment == ONCE:
                    kept.append(field)
            elif treatment == COOKIE:
                mine, others = self._cookies(field[1])
                for pair in mine:
                    if pair.startswith(self._cookie):
                        if session is not None:
                            return Reason.HTTP_COOKIE
                        session = pair[len(self._cookie) :]
                    elif len(flows) < _MOST_FLOWS:
                        name_of_flow, _, secret = pair.decode("latin-1").partition("=")
                        flows = (*flows, (name_of_flow, secret))
                if others:
                    kept.append(field if others is field[1] else (field[0], others))
            elif treatment == LISTED:
                listed.setdefault(name, []).append(field[1])
            elif treatment == TRACE:
                listed.setdefault(name, []).append(field[1])
                kept.append(field)
            elif treatment == REFUSE:
                return Reason.HTTP_FIELD_NAME
            else:
                assert treatment == DROP

        # 2. Framing (RFC 9112 6): never both, never anything but one length or a lone `chunked`.
        late: Reason | None = None
        framing, length = Framing.NONE, 0
        if b"transfer-encoding" in once:
            framing = Framing.CHUNKED
            if b"content-length" in once or once[b"transfer-encoding"].lower() != b"chunked":
                late = Reason.HTTP_FRAMING
        elif b"content-length" in once:
            digits = once[b"content-length"]
            if digits.isdigit() and len(digits) <= 18:
                framing, length = Framing.LENGTH, int(digits)
            else:
                late = Reason.HTTP_FRAMING

        # 3. Expect, Connection, Upgrade, Trace Context.
        if once.get(b"expect", b"100-continue").lower() != b"100-continue":
            late = late or Reason.HTTP_EXPECT
        options = _NO_OPTIONS
        if b"connection" in listed:
            value = b",".join(listed[b"connection"])
            parsed = _remembered_options(value) if len(value) <= 64 else _options(value)
            if parsed is None:
                late = late or Reason.HTTP_CONNECTION
            else:
                options = parsed
        asked: bytes | None = None
        if b"upgrade" in once and b"upgrade" in options:
            asked = once[b"upgrade"].lower()
            if asked == b"h2c":
                asked = None
        if options and not options <= _KNOWN_OPTIONS:
            kept = [field for field in kept if field[0].lower() not in options]
        if b"traceparent" in listed:
            traces = listed[b"traceparent"]
            if len(traces) > 1 or not _TRACEPARENT.fullmatch(traces[0]):
                kept = [field for field in kept if field[0].lower() not in (b"traceparent", b"tracestate")]

        origin = once.get(b"origin")
        return FieldsRead(
            Fields(kept),
            once,
            listed,
            None if session is None else session.decode("latin-1"),
            flows,
            _authority(once.get(b"host", b"")),
            once.get(b"authorization"),
            None if origin is None else origin.decode("latin-1"),
            framing,
            length,
            b"expect" in once,
            asked,
            b"close" in options,
            late,
        )

    def _cookies(self, value: bytes) -> tuple[list[bytes], bytes]:
        """The pairs of ours in a Cookie field, and what is left for the app (the same object if nothing is
        ours). Only the exact name is our session; anything that resembles a cookie of ours is taken out."""
        found = self._ours.findall(value)
        if not found:
            return [], value
        # RFC 6265 4.2.1: one `;` and one space between pairs; a second space would belong to the name.
        mine = [pair.removeprefix(b";").removeprefix(b" ") for pair in found]
        return mine, self._ours.sub(b"", value).lstrip(b"; \t").rstrip(b" \t")


def our_cookies(prefixes: tuple[str, ...]) -> re.Pattern[bytes]:
    """Matches each cookie pair, with the `;` before it, that resembles a cookie of ours.

    Whitespace, quotes and a `=` before the name are looked through, and case is ignored: some server will
    (the name-prefix bypasses of browsers and frameworks).
    """
    names = b"|".join(re.escape(prefix.encode("ascii")) for prefix in prefixes)
    return re.compile(rb"(?:^|;)[ \t=\"]*+(?:" + names + rb")[^;]*+", re.IGNORECASE)


def _authority(value: bytes) -> tuple[str, int] | None:
    """Canonical host and port (0 when none is given) of a Host value (RFC 9110 7.2), or None.

    Stricter: no userinfo, no list, no percent-encoding, no U-label, no empty port; an address only in its one
    canonical form, because `0x7f.1` is 127.0.0.1 to a browser and a name to a router.
    """
    return _remembered_authority(value) if len(value) <= _LONGEST_HOST else None


@lru_cache(maxsize=1024)
def _remembered_authority(value: bytes) -> tuple[str, int] | None:
    found = _HOST.fullmatch(value.lower())
    if found is None:
        return None
    literal, name, port = found[1], found[2], int(found[3] or b"0")
    if port > 65535:
        return None
    try:
        if literal is not None:
            return f"[{IPv6Address(literal[1:-1].decode())}]", port
        host = str(name, "ascii")
        if _ENDS_IN_NUMBER.fullmatch(host):
            IPv4Address(host)
    except ValueError:
        return None
    return (host, port) if len(host) <= 253 else None


def _origin_form(target: bytes, method: str, scheme: str, host: str, port: int) -> bytes:
    """The origin-form of an absolute-form that names this very site (RFC 9112 3.2.2); empty if it does not.

    Stricter: the RFC lets the target override Host; two names for one request are refused instead.
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None or found[1].lower() != scheme.encode():
        return b""
    authority = _authority(found[2])
    default = 443 if scheme == "https" else 80
    if authority is None or authority[0] != host or (authority[1] or default) != port:
        return b""
    rest = found[3]
    if rest.startswith(b"/"):
        return rest
    # An empty path means `/`, except for OPTIONS, where it means `*` (RFC 9112 3.2.4), which we refuse.
    return b"" if method == "OPTIONS" else b"/" + rest


def _options(value: bytes) -> frozenset[bytes] | None:
    """The lower-case options of a Connection list (RFC 9110 7.6.1); None where it would hide framing."""
    options = frozenset(option.strip(b" \t").lower() for option in value.split(b",")) - {b""}
    if options & _FRAMING_NAMES or not all(map(_TOKEN.fullmatch, options)):
        return None
    return options


_remembered_options = lru_cache(maxsize=256)(_options)


def _may_upgrade(asked: bytes, method: str, minor: int, framing: Framing, once: dict[bytes, bytes]) -> bool:
    """Whether an upgrade request is well formed: one protocol, HTTP/1.1, no body; for WebSocket RFC 6455 4.1.

    A body before an upgrade is where two parsers disagree about who owns the next octets (T31).
    """
    if minor == 0 or framing is not Framing.NONE or not _PROTOCOL.fullmatch(asked):
        return False
    if asked != b"websocket":
        return True
    return (
        method == "GET"
        and _WEBSOCKET_KEY.fullmatch(once.get(b"sec-websocket-key", b"")) is not None
        and _WEBSOCKET_VERSION.fullmatch(once.get(b"sec-websocket-version", b"")) is not None
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it, an IPv4 one never in IPv6 clothes; None for anything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _trust(networks: tuple[IPv4Network | IPv6Network, ...]) -> Callable[[str], bool]:
    @lru_cache(maxsize=4096)
    def trusts(text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in networks)

    return trusts


def _passed_on(
    peer: Peer, fronts: front_certificates.Format | None, listed: dict[bytes, list[bytes]]
) -> Peer | Reason:
    """A trusted proxy with its client's certificate in place of its own, or why what it says is none.

    INVARIANT: what the proxy itself showed us in its handshake never counts as its client's. Where it passes
    no certificates on, it is still its own only as long as it speaks for nobody else.
    """
    if fronts is not None:
        certificate = front_certificates.read(fronts, listed)
        if isinstance(certificate, Reason):
            return certificate
        # In full: `_replace` costs three times as much, for each request of a front.
        return Peer(peer.address, peer.secure, peer.sni, certificate, peer.forwarded_for, True)
    showed = peer.asked or peer.certificate is not None
    if showed and (b"x-forwarded-for" in listed or b"x-forwarded-proto" in listed):
        return peer._replace(certificate=None, asked=False)
    return peer


def _misdirected(asks: CertificateHosts, host: str, peer: Peer) -> bool:
    """Whether a request belongs on another TLS connection (RFC 9110 15.5.20): its host asks for a certificate
    and this connection was not asked, or the two names disagree on whether to ask (T33, X24)."""
    asked_here = asks.asks(host)
    return (asked_here and not peer.asked) or (peer.sni is not None and asks.asks(peer.sni) != asked_here)


def _believe(
    peer: Peer, secure: bool, listed: dict[bytes, list[bytes]], trusts: Callable[[str], bool]
) -> Peer:
    """The peer as a trusted proxy reports it (T06).

    The walk goes from the right, over trusted addresses, to the first that is not trusted: that is the
    client, and whatever stands to the left of it was the client's to invent. An element that is no address
    ends the walk.
    """
    protocols = listed.get(b"x-forwarded-proto", ())
    if len(protocols) == 1 and protocols[0].lower() in (b"https", b"http"):
        secure = protocols[0].lower() == b"https"
    chain = [
        element.strip(" \t")
        for value in listed.get(b"x-forwarded-for", ())
        for element in value.decode("latin-1").split(",")
    ]
    client = peer.address
    while chain and trusts(client):
        address = _address(chain[-1])
        if address is None:
            break
        client = str(address)
        chain.pop()
    return Peer(client, secure, peer.sni, peer.certificate, ", ".join(chain), peer.asked)
