"""How a refusal, a challenge or a failure is said, to a person or to a program.

Knows: who asked (a browser opening a page, or something else). Promises: a program gets a status and a JSON
problem (RFC 9457), never a redirect to a login page; a person gets what happened, what to do next and the
request id; nothing of the input is repeated; whoever is not signed in learns that a policy says no, never
which part of it. Leaves sending to the surface.

A 401 needs a challenge (RFC 9110 11.6.1). Its scheme is our own, `Ztproxy`: `Basic` would make browsers ask
for a password, and `Bearer` or `Cookie` would promise a way in that there is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from ztproxy.core.decision import Deny, Login, StepUp
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Request, is_navigation
from ztproxy.core.returning import safe_return
from ztproxy.surfaces.pages import SAFE_FIELDS, Link, Page, Pages

PREFIX = "/.ztproxy"

_RETRY_LATER: Field = (b"Retry-After", b"1")
_CHALLENGE: Field = (b"WWW-Authenticate", b'Ztproxy realm="sign-in"')
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
    """Answers in the operator's pages. `support` is shown on refusals: whom to ask. `hsts` is the field."""

    def __init__(self, pages: Pages, support: str | None, hsts: str | None) -> None:
        self._pages, self._support, self._hsts = pages, support, hsts

    def challenge(self, request: Request, decision: Login | StepUp, request_id: str, site: str) -> Answer:
        """Sign-in, or stronger sign-in, is needed."""
        reason = decision.reasons[0]
        if is_navigation(request):
            location = (b"Location", f"{site}{sign_in_path(request)}".encode())
            return Answer(302, (location, *SAFE_FIELDS), b"")
        if reads_pages(request):
            # A form sent after the session ended: a redirect would lose what was typed without saying so.
            page = self._pages.message(
                "Please sign in again",
                "Your session ended before this form arrived, so nothing of it was done.",
                next="Sign in in another tab, then come back here, reload, and send the form again.",
                links=(Link(f"{PREFIX}/sign_in", "Sign in"),),
                request_id=request_id,
            )
            return Answer(401, (*page.fields, _CHALLENGE), page.body)
        return self._problem(401, (reason,), request_id, (_CHALLENGE,), sign_in=f"{site}{PREFIX}/sign_in")

    def refusal(
        self,
        request: Request,
        decision: Deny,
        request_id: str,
        session: Session | None,
        methods: Iterable[str],
    ) -> Answer:
        """Denied. Only a signed-in person hears which conditions failed; `methods` are the route's."""
        reason, reasons = decision.reasons[0], decision.reasons
        if reason is Reason.LOCKED:
            return self._locked(request, decision, request_id)
        if reason.status >= 500:
            return self.failure(request, reason, request_id)
        if reason is Reason.HTTP_METHOD:
            return self.refused(request, reason, request_id, (allow(methods),))
        if session is None:
            reason = Reason.NO_RULE_ALLOWS if reason in _OF_POLICY else reason
            reasons = (reason,)
        if not reads_pages(request):
            return self._problem(reason.status, reasons, request_id, ())
        several = len(reasons) > 1
        links = (Link(f"{PREFIX}/apps", "My apps"), Link(f"{PREFIX}/sign_out", "Use another account"))
        page = self._pages.message(
            "You cannot open this",
            "None of the rules lets you in." if several else reason.sentence,
            why=tuple(why.sentence for why in reasons) if several else (),
            next=f"If you think you should have access, ask {self._support or 'whoever runs this app'} "
            "and give them the request id below.",
            links=() if session is None else links,
            person=None if session is None else session.identity.email or session.identity.subject,
            request_id=request_id,
        )
        return self._page(reason.status, page, ())

    def _locked(self, request: Request, decision: Deny, request_id: str) -> Answer:
        """A lock closes the door, for now: what whoever made it has to say, and nothing of why or for
        whom."""
        if not reads_pages(request):
            more = {"message": decision.message} if decision.message else {}
            return self._problem(decision.status, decision.reasons, request_id, (), **more)
        page = self._pages.message(
            "Access is suspended",
            decision.message or Reason.LOCKED.sentence,
            next=f"Ask {self._support or 'whoever runs this app'} and give them the request id below.",
            request_id=request_id,
        )
        return self._page(decision.status, page, ())

    def not_signed_in(self, request: Request, reason: Reason, request_id: str, again: str = "") -> Answer:
        """A sign-in that did not succeed, or that a program would need. `again` is where to start anew."""
        extra: tuple[Field, ...] = (_CHALLENGE,) if reason.status == 401 else ()
        if not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        page = self._pages.message(
            "Please sign in" if reason.status == 401 else "This sign-in did not work",
            reason.sentence,
            next="Start the sign-in again. If it fails again, pass on the request id below.",
            links=(Link(again or f"{PREFIX}/sign_in", "Sign in again"),),
            request_id=request_id,
        )
        return self._page(reason.status, page, extra)

    def refused(
        self, request: Request, reason: Reason, request_id: str, extra: tuple[Field, ...] = ()
    ) -> Answer:
        """The request itself cannot be served: no such host, nothing at this path, a form from elsewhere."""
        if not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        missing = reason.status in (404, 421)
        page = self._pages.message(
            "Not found" if missing else "This cannot be done",
            reason.sentence,
            next="Check the address." if missing else "Go back, reload the page and try again.",
            request_id=request_id,
        )
        return self._page(reason.status, page, extra)

    def failure(self, request: Request, reason: Reason, request_id: str) -> Answer:
        """Something we depend on did not do its part. No redirect, so no loop; no cookie, so no sign-out."""
        extra: tuple[Field, ...] = (_RETRY_LATER,) if reason.status == 503 else ()
        if not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        page = self._pages.message(
            "This does not work at the moment",
            reason.sentence,
            next="Try again in a moment. If it stays like this, pass on the request id below.",
            request_id=request_id,
        )
        return self._page(reason.status, page, extra)

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
        **more: str,
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
