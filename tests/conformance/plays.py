"""What the ported modules are made of: the lies a provider tells, and how a visit then goes.

A `Module` is a row; `relying_party` is the table. A lie prepares the provider before the visit; a play is a
visit that is more than one sign-in, and judges by itself.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlsplit

from tests.conformance.scripted import (
    APP,
    Params,
    Scripted,
    Visit,
    claims_of,
    spoiled,
)
from tests.worlds.lying_provider import CLIENT_ID, CLIENT_SECRET, Says, ec_key, rsa_key
from ztproxy.core.reasons import Reason

Play = Callable[[Visit], Awaitable[None]]
Prepare = Callable[[Scripted], None]

DISCOVERY, TOKEN, KEYS, USERINFO = "openid-configuration", "token", "jwks", "userinfo"
ALL = (DISCOVERY, TOKEN, KEYS, USERINFO)
BEFORE_KEYS, BEFORE_USERINFO = ALL[:2], ALL[:3]
ELSEWHERE = "https://evil.test"


@dataclass(frozen=True)
class Module:
    """`refused` is the reason people are given, None where the sign-in succeeds; `asks` what the provider is
    asked for in all, so nothing once it is refused. A `play` other than a sign-in judges by itself."""

    name: str
    checks: str
    prepare: Prepare = lambda world: None
    refused: Reason | None = None
    asks: tuple[str, ...] = ALL
    answer: Callable[[Params], Params] = lambda params: params
    config: str = ""
    play: Play | None = None
    notes: str = ""

    @property
    def result(self) -> str:
        return self.notes or ("accepted" if self.refused is None else "refused, nothing further asked")

    async def run(self, visit: Visit) -> None:
        self.prepare(visit.world)
        if self.play is not None:
            await self.play(visit)
            return
        await visit.signs_in(self.answer)
        if self.refused is None:
            await visit.is_signed_in()
        else:
            assert visit.page.status == self.refused.status, visit.page
            assert self.refused.sentence in visit.page.text
            assert not visit.guest.session(APP)
            assert await visit.status() == 401
        assert visit.world.asked_for == Counter(self.asks)


# -- lies ------------------------------------------------------------------------------------------------


def honest(world: Scripted) -> None:
    pass


def claim(**changes: Any) -> Prepare:
    """ID tokens with other claims; `...` leaves one out."""
    return lambda world: world.claims.update(changes)


def forged(forge: Callable[[str], str]) -> Prepare:
    def prepare(world: Scripted) -> None:
        world.forge = forge

    return prepare


def response(**changes: Any) -> Prepare:
    """Another answer of the token endpoint."""
    return lambda world: world.token.update(changes)


def metadata(**changes: Any) -> Prepare:
    return lambda world: world.metadata.update(changes)


def expired(world: Scripted) -> None:
    now = int(world.clock())
    world.claims.update(iat=now - 300, exp=now - 120)


def es256(world: Scripted) -> None:
    """Its key, and signatures by it that are wrong."""
    world.signer = ec_key()
    world.keys, world.forge = [world.signer], spoiled


def another_algorithm(world: Scripted) -> None:
    """A key of the provider's own and a good signature: only the algorithm was not agreed on."""
    world.signer = ec_key("k2")
    world.keys.append(world.signer)


def nameless(world: Scripted) -> None:
    world.signer = rsa_key(None)


def nameless_among_two(world: Scripted) -> None:
    world.signer, world.keys = rsa_key(None), [rsa_key("k1"), rsa_key("k3", which="k3")]


def signed_userinfo(world: Scripted) -> None:
    told = world.id_token(None, email="alice@example.com", email_verified=True)
    world.lie("/userinfo", Says(told, content_type="application/jwt"))


def badly_signed_userinfo(world: Scripted) -> None:
    world.lie("/userinfo", Says(spoiled(world.id_token(None)), content_type="application/jwt"))


def param(name: str, value: str | None) -> Callable[[Params], Params]:
    """The provider's answer with another parameter, or without it."""

    def change(params: Params) -> Params:
        others = [one for one in params if one[0] != name]
        return others if value is None else [*others, (name, value)]

    return change


# -- plays -----------------------------------------------------------------------------------------------


async def by_basic(visit: Visit) -> None:
    await visit.signs_in()
    await visit.is_signed_in()
    form, headers = visit.world.asked[0]
    pair = f"{quote_plus(CLIENT_ID)}:{quote_plus(CLIENT_SECRET)}"
    assert headers["Authorization"] == "Basic " + base64.b64encode(pair.encode()).decode()
    assert form.keys() == {"grant_type", "code", "code_verifier", "redirect_uri"}


async def claims_by_scope(visit: Visit) -> None:
    visit.world.userinfo = {"email": "alice@example.com", "email_verified": True, "name": "Alice"}
    await visit.signs_in()
    await visit.is_signed_in()
    assert set(visit.asked["scope"].split()) >= {"openid", "profile", "email"}
    page = await visit.guest.ask(f"{APP}/.ztproxy/user")
    assert (page.json["email"], page.json["name"]) == ("alice@example.com", "Alice")


