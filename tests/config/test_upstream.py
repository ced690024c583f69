"""Where requests go: endpoints, time-outs, health and TLS."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import pytest

from tests.config.words import mistakes, route, site, the_forwarding, warnings
from ztproxy.core.upstream import Balance, Ejection, Endpoint, HealthCheck, Timeouts, Upstream, UpstreamTLS


def to(*targets: str, more: str = "") -> str:
    """A site whose route goes to `targets`, the first on line 6; `more` is the last line."""
    lines = "".join(f"      - {target}\n" for target in targets)
    head = "routes:\n  - from: https://app.test\n    to:\n"
    return site(routes=f"{head}{lines}    allow_any_authenticated_user: true\n    {more}")


def upstream(text: str) -> Upstream:
    return the_forwarding(text).upstream


def test_endpoints_share_by_weight() -> None:
    found = upstream(to("http://a.test:3000,10", "http://10.0.0.1", "http://[::1]:81"))
    assert found.endpoints == (Endpoint("a.test", 3000, 10), Endpoint("10.0.0.1", 80), Endpoint("::1", 81))
    assert found == Upstream(found.endpoints)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        pytest.param("timeout: 30s", "timeouts", Timeouts(total=30.0), id="total"),
        pytest.param("connect_timeout: 1s", "timeouts", Timeouts(connect=1.0), id="connect"),
        pytest.param("first_byte_timeout: off", "timeouts", Timeouts(first_byte=None), id="first-byte"),
        pytest.param("idle_timeout: 5m", "timeouts", Timeouts(idle=300.0), id="idle"),
        pytest.param("tunnel_idle_timeout: off", "timeouts", Timeouts(tunnel_idle=None), id="tunnel"),
        pytest.param(
            "load_balancing_policy: least_requests", "balance", Balance.LEAST_REQUESTS, id="balance"
        ),
        pytest.param("outlier_detection: off", "ejection", None, id="no-ejection"),
        pytest.param(
            "outlier_detection: {consecutive_failures: 3}", "ejection", Ejection(3, 5.0), id="ejection"
        ),
        pytest.param("health_check: {path: /up}", "health", HealthCheck("/up"), id="health"),
        pytest.param(
            "health_check: {path: /up, interval: 1s, timeout: 500ms, healthy_threshold: 2, unhealthy_threshold: 3, "
            "expected: 204}",
            "health",
            HealthCheck("/up", 1.0, 0.5, 2, 3, 204, 204),
            id="health-in-full",
        ),
        pytest.param("max_upstream_connections: 8", "max_connections", 8, id="connections"),
    ],
)
def test_a_key_of_the_upstream(line: str, field: str, value: object) -> None:
    assert getattr(upstream(route(line)), field) == value


def test_tls_is_verified_by_default() -> None:
    assert upstream(to("https://a.test")).tls == UpstreamTLS()
    assert upstream(to("http://a.test")).tls is None


def test_tls_by_the_operator() -> None:
    more = "tls_custom_ca_file: ca.pem\n    tls_server_name: in.test\n    tls_client_cert_file: c.pem\n"
    tls = upstream(to("https://a.test", more=more + "    tls_client_key_file: c.key")).tls
    assert tls == UpstreamTLS("/etc/ca.pem", "in.test", "/etc/c.pem", "/etc/c.key")


def test_no_verification_wears_its_danger() -> None:
    text = to("https://a.test", more="dangerous_tls_skip_verify: true")
    tls = upstream(text).tls
    assert tls is not None and tls.dangerous_no_verify
    assert warnings(text) == [
        "8: routes[0].dangerous_tls_skip_verify: anyone on the way can pose as this app"
    ]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        pytest.param(["http://a,0"], "6: routes[0].to[0]: `0` is not a weight, write it like `http://127.0.0.1:3000,10`", id="weight-zero"),
        pytest.param(["http://a,x"], "6: routes[0].to[0]: `x` is not a weight, write it like `http://127.0.0.1:3000,10`", id="weight-word"),
        pytest.param(["http://a/x"], "6: routes[0].to[0]: `http://a/x` goes on after the host, leave `/x` out and write `prefix_rewrite: /x`", id="path"),
        pytest.param(["h2c://a"], "6: routes[0].to[0]: `h2c://a`: apps are spoken to in HTTP/1.1, write `http://` or `https://`; WebSockets are `upgrades: [websocket]`", id="h2c"),
        pytest.param(["a:3000"], "6: routes[0].to[0]: `a:3000` does not start with `https://`, write it like `http://127.0.0.1:3000`", id="no-scheme"),
        pytest.param(["http://u:p@a"], "6: routes[0].to[0]: a login in a URL is not accepted, write it like `http://127.0.0.1:3000`", id="login"),
        pytest.param(["7"], "6: routes[0].to[0]: `7` is not text, write it like `http://127.0.0.1:3000`", id="number"),
        pytest.param(["http://a", "https://b"], "5: routes[0].to: some endpoints are `http`, some `https`, use one scheme for all", id="mixed"),
        pytest.param(["http://a", "http://A:80,3"], "5: routes[0].to: an endpoint is listed twice, give it a weight instead", id="twice"),
    ],
)  # fmt: skip
def test_a_wrong_target_is_told(targets: list[str], message: str) -> None:
    assert mistakes(to(*targets)) == [message]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("health_check: /up", "7: routes[0].health_check: `/up` is not a mapping, write `key: value` lines", id="health-path-alone"),
        pytest.param("health_check: {}", "7: routes[0].health_check: the key `path` is missing, add `path: ...`", id="health-without-path"),
        pytest.param("health_check: {path: /up, expected: 300-200}", "7: routes[0].health_check.expected: `300-200` is not a range of statuses, write it like `200-399`", id="statuses"),
        pytest.param("outlier_detection: {failures: 3}", "7: routes[0].outlier_detection.failures: unknown key `failures`, did you mean `consecutive_failures`?", id="outlier"),
        pytest.param("load_balancing_policy: random", "7: routes[0].load_balancing_policy: `random` is not known here, write one of `least_requests`, `round_robin`", id="balance"),
        pytest.param("tls_server_name: a.test", "7: routes[0].tls_server_name: the app is spoken to without TLS, write `to: https://...`", id="tls-for-http"),
        pytest.param("tls_skip_verify: true", "7: routes[0].tls_skip_verify: unknown key `tls_skip_verify`, write `dangerous_tls_skip_verify`, which says what it is", id="skip-verify"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told(line: str, message: str) -> None:
    assert mistakes(route(line)) == [message]


@pytest.mark.parametrize("key", ["tls_client_cert_file", "tls_client_key_file"])
def test_a_certificate_needs_its_key(key: str) -> None:
    assert mistakes(to("https://a.test", more=f"{key}: x")) == [
        f"8: routes[0].{key}: a certificate and its key belong together, write both `tls_client_cert_file` and "
        "`tls_client_key_file`"
    ]
