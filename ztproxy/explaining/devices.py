"""A device for a question about decisions: one of the inventory, or one that is made up.

Knows: what the witness of devices would bring. Promises: a device that is lost or retired is none, as for a
real request; a made-up certificate is of the first authority of the configuration unless it says another.
Leaves deciding to `answer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import Literal

from ztproxy.config import Settings
from ztproxy.core.certificate import Certificate
from ztproxy.core.device import KNOWN_FACTS, Device, NoDevice, OnDevice, Status
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence
from ztproxy.core.identity import Session
from ztproxy.core.posture import BadRow, facts_of
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError

_SHUT_OUT = {Status.LOST: Reason.DEVICE_LOST, Status.RETIRED: Reason.DEVICE_RETIRED}
_ONE = ("authority", "fingerprint", "key_pin", "issuer", "subject", "spiffe")
_ENTRIES = (*_ONE, "san_dns", "san_email", "san_uri")

ID = "explain"


@dataclass(frozen=True, slots=True)
class MadeUp:
    """`standing` is that of the inventory; `unknown` is a certificate without a device there, `none` no
    certificate that holds. `facts` are what was reported `age` seconds ago. `certificate` has entries of a
    policy's `certificate:`, by the same names, digests in base64url."""

    standing: Status | Literal["unknown", "none"] = Status.APPROVED
    owners: frozenset[str] = frozenset()
    platform: str = ""
    facts: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    age: float = 0.0
    certificate: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))


def made_up(settings: Settings, device: MadeUp, now: float) -> DeviceEvidence:
    """Raises `OperatorError` for a fact or an entry that cannot be."""
    if device.standing == "none":
        return NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED)
    certificate = _saying(_certificate(settings, ID), device.certificate)
    if device.standing == "unknown":
        return OnDevice(certificate, None, inf)
    types = {**KNOWN_FACTS, **(settings.devices.facts if settings.devices is not None else {})}
    try:
        posture = facts_of(device.facts, types, ID, now - device.age, now, field="posture")
    except BadRow as bad:
        raise OperatorError(str(bad)) from None
    record = Device(
        ID, device.standing, platform=device.platform.lower(), owners=device.owners, posture=posture
    )
    return _shown(record, certificate)


def of_inventory(settings: Settings, device: Device | None, session: Session | None) -> DeviceEvidence:
    """The evidence for somebody on `device`, or with a session that is bound to a certificate; `device` is
    None where the inventory has none."""
    bound = None if session is None else session.certificate
    if device is None and bound is None:
        return NOT_ASKED
    id = device.id if device is not None else session.device if session is not None else None
    certificate = _certificate(settings, id)
    if bound is not None and session is not None and session.device == id:
        certificate = replace(certificate, thumbprint=bound)
    elif device is not None and device.certificates:
        certificate = replace(certificate, thumbprint=min(device.certificates))
    return _shown(device, certificate)


def _saying(certificate: Certificate, entries: Mapping[str, Sequence[str]]) -> Certificate:
    for name, values in entries.items():
        if name not in _ENTRIES:
            raise OperatorError(
                f"a certificate has no `{name}`", f"give one of {', '.join(f'`{one}`' for one in _ENTRIES)}"
            )
        if name in _ONE and len(values) > 1:
            raise OperatorError(f"a certificate has one `{name}`", "give it once")
    one = {name: values[0] for name, values in entries.items() if name in _ONE}
    many = {name: tuple(values) for name, values in entries.items()}
    return replace(
        certificate,
        authority=one.get("authority", certificate.authority),
        thumbprint=one.get("fingerprint", certificate.thumbprint),
        spki=one.get("key_pin", ""),
        issuer=one.get("issuer", ""),
        subject=one.get("subject", ""),
        spiffe=one.get("spiffe"),
        dns=many.get("san_dns", ()),
        emails=many.get("san_email", ()),
        uris=many.get("san_uri", ()),
    )


def _shown(device: Device | None, certificate: Certificate) -> DeviceEvidence:
    if device is not None and device.status in _SHUT_OUT:
        return NoDevice(_SHUT_OUT[device.status])
    return OnDevice(certificate, device, inf)


def _certificate(settings: Settings, device: str | None) -> Certificate:
    authorities = () if settings.devices is None else settings.devices.authorities
    return Certificate(
        authority=authorities[0].name if authorities else "",
        issuer="",
        subject="",
        serial=0,
        thumbprint=ID,
        spki="",
        not_before=0.0,
        not_after=inf,
        device=device,
    )
