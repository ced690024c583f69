"""One OpenID provider as an operator writes it.

Promises: `https` unless it is this machine or the danger is written out; one secret from one place; no
authorization parameter that would undo what the sign-in sets. Leaves discovery to the adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from ztproxy.config.files import Files
from ztproxy.config.mistakes import Loc, quoted, wrong
from ztproxy.config.model import Model
from ztproxy.config.names import Domain, Texts
from ztproxy.config.settings import Provider, Secret
from ztproxy.config.values import (
    ONE_OR_MANY,
    Duration,
    Flag,
    Issuer,
    Kind,
    SecretText,
    Text,
    choice,
    is_loopback,
    text_of,
)
from ztproxy.core.claims import ClaimRules

# Set by the sign-in for every login; a second value from here would weaken or break it.
_OURS = frozenset(
    {
        "client_id",
        "client_secret",
        "redirect_uri",
        "response_type",
        "response_mode",
        "scope",
        "state",
        "nonce",
    }
    | {"code_challenge", "code_challenge_method", "request", "request_uri", "claims", "login_hint"}
    | {"acr_values", "max_age", "prompt"}
)

Algorithm = Annotated[str, choice("RS256", "PS256", "ES256", "EdDSA")]


def _name(value: object) -> str:
    text = text_of(value, "corp")
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", text):
        mend = "write small letters, digits and `-`; it is part of the redirect URI"
        raise wrong(f"{quoted(value)} is not a provider's name", mend)
    return str(text)


TokenAuth = Annotated[
    Literal["client_secret_basic", "client_secret_post", "none"],
    choice("client_secret_basic", "client_secret_post", "none"),
]


AsksBy = Annotated[Literal["acr_values", "claims", "both"], choice("acr_values", "claims", "both")]


class ProviderModel(Model):
    """An OpenID provider."""

    name: Annotated[str, Kind(_name, type="string", minLength=1)] | None = Field(
        default=None, description="Needed where there are several."
    )
    title: Text | None = Field(default=None, description="Shown on the chooser page.")
    issuer: Issuer
    client_id: Text
    client_secret: SecretText | None = None
    client_secret_file: Text | None = None
    token_auth: TokenAuth | None = None
    scopes: Texts = Field(default=["openid", "profile", "email"])
    algorithm: Algorithm = "RS256"
    groups_claim: Text = "groups"
    email_claim: Text = "email"
    name_claim: Text = "name"
    username_claim: Text = "preferred_username"
    keep_claims: Texts | None = None
    trusted_audiences: Texts | None = None
    clock_skew: Duration = 60.0
    endpoint_hosts: Annotated[list[Domain], ONE_OR_MANY] | None = Field(
        default=None,
        description="Where its endpoints may be besides the issuer's host; default: where they were first.",
    )
    parameters: dict[str, Text] = Field(default={})
    userinfo: Flag = False
    asks_by: AsksBy = Field(
        default="acr_values", description="How it wants to be asked for a stronger sign-in."
    )
    frontchannel_logout: Flag = Field(
        default=False, description="Let its pages end a session; whoever knows `iss` and `sid` can as well."
    )
    logout_exp: Annotated[str, choice("required", "optional")] = Field(
        default="required", description="Whether its logout tokens have to say when they end."
    )
    ca_file: Text | None = None
    dangerous_allow_http_issuer: Flag = False
    dangerous_accept_unverified_email: Flag = False


def compile_provider(model: ProviderModel, loc: Loc, files: Files, read_claims: Iterable[str]) -> Provider:
    findings = files.findings
    issuer = urlsplit(model.issuer)
    if issuer.scheme == "http" and not is_loopback(issuer.hostname or ""):
        if model.dangerous_allow_http_issuer:
            findings.warn((*loc, "issuer"), "without TLS anyone on the way can sign in as anybody")
        else:
            problem = "an issuer without TLS lets anyone on the way sign in as anybody"
            findings.wrong((*loc, "issuer"), problem, "write `https://...`")
    if model.dangerous_accept_unverified_email:
        text = "whoever may type an address in at this provider owns every rule that names it"
        findings.warn((*loc, "dangerous_accept_unverified_email"), text)
    for name in model.parameters:
        if name in _OURS:
            findings.wrong((*loc, "parameters", name), f"`{name}` is set by the sign-in itself", "remove it")
    if "openid" not in model.scopes:
        findings.wrong(
            (*loc, "scopes"), "without `openid` the provider says nothing about who it is", "add it"
        )
    secret = _secret(model, loc, files)
    name = model.name or "default"
    keep = dict.fromkeys([*(model.keep_claims or ()), *sorted(read_claims)])
    return Provider(
        name=name,
        title=model.title or model.name or issuer.hostname or name,
        client_secret=secret,
        token_auth=model.token_auth or ("client_secret_basic" if secret is not None else "none"),
        claims=ClaimRules(
            issuer=model.issuer,
            client_id=model.client_id,
            groups_claim=model.groups_claim,
            email_claim=model.email_claim,
            name_claim=model.name_claim,
            username_claim=model.username_claim,
            keep=tuple(keep),
            trusted_audiences=frozenset(model.trusted_audiences or ()),
            skew=model.clock_skew,
            dangerous_allow_unverified_email=model.dangerous_accept_unverified_email,
        ),
        scopes=tuple(dict.fromkeys(model.scopes)),
        algorithm=model.algorithm,
        endpoint_hosts=frozenset(model.endpoint_hosts or ()),
        parameters=MappingProxyType(dict(model.parameters)),
        userinfo=model.userinfo,
        asks_by=model.asks_by,
        frontchannel_logout=model.frontchannel_logout,
        logout_exp_optional=model.logout_exp == "optional",
        ca_file=files.named(model.ca_file, (*loc, "ca_file")) if model.ca_file is not None else None,
        dangerous_allow_http=model.dangerous_allow_http_issuer,
    )


def _secret(model: ProviderModel, loc: Loc, files: Files) -> Secret | None:
    findings = files.findings
    if model.client_secret is not None and model.client_secret_file is not None:
        problem = "`client_secret` and `client_secret_file` are both written"
        findings.wrong((*loc, "client_secret"), problem, "write one of them")
    secret: Secret | None = None
    if model.client_secret_file is not None:
        secret = Secret(files.secret(model.client_secret_file, (*loc, "client_secret_file")))
    elif model.client_secret is not None:
        secret = Secret(model.client_secret)
    if model.token_auth == "none" and secret is not None:  # noqa: S105  (a method, not a password)
        findings.wrong(
            (*loc, "token_auth"), "`none` sends no secret, but one is given", "remove one of the two"
        )
    if model.token_auth not in (None, "none") and secret is None:
        problem = f"`{model.token_auth}` needs a secret"
        findings.wrong((*loc, "token_auth"), problem, "write `client_secret_file`")
    return secret
