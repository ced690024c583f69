"""Evidence cannot be changed after it was gathered, and what is missing says why."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tests.core.words import NOW, ask, session
from ztproxy.core.evidence import Evidence, Facts, NoSession, Unavailable
from ztproxy.core.reasons import Reason


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        pytest.param(NoSession(), Reason.LOGIN_REQUIRED, id="nothing-presented"),
        pytest.param(NoSession(Reason.SESSION_UNKNOWN), Reason.SESSION_UNKNOWN, id="unknown"),
        pytest.param(Unavailable(), Reason.STATE_UNAVAILABLE, id="store-away"),
        pytest.param(
            Unavailable(Reason.PROVIDER_UNAVAILABLE), Reason.PROVIDER_UNAVAILABLE, id="provider-away"
        ),
    ],
)
def test_what_is_missing_says_why_and_stays_so(missing, reason) -> None:
    assert missing.reason is reason
    with pytest.raises(FrozenInstanceError):
        missing.reason = Reason.RULE_ALLOWED
    assert missing.reason is reason


def test_evidence_and_facts_are_frozen() -> None:
    evidence, facts = Evidence(session(), NOW), Facts(ask(), ("",), None, NOW)
    for value, field in ((evidence, "session"), (facts, "session")):
        with pytest.raises(AttributeError):
            setattr(value, field, session("admin"))
    assert evidence.session == session()
    assert facts.session is None


def test_unavailable_is_not_the_same_as_no_session() -> None:
    assert Unavailable(Reason.SESSION_EXPIRED) != NoSession(Reason.SESSION_EXPIRED)
