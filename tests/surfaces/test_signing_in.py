"""Signing in and out as people and attackers do it: browsers, a provider that may lie, real sockets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest

from tests.core.words import EVERYONE, ask, policy, site
from tests.worlds.front import APP, AUTH, PAGE, SIGNED_IN, Browser, Front, Page, front
from tests.worlds.lying_provider import Says
from tests.worlds.verifying import certificate
from ztproxy.core.conditions import AllOf, AnyOf, Authenticated, InGroup, RankAtLeast
from ztproxy.core.device import Device, Status
from ztproxy.core.device_conditions import DeviceApproved
from ztproxy.core.identity import Step
from ztproxy.core.locks import Action, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import Route, Sensitivity
from ztproxy.errors import ClientError
from ztproxy.gateway.known import RELIED_ON
from ztproxy.gateway.ports import Seen
from ztproxy.gateway.sign_in import STARTS_PER_SECOND
from ztproxy.surfaces.portal import Asked

XHR = {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}
FORM = {**PAGE, "Sec-Fetch-Site": "same-origin"}
STRONG = policy(RankAtLeast(2))
OWN = "/.ztproxy"


def app(rules: Any = SIGNED_IN, **more: Any) -> Route:
    return site(rules, **more)


def other(rules: Any = SIGNED_IN, **more: Any) -> Route:
    return site(rules, name="other", host="other.test", **more)


def wild(rules: Any = SIGNED_IN) -> Route:
    return site(rules, name="wild", host="*.wild.test")


@pytest.fixture
async def one() -> AsyncIterator[Front]:
    """One host, which signs people in itself."""
    async with front(app()) as built:
        yield built


@pytest.fixture
async def sso() -> AsyncIterator[Front]:
    """An auth host with apps at three places, one of them open to everyone."""
    routes = (app(), other(), wild(), site(EVERYONE, name="open", host="open.test"))
    async with front(*routes, auth=AUTH) as built:
        yield built


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query, keep_blank_values=True).items()}


async def unchanged(it: Front, browser: Browser, url: str, **how: Any) -> Page:
    """Asks, and no session and no session cookie has changed."""
    before, cookies = it.state.snapshot(), {host: browser.session(host) for host in browser.jar}
    page = await browser.ask(url, **how)
    assert it.state.snapshot() == before
    assert {host: browser.session(host) for host in cookies} == cookies
    return page


# -- the ordinary way -------------------------------------------------------------------------------------


async def test_one_host(one: Front) -> None:
    alice = one.browser()
    page = await alice.open(f"{APP}/reports?year=1")
    assert (page.status, page.url) == (200, f"{APP}/reports?year=1")
    assert one.logins == [("op", "ok")]
    assert [exchange.tag.decision for exchange in one.exchanges] == [
        "login",
        "portal",
        "sign_in",
        "portal",
        "forward",
    ]
    record = next(iter(one.state.sessions.values()))
    assert list(record.handles.values()) == ["app.test"]


async def test_single_sign_on_over_many_hosts(sso: Front) -> None:
    alice = sso.browser()
    for url in (f"{APP}/a", "https://other.test/b?c=1", "https://x.wild.test/"):
        page = await alice.open(url)
        assert (page.status, page.url) == (200, url)
    assert sso.logins == [("op", "ok")]
    (record,) = sso.state.sessions.values()
    assert sorted(record.handles.values()) == ["app.test", "auth.test", "other.test", "x.wild.test"]
    assert len({alice.session(host) for host in ("app.test", "other.test", "auth.test")}) == 3


async def test_a_handle_is_good_at_its_own_host_only(sso: Front) -> None:
    alice, thief = sso.browser(), sso.browser("mallory")
    await alice.open(APP)
    thief.cookies("other.test")["__Host-ztproxy"] = str(alice.session())
    for url in ("https://other.test/", f"https://other.test{OWN}/user", f"{AUTH}{OWN}/user"):
        assert (await unchanged(sso, thief, url, headers=XHR)).status == 401


async def test_one_cookie_for_a_domain() -> None:
    routes = [site(SIGNED_IN, name=name, host=f"{name}.corp.test") for name in ("a", "b")]
    async with front(*routes, auth="https://auth.corp.test", domain="corp.test") as it:
        alice = it.browser()
        assert (await alice.open("https://a.corp.test/x")).url == "https://a.corp.test/x"
        assert (await alice.ask("https://b.corp.test/y")).status == 200
        (record,) = it.state.sessions.values()
        assert list(record.handles.values()) == ["auth.corp.test"]
        assert list(alice.jar[".corp.test"]) == ["__Secure-ztproxy"]
        page = await alice.ask(f"https://b.corp.test{OWN}/sign_out", FORM, method="POST", body=b"")
        assert page.status == 200
        assert not it.state.sessions and not alice.jar[".corp.test"]


@pytest.mark.parametrize(
    ("url", "end"),
    [
        pytest.param(f"{APP}{OWN}/sign_in?rd=/x", f"{APP}/x", id="one's own host"),
        pytest.param(f"{AUTH}{OWN}/sign_in", f"{AUTH}{OWN}/apps", id="the auth host has no app"),
        pytest.param(
            f"{AUTH}{OWN}/sign_in?rd=/.ztproxy/session", f"{AUTH}{OWN}/session", id="a page of ours"
        ),
        pytest.param(f"https://open.test{OWN}/sign_in", "https://open.test/", id="at an open site"),
        pytest.param(f"{APP}{OWN}/apps", f"{APP}{OWN}/apps", id="my apps"),
        pytest.param(f"{APP}{OWN}/", f"{APP}{OWN}/", id="the session page"),
    ],
)
async def test_whoever_is_signed_in_is_not_sent_to_the_provider_again(sso: Front, url: str, end: str) -> None:
    alice = sso.browser()
    assert (await alice.open(url)).url == end
    hits = sso.op.hits["/token"]
    assert (await alice.open(url)).url == end
    assert hits == sso.op.hits["/token"] == 1


async def test_a_site_without_a_front_door_leads_to_the_apps() -> None:
    async with front(site(SIGNED_IN, segments=("deep",))) as it:
        alice = it.browser()
        assert (await alice.open(f"{APP}{OWN}/sign_in")).url == f"{APP}{OWN}/apps"
        assert (await alice.open(f"{APP}{OWN}/sign_in?rd=/nothing")).status == 404


async def test_a_person_who_is_denied_signs_in_once_and_is_told() -> None:
    async with front(app(policy(InGroup(frozenset({"admin"}))))) as it:
        alice = it.browser()
        page = await alice.open(APP)
        assert (page.status, page.url) == (403, f"{APP}/")
        assert it.op.hits["/token"] == 1


# -- where a sign-in may lead (R rows) --------------------------------------------------------------------

HOSTILE = [
    pytest.param(value, id=name)
    for name, value in {
        "R04": "///evil.test",
        "R07": "\\\\evil.test",
        "R08": "\\/evil.test",
        "R10": "/\n/evil.test",
        "R12": "\t//evil.test",
        "R14": "/%09/evil.test",
        "R15": "/%5cevil.test",
        "R17": "//%2fevil.test",
        "R18": "/.//evil.test",
        "R22": "//evil.test@app.test",
        "R24": "https://evil.test",
        "R25": "https:evil.test",
        "R32": "https://app.test@evil.test/",
        "R40": "javascript:alert(1)",
        "R50": "//evil\u3002test",
        "R55": "\x00//evil.test",
        "R64": "/app\r\nLocation: https://evil.test",
        "R65": "/app%0d%0aLocation:%20https://evil.test",
        "R68": "",
        "R72": "//",
        "R75": "/.ztproxy/logout?next=//evil.test",
        "ours, another case": "/.ZTPROXY/sign_out",
        "our sign-in again": "/.ztproxy/sign_in?rd=/.ztproxy/sign_in",
        "R77": "/\\\\evil.test",
        "R84": "/x//evil.test/..//",
        "too long": "/" + "a" * 3000,
    }.items()
]


@pytest.mark.parametrize("rd", HOSTILE)
async def test_a_sign_in_never_leads_elsewhere(sso: Front, rd: str) -> None:
    alice = sso.browser()
    ways = (f"{APP}{OWN}/sign_in?", f"{AUTH}{OWN}/sign_in?", f"{AUTH}{OWN}/start/op?")
    for way, home in zip(ways, (f"{APP}/", f"{AUTH}{OWN}/apps", f"{AUTH}{OWN}/apps"), strict=True):
        page = await alice.open(f"{way}rd={quote(rd, safe='')}")
        assert page.url == home
        hosts = {urlsplit(step).netloc for step in alice.trail}
        assert hosts <= {"app.test", "auth.test", urlsplit(sso.op.issuer).netloc}


async def test_two_ways_back_are_none(one: Front) -> None:
    alice = one.browser()
    assert (await alice.open(f"{APP}{OWN}/sign_in?rd=/a&rd=/b")).url == f"{APP}/"


NOT_OURS = [
    pytest.param(value, id=name)
    for name, value in {
        "another site": "https://evil.test",
        "none": "",
        "our host at another port": "https://app.test:8443",
        "our host in plain": "http://app.test",
        "upper case": "https://APP.TEST",
        "a path behind it": "https://app.test/",
        "userinfo": "https://app.test@evil.test",
        "userinfo before": "https://evil.test@app.test",
        "the auth host itself": AUTH,
        "two labels for a wildcard": "https://a.b.wild.test",
        "the wildcard as written": "https://*.wild.test",
        # A browser takes `\` for `/`: this would be the host 192.168.1.1, with a ticket in its path.
        "an address before a backslash": "https://3232235777\\x.wild.test",
        "a host before a question mark": "https://evil?x.wild.test",
        "a host before a hash": "https://evil#x.wild.test",
        "a port before a backslash": "https://3232235777:80\\x.wild.test",
        "a tab in it": "https://app\t.test",
        "a full stop of another script": "https://evil\u3002test\u3002wild.test",
        "a label of another script": "https://\u24d4vil.wild.test",
        "a broken address": "https://[::1",
        "no host": "https://",
        "a script": "javascript:alert(1)//app.test",
    }.items()
]


@pytest.mark.parametrize("origin", NOT_OURS)
@pytest.mark.parametrize("page", ["authorize", "start/op"])
async def test_the_auth_host_sends_nobody_to_a_stranger(sso: Front, page: str, origin: str) -> None:
    alice = sso.browser()
    await alice.open(f"{AUTH}{OWN}/apps")
    values = dict(sso.state.values)
    url = f"{AUTH}{OWN}/{page}?app={quote(origin, safe='')}&rd=/&bind={'0' * 64}"
    answer = await unchanged(sso, alice, url)
    assert (answer.status, answer.location) == (400, "")
    assert sso.state.values == values  # no ticket and no sign-in was written
    assert sso.exchanges[-1].tag.reasons == (Reason.HTTP_TARGET,)


@pytest.mark.parametrize("page", [f"authorize?app={APP}&rd=/", f"start/op?app={APP}&rd=/"])
async def test_only_the_auth_host_authorizes(sso: Front, page: str) -> None:
    assert (await unchanged(sso, sso.browser(), f"{APP}{OWN}/{page}")).status == 400


async def test_a_host_that_is_not_ours_has_no_sign_in(one: Front) -> None:
    assert (await one.browser().ask(f"https://evil.test{OWN}/sign_in")).status == 421
    with pytest.raises(ClientError):
        one.worker.signing_in.sign_in_first(Asked(ask("/", host="evil.test"), "r1"))


async def test_f17_a_forwarding_field_chooses_no_redirect_uri(one: Front) -> None:
    headers = {**PAGE, "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "http", "Forwarded": "host=evil"}
    page = await one.browser().ask(f"{APP}{OWN}/sign_in", headers)
    assert query(page.location)["redirect_uri"] == f"{APP}{OWN}/callback/op"


async def test_f24_what_the_provider_is_asked(one: Front) -> None:
    asked = query((await one.browser().ask(f"{APP}{OWN}/sign_in")).location)
    assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256"
    assert min(map(len, (asked["code_challenge"], asked["state"], asked["nonce"]))) == 43


# -- the provider's answer --------------------------------------------------------------------------------


async def _callback(it: Front, browser: Browser) -> str:
    """A callback URL for a sign-in this browser has begun."""
    page = await browser.ask(f"{APP}{OWN}/sign_in")
    return browser.at_provider(it.op, page.location)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param(lambda url: url.replace("state=", "stat="), 400, id="F01 no state"),
        pytest.param(lambda url: url.replace("state=", "state=A"), 400, id="F02 another state"),
        pytest.param(lambda url: url + "&state=x", 400, id="a state twice"),
        pytest.param(lambda url: re.sub("iss=[^&]*", "", url).rstrip("&"), 400, id="F07 no iss"),
        pytest.param(lambda url: re.sub("iss=[^&]*", "iss=https://evil.test", url), 400, id="F08 mix-up"),
        pytest.param(
            lambda url: re.sub("code=[^&]*", "error=access_denied&error_description=%3Cscript%3E", url),
            403,
            id="F10 refused",
        ),
        pytest.param(lambda url: url + "&error=x", 400, id="F11 error and code"),
        pytest.param(lambda url: url + "&id_token=secret-token", 400, id="F12 a token in the query"),
        pytest.param(
            lambda url: url.replace("callback/op", "callback/other"), 400, id="F15 another issuer's path"
        ),
        pytest.param(lambda url: url.replace("callback/op", "callback/"), 400, id="no issuer's path"),
        pytest.param(lambda url: url.replace("app.test", "other.test"), 400, id="F14 another host"),
    ],
)
async def test_an_answer_that_cannot_be_accepted(change: Any, status: int) -> None:
    async with front(app(), other(), providers=("op", "other")) as it:
        alice = it.browser()
        page = await alice.ask(f"{APP}{OWN}/start/op")
        url = change(alice.at_provider(it.op, page.location))
        alice.jar["other.test"] = dict(alice.cookies("app.test"))
        page = await unchanged(it, alice, url)
        assert page.status == status
        assert "<script>" not in page.text and "secret-token" not in page.text and "evil" not in page.text
        assert not it.state.sessions
        assert it.exchanges[-1].tag.reasons[0].startswith("login_")


async def test_f04_the_answer_of_an_attackers_sign_in(one: Front) -> None:
    alice, mallory = one.browser(), one.browser("mallory")
    await alice.open(APP)
    url = await _callback(one, mallory)
    page = await unchanged(one, alice, url)
    assert page.status == 400 and "Sign in again" in page.text
    assert (await alice.ask(f"{APP}{OWN}/user", XHR)).json["sub"] == "alice"
    assert (await mallory.ask(url)).status == 400  # used up


async def test_an_answer_is_taken_once(one: Front) -> None:
    alice = one.browser()
    url = await _callback(one, alice)
    assert (await alice.ask(url)).status == 302
    assert (await unchanged(one, alice, url)).status == 400


async def test_an_answer_that_comes_too_late_offers_a_fresh_start(one: Front) -> None:
    alice = one.browser()
    url = await _callback(one, alice)
    one.later(601)
    page = await unchanged(one, alice, url)
    assert page.status == 400 and "took too long" in page.text and f'href="{OWN}/sign_in"' in page.text


async def test_s01_a_planted_session_is_replaced(one: Front) -> None:
    """Mallory's session in Alice's browser: she signs in, his is gone, and nothing of it became hers."""
    mallory, alice = one.browser("mallory"), one.browser()
    await mallory.open(APP)
    planted = str(mallory.session())
    alice.cookies("app.test")["__Host-ztproxy"] = planted
    assert (await alice.ask(await _callback_with_session(one, alice))).status == 302
    assert alice.session() != planted
    assert (await alice.ask(f"{APP}{OWN}/user", XHR)).json["sub"] == "alice"
    assert (await mallory.ask(f"{APP}{OWN}/user", XHR)).status == 401
    assert len(one.state.sessions) == 1


async def _callback_with_session(it: Front, browser: Browser) -> str:
    started = await it.worker.sign_in.start("op", app=APP, return_to=f"{OWN}/sign_in?rd=%2F", cookies={})
    browser.cookies("app.test")[started.cookie_name] = started.cookie_value
    return browser.at_provider(it.op, started.redirect_url)


async def test_a_provider_that_is_away_is_told_and_nothing_changes(one: Front) -> None:
    alice = one.browser()
    url = await _callback(one, alice)
    one.op.lie("/token", Says(status=503))
    page = await unchanged(one, alice, url)
    assert page.status == 502 and not [name for name in alice.cookies("app.test") if "tx" in name]
    assert one.logins == [("op", "provider_unavailable")]


async def test_a_provider_that_is_away_before_the_start(one: Front) -> None:
    one.op.lie("/.well-known/openid-configuration", Says(status=500))
    page = await unchanged(one, one.browser(), f"{APP}{OWN}/sign_in")
    assert page.status == 502 and not page.set_cookies


@pytest.mark.parametrize(
    "url", [f"{APP}{OWN}/sign_in", f"{AUTH}{OWN}/authorize?app={APP}", f"{AUTH}{OWN}/apps"]
)
async def test_a_store_that_is_away_sends_nobody_round_in_circles(sso: Front, url: str) -> None:
    alice = sso.browser()
    await alice.open(f"{AUTH}{OWN}/apps")
    sso.later(RELIED_ON)
    sso.state.away = True
    page = await alice.ask(url if AUTH in url else f"{AUTH}{OWN}/sign_in")
    assert (page.status, page.location, page.set_cookies) == (503, "", [])
    assert page.field("retry-after") == "1"


# -- loops and floods -------------------------------------------------------------------------------------


async def test_f22_the_sixth_start_within_a_minute_is_a_page_with_a_button(one: Front) -> None:
    alice = one.browser()
    for _ in range(5):
        assert (await alice.ask(f"{APP}{OWN}/sign_in?rd=/x")).status == 302
    page = await unchanged(one, alice, f"{APP}{OWN}/sign_in?rd=/x")
    assert page.status == 429 and not page.set_cookies and page.field("retry-after") == "60"
    again = re.search(r'href="([^"]*by_hand=1)"', page.text)
    assert again is not None
    started = await alice.ask(APP + again[1].replace("&amp;", "&"))
    assert started.status == 302
    assert len([name for name in alice.cookies("app.test") if "tx" in name]) <= 5
    assert (await alice.open(alice.at_provider(one.op, started.location))).url == f"{APP}/x"


async def test_t24_a_flood_of_sign_ins_is_told_when_to_come_again(one: Front) -> None:
    start = f"{APP}{OWN}/sign_in?rd=/x"
    for _ in range(STARTS_PER_SECOND):
        assert (await one.browser().ask(start)).status == 302
    page = await unchanged(one, one.browser(), start)
    assert (page.status, page.field("retry-after"), page.set_cookies) == (429, "1", [])
    assert one.exchanges[-1].tag.reasons == (Reason.LOGIN_TOO_MANY,)
    one.later(1)
    assert (await one.browser().ask(start)).status == 302


async def test_a_loop_in_which_every_sign_in_succeeds_stops_too(one: Front) -> None:
    alice = one.browser()
    for _ in range(5):
        assert (await alice.open(f"{APP}{OWN}/sign_in")).status == 200
        del alice.cookies("app.test")["__Host-ztproxy"]  # as if it never stayed
    assert (await alice.ask(f"{APP}{OWN}/sign_in")).status == 429
    one.later(61)
    assert (await alice.open(f"{APP}{OWN}/sign_in")).status == 200


async def test_a_loop_over_the_auth_host_stops_too(sso: Front) -> None:
    alice = sso.browser()
    for _ in range(5):
        assert (await alice.open(f"{APP}{OWN}/sign_in?rd=/x")).status == 200
        del alice.cookies("app.test")["__Host-ztproxy"]
    page = await unchanged(sso, alice, f"{APP}{OWN}/sign_in?rd=/x")
    assert page.status == 429
    again = re.search(r'href="([^"]*by_hand=1)"', page.text)
    assert again is not None
    assert (await alice.open(APP + again[1].replace("&amp;", "&"))).url == f"{APP}/x"


async def test_the_button_works_behind_a_chooser_too() -> None:
    async with front(app(), providers=("op", "other")) as it:
        alice = it.browser()
        for _ in range(5):
            assert (await alice.ask(f"{APP}{OWN}/start/other?rd=/x")).status == 302
        page = await alice.ask(f"{APP}{OWN}/start/other?rd=/x")
        again = re.search(r'href="([^"]*by_hand=1)"', page.text)
        assert page.status == 429 and again is not None
        assert (await alice.open(APP + again[1].replace("&amp;", "&"))).url == f"{APP}/x"


# -- several providers ------------------------------------------------------------------------------------


async def test_a_person_chooses() -> None:
    async with front(app(), other(providers=("other",)), auth=AUTH, providers=("op", "other")) as it:
        alice = it.browser()
        page = await alice.open(f"{APP}/x")
        assert page.status == 200 and "The op" in page.text and "app.test" in page.text
        link = re.search(r'href="([^"]*/start/other[^"]*)"', page.text)
        assert link is not None and not it.state.sessions
        assert (await alice.open(AUTH + link[1].replace("&amp;", "&"))).url == f"{APP}/x"
        (record,) = it.state.sessions.values()
        assert record.session.provider == "other"
        # A route with a single provider asks nobody.
        assert (await it.browser("bob").open("https://other.test/")).url == "https://other.test/"


@pytest.mark.parametrize("name", ["nobody", "op", "*", ""])
async def test_only_a_provider_of_the_route_can_be_chosen(name: str) -> None:
    async with front(app(providers=("other",)), providers=("op", "other")) as it:
        assert (await unchanged(it, it.browser(), f"{APP}{OWN}/start/{name}")).status == 404
        assert not it.state.values


# -- step-up ----------------------------------------------------------------------------------------------


async def test_a_step_up_at_the_auth_host_counts_at_every_host() -> None:
    async with front(app(), other(STRONG), auth=AUTH) as it:
        carol = it.browser("carol")
        assert (await carol.open(f"{APP}/")).status == 200
        (before,) = it.state.sessions.values()
        at_auth = carol.session("auth.test")
        carol.person["acr"] = "mfa"
        page = await carol.open("https://other.test/secret")
        assert (page.status, page.url) == (200, "https://other.test/secret")
        (after,) = it.state.sessions.values()
        assert (after.session.id, after.session.rank) == (before.session.id, 2)
        assert after.session.expires_at == before.session.expires_at
        assert carol.session("auth.test") != at_auth  # T12
        it.later(1)
        assert (await carol.open(f"{APP}/")).status == 200
        assert it.op.hits["/token"] == 2


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        pytest.param({}, "twice answered with less", id="no stronger, asked twice"),
        pytest.param({"sub": "bob", "acr": "mfa"}, "Sign in again", id="somebody else"),
    ],
)
async def test_a_refused_step_up_leaves_the_session(claims: dict[str, Any], says: str) -> None:
    async with front(app(), site(STRONG, name="strong", segments=("strong",))) as it:
        carol = it.browser("carol")
        await carol.open(f"{APP}/")
        before, cookie = it.state.snapshot(), carol.session()
        carol.person |= claims
        page = await carol.open(f"{APP}/strong")
        assert page.status == 403 and says in page.text
        assert (it.state.snapshot(), carol.session()) == (before, cookie)
        assert (await carol.ask(f"{APP}/")).status == 200


async def test_a_sign_in_too_long_ago_is_done_again() -> None:
    fresh = Sensitivity("fresh", signed_in_within=60)
    async with front(app(), site(SIGNED_IN, name="fresh", segments=("fresh",), sensitivity=fresh)) as it:
        alice = it.browser(auth_time=it.clock.now)
        await alice.open(f"{APP}/")
        it.later(61)
        alice.person["auth_time"] = it.clock.now
        assert (await alice.open(f"{APP}/fresh")).status == 200
        assert it.op.hits["/token"] == 2 and len(it.state.sessions) == 1


async def test_a_session_of_a_provider_that_is_no_more_signs_in_anew() -> None:
    rules = policy(AllOf([Authenticated(), RankAtLeast(2)]))
    async with front(
        app(),
        site(rules, name="strong", segments=("strong",), providers=("other",)),
        providers=("op", "other"),
    ) as it:
        carol = it.browser("carol", acr="mfa")
        page = await carol.open(f"{APP}/")
        link = re.search(r'href="([^"]*/start/op[^"]*)"', page.text)
        assert link is not None
        carol.person.pop("acr")
        await carol.open(APP + link[1].replace("&amp;", "&"))
        carol.person["acr"] = "mfa"
        assert (await carol.open(f"{APP}/strong")).status == 200
        assert [record.session.provider for record in it.state.sessions.values()] == ["other"]


# -- tickets ----------------------------------------------------------------------------------------------


async def _ticket(it: Front, browser: Browser, app: str = APP) -> str:
    """The URL with a ticket that is about to be opened at the app's host."""
    invited = await browser.ask(f"{app}{OWN}/sign_in?rd=/x")
    page = await browser.ask(invited.location)
    if page.location.startswith(it.op.issuer):
        page = await browser.ask(browser.at_provider(it.op, page.location))
        page = await browser.ask(AUTH + urlsplit(page.location)._replace(scheme="", netloc="").geturl())
    assert page.location.startswith(f"{app}{OWN}/ticket?code="), page
    return page.location


