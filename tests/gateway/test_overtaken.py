"""A revocation against a sign-in, a step-up and a refresh, at every step of theirs (V08 to V11, L22).

A revocation is two moments: it gets its place in the log, and this worker hears of it. `Moments` counts what
a flow asks of the store and the provider, and lets each of the two happen before and after any of it.
Whatever the order, no session that the revocation names is in force once it was heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.worlds.leased import Leased
from tests.worlds.lying_provider import Says
from tests.worlds.signing_in import Browser, Stage, stage
from ztproxy.core.identity import Session
from ztproxy.core.locks import ALL, Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.sign_in import Finished, Refused, Started

NEVER = 10_000


class Moments:
    """Wraps the ports. `commit_at` and `hear_at` are moments: 0 is before the flow begins."""

    def __init__(self, on: Stage, target: Target | None, commit_at: int, hear_at: int) -> None:
        self.on, self.target = on, target
        self.commit_at, self.hear_at = commit_at, hear_at
        self.now = 0
        self.names: list[str] = []
        self.committed: Lock | None = None
        self.heard = False
        self.look()

    def look(self) -> None:
        if self.target is not None and self.now >= self.commit_at and self.committed is None:
            number = self.on.lease.book.applied + 1
            self.committed = Lock(f"lock-{number}", self.target, number=number, made_at=self.on.clock())
        if self.committed is not None and self.now >= self.hear_at and not self.heard:
            self.heard = True
            self.on.lease.book.apply([self.committed])

    def wrap(self, port: Any) -> Any:
        return Stepping(self, port)

    def finish(self) -> None:
        self.now = NEVER
        self.look()


class Stepping:
    def __init__(self, moments: Moments, port: Any) -> None:
        self._moments, self._port = moments, port

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._port, name)
        if not callable(asked):
            return asked

        async def step(*given: Any, **named: Any) -> Any:
            self._pass(f"before {name}")
            answer = await asked(*given, **named)
            self._pass(f"after {name}")
            return answer

        return step

    def _pass(self, name: str) -> None:
        self._moments.now += 1
        self._moments.names.append(name)
        self._moments.look()


Flow = Callable[[Stage, Browser], Awaitable[object]]


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage() as built:
        yield built


async def signs_in(on: Stage, browser: Browser) -> object:
    started = await browser.begins()
    return await browser.comes_back(browser.signs_in(started, sid=f"sid-{browser.subject}", groups=["dev"]))


async def steps_up(on: Stage, browser: Browser) -> object:
    session = await browser.session()
    assert session is not None
    started = await browser.begins(existing=session, rank=3)
    claims = {"sid": f"sid-{browser.subject}", "groups": ["dev"], "acr": "phr"}
    return await browser.comes_back(browser.signs_in(started, **claims))


async def refreshes(on: Stage, browser: Browser) -> object:
    session = await browser.session()
    assert session is not None and browser.handle is not None
    on.worlds["op"].person = {"sub": browser.subject, "groups": ["dev"]}
    return await on.sign_in.refresh(browser.handle, session)


async def refreshes_without_the_group(on: Stage, browser: Browser) -> object:
    session = await browser.session()
    assert session is not None and browser.handle is not None
    on.worlds["op"].person = {"sub": browser.subject, "groups": []}
    return await on.sign_in.refresh(browser.handle, session)


def targets(on: Stage, browser: Browser, session: Session | None) -> dict[str, Target]:
    issuer = on.worlds["op"].issuer
    named = {
        "user": Target(TargetKind.USER, browser.subject, issuer),
        "sid": Target(TargetKind.IDP_SESSION, f"sid-{browser.subject}", issuer),
        "group": Target(TargetKind.GROUP, "dev"),
        "all": ALL,
    }
    return named if session is None else {**named, "session": Target(TargetKind.SESSION, session.id)}


async def run(
    on: Stage, flow: Flow, number: int, kind: str | None, commit_at: int, hear_at: int, signed_in: bool
) -> tuple[Moments, object, list[Session]]:
    """One person's flow; what came of it, and which of their sessions are in force afterwards."""
    browser = Browser(on, f"person-{number}")
    on.sign_in = on.another_worker()
    session = None
    if signed_in:
        assert isinstance(await signs_in(on, browser), Finished)
        session = await browser.session()
        on.clock.now += 100
    target = None if kind is None else targets(on, browser, session)[kind]
    moments = Moments(on, target, commit_at, hear_at)
    on.sign_in = on.another_worker(wrap=moments.wrap)
    outcome = await flow(on, browser)
    moments.finish()
    standing = [
        record.session
        for record in on.state.sessions.values()
        if record.session.identity.subject == browser.subject and on.stands(record.session)
    ]
    return moments, outcome, standing


