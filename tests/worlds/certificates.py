"""A small world of certificate authorities: chains, lists and keys of any form, good and bad.

    root = Authority.root()
    devices = root.intermediate()
    laptop = devices.issue("laptop-1", uris=["spiffe://corp.test/device/laptop-1"])
    laptop.shown                      # what a client shows: ztproxy.core.request.ClientCertificate
    laptop.files(tmp_path)            # ("…/laptop-1.pem", "…/laptop-1.key"), for curl, ssl and aiohttp
    devices.crl([laptop.serial])      # PEM

Times are seconds since the epoch and near the real ones, for what is verified in real handshakes too. Keys
are on P-256 unless given; those of authorities are signed with SHA-256.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztproxy.core.request import ClientCertificate

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Extra = tuple[x509.ExtensionType, bool]
"""An extension, and whether it is critical."""

NOW = float(int(time.time()))
HOUR, DAY = 3600.0, 86400.0
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
ANY, OCSP_SIGNING = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.OCSP_SIGNING

_serials = itertools.count(0x1001)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_usage(*wanted: str) -> x509.KeyUsage:
    """`key_usage("digital_signature", "crl_sign")`: those bits and no other."""
    known = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    assert set(wanted) <= set(known)
    return x509.KeyUsage(**{bit: bit in wanted for bit in known})


@dataclass(frozen=True)
class Issued:
    """A certificate with its key; `above` is what its holder shows beside it, nearest issuer first."""

    cert: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()

    @property
    def serial(self) -> int:
        return self.cert.serial_number

    @cached_property
    def der(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.DER)

    @cached_property
    def pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def chain_pem(self) -> bytes:
        """Its own certificate first, as servers and clients want it."""
        return self.pem + b"".join(_pem(cert) for cert in self.above)

    @cached_property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def shown(self) -> ClientCertificate:
        return ClientCertificate(self.der, tuple(_der(cert) for cert in self.above))

    @property
    def thumbprint(self) -> str:
        """x5t#S256."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.der).digest()).rstrip(b"=").decode()

    def files(self, folder: Path, name: str | None = None) -> tuple[str, str]:
        """Writes the chain and the key, and says where."""
        name = name or str(self.cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.chain_pem)
        key.write_bytes(self.key_pem)
        return str(certificate), str(key)


