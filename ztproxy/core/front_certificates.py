"""A client certificate as a TLS-terminating proxy in front of us passes it on, in the formats of five.

Knows: how RFC 9440, Envoy, nginx, Traefik and AWS's load balancer write a certificate into fields. Promises:
an answer is one certificate in DER, no certificate, or `HTTP_CLIENT_CERTIFICATE`; a field that could be read
in two ways is refused, never repaired (X20); subject, SAN and fingerprint that a proxy writes beside it are
not looked at, for they are text of the client's making. Leaves to the caller to ask only where the peer is a
trusted proxy (X18), and to the verifier everything inside the DER.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate

Format = Literal["client-cert", "xfcc", "nginx", "traefik", "aws-alb"]

Values = tuple[bytes, ...]
"""The values of one field, in the order of its lines."""

_LONGEST: Final = 64 * 1024  # of all fields together: a leaf and a few CAs, not a way to spend our time (X17)

# The fields of each format, in the order in which its reader (`_READERS`) is given their values.
_FIELDS: Final[Mapping[Format, tuple[bytes, ...]]] = {
    "client-cert": (b"client-cert", b"client-cert-chain"),
    "xfcc": (b"x-forwarded-client-cert",),
    "nginx": (b"x-ssl-client-cert", b"x-ssl-client-verify"),
    "traefik": (b"x-forwarded-tls-client-cert",),
    "aws-alb": (b"x-amzn-mtls-clientcert-leaf", b"x-amzn-mtls-clientcert"),
}


class _Malformed(Exception):
    """The fields are not what this format's proxy writes. Never leaves this file."""


def fields_of(format_: Format) -> frozenset[bytes]:
    """The lower-case names of the fields that `read` looks at."""
    return frozenset(_FIELDS[format_])


def read(format_: Format, listed: Mapping[bytes, list[bytes]]) -> ClientCertificate | Reason | None:
    """The certificate in the fields of a trusted proxy, None where it says that the client showed none.

    `listed` are the values of each field by lower-case name. The same values give the same object.
    """
    return _read(format_, tuple([tuple(listed.get(name, ())) for name in _FIELDS[format_]]))


@lru_cache(maxsize=1024)
def _read(format_: Format, fields: tuple[Values, ...]) -> ClientCertificate | Reason | None:
    if sum(len(value) for values in fields for value in values) > _LONGEST:
        return Reason.HTTP_CLIENT_CERTIFICATE
    try:
        return _READERS[format_](*fields)
    except _Malformed:
        return Reason.HTTP_CLIENT_CERTIFICATE


def _client_cert(certificate: Values, chain: Values) -> ClientCertificate | None:
    """RFC 9440 2: a byte sequence (RFC 8941 3.3.5), and a list of them that does not come alone. Stricter: no
    parameters."""
    leaf = _only(certificate)
    rest = [item.strip(b" \t") for line in chain for item in line.split(b",")]
    if leaf is None:
        if rest:
            raise _Malformed
        return None
    return ClientCertificate(_byte_sequence(leaf), tuple(map(_byte_sequence, rest)))


def _byte_sequence(item: bytes) -> bytes:
    if len(item) < 2 or item[:1] != b":" or item[-1:] != b":":
        raise _Malformed
    return _der(item[1:-1])


# Envoy's `x-forwarded-client-cert`: elements separated by `,`, each of pairs separated by `;`; a value with
# one of these in it is quoted, with `\` before a quote.
_PAIR = re.compile(rb'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*+)"|([^",;=][^",;]*+)?)(?:([;,])[ \t]*+|\Z)', re.DOTALL)
_OF_THE_CLIENT = frozenset({b"subject", b"uri", b"dns"})  # words of its certificate
_ONCE = frozenset({b"cert", b"chain"})


