"""A revoker that needs no store, for tests of those who revoke: the log is the book of a lease, applied at
once. Fulfils `gateway.ports.administration.Revoke`.

`away` makes it fail before anything is written, `confirms` False is a fence that nobody can wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from tests.worlds.leased import Leased
from tests.worlds.memory_state import SetClock
from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Entry, Lock
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError


@dataclass
class Revoking:
    lease: Leased
    clock: SetClock
    away: bool = False
    confirms: bool = True
    asked: list[Entry] = field(default_factory=list)
    before: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, entry: Entry) -> Revoked:
        self.asked.append(entry)
        if self.before is not None:
            await self.before()
        await asyncio.sleep(0)
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "log: away")
        book = self.lease.book
        if not book.has(entry.id):
            book.apply([replace(entry, number=book.applied + 1, made_at=self.clock())])
        number = next(one.number for one in book.entries() if one.id == entry.id)
        await asyncio.sleep(0)
        return Revoked(number, self.confirms, True, 0.0)

    @property
    def locks(self) -> list[Lock]:
        """What is in the log."""
        return [entry for entry in self.lease.book.entries() if isinstance(entry, Lock)]
