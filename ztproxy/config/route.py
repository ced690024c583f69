"""One route as an operator writes it, into the core's `Route`.

Knows: the route's keys (Pomerium's names where it has them). Promises: exactly one action and one source of
policy; nothing is open that does not say so; what two keys say about one thing never contradicts silently.
Leaves what is true of all routes together to `compile`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ztproxy.config.device_policy import DeviceWords
from ztproxy.config.files import Files
from ztproxy.config.mistakes import Loc, quoted, wrong
from ztproxy.config.model import Model, also
from ztproxy.config.names import Texts
from ztproxy.config.paths import PathText, prefix_segments, segments
from ztproxy.config.policy import PolicyContext, RuleModel, compile_policy
from ztproxy.config.rates import RateLimitModel, compile_rates
from ztproxy.config.sensitivity import SensitivityModel, compile_sensitivity
from ztproxy.config.services import ServicesOfRoute, compile_services
from ztproxy.config.upstream import HealthCheckModel, OutlierModel, Target, compile_upstream, read_target
from ztproxy.config.values import (
    ONE_OR_MANY,
    OR_OFF,
    Duration,
    DurationOrOff,
    Flag,
    Kind,
    Method,
    OnlyTrue,
    Origin,
    Positive,
    Prose,
    RouteOrigin,
    SiteOrigin,
    SizeOrOff,
    Text,
    choice,
    duration_within,
    host_of,
    is_token,
    origin_of,
    text_of,
)
from ztproxy.core.assurance import Levels
from ztproxy.core.conditions import Anyone, Authenticated
from ztproxy.core.policy import Effect, Policy, Rule
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity
from ztproxy.core.routes import (
    Action,
    Forwarding,
    IdentityHeaders,
    IdentityPreset,
    Redirect,
    Route,
    Services,
    SessionLimit,
    StaticResponse,
)

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host"}
    | {"http2-settings", "proxy", "proxy-authorization", "proxy-authenticate", "content-length", "expect"}
)


def _header_name(value: object) -> str:
    name = text_of(value, "X-Team")
    lower = name.lower()
    if not is_token(name) or not name.isascii():
        raise wrong(f"{quoted(value)} is not a header name", "write letters, digits and `-`")
    if lower in _HOP_BY_HOP:
        mend = "write `host_rewrite`" if lower == "host" else "remove it; ztproxy writes it itself"
        raise wrong(f"the header `{lower}` belongs to the connection", mend)
    if re.sub("[^a-z0-9]", "-", lower).startswith("x-ztproxy-"):
        raise wrong(f"the header `{lower}` is one of ztproxy's own", "choose another name")
    return lower


def _header_value(value: object) -> str:
    if isinstance(value, bool | int | float | dict | list):
        raise wrong(f"{quoted(value)} is not text", f'put it in quotes: `"{str(value).lower()}"`')
    text = str(value)
    if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in text) or text != text.strip():
        raise wrong("a header's value holds a control character or ends in a space", "remove it")
    return text


def _host_name(value: object) -> str:
    host, colon, port = text_of(value, "app.internal").partition(":")
    if host_of(host) is None or (colon and not port.isdigit()):
        raise wrong(f"{quoted(value)} is not a host", "write it like `app.internal` or `app.internal:8080`")
    return f"{host_of(host)}{colon}{port}"


def _upgrade(value: object) -> str:
    text = text_of(value, "websocket").lower()
    if text in ("h2c", "h2", "tls/1.0") or text.startswith("http/"):
        raise wrong(f"an upgrade to `{text}` would carry requests nobody judges", "remove it")
    if not is_token(text):
        raise wrong(f"{quoted(value)} is not a protocol", "write it like `websocket`")
    return text


def _location(value: object) -> str:
    text = text_of(value, "https://www.example.com/")
    if text.startswith("/") and text[1:2] not in ("/", "\\"):
        rest = text
    else:
        found = re.match(r"https?://[^/?#]*", text)
        origin_of(found[0] if found else text, "https://www.example.com/")
        rest = text[len(found[0]) :] if found else ""
    if not re.fullmatch(r"[\x21-\x7e]*", rest) or "\\" in rest:
        raise wrong(f"{quoted(value)} is not a URL", "write spaces and non-ASCII letters as escapes")
    return str(text)


def _status(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 599:
        raise wrong(f"{quoted(value)} is not a status", "write a number from `200` to `599`")
    return value


def _redirect_status(value: object) -> int:
    if value not in (301, 302, 303, 307, 308) or not isinstance(value, int):
        raise wrong(f"{quoted(value)} is not a redirect", "write `301`, `302`, `303`, `307` or `308`")
    return value


def _no_twins(value: Any) -> Any:
    if isinstance(value, dict):
        for name in value:
            if [other.lower() for other in value].count(name.lower()) > 1:
                raise wrong(f"the header `{name.lower()}` is written twice", "remove one of them", name)
    return value


Headers = Annotated[
    dict[
        Annotated[str, Kind(_header_name, type="string")],
        Annotated[str, Kind(_header_value, type="string")],
    ],
    BeforeValidator(_no_twins),
]
HeaderNames = Annotated[list[Annotated[str, Kind(_header_name, type="string")]], ONE_OR_MANY]


class RedirectModel(Model):
    """Answer with a redirect."""

    model_config = ConfigDict(json_schema_extra=also({"type": "string"}))

    location: Annotated[str, Kind(_location, type="string", minLength=1)]
    response_code: Annotated[int, Kind(_redirect_status, enum=[301, 302, 303, 307, 308])] = 302
    keep_path: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"location": value} if isinstance(value, str) else value


class ResponseModel(Model):
    """Answer with fixed text."""

    status: Annotated[int, Kind(_status, type="integer", minimum=200, maximum=599)] = 200
    content_type: Annotated[str, Kind(_header_value, type="string")] = "text/plain; charset=utf-8"
    body: Annotated[str, Kind(lambda value: text_of(value, "some text"), type="string")] = ""


class IdentityModel(Model):
    """What the app is told about the person."""

    assertion: Flag = True
    audience: Text | None = None
    headers: (
        Annotated[list[Annotated[str, choice(*(p.value for p in IdentityPreset))]], ONE_OR_MANY] | None
    ) = None
    groups: Texts | None = None


class RouteModel(Model):
    """One route."""

    from_: RouteOrigin = Field(alias="from", description="The origin users open; `*.` stands for one label.")
    to: Annotated[list[Annotated[Target, Kind(read_target, type="string")]], ONE_OR_MANY] | None = None
    redirect: RedirectModel | None = None
    response: ResponseModel | None = None
    name: Text | None = None
    title: Text | None = None
    description: Prose | None = None
    listed: Flag = True

    path: PathText | None = None
    prefix: PathText | None = None
    strip_prefix: Flag = False
    prefix_rewrite: PathText | None = None
    path_case: Annotated[str, choice("sensitive", "insensitive")] = "sensitive"
    encoded_slash: Annotated[str, choice("refuse", "keep")] = "refuse"
    empty_segments: Annotated[str, choice("refuse", "allow")] = "refuse"
    path_params: Annotated[str, choice("refuse", "allow")] = "refuse"
    methods: Annotated[list[Method], ONE_OR_MANY] | None = None

    policy: Annotated[list[RuleModel], ONE_OR_MANY] | None = None
    allow_public_unauthenticated_access: OnlyTrue | None = None
    allow_any_authenticated_user: OnlyTrue | None = None
    sensitivity: SensitivityModel | None = None
    providers: Texts | None = None
    services: ServicesOfRoute | None = Field(default=None, description="Which services may come as well.")
    identity: IdentityModel = IdentityModel()
    recheck: Annotated[float, duration_within("1s", "1d")] = Field(
        default=60.0, description="After how long what is still under way is judged again."
    )

    session_group: Text | None = Field(
        default=None, description="Routes on which `session.max_in_group` limits a person's sessions."
    )

    preserve_host_header: Flag = True
    host_rewrite: Annotated[str, Kind(_host_name, type="string", minLength=1)] | None = None
    set_request_headers: Headers = Field(default={})
    remove_request_headers: HeaderNames | None = None
    set_response_headers: Headers = Field(default={})
    remove_response_headers: HeaderNames | None = None
    max_body: SizeOrOff = 1024 * 1024 * 1024
    upgrades: Annotated[list[Annotated[str, Kind(_upgrade, type="string")]], ONE_OR_MANY] | None = None
    allowed_origins: Annotated[list[SiteOrigin], ONE_OR_MANY] | None = None
    allow_missing_origin: Flag = False
    cors_allow_preflight: Flag = False
    rate_limits: Annotated[list[RateLimitModel], ONE_OR_MANY] | None = Field(
        default=None, description="How often the route may be asked; all of them hold."
    )

    timeout: DurationOrOff = None
    connect_timeout: Duration = 5.0
    first_byte_timeout: DurationOrOff = 60.0
    idle_timeout: DurationOrOff = 60.0
    tunnel_idle_timeout: DurationOrOff = 3600.0
    load_balancing_policy: Annotated[str, choice("round_robin", "least_requests")] = "round_robin"
    health_check: HealthCheckModel | None = None
    outlier_detection: Annotated[OutlierModel | None, OR_OFF] = OutlierModel()
    max_upstream_connections: Positive = 1024
    tls_custom_ca_file: Text | None = None
    tls_server_name: Annotated[str, Kind(_host_name, type="string")] | None = None
    tls_client_cert_file: Text | None = None
    tls_client_key_file: Text | None = None
    dangerous_tls_skip_verify: Flag = False


# fmt: off
_FORWARDING_ONLY = (
    "strip_prefix", "prefix_rewrite", "preserve_host_header", "host_rewrite", "set_request_headers",
    "remove_request_headers", "set_response_headers", "remove_response_headers", "max_body", "upgrades",
    "allowed_origins", "allow_missing_origin", "timeout", "connect_timeout", "first_byte_timeout",
    "idle_timeout", "tunnel_idle_timeout", "load_balancing_policy", "health_check", "outlier_detection",
    "max_upstream_connections", "tls_custom_ca_file", "tls_server_name", "tls_client_cert_file",
    "tls_client_key_file", "dangerous_tls_skip_verify",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class RouteContext:
    """What compiling a route needs to know of the rest; `claims` collects what its policy reads.
    `issuers` are the issuers of tokens, by name, with what they call themselves."""

    files: Files
    levels: Levels
    providers: frozenset[str]
    claims: set[str]
    max_in_group: Mapping[str, int]
    words: DeviceWords
    issuers: Mapping[str, str]


def compile_route(model: RouteModel, loc: Loc, context: RouteContext) -> Route:
    """The core's route; mistakes go to the findings, and then the result is not to be used."""
    findings = context.files.findings
    if model.path is not None and model.prefix is not None:
        findings.wrong((*loc, "path"), "`path` and `prefix` both choose the paths", "write one of them")
    where = segments(model.path) if model.path is not None else prefix_segments(model.prefix or "/")
    if where[:1] == (".ztproxy",) or where[:2] == (".well-known", "ztproxy"):
        key = "path" if model.path is not None else "prefix"
        findings.wrong((*loc, key), "`/.ztproxy/` is ztproxy's own on every host", "choose another path")
    for name in model.providers or ():
        if name not in context.providers:
            known = ", ".join(f"`{one}`" for one in sorted(context.providers))
            findings.wrong((*loc, "providers"), f"there is no provider {quoted(name)}", f"there is {known}")
    if model.from_.scheme == "http" and not model.from_.loopback:
        text = "without TLS anyone on the way can take over a session; write `https://` if users open it so"
        findings.warn((*loc, "from"), text)
    policy = _policy(model, loc, context)
    return Route(
        name=model.name or _default_name(model),
        host=model.from_.host,
        port=model.from_.port,
        scheme=model.from_.scheme,
        segments=where,
        exact=model.path is not None,
        action=_action(model, loc, context.files),
        policy=policy,
        identity=_identity(model.identity, model.from_),
        sensitivity=compile_sensitivity(model.sensitivity, policy, loc, context.levels, findings),
        providers=tuple(model.providers or ()),
        tolerates=_tolerated(model),
        case_insensitive=model.path_case == "insensitive",
        methods=Route.methods.union(model.methods or ()),
        cors_preflight=model.cors_allow_preflight,
        title=model.title or "",
        description=model.description or "",
        listed=model.listed,
        recheck=model.recheck,
        session_limit=_session_limit(model, loc, context),
        services=_services(model, loc, context),
        rates=compile_rates(model.rate_limits or (), (*loc, "rate_limits"), context.files.findings),
    )


