"""The book of locks: order, gaps, lifts, what meets whom, and what may be forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.words import ALICE, ISSUER, NOW, person, session
from ztproxy.core.identity import Session
from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import ALL, Action, Entry, Lift, Lock, Target, TargetKind

LATER = NOW + 60
USER = Target(TargetKind.USER, ALICE, ISSUER)
ADMINS = Target(TargetKind.GROUP, "admin")
ROUTE = Target(TargetKind.ROUTE, "app")
SESSION = Target(TargetKind.SESSION, "s1")
WHO = session("admin")


def lock(
    number: int, target: Target = USER, action: Action = Action.DENY, until: float | None = None
) -> Lock:
    return Lock(f"l{number}", target, action, until=until, number=number)


def lift(number: int, of: int) -> Lift:
    return Lift(f"l{number}", f"l{of}", number=number)


def book(*entries: Entry) -> LockBook:
    it = LockBook()
    it.apply(entries)
    return it


def met(it: LockBook, who: Session | None = WHO, route: str = "app", now: float = NOW) -> list[int]:
    return [one.number for one in it.meeting(who, route, now)]


# -- applying --


def test_entries_count_once_and_in_order() -> None:
    it = LockBook()
    assert it.apply([lock(1), lock(2)]) == (lock(1), lock(2))
    assert (it.applied, it.revision) == (2, 1)
    assert it.apply([lock(1), lock(2), lift(3, 1), lock(4)]) == (lock(4),)
    assert (it.applied, it.revision) == (4, 2)
    assert it.apply([lock(2)]) == ()
    assert (it.applied, it.revision) == (4, 2)
    assert it.entries() == (lock(1), lock(2), lift(3, 1), lock(4))
    assert it.has("l3") and not it.has("l5")


@pytest.mark.parametrize(
    ("entries", "first"),
    [
        pytest.param([lock(4)], 1, id="one_missing"),
        pytest.param([lock(3), lock(5)], 1, id="one_missing_between"),
        pytest.param([lock(3, until=LATER), lock(5)], 4, id="one_missing_after_the_trimmed"),
        pytest.param([lock(9)], 9, id="trimmed_past_what_was_applied"),
        pytest.param([], 9, id="trimmed_past_what_was_applied_to_nothing"),
    ],
)
def test_a_gap_is_refused_and_changes_nothing(entries: list[Entry], first: int) -> None:
    it = book(lock(1), lock(2))
    with pytest.raises(ValueError, match=r"missing|begins"):
        it.apply(entries, first)
    assert (it.applied, it.revision, it.entries()) == (2, 1, (lock(1), lock(2)))


@pytest.mark.parametrize(
    ("entries", "first", "applied"),
    [
        pytest.param([], 1, 0, id="nothing_ever"),
        pytest.param([lock(7), lock(8)], 7, 8, id="begins_late"),
        pytest.param([lock(2, until=LATER), lock(5, until=LATER), lock(7)], 7, 7, id="with_the_trimmed"),
        pytest.param([lock(2, until=LATER)], 7, 6, id="nothing_but_the_trimmed"),
        pytest.param([], 7, 6, id="all_trimmed"),
    ],
)
def test_a_log_that_was_trimmed_is_read_from_its_beginning(
    entries: list[Entry], first: int, applied: int
) -> None:
    it = LockBook()
    assert it.apply(entries, first) == tuple(entries)
    assert it.applied == applied
    assert it.apply([lock(applied + 1)], first) == (lock(applied + 1),)


def test_a_book_that_has_all_but_what_was_trimmed_is_not_behind() -> None:
    it = book(lock(1), lock(2))
    assert it.apply([lock(3)], 3) == (lock(3),)
    assert it.apply([], 4) == ()
    assert it.applied == 3


def test_reset() -> None:
    it = book(lock(1), lock(2, until=LATER), lift(3, 9))
    it.reset()
    assert (it.applied, it.entries(), met(it)) == (0, (), [])
    assert it.revision == 2
    it.apply([Lock("l9", USER, until=LATER, number=1)])
    assert met(it) == [1]  # the lift is forgotten too


# -- meeting --


@pytest.mark.parametrize(
    ("entries", "who", "numbers"),
    [
        pytest.param([], WHO, [], id="empty"),
        pytest.param([lock(1)], WHO, [1], id="user"),
        pytest.param([lock(1, SESSION)], WHO, [1], id="session"),
        pytest.param([lock(1, ADMINS)], WHO, [1], id="group"),
        pytest.param([lock(1, ALL)], WHO, [1], id="all"),
        pytest.param([lock(1, ROUTE)], WHO, [1], id="route"),
        pytest.param([lock(1, Target(TargetKind.ROUTE, "other"))], WHO, [], id="another_route"),
        pytest.param([lock(1, USER._replace(issuer="x"))], WHO, [], id="attack_another_issuer"),
        pytest.param([lock(1, SESSION._replace(kind=TargetKind.GROUP))], WHO, [], id="attack_group_named_so"),
        pytest.param([lock(1)], session(as_of=1), [], id="signed_in_since"),
        pytest.param([lock(1), lock(2)], session(as_of=1), [2], id="revoked_again"),
        pytest.param([lock(1), lock(2)], WHO, [2], id="the_newest_says_it_all"),
        pytest.param([lock(1, until=LATER), lock(2, until=NOW)], WHO, [1], id="one_has_ended"),
        pytest.param([lock(1, until=LATER), lock(2, ADMINS, until=LATER)], WHO, [1, 2], id="both"),
        pytest.param([lock(1, until=LATER), lock(2, ROUTE, until=LATER)], None, [2], id="stranger_route"),
        pytest.param([lock(1, ALL, until=LATER)], None, [1], id="attack_no_cookie_while_all_are_locked"),
        pytest.param([lock(1, ALL), lock(2, ROUTE)], None, [], id="stranger_has_no_past"),
        # Lifting.
        pytest.param([lock(1, until=LATER), lift(2, 1)], WHO, [], id="lifted"),
        pytest.param([lock(1, until=LATER), lock(2, until=LATER), lift(3, 1)], WHO, [2], id="one_lifted"),
        pytest.param([lock(1, action=Action.REQUIRE_LOGIN), lift(2, 1)], WHO, [], id="asking_lifted"),
        pytest.param(
            [lock(1, action=Action.REQUIRE_LOGIN), lock(2, action=Action.REQUIRE_LOGIN), lift(3, 2)],
            WHO,
            [1],
            id="the_one_before_still_asks",
        ),
        pytest.param([lock(1), lift(2, 1)], WHO, [1], id="attack_what_was_revoked_stays_so"),
        pytest.param([lift(1, 2), lock(2, until=LATER)], WHO, [], id="put_back_in_the_wrong_order"),
        pytest.param([lift(1, 2), lock(2)], WHO, [2], id="attack_lifted_before_it_was_made"),
        pytest.param([lift(1, 9)], WHO, [], id="lifts_nothing"),
        pytest.param([lift(1, 2), lift(2, 1)], WHO, [], id="lifts_a_lift"),
    ],
)
def test_meeting(entries: list[Entry], who: Session | None, numbers: list[int]) -> None:
    assert met(book(*entries), who) == numbers


def test_newest_revocation_whatever_the_session_began_after() -> None:
    it = book(lock(1), lock(2, ADMINS), lock(3, ROUTE), lock(4, until=LATER))
    assert it.newest_revocation(session("admin", as_of=9)) == lock(2, ADMINS)
    assert it.newest_revocation(session(as_of=9)) == lock(1)
    assert it.newest_revocation(session(identity=person(subject="bob"))) is None


def test_standing() -> None:
    it = book(
        lock(1, ADMINS, until=LATER),
        lock(2),
        lock(3, until=NOW),
        lock(4, ALL, until=LATER),
        lock(5, action=Action.REQUIRE_LOGIN),
        lock(6, ADMINS, until=LATER),
        lock(7, until=LATER),
        lift(8, 7),
    )
    assert [one.number for one in it.standing(NOW)] == [1, 4, 6]


# -- what a log lacks --


def test_lacks_what_is_neither_there_nor_lifted() -> None:
    it = book(lock(1), lock(2, until=LATER), lift(3, 2), lift(4, 20))
    there, again = lock(1), replace(lock(2, until=LATER), number=77)
    unknown, newer = lock(10), replace(lock(10), number=11)
    lifted_there, lifted_here = lock(20, until=LATER), lock(21, until=LATER)
    revoked, its_lift = lock(22), lift(24, 22)
    lift_here = lift(23, 21)
    known = [there, again, unknown, lifted_there, lifted_here, revoked, lift_here, its_lift, newer]
    assert it.lacks(known) == (newer, revoked, lift_here, its_lift)
    assert it.lacks([]) == ()


# -- forgetting --


def test_forget_before() -> None:
    it = book(
        lock(1),
        lock(2, ADMINS),
        lock(3, until=NOW),
        lock(4, until=LATER),
        lock(5, action=Action.REQUIRE_LOGIN),
        lock(6, ALL, until=LATER),
        lift(7, 6),
        lift(8, 3),
        lift(9, 99),
        lock(10, ADMINS),
        lock(11, SESSION),
    )
    revision = it.revision
    it.forget_before(11, NOW)
    # A lock with an end stays until then, and the lift of one too: else it could come back from a journal.
    assert it.entries() == (lock(4, until=LATER), lock(6, ALL, until=LATER), lift(7, 6), lock(11, SESSION))
    assert met(it) == [11, 4]
    assert it.newest_revocation(session("admin")) == lock(11, SESSION)
    assert it.lacks([lock(6, ALL, until=LATER)]) == ()
    assert (it.applied, it.revision) == (11, revision)
    it.forget_before(12, LATER)
    assert it.entries() == () and met(it) == [] and it.standing(NOW) == ()


def test_forgetting_an_older_revocation_leaves_the_newest() -> None:
    it = book(lock(1), lock(2))
    it.forget_before(2, NOW)
    assert met(it) == [2] and it.entries() == (lock(2),)


def test_forgetting_a_revocation_that_was_lifted_in_vain() -> None:
    it = book(lock(1), lift(2, 1))
    it.forget_before(3, NOW)
    assert met(it) == [] and it.entries() == ()


def test_knows_what_was_applied_as_this_number() -> None:
    it = book(lock(1), lock(2), lift(3, 1), lock(4, until=LATER))
    assert it.knows(lock(2)) and it.knows(lift(3, 1))
    assert not it.knows(replace(lock(2), number=3)) and not it.knows(lock(5))
    assert not it.knows(Lock("else", USER, number=2))
    it.forget_before(3, NOW)
    assert it.knows(Lock("else", USER, number=2)) and not it.knows(Lock("else", USER, number=3))
    assert not it.knows(replace(lock(4), number=2))
    it.forget_before(1, NOW)
    assert it.knows(Lock("else", USER, number=2))
    it.reset()
    assert not it.knows(Lock("else", USER, number=2))


# -- whom it meets that has no place in the log --


def made(number: int, at: float, target: Target = USER, until: float | None = None) -> Lock:
    return replace(lock(number, target, until=until), made_at=at)


@pytest.mark.parametrize(
    ("entries", "moment", "as_of"),
    [
        pytest.param([], NOW, 0, id="empty"),
        pytest.param([made(1, NOW - 9), made(2, NOW - 5)], NOW, 2, id="all_before"),
        pytest.param([made(1, NOW - 9), made(2, NOW)], NOW, 2, id="at_the_moment"),
        pytest.param([made(1, NOW - 9), made(2, NOW + 1), made(3, NOW + 2)], NOW, 1, id="some_after"),
        pytest.param([made(1, NOW + 1)], NOW, 0, id="all_after"),
        pytest.param([made(1, NOW - 9), lock(2), made(3, NOW - 5)], NOW, 1, id="a_time_not_known"),
        pytest.param([made(1, NOW + 9), made(2, NOW - 9)], NOW, 0, id="a_clock_set_back"),
        pytest.param([made(1, NOW - 9), made(2, NOW - 99), made(3, NOW + 9)], NOW, 2, id="and_forth"),
        pytest.param([made(1, NOW - 9), replace(lift(2, 1), made_at=NOW + 9)], NOW, 1, id="a_lift"),
    ],
)
def test_the_place_of_a_moment_in_the_log(entries: list[Entry], moment: float, as_of: int) -> None:
    assert book(*entries).as_of(moment) == as_of


def test_a_lock_meets_a_token_issued_before_it_and_none_issued_after() -> None:
    it = book(made(1, NOW - 60), made(2, NOW))
    for issued, numbers in ((NOW - 90, [2]), (NOW - 30, [2]), (NOW, []), (NOW + 30, [])):
        assert met(it, replace(WHO, as_of=it.as_of(issued))) == numbers  # the newest says it all


def test_a_place_stays_right_when_the_log_is_trimmed_and_forgotten() -> None:
    it = book(made(1, NOW + 50, until=LATER), made(2, NOW - 60), made(3, NOW), made(4, NOW + 10, ADMINS))
    assert it.as_of(NOW) == 0
    it.forget_before(4, LATER)
    assert [it.as_of(moment) for moment in (NOW - 90, NOW + 9, NOW + 10)] == [3, 3, 4]
    it.forget_before(9, LATER)
    assert it.as_of(0.0) == 4
    it.reset()
    assert it.as_of(NOW) == 0
    it.apply([made(1, NOW + 5)])
    assert [it.as_of(moment) for moment in (NOW, NOW + 5)] == [0, 1]
