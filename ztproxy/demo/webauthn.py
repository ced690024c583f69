"""The relying party's half of WebAuthn, as far as a sign-in with a P-256 key needs it.

Knows: Web Authentication Level 2, registration (7.1) and assertion (7.2). Promises: an answer counts only for
the challenge it was made for, at this origin, for this relying party, from a key that somebody touched and
that has verified its person (UP and UV), and with a signature counter that did not go back. Leaves to its
caller: that a challenge is asked for once, whose key it is, and who may register one.

The key of a registration comes as SubjectPublicKeyInfo (5.2.1.1, `getPublicKey`), so that nothing here has to
read CBOR; that it is the one the authenticator data speaks of is a comparison of octets, for CTAP2 knows one
spelling of a P-256 key. No attestation is asked for: a demo believes any authenticator.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hmac import compare_digest
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ES256 = -7
UP, UV, AT = 0x01, 0x04, 0x40
"""Flags of the authenticator data (6.1): user present, user verified, a new key is attached."""
LONGEST_ID = 1023
_HEAD = 37  # the hash of the RP ID, the flags, the counter

Options = dict[str, Any]


class NotProven(Exception):
    """The answer proves nothing; the message is for the person."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One registered key. `id` is base64url, `public` a SubjectPublicKeyInfo in DER, `count` the highest
    signature counter seen."""

    id: str
    public: bytes
    count: int


class Signed(NamedTuple):
    """What the authenticator vouches for: `data` as it signed it, its flags, its counter, and a new key."""

    data: bytes
    flags: int
    counter: int
    attached: bytes


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Whoever asks, at `origin`. Its RP ID is its own host: browsers want a name there, not an address."""

    origin: str

    @property
    def id(self) -> str:
        return urlsplit(self.origin).hostname or ""

    def creation_options(
        self, challenge: str, user: str, name: str, full_name: str, known: Sequence[Credential]
    ) -> Options:
        """What `navigator.credentials.create` is asked for, as JSON (Level 3, 5.1.8)."""
        return {
            "rp": {"id": self.id, "name": "ztproxy demo"},
            "user": {"id": encoded(user.encode()), "name": name, "displayName": full_name},
            "challenge": challenge,
            "pubKeyCredParams": [{"type": "public-key", "alg": ES256}],
            "excludeCredentials": _named(known),
            "authenticatorSelection": {"userVerification": "required", "residentKey": "discouraged"},
            "attestation": "none",
        }

    def request_options(self, challenge: str, known: Sequence[Credential]) -> Options:
        """The same for `navigator.credentials.get`."""
        return {
            "rpId": self.id,
            "challenge": challenge,
            "allowCredentials": _named(known),
            "userVerification": "required",
        }

    def registered(self, challenge: str, answer: str) -> Credential:
        """The key that an answer to `creation_options` brings. Raises `NotProven`."""
        id, response = _read(answer)
        self._see_client_data(_octets(response, "clientDataJSON"), "webauthn.create", challenge)
        signed = self._signed(_octets(response, "authenticatorData"))
        public = _octets(response, "publicKey")
        if response.get("publicKeyAlgorithm") != ES256:
            raise NotProven("The security key offers another kind of key than was asked for.")
        # 6.5.1: an AAGUID, the length of the id, the id, and the key as COSE has it.
        named = len(id).to_bytes(2) + id + cose_key(_p256(public))
        if not signed.flags & AT or signed.attached[16 : 16 + len(named)] != named:
            raise NotProven("The security key vouches for another key.")
        return Credential(encoded(id), public, signed.counter)

    def asserted(self, challenge: str, known: Sequence[Credential], answer: str) -> Credential:
        """Which of the `known` keys made this answer to `request_options`, its counter moved on. Raises
        `NotProven`."""
        id, response = _read(answer)
        credential = next((one for one in known if one.id == encoded(id)), None)
        if credential is None:
            raise NotProven("This security key is not registered for this person.")
        client_data = _octets(response, "clientDataJSON")
        self._see_client_data(client_data, "webauthn.get", challenge)
        signed = self._signed(_octets(response, "authenticatorData"))
        try:
            _p256(credential.public).verify(
                _octets(response, "signature"),
                signed.data + hashlib.sha256(client_data).digest(),
                ec.ECDSA(hashes.SHA256()),
            )
        except InvalidSignature:
            raise NotProven("The signature of the security key does not hold.") from None
        # 7.2, step 22: an authenticator without a counter always says 0; one that goes back is a copy.
        if (signed.counter or credential.count) and signed.counter <= credential.count:
            raise NotProven("There seems to be a copy of this security key.")
        return replace(credential, count=signed.counter)

    def _see_client_data(
        self, raw: bytes, kind: Literal["webauthn.create", "webauthn.get"], challenge: str
    ) -> None:
        try:
            told = json.loads(raw)
        except ValueError:
            told = None
        if not isinstance(told, dict) or told.get("type") != kind:
            raise NotProven("The browser's account of this is not understood.")
        if not compare_digest(str(told.get("challenge")).encode(), challenge.encode()):
            raise NotProven("The security key answers another question than was asked.")
        if told.get("origin") != self.origin or told.get("crossOrigin", False) is not False:
            raise NotProven("The security key was asked by another site.")

    def _signed(self, data: bytes) -> Signed:
        if len(data) < _HEAD or data[:32] != hashlib.sha256(self.id.encode()).digest():
            raise NotProven("The security key answers another site.")
        flags = data[32]
        if flags & (UP | UV) != UP | UV:
            raise NotProven("The security key did not verify who touched it.")
        return Signed(data, flags, int.from_bytes(data[33:_HEAD]), data[_HEAD:])


def cose_key(public: ec.EllipticCurvePublicKey) -> bytes:
    """A P-256 key for ES256 in the canonical form of CTAP2 (section 6), which has no other spelling of it."""
    point = public.public_numbers()
    x, y = point.x.to_bytes(32), point.y.to_bytes(32)
    return bytes.fromhex("a5010203262001215820") + x + bytes.fromhex("225820") + y


def encoded(octets: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Raises `ValueError`."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _named(known: Sequence[Credential]) -> list[dict[str, str]]:
    return [{"type": "public-key", "id": one.id} for one in known]


def _read(answer: str) -> tuple[bytes, Mapping[str, Any]]:
    """The id of the key that answers, and its response."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        told = None
    response = told.get("response") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(response, dict) or told.get("type") != "public-key":
        raise NotProven("The browser sent no answer of a security key.")
    id = _octets(told, "id")
    if not 1 <= len(id) <= LONGEST_ID:
        raise NotProven("The browser sent no answer of a security key.")
    return id, response


def _octets(told: Mapping[str, Any], name: str) -> bytes:
    try:
        return decoded(told[name])
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise NotProven("The browser's answer is not whole.") from None


def _p256(public: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise NotProven("The security key offers another kind of key than was asked for.")
    return key
