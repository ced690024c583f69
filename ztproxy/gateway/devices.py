"""The device behind a connection: its certificate, judged, and what the inventory has about it.

Knows: the verifier of certificates, and the inventory. Promises: a certificate is judged on each request, its
chain once; a device that is lost or retired is none (T34); an inventory that is away, or a revocation that
cannot be checked, is `Unavailable`, never an unknown device and no reason to sign in again; as with sessions,
what was read is read again in the background while somebody uses it, and not relied on for longer than
`RELIED_ON` (ADR 0008). As long as nothing changes the answer is the same object, by which a decision made on
it can be given again. Leaves what follows to the conditions.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from ztproxy.core.certificate import Certificate, Refused, Verified
from ztproxy.core.device import Device, NoDevice, OnDevice, Status
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, Unavailable
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate, Peer
from ztproxy.errors import WorldError
from ztproxy.gateway.known import FRESH, RELIED_ON
from ztproxy.gateway.ports.devices import CertificateVerifier, DeviceStore

MAX_KNOWN, MAX_BYTES = 20_000, 128 * 1024 * 1024
"""Certificates, and bytes of them with what came behind: whoever has one can show it with any chain."""

_NONE_SHOWN = NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED)
_REFUSED = {
    reason: NoDevice(reason)
    for reason in (
        Reason.DEVICE_CERTIFICATE_INVALID,
        Reason.DEVICE_CERTIFICATE_EXPIRED,
        Reason.DEVICE_CERTIFICATE_REVOKED,
        Reason.DEVICE_LOST,
        Reason.DEVICE_RETIRED,
    )
}
_UNCHECKED = Unavailable(Reason.DEVICE_CERTIFICATE_UNCHECKED)
_SHUT_OUT = {Status.LOST: Reason.DEVICE_LOST, Status.RETIRED: Reason.DEVICE_RETIRED}


@dataclass(slots=True)
class _Known:
    """One certificate's device as last read. `evidence` counts while the verifier's revision is `revision`,
    from `since` until `until` (seconds since the epoch); `read_at` is by the keeper's clock."""

    evidence: OnDevice | NoDevice
    revision: int
    since: float
    until: float
    read_at: float


