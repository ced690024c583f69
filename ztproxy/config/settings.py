"""What a loaded configuration is: frozen values, ready to be used, for the composition root alone.

Knows: every setting and its default's meaning. Promises: what is here was checked; paths are absolute;
durations are seconds, sizes bytes; a secret shows nothing of itself unless `reveal` is called. The routes are
the core's own `RouteTable`, so what decides is exactly what was loaded. Leaves opening anything to `app`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from ztproxy.config.values import Address, Origin
from ztproxy.core.assurance import Levels
from ztproxy.core.claims import ClaimRules
from ztproxy.core.conditions import Condition
from ztproxy.core.device import FactType
from ztproxy.core.rates import Rate
from ztproxy.core.route_table import RouteTable
from ztproxy.core.sessions import SessionLimits
from ztproxy.errors import OperatorError


class Secret:
    """A value no log, page, repr or pickle may show."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(Secret)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not written down")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files of one certificate chain and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """A listener asks clients for a certificate that leads to one of `authorities` (names).

    `required`: whoever has none gets no connection, and so no page that says why. `hosts`: only connections
    made to one of these names (SNI, lower-case; `*.` stands for one label) are asked; None means all. A
    connection that names no host is always asked.
    """

    authorities: tuple[str, ...]
    required: bool = False
    hosts: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ListenerTLS:
    """`certificates` are chosen by SNI, the first one where no name fits. `min_version` is `1.2` or `1.3`."""

    certificates: tuple[CertificateFiles, ...]
    min_version: Literal["1.2", "1.3"] = "1.2"
    clients: ClientCertificates | None = None


@dataclass(frozen=True, slots=True)
class Listener:
    """Where clients connect. `redirect_to_https` answers everything with a redirect and serves nothing."""

    address: Address
    tls: ListenerTLS | None = None
    proxy_protocol: bool = False
    redirect_to_https: bool = False


@dataclass(frozen=True, slots=True)
class Cookie:
    """The session cookie. With a `domain` all hosts below it share one cookie."""

    name: str = "__Host-ztproxy"
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """One OpenID provider. `algorithm` is the only signature accepted on its ID tokens. `claims` judges what
    it says; its `keep` holds the claims named in the configuration and those that policies read.

    `endpoint_hosts` are where its endpoints may be besides the issuer's host; none: where they were first.
    `frontchannel_logout`: an image or frame with the right `iss` and `sid` may end a session; anybody who
    knows them can send it. `logout_exp_optional`: logout tokens of this provider may lack `exp`.
    `parameters` go with every authorization request. `asks_by` is how it wants to be asked for a stronger
    sign-in: OpenID Connect Core 3.1.2.1 `acr_values`, 5.5.1.1 the `claims` parameter, or both. `ca_file`
    is who vouches for its TLS (None: the system).
    """

    name: str
    title: str
    client_secret: Secret | None
    token_auth: Literal["client_secret_basic", "client_secret_post", "none"]
    claims: ClaimRules
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    algorithm: str = "RS256"
    endpoint_hosts: frozenset[str] = frozenset()
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    userinfo: bool = False
    asks_by: Literal["acr_values", "claims", "both"] = "acr_values"
    frontchannel_logout: bool = False
    logout_exp_optional: bool = False
    ca_file: Path | None = None
    dangerous_allow_http: bool = False

    @property
    def issuer(self) -> str:
        return self.claims.issuer

    @property
    def client_id(self) -> str:
        return self.claims.client_id


SIGN_INS = Rate(20, 1.0, 200)
"""An office behind one address at nine in the morning, and no more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a client may cost; the names and defaults are those of `wire.limits.Limits`, which this
    ring may not import. Times in seconds, sizes in bytes.

    `requests_per_address` counts what comes from one sender (`core.rates.source_of`) before anything else is
    done for it, `requests_per_session` what is forwarded for one session; both in each worker.
    `sign_ins_per_address` counts sign-ins begun. `memory` is what one worker may use, besides the limit of
    its cgroup, where there is one: the tighter of the two counts.
    """

    connections: int = 16_384
    connections_per_address: int = 1_024
    first_byte: float = 10.0
    head_time: float = 10.0
    keep_alive: float = 75.0
    body_stall: float = 30.0
    body_rate: int = 1_024
    write_stall: float = 60.0
    requests_per_address: Rate | None = None
    requests_per_session: Rate | None = None
    sign_ins_per_address: Rate | None = SIGN_INS
    memory: int | None = None

    @property
    def built_on(self) -> Limits:
        """Without the rates: those are counted by each configuration anew, and a flood is no time for a
        restart."""
        return replace(self, requests_per_address=None, requests_per_session=None, sign_ins_per_address=None)


