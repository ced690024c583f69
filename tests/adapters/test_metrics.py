"""What is counted shows after publishing: in one process, and added up over several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from ztproxy.adapters.metrics import BUCKETS, Metrics, clear_directory, forget_place, render

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def shown(source: Metrics | Path) -> Series:
    text, content_type = render(source)
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(series: Series, name: str, /, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def test_nothing_shows_before_it_is_published() -> None:
    metrics = Metrics()
    metrics.request("app", "forward", "rule_allowed", 200, 0.01)
    assert not any(name == "ztproxy_requests_total" for name, _ in shown(metrics))
    metrics.publish()
    labels = {"route": "app", "decision": "forward", "reason": "rule_allowed", "status": "2xx"}
    assert value(shown(metrics), "ztproxy_requests_total", **labels) == 1


def test_requests_are_added_up_over_publishings() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.request("app", "forward", "rule_allowed", 200, 0.01)
        metrics.request("app", "deny", "group_missing", 403, 0.001)
        metrics.publish()
        metrics.publish()
    series = shown(metrics)
    for decision, reason, status in [("forward", "rule_allowed", "2xx"), ("deny", "group_missing", "4xx")]:
        labels = {"route": "app", "decision": decision, "reason": reason, "status": status}
        assert value(series, "ztproxy_requests_total", **labels) == 3
    assert value(series, "ztproxy_request_seconds_count", route="app") == 6


@pytest.mark.parametrize(
    ("status", "shown_as"),
    [(101, "1xx"), (204, "2xx"), (302, "3xx"), (499, "4xx"), (503, "5xx"), (0, "none"), (999, "none")],
)
def test_status_is_shown_by_class(status: int, shown_as: str) -> None:
    metrics = Metrics()
    metrics.request("app", "forward", "ok", status, 0.01)
    metrics.publish()
    labels = {"route": "app", "decision": "forward", "reason": "ok", "status": shown_as}
    assert value(shown(metrics), "ztproxy_requests_total", **labels) == 1


def test_durations_fall_where_prometheus_client_would_put_them() -> None:
    seconds = [0.0, *BUCKETS, *(bound * 1.5 for bound in BUCKETS), 3600.0]
    registry = CollectorRegistry()
    reference = Histogram("reference", "As observed one by one", buckets=BUCKETS, registry=registry)
    metrics = Metrics()
    for number, duration in enumerate(seconds):
        reference.observe(duration)
        metrics.request("app", "forward", "ok", 200, duration)
        if number % 7 == 0:
            metrics.publish()
    metrics.publish()
    series = shown(metrics)
    for family in registry.collect():
        for sample in family.samples:
            name = sample.name.replace("reference", "ztproxy_request_seconds")
            assert value(series, name, route="app", **sample.labels) == pytest.approx(sample.value)


def test_the_other_counters() -> None:
    metrics = Metrics()
    metrics.refused("http_path")
    metrics.refused("http_path")
    metrics.login("corp", "ok")
    metrics.login("corp", "login_state")
    metrics.provider_error("corp", "provider_unavailable")
    metrics.upstream_failure("app", "upstream_timeout")
    metrics.config_reload("refused")
    metrics.log_dropped, metrics.connections_refused, metrics.connections_evicted = 5, 1, 2
    metrics.publish()
    metrics.log_dropped, metrics.connections_refused = 7, 11
    metrics.publish()
    series = shown(metrics)
    assert value(series, "ztproxy_http_refused_total", reason="http_path") == 2
    assert value(series, "ztproxy_logins_total", provider="corp", outcome="ok") == 1
    assert value(series, "ztproxy_logins_total", provider="corp", outcome="login_state") == 1
    assert value(series, "ztproxy_provider_errors_total", provider="corp", reason="provider_unavailable") == 1
    assert value(series, "ztproxy_upstream_failures_total", route="app", reason="upstream_timeout") == 1
    assert value(series, "ztproxy_config_reloads_total", outcome="refused") == 1
    assert value(series, "ztproxy_log_dropped_total") == 7
    assert value(series, "ztproxy_connections_refused_total") == 11
    assert value(series, "ztproxy_connections_evicted_total") == 2


def test_gauges_show_the_last_value() -> None:
    metrics = Metrics()
    metrics.connections, metrics.state_up = 9, False
    metrics.certificates = {"/tls/app.pem": 1795342272.0}
    metrics.overload_stage, metrics.memory_pressure = 2, 0.96
    metrics.descriptor_pressure, metrics.loop_late = 0.25, 0.004
    metrics.publish()
    metrics.connections = 4
    metrics.publish()
    series = shown(metrics)
    assert value(series, "ztproxy_connections") == 4
    assert value(series, "ztproxy_state_up") == 0
    assert value(series, "ztproxy_certificate_expiry_seconds", name="/tls/app.pem") == 1795342272
    assert value(series, "ztproxy_overload_stage") == 2
    assert value(series, "ztproxy_memory_pressure") == 0.96
    assert value(series, "ztproxy_descriptor_pressure") == 0.25
    assert value(series, "ztproxy_event_loop_lag_seconds") == 0.004


def test_every_series_is_ours_and_none_is_a_creation_time() -> None:
    metrics = Metrics()
    metrics.request("app", "forward", "ok", 200, 0.1)
    metrics.login("corp", "ok")
    metrics.publish()
    names = {name for name, _ in shown(metrics)}
    assert all(name.startswith("ztproxy_") and not name.endswith("_created") for name in names)


# Several processes

WORKER = """
import sys
from pathlib import Path
from ztproxy.adapters.metrics import Metrics, share_between_processes

