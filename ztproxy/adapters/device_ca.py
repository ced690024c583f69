"""ztproxy's own authority for device certificates: its two files, requests for a certificate, certificates.

Knows: X.509, PKCS 10 and PKCS 12 (RFC 5280, 2986, 7292). Promises: nothing of a request is taken over but its
key, which must be strong and in the hands of whoever asks; each certificate names one device by one SPIFFE
ID, is good for showing it as a TLS client and for nothing else, and ends no later than the authority does;
the authority's key is read from a file that nobody else can read, and never written over. Leaves to
`gateway.enrolment` whose device it is and whether it may have a certificate.

    spiffe://<trust domain>/device/<id>     the only subject alternative name; `DeviceName` reads the id there
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import os
import re
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztproxy.adapters.keys import write_private
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, OperatorError, WorldError
from ztproxy.gateway.ports.enrolment import Issued, OwnKey, ProvenKey

LONGEST_CSR = 16 * 1024
BACKDATED = 300.0
"""Seconds by which a certificate begins before it was made: the clocks of its readers differ from ours."""

PKCS12_ROUNDS = 200_000
CERTIFICATE, KEY = "device-ca.pem", "device-ca.key"

_LONGEST_FILE = 64 * 1024
_LONGEST_CN = 64  # RFC 5280, ub-common-name
_TRUST_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,253}[a-z0-9])?")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")  # SPIFFE-ID 2.2
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_RSA_BITS = range(2048, 4097)  # longer ones only cost us time, and anybody may ask
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_RSA_EXPONENT = 65537

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class DeviceCA:
    """Fulfils `DeviceAuthority`. `lifetime` is in seconds. `chain` begins with `certificate`."""

    certificate: x509.Certificate
    chain: str
    trust_domain: str
    lifetime: float
    _key: PrivateKey = field(repr=False)

    @staticmethod
    def load(
        certificate: Path, key: Path, trust_domain: str, lifetime: float, now: float | None = None
    ) -> DeviceCA:
        """The authority in two PEM files; the first certificate is its own. Raises `OperatorError`."""
        certificates = _certificates(certificate)
        own, private = certificates[0], _private_key(key)
        try:
            may_issue = own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            usages = [one for one in own.extensions if isinstance(one.value, x509.KeyUsage)]
        except (x509.ExtensionNotFound, ValueError):
            may_issue, usages = False, []
        if not may_issue or not all(one.value.key_cert_sign for one in usages):
            raise OperatorError(f"`{certificate}` is not an authority's certificate", _MAKE_ONE)
        if _spki_der(own.public_key()) != _spki_der(private.public_key()):
            raise OperatorError(
                f"`{key}` is not the key of `{certificate}`", "name the two files of one authority"
            )
        _see_that_it_holds(own, certificate, time.time() if now is None else now)
        if not _TRUST_DOMAIN.fullmatch(trust_domain):
            problem = f"`{trust_domain}` is not a trust domain"
            raise OperatorError(problem, "write a name like `corp.example`, in lower case")
        chain = "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)
        return DeviceCA(own, chain, trust_domain, lifetime, private)

    def read_csr(self, csr: bytes) -> ProvenKey:
        """The key of a request. INVARIANT: its subject, attributes and extensions are not even looked at: a
        request that asks to be an authority, or for the name of another device, is an ordinary one."""
        if len(csr) > LONGEST_CSR:
            raise ClientError(Reason.HTTP_BODY, "the certificate request is too long")
        try:
            pem = csr.lstrip().startswith(b"-----BEGIN")
            request = x509.load_pem_x509_csr(csr) if pem else x509.load_der_x509_csr(csr)
            public = request.public_key()
            _see_that_it_is_strong(public)
            signed_with = request.signature_hash_algorithm
            holds = request.is_signature_valid
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ClientError(Reason.HTTP_BODY, "the certificate request cannot be read") from None
        # An Ed25519 signature names no hash of its own. SHA-1 would let two requests share one signature.
        if not holds or not (signed_with is None or isinstance(signed_with, _HASHES)):
            raise ClientError(Reason.HTTP_BODY, "the signature of the certificate request does not hold")
        return _proven(public)

    def issue(self, key: ProvenKey, device: str, now: float) -> Issued:
        if not _SEGMENT.fullmatch(device):
            raise ClientError(Reason.DEVICE_MISMATCH, "device: its id has no place in a SPIFFE ID")
        ends = min(now + self.lifetime, self.certificate.not_valid_after_utc.timestamp())
        if ends <= now:
            raise WorldError(Reason.INTERNAL, "device CA: its own certificate has expired")
        public = serialization.load_der_public_key(key.public)
        assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey)
        names = [x509.UniformResourceIdentifier(f"spiffe://{self.trust_domain}/device/{device}")]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_named(device))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - BACKDATED))
            .not_valid_after(_moment(ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(self._authority_id(), critical=False)
            .sign(self._key, _hash_for(self._key))
        )
        der = certificate.public_bytes(serialization.Encoding.DER)
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Issued(pem, der, _digest(der), certificate.not_valid_after_utc.timestamp())

    def make_key(self) -> OwnKey:
        private = ec.generate_private_key(ec.SECP256R1())
        return OwnKey(_proven(private.public_key()), _pkcs8(private, serialization.Encoding.DER))

    def pkcs12(self, key: OwnKey, issued: Issued, name: str, password: str) -> bytes:
        private = serialization.load_der_private_key(key.private, password=None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return to_pkcs12(private, issued.pem, self.chain, name, password)

    def _authority_id(self) -> x509.AuthorityKeyIdentifier:
        """RFC 5280 4.2.1.1: what the authority calls its own key, whichever way it came by that name."""
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def make(directory: Path, trust_domain: str, years: int, now: float | None = None) -> tuple[Path, Path]:
    """A new authority: its certificate and its key (mode 0600), two new files in `directory`, which is made
    if need be. Raises `OperatorError`, and leaves what exists alone."""
    certificate_file, key_file = directory / CERTIFICATE, directory / KEY
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise OperatorError(f"`{trust_domain}` is not a trust domain", "write a name like `corp.example`")
    for file in (certificate_file, key_file):
        if file.exists():
            raise OperatorError(f"`{file}` exists already", "move it away, or choose another directory")
    private = ec.generate_private_key(ec.SECP256R1())
    public, began = private.public_key(), time.time() if now is None else now
    name = _named(f"ztproxy device CA of {trust_domain}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(began - BACKDATED))
        .not_valid_after(_moment(began + years * 365.25 * 86400))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(private, hashes.SHA256())
    )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(key_file, _pkcs8(private, serialization.Encoding.PEM).decode())
        try:
            write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM).decode())
        except OperatorError:
            key_file.unlink()  # of an authority that there is not
            raise
        certificate_file.chmod(0o644)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise OperatorError(f"`{directory}` cannot be written: {why}", "choose another directory") from None
    return certificate_file, key_file


def request_for(private: ec.EllipticCurvePrivateKey) -> str:
    """A PKCS 10 request, PEM, for whoever holds a key: it says nothing but that."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_named("ztproxy device"))
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def to_pkcs12(
    private: ec.EllipticCurvePrivateKey, certificate: str, chain: str, name: str, password: str
) -> bytes:
    """The file that browsers and systems import, encrypted with AES-256 under `password` (PBES2, RFC 8018):
    the older ciphers of this format give the key to whoever finds the file."""
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(PKCS12_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password.encode())
    )
    leaf = x509.load_pem_x509_certificate(certificate.encode())
    others = x509.load_pem_x509_certificates(chain.encode())
    return pkcs12.serialize_key_and_certificates(name.encode(), private, leaf, others, encryption)


