"""A decision given again is the decision that would be made: over random worlds, and case by case."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC
from datetime import time as clock_time
from ipaddress import ip_network
from typing import Any

import pytest

from tests.core.words import ADMINS, EVERYONE, NOW, ask, path, policy, session, site
from tests.worlds.leased import Leased
from tests.worlds.memory_devices import MemoryDevices
from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.verifying import Verifying, certificate, showing
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.core.conditions import (
    AllOf,
    AnyOf,
    Anyone,
    Authenticated,
    Condition,
    FromNetwork,
    InGroup,
    MethodIs,
    Not,
    PathUnder,
    RankAtLeast,
    Within,
)
from ztproxy.core.decision import Deny, Forward, Login, StepUp, decide
from ztproxy.core.device import Device, Fact, Status
from ztproxy.core.device_conditions import DeviceApproved, Equals, PostureIs
from ztproxy.core.evidence import NOT_ASKED, Evidence, NoSession
from ztproxy.core.identity import JSON, Session, SessionSecrets, Step
from ztproxy.core.locks import ALL, Action, Target, TargetKind
from ztproxy.core.policy import Policy
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity, Peer, Request
from ztproxy.core.routes import Forwarding, IdentityHeaders, Route, Sensitivity, SessionLimit
from ztproxy.core.upstream import Endpoint, Upstream
from ztproxy.gateway.devices import DeviceWitness
from ztproxy.gateway.judge import ASSERTION_REUSE, MOST_KEPT, Judge
from ztproxy.gateway.known import RELIED_ON, Known
from ztproxy.gateway.services import ServiceWitness
from ztproxy.gateway.witness import Witness

SIGNED_IN = policy(Authenticated())
PAST = RELIED_ON + 0.01


class Assertions:
    def __init__(self) -> None:
        self.signed: list[Mapping[str, JSON]] = []

    def sign(self, claims: Mapping[str, JSON]) -> str:
        self.signed.append(claims)
        return f"assertion-{len(self.signed)}"

    def jwks(self) -> dict[str, Any]:
        return {"keys": []}


@dataclass
class World:
    clock: SetClock
    monotonic: SetClock
    store: MemoryState
    signer: SignedHandles
    witness: Witness
    judge: Judge
    assertions: Assertions
    lease: Leased
    numbers: list[int] = field(default_factory=list)

    async def signed_in(self, who: Session | None = None, **more: Any) -> Request:
        handle = await self.store.create(who or session(), SessionSecrets(), "app.test", None)
        request = ask(session=self.signer.seal(handle), **more)
        assert isinstance(await self.witness.gather(request, None, self.clock(), NOT_ASKED), Known)
        return request

    def known(self, request: Request) -> Known:
        known = self.witness.known.last(str(request.session))
        assert known is not None
        return known

    async def warm(self, request: Request) -> None:
        await self.witness.gather(request, None, self.clock(), NOT_ASKED)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.monotonic.now += seconds


@pytest.fixture
async def world() -> AsyncIterator[World]:
    yield build(hosts=("app.test",))


def build(hosts: tuple[str, ...]) -> World:
    clock, monotonic = SetClock(NOW), SetClock(1000.0)
    store, signer, assertions = MemoryState(clock), SignedHandles([b"k" * 32]), Assertions()
    lease = Leased()

    async def refresh(handle: str, before: Session) -> Session | None:
        loaded = await store.load(handle)
        assert loaded is not None
        await store.update(handle, replace(loaded.session, verified_at=clock()), SessionSecrets())
        return loaded.session

    async def uses(session: Session, limit: SessionLimit) -> None:
        pass

    witness = Witness(
        store,
        signer,
        refresh,
        lease,
        serves=lambda host, asked: host == asked or asked.endswith(".wild.test"),
        touch_every=60,
        boottime=monotonic,
        uses=uses,
    )
    services = ServiceWitness({}, lease, clock, monotonic, refused=lambda why: None)
    judge = Judge(witness, services, lease.book, assertions, clock, lambda: "t")
    return World(clock, monotonic, store, signer, witness, judge, assertions, lease)


# -- at once, or after asking -----------------------------------------------------------------------------


async def test_whoever_shows_nothing_is_judged_at_once(world: World) -> None:
    judgement = world.judge.at_once(ask(), site(SIGNED_IN))
    assert judgement is not None and judgement.decision == Login((Reason.LOGIN_REQUIRED,))
    open_ = world.judge.at_once(ask(), site(EVERYONE))
    assert open_ is not None and open_.decision == Forward(None, (Reason.RULE_ALLOWED,))
    assert open_.identity == b"" and open_.session is None and not world.assertions.signed


async def test_whoever_is_not_known_yet_is_asked_about(world: World) -> None:
    request = await world.signed_in()
    world.later(PAST)
    assert world.judge.at_once(request, site(SIGNED_IN)) is None
    judgement = await world.judge.judge(request, site(SIGNED_IN))
    assert isinstance(judgement.decision, Forward) and judgement.session is not None
    assert judgement.identity == b"X-Ztproxy-Assertion: assertion-1\r\n"


async def test_a_first_use_in_a_group_of_routes_is_asked_about(world: World) -> None:
    request, route = await world.signed_in(), site(SIGNED_IN, session_limit=SessionLimit("money", 1))
    assert world.judge.at_once(request, route) is None
    assert isinstance((await world.judge.judge(request, route)).decision, Forward)
    judgement = world.judge.at_once(request, route)
    assert judgement is not None and isinstance(judgement.decision, Forward)


async def test_a_lock_is_in_every_judgement_at_once(world: World) -> None:
    request, route = await world.signed_in(), site(SIGNED_IN)
    assert world.judge.at_once(request, route) is not None and permits(world, request) == 1
    lock = world.lease.lock(Target(TargetKind.ROUTE, route.name), until=NOW + 60, message="closed")
    judgement = world.judge.at_once(request, route)
    assert judgement is not None and judgement.decision == Deny((Reason.LOCKED,), "closed")
    world.lease.lift(lock)
    judgement = world.judge.at_once(request, route)
    assert judgement is not None and isinstance(judgement.decision, Forward)
    world.lease.lapse()
    assert world.judge.at_once(request, route) is None


async def test_a_denial_names_the_person_and_tells_the_app_nothing(world: World) -> None:
    judgement = world.judge.at_once(await world.signed_in(), site(ADMINS))
    assert judgement is not None and judgement.decision == Deny((Reason.GROUP_MISSING,))
    assert judgement.session is not None and judgement.identity == b"" and not world.assertions.signed


async def test_a_store_that_is_away_denies_and_never_asks_for_a_sign_in(world: World) -> None:
    request = await world.signed_in()
    route = site(SIGNED_IN)
    assert world.judge.at_once(request, route) is not None
    world.later(PAST)
    world.store.away = True
    assert world.judge.at_once(request, route) is None
    judgement = await world.judge.judge(request, route)
    assert judgement.decision == Deny((Reason.STATE_UNAVAILABLE,)) and judgement.session is None
    open_ = await world.judge.judge(request, site(EVERYONE))
    assert open_.decision == Forward(None, (Reason.RULE_ALLOWED,)) and open_.identity == b""


async def test_a_step_up(world: World) -> None:
    judgement = world.judge.at_once(await world.signed_in(), site(policy(RankAtLeast(2))))
    assert judgement is not None and isinstance(judgement.decision, StepUp) and judgement.identity == b""


# -- a permit ---------------------------------------------------------------------------------------------


def permits(world: World, request: Request) -> int:
    return len(world.known(request).permits)


async def test_a_permit_is_the_same_decision_with_the_same_assertion(world: World) -> None:
    request, route = await world.signed_in(), site(SIGNED_IN)
    first = world.judge.at_once(request, route)
    assert first == world.judge.at_once(request, route) and len(world.assertions.signed) == 1
    assert permits(world, request) == 1
    for _ in range(70):
        world.later(1)
        await world.warm(request)
        assert world.judge.at_once(request, route) is not None
    assert len(world.assertions.signed) == 2
    assert all(claims["exp"] - claims["iat"] > ASSERTION_REUSE for claims in world.assertions.signed)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rules", "more"),
    [
        pytest.param(policy(PathUnder(())), {}, id="reads the path"),
        pytest.param(
            policy(Within(UTC, after=clock_time(0), before=clock_time(23))), {}, id="reads the time"
        ),
        pytest.param(
            policy(AllOf([Authenticated(), FromNetwork((ip_network("0.0.0.0/0"),))])),
            {},
            id="reads the network",
        ),
        pytest.param(
            policy(Authenticated(), FromNetwork((ip_network("192.0.2.0/24"),))),
            {},
            id="a deny reads the network",
        ),
        pytest.param(SIGNED_IN, {"method": "OPTIONS"}, id="a method a preflight has"),
        pytest.param(SIGNED_IN, {"upgrade": "websocket", "origin": "https://app.test"}, id="an upgrade"),
        pytest.param(
            SIGNED_IN,
            {"path": path("/a%2Fb", "/a/b", because=Ambiguity.ENCODED_SLASH)},
            id="a path with two readings",
        ),
    ],
)
async def test_no_permit_is_kept_for(world: World, rules: Policy, more: dict[str, Any]) -> None:
    request = await world.signed_in(**more)
    action = Forwarding(Upstream((Endpoint("127.0.0.1", 1),)), upgrades=frozenset({"websocket"}))
    route = site(rules, action, cors_preflight=True, tolerates=frozenset(Ambiguity))
    judgement = world.judge.at_once(request, route)
    assert judgement is not None
    assert permits(world, request) == 0


@pytest.mark.parametrize(
    ("more", "decision"),
    [
        pytest.param({"method": "PURGE"}, Deny((Reason.HTTP_METHOD,)), id="a method not accepted"),
        pytest.param({"upgrade": "websocket"}, Deny((Reason.UPGRADE_NOT_ALLOWED,)), id="an upgrade"),
        pytest.param({"session": None}, Login((Reason.LOGIN_REQUIRED,)), id="without the cookie"),
        pytest.param({"host": "other.test"}, Login((Reason.SESSION_UNKNOWN,)), id="at another host"),
    ],
)
async def test_a_permit_is_of_no_use_for(world: World, more: dict[str, Any], decision: Any) -> None:
    request, route = await world.signed_in(), site(SIGNED_IN)
    world.judge.at_once(request, route)
    assert permits(world, request) == 1
    judgement = world.judge.at_once(request._replace(**more), route)
    assert judgement is not None and judgement.decision == decision


async def test_a_permit_is_of_no_use_for_another_route_with_the_same_words(world: World) -> None:
    request = await world.signed_in()
    world.judge.at_once(request, site(SIGNED_IN))
    after_a_reload = world.judge.at_once(request, site(ADMINS))
    assert after_a_reload is not None and isinstance(after_a_reload.decision, Deny)


async def test_a_changed_session_has_no_permits(world: World) -> None:
    request, route = await world.signed_in(session("admin")), site(ADMINS)
    assert world.judge.at_once(request, route) is not None
    before = world.known(request).session
    identity = replace(before.identity, groups=())
    await world.store.update(
        world.known(request).handle, replace(before, identity=identity), SessionSecrets()
    )
    world.later(PAST)
    assert (await world.judge.judge(request, route)).decision == Deny((Reason.GROUP_MISSING,))
    judgement = world.judge.at_once(request, route)
    assert judgement is not None and judgement.decision == Deny((Reason.GROUP_MISSING,))


@pytest.mark.parametrize(
    ("sensitivity", "who"),
    [
        (Sensitivity(verified_within=10), {}),
        (Sensitivity(verified_within=None, signed_in_within=10), {}),
        (Sensitivity(), {"expires_at": NOW + 10}),
    ],
    ids=["vouched for", "signed in", "ends"],
)
async def test_a_permit_ends_with_what_it_rests_on(
    world: World, sensitivity: Sensitivity, who: dict[str, Any]
) -> None:
    request = await world.signed_in(replace(session(), **who))
    route = site(SIGNED_IN, sensitivity=sensitivity)
    assert world.judge.at_once(request, route) is not None
    world.clock.now += 10  # the worker has read it this very moment; only the wall clock went on
    assert world.judge.at_once(request, route) is None
    assert not isinstance((await world.judge.judge(request, route)).decision, Forward)


APPROVED = AllOf([Authenticated(), DeviceApproved()])


async def on_a_device(world: World, *facts: tuple[str, Fact]) -> tuple[Request, MemoryDevices]:
    """A session bound to the device that its request comes from."""
    inventory = MemoryDevices(Device("laptop-1", Status.APPROVED, posture=dict(facts)))
    verifier = Verifying().knows(certificate("alices", "laptop-1"), certificate("bobs", "laptop-2"))
    world.witness._devices = DeviceWitness(verifier, inventory, world.monotonic)
    request = await world.signed_in(replace(session(), certificate="alices", device="laptop-1"))
    request = request._replace(peer=showing("alices"))
    await world.witness.device_of(request, NOW)
    return request, inventory


async def test_a_permit_is_of_one_device_and_ends_when_that_changes(world: World) -> None:
    request, inventory = await on_a_device(world)
    route = site(policy(APPROVED))
    first = world.judge.at_once(request, route)
    assert first is not None and isinstance(first.decision, Forward)
    assert world.judge.at_once(request, route) is first and permits(world, request) == 1

    # The very same session, at the same moment, from another device.
    judged = await world.judge.judge(request._replace(peer=showing("bobs")), route)
    assert isinstance(judged.decision, Deny | Login)

    inventory.devices["laptop-1"] = Device("laptop-1", Status.PENDING)
    world.later(PAST)
    assert world.judge.at_once(request, route) is None
    assert (await world.judge.judge(request, route)).decision == Deny((Reason.DEVICE_NOT_APPROVED,))


async def test_a_permit_ends_at_the_second_a_fact_becomes_stale(world: World) -> None:
    request, _ = await on_a_device(world, ("disk_encrypted", Fact(True, "mdm", NOW - 50)))
    route = site(policy(AllOf([Authenticated(), PostureIs("disk_encrypted", Equals(True), 60.0)])))
    found = world.judge.at_once(request, route)
    assert found is not None and isinstance(found.decision, Forward) and permits(world, request) == 1
    world.clock.now += 9.999
    assert world.judge.at_once(request, route) is found
    world.clock.now += 0.001
    stale = world.judge.at_once(request, route)
    assert stale is not None and stale.decision == Deny((Reason.POSTURE_STALE,))


async def test_what_was_proved_and_is_forgotten_is_told_to_no_app(world: World) -> None:
    steps = (Step(3, NOW + 30), Step(2, NOW + 28800))
    request, route = await world.signed_in(session(rank=3, steps=steps, acr="phr")), site(SIGNED_IN)
    world.judge.at_once(request, route)
    world.clock.now += 30
    judged = world.judge.at_once(request, route)
    assert judged is not None and judged.decision.session is not None
    assert judged.decision.session.rank == 2
    assert ["acr" in claims for claims in world.assertions.signed] == [True, False]
    assert world.judge.at_once(request, route) is judged, "and it is quick again"


async def test_a_lock_asks_again_for_a_rank_that_is_forgotten(world: World) -> None:
    who = session(rank=2, steps=(Step(2, NOW + 30),), as_of=1)
    request, route = await world.signed_in(who), site(SIGNED_IN)
    world.lease.lock(ALL, action=Action.REQUIRE_STEP_UP, until=NOW + 3600)
    judged = world.judge.at_once(request, route)
    assert judged is not None and isinstance(judged.decision, Forward), "it was proved after the lock"
    world.clock.now += 30
    judged = world.judge.at_once(request, route)
    assert judged is not None and isinstance(judged.decision, StepUp) and judged.decision.rank == 2


async def test_s20_a_clock_set_back_does_not_prolong_a_permit(world: World) -> None:
    request, route = await world.signed_in(), site(SIGNED_IN)
    world.judge.at_once(request, route)
    world.clock.now -= 3600
    world.judge.at_once(request, route)
    assert [claims["iat"] for claims in world.assertions.signed] == [int(NOW), int(NOW) - 3600]


async def test_one_session_keeps_no_end_of_permits() -> None:
    world = build(("app.test",))
    request, route = await world.signed_in(), site(SIGNED_IN, host="*.wild.test")
    for number in range(MOST_KEPT + 10):
        judgement = world.judge.at_once(request._replace(host=f"h{number}.wild.test"), route)
        assert judgement is not None and isinstance(judgement.decision, Forward)
    known = world.known(request)
    assert len(known.permits) <= MOST_KEPT and len(known.introductions) <= MOST_KEPT
    assert {claims["iss"] for claims in world.assertions.signed} == {
        f"https://h{number}.wild.test" for number in range(MOST_KEPT + 10)
    }


async def test_who_needs_no_assertion_gets_none(world: World) -> None:
    request = await world.signed_in()
    judgement = world.judge.at_once(request, site(SIGNED_IN, identity=IdentityHeaders("a", assertion=False)))
    assert judgement is not None and judgement.identity == b"" and not world.assertions.signed


# -- over random worlds -----------------------------------------------------------------------------------


def _condition(rng: random.Random, depth: int = 2) -> Condition:
    if depth and rng.random() < 0.5:
        parts = [_condition(rng, depth - 1) for _ in range(rng.randint(1, 2))]
        return AllOf(parts) if rng.random() < 0.5 else AnyOf(parts)
    leaves: list[Condition] = [
        Anyone(),
        Authenticated(),
        InGroup(frozenset({rng.choice("ab")})),
        RankAtLeast(rng.randint(1, 3)),
        MethodIs(frozenset({rng.choice(["GET", "POST"])})),
        PathUnder((rng.choice("ab"),)),
        Within(UTC, after=clock_time(rng.randint(0, 11)), before=clock_time(rng.randint(12, 23))),
        FromNetwork((ip_network(rng.choice(["192.0.2.0/24", "203.0.113.0/24"])),)),
        Not(InGroup(frozenset({rng.choice("ab")}))),
    ]
    return rng.choice(leaves)


def _policy(rng: random.Random) -> Policy:
    while True:
        try:
            return policy(_condition(rng), _condition(rng) if rng.random() < 0.3 else None)
        except ValueError:  # it forbids what it asks for
            continue


def _route(rng: random.Random) -> Route:
    sockets = Forwarding(Upstream((Endpoint("127.0.0.1", 1),)), upgrades=frozenset({"websocket"}))
    return site(
        _policy(rng),
        sockets,
        sensitivity=Sensitivity(
            verified_within=rng.choice([None, 20.0, 200.0]),
            signed_in_within=rng.choice([None, 50.0]),
            rank=rng.choice([0, 0, 2]),
        ),
        cors_preflight=rng.random() < 0.5,
        methods=frozenset(rng.sample(["GET", "POST", "OPTIONS"], rng.randint(1, 3))),
    )


def _asks(rng: random.Random, cookie: str | None) -> Request:
    upgrade = "websocket" if rng.random() < 0.1 else None
    fields = ((b"Access-Control-Request-Method", b"GET"),) if rng.random() < 0.3 else ()
    two = path("/a%2Fb", "/a/b", because=Ambiguity.ENCODED_SLASH)
    return ask(
        rng.choice([path("/a"), path("/b"), path("/a/b"), two]),
        method=rng.choice(["GET", "GET", "POST", "OPTIONS"]),
        session=None if rng.random() < 0.1 else cookie,
        origin=rng.choice([None, "https://app.test", "https://evil.test"]),
        upgrade=upgrade,
        fields=fields,
        peer=Peer(rng.choice(["192.0.2.1", "203.0.113.9"]), True),
    )


@pytest.mark.parametrize("seed", range(40))
async def test_what_is_given_at_once_is_what_would_be_decided(seed: int) -> None:
    """Many requests of one session on a few routes, time going on (and back), the session changing."""
    rng = random.Random(seed)
    world = build(("app.test",))
    groups = tuple(rng.sample("ab", rng.randint(0, 2)))
    request = await world.signed_in(session(*groups, rank=rng.randint(1, 3), expires_at=NOW + 300))
    routes = [_route(rng) for _ in range(4)]
    given_again = 0
    for _ in range(250):
        route, asked = rng.choice(routes), _asks(rng, request.session)
        before = dict(world.known(request).permits.items())
        judgement = world.judge.at_once(asked, route)
        if judgement is None:
            judgement = await world.judge.judge(asked, route)
        loaded = await world.store.load(str(world.signer.open(str(request.session))))
        assert loaded is not None
        session_now: Session | NoSession = loaded.session if asked.session else NoSession()
        expected = decide(route, asked, Evidence(session_now, world.clock()))
        assert type(judgement.decision) is type(expected), (asked, route.policy.rules)
        if isinstance(expected, Forward | Deny):
            assert judgement.decision == expected
        if isinstance(expected, Forward) and expected.session is not None:
            assert judgement.identity.startswith(b"X-Ztproxy-Assertion: ")
            given_again += before.get((route, asked.host, asked.method)) is not None
        else:
            assert judgement.identity == b""
        await _time_goes_on(world, rng, request)
    world.numbers.append(given_again)
    if seed == 0:
        assert given_again  # else this would prove nothing


async def _time_goes_on(world: World, rng: random.Random, request: Request) -> None:
    chance = rng.random()
    if chance < 0.3:
        world.later(rng.choice([0.1, 0.5, PAST, 5.0]))
    elif chance < 0.35:
        world.clock.now -= rng.choice([1.0, 30.0])
    elif chance < 0.45:
        known = world.known(request)
        loaded = await world.store.load(known.handle)
        assert loaded is not None
        changed = replace(
            loaded.session,
            identity=replace(loaded.session.identity, groups=tuple(rng.sample("ab", rng.randint(0, 2)))),
            rank=rng.randint(1, 3),
            verified_at=world.clock(),
        )
        await world.store.update(known.handle, changed, SessionSecrets())
        world.later(PAST)  # what changed elsewhere is seen here within the bound
