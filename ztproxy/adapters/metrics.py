"""Prometheus metrics: counted in plain containers, published once a second, added up over the workers.

Knows: the names, labels and buckets. Promises: counting one request costs well under a microsecond and no
lock. Leaves to its caller: `publish` each second, and label values from closed sets alone.

INVARIANT: every label value comes from the configuration (route, provider, certificate path) or from a closed
list (decision, reason, outcome). One value a client can choose would be one time series for each of its
choices.

Workers are processes: with `share_between_processes` each keeps its numbers in memory-mapped files of one
directory, under the name of its place (not its pid, so that a worker that starts anew goes on counting and a
crash loop leaves no litter), and `render` in any process adds them up. It must be called before the first
`Metrics`.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import prometheus_client.values as prometheus_values
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# Seconds: fine where a proxy's own work shows, coarse where an upstream's does.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_INFINITE = len(BUCKETS)
_SUM = _INFINITE + 1

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name for it
# A `_created` series beside each counter: twice the series, and nobody asked for one.
disable_created_metrics()  # type: ignore[no-untyped-call]

_CLASSES = {hundreds: f"{hundreds}xx" for hundreds in range(1, 6)}


def share_between_processes(directory: Path, place: str) -> None:
    """From here on this process keeps its metrics in `directory`, under `place`, which no other living
    process has."""
    os.environ[_DIRECTORY] = str(directory)
    prometheus_values.ValueClass = prometheus_values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def clear_directory(directory: Path) -> None:
    """For the supervisor, before anything else: makes the directory, and forgets the run before."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()


