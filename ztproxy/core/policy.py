"""A route's policy: allow rules and deny rules. Deny wins, and silence denies.

Knows: how rules become one answer. The verdict is one expression, `AllOf(Not(any deny), any allow)`: it
*holds* (forward), *needs* (login, step-up) or *fails* (deny). Promises: a signal or condition inside it can
only narrow what an allow rule opened. Leaves to the caller: acting on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from ztproxy.core.conditions import AllOf, AnyOf, Condition, Fails, Holds, Not, Source, Truth, forbids_sign_in
from ztproxy.core.evidence import Facts
from ztproxy.core.reasons import Reason


class Effect(Enum):
    """What a rule does when its condition holds."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `name` is shown by `explain`; `grant` is the reason logged when it allows."""

    effect: Effect
    condition: Condition
    name: str = ""
    grant: Reason = Reason.RULE_ALLOWED


class Policy:
    """All rules of a route, compiled once. `reads` are the sources the verdict can depend on.

    Raises `ValueError` for rules that forbid a sign-in or its strength: whoever did what they ask is refused.
    """

    __slots__ = ("_allow", "_only_grant", "_verdict", "reads", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._allow = tuple(rule for rule in self.rules if rule.effect is Effect.ALLOW)
        grants = {rule.grant for rule in self._allow}
        self._only_grant = grants.pop() if len(grants) == 1 else None
        deny = [rule.condition for rule in self.rules if rule.effect is Effect.DENY]
        self._verdict: Condition | None = None
        if self._allow:
            permit = AnyOf([rule.condition for rule in self._allow])
            self._verdict = AllOf([Not(AnyOf(deny)), permit]) if deny else permit
            if forbids_sign_in(self._verdict):
                raise ValueError("a sign-in, or how strong it was, can be asked for but not forbidden")
        self.reads = self._verdict.reads if self._verdict is not None else frozenset[Source]()

    def ask(self, facts: Facts) -> Truth:
        """The verdict over one reading of the request. A policy is itself a condition."""
        return self._verdict.ask(facts) if self._verdict is not None else _NO_RULE_ALLOWS

    def explain(self, facts: Facts) -> tuple[tuple[Rule, Truth], ...]:
        """Every rule with its own answer, in the order written; for people, never for deciding."""
        return tuple((rule, rule.condition.ask(facts)) for rule in self.rules)

    def grant(self, facts: Facts) -> Reason:
        """On what ground a verdict that holds was given: the first allow rule that holds.

        To be asked after a verdict that holds, else `ValueError`. Where all rules give the same ground, as
        most policies do, nothing is evaluated again.
        """
        if self._only_grant is not None:
            return self._only_grant
        for rule in self._allow:
            if isinstance(rule.condition.ask(facts), Holds):
                return rule.grant
        raise ValueError("no allow rule holds")


_NO_RULE_ALLOWS = Fails((Reason.NO_RULE_ALLOWS,))
DENY_ALL = Policy(())
