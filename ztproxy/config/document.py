"""The whole configuration as an operator writes it: every top-level key.

Knows: which keys there are, their kinds and defaults. The JSON schema for editors is made from these models.
Leaves what they mean together to `compile`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ztproxy.config.admin import AdminModel
from ztproxy.config.assurance import AssuranceModel
from ztproxy.config.devices import ClientCertificatesModel, DevicesModel
from ztproxy.config.mistakes import quoted, wrong
from ztproxy.config.model import Model, also
from ztproxy.config.names import Domain, Texts
from ztproxy.config.provider import ProviderModel
from ztproxy.config.rates import RateModel
from ztproxy.config.revocation import RevocationModel
from ztproxy.config.route import RouteModel
from ztproxy.config.services import TokenIssuerModel
from ztproxy.config.tls import TLSModel
from ztproxy.config.values import (
    CIDR,
    ONE_OR_MANY,
    OR_OFF,
    AddressOrOff,
    Duration,
    Flag,
    Kind,
    ListenAddress,
    Positive,
    SiteOrigin,
    Size,
    Text,
    choice,
    is_off,
    size_of_at_least,
)


class ListenModel(Model):
    """A listener. It speaks TLS where there is a `tls`, unless told not to."""

    model_config = ConfigDict(json_schema_extra=also({"type": "string"}))

    address: ListenAddress
    tls: Flag | None = None
    proxy_protocol: Flag = False
    redirect_to_https: Flag = False
    client_certificates: Annotated[ClientCertificatesModel | None, OR_OFF] = Field(
        default=None, description="Ask clients for a certificate in the handshake."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"address": value}


class GroupLimitsModel(Model):
    """Shorter limits for members of any of these groups."""

    groups: Texts
    idle: Duration | None = None
    absolute: Duration | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> GroupLimitsModel:
        if self.idle is None and self.absolute is None:
            raise wrong("this limits nothing", "write `idle` or `absolute`")
        return self


class SessionModel(Model):
    """How long a session lives."""

    idle: Duration = 3600.0
    absolute: Duration = 43200.0
    max_per_person: Annotated[Positive | None, OR_OFF] = Field(
        default=None, description="Signing in once more ends the oldest."
    )
    max_in_group: dict[Text, Positive] = Field(
        default={}, description="The same for routes that share a `session_group`."
    )
    groups: Annotated[list[GroupLimitsModel], ONE_OR_MANY] | None = Field(
        default=None, description="Shorter limits for members of some groups; of several the shortest counts."
    )


class CookieModel(Model):
    """The session cookie."""

    domain: Domain | None = Field(default=None, description="Share one cookie below this domain.")


class LimitsModel(Model):
    """What a client may cost."""

    connections: Positive = 16_384
    connections_per_address: Positive = 1_024
    first_byte: Duration = 10.0
    head_time: Duration = 10.0
    keep_alive: Duration = 75.0
    body_stall: Duration = 30.0
    body_rate: Size = 1_024
    write_stall: Duration = 60.0
    requests_per_address: Annotated[RateModel | None, OR_OFF] = Field(
        default=None, description="Of one sender, before anything else is done for it; in each worker."
    )
    requests_per_session: Annotated[RateModel | None, OR_OFF] = Field(
        default=None, description="Forwarded for one session; in each worker."
    )
    sign_ins_per_address: Annotated[RateModel | None, OR_OFF] = Field(
        default_factory=lambda: RateModel.model_validate({"rate": "20/s", "burst": 200}),
        description="Begun by one sender; in each worker. Default: 20/s, 200 at once.",
    )
    memory: Annotated[int, size_of_at_least("64MiB")] | None = Field(
        default=None, description="What one worker may use. Default: the limit of its cgroup, if it has one."
    )


def _sink(value: object) -> str | None:
    if is_off(value):
        return None
    if not isinstance(value, str) or not value.strip():
        raise wrong(f"{quoted(value)} is not a place for a log", "write `stdout`, `off` or a file")
    return str(value)


Sink = Annotated[str | None, Kind(_sink, anyOf=[{"type": "string", "minLength": 1}, {"const": False}])]


def _kept(value: Any) -> Any:
    if is_off(value) or value == "stdout":
        problem = f"{quoted(value)} keeps nothing: what administrators did is a chain that is read again"
        raise wrong(problem, "write a file that ztproxy alone appends to")
    return value


class LogModel(Model):
    """Where the logs go."""

    access: Sink = "stdout"
    decisions: Sink = "stdout"
    audit: Annotated[Text, BeforeValidator(_kept)] | None = Field(
        default=None, description="What administrators did. Default: `audit.log` in `state_dir`."
    )


class HSTSModel(Model):
    """RFC 6797, sent on answers over TLS."""

    max_age: Duration = 31_536_000.0
    include_subdomains: Flag = False
    preload: Flag = False


class BrandingModel(Model):
    """What our pages look like."""

    name: Text = "ztproxy"
    templates: Text | None = None
    support: Text | None = Field(default=None, description="Whom to ask; shown on error pages.")


def _workers(value: object) -> int | None:
    if value == "auto":
        return None
    digits = re.fullmatch(r"[1-9][0-9]{0,2}", str(value)) if not isinstance(value, bool) else None
    if digits is None:
        raise wrong(
            f"{quoted(value)} is not a number of workers", "write `auto` or a number from `1` to `999`"
        )
    return int(digits[0])


_STATE = re.compile(r"(redis|rediss|redis\+sentinel|redis\+cluster|unix)://\S+\Z")


def _state(value: object) -> str:
    if value != "embedded" and not (isinstance(value, str) and _STATE.match(value)):
        # The value may hold a password, so it is not shown.
        mend = (
            "write `embedded`, `redis://...`, `rediss://...`, `redis+sentinel://...`, `redis+cluster://...` "
            "or `unix:///...`"
        )
        raise wrong("this is not a place for the state", mend)
    return str(value)


Workers = Annotated[int | None, Kind(_workers, anyOf=[{"const": "auto"}, {"type": "integer", "minimum": 1}])]
State = Annotated[str, Kind(_state, type="string", minLength=1)]


class Document(Model):
    """The configuration of ztproxy."""

    listen: Annotated[list[ListenModel], ONE_OR_MANY]
    tls: TLSModel | None = None
    provider: ProviderModel | None = None
    providers: Annotated[list[ProviderModel], ONE_OR_MANY] | None = None
    routes: Annotated[list[RouteModel], ONE_OR_MANY]

    auth_host: SiteOrigin | None = Field(default=None, description="The one origin where people sign in.")
    cookie: CookieModel = CookieModel()
    session: SessionModel = SessionModel()
    assurance: AssuranceModel = AssuranceModel()
    devices: DevicesModel | None = None
    token_issuers: Annotated[list[TokenIssuerModel], ONE_OR_MANY] | None = Field(
        default=None, description="Whose bearer tokens services may bring."
    )
    state: State = "embedded"
    state_file: Text | None = Field(default=None, description="A file that holds the URL of the state.")
    state_dir: Text = "/var/lib/ztproxy"
    keys_file: Text | None = None
    trusted_proxies: Annotated[list[CIDR], ONE_OR_MANY] | None = None
    headers_with_underscores: Annotated[str, choice("refuse", "drop")] = "refuse"
    limits: LimitsModel = LimitsModel()
    hsts: Annotated[HSTSModel | None, OR_OFF] = HSTSModel()
    operations: AddressOrOff = None
    admin: Annotated[AdminModel | None, OR_OFF] = Field(
        default=None, description="Default: the unix socket `admin.sock` in `state_dir`."
    )
    revocation: RevocationModel = RevocationModel()
    log: LogModel = LogModel()
    branding: BrandingModel = BrandingModel()
    workers: Workers = None
    drain: Duration = 30.0
