"""Asking the provider whether it still vouches for someone, once, however many requests and workers wonder.

Knows: that a refresh token may work a single time (RFC 9700 4.14.2), so that two refreshes at once end a
session (oauth2-proxy #1992, #667). Promises: one refresh at a time for one session across all workers, never
undone by the browser going away; groups and e-mail, the limits that follow from them, and the device are
judged anew; a provider that says no ends the session, a provider that is away or talks nonsense changes
nothing. A refresh never raises the rank nor prolongs anything nor renews `authenticated_at` or `as_of`, so
what was revoked stays revoked (INV-5). Leaves to the policy what happens while the provider is away
(`core.sessions.standing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from ztproxy.core.claims import Expectation, describe
from ztproxy.core.identity import Identity, Session, SessionSecrets
from ztproxy.core.locks import targets_of
from ztproxy.core.login import key_of
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import SessionLimits, narrowed
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.ports import Clock, Locks, SessionStore, Tokens
from ztproxy.gateway.provider import Provider

# The provider has 10 s for each answer and there are at most four (metadata, tokens, keys, userinfo). A lock
# that is shorter than the work it guards is none (oauth2-proxy #3456).
LOCK_TTL = 60.0
WAIT = 2.0  # seconds another worker's refresh is waited for
PAUSE = 5.0  # seconds after a failure: a page's forty requests must not each wait for a provider that is away
_STEP = 0.05
_ATTEMPTS = 3
_MAX_PAUSED = 4096

DeviceStands = Callable[[Session], Awaitable[bool]]
"""Whether the device a session is bound to may still be used. Raises `WorldError` where that is not known."""


class Refresher:
    """`refresh` answers the session as it is on record afterwards, or None: the person must sign in again.

    `device_stands` None asks nobody; a session that is not bound to a device is not asked about.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        sessions: SessionStore,
        locks: Locks,
        clock: Clock,
        heard: Heard,
        limits: SessionLimits,
        device_stands: DeviceStands | None = None,
    ) -> None:
        self._providers, self._sessions, self._locks = providers, sessions, locks
        self._clock, self._heard, self._limits = clock, heard, limits
        self._device_stands = device_stands
        self._under_way: dict[str, asyncio.Task[Session | None]] = {}
        self._paused: dict[str, float] = {}  # session id → when to ask again

    async def refresh(self, handle: str, session: Session) -> Session | None:
        """`session` is what was read under `handle`. Raises `WorldError`, with the session untouched, when
        the provider or the store is away or when another worker's refresh takes longer than two seconds."""
        task = self._under_way.get(session.id)
        if task is None:
            if self._clock() < self._paused.get(session.id, 0.0):
                raise WorldError(Reason.PROVIDER_UNAVAILABLE, "refresh: it failed a moment ago")
            task = asyncio.create_task(self._alone(handle, session))
            self._under_way[session.id] = task
            task.add_done_callback(lambda done: self._forget(session.id, done))
        # INVARIANT: shielded. A browser that hangs up must not cancel a refresh whose old token is used up
        # and whose new one is not yet on record.
        return await asyncio.shield(task)

    def _forget(self, session_id: str, task: asyncio.Task[Session | None]) -> None:
        del self._under_way[session_id]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may be left waiting

    async def _alone(self, handle: str, session: Session) -> Session | None:
        name = f"refresh:{session.id}"
        fence = await self._locks.acquire(name, LOCK_TTL)
        if fence is None:
            return await self._others(handle, session)
        try:
            return await self._ask(handle, session)
        except WorldError:
            self._pause(session.id)
            raise
        finally:
            await self._locks.release(name, fence)

    def _pause(self, session_id: str) -> None:
        now = self._clock()
        if len(self._paused) >= _MAX_PAUSED:
            self._paused = {other: until for other, until in self._paused.items() if now < until}
        self._paused[session_id] = now + PAUSE

    async def _others(self, handle: str, session: Session) -> Session | None:
        for _ in range(int(WAIT / _STEP)):
            await asyncio.sleep(_STEP)
            loaded = await self._sessions.load(handle)
            if loaded is None:
                return None
            if loaded.session.verified_at > session.verified_at:
                return loaded.session
        raise WorldError(Reason.PROVIDER_UNAVAILABLE, "refresh: another worker still waits for the answer")

    async def _ask(self, handle: str, session: Session) -> Session | None:
        loaded = await self._sessions.load(handle)
        if loaded is None:
            return None
        current = loaded.session
        if current.verified_at > session.verified_at:
            return current
        secrets = await self._sessions.secrets(handle)
        provider = self._providers.get(current.provider)
        if secrets is None or secrets.refresh_token is None or provider is None:
            return None
        if not await self._is_on_a_good_device(current):
            await self._sessions.end(handle)
            return None
        try:
            self._heard.check(current)
            tokens = await provider.client.refresh(secrets.refresh_token)
            identity = await self._vouched(provider, tokens, current)
        except ClientError as refusal:
            if refusal.reason is Reason.LOGIN_TOKEN:
                # An answer nobody can read is an ailing provider; ending everybody's session on it would turn
                # its bad hour into ours. Nothing is extended either, so the route stays closed.
                raise WorldError(Reason.PROVIDER_UNAVAILABLE, f"refresh: {refusal}") from refusal
            await self._sessions.end(handle)
            return None
        renewed = SessionSecrets(
            refresh_token=tokens.refresh_token or secrets.refresh_token,
            id_token=tokens.id_token or secrets.id_token,
        )
        return await self._record(handle, current, identity, renewed)

    async def _is_on_a_good_device(self, session: Session) -> bool:
        if self._device_stands is None or session.certificate is None:
            return True
        return await self._device_stands(session)

    async def _vouched(self, provider: Provider, tokens: Tokens, session: Session) -> Identity:
        """Core 12.2: an ID token need not come back, but one that does is judged like any other."""
        if tokens.id_token is not None:
            expected = Expectation(nonce=None, access_token=tokens.access_token)
            identity = (await provider.vouch(tokens, expected, self._clock)).identity
        else:
            info = await provider.client.userinfo(tokens.access_token)
            if info is None:
                return session.identity
            identity = describe(provider.rules, session.identity.subject, {}, info, [])
        if key_of(identity) != key_of(session.identity):
            raise ClientError(Reason.LOGIN_OTHER_PERSON, "sub_switch: another person came back")
        return identity

    async def _record(
        self, handle: str, session: Session, identity: Identity, secrets: SessionSecrets
    ) -> Session | None:
        for _ in range(_ATTEMPTS):
            renewed, lapsed = session, None
            try:
                self._heard.check(session)
                renewed = replace(session, identity=identity, verified_at=self._clock(), refreshable=True)
                renewed = narrowed(renewed, self._limits)
            except ClientError:
                await self._sessions.end(handle)
                return None
            except WorldError as error:
                # The tokens go on record all the same, for the old ones are used up; what they say does not.
                lapsed = error
            if await self._sessions.update(handle, renewed, secrets):
                if lapsed is not None:
                    raise lapsed
                return await self._recorded(handle, session, renewed)
            loaded = await self._sessions.load(handle)
            if loaded is None:
                return None
            session = loaded.session
        raise WorldError(Reason.STATE_UNAVAILABLE, "refresh: the session changes all the time")

    async def _recorded(self, handle: str, before: Session, after: Session) -> Session | None:
        """INVARIANT: a session that lost a group is judged once more by what it was before it did: a lock on
        that group, made while the provider was asked, meets what was and would never meet what is now."""
        if not set(targets_of(before)) <= set(targets_of(after)):
            try:
                self._heard.check(before)
            except (ClientError, WorldError):
                await self._sessions.end(handle)
                return None
        if after.expires_at <= after.verified_at:
            # Its new groups have shorter limits, and it is past them.
            await self._sessions.end(handle)
            return None
        loaded = await self._sessions.load(handle)
        return None if loaded is None else loaded.session
