"""One-time values, claims and locks in Redis.

Knows: GETDEL, SET NX, three short scripts. Promises: a value is taken by one caller at most, and is sealed
with a key derived from the very key that takes it, so Redis alone shows nothing; a claim is won by one caller
at most; a lock is held by one caller at most while its time lasts, and its tokens grow. Leaves to the caller:
how many values one browser may have.

Keys: `{ztp}:o:<kind>:<sha256(key)>` values, `{ztp}:c:<kind>:<sha256(key)>` claims,
`{ztp}:l:<sha256(name)>` locks, `{ztp}:l` the counter of their tokens.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from typing import Any

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import command, translate
from ztproxy.adapters.redis_records import PREFIX, milliseconds
from ztproxy.adapters.sealing import SealBroken, Sealer

_log = logging.getLogger("ztproxy.state")

# KEYS: lock, counter; ARGV: random, ttl in ms. The random part makes sending it twice harmless, and keeps a
# token from before a loss of data from being given again.
_ACQUIRE = """
local held = redis.call('GET', KEYS[1])
if held then
  if string.sub(held, -#ARGV[1]) == ARGV[1] then return held end
  return false
end
local token = redis.call('INCR', KEYS[2]) .. '.' .. ARGV[1]
redis.call('SET', KEYS[1], token, 'PX', ARGV[2])
return token
"""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# KEYS: claim; ARGV: random, ttl in ms. The random part makes sending it twice harmless here too.
_CLAIM = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0
"""


class RedisOneTime:
    """Fulfils `OneTimeStore`."""

    def __init__(self, client: Redis, sealer: Sealer, prefix: str = PREFIX) -> None:
        self._client, self._sealer, self._prefix = client, sealer, prefix
        self._claim: Any = client.register_script(_CLAIM)

    async def put(self, kind: str, key: str, value: bytes, ttl: float) -> None:
        """Keeps `value` under `kind` and `key` for `ttl` seconds."""
        place = self._place(kind, key)
        sealed = self._sealer.seal(key.encode(), place, value)
        await command(self._client, "SET", place, sealed, "PX", milliseconds(ttl))

    async def take(self, kind: str, key: str) -> bytes | None:
        """The value, which is gone after this; None if there is none, or if its seal is broken."""
        place = self._place(kind, key)
        sealed = await command(self._client, "GETDEL", place)
        if sealed is None:
            return None
        try:
            return self._sealer.open(key.encode(), place, sealed)
        except SealBroken as broken:
            _log.critical("the one-time value at `%s` has a broken seal: %s", place.decode(), broken)
            return None

    async def claim(self, kind: str, key: str, ttl: float) -> bool:
        """True for the first who claims `key` within `ttl` seconds, False for everybody after."""
        name = f"{self._prefix}c:{kind}:{_digest(key)}"
        with translate():
            won = await self._claim([name], [secrets.token_urlsafe(12), milliseconds(ttl)])
        return bool(won)

    def _place(self, kind: str, key: str) -> bytes:
        return f"{self._prefix}o:{kind}:{_digest(key)}".encode()


class RedisLocks:
    """Fulfils `Locks`. A token is `<number>.<random>`; the number grows with each acquisition of any lock."""

    def __init__(self, client: Redis, prefix: str = PREFIX) -> None:
        self._prefix = prefix
        self._acquire: Any = client.register_script(_ACQUIRE)
        self._release: Any = client.register_script(_RELEASE)

    async def acquire(self, name: str, ttl: float) -> str | None:
        keys = [self._key(name), f"{self._prefix}l"]
        with translate():
            token = await self._acquire(keys, [secrets.token_urlsafe(12), milliseconds(ttl)])
        return None if token is None else str(token, "ascii")

    async def release(self, name: str, token: str) -> None:
        with translate():
            await self._release([self._key(name)], [token])

    def _key(self, name: str) -> str:
        return f"{self._prefix}l:{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
