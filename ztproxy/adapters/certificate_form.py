"""What a client certificate must look like, and what is read from it.

Knows: X.509 as `cryptography` reads it. Promises: every rule here is one of form, the same whenever it is
asked; names come from the DER alone, and one that a C library, a log or a policy could read differently
(NUL, control characters, other scripts) refuses the whole certificate (CVE-2009-2408, CVE-2025-66220). Leaves
to `adapters.client_certificates` the chain, and whatever changes with time.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ztproxy.core import spiffe
from ztproxy.core.certificate import Certificate
from ztproxy.core.device import DEVICE_ID

STRONG_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    TypeError,  # a name of the ASN.1 type BIT STRING
)
"""What `cryptography` raises, now or when a part is looked at, for DER it cannot make sense of."""

_RSA_BITS = range(2048, 8192 + 1)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_GREATEST_SERIAL = 2**159 - 1  # 20 octets, the first bit being the sign (RFC 5280 4.1.2.2)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PLAIN = re.compile(r"[\x20-\x7e]+")

# How the string types of ASN.1 write their text; any other type is not a string.
_STRINGS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}


@dataclass(frozen=True, slots=True)
class DeviceName:
    """Where the id of a device stands: the field, and the text around the one `{id}` in it.

    `serial_number` is the attribute of the subject (2.5.4.5), not the certificate's own number.
    """

    source: Literal["san_uri", "san_dns", "san_email", "common_name", "serial_number"]
    template: str = "{id}"


@dataclass(frozen=True, slots=True)
class Rules:
    """What depends on the authority; see `config.settings.Authority`."""

    authority: str
    device: DeviceName | None = None
    trust_domain: str | None = None
    allow_any_usage: bool = False


class Unfit(Exception):  # never leaves the adapters
    """The certificate cannot be accepted; the text says why, for the log alone."""


def read(leaf: x509.Certificate, rules: Rules) -> Certificate:
    """The leaf as a value. Raises `Unfit`, or one of `UNREADABLE`; that its chain holds is not looked at."""
    _usage(leaf.extensions, rules.allow_any_usage)
    check_key(leaf)
    if not 0 < leaf.serial_number <= _GREATEST_SERIAL:
        _unfit("its serial number is not a positive one of at most 20 octets")
    _no_controls(leaf.subject)
    names = _alternative_names(leaf.extensions)
    uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    dns = tuple(names.get_values_for_type(x509.DNSName))
    emails = tuple(names.get_values_for_type(x509.RFC822Name))
    return Certificate(
        authority=rules.authority,
        issuer=leaf.issuer.rfc4514_string(),
        subject=leaf.subject.rfc4514_string(),
        serial=leaf.serial_number,
        thumbprint=thumbprint(leaf.public_bytes(serialization.Encoding.DER)),
        spki=thumbprint(spki(leaf)),
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
        dns=dns,
        emails=emails,
        uris=uris,
        spiffe=_spiffe(uris, rules.trust_domain),
        device=_device(leaf, uris, dns, emails, rules.device),
    )


def check_key(certificate: x509.Certificate) -> None:
    """That nobody can compute the private key, nor keep us busy with the public one (X07, X17)."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        # A low exponent invites forgeries where padding is checked carelessly (CVE-2006-4339); a modulus of
        # 16384 bits is a way to buy our time.
        exponent = key.public_numbers().e
        if key.key_size not in _RSA_BITS or exponent < 65537 or exponent % 2 == 0:
            _unfit("its RSA key is not one of 2048 to 8192 bits with an exponent of 65537 or more")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            _unfit("its key is on another curve than P-256, P-384 and P-521")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        _unfit("its key is of an algorithm that is not accepted")


