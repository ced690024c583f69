"""The way out: RP-Initiated Logout for the browser, Back-Channel Logout for the applications."""

import asyncio
import hashlib
import logging
import secrets

import aiohttp
from aiohttp import web

from ztproxy.demo.pages import page
from ztproxy.demo.people import ONE_TIME_CODE
from ztproxy.demo.provider_http import NO_STORE, STATE, cookie_name, parameters_for_page
from ztproxy.demo.provider_requests import NotOurs, with_query
from ztproxy.demo.provider_state import Client, ProviderState, SSOSession

_log = logging.getLogger("ztproxy.demo.provider")
_BACKCHANNEL_TIMEOUT = aiohttp.ClientTimeout(total=3)


async def logout(request: web.Request) -> web.StreamResponse:
    """RP-Initiated Logout §2: without a hint that fits the session at hand, the visitor is asked first."""
    state = request.app[STATE]
    given = await parameters_for_page(request)
    hint, _ = _read_logout(state, given)
    handle = request.cookies.get(cookie_name(state, "sso"))
    session = state.session(handle)
    if handle is None or session is None or (hint is not None and hint.get("sid") == session.sid):
        return await _end_session(request, given)
    return page(
        "provider_logout",
        username=session.username,
        confirm=_confirmation(handle),
        repeated=given,
        one_time_code=ONE_TIME_CODE,
    )


async def logout_confirmed(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    given = await parameters_for_page(request)
    handle = request.cookies.get(cookie_name(state, "sso"), "")
    if not secrets.compare_digest(given.get("confirm", "").encode(), _confirmation(handle).encode()):
        raise NotOurs("This sign-out page was shown to another browser or for another session.")
    return await _end_session(request, given)


def _confirmation(handle: str) -> str:
    return hashlib.sha256(f"sign out {handle}".encode()).hexdigest()


def _read_logout(state: ProviderState, given: dict[str, str]) -> tuple[dict[str, object] | None, str | None]:
    """The claims of `id_token_hint` and where to go afterwards, which must be registered exactly."""
    hint = None
    client_id = given.get("client_id")
    if "id_token_hint" in given:
        hint = state.read_hint(given["id_token_hint"])
        if hint is None or client_id not in (None, hint["aud"]):
            raise NotOurs("The id_token_hint is not a token of this provider for this application.")
        client_id = hint["aud"]
    redirect_uri = given.get("post_logout_redirect_uri")
    if redirect_uri is None:
        return hint, None
    client = state.clients.get(client_id or "")
    if client is None or redirect_uri not in client.post_logout_redirect_uris:
        raise NotOurs("The post_logout_redirect_uri is not registered for this application.")
    return hint, with_query(redirect_uri, {"state": given.get("state")})


async def _end_session(request: web.Request, given: dict[str, str]) -> web.StreamResponse:
    state = request.app[STATE]
    _, target = _read_logout(state, given)
    session = state.sign_out(request.cookies.get(cookie_name(state, "sso"), ""))
    if session is not None:
        await _tell_clients(state, session)
    if target is not None:
        response = web.Response(status=303, headers={"Location": target, **NO_STORE})
    else:
        response = page(
            "provider_message",
            heading="Signed out",
            message="You are signed out of the demo provider.",
            one_time_code=ONE_TIME_CODE,
        )
    response.del_cookie(cookie_name(state, "sso"), path="/")
    return response


async def _tell_clients(state: ProviderState, session: SSOSession) -> None:
    """OpenID Connect Back-Channel Logout §2.5: once, at the same time, and a deaf client holds up nobody."""
    told = [
        client for name in sorted(session.clients) if (client := state.clients[name]).backchannel_logout_uri
    ]
    if not told:
        return

    async def tell(http: aiohttp.ClientSession, client: Client) -> None:
        assert client.backchannel_logout_uri is not None
        form = {"logout_token": state.logout_token(client, session)}
        try:
            async with http.post(client.backchannel_logout_uri, data=form, allow_redirects=False) as answer:
                outcome = str(answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = type(error).__name__
        _log.info("back-channel logout at `%s`: %s", client.client_id, outcome)

    async with aiohttp.ClientSession(timeout=_BACKCHANNEL_TIMEOUT) as http:
        await asyncio.gather(*(tell(http, client) for client in told))
