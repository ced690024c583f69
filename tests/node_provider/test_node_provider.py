"""Our client against the OpenID-certified oidc-provider: sign-in, step-up, refresh, logout."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.node_provider.running import node_provider, walk
from tests.worlds.leased import Leased
from tests.worlds.memory_admin import MemoryAudit
from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.revoking import Revoking
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.core.assurance import Levels
from ztproxy.core.claims import ClaimRules
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import SessionLimits
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.logout import Logout
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.sign_in import Finished, Refused, SignIn, Started

pytestmark = pytest.mark.node

APP = "https://app.test"
CALLBACK = f"{APP}/.ztproxy/callback/node"
SIGNED_OUT = f"{APP}/.ztproxy/signed-out"
SECRET = "a+secret/with: odd characters, of 32"


@dataclass
class Node:
    issuer: str
    state: MemoryState
    sign_in: SignIn
    logout: Logout
    browser: aiohttp.ClientSession
    cookies: dict[str, str] = field(default_factory=dict)
    handle: str | None = None

    async def dance(
        self,
        person: str | None = None,
        method: str = "pwd",
        existing: Session | None = None,
        rank: int = 1,
        prompt: str | None = None,
    ) -> Finished | Refused | Started:
        started = await self.sign_in.start(
            "node", app=APP, return_to="/", cookies={}, existing=existing, rank=rank, prompt=prompt
        )
        return await self.goes_on(started, person, method)

    async def goes_on(
        self, started: Started, person: str | None = None, method: str = "pwd"
    ) -> Finished | Refused | Started:
        params = await walk(self.browser, started.redirect_url, CALLBACK, person, method)
        cookies = {started.cookie_name: started.cookie_value}
        outcome = await self.sign_in.callback(params, cookies, CALLBACK, self.handle)
        if isinstance(outcome, Finished):
            self.handle = outcome.handle
        return outcome


@pytest.fixture(params=["RS256", "ES256"])
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    client = {
        "client_id": "ztp",
        "client_secret": SECRET,
        "redirect_uris": [CALLBACK],
        "post_logout_redirect_uris": [SIGNED_OUT],
        "id_token_signed_response_alg": request.param,
    }
    clock = SetClock(time.time())
    state = MemoryState(clock)
    async with (
        node_provider(client) as issuer,
        provider_session() as http,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        settings = ProviderSettings(
            "node", issuer, "ztp", SECRET, algorithms=frozenset({request.param}), userinfo=True
        )
        provider = Provider(OpenIDProvider(settings, http, clock), ClaimRules(issuer, "ztp"))
        lease = Leased()
        heard, revoking = Heard(lease), Revoking(lease, clock)
        providers = {"node": provider}
        limits = SessionLimits()
        sign_in = SignIn(providers, state, state, state, Levels(), limits, clock, secrets.token_bytes, heard)
        logout = Logout(providers, state, state, state, heard, revoking, MemoryAudit(), clock)
        yield Node(issuer, state, sign_in, logout, browser)


async def test_sign_in_step_up_refresh_and_logout(node: Node) -> None:
    first = await node.dance("alice", "pwd")
    assert isinstance(first, Finished), first
    session = first.session
    assert (session.identity.issuer, session.identity.subject) == (node.issuer, "alice")
    assert (session.identity.email, session.identity.groups) == ("alice@example.com", ("engineering",))
    assert (session.rank, session.amr, session.refreshable) == (1, ("pwd",), True)

    stronger = await node.dance("alice", "phr", existing=session, rank=3)
    assert isinstance(stronger, Finished), stronger
    assert (stronger.session.id, stronger.session.rank, stronger.session.acr) == (session.id, 3, "phr")

    clock = node.state.clock
    clock.now += 30
    renewed = await node.sign_in.refresh(stronger.handle, stronger.session)
    assert renewed is not None
    assert (renewed.verified_at, renewed.rank, renewed.identity) == (clock.now, 3, session.identity)

    out = await node.logout.sign_out(stronger.handle, renewed, SIGNED_OUT)
    assert out.confirmed and out.onward is not None and out.onward.startswith(node.issuer)
    async with node.browser.get(out.onward) as page:
        assert (page.status, "Do you want to sign-out from" in await page.text()) == (200, True)


async def test_a_step_up_that_comes_back_too_weak_or_as_somebody_else(node: Node) -> None:
    first = await node.dance("alice", "pwd")
    assert isinstance(first, Finished), first
    before = node.state.snapshot()
    again = await node.dance("alice", "mfa", existing=first.session, rank=3)
    assert isinstance(again, Started) and "prompt=login" in again.redirect_url
    weak = await node.goes_on(again, "alice", "mfa")
    assert isinstance(weak, Refused) and weak.reason is Reason.STEP_UP_FAILED
    node.browser.cookie_jar.clear()  # signed out at the provider, not here
    other = await node.dance("bob", "phr", existing=first.session, rank=3)
    assert isinstance(other, Refused) and other.reason is Reason.LOGIN_OTHER_PERSON
    assert node.state.snapshot() == before


async def test_refused_and_silent_sign_ins(node: Node) -> None:
    refused = await node.dance(person=None)
    assert isinstance(refused, Refused) and refused.reason is Reason.LOGIN_REFUSED
    assert isinstance(await node.dance(prompt="none"), Started)
    assert isinstance(await node.dance("alice"), Finished)
    assert isinstance(await node.dance(prompt="none"), Finished)
