"""Sessions in Redis or Valkey: found by handle, sealed, written by compare-and-set only.

Knows: the keys below, the scripts that change them, Redis' own clock. Promises: the port `SessionStore`; that
no write but `create` brings a session into being, for each is one script that first looks whether it is
there; and that no write prolongs its absolute end, which Redis keeps by its own clock, whatever a worker's
clock says. Leaves to the caller: `core.sessions` for what else ends a session, and how often to `touch`.

    {ztp}:h:<sha256(handle)>      string  sealed under the handle: the session's secret id, and the host
    {ztp}:s:<id>                  hash    id = the first 32 letters of sha256(secret id), which is public
                                          s  the session, and k its tokens, each sealed under the secret id
                                          f  what lists show of it, b where it began and n where it was used
                                             last, each sealed under the server's key alone
                                          r  revision     a  absolute end, l last use: ms, Redis' clock
                                          m  its own idle time in ms, where it has one
                                          o  as_of, for housekeeping alone      u, i, d  its indexes
    {ztp}:hs:<id>                 set     the handle keys of the session
    {ztp}:u:<sha256(iss, sub)>    zset    a person's sessions
    {ztp}:i:<sha256(iss, sid)>    zset    the sessions of one session at the provider
    {ztp}:d:<sha256(device)>      zset    the sessions bound to a device
    {ztp}:all                     zset    all; the score in these four is when it began: microseconds, Redis'
                                          clock, no two alike
    {ztp}:due                     zset    all, by the ms at which they end if they are not used again

The idle time, the store's or the session's own if that is shorter, is the time to live of `s`; all others
live to the absolute end. What ended by time alone leaves the lists when they are next touched. A seal that
does not open is treated as a session that is not there, and logged: the person signs in again, nobody is let
in.

The braces are a hash tag: on a Redis Cluster the whole state lies in one slot, on one primary. That is what
keeps every script atomic, and it is enough: a primary answers more than 100 000 commands a second, and a
session is read once in a while by each worker and written once a minute. Replicas are never read.
"""

from __future__ import annotations

import hashlib
import secrets as random
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import command, translate
from ztproxy.adapters.redis_records import PREFIX, Records, milliseconds
from ztproxy.adapters.sealing import Sealer
from ztproxy.adapters.session_codec import (
    HandleRecord,
    facts_of,
    pack,
    pack_seen,
    pack_session,
    unpack_handle,
    unpack_secrets,
    unpack_session,
)
from ztproxy.core.identity import Session, SessionSecrets
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import SessionLimits
from ztproxy.errors import ClientError
from ztproxy.gateway.ports import Loaded, Seen


