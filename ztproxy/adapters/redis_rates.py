"""Counting by a rate in Redis, for all workers of all nodes.

Knows: one script. Promises: `core.rates.spend` in one step, by the server's own clock; a key goes by itself
once its burst is earned again; no address and no session id is in Redis, only digests. Leaves to the caller:
what is counted, and what to do while the state is away.

The numbers are whole microseconds since the epoch, which a double of Lua holds exactly (1.8e15 < 2^53). The
interval is rounded up to one, so a rate of more than 100,000 a second comes out a little lower.

Keys: `{ztp}:r:<sha256(limit)>:<sha256(key)>`, both cut to 128 bits.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import translate
from ztproxy.adapters.redis_records import PREFIX
from ztproxy.core.rates import Rate, Spent

# KEYS: the number; ARGV: interval and tolerance in us. Answers with integers: Redis cuts a number's fraction
# off, so the number itself goes as text. A key that ends a little late does no harm, one that ends early
# would give a burst back: hence the millisecond more.
_SPEND = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local kept = tonumber(redis.call('GET', KEYS[1]) or now)
local before = math.min(kept, now + tolerance)
local after = math.max(before, now) + interval
local early = after - tolerance - now
local allowed = early <= 0
if allowed then before = after end
if before ~= kept then
  redis.call('SET', KEYS[1], string.format('%.0f', before),
    'PX', string.format('%.0f', math.ceil((before - now) / 1000) + 1))
end
return {allowed and 1 or 0, string.format('%.0f', before), string.format('%.0f', math.max(early, 0)),
  string.format('%.0f', math.max(math.floor((tolerance - (after - now)) / interval), 0))}
"""


class RedisRates:
    """Fulfils `RateStore`."""

    def __init__(self, client: Redis, prefix: str = PREFIX) -> None:
        self._prefix = prefix
        self._spend: Any = client.register_script(_SPEND)

    async def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        interval = math.ceil(round(rate.interval * 1e6, 3))
        name = f"{self._prefix}r:{_digest(limit)}:{_digest(key)}"
        with translate():
            allowed, until, early, remaining = await self._spend([name], [interval, interval * rate.burst])
        return Spent(bool(allowed), int(until) / 1e6, int(remaining), int(early) / 1e6)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
