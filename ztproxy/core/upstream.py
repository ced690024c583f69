"""Where a request may go: endpoints, their transport, time-outs and health, as plain values.

Knows: what an operator may say about an upstream. Promises: nothing here opens a socket. Leaves to `wire` the
pool that lives by it. Times are seconds; `None` means no limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Balance(Enum):
    """How the next endpoint is chosen; weights apply to both."""

    ROUND_ROBIN = "round_robin"
    LEAST_REQUESTS = "least_requests"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of an upstream: `host` is a name or an IP literal without brackets."""

    host: str
    port: int
    weight: int = 1

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpstreamTLS:
    """TLS to the upstream: verification is always on unless the dangerous switch says otherwise.

    `ca` is a PEM file (None: the system's). `server_name` replaces the endpoint's name for SNI and check.
    `certificate` and `key` are PEM files presented to the upstream.
    """

    ca: str | None = None
    server_name: str | None = None
    certificate: str | None = None
    key: str | None = None
    dangerous_no_verify: bool = False


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Per route, seconds. `first_byte` runs from the end of our request to the first byte of the answer;
    `idle` between two reads of an answer's body or of a tunnel; `total` for the whole exchange."""

    connect: float = 5.0
    first_byte: float | None = 60.0
    idle: float | None = 60.0
    total: float | None = None
    tunnel_idle: float | None = 3600.0


@dataclass(frozen=True, slots=True)
class Ejection:
    """Passive health: `failures` in a row put an endpoint aside for `seconds`, doubling up to 8 times it."""

    failures: int = 5
    seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Active health: GET `path` every `interval`; healthy means any status in `[low, high]`."""

    path: str
    interval: float = 5.0
    timeout: float = 2.0
    healthy_after: int = 1
    unhealthy_after: int = 2
    low: int = 200
    high: int = 399


@dataclass(frozen=True, slots=True)
class Upstream:
    """All a pool needs to know. `endpoints` is never empty."""

    endpoints: tuple[Endpoint, ...]
    tls: UpstreamTLS | None = None
    balance: Balance = Balance.ROUND_ROBIN
    timeouts: Timeouts = Timeouts()
    ejection: Ejection | None = Ejection()
    health: HealthCheck | None = None
    max_connections: int = 1024
    keep_alive: float = 60.0
