"""A verifier of certificates that is told what to say, for tests of those who ask it.

`holds` are certificates by their DER, `refused` reasons; `slow` ones must be asked about. `until` is when
what it says ends. `judged` counts the asking, and `wait` holds an answer back until it is set.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ztproxy.core.certificate import Certificate, Refused, Verified
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate, Peer


def certificate(name: str, device: str | None = None, **more: object) -> Certificate:
    """A certificate whose thumbprint is `name`."""
    plain: dict[str, object] = {
        "authority": "corp",
        "issuer": "CN=CA",
        "subject": f"CN={name}",
        "serial": 7,
        "thumbprint": name,
        "spki": f"key-of-{name}",
        "not_before": 0.0,
        "not_after": 9e9,
        "device": device,
    }
    return Certificate(**(plain | more))  # type: ignore[arg-type]


def showing(name: str | None, asked: bool = True) -> Peer:
    """A peer that shows the certificate `name`, or none."""
    shown = None if name is None else ClientCertificate(name.encode())
    return Peer("203.0.113.9", True, "app.test", shown, asked=asked)


@dataclass
class Verifying:
    revision: int = 0
    holds: dict[bytes, Certificate] = field(default_factory=dict)
    refused: dict[bytes, Reason] = field(default_factory=dict)
    slow: set[bytes] = field(default_factory=set)
    until: float = 9e9
    judged: int = 0
    wait: asyncio.Event | None = None

    def knows(self, *certificates: Certificate) -> Verifying:
        self.holds.update({one.thumbprint.encode(): one for one in certificates})
        return self

    def at_once(self, shown: ClientCertificate, now: float) -> Verified | Refused | None:
        return None if shown.leaf in self.slow else self._answer(shown)

    async def judge(self, shown: ClientCertificate, now: float) -> Verified | Refused:
        self.judged += 1
        if self.wait is not None:
            await self.wait.wait()
        return self._answer(shown)

    def _answer(self, shown: ClientCertificate) -> Verified | Refused:
        reason = self.refused.get(shown.leaf)
        if reason is not None:
            return Refused(reason)
        known = self.holds.get(shown.leaf)
        return Refused(Reason.DEVICE_CERTIFICATE_INVALID) if known is None else Verified(known, self.until)
