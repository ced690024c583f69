"""Signing in and out, as pages: cookies and redirects around `gateway.sign_in`.

Knows: where a sign-in lives (at the auth host, or at each host itself) and the way there and back. Promises:
every redirect goes to an origin of the configuration and a path judged by `core.returning`; what a person
still has to do is asked of the one decision function, so that nobody is sent to sign in who need not be;
signing out takes a form of our own. Leaves every check of the sign-in itself to the gateway.

    one host            sign_in → provider → callback → back
    with an auth host   sign_in (app's host) → authorize (auth host) [→ provider → callback → authorize]
                        → ticket (app's host) → back
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from ztproxy.core.decision import Deny, Login, StepUp, decide
from ztproxy.core.evidence import Evidence, NoSession, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.normalise import canonical_path
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Request
from ztproxy.core.returning import safe_return
from ztproxy.core.routes import Route, RouteTable
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.known import Known
from ztproxy.gateway.ports import Clock, HandleSigner, SessionStore
from ztproxy.gateway.sign_in import CALLBACK_PATH, Refused, SignIn, Started
from ztproxy.gateway.witness import Witness
from ztproxy.surfaces.answers import PREFIX, Answer, Answers
from ztproxy.surfaces.pages import SAFE_FIELDS, Link, Pages
from ztproxy.surfaces.portal import Asked

OWN_PAGES = (f"{PREFIX}/apps", f"{PREFIX}/session")


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """How the session travels. Without a `domain` it is a `__Host-` cookie of one host."""

    name: str
    domain: str | None

    def set(self, value: str, max_age: int) -> Field:
        where = f"; Domain={self.domain}" if self.domain else ""
        flags = "; Path=/; Secure; HttpOnly; SameSite=Lax"
        return b"Set-Cookie", f"{self.name}={value}; Max-Age={max_age}{where}{flags}".encode()

    def clear(self) -> Field:
        return self.set("", 0)

    def shared_with(self, host: str) -> bool:
        """Whether the browser shows this cookie to `host` because of its domain."""
        return self.domain is not None and (host == self.domain or host.endswith(f".{self.domain}"))


@dataclass(frozen=True, slots=True)
class Errand:
    """What a sign-in is for: a path of an app, and how to come back to this host and go on.

    `app` is the app's origin, `route` None where nothing of an app is wanted (our own pages). `go_on` is a
    path of ours on this host at which the errand is taken up again.
    """

    app: str
    path: str
    route: Route | None
    request: Request
    go_on: str


class SigningIn:
    """The pages of signing in and out. `providers` are (name, title) in the order of the configuration."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        sign_in: SignIn,
        witness: Witness,
        store: SessionStore,
        signer: HandleSigner,
        clock: Clock,
        pages: Pages,
        answers: Answers,
        cookie: SessionCookie,
        auth_origin: str | None,
        providers: Sequence[tuple[str, str]],
        counted: Callable[[str, str], None],
    ) -> None:
        self._routes, self._sign_in, self._witness = routes, sign_in, witness
        self._store, self._signer, self._clock = store, signer, clock
        self._pages, self._answers, self._cookie = pages, answers, cookie
        self._auth_origin, self._providers, self._counted = auth_origin, tuple(providers), counted

    # -- at the host a person came to --------------------------------------------------------------------

    async def sign_in(self, asked: Asked) -> Answer:
        """The start: on to the auth host, or, where the login lives here, to the provider."""
        here = self.origin(asked.request)
        back = _way_back(asked.param("rd"))
        if self._auth_origin is None or here == self._auth_origin:
            return await self._go_on(asked, self._errand(asked.request, here, back, _own("sign_in", rd=back)))
        if self._cookie.shared_with(asked.request.host):
            return _redirect(self._auth_origin + _own("authorize", app=here, rd=back))
        invitation = self._sign_in.tickets.invite(_cookies(asked), by_hand=asked.param("by_hand") is not None)
        way = _own("authorize", app=here, rd=back, bind=invitation.binding_hash)
        fields = [_flow_cookie(invitation.cookie_name, invitation.cookie_value, 3600)]
        fields += map(_clear_flow_cookie, invitation.clear_cookies)
        return _redirect(self._auth_origin + way, fields)

    async def ticket(self, asked: Asked) -> Answer:
        """Back from the auth host: this host's own handle of the session, for a ticket."""
        here = self.origin(asked.request)
        redeemed = await self._sign_in.tickets.redeem(asked.param("code") or "", here, _cookies(asked))
        loaded = await self._store.load(redeemed.handle)
        if loaded is None:
            raise ClientError(Reason.SESSION_UNKNOWN)
        before = await self._current(asked.request)
        if before is not None and before.session.id != loaded.session.id:
            # INVARIANT: one browser, one person at this host; whoever was signed in here before no longer is.
            await self._store.end(before.handle)
        fields = self._signed_in(asked, redeemed.handle, loaded.session)
        fields += map(_clear_flow_cookie, redeemed.clear_cookies)
        return _redirect(here + _way_back(redeemed.return_to), fields)

    # -- at the host where the login lives ---------------------------------------------------------------

    async def authorize(self, asked: Asked) -> Answer:
        """At the auth host: sign in if need be, then back to the app's host with a ticket."""
        here, app = self.origin(asked.request), asked.param("app") or ""
        if here != self._auth_origin or not self._is_ours(app):
            raise ClientError(Reason.HTTP_TARGET, "authorize: not for an origin of ours, or not here")
        back, bind = _way_back(asked.param("rd")), asked.param("bind") or ""
        errand = self._errand(asked.request, app, back, _own("authorize", app=app, rd=back, bind=bind))
        return await self._go_on(asked, errand)

    async def start(self, asked: Asked) -> Answer:
        """A provider was chosen: the last segment of the path names it."""
        chosen = asked.request.path.readings[0][-1]
        here, app = self.origin(asked.request), asked.param("app")
        back = _way_back(asked.param("rd"))
        if app is None:
            errand = self._errand(asked.request, here, back, _own("sign_in", rd=back))
        elif here == self._auth_origin and self._is_ours(app):
            go_on = _own("authorize", app=app, rd=back, bind=asked.param("bind") or "")
            errand = self._errand(asked.request, app, back, go_on)
        else:
            raise ClientError(Reason.HTTP_TARGET, "start: not for an origin of ours, or not here")
        if chosen not in dict(self._choices(errand)):
            raise ClientError(Reason.NO_SUCH_ROUTE, "start: no provider of this name here")
        return await self._go_on(asked, errand, chosen)

    async def callback(self, asked: Asked) -> Answer:
        """The provider's answer; the last segment of the path names the provider."""
        name = asked.request.path.readings[0][-1]
        here = self.origin(asked.request)
        current = self._handle(asked.request)
        result = await self._sign_in.callback(
            asked.params, _cookies(asked), f"{here}{CALLBACK_PATH}{name}", current
        )
        if isinstance(result, Started):
            return _redirect(result.redirect_url, _flow(result))
        cleared = [_clear_flow_cookie(cookie) for cookie in result.clear_cookies]
        if isinstance(result, Refused):
            self._counted(result.provider, result.reason)
            asked.outcome = asked.outcome._replace(decision="sign_in_refused", reasons=(result.reason,))
            answer = (
                self._answers.failure(asked.request, result.reason, asked.request_id)
                if result.reason.status >= 500
                else self._answers.not_signed_in(
                    asked.request, result.reason, asked.request_id, again=_again(result.return_to)
                )
            )
            return answer._replace(fields=(*answer.fields, *cleared))
        self._counted(name, "signed_in")
        asked.outcome = asked.outcome._replace(decision="sign_in")
        fields = self._signed_in(asked, result.handle, result.session) + cleared
        return _redirect(here + result.return_to, fields)

    # -- signing out -------------------------------------------------------------------------------------

    async def sign_out(self, asked: Asked) -> Answer:
        """Asks first: a link or an image of another site must not sign anybody out (S25)."""
        current = await self._current(asked.request)
        person = None if current is None else current.session.identity.email
        page = self._pages.render("sign_out.html", person=person)
        return Answer(200, page.fields, page.body)

    async def signing_out(self, asked: Asked) -> Answer:
        """Ends the session everywhere, then tells the provider by way of the browser."""
        if not _same_origin(asked.request, self.origin(asked.request)):
            raise ClientError(Reason.FORGED_FORM, "sign_out: sent from somewhere else")
        here = self._auth_origin or self.origin(asked.request)
        gone, handle = f"{here}{PREFIX}/signed_out", self._handle(asked.request)
        onward: str | None = None
        if handle is not None:
            current = await self._current(asked.request)
            if current is not None:
                onward = await self._sign_in.logout(handle, gone)
                self._witness.known.forget_session(current.session.id)
                asked.outcome = asked.outcome._replace(
                    decision="sign_out",
                    subject=current.session.identity.subject,
                    session=current.session.id,
                )
        if onward is None:
            return _redirect(gone, [self._cookie.clear()], 303)
        # A redirect out of a form's answer would need every provider in `form-action`; a page that leads on
        # by itself needs nothing, and says what happened while the provider is slow.
        page = self._pages.message(
            "You are signed out here",
            "Your session has ended for every app behind this proxy. "
            "Next, the sign-in service is told, so that it does not sign you in again by itself.",
            links=(Link(onward, "Go on"),),
        )
        fields = (*page.fields, self._cookie.clear(), (b"Refresh", f"0; url={onward}".encode()))
        return Answer(200, fields, page.body)

    async def signed_out(self, asked: Asked) -> Answer:
        page = self._pages.render("signed_out.html")
        return Answer(200, page.fields, page.body)

    # -- how it works ------------------------------------------------------------------------------------

    def sign_in_first(self, asked: Asked) -> Answer:
        """For a page of ours that needs a person."""
        return _redirect(self.origin(asked.request) + _own("sign_in", rd=asked.request.path.text))

    def origin(self, request: Request) -> str:
        """The origin of this host as the configuration writes it. Never what a header says (F17)."""
        if self._auth_origin is not None and request.host == urlsplit(self._auth_origin).hostname:
            return self._auth_origin
        routes = self._routes.of_host(request.host)
        if not routes:
            raise ClientError(Reason.NO_SUCH_HOST)
        return routes[0].site(request)

    def _is_ours(self, app: str) -> bool:
        host = _host_of(app)
        return any(
            app
            == (route.origin.replace(route.host, host, 1) if route.host.startswith("*.") else route.origin)
            for route in self._routes.of_host(host)
        )

    def _errand(self, request: Request, app: str, path: str, go_on: str) -> Errand:
        host, (plain, mark, query) = _host_of(app), path.partition("?")
        canonical = canonical_path(plain.encode())
        if isinstance(canonical, Reason):  # `safe_return` accepts canonical paths only
            raise ClientError(canonical)
        visit = request._replace(
            method="GET", host=host, path=canonical, query=mark + query, upgrade=None, origin=None
        )
        found = self._routes.match(host, canonical)
        route = None if isinstance(found, Reason) or path in OWN_PAGES else found
        return Errand(app, path, route, visit, go_on)

    async def _go_on(self, asked: Asked, errand: Errand, chosen: str | None = None) -> Answer:
        """What the person still has to do on this host for the errand, or the way on when nothing is left."""
        now = self._clock()
        found = await self._witness.gather(asked.request, errand.route, now)
        if isinstance(found, Unavailable):
            raise WorldError(found.reason)
        if errand.route is None:
            todo: Login | StepUp | None = Login((found.reason,)) if isinstance(found, NoSession) else None
        else:
            known = found.session if isinstance(found, Known) else found
            decision = decide(errand.route, errand.request, Evidence(known, now))
            todo = decision if isinstance(decision, Login | StepUp) else None
            if todo is None and isinstance(decision, Deny) and isinstance(found, NoSession):
                todo = Login(decision.reasons)  # only a person can be told why
        if todo is None:
            return await self._arrive(asked, errand)
        if isinstance(todo, StepUp):
            return await self._begin(asked, errand, todo.session.provider, todo)
        choices = self._choices(errand)
        if chosen is None and len(choices) > 1:
            return self._choose(asked, errand, choices)
        return await self._begin(asked, errand, chosen or choices[0][0], None)

    async def _begin(self, asked: Asked, errand: Errand, provider: str, step: StepUp | None) -> Answer:
        try:
            started = await self._sign_in.start(
                provider,
                app=self.origin(asked.request),
                return_to=errand.go_on,
                cookies=_cookies(asked),
                existing=None if step is None else step.session,
                rank=step.rank if step is not None else errand.route.sensitivity.rank if errand.route else 1,
                max_age=None if step is None else step.max_age,
                by_hand=asked.param("by_hand") is not None,
            )
        except ClientError as error:
            if error.reason is not Reason.LOGIN_TOO_MANY:
                raise
            again = f"{errand.go_on}&by_hand=1"
            return self._answers.not_signed_in(asked.request, error.reason, asked.request_id, again=again)
        return _redirect(started.redirect_url, _flow(started))

    async def _arrive(self, asked: Asked, errand: Errand) -> Answer:
        here = self.origin(asked.request)
        if errand.app == here or self._cookie.shared_with(_host_of(errand.app)):
            path = f"{PREFIX}/apps" if errand.route is None and errand.path == "/" else errand.path
            return _redirect(errand.app + path)
        handle = self._handle(asked.request)
        assert handle is not None  # somebody arrives only with a session
        bind = asked.param("bind") or ""
        code = await self._sign_in.tickets.issue(handle, errand.app, bind, errand.path)
        return _redirect(errand.app + _own("ticket", code=code))

    def _choices(self, errand: Errand) -> list[tuple[str, str]]:
        allowed = errand.route.providers if errand.route is not None else ()
        return [one for one in self._providers if not allowed or one[0] in allowed]

    def _choose(self, asked: Asked, errand: Errand, choices: Sequence[tuple[str, str]]) -> Answer:
        query = errand.go_on.partition("?")[2]
        links = [Link(f"{PREFIX}/start/{quote(name)}?{query}", title) for name, title in choices]
        page = self._pages.render("choose.html", choices=links, destination=_host_of(errand.app))
        return Answer(200, page.fields, page.body)

    def _signed_in(self, asked: Asked, handle: str, session: Session) -> list[Field]:
        if asked.request.session is not None:
            self._witness.known.forget(asked.request.session)
        asked.outcome = asked.outcome._replace(
            subject=session.identity.subject, email=session.identity.email, session=session.id
        )
        lifetime = max(1, int(session.expires_at - self._clock()))
        return [self._cookie.set(self._signer.seal(handle), lifetime)]

    def _handle(self, request: Request) -> str | None:
        return None if request.session is None else self._signer.open(request.session)

    async def _current(self, request: Request) -> Known | None:
        found = await self._witness.gather(request, None, self._clock())
        if isinstance(found, Unavailable):
            raise WorldError(found.reason)
        return found if isinstance(found, Known) else None


