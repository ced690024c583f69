"""The judge of `make load` by hand-made moments: each broken promise is one, and nothing else is."""

from __future__ import annotations

from math import inf

import pytest

from loadtests.people.promises import (
    LEASE,
    PHASES,
    Act,
    Outcome,
    Session,
    Timeline,
    Trouble,
    close_wrong,
    echo_wrong,
    plan,
    wrong,
)

BY_TROUBLE = {phase.trouble: phase for phase in PHASES}
CLOSED = 20.1 + LEASE
"""The first moment at which nobody can have had a lease, in a phase whose trouble was there at 20.1."""


def during(trouble: Trouble) -> Timeline:
    """Quiet until 20, then the trouble, certain from 20.1 until 29, and quiet from 30 on."""
    timeline = Timeline()
    timeline.enter(BY_TROUBLE[Trouble.NONE], 10.0)
    span = timeline.enter(BY_TROUBLE[trouble], 20.0)
    if trouble is not Trouble.STORE_BLIPS:
        span.certain, span.healing = 20.1, 29.0
    timeline.enter(BY_TROUBLE[Trouble.NONE], 30.0)
    return timeline


@pytest.mark.parametrize(
    ("trouble", "act", "outcome", "began", "ended", "kept"),
    [
        pytest.param(Trouble.NONE, Act.PAGE, Outcome.DONE, 11, 12, True, id="quiet_let_in"),
        pytest.param(Trouble.NONE, Act.PAGE, Outcome.BUSY, 11, 12, False, id="quiet_busy"),
        pytest.param(Trouble.NONE, Act.PAGE, Outcome.REFUSED, 11, 12, False, id="quiet_lost_session"),
        pytest.param(Trouble.NONE, Act.PAGE, Outcome.WRONG, 11, 12, False, id="quiet_something_else"),
        pytest.param(Trouble.NONE, Act.SIGN_IN, Outcome.ONWARD, 11, 12, False, id="led_in_a_circle"),
        pytest.param(Trouble.IDP_SLOW, Act.SIGN_IN, Outcome.DONE, 21, 25, True, id="slow_sign_in"),
        pytest.param(Trouble.IDP_SLOW, Act.SIGN_IN, Outcome.NO_PROVIDER, 21, 25, False, id="slow_not_away"),
        pytest.param(Trouble.IDP_AWAY, Act.SIGN_IN, Outcome.NO_PROVIDER, 21, 22, True, id="away_502"),
        pytest.param(Trouble.IDP_AWAY, Act.SIGN_IN, Outcome.DONE, 21, 22, False, id="in_without_a_provider"),
        pytest.param(Trouble.IDP_AWAY, Act.SIGN_IN, Outcome.DONE, 20.05, 22, True, id="begun_before_it_left"),
        pytest.param(Trouble.IDP_AWAY, Act.SIGN_IN, Outcome.DONE, 28, 29.5, True, id="it_came_back"),
        pytest.param(Trouble.IDP_AWAY, Act.PAGE, Outcome.DONE, 21, 22, True, id="the_signed_in_go_on"),
        pytest.param(Trouble.IDP_AWAY, Act.PAGE, Outcome.BUSY, 21, 22, False, id="the_signed_in_notice"),
        pytest.param(Trouble.IDP_AWAY, Act.MOVE, Outcome.NO_PROVIDER, 21, 22, False, id="second_app_notices"),
        pytest.param(Trouble.STORE_SLOW, Act.COLD_PAGE, Outcome.BUSY, 21, 22, False, id="slow_store_busy"),
        pytest.param(Trouble.STORE_BLIPS, Act.PAGE, Outcome.BUSY, 21, 22, False, id="blip_noticed"),
        pytest.param(Trouble.STORE_BLIPS, Act.COLD_PAGE, Outcome.BUSY, 21, 22, True, id="blip_needs_store"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.DONE, 20.5, 20.6, True, id="under_the_lease"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.DONE, CLOSED, 24, True, id="at_its_last_moment"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.DONE, CLOSED + 0.01, 24, False, id="past_it"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.BUSY, 25, 26, True, id="past_it_busy"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.REFUSED, 25, 26, False, id="past_it_signed_out"),
        pytest.param(Trouble.STORE_GONE, Act.SIGN_OUT, Outcome.DONE, 25, 26, True, id="past_it_leaving"),
        pytest.param(Trouble.STORE_GONE, Act.REVOKE, Outcome.DONE, 25, 26, False, id="confirmed_by_nobody"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.DONE, 28.9, 29.1, True, id="healed_meanwhile"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.BUSY, 29.9, 30.2, True, id="into_the_next_phase"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.BUSY, 30.1, 30.2, False, id="after_it"),
        pytest.param(Trouble.STORE_GONE, Act.PAGE, Outcome.REFUSED, 30.1, 30.2, False, id="lost_after_it"),
    ],
)
def test_what_is_promised(
    trouble: Trouble, act: Act, outcome: Outcome, began: float, ended: float, kept: bool
) -> None:
    found = wrong(during(trouble), act, outcome, began, ended, Session("s", 0.0))
    assert (found == "") is kept, found


