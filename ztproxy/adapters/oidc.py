"""One OpenID provider over HTTP. Fulfils `IdentityProvider`.

Knows: Discovery, the code flow with PKCE (RFC 7636, always S256, whatever the metadata says: D04), the token
endpoint (RFC 6749 4.1.3 and 6), userinfo (Core 5.3), RP-initiated logout, and the form of the tokens of
back-channel logout. Authlib builds the requests. Promises: nothing is fetched until somebody signs in, so
ztproxy starts while the provider is down; a code and a refresh token are sent once and never again (D11);
only the JSON that a rule allows is read. Leaves the claims to `core.claims` and `core.logout`.

What the provider answers wrongly is `ClientError(LOGIN_TOKEN)`, and `LOGOUT_TOKEN` where that is a logout
token; that it says no is `LOGIN_REFUSED` for a code and `SESSION_EXPIRED` for a refresh token; that it is
away, or does not know this client, is `WorldError(PROVIDER_UNAVAILABLE)`.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from urllib.parse import quote_plus

import aiohttp
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from ztproxy.adapters.jwt import (
    ALGORITHMS,
    ID_TOKEN_TYPES,
    LOGOUT_TOKEN_TYPES,
    UsableKey,
    claims_of,
    decode_compact,
    read_object,
    usable_keys,
)
from ztproxy.adapters.oidc_fetch import Answer, Kept, away, by_keys, fetch
from ztproxy.adapters.oidc_metadata import WELL_KNOWN, Metadata, Pins, check_issuer, read_metadata
from ztproxy.core.identity import JSON
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, OperatorError, WorldError
from ztproxy.gateway.ports import Clock, Tokens
from ztproxy.gateway.ports.providers import FirstHosts

METADATA_FRESH = 3600.0
KEYS_FRESH = 3600.0
_MAX_HINT = 4096  # a longer `id_token_hint` meets servers that refuse the URL; the client id says enough

_OURS = frozenset(
    [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "response_mode",
        "request",
        "request_uri",
    ]
)
# RFC 6749 5.2: what an answer may be quoted as.
_ERRORS = frozenset(
    [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ]
)

ClientAuth = Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider as configured. Raises `OperatorError` where it cannot work.

    `algorithms`: what ID tokens may be signed with; naming the one the provider uses is best.
    `endpoint_hosts`: hosts its endpoints may be on besides the issuer's; empty means those of the first good
    metadata ever read. `userinfo`: ask it at each sign-in and refresh. `extra_params` go to the authorization
    endpoint.
    """

    name: str
    issuer: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    client_auth: ClientAuth = "client_secret_basic"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    algorithms: frozenset[str] = ALGORITHMS
    endpoint_hosts: frozenset[str] = frozenset()
    userinfo: bool = False
    require_pkce_metadata: bool = False
    extra_params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    dangerous_allow_http_issuer: bool = False

    def __post_init__(self) -> None:
        check_issuer(self.issuer, dangerous_allow_http=self.dangerous_allow_http_issuer)
        if not self.algorithms or not self.algorithms <= ALGORITHMS:
            raise OperatorError(
                "an algorithm is not accepted", f"write one of {', '.join(sorted(ALGORITHMS))}"
            )
        if (self.client_secret is None) != (self.client_auth == "none"):
            raise OperatorError("the client secret is missing", "give one, or write `client_auth: none`")
        if "openid" not in self.scopes:
            raise OperatorError("the scope `openid` is missing", "add it")
        for name in self.extra_params:
            if name in _OURS:
                raise OperatorError(f"`{name}` is set by ztproxy alone", "leave it out")


