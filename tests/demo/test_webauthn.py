"""What counts as the answer of a security key; answers that are forged, copied or replayed do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ztproxy.demo.security_key import SecurityKey
from ztproxy.demo.webauthn import AT, UP, UV, Credential, NotProven, RelyingParty, decoded, encoded

HERE = RelyingParty("http://localhost:4000")
CHALLENGE, OTHER_CHALLENGE = encoded(bytes(32)), encoded(bytes([1]) * 32)
Told = dict[str, Any]


def created(key: SecurityKey, challenge: str = CHALLENGE) -> str:
    options = HERE.creation_options(challenge, "carols-sub", "carol", "Carol Clark", ())
    return key.answer(HERE.origin, options)


def made() -> tuple[SecurityKey, Credential]:
    key = SecurityKey()
    return key, HERE.registered(CHALLENGE, created(key))


def asked(key: SecurityKey, *known: Credential, challenge: str = CHALLENGE) -> str:
    return key.answer(HERE.origin, HERE.request_options(challenge, known))


def changed(answer: str, **of_response: object) -> str:
    told = json.loads(answer)
    told["response"] |= of_response
    return json.dumps(told)


def client_data(answer: str, **changes: object) -> str:
    """The answer with another account of what the browser did; what was signed is not touched."""
    told = json.loads(decoded(json.loads(answer)["response"]["clientDataJSON"]))
    return changed(answer, clientDataJSON=encoded(json.dumps({**told, **changes}).encode()))


def data(answer: str, change: Callable[[bytearray], None]) -> str:
    """The answer with other authenticator data, signed by nobody."""
    octets = bytearray(decoded(json.loads(answer)["response"]["authenticatorData"]))
    change(octets)
    return changed(answer, authenticatorData=encoded(bytes(octets)))


def flags(to: int) -> Callable[[bytearray], None]:
    def change(octets: bytearray) -> None:
        octets[32] = to

    return change


def other_rp(octets: bytearray) -> None:
    octets[:32] = hashlib.sha256(b"evil.example").digest()


def cut(octets: bytearray) -> None:
    del octets[36:]


def spki(key: Any) -> str:
    return encoded(
        key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def test_a_key_is_registered_and_used_and_its_counter_moves_on() -> None:
    key, credential = made()
    assert credential.count == 0
    for count in (1, 2, 3):
        credential = HERE.asserted(CHALLENGE, [credential], asked(key, credential))
        assert credential.count == count


FORGED_CLIENT_DATA = (
    pytest.param(lambda one: client_data(one, challenge=OTHER_CHALLENGE), "another question", id="replayed"),
    pytest.param(lambda one: client_data(one, challenge=None), "another question", id="no-challenge"),
    pytest.param(lambda one: client_data(one, challenge="ü"), "another question", id="challenge-not-ascii"),
    pytest.param(lambda one: client_data(one, origin="http://evil.example"), "another site", id="phished"),
    pytest.param(
        lambda one: client_data(one, origin="http://localhost:4001"), "another site", id="other-port"
    ),
    pytest.param(lambda one: client_data(one, crossOrigin=True), "another site", id="in-a-frame"),
    pytest.param(lambda one: client_data(one, type="payment.get"), "not understood", id="another-ceremony"),
    pytest.param(lambda one: changed(one, clientDataJSON=encoded(b"[]")), "not understood", id="no-object"),
    pytest.param(lambda one: changed(one, clientDataJSON=encoded(b"{")), "not understood", id="no-json"),
    pytest.param(lambda one: changed(one, clientDataJSON="*"), "not whole", id="no-base64url"),
    pytest.param(lambda one: changed(one, clientDataJSON=7), "not whole", id="a-number"),
    pytest.param(lambda one: data(one, other_rp), "answers another site", id="of-another-rp"),
    pytest.param(lambda one: data(one, cut), "answers another site", id="cut-short"),
    pytest.param(lambda one: data(one, flags(UP | AT)), "did not verify", id="nobody-verified"),
    pytest.param(lambda one: data(one, flags(UV | AT)), "did not verify", id="nobody-present"),
    pytest.param(lambda one: "", "no answer", id="empty"),
    pytest.param(lambda one: "[" * 100_000, "no answer", id="too-deep"),
    pytest.param(lambda one: "[]", "no answer", id="a-list"),
    pytest.param(
        lambda one: json.dumps({**json.loads(one), "response": None}), "no answer", id="no-response"
    ),
    pytest.param(lambda one: json.dumps({**json.loads(one), "type": "password"}), "no answer", id="no-key"),
    pytest.param(lambda one: json.dumps({**json.loads(one), "id": ""}), "no answer", id="no-id"),
)


@pytest.mark.parametrize(("forge", "says"), FORGED_CLIENT_DATA)
def test_what_does_not_register(forge: Callable[[str], str], says: str) -> None:
    with pytest.raises(NotProven, match=says):
        HERE.registered(CHALLENGE, forge(created(SecurityKey())))


@pytest.mark.parametrize(("forge", "says"), FORGED_CLIENT_DATA)
def test_what_does_not_sign_in(forge: Callable[[str], str], says: str) -> None:
    key, credential = made()
    with pytest.raises(NotProven, match=says):
        HERE.asserted(CHALLENGE, [credential], forge(asked(key, credential)))


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        pytest.param(
            lambda one: changed(one, publicKey=spki(ec.generate_private_key(ec.SECP256R1()))),
            "another key",
            id="a-key-of-the-attackers",
        ),
        pytest.param(
            lambda one: changed(one, publicKey=spki(ec.generate_private_key(ec.SECP384R1()))),
            "another kind",
            id="another-curve",
        ),
        pytest.param(lambda one: changed(one, publicKey=encoded(b"no key")), "another kind", id="no-key"),
        pytest.param(lambda one: changed(one, publicKeyAlgorithm=-257), "another kind", id="rsa"),
        pytest.param(lambda one: data(one, flags(UP | UV)), "another key", id="nothing-attached"),
        pytest.param(
            lambda one: json.dumps({**json.loads(one), "id": encoded(b"another id")}),
            "another key",
            id="another-id",
        ),
    ],
)
def test_a_registration_vouches_for_the_key_it_brings(forge: Callable[[str], str], says: str) -> None:
    with pytest.raises(NotProven, match=says):
        HERE.registered(CHALLENGE, forge(created(SecurityKey())))


def more(octets: bytearray) -> None:
    octets[36] += 1


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda one: data(one, more), id="a-higher-counter"),
        pytest.param(lambda one: client_data(one, more=1), id="more-client-data"),
        pytest.param(lambda one: changed(one, signature=encoded(b"\x30\x00")), id="no-signature"),
    ],
)
def test_every_octet_is_signed(forge: Callable[[str], str]) -> None:
    key, credential = made()
    with pytest.raises(NotProven, match="does not hold"):
        HERE.asserted(CHALLENGE, [credential], forge(asked(key, credential)))


def test_a_key_of_somebody_else_does_not_sign_in() -> None:
    (theirs, registered), (_, credential) = made(), made()
    answer = asked(theirs, registered)
    with pytest.raises(NotProven, match="not registered"):
        HERE.asserted(CHALLENGE, [credential], answer)
    posing = json.dumps({**json.loads(answer), "id": credential.id})
    with pytest.raises(NotProven, match="does not hold"):
        HERE.asserted(CHALLENGE, [credential], posing)


def test_a_copy_is_noticed_by_its_counter() -> None:
    key, credential = made()
    first = asked(key, credential)
    later = HERE.asserted(CHALLENGE, [credential], asked(key, credential))
    with pytest.raises(NotProven, match="copy"):
        HERE.asserted(CHALLENGE, [later], first)


def test_an_authenticator_without_a_counter_always_says_0() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    credential = Credential(encoded(b"id"), decoded(spki(private)), 0)
    signed = hashlib.sha256(b"localhost").digest() + bytes([UP | UV]) + bytes(4)
    told = json.dumps({"type": "webauthn.get", "challenge": CHALLENGE, "origin": HERE.origin}).encode()
    signature = private.sign(signed + hashlib.sha256(told).digest(), ec.ECDSA(hashes.SHA256()))
    response = {
        "clientDataJSON": encoded(told),
        "authenticatorData": encoded(signed),
        "signature": encoded(signature),
    }
    answer = json.dumps({"id": credential.id, "type": "public-key", "response": response})
    assert HERE.asserted(CHALLENGE, [credential], answer) == credential