@dataclass(frozen=True, slots=True)
class Log:
    """Where the logs go: `stdout`, a file, or None for nowhere. `audit` is always a file: what administrators
    did, hash-chained."""

    access: str | Path | None = "stdout"
    decisions: str | Path | None = "stdout"
    audit: Path = Path("audit.log")


@dataclass(frozen=True, slots=True)
class Revocation:
    """How revocations reach everyone; seconds. `lease` bounds how long anyone may go on without hearing of
    one.

    `expected_replicas`: how many copies a revocation must have before it is acknowledged (Sentinel).
    `trust_durability`: the operator vouches that the store loses nothing, where it does not let us look.
    `quarantine`: how long nobody is let in after the store came back without its data, so that what the nodes
    remember is in it again. `on_rollback`: whether sessions of an older copy of the store are all ended.
    """

    lease: float = 0.8
    quarantine: float = 1.0
    expected_replicas: int = 0
    trust_durability: bool = False
    on_rollback: Literal["revoke_all", "continue"] = "revoke_all"
    stream_grace: float = 10.0


@dataclass(frozen=True, slots=True)
class OCSP:
    """Ask `url` about each certificate of an authority. `deadline` is for one answer; one without an end of
    its own counts for `keep`, seconds both. With `dangerous_allow_unchecked` a responder that is away or
    silent lets certificates in that may be revoked."""

    url: str
    deadline: float = 2.0
    keep: float = 300.0
    dangerous_allow_unchecked: bool = False


@dataclass(frozen=True, slots=True)
class DeviceName:
    """Where an authority writes the id of a device: which field, and its text around the id.

    `template` holds one `{id}` (`spiffe://corp.test/device/{id}`); the whole text must fit it.
    """

    source: Literal["san_uri", "san_dns", "san_email", "common_name", "serial_number"]
    template: str = "{id}"


@dataclass(frozen=True, slots=True)
class Authority:
    """Who may vouch for client certificates. `ca` is a PEM file of one or more trust anchors, `crl` a file of
    one or more revocation lists, PEM or DER.

    `device` None: a device is found by the certificate it is registered with. `trust_domain` is the only one
    whose SPIFFE IDs count. `allow_any_usage` accepts certificates without an extended key usage, or with
    anyExtendedKeyUsage.
    """

    name: str
    ca: Path
    crl: Path | None = None
    ocsp: OCSP | None = None
    device: DeviceName | None = None
    trust_domain: str | None = None
    allow_any_usage: bool = False


FrontFormat = Literal["client-cert", "xfcc", "nginx", "traefik", "aws-alb"]
"""How a trusted proxy that ends TLS passes the client's certificate on (`core.front_certificates`)."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """ztproxy's own device certificates: who may enrol a device, whose is approved at once, and at what rank
    they must have signed in. `lifetime` is in seconds; `most_per_person` counts devices that are not
    retired."""

    authority: CertificateFiles
    trust_domain: str
    may: Condition
    approved: Condition | None = None
    rank: int = 2
    lifetime: float = 7 * 86400.0
    most_per_person: int = 5


@dataclass(frozen=True, slots=True)
class Devices:
    """Client certificates and the inventory behind them.

    `fronts`: the form in which `trusted_proxies` pass certificates on; None: nobody does. `facts` are posture
    names of the operator's own, with the type of their values. `compliance` is a named set of conditions for
    `compliant:`; it is compiled into policies already. `enrolment` None: devices bring certificates of their
    own PKI.
    """

    authorities: tuple[Authority, ...]
    fronts: FrontFormat | None = None
    facts: Mapping[str, FactType] = field(default_factory=lambda: MappingProxyType({}))
    enrolment: Enrolment | None = None


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """An issuer of bearer tokens for services. Its keys are pinned: `jwks` is a file, `jwks_url` is asked
    (within `ca_file`'s trust), and where both are None the metadata of `issuer` says where.

    `types` are the values of `typ` that a token may have, lower-case; empty: any but that of another kind of
    token. `groups_claim` holds the roles. `skew` is seconds.
    """

    name: str
    issuer: str
    algorithms: tuple[str, ...] = ("RS256",)
    jwks: Path | None = None
    jwks_url: str | None = None
    ca_file: Path | None = None
    types: frozenset[str] = frozenset({"at+jwt", "jwt"})
    roles_claim: str = "roles"
    scopes_claim: str = "scope"
    keep: tuple[str, ...] = ()
    skew: float = 60.0
    dangerous_allow_http: bool = False


Role = Literal["viewer", "operator", "admin"]


@dataclass(frozen=True, slots=True)
class AdminPeople:
    """Who may open the console through ztproxy itself: the route that leads there, and who has which role."""

    route: str
    groups: Mapping[Role, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    emails: Mapping[Role, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin listener. `client_ca` asks for client certificates of that CA; `certificates` maps a
    certificate's SHA-256 fingerprint (lower-case hex) to a role. `hosts` are further names it may be called
    by, without ports; the one that the console's route calls it by is among them.

    INVARIANT: an address other than loopback or a unix socket has `tls` and `client_ca` (case A28).
    """

    address: Address
    tls: CertificateFiles | None = None
    client_ca: Path | None = None
    certificates: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType({}))
    hosts: frozenset[str] = frozenset()
    people: AdminPeople | None = None


