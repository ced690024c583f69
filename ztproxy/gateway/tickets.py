"""Single sign-on over many hosts: the login lives at one origin, each app's host gets its own handle by a
ticket.

Knows: the dance. An app's host invites (a cookie there, its hash in the redirect to the login's origin); the
login's origin issues a ticket for that hash; the app's host redeems it. Promises: a ticket works once, within
30 seconds, at one origin, in the browser that was invited, and gives a handle of the very session it was
issued for, so that one revocation ends them all; a session that comes to a device stays on it. Leaves to the
portal: that `audience` is the origin of a route of ours and that `return_to` is a path of it
(`core.returning`).

A ticket travels in a query and may be logged along the way: that is why it is bound to a cookie (a stolen
ticket opens nothing, and a link with the ticket of somebody else signs nobody in).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from urllib.parse import urlsplit

from ztproxy.core.decision import on_its_device
from ztproxy.core.device import NoDevice, OnDevice
from ztproxy.core.login import digest
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import rebound
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.parallel import (
    TICKET_COOKIE,
    cookie_name,
    cookie_value,
    make_room,
    new_secret,
    secret_in,
)
from ztproxy.gateway.ports import Clock, OneTimeStore, SessionStore

LIFETIME = 30.0
_BINDING = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"[0-9a-f]{8}\.[A-Za-z0-9_-]{43}")
_KIND = "ticket"
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Invitation:
    """Set the cookie on the app's host, clear those of `clear_cookies`, and pass `binding_hash` to the
    login."""

    cookie_name: str
    cookie_value: str = field(repr=False)
    binding_hash: str
    clear_cookies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A handle for `host`, the way back, and the cookies that have done their work."""

    handle: str = field(repr=False)
    host: str
    return_to: str
    clear_cookies: tuple[str, ...]


class Tickets:
    """Issues and redeems. `randomness(n)` gives n unpredictable bytes."""

    def __init__(
        self,
        sessions: SessionStore,
        one_time: OneTimeStore,
        clock: Clock,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._sessions, self._one_time = sessions, one_time
        self._clock, self._randomness = clock, randomness

    def invite(self, cookies: Mapping[str, str], *, by_hand: bool = False) -> Invitation:
        """At the app's host, before the redirect. Raises `ClientError(LOGIN_TOO_MANY)` on a redirect loop."""
        now = self._clock()
        clear = make_room(TICKET_COOKIE, cookies, now, by_hand)
        secret = new_secret(self._randomness)
        binding = digest(secret)
        return Invitation(cookie_name(TICKET_COOKIE, binding), cookie_value(secret, now), binding, clear)

    async def issue(self, handle: str, audience: str, binding_hash: str, return_to: str) -> str:
        """At the login's origin: the ticket's code. `ClientError(SESSION_UNKNOWN)` if the session is gone."""
        if not _BINDING.fullmatch(binding_hash):
            raise ClientError(Reason.LOGIN_TICKET, "binding: malformed")
        if await self._sessions.load(handle) is None:
            raise ClientError(Reason.SESSION_UNKNOWN)
        secret = new_secret(self._randomness)
        ticket = {
            "handle": handle,
            "audience": audience,
            "binding": binding_hash,
            "return_to": return_to,
            "created": self._clock(),
        }
        code = f"{binding_hash[:8]}.{secret}"
        await self._one_time.put(_KIND, digest(code), json.dumps(ticket).encode(), LIFETIME)
        return code

    async def redeem(
        self, code: str, origin: str, cookies: Mapping[str, str], device: OnDevice | NoDevice | None = None
    ) -> Redeemed:
        """At the app's host, reached as `origin`, from `device` if the connection was asked for one. Whatever
        is wrong, the ticket is used up.

        `ClientError(LOGIN_TICKET)`; `SESSION_UNKNOWN` if the session ended since the ticket was issued;
        `DEVICE_MISMATCH` if it is bound to another device than this, which may be none.
        """
        if not _CODE.fullmatch(code):
            raise ClientError(Reason.LOGIN_TICKET, "ticket: malformed")
        raw = await self._one_time.take(_KIND, digest(code))
        if raw is None:
            raise ClientError(Reason.LOGIN_TICKET, "ticket: unknown or used")
        ticket = json.loads(raw)
        cookie = cookie_name(TICKET_COOKIE, ticket["binding"])
        if not compare_digest(digest(secret_in(cookies.get(cookie))), ticket["binding"]):
            raise ClientError(Reason.LOGIN_TICKET, "ticket: of another browser")
        if origin != ticket["audience"]:
            raise ClientError(Reason.LOGIN_TICKET, "ticket: for another origin")
        if self._clock() - ticket["created"] >= LIFETIME:
            raise ClientError(Reason.LOGIN_TICKET, "ticket: too late")
        if device is not None:
            await self._bind(ticket["handle"], device)
        host = urlsplit(origin).hostname or ""
        handle = await self._sessions.attach(ticket["handle"], host)
        if handle is None:
            raise ClientError(Reason.SESSION_UNKNOWN)
        return Redeemed(handle, host, ticket["return_to"], (cookie,))

    async def _bind(self, handle: str, device: OnDevice | NoDevice) -> None:
        """Where the login's origin asks for no certificates, this is the first that is seen of the device.

        INVARIANT: bound before there is a handle for this host, so that none is ever used unbound on a device
        it does not belong to; and bound once: a binding is never moved to another device here (T32).
        """
        for _ in range(_ATTEMPTS):
            loaded = await self._sessions.load(handle)
            secrets = await self._sessions.secrets(handle)
            if loaded is None or secrets is None:
                raise ClientError(Reason.SESSION_UNKNOWN)
            if loaded.session.certificate is not None:
                # INVARIANT: where none is shown, too. A handle that never counts here would send the browser
                # to the login's origin and back for ever.
                if not on_its_device(loaded.session, device):
                    raise ClientError(Reason.DEVICE_MISMATCH, "device: the session is bound to another one")
                return
            if isinstance(device, NoDevice):
                return
            if await self._sessions.update(handle, rebound(loaded.session, device), secrets):
                return
        raise WorldError(Reason.STATE_UNAVAILABLE, "session: it changes all the time")
