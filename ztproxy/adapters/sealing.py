"""Sealing: what is kept in Redis is unreadable without the server's key *and* the secret that names it.

Knows: the sealed form, AES-256-GCM. Promises: a sealed value opens only with the same secret, at the same
place, unchanged, under a key still on the ring; everything else is a `SealBroken` that says which. Leaves to
the caller: what a broken seal means (a session that is not there, and a loud line in the log).

    sealed = version (1 byte) | server key id (8) | nonce (12) | AES-256-GCM ciphertext and tag
    key    = HMAC-SHA256(server key, label | secret)
    AAD    = version | server key id | place

A dump of Redis opens nothing, for the secrets (session ids, handles) are not in it; a thief of the server key
alone opens nothing either. The place (Redis key and field) as AAD closes the moving of a record to another
key. What it does not close: whoever can write to Redis can put an *older* sealed value back at its own place.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from enum import Enum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_HEADER_BYTES = len(VERSION) + _ID_BYTES
_LEAST_BYTES = _HEADER_BYTES + _NONCE_BYTES + 16


class Breach(Enum):
    """Why a seal did not open."""

    FORM = "form"  # too short, or a version this program does not know
    KEY = "key"  # sealed under a server key that is no longer, or not yet, on the ring
    TAMPERED = "tampered"  # changed, moved, or sealed with another secret


class SealBroken(Exception):
    """A sealed value did not open. Stays inside the adapters: callers turn it into "not there"."""

    def __init__(self, breach: Breach) -> None:
        super().__init__(breach.value)
        self.breach = breach


class Sealer:
    """Seals with the first server key and opens with any. Keys are 32 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.use(keys)

    def use(self, keys: Sequence[bytes]) -> None:
        """After a rotation: other keys, for everybody who has this sealer."""
        named = [(_key_id(key), key) for key in keys]
        self._current = named[0]
        self._keys = dict(named)

    def seal(self, secret: bytes, place: bytes, plain: bytes) -> bytes:
        """`plain` sealed under `secret` for `place`."""
        key_id, key = self._current
        header = VERSION + key_id
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + _cipher(key, secret).encrypt(nonce, plain, header + place)

    def open(self, secret: bytes, place: bytes, sealed: bytes) -> bytes:
        """What was sealed under `secret` for `place`. Raises `SealBroken`."""
        if len(sealed) < _LEAST_BYTES or sealed[:1] != VERSION:
            raise SealBroken(Breach.FORM)
        header = sealed[:_HEADER_BYTES]
        key = self._keys.get(header[1:])
        if key is None:
            raise SealBroken(Breach.KEY)
        nonce = sealed[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
        try:
            return _cipher(key, secret).decrypt(nonce, sealed[_HEADER_BYTES + _NONCE_BYTES :], header + place)
        except InvalidTag:
            raise SealBroken(Breach.TAMPERED) from None


def _key_id(key: bytes) -> bytes:
    return hmac.digest(key, b"ztproxy record key id", hashlib.sha256)[:_ID_BYTES]


def _cipher(key: bytes, secret: bytes) -> AESGCM:
    # INVARIANT: the secrets are drawn at random with 256 bits. A password here would need a slow KDF instead.
    return AESGCM(hmac.digest(key, b"ztproxy record key\0" + secret, hashlib.sha256))
