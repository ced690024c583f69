"""The demo's OpenID provider, asked over real sockets as applications, browsers and attackers would."""

import asyncio
import base64
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import jwt
import pytest
from aiohttp import web

from ztproxy.demo.forms import Form
from ztproxy.demo.people import ALICE, BOB, PEOPLE
from ztproxy.demo.provider import (
    STATE,
    Client,
    Fault,
    ProviderState,
    SignInFailed,
    create_provider,
    sign_in_as,
)
from ztproxy.demo.security_key import SecurityKey

CALLBACK = "https://app.example.com/callback"
AFTER_LOGOUT = "https://app.example.com/bye"
APP = Client("app", "s3cret:%+", (CALLBACK, "https://app.example.com/other?x=1"), (AFTER_LOGOUT,))
OTHER = Client("other", "0ther", ("https://other.example.com/callback",))
SERVICE = Client("job", "j0b", (), audience="https://api.example.com", scopes=("deploy", "read"))
RSA = Client("rsa", "r5a", ("https://rsa.example.com/callback",), id_token_signed_response_alg="RS256")

PWD, MFA, PHR = (f"urn:ztproxy:demo:{name}" for name in ("pwd", "mfa", "phr"))
VERIFIER = "a-verifier-of-at-least-forty-three-characters"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


