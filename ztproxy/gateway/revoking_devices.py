"""A revocation of a device is one of every session bound to it, by name.

Knows: that a session may be bound to a device after a worker has read it, or has let an exchange in on it.
Promises: who is told that a device is revoked may rely on it for each of its sessions, wherever they are
known and however: a lock on the device would pass by what is known from before the binding, one on the
session does not. Saying it twice makes each lock once. Everything else goes through as it is.
"""

from __future__ import annotations

import asyncio
import hashlib

from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Entry, Lock, Target, TargetKind
from ztproxy.errors import WorldError
from ztproxy.gateway.ports.administration import Revoke
from ztproxy.gateway.ports.directory import SessionDirectory


class RevokingDevices:
    """Fulfils `Revoke`, over one that does not look at devices."""

    def __init__(self, revoke: Revoke, sessions: SessionDirectory) -> None:
        self._revoke, self._sessions = revoke, sessions

    async def __call__(self, entry: Entry) -> Revoked:
        revoked = await self._revoke(entry)
        if not (isinstance(entry, Lock) and entry.revokes and entry.target.kind is TargetKind.DEVICE):
            return revoked
        # INVARIANT: looked up after the lock on the device is in force. Where that has been applied nobody is
        # bound to a device that was shut out any more (`DeviceWitness.forget`).
        try:
            bound = await self._sessions.of(entry.target) or ()
            locks = [_lock_on(one.session.id, entry) for one in bound]
            each = [revoked, *await asyncio.gather(*map(self._revoke, locks))]
        except WorldError:
            # The lock on the device is in force by now: nothing less is true, and more nobody knows.
            return revoked._replace(confirmed=False)
        return Revoked(
            revoked.number,
            all(one.confirmed for one in each),
            all(one.strict for one in each),
            revoked.seconds + max((one.seconds for one in each[1:]), default=0.0),
        )


def _lock_on(session: str, because: Lock) -> Lock:
    id = hashlib.sha256(f"{because.id}\0{session}".encode()).hexdigest()[:32]
    target = Target(TargetKind.SESSION, session)
    return Lock(f"device-session-{id}", target, created_by=because.created_by, reason=because.reason)
