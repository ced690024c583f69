"""Devices: their certificates, their inventory, and the tokens of services.

Knows: the questions. Promises and leaves: as `ports`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ztproxy.core.certificate import Refused, Verified
from ztproxy.core.device import Device, Fact, Status
from ztproxy.core.identity import JSON
from ztproxy.core.request import ClientCertificate


class CertificateVerifier(Protocol):
    """Whether a client certificate holds: its chain and form (found out once for each certificate), its
    validity and its revocation (asked about each time).

    `revision` grows whenever an earlier `Verified` may hold no more: a revocation list was loaded, an OCSP
    answer came.
    """

    revision: int

    def at_once(self, shown: ClientCertificate, now: float) -> Verified | Refused | None:
        """The answer if it is at hand; None when somebody (an OCSP responder) must be asked. Never awaits."""
        ...

    async def judge(self, shown: ClientCertificate, now: float) -> Verified | Refused:
        """The answer. Never raises: what cannot be found out is `Refused(DEVICE_CERTIFICATE_UNCHECKED)`."""
        ...


class Report(NamedTuple):
    """What one feed says about one device."""

    device: str
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class DevicesWanted:
    """Which devices to list: all that fit every field that is given; `text` is a part of the id, the name or
    an owner, in any case."""

    status: Status | None = None
    owner: str | None = None
    text: str | None = None

    def fits(self, device: Device) -> bool:
        return (
            (self.status is None or self.status is device.status)
            and (self.owner is None or self.owner in device.owners)
            and (
                self.text is None
                or any(
                    self.text.casefold() in it.casefold() for it in (device.id, device.name, *device.owners)
                )
            )
        )


class DevicesPage(NamedTuple):
    """`cursor` asks for the next page; None after the last. A page may be short and yet not the last."""

    devices: tuple[Device, ...]
    cursor: str | None


class DeviceStore(Protocol):
    """The inventory. Raises `WorldError(STATE_UNAVAILABLE)` when the store is away."""

    async def get(self, id: str) -> Device | None: ...

    async def by_certificate(self, thumbprint: str) -> Device | None:
        """The device registered with the certificate of this thumbprint."""
        ...

    async def by_key(self, spki: str) -> Device | None:
        """The device that enrolled with the key of this digest."""
        ...

    async def put(self, device: Device) -> Device | None:
        """Writes it where the record on file has `device.revision` (0: none on file), and answers it with its
        new revision; None where that is not so. Raises `ClientError(DEVICE_MISMATCH)`, and writes nothing,
        where one of its certificates or keys is registered with another device."""
        ...

    async def remove(self, id: str) -> bool:
        """Forgets it; True if there was one."""
        ...

    async def report(self, reports: Sequence[Report]) -> tuple[str, ...]:
        """Takes in posture, all of it: for each fact the newest by its own time stays, so that a report that
        comes twice or late changes nothing. Answers the ids of devices that are not in the inventory; those
        are passed over."""
        ...

    async def page(self, wanted: DevicesWanted, cursor: str | None, limit: int) -> DevicesPage:
        """By id. Raises `ClientError(HTTP_SYNTAX)` for a cursor this store did not make for this question."""
        ...

    async def count(self) -> int: ...


class TokenIssuer(Protocol):
    """An issuer of bearer tokens for services, with its keys pinned."""

    name: str
    issuer: str

    async def verify(self, token: str) -> Mapping[str, JSON]:
        """The raw claims of a token whose form, type and signature hold; `core.service_tokens` judges them.
        Raises `ClientError(TOKEN_INVALID)`, and `WorldError(PROVIDER_UNAVAILABLE)` when its keys cannot be
        had."""
        ...
