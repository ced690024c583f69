"""The log of locks for a process that shows it and decides nothing: no lease, read when somebody asks.

Knows: reading the log. Promises: after `catch_up` the book is what the store has, also where the store lost
data. Leaves deciding to those who hold a lease.
"""

from __future__ import annotations

from collections.abc import Callable

from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import Lift, Lock
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.revocation import RevocationLog


class Follower:
    """`book` may be asked between two `catch_up`s; it is as old as the last. `heard` is that of `Revoker`."""

    def __init__(self, log: RevocationLog, clock: Clock, heard: Callable[[str, str], None]) -> None:
        self.book = LockBook()
        self._log, self._clock, self._heard = log, clock, heard
        self._data = ""

    async def catch_up(self) -> int:
        """Reads what is new; the number of the last entry. Raises `WorldError` when the store is away."""
        while True:
            synced = await self._log.read(self.book.applied)
            self._heard(synced.run, synced.data)
            if synced.data != self._data or synced.number < self.book.applied:
                self._begin_anew(synced.data)
                continue
            try:
                self.book.apply(synced.entries, synced.first)
            except ValueError:  # trimmed past what was read
                self._begin_anew(synced.data)
                continue
            if self.book.applied >= synced.number:
                self.book.forget_before(synced.first, self._clock())
                return synced.number

    def locks(self) -> tuple[Lock, ...]:
        """What was revoked, and the locks that are in force; oldest first."""
        entries, now = self.book.entries(), self._clock()
        lifted = {entry.lifts for entry in entries if isinstance(entry, Lift)}
        return tuple(
            entry
            for entry in entries
            if isinstance(entry, Lock)
            and (entry.revokes or entry.id not in lifted)
            and (entry.until is None or now < entry.until)
        )

    def _begin_anew(self, data: str) -> None:
        self._data = data
        if self.book.applied:
            self.book.reset()