async def every_order(
    on: Stage, flow: Flow, kind: str, *, signed_in: bool, thorough: bool = True
) -> AsyncIterator[tuple[Moments, object, list[Session]]]:
    quiet, _, standing = await run(on, flow, 0, None, NEVER, NEVER, signed_in)
    assert standing, "without a revocation it succeeds"
    number, moments = 0, len(quiet.names)
    for commit_at in range(moments + 1):
        for hear_at in range(commit_at, moments + 2):
            # What makes the targets differ is told by the log heard at once and heard last.
            if not thorough and hear_at not in (commit_at, moments + 1):
                continue
            number += 1
            yield await run(on, flow, number, kind, commit_at, hear_at, signed_in)


@pytest.mark.parametrize("kind", ["user", "sid", "group", "all"])
async def test_V08_V11_L22_a_sign_in(on: Stage, kind: str) -> None:
    """Who began before the revocation was heard gets nothing out of it; who begins after it may sign in."""
    orders = refused = 0
    async for moments, outcome, standing in every_order(
        on, signs_in, kind, signed_in=False, thorough=kind == "user"
    ):
        orders += 1
        assert bool(standing) is (moments.hear_at == 0), (moments.commit_at, moments.hear_at, moments.names)
        if isinstance(outcome, Refused):
            refused += 1
            assert outcome.reason is Reason.LOGIN_REVOKED
        else:
            assert isinstance(outcome, Finished)
    assert orders > 30 and refused > 10


@pytest.mark.parametrize("kind", ["session", "user", "sid", "group", "all"])
async def test_V10_a_step_up_brings_nothing_back(on: Stage, kind: str) -> None:
    """Not even one that began after the revocation was heard: the session had ended."""
    orders = 0
    async for moments, outcome, standing in every_order(
        on, steps_up, kind, signed_in=True, thorough=kind == "session"
    ):
        orders += 1
        assert not standing, (moments.commit_at, moments.hear_at, moments.names)
        assert isinstance(outcome, Refused | Finished)
    assert orders > 30


@pytest.mark.parametrize("kind", ["session", "user", "sid", "group", "all"])
async def test_V09_a_refresh_brings_nothing_back(on: Stage, kind: str) -> None:
    async for moments, outcome, standing in every_order(
        on, refreshes, kind, signed_in=True, thorough=kind == "session"
    ):
        assert not standing, (moments.commit_at, moments.hear_at, moments.names)
        assert outcome is None or isinstance(outcome, Session)


async def test_V09_a_group_that_is_lost_in_a_refresh_hides_from_no_lock_heard_by_then(on: Stage) -> None:
    """A lock on a group that is heard before the refresh is on record ends who was in it when it began."""
    heard = 0
    async for moments, outcome, standing in every_order(
        on, refreshes_without_the_group, "group", signed_in=True
    ):
        written = moments.names.index("after update") + 1 if "after update" in moments.names else NEVER
        if moments.hear_at <= written:
            heard += 1
            assert outcome is None and not standing, (moments.commit_at, moments.hear_at, moments.names)
    assert heard > 50


