"""Raw target and raw fields in, one canonical `Request` out, or the reason why not."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Path, Peer, Request


class RawHead(NamedTuple):
    """A request head that met the byte grammar (`wire.head`): nothing is decoded or interpreted yet.

    `minor` is the HTTP/1 minor version, 0 or 1. Values carry no surrounding whitespace.
    """

    method: bytes
    target: bytes
    minor: int
    fields: list[Field]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a listener reads requests. Built once from the configuration.

    `cookie` is our session cookie's name; `cookie_prefixes` are other cookie names of ours (a trailing `*`
    is implied) that must never reach an app. `managed` are further folded field names the routes set or
    remove. `underscores_dropped`: names with `_` are dropped instead of refused. `methods`: the union of the
    routes' methods. `trusted_proxies`: peers whose forwarding fields are believed.
    """

    secure: bool
    cookie: str
    cookie_prefixes: tuple[str, ...] = ("__Host-ztp", "__Secure-ztp")
    managed: frozenset[str] = frozenset()
    underscores_dropped: bool = False
    methods: frozenset[str] = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()


class Normaliser:
    """`read(head, peer)` for one listener. Pure: it remembers only how field names fold."""

    def __init__(self, reading: Reading) -> None:
        raise NotImplementedError

    def read(self, head: RawHead, peer: Peer) -> Request | Reason:
        raise NotImplementedError


def canonical_path(raw: bytes) -> Path | Reason:
    """The canonical form of a raw path (no query), or why it is refused."""
    raise NotImplementedError