class Provider:
    """A running provider, one browser with its cookies, and an application that talks to both."""

    def __init__(
        self, issuer: str, state: ProviderState, browser: aiohttp.ClientSession, now: list[float]
    ) -> None:
        self.issuer = issuer
        self.state = state
        self.browser = browser
        self.now = now

    def authorize_url(self, **changes: str | None) -> str:
        ordinary: dict[str, str | None] = {
            "response_type": "code",
            "client_id": "app",
            "redirect_uri": CALLBACK,
            "scope": "openid profile email groups",
            "state": "st",
            "nonce": "no",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        given = {name: value for name, value in {**ordinary, **changes}.items() if value is not None}
        return f"{self.issuer}/authorize?{urlencode(given)}"

    async def sign_in(
        self, person: str = "alice", method: str = "pwd", **changes: str | None
    ) -> dict[str, str]:
        return answer(await sign_in_as(self.browser, self.authorize_url(**changes), person, method))

    async def silently(self, **changes: str | None) -> dict[str, str]:
        """What the application is told without any page: `prompt=none`."""
        url = self.authorize_url(**{"prompt": "none", **changes})
        async with self.browser.get(url, allow_redirects=False) as response:
            assert response.status == 303
            return answer(response.headers["Location"])

    async def page(self, url: str, *, status: int = 200) -> str:
        async with self.browser.get(url, allow_redirects=False) as response:
            assert response.status == status
            assert response.content_type == "text/html"
            return await response.text()

    async def token(self, client: Client = APP, **form: str) -> tuple[int, dict[str, Any]]:
        auth = {"client_id": client.client_id, "client_secret": client.client_secret}
        async with (
            aiohttp.ClientSession() as app,
            app.post(f"{self.issuer}/token", data={**auth, **form}) as got,
        ):
            assert got.headers["Cache-Control"] == "no-store"
            return got.status, await got.json()

    async def redeem(self, code: str, client: Client = APP, /, **changes: str) -> tuple[int, dict[str, Any]]:
        ordinary = {"grant_type": "authorization_code", "redirect_uri": client.redirect_uris[0]}
        return await self.token(client, **{**ordinary, "code": code, "code_verifier": VERIFIER, **changes})

    async def refresh(self, token: str, client: Client = APP) -> tuple[int, dict[str, Any]]:
        return await self.token(client, grant_type="refresh_token", refresh_token=token)

    async def tokens(
        self, person: str = "alice", method: str = "pwd", **changes: str | None
    ) -> dict[str, Any]:
        status, tokens = await self.redeem((await self.sign_in(person, method, **changes))["code"])
        assert status == 200
        return tokens

    async def userinfo(self, token: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as app, app.get(f"{self.issuer}/userinfo", headers=headers) as got:
            return got.status, await got.json() if got.status == 200 else got.headers["WWW-Authenticate"]

    async def claims(self, tokens: dict[str, Any], client: Client = APP) -> dict[str, Any]:
        async with self.browser.get(f"{self.issuer}/jwks.json") as response:
            keys = jwt.PyJWKSet.from_dict(await response.json())
        token = tokens["id_token"]
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            [client.id_token_signed_response_alg],
            audience=client.client_id,
            issuer=self.issuer,
            options={"verify_exp": False, "verify_iat": False},
        )
        return claims


def answer(location: str) -> dict[str, str]:
    given = parse_qs(urlsplit(location).query, strict_parsing=True)
    assert all(len(values) == 1 for values in given.values())
    return {name: values[0] for name, values in given.items()}


@asynccontextmanager
async def running(app_at: Callable[[str], web.Application]) -> AsyncIterator[str]:
    """Serves an application that knows its own origin."""
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    runner = web.AppRunner(app_at(origin), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield origin
    finally:
        await runner.cleanup()


@asynccontextmanager
async def provider_with(*clients: Client) -> AsyncIterator[Provider]:
    now = [1_800_000_000.0]
    apps: list[web.Application] = []

    def app_at(issuer: str) -> web.Application:
        apps.append(create_provider(issuer, clients, PEOPLE, clock=lambda: now[0]))
        return apps[0]

    async with (
        running(app_at) as issuer,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        yield Provider(issuer, apps[0][STATE], browser, now)


@pytest.fixture
async def op() -> AsyncIterator[Provider]:
    async with provider_with(APP, OTHER, SERVICE) as provider:
        yield provider


# What it says of itself


async def test_discovery_names_the_issuer_and_endpoints_that_answer(op: Provider) -> None:
    async with op.browser.get(f"{op.issuer}/.well-known/openid-configuration") as response:
        metadata = await response.json()
    assert metadata["issuer"] == op.issuer
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["acr_values_supported"] == [PWD, MFA, PHR]
    assert metadata["backchannel_logout_session_supported"] is True
    for name in (
        "authorization_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
        "jwks_uri",
        "end_session_endpoint",
    ):
        async with op.browser.post(metadata[name]) as response:
            assert response.status != 404, name


async def test_the_key_set_shows_public_halves_only(op: Provider) -> None:
    async with op.browser.get(f"{op.issuer}/jwks.json") as response:
        keys = (await response.json())["keys"]
    assert [key["alg"] for key in keys] == ["ES256"]
    assert all(key["use"] == "sig" for key in keys)
    assert not any("d" in key for key in keys)


@pytest.mark.parametrize(
    "issuer", ["http://op.test/", "http://op.test/a", "op.test", "ftp://op.test", "http://"]
)
def test_an_issuer_is_an_origin(issuer: str) -> None:
    with pytest.raises(ValueError):
        create_provider(issuer, [APP], PEOPLE)


@pytest.mark.parametrize("uri", ["https://app.example.com/#f", "/callback", "app.example.com"])
def test_a_redirect_uri_is_absolute_and_has_no_fragment(uri: str) -> None:
    with pytest.raises(ValueError):
        create_provider("http://op.test", [replace(APP, redirect_uris=(uri,))], PEOPLE)


def test_a_client_does_not_show_its_secret() -> None:
    assert APP.client_secret not in repr(APP)


# Signing in

AMR = {"pwd": ["pwd"], "mfa": ["pwd", "otp", "mfa"], "phr": ["hwk", "user"]}


@pytest.mark.parametrize("method", ["pwd", "mfa", "phr"])
@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.username)
async def test_the_id_token_tells_who_signed_in_and_how(op: Provider, person: Any, method: str) -> None:
    came_back = await op.sign_in(person.username, method)
    assert came_back == {"code": came_back["code"], "state": "st", "iss": op.issuer}
    status, tokens = await op.redeem(came_back["code"])
    assert status == 200
    claims = await op.claims(tokens)
    half = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    assert claims == {
        "iss": op.issuer,
        "aud": "app",
        "sub": person.sub,
        "iat": int(op.now[0]),
        "exp": int(op.now[0]) + 300,
        "auth_time": int(op.now[0]),
        "nonce": "no",
        "acr": f"urn:ztproxy:demo:{method}",
        "amr": AMR[method],
        "sid": claims["sid"],
        "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
        "email": person.email,
        "email_verified": True,
        "name": person.name,
        "preferred_username": person.username,
        "groups": list(person.groups),
    }
    personal = {
        name: claims[name]
        for name in ("sub", "email", "email_verified", "name", "preferred_username", "groups")
    }
    assert await op.userinfo(tokens["access_token"]) == (200, personal)


async def test_scopes_limit_what_is_told(op: Provider) -> None:
    claims = await op.claims(await op.tokens(scope="openid"))
    assert claims.keys().isdisjoint({"email", "name", "preferred_username", "groups"})


async def test_a_client_may_ask_for_rs256() -> None:
    async with provider_with(APP, RSA) as op:
        came_back = await op.sign_in(client_id="rsa", redirect_uri=RSA.redirect_uris[0])
        _, tokens = await op.redeem(came_back["code"], RSA)
        assert jwt.get_unverified_header(tokens["id_token"])["alg"] == "RS256"
        assert (await op.claims(tokens, RSA))["sub"] == ALICE.sub
        published = op.state.jwks()["keys"]
    assert [key["alg"] for key in published] == ["ES256", "RS256"]
    assert not any({"d", "p", "q", "k"} & key.keys() for key in published)


async def test_a_redirect_uri_with_a_query_keeps_it(op: Provider) -> None:
    location = await sign_in_as(
        op.browser, op.authorize_url(redirect_uri=APP.redirect_uris[1]), "alice", "pwd"
    )
    assert location.startswith("https://app.example.com/other?x=1&code=")


async def test_its_own_session_spares_the_second_sign_in(op: Provider) -> None:
    first = await op.claims(await op.tokens("alice", "mfa"))
    op.now[0] += 100
    status, tokens = await op.redeem((await op.silently())["code"])
    second = await op.claims(tokens)
    assert status == 200
    assert (second["sid"], second["auth_time"], second["acr"]) == (first["sid"], first["auth_time"], MFA)


@pytest.mark.parametrize(
    ("method", "later", "asks", "must"),
    [
        pytest.param("pwd", 0, {}, False, id="nothing special"),
        pytest.param("pwd", 0, {"acr_values": PWD}, False, id="what there is"),
        pytest.param("pwd", 0, {"acr_values": MFA}, True, id="step-up to mfa"),
        pytest.param("mfa", 0, {"acr_values": PHR}, True, id="step-up to a security key"),
        pytest.param("phr", 0, {"acr_values": MFA}, False, id="more than asked"),
        pytest.param("mfa", 0, {"acr_values": f"{PHR} {MFA}"}, False, id="the second choice"),
        pytest.param("pwd", 0, {"acr_values": "urn:unknown"}, False, id="an acr the provider does not know"),
        pytest.param("pwd", 60, {"max_age": "60"}, False, id="young enough"),
        pytest.param("pwd", 61, {"max_age": "60"}, True, id="too old"),
        pytest.param("pwd", 0, {"max_age": "0"}, True, id="max_age 0"),
        pytest.param("pwd", 0, {"prompt": "login"}, True, id="prompt login"),
        pytest.param("pwd", 0, {"prompt": "select_account"}, True, id="prompt select_account"),
        pytest.param("pwd", 0, {"prompt": "consent"}, False, id="prompt consent"),
        pytest.param("pwd", 0, {"login_hint": "alice@example.com"}, False, id="a hint at oneself"),
        pytest.param("pwd", 0, {"login_hint": "bob"}, True, id="a hint at someone else"),
        pytest.param("pwd", 0, {"login_hint": "nobody"}, False, id="a hint at nobody"),
    ],
)
async def test_when_the_visitor_is_asked_again(
    op: Provider, method: str, later: int, asks: dict[str, str], must: bool
) -> None:
    await op.sign_in("alice", method)
    op.now[0] += later
    async with op.browser.get(op.authorize_url(**asks), allow_redirects=False) as response:
        assert response.status == (200 if must else 303)
    if "prompt" not in asks:
        assert ("error" in await op.silently(**asks)) is must


async def test_without_a_session_prompt_none_needs_a_login(op: Provider) -> None:
    assert await op.silently() == {
        "error": "login_required",
        "error_description": "the visitor must sign in, and prompt is none",
        "state": "st",
        "iss": op.issuer,
    }


async def test_a_hint_at_someone_elses_token_needs_a_login(op: Provider) -> None:
    alices = (await op.tokens("alice"))["id_token"]
    assert "code" in await op.silently(id_token_hint=alices)
    await op.sign_in("bob", prompt="login")
    assert (await op.silently(id_token_hint=alices))["error"] == "login_required"
    assert (await op.silently(id_token_hint="x.y.z"))["error"] == "invalid_request"


async def test_a_step_up_keeps_the_session_and_changes_its_cookie(op: Provider) -> None:
    before = await op.claims(await op.tokens("alice", "pwd"))
    cookies = {cookie.value for cookie in op.browser.cookie_jar}
    op.now[0] += 50
    after = await op.claims(await op.tokens("alice", "phr", acr_values=PHR))
    assert (after["sid"], after["acr"], after["auth_time"]) == (before["sid"], PHR, before["auth_time"] + 50)
    assert len(op.state.sessions) == 1
    assert not cookies & op.state.sessions.keys()  # a cookie seen before the step-up opens nothing after it


async def test_a_weaker_way_than_asked_for_is_told_truly(op: Provider) -> None:
    assert (await op.claims(await op.tokens("alice", "pwd", acr_values=PHR)))["acr"] == PWD


async def test_another_person_in_the_same_browser_gets_another_session(op: Provider) -> None:
    alices = await op.tokens("alice")
    bobs = await op.tokens("bob", prompt="login")
    a, b = await op.claims(alices), await op.claims(bobs)
    assert (a["sub"], b["sub"]) == (ALICE.sub, BOB.sub)
    assert a["sid"] != b["sid"]
    assert (await op.refresh(alices["refresh_token"]))[1]["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("asks", "person", "method"),
    [
        pytest.param({}, "alice", "pwd", id="the last person, the plainest way"),
        pytest.param({"acr_values": f"{PHR} {MFA}"}, "alice", "phr", id="the preferred acr"),
        pytest.param({"login_hint": "bob@example.com"}, "bob", "pwd", id="the hinted person"),
        pytest.param({"prompt": "select_account"}, None, "pwd", id="no person when choosing is the point"),
    ],
)
async def test_the_page_preselects(
    op: Provider, asks: dict[str, str], person: str | None, method: str
) -> None:
    await op.sign_in("alice")
    text = await op.page(op.authorize_url(**{"prompt": "login", **asks}))
    checked = re.findall(r'value="(\w+)" required checked', text)
    assert checked == ([person] if person else []) + [method]


async def test_the_page_says_that_it_is_a_demo_and_runs_no_script(op: Provider) -> None:
    async with op.browser.get(op.authorize_url(state="<script>alert(1)</script>")) as response:
        text = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "This is a demo." in text
    assert "000000" in text
    assert "<script" not in text
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


async def fill(op: Provider, **fields: str) -> tuple[int, str, str | None]:
    """Sends the sign-in page back with these fields."""
    text = await op.page(op.authorize_url())
    name = re.findall(r'name="sign_in" value="([^"]+)"', text)[0]
    form = {"sign_in": name, **fields}
    async with op.browser.post(f"{op.issuer}/sign-in", data=form, allow_redirects=False) as response:
        return response.status, await response.text(), response.headers.get("Location")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param({}, "Choose who", id="nothing"),
        pytest.param({"person": "eve", "method": "phr"}, "Choose who", id="an unknown person"),
        pytest.param({"person": "alice", "method": "sms"}, "Choose who", id="an unknown way"),
        pytest.param({"person": "alice", "method": "pwd"}, "password is not right", id="no password"),
        pytest.param(
            {"person": "alice", "method": "pwd", "password": "bob"},
            "password is not right",
            id="a wrong password",
        ),
        pytest.param(
            {"person": "alice", "method": "mfa", "password": "alice", "one_time_code": "000001"},
            "one-time code is not right",
            id="a wrong code",
        ),
        pytest.param(
            {"person": "alice", "method": "mfa", "one_time_code": "000000"},
            "password is not right",
            id="only the code",
        ),
        pytest.param(
            {"person": "alice", "method": "phr"},
            "password is not right",
            id="a first security key without the password",
        ),
    ],
)
async def test_what_does_not_sign_in(op: Provider, fields: dict[str, str], says: str) -> None:
    status, text, location = await fill(op, **fields)
    assert (status, location) == (422, None)
    assert says in text
    assert 'role="alert"' in text
    assert op.state.sessions == {}