async def test_a_ticket_is_good_once(sso: Front) -> None:
    alice = sso.browser()
    url = await _ticket(sso, alice)
    assert (await alice.ask(url)).location == f"{APP}/x"
    assert (await unchanged(sso, alice, url)).status == 400


@pytest.mark.parametrize("code", ["", "x", "00000000." + "A" * 43, "*", "00000000." + "A" * 4000])
async def test_a_ticket_nobody_issued(sso: Front, code: str) -> None:
    alice = sso.browser()
    await alice.open(APP)
    for url in (
        f"{APP}{OWN}/ticket?code={code}",
        f"{APP}{OWN}/ticket",
        f"{APP}{OWN}/ticket?code={code}&code=a",
    ):
        assert (await unchanged(sso, alice, url)).status == 400


async def test_a_ticket_of_another_browser_signs_nobody_in(sso: Front) -> None:
    """Login CSRF over the ticket: Alice follows a link with Mallory's ticket."""
    alice, mallory = sso.browser(), sso.browser("mallory")
    await alice.open(APP)
    url = await _ticket(sso, mallory)
    assert (await unchanged(sso, alice, url)).status == 400
    assert (await unchanged(sso, mallory, url)).status == 400  # used up
    assert (await alice.ask(f"{APP}{OWN}/user", XHR)).json["sub"] == "alice"


