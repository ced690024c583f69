"""Writing the inventory of devices: by people, and by what they import.

Knows: the order of steps. Promises: a device that is lost or retired is shut out before its sessions are
ended, and its sessions end as every revocation does, by a lock that holds everywhere; whatever fails in
between leaves it shut out, and asking again goes on where it stopped. Leaves to its caller who may ask, and
the audit; `import_all` is given rows that were found without mistakes (`core.device_rows`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from math import inf, nextafter
from typing import Literal, NamedTuple, TypeVar

from ztproxy.core.device import Device, Status
from ztproxy.core.device_rows import DeviceRow
from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.administration import Revoke
from ztproxy.gateway.ports.devices import DeviceStore

SHUT_OUT = (Status.LOST, Status.RETIRED)

AT_ONCE = 32
"""Rows of an import that are under way at once."""

ASKED_AGAIN = 86_400.0
"""For how long a row that finds its device shut out already asks for the lock again, in seconds: the first
time may have failed. Later it would be one more lock with every nightly import."""

_ATTEMPTS = 20
"""Writes of one device until somebody else's no longer come between, or the store is taken to be broken."""

Outcome = Literal["created", "updated", "unchanged"]

A = TypeVar("A")
B = TypeVar("B")


class Registered(NamedTuple):
    """What became of a row. `held`: it asked to bring back a device that is shut out, and did not. `revoked`
    is there when the row shut the device out."""

    device: Device
    outcome: Outcome
    held: bool = False
    revoked: Revoked | None = None


class ImportResult(NamedTuple):
    """How many devices; `held` are the ids of those that stayed lost or retired against their row."""

    created: int
    updated: int
    unchanged: int
    held: tuple[str, ...] = ()


class NotEverywhere(WorldError):
    """The device is shut out, but nobody can say that its sessions ended everywhere: ask again.

    `revoked` is None where the lock may not even be in the log.
    """

    def __init__(self, lock: Lock, revoked: Revoked | None) -> None:
        said = "is not confirmed" if revoked else "may not be in the log"
        super().__init__(Reason.STATE_UNAVAILABLE, f"device: it is shut out, but its lock {said}")
        self.lock, self.revoked = lock, revoked


