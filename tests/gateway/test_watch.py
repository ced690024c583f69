"""What is under way is watched: held without a lease, ended by a lock, judged again in its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.core.words import NOW, ask, session, site
from tests.worlds.leased import Leased
from tests.worlds.memory_state import SetClock
from ztproxy.core.decision import Decision, Deny, Forward, Login
from ztproxy.core.identity import Session
from ztproxy.core.locks import ALL, Action, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Framing, Request
from ztproxy.gateway.judgement import Judgement
from ztproxy.gateway.watch import ANSWER_WITHIN, AT_ONCE, THAW_EVERY, Watch

GRACE = 10.0
ROUTE = site(name="app")
ALICE = session()
BOB = replace(ALICE, id="s2", identity=replace(ALICE.identity, subject="bob"))


class Exchange:
    """What `wire.Exchange` shows to the watch."""

    def __init__(self, person: Session | None, request: Request | None = None) -> None:
        self.request = request or ask()
        self.grant: Any = Judgement.of(ROUTE, Forward(person, ()), b"", person)
        self.check_at = 60.0
        self.status = 0
        self.under_way = True
        self.thawed = 0
        self.ended: list[Reason] = []

    def thaw(self) -> None:
        self.thawed += 1

    def cut(self, reason: Reason) -> None:
        self.ended.append(reason)
        self.under_way = False


@dataclass
class World:
    lease: Leased
    clock: SetClock
    boottime: SetClock
    live: list[Exchange] = field(default_factory=list)
    decides: Any = None
    judged: list[Request] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def exchange(self, person: Session | None, request: Request | None = None) -> Exchange:
        self.live.append(Exchange(person, request))
        return self.live[-1]

    async def judge(self, request: Request) -> Judgement | None:
        self.judged.append(request)
        decision: Decision | Exception | None = self.decides
        if isinstance(decision, Exception):
            raise decision
        if decision is None:
            return None
        person = decision.session if isinstance(decision, Forward) else None
        return Judgement.of(ROUTE, decision, b"", person)

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    yield World(Leased(), SetClock(NOW), SetClock(100.0))


@pytest.fixture
async def watch(world: World) -> Watch:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: world.failures.append(str(context["message"])))
    return Watch(
        world.lease,
        lambda: [one for one in world.live if one.under_way],
        world.judge,
        loop,
        world.clock,
        world.boottime,
        GRACE,
    )


# -- the gate ---------------------------------------------------------------------------------------------


async def test_the_gate_is_open_while_the_lease_lives(world: World, watch: Watch) -> None:
    world.lease.until = world.boottime.now + 0.8
    assert watch.open()
    world.boottime.now += 0.79
    assert watch.open()
    world.boottime.now += 0.01
    assert not watch.open()  # at its moment, never after


async def test_what_met_a_closed_gate_goes_on_with_the_next_lease(world: World, watch: Watch) -> None:
    world.lease.lapse()
    held, gone = world.exchange(ALICE), world.exchange(ALICE)
    watch.shut(held)
    watch.shut(gone)
    assert watch.frozen == 2
    gone.under_way = False
    await asyncio.sleep(3 * THAW_EVERY)
    assert watch.frozen == 1 and not held.thawed
    world.lease.until = float("inf")
    await asyncio.sleep(3 * THAW_EVERY)
    assert (held.thawed, gone.thawed, watch.frozen) == (1, 0, 0)


async def test_who_was_cut_meanwhile_is_not_thawed(world: World, watch: Watch) -> None:
    world.lease.lapse()
    held = world.exchange(ALICE)
    watch.shut(held)
    watch.applied([world.lease.lock(ALL)])
    world.lease.until = float("inf")
    await asyncio.sleep(3 * THAW_EVERY)
    assert held.ended == [Reason.SESSION_REVOKED] and not held.thawed


@pytest.mark.parametrize(
    ("status", "framing", "told"),
    [
        pytest.param(0, Framing.NONE, True, id="a plain request"),
        pytest.param(0, Framing.LENGTH, False, id="an upload"),
        pytest.param(200, Framing.NONE, False, id="a download"),
        pytest.param(101, Framing.NONE, False, id="a WebSocket"),
    ],
)
async def test_who_can_ask_again_is_told_soon(
    world: World, watch: Watch, status: int, framing: Framing, told: bool
) -> None:
    world.lease.lapse()
    held = world.exchange(ALICE, ask(framing=framing))
    held.status = status
    watch.shut(held)
    await asyncio.sleep(ANSWER_WITHIN + 5 * THAW_EVERY)
    assert held.ended == ([Reason.STATE_UNAVAILABLE] if told else [])
    assert watch.frozen == (0 if told else 1)


# -- locks ------------------------------------------------------------------------------------------------

TARGETS = [
    pytest.param(Target(TargetKind.SESSION, ALICE.id), {}, {"alice"}, id="a session"),
    pytest.param(
        Target(TargetKind.USER, ALICE.identity.subject, ALICE.identity.issuer), {}, {"alice"}, id="a person"
    ),
    pytest.param(
        Target(TargetKind.USER, ALICE.identity.subject, "https://op2.test"), {}, set(), id="a namesake"
    ),
    pytest.param(ALL, {}, {"alice", "bob"}, id="everybody, but strangers have nothing to end"),
    pytest.param(Target(TargetKind.ROUTE, "app"), {}, {"alice", "bob"}, id="a route, for people"),
    pytest.param(
        Target(TargetKind.ROUTE, "app"), {"until": NOW + 60}, {"alice", "bob", "nobody"}, id="a closed route"
    ),
    pytest.param(Target(TargetKind.ROUTE, "other"), {"until": NOW + 60}, set(), id="another route"),
    pytest.param(
        Target(TargetKind.USER, "bob", BOB.identity.issuer),
        {"action": Action.REQUIRE_STEP_UP},
        {"bob"},
        id="a step-up",
    ),
]


@pytest.mark.parametrize(("target", "more", "ended"), TARGETS)
async def test_a_lock_ends_whom_it_concerns(
    world: World, watch: Watch, target: Target, more: dict[str, Any], ended: set[str]
) -> None:
    people = {name: world.exchange(who) for name, who in (("alice", ALICE), ("bob", BOB), ("nobody", None))}
    lock = world.lease.lock(target, **more)
    watch.applied([lock])
    assert {name for name, one in people.items() if one.ended} == ended
    expected = Reason.SESSION_REVOKED if lock.revokes else Reason.LOCKED
    expected = expected if lock.action is Action.DENY else Reason.LOCK_SIGN_IN
    assert {reason for one in people.values() for reason in one.ended} <= {expected}
    assert watch.cuts == len(ended)


async def test_an_old_lock_ends_nobody_anew(world: World, watch: Watch) -> None:
    world.lease.lock(ALL, action=Action.REQUIRE_LOGIN)
    one = world.exchange(ALICE)
    watch.applied([])
    assert not one.ended


# -- judging again ----------------------------------------------------------------------------------------

OUTCOMES = [
    pytest.param(Forward(ALICE, ()), [], id="still allowed"),
    pytest.param(Forward(BOB, ()), [Reason.SESSION_EXPIRED], id="somebody else by now"),
    pytest.param(Forward(None, (Reason.PUBLIC_ROUTE,)), [Reason.SESSION_EXPIRED], id="a stranger by now"),
    pytest.param(Login((Reason.SESSION_EXPIRED,)), [Reason.SESSION_EXPIRED], id="ended by time"),
    pytest.param(Deny((Reason.TIME_MISMATCH,)), [Reason.TIME_MISMATCH], id="closed at this hour"),
    pytest.param(Deny((Reason.STATE_UNAVAILABLE,)), [], id="nobody can say: the gate holds it"),
    pytest.param(None, [Reason.NO_RULE_ALLOWS], id="no such route any more"),
    pytest.param(RuntimeError("broken"), [Reason.NO_RULE_ALLOWS], id="a re-check that fails denies"),
]


@pytest.mark.parametrize(("decides", "ended"), OUTCOMES)
async def test_a_re_check(world: World, watch: Watch, decides: Any, ended: list[Reason]) -> None:
    world.decides = decides
    one = world.exchange(ALICE)
    watch.tick(59.9)
    await world.settled()
    assert not world.judged
    watch.tick(60.0)
    watch.tick(60.0)
    await world.settled()
    assert world.judged == [one.request] and one.ended == ended
    assert bool(world.failures) == isinstance(decides, Exception)
    if decides == Forward(ALICE, ()):
        assert one.check_at == 60.0 + ROUTE.recheck and one.grant.decision == decides


async def test_what_nobody_can_say_ends_it_in_the_end(world: World, watch: Watch) -> None:
    """The lease is live and the gate open: a responder or an issuer of tokens is away."""
    world.decides = Deny((Reason.DEVICE_CERTIFICATE_UNCHECKED,))
    one, other = world.exchange(ALICE), world.exchange(BOB)
    for moment in range(60, 60 + int(GRACE)):
        watch.tick(float(moment))
        await world.settled()
        one.check_at = other.check_at = 0.0
    assert not one.ended
    world.decides = Forward(ALICE, ())
    other.check_at = 1e9
    watch.tick(60.0 + GRACE - 0.5)
    await world.settled()
    world.decides = Deny((Reason.DEVICE_CERTIFICATE_UNCHECKED,))
    one.check_at = other.check_at = 0.0
    watch.tick(60.0 + GRACE)
    await world.settled()
    assert other.ended == [Reason.DEVICE_CERTIFICATE_UNCHECKED] and not one.ended, "what was told counts anew"


async def test_a_lock_on_a_device_has_all_judged_again(world: World, watch: Watch) -> None:
    """A token is bound to a certificate, and names no device that a lock could meet."""
    world.decides = Deny((Reason.DEVICE_LOST,))
    one = world.exchange(ALICE)
    watch.applied([world.lease.lock(Target(TargetKind.USER, "somebody", "https://else.test"))])
    watch.tick(1.0)
    await world.settled()
    assert not world.judged
    watch.applied([world.lease.lock(Target(TargetKind.DEVICE, "laptop-1"))])
    watch.tick(1.5)
    await world.settled()
    assert one.ended == [Reason.DEVICE_LOST]


async def test_an_exchange_that_ends_while_it_is_judged(world: World, watch: Watch) -> None:
    world.decides = Deny((Reason.TIME_MISMATCH,))
    one = world.exchange(ALICE)
    watch.tick(60.0)
    one.under_way = False
    await world.settled()
    assert not one.ended


async def test_after_a_reload_all_are_due_a_few_at_a_time(world: World, watch: Watch) -> None:
    world.decides = Forward(ALICE, ())
    for _ in range(AT_ONCE + 10):
        world.exchange(ALICE)
    watch.check_all()
    watch.tick(1.0)
    await world.settled()
    assert len(world.judged) == AT_ONCE
    watch.tick(1.5)
    await world.settled()
    assert len(world.judged) == AT_ONCE + 10


async def test_a_lease_that_stays_away_ends_people_and_leaves_strangers(world: World, watch: Watch) -> None:
    person, stranger = world.exchange(ALICE), world.exchange(None)
    person.check_at = stranger.check_at = 1e9
    world.lease.lapse()
    watch.tick(100.0)
    watch.tick(100.0 + GRACE - 0.1)
    assert not person.ended
    watch.tick(100.0 + GRACE)
    assert person.ended == [Reason.STATE_UNAVAILABLE] and not stranger.ended


async def test_a_lease_that_came_back_counts_anew(world: World, watch: Watch) -> None:
    person = world.exchange(ALICE)
    person.check_at = 1e9
    world.lease.lapse()
    watch.tick(100.0)
    world.lease.until = float("inf")
    watch.tick(105.0)
    world.lease.lapse()
    watch.tick(106.0)
    watch.tick(106.0 + GRACE - 0.1)
    assert not person.ended
