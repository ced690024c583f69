"""A stage for sign-ins: a provider on a real socket, the state in memory, and browsers with a cookie jar.

Five words: `stage.alice` and `stage.bob` are browsers, `begins` sends one to the provider, `signs_in` is the
person there, `comes_back` brings the answer, `stage.sessions()` is everything on record.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.worlds.leased import Leased
from tests.worlds.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider, lying_provider
from tests.worlds.memory_admin import MemoryAudit
from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.revoking import Revoking
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.core.assurance import Levels
from ztproxy.core.certificate import Certificate
from ztproxy.core.claims import ClaimRules
from ztproxy.core.device import Device, OnDevice
from ztproxy.core.identity import Session, SessionSecrets
from ztproxy.core.sessions import SessionLimits
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.logout import Logout
from ztproxy.gateway.per_person import SessionsPerPerson
from ztproxy.gateway.ports import Seen
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.sign_in import Finished, Refused, SignIn, Started

APP = "https://auth.test"
HOST = "auth.test"


def on_device(thumbprint: str, id: str | None = None) -> OnDevice:
    """A connection with this certificate, of the device `id` of the inventory."""
    leaf = Certificate("corp", "CN=ca", "CN=leaf", 7, thumbprint, "key", 0.0, 4e9)
    return OnDevice(leaf, None if id is None else Device(id), 4e9)


@dataclass
class Browser:
    stage: Stage
    subject: str
    cookies: dict[str, str] = field(default_factory=dict)
    handle: str | None = None

    async def begins(self, provider: str = "op", return_to: str = "/", **asked: Any) -> Started:
        started = await self.stage.sign_in.start(
            provider, app=APP, return_to=return_to, cookies=self.cookies, **asked
        )
        self._take(started)
        return started

    def _take(self, started: Started) -> None:
        for name in started.clear_cookies:
            self.cookies.pop(name, None)
        self.cookies[started.cookie_name] = started.cookie_value

    def signs_in(self, started: Started, provider: str = "op", **claims: Any) -> list[tuple[str, str]]:
        world = self.stage.worlds[provider]
        world.person = {"sub": self.subject, **claims}
        return world.sign_in(started.redirect_url)

    async def comes_back(
        self,
        params: Sequence[tuple[str, str]],
        *,
        redirect_uri: str = f"{APP}/.ztproxy/callback/op",
        cookies: Mapping[str, str] | None = None,
        seen: Seen | None = None,
        device: OnDevice | None = None,
    ) -> Finished | Refused | Started:
        outcome = await self.stage.sign_in.callback(
            params, self.cookies if cookies is None else cookies, redirect_uri, self.handle, seen, device
        )
        for name in outcome.clear_cookies:
            self.cookies.pop(name, None)
        if isinstance(outcome, Finished):
            self.handle = outcome.handle
        elif isinstance(outcome, Started):
            self._take(outcome)
        return outcome

    async def is_signed_in(self, **claims: Any) -> Finished:
        """The whole dance, once, successfully."""
        outcome = await self.comes_back(self.signs_in(await self.begins(), **claims))
        assert isinstance(outcome, Finished), outcome
        return outcome

    async def session(self) -> Session | None:
        loaded = None if self.handle is None else await self.stage.state.load(self.handle)
        return None if loaded is None else loaded.session


@dataclass
class Stage:
    clock: SetClock
    state: MemoryState
    worlds: dict[str, LyingProvider]
    lease: Leased
    revoking: Revoking
    audit: MemoryAudit
    failures: list[str]
    sign_in: SignIn
    logout: Logout
    build: Any = None

    def __post_init__(self) -> None:
        self.alice, self.bob = Browser(self, "alice"), Browser(self, "bob")

    def sessions(self) -> dict[str, tuple[Session, SessionSecrets, tuple[str, ...]]]:
        return self.state.snapshot()

    def another_worker(self, **how: Any) -> SignIn:
        """A second process on the same state; `own` is a lease of its own, `most` another limit, and `wrap`
        goes around the store and the providers."""
        worker: SignIn = self.build(**how)[0]
        return worker

    def stands(self, session: Session) -> bool:
        """Whether the log leaves a session in force, as every decision asks."""
        return not any(lock.revokes for lock in self.lease.book.meeting(session, "", self.clock()))


@asynccontextmanager
async def stage(**rules: Any) -> AsyncIterator[Stage]:
    clock, lease = SetClock(1_700_000_000.0), Leased()
    state, revoking, audit = MemoryState(clock), Revoking(lease, clock), MemoryAudit()
    failures: list[str] = []
    userinfo = rules.pop("userinfo", False)
    limit: int | None = rules.pop("most", None)
    levels, limits = rules.pop("levels", Levels()), rules.pop("limits", SessionLimits(absolute=36000))
    asks_by, device_stands = rules.pop("asks_by", "acr_values"), rules.pop("device_stands", None)
    directory, per_address = rules.pop("directory", state), rules.pop("per_address", None)
    async with lying_provider(clock) as op, lying_provider(clock) as other, provider_session() as http:
        worlds = {"op": op, "other": other}

        def build(
            own: Leased | None = None,
            most: int | None = limit,
            wrap: Callable[[Any], Any] = lambda port: port,
        ) -> tuple[SignIn, Logout]:
            providers = {}
            for name, world in worlds.items():
                settings = ProviderSettings(name, world.issuer, CLIENT_ID, CLIENT_SECRET, userinfo=userinfo)
                claim_rules = ClaimRules(world.issuer, CLIENT_ID, **rules)
                client = wrap(OpenIDProvider(settings, http, clock))
                providers[name] = Provider(client, claim_rules, asks_by)
            heard = Heard(own or lease)
            per_person = None
            if most is not None:
                per_person = SessionsPerPerson(most, directory, revoking, heard, failures.append)
            store = wrap(state)
            sign_in = SignIn(
                providers,
                store,
                store,
                store,
                levels,
                limits,
                clock,
                secrets.token_bytes,
                heard,
                per_person,
                device_stands,
                per_address=per_address,
            )
            logout = Logout(
                providers,
                state,
                state,
                directory,
                heard,
                revoking,
                audit,
                clock,
                front_channel={"op"},
                exp_optional={"other"},
            )
            return sign_in, logout

        sign_in, logout = build()
        yield Stage(clock, state, worlds, lease, revoking, audit, failures, sign_in, logout, build)