# The security key


async def key_page(op: Provider, person: str = "carol", password: str = "") -> dict[str, str]:
    """What the page that asks the key would send back."""
    status, text, _ = await fill(op, person=person, method="phr", password=password)
    assert status == 200
    return Form(text).hidden


async def touch(op: Provider, hidden: dict[str, str], answer: str) -> tuple[int, str, str | None]:
    form = {**hidden, "answer": answer}
    async with op.browser.post(
        f"{op.issuer}/sign-in/security-key", data=form, allow_redirects=False
    ) as response:
        return response.status, await response.text(), response.headers.get("Location")


async def test_a_first_key_is_registered_and_then_asked_and_only_then_signs_in(op: Provider) -> None:
    key = SecurityKey()
    asked = await key_page(op, password="carol")
    status, text, location = await touch(op, asked, key.answer(op.issuer, json.loads(asked["options"])))
    assert (status, location) == (200, None)
    assert "Use your security key" in text
    assert op.state.sessions == {}
    asked = Form(text).hidden
    status, _, location = await touch(op, asked, key.answer(op.issuer, json.loads(asked["options"])))
    assert status == 303
    assert "code" in answer(location or "")
    (session,) = op.state.sessions.values()
    assert (session.username, session.method.id) == ("carol", "phr")
    # From now on it is asked for, without a password.
    asked = await key_page_again(op)
    assert "allowCredentials" in asked["options"]
    status, _, _ = await touch(op, asked, key.answer(op.issuer, json.loads(asked["options"])))
    assert status == 303


