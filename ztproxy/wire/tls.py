"""TLS contexts: server certificates chosen by SNI and renewed while running, and contexts for upstreams.

Knows: which protocol versions, ciphers and names are offered. Promises: `ServerTLS.context` stays the same
object for the life of the listener, whatever is reloaded; a bad pair never replaces a good one; TLS 1.2 is
the least. Leaves to its caller: when to look for new files, where expiry is shown, and whether `Host` must
equal the SNI name.

Certificates match by their DNS subject alternative names only (RFC 9525 §6.3: the common name is not a name).
Client certificates are not asked for here. When they are: swapping the context in the SNI callback does not
change `verify_mode`, so the listener's own context would have to ask.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from cryptography import x509

from ztproxy.core.upstream import UpstreamTLS
from ztproxy.errors import OperatorError

MinVersion = Literal["1.2", "1.3"]

# TLS 1.2 with forward secrecy and authenticated encryption only; TLS 1.3 suites are OpenSSL's own.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate chain with its key, as loaded."""

    names: frozenset[str]
    not_after: float
    context: ssl.SSLContext


class ServerTLS:
    """The server side: `(certificate, key)` PEM paths; the first is for clients that name nobody we know.

    Raises `OperatorError` when a pair cannot be used.
    """

    def __init__(self, certificates: Sequence[tuple[str, str]], min_version: MinVersion = "1.2") -> None:
        if not certificates:
            raise OperatorError("no certificate is given", "name at least one `certificate` and `key`")
        self._files = tuple(certificates)
        self._min_version: MinVersion = min_version
        self._seen = [_stamp(pair) for pair in self._files]
        self._pairs = [_load(pair, min_version) for pair in self._files]
        self._by_name = _index(self._pairs)
        # The listener's context never presents a certificate of its own: OpenSSL asks the callback in every
        # handshake, with None for a client that sends no name.
        self.context = _server_context(min_version)
        self.context.sni_callback = self._choose

    def reload_if_changed(self) -> bool:
        """Loads the pairs whose files changed; True if a new one is now served.

        Each pair stands alone: those that load are served at once, then the bad ones are raised together as
        one `OperatorError` while their old ones stay in service. A bad pair is reported once, until its
        files change again (a renewal that writes certificate and key one after the other mends itself).
        """
        problems, renewed = [], False
        for position, files in enumerate(self._files):
            stamp = _stamp(files)
            if stamp == self._seen[position]:
                continue
            # INVARIANT: the stamp is taken before the files are read. A file that changes in between then
            # differs from its stamp and is read again; the other order would miss the change for good.
            self._seen[position] = stamp
            try:
                self._pairs[position] = _load(files, self._min_version)
                renewed = True
            except OperatorError as error:
                problems.append(str(error))
        if renewed:
            self._by_name = _index(self._pairs)
        if problems:
            raise OperatorError("; ".join(problems), "the certificate loaded before stays in service")
        return renewed

    def expiries(self) -> list[tuple[str, float]]:
        """For each pair its certificate path and `notAfter` in seconds since the epoch."""
        return [
            (certificate, pair.not_after)
            for (certificate, _), pair in zip(self._files, self._pairs, strict=True)
        ]

    def _choose(
        self, connection: ssl.SSLObject, server_name: str | None, _initial: ssl.SSLSocket | ssl.SSLContext
    ) -> None:
        connection.context = self._context_for(server_name)

    def _context_for(self, server_name: str | None) -> ssl.SSLContext:
        """Exact name, then a wildcard for its first label (RFC 9525 §6.3), then the first pair."""
        if server_name:
            name = server_name.lower().removesuffix(".")
            found = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
            if found is not None:
                return found
        return self._pairs[0].context


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
        try:
            context.load_verify_locations(cafile=tls.ca)
        except OSError as error:  # ssl.SSLError is one
            raise OperatorError(f"`{tls.ca}` holds no usable authority: {_why(error)}") from error
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
    # recorded TLS 1.2 sessions. OP_NO_TICKET alone leaves TLS 1.3 its stateful ones.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _load(files: tuple[str, str], min_version: MinVersion) -> _Pair:
    certificate, key = files
    context = _server_context(min_version)
    _load_chain(context, certificate, key)
    try:
        leaf = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
        names = frozenset(_dns_names(leaf))
    except (OSError, ValueError) as error:
        raise OperatorError(f"`{certificate}` cannot be read as a certificate: {error}") from error
    return _Pair(names, leaf.not_valid_after_utc.timestamp(), context)


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


def _stamp(files: tuple[str, str]) -> _Stamp:
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
