"""One suite for `OneTimeStore` and `Locks` on every backend; then what only Redis has."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.adapters.state_worlds import KEY_A, KEY_B, RedisWorld, World


async def test_a_value_is_taken_once(world: World) -> None:
    await world.one_time.put("tx", "key-1", b"value", 60.0)
    assert await world.one_time.take("tx", "key-1") == b"value"
    assert await world.one_time.take("tx", "key-1") is None


async def test_of_many_takers_one_has_it(world: World) -> None:
    await world.one_time.put("tx", "key-1", b"value", 60.0)
    taken = await asyncio.gather(*(world.one_time.take("tx", "key-1") for _ in range(20)))
    assert taken.count(b"value") == 1
    assert taken.count(None) == 19


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        pytest.param("ticket", "key-1", id="another-kind"),
        pytest.param("tx", "key-2", id="another-key"),
        pytest.param("tx", "", id="empty"),
        pytest.param("tx", "*", id="pattern"),
        pytest.param("tx", "key-1\0", id="nul"),
    ],
)
async def test_another_key_takes_nothing(world: World, kind: str, key: str) -> None:
    await world.one_time.put("tx", "key-1", b"value", 60.0)
    assert await world.one_time.take(kind, key) is None
    assert await world.one_time.take("tx", "key-1") == b"value"


async def test_a_value_ends_with_its_time(world: World) -> None:
    await world.one_time.put("tx", "key-1", b"value", 60.0)
    await world.pass_time(61)
    assert await world.one_time.take("tx", "key-1") is None


async def test_a_claim_is_won_once(world: World) -> None:
    won = await asyncio.gather(*(world.one_time.claim("jti", "key-1", 60.0) for _ in range(20)))
    assert won.count(True) == 1
    assert await world.one_time.claim("jti", "key-1", 60.0) is False
    assert await world.one_time.claim("jti", "key-2", 60.0) is True
    assert await world.one_time.claim("other", "key-1", 60.0) is True


async def test_a_claim_and_a_value_of_one_name_do_not_meet(world: World) -> None:
    await world.one_time.put("tx", "key-1", b"value", 60.0)
    assert await world.one_time.claim("tx", "key-1", 60.0) is True
    assert await world.one_time.take("tx", "key-1") == b"value"
    assert await world.one_time.claim("tx", "key-1", 60.0) is False


async def test_a_claim_ends_with_its_time(world: World) -> None:
    await world.one_time.claim("jti", "key-1", 60.0)
    await world.pass_time(59)
    assert await world.one_time.claim("jti", "key-1", 60.0) is False
    await world.pass_time(2)
    assert await world.one_time.claim("jti", "key-1", 60.0) is True


async def test_a_lock_is_held_by_one(world: World) -> None:
    tokens = await asyncio.gather(*(world.locks.acquire("refresh:1", 30.0) for _ in range(20)))
    held = [token for token in tokens if token is not None]
    assert len(held) == 1
    assert await world.locks.acquire("refresh:2", 30.0) is not None
    await world.locks.release("refresh:1", held[0])
    assert await world.locks.acquire("refresh:1", 30.0) is not None


async def test_only_its_token_releases_a_lock(world: World) -> None:
    token = await world.locks.acquire("refresh:1", 30.0)
    for wrong in ("", "1", "other", token + "x"):
        await world.locks.release("refresh:1", wrong)
        assert await world.locks.acquire("refresh:1", 30.0) is None


async def test_a_late_holder_releases_nothing(world: World) -> None:
    late = await world.locks.acquire("refresh:1", 30.0)
    await world.pass_time(31)
    assert await world.locks.acquire("refresh:1", 30.0) is not None
    await world.locks.release("refresh:1", late)
    assert await world.locks.acquire("refresh:1", 30.0) is None


async def test_nothing_readable_is_in_redis(redis: RedisWorld) -> None:
    await redis.one_time.put("tx", "key-1", b"verifier", 60.0)
    dump = repr(await redis.snapshot())
    assert "key-1" not in dump
    assert "verifier" not in dump
    (key,) = await redis.snapshot()
    assert key.startswith(b"{ztp}:o:tx:")
    assert 0 < await redis.client.pttl(key) <= 60_000


async def test_a_meddled_value_is_not_there(redis: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    await redis.one_time.put("tx", "mine", b"mine", 60.0)
    await redis.one_time.put("tx", "yours", b"yours", 60.0)
    one, two = await redis.snapshot()
    swapped = await redis.client.get(one), await redis.client.get(two)
    await redis.client.mset({two: swapped[0], one: swapped[1]})
    assert await redis.one_time.take("tx", "mine") is None
    assert await redis.one_time.take("tx", "yours") is None
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2
    assert "mine" not in caplog.text


async def test_an_old_server_key_opens_while_it_is_listed(redis: RedisWorld) -> None:
    for key in ("one", "two"):
        await RedisWorld(redis.client, KEY_A).one_time.put("tx", key, b"value", 60.0)
    assert await RedisWorld(redis.client, KEY_B, KEY_A).one_time.take("tx", "one") == b"value"
    assert await RedisWorld(redis.client, KEY_B).one_time.take("tx", "two") is None


async def test_the_tokens_of_locks_grow(redis: RedisWorld) -> None:
    numbers = []
    for _ in range(3):
        token = await redis.locks.acquire("refresh:1", 30.0)
        assert token is not None
        numbers.append(int(token.partition(".")[0]))
        await redis.pass_time(31)
    assert numbers == sorted(set(numbers))


async def test_a_lock_sent_twice_is_the_same_lock(redis: RedisWorld) -> None:
    # a connection that died after the script ran: the client sends it again
    script: Any = redis.locks._acquire
    keys, arguments = ["{ztp}:l:x", "{ztp}:l"], ["random-part", 30_000]
    assert await script(keys, arguments) == await script(keys, arguments)
    assert await script(keys, ["other-part", 30_000]) is None


async def test_a_claim_sent_twice_is_the_same_claim(redis: RedisWorld) -> None:
    script: Any = redis.one_time._claim
    assert await script(["{ztp}:c:x"], ["random-part", 30_000]) == 1
    assert await script(["{ztp}:c:x"], ["random-part", 30_000]) == 1
    assert await script(["{ztp}:c:x"], ["other-part", 30_000]) == 0


async def test_nothing_readable_of_a_claim_is_in_redis_and_it_ends(redis: RedisWorld) -> None:
    await redis.one_time.claim("jti", "token-id", 60.0)
    assert "token-id" not in repr(await redis.snapshot())
    (key,) = await redis.client.keys("*")
    assert 0 < await redis.client.pttl(key) <= 60_000


async def test_a_lock_ends_by_itself(redis: RedisWorld) -> None:
    await redis.locks.acquire("refresh:1", 30.0)
    (key,) = await redis.client.keys("{ztp}:l:*")
    assert 0 < await redis.client.pttl(key) <= 30_000
