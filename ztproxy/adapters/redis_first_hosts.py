"""The first hosts of issuers in Redis or Valkey, sealed. Fulfils `FirstHosts`.

Knows: the key below. Promises: what is written first stays, until somebody deletes it; one who can write to
the store can make us forget it, as losing the data does, and cannot put hosts of their choice there, for the
record is sealed to its name. It does not end by itself. Leaves to `adapters.oidc_metadata` what the hosts are
for.

    {ztp}:hosts:<sha256(name)>   string   the sealed hosts, with a space between

What is sealed with a key that is no longer on the ring counts as not there, and the log says so; a record
sealed with an older one is sealed anew when it is read.
"""

from __future__ import annotations

import hashlib
import logging

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import command
from ztproxy.adapters.redis_records import PREFIX
from ztproxy.adapters.sealing import SealBroken, Sealer

# Nothing here is a secret: the seal is for its tag, under the server's key.
_LABEL = b"first hosts"
_SEAL_HEADER = 9  # of a sealed value: its version and the id of the server key

_log = logging.getLogger("ztproxy.state")


class RedisFirstHosts:
    """Fulfils `FirstHosts`."""

    def __init__(self, client: Redis, sealer: Sealer, prefix: str = PREFIX) -> None:
        self._client, self._sealer, self._prefix = client, sealer, prefix

    async def first(self, name: str, hosts: frozenset[str]) -> frozenset[str]:
        place = f"{self._prefix}hosts:{hashlib.sha256(name.encode()).hexdigest()}".encode()
        own = self._sealer.seal(_LABEL, place, " ".join(sorted(hosts)).encode())
        before = await command(self._client, "GET", place)
        if before is None and await command(self._client, "SET", place, own, "NX"):
            return hosts
        # Whoever came in between wrote it, and nobody deletes it but by hand.
        before = before or await command(self._client, "GET", place) or b""
        try:
            found = self._sealer.open(_LABEL, place, before)
        except SealBroken as broken:
            _log.critical("where `%s` was first is not known any more, its seal is broken: %s", name, broken)
            await command(self._client, "SET", place, own)
            return hosts
        if before[:_SEAL_HEADER] != own[:_SEAL_HEADER]:
            await command(self._client, "SET", place, self._sealer.seal(_LABEL, place, found), "XX")
        return frozenset(found.decode().split(" "))
