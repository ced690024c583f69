"""How strongly and how recently somebody signed in: asked for, checked, remembered and forgotten.

Three providers: the demo's, whose ID tokens a test can alter, and the certified oidc-provider twice, asked by
`acr_values` and by `claims`. `app.test`, `values.test` and `claims.test` have the same paths, each at one of
them; whoever signs in does so at `login.test`.

The provider's word about when it asked is believed within a minute (the skew of two clocks), so what is to be
old is an hour old: people at the demo are aged (`aged`), those at Node say so themselves (`ago`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any

import pytest

from tests.node_provider.running import installed, node_provider
from tests.stories.house import Guest, House, house
from tests.stories.neighbours import SUBJECTS, admin_of
from tests.stories.talking import Background, until
from tests.stories.travelling import Traveller, told
from ztproxy.demo.visitor import NAVIGATION, Page

pytestmark = pytest.mark.node

LOGIN, SECRET = "https://login.test", "a+secret/with: odd characters, of 32"
NODE = """\
  - name: {name}
    issuer: $node_{name}
    client_id: {name}
    client_secret: "{secret}"
    scopes: [openid, profile, email]
    asks_by: {asks_by}
"""
PATHS = {
    "strong": "{label: public, least_rank: phishing_resistant}",
    "otp": "{label: public, least_rank: multi_factor}",
    "recent": "{label: public, signed_in_within: 10m}",
    "both": "{label: public, least_rank: 3, signed_in_within: 10m}",
    "fresh": "{label: public, fresh: true}",
    "confidential": "confidential",
    "restricted": "restricted",
}
Claims = dict[str, Any]


def routes(host: str, provider: str) -> str:
    base = f"""\
  - from: https://{host}
    to: http://127.0.0.1:$upstream
    providers: {provider}
    allow_any_authenticated_user: true
"""
    beneath = (
        f"{base}    prefix: /{path}\n    sensitivity: {sensitivity}\n" for path, sensitivity in PATHS.items()
    )
    return "".join(beneath) if host == "app.test" else base + "".join(beneath)


def ends(background: Background, node: AbstractAsyncContextManager[str]) -> None:
    background.run(node.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    installed()
    with ExitStack() as stack:
        background = Background()
        stack.callback(background.close)
        issuers = {}
        for name in ("values", "claims"):
            node = node_provider(
                {
                    "client_id": name,
                    "client_secret": SECRET,
                    "redirect_uris": [f"{LOGIN}/.ztproxy/callback/{name}"],
                }
            )
            issuers[name] = background.run(node.__aenter__())
            stack.callback(ends, background, node)
        providers = [
            NODE.format(name=name, secret=SECRET, asks_by=asks_by).replace(f"$node_{name}", issuers[name])
            for name, asks_by in (("values", "acr_values"), ("claims", "claims"))
        ]
        parts = {
            "providers": "".join(providers),
            "settings": f"auth_host: {LOGIN}",
            "route": "    providers: demo",
            "routes": routes("app.test", "demo")
            + routes("other.test", "demo")
            + routes("values.test", "values")
            + routes("claims.test", "claims"),
        }
        hosts = ("app.test", "other.test", "login.test", "values.test", "claims.test")
        it = stack.enter_context(
            house(tmp_path_factory.mktemp("assurance"), valkey_url, parts=parts, names=hosts)
        )
        it.seen(SECRET)
        it.parts["node"] = " ".join(issuers.values())
        admin_of(it).ready()
        yield it


@pytest.fixture(autouse=True)
def honest(home: House) -> Iterator[None]:
    """Every test begins with a provider that tells the truth and remembers nobody."""
    home.provider.alter_id_token = None
    home.provider.sessions.clear()
    yield
    home.provider.alter_id_token = None


def aged(home: House) -> None:
    """Whoever is signed in at the demo's provider did so an hour ago."""
    for session in home.provider.sessions.values():
        session.auth_time -= 3600


async def about(guest: Guest, host: str = "app.test") -> Any:
    """The session as its owner sees it: all that is known of it."""
    return (await guest.ask(f"https://{host}/.ztproxy/user")).json