_MAKE_ONE = "`ztproxy ca init` makes one"


def _see_that_it_is_strong(public: object) -> None:
    match public:
        case ec.EllipticCurvePublicKey():
            strong = isinstance(public.curve, _CURVES)
        case rsa.RSAPublicKey():
            strong = public.key_size in _RSA_BITS and public.public_numbers().e >= _RSA_EXPONENT
        case _:
            strong = isinstance(public, ed25519.Ed25519PublicKey)
    if not strong:
        problem = "the key is none of RSA (2048 to 4096 bits), P-256, P-384, P-521 and Ed25519"
        raise ClientError(Reason.HTTP_BODY, problem)


def _see_that_it_holds(own: x509.Certificate, file: Path, now: float) -> None:
    if now >= own.not_valid_after_utc.timestamp():
        raise OperatorError(f"`{file}` has expired", _MAKE_ONE)
    if now < own.not_valid_before_utc.timestamp():
        raise OperatorError(f"`{file}` is not valid yet", "look at the clock of this machine")


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(_read(path, private=False))
    except ValueError:
        found = []
    if not found:
        raise OperatorError(f"`{path}` holds no certificate in PEM", _MAKE_ONE)
    return found


def _private_key(path: Path) -> PrivateKey:
    try:
        found = serialization.load_pem_private_key(_read(path, private=True), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not PEM, damaged, or encrypted
        found = None
    if not isinstance(found, PrivateKey):
        problem = f"`{path}` is not an unencrypted private key in PEM (P-256, RSA or Ed25519)"
        raise OperatorError(problem, _MAKE_ONE)
    return found


def _read(path: Path, *, private: bool) -> bytes:
    try:
        # The mode is asked of the open file, not of the name; a pipe in its place must not keep us waiting.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if private and mode & 0o077:
                problem = f"the mode {stat.S_IMODE(mode):04o} of `{path}` lets others read the key"
                raise OperatorError(problem, f"run `chmod 600 {path}`")
            return file.read(_LONGEST_FILE)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise OperatorError(f"`{path}` cannot be read: {why}", _MAKE_ONE) from None


def _usage(**wanted: bool) -> x509.KeyUsage:
    every = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**(every | wanted))


def _hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    match key:
        case ed25519.Ed25519PrivateKey():
            return None
        case ec.EllipticCurvePrivateKey() if key.curve.key_size > 384:
            return hashes.SHA512()
        case ec.EllipticCurvePrivateKey() if key.curve.key_size > 256:
            return hashes.SHA384()
    return hashes.SHA256()


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_LONGEST_CN])])


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _pkcs8(private: PrivateKey, encoding: serialization.Encoding) -> bytes:
    return private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _spki_der(public: object) -> bytes:
    public_bytes = getattr(public, "public_bytes")  # noqa: B009  (every key of cryptography has it)
    der: bytes = public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der


def _proven(public: object) -> ProvenKey:
    der = _spki_der(public)
    return ProvenKey(der, _digest(der))


def _digest(der: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