@dataclass(frozen=True, slots=True)
class _Found:
    """A handle that was found and opened."""

    record: HandleRecord
    id: str  # the public one
    key: str  # the handle's own key


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What `load` saw, so that reading the same again takes one round trip and no deciphering. Of the sealed
    values their digests: a worker keeps one of these for each session it knows."""

    found: _Found = field(repr=False)
    handle_digest: bytes = field(repr=False)
    session_digest: bytes = field(repr=False)
    session: Session


class RedisSessions:
    """Fulfils `SessionStore`."""

    def __init__(self, client: Redis, sealer: Sealer, limits: SessionLimits, prefix: str = PREFIX) -> None:
        self._client, self._limits = client, limits
        self._records = Records(client, sealer, prefix)

    async def create(
        self,
        session: Session,
        secrets: SessionSecrets,
        host: str,
        replaces: str | None,
        seen: Seen | None = None,
    ) -> str:
        """Stores a new session, ends the one behind the handle `replaces`, and answers the new handle."""
        records = self._records
        session_id = random.token_bytes(32)
        public = _public_id(session_id)
        handle = random.token_urlsafe(32)
        old = await self._find(replaces) if replaces else None
        # A span and not a date, so that a worker whose clock is wrong cannot make long-lived sessions.
        absolute = min(session.expires_at - session.created_at, self._limits.absolute)
        done = await records.run(
            "create",
            public,
            old.id if old else "",
            records.handle_key(handle),
            self._seal_handle(handle, session_id, host),
            milliseconds(absolute),
            milliseconds(self._limits.idle),
            self._seal_seen(public, "b", seen),
            *self._written(session, secrets, session_id, 0),
        )
        _see_that_the_log_is_the_same(done)
        return handle

    async def attach(self, handle: str, host: str) -> str | None:
        """A further handle, for `host`, of the session behind `handle`; None if that is gone."""
        found = await self._find(handle)
        if found is None:
            return None
        further = random.token_urlsafe(32)
        sealed = self._seal_handle(further, found.record.session_id, host)
        done = await self._records.run(
            "attach", found.id, found.key, self._records.handle_key(further), sealed
        )
        return further if done else None

    async def load(self, handle: str, bookmark: Any = None) -> Loaded | None:
        """The session as it is now, or None; two round trips, or one with a `bookmark` of this handle."""
        key = self._records.handle_key(handle)
        if isinstance(bookmark, Bookmark) and bookmark.found.key == key:
            sealed_handle, (sealed, revision) = await self._both(
                key, self._records.record_key(bookmark.found.id)
            )
            if sealed_handle is None:
                return None
            if _digest(sealed_handle) != bookmark.handle_digest:
                # Not what it was: nothing of the bookmark may be believed.
                return await self.load(handle)
            unchanged = sealed is not None and _digest(sealed) == bookmark.session_digest
            if unchanged and revision == b"%d" % bookmark.session.revision:
                return Loaded(bookmark.session, bookmark.found.record.host, bookmark)
            found = bookmark.found
        else:
            sealed_handle = await command(self._client, "GET", key)
            opened = self._open_handle(handle, key, sealed_handle)
            if opened is None:
                return None
            found = opened
            sealed, revision = await command(
                self._client, "HMGET", self._records.record_key(found.id), "s", "r"
            )
        session = self._open_session(found, sealed, revision)
        if session is None:
            return None
        return Loaded(
            session, found.record.host, Bookmark(found, _digest(sealed_handle), _digest(sealed), session)
        )

    async def secrets(self, handle: str) -> SessionSecrets | None:
        """The tokens of the session behind `handle`."""
        found = await self._find(handle)
        if found is None:
            return None
        sealed, revision = await command(self._client, "HMGET", self._records.record_key(found.id), "k", "r")
        place = self._records.place(found.id, "k", revision or b"")
        return self._records.open(sealed, found.record.session_id, place, unpack_secrets)

    async def replace(self, handle: str, session: Session, secrets: SessionSecrets) -> str | None:
        """Writes as `update` does, and answers a new handle for the same host; every old one dies."""
        found = await self._find(handle)
        if found is None:
            return None
        fresh = random.token_urlsafe(32)
        sealed = self._seal_handle(fresh, found.record.session_id, found.record.host)
        done = await self._records.run(
            "replace",
            found.id,
            found.key,
            session.revision,
            self._records.handle_key(fresh),
            sealed,
            milliseconds(self._limits.idle),
            *self._written(session, secrets, found.record.session_id, session.revision + 1),
        )
        _see_that_the_log_is_the_same(done)
        return fresh if done else None

    async def update(self, handle: str, session: Session, secrets: SessionSecrets) -> bool:
        """Writes the record if it is still at `session.revision`, and does not start the idle time anew; what
        is left of it is cut to `session.idle`."""
        found = await self._find(handle)
        if found is None:
            return False
        done = await self._records.run(
            "update",
            found.id,
            found.key,
            session.revision,
            *self._written(session, secrets, found.record.session_id, session.revision + 1),
        )
        return bool(done)

    async def touch(self, handle: str, seen: Seen | None = None) -> bool:
        """Starts the idle time anew, within the absolute end, and notes where; False if it is gone."""
        found = await self._find(handle)
        if found is None:
            return False
        where = self._seal_seen(found.id, "n", seen)
        idle = milliseconds(self._limits.idle)
        return bool(await self._records.run("touch", found.id, found.key, idle, where))

    async def end(self, handle: str) -> bool:
        """Ends the session behind `handle`, and all its handles; True if there was one."""
        found = await self._find(handle)
        return found is not None and bool(await self._records.run("end", found.id))

    # ── keys and seals ──

    async def _find(self, handle: str) -> _Found | None:
        key = self._records.handle_key(handle)
        return self._open_handle(handle, key, await command(self._client, "GET", key))

    async def _both(self, handle_key: str, record_key: str) -> list[Any]:
        with translate():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.get(handle_key)
                pipe.hmget(record_key, ["s", "r"])
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            return answers

    def _open_handle(self, handle: str, key: str, sealed: bytes | None) -> _Found | None:
        record = self._records.open(sealed, handle.encode(), key.encode(), unpack_handle)
        return None if record is None else _Found(record, _public_id(record.session_id), key)

    def _seal_handle(self, handle: str, session_id: bytes, host: str) -> bytes:
        place = self._records.handle_key(handle).encode()
        return self._records.sealer.seal(handle.encode(), place, pack(HandleRecord(session_id, host)))

    def _written(
        self, session: Session, secrets: SessionSecrets, session_id: bytes, revision: int
    ) -> tuple[bytes | str | int, ...]:
        """WRITTEN, as the scripts name it. The revision is part of the place, so a sealed value cannot
        outlive it."""
        records, public, number = self._records, _public_id(session_id), b"%d" % revision
        who = session.identity
        return (
            records.sealer.seal(session_id, records.place(public, "s", number), pack_session(session)),
            records.sealer.seal(session_id, records.place(public, "k", number), pack(secrets)),
            records.seal_openly(public, "f", pack(facts_of(session))),
            session.as_of,
            self._index(TargetKind.USER, who.subject, who.issuer),
            self._index(TargetKind.IDP_SESSION, session.idp_session, who.issuer),
            self._index(TargetKind.DEVICE, session.device),
            "" if session.idle is None else milliseconds(session.idle),
            session.log,
        )

    def _open_session(self, found: _Found, sealed: bytes | None, revision: bytes | None) -> Session | None:
        number = revision or b""
        return self._records.open(
            sealed,
            found.record.session_id,
            self._records.place(found.id, "s", number),
            lambda raw: unpack_session(raw, found.id, int(number)),
        )

    def _seal_seen(self, session_id: str, name: str, seen: Seen | None) -> bytes:
        return b"" if seen is None else self._records.seal_openly(session_id, name, pack_seen(seen))

    def _index(self, kind: TargetKind, name: str | None, issuer: str = "") -> str:
        return "" if name is None else self._records.index(Target(kind, name, issuer)) or ""


def _see_that_the_log_is_the_same(done: Any) -> None:
    if done == -1:
        raise ClientError(Reason.LOGIN_REVOKED, "log: it is another one than when the sign-in began")


def _digest(sealed: bytes) -> bytes:
    return hashlib.sha256(sealed).digest()


def _public_id(session_id: bytes) -> str:
    return hashlib.sha256(session_id).hexdigest()[:32]
