"""Everything gathered for one decision. What could not be had is evidence too.

Knows: what the witness may bring. Promises: `Unavailable` is a value the core reasons about, so failing
closed is a row of a table and not an `except` clause. Leaves the gathering to `gateway.witness`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ztproxy.core.device import NoDevice, NotAsked, OnDevice
from ztproxy.core.identity import Session
from ztproxy.core.locks import Lock
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A source did not answer in time; `reason` is a world reason such as `STATE_UNAVAILABLE`."""

    reason: Reason = Reason.STATE_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class NoSession:
    """There is no usable session, and why: nothing presented, unknown, expired."""

    reason: Reason = Reason.LOGIN_REQUIRED


DeviceEvidence = NotAsked | NoDevice | OnDevice | Unavailable
"""What is known of the device a request came from."""

NOT_ASKED = NotAsked()


class Evidence(NamedTuple):
    """What is known at the moment of deciding; `now` is seconds since the epoch, read once per request.

    `locks` are those that concern this session, or this route, at `now` (`LockBook.meeting`).
    """

    session: Session | NoSession | Unavailable
    now: float
    locks: tuple[Lock, ...] = ()
    device: DeviceEvidence = NOT_ASKED


class Facts(NamedTuple):
    """What a condition may ask. `reading` is one decoded reading of the path (see `Path`)."""

    request: Request
    reading: tuple[str, ...]
    session: Session | None
    now: float
    device: DeviceEvidence = NOT_ASKED