HOSTS = pytest.mark.parametrize("host", ["values.test", "claims.test"])


# -- at the certified provider ---------------------------------------------------------------------------


@HOSTS
def test_a_stronger_sign_in_is_asked_for_as_the_provider_wants_it(home: House, host: str) -> None:
    async def story() -> None:
        async with Traveller(home, "alice") as alice:
            await alice.open(f"https://{host}/")
            before = told(home.app.requests[-1])
            alice.way.clear()
            alice.method = "phr"
            page = await alice.open(f"https://{host}/strong/x?y=1")
            assert (page.status, page.url) == (200, f"https://{host}/strong/x?y=1")
            after = told(home.app.requests[-1])
            assert (after["acr"], after["amr"], after["sid"]) == ("phr", ["hwk"], before["sid"])
            assert after["auth_time"] >= before["auth_time"]
            (asked,) = alice.asked
            by_values = "urn:ztproxy:demo:phr phr" if host == "values.test" else None
            by_claims = (
                '{"id_token":{"acr":{"essential":true,"values":["urn:ztproxy:demo:phr","phr"]}}}'
                if host == "claims.test"
                else None
            )
            assert (asked.get("acr_values"), asked.get("claims")) == (by_values, by_claims)
            assert "max_age" not in asked and alice.interactions == 1

    home.run(story())


@HOSTS
def test_a_sign_in_that_is_too_old_is_done_once_more(home: House, host: str) -> None:
    async def story() -> None:
        async with Traveller(home, "alice", ago="3600") as alice:
            await alice.open(f"https://{host}/")
            before = told(home.app.requests[-1])
            alice.way.clear()
            alice.more = {}
            page = await alice.open(f"https://{host}/recent")
            assert (page.status, page.url) == (200, f"https://{host}/recent")
            after = told(home.app.requests[-1])
            assert after["auth_time"] - before["auth_time"] >= 3600 and after["sid"] == before["sid"]
            (asked,) = alice.asked
            assert asked["max_age"] == "600" and "acr_values" not in asked and alice.interactions == 1
            alice.way.clear()
            assert (await alice.open(f"https://{host}/recent")).status == 200
            assert alice.asked == []

    home.run(story())


@HOSTS
def test_a_session_of_its_own_is_asked_for_once_and_no_more(home: House, host: str) -> None:
    """The provider remembers somebody from an hour ago: they are asked anew exactly once."""

    async def story() -> None:
        async with Traveller(home, "alice", "phr", ago="3600") as alice:
            await alice.open(f"https://{host}/")
            alice.forget()
            alice.way.clear()
            alice.more = {}
            # Remembered by the provider, here nobody: signed in without being asked.
            assert (await alice.open(f"https://{host}/")).status == 200
            assert (len(alice.asked), alice.interactions) == (1, 0)
            for path in ("fresh", "confidential", "restricted"):
                assert (await alice.open(f"https://{host}/{path}")).status == 200, path
            assert (len(alice.asked), alice.interactions) == (2, 1)
            assert alice.asked[1]["max_age"] == "0"

    home.run(story())


def test_what_is_essential_and_not_reached_is_an_error_of_the_provider(home: House) -> None:
    """OpenID Connect Core Error Code unmet_authentication_requirements: asked once, and the page."""

    async def story() -> None:
        async with Traveller(home, "alice", "mfa") as alice:
            await alice.open("https://claims.test/")
            before, cookie = await about(alice, "claims.test"), alice.session("https://claims.test")
            alice.way.clear()
            page = await alice.open("https://claims.test/strong")
            assert (page.status, "not strong enough" in page.text) == (403, True)
            assert (len(alice.asked), alice.interactions) == (1, 1)
            assert alice.session("https://claims.test") == cookie
            assert await about(alice, "claims.test") == before

    home.run(story())


