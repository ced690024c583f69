"""Sessions in Redis or Valkey: found by handle, sealed, written by compare-and-set only.

Knows: the keys below, the scripts that change them, Redis' own clock. Promises: the port `SessionStore`; that
no write but `create` brings a session into being, for each is one script that first looks whether it is
there; and that no write prolongs its absolute end, which Redis keeps by its own clock, whatever a worker's
clock says. Leaves to the caller: `core.sessions` for what else ends a session, and how often to `touch`.

    ztp:h:<sha256(handle)>   string  sealed under the handle: the session's secret id, and the host
    ztp:s:{<digest>}         hash    digest = sha256(secret id); its first 32 letters are the public id
                                     s  the session, and k its tokens, each sealed under the secret id
                                     f  facts for lists of sessions, sealed under the server's key alone
                                     r  revision   a  absolute end, ms, Redis' clock   u, i  its indexes
    ztp:hs:{<digest>}        set     the handle keys of the session
    ztp:u:<sha256(iss, sub)> set     digests of a person's sessions
    ztp:i:<sha256(iss, sid)> set     digests of the sessions of one session at the provider

The idle time is the time to live of `ztp:s:`; all others live to the absolute end. A seal that does not open
is treated as a session that is not there, and logged: the person signs in again, nobody is let in.

Not safe on a Redis Cluster yet: a session's own two keys share a hash tag, but the scripts also reach for its
handles and indexes, which lie in other slots. One primary (alone, under Sentinel, managed) is what this
needs.
"""

from __future__ import annotations

import hashlib
import logging
import secrets as random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import command, translate
from ztproxy.adapters.sealing import Breach, SealBroken, Sealer
from ztproxy.adapters.session_codec import (
    HandleRecord,
    SessionFacts,
    facts_of,
    pack,
    unpack_facts,
    unpack_handle,
    unpack_secrets,
    unpack_session,
)
from ztproxy.adapters.session_scripts import SCRIPTS
from ztproxy.core.identity import Session, SessionSecrets
from ztproxy.core.sessions import SessionLimits
from ztproxy.gateway.ports import Loaded

