"""Signing in and out, as pages: cookies and redirects around `gateway.sign_in`.

Knows: where a sign-in lives (at the auth host, or at each host itself) and the way there and back. Promises:
every redirect goes to an origin of the configuration and a path judged by `core.returning`; what a person
still has to do is asked of the one decision function, so that nobody is sent to sign in who need not be;
signing out takes a form of our own. Leaves every check of the sign-in itself to the gateway.

    one host            sign_in → provider → callback → back
    with an auth host   sign_in (app's host) → authorize (auth host) [→ provider → callback → authorize]
                        → ticket (app's host) → back

What a policy asks of a device can be answered at the app's host alone, where the browser shows its
certificate. So that host says which rank it lacks, and the auth host sees to it: else each would send the
person to the other for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

from ztproxy.core.assurance import LOWEST, MOST
from ztproxy.core.conditions import Source
from ztproxy.core.decision import Deny, Login, StepUp, decide, rank_locks_ask
from ztproxy.core.device import NoDevice, NotAsked, OnDevice
from ztproxy.core.evidence import Evidence, NoSession, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.locks import Lock
from ztproxy.core.normalise import canonical_path
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Request
from ztproxy.core.returning import safe_return
from ztproxy.core.route_table import RouteTable
from ztproxy.core.routes import Route
from ztproxy.core.sessions import at, needs_new_sign_in
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.known import Known
from ztproxy.gateway.lease import Meeting
from ztproxy.gateway.logout import Logout
from ztproxy.gateway.parallel import COOKIE_AGE
from ztproxy.gateway.ports import Clock, HandleSigner, SessionStore
from ztproxy.gateway.sign_in import CALLBACK_PATH, Refused, SignIn, Started, TooManyStarts
from ztproxy.gateway.witness import Witness, seen
from ztproxy.surfaces.answers import PREFIX, Answer, Answers
from ztproxy.surfaces.cookies import SessionCookie, clear_flows, flow_cookie, spend_flows
from ztproxy.surfaces.origins import Origins, host_of
from ztproxy.surfaces.pages import SAFE_FIELDS, Link, Pages
from ztproxy.surfaces.portal import Asked, once
from ztproxy.surfaces.signed_out import ended, unconfirmed

_ANEW, _DONE = "1", "0"
_OF_DEVICES = frozenset({Reason.DEVICE_UNBOUND, Reason.DEVICE_MISMATCH})
_RANKS = frozenset(str(rank) for rank in range(LOWEST, MOST + 1))
APPS = f"{PREFIX}/apps"
OWN_PAGES = (APPS, f"{PREFIX}/session", f"{PREFIX}/")


@dataclass(frozen=True, slots=True)
class Errand:
    """What a sign-in is for: a path of an app, and how to come back to this host and go on.

    `app` is the app's origin, `route` None where nothing of an app is wanted (our own pages). `go_on` is a
    path of ours on this host at which the errand is taken up again, `again` one to begin it again. `rank` is
    what the app's host said it lacks, and `anew` that only another sign-in will do (`_ANEW`), or that there
    was one (`_DONE`): whoever wrote the address may have made them up, and they can only ask for more.
    """

    app: str
    path: str
    route: Route | None
    request: Request
    go_on: str
    rank: int = 0
    again: str = ""
    anew: str = ""


# What apps showed at this host is forgotten with the session: going back must not show it to the next person
# at the same machine (W3C Clear Site Data 3.1).
_FORGET: Field = (b"Clear-Site-Data", b'"cache"')


class SigningIn:
    """The pages of signing in and out. `providers` are (name, title) in the order of the configuration;
    `meeting` is that of the book of locks (`core.lock_book`)."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        origins: Origins,
        sign_in: SignIn,
        logout: Logout,
        meeting: Meeting,
        witness: Witness,
        store: SessionStore,
        signer: HandleSigner,
        clock: Clock,
        pages: Pages,
        answers: Answers,
        cookie: SessionCookie,
        providers: Sequence[tuple[str, str]],
        counted: Callable[[str, str], None],
    ) -> None:
        self._routes, self._origins, self._sign_in, self._witness = routes, origins, sign_in, witness
        self._logout, self._meeting = logout, meeting
        self._store, self._signer, self._clock = store, signer, clock
        self._pages, self._answers, self._cookie = pages, answers, cookie
        self._auth, self._providers, self._counted = origins.auth, tuple(providers), counted

    # -- at the host a person came to --------------------------------------------------------------------

    async def sign_in(self, asked: Asked) -> Answer:
        """The start: on to the auth host, or, where the login lives here, to the provider."""
        here = self._here(asked)
        back = _way_back(asked.param("rd"))
        if self._auth is None or here == self._auth:
            return await self._go_on(asked, self._errand(asked.request, here, back, _own("sign_in", rd=back)))
        rank, astray = await self._lacking_here(asked, here, back)
        if self._cookie.shared_with(asked.request.host):
            if astray is not None and asked.param("anew") == _DONE:
                # The browser shows one device there and another one here, and would be sent round for ever.
                asked.outcome = asked.outcome._replace(decision="refuse", reasons=(astray,))
                again = _own("sign_in", rd=back)
                return self._answers.not_signed_in(asked.request, astray, asked.request_id, again)
            anew = _ANEW if astray is not None else ""
            return _redirect(self._auth + _own("authorize", app=here, rd=back, rank=rank, anew=anew))
        try:
            by_hand = asked.param("by_hand") is not None
            invitation = self._sign_in.tickets.invite(_cookies(asked), by_hand=by_hand)
        except ClientError as error:
            return self._stopped(asked, error, _own("sign_in", rd=back))
        way = _own("authorize", app=here, rd=back, bind=invitation.binding_hash, rank=rank)
        cookie = flow_cookie(invitation.cookie_name, invitation.cookie_value, COOKIE_AGE)
        return _redirect(self._auth + way, [cookie, *clear_flows(invitation.clear_cookies)])

    async def ticket(self, asked: Asked) -> Answer:
        """Back from the auth host: this host's own handle of the session, for a ticket."""
        here, cookies = self._here(asked), _cookies(asked)
        code, device = asked.param("code") or "", await self._device(asked.request)
        try:
            redeemed = await self._sign_in.tickets.redeem(code, here, cookies, device)
        except ClientError as error:
            if error.reason is not Reason.DEVICE_MISMATCH:
                raise
            # The session at the auth host is of another device, and would be for ever: it has to end first.
            asked.outcome = asked.outcome._replace(decision="refuse", reasons=(error.reason,))
            out = f"{PREFIX}/sign_out"
            return self._answers.not_signed_in(asked.request, error.reason, asked.request_id, out)
        loaded = await self._store.load(redeemed.handle)
        if loaded is None:
            raise ClientError(Reason.SESSION_UNKNOWN)
        before = await self._current(asked.request)
        if before is not None and before.session.id != loaded.session.id:
            # INVARIANT: one browser, one person at this host; whoever was signed in here before no longer is.
            await self._store.end(before.handle)
        fields = self._signed_in(asked, redeemed.handle, loaded.session)
        fields += spend_flows(redeemed.clear_cookies, cookies)
        return _redirect(here + _way_back(redeemed.return_to), fields)

    # -- at the host where the login lives ---------------------------------------------------------------

    async def authorize(self, asked: Asked) -> Answer:
        """At the auth host: sign in if need be, then back to the app's host with a ticket."""
        here, app = self._here(asked), asked.param("app") or ""
        if here != self._auth or not self._origins.is_an_apps(app):
            raise ClientError(Reason.HTTP_TARGET, "authorize: not for an origin of ours, or not here")
        return await self._go_on(asked, self._authorizing(asked, app))

    async def start(self, asked: Asked) -> Answer:
        """A provider was chosen: the last segment of the path names it. Also its `initiate_login_uri` (OpenID
        Connect Core 4) at a host where the login lives: of what it sends, `target_link_uri` counts, at this
        host alone."""
        chosen = asked.request.path.readings[0][-1]
        here, app = self._here(asked), asked.param("app")
        if app is None:
            back = _way_back(asked.param("rd") or _at(here, asked.param("target_link_uri")))
            errand = self._errand(asked.request, here, back, _own("sign_in", rd=back))
        elif here == self._auth and self._origins.is_an_apps(app):
            errand = self._authorizing(asked, app)
        else:
            raise ClientError(Reason.HTTP_TARGET, "start: not for an origin of ours, or not here")
        if chosen not in dict(self._choices(errand)):
            raise ClientError(Reason.NO_SUCH_ROUTE, "start: no provider of this name here")
        return await self._go_on(asked, errand, chosen)

    async def callback(self, asked: Asked) -> Answer:
        """The provider's answer; the last segment of the path names the provider."""
        name = asked.request.path.readings[0][-1]
        here, cookies = self._here(asked), _cookies(asked)
        current, device = self._handle(asked.request), await self._device(asked.request)
        result = await self._sign_in.callback(
            asked.params, cookies, f"{here}{CALLBACK_PATH}{name}", current, seen(asked.request), device
        )
        if isinstance(result, Started):
            return _redirect(result.redirect_url, _flow(result))
        if isinstance(result, Refused):
            self._counted(result.provider, result.reason)
            asked.outcome = asked.outcome._replace(decision="sign_in_refused", reasons=(result.reason,))
            request, request_id = asked.request, asked.request_id
            if result.reason.status >= 500:
                answer = self._answers.failure(request, result.reason, request_id)
            else:
                # What was to be gone on with is a page of ours at this host (see `Errand`).
                answer = self._answers.not_signed_in(request, result.reason, request_id, result.return_to)
            return answer._replace(fields=(*answer.fields, *clear_flows(result.clear_cookies)))
        self._counted(name, "ok")
        asked.outcome = asked.outcome._replace(decision="sign_in")
        fields = self._signed_in(asked, result.handle, result.session)
        return _redirect(here + result.return_to, fields + spend_flows(result.clear_cookies, cookies))

    # -- signing out -------------------------------------------------------------------------------------

    async def sign_out(self, asked: Asked) -> Answer:
        """Asks first: a link or an image of another site must not sign anybody out (S25)."""
        current = await self._current(asked.request)
        person = None if current is None else current.session.identity.email
        page = self._pages.render("sign_out.html", person=person, forms_to=self._auth or "")
        # A browser without fetch metadata must be able to say where the form came from: under `no-referrer`
        # its Origin is `null`.
        fields = dict(page.fields) | {b"Referrer-Policy": b"same-origin"}
        return Answer(200, tuple(fields.items()), page.body)

    async def signing_out(self, asked: Asked) -> Answer:
        """Ends the session for every app, or all of the person's, then tells the provider by way of the
        browser."""
        here = self._here(asked)
        if not _same_origin(asked.request, here):
            raise ClientError(Reason.FORGED_FORM, "sign_out: sent from somewhere else")
        home, clear = self._auth or here, (self._cookie.clear(), _FORGET)
        gone, handle = f"{home}{PREFIX}/signed_out", self._handle(asked.request)
        current = await self._current(asked.request)
        if current is None or handle is None:
            # Nobody is signed in at this host; somebody may still be where the login lives.
            return _redirect(gone if here == home else f"{home}{PREFIX}/sign_out", clear, 303)
        everywhere = once(await asked.form(), "everywhere") is not None
        session = current.session
        out = await self._logout.sign_out(handle, session, gone, everywhere=everywhere)
        self._witness.known.forget_session(session.id)
        asked.outcome = asked.outcome._replace(
            decision="sign_out", subject=session.identity.subject, session=session.id
        )
        await self._tidy(handle)
        if not out.confirmed:
            asked.outcome = asked.outcome._replace(reasons=(Reason.STATE_UNAVAILABLE,))
            answer = unconfirmed(self._pages, out, asked.request_id)
        elif out.onward is None and not everywhere:
            answer = _redirect(gone, status=303)
        else:
            answer = ended(self._pages, out, everywhere, gone)
        # This browser forgets its session whatever happens.
        return answer._replace(fields=(*answer.fields, *clear))

    async def _tidy(self, handle: str) -> None:
        try:
            await self._store.end(handle)
        except WorldError:
            pass  # where the revocation holds, the record only takes up room until it expires

    async def signed_out(self, asked: Asked) -> Answer:
        page = self._pages.render("signed_out.html")
        return Answer(200, page.fields, page.body)

    # -- how it works ------------------------------------------------------------------------------------

    def sign_in_first(self, asked: Asked) -> Answer:
        """For a page of ours that needs a person."""
        return _redirect(self._here(asked) + _own("sign_in", rd=asked.request.path.text))

    def _here(self, asked: Asked) -> str:
        """The origin of this host as the configuration writes it. Never what a header says (F17)."""
        here = self._origins.of(asked.request)
        if here is None:
            raise ClientError(Reason.NO_SUCH_HOST)
        return here

    def _errand(self, request: Request, app: str, path: str, go_on: str, rank: str | None = None) -> Errand:
        host, (plain, mark, query) = host_of(app), path.partition("?")
        canonical = canonical_path(plain.encode())
        if isinstance(canonical, Reason):  # `safe_return` accepts canonical paths only
            raise ClientError(canonical)
        visit = request._replace(host=host, path=canonical, query=mark + query, upgrade=None, origin=None)
        route = None if path in OWN_PAGES else self._routes.match(host, canonical)
        if isinstance(route, Reason):
            # Nothing is there. From the front door people are shown what there is.
            return Errand(app, APPS if path == "/" else path, None, visit, go_on)
        return Errand(app, path, route, visit, go_on, int(rank) if rank in _RANKS else 0)

    def _authorizing(self, asked: Asked, app: str) -> Errand:
        """The errand of who comes to the auth host."""
        back, bind, rank = _way_back(asked.param("rd")), asked.param("bind") or "", asked.param("rank")
        anew = asked.param("anew") or ""
        again = _own("authorize", app=app, rd=back, bind=bind, rank=rank or "", anew=anew)
        # Gone on with it is after a sign-in, which was that one.
        go_on = _own("authorize", app=app, rd=back, bind=bind, rank=rank or "", anew=_DONE if anew else "")
        return replace(self._errand(asked.request, app, back, go_on, rank), again=again, anew=anew)

    async def _lacking_here(self, asked: Asked, here: str, back: str) -> tuple[str, Reason | None]:
        """The rank that a session at this host lacks for what it is led to, empty for none; and why it is of
        no use on this device, None where it is."""
        if asked.request.session is None:
            return "", None
        todo = await self._todo(asked, self._errand(asked.request, here, back, ""))
        if isinstance(todo, StepUp):
            return str(todo.rank or ""), None
        return "", todo.reasons[0] if todo is not None and todo.reasons[0] in _OF_DEVICES else None

    async def _go_on(self, asked: Asked, errand: Errand, chosen: str | None = None) -> Answer:
        """What the person still has to do on this host for the errand, or the way on when nothing is left."""
        todo = await self._todo(asked, errand)
        if todo is None:
            return await self._arrive(asked, errand)
        choices = self._choices(errand)
        if isinstance(todo, StepUp) and todo.session.provider in dict(choices):
            return await self._begin(asked, errand, todo.session.provider, todo)
        if chosen is None and len(choices) > 1:
            return self._choose(asked, errand, choices)
        return await self._begin(asked, errand, chosen or choices[0][0], None)

    async def _todo(self, asked: Asked, errand: Errand) -> Login | StepUp | None:
        """Who comes here without a session wants one, whatever the policy; else the policy says what lacks. A
        denial lacks nothing a person could do here: the app's host tells them."""
        now = self._clock()
        device = await self._witness.device_of(asked.request, now)
        found = await self._witness.gather(asked.request, errand.route, now, device)
        if isinstance(found, Unavailable):
            raise WorldError(found.reason)
        if isinstance(found, NoSession):
            return Login((found.reason,))
        if errand.anew == _ANEW:
            return Login((Reason.LOGIN_REQUIRED,))
        if errand.route is None:
            return None
        session = at(found.session, now)
        locks = tuple(self._meeting(session, errand.route.name, now))
        decision = decide(errand.route, errand.request, Evidence(session, now, locks, device))
        elsewhere = errand.app != self._here(asked)
        if elsewhere and Source.DEVICE in errand.route.policy.reads:
            if isinstance(decision, Deny) and not decision.reasons[0].startswith(("device_", "posture_")):
                return None
            return _lacking(errand, errand.route, session, locks, now)
        return decision if isinstance(decision, Login | StepUp) else None

    async def _begin(self, asked: Asked, errand: Errand, provider: str, step: StepUp | None) -> Answer:
        rank = errand.route.sensitivity.rank if errand.route is not None else LOWEST
        try:
            started = await self._sign_in.start(
                provider,
                app=self._here(asked),
                return_to=errand.go_on,
                cookies=_cookies(asked),
                existing=None if step is None else step.session,
                rank=rank if step is None else step.rank,
                max_age=None if step is None else step.max_age,
                by_hand=asked.param("by_hand") is not None,
                address=asked.request.peer.address,
            )
        except ClientError as error:
            return self._stopped(asked, error, errand.again or errand.go_on)
        return _redirect(started.redirect_url, _flow(started))

    def _stopped(self, asked: Asked, error: ClientError, again: str) -> Answer:
        """The loop's end (F22): a page with a button, which starts the very same page by hand."""
        if error.reason is not Reason.LOGIN_TOO_MANY:
            raise error
        asked.outcome = asked.outcome._replace(decision="refuse", reasons=(error.reason,))
        again = f"{asked.request.path.text}?{again.partition('?')[2]}&by_hand=1"
        wait = error.wait if isinstance(error, TooManyStarts) else None
        return self._answers.not_signed_in(asked.request, error.reason, asked.request_id, again, wait)

    async def _arrive(self, asked: Asked, errand: Errand) -> Answer:
        if errand.app == self._here(asked) or self._cookie.shared_with(host_of(errand.app)):
            return _redirect(
                errand.app + (_own("sign_in", rd=errand.path, anew=_DONE) if errand.anew else errand.path)
            )
        handle = self._handle(asked.request)
        assert handle is not None  # somebody arrives only with a session
        bind = asked.param("bind") or ""
        code = await self._sign_in.tickets.issue(handle, errand.app, bind, errand.path)
        return _redirect(errand.app + _own("ticket", code=code))

    def _choices(self, errand: Errand) -> list[tuple[str, str]]:
        allowed = errand.route.providers if errand.route is not None else ()
        return [one for one in self._providers if not allowed or one[0] in allowed]

    def _choose(self, asked: Asked, errand: Errand, choices: Sequence[tuple[str, str]]) -> Answer:
        query = (errand.again or errand.go_on).partition("?")[2]
        links = [Link(f"{PREFIX}/start/{quote(name)}?{query}", title) for name, title in choices]
        page = self._pages.render("choose.html", choices=links, destination=host_of(errand.app))
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
        found = await self._witness.of_this_visit(request, self._clock())
        if isinstance(found, Unavailable):
            raise WorldError(found.reason)
        return found if isinstance(found, Known) else None

    async def _device(self, request: Request) -> OnDevice | NoDevice | None:
        """The device a sign-in ends on, to which its session is bound then; None where nobody was asked.

        INVARIANT: while nobody can tell which it is, no sign-in ends there. Its session would be bound to
        nothing, on a device that showed a certificate, and be good for whoever copied its cookie (T32).
        """
        device = await self._witness.device_of(request, self._clock())
        if isinstance(device, Unavailable):
            raise WorldError(device.reason)
        return None if isinstance(device, NotAsked) else device


