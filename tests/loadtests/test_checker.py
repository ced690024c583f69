"""The history checker by hand-made histories: each kind of violation is seen, and nothing else is one."""

from __future__ import annotations

import pytest

from loadtests.history.checker import Event, Report, check, story

S, OTHER = "s1", "s2"


def signed_in(session: str = S, began: float = 0.0, *names: str) -> Event:
    return Event(
        "session", "", session, began, began + 1, "", names=frozenset(names or (f"session:{session}",))
    )


def asked(start: float, outcome: str = "allowed", worker: str = "w.1", session: str = S) -> Event:
    return Event("request", worker, session, start, start + 0.5, outcome)


def reached(start: float, session: str = S) -> Event:
    return Event("reached", "w.1", session, start, start + 0.2, "reached")


def piece(way: str, sent: float, session: str = S) -> Event:
    return Event(way, "w.1", session, sent, sent + 0.1, "relayed")


def revoked(
    start: float, end: float, name: str = f"session:{S}", outcome: str = "confirmed", id: str = "r1"
) -> Event:
    return Event("revoke", "", "", start, end, outcome, 1, id, frozenset((name,)))


def log(*ids: str) -> Event:
    return Event("log", "", "", 90, 91, "", names=frozenset(ids))


GOOD = signed_in(S, 0.0, f"session:{S}", "user:u1", "group:g1")


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="nothing_happened"),
        pytest.param([GOOD, asked(2), revoked(10, 11), log("r1")], id="let_in_before"),
        pytest.param([GOOD, revoked(10, 11), asked(10.9), reached(10.9)], id="begun_before_the_confirmation"),
        pytest.param([GOOD, revoked(10, 11), asked(11)], id="begun_at_the_confirmation"),
        pytest.param([GOOD, revoked(10, 11), asked(12, "revoked")], id="refused_after"),
        pytest.param([GOOD, revoked(10, 11), asked(12, "lost")], id="nobody_knows_what_became_of_it"),
        pytest.param([GOOD, revoked(10, 11), asked(12, "unavailable")], id="unavailable_after"),
        pytest.param([GOOD, revoked(10, 11), piece("down", 10.99)], id="sent_before_and_came_after"),
        pytest.param([GOOD, revoked(10, 11, outcome="unconfirmed"), asked(12)], id="nothing_was_promised"),
        pytest.param([GOOD, revoked(10, 11, outcome="failed"), piece("up", 12)], id="it_failed"),
        pytest.param([GOOD, revoked(10, 11, f"session:{OTHER}"), asked(12)], id="another_session"),
        pytest.param([GOOD, revoked(10, 11, "user:u2"), asked(12)], id="another_person"),
        pytest.param([signed_in(S, 10.5), revoked(10, 11), asked(12)], id="may_have_begun_after_the_lock"),
        pytest.param([signed_in(S, 12), revoked(10, 11, "all"), asked(14)], id="all_but_signed_in_since"),
        pytest.param([revoked(10, 11), log("r1", "r2")], id="in_the_log"),
        pytest.param([revoked(10, 11)], id="nobody_looked_into_the_log"),
        pytest.param([revoked(10, 11, outcome="unconfirmed"), log()], id="lost_and_never_confirmed"),
        pytest.param([revoked(10, 11, id=""), log()], id="a_lock_whose_id_is_not_known"),
        pytest.param([GOOD, asked(2, "revoked"), asked(2.4)], id="a_refusal_it_did_not_wait_for"),
        pytest.param([GOOD, asked(2, "revoked", "w.1"), asked(3, worker="w.2")], id="another_process"),
        pytest.param([GOOD, asked(2, "refused"), asked(3)], id="refused_for_something_else"),
        pytest.param([Event("well", "w.1", "", 0, 90, "allowed")], id="well_again"),
        pytest.param([Event("fault", "w.1", "", 0, 90, "killed")], id="a_fault"),
    ],
)
def test_clean_histories(events: list[Event]) -> None:
    assert check(events).violations == []
    assert check(events[::-1]).violations == []


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        pytest.param([asked(11.001)], ["stale_allow"], id="let_in_after"),
        pytest.param([reached(11.001)], ["stale_allow"], id="the_app_saw_it_and_the_client_got_no_answer"),
        pytest.param([asked(12), reached(12)], ["stale_allow"] * 2, id="both_saw_it"),
        pytest.param([piece("down", 11.001)], ["stale_octets"], id="to_the_client_after"),
        pytest.param([piece("up", 11.001)], ["stale_octets"], id="to_the_app_after"),
        pytest.param([log()], ["forgotten"], id="not_in_the_log"),
        pytest.param([log("r2")], ["forgotten"], id="only_others_in_the_log"),
        pytest.param([log("r1"), log()], ["forgotten"], id="not_in_the_log_any_more"),
    ],
)
@pytest.mark.parametrize("name", [f"session:{S}", "user:u1", "group:g1", "all"])
def test_violations(events: list[Event], kinds: list[str], name: str) -> None:
    history = [GOOD, signed_in(OTHER), asked(12, "revoked", session=OTHER), revoked(10, 11, name), *events]
    assert [violation.kind for violation in check(history).violations] == kinds