async def test_a_ticket_for_another_app(sso: Front) -> None:
    alice = sso.browser()
    url = await _ticket(sso, alice)
    alice.jar["other.test"] = dict(alice.cookies("app.test"))
    assert (await unchanged(sso, alice, url.replace("app.test", "other.test"))).status == 400
    assert (await unchanged(sso, alice, url)).status == 400


async def test_a_ticket_that_is_too_old(sso: Front) -> None:
    alice = sso.browser()
    url = await _ticket(sso, alice)
    sso.later(31)
    assert (await unchanged(sso, alice, url)).status == 400


async def test_a_ticket_of_a_session_that_has_ended(sso: Front) -> None:
    alice = sso.browser()
    url = await _ticket(sso, alice)
    await sso.state.end(next(iter(next(iter(sso.state.sessions.values())).handles)))
    page = await unchanged(sso, alice, url)
    assert page.status == 401 and "Please sign in" in page.text


async def test_without_an_invitation_there_is_no_ticket(sso: Front) -> None:
    alice = sso.browser()
    await alice.open(f"{AUTH}{OWN}/apps")
    for bind in ("", "&bind=", "&bind=zz", f"&bind={'0' * 63}", f"&bind={'0' * 64}&bind={'1' * 64}"):
        page = await unchanged(sso, alice, f"{AUTH}{OWN}/authorize?app={APP}{bind}")
        assert (page.status, page.location) == (400, "")


