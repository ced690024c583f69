"""Whose a device is, and what one can be called."""

from __future__ import annotations

import pytest

from tests.core.words import ALICE, ISSUER, person
from ztproxy.core.device import DEVICE_ID, KNOWN_FACTS, Device, Status
from ztproxy.core.identity import Identity


@pytest.mark.parametrize(
    ("owner", "who", "theirs"),
    [
        pytest.param("alice@corp.test", person(email="alice@corp.test"), True, id="by-verified-e-mail"),
        pytest.param("alice@corp.test", person(email="Alice@Corp.Test"), True, id="e-mail-in-any-case"),
        pytest.param("alice@corp.test", person(email=None), False, id="an-e-mail-nobody-verified"),
        pytest.param("alice@corp.test", person(email="bob@corp.test"), False, id="anothers-e-mail"),
        pytest.param(ALICE, person(), True, id="by-subject"),
        pytest.param(f"{ISSUER}|{ALICE}", person(), True, id="by-qualified-subject"),
        pytest.param(f"{ISSUER}|{ALICE}", person(issuer="https://evil.test"), False, id="another-issuer"),
        pytest.param(
            f"{ISSUER}|{ALICE}",
            person(issuer="https://evil.test", subject=f"{ISSUER}|{ALICE}"),
            False,
            id="attack-a-subject-that-poses-as-a-qualified-one",
        ),
        pytest.param("tenant|bob", person(subject="tenant|bob"), True, id="a-subject-with-a-bar"),
    ],
)
def test_whose_it_is(owner: str, who: Identity, theirs: bool) -> None:
    assert Device("d1", owners=frozenset({owner, "somebody@else.test"})).belongs_to(who) is theirs


def test_a_device_without_owners_is_nobodys() -> None:
    assert not Device("d1").belongs_to(person(email="alice@corp.test"))


def test_a_new_device_waits_for_approval() -> None:
    assert Device("d1").status is Status.PENDING and not Device("d1").posture and KNOWN_FACTS


@pytest.mark.parametrize(
    ("text", "good"),
    [
        pytest.param("C02XK0AAJGH5", True, id="a-serial-number"),
        pytest.param("d4f2c6a0-1111-4a5b-9c3d-0123456789ab", True, id="a-uuid"),
        pytest.param("host.corp.test", True, id="a-host"),
        pytest.param("a", True, id="one-letter"),
        pytest.param("", False, id="nothing"),
        pytest.param("a" * 129, False, id="too-long"),
        pytest.param("-a", False, id="begins-with-a-dash"),
        pytest.param("a/b", False, id="a-slash"),
        pytest.param("a b", False, id="a-space"),
        pytest.param("a\x00b", False, id="attack-nul"),
        pytest.param("=cmd()", False, id="attack-formula"),
        pytest.param("а", False, id="attack-a-letter-of-another-script"),
    ],
)
def test_what_a_device_can_be_called(text: str, good: bool) -> None:
    assert (DEVICE_ID.fullmatch(text) is not None) is good