def test_a_violation_says_who_and_by_how_much() -> None:
    [found] = check([GOOD, revoked(10, 11), revoked(20, 21, "user:u1", id="r2"), asked(11.25)]).violations
    assert found._asdict() == {
        "kind": "stale_allow",
        "worker": "w.1",
        "session": S,
        "id": "r1",
        "at": 11.25,
        "late": 0.25,
        "how": "request",
    }


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        pytest.param([GOOD, asked(2, "revoked"), asked(2.6)], "resurrected", id="let_in_again"),
        pytest.param([GOOD, asked(2, "revoked"), reached(2.6)], "resurrected", id="reached_the_app_again"),
        pytest.param([signed_in(S, 3), revoked(4, 5), asked(6)], "stale_allow", id="a_late_sign_in"),
        pytest.param([Event("well", "w.1", "", 0, 90, "never")], "never_well", id="never_well_again"),
    ],
)
def test_others(events: list[Event], kind: str) -> None:
    assert [violation.kind for violation in check(events).violations] == [kind]


def test_the_first_of_two_revocations_counts_and_one_that_cannot_meet_it_does_not() -> None:
    late = signed_in(S, 10.5, "user:u1")
    history = [late, revoked(10, 11, "user:u1"), revoked(20, 21, "user:u1", id="r2")]
    assert check([*history, asked(15)]).violations == []
    assert [found.id for found in check([*history, asked(22)]).violations] == ["r2"]


def test_the_story_of_a_violation() -> None:
    fault, long_ago = (Event("fault", "w.1", "", at, at + 1, "killed") for at in (13, 1))
    told = [GOOD, revoked(10, 11, "user:u1", id="r1"), asked(12), fault, revoked(20, 21, id="r2")]
    others = [signed_in(OTHER), asked(12, session=OTHER), revoked(10, 11, "user:u2", id="r3"), long_ago]
    history = [*others, *reversed(told)]
    [found] = check(history).violations
    assert story(history, found) == told
    lost = [revoked(10, 11), revoked(10, 12, "user:u2", id="r3"), asked(12), log("r3")]
    [found] = check(lost).violations
    assert story(lost, found) == lost[:1]


def test_numbers() -> None:
    report = check(
        [
            GOOD,
            asked(2),
            asked(10.3),
            asked(3, "lost"),
            piece("up", 4),
            revoked(10, 10.5),
            revoked(30, 32, outcome="failed", id="r2"),
            Event("fault", "", "", 5, 6, "store_restarted"),
        ]
    )
    total = Report()
    total.add(report)
    total.add(check([GOOD, revoked(10, 12), asked(13)]))
    data = total.as_data()
    assert data.pop("first_violations")[0]["kind"] == "stale_allow"
    assert data == {
        "histories": 2,
        "events": 11,
        "sessions": 2,
        "requests": {"allowed": 3, "lost": 1},
        "stream_pieces": {"up": 1},
        "revocations": {"confirmed": 2, "failed": 1},
        "faults": {"store_restarted": 1},
        "confirmed_in_ms": {"p50": 2000.0, "p99": 2000.0, "max": 2000.0},
        "worst_exposure_before_confirmation_ms": 300.0,
        "violations": 1,
    }
    assert Report().as_data()["confirmed_in_ms"]["p99"] == 0.0
