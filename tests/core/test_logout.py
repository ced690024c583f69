"""Logout tokens as claims: the accepted ones beside each family of refused ones (L rows)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ztproxy.core.claims import ClaimRules
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.core.logout import (
    EVENT,
    LONGEST,
    LogoutNotice,
    front_channel_lock,
    read_front_channel,
    read_notice,
)
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError

NOW = 1_750_000_000.0
ISSUER = "https://op.test"
RULES = ClaimRules(ISSUER, "ztp", skew=60.0)


def token(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; `...` takes one away."""
    usual = {
        "iss": ISSUER,
        "aud": "ztp",
        "iat": int(NOW) - 1,
        "exp": int(NOW) + 119,
        "jti": "j-1",
        "events": {EVENT: {}},
        "sub": "alice",
        "sid": "i-1",
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not ...}


def read(claims: dict[str, Any], **how: Any) -> LogoutNotice:
    return read_notice(RULES, claims, NOW, **how)


BY_SID = Target(TargetKind.IDP_SESSION, "i-1", ISSUER)
BY_SUB = Target(TargetKind.USER, "alice", ISSUER)


@pytest.mark.parametrize(
    ("claims", "target"),
    [
        pytest.param(token(), BY_SID, id="L01 both: the session of the sid"),
        pytest.param(token(sub=...), BY_SID, id="L01 sid alone"),
        pytest.param(token(sid=...), BY_SUB, id="L02 sub alone"),
        pytest.param(token(aud=["ztp"]), BY_SID, id="L12 a list of us"),
        pytest.param(token(aud=["other", "ztp"]), BY_SID, id="L12 a list with us"),
        pytest.param(token(events={EVENT: {"x": 1}, "urn:other": {}}), BY_SID, id="further events"),
        pytest.param(token(iat=NOW + 60), BY_SID, id="a provider whose clock is ahead"),
        pytest.param(token(iat=NOW - 600, exp=NOW - 59), BY_SID, id="a provider whose clock is behind"),
        pytest.param(token(nbf=NOW + 60), BY_SID, id="valid as of now"),
        pytest.param(token(extra={"nonce": "x"}), BY_SID, id="a nonce somewhere else"),
    ],
)
def test_accepted(claims: dict[str, Any], target: Target) -> None:
    notice = read(claims)
    assert (notice.issuer, notice.jti, notice.target) == (ISSUER, "j-1", target)


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        pytest.param(token(sid=..., sub=...), "sid", id="L04 neither"),
        pytest.param(token(events=...), "events", id="L08 no events"),
        pytest.param(token(events={}), "events", id="L08 another event"),
        pytest.param(token(events=[EVENT]), "events", id="L08 a list"),
        pytest.param(token(events={EVENT: None}), "events", id="L08 null for an object"),
        pytest.param(token(events={EVENT: []}), "events", id="L08 a list for an object"),
        pytest.param(token(events={EVENT + "/": {}}), "events", id="L08 nearly"),
        pytest.param(token(nonce="n"), "nonce", id="L10 a nonce"),
        pytest.param(token(nonce=None), "nonce", id="L10 a nonce of null"),
        pytest.param(token(iss="https://other.test"), "iss", id="L11 another issuer"),
        pytest.param(token(iss=ISSUER + "/"), "iss", id="L11 nearly"),
        pytest.param(token(iss=[ISSUER]), "iss", id="L11 a list"),
        pytest.param(token(iss=...), "iss", id="L11 none"),
        pytest.param(token(aud="other"), "aud", id="L12 another audience"),
        pytest.param(token(aud=["other"]), "aud", id="L12 a list without us"),
        pytest.param(token(aud=["ztp", 7]), "aud", id="L12 a list of more than texts"),
        pytest.param(token(aud="ztp2"), "aud", id="L12 nearly"),
        pytest.param(token(aud=...), "aud", id="L12 none"),
        pytest.param(token(events=..., nonce="n", at_hash="x", auth_time=NOW), "nonce", id="L14 an ID token"),
        pytest.param(token(events=..., jti=...), "events", id="L14 an ID token without a nonce"),
        pytest.param(token(jti=...), "jti", id="L17 no jti"),
        pytest.param(token(jti=""), "jti", id="L17 an empty jti"),
        pytest.param(token(jti=7), "jti", id="L17 a number"),
        pytest.param(token(jti="j" * 1025), "jti", id="L17 a huge jti"),
        pytest.param(token(exp=...), "exp", id="L18 no exp"),
        pytest.param(token(exp=None), "exp", id="L18 null"),
        pytest.param(token(exp=NOW - 60), "exp", id="L18 past"),
        pytest.param(token(exp="9999999999"), "exp", id="L18 a text"),
        pytest.param(token(exp=True), "exp", id="L18 true is no time"),
        pytest.param(token(exp=2.0**41), "exp", id="L18 in milliseconds"),
        pytest.param(token(exp=NOW - 30, iat=NOW - 20), "exp", id="L18 before it was issued"),
        pytest.param(token(exp=NOW + 9999, iat=NOW - 660), "exp", id="L18 long ago, for long"),
        pytest.param(token(iat=...), "iat", id="no iat"),
        pytest.param(token(iat=NOW + 61), "iat", id="from the future"),
        pytest.param(token(iat=-1), "iat", id="before time"),
        pytest.param(token(nbf=NOW + 61), "nbf", id="not yet"),
        pytest.param(token(sid=None), "sid", id="a sid of null beside a sub"),
        pytest.param(token(sid=""), "sid", id="an empty sid"),
        pytest.param(token(sid="a\r\nb"), "sid", id="a sid of two lines"),
        pytest.param(token(sid="s" * 256), "sid", id="a huge sid"),
        pytest.param(token(sub=None), "sub", id="a sub of null beside a sid"),
        pytest.param(token(sub=["alice"]), "sub", id="a list of people"),
        pytest.param(token(sub=" alice"), "sub", id="a sub no sign-in could have"),
    ],
)
def test_refused(claims: dict[str, Any], word: str) -> None:
    with pytest.raises(ClientError) as refused:
        read(claims)
    assert refused.value.reason is Reason.LOGOUT_TOKEN
    assert str(refused.value).partition(":")[0] == word