class Authority:
    """A certificate authority: `Authority.root()`, and `.intermediate()` of one."""

    def __init__(self, issued: Issued, parent: Authority | None = None) -> None:
        self.issued, self.parent = issued, parent
        self.cert, self.key = issued.cert, issued.key
        self.pem, self.der = issued.pem, issued.der

    @classmethod
    def root(
        cls,
        name: str = "Corp Root",
        *,
        key: Key | None = None,
        usage: x509.KeyUsage | None = None,
        not_after: float = NOW + 3650 * DAY,
        extra: Sequence[Extra] = (),
    ) -> Authority:
        key = key or new_key()
        return cls(_signed_authority(name, key, None, None, usage, not_after, extra))

    def intermediate(
        self,
        name: str = "Corp Devices",
        *,
        key: Key | None = None,
        path_length: int | None = None,
        usage: x509.KeyUsage | None = None,
        not_after: float = NOW + 1000 * DAY,
        extra: Sequence[Extra] = (),
    ) -> Authority:
        key = key or new_key()
        return Authority(
            _signed_authority(name, key, self, path_length, usage, not_after, extra), parent=self
        )

    @property
    def above(self) -> tuple[x509.Certificate, ...]:
        """Itself and what is between it and the root, without the root."""
        return () if self.parent is None else (self.cert, *self.parent.above)

    def issue(
        self,
        name: str | None = "laptop-1",
        *,
        uris: Iterable[str] = (),
        dns: Iterable[str] = (),
        emails: Iterable[str] = (),
        san: Iterable[x509.GeneralName] = (),
        subject: x509.Name | None = None,
        usage: Iterable[x509.ObjectIdentifier] | None = (CLIENT,),
        bits: x509.KeyUsage | None = key_usage("digital_signature"),  # noqa: B008  # frozen
        constraints: x509.BasicConstraints | None = x509.BasicConstraints(ca=False, path_length=None),  # noqa: B008
        identifiers: bool = True,
        extra: Sequence[Extra] = (),
        key: Key | None = None,
        serial: int | None = None,
        not_before: float = NOW - HOUR,
        not_after: float = NOW + DAY,
        signer: Key | None = None,
        altered: Callable[[bytes], bytes] | None = None,
    ) -> Issued:
        """An ordinary client certificate, save for what is asked otherwise.

        `usage`, `bits`, `constraints` None and `identifiers` False leave that extension out. `signer` signs
        in the name of this authority. `altered` changes the bytes to be signed before they are.
        """
        key = key or new_key()
        if subject is None:
            subject = named(name) if name is not None else x509.Name([])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.cert.subject)
            .public_key(key.public_key())
            .serial_number(next(_serials) if serial is None else serial)
            .not_valid_before(_time(not_before))
            .not_valid_after(_time(not_after))
        )
        names = [
            *(x509.UniformResourceIdentifier(uri) for uri in uris),
            *(x509.DNSName(it) for it in dns),
            *(x509.RFC822Name(it) for it in emails),
            *san,
        ]
        extensions: list[Extra] = [*extra]
        if names:
            extensions.append((x509.SubjectAlternativeName(names), len(subject.rdns) == 0))
        if usage is not None:
            extensions.append((x509.ExtendedKeyUsage(usage), False))
        if bits is not None:
            extensions.append((bits, True))
        if constraints is not None:
            extensions.append((constraints, True))
        if identifiers:
            extensions.append(
                (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
            )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        signing = signer or self.key
        cert = builder.sign(signing, _digest(signing))
        if altered is not None:
            cert = _resigned(cert, altered(cert.tbs_certificate_bytes), signing)
        return Issued(cert, key, self.above)

    def ocsp_signer(self, name: str = "OCSP responder", **otherwise: object) -> Issued:
        """A certificate for a delegated responder (RFC 6960 4.2.2.2)."""
        return self.issue(name, usage=(OCSP_SIGNING,), **otherwise)  # type: ignore[arg-type]

    def crl(
        self,
        serials: Iterable[int] = (),
        *,
        number: int | None = 1,
        at: float = NOW - HOUR,
        next_update: float = NOW + DAY,
        extra: Sequence[Extra] = (),
        signer: Key | None = None,
    ) -> bytes:
        """A revocation list, PEM. `signer` signs in the name of this authority."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.cert.subject)
            .last_update(_time(at))
            .next_update(_time(next_update))
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical)
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_time(at)).build()
            )
        signing = signer or self.key
        return builder.sign(signing, _digest(signing)).public_bytes(serialization.Encoding.PEM)


def named(common_name: str, **fields: str) -> x509.Name:
    """A subject; `named("x", SERIAL_NUMBER="42")` with further fields of `NameOID`."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            *(x509.NameAttribute(getattr(NameOID, field), value) for field, value in fields.items()),
        ]
    )


def der(tag: int, content: bytes) -> bytes:
    """One DER element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _signed_authority(
    name: str,
    key: Key,
    issuer: Authority | None,
    path_length: int | None,
    usage: x509.KeyUsage | None,
    not_after: float,
    extra: Sequence[Extra],
) -> Issued:
    signing, above = (key, named(name)) if issuer is None else (issuer.key, issuer.cert.subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(_time(NOW - 30 * DAY))
        .not_valid_after(_time(not_after))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage or key_usage("key_cert_sign", "crl_sign", "digital_signature"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
    )
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical)
    return Issued(builder.sign(signing, _digest(signing)), key, () if issuer is None else issuer.above)


def _resigned(cert: x509.Certificate, tbs: bytes, key: Key) -> x509.Certificate:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
        algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    else:
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")  # sha256WithRSAEncryption
    return x509.load_der_x509_certificate(der(0x30, tbs + algorithm + der(0x03, b"\0" + signature)))


def _digest(key: Key) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _der(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.DER)