class OpenIDProvider:
    """Fulfils `IdentityProvider`. `http` is best made by `oidc_fetch.provider_session`; `tls` trusts an own
    CA; `first` remembers where its endpoints are."""

    def __init__(
        self,
        settings: ProviderSettings,
        http: aiohttp.ClientSession,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        first: FirstHosts | None = None,
    ) -> None:
        self.name, self.issuer, self.client_id = settings.name, settings.issuer, settings.client_id
        self._settings, self._http, self._tls = settings, http, tls
        mend = "name {} in `endpoint_hosts`"
        self._pins = Pins(f"sign-in {self.issuer}", self.issuer, settings.endpoint_hosts, first, mend)
        whose = f"provider `{self.name}`"
        self._metadata = Kept(self._load_metadata, clock, METADATA_FRESH, whose)
        self._keys = Kept(self._load_keys, clock, KEYS_FRESH, whose)

    @property
    def trouble(self) -> str | None:
        """What went wrong last in fetching metadata or keys, though older ones may still serve; None if
        nothing."""
        return self._metadata.trouble or self._keys.trouble

    # ── metadata and keys ──

    async def _load_metadata(self) -> Metadata:
        url = self.issuer.rstrip("/") + WELL_KNOWN
        metadata = read_metadata(
            await self._document(url, "discovery"),
            issuer=self.issuer,
            require_pkce=self._settings.require_pkce_metadata,
            dangerous_allow_http=self._settings.dangerous_allow_http_issuer,
        )
        await self._pins.hold(metadata.hosts)
        return metadata

    async def _load_keys(self) -> dict[str | None, UsableKey]:
        document = await self._document((await self._metadata.get()).jwks_uri, "jwks")
        try:
            keys = usable_keys(document)
        except ClientError as refusal:
            raise away("jwks: it is no key set") from refusal
        if not keys:
            raise away("jwks: no key can be used")
        return keys

    async def _document(self, url: str, what: str) -> dict[str, JSON]:
        answer = await fetch(self._http, url, tls=self._tls)
        if answer.status != 200:
            raise away(f"{what}: status {answer.status}")
        try:
            return read_object(answer.body)
        except ClientError as refusal:
            raise away(f"{what}: no JSON object") from refusal

    # ── the browser's way ──

    async def requires_iss_parameter(self) -> bool:
        return (await self._metadata.get()).iss_parameter

    async def authorization_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        nonce: str,
        code_verifier: str,
        acr_values: Sequence[str] = (),
        max_age: int | None = None,
        prompt: str | None = None,
        login_hint: str | None = None,
        claims: str | None = None,
    ) -> str:
        params: dict[str, str | None] = {
            **self._settings.extra_params,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(code_verifier),
            "code_challenge_method": "S256",
        }
        asked = {
            "acr_values": " ".join(acr_values) or None,
            "max_age": None if max_age is None else str(max_age),
            "prompt": prompt,
            "login_hint": login_hint,
            "claims": claims,
        }
        params |= {name: value for name, value in asked.items() if value is not None}
        url: str = prepare_grant_uri(
            (await self._metadata.get()).authorization_endpoint,
            self.client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=" ".join(self._settings.scopes),
            state=state,
            **params,
        )
        return url

    async def end_session_url(self, *, id_token_hint: str | None, return_to: str) -> str | None:
        endpoint = (await self._metadata.get()).end_session_endpoint
        if endpoint is None:
            return None
        params = [("client_id", self.client_id), ("post_logout_redirect_uri", return_to)]
        if id_token_hint is not None and len(id_token_hint) <= _MAX_HINT:
            params.append(("id_token_hint", id_token_hint))
        url: str = add_params_to_uri(endpoint, params)
        return url

    # ── tokens ──

    async def exchange(self, *, code: str, code_verifier: str, redirect_uri: str) -> Tokens:
        form = {"code": code, "code_verifier": code_verifier, "redirect_uri": redirect_uri}
        tokens = await self._ask_for_tokens("authorization_code", form, Reason.LOGIN_REFUSED)
        if tokens.id_token is None:
            raise _refused("token: no id token")
        return tokens

    async def refresh(self, refresh_token: str) -> Tokens:
        form = {"refresh_token": refresh_token}
        return await self._ask_for_tokens("refresh_token", form, Reason.SESSION_EXPIRED)

    async def _ask_for_tokens(self, grant_type: str, form: dict[str, str], on_no: Reason) -> Tokens:
        headers, settings = {}, self._settings
        if settings.client_auth == "client_secret_basic":
            # RFC 6749 2.3.1: both halves are form-encoded first, or a `:` in the id would end it.
            pair = f"{quote_plus(self.client_id)}:{quote_plus(settings.client_secret or '')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = self.client_id
            form |= {"client_secret": settings.client_secret} if settings.client_secret else {}
        endpoint = (await self._metadata.get()).token_endpoint
        body: str = prepare_token_request(grant_type, **form)
        # INVARIANT: once. Bytes that may have arrived are not sent again: a second use of a code or of a
        # rotated refresh token makes a careful provider revoke everything it gave (RFC 6749 10.5, RFC 9700
        # 4.14.2).
        answer = await fetch(self._http, endpoint, form=body, headers=headers, tls=self._tls)
        return _read_tokens(answer, on_no)

    async def verify(self, id_token: str) -> dict[str, JSON]:
        return await self._verify(id_token, ID_TOKEN_TYPES)

    async def verify_logout(self, token: str) -> dict[str, JSON]:
        try:
            return await self._verify(token, LOGOUT_TOKEN_TYPES)
        except ClientError as refusal:
            raise ClientError(Reason.LOGOUT_TOKEN, str(refusal)) from refusal

    async def _verify(self, token: str, types: Collection[str]) -> dict[str, JSON]:
        compact = decode_compact(token, types=types)
        alg = str(compact.header["alg"])
        # INVARIANT: the configuration fixes the algorithms, the token only picks among them, and `choose_key`
        # wants a key that is for it. A symmetric one is never among them, so no public key can pass for a
        # secret (J05).
        if alg not in self._settings.algorithms:
            raise _refused("alg: not what this provider signs with")
        named = "kid" in compact.header
        return await by_keys(self._keys, named, lambda keys: claims_of(compact, alg, keys))

    async def userinfo(self, access_token: str) -> dict[str, JSON] | None:
        if not self._settings.userinfo:
            return None
        endpoint = (await self._metadata.get()).userinfo_endpoint
        if endpoint is None:
            return None
        headers = {"Authorization": f"Bearer {access_token}"}
        answer = await fetch(self._http, endpoint, headers=headers, tls=self._tls)
        _no_server_error(answer, "userinfo")
        if answer.status != 200:
            raise _refused(f"userinfo: status {answer.status}")
        if answer.media_type == "application/json":
            return _object(answer, "userinfo")
        if answer.media_type != "application/jwt":
            raise _refused("userinfo: neither JSON nor JWT")
        # Core 5.3.2: a signed answer names who made it and for whom; without a signature it is refused (D12).
        claims = await self.verify(answer.body.decode("ascii", "replace"))
        audience = claims.get("aud")
        if claims.get("iss") != self.issuer:
            raise _refused("userinfo: of another issuer")
        if self.client_id not in (audience if isinstance(audience, list) else [audience]):
            raise _refused("userinfo: for another client")
        return claims