def _xfcc(forwarded: Values) -> ClientCertificate | None:
    """The last element is the nearest proxy's, and the only one that was not the client's to write.

    Stricter, because Envoy writes URIs and DNS names last and without quotes: after one of these nothing else
    may come, or a `,` or `;` in the client's certificate could begin an element, or a `Cert`, of its choice.
    A proxy that appends to what the client sent is therefore to leave them out.
    """
    value = _only(forwarded)
    if value is None:
        return None
    element: dict[bytes, bytes] = {}
    at, separator, loose = 0, b"", False
    while at < len(value):
        found = _PAIR.match(value, at)
        if found is None:
            raise _Malformed
        at, name = found.end(), found[1].lower()
        if separator == b",":
            element = {}
        unquoted = found[2] is None and name in _OF_THE_CLIENT
        if (loose and (not unquoted or separator == b",")) or (name in _ONCE and name in element):
            raise _Malformed
        loose, separator = loose or unquoted, found[4] or b""
        # As it is written: nothing that we read has a quote to escape, and readers differ on other escapes.
        element[name] = found[2] or found[3] or b""
    if separator or b"cert" not in element:
        raise _Malformed
    (leaf,) = _pem(element[b"cert"], 1)
    chain = _pem(element[b"chain"]) if b"chain" in element else (leaf,)
    if chain[0] != leaf:
        raise _Malformed
    return ClientCertificate(leaf, chain[1:])


def _nginx(certificate: Values, verify: Values) -> ClientCertificate | None:
    """`$ssl_client_escaped_cert` with `$ssl_client_verify`: without a word of success, not vouched for."""
    text, verdict = _only(certificate), _only(verify)
    failed = verdict is None or verdict.startswith(b"FAILED")
    if not failed and verdict not in (b"SUCCESS", b"NONE"):
        raise _Malformed
    if not text or verdict == b"NONE":
        return None
    (leaf,) = _pem(text, 1)
    return ClientCertificate(leaf, vouched=not failed)


def _traefik(certificates: Values) -> ClientCertificate | None:
    """Base64 of the leaf, then of the rest of the chain; older versions escape it as in a URL."""
    value = _only(certificates)
    if value is None:
        return None
    leaf, *chain = map(_der, unquote_to_bytes(value).split(b","))
    return ClientCertificate(leaf, tuple(chain))


def _aws_alb(leaf: Values, chain: Values) -> ClientCertificate | None:
    """URL-encoded PEM, in which `+`, `=` and `/` stand for themselves: the leaf where the load balancer
    verifies, the whole chain where it only passes on."""
    one, whole = _only(leaf), _only(chain)
    if one is not None and whole is not None:
        raise _Malformed
    if one is not None:
        return ClientCertificate(_pem(one, 1)[0])
    if whole is None:
        return None
    first, *rest = _pem(whole)
    return ClientCertificate(first, tuple(rest))


def _only(values: Values) -> bytes | None:
    if len(values) > 1:
        raise _Malformed
    return values[0] if values else None


_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n((?:[A-Za-z0-9+/=]++\r?\n)++)-----END CERTIFICATE-----(?:\r?\n|\Z)"
)


def _pem(escaped: bytes, most: int | None = None) -> tuple[bytes, ...]:
    """The certificates of a URL-encoded PEM text that holds nothing else: one at least, `most` at most."""
    text, at = unquote_to_bytes(escaped), 0
    found: list[bytes] = []
    while at < len(text):
        armoured = _PEM.match(text, at)
        if armoured is None:
            raise _Malformed
        found.append(_der(armoured[1].translate(None, b"\r\n")))
        at = armoured.end()
    if not found or (most is not None and len(found) > most):
        raise _Malformed
    return tuple(found)


def _der(encoded: bytes) -> bytes:
    """One DER SEQUENCE by its outer length (X.690 8.1.3, 10.1), in base64 with its padding."""
    try:
        der = binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error:
        raise _Malformed from None
    # RFC 4648 3.5: bits that mean nothing are zero. Some decoders refuse others, some pass over them.
    if binascii.b2a_base64(der, newline=False) != encoded:
        raise _Malformed
    if len(der) < 2 or der[0] != 0x30:
        raise _Malformed
    size, head = der[1], 2
    if size >= 0x80:
        head += size - 0x80
        size = int.from_bytes(der[2:head])
        # The shortest form of the length, and not the indefinite one: else one certificate had many texts.
        if size < 0x80 or der[2] == 0:
            raise _Malformed
    if len(der) != head + size:
        raise _Malformed
    return der


_READERS: Final[Mapping[Format, Callable[..., ClientCertificate | None]]] = {
    "client-cert": _client_cert,
    "xfcc": _xfcc,
    "nginx": _nginx,
    "traefik": _traefik,
    "aws-alb": _aws_alb,
}