async def test_an_answer_counts_once_and_for_its_own_question(op: Provider) -> None:
    key = SecurityKey()
    await sign_in_as(op.browser, op.authorize_url(prompt="login"), "carol", "phr", key)
    signed_in = dict(op.state.sessions)
    first, second = await key_page_again(op), await key_page_again(op)
    told = key.answer(op.issuer, json.loads(first["options"]))
    status, text, _ = await touch(op, second, told)
    assert (status, "another question" in text) == (422, True)
    status, _, _ = await touch(op, second, key.answer(op.issuer, json.loads(second["options"])))
    assert status == 400, "it was asked, and has answered"
    assert op.state.sessions == signed_in
    assert (await touch(op, first, told))[0] == 303
    assert (await touch(op, first, told))[0] == 400


async def key_page_again(op: Provider) -> dict[str, str]:
    """For somebody who is signed in, and whose key is known."""
    text = await op.page(op.authorize_url(prompt="login"))
    form = {"sign_in": Form(text).hidden["sign_in"], "person": "carol", "method": "phr"}
    async with op.browser.post(f"{op.issuer}/sign-in", data=form) as response:
        assert response.status == 200
        return Form(await response.text()).hidden


async def test_two_pages_at_once_do_not_register_two_keys(op: Provider) -> None:
    pages = [await key_page(op, password="carol") for _ in range(2)]
    mine, other = SecurityKey(), SecurityKey()
    assert (await touch(op, pages[0], mine.answer(op.issuer, json.loads(pages[0]["options"]))))[0] == 200
    status, text, _ = await touch(op, pages[1], other.answer(op.issuer, json.loads(pages[1]["options"])))
    assert (status, "in the meantime" in text) == (422, True)
    assert len(op.state.security_keys_of("carol")) == 1


async def test_a_question_belongs_to_its_browser(op: Provider) -> None:
    asked = await key_page(op, password="carol")
    told = SecurityKey().answer(op.issuer, json.loads(asked["options"]))
    async with (
        aiohttp.ClientSession() as stranger,
        stranger.post(f"{op.issuer}/sign-in/security-key", data={**asked, "answer": told}) as response,
    ):
        assert response.status == 400
    assert op.state.security_keys_of("carol") == ()


async def test_a_key_of_a_disabled_person_opens_nothing(op: Provider) -> None:
    key = SecurityKey()
    asked = await key_page(op, password="carol")
    op.state.disable("carol")
    status, text, location = await touch(op, asked, key.answer(op.issuer, json.loads(asked["options"])))
    assert (status, location) == (400, None)
    assert "disabled" in text
    assert op.state.sessions == {}


async def test_another_key_with_the_password_is_not_the_persons(op: Provider) -> None:
    await op.sign_in("carol", "phr")
    with pytest.raises(SignInFailed, match="does not answer"):
        await sign_in_as(op.browser, op.authorize_url(prompt="login"), "carol", "phr", SecurityKey())