def _own(page: str, **params: str) -> str:
    return f"{PREFIX}/{page}?{urlencode({key: value for key, value in params.items() if value})}"


def _way_back(value: str | None) -> str:
    return value if value in OWN_PAGES else safe_return(value or "/")


def _again(return_to: str) -> str:
    return return_to if return_to.startswith(f"{PREFIX}/") else _own("sign_in", rd=return_to)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


def _redirect(where: str, fields: Sequence[Field] = (), status: int = 302) -> Answer:
    return Answer(status, ((b"Location", where.encode()), *SAFE_FIELDS, *fields), b"")


def _cookies(asked: Asked) -> Mapping[str, str]:
    return dict(asked.request.cookies)


def _flow(started: Started) -> list[Field]:
    cookie = _flow_cookie(started.cookie_name, started.cookie_value, started.max_age)
    return [cookie, *map(_clear_flow_cookie, started.clear_cookies)]


def _flow_cookie(name: str, value: str, max_age: int) -> Field:
    flags = "Path=/; Secure; HttpOnly; SameSite=Lax"
    return b"Set-Cookie", f"{name}={value}; Max-Age={max_age}; {flags}".encode()


def _clear_flow_cookie(name: str) -> Field:
    return _flow_cookie(name, "", 0)


def _same_origin(request: Request, site: str) -> bool:
    """Fetch metadata where the browser sends it, else the Origin of the form; neither means no."""
    fetch_site = request.field(b"sec-fetch-site")
    if fetch_site is not None:
        return fetch_site == b"same-origin"
    return request.origin is not None and request.origin == site
