"""PROXY protocol version 2: the peer address a trusted load balancer tells us, read before all else.

Knows: the header's grammar (haproxy `proxy-protocol.txt`, §2.2) and who may send one. Promises: on a
listener with this gate no byte reaches the real protocol or TLS before a whole, valid header from a trusted
peer; whatever else arrives closes the connection without an answer. Leaves to the real protocol everything
after the header.

Stricter than the specification: no version 1, only TCP over IPv4 and IPv6 (or LOCAL), at most 536 bytes
after the fixed part, and a list of extensions (TLV) that fits to the byte. Extensions are not read: a
certificate name in one is only as good as the sender's word. Without a trusted sender, a client would
choose the address that network conditions look at (threat T06), so a listener either requires the header of
everybody or accepts it of nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, cast

from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.wire.handshake import Successor

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_LENGTH = 16
MAX_REST = 536
DEADLINE = 5.0

Network = IPv4Network | IPv6Network

_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_LENGTH = {0x11: 12, 0x21: 36}  # TCP over IPv4, TCP over IPv6


class Fixed(NamedTuple):
    """The first 16 bytes: command, family and the length of what follows."""

    local: bool
    family: int
    length: int


def parse_fixed(data: bytes) -> Fixed:
    """Reads exactly `FIXED_LENGTH` bytes. Raises `ClientError` for anything but a version 2 header."""
    if data[:12] != SIGNATURE:
        raise ClientError(Reason.HTTP_SYNTAX, "no PROXY protocol version 2 signature")
    command, family, length = data[12], data[13], int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise ClientError(Reason.HTTP_SYNTAX, f"PROXY command `{command:#04x}` is unknown")
    if length > MAX_REST:
        raise ClientError(Reason.HTTP_SYNTAX, f"PROXY header of {FIXED_LENGTH + length} bytes is too long")
    if command == _PROXY:
        # §2.2 lets AF_UNSPEC pass with the connection's own address. Then one listener would serve requests
        # with two meanings of "client"; a sender that knows no client says LOCAL.
        if family not in _ADDRESS_LENGTH:
            raise ClientError(Reason.HTTP_SYNTAX, f"PROXY family `{family:#04x}` is not TCP over IP")
        if length < _ADDRESS_LENGTH[family]:
            raise ClientError(Reason.HTTP_SYNTAX, "PROXY header is shorter than its addresses")
    return Fixed(command == _LOCAL, family, length)


def parse_source(fixed: Fixed, rest: bytes) -> str | None:
    """The client's address from the `fixed.length` bytes after the fixed part; None for LOCAL.

    An IPv4 address in IPv6 clothes is undressed, so that a network condition sees one form.
    Raises `ClientError` when the extensions do not fit.
    """
    if fixed.local:
        return None  # §2.2: the receiver must accept this, skip the rest and use the real addresses
    address_length = _ADDRESS_LENGTH[fixed.family]
    _check_extensions(rest, address_length)
    source = rest[:4] if address_length == 12 else rest[:16]
    return str(_plain(ip_address(source)))


def _check_extensions(rest: bytes, position: int) -> None:
    while position < len(rest):
        if position + 3 > len(rest):
            raise ClientError(Reason.HTTP_SYNTAX, "PROXY extension is cut off")
        position += 3 + int.from_bytes(rest[position + 1 : position + 3])
    if position != len(rest):
        raise ClientError(Reason.HTTP_SYNTAX, "PROXY extension is longer than the header")


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class ProxyProtocolGate(asyncio.BufferedProtocol):
    """Stands in front of the protocol that `factory` makes, which may itself stand in front of TLS.

    It is a `BufferedProtocol` because that chooses how much the transport reads: exactly the header, never
    a byte of what is behind it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Successor],
        trusted: Sequence[Network],
        deadline: float = DEADLINE,
    ) -> None:
        self._loop, self._factory, self._trusted = loop, factory, trusted
        self._deadline = deadline
        self._buffer = bytearray(FIXED_LENGTH)
        self._filled = 0
        self._fixed: Fixed | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        if not self._is_trusted(transport.get_extra_info("peername")):
            transport.abort()
            return
        self._timer = self._loop.call_later(self._deadline, transport.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled < len(self._buffer) or self._transport.is_closing():
            return
        try:
            if self._fixed is None:
                self._fixed = parse_fixed(bytes(self._buffer))
                if self._fixed.length:
                    self._buffer, self._filled = bytearray(self._fixed.length), 0
                    return
                self._buffer = bytearray()
            source = parse_source(self._fixed, bytes(self._buffer))
        except ClientError:
            self._transport.abort()
            return
        self._hand_over(source)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()

    def _is_trusted(self, peername: object) -> bool:
        if not isinstance(peername, tuple):
            return True  # a unix socket: the mode of its file says who may connect
        address = _plain(ip_address(str(peername[0]).partition("%")[0]))
        return any(address in network for network in self._trusted)

    def _hand_over(self, source: str | None) -> None:
        self._stop_timer()
        # Reading stops first: it starts again with the way of reading the next protocol wants.
        self._transport.pause_reading()
        successor = self._factory()
        successor.peer_address = source
        self._transport.set_protocol(successor)  # type: ignore[arg-type]  # a Protocol in all but name
        self._transport.resume_reading()
        successor.connection_made(self._transport)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
