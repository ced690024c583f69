"""The byte grammar of HTTP/1 heads, both ways: the strict guard in front of llhttp.

Knows: RFC 9112 sections 2 to 5, and the limits. Promises: what `parse_request` accepts has one reading for
every parser we know; it never repairs. A refused request is a `Reason`; a refused response is None (it can
only become a 502). Leaves the meaning of fields to `core.normalise`, bodies to llhttp, timers to its caller.

Where we are stricter than the RFC: a line ends in CRLF and nothing else (a bare LF is where `TERM.EXT`
smuggling begins), exactly one space parts the request line, no obs-fold, no version but 1.0 and 1.1.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

from ztproxy.core.normalise import RawHead
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Block, Field
from ztproxy.wire.repeats import Repeats

LINE_LIMIT = 8190
"""Octets of the request line, and of one field line, CRLF not counted."""
FIELDS_LIMIT = 100
REQUEST_HEAD_LIMIT = 32 * 1024
RESPONSE_HEAD_LIMIT = 64 * 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 5.6.2
_VALUE = rb"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 5.5: no CTL but HTAB; 8-bit is opaque and kept
_FIELD = _TOKEN + rb"++:[ \t]*+" + _VALUE + rb"*+\r\n"

# Possessive quantifiers: no byte is ever looked at twice, so hostile input costs what honest input costs.
_REQUEST = re.compile(
    rb"(?:\r\n){0,2}+(" + _TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.([01])\r\n((?:" + _FIELD + rb")*+)\r\n"
)
_LINE = re.compile(rb"(" + _TOKEN + rb"++) ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
_RESPONSE = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + _VALUE + rb"*+))?+\r\n((?:" + _FIELD + rb")*+)\r\n"
)
_FIELDS = re.compile(rb"(" + _TOKEN + rb"++):[ \t]*+(" + _VALUE + rb"*+)\r\n")
_NAME = re.compile(_TOKEN + rb"++")

# A client repeats its fields. Blocks the grammar has accepted, blank line included: a memo of a pure
# function, dropped whole when it is full. Longer ones are not kept, so that hostile ones cannot fill memory.
_blocks: dict[bytes, Block] = {}
_repeats = Repeats()
_BLOCKS_REMEMBERED = 1024
_BLOCK_REMEMBERED = 2048

_REQUEST_LINE = re.compile(_TOKEN + rb"++ ([\x21-\x7e\x80-\xff]++) HTTP/([0-9]\.[0-9])")
# What no longer part of the same head can mend. LF without CR, or any control but HTAB, CR and LF.
_HOPELESS = re.compile(rb"(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def find_head(buffer: bytes | bytearray, scanned: int = 0) -> int | Reason:
    """Where the first request head in `buffer` ends, blank line included; 0 while it is incomplete.

    `scanned` octets were there at the last call and need no second look. A head that can no longer become
    valid is refused now, not when its timer ends. At most two empty lines may come first (RFC 9112 2.2).
    """
    start = 0
    if buffer[:1] == b"\r":
        while start <= 4 and buffer[start : start + 2] == b"\r\n":
            start += 2
    if start > 4:
        return Reason.HTTP_SYNTAX
    end = buffer.find(b"\r\n\r\n", max(start, scanned - 3))
    if end >= 0:
        return end + 4
    if _HOPELESS.search(buffer, max(0, scanned - 1)):
        return Reason.HTTP_SYNTAX
    if len(buffer) - start > LINE_LIMIT and buffer.find(b"\r\n", start, start + LINE_LIMIT + 2) < 0:
        return Reason.HTTP_REQUEST_LINE_TOO_LONG
    return Reason.HTTP_HEAD_TOO_LARGE if len(buffer) > REQUEST_HEAD_LIMIT else 0


def parse_request(head: bytes) -> RawHead | Reason:
    """One whole request head, its blank line included, as `find_head` delimits it."""
    start = head.find(b"\r\n") + 2
    line = _LINE.fullmatch(head, 0, start)
    if line is not None and len(head) <= LINE_LIMIT:
        block = _blocks.get(head[start:])
        if block is not None:
            method, target, minor = line.groups()
            return RawHead(method, target, 1 if minor == b"1" else 0, block)
    found = _REQUEST.fullmatch(head)
    if found is None:
        return _why_not(head)
    fields = _split(found[4])
    if len(fields) > FIELDS_LIMIT:
        return Reason.HTTP_HEAD_TOO_LARGE
    # Only a head longer than one line may be can hold a line that is too long.
    if len(head) > LINE_LIMIT:
        reason = _too_long(head)
        if reason is not None:
            return reason
    # INVARIANT: what is remembered is what followed a whole request line at the very front. After a leading
    # empty line the rest would hold a request line too, and pass for fields the next time.
    if line is not None and len(head) - start <= _BLOCK_REMEMBERED:
        octets = head[start:]
        if _repeats.seen(octets):
            if len(_blocks) >= _BLOCKS_REMEMBERED:
                _blocks.clear()
            fields = _blocks[octets] = Block(fields, octets)
    return RawHead(found[1], found[2], 1 if found[3] == b"1" else 0, fields)


def _split(block: bytes) -> list[Field]:
    """The fields of a block that matched the grammar, surrounding whitespace removed (RFC 9112 5.1)."""
    fields: list[Field] = _FIELDS.findall(block)
    # The grammar strips the front; whitespace at the end is so rare that two searches are the cheaper test.
    if b" \r\n" in block or b"\t\r\n" in block:
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    return fields


def _too_long(head: bytes) -> Reason | None:
    lines = head.lstrip(b"\r\n").split(b"\r\n")
    if len(lines[0]) > LINE_LIMIT:
        return Reason.HTTP_REQUEST_LINE_TOO_LONG
    if len(head) > REQUEST_HEAD_LIMIT or max(map(len, lines)) > LINE_LIMIT:
        return Reason.HTTP_HEAD_TOO_LARGE
    return None


def _why_not(head: bytes) -> Reason:
    """Says what is wrong with a head that did not match; off the hot path."""
    reason = _too_long(head)
    if reason is not None:
        return reason
    if not head.endswith(b"\r\n\r\n"):
        return Reason.HTTP_SYNTAX
    line, *fields = head[:-4].removeprefix(b"\r\n").removeprefix(b"\r\n").split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        return Reason.HTTP_SYNTAX
    if found[2] not in (b"1.0", b"1.1"):
        return Reason.HTTP_VERSION
    if not found[1].isascii():
        return Reason.HTTP_TARGET
    for field in fields:
        name, colon, _ = field.partition(b":")
        if colon and field[:1] not in (b" ", b"\t") and not _NAME.fullmatch(name):
            return Reason.HTTP_FIELD_NAME
    return Reason.HTTP_FIELD


class ResponseHead(NamedTuple):
    """An app's response head that met the byte grammar. `status` is 100 to 599; `minor` 0 or 1."""

    status: int
    reason: bytes
    minor: int
    fields: list[Field]


