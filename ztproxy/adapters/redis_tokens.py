"""Admin tokens in Redis or Valkey: found by the hash of their secret, sealed with the server's key.

Knows: the keys below. Promises: the port `TokenStore`. The secret itself is nowhere; who can write to the
store can neither make a token nor change what one may do, for name, role and end are sealed to the hash they
lie under, and the seal's tag is compared in constant time. (The look-up is by a hash, so how long it takes
says nothing of a secret.) A token ends by the store's clock and by ours, whichever comes first. Leaves to the
caller: who may ask for which role, and that nobody tries secrets without limit.

    {ztp}:token:<digest>   string   digest = sha256(secret); its first 16 letters are the token's id
    {ztp}:tokens           set      digests of all tokens

A token sealed with an older server key is sealed anew when it is used; one that is not used while the keys
are rotated three times no longer opens. What sealing does not close: who can write to the store and kept a
copy can put a revoked token back, until its end. Use TLS and an ACL there.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from typing import Any

import msgspec
from redis.asyncio import Redis

from ztproxy.adapters.decoding import reader
from ztproxy.adapters.redis_connection import command, translate
from ztproxy.adapters.redis_records import PREFIX, milliseconds
from ztproxy.adapters.sealing import SealBroken, Sealer
from ztproxy.errors import WorldError
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.administration import LONGEST_TOKEN_SECONDS, AdminToken, Role

_log = logging.getLogger("ztproxy.state")

_SECRET = re.compile(r"ztp_[A-Za-z0-9_-]{43}", re.ASCII)
_ID_LETTERS = 16
_SEAL_HEADER = 9  # of a sealed value: its version and the id of the server key

# KEYS: token, index; ARGV: sealed, ttl in ms, digest.
_CREATE = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
return 1
"""

# KEYS: token, index; ARGV: digest.
_REVOKE = """
redis.call('SREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""


class _Stored(msgspec.Struct, frozen=True):
    """The sealed part, by field name, so that a newer program reads an older one."""

    name: str
    role: Role
    created_by: str
    created_at: float
    expires_at: float


_unpack = reader(msgspec.msgpack.Decoder(_Stored).decode)


class RedisTokens:
    """Fulfils `TokenStore`."""

    def __init__(self, client: Redis, sealer: Sealer, clock: Clock, prefix: str = PREFIX) -> None:
        self._client, self._sealer, self._clock, self._prefix = client, sealer, clock, prefix
        self._index = f"{prefix}tokens"
        self._create: Any = client.register_script(_CREATE)
        self._revoke: Any = client.register_script(_REVOKE)

    async def create(self, name: str, role: Role, seconds: float, created_by: str) -> tuple[str, AdminToken]:
        """A new token and its secret, which is not kept. Raises `ValueError` for a life too long or none."""
        if not 0 < seconds <= LONGEST_TOKEN_SECONDS:
            raise ValueError("a token lives for more than 0 seconds and at most 400 days")
        secret = f"ztp_{secrets.token_urlsafe(32)}"
        digest, now = _digest(secret), self._clock()
        stored = _Stored(name, role, created_by, now, now + seconds)
        with translate():
            await self._create(
                [self._key(digest), self._index],
                [self._seal(digest, stored), milliseconds(seconds), digest],
            )
        return secret, _token(digest, stored)

    async def find(self, secret: str) -> AdminToken | None:
        """The token of this secret, if it is neither unknown, revoked nor expired."""
        if not _SECRET.fullmatch(secret):
            return None
        digest = _digest(secret)
        sealed = await command(self._client, "GET", self._key(digest))
        stored = self._open(digest, sealed)
        if stored is None:
            return None
        await self._renew_seal(digest, sealed, stored)
        return _token(digest, stored)

    async def all(self) -> tuple[AdminToken, ...]:
        """Every token that is neither revoked nor expired, oldest first."""
        digests = await self._digests()
        if not digests:
            return ()
        values = await command(self._client, "MGET", *(self._key(digest) for digest in digests))
        ended = [digest for digest, sealed in zip(digests, values, strict=True) if sealed is None]
        if ended:
            await command(self._client, "SREM", self._index, *ended)
        opened = (
            (digest, self._open(digest, sealed)) for digest, sealed in zip(digests, values, strict=True)
        )
        tokens = [_token(digest, stored) for digest, stored in opened if stored is not None]
        return tuple(sorted(tokens, key=lambda token: (token.created_at, token.id)))

    async def revoke(self, token_id: str) -> bool:
        """Ends the token of this id; whether there was one."""
        ended = 0
        for digest in await self._digests():
            if digest[:_ID_LETTERS] == token_id:
                with translate():
                    ended += int(await self._revoke([self._key(digest), self._index], [digest]))
        return ended > 0

    async def _digests(self) -> list[str]:
        members = await command(self._client, "SMEMBERS", self._index)
        return [str(member, "ascii", "replace") for member in members]

    async def _renew_seal(self, digest: str, sealed: bytes, stored: _Stored) -> None:
        fresh = self._seal(digest, stored)
        if sealed[:_SEAL_HEADER] == fresh[:_SEAL_HEADER]:
            return
        try:
            # XX: a token revoked in this moment stays revoked.
            await command(self._client, "SET", self._key(digest), fresh, "XX", "KEEPTTL")
        except WorldError as error:
            _log.warning("the token `%s` could not be sealed anew: %s", digest[:_ID_LETTERS], error)

    def _seal(self, digest: str, stored: _Stored) -> bytes:
        return self._sealer.seal(digest.encode(), self._key(digest).encode(), msgspec.msgpack.encode(stored))

    def _open(self, digest: str, sealed: bytes | None) -> _Stored | None:
        """What was sealed, unless it has expired."""
        if sealed is None:
            return None
        place = self._key(digest)
        try:
            stored = _unpack(self._sealer.open(digest.encode(), place.encode(), sealed))
        except (SealBroken, ValueError) as broken:
            _log.critical("the admin token at `%s` cannot be believed: %s", place, broken)
            return None
        return stored if self._clock() < stored.expires_at else None

    def _key(self, digest: str) -> str:
        return f"{self._prefix}token:{digest}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(digest: str, stored: _Stored) -> AdminToken:
    return AdminToken(
        digest[:_ID_LETTERS],
        stored.name,
        stored.role,
        stored.created_by,
        stored.created_at,
        stored.expires_at,
    )
