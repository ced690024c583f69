"""Where another WebSocket frame may follow, whatever the pieces are that arrive."""

from __future__ import annotations

import pytest

from ztproxy.wire.frames import FrameFollower, close_frame

FIN, TEXT, BINARY, CLOSE, PING = 0x80, 0x1, 0x2, 0x8, 0x9


def frame(size: int, opcode: int = FIN | BINARY, *, masked: bool = False, digits: int | None = None) -> bytes:
    """A frame of `size` octets; `digits` forces so many for its length."""
    mask = 0x80 if masked else 0
    if digits is None:
        digits = 0 if size < 126 else 2 if size < 65536 else 8
    if digits == 0:
        head = bytes((opcode, mask | size))
    else:
        head = bytes((opcode, mask | (126 if digits == 2 else 127))) + size.to_bytes(digits, "big")
    return head + (b"mask" if masked else b"") + b"\x88" * size  # payload that looks like close frames


def boundaries(data: bytes, step: int) -> list[int]:
    """At which offsets a frame may follow, when `data` arrives `step` octets at a time."""
    follower, found = FrameFollower(), []
    for position in range(0, len(data), step):
        follower.feed(data[position : position + step])
        if follower.at_boundary:
            found.append(min(position + step, len(data)))
    return found


SIZES = [0, 1, 125, 126, 127, 65535, 65536]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_ends_where_it_ends(size: int, masked: bool) -> None:
    data = frame(size, masked=masked)
    assert boundaries(data, len(data)) == [len(data)]
    assert boundaries(data + data[:1], len(data) + 1) == [], "half a header is no boundary"
    assert boundaries(data[:-1], len(data)) == []
    for step in (1, 2, 3, 7):
        assert boundaries(data, step) == [len(data)]


@pytest.mark.parametrize("step", [1, 2, 3, 5, 11, 64, 100_000])
def test_many_frames_in_pieces_of_any_size(step: int) -> None:
    frames = [
        frame(3, TEXT),
        frame(0, FIN | PING, masked=True),
        frame(125, FIN | PING),
        frame(300, 0, masked=True),
        frame(70_000, FIN),
        frame(1, masked=True),
    ]
    ends, data = set(), b""
    for one in frames:
        data += one
        ends.add(len(data))
    offsets = {*range(step, len(data), step), len(data)}
    assert set(boundaries(data, step)) == ends & offsets


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(2, FIN | CLOSE), id="a close frame is the last"),
        pytest.param(frame(2, FIN | CLOSE, masked=True), id="masked too"),
        pytest.param(frame(5, digits=2), id="126 for a short length"),
        pytest.param(frame(500, digits=8), id="127 for a middling length"),
        pytest.param(bytes((0x82, 127)) + (2**63).to_bytes(8, "big"), id="2^63"),
        pytest.param(frame(126, FIN | PING), id="a long ping"),
        pytest.param(frame(1, PING), id="a fragmented ping"),
    ],
)
@pytest.mark.parametrize("step", [1, 100_000])
def test_after_these_there_is_no_boundary_ever(data: bytes, step: int) -> None:
    before = frame(9)
    assert set(boundaries(before + data + frame(9) * 3, step)) <= {len(before)}


def test_after_a_close_frame_of_our_own_there_is_none_either() -> None:
    follower = FrameFollower()
    assert follower.at_boundary, "before the first frame one may be put"
    follower.close()
    follower.feed(frame(1))
    assert not follower.at_boundary


def test_a_close_frame_byte_for_byte() -> None:
    assert close_frame(1008, b"no", masked=False) == b"\x88\x04\x03\xf0no"
    first, second = close_frame(1001, b"bye", masked=True), close_frame(1001, b"bye", masked=True)
    assert first[:2] == b"\x88\x85" and first != second, "the mask is drawn for each (RFC 6455 5.3)"
    mask, hidden = first[2:6], first[6:]
    assert bytes(octet ^ mask[i % 4] for i, octet in enumerate(hidden)) == b"\x03\xe9bye"
