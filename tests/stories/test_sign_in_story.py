"""Signing in for real, at two providers: the demo's and the certified oidc-provider under Node.

The login lives at `login.test`. `app.test` takes either provider, so a page asks; `partners.test` takes
Node's alone, and its `/secure` a security key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import pytest

from tests.node_provider.running import installed, node_provider
from tests.stories.house import House, house
from tests.stories.talking import Background
from tests.stories.travelling import Traveller, told
from ztproxy.demo.visitor import NAVIGATION, Page

pytestmark = pytest.mark.node

LOGIN = "https://login.test"
SECRET = "a+secret/with: odd characters, of 32"
NODE = """\
  - name: node
    title: Partners & friends
    issuer: {issuer}
    client_id: partners
    client_secret: "{secret}"
    scopes: [openid, profile, email]
    userinfo: true
"""
PARTNERS = """\
  - from: https://partners.test
    name: partners
    to: http://127.0.0.1:$upstream
    providers: node
    policy:
      - name: with a security key
        allow: {domain: example.com, acr_rank: 3, path: {prefix: /secure}}
      - name: partners
        allow: {domain: example.com, none_of: [{path: {prefix: /secure}}]}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    installed()
    client: dict[str, object] = {
        "client_id": "partners",
        "client_secret": SECRET,
        "redirect_uris": [f"{LOGIN}/.ztproxy/callback/node"],
        "post_logout_redirect_uris": [f"{LOGIN}/.ztproxy/signed_out"],
    }
    background = Background()
    node = node_provider(client)
    issuer = background.run(node.__aenter__())
    parts = {
        "providers": NODE.format(issuer=issuer, secret=SECRET),
        "settings": f"auth_host: {LOGIN}",
        "routes": PARTNERS,
    }
    try:
        hosts = ("app.test", "login.test", "partners.test")
        with house(tmp_path_factory.mktemp("sign-in"), valkey_url, parts=parts, names=hosts) as it:
            it.seen(SECRET)
            it.parts["node"] = issuer
            yield it
    finally:
        background.run(node.__aexit__(None, None, None))
        background.close()


def links(page: Page) -> list[tuple[str, str]]:
    """Where the choices of a chooser page lead, and what they are called."""
    found = re.findall(r'<a[^>]*href="([^"]*/start/[^"]*)"[^>]*>(.*?)</a>', page.text, re.DOTALL)
    return [
        (urljoin(page.url, unescape(href)), unescape(re.sub(r"<[^>]*>", "", text)).strip())
        for href, text in found
    ]


def test_a_page_asks_which_provider(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "alice") as alice:
            page = await alice.open("https://app.test/u?x=1")
            assert (page.status, urlsplit(page.url).netloc) == (200, "login.test")
            choices = links(page)
            assert [text for _, text in choices] == ["Demo provider", "Partners & friends"]
            page = await alice.open(choices[1][0])
            assert (page.status, page.url, page.text) == (200, "https://app.test/u?x=1", "ok")
            claims = told(home.app.requests[-1])
            assert (claims["idp"], claims["sub"], claims["email"]) == (
                alice.node,
                "alice",
                "alice@example.com",
            )
            assert (claims["groups"], claims["acr"], claims["amr"]) == (["engineering"], "pwd", ["pwd"])
        async with Traveller(home, "alice") as alice:
            page = await alice.open((links(await alice.open("https://app.test/"))[0])[0])
            assert (page.status, page.url) == (200, "https://app.test/")
            claims = told(home.app.requests[-1])
            # The same name at another provider is another person.
            assert claims["idp"] == home.issuer and claims["sub"] != "alice"

    home.run(story())


def test_a_route_of_one_provider_does_not_ask(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "bob") as bob:
            page = await bob.open("https://partners.test/a/b?c=d")
            assert (page.status, page.url) == (200, "https://partners.test/a/b?c=d")
            assert [urlsplit(url).path for url in bob.way if urlsplit(url).netloc == "login.test"] == [
                "/.ztproxy/authorize",
                "/.ztproxy/callback/node",
                "/.ztproxy/authorize",
            ]
            claims = told(home.app.requests[-1])
            assert (claims["email"], claims["aud"]) == ("bob@example.com", "https://partners.test")
            # Signed in once: the other host asks nobody.
            bob.way.clear()
            page = await bob.open("https://app.test/")
            assert (page.status, page.url) == (200, "https://app.test/")
            assert not any(url.startswith(bob.node) for url in bob.way)
            assert told(home.app.requests[-1])["sid"] == claims["sid"]
        async with Traveller(home, "bob") as bob:
            url = f"{LOGIN}/.ztproxy/start/demo?app=https%3A%2F%2Fpartners.test&rd=%2F"
            assert (await bob.open(url)).status == 404

    home.run(story())


