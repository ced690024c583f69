"""How a refusal, a challenge or a failure is said, to a person or to a program.

Knows: who asked (a browser opening a page, a program, a service with a credential of its own). Promises: a
program gets a status and a JSON problem (RFC 9457), never a redirect to a login page, and so does whoever
comes as a service, however much like a browser; a person gets what happened, what to do next and the request
id; nothing of the input is repeated; whoever is not signed in learns that a policy says no, never which part
of it. Leaves challenges to `challenges`, and sending to the surface.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from math import ceil
from typing import NamedTuple
from urllib.parse import quote

from ztproxy.core.assurance import Levels
from ztproxy.core.decision import Deny, Login, StepUp
from ztproxy.core.identity import Session
from ztproxy.core.rates import By, Rate
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Request, is_navigation
from ztproxy.core.returning import safe_return
from ztproxy.core.routes import Services
from ztproxy.gateway.parallel import LOOP_WINDOW
from ztproxy.surfaces.challenges import TO_PEOPLE, TO_SERVICES, is_a_services, to_a_script, to_a_service
from ztproxy.surfaces.pages import SAFE_FIELDS, Link, Page, Pages

PREFIX = "/.ztproxy"

_RETRY_LATER: Field = (b"Retry-After", b"1")
# What the policy of a route looks at is for those who are signed in.
_OF_POLICY = frozenset(
    {
        Reason.RULE_DENIED,
        Reason.USER_MISMATCH,
        Reason.EMAIL_MISMATCH,
        Reason.DOMAIN_MISMATCH,
        Reason.GROUP_MISSING,
        Reason.CLAIM_MISMATCH,
        Reason.METHOD_MISMATCH,
        Reason.PATH_MISMATCH,
        Reason.TIME_MISMATCH,
        Reason.NETWORK_MISMATCH,
        Reason.DEVICE_UNKNOWN,
        Reason.DEVICE_NOT_APPROVED,
        Reason.DEVICE_LOST,
        Reason.DEVICE_RETIRED,
        Reason.DEVICE_OWNER,
        Reason.DEVICE_PLATFORM,
        Reason.POSTURE_UNKNOWN,
        Reason.POSTURE_STALE,
        Reason.POSTURE_MISMATCH,
    }
)

_OPEN_AGAIN = "close every window of the browser and open it again."
_NEW_CERTIFICATE = f"Get a new certificate for this device, then {_OPEN_AGAIN}"
_REPORTED = "Its state is reported from time to time: wait a while, then try again."
_MANAGED = f"Make sure that it is managed and connected. {_REPORTED}"
# What a person can do about a device that keeps them out; whom to ask comes after it.
_OF_DEVICES = {
    Reason.DEVICE_CERTIFICATE_REQUIRED: "Choose the certificate of this device when the browser asks for it. "
    f"If it does not ask any more, {_OPEN_AGAIN}",
    Reason.DEVICE_CERTIFICATE_INVALID: _NEW_CERTIFICATE,
    Reason.DEVICE_CERTIFICATE_EXPIRED: _NEW_CERTIFICATE,
    Reason.DEVICE_CERTIFICATE_REVOKED: _NEW_CERTIFICATE,
    Reason.DEVICE_CERTIFICATE_MISMATCH: f"Choose another certificate: {_OPEN_AGAIN}",
    Reason.DEVICE_UNKNOWN: "Register it first.",
    Reason.DEVICE_NOT_APPROVED: "Somebody has to approve it first.",
    Reason.DEVICE_LOST: "If you have it back, say so.",
    Reason.DEVICE_RETIRED: "Use another device.",
    Reason.DEVICE_OWNER: "Use a device of your own.",
    Reason.DEVICE_PLATFORM: "Use another device.",
    Reason.POSTURE_UNKNOWN: _MANAGED,
    Reason.POSTURE_STALE: _MANAGED,
    Reason.POSTURE_MISMATCH: f"Update it, and switch its protections on. {_REPORTED}",
}
_TO_ENROL = frozenset(
    {
        Reason.DEVICE_CERTIFICATE_REQUIRED,
        Reason.DEVICE_CERTIFICATE_INVALID,
        Reason.DEVICE_CERTIFICATE_EXPIRED,
        Reason.DEVICE_CERTIFICATE_REVOKED,
        Reason.DEVICE_CERTIFICATE_MISMATCH,
        Reason.DEVICE_UNKNOWN,
        Reason.DEVICE_NOT_APPROVED,
    }
)


class Answer(NamedTuple):
    """A complete answer of our own."""

    status: int
    fields: tuple[Field, ...]
    body: bytes


def reads_pages(request: Request) -> bool:
    """Whether a person will look at the answer: a navigation, or a form a page has sent."""
    if is_navigation(request):
        return True
    if request.upgrade is not None or b"text/html" not in (request.field(b"accept") or b""):
        return False
    if (request.field(b"x-requested-with") or b"").lower() == b"xmlhttprequest":
        return False
    return request.field(b"sec-fetch-mode") in (None, b"navigate")


def sign_in_path(request: Request) -> str:
    """Where a person signs in and comes back from: with the query, without it where it is too long to come
    back to, or to the front door. The portal judges `rd` again, whoever wrote it."""
    path = request.path.text
    back = next((one for one in (path + request.query, path) if safe_return(one) == one), "/")
    return f"{PREFIX}/sign_in?rd={quote(back, safe='')}"


def allow(methods: Iterable[str]) -> Field:
    """RFC 9110 15.5.6: a 405 says which methods there are."""
    return b"Allow", ", ".join(sorted(methods)).encode()


class Answers:
    """Answers in the operator's pages. `support` is shown on refusals: whom to ask. `hsts` is the field.

    `levels` say what to ask for where a sign-in is too weak; with `enrolment` people may register devices.
    """

    def __init__(
        self,
        pages: Pages,
        support: str | None,
        hsts: str | None,
        levels: Levels | None = None,
        *,
        enrolment: bool = False,
    ) -> None:
        self._pages, self._support, self._hsts = pages, support, hsts
        self._levels, self._enrolment = levels or Levels(), enrolment

    def challenge(
        self,
        request: Request,
        decision: Login | StepUp,
        request_id: str,
        site: str,
        services: Services | None = None,
    ) -> Answer:
        """Sign-in, or stronger sign-in, is needed. `services` are the route's."""
        step = decision if isinstance(decision, StepUp) else None
        session = None if step is None else step.session
        if services is not None and is_a_services(request, services, session):
            return self._to_a_service(request, decision.reasons, request_id, services, step)
        if is_navigation(request):
            location = (b"Location", f"{site}{sign_in_path(request)}".encode())
            return Answer(302, (location, *SAFE_FIELDS), b"")
        if reads_pages(request):
            return self._lost_form(request, step, request_id)
        if step is not None:
            _, fields, told = to_a_script(self._levels, step)
            there = f"{site}{sign_in_path(request)}"
            return self._problem(401, step.reasons, request_id, fields, sign_in=there, **told)
        tokens = services is not None and bool(services.issuers)
        challenges = (TO_PEOPLE, TO_SERVICES) if tokens else (TO_PEOPLE,)
        sign_in = f"{site}{PREFIX}/sign_in"
        return self._problem(401, decision.reasons[:1], request_id, challenges, sign_in=sign_in)

    def _lost_form(self, request: Request, step: StepUp | None, request_id: str) -> Answer:
        """A form sent after the session ended: a redirect would lose what was typed without saying so."""
        what = "Your session ended before this form arrived, so nothing of it was done."
        if step is not None:
            what = f"{step.reasons[0].sentence} So nothing of this form was done."
        page = self._pages.message(
            "Please sign in again",
            what,
            next="Sign in in another tab, then come back here, reload, and send the form again.",
            links=(Link(f"{PREFIX}/sign_in" if step is None else sign_in_path(request), "Sign in"),),
            request_id=request_id,
        )
        return Answer(401, (*page.fields, TO_PEOPLE), page.body)

    def _to_a_service(
        self,
        request: Request,
        reasons: tuple[Reason, ...],
        request_id: str,
        services: Services,
        step: StepUp | None = None,
    ) -> Answer:
        status, fields, told = to_a_service(self._levels, request, services, reasons[0], step)
        return self._problem(status, reasons, request_id, fields, **told)

    def refusal(
        self,
        request: Request,
        decision: Deny,
        request_id: str,
        session: Session | None,
        methods: Iterable[str],
        services: Services | None = None,
    ) -> Answer:
        """Denied. Only a signed-in person hears which conditions failed; `methods` and `services` are the
        route's."""
        reason, reasons = decision.reasons[0], decision.reasons
        a_services = services is not None and is_a_services(request, services, session)
        if reason is Reason.LOCKED:
            return self._locked(request, decision, request_id, page=not a_services)
        if reason.status >= 500:
            return self.failure(request, reason, request_id, page=not a_services)
        if reason is Reason.HTTP_METHOD:
            return self.refused(request, reason, request_id, (allow(methods),), page=not a_services)
        if session is None:
            reason = Reason.NO_RULE_ALLOWS if reason in _OF_POLICY else reason
            reasons = (reason,)
        if services is not None and a_services:
            return self._to_a_service(request, reasons, request_id, services)
        if not reads_pages(request):
            return self._problem(reason.status, reasons, request_id, ())
        several, of_device = len(reasons) > 1, _OF_DEVICES.get(reason)
        links: list[Link] = []
        if self._enrolment and reason in _TO_ENROL:
            links.append(Link(f"{PREFIX}/devices", "My devices"))
        if session is not None:
            links += [Link(f"{PREFIX}/apps", "My apps"), Link(f"{PREFIX}/sign_out", "Use another account")]
        ask = f"ask {self._support or 'whoever runs this app'} and give them the request id below."
        page = self._pages.message(
            "You cannot open this" if of_device is None else "This needs a known device",
            "None of the rules lets you in." if several else reason.sentence,
            why=tuple(why.sentence for why in reasons) if several else (),
            next=f"If you think you should have access, {ask}"
            if of_device is None
            else f"{of_device} If that does not help, {ask}",
            links=tuple(links),
            person=None if session is None else session.identity.email or session.identity.subject,
            request_id=request_id,
        )
        return self._page(reason.status, page, ())

    def _locked(self, request: Request, decision: Deny, request_id: str, *, page: bool) -> Answer:
        """A lock closes the door, for now: what whoever made it has to say, and nothing of why or for
        whom."""
        if not page or not reads_pages(request):
            more = {"message": decision.message} if decision.message else {}
            return self._problem(decision.status, decision.reasons, request_id, (), **more)
        shown = self._pages.message(
            "Access is suspended",
            decision.message or Reason.LOCKED.sentence,
            next=f"Ask {self._support or 'whoever runs this app'} and give them the request id below.",
            request_id=request_id,
        )
        return self._page(decision.status, shown, ())

    def not_signed_in(
        self,
        request: Request,
        reason: Reason,
        request_id: str,
        again: str = "",
        wait: float | None = None,
    ) -> Answer:
        """A sign-in that did not succeed, or that a program would need. `again` is where to start anew.

        Where too many were begun, `wait` is in how many seconds that may be; None for a loop, which a person
        may end at once, and a program is told to leave alone for as long as it is remembered.
        """
        extra: tuple[Field, ...] = (TO_PEOPLE,) if reason.status == 401 else ()
        start = "Start the sign-in again."
        if reason.status == 429:
            seconds = max(1, ceil(LOOP_WINDOW if wait is None else wait))
            extra = ((b"Retry-After", b"%d" % seconds),)
            if wait is not None:
                start = f"Wait {seconds} second{'s' if seconds > 1 else ''}, then start the sign-in again."
        if not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        if reason is Reason.STEP_UP_FAILED:
            return self._page(reason.status, self._too_weak(request_id, again), extra)
        page = self._pages.message(
            "Please sign in" if reason.status == 401 else "This sign-in did not work",
            reason.sentence,
            next=f"{start} If it fails again, pass on the request id below.",
            links=(Link(again or f"{PREFIX}/sign_in", "Sign in again"),),
            request_id=request_id,
        )
        return self._page(reason.status, page, extra)

    def _too_weak(self, request_id: str, again: str) -> Page:
        """The end of a loop: a provider that gave less than was asked for would give it again."""
        return self._pages.message(
            "This sign-in was not strong enough",
            Reason.STEP_UP_FAILED.sentence,
            why=("The sign-in service was asked for more, and twice answered with less.",),
            next="Whoever you were signed in as before, you still are. Make sure that the stronger way to "
            f"sign in is set up in your account, or ask {self._support or 'whoever runs this app'} and give "
            "them the request id below.",
            links=(Link(again or f"{PREFIX}/sign_in", "Try once more"), Link(f"{PREFIX}/apps", "My apps")),
            request_id=request_id,
        )

    def refused(
        self,
        request: Request,
        reason: Reason,
        request_id: str,
        extra: tuple[Field, ...] = (),
        *,
        page: bool = True,
    ) -> Answer:
        """The request itself cannot be served: no such host, nothing at this path, a form from elsewhere.
        Without `page` nobody is there to read one."""
        if not page or not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        missing = reason in (Reason.NO_SUCH_HOST, Reason.NO_SUCH_ROUTE)
        shown = self._pages.message(
            "Not found" if missing else "This cannot be done",
            reason.sentence,
            next="Check the address." if missing else "Go back, reload the page and try again.",
            request_id=request_id,
        )
        return self._page(reason.status, shown, extra)

    def failure(self, request: Request, reason: Reason, request_id: str, *, page: bool = True) -> Answer:
        """Something we depend on did not do its part. No redirect, so no loop; no cookie, so no sign-out."""
        extra: tuple[Field, ...] = (_RETRY_LATER,) if reason.status == 503 else ()
        if not page or not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        shown = self._pages.message(
            "This does not work at the moment",
            reason.sentence,
            next="Try again in a moment. If it stays like this, pass on the request id below.",
            request_id=request_id,
        )
        return self._page(reason.status, shown, extra)

    def too_many(self, request: Request, request_id: str, by: By, rate: Rate, wait: float) -> Answer:
        """More than `rate` allows was asked; one more will be allowed in `wait` seconds. RFC 6585 4, with the
        fields of draft-ietf-httpapi-ratelimit-headers-10."""
        seconds = ceil(wait)
        extra = (
            (b"Retry-After", b"%d" % seconds),
            (b"RateLimit", b'"%b";r=0;t=%d' % (by.encode(), seconds)),
            (b"RateLimit-Policy", b'"%b";q=%d;w=%d' % (by.encode(), rate.most, rate.period)),
        )
        if not reads_pages(request):
            return self._problem(429, (Reason.RATE_LIMITED,), request_id, extra)
        shown = self._pages.message(
            "Too many requests",
            Reason.RATE_LIMITED.sentence,
            next=f"Wait {seconds} second{'s' if seconds > 1 else ''}, then try again.",
            request_id=request_id,
        )
        return self._page(429, shown, extra)

    def complete(self, request: Request, answer: Answer) -> Answer:
        """The answer with what every one of ours has; RFC 6797 7.2: HSTS is said over TLS only."""
        if self._hsts is None or request.scheme != "https":
            return answer
        return answer._replace(fields=(*answer.fields, (b"Strict-Transport-Security", self._hsts.encode())))

    def _page(self, status: int, page: Page, extra: tuple[Field, ...]) -> Answer:
        return Answer(status, (*page.fields, *extra), page.body)

    def _problem(
        self,
        status: int,
        reasons: Sequence[Reason],
        request_id: str,
        extra: tuple[Field, ...],
        **more: str | int,
    ) -> Answer:
        """RFC 9457; `reasons` and `request_id` are our extension members."""
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": reasons[0].sentence,
            "reasons": [str(reason) for reason in reasons],
            "request_id": request_id,
            **more,
        }
        content_type = (b"Content-Type", b"application/problem+json")
        return Answer(status, (content_type, *SAFE_FIELDS, *extra), json.dumps(problem).encode())
