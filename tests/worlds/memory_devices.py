"""The inventory in memory, for tests of those who look devices up and write them: no ciphers, no indexes.

Fulfils `DeviceStore`, and passes the suite of the real one. `devices` may be looked at; `away` makes every
call fail as a store that is gone; `unreadable` are ids whose record cannot be read; `before_put` runs before
each write, to let somebody else be quicker; `calls` counts look-ups.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from ztproxy.core.device import Device
from ztproxy.core.posture import merged
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports.devices import DevicesPage, DevicesWanted, Report


class MemoryDevices:
    def __init__(self, *devices: Device) -> None:
        self.devices = {device.id: replace(device, revision=max(1, device.revision)) for device in devices}
        self.away = False
        self.unreadable: set[str] = set()
        self.before_put: Callable[[], Awaitable[None]] | None = None
        self.calls = 0
        self._cursors: dict[str, tuple[DevicesWanted, str]] = {}

    async def get(self, id: str) -> Device | None:
        return self._found(lambda device: device.id == id)

    async def by_certificate(self, thumbprint: str) -> Device | None:
        return self._found(lambda device: thumbprint in device.certificates)

    async def by_key(self, spki: str) -> Device | None:
        return self._found(lambda device: spki in device.keys)

    async def put(self, device: Device) -> Device | None:
        self._here()
        if self.before_put is not None:
            hook, self.before_put = self.before_put, None
            await hook()
        known = self.devices.get(device.id)
        if (known.revision if known is not None else 0) != device.revision:
            return None
        for other in self.devices.values():
            shared = other.certificates & device.certificates or other.keys & device.keys
            if other.id != device.id and shared:
                raise ClientError(Reason.DEVICE_MISMATCH, "device: another one's")
        written = replace(device, revision=device.revision + 1)
        self.devices[device.id] = written
        return written

    async def remove(self, id: str) -> bool:
        self._here()
        self.unreadable.discard(id)
        return self.devices.pop(id, None) is not None

    async def report(self, reports: Sequence[Report]) -> tuple[str, ...]:
        self._here()
        absent: dict[str, None] = {}
        for id, facts in reports:
            device = self.devices.get(id)
            if device is None:
                absent[id] = None
            elif (posture := merged(device.posture, facts)) is not device.posture:
                self.devices[id] = replace(device, posture=posture, revision=device.revision + 1)
        return tuple(absent)

    async def page(self, wanted: DevicesWanted, cursor: str | None, limit: int) -> DevicesPage:
        self._here()
        question, after = (wanted, "") if cursor is None else self._cursors.get(cursor, (None, ""))
        if question != wanted:
            raise ClientError(Reason.HTTP_SYNTAX, "cursor: not of this list")
        left = [self.devices[id] for id in sorted(self.devices) if id > after]
        fitting = [device for device in left if wanted.fits(device) and device.id not in self.unreadable]
        further = None
        if len(fitting) > limit:
            further = secrets.token_urlsafe(8)
            self._cursors[further] = (wanted, fitting[limit - 1].id)
        return DevicesPage(tuple(fitting[:limit]), further)

    async def count(self) -> int:
        self._here()
        return len(self.devices)

    def _here(self) -> None:
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")

    def _found(self, is_it: Callable[[Device], bool]) -> Device | None:
        self._here()
        self.calls += 1
        found = next(filter(is_it, self.devices.values()), None)
        if found is not None and found.id in self.unreadable:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: unreadable")
        return found
