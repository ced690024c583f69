"""The first hosts of issuers in Redis or Valkey, sealed. Fulfils `FirstHosts`.

Knows: the key below. Promises: what is written first stays, until somebody deletes it; one who can write to
the store can make us forget it, as losing the data does, and cannot put hosts of their choice there, for the
record is sealed to its name. What they can put back is an older record of the same name. It does not end by
itself. Leaves to `adapters.oidc_metadata` what the hosts are for.

    {ztp}:hosts:<sha256(name)>   string   the sealed hosts, with a space between

A record whose seal is broken is replaced, and the log says so. One under a key that is not on the ring is
refused and left alone: it may be newer than this worker's ring, and what a document that has moved says must
not take its place. One under an older key is sealed anew when it is read.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import translate
from ztproxy.adapters.redis_records import PREFIX
from ztproxy.adapters.sealing import Breach, SealBroken, Sealer
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError

# Nothing here is a secret: the seal is for its tag, under the server's key.
_LABEL = b"first hosts"
_SEAL_HEADER = 9  # of a sealed value: its version and the id of the server key
_TRIES = 3  # one finds a record, one replaces it if it is broken, one finds what somebody else put there

# KEYS: place; ARGV: what was found there, empty for nothing, and what is to take its place. Answers what is
# there now. Sent twice it does no more than once.
_REPLACE = """
local held = redis.call('GET', KEYS[1]) or ''
if held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
"""

_log = logging.getLogger("ztproxy.state")


class RedisFirstHosts:
    """Fulfils `FirstHosts`."""

    def __init__(self, client: Redis, sealer: Sealer, prefix: str = PREFIX) -> None:
        self._sealer, self._prefix = sealer, prefix
        self._script: Any = client.register_script(_REPLACE)

    async def first(self, name: str, hosts: frozenset[str]) -> frozenset[str]:
        place = f"{self._prefix}hosts:{hashlib.sha256(name.encode()).hexdigest()}".encode()
        own = self._sealer.seal(_LABEL, place, " ".join(sorted(hosts)).encode())
        broken = b""
        for _ in range(_TRIES):
            # INVARIANT: only what was found broken is replaced, never what somebody wrote since.
            held = await self._replace(place, broken, own)
            if held == own:
                return hosts
            try:
                found = self._sealer.open(_LABEL, place, held)
            except SealBroken as breach:
                if breach.breach is Breach.KEY:
                    raise _unreadable(name, place) from None
                _log.critical(
                    "the first hosts of `%s` cannot be believed (%s); those of now take their place",
                    name,
                    breach,
                )
                broken = held
                continue
            if held[:_SEAL_HEADER] != own[:_SEAL_HEADER]:
                await self._replace(place, held, self._sealer.seal(_LABEL, place, found))
            return frozenset(found.decode().split(" "))
        raise WorldError(
            Reason.STATE_UNAVAILABLE, f"state: somebody keeps breaking the first hosts of `{name}`"
        )

    async def _replace(self, place: bytes, before: bytes, after: bytes) -> bytes:
        with translate():
            held: bytes = await self._script([place], [before, after])
        return held


def _unreadable(name: str, place: bytes) -> WorldError:
    problem = f"the first hosts of `{name}` are sealed with a key that is not on the ring"
    _log.warning("%s", problem)
    return WorldError(
        Reason.STATE_UNAVAILABLE, f"state: {problem}; put the key back, or delete `{place.decode()}`"
    )
