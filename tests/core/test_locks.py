"""Whom a lock meets: by its number, its end, its action; what a lock can be aimed at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.words import ISSUER, NOW, person, session
from ztproxy.core.identity import Session
from ztproxy.core.locks import ALL, Action, Lock, Target, TargetKind, meets, targets_of

OLD, NEW = session(as_of=4), session(as_of=5)
STRONG = session(rank=2, as_of=5)
LATER = NOW + 60


def lock(action: Action = Action.DENY, until: float | None = None, number: int = 5) -> Lock:
    return Lock("l", ALL, action, until=until, number=number)


@pytest.mark.parametrize(
    ("aimed", "who", "met"),
    [
        # Without an end: who began before it, however late the sign-in ended (INV-5); nobody after.
        pytest.param(lock(), OLD, True, id="revoked"),
        pytest.param(lock(), NEW, False, id="signed_in_since"),
        pytest.param(lock(), session(as_of=6), False, id="signed_in_long_since"),
        pytest.param(lock(), None, False, id="a_stranger_has_no_past"),
        pytest.param(lock(Action.REQUIRE_LOGIN), OLD, True, id="login_asked"),
        pytest.param(lock(Action.REQUIRE_LOGIN), NEW, False, id="login_done"),
        pytest.param(lock(Action.REQUIRE_STEP_UP), OLD, True, id="step_up_asked"),
        pytest.param(lock(Action.REQUIRE_STEP_UP), NEW, False, id="step_up_done"),
        # With an end: whoever comes, until then.
        pytest.param(lock(until=LATER), OLD, True, id="locked_out"),
        pytest.param(lock(until=LATER), NEW, True, id="locked_out_after_a_new_sign_in"),
        pytest.param(lock(until=LATER), None, True, id="a_stranger_at_a_locked_door"),
        pytest.param(lock(until=NOW), OLD, False, id="ended_this_second"),
        pytest.param(lock(until=NOW), None, False, id="ended_for_strangers_too"),
        pytest.param(lock(Action.REQUIRE_LOGIN, LATER), OLD, True, id="login_asked_for_a_while"),
        pytest.param(lock(Action.REQUIRE_LOGIN, LATER), NEW, False, id="login_done_once"),
        pytest.param(lock(Action.REQUIRE_LOGIN, LATER), None, False, id="asks_nothing_of_strangers"),
        pytest.param(lock(Action.REQUIRE_STEP_UP, LATER), NEW, True, id="too_weak_a_sign_in"),
        pytest.param(lock(Action.REQUIRE_STEP_UP, LATER), STRONG, False, id="strong_since"),
        pytest.param(
            lock(Action.REQUIRE_STEP_UP, LATER), replace(STRONG, as_of=4), True, id="attack_strong_before"
        ),
    ],
)
def test_meets(aimed: Lock, who: Session | None, met: bool) -> None:
    assert meets(aimed, who, NOW) is met


@pytest.mark.parametrize(
    ("aimed", "revokes"),
    [
        pytest.param(lock(), True, id="deny"),
        pytest.param(lock(until=LATER), False, id="deny_for_a_while"),
        pytest.param(lock(Action.REQUIRE_LOGIN), False, id="login"),
        pytest.param(lock(Action.REQUIRE_STEP_UP), False, id="step_up"),
    ],
)
def test_revokes(aimed: Lock, revokes: bool) -> None:
    assert aimed.revokes is revokes


def test_targets_of_a_session() -> None:
    who = session(identity=person("a", "b"), idp_session="sid", device="d1")
    assert list(targets_of(who)) == [
        Target(TargetKind.SESSION, "s1"),
        Target(TargetKind.USER, who.identity.subject, ISSUER),
        Target(TargetKind.IDP_SESSION, "sid", ISSUER),
        Target(TargetKind.DEVICE, "d1"),
        Target(TargetKind.GROUP, "a"),
        Target(TargetKind.GROUP, "b"),
        ALL,
    ]


def test_attack_the_same_subject_of_another_issuer_is_somebody_else() -> None:
    """T10: two providers may say the same of different people."""
    ours, theirs = session(), session(identity=person(issuer="https://other.test"))
    shared = set(targets_of(ours)) & set(targets_of(theirs))
    assert shared == {Target(TargetKind.SESSION, "s1"), ALL}


def test_a_target_in_one_word() -> None:
    assert str(Target(TargetKind.USER, "alice", ISSUER)) == "user:alice"
    assert str(ALL) == "all"