def test_a_stronger_sign_in_where_it_is_asked_for(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "alice") as alice:
            await alice.open("https://partners.test/")
            before, cookie = told(home.app.requests[-1]), alice.session("https://partners.test")
            page = await alice.ask("https://partners.test/secure")
            assert (page.status, page.json["reasons"]) == (401, ["step_up_required"])
            assert page.headers["WWW-Authenticate"]
            alice.method = "phr"
            alice.way.clear()
            page = await alice.open("https://partners.test/secure")
            assert (page.status, page.url) == (200, "https://partners.test/secure")
            (asked,) = [url for url in alice.way if url.startswith(f"{alice.node}/auth?")]
            assert "phr" in parse_qs(urlsplit(asked).query)["acr_values"][0].split(" ")
            claims = told(home.app.requests[-1])
            assert (claims["acr"], claims["amr"], claims["sid"]) == ("phr", ["hwk"], before["sid"])
            assert alice.session("https://partners.test") not in ("", cookie)

    home.run(story())


def test_a_cookie_from_before_the_stronger_sign_in_is_worth_nothing(home: House) -> None:
    """Whoever copied it then must not have become stronger with the person (ADR 0005)."""

    async def story() -> None:
        async with Traveller(home, "alice") as alice:
            await alice.open("https://partners.test/")
            kept = {"Cookie": alice.session("https://partners.test")}
            alice.method = "phr"
            assert (await alice.open("https://partners.test/secure")).status == 200
        async with Traveller(home, "alice") as thief:
            assert (await thief.ask("https://partners.test/secure", kept)).status == 401

    home.run(story())


def test_a_provider_that_does_not_do_more_is_told_to_the_person(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "alice") as alice:
            await alice.open("https://partners.test/")
            alice.method = "mfa"
            before = len(home.app.requests)
            page = await alice.open("https://partners.test/secure")
            assert (page.status, page.headers.get("Content-Type")) == (403, "text/html; charset=utf-8")
            assert len(home.app.requests) == before
            # The session is as it was.
            assert (await alice.open("https://partners.test/")).status == 200

    home.run(story())


def test_signing_out_here_and_at_the_provider(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "bob") as bob:
            await bob.open("https://partners.test/")
            kept = {"Cookie": bob.session("https://partners.test")}
            origin = {**NAVIGATION, "Sec-Fetch-Site": "cross-site"}
            forged = await bob.ask("https://partners.test/.ztproxy/sign_out", origin, method="POST", data=b"")
            assert forged.status == 403
            assert (await bob.ask("https://partners.test/")).status == 200
            same = {**NAVIGATION, "Sec-Fetch-Site": "same-origin"}
            page = await bob.ask("https://partners.test/.ztproxy/sign_out", same, method="POST", data=b"")
            onward = page.headers["Refresh"].partition("url=")[2]
            assert onward.startswith(f"{bob.node}/")
            home.seen(*parse_qs(urlsplit(onward).query)["id_token_hint"])
            page = await bob.sign_out_at_node(onward)
            assert (page.status, page.url) == (200, f"{LOGIN}/.ztproxy/signed_out")
            assert (await bob.ask("https://partners.test/")).status == 401
            assert (await bob.ask("https://partners.test/", kept)).status == 401
            bob.way.clear()
            await bob.open("https://partners.test/")
            assert any("/interaction/" in url for url in bob.way), "the provider still knew bob"

    home.run(story())


def test_a_sign_in_is_bound_to_its_browser(home: House) -> None:
    """A callback that another browser is lured to signs nobody in (T14), and is spent by being tried."""

    async def story() -> None:
        async with Traveller(home, "alice") as alice, Traveller(home, "bob") as bob:
            url = await alice.up_to("https://partners.test/", f"{LOGIN}/.ztproxy/callback/")
            stolen = await bob.ask(url, NAVIGATION)
            assert (stolen.status, bob.session(LOGIN)) == (400, "")
            assert (await alice.ask(url, NAVIGATION)).status == 400
            assert (await alice.ask("https://partners.test/")).status == 401

    home.run(story())


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("https://evil.test/", id="another site"),
        pytest.param("//evil.test/", id="another site without a scheme"),
        pytest.param("/\\evil.test/", id="with a backslash"),
        pytest.param("/%2f/evil.test", id="escaped slashes"),
        pytest.param("https://app.test/u", id="another host of ours"),
        pytest.param("/.ztproxy/sign_out", id="a page of ours"),
        pytest.param("javascript:alert(1)", id="a script"),
    ],
)
def test_a_sign_in_ends_at_home(home: House, wanted: str) -> None:
    """T29: whatever is asked for as the way back."""

    async def story() -> None:
        async with Traveller(home, "alice") as alice:
            page = await alice.open(f"https://partners.test/.ztproxy/sign_in?rd={quote(wanted, safe='')}")
            assert (page.status, page.url) == (200, "https://partners.test/")
            assert not any("evil" in urlsplit(url).netloc for url in alice.way)

    home.run(story())


def test_a_cookie_is_good_for_its_host_alone(home: House) -> None:
    async def story() -> None:
        async with Traveller(home, "bob") as bob, Traveller(home, "") as thief:
            await bob.open("https://partners.test/")
            kept = {"Cookie": bob.session("https://partners.test")}
            assert (await thief.ask("https://partners.test/", kept)).status == 200
            assert (await thief.ask("https://app.test/", kept)).status == 401
            assert (await thief.ask(f"{LOGIN}/.ztproxy/session", kept)).status != 200

    home.run(story())
