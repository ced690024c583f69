"""The browser's way through the provider: the authorization endpoint and the sign-in pages.

A visitor whose session at the provider is enough for what an application asks is sent back at once; anyone
else sees the sign-in page, which belongs to the browser it was shown to.
"""

import secrets

from aiohttp import web

from ztproxy.demo import provider_security_key
from ztproxy.demo.pages import page
from ztproxy.demo.people import METHODS, ONE_TIME_CODE, Method, Person
from ztproxy.demo.provider_http import STATE, cookie_name, parameters_for_page, redirect, set_cookie
from ztproxy.demo.provider_requests import AuthorizationError, NotOurs, read_authorization_request
from ztproxy.demo.provider_state import (
    AuthorizationRequest,
    ProviderState,
    SSOSession,
    rank,
)
from ztproxy.demo.webauthn import NotProven

_SECURITY_KEY = METHODS[-1]
_DISABLED = "This account is disabled."


async def authorize(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    asked = read_authorization_request(state, await parameters_for_page(request))
    session = state.session(request.cookies.get(cookie_name(state, "sso")))
    if session is not None and not _must_sign_in(state, asked, session):
        return _answer_with_code(request, asked, session)
    if "none" in asked.prompt:
        raise AuthorizationError(
            asked.redirect_uri, asked.state, "login_required", "the visitor must sign in, and prompt is none"
        )
    browser = request.cookies.get(cookie_name(state, "browser")) or secrets.token_urlsafe(32)
    name = state.await_sign_in(asked, browser)
    response = _sign_in_page(state, asked, name, person=_expected_person(state, asked, session))
    set_cookie(state, response, "browser", browser)
    return response


def _must_sign_in(state: ProviderState, asked: AuthorizationRequest, session: SSOSession) -> bool:
    """Whether the session at hand is not enough for what is asked (OpenID Connect Core §3.1.2.1)."""
    if asked.prompt & {"login", "select_account"}:
        return True
    age = state.clock() - session.auth_time
    if asked.max_age is not None and (asked.max_age == 0 or age > asked.max_age):
        return True
    ranks = [place for acr in asked.acr_values if (place := rank(acr)) is not None]
    if ranks and METHODS.index(session.method) < min(ranks):
        return True
    hinted = _hinted_person(state, asked)
    return hinted is not None and hinted.username != session.username


def _hinted_person(state: ProviderState, asked: AuthorizationRequest) -> Person | None:
    return next(
        (
            person
            for person in state.people.values()
            if asked.hinted_sub == person.sub or asked.login_hint in (person.username, person.email)
        ),
        None,
    )


def _expected_person(
    state: ProviderState, asked: AuthorizationRequest, session: SSOSession | None
) -> str | None:
    hinted = _hinted_person(state, asked)
    if hinted is not None:
        return hinted.username
    return session.username if session is not None and "select_account" not in asked.prompt else None


def _wanted_method(asked: AuthorizationRequest) -> Method | None:
    """The first known of `acr_values`, which the application lists in the order of preference."""
    return next((METHODS[place] for acr in asked.acr_values if (place := rank(acr)) is not None), None)


def _sign_in_page(
    state: ProviderState,
    asked: AuthorizationRequest,
    name: str,
    *,
    person: str | None,
    method: str | None = None,
    error: str | None = None,
) -> web.Response:
    wanted = _wanted_method(asked)
    return page(
        "sign_in",
        status=422 if error else 200,
        sign_in=name,
        client_id=asked.client.client_id,
        people=list(state.people.values()),
        methods=METHODS,
        chosen_person=person,
        chosen_method=method or (wanted.id if wanted else METHODS[0].id),
        wanted=wanted.label if wanted else None,
        error=error,
        one_time_code=ONE_TIME_CODE,
    )


async def sign_in(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    given = await parameters_for_page(request)
    name, asked = _shown(request, given)
    person = state.people.get(given.get("person", ""))
    method = next((method for method in METHODS if method.id == given.get("method")), None)
    error = _sign_in_error(state, person, method, given)
    if error is not None or person is None or method is None:
        return _sign_in_page(
            state, asked, name, person=given.get("person"), method=given.get("method"), error=error
        )
    if method is _SECURITY_KEY:
        return provider_security_key.ask(state, name, person)
    return _signed_in(request, name, asked, person, method)


async def security_key(request: web.Request) -> web.StreamResponse:
    """What the security key answered; after a registration it is asked once more."""
    state = request.app[STATE]
    given = await parameters_for_page(request)
    name, asked = _shown(request, given)
    question = state.asked_key(name)
    if question is None:
        raise NotOurs("The security key was not asked anything, or has answered already.")
    person = state.people[question.username]
    try:
        provider_security_key.learn(state, question, given.get("answer", ""))
    except NotProven as error:
        return _sign_in_page(
            state, asked, name, person=person.username, method=_SECURITY_KEY.id, error=str(error)
        )
    if person.username in state.disabled:
        raise NotOurs(_DISABLED)
    if question.registers:
        return provider_security_key.ask(state, name, person)
    return _signed_in(request, name, asked, person, _SECURITY_KEY)


def _shown(request: web.Request, given: dict[str, str]) -> tuple[str, AuthorizationRequest]:
    """The sign-in page that is sent back, and what it was shown for."""
    state, name = request.app[STATE], given.get("sign_in", "")
    # The page belongs to the browser it was shown to: else one could sign a stranger's browser in as oneself.
    pending = state.pending_sign_in(name, request.cookies.get(cookie_name(state, "browser")))
    if pending is None:
        raise NotOurs("This sign-in page is too old, was used already or was shown to another browser.")
    asked = pending.request
    if "cancel" in given:
        del state.pending[name]
        raise AuthorizationError(
            asked.redirect_uri, asked.state, "access_denied", "the visitor cancelled the sign-in"
        )
    return name, asked


def _signed_in(
    request: web.Request, name: str, asked: AuthorizationRequest, person: Person, method: Method
) -> web.Response:
    state = request.app[STATE]
    del state.pending[name]
    handle = state.sign_in(request.cookies.get(cookie_name(state, "sso")), person.username, method)
    response = _answer_with_code(request, asked, state.sessions[handle])
    set_cookie(state, response, "sso", handle)
    return response


def _sign_in_error(
    state: ProviderState, person: Person | None, method: Method | None, given: dict[str, str]
) -> str | None:
    if person is None or method is None:
        return "Choose who you are and how you sign in."
    # The first key of a person is registered at its first use, and nobody but them may do that.
    registers = method is _SECURITY_KEY and not state.security_keys_of(person.username)
    if ("pwd" in method.amr or registers) and not _same(given.get("password"), person.password):
        return "The password is not right. It is the user name."
    if "otp" in method.amr and not _same(given.get("one_time_code"), ONE_TIME_CODE):
        return f"The one-time code is not right. It is {ONE_TIME_CODE}."
    if person.username in state.disabled:
        return _DISABLED
    return None


def _same(given: str | None, expected: str) -> bool:
    return secrets.compare_digest((given or "").encode(), expected.encode())


def _answer_with_code(request: web.Request, asked: AuthorizationRequest, session: SSOSession) -> web.Response:
    code = request.app[STATE].issue_code(asked, session)
    return redirect(request, asked.redirect_uri, code=code, state=asked.state)
