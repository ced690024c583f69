"""What a worker may say of the log: only under a lease, and only when it has heard enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.words import ALICE, ISSUER, NOW, session
from tests.worlds.leased import Leased
from ztproxy.core.locks import ALL, Action, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.heard import Heard

USER = Target(TargetKind.USER, ALICE, ISSUER)
SID = Target(TargetKind.IDP_SESSION, "i-1", ISSUER)
MINE = session("dev", idp_session="i-1")


@pytest.fixture
def lease() -> Leased:
    return Leased()


@pytest.mark.parametrize(
    "asks",
    [
        pytest.param(lambda heard: heard.applied(), id="applied"),
        pytest.param(lambda heard: heard.check(MINE), id="check"),
        pytest.param(lambda heard: heard.revoked_at(MINE), id="revoked_at"),
    ],
)
def test_without_a_lease_nothing_is_said(lease: Leased, asks: Callable[[Heard], Any]) -> None:
    lease.lapse()
    with pytest.raises(WorldError) as failed:
        asks(Heard(lease))
    assert failed.value.reason is Reason.STATE_UNAVAILABLE


@pytest.mark.parametrize(
    ("target", "more", "revoked"),
    [
        pytest.param(USER, {}, True, id="the person"),
        pytest.param(SID, {}, True, id="the provider's session"),
        pytest.param(Target(TargetKind.SESSION, "s1"), {}, True, id="the session"),
        pytest.param(Target(TargetKind.GROUP, "dev"), {}, True, id="a group"),
        pytest.param(ALL, {}, True, id="all"),
        pytest.param(USER._replace(name="bob"), {}, False, id="somebody else"),
        pytest.param(USER._replace(issuer="https://b.test"), {}, False, id="a namesake"),
        pytest.param(USER, {"until": NOW + 60}, False, id="a lock with an end ends nothing for good"),
        pytest.param(USER, {"action": Action.REQUIRE_LOGIN}, False, id="a lock that asks"),
    ],
)
def test_what_was_revoked(lease: Leased, target: Target, more: dict[str, Any], revoked: bool) -> None:
    heard = Heard(lease)
    heard.check(MINE)
    lease.lock(target, **more)
    assert heard.revoked(MINE) is revoked
    if not revoked:
        heard.check(MINE)
        return
    with pytest.raises(ClientError) as refused:
        heard.check(MINE)
    assert refused.value.reason is Reason.LOGIN_REVOKED
    heard.check(session("dev", idp_session="i-1", as_of=1), 1)


def test_a_worker_that_has_not_heard_enough_does_not_say_it_stands(lease: Leased) -> None:
    heard = Heard(lease)
    with pytest.raises(WorldError):
        heard.check(MINE, 1)
    lease.lock(USER._replace(name="bob"))
    heard.check(MINE, 1)


@pytest.mark.parametrize(
    ("locks", "expected"),
    [
        pytest.param([], None, id="never"),
        pytest.param([(USER, 5.0)], 5.0, id="as a person"),
        pytest.param([(Target(TargetKind.GROUP, "dev"), 5.0)], 5.0, id="as one of a group"),
        pytest.param([(ALL, 5.0)], 5.0, id="as one of all"),
        pytest.param([(USER, 5.0), (ALL, 6.0)], 6.0, id="the newest"),
        pytest.param([(USER, 5.0), (SID, 6.0)], 5.0, id="the end of one provider's session does not count"),
        pytest.param([(Target(TargetKind.SESSION, "s1"), 5.0)], None, id="nor that of one of ours"),
        pytest.param([(Target(TargetKind.DEVICE, "d1"), 5.0)], None, id="nor that of a device"),
        pytest.param([(USER._replace(name="bob"), 5.0)], None, id="nor somebody else"),
    ],
)
def test_when_a_person_was_last_revoked(
    lease: Leased, locks: list[tuple[Target, float]], expected: float | None
) -> None:
    for target, made_at in locks:
        lease.lock(target, made_at=made_at)
    # Also for who has signed in since: that is what it is asked for.
    for as_of in (0, 9):
        asked = session("dev", idp_session="i-1", device="d1", as_of=as_of)
        assert Heard(lease).revoked_at(asked) == expected
