"""A client certificate that was verified, and what of it a decision may look at.

Knows: the fields. Promises: who holds a `Certificate` has one whose chain led to a configured authority and
whose form met every rule (`adapters.client_certificates`), read from its DER and never from a text somebody
else made of it (CVE-2025-66220). Leaves to each request what changes with time: its validity, its revocation
(`Verified.until`), and what the policy makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ztproxy.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Certificate:
    """A leaf, verified. `authority` is the configured name of the authority it leads to.

    `thumbprint` (x5t#S256, RFC 8705 3.1) and `spki` are SHA-256, base64url without padding, of the
    certificate and of its public key. `issuer` and `subject` are names as RFC 4514 writes them. `serial` is
    decimal in logs. Times are seconds since the epoch. `dns`, `emails` and `uris` are its subject alternative
    names by type. `spiffe` is its SPIFFE ID where it has one. `device` is the id of the device, where the
    authority's rule reads one from it.
    """

    authority: str
    issuer: str
    subject: str
    serial: int
    thumbprint: str
    spki: str
    not_before: float
    not_after: float
    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    spiffe: str | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """It holds at the moment it was asked about, and until `until` unless the verifier's `revision` grows."""

    certificate: Certificate
    until: float


@dataclass(frozen=True, slots=True)
class Refused:
    """It does not hold: one of the `DEVICE_CERTIFICATE_*` reasons. `detail` is for the log alone."""

    reason: Reason
    detail: str = field(default="")