def _refused(message: str, reason: Reason = Reason.LOGIN_TOKEN) -> ClientError:
    return ClientError(reason, message)


def _no_server_error(answer: Answer, what: str) -> None:
    if answer.status >= 500 or answer.status == 429:
        raise away(f"{what}: status {answer.status}")


def _object(answer: Answer, what: str) -> dict[str, JSON]:
    try:
        return read_object(answer.body)
    except ClientError:
        raise _refused(f"{what}: no JSON object") from None


def _read_tokens(answer: Answer, on_no: Reason) -> Tokens:
    """RFC 6749 5.1 and 5.2, D10. An error is an error with whatever status, also with 200."""
    _no_server_error(answer, "token")
    if answer.media_type != "application/json":
        raise _refused("token: no JSON")
    document = _object(answer, "token")
    if "error" in document or answer.status != 200:
        raise _said_no(document.get("error"), on_no)
    access_token, token_type = document.get("access_token"), document.get("token_type")
    if not isinstance(access_token, str) or not access_token:
        raise _refused("token: no access token")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise _refused("token: no bearer token")
    return Tokens(
        id_token=_optional_text(document, "id_token"),
        access_token=access_token,
        refresh_token=_optional_text(document, "refresh_token"),
        expires_in=_seconds(document.get("expires_in")),
    )


def _said_no(error: JSON, on_no: Reason) -> ClientError | WorldError:
    known = error if isinstance(error, str) and error in _ERRORS else "other"
    if known == "invalid_grant":
        return _refused("token: `invalid_grant`", on_no)
    if known in ("invalid_client", "unauthorized_client"):
        # The operator's mistake, or the provider's; whoever signs in can do nothing about it, and no session
        # ends.
        return away(f"token: this client is refused, `{known}`")
    return _refused(f"token: refused, `{known}`")


def _optional_text(document: Mapping[str, JSON], name: str) -> str | None:
    value = document.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise _refused(f"token: `{name}` is no text")
    return value


def _seconds(value: JSON) -> float | None:
    """RFC 6749 5.1 recommends `expires_in`; one that is no number is as good as none, for we do not rely on
    it."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
