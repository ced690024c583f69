"""Where WebSocket frames end (RFC 6455 5.2), and the one frame we speak ourselves: close.

Knows: the frame header. Promises: `at_boundary` only where another frame may follow what was fed; big frames
cost one subtraction a piece, and no payload is copied. Leaves payloads, masks and extensions alone: none of
them moves a boundary. A close frame is valid between the fragments of a message too (RFC 6455 5.4).
"""

from __future__ import annotations

import os
from typing import Final

GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008

_FIN, _CONTROL, _OPCODE, _MASKED, _LENGTH = 0x80, 0x08, 0x0F, 0x80, 0x7F
_CLOSE: Final = 0x8
# By the first octet: whether it is that of a frame which another may follow.
_PLAIN: Final = tuple(
    first & _OPCODE != _CLOSE and (not first & _CONTROL or first & _FIN > 0) for first in range(256)
)
# By the second octet: the size of the whole frame, or 0 where its length takes more octets.
_SMALL: Final = tuple(
    0 if second & _LENGTH > 125 else 2 + (second & _LENGTH) + (4 if second & _MASKED else 0)
    for second in range(256)
)
_ENDLESS: Final = 1 << 80


class FrameFollower:
    """Follows one direction of a connection from its first octet on."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""  # an unfinished header
        self._left = 0  # octets of the present frame; more than ever come where no frame may follow

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may be put in here. Never again after a close frame, nor after what is no frame:
        then nobody can say any more where frames begin.
        """
        return self._left == 0 and not self._head

    def close(self) -> None:
        """A close frame of our own was put in: it is the last."""
        self._left = _ENDLESS

    def feed(self, data: bytes) -> None:
        """The next octets, at least one."""
        size, head = len(data), self._head
        if size <= self._left:
            self._left -= size
            return
        position = self._left
        while position < size:
            # Most frames are small, and all of their header is here.
            if not head and size - position > 1 and _PLAIN[data[position]]:
                step = _SMALL[data[position + 1]]
                if step:
                    position += step
                    continue
            end = position + _missing(head)
            head += data[position:end]
            position = min(end, size)
            if _missing(head):
                continue
            follows = _follows(head)
            head = b""
            if follows is None:
                self._head, self._left = b"", _ENDLESS
                return
            position += follows
        self._head, self._left = head, position - size


def _missing(head: bytes) -> int:
    """How many octets a header lacks, as far as can be told."""
    if len(head) < 2:
        return 2 - len(head)
    return {126: 4, 127: 10}.get(head[1] & _LENGTH, 2) - len(head)


def _follows(head: bytes) -> int | None:
    """How many octets follow this header in its frame; None when no frame may follow it."""
    first, second = head[0], head[1]
    length = second & _LENGTH
    if not _PLAIN[first] or (first & _CONTROL and length > 125):
        return None  # RFC 6455 5.5: control frames are short and whole
    if length > 125:
        # RFC 6455 5.2: in the fewest octets, and below 2^63.
        fewest = 126 if length == 126 else 65536
        length = int.from_bytes(head[2:], "big")
        if length < fewest or length >> 63:
            return None
    return length + (4 if second & _MASKED else 0)


def close_frame(code: int, text: bytes, *, masked: bool) -> bytes:
    """A whole close frame; `masked` towards a server (RFC 6455 5.1). `text` is UTF-8, at most 123 octets."""
    payload = code.to_bytes(2, "big") + text
    if not masked:
        return bytes((_FIN | _CLOSE, len(payload))) + payload
    mask = os.urandom(4)
    hidden = bytes(octet ^ mask[i % 4] for i, octet in enumerate(payload))
    return bytes((_FIN | _CLOSE, _MASKED | len(payload))) + mask + hidden
