"""Where a body ends: counted, or chunked (RFC 9112 sections 6 and 7), the same reader both ways.

Knows: the framing of one message body. Promises: `feed` gives the payload found in the bytes, or None when
they break the grammar; once `ended`, `rest` holds the bytes after the body and nothing else. Payload is never
gathered: what came in one read goes out of one `feed`. Leaves to the caller what None means: 400 for a
client, 502 or a visible truncation for an app.

The chunked reader is our own and not llhttp because llhttp's binding does not say where a message ended, and
the byte after a body begins the next request, which must be judged by itself. Ours is stricter than RFC 9112:
no whitespace around the size, no bare LF, no CTL in extensions, at most 15 digits, and trailers that name
framing or connection fields are refused. Extensions and trailers are dropped: the message is framed anew by
us, so no peer ever sees another's spelling ("TERM.EXT" and "EXT.TERM" smuggling, CVE-2024-52304).
"""

from __future__ import annotations

import re
from typing import Protocol

EXTENSIONS_LIMIT = 4096
"""Bytes of chunk extensions in one body; they mean nothing to us and cost us work."""
TRAILER_LIMIT = 4096
TRAILER_FIELDS_LIMIT = 16
_PATIENT = 64
"""An unfinished line longer than this is looked at again only when more of it may be its end: a client that
sends a byte at a time must not have each of them cost all that came before."""

_EXTENSION = rb";[\t\x20-\x7e]*"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(" + _EXTENSION + rb")?\r\n")
_NEXT_SIZE_LINE = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})(" + _EXTENSION + rb")?\r\n")
# What may still become a size line when more bytes arrive.
_SIZE_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:" + _EXTENSION + rb")?\r?)?\Z")
_NEXT_SIZE_BEGUN = re.compile(rb"(?:\r(?:\n(?:[0-9A-Fa-f]{1,15}(?:" + _EXTENSION + rb")?\r?)?)?)?\Z")
_TRAILER_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*")
_NOT_IN_TRAILERS = frozenset(
    b"connection content-length content-encoding content-type host keep-alive proxy-authorization "
    b"proxy-connection te trailer transfer-encoding upgrade authorization cookie".split()
)


class BodyReader(Protocol):
    """One body being read."""

    ended: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes | None: ...


class LengthBody:
    """A body of `left` more bytes; `left` is positive."""

    __slots__ = ("ended", "left", "rest")

    def __init__(self, length: int) -> None:
        self.left = length
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes | None:
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        self.ended = True
        if size == self.left:
            self.left = 0
            return data
        payload, self.rest = data[: self.left], data[self.left :]
        self.left = 0
        return payload


class ChunkedBody:
    """A chunked body. Work per byte is bounded: one match a chunk, one slice a chunk, no rescanning of
    data.
    """

    __slots__ = ("_extensions", "_held", "_left", "_line", "ended", "rest")

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self._held = b""  # an unfinished size line or trailer section
        self._left = 0  # of the present chunk; -1: in the trailers
        self._line = _SIZE_LINE
        self._extensions = 0

    def feed(self, data: bytes) -> bytes | None:
        held = self._held
        if held:
            if len(held) > _PATIENT and b"\n" not in data and len(held) + len(data) <= EXTENSIONS_LIMIT:
                self._held = held + data
                return b""
            data, self._held = held + data, b""
        position, size, pieces = 0, len(data), []
        left, line = self._left, self._line
        while left >= 0:
            if left:
                taken = data[position : position + left]
                pieces.append(taken)
                position += len(taken)
                left -= len(taken)
                if left:
                    break
            found = line.match(data, position)
            if found is None:
                begun = _SIZE_BEGUN if line is _SIZE_LINE else _NEXT_SIZE_BEGUN
                if size - position > EXTENSIONS_LIMIT + 24 or not begun.match(data, position):
                    return None
                self._held = data[position:]
                break
            digits, extension = found.groups()
            if extension is not None:
                self._extensions += len(extension)
                if self._extensions > EXTENSIONS_LIMIT:
                    return None
            position = found.end()
            left = int(digits, 16) or -1
            line = _NEXT_SIZE_LINE
        self._left, self._line = left, line
        if left < 0 and not self._end(data[position:] if position else data):
            return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end(self, data: bytes) -> bool:
        """Reads the trailer section; False when it breaks a rule."""
        if data.startswith(b"\r\n"):
            self.ended, self.rest = True, data[2:]
            return True
        end = data.find(b"\r\n\r\n")
        if end < 0:
            # Every complete line must already be a field; the last one may still grow.
            *lines, last = data.split(b"\r\n")
            self._held = data
            return (
                len(data) <= TRAILER_LIMIT + 3  # the end may be there but for its last octet
                and _acceptable(lines)
                and b"\n" not in last
                and b"\x00" not in last
                and b"\r" not in last[:-1]
            )
        lines = data[:end].split(b"\r\n")
        self.ended, self.rest = True, data[end + 4 :]
        return end <= TRAILER_LIMIT and _acceptable(lines)


def _acceptable(lines: list[bytes]) -> bool:
    if len(lines) > TRAILER_FIELDS_LIMIT:
        return False
    for line in lines:
        field = _TRAILER_FIELD.fullmatch(line)
        if field is None or field[1].lower() in _NOT_IN_TRAILERS:
            return False
    return True


def chunk(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """One chunk on the wire, for `writelines`; the payload is not copied. It must not be empty."""
    return b"%x\r\n" % len(payload), payload, b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"
