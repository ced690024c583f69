"""The OpenID client against a provider on a real socket that lies (J, F24 and D rows)."""

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.evidence import Tried
from tests.worlds.lying_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    LyingProvider,
    Says,
    ec_key,
    ed_key,
    lying_provider,
    rsa_key,
)
from tests.worlds.memory_providers import MemoryFirstHosts
from tests.worlds.memory_state import SetClock
from ztproxy.adapters.oidc import OpenIDProvider, ProviderSettings
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, OperatorError, WorldError
from ztproxy.gateway.ports import IdentityProvider, Tokens

HERE = "https://app.test/.ztproxy/callback/op"
VERIFIER = "V" * 43


@pytest.fixture
def clock() -> SetClock:
    return SetClock(1_700_000_000.0)


@pytest.fixture
async def world(clock: SetClock) -> AsyncIterator[LyingProvider]:
    async with lying_provider(clock) as provider:
        yield provider


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with provider_session() as session:
        yield session


Client = Callable[..., OpenIDProvider]


@pytest.fixture
def client(world: LyingProvider, http: aiohttp.ClientSession, clock: SetClock) -> Client:
    def build(first: MemoryFirstHosts | None = None, /, **settings: Any) -> OpenIDProvider:
        usual = {
            "name": "op",
            "issuer": world.issuer,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }
        return OpenIDProvider(ProviderSettings(**{**usual, **settings}), http, clock, first=first)

    return build


async def begin(op: IdentityProvider, **asked: Any) -> str:
    return await op.authorization_url(
        redirect_uri=HERE, state="S" * 43, nonce="N" * 43, code_verifier=VERIFIER, **asked
    )


async def exchange(world: LyingProvider, op: IdentityProvider) -> Tokens:
    code = dict(world.sign_in(await begin(op)))["code"]
    return await op.exchange(code=code, code_verifier=VERIFIER, redirect_uri=HERE)


# The authorization request


async def test_F24_the_authorization_request(world: LyingProvider, client: Client) -> None:
    op = client(extra_params={"domain_hint": "corp", "acr_values": "overruled"}, scopes=("openid", "a:b"))
    url = await begin(op, acr_values=("phr", "phrh"), max_age=0, prompt="login", login_hint="al")
    assert url.startswith(f"{world.issuer}/authorize?tenant=1&")
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    assert dict(parse_qsl(urlsplit(url).query)) == {
        "tenant": "1",
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": HERE,
        "scope": "openid a:b",
        "state": "S" * 43,
        "nonce": "N" * 43,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "acr_values": "phr phrh",
        "max_age": "0",
        "prompt": "login",
        "login_hint": "al",
        "domain_hint": "corp",
    }
    assert all(len(values) == 1 for values in parse_qs(urlsplit(url).query).values())


async def test_the_claims_parameter_arrives_as_it_was_given(world: LyingProvider, client: Client) -> None:
    claims = '{"id_token":{"acr":{"essential":true,"values":["urn:x&y=z","ü"]}}}'
    url = await begin(client(extra_params={"claims": "overruled"}), claims=claims)
    assert parse_qs(urlsplit(url).query)["claims"] == [claims]
    assert "claims" not in parse_qs(urlsplit(await begin(client())).query)


async def test_D04_the_challenge_is_sent_though_the_metadata_offers_only_plain(
    world: LyingProvider, client: Client
) -> None:
    world.metadata["code_challenge_methods_supported"] = ["plain"]
    assert "code_challenge_method=S256" in await begin(client())
    with pytest.raises(WorldError, match="PKCE"):
        await begin(client(require_pkce_metadata=True))


@pytest.mark.parametrize(("said", "required"), [(True, True), (False, False), (..., False), ("yes", False)])
async def test_requires_iss_parameter(
    world: LyingProvider, client: Client, said: Any, required: bool
) -> None:
    world.metadata["authorization_response_iss_parameter_supported"] = said
    assert await client().requires_iss_parameter() is required


# Discovery


async def test_nothing_is_asked_before_somebody_signs_in(world: LyingProvider, client: Client) -> None:
    op = client()
    assert not world.hits
    await asyncio.gather(*(begin(op) for _ in range(20)))
    assert world.hits == {"/.well-known/openid-configuration": 1}


