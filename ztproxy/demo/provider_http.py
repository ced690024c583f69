"""What the provider's handlers share: state, parameters, cookies, and the way back to an application."""

import hashlib

from aiohttp import web

from ztproxy.demo.provider_requests import NotOurs, parameters, with_query
from ztproxy.demo.provider_state import ProviderState

STATE: web.AppKey[ProviderState] = web.AppKey("ztproxy.demo.provider", ProviderState)
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def redirect(request: web.Request, redirect_uri: str, **given: str | None) -> web.Response:
    # RFC 9207 §2: the issuer in every answer, errors too, so that a client cannot mix two providers up.
    location = with_query(redirect_uri, {**given, "iss": request.app[STATE].issuer})
    # RFC 9700 §4.12: 303, since 307 would repeat the form with the password at the application.
    return web.Response(
        status=303, headers={"Location": location, **NO_STORE, "Referrer-Policy": "no-referrer"}
    )


async def parameters_for_page(request: web.Request) -> dict[str, str]:
    try:
        return await parameters(request)
    except ValueError as error:
        raise NotOurs(f"The request is malformed: {error}.") from None


def cookie_name(state: ProviderState, name: str) -> str:
    """Cookies know no ports, so the name tells two providers on one host apart."""
    return f"demo_{name}_{hashlib.sha256(state.issuer.encode()).hexdigest()[:8]}"


def set_cookie(state: ProviderState, response: web.Response, name: str, value: str) -> None:
    secure = state.issuer.startswith("https://")
    response.set_cookie(
        cookie_name(state, name), value, path="/", httponly=True, samesite="Lax", secure=secure
    )
