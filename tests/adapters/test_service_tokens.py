"""An issuer of tokens whose keys are real, on a real socket that lies, or in a file that changes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp.abc import ResolveResult
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.worlds.lying_provider import Key, LyingProvider, Says, ec_key, ed_key, lying_provider, rsa_key
from tests.worlds.memory_providers import MemoryFirstHosts
from tests.worlds.memory_state import SetClock
from ztproxy.adapters.oidc_fetch import provider_session
from ztproxy.adapters.service_tokens import KEYS_FRESH, IssuerSettings, TokenVerifier
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, OperatorError, WorldError
from ztproxy.gateway.ports.devices import TokenIssuer

ALL = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
CLAIMS = {"iss": "https://ci.test", "sub": "runner", "aud": "api", "exp": 1}
Build = Callable[..., TokenVerifier]


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


@pytest.fixture
def build(world: LyingProvider, http: aiohttp.ClientSession, clock: SetClock) -> Build:
    def made(first: MemoryFirstHosts | None = None, /, **settings: Any) -> TokenVerifier:
        usual = {"name": "ci", "issuer": world.issuer, "jwks_url": f"{world.issuer}/jwks"}
        return TokenVerifier(IssuerSettings(**{**usual, **settings}), http, clock, first=first)

    return made


def sign(key: Key | None = None, claims: Any = None, **header: Any) -> str:
    key = key or rsa_key()
    named = {} if key.kid is None else {"kid": key.kid}
    return jwt.encode({**CLAIMS, **(claims or {})}, key.private, key.alg, headers={**named, **header})


def letters(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(header: bytes, payload: bytes = json.dumps(CLAIMS).encode()) -> str:
    return f"{letters(header)}.{letters(payload)}"


def by_hand(header: bytes, payload: bytes = json.dumps(CLAIMS).encode()) -> str:
    """Signed well by `k1`, whatever header and payload say."""
    message = unsigned(header, payload)
    made = jwt.get_algorithm_by_name("RS256").sign(message.encode(), rsa_key().private)
    return f"{message}.{letters(made)}"


PLAIN = b'{"alg":"RS256","kid":"k1"}'


async def refusal(verifier: TokenIssuer, token: str) -> str:
    with pytest.raises(ClientError) as caught:
        await verifier.verify(token)
    assert caught.value.reason is Reason.TOKEN_INVALID
    return str(caught.value)


async def trouble(verifier: TokenIssuer, token: str | None = None) -> str:
    with pytest.raises(WorldError) as caught:
        await verifier.verify(token or sign())
    assert caught.value.reason is Reason.PROVIDER_UNAVAILABLE
    return str(caught.value)


# -- what is verified --


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa_key(), id="RS256"),
        pytest.param(rsa_key(alg="PS256"), id="PS256"),
        pytest.param(ec_key(), id="ES256"),
        pytest.param(ed_key(), id="EdDSA"),
        pytest.param(rsa_key(kid=None), id="without-a-kid"),
    ],
)
async def test_a_signed_token_is_its_claims(world: LyingProvider, build: Build, key: Key) -> None:
    world.keys = [key]
    verifier: TokenIssuer = build(algorithms=ALL)
    assert await verifier.verify(sign(key)) == CLAIMS
    assert (verifier.name, verifier.issuer) == ("ci", world.issuer)


@pytest.mark.parametrize(
    ("types", "typ", "held"),
    [
        pytest.param({"at+jwt", "jwt"}, ..., True, id="none"),
        pytest.param({"at+jwt", "jwt"}, "JWT", True, id="JWT"),
        pytest.param({"at+jwt", "jwt"}, "at+jwt", True, id="at+jwt"),
        pytest.param({"at+jwt", "jwt"}, "AT+JWT", True, id="capitals"),
        pytest.param({"at+jwt", "jwt"}, "application/at+jwt", True, id="in-full"),
        pytest.param({"at+jwt", "jwt"}, "logout+jwt", False, id="a-logout-token"),
        pytest.param({"at+jwt", "jwt"}, "at+jwt ", False, id="a-space"),
        pytest.param({"at+jwt", "jwt"}, "application/application/jwt", False, id="twice-in-full"),
        pytest.param({"at+jwt", "jwt"}, "", False, id="empty"),
        pytest.param({"at+jwt"}, "at+jwt", True, id="RFC-9068"),
        pytest.param({"at+jwt"}, "JWT", False, id="RFC-9068-an-id-token"),
        pytest.param({"at+jwt"}, ..., False, id="RFC-9068-none"),
        pytest.param((), "own+jwt", True, id="any"),
        pytest.param((), ..., True, id="any-none"),
        pytest.param((), "application/Logout+JWT", False, id="any-but-a-logout-token"),
        pytest.param((), "dpop+jwt", False, id="any-but-a-proof"),
    ],
)
async def test_types(build: Build, types: Any, typ: Any, held: bool) -> None:
    header = {"alg": "RS256", "kid": "k1", "typ": typ}
    token = by_hand(PLAIN if typ is ... else json.dumps(header).encode())
    verifier = build(types=frozenset(types))
    if held:
        assert await verifier.verify(token) == CLAIMS
    else:
        assert await refusal(verifier, token) == "typ: a token of another kind"


def by_secret(public: bytes) -> str:
    """J05: HS256 with the public key for a secret."""
    message = unsigned(b'{"alg":"HS256","kid":"k1"}')
    made = hmac.HMAC(public, hashes.SHA256())
    made.update(message.encode())
    return f"{message}.{letters(made.finalize())}"


def pem() -> bytes:
    return rsa_key().private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def other_payload(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{letters(json.dumps({**CLAIMS, 'sub': 'root'}).encode())}.{signature}"


OTHER = rsa_key(which="k3")
ATTACKS = [
    pytest.param(lambda: unsigned(b'{"alg":"none"}') + ".", "alg", id="J01-none"),
    pytest.param(lambda: unsigned(b'{"alg":"none"}') + ".AA", "alg", id="J02-none-signed"),
    pytest.param(lambda: by_secret(pem()), "alg", id="J05-public-key-as-secret"),
    pytest.param(lambda: sign(OTHER), "sig", id="another-key-of-that-name"),
    pytest.param(lambda: sign(rsa_key("k9", which="k3")), "kid", id="a-kid-that-is-not-there"),
    pytest.param(lambda: sign(rsa_key("K1")), "kid", id="a-kid-in-capitals"),
    pytest.param(
        lambda: sign(rsa_key(alg="PS256")), "alg: not what this issuer signs with", id="alg-not-pinned"
    ),
    pytest.param(
        lambda: sign(ec_key("k1")), "alg: not what this issuer signs with", id="alg-of-another-kind"
    ),
    pytest.param(lambda: other_payload(sign()), "sig", id="other-claims"),
    pytest.param(lambda: sign(jwk=OTHER.jwk()), "header", id="brings-its-key"),
    pytest.param(lambda: sign(jku="https://evil.test/jwks"), "header", id="says-where-its-key-is"),
    pytest.param(lambda: sign(x5c=["MIIB"]), "header", id="brings-a-certificate"),
    pytest.param(lambda: sign(crit=["exp"]), "header", id="crit"),
    pytest.param(lambda: by_hand(PLAIN[:-1] + b',"b64":true}'), "header", id="b64"),
    pytest.param(lambda: sign(claims={"x": "x" * 16384}), "size", id="too-long"),
    pytest.param(lambda: "a." * 500_000, "size", id="a-megabyte"),
    pytest.param(lambda: sign() + "=", "format", id="padded"),
    pytest.param(lambda: sign() + ".x", "format", id="four-parts"),
    pytest.param(lambda: sign().replace(".", "\N{ONE DOT LEADER}"), "format", id="dots-that-are-none"),
    pytest.param(lambda: "", "format", id="empty"),
]


@pytest.mark.parametrize(("made", "code"), ATTACKS)
async def test_a_token_that_is_refused(build: Build, made: Callable[[], str], code: str) -> None:
    verifier = build()
    assert await refusal(verifier, made()) == code
    assert await verifier.verify(sign()) == CLAIMS


async def test_claims_that_two_readers_would_read_differently_are_refused(build: Build) -> None:
    token = by_hand(PLAIN, b'{"sub":"a","sub":"root"}')
    assert await refusal(build(), token) == "json"


async def test_a_thumbprint_of_the_signer_is_passed_over(build: Build) -> None:
    assert await build().verify(by_hand(PLAIN[:-1] + b',"x5t":"t","x5t#S256":"s"}')) == CLAIMS


# -- keys at a URL --


async def test_nothing_is_asked_before_a_token_came_and_once_for_many(
    world: LyingProvider, build: Build
) -> None:
    verifier = build()
    assert not world.hits and verifier.trouble is None
    await refusal(verifier, sign(typ="logout+jwt"))
    assert not world.hits  # what no key could save asks for none
    for _ in range(9):
        await verifier.verify(sign())
    assert world.hits == {"/jwks": 1}


async def test_a_new_key_is_found_and_unknown_ones_ask_once_in_30_seconds(
    world: LyingProvider, build: Build, clock: SetClock
) -> None:
    verifier, new = build(), rsa_key("k3", which="k3")
    await verifier.verify(sign())
    world.keys = [new]
    assert await verifier.verify(sign(new)) == CLAIMS
    assert await refusal(verifier, sign()) == "kid"
    for number in range(20):
        assert await refusal(verifier, sign(rsa_key(f"x{number}"))) == "kid"
    assert world.hits["/jwks"] == 2
    clock.now += 31
    assert await refusal(verifier, sign(rsa_key("x"))) == "kid"
    assert world.hits["/jwks"] == 3


async def test_J21_a_flood_of_unknown_keys_asks_once(
    world: LyingProvider, build: Build, clock: SetClock
) -> None:
    verifier = build()
    assert await verifier.verify(sign()) == CLAIMS
    signature = sign().rpartition(".")[2]
    for second in range(10):
        heads = (f'{{"alg":"RS256","kid":"x{second}-{number}"}}'.encode() for number in range(100))
        flood = (verifier.verify(f"{unsigned(head)}.{signature}") for head in heads)
        *answers, honest = await asyncio.gather(*flood, verifier.verify(sign()), return_exceptions=True)
        assert ({str(answer) for answer in answers}, honest) == ({"kid"}, CLAIMS)
        clock.now += 1
    assert world.hits["/jwks"] == 2


async def test_a_key_without_a_name_may_have_changed(world: LyingProvider, build: Build) -> None:
    verifier = build()
    world.keys = [rsa_key(None)]
    assert await verifier.verify(sign(rsa_key(None))) == CLAIMS
    world.keys = [rsa_key(None, which="k3")]
    assert await verifier.verify(sign(rsa_key(None, which="k3"))) == CLAIMS


async def test_a_key_that_was_withdrawn_counts_for_an_hour_at_most(
    world: LyingProvider, build: Build, clock: SetClock
) -> None:
    verifier = build()
    await verifier.verify(sign())
    world.keys = [ec_key()]
    clock.now += KEYS_FRESH - 1
    assert await verifier.verify(sign()) == CLAIMS
    clock.now += 1
    assert await refusal(verifier, sign()) == "kid"


async def test_an_issuer_that_is_away(world: LyingProvider, build: Build, clock: SetClock) -> None:
    verifier = build()
    world.lie("/jwks", Says(status=500))
    assert await trouble(verifier) == "jwks: status 500"
    del world.lies["/jwks"]
    clock.now += 2
    assert await verifier.verify(sign()) == CLAIMS
    world.lie("/jwks", Says(status=500))
    clock.now += KEYS_FRESH
    assert await verifier.verify(sign()) == CLAIMS  # the last good ones serve on
    assert verifier.trouble == "jwks: status 500"


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        (Says("<html>"), "jwks: no JSON object"),
        (Says("[]"), "jwks: no JSON object"),
        (Says({"keys": {}}), "jwks: it is no key set"),
        (Says({"keys": []}), "jwks: no key can be used"),
        (Says({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}]}), "jwks: no key can be used"),
        (Says(status=302, headers={"Location": "/other"}), "jwks: status 302"),
    ],
    ids=["html", "a list", "no set", "empty", "symmetric", "a redirect"],
)
async def test_a_key_set_that_is_none(world: LyingProvider, build: Build, says: Says, problem: str) -> None:
    world.lie("/jwks", says)
    assert await trouble(build()) == problem


# -- keys by the metadata --


async def test_keys_are_found_by_the_metadata(world: LyingProvider, build: Build) -> None:
    world.metadata = {"authorization_endpoint": ..., "token_endpoint": ...}  # as of Kubernetes: no sign-in
    assert await build(jwks_url=None).verify(sign()) == CLAIMS
    assert world.hits == {"/.well-known/openid-configuration": 1, "/jwks": 1}


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"issuer": "https://other.test"}, "metadata: it is of another issuer"),
        ({"jwks_uri": ...}, "metadata: `jwks_uri` is not https"),
        ({"jwks_uri": ["https://x.test"]}, "metadata: `jwks_uri` is not https"),
        ({"jwks_uri": "http://jwks.test/keys"}, "metadata: `jwks_uri` is no usable URL"),
        ({"jwks_uri": "https://user@jwks.test/keys"}, "metadata: `jwks_uri` is no usable URL"),
        ({"jwks_uri": "https://169.254.169.254/keys"}, "metadata: `jwks_uri` is no usable URL"),
    ],
    ids=["another issuer", "no keys", "a list", "plain http elsewhere", "a user", "link-local"],
)
async def test_metadata_that_is_refused(
    world: LyingProvider, build: Build, metadata: dict[str, Any], problem: str
) -> None:
    world.metadata = metadata
    assert await trouble(build(jwks_url=None)) == problem
    assert world.hits["/jwks"] == 0


async def test_an_https_issuer_is_not_sent_to_plain_http(
    http: aiohttp.ClientSession, clock: SetClock
) -> None:
    verifier = TokenVerifier(IssuerSettings("ci", "https://127.0.0.1:1"), http, clock)
    assert "no usable answer" in await trouble(verifier)


async def test_metadata_cannot_move_the_keys_to_another_host(
    world: LyingProvider, build: Build, clock: SetClock
) -> None:
    verifier = build(jwks_url=None)
    await verifier.verify(sign())
    world.metadata = {"jwks_uri": world.issuer.replace("127.0.0.1", "localhost") + "/jwks"}
    world.keys = [OTHER]
    clock.now += KEYS_FRESH
    assert await refusal(verifier, sign(OTHER)) == "sig"
    assert verifier.trouble == "an endpoint moved to `localhost`; if that is right, write `jwks_url`"
    assert await verifier.verify(sign()) == CLAIMS


async def test_D02_keys_that_moved_before_a_restart_are_not_believed(
    world: LyingProvider, build: Build
) -> None:
    first = MemoryFirstHosts()
    assert await build(first, jwks_url=None).verify(sign()) == CLAIMS
    world.metadata = {"jwks_uri": world.issuer.replace("127.0.0.1", "localhost") + "/jwks"}
    world.keys = [OTHER]
    assert "moved" in await trouble(build(first, jwks_url=None), sign(OTHER))
    assert world.hits["/jwks"] == 1
    address = str(world.metadata["jwks_uri"])
    assert await build(first, jwks_url=address).verify(sign(OTHER)) == CLAIMS  # the operator says so


class Everywhere(aiohttp.ThreadedResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await super().resolve("127.0.0.1", port, family)


async def test_T26_the_keys_of_an_issuer_elsewhere_are_not_on_this_machine(
    world: LyingProvider, clock: SetClock
) -> None:
    here, world.issuer = world.issuer, world.issuer.replace("127.0.0.1", "ci.test")
    settings = IssuerSettings("ci", world.issuer, dangerous_allow_http=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Everywhere())) as http:
        assert await TokenVerifier(settings, http, clock).verify(sign()) == CLAIMS
        world.metadata = {"jwks_uri": f"{here}/jwks"}
        verifier = TokenVerifier(settings, http, clock)
        assert await trouble(verifier) == "metadata: `jwks_uri` is on this machine, its issuer is not"
    assert world.hits["/jwks"] == 1


# -- keys in a file --


def write(path: Path, *keys: Key) -> None:
    """As whoever rotates keys should: another file in its place."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keys": [key.jwk() for key in keys]}))
    os.replace(new, path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "keys.json", rsa_key())
    return tmp_path / "keys.json"


