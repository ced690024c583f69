"""The lease, one answer of the store after the other: what grants it, what holds it, what voids it."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from ztproxy.core.lease import (
    COMPARED,
    Answer,
    Granted,
    Hold,
    Holder,
    NotYet,
    Sent,
    StartOver,
    Synced,
    Terms,
    Why,
    outlived,
    revocation_after_rollback,
)
from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import ALL, Action, Entry, Lift, Lock, Target, TargetKind

L, Q = 0.8, 1.0
OLD = 100.0  # seconds for which a log has been there


def lock(number: int, **more: Any) -> Lock:
    return Lock(f"l{number}", Target(TargetKind.USER, "ann", "idp"), number=number, **more)


def entries(first: int, last: int) -> tuple[Entry, ...]:
    return tuple(lock(number) for number in range(first, last + 1))


class Story:
    """A holder and the clock of its worker. `told` is what it passed on."""

    def __init__(self, *, durable: bool = True, revoke_all: bool = True) -> None:
        self.book = LockBook()
        self.holder = Holder(self.book, Terms(L, Q, durable=durable), revoke_all=revoke_all)
        self.now = 50.0
        self.told: list[tuple[int, ...]] = []
        self.tell: Callable[[tuple[Lock, ...]], None] = lambda locks: self.told.append(
            tuple(one.number for one in locks)
        )

    def send(self) -> Sent:
        return self.holder.send(self.now)

    def hear(
        self,
        sent: Sent,
        number: int,
        *,
        run: str = "r1",
        data: str = "d1",
        first: int = 1,
        settled: float = OLD,
        log: tuple[Entry, ...] | None = None,
    ) -> Answer:
        """The answer of a log that has `number` entries, ours unless `log` says otherwise."""
        there = entries(first, number) if log is None else log
        news = tuple(one for one in there if one.number > sent.asked)
        return self.holder.hear(Synced(run, data, number, first, settled, news), sent, self.now, self.tell)

    def sync(self, number: int, **more: Any) -> Answer:
        sent = self.send()
        self.now += 0.1
        return self.hear(sent, number, **more)

    def begun(self, number: int) -> Story:
        """Past its start: it has a lease and `number` entries applied."""
        assert self.sync(number) == NotYet(Hold.RESTORING)
        assert self.holder.owed(()) == ()
        self.holder.restore()
        assert isinstance(self.sync(number), Granted)
        self.told.clear()
        return self


def test_terms() -> None:
    assert Terms(0.8).beat == 0.1
    assert Terms(0.8).waited == outlived(0.8) == pytest.approx(0.832)
    assert Terms(0.8).settling == Terms(0.8).waited
    assert Terms(0.8, failover=6.5).settling == 6.5


def test_the_lease_counts_from_before_the_question_left() -> None:
    it = Story().begun(0)
    sent = it.send()
    it.now += 0.7
    assert it.hear(sent, 2) == Granted(sent.at + L)
    assert it.holder.until == sent.at + L
    assert it.told == [(1, 2)]


def test_new_locks_are_told_after_they_are_in_the_book_and_before_the_lease_is_longer() -> None:
    it = Story().begun(1)
    seen: list[tuple[int, float]] = []
    it.tell = lambda locks: seen.append((it.book.applied, it.holder.until))
    before = it.holder.until
    assert it.sync(2) == Granted(it.holder.until)
    assert seen == [(2, before)] and it.holder.until > before


def test_answers_may_come_late_twice_and_in_any_order() -> None:
    it = Story().begun(0)
    first = it.send()
    it.now += 0.1
    second = it.send()
    it.now += 0.3
    assert it.hear(second, 2) == Granted(second.at + L)
    assert it.hear(first, 1) == Granted(second.at + L)  # older: neither shorter nor a rollback
    assert it.hear(second, 2) == Granted(second.at + L)
    assert it.told == [(1, 2)] and it.book.applied == 2


def test_an_answer_with_a_part_of_the_log_grants_nothing() -> None:
    it = Story().begun(0)
    until = it.holder.until
    assert it.sync(5, log=entries(1, 3)) == NotYet(Hold.CATCHING_UP)
    assert it.holder.until == until and not it.holder.caught_up
    assert isinstance(it.sync(5), Granted)
    assert it.told == [(1, 2, 3), (4, 5)]


# -- the start --


def test_nobody_is_let_in_before_what_is_owed_is_in_the_log() -> None:
    it = Story()
    early = it.send()
    assert it.sync(1) == NotYet(Hold.RESTORING)
    assert it.holder.owed([lock(1), Lock("x", ALL)]) == (Lock("x", ALL),)
    it.holder.restore()
    # A question from before may have an answer without it.
    assert it.hear(early, 1) == NotYet(Hold.OUTDATED)
    assert it.sync(2, log=(lock(1), Lock("x", ALL, number=2))) == Granted(it.now - 0.1 + L)


@pytest.mark.parametrize(
    ("settled", "after", "answer"),
    [
        pytest.param(Q, 0.0, Granted, id="there_for_long_enough"),
        pytest.param(0.9, 0.0, NotYet, id="not_yet"),
        pytest.param(0.0, Q, Granted, id="long_enough_by_our_own_clock"),
        pytest.param(-3600.0, 0.5, NotYet, id="the_stores_clock_was_set_back"),
        pytest.param(-3600.0, Q, Granted, id="and_that_keeps_nobody_waiting"),
    ],
)
def test_quarantine_at_the_start(settled: float, after: float, answer: type) -> None:
    it = Story()
    assert it.sync(0, settled=settled) == NotYet(Hold.RESTORING)
    it.holder.restore()
    it.now += after
    heard = it.sync(0, settled=settled)
    assert type(heard) is answer
    assert heard == NotYet(Hold.QUARANTINE) or it.holder.until > it.now


# -- another log --


@pytest.mark.parametrize(
    ("durable", "answer", "why"),
    [
        pytest.param(True, {"number": 3, "data": "d2"}, Why.LOST, id="other_data"),
        pytest.param(True, {"number": 0, "data": "d2", "settled": 0.0}, Why.LOST, id="no_data"),
        pytest.param(True, {"number": 2}, Why.ROLLED_BACK, id="older"),
        pytest.param(True, {"number": 2, "run": "r2"}, Why.ROLLED_BACK, id="older_after_a_restart"),
        pytest.param(False, {"number": 2, "run": "r2"}, Why.ROLLED_BACK, id="older_after_a_failover"),
        pytest.param(False, {"number": 3, "run": "r2"}, Why.FAILED_OVER, id="another_server"),
        pytest.param(True, {"number": 9, "first": 5}, Why.BEHIND, id="trimmed"),
        pytest.param(True, {"number": 5, "log": (lock(5),)}, Why.GAP, id="gap"),
    ],
)
def test_start_over(durable: bool, answer: dict[str, Any], why: Why) -> None:
    it = Story(durable=durable).begun(3)
    late = it.send()
    revision = it.book.revision
    assert it.sync(**answer) == StartOver(why)
    assert it.holder.until == -inf
    assert (it.book.applied, it.book.entries(), it.told) == (0, (), [])
    assert it.book.revision > revision
    assert it.holder.era == 1 and not it.holder.caught_up and not it.holder.restored
    # What was asked before means nothing any more, whoever answers it.
    assert it.hear(late, 3) == NotYet(Hold.OUTDATED)
    assert it.hear(late, 3, run="r2", data="d2") == NotYet(Hold.OUTDATED)
    assert it.book.applied == 0


@pytest.mark.parametrize(
    "settled", [pytest.param(0.0, id="new"), pytest.param(3600.0, id="clock_set_forward")]
)
def test_quarantine_after_a_start_over_is_by_our_own_clock(settled: float) -> None:
    it = Story().begun(1)
    it.sync(0, data="d2")
    began = it.now
    assert it.sync(0, data="d2", settled=settled) == NotYet(Hold.RESTORING)
    it.holder.restore()
    assert it.sync(0, data="d2", settled=settled) == NotYet(Hold.QUARANTINE)
    it.now = began + Q
    assert it.sync(0, data="d2", settled=settled) == Granted(began + Q + L)
    assert it.sync(0, data="d2", settled=0.0) == Granted(it.now - 0.1 + L)  # once is enough


def test_a_restart_of_a_durable_store_costs_no_lease() -> None:
    it = Story().begun(3)
    until = it.holder.until
    assert it.sync(3, run="r2", settled=0.0) == NotYet(Hold.COMPARING)
    assert it.holder.until == until and it.holder.era == 0
    assert it.send().asked == 0 and it.send().applied == 3
    assert isinstance(it.sync(3, run="r2", settled=0.1), Granted)
    assert it.send().asked == 3


def test_who_had_no_lease_when_a_durable_store_restarted_waits_for_the_others() -> None:
    it = Story().begun(3)
    it.now = it.holder.until
    assert it.sync(3, run="r2") == NotYet(Hold.COMPARING)
    began = it.now
    assert it.sync(3, run="r2") == NotYet(Hold.RESTORING)
    assert it.holder.owed([lock(9)]) == (lock(9), revocation_after_rollback("d1", "r2"))
    it.holder.restore()
    assert it.sync(3, run="r2") == NotYet(Hold.QUARANTINE)
    it.now = began + Q
    assert isinstance(it.sync(3, run="r2"), Granted)
    assert it.holder.era == 0


def test_a_restart_of_a_durable_store_that_was_empty() -> None:
    it = Story().begun(0)
    assert it.sync(0, run="r2") == NotYet(Hold.COMPARING)
    assert it.send().asked == 0
    assert isinstance(it.sync(0, run="r2"), Granted)


def test_an_answer_from_before_the_comparison_does_not_end_it() -> None:
    it = Story().begun(3)
    late = it.send()
    assert it.sync(4, run="r2") == NotYet(Hold.COMPARING)
    assert it.hear(late, 4, run="r2") == NotYet(Hold.COMPARING)
    assert it.told == []
    assert isinstance(it.sync(4, run="r2"), Granted)
    assert it.told == [(4,)]


@pytest.mark.parametrize(
    "log",
    [
        pytest.param((lock(1), lock(2), Lock("x", ALL, number=3)), id="grew_again"),
        pytest.param((lock(1), lock(2), Lock("x", ALL, number=3), lock(4)), id="grew_longer"),
        pytest.param((lock(1), Lock("x", ALL, number=2), lock(3)), id="has_the_last_one_where_it_was"),
        pytest.param((lock(1), Lock("x", ALL, number=2), Lock("l2", ALL, number=3)), id="in_another_order"),
    ],
)
def test_attack_an_older_state_that_grew_before_anyone_noticed(log: tuple[Entry, ...]) -> None:
    it = Story().begun(3)
    it.told.clear()
    assert it.sync(len(log), run="r2", log=log) == NotYet(Hold.COMPARING)
    assert it.told == [] and it.book.applied == 3, "nothing of it is applied before it was compared"
    assert it.sync(len(log), run="r2", log=log) == StartOver(Why.ROLLED_BACK)


def test_only_the_last_entries_are_compared() -> None:
    it = Story().begun(500)
    it.sync(500, run="r2")
    assert it.send().asked == 500 - COMPARED
    assert isinstance(it.sync(501, run="r2"), Granted)
    assert it.told == [(501,)]


def test_a_store_that_changes_once_more_while_compared() -> None:
    it = Story().begun(3)
    assert it.sync(3, run="r2") == NotYet(Hold.COMPARING)
    # This answer has the last entries in it, so that it settles both changes.
    assert isinstance(it.sync(3, run="r3"), Granted)


def test_what_cannot_be_passed_on_is_not_acknowledged() -> None:
    it = Story().begun(1)

    def fails(locks: tuple[Lock, ...]) -> None:
        raise RuntimeError("no")

    it.tell, tell = fails, it.tell
    with pytest.raises(RuntimeError):
        it.sync(2)
    assert it.holder.until == -inf and it.send().asked == 0 and it.holder.era == 1
    it.tell = tell
    assert it.sync(2) == NotYet(Hold.RESTORING)
    assert it.told == [(1, 2)]


def test_void_ends_the_lease_and_what_is_on_its_way() -> None:
    it = Story().begun(0)
    late = it.send()
    it.holder.void()
    assert it.holder.until == -inf
    assert it.hear(late, 1) == NotYet(Hold.OUTDATED)
    assert it.book.applied == 0
    assert isinstance(it.sync(1), Granted)


# -- what is owed --

EVERYONE_AFTER_LOSS = revocation_after_rollback("d1", "r2")


@pytest.mark.parametrize(
    ("revoke_all", "owed"),
    [
        pytest.param(True, (lock(3), EVERYONE_AFTER_LOSS), id="revoke_all"),
        pytest.param(False, (lock(3),), id="continue"),
    ],
)
def test_after_a_rollback(revoke_all: bool, owed: tuple[Entry, ...]) -> None:
    it = Story(revoke_all=revoke_all).begun(3)
    it.sync(2, run="r2")
    it.sync(2, run="r2")
    assert it.holder.owed(()) == owed
    assert it.holder.owed([lock(1)]) == owed
    it.holder.restore()
    assert it.holder.owed(()) == ()


def test_everyone_is_revoked_once_whoever_does_it() -> None:
    it = Story().begun(3)
    it.sync(2, run="r2")
    done = (*entries(1, 2), Lock("l3", ALL, number=3), Lock(EVERYONE_AFTER_LOSS.id, ALL, number=4))
    it.sync(4, run="r2", log=done)
    assert it.holder.owed(()) == ()


def test_a_second_start_over_forgets_nothing_of_the_first() -> None:
    it = Story().begun(3)
    it.sync(2, run="r2")
    assert it.sync(1, data="d2") == StartOver(Why.LOST)
    assert it.sync(0, data="d2") == NotYet(Hold.RESTORING)
    owed = it.holder.owed(())
    assert {one.id for one in owed} >= {"l1", "l2", "l3"}
    assert owed[-1].id.startswith("rollback-")


def test_a_rollback_that_nobody_saw_shows_in_the_journal() -> None:
    it = Story()
    it.sync(2)
    everyone = revocation_after_rollback("d1", "r1")
    assert it.holder.owed([lock(1), lock(2)]) == ()
    assert it.holder.owed([lock(1), lock(7)]) == (lock(7), everyone)
    # What never came to have a number is not a sign of it.
    assert it.holder.owed([Lock("new", ALL)]) == (Lock("new", ALL),)


def test_what_was_trimmed_is_not_put_back() -> None:
    it = Story().begun(3)
    assert it.sync(9, first=6) == StartOver(Why.BEHIND)
    it.sync(9, first=6)
    assert it.holder.owed(()) == ()


def test_a_lock_that_was_lifted_is_not_put_back() -> None:
    it = Story().begun(0)
    shut, lifted = lock(1, until=1e9), Lift("l2", "l1", number=2)
    asks = lock(3, action=Action.REQUIRE_LOGIN)
    it.sync(3, log=(shut, lifted, asks))
    it.sync(0, data="d2")
    it.sync(0, data="d2")
    owed = it.holder.owed(())
    assert owed[:2] == (lifted, asks)


def test_revocation_after_rollback() -> None:
    one = revocation_after_rollback("d1", "r1")
    assert one.revokes and one.target == ALL and one == revocation_after_rollback("d1", "r1")
    others = [("d1", "r2"), ("d2", "r1"), ("d1r", "1"), ("d", "1r1")]
    assert len({one.id, *(revocation_after_rollback(*other).id for other in others)}) == 5
