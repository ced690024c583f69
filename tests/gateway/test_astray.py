"""Who comes with a session of another device is on record: once, with what is needed to follow it up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.words import ask, session
from tests.worlds.memory_state import SetClock
from ztproxy.core.audit import AuditEvent
from ztproxy.core.certificate import Certificate
from ztproxy.core.device import Device, NoDevice, OnDevice
from ztproxy.core.evidence import DeviceEvidence
from ztproxy.core.reasons import Reason
from ztproxy.gateway.astray import QUIET, Astray

ALICES = replace(session(), certificate="alices", device="laptop-1")
BOBS = Certificate("corp", "CN=CA", "CN=bob", 7, "bobs", "key", 0.0, 9e9, device="laptop-2")


@pytest.mark.parametrize(
    ("device", "shown", "more"),
    [
        pytest.param(
            OnDevice(BOBS, None, 9e9), "bobs", {"shown_device": "laptop-2"}, id="anothers-certificate"
        ),
        pytest.param(
            OnDevice(BOBS, Device("d-2"), 9e9), "bobs", {"shown_device": "d-2"}, id="a-known-device"
        ),
        pytest.param(
            NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED),
            "device_certificate_required",
            {},
            id="no-certificate",
        ),
    ],
)
def test_it_is_on_record_with_both_devices(device: DeviceEvidence, shown: str, more: dict[str, str]) -> None:
    events: list[AuditEvent] = []
    Astray(events.append, SetClock(1000.0))(ALICES, device, ask())
    [event] = events
    assert (event.actor, event.action, event.outcome) == ("ztproxy", "session.astray", "refused")
    assert event.target == ALICES.identity.subject
    expected = {"session": ALICES.id, "bound_to": "alices", "device": "laptop-1", "shown": shown, **more}
    assert expected.items() <= event.detail.items()


def test_the_same_thing_is_told_once_a_minute() -> None:
    events: list[AuditEvent] = []
    clock = SetClock(1000.0)
    astray = Astray(events.append, clock)
    bobs, none = OnDevice(BOBS, None, 9e9), NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED)
    for device in (bobs, bobs, none, bobs):
        astray(ALICES, device, ask())
    assert [event.detail["shown"] for event in events] == ["bobs", "device_certificate_required"]
    clock.now += QUIET
    astray(ALICES, bobs, ask())
    assert len(events) == 3
