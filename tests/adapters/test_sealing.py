"""Seals: what opens them, and everything that does not."""

from __future__ import annotations

import pytest

from ztproxy.adapters.sealing import Breach, SealBroken, Sealer

OLD, NEW, STRANGE = (bytes([number]) * 32 for number in (1, 2, 3))
SECRET, PLACE, PLAIN = b"s" * 43, b"ztp:s:{x}:s:0", b"the record"
SEALED = Sealer([OLD]).seal(SECRET, PLACE, PLAIN)


def breach(sealer: Sealer, secret: bytes, place: bytes, sealed: bytes) -> Breach:
    with pytest.raises(SealBroken) as caught:
        sealer.open(secret, place, sealed)
    return caught.value.breach


@pytest.mark.parametrize("plain", [b"", PLAIN, bytes(100_000)], ids=["empty", "short", "long"])
def test_a_seal_opens_where_and_for_whom_it_was_made(plain: bytes) -> None:
    sealer = Sealer([OLD])
    assert sealer.open(SECRET, PLACE, sealer.seal(SECRET, PLACE, plain)) == plain


def test_the_same_twice_is_sealed_differently() -> None:
    sealer = Sealer([OLD])
    assert len({sealer.seal(SECRET, PLACE, PLAIN) for _ in range(20)}) == 20


def test_the_first_key_seals_and_all_listed_keys_open() -> None:
    rotated = Sealer([NEW, OLD])
    assert rotated.open(SECRET, PLACE, SEALED) == PLAIN
    assert Sealer([NEW]).open(SECRET, PLACE, rotated.seal(SECRET, PLACE, PLAIN)) == PLAIN
    assert breach(Sealer([NEW]), SECRET, PLACE, SEALED) is Breach.KEY


@pytest.mark.parametrize(
    ("secret", "place", "sealed", "expected"),
    [
        pytest.param(b"t" * 43, PLACE, SEALED, Breach.TAMPERED, id="another-secret"),
        pytest.param(b"", PLACE, SEALED, Breach.TAMPERED, id="no-secret"),
        pytest.param(SECRET, b"ztp:s:{y}:s:0", SEALED, Breach.TAMPERED, id="moved-to-another-key"),
        pytest.param(SECRET, b"ztp:s:{x}:k:0", SEALED, Breach.TAMPERED, id="moved-to-another-field"),
        pytest.param(SECRET, b"ztp:s:{x}:s:1", SEALED, Breach.TAMPERED, id="moved-to-another-revision"),
        pytest.param(SECRET, PLACE, SEALED + b"\0", Breach.TAMPERED, id="longer"),
        pytest.param(SECRET, PLACE, SEALED[:-1], Breach.TAMPERED, id="shorter"),
        pytest.param(SECRET, PLACE, SEALED[:36], Breach.FORM, id="cut-to-less-than-a-tag"),
        pytest.param(SECRET, PLACE, b"", Breach.FORM, id="empty"),
        pytest.param(SECRET, PLACE, b"\x00" + SEALED[1:], Breach.FORM, id="version-0"),
        pytest.param(SECRET, PLACE, b"\x02" + SEALED[1:], Breach.FORM, id="newer-version"),
        pytest.param(SECRET, PLACE, SEALED[:1] + bytes(8) + SEALED[9:], Breach.KEY, id="unknown-key"),
    ],
)
def test_a_broken_seal_says_how(secret: bytes, place: bytes, sealed: bytes, expected: Breach) -> None:
    assert breach(Sealer([OLD]), secret, place, sealed) is expected


def test_every_flipped_bit_is_noticed() -> None:
    sealer = Sealer([OLD])
    for position in range(len(SEALED) * 8):
        flipped = bytearray(SEALED)
        flipped[position // 8] ^= 1 << (position % 8)
        breach(sealer, SECRET, PLACE, bytes(flipped))


def test_a_key_claimed_by_name_alone_does_not_open() -> None:
    # the id of a listed key over what an unlisted key sealed
    foreign = Sealer([STRANGE]).seal(SECRET, PLACE, PLAIN)
    assert breach(Sealer([OLD]), SECRET, PLACE, SEALED[:9] + foreign[9:]) is Breach.TAMPERED


def test_the_form_is_stable() -> None:
    # sealed by an earlier run of this program: what lies in Redis must open after an upgrade
    earlier = bytes.fromhex(
        "0180b3578a93745b2875976e70ae4860e33b1743924d1a1778266eb4f517fc53722d879e50a7350fe666f285fa55d6"
    )
    assert Sealer([OLD]).open(SECRET, PLACE, earlier) == PLAIN