_log = logging.getLogger("ztproxy.state")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Found:
    """A handle that was found and opened."""

    record: HandleRecord
    digest: str  # of the secret session id
    key: str  # the handle's own key


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What `load` saw, so that reading the same again takes one round trip and no deciphering."""

    found: _Found = field(repr=False)
    sealed_handle: bytes = field(repr=False)
    sealed_session: bytes = field(repr=False)
    session: Session


class RedisSessions:
    """Fulfils `SessionStore`."""

    def __init__(self, client: Redis, sealer: Sealer, limits: SessionLimits, prefix: str = "ztp:") -> None:
        self._client, self._sealer, self._limits, self._prefix = client, sealer, limits, prefix
        self._scripts: dict[str, Any] = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    # ── the port ──

    async def create(self, session: Session, secrets: SessionSecrets, host: str, replaces: str | None) -> str:
        """Stores a new session, ends the one behind the handle `replaces`, and answers the new handle."""
        session_id = random.token_bytes(32)
        digest = hashlib.sha256(session_id).hexdigest()
        handle = random.token_urlsafe(32)
        old = await self._find(replaces) if replaces else None
        # A span and not a date, so that a worker whose clock is wrong cannot make long-lived sessions.
        absolute = min(session.expires_at - session.created_at, self._limits.absolute)
        who = session.identity
        await self._run(
            "create",
            digest,
            old.digest if old else "",
            self._index("u", who.issuer, who.subject),
            self._index("i", who.issuer, session.idp_session) if session.idp_session else "",
            self._handle_key(handle),
            self._seal_handle(handle, session_id, host),
            _milliseconds(absolute),
            _milliseconds(self._limits.idle),
            *self._sealed(session, secrets, session_id, digest, 0),
        )
        return handle

    async def attach(self, handle: str, host: str) -> str | None:
        """A further handle, for `host`, of the session behind `handle`; None if that is gone."""
        found = await self._find(handle)
        if found is None:
            return None
        further = random.token_urlsafe(32)
        sealed = self._seal_handle(further, found.record.session_id, host)
        done = await self._run("attach", found.digest, found.key, self._handle_key(further), sealed)
        return further if done else None

    async def load(self, handle: str, bookmark: Any = None) -> Loaded | None:
        """The session as it is now, or None; two round trips, or one with a `bookmark` of this handle."""
        key = self._handle_key(handle)
        if isinstance(bookmark, Bookmark) and bookmark.found.key == key:
            sealed_handle, (sealed, revision) = await self._both(key, self._record_key(bookmark.found.digest))
            if sealed_handle != bookmark.sealed_handle:
                # Gone, or not what it was: nothing of the bookmark may be believed.
                return await self.load(handle) if sealed_handle is not None else None
            if sealed == bookmark.sealed_session and revision == b"%d" % bookmark.session.revision:
                return Loaded(bookmark.session, bookmark.found.record.host, bookmark)
            found = bookmark.found
        else:
            sealed_handle = await command(self._client, "GET", key)
            opened = self._open_handle(handle, key, sealed_handle)
            if opened is None:
                return None
            found = opened
            sealed, revision = await command(self._client, "HMGET", self._record_key(found.digest), "s", "r")
        session = self._open_session(found, sealed, revision)
        if session is None:
            return None
        return Loaded(session, found.record.host, Bookmark(found, sealed_handle, sealed, session))

    async def secrets(self, handle: str) -> SessionSecrets | None:
        """The tokens of the session behind `handle`."""
        found = await self._find(handle)
        if found is None:
            return None
        sealed, revision = await command(self._client, "HMGET", self._record_key(found.digest), "k", "r")
        place = self._place(found.digest, "k", revision)
        return self._open(sealed, found.record.session_id, place, unpack_secrets)

    async def replace(self, handle: str, session: Session, secrets: SessionSecrets) -> str | None:
        """Writes as `update` does, and answers a new handle for the same host; every old one dies."""
        found = await self._find(handle)
        if found is None:
            return None
        fresh = random.token_urlsafe(32)
        sealed = self._seal_handle(fresh, found.record.session_id, found.record.host)
        done = await self._run(
            "replace",
            found.digest,
            found.key,
            session.revision,
            self._handle_key(fresh),
            sealed,
            _milliseconds(self._limits.idle),
            *self._sealed(session, secrets, found.record.session_id, found.digest, session.revision + 1),
        )
        return fresh if done else None

    async def update(self, handle: str, session: Session, secrets: SessionSecrets) -> bool:
        """Writes the record if it is still at `session.revision`, and does not start the idle time anew."""
        found = await self._find(handle)
        if found is None:
            return False
        done = await self._run(
            "update",
            found.digest,
            found.key,
            session.revision,
            *self._sealed(session, secrets, found.record.session_id, found.digest, session.revision + 1),
        )
        return bool(done)

    async def touch(self, handle: str) -> bool:
        """Starts the idle time anew, within the absolute end; False if the session is gone."""
        found = await self._find(handle)
        return found is not None and bool(
            await self._run("touch", found.digest, found.key, _milliseconds(self._limits.idle))
        )

    async def end(self, handle: str) -> bool:
        """Ends the session behind `handle`, and all its handles; True if there was one."""
        found = await self._find(handle)
        return found is not None and bool(await self._run("end", found.digest))

    # ── by person ──

    async def end_of_person(self, issuer: str, subject: str) -> int:
        """Ends every session of one person; how many there were."""
        return int(await self._run("end_of_index", self._index("u", issuer, subject)))

    async def end_of_provider_session(self, issuer: str, sid: str) -> int:
        """Ends every session that came from one session at the provider (its `sid`); how many there were."""
        return int(await self._run("end_of_index", self._index("i", issuer, sid)))

    async def sessions_of_person(self, issuer: str, subject: str) -> list[SessionFacts]:
        """The live sessions of one person, oldest first."""
        rows = await self._run("list", self._index("u", issuer, subject))
        listed = []
        for digest, sealed in rows:
            name = str(digest, "ascii")
            place = self._place(name, "f", b"")
            facts = self._open(sealed, name.encode(), place, unpack_facts)
            if facts is not None:
                listed.append(facts)
        return sorted(listed, key=lambda facts: (facts.created_at, facts.id))

    # ── keys and seals ──

    async def _find(self, handle: str) -> _Found | None:
        key = self._handle_key(handle)
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
        record = self._open(sealed, handle.encode(), key.encode(), unpack_handle)
        if record is None:
            return None
        return _Found(record, hashlib.sha256(record.session_id).hexdigest(), key)

    def _seal_handle(self, handle: str, session_id: bytes, host: str) -> bytes:
        place = self._handle_key(handle).encode()
        return self._sealer.seal(handle.encode(), place, pack(HandleRecord(session_id, host)))

    def _sealed(
        self, session: Session, secrets: SessionSecrets, session_id: bytes, digest: str, revision: int
    ) -> tuple[bytes, bytes, bytes]:
        """The fields s, k and f. The revision is part of the place, so a sealed value cannot outlive it."""
        number = str(revision).encode()
        facts = facts_of(replace(session, id=_public_id(digest)))
        return (
            self._sealer.seal(session_id, self._place(digest, "s", number), pack(session)),
            self._sealer.seal(session_id, self._place(digest, "k", number), pack(secrets)),
            self._sealer.seal(digest.encode(), self._place(digest, "f", b""), pack(facts)),
        )

    def _open_session(self, found: _Found, sealed: bytes | None, revision: bytes | None) -> Session | None:
        place = self._place(found.digest, "s", revision)
        return self._open(
            sealed,
            found.record.session_id,
            place,
            lambda raw: unpack_session(raw, _public_id(found.digest), int(revision or b"0")),
        )

    def _open(
        self, sealed: bytes | None, secret: bytes, place: bytes, unpack: Callable[[bytes], T]
    ) -> T | None:
        if sealed is None:
            return None
        try:
            return unpack(self._sealer.open(secret, place, sealed))
        except SealBroken as broken:
            # An old key is an operator's choice; anything else means somebody writes into our state.
            level = logging.WARNING if broken.breach is Breach.KEY else logging.CRITICAL
            _log.log(level, "the seal at `%s` does not open: %s", place.decode("ascii", "replace"), broken)
        except ValueError:
            _log.critical("the record at `%s` cannot be read", place.decode("ascii", "replace"))
        return None

    def _handle_key(self, handle: str) -> str:
        return f"{self._prefix}h:{hashlib.sha256(handle.encode()).hexdigest()}"

    def _record_key(self, digest: str) -> str:
        return f"{self._prefix}s:{{{digest}}}"

    def _place(self, digest: str, name: str, revision: bytes | None) -> bytes:
        return f"{self._record_key(digest)}:{name}:".encode() + (revision or b"")

    def _index(self, kind: str, issuer: str, name: str) -> str:
        # The length keeps (`ab`, `c`) and (`a`, `bc`) apart.
        text = f"{len(issuer)}:{issuer}{name}"
        return f"{self._prefix}{kind}:{hashlib.sha256(text.encode()).hexdigest()}"

    async def _run(self, name: str, *arguments: Any) -> Any:
        with translate():
            return await self._scripts[name](args=[self._prefix, *arguments])


def _public_id(digest: str) -> str:
    return digest[:32]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
