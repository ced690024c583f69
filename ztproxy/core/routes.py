"""Routes: a host and a path, what stands behind it, and the policy in front of it.

Knows: how a request finds its route. Promises: exactly one answer, the most specific one, or a reason why
there is none; the `Route` object found here is the one that is forwarded to (never looked up twice, the
lesson of Pomerium GHSA-pvrc-wvj2-f59p). Leaves to the caller: everything after the match.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import chain

from ztproxy.core.conditions import AllOf, Condition, RankAtLeast, ascii_lower, fold
from ztproxy.core.device_conditions import posture_limits
from ztproxy.core.policy import Policy
from ztproxy.core.rates import RateLimit
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity, Path, Request
from ztproxy.core.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How long a login may be relied on for a route. Seconds; `None` means the session's own limits alone.

    `verified_within`: the provider must have vouched for the person (login or refresh) this recently.
    `signed_in_within`: the person must have signed in this recently, refreshed or not.
    `rank`: the least acr rank, checked before any rule. `fresh`: the person showed who they are for this very
    session, at that rank, instead of being remembered by the provider.
    """

    name: str = "standard"
    verified_within: float | None = 3600.0
    signed_in_within: float | None = None
    rank: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    """Which services may come to a route with a credential of their own; the policy still decides.

    `issuers` are the names of token issuers, `audience` is what a token's `aud` must hold. A token needs all
    of `scopes`, and any of `roles` where there are some; with `token_within` it was issued at most so many
    seconds ago. `spiffe` are the SPIFFE IDs accepted from client certificates: exact, or a whole path beneath
    one with `/*` at the end. `people`: whether those with a session cookie may come too. `forward_token`: the
    app gets the token as well, with which it could go wherever the service may.
    """

    issuers: tuple[str, ...] = ()
    audience: str = ""
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    token_within: float | None = None
    spiffe: tuple[str, ...] = ()
    people: bool = True
    forward_token: bool = False


@dataclass(frozen=True, slots=True)
class SessionLimit:
    """At most `most` sessions of one person are used on the routes of `group`; one more ends the first."""

    group: str
    most: int


class IdentityPreset(Enum):
    """Families of plain identity headers that existing apps understand already; the value is the config's."""

    OAUTH2_PROXY = "oauth2-proxy"
    AUTHELIA = "authelia"
    POMERIUM = "pomerium"
    GRAFANA = "grafana"


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Proxy to an upstream. Field names in `set_*` and `remove_*` are lower-case bytes.

    `host`: None sends the upstream's authority, a string is sent as written; `preserve_host` sends the
    client's. `strip_prefix` removes the route's own prefix, `rewrite_prefix` (starting with `/`) replaces it.
    """

    upstream: Upstream
    preserve_host: bool = True
    host: str | None = None
    strip_prefix: bool = False
    rewrite_prefix: str | None = None
    set_request: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    remove_request: frozenset[bytes] = frozenset()
    set_response: tuple[tuple[bytes, bytes], ...] = ()
    remove_response: frozenset[bytes] = frozenset()
    max_body: int | None = 1024 * 1024 * 1024
    upgrades: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    allow_missing_origin: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with a redirect; `keep_path` appends the canonical path and query to `location`."""

    location: str
    status: int = 302
    keep_path: bool = False


@dataclass(frozen=True, slots=True)
class StaticResponse:
    """Answer with fixed bytes."""

    status: int
    content_type: str
    body: bytes


Action = Forwarding | Redirect | StaticResponse


@dataclass(frozen=True, slots=True)
class IdentityHeaders:
    """What the app is told about the person. The assertion is authoritative; plain headers are a courtesy.

    `audience` is the assertion's `aud`. `groups`: None passes all, else only those named.
    """

    audience: str
    assertion: bool = True
    presets: tuple[IdentityPreset, ...] = ()
    groups: frozenset[str] | None = None


@dataclass(frozen=True, eq=False)
class Route:
    """One route; two are the same only if they are one object, so caches may be keyed by it cheaply.

    `segments` is the prefix, decoded and without an empty end (`/a` and `/a/` are both `("a",)`), or with
    `exact` the whole path as a reading of it is written (`/a/` is `("a", "")`, `/` is `("",)` or `()`).
    `host` is lower-case; `*.example.com` matches exactly one more label. `origin` is how its users write it.
    `providers`: the names of the providers one may sign in with here; empty means all of them.
    `recheck` is after how many seconds what is still under way is judged again. `services` None: people only.
    `case_insensitive` is for apps that fold paths; the path conditions of its policy are then `folded` too.
    `rates` is how often it may be asked.
    """

    name: str
    host: str
    port: int
    scheme: str
    segments: tuple[str, ...]
    exact: bool
    action: Action
    policy: Policy
    identity: IdentityHeaders
    sensitivity: Sensitivity = Sensitivity()
    providers: tuple[str, ...] = ()
    tolerates: frozenset[Ambiguity] = frozenset()
    case_insensitive: bool = False
    methods: frozenset[str] = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
    cors_preflight: bool = False
    title: str = ""
    description: str = ""
    listed: bool = True
    recheck: float = 60.0
    session_limit: SessionLimit | None = None
    services: Services | None = None
    rates: tuple[RateLimit, ...] = ()

    @cached_property
    def posture_limits(self) -> frozenset[float]:
        """The ages, in seconds, at which facts about a device stop counting here."""
        return frozenset().union(*(posture_limits(rule.condition) for rule in self.policy.rules))

    @cached_property
    def guarded(self) -> Condition:
        """The policy, narrowed by the least assurance this route's sensitivity asks for; rank 1 is what every
        sign-in has, so up to there it asks for nothing and a public route stays public."""
        if self.sensitivity.rank <= 1:
            return self.policy
        return AllOf([self.policy, RankAtLeast(self.sensitivity.rank)])

    def site(self, request: Request) -> str:
        """The origin a browser shows for this request: the route's, with a wildcard's label filled in."""
        if not self.host.startswith("*."):
            return self.origin
        return self.origin.replace(self.host, request.host, 1)

    @cached_property
    def origin(self) -> str:
        default = 443 if self.scheme == "https" else 80
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")