directory, place, requests, state = sys.argv[1:]
share_between_processes(Path(directory), place)
metrics = Metrics()
for _ in range(int(requests)):
    metrics.request("app", "forward", "rule_allowed", 200, 0.02)
metrics.connections, metrics.state_up = int(requests), state == "up"
metrics.overload_stage, metrics.connections_evicted = int(state != "up"), int(requests)
metrics.publish()
"""

REQUESTS = {"route": "app", "decision": "forward", "reason": "rule_allowed", "status": "2xx"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    clear_directory(tmp_path / "metrics")
    return tmp_path / "metrics"


def work(directory: Path, place: str, requests: int, state: str = "up") -> None:
    subprocess.run([sys.executable, "-c", WORKER, str(directory), place, str(requests), state], check=True)


def test_workers_are_added_up(directory: Path) -> None:
    work(directory, "worker-0", 3)
    work(directory, "worker-1", 4, state="down")
    series = shown(directory)
    assert value(series, "ztproxy_requests_total", **REQUESTS) == 7
    assert value(series, "ztproxy_request_seconds_bucket", route="app", le="0.025") == 7
    assert value(series, "ztproxy_request_seconds_count", route="app") == 7
    assert value(series, "ztproxy_request_seconds_sum", route="app") == pytest.approx(0.14)
    assert value(series, "ztproxy_connections") == 7
    assert value(series, "ztproxy_state_up") == 0
    assert value(series, "ztproxy_overload_stage") == 1, "the worst of them"
    assert value(series, "ztproxy_connections_evicted_total") == 7


def test_a_worker_started_anew_goes_on_counting(directory: Path) -> None:
    work(directory, "worker-0", 3)
    work(directory, "worker-0", 4)
    series = shown(directory)
    assert value(series, "ztproxy_requests_total", **REQUESTS) == 7
    assert value(series, "ztproxy_connections") == 4


def test_of_a_worker_that_ended_the_counts_stay(directory: Path) -> None:
    work(directory, "worker-0", 3, state="down")
    work(directory, "worker-1", 4)
    forget_place(directory, "worker-0")
    series = shown(directory)
    assert value(series, "ztproxy_requests_total", **REQUESTS) == 7
    assert value(series, "ztproxy_connections") == 4
    assert value(series, "ztproxy_state_up") == 1


def test_the_run_before_is_forgotten(directory: Path) -> None:
    work(directory, "worker-0", 3)
    (directory / "README").write_text("not ours")
    clear_directory(directory)
    assert [file.name for file in directory.iterdir()] == ["README"]
    assert directory.stat().st_mode & 0o077 == 0
    assert shown(directory) == {}


def test_what_is_the_least_of_all_is_not_that_of_who_has_none(tmp_path: Path) -> None:
    """The supervisor and the administration hold no lease, and look like no worker that lost its own."""
    command = (
        "import sys; from pathlib import Path\n"
        "from ztproxy.adapters.metrics import Metrics, render, share_between_processes\n"
        "share_between_processes(Path(sys.argv[1]), sys.argv[2])\n"
        "metrics = Metrics()\n"
        "if sys.argv[2] == 'worker-0': metrics.lease_seconds, metrics.applied = 0.7, 12\n"
        "metrics.publish(); print(render(Path(sys.argv[1]))[0].decode())\n"
    )
    for place in ("worker-0", "supervisor"):
        said = subprocess.run(
            [sys.executable, "-c", command, str(tmp_path), place], capture_output=True, text=True
        )
    assert "ztproxy_lease_seconds 0.7\n" in said.stdout, said.stderr
    assert "ztproxy_lock_log_applied 12.0\n" in said.stdout
