"""The sessions there are, in Redis or Valkey: lists for those who look after them, and clearing up.

Knows: the keys of `redis_sessions`, whose docstring names them, and what may be read of a session under the
server's key alone. Promises: the port `SessionDirectory`; that no question reads more than `SEARCHED` records
and no script more than `BATCH`, however many sessions there are; that a place in a list is handed out sealed,
for one question. Leaves to the caller: who may ask.

A record whose seal is broken is left out, and logged. Lists show what is there at the moment each batch is
read: what begins or ends meanwhile may be missing, and nothing is shown twice.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import command
from ztproxy.adapters.redis_records import PREFIX, Records, milliseconds
from ztproxy.adapters.sealing import SealBroken, Sealer
from ztproxy.adapters.session_codec import pack, unpack_seen, unpack_session
from ztproxy.core.identity import Session
from ztproxy.core.locks import ALL, Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.gateway.ports.directory import Listed, ListedPage, Wanted

SEARCHED = 1000
"""Records one page reads at most, to find those that fit."""

BATCH = 200
"""Records one script reads or removes at most: about three milliseconds of the server's time."""

_ID = re.compile(r"[0-9a-f]{32}")
_NEWEST_FIRST, _OLDEST_FIRST = "REV", ""
_CURSOR = b"cursor"


class RedisDirectory:
    """Fulfils `SessionDirectory`. `prefix` is that of the `RedisSessions` whose sessions these are."""

    def __init__(self, client: Redis, sealer: Sealer, prefix: str = PREFIX) -> None:
        self._client = client
        self._records = Records(client, sealer, prefix)

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> ListedPage:
        """Up to `limit` sessions, newest first; raises `ClientError(HTTP_SYNTAX)` for a wrong cursor."""
        bound = "+inf" if cursor is None else f"({self._open_cursor(wanted, cursor)}"
        target = wanted.target or ALL
        if target.kind is TargetKind.SESSION:
            one = await self.show(target.name)
            return ListedPage((one,) if one is not None and wanted.fits(one.session) else (), None)
        if target.kind is TargetKind.ROUTE:
            return ListedPage((), None)
        index = self._records.index(target) or self._records.all
        found: list[Listed] = []
        for _ in range(SEARCHED // BATCH):
            rows = await self._records.run("list", index, _NEWEST_FIRST, bound, BATCH)
            for row in rows:
                if len(found) == limit:
                    return ListedPage(tuple(found), self._cursor(wanted, bound[1:]))
                bound = f"({_place(row)}"
                listed = self._listed(*row[:1], *row[2:])
                if listed is not None and wanted.fits(listed.session):
                    found.append(listed)
            if len(rows) < BATCH:
                return ListedPage(tuple(found), None)
        return ListedPage(tuple(found), self._cursor(wanted, bound[1:]))

    async def show(self, session_id: str) -> Listed | None:
        """The session of this public id."""
        if not _ID.fullmatch(session_id):
            return None
        key = self._records.record_key(session_id)
        row = await command(self._client, "HMGET", key, "f", "l", "b", "n")
        return self._listed(session_id.encode(), *row)

    async def of(self, target: Target) -> tuple[Listed, ...] | None:
        """The sessions of one person, device or session at the provider, oldest first, or the one itself."""
        if target.kind is TargetKind.SESSION:
            one = await self.show(target.name)
            return () if one is None else (one,)
        index = self._records.index(target)
        if index is None or index == self._records.all:
            return None
        found: list[Listed] = []
        bound, more = "-inf", True
        while more:
            rows = await self._records.run("list", index, _OLDEST_FIRST, bound, BATCH)
            listed = (self._listed(*row[:1], *row[2:]) for row in rows)
            wanted = Wanted(target)
            found += [one for one in listed if one is not None and wanted.fits(one.session)]
            more = len(rows) == BATCH
            bound = f"({_place(rows[-1])}" if more else bound
        return tuple(found)

    async def count(self) -> int:
        """How many sessions there are at this moment."""
        return int(await self._records.run("count"))

    async def join(self, session: Session, group: str, most: int) -> tuple[str, ...]:
        """Notes that a session is used in a group of routes; who of its person is too many there now."""
        who = session.identity
        # The lengths keep names apart that read alike when put together.
        text = f"{len(who.issuer)}:{len(who.subject)}:{who.issuer}{who.subject}{group}"
        index = f"{self._records.prefix}g:{hashlib.sha256(text.encode()).hexdigest()}"
        lifetime = milliseconds(session.expires_at - session.created_at)
        found = await self._records.run("join", session.id, index, most, lifetime)
        return tuple(str(one, "ascii") for one in found)

    async def clear(self, lock: Lock) -> int:
        """Removes the sessions a revocation ended, in batches between which the server has time for others.

        INVARIANT: each is removed only while its `as_of` is below the lock's number, which the script sees
        for itself: a session of the person who has signed in again since is not the lock's to end.
        """
        target = lock.target
        if not lock.revokes:
            return 0
        if target.kind is TargetKind.SESSION:
            known = _ID.fullmatch(target.name)
            return int(await self._records.run("clear", lock.number, target.name)) if known else 0
        index = self._records.index(target)
        if index is None:
            return 0
        cleared, bound, more = 0, "-inf", True
        while more:
            question = ("ZRANGE", index, bound, "+inf", "BYSCORE", "LIMIT", 0, BATCH, "WITHSCORES")
            answer = await command(self._client, *question)
            ids, places = answer[::2], answer[1::2]
            if ids:
                cleared += int(await self._records.run("clear", lock.number, *ids))
            more = len(ids) == BATCH
            bound = f"({int(float(places[-1]))}" if more else bound
        return cleared

    # ── one session ──

    def _listed(
        self, raw_id: bytes, facts: bytes | None, last: bytes | None, began: bytes | None, used: bytes | None
    ) -> Listed | None:
        records, session_id = self._records, raw_id.decode("ascii", "replace")

        def unpack(raw: bytes) -> Session:
            return unpack_session(raw, session_id, 0)

        session = records.open_openly(session_id, "f", facts, unpack)
        if session is None:
            return None
        created_from = records.open_openly(session_id, "b", began, unpack_seen)
        seen = records.open_openly(session_id, "n", used, unpack_seen) or created_from
        # In clear, so anything may stand there; it is shown and decides nothing.
        seen_at = int(last) / 1000 if last and re.fullmatch(rb"\d{1,15}", last) else 0.0
        return Listed(session, seen_at, seen, created_from)

    # ── places in a list ──

    def _cursor(self, wanted: Wanted, place: str) -> str:
        sealed = self._records.sealer.seal(_CURSOR, self._question(wanted), place.encode())
        return base64.urlsafe_b64encode(sealed).decode()

    def _open_cursor(self, wanted: Wanted, cursor: str) -> str:
        try:
            sealed = base64.b64decode(cursor, altchars=b"-_", validate=True)
            return self._records.sealer.open(_CURSOR, self._question(wanted), sealed).decode()
        except (ValueError, SealBroken):
            raise ClientError(Reason.HTTP_SYNTAX, "cursor: not of this list") from None

    def _question(self, wanted: Wanted) -> bytes:
        asked = pack((wanted.target, wanted.provider, wanted.text))
        return f"{self._records.prefix}cursor:{hashlib.sha256(asked).hexdigest()}".encode()


def _place(row: Any) -> int:
    return int(float(row[1]))
