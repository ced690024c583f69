"""What a worker knows for a moment: never for longer, never for more than memory allows."""

from __future__ import annotations

import pytest

from tests.core.words import session
from ztproxy.gateway.known import KEPT, MAX_KNOWN, RELIED_ON, Known, KnownSessions


def known(read_at: float = 0.0, name: str = "s1") -> Known:
    return Known("handle", "app.test", session(), name, read_at, 0.0)


@pytest.mark.parametrize(
    ("age", "fresh"),
    [(0.0, True), (RELIED_ON - 0.001, True), (RELIED_ON, False), (RELIED_ON + 1, False)],
)
def test_a_fact_ends_at_its_moment(age: float, fresh: bool) -> None:
    sessions, one = KnownSessions(), known(10.0)
    sessions.learn("cookie", one)
    assert sessions.reliable("cookie", 10.0 + age) is (one if fresh else None)
    assert sessions.last("cookie") is one


def test_cookies_are_told_apart() -> None:
    sessions = KnownSessions()
    sessions.learn("cookie", known())
    for other in ("cooki", "cookie ", "COOKIE", ""):
        assert sessions.reliable(other, 0.0) is None and sessions.last(other) is None


def test_forgetting() -> None:
    sessions = KnownSessions()
    sessions.learn("a", known())
    sessions.forget("a")
    sessions.forget("never seen")
    assert sessions.last("a") is None and len(sessions) == 0


def test_forgetting_a_session_forgets_all_its_cookies_and_no_others() -> None:
    sessions = KnownSessions()
    for name in ("a", "b"):
        sessions.learn(name, known())
    stranger = known()
    stranger.session = session(identity=stranger.session.identity, created_at=1.0)
    object.__setattr__(stranger.session, "id", "s2")
    sessions.learn("c", stranger)
    sessions.forget_session("s1")
    assert [sessions.last(name) for name in "abc"] == [None, None, stranger]


def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    sessions = KnownSessions()
    sessions.learn("old", known(0.0))
    sessions.learn("used", known(0.0))
    sessions.learn("used", known(KEPT / 2))
    sessions.learn("new", known(KEPT))
    assert sessions.last("old") is None and sessions.last("used") and len(sessions) == 2


def test_the_oldest_goes_first_where_there_are_too_many() -> None:
    sessions, one = KnownSessions(), known(1.0)
    for number in range(MAX_KNOWN):
        sessions.learn(str(number), one)
    sessions.learn("0", one)  # read again: now the youngest
    sessions.learn("one more", one)
    assert len(sessions) == MAX_KNOWN
    assert sessions.last("1") is None and sessions.last("0") and sessions.last("one more")