def _session_limit(model: RouteModel, loc: Loc, context: RouteContext) -> SessionLimit | None:
    group = model.session_group
    if group is None:
        return None
    most = context.max_in_group.get(group)
    if most is None:
        mend = f"add `session: {{max_in_group: {{{group}: 1}}}}`"
        context.files.findings.wrong(
            (*loc, "session_group"), f"there is no limit for the group {quoted(group)}", mend
        )
        return None
    return SessionLimit(group, most)


def _services(model: RouteModel, loc: Loc, context: RouteContext) -> Services | None:
    pipeline = model.sensitivity is not None and model.sensitivity.label == "pipeline"
    findings = context.files.findings
    if model.services is None:
        if pipeline:
            mend = "add `services: {tokens: [...]}` or `services: {spiffe: [...]}`"
            findings.wrong((*loc, "sensitivity"), "`pipeline` is for services, and none may come here", mend)
        return None
    audience = model.identity.audience or str(model.from_)
    at = (*loc, "services")
    return compile_services(model.services, at, audience, pipeline, context.issuers, context.words, findings)


def _default_name(model: RouteModel) -> str:
    """What a person would call it: `app.test`, `app.test/login` for a path, `app.test/api/*` for a prefix."""
    prefix = (model.prefix or "/").rstrip("/")
    return model.from_.host + (model.path or (f"{prefix}/*" if prefix else ""))


