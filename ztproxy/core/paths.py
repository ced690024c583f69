"""The canonical path: one spelling, decided on and forwarded; or a refusal.

Knows: RFC 3986 paths, and the ways servers decode them differently. Promises: what two upstreams could read
differently is refused, or listed as several readings, so that policy can demand that every one of them is
allowed (T03): for the three spellings a route may tolerate, and for escapes of `%` and `?`, which honest
paths hold. The canonical text is a fixed point. Leaves to `routes` whether a reading is tolerated, and to its
caller the query and the `#` that must not be there.

Servers differ in when they split at `/`, cut `;parameters`, merge `//`, and decode `%`; some decode twice,
some take `\\` for `/`, some accept overlong UTF-8 or `%u002e`, some look for the query in what they decoded
(Apache CVE-2024-38474). Each of these has been a published bypass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity, Path

_CACHED_LENGTH = 256  # longer paths are not remembered, so that hostile ones cannot fill memory

# Unreserved and sub-delims, `:` and `@` (RFC 3986 pchar) without `%`, `;`; no empty segment but the last.
_PLAIN = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@]++/)*+[A-Za-z0-9\-._~!$&'()*+,=:@]*+")
# Printable ASCII but `#`, `?` and `\`; every `%` starts a valid escape.
_RAW = re.compile(rb"/(?:[!\"$&->@-\[\]-~]|%[0-9A-Fa-f]{2})*+")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
# An escape is never cut. `re.sub` takes some ninety bytes for each match until it is done.
_PIECES = re.compile(rb"(?:%[0-9A-Fa-f]{2}|[\x00-\xff]){1,64}")
_REWRITE = re.compile(rb"%[0-9A-Fa-f]{2}|[\"<>^`{}|\[\]]")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HEX = "0123456789abcdefABCDEF"
_DECODED = {f"%{high}{low}".encode(): bytes((int(high + low, 16),)) for high in _HEX for low in _HEX}
_CANONICAL = {
    **{escape: octet if octet[0] in _UNRESERVED else escape.upper() for escape, octet in _DECODED.items()},
    **{bytes((stray,)): b"%%%02X" % stray for stray in b'"<>^`{}|[]'},
}
"""One escape or stray character in canonical spelling (RFC 3986 6.2.2)."""
_FORBIDDEN = re.compile(rb"[\x00-\x1f\x7f\\]")
# What a second decoding would turn into syntax: `.`, `/`, `\`, `;`, a control, an overlong form of any of
# them, or IIS's `%uXXXX`.
_AGAIN = re.compile(
    rb"%(?:2[ef]|5c|3b|[01][0-9a-f]|7f|c[01]|e0%[89]|f0%8|f8%8|fc%8|u[0-9a-f]{4})", re.IGNORECASE
)
# Dots alone are a step; among spaces also those that a server (Windows) trims to one. `...` is a name.
_STEP = re.compile(r"(?m)^(?=[ .]*+$)(?:\.\.?$|\.++ | ++\.)")
_DECODINGS = 3  # how often a text may hold an escape of an escape before nobody can have meant it
_LONGEST_READ_AGAIN = 4096  # octets; each reading takes some times as many
_MOST_READINGS = 24  # honest paths have four at most, the dearest ones without this bound ninety

_NONE: frozenset[Ambiguity] = frozenset()

Segments = tuple[str, ...]


def canonical_path(raw: bytes) -> Path | Reason:
    """The canonical form of a raw path (no query), or why it is refused."""
    return _remembered(raw) if len(raw) <= _CACHED_LENGTH else _canonical(raw)


def is_own(path: Path) -> bool:
    """Whether some server could read this path as one of ours; such a path never reaches an app.

    The comparison ignores case and looks at every reading: `/.ZTPROXY/x` is ours too, and answered 404.
    """
    if not path.ambiguities and path.text[1:2] != ".":
        return False
    for reading in path.readings:
        first = reading[0].lower()
        if first == ".ztproxy":
            return True
        if first == ".well-known" and len(reading) > 1 and reading[1].lower() == "ztproxy":
            return True
    return False


def _canonical(raw: bytes) -> Path | Reason:
    if _PLAIN.fullmatch(raw) and b"/." not in raw:
        text = raw.decode("ascii")
        return Path(text, (tuple(text[1:].split("/")),), _NONE)

    # 1. Bytes.
    if not _RAW.fullmatch(raw):
        return Reason.HTTP_PATH
    canonical = _replaced(_REWRITE, _CANONICAL, raw)

    # 2. Decoded once: valid UTF-8, no control, no backslash; decoded again: nothing that is syntax.
    decoded = _decode(canonical)
    if _FORBIDDEN.search(decoded) or not _is_utf8(decoded) or not _settles(decoded):
        return Reason.HTTP_PATH
    # Where raw and escaped `;` meet, servers cut at different places; there is no short list of readings.
    if b";" in canonical and b"%3B" in canonical:
        return Reason.HTTP_PATH

    # 3. The readings, the literal one first. None may begin with `//`, whatever a route tolerates: it is a
    # network-path reference (RFC 3986 4.2), an app that resolves it takes the first segment for a host, and
    # some drop the empty segments in front and no others.
    literal = tuple(_decode(segment).decode() for segment in canonical[1:].split(b"/"))
    ambiguities = set()
    if b"%2F" in canonical:
        ambiguities.add(Ambiguity.ENCODED_SLASH)
    if b";" in decoded:
        ambiguities.add(Ambiguity.PATH_PARAMETER)
    readings: dict[Segments, None] = {}
    for reading in _variants(literal, ambiguities):
        if len(reading) > 1 and not reading[0]:
            return Reason.HTTP_PATH
        readings[reading] = None
        merged = (*filter(None, reading[:-1]), reading[-1])
        if merged != reading:
            ambiguities.add(Ambiguity.EMPTY_SEGMENT)
            readings[merged] = None
    if b"%25" in canonical or b"%3F" in canonical:
        if len(canonical) > _LONGEST_READ_AGAIN:
            return Reason.HTTP_PATH
        for reading in tuple(readings):
            readings.update(dict.fromkeys(_further(reading)))
            if len(readings) > _MOST_READINGS:
                return Reason.HTTP_PATH

    # 4. A dot segment in any of them refuses the path: `/public/..%3Fx` is one where `?` is looked for late.
    if any(_STEP.search("\n".join(reading)) for reading in readings):
        return Reason.HTTP_PATH
    return Path(canonical.decode("ascii"), tuple(readings), frozenset(ambiguities))


_remembered = lru_cache(maxsize=4096)(_canonical)


def _decode(text: bytes) -> bytes:
    return _replaced(_ESCAPE, _DECODED, text) if b"%" in text else text


def _replaced(pattern: re.Pattern[bytes], by: Mapping[bytes, bytes], text: bytes) -> bytes:
    """Every match replaced, a piece at a time: a path of escapes alone must not cost many times its size."""
    return b"".join(pattern.sub(lambda found: by[found[0]], piece) for piece in _PIECES.findall(text))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:  # overlong forms and surrogates included
        return False
    return True


def _settles(decoded: bytes) -> bool:
    """Whether decoding further, as some servers do, never yields syntax. `%255F` is fine, `%252e` is not."""
    for _ in range(_DECODINGS):
        if _AGAIN.search(decoded):
            return False
        further = _decode(decoded)
        if further == decoded:
            return True
        decoded = further
    return False


def _further(reading: Segments) -> Iterator[Segments]:
    """The reading itself, and what it becomes where a server decodes again, ends the path at a decoded
    `?`, or does both, in any order and as often as it likes.

    No text here holds a control, decoded again or not, so a line end can part the segments; and no decoding
    makes a slash. `_settles` is why this ends soon. What is no UTF-8 when decoded again is nobody's name.
    """
    texts = ["\n".join(reading).encode()]
    for text in texts:  # it grows meanwhile
        others = _decode(text), text.partition(b"?")[0]
        texts += [other for other in others if other not in texts]
        yield tuple(text.decode(errors="replace").split("\n"))


def _variants(literal: Segments, ambiguities: set[Ambiguity]) -> Iterator[Segments]:
    """The literal reading, then those of servers that split at `%2F`, cut at `;`, or both in either order."""
    yield literal
    slash, parameter = Ambiguity.ENCODED_SLASH in ambiguities, Ambiguity.PATH_PARAMETER in ambiguities
    if slash:
        yield _split(literal)
    if parameter:
        yield _cut(literal)
    if slash and parameter:
        yield _cut(_split(literal))
        yield _split(_cut(literal))


def _split(segments: Segments) -> Segments:
    return tuple("/".join(segments).split("/"))


def _cut(segments: Segments) -> Segments:
    return tuple(segment.partition(";")[0] for segment in segments)
