"""The provider's foreign input: form and query parameters, authorization requests, client credentials.

Each function gives a value that passed every check it names, or raises one of the refusals below, which say
where the answer goes: to the visitor (`NotOurs`), back to the application (`AuthorizationError`), or to the
application's own request (`TokenError`). Nothing here issues or ends anything.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from urllib.parse import unquote_plus, urlencode

from aiohttp import web

from ztproxy.demo.provider_state import AuthorizationRequest, Client, ProviderState

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # RFC 7636 §4.2: the base64url of a SHA-256
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # §4.1
_PROMPTS = frozenset({"none", "login", "consent", "select_account"})


class NotOurs(Exception):
    """The browser must not be sent anywhere (RFC 6749 §4.1.2.1); the message is for the visitor."""


class AuthorizationError(Exception):
    """An error the application is told of at its redirect URI."""

    def __init__(self, redirect_uri: str, state: str | None, error: str, description: str) -> None:
        super().__init__(error)
        self.redirect_uri = redirect_uri
        self.state = state
        self.error = error
        self.description = description


class TokenError(Exception):
    """An error of the token endpoint (RFC 6749 §5.2)."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status


async def parameters(request: web.Request) -> dict[str, str]:
    """The query of a GET, the form of a POST. Raises `ValueError` for one given twice (RFC 6749 §3.1)."""
    pairs = await request.post() if request.method == "POST" else request.query
    # A multidict names a repeated key only once when it is iterated; its length counts every pair.
    if len(set(pairs)) != len(pairs):
        raise ValueError("a parameter is given twice")
    return {name: value for name, value in pairs.items() if isinstance(value, str) and value != ""}


def read_authorization_request(state: ProviderState, given: Mapping[str, str]) -> AuthorizationRequest:
    """Checks an authorization request of the code flow (OpenID Connect Core §3.1.2.1) with PKCE.

    Stricter than Core: PKCE with S256 is required of every client (RFC 9700 §2.1.1).
    """
    client = state.clients.get(given.get("client_id", ""))
    if client is None:
        raise NotOurs("No application is registered here under this client_id.")
    redirect_uri = given.get("redirect_uri")
    if redirect_uri not in client.redirect_uris:
        raise NotOurs("The redirect_uri is not registered for this application.")

    def refuse(error: str, description: str) -> AuthorizationError:
        return AuthorizationError(redirect_uri, given.get("state"), error, description)

    for name in ("request", "request_uri", "registration"):
        if name in given:
            raise refuse(f"{name}_not_supported", f"{name} is not supported")
    if given.get("response_type") != "code":
        raise refuse("unsupported_response_type", "response_type must be code")
    if given.get("response_mode", "query") != "query":
        raise refuse("invalid_request", "response_mode must be query")
    scope = tuple(given.get("scope", "").split())
    if "openid" not in scope:
        raise refuse("invalid_scope", "scope must contain openid")
    challenge = given.get("code_challenge", "")
    if given.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise refuse("invalid_request", "PKCE with code_challenge_method S256 is required")
    prompt = frozenset(given.get("prompt", "").split())
    if not prompt <= _PROMPTS or ("none" in prompt and len(prompt) > 1):
        raise refuse("invalid_request", "prompt is not understood")
    max_age = given.get("max_age")
    if max_age is not None and not re.fullmatch(r"[0-9]{1,9}", max_age):
        raise refuse("invalid_request", "max_age must be a number of seconds")
    hinted_sub = None
    if "id_token_hint" in given:
        hint = state.read_hint(given["id_token_hint"])
        if hint is None:
            raise refuse("invalid_request", "id_token_hint is not a token of this provider")
        hinted_sub = hint["sub"]
    return AuthorizationRequest(
        client=client,
        redirect_uri=redirect_uri,
        scope=scope,
        code_challenge=challenge,
        state=given.get("state"),
        nonce=given.get("nonce"),
        prompt=prompt,
        max_age=None if max_age is None else int(max_age),
        acr_values=tuple(given.get("acr_values", "").split()),
        login_hint=given.get("login_hint"),
        hinted_sub=hinted_sub,
    )


def authenticate_client(state: ProviderState, authorization: str | None, given: Mapping[str, str]) -> Client:
    """The client that proved itself by `client_secret_basic` or `client_secret_post`, not by both."""
    client_id, secret = given.get("client_id"), given.get("client_secret")
    if authorization is not None:
        if secret is not None:
            raise TokenError("invalid_request", "two ways of client authentication at once")
        basic_id, secret = _basic(authorization)
        if client_id not in (None, basic_id):
            raise TokenError("invalid_request", "two different client ids")
        client_id = basic_id
    client = state.clients.get(client_id or "")
    if client is None or not hmac.compare_digest(client.client_secret.encode(), (secret or "").encode()):
        raise TokenError("invalid_client", "client authentication failed", status=401)
    return client


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, credentials = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError("not the Basic scheme")
        name, colon, secret = base64.b64decode(credentials, validate=True).decode("utf-8").partition(":")
        if not colon:
            raise ValueError("no colon")
    except (binascii.Error, ValueError):
        raise TokenError("invalid_client", "the Authorization header is not understood", status=401) from None
    return unquote_plus(name), unquote_plus(secret)  # RFC 6749 §2.3.1: both are form-encoded first


def code_verifier(given: Mapping[str, str]) -> str:
    verifier = given.get("code_verifier", "")
    if not _VERIFIER.fullmatch(verifier):
        raise TokenError("invalid_grant", "code_verifier is missing or malformed")
    return verifier


def service_scope(client: Client, given: Mapping[str, str]) -> tuple[str, ...]:
    """What a service asks for in its own name (RFC 6749 §4.4.2); all it may have where it does not say."""
    if not client.audience:
        raise TokenError("unauthorized_client", "this client gets no tokens in its own name")
    scope = tuple(given.get("scope", "").split()) or client.scopes
    if not set(scope) <= set(client.scopes):
        raise TokenError("invalid_scope", "a scope is not one of this client's")
    return scope


def with_query(uri: str, given: Mapping[str, str | None]) -> str:
    """`uri` with these parameters after those it was registered with, each byte of which stays as it was."""
    added = urlencode({name: value for name, value in given.items() if value is not None})
    return f"{uri}{'&' if '?' in uri else '?'}{added}" if added else uri
