"""What may be said about an upstream, and its safe defaults."""

from __future__ import annotations

import pytest

from ztproxy.core.upstream import (
    Balance,
    Ejection,
    Endpoint,
    HealthCheck,
    Timeouts,
    Upstream,
    UpstreamTLS,
)


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        pytest.param("app.internal", "app.internal:8080", id="name"),
        pytest.param("10.0.0.1", "10.0.0.1:8080", id="v4"),
        pytest.param("2001:db8::1", "[2001:db8::1]:8080", id="v6-in-brackets"),
    ],
)
def test_authority(host, authority) -> None:
    assert Endpoint(host, 8080).authority == authority


def test_defaults_are_safe() -> None:
    upstream = Upstream((Endpoint("a", 1),))
    assert upstream.balance is Balance.ROUND_ROBIN
    assert upstream.tls is None and not UpstreamTLS().dangerous_no_verify
    assert upstream.ejection == Ejection(5, 5.0)
    # Nothing waits for ever by default, but a long answer and a long tunnel may be long.
    times = upstream.timeouts
    assert times == Timeouts() and None not in (
        times.connect,
        times.first_byte,
        times.idle,
        times.tunnel_idle,
    )
    assert times.total is None


def test_health_is_any_success_or_redirect() -> None:
    check = HealthCheck("/health")
    assert (check.low, check.high) == (200, 399)


def test_balance_is_named_as_in_the_configuration() -> None:
    assert [Balance("round_robin"), Balance("least_requests")] == list(Balance)
