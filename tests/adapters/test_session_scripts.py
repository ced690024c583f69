"""The scripts by themselves: sent twice (a connection died after the first) or out of turn, without harm."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from tests.adapters.state_worlds import ALICE, BOB, SECRETS, RedisWorld
from ztproxy.adapters.session_scripts import SCRIPTS

DIGEST, USER, HANDLE = "d" * 64, "ztp:u:x", "ztp:h:x"


@pytest.fixture
async def redis(state_client: Redis) -> RedisWorld:
    return RedisWorld(state_client)


async def run(redis: RedisWorld, name: str, *arguments: Any) -> Any:
    return await redis.client.eval(SCRIPTS[name], 0, "ztp:", *arguments)


async def create(redis: RedisWorld, absolute: int = 60_000, idle: int = 30_000) -> None:
    await run(redis, "create", DIGEST, "", USER, "ztp:i:x", HANDLE, "sealed", absolute, idle, "s", "k", "f")


async def test_create_twice_is_create_once(redis: RedisWorld) -> None:
    await create(redis)
    once = await redis.snapshot()
    await create(redis)
    twice = await redis.snapshot()
    record = f"ztp:s:{{{DIGEST}}}".encode()
    ends = [int(state[record].pop(b"a")) for state in (once, twice)]  # type: ignore[attr-defined]
    assert once == twice
    assert ends[0] <= ends[1]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("attach", (HANDLE, "ztp:h:y", "sealed"), id="attach"),
        pytest.param("replace", (HANDLE, "0", "ztp:h:y", "sealed", 9_000, "S", "K", "F"), id="replace"),
        pytest.param("update", (HANDLE, "0", "S", "K", "F"), id="update"),
        pytest.param("touch", (HANDLE, 9_000), id="touch"),
        pytest.param("end", (), id="end"),
    ],
)
async def test_nothing_comes_from_nothing(redis: RedisWorld, name: str, arguments: tuple[Any, ...]) -> None:
    assert await run(redis, name, DIGEST, *arguments) == 0
    assert await redis.snapshot() == {}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("attach", ("ztp:h:y", "sealed"), id="attach"),
        pytest.param("replace", ("0", "ztp:h:y", "sealed", 9_000, "S", "K", "F"), id="replace"),
        pytest.param("update", ("0", "S", "K", "F"), id="update"),
        pytest.param("touch", (9_000,), id="touch"),
    ],
)
async def test_a_dead_handle_writes_nothing(redis: RedisWorld, name: str, arguments: tuple[Any, ...]) -> None:
    await create(redis)
    before = await redis.snapshot()
    assert await run(redis, name, DIGEST, "ztp:h:dead", *arguments) == 0
    assert await redis.snapshot() == before


async def test_a_record_past_its_end_is_gone_even_if_its_key_still_is_there(redis: RedisWorld) -> None:
    await create(redis)
    await redis.client.hset(f"ztp:s:{{{DIGEST}}}", "a", 1)
    for name, arguments in (("touch", (9_000,)), ("update", ("0", "S", "K", "F"))):
        assert await run(redis, name, DIGEST, HANDLE, *arguments) == 0


async def test_the_idle_time_never_reaches_past_the_absolute_end(redis: RedisWorld) -> None:
    await create(redis, absolute=20_000, idle=30_000)
    record = f"ztp:s:{{{DIGEST}}}"
    assert 0 < await redis.client.pttl(record) <= 20_000
    assert await run(redis, "touch", DIGEST, HANDLE, 90_000) == 1
    assert 0 < await redis.client.pttl(record) <= 20_000


async def test_dead_members_leave_an_index_when_it_is_touched(redis: RedisWorld) -> None:
    await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    (index,) = await redis.client.keys("ztp:u:*")
    (provider,) = await redis.client.keys("ztp:i:*")
    await redis.client.sadd(index, "0" * 64)
    await redis.client.sadd(provider, "0" * 64)
    await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    assert await redis.client.scard(index) == 2
    assert await redis.client.scard(provider) == 2
    assert b"0" * 64 not in await redis.client.smembers(index) | await redis.client.smembers(provider)


async def test_ending_a_session_takes_it_out_of_its_indexes_only(redis: RedisWorld) -> None:
    first = await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    await redis.sessions.create(ALICE, SECRETS, "app.test", None)
    await redis.sessions.create(BOB, SECRETS, "app.test", None)
    await redis.sessions.end(first)
    counts = sorted([await redis.client.scard(key) for key in await redis.client.keys("ztp:u:*")])
    assert counts == [1, 1]