async def test_the_key_can_be_cancelled(op: Provider) -> None:
    asked = await key_page(op, password="carol")
    _, _, location = await touch(op, {**asked, "cancel": "yes"}, "")
    assert answer(location or "")["error"] == "access_denied"


async def test_the_script_of_the_key_may_run_and_nothing_else(op: Provider) -> None:
    async with op.browser.get(f"{op.issuer}/security-key.js") as response:
        assert (response.status, response.content_type) == (200, "text/javascript")
    _, text, _ = await fill(op, person="carol", method="phr", password="carol")
    assert text.count("<script") == 1
    assert '<script src="/security-key.js" defer>' in text


# Tokens of services


async def test_a_service_gets_a_token_in_its_own_name(op: Provider) -> None:
    status, tokens = await op.token(SERVICE, grant_type="client_credentials", scope="deploy")
    assert status == 200
    assert "refresh_token" not in tokens
    token = tokens["access_token"]
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.keys() == {"iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope"}
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("job", SERVICE.audience, "deploy")


@pytest.mark.parametrize(
    ("client", "form", "error"),
    [
        pytest.param(APP, {}, "unauthorized_client", id="not a service"),
        pytest.param(SERVICE, {"scope": "deploy admin"}, "invalid_scope", id="a scope it may not have"),
        pytest.param(replace(SERVICE, client_secret="guessed"), {}, "invalid_client", id="a wrong secret"),
    ],
)
async def test_who_gets_no_token(op: Provider, client: Client, form: dict[str, str], error: str) -> None:
    _, told = await op.token(client, grant_type="client_credentials", **form)
    assert told["error"] == error


async def test_cancelling_tells_the_application(op: Provider) -> None:
    status, _, location = await fill(op, cancel="yes")
    assert status == 303
    assert location is not None
    assert answer(location)["error"] == "access_denied"
    assert op.state.sessions == {}


async def test_a_sign_in_page_works_once_for_its_browser_and_not_for_ever(op: Provider) -> None:
    text = await op.page(op.authorize_url())
    form = {
        "sign_in": re.findall(r'name="sign_in" value="([^"]+)"', text)[0],
        "person": "mallory",
        "method": "pwd",
        "password": "mallory",
    }
    async with (
        aiohttp.ClientSession() as stranger,
        stranger.post(f"{op.issuer}/sign-in", data=form) as response,
    ):
        assert response.status == 400
    op.now[0] += 1801
    async with op.browser.post(f"{op.issuer}/sign-in", data=form) as response:
        assert response.status == 400
    assert op.state.sessions == {}
    op.now[0] -= 1801
    async with op.browser.post(f"{op.issuer}/sign-in", data=form, allow_redirects=False) as response:
        assert response.status == 303
    async with op.browser.post(f"{op.issuer}/sign-in", data=form) as response:
        assert response.status == 400


async def test_the_walker_says_what_went_wrong(op: Provider) -> None:
    with pytest.raises(SignInFailed, match="`eve`"):
        await sign_in_as(op.browser, op.authorize_url(), "eve", "pwd")
    with pytest.raises(SignInFailed, match="400"):
        await sign_in_as(op.browser, op.authorize_url(client_id="unknown"), "alice", "pwd")
    with pytest.raises(SignInFailed, match="no form"):
        await sign_in_as(op.browser, f"{op.issuer}/", "alice", "pwd")


# Requests that are refused


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"client_id": "unknown"}, id="client unknown"),
        pytest.param({"client_id": None}, id="client missing"),
        pytest.param({"redirect_uri": None}, id="redirect_uri missing"),
        pytest.param({"redirect_uri": "https://evil.test/callback"}, id="redirect_uri elsewhere"),
        pytest.param({"redirect_uri": CALLBACK + "/"}, id="redirect_uri with a slash"),
        pytest.param({"redirect_uri": CALLBACK + "?x=1"}, id="redirect_uri with a query"),
        pytest.param({"redirect_uri": CALLBACK + "/../evil"}, id="redirect_uri with dots"),
        pytest.param({"redirect_uri": OTHER.redirect_uris[0]}, id="redirect_uri of another client"),
    ],
)
async def test_whom_it_cannot_answer_it_sends_nowhere(op: Provider, changes: dict[str, str | None]) -> None:
    text = await op.page(op.authorize_url(**changes), status=400)
    assert "evil" not in text
    assert op.state.pending == {}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"response_type": None}, "unsupported_response_type", id="no response_type"),
        pytest.param({"response_type": "id_token"}, "unsupported_response_type", id="implicit flow"),
        pytest.param({"response_type": "code token"}, "unsupported_response_type", id="hybrid flow"),
        pytest.param({"response_mode": "fragment"}, "invalid_request", id="answer in the fragment"),
        pytest.param({"scope": None}, "invalid_scope", id="no scope"),
        pytest.param({"scope": "profile openid2"}, "invalid_scope", id="openid not among the scopes"),
        pytest.param({"code_challenge": None}, "invalid_request", id="no PKCE"),
        pytest.param({"code_challenge_method": None}, "invalid_request", id="PKCE method missing"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="PKCE plain"),
        pytest.param({"code_challenge": "short"}, "invalid_request", id="PKCE challenge too short"),
        pytest.param({"code_challenge": CHALLENGE + "="}, "invalid_request", id="PKCE challenge padded"),
        pytest.param({"prompt": "none login"}, "invalid_request", id="prompt none and more"),
        pytest.param({"prompt": "create"}, "invalid_request", id="prompt unknown"),
        pytest.param({"max_age": "-1"}, "invalid_request", id="max_age negative"),
        pytest.param({"max_age": "soon"}, "invalid_request", id="max_age a word"),
        pytest.param({"request": "x.y.z"}, "request_not_supported", id="a request object"),
        pytest.param(
            {"request_uri": "https://evil.test"}, "request_uri_not_supported", id="a request by URI"
        ),
    ],
)
async def test_an_error_goes_back_with_state_and_issuer(
    op: Provider, changes: dict[str, str | None], error: str
) -> None:
    async with op.browser.get(op.authorize_url(**changes), allow_redirects=False) as response:
        assert response.status == 303
        location = response.headers["Location"]
    assert location.startswith(CALLBACK + "?")
    told = answer(location)
    assert (told["error"], told["state"], told["iss"]) == (error, "st", op.issuer)
    assert op.state.pending == {}