async def test_a_ticket_replaces_whoever_was_signed_in_at_the_app(sso: Front) -> None:
    alice = sso.browser()
    await alice.open(APP)
    first = next(iter(sso.state.sessions))
    # The auth host forgets her, and somebody else signs in there.
    alice.jar.pop("auth.test")
    alice.person = {"sub": "bob"}
    assert (await alice.open(f"{APP}{OWN}/sign_in")).status == 200
    assert (await alice.ask(f"{APP}{OWN}/user", XHR)).json["sub"] == "bob"
    assert first not in sso.state.sessions and len(sso.state.sessions) == 1


# -- signing out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="S25 another site"),
        pytest.param({"Sec-Fetch-Site": "same-site", "Origin": APP}, id="a sibling"),
        pytest.param({"Sec-Fetch-Site": "none"}, id="typed"),
        pytest.param({"Origin": "https://evil.test"}, id="an origin that is not ours"),
        pytest.param({"Origin": "null"}, id="a hidden origin"),
        pytest.param({"Origin": "http://app.test"}, id="our host in plain"),
        pytest.param({}, id="neither"),
    ],
)
async def test_a_form_of_somebody_else_signs_nobody_out(one: Front, headers: dict[str, str]) -> None:
    alice = one.browser()
    await alice.open(APP)
    how: dict[str, Any] = {"headers": {**PAGE, **headers}, "method": "POST", "body": b""}
    page = await unchanged(one, alice, f"{APP}{OWN}/sign_out", **how)
    assert page.status == 403 and not page.set_cookies and "not sent from our own page" in page.text
    assert (await alice.ask(APP)).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_link_signs_nobody_out(one: Front, method: str) -> None:
    alice = one.browser()
    await alice.open(APP)
    page = await unchanged(one, alice, f"{APP}{OWN}/sign_out", method=method)
    assert page.status == 200 and not page.set_cookies
    # A browser without fetch metadata says `Origin: null` under `no-referrer`.
    assert page.field("referrer-policy") == "same-origin"


