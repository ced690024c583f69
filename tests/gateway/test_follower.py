"""The log as those see it who only show it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worlds.memory_log import MemoryLog, MemoryStore
from tests.worlds.memory_state import SetClock
from ztproxy.core.locks import ALL, Action, Lift, Lock
from ztproxy.errors import WorldError
from ztproxy.gateway.follower import Follower

NOW = 1_800_000_000.0


class World:
    def __init__(self) -> None:
        self.clock = SetClock(NOW)
        self.store = MemoryStore(self.clock)
        self.log = MemoryLog(self.store)
        self.heard: list[tuple[str, str]] = []
        self.follower = Follower(self.log, self.clock, lambda run, data: self.heard.append((run, data)))

    async def lock(self, name: str, **more: Any) -> None:
        await self.log.commit(Lock(name, ALL, **more))

    async def shown(self) -> list[str]:
        await self.follower.catch_up()
        return [lock.id for lock in self.follower.locks()]


@pytest.fixture
async def world() -> World:
    return World()


async def test_it_shows_what_was_revoked_and_what_is_in_force(world: World) -> None:
    assert await world.shown() == []
    await world.lock("revoked")
    await world.lock("until", until=NOW + 60)
    await world.lock("asks", action=Action.REQUIRE_LOGIN)
    await world.lock("lifted", until=NOW + 60)
    await world.log.commit(Lift("a lift", "lifted"))
    await world.log.commit(Lift("no lift", "revoked"))  # what was revoked stays revoked
    assert await world.shown() == ["revoked", "until", "asks"]
    world.clock.now += 60
    assert await world.shown() == ["revoked", "asks"]


async def test_it_reads_more_than_one_answer_holds(world: World) -> None:
    for number in range(2500):
        await world.lock(f"lock {number}")
    assert await world.follower.catch_up() == 2500 and len(world.follower.locks()) == 2500


async def test_a_store_that_lost_its_data_is_believed(world: World) -> None:
    await world.lock("before")
    assert await world.shown() == ["before"]
    world.store.lose()
    assert await world.shown() == []
    await world.lock("after")
    assert await world.shown() == ["after"]
    assert len(set(world.heard)) == 2 and world.heard[-1] == (world.store.run, world.store.data.id)


async def test_a_store_that_is_away(world: World) -> None:
    await world.lock("known")
    await world.follower.catch_up()
    world.log.away = True
    with pytest.raises(WorldError):
        await world.follower.catch_up()
    assert [lock.id for lock in world.follower.locks()] == ["known"]