@pytest.mark.parametrize(
    ("host", "lies"),
    [
        pytest.param("values.test", {}, id="acr_values are a wish"),
        pytest.param("claims.test", {"lies": "1"}, id="essential claims to one that lies"),
    ],
)
def test_J68_weaker_is_asked_for_once_more_by_the_person_and_then_a_page_says_so(
    home: House, host: str, lies: dict[str, str]
) -> None:
    async def story() -> None:
        async with Traveller(home, "alice", "mfa", **lies) as alice:
            await alice.open(f"https://{host}/")
            before, cookies = await about(alice, host), alice.session(f"https://{host}")
            alice.way.clear()
            page = await alice.open(f"https://{host}/strong")
            assert (page.status, "twice answered with less" in page.text) == (403, True)
            first, second = alice.asked
            assert ("prompt" not in first, second["prompt"], second["max_age"]) == (True, "login", "0")
            assert alice.interactions == 2
            assert (await about(alice, host), alice.session(f"https://{host}")) == (before, cookies)
            # The button of the page is a person's decision, and begins anew.
            alice.way.clear()
            alice.method = "phr"
            assert (await alice.open(f"https://{host}/strong")).status == 200

    home.run(story())


@HOSTS
def test_a_programs_401_says_with_what_to_come_back(home: House, host: str) -> None:
    """RFC 9470: what the field names is what the provider is asked for, and is enough."""

    async def story() -> None:
        async with Traveller(home, "alice", ago="3600") as alice:
            await alice.open(f"https://{host}/")
            before = len(home.app.requests)
            for fields in ({"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, None):
                page = await alice.ask(f"https://{host}/both", fields)
                assert (page.status, page.location, len(home.app.requests)) == (401, "", before)
                challenge = page.headers["WWW-Authenticate"]
                assert 'error="insufficient_user_authentication"' in challenge
                assert 'acr_values="urn:ztproxy:demo:phr phr"' in challenge
                assert "Set-Cookie" not in page.headers
            alice.method, alice.more = "phr", {}
            alice.way.clear()
            assert (await alice.open(page.json["sign_in"])).url == f"https://{host}/both"
            (asked,) = alice.asked
            wanted = asked["acr_values"] if host == "values.test" else asked["claims"]
            assert all(value in wanted for value in page.json["acr_values"].split())
            assert asked.get("max_age", "") == str(page.json.get("max_age", ""))
            assert (await alice.ask(f"https://{host}/both")).status == 200

    home.run(story())


def test_an_old_handle_is_dead_on_every_host(home: House) -> None:
    """T35: whoever copied a cookie before the step-up has nothing, wherever it was good."""

    async def story() -> None:
        async with Traveller(home, "carol") as carol, Traveller(home, "") as thief:
            everywhere = ("https://app.test", "https://other.test", LOGIN)
            for origin in everywhere[:2]:
                await carol.open(f"{origin}/")
            kept = {origin: {"Cookie": carol.session(origin)} for origin in everywhere}
            pages = {**dict.fromkeys(everywhere, "/"), LOGIN: "/.ztproxy/user"}
            for origin, path in pages.items():
                assert (await thief.ask(origin + path, kept[origin])).status == 200
            carol.method = "phr"
            assert (await carol.open("https://app.test/strong")).status == 200
            strong, old = "https://other.test/strong", kept["https://other.test"]
            for origin, path in pages.items():
                # For a moment a worker goes by what it has read: that is of before, and never stronger.
                while (page := await thief.ask(origin + path, kept[origin])).status == 200:
                    assert (await thief.ask(strong, old)).status == 401
                assert page.status == 401, origin
            before = home.provider.hits["authorize"]
            for origin in everywhere[:2]:
                assert (await carol.open(f"{origin}/")).status == 200
                assert {"Cookie": carol.session(origin)} != kept[origin]
            assert home.provider.hits["authorize"] == before

    home.run(story())


# -- at a provider that can be made to say anything ------------------------------------------------------


def test_each_label_asks_for_what_it_says_and_no_more(home: House) -> None:
    """How often the provider is asked, from one path to the next, and how one has to sign in there."""

    async def story() -> None:
        async with home.guest("alice") as alice:
            for path, method, asked in (
                ("", "pwd", 1),
                ("fresh", "pwd", 0),
                ("otp", "mfa", 1),
                ("confidential", "mfa", 0),
                ("strong", "phr", 1),
                ("restricted", "phr", 0),
                ("confidential", "pwd", 0),
            ):
                alice.method = method
                before = home.provider.hits["authorize"]
                page = await alice.open(f"https://app.test/{path}")
                assert (page.status, home.provider.hits["authorize"] - before) == (200, asked), path
        async with home.guest("alice", "phr") as alice:
            # Signed in from nothing, for what is asked: one redirect is enough.
            before = home.provider.hits["authorize"]
            assert (await alice.open("https://app.test/restricted")).status == 200
            assert home.provider.hits["authorize"] - before == 1

    home.run(story())


def test_what_the_provider_remembers_is_not_fresh(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "alice", "phr") as alice:
            await alice.open("https://app.test/")
            aged(home)
            alice.forget()
            before, pages = home.provider.hits["authorize"], home.provider.hits["sign_in"]
            assert (await alice.open("https://app.test/")).status == 200
            assert home.provider.hits["sign_in"] == pages, "the provider remembered"
            # RFC 9470 to a program, and its parameters are enough.
            page = await alice.ask("https://app.test/restricted")
            assert (page.status, page.json["max_age"]) == (401, 0)
            assert (await alice.open(page.json["sign_in"])).url == "https://app.test/restricted"
            assert (await alice.ask("https://app.test/restricted")).status == 200
            assert (home.provider.hits["authorize"] - before, home.provider.hits["sign_in"] - pages) == (2, 1)

    home.run(story())


def changed(**changes: Any) -> Callable[[Claims], Claims]:
    """A provider that says so; `...` takes a claim away, and what is added to a number is said with it."""

    def alter(claims: Claims) -> Claims:
        told = {
            name: value(claims[name]) if callable(value) else value
            for name, value in {**claims, **changes}.items()
        }
        return {name: value for name, value in told.items() if value is not ...}

    return alter


def an_hour_ago(moment: float) -> float:
    return moment - 3600


@pytest.mark.parametrize(
    ("path", "alter", "status", "reason", "asked"),
    [
        pytest.param(
            "strong", changed(acr="urn:ztproxy:demo:mfa"), 403, "step_up_failed", 2, id="J68 weaker"
        ),
        pytest.param(
            "strong", changed(acr="urn:x:top", amr=["pin"]), 403, "step_up_failed", 2, id="J68 unknown"
        ),
        pytest.param("strong", changed(acr=..., amr=...), 403, "step_up_failed", 2, id="J68 nothing said"),
        pytest.param(
            "strong",
            changed(acr="URN:ztproxy:demo:phr", amr=...),
            403,
            "step_up_failed",
            2,
            id="J68 other case",
        ),
        pytest.param(
            "strong",
            changed(acr="urn:ztproxy:demo:pwd"),
            403,
            "step_up_failed",
            2,
            id="J68 weak acr, strong amr",
        ),
        pytest.param("recent", changed(auth_time=an_hour_ago), 403, "step_up_failed", 1, id="J70 too old"),
        pytest.param("recent", changed(auth_time=...), 400, "login_token", 1, id="J71 missing"),
        pytest.param("recent", changed(auth_time="now"), 400, "login_token", 1, id="J71 no time"),
        pytest.param(
            "both", changed(auth_time=an_hour_ago), 403, "step_up_failed", 1, id="J70 strong and too old"
        ),
        pytest.param("strong", changed(sub="mallory"), 403, "login_other_person", 1, id="J72 another person"),
    ],
)
def test_T35_a_step_up_that_fails_leaves_all_as_it_was(
    home: House, path: str, alter: Callable[[Claims], Claims], status: int, reason: str, asked: int
) -> None:
    """A page says so, and nothing is asked again by itself; whoever was signed in still is."""

    async def story() -> None:
        async with home.guest("alice") as alice:
            await alice.open("https://app.test/")
            if path != "strong":
                aged(home)
                alice._cookies.clear()
                await alice.open("https://app.test/")
            before, cookies = await about(alice), alice.session("https://app.test")
            at_login = alice.session(LOGIN)
            everybody = admin_of(home).sessions()
            reached, hits = len(home.app.requests), home.provider.hits["authorize"]
            home.provider.alter_id_token = alter
            alice.method = "phr"
            page = await alice.open(f"https://app.test/{path}")
            assert (page.status, page.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
            assert home.provider.hits["authorize"] - hits == asked
            assert len(home.app.requests) == reached
            assert (await about(alice), alice.session("https://app.test")) == (before, cookies)
            assert alice.session(LOGIN) == at_login
            assert _but_use(admin_of(home).sessions()) == _but_use(everybody)
            assert why(home, page) == [reason]
            assert (await alice.open("https://app.test/")).status == 200

    home.run(story())


def _but_use(sessions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name != "last_seen"} for one in sessions]


def why(home: House, page: Page) -> list[str]:
    """The reasons that were logged for this page, once they are."""

    def lines() -> list[list[str]]:
        return [line["reasons"] for line in home.records("access") if line["request_id"] in page.text]

    until(lines)
    return lines()[0]


def test_J72_bob_in_alices_browser(home: House) -> None:
    """Who steps up as somebody else, in good faith: both stay signed in as they were."""

    async def story() -> None:
        async with Traveller(home, "alice") as alice, Traveller(home, "bob") as bob:
            for one in (alice, bob):
                await one.open("https://values.test/")
            before = [
                (await about(one, "values.test"), one.session("https://values.test")) for one in (alice, bob)
            ]
            # Somebody else sits down at alice's machine: her provider has forgotten her, her cookie is there.
            alice._at_provider.cookie_jar.clear()
            alice.person, alice.method = "bob", "phr"
            page = await alice.open("https://values.test/strong")
            assert (page.status, "somebody else" in page.text) == (403, True)
            assert before == [
                (await about(one, "values.test"), one.session("https://values.test")) for one in (alice, bob)
            ]

    home.run(story())


def test_T35_a_step_up_is_done_once_and_by_whom_it_was_begun(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "alice") as alice, Traveller(home, "alice") as copy:
            await alice.open("https://values.test/")
            alice.method = "phr"
            callback = await alice.up_to("https://values.test/strong", f"{LOGIN}/.ztproxy/callback/")
            # With the cookies of her session, but not that of the sign-in she began.
            stolen = {**NAVIGATION, "Cookie": alice.session(LOGIN)}
            assert (await copy.ask(callback, stolen)).status == 400
            # It is spent by being tried, and she begins again.
            assert (await alice.ask(callback, NAVIGATION)).status == 400
            callback = await alice.up_to("https://values.test/strong", f"{LOGIN}/.ztproxy/callback/")
            assert (await alice.open(callback)).status == 200
            assert (await alice.ask(callback, NAVIGATION)).status == 400

    home.run(story())


def test_T35_a_step_up_revives_nobody(home: House) -> None:
    """Revoked between the redirect to the provider and its answer: there is no session to make stronger."""

    async def story() -> None:
        async with Traveller(home, "bob") as bob:
            await bob.open("https://values.test/")
            session = (await about(bob, "values.test"))["sid"]
            bob.method = "phr"
            callback = await bob.up_to("https://values.test/strong", f"{LOGIN}/.ztproxy/callback/")
            assert admin_of(home).revoke("session", session).confirmed
            page = await bob.ask(callback, NAVIGATION)
            assert page.status in (401, 403), page
            assert (await bob.ask("https://values.test/strong")).status == 401
            there = admin_of(home).sessions("user", "bob", bob.node)
            assert session not in [one["id"] for one in there]

    home.run(story())


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        pytest.param("alice@example.com@evil.test", "login_email", id="J74 two at signs"),
        pytest.param('"a@example.com"@evil.test', "login_email", id="J74 quoted"),
        pytest.param("a@evil.test\n@example.com", "login_email", id="J74 a line end"),
        pytest.param("a@example.com.", "login_email", id="J75 a dot at the end"),
        pytest.param("a@ｅxample.com", "login_email", id="J75 full width"),
    ],
)
def test_an_address_that_could_be_read_in_two_ways_signs_nobody_in(
    home: House, email: str, reason: str
) -> None:
    async def story() -> None:
        async with home.guest("alice") as alice:
            home.provider.alter_id_token = changed(email=email)
            page = await alice.open("https://app.test/")
            assert (page.status, alice.session(LOGIN), alice.session("https://app.test")) == (403, "", "")
            assert why(home, page) == [reason]

    home.run(story())


