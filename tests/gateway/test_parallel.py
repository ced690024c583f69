from collections.abc import Mapping

import pytest

from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.gateway.parallel import (
    SIGN_IN_COOKIE,
    TICKET_COOKIE,
    cookie_name,
    cookie_value,
    make_room,
    new_secret,
    secret_in,
)

NOW = 1_000_000.0


def cookies(*ages: float) -> dict[str, str]:
    """One flow for each age in seconds, named by its place, among cookies that are none of ours."""
    flows = {f"{SIGN_IN_COOKIE}{place}": cookie_value("s", NOW - age) for place, age in enumerate(ages)}
    return {"__Host-ztproxy": "x", f"{TICKET_COOKIE}0": cookie_value("s", NOW), **flows}


@pytest.mark.parametrize(
    ("given", "by_hand", "cleared"),
    [
        pytest.param(cookies(), False, [], id="none"),
        pytest.param(cookies(1, 2, 3, 4), False, [], id="four_lately"),
        pytest.param(cookies(100, 1, 300, 2, 200), False, [2], id="the_oldest_of_five_gives_way"),
        pytest.param(cookies(1, 2, 3, 4, 60), False, [4], id="a_minute_is_no_longer_lately"),
        pytest.param(cookies(1, 2, 3, 4, 5), True, [4], id="by_hand"),
        pytest.param(cookies(*range(70, 80)), False, [9, 8, 7, 6, 5, 4], id="a_pile_is_cleared"),
    ],
)
def test_make_room(given: Mapping[str, str], by_hand: bool, cleared: list[int]) -> None:
    expected = tuple(f"{SIGN_IN_COOKIE}{place}" for place in cleared)
    assert make_room(SIGN_IN_COOKIE, given, NOW, by_hand) == expected


@pytest.mark.parametrize(
    "ages", [pytest.param((1, 2, 3, 4, 5), id="F22_sixth"), pytest.param((-9,) * 5, id="from_the_future")]
)
def test_F22_a_loop_stops(ages: tuple[float, ...]) -> None:
    with pytest.raises(ClientError) as stopped:
        make_room(SIGN_IN_COOKIE, cookies(*ages), NOW, by_hand=False)
    assert stopped.value.reason is Reason.LOGIN_TOO_MANY


@pytest.mark.parametrize("value", ["", "x", "-5.s", "٣.s", "9" * 13, ".", "1e9.s"])
def test_cookies_that_are_not_ours_go_first(value: str) -> None:
    given = {**cookies(70, 80, 90, 100), f"{SIGN_IN_COOKIE}odd": value}
    assert make_room(SIGN_IN_COOKIE, given, NOW, by_hand=False) == (f"{SIGN_IN_COOKIE}odd",)


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        pytest.param(cookie_value("abc", NOW), "abc", id="ours"),
        pytest.param(None, "", id="no_cookie"),
        pytest.param("abc", "", id="no_dot"),
    ],
)
def test_secret_in(value: str | None, secret: str) -> None:
    assert secret_in(value) == secret


def test_names_and_secrets() -> None:
    assert cookie_name(SIGN_IN_COOKIE, "0123456789abcdef") == "__Host-ztp_tx_01234567"
    assert new_secret(lambda size: b"\xff" * size) == "_" * 42 + "8"
