"""The machines of the demo's people, and who vouches for its own TLS.

Knows: X.509, as far as making things needs it. Promises: keys are made here, in files only their owner can
read. Leaves to ztproxy whether a machine is known, approved and in good order.
"""

from __future__ import annotations

import datetime
import hashlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztproxy.adapters.device_ca import request_for
from ztproxy.adapters.keys import write_private
from ztproxy.demo.webauthn import encoded
from ztproxy.gateway.ports.enrolment import ProvenKey

_DAYS = 30  # no demo runs for longer; and a browser that was told to trust its CA forgets that again


def make_site(directory: Path, hosts: Sequence[str]) -> Path:
    """Makes `site.pem` and `site.key` for these hosts, and answers the file of the authority that vouches for
    them. Its key is not kept: whoever has a browser trust it for the demo trusts nothing else."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _named("ztproxy demo CA (made at its start)")
    root = (
        _certificate(root_name, authority.public_key(), root_name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(vouches=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    leaf = (
        _certificate(_named("ztproxy demo"), own.public_key(), root_name)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(vouches=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )
        .sign(authority, hashes.SHA256())
    )
    file = directory / "site-ca.pem"
    write_private(file, _pem(root))
    write_private(directory / "site.pem", _pem(leaf))
    write_private(directory / "site.key", _key(own))
    return file


@dataclass(frozen=True, slots=True)
class Laptop:
    """Somebody's machine, with a key of its own in `directory`; `certificate` exists once it has one."""

    directory: Path
    private: ec.EllipticCurvePrivateKey

    @staticmethod
    def new(directory: Path) -> Laptop:
        directory.mkdir(mode=0o700, parents=True)
        laptop = Laptop(directory, ec.generate_private_key(ec.SECP256R1()))
        write_private(laptop.key, _key(laptop.private))
        return laptop

    @property
    def key(self) -> Path:
        return self.directory / "device.key"

    @property
    def certificate(self) -> Path:
        return self.directory / "device.pem"

    @property
    def proven(self) -> ProvenKey:
        der = self.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return ProvenKey(der, encoded(hashlib.sha256(der).digest()))

    def request(self) -> str:
        """A request for a certificate, as the command line makes it."""
        return request_for(self.private)

    def keep(self, certificate: str) -> None:
        write_private(self.certificate, certificate)


def trust(authority: Path, laptop: Laptop | None) -> ssl.SSLContext:
    """How a browser on this machine speaks TLS; without a certificate it has none to show."""
    context = ssl.create_default_context(cafile=str(authority))
    if laptop is not None and laptop.certificate.exists():
        context.load_cert_chain(laptop.certificate, laptop.key)
    return context


def _certificate(
    subject: x509.Name, public: ec.EllipticCurvePublicKey, issuer: x509.Name
) -> x509.CertificateBuilder:
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=_DAYS))
    )


def _usage(*, vouches: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not vouches,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=vouches,
        crl_sign=vouches,
        encipher_only=False,
        decipher_only=False,
    )


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key(private: ec.EllipticCurvePrivateKey) -> str:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