async def test_V09_a_revocation_while_the_provider_thinks(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    on.worlds["op"].lie("/token", Says({"access_token": "a", "token_type": "bearer"}, after=0.1))
    on.worlds["op"].token_asked.clear()

    async def revoke() -> None:
        await on.worlds["op"].token_asked.wait()
        on.lease.lock(Target(TargetKind.SESSION, finished.session.id))

    renewed, _ = await asyncio.gather(on.sign_in.refresh(finished.handle, finished.session), revoke())
    assert renewed is None and not on.sessions()


async def test_a_refresh_of_what_was_revoked_asks_nobody(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    on.lease.lock(Target(TargetKind.SESSION, finished.session.id))
    assert await on.sign_in.refresh(finished.handle, finished.session) is None
    assert on.worlds["op"].hits["/token"] == 1


# -- a lease that lapses ----------------------------------------------------------------------------------


async def test_without_a_lease_no_sign_in_begins_and_none_ends(on: Stage) -> None:
    started = await on.alice.begins()
    on.lease.lapse()
    with pytest.raises(WorldError) as failed:
        await on.bob.begins()
    assert failed.value.reason is Reason.STATE_UNAVAILABLE and len(on.state.values) == 1
    outcome = await on.alice.comes_back(on.alice.signs_in(started))
    assert isinstance(outcome, Refused) and outcome.reason is Reason.STATE_UNAVAILABLE
    assert not on.sessions()


async def test_a_lease_that_lapses_while_the_provider_is_asked_loses_no_token(on: Stage) -> None:
    """The old refresh token is used up: the new one goes on record, and nothing else."""
    finished = await on.alice.is_signed_in(groups=["dev"])
    before = await on.state.secrets(finished.handle)
    on.clock.now += 100
    on.worlds["op"].person = {"sub": "alice", "groups": []}

    class Lapsing(Stepping):
        def _pass(self, name: str) -> None:
            if name == "after refresh":
                on.lease.lapse()

    worker = on.another_worker(wrap=lambda port: Lapsing(Moments(on, None, NEVER, NEVER), port))
    with pytest.raises(WorldError):
        await worker.refresh(finished.handle, finished.session)
    session, after = await on.alice.session(), await on.state.secrets(finished.handle)
    assert session is not None and before is not None and after is not None
    assert after.refresh_token != before.refresh_token
    assert session == replace(finished.session, revision=session.revision), "as it was, group and all"
    on.lease.until = float("inf")
    renewed = await on.another_worker().refresh(finished.handle, session)
    assert renewed is not None and renewed.identity.groups == ()


async def test_a_worker_that_is_behind_steps_nobody_up(on: Stage) -> None:
    """The step-up began at a worker that knew of the revocation; this one does not, and must not take the
    session on record for one that stands: the new number would hide it from the lock for good."""
    behind = Leased()
    finished = await on.alice.is_signed_in()
    lock = on.lease.lock(Target(TargetKind.SESSION, finished.session.id))
    started = await on.alice.begins(existing=finished.session, rank=3)
    params = on.alice.signs_in(started, acr="phr")
    on.sign_in = on.another_worker(own=behind)
    outcome = await on.alice.comes_back(params)
    assert isinstance(outcome, Refused) and outcome.reason is Reason.STATE_UNAVAILABLE
    behind.book.apply([lock])
    assert [on.stands(record.session) for record in on.state.sessions.values()] == [False]


# -- whoever was revoked is asked anew --------------------------------------------------------------------


async def test_who_was_revoked_must_show_the_provider_who_they_are(on: Stage) -> None:
    lock = on.lease.lock(Target(TargetKind.USER, "alice", on.worlds["op"].issuer), made_at=on.clock.now - 10)
    old = {"auth_time": on.clock.now - 11}
    first = await on.alice.begins(return_to="/page")
    again = await on.alice.comes_back(on.alice.signs_in(first, **old))
    assert isinstance(again, Started) and not on.sessions()
    assert "prompt=login" in again.redirect_url and "max_age=0" in again.redirect_url
    assert again.clear_cookies == (first.cookie_name,)
    finished = await on.alice.comes_back(on.alice.signs_in(again, auth_time=on.clock.now - 9))
    assert isinstance(finished, Finished) and finished.return_to == "/page"
    assert finished.session.as_of == lock.number and on.stands(finished.session)


@pytest.mark.parametrize(
    "auth_time",
    [
        pytest.param(-11, id="it remembers, within what clocks may differ"),
        pytest.param(-9999, id="it remembers, for long"),
    ],
)
async def test_a_provider_that_does_not_ask_is_no_loop(on: Stage, auth_time: int) -> None:
    on.lease.lock(ALL, made_at=on.clock.now - 10)
    claims = {"auth_time": on.clock.now + auth_time}
    again = await on.alice.comes_back(on.alice.signs_in(await on.alice.begins(), **claims))
    assert isinstance(again, Started)
    outcome = await on.alice.comes_back(on.alice.signs_in(again, **claims))
    assert isinstance(outcome, Refused) and outcome.reason is Reason.LOGIN_REVOKED
    assert not on.sessions()


async def test_a_step_up_is_asked_anew_too_and_stays_one(on: Stage) -> None:
    finished = await on.alice.is_signed_in(auth_time=on.clock.now - 100)
    # Of a group that only the new sign-in shows: the session itself was not met.
    on.lease.lock(Target(TargetKind.GROUP, "ops"), made_at=on.clock.now - 10)
    started = await on.alice.begins(existing=finished.session, rank=3)
    claims = {"acr": "phr", "groups": ["ops"]}
    again = await on.alice.comes_back(on.alice.signs_in(started, auth_time=on.clock.now - 100, **claims))
    assert isinstance(again, Started) and "prompt=login" in again.redirect_url
    outcome = await on.alice.comes_back(on.alice.signs_in(again, auth_time=on.clock.now, **claims))
    assert isinstance(outcome, Finished)
    assert (outcome.session.id, outcome.session.rank) == (finished.session.id, 3)


async def test_a_step_up_that_is_not_asked_anew_fails_as_ever(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    started = await on.alice.begins(existing=finished.session, max_age=30)
    outcome = await on.alice.comes_back(on.alice.signs_in(started, auth_time=on.clock.now - 500))
    assert isinstance(outcome, Refused) and outcome.reason is Reason.STEP_UP_FAILED


async def test_the_number_of_the_log_goes_with_the_attempt(on: Stage) -> None:
    on.lease.lock(Target(TargetKind.USER, "somebody", "else"))
    started = await on.alice.begins()
    on.lease.lock(Target(TargetKind.USER, "somebody", "else"))
    finished = await on.alice.comes_back(on.alice.signs_in(started))
    assert isinstance(finished, Finished) and finished.session.as_of == 1
    on.lease.lock(Target(TargetKind.USER, "somebody", "else"))
    stronger = await on.alice.begins(existing=finished.session, rank=3)
    after = await on.alice.comes_back(on.alice.signs_in(stronger, acr="phr"))
    assert isinstance(after, Finished) and after.session.as_of == 3
    on.clock.now += 60
    renewed = await on.sign_in.refresh(after.handle, after.session)
    assert renewed is not None and renewed.as_of == 3


@pytest.mark.parametrize("changed", ["before the callback", "in its last moment"])
@pytest.mark.parametrize("step_up", [False, True], ids=["a sign-in", "a step-up"])
async def test_a_sign_in_from_under_another_log_makes_nothing(on: Stage, changed: str, step_up: bool) -> None:
    """The store came back empty while the person was at the provider: the number that the sign-in began after
    is of a log that is gone, and no lock of the new one could meet what it makes."""
    finished = await on.alice.is_signed_in() if step_up else None
    on.lease.lock(Target(TargetKind.USER, "somebody", "else"))
    more = {"existing": finished.session, "rank": 3} if finished else {}
    started = await on.alice.begins(**more)
    before = on.state.snapshot()
    on.state.log = "log-2"
    if changed == "before the callback":
        on.lease.data = "log-2"
    outcome = await on.alice.comes_back(on.alice.signs_in(started, acr="phr"))
    assert isinstance(outcome, Refused) and outcome.reason is Reason.LOGIN_REVOKED
    assert on.state.snapshot() == before


async def test_L22_a_logout_token_before_the_sign_in_it_is_about_ends(on: Stage) -> None:
    started = await on.alice.begins()
    await on.logout.back_channel("op", on.worlds["op"].logout_token(sid="i-1"), "r")
    outcome = await on.alice.comes_back(on.alice.signs_in(started, sid="i-1"))
    assert isinstance(outcome, Refused) and outcome.reason is Reason.LOGIN_REVOKED
    assert not on.sessions()
    with pytest.raises(ClientError):
        await on.logout.back_channel("op", on.worlds["op"].id_token("n"), "r")
