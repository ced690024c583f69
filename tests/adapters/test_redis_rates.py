"""One suite for counting by a rate, in a worker and in the store; then what only the store has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from redis.asyncio import Redis

from tests.adapters.state_worlds import RedisWorld
from tests.worlds.memory_state import SetClock
from ztproxy.adapters import redis_connection
from ztproxy.adapters.redis_rates import RedisRates
from ztproxy.core.rates import Rate, Spent
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.gateway.rates import Buckets

# So slow that nothing is earned while a test runs.
SLOW = Rate(1, 3600.0, 5)


class World(Protocol):
    async def spend(self, limit: str, key: str, rate: Rate) -> Spent: ...

    async def pass_time(self, seconds: float) -> None: ...


class InAWorker:
    def __init__(self) -> None:
        self.clock = SetClock(1_800_000_000.0)
        self.buckets = Buckets(self.clock)

    async def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        return self.buckets.spend(limit, key, rate)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds


class InTheStore:
    def __init__(self, client: Redis) -> None:
        self.client: Any = client
        self.rates = RedisRates(client)

    async def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        return await self.rates.spend(limit, key, rate)

    async def pass_time(self, seconds: float) -> None:
        """Nobody can move a server's clock, so what hangs on it is moved the other way."""
        for name in [name async for name in self.client.scan_iter("*", count=1000)]:
            left = await self.client.pttl(name) - round(seconds * 1000)
            if left <= 0:
                await self.client.delete(name)
                continue
            kept = int(await self.client.get(name)) - round(seconds * 1_000_000)
            await self.client.set(name, kept, px=left)


