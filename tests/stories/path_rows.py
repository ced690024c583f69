"""Paths around a public and a forbidden part of a site, by generators; and the rule that judges them.

`canonical` is the wire policy's rule for paths, written once more from its text. `readings` is everything
that some server has been known to make of a path: further decoding, backslashes, parameters, merged slashes,
dots, case. Whatever the rule lets through for a stranger, no reading of it may lead to the forbidden part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product

from tests.stories.hostile import Forwarded, Row, get

ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
UNRESERVED = re.compile(rb"[A-Za-z0-9._~-]")
# What a path may not come to by another decoding: syntax, a control, `%uXXXX`, the lead of an overlong form.
SYNTAX = re.compile(rb"%(?i:2e|2f|5c|3b|0.|1.|7f|c0|c1|e0%[89].|f0%8.|f8%8[0-7]|fc%8[0-3]|u[0-9a-f]{4})")


def unescaped(text: bytes) -> bytes:
    return ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text)


def canonical(target: bytes) -> bytes | None:
    """What the app must see of a target, query included; None: refused."""
    if not re.fullmatch(rb"/[\x21-\x7e]*", target) or b"#" in target:
        return None
    path, mark, query = target.partition(b"?")
    if b"\\" in path or b"%" in ESCAPE.sub(b"", path):
        return None
    spelt = ESCAPE.sub(
        lambda found: octet if UNRESERVED.match(octet := unescaped(found[0])) else found[0].upper(), path
    )
    spelt = re.sub(rb'["<>^`{}|\[\]]', lambda found: b"%%%02X" % found[0][0], spelt)
    segments = [unescaped(segment) for segment in spelt[1:].split(b"/")]
    if b"" in segments[:-1]:
        return None
    decoded = unescaped(spelt)
    if any(byte < 32 or byte in b"\x7f\\;" for byte in decoded) or any(b"/" in one for one in segments):
        return None
    try:
        decoded.decode()
    except UnicodeDecodeError:
        return None
    again = unescaped(decoded)
    once_more = unescaped(again)
    if any(map(SYNTAX.search, (decoded, again, once_more))):
        return None
    # However often it is decoded, and wherever it is then cut: no segment that some server trims to dots.
    for text in (decoded, again, once_more):
        if any(map(is_step, text.split(b"/"))) or any(map(is_step, before_query(text).split(b"/"))):
            return None
    # What two more decodings do not bring to rest, nobody meant.
    return spelt + mark + query if unescaped(once_more) == once_more else None


def before_query(text: bytes) -> bytes:
    return text.partition(b"?")[0]


def is_step(segment: bytes) -> bool:
    """A dot or two, or dots among spaces; three dots alone are a name."""
    return segment in (b".", b"..") or set(segment) == set(b". ")


def is_public(path: bytes) -> bool:
    """Whether the policy says so, of all that a server may decode."""
    again, once_more = unescaped(unescaped(path)), unescaped(unescaped(unescaped(path)))
    seen = [unescaped(path), again, once_more]
    return all(one.split(b"/")[1] == b"public" for one in (*seen, *map(before_query, seen)))


def readings(path: bytes) -> set[bytes]:
    """All that any order of what servers do to a path makes of it."""
    known, fresh = {path}, [path]
    while fresh:
        one = fresh.pop()
        for step in STEPS:
            other = step(one)
            if other not in known:
                known.add(other)
                fresh.append(other)
    return known


def _dots_removed(path: bytes) -> bytes:
    kept: list[bytes] = []
    for segment in path.split(b"/")[1:]:
        if segment == b"..":
            kept = kept[:-1]
        elif segment != b".":
            kept.append(segment)
    return b"/" + b"/".join(kept)


def _overlong_read(path: bytes) -> bytes:
    """UTF-8 as decoders before 2003 read it."""
    path = re.sub(rb"[\xc0\xc1][\x80-\xbf]", lambda it: bytes([(it[0][0] & 1) << 6 | it[0][1] & 63]), path)
    path = re.sub(
        rb"\xe0[\x80\x81][\x80-\xbf]", lambda it: bytes([(it[0][1] & 1) << 6 | it[0][2] & 63]), path
    )
    return re.sub(rb"%u00([0-9a-fA-F]{2})", lambda it: bytes.fromhex(it[1].decode()), path)


STEPS: tuple[Callable[[bytes], bytes], ...] = (
    unescaped,
    bytes.lower,
    _dots_removed,
    _overlong_read,
    lambda path: path.replace(b"\\", b"/"),
    lambda path: re.sub(rb"/{2,}", b"/", path),
    lambda path: re.sub(rb";[^/]*", b"", path),
    lambda path: re.split(rb"[?#\x00\r\n]", path)[0],
    lambda path: re.sub(rb"[\x00-\x20]", b"", path),
)


def spellings(byte: int) -> list[bytes]:
    """A byte raw, and escaped to depth three in both cases of hexadecimals and mixed, as its own escape in
    escapes, overlong and as IIS writes it."""
    small, capital = b"%%%02x" % byte, b"%%%02X" % byte
    high, low = (b"%%%02x" % digit for digit in small[1:])
    return list(
        dict.fromkeys(
            [
                bytes((byte,)),
                *(small, capital),
                *(b"%25" + small[1:], b"%25" + capital[1:], b"%" + high + low, b"%25" + high + small[2:]),
                *(b"%2525" + small[1:], b"%25%32%35" + small[1:], b"%25%32%35" + high + low),
                *(b"%%%02x%%%02x" % (0xC0 | byte >> 6, 0x80 | byte & 63),),
                *(b"%%e0%%%02x%%%02x" % (0x80 | byte >> 6, 0x80 | byte & 63),),
                b"%%f0%%80%%%02x%%%02x" % (0x80 | byte >> 6, 0x80 | byte & 63),
                b"%%25c%x%%25%02x" % (byte >> 6, 0x80 | byte & 63),
                b"%%25F8%%2580%%2580%%25%02x%%25%02x" % (0x80 | byte >> 6, 0x80 | byte & 63),
                *(b"%%u%04x" % byte, b"%%25u%04x" % byte, b"%%2525u%04x" % byte),
            ]
        )
    )


AROUND = (
    b"/public/%badmin",
    b"/public%badmin",
    b"/public/x%b",
    b"/%b/admin",
    b"/public/..%b/admin",
    b"/public/..%badmin",
    b"/public%b..%b/admin",
    b"/public/%b..%b../admin",
    b"/public/.%b/admin",
    b"/public/%b%b/admin",
    b"/public/%b/../admin",
    b"/public?%b",
)


OURS = (
    b"/.ztproxy%3Fx",
    b"/.ztproxy/apps%3Fx",
    b"/.%257Atproxy/x",
    b"/.well-known/ztproxy%253F",
)
"""What some server could read as a path of ours, and what is none of our pages."""


def targets() -> Iterator[bytes]:
    for byte in b"/\\.;%\x00\n?#":
        for spelling, around in product(spellings(byte), AROUND):
            yield around.replace(b"%b", spelling)
    # Two dots and a slash, each in its own spelling.
    for dot, other, slash in product(spellings(0x2E)[:8], spellings(0x2E)[:4], spellings(0x2F)[:8]):
        yield b"/public/" + dot + other + slash + b"admin"
    # Dots among spaces, as Windows trims them, and letters of the forbidden part escaped again and again.
    for dot, space in product(spellings(0x2E)[:3], (b"%20", b"%2520", b"%252520")):
        for step in (
            dot + space + b".",
            b"." + dot + space,
            b"." + dot + space + b".",
            space + b".." + space,
        ):
            yield b"/public/" + step + b"/admin"
    for letter, end in product(spellings(0x61), (b"", b"%3Fx", b"%23x", b"%253Fx/y", b"/x", b"%2Ejson%3F")):
        yield b"/" + letter + b"dmin" + end
        yield b"/publi%63/" + letter + b"dmin" + end
    # A parameter on dots, and letters of the forbidden part.
    for dot, cut in product(spellings(0x2E)[:6], spellings(0x3B)[:8]):
        yield b"/public/" + dot + dot + cut + b"x=y/admin"
    for letter, slash in product(spellings(0x61), spellings(0x2F)[:8]):
        yield b"/" + letter + b"dmin" + slash + b"x"


def rows() -> Iterator[Row]:
    """As a stranger: the public part is open, everything else asks who it is."""
    for number, target in enumerate(dict.fromkeys(targets())):
        path = canonical(target)
        expected: Forwarded | int | None = None
        if path is not None:
            public = is_public(path.partition(b"?")[0])
            expected = Forwarded(path, who=False) if public else 401
        yield Row(f"{number} {target!r}", get(b"Connection: close", target=target), expected)
    for target in OURS:
        yield Row(f"ours: {target!r}", get(b"Connection: close", target=target), 404)
