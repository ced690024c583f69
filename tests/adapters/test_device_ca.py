"""Our own authority for devices: its files, what it reads of a request, what its certificates say."""

from __future__ import annotations

import base64
import hashlib
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from tests.worlds.enrolling import csr, new_key
from ztproxy.adapters.client_certificates import Authority, ClientCertificates, DeviceName
from ztproxy.adapters.device_ca import LONGEST_CSR, DeviceCA, make
from ztproxy.core.certificate import Refused, Verified
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate
from ztproxy.errors import ClientError, OperatorError, WorldError

NOW = 1_750_000_000.0
DAY = 86400.0
DOMAIN = "corp.test"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make(tmp_path_factory.mktemp("ca") / "in" / "here", DOMAIN, 1, NOW)


@pytest.fixture(scope="module")
def ca(files: tuple[Path, Path]) -> DeviceCA:
    return DeviceCA.load(*files, DOMAIN, 7 * DAY, NOW)


def openssl(*words: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["openssl", *words], input=stdin, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


# -- the two files ----------------------------------------------------------------------------------------


def test_a_new_authority(files: tuple[Path, Path], ca: DeviceCA) -> None:
    certificate, key = files
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    own = ca.certificate
    constraints = own.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = own.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert own.not_valid_after_utc.timestamp() == NOW + 365.25 * DAY
    assert "PRIVATE" not in repr(ca) and ca.chain == certificate.read_text()


def test_it_writes_over_nothing(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, DOMAIN, 1)
    before = certificate.read_bytes(), key.read_bytes()
    for gone in (None, certificate):
        if gone is not None:
            gone.unlink()
        with pytest.raises(OperatorError, match="exists already, move it away"):
            make(tmp_path, DOMAIN, 1)
        assert key.read_bytes() == before[1]


@pytest.mark.parametrize("domain", ["", "Corp.test", "corp.test/x", "a b", "-x", "x" * 256])
def test_what_is_no_trust_domain(files: tuple[Path, Path], tmp_path: Path, domain: str) -> None:
    with pytest.raises(OperatorError, match="is not a trust domain"):
        make(tmp_path / "new", domain, 1)
    assert not (tmp_path / "new").exists()
    with pytest.raises(OperatorError, match="is not a trust domain"):
        DeviceCA.load(*files, domain, DAY, NOW)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match="cannot be written"):
        make(tmp_path / "file", DOMAIN, 1)


_SHA256 = hashes.SHA256()


def self_signed(
    key: Any, tmp_path: Path, *extensions: x509.ExtensionType, sign: Any = _SHA256
) -> tuple[Path, Path]:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "other")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(5)
    builder = builder.public_key(key.public_key())
    start = x509.load_pem_x509_certificate(make(tmp_path / "times", DOMAIN, 1, NOW)[0].read_bytes())
    builder = builder.not_valid_before(start.not_valid_before_utc).not_valid_after(start.not_valid_after_utc)
    for one in extensions:
        builder = builder.add_extension(one, critical=True)
    certificate, file = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(builder.sign(key, sign).public_bytes(serialization.Encoding.PEM))
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    file.chmod(0o600)
    return certificate, file


CA = x509.BasicConstraints(ca=True, path_length=None)


