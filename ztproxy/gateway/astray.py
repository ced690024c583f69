"""Sessions that come from another device than their own: told to the record, once a minute for each.

Knows: what of it belongs into the audit log. Promises: no flood of records, however often somebody tries;
nothing secret is in them. Leaves refusing to `gateway.witness`.
"""

from __future__ import annotations

from collections.abc import Callable

from ztproxy.core.audit import AuditEvent
from ztproxy.core.device import NoDevice, OnDevice
from ztproxy.core.evidence import DeviceEvidence
from ztproxy.core.identity import JSON, Session
from ztproxy.core.request import Request
from ztproxy.gateway.ports import Clock

QUIET = 60.0
"""Seconds in which the same thing is told once."""

_MOST = 4096


class Astray:
    """`note` keeps a record, now or later, and never fails."""

    def __init__(self, note: Callable[[AuditEvent], None], clock: Clock) -> None:
        self._note, self._clock = note, clock
        self._told: dict[tuple[str, str], float] = {}

    def __call__(self, session: Session, device: DeviceEvidence, request: Request) -> None:
        """`session` is bound to another device than `device`, which `request` came from (T32)."""
        detail: dict[str, JSON] = {
            "session": session.id,
            "host": request.host,
            "address": request.peer.address,
            "bound_to": session.certificate,
            "device": session.device,
        }
        if isinstance(device, OnDevice):
            certificate = device.certificate
            shown = certificate.thumbprint
            detail |= {"shown": shown, "subject": certificate.subject, "serial": str(certificate.serial)}
            detail["shown_device"] = certificate.device if device.device is None else device.device.id
        else:
            shown = device.reason.value if isinstance(device, NoDevice) else ""
            detail["shown"] = shown
        if self._told_lately((session.id, shown)):
            return
        who = session.identity.subject
        self._note(AuditEvent("ztproxy", "session.astray", "refused", who, detail=detail))

    def _told_lately(self, what: tuple[str, str]) -> bool:
        now = self._clock()
        if self._told.get(what, 0.0) > now - QUIET:
            return True
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[what] = now
        return False
