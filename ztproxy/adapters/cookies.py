"""The outside of the session cookie: `v1.<handle>.<signature>`, signed under a key ring.

Knows: the form, itsdangerous. Promises: a value that has not exactly this form costs one regular expression,
a forged one costs a few HMACs, and neither reaches the store; a value signed with any key on the ring opens.
Leaves to the caller: whether the handle still stands for anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from itsdangerous import BadSignature, Signer

# 256 bits are 43 letters, the last of which carries only four: any other last letter would be a second
# spelling of the same value, so it is refused.
HANDLE = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII)
_VALUE = re.compile(rf"v1\.{HANDLE.pattern}\.{HANDLE.pattern}", re.ASCII)


class SignedHandles:
    """Fulfils `HandleSigner`. `keys` are HMAC keys, the current one first."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        # itsdangerous wants oldest to newest and signs with the last.
        self._signer = Signer(
            list(reversed(keys)),
            salt=b"ztproxy session handle",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )

    def seal(self, handle: str) -> str:
        """The cookie value for `handle` (43 base64url letters)."""
        assert HANDLE.fullmatch(handle), "a handle is 32 random bytes in base64url"
        return self._signer.sign(f"v1.{handle}").decode("ascii")

    def open(self, value: str) -> str | None:
        """The handle in a cookie value of ours, else None."""
        if not _VALUE.fullmatch(value):
            return None
        try:
            return self._signer.unsign(value)[3:].decode("ascii")
        except BadSignature:
            return None
