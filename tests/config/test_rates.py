"""Rates as an operator writes them, everywhere they may stand, and what is said of every wrong one."""

from __future__ import annotations

import pytest

from tests.config.words import mistakes, route, settings, site, the_route
from ztproxy.config.settings import SIGN_INS, Limits
from ztproxy.core.rates import By, Rate, RateLimit


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        pytest.param("100/s", Rate(100, 1.0, 100), id="what_one_second_gives"),
        pytest.param("600/m", Rate(600, 60.0, 10), id="a_minute"),
        pytest.param("6000/m", Rate(6000, 60.0, 100), id="a_minute_and_more_than_ten_a_second"),
        pytest.param("1000/h", Rate(1000, 3600.0, 10), id="a_slow_one_has_a_burst_of_ten"),
        pytest.param("3/h", Rate(3, 3600.0, 3), id="no_more_at_once_than_in_all"),
        pytest.param("1/s", Rate(1, 1.0, 1), id="one"),
        pytest.param("1000000/s", Rate(1_000_000, 1.0, 1_000_000), id="the_most"),
        pytest.param("{rate: 100/s, burst: 200}", Rate(100, 1.0, 200), id="with_a_burst"),
        pytest.param("{rate: 100/s}", Rate(100, 1.0, 100), id="a_mapping_without_one"),
        pytest.param("{rate: 100/s, burst: 1}", Rate(100, 1.0, 1), id="the_smallest_burst"),
        pytest.param("${RATE}", Rate(7, 1.0, 7), id="from_outside"),
        pytest.param("{rate: '${RATE}', burst: '${BURST}'}", Rate(7, 1.0, 9), id="both_from_outside"),
        pytest.param("off", None, id="off"),
        pytest.param("false", None, id="false_is_off"),
    ],
)
@pytest.mark.parametrize("key", ["requests_per_address", "requests_per_session", "sign_ins_per_address"])
def test_a_rate_is_read(key: str, written: str, rate: Rate | None) -> None:
    found = settings(site("limits:", f"  {key}: {written}"), {"RATE": "7/s", "BURST": "9"})
    assert getattr(found.limits, key) == rate


def test_without_a_word_only_sign_ins_are_limited() -> None:
    limits = settings(site()).limits
    assert limits == Limits()
    assert (limits.requests_per_address, limits.requests_per_session, limits.memory) == (None, None, None)
    assert limits.sign_ins_per_address == SIGN_INS == Rate(20, 1.0, 200)


_LIKE = "write a number and a time, like `100/s`, `600/m` or `1000/h`"
_BURST = "write a number from `1` to `1000000`"


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        pytest.param("100", f"`100` is not a rate, {_LIKE}", id="no_time"),
        pytest.param("1.5", f"`1.5` is not a rate, {_LIKE}", id="a_bare_fraction"),
        pytest.param("100/d", f"`100/d` is not a rate, {_LIKE}", id="a_day"),
        pytest.param("100 / s", f"`100 / s` is not a rate, {_LIKE}", id="spaces"),
        pytest.param("-1/s", f"`-1/s` is not a rate, {_LIKE}", id="below_nothing"),
        pytest.param("1.5/s", f"`1.5/s` is not a rate, {_LIKE}", id="a_fraction"),
        pytest.param("1e3/s", f"`1e3/s` is not a rate, {_LIKE}", id="an_exponent"),
        pytest.param("'١/s'", f"`١/s` is not a rate, {_LIKE}", id="digits_of_another_script"),
        pytest.param(
            "0/s",
            "`0/s` is not a rate, write a number from `1` to `1000000`, or `off` where that is allowed",
            id="nothing",
        ),
        pytest.param("1000001/s", f"`1000001/s` is not a rate, {_BURST}", id="one_too_many"),
        pytest.param("true", "`true` is not a rate, " + _LIKE, id="on"),
        pytest.param("{rate: 1/s, burst: 0}", f"`0` is not a burst, {_BURST}", id="no_burst"),
        pytest.param("{rate: 1/s, burst: -1}", f"`-1` is not a burst, {_BURST}", id="a_burst_below_nothing"),
        pytest.param("{rate: 1/s, burst: 1000001}", f"`1000001` is not a burst, {_BURST}", id="a_huge_burst"),
        pytest.param("{rate: 1/s, burst: true}", f"`true` is not a burst, {_BURST}", id="a_flag_for_a_burst"),
        pytest.param("{rate: 1/s, burst: 10/s}", f"`10/s` is not a burst, {_BURST}", id="a_rate_for_a_burst"),
        pytest.param("{burst: 5}", "the key `rate` is missing, add `rate: ...`", id="a_burst_alone"),
        pytest.param("{rate: 1/s, bursts: 5}", "unknown key `bursts`, did you mean `burst`?", id="misspelt"),
        pytest.param("[1/s]", "a list is not a mapping, write `key: value` lines", id="a_list"),
    ],
)
def test_a_rate_is_refused(written: str, mistake: str) -> None:
    (one,) = mistakes(site("limits:", f"  requests_per_address: {written}"))
    place, _, said = one.partition(": limits.requests_per_address")
    assert place == "8" and said.partition(": ")[2] == mistake