@pytest.mark.parametrize("headers", [FORM, {**PAGE, "Origin": APP}], ids=["fetch metadata", "origin"])
async def test_signing_out_ends_the_session_everywhere(sso: Front, headers: dict[str, str]) -> None:
    alice = sso.browser()
    await alice.open(APP)
    await alice.open("https://other.test/")
    page = await alice.ask(f"{APP}{OWN}/sign_out", headers, method="POST", body=b"")
    assert page.status == 200 and alice.session() is None and not sso.state.sessions
    assert page.field("clear-site-data") == '"cache"', "nor does the browser show it to the next person"
    onward = urlsplit(str(page.field("refresh")).partition("url=")[2])
    told = query(onward.geturl())
    assert onward.geturl().startswith(sso.op.issuer + "/logout?")
    assert told["post_logout_redirect_uri"] == f"{AUTH}{OWN}/signed_out" and told["id_token_hint"]
    assert (sso.exchanges[-1].tag.decision, sso.exchanges[-1].tag.subject) == ("sign_out", "alice")
    assert (await alice.ask(APP, XHR)).status == 401  # at once, in this worker
    assert (await alice.ask("https://other.test/", XHR)).status == 401
    assert (await alice.ask(told["post_logout_redirect_uri"])).status == 200


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param({"end_session_endpoint": ...}, id="knows no sign-out"),
        pytest.param(None, id="is away"),
        pytest.param({"issuer": "https://evil.test"}, id="lies"),
    ],
)
async def test_the_provider_cannot_keep_anybody_signed_in(sso: Front, lie: dict[str, Any] | None) -> None:
    alice = sso.browser()
    await alice.open(APP)
    sso.reload(app(), other())  # nothing about the provider is remembered
    if lie is None:
        sso.op.lie("/.well-known/openid-configuration", Says(status=503))
    else:
        sso.op.metadata = lie
    page = await alice.ask(f"{APP}{OWN}/sign_out", FORM, method="POST", body=b"")
    assert (page.status, page.location) == (303, f"{AUTH}{OWN}/signed_out")
    assert page.field("clear-site-data") == '"cache"'
    assert alice.session() is None and not sso.state.sessions


async def test_chromium_lets_the_form_lead_to_the_auth_host(sso: Front) -> None:
    page = await sso.browser().ask(f"{APP}{OWN}/sign_out")
    assert f"form-action 'self' {AUTH}" in str(page.field("content-security-policy"))