def _lacking(
    errand: Errand, route: Route, session: Session, locks: Sequence[Lock], now: float
) -> Login | StepUp | None:
    """What a session lacks of that which does not hang on the device: nobody can tell about that here.

    INVARIANT: what is asked for, a sign-in brings; else the two hosts would send the person to and fro.
    """
    if route.providers and session.provider not in route.providers:
        return Login((Reason.LOGIN_REQUIRED,))
    rank = max(errand.rank, route.sensitivity.rank, rank_locks_ask(locks))
    max_age = 0.0 if locks else needs_new_sign_in(session, route.sensitivity, now)
    if session.rank >= rank and max_age is None:
        return None
    return StepUp(session, rank, 0.0 if route.sensitivity.fresh else max_age, (Reason.STEP_UP_REQUIRED,))


def _own(page: str, **params: str) -> str:
    return f"{PREFIX}/{page}?{urlencode({key: value for key, value in params.items() if value})}"


def _way_back(value: str | None) -> str:
    return value if value in OWN_PAGES else safe_return(value or "/")


def _at(here: str, url: str | None) -> str | None:
    """What follows the origin `here` in a URL; None where that is at another."""
    return url.removeprefix(here) if url is not None and url.startswith(f"{here}/") else None


def _redirect(where: str, fields: Sequence[Field] = (), status: int = 302) -> Answer:
    return Answer(status, ((b"Location", where.encode()), *SAFE_FIELDS, *fields), b"")


def _cookies(asked: Asked) -> Mapping[str, str]:
    return dict(asked.request.cookies)


def _flow(started: Started) -> list[Field]:
    cookie = flow_cookie(started.cookie_name, started.cookie_value, started.max_age)
    return [cookie, *clear_flows(started.clear_cookies)]


def _same_origin(request: Request, site: str) -> bool:
    """Fetch metadata where the browser sends it, else the Origin of the form; neither means no."""
    fetch_site = request.field(b"sec-fetch-site")
    if fetch_site is not None:
        return fetch_site == b"same-origin"
    return request.origin is not None and request.origin == site
