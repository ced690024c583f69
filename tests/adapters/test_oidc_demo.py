"""Our client, the demo's provider and a real Valkey: what `make demo` shows, without a browser."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis

from tests.adapters.state_worlds import LIMITS, RedisWorld
from tests.worlds.leased import Leased
from tests.worlds.memory_admin import MemoryAudit
from tests.worlds.memory_state import SetClock
from tests.worlds.revoking import Revoking
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.core.assurance import Levels
from ztproxy.core.claims import ClaimRules
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.demo.people import METHODS, PEOPLE
from ztproxy.demo.provider import STATE, Client, ProviderState, create_provider, sign_in_as
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.logout import Logout
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.sign_in import Finished, Refused, SignIn, Started

CALLBACK = "https://app.test/.ztproxy/callback/demo"
LEVELS = Levels(acr=MappingProxyType({method.acr: rank for rank, method in enumerate(METHODS, 1)}))


@dataclass
class Demo:
    """The demo's provider, ztproxy's sign-in, and one visitor."""

    provider: ProviderState
    state: RedisWorld
    clock: SetClock
    workers: list[SignIn]
    http: aiohttp.ClientSession
    logout: Logout
    heard: Heard
    handle: str | None = None

    @property
    def sign_in(self) -> SignIn:
        return self.workers[0]

    async def dance(
        self, person: str, method: str, *, existing: Session | None = None, rank: int = 1
    ) -> Finished | Refused:
        started = await self.sign_in.start(
            "demo", app="https://app.test", return_to="/", cookies={}, existing=existing, rank=rank
        )
        outcome = await self.comes_back(started, person, method)
        if isinstance(outcome, Started):  # weaker than was asked for: once more, and no further time
            assert "prompt=login" in outcome.redirect_url
            outcome = await self.comes_back(outcome, person, method)
        assert isinstance(outcome, Finished | Refused)
        if isinstance(outcome, Finished):
            self.handle = outcome.handle
        return outcome

    async def comes_back(self, started: Started, person: str, method: str) -> Finished | Refused | Started:
        back = await sign_in_as(self.http, started.redirect_url, person, method)
        cookies = {started.cookie_name: started.cookie_value}
        return await self.sign_in.callback(parse_qsl(urlsplit(back).query), cookies, CALLBACK, self.handle)


@pytest.fixture
async def demo(state_client: Redis) -> AsyncIterator[Demo]:
    clock = SetClock(time.time())
    state = RedisWorld(state_client)
    runner, origin = await _serve(clock)
    async with (
        provider_session() as http,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as visitor,
    ):
        settings = ProviderSettings("demo", origin, "ztproxy", "secret of the demo", userinfo=True)

        lease = Leased()
        await state.has_log(lease.data, 1_000_000)  # locks are applied here without a store of theirs
        heard = Heard(lease)
        provider = Provider(OpenIDProvider(settings, http, clock), ClaimRules(origin, "ztproxy"))

        def worker() -> SignIn:
            own = Provider(OpenIDProvider(settings, http, clock), ClaimRules(origin, "ztproxy"))
            stores = (state.sessions, state.one_time, state.locks)
            return SignIn({"demo": own}, *stores, LEVELS, LIMITS, clock, secrets.token_bytes, heard)

        workers = [worker() for _ in range(8)]
        logout = Logout(
            {"demo": provider},
            state.sessions,
            state.one_time,
            state.directory,
            heard,
            Revoking(lease, clock),
            MemoryAudit(),
            clock,
            front_channel={"demo"},
        )
        yield Demo(runner.app[STATE], state, clock, workers, visitor, logout, heard)
    await runner.cleanup()


async def _serve(clock: SetClock) -> tuple[web.AppRunner, str]:
    client = Client("ztproxy", "secret of the demo", (CALLBACK,), ("https://app.test/out",))
    # The issuer names its own port, so the port is taken before the provider is built.
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{taken.getsockname()[1]}"
    runner = web.AppRunner(create_provider(origin, [client], PEOPLE, clock=clock))
    await runner.setup()
    await web.SockSite(runner, taken).start()
    return runner, origin


async def test_sign_in_step_up_refresh_and_logout(demo: Demo) -> None:
    first = await demo.dance("alice", "pwd")
    assert isinstance(first, Finished), first
    identity = first.session.identity
    assert (identity.email, identity.groups, first.session.rank) == ("alice@example.com", ("engineering",), 1)
    assert first.session.idp_session is not None

    second = await demo.dance("alice", "phr", existing=first.session, rank=3)
    assert isinstance(second, Finished), second
    assert (second.session.id, second.session.rank) == (first.session.id, 3)

    demo.provider.set_groups("alice", "engineering", "on-call")
    demo.clock.now += 30
    renewed = await demo.sign_in.refresh(second.handle, second.session)
    assert renewed is not None and renewed.identity.groups == ("engineering", "on-call")

    out = await demo.logout.sign_out(second.handle, renewed, "https://app.test/out", everywhere=True)
    assert out.onward is not None and "id_token_hint=" in out.onward
    assert (out.confirmed, out.ended) == (True, 1) and demo.heard.revoked(renewed)


@pytest.mark.parametrize("how", ["back channel", "front channel"])
async def test_the_provider_signs_somebody_out(demo: Demo, how: str) -> None:
    alice = await demo.dance("alice", "pwd")
    assert isinstance(alice, Finished)
    ((_, sso),) = demo.provider.sessions.items()
    if how == "back channel":
        token = demo.provider.logout_token(demo.provider.clients["ztproxy"], sso)
        await demo.logout.back_channel("demo", token, "r-1")
        with pytest.raises(ClientError):
            await demo.logout.back_channel("demo", token, "r-2")
    else:
        issuer = alice.session.identity.issuer
        await demo.logout.front_channel("demo", issuer, sso.sid, "r-1")
    assert demo.heard.revoked(alice.session)
    again = await demo.dance("alice", "pwd")
    assert isinstance(again, Finished) and not demo.heard.revoked(again.session)


async def test_single_sign_on_and_one_end_for_all(demo: Demo) -> None:
    first = await demo.dance("alice", "mfa")
    assert isinstance(first, Finished)
    tickets = demo.workers[1].tickets
    invitation = tickets.invite({})
    code = await demo.sign_in.tickets.issue(first.handle, "https://wiki.test", invitation.binding_hash, "/p")
    cookies = {invitation.cookie_name: invitation.cookie_value}
    redeemed = await tickets.redeem(code, "https://wiki.test", cookies)
    loaded = await demo.state.sessions.load(redeemed.handle)
    assert loaded is not None and (loaded.session.id, loaded.host) == (first.session.id, "wiki.test")
    with pytest.raises(ClientError):
        await tickets.redeem(code, "https://wiki.test", cookies)
    await demo.logout.sign_out(first.handle, first.session, "https://app.test/out")
    assert demo.heard.revoked(loaded.session), "one lock for every host's handle"
    await demo.state.sessions.end(first.handle)
    assert await demo.state.sessions.load(redeemed.handle) is None


async def test_D15_eight_workers_refresh_at_once_and_the_rotated_token_is_used_once(demo: Demo) -> None:
    """The provider ends the whole family when a used token comes again, so a second use would show."""
    first = await demo.dance("alice", "pwd")
    assert isinstance(first, Finished)
    session = first.session
    for _ in range(3):
        demo.clock.now += 30
        asked = demo.provider.hits["token"]
        renewed = await asyncio.gather(
            *(one.refresh(first.handle, session) for one in demo.workers for _ in range(5))
        )
        assert demo.provider.hits["token"] == asked + 1
        assert renewed[0] is not None and renewed == [renewed[0]] * 40
        session = renewed[0]
    assert session.verified_at == demo.clock.now


@pytest.mark.parametrize("method", ["pwd", "mfa"])
async def test_a_step_up_that_comes_back_too_weak(demo: Demo, method: str) -> None:
    first = await demo.dance("alice", "pwd")
    assert isinstance(first, Finished)
    before = await demo.state.snapshot()
    weak = await demo.dance("alice", method, existing=first.session, rank=3)
    assert isinstance(weak, Refused) and weak.reason is Reason.STEP_UP_FAILED
    assert await demo.state.snapshot() == before


async def test_somebody_who_left_is_out_at_the_next_refresh(demo: Demo) -> None:
    first = await demo.dance("bob", "mfa")
    assert isinstance(first, Finished)
    demo.provider.disable("bob")
    assert await demo.sign_in.refresh(first.handle, first.session) is None
    assert await demo.state.sessions.load(first.handle) is None


async def test_keys_that_rotate_between_two_sign_ins(demo: Demo) -> None:
    assert isinstance(await demo.dance("alice", "pwd"), Finished)
    demo.provider.rotate_keys(withdraw_old=True)
    demo.http.cookie_jar.clear()
    assert isinstance(await demo.dance("carol", "mfa"), Finished)
    assert demo.provider.hits["jwks"] == 2


async def test_a_provider_that_is_gone(demo: Demo) -> None:
    settings = ProviderSettings("demo", "http://127.0.0.1:1", "ztproxy", "secret of the demo")
    async with provider_session() as http:
        with pytest.raises(WorldError) as away:
            await OpenIDProvider(settings, http, demo.clock).requires_iss_parameter()
    assert away.value.reason is Reason.PROVIDER_UNAVAILABLE
