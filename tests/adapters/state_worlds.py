"""One world per backend of the state ports: the same words for making sessions and for letting time pass."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol

from redis.asyncio import Redis

from tests.worlds.memory_state import MemoryState, SetClock
from ztproxy.adapters.redis_directory import RedisDirectory
from ztproxy.adapters.redis_one_time import RedisLocks, RedisOneTime
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.identity import Identity, Session, SessionSecrets
from ztproxy.core.sessions import SessionLimits
from ztproxy.gateway.ports import Seen

LIMITS = SessionLimits(idle=600.0, absolute=3600.0)
KEY_A, KEY_B, KEY_C = (bytes([number]) * 32 for number in (1, 2, 3))
ISSUER = "https://op.test"

ALICE = Session(
    id="ignored",
    identity=Identity(
        ISSUER,
        "alice",
        email="alice@example.com",
        name="Älice ‮",
        groups=("engineering", "on-call"),
        claims=MappingProxyType({"dept": {"code": 7, "tags": ["a", None, True, 1.5]}}),
    ),
    provider="demo",
    created_at=1000.0,
    authenticated_at=990.0,
    verified_at=1000.0,
    expires_at=1000.0 + LIMITS.absolute,
    acr="mfa",
    amr=("pwd", "otp"),
    rank=2,
    idp_session="sid-1",
    refreshable=True,
    as_of=3,
    device="laptop-1",
)
BOB = replace(
    ALICE,
    identity=Identity(ISSUER, "bob"),
    provider="other",
    idp_session=None,
    device=None,
    created_at=1001.0,
    expires_at=4601.0,
)
HOME = Seen("192.0.2.7", "wiki", "Mozilla/5.0 (X11)")
TRAIN = Seen("2001:db8::9", "mail", "Mozilla/5.0 (Phone)")
SECRETS = SessionSecrets(refresh_token="refresh-1", id_token="id-1")
LATER_SECRETS = SessionSecrets(refresh_token="refresh-2", id_token=None)


class World(Protocol):
    """The four stores of one backend."""

    sessions: Any
    directory: Any
    one_time: Any
    locks: Any

    async def pass_time(self, seconds: float) -> None: ...

    async def has_log(self, name: str, number: int) -> None:
        """Which log of locks it has, and how far that has come."""
        ...


class MemoryWorld:
    """The fake on which the gateway's tests stand: no limits, and in all else as Redis."""

    def __init__(self) -> None:
        self.clock = SetClock(1_800_000_000.0)
        self.sessions = self.directory = self.one_time = self.locks = MemoryState(self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    async def has_log(self, name: str, number: int) -> None:
        self.sessions.log, self.sessions.number = name, number


class RedisWorld:
    def __init__(self, client: Redis, *keys: bytes) -> None:
        self.client: Any = client
        self.sealer = Sealer(keys or (KEY_A,))
        self.sessions = RedisSessions(client, self.sealer, LIMITS)
        self.directory = RedisDirectory(client, self.sealer)
        self.one_time = RedisOneTime(client, self.sealer)
        self.locks = RedisLocks(client)

    async def pass_time(self, seconds: float) -> None:
        """Nobody can move a server's clock, so all that hangs on it is moved the other way."""
        ms = round(seconds * 1000)
        for key in await self._keys():
            left = await self.client.pttl(key)
            if left >= 0:
                await self.client.pexpire(key, left - ms)
            kind = await self.client.type(key)
            if kind == b"hash" and (end := await self.client.hget(key, "a")):
                await self.client.hset(key, "a", int(end) - ms)
            if kind == b"zset":
                unit = 1 if key.endswith(b":due") else 1000
                for member in await self.client.zrange(key, 0, -1):
                    await self.client.zincrby(key, -ms * unit, member)

    async def _keys(self) -> list[bytes]:
        # Not KEYS, which asks one node of a cluster. A scan may name a key twice.
        return sorted({key async for key in self.client.scan_iter("*", count=1000)})

    async def has_log(self, name: str, number: int) -> None:
        await self.client.set("{ztp}:data", name)
        await self.client.set("{ztp}:seq", number)

    async def snapshot(self) -> dict[bytes, object]:
        """All that is stored, to see that nothing changed."""
        read = {
            "string": self.client.get,
            "hash": self.client.hgetall,
            "set": self.client.smembers,
            "zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
        }
        stored: dict[bytes, object] = {}
        for key in await self._keys():
            stored[key] = await read[(await self.client.type(key)).decode()](key)
        return stored
