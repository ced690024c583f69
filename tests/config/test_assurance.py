"""Levels: their names, what a provider's words are worth, and how long a proof counts."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import pytest

from tests.config.words import mistakes, policy, settings, site, the_route
from ztproxy.core import conditions as core
from ztproxy.core.assurance import NAMES, Levels

SHORT = "levels: [low, high]"


@pytest.mark.parametrize(
    ("written", "levels"),
    [
        pytest.param("{}", Levels(), id="nothing-written"),
        pytest.param("{acr: {gold: multi_factor, silver: 1}}", Levels(acr={"gold": 2, "silver": 1}), id="acr-by-name"),
        pytest.param("{amr: {pwd+sms: 2, hwk: phishing_resistant}}", Levels(amr=((frozenset({"pwd", "sms"}), 2), (frozenset({"hwk"}), 3))), id="amr-by-name"),
        pytest.param("{remember: {phishing_resistant: 15m, 2: 1h}}", Levels(remember={3: 900.0, 2: 3600.0}), id="remember"),
        pytest.param("{levels: [a, b, c, d], acr: {x: d}}", Levels(acr={"x": 4}, names=("a", "b", "c", "d")), id="four-levels"),
        pytest.param(f"{{{SHORT}, acr: {{x: high}}, amr: {{y: low}}}}", Levels({"x": 2}, ((frozenset({"y"}), 1),), ("low", "high")), id="two-levels"),
    ],
)  # fmt: skip
def test_a_table_of_levels(written: str, levels: Levels) -> None:
    assert settings(site(f"assurance: {written}")).levels == levels


def test_what_is_strong_stays_strong_where_there_are_fewer_levels() -> None:
    levels = settings(site(f"assurance: {{{SHORT}}}")).levels
    assert [levels.rank("phr", []), levels.rank(None, ["hwk"]), levels.rank(None, ["pwd"])] == [2, 2, 1]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param("{levels: [one]}", f"levels: there are from 2 to 9 levels, write them with the lowest first, like `[{', '.join(NAMES)}]`", id="one-level"),
        pytest.param("{levels: {a: 1}}", f"levels: there are from 2 to 9 levels, write them with the lowest first, like `[{', '.join(NAMES)}]`", id="a-mapping"),
        pytest.param("{levels: [a, b, a]}", "levels: `a` could mean another level, give each a name of its own", id="one-name-twice"),
        pytest.param('{levels: [a, "1"]}', "levels: `1` could mean another level, give each a name of its own", id="a-number-as-name"),
        pytest.param("{acr: {x: gold}}", "acr.x: there is no level `gold`, write one of `multi_factor`, `password`, `phishing_resistant`", id="unknown"),
        pytest.param("{acr: {x: multifactor}}", "acr.x: there is no level `multifactor`, did you mean `multi_factor`?", id="misspelled"),
        pytest.param("{acr: {x: 0}}", "acr.x: `0` is too small, write `1` or more", id="zero"),
        pytest.param("{acr: {x: true}}", "acr.x: `true` is not text, write it like `multi_factor`", id="flag"),
        pytest.param("{amr: {x: 4}}", "amr.x: `4` is not a rank, write `1` to `3`, or a name of `assurance.levels`", id="too-high"),
        pytest.param("{levels: [a, b], acr: {x: 3}}", "acr.x: `3` is not a rank, write `1` to `2`, or a name of `assurance.levels`", id="higher-than-the-levels"),
        pytest.param("{remember: {password: 1h}}", "remember.password: every sign-in has this level as long as it lasts, remove it", id="remember-the-least"),
        pytest.param("{remember: {gold: 1h}}", "remember.gold: there is no level `gold`, write one of `multi_factor`, `password`, `phishing_resistant`", id="remember-nothing"),
        pytest.param("{remember: {2: 13h}}", "remember.2: this is longer than a session lives, write a time up to `session.absolute`", id="remember-for-ever"),
        pytest.param("{remember: {2: 1h, multi_factor: 2h}}", "remember.multi_factor: rank 2 is remembered twice, remove one of them", id="remember-twice"),
        pytest.param("{acr: {x: 2}, amr: {y: 2}, remember: {3: 1h}}", "remember.3: no sign-in reaches rank 3, the highest of `assurance` is 2", id="remember-the-unreachable"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told(written: str, message: str) -> None:
    (told,) = mistakes(site(f"assurance: {written}"))
    assert told == f"7: assurance.{message}"


@pytest.mark.parametrize(
    ("condition", "rank"),
    [
        pytest.param("{acr_rank: 2}", 2, id="number"),
        pytest.param("{acr_rank: phishing_resistant}", 3, id="name"),
        pytest.param("{acr: multi_factor}", 2, id="name-as-acr"),
        pytest.param("{acr: phr}", 3, id="acr"),
    ],
)
def test_a_policy_asks_for_a_level(condition: str, rank: int) -> None:
    (rule,) = the_route(policy(f"allow: {condition}")).policy.rules
    assert rule.condition == core.RankAtLeast(rank)


def test_an_acr_of_the_provider_goes_before_a_level_of_that_name() -> None:
    text = policy("allow: {acr: multi_factor}") + "assurance: {acr: {multi_factor: 3}}\n"
    (rule,) = the_route(text).policy.rules
    assert rule.condition == core.RankAtLeast(3)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        pytest.param("{acr_rank: strong}", "acr_rank: there is no level `strong`, write one of `multi_factor`, `password`, `phishing_resistant`", id="no-such-level"),
        pytest.param("{acr_rank: 0}", "acr_rank: `0` is too small, write `1` or more", id="zero"),
        pytest.param("{acr: phishing_resistant}", "acr: no sign-in reaches rank 3, the highest of `assurance` is 2", id="unreachable"),
    ],
)  # fmt: skip
def test_a_level_nobody_has_is_told(condition: str, message: str) -> None:
    text = policy(f"allow: {condition}") + "assurance: {acr: {x: 2}, amr: {y: 2}}\n"
    assert mistakes(text) == [f"7: routes[0].policy[0].allow.{message}"]
