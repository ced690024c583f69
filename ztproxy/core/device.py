"""A device: whose it is, what is reported of it, and in what standing it is.

Knows: the record of the inventory, and what a request can show of a device. Promises: frozen values; a fact
always comes with its source and its time, so that nobody can mistake an old one for the truth. Leaves to
`device_conditions` what follows from them, and to `adapters` keeping them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from ztproxy.core.certificate import Certificate
from ztproxy.core.identity import Identity
from ztproxy.core.reasons import Reason

DEVICE_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:@-]{0,126}[A-Za-z0-9])?")
"""What a device can be called: what MDMs and serial numbers use, and nothing that needs escaping anywhere."""

Value = bool | int | float | str

FactType = type[bool] | type[int] | type[str]

KNOWN_FACTS: Mapping[str, FactType] = MappingProxyType(
    {
        "mdm_enrolled": bool,
        "disk_encrypted": bool,
        "edr_running": bool,
        "firewall_on": bool,
        "screen_lock": bool,
        "jailbroken": bool,
        "os_patch_age": int,  # days since the last update of the system was installed
        "os_version": str,
    }
)
"""Posture that has a meaning here, and the type of its value; operators name further ones."""


class Status(StrEnum):
    """Where a device stands. PENDING waits for approval; LOST and RETIRED ones are shut out everywhere."""

    PENDING = "pending"
    APPROVED = "approved"
    LOST = "lost"
    RETIRED = "retired"


class Fact(NamedTuple):
    """One thing reported about a device: by whom, and when it was so, in seconds since the epoch."""

    value: Value
    source: str
    at: float


@dataclass(frozen=True, slots=True)
class Device:
    """One device of the inventory.

    `owners` are e-mail addresses (lower-case), subjects, or `issuer|subject`. `certificates` are thumbprints
    it is registered with: where there are any, no other certificate speaks for it. `keys` are the SPKI
    digests of keys it enrolled with. `revision` grows with every write, 0 before the first.
    """

    id: str
    status: Status = Status.PENDING
    name: str = ""
    platform: str = ""
    owners: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    posture: Mapping[str, Fact] = field(default_factory=lambda: MappingProxyType({}))
    created_at: float = 0.0
    changed_at: float = 0.0
    revision: int = 0

    def belongs_to(self, who: Identity) -> bool:
        """Whether `who` is one of its owners: by verified e-mail, or by subject.

        A bare subject counts at whichever provider (as in `UserIs`), unless it poses as a qualified one.
        """
        subject = who.subject
        posing = "|" in subject and subject.startswith(("https://", "http://"))
        return (
            (who.email is not None and who.email.lower() in self.owners)
            or f"{who.issuer}|{subject}" in self.owners
            or (subject in self.owners and not posing)
        )


@dataclass(frozen=True, slots=True)
class NotAsked:
    """The client was not asked for a certificate here, so that having none says nothing."""


@dataclass(frozen=True, slots=True)
class NoDevice:
    """It was asked, and there is no device to speak of: no certificate, or none that holds, or one of a
    device that is shut out."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class OnDevice:
    """The client holds the key of this certificate; `device` is None where the inventory has none for it.

    `until` is when the certificate must be judged anew, in seconds since the epoch.
    """

    certificate: Certificate
    device: Device | None
    until: float
