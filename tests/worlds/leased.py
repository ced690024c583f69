"""A lease one can end, for tests of those who decide under it; the book of locks is the real one."""

from __future__ import annotations

import secrets
from math import inf
from typing import Any

from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import Entry, Lift, Lock, Target


class Leased:
    """Fulfils `gateway.lease.Lease`. `comes` is whether waiting for a lease brings one."""

    def __init__(self) -> None:
        self.book = LockBook()
        self.until = inf
        self.era, self.data = 0, "log-1"
        self.comes = False
        self.waited: list[float] = []

    def live(self) -> bool:
        return self.until == inf

    def lapse(self) -> None:
        self.until = 0.0

    async def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        if self.comes:
            self.until = inf
        return self.live()

    def lock(self, target: Target, **more: Any) -> Lock:
        """One more lock in the log, applied."""
        lock = Lock(secrets.token_hex(16), target, number=self.book.applied + 1, **more)
        self._apply(lock)
        return lock

    def lift(self, lock: Lock) -> None:
        self._apply(Lift(secrets.token_hex(16), lock.id, number=self.book.applied + 1))

    def _apply(self, entry: Entry) -> None:
        self.book.apply([entry])