async def test_a_provider_that_is_down_at_first_is_asked_again(
    world: LyingProvider, client: Client, clock: SetClock
) -> None:
    op = client()
    world.lie("/.well-known/openid-configuration", Says(status=503))
    with pytest.raises(WorldError) as failed:
        await begin(op)
    assert failed.value.reason is Reason.PROVIDER_UNAVAILABLE
    assert op.trouble == "discovery: status 503"
    world.lies.clear()
    clock.now += 1
    assert (await begin(op)).startswith(world.issuer)
    assert op.trouble is None


BAD_DISCOVERY = [
    pytest.param(Says("<html>", content_type="text/html"), id="D07_html"),
    pytest.param(Says(b'{"issuer":"a","issuer":"b"}'), id="D07_duplicate_name"),
    pytest.param(Says(gzip.compress(bytes(2**20)), headers={"Content-Encoding": "gzip"}), id="D07_gzip_bomb"),
    pytest.param(Says(gzip.compress(b"{}")), id="D07_gzip_that_is_not_said"),
    pytest.param(Says(b'{"issuer":"\xe9"}', content_type="application/json"), id="D07_latin_1"),
    pytest.param(Says(b'{"issuer":"x"} {}'), id="D07_trailing"),
    pytest.param(Says("{}".encode("utf-16")), id="D07_wrong_charset"),
    pytest.param(Says("[]"), id="D07_list"),
    pytest.param(Says("[" * 10000), id="D07_deep"),
    pytest.param(Says(b" " * (512 * 1024 + 1)), id="D07_huge"),
    pytest.param(Says(status=302, headers={"Location": "http://169.254.169.254/"}), id="D05_redirect"),
    pytest.param(Says(status=500), id="status_500"),
    pytest.param(Says({"issuer": "https://evil.test"}), id="D01_another_issuer"),
]


@pytest.mark.parametrize("says", BAD_DISCOVERY)
async def test_bad_discovery_keeps_the_last_good_one(
    world: LyingProvider, client: Client, clock: SetClock, says: Says
) -> None:
    op = client()
    good = await begin(op)
    world.lie("/.well-known/openid-configuration", says)
    clock.now += 4000
    assert await begin(op) == good
    assert op.trouble is not None
    with pytest.raises(WorldError):
        await begin(client())


async def test_D02_endpoints_do_not_move_to_a_host_that_was_not_seen(
    world: LyingProvider, client: Client, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    op = client()
    await begin(op)
    world.metadata["token_endpoint"] = world.issuer.replace("127.0.0.1", "127.0.0.2") + "/token"
    clock.now += 4000
    await exchange(world, op)
    moved = "an endpoint moved to `127.0.0.2`; if that is right, name `127.0.0.2` in `endpoint_hosts`"
    assert op.trouble == moved
    assert [one.getMessage() for one in caplog.records] == [f"provider `op`: {moved}"]
    with pytest.raises(WorldError, match="moved"):
        await begin(client(endpoint_hosts=frozenset({"127.0.0.1"})))
    await begin(client(endpoint_hosts=frozenset({"127.0.0.2"})))


async def test_D02_a_poisoned_first_document_after_a_restart(world: LyingProvider, client: Client) -> None:
    first = MemoryFirstHosts()
    await begin(client(first))
    world.metadata["jwks_uri"] = world.issuer.replace("127.0.0.1", "127.0.0.2") + "/jwks"
    restarted = client(first)
    for ask in (begin(restarted), restarted.verify(world.id_token("n"))):
        with pytest.raises(WorldError, match="moved"):
            await ask
    assert world.hits["/jwks"] == world.hits["/token"] == 0
    world.metadata.clear()
    await begin(client(first))


# The token endpoint


async def test_an_exchange_sends_what_it_must(world: LyingProvider, client: Client) -> None:
    tokens = await exchange(world, client())
    assert tokens.id_token is not None and tokens.refresh_token is not None
    assert (tokens.access_token[:3], tokens.expires_in) == ("at-", 300)
    form, headers = world.asked[-1]
    assert {**form, "code": ""} == {
        "grant_type": "authorization_code",
        "code": "",
        "code_verifier": VERIFIER,
        "redirect_uri": HERE,
    }
    # RFC 6749 2.3.1: form-encoded before base64, so the colon and the plus of the secret survive.
    expected = base64.b64encode(b"ztp:s3cret%3A+with+%2Fodd%2B+characters%2C+32").decode()
    assert headers["Authorization"] == f"Basic {expected}"
    for secret in (tokens.access_token, tokens.id_token, tokens.refresh_token):
        assert secret not in repr(tokens)


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        pytest.param(
            {"client_auth": "client_secret_post"},
            {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
            id="client_secret_post",
        ),
        pytest.param(
            {"client_auth": "none", "client_secret": None}, {"client_id": CLIENT_ID}, id="public_client"
        ),
    ],
)
async def test_other_client_authentication(
    world: LyingProvider, client: Client, settings: dict[str, Any], sent: dict[str, str]
) -> None:
    await exchange(world, client(**settings))
    form, headers = world.asked[-1]
    assert {name: value for name, value in form.items() if name.startswith("client_")} == sent
    assert "Authorization" not in headers


