"""Live exchanges: what was let in is watched until it ends, and ended when it would no longer be let in.

Knows: the exchanges under way (asked for, not kept: most are over before anybody looks), the lease, the
judge. Promises: without a live lease nothing more passes for a person, in either direction; what a new lock
concerns is ended before this worker says that it has applied the lock (INV-3); everything long-lived is
judged again each `Route.recheck` and after every reload, by the same judge as new requests. Leaves the bytes
to `wire`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import inf
from typing import Any, Protocol

from ztproxy.core.decision import Deny, Forward
from ztproxy.core.locks import Action, Lock, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Framing, Request
from ztproxy.gateway.judgement import Judgement
from ztproxy.gateway.lease import Lease

THAW_EVERY = 0.02
"""Seconds between two looks at the lease while something waits for it."""

ANSWER_WITHIN = 1.0
"""Seconds after which a plain request that waits for a lease, of whose answer nothing was sent, is told so:
it can be sent again, which is more than can be said of a stream."""

AT_ONCE = 256
"""Exchanges judged again at one time: after a reload all of them are due."""


class Live(Protocol):
    """An exchange under way (`wire.Exchange`). `grant` is the `Judgement` it was let in on; `check_at` is
    loop time."""

    request: Request
    grant: Any
    check_at: float
    status: int

    @property
    def under_way(self) -> bool: ...

    def thaw(self) -> None: ...

    def cut(self, reason: Reason) -> None: ...


class Watch:
    """The gate of `wire`, and the end of what may not go on.

    `live()` are the exchanges under way; `judge` judges a request anew, None where there is no route for it
    any more. `boottime` is the keeper's clock, `now` the loop's. `grace`: seconds an exchange waits for a
    lease, or goes on while nobody can say whether it may.
    """

    def __init__(
        self,
        lease: Lease,
        live: Callable[[], Iterable[Live]],
        judge: Callable[[Request], Awaitable[Judgement | None]],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        boottime: Callable[[], float],
        grace: float,
    ) -> None:
        self._lease, self._live, self._judge = lease, live, judge
        self._loop, self._clock, self._boottime, self._grace = loop, clock, boottime, grace
        self._frozen: dict[Live, float] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._undecided: dict[Live, float] = {}
        self._lapsed_at = inf
        self.cuts = 0

    @property
    def frozen(self) -> int:
        """How many wait for a lease."""
        return len(self._frozen)

    # -- the gate ----------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Whether anything may pass for a person now."""
        return self._boottime() < self._lease.until

    def shut(self, exchange: Live) -> None:
        """This exchange met the closed gate; it passes on when there is a lease again, unless cut by then."""
        if not self._frozen:
            self._loop.call_later(THAW_EVERY, self._thaw)
        self._frozen[exchange] = self._loop.time()

    def _thaw(self) -> None:
        if self.open():
            # INVARIANT: a lease is only ever renewed after the log was applied, which cut whoever it
            # concerns.
            frozen, self._frozen = self._frozen, {}
            for exchange in frozen:
                exchange.thaw()
            return
        self._frozen = {one: since for one, since in self._frozen.items() if one.under_way}
        before = self._loop.time() - ANSWER_WITHIN
        for exchange, since in tuple(self._frozen.items()):
            if since <= before and exchange.status == 0 and exchange.request.framing is Framing.NONE:
                self._cut(exchange, Reason.STATE_UNAVAILABLE)
        if self._frozen:
            self._loop.call_later(THAW_EVERY, self._thaw)

    # -- locks -------------------------------------------------------------------------------------------

    def applied(self, locks: Iterable[Lock]) -> None:
        """New locks are in the book: ends what they concern, now. What a lock asks for, a stronger sign-in
        say, cannot be asked of an exchange under way, so that ends too."""
        book, now = self._lease.book, self._clock()
        new = {lock.id: lock for lock in locks}
        if not new:
            return
        if any(lock.target.kind is TargetKind.DEVICE for lock in new.values()):
            # What is bound to a certificate of that device without naming it is met by no lock on it.
            self.check_all()
        for exchange in self._live():
            judgement: Judgement = exchange.grant
            session = judgement.decision.session if isinstance(judgement.decision, Forward) else None
            met = [lock for lock in book.meeting(session, judgement.route.name, now) if lock.id in new]
            if met:
                self._cut(exchange, _why(met))

    def started_over(self) -> None:
        """The log is another one: nobody can tell any more what concerns whom, so every person's ends."""
        for exchange in tuple(self._live()):
            if exchange.grant.session is not None:
                self._cut(exchange, Reason.STATE_UNAVAILABLE)

    # -- judging again -----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Called about twice a second with loop time: re-checks what is due, ends what waited too long."""
        lapsed = not self.open()
        self._lapsed_at = min(self._lapsed_at, now) if lapsed else inf
        too_long = now - self._lapsed_at >= self._grace
        if self._undecided:
            self._undecided = {one: since for one, since in self._undecided.items() if one.under_way}
        for exchange in tuple(self._live()):
            if too_long and exchange.grant.session is not None:
                self._cut(exchange, Reason.STATE_UNAVAILABLE)
            elif exchange.check_at <= now and len(self._checks) < AT_ONCE:
                exchange.check_at = now + exchange.grant.route.recheck
                check = self._loop.create_task(self._check(exchange, now))
                self._checks.add(check)
                check.add_done_callback(self._checks.discard)

    def check_all(self) -> None:
        """Something changed for everybody, as at a reload: all are due."""
        for exchange in self._live():
            exchange.check_at = 0.0

    async def _check(self, exchange: Live, now: float) -> None:
        before: Judgement = exchange.grant
        try:
            judgement = await self._judge(exchange.request)
        except Exception as error:
            # INVARIANT: whatever goes wrong on the way to a decision is a denial, here too.
            self._loop.call_exception_handler({"message": "a re-check failed", "exception": error})
            judgement = None
        if not exchange.under_way:
            return
        if judgement is None:
            self._cut(exchange, Reason.NO_RULE_ALLOWS)
            return
        decision = judgement.decision
        if isinstance(decision, Deny) and decision.reasons[0].status >= 500:
            self._not_now(exchange, decision.reasons[0], now)
            return
        self._undecided.pop(exchange, None)
        if isinstance(decision, Forward):
            if _same(before, judgement):
                exchange.grant = judgement
            else:
                # What is open to strangers is open to a new request.
                self._cut(exchange, Reason.SESSION_EXPIRED)
        else:
            self._cut(exchange, decision.reasons[0])

    def _not_now(self, exchange: Live, reason: Reason, now: float) -> None:
        """Nobody can say now, and for a while that ends nothing.

        INVARIANT: for a while only. The gate looks at the lease alone: where whoever speaks for a token or a
        certificate is away, all would pass for as long as that.
        """
        if now - self._undecided.setdefault(exchange, now) >= self._grace:
            self._cut(exchange, reason)
        else:
            exchange.check_at = now + 1.0

    def _cut(self, exchange: Live, reason: Reason) -> None:
        self._frozen.pop(exchange, None)
        self._undecided.pop(exchange, None)
        self.cuts += 1
        exchange.cut(reason)


def _why(met: Sequence[Lock]) -> Reason:
    if any(lock.revokes for lock in met):
        return Reason.SESSION_REVOKED
    return Reason.LOCKED if any(lock.action is Action.DENY for lock in met) else Reason.LOCK_SIGN_IN


def _same(before: Judgement, after: Judgement) -> bool:
    """Whether it is still the same person's exchange: what is relayed was meant for who was there first."""
    old = None if before.session is None else before.session.id
    new = None if after.session is None else after.session.id
    return old == new