@pytest.mark.parametrize(
    ("claims", "end"),
    [
        pytest.param(token(), NOW + 119, id="as it says"),
        pytest.param(token(exp=NOW + 86400), NOW - 1 + LONGEST, id="L18 clamped"),
    ],
)
def test_how_long_it_counts(claims: dict[str, Any], end: float) -> None:
    notice = read(claims)
    assert notice.exp == end + RULES.skew
    # To the second: as long as it counts its `jti` is remembered.
    assert read_notice(RULES, claims, notice.exp - 0.001) == notice
    with pytest.raises(ClientError, match="exp"):
        read_notice(RULES, claims, notice.exp)


@pytest.mark.parametrize(
    ("claims", "end"),
    [
        pytest.param(token(exp=...), NOW - 1 + LONGEST, id="L18 without exp, issued lately"),
        pytest.param(token(exp=NOW + 5), NOW + 5, id="with exp, which still counts"),
        pytest.param(token(exp=..., iat=NOW - 660), None, id="issued too long ago"),
        pytest.param(token(exp=NOW - 60), None, id="past"),
        pytest.param(token(exp=None), None, id="null is not absent"),
    ],
)
def test_where_exp_is_optional(claims: dict[str, Any], end: float | None) -> None:
    if end is None:
        with pytest.raises(ClientError, match="exp"):
            read(claims, exp_optional=True)
    else:
        assert read(claims, exp_optional=True).exp == end + RULES.skew


def test_the_lock() -> None:
    lock = read(token()).lock("provider:op")
    assert (
        lock == Lock(id=lock.id, target=BY_SID, created_by="provider:op", reason="signed out there")
        and lock.revokes
    )
    assert lock == read(token(exp=NOW + 7)).lock("provider:op"), "the same notice, the same lock"


ONE = read(token())


@pytest.mark.parametrize(
    ("other", "same_notice"),
    [
        pytest.param(replace(ONE, jti="j-2"), False, id="L17 another jti"),
        pytest.param(replace(ONE, issuer="https://b.test"), False, id="L17 another issuer"),
        pytest.param(replace(ONE, issuer=ISSUER + "1", jti="j-"), False, id="the same letters in all"),
        pytest.param(replace(ONE, sid="i-2"), True, id="the same jti for another session"),
        pytest.param(replace(ONE, sid=None), True, id="the same jti for the person"),
    ],
)
def test_what_makes_two_notices_two(other: LogoutNotice, same_notice: bool) -> None:
    assert (other.replay_key == ONE.replay_key) is same_notice
    assert other.lock("x").id != ONE.lock("x").id


def test_a_front_channel_notice() -> None:
    assert read_front_channel(RULES, ISSUER, "i-1") == BY_SID


@pytest.mark.parametrize(
    ("issuer", "sid", "word"),
    [
        pytest.param(None, "i-1", "iss", id="no issuer"),
        pytest.param("https://other.test", "i-1", "iss", id="another issuer"),
        pytest.param(ISSUER, None, "sid", id="no sid"),
        pytest.param(ISSUER, "", "sid", id="an empty sid"),
        pytest.param(ISSUER, "s" * 256, "sid", id="a huge sid"),
        pytest.param(ISSUER, "a\nb", "sid", id="two lines"),
    ],
)
def test_a_front_channel_notice_that_is_none(issuer: str | None, sid: str | None, word: str) -> None:
    with pytest.raises(ClientError) as refused:
        read_front_channel(RULES, issuer, sid)
    assert (refused.value.reason, str(refused.value).partition(":")[0]) == (Reason.LOGOUT_TOKEN, word)


def test_the_lock_of_a_front_channel_notice() -> None:
    lock = front_channel_lock(BY_SID, 7, "provider:op")
    assert (lock.target, lock.created_by, lock.revokes) == (BY_SID, "provider:op", True)
    assert lock == front_channel_lock(BY_SID, 7, "provider:op")
    assert lock.id != front_channel_lock(BY_SID, 8, "provider:op").id
    assert lock.id != front_channel_lock(BY_SID._replace(name="i-2"), 7, "provider:op").id
