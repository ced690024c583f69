"""X.509: a client's certificate and an authority's revocation list. No private key of the fixture's is
known to whoever writes the input, so nothing holds but what the fixture issued.
"""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.worlds.certificates import NOW, Authority
from ztproxy.adapters.certificate_form import UNREADABLE, DeviceName, Rules, Unfit, check_key, read
from ztproxy.adapters.client_certificates import Authority as Trusted
from ztproxy.adapters.client_certificates import ClientCertificates
from ztproxy.adapters.revocation_lists import Link, RevocationLists, issuer_key
from ztproxy.core.certificate import Certificate, Refused, Verified
from ztproxy.core.request import ClientCertificate
from ztproxy.errors import OperatorError

MADE = 1_750_000_000.0
"""When the corpus was made, in seconds since the epoch: its certificates and most lists hold ten years."""

CA = Authority.root("Fuzz", key=ec.derive_private_key(0xCA, ec.SECP256R1()))
_FOLDER = tempfile.TemporaryDirectory(prefix="ztproxy-fuzz-")
atexit.register(_FOLDER.cleanup)
_CA_FILE, _CRL_FILE = Path(_FOLDER.name) / "ca.pem", Path(_FOLDER.name) / "crl"
_CA_FILE.write_bytes(CA.pem)
_RULES = (
    Rules("corp", DeviceName("san_uri", "urn:device:{id}"), "corp.test"),
    Rules("corp", DeviceName("common_name"), None, allow_any_usage=True),
)


_LEAF = CA.issue().der
_VERIFIER = ClientCertificates([Trusted("corp", _CA_FILE)], lambda: NOW)


def certificate(data: bytes) -> None:
    """Read by the rules of form or refused; verified only if the fixture's authority signed those octets."""
    for shown in (
        ClientCertificate(data),
        ClientCertificate(_LEAF, (data,)),
        ClientCertificate(data, (data,)),
    ):
        judged = _VERIFIER.at_once(shown, NOW)
        assert isinstance(judged, Verified | Refused)
        if isinstance(judged, Refused):
            assert judged.reason.name.startswith("DEVICE_CERTIFICATE")
            assert len(judged.detail) < 4 * len(data) + 400
        elif shown.leaf is data:
            x509.load_der_x509_certificate(data).verify_directly_issued_by(CA.cert)  # else `InvalidSignature`
    try:
        leaf = x509.load_der_x509_certificate(data)
        check_key(leaf)
    except (Unfit, *UNREADABLE):
        return
    for rules in _RULES:
        try:
            _check(read(leaf, rules))
        except (Unfit, *UNREADABLE) as refused:
            assert len(str(refused)) < 4 * len(data) + 400


def _check(found: Certificate) -> None:
    for name in (*found.dns, *found.emails, *found.uris):
        assert name.isascii() and name.isprintable() and name
    for text in (found.subject, found.device or "x"):
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text), "a control in a name"
    assert found.serial > 0 and len(found.thumbprint) == len(found.spki) == 43
    if found.spiffe is not None:
        assert found.uris == (found.spiffe,) and found.spiffe.startswith("spiffe://corp.test/")


def revocation_list(data: bytes) -> None:
    """In force only if an authority of the fixture signed it; else an `OperatorError` that tells the mend."""
    _CRL_FILE.write_bytes(data)
    try:
        lists = RevocationLists(_CRL_FILE, [CA.cert], MADE)
    except OperatorError as refused:
        assert refused.mend and len(str(refused)) < 20 * len(data) + 800
        return
    # The same file again is no change, and takes nothing away.
    before = lists.expiries()
    assert not lists.reload_if_changed(MADE) and lists.expiries() == before
    assert len(before) == 1 and before[0][0] == "CN=Fuzz"
    judged = lists.judge([Link(issuer_key(CA.cert), 7)], MADE)
    late = before[0][1] <= MADE
    assert late <= isinstance(judged, Refused), "a list out of date lets somebody in"