async def test_signing_out_where_nobody_is_signed_in(sso: Front) -> None:
    """The app's cookie is gone but the auth host's is not: "you are signed out" would not be true."""
    alice = sso.browser()
    await alice.open(APP)
    alice.jar.pop("app.test")
    page = await unchanged(sso, alice, f"{APP}{OWN}/sign_out", headers=FORM, method="POST", body=b"")
    assert (page.status, page.location) == (303, f"{AUTH}{OWN}/sign_out")
    page = await alice.ask(page.location, FORM, method="POST", body=b"")
    assert page.status == 200 and not sso.state.sessions
    page = await alice.ask(f"{AUTH}{OWN}/sign_out", FORM, method="POST", body=b"")
    assert (page.status, page.location) == (303, f"{AUTH}{OWN}/signed_out")


async def test_a_store_that_is_away_signs_nobody_out(one: Front) -> None:
    alice = one.browser()
    await alice.open(APP)
    one.later(RELIED_ON)
    one.state.away = True
    page = await alice.ask(f"{APP}{OWN}/sign_out", FORM, method="POST", body=b"")
    assert page.status == 503 and not page.set_cookies and alice.session() is not None
    one.state.away = False
    assert (await alice.ask(APP)).status == 200


# -- signing out is a revocation --------------------------------------------------------------------------

SIGN_OUT = f"{APP}{OWN}/sign_out"
AS_A_FORM = {**FORM, "Content-Type": "application/x-www-form-urlencoded"}


async def signs_out(browser: Browser, body: bytes = b"", url: str = SIGN_OUT) -> Page:
    return await browser.ask(url, AS_A_FORM, method="POST", body=body)


async def test_signing_out_revokes_the_session_and_no_other(one: Front) -> None:
    alice, phone = one.browser(), one.browser()
    await alice.open(APP)
    await phone.open(APP)
    (first, _) = one.state.sessions
    copied = str(alice.session())
    assert (await signs_out(alice)).status == 200
    (lock,) = one.revoking.locks
    assert (lock.target, lock.revokes) == (Target(TargetKind.SESSION, first), True)
    assert lock.created_by == "alice@corp.test"
    alice.cookies("app.test")["__Host-ztproxy"] = copied
    assert (await alice.ask(APP, XHR)).status == 401
    assert (await phone.ask(APP, XHR)).status == 200


async def test_signing_out_everywhere(sso: Front) -> None:
    alice, phone, bob = sso.browser(), sso.browser(), sso.browser("bob")
    for browser in (alice, phone, bob):
        await browser.open(APP)
        await browser.open("https://other.test/")
    page = await signs_out(alice, b"everywhere=1")
    assert page.status == 200 and "All your 2 sessions have ended" in page.text
    assert "logout" in str(page.field("refresh")) and alice.session() is None
    (lock,) = sso.revoking.locks
    assert (lock.target, lock.created_by) == (
        Target(TargetKind.USER, "alice", sso.op.issuer),
        "alice@corp.test",
    )
    assert (await phone.ask(APP, XHR)).status == 401
    assert (await phone.ask("https://other.test/", XHR)).status == 401
    assert (await bob.ask(APP, XHR)).status == 200


async def test_a_provider_that_is_not_to_be_told(one: Front) -> None:
    alice = one.browser()
    await alice.open(APP)
    one.op.metadata = {"end_session_endpoint": ...}
    one.reload(app())  # nothing about the provider is remembered
    page = await signs_out(alice, b"everywhere=1")
    assert page.status == 200 and "Your session, the only one, has ended" in page.text
    assert f'href="{APP}{OWN}/signed_out"' in page.text and page.field("refresh") is None


@pytest.mark.parametrize("body", [b"everywhere=1", b""], ids=["everywhere", "here"])
@pytest.mark.parametrize("how", ["away", "unconfirmed"])
async def test_what_cannot_be_confirmed_is_not_said(one: Front, how: str, body: bytes) -> None:
    alice = one.browser()
    await alice.open(APP)
    cookie = str(alice.session())
    one.revoking.away, one.revoking.confirms = how == "away", how != "unconfirmed"
    page = await signs_out(alice, body)
    assert page.status == 503 and page.field("retry-after") == "1"
    assert "cannot be confirmed" in page.text and "ended for every app" not in page.text
    assert page.field("refresh") is None and f'href="{one.op.issuer}/logout' in page.text
    assert alice.session() is None and page.field("clear-site-data") == '"cache"'
    assert one.exchanges[-1].tag.reasons == (Reason.STATE_UNAVAILABLE,)
    # Here, at least, it is forgotten.
    alice.cookies("app.test")["__Host-ztproxy"] = cookie
    assert (await alice.ask(APP, XHR)).status == 401


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"everywhere=1&everywhere=1", id="twice"),
        pytest.param(b"x=everywhere", id="as a value"),
        pytest.param(b"Everywhere=1", id="another case"),
    ],
)
async def test_only_the_button_means_everywhere(one: Front, body: bytes) -> None:
    alice = one.browser()
    await alice.open(APP)
    assert (await signs_out(alice, body)).status == 200
    assert [lock.target.kind for lock in one.revoking.locks] == [TargetKind.SESSION]


async def test_a_form_of_somebody_else_revokes_nothing(one: Front) -> None:
    alice = one.browser()
    await alice.open(APP)
    headers = {**AS_A_FORM, "Sec-Fetch-Site": "cross-site"}
    page = await unchanged(one, alice, SIGN_OUT, headers=headers, method="POST", body=b"everywhere=1")
    assert page.status == 403 and not one.revoking.asked


async def test_the_sign_out_page_offers_both(one: Front) -> None:
    page = await one.browser().ask(SIGN_OUT)
    assert page.text.count("<button") == 2 and 'name="everywhere"' in page.text


async def test_whoever_signed_out_everywhere_is_asked_anew_once(one: Front) -> None:
    """The provider remembers her and would say so without a word; ztproxy has it ask."""
    alice = one.browser(auth_time=int(one.clock.now) - 100)
    await alice.open(APP)
    await signs_out(alice, b"everywhere=1")
    page = await alice.open(APP)
    asked = [query(step) for step in alice.trail if step.startswith(f"{one.op.issuer}/authorize")]
    assert [step.get("prompt") for step in asked] == [None, "login"] and asked[1]["max_age"] == "0"
    assert page.status == 403 and Reason.LOGIN_REVOKED.sentence in page.text, "asked, it still remembers"
    assert not one.state.sessions
    alice.person["auth_time"] = int(one.clock.now)
    assert (await alice.open(APP)).status == 200


# -- locks that ask for a sign-in -------------------------------------------------------------------------


