"""The sessions there are: the list with its search, and everything about one.

Knows: how they are looked for. Promises: a cursor is good for the very search it came from; what a lock has
ended is shown as ended, also while its record is still there. Leaves finding to the directory.
"""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from ztproxy.core.device import DEVICE_ID
from ztproxy.core.locks import Target, TargetKind, targets_of
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.gateway.ports import Seen
from ztproxy.gateway.ports.directory import Listed, Wanted
from ztproxy.surfaces.admin.bodies import read_query
from ztproxy.surfaces.admin.people import SessionsWanted
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.targets import target_of
from ztproxy.surfaces.console.asked import Ask, Room, Sheet
from ztproxy.surfaces.console.entrance import PREFIX
from ztproxy.surfaces.console.views import (
    Book,
    lock_link,
    lock_row,
    moment,
    person_of,
    plain,
    revoke_link,
    said,
    session_row,
    user_of,
    where,
)


async def show_list(room: Room, ask: Ask) -> Sheet:
    desk = room.desk
    form = read_query(ask.fields.filled(), SessionsWanted)
    target = None
    if form.kind is not msgspec.UNSET:
        target = target_of(form.kind, form.name, form.issuer, "")
    wanted = Wanted(target, form.provider or None, form.text.strip() or None)
    try:
        page = await desk.sessions.page(wanted, form.cursor or None, form.limit)
    except ClientError as error:
        if error.reason is not Reason.HTTP_SYNTAX:
            raise
        raise Problem(Kind.INVALID, "it is not one we gave for this search", "cursor") from None
    now = desk.clock()
    book = Book(await desk.locks(), now)
    kept = [(name, value) for name, value in ask.fields.filled() if name != "cursor"]
    following = [*kept, ("cursor", page.cursor)] if page.cursor else []
    values: dict[str, object] = {
        "rows": [session_row(one, book, ask.visitor.session, now) for one in page.sessions],
        "text": form.text,
        "provider": form.provider,
        "providers": room.providers(),
        "target": None if target is None else said(target),
        "kept": [(name, value) for name, value in kept if name in ("kind", "name", "issuer")],
        "next": f"{PREFIX}/sessions?{urlencode(following)}" if following else "",
        "first": f"{PREFIX}/sessions?{urlencode(kept)}" if form.cursor else "",
        "revoke_all": revoke_link(Target(TargetKind.ALL)),
    }
    return Sheet("console_sessions.html", values)


async def show_one(room: Room, ask: Ask) -> Sheet:
    desk = room.desk
    found = await desk.sessions.show(ask.id)
    if found is None:
        raise Problem(Kind.NOT_FOUND, "There is no such session. It may have ended a moment ago.")
    now, session = desk.clock(), found.session
    device_id = session.device or ""
    locks, targets = await desk.locks(), set(targets_of(session))
    book = Book(locks, now)
    met = {lock.id for lock in book.meeting(session)}
    matching = sorted((lock for lock in locks if lock.target in targets), key=lambda lock: -lock.number)
    actions = [
        (revoke_link(Target(TargetKind.SESSION, session.id)), "End this session"),
        (revoke_link(user_of(session)), "End all sessions of this person"),
    ]
    if session.idp_session is not None:
        at_provider = Target(TargetKind.IDP_SESSION, session.idp_session, session.identity.issuer)
        actions.append((revoke_link(at_provider), "End all of this session at the provider"))
    if session.device is not None:
        device = Target(TargetKind.DEVICE, session.device)
        actions.append((revoke_link(device), "End all sessions of this device"))
    user = user_of(session)
    values: dict[str, object] = {
        "person": person_of(session),
        "own": session.id == ask.visitor.session,
        "state": book.said(session),
        "facts": _facts(found),
        "times": _times(found, now),
        "groups": [plain(group) for group in session.identity.groups],
        "locks": [(lock_row(lock, now), lock.id in met) for lock in matching],
        "actions": actions,
        "lock": lock_link(user),
        "device": where(f"/devices/{device_id}") if DEVICE_ID.fullmatch(device_id) else "",
        "others": where("/sessions", kind=user.kind, name=user.name, issuer=user.issuer),
    }
    return Sheet("console_session.html", values)


def _facts(listed: Listed) -> list[tuple[str, str]]:
    session, who = listed.session, listed.session.identity
    facts: list[tuple[str, str | None]] = [
        ("Session", session.id),
        ("Name", who.name),
        ("E-mail", who.email),
        ("User name", who.username),
        ("Subject", who.subject),
        ("Issuer", who.issuer),
        ("Provider", session.provider),
        ("Session at the provider", session.idp_session),
        ("Device", session.device),
        ("Strength (acr)", session.acr),
        ("Methods (amr)", ", ".join(session.amr)),
        ("Rank", str(session.rank)),
        ("Knows locks up to", str(session.as_of)),
        *_place("Signed in from", listed.created_from),
        *_place("Last seen at", listed.seen),
    ]
    return [(term, plain(value)) for term, value in facts if value]


def _place(what: str, seen: Seen | None) -> list[tuple[str, str | None]]:
    if seen is None:
        return []
    return [(what, seen.address), (f"{what}: route", seen.route), (f"{what}: browser", seen.agent)]


def _times(listed: Listed, now: float) -> list[tuple[str, object]]:
    session = listed.session
    times = [
        ("Signed in", session.created_at),
        ("Authenticated", session.authenticated_at),
        ("Verified by the provider", session.verified_at),
        ("Last seen", listed.seen_at),
        ("Ends", session.expires_at),
    ]
    return [(term, moment(value, now)) for term, value in times]