def test_J77_a_mailbox_with_a_new_owner_inherits_nothing(home: House) -> None:
    async def story() -> None:
        async with home.guest("alice", "phr") as alice, home.guest("mallory") as mallory:
            await alice.open("https://app.test/strong")
            before = await about(alice)
            home.provider.alter_id_token = changed(email="alice@example.com")
            await mallory.open("https://app.test/")
            claims = told(home.app.requests[-1])
            assert (claims["email"], claims["sub"]) == ("alice@example.com", SUBJECTS["mallory"])
            assert claims["sid"] != before["sid"] and claims["groups"] == []
            assert (await mallory.ask("https://app.test/strong")).status == 401
            assert await about(alice) == before

    home.run(story())


# -- for how long ----------------------------------------------------------------------------------------

SHORT = """  levels: [low, code, key]
  remember: {key: 4s}
"""
LIMITS = """session:
  groups:
    - {groups: [contractors], absolute: 4s}
"""
TIMED = """  - from: https://app.test
    prefix: /key
    to: http://127.0.0.1:$upstream
    sensitivity: {label: public, least_rank: key}
    policy: [{allow: {authenticated: true}}]
  - from: https://app.test
    prefix: /ruled
    to: http://127.0.0.1:$upstream
    policy: [{allow: {authenticated: true, acr_rank: code}}]
  - from: https://app.test
    prefix: /vouched
    to: http://127.0.0.1:$upstream
    sensitivity: {label: public, verified_within: 1s}
    allow_any_authenticated_user: true
"""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    """A house where little is remembered, and contractors are let in for a moment."""
    parts = {"assurance": SHORT, "settings": LIMITS, "routes": TIMED}
    with house(tmp_path_factory.mktemp("short"), valkey_url, parts=parts) as it:
        yield it


