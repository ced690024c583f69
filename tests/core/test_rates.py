"""The arithmetic of rates: what is allowed over any stretch of time, and who counts as one sender."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztproxy.core.rates import By, Rate, RateLimit, Spent, source_of, spend

TEN = Rate(10, 1.0, 20)


def asked(rate: Rate, times: list[float]) -> list[Spent]:
    """One key, asked for at these moments."""
    until, answers = 0.0, []
    for now in times:
        answers.append(spend(rate, until, now))
        until = answers[-1].until
    return answers


@pytest.mark.parametrize("now", [0.0, 5.0, 1.3e7, 1.8e9], ids=["boot", "soon", "months", "since_the_epoch"])
@pytest.mark.parametrize(
    "rate",
    [
        pytest.param(TEN, id="10_a_second"),
        pytest.param(Rate(1, 1.0, 1), id="one_by_one"),
        pytest.param(Rate(3, 60.0, 7), id="three_a_minute"),
        pytest.param(Rate(1000, 3600.0, 1), id="1000_an_hour_and_no_burst"),
        pytest.param(Rate(7, 1.0, 333), id="an_interval_without_an_end"),
    ],
)
def test_the_burst_is_there_at_once_and_no_more(rate: Rate, now: float) -> None:
    answers = asked(rate, [now] * (rate.burst + 3))
    assert [one.allowed for one in answers] == [True] * rate.burst + [False] * 3
    assert [one.remaining for one in answers[: rate.burst]] == list(range(rate.burst))[::-1]
    assert [one.wait for one in answers[: rate.burst]] == [0.0] * rate.burst
    refusal = answers[-1]
    assert refusal.remaining == 0 and 0 < refusal.wait <= rate.interval * 1.01
    # Whoever waits as told is let in, once.
    again = asked(rate, [now] * rate.burst + [now + refusal.wait] * 2)[-2:]
    assert [one.allowed for one in again] == [True, False]


def test_a_refusal_changes_nothing() -> None:
    answers = asked(TEN, [7.0] * 21)
    assert not answers[-1].allowed and answers[-1].until == answers[-2].until
    assert asked(TEN, [7.0] * 20 + [7.01] * 500 + [7.1])[-1].allowed


def test_all_of_the_burst_is_earned_again_and_never_more() -> None:
    answers = asked(TEN, [1.0] * 20 + [1000.0] * 21)
    assert [one.allowed for one in answers] == [True] * 40 + [False]


@pytest.mark.parametrize(
    "back", [pytest.param(3600.0, id="an_hour"), pytest.param(0.5, id="a_bit"), pytest.param(1e9, id="years")]
)
def test_a_clock_that_goes_back_keeps_nobody_waiting(back: float) -> None:
    now = 2e9
    *_, spent = asked(TEN, [now] * 20)
    first = spend(TEN, spent.until, now - back)
    assert not first.allowed and first.wait <= TEN.interval * 1.01, "what was spent is not given twice"
    assert spend(TEN, first.until, now - back + first.wait).allowed


def test_a_burst_that_was_made_smaller_holds_at_once() -> None:
    wide, narrow = Rate(10, 1.0, 1000), Rate(10, 1.0, 5)
    *_, spent = asked(wide, [50.0] * 1000)
    refusal = spend(narrow, spent.until, 50.0)
    assert not refusal.allowed and refusal.wait == pytest.approx(0.1)


RATES = st.builds(
    Rate,
    most=st.integers(1, 5000),
    period=st.sampled_from([1.0, 60.0, 3600.0]),
    burst=st.integers(1, 300),
)
STEPS = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 3.0)), min_size=1, max_size=120)


@settings(max_examples=150, deadline=None)
@given(rate=RATES, steps=STEPS, begin=st.floats(0.0, 2e9))
def test_never_more_than_the_burst_and_what_was_earned(rate: Rate, steps: list[float], begin: float) -> None:
    """In any window, not only from the first on."""
    times, now = [], begin
    for step in steps:
        now += step * rate.interval
        times.append(now)
    allowed = [at for at, one in zip(times, asked(rate, times), strict=True) if one.allowed]
    assert allowed, "whoever comes first comes in"
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            earned = (allowed[last] - allowed[first]) / rate.interval
            roundings = 0.002 + len(allowed) * 5e-7 / rate.interval
            assert last - first + 1 <= rate.burst + earned + roundings


@settings(max_examples=100, deadline=None)
@given(rate=RATES, begin=st.floats(0.0, 1e6), count=st.integers(1, 200))
def test_whoever_keeps_to_the_rate_is_never_refused(rate: Rate, begin: float, count: int) -> None:
    assert all(one.allowed for one in asked(rate, [begin + n * rate.interval for n in range(count)]))


@pytest.mark.parametrize(
    ("address", "source"),
    [
        pytest.param("192.0.2.7", "192.0.2.7", id="IPv4"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="IPv6"),
        pytest.param("2001:DB8:1:2:ffff::1", "2001:db8:1:2::/64", id="the_same_customer"),
        pytest.param("2001:db8:1:3::1", "2001:db8:1:3::/64", id="the_next_customer"),
        pytest.param("::1", "::/64", id="loopback"),
        pytest.param("::ffff:192.0.2.7", "192.0.2.7", id="IPv4_in_IPv6"),
        pytest.param("::FFFF:c000:0207", "192.0.2.7", id="IPv4_in_IPv6_in_hex"),
        pytest.param("fe80::1%eth0", "fe80::/64", id="with_a_zone"),
        pytest.param("", "", id="a_unix_socket"),
        pytest.param("no:address", "no:address", id="rubbish_with_a_colon"),
        pytest.param("rubbish", "rubbish", id="rubbish"),
    ],
)
def test_who_counts_as_one_sender(address: str, source: str) -> None:
    assert source_of(address) == source


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param(RateLimit(By.ADDRESS, TEN), "address", id="in_process_unless_it_says_exact"),
        pytest.param(RateLimit(By.SESSION, TEN, True), "session", id="exact"),
    ],
)
def test_a_limit(given: Any, shown: str) -> None:
    assert given.by == shown and given.exact is (shown == "session") and given.rate.interval == 0.1