L, P, X = Reason.LOGIN_TOKEN, Reason.PROVIDER_UNAVAILABLE, Reason.LOGIN_REFUSED
BEARER: dict[str, Any] = {"access_token": "a", "token_type": "Bearer", "id_token": "a.b.c"}


BAD_TOKEN_ANSWERS = [
    pytest.param(Says("<html>", content_type="text/html"), L, id="D10_html"),
    pytest.param(Says(BEARER, content_type="text/plain"), L, id="D10_json_as_text"),
    pytest.param(Says({**BEARER, "error": "x"}), L, id="D10_error_inside_200"),
    pytest.param(Says({"access_token": "a", "token_type": "Bearer"}), L, id="D10_no_id_token"),
    pytest.param(Says({**BEARER, "id_token": 7}), L, id="D10_id_token_number"),
    pytest.param(Says({**BEARER, "id_token": ""}), L, id="D10_id_token_empty"),
    pytest.param(Says({**BEARER, "token_type": "mac"}), L, id="D10_token_type_mac"),
    pytest.param(Says({**BEARER, "token_type": None}), L, id="D10_no_token_type"),
    pytest.param(Says({**BEARER, "access_token": ""}), L, id="D10_no_access_token"),
    pytest.param(Says({**BEARER, "refresh_token": [1]}), L, id="D10_refresh_token_list"),
    pytest.param(Says("[]"), L, id="D10_list"),
    pytest.param(Says('{"a":1,"a":2}'), L, id="D10_duplicate_name"),
    pytest.param(Says({"error": "invalid_grant"}, status=400), X, id="code_refused"),
    pytest.param(Says({"error": "invalid_request"}, status=400), L, id="request_refused"),
    pytest.param(Says({"error": ["<b>"]}, status=400), L, id="error_is_a_list"),
    pytest.param(Says(BEARER, status=201), L, id="status_201"),
    pytest.param(Says({"error": "invalid_client"}, status=401), P, id="our_secret_is_refused"),
    pytest.param(Says({"error": "x"}, status=500), P, id="D11_status_500"),
    pytest.param(Says(status=429), P, id="D11_status_429"),
    pytest.param(Says(status=302, headers={"Location": "/elsewhere"}), L, id="redirect"),
]


@pytest.mark.parametrize(("says", "reason"), BAD_TOKEN_ANSWERS)
async def test_bad_token_answers(world: LyingProvider, client: Client, says: Says, reason: Reason) -> None:
    world.lie("/token", says)
    with pytest.raises((ClientError, WorldError)) as refused:
        await exchange(world, client())
    assert isinstance(refused.value, ClientError | WorldError)
    assert refused.value.reason is reason
    assert "<" not in str(refused.value)
    assert world.hits["/token"] == 1  # D11: a code is never sent twice
    assert world.hits["/elsewhere"] == world.hits["/userinfo"] == 0


@pytest.mark.parametrize(
    ("changes", "expires_in"),
    [
        pytest.param({"token_type": "bearer"}, 300, id="D10_lower_case_bearer"),
        pytest.param({"expires_in": ...}, None, id="no_expires_in"),
        pytest.param({"expires_in": "300"}, None, id="expires_in_is_text"),
        pytest.param({"expires_in": True}, None, id="expires_in_is_true"),
        pytest.param({"refresh_token": ..., "scope": "openid"}, 300, id="no_refresh_token"),
    ],
)
async def test_good_token_answers(
    world: LyingProvider, client: Client, changes: dict[str, Any], expires_in: float | None
) -> None:
    world.token = changes
    assert (await exchange(world, client())).expires_in == expires_in


