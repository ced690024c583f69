"""The proxies ztproxy is measured beside, all before the same upstream, on the same core in turn.

A module here is a peer. It has

    NAME: str                                           as the tables call it
    CHECKS: str                                         what it does on each request, in a few words
    def missing() -> str: ...                           empty, or how to install what it needs
    def running(place, upstream) -> AsyncContextManager[Peer]: ...

`running` yields once a request through it is answered rightly, and raises `CannotMeasure` if it never is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Upstream:
    """The app behind every proxy, as `bench.upstream` runs it.

    `port` answers all; `asserted` the same, but 500 to whatever comes without ztproxy's assertion. Paths, on
    both: `/` 1 KiB, `/100k`, `/10m`, `/upload` (reads a POST whole, 204), `/ws` (an echo), `/head` (the
    request's fields as JSON).
    """

    port: int
    asserted: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A running proxy. `tls` is 0 where it has no TLS port (HTTP/1.1 over TLS 1.3, a P-256 certificate for
    `localhost` and `app.localhost`). `headers` are what its client sends: a Host, and a cookie where somebody
    is signed in (`tls_headers` those for the TLS port). `pids` are all processes that work for it on its
    core. `asserts`: the app gets ztproxy's assertion, so it stands before `Upstream.asserted`.
    """

    name: str
    port: int
    pids: tuple[int, ...]
    tls: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    tls_headers: Mapping[str, str] = field(default_factory=dict)
    asserts: bool = False
