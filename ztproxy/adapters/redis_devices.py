"""The inventory of devices in Redis or Valkey: sealed records, found by id, certificate, key and owner.

Knows: the keys below and the scripts that change them. Promises: the port `DeviceStore`; each write is one
script that first sees that nobody wrote since, and leaves every index exact; looking a device up is one round
trip, however many there are; no script handles more than `BATCH` records, which keeps the server free for
those who wait for a lease. Leaves to the caller: who may write, and how long to believe what was read.

    {ztp}:device:<id>               hash   v  the device, sealed under the server's key, to this key and
                                              revision
                                           r  revision   c, k, o  its places in the three indexes below
    {ztp}:device-certificates       hash   thumbprint → id
    {ztp}:device-keys               hash   digest of the public key → id
    {ztp}:device-owner:<sha256>     zset   ids of an owner's devices; all scores are 0, so the order is by id
    {ztp}:devices                   zset   all ids, in the same way

What a device is called and how many there are can be read in the store; whose it is, its standing and its
posture cannot. The indexes are not sealed, so what they lead to is believed only if the sealed record agrees.

A seal that does not open is a `WorldError` to who asks for that device, and not "there is none": unknown to
the inventory may be let in where lost is not. Lists and reports leave it out; `remove` mends it. Records live
long, so one that is sealed with an older server key is sealed anew when it is read: after a rotation, reading
all pages once renews all. What sealing does not close: who can write to the store and kept a copy can put an
older record back. Use TLS and an ACL there.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from ztproxy.adapters.device_codec import pack_device, unpack_device
from ztproxy.adapters.device_scripts import SCRIPTS
from ztproxy.adapters.redis_connection import command, translate
from ztproxy.adapters.redis_records import PREFIX, opened
from ztproxy.adapters.sealing import SealBroken, Sealer
from ztproxy.adapters.session_codec import pack
from ztproxy.core.device import DEVICE_ID, Device, Fact
from ztproxy.core.posture import merged
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports.devices import DevicesPage, DevicesWanted, Report

BATCH = 100
"""Records one script reads or writes at most: less than a millisecond of the server's time."""

SEARCHED = 1000
"""Records one page reads at most, to find those that fit."""

_CURSOR = b"cursor"
_SEAL_HEADER = 9  # of a sealed value: its version and the id of the server key

_log = logging.getLogger("ztproxy.state")


