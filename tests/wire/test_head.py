"""The byte grammar: which heads pass, and why each of the others does not."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztproxy.core.normalise import RawHead
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Block
from ztproxy.wire.head import (
    _BLOCK_REMEMBERED,
    _BLOCKS_REMEMBERED,
    FIELDS_LIMIT,
    LINE_LIMIT,
    REQUEST_HEAD_LIMIT,
    RESPONSE_HEAD_LIMIT,
    Body,
    ResponseFraming,
    ResponseHead,
    _blocks,
    find_head,
    parse_request,
    parse_response,
    response_framing,
)


def get(*lines: bytes, line: bytes = b"GET /u HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: app.test", *lines]) + b"\r\n\r\n"


def test_a_head_is_taken_apart_and_nothing_is_interpreted() -> None:
    head = get(b"X-A:b", b"x-a: \t c d \t", b"Empty:", b"8bit: caf\xe9\xff", line=b"post /%2e?a#b HTTP/1.0")
    assert parse_request(head) == RawHead(
        b"post",
        b"/%2e?a#b",
        0,
        [
            (b"Host", b"app.test"),
            (b"X-A", b"b"),
            (b"x-a", b"c d"),
            (b"Empty", b""),
            (b"8bit", b"caf\xe9\xff"),
        ],
    )


ACCEPTED = [
    pytest.param(get(), id="plain"),
    pytest.param(b"GET /u HTTP/1.1\r\n\r\n", id="no fields (Host is another rule's)"),
    pytest.param(b"\r\n" + get(), id="one empty line first"),
    pytest.param(b"\r\n\r\n" + get(), id="H85 two empty lines first"),
    pytest.param(get(b"X!#$%&'*+-.^_`|~9: y"), id="every token character"),
    pytest.param(get(b"X: a\tb"), id="HTAB inside a value"),
    pytest.param(get(b"X: " + b"a" * (LINE_LIMIT - 3)), id="longest field line"),
    pytest.param(get(line=b"GET /" + b"a" * (LINE_LIMIT - 14) + b" HTTP/1.1"), id="longest request line"),
    pytest.param(get(*[b"X: y"] * (FIELDS_LIMIT - 1)), id="most fields"),
    pytest.param(get(b"Cookie: " + b"a=b; " * 1500), id="H115 a large cookie"),
]


@pytest.mark.parametrize("head", ACCEPTED)
def test_accepted(head: bytes) -> None:
    assert find_head(head) == len(head)
    assert isinstance(parse_request(head), RawHead)


SYNTAX, FIELD, NAME = Reason.HTTP_SYNTAX, Reason.HTTP_FIELD, Reason.HTTP_FIELD_NAME
LARGE, LONG = Reason.HTTP_HEAD_TOO_LARGE, Reason.HTTP_REQUEST_LINE_TOO_LONG

REFUSED = [
    pytest.param(get(b"Transfer-Encoding:\x0bchunked"), FIELD, id="H28 vertical tab"),
    pytest.param(get(b"Transfer-Encoding:", b" chunked"), FIELD, id="H31 obs-fold of a framing field"),
    pytest.param(get(b"Transfer-Encoding : chunked"), NAME, id="H32 space before the colon"),
    pytest.param(get(b"Host\t: a"), NAME, id="tab before the colon"),
    pytest.param(b"GET /u HTTP/1.1\nHost: app.test\n\r\n\r\n", SYNTAX, id="H62 bare LF"),
    pytest.param(get(b"X: a\nY: b"), FIELD, id="LF inside a line"),
    pytest.param(get(b"X: a\rY: b"), FIELD, id="H64 bare CR"),
    pytest.param(get(b"X: a\r\r"), FIELD, id="CR CR LF"),
    pytest.param(get(b"X: a", b" b"), FIELD, id="H65 obs-fold by space"),
    pytest.param(get(b"X: a", b"\tb: c"), FIELD, id="obs-fold by tab"),
    pytest.param(b"GET /u HTTP/1.1\r\n Host: app.test\r\n\r\n", FIELD, id="space before the first field"),
    pytest.param(get(b"X"), FIELD, id="H67 no colon"),
    pytest.param(get(b": y"), NAME, id="H68 empty name"),
    pytest.param(get(b"X: a\x01b"), FIELD, id="H70 control in a value"),
    pytest.param(get(b"X: a\x00b"), FIELD, id="NUL in a value"),
    pytest.param(get(b"X: a\x7fb"), FIELD, id="DEL in a value"),
    pytest.param(get(b"X\x00Y: b"), NAME, id="H71 NUL in a name"),
    pytest.param(get(b"\xeffoo: b"), NAME, id="H72 8-bit name"),
    pytest.param(get(b"X(Y): b"), NAME, id="H74 delimiter in a name"),
    pytest.param(get(b"X Y: b"), NAME, id="space in a name"),
    pytest.param(b"GET /u\r\n\r\n", SYNTAX, id="H75 HTTP/0.9"),
    pytest.param(get(line=b"GET /u HTTP/0.9"), Reason.HTTP_VERSION, id="0.9 by name"),
    pytest.param(get(line=b"GET /u HTTP/1.2"), Reason.HTTP_VERSION, id="1.2"),
    pytest.param(get(line=b"GET /u HTTP/2.0"), Reason.HTTP_VERSION, id="H77 2.0"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\n", Reason.HTTP_VERSION, id="the HTTP/2 preface"),
    pytest.param(get(line=b"GET /u HTTP/1.10"), SYNTAX, id="two-digit minor"),
    pytest.param(get(line=b"GET /u HTTP/1.1 "), SYNTAX, id="H78 space at the end"),
    pytest.param(get(line=b" GET /u HTTP/1.1"), SYNTAX, id="space at the start"),
    pytest.param(get(line=b"GET  /u HTTP/1.1"), SYNTAX, id="two spaces"),
    pytest.param(get(line=b"GET\t/u\tHTTP/1.1"), SYNTAX, id="H80 tabs"),
    pytest.param(get(line=b"GET /a b HTTP/1.1"), SYNTAX, id="H81 space in the target"),
    pytest.param(get(line=b"GET /u http/1.1"), SYNTAX, id="H82 lower-case version"),
    pytest.param(get(line=b'G=":<>(e),[T];?" /u HTTP/1.1'), SYNTAX, id="H84 method is no token"),
    pytest.param(get(line=b"GET /caf\xc3\xa9 HTTP/1.1"), Reason.HTTP_TARGET, id="P28 8-bit target"),
    pytest.param(get(line=b"GET /\x01 HTTP/1.1"), SYNTAX, id="control in the target"),
    pytest.param(b"\r\n\r\n\r\n" + get(), SYNTAX, id="three empty lines first"),
    pytest.param(b"\n" + get(), SYNTAX, id="a bare LF first"),
    pytest.param(b"", SYNTAX, id="nothing"),
    pytest.param(get()[:-2], SYNTAX, id="no blank line"),
    pytest.param(get() + b"GET", SYNTAX, id="more than the head"),
    pytest.param(get(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), LONG, id="H111 line too long"),
    pytest.param(get(line=b"GET /" + b"a" * (LINE_LIMIT - 13) + b" HTTP/1.1"), LONG, id="line one too long"),
    pytest.param(get(line=b"GET /" + b"\xff" * 9000), LONG, id="a malformed line too long"),
    pytest.param(get(b"X: " + b"a" * 9000), LARGE, id="H112 field too long"),
    pytest.param(get(b"X: " + b"a" * (LINE_LIMIT - 2)), LARGE, id="field one too long"),
    pytest.param(get(*[b"X%d: %b" % (i, b"a" * 4000) for i in range(20)]), LARGE, id="H114 80 KiB in all"),
    pytest.param(get(*[b"X: y"] * FIELDS_LIMIT), LARGE, id="one field too many"),
]


@pytest.mark.parametrize(("head", "reason"), REFUSED)
def test_refused(head: bytes, reason: Reason) -> None:
    assert parse_request(head) is reason


@pytest.mark.parametrize("position", range(10))
@pytest.mark.parametrize(
    "octet", [0x01, 0x04, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1F, 0x20, 0x7F, 0xA0, 0xFF]
)
def test_no_octet_hides_a_framing_field(octet: int, position: int) -> None:
    """The defparam mutations: either the head is refused, or the field is seen under its own name."""
    mutant = bytes([octet])
    line = [
        mutant + b"Transfer-Encoding: chunked",
        b"Transfer" + mutant + b"-Encoding: chunked",
        b"Transfer-Encoding" + mutant + b": chunked",
        b"Transfer-Encoding:" + mutant + b"chunked",
        b"Transfer-Encoding: chunked" + mutant,
        b"Transfer-Encoding: chu" + mutant + b"nked",
        b"X: y" + mutant + b"Transfer-Encoding: chunked",
        b"X: y" + mutant + b"\r\nTransfer-Encoding: chunked",
        b"X: y\r" + mutant + b"Transfer-Encoding: chunked",
        b"X: y\r\n" + mutant + b"\r\nTransfer-Encoding: chunked",
    ][position]
    parsed = parse_request(get(line))
    if isinstance(parsed, RawHead):
        coded = [value for name, value in parsed.fields if name.lower() == b"transfer-encoding"]
        # Whatever is not one clean `chunked` here is refused by the framing rule; nothing is swallowed.
        assert coded == [b"chunked"] or position in (3, 4, 5, 6)
        if position == 6:
            assert dict(parsed.fields)[b"X"] == b"y" + mutant + b"Transfer-Encoding: chunked"


FOUND = [
    pytest.param(b"", 0, id="nothing yet"),
    pytest.param(b"GET /u HT", 0, id="half a line"),
    pytest.param(get()[:-1], 0, id="the last octet is missing"),
    pytest.param(get() + b"body\n\x00", len(get()), id="a body follows"),
    pytest.param(get() + get(), len(get()), id="pipelined"),
    pytest.param(b"\r", 0, id="half an empty line"),
    pytest.param(b"\r\n\r\n", 0, id="two empty lines alone"),
    pytest.param(b"\r\n" * 3, SYNTAX, id="three empty lines"),
    pytest.param(b"GET /u HTTP/1.1\nHost: app.test\n\n", SYNTAX, id="H62 bare LF is refused at once"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", SYNTAX, id="H87 TLS on a clear port"),
    pytest.param(b"GET /" + b"a" * LINE_LIMIT, LONG, id="an endless line"),
    pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * REQUEST_HEAD_LIMIT, LARGE, id="an endless field"),
    pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 9000, 0, id="too long a field is refused when whole"),
]


@pytest.mark.parametrize(("buffer", "answer"), FOUND)
def test_find_head(buffer: bytes, answer: int | Reason) -> None:
    assert find_head(buffer) == answer
    assert find_head(bytearray(buffer)) == answer


@pytest.mark.parametrize("first", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_find_head_however_the_octets_arrive(first: bytes, step: int) -> None:
    whole = first + get(b"X: y")
    scanned = 0
    for end in range(step, len(whole) + step, step):
        answer = find_head(whole[:end], scanned)
        assert answer == (len(whole) if end >= len(whole) else 0)
        scanned = end


@pytest.mark.parametrize("step", [1, 5])
def test_a_hopeless_head_is_refused_however_it_arrives(step: int) -> None:
    whole, scanned, answers = b"GET /u HTTP/1.1\r\nHost: app.test\nX: y", 0, []
    for end in range(step, len(whole) + 1, step):
        answers.append(find_head(whole[:end], scanned))
        scanned = end
    assert Reason.HTTP_SYNTAX in answers


# An independent, slow reading of the same grammar.
_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~\w]+:[\t -~\x80-\xff]*", re.ASCII)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.binary(max_size=6)
        | st.sampled_from(
            [b"Host", b": ", b":", b"\r\n", b"\r", b"\n", b" ", b"\t", b"Content-Length", b"chunked"]
        ),
        max_size=14,
    )
)
def test_what_is_accepted_is_exactly_its_lines(parts: list[bytes]) -> None:
    block = b"".join(parts)
    parsed = parse_request(b"GET / HTTP/1.1\r\nA: b" + block + b"\r\n\r\n")
    lines = (b"A: b" + block).split(b"\r\n")
    if all(map(_LINE.fullmatch, lines)):
        expected = []
        for line in lines:
            name, _, value = line.partition(b":")
            expected.append((name, value.strip(b" \t")))
        assert parsed == RawHead(b"GET", b"/", 1, expected)
    else:
        assert isinstance(parsed, Reason)


# ---- blocks that come again ------------------------------------------------------------------------------


def test_a_block_that_comes_again_is_the_same_block() -> None:
    unknown, first = parse_request(get(b"A: 1")), parse_request(get(b"A: 1"))
    again = parse_request(get(b"A: 1", line=b"PUT /v HTTP/1.0"))
    assert first == unknown and isinstance(first, RawHead) and isinstance(again, RawHead)
    assert again == RawHead(b"PUT", b"/v", 0, [(b"Host", b"app.test"), (b"A", b"1")])
    assert again.fields is first.fields and type(first.fields) is Block
    assert again.fields.octets == b"Host: app.test\r\nA: 1\r\n\r\n"


AFTER_A_KNOWN_BLOCK = [
    pytest.param(get(line=b"GET  /u HTTP/1.1"), Reason.HTTP_SYNTAX, id="two spaces"),
    pytest.param(get(line=b"GET /u HTTP/1.2"), Reason.HTTP_VERSION, id="version"),
    pytest.param(get(line=b"GET /\xe9 HTTP/1.1"), Reason.HTTP_TARGET, id="8-bit target"),
    pytest.param(get(line=b"GET /u HTTP/1.1\r"), Reason.HTTP_SYNTAX, id="CR before the end"),
    pytest.param(get(line=b"GET /u HTTP/1.1\n"), Reason.HTTP_SYNTAX, id="LF before the end"),
    pytest.param(
        get(line=b"GET /" + b"u" * LINE_LIMIT + b" HTTP/1.1"),
        Reason.HTTP_REQUEST_LINE_TOO_LONG,
        id="long line",
    ),
    pytest.param(b"GET /a HTTP/1.1\r\n" + get(), Reason.HTTP_FIELD, id="another request line"),
    pytest.param(b"GET /a HTTP/1.1\r\n\r\n" + get(), Reason.HTTP_FIELD, id="another request"),
]


@pytest.mark.parametrize("lead", [b"", b"\r\n", b"\r\n\r\n"], ids=["no lead", "CRLF", "CRLF twice"])
@pytest.mark.parametrize(("head", "reason"), AFTER_A_KNOWN_BLOCK)
def test_a_known_block_excuses_no_request_line(head: bytes, reason: Reason, lead: bytes) -> None:
    """Least of all one that came after empty lines: then what follows the first CRLF is no block."""
    for _ in range(3):
        assert isinstance(parse_request(lead + get()), RawHead)
        assert isinstance(parse_request(head), Reason)
    assert isinstance(parse_request(get()), RawHead)
    assert parse_request(head) is reason


def test_blocks_are_remembered_within_bounds() -> None:
    for number in range(2 * _BLOCKS_REMEMBERED + 1):
        for _ in range(3):
            parsed = parse_request(get(b"X-Number: %d" % number))
        assert isinstance(parsed, RawHead) and parsed.fields[1] == (b"X-Number", b"%d" % number)
        assert len(_blocks) <= _BLOCKS_REMEMBERED
    long = get(b"X-Long: " + b"a" * _BLOCK_REMEMBERED)
    for _ in range(3):
        parsed = parse_request(long)
        assert isinstance(parsed, RawHead) and type(parsed.fields) is list


# ---- responses -------------------------------------------------------------------------------------------


def ok(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *lines]) + b"\r\n\r\n"


RESPONSES = [
    pytest.param(ok(), ResponseHead(200, b"OK", 1, []), id="plain"),
    pytest.param(ok(line=b"HTTP/1.0 599 "), ResponseHead(599, b"", 0, []), id="empty reason"),
    pytest.param(ok(line=b"HTTP/1.1 204"), ResponseHead(204, b"", 1, []), id="no reason and no space"),
    pytest.param(
        ok(line=b"HTTP/1.1 103 Early \xe9\t."), ResponseHead(103, b"Early \xe9\t.", 1, []), id="8-bit"
    ),
    pytest.param(ok(b"X_y:  z "), ResponseHead(200, b"OK", 1, [(b"X_y", b"z")]), id="fields"),
    pytest.param(ok(b"X: a", b"Y: b\nContent-Length: 3"), None, id="U07 bare LF"),
    pytest.param(ok(b"X: a\rSet-Cookie: s=1"), None, id="U08 bare CR"),
    pytest.param(ok(b"X: a", b" b"), None, id="obs-fold"),
    pytest.param(ok(b"X : a"), None, id="U10 space before the colon"),
    pytest.param(ok(b"X"), None, id="U11 no colon"),
    pytest.param(ok(b"X: " + b"a" * RESPONSE_HEAD_LIMIT), None, id="U18 too large"),
    pytest.param(ok(line=b"HTTP/2.0 200 OK"), None, id="U20 version"),
    pytest.param(ok(line=b"HTTP/1.1 999 X"), None, id="U21 status out of range"),
    pytest.param(ok(line=b"HTTP/1.1 099 X"), None, id="status below 100"),
    pytest.param(ok(line=b"HTTP/1.1 20 OK"), None, id="U22 two digits"),
    pytest.param(ok(line=b"HTTP/1.1 2000 OK"), None, id="four digits"),
    pytest.param(ok(line=b"HTTP/1.1  200 OK"), None, id="two spaces"),
    pytest.param(ok(line=b"HTTP/1.1 200 O\x00K"), None, id="control in the reason"),
    pytest.param(ok(line=b"ICY 200 OK"), None, id="another protocol"),
    pytest.param(b"\r\n" + ok(), None, id="an empty line first"),
    pytest.param(ok(*[b"X: y"] * 500), None, id="U35 too many fields"),
    pytest.param(ok()[:-2], None, id="no blank line"),
]


@pytest.mark.parametrize(("head", "expected"), RESPONSES)
def test_parse_response(head: bytes, expected: ResponseHead | None) -> None:
    assert parse_response(head) == expected


CL3, CHUNKED = b"Content-Length: 3", b"Transfer-Encoding: chunked"
LENGTH_3, NO_BODY, EOF = (
    ResponseFraming(Body.LENGTH, 3),
    ResponseFraming(Body.NONE),
    ResponseFraming(Body.EOF),
)
IN_CHUNKS = ResponseFraming(Body.CHUNKED)

FRAMINGS = [
    pytest.param("GET", 200, 1, [CL3], LENGTH_3, id="length"),
    pytest.param("GET", 200, 0, [CL3], LENGTH_3, id="length in 1.0"),
    pytest.param("GET", 200, 1, [b"content-length: 003"], LENGTH_3, id="leading zeros"),
    pytest.param("GET", 200, 1, [b"transfer-encoding: CHUNKED"], IN_CHUNKS, id="chunked in any case"),
    pytest.param("GET", 200, 1, [b"X-Other-Field1: 3", b"X-Some-Other-Name: y"], EOF, id="U27 to the end"),
    pytest.param("HEAD", 200, 1, [CL3], ResponseFraming(Body.NONE, 3), id="HEAD announces a length"),
    pytest.param("HEAD", 200, 1, [CHUNKED], NO_BODY, id="HEAD of chunks"),
    pytest.param("GET", 304, 1, [CL3], ResponseFraming(Body.NONE, 3), id="304 announces a length"),
    pytest.param("GET", 304, 1, [], NO_BODY, id="304"),
    pytest.param("GET", 204, 1, [b"Content-Length: 0"], NO_BODY, id="204 with length 0"),
    pytest.param("GET", 204, 1, [], NO_BODY, id="204"),
    pytest.param("GET", 100, 1, [], NO_BODY, id="100"),
    pytest.param("GET", 204, 1, [CL3], None, id="204 with a body"),
    pytest.param("GET", 204, 1, [CHUNKED], None, id="204 in chunks"),
    pytest.param("GET", 101, 1, [CL3], None, id="101 with a body"),
    pytest.param("GET", 200, 1, [CL3, CL3], None, id="U01 equal lengths twice"),
    pytest.param("GET", 200, 1, [CL3, b"Content-Length: 9"], None, id="U02 two lengths"),
    pytest.param("HEAD", 200, 1, [CL3, CL3], None, id="two lengths for HEAD"),
    pytest.param("GET", 200, 1, [CL3, CHUNKED], None, id="length and chunks"),
    pytest.param("GET", 200, 1, [CHUNKED, CHUNKED], None, id="chunked twice"),
    pytest.param("GET", 200, 1, [b"Transfer-Encoding: gzip, chunked"], None, id="U04 two codings"),
    pytest.param("GET", 200, 1, [b"Transfer-Encoding: xchunked"], None, id="U05 another coding"),
    pytest.param("GET", 200, 1, [b"Transfer-Encoding: identity"], None, id="identity"),
    pytest.param("GET", 200, 0, [CHUNKED], None, id="U34 chunks in 1.0"),
    pytest.param("GET", 200, 1, [b"Content-Length: +3"], None, id="U28 a sign"),
    pytest.param("GET", 200, 1, [b"Content-Length: 3, 3"], None, id="a list"),
    pytest.param("GET", 200, 1, [b"Content-Length:"], None, id="empty length"),
    pytest.param("GET", 200, 1, [b"Content-Length: \xb2"], None, id="superscript two"),
    pytest.param("GET", 200, 1, [b"Content-Length: " + b"1" * 19], None, id="19 digits"),
]


@pytest.mark.parametrize(("method", "status", "minor", "lines", "expected"), FRAMINGS)
def test_response_framing(
    method: str, status: int, minor: int, lines: list[bytes], expected: ResponseFraming | None
) -> None:
    head = parse_response(ok(*lines, line=b"HTTP/1.%d %d X" % (minor, status)))
    assert head is not None
    assert response_framing(method, head) == expected