async def test_keys_of_a_file_count_from_the_moment_it_changes(
    world: LyingProvider, build: Build, file: Path
) -> None:
    verifier, new = build(jwks=file), ec_key()
    verifier = build(jwks=file, algorithms=ALL)
    assert await verifier.verify(sign()) == CLAIMS
    assert await refusal(verifier, sign(new)) == "kid"
    write(file, new)
    assert await verifier.verify(sign(new)) == CLAIMS
    assert await refusal(verifier, sign()) == "kid"
    assert not world.hits


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        pytest.param(Path.unlink, "No such file", id="gone"),
        pytest.param(lambda path: path.write_text('{"keys": ['), "no JSON object", id="half-written"),
        pytest.param(lambda path: path.write_text('{"keys": []}'), "no key can be used", id="empty"),
        pytest.param(lambda path: path.write_text("x" * 600_000), "larger than 512 KiB", id="large"),
    ],
)
async def test_a_file_that_cannot_be_read_leaves_the_last_good_keys(
    build: Build, file: Path, spoil: Callable[[Path], object], problem: str
) -> None:
    verifier, late = build(jwks=file), build(jwks=file)
    await verifier.verify(sign())
    spoil(file)
    assert await verifier.verify(sign()) == CLAIMS
    assert verifier.trouble is not None and problem in verifier.trouble
    assert problem in await trouble(late)
    write(file, rsa_key())
    assert await late.verify(sign()) == await verifier.verify(sign()) == CLAIMS
    assert late.trouble is None and verifier.trouble is None