def spoil_mode(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    key.chmod(0o640)
    return certificate, key


def spoil_pair(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    return certificate, make(tmp_path / "else", DOMAIN, 1, NOW)[1]


def spoil_leaf(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    return self_signed(new_key(), tmp_path, x509.BasicConstraints(ca=False, path_length=None))


def spoil_silent(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    return self_signed(new_key(), tmp_path)


def spoil_usage(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    others = ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    usage = {name: name == "digital_signature" for name in (*names, *others)}
    return self_signed(new_key(), tmp_path, CA, x509.KeyUsage(**usage))


def spoil_text(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    certificate.write_text("hello")
    return certificate, key


def spoil_key(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    key.write_text(certificate.read_text())
    return certificate, key


def spoil_gone(certificate: Path, key: Path, tmp_path: Path) -> tuple[Path, Path]:
    key.unlink()
    return certificate, key


@pytest.mark.parametrize(
    ("spoil", "now", "said"),
    [
        pytest.param(
            spoil_mode, NOW, "the mode 0640 of .* lets others read the key, run `chmod 600", id="open"
        ),
        pytest.param(spoil_pair, NOW, "is not the key of", id="another pair"),
        pytest.param(spoil_leaf, NOW, "is not an authority's certificate, `ztproxy ca init`", id="a leaf"),
        pytest.param(spoil_silent, NOW, "is not an authority's certificate", id="says nothing"),
        pytest.param(spoil_usage, NOW, "is not an authority's certificate", id="may not sign"),
        pytest.param(spoil_text, NOW, "holds no certificate in PEM", id="text"),
        pytest.param(spoil_key, NOW, "is not an unencrypted private key", id="no key"),
        pytest.param(spoil_gone, NOW, "cannot be read: no such file", id="no file"),
        pytest.param(None, NOW + 400 * DAY, "has expired, `ztproxy ca init`", id="expired"),
        pytest.param(None, NOW + 365.25 * DAY, "has expired", id="at its very end"),
        pytest.param(None, NOW - DAY, "is not valid yet, look at the clock", id="of tomorrow"),
    ],
)
def test_files_that_are_no_authority(
    tmp_path: Path, spoil: Callable[..., tuple[Path, Path]] | None, now: float, said: str
) -> None:
    made = make(tmp_path / "ca", DOMAIN, 1, NOW)
    if spoil is not None:
        made = spoil(*made, tmp_path)
    with pytest.raises(OperatorError, match=said):
        DeviceCA.load(*made, DOMAIN, DAY, now)


@pytest.mark.parametrize(
    ("key", "sign", "hash_name"),
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256(), "sha256", id="P-256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), hashes.SHA384(), "sha384", id="P-384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), hashes.SHA512(), "sha512", id="P-521"),
        pytest.param(rsa.generate_private_key(65537, 2048), hashes.SHA256(), "sha256", id="RSA"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), None, None, id="Ed25519"),
    ],
)
def test_an_authority_of_ones_own_without_a_key_id(
    tmp_path: Path, key: Any, sign: Any, hash_name: str | None
) -> None:
    files = self_signed(key, tmp_path, CA, sign=sign)
    ca = DeviceCA.load(*files, DOMAIN, DAY, NOW)
    issued = ca.issue(ca.read_csr(csr().encode()), "d-1", NOW)
    leaf = x509.load_der_x509_certificate(issued.der)
    leaf.verify_directly_issued_by(ca.certificate)
    assert (leaf.signature_hash_algorithm.name if leaf.signature_hash_algorithm else None) == hash_name


# -- requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="P-256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="P-384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), id="P-521"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="RSA"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), id="Ed25519"),
    ],
)
def test_a_request_gives_its_key(ca: DeviceCA, key: Any) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = base64.urlsafe_b64encode(hashlib.sha256(spki).digest()).rstrip(b"=").decode()
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        assert ca.read_csr(request.public_bytes(encoding)) == (spki, digest)


def other_signature() -> bytes:
    """The request of one key with the signature of another's request of the same form."""
    keys = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    one, other = (x509.load_pem_x509_csr(csr(key).encode()) for key in keys)
    der = one.public_bytes(serialization.Encoding.DER)
    return der.replace(one.signature, other.signature)


def signed_with_sha1() -> bytes:
    """cryptography makes none, so this is put together by hand: the OID and the signature exchanged."""
    key = rsa.generate_private_key(65537, 2048)
    request = x509.load_pem_x509_csr(csr(key).encode())
    der = request.public_bytes(serialization.Encoding.DER)
    signature = key.sign(request.tbs_certrequest_bytes, padding.PKCS1v15(), hashes.SHA1())
    sha256, sha1 = bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010105")
    assert der.count(sha256) == 1
    return der.replace(sha256, sha1).replace(request.signature, signature)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        pytest.param(lambda: b"", "cannot be read", id="nothing"),
        pytest.param(lambda: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "cannot be read", id="half"),
        pytest.param(lambda: b"\x30\x82\xff\xff", "cannot be read", id="no DER"),
        pytest.param(lambda: csr().encode() + b" " * LONGEST_CSR, "too long", id="too long"),
        pytest.param(other_signature, "signature .* does not hold", id="another's signature"),
        pytest.param(signed_with_sha1, "signature .* does not hold", id="SHA-1"),
        pytest.param(
            lambda: csr(rsa.generate_private_key(65537, 1024)).encode(), "key is none of", id="RSA 1024"
        ),
        pytest.param(
            lambda: csr(rsa.generate_private_key(3, 2048)).encode(), "key is none of", id="exponent 3"
        ),
        pytest.param(
            lambda: csr(ec.generate_private_key(ec.SECP224R1())).encode(), "key is none of", id="P-224"
        ),
        pytest.param(
            lambda: csr(ec.generate_private_key(ec.SECP256K1())).encode(), "key is none of", id="secp256k1"
        ),
    ],
)
def test_a_request_that_is_refused(ca: DeviceCA, request_: Callable[[], bytes], said: str) -> None:
    with pytest.raises(ClientError, match=said) as caught:
        ca.read_csr(request_())
    assert caught.value.reason is Reason.HTTP_BODY


# -- certificates -----------------------------------------------------------------------------------------


def usage(*names: str) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    every += ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: name in names for name in every})