async def bearer_header(visit: Visit) -> None:
    await visit.signs_in()
    await visit.is_signed_in()
    ((_, query, headers),) = [heard for heard in visit.world.heard if heard[0] == "/userinfo"]
    assert headers["Authorization"].startswith("Bearer at-") and not query
    assert len(visit.world.asked) == 1, "nothing but the code was posted"


async def keys_by_discovery(visit: Visit) -> None:
    """Discovery names another path for the keys; the usual one has none."""
    visit.world.metadata["jwks_uri"] = f"{visit.world.issuer}/elsewhere/keys"
    visit.world.lie("/elsewhere/keys", Says({"keys": [key.jwk() for key in visit.world.keys]}))
    await visit.signs_in()
    await visit.is_signed_in()
    assert visit.world.asked_for == Counter((DISCOVERY, TOKEN, "keys", USERINFO))


async def endpoints_by_discovery(visit: Visit) -> None:
    url = await visit.begins()
    # The endpoint's own query stays (RFC 6749 3.1).
    assert url.startswith(f"{visit.world.issuer}/authorize?tenant=1&")
    await visit.comes_back(visit.world.sign_in(url))
    await visit.is_signed_in()
    assert visit.world.asked_for == Counter(ALL)


def begun_by_the_provider(target: str, arrives: str) -> Play:
    """The provider's page sends the browser to `/.ztproxy/start/<name>` (Core 4), to end at `target`."""

    async def play(visit: Visit) -> None:
        url = await visit.begins(iss=visit.world.issuer, target_link_uri=target, login_hint="alice")
        await visit.comes_back(visit.world.sign_in(url))
        await visit.is_signed_in(arrives)
        assert visit.world.asked_for == Counter(ALL)

    return play


def turn_keys(world: Scripted) -> None:
    world.signer = rsa_key("k3", which="k3")
    world.keys = [world.signer]


async def new_key_for_the_second_login(visit: Visit) -> None:
    await visit.signs_in()
    await visit.is_signed_in()
    async with visit.again() as second:
        turn_keys(visit.world)
        await second.signs_in()
        await second.is_signed_in()
    assert visit.world.asked_for == Counter((DISCOVERY, *(TOKEN, KEYS, USERINFO) * 2))


async def new_key_just_before_signing(visit: Visit) -> None:
    """The person is at the provider already, and we have the old keys."""
    await visit.signs_in()
    await visit.is_signed_in()
    async with visit.again() as second:
        url = await second.begins()
        turn_keys(visit.world)
        await second.comes_back(visit.world.sign_in(url))
        await second.is_signed_in()
    assert visit.world.asked_for == Counter((DISCOVERY, *(TOKEN, KEYS, USERINFO) * 2))


def refreshing(change: Prepare, status: int) -> Play:
    """Signed in; a route wants the provider to vouch anew after a second, and the refresh brings `change`."""

    async def play(visit: Visit) -> None:
        await visit.signs_in()
        await visit.is_signed_in()
        change(visit.world)
        await asyncio.sleep(1.1)
        page = await visit.guest.ask(f"{APP}/vouched")
        assert page.status == status, page
        assert visit.world.asked[-1][0]["grant_type"] == "refresh_token"
        # A person whom the provider gave another name or issuer has no session at all any more.
        assert await visit.status() == status

    return play


def somebody_else(world: Scripted) -> None:
    world.person = {"sub": "mallory"}


def back_from_the_provider(**params: str) -> Play:
    """Signed out here, then at the provider, which sends the browser back with `params`."""

    async def play(visit: Visit) -> None:
        await visit.signs_in()
        await visit.is_signed_in()
        page = await visit.signs_out()
        onward = page.location or page.headers["Refresh"].partition("url=")[2]
        asked = dict(parse_qsl(urlsplit(onward).query))
        visit.house.seen(asked["id_token_hint"])
        assert onward.startswith(f"{visit.world.issuer}/logout?")
        assert claims_of(asked["id_token_hint"])["sub"] == "alice"
        assert asked["client_id"] == CLIENT_ID
        assert asked["post_logout_redirect_uri"] == f"{APP}/.ztproxy/signed_out"
        sent = {"state": asked["state"]} if "state" in asked and not params else params
        query = "&".join(f"{name}={value}" for name, value in sent.items())
        page = await visit.guest.ask(f"{asked['post_logout_redirect_uri']}?{query}")
        assert page.status == 200
        assert await visit.status() == 401

    return play


def logout_token(
    ends: bool, forge: Callable[[str], str] = lambda token: token, prepare: Prepare = honest, **changes: Any
) -> Play:
    """A logout token for the session, with `changes`; it ends the session or does nothing at all."""

    async def play(visit: Visit) -> None:
        visit.world.claims["sid"] = "i-1"
        await visit.signs_in()
        await visit.is_signed_in()
        prepare(visit.world)
        page = await visit.is_told(forge(visit.world.logout_token(**changes)))
        assert page.status == (200 if ends else 400), page
        assert page.headers["Cache-Control"].startswith("no-store")
        assert await visit.status() == (401 if ends else 200)
        assert visit.world.asked_for == Counter(ALL), "the provider was asked something for it"

    return play
