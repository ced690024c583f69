"""Certificate revocation lists (RFC 5280 5) from one file, renewed while running.

Knows: PEM and DER lists, several in one file, and in which ways one may not be believed. Promises: a list
counts only for the issuer that signed it; one that cannot be accepted never replaces one that was, nor does
an older one (X11); after its `nextUpdate` a list counts no more, and whoever needs it is refused. Leaves to
its caller: when to look for a new file, and putting the file there.

What was in force is known to this process alone: after a start the list found is believed if it is signed and
in time. 100,000 serials take about 0.15 s to load and 10 MB to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ztproxy.adapters.certificate_form import UNREADABLE, spki, strongly_signed
from ztproxy.core.certificate import Refused
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError

SKEW_SECONDS = 300.0
MAX_BYTES = 64 * 1024 * 1024

IssuerKey = tuple[bytes, bytes]
"""Who signs: the DER of its name and of its public key. Two authorities of one name are two (X02)."""


class Link(NamedTuple):
    """One certificate of a chain, as a list speaks of it."""

    issuer: IssuerKey
    serial: int


class _List(NamedTuple):
    issuer: str
    number: int | None
    this_update: float
    next_update: float
    serials: frozenset[int]


class _Unfit(Exception):  # never leaves this module
    pass


def issuer_key(issuer: x509.Certificate) -> IssuerKey:
    return issuer.subject.public_bytes(), spki(issuer)


class RevocationLists:
    """The lists in `file`, of any of `issuers`. Raises `OperatorError` when they cannot be used."""

    def __init__(self, file: Path, issuers: Sequence[x509.Certificate], now: float) -> None:
        self._file, self._issuers = file, tuple(issuers)
        self._in_force: dict[IssuerKey, _List] = {}
        self._seen = _stamp(file)
        self._load(now)

    def reload_if_changed(self, now: float) -> bool:
        """Loads the file if it changed; True if a list was replaced.

        Lists of several issuers stand alone: the good ones count at once, then the bad ones are raised
        together as one `OperatorError`, once for each change of the file. Issuers that are in the file no
        more keep their list until its `nextUpdate`: taking a list away revokes nobody's revocation.
        """
        stamp = _stamp(self._file)
        if stamp == self._seen:
            return False
        # INVARIANT: the stamp is taken before the file is read. A file that changes in between then differs
        # from its stamp and is read again; the other order would miss the change for good.
        self._seen = stamp
        return self._load(now)

    def judge(self, chain: Iterable[Link], now: float) -> Refused | float:
        """Until when the lists say nothing against `chain` (the leaf first), or why it is refused.

        The leaf needs a list of its own issuer; what is above it is looked up where there is one.
        """
        until, missing = float("inf"), None
        for position, link in enumerate(chain):
            found = self._in_force.get(link.issuer)
            if found is None:
                if position == 0:
                    missing = "no revocation list of its issuer was loaded"
                continue
            if link.serial in found.serials:
                return Refused(Reason.DEVICE_CERTIFICATE_REVOKED, f"the list of `{found.issuer}` names it")
            if found.next_update <= now:
                missing = f"the revocation list of `{found.issuer}` is out of date"
            until = min(until, found.next_update)
        return until if missing is None else Refused(Reason.DEVICE_CERTIFICATE_UNCHECKED, missing)

    def expiries(self) -> list[tuple[str, float]]:
        """For each list in force its issuer and `nextUpdate`, in seconds since the epoch."""
        return [(it.issuer, it.next_update) for it in self._in_force.values()]

    def _load(self, now: float) -> bool:
        accepted, problems = dict(self._in_force), []
        for crl in self._read():
            try:
                key, found = self._accept(crl, now)
                _check_later(found, accepted.get(key))
                accepted[key] = found
            except _Unfit as error:
                problems.append(str(error))
            except UNREADABLE as error:
                problems.append(f"a list cannot be read: {error}")
        renewed = accepted != self._in_force
        self._in_force = accepted
        if problems:
            raise OperatorError(
                f"`{self._file}`: {'; '.join(problems)}",
                "give the full list that its issuer signed last; the one loaded before stays in force",
            )
        return renewed

    def _read(self) -> list[x509.CertificateRevocationList]:
        mend = "give one or more X.509 CRLs, PEM or DER, and write the file in one step (rename)"
        try:
            with self._file.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise OperatorError(f"`{self._file}` is larger than 64 MiB", mend)
            return _parse(data)
        except OSError as error:
            problem = (error.strerror or type(error).__name__).lower()
            raise OperatorError(f"`{self._file}` cannot be read: {problem}", mend) from error
        except UNREADABLE as error:
            raise OperatorError(f"`{self._file}` holds no whole revocation list: {error}", mend) from error

    def _accept(self, crl: x509.CertificateRevocationList, now: float) -> tuple[IssuerKey, _List]:
        """Steps 1 to 4 of what makes a list believed; step 5, that it is not older, is `_check_later`."""
        name = crl.issuer.rfc4514_string()
        # 1. Signed by an authority of ours, which may sign lists.
        signer = next((it for it in self._issuers if it.subject == crl.issuer and _signed_by(crl, it)), None)
        if signer is None:
            raise _Unfit(f"the list of `{name}` is not signed by an authority of the `ca` file")
        if not _may_sign_lists(signer):
            raise _Unfit(f"`{name}` may not sign lists: its key usage lacks cRLSign")
        if not strongly_signed(crl):
            raise _Unfit(f"the list of `{name}` is signed over a weak hash")
        # 2. The whole list, in a form that is understood (5.2).
        for extension in crl.extensions:
            value = extension.value
            if isinstance(value, x509.DeltaCRLIndicator):
                raise _Unfit(f"the list of `{name}` is a delta, which says nothing alone")
            if isinstance(value, x509.IssuingDistributionPoint) and _partial(value):
                raise _Unfit(f"the list of `{name}` covers a part of its certificates only")
            known = isinstance(value, x509.IssuingDistributionPoint | x509.AuthorityKeyIdentifier)
            if extension.critical and not known and not isinstance(value, x509.CRLNumber):
                raise _Unfit(f"the list of `{name}` has a critical extension that is not understood")
        # 3. Not from the future, and with an end.
        this_update = crl.last_update_utc.timestamp()
        if this_update > now + SKEW_SECONDS:
            raise _Unfit(f"the list of `{name}` is of the future: its `thisUpdate` is yet to come")
        if crl.next_update_utc is None:
            raise _Unfit(f"the list of `{name}` has no `nextUpdate`, so that it would count for ever")
        # 4. Every serial in it counts as revoked, whatever its entry adds: an entry that is not understood
        #    may only make us refuse more (5.3).
        serials = frozenset(entry.serial_number for entry in crl)
        return issuer_key(signer), _List(
            name, _number(crl), this_update, crl.next_update_utc.timestamp(), serials
        )


def _check_later(found: _List, before: _List | None) -> None:
    """5. A list that was overtaken must not come back: who is not on it yet would be let in again (X11)."""
    if before is None:
        return
    if before.number is not None and (found.number is None or found.number < before.number):
        raise _Unfit(f"the list of `{found.issuer}` has a lower number than the one in force")
    if found.this_update < before.this_update and (before.number is None or found.number == before.number):
        raise _Unfit(f"the list of `{found.issuer}` is older than the one in force")


def _parse(data: bytes) -> list[x509.CertificateRevocationList]:
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    if begin not in data:
        return [x509.load_der_x509_crl(data)]
    # A file cut off within its second list must not count as one that holds the first alone.
    if data.count(begin) != data.count(end):
        raise ValueError("a list in it has no end")
    return [x509.load_pem_x509_crl(begin + part) for part in data.split(begin)[1:]]


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return False
    return crl.is_signature_valid(key)


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    """RFC 5280 6.3.3 (f): where there is a key usage, it must say so."""
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _partial(point: x509.IssuingDistributionPoint) -> bool:
    """Whether a certificate of the issuer could be revoked and yet not be on it. A name of its own counts:
    that is how lists are cut into shards."""
    return (
        point.full_name is not None
        or point.relative_name is not None
        or point.only_contains_ca_certs
        or point.only_contains_attribute_certs
        or point.only_some_reasons is not None
        or point.indirect_crl
    )


def _number(crl: x509.CertificateRevocationList) -> int | None:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None


def _stamp(file: Path) -> tuple[int, int, int]:
    """What tells a file from its successor; a missing file has a stamp too."""
    try:
        status = file.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino
    except OSError:
        return 0, 0, 0
