"""Listening sockets: one per worker on the same port, with TLS or the PROXY protocol where asked for.

Knows: how an address is written and bound. Promises: several workers may open the same TCP address
(SO_REUSEPORT); a unix socket is never taken from a running server, nor any other file removed.
Leaves to its caller: what is spoken, how many connections are let in, and closing those that are open.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from ztproxy.errors import OperatorError
from ztproxy.wire.handshake import ByName, HelloGate, Room, Successor
from ztproxy.wire.proxy_protocol import Network, ProxyProtocolGate

BACKLOG = 1024
UNSENT = 128 * 1024
"""Octets the kernel takes for a client beyond what is on its way to it. It would take megabytes for each that
does not read, and carrying them there holds up everybody else."""
UNIX_MODE = 0o660


def open_socket(address: str, *, shared: bool = True) -> socket.socket:
    """A bound, listening, non-blocking socket for `host:port`, `[ipv6]:port` or `unix:/path`.

    The host is an IP address or `localhost` (127.0.0.1); an IPv6 one is for IPv6 only, so that no peer
    appears as an IPv4 address in IPv6 clothes. Port 0 lets the kernel choose. With `shared` false the port
    must be free of any other listener: SO_REUSEPORT would quietly share it with a second ztproxy. Raises
    `OperatorError`.
    """
    if address.startswith("unix:"):
        return _open_unix(Path(address.removeprefix("unix:")))
    host, port = _split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)  # accepted ones inherit it
        where = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
        listening.bind(where)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise OperatorError(f"cannot listen on `{address}`: {_why(error)}", _mend(error)) from error
    listening.setblocking(False)
    return listening


def check_free(address: str) -> None:
    """Raises `OperatorError` if somebody else listens on `address`; asked once, before the workers start."""
    if not address.startswith("unix:"):
        open_socket(address, shared=False).close()


async def start(
    listening: socket.socket,
    factory: Callable[[], Successor],
    room: Room,
    *,
    tls: ssl.SSLContext | ByName | None = None,
    proxy_protocol_from: Sequence[Network] | None = None,
) -> asyncio.Server:
    """Serves `listening` on the running loop: each connection gets a protocol from `factory`, those with
    `tls` after a handshake, during which they have a place in `room`.

    With a context that depends on the name asked for (`ByName`), the hello is read before TLS begins.
    `proxy_protocol_from` makes a PROXY header the condition of every connection, before all TLS, and names
    who may send one.
    """
    loop = asyncio.get_running_loop()
    # Not the loop's own TLS: that tells nobody of a connection before its handshake is over, nor of one whose
    # handshake failed, so that they could not be counted, nor ended.
    first: Callable[[], object] = factory
    if tls is not None:
        first = partial(HelloGate, loop, factory, tls, room)
    if proxy_protocol_from is not None:
        first = partial(
            ProxyProtocolGate, loop, cast("Callable[[], Successor]", first), tuple(proxy_protocol_from)
        )
    make = cast("Callable[[], asyncio.BaseProtocol]", first)
    if listening.family == socket.AF_UNIX:
        return await loop.create_unix_server(make, sock=listening, backlog=BACKLOG)
    return await loop.create_server(make, sock=listening, backlog=BACKLOG)


def stop_accepting(server: asyncio.Server) -> None:
    """Closes the listening socket; open connections live on and are the caller's to end."""
    server.close()


def _split(address: str) -> tuple[str, int]:
    mend = "write `127.0.0.1:8443`, `[::1]:8443`, `0.0.0.0:8443` or `unix:/run/ztproxy.sock`"
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if host == "localhost":
        host = "127.0.0.1"
    try:
        version = ip_address(host).version
    except ValueError:
        raise OperatorError(f"`{address}` names no IP address to listen on", mend) from None
    if not colon or bracketed != (version == 6):
        raise OperatorError(f"`{address}` is not an address with a port", mend)
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise OperatorError(f"`{address}` has no port between 0 and 65535", mend)
    return host, int(port)


def _open_unix(path: Path) -> socket.socket:
    _make_way(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the file the socket's own mode, so there is no moment at which anyone may connect.
        os.fchmod(listening.fileno(), UNIX_MODE)
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise OperatorError(f"cannot listen on `unix:{path}`: {_why(error)}", _mend(error)) from error
    listening.setblocking(False)
    return listening


def _make_way(path: Path) -> None:
    """Removes the socket of a server that is gone."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OperatorError(f"`{path}` exists and is not a socket", "remove it or choose another path")
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)
            return
    raise OperatorError(f"`unix:{path}` is served by another process", "stop it or choose another path")


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _mend(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "stop the other server or choose another port"
        case errno.EACCES:
            return "choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "choose an address of this machine"
        case _:
            return ""
