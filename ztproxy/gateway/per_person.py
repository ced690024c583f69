"""At most so many sessions of one person, at all or in a group of routes: one more ends the oldest.

Knows: which are too many. Promises: they end as every revocation does, by a lock that holds everywhere (S27);
whatever goes wrong in that, the person who has just signed in stays signed in. Leaves to its caller when to
ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ztproxy.core.identity import Session
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.core.routes import SessionLimit
from ztproxy.errors import WorldError
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.ports.administration import Revoke
from ztproxy.gateway.ports.directory import SessionDirectory


class SessionsPerPerson:
    """`most` is at least one, or None for any number. `failed` hears of what could not be ended, or not
    surely."""

    def __init__(
        self,
        most: int | None,
        directory: SessionDirectory,
        revoke: Revoke,
        heard: Heard,
        failed: Callable[[str], None],
    ) -> None:
        self._most, self._directory, self._revoke = most, directory, revoke
        self._heard, self._failed = heard, failed

    async def signed_in(self, session: Session) -> None:
        """`session` has just begun. Of two that begin at once the newer ends the older where both are too
        many, never each the other."""
        if self._most is None:
            return
        who = session.identity
        try:
            listed = await self._directory.of(Target(TargetKind.USER, who.subject, who.issuer)) or ()
        except WorldError as error:
            self._failed(f"the sessions of a person: {error}")
            return
        live = [one.session.id for one in listed if not self._heard.revoked(one.session)]
        too_many = [session_id for session_id in live[: -self._most] if session_id != session.id]
        await asyncio.gather(*(self._end(session_id) for session_id in too_many))

    async def uses(self, session: Session, limit: SessionLimit) -> None:
        """`session` is used on a route of a group for the first time in this worker. Raises `WorldError` when
        the store is away: nobody can say then whether it is one too many."""
        too_many = await self._directory.join(session, limit.group, limit.most)
        await asyncio.gather(*(self._end(session_id) for session_id in too_many))

    async def _end(self, session_id: str) -> None:
        target = Target(TargetKind.SESSION, session_id)
        # The id is the session's, so that two sign-ins at once make one lock of it.
        lock = Lock(id=f"limit-{session_id}", target=target, created_by="ztproxy", reason="session limit")
        try:
            confirmed = (await self._revoke(lock)).confirmed
        except WorldError as error:
            self._failed(f"the oldest session of a person: {error}")
            return
        if not confirmed:
            self._failed("the oldest session of a person: not confirmed")
