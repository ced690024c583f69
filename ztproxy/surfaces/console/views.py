"""Values made fit to be looked at.

Knows: what a person can take for something else. Promises: text of others is shown in the order it has, with
every character that would be invisible or turn its neighbours round written out (`\\u202e`); times say their
zone. Leaves escaping for HTML to the templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlencode

from ztproxy.core.identity import JSON, Session
from ztproxy.core.locks import Lock, Target, TargetKind, meets, targets_of
from ztproxy.gateway.ports.directory import Listed
from ztproxy.surfaces.console.entrance import PREFIX

_AGENT = 40
_BROWSERS = {
    "Edg/": "Edge",
    "OPR/": "Opera",
    "Firefox/": "Firefox",
    "Chrome/": "Chrome",
    "Safari/": "Safari",
    "curl/": "curl",
}
_SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}

KINDS: dict[TargetKind, str] = {
    TargetKind.SESSION: "session",
    TargetKind.USER: "person",
    TargetKind.IDP_SESSION: "session at the provider",
    TargetKind.DEVICE: "device",
    TargetKind.GROUP: "group",
    TargetKind.ROUTE: "route",
    TargetKind.ALL: "everybody",
}


def plain(text: str) -> str:
    """The text with nothing in it that cannot be seen. `str.isprintable` is false for control and format
    characters (directions among them), surrogates, and every space but the plain one."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _written_out(one) for one in text)


def _written_out(one: str) -> str:
    return f"\\u{ord(one):04x}" if ord(one) < 0x10000 else f"\\U{ord(one):08x}"


class Moment(NamedTuple):
    """A time: for programs, in full, and how long ago."""

    iso: str
    text: str
    ago: str


