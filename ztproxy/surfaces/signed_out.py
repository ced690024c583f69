"""What somebody who has signed out is told: what has ended, what comes next, and what nobody knows yet.

Knows: the words. Promises: nothing is called ended that was not confirmed. Leaves the cookie to its caller.
"""

from __future__ import annotations

from ztproxy.gateway.logout import SignedOut
from ztproxy.surfaces.answers import Answer
from ztproxy.surfaces.pages import Link, Pages


def ended(pages: Pages, out: SignedOut, everywhere: bool, gone: str) -> Answer:
    """It holds. The page leads on by itself to where the provider is told, if anywhere; `gone` is our page
    for who has signed out."""
    what = "Your session has ended for every app behind this proxy."
    if everywhere:
        what = f"{_sessions(out.ended)} ended, on every device, for every app behind this proxy."
    title = "You are signed out everywhere" if everywhere else "You are signed out here"
    if out.onward is None:
        page = pages.message(title, what, links=(Link(gone, "Done"),))
        return Answer(200, page.fields, page.body)
    # A redirect out of a form's answer would need every provider in `form-action`; a page that leads on by
    # itself needs nothing, and says what happened while the provider is slow.
    page = pages.message(
        title,
        f"{what} Next, the sign-in service is told, so that it does not sign you in again by itself.",
        links=(Link(out.onward, "Go on"),),
    )
    return Answer(200, (*page.fields, (b"Refresh", f"0; url={out.onward}".encode())), page.body)


def unconfirmed(pages: Pages, out: SignedOut, request_id: str) -> Answer:
    """This browser is signed out; of the session, nobody can say yet. No leading on: it is to be read."""
    page = pages.message(
        "You are signed out in this browser",
        "Whether your session has ended everywhere cannot be confirmed at this moment.",
        next="If somebody else may have it, sign in again in a moment and choose “Sign out everywhere”.",
        links=() if out.onward is None else (Link(out.onward, "Sign out at the sign-in service"),),
        request_id=request_id,
    )
    return Answer(503, (*page.fields, (b"Retry-After", b"1")), page.body)


def _sessions(number: int | None) -> str:
    if number is None:
        return "All your sessions have"
    return "Your session, the only one, has" if number == 1 else f"All your {number} sessions have"