def strongly_signed(signed: x509.Certificate | x509.CertificateRevocationList) -> bool:
    """Whether its signature is over a hash that holds; Ed25519 has none of its own to choose."""
    hash_of_it = signed.signature_hash_algorithm
    return hash_of_it is None or isinstance(hash_of_it, STRONG_HASHES)


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def thumbprint(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _usage(extensions: x509.Extensions, allow_any_usage: bool) -> None:
    """RFC 5280 4.2.1.3, 4.2.1.9, 4.2.1.12; stricter where no extended usage is named, which the RFC takes for
    any: a certificate made for something else (code signing, e-mail) must not sign in."""
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            _unfit("it is an authority's")
        elif isinstance(value, x509.KeyUsage) and (not value.digital_signature or value.key_cert_sign):
            _unfit("its key usage is not that of a client")
        elif isinstance(value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CLIENT_AUTH in value:
            allow_any_usage = True
        elif isinstance(value, x509.ExtendedKeyUsage) and (
            ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in value
        ):
            _unfit("its extended key usage does not hold clientAuth")
    if not allow_any_usage:
        _unfit("it names no extended key usage, or any")


def _no_controls(name: x509.Name) -> None:
    for attribute in name:
        if isinstance(attribute.value, str) and _CONTROLS.search(attribute.value):
            _unfit("a name in it holds control characters")


def _alternative_names(extensions: x509.Extensions) -> x509.SubjectAlternativeName:
    """Its names, each of them readable in one way only (X12)."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])
    for name in names:
        if isinstance(name, x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier):
            if not _PLAIN.fullmatch(name.value):
                _unfit("an alternative name holds other characters than printable ASCII")
        elif isinstance(name, x509.OtherName):
            _other_name(name.value)
        elif isinstance(name, x509.DirectoryName):
            _no_controls(name.value)
    return names


def _other_name(value: bytes) -> None:
    """Nobody's identity is read from an otherName; AD CS writes the user's there, so that it may be present.
    One whose text ends early for some readers is an attack on one of them."""
    tag, content = _element(value)
    if tag in _STRINGS and _CONTROLS.search(content.decode(_STRINGS[tag])):
        _unfit("an otherName holds control characters")


def _element(value: bytes) -> tuple[int, bytes]:
    """Tag and content of the one DER element that `value` is."""
    size, start = (value[1], 2) if len(value) > 1 else (0, len(value) + 1)
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(value[2:start], "big")
    if len(value) != start + size:
        _unfit("an otherName is not one DER element")
    return value[0], value[start:]


def _spiffe(uris: tuple[str, ...], trust_domain: str | None) -> str | None:
    """SPIFFE X.509-SVID 2 and 5.2: one URI, in strict form, of our trust domain, and of a workload in it."""
    if trust_domain is None or not any(uri[:7].lower() == "spiffe:" for uri in uris):
        return None
    if len(uris) != 1:
        _unfit("it has another URI beside its SPIFFE ID")
    parsed = spiffe.parse(uris[0])
    if parsed is None or parsed.trust_domain != trust_domain:
        _unfit("its SPIFFE ID is not one of the trust domain")
    return uris[0]


def _device(
    leaf: x509.Certificate,
    uris: tuple[str, ...],
    dns: tuple[str, ...],
    emails: tuple[str, ...],
    rule: DeviceName | None,
) -> str | None:
    if rule is None:
        return None
    match rule.source:
        case "san_uri":
            values = uris
        case "san_dns":
            values = dns
        case "san_email":
            values = emails
        case "common_name":
            values = _attributes(leaf, NameOID.COMMON_NAME)
        case "serial_number":
            values = _attributes(leaf, NameOID.SERIAL_NUMBER)
    before, _, after = rule.template.partition("{id}")
    form = re.compile(f"{re.escape(before)}({DEVICE_ID.pattern}){re.escape(after)}")
    found = [match[1] for value in values if (match := form.fullmatch(value))]
    if len(found) > 1:
        _unfit("it names more than one device")
    return found[0] if found else None


def _attributes(leaf: x509.Certificate, which: x509.ObjectIdentifier) -> tuple[str, ...]:
    found = leaf.subject.get_attributes_for_oid(which)
    return tuple(it.value for it in found if isinstance(it.value, str))


def _unfit(why: str) -> NoReturn:
    raise Unfit(why)
