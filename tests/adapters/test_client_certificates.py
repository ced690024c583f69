"""Which client certificates hold: chains, forms, validity, and what the files of an authority must be."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.worlds.certificates import (
    ANY,
    CLIENT,
    DAY,
    HOUR,
    NOW,
    SERVER,
    Authority,
    Issued,
    der,
    key_usage,
    named,
    new_key,
)
from tests.worlds.memory_state import SetClock
from ztproxy.adapters import client_certificates as adapter
from ztproxy.adapters.client_certificates import ClientCertificates
from ztproxy.adapters.ocsp import OCSPSettings
from ztproxy.core.certificate import Refused, Verified
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate
from ztproxy.errors import OperatorError
from ztproxy.gateway.ports.devices import CertificateVerifier

ROOT = Authority.root()
DEVICES = ROOT.intermediate()
OTHER = Authority.root("Other Root")
TWIN_OF_ROOT = Authority.root()  # of the same name, with a key of its own
INVALID = Reason.DEVICE_CERTIFICATE_INVALID
RSA_KEY = rsa.generate_private_key(65537, 2048)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")


def ca_file(folder: Path, *authorities: Authority, name: str = "ca.pem") -> Path:
    file = folder / name
    file.write_bytes(b"".join(it.pem for it in authorities))
    return file


def verifier(folder: Path, *anchors: Authority, now: float = NOW, **rules: object) -> ClientCertificates:
    ca = ca_file(folder, *(anchors or (ROOT,)))
    authority = adapter.Authority("corp", ca, **rules)  # type: ignore[arg-type]
    return ClientCertificates([authority], SetClock(now))


async def both(it: CertificateVerifier, shown: ClientCertificate, now: float = NOW) -> Verified | Refused:
    """The answer, which must be the same asked at once and awaited."""
    answer = it.at_once(shown, now)
    assert answer is not None
    assert await it.judge(shown, now) == answer
    return answer


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)


def swapped(this: bytes, that: bytes) -> Callable[[bytes], bytes]:
    def alter(tbs: bytes) -> bytes:
        assert len(this) == len(that) and this in tbs
        return tbs.replace(this, that)

    return alter


def longer_serial(tbs: bytes) -> bytes:
    """The serial number of 20 octets becomes one of 21."""
    twenty = b"\x02\x14\x7f" + b"\xff" * 19
    assert twenty in tbs
    return der(0x30, tbs[4:].replace(twenty, b"\x02\x15\x7f" + b"\xff" * 20))


def other_name(value: bytes) -> x509.OtherName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), value)


ACCEPTED: dict[str, Callable[[], Issued]] = {
    "ordinary": lambda: DEVICES.issue(uris=["spiffe://corp.test/device/1"]),
    "of_the_root_itself": lambda: ROOT.issue(),
    "without_alternative_names_or_identifiers": lambda: DEVICES.issue(identifiers=False),
    "without_basic_constraints_or_key_usage": lambda: DEVICES.issue(bits=None, constraints=None),
    "without_a_subject": lambda: DEVICES.issue(None, uris=["spiffe://corp.test/device/1"]),
    "for_servers_too": lambda: DEVICES.issue(usage=[SERVER, CLIENT]),
    "unknown_extension_that_is_not_critical": lambda: DEVICES.issue(extra=[(UNKNOWN, False)]),
    "RSA_2048": lambda: DEVICES.issue(key=RSA_KEY),
    "P-384": lambda: DEVICES.issue(key=ec.generate_private_key(ec.SECP384R1())),
    "P-521": lambda: DEVICES.issue(key=ec.generate_private_key(ec.SECP521R1())),
    "Ed25519": lambda: DEVICES.issue(key=ed25519.Ed25519PrivateKey.generate()),
    "longest_serial": lambda: DEVICES.issue(serial=2**158),
    "user_principal_name_of_AD_CS": lambda: DEVICES.issue(san=[other_name(der(0x0C, "é@corp".encode()))]),
    "kerberos_name": lambda: DEVICES.issue(san=[other_name(der(0x30, b"x" * 200))]),
    "address_and_directory_names": lambda: DEVICES.issue(
        san=[x509.DirectoryName(named("x")), x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))]
    ),
}


@pytest.mark.parametrize("issue", [pytest.param(it, id=name) for name, it in ACCEPTED.items()])
async def test_accepted(tmp_path: Path, issue: Callable[[], Issued]) -> None:
    issued = issue()
    answer = await both(verifier(tmp_path), issued.shown)
    assert isinstance(answer, Verified), answer
    assert answer.certificate.authority == "corp"
    assert answer.certificate.thumbprint == issued.thumbprint
    assert answer.until == issued.cert.not_valid_after_utc.timestamp()


def by_openssl(folder: Path, *options: str, usage: str = "extendedKeyUsage=clientAuth") -> Issued:
    """`openssl x509 -req`, with the defaults an administrator gets."""
    key = RSA_KEY
    authority = Authority.root("RSA Root", key=key)
    (folder / "openssl-ca.pem").write_bytes(authority.pem)
    (folder / "openssl-ca.key").write_bytes(authority.issued.key_pem)
    (folder / "ext").write_text(usage)
    openssl(folder, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "leaf.key")
    openssl(folder, "req", "-new", "-key", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=laptop-9")
    signing = ("x509", "-req", "-in", "leaf.csr", "-CA", "openssl-ca.pem", "-CAkey", "openssl-ca.key")
    openssl(folder, *signing, "-days", "1", "-extfile", "ext", "-out", "leaf.pem", *options)
    return Issued(x509.load_pem_x509_certificate((folder / "leaf.pem").read_bytes()), key)


REFUSED: dict[str, tuple[Callable[[], Issued], str]] = {
    "X02_self_signed": (lambda: Issued(OTHER.cert, OTHER.key), "authority"),
    "X02_of_an_unknown_authority": (lambda: OTHER.issue(), "no chain"),
    "X02_of_an_authority_of_the_right_name": (lambda: TWIN_OF_ROOT.issue(), "signature does not match"),
    "X02_right_chain_wrong_signature": (lambda: DEVICES.issue(signer=new_key()), "signature does not match"),
    "without_its_intermediate": (lambda: Issued((it := DEVICES.issue()).cert, it.key), "no chain"),
    "X04_for_servers": (lambda: DEVICES.issue(usage=[SERVER]), "does not hold clientAuth"),
    "X04_no_extended_key_usage": (lambda: DEVICES.issue(usage=None), "names no extended key usage"),
    "X04_any_usage": (lambda: DEVICES.issue(usage=[ANY]), "or any"),
    "X05_authority": (
        lambda: DEVICES.issue(constraints=x509.BasicConstraints(ca=True, path_length=None)),
        "basicConstraints.cA",
    ),
    "X05_no_digital_signature": (lambda: DEVICES.issue(bits=key_usage("key_agreement")), "key usage"),
    "X05_signs_certificates": (
        lambda: DEVICES.issue(bits=key_usage("digital_signature", "key_cert_sign")),
        "keyCertSign",
    ),
    "issued_by_another_leaf": (
        lambda: Authority(DEVICES.issue("leaf"), DEVICES).issue("below a leaf"),
        "no chain",
    ),
    "issuer_without_keyCertSign": (
        lambda: ROOT.intermediate("x", usage=key_usage("crl_sign")).issue(),
        "keyCertSign must",
    ),
    "longer_than_the_path_may_be": (
        lambda: ROOT.intermediate("x", path_length=0).intermediate("y").issue(),
        "path length",
    ),
    "outside_the_name_constraints": (
        lambda: ROOT.intermediate(
            "x", extra=[(x509.NameConstraints([x509.DNSName("corp.test")], None), True)]
        ).issue(dns=["evil.test"]),
        "name constraints",
    ),
    "issuer_for_servers_only": (
        lambda: ROOT.intermediate("x", extra=[(x509.ExtendedKeyUsage([SERVER]), False)]).issue(),
        "EKU",
    ),
    "issuer_expired": (
        lambda: ROOT.intermediate("x", not_after=NOW - 60).issue(),
        "not valid at validation time",
    ),
    "critical_extension_nobody_knows": (lambda: DEVICES.issue(extra=[(UNKNOWN, True)]), "critical"),
    "X07_RSA_1024": (lambda: DEVICES.issue(key=rsa.generate_private_key(65537, 1024)), "RSA key"),
    "X07_RSA_exponent_3": (lambda: DEVICES.issue(key=rsa.generate_private_key(3, 2048)), "RSA key"),
    "X07_P-192": (lambda: DEVICES.issue(key=ec.generate_private_key(ec.SECP192R1())), "curve"),
    "X07_intermediate_of_P-192": (
        lambda: ROOT.intermediate("x", key=ec.generate_private_key(ec.SECP192R1())).issue(),
        "curve",
    ),
    "X07_secp256k1": (lambda: DEVICES.issue(key=ec.generate_private_key(ec.SECP256K1())), "curve"),
    "X07_serial_of_21_octets": (
        lambda: DEVICES.issue(serial=2**159 - 1, altered=lambda tbs: longer_serial(tbs)),
        "",
    ),
    "X07_serial_negative": (
        lambda: DEVICES.issue(serial=0x11, altered=swapped(b"\x02\x01\x11", b"\x02\x01\x91")),
        "",
    ),
    "X07_serial_zero": (
        lambda: DEVICES.issue(serial=0x11, altered=swapped(b"\x02\x01\x11", b"\x02\x01\x00")),
        "",
    ),
    "X12_NUL_in_a_URI": (
        lambda: DEVICES.issue(
            uris=["spiffe://corp.test/dev#.evil"], altered=swapped(b"dev#.evil", b"dev\0.evil")
        ),
        "printable ASCII",
    ),
    "X12_NUL_in_a_DNS_name": (
        lambda: DEVICES.issue(dns=["a#b"], altered=swapped(b"a#b", b"a\0b")),
        "printable ASCII",
    ),
    "X12_NUL_in_an_address": (
        lambda: DEVICES.issue(emails=["a@b.test"], altered=swapped(b"a@b.test", b"a@b\0test")),
        "printable ASCII",
    ),
    "X12_line_feed_in_a_DNS_name": (
        lambda: DEVICES.issue(dns=["a#b"], altered=swapped(b"a#b", b"a\nb")),
        "printable ASCII",
    ),
    "X12_other_octets_in_a_DNS_name": (
        lambda: DEVICES.issue(dns=["a#b"], altered=swapped(b"a#b", b"a\xe9b")),
        "",
    ),
    "X12_BMPString_with_a_NUL": (
        lambda: DEVICES.issue(san=[other_name(der(0x1E, "victim\x00evil".encode("utf-16-be")))]),
        "otherName holds control characters",
    ),
    "X12_BMPString_of_half_a_character": (
        lambda: DEVICES.issue(san=[other_name(der(0x1E, b"\x00v\x00"))]),
        "cannot be read",
    ),
    "X12_otherName_that_is_cut_off": (
        lambda: DEVICES.issue(
            san=[other_name(b"\x0c\x03abc")], altered=swapped(b"\x0c\x03abc", b"\x0c\x7fabc")
        ),
        "",
    ),
    "X12_otherName_with_something_behind": (
        lambda: DEVICES.issue(
            san=[other_name(b"\x0c\x03abc")], altered=swapped(b"\x0c\x03abc", b"\x0c\x02abc")
        ),
        "",
    ),
    "X12_NUL_in_the_subject": (
        lambda: DEVICES.issue("lap#top", altered=swapped(b"lap#top", b"lap\0top")),
        "control characters",
    ),
    "X12_a_name_that_is_a_BIT_STRING": (
        lambda: DEVICES.issue("lap#top", altered=swapped(b"\x0c\x07lap#top", b"\x03\x07lap#top")),
        "cannot be read",
    ),
    "X12_NUL_in_a_directory_name": (
        lambda: DEVICES.issue(
            san=[x509.DirectoryName(named("lap#top"))], altered=swapped(b"lap#top", b"lap\0top")
        ),
        "control characters",
    ),
    "extension_twice": (
        lambda: DEVICES.issue(
            uris=["spiffe://corp.test/1"],
            extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x30\x00"), False)],
            altered=swapped(b"\x06\x03\x55\x1d\x63", b"\x06\x03\x55\x1d\x11"),
        ),
        "",
    ),
}


@pytest.mark.parametrize(
    ("issue", "why"), [pytest.param(issue, why, id=name) for name, (issue, why) in REFUSED.items()]
)
async def test_refused(tmp_path: Path, issue: Callable[[], Issued], why: str) -> None:
    answer = await both(verifier(tmp_path), issue().shown)
    assert isinstance(answer, Refused)
    assert answer.reason is INVALID
    assert why in answer.detail


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(ClientCertificate(b""), id="nothing"),
        pytest.param(ClientCertificate(b"\x30\x03\x02\x01\x01"), id="another_structure"),
        pytest.param(ClientCertificate(DEVICES.issue().pem), id="PEM"),
        pytest.param(ClientCertificate(DEVICES.issue().der + b"\0"), id="something_behind"),
        pytest.param(ClientCertificate(ROOT.issue().der, (b"x",)), id="rubbish_in_the_chain"),
        pytest.param(ROOT.issue().shown._replace(vouched=False), id="X21_the_front_does_not_vouch"),
        pytest.param(ClientCertificate(ROOT.issue().der, (DEVICES.der,) * 8), id="X17_nine_certificates"),
        pytest.param(ClientCertificate(ROOT.issue().der, (DEVICES.der,) * 99), id="X17_hundred_certificates"),
        pytest.param(ClientCertificate(b"\x30" * 2_000_000), id="X17_two_megabytes"),
        pytest.param(
            DEVICES.issue(dns=[f"{n:05}.corp.test" for n in range(4500)]).shown, id="X17_names_of_64_KiB"
        ),
    ],
)
async def test_what_is_no_certificate_of_ours(tmp_path: Path, shown: ClientCertificate) -> None:
    answer = await both(verifier(tmp_path), shown)
    assert isinstance(answer, Refused)
    assert answer.reason is INVALID


async def test_a_key_too_large_is_refused_before_its_signature_is_looked_at(tmp_path: Path) -> None:
    """(X17) A modulus of 16384 bits, in the leaf and above it: any number of that size will do for both."""
    modulus = (1 << 16383) | 1
    numbers = rsa.RSAPublicNumbers(65537, modulus)
    huge = numbers.public_key()

    class Unsigned:
        def public_key(self) -> rsa.RSAPublicKey:
            return huge

    cert = DEVICES.issue(key=Unsigned()).cert  # type: ignore[arg-type]
    answer = await both(verifier(tmp_path), Issued(cert, RSA_KEY, DEVICES.above).shown)
    assert isinstance(answer, Refused) and "RSA key" in answer.detail
    shown = ClientCertificate(DEVICES.issue().der, (Issued(cert, RSA_KEY).der, DEVICES.der))
    answer = await both(verifier(tmp_path), shown)
    assert isinstance(answer, Refused) and "RSA key" in answer.detail


def maze(names: int) -> ClientCertificate:
    """Seven authorities of so many names and one key, each an issuer of the next name."""
    key = new_key()
    called = [f"Maze {n}" for n in range(names)]
    makers = [Authority.root(name, key=key) for name in called]
    parts = [
        makers[(n + 1) % names].intermediate(called[n % names], key=key, not_after=NOW + (n + 1) * DAY)
        for n in range(7)
    ]
    return ClientCertificate(makers[0].issue().der, tuple(it.der for it in parts))


@pytest.mark.parametrize("names", [1, 2, 3])
async def test_a_maze_of_authorities_is_not_walked(tmp_path: Path, names: int) -> None:
    """(X17) Every way up leads nowhere; the limit on signatures to check is never come near."""
    answer = await both(verifier(tmp_path), maze(names))
    assert isinstance(answer, Refused)
    assert answer.reason is INVALID and "limit" not in answer.detail


async def test_more_than_is_needed_may_be_shown(tmp_path: Path) -> None:
    """In any order, with the root, and with a certificate that has nothing to do with it."""
    chain = (OTHER.intermediate("z").der, ROOT.der, DEVICES.der, DEVICES.der)
    assert isinstance(await both(verifier(tmp_path), ClientCertificate(DEVICES.issue().der, chain)), Verified)


async def test_whatever_was_changed_in_it_a_certificate_is_refused(tmp_path: Path) -> None:
    """Save for the signature: one of ECDSA has a second form that is as good, so that a thumbprint names a
    certificate, and yet its holder can make another one of it."""
    issued, it = ROOT.issue(uris=["spiffe://corp.test/device/1"]), verifier(tmp_path)
    signed = issued.der.index(issued.cert.tbs_certificate_bytes) + len(issued.cert.tbs_certificate_bytes)
    dice = random.Random(4)
    for _ in range(400):
        changed = bytearray(issued.der)
        changed[dice.randrange(signed)] ^= 1 << dice.randrange(8)
        assert isinstance(await both(it, ClientCertificate(bytes(changed))), Refused)


@pytest.mark.parametrize("usage", [pytest.param(None, id="none"), pytest.param([ANY], id="any")])
async def test_any_usage_where_it_is_allowed(
    tmp_path: Path, usage: list[x509.ObjectIdentifier] | None
) -> None:
    """(X04) "refuse unless configured"; one for servers alone stays refused."""
    it = verifier(tmp_path, allow_any_usage=True)
    assert isinstance(await both(it, DEVICES.issue(usage=usage).shown), Verified)
    assert isinstance(await both(it, DEVICES.issue(usage=[SERVER]).shown), Refused)


async def test_certificates_of_the_real_openssl(tmp_path: Path) -> None:
    """The authority is one of ours; the second is `openssl req -x509`, without a key usage."""
    issued = by_openssl(tmp_path)
    ours = ClientCertificates([adapter.Authority("corp", tmp_path / "openssl-ca.pem")], SetClock(time.time()))
    answer = await both(ours, issued.shown, time.time() + 60)
    assert isinstance(answer, Verified) and answer.certificate.subject == "CN=laptop-9"
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout openssl-ca.key"
    openssl(tmp_path, *arguments.split(), "-out", "openssl-ca.pem", "-subj", "/CN=req", "-days", "9")
    signing = "x509 -req -in leaf.csr -CA openssl-ca.pem -CAkey openssl-ca.key -days 1 -extfile ext"
    openssl(tmp_path, *signing.split(), "-out", "leaf.pem")
    leaf = x509.load_pem_x509_certificate((tmp_path / "leaf.pem").read_bytes())
    authority = adapter.Authority("corp", tmp_path / "openssl-ca.pem")
    theirs = ClientCertificates([authority], SetClock(time.time()))
    assert isinstance(await both(theirs, Issued(leaf, RSA_KEY).shown, time.time() + 60), Verified)


@pytest.mark.parametrize("digest", ["-sha1", "-md5"])
async def test_weak_signatures(tmp_path: Path, digest: str) -> None:
    """(X07)"""
    issued = by_openssl(tmp_path, digest)
    it = ClientCertificates([adapter.Authority("corp", tmp_path / "openssl-ca.pem")], SetClock(time.time()))
    answer = await both(it, issued.shown, time.time() + 60)
    assert isinstance(answer, Refused) and answer.reason is INVALID


async def test_validity_is_judged_on_every_call(tmp_path: Path) -> None:
    it, issued = verifier(tmp_path), DEVICES.issue(not_before=NOW, not_after=NOW + HOUR)
    early, late = await both(it, issued.shown, NOW - 1), await both(it, issued.shown, NOW + HOUR)
    assert isinstance(early, Refused) and early.reason is Reason.DEVICE_CERTIFICATE_EXPIRED
    assert isinstance(late, Refused) and late.reason is Reason.DEVICE_CERTIFICATE_EXPIRED
    for moment in (NOW, NOW + HOUR - 1):
        answer = await both(it, issued.shown, moment)
        assert isinstance(answer, Verified) and answer.until == NOW + HOUR
    assert it.at_once(issued.shown, NOW - 1) == early


async def test_a_chain_holds_as_long_as_all_of_it_is_valid(tmp_path: Path) -> None:
    it, issued = verifier(tmp_path), ROOT.intermediate("x", not_after=NOW + HOUR).issue()
    answer = await both(it, issued.shown)
    assert isinstance(answer, Verified) and answer.until == NOW + HOUR
    late = await both(it, issued.shown, NOW + HOUR + 1)
    assert isinstance(late, Refused) and late.reason is INVALID


async def test_a_refusal_is_looked_into_again_after_a_minute(tmp_path: Path) -> None:
    """The authority of a new site may begin a moment from now, by our clock."""
    it = verifier(tmp_path)
    issued = Authority(
        ROOT.issue(
            "Young",
            bits=key_usage("key_cert_sign"),
            usage=None,
            constraints=x509.BasicConstraints(ca=True, path_length=None),
            not_before=NOW + 5,
        ),
        ROOT,
    ).issue()
    assert isinstance(await both(it, issued.shown, NOW), Refused)
    assert isinstance(await both(it, issued.shown, NOW + 30), Refused)
    assert isinstance(await both(it, issued.shown, NOW + 61), Verified)


async def test_intermediates_may_stand_in_the_file(tmp_path: Path) -> None:
    issued = DEVICES.issue()
    bare = ClientCertificate(issued.der)
    assert isinstance(await both(verifier(tmp_path, ROOT, DEVICES), bare), Verified)
    # Alone in the file, an intermediate is what is trusted, and nothing else its root made.
    alone = verifier(tmp_path, DEVICES)
    assert isinstance(await both(alone, bare), Verified)
    assert isinstance(await both(alone, ROOT.issue().shown), Refused)


async def test_the_first_authority_a_chain_leads_to_counts(tmp_path: Path) -> None:
    it = ClientCertificates(
        [
            adapter.Authority("a", ca_file(tmp_path, ROOT)),
            adapter.Authority("b", ca_file(tmp_path, OTHER, name="b.pem")),
        ],
        SetClock(NOW),
    )
    for issued, name in ((ROOT.issue(), "a"), (OTHER.issue(), "b")):
        answer = await both(it, issued.shown)
        assert isinstance(answer, Verified) and answer.certificate.authority == name


async def test_thousands_of_certificates_push_each_other_out(tmp_path: Path) -> None:
    """What was forgotten is found out again, and the answer stays the same."""
    it, issued = verifier(tmp_path), ROOT.issue()
    before = await both(it, issued.shown)
    for n in range(adapter.MOST_REMEMBERED + 1):
        assert isinstance(it.at_once(ClientCertificate(n.to_bytes(4, "big")), NOW), Refused)
    assert await both(it, issued.shown) == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "cannot be read: no such file", id="missing"),
        pytest.param(b"", "holds no certificate", id="empty"),
        pytest.param(b"rubbish", "holds no certificate", id="rubbish"),
        pytest.param(ROOT.pem[:-40], "holds no certificate", id="half_written"),
        pytest.param(ROOT.issue().pem, "`CN=laptop-1` is not an authority's", id="leaf"),
        pytest.param(ROOT.issue(constraints=None).pem, "is not an authority's", id="leaf_of_few_words"),
        pytest.param(
            Authority.root("x", key=rsa.generate_private_key(65537, 1024)).pem,
            "cannot be used",
            id="weak_key",
        ),
        pytest.param(
            Authority.root("x", key=ed25519.Ed25519PrivateKey.generate()).pem, "Ed25519", id="Ed25519"
        ),
        pytest.param(
            OTHER.intermediate("Corp Root", key=ROOT.key).pem
            + ROOT.intermediate("Other Root", key=OTHER.key).pem,
            "no anchor",
            id="each_signed_by_the_other",
        ),
    ],
)
def test_files_of_authorities_that_cannot_be_used(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(OperatorError, match="give") as failed:
        ClientCertificates([adapter.Authority("corp", file)], SetClock(NOW))
    assert problem in str(failed.value) and str(file) in str(failed.value)


def test_a_responder_needs_a_session(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="session"):
        verifier(tmp_path, ocsp=OCSPSettings("http://127.0.0.1:1/"))


class TestRevocation:
    """A list beside the authority; what a list must be is told in `test_revocation_lists`."""

    async def test_revoked_while_running(self, tmp_path: Path) -> None:
        """(X08) The very next question after the list was loaded is refused, whatever was answered before."""
        crl, issued = tmp_path / "crl.pem", DEVICES.issue()
        crl.write_bytes(DEVICES.crl(number=1, next_update=NOW + HOUR))
        it = verifier(tmp_path, ROOT, DEVICES, crl=crl)
        answer = await both(it, issued.shown)
        assert isinstance(answer, Verified) and answer.until == NOW + HOUR
        revision = it.revision
        assert not it.reload_if_changed() and it.revision == revision
        crl.write_bytes(DEVICES.crl([issued.serial], number=2))
        assert it.reload_if_changed() and it.revision > revision
        refused = await both(it, issued.shown)
        assert isinstance(refused, Refused) and refused.reason is Reason.DEVICE_CERTIFICATE_REVOKED

    async def test_revoked_intermediate(self, tmp_path: Path) -> None:
        crl = tmp_path / "crl.pem"
        crl.write_bytes(DEVICES.crl() + ROOT.crl([DEVICES.cert.serial_number]))
        it = verifier(tmp_path, ROOT, DEVICES, crl=crl)
        refused = await both(it, DEVICES.issue().shown)
        assert isinstance(refused, Refused) and refused.reason is Reason.DEVICE_CERTIFICATE_REVOKED

    async def test_every_leaf_needs_a_list_of_its_issuer(self, tmp_path: Path) -> None:
        crl = tmp_path / "crl.pem"
        crl.write_bytes(ROOT.crl())
        it = verifier(tmp_path, ROOT, DEVICES, crl=crl)
        assert isinstance(await both(it, ROOT.issue().shown), Verified)
        refused = await both(it, DEVICES.issue().shown)
        assert isinstance(refused, Refused) and refused.reason is Reason.DEVICE_CERTIFICATE_UNCHECKED

    async def test_a_bad_list_is_told_once_and_the_old_one_stays(self, tmp_path: Path) -> None:
        crl, issued = tmp_path / "crl.pem", ROOT.issue()
        crl.write_bytes(ROOT.crl([issued.serial], number=5))
        it = verifier(tmp_path, crl=crl)
        assert [until for _, until in it.expiries()] == [NOW + DAY]
        crl.write_bytes(OTHER.crl(number=6))
        with pytest.raises(OperatorError, match="not signed by an authority"):
            it.reload_if_changed()
        assert not it.reload_if_changed()
        refused = await both(it, issued.shown)
        assert isinstance(refused, Refused) and refused.reason is Reason.DEVICE_CERTIFICATE_REVOKED
