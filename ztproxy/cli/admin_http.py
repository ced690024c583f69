"""One request to the admin API and its answer.

Knows: HTTP/1.1 over a unix socket, TCP or TLS (`http.client`: no server's library is loaded for a command
that lives for a tenth of a second). Promises: it ends by its deadline, however slowly the octets come, and
reads no more than `MAX_ANSWER`; no redirect is followed and no proxy asked, so the credential goes to the
listener named and nowhere else; it says whether the request may have arrived. Leaves what an answer means to
`admin_client`.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, IncompleteRead, RemoteDisconnected
from typing import Any, NamedTuple, cast

from ztproxy.errors import OperatorError

MAX_ANSWER = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Door:
    """A listener of the admin API and what opens it. `name` is what messages call it. `path` is a unix
    socket's; else `host` and `port` are asked, over TLS where there is `tls`.

    `only` is the certificate (DER) that the listener must show, where that is known from its own
    configuration. `token` is "" where a client certificate in `tls` says who asks.
    """

    name: str
    host: str = "localhost"
    port: int = 80
    path: str | None = None
    tls: ssl.SSLContext | None = None
    only: bytes | None = None
    token: str = field(default="", repr=False)


class Reply(NamedTuple):
    """An answer as it came. `media` is its media type in lower case, `retry_after` in seconds, 0 for none."""

    status: int
    media: str
    body: bytes
    retry_after: int = 0


class Unreachable(OperatorError):
    """No answer came. `sent`: the request may have arrived all the same."""

    def __init__(self, door: Door, why: str, mend: str = "", *, sent: bool) -> None:
        super().__init__(f"{door.name}: {why}", mend)
        self.sent = sent


def exchange(
    door: Door, method: str, target: str, fields: Mapping[str, str], body: bytes | None, deadline: float
) -> Reply:
    """Asks once. `target` is path and query; `deadline` is on the monotonic clock. Raises `Unreachable`."""
    try:
        dialled = _dial(door, deadline)
    except OSError as error:
        raise Unreachable(door, *_told(error, door), sent=False) from None
    more = {"Authorization": f"Bearer {door.token}"} if door.token else {}
    with closing(dialled):
        connection = HTTPConnection(door.host, door.port)
        connection.sock = cast(socket.socket, _Until(dialled, deadline))
        try:
            connection.request(method, target, body, {**fields, **more, "Connection": "close"})
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER + 1)
            if answer.length and len(content) <= MAX_ANSWER:
                raise IncompleteRead(content)  # `read` with a bound leaves this to us
        except (OSError, HTTPException) as error:
            # With TLS 1.3 a client learns only now that its certificate is refused; no request was read then.
            raise Unreachable(door, *_told(error, door), sent=not _refuses_us(error)) from None
    if len(content) > MAX_ANSWER:
        raise Unreachable(door, f"the answer is longer than {MAX_ANSWER} bytes", sent=True)
    wait = answer.getheader("Retry-After", "")
    return Reply(
        answer.status,
        answer.getheader("Content-Type", "").partition(";")[0].strip().lower(),
        content,
        int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else 0,
    )


def _dial(door: Door, deadline: float) -> socket.socket:
    if door.path is not None:
        dialled = socket.socket(socket.AF_UNIX)
        try:
            dialled.settimeout(_left(deadline))
            dialled.connect(door.path)
        except BaseException:
            dialled.close()
            raise
        return dialled
    dialled = socket.create_connection((door.host, door.port), _left(deadline))
    if door.tls is None:
        return dialled
    try:
        dialled.settimeout(_left(deadline))
        secured = door.tls.wrap_socket(dialled, server_hostname=door.host)
    except BaseException:
        dialled.close()
        raise
    if door.only is not None and secured.getpeercert(binary_form=True) != door.only:
        secured.close()
        raise ssl.SSLCertVerificationError("not the certificate in the configuration")
    return secured


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Until(io.RawIOBase):
    """A socket for `http.client`. A time-out of a socket counts for each call anew, so that a server which
    sends an octet now and then would hold us for ever; this one counts to the end."""

    def __init__(self, dialled: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = dialled, deadline

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        """`http.client` closes before it has read the body; the socket is closed by whoever dialled."""


def _refuses_us(error: Exception) -> bool:
    """Whether TLS ended because of the certificate that we showed or did not show (RFC 8446 6.2; before 1.3
    it is a handshake failure)."""
    reason = error.reason or "" if isinstance(error, ssl.SSLError) else ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "HANDSHAKE" in reason or "UNKNOWN_CA" in reason)


def _told(error: Exception, door: Door) -> tuple[str, str]:
    """What went wrong and what to do about it. INVARIANT: nothing that came over the wire is quoted."""
    match error:
        case ssl.SSLCertVerificationError():
            why = getattr(error, "verify_message", "") or str(error.args[0])
            return f"its certificate is not to be trusted: {why.lower()}", "name its CA with `--ca`"
        case ssl.SSLError() if _refuses_us(error):
            return "it does not accept our certificate", "give one with `--cert` and `--key`"
        case (
            RemoteDisconnected()
            | IncompleteRead()
            | ConnectionResetError()
            | BrokenPipeError()
            | ssl.SSLEOFError()
        ):
            # A server that wants a certificate and gets none may say no more than that.
            mend = "does it want a client certificate (`--cert`)?" if door.tls is not None else ""
            return "the connection was closed before the answer was whole", mend
        case ssl.SSLError():
            return "it does not speak TLS as it should", "is this the address of the admin listener?"
        case TimeoutError():
            return "no answer came in time", "give it longer with `--wait`"
        case OSError():
            why = (error.strerror or type(error).__name__).lower()
            who = "run this as the user of ztproxy" if isinstance(error, PermissionError) else "does it run?"
            return f"it cannot be reached: {why}", who
        case _:
            return "what answers there speaks no HTTP", "is this the address of the admin listener?"