class Inventory:
    """`revoke` is the revoker's (`gateway.revoker`); `clock` the wall clock."""

    def __init__(self, devices: DeviceStore, revoke: Revoke, clock: Clock) -> None:
        self._devices, self._revoke, self._clock = devices, revoke, clock

    async def register(self, row: DeviceRow, by: str, reason: str = "") -> Registered:
        """Creates the device, or changes of it what the row says (`DeviceRow.onto`). A row that shuts a
        device out, or within a day finds it so, ends its sessions.

        Raises `ClientError(DEVICE_MISMATCH)` where a certificate is another device's, `WorldError`, and
        `NotEverywhere` when all but the end of its sessions is done.
        """
        before, after = await self._write(row.id, lambda known: row.onto(known, self._now(known)))
        outcome: Outcome = "updated" if before != after else "unchanged"
        revoked = None
        # What is new may have had sessions before it was removed.
        if row.status in SHUT_OUT and self._clock() - after.changed_at < ASKED_AGAIN:
            revoked = await self._end_sessions(after.id, after.changed_at, by, reason or str(after.status))
        return Registered(after, outcome if before else "created", row.held(before), revoked)

    async def set_status(
        self, id: str, status: Status, by: str, reason: str = ""
    ) -> tuple[Device, Revoked | None]:
        """Writes the status, and then ends the device's sessions where it is lost or retired now.

        Doing it twice makes one lock; losing the device a second time makes a second one. Raises
        `ClientError(DEVICE_UNKNOWN)`, `WorldError` when nothing or nobody knows what was written, and
        `NotEverywhere` when all but the end of its sessions is done.
        """

        def change(known: Device | None) -> Device:
            if known is None:
                raise ClientError(Reason.DEVICE_UNKNOWN, "device: there is none of this id")
            if known.status is status:
                return known
            return replace(known, status=status, changed_at=self._now(known))

        # INVARIANT: first the status. A sign-in that begins after the lock is not met by it, and finds the
        # device shut out.
        _, device = await self._write(id, change)
        if status not in SHUT_OUT:
            return device, None
        return device, await self._end_sessions(id, device.changed_at, by, reason or str(status))

    async def remove(self, id: str, by: str, reason: str = "") -> bool:
        """Retires the device, ends its sessions, and forgets it; False if there is none. Raises as
        `set_status` does; it is forgotten only when that is done. This also mends a record that cannot be
        read."""
        changed_at = self._clock()
        try:
            known = await self._devices.get(id)
            if known is None:
                return False
            await self.set_status(id, Status.RETIRED, by, reason or "removed")
        except NotEverywhere:
            raise
        except ClientError:
            return False  # somebody else was quicker
        except WorldError:
            # A record that cannot be read shuts the device out as it is. If it is the store that is away, so
            # is the log, and this raises.
            await self._end_sessions(id, changed_at, by, reason or "removed")
        return await self._devices.remove(id)

    async def import_all(self, rows: Sequence[DeviceRow], by: str, reason: str = "import") -> ImportResult:
        """Registers every row. First looks through all of them: where a certificate is another device's
        nothing is written at all, and `ClientError(DEVICE_MISMATCH)` names the devices.

        A row that is applied twice is `unchanged`, so that after a `WorldError`, or when somebody registered
        one of the certificates meanwhile, the same import is simply run again.
        """
        await _in_turns(self._see_that_its_certificates_are_free, rows)
        done = await _in_turns(lambda row: self.register(row, by, reason), rows)
        counted = [one.outcome for one in done]
        held = tuple(one.device.id for one in done if one.held)
        return ImportResult(
            counted.count("created"), counted.count("updated"), counted.count("unchanged"), held
        )

    async def _see_that_its_certificates_are_free(self, row: DeviceRow) -> None:
        for thumbprint in sorted(row.certificates or ()):
            other = await self._devices.by_certificate(thumbprint)
            if other is not None and other.id != row.id:
                raise ClientError(
                    Reason.DEVICE_MISMATCH,
                    f"device `{row.id}`: its certificate `{thumbprint}` is registered with `{other.id}`",
                )

    async def _write(
        self, id: str, change: Callable[[Device | None], Device]
    ) -> tuple[Device | None, Device]:
        """The device before and after; written only where `change` changes it."""
        for _ in range(_ATTEMPTS):
            before = await self._devices.get(id)
            after = change(before)
            if after == before:
                return before, after
            written = await self._devices.put(after)
            if written is not None:
                return before, written
        raise WorldError(Reason.STATE_UNAVAILABLE, "device: others write it all the time")

    def _now(self, known: Device | None) -> float:
        """Later than the last change, however the clock was set: the lock's id hangs on it."""
        return max(self._clock(), nextafter(known.changed_at, inf)) if known is not None else self._clock()

    async def _end_sessions(self, id: str, changed_at: float, by: str, reason: str) -> Revoked:
        # INVARIANT: of the moment it was shut out, so that asking again is asking for the same lock, and the
        # next loss is another one: the log takes an id once.
        digest = hashlib.sha256(f"{id}\0{changed_at!r}".encode()).hexdigest()[:32]
        lock = Lock(f"device-{digest}", Target(TargetKind.DEVICE, id), created_by=by, reason=reason)
        try:
            revoked = await self._revoke(lock)
        except WorldError as error:
            raise NotEverywhere(lock, None) from error
        if not revoked.confirmed:
            raise NotEverywhere(lock, revoked)
        return revoked


async def _in_turns(work: Callable[[A], Awaitable[B]], items: Sequence[A]) -> list[B]:
    """`AT_ONCE` at a time, in order; raises a turn's first error when the whole turn has ended."""
    done: list[B] = []
    for start in range(0, len(items), AT_ONCE):
        turn = await asyncio.gather(*map(work, items[start : start + AT_ONCE]), return_exceptions=True)
        for one in turn:
            if isinstance(one, BaseException):
                raise one
            done.append(one)
    return done
