"""How a refusal, a challenge or a failure is said, to a person or to a program.

Knows: who asked (a browser opening a page, or something else). Promises: a program gets a status and a JSON
problem (RFC 9457), never a redirect to a login page; a person gets what happened, what to do next and the
request id; nothing of the input is repeated. Leaves sending to the surface.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from ztproxy.core.decision import Deny, Login, StepUp
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Request, is_navigation
from ztproxy.surfaces.pages import SAFE_FIELDS, Link, Page, Pages

PREFIX = "/.ztproxy"
RETRY_LATER: Field = (b"Retry-After", b"1")


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
    return request.field(b"sec-fetch-mode") in (None, b"navigate")


def sign_in_path(request: Request) -> str:
    """Where a person signs in and comes back from; the portal judges `rd` again, whoever wrote it."""
    return f"{PREFIX}/sign_in?rd={quote(request.path.text + request.query, safe='')}"


class Answers:
    """Answers in the operator's pages. `support` is shown on refusals: whom to ask."""

    def __init__(self, pages: Pages, support: str | None) -> None:
        self._pages, self._support = pages, support

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
        self, request: Request, decision: Deny, request_id: str, session: Session | None, *, details: bool
    ) -> Answer:
        """Denied. `details` tells a signed-in person which conditions failed, not only that one did."""
        reason, status = decision.reasons[0], decision.status
        extra: tuple[Field, ...] = (RETRY_LATER,) if status == 503 else ()
        if not reads_pages(request):
            return self._problem(status, decision.reasons if details else (reason,), request_id, extra)
        if status >= 500:
            return self._page(status, self._sorry(reason, request_id), extra)
        person = None if session is None else session.identity.email or session.identity.subject
        links = (Link(f"{PREFIX}/apps", "My apps"), Link(f"{PREFIX}/sign_out", "Use another account"))
        page = self._pages.message(
            "You cannot open this",
            reason.sentence
            if len(decision.reasons) == 1 or not details
            else "None of the rules lets you in.",
            why=tuple(why.sentence for why in decision.reasons)
            if details and len(decision.reasons) > 1
            else (),
            next=f"If you think you should have access, ask {self._support or 'whoever runs this app'} "
            "and give them the request id below.",
            links=links if person else (),
            person=person,
            request_id=request_id,
        )
        return self._page(status, page, extra)

    def not_signed_in(self, request: Request, reason: Reason, request_id: str, again: str = "") -> Answer:
        """A sign-in that did not succeed, or that a program would need. `again` is where to start anew."""
        extra: tuple[Field, ...] = (_CHALLENGE,) if reason.status == 401 else ()
        if not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        page = self._pages.message(
            "You are not signed in",
            reason.sentence,
            next="Start the sign-in again. If it fails again, pass on the request id below.",
            links=(Link(again or f"{PREFIX}/sign_in", "Sign in again"),),
            request_id=request_id,
        )
        return self._page(reason.status, page, extra)

    def missing(self, request: Request, reason: Reason, request_id: str) -> Answer:
        """No such host, or nothing at this path."""
        if not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, ())
        page = self._pages.message(
            "Not found", reason.sentence, next="Check the address.", request_id=request_id
        )
        return self._page(reason.status, page, ())

    def failure(self, request: Request, reason: Reason, request_id: str) -> Answer:
        """Something we depend on did not do its part."""
        extra: tuple[Field, ...] = (RETRY_LATER,) if reason.status == 503 else ()
        if not reads_pages(request):
            return self._problem(reason.status, (reason,), request_id, extra)
        return self._page(reason.status, self._sorry(reason, request_id), extra)

    def _sorry(self, reason: Reason, request_id: str) -> Page:
        return self._pages.message(
            "This does not work at the moment",
            reason.sentence,
            next="Try again in a moment. If it stays like this, pass on the request id below.",
            request_id=request_id,
        )

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


# RFC 9110 11.6.1 wants a challenge with every 401. The scheme is ours: no browser asks for a password by it.
_CHALLENGE: Field = (b"WWW-Authenticate", b'Ztproxy realm="sign-in"')