@dataclass(frozen=True, slots=True)
class Branding:
    """The name on our pages, and a folder whose templates stand before ours."""

    name: str = "ztproxy"
    templates: Path | None = None
    support: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """One configuration, whole.

    `workers`: None means one for each core. `state_url`: None means the embedded Valkey, in `state_dir`.
    `keys_file` may not exist yet when it is the default in `state_dir`: it is made at the first start then.
    `sessions_per_person`: signing in once more ends the oldest. `hsts` is the field's value. `files` are all
    files the configuration was made of or names, for `watch`; `warnings` are for the operator.
    """

    listeners: tuple[Listener, ...]
    providers: tuple[Provider, ...]
    routes: RouteTable
    state_dir: Path
    keys_file: Path
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    workers: int | None = None
    state_url: Secret | None = None
    auth_host: Origin | None = None
    cookie: Cookie = Cookie()
    session: SessionLimits = field(default_factory=SessionLimits)
    devices: Devices | None = None
    token_issuers: tuple[TokenIssuer, ...] = ()
    levels: Levels = field(default_factory=Levels)
    limits: Limits = Limits()
    operations: Address | None = None
    admin: Admin | None = None
    revocation: Revocation = Revocation()
    sessions_per_person: int | None = None
    log: Log = Log()
    hsts: str | None = None
    drop_underscored_headers: bool = False
    branding: Branding = Branding()
    drain: float = 30.0
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def takes_over_from(self, before: Settings) -> None:
        """Raises `OperatorError` if something differs that a running ztproxy was built on: then only a
        restart can apply it, and neither the supervisor nor a worker may take half of it."""
        for name in _BUILT_ON:
            if _built_on(self, name) != _built_on(before, name):
                raise OperatorError(f"`{name}` has changed", "restart ztproxy for that")
        if self._authorities_asked_for() != before._authorities_asked_for():
            # Handshakes would go on with the files of before, and what follows them judge by the new ones.
            problem = "the file of an authority of `devices` has moved, and a listener asks by it"
            raise OperatorError(problem, "restart ztproxy for that, or keep its place")
        behind = any(one.proxy_protocol for one in self.listeners)
        if behind and self.trusted_proxies != before.trusted_proxies:
            problem = "`trusted_proxies` has changed, and a listener speaks the PROXY protocol"
            raise OperatorError(problem, "restart ztproxy for that")

    def _authorities_asked_for(self) -> list[Path | None]:
        """The files that handshakes are made with, for each listener."""
        files = {} if self.devices is None else {one.name: one.ca for one in self.devices.authorities}
        asking = [one.tls.clients for one in self.listeners if one.tls is not None]
        return [files.get(name) for one in asking if one is not None for name in one.authorities]


_BUILT_ON = (
    "listeners",
    "state_url",
    "state_dir",
    "limits",
    "workers",
    "operations",
    "admin",
    "revocation",
    "session",  # what was revoked is remembered for the longest time a session can live
    "log",
)


def _built_on(settings: Settings, name: str) -> object:
    return settings.limits.built_on if name == "limits" else getattr(settings, name)
