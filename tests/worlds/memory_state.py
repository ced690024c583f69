"""The state ports in memory, for tests of the gateway: one event loop, a clock one can set, no ciphers.

Fulfils `SessionStore`, `SessionDirectory`, `OneTimeStore` and `Locks`. `sessions` and `values` may be looked
at; `away` makes every call fail as a store that is gone.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import Any

from ztproxy.core.identity import Credential, Session, SessionSecrets
from ztproxy.core.locks import Lock, Target, TargetKind, targets_of
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports import Loaded, Seen
from ztproxy.gateway.ports.directory import Listed, ListedPage, Wanted


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Record:
    session: Session
    secrets: SessionSecrets
    number: int  # of its beginning
    seen_at: float
    seen: Seen | None = None
    created_from: Seen | None = None
    ends: float = inf  # by its own idle time
    handles: dict[str, str] = field(default_factory=dict)  # handle → host


class MemoryState:
    def __init__(self, clock: SetClock) -> None:
        self.clock = clock
        self.log: str | None = None  # which log of locks it has, where that matters
        self.number: float = inf  # of its last lock
        self.away = False
        self.groups: dict[tuple[str, str, str], list[str]] = {}  # first come first
        self.begun = 0
        self.sessions: dict[str, Record] = {}
        self.cursors: dict[str, tuple[Wanted, int]] = {}
        self.values: dict[tuple[str, str], tuple[bytes, float]] = {}
        self.claims: dict[tuple[str, str], float] = {}
        self.locks: dict[str, tuple[str, float]] = {}

    def _here(self) -> None:
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")

    def _find(self, handle: str | None) -> Record | None:
        self._here()
        found = next((record for record in self.sessions.values() if handle in record.handles), None)
        if found is not None and self.clock() >= found.ends:
            del self.sessions[found.session.id]
            return None
        return found

    def _idle_end(self, session: Session) -> float:
        return inf if session.idle is None else self.clock() + session.idle

    def _see_that_the_log_is_the_same(self, session: Session) -> None:
        same = self.log in (None, session.log) and session.as_of <= self.number
        if session.log and not same:
            raise ClientError(Reason.LOGIN_REVOKED, "log: another one")

    def snapshot(self) -> dict[str, tuple[Session, SessionSecrets, tuple[str, ...]]]:
        """All sessions with their handles, to compare before and after a refusal."""
        return {
            key: (record.session, record.secrets, tuple(record.handles))
            for key, record in self.sessions.items()
        }

    # SessionStore

    async def create(
        self,
        session: Session,
        secrets_: SessionSecrets,
        host: str,
        replaces: str | None,
        seen: Seen | None = None,
    ) -> str:
        _is_a_persons(session)
        old = self._find(replaces)
        self._see_that_the_log_is_the_same(session)
        if old is not None:
            del self.sessions[old.session.id]
        handle = secrets.token_urlsafe(32)
        stored = replace(session, id=secrets.token_hex(16), revision=0, log="")
        self.begun += 1
        where = cut(seen)
        self.sessions[stored.id] = Record(
            stored,
            secrets_,
            self.begun,
            self.clock(),
            where,
            where,
            self._idle_end(stored),
            {handle: host},
        )
        return handle

    async def attach(self, handle: str, host: str) -> str | None:
        record = self._find(handle)
        if record is None:
            return None
        further = secrets.token_urlsafe(32)
        record.handles[further] = host
        return further

    async def load(self, handle: str, bookmark: Any = None) -> Loaded | None:
        record = self._find(handle)
        return None if record is None else Loaded(record.session, record.handles[handle])

    async def secrets(self, handle: str) -> SessionSecrets | None:
        record = self._find(handle)
        return None if record is None else record.secrets

    async def replace(self, handle: str, session: Session, secrets_: SessionSecrets) -> str | None:
        record = self._find(handle)
        if record is not None and record.session.revision == session.revision:
            self._see_that_the_log_is_the_same(session)
        if record is None or not self._write(record, session, secrets_):
            return None
        fresh = secrets.token_urlsafe(32)
        record.handles = {fresh: record.handles[handle]}
        record.seen_at, record.ends = self.clock(), self._idle_end(session)
        return fresh

    async def update(self, handle: str, session: Session, secrets_: SessionSecrets) -> bool:
        record = self._find(handle)
        return record is not None and self._write(record, session, secrets_)

    def _write(self, record: Record, session: Session, secrets_: SessionSecrets) -> bool:
        _is_a_persons(session)
        if record.session.revision != session.revision:
            return False
        record.session = replace(session, id=record.session.id, revision=session.revision + 1, log="")
        record.secrets = secrets_
        record.ends = min(record.ends, self._idle_end(session))
        return True

    async def touch(self, handle: str, seen: Seen | None = None) -> bool:
        record = self._find(handle)
        if record is not None:
            record.seen_at, record.seen = self.clock(), cut(seen) or record.seen
            record.ends = self._idle_end(record.session)
        return record is not None

    async def end(self, handle: str) -> bool:
        record = self._find(handle)
        if record is not None:
            del self.sessions[record.session.id]
        return record is not None

    # SessionDirectory

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> ListedPage:
        self._here()
        question, before = (wanted, self.begun + 1) if cursor is None else self.cursors.get(cursor, (None, 0))
        if question != wanted:
            raise ClientError(Reason.HTTP_SYNTAX, "cursor: not of this list")
        left = [
            record
            for record in reversed(self.sessions.values())
            if record.number < before and wanted.fits(record.session)
        ]
        further = None
        if len(left) > limit:
            further = secrets.token_urlsafe(8)
            self.cursors[further] = (wanted, left[limit - 1].number)
        return ListedPage(tuple(listed(record) for record in left[:limit]), further)

    async def show(self, session_id: str) -> Listed | None:
        self._here()
        record = self.sessions.get(session_id)
        return None if record is None else listed(record)

    async def of(self, target: Target) -> tuple[Listed, ...] | None:
        self._here()
        if target.kind in (TargetKind.GROUP, TargetKind.ROUTE, TargetKind.ALL):
            return None
        met = [record for record in self.sessions.values() if target in targets_of(record.session)]
        return tuple(listed(record) for record in met)

    async def count(self) -> int:
        self._here()
        return len(self.sessions)

    async def join(self, session: Session, group: str, most: int) -> tuple[str, ...]:
        self._here()
        who = session.identity
        there = self.groups.setdefault((who.issuer, who.subject, group), [])
        there[:] = [one for one in there if one in self.sessions]
        if session.id not in self.sessions:
            return ()
        if session.id not in there:
            there.append(session.id)
        return tuple(one for one in there[: max(0, len(there) - most)] if one != session.id)

    async def clear(self, lock: Lock) -> int:
        self._here()
        if not lock.revokes or lock.target.kind is TargetKind.GROUP:
            return 0
        gone = [
            key
            for key, record in self.sessions.items()
            if lock.target in targets_of(record.session) and record.session.as_of < lock.number
        ]
        for key in gone:
            del self.sessions[key]
        return len(gone)

    # OneTimeStore

    async def put(self, kind: str, key: str, value: bytes, ttl: float) -> None:
        self._here()
        self.values[kind, key] = (value, self.clock() + ttl)

    async def take(self, kind: str, key: str) -> bytes | None:
        self._here()
        value, until = self.values.pop((kind, key), (None, 0.0))
        return value if self.clock() < until else None

    async def claim(self, kind: str, key: str, ttl: float) -> bool:
        self._here()
        if self.clock() < self.claims.get((kind, key), 0.0):
            return False
        self.claims[kind, key] = self.clock() + ttl
        return True

    # Locks

    async def acquire(self, name: str, ttl: float) -> str | None:
        self._here()
        _, until = self.locks.get(name, ("", 0.0))
        if self.clock() < until:
            return None
        token = secrets.token_hex(8)
        self.locks[name] = (token, self.clock() + ttl)
        return token

    async def release(self, name: str, token: str) -> None:
        self._here()
        if self.locks.get(name, ("", 0.0))[0] == token:
            del self.locks[name]


def _is_a_persons(session: Session) -> None:
    if session.by is not Credential.COOKIE:
        raise ValueError("a session of a service is not stored")


def cut(seen: Seen | None) -> Seen | None:
    return None if seen is None else seen._replace(agent=seen.agent[:256])


def listed(record: Record) -> Listed:
    plain = replace(record.session.identity, claims=MappingProxyType({}))
    session = replace(record.session, identity=plain, revision=0)
    return Listed(session, record.seen_at, record.seen, record.created_from)
