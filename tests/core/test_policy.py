"""A policy as a table of (allow, deny) answers, its reasons, and what it refuses to be."""

from __future__ import annotations

from itertools import product

import pytest

from tests.core.words import ask, asked, session
from ztproxy.core.conditions import (
    HOLDS,
    LOGIN,
    Anyone,
    Ask,
    Authenticated,
    Condition,
    Fails,
    Holds,
    InGroup,
    MethodIs,
    Needs,
    Not,
    RankAtLeast,
    Source,
)
from ztproxy.core.policy import DENY_ALL, Effect, Policy, Rule
from ztproxy.core.reasons import Reason


def allow(condition: Condition, name: str = "", grant: Reason = Reason.RULE_ALLOWED) -> Rule:
    return Rule(Effect.ALLOW, condition, name, grant)


def deny(condition: Condition, name: str = "") -> Rule:
    return Rule(Effect.DENY, condition, name)


def group(name: str) -> InGroup:
    return InGroup(frozenset({name}))


YES, NO, WHO, STRONG = Anyone(), MethodIs(frozenset({"POST"})), group("admin"), RankAtLeast(2)
DENIED = Fails((Reason.RULE_DENIED,))
STEP_UP = Needs(Ask.STEP_UP, (Reason.STEP_UP_REQUIRED,), 2)
NOT_ALLOWED = Fails((Reason.METHOD_MISMATCH,))
WEAK = Not(STRONG)


@pytest.mark.parametrize(
    ("rules", "stranger", "admin"),
    [
        pytest.param([], *[Fails((Reason.NO_RULE_ALLOWS,))] * 2, id="no-rule-at-all"),
        pytest.param([deny(NO)], *[Fails((Reason.NO_RULE_ALLOWS,))] * 2, id="only-denials-allow-nothing"),
        pytest.param([allow(YES)], HOLDS, HOLDS, id="allow"),
        pytest.param([allow(NO)], NOT_ALLOWED, NOT_ALLOWED, id="allow-not-met"),
        pytest.param([allow(WHO)], LOGIN, HOLDS, id="allow-after-login"),
        pytest.param([allow(NO), allow(WHO)], LOGIN, HOLDS, id="any-allow-is-enough"),
        pytest.param([allow(YES), deny(YES)], DENIED, DENIED, id="deny-wins"),
        pytest.param([deny(YES), allow(YES)], DENIED, DENIED, id="deny-wins-in-any-order"),
        pytest.param([allow(YES), deny(NO)], HOLDS, HOLDS, id="deny-not-met"),
        pytest.param([allow(YES), deny(WHO)], LOGIN, DENIED, id="undecided-deny-asks-first"),
        pytest.param([allow(NO), deny(WHO)], NOT_ALLOWED, DENIED, id="no-login-where-nothing-allows"),
        pytest.param([allow(YES), deny(NO), deny(WHO)], LOGIN, DENIED, id="any-deny-is-enough"),
        pytest.param([allow(WHO), deny(WEAK)], LOGIN, STEP_UP, id="deny-the-weak-asks-for-more"),
        pytest.param([allow(STRONG), deny(YES)], DENIED, DENIED, id="no-step-up-where-it-is-denied"),
    ],
)
def test_verdict(rules, stranger, admin) -> None:
    policy = Policy(rules)
    assert policy.ask(asked(None)) == stranger
    assert policy.ask(asked(session("admin"))) == admin


def test_the_whole_table_of_four_answers() -> None:
    """For every pair of answers an allow rule and a deny rule can give, session at hand or not."""
    kinds: list[Condition] = [YES, NO, WHO, STRONG, WEAK]
    for permit, forbid, who in product(kinds, kinds, [None, session("admin"), session("x", rank=2)]):
        if WEAK is permit or STRONG is forbid:
            continue  # cannot be built, see below
        facts = asked(who)
        verdict = Policy([allow(permit), deny(forbid)]).ask(facts)
        permitted, forbidden = permit.ask(facts), forbid.ask(facts)
        if isinstance(forbidden, Holds) or isinstance(permitted, Fails):
            assert isinstance(verdict, Fails)
        elif isinstance(forbidden, Fails):
            assert verdict == permitted
        else:
            assert isinstance(verdict, Needs)  # an undecided denial never forwards


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([allow(WEAK)], id="allow-the-weak"),
        pytest.param([allow(YES), deny(STRONG)], id="deny-the-strong"),
        pytest.param([allow(YES), deny(Authenticated())], id="deny-everyone-signed-in"),
    ],
)
def test_a_sign_in_cannot_be_forbidden(rules) -> None:
    with pytest.raises(ValueError, match="can be asked for but not forbidden"):
        Policy(rules)


def test_reads_are_those_of_all_rules() -> None:
    assert Policy([allow(WHO), deny(NO)]).reads == {Source.SESSION, Source.METHOD}
    assert Policy([allow(YES)]).reads == frozenset()
    assert DENY_ALL.reads == frozenset()


def test_explain_shows_every_rule_in_the_order_written() -> None:
    rules = [allow(WHO, "admins"), deny(NO, "no posts"), allow(YES, "all")]
    assert Policy(rules).explain(asked(None)) == tuple(zip(rules, [LOGIN, NOT_ALLOWED, HOLDS], strict=True))


def test_grant_is_the_ground_of_the_first_rule_that_holds() -> None:
    mixed = Policy(
        [
            deny(NO),
            allow(WHO),
            allow(MethodIs(frozenset({"GET"})), grant=Reason.PUBLIC_ROUTE),
            allow(Authenticated(), grant=Reason.ANY_AUTHENTICATED),
        ]
    )
    assert mixed.grant(asked(session("admin"))) is Reason.RULE_ALLOWED
    # A rule that would hold after a login is no ground for what a stranger was given.
    assert mixed.grant(asked(None)) is Reason.PUBLIC_ROUTE
    assert mixed.grant(asked(session("x"), ask(method="HEAD"))) is Reason.ANY_AUTHENTICATED
    with pytest.raises(ValueError, match="no allow rule holds"):
        mixed.grant(asked(None, ask(method="HEAD")))


def test_grant_of_one_ground_is_known_without_asking() -> None:
    policy = Policy([allow(WHO, grant=Reason.PUBLIC_ROUTE), allow(YES, grant=Reason.PUBLIC_ROUTE)])
    assert policy.grant(asked(None)) is Reason.PUBLIC_ROUTE
