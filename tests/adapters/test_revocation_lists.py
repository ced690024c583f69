"""Which revocation lists are believed, which never replace another, and what follows from one."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.worlds.certificates import DAY, HOUR, NOW, Authority, Extra, der, key_usage, new_key
from ztproxy.adapters.revocation_lists import MAX_BYTES, Link, RevocationLists, issuer_key
from ztproxy.core.certificate import Refused
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError

CA = Authority.root("Corp")
TWIN = Authority.root("Corp")  # of the same name, with another key
BELOW = CA.intermediate("Devices")
STRANGER = Authority.root("Stranger")
NO_SIGNER = Authority.root("No signer", usage=key_usage("key_cert_sign"))
REVOKED, UNCHECKED = Reason.DEVICE_CERTIFICATE_REVOKED, Reason.DEVICE_CERTIFICATE_UNCHECKED
ISSUERS = [CA.cert, BELOW.cert, NO_SIGNER.cert]
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
WHERE = x509.DistributionPoint([x509.UniformResourceIdentifier("http://x.test/")], None, None, None)


class Lists:
    """The lists in one file; `write` puts another content there."""

    def __init__(self, folder: Path, content: bytes, now: float = NOW) -> None:
        self.file = folder / "crl.pem"
        self.write(content)
        self.lists = RevocationLists(self.file, ISSUERS, now)

    def write(self, content: bytes) -> None:
        new = self.file.with_suffix(".new")
        new.write_bytes(content)
        new.rename(self.file)

    def loads(self, content: bytes, now: float = NOW) -> bool:
        self.write(content)
        return self.lists.reload_if_changed(now)

    def says(
        self, serial: int, *above: tuple[Authority, int], of: Authority = CA, now: float = NOW
    ) -> object:
        """The reason it is refused, or until when nothing is said against it."""
        chain = [Link(issuer_key(it.cert), number) for it, number in ((of, serial), *above)]
        answer = self.lists.judge(chain, now)
        return answer.reason if isinstance(answer, Refused) else answer


def point(**of: object) -> Extra:
    fields: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**fields, **of}), True  # type: ignore[arg-type]


def in_DER(pem: bytes) -> bytes:
    return x509.load_pem_x509_crl(pem).public_bytes(Encoding.DER)


def test_what_follows_from_a_list(tmp_path: Path) -> None:
    it = Lists(tmp_path, CA.crl([7], next_update=NOW + HOUR) + BELOW.crl([9]))
    assert it.says(7) is REVOKED
    assert it.says(8) == NOW + HOUR
    assert it.says(7, of=BELOW) == NOW + DAY  # of each issuer its own
    assert it.says(7, of=TWIN) is UNCHECKED  # a name alone is nobody
    assert it.says(8, (CA, 7), of=BELOW) is REVOKED  # the intermediate
    assert it.says(8, (STRANGER, 7), of=BELOW) == NOW + DAY  # of whom there is no list
    assert it.says(8, (CA, 8), of=BELOW) == NOW + HOUR
    assert it.lists.expiries() == [("CN=Corp", NOW + HOUR), ("CN=Devices", NOW + DAY)]


def test_after_its_time_a_list_lets_nobody_in(tmp_path: Path) -> None:
    it = Lists(tmp_path, CA.crl([7], next_update=NOW + HOUR) + BELOW.crl())
    assert it.says(8, now=NOW + HOUR - 1) == NOW + HOUR
    assert it.says(8, now=NOW + HOUR) is UNCHECKED
    assert it.says(8, (CA, 8), of=BELOW, now=NOW + HOUR) is UNCHECKED
    assert it.says(7, now=NOW + HOUR) is REVOKED  # what it did say it does not unsay


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(CA.crl([7]), id="PEM"),
        pytest.param(in_DER(CA.crl([7])), id="DER"),
        pytest.param(b"Corp\n" + BELOW.crl() + b"\n# \n" + CA.crl([7]), id="several_with_text_between"),
        pytest.param(CA.crl([7], number=None), id="without_a_number"),
        pytest.param(CA.crl([7], at=NOW + 200), id="a_little_ahead_of_our_clock"),
        pytest.param(CA.crl([7], extra=[(UNKNOWN, False)]), id="unknown_extension_that_is_not_critical"),
        pytest.param(CA.crl([7], extra=[point(only_contains_user_certs=True)]), id="all_user_certificates"),
        pytest.param(CA.crl(number=3) + CA.crl([7], number=4), id="older_and_newer"),
        pytest.param(
            CA.crl([7], extra=[(x509.FreshestCRL([WHERE]), False)]),
            id="says_where_deltas_are",
        ),
    ],
)
def test_forms_that_are_understood(tmp_path: Path, content: bytes) -> None:
    it = Lists(tmp_path, content)
    assert it.says(7) is REVOKED
    assert it.says(8) == NOW + DAY


def test_an_empty_list_revokes_nobody(tmp_path: Path) -> None:
    assert Lists(tmp_path, CA.crl()).says(7) == NOW + DAY


WHOLE = CA.crl([7, 8], number=6)

NOT_BELIEVED = [
    pytest.param(b"", "holds no whole", id="empty_file"),
    pytest.param(b"rubbish", "holds no whole", id="rubbish"),
    pytest.param(CA.pem, "holds no whole", id="a_certificate"),
    pytest.param(WHOLE[:200], "holds no whole", id="half_written"),
    pytest.param(in_DER(WHOLE)[:100], "holds no whole", id="half_written_DER"),
    pytest.param(WHOLE + BELOW.crl()[:150], "holds no whole", id="half_written_second_list"),
    pytest.param(STRANGER.crl(number=6), "not signed by an authority", id="X10_of_another_authority"),
    pytest.param(TWIN.crl(number=6), "not signed by an authority", id="X10_of_one_of_the_same_name"),
    pytest.param(CA.crl(number=6, signer=new_key()), "not signed by", id="X10_signed_by_nobody"),
    pytest.param(NO_SIGNER.crl(number=6), "lacks cRLSign", id="X10_issuer_may_not_sign_lists"),
    pytest.param(CA.crl(number=6, extra=[(x509.DeltaCRLIndicator(5), True)]), "is a delta", id="X10_delta"),
    pytest.param(
        CA.crl(number=6, extra=[(UNKNOWN, True)]), "not understood", id="X10_unknown_critical_extension"
    ),
    pytest.param(
        CA.crl(number=6, extra=[point(only_contains_ca_certs=True)]), "covers a part", id="authorities_only"
    ),
    pytest.param(
        CA.crl(number=6, extra=[point(indirect_crl=True)]), "covers a part", id="of_several_issuers"
    ),
    pytest.param(
        CA.crl(number=6, extra=[point(full_name=[x509.UniformResourceIdentifier("http://x.test/1")])]),
        "covers a part",
        id="shard",
    ),
    pytest.param(
        CA.crl(number=6, extra=[point(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise]))]),
        "covers a part",
        id="some_reasons_only",
    ),
    pytest.param(CA.crl(number=6, at=NOW + 600), "of the future", id="of_the_future"),
    pytest.param(CA.crl(number=4), "lower number", id="X11_lower_number"),
    pytest.param(CA.crl(number=None), "lower number", id="X11_no_number_any_more"),
    pytest.param(CA.crl(number=5, at=NOW - 2 * HOUR), "is older", id="X11_same_number_of_an_earlier_time"),
]


@pytest.mark.parametrize(("content", "problem"), NOT_BELIEVED)
def test_lists_that_are_not_believed(tmp_path: Path, content: bytes, problem: str) -> None:
    """(X10, X11) Told once; the one in force stays, until its own end."""
    it = Lists(tmp_path, CA.crl([7], number=5, next_update=NOW + HOUR))
    with pytest.raises(OperatorError, match=problem) as failed:
        it.loads(content)
    assert str(it.file) in str(failed.value) and "give" in str(failed.value)
    assert not it.lists.reload_if_changed(NOW)
    assert it.says(7) is REVOKED
    assert it.says(8, now=NOW + HOUR - 1) == NOW + HOUR
    assert it.says(8, now=NOW + HOUR) is UNCHECKED
    assert it.loads(CA.crl([8], number=6)), "a good one mends it"
    assert it.says(8) is REVOKED


@pytest.mark.parametrize(
    "content",
    [pytest.param(row.values[0], id=row.id) for row in NOT_BELIEVED if not str(row.id).startswith("X11")],
)
def test_nor_at_the_start(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(OperatorError):
        Lists(tmp_path, content)


def test_lists_without_numbers_go_by_their_time(tmp_path: Path) -> None:
    it = Lists(tmp_path, CA.crl([7], number=None, at=NOW - HOUR))
    with pytest.raises(OperatorError, match="is older"):
        it.loads(CA.crl(number=None, at=NOW - 2 * HOUR))
    assert it.says(7) is REVOKED
    assert it.loads(CA.crl([8], number=None, at=NOW))
    assert it.says(7) == NOW + DAY


def test_good_lists_count_beside_a_bad_one(tmp_path: Path) -> None:
    it = Lists(tmp_path, CA.crl(number=5) + BELOW.crl(number=5))
    with pytest.raises(OperatorError, match="`CN=Corp` has a lower number"):
        it.loads(CA.crl(number=4) + BELOW.crl([9], number=6))
    assert it.says(9, of=BELOW) is REVOKED


def test_a_list_that_is_taken_away_stays_until_its_end(tmp_path: Path) -> None:
    it = Lists(tmp_path, CA.crl([7]) + BELOW.crl())
    assert it.loads(BELOW.crl([9], number=2))
    assert it.says(7) is REVOKED
    assert it.says(8, now=NOW + DAY) is UNCHECKED


def test_the_same_list_again_is_nothing_new(tmp_path: Path) -> None:
    content = CA.crl([7])
    it = Lists(tmp_path, content)
    assert not it.loads(content)
    os.utime(it.file, (NOW + 9, NOW + 9))
    assert not it.lists.reload_if_changed(NOW)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    it = Lists(tmp_path, CA.crl([7]))
    it.file.unlink()
    with pytest.raises(OperatorError, match="no such file"):
        it.lists.reload_if_changed(NOW)
    assert not it.lists.reload_if_changed(NOW)
    assert it.says(7) is REVOKED


def test_a_file_too_large_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "crl.pem"
    with file.open("wb") as sparse:
        sparse.truncate(MAX_BYTES + 1)
    with pytest.raises(OperatorError, match="larger than 64 MiB"):
        RevocationLists(file, ISSUERS, NOW)


def by_hand(serials: range, next_update: bool = True) -> bytes:
    """A version 1 list of `CA`, DER: `cryptography` takes long over many, and leaves no field out."""

    def moment(seconds: float) -> bytes:
        at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        return der(0x17, at.strftime("%y%m%d%H%M%SZ").encode())

    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    entries = b"".join(
        der(0x30, der(0x02, serial.to_bytes(13, "big")) + moment(NOW - HOUR)) for serial in serials
    )
    times = moment(NOW - HOUR) + (moment(NOW + DAY) if next_update else b"")
    tbs = der(0x30, algorithm + CA.cert.subject.public_bytes() + times + der(0x30, entries))
    assert isinstance(CA.key, ec.EllipticCurvePrivateKey)
    signature = CA.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return der(0x30, tbs + algorithm + der(0x03, b"\0" + signature))


def test_a_hundred_thousand_serials(tmp_path: Path) -> None:
    first = 1 << 100
    it = Lists(tmp_path, by_hand(range(first, first + 100_000)))
    assert it.says(first + 99_999) is REVOKED
    assert it.says(first + 100_000) == NOW + DAY


def test_a_list_without_an_end_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no `nextUpdate`"):
        Lists(tmp_path, by_hand(range(1 << 100, (1 << 100) + 1), next_update=False))
