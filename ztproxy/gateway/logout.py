"""Signing out, by the person and by the provider's word: both are revocations, and hold like every other.

Knows: who may end what, and in which order. Promises: a provider is told "done" only when no worker lets the
session in any more; one notice has one effect, however often and at however many workers it arrives; a notice
that failed here can be sent again. A person who signs out is told honestly when that cannot be confirmed.
Leaves the claims to `core.logout`, the fence to `gateway.revoker`, and cookies and pages to the surfaces.

Nobody vouches for a front-channel notice but whoever knows the `sid`: it ends a session that is there, and
writes nothing about one that is not, so that strangers cannot fill the log. Nor can they use up what the
provider may do: before anything is known of a notice it is counted by who sends it, and by provider only what
is about to be written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass, field

from ztproxy.core.audit import AuditEvent
from ztproxy.core.identity import JSON, Session
from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.core.logout import LogoutNotice, front_channel_lock, read_front_channel, read_notice
from ztproxy.core.rates import Rate, source_of
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.ports import Clock, OneTimeStore, SessionStore
from ztproxy.gateway.ports.administration import AuditSink, Revoke
from ztproxy.gateway.ports.directory import SessionDirectory
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.rates import Buckets, Sender

NOTICES_PER_SECOND = 50
"""In one worker, of each provider and kind (L27): each is a write that everybody waits for. And of each
sender, before it is looked at."""
_NOTICES = Rate(NOTICES_PER_SECOND, 1.0, NOTICES_PER_SECOND)
_KIND = "logout"


@dataclass(frozen=True, slots=True)
class SignedOut:
    """`onward` is where the provider may be told (RP-initiated logout), if anywhere. `confirmed`: it holds
    everywhere; else it may take a moment, or was not written at all. `ended` is how many sessions there were,
    where that is known."""

    onward: str | None = field(repr=False)
    confirmed: bool
    ended: int | None


class Logout:
    """`front_channel` and `exp_optional` are names of providers (`config.settings.Provider`). `buckets` count
    notices, all of the worker's; without them it counts for itself."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        sessions: SessionStore,
        one_time: OneTimeStore,
        directory: SessionDirectory,
        heard: Heard,
        revoke: Revoke,
        audit: AuditSink,
        clock: Clock,
        *,
        front_channel: Collection[str] = (),
        exp_optional: Collection[str] = (),
        buckets: Buckets | None = None,
    ) -> None:
        self._providers, self._sessions, self._one_time = providers, sessions, one_time
        self._directory, self._heard, self._revoke, self._audit = directory, heard, revoke, audit
        self._clock, self._front_channel, self._exp_optional = clock, front_channel, exp_optional
        # By lock: notices being taken, and those of servers taken here, until when they would count.
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._done: dict[str, float] = {}
        self._buckets = buckets or Buckets(clock)

    # -- by the provider's word --------------------------------------------------------------------------

    async def back_channel(self, name: str, token: str, request_id: str, address: str = "") -> LogoutNotice:
        """Ends what a logout token names; answers when that holds everywhere. `address` is the peer's.

        `ClientError(NO_SUCH_ROUTE)` for an unknown provider, `LOGOUT_TOKEN` for a token that is not accepted
        or was used before, `RATE_LIMITED` for too many of them, after which the same token may be sent again.
        So it may after `WorldError`, when it is not certain that it holds.
        """
        provider = self._providers.get(name)
        if provider is None:
            raise ClientError(Reason.NO_SUCH_ROUTE, "logout: no provider of this name")
        # Before any signature is checked, and by who sends: anybody can send what nobody signed.
        self._spend("logout_posts", _sent(name, address))
        claims = await provider.client.verify_logout(token)
        optional = name in self._exp_optional
        notice = read_notice(provider.rules, claims, self._clock(), exp_optional=optional)
        lock = notice.lock(f"provider:{name}")
        if lock.id in self._done:
            raise _used()
        task = self._under_way.get(lock.id)
        if task is not None:
            await asyncio.shield(task)
            raise _used()
        # Counted once more: neither what nobody signed nor what was heard before may use up what the provider
        # needs.
        self._spend("logout_back", name)
        await self._through(lock, self._take_notice(notice, lock, request_id))
        return notice

    async def _through(self, lock: Lock, taking: Coroutine[None, None, None]) -> None:
        """To its end, and told of under way until then: whoever hangs up must not stop a revocation
        half-way."""
        task = asyncio.create_task(taking)
        self._under_way[lock.id] = task
        task.add_done_callback(lambda done: self._forget(lock.id, done))
        await asyncio.shield(task)

    def _spend(self, limit: str, key: str) -> None:
        if not self._buckets.spend(limit, key, _NOTICES).allowed:
            raise ClientError(Reason.RATE_LIMITED, "logout: too many notices in one second")

    def _forget(self, lock_id: str, task: asyncio.Task[None]) -> None:
        del self._under_way[lock_id]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left waiting

    async def _take_notice(self, notice: LogoutNotice, lock: Lock, request_id: str) -> None:
        detail: dict[str, JSON] = {"jti": notice.jti, "lock": lock.id}
        await self._end_for_provider(lock, "logout.back_channel", request_id, detail)
        # INVARIANT: claimed only after it holds. Claimed before, a notice that failed here could never be
        # sent again. Until then its lock's id keeps it from having a second effect.
        now = self._clock()
        first = await self._one_time.claim(_KIND, notice.replay_key, max(1.0, notice.exp - now))
        self._done[lock.id] = notice.exp
        while self._done and next(iter(self._done.values())) <= now:
            del self._done[next(iter(self._done))]
        if not first:
            await self._note(lock, "logout.back_channel", "refused", request_id, {**detail, "why": "replay"})
            raise _used()

    async def front_channel(
        self, name: str, issuer: str | None, sid: str | None, request_id: str, address: str = ""
    ) -> None:
        """Ends the sessions of a provider's session, where there are any. `address` is the browser's. Raises
        as `back_channel`; also `NO_SUCH_ROUTE` where this provider may not do so."""
        provider = self._providers.get(name)
        if provider is None or name not in self._front_channel:
            raise ClientError(Reason.NO_SUCH_ROUTE, "logout: no provider of this name with a front channel")
        target = read_front_channel(provider.rules, issuer, sid)
        # Before the directory is asked, which is what a guess costs.
        self._spend("logout_frames", _sent(name, address))
        if not await self._live(target):
            return
        lock = front_channel_lock(target, self._heard.applied(), f"provider:{name}")
        task = self._under_way.get(lock.id)
        if task is not None:
            # The same word again: somebody who repeats that of their own session uses up nothing by it.
            await asyncio.shield(task)
            return
        self._spend("logout_front", name)
        ending = self._end_for_provider(lock, "logout.front_channel", request_id, {"lock": lock.id})
        await self._through(lock, ending)

    async def _end_for_provider(
        self, lock: Lock, action: str, request_id: str, detail: Mapping[str, JSON]
    ) -> None:
        try:
            revoked = await self._revoke(lock)
        except WorldError as error:
            await self._note(lock, action, "failed", request_id, {**detail, "why": str(error)})
            raise
        outcome = "done" if revoked.confirmed else "unconfirmed"
        await self._note(lock, action, outcome, request_id, {**detail, "number": revoked.number})
        if not revoked.confirmed:
            raise WorldError(Reason.STATE_UNAVAILABLE, "logout: in the log, but not confirmed")

    async def _note(
        self, lock: Lock, action: str, outcome: str, request_id: str, detail: Mapping[str, JSON]
    ) -> None:
        # Late where it must be: a full disk here is no reason to keep somebody signed in.
        event = AuditEvent(lock.created_by, action, outcome, str(lock.target), request_id, detail)
        await self._audit.write_late(event)

    # -- by the person -----------------------------------------------------------------------------------

    async def sign_out(
        self, handle: str, session: Session, return_to: str, *, everywhere: bool = False
    ) -> SignedOut:
        """Ends this session, or with `everywhere` all of its person, wherever they signed in.

        `return_to` is an absolute URL registered at the provider. Never raises: whatever is away, the caller
        has a browser to clean up, and `confirmed` to tell.
        """
        who = session.identity
        target = Target(TargetKind.SESSION, session.id)
        if everywhere:
            target = Target(TargetKind.USER, who.subject, who.issuer)
        lock = Lock(
            # Of this session, so that a form sent twice is one sign-out.
            id=f"{'everywhere' if everywhere else 'sign-out'}-{session.id}",
            target=target,
            created_by=who.email or who.subject,
            reason="signed out everywhere" if everywhere else "signed out",
        )
        hint, ended = await self._hint(handle), await self._count(target)
        confirmed = await self._confirmed(lock)
        return SignedOut(await self._onward(session, hint, return_to), confirmed, ended)

    async def _hint(self, handle: str) -> str | None:
        try:
            secrets = await self._sessions.secrets(handle)
        except WorldError:
            return None
        return None if secrets is None else secrets.id_token

    async def _count(self, target: Target) -> int | None:
        try:
            return await self._live(target)
        except WorldError:
            return None

    async def _confirmed(self, lock: Lock) -> bool:
        try:
            revoked: Revoked = await self._revoke(lock)
        except WorldError:
            return False
        return revoked.confirmed

    async def _onward(self, session: Session, hint: str | None, return_to: str) -> str | None:
        provider = self._providers.get(session.provider)
        if provider is None:
            return None
        try:
            return await provider.client.end_session_url(id_token_hint=hint, return_to=return_to)
        except WorldError:
            return None

    async def _live(self, target: Target) -> int | None:
        listed = await self._directory.of(target)
        if listed is None:
            return None
        return sum(not self._heard.revoked(one.session) for one in listed)


def _used() -> ClientError:
    return ClientError(Reason.LOGOUT_TOKEN, "jti: used before")


def _sent(provider: str, address: str) -> Sender:
    return Sender(f"{provider} {source_of(address)}")
