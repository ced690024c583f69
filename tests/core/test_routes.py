"""What one route says of itself: its origin, its guarded policy, the ages at which facts stop counting."""

from __future__ import annotations

import pytest

from tests.core.words import APP, EVERYONE, ask, asked, policy, session, site
from ztproxy.core.conditions import HOLDS, AllOf, Ask, Needs
from ztproxy.core.device_conditions import Equals, PostureIs
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import Redirect, Sensitivity, StaticResponse


@pytest.mark.parametrize(
    ("more", "origin"),
    [
        pytest.param({}, "https://app.test", id="https"),
        pytest.param({"port": 8443}, "https://app.test:8443", id="https-other-port"),
        pytest.param({"scheme": "http", "port": 80}, "http://app.test", id="http"),
        pytest.param({"scheme": "http", "port": 443}, "http://app.test:443", id="http-on-443"),
    ],
)
def test_origin(more, origin) -> None:
    route = site(**more)
    assert route.origin == origin
    assert route.site(ask(host="app.test")) == origin


def test_site_of_a_wildcard_is_the_host_asked_for() -> None:
    route = site(host="*.apps.test", port=8443)
    assert route.site(ask(host="a.apps.test")) == "https://a.apps.test:8443"


def test_sensitivity_narrows_the_policy() -> None:
    guarded = site(EVERYONE, sensitivity=Sensitivity(rank=2)).guarded
    assert guarded.ask(asked(session(rank=1))) == Needs(Ask.STEP_UP, (Reason.STEP_UP_REQUIRED,), 2)
    assert guarded.ask(asked(session(rank=2))) == HOLDS
    for rank in (0, 1):
        open_to_all = site(EVERYONE, sensitivity=Sensitivity(rank=rank))
        assert open_to_all.guarded is open_to_all.policy


def test_a_route_is_itself_only() -> None:
    one, other = site(), site()
    assert one != other
    assert len({one, other, one}) == 2


def test_actions_hold_what_they_are_told() -> None:
    assert APP.preserve_host and not APP.upgrades and not APP.allow_missing_origin
    assert Redirect("/x") == Redirect("/x", 302, False)
    assert StaticResponse(200, "text/plain", b"x").body == b"x"


def test_a_route_knows_at_which_ages_facts_about_a_device_stop_counting() -> None:
    fact = PostureIs("disk_encrypted", Equals(True), 60.0)
    older = PostureIs("edr_running", Equals(True), 3600.0)
    assert site(policy(AllOf([fact, older]), deny=fact)).posture_limits == {60.0, 3600.0}
    assert site(EVERYONE).posture_limits == frozenset()
