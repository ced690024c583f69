"""llhttp's opinion is asked about each head alone: nothing of one client's head touches the next."""

from __future__ import annotations

import pytest

from ztproxy.wire.agreement import SecondOpinion

PLAIN = b"GET /u HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = b"POST /u HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"POST /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
ROWS = [
    pytest.param(PLAIN, False, True, id="no body"),
    pytest.param(PLAIN, True, False, id="we say a body, llhttp does not"),
    pytest.param(LENGTH, True, True, id="a counted body"),
    pytest.param(LENGTH, False, False, id="llhttp says a body, we do not"),
    pytest.param(LENGTH.replace(b"3", b"0"), False, True, id="an empty body"),
    pytest.param(CHUNKED, True, True, id="a chunked body"),
    pytest.param(PLAIN[:-2] + b"Connection: close\r\n\r\n", False, True, id="the last one"),
    pytest.param(
        PLAIN[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", False, True, id="an upgrade"
    ),
    pytest.param(
        LENGTH[:-2] + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n", True, False, id="an upgrade with a body"
    ),
    pytest.param(b"\r\n\r\n" + PLAIN, False, True, id="empty lines first"),
    pytest.param(PLAIN.replace(b"1.1", b"1.0"), False, True, id="HTTP/1.0"),
    pytest.param(PLAIN.replace(b"Host:", b"Host :"), False, False, id="refused by llhttp"),
    pytest.param(PLAIN[:-2], False, False, id="not the end for llhttp"),
]


@pytest.mark.parametrize(("head", "has_body", "agreed"), ROWS)
def test_agrees(head: bytes, has_body: bool, agreed: bool) -> None:
    second = SecondOpinion()
    for _ in range(3):
        assert second.agrees(head, has_body) is agreed
        assert second.agrees(PLAIN, False), "the next head is judged afresh"
