"""The witness: brings the evidence a decision needs. Every await of a request's way is in here.

Knows: where the facts come from (the ports). Promises: no session without a live lease on the log of locks
(INV-6), and none that the log has revoked; asks nothing that is not needed; a forged cookie never reaches the
store; one read at a time per session in this worker, however many requests wait for it; a source that is away
becomes `Unavailable`, never an exception, never a missing session; a session that is bound to a device is
one only there, for the pages of our own too. Judging is the core's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf

from ztproxy.core.decision import on_its_device
from ztproxy.core.device import OnDevice
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, NoSession, Unavailable
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request
from ztproxy.core.routes import Route, SessionLimit
from ztproxy.core.sessions import Standing, device_id, rebound, standing
from ztproxy.errors import WorldError
from ztproxy.gateway.devices import DeviceWitness
from ztproxy.gateway.known import FRESH, RELIED_ON, Known, KnownSessions
from ztproxy.gateway.lease import Lease
from ztproxy.gateway.ports import HandleSigner, Seen, SessionStore

Refresh = Callable[[str, Session], Awaitable[Session | None]]
"""Has the provider vouch again for the session behind a handle; None when the session ended instead."""

_NOTHING_SHOWN = NoSession(Reason.LOGIN_REQUIRED)
_UNKNOWN = NoSession(Reason.SESSION_UNKNOWN)
_EXPIRED = NoSession(Reason.SESSION_EXPIRED)
_REVOKED = NoSession(Reason.SESSION_REVOKED)
_ASTRAY = NoSession(Reason.DEVICE_MISMATCH)

Astray = Callable[[Session, DeviceEvidence, Request], None]
"""Hears of a session that came from another device than its own (T32)."""

LEASE_PATIENCE = 0.25
"""Seconds a request waits for a lease that has lapsed while the store seems well: a worker that was stopped
for a moment gets its next one with the next beat."""


class Witness:
    """Gathers the session behind a request's cookie, and the device it comes from.

    Without `devices` nobody is ever asked for a certificate. `serves(host, asked)` says whether a handle
    made for `host` counts at the host that was asked. `touch_every` is how often, in seconds, this worker
    tells the store that a session is in use; `uses` is told when one is first used on the routes of a
    group.
    """

    def __init__(
        self,
        store: SessionStore,
        signer: HandleSigner,
        refresh: Refresh,
        lease: Lease,
        *,
        serves: Callable[[str, str], bool],
        touch_every: float,
        boottime: Callable[[], float],
        uses: Callable[[Session, SessionLimit], Awaitable[None]],
        devices: DeviceWitness | None = None,
        astray: Astray = lambda session, device, request: None,
    ) -> None:
        self.known = KnownSessions()
        self._store, self._signer, self._refresh, self._lease = store, signer, refresh, lease
        self._serves, self._touch_every, self._boottime = serves, touch_every, boottime
        self._uses, self._devices, self._astray = uses, devices, astray
        self._reading: dict[str, asyncio.Future[Known | None]] = {}

    def device_at_hand(self, request: Request, now: float) -> DeviceEvidence | None:
        """The device a request comes from, as far as its client was asked; None when somebody must be asked
        first. Never awaits."""
        if self._devices is None or not request.peer.asked:
            return NOT_ASKED
        return self._devices.at_hand(request.peer, now)

    async def device_of(self, request: Request, now: float) -> DeviceEvidence:
        """The same, after asking whoever must be asked."""
        if self._devices is None or not request.peer.asked:
            return NOT_ASKED
        return await self._devices.gather(request.peer, now)

    def at_hand(self, request: Request, device: DeviceEvidence) -> Known | NoSession | None:
        """What is known without asking anybody; None when somebody must be asked. Never awaits."""
        cookie = request.session
        if cookie is None:
            return _NOTHING_SHOWN
        now = self._boottime()
        # INVARIANT: asked before anything else is looked at. Without a lease this worker may not have heard
        # of a revocation, and what it knows proves nothing.
        if now >= self._lease.until:
            return None
        known = self.known.reliable(cookie, now)
        if known is None:
            return None
        if now - known.read_at >= FRESH and cookie not in self._reading:
            self._begin_reading(cookie, known.handle, request)
        if known.session.certificate is not None and (
            isinstance(device, Unavailable) or _renewed(known.session, device)
        ):
            return None
        return self._standing(known, request, device)

    def shut_out(self, device: str) -> None:
        """A lock on a device is in the book: nobody is bound to it on what was known before."""
        if self._devices is not None:
            self._devices.forget(device)

    async def of_this_visit(self, request: Request, now: float) -> Known | NoSession | Unavailable:
        """For a page of ours: any session within its absolute limit will do, on its own device."""
        return await self.gather(request, None, now, await self.device_of(request, now))

    async def gather(
        self, request: Request, route: Route | None, now: float, device: DeviceEvidence
    ) -> Known | NoSession | Unavailable:
        """The session for this request from `device`, read again and vouched for again where the route asks
        for it."""
        cookie = request.session
        if cookie is None:
            return _NOTHING_SHOWN
        try:
            if not self._lease.live() and not await self._lease.wait(LEASE_PATIENCE):
                # Forged is forged, whoever is away.
                return _UNKNOWN if self._signer.open(cookie) is None else Unavailable()
            known = self.known.reliable(cookie, self._boottime()) or await self._read(cookie, request)
            if known is not None and self._is_old(known):
                known = await self._read(cookie, request)  # by its bookmark now, which is quicker
            if known is None:
                return _UNKNOWN
            if now >= known.session.expires_at:
                return _EXPIRED
            # INVARIANT: whoever is not on the session's device does nothing in its name, not even refresh it.
            if not on_its_device(known.session, device):
                return self._standing(known, request, device)
            if known.session.certificate is not None and isinstance(device, Unavailable):
                return device
            if route is not None and standing(known.session, route.sensitivity, now) is Standing.STALE:
                known = await self._vouch(cookie, known, request)
            if known is None:
                return _EXPIRED
            if isinstance(device, OnDevice) and _renewed(known.session, device):
                await self._rebind(cookie, known, device)
            limit = None if route is None else route.session_limit
            # INVARIANT: only who stands here may crowd others out.
            first = limit is not None and limit.group not in known.groups
            if limit is not None and first and isinstance(self._standing(known, request, device), Known):
                await self._uses(known.session, limit)
                known.groups = (*known.groups, limit.group)
            # A store so slow that its answer is too old has not answered (FI05); and all of this took a
            # while.
            if self._is_old(known) or not self._lease.live():
                return Unavailable()
            return self._standing(known, request, device)
        except WorldError as error:
            return Unavailable(error.reason)

    async def _rebind(self, cookie: str, known: Known, device: OnDevice) -> None:
        """Binds a session to the renewed certificate of the device it is bound to (X28), or to the device its
        certificate was registered with since, so that a lock on that meets it. What comes between, a refresh
        say, wins: the next request tries again."""
        secrets = await self._store.secrets(known.handle)
        if secrets is not None:
            await self._store.update(known.handle, rebound(known.session, device), secrets)
        self.known.forget(cookie)

    def _standing(self, known: Known, request: Request, device: DeviceEvidence) -> Known | NoSession:
        """What the log of locks leaves of a session, at the host and on the device it is asked for."""
        book = self._lease.book
        if known.revision != book.revision:
            known.permits.clear()
            known.revision = book.revision
            # A revocation has no end, so the moment does not matter; nor does the route, to which the
            # decision comes.
            known.revoked = any(lock.revokes for lock in book.meeting(known.session, "", 0.0))
        if known.revoked:
            return _REVOKED
        if not self._serves(known.host, request.host):
            return _UNKNOWN
        if known.session.certificate is not None and not on_its_device(known.session, device):
            self._astray(known.session, device, request)
            return _ASTRAY
        return known

    def _is_old(self, known: Known) -> bool:
        return self._boottime() - known.read_at >= RELIED_ON

    async def _read(self, cookie: str, request: Request) -> Known | None:
        reading = self._reading.get(cookie)
        if reading is None:
            handle = self._signer.open(cookie)
            if handle is None:
                return None
            reading = self._begin_reading(cookie, handle, request)
        # One impatient client that goes away must not cancel the read the others wait for.
        return await asyncio.shield(reading)

    def _begin_reading(self, cookie: str, handle: str, request: Request) -> asyncio.Future[Known | None]:
        reading = asyncio.ensure_future(self._ask_store(cookie, handle, request))
        self._reading[cookie] = reading
        reading.add_done_callback(lambda done: self._read_done(cookie, done))
        return reading

    def _read_done(self, cookie: str, reading: asyncio.Future[Known | None]) -> None:
        del self._reading[cookie]
        if not reading.cancelled():
            reading.exception()  # whoever waited has it; nobody may be left waiting

    async def _ask_store(self, cookie: str, handle: str, request: Request) -> Known | None:
        before, era = self._boottime(), self._lease.era
        last = self.known.last(cookie)
        loaded = await self._store.load(handle, last.bookmark if last else None)
        if self._lease.era != era:
            # The session carries a number of a log that is gone (`Lease.era`).
            raise WorldError(Reason.STATE_UNAVAILABLE, "locks: the log began anew meanwhile")
        if loaded is None:
            self.known.forget(cookie)
            return None
        known = last
        if known is None or known.session != loaded.session:
            known = Known(handle, loaded.host, loaded.session, loaded.bookmark, before, -inf)
        known.read_at, known.bookmark = before, loaded.bookmark
        if before - known.touched_at >= self._touch_every:
            if not await self._store.touch(handle, seen(request)):
                self.known.forget(cookie)
                return None
            known.touched_at = before
        self.known.learn(cookie, known)
        return known

    async def _vouch(self, cookie: str, known: Known, request: Request) -> Known | None:
        """Refreshes a session that is stale for its route. Nobody to ask means the person signs in again."""
        if not known.session.refreshable:
            return None
        session = await self._refresh(known.handle, known.session)
        self.known.forget(cookie)
        # Not `_read`: a read that is under way may have begun before the refresh, and still show it stale.
        return None if session is None else await self._ask_store(cookie, known.handle, request)


def _renewed(session: Session, device: DeviceEvidence) -> bool:
    """Whether a session's own device shows another certificate than the one the session is bound to, or has a
    name that the session does not know."""
    return (
        session.certificate is not None
        and isinstance(device, OnDevice)
        and (session.certificate, session.device) != (device.certificate.thumbprint, device_id(device))
        and on_its_device(session, device)
    )


def seen(request: Request) -> Seen:
    """Where a request came from, for lists of sessions."""
    agent = request.field(b"user-agent") or b""
    return Seen(request.peer.address, request.host, agent[:256].decode("latin-1"))
