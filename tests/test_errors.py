"""Three families of errors by whose fault they are, and how they read."""

from __future__ import annotations

import pytest

from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, OperatorError, Place, WorldError, ZtproxyError

PLACE = Place("ztproxy.yaml", 12, "routes[0].from")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(ClientError(Reason.HTTP_HOST), "http_host", id="client-reason-alone"),
        pytest.param(ClientError(Reason.LOGIN_STATE, "state is missing"), "state is missing", id="client"),
        pytest.param(WorldError(Reason.STATE_UNAVAILABLE), "state_unavailable", id="world-reason-alone"),
        pytest.param(WorldError(Reason.UPSTREAM_TIMEOUT, "no byte in 60 s"), "no byte in 60 s", id="world"),
        pytest.param(OperatorError("`x` is no key"), "`x` is no key", id="operator"),
        pytest.param(
            OperatorError("`x` is no key", "write `y`"), "`x` is no key, write `y`", id="operator-mend"
        ),
        pytest.param(
            OperatorError("`ftp` is no scheme", "write `https`", PLACE),
            "ztproxy.yaml:12: routes[0].from: `ftp` is no scheme, write `https`",
            id="operator-place",
        ),
    ],
)
def test_message(error, text) -> None:
    assert str(error) == text
    assert isinstance(error, ZtproxyError)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        pytest.param(PLACE, "ztproxy.yaml:12: routes[0].from", id="all"),
        pytest.param(Place("a.yaml", 0, "x"), "a.yaml: x", id="no-line"),
        pytest.param(Place("a.yaml", 3, ""), "a.yaml:3", id="no-key"),
        pytest.param(Place("a.yaml", 0, ""), "a.yaml", id="file-alone"),
    ],
)
def test_place(place, text) -> None:
    assert str(place) == text


def test_parts_are_kept_for_machines() -> None:
    error = OperatorError("problem", "mend", PLACE)
    assert (error.problem, error.mend, error.place) == ("problem", "mend", PLACE)
    assert ClientError(Reason.LOGIN_STATE, "x").reason is Reason.LOGIN_STATE
    assert WorldError(Reason.UPSTREAM_BUSY, "x").reason is Reason.UPSTREAM_BUSY


def test_nobody_is_blamed_for_anothers_fault() -> None:
    for one, other in [(ClientError, OperatorError), (OperatorError, WorldError), (WorldError, ClientError)]:
        assert not issubclass(one, other) and not issubclass(other, one)
