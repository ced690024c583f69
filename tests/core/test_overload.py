"""The stages of overload: where each begins, where it is left, and that none of it flutters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.core.overload import Pressure, Stage, next_stage

CALM, FRUGAL, REFUSING, SHEDDING = Stage


@pytest.mark.parametrize(
    ("before", "memory", "descriptors", "after"),
    [
        pytest.param(CALM, 0.0, 0.0, CALM, id="nothing is used, or nothing has a limit"),
        pytest.param(CALM, 0.919, 0.899, CALM, id="nearly"),
        pytest.param(CALM, 0.92, 0.0, FRUGAL, id="memory at 92 % (FI40)"),
        pytest.param(CALM, 0.95, 0.0, REFUSING, id="memory at 95 % (FI40)"),
        pytest.param(CALM, 0.98, 0.0, SHEDDING, id="memory at 98 % (FI40)"),
        pytest.param(CALM, 0.0, 0.90, FRUGAL, id="descriptors at 90 %"),
        pytest.param(CALM, 0.0, 0.95, REFUSING, id="descriptors at 95 %"),
        pytest.param(CALM, 0.0, 0.98, SHEDDING, id="descriptors at 98 %"),
        pytest.param(CALM, 1.4, 0.0, SHEDDING, id="more than there is"),
        pytest.param(CALM, 0.93, 0.96, REFUSING, id="the worse of both"),
        pytest.param(FRUGAL, 0.99, 0.0, SHEDDING, id="up by two at once"),
        pytest.param(FRUGAL, 0.92, 0.0, FRUGAL, id="as it was"),
        pytest.param(FRUGAL, 0.90, 0.0, FRUGAL, id="a little less is not yet calm"),
        pytest.param(FRUGAL, 0.0, 0.88, FRUGAL, id="nor a little less of descriptors"),
        pytest.param(FRUGAL, 0.889, 0.869, CALM, id="clearly less of both"),
        pytest.param(SHEDDING, 0.96, 0.0, SHEDDING, id="shedding is left below 95 %"),
        pytest.param(SHEDDING, 0.949, 0.0, REFUSING, id="shedding is left"),
        pytest.param(SHEDDING, 0.0, 0.0, REFUSING, id="down by one, however calm"),
        pytest.param(REFUSING, 0.0, 0.0, FRUGAL, id="down by one more"),
        pytest.param(REFUSING, 0.94, 0.0, REFUSING, id="refusing is left below 92 %"),
        pytest.param(REFUSING, 0.919, 0.0, FRUGAL, id="refusing is left"),
    ],
)
def test_stages(before: Stage, memory: float, descriptors: float, after: Stage) -> None:
    assert next_stage(before, Pressure(memory, descriptors)) is after


def test_no_pressure_is_the_default() -> None:
    assert next_stage(CALM, Pressure()) is CALM


SHARES = st.floats(0.0, 1.5)
PRESSURES = st.builds(Pressure, SHARES, SHARES)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.lists(st.tuples(SHARES, SHARES), max_size=40))
def test_it_never_flutters(memory: float, descriptors: float, swings: list[tuple[float, float]]) -> None:
    """While the pressure swings by less than what lies between entering a stage and leaving it, whichever
    stages there are, no stage that was left is entered again."""
    stage, left = CALM, set[Stage]()
    for up, right in swings:
        swung = Pressure(memory + up % 0.029, descriptors + right % 0.029)
        after = next_stage(stage, swung)
        assert after not in left
        left |= {one for one in Stage if after < one <= stage}
        stage = after


@given(st.sampled_from(Stage), PRESSURES)
def test_up_at_once_and_down_by_one(stage: Stage, pressure: Pressure) -> None:
    asked = next_stage(CALM, pressure)
    after = next_stage(stage, pressure)
    assert after >= asked
    assert after >= stage - 1
    assert after <= max(stage, asked)


@given(st.sampled_from(Stage), PRESSURES)
def test_the_same_pressure_comes_to_rest(stage: Stage, pressure: Pressure) -> None:
    for _ in Stage:
        stage = next_stage(stage, pressure)
    assert next_stage(stage, pressure) is stage


@given(st.sampled_from(Stage), PRESSURES, SHARES, SHARES)
def test_more_pressure_never_eases(stage: Stage, pressure: Pressure, memory: float, more: float) -> None:
    worse = Pressure(pressure.memory + memory, pressure.descriptors + more)
    assert next_stage(stage, worse) >= next_stage(stage, pressure)