def test_nothing_of_a_request_comes_through(ca: DeviceCA) -> None:
    key = new_key()
    asked = csr(
        key,
        (CA, True),
        (usage("key_cert_sign", "crl_sign"), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (
            x509.SubjectAlternativeName(
                [
                    x509.DNSName("app.corp.test"),
                    x509.UniformResourceIdentifier("spiffe://corp.test/device/d-other"),
                ]
            ),
            True,
        ),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False),
        name="d-other",
    )
    leaf = x509.load_der_x509_certificate(ca.issue(ca.read_csr(asked.encode()), "d-mine", NOW).der)
    found = {one.oid: one for one in leaf.extensions}
    assert set(found) == {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
    value = leaf.extensions.get_extension_for_class
    assert value(x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert value(x509.BasicConstraints).critical and value(x509.KeyUsage).critical
    assert value(x509.KeyUsage).value == usage("digital_signature")
    assert list(value(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = value(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://corp.test/device/d-mine")]
    assert leaf.subject.rfc4514_string() == "CN=d-mine" and leaf.public_key() == key.public_key()
    assert (
        value(x509.AuthorityKeyIdentifier).value.key_identifier
        == ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    )


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        pytest.param(NOW, NOW + 7 * DAY, id="its time"),
        pytest.param(NOW + 364.25 * DAY, NOW + 365.25 * DAY, id="the authority's end comes first"),
        pytest.param(NOW + 0.9, NOW + 7 * DAY, id="whole seconds"),
    ],
)
def test_its_times(ca: DeviceCA, now: float, ends: float) -> None:
    issued = ca.issue(ca.read_csr(csr().encode()), "d-1", now)
    leaf = x509.load_pem_x509_certificate(issued.pem.encode())
    assert issued.not_after == leaf.not_valid_after_utc.timestamp() == ends
    assert leaf.not_valid_before_utc.timestamp() == int(now) - 300
    digest = base64.urlsafe_b64encode(hashlib.sha256(issued.der).digest()).rstrip(b"=").decode()
    assert issued.thumbprint == digest


def test_an_authority_at_its_end_issues_nothing(ca: DeviceCA) -> None:
    with pytest.raises(WorldError, match="expired"):
        ca.issue(ca.read_csr(csr().encode()), "d-1", NOW + 365.25 * DAY)


def test_each_has_a_number_of_its_own_and_a_long_id_is_cut_in_the_name_alone(ca: DeviceCA) -> None:
    key, id = ca.read_csr(csr().encode()), "x" * 128
    one, other = (x509.load_der_x509_certificate(ca.issue(key, id, NOW).der) for _ in range(2))
    assert one.serial_number != other.serial_number
    assert one.subject.rfc4514_string() == "CN=" + "x" * 64
    names = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names[0].value == f"spiffe://corp.test/device/{id}"


@pytest.mark.parametrize("id", ["", "a/b", "SN:1", "a b", "ü", "../x"])
def test_an_id_that_would_be_another_path(ca: DeviceCA, id: str) -> None:
    with pytest.raises(ClientError):
        ca.issue(ca.read_csr(csr().encode()), id, NOW)


async def test_our_own_verifier_takes_it_and_reads_the_device(ca: DeviceCA, files: tuple[Path, Path]) -> None:
    rule = DeviceName("san_uri", "spiffe://corp.test/device/{id}")
    trusted = Authority("enrolment", files[0], device=rule, trust_domain=DOMAIN)
    verifier = ClientCertificates([trusted], lambda: NOW)
    key = ca.make_key()
    issued = ca.issue(key.proven, "d-1", NOW)
    verdict = await verifier.judge(ClientCertificate(issued.der), NOW)
    assert isinstance(verdict, Verified), verdict
    found = verdict.certificate
    assert (found.device, found.spiffe) == ("d-1", "spiffe://corp.test/device/d-1")
    assert (found.thumbprint, found.spki) == (issued.thumbprint, key.proven.spki)
    assert isinstance(await verifier.judge(ClientCertificate(issued.der), issued.not_after + 1), Refused)


def test_openssl_verifies_it(ca: DeviceCA, files: tuple[Path, Path], tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_text(ca.issue(ca.read_csr(csr().encode()), "d-1", NOW).pem)
    said = openssl(
        "verify", "-x509_strict", "-purpose", "sslclient", "-attime", str(int(NOW)), "-CAfile",
        str(files[0]), str(leaf),
    )  # fmt: skip
    assert said.endswith("leaf.pem: OK\n")


def test_a_pkcs12_that_openssl_opens_with_its_password_alone(ca: DeviceCA, tmp_path: Path) -> None:
    key = ca.make_key()
    assert key.private.hex() not in repr(key)
    issued = ca.issue(key.proven, "d-1", NOW)
    packed = ca.pkcs12(key, issued, "d-1", "correct horse battery")
    private, leaf, others = pkcs12.load_key_and_certificates(packed, b"correct horse battery")
    assert leaf is not None and private is not None
    assert leaf.public_bytes(serialization.Encoding.DER) == issued.der
    assert others == [ca.certificate]
    file = tmp_path / "d.p12"
    file.write_bytes(packed)
    shown = openssl("pkcs12", "-in", str(file), "-passin", "pass:correct horse battery", "-nodes")
    assert shown.count("BEGIN CERTIFICATE") == 2 and "friendlyName: d-1" in shown
    with pytest.raises(ValueError):
        pkcs12.load_key_and_certificates(packed, b"another password")
