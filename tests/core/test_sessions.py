"""Limits of a login in time: each is reached at its second."""

from __future__ import annotations

import pytest

from tests.core.words import NOW, session
from ztproxy.core.certificate import Certificate
from ztproxy.core.device import Device, OnDevice
from ztproxy.core.identity import Credential, Step
from ztproxy.core.routes import Sensitivity
from ztproxy.core.sessions import (
    GroupLimits,
    SessionLimits,
    Standing,
    at,
    bound_to,
    limits_for,
    live_until,
    narrowed,
    needs_new_sign_in,
    proved,
    rebound,
    remembered,
    shorter,
    shortest_idle,
    standing,
)

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
    ("is_fresh", "age", "max_age"),
    [
        pytest.param(True, 0.0, None, id="shown-for-this-session"),
        pytest.param(False, 0.0, 0.0, id="remembered-by-the-provider"),
        pytest.param(True, 600.0, 600.0, id="shown-and-too-long-ago"),
        pytest.param(False, 600.0, 0.0, id="neither"),
    ],
)
def test_a_route_that_wants_the_person_for_this_very_session(is_fresh, age, max_age) -> None:
    who = session(fresh=is_fresh, authenticated_at=NOW - age)
    assert needs_new_sign_in(who, Sensitivity(signed_in_within=600.0, fresh=True), NOW) == max_age


@pytest.mark.parametrize(
    ("times", "sensitivity", "until"),
    [
        pytest.param({}, UNLIMITED, NOW + 28800, id="absolute"),
        pytest.param({}, HOUR, NOW + 3600, id="verified-within"),
        pytest.param({}, ALL, NOW + 600, id="signed-in-within"),
        pytest.param({"authenticated_at": NOW + 600}, ALL, NOW + 900, id="the-earliest"),
        pytest.param({"expires_at": NOW + 5}, ALL, NOW + 5, id="absolute-is-earliest"),
        pytest.param(
            {"rank": 3, "steps": (Step(3, NOW + 60), Step(2, NOW + 700))}, ALL, NOW + 60, id="a-rank-runs-out"
        ),
    ],
)
def test_live_until(times, sensitivity, until) -> None:
    who = session(**times)
    assert live_until(who, sensitivity) == until
    # Nothing changes before, something changes then: what a cache may rely on.
    before, then = (
        (standing(who, sensitivity, now), needs_new_sign_in(who, sensitivity, now), at(who, now).rank)
        for now in (until - 0.001, until)
    )
    assert before == (Standing.LIVE, None, who.rank) != then


def test_limits_default_to_an_hour_idle_and_half_a_day() -> None:
    assert SessionLimits() == SessionLimits(idle=3600.0, absolute=43200.0)


# Limits of groups

GROUPS = SessionLimits(
    3600,
    43200,
    (
        GroupLimits(frozenset({"contractors", "guests"}), idle=600, absolute=7200),
        GroupLimits(frozenset({"admins"}), absolute=3600),
        GroupLimits(frozenset({"on-call"}), idle=86400, absolute=86400),
    ),
)


@pytest.mark.parametrize(
    ("groups", "limits"),
    [
        pytest.param((), (3600, 43200), id="none"),
        pytest.param(("engineering",), (3600, 43200), id="one-without-limits"),
        pytest.param(("guests",), (600, 7200), id="one"),
        pytest.param(("admins",), (3600, 3600), id="one-limit-alone"),
        pytest.param(("admins", "contractors"), (600, 3600), id="the-shortest-of-each"),
        pytest.param(("on-call",), (3600, 43200), id="never-longer"),
    ],
)
def test_limits_for(groups, limits) -> None:
    assert limits_for(GROUPS, groups) == limits


@pytest.mark.parametrize(
    ("groups", "before", "after"),
    [
        pytest.param((), {}, (28800, None), id="nothing-to-narrow"),
        pytest.param(("guests",), {}, (7200, 600), id="joined"),
        pytest.param((), {"expires_at": NOW + 60, "idle": 30}, (60, 30), id="left"),
        pytest.param(("guests",), {"expires_at": NOW + 60, "idle": 30}, (60, 30), id="shorter-already"),
        pytest.param(("guests",), {"created_at": NOW - 9000}, (-1800, 600), id="past-the-new-end"),
    ],
)
def test_groups_only_shorten_a_session(groups, before, after) -> None:
    then = narrowed(session(*groups, **before), GROUPS)
    assert (then.expires_at - NOW, then.idle) == after


@pytest.mark.parametrize(
    ("one", "other", "shortest"), [(None, None, None), (1, None, 1), (None, 2, 2), (1, 2, 1), (2, 1, 1)]
)
def test_shorter(one, other, shortest) -> None:
    assert shorter(one, other) == shortest


# What is remembered of a rank


@pytest.mark.parametrize(
    ("steps", "rank", "kept"),
    [
        pytest.param([], 1, [], id="nothing"),
        pytest.param([Step(1, 99)], 1, [], id="the-lowest-needs-no-memory"),
        pytest.param([Step(3, 99)], 3, [], id="as-long-as-the-session"),
        pytest.param([Step(3, 50)], 3, [Step(3, 50)], id="for-a-while"),
        pytest.param([Step(3, 50), Step(2, 500)], 3, [Step(3, 50), Step(2, 99)], id="never-past-the-session"),
        pytest.param([Step(3, 10)], 1, [], id="over-at-its-second"),
        pytest.param([Step(2, 99), Step(3, 50)], 3, [Step(3, 50), Step(2, 99)], id="falls-back"),
        pytest.param([Step(2, 40), Step(3, 50)], 3, [Step(3, 50)], id="outlived-by-a-stronger-one"),
        pytest.param([Step(2, 40), Step(2, 50)], 2, [Step(2, 50)], id="the-later-of-two"),
        pytest.param([Step(2, 50), Step(3, 9)], 2, [Step(2, 50)], id="the-stronger-is-over"),
        pytest.param([Step(2, 99), Step(3, 9)], 2, [], id="over-and-what-is-left-lasts"),
    ],
)
def test_remembered(steps, rank, kept) -> None:
    assert remembered(steps, until=99, now=10) == (rank, tuple(kept))


