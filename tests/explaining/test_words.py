"""Every condition has words of its own."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ztproxy.core import conditions as core
from ztproxy.core.policy import Effect, Policy, Rule
from ztproxy.explaining.words import either, say

A, B = core.InGroup(frozenset({"a"})), core.InGroup(frozenset({"b"}))


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        pytest.param(core.Anyone(), "everyone, signed in or not", id="public"),
        pytest.param(core.Authenticated(), "everyone who is signed in", id="authenticated"),
        pytest.param(core.UserIs(frozenset({"u"})), "user u", id="user"),
        pytest.param(core.EmailIs(frozenset({"a@b"})), "e-mail a@b", id="email"),
        pytest.param(core.FromNetwork((ip_network("10.0.0.0/8"),)), "from 10.0.0.0/8", id="network"),
        pytest.param(core.PathUnder(()), "path beneath /", id="everything"),
        pytest.param(core.AllOf([A, core.AnyOf([A, B])]), "group a and (group a or group b)", id="nested"),
        pytest.param(core.AnyOf([A, A]), "group a", id="said-once"),
        pytest.param(core.Not(core.AllOf([A, B])), "not (group a and group b)", id="not"),
        pytest.param(
            Policy([Rule(Effect.DENY, A), Rule(Effect.ALLOW, B)]), "deny group a; allow group b", id="policy"
        ),
    ],
)
def test_a_condition_in_words(condition: core.Condition, words: str) -> None:
    assert say(condition) == words


@pytest.mark.parametrize(
    ("words", "said"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_a_list_in_words(words: list[str], said: str) -> None:
    assert either(words) == said
