"""Everything here that reads a token of somebody else, under one word: `judge(vector)`, "" or why not.

Real parts over a real socket: `OpenIDProvider` with `core.claims` and `core.logout`, `TokenVerifier` with
`core.service_tokens`, and the application's own `ztproxy.verify`. Each is asked as it is in service: form,
key and signature first, then the claims.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp

from tests.jose.table import CLIENT, ISSUER, NONCE, NOW, Kind, Vector
from tests.worlds.lying_provider import LyingProvider, Says, lying_provider
from tests.worlds.memory_state import SetClock
from ztproxy.adapters.jwt import ALGORITHMS
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.adapters.service_tokens import IssuerSettings, TokenVerifier
from ztproxy.core.claims import ClaimRules, Expectation, accept
from ztproxy.core.logout import read_notice
from ztproxy.core.routes import Services
from ztproxy.core.service_tokens import TokenRules, judge_token
from ztproxy.errors import ClientError, WorldError
from ztproxy.verify import AssertionRejected, Rejection, Verifier

RULES = ClaimRules(ISSUER, CLIENT)
STATE, ACCESS_TOKEN = "s" * 43, "at-1"
EXPECTED = Expectation(NONCE, STATE, ACCESS_TOKEN)

# What `ztproxy.verify` says for the first rule that is broken. It tells the parts of a header no further
# apart, and claims of a wrong form are one reason.
APP_SAYS = {
    Rejection.FORMAT: {"form"},
    Rejection.HEADER: {"header", "json-head", "typ"},
    Rejection.ALGORITHM: {"alg"},
    Rejection.UNKNOWN_KEY: {"kid"},
    Rejection.KEYS_UNAVAILABLE: {"jwks"},
    Rejection.SIGNATURE: {"sig"},
    Rejection.CLAIMS: {"json", "claims"},
}
CORE_SAYS = {"format": {"form"}, "json": {"json", "json-head"}}


class Judge(Protocol):
    """Raises what it refuses with."""

    async def __call__(self, token: str) -> None: ...


def meant_by(refusal: Exception) -> set[str]:
    """The words of the vectors that a refusal may stand for."""
    if isinstance(refusal, WorldError):
        return {"jwks"}
    if isinstance(refusal, AssertionRejected):
        return APP_SAYS.get(refusal.reason, {refusal.reason.value})
    word = str(refusal).partition(":")[0]
    return CORE_SAYS.get(word, {word})


def id_token(world: LyingProvider, http: aiohttp.ClientSession, clock: SetClock) -> Judge:
    provider = OpenIDProvider(
        ProviderSettings("op", world.issuer, CLIENT, "s", algorithms=ALGORITHMS), http, clock
    )

    async def judge(token: str) -> None:
        accept(RULES, await provider.verify(token), EXPECTED, clock())

    return judge


def logout_token(world: LyingProvider, http: aiohttp.ClientSession, clock: SetClock) -> Judge:
    provider = OpenIDProvider(
        ProviderSettings("op", world.issuer, CLIENT, "s", algorithms=ALGORITHMS), http, clock
    )

    async def judge(token: str) -> None:
        read_notice(RULES, await provider.verify_logout(token), clock())

    return judge


def access_token(world: LyingProvider, http: aiohttp.ClientSession, clock: SetClock) -> Judge:
    settings = IssuerSettings("ci", ISSUER, ALGORITHMS, jwks_url=f"{world.issuer}/jwks")
    verifier = TokenVerifier(settings, http, clock)

    async def judge(token: str) -> None:
        claims = await verifier.verify(token)
        judge_token(TokenRules("ci", ISSUER), Services(issuers=("ci",), audience=CLIENT), claims, clock())

    return judge


def assertion(world: LyingProvider, http: aiohttp.ClientSession, clock: SetClock) -> Judge:
    verifier = Verifier(f"{world.issuer}/jwks", CLIENT, issuer=ISSUER, clock=clock)

    async def judge(token: str) -> None:
        await asyncio.to_thread(verifier.verify, token)

    return judge


JUDGES = {"id": id_token, "access": access_token, "logout": logout_token, "app": assertion}


class Verdict:
    """What came of a vector: the words its refusal may stand for (none where it was accepted), and how often
    the provider was asked, by path, from its showing on."""

    def __init__(self, words: set[str], asked: dict[str, int]) -> None:
        self.words, self.asked = words, asked


@asynccontextmanager
async def _world() -> AsyncIterator[tuple[LyingProvider, aiohttp.ClientSession, SetClock]]:
    clock = SetClock(float(NOW))
    async with lying_provider(clock) as world, provider_session() as http:
        yield world, http, clock


async def verdicts(kind: Kind, rows: Sequence[Vector]) -> dict[str, Verdict]:
    """Every vector shown to a verifier that has not seen another key set than the vector's."""
    found: dict[str, Verdict] = {}
    async with _world() as (world, http, clock):
        judges: dict[bytes, Judge] = {}
        for row in rows:
            world.lie("/jwks", Says(row.jwks))
            if row.jwks not in judges:
                judges[row.jwks] = JUDGES[kind](world, http, clock)
            before = world.hits.copy()
            words: set[str] = set()
            try:
                await judges[row.jwks](row.token)
            except (ClientError, WorldError, AssertionRejected) as refusal:
                words = meant_by(refusal)
            found[row.name] = Verdict(words, dict(world.hits - before))
    return found
