"""What stands in front of us says who the client is: forwarding fields, certificates in fields, PROXY
protocol, and the name in a ClientHello.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import get_args
from urllib.parse import quote_from_bytes, unquote_to_bytes

import trustme

from tests.fuzz.targets.requests import FRONT, STRANGER, pieces, read
from ztproxy.core import front_certificates
from ztproxy.core.normalise import RawHead
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate, Request
from ztproxy.errors import ClientError
from ztproxy.wire.client_hello import MAX_HELLO, Hello, HelloReader, canonical_name
from ztproxy.wire.head import parse_request
from ztproxy.wire.proxy_protocol import FIXED_LENGTH, MAX_REST, SIGNATURE, parse_fixed, parse_source

_TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def _fields(data: bytes) -> RawHead | None:
    """`data` as the field lines of a request that met the byte grammar."""
    lines = data.replace(b"\r\n", b"\n").strip(b"\n").replace(b"\n", b"\r\n")
    raw = parse_request(
        b"GET / HTTP/1.1\r\nHost: app.test\r\n" + (lines + b"\r\n" if lines else b"") + b"\r\n"
    )
    return raw if isinstance(raw, RawHead) else None


def forwarding(data: bytes) -> None:
    """Only a trusted proxy is believed, and of its list only what it and other trusted ones wrote."""
    raw = _fields(data)
    if raw is None:
        return
    stranger, request = read(raw, STRANGER), read(raw, FRONT)
    assert isinstance(stranger, Request) == isinstance(request, Request)
    if isinstance(stranger, Reason) or isinstance(request, Reason):
        return
    peer = stranger.peer
    assert (peer.address, peer.forwarded_for, peer.secure) == (STRANGER.address, "", False)
    chain = [
        element.strip(" \t")
        for name, value in raw.fields
        if name.lower() == b"x-forwarded-for"
        for element in value.decode("latin-1").split(",")
    ]
    address, left = FRONT.address, len(chain)
    while left and _is_trusted(address) and (said := _plain(chain[left - 1])) is not None:
        address, left = said, left - 1
    assert request.peer.address == address, "another client than the right-most untrusted address"
    assert request.peer.forwarded_for == ", ".join(chain[:left])
    assert str(ip_address(address)) == address
    schemes = [value.lower() for name, value in raw.fields if name.lower() == b"x-forwarded-proto"]
    assert request.peer.secure is (schemes == [b"https"]) and request.scheme in ("http", "https")


def _plain(text: str) -> str | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if "%" in text:
            return None
        return str(address.ipv4_mapped or address)
    return str(address)


def _is_trusted(text: str) -> bool:
    return any(ip_address(text) in network for network in _TRUSTED)


def certificate_fields(data: bytes) -> None:
    """In each of the five formats: a certificate whose very octets are there, none, or a refusal."""
    raw = _fields(data)
    if raw is None:
        return
    listed: dict[bytes, list[bytes]] = {}
    for name, value in raw.fields:
        listed.setdefault(name.lower(), []).append(value)
    written = unquote_to_bytes(b"".join(value for _, value in raw.fields)).translate(None, b"\r\n")
    for format_ in get_args(front_certificates.Format):
        found = front_certificates.read(format_, listed)
        if not isinstance(found, ClientCertificate):
            assert found in (None, Reason.HTTP_CLIENT_CERTIFICATE)
            continue
        for der in (found.leaf, *found.chain):
            assert der[:1] == b"\x30" and base64.b64encode(der) in written
        assert sum(map(len, found.chain)) + len(found.leaf) <= len(data)
        again = front_certificates.read(format_, _written(format_, found))
        assert again == found, f"`{format_}` does not read what it read"
        if format_ == "xfcc":
            # What the client put in front of the proxy's own element changes nothing.
            mine = b'By=spiffe://a/b;Cert="' + _pem(b"\x30\x00") + b'",' + listed[_XFCC][0]
            assert front_certificates.read(format_, {_XFCC: [mine]}) == found


_XFCC = b"x-forwarded-client-cert"


def _pem(*certificates: bytes) -> bytes:
    text = b"".join(
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
        for der in certificates
    )
    return quote_from_bytes(text, safe="").encode()


def _written(format_: str, found: ClientCertificate) -> dict[bytes, list[bytes]]:
    leaf, chain = found.leaf, found.chain
    match format_:
        case "client-cert":
            sequences = [b":" + base64.b64encode(der) + b":" for der in (leaf, *chain)]
            rest = {b"client-cert-chain": [b", ".join(sequences[1:])]} if chain else {}
            return {b"client-cert": [sequences[0]], **rest}
        case "xfcc":
            whole = b'Cert="' + _pem(leaf) + b'";Chain="' + _pem(leaf, *chain) + b'"'
            return {_XFCC: [whole]}
        case "nginx":
            verdict = b"SUCCESS" if found.vouched else b"FAILED:why"
            return {b"x-ssl-client-cert": [_pem(leaf)], b"x-ssl-client-verify": [verdict]}
        case "traefik":
            return {b"x-forwarded-tls-client-cert": [b",".join(map(_escaped, (leaf, *chain)))]}
    return {b"x-amzn-mtls-clientcert": [_pem(leaf, *chain)]}


def _escaped(der: bytes) -> bytes:
    return quote_from_bytes(base64.b64encode(der), safe="").encode()


def proxy_protocol(data: bytes) -> None:
    """An address in its one spelling, or a `ClientError`; and what was read can be written again."""
    if len(data) < FIXED_LENGTH:
        return
    try:
        fixed = parse_fixed(data[:FIXED_LENGTH])
        rest = data[FIXED_LENGTH : FIXED_LENGTH + fixed.length]
        assert data[:12] == SIGNATURE and fixed.length <= MAX_REST
        if len(rest) < fixed.length:
            return
        source = parse_source(fixed, rest)
    except ClientError as refused:
        assert refused.reason is Reason.HTTP_SYNTAX and len(str(refused)) < 200
        return
    assert (source is None) is fixed.local
    if source is None:
        return
    address = ip_address(source)
    assert str(address) == source and not (isinstance(address, IPv6Address) and address.ipv4_mapped)
    family, ports = (0x11, 8) if address.version == 4 else (0x21, 20)
    plain = address.packed + bytes(ports)
    head = SIGNATURE + bytes((0x21, family)) + len(plain).to_bytes(2)
    assert parse_source(parse_fixed(head), plain) == source


def _server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued = trustme.CA().issue_cert("app.test")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "server.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(file)
        context.load_cert_chain(file)
    return context


_SERVER = _server()


def client_hello(data: bytes) -> None:
    """The same name however it comes, and never a name that OpenSSL does not read there."""
    whole = HelloReader().feed(data) if data else None
    reader, cut = HelloReader(), None
    for piece in pieces(data):
        cut = reader.feed(piece)
        if cut is not None:
            break
    if len(data) <= MAX_HELLO:
        assert cut == whole, "the name depends on the reads"
    if whole is None or whole.name is None:
        return
    assert canonical_name(whole.name) == whole.name
    heard: list[str | None] = []
    context = _SERVER
    context.sni_callback = lambda _connection, name, _context: heard.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    server = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    try:
        server.do_handshake()
    except ssl.SSLError:
        pass  # it only ever goes as far as the hello, which is all there is
    assert all(Hello(canonical_name(name)) == whole for name in heard), "OpenSSL reads another name"
