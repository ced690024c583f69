"""The lease and the fence over random schedules: nothing acknowledged is undone, and mistakes are caught.

`ZTPROXY_SCHEDULES` is how many of each kind to try (300); the world is `tests.worlds.lease_model`.
"""

from __future__ import annotations

import os

import pytest

from tests.worlds.lease_model import MUTANTS, World

SCHEDULES = int(os.environ.get("ZTPROXY_SCHEDULES", "300"))
ENOUGH = 400


@pytest.mark.parametrize("trouble", ["none", "restart", "failover", "lost", "rollback"])
def test_INV_1_4_5_over_random_schedules(trouble: str) -> None:
    acknowledged = 0
    for seed in range(SCHEDULES):
        world = World(seed, trouble)
        assert world.play() == [], f"World({seed}, {trouble!r})"
        acknowledged += world.acks
    assert acknowledged > 2 * SCHEDULES  # or nothing was promised, and nothing shown


@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_the_model_catches(mutant: str) -> None:
    trouble, rules = MUTANTS[mutant]
    assert any(World(seed, trouble, rules).play() for seed in range(ENOUGH)), "the checker is broken"


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(113, id="an_older_state_that_grew_again"),
        pytest.param(3019, id="an_older_state_that_grew_longer"),
        pytest.param(3702, id="an_older_state_with_the_same_entries_in_another_order"),
        pytest.param(5708, id="an_older_state_met_by_who_was_cut_off"),
    ],
)
def test_schedules_that_once_found_something(seed: int) -> None:
    assert World(seed, "rollback").play() == []
