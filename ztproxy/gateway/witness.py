"""The witness: brings the evidence a decision needs. Every await of a request's way is in here.

Knows: where the facts come from (the ports). Promises: asks nothing that is not needed; a forged cookie
never reaches the store; one read at a time per session in this worker, however many requests wait for it; a
source that is away becomes `Unavailable`, never an exception, never a missing session. Judging is the core's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf

from ztproxy.core.evidence import NoSession, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request
from ztproxy.core.routes import Route
from ztproxy.core.sessions import Standing, standing
from ztproxy.errors import WorldError
from ztproxy.gateway.known import FRESH, Known, KnownSessions
from ztproxy.gateway.ports import HandleSigner, SessionStore

Refresh = Callable[[str, Session], Awaitable[Session | None]]
"""Has the provider vouch again for the session behind a handle; None when the session ended instead."""

_NOTHING_SHOWN = NoSession(Reason.LOGIN_REQUIRED)
_UNKNOWN = NoSession(Reason.SESSION_UNKNOWN)
_EXPIRED = NoSession(Reason.SESSION_EXPIRED)


class Witness:
    """Gathers the session behind a request's cookie.

    `serves(host, asked)` says whether a handle made for `host` counts at the host that was asked.
    `touch_every` is how often, in seconds, this worker tells the store that a session is in use.
    """

    def __init__(
        self,
        store: SessionStore,
        signer: HandleSigner,
        refresh: Refresh,
        *,
        serves: Callable[[str, str], bool],
        touch_every: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.known = KnownSessions()
        self._store, self._signer, self._refresh = store, signer, refresh
        self._serves, self._touch_every, self._monotonic = serves, touch_every, monotonic
        self._reading: dict[str, asyncio.Future[Known | None]] = {}

    def at_hand(self, request: Request) -> Known | NoSession | None:
        """What is known without asking anybody; None when somebody must be asked. Never awaits."""
        cookie = request.session
        if cookie is None:
            return _NOTHING_SHOWN
        known = self.known.fresh(cookie, self._monotonic())
        if known is not None and not self._serves(known.host, request.host):
            return _UNKNOWN
        return known

    async def gather(
        self, request: Request, route: Route | None, now: float
    ) -> Known | NoSession | Unavailable:
        """The session for this request, read again and vouched for again where the route asks for it.

        `route` None is for a page of ours: any session within its absolute limit will do.
        """
        cookie = request.session
        if cookie is None:
            return _NOTHING_SHOWN
        try:
            known = self.known.fresh(cookie, self._monotonic()) or await self._read(cookie)
            if known is not None and self._is_old(known):
                known = await self._read(cookie)  # by its bookmark now, which is quicker
            if known is None or not self._serves(known.host, request.host):
                return _UNKNOWN
            if now >= known.session.expires_at:
                return _EXPIRED
            if route is not None and standing(known.session, route.sensitivity, now) is Standing.STALE:
                known = await self._vouch(cookie, known)
            if known is None:
                return _EXPIRED
            # A store so slow that its answer is older than what may be relied on has not answered (FI05).
            return Unavailable() if self._is_old(known) else known
        except WorldError as error:
            return Unavailable(error.reason)

    def _is_old(self, known: Known) -> bool:
        return self._monotonic() - known.read_at >= FRESH

    async def _read(self, cookie: str) -> Known | None:
        reading = self._reading.get(cookie)
        if reading is None:
            handle = self._signer.open(cookie)
            if handle is None:
                return None
            reading = asyncio.ensure_future(self._ask_store(cookie, handle))
            self._reading[cookie] = reading
            reading.add_done_callback(lambda done: self._read_done(cookie, done))
        # One impatient client that goes away must not cancel the read the others wait for.
        return await asyncio.shield(reading)

    def _read_done(self, cookie: str, reading: asyncio.Future[Known | None]) -> None:
        del self._reading[cookie]
        if not reading.cancelled():
            reading.exception()  # whoever waited has it; nobody may be left waiting

    async def _ask_store(self, cookie: str, handle: str) -> Known | None:
        before = self._monotonic()
        last = self.known.last(cookie)
        loaded = await self._store.load(handle, last.bookmark if last else None)
        if loaded is None:
            self.known.forget(cookie)
            return None
        known = last
        if known is None or known.session != loaded.session:
            known = Known(handle, loaded.host, loaded.session, loaded.bookmark, before, -inf)
        known.read_at, known.bookmark = before, loaded.bookmark
        if before - known.touched_at >= self._touch_every:
            if not await self._store.touch(handle):
                self.known.forget(cookie)
                return None
            known.touched_at = before
        self.known.learn(cookie, known)
        return known

    async def _vouch(self, cookie: str, known: Known) -> Known | None:
        """Refreshes a session that is stale for its route. Nobody to ask means the person signs in again."""
        if not known.session.refreshable:
            return None
        session = await self._refresh(known.handle, known.session)
        self.known.forget(cookie)
        # Not `_read`: a read that is under way may have begun before the refresh, and still show it stale.
        return None if session is None else await self._ask_store(cookie, known.handle)