@pytest.mark.parametrize("name", ["client_id", "redirect_uri", "state", "code_challenge", "prompt"])
async def test_a_parameter_given_twice_is_refused(op: Provider, name: str) -> None:
    await op.page(f"{op.authorize_url(prompt='login')}&{name}=x", status=400)


async def test_the_authorization_endpoint_takes_a_form(op: Provider) -> None:
    form = {name: values[0] for name, values in parse_qs(urlsplit(op.authorize_url()).query).items()}
    async with op.browser.post(f"{op.issuer}/authorize", data=form) as response:
        assert response.status == 200
        assert "Sign in to app" in await response.text()


# Codes and tokens


async def test_a_code_works_once_and_its_second_use_takes_back_what_the_first_gave(op: Provider) -> None:
    code = (await op.sign_in())["code"]
    _, tokens = await op.redeem(code)
    assert await op.redeem(code) == (
        400,
        {
            "error": "invalid_grant",
            "error_description": "the grant is unknown, used, expired or not for this client",
        },
    )
    assert await op.userinfo(tokens["access_token"]) == (401, 'Bearer error="invalid_token"')
    assert (await op.refresh(tokens["refresh_token"]))[0] == 400


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"code_verifier": VERIFIER + "x"}, id="another verifier"),
        pytest.param({"code_verifier": CHALLENGE}, id="the challenge as verifier"),
        pytest.param({"redirect_uri": APP.redirect_uris[1]}, id="another redirect_uri"),
    ],
)
async def test_a_code_that_was_tried_wrongly_is_spent(op: Provider, changes: dict[str, str]) -> None:
    code = (await op.sign_in())["code"]
    assert (await op.redeem(code, **changes))[1]["error"] == "invalid_grant"
    assert (await op.redeem(code))[1]["error"] == "invalid_grant"


async def test_a_request_without_a_verifier_spends_nothing(op: Provider) -> None:
    code = (await op.sign_in())["code"]
    assert (await op.redeem(code, code_verifier=""))[1]["error"] == "invalid_grant"
    assert (await op.redeem(code))[0] == 200


async def test_a_code_of_another_client_is_refused_and_not_spoilt(op: Provider) -> None:
    code = (await op.sign_in())["code"]
    assert (await op.redeem(code, OTHER, redirect_uri=CALLBACK))[1]["error"] == "invalid_grant"
    assert (await op.redeem(code))[0] == 200
    assert (await op.redeem(code, OTHER, redirect_uri=CALLBACK))[1]["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("seconds", "status"), [pytest.param(60, 200, id="at the end"), pytest.param(61, 400, id="after")]
)
async def test_a_code_lives_a_minute(op: Provider, seconds: int, status: int) -> None:
    code = (await op.sign_in())["code"]
    op.now[0] += seconds
    assert (await op.redeem(code))[0] == status


async def test_refresh_tokens_rotate_and_tell_what_is_true_now(op: Provider) -> None:
    first = await op.tokens("alice", "mfa")
    op.state.set_groups("alice", "admins", "engineering")
    op.now[0] += 1000
    status, second = await op.refresh(first["refresh_token"])
    assert status == 200
    assert second["refresh_token"] != first["refresh_token"]
    before, after = await op.claims(first), await op.claims(second)
    assert after["groups"] == ["admins", "engineering"]
    assert after["iat"] == before["iat"] + 1000
    assert [after[name] for name in ("sub", "sid", "acr", "auth_time")] == [
        before[name] for name in ("sub", "sid", "acr", "auth_time")
    ]
    assert "nonce" not in after  # Core §12.2


async def test_a_used_refresh_token_ends_the_family(op: Provider) -> None:
    first = await op.tokens()
    elsewhere = await op.redeem((await op.silently())["code"])
    _, second = await op.refresh(first["refresh_token"])
    _, third = await op.refresh(second["refresh_token"])
    assert (await op.refresh(first["refresh_token"]))[1]["error"] == "invalid_grant"
    assert (await op.refresh(third["refresh_token"]))[1]["error"] == "invalid_grant"
    assert (await op.userinfo(third["access_token"]))[0] == 401
    assert (await op.refresh(elsewhere[1]["refresh_token"]))[0] == 200  # another family


async def test_a_refresh_token_of_another_client_is_refused_and_not_spoilt(op: Provider) -> None:
    token = (await op.tokens())["refresh_token"]
    assert (await op.refresh(token, OTHER))[0] == 400
    status, tokens = await op.refresh(token)
    assert status == 200
    assert (await op.refresh(token, OTHER))[0] == 400
    assert (await op.refresh(tokens["refresh_token"]))[0] == 200


