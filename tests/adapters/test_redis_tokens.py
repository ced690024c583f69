"""One suite for `TokenStore` on every backend; then what only Redis has: seals, and somebody who writes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec
import pytest
from redis.asyncio import Redis

from tests.adapters.state_worlds import KEY_A, KEY_B
from tests.adapters.state_worlds import RedisWorld as StateWorld
from tests.worlds.memory_admin import MemoryTokens
from tests.worlds.memory_state import SetClock
from ztproxy.adapters import redis_connection
from ztproxy.adapters.redis_tokens import RedisTokens
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.gateway.ports.administration import LONGEST_TOKEN_SECONDS, TOKEN_SECONDS, Role, TokenStore

NOW = 1_800_000_000.0
DAY = 86_400.0


class World(Protocol):
    tokens: Any

    async def pass_time(self, seconds: float) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.clock = SetClock(NOW)
        self.tokens = MemoryTokens(self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds


class RedisWorld(StateWorld):
    def __init__(self, client: Redis, *keys: bytes) -> None:
        super().__init__(client, *keys)
        self.clock = SetClock(NOW)
        self.tokens = RedisTokens(client, self.sealer, self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        await super().pass_time(seconds)


@pytest.fixture(params=["memory", "redis", "cluster"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return MemoryWorld()
    name = "state_client" if request.param == "redis" else "cluster_client"
    return RedisWorld(request.getfixturevalue(name))


@pytest.fixture
def redis(state_client: Redis) -> RedisWorld:
    return RedisWorld(state_client)


def key_of(secret: str) -> str:
    return "{ztp}:token:" + hashlib.sha256(secret.encode()).hexdigest()


# ── the port ──


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_a_token_is_found_by_its_secret(world: World, role: Role) -> None:
    store: TokenStore = world.tokens
    secret, token = await store.create("ci", role, TOKEN_SECONDS, "carol")
    assert token == (token.id, "ci", role, "carol", NOW, NOW + 90 * DAY)
    assert await store.find(secret) == token
    assert await store.all() == (token,)
    assert len(secret) == 47 and secret.startswith("ztp_")
    assert token.id not in secret
    assert secret not in repr(token)


async def test_secrets_and_ids_differ(world: World) -> None:
    made = [await world.tokens.create("ci", "viewer", DAY, "carol") for _ in range(20)]
    assert len({secret for secret, _ in made}) == len({token.id for _, token in made}) == 20


async def test_all_are_listed_oldest_first(world: World) -> None:
    for name in ("one", "two", "three"):
        await world.tokens.create(name, "viewer", DAY, "carol")
        world.clock.now += 1  # type: ignore[attr-defined]
    assert [token.name for token in await world.tokens.all()] == ["one", "two", "three"]


async def test_there_may_be_none(world: World) -> None:
    assert await world.tokens.all() == ()
    assert not await world.tokens.revoke("")


ATTEMPTS = [
    pytest.param(lambda secret: secret[:-1], id="A05-truncated"),
    pytest.param(lambda secret: secret + "A", id="longer"),
    pytest.param(lambda secret: secret.swapcase(), id="A05-case-changed"),
    pytest.param(lambda secret: "ztp_" + secret[4:].swapcase(), id="A05-case-changed-behind-the-prefix"),
    pytest.param(lambda secret: secret + "\n", id="with-a-line-break"),
    pytest.param(lambda secret: " " + secret, id="with-a-space"),
    pytest.param(lambda secret: secret + "=", id="padded"),
    pytest.param(lambda secret: secret[:-1] + "é", id="not-ascii"),
    pytest.param(lambda secret: secret[:-1] + "\ud800", id="half-a-surrogate-pair"),
    pytest.param(lambda secret: "ztp_" + "A" * 43, id="guessed"),
    pytest.param(lambda secret: "ztp_" + "*" * 43, id="A17-a-pattern"),
    pytest.param(lambda secret: hashlib.sha256(secret.encode()).hexdigest(), id="its-hash"),
    pytest.param(lambda secret: "", id="empty"),
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_nothing_but_the_secret_finds_it(world: World, attempt: Any) -> None:
    secret, token = await world.tokens.create("ci", "admin", DAY, "carol")
    assert await world.tokens.find(attempt(secret)) is None
    assert await world.tokens.find(token.id) is None
    assert await world.tokens.find(secret) == token


async def test_a_token_expires(world: World) -> None:
    secret, token = await world.tokens.create("ci", "admin", DAY, "carol")
    await world.pass_time(DAY - 1)
    assert await world.tokens.find(secret) == token
    await world.pass_time(2)
    assert await world.tokens.find(secret) is None
    assert await world.tokens.all() == ()
    assert not await world.tokens.revoke(token.id)


async def test_a_token_is_revoked_once_and_alone(world: World) -> None:
    secret, token = await world.tokens.create("ci", "admin", DAY, "carol")
    other, kept = await world.tokens.create("other", "viewer", DAY, "carol")
    assert await world.tokens.revoke(token.id)
    assert await world.tokens.find(secret) is None
    assert await world.tokens.all() == (kept,)
    assert not await world.tokens.revoke(token.id)
    assert await world.tokens.find(other) == kept


@pytest.mark.parametrize("token_id", ["", "*", "[0-9a-f]*", "a\nDEL x", "0" * 16, "0" * 64])
async def test_an_id_is_no_pattern(world: World, token_id: str) -> None:  # A17
    _, token = await world.tokens.create("ci", "admin", DAY, "carol")
    for wrong in (token_id, token.id[:-1], token.id.upper() + "\0"):
        assert not await world.tokens.revoke(wrong)
    assert await world.tokens.all() == (token,)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(0.0, id="none"),
        pytest.param(-1.0, id="past"),
        pytest.param(LONGEST_TOKEN_SECONDS + 1, id="too-long"),
        pytest.param(math.inf, id="for-ever"),
        pytest.param(math.nan, id="not-a-number"),
    ],
)
async def test_a_life_of_another_length_is_our_mistake(world: World, seconds: float) -> None:
    with pytest.raises(ValueError, match="at most 400 days"):
        await world.tokens.create("ci", "admin", seconds, "carol")
    assert await world.tokens.all() == ()


async def test_the_longest_life(world: World) -> None:
    secret, token = await world.tokens.create("ci", "admin", LONGEST_TOKEN_SECONDS, "carol")
    assert token.expires_at == NOW + 400 * DAY
    assert await world.tokens.find(secret) == token


# ── Redis ──


async def test_nothing_readable_is_in_redis(redis: RedisWorld) -> None:
    secret, token = await redis.tokens.create("deploy-bot", "operator", DAY, "carol")
    stored = await redis.snapshot()
    for word in (secret, secret[4:], "deploy-bot", "operator", "carol"):
        assert word not in repr(stored)
    assert sorted(stored) == [key_of(secret).encode(), b"{ztp}:tokens"]
    assert key_of(secret).removeprefix("{ztp}:token:").startswith(token.id)
    assert 0 < await redis.client.pttl(key_of(secret)) <= DAY * 1000


async def test_the_end_is_sealed_too(redis: RedisWorld) -> None:
    # the time to live was taken away
    secret, _ = await redis.tokens.create("ci", "admin", DAY, "carol")
    await redis.client.persist(key_of(secret))
    redis.clock.now += DAY
    assert await redis.tokens.find(secret) is None
    assert await redis.tokens.all() == ()


async def test_a_token_ends_by_the_stores_clock_as_well(redis: RedisWorld) -> None:
    secret, _ = await redis.tokens.create("ci", "admin", DAY, "carol")
    await redis.client.pexpire(key_of(secret), 0)
    assert await redis.tokens.find(secret) is None
    assert await redis.tokens.all() == ()
    assert await redis.client.smembers("{ztp}:tokens") == set()  # and leaves the index


def _packed(name: str, role: str) -> bytes:
    fields = {"name": name, "role": role, "created_by": "carol", "created_at": NOW, "expires_at": NOW + DAY}
    return msgspec.msgpack.encode(fields)


async def _plain(redis: RedisWorld, mine: str, _: str) -> bytes:
    return _packed("ci", "admin")


async def _moved(redis: RedisWorld, _: str, admins: str) -> bytes:
    return bytes(await redis.client.get(key_of(admins)))


async def _own_key(redis: RedisWorld, mine: str, _: str) -> bytes:
    place = key_of(mine)
    digest = place.rpartition(":")[2]
    return Sealer([KEY_B]).seal(digest.encode(), place.encode(), _packed("ci", "admin"))


async def _flipped(redis: RedisWorld, mine: str, _: str) -> bytes:
    sealed = bytearray(await redis.client.get(key_of(mine)))
    sealed[30] ^= 1
    return bytes(sealed)


async def _no_role(redis: RedisWorld, mine: str, _: str) -> bytes:
    place = key_of(mine)
    digest = place.rpartition(":")[2]
    return redis.sealer.seal(digest.encode(), place.encode(), _packed("ci", "root"))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(_plain, id="the-role-in-the-open"),
        pytest.param(_moved, id="an-admins-token-moved-to-a-viewers"),
        pytest.param(_own_key, id="sealed-with-another-key"),
        pytest.param(_flipped, id="a-bit-flipped"),
        pytest.param(_no_role, id="a-role-there-is-not"),
    ],
)
async def test_who_writes_to_the_store_raises_no_role(
    redis: RedisWorld, caplog: pytest.LogCaptureFixture, write: Any
) -> None:
    mine, _ = await redis.tokens.create("mine", "viewer", DAY, "carol")
    admins, token = await redis.tokens.create("admins", "admin", DAY, "carol")
    await redis.client.set(key_of(mine), await write(redis, mine, admins))
    assert await redis.tokens.find(mine) is None
    assert await redis.tokens.all() == (token,)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2
    assert mine not in caplog.text


async def test_a_token_of_ones_own_is_none(redis: RedisWorld) -> None:
    secret = "ztp_" + "m" * 43
    other, _ = await redis.tokens.create("ci", "admin", DAY, "carol")
    await redis.client.copy(key_of(other), key_of(secret))
    await redis.client.sadd("{ztp}:tokens", key_of(secret).rpartition(":")[2], b"\xff*")
    assert await redis.tokens.find(secret) is None
    assert len(await redis.tokens.all()) == 1


async def test_a_used_token_outlives_the_key_it_was_sealed_with(redis: RedisWorld) -> None:
    secret, token = await redis.tokens.create("ci", "admin", DAY, "carol")
    left = await redis.client.pttl(key_of(secret))
    rotated = RedisWorld(redis.client, KEY_B, KEY_A)
    assert await rotated.tokens.find(secret) == token
    assert 0 < await redis.client.pttl(key_of(secret)) <= left  # no longer life by it
    assert await RedisWorld(redis.client, KEY_B).tokens.find(secret) == token


async def test_an_unused_token_goes_with_the_key_it_was_sealed_with(redis: RedisWorld) -> None:
    secret, _ = await redis.tokens.create("ci", "admin", DAY, "carol")
    assert await RedisWorld(redis.client, KEY_B).tokens.find(secret) is None


async def test_a_token_is_found_where_nothing_can_be_written(redis: RedisWorld) -> None:
    secret, token = await redis.tokens.create("ci", "admin", DAY, "carol")
    await redis.client.config_set("min-replicas-to-write", 1)
    try:
        assert await RedisWorld(redis.client, KEY_B, KEY_A).tokens.find(secret) == token
        with pytest.raises(WorldError):
            await redis.tokens.revoke(token.id)
    finally:
        await redis.client.config_set("min-replicas-to-write", 0)
    assert await redis.tokens.find(secret) == token


async def test_revoking_and_using_at_once_leaves_no_token(redis: RedisWorld) -> None:
    secret, token = await redis.tokens.create("ci", "admin", DAY, "carol")
    rotated = RedisWorld(redis.client, KEY_B, KEY_A)
    await asyncio.gather(
        *(rotated.tokens.find(secret) for _ in range(20)),
        redis.tokens.revoke(token.id),
        *(rotated.tokens.find(secret) for _ in range(20)),
    )
    assert await redis.snapshot() == {}


@pytest.fixture
async def nowhere() -> AsyncIterator[RedisTokens]:
    client = redis_connection.connect("unix:///nonexistent/ztproxy.sock")
    yield RedisTokens(client, Sealer([KEY_A]), SetClock(NOW))
    await client.aclose()


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda tokens: tokens.create("ci", "admin", DAY, "carol"), id="create"),
        pytest.param(lambda tokens: tokens.find("ztp_" + "A" * 43), id="find"),
        pytest.param(lambda tokens: tokens.all(), id="all"),
        pytest.param(lambda tokens: tokens.revoke("0" * 16), id="revoke"),
    ],
)
async def test_a_store_that_is_away_is_the_worlds_fault(nowhere: RedisTokens, ask: Any) -> None:
    with pytest.raises(WorldError) as away:
        await ask(nowhere)
    assert away.value.reason is Reason.STATE_UNAVAILABLE
