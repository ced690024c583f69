"""What this worker knows of sessions for a moment: facts with an end, never a verdict without its session.

Knows: sessions as last read, and the permits given on their strength. Promises: nothing here is relied on for
longer than `RELIED_ON`; a changed session drops its permits, and so does a change in the book of locks.
Bounded in number and in time: the oldest goes first, and a session nobody asks for any more is forgotten,
secrets of the store's bookmark included. Leaves reading to `gateway.witness`, and revocations to the lease
and the log, which reach what is known here at once: the times below are about everything else that changes a
session (a refresh, a step-up, the end of its idle time).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ztproxy.core.identity import Session
from ztproxy.core.routes import Route
from ztproxy.gateway.judgement import Introduction, Permit

FRESH = 0.8
"""Seconds after which a session is read again, in the background while somebody uses it."""

RELIED_ON = 5.0
"""Seconds after which it is not relied on until it was read again (ADR 0008)."""

KEPT = 300.0
"""Seconds after which what was not read again is forgotten."""

MAX_KNOWN = 50_000


@dataclass(slots=True)
class Known:
    """One session as last read. `read_at` and `touched_at` are seconds of the keeper's clock. `permits` are
    by route, host and method, `introductions` by route and host. `revision` is that of the book of locks when
    `revoked` was looked up and the first permit was given. `groups` are those of routes (`SessionLimit`) it
    is
    known to be used in."""

    handle: str
    host: str
    session: Session
    bookmark: Any
    read_at: float
    touched_at: float
    revision: int = -1
    revoked: bool = False
    groups: tuple[str, ...] = ()
    permits: dict[tuple[Route, str, str], Permit] = field(default_factory=dict)
    introductions: dict[tuple[Route, str], Introduction] = field(default_factory=dict)


class KnownSessions:
    """Sessions by the cookie value they came with."""

    __slots__ = ("_by_cookie",)

    def __init__(self) -> None:
        self._by_cookie: dict[str, Known] = {}

    def reliable(self, cookie: str, now: float) -> Known | None:
        """What is known of this cookie's session, if it may still be relied on."""
        known = self._by_cookie.get(cookie)
        # INVARIANT: the age runs from before the read was sent (see Witness), so that an answer that was long
        # on its way is not relied on for longer.
        if known is None or now - known.read_at >= RELIED_ON:
            return None
        return known

    def last(self, cookie: str) -> Known | None:
        """What was known last, however old: to read it again by its bookmark, never to decide on."""
        return self._by_cookie.get(cookie)

    def learn(self, cookie: str, known: Known) -> None:
        """Takes in what was just read, and drops what is too old or too much: the first is the oldest."""
        by_cookie = self._by_cookie
        by_cookie.pop(cookie, None)
        by_cookie[cookie] = known
        while True:
            oldest = next(iter(by_cookie))
            if len(by_cookie) <= MAX_KNOWN and known.read_at - by_cookie[oldest].read_at < KEPT:
                break
            del by_cookie[oldest]

    def forget(self, cookie: str) -> None:
        self._by_cookie.pop(cookie, None)

    def forget_session(self, session_id: str) -> None:
        """Drops every cookie of one session: after a sign-out here."""
        gone = [cookie for cookie, known in self._by_cookie.items() if known.session.id == session_id]
        for cookie in gone:
            del self._by_cookie[cookie]

    def clear(self) -> None:
        """Forgets everybody."""
        self._by_cookie.clear()

    def __len__(self) -> int:
        return len(self._by_cookie)
