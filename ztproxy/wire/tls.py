"""TLS contexts: server certificates chosen by SNI and renewed while running, and contexts for upstreams.

Knows: which protocol versions, ciphers and names are offered. Promises: `ServerTLS.context` stays the same
object for the life of the listener, whatever is reloaded; a bad pair never replaces a good one; TLS 1.2 is
the least. Leaves to its caller: when to look for new files, where expiry is shown, and whether `Host` must
equal the SNI name.

Certificates match by their DNS subject alternative names only (RFC 9525 §6.3: the common name is not a name).

Client certificates: OpenSSL verifies a shown one against the authorities of the server certificate's context,
and whether one is asked for is the `verify_mode` of the context the connection was made with. Swapping the
context in the SNI callback changes the former and not the latter; so where names differ in it, the name is
read before (`ServerTLS.by_name`), and the callback refuses what would be asked less than its name demands.
"""

from __future__ import annotations

import _ssl
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from cryptography import x509

from ztproxy.core.request import ClientCertificate
from ztproxy.core.upstream import UpstreamTLS
from ztproxy.errors import OperatorError
from ztproxy.wire.client_hello import canonical_name
from ztproxy.wire.handshake import ByName

MinVersion = Literal["1.2", "1.3"]

# TLS 1.2 with forward secrecy and authenticated encryption only; TLS 1.3 suites are OpenSSL's own.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which the `ssl` module does not name.
_NO_CHECK_TIME = 0x200000
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ClientAuth:
    """Clients are asked for a certificate that leads to one of `authorities` (paths of PEM files).

    `required`: without a valid one there is no connection. Otherwise one may be missing or out of its time,
    so that the person sees a page about it and not their browser's alert; a certificate of strangers ends the
    handshake in either case. What holds on each request (time, revocation) is looked at there, not here.
    `asks(name)` tells which connections are asked, by canonical name; None asks all. A connection without a
    name is always asked.
    """

    authorities: tuple[str, ...]
    required: bool = False
    asks: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate chain with its key, as loaded."""

    names: frozenset[str]
    not_after: float
    context: ssl.SSLContext


class ServerTLS:
    """The server side: `(certificate, key)` PEM paths; the first is for clients that name nobody we know.

    `context` serves every connection, and asks it if any is asked. Where `clients` asks at some names only,
    `by_name` is the context for a connection whose name is known before; it is None elsewhere.

    On each connection's `ssl_object` are left: `server_name`, canonical or None, and `asked`, whether this
    very handshake asked for a certificate. Raises `OperatorError` when a file cannot be used.
    """

    def __init__(
        self,
        certificates: Sequence[tuple[str, str]],
        min_version: MinVersion = "1.2",
        clients: ClientAuth | None = None,
    ) -> None:
        if not certificates:
            raise OperatorError("no certificate is given", "name at least one `certificate` and `key`")
        self._files = tuple(certificates)
        self._authorities = () if clients is None else clients.authorities
        if clients is not None and not clients.authorities:
            raise OperatorError("no authority of client certificates is given", "name at least one file")
        self._min_version: MinVersion = min_version
        self._asks = None if clients is None else clients.asks
        self._seen = [_stamp(self._watched(pair)) for pair in self._files]
        self._pairs = [_load(pair, min_version, self._authorities) for pair in self._files]
        self._by_name = _index(self._pairs)
        self.context = self._listening(clients)
        self._quiet = self._listening(None)
        self.by_name: ByName | None = None if self._asks is None else self._for_name

    def reload_if_changed(self) -> bool:
        """Loads the pairs whose files, or the authorities, changed; True if a new one is now served.

        Each pair stands alone: those that load are served at once, then the bad ones are raised together as
        one `OperatorError` while their old ones stay in service. A bad pair is reported once, until its
        files change again (a renewal that writes certificate and key one after the other mends itself).
        """
        problems, renewed = [], False
        for position, files in enumerate(self._files):
            stamp = _stamp(self._watched(files))
            if stamp == self._seen[position]:
                continue
            # INVARIANT: the stamp is taken before the files are read. A file that changes in between then
            # differs from its stamp and is read again; the other order would miss the change for good.
            self._seen[position] = stamp
            try:
                self._pairs[position] = _load(files, self._min_version, self._authorities)
                renewed = True
            except OperatorError as error:
                problems.append(str(error))
        if renewed:
            self._by_name = _index(self._pairs)
        if problems:
            raise OperatorError(
                "; ".join(dict.fromkeys(problems)), "the certificate loaded before stays in service"
            )
        return renewed

    def expiries(self) -> list[tuple[str, float]]:
        """For each pair its certificate path and `notAfter` in seconds since the epoch."""
        return [
            (certificate, pair.not_after)
            for (certificate, _), pair in zip(self._files, self._pairs, strict=True)
        ]

    def _listening(self, clients: ClientAuth | None) -> ssl.SSLContext:
        """A context that never presents a certificate of its own: OpenSSL asks the callback in every
        handshake, with None for a client that sends no name."""
        context = _server_context(self._min_version)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED if clients.required else ssl.CERT_OPTIONAL
            # An authority that another one signed may be configured alone.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            if not clients.required:
                context.verify_flags |= _NO_CHECK_TIME
        context.sni_callback = self._choose
        return context

    def _watched(self, files: tuple[str, str]) -> tuple[str, ...]:
        # The authorities are part of each pair: OpenSSL takes them from the context the callback swaps in.
        return (*files, *self._authorities)

    def _for_name(self, name: str | None) -> ssl.SSLContext:
        return self.context if self._must_ask(name) else self._quiet

    def _must_ask(self, name: str | None) -> bool:
        return name is None or self._asks is None or self._asks(name)

    def _choose(
        self, connection: ssl.SSLObject, server_name: str | None, made_with: ssl.SSLContext
    ) -> int | None:
        name = canonical_name(server_name)
        # INVARIANT: the name OpenSSL read decides once more, should it differ from the one read before: a
        # connection keeps the `verify_mode` of the context it was made with, whatever is swapped in.
        if made_with is self._quiet and self._must_ask(name):
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.server_name = name  # type: ignore[attr-defined]
        connection.asked = made_with.verify_mode is not ssl.CERT_NONE  # type: ignore[attr-defined]
        connection.context = self._context_for(server_name)
        return None

    def _context_for(self, server_name: str | None) -> ssl.SSLContext:
        """Exact name, then a wildcard for its first label (RFC 9525 §6.3), then the first pair."""
        if server_name:
            name = server_name.lower().removesuffix(".")
            found = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
            if found is not None:
                return found
        return self._pairs[0].context


def shown_certificate(connection: ssl.SSLObject) -> ClientCertificate | None:
    """What the client of a finished handshake showed, with the rest of the chain it sent, unbelieved."""
    leaf = connection.getpeercert(True)
    if leaf is None:
        return None
    return ClientCertificate(leaf, tuple(der for der in _chain(connection) if der != leaf))


def _chain(connection: ssl.SSLObject) -> list[bytes]:
    """Every certificate the client sent. Public from Python 3.13; before, the same function of OpenSSL is
    reached only through the object that `SSLObject` wraps. Where that is not so, a client whose certificate
    needs an intermediate one is refused later, for want of a chain."""
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:
        return list(public())
    inner = getattr(getattr(connection, "_sslobj", None), "get_unverified_chain", None)
    return [] if inner is None else [one.public_bytes(_ssl.ENCODING_DER) for one in inner() or ()]


def upstream_context(tls: UpstreamTLS) -> ssl.SSLContext:
    """The client side, for one upstream: made once, as reading the authorities takes milliseconds.

    The name for SNI and check is given when connecting (`server_name`, else the endpoint's host). Raises
    `OperatorError` for unreadable or mismatched files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.hostname_checks_common_name = False
    if tls.dangerous_no_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, tls.ca)
    if tls.certificate is not None:
        if tls.key is None:
            raise OperatorError(f"`{tls.certificate}` has no key", "name its `key` too")
        _load_chain(context, tls.certificate, tls.key)
    return context