def forget_place(directory: Path, place: str) -> None:
    """The process at `place` has ended: its gauges go, its counts stay."""
    mark_process_dead(place, str(directory))  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one process. Methods only note; nothing shows before `publish`.

    The gauges are attributes to be set: `connections`, `state_up`, `certificates` (path to `notAfter`),
    `revocation_lists` (authority and issuer to `nextUpdate`),
    `lease_seconds` (left, 0 without one), `push_connected`, `applied` (the number of the last lock), `frozen`
    (exchanges that wait for a lease), `audit_queued`, `overload_stage` (0 calm to 3), `memory_pressure` and
    `descriptor_pressure` (shares of what there is) and `loop_late` (seconds); `log_dropped`, `cut`,
    `audit_failures`, `connections_refused` and `connections_evicted` are running totals.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.state_up = True
        self.log_dropped = 0
        # What is shown is the least of all processes, and not all of them are workers.
        self.lease_seconds = math.inf
        self.push_connected = True
        self.applied: float = math.inf
        self.frozen = 0
        self.cut = 0
        self.audit_failures = 0
        self.audit_queued = 0
        self.overload_stage = 0
        self.memory_pressure = self.descriptor_pressure = self.loop_late = 0.0
        self.connections_refused = 0
        self.connections_evicted = 0
        self.certificates: dict[str, float] = {}
        self.revocation_lists: dict[str, float] = {}
        self._requests: defaultdict[tuple[str, str, str, int], int] = defaultdict(int)
        self._seconds: defaultdict[str, list[float]] = defaultdict(_no_durations)
        self._events: defaultdict[tuple[Counter, tuple[str, ...]], int] = defaultdict(int)
        self._published: defaultdict[Counter, int] = defaultdict(int)
        self._revocations: defaultdict[str, list[float]] = defaultdict(_no_durations)
        self._children: dict[tuple[object, ...], Any] = {}

        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self._requests_total = counter(
            "ztproxy_requests_total", "Requests decided", "route", "decision", "reason", "status"
        )
        self._request_seconds = Histogram(
            "ztproxy_request_seconds",
            "From the head of a request to the end of its answer",
            ["route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._refused = counter("ztproxy_http_refused_total", "Requests refused by the wire policy", "reason")
        self._logins = counter("ztproxy_logins_total", "Sign-ins ended", "provider", "outcome")
        self._provider_errors = counter(
            "ztproxy_provider_errors_total", "Calls to identity providers failed", "provider", "reason"
        )
        self._upstream_failures = counter(
            "ztproxy_upstream_failures_total", "Exchanges with upstreams failed", "route", "reason"
        )
        self._reloads = counter("ztproxy_config_reloads_total", "Configuration reloads", "outcome")
        self._dropped = counter("ztproxy_log_dropped_total", "Log records dropped, the sink being too slow")
        self._cut_total = counter(
            "ztproxy_exchanges_cut_total", "Exchanges ended by a lock, a re-check or a lease that lapsed"
        )
        self._audit_failures = counter("ztproxy_audit_failures_total", "Audit records that were not written")
        self._refused_total = counter(
            "ztproxy_connections_refused_total", "Connections and handshakes refused, there being too many"
        )
        self._evicted_total = counter(
            "ztproxy_connections_evicted_total",
            "Connections and handshakes nothing was under way on, ended to make room",
        )
        self._revocation_seconds = Histogram(
            "ztproxy_revocation_seconds",
            "From a revocation to the moment it holds everywhere",
            ["outcome"],
            buckets=BUCKETS,
            registry=registry,
        )

        def gauge(name: str, text: str, mode: Literal["livesum", "livemin", "livemax"]) -> Gauge:
            return Gauge(name, text, multiprocess_mode=mode, registry=registry)

        self._connections = gauge("ztproxy_connections", "Open client connections", "livesum")
        self._state_up = gauge("ztproxy_state_up", "1 while every worker reaches the state store", "livemin")
        self._lease = gauge("ztproxy_lease_seconds", "What is left of the shortest lease", "livemin")
        self._push = gauge(
            "ztproxy_revocation_push_connected", "1 while every worker hears of locks at once", "livemin"
        )
        self._applied = gauge("ztproxy_lock_log_applied", "The last lock every worker has applied", "livemin")
        self._frozen = gauge("ztproxy_exchanges_frozen", "Exchanges that wait for a lease", "livesum")
        self._audit_queued = gauge("ztproxy_audit_queued", "Audit records yet to be written", "livesum")
        self._overload = gauge(
            "ztproxy_overload_stage",
            "0 calm, 1 frugal, 2 refusing, 3 shedding: that of the worst worker",
            "livemax",
        )
        self._memory = gauge(
            "ztproxy_memory_pressure", "Share of its memory that the fullest worker uses", "livemax"
        )
        self._descriptors = gauge(
            "ztproxy_descriptor_pressure", "Share of its descriptors that the fullest worker uses", "livemax"
        )
        self._late = gauge(
            "ztproxy_event_loop_lag_seconds", "How late the last tick of the latest worker came", "livemax"
        )
        self._expiry = Gauge(
            "ztproxy_certificate_expiry_seconds",
            "When a listener's certificate expires, in seconds since the epoch",
            ["name"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._list_expiry = Gauge(
            "ztproxy_device_crl_expiry_seconds",
            "When a list of revoked device certificates ends, in seconds since the epoch",
            ["name"],
            multiprocess_mode="livemin",
            registry=registry,
        )

    def request(self, route: str, decision: str, reason: str, status: int, seconds: float) -> None:
        """One exchange has ended. `reason` is the first of the decision's."""
        self._requests[route, decision, reason, status // 100] += 1
        durations = self._seconds[route]
        durations[bisect_left(BUCKETS, seconds)] += 1
        durations[_SUM] += seconds

    def refused(self, reason: str) -> None:
        self._events[self._refused, (reason,)] += 1

    def login(self, provider: str, outcome: str) -> None:
        """`outcome` is `ok` or a reason."""
        self._events[self._logins, (provider, outcome)] += 1

    def provider_error(self, provider: str, reason: str) -> None:
        self._events[self._provider_errors, (provider, reason)] += 1

    def upstream_failure(self, route: str, reason: str) -> None:
        self._events[self._upstream_failures, (route, reason)] += 1

    def revocation(self, outcome: str, seconds: float) -> None:
        """`outcome` is `confirmed`, `unconfirmed` or `failed`."""
        durations = self._revocations[outcome]
        durations[bisect_left(BUCKETS, seconds)] += 1
        durations[_SUM] += seconds

    def config_reload(self, outcome: str) -> None:
        """`outcome` is `ok` or `refused`."""
        self._events[self._reloads, (outcome,)] += 1

    def publish(self) -> None:
        """Moves what was noted since the last time into the metrics that `render` shows."""
        for (route, decision, reason, hundreds), count in self._requests.items():
            status = _CLASSES.get(hundreds, "none")  # 0: the client left before there was an answer
            self._child(self._requests_total, (route, decision, reason, status)).inc(count)
        self._requests.clear()
        for route, durations in self._seconds.items():
            _observe_many(self._child(self._request_seconds, (route,)), durations)
        self._seconds.clear()
        for (counter, labels), count in self._events.items():
            self._child(counter, labels).inc(count)
        self._events.clear()
        for outcome, durations in self._revocations.items():
            _observe_many(self._child(self._revocation_seconds, (outcome,)), durations)
        self._revocations.clear()
        for total, value in (
            (self._dropped, self.log_dropped),
            (self._cut_total, self.cut),
            (self._audit_failures, self.audit_failures),
            (self._refused_total, self.connections_refused),
            (self._evicted_total, self.connections_evicted),
        ):
            total.inc(value - self._published[total])
            self._published[total] = value
        self._connections.set(self.connections)
        self._state_up.set(self.state_up)
        self._lease.set(self.lease_seconds)
        self._push.set(self.push_connected)
        self._applied.set(self.applied)
        self._frozen.set(self.frozen)
        self._audit_queued.set(self.audit_queued)
        self._overload.set(self.overload_stage)
        self._memory.set(self.memory_pressure)
        self._descriptors.set(self.descriptor_pressure)
        self._late.set(self.loop_late)
        for name, not_after in self.certificates.items():
            self._child(self._expiry, (name,)).set(not_after)
        for name, until in self.revocation_lists.items():
            self._child(self._list_expiry, (name,)).set(until)

    def _child(self, metric: Counter | Gauge | Histogram, labels: tuple[str, ...]) -> Any:
        child = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return child


def render(source: Metrics | Path) -> tuple[bytes, str]:
    """The text for Prometheus and its content type: of one process, or of all that share a directory."""
    if isinstance(source, Metrics):
        return generate_latest(source.registry), CONTENT_TYPE_LATEST
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(source))  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _no_durations() -> list[float]:
    """A count for each bucket and for what exceeds them, then the sum of all."""
    return [0] * (_SUM + 1)


def _observe_many(histogram: Histogram, durations: list[float]) -> None:
    # prometheus_client has no way to observe many at once; `observe` does exactly this for one.
    for bucket, count in zip(histogram._buckets, durations[:_SUM], strict=True):
        if count:
            bucket.inc(count)
    histogram._sum.inc(durations[_SUM])
