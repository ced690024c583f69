"""Limits of a login in time: each is reached at its second."""

from __future__ import annotations

import pytest

from tests.core.words import NOW, session
from ztproxy.core.routes import Sensitivity
from ztproxy.core.sessions import SessionLimits, Standing, live_until, needs_new_sign_in, standing

UNLIMITED = Sensitivity(verified_within=None)
HOUR = Sensitivity(verified_within=3600.0)
TEN_MINUTES = Sensitivity(verified_within=None, signed_in_within=600.0)
ALL = Sensitivity(verified_within=900.0, signed_in_within=600.0)


@pytest.mark.parametrize(
    ("times", "sensitivity", "answer"),
    [
        pytest.param({}, HOUR, Standing.LIVE, id="fresh"),
        pytest.param({"verified_at": NOW - 3599.999}, HOUR, Standing.LIVE, id="just-before-stale"),
        pytest.param({"verified_at": NOW - 3600}, HOUR, Standing.STALE, id="stale-at-its-second"),
        pytest.param({"verified_at": NOW - 1e9}, UNLIMITED, Standing.LIVE, id="no-limit"),
        pytest.param({"expires_at": NOW + 0.001}, HOUR, Standing.LIVE, id="just-before-the-end"),
        pytest.param({"expires_at": NOW}, HOUR, Standing.ENDED, id="ended-at-its-second"),
        pytest.param({"expires_at": NOW}, UNLIMITED, Standing.ENDED, id="absolute-holds-everywhere"),
        pytest.param(
            {"expires_at": NOW - 1, "verified_at": NOW - 7200},
            HOUR,
            Standing.ENDED,
            id="ended-is-not-refreshed",
        ),
        pytest.param(
            {"authenticated_at": NOW - 1e6}, TEN_MINUTES, Standing.LIVE, id="old-sign-in-is-a-step-up"
        ),
        pytest.param({"verified_at": NOW + 60}, HOUR, Standing.LIVE, id="clock-of-the-provider-ahead"),
    ],
)
def test_standing(times, sensitivity, answer) -> None:
    assert standing(session(**times), sensitivity, NOW) is answer


@pytest.mark.parametrize(
    ("age", "sensitivity", "max_age"),
    [
        pytest.param(0.0, TEN_MINUTES, None, id="fresh"),
        pytest.param(599.9, TEN_MINUTES, None, id="just-before"),
        pytest.param(600.0, TEN_MINUTES, 600.0, id="at-its-second"),
        pytest.param(1e9, UNLIMITED, None, id="no-limit"),
    ],
)
def test_needs_new_sign_in(age, sensitivity, max_age) -> None:
    assert needs_new_sign_in(session(authenticated_at=NOW - age), sensitivity, NOW) == max_age


@pytest.mark.parametrize(
    ("times", "sensitivity", "until"),
    [
        pytest.param({}, UNLIMITED, NOW + 28800, id="absolute"),
        pytest.param({}, HOUR, NOW + 3600, id="verified-within"),
        pytest.param({}, ALL, NOW + 600, id="signed-in-within"),
        pytest.param({"authenticated_at": NOW + 600}, ALL, NOW + 900, id="the-earliest"),
        pytest.param({"expires_at": NOW + 5}, ALL, NOW + 5, id="absolute-is-earliest"),
    ],
)
def test_live_until(times, sensitivity, until) -> None:
    who = session(**times)
    assert live_until(who, sensitivity) == until
    # Nothing changes before, something changes then: what a cache may rely on.
    before = (standing(who, sensitivity, until - 0.001), needs_new_sign_in(who, sensitivity, until - 0.001))
    then = (standing(who, sensitivity, until), needs_new_sign_in(who, sensitivity, until))
    assert before == (Standing.LIVE, None) != then


def test_limits_default_to_an_hour_idle_and_half_a_day() -> None:
    assert SessionLimits() == SessionLimits(idle=3600.0, absolute=43200.0)
