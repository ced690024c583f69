"""Idempotency keys in Redis or Valkey: what a request was answered the first time it came.

Knows: one sealed value a key. Promises: the port `Repeats`; of many who begin with one key at once, one is
the first. An answer is kept for a day, and a request under way for a minute: longer than any takes, and not
for ever if its process dies. Leaves to the caller: `finish`, in the same process, however the request ends.

    {ztp}:repeat:<sha256(actor, key)>   string   sealed: who began, the question, the answer, its end

The end is sealed too, so that who can write to the store cannot have a request answered from an old copy.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from typing import Any

import msgspec
from redis.asyncio import Redis

from ztproxy.adapters.decoding import reader
from ztproxy.adapters.redis_connection import command, translate
from ztproxy.adapters.redis_records import PREFIX, milliseconds
from ztproxy.adapters.sealing import SealBroken, Sealer
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.administration import Told

KEPT_SECONDS = 86_400.0
PENDING_SECONDS = 60.0

_log = logging.getLogger("ztproxy.state")

# KEYS: repeat; ARGV: what `begin` put, the answer, ttl in ms. An answer that came after the minute is kept,
# unless somebody else has begun since.
_KEEP = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

# KEYS: repeat; ARGV: what `begin` put.
_FORGET = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class _Kept(msgspec.Struct, frozen=True):
    nonce: bytes
    question: bytes
    ends_at: float
    told: Told | None = None


_unpack = reader(msgspec.msgpack.Decoder(_Kept).decode)


class RedisRepeats:
    """Fulfils `Repeats`."""

    def __init__(self, client: Redis, sealer: Sealer, clock: Clock, prefix: str = PREFIX) -> None:
        self._client, self._sealer, self._clock, self._prefix = client, sealer, clock, prefix
        self._begun: dict[str, tuple[_Kept, bytes]] = {}
        self._keep: Any = client.register_script(_KEEP)
        self._forget: Any = client.register_script(_FORGET)

    async def begin(self, actor: str, key: str, question: bytes) -> Told | None:
        """None for the first time, else what was answered then. Raises `ClientError` for another question
        under the same key, and while the first is still under way."""
        place = self._place(actor, key)
        mine = _Kept(secrets.token_bytes(12), question, self._clock() + PENDING_SECONDS)
        sealed = self._seal(place, mine)
        while not await command(
            self._client, "SET", place, sealed, "NX", "PX", milliseconds(PENDING_SECONDS)
        ):
            found = await command(self._client, "GET", place)
            held = self._open(place, found)
            if held is None:
                await self._drop(place, found)
            elif held.nonce == mine.nonce:
                break  # the connection died after the first SET arrived, and it was sent again
            elif held.question != question:
                raise ClientError(Reason.IDEMPOTENCY_MISMATCH)
            elif held.told is None:
                raise ClientError(Reason.IDEMPOTENCY_PENDING)
            else:
                return held.told
        self._begun[place] = mine, sealed
        return None

    async def finish(self, actor: str, key: str, told: Told | None) -> None:
        """Keeps the answer; None forgets the key, so that what failed can be tried again."""
        place = self._place(actor, key)
        begun = self._begun.pop(place, None)
        if begun is None:
            return  # it took longer than its minute, and the same was asked and answered here since
        mine, sealed = begun
        if told is None:
            await self._drop(place, sealed)
            return
        kept = _Kept(mine.nonce, mine.question, self._clock() + KEPT_SECONDS, told)
        with translate():
            await self._keep([place], [sealed, self._seal(place, kept), milliseconds(KEPT_SECONDS)])

    async def _drop(self, place: str, sealed: bytes | None) -> None:
        if sealed is not None:
            with translate():
                await self._forget([place], [sealed])

    def _seal(self, place: str, kept: _Kept) -> bytes:
        return self._sealer.seal(place.encode(), place.encode(), msgspec.msgpack.encode(kept))

    def _open(self, place: str, sealed: bytes | None) -> _Kept | None:
        """What was sealed, unless its end has come."""
        if sealed is None:
            return None
        try:
            kept = _unpack(self._sealer.open(place.encode(), place.encode(), sealed))
        except (SealBroken, ValueError) as broken:
            _log.critical("the idempotency key at `%s` cannot be believed: %s", place, broken)
            return None
        return kept if self._clock() < kept.ends_at else None

    def _place(self, actor: str, key: str) -> str:
        # The length keeps (`ab`, `c`) and (`a`, `bc`) apart.
        text = f"{len(actor)}:{actor}{key}"
        return f"{self._prefix}repeat:{hashlib.sha256(text.encode()).hexdigest()}"
