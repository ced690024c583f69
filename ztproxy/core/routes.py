"""A route: a host and a path, what stands behind it, and the policy in front of it.

Knows: everything one route was configured to be. Promises: frozen; one is the same only as itself. Leaves
finding the one a request is for to `core.route_table`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from ztproxy.core.conditions import AllOf, Condition, RankAtLeast
from ztproxy.core.device_conditions import posture_limits
from ztproxy.core.policy import Policy
from ztproxy.core.rates import RateLimit
from ztproxy.core.request import Ambiguity, Request
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
