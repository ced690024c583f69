"""Services that come with a credential of their own, as an operator writes it.

Knows: issuers of bearer tokens, and what a route wants of a service. Promises: a token's keys come from one
place and over TLS; a route says which services may come, and what it asks of tokens is asked where tokens
are accepted; an ID token cannot pass for an access token. Leaves judging to `core.service_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from ztproxy.config.device_policy import DeviceWords, check_trust_domains
from ztproxy.config.files import Files
from ztproxy.config.mistakes import Findings, Loc, did_you_mean, quoted, wrong
from ztproxy.config.model import Model
from ztproxy.config.names import URL, SPIFFEPattern, Texts, short_name
from ztproxy.config.provider import Algorithm
from ztproxy.config.settings import Provider, TokenIssuer
from ztproxy.config.values import ONE_OR_MANY, Duration, Flag, Issuer, Kind, Text, is_loopback, text_of
from ztproxy.core.routes import Route, Services

PIPELINE_TOKENS = 300.0  # seconds: how old a token may be where `sensitivity: pipeline` says no more


def _type(value: object) -> str:
    return text_of(value, "at+jwt").lower().removeprefix("application/")


class TokenIssuerModel(Model):
    """An issuer of bearer tokens for services."""

    name: Annotated[str, short_name("an issuer of tokens")]
    issuer: Issuer
    algorithms: Annotated[list[Algorithm], ONE_OR_MANY] = Field(default=["RS256"])
    jwks_file: Text | None = Field(default=None, description="Its keys. Default: its metadata says where.")
    jwks_url: URL | None = None
    types: Annotated[list[Annotated[str, Kind(_type, type="string", minLength=1)]], ONE_OR_MANY] = Field(
        default=["at+jwt", "jwt"], description="The values of `typ` a token may have."
    )
    roles_claim: Text = "roles"
    scopes_claim: Text = "scope"
    keep_claims: Texts | None = None
    clock_skew: Duration = 60.0
    ca_file: Text | None = None
    dangerous_allow_http: Flag = False


def compile_issuers(
    models: Sequence[TokenIssuerModel], files: Files, read_claims: Iterable[str]
) -> tuple[TokenIssuer, ...]:
    """`read_claims`: what policies read, kept beside what is named."""
    findings, found = files.findings, list[TokenIssuer]()
    for index, model in enumerate(models):
        loc: Loc = ("token_issuers", index)
        for other in found:
            if other.name == model.name:
                findings.wrong((*loc, "name"), f"two issuers are called {quoted(model.name)}", "rename one")
            if other.issuer == model.issuer:
                problem = f"{quoted(model.issuer)} is {quoted(other.name)} already"
                findings.wrong((*loc, "issuer"), problem, "join the two")
        found.append(_issuer(model, loc, files, read_claims))
    return tuple(found)


def _issuer(model: TokenIssuerModel, loc: Loc, files: Files, read_claims: Iterable[str]) -> TokenIssuer:
    findings = files.findings
    for key in ("issuer", "jwks_url"):
        url = getattr(model, key)
        # An issuer whose keys are pinned is only ever compared.
        asked = key == "jwks_url" or (model.jwks_file is None and model.jwks_url is None)
        if (
            not asked
            or url is None
            or not url.startswith("http:")
            or is_loopback(urlsplit(url).hostname or "")
        ):
            continue
        if model.dangerous_allow_http:
            findings.warn((*loc, key), "without TLS anyone on the way can make tokens of any service")
        else:
            problem = "keys that come without TLS let anyone on the way make tokens of any service"
            findings.wrong((*loc, key), problem, "write `https://...`")
    if model.jwks_file is not None:
        for key in ("jwks_url", "ca_file"):
            if getattr(model, key) is not None:
                findings.wrong((*loc, key), "its keys are in `jwks_file`, and nobody is asked", "remove one")
    keep = dict.fromkeys([*(model.keep_claims or ()), *sorted(read_claims)])
    return TokenIssuer(
        name=model.name,
        issuer=model.issuer,
        algorithms=tuple(dict.fromkeys(model.algorithms)),
        jwks=files.named(model.jwks_file, (*loc, "jwks_file")) if model.jwks_file is not None else None,
        jwks_url=model.jwks_url,
        ca_file=files.named(model.ca_file, (*loc, "ca_file")) if model.ca_file is not None else None,
        types=frozenset(model.types),
        roles_claim=model.roles_claim,
        scopes_claim=model.scopes_claim,
        keep=tuple(keep),
        skew=model.clock_skew,
        dangerous_allow_http=model.dangerous_allow_http,
    )


def _some(value: object) -> object:
    if value == {} or not isinstance(value, dict) or not ({"tokens", "spiffe"} & value.keys()):
        mend = "write `tokens: [...]` with names of `token_issuers`, or `spiffe: [...]`"
        raise wrong("this does not say which services may come", mend)
    for key in ("audience", "scopes", "roles", "token_within", "forward_token"):
        if key in value and "tokens" not in value:
            raise wrong(f"`{key}` is asked of tokens, and none is accepted", "add `tokens: [...]`", key)
    return value


class ServicesModel(Model):
    """Which services may come to a route; its policy still decides."""

    tokens: Texts | None = Field(default=None, description="Names of `token_issuers`.")
    audience: Text | None = Field(
        default=None, description="What a token's `aud` must hold. Default: as `identity.audience`."
    )
    scopes: Texts | None = Field(default=None, description="A token needs all of them.")
    roles: Texts | None = Field(default=None, description="A token needs any of them.")
    token_within: Duration | None = Field(default=None, description="How long ago it was issued at most.")
    spiffe: Annotated[list[SPIFFEPattern], ONE_OR_MANY] | None = Field(
        default=None, description="SPIFFE IDs of client certificates; `/*` at the end for all beneath."
    )
    people: Flag = Field(default=True, description="Whether people may come as well.")
    forward_token: Flag = Field(default=False, description="Whether the app gets the token as well.")


ServicesOfRoute = Annotated[ServicesModel, BeforeValidator(_some)]


def compile_services(
    model: ServicesModel,
    at: Loc,
    audience: str,
    pipeline: bool,
    issuers: Mapping[str, str],
    words: DeviceWords,
    findings: Findings,
) -> Services:
    """`audience` is the route's own; `issuers` are those there are, with what they call themselves."""
    for name in model.tokens or ():
        if name not in issuers:
            mend = did_you_mean(name, issuers) if issuers else "write `token_issuers: [{name, issuer}]`"
            findings.wrong((*at, "tokens"), f"there is no issuer of tokens {quoted(name)}", mend)
    check_trust_domains(model.spiffe or (), (*at, "spiffe"), words, findings)
    within = model.token_within
    if pipeline:
        if "people" in model.model_fields_set and model.people:
            problem = "`sensitivity: pipeline` is for services alone"
            findings.wrong((*at, "people"), problem, "remove it, or choose another label")
        within = within if within is not None else PIPELINE_TOKENS
    return Services(
        issuers=tuple(dict.fromkeys(model.tokens or ())),
        audience=model.audience or audience,
        scopes=frozenset(model.scopes or ()),
        roles=frozenset(model.roles or ()),
        token_within=within if model.tokens else None,
        spiffe=tuple(model.spiffe or ()),
        people=model.people and not pipeline,
        forward_token=model.forward_token,
    )


def check_audiences(
    routes: Sequence[Route],
    issuers: Sequence[TokenIssuer],
    providers: Sequence[Provider],
    findings: Findings,
) -> None:
    """INVARIANT: no route takes for a service's token what a provider gives to this very proxy: the ID token
    of a person would open it to whoever got hold of one."""
    urls = {one.name: one.issuer for one in issuers}
    clients = {(one.issuer, one.client_id) for one in providers}
    for index, route in enumerate(routes):
        services = route.services
        if services is None:
            continue
        if any((urls.get(name), services.audience) in clients for name in services.issuers):
            problem = (
                f"{quoted(services.audience)} is ztproxy itself, so an ID token would pass for a service's"
            )
            mend = "write an audience that access tokens alone have"
            findings.wrong(("routes", index, "services", "audience"), problem, mend)
