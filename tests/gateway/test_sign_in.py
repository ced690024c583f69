"""Signing in as a dialogue of browsers, a provider that may lie, and the store (F, J and D rows)."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.worlds.lying_provider import Says, ec_key, rsa_key
from tests.worlds.signing_in import APP, HOST, Browser, Stage, on_device, stage
from ztproxy.config.settings import SIGN_INS
from ztproxy.core.assurance import Levels
from ztproxy.core.identity import Step
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.login import LIFETIME, digest
from ztproxy.core.rates import Rate
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import GroupLimits, SessionLimits
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.sign_in import FEW, STARTS_PER_SECOND, Finished, Refused, Started, TooManyStarts

Params = list[tuple[str, str]]


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage(keep=("level",)) as built:
        yield built


def changed(params: Params, **values: str | None) -> Params:
    given = {**dict(params), **values}
    return [(name, value) for name, value in given.items() if value is not None]


async def refused(browser: Browser, params: Params, **how: Any) -> Refused:
    """Comes back, is refused as a value, and no session has changed."""
    before = browser.stage.sessions()
    outcome = await browser.comes_back(params, **how)
    assert isinstance(outcome, Refused), outcome
    assert browser.stage.sessions() == before
    return outcome


async def turned_away(browser: Browser, params: Params, **how: Any) -> ClientError:
    """Comes back to a sign-in this browser did not begin, and no session has changed."""
    before = browser.stage.sessions()
    with pytest.raises(ClientError) as failure:
        await browser.comes_back(params, **how)
    assert browser.stage.sessions() == before
    return failure.value


# The ordinary way


async def test_a_sign_in(on: Stage) -> None:
    started = await on.alice.begins(return_to="/reports?y=1")
    assert started.redirect_url.startswith(on.worlds["op"].issuer + "/authorize")
    assert started.max_age > LIFETIME
    claims: dict[str, Any] = {
        "email": "a@corp.test",
        "email_verified": True,
        "groups": ["dev"],
        "level": 3,
        "acr": "mfa",
    }
    finished = await on.alice.comes_back(
        on.alice.signs_in(started, **claims, sid="i-1", auth_time=1.7e9 - 40)
    )
    assert isinstance(finished, Finished)
    assert (finished.return_to, finished.host, finished.notes) == ("/reports?y=1", HOST, ())
    assert finished.clear_cookies == (started.cookie_name,)
    session = finished.session
    assert session == await on.alice.session()
    assert (session.identity.subject, session.identity.email) == ("alice", "a@corp.test")
    assert (session.identity.groups, dict(session.identity.claims)) == (("dev",), {"level": 3})
    assert (session.rank, session.provider, session.idp_session) == (2, "op", "i-1")
    assert session.authenticated_at == on.clock.now - 40
    assert (session.verified_at, session.expires_at) == (on.clock.now, on.clock.now + 36000)
    assert session.refreshable
    assert (await on.state.secrets(finished.handle)) is not None
    assert not on.state.values


async def test_what_a_sign_in_holds_is_not_shown(on: Stage) -> None:
    started = await on.alice.begins()
    finished = await on.alice.comes_back(on.alice.signs_in(started))
    assert isinstance(finished, Finished)
    assert started.cookie_value not in repr(started)
    assert finished.handle not in repr(finished)


async def test_userinfo_adds_to_the_token() -> None:
    async with stage(userinfo=True) as on:
        on.worlds["op"].userinfo = {"groups": ["from-userinfo"]}
        finished = await on.alice.is_signed_in()
        assert finished.session.identity.groups == ("from-userinfo",)


async def test_D12_userinfo_about_somebody_else_refuses() -> None:
    async with stage(userinfo=True) as on:
        on.worlds["op"].userinfo = {"sub": "mallory"}
        outcome = await refused(on.alice, on.alice.signs_in(await on.alice.begins()))
        assert outcome.reason is Reason.LOGIN_TOKEN


async def test_F24_every_secret_of_every_attempt_is_new(on: Stage) -> None:
    seen: list[str] = []
    for _ in range(4):
        params = dict(parse_qsl(urlsplit((await on.alice.begins()).redirect_url).query))
        assert params["redirect_uri"] == f"{APP}/.ztproxy/callback/op"
        assert len(params["state"]) == 43
        seen += [params["state"], params["nonce"], params["code_challenge"]]
    assert len(set(seen)) == 12
    for value, _ in on.state.values.values():
        assert not any(state in value.decode() for state in seen[::3])


async def test_F25_many_browsers_at_once_each_land_where_they_wanted(on: Stage) -> None:
    async def dance(number: int) -> None:
        browser = Browser(on, f"person-{number}")
        started = await browser.begins(return_to=f"/page/{number}")
        await asyncio.sleep(random.random() / 50)
        token_of = on.worlds["op"].sign_in(started.redirect_url)
        async with talking:
            on.worlds["op"].person = {"sub": browser.subject}
            finished = await browser.comes_back(token_of)
        assert isinstance(finished, Finished)
        assert (finished.return_to, finished.session.identity.subject) == (f"/page/{number}", browser.subject)

    talking = asyncio.Lock()
    await asyncio.gather(*(dance(number) for number in range(60)))
    assert len(on.sessions()) == 60


async def test_several_tabs_of_one_browser(on: Stage) -> None:
    tabs = [await on.alice.begins(return_to=f"/{tab}") for tab in "abc"]
    for tab, started in zip("cab", (tabs[2], tabs[0], tabs[1]), strict=True):
        finished = await on.alice.comes_back(on.alice.signs_in(started))
        assert isinstance(finished, Finished)
        assert finished.return_to == f"/{tab}"
    assert len(on.sessions()) == 1


async def test_F20_another_person_signs_in_and_nothing_is_mixed(on: Stage) -> None:
    first = await on.alice.is_signed_in(groups=["admin"], email="a@corp.test", email_verified=True)
    on.alice.subject = "bob"
    second = await on.alice.is_signed_in()
    assert second.handle != first.handle
    assert await on.state.load(first.handle) is None
    assert [session.identity.subject for session, _, _ in on.sessions().values()] == ["bob"]
    assert (second.session.identity.groups, second.session.identity.email) == ((), None)


async def test_T12_the_same_person_gets_a_new_handle_too(on: Stage) -> None:
    first = await on.alice.is_signed_in()
    second = await on.alice.is_signed_in()
    assert second.handle != first.handle
    assert await on.state.load(first.handle) is None


async def test_J77_one_address_two_subjects_are_two_people(on: Stage) -> None:
    await on.alice.is_signed_in(email="a@corp.test", email_verified=True)
    await on.bob.is_signed_in(email="a@corp.test", email_verified=True)
    assert {session.identity.subject for session, _, _ in on.sessions().values()} == {"alice", "bob"}


async def test_a_handle_of_another_host_is_not_replaced(on: Stage) -> None:
    await on.alice.is_signed_in()
    assert on.alice.handle is not None
    foreign = await on.state.attach(on.alice.handle, "app.test")
    on.bob.handle = foreign
    await on.bob.is_signed_in()
    assert await on.state.load(on.alice.handle) is not None


# The front channel


async def test_F01_F12_a_malformed_answer_touches_no_transaction(on: Stage) -> None:
    good = on.alice.signs_in(await on.alice.begins())
    for params in (
        changed(good, state=None),
        changed(good, state="x"),
        [*good, ("code", "twice")],
        changed(good, id_token="a.b.c"),
        changed(good, error="access_denied"),
    ):
        await turned_away(on.alice, params)
    assert isinstance(await on.alice.comes_back(good), Finished)


async def test_F02_an_unknown_state(on: Stage) -> None:
    good = on.alice.signs_in(await on.alice.begins())
    assert (await turned_away(on.alice, changed(good, state="x" * 43))).reason is Reason.LOGIN_STATE


async def test_a_code_works_once(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    cookies = dict(on.alice.cookies)
    await on.alice.comes_back(params)
    assert (await turned_away(on.alice, params)).reason is Reason.LOGIN_STATE
    assert (await turned_away(on.alice, params, cookies=cookies)).reason is Reason.LOGIN_EXPIRED
    assert on.worlds["op"].hits["/token"] == 1


@pytest.mark.parametrize("whose", ["none", "of another sign-in", "made up"])
async def test_F04_an_answer_in_another_browser(on: Stage, whose: str) -> None:
    await on.alice.is_signed_in()
    mallory = Browser(on, "mallory")
    started = await mallory.begins()
    params = mallory.signs_in(started)
    if whose == "of another sign-in":
        own = await on.alice.begins()
        on.alice.cookies[started.cookie_name] = own.cookie_value
    elif whose == "made up":
        on.alice.cookies[started.cookie_name] = f"1.{'A' * 43}"
    assert (await turned_away(on.alice, params)).reason is Reason.LOGIN_STATE
    assert on.worlds["op"].hits["/token"] == 1  # alice's own; mallory's code was never sent
    # The transaction is used up: not even mallory's own browser can go on with it.
    assert (await turned_away(mallory, params)).reason is Reason.LOGIN_EXPIRED


async def test_F05_an_answer_that_comes_too_late(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    on.clock.now += LIFETIME
    assert (await turned_away(on.alice, params)).reason is Reason.LOGIN_EXPIRED


async def test_F05_a_store_that_forgets_late_does_not_matter(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins(return_to="/page"))
    on.state.values = {key: (value, on.clock.now + 1e6) for key, (value, _) in on.state.values.items()}
    on.clock.now += LIFETIME
    outcome = await refused(on.alice, params)
    assert (outcome.reason, outcome.provider, outcome.return_to) == (Reason.LOGIN_EXPIRED, "op", "/page")


@pytest.mark.parametrize(
    ("change", "at", "reason"),
    [
        pytest.param(
            {"iss": None}, "auth.test/.ztproxy/callback/op", Reason.LOGIN_ISSUER, id="F07_iss_missing"
        ),
        pytest.param(
            {"iss": "other"}, "auth.test/.ztproxy/callback/op", Reason.LOGIN_ISSUER, id="F08_mix_up"
        ),
        pytest.param({}, "app.test/.ztproxy/callback/op", Reason.LOGIN_CALLBACK, id="F14_another_host"),
        pytest.param({}, "auth.test/.ztproxy/callback/other", Reason.LOGIN_ISSUER, id="F15_another_path"),
        pytest.param(
            {"code": "c" * 9999}, "auth.test/.ztproxy/callback/op", Reason.LOGIN_CALLBACK, id="F18_huge_code"
        ),
        pytest.param(
            {"code": None, "error": "access_denied", "error_description": "<script>"},
            "auth.test/.ztproxy/callback/op",
            Reason.LOGIN_REFUSED,
            id="F10_access_denied",
        ),
        pytest.param(
            {"code": None, "error": "server_error"},
            "auth.test/.ztproxy/callback/op",
            Reason.PROVIDER_UNAVAILABLE,
            id="provider_in_trouble",
        ),
    ],
)
async def test_answers_that_are_refused(
    on: Stage, change: dict[str, str | None], at: str, reason: Reason
) -> None:
    await on.alice.is_signed_in()
    hits = on.worlds["op"].hits.copy()
    params = on.alice.signs_in(await on.alice.begins(return_to="/page"))
    if change.get("iss") == "other":
        change = {"iss": on.worlds["other"].issuer}
    outcome = await refused(on.alice, changed(params, **change), redirect_uri=f"https://{at}")
    assert (outcome.reason, outcome.provider, outcome.return_to) == (reason, "op", "/page")
    assert "<" not in outcome.detail
    # No code went anywhere, and the transaction is gone.
    assert on.worlds["op"].hits == hits and not on.worlds["other"].hits
    assert not on.state.values


async def test_F21_prompt_none_is_tried_once_more_with_the_person(on: Stage) -> None:
    started = await on.alice.begins(prompt="none", rank=2, return_to="/page")
    said = changed(on.alice.signs_in(started), code=None, error="login_required")
    again = await on.alice.comes_back(said)
    assert isinstance(again, Started)
    assert again.clear_cookies == (started.cookie_name,)
    asked = dict(parse_qsl(urlsplit(again.redirect_url).query))
    assert ("prompt" not in asked, asked["acr_values"]) == (True, "mfa phr phrh")
    outcome = await refused(on.alice, changed(on.alice.signs_in(again), code=None, error="login_required"))
    assert (outcome.reason, outcome.return_to) == (Reason.LOGIN_REFUSED, "/page")


async def test_F22_the_sixth_in_a_minute_stops(on: Stage) -> None:
    for _ in range(5):
        await on.alice.begins()
    with pytest.raises(ClientError) as stopped:
        await on.alice.begins()
    assert stopped.value.reason is Reason.LOGIN_TOO_MANY
    assert len(on.state.values) == 5
    assert len((await on.alice.begins(by_hand=True)).clear_cookies) == 1
    assert len(on.alice.cookies) == 5


async def test_T24_a_flood_in_one_worker_stops(on: Stage) -> None:
    for _ in range(STARTS_PER_SECOND):
        await Browser(on, "x").begins()
    with pytest.raises(ClientError) as stopped:
        await Browser(on, "x").begins()
    assert stopped.value.reason is Reason.LOGIN_TOO_MANY
    assert len(on.state.values) == STARTS_PER_SECOND
    assert isinstance(stopped.value, TooManyStarts) and 0 < stopped.value.wait <= 1 / STARTS_PER_SECOND * 1.01
    on.clock.now += 1
    await Browser(on, "x").begins()


async def test_what_one_sender_begins_too_many_uses_up_nobodys() -> None:
    async with stage(per_address=Rate(6, 60.0, 3)) as on:
        outcomes = []
        for number in range(20):
            try:
                await Browser(on, "x").begins(address=f"2001:db8::{number:x}")
                outcomes.append(0.0)
            except TooManyStarts as stopped:
                outcomes.append(round(stopped.wait))
        assert outcomes == [0] * 3 + [10] * 17 and len(on.state.values) == 3
        for address in ("2001:db8:0:1::1", "192.0.2.1"):
            await Browser(on, "x").begins(address=address)
        on.clock.now += 10.01
        await Browser(on, "x").begins(address="2001:db8::1")


async def begun(on: Stage, address: str, **how: Any) -> bool:
    try:
        await Browser(on, "x").begins(address=address, **how)
    except TooManyStarts:
        return False
    return True


async def flooded(on: Stage) -> None:
    """By ten addresses, each within its own limit: until no more of theirs are let through."""
    while all([await begun(on, f"192.0.2.{number}") for number in range(10)]):
        pass


async def test_T24_ten_addresses_keep_nobody_from_signing_in() -> None:
    async with stage(per_address=SIGN_INS) as on:
        for second in range(5):
            await flooded(on)
            assert await begun(on, f"2001:db8:{second:x}::1")
            on.clock.now += 1


async def test_T24_nor_with_a_beat_that_never_meets_their_own_limit() -> None:
    async with stage(per_address=SIGN_INS) as on:
        refused = 0
        for beat in range(40):
            refused += [await begun(on, f"192.0.2.{number}") for number in range(20)].count(False)
            if beat % 4 == 0:
                assert await begun(on, f"198.51.100.{beat}")
            on.clock.now += 1 / SIGN_INS.most
        assert refused > 100, "there was a flood"


async def test_T24_nor_anybody_from_a_stronger_sign_in() -> None:
    """Wherever they are: also beside those who flood. Unless it is they who begin too many."""
    async with stage(per_address=SIGN_INS) as on:
        session = (await on.alice.is_signed_in()).session
        await flooded(on)
        assert await begun(on, "192.0.2.1", existing=session)
        assert not await begun(on, "192.0.2.1")
        assert [await begun(on, "192.0.2.1", existing=session) for _ in range(FEW.burst)][-1] is False


async def test_T24_whoever_must_be_asked_once_more_is_no_flood() -> None:
    async with stage(per_address=SIGN_INS) as on:
        params = changed(
            on.alice.signs_in(await on.alice.begins(prompt="none")), code=None, error="login_required"
        )
        await flooded(on)
        assert isinstance(await on.alice.comes_back(params), Started)


async def test_T24_altogether_there_is_a_bound() -> None:
    async with stage(per_address=SIGN_INS) as on:
        outcomes = [await begun(on, f"2001:db8:0:{number:x}::1") for number in range(STARTS_PER_SECOND + 5)]
        assert outcomes == [True] * STARTS_PER_SECOND + [False] * 5
        await flooded(on)
        assert len(on.state.values) <= 2 * STARTS_PER_SECOND


@pytest.mark.parametrize("provider", ["gone", "other"])
async def test_start_at_a_provider_that_is_not_there_or_not_theirs(on: Stage, provider: str) -> None:
    session = (await on.alice.is_signed_in()).session
    with pytest.raises(ClientError) as failure:
        await on.alice.begins(provider, existing=session)
    assert failure.value.reason is Reason.NO_SUCH_ROUTE


async def test_a_provider_that_was_configured_away_meanwhile(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    del on.worlds["op"]
    on.sign_in = on.another_worker()
    assert (await refused(on.alice, params)).reason is Reason.LOGIN_EXPIRED


async def test_a_transaction_of_another_version(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    await on.state.put("login", digest(dict(params)["state"]), b"{}", 9)
    assert (await turned_away(on.alice, params)).reason is Reason.LOGIN_EXPIRED


# The token


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"iss": "https://evil.test"}, Reason.LOGIN_ISSUER, id="J41_another_issuer"),
        pytest.param({"aud": "other"}, Reason.LOGIN_TOKEN, id="J44_another_audience"),
        pytest.param({"exp": 1.7e9 - 61, "iat": 1.7e9 - 70}, Reason.LOGIN_TOKEN, id="J51_expired"),
        pytest.param({"nonce": "x"}, Reason.LOGIN_TOKEN, id="J54_wrong_nonce"),
        pytest.param({"at_hash": "x"}, Reason.LOGIN_TOKEN, id="J57_wrong_at_hash"),
        pytest.param({"s_hash": "x"}, Reason.LOGIN_TOKEN, id="J60_wrong_s_hash"),
        pytest.param({"sub": ...}, Reason.LOGIN_CLAIMS, id="no_sub"),
        pytest.param({"email": "a@b@c", "email_verified": True}, Reason.LOGIN_EMAIL, id="J74_email"),
    ],
)
async def test_bad_claims_are_refused_and_nothing_further_is_asked(
    claims: dict[str, Any], reason: Reason
) -> None:
    async with stage(userinfo=True) as on:
        on.worlds["op"].claims = claims
        outcome = await refused(on.alice, on.alice.signs_in(await on.alice.begins()))
        assert outcome.reason is reason
        assert on.worlds["op"].hits["/userinfo"] == 0


async def test_J55_the_nonce_of_another_tab(on: Stage) -> None:
    one, two = await on.alice.begins(), await on.alice.begins()
    nonce = dict(parse_qsl(urlsplit(two.redirect_url).query))["nonce"]
    on.worlds["op"].claims = {"nonce": nonce}
    assert (await refused(on.alice, on.alice.signs_in(one))).reason is Reason.LOGIN_TOKEN


async def test_J61_a_token_signed_by_the_other_provider(on: Stage) -> None:
    foreign = ec_key("k2")
    on.worlds["other"].keys = [foreign]
    started = await on.alice.begins()
    params = on.alice.signs_in(started)
    on.worlds["op"].signer = foreign
    assert (await refused(on.alice, params)).reason is Reason.LOGIN_TOKEN


async def test_a_key_rotated_just_before_signing(on: Stage) -> None:
    await on.alice.is_signed_in()
    on.worlds["op"].signer = rsa_key("k3", which="k3")
    on.worlds["op"].keys = [on.worlds["op"].signer]
    await on.bob.is_signed_in()


async def test_a_code_of_another_attempt_fails_at_the_provider(on: Stage) -> None:
    one, two = await on.alice.begins(), await on.alice.begins()
    code = dict(on.alice.signs_in(two))["code"]
    params = changed(on.alice.signs_in(one), code=code)
    assert (await refused(on.alice, params)).reason is Reason.LOGIN_REFUSED


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        pytest.param(Says("<html>", content_type="text/html"), Reason.LOGIN_TOKEN, id="D10_html"),
        pytest.param(Says(status=503), Reason.PROVIDER_UNAVAILABLE, id="D11_away"),
    ],
)
async def test_a_token_endpoint_that_fails(on: Stage, says: Says, reason: Reason) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    on.worlds["op"].lie("/token", says)
    assert (await refused(on.alice, params)).reason is reason
    assert on.worlds["op"].hits["/token"] == 1


async def test_FI30_a_provider_that_is_away_at_the_start(on: Stage) -> None:
    on.worlds["op"].lie("/.well-known/openid-configuration", Says(status=502))
    with pytest.raises(WorldError) as away:
        await on.alice.begins()
    assert away.value.reason is Reason.PROVIDER_UNAVAILABLE
    assert not on.state.values


async def test_a_store_that_is_away_at_the_end(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    on.state.away = True
    with pytest.raises(WorldError) as away:
        await on.alice.comes_back(params)
    assert away.value.reason is Reason.STATE_UNAVAILABLE
    on.state.away = False
    assert isinstance(await on.alice.comes_back(params), Finished)


# Step-up


async def begins_step_up(browser: Browser, **asked: Any) -> Started:
    session = await browser.session()
    assert session is not None
    return await browser.begins(existing=session, **{"rank": 3, **asked})


async def test_a_step_up(on: Stage) -> None:
    first = await on.alice.is_signed_in(acr="mfa")
    assert on.alice.handle is not None
    other_host = await on.state.attach(on.alice.handle, "app.test")
    on.clock.now += 100
    started = await begins_step_up(on.alice, max_age=30.9)
    asked = dict(parse_qsl(urlsplit(started.redirect_url).query))
    assert (asked["acr_values"], asked["max_age"]) == ("phr phrh", "30")
    second = await on.alice.comes_back(on.alice.signs_in(started, acr="phr", auth_time=on.clock.now))
    assert isinstance(second, Finished)
    assert second.handle != first.handle
    assert await on.state.load(first.handle) is None
    assert (second.session.id, second.session.rank) == (first.session.id, 3)
    assert second.session.authenticated_at == on.clock.now
    assert second.session.expires_at == first.session.expires_at
    assert await on.state.load(other_host or "") is None, "no cookie from before is stepped up"


@pytest.mark.parametrize(
    ("subject", "claims", "reason"),
    [
        pytest.param(
            "alice", {"acr": "phr", "auth_time": 1.7e9 - 91}, Reason.STEP_UP_FAILED, id="J70_too_old"
        ),
        pytest.param("alice", {"acr": "phr", "auth_time": ...}, Reason.LOGIN_TOKEN, id="J71_no_auth_time"),
        pytest.param("mallory", {"acr": "phr"}, Reason.LOGIN_OTHER_PERSON, id="J72_another_person"),
    ],
)
async def test_T35_a_step_up_that_fails_changes_nothing(
    on: Stage, subject: str, claims: dict[str, Any], reason: Reason
) -> None:
    await on.bob.is_signed_in()
    await on.alice.is_signed_in(acr="mfa")
    started = await begins_step_up(on.alice, max_age=30)
    on.alice.subject = subject
    outcome = await refused(on.alice, on.alice.signs_in(started, **{"auth_time": 1.7e9, **claims}))
    assert outcome.reason is reason
    session = await on.alice.session()
    assert session is not None and (session.identity.subject, session.rank) == ("alice", 2)


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"acr": "mfa"}, id="weaker"),
        pytest.param({"acr": "urn:strange"}, id="unknown"),
        pytest.param({"amr": ["pwd"]}, id="nothing_said"),
    ],
)
@pytest.mark.parametrize("says_when", [True, False])
async def test_J68_weaker_than_asked_is_asked_for_once_more_and_then_a_page_says_so(
    on: Stage, claims: dict[str, Any], says_when: bool
) -> None:
    await on.alice.is_signed_in(acr="mfa")
    if says_when:
        claims = {**claims, "auth_time": on.clock.now}
    before = on.sessions()
    started = await begins_step_up(on.alice)
    again = await on.alice.comes_back(on.alice.signs_in(started, **claims))
    assert isinstance(again, Started) and on.sessions() == before
    assert again.clear_cookies == (started.cookie_name,)
    asked = dict(parse_qsl(urlsplit(again.redirect_url).query))
    assert (asked["prompt"], asked["acr_values"]) == ("login", "phr phrh")
    assert asked.get("max_age") == ("0" if says_when else None), "or it would be refused for not saying when"
    outcome = await refused(on.alice, on.alice.signs_in(again, **claims))
    assert (outcome.reason, outcome.return_to) == (Reason.STEP_UP_FAILED, "/")
    assert not on.state.values


async def test_J68_a_provider_that_looks_at_what_is_asked_only_when_it_asks(on: Stage) -> None:
    first = await on.alice.is_signed_in(acr="mfa")
    again = await on.alice.comes_back(on.alice.signs_in(await begins_step_up(on.alice), acr="mfa"))
    assert isinstance(again, Started)
    finished = await on.alice.comes_back(on.alice.signs_in(again, acr="phr"))
    assert isinstance(finished, Finished)
    assert (finished.session.id, finished.session.rank) == (first.session.id, 3)


async def test_J70_asked_for_more_a_provider_that_remembers_is_too_weak_and_not_overtaken(on: Stage) -> None:
    await on.alice.is_signed_in()
    old = {"acr": "mfa", "auth_time": on.clock.now - 500}
    again = await on.alice.comes_back(on.alice.signs_in(await begins_step_up(on.alice), **old))
    assert isinstance(again, Started)
    outcome = await refused(on.alice, on.alice.signs_in(again, **{**old, "acr": "phr"}))
    assert outcome.reason is Reason.STEP_UP_FAILED


async def test_a_provider_that_says_it_cannot_is_not_asked_again(on: Stage) -> None:
    await on.alice.is_signed_in()
    said = on.alice.signs_in(await begins_step_up(on.alice))
    said = changed(said, code=None, error="unmet_authentication_requirements")
    assert (await refused(on.alice, said)).reason is Reason.STEP_UP_FAILED


async def test_a_revocation_before_the_second_try_is_not_hidden_by_it(on: Stage) -> None:
    """The second try begins after the lock: only the person themselves gets past it."""
    started = await on.alice.begins(rank=3)
    on.lease.lock(Target(TargetKind.USER, "alice", on.worlds["op"].issuer), made_at=on.clock.now)
    old = {"auth_time": on.clock.now - 30}
    again = await on.alice.comes_back(on.alice.signs_in(started, acr="mfa", **old))
    assert isinstance(again, Started)
    outcome = await refused(on.alice, on.alice.signs_in(again, acr="phr", **old))
    assert outcome.reason is Reason.LOGIN_REVOKED


async def test_J77_a_mailbox_with_a_new_owner_is_another_person(on: Stage) -> None:
    mailbox = {"email": "a@corp.test", "email_verified": True}
    first = await on.alice.is_signed_in(**mailbox)
    started = await begins_step_up(on.alice, rank=1)
    outcome = await refused(on.alice, on.bob.signs_in(started, **mailbox))
    assert outcome.reason is Reason.LOGIN_OTHER_PERSON
    new = await on.bob.is_signed_in(**mailbox)
    assert new.session.id != first.session.id and len(on.sessions()) == 2


@pytest.mark.parametrize(
    ("asks_by", "asked"),
    [
        pytest.param("acr_values", ("phr phrh", None), id="acr_values"),
        pytest.param(
            "claims",
            (
                None,
                '{"id_token":{"acr":{"essential":true,"values":["phr","phrh"]},"auth_time":{"essential":true}}}',
            ),
            id="claims",
        ),
        pytest.param(
            "both",
            (
                "phr phrh",
                '{"id_token":{"acr":{"essential":true,"values":["phr","phrh"]},"auth_time":{"essential":true}}}',
            ),
            id="both",
        ),
    ],
)
async def test_a_provider_is_asked_as_it_wants_to_be(asks_by: str, asked: tuple[str | None, ...]) -> None:
    async with stage(asks_by=asks_by) as on:
        first = await on.alice.begins()
        query = dict(parse_qsl(urlsplit(first.redirect_url).query))
        assert "claims" not in query and "acr_values" not in query and "max_age" not in query
        started = await on.alice.begins(rank=3, max_age=60)
        for _ in range(2):  # what is asked for once more is asked in the same way
            query = dict(parse_qsl(urlsplit(started.redirect_url).query))
            assert (query.get("acr_values"), query.get("claims")) == asked
            assert "max_age" in query
            weak = on.alice.signs_in(started, acr="mfa", auth_time=on.clock.now)
            outcome = await on.alice.comes_back(weak)
            started = outcome if isinstance(outcome, Started) else started


async def test_a_rank_is_forgotten_before_its_session_and_another_step_up_renews_it() -> None:
    async with stage(levels=Levels(remember={3: 600.0})) as on:
        await on.alice.is_signed_in(acr="mfa")
        for _ in range(2):
            started = await begins_step_up(on.alice)
            done = await on.alice.comes_back(on.alice.signs_in(started, acr="phr", auth_time=on.clock.now))
            assert isinstance(done, Finished)
            assert done.session.steps == (
                Step(3, on.clock.now + 600),
                Step(2, done.session.expires_at),
            )
            on.clock.now += 700
            renewed = await on.sign_in.refresh(done.handle, done.session)
            assert renewed is not None
            assert renewed.steps == done.session.steps, "a refresh renews nothing that was shown"


async def test_a_rank_that_the_provider_remembers_too_long_is_asked_for_and_not_granted() -> None:
    async with stage(levels=Levels(remember={3: 600.0})) as on:
        await on.alice.is_signed_in()
        old = {"acr": "phr", "auth_time": on.clock.now - 600}
        again = await on.alice.comes_back(on.alice.signs_in(await begins_step_up(on.alice), **old))
        assert isinstance(again, Started) and "max_age=0" in again.redirect_url
        assert (await refused(on.alice, on.alice.signs_in(again, **old))).reason is Reason.STEP_UP_FAILED


async def test_max_age_zero_that_is_accepted_is_fresh_whatever_clocks_may_differ() -> None:
    async with stage(skew=300.0) as on:
        started = await on.alice.begins(max_age=0)
        done = await on.alice.comes_back(on.alice.signs_in(started, auth_time=on.clock.now - 299))
        assert isinstance(done, Finished) and done.session.fresh


async def test_a_sign_in_within_the_limits_of_its_groups() -> None:
    limits = SessionLimits(3600, 36000, (GroupLimits(frozenset({"guests"}), idle=60, absolute=300),))
    async with stage(limits=limits) as on:
        guest = (await on.alice.is_signed_in(groups=["guests"])).session
        other = (await on.bob.is_signed_in(groups=["dev"])).session
        assert (guest.expires_at - on.clock.now, guest.idle) == (300, 60)
        assert (other.expires_at - on.clock.now, other.idle) == (36000, None)
        on.clock.now += 60
        assert await on.alice.session() is None
        assert await on.bob.session() is not None


# The device


async def test_a_new_session_belongs_to_the_device_the_sign_in_ended_on(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    finished = await on.alice.comes_back(params, device=on_device("t1", "d1"))
    assert isinstance(finished, Finished)
    assert (finished.session.certificate, finished.session.device) == ("t1", "d1")
    assert finished.session == await on.alice.session()


async def test_a_sign_in_on_a_device_that_was_lost_meanwhile_makes_nothing(on: Stage) -> None:
    params = on.alice.signs_in(await on.alice.begins())
    on.lease.lock(Target(TargetKind.DEVICE, "d1"))
    outcome = await refused_on(on, params, "t1", "d1")
    assert outcome.reason is Reason.LOGIN_REVOKED


async def refused_on(on: Stage, params: Params, thumbprint: str, id: str) -> Refused:
    return await refused(on.alice, params, device=on_device(thumbprint, id))


@pytest.mark.parametrize(
    ("was", "now", "bound"),
    [
        pytest.param(None, ("t1", "d1"), ("t1", "d1"), id="binds_one_that_is_not"),
        pytest.param(("t1", "d1"), ("t1", "d1"), ("t1", "d1"), id="the_same"),
        pytest.param(("t1", "d1"), None, ("t1", "d1"), id="not_asked_here"),
        pytest.param(("t1", "d1"), ("t2", "d1"), ("t1", "d1"), id="X28_renewed"),
        pytest.param(("t1", "d1"), ("t2", "d2"), None, id="X27_another_device"),
        pytest.param(("t1", None), ("t2", None), None, id="X27_another_certificate"),
    ],
)
async def test_T32_a_session_is_stepped_up_on_its_own_device_alone(
    on: Stage,
    was: tuple[str, str | None] | None,
    now: tuple[str, str | None] | None,
    bound: tuple[str, str] | None,
) -> None:
    first = on.alice.signs_in(await on.alice.begins())
    await on.alice.comes_back(first, device=None if was is None else on_device(*was))
    params = on.alice.signs_in(await begins_step_up(on.alice), acr="phr")
    device = None if now is None else on_device(*now)
    if bound is None:
        outcome = await refused(on.alice, params, device=device)
        assert outcome.reason is Reason.DEVICE_MISMATCH
        return
    done = await on.alice.comes_back(params, device=device)
    assert isinstance(done, Finished)
    assert (done.session.certificate, done.session.device, done.session.rank) == (*bound, 3)


async def test_a_step_up_never_brings_an_ended_session_back(on: Stage) -> None:
    await on.alice.is_signed_in()
    params = on.alice.signs_in(await begins_step_up(on.alice), acr="phr")
    await on.state.end(on.alice.handle or "")
    assert (await refused(on.alice, params)).reason is Reason.SESSION_UNKNOWN
    assert on.sessions() == {}


async def test_a_step_up_without_its_session_in_the_browser(on: Stage) -> None:
    await on.alice.is_signed_in()
    params = on.alice.signs_in(await begins_step_up(on.alice), acr="phr")
    on.alice.handle = None
    assert (await refused(on.alice, params)).reason is Reason.SESSION_UNKNOWN


async def test_a_step_up_after_somebody_else_signed_in_here(on: Stage) -> None:
    await on.alice.is_signed_in()
    params = on.alice.signs_in(await begins_step_up(on.alice), acr="phr")
    await on.bob.is_signed_in()
    on.alice.handle = on.bob.handle
    on.worlds["op"].person = {"sub": "alice", "acr": "phr"}
    assert (await refused(on.alice, params)).reason is Reason.LOGIN_OTHER_PERSON


async def test_a_step_up_after_the_absolute_end(on: Stage) -> None:
    await on.alice.is_signed_in()
    on.clock.now += 35990
    params = on.alice.signs_in(await begins_step_up(on.alice), acr="phr")
    on.clock.now += 10
    assert (await refused(on.alice, params)).reason is Reason.SESSION_EXPIRED


async def test_a_step_up_without_a_refresh_token_keeps_the_old_one(on: Stage) -> None:
    first = await on.alice.is_signed_in()
    before = await on.state.secrets(first.handle)
    started = await begins_step_up(on.alice)
    on.worlds["op"].token = {"refresh_token": ...}
    finished = await on.alice.comes_back(on.alice.signs_in(started, acr="phr"))
    assert isinstance(finished, Finished)
    after = await on.state.secrets(finished.handle)
    assert before is not None and after is not None
    assert (after.refresh_token, finished.session.refreshable) == (before.refresh_token, True)
    assert after.id_token != before.id_token


class Restless:
    """A store in which the session changes between reading and writing, `times` times."""

    def __init__(self, on: Stage, times: int) -> None:
        self.times, self._on, self._replace = times, on, on.state.replace

    async def replace(self, handle: str, session: Any, secrets: Any) -> str | None:
        if self.times:
            self.times -= 1
            record = next(iter(self._on.state.sessions.values()))
            record.session = replace(record.session, revision=record.session.revision + 1)
        return await self._replace(handle, session, secrets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._on.state, name)


@pytest.mark.parametrize(
    ("times", "outcome"),
    [pytest.param(2, Finished, id="it_settles"), pytest.param(3, Refused, id="it_never_settles")],
)
async def test_a_step_up_of_a_session_that_changes_meanwhile(
    on: Stage, times: int, outcome: type[Finished | Refused]
) -> None:
    await on.alice.is_signed_in()
    params = on.alice.signs_in(await begins_step_up(on.alice), acr="phr")
    on.sign_in._sessions = Restless(on, times)
    assert isinstance(await on.alice.comes_back(params), outcome)


async def test_a_session_that_ends_as_it_begins(on: Stage) -> None:
    class Forgetful(Restless):
        async def create(self, *given: Any) -> str:
            handle = await on.state.create(*given)
            await on.state.end(handle)
            return handle

    params = on.alice.signs_in(await on.alice.begins())
    on.sign_in._sessions = Forgetful(on, 0)
    assert (await refused(on.alice, params)).reason is Reason.SESSION_UNKNOWN
