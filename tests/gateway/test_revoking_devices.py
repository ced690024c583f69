"""Revoking a device ends each of its sessions, also for those who knew them before they were bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.words import NOW, session
from tests.worlds.leased import Leased
from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.revoking import Revoking
from ztproxy.core.identity import Session, SessionSecrets
from ztproxy.core.locks import Action, Lift, Lock, Target, TargetKind
from ztproxy.errors import WorldError
from ztproxy.gateway.revoking_devices import RevokingDevices

LOST = Lock("l1", Target(TargetKind.DEVICE, "laptop-1"), created_by="carol", reason="a taxi")


class World:
    def __init__(self) -> None:
        self.clock = SetClock(NOW)
        self.state, self.revoking = MemoryState(self.clock), Revoking(Leased(), self.clock)
        self.revoke = RevokingDevices(self.revoking, self.state)

    async def bound(self, device: str | None) -> Session:
        handle = await self.state.create(
            replace(session(), device=device), SessionSecrets(), "app.test", None
        )
        loaded = await self.state.load(handle)
        assert loaded is not None
        return loaded.session

    def met(self, one: Session) -> bool:
        return bool(self.revoking.lease.book.meeting(one, "app", NOW))


async def test_a_session_that_was_known_before_it_was_bound_is_ended_too() -> None:
    world = World()
    ours, again, others = await world.bound("laptop-1"), await world.bound("laptop-1"), await world.bound("x")
    revoked = await world.revoke(LOST)
    as_known_before = [replace(one, device=None) for one in (ours, again)]
    assert all(map(world.met, (ours, again, *as_known_before))) and not world.met(others)
    assert (revoked.number, revoked.confirmed, len(world.revoking.locks)) == (1, True, 3)
    assert {(lock.created_by, lock.reason) for lock in world.revoking.locks} == {("carol", "a taxi")}
    await world.revoke(LOST)
    assert len(world.revoking.locks) == 3, "saying it twice is saying it once"


async def test_nothing_is_confirmed_before_all_of_it_is() -> None:
    world = World()
    await world.bound("laptop-1")
    world.revoking.confirms = False
    assert not (await world.revoke(LOST)).confirmed
    world.revoking.away = True
    with pytest.raises(WorldError):
        await world.revoke(replace(LOST, id="l2"))


async def test_where_the_store_goes_away_halfway_the_lock_on_the_device_is_told_as_in_force() -> None:
    world = World()
    await world.bound("laptop-1")

    async def away() -> None:
        world.revoking.away = len(world.revoking.asked) > 1

    world.revoking.before = away
    revoked = await world.revoke(LOST)
    assert (revoked.number, revoked.confirmed, len(world.revoking.locks)) == (1, False, 1)
    world.revoking.before, world.revoking.away = None, False
    assert (await world.revoke(LOST)).confirmed and len(world.revoking.locks) == 2, "and it can be said again"


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(Lock("l1", Target(TargetKind.USER, "alice", "https://idp.test")), id="a-person"),
        pytest.param(replace(LOST, until=NOW + 60), id="a-door-closed-for-a-while"),
        pytest.param(replace(LOST, action=Action.REQUIRE_LOGIN), id="what-asks-for-a-sign-in"),
        pytest.param(Lift("l2", "l1"), id="a-lift"),
    ],
)
async def test_everything_else_goes_through_as_it_is(entry: Lock | Lift) -> None:
    world = World()
    await world.bound("laptop-1")
    await world.revoke(entry)
    assert world.revoking.asked == [entry]
