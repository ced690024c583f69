"""The sessions there are: list, show.

Knows: how a session is shown. Promises: nothing shown lets anybody in; kept claims are not shown at all.
Leaves finding them to the directory.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from ztproxy.core.locks import TargetKind
from ztproxy.errors import ClientError
from ztproxy.gateway.ports import Seen
from ztproxy.gateway.ports.directory import Listed, Wanted
from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Form, Nothing, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.targets import PAGE, Text, target_of
from ztproxy.surfaces.admin.times import moment

Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE)]


class SessionsWanted(Form, frozen=True):
    """All that is given must fit, to the letter; `text` is a part of the subject, e-mail or name, in any
    case. `kind`, `name` and `issuer` are those of a target: `kind=user&name=alice&issuer=https://…` lists a
    person's sessions. `cursor` is `next` of the page before, with the same filter."""

    kind: TargetKind | msgspec.UnsetType = msgspec.UNSET
    name: Text = ""
    issuer: Text = ""
    provider: Text = ""
    text: Text = ""
    limit: Limit = 50
    cursor: Text = ""


class Person(Shape, frozen=True):
    """Who: the key is issuer and subject, never the e-mail."""

    issuer: str
    subject: str
    email: str | None
    name: str | None
    username: str | None
    groups: tuple[str, ...]


class Place(Shape, frozen=True):
    """From where, on which route, with what."""

    address: str
    route: str
    agent: str


class SessionShown(Shape, frozen=True):
    """A session. `id` is public. `as_of` is the number of the last lock its sign-in began after."""

    id: str
    user: Person
    provider: str
    created_at: datetime
    authenticated_at: datetime
    verified_at: datetime
    expires_at: datetime
    seen_at: datetime
    acr: str | None
    amr: tuple[str, ...]
    rank: int
    idp_session: str | None
    device: str | None
    as_of: int
    seen: Place | None
    created_from: Place | None


class SessionsPage(Shape, frozen=True):
    """Newest first. A page may be short and yet not the last: the last has no `next`."""

    sessions: tuple[SessionShown, ...]
    next: str | None


async def list_sessions(desk: Desk, asked: Asked[SessionsWanted]) -> SessionsPage:
    form = asked.form
    if form.kind is msgspec.UNSET:
        if form.name or form.issuer:
            raise Problem(Kind.INVALID, "it is missing", "kind")
        target = None
    else:
        target = target_of(form.kind, form.name, form.issuer, "")
    wanted = Wanted(target, form.provider or None, form.text or None)
    try:
        page = await desk.sessions.page(wanted, form.cursor or None, form.limit)
    except ClientError:
        raise Problem(Kind.INVALID, "it is not one we gave for this question", "cursor") from None
    return SessionsPage(sessions=tuple(map(shown, page.sessions)), next=page.cursor)


async def show_session(desk: Desk, asked: Asked[Nothing]) -> SessionShown:
    found = await desk.sessions.show(asked.id)
    if found is None:
        raise Problem(Kind.NOT_FOUND, "there is no such session")
    return shown(found)


def shown(listed: Listed) -> SessionShown:
    session, who = listed.session, listed.session.identity
    return SessionShown(
        id=session.id,
        user=Person(
            issuer=who.issuer,
            subject=who.subject,
            email=who.email,
            name=who.name,
            username=who.username,
            groups=who.groups,
        ),
        provider=session.provider,
        created_at=moment(session.created_at),
        authenticated_at=moment(session.authenticated_at),
        verified_at=moment(session.verified_at),
        expires_at=moment(session.expires_at),
        seen_at=moment(listed.seen_at),
        acr=session.acr,
        amr=session.amr,
        rank=session.rank,
        idp_session=session.idp_session,
        device=session.device,
        as_of=session.as_of,
        seen=_place(listed.seen),
        created_from=_place(listed.created_from),
    )


def _place(seen: Seen | None) -> Place | None:
    return None if seen is None else Place(address=seen.address, route=seen.route, agent=seen.agent)