@pytest.mark.parametrize(
    ("written", "memory"),
    [
        pytest.param("1GiB", 1024**3, id="one"),
        pytest.param("64MiB", 64 * 1024**2, id="the_least"),
    ],
)
def test_memory(written: str, memory: int) -> None:
    assert settings(site("limits:", f"  memory: {written}")).limits.memory == memory


def test_too_little_memory_to_start_with() -> None:
    (one,) = mistakes(site("limits:", "  memory: 64KiB"))
    assert one == "8: limits.memory: `64KiB` is too little, write `64MiB` or more"


TEN = Rate(10, 1.0, 20)


@pytest.mark.parametrize(
    ("written", "limits"),
    [
        pytest.param("{by: address, rate: 10/s, burst: 20}", [RateLimit(By.ADDRESS, TEN)], id="one_alone"),
        pytest.param(
            "[{by: session, rate: 10/s, burst: 20}, {by: route, rate: 5/s, exact: true}]",
            [RateLimit(By.SESSION, TEN), RateLimit(By.ROUTE, Rate(5, 1.0, 5), True)],
            id="two",
        ),
        pytest.param(
            "[{by: session, rate: 10/s}, {by: session, rate: 100/m}]",
            [RateLimit(By.SESSION, Rate(10, 1.0, 10)), RateLimit(By.SESSION, Rate(100, 60.0, 10))],
            id="two_rates_of_one_kind",
        ),
        pytest.param(
            "{by: route, rate: 10/s, burst: 20, exact: false}", [RateLimit(By.ROUTE, TEN)], id="said_aloud"
        ),
    ],
)
def test_a_routes_limits(written: str, limits: list[RateLimit]) -> None:
    assert list(the_route(route(f"rate_limits: {written}")).rates) == limits


def test_a_route_that_says_nothing_has_no_limit() -> None:
    assert the_route(site()).rates == ()


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        pytest.param("{rate: 10/s}", "the key `by` is missing, add `by: ...`", id="by_nothing"),
        pytest.param("10/s", "the key `by` is missing, add `by: ...`", id="a_bare_rate"),
        pytest.param(
            "{by: user, rate: 10/s}",
            "`user` is not known here, write one of `address`, `route`, `session`",
            id="by_what_there_is_not",
        ),
        pytest.param("{by: address}", "the key `rate` is missing, add `rate: ...`", id="no_rate"),
        pytest.param("{by: address, rate: 10}", f"`10` is not a rate, {_LIKE}", id="a_bare_number"),
        pytest.param("off", "the key `by` is missing, add `by: ...`", id="off"),
        pytest.param("[]", "the list is empty, write at least one entry or remove the key", id="none"),
        pytest.param(
            "[{by: route, rate: 10/s}, {by: route, rate: 10/s, burst: 3}]",
            "`route` has this very rate already, remove one, or change it",
            id="one_twice",
        ),
        pytest.param(
            "{by: route, rate: 10/s, exact: yes}",
            "`yes` is not a boolean, write `true` or `false`",
            id="an_old_true",
        ),
    ],
)
def test_a_routes_limit_that_is_refused(written: str, mistake: str) -> None:
    found = mistakes(route(f"rate_limits: {written}"))
    assert any(one.startswith("7: routes[0].rate_limits") and one.endswith(f": {mistake}") for one in found)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param("limits: {requests_per_address: 5/s}", id="by_address"),
        pytest.param("limits: {requests_per_session: 5/s}", id="by_session"),
        pytest.param("limits: {sign_ins_per_address: 5/s}", id="sign_ins"),
    ],
)
def test_a_flood_is_no_time_for_a_restart(changed: str) -> None:
    settings(site(changed)).takes_over_from(settings(site()))
