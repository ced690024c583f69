"""At most so many sessions of one person (S27)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.signing_in import Browser, Stage, stage
from ztproxy.core.identity import Session
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import SessionLimit
from ztproxy.errors import WorldError
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.per_person import SessionsPerPerson


def devices(on: Stage, number: int, subject: str = "alice") -> list[Browser]:
    return [Browser(on, subject) for _ in range(number)]


async def standing(on: Stage, browsers: list[Browser]) -> list[bool]:
    sessions = [await browser.session() for browser in browsers]
    return [session is not None and on.stands(session) for session in sessions]


@pytest.mark.parametrize(
    ("most", "number", "expected"),
    [
        pytest.param(3, 3, [True] * 3, id="as many as may be"),
        pytest.param(3, 4, [False, True, True, True], id="S27 the fourth ends the first"),
        pytest.param(1, 3, [False, False, True], id="one at a time"),
        pytest.param(None, 5, [True] * 5, id="no limit"),
    ],
)
async def test_one_more_ends_the_oldest(most: int | None, number: int, expected: list[bool]) -> None:
    async with stage(most=most) as on:
        await on.bob.is_signed_in()
        alices = devices(on, number)
        for browser in alices:
            on.clock.now += 1
            await browser.is_signed_in()
        assert await standing(on, alices) == expected
        assert await standing(on, [on.bob]) == [True]
        assert [lock.target.kind for lock in on.revoking.locks] == [TargetKind.SESSION] * expected.count(
            False
        )
        assert {lock.reason for lock in on.revoking.locks} <= {"session limit"} and not on.failures


async def test_a_limit_that_was_lowered_ends_all_that_are_too_many() -> None:
    async with stage() as on:
        alices = devices(on, 5)
        for browser in alices:
            on.clock.now += 1
            await browser.is_signed_in()
        on.sign_in = on.another_worker(most=2)
        newest = Browser(on, "alice")
        await newest.is_signed_in()
        assert await standing(on, [*alices, newest]) == [False] * 4 + [True] * 2


async def test_what_was_revoked_already_does_not_count() -> None:
    async with stage(most=2) as on:
        alices = devices(on, 3)
        for browser in alices[:2]:
            on.clock.now += 1
            await browser.is_signed_in()
        session = await alices[1].session()
        assert session is not None
        on.lease.lock(Target(TargetKind.SESSION, session.id))
        await alices[2].is_signed_in()
        assert await standing(on, alices) == [True, False, True]


async def test_a_step_up_and_a_sign_in_in_its_place_are_no_further_session() -> None:
    async with stage(most=1) as on:
        await on.alice.is_signed_in()
        session = await on.alice.session()
        started = await on.alice.begins(existing=session, rank=3)
        await on.alice.comes_back(on.alice.signs_in(started, acr="phr"))
        await on.alice.is_signed_in()
        assert await standing(on, [on.alice]) == [True] and not on.revoking.asked


@pytest.mark.parametrize("how", ["the log is away", "not confirmed"])
async def test_whatever_goes_wrong_the_sign_in_stands(how: str) -> None:
    async with stage(most=1) as on:
        first, second = devices(on, 2)
        await first.is_signed_in()
        on.revoking.away, on.revoking.confirms = how == "the log is away", how != "not confirmed"
        await second.is_signed_in()
        assert await standing(on, [second]) == [True]
        assert len(on.failures) == 1 and "oldest session" in on.failures[0]


class Blind(MemoryState):
    """A store whose directory is away."""

    async def of(self, target: Target) -> Any:
        raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")


async def test_where_nobody_can_count_them_nothing_ends() -> None:
    async with stage(most=1, directory=Blind(SetClock(0.0))) as on:
        await on.alice.is_signed_in()
        assert await standing(on, [on.alice]) == [True]
        assert not on.revoking.asked and "away" in on.failures[0]


@pytest.mark.parametrize("most", [1, 2])
async def test_two_at_once_do_not_end_each_other(most: int) -> None:
    async with stage(most=most) as on:
        alices = devices(on, 4)
        for browser in alices[:2]:
            await browser.is_signed_in()
        await asyncio.gather(*(browser.is_signed_in() for browser in alices[2:]))
        stands = await standing(on, alices)
        assert stands.count(True) == most and not any(stands[:2])
        ids = [lock.id for lock in on.revoking.locks]
        assert len(ids) == len(set(ids))


# -- in a group of routes ---------------------------------------------------------------------------------


async def test_one_at_a_time_on_some_routes() -> None:
    async with stage() as on:
        laptop, phone = devices(on, 2)
        await laptop.is_signed_in()
        await phone.is_signed_in()
        limit, per_person = SessionLimit("money", 1), unlimited(on)
        await per_person.uses(await session_of(laptop), limit)
        assert await standing(on, [laptop, phone]) == [True, True]
        await per_person.uses(await session_of(phone), limit)
        assert await standing(on, [laptop, phone]) == [False, True]
        assert [lock.reason for lock in on.revoking.locks] == ["session limit"]


async def test_a_store_that_cannot_say_who_is_too_many() -> None:
    async with stage() as on:
        (alice,) = devices(on, 1)
        await alice.is_signed_in()
        session = await session_of(alice)
        on.state.away = True
        with pytest.raises(WorldError):
            await unlimited(on).uses(session, SessionLimit("money", 1))
        assert not on.revoking.locks


def unlimited(on: Stage) -> SessionsPerPerson:
    return SessionsPerPerson(None, on.state, on.revoking, Heard(on.lease), on.failures.append)


async def session_of(browser: Browser) -> Session:
    session = await browser.session()
    assert session is not None
    return session