class _Paths:
    """The routes of one host, in matching order, found by as many look-ups as a path has segments: how many
    there are does not matter."""

    __slots__ = ("_folded", "_lengths", "_literal", "routes")

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        # The place of the first route for an exact path (True) or for a prefix.
        self._literal: dict[tuple[bool, tuple[str, ...]], int] = {}
        self._folded: dict[tuple[bool, tuple[str, ...]], int] = {}
        for place, route in enumerate(routes):
            # `/` has one reading, of one empty segment; both ways to write the route mean it.
            segments = route.segments or ("",) if route.exact else route.segments
            if route.case_insensitive:
                self._folded.setdefault((route.exact, _fold_all(segments)), place)
            else:
                self._literal.setdefault((route.exact, segments), place)
        self._lengths = tuple(sorted({len(r.segments) for r in routes if not r.exact}, reverse=True))

    def first(self, reading: tuple[str, ...]) -> Route | None:
        """The route that one reading of a path leads to."""
        found = self._at(True, reading)
        if found is None:
            size = len(reading)
            for length in self._lengths:
                if length <= size and (found := self._at(False, reading[:length])) is not None:
                    break
        return None if found is None else self.routes[found]

    def _at(self, exact: bool, segments: tuple[str, ...]) -> int | None:
        found = self._literal.get((exact, segments))
        if not self._folded:
            return found
        folded = self._folded.get((exact, _fold_all(segments)))
        if found is None or folded is None:
            return folded if found is None else found
        return min(found, folded)


def _fold_all(segments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(fold, segments))


class RouteTable:
    """All routes, found by host and then by the longest path; at equal length an exact one goes first.

    Immutable after construction. `match` answers a `Route` or the `Reason` why there is none. Where a path
    has several readings, every one must lead to the same route, else the request is ambiguous and refused.
    """

    __slots__ = ("_by_host", "_wildcards", "routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        by_host: dict[str, list[Route]] = {}
        for route in self.routes:
            by_host.setdefault(route.host, []).append(route)
        ordered = {
            host: tuple(sorted(them, key=lambda r: (r.exact, len(r.segments)), reverse=True))
            for host, them in by_host.items()
        }
        self._by_host = {host: _Paths(them) for host, them in ordered.items() if not host.startswith("*.")}
        self._wildcards = {host[1:]: _Paths(them) for host, them in ordered.items() if host.startswith("*.")}

    def of_host(self, host: str) -> tuple[Route, ...]:
        """The routes of a canonical host, in matching order; empty for a host that is not ours. A host with
        routes of its own never falls back to a wildcard's."""
        paths = self._paths(host)
        return () if paths is None else paths.routes

    def _paths(self, host: str) -> _Paths | None:
        found = self._by_host.get(host)
        if found is None:
            dot = host.find(".")
            found = self._wildcards.get(host[dot:]) if dot > 0 else None
        return found

    def match(self, host: str, path: Path) -> Route | Reason:
        """The route of a canonical host and path, else NO_SUCH_HOST, NO_SUCH_ROUTE, or HTTP_PATH where the
        path could be read in more than one way and the route does not tolerate it."""
        paths = self._paths(host)
        if paths is None:
            return Reason.NO_SUCH_HOST
        chosen = paths.first(path.readings[0])
        for reading in path.readings[1:]:
            if paths.first(reading) is not chosen:
                return Reason.HTTP_PATH
        if chosen is None:
            return Reason.HTTP_PATH if path.ambiguities else Reason.NO_SUCH_ROUTE
        if not path.ambiguities <= chosen.tolerates:
            return Reason.HTTP_PATH
        # Case-insensitive apps disagree about letters outside ASCII (is the Kelvin sign a `k`, is `ß` `ss`?):
        # a path on which they could differ is ambiguous, and no rule can be written for it (T03).
        if chosen.case_insensitive and any(map(_folds_in_two_ways, chain(*path.readings))):
            return Reason.HTTP_PATH
        return chosen


def _folds_in_two_ways(text: str) -> bool:
    return fold(text) != ascii_lower(text)
