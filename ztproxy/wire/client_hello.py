"""The name a client asks for, read from its ClientHello before TLS begins.

Knows: records, the ClientHello and its `server_name` extension (RFC 8446 §4.1.2 and §5.1, RFC 6066 §3).
Promises: a name only where there is exactly one and it is a host name; no work beyond `MAX_HELLO` octets, and
none done twice, however small the pieces. Leaves everything else about the hello to OpenSSL, which reads the
same octets afterwards.

Nothing is refused here: what cannot be read has no name, and a connection without one is asked for a
certificate. So a mistake of this reader may ask one client too many, never one too few.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HELLO = 16384
"""Octets. With post-quantum key shares and all else browsers send, a ClientHello has some 2,000."""

_HANDSHAKE_RECORD, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_RECORD_HEADER, _MESSAGE_HEADER, _VERSION_AND_RANDOM = 5, 4, 34
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
# A name that ends in a number is an IPv4 address to many parsers (WHATWG URL 3.5); RFC 6066 permits none.
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?!\d+\Z|0x[0-9a-f]*\Z){_LABEL}")


class Hello(NamedTuple):
    """All there is to know of a ClientHello; `name` is canonical, or None."""

    name: str | None


def canonical_name(name: str | None) -> str | None:
    """Lower-case, without the trailing dot; None for what is no host name: addresses, wildcards, nothing."""
    if name is None or not name.isascii():
        return None
    name = name.lower().removesuffix(".")
    return name if _NAME.fullmatch(name) else None


class HelloReader:
    """Takes a ClientHello in pieces of any size, over any number of records (post-quantum key shares)."""

    def __init__(self) -> None:
        self._records = bytearray()  # not yet a whole record
        self._message = bytearray()
        self._seen = 0

    def feed(self, data: bytes) -> Hello | None:
        """`Hello` once it is known; None while octets are missing. Not to be called again after a `Hello`."""
        self._seen += len(data)
        self._records += data
        try:
            message = self._whole_message()
            name = None if message is None else _server_name(message)
        except ValueError:
            return Hello(None)
        if message is not None:
            return Hello(name)
        return Hello(None) if self._seen > MAX_HELLO else None

    def _whole_message(self) -> bytes | None:
        position, records = 0, self._records
        while position < len(records):
            if records[position] != _HANDSHAKE_RECORD:
                raise ValueError("not a handshake record")
            start = position + _RECORD_HEADER
            if start > len(records):
                break
            end = start + int.from_bytes(records[start - 2 : start])
            if end == start:
                raise ValueError("an empty handshake record")
            if end > len(records):
                break
            self._message += records[start:end]
            position = end
            if self._message_is_whole():
                return bytes(self._message[_MESSAGE_HEADER:])
        del records[:position]
        return None

    def _message_is_whole(self) -> bool:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise ValueError("not a ClientHello")
        if len(message) < _MESSAGE_HEADER:
            return False
        whole = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER])
        # RFC 8446 §5.1: it ends with its record, as the keys may change behind it.
        if whole > MAX_HELLO or len(message) > whole:
            raise ValueError("more than a ClientHello")
        return len(message) == whole


def _server_name(body: bytes) -> str | None:
    """Raises `ValueError` for a body that does not fit to the byte."""
    at = _VERSION_AND_RANDOM
    for width in (1, 2, 1):  # session id, cipher suites, compression methods
        _, at = _vector(body, at, width)
    if at == len(body):
        return None  # TLS 1.2 without extensions
    extensions, at = _vector(body, at, 2)
    if at != len(body):
        raise ValueError("more than a ClientHello")
    found = []
    at = 0
    while at < len(extensions):
        kind = extensions[at : at + 2]
        content, at = _vector(extensions, at + 2, 2)
        if int.from_bytes(kind) == _SERVER_NAME:
            found.append(content)
    return _host_name(found[0]) if len(found) == 1 else None


def _host_name(extension: bytes) -> str | None:
    """The only name of the list. RFC 6066 has a list with types; OpenSSL, like everybody, takes one name."""
    names, end = _vector(extension, 0, 2)
    if end != len(extension) or names[:1] != bytes([_HOST_NAME]):
        return None
    name, end = _vector(names, 1, 2)
    return canonical_name(name.decode("ascii")) if end == len(names) else None


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """The octets behind a length of `width` octets at `at`, and where they end."""
    start = at + width
    end = start + int.from_bytes(data[at:start])
    if end > len(data):  # as `start` is too where the length itself is cut off
        raise ValueError("cut off")
    return data[start:end], end
