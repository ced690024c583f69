"""ztproxy's own authority for device certificates.

Knows: the questions. Promises and leaves: as `ports`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class ProvenKey(NamedTuple):
    """A public key whose private half somebody has shown to hold. `public` is its SubjectPublicKeyInfo, DER;
    `spki` is the SHA-256 of that, base64url without padding, as in `Certificate.spki`."""

    public: bytes
    spki: str


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key pair made here for somebody who cannot make one; `private` is PKCS 8, DER."""

    proven: ProvenKey
    private: bytes = field(repr=False)


class Issued(NamedTuple):
    """A certificate just issued: `pem` and `der` of the leaf, its x5t#S256, and its end in seconds since the
    epoch."""

    pem: str
    der: bytes
    thumbprint: str
    not_after: float


class DeviceAuthority(Protocol):
    """Issues device certificates. `chain` is its own certificate, and what leads from it to a root, PEM."""

    @property
    def chain(self) -> str: ...

    def read_csr(self, csr: bytes) -> ProvenKey:
        """The key of a PKCS 10 request, PEM or DER, and nothing else of it: no name and no extension counts.
        Raises `ClientError(HTTP_BODY)` for one that is none, whose signature does not hold, or whose key is
        weak; the message says which and quotes nothing."""
        ...

    def issue(self, key: ProvenKey, device: str, now: float) -> Issued:
        """A certificate by which this key speaks for this device. Raises `WorldError(INTERNAL)` when the
        authority itself has come to its end."""
        ...

    def make_key(self) -> OwnKey: ...

    def pkcs12(self, key: OwnKey, issued: Issued, name: str, password: str) -> bytes:
        """Key, certificate and chain in one encrypted file. Takes a good part of a second, on purpose."""
        ...
