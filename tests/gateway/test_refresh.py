"""Refreshing: once for everybody, judged anew, and what happens when the provider says no, lies or is
away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.worlds.lying_provider import Says
from tests.worlds.signing_in import Stage, stage
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import GroupLimits, SessionLimits
from ztproxy.errors import WorldError
from ztproxy.gateway.refresh import LOCK_TTL, PAUSE


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage() as built:
        yield built


async def signed_in(on: Stage, **claims: Any) -> tuple[str, Session]:
    """Alice, an hour ago."""
    finished = await on.alice.is_signed_in(**claims)
    on.clock.now += 3600
    return finished.handle, finished.session


async def test_a_refresh_judges_anew(on: Stage) -> None:
    handle, session = await signed_in(
        on, groups=["admin"], email="a@corp.test", email_verified=True, acr="mfa"
    )
    on.worlds["op"].person = {"sub": "alice", "groups": ["dev"], "acr": "phr", "auth_time": on.clock.now}
    renewed = await on.sign_in.refresh(handle, session)
    assert renewed == await on.alice.session()
    assert renewed is not None
    assert (renewed.identity.groups, renewed.identity.email) == (("dev",), None)
    assert renewed.verified_at == on.clock.now
    # A refresh vouches for the person; it proves no new sign-in and prolongs nothing.
    same = ("id", "rank", "acr", "authenticated_at", "expires_at", "created_at", "idp_session")
    assert all(getattr(renewed, name) == getattr(session, name) for name in same)
    on.clock.now += 60
    assert await on.sign_in.refresh(handle, renewed) is not None
    assert on.worlds["op"].hits["/token"] == 3
    assert not on.state.locks


async def test_a_refresh_without_an_id_token(on: Stage) -> None:
    handle, session = await signed_in(on, groups=["admin"])
    before = await on.state.secrets(handle)
    on.worlds["op"].token = {"id_token": ..., "refresh_token": ...}
    renewed = await on.sign_in.refresh(handle, session)
    assert renewed is not None
    assert (renewed.identity.groups, renewed.verified_at) == (("admin",), on.clock.now)
    assert await on.state.secrets(handle) == before


@pytest.mark.parametrize(("sub", "groups"), [("alice", ("dev",)), ("bob", None)])
async def test_a_refresh_by_userinfo_alone(sub: str, groups: tuple[str, ...] | None) -> None:
    async with stage(userinfo=True) as on:
        handle, session = await signed_in(on, groups=["admin"])
        on.worlds["op"].token = {"id_token": ...}
        on.worlds["op"].person = {"sub": sub, "groups": ["dev"]}
        if groups is None:
            with pytest.raises(WorldError):
                await on.sign_in.refresh(handle, session)
            assert await on.alice.session() == session
        else:
            renewed = await on.sign_in.refresh(handle, session)
            assert renewed is not None and renewed.identity.groups == groups


async def test_D15_many_requests_in_many_workers_ask_once(on: Stage) -> None:
    handle, session = await signed_in(on)
    workers = [on.another_worker() for _ in range(8)]
    on.worlds["op"].revoke_refresh_tokens()  # so that a second use of any token would show
    on.worlds["op"].lie(
        "/token", Says({"access_token": "a", "token_type": "bearer", "refresh_token": "new"}, after=0.1)
    )
    renewed = await asyncio.gather(*(w.refresh(handle, session) for w in workers for _ in range(10)))
    assert on.worlds["op"].hits["/token"] == 2  # the sign-in's and one more
    assert set(map(id, renewed)) and all(one == renewed[0] for one in renewed)
    assert renewed[0] is not None and renewed[0].verified_at == on.clock.now
    secrets = await on.state.secrets(handle)
    assert secrets is not None and secrets.refresh_token == "new"


async def test_a_request_that_comes_late_sees_what_was_done(on: Stage) -> None:
    handle, session = await signed_in(on)
    renewed = await on.sign_in.refresh(handle, session)
    assert await on.another_worker().refresh(handle, session) == renewed
    assert on.worlds["op"].hits["/token"] == 2


async def test_a_browser_that_hangs_up_does_not_lose_the_token(on: Stage) -> None:
    handle, session = await signed_in(on)
    on.worlds["op"].lie("/token", Says({"access_token": "a", "token_type": "bearer"}, after=0.1))
    on.worlds["op"].token_asked.clear()
    request = asyncio.create_task(on.sign_in.refresh(handle, session))
    await on.worlds["op"].token_asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    renewed = await on.sign_in.refresh(handle, session)
    assert renewed is not None and renewed.verified_at == on.clock.now
    assert on.worlds["op"].hits["/token"] == 2


async def test_a_worker_that_died_with_the_lock_holds_others_up_for_a_minute(on: Stage) -> None:
    handle, session = await signed_in(on)
    await on.state.acquire(f"refresh:{session.id}", LOCK_TTL)
    with pytest.raises(WorldError) as failure:
        await on.sign_in.refresh(handle, session)
    assert failure.value.reason is Reason.PROVIDER_UNAVAILABLE
    assert await on.alice.session() == session
    on.clock.now += LOCK_TTL
    assert await on.sign_in.refresh(handle, session) is not None


async def test_a_session_that_ends_while_another_worker_refreshes(on: Stage) -> None:
    handle, session = await signed_in(on)
    await on.state.acquire(f"refresh:{session.id}", LOCK_TTL)
    waiting = asyncio.create_task(on.sign_in.refresh(handle, session))
    await asyncio.sleep(0)
    await on.state.end(handle)
    assert await waiting is None


async def test_D14_invalid_grant_ends_the_session(on: Stage) -> None:
    handle, session = await signed_in(on)
    on.worlds["op"].revoke_refresh_tokens()
    assert await on.sign_in.refresh(handle, session) is None
    assert on.sessions() == {}
    assert not on.state.locks


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"sub": "bob"}, id="refresh_token_invalid_sub"),
        pytest.param({"iss": "https://evil.test"}, id="refresh_token_invalid_issuer"),
        pytest.param({"sub": ""}, id="nobody"),
        pytest.param({"email": "a@b@c", "email_verified": True}, id="malformed_address"),
    ],
)
async def test_a_refresh_that_vouches_for_somebody_else_ends_the_session(
    on: Stage, claims: dict[str, Any]
) -> None:
    handle, session = await signed_in(on)
    on.worlds["op"].claims = claims
    assert await on.sign_in.refresh(handle, session) is None
    assert on.sessions() == {}


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(Says(status=503), id="status_503"),
        pytest.param(Says("<html>", content_type="text/html"), id="html_of_a_box_in_between"),
        pytest.param(Says({"error": "invalid_client"}, status=401), id="our_secret_is_refused"),
        pytest.param(Says({"error": "invalid_grant"}, status=503), id="an_error_of_a_server_in_trouble"),
        pytest.param(
            Says({"access_token": "a", "token_type": "bearer", "id_token": "a.b.c"}), id="unreadable_id_token"
        ),
    ],
)
async def test_D14_a_provider_that_is_away_changes_nothing(on: Stage, says: Says) -> None:
    handle, session = await signed_in(on)
    before = on.sessions()
    on.worlds["op"].lie("/token", says)
    with pytest.raises(WorldError) as failure:
        await on.sign_in.refresh(handle, session)
    assert failure.value.reason is Reason.PROVIDER_UNAVAILABLE
    assert on.sessions() == before
    assert not on.state.locks
    on.worlds["op"].lies.clear()
    with pytest.raises(WorldError, match="a moment ago"):
        await on.sign_in.refresh(handle, session)
    assert on.worlds["op"].hits["/token"] == 2
    on.clock.now += PAUSE
    assert await on.sign_in.refresh(handle, session) is not None


@pytest.mark.parametrize("why", ["no refresh token", "provider configured away", "session gone"])
async def test_nothing_to_ask_with(on: Stage, why: str) -> None:
    handle, session = await signed_in(on)
    worker = on.sign_in
    match why:
        case "no refresh token":
            record = on.state.sessions[session.id]
            record.secrets = replace(record.secrets, refresh_token=None)
        case "provider configured away":
            del on.worlds["op"]
            worker = on.another_worker()
        case "session gone":
            await on.state.end(handle)
    before = on.sessions()
    assert await worker.refresh(handle, session) is None
    assert on.sessions() == before


GUESTS = SessionLimits(7200, 36000, (GroupLimits(frozenset({"guests"}), idle=4000, absolute=7000),))


async def test_new_groups_shorten_a_session_and_lost_ones_do_not_prolong_it() -> None:
    async with stage(limits=GUESTS) as on:
        handle, session = await signed_in(on, groups=["dev"])
        assert (session.expires_at, session.idle) == (session.created_at + 36000, None)
        renewed: Session | None = session
        for groups in (["guests"], ["dev"]):
            on.worlds["op"].person = {"sub": "alice", "groups": groups}
            assert renewed is not None
            renewed = await on.sign_in.refresh(handle, renewed)
            assert renewed is not None
            assert renewed.identity.groups == tuple(groups)
            assert (renewed.expires_at, renewed.idle) == (session.created_at + 7000, 4000)
            on.clock.now += 60


async def test_a_session_that_is_past_the_limits_of_its_new_groups_ends() -> None:
    async with stage(limits=GUESTS) as on:
        handle, session = await signed_in(on, groups=["dev"])
        on.clock.now += 3400
        on.worlds["op"].person = {"sub": "alice", "groups": ["guests"]}
        assert await on.sign_in.refresh(handle, session) is None
        assert on.sessions() == {}


class Inventory:
    """What is known of devices: all stand but those in `shut_out`, unless it is `away`."""

    def __init__(self) -> None:
        self.shut_out: set[str] = set()
        self.away = False
        self.asked: list[str | None] = []

    async def __call__(self, session: Session) -> bool:
        self.asked.append(session.device)
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "inventory: away")
        return session.device not in self.shut_out


@pytest.mark.parametrize("how", ["stands", "shut out", "away", "not bound"])
async def test_a_refresh_judges_the_device_anew(how: str) -> None:
    inventory = Inventory()
    async with stage(device_stands=inventory) as on:
        handle, session = await signed_in(on)
        if how != "not bound":
            record = on.state.sessions[session.id]
            record.session = session = replace(record.session, certificate="t1", device="d1")
        if how == "shut out":
            inventory.shut_out.add("d1")
        inventory.away = how == "away"
        before = on.sessions()
        match how:
            case "shut out":
                assert await on.sign_in.refresh(handle, session) is None
                assert on.sessions() == {}
            case "away":
                with pytest.raises(WorldError):
                    await on.sign_in.refresh(handle, session)
                assert on.sessions() == before
            case _:
                renewed = await on.sign_in.refresh(handle, session)
                assert renewed is not None and renewed.verified_at == on.clock.now
                assert (renewed.certificate, renewed.device) == (session.certificate, session.device)
        assert inventory.asked == ([] if how == "not bound" else ["d1"])
        # The refresh token, which may work a single time, is not used up for a device that does not stand.
        assert on.worlds["op"].hits["/token"] == (1 if how in ("shut out", "away") else 2)


class Restless:
    """A store in which the session changes, or ends, between reading and writing."""

    def __init__(self, on: Stage, times: int, *, ends: bool = False) -> None:
        self._on, self._times, self._ends = on, times, ends

    async def update(self, handle: str, session: Session, secrets: Any) -> bool:
        if self._ends:
            await self._on.state.end(handle)
        elif self._times:
            self._times -= 1
            record = self._on.state.sessions[session.id]
            record.session = replace(record.session, rank=3, revision=record.session.revision + 1)
        return await self._on.state.update(handle, session, secrets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._on.state, name)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_session_that_changes_meanwhile(on: Stage, times: int) -> None:
    handle, session = await signed_in(on)
    on.sign_in._refresher._sessions = Restless(on, times)
    if times < 3:
        renewed = await on.sign_in.refresh(handle, session)
        assert renewed is not None and (renewed.rank, renewed.verified_at) == (3, on.clock.now)
    else:
        with pytest.raises(WorldError) as failure:
            await on.sign_in.refresh(handle, session)
        assert failure.value.reason is Reason.STATE_UNAVAILABLE


async def test_a_session_that_ends_meanwhile_stays_ended(on: Stage) -> None:
    handle, session = await signed_in(on)
    on.sign_in._refresher._sessions = Restless(on, 0, ends=True)
    assert await on.sign_in.refresh(handle, session) is None
    assert on.sessions() == {}


async def test_what_is_remembered_of_failures_is_forgotten(on: Stage) -> None:
    refresher = on.sign_in._refresher
    refresher._paused = {f"old-{number}": on.clock.now for number in range(4096)}
    handle, session = await signed_in(on)
    on.worlds["op"].lie("/token", Says(status=503))
    with pytest.raises(WorldError):
        await on.sign_in.refresh(handle, session)
    assert refresher._paused == {session.id: on.clock.now + PAUSE}
