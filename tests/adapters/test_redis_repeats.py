"""One suite for `Repeats` on every backend; then what only Redis has."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import pytest
from redis.asyncio import Redis

from tests.adapters.state_worlds import KEY_A
from tests.adapters.state_worlds import RedisWorld as StateWorld
from tests.worlds.memory_admin import MemoryRepeats
from tests.worlds.memory_state import SetClock
from ztproxy.adapters import redis_connection
from ztproxy.adapters.redis_repeats import RedisRepeats
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports.administration import Repeats, Told

NOW = 1_800_000_000.0
DAY = 86_400.0
ANSWER = Told(201, b'{"number":7}')


class World(Protocol):
    repeats: Any

    async def pass_time(self, seconds: float) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.clock = SetClock(NOW)
        self.repeats = MemoryRepeats(self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds


class RedisWorld(StateWorld):
    def __init__(self, client: Redis) -> None:
        super().__init__(client)
        self.clock = SetClock(NOW)
        self.repeats = self.another()

    def another(self) -> RedisRepeats:
        """As another process has it."""
        return RedisRepeats(self.client, self.sealer, self.clock)

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


async def refused(repeats: Repeats, actor: str, key: str, question: bytes) -> Reason:
    with pytest.raises(ClientError) as error:
        await repeats.begin(actor, key, question)
    return error.value.reason


# ── the port ──


async def test_a_repeat_is_told_what_was_told_before(world: World) -> None:
    repeats: Repeats = world.repeats
    assert await repeats.begin("carol", "k1", b"q") is None
    await repeats.finish("carol", "k1", ANSWER)
    assert await repeats.begin("carol", "k1", b"q") == ANSWER
    assert await repeats.begin("carol", "k1", b"q") == ANSWER


async def test_the_first_is_still_under_way(world: World) -> None:
    assert await world.repeats.begin("carol", "k1", b"q") is None
    assert await refused(world.repeats, "carol", "k1", b"q") is Reason.IDEMPOTENCY_PENDING
    await world.repeats.finish("carol", "k1", ANSWER)
    assert await world.repeats.begin("carol", "k1", b"q") == ANSWER


async def test_of_many_at_once_one_is_the_first(world: World) -> None:
    begun = await asyncio.gather(
        *(world.repeats.begin("carol", "k1", b"q") for _ in range(20)), return_exceptions=True
    )
    assert begun.count(None) == 1
    assert sum(isinstance(one, ClientError) for one in begun) == 19


async def test_another_question_under_the_same_key_is_refused(world: World) -> None:
    await world.repeats.begin("carol", "k1", b"q")
    assert await refused(world.repeats, "carol", "k1", b"other") is Reason.IDEMPOTENCY_MISMATCH
    await world.repeats.finish("carol", "k1", ANSWER)
    assert await refused(world.repeats, "carol", "k1", b"other") is Reason.IDEMPOTENCY_MISMATCH
    assert await world.repeats.begin("carol", "k1", b"q") == ANSWER


async def test_what_failed_can_be_tried_again(world: World) -> None:
    await world.repeats.begin("carol", "k1", b"q")
    await world.repeats.finish("carol", "k1", None)
    assert await world.repeats.begin("carol", "k1", b"another try") is None


@pytest.mark.parametrize(
    ("actor", "key"),
    [
        pytest.param("mallory", "k1", id="another-actor"),
        pytest.param("carol", "k2", id="another-key"),
        pytest.param("carolk", "1", id="the-border-moved"),
        pytest.param("", "carolk1", id="no-actor"),
        pytest.param("carol", "*", id="a-pattern"),
    ],
)
async def test_keys_are_apart(world: World, actor: str, key: str) -> None:
    await world.repeats.begin("carol", "k1", b"q")
    await world.repeats.finish("carol", "k1", ANSWER)
    assert await world.repeats.begin(actor, key, b"q") is None


async def test_an_answer_is_kept_for_a_day(world: World) -> None:
    await world.repeats.begin("carol", "k1", b"q")
    await world.pass_time(30)
    await world.repeats.finish("carol", "k1", ANSWER)
    await world.pass_time(DAY - 60)
    assert await world.repeats.begin("carol", "k1", b"q") == ANSWER
    await world.pass_time(61)
    assert await world.repeats.begin("carol", "k1", b"q") is None


async def test_who_dies_under_way_blocks_nobody_for_long(world: World) -> None:
    await world.repeats.begin("carol", "k1", b"q")
    await world.pass_time(61)
    assert await world.repeats.begin("carol", "k1", b"q") is None


async def test_an_answer_after_the_minute_is_kept(world: World) -> None:
    await world.repeats.begin("carol", "k1", b"q")
    await world.pass_time(61)
    await world.repeats.finish("carol", "k1", ANSWER)
    assert await world.repeats.begin("carol", "k1", b"q") == ANSWER


# ── Redis ──


async def test_who_was_overtaken_changes_nothing(redis: RedisWorld) -> None:
    other = redis.another()
    await redis.repeats.begin("carol", "k1", b"q")
    await redis.pass_time(61)
    assert await other.begin("carol", "k1", b"q") is None
    await redis.repeats.finish("carol", "k1", None)
    assert await refused(redis.repeats, "carol", "k1", b"q") is Reason.IDEMPOTENCY_PENDING
    await other.finish("carol", "k1", ANSWER)
    assert await redis.repeats.begin("carol", "k1", b"q") == ANSWER
    await redis.repeats.finish("carol", "k1", Told(500, b""))  # nothing was begun here
    assert await redis.repeats.begin("carol", "k1", b"q") == ANSWER


async def test_nothing_readable_is_in_redis(redis: RedisWorld) -> None:
    await redis.repeats.begin("carol", "k1", b"question")
    await redis.repeats.finish("carol", "k1", Told(201, b'{"secret":"ztp_x"}'))
    (key,) = await redis.client.keys("*")
    assert key.startswith(b"{ztp}:repeat:")
    value = await redis.client.get(key)
    for word in (b"carol", b"k1", b"question", b"ztp_x"):
        assert word not in key + value
    assert 0 < await redis.client.pttl(key) <= DAY * 1000


async def test_the_end_is_sealed_too(redis: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    # somebody put an old answer back, that a revocation be answered and not made
    await redis.repeats.begin("carol", "k1", b"q")
    await redis.repeats.finish("carol", "k1", ANSWER)
    (key,) = await redis.client.keys("*")
    old = await redis.client.get(key)
    await redis.pass_time(DAY + 1)
    await redis.client.set(key, old)
    assert await redis.repeats.begin("carol", "k1", b"q") is None
    assert caplog.records == []


async def test_a_forged_answer_is_none(redis: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    for key in ("k1", "k2"):
        await redis.repeats.begin("carol", key, b"q")
        await redis.repeats.finish("carol", key, ANSWER)
    one, two = await redis.client.keys("*")
    await redis.client.copy(one, two, replace=True)
    await redis.client.set(one, b"forged")
    assert await redis.repeats.begin("carol", "k1", b"q") is None
    assert await redis.repeats.begin("carol", "k2", b"q") is None
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2


class SentTwice:
    """A client whose connection dies once a SET has arrived: the first of each is sent again."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def execute_command(self, *words: Any) -> Any:
        if words[0] == "SET":
            await self.client.execute_command(*words)
        return await self.client.execute_command(*words)

    def register_script(self, text: str) -> Any:
        return self.client.register_script(text)


async def test_a_beginning_sent_twice_is_one(redis: RedisWorld) -> None:
    twice: Any = SentTwice(redis.client)
    repeats = RedisRepeats(twice, Sealer([KEY_A]), redis.clock)
    assert await repeats.begin("carol", "k1", b"q") is None
    await repeats.finish("carol", "k1", ANSWER)
    assert await redis.repeats.begin("carol", "k1", b"q") == ANSWER


async def test_a_store_that_is_away_is_the_worlds_fault() -> None:
    client = redis_connection.connect("unix:///nonexistent/ztproxy.sock")
    with pytest.raises(WorldError) as away:
        await RedisRepeats(client, Sealer([KEY_A]), SetClock(NOW)).begin("carol", "k1", b"q")
    assert away.value.reason is Reason.STATE_UNAVAILABLE
    await client.aclose()
