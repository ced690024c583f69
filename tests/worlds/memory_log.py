"""The log of locks in memory: a simulator of the store, and `RevocationLog` and `Journal` on top of it.

`MemoryStore` is one server with one data set, executed at once; its clock may be set. It can restart, lose
its data, be restored from a backup and be trimmed. `MemoryLog` is one client's way to it: it may be cut off,
slow, or lose answers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeVar

from ztproxy.core.identity import Session
from ztproxy.core.lease import Applied, Committed, Synced, Topology
from ztproxy.core.locks import Entry, Lift, Lock
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError, WorldError

DURABLE = Topology("standalone", True, True, 0.0, "every write is on the disk before it is answered")
MOST = 1000
T = TypeVar("T")
_NAMES = count(1)


@dataclass
class Data:
    """What is on the server's disk. `leases` maps a worker to the length it asked for."""

    id: str = field(default_factory=lambda: f"data{next(_NAMES)}")
    entries: list[Entry] = field(default_factory=list)
    trimmed: list[Entry] = field(default_factory=list)
    first: int = 1
    leases: dict[str, float] = field(default_factory=dict)
    acks: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)

    @property
    def number(self) -> int:
        return self.first + len(self.entries) - 1

    def copy(self) -> Data:
        """As it is now, for a backup or a replica."""
        return Data(
            self.id,
            list(self.entries),
            list(self.trimmed),
            self.first,
            dict(self.leases),
            dict(self.acks),
            dict(self.sessions),
        )


class MemoryStore:
    def __init__(self, clock: Callable[[], float], topology: Topology = DURABLE) -> None:
        self.clock, self.topology = clock, topology
        self.copying = True
        self.data = Data()
        self.restart()

    # What befalls a server.

    def restart(self) -> None:
        self.run, self.since = f"run{next(_NAMES)}", self.clock()

    def lose(self) -> None:
        """As FLUSHALL: the same process, other data."""
        self.data, self.since = Data(), self.clock()

    def restore(self, backup: Data) -> None:
        self.data = backup.copy()
        self.restart()

    def trim(self, first: int) -> None:
        """Forgets the entries before `first`, but for locks with an end that were not lifted."""
        data = self.data
        gone, data.entries = data.entries[: first - data.first], data.entries[first - data.first :]
        lifted = {entry.lifts for entry in (*gone, *data.entries) if isinstance(entry, Lift)}
        kept: list[Entry] = [
            entry for entry in gone if isinstance(entry, Lock) and entry.until and entry.id not in lifted
        ]
        data.trimmed, data.first = data.trimmed + kept, first

    # What it is asked.

    def sync(self, worker: str, applied: int, lease: float) -> Synced:
        self.data.leases[worker] = lease
        self.data.acks[worker] = applied
        return self.read(applied)

    def read(self, after: int) -> Synced:
        data = self.data
        trimmed = [entry for entry in data.trimmed if entry.number > after] if after < data.first - 1 else []
        entries = trimmed + data.entries[max(0, after + 1 - data.first) :][:MOST]
        settled = self.clock() - self.since
        return Synced(self.run, data.id, data.number, data.first, settled, tuple(entries))

    def commit(self, entry: Entry) -> Committed:
        data = self.data
        there = next((one.number for one in data.entries if one.id == entry.id), None)
        number = data.number + 1 if there is None else there
        if there is None:
            data.entries.append(replace(entry, number=number, made_at=entry.made_at or self.clock()))
        return Committed(
            number,
            self.run,
            data.id,
            self.clock() - self.since,
            frozenset(data.leases),
            self.copying,
            max(data.leases.values(), default=0.0),
        )

    def applied(self) -> Applied:
        return Applied(self.run, self.data.id, dict(self.data.acks))

    def leave(self, worker: str) -> None:
        self.data.leases.pop(worker, None)
        self.data.acks.pop(worker, None)


class MemoryLog:
    """`away`: every call fails; `broken`: those of these names do. `deaf`: what is asked arrives, its answer
    does not. `gate`: answers wait for it. `calls` counts them by name."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.away = self.deaf = False
        self.broken: set[str] = set()
        self.gate: asyncio.Event | None = None
        self.calls: Counter[str] = Counter()

    async def _ask(self, name: str, ask: Callable[[], T]) -> T:
        self.calls[name] += 1
        if self.away or name in self.broken:
            await asyncio.sleep(0.001)
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")
        answer = ask()
        gate, deaf = self.gate, self.deaf
        await asyncio.sleep(0)
        if gate is not None:
            await gate.wait()
        if deaf or self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: no answer")
        return answer

    async def sync(self, worker: str, applied: int, lease: float) -> Synced:
        return await self._ask("sync", lambda: self.store.sync(worker, applied, lease))

    async def read(self, after: int) -> Synced:
        return await self._ask("read", lambda: self.store.read(after))

    async def news(self, after: int) -> bool:
        for _ in range(10):
            if await self._ask("news", lambda: self.store.data.number > after):
                return True
            await asyncio.sleep(0.002)
        return False

    async def commit(self, entry: Entry) -> Committed:
        return await self._ask("commit", lambda: self.store.commit(entry))

    async def applied(self) -> Applied:
        return await self._ask("applied", self.store.applied)

    async def leave(self, worker: str) -> None:
        await self._ask("leave", lambda: self.store.leave(worker))

    async def topology(self) -> Topology:
        return await self._ask("topology", lambda: self.store.topology)


class MemoryJournal:
    """`full`: nothing can be written; `torn`: nothing can be read. `sure` holds what was said to be on the
    disk, `writes` counts how often."""

    def __init__(self, *entries: Entry) -> None:
        self.entries: list[Entry] = list(entries)
        self.sure: list[Entry] = []
        self.full = self.torn = False
        self.writes = 0

    def keep(self, entries: Sequence[Entry], *, sure: bool) -> None:
        if self.full:
            raise OperatorError("no space left on the device")
        self.entries += entries
        if sure:
            self.sure += entries
            self.writes += 1

    def read(self) -> tuple[Entry, ...]:
        if self.torn:
            raise OperatorError("the disk cannot be read")
        return tuple(self.entries)
