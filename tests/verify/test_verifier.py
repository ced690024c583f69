"""Which assertions are accepted, and why each of the others is not."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.verify import smith
from tests.verify.smith import (
    AUDIENCE,
    HOSTILE,
    HOSTILE_TEXTS,
    ISSUER,
    JWKS,
    KEY,
    OTHER,
    key_set_server,
    sign,
)
from ztproxy.verify import AssertionRejected, FetchNeeded, Rejection, VerifiedIdentity, Verifier


def rejection(verifier: Verifier, token: str) -> Rejection:
    with pytest.raises(AssertionRejected) as caught:
        verifier.verify(token)
    return caught.value.reason


def test_everything_the_assertion_says_is_in_the_identity() -> None:
    claims = smith.claims()
    identity = Verifier(JWKS, AUDIENCE, ISSUER).verify(smith.sign_raw(smith.header(), claims))
    expected = {**claims, "groups": ("engineering",), "amr": ("pwd", "otp", "mfa")}
    assert identity == VerifiedIdentity(**expected)  # type: ignore[arg-type]


OPTIONAL = ("sid", "email", "name", "preferred_username", "groups", "acr", "amr", "auth_time", "idp")
OPTIONAL += ("device", "scope")


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_is_not_known_is_left_empty(name: str) -> None:
    identity = Verifier(JWKS, AUDIENCE).verify(sign(**{name: ...}))
    assert getattr(identity, name) in (None, ())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"groups": []}, id="in no group"),
        pytest.param({"groups": ["a b", "Ärzte", "a,b"]}, id="groups with spaces, umlauts and commas"),
        pytest.param({"name": "山田　太郎"}, id="a name with an ideographic space"),
        pytest.param({"name": ""}, id="a provider that sends an empty name"),
        pytest.param({"department": {"is": "unknown to this version"}}, id="a claim of a later version"),
        pytest.param({"auth_time": 0}, id="signed in at the epoch"),
    ],
)
def test_ordinary_variety_is_accepted(changes: dict[str, object]) -> None:
    identity = Verifier(JWKS, AUDIENCE).verify(sign(**changes))
    assert identity.sub == "5f1c"


@pytest.mark.parametrize(("forge", "reason"), [*HOSTILE, *HOSTILE_TEXTS])
def test_hostile_tokens_are_rejected_for_their_reason(forge: Callable[[], str], reason: Rejection) -> None:
    verifier = Verifier(JWKS, AUDIENCE, ISSUER)
    assert rejection(verifier, forge()) is reason
    assert verifier.verify(sign()).sub == "5f1c"  # and it leaves nothing behind


def test_the_message_shows_the_reason_and_nothing_of_the_token() -> None:
    token = sign(aud="https://other.example.com")
    with pytest.raises(AssertionRejected) as caught:
        Verifier(JWKS, AUDIENCE).verify(token)
    assert str(caught.value) == "assertion rejected: audience"


@pytest.mark.parametrize(
    ("issuer", "said", "reason"),
    [
        pytest.param(None, "https://any.example.com", None, id="any issuer by default"),
        pytest.param(ISSUER, ISSUER, None, id="the one issuer"),
        pytest.param(ISSUER, ISSUER + "/", Rejection.ISSUER, id="with a slash"),
        pytest.param(ISSUER, ISSUER + ":443", Rejection.ISSUER, id="with the port that goes without saying"),
        pytest.param(ISSUER, ISSUER + ".evil.test", Rejection.ISSUER, id="ours as a prefix"),
        pytest.param(ISSUER, ISSUER[:-1], Rejection.ISSUER, id="a part of ours"),
        pytest.param(ISSUER, "", Rejection.CLAIMS, id="empty"),
    ],
)
def test_the_issuer(issuer: str | None, said: str, reason: Rejection | None) -> None:
    verifier = Verifier(JWKS, AUDIENCE, issuer)
    if reason is None:
        assert verifier.verify(sign(iss=said)).iss == said
    else:
        assert rejection(verifier, sign(iss=said)) is reason


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        pytest.param(1000 - 31, Rejection.NOT_YET_VALID, id="beyond the leeway before"),
        pytest.param(1000 - 30, None, id="at the leeway before"),
        pytest.param(1000, None, id="when issued"),
        pytest.param(1300, None, id="at the end"),
        pytest.param(1300 + 29.9, None, id="within the leeway after"),
        pytest.param(1300 + 30, Rejection.EXPIRED, id="at the leeway after"),
    ],
)
def test_its_time(at: float, reason: Rejection | None) -> None:
    verifier = Verifier(JWKS, AUDIENCE, clock=lambda: at)
    token = sign(iat=1000, exp=1300)
    if reason is None:
        assert verifier.verify(token).exp == 1300
    else:
        assert rejection(verifier, token) is reason


def test_several_audiences_of_one_application() -> None:
    verifier = Verifier(JWKS, ["https://a.example.com", "https://b.example.com"])
    assert verifier.verify(sign(aud="https://b.example.com")).aud == "https://b.example.com"
    assert rejection(verifier, sign(aud="https://c.example.com")) is Rejection.AUDIENCE


@pytest.mark.parametrize(
    ("jwks", "audience"),
    [
        pytest.param(JWKS, "", id="no audience"),
        pytest.param(JWKS, [], id="no audiences"),
        pytest.param(JWKS, ["https://a.example.com", ""], id="an empty audience among others"),
        pytest.param({"keys": []}, AUDIENCE, id="an empty key set"),
        pytest.param({}, AUDIENCE, id="no key set"),
        pytest.param({"keys": [KEY.jwk(), KEY.jwk()]}, AUDIENCE, id="only ambiguous keys"),
        pytest.param("http://app.example.com/jwks", AUDIENCE, id="a key set without TLS"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(jwks: dict[str, object] | str, audience: str) -> None:
    with pytest.raises(ValueError):
        Verifier(jwks, audience)


def test_a_fetched_key_set_and_its_rotation() -> None:
    with key_set_server() as server:
        moment = [time.monotonic()]
        verifier = Verifier(server.url, AUDIENCE, monotonic=lambda: moment[0])
        assert verifier.verify(sign(KEY)).sub == "5f1c"
        server.publish(KEY.jwk(), OTHER.jwk())
        assert rejection(verifier, sign(OTHER)) is Rejection.UNKNOWN_KEY
        moment[0] += 31
        assert verifier.verify(sign(OTHER)).sub == "5f1c"
        assert verifier.verify(sign(KEY)).sub == "5f1c"
        assert server.hits == 2


def test_without_leave_to_block_it_says_that_it_would_fetch() -> None:
    with key_set_server() as server:
        verifier = Verifier(server.url, AUDIENCE)
        with pytest.raises(FetchNeeded):
            verifier.verify(sign(), may_fetch=False)
        assert server.hits == 0
        verifier.verify(sign())
        assert verifier.verify(sign(), may_fetch=False).sub == "5f1c"
        assert server.hits == 1


def test_a_key_set_that_cannot_be_had_is_not_the_callers_fault() -> None:
    with key_set_server() as server:
        server.status = 500
        assert rejection(Verifier(server.url, AUDIENCE), sign()) is Rejection.KEYS_UNAVAILABLE


def test_it_needs_nothing_but_the_standard_library_and_pyjwt() -> None:
    """An application that imports the check does not pay for the proxy."""
    program = (
        "import sys; before = set(sys.modules)\n"
        "import ztproxy.verify, ztproxy.verify.wsgi, ztproxy.verify.asgi\n"
        "new = set(sys.modules) - before\n"
        "print(*{name.partition('.')[0] for name in new} - sys.stdlib_module_names)\n"
        "print(*{name for name in new if name.startswith('ztproxy.')})"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    packages, ours = (set(line.split()) for line in ran.stdout.splitlines())
    assert packages <= {"ztproxy", "jwt", "cryptography", "_cffi_backend", "_openssl"}
    assert all(name.startswith("ztproxy.verify") for name in ours)
