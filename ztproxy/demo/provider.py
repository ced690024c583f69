"""A small but honest OpenID provider: code flow with PKCE, sessions of its own, step-up, refresh, logout.

It follows OpenID Connect Core, Discovery, RP-Initiated and Back-Channel Logout, and RFC 6749, 7636, 9207 and
9700 where they speak of what it does, so that a client that works with it works elsewhere. `acr`, `amr` and
`auth_time` are what happened, even where an application asked for more: then the application must refuse.

It is a demo: it keeps all in memory, has no rate limit, asks for no consent and prints the passwords on its
pages. Its one-time code is always the same; its security keys are real (WebAuthn), which browsers want a name
for in the issuer and no address. Tests and the demo reach its state through `app[STATE]`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from aiohttp import web

from ztproxy.demo.pages import page
from ztproxy.demo.people import METHODS, ONE_TIME_CODE, Person
from ztproxy.demo.provider_http import NO_STORE, STATE, cookie_name, redirect
from ztproxy.demo.provider_logout import logout, logout_confirmed
from ztproxy.demo.provider_requests import (
    AuthorizationError,
    NotOurs,
    TokenError,
    authenticate_client,
    code_verifier,
    parameters,
    service_scope,
)
from ztproxy.demo.provider_security_key import security_key_script
from ztproxy.demo.provider_sign_in import authorize, security_key, sign_in
from ztproxy.demo.provider_state import Client, Fault, ProviderState
from ztproxy.demo.sign_in_as import SignInFailed, sign_in_as

__all__ = [
    "STATE",
    "Client",
    "Fault",
    "ProviderState",
    "SignInFailed",
    "create_provider",
    "sign_in_as",
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CLAIMS = ["sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid"]
_CLAIMS += ["email", "email_verified", "name", "preferred_username", "groups"]


def create_provider(
    issuer: str,
    clients: Sequence[Client],
    people: Sequence[Person],
    *,
    clock: Callable[[], float] = time.time,
) -> web.Application:
    """The provider at `issuer`, an origin such as `http://localhost:9000` (no path, no slash at the end).

    `clock` gives seconds since the epoch. Raises `ValueError` for an issuer or a redirect URI that cannot
    work.
    """
    parts = urlsplit(issuer)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or issuer != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ValueError(f"`{issuer}` is not an origin")
    for uri in [uri for client in clients for uri in client.redirect_uris]:
        if "#" in uri or not urlsplit(uri).netloc:  # RFC 6749 §3.1.2: absolute, without a fragment
            raise ValueError(f"`{uri}` cannot be a redirect URI")
    app = web.Application(middlewares=[_counted_and_faulty, _refusals_answered])
    app[STATE] = ProviderState(issuer, clients, people, clock)
    for name, path, methods, handler in (
        ("home", "/", ["GET"], _home),
        ("discovery", "/.well-known/openid-configuration", ["GET"], _discovery),
        ("jwks", "/jwks.json", ["GET"], _jwks),
        ("authorize", "/authorize", ["GET", "POST"], authorize),
        ("sign_in", "/sign-in", ["POST"], sign_in),
        ("security_key", "/sign-in/security-key", ["POST"], security_key),
        ("security_key_script", "/security-key.js", ["GET"], security_key_script),
        ("token", "/token", ["POST"], _token),
        ("userinfo", "/userinfo", ["GET", "POST"], _userinfo),
        ("logout", "/logout", ["GET", "POST"], logout),
        ("logout_confirmed", "/logout/confirmed", ["POST"], logout_confirmed),
    ):
        resource = app.router.add_resource(path, name=name)
        for method in methods:
            resource.add_route(method, handler)
    return app


# Around every request


@web.middleware
async def _counted_and_faulty(request: web.Request, handler: Handler) -> web.StreamResponse:
    state = request.app[STATE]
    resource = request.match_info.route.resource
    name = (resource.name if resource is not None else None) or "unknown"
    state.hits[name] += 1
    fault = next((fault for endpoint, fault in state.faults.items() if endpoint == name), None)
    if fault is not None:
        await asyncio.sleep(fault.delay)
        if fault.status is not None:
            return web.Response(status=fault.status, text=fault.body, content_type=fault.content_type)
    return await handler(request)


@web.middleware
async def _refusals_answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotOurs as refused:
        return page(
            "provider_message",
            status=400,
            heading="This request cannot be answered",
            message=str(refused),
            one_time_code=ONE_TIME_CODE,
        )
    except AuthorizationError as refused:
        return redirect(
            request,
            refused.redirect_uri,
            error=refused.error,
            error_description=refused.description,
            state=refused.state,
        )
    except TokenError as refused:
        headers = dict(NO_STORE)
        if refused.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="ztproxy demo"'
        body = {"error": refused.error, "error_description": refused.description}
        return web.json_response(body, status=refused.status, headers=headers)


# What the provider says of itself


async def _home(request: web.Request) -> web.Response:
    state = request.app[STATE]
    return page(
        "provider_home",
        session=state.session(request.cookies.get(cookie_name(state, "sso"))),
        people=list(state.people.values()),
        methods=METHODS,
        one_time_code=ONE_TIME_CODE,
    )


async def _discovery(request: web.Request) -> web.Response:
    state = request.app[STATE]
    issuer = state.issuer
    return web.json_response(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "userinfo_endpoint": f"{issuer}/userinfo",
            "jwks_uri": f"{issuer}/jwks.json",
            "end_session_endpoint": f"{issuer}/logout",
            "scopes_supported": ["openid", "profile", "email", "groups", "offline_access"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": state.algorithms,
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "acr_values_supported": [method.acr for method in METHODS],
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "claims_supported": _CLAIMS,
            "authorization_response_iss_parameter_supported": True,
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
            "claims_parameter_supported": False,
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
        }
    )


async def _jwks(request: web.Request) -> web.Response:
    return web.json_response(request.app[STATE].jwks())


# Tokens


async def _token(request: web.Request) -> web.Response:
    state = request.app[STATE]
    try:
        given = await parameters(request)
    except ValueError as error:
        raise TokenError("invalid_request", str(error)) from None
    client = authenticate_client(state, request.headers.get("Authorization"), given)
    grant_type = given.get("grant_type")
    if grant_type == "client_credentials":
        tokens = state.issue_service_token(client, service_scope(client, given))
        return web.json_response(tokens, headers=NO_STORE)
    if grant_type == "authorization_code":
        grant = state.spend_code(
            given.get("code", ""), client, given.get("redirect_uri"), code_verifier(given)
        )
        nonce = grant.nonce if grant is not None else None
    elif grant_type == "refresh_token":
        grant, nonce = state.spend_refresh_token(given.get("refresh_token", ""), client), None
    else:
        raise TokenError("unsupported_grant_type", "there is no such grant_type here")
    if grant is None:
        raise TokenError("invalid_grant", "the grant is unknown, used, expired or not for this client")
    return web.json_response(state.issue_tokens(grant, nonce=nonce), headers=NO_STORE)


async def _userinfo(request: web.Request) -> web.Response:
    state = request.app[STATE]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    grant = state.access_grant(token) if scheme.lower() == "bearer" else None
    if grant is None:
        challenge = 'Bearer error="invalid_token"' if token else "Bearer"  # RFC 6750 §3.1
        return web.Response(status=401, headers={"WWW-Authenticate": challenge, **NO_STORE})
    return web.json_response(state.personal_claims(grant), headers=NO_STORE)
