"""Devices of the inventory, and sessions that are bound to one, for a question about decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.config.words import device_policy, settings
from tests.core.words import NOW, person, session
from ztproxy.core.device import Device, NoDevice, OnDevice, Status
from ztproxy.core.evidence import NOT_ASKED
from ztproxy.core.reasons import Reason
from ztproxy.explaining import Question, answer, kind
from ztproxy.explaining.devices import of_inventory

SETTINGS = settings(device_policy("allow: {email: alice@example.com, device: {approved: true}}"))
ALICE = session(identity=person(email="alice@example.com"))
BOUND = replace(ALICE, certificate="t", device="L-1")


@pytest.mark.parametrize(
    ("status", "reason"), [(Status.LOST, Reason.DEVICE_LOST), (Status.RETIRED, Reason.DEVICE_RETIRED)]
)
def test_a_device_that_is_shut_out_is_none(status: Status, reason: Reason) -> None:
    assert of_inventory(SETTINGS, Device("L-1", status), None) == NoDevice(reason)


def test_nothing_is_known_without_a_device() -> None:
    assert of_inventory(SETTINGS, None, None) is NOT_ASKED
    assert of_inventory(SETTINGS, None, ALICE) is NOT_ASKED


def test_a_registered_certificate_speaks_for_its_device() -> None:
    found = of_inventory(SETTINGS, Device("L-1", certificates=frozenset({"b", "a"})), None)
    assert isinstance(found, OnDevice)
    assert (found.certificate.thumbprint, found.certificate.device) == ("a", "L-1")
    assert found.certificate.authority == "corp"


@pytest.mark.parametrize(
    ("device", "asks", "decision", "reason"),
    [
        pytest.param(Device("L-1", Status.APPROVED), BOUND, "forward", Reason.RULE_ALLOWED, id="its own"),
        pytest.param(
            Device("L-1", Status.APPROVED, certificates=frozenset({"other"})),
            BOUND,
            "forward",
            Reason.RULE_ALLOWED,
            id="its own, with a renewed certificate",
        ),
        pytest.param(Device("L-2", Status.APPROVED), BOUND, "login", Reason.DEVICE_MISMATCH, id="another"),
        pytest.param(None, BOUND, "deny", Reason.DEVICE_UNKNOWN, id="one that was forgotten"),
        pytest.param(Device("L-1"), BOUND, "deny", Reason.DEVICE_NOT_APPROVED, id="not approved"),
        pytest.param(
            Device("L-1", Status.APPROVED),
            ALICE,
            "login",
            Reason.DEVICE_UNBOUND,
            id="a session that is not bound",
        ),
    ],
)
def test_a_session(device: Device | None, asks: object, decision: str, reason: Reason) -> None:
    assert asks in (ALICE, BOUND)
    who = BOUND if asks == BOUND else ALICE
    on = of_inventory(SETTINGS, device, who)
    found = answer(SETTINGS, Question("https://app.test/", NOW, session=who, device=on)).decision
    assert (kind(found), found.reasons) == (decision, (reason,))
