"""Where a route's requests go: the `to` of a route and everything about it, into `core.upstream`.

Knows: Pomerium's spelling of a weight (`http://a:3000,10`). Promises: one scheme for all endpoints, no login,
path or query in an address. Leaves opening connections to `wire`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from ztproxy.config.mistakes import Loc, quoted, wrong
from ztproxy.config.model import Model
from ztproxy.config.paths import PathText
from ztproxy.config.values import Duration, Kind, Origin, Positive, origin_of, text_of
from ztproxy.core.upstream import Balance, Ejection, Endpoint, HealthCheck, Timeouts, Upstream, UpstreamTLS

if TYPE_CHECKING:
    from ztproxy.config.files import Files
    from ztproxy.config.route import RouteModel


class Target(NamedTuple):
    """One entry of `to`."""

    origin: Origin
    weight: int


def read_target(value: object) -> Target:
    example = "http://127.0.0.1:3000"
    url, comma, weight = text_of(value, example).partition(",")
    if comma and not re.fullmatch(r"[1-9][0-9]{0,4}", weight):
        raise wrong(f"{quoted(weight)} is not a weight", f"write it like `{example},10`")
    if url.startswith(("h2c://", "grpc://", "ws://", "wss://")):
        mend = "write `http://` or `https://`; WebSockets are `upgrades: [websocket]`"
        raise wrong(f"{quoted(value)}: apps are spoken to in HTTP/1.1", mend)
    rest = re.match(r"https?://[^/?#]*(/.+)\Z", url)
    if rest:
        mend = f"leave `{rest[1]}` out and write `prefix_rewrite: {rest[1]}`"
        raise wrong(f"{quoted(value)} goes on after the host", mend)
    return Target(origin_of(url, example), int(weight or 1))


def _statuses(value: object) -> tuple[int, int]:
    found = re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", str(value))
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if low > high:
        raise wrong(f"{quoted(value)} is not a range of statuses", "write it like `200-399`")
    return low, high


Statuses = Annotated[tuple[int, int], Kind(_statuses, type=["string", "integer"])]


class HealthCheckModel(Model):
    """Active health: GET `path` now and then; a status outside `expected` counts as ill."""

    path: PathText
    interval: Duration = 5.0
    timeout: Duration = 2.0
    healthy_threshold: Positive = 1
    unhealthy_threshold: Positive = 2
    expected: Statuses = (200, 399)


class OutlierModel(Model):
    """Passive health: an endpoint that fails this often in a row is put aside for a while."""

    consecutive_failures: Positive = 5
    base_ejection_time: Duration = 5.0


def compile_upstream(model: RouteModel, loc: Loc, files: Files) -> Upstream | None:
    """The upstream of a route with a `to`, or None after a mistake."""
    targets: Sequence[Target] = model.to or ()
    if not targets:
        return None
    schemes = {target.origin.scheme for target in targets}
    if len(schemes) > 1:
        files.findings.wrong(
            (*loc, "to"), "some endpoints are `http`, some `https`", "use one scheme for all"
        )
    endpoints = tuple(Endpoint(t.origin.host, t.origin.port, t.weight) for t in targets)
    if len({endpoint.authority for endpoint in endpoints}) < len(endpoints):
        files.findings.wrong((*loc, "to"), "an endpoint is listed twice", "give it a weight instead")
    return Upstream(
        endpoints,
        _tls(model, "https" in schemes, loc, files),
        Balance(model.load_balancing_policy),
        Timeouts(
            model.connect_timeout,
            model.first_byte_timeout,
            model.idle_timeout,
            model.timeout,
            model.tunnel_idle_timeout,
        ),
        _ejection(model.outlier_detection),
        _health(model.health_check),
        model.max_upstream_connections,
    )


def _ejection(model: OutlierModel | None) -> Ejection | None:
    return Ejection(model.consecutive_failures, model.base_ejection_time) if model is not None else None


def _health(model: HealthCheckModel | None) -> HealthCheck | None:
    if model is None:
        return None
    return HealthCheck(
        model.path,
        model.interval,
        model.timeout,
        model.healthy_threshold,
        model.unhealthy_threshold,
        *model.expected,
    )


TLS_KEYS = (
    "tls_custom_ca_file",
    "tls_server_name",
    "tls_client_cert_file",
    "tls_client_key_file",
    "dangerous_tls_skip_verify",
)


def _tls(model: RouteModel, https: bool, loc: Loc, files: Files) -> UpstreamTLS | None:
    if not https:
        for key in TLS_KEYS:
            if key in model.model_fields_set:
                files.findings.wrong(
                    (*loc, key), "the app is spoken to without TLS", "write `to: https://...`"
                )
        return None
    if (model.tls_client_cert_file is None) != (model.tls_client_key_file is None):
        there = "tls_client_cert_file" if model.tls_client_cert_file else "tls_client_key_file"
        mend = "write both `tls_client_cert_file` and `tls_client_key_file`"
        files.findings.wrong((*loc, there), "a certificate and its key belong together", mend)
    if model.dangerous_tls_skip_verify:
        files.findings.warn((*loc, "dangerous_tls_skip_verify"), "anyone on the way can pose as this app")

    def named(key: str, value: str | None, secret: bool = False) -> str | None:
        path: Path | None = files.named(value, (*loc, key), secret=secret) if value is not None else None
        return str(path) if path is not None else None

    return UpstreamTLS(
        named("tls_custom_ca_file", model.tls_custom_ca_file),
        model.tls_server_name,
        named("tls_client_cert_file", model.tls_client_cert_file),
        named("tls_client_key_file", model.tls_client_key_file, secret=True),
        model.dangerous_tls_skip_verify,
    )