def _tolerated(model: RouteModel) -> frozenset[Ambiguity]:
    chosen = {
        Ambiguity.ENCODED_SLASH: model.encoded_slash == "keep",
        Ambiguity.EMPTY_SEGMENT: model.empty_segments == "allow",
        Ambiguity.PATH_PARAMETER: model.path_params == "allow",
    }
    return frozenset(ambiguity for ambiguity, tolerated in chosen.items() if tolerated)


def _identity(model: IdentityModel, origin: Origin) -> IdentityHeaders:
    # The origin, not the name: it is what the app's author knows, and it differs where the doors differ.
    return IdentityHeaders(
        model.audience or str(origin),
        model.assertion,
        tuple(IdentityPreset(name) for name in model.headers or ()),
        frozenset(model.groups) if model.groups is not None else None,
    )


def _policy(model: RouteModel, loc: Loc, context: RouteContext) -> Policy:
    keys = ("policy", "allow_public_unauthenticated_access", "allow_any_authenticated_user")
    written = [key for key in keys if key in model.model_fields_set]
    findings = context.files.findings
    if not written:
        mend = "write `policy: [{allow: {domain: example.com}}]` or `allow_any_authenticated_user: true`"
        findings.wrong(loc, "the route does not say who may open it", mend)
        return Policy(())
    if len(written) > 1:
        spelled = " and ".join(f"`{key}`" for key in written)
        findings.wrong((*loc, written[1]), f"{spelled} both say who may open it", "write one of them")
    if model.allow_public_unauthenticated_access:
        return Policy([Rule(Effect.ALLOW, Anyone(), written[0], Reason.PUBLIC_ROUTE)])
    if model.allow_any_authenticated_user:
        return Policy([Rule(Effect.ALLOW, Authenticated(), written[0], Reason.ANY_AUTHENTICATED)])
    folded = model.path_case == "insensitive"
    policy = PolicyContext(findings, context.levels, folded, context.claims, context.words, context.issuers)
    return compile_policy(model.policy or (), (*loc, "policy"), policy)


