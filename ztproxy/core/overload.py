"""Overload: what is given up first when memory or descriptors run out, and when it is given back.

Knows: the stages and what each of them gives up. Promises: a stage is entered at once and left one by one,
with room between, so that it does not flutter; what is let in already is never given up before what is not.
Leaves measuring to `adapters`, and acting on a stage to `wire`.

The time of the event loop is no pressure here, on purpose: refusing because of it makes clients come again,
with a handshake each, which costs more than what was refused (ADR 0014).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Stage(IntEnum):
    """Each gives up what those before it do, and more.

    `FRUGAL`: connections close after their answer, so that idle ones stop costing memory. `REFUSING`: a new
    request is answered 503 with `Retry-After`, and no body is read. `SHEDDING`: no new connection is let in,
    and idle ones are closed. What is under way goes on in all of them.
    """

    CALM = 0
    FRUGAL = 1
    REFUSING = 2
    SHEDDING = 3


class Pressure(NamedTuple):
    """What is used of what there is, as shares: 0.0 nothing, 1.0 all. What has no limit is 0."""

    memory: float = 0.0
    descriptors: float = 0.0


_FROM = (
    (Stage.SHEDDING, Pressure(0.98, 0.98)),
    (Stage.REFUSING, Pressure(0.95, 0.95)),
    (Stage.FRUGAL, Pressure(0.92, 0.90)),
)
_ROOM = 0.03
"""A stage is left when the pressure is this much below where it begins."""


def next_stage(stage: Stage, pressure: Pressure) -> Stage:
    """The stage after a look at the pressure: up as far as it asks, down by one at most."""
    asked = _stage_of(pressure)
    if asked >= stage:
        return asked
    eased = _stage_of(Pressure(pressure.memory + _ROOM, pressure.descriptors + _ROOM))
    return Stage(stage - 1) if eased < stage else stage


def _stage_of(pressure: Pressure) -> Stage:
    for stage, begins in _FROM:
        if pressure.memory >= begins.memory or pressure.descriptors >= begins.descriptors:
            return stage
    return Stage.CALM