KEY = (Step(3, NOW + 60), Step(2, NOW + 600))


@pytest.mark.parametrize(
    ("later", "rank", "steps"),
    [
        pytest.param(59.999, 3, KEY, id="just-before"),
        pytest.param(60, 2, KEY[1:], id="at-its-second"),
        pytest.param(600, 1, (), id="all-are-over"),
        pytest.param(1e9, 1, (), id="long-ago"),
    ],
)
def test_a_rank_runs_out(later, rank, steps) -> None:
    then = at(session(rank=3, steps=KEY), NOW + later)
    assert (then.rank, then.steps) == (rank, steps)
    assert at(then, NOW + later) is then


@pytest.mark.parametrize("who", [session(rank=3), session(rank=3, steps=KEY)], ids=["no-steps", "steps"])
def test_a_session_that_has_not_changed_is_the_very_same(who) -> None:
    assert at(who, NOW) is who


def test_how_a_rank_was_proved_is_forgotten_with_it() -> None:
    """An app that is told `acr` relies on it (T35)."""
    who = session(rank=3, steps=KEY, acr="phr", amr=("hwk",))
    assert (at(who, NOW).acr, at(who, NOW).amr) == ("phr", ("hwk",))
    assert (at(who, NOW + 60).acr, at(who, NOW + 60).amr) == (None, ())


# Services: what they show says how long it holds


@pytest.mark.parametrize("by", [Credential.TOKEN, Credential.CERTIFICATE])
def test_nobody_vouches_again_for_a_service(by) -> None:
    who = session(by=by, verified_at=NOW - 1e6)
    assert standing(who, HOUR, NOW) is Standing.LIVE and live_until(who, HOUR) == NOW + 28800
    assert standing(who, HOUR, NOW + 28800) is Standing.ENDED
    assert needs_new_sign_in(who, Sensitivity(fresh=True), NOW) is None


@pytest.mark.parametrize(
    ("by", "max_age"),
    [
        pytest.param(Credential.TOKEN, 600.0, id="a-token-says-when-its-person-signed-in"),
        pytest.param(Credential.CERTIFICATE, None, id="a-certificate-is-of-no-person"),
    ],
)
def test_a_person_behind_a_token_signed_in_too_long_ago(by, max_age) -> None:
    who = session(by=by, authenticated_at=NOW - 601)
    assert needs_new_sign_in(who, TEN_MINUTES, NOW) == max_age
    assert (live_until(who, TEN_MINUTES) == NOW - 1) is (max_age is not None)


def test_the_shortest_idle_time_of_anybody() -> None:
    assert shortest_idle(SessionLimits(idle=60.0)) == 60.0
    groups = (GroupLimits(frozenset("a"), idle=20.0), GroupLimits(frozenset("b"), absolute=5.0))
    assert shortest_idle(SessionLimits(idle=60.0, groups=groups)) == 20.0


def test_what_a_session_has_proved() -> None:
    assert proved(session(rank=3, steps=KEY)) == KEY
    assert proved(session(rank=2)) == (Step(2, NOW + 28800),)


# The device it is bound to


def on(thumbprint: str, written: str | None = None, known: str | None = None) -> OnDevice:
    leaf = Certificate("corp", "CN=ca", "CN=leaf", 7, thumbprint, "key", NOW, NOW + 9, device=written)
    return OnDevice(leaf, None if known is None else Device(known), NOW + 9)


@pytest.mark.parametrize(
    ("first", "then", "same"),
    [
        pytest.param(on("t1"), on("t1"), True, id="the-certificate"),
        pytest.param(on("t1", known="d1"), on("t2", known="d1"), True, id="X28-renewed-for-the-device"),
        pytest.param(on("t1", "d1"), on("t2", "d1"), True, id="X28-renewed-and-no-inventory"),
        pytest.param(on("t1", "d1"), on("t2", "d1", "d1"), True, id="came-into-the-inventory-since"),
        pytest.param(on("t1"), on("t2"), False, id="X27-another-certificate"),
        pytest.param(on("t1", known="d1"), on("t2", known="d2"), False, id="X27-another-device"),
        pytest.param(on("t1", "d1"), on("t2", "d1", "d2"), False, id="the-inventory-knows-better"),
        pytest.param(on("t1", known="d1"), on("t2"), False, id="no-device-on-the-other"),
        pytest.param(on("t1", known="d1"), on("t1"), False, id="taken-away-from-the-device"),
        pytest.param(on("t1"), on("t1", known="d1"), True, id="registered-since"),
    ],
)
def test_a_session_belongs_to_its_device(first, then, same) -> None:
    who = rebound(session(), first)
    assert who.certificate == first.certificate.thumbprint
    assert bound_to(who, first) is True
    assert bound_to(who, then) is same


def test_a_session_that_is_bound_to_nothing_belongs_to_no_device() -> None:
    assert bound_to(session(), on("t1")) is False
