"""nginx with `auth_request` to ztproxy: what a decision beside the path of the request would cost."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from bench import machine
from bench.peers import Peer, Upstream
from bench.place import Place

NAME = "nginx auth_request"
CHECKS = "what ztproxy decides, asked for each request"


def missing() -> str:
    """What it needs is not something to install."""
    return "ztproxy offers no endpoint yet that nginx's `auth_request` could ask"


def running(place: Place, upstream: Upstream) -> AbstractAsyncContextManager[Peer]:
    """Raises `CannotMeasure`."""
    raise machine.CannotMeasure(missing())