class RedisDevices:
    """Fulfils `DeviceStore`."""

    def __init__(self, client: Redis, sealer: Sealer, prefix: str = PREFIX) -> None:
        self._client, self._sealer, self._prefix = client, sealer, prefix
        self._all = f"{prefix}devices"
        self._scripts: dict[str, Any] = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    async def get(self, id: str) -> Device | None:
        if not DEVICE_ID.fullmatch(id):
            return None
        return await self._believe(id, *await command(self._client, "HMGET", self._key(id), "v", "r"))

    async def by_certificate(self, thumbprint: str) -> Device | None:
        device = await self._find("device-certificates", thumbprint)
        return device if device is not None and thumbprint in device.certificates else None

    async def by_key(self, spki: str) -> Device | None:
        device = await self._find("device-keys", spki)
        return device if device is not None and spki in device.keys else None

    async def put(self, device: Device) -> Device | None:
        written = replace(device, revision=device.revision + 1)
        done = await self._run(
            "put",
            device.id,
            device.revision,
            written.revision,
            self._seal(written),
            " ".join(sorted(device.certificates)),
            " ".join(sorted(device.keys)),
            " ".join(sorted(map(_digest, device.owners))),
        )
        if done == -1:
            raise ClientError(Reason.DEVICE_MISMATCH, "device: its certificate or key is another device's")
        return written if done else None

    async def remove(self, id: str) -> bool:
        return bool(await self._run("remove", id))

    async def report(self, reports: Sequence[Report]) -> tuple[str, ...]:
        brought: dict[str, Mapping[str, Fact]] = {}
        for id, facts in reports:
            brought[id] = merged(brought.get(id, {}), facts)
        known = [id for id in brought if DEVICE_ID.fullmatch(id)]
        absent = brought.keys() - known
        # Ends: whoever was overtaken was so by a write of somebody else, which is done with.
        while known:
            batch, known = known[:BATCH], known[BATCH:]
            overtaken, gone = await self._report(batch, brought)
            known += overtaken
            absent |= gone
        return tuple(id for id in brought if id in absent)

    async def page(self, wanted: DevicesWanted, cursor: str | None, limit: int) -> DevicesPage:
        place = "" if cursor is None else self._open_cursor(wanted, cursor)
        index = self._all if wanted.owner is None else f"{self._prefix}device-owner:{_digest(wanted.owner)}"
        found: list[Device] = []
        for _ in range(SEARCHED // BATCH):
            rows = await self._run("list", index, f"({place}" if place else "-", BATCH)
            ids = [str(row[0], "ascii", "replace") for row in rows]
            devices = [self._open(id, *row[1:]) for id, row in zip(ids, rows, strict=True)]
            await self._renew_seals(
                (device, row[1]) for device, row in zip(devices, rows, strict=True) if device is not None
            )
            for id, device in zip(ids, devices, strict=True):
                if len(found) == limit:
                    return DevicesPage(tuple(found), self._cursor(wanted, place))
                place = id
                if device is not None and wanted.fits(device):
                    found.append(device)
            if len(rows) < BATCH:
                return DevicesPage(tuple(found), None)
        return DevicesPage(tuple(found), self._cursor(wanted, place))

    async def count(self) -> int:
        return int(await command(self._client, "ZCARD", self._all))

    # ── posture ──

    async def _report(
        self, ids: Sequence[str], brought: Mapping[str, Mapping[str, Fact]]
    ) -> tuple[list[str], set[str]]:
        """Takes in what was brought for so many devices; answers who was overtaken, and who is not there."""
        rows = await self._run("read", *ids)
        gone: set[str] = set()
        changed: list[tuple[str, bytes, Device]] = []
        for id, (sealed, revision) in zip(ids, rows, strict=True):
            if sealed is None and revision is None:
                gone.add(id)
            elif (device := self._open(id, sealed, revision)) is not None:
                posture = merged(device.posture, brought[id])
                if posture is not device.posture:
                    after = replace(device, posture=posture, revision=device.revision + 1)
                    changed.append((id, revision, after))
        words = [
            word
            for id, revision, after in changed
            for word in (id, revision, after.revision, self._seal(after))
        ]
        done = await self._run("write", *words) if words else []
        return [id for (id, _, _), written in zip(changed, done, strict=True) if not written], gone

    # ── one device ──

    async def _find(self, index: str, name: str) -> Device | None:
        row = await self._run("find", f"{self._prefix}{index}", name)
        return await self._believe(str(row[0], "ascii", "replace"), *row[1:]) if row else None

    async def _believe(self, id: str, sealed: bytes | None, revision: bytes | None) -> Device | None:
        if sealed is None and revision is None:
            return None
        device = self._open(id, sealed, revision)
        if device is None or sealed is None:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: the record of a device cannot be read")
        await self._renew_seals([(device, sealed)])
        return device

    def _open(self, id: str, sealed: bytes | None, revision: bytes | None) -> Device | None:
        number = revision or b""
        # A record without a seal was written by somebody else: that is no record, and loudly so.
        return opened(
            self._sealer,
            sealed or b"",
            id.encode(),
            self._place(id, number),
            lambda raw: unpack_device(raw, id, int(number)),
        )

    async def _renew_seals(self, read: Iterable[tuple[Device, bytes]]) -> None:
        current = self._sealer.seal(b"", b"", b"")[:_SEAL_HEADER]
        old = [device for device, sealed in read if sealed[:_SEAL_HEADER] != current]
        if not old:
            return
        words = [word for one in old for word in (one.id, one.revision, one.revision, self._seal(one))]
        try:
            await self._run("write", *words)
        except WorldError as error:
            _log.warning("%d devices could not be sealed anew: %s", len(old), error)

    def _seal(self, device: Device) -> bytes:
        place = self._place(device.id, b"%d" % device.revision)
        return self._sealer.seal(device.id.encode(), place, pack_device(device))

    def _place(self, id: str, revision: bytes) -> bytes:
        return f"{self._key(id)}:v:".encode() + revision

    def _key(self, id: str) -> str:
        return f"{self._prefix}device:{id}"

    async def _run(self, name: str, *arguments: Any) -> Any:
        with translate():
            return await self._scripts[name](keys=[self._all], args=[self._prefix, *arguments])

    # ── places in a list ──

    def _cursor(self, wanted: DevicesWanted, place: str) -> str:
        sealed = self._sealer.seal(_CURSOR, self._question(wanted), place.encode())
        return base64.urlsafe_b64encode(sealed).decode()

    def _open_cursor(self, wanted: DevicesWanted, cursor: str) -> str:
        try:
            sealed = base64.b64decode(cursor, altchars=b"-_", validate=True)
            return self._sealer.open(_CURSOR, self._question(wanted), sealed).decode()
        except (ValueError, SealBroken):
            raise ClientError(Reason.HTTP_SYNTAX, "cursor: not of this list") from None

    def _question(self, wanted: DevicesWanted) -> bytes:
        asked = pack((wanted.status, wanted.owner, wanted.text))
        return f"{self._prefix}device-cursor:{hashlib.sha256(asked).hexdigest()}".encode()


def _digest(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()
