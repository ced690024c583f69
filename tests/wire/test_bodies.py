"""Where bodies end, however they are cut up; what is refused; and that llhttp agrees with the rest."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.wire.bodies import ChunkedBody, LengthBody, chunk


def read(body: ChunkedBody | LengthBody, data: bytes, step: int) -> bytes | None:
    """The payload, fed `step` octets at a time until the body ends; None when it was refused."""
    payload = b""
    for start in range(0, len(data), step):
        piece = body.feed(data[start : start + step])
        if piece is None:
            return None
        payload += piece
        if body.ended:
            body.rest += data[start + step :]
            break
    return payload


ACCEPTED = [
    pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="one chunk"),
    pytest.param(b"0\r\n\r\n", b"", id="nothing"),
    pytest.param(b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", id="two chunks"),
    pytest.param(b"03\r\nabc\r\n000\r\n\r\n", b"abc", id="leading zeros"),
    pytest.param(b"3;a=b;c\r\nabc\r\n0;x\r\n\r\n", b"abc", id="extensions"),
    pytest.param(b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", id="line ends as data"),
    pytest.param(b"3\r\nabc\r\n0\r\nX: y\r\nSet-Cookie: a\r\n\r\n", b"abc", id="trailers are dropped"),
    pytest.param(b"0\r\nX: " + b"a" * 4093 + b"\r\n\r\n", b"", id="as much trailer as there may be"),
]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("data", "payload"), ACCEPTED)
def test_chunked_accepted(data: bytes, payload: bytes, step: int) -> None:
    body = ChunkedBody()
    assert read(body, data + b"GET / HTTP/1.1", step) == payload
    assert body.ended
    assert body.rest == b"GET / HTTP/1.1"


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100000])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"3\nabc\r\n0\r\n\r\n", id="H40 bare LF after the size"),
        pytest.param(b"3;\nabc\r\n0\r\n\r\n", id="H41 bare LF after the extension"),
        pytest.param(b"3;a\nb\r\nabc\r\n0\r\n\r\n", id="H42 LF in an extension"),
        pytest.param(b"3;" + b"x" * 70000 + b"\r\nabc\r\n0\r\n\r\n", id="H44 extension flood"),
        pytest.param(b"1;xxx\r\na\r\n" * 1100 + b"0\r\n\r\n", id="extension flood in small coin"),
        pytest.param(b"0x3\r\nabc\r\n0\r\n\r\n", id="H45 prefix"),
        pytest.param(b"-1\r\nabc\r\n0\r\n\r\n", id="H47 sign"),
        pytest.param(b" 3\r\nabc\r\n0\r\n\r\n", id="H48 leading space"),
        pytest.param(b"3 \r\nabc\r\n0\r\n\r\n", id="trailing space"),
        pytest.param(b"3_0\r\n" + b"a" * 48 + b"\r\n0\r\n\r\n", id="H50 underscore"),
        pytest.param(b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n", id="H51 more than 64 bits"),
        pytest.param(b"3\r\nabcd\r\n0\r\n\r\n", id="H52 data longer than its size"),
        pytest.param(b"3\r\nabc\n0\r\n\r\n", id="H54 bare LF after data"),
        pytest.param(b"\r\n3\r\nabc\r\n0\r\n\r\n", id="H55 empty size line"),
        pytest.param(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", id="H57 framing in the trailer"),
        pytest.param(b"3\r\nabc\r\n0\r\nX: " + b"y" * 100000 + b"\r\n\r\n", id="H58 trailer flood"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 17 + b"\r\n", id="17 trailers"),
        pytest.param(b"0\r\nX y\r\n\r\n", id="a trailer without a colon"),
        pytest.param(b"0\r\nX: a\nY: b\r\n\r\n", id="bare LF in the trailer"),
        pytest.param(b"0\r\nX: a\x00\r\n\r\n", id="NUL in the trailer"),
        pytest.param(b"0\r\n X: a\r\n\r\n", id="folded trailer"),
        pytest.param(b"ZZ\r\n", id="U24 no digits"),
    ],
)
def test_chunked_refused(data: bytes, step: int) -> None:
    body = ChunkedBody()
    assert read(body, data, step) is None
    assert not body.ended or body.rest == b""


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.integers(1, 50),
    st.sampled_from([b"", b";a", b";a=b"]),
)
def test_llhttp_reads_the_same(pieces: list[bytes], step: int, extension: bytes) -> None:
    data = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"
    theirs: list[bytes] = []

    class Listener:
        def on_body(self, data: bytes) -> None:
            theirs.append(data)

    parser = httptools.HttpRequestParser(Listener())
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    assert read(ChunkedBody(), data, step) == b"".join(theirs) == b"".join(pieces)


@given(st.binary(max_size=60), st.integers(1, 60))
def test_what_is_accepted_does_not_depend_on_the_reads(data: bytes, step: int) -> None:
    data = b"3\r\nabc" + data
    whole, cut = ChunkedBody(), ChunkedBody()
    assert (read(whole, data, 1000) is None) == (read(cut, data, step) is None)
    assert (whole.ended, whole.rest if whole.ended else b"") == (cut.ended, cut.rest if cut.ended else b"")


def test_many_small_chunks_are_one_payload() -> None:
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\n" * 20000 + b"0\r\n\r\n") == b"a" * 20000
    assert body.ended


@pytest.mark.parametrize("step", [1, 2, 4, 100])
def test_length(step: int) -> None:
    body = LengthBody(4)
    assert read(body, b"abcdGET /", step) == b"abcd"
    assert body.rest == b"GET /"


def test_chunk() -> None:
    assert b"".join(chunk(b"x" * 16)) == b"10\r\n" + b"x" * 16 + b"\r\n"