@pytest.mark.parametrize("action", [Action.REQUIRE_LOGIN, Action.REQUIRE_STEP_UP])
async def test_a_lock_that_asks_for_a_sign_in_is_met_by_one(one: Front, action: Action) -> None:
    alice = one.browser(acr="mfa", auth_time=int(one.clock.now))
    await alice.open(APP)
    target = Target(TargetKind.USER, "alice", one.op.issuer)
    one.lease.lock(target, action=action, until=one.clock.now + 3600)
    assert (await alice.ask(APP, XHR)).status == 401
    assert (await alice.open(APP)).status == 200
    assert any("max_age=0" in step for step in alice.trail)
    assert len(one.state.sessions) == 1, "a step-up, not a new session"


async def test_a_session_that_was_revoked_is_not_stepped_up(one: Front) -> None:
    alice = one.browser(acr="phr")
    await alice.open(APP)
    (session_id,) = one.state.sessions
    lock = one.lease.lock(Target(TargetKind.SESSION, session_id))
    assert (await alice.open(APP)).status == 200
    assert lock.number == 1 and [one_.session.as_of for one_ in one.state.sessions.values()] == [1]
    assert session_id not in one.state.sessions


async def test_where_a_sign_in_came_from_is_on_record(one: Front) -> None:
    alice = one.browser()
    await alice.open(APP, {**PAGE, "User-Agent": "Firefox on a train"})
    (record,) = one.state.sessions.values()
    assert record.created_from == Seen("127.0.0.1", "app.test", "Firefox on a train")


async def test_without_a_lease_nobody_begins_to_sign_in(one: Front) -> None:
    one.lease.lapse()
    page = await unchanged(one, one.browser(), f"{APP}{OWN}/sign_in")
    assert (page.status, page.location, page.set_cookies) == (503, "", [])
    assert not one.state.values


# -- devices: what they are is told at the app's host alone ------------------------------------------------

OTHER = "https://other.test"
LAPTOP = certificate("laptop-1s", "laptop-1")
PENDING, APPROVED = Device("laptop-1", Status.PENDING), Device("laptop-1", Status.APPROVED)
ON_DEVICE = policy(AllOf([Authenticated(), DeviceApproved()]))
STRONG_ON_DEVICE = policy(AllOf([RankAtLeast(2), DeviceApproved()]))
STRONG_OR_DEVICE = policy(AllOf([Authenticated(), AnyOf([DeviceApproved(), RankAtLeast(2)])]))
CONFIDENTIAL = Sensitivity(rank=2, fresh=True)


def laptop(it: Front, device: Device, *hosts: str) -> None:
    """Browsers are asked at these hosts, and show the laptop's certificate there."""
    it.shown = dict.fromkeys(hosts, "laptop-1s")
    it.verifier.knows(LAPTOP)
    it.devices.devices[device.id] = replace(device, revision=1)


@pytest.mark.parametrize("domain", [None, "test"], ids=["a-cookie-for-each-host", "one-cookie-for-all"])
@pytest.mark.parametrize(
    ("route", "device", "codes"),
    [
        pytest.param(other(ON_DEVICE), APPROVED, 1, id="the-device-alone"),
        pytest.param(other(STRONG_ON_DEVICE), APPROVED, 2, id="a-stronger-sign-in-too"),
        pytest.param(other(STRONG_OR_DEVICE), APPROVED, 1, id="either-and-the-device-will-do"),
        pytest.param(other(STRONG_OR_DEVICE), PENDING, 2, id="either-and-the-device-will-not-do"),
        pytest.param(other(ON_DEVICE, sensitivity=CONFIDENTIAL), APPROVED, 2, id="for-this-very-session"),
    ],
)
async def test_two_hosts_never_send_a_person_to_and_fro(
    domain: str | None, route: Route, device: Device, codes: int
) -> None:
    """`codes`: how often the provider gave one. The auth host knows nothing of devices where cookies are for
    each host; where it is one for all, sessions begin there, and so it asks too (`config.asked`)."""
    async with front(app(), route, auth=AUTH, domain=domain) as it:
        laptop(it, device, "other.test", *(["auth.test"] if domain else []))
        carol = it.browser("carol")
        assert (await carol.open(f"{APP}/")).status == 200
        carol.person |= {"acr": "mfa", "auth_time": int(it.clock())}
        page = await carol.open(f"{OTHER}/secret")
        assert (page.status, page.url) == (200, f"{OTHER}/secret")
        assert it.op.hits["/token"] == codes
        (record,) = it.state.sessions.values()
        bound = device is APPROVED or domain is not None or codes == 2
        assert record.session.certificate == ("laptop-1s" if bound else None)


async def test_what_the_address_asks_for_can_only_be_more() -> None:
    """Whoever writes a link may write a rank into it."""
    async with front(app(), other(ON_DEVICE), auth=AUTH) as it:
        laptop(it, APPROVED, "other.test")
        carol = it.browser("carol")
        await carol.open(f"{APP}/")
        before = it.state.snapshot()
        for rank in ("9", "0", "-1", "x", "2.0", "10", "٣"):
            query_ = urlencode({"app": OTHER, "rd": "/", "bind": "0" * 64, "rank": rank})
            page = await carol.ask(f"{AUTH}{OWN}/authorize?{query_}", PAGE)
            asks = query(page.location).get("acr_values") is not None or "authorize" in page.location
            assert page.status == 302 and asks is (rank == "9"), rank
        assert it.state.snapshot().keys() == before.keys()


async def test_a_session_of_another_device_has_to_end_before_a_host_takes_it_up() -> None:
    async with front(app(), other(ON_DEVICE), auth=AUTH) as it:
        laptop(it, APPROVED, "other.test", "app.test")
        carol = it.browser("carol")
        assert (await carol.open(f"{APP}/")).status == 200
        before = it.state.snapshot()
        it.verifier.knows(certificate("another", "laptop-2"))
        it.devices.devices["laptop-2"] = Device("laptop-2", Status.APPROVED, revision=1)
        it.shown["other.test"] = "another"
        page = await carol.open(f"{OTHER}/")
        assert page.status == 401 and "began on another device" in page.text and "sign_out" in page.text
        assert it.state.snapshot() == before


async def test_a_session_of_a_device_that_shows_no_certificate_here_is_told_so() -> None:
    """The auth host asks nobody, and would take the session for good for ever."""
    plain = site(SIGNED_IN, name="plain", host="other.test", segments=("plain",))
    async with front(app(), other(ON_DEVICE), plain, auth=AUTH) as it:
        laptop(it, APPROVED, "other.test")
        carol = it.browser("carol")
        assert (await carol.open(f"{OTHER}/")).status == 200
        before = it.state.snapshot()
        it.shown["other.test"] = None  # she closed the browser's question this time
        page = await carol.open(f"{OTHER}/plain")
        assert page.status == 401 and "began on another device" in page.text and "sign_out" in page.text
        assert it.state.snapshot() == before


