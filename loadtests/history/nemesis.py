"""Trouble: what happens to workers, to their ways to the store, and to the store, at random.

Knows: how each fault is done and undone. Promises: every fault has an end, and `heal` ends all of them; what
is done to a worker is never more than one thing at a time. A store that loses data or comes back as an older
copy does so only while the workers are well, since what is promised then is what the nodes remember. Leaves
noticing to the clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Protocol

from loadtests.history.checker import Event
from tests.worlds.fault_proxy import FaultProxy
from tests.worlds.servers import SentinelTrio, Server

CALM = 2.0
"""Seconds of peace before the store loses something: every node has heard then what was confirmed."""

MOVED_WITHIN = 15.0


class Troubled(Protocol):
    """A worker as trouble knows it. `ways` are the fault proxies between it and each data node."""

    @property
    def ways(self) -> Sequence[FaultProxy]: ...
    @property
    def name(self) -> str: ...
    def stop(self) -> None: ...
    def resume(self) -> None: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...


class Nemesis:
    """Trouble for `workers` and for the store: one server, or three nodes under Sentinel. Ends, and undoes
    what it did, when all is `over`.

    `lease` is theirs, in seconds; `only` are the faults to choose from, by name: all that fit if None.
    """

    def __init__(
        self,
        workers: Sequence[Troubled],
        store: Server | SentinelTrio,
        events: list[Event],
        rng: Random,
        over: asyncio.Event,
        lease: float,
        only: Sequence[str] | None = None,
    ) -> None:
        self._workers, self._store, self._events, self._rng = workers, store, events, rng
        self._over, self._lease = over, lease
        of_store = (
            {
                "push_killed": self._kill_push,
                "clients_killed": self._kill_clients,
                "store_paused": self._pause_store,
                "store_restarted": self._restart,
                "older_copy": self._older_copy,
                "data_lost": self._lose_data,
            }
            if isinstance(store, Server)
            else {
                "push_killed": self._kill_push,
                "failover": self._fail_over,
                "primary_killed": self._kill_primary,
                "primary_paused": self._pause_primary,
                "replica_killed": self._kill_replica,
            }
        )
        of_workers = {
            "partition": self._partition,
            "late_answers": self._late_answers,
            "slow": self._slow,
            "resets": self._resets,
            "stopped": self._stop,
            "killed": self._kill,
        }
        self._of_store = {name: one for name, one in of_store.items() if only is None or name in only}
        self._of_workers = {name: one for name, one in of_workers.items() if only is None or name in only}
        self._peace = asyncio.Lock()
        self._copied: object = None

    async def run(self, pause: float) -> None:
        """Makes trouble until all is over; about `pause` seconds from one fault to the next."""
        await asyncio.gather(self._trouble_workers(pause), self._trouble_store(2 * pause))

    async def _trouble_workers(self, pause: float) -> None:
        order: list[str] = []
        while self._of_workers and not self._over.is_set():
            await self._for(pause / 2, 1.5 * pause)
            async with self._peace:
                order = order or self._shuffled(self._of_workers)
                name, worker = order.pop(), self._rng.choice(self._workers)
                began = time.monotonic()
                await self._of_workers[name](worker)
                self._events.append(Event("fault", worker.name, "", began, time.monotonic(), name))

    async def _trouble_store(self, pause: float) -> None:
        order: list[str] = []
        while self._of_store and not self._over.is_set():
            await self._for(pause / 2, 1.5 * pause)
            order = order or self._shuffled(self._of_store)
            name = order.pop()
            began = time.monotonic()
            with contextlib.suppress(OSError):  # whoever was to be asked is away
                await self._of_store[name]()
            self._events.append(Event("fault", "", "", began, time.monotonic(), name))

    def _shuffled(self, faults: Mapping[str, Callable[..., Awaitable[None]]]) -> list[str]:
        """Each once, so that a short history has seen most of them."""
        return self._rng.sample(sorted(faults), len(faults))

    async def _for(self, least: float, most: float) -> None:
        """Lets time pass, unless all is over."""
        try:
            async with asyncio.timeout(self._rng.uniform(least, most)):
                await self._over.wait()
        except TimeoutError:
            pass

    # -- workers -----------------------------------------------------------------------------------------

    async def _partition(self, worker: Troubled) -> None:
        """Nothing passes, or nothing one way: what is sent is held back, as TCP does it."""
        both = self._rng.random() < 0.5
        to_server = not both and self._rng.random() < 0.5
        for way in worker.ways:
            way.to_server, way.to_client = to_server, not both and not to_server
        await self._for(0.5, 2.5)
        _heal(worker)

    async def _late_answers(self, worker: Troubled) -> None:
        """Answers take their time, and then only those come that were under way: the last lease is an old
        one."""
        for delay in (0.12, 0.41):  # first so that all connections it will need can still be made
            for way in worker.ways:
                way.delay = delay * self._lease
            await self._for(0.75 * self._lease, 0.75 * self._lease)
        for way in worker.ways:
            way.to_server = False
        await self._for(1.5 * self._lease, 2.5 * self._lease)
        _heal(worker)

    async def _slow(self, worker: Troubled) -> None:
        for way in worker.ways:
            way.delay = self._rng.uniform(0.005, 0.5)
        await self._for(0.5, 2.0)
        _heal(worker)

    async def _resets(self, worker: Troubled) -> None:
        for _ in range(8):
            for way in worker.ways:
                way.refuse = self._rng.random() < 0.3
                way.reset()
            await self._for(0.02, 0.15)
        _heal(worker)

    async def _stop(self, worker: Troubled) -> None:
        worker.stop()
        await self._for(0.1, 2.0)
        worker.resume()

    async def _kill(self, worker: Troubled) -> None:
        worker.kill()
        await self._for(0.0, 1.0)
        worker.start()

    # -- the store ---------------------------------------------------------------------------------------

    @property
    def _primary(self) -> Server:
        return self._store if isinstance(self._store, Server) else self._store.primary

    async def _kill_push(self) -> None:
        await asyncio.to_thread(lambda: _kill_push(self._primary))

    async def _kill_clients(self) -> None:
        await asyncio.to_thread(lambda: self._primary.ask("CLIENT", "KILL", "TYPE", "normal"))

    async def _pause_store(self) -> None:
        primary = self._primary
        primary.pause()
        await self._for(0.1, 1.5)
        primary.resume()

    async def _restart(self) -> None:
        assert isinstance(self._store, Server)
        self._store.kill()
        await self._for(0.0, 1.0)
        await asyncio.to_thread(self._store.start)

    async def _older_copy(self) -> None:
        assert isinstance(self._store, Server)
        copied = await asyncio.to_thread(self._store.copy)
        await self._for(0.5, 3.0)
        async with self._peace:
            await self._for(CALM, CALM)
            await asyncio.to_thread(self._store.restore, copied)
            await self._for(CALM, CALM)

    async def _lose_data(self) -> None:
        assert isinstance(self._store, Server)
        async with self._peace:
            await self._for(CALM, CALM)
            self._store.kill()
            self._store.forget()
            await asyncio.to_thread(self._store.start)
            await self._for(CALM, CALM)

    async def _fail_over(self) -> None:
        assert isinstance(self._store, SentinelTrio)
        trio, former = self._store, await asyncio.to_thread(lambda: self._primary)
        said = await asyncio.to_thread(trio.sentinels[0].ask, "SENTINEL", "FAILOVER", "main")
        if said == "OK":
            await asyncio.to_thread(_moved, trio, former)

    async def _kill_primary(self) -> None:
        assert isinstance(self._store, SentinelTrio)
        trio, former = self._store, await asyncio.to_thread(lambda: self._primary)
        former.kill()
        await asyncio.to_thread(_moved, trio, former)
        await self._for(0.0, 1.0)
        await asyncio.to_thread(former.start)

    async def _pause_primary(self) -> None:
        """Long enough for the sentinels to put another in its place; then there are two for a moment."""
        primary = await asyncio.to_thread(lambda: self._primary)
        primary.pause()
        await self._for(0.2, 4.0)
        primary.resume()

    async def _kill_replica(self) -> None:
        assert isinstance(self._store, SentinelTrio)
        replica = self._rng.choice(await asyncio.to_thread(lambda: self._replicas()))
        replica.kill()
        await self._for(0.2, 2.0)
        await asyncio.to_thread(replica.start)

    def _replicas(self) -> list[Server]:
        assert isinstance(self._store, SentinelTrio)
        return self._store.replicas


def _heal(worker: Troubled) -> None:
    for way in worker.ways:
        way.heal()


def _moved(trio: SentinelTrio, former: Server) -> None:
    """Waits for another primary, and not for ever: the sentinels may think better of it."""
    until = time.monotonic() + MOVED_WITHIN
    while trio.primary is former and time.monotonic() < until:
        time.sleep(0.05)


def _kill_push(server: Server) -> None:
    """Closes the connections that wait for news, and no other."""
    for line in server.ask("CLIENT", "LIST").splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if words.get("cmd") == "xread":
            server.ask("CLIENT", "KILL", "ID", words["id"])