def _action(model: RouteModel, loc: Loc, files: Files) -> Action:
    findings = files.findings
    written = [key for key in ("to", "redirect", "response") if getattr(model, key) is not None]
    if len(written) != 1:
        problem = (
            "the route goes nowhere" if not written else f"`{written[0]}` and `{written[1]}` are both written"
        )
        findings.wrong(loc, problem, "write one of `to`, `redirect` and `response`")
    if "to" not in written:
        for key in _FORWARDING_ONLY:
            if key in model.model_fields_set:
                findings.wrong((*loc, key), f"`{key}` has no meaning without `to`", "remove it")
    if model.redirect is not None:
        redirect = model.redirect
        return Redirect(redirect.location, redirect.response_code, redirect.keep_path)
    upstream = compile_upstream(model, loc, files)
    if upstream is None:
        answer = model.response or ResponseModel()
        return StaticResponse(answer.status, answer.content_type, answer.body.encode())
    if model.strip_prefix and model.prefix_rewrite is not None:
        findings.wrong((*loc, "strip_prefix"), "`prefix_rewrite` replaces the prefix", "write one of them")
    if (model.strip_prefix or model.prefix_rewrite is not None) and model.path is not None:
        findings.wrong((*loc, "path"), "a whole path has no prefix to rewrite", "write `prefix`")
    if model.host_rewrite is not None and "preserve_host_header" in model.model_fields_set:
        findings.wrong(
            (*loc, "host_rewrite"), "`preserve_host_header` sends another host", "write one of them"
        )
    if (model.allowed_origins or model.allow_missing_origin) and not model.upgrades:
        key = "allowed_origins" if model.allowed_origins else "allow_missing_origin"
        findings.wrong((*loc, key), "origins are checked on upgrades, and none is allowed", "add `upgrades`")
    return Forwarding(
        upstream,
        model.preserve_host_header and model.host_rewrite is None,
        model.host_rewrite,
        model.strip_prefix,
        model.prefix_rewrite,
        _fields(model.set_request_headers),
        _names(model.remove_request_headers),
        _fields(model.set_response_headers),
        _names(model.remove_response_headers),
        model.max_body,
        frozenset(model.upgrades or ()),
        frozenset(str(origin) for origin in model.allowed_origins or ()),
        model.allow_missing_origin,
    )


def _fields(headers: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("ascii"), value.encode()) for name, value in headers.items())


def _names(names: Sequence[str] | None) -> frozenset[bytes]:
    return frozenset(name.encode("ascii") for name in names or ())
