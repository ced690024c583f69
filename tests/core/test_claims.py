"""The claims table of hostile ID tokens (J41 to J77); `GOOD` is Alice's, and each row changes a little of
it."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest

from ztproxy.core.claims import Accepted, ClaimRules, Expectation, accept, describe
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError

NOW = 1_000_000.0
ISSUER = "https://op.test"
RULES = ClaimRules(issuer=ISSUER, client_id="ztp")
EXPECTED = Expectation(nonce="n-1", state="s-1", access_token="at-1")
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "ztp",
    "sub": "alice",
    "iat": NOW - 1,
    "exp": NOW + 300,
    "nonce": "n-1",
}
ABSENT = object()


def half(value: str, digest: Callable[..., Any] = hashlib.sha256) -> str:
    full = digest(value.encode()).digest()
    return urlsafe_b64encode(full[: len(full) // 2]).rstrip(b"=").decode()


def token(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not ABSENT}


def judge(rules: ClaimRules = RULES, expected: Expectation = EXPECTED, **changes: Any) -> Accepted:
    return accept(rules, token(**changes), expected, NOW)


def refusal(**changes: Any) -> tuple[Reason, str]:
    with pytest.raises(ClientError) as refused:
        judge(**changes)
    return refused.value.reason, str(refused.value).partition(":")[0]


DENIED = [
    pytest.param({"iss": "https://other.test"}, Reason.LOGIN_ISSUER, "iss", id="J41_other_issuer"),
    pytest.param({"iss": ISSUER + "/"}, Reason.LOGIN_ISSUER, "iss", id="J41_trailing_slash"),
    pytest.param({"iss": "https://OP.test"}, Reason.LOGIN_ISSUER, "iss", id="J41_upper_case_host"),
    pytest.param({"iss": "https://op.test:443"}, Reason.LOGIN_ISSUER, "iss", id="J41_default_port"),
    pytest.param({"iss": "https://op.test.evil.test"}, Reason.LOGIN_ISSUER, "iss", id="J41_longer"),
    pytest.param({"iss": ABSENT}, Reason.LOGIN_ISSUER, "iss", id="J42_missing"),
    pytest.param({"iss": [ISSUER]}, Reason.LOGIN_ISSUER, "iss", id="J42_list"),
    pytest.param({"iss": "https://op"}, Reason.LOGIN_ISSUER, "iss", id="J42_substring"),
    pytest.param({"aud": ["ztp", "other"]}, Reason.LOGIN_TOKEN, "aud", id="J44_second_audience"),
    pytest.param({"aud": ["ztp", "other"], "azp": "ztp"}, Reason.LOGIN_TOKEN, "aud", id="J45_untrusted"),
    pytest.param({"aud": "ztp", "azp": "other"}, Reason.LOGIN_TOKEN, "azp", id="J47_another_party"),
    pytest.param({"azp": None}, Reason.LOGIN_TOKEN, "azp", id="J47_null"),
    pytest.param({"aud": 7}, Reason.LOGIN_TOKEN, "aud", id="J48_number"),
    pytest.param({"aud": {}}, Reason.LOGIN_TOKEN, "aud", id="J48_object"),
    pytest.param({"aud": []}, Reason.LOGIN_TOKEN, "aud", id="J48_empty"),
    pytest.param({"aud": ["ztp", 7]}, Reason.LOGIN_TOKEN, "aud", id="J48_number_inside"),
    pytest.param({"aud": "ztp2"}, Reason.LOGIN_TOKEN, "aud", id="J48_longer"),
    pytest.param({"aud": ABSENT}, Reason.LOGIN_TOKEN, "aud", id="J48_missing"),
    pytest.param({"iat": ABSENT}, Reason.LOGIN_TOKEN, "iat", id="J50_missing"),
    pytest.param({"iat": NOW + 120}, Reason.LOGIN_TOKEN, "iat", id="J50_future"),
    pytest.param({"iat": NOW - 900}, Reason.LOGIN_TOKEN, "iat", id="J50_quarter_of_an_hour_old"),
    pytest.param({"iat": str(NOW)}, Reason.LOGIN_TOKEN, "iat", id="J50_string"),
    pytest.param({"iat": -1}, Reason.LOGIN_TOKEN, "iat", id="J50_negative"),
    pytest.param({"iat": True}, Reason.LOGIN_TOKEN, "iat", id="J50_true"),
    pytest.param({"exp": ABSENT}, Reason.LOGIN_TOKEN, "exp", id="J51_missing"),
    pytest.param({"exp": NOW - 61, "iat": NOW - 70}, Reason.LOGIN_TOKEN, "exp", id="J51_expired"),
    pytest.param({"exp": NOW - 60, "iat": NOW - 70}, Reason.LOGIN_TOKEN, "exp", id="J51_at_its_second"),
    pytest.param({"exp": str(NOW + 9)}, Reason.LOGIN_TOKEN, "exp", id="J51_string"),
    pytest.param({"exp": 1e300}, Reason.LOGIN_TOKEN, "exp", id="J51_huge"),
    pytest.param({"exp": NOW - 2}, Reason.LOGIN_TOKEN, "exp", id="J51_before_iat"),
    pytest.param({"nbf": NOW + 120}, Reason.LOGIN_TOKEN, "nbf", id="J52_not_yet"),
    pytest.param({"nbf": "0"}, Reason.LOGIN_TOKEN, "nbf", id="J52_string"),
    pytest.param({"nonce": "n-2"}, Reason.LOGIN_TOKEN, "nonce", id="J54_wrong"),
    pytest.param({"nonce": "n-1 "}, Reason.LOGIN_TOKEN, "nonce", id="J54_longer"),
    pytest.param({"nonce": "\ud800"}, Reason.LOGIN_TOKEN, "nonce", id="J54_lone_surrogate"),
    pytest.param({"nonce": ABSENT}, Reason.LOGIN_TOKEN, "nonce", id="J54_missing"),
    pytest.param({"nonce": ["n-1"]}, Reason.LOGIN_TOKEN, "nonce", id="J54_list"),
    pytest.param({"at_hash": half("at-2")}, Reason.LOGIN_TOKEN, "at_hash", id="J57_wrong"),
    pytest.param({"at_hash": ""}, Reason.LOGIN_TOKEN, "at_hash", id="J57_empty"),
    pytest.param({"at_hash": None}, Reason.LOGIN_TOKEN, "at_hash", id="J57_null"),
    pytest.param({"at_hash": half("at-1") + "="}, Reason.LOGIN_TOKEN, "at_hash", id="J57_padded"),
    pytest.param({"s_hash": half("s-2")}, Reason.LOGIN_TOKEN, "s_hash", id="J60_wrong"),
    pytest.param({"sub": ABSENT}, Reason.LOGIN_CLAIMS, "sub", id="sub_missing"),
    pytest.param({"sub": ""}, Reason.LOGIN_CLAIMS, "sub", id="sub_empty"),
    pytest.param({"sub": 7}, Reason.LOGIN_CLAIMS, "sub", id="sub_number"),
    pytest.param({"sub": "a" * 256}, Reason.LOGIN_CLAIMS, "sub", id="sub_too_long"),
    pytest.param({"sub": "älice"}, Reason.LOGIN_CLAIMS, "sub", id="sub_not_ascii"),
    pytest.param({"sub": "alice\n"}, Reason.LOGIN_CLAIMS, "sub", id="sub_line_end"),
    pytest.param({"sub": " alice"}, Reason.LOGIN_CLAIMS, "sub", id="sub_leading_space"),
    pytest.param({"sid": "s" * 10240}, Reason.LOGIN_CLAIMS, "sid", id="J62_huge"),
    pytest.param({"sid": 7}, Reason.LOGIN_CLAIMS, "sid", id="J62_number"),
    pytest.param({"sid": "a\r\nb"}, Reason.LOGIN_CLAIMS, "sid", id="J62_line_end"),
    pytest.param({"acr": ["phr"]}, Reason.LOGIN_CLAIMS, "acr", id="J68_acr_list"),
    pytest.param({"auth_time": "now"}, Reason.LOGIN_TOKEN, "auth_time", id="auth_time_string"),
    pytest.param({"auth_time": NOW + 120}, Reason.LOGIN_TOKEN, "auth_time", id="auth_time_future"),
]


@pytest.mark.parametrize(("changes", "reason", "claim"), DENIED)
def test_denied(changes: dict[str, Any], reason: Reason, claim: str) -> None:
    assert refusal(**changes) == (reason, claim)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="ordinary"),
        pytest.param({"aud": ["ztp"]}, id="audience_as_a_list"),
        pytest.param({"azp": "ztp"}, id="azp_is_us"),
        pytest.param({"iat": NOW + 55}, id="FI33_their_clock_55_s_fast"),
        pytest.param({"iat": NOW - 355, "exp": NOW - 55}, id="FI33_their_clock_55_s_slow"),
        pytest.param({"nbf": NOW + 55}, id="nbf_within_the_skew"),
        pytest.param({"at_hash": half("at-1")}, id="at_hash"),
        pytest.param({"at_hash": half("at-1", hashlib.sha512)}, id="at_hash_of_Ed25519"),
        pytest.param({"s_hash": half("s-1")}, id="s_hash"),
        pytest.param({"sub": "a" * 255}, id="longest_sub"),
        pytest.param({"sub": "CN=Alice Adams,O=Corp"}, id="sub_with_spaces"),
        pytest.param({"extra": {"deep": [1]}}, id="unknown_claims"),
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    accepted = judge(**changes)
    assert (accepted.identity.issuer, accepted.identity.subject) == (ISSUER, changes.get("sub", "alice"))
    assert accepted.notes == ()


def test_a_second_audience_that_is_trusted_needs_azp() -> None:
    rules = ClaimRules(issuer=ISSUER, client_id="ztp", trusted_audiences=frozenset({"api"}))
    assert judge(rules, aud=["ztp", "api"], azp="ztp").identity.subject == "alice"
    with pytest.raises(ClientError, match="azp"):
        judge(rules, aud=["ztp", "api"])


def test_a_refresh_expects_no_nonce_and_knows_no_state() -> None:
    accepted = judge(expected=Expectation(nonce=None), nonce="of long ago", s_hash="x", at_hash="y")
    assert accepted.identity.subject == "alice"


@pytest.mark.parametrize(
    ("auth_time", "max_age", "outcome"),
    [
        pytest.param(NOW - 30, 60, NOW - 30, id="fresh_enough"),
        pytest.param(NOW - 115, 60, NOW - 115, id="within_the_skew"),
        pytest.param(NOW - 121, 60, Reason.STEP_UP_FAILED, id="J70_too_old"),
        pytest.param(ABSENT, 60, Reason.LOGIN_TOKEN, id="J71_missing_though_asked"),
        pytest.param(ABSENT, None, None, id="missing_and_not_asked"),
        pytest.param(NOW - 10**6, None, 0.0, id="old_and_not_asked"),
        pytest.param(NOW + 30, 60, NOW, id="never_later_than_now"),
    ],
)
def test_auth_time(auth_time: Any, max_age: float | None, outcome: float | Reason | None) -> None:
    expected = Expectation(nonce="n-1", max_age=max_age)
    if isinstance(outcome, Reason):
        assert refusal(expected=expected, auth_time=auth_time)[0] is outcome
    else:
        assert judge(expected=expected, auth_time=auth_time).auth_time == outcome


@pytest.mark.parametrize(
    ("groups", "seen", "noted"),
    [
        pytest.param(["admin", "dev"], ("admin", "dev"), False, id="list"),
        pytest.param([], (), False, id="empty"),
        pytest.param(ABSENT, (), False, id="absent"),
        pytest.param(None, (), False, id="null"),
        pytest.param("admin", (), True, id="J64_string"),
        pytest.param({"admin": 1}, (), True, id="J64_object"),
        pytest.param(["admin", None], (), True, id="J64_null_inside"),
        pytest.param(["admin", ""], (), True, id="empty_name"),
        pytest.param(["admin", "a\nb"], (), True, id="line_end_in_a_name"),
        pytest.param(["admin"] * 2001, (), True, id="too_many"),
        pytest.param(
            ["Admin ", "ADMIN", "аdmin"], ("Admin ", "ADMIN", "аdmin"), False, id="J65_bytes_as_they_are"
        ),
    ],
)
def test_groups(groups: Any, seen: tuple[str, ...], noted: bool) -> None:
    accepted = judge(groups=groups)
    assert accepted.identity.groups == seen
    assert any(note.startswith("groups") for note in accepted.notes) is noted


@pytest.mark.parametrize(
    ("claims", "name", "seen"),
    [
        pytest.param({"realm_access": {"roles": ["a"]}}, "realm_access.roles", ("a",), id="dotted"),
        pytest.param({"https://x.test/g": ["a"]}, "https://x.test/g", ("a",), id="namespaced"),
        pytest.param({"a.b": ["1"], "a": {"b": ["2"]}}, "a.b", ("1",), id="exact_name_first"),
        pytest.param({"realm_access": "x"}, "realm_access.roles", (), id="not_an_object"),
        pytest.param({"realm_access": {}}, "realm_access.roles", (), id="absent"),
    ],
)
def test_groups_claim_by_name(claims: dict[str, Any], name: str, seen: tuple[str, ...]) -> None:
    rules = ClaimRules(issuer=ISSUER, client_id="ztp", groups_claim=name)
    assert judge(rules, **claims).identity.groups == seen


def test_claims_held_elsewhere_are_not_fetched_and_noted() -> None:
    accepted = judge(_claim_names={"groups": "src"}, _claim_sources={"src": {"endpoint": "https://e.test"}})
    assert accepted.identity.groups == ()
    assert accepted.notes == ("_claim_names: claims held elsewhere are not fetched",)


BAD_ADDRESSES = [
    pytest.param("alice@corp.test@evil.test", id="J74_two_ats"),
    pytest.param('"a@corp.test"@evil.test', id="J74_quoted"),
    pytest.param("a@corp.test%00@evil.test", id="J74_escaped_nul"),
    pytest.param("a@evil.test\n@corp.test", id="J74_line_end"),
    pytest.param("a@corp.test\n", id="J74_line_end_last"),
    pytest.param("a@corp.test.", id="J75_trailing_dot"),
    pytest.param("a@ｃorp.test", id="J75_full_width"),
    pytest.param("a@[127.0.0.1]", id="address_literal"),
    pytest.param("a b@corp.test", id="space"),
    pytest.param("@corp.test", id="no_local_part"),
    pytest.param("a@", id="no_domain"),
    pytest.param("corp.test", id="no_at"),
    pytest.param("a@-corp.test", id="label_with_a_leading_hyphen"),
    pytest.param("a@" + ".".join(["b" * 60] * 5), id="too_long"),
    pytest.param(7, id="number"),
    pytest.param(["a@corp.test"], id="list"),
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_malformed_addresses_refuse_the_sign_in(address: Any) -> None:
    assert refusal(email=address, email_verified=True) == (Reason.LOGIN_EMAIL, "email")


@pytest.mark.parametrize(
    ("address", "verified", "seen"),
    [
        pytest.param("a@corp.test", True, "a@corp.test", id="verified"),
        pytest.param("a@CORP.TEST", True, "a@CORP.TEST", id="J75_case_is_for_the_policy"),
        pytest.param("a+b_c@x-y.corp.test", True, "a+b_c@x-y.corp.test", id="tags_and_hyphens"),
        pytest.param("a@corp.test", False, None, id="not_verified"),
        pytest.param("a@corp.test", ABSENT, None, id="nothing_said"),
        pytest.param("a@corp.test", "true", None, id="a_string_is_not_true"),
        pytest.param("a@corp.test", 1, None, id="one_is_not_true"),
        pytest.param("no address", False, None, id="what_is_not_believed_is_not_looked_at"),
        pytest.param(ABSENT, True, None, id="no_address"),
    ],
)
def test_only_verified_addresses_count(address: Any, verified: Any, seen: str | None) -> None:
    assert judge(email=address, email_verified=verified).identity.email == seen


def test_believing_unverified_addresses_is_possible_and_dangerous() -> None:
    rules = ClaimRules(issuer=ISSUER, client_id="ztp", dangerous_allow_unverified_email=True)
    assert judge(rules, email="a@corp.test").identity.email == "a@corp.test"
    with pytest.raises(ClientError):
        judge(rules, email="a@corp.test@evil.test")


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        pytest.param("Alice Ådams", "Alice Ådams", id="letters"),
        pytest.param("می‌خواهم", "می‌خواهم", id="a_joiner_is_part_of_some_scripts"),
        pytest.param("Alice\r\nX-Admin: 1", None, id="line_end"),
        pytest.param("Alice\x00", None, id="nul"),
        pytest.param("\u202ebob", None, id="turned_round"),
        pytest.param("A" * 256, None, id="too_long"),
        pytest.param("", None, id="empty"),
        pytest.param(7, None, id="number"),
    ],
)
def test_names(name: Any, seen: str | None) -> None:
    accepted = judge(name=name, preferred_username=name)
    assert (accepted.identity.name, accepted.identity.username) == (seen, seen)
    assert (accepted.notes == ()) is (seen is not None)


@pytest.mark.parametrize(
    ("amr", "seen"),
    [
        pytest.param(["pwd", "otp"], ("pwd", "otp"), id="list"),
        pytest.param(ABSENT, (), id="absent"),
        pytest.param("mfa", (), id="string_is_not_its_letters"),
        pytest.param(["pwd", 1], (), id="number_inside"),
    ],
)
def test_amr(amr: Any, seen: tuple[str, ...]) -> None:
    assert judge(amr=amr).amr == seen


def test_acr_and_sid_are_kept() -> None:
    accepted = judge(acr="phr", sid="idp-7")
    assert (accepted.acr, accepted.idp_session) == ("phr", "idp-7")


def test_kept_claims_are_nested_as_they_came_and_no_others() -> None:
    rules = ClaimRules(issuer=ISSUER, client_id="ztp", keep=("org.unit", "org.site", "x.y", "level", "gone"))
    claims: dict[str, Any] = {
        "org": {"unit": "u", "site": {"id": 1}, "secret": 1},
        "x.y": 2,
        "level": False,
        "other": 1,
    }
    identity = judge(rules, **claims).identity
    assert dict(identity.claims) == {"org": {"unit": "u", "site": {"id": 1}}, "x.y": 2, "level": False}
    assert claims["org"] == {"unit": "u", "site": {"id": 1}, "secret": 1}


USERINFO: dict[str, Any] = {
    "sub": "alice",
    "email": "a@corp.test",
    "email_verified": True,
    "groups": ["dev"],
    "name": "Al",
}


def test_userinfo_fills_what_the_token_lacks() -> None:
    rules = ClaimRules(issuer=ISSUER, client_id="ztp", keep=("level",))
    claims = token(name="Alice", level=1)
    identity = accept(rules, claims, EXPECTED, NOW, {**USERINFO, "level": 2}).identity
    assert (identity.name, identity.email, identity.groups) == ("Alice", "a@corp.test", ("dev",))
    assert dict(identity.claims) == {"level": 1}


@pytest.mark.parametrize(
    "userinfo",
    [
        pytest.param({**USERINFO, "sub": "mallory"}, id="D12_somebody_else"),
        pytest.param({k: v for k, v in USERINFO.items() if k != "sub"}, id="D12_nobody"),
        pytest.param({**USERINFO, "sub": ["alice"]}, id="D12_list"),
    ],
)
def test_userinfo_about_somebody_else_refuses_the_sign_in(userinfo: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="userinfo"):
        accept(RULES, token(), EXPECTED, NOW, userinfo)


def test_an_address_is_never_verified_by_the_other_document() -> None:
    claims = token(email="ceo@corp.test", email_verified=False)
    userinfo: dict[str, Any] = {"sub": "alice", "email_verified": True}
    assert accept(RULES, claims, EXPECTED, NOW, userinfo).identity.email is None


def test_userinfo_cannot_say_how_or_when_someone_signed_in() -> None:
    userinfo = {
        **USERINFO,
        "acr": "phr",
        "amr": ["hwk"],
        "auth_time": NOW,
        "sid": "x",
        "iss": "https://e.test",
    }
    accepted = accept(RULES, token(), EXPECTED, NOW, userinfo)
    assert (accepted.acr, accepted.amr, accepted.auth_time, accepted.idp_session) == (None, (), None, None)
    assert accepted.identity.issuer == ISSUER


def test_describe_by_userinfo_alone() -> None:
    notes: list[str] = []
    identity = describe(RULES, "alice", {}, {**USERINFO, "groups": "dev"}, notes)
    assert (identity.email, identity.groups) == ("a@corp.test", ())
    assert notes == ["groups: not a list of names"]
