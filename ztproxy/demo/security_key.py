"""A security key without the hardware: an authenticator and the browser in front of it, in one.

Knows: what WebAuthn has an authenticator sign (6.3). Promises: it answers the provider's real questions with
real signatures and takes no other way in; a key is only used for the relying party it was made for, as a
browser sees to (5.1.4.1). For programs and stories, which have no finger to touch anything with: whoever runs
the program stands for the person being present and verified.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ztproxy.demo.webauthn import AT, ES256, UP, UV, Options, cose_key, encoded

_AAGUID = bytes(16)  # of no make


@dataclass(slots=True)
class _Held:
    private: ec.EllipticCurvePrivateKey
    rp: str
    count: int = 0


class SecurityKey:
    """One authenticator; it can hold keys for several people and sites."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def answer(self, origin: str, options: Options) -> str:
        """What a page at `origin` gets for its options, of either kind, as JSON. Raises `LookupError` where
        it has no key that will do."""
        told = self._create(origin, options) if "user" in options else self._get(origin, options)
        return json.dumps({**told, "type": "public-key"})

    def _create(self, origin: str, options: Options) -> dict[str, Any]:
        rp = _own(origin, options["rp"]["id"])
        if any(one["id"] in self._held for one in options["excludeCredentials"]):
            raise LookupError("this key is registered already")
        if not any(one["alg"] == ES256 for one in options["pubKeyCredParams"]):
            raise LookupError("no kind of key that is asked for")
        id, private = secrets.token_bytes(32), ec.generate_private_key(ec.SECP256R1())
        held = self._held[encoded(id)] = _Held(private, rp)
        public = private.public_key()
        data = _data(held, UP | UV | AT) + _AAGUID + len(id).to_bytes(2) + id + cose_key(public)
        spki = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        response = {
            "clientDataJSON": encoded(_client_data("webauthn.create", origin, options)),
            "authenticatorData": encoded(data),
            "publicKey": encoded(spki),
            "publicKeyAlgorithm": ES256,
        }
        return {"id": encoded(id), "response": response}

    def _get(self, origin: str, options: Options) -> dict[str, Any]:
        rp = _own(origin, options["rpId"])
        allowed = [one["id"] for one in options["allowCredentials"]]
        id = next((one for one in allowed if one in self._held and self._held[one].rp == rp), None)
        if id is None:
            raise LookupError("none of the keys that are asked for")
        held = self._held[id]
        held.count += 1
        data, client_data = _data(held, UP | UV), _client_data("webauthn.get", origin, options)
        signature = held.private.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": encoded(client_data),
            "authenticatorData": encoded(data),
            "signature": encoded(signature),
        }
        return {"id": id, "response": response}


OURS = SecurityKey()
"""The key of this process, for whoever does not bring one."""


def _own(origin: str, rp: str) -> str:
    """INVARIANT: what makes it resist phishing. No site gets an answer in the name of another."""
    if rp != urlsplit(origin).hostname:
        raise LookupError(f"`{rp}` is not `{origin}`")
    return rp


def _data(held: _Held, flags: int) -> bytes:
    return hashlib.sha256(held.rp.encode()).digest() + bytes([flags]) + held.count.to_bytes(4)


def _client_data(kind: str, origin: str, options: Options) -> bytes:
    told = {"type": kind, "challenge": options["challenge"], "origin": origin, "crossOrigin": False}
    return json.dumps(told).encode()