@pytest.mark.parametrize(
    ("asked", "revoked", "outcome", "kept"),
    [
        pytest.param(inf, inf, Outcome.REFUSED, False, id="nobody_ended_it"),
        pytest.param(11.6, inf, Outcome.REFUSED, False, id="asked_after_the_answer"),
        pytest.param(11.2, inf, Outcome.REFUSED, True, id="asked_meanwhile"),
        pytest.param(10.2, inf, Outcome.DONE, True, id="asked_and_not_confirmed"),
        pytest.param(10.2, 11.1, Outcome.DONE, True, id="confirmed_meanwhile"),
        pytest.param(10.2, 10.9, Outcome.DONE, False, id="let_in_after_the_confirmation"),
        pytest.param(10.2, 10.9, Outcome.REFUSED, True, id="refused_after_it"),
        pytest.param(10.2, 10.9, Outcome.BUSY, False, id="busy_is_no_refusal_when_quiet"),
    ],
)
def test_a_revocation(asked: float, revoked: float, outcome: Outcome, kept: bool) -> None:
    session = Session("s", 0.0, asked, revoked)
    found = wrong(during(Trouble.NONE), Act.PAGE, outcome, 11.0, 11.5, session)
    assert (found == "") is kept, found


@pytest.mark.parametrize(
    ("said", "heard", "revoked", "kept"),
    [
        pytest.param(11.0, 11.1, inf, True, id="echo"),
        pytest.param(11.0, inf, inf, False, id="none"),
        pytest.param(11.0, 11.1, 11.05, True, id="revoked_on_its_way"),
        pytest.param(11.0, 11.1, 10.9, False, id="revoked_before"),
        pytest.param(20.5, 22.0, inf, True, id="under_the_lease"),
        pytest.param(22.0, CLOSED + 0.2, inf, True, id="read_a_little_late"),
        pytest.param(22.0, CLOSED + 0.5, inf, False, id="without_a_lease"),
        pytest.param(22.0, 29.1, inf, True, id="frozen_and_then_it_came"),
    ],
)
def test_an_echo(said: float, heard: float, revoked: float, kept: bool) -> None:
    found = echo_wrong(during(Trouble.STORE_GONE), said, heard, Session("s", 0.0, revoked, revoked))
    assert (found == "") is kept, found


@pytest.mark.parametrize(
    ("code", "asked", "kept"),
    [
        pytest.param(1008, 9.0, True, id="revoked"),
        pytest.param(1006, 9.0, False, id="revoked_and_cut_without_a_word"),
        pytest.param(1008, inf, False, id="nobody_ended_the_session"),
    ],
)
def test_the_end_of_a_websocket(code: int, asked: float, kept: bool) -> None:
    assert (close_wrong(code, 10.0, Session("s", 0.0, asked)) == "") is kept


def test_whoever_was_let_in_lately_needs_no_store() -> None:
    session = Session("s", 0.0, seen={"home": 10.0})
    assert session.act("home", 11.0) is Act.PAGE
    assert session.act("home", 13.0) is Act.COLD_PAGE
    assert session.act("live", 10.1) is Act.COLD_PAGE


def test_a_plan() -> None:
    whole = plan(100.0)
    assert [phase for phase, _ in whole] == list(PHASES)
    assert sum(seconds for _, seconds in whole) == pytest.approx(100.0)
    few = plan(9.0, ["store_gone"])
    assert [phase.name for phase, _ in few] == ["quiet", "store gone", "quiet again"]
    assert sum(seconds for _, seconds in few) == pytest.approx(9.0)
    with pytest.raises(ValueError, match="`tuesday` is no phase; there are none, idp_slow"):
        plan(9.0, ["tuesday"])
