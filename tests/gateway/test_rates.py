"""Counting in a worker, and the limits of a configuration: what each is asked, in which order, and what a
refusal leaves behind."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from tests.core.words import site
from tests.worlds.memory_state import SetClock
from ztproxy.core.rates import By, Rate, RateLimit, Spent
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import Route
from ztproxy.errors import WorldError
from ztproxy.gateway.rates import STORE_AWAY, Buckets, Limiter, Refusal, Sender, Sparing

TWO = Rate(1, 1.0, 2)
ME, YOU, US = "192.0.2.1", "192.0.2.2", "2001:db8::1"


# -- counting --


def test_each_key_of_each_limit_has_a_burst_of_its_own() -> None:
    buckets = Buckets(SetClock(5.0))
    for limit, key in (("a", "x"), ("a", "y"), ("b", "x")):
        assert [buckets.spend(limit, key, TWO).allowed for _ in range(3)] == [True, True, False]


def test_what_was_not_used_is_given_back() -> None:
    buckets = Buckets(SetClock(5.0))
    buckets.give_back("a", "nobody", TWO)
    assert len(buckets) == 0
    for _ in range(5):
        assert buckets.spend("a", "x", TWO).allowed
        buckets.give_back("a", "x", TWO)


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    clock = SetClock(5.0)
    buckets = Buckets(clock, most=100)
    for number in range(1000):
        for key in ("often", f"once-{number}"):
            buckets.spend("a", key, TWO)
        assert len(buckets) <= 100
    assert not buckets.spend("a", "often", TWO).allowed, "whoever keeps asking is not forgotten"
    assert not buckets.spend("a", "often", TWO).allowed


def test_what_is_earned_again_is_forgotten_first() -> None:
    clock = SetClock(5.0)
    buckets = Buckets(clock, most=3)
    buckets.spend("a", "early", TWO)
    clock.now += 100
    for key in ("x", "x", "y", "z"):
        buckets.spend("a", key, TWO)
    assert len(buckets) == 3 and not buckets.spend("a", "x", TWO).allowed


def test_a_floods_memory_goes_with_the_ordinary_traffic_after_it() -> None:
    clock = SetClock(5.0)
    buckets = Buckets(clock, most=5000)
    for number in range(5000):
        buckets.spend("a", f"flood-{number}", TWO)
    assert len(buckets) == 5000
    for number in range(5200):
        clock.now += 10
        buckets.spend("a", f"visitor-{number}", TWO)
    assert len(buckets) < 10


def test_forgetting_never_takes_from_anybody_who_asks_all_the_time() -> None:
    """Against one that forgets nothing, at random."""
    dice, clock = random.Random(7), SetClock(5.0)
    small, whole = Buckets(clock, most=40), Buckets(clock, most=10**6)
    for _ in range(4000):
        clock.now += dice.random() / 10
        key = f"k{dice.randrange(30)}"
        assert small.spend("a", key, TWO) == whole.spend("a", key, TWO)


def test_a_flood_from_everywhere_makes_nobody_known_forgotten() -> None:
    buckets = Buckets(SetClock(5.0), most=100)
    for _ in range(2):
        buckets.spend("a", "alice", TWO)
    buckets.hold("!a", "bob", 9.0)
    for number in range(1000):
        buckets.spend("a", Sender(f"flood-{number}"), TWO)
        buckets.hold("!a", Sender(f"flood-{number}"), 9.0)
    assert not buckets.spend("a", "alice", TWO).allowed and buckets.held("!a", "bob") == 9.0
    assert len(buckets) <= 102
    last = Sender("flood-999")
    buckets.give_back("a", last, TWO)
    assert [buckets.spend("a", last, TWO).allowed for _ in range(3)] == [True, True, False]


def test_looking_spends_nothing() -> None:
    buckets = Buckets(SetClock(5.0))
    for left in (2, 1, 0):
        assert [buckets.wait("a", "x", TWO) for _ in range(3)] == [0.0 if left else 1.0] * 3
        buckets.spend("a", "x", TWO)


# -- the limits of a configuration --


class Store:
    """Fulfils `RateStore`, over buckets; `asked` is every question."""

    def __init__(self, clock: SetClock) -> None:
        self.buckets = Buckets(clock)
        self.asked: list[tuple[str, str]] = []
        self.away = False

    async def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        self.asked.append((limit, key))
        await asyncio.sleep(0)
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE)
        return self.buckets.spend(limit, key, rate)


class World:
    def __init__(self) -> None:
        self.clock = SetClock(5.0)
        self.store, self.buckets = Store(self.clock), Buckets(self.clock)

    def limiter(self, per_address: Rate | None = None, per_session: Rate | None = None) -> Limiter:
        return Limiter(self.buckets, self.store, per_address, per_session)


@pytest.fixture
def world() -> World:
    return World()


def limited(*rates: RateLimit, name: str = "app") -> Route:
    return replace(site(), name=name, rates=rates)


async def let_through(limiter: Limiter, route: Route, address: str, session: str | None) -> Refusal | None:
    """As the surface asks for a request that is forwarded."""
    refusal = limiter.before(route, address) or limiter.at_once(route, address, session)
    if refusal is None and limiter.exact_on(route):
        refusal = await limiter.exact(route, address, session)
    return refusal


async def test_without_limits_nothing_is_counted(world: World) -> None:
    limiter, route = world.limiter(), limited()
    assert limiter.arriving(ME) is None and not limiter.exact_on(route)
    assert await let_through(limiter, route, ME, "s1") is None
    assert len(world.buckets) == 0 and not world.store.asked


def test_what_a_sender_asks_for(world: World) -> None:
    limiter = world.limiter(per_address=TWO)
    answers = [limiter.arriving(f"2001:db8::{number}") for number in range(3)]
    assert answers == [None, None, Refusal(By.ADDRESS, TWO, 1.0)]
    assert limiter.arriving(ME) is None
    # The next configuration goes on with what was counted.
    assert world.limiter(per_address=TWO).arriving(US) is not None
    world.clock.now += 1
    assert limiter.arriving(US) is None


async def test_what_is_forwarded_for_a_session(world: World) -> None:
    limiter, route = world.limiter(per_session=TWO), limited()
    for address in (ME, YOU):
        assert await let_through(limiter, route, address, "s1") is None
    assert await let_through(limiter, route, US, "s1") == Refusal(By.SESSION, TWO, 1.0)
    for _ in range(9):
        assert await let_through(limiter, route, US, None) is None, "there is no session to count"


@pytest.mark.parametrize("exact", [False, True], ids=["in_process", "exact"])
@pytest.mark.parametrize(
    ("by", "same", "other"),
    [
        pytest.param(By.ADDRESS, [(ME, "s1"), (ME, None), (ME, "s2")], (YOU, "s1"), id="address"),
        pytest.param(By.SESSION, [(ME, "s1"), (YOU, "s1"), (US, "s1")], (ME, "s2"), id="session"),
        pytest.param(By.SESSION, [(ME, None)] * 3, (ME, "s1"), id="whoever_has_no_session"),
        pytest.param(By.SESSION, [(US, None), ("2001:db8::2", None), (US, None)], (ME, None), id="a_64"),
    ],
)
async def test_who_is_counted_together(
    world: World, by: By, same: list[tuple[str, str | None]], other: tuple[str, str | None], exact: bool
) -> None:
    limiter, route = world.limiter(), limited(RateLimit(by, TWO, exact))
    answers = [await let_through(limiter, route, *one) for one in same]
    assert answers == [None, None, Refusal(by, TWO, 1.0)]
    assert await let_through(limiter, route, *other) is None
    assert await let_through(limiter, limited(RateLimit(by, TWO, exact), name="b"), *same[0]) is None


@pytest.mark.parametrize("exact", [False, True], ids=["in_process", "exact"])
async def test_a_route_altogether(world: World, exact: bool) -> None:
    limiter, route = world.limiter(), limited(RateLimit(By.ROUTE, TWO, exact))
    answers = [await let_through(limiter, route, *one) for one in ((ME, "s1"), (YOU, "s2"), (US, None))]
    assert answers == [None, None, Refusal(By.ROUTE, TWO, 1.0)]


def test_strangers_use_up_their_address_alone(world: World) -> None:
    """`before` is for everybody; what is by session and by route is asked of what is forwarded."""
    limits = [RateLimit(by, TWO) for by in By]
    limiter, route = world.limiter(), limited(*limits)
    assert [limiter.before(route, ME) for _ in range(3)] == [None, None, Refusal(By.ADDRESS, TWO, 1.0)]
    assert limiter.before(route, YOU) is None and limiter.at_once(route, YOU, "s1") is None


@pytest.mark.parametrize(
    ("of_a_person", "of_the_route"),
    [
        pytest.param(False, False, id="both_in_process"),
        pytest.param(True, True, id="both_exact"),
        pytest.param(True, False, id="the_narrow_one_exact"),
        pytest.param(False, True, id="the_wide_one_exact"),
    ],
)
@pytest.mark.parametrize("turned", [False, True], ids=["as_written", "the_other_way_round"])
async def test_one_person_cannot_use_up_the_route(
    world: World, of_a_person: bool, of_the_route: bool, turned: bool
) -> None:
    limits = [
        RateLimit(By.SESSION, TWO, of_a_person),
        RateLimit(By.ROUTE, Rate(1, 1.0, 3), of_the_route),
    ]
    limiter, route = world.limiter(), limited(*(limits[::-1] if turned else limits))
    answers = [await let_through(limiter, route, ME, "s1") for _ in range(50)]
    assert answers[:2] == [None, None] and {one.by for one in answers[2:] if one} == {By.SESSION}
    assert await let_through(limiter, route, YOU, "s2") is None, "one of three is left"
    assert await let_through(limiter, route, YOU, "s2") == Refusal(By.ROUTE, Rate(1, 1.0, 3), 1.0)


async def test_what_the_route_refuses_costs_nobody_anything(world: World) -> None:
    narrow, wide = Rate(1, 100.0, 2), Rate(1, 1.0, 1)
    limiter = world.limiter(per_session=narrow)
    route = limited(RateLimit(By.SESSION, narrow), RateLimit(By.ROUTE, wide))
    assert limiter.at_once(route, ME, "s1") is None
    for _ in range(50):
        assert limiter.at_once(route, ME, "s1") == Refusal(By.ROUTE, wide, 1.0)
    world.clock.now += 1
    assert limiter.at_once(route, ME, "s1") is None


def left(buckets: Buckets, limit: str, key: str, rate: Rate) -> int:
    """How many more are allowed now."""
    return next(number for number in range(99) if not buckets.spend(limit, key, rate).allowed)


FOUR, NARROW = Rate(1, 100.0, 4), Rate(1, 100.0, 10)


@pytest.mark.parametrize(
    ("exact", "trips"),
    [
        pytest.param((By.SESSION, By.ROUTE), 4, id="both"),
        pytest.param((By.SESSION,), 1, id="the_narrow_one"),
        pytest.param((By.ROUTE,), 2, id="the_wide_one"),
    ],
)
@pytest.mark.parametrize("away", [False, True], ids=["", "store_away"])
async def test_what_an_exact_limit_refuses_costs_nobody_anything(
    world: World, exact: tuple[By, ...], trips: int, away: bool
) -> None:
    """But for the exact ones before it, of which one is spent in finding out."""
    world.store.away = away
    limiter, once = world.limiter(per_session=NARROW), Rate(1, 10.0, 1)
    route = limited(
        RateLimit(By.SESSION, FOUR, By.SESSION in exact), RateLimit(By.ROUTE, once, By.ROUTE in exact)
    )
    assert await let_through(limiter, route, ME, "s1") is None
    for _ in range(50):
        assert await let_through(limiter, route, ME, "s1") == Refusal(By.ROUTE, once, 10.0)
    assert len(world.store.asked) == (1 if away else trips)
    counted = world.store.buckets if By.SESSION in exact and not away else world.buckets
    spent = 2 if len(exact) == 2 and not away else 1
    assert left(counted, "session 1:app", "s1", FOUR) == FOUR.burst - spent
    assert left(world.buckets, "session", "s1", NARROW) == NARROW.burst - 1


async def test_what_the_store_refuses_after_one_of_this_worker(world: World) -> None:
    """A limit of this worker between two of the store: in the order of who is counted."""
    limiter, once = world.limiter(), Rate(1, 10.0, 1)
    route = limited(
        RateLimit(By.ADDRESS, FOUR, True), RateLimit(By.SESSION, FOUR), RateLimit(By.ROUTE, once, True)
    )
    assert await let_through(limiter, route, ME, "s1") is None
    assert await let_through(limiter, route, ME, "s1") == Refusal(By.ROUTE, once, 10.0)
    assert left(world.buckets, "session 1:app", "s1", FOUR) == FOUR.burst - 1


class Busy(Store):
    """Answers about one session after the other."""

    async def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        for _ in range(5 * int(key[1:] or 0)):
            await asyncio.sleep(0)
        return await super().spend(limit, key, rate)


async def test_what_was_learnt_while_asking_about_another_is_not_asked_again(world: World) -> None:
    world.store = Busy(world.clock)
    limiter = world.limiter()
    route = limited(RateLimit(By.SESSION, FOUR, True), RateLimit(By.ROUTE, Rate(1, 10.0, 1), True))
    answers = await asyncio.gather(*(limiter.exact(route, ME, f"s{number}") for number in range(20)))
    assert answers.count(None) == 1 and len(world.store.asked) == 20 + 2


@pytest.mark.parametrize("by", By)
@pytest.mark.parametrize("exact", [False, True], ids=["in_process", "exact"])
async def test_writing_a_limit_before_another_is_no_new_burst(world: World, by: By, exact: bool) -> None:
    limit = RateLimit(by, TWO, exact)
    for _ in range(2):
        assert await let_through(world.limiter(), limited(limit), ME, "s1") is None
    others = [RateLimit(other, Rate(1000, 1.0, 1000)) for other in By if other is not by]
    for rates in ([*others, limit], [others[0], limit, others[1]]):
        assert await let_through(world.limiter(), limited(*rates), ME, "s1") == Refusal(by, TWO, 1.0)


async def test_strangers_from_everywhere_give_nobody_a_new_burst(world: World) -> None:
    """By the thousands, at a route that is open to them, too."""
    world.buckets = Buckets(world.clock, most=50)
    limiter = world.limiter(per_address=TWO, per_session=TWO)
    own, public = limited(RateLimit(By.ROUTE, TWO)), limited(RateLimit(By.SESSION, TWO), name="public")
    for _ in range(2):
        assert await let_through(limiter, own, ME, "s1") is None
    for number in range(500):
        stranger = f"2001:db8:{number:x}::1"
        assert limiter.arriving(stranger) is None
        assert await let_through(limiter, public, stranger, None) is None
    assert await let_through(limiter, public, ME, "s1") == Refusal(By.SESSION, TWO, 1.0)
    assert await let_through(limiter, own, YOU, "s2") == Refusal(By.ROUTE, TWO, 1.0)


async def test_a_flood_asks_the_store_once_for_each_wait(world: World) -> None:
    limiter, route = world.limiter(), limited(RateLimit(By.SESSION, TWO, exact=True))
    for _ in range(500):
        await let_through(limiter, route, ME, "s1")
    assert len(world.store.asked) == 3
    world.clock.now += 1
    assert await let_through(limiter, route, ME, "s1") is None
    assert await let_through(limiter, route, ME, "s1") == Refusal(By.SESSION, TWO, 1.0)
    assert len(world.store.asked) == 5


async def test_while_the_store_is_away_each_worker_counts_for_itself(world: World) -> None:
    limiter, route = world.limiter(), limited(RateLimit(By.SESSION, TWO, exact=True))
    world.store.away = True
    answers = [await let_through(limiter, route, ME, "s1") for _ in range(50)]
    assert answers == [None, None] + [Refusal(By.SESSION, TWO, 1.0)] * 48
    assert len(world.store.asked) == 1, "nobody queues up before it"
    world.store.away = False
    world.clock.now += STORE_AWAY
    assert await let_through(limiter, route, ME, "s1") is None
    assert len(world.store.asked) == 2


# -- lines of a log --


def test_a_flood_of_things_to_say() -> None:
    clock, said = SetClock(5.0), list[str]()
    say = Sparing(said.append, Rate(1, 1.0, 2), clock)
    for number in range(10):
        say(f"n{number}")
    clock.now += 1
    say("later")
    clock.now += 10
    say("much later")
    assert said == ["n0", "n1", "later (and 8 more before it)", "much later"]
