"""One suite for `FirstHosts` on every backend; then what only Redis has."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest

from tests.adapters.state_worlds import KEY_A, KEY_B, RedisWorld
from tests.worlds.memory_providers import MemoryFirstHosts
from ztproxy.adapters.redis_connection import connect
from ztproxy.adapters.redis_first_hosts import RedisFirstHosts
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.reasons import Reason
from ztproxy.demo.running import free_port
from ztproxy.errors import WorldError
from ztproxy.gateway.ports.providers import FirstHosts

NAME = "sign-in https://op.test"
A, B = frozenset({"op.test", "api.op.test"}), frozenset({"evil.test"})


def sealed(world: RedisWorld, *keys: bytes) -> RedisFirstHosts:
    return RedisFirstHosts(world.client, Sealer(keys or (KEY_A,)))


@pytest.fixture(params=["memory", "redis", "cluster"])
def store(request: pytest.FixtureRequest) -> FirstHosts:
    if request.param == "memory":
        return MemoryFirstHosts()
    name = "state_client" if request.param == "redis" else "cluster_client"
    return sealed(RedisWorld(request.getfixturevalue(name)))


async def test_the_first_stay(store: FirstHosts) -> None:
    assert await store.first(NAME, A) == A
    assert await store.first(NAME, B) == A
    assert await store.first("tokens https://op.test", B) == B
    assert await store.first(NAME, A | B) == A


async def test_of_many_at_once_all_get_the_same(store: FirstHosts) -> None:
    found = await asyncio.gather(*(store.first(NAME, frozenset({f"h{n}.test"})) for n in range(20)))
    assert len(set(found)) == 1


async def test_it_is_sealed_under_one_key_and_stays(redis: RedisWorld) -> None:
    await sealed(redis).first(NAME, A)
    assert "op.test" not in repr(await redis.snapshot())
    (key,) = await redis.snapshot()
    assert key.startswith(b"{ztp}:hosts:")
    assert await redis.client.pttl(key) == -1


async def test_an_older_server_key_opens_it_once_and_it_is_sealed_anew(redis: RedisWorld) -> None:
    await sealed(redis).first(NAME, A)
    assert await sealed(redis, KEY_B, KEY_A).first(NAME, B) == A
    assert await sealed(redis, KEY_B).first(NAME, B) == A


async def test_what_somebody_else_wrote_does_not_count(
    redis: RedisWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await sealed(redis).first(NAME, A)
    (mine,) = await redis.snapshot()
    await sealed(redis).first("another", B)
    (theirs,) = {*await redis.snapshot()} - {mine}
    await redis.client.set(mine, await redis.client.get(theirs))  # moved from its place
    assert await sealed(redis).first(NAME, A) == A
    await redis.client.set(mine, b"evil.test")
    assert await sealed(redis).first(NAME, A) == A
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (
            logging.CRITICAL,
            f"the first hosts of `{NAME}` cannot be believed ({how}); those of now take their place",
        )
        for how in ("tampered", "form")
    ]
    assert await sealed(redis).first(NAME, B) == A


@pytest.fixture(params=["state_client", "cluster_client"])
def served(request: pytest.FixtureRequest) -> RedisWorld:
    return RedisWorld(request.getfixturevalue(request.param))


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(0, id="empty"),
        pytest.param(9, id="cut_short"),
        pytest.param(-1, id="of_a_key_on_the_ring"),
    ],
)
async def test_of_many_at_once_over_a_broken_record_all_get_the_same(served: RedisWorld, kept: int) -> None:
    await sealed(served).first(NAME, A)
    (key,) = await served.snapshot()
    record = await served.client.get(key)
    await served.client.set(key, record[:kept] + (b"" if kept >= 0 else bytes([record[-1] ^ 1])))
    found = await asyncio.gather(*(sealed(served).first(NAME, frozenset({f"h{n}.test"})) for n in range(20)))
    assert len(set(found)) == 1 and found[0] != A
    assert await sealed(served).first(NAME, B) == found[0]


async def test_what_a_newer_worker_wrote_is_neither_guessed_nor_replaced(
    redis: RedisWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await sealed(redis).first(NAME, A)
    assert await sealed(redis, KEY_B, KEY_A).first(NAME, A) == A  # ahead: sealed anew
    before = await redis.snapshot()
    with pytest.raises(
        WorldError, match="a key that is not on the ring; put the key back, or delete"
    ) as refused:
        await sealed(redis).first(NAME, B)
    assert refused.value.reason is Reason.STATE_UNAVAILABLE
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert await redis.snapshot() == before
    (place,) = before
    assert str(refused.value).endswith(f"`{place.decode()}`")
    await redis.client.delete(place)
    assert await sealed(redis).first(NAME, B) == B


class Meddled:
    """A client of a store in which somebody breaks each record before the next look at it."""

    def __init__(self, client: Any) -> None:
        self._client, self.broken = client, 0

    def register_script(self, text: str) -> Any:
        script = self._client.register_script(text)

        async def run(keys: list[bytes], words: list[bytes]) -> Any:
            await self._client.set(keys[0], os.urandom(60))
            self.broken += 1
            return await script(keys, words)

        return run


async def test_a_record_that_is_broken_again_and_again(redis: RedisWorld) -> None:
    client: Any = Meddled(redis.client)
    with pytest.raises(WorldError, match="somebody keeps breaking") as refused:
        await RedisFirstHosts(client, Sealer((KEY_A,))).first(NAME, A)
    assert (refused.value.reason, client.broken) == (Reason.STATE_UNAVAILABLE, 3)


async def test_a_store_that_is_away() -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}", retries=0)
    with pytest.raises(WorldError) as refused:
        await RedisFirstHosts(client, Sealer((KEY_A,))).first(NAME, A)
    assert refused.value.reason is Reason.STATE_UNAVAILABLE
    await client.aclose()
