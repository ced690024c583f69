"""The witness against a store that counts, stalls, fails and forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.core.words import EVERYONE, NOW, ask, session, site
from tests.worlds.leased import Leased
from tests.worlds.memory_devices import MemoryDevices
from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.verifying import Verifying, certificate, showing
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.core.device import Device, Status
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, NoSession, Unavailable
from ztproxy.core.identity import Session, SessionSecrets
from ztproxy.core.locks import ALL, Action, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer, Request
from ztproxy.core.routes import Route, Sensitivity, SessionLimit
from ztproxy.errors import WorldError
from ztproxy.gateway.devices import DeviceWitness
from ztproxy.gateway.known import FRESH, RELIED_ON, Known
from ztproxy.gateway.ports import Loaded, Seen
from ztproxy.gateway.witness import Witness

HOURLY = site(sensitivity=Sensitivity(verified_within=3600))
PAST = RELIED_ON + 0.01
UNKNOWN, EXPIRED = NoSession(Reason.SESSION_UNKNOWN), NoSession(Reason.SESSION_EXPIRED)


class Store(MemoryState):
    """Counts what it is asked; `gate` holds each `load` back until it opens, `takes` seconds pass in each."""

    def __init__(self, clock: SetClock, monotonic: SetClock) -> None:
        super().__init__(clock)
        self.monotonic = monotonic
        self.loads: list[tuple[str, Any]] = []
        self.touches: list[tuple[str, Seen | None]] = []
        self.takes: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, handle: str, bookmark: Any = None) -> Loaded | None:
        self.loads.append((handle, bookmark))
        loaded = await super().load(handle)
        await self.gate.wait()
        self.monotonic.now += self.takes.pop(0) if self.takes else 0.0
        return None if loaded is None else loaded._replace(bookmark=f"bookmark {len(self.loads)}")

    async def touch(self, handle: str, seen: Seen | None = None) -> bool:
        self.touches.append((handle, seen))
        return await super().touch(handle, seen)


@dataclass
class World:
    clock: SetClock
    monotonic: SetClock
    store: Store
    signer: SignedHandles
    witness: Witness
    lease: Leased
    refreshed: list[str] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    refresh: Any = None

    async def signed_in(self, host: str = "app.test", **more: Any) -> Request:
        """A request with the cookie of a new session."""
        one = replace(session(), **more)
        handle = await self.store.create(one, SessionSecrets(), host, None)
        return ask(session=self.signer.seal(handle))

    def handle(self, request: Request) -> str:
        return str(self.signer.open(request.session or ""))

    async def gather(self, request: Request, route: Route | None = HOURLY) -> Any:
        return await self.witness.gather(request, route, self.clock(), NOT_ASKED)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.monotonic.now += seconds


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock, monotonic = SetClock(NOW), SetClock(5.0)  # a machine just started
    store, signer, lease = Store(clock, monotonic), SignedHandles([b"k" * 32]), Leased()

    async def refresh(handle: str, before: Session) -> Session | None:
        built.refreshed.append(handle)
        return await built.refresh(handle, before)  # type: ignore[no-any-return]

    async def uses(session: Session, limit: SessionLimit) -> None:
        if store.away:
            raise WorldError(Reason.STATE_UNAVAILABLE)
        built.used.append((session.id, limit.group))

    witness = Witness(
        store,
        signer,
        refresh,
        lease,
        serves=lambda host, asked: host == asked,
        touch_every=60,
        boottime=monotonic,
        uses=uses,
    )
    built = World(clock, monotonic, store, signer, witness, lease)
    yield built


# -- what costs nothing -----------------------------------------------------------------------------------


async def test_no_cookie_is_nobody_and_asks_nobody(world: World) -> None:
    assert (
        world.witness.at_hand(ask(), NOT_ASKED)
        == await world.gather(ask())
        == NoSession(Reason.LOGIN_REQUIRED)
    )
    assert not world.store.loads


FORGED = {
    "empty": "",
    "unsigned": "A" * 43,
    "another key": SignedHandles([b"x" * 32]).seal("A" * 43),
    "no signature": "v1." + "A" * 43 + ".",
    "another version": "v2." + "A" * 43 + "." + "A" * 43,
    "a key of the store": "*",
    "a line break": "v1.\r\nDEL x",
    "long": "v1." + "A" * 60_000,
    "another script": "v1.\uff21",
}


@pytest.mark.parametrize("value", FORGED.values(), ids=FORGED)
async def test_a_forged_cookie_never_reaches_the_store(world: World, value: str) -> None:
    forged = ask(session=value)
    assert world.witness.at_hand(forged, NOT_ASKED) is None
    assert await world.gather(forged) == UNKNOWN
    assert not world.store.loads and not len(world.witness.known) and not world.witness._reading


async def test_a_bit_flipped_is_forged(world: World) -> None:
    request = await world.signed_in()
    value = str(request.session)
    for place in (3, 20, len(value) - 2):
        flipped = value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :]
        assert await world.gather(ask(session=flipped)) == UNKNOWN
    assert not world.store.loads


# -- reading ----------------------------------------------------------------------------------------------


async def test_a_session_is_read_once_and_relied_on_for_a_moment(world: World) -> None:
    request = await world.signed_in()
    assert world.witness.at_hand(request, NOT_ASKED) is None
    known = await world.gather(request)
    assert isinstance(known, Known) and world.witness.at_hand(request, NOT_ASKED) is known
    world.later(RELIED_ON - 0.01)
    assert await world.gather(request) is known and len(world.store.loads) == 1
    world.later(0.02)
    assert world.witness.at_hand(request, NOT_ASKED) is None
    assert await world.gather(request) is known  # the same facts, with their permits
    assert [bookmark for _, bookmark in world.store.loads] == [None, "bookmark 1"]


@pytest.mark.parametrize("host", ["other.test", "test", "app.test.evil.test", ""])
async def test_a_handle_of_another_host_is_unknown(world: World, host: str) -> None:
    request = (await world.signed_in("app.test"))._replace(host=host)
    assert await world.gather(request) == UNKNOWN
    assert world.witness.at_hand(request, NOT_ASKED) == UNKNOWN  # known now, and still not for this host


async def test_a_session_that_ended_elsewhere_is_unknown_within_the_bound(world: World) -> None:
    request = await world.signed_in()
    await world.gather(request)
    await world.store.end(world.handle(request))
    world.later(PAST)
    assert await world.gather(request) == UNKNOWN and not len(world.witness.known)


async def test_a_changed_session_drops_its_permits(world: World) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    known.permits["a permit"] = known.introductions["an introduction"] = None
    before = known.session
    identity = replace(before.identity, groups=("more",))
    await world.store.update(known.handle, replace(before, identity=identity), SessionSecrets())
    world.later(PAST)
    after = await world.gather(request)
    assert after.session.identity.groups == ("more",) and after.session.revision == before.revision + 1
    assert after is not known and not after.permits and not after.introductions


async def test_many_requests_wait_for_one_read(world: World) -> None:
    request = await world.signed_in()
    world.store.gate.clear()
    waiting = [asyncio.create_task(world.gather(request)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # the one that began it
    waiting[7].cancel()
    await asyncio.sleep(0)
    world.store.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found].count(Known) == 18
    assert len(world.store.loads) == 1 and not world.witness._reading


async def test_a_read_nobody_waits_for_any_more_fails_in_silence(world: World) -> None:
    mistakes: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context))
    request = await world.signed_in()
    world.store.gate.clear()
    waiting = asyncio.create_task(world.gather(request))
    await asyncio.sleep(0)
    waiting.cancel()
    reading = next(iter(world.witness._reading.values()))
    reading.cancel()
    await asyncio.gather(waiting, reading, return_exceptions=True)
    assert not world.witness._reading and not mistakes
    world.store.gate.set()
    assert isinstance(await world.gather(request), Known)


async def test_a_session_in_use_is_read_again_in_the_background(world: World) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    world.later(FRESH + 0.01)
    world.store.gate.clear()
    for _ in range(3):
        assert world.witness.at_hand(request, NOT_ASKED) is known
    await asyncio.sleep(0)
    assert len(world.store.loads) == 2  # once, however many ask meanwhile
    identity = replace(known.session.identity, groups=("more",))
    await world.store.update(known.handle, replace(known.session, identity=identity), SessionSecrets())
    world.store.gate.set()
    reading = next(iter(world.witness._reading.values()))
    await reading
    world.later(FRESH + 0.01)
    world.witness.at_hand(request, NOT_ASKED)
    await next(iter(world.witness._reading.values()))
    after = world.witness.at_hand(request, NOT_ASKED)
    assert isinstance(after, Known) and after.session.identity.groups == ("more",)


# -- the lease, and what the log says ---------------------------------------------------------------------


async def test_without_a_lease_what_is_known_proves_nothing(world: World) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    world.lease.lapse()
    assert world.witness.at_hand(request, NOT_ASKED) is None
    assert await world.gather(request) == Unavailable() and len(world.lease.waited) == 1
    assert world.witness.at_hand(ask(), NOT_ASKED) == NoSession(Reason.LOGIN_REQUIRED)  # strangers need none
    assert await world.gather(ask(session="v1.forged")) == UNKNOWN
    world.lease.comes = True
    assert await world.gather(request) is known and len(world.store.loads) == 1


async def test_a_lease_that_lapses_while_the_store_is_asked(world: World) -> None:
    request = await world.signed_in()
    world.store.gate.clear()
    asked = asyncio.create_task(world.gather(request))
    await asyncio.sleep(0)
    world.lease.lapse()
    world.store.gate.set()
    assert await asked == Unavailable()


async def test_a_read_from_before_the_log_began_anew_is_worthless(world: World) -> None:
    request = await world.signed_in()
    world.store.gate.clear()
    asked = asyncio.create_task(world.gather(request))
    while not world.store.loads:  # noqa: ASYNC110  a poll of one event loop
        await asyncio.sleep(0)
    world.lease.era += 1
    world.store.gate.set()
    assert await asked == Unavailable() and not len(world.witness.known)
    assert isinstance(await world.gather(request), Known)


LOCKS = [
    pytest.param(lambda one: Target(TargetKind.SESSION, one.id), {}, True, id="this session"),
    pytest.param(lambda one: Target(TargetKind.SESSION, one.id[:-1]), {}, False, id="another session"),
    pytest.param(
        lambda one: Target(TargetKind.USER, one.identity.subject, one.identity.issuer),
        {},
        True,
        id="the person",
    ),
    pytest.param(
        lambda one: Target(TargetKind.USER, one.identity.subject, "https://op"), {}, False, id="a namesake"
    ),
    pytest.param(lambda one: ALL, {}, True, id="everybody"),
    pytest.param(lambda one: ALL, {"until": NOW + 60}, False, id="a closed door is for the decision"),
    pytest.param(lambda one: ALL, {"action": Action.REQUIRE_LOGIN}, False, id="so is what a lock asks"),
]


@pytest.mark.parametrize(("target", "more", "ends"), LOCKS)
async def test_a_revocation_ends_what_is_known(world: World, target: Any, more: Any, ends: bool) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    known.permits["a permit"] = None
    world.lease.lock(target(known.session), **more)
    revoked = NoSession(Reason.SESSION_REVOKED)
    assert world.witness.at_hand(request, NOT_ASKED) == (revoked if ends else known)
    assert await world.gather(request, None) == (revoked if ends else known)
    assert not known.permits  # the book has changed, so every permit is given anew


async def test_a_sign_in_after_a_revocation_is_not_met_by_it(world: World) -> None:
    lock = world.lease.lock(ALL)
    before = await world.signed_in(as_of=lock.number - 1)
    after = await world.signed_in(as_of=lock.number)
    assert await world.gather(before) == NoSession(Reason.SESSION_REVOKED)
    assert isinstance(await world.gather(after), Known)


# -- the device a session is bound to (T32) -----------------------------------------------------------------

ALICES, RENEWED, BOBS = (
    certificate("alices", "laptop-1"),
    certificate("next", "laptop-1"),
    certificate("bobs"),
)
BOUND = {"certificate": "alices", "device": "laptop-1"}
ASTRAY = NoSession(Reason.DEVICE_MISMATCH)


@dataclass
class Asked:
    """A world whose clients are asked for certificates."""

    world: World
    verifier: Verifying
    inventory: MemoryDevices
    astray: list[tuple[str, DeviceEvidence]]

    async def gather(self, request: Request) -> Any:
        device = await self.world.witness.device_of(request, NOW)
        return await self.world.witness.gather(request, HOURLY, NOW, device)

    def at_hand(self, request: Request) -> Any:
        device = self.world.witness.device_at_hand(request, NOW)
        assert device is not None
        return self.world.witness.at_hand(request, device)


@pytest.fixture
async def asked() -> Asked:
    clock, monotonic = SetClock(NOW), SetClock(5.0)
    store, signer, lease = Store(clock, monotonic), SignedHandles([b"k" * 32]), Leased()
    verifier, astray = Verifying().knows(ALICES, RENEWED, BOBS), []
    inventory = MemoryDevices(Device("laptop-1", Status.APPROVED))

    async def refresh(handle: str, before: Session) -> Session | None:
        raise AssertionError("nobody is refreshed here")

    async def uses(session: Session, limit: SessionLimit) -> None:
        raise AssertionError("nobody uses a group here")

    witness = Witness(
        store,
        signer,
        refresh,
        lease,
        serves=lambda host, asked: host == asked,
        touch_every=60,
        boottime=monotonic,
        uses=uses,
        devices=DeviceWitness(verifier, inventory, monotonic),
        astray=lambda session, device, request: astray.append((session.id, device)),
    )
    return Asked(World(clock, monotonic, store, signer, witness, lease), verifier, inventory, astray)


@pytest.mark.parametrize(
    ("shown", "counts"),
    [
        pytest.param(showing("alices"), True, id="its-certificate"),
        pytest.param(showing(None, asked=False), True, id="where-nobody-is-asked"),
        pytest.param(showing("bobs"), False, id="X27-bobs-certificate"),
        pytest.param(showing(None), False, id="X27-no-certificate"),
        pytest.param(showing("forged"), False, id="one-that-does-not-hold"),
    ],
)
async def test_a_bound_session_counts_on_its_device_alone(asked: Asked, shown: Peer, counts: bool) -> None:
    request = (await asked.world.signed_in(**BOUND))._replace(peer=shown)
    before = asked.world.store.snapshot()
    found = await asked.gather(request)
    assert isinstance(found, Known) if counts else found == ASTRAY
    again = asked.at_hand(request)
    assert again is found if counts else again == ASTRAY
    visit = await asked.world.witness.of_this_visit(request, NOW)
    assert visit is found if counts else visit == ASTRAY, "our own pages are no way round"
    assert bool(asked.astray) is not counts and asked.world.store.snapshot() == before


async def test_a_session_astray_is_not_even_refreshed_nor_does_it_crowd_others_out(asked: Asked) -> None:
    stale = {"verified_at": NOW - 1e6, "refreshable": True}
    request = (await asked.world.signed_in(**BOUND, **stale))._replace(peer=showing("bobs"))
    device = await asked.world.witness.device_of(request, NOW)
    grouped = site(EVERYONE, sensitivity=Sensitivity(), session_limit=SessionLimit("g", 1))
    assert await asked.world.witness.gather(request, grouped, NOW, device) == ASTRAY


async def test_x28_a_renewed_certificate_of_the_same_device_binds_the_session_anew(asked: Asked) -> None:
    request = (await asked.world.signed_in(**BOUND))._replace(peer=showing("alices"))
    assert isinstance(await asked.gather(request), Known)
    renewed = request._replace(peer=showing("next"))
    await asked.world.witness.device_of(renewed, NOW)
    assert asked.at_hand(renewed) is None, "binding takes a write"
    assert isinstance(await asked.gather(renewed), Known) and not asked.astray
    loaded = await asked.world.store.load(asked.world.handle(request))
    assert loaded is not None
    assert (loaded.session.certificate, loaded.session.device) == ("next", "laptop-1")
    assert (await asked.gather(renewed)).session.certificate == "next"


async def test_a_certificate_whose_device_is_registered_later_names_it_in_the_session(asked: Asked) -> None:
    """Else a lock on the device would pass the session by."""
    request = (await asked.world.signed_in(certificate="bobs"))._replace(peer=showing("bobs"))
    assert isinstance(await asked.gather(request), Known)
    asked.inventory.devices["laptop-2"] = Device(
        "laptop-2", Status.APPROVED, certificates=frozenset({"bobs"}), revision=1
    )
    asked.world.monotonic.now += RELIED_ON
    assert isinstance(await asked.gather(request), Known)
    assert (await asked.gather(request)).session.device == "laptop-2" and not asked.astray
    asked.world.lease.lock(Target(TargetKind.DEVICE, "laptop-2"))
    elsewhere = request._replace(peer=showing(None, asked=False))
    assert await asked.gather(elsewhere) == NoSession(Reason.SESSION_REVOKED)


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        pytest.param(BOUND, Unavailable(Reason.DEVICE_CERTIFICATE_UNCHECKED), id="bound"),
        pytest.param({}, None, id="not-bound"),
    ],
)
async def test_where_nobody_can_say_whose_device_it_is_nobody_is_called_astray(
    asked: Asked, bound: dict[str, Any], found: Unavailable | None
) -> None:
    asked.verifier.refused[b"alices"] = Reason.DEVICE_CERTIFICATE_UNCHECKED
    request = (await asked.world.signed_in(**bound))._replace(peer=showing("alices"))
    told = await asked.gather(request)
    assert isinstance(told, Known) if found is None else told == found
    assert asked.at_hand(request) is (told if found is None else None)
    assert not asked.astray


async def test_who_is_not_bound_may_show_any_certificate_where_nobody_asks_about_it(asked: Asked) -> None:
    request = (await asked.world.signed_in())._replace(peer=showing("bobs"))
    found = await asked.gather(request)
    assert isinstance(found, Known) and found.session.certificate is None


# -- a store that is away, or slow ------------------------------------------------------------------------


async def test_a_store_that_is_away_is_evidence(world: World) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    world.store.away = True
    assert await world.gather(request) is known  # for what is left of the moment
    world.later(PAST)
    assert await world.gather(request) == Unavailable(Reason.STATE_UNAVAILABLE)
    assert world.witness.at_hand(request, NOT_ASKED) is None
    world.store.away = False
    assert await world.gather(request) is known


async def test_a_store_that_is_away_does_not_make_the_forged_unavailable(world: World) -> None:
    world.store.away = True
    assert await world.gather(ask(session="v1.x")) == UNKNOWN


@pytest.mark.parametrize(
    ("takes", "reads", "relied_on"),
    [
        pytest.param([RELIED_ON - 0.01], 1, True, id="in time"),
        pytest.param([PAST], 2, True, id="too late, then in time"),
        pytest.param([6.0, 6.0], 2, False, id="FI05: too late every time"),
    ],
)
async def test_the_moment_runs_from_before_the_question(
    world: World, takes: list[float], reads: int, relied_on: bool
) -> None:
    request = await world.signed_in()
    world.store.takes = takes
    found = await world.gather(request)
    assert isinstance(found, Known) is relied_on and len(world.store.loads) == reads
    if not relied_on:
        assert (
            found == Unavailable(Reason.STATE_UNAVAILABLE)
            and world.witness.at_hand(request, NOT_ASKED) is None
        )


async def test_a_late_comer_does_not_rely_on_a_read_begun_long_ago(world: World) -> None:
    """The end of a session between the beginning of a slow read and a request that joins it."""
    request = await world.signed_in()
    world.store.gate.clear()
    first = asyncio.create_task(world.gather(request))
    await asyncio.sleep(0)
    await world.store.end(world.handle(request))
    world.monotonic.now += PAST
    late = asyncio.create_task(world.gather(request))
    await asyncio.sleep(0)
    world.store.gate.set()
    assert await first == await late == UNKNOWN


# -- groups of routes --------------------------------------------------------------------------------------

PAYROLL = site(name="payroll", session_limit=SessionLimit("money", 1))
BOOKS = site(name="books", session_limit=SessionLimit("money", 1))


async def test_the_first_use_in_a_group_is_told_once(world: World) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    assert not world.used
    for route in (PAYROLL, BOOKS, PAYROLL, HOURLY):
        assert await world.gather(request, route) is known
    assert world.used == [(known.session.id, "money")]


async def test_who_does_not_stand_crowds_nobody_out(world: World) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    elsewhere = request._replace(host="other.test")
    assert await world.gather(elsewhere, PAYROLL) == UNKNOWN
    world.lease.lock(Target(TargetKind.SESSION, known.session.id))
    assert await world.gather(request, PAYROLL) == NoSession(Reason.SESSION_REVOKED)
    assert not world.used


async def test_where_nobody_can_say_who_is_too_many(world: World) -> None:
    request = await world.signed_in()
    known = await world.gather(request)
    world.store.away = True
    assert await world.gather(request, PAYROLL) == Unavailable()
    world.store.away = False
    assert await world.gather(request, PAYROLL) is known and len(world.used) == 1


# -- touching ---------------------------------------------------------------------------------------------


async def test_a_session_in_use_is_touched_now_and_then(world: World) -> None:
    request = await world.signed_in()
    for _ in range(125):
        await world.gather(request)
        world.later(1)
    assert len(world.store.touches) == 3 and len(world.store.loads) == 25
    assert {seen for _, seen in world.store.touches} == {Seen("203.0.113.9", "app.test", "")}


async def test_a_session_that_ends_while_it_is_touched(world: World) -> None:
    request = await world.signed_in()

    async def gone(handle: str, seen: Seen | None = None) -> bool:
        return False

    world.store.touch = gone  # type: ignore[method-assign]
    assert await world.gather(request) == UNKNOWN and not len(world.witness.known)


# -- time, and the provider's word ------------------------------------------------------------------------


@pytest.mark.parametrize("route", [HOURLY, None], ids=["a route", "a page of ours"])
async def test_a_session_past_its_end_is_none(world: World, route: Route | None) -> None:
    request = await world.signed_in(expires_at=NOW + 10, refreshable=True)
    world.later(10)
    assert await world.gather(request, route) == EXPIRED and not world.refreshed


async def test_a_stale_session_that_cannot_be_refreshed(world: World) -> None:
    request = await world.signed_in()
    world.later(3600)
    assert await world.gather(request) == EXPIRED
    assert isinstance(await world.gather(request, None), Known)  # for a page of ours it will do
    assert isinstance(await world.gather(request, site(sensitivity=Sensitivity(verified_within=None))), Known)


async def _vouches(world: World, handle: str, before: Session) -> Session | None:
    loaded = await MemoryState.load(world.store, handle)
    assert loaded is not None
    await world.store.update(handle, replace(loaded.session, verified_at=world.clock()), SessionSecrets())
    return loaded.session


async def test_a_stale_session_is_vouched_for_again(world: World) -> None:
    request = await world.signed_in(refreshable=True)
    world.refresh = lambda handle, before: _vouches(world, handle, before)
    before = await world.gather(request)
    world.later(3600)
    after = await world.gather(request)
    assert world.refreshed == [world.handle(request)]
    assert after.session.verified_at == world.clock() and after is not before
    assert world.witness.at_hand(request, NOT_ASKED) is after


async def test_a_read_that_began_before_the_refresh_is_not_taken_for_its_outcome(world: World) -> None:
    request = await world.signed_in(refreshable=True)
    world.later(3600)
    joined: list[asyncio.Task[Any]] = []

    async def refresh(handle: str, before: Session) -> Session | None:
        world.later(PAST)
        world.store.gate.clear()
        joined.append(asyncio.create_task(world.gather(request, None)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(world.store.loads) == 2  # it has read the stale session; its answer is on the way
        after = await _vouches(world, handle, before)
        asyncio.get_running_loop().call_soon(world.store.gate.set)
        return after

    world.refresh = refresh
    after = await world.gather(request)
    assert isinstance(after, Known) and after.session.verified_at == world.clock()
    await asyncio.gather(*joined)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param(None, EXPIRED, id="the provider says no"),
        pytest.param(
            WorldError(Reason.PROVIDER_UNAVAILABLE), Unavailable(Reason.PROVIDER_UNAVAILABLE), id="away"
        ),
    ],
)
async def test_a_provider_that_does_not_vouch(world: World, end: Any, expected: Any) -> None:
    request = await world.signed_in(refreshable=True)

    async def refresh(handle: str, before: Session) -> Session | None:
        if end is not None:
            raise end
        return None

    world.refresh = refresh
    world.later(3600)
    before = world.store.snapshot()
    assert await world.gather(request) == expected
    assert world.store.snapshot() == before


async def test_a_session_that_ends_during_its_refresh(world: World) -> None:
    request = await world.signed_in(refreshable=True)

    async def refresh(handle: str, before: Session) -> Session | None:
        await world.store.end(handle)
        return before

    world.refresh = refresh
    world.later(3600)
    assert await world.gather(request) == EXPIRED
    assert await world.gather(request) == UNKNOWN
