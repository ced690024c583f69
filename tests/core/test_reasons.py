"""The closed list: stable words, plain sentences, statuses that fit."""

from __future__ import annotations

import json
import re

import pytest

from ztproxy.core.reasons import Reason

ALLOWED = {Reason.RULE_ALLOWED, Reason.PUBLIC_ROUTE, Reason.ANY_AUTHENTICATED, Reason.CORS_PREFLIGHT}
ASKED = {
    Reason.LOGIN_REQUIRED,
    Reason.SESSION_EXPIRED,
    Reason.SESSION_UNKNOWN,
    Reason.SESSION_REVOKED,
    Reason.STEP_UP_REQUIRED,
    Reason.LOCK_SIGN_IN,
    Reason.DEVICE_MISMATCH,
    Reason.DEVICE_UNBOUND,
    Reason.TOKEN_REQUIRED,
    Reason.TOKEN_INVALID,
    Reason.SERVICES_ONLY,
}


@pytest.mark.parametrize("reason", [pytest.param(reason, id=reason.value) for reason in Reason])
def test_every_reason(reason) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", reason.value)
    assert reason.value == reason.name.lower()
    assert re.fullmatch(r"[A-Z][^\n<>{}]+\.", reason.sentence)
    assert (reason.status == 200) == (reason in ALLOWED)
    assert (reason.status == 401) == (reason in ASKED)
    assert reason.status in {200, 400, 401, 403, 404, 405, 408, 409, 413, 414, 417, 421, 422, 429, 431} | set(
        range(500, 506)
    )


@pytest.mark.parametrize(
    ("prefix", "statuses"),
    [
        pytest.param("http_", set(range(400, 432)) | {505}, id="wire-policy-refuses-the-client"),
        pytest.param("upstream_", {502, 503, 504}, id="upstream-is-a-gateway-error"),
        pytest.param("login_", {400, 401, 403, 429}, id="sign-in"),
    ],
)
def test_families_have_their_statuses(prefix, statuses) -> None:
    family = [reason for reason in Reason if reason.startswith(prefix)]
    assert family
    assert {reason.status for reason in family} <= statuses


def test_a_reason_is_its_word() -> None:
    assert Reason("group_missing") is Reason.GROUP_MISSING
    assert f"{Reason.GROUP_MISSING}" == "group_missing"
    assert json.dumps([Reason.GROUP_MISSING]) == '["group_missing"]'
    with pytest.raises(ValueError, match="not a valid Reason"):
        Reason("because")


def test_a_store_that_is_away_is_503_and_says_one_stays_signed_in() -> None:
    assert Reason.STATE_UNAVAILABLE.status == 503
    assert "stay signed in" in Reason.STATE_UNAVAILABLE.sentence