def _server_context(min_version: MinVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[min_version]
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # No tickets: their key would have to be shared by the workers and rotated, and a stolen one opens
    # recorded TLS 1.2 sessions. OP_NO_TICKET alone leaves TLS 1.3 its stateful ones. TLS 1.2 may still resume
    # what this worker's memory holds, and only on the context the session was made with: so a session of a
    # client that was not asked never opens a connection that asks.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _load(files: tuple[str, str], min_version: MinVersion, authorities: Sequence[str]) -> _Pair:
    certificate, key = files
    context = _server_context(min_version)
    _load_chain(context, certificate, key)
    for authority in authorities:
        _load_authorities(context, authority)
    try:
        leaf = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
        names = frozenset(_dns_names(leaf))
    except (OSError, ValueError) as error:
        raise OperatorError(f"`{certificate}` cannot be read as a certificate: {error}") from error
    return _Pair(names, leaf.not_valid_after_utc.timestamp(), context)


def _load_authorities(context: ssl.SSLContext, file: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        raise OperatorError(f"`{file}` holds no usable authority: {_why(error)}") from error


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    def no_password() -> NoReturn:
        # Without this OpenSSL asks the terminal, and a worker would wait there for ever.
        raise OperatorError(
            f"`{key}` is encrypted", "give a key without a password, readable by ztproxy alone"
        )

    try:
        context.load_cert_chain(certificate, key, no_password)
    except OSError as error:  # ssl.SSLError is one
        raise OperatorError(
            f"`{certificate}` and `{key}` cannot be used together: {_why(error)}",
            "give a PEM chain, its own certificate first, and the key that belongs to it",
        ) from error


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM data").replace("_", " ").lower()
    return (error.strerror or type(error).__name__).lower()


def _dns_names(leaf: x509.Certificate) -> Iterator[str]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    for name in extension.value.get_values_for_type(x509.DNSName):
        yield name.lower()


def _index(pairs: Sequence[_Pair]) -> dict[str, ssl.SSLContext]:
    """Where two certificates hold one name, the earlier in the configuration is served."""
    return {name: pair.context for pair in reversed(pairs) for name in pair.names}


def _stamp(files: Sequence[str]) -> _Stamp:
    """What tells a file from its successor; a missing file has a stamp too. Follows links, as Kubernetes
    renews a secret by moving one."""
    found = []
    for file in files:
        try:
            status = Path(file).stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)