def moment(seconds: float, now: float) -> Moment:
    at = datetime.fromtimestamp(seconds, UTC)
    return Moment(at.isoformat(timespec="seconds"), at.strftime("%Y-%m-%d %H:%M:%S UTC"), _ago(now - seconds))


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        number = int(abs(seconds) // length)
        if number:
            said = f"{number} {unit}{'' if number == 1 else 's'}"
            return f"{said} ago" if seconds > 0 else f"in {said}"
    return "just now"


def short_agent(agent: str) -> str:
    """A browser and its system where they can be told, else the beginning."""
    browser = next((name for mark, name in _BROWSERS.items() if mark in agent), None)
    system = next((name for mark, name in _SYSTEMS.items() if mark in agent), None)
    if browser is None:
        return plain(agent[:_AGENT]) + ("…" if len(agent) > _AGENT else "")
    return browser if system is None else f"{browser} on {system}"


def where(path: str, **fields: str) -> str:
    """A link to a page of ours; fields that are empty are left out."""
    query = urlencode({name: value for name, value in fields.items() if value}, errors="replace")
    return f"{PREFIX}{path}?{query}" if query else f"{PREFIX}{path}"


def revoke_link(target: Target) -> str:
    return where("/revoke", kind=target.kind, name=target.name, issuer=target.issuer)


def lock_link(target: Target) -> str:
    return where("/locks/new", kind=target.kind, name=target.name, issuer=target.issuer)


def sessions_of(number: int | None, exact: bool) -> str:
    """So many sessions, in words."""
    if number is None:
        return "an unknown number of sessions"
    said = "1 session" if number == 1 else f"{number} sessions"
    return said if exact else f"about {said}"


class SessionRow(NamedTuple):
    """A session in a list. `met` is what a lock does to it, "" where none meets it."""

    id: str
    href: str
    person: str
    name: str
    device: str
    address: str
    route: str
    agent: str
    signed_in: Moment
    seen: Moment
    met: str
    own: bool
    revoke: str
    revoke_person: str


class Book:
    """The locks by what they are aimed at, to find those that meet a session."""

    def __init__(self, locks: Iterable[Lock], now: float) -> None:
        self._now = now
        self._by_target: dict[Target, list[Lock]] = {}
        for lock in locks:
            self._by_target.setdefault(lock.target, []).append(lock)

    def meeting(self, session: Session) -> Iterator[Lock]:
        """Those that concern it now, but for locks on the routes it may come to."""
        for target in targets_of(session):
            for lock in self._by_target.get(target, ()):
                if meets(lock, session, self._now):
                    yield lock

    def said(self, session: Session) -> str:
        met = list(self.meeting(session))
        if any(lock.revokes for lock in met):
            return "ended"
        return "locked" if met else ""


def person_of(session: Session) -> str:
    return plain(session.identity.email or session.identity.username or session.identity.subject)


def user_of(session: Session) -> Target:
    return Target(TargetKind.USER, session.identity.subject, session.identity.issuer)


def session_row(listed: Listed, book: Book, own: str, now: float) -> SessionRow:
    session, seen = listed.session, listed.seen or listed.created_from
    return SessionRow(
        id=session.id,
        href=where(f"/sessions/{session.id}"),
        person=person_of(session),
        name=plain(session.identity.name or ""),
        device=plain(session.device or ""),
        address=plain(seen.address) if seen else "",
        route=plain(seen.route) if seen else "",
        agent=short_agent(seen.agent) if seen else "",
        signed_in=moment(session.created_at, now),
        seen=moment(listed.seen_at, now),
        met=book.said(session),
        own=session.id == own,
        revoke=revoke_link(Target(TargetKind.SESSION, session.id)),
        revoke_person=revoke_link(user_of(session)),
    )


class LockRow(NamedTuple):
    """A lock in a list. `lift` is where it can be lifted, "" where it cannot."""

    id: str
    number: int
    target: str
    action: str
    made_at: Moment
    until: Moment | None
    created_by: str
    reason: str
    message: str
    over: bool
    lift: str


def said(target: Target, *, label: str = "") -> str:
    """What a lock is aimed at; `label` is a better name, if there is one."""
    if target.kind is TargetKind.ALL:
        return KINDS[target.kind]
    at = f" at {plain(target.issuer)}" if target.issuer and not label else ""
    return f"{KINDS[target.kind]} {label or plain(target.name)}{at}"


def lock_row(lock: Lock, now: float) -> LockRow:
    return LockRow(
        id=lock.id,
        number=lock.number,
        target=said(lock.target),
        action="revoked" if lock.revokes else str(lock.action).replace("_", " "),
        made_at=moment(lock.made_at, now),
        until=None if lock.until is None else moment(lock.until, now),
        created_by=plain(lock.created_by),
        reason=plain(lock.reason),
        message=plain(lock.message),
        over=lock.until is not None and now >= lock.until,
        lift="" if lock.revokes else where("/locks/lift", id=lock.id),
    )


class Section(NamedTuple):
    """Facts under a heading: terms and values, or a table, or both."""

    title: str
    rows: tuple[tuple[str, str], ...]
    columns: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


def facts(value: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """What a report has beside its sections."""
    return [(_words(name), _text(inner)) for name, inner in value.items() if not _is_section(inner)]


def _is_section(value: JSON) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, dict) for one in value)
    return isinstance(value, dict)


def sections(value: Mapping[str, JSON]) -> list[Section]:
    """What a report has under headings: a list or a mapping of mappings becomes a table."""
    found = []
    for name, inner in value.items():
        if isinstance(inner, dict) and inner and all(isinstance(one, dict) for one in inner.values()):
            records = [{"": key, **one} for key, one in inner.items() if isinstance(one, dict)]
            found.append(_table(name, records))
        elif isinstance(inner, dict):
            found.append(
                Section(_words(name), tuple((_words(key), _text(one)) for key, one in inner.items()))
            )
        elif isinstance(inner, list) and _is_section(inner):
            found.append(_table(name, [one for one in inner if isinstance(one, dict)]))
    return found


def _table(name: str, records: Sequence[Mapping[str, JSON]]) -> Section:
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    table = tuple(tuple(_text(record.get(key)) for key in columns) for record in records)
    return Section(_words(name), (), tuple(map(_words, columns)), table)


def _words(name: str) -> str:
    return plain(name.replace("_", " ").capitalize())


def _text(value: JSON) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "—"
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)}: {_text(one)}" for key, one in value.items()) or "—"
    return plain(str(value))