class DeviceWitness:
    """Finds out whose device a request comes from. `boottime` is the keeper's clock."""

    def __init__(
        self, verifier: CertificateVerifier, store: DeviceStore, boottime: Callable[[], float]
    ) -> None:
        self._verifier, self._store, self._boottime = verifier, store, boottime
        self._known: OrderedDict[ClientCertificate, _Known] = OrderedDict()
        self.bytes_known = 0
        self._reading: dict[ClientCertificate, asyncio.Future[DeviceEvidence]] = {}
        self._era = 0

    def at_hand(self, peer: Peer, now: float) -> DeviceEvidence | None:
        """What is known without asking anybody; None when somebody must be asked. Never awaits."""
        shown = peer.certificate
        if shown is None:
            return _NONE_SHOWN if peer.asked else NOT_ASKED
        known = self._known.get(shown)
        # INVARIANT: a revocation list that was loaded since, or an end that has come, makes it nothing known:
        # a connection that is open already gets no further than a new one (X08).
        if known is None or known.revision != self._verifier.revision or not known.since <= now < known.until:
            return self._refused_at_once(shown, now)
        age = self._boottime() - known.read_at
        if age >= RELIED_ON:
            return None
        if age >= FRESH and shown not in self._reading:
            self._begin_reading(shown, now)
        return known.evidence

    async def gather(self, peer: Peer, now: float) -> DeviceEvidence:
        """The same, after asking whoever must be asked."""
        found = self.at_hand(peer, now)
        if found is not None or peer.certificate is None:
            return NOT_ASKED if found is None else found
        reading = self._reading.get(peer.certificate) or self._begin_reading(peer.certificate, now)
        # One impatient client that goes away must not cancel the read the others wait for.
        return await asyncio.shield(reading)

    def forget(self, device: str) -> None:
        """It was shut out: nothing that was read before counts, nor what is being read."""
        self._era += 1
        gone = [shown for shown, known in self._known.items() if _id_of(known.evidence) == device]
        for shown in gone:
            self._unlearn(shown)

    def _refused_at_once(self, shown: ClientCertificate, now: float) -> NoDevice | Unavailable | None:
        verdict = self._verifier.at_once(shown, now)
        return _of(verdict) if isinstance(verdict, Refused) else None

    def _begin_reading(self, shown: ClientCertificate, now: float) -> asyncio.Future[DeviceEvidence]:
        reading = asyncio.ensure_future(self._read(shown, now))
        self._reading[shown] = reading
        reading.add_done_callback(lambda done: self._read_done(shown, done))
        return reading

    def _read_done(self, shown: ClientCertificate, reading: asyncio.Future[DeviceEvidence]) -> None:
        del self._reading[shown]
        if not reading.cancelled():
            reading.exception()  # whoever waited has it; nobody may be left waiting

    async def _read(self, shown: ClientCertificate, now: float) -> DeviceEvidence:
        before, revision, era = self._boottime(), self._verifier.revision, self._era
        verdict = await self._verifier.judge(shown, now)
        if isinstance(verdict, Refused):
            self._unlearn(shown)
            return _of(verdict)
        try:
            evidence = await self._on_device(verdict)
        except WorldError as error:
            return Unavailable(error.reason)
        if self._era != era:
            return await self._read(shown, now)
        if self._boottime() - before >= RELIED_ON:
            return Unavailable()  # an answer this late has not come
        return self._learn(shown, verdict.until, evidence, _Ask(before, revision, now))

    def _learn(
        self, shown: ClientCertificate, until: float, evidence: OnDevice | NoDevice, ask: _Ask
    ) -> OnDevice | NoDevice:
        last = self._unlearn(shown)
        if last is not None and last.evidence == evidence:
            evidence = last.evidence
        self._known[shown] = _Known(evidence, ask.revision, ask.now, until, ask.before)
        self.bytes_known += _size(shown)
        while len(self._known) > MAX_KNOWN or self.bytes_known > MAX_BYTES:
            self._unlearn(next(iter(self._known)))
        return evidence

    def _unlearn(self, shown: ClientCertificate) -> _Known | None:
        known = self._known.pop(shown, None)
        if known is not None:
            self.bytes_known -= _size(shown)
        return known

    async def _on_device(self, verdict: Verified) -> OnDevice | NoDevice:
        """By the id its authority wrote into it, else by the certificate the device is registered with."""
        certificate, id = verdict.certificate, verdict.certificate.device
        if id is None:
            device = await self._store.by_certificate(certificate.thumbprint)
        else:
            device = await self._store.get(id)
        if device is not None and device.status in _SHUT_OUT:
            return _REFUSED[_SHUT_OUT[device.status]]
        if device is not None and not _speaks_for(certificate, device):
            # INVARIANT: nor does it take the device's sessions over.
            return OnDevice(replace(certificate, device=None), None, verdict.until)
        return OnDevice(certificate, device, verdict.until)


def _speaks_for(certificate: Certificate, device: Device) -> bool:
    """Where a device is registered with certificates, or enrolled with keys, nothing else speaks for it: an
    authority that vouches for an id does not undo that somebody took the certificate or the key away."""
    certificates, keys = device.certificates, device.keys
    return (not certificates or certificate.thumbprint in certificates) and (
        not keys or certificate.spki in keys
    )


@dataclass(frozen=True, slots=True)
class _Ask:
    """When and on what ground a device was asked about."""

    before: float
    revision: int
    now: float


def _of(verdict: Refused) -> NoDevice | Unavailable:
    return _UNCHECKED if verdict.reason.status >= 500 else _REFUSED[verdict.reason]


def _size(shown: ClientCertificate) -> int:
    return len(shown.leaf) + sum(map(len, shown.chain))


def _id_of(evidence: OnDevice | NoDevice) -> str | None:
    if isinstance(evidence, OnDevice) and evidence.device is not None:
        return evidence.device.id
    return None