@pytest.fixture(params=["in_a_worker", "in_the_store", "in_a_cluster"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "in_a_worker":
        return InAWorker()
    name = "state_client" if request.param == "in_the_store" else "cluster_client"
    return InTheStore(request.getfixturevalue(name))


@pytest.fixture
async def two(valkey_url: str, state_client: Redis) -> AsyncIterator[tuple[RedisRates, RedisRates]]:
    """Two nodes, each with a client of its own."""
    other = redis_connection.connect(valkey_url)
    yield RedisRates(state_client), RedisRates(other)
    await other.aclose()


async def test_the_burst_and_no_more(world: World) -> None:
    answers = [await world.spend("a", "x", SLOW) for _ in range(8)]
    assert [one.allowed for one in answers] == [True] * 5 + [False] * 3
    assert [one.remaining for one in answers] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert all(one.wait == 0 for one in answers[:5])
    assert all(3590 < one.wait <= 3600 for one in answers[5:])
    assert len({one.until for one in answers[4:]}) == 1, "a refusal changes nothing"


@pytest.mark.parametrize(
    ("limit", "key"),
    [
        pytest.param("b", "x", id="another_limit"),
        pytest.param("a", "y", id="another_key"),
        pytest.param("a", "", id="none"),
        pytest.param("a", "x\0", id="nul"),
        pytest.param("a", "*", id="a_pattern"),
        pytest.param("ax", "", id="the_border_elsewhere"),
    ],
)
async def test_another_budget(world: World, limit: str, key: str) -> None:
    for _ in range(6):
        await world.spend("a", "x", SLOW)
    assert (await world.spend(limit, key, SLOW)).remaining == 4
    assert not (await world.spend("a", "x", SLOW)).allowed


async def test_it_is_earned_again_one_by_one(world: World) -> None:
    for _ in range(6):
        await world.spend("a", "x", SLOW)
    await world.pass_time(3600)
    assert [(await world.spend("a", "x", SLOW)).allowed for _ in range(3)] == [True, False, False]
    await world.pass_time(2 * 3600)
    assert [(await world.spend("a", "x", SLOW)).allowed for _ in range(3)] == [True, True, False]


async def test_never_more_than_the_burst_however_long(world: World) -> None:
    for _ in range(6):
        await world.spend("a", "x", SLOW)
    await world.pass_time(1_000_000)
    assert [(await world.spend("a", "x", SLOW)).allowed for _ in range(6)] == [True] * 5 + [False]


@pytest.mark.parametrize(
    "rate",
    [
        pytest.param(Rate(7, 3600.0, 300), id="an_interval_without_an_end"),
        pytest.param(Rate(1, 3600.0, 1_000_000), id="a_burst_of_centuries"),
        pytest.param(Rate(1_000_000, 3600.0, 1), id="3600_us"),
    ],
)
async def test_numbers_at_their_ends(world: World, rate: Rate) -> None:
    answers = [await world.spend("a", "x", rate) for _ in range(3)]
    assert answers[0].allowed and answers[0].remaining == rate.burst - 1
    assert answers[2].allowed or rate.burst < 3


async def test_a_burst_that_was_made_smaller_holds_at_once(world: World) -> None:
    for _ in range(100):
        await world.spend("a", "x", Rate(1, 3600.0, 1000))
    refusal = await world.spend("a", "x", SLOW)
    assert not refusal.allowed and refusal.wait <= 3600


async def test_many_at_once_on_two_nodes(two: tuple[RedisRates, RedisRates]) -> None:
    rate = Rate(1, 3600.0, 30)
    answers = await asyncio.gather(*(two[number % 2].spend("a", "x", rate) for number in range(100)))
    assert sum(one.allowed for one in answers) == 30
    assert sorted(one.remaining for one in answers if one.allowed) == list(range(30))


async def test_the_rate_holds_over_time(two: tuple[RedisRates, RedisRates]) -> None:
    """By the server's own clock: never more than the burst and what was earned between two looks at it."""
    rate = Rate(1000, 1.0, 20)

    async def seconds() -> float:
        whole, micro = await two[0]._spend.registered_client.time()
        return float(whole + micro / 1e6)

    begin, allowed = await seconds(), 0
    for _ in range(20):
        answers = await asyncio.gather(*(two[number % 2].spend("a", "x", rate) for number in range(25)))
        allowed += sum(one.allowed for one in answers)
    assert 20 <= allowed <= 20 + (await seconds() - begin) * 1000 + 1


async def test_nothing_readable_is_in_redis_and_it_goes_by_itself(redis: RedisWorld) -> None:
    rates = RedisRates(redis.client)
    for _ in range(3):
        await rates.spend("route of the board", "192.0.2.7", Rate(1, 10.0, 5))
    stored = await redis.snapshot()
    (name,) = stored
    assert name.startswith(b"{ztp}:r:") and b"192" not in name and b"board" not in name
    assert 29_000 < await redis.client.pttl(name) <= 30_001


@pytest.mark.parametrize("ahead", [pytest.param(3600, id="an_hour"), pytest.param(10**9, id="decades")])
async def test_a_clock_that_was_set_back_keeps_nobody_waiting(redis: RedisWorld, ahead: int) -> None:
    """As a failover to a server whose clock is behind does."""
    rates, rate = RedisRates(redis.client), Rate(10, 1.0, 5)
    await rates.spend("a", "x", rate)
    (name,) = await redis.snapshot()
    kept = int(await redis.client.get(name))
    await redis.client.set(name, kept + ahead * 1_000_000, px=ahead * 1000)
    refusal = await rates.spend("a", "x", rate)
    assert not refusal.allowed and 0 < refusal.wait <= 0.1
    assert await redis.client.pttl(name) <= 501


async def test_rubbish_in_its_place_is_the_worlds_fault(redis: RedisWorld) -> None:
    rates = RedisRates(redis.client)
    await rates.spend("a", "x", SLOW)
    (name,) = await redis.snapshot()
    await redis.client.delete(name)
    await redis.client.lpush(name, "x")
    with pytest.raises(WorldError) as failure:
        await rates.spend("a", "x", SLOW)
    assert failure.value.reason is Reason.STATE_UNAVAILABLE


async def test_a_store_that_is_away() -> None:
    client = redis_connection.connect("unix:///nowhere/at-all.sock", timeout=0.2)
    with pytest.raises(WorldError) as failure:
        await RedisRates(client).spend("a", "x", SLOW)
    assert failure.value.reason is Reason.STATE_UNAVAILABLE
    await client.aclose()
