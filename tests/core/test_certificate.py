"""The values a certificate becomes: frozen, and empty of what it does not say."""

from __future__ import annotations

import dataclasses

import pytest

from tests.worlds.verifying import certificate
from ztproxy.core.certificate import Refused, Verified
from ztproxy.core.reasons import Reason


def test_what_a_certificate_does_not_say_is_empty() -> None:
    one = certificate("c1")
    assert (one.dns, one.emails, one.uris, one.spiffe, one.device) == ((), (), (), None, None)


@pytest.mark.parametrize(
    "value", [certificate("c1"), Verified(certificate("c1"), 1.0), Refused(Reason.DEVICE_CERTIFICATE_INVALID)]
)
def test_no_verdict_can_be_changed(value: object) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, None)  # type: ignore[arg-type]