async def test_one_cookie_for_all_and_a_session_from_before_the_device_had_a_certificate() -> None:
    async with front(app(), other(ON_DEVICE), auth=AUTH, domain="test") as it:
        laptop(it, APPROVED, "other.test", "auth.test")
        it.shown["auth.test"] = None
        carol = it.browser("carol")
        await carol.open(f"{APP}/")
        it.shown["auth.test"] = "laptop-1s"
        page = await carol.open(f"{OTHER}/x")
        assert (page.status, page.url) == (200, f"{OTHER}/x")
        (record,) = it.state.sessions.values()
        assert record.session.certificate == "laptop-1s"


@pytest.mark.parametrize(
    "at_auth", [None, "another"], ids=["none-at-the-auth-host", "another-at-the-auth-host"]
)
async def test_one_cookie_for_all_and_a_device_that_differs_from_host_to_host(at_auth: str | None) -> None:
    async with front(app(), other(ON_DEVICE), auth=AUTH, domain="test") as it:
        laptop(it, APPROVED, "other.test", "auth.test")
        it.verifier.knows(certificate("another", "laptop-2"))
        it.devices.devices["laptop-2"] = Device("laptop-2", Status.APPROVED, revision=1)
        it.shown["auth.test"] = at_auth
        carol = it.browser("carol")
        page = await carol.open(f"{OTHER}/x")
        assert page.status == 401 and "sign in again" in page.text and it.op.hits["/token"] == 2
        # With the device at both, the link on that page is the way out.
        it.shown["auth.test"] = "laptop-1s"
        link = re.search(r'href="([^"]*/sign_in[^"]*)"', page.text)
        assert link is not None
        page = await carol.open(OTHER + link[1].replace("&amp;", "&"))
        assert (page.status, page.url) == (200, f"{OTHER}/x")


async def test_one_cookie_for_all_and_several_providers() -> None:
    """The page on which one is chosen comes before the sign-in that binds, too."""
    async with front(other(ON_DEVICE), app(), auth=AUTH, domain="test", providers=("op", "more")) as it:
        laptop(it, APPROVED, "other.test", "auth.test")
        it.shown["auth.test"] = None
        carol = it.browser("carol")
        for shown, end in ((None, f"{APP}/"), ("laptop-1s", f"{OTHER}/x")):
            it.shown["auth.test"] = shown
            page = await carol.open(end)
            link = re.search(r'href="([^"]*/start/op[^"]*)"', page.text)
            assert link is not None
            assert (await carol.open(AUTH + link[1].replace("&amp;", "&"))).url == end


async def test_a_route_of_one_provider_and_of_devices_for_who_signed_in_with_another() -> None:
    routes = app(providers=("op",)), other(ON_DEVICE, providers=("more",))
    async with front(*routes, auth=AUTH, providers=("op", "more")) as it:
        laptop(it, APPROVED, "other.test")
        carol = it.browser("carol")
        assert (await carol.open(f"{APP}/")).status == 200
        page = await carol.open(f"{OTHER}/x")
        assert (page.status, page.url) == (200, f"{OTHER}/x")
        (record,) = it.state.sessions.values()
        assert (record.session.provider, record.session.certificate) == ("more", "laptop-1s")


async def test_a_lock_that_asks_for_more_is_met_at_the_auth_host_for_a_route_of_devices_too() -> None:
    async with front(app(), other(ON_DEVICE), auth=AUTH) as it:
        laptop(it, APPROVED, "other.test")
        carol = it.browser("carol", auth_time=int(it.clock.now))
        assert (await carol.open(f"{APP}/")).status == 200
        target = Target(TargetKind.USER, "carol", it.op.issuer)
        it.lease.lock(target, action=Action.REQUIRE_STEP_UP, until=it.clock.now + 3600)
        asked: list[str | None] = []
        provider = carol.at_provider

        def answers(op: Any, url: str) -> str:
            """She uses her second factor where she is asked for it."""
            asked.append(query(url).get("acr_values"))
            carol.person["acr"] = "mfa" if asked[-1] else "pwd"
            return provider(op, url)

        carol.at_provider = answers  # type: ignore[method-assign, assignment]
        assert (await carol.open(f"{OTHER}/x")).status == 200
        assert len(asked) == 1 and asked[0]


async def test_a_lock_asks_again_at_the_auth_host_for_a_rank_that_is_forgotten() -> None:
    async with front(app(), auth=AUTH) as it:
        carol = it.browser("carol", acr="mfa", auth_time=int(it.clock.now))
        it.lease.lock(
            Target(TargetKind.USER, "carol", it.op.issuer),
            action=Action.REQUIRE_STEP_UP,
            until=it.clock.now + 3600,
        )
        await carol.open(f"{APP}/")
        (record,) = it.state.sessions.values()
        record.session = replace(record.session, steps=(Step(2, it.clock.now + 60),), revision=99)
        it.later(61)
        carol.person["auth_time"] = int(it.clock.now)
        assert (await carol.open(f"{APP}/")).status == 200
        assert any("max_age=0" in step for step in carol.trail)


async def test_my_apps_shows_what_needs_a_device_that_nobody_asked_for_here() -> None:
    async with front(app(), other(ON_DEVICE), auth=AUTH) as it:
        laptop(it, APPROVED, "other.test")
        carol = it.browser("carol")
        await carol.open(f"{APP}/")
        assert "other.test" in (await carol.open(f"{APP}{OWN}/apps")).text


@pytest.mark.parametrize("where", ["app.test", "auth.test"])
async def test_no_sign_in_ends_while_nobody_can_tell_the_device(where: str) -> None:
    """Its session would be bound to nothing, and a copy of its cookie good anywhere (T32)."""
    async with front(app(), auth=AUTH if where == "auth.test" else None) as it:
        laptop(it, APPROVED, where)
        it.verifier.slow.add(b"laptop-1s")
        it.verifier.refused[b"laptop-1s"] = Reason.DEVICE_CERTIFICATE_UNCHECKED
        carol = it.browser("carol")
        page = await carol.open(f"{APP}/")
        assert page.status == 503 and not it.state.sessions and carol.session(where) is None
        del it.verifier.refused[b"laptop-1s"]
        assert (await carol.open(f"{APP}/")).status == 200
        (record,) = it.state.sessions.values()
        assert record.session.certificate == "laptop-1s"
