"""What leaves us: the head the app receives, and what of its answer the client may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ztproxy.core.identity import Session
from ztproxy.core.request import Field, Request
from ztproxy.core.routes import Forwarding, Route


class OutboundRequest(NamedTuple):
    """A rebuilt request head, all but the Host, which may depend on the endpoint chosen.

    On the wire: `{method} {target} HTTP/1.1\\r\\nHost: {host or endpoint.authority}\\r\\n{block}\\r\\n`; `block`
    is complete field lines, each ending in CRLF, framing included.
    """

    method: bytes
    target: bytes
    host: bytes | None
    block: bytes


@dataclass(frozen=True, slots=True)
class ResponseSettings:
    """What a listener adds to or keeps from every answer of an app."""

    hsts: str | None
    cookie_prefixes: tuple[str, ...] = ("__Host-ztp", "__Secure-ztp")


def identity_block(route: Route, session: Session | None, assertion: str | None) -> bytes:
    """The identity field lines for the app (plain presets, then the assertion); cacheable per session and route."""
    raise NotImplementedError


def outbound_request(
    request: Request, route: Route, forwarding: Forwarding, request_id: str, identity: bytes
) -> OutboundRequest:
    raise NotImplementedError


class ResponseFilter:
    """Per route: `fields(...)` gives what of an app's answer goes to the client."""

    def __init__(self, route: Route, forwarding: Forwarding, settings: ResponseSettings) -> None:
        raise NotImplementedError

    def fields(self, fields: list[Field], *, authenticated: bool) -> list[Field]:
        raise NotImplementedError