# -- settings --

GOOD = IssuerSettings("ci", "https://ci.test")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"algorithms": frozenset()}, id="no-algorithm"),
        pytest.param({"algorithms": frozenset({"HS256"})}, id="a-symmetric-one"),
        pytest.param({"algorithms": frozenset({"RS256", "none"})}, id="none"),
        pytest.param({"issuer": "http://ci.test"}, id="issuer-plain-http"),
        pytest.param({"issuer": "kubernetes/serviceaccount"}, id="metadata-of-no-url"),
        pytest.param({"jwks_url": "http://ci.test/jwks"}, id="keys-plain-http"),
        pytest.param({"jwks_url": "file:///etc/keys"}, id="keys-no-http"),
        pytest.param({"jwks_url": "https://169.254.169.254/keys"}, id="keys-link-local"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any]) -> None:
    with pytest.raises(OperatorError):
        replace(GOOD, **changes)


def test_an_issuer_need_be_no_url_where_its_keys_are_at_hand() -> None:
    assert replace(GOOD, issuer="kubernetes/serviceaccount", jwks=Path("keys.json")).jwks_url is None
    assert replace(GOOD, issuer="kubernetes/serviceaccount", jwks_url="https://k8s.test/openid/v1/jwks")
    assert replace(GOOD, jwks_url="http://jwks.test", dangerous_allow_http=True)
