"""My session, my apps, and the keys apps verify assertions with.

Knows: what a person may be shown about themselves. Promises: no token and no secret is on any page; "my apps"
leaves out what the one decision function denies; the scripts of an app, which can read these pages at its own
host, learn no group there that its routes keep from it. Leaves signing in to `signing_in`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from ztproxy.core.decision import Deny, decide
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, Evidence, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Path, Request
from ztproxy.core.route_table import RouteTable
from ztproxy.core.routes import Forwarding, Redirect, Route
from ztproxy.core.sessions import at
from ztproxy.errors import WorldError
from ztproxy.gateway.known import Known
from ztproxy.gateway.lease import Meeting
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.witness import Witness
from ztproxy.surfaces.answers import Answer, reads_pages
from ztproxy.surfaces.pages import SAFE_FIELDS, Pages
from ztproxy.surfaces.portal import Asked


class OwnPages:
    """`meeting` is that of the book of locks. `sign_in_first` answers a person who is not signed in and asked
    for a page; programs get a 401."""

    def __init__(
        self,
        routes: RouteTable,
        witness: Witness,
        meeting: Meeting,
        pages: Pages,
        jwks: Callable[[], dict[str, Any]],
        clock: Clock,
        sign_in_first: Callable[[Asked], Answer],
        not_signed_in: Callable[[Request, Reason, str], Answer],
    ) -> None:
        self._routes, self._witness, self._meeting = routes, witness, meeting
        self._pages, self._jwks, self._clock = pages, jwks, clock
        self._sign_in_first, self._not_signed_in = sign_in_first, not_signed_in

    async def session(self, asked: Asked) -> Answer:
        """Who I am here, as a page or, for a program, as JSON."""
        session = await self._session(asked)
        if session is None:
            return self._without_session(asked)
        groups = self._groups(asked.request, session)
        if not reads_pages(asked.request):
            return _json(about(session, groups))
        identity = session.identity
        rows = (
            ("Name", identity.name or "–"),
            ("E-mail", identity.email or "–"),
            ("Account", identity.subject),
            ("Signed in at", identity.issuer),
            ("How", ", ".join(session.amr) or session.acr or "not said"),
            ("Strength", f"rank {session.rank}" + (f" ({session.acr})" if session.acr else "")),
            ("Signed in", _moment(session.authenticated_at)),
            ("Ends at the latest", _moment(session.expires_at)),
            ("Session", session.id),
        )
        page = self._pages.render("session.html", rows=rows, groups=groups, person=identity.email)
        return Answer(200, page.fields, page.body)

    async def user(self, asked: Asked) -> Answer:
        """The same, always as JSON, as scripts of an app ask for it."""
        session = await self._session(asked)
        if session is None:
            return self._not_signed_in(asked.request, Reason.LOGIN_REQUIRED, asked.request_id)
        return _json(about(session, self._groups(asked.request, session)))

    async def apps(self, asked: Asked) -> Answer:
        """What I may open."""
        session = await self._session(asked)
        if session is None:
            return self._without_session(asked)
        device = await self._witness.device_of(asked.request, self._clock())
        apps = [
            self._app(route)
            for route in self._routes.routes
            if self._may_open(route, asked.request, session, device)
        ]
        if not reads_pages(asked.request):
            return _json({"apps": apps})
        page = self._pages.render("apps.html", apps=apps, person=_called(session))
        return Answer(200, page.fields, page.body)

    async def jwks(self, asked: Asked) -> Answer:
        """The public keys of assertions: for everyone, cacheable for less than their overlap."""
        body = json.dumps(self._jwks()).encode()
        fields = ((b"Content-Type", b"application/json"), (b"Cache-Control", b"public, max-age=300"))
        return Answer(200, fields, body)

    async def _session(self, asked: Asked) -> Session | None:
        found = await self._witness.of_this_visit(asked.request, self._clock())
        if isinstance(found, Unavailable):
            raise WorldError(found.reason)
        if isinstance(found, Known):
            session = at(found.session, self._clock())
            asked.outcome = asked.outcome._replace(
                subject=session.identity.subject, email=session.identity.email, session=session.id
            )
            return session
        return None

    def _without_session(self, asked: Asked) -> Answer:
        if reads_pages(asked.request):
            return self._sign_in_first(asked)
        return self._not_signed_in(asked.request, Reason.LOGIN_REQUIRED, asked.request_id)

    def _groups(self, request: Request, session: Session) -> tuple[str, ...]:
        shown = [route.identity.groups for route in self._routes.of_host(request.host)]
        if not shown or None in shown:
            return session.identity.groups
        named = frozenset[str]().union(*filter(None, shown))
        return tuple(group for group in session.identity.groups if group in named)

    def _may_open(self, route: Route, request: Request, session: Session, device: DeviceEvidence) -> bool:
        if (
            not route.listed
            or route.host.startswith("*.")
            or not isinstance(route.action, Forwarding | Redirect)
        ):
            return False
        visit = request._replace(
            method="GET",
            scheme=route.scheme,
            host=route.host,
            port=route.port,
            path=front_door(route),
            query="",
            upgrade=None,
        )
        # What a refresh or a stronger sign-in would open belongs on the list: the person can do that. So does
        # what asks for a device where nobody asked for one here.
        now = self._clock()
        evidence = Evidence(session, now, tuple(self._meeting(session, route.name, now)), device)
        decision = decide(route, visit, evidence)
        untold = device is NOT_ASKED and decision.reasons[0] is Reason.DEVICE_CERTIFICATE_REQUIRED
        return untold or not isinstance(decision, Deny)

    def _app(self, route: Route) -> dict[str, str]:
        return {
            "title": route.title or route.name,
            "description": route.description,
            "url": route.origin + front_door(route).text,
        }


def front_door(route: Route) -> Path:
    """The path a person enters a route by."""
    if not route.segments:
        return Path("/", (("",),), frozenset())
    text = "/" + "/".join(quote(segment, safe="") for segment in route.segments)
    if route.exact:
        return Path(text, (route.segments,), frozenset())
    return Path(text + "/", ((*route.segments, ""),), frozenset())


def about(session: Session, groups: Sequence[str]) -> dict[str, Any]:
    """A session as its own person may see it."""
    identity = session.identity
    return {
        "sub": identity.subject,
        "iss": identity.issuer,
        "email": identity.email,
        "name": identity.name,
        "preferred_username": identity.username,
        "groups": list(groups),
        "acr": session.acr,
        "amr": list(session.amr),
        "rank": session.rank,
        "auth_time": int(session.authenticated_at),
        "expires_at": int(session.expires_at),
        "sid": session.id,
    }


def _called(session: Session) -> str:
    return session.identity.email or session.identity.name or session.identity.subject


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %B %Y, %H:%M UTC")


def _json(value: object) -> Answer:
    return Answer(200, ((b"Content-Type", b"application/json"), *SAFE_FIELDS), json.dumps(value).encode())