async def test_refresh(world: LyingProvider, client: Client) -> None:
    op = client()
    first = await exchange(world, op)
    assert first.refresh_token is not None
    second = await op.refresh(first.refresh_token)
    assert world.asked[-1][0] == {"grant_type": "refresh_token", "refresh_token": first.refresh_token}
    assert second.refresh_token not in (None, first.refresh_token)
    with pytest.raises(ClientError) as refused:
        await op.refresh(first.refresh_token)
    assert refused.value.reason is Reason.SESSION_EXPIRED


async def test_a_refresh_needs_no_id_token(world: LyingProvider, client: Client) -> None:
    op = client()
    first = await exchange(world, op)
    world.token = {"id_token": ..., "refresh_token": ...}
    again = await op.refresh(first.refresh_token or "")
    assert (again.id_token, again.refresh_token) == (None, None)


# Signatures and keys; the compact form itself is tried in test_jwt.py


@pytest.mark.parametrize(
    "make",
    [pytest.param(rsa_key, id="RS256"), pytest.param(ec_key, id="ES256"), pytest.param(ed_key, id="EdDSA")],
)
async def test_a_good_id_token(world: LyingProvider, client: Client, make: Callable[[], Any]) -> None:
    world.signer = make()
    world.keys = [world.signer]
    assert (await client().verify(world.id_token("n")))["sub"] == "alice"


async def test_an_algorithm_that_is_not_this_providers(world: LyingProvider, client: Client) -> None:
    world.signer = ec_key()
    world.keys = [*world.keys, world.signer]
    with pytest.raises(ClientError, match="alg"):
        await client(algorithms=frozenset({"RS256"})).verify(world.id_token("n"))
    assert world.hits["/jwks"] == 0


async def test_J05_a_secret_never_passes_for_a_signature(world: LyingProvider, client: Client) -> None:
    token = jwt.encode({"sub": "admin"}, CLIENT_SECRET, "HS256")
    with pytest.raises(ClientError) as refused:
        await client().verify(token)
    assert (refused.value.reason, str(refused.value)) == (Reason.LOGIN_TOKEN, "alg")


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "crit"])
async def test_J10_J15_a_token_does_not_choose_its_key(
    world: LyingProvider, client: Client, name: str
) -> None:
    evil = ec_key("k1")
    world.signer = evil
    world.header = {name: evil.jwk() if name == "jwk" else [] if name == "crit" else f"{world.issuer}/evil"}
    with pytest.raises(ClientError, match="header"):
        await client().verify(world.id_token("n"))
    assert world.hits["/evil"] == 0


async def test_J20_the_named_key_and_no_other(world: LyingProvider, client: Client) -> None:
    world.keys = [rsa_key("k1"), rsa_key("k3", which="k3")]
    world.signer = rsa_key("k3", which="k1")
    with pytest.raises(ClientError, match="sig"):
        await client().verify(world.id_token("n"))


async def test_J21_a_flood_of_unknown_keys_asks_once(
    world: LyingProvider, client: Client, clock: SetClock
) -> None:
    op = client()
    await op.verify(world.id_token("n"))
    good, head = world.id_token("n"), {"alg": "RS256"}
    tokens = [with_head({**head, "kid": f"made-up-{number}"}, good) for number in range(1000)]
    for tenth in range(10):
        flood = (op.verify(token) for token in tokens[tenth::10])
        *answers, honest = await asyncio.gather(*flood, op.verify(good), return_exceptions=True)
        assert {str(answer) for answer in answers} == {"kid"}
        assert isinstance(honest, dict) and honest["sub"] == "alice"
        clock.now += 1
    assert world.hits["/jwks"] == 2  # at first, and once for all of these
    clock.now += 20
    with pytest.raises(ClientError, match="kid"):
        await op.verify(tokens[0])
    assert world.hits["/jwks"] == 3


def with_head(head: dict[str, Any], token: str) -> str:
    """The same claims and signature under another header."""
    made = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
    return made + token[token.index(".") :]