def parse_response(head: bytes) -> ResponseHead | None:
    """One whole response head, its blank line included; None refuses it."""
    if len(head) > RESPONSE_HEAD_LIMIT:
        return None
    found = _RESPONSE.fullmatch(head)
    if found is None:
        return None
    fields = _split(found[4])
    if len(fields) > FIELDS_LIMIT:
        return None
    return ResponseHead(int(found[2]), found[3] or b"", 1 if found[1] == b"1" else 0, fields)


class Body(Enum):
    """How the body of a response is delimited (RFC 9112 6.3); EOF is the end of the connection."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    EOF = auto()


class ResponseFraming(NamedTuple):
    """`length` is the body's with `Body.LENGTH`. With `Body.NONE` it is the length the head announces without
    a body (an answer to HEAD, a 304), to be passed on, or None."""

    body: Body
    length: int | None = None


_NO_BODY = ResponseFraming(Body.NONE)
_CHUNKED = ResponseFraming(Body.CHUNKED)
_EOF = ResponseFraming(Body.EOF)


def response_framing(method: str, head: ResponseHead) -> ResponseFraming | None:
    """The framing of the answer to `method` by RFC 9112 6.3, strictly; None refuses it.

    Stricter: equal duplicates of Content-Length, any coding but a lone `chunked`, a coding from HTTP/1.0 and
    a body announced for 1xx or 204 are refused; each can leave octets that the next request takes for its
    answer (response-queue poisoning, T02).
    """
    length: bytes | None = None
    coding: bytes | None = None
    for name, value in head.fields:
        size = len(name)
        if size == 14 and name.lower() == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 18:
                return None
            length = value
        elif size == 17 and name.lower() == b"transfer-encoding":
            if coding is not None or value.lower() != b"chunked" or head.minor == 0:
                return None
            coding = value
    if length is not None and coding is not None:
        return None
    status = head.status
    if status < 200 or status == 204:
        return _NO_BODY if coding is None and int(length or b"0") == 0 else None
    if method == "HEAD" or status == 304:
        return _NO_BODY if length is None else ResponseFraming(Body.NONE, int(length))
    if coding is not None:
        return _CHUNKED
    return _EOF if length is None else ResponseFraming(Body.LENGTH, int(length))
