"""What an app sends back: the head of an answer, a stream of them in pieces, the frames of a WebSocket."""

from __future__ import annotations

import httptools

from tests.core.words import APP, site
from tests.fuzz.targets.requests import pieces
from ztproxy.core.outbound import ResponseFilter, ResponseSettings
from ztproxy.wire.answer import read_answer
from ztproxy.wire.frames import FrameFollower
from ztproxy.wire.head import Body

_FILTER = ResponseFilter(site(), APP, ResponseSettings("max-age=1"))
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate te trailer transfer-encoding upgrade "
    b"content-length http2-settings".split()
)


class _Complete:
    def __init__(self) -> None:
        self.complete = False

    def on_message_complete(self) -> None:
        self.complete = True


def answer_head(data: bytes) -> None:
    """Framed as llhttp frames it, nothing hop-by-hop in it, and no field the edge alone may send."""
    end = data.find(b"\r\n\r\n") + 4
    head = data[:end] if end >= 4 else data
    for method in ("GET", "HEAD"):
        answer = read_answer(head, method)
        assert read_answer(head, method) == answer == read_answer(head, method), "remembered otherwise"
        if answer is None:
            continue
        assert head.endswith(b"\r\n\r\n") and 100 <= answer.status <= 599
        assert (answer.length is not None) or answer.body is not Body.LENGTH
        named = {name.lower() for name, _ in answer.fields}
        assert not named & _HOP_BY_HOP - {b"proxy-authenticate"} and b"proxy-authenticate" not in named
        if method == "HEAD" or answer.status < 200 or answer.status in (204, 304):
            assert answer.body is Body.NONE
        elif answer.body is Body.NONE:
            raise AssertionError("a body that must be there is not expected")
        if answer.body is Body.EOF:
            assert not answer.reusable
        for authenticated in (False, True):
            sent = _FILTER.fields(answer.fields, authenticated=authenticated)
            assert sum(len(name) + len(value) for name, value in sent) <= len(head) + 200
            for name, value in sent:
                assert not name.lower().startswith(b"x-ztproxy") and b"\n" not in value and b"\r" not in value
                ours = value.lstrip(b' \t="').lower().startswith((b"__host-ztp", b"__secure-ztp"))
                assert name.lower() != b"set-cookie" or not ours
        if method == "GET":
            _as_llhttp(head, answer.status, answer.body is Body.NONE or answer.length == 0)


def _as_llhttp(head: bytes, status: int, ends: bool) -> None:
    """Where llhttp takes it, it is of the same status, and over with its head exactly when we say so."""
    heard = _Complete()
    parser = httptools.HttpResponseParser(heard)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        return  # the connection is somebody else's then, as it is for us
    except httptools.HttpParserError:
        return
    assert parser.get_status_code() == status
    assert heard.complete is ends, "llhttp expects another body"


def websocket_frames(data: bytes) -> None:
    """Whole or in pieces at the same boundary, which is where RFC 6455 5.2 puts it."""
    whole, cut = FrameFollower(), FrameFollower()
    if data:
        whole.feed(data)
    for piece in pieces(data):
        cut.feed(piece)
    assert whole.at_boundary is cut.at_boundary is _ends_at_a_frame(data)
    cut.close()
    assert not cut.at_boundary


def _ends_at_a_frame(data: bytes) -> bool:
    at = 0
    while at < len(data):
        if len(data) - at < 2:
            return False
        first, second = data[at], data[at + 1]
        opcode, size, at = first & 15, second & 127, at + 2
        if opcode == 8 or (opcode > 8 and (not first & 128 or size > 125)):
            return False
        if size > 125:
            width = 2 if size == 126 else 8
            if len(data) - at < width:
                return False
            size = int.from_bytes(data[at : at + width])
            at += width
            if size < (126 if width == 2 else 65536) or size >= 1 << 63:
                return False
        at += size + (4 if second & 128 else 0)
    return at == len(data)