async def test_J21_a_flood_while_the_keys_cannot_be_had_asks_seldom(
    world: LyingProvider, client: Client, clock: SetClock
) -> None:
    op, good = client(), world.id_token("n")
    world.lie("/jwks", Says(status=500))
    for _ in range(10):
        answers = await asyncio.gather(*(op.verify(good) for _ in range(100)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {WorldError}
        clock.now += 1
    assert world.hits["/jwks"] == 10  # once a second while there is nothing at hand
    world.lies.clear()
    assert (await op.verify(good))["sub"] == "alice"


@pytest.mark.parametrize("kid", ["k9", None])
async def test_J32_a_key_rotated_in_between_is_fetched_once(
    world: LyingProvider, client: Client, kid: str | None
) -> None:
    if kid is None:
        world.keys = [rsa_key(None)]
        world.signer = world.keys[0]
    op = client()
    await op.verify(world.id_token("n"))
    world.signer = rsa_key(kid, which="k3")
    world.keys = [world.signer]
    assert (await op.verify(world.id_token("n")))["sub"] == "alice"
    assert world.hits["/jwks"] == 2


@pytest.mark.parametrize(
    "typ",
    [
        pytest.param("logout+jwt", id="as it should be"),
        pytest.param("application/logout+jwt", id="in full"),
        pytest.param("JWT", id="as older providers write it"),
        pytest.param(None, id="without"),
    ],
)
async def test_a_logout_token(world: LyingProvider, client: Client, typ: str | None) -> None:
    world.header = {"typ": typ}
    claims = await client().verify_logout(world.logout_token(sub="alice"))
    assert (claims["iss"], claims["sid"], claims["sub"]) == (world.issuer, "i-1", "alice")


@pytest.mark.parametrize("typ", ["at+jwt", "secevent+jwt", "dpop+jwt", "LOGOUT+JWT", "id_token"])
async def test_L14_a_token_of_another_type_signs_nobody_out(
    world: LyingProvider, client: Client, typ: str
) -> None:
    world.header = {"typ": typ}
    with pytest.raises(ClientError) as refused:
        await client().verify_logout(world.logout_token())
    assert (refused.value.reason, str(refused.value)) == (Reason.LOGOUT_TOKEN, "typ")


@pytest.mark.parametrize("typ", ["logout+jwt", "application/logout+jwt"])
async def test_L15_J40_a_logout_token_signs_nobody_in(world: LyingProvider, client: Client, typ: str) -> None:
    world.header = {"typ": typ}
    with pytest.raises(ClientError) as refused:
        await client().verify(world.logout_token(sub="alice", nonce="n"))
    assert (refused.value.reason, str(refused.value)) == (Reason.LOGIN_TOKEN, "typ")


async def test_L07_a_logout_token_of_another_algorithm(world: LyingProvider, client: Client) -> None:
    op = client(algorithms=frozenset({"RS256"}))
    assert await op.verify_logout(world.logout_token())
    world.keys = [rsa_key(), ec_key("k2")]
    public = rsa_key().private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    good = world.logout_token()
    claims = jwt.decode(good, options={"verify_signature": False})
    world.signer = world.keys[1]
    tokens = [
        world.logout_token(),
        jwt.encode(claims, CLIENT_SECRET, "HS256", {"kid": "k1"}),
        hs256(claims, public),
        jwt.encode(claims, None, "none"),
        jwt.encode(claims, rsa_key().private, "RS512", {"kid": "k1"}),
    ]
    for token in tokens:
        with pytest.raises(ClientError, match="alg") as refused:
            await op.verify_logout(token)
        assert refused.value.reason is Reason.LOGOUT_TOKEN


def hs256(claims: dict[str, Any], secret: bytes) -> str:
    """By hand: the library refuses a public key for a secret."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "k1"}, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = base64.urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + mac).decode()


@pytest.mark.parametrize(
    ("token", "code"),
    [
        pytest.param("a.b.c.d.e", "format", id="L25 encrypted"),
        pytest.param("", "format", id="nothing"),
        pytest.param("a.b", "format", id="half"),
        pytest.param("x" * 20000, "size", id="huge"),
    ],
)
async def test_L25_what_is_no_signed_token(client: Client, token: str, code: str) -> None:
    with pytest.raises(ClientError) as refused:
        await client().verify_logout(token)
    assert (refused.value.reason, str(refused.value)) == (Reason.LOGOUT_TOKEN, code)


async def test_a_logout_token_that_somebody_else_signed(world: LyingProvider, client: Client) -> None:
    world.signer = rsa_key("k1", which="k3")
    with pytest.raises(ClientError, match="sig"):
        await client().verify_logout(world.logout_token())


async def test_L21_a_logout_token_of_a_new_key_is_worth_one_question(
    world: LyingProvider, client: Client
) -> None:
    op = client()
    await op.verify(world.id_token("n"))
    world.signer = rsa_key("k9", which="k3")
    world.keys = [world.signer]
    assert (await op.verify_logout(world.logout_token()))["sid"] == "i-1"
    world.signer = rsa_key("made-up")
    for _ in range(3):
        with pytest.raises(ClientError, match="kid"):
            await op.verify_logout(world.logout_token())
    assert world.hits["/jwks"] == 2


async def test_J22_a_token_without_kid_needs_a_single_key(world: LyingProvider, client: Client) -> None:
    world.signer = rsa_key(None)
    assert (await client().verify(world.id_token("n")))["sub"] == "alice"
    world.keys = [rsa_key("k1"), rsa_key("k3", which="k3")]
    with pytest.raises(ClientError, match="kid"):
        await client().verify(world.id_token("n"))


BAD_KEYS = [
    pytest.param(Says("<html>", content_type="text/html"), id="J31_html"),
    pytest.param(Says(status=302, headers={"Location": "/evil"}), id="J31_redirect"),
    pytest.param(Says(status=500), id="J31_status_500"),
    pytest.param(Says({"keys": []}), id="J31_no_keys"),
    pytest.param(Says({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}), id="J28_symmetric_key"),
    pytest.param(Says({"keys": [rsa_key().jwk(use="enc")]}), id="J25_key_for_encryption"),
    pytest.param(Says({"keys": [rsa_key().jwk(), rsa_key(which="k3").jwk()]}), id="J24_one_kid_twice"),
    pytest.param(Says({"keys": [{}] * 65}), id="J30_too_many"),
    pytest.param(Says({"keys": [rsa_key().jwk()] * 10_000}), id="J30_10000_keys"),
    pytest.param(Says(gzip.compress(bytes(2**20)), headers={"Content-Encoding": "gzip"}), id="J30_gzip_bomb"),
    pytest.param(Says(b'{"keys":' + b"[" * 10_000 + b"]" * 10_000 + b"}"), id="J30_deep"),
    pytest.param(Says(b'{"keys":[],"keys":[]}'), id="J30_name_twice"),
    pytest.param(Says(b" " * (512 * 1024 + 1)), id="J30_huge"),
    pytest.param(Says({"keys": "all"}), id="keys_is_text"),
]


@pytest.mark.parametrize("says", BAD_KEYS)
async def test_bad_key_sets_keep_the_last_good_one_for_a_day(
    world: LyingProvider, client: Client, clock: SetClock, says: Says
) -> None:
    op = client()
    await op.verify(world.id_token("n"))
    world.lie("/jwks", says)
    clock.now += 23 * 3600
    assert (await op.verify(world.id_token("n")))["sub"] == "alice"
    assert op.trouble is not None
    clock.now += 3600
    with pytest.raises(WorldError) as failed:
        await op.verify(world.id_token("n"))
    assert failed.value.reason is Reason.PROVIDER_UNAVAILABLE
    assert world.hits["/evil"] == 0


# Userinfo and logout


async def test_userinfo_is_asked_only_when_configured(world: LyingProvider, client: Client) -> None:
    assert await client().userinfo("at") is None
    assert world.hits["/userinfo"] == 0
    assert await client(userinfo=True).userinfo("at") == {"sub": "alice"}
    world.metadata["userinfo_endpoint"] = ...
    assert await client(userinfo=True).userinfo("at") is None


BAD_USERINFO = [
    pytest.param(Says("<html>", content_type="text/html"), L, id="html"),
    pytest.param(Says("[]"), L, id="list"),
    pytest.param(Says(status=401), L, id="token_refused"),
    pytest.param(Says(status=503), P, id="away"),
    pytest.param(Says("eyJhbGciOiJub25lIn0.e30.", content_type="application/jwt"), L, id="D12_alg_none"),
    pytest.param(Says(b"\xff.\xff.\xff", content_type="application/jwt"), L, id="D12_no_text"),
]


@pytest.mark.parametrize(("says", "reason"), BAD_USERINFO)
async def test_bad_userinfo(world: LyingProvider, client: Client, says: Says, reason: Reason) -> None:
    world.lie("/userinfo", says)
    with pytest.raises((ClientError, WorldError)) as refused:
        await client(userinfo=True).userinfo("at")
    assert isinstance(refused.value, ClientError | WorldError)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param({}, None, id="signed"),
        pytest.param({"aud": ["other", CLIENT_ID]}, None, id="audience_as_a_list"),
        pytest.param({"iss": "https://evil.test"}, "another issuer", id="D12_another_issuer"),
        pytest.param({"aud": "other"}, "another client", id="D12_another_client"),
        pytest.param({"aud": ...}, "another client", id="D12_no_audience"),
    ],
)
async def test_signed_userinfo(
    world: LyingProvider, client: Client, changes: dict[str, Any], word: str | None
) -> None:
    world.lie("/userinfo", Says(world.id_token(None, **changes), content_type="application/jwt"))
    op = client(userinfo=True)
    if word is None:
        assert (await op.userinfo("at") or {})["sub"] == "alice"
    else:
        with pytest.raises(ClientError, match=word):
            await op.userinfo("at")


@pytest.mark.parametrize(
    ("hint", "sent"),
    [
        pytest.param("a.b.c", {"id_token_hint": "a.b.c"}, id="hint"),
        pytest.param(None, {}, id="no_hint"),
        pytest.param("a" * 5000, {}, id="hint_too_long_for_a_url"),
    ],
)
async def test_end_session_url(
    world: LyingProvider, client: Client, hint: str | None, sent: dict[str, str]
) -> None:
    url = await client().end_session_url(id_token_hint=hint, return_to="https://app.test/out?a=b&c")
    assert url is not None and url.startswith(f"{world.issuer}/logout?")
    assert dict(parse_qsl(urlsplit(url).query)) == {
        "client_id": CLIENT_ID,
        "post_logout_redirect_uri": "https://app.test/out?a=b&c",
        **sent,
    }


async def test_a_provider_without_logout(world: LyingProvider, client: Client) -> None:
    world.metadata["end_session_endpoint"] = ...
    assert await client().end_session_url(id_token_hint=None, return_to="https://app.test/") is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"issuer": "http://op.test"}, id="http_issuer"),
        pytest.param({"algorithms": frozenset({"HS256"})}, id="symmetric_algorithm"),
        pytest.param({"algorithms": frozenset[str]()}, id="no_algorithm"),
        pytest.param({"client_secret": None}, id="no_secret"),
        pytest.param({"client_auth": "none"}, id="a_secret_for_a_public_client"),
        pytest.param({"scopes": ("profile",)}, id="no_openid"),
        pytest.param({"extra_params": {"state": "x"}}, id="a_parameter_of_ours"),
        pytest.param({"extra_params": {"code_challenge_method": "plain"}}, id="plain"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {"name": "op", "issuer": "https://op.test", "client_id": "c", "client_secret": "s"}
    assert "'s'" not in repr(ProviderSettings(**good))
    with pytest.raises(OperatorError):
        ProviderSettings(**{**good, **changes})


def test_an_issuer_without_tls_is_possible_and_dangerous() -> None:
    settings = ProviderSettings(
        "op", "http://op.test", "c", client_auth="none", dangerous_allow_http_issuer=True
    )
    assert settings.issuer == "http://op.test"


SERVES_ON = "the last good one serves on for a day; without one nobody signs in"
TRIED = tuple(
    Tried("Sign-in", what, len(rows), len(rows), outcome)
    for what, rows, outcome in [
        ("discovery documents that lie or are none", BAD_DISCOVERY, SERVES_ON),
        ("key sets that lie or are none", BAD_KEYS, SERVES_ON),
        ("answers of the token endpoint", BAD_TOKEN_ANSWERS, "refused, the code never sent again"),
        ("answers of the userinfo endpoint", BAD_USERINFO, "refused"),
    ]
)
