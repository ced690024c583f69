"""Requests whose length two parsers could read differently, by generators; and the rule that judges them.

`meaning` is the wire policy's rule for names, values and framing, written once more from its text and without
the product's grammar: what it calls None must be refused, all else reaches the app in canonical framing.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_letters, digits

from tests.stories.hostile import CHUNKS, HOST, Forwarded, Row, request
from ztproxy.core.reasons import Reason

BYTES = bytes.fromhex("00 01 04 08 09 0a 0b 0c 0d 1f 20 22 2c 3b 5f 7f a0 ff")
TOKEN = frozenset(f"{ascii_letters}{digits}!#$%&'*+-.^_`|~".encode())
MANAGED = {b"content-length", b"transfer-encoding", b"expect", b"connection", b"host"}
BODY = b"abcdefghijkl"
LENGTH, CODING = (b"Content-Length", b"12"), (b"Transfer-Encoding", b"chunked")


def meaning(lines: bytes, minor: int = 1) -> Forwarded | Reason | None:
    """What these lines behind Host come to on a POST with a body that fits them; None: refused."""
    kept: list[bytes] = []
    found: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        raw, value = value, value.strip(b" \t")
        if not colon or not name or not TOKEN.issuperset(name) or b"_" in name:
            return None
        if any((byte < 32 and byte != 9) or byte == 127 for byte in value):
            return None
        lower = name.lower()
        folded = bytes(byte if chr(byte).isalnum() else ord("-") for byte in lower)
        if folded in MANAGED and (folded != lower or folded in found):
            return None
        # A tab behind the coding is legal, and part of its name to llhttp, whose opinion is asked too.
        if lower == b"transfer-encoding" and raw.rstrip(b" ").endswith(b"\t"):
            return None
        if lower in MANAGED:
            found[lower] = value
        else:
            kept.append(name + b": " + value)
    options = {option.strip(b" \t").lower() for option in found.get(b"connection", b"").split(b",")} - {b""}
    length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
    if length is not None and coding is not None:
        return None
    if length is not None and not (set(length) <= set(b"0123456789") and 1 <= len(length) <= 18):
        return None
    if coding is not None and (coding.lower() != b"chunked" or minor == 0):
        return None
    if found.get(b"expect", b"100-continue").lower() != b"100-continue":
        return Reason.HTTP_EXPECT
    if b"host" in found or options & MANAGED - {b"expect", b"connection"}:
        return None
    kept = [line for line in kept if line.partition(b":")[0].lower() not in options]
    if coding is not None:
        return Forwarded(b"/u", (*kept, b"Transfer-Encoding: chunked"), CHUNKS)
    if length is not None:
        return Forwarded(b"/u", (*kept, b"Content-Length: %d" % int(length)), BODY[: int(length)])
    return Forwarded(b"/u", tuple(kept))


def row(name: str, cookie: bytes, lines: bytes, minor: int = 1) -> Row:
    """The row with the body its framing announces, and where it announces none, none: what is refused has
    one, so that a smuggled request would be seen."""
    expected = meaning(lines, minor)
    if isinstance(expected, Forwarded):
        body = expected.body
    else:
        body = CHUNKS if b"hunked" in lines else BODY
    who = b"Cookie: " + cookie
    return Row(name, request(b"POST /u HTTP/1.%d" % minor, HOST, who, lines, body=body), expected)


def mutations(cookie: bytes) -> Iterator[Row]:
    """Each byte at each position of either framing field, alone and beside an honest field of the other."""
    for field, value in (LENGTH, CODING):
        at, middle = field.index(b"-"), len(value) // 2
        # What stands before and behind the byte, over the whole line.
        positions = {
            "before the name": (b"", field + b": " + value),
            "inside the name": (field[:3], field[3:] + b": " + value),
            "for the hyphen": (field[:at], field[at + 1 :] + b": " + value),
            "behind the name": (field, b": " + value),
            "for the colon": (field, b" " + value),
            "behind the colon": (field + b":", b" " + value),
            "for the space": (field + b":", value),
            "before the value": (field + b": ", value),
            "inside the value": (field + b": " + value[:middle], value[middle:]),
            "behind the value": (field + b": " + value, b""),
        }
        other = b": ".join(CODING if field == LENGTH[0] else LENGTH)
        for where, (front, behind) in positions.items():
            for byte in BYTES:
                line = front + bytes((byte,)) + behind
                name = f"{field.decode()}, {byte:02x} {where}"
                yield row(name, cookie, line)
                yield row(f"{name}, and then the other", cookie, line + b"\r\n" + other)
                yield row(f"{name}, after the other", cookie, other + b"\r\n" + line)


TE, CL = b"Transfer-Encoding: chunked", b"Content-Length: 12"
# The tricks of published desynchronisations by their usual names. The letters say nothing of the outcome.
TRICKS: dict[str, bytes] = {
    "vanilla": TE,
    "uppercase": b"TRANSFER-ENCODING: CHUNKED",
    "multicase": b"tRANSFER-eNCODING: cHUNKED",
    "nospace": b"Transfer-Encoding:chunked",
    "spacejoin": b"Transfer Encoding: chunked",
    "underjoin": b"Transfer_Encoding: chunked",
    "dotjoin": b"Transfer.Encoding: chunked",
    "tildejoin": b"Transfer~Encoding: chunked",
    "space before the colon": b"Transfer-Encoding : chunked",
    "tab before the colon": b"Transfer-Encoding\t: chunked",
    "nameprefix": b"Foo: bar\r\n Transfer-Encoding: chunked",
    "nameprefix with a tab": b"Foo: bar\r\n\tTransfer-Encoding: chunked",
    "first line folded": b" Transfer-Encoding: chunked",
    "valueprefix": b"Transfer-Encoding:  chunked",
    "tabprefix": b"Transfer-Encoding:\tchunked",
    "tabsuffix": b"Transfer-Encoding: chunked\t",
    "0dsuffix": b"Transfer-Encoding: chunked\r",
    "0dspam": b"Transfer\r-Encoding: chunked",
    "0dprefix": b"Transfer-Encoding:\rchunked",
    "zdprefix": b"Transfer-Encoding:\x00chunked",
    "zdsuffix": b"Transfer-Encoding: chunked\x00",
    "zdspam": b"Trans\x00fer-Encoding: chunked",
    "zdwrap": b"Foo: bar\r\n\x00Transfer-Encoding: chunked",
    "linewrapped": b"Transfer-Encoding:\r\n chunked",
    "tabwrap": b"Transfer-Encoding:\r\n\tchunked",
    "vertwrap": b"Transfer-Encoding:\n\x0bchunked",
    "vertprefix": b"Transfer-Encoding:\x0bchunked",
    "doublewrapped": b"Transfer-Encoding:\r\n \r\n chunked",
    "badwrap": b"Foo: bar\r\n X: y\r\nTransfer-Encoding: chunked",
    "badsetup with CR": b"Foo: bar\rTransfer-Encoding: chunked",
    "badsetup with LF": b"Foo: bar\nTransfer-Encoding: chunked",
    "gareth": b"Transfer-Encoding\n: chunked",
    "lazygrep": b"Transfer-Encoding: chunk",
    "spjunk": b"Transfer-Encoding x: chunked",
    "backslash": b"Transfer\\Encoding: chunked",
    "nel": b"Transfer-Encoding: chunked\x85",
    "nel in UTF-8": b"Transfer-Encoding: \xc2\x85chunked",
    "nbsp": b"Transfer-Encoding:\xa0chunked",
    "nbsp in UTF-8": b"Transfer-Encoding: \xc2\xa0chunked",
    "shy": b"Transfer-Enc\xadoding: chunked",
    "shy in the value": b"Transfer-Encoding: chu\xadnked",
    "unispace": b"Transfer-Encoding: \xe2\x80\x83chunked",
    "accentTE": b"Transf\x82r-Encoding: chunked",
    "accentCH": b"Transfer-Encoding: ch\x96nked",
    "byte order mark": b"\xef\xbb\xbfTransfer-Encoding: chunked",
    "encode": b"Transfer-%45ncoding: chunked",
    "quoted": b'Transfer-Encoding: "chunked"',
    "aposed": b"Transfer-Encoding: 'chunked'",
    "commaCow": b"Transfer-Encoding: chunked, cow",
    "cowComma": b"Transfer-Encoding: cow, chunked",
    "commaprefix": b"Transfer-Encoding: , chunked",
    "commasuffix": b"Transfer-Encoding: chunked,",
    "contentEnc": b"Content-Encoding: chunked",
    "chunked with a parameter": b"Transfer-Encoding: chunked;q=1",
    "chunked with a semicolon": b"Transfer-Encoding: chunked;",
    "chunked in parts": b"Transfer-Encoding: chun ked",
    "chunked once too long": b"Transfer-Encoding: chunkedd",
    "identity": b"Transfer-Encoding: identity",
    "identity, chunked": b"Transfer-Encoding: identity, chunked",
    "gzip, chunked": b"Transfer-Encoding: gzip, chunked",
    "chunked, gzip": b"Transfer-Encoding: chunked, gzip",
    "trailers": b"Transfer-Encoding: trailers",
    "an empty coding": b"Transfer-Encoding:",
    "dualchunk": TE + b"\r\nTransfer-Encoding: cow",
    "revdualchunk": b"Transfer-Encoding: identity\r\n" + TE,
    "TE twice": TE + b"\r\n" + TE,
    "nested": b"Transfer-Encoding: cow chunked bar",
    "X-TE": b"X-Transfer-Encoding: chunked",
    "TE-": b"Transfer-Encoding-: chunked",
    "TE named in Connection": b"Connection: Transfer-Encoding\r\n" + TE,
    "CL named in Connection": b"Connection: close, content-length\r\n" + CL,
    "Host named in Connection": b"Connection: host",
    "TE behind CL": CL + b"\r\n" + TE,
    "CL behind TE": TE + b"\r\n" + CL,
    "CL.0 beside TE": b"Content-Length: 0\r\n" + TE,
    "CL twice": CL + b"\r\n" + CL,
    "CL in another case twice": CL + b"\r\ncontent-length: 12",
    "CL differing": CL + b"\r\nContent-Length: 0",
    "CL-plus": b"Content-Length: +12",
    "CL-minus": b"Content-Length: -12",
    "CL-pad": b"Content-Length: 012",
    "CL-bigpad": b"Content-Length: 000000000000000012",
    "CL padded beyond 18": b"Content-Length: 0000000000000000012",
    "CL-spacepad": b"Content-Length: 1 2",
    "CL-tabpad": b"Content-Length: \t12 \t",
    "CL-e": b"Content-Length: 1.2e1",
    "CL-dec": b"Content-Length: 12.0",
    "CL-hex": b"Content-Length: 0xc",
    "CL-octal": b"Content-Length: 0o14",
    "CL-underscore": b"Content-Length: 1_2",
    "CL-commaprefix": b"Content-Length: ,12",
    "CL-commasuffix": b"Content-Length: 12,",
    "CL-list": b"Content-Length: 12, 12",
    "CL-semicolon": b"Content-Length: 12;x",
    "CL-error": b"Content-Length: x12",
    "CL-superscript": b"Content-Length: \xb9\xb2",
    "CL-arabic": "Content-Length: \u0661\u0662".encode(),
    "CL-fullwidth": "Content-Length: \uff11\uff12".encode(),
    "CL-quoted": b'Content-Length: "12"',
    "CL-2^32": b"Content-Length: 4294967308x",
    "CL-2^64": b"Content-Length: 18446744073709551628",
    "CL-empty": b"Content-Length:",
    "CL with an underscore": b"Content_Length: 12",
    "CL with a dot beside CL": CL + b"\r\nContent.Length: 0",
    "CL-expect-obfs": b"Expect: \x0b100-continue\r\n" + CL,
    "Expect y": b"Expect: y 100-continue\r\n" + CL,
    "Expect quoted": b'Expect: "100-continue"\r\n' + CL,
    "Expect in parts": b"Expect: 100-\r\n continue\r\n" + CL,
    "Expect twice": b"Expect: 100-continue\r\nExpect: 100-continue\r\n" + CL,
    "Expect empty": b"Expect:\r\n" + CL,
    "Expect something": b"Expect: 200-ok\r\n" + CL,
    "Expect with a parameter": b"Expect: 100-continue; q=1\r\n" + CL,
    "Expect in a list": b"Expect: 100-continue, x\r\n" + CL,
    "Expect with a space before the colon": b"Expect : 100-continue\r\n" + CL,
    "a second Host": b"Host: evil.test\r\n" + CL,
    "a second Host in small": b"host: app.test\r\n" + CL,
}


def tricks(cookie: bytes) -> Iterator[Row]:
    for name, lines in TRICKS.items():
        yield row(name, cookie, lines)
        yield row(f"{name}, in HTTP/1.0", cookie, lines, minor=0)
