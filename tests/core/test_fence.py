"""The fence: when a revocation may be called done, and on whose clock."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from ztproxy.core.fence import Again, Done, Fence, Generation, Verdict, Wait
from ztproxy.core.lease import Applied, Committed, Terms

L = 1.0
TERMS = Terms(L, failover=6.5)
AT = 100.0
LEASES, SETTLED = AT + 1.04, AT + 6.5
LONG = 1e6


def committed(*holders: str, settled: float = LONG, **more: Any) -> Committed:
    plain = {"number": 7, "run": "r1", "data": "d1", "copied": True}
    return Committed(**(plain | more), settled=settled, holders=frozenset(holders))


def said(run: str = "r1", data: str = "d1", **numbers: int) -> Applied:
    return Applied(run, data, numbers)


@pytest.mark.parametrize(
    ("commit", "applied", "now", "verdict"),
    [
        pytest.param(committed(), said(), AT, Done(True), id="nobody_has_a_lease"),
        pytest.param(committed("a", "b"), said(a=7, b=9), AT, Done(True), id="all_applied"),
        pytest.param(committed("a", "b"), said(a=7, b=6), AT, Wait(LEASES), id="one_has_not"),
        pytest.param(committed("a", "b"), said(a=7), AT, Wait(LEASES), id="one_says_nothing"),
        pytest.param(committed("a"), said(a=6, b=7), AT, Wait(LEASES), id="attack_somebody_else_has"),
        pytest.param(committed("a"), said(a=6), AT + 1.039, Wait(LEASES), id="not_yet_over"),
        pytest.param(committed("a"), said(a=6), LEASES, Done(True), id="its_lease_is_over"),
        pytest.param(committed("a"), None, LEASES + 9, Wait(LEASES), id="no_answer_settles_nothing"),
        pytest.param(committed("a", copied=False), said(a=7), AT, Done(False), id="not_copied"),
        pytest.param(committed("a", longest=2.0), said(), AT + 2.07, Wait(AT + 2.08), id="V22_longer_lease"),
        pytest.param(committed("a", longest=2.0), said(), AT + 2.08, Done(True), id="V22_longer_lease_over"),
        pytest.param(committed("a", longest=0.2), said(), AT + 0.5, Wait(LEASES), id="V22_shorter_lease"),
        # Another server, or other data: whatever they say, the entry may not be there.
        pytest.param(committed("a"), said("r2", a=9), LEASES, Again(), id="another_run"),
        pytest.param(committed("a"), said(data="d2", a=9), LEASES, Again(), id="other_data"),
        # Leases this log knows nothing of.
        pytest.param(committed(settled=6.0), said(), AT + 0.49, Wait(LEASES), id="just_taken_over"),
        pytest.param(committed(settled=6.0), said(), AT + 0.5, Done(True), id="settled"),
        pytest.param(committed("a", settled=6.0), said(a=7), AT, Wait(LEASES), id="applied_but_not_settled"),
        pytest.param(committed(settled=0.0), said(), AT + 6.49, Wait(SETTLED), id="taken_over_this_moment"),
        pytest.param(committed(settled=-3600.0), said(), SETTLED, Done(True), id="F7_clock_set_back"),
    ],
)
def test_verdict(commit: Committed, applied: Applied | None, now: float, verdict: Verdict) -> None:
    assert Fence.after(commit, AT, TERMS).verdict(applied, now) == verdict


def test_a_store_alone_settles_within_a_lease() -> None:
    fence = Fence.after(committed(settled=0.0), AT, Terms(L, durable=True))
    assert fence.verdict(said(), AT + 1.03) == Wait(LEASES)
    assert fence.verdict(said(), LEASES) == Done(True)
    assert Fence.after(committed(settled=0.0, longest=3.0), AT, Terms(L)).settles_at == AT + 3.12


@pytest.mark.parametrize(
    ("since", "settles_at"),
    [
        pytest.param(-inf, AT, id="never_saw_another"),
        pytest.param(AT - LONG, AT, id="saw_it_long_ago"),
        pytest.param(AT - 1.0, AT + 5.5, id="attack_the_stores_clock_was_set_forward"),
        pytest.param(AT, SETTLED, id="heard_of_it_by_this_very_commit"),
    ],
)
def test_who_saw_the_change_counts_for_themselves(since: float, settles_at: float) -> None:
    fence = Fence.after(committed(settled=LONG), AT, TERMS, Generation("r1", "d1", since))
    assert fence.settles_at == settles_at
    assert fence.ends_at == max(settles_at, LEASES)


def test_generation() -> None:
    first = Generation("r1", "d1")
    assert first.heard("r1", "d1", AT) is first
    assert first.heard("r2", "d1", AT) == Generation("r2", "d1", AT)
    assert first.heard("r1", "d2", AT) == Generation("r1", "d2", AT)