async def test_an_access_token_ends(op: Provider) -> None:
    token = (await op.tokens())["access_token"]
    op.now[0] += 301
    assert (await op.userinfo(token))[0] == 401
    assert await op.userinfo("") == (401, "Bearer")


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


GOOD_BASIC = basic("app", "s3cret%3A%25%2B")


@pytest.mark.parametrize(
    ("headers", "form", "status", "error"),
    [
        pytest.param({"Authorization": GOOD_BASIC}, {}, 200, None, id="basic"),
        pytest.param(
            {"Authorization": GOOD_BASIC}, {"client_id": "app"}, 200, None, id="basic and the same id"
        ),
        pytest.param({}, {"client_id": "app", "client_secret": APP.client_secret}, 200, None, id="post"),
        pytest.param({}, {}, 401, "invalid_client", id="nothing"),
        pytest.param({}, {"client_id": "app"}, 401, "invalid_client", id="no secret"),
        pytest.param(
            {}, {"client_id": "app", "client_secret": "x"}, 401, "invalid_client", id="a wrong secret"
        ),
        pytest.param(
            {}, {"client_id": "x", "client_secret": "x"}, 401, "invalid_client", id="an unknown client"
        ),
        pytest.param({"Authorization": basic("app", "x")}, {}, 401, "invalid_client", id="basic, wrong"),
        pytest.param(
            {"Authorization": basic("app", APP.client_secret)}, {}, 401, "invalid_client", id="not encoded"
        ),
        pytest.param({"Authorization": "Basic %%%"}, {}, 401, "invalid_client", id="basic, not base64"),
        pytest.param({"Authorization": "Basic YXBw"}, {}, 401, "invalid_client", id="basic, no colon"),
        pytest.param({"Authorization": "Bearer x"}, {}, 401, "invalid_client", id="another scheme"),
        pytest.param(
            {"Authorization": GOOD_BASIC},
            {"client_id": "app", "client_secret": APP.client_secret},
            400,
            "invalid_request",
            id="both ways at once",
        ),
        pytest.param(
            {"Authorization": GOOD_BASIC},
            {"client_id": "other"},
            400,
            "invalid_request",
            id="two different ids",
        ),
    ],
)
async def test_how_a_client_proves_itself(
    op: Provider, headers: dict[str, str], form: dict[str, str], status: int, error: str | None
) -> None:
    code = (await op.sign_in())["code"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        **form,
    }
    async with op.browser.post(f"{op.issuer}/token", data=form, headers=headers) as response:
        assert response.status == status
        assert (await response.json()).get("error") == error
        assert ("WWW-Authenticate" in response.headers) is (status == 401)
    if status != 200:
        assert (await op.redeem(code))[0] == 200  # the code was not touched


async def test_other_token_requests_are_refused(op: Provider) -> None:
    assert (await op.token(grant_type="password"))[1]["error"] == "unsupported_grant_type"
    assert (await op.token())[1]["error"] == "unsupported_grant_type"
    assert (await op.refresh("unknown"))[1]["error"] == "invalid_grant"
    body = "grant_type=authorization_code&grant_type=refresh_token&client_id=app"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with op.browser.post(f"{op.issuer}/token", data=body, headers=headers) as response:
        assert (await response.json())["error"] == "invalid_request"


# Signing out


async def logout(op: Provider, **given: str) -> tuple[int, str | None, str]:
    url = f"{op.issuer}/logout?{urlencode(given)}"
    async with op.browser.get(url, allow_redirects=False) as response:
        return response.status, response.headers.get("Location"), await response.text()


async def test_a_logout_with_a_hint_ends_session_and_tokens_at_once(op: Provider) -> None:
    tokens = await op.tokens()
    op.now[0] += 10_000  # the hint may be long expired
    status, location, _ = await logout(
        op, id_token_hint=tokens["id_token"], post_logout_redirect_uri=AFTER_LOGOUT, state="s t"
    )
    assert (status, location) == (303, f"{AFTER_LOGOUT}?state=s+t")
    assert (await op.silently())["error"] == "login_required"
    assert (await op.refresh(tokens["refresh_token"]))[1]["error"] == "invalid_grant"


async def test_a_logout_without_a_hint_asks_first(op: Provider) -> None:
    await op.sign_in()
    status, _, text = await logout(op, client_id="app", post_logout_redirect_uri=AFTER_LOGOUT)
    assert status == 200
    assert "Do you want to sign out?" in text
    assert "code" in await op.silently()
    form = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', text))
    async with op.browser.post(f"{op.issuer}/logout/confirmed", data=form, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, AFTER_LOGOUT)
    assert (await op.silently())["error"] == "login_required"


async def test_a_confirmation_that_was_not_shown_here_ends_nothing(op: Provider) -> None:
    await op.sign_in()
    for form in ({}, {"confirm": "x"}, {"confirm": hashlib.sha256(b"sign out ").hexdigest()}):
        async with op.browser.post(f"{op.issuer}/logout/confirmed", data=form) as response:
            assert response.status == 400
    assert "code" in await op.silently()