def test_a_level_is_forgotten_and_the_session_goes_on(short: House) -> None:
    async def story() -> None:
        async with short.guest("alice", "phr") as alice:
            assert (await alice.open("https://app.test/key")).status == 200
            claims = told(short.app.requests[-1])
            assert claims["acr"] == "urn:ztproxy:demo:phr"
            while (page := await alice.ask("https://app.test/key")).status == 200:
                assert told(short.app.requests[-1])["acr"] == "urn:ztproxy:demo:phr"
                await asyncio.sleep(0.05)
            assert (page.status, page.json["reasons"]) == (401, ["step_up_required"])
            assert page.json["acr_values"] == "urn:ztproxy:demo:phr phr"
            # Who proved the key has proved what is below it, and that is not forgotten.
            assert (await alice.ask("https://app.test/ruled")).status == 200
            later = told(short.app.requests[-1])
            assert later["sid"] == claims["sid"]
            assert ("acr" in later, later["amr"]) == (False, []), "how it was proved is no longer told"
            # The provider remembers the key for longer than we do, and that does not renew it here.
            asked = short.provider.hits["sign_in"]
            assert (await alice.open("https://app.test/key")).status == 200
            assert short.provider.hits["sign_in"] == asked + 1
            assert told(short.app.requests[-1])["sid"] == claims["sid"]

    short.run(story())


def test_a_refresh_that_says_contractor_makes_the_session_a_contractors(short: House) -> None:
    """Counted from its beginning. Nobody else's becomes shorter."""

    async def story() -> None:
        async with short.guest("bob") as bob, short.guest("alice") as alice:
            for one in (bob, alice):
                await one.open("https://app.test/")
            short.provider.set_groups("bob", "finance", "contractors")
            try:
                since = len(short.app.requests)
                while (page := await bob.ask("https://app.test/vouched")).status == 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                assert (page.status, page.json["reasons"]) == (401, ["session_expired"])
                seen = [told(request)["groups"] for request in short.app.requests[since:]]
                assert ["finance", "contractors"] in seen
                assert (await bob.ask("https://app.test/")).status == 401
                assert (await alice.ask("https://app.test/vouched")).status == 200
            finally:
                short.provider.set_groups("bob", "finance")

    short.run(story())