async def test_a_hint_of_another_session_asks_first(op: Provider) -> None:
    alices = (await op.tokens("alice"))["id_token"]
    await op.sign_in("bob", prompt="login")
    status, _, text = await logout(op, id_token_hint=alices)
    assert status == 200
    assert "bob" in text
    assert "code" in await op.silently()


async def test_a_logout_without_a_session_just_goes_on(op: Provider) -> None:
    assert (await logout(op, client_id="app", post_logout_redirect_uri=AFTER_LOGOUT))[:2] == (
        303,
        AFTER_LOGOUT,
    )
    status, _, text = await logout(op)
    assert status == 200
    assert "Signed out" in text


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"post_logout_redirect_uri": AFTER_LOGOUT}, id="of nobody"),
        pytest.param(
            {"client_id": "other", "post_logout_redirect_uri": AFTER_LOGOUT}, id="of another client"
        ),
        pytest.param({"client_id": "app", "post_logout_redirect_uri": AFTER_LOGOUT + "/"}, id="with a slash"),
        pytest.param({"client_id": "app", "post_logout_redirect_uri": "https://evil.test"}, id="elsewhere"),
        pytest.param({"id_token_hint": "x.y.z"}, id="a hint that is no token"),
        pytest.param({"id_token_hint": jwt.encode({"aud": "app"}, "k" * 32)}, id="a hint by another key"),
        pytest.param({"id_token_hint": "OWN", "client_id": "other"}, id="hint and client differ"),
    ],
)
async def test_a_malformed_logout_ends_nothing_and_goes_nowhere(op: Provider, given: dict[str, str]) -> None:
    tokens = await op.tokens()
    given = {name: tokens["id_token"] if value == "OWN" else value for name, value in given.items()}
    status, location, _ = await logout(op, **given)
    assert (status, location) == (400, None)
    assert "code" in await op.silently()


async def test_the_applications_are_told_at_their_back_channel() -> None:
    received: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        received.append(str((await request.post())["logout_token"]))
        return web.Response()

    def app_at(_: str) -> web.Application:
        app = web.Application()
        app.router.add_post("/bc", hear)
        return app

    async with running(app_at) as origin:
        deaf = replace(OTHER, backchannel_logout_uri="http://127.0.0.1:1/bc")
        listening = replace(APP, backchannel_logout_uri=f"{origin}/bc")
        async with provider_with(listening, deaf) as op:
            tokens = await op.tokens()
            await op.silently(client_id="other", redirect_uri=OTHER.redirect_uris[0])
            assert (await logout(op, id_token_hint=tokens["id_token"]))[0] == 200
            (token,) = received
            claims = await op.claims({"id_token": token})
            id_claims = await op.claims(tokens)
    assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
    assert claims.keys() == {"iss", "aud", "iat", "exp", "jti", "sub", "sid", "events"}
    assert (claims["sub"], claims["sid"]) == (id_claims["sub"], id_claims["sid"])
    assert claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}


# What tests and the demo can do to it


async def test_a_disabled_person_is_out_everywhere(op: Provider) -> None:
    tokens = await op.tokens()
    waiting = (await op.silently())["code"]
    op.state.disable("alice")
    assert (await op.silently())["error"] == "login_required"
    assert (await op.refresh(tokens["refresh_token"]))[1]["error"] == "invalid_grant"
    assert (await op.redeem(waiting))[1]["error"] == "invalid_grant"
    assert (await op.userinfo(tokens["access_token"]))[0] == 401
    with pytest.raises(SignInFailed):
        await op.sign_in("alice")
    assert "code" in await op.sign_in("bob")
    op.state.enable("alice")
    assert "code" in await op.sign_in("alice", prompt="login")


async def test_keys_rotate_with_overlap_or_without(op: Provider) -> None:
    old = await op.tokens()
    op.state.rotate_keys()
    new = await op.tokens()
    assert (await op.claims(old))["sub"] == (await op.claims(new))["sub"]
    op.state.rotate_keys(withdraw_old=True)
    with pytest.raises(KeyError):
        await op.claims(new)
    assert len(op.state.jwks()["keys"]) == 1


async def test_endpoints_can_fail_be_slow_and_lie(op: Provider) -> None:
    op.state.faults["jwks"] = Fault(status=200, body="<html>", content_type="text/html")
    op.state.faults["token"] = Fault(status=503)
    op.state.faults["discovery"] = Fault(delay=30)
    async with op.browser.get(f"{op.issuer}/jwks.json") as response:
        assert (response.status, await response.text()) == (200, "<html>")
    async with op.browser.post(f"{op.issuer}/token") as response:
        assert response.status == 503
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(op.browser.get(f"{op.issuer}/.well-known/openid-configuration"), 0.1)
    op.state.faults.clear()
    op.state.alter_id_token = lambda claims: {**claims, "nonce": "another"}
    assert (await op.claims(await op.tokens()))["nonce"] == "another"
    assert op.state.hits["jwks"] == 2
    assert op.state.hits["token"] == 2


async def test_the_front_page_shows_people_and_session(op: Provider) -> None:
    assert "You are not signed in here." in await op.page(f"{op.issuer}/")
    await op.sign_in("carol", "phr")
    text = await op.page(f"{op.issuer}/")
    assert "Security key" in text
    assert all(person.name in text for person in PEOPLE)


async def test_what_it_keeps_is_bounded(op: Provider) -> None:
    op.state.max_kept = 3
    for _ in range(5):
        await op.page(op.authorize_url())
    assert len(op.state.pending) == 3
