"""A schedule explorer for the lease and the fence: the real core, in a world where everything goes wrong.

One seed is one schedule: three workers, one caller who revokes, a store, people who sign in. Messages are
late, lost, doubled and overtake one another; workers stand still and are cut off; every clock runs up to one
per cent off, the store's is set; servers restart, lose their data, come back from a backup, are taken over.

The time of the heap is the true one, which nobody in the world can read. Whoever was revoked and acknowledged
is `dead`: no worker may be able to let them in from then on (INV-1), at the end of the schedule either, when
all is well again (INV-4), nor may a sign-in that began before (INV-5). A worker can let in whom it has read,
while its lease is live; what it can do only grows when it hears something, so it is looked at there, and when
something becomes acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

from tests.worlds.memory_log import DURABLE, MemoryStore
from ztproxy.core.fence import Again, Done, Fence, Generation, Verdict
from ztproxy.core.identity import Identity, Session
from ztproxy.core.lease import (
    Answer,
    Applied,
    Committed,
    Granted,
    Hold,
    Holder,
    NotYet,
    Sent,
    StartOver,
    Synced,
    Terms,
    Topology,
)
from ztproxy.core.lock_book import LockBook
from ztproxy.core.locks import ALL, Entry, Lock, Target, TargetKind

LENGTH = 0.5
STOP = 0.4  # seconds for which a server that was taken over goes on taking writes
SENTINEL = Topology("sentinel", True, False, STOP + 1.05 * LENGTH, "every replica has it")
EVERYSEC = Topology("standalone", False, False, 0.0, "the last second may be lost")
HEALED, END = 3.0, 6.5  # all is well from the one, and the schedule ends at the other
PEOPLE = ("ann", "bob", "cyd")
NOW = 1e6  # of the wall, which plays no part


@dataclass(frozen=True)
class Rules:
    """What a mutant breaks. `holder` and `fence` are the real ones but for that."""

    holder: type[Holder] = Holder
    judge: Callable[[Fence, Applied | None, float, float], Verdict] = lambda fence, applied, now, store: (
        fence.verdict(applied, now)
    )
    grace: Callable[[Terms], Terms] = lambda terms: terms
    holders: bool = True
    leases: bool = True
    starts_over: bool = True
    restores: bool = True
    slow_apply: bool = False


class World:
    """`trouble` is `none`, `restart`, `failover`, `lost` or `rollback`."""

    def __init__(self, seed: int, trouble: str, rules: Rules = Rules()) -> None:
        self.dice = random.Random(f"{trouble} {seed}")
        self.trouble, self.rules = trouble, rules
        self.t, self._order, self._heap = 0.0, count(), list[tuple[float, int, Callable[[], None]]]()
        self.skew, self.sets_clock = 0.0, False
        topology = SENTINEL if trouble == "failover" else DURABLE
        if trouble in ("lost", "rollback") and self.dice.random() < 0.5:
            topology = EVERYSEC
        terms = Terms(LENGTH, 0.6, topology.failover, topology.durable)
        self.terms = rules.grace(terms)
        self.store = MemoryStore(lambda: 1000.0 + self.t + self.skew, topology)
        self.store.since -= 100.0
        self.old: MemoryStore | None = None
        self.closed: list[tuple[MemoryStore, float, float]] = []
        self.began: dict[str, tuple[float, str]] = {}
        self.committed: dict[str, float] = {}
        self.dead: dict[str, str] = {}
        self.shut: set[str] = set()
        self.acks = 0
        self.violations: list[str] = []
        self.workers = [Worker(self, name) for name in ("w0", "w1", "w2")]
        self.caller = Caller(self)

    # Time and messages.

    def at(self, when: float, do: Callable[[], None]) -> None:
        heappush(self._heap, (when, next(self._order), do))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self.at(self.t + seconds, do)

    def delay(self) -> float:
        dice = self.dice.random()
        if self.t > HEALED or dice < 0.85:
            return self.dice.uniform(0.0003, 0.006)
        return self.dice.uniform(0.006, 0.1) if dice < 0.95 else self.dice.uniform(0.1, 1.0)

    def post(self, do: Callable[[], None], lost: bool) -> None:
        """One message on its way; it may arrive twice."""
        calm = self.t > HEALED
        if lost or (not calm and self.dice.random() < 0.02):
            return
        self.after(self.delay(), do)
        if not calm and self.dice.random() < 0.03:
            self.after(self.delay(), do)

    def takes_writes(self, server: MemoryStore) -> bool:
        return not any(server is one and start <= self.t < end for one, start, end in self.closed)

    # One schedule.

    def play(self) -> list[str]:
        dice = self.dice
        for worker in self.workers:
            worker.begin()
        for _ in range(dice.randint(4, 8)):
            self.at(dice.uniform(0.0, HEALED), self.sign_in)
        for _ in range(dice.randint(2, 4)):
            self.at(dice.uniform(0.2, HEALED), self.caller.revoke)
        for worker in self.workers:
            self._disturb(worker)
        if dice.random() < 0.4:
            self.sets_clock = True
            self.at(dice.uniform(0.2, HEALED), lambda: self._set_clock(dice.choice((-40.0, -0.3, 0.3, 60.0))))
        if self.sets_clock:
            self.caller.generation = Generation(self.store.run, self.store.data.id)
        if self.trouble != "none":
            self.at(dice.uniform(0.6, 2.2), getattr(self, f"_{self.trouble}"))
        while self._heap and self._heap[0][0] < END and not self.violations:
            self.t, _, do = heappop(self._heap)
            do()
        if not self.violations:
            self._look_back()
        return self.violations

    def _set_clock(self, by: float) -> None:
        self.skew += by

    def _disturb(self, worker: Worker) -> None:
        dice = self.dice
        # Where the store loses something, one node that knows it must be there to put it back.
        if worker is self.workers[0] and self.trouble in ("lost", "rollback"):
            return
        if dice.random() < 0.5:
            start = dice.uniform(0.0, 2.5)
            worker.cut.append((start, min(HEALED, start + dice.uniform(0.05, 1.5)), dice.choice("qab")))
        if dice.random() < 0.4:
            start = dice.uniform(0.0, 2.0)
            worker.still.append((start, min(HEALED, start + dice.uniform(0.02, 1.2))))

    def _restart(self) -> None:
        self.closed.append((self.store, self.t, self.t + self.dice.uniform(0.0, 0.5)))
        self.store.restart()

    def _lost(self) -> None:
        if self.dice.random() < 0.5:
            self.store.restart()
        self.store.lose()

    def _rollback(self) -> None:
        backup = self.store.data.copy()

        def back() -> None:
            self.store.restore(backup)

        self.after(self.dice.uniform(0.05, 0.8), back)

    def _failover(self) -> None:
        """Another server has all that was acknowledged, and none of the leases. The old one goes on for a
        while, and who is on its side too."""
        old, new = self.store, MemoryStore(self.store.clock, SENTINEL)
        new.data = old.data.copy()
        new.data.leases.clear()
        old.copying = False
        self.old, self.store = old, new
        self.closed.append((old, self.t + STOP, inf))
        clients: list[Worker | Caller] = [*self.workers, self.caller]
        for one in clients:
            one.server = old
            # A part of them finds the new server at once, or after a while.
            self.after(self.dice.choice((0.0, self.dice.uniform(0.0, STOP + 0.3))), one.find)

    # People.

    def sign_in(self) -> None:
        person, server = self.dice.choice(PEOPLE), self.store
        as_of, data = server.data.number, server.data.id
        session = Session(
            f"s{len(self.began)}", Identity("idp", person), "main", NOW, NOW, NOW, NOW + 1e6, as_of=as_of
        )
        self.began[session.id] = self.t, person

        def create() -> None:
            there = self.store.data
            # The number is of this log, or the session would carry one that means nothing here.
            if there.id == data and as_of <= there.number and self.takes_writes(self.store):
                there.sessions[session.id] = session

        self.after(self.dice.choice((0.0, self.dice.uniform(0.0, 1.0))), create)

    # The checker.

    def executed(self, entry: Entry) -> None:
        self.committed.setdefault(entry.id, self.t)

    def acknowledged(self, lock: Lock) -> None:
        self.acks += 1
        committed = self.committed[lock.id]
        for id, (began, person) in self.began.items():
            if lock.target in (ALL, Target(TargetKind.USER, person, "idp")) and (
                began < committed or lock.until is not None
            ):
                self.dead.setdefault(id, lock.id)
        if lock.until is not None:
            self.shut.add(lock.target.name)
        for worker in self.workers:
            worker.look()

    def _look_back(self) -> None:
        for worker in self.workers:
            if self.rules.leases and worker.clock() >= worker.holder.until:
                self.violations.append(f"{worker.name} has no lease though all is well")
            worker.cache.update(self.store.data.sessions)
            worker.look()


class Worker:
    """One worker: what `gateway.keeper` does, with the waiting left out."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.rate, self.offset = world.dice.uniform(0.99, 1.01), world.dice.uniform(0.0, 1e4)
        self.server = world.store
        self.holder = world.rules.holder(LockBook(), world.terms, revoke_all=True)
        self.cache: dict[str, Session] = {}
        self.journal: dict[str, Entry] = {}
        self.cut: list[tuple[float, float, str]] = []
        self.still: list[tuple[float, float]] = []
        self.owing: set[str] = set()

    def clock(self) -> float:
        return self.offset + self.world.t * self.rate

    def find(self) -> None:
        self.server = self.world.store

    def begin(self) -> None:
        self.world.after(self.world.dice.uniform(0.0, LENGTH / 8), self.beat)

    def lost(self, way: str) -> bool:
        """`q` questions, `a` answers, `b` both."""
        return any(start <= self.world.t < end and how in (way, "b") for start, end, how in self.cut)

    def awake(self, do: Callable[[], None]) -> bool:
        """Whether the process runs now; else `do` is done when it does again."""
        for start, end in self.still:
            if start <= self.world.t < end:
                self.world.at(end, do)
                return False
        return True

    def beat(self) -> None:
        if self.awake(self.beat):
            self.sync()
            self.read()
            self.world.after(LENGTH / 8 / self.rate, self.beat)

    def sync(self) -> None:
        sent, server, world = self.holder.send(self.clock()), self.server, self.world
        name = f"{self.name}.{self.holder.era}"

        def arrive() -> None:
            if world.takes_writes(server):
                reply = server.sync(name, sent.asked, world.terms.length)
                world.post(lambda: self.hear(reply, sent), self.lost("a"))

        world.post(arrive, self.lost("q"))

    def read(self) -> None:
        """What requests of this moment would have it read."""
        if not self.lost("b") and self.world.takes_writes(self.server) and self.live():
            self.cache.update(self.server.data.sessions)
            self.look()

    def hear(self, reply: Synced, sent: Sent) -> None:
        if not self.awake(lambda: self.hear(reply, sent)):
            return
        before = self.holder.book.applied
        answer = self.holder.hear(reply, sent, self.clock(), lambda locks: None)
        self.journal.update((entry.id, entry) for entry in reply.entries)
        self.heard(answer)
        if answer == NotYet(Hold.COMPARING) or (
            self.holder.book.applied != before and not isinstance(answer, StartOver)
        ):
            self.sync()

    def heard(self, answer: Answer) -> None:
        if isinstance(answer, StartOver):
            self.cache.clear()
            self.owing.clear()
        elif self.holder.caught_up and not self.holder.restored:
            self.restore()
        self.look()

    def restore(self) -> None:
        journal = {**self.journal, **(self.world.caller.journal if self.name == "w0" else {})}
        owed = self.holder.owed(journal.values()) if self.world.rules.restores else ()
        missing = [entry for entry in owed if entry.id not in self.owing]
        if not owed:
            self.holder.restore()
        for entry in missing:
            self.owing.add(entry.id)
            self.commit(entry, self.holder.era)

    def commit(self, entry: Entry, era: int) -> None:
        server, world = self.server, self.world

        def arrive() -> None:
            if world.takes_writes(server):
                world.executed(entry)
                server.commit(entry)

        world.post(arrive, self.lost("q"))
        # Unanswered or not, it is owed until the book has it; then once more.
        world.after(0.1, lambda: self.owing.discard(entry.id) if self.holder.era == era else None)

    def live(self) -> bool:
        return not self.world.rules.leases or self.clock() < self.holder.until

    def look(self) -> None:
        """INV-1: whether it could let in whom it must not."""
        if not self.live():
            return
        world = self.world
        for id, session in self.cache.items():
            if (id in world.dead or session.identity.subject in world.shut) and not self.holder.book.meeting(
                session, "app", NOW
            ):
                world.violations.append(
                    f"{self.name} lets in {id}, ended by {world.dead.get(id)}, at {world.t:.3f}"
                )


class Caller:
    """Who revokes: what `gateway.revoker` does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rate, self.offset = world.dice.uniform(0.99, 1.01), world.dice.uniform(0.0, 1e4)
        self.server = world.store
        self.journal: dict[str, Entry] = {}
        self.generation: Generation | None = None
        self._ids = count()

    def clock(self) -> float:
        return self.offset + self.world.t * self.rate

    def find(self) -> None:
        self.server = self.world.store

    def lost(self) -> bool:
        return self.world.t < HEALED and self.world.dice.random() < 0.03

    def revoke(self) -> None:
        dice = self.world.dice
        target = Target(TargetKind.USER, dice.choice(PEOPLE), "idp") if dice.random() < 0.9 else ALL
        until = 1e9 if dice.random() < 0.15 and target is not ALL else None
        lock = Lock(f"r{next(self._ids)}", target, until=until, made_at=1.0)
        self.journal[lock.id] = lock
        self.commit(lock)

    def commit(self, lock: Lock) -> None:
        server, world, answered = self.server, self.world, list[bool]()

        def arrive() -> None:
            if world.takes_writes(server):
                world.executed(lock)
                reply = server.commit(lock)
                world.post(lambda: back(reply), self.lost())

        def back(reply: Committed) -> None:
            if not answered:
                answered.append(True)
                if not world.rules.holders:
                    reply = reply._replace(holders=frozenset())
                self.fence(lock, reply, server)

        world.post(arrive, self.lost())
        world.after(1.2, lambda: None if answered or world.t > END else self.commit(lock))

    def fence(self, lock: Lock, reply: Committed, server: MemoryStore) -> None:
        now = self.clock()
        known = self.generation or Generation(reply.run, reply.data)
        self.generation = known.heard(reply.run, reply.data, now)
        if self.world.dice.random() < 0.3 and not self.world.sets_clock:
            # A process that has just begun. It takes the store's word for how long this server has been
            # there, and would be wrong if the store's clock was set in just that time: that is not promised.
            self.generation = None
        fence = Fence.after(reply, now, self.world.terms, self.generation)
        self.poll(lock, fence, server, self.world.t)

    def poll(self, lock: Lock, fence: Fence, server: MemoryStore, began: float) -> None:
        world, answers = self.world, list[Any]()

        def arrive() -> None:
            reply = server.applied()
            world.post(lambda: answers.append(reply), self.lost())

        def look() -> None:
            store = server.clock() - 1000.0 + self.offset
            verdict = world.rules.judge(fence, answers[-1] if answers else None, self.clock(), store)
            if isinstance(verdict, Done):
                if verdict.confirmed:
                    world.acknowledged(lock)
                else:
                    world.after(0.3, lambda: self.commit(lock))
            elif isinstance(verdict, Again) or self.server is not server:
                self.commit(lock)
            elif world.t < END:
                self.poll(lock, fence, server, began)

        world.post(arrive, self.lost())
        world.after(world.dice.uniform(0.01, 0.03), look)


# ── mutants ──


class FromTheReply(Holder):
    """The lease runs from when the answer came."""

    def hear(self, reply: Synced, sent: Sent, now: float, tell: Any) -> Answer:
        return super().hear(reply, sent._replace(at=now), now, tell)


class RenewFirst(Holder):
    """The lease is longer at once; what came with it is applied when there is time."""

    def hear(self, reply: Synced, sent: Sent, now: float, tell: Any) -> Answer:
        if self.restored and reply.entries and now < sent.at + 2 * LENGTH:
            self.until = max(self.until, sent.at + self.terms.length)
            return Granted(self.until)
        return super().hear(reply, sent, now, tell)


class NeverStartsOver(Holder):
    """Takes any log for the one known before."""

    def _changed(self, reply: Synced, sent: Sent) -> None:
        return None


MUTANTS: dict[str, tuple[str, Rules]] = {
    "no_waiting": ("none", Rules(judge=lambda fence, applied, now, store: Done(True))),
    "lease_from_the_reply": ("none", Rules(holder=FromTheReply)),
    "renew_before_apply": ("none", Rules(holder=RenewFirst)),
    "holders_not_recorded": ("none", Rules(holders=False)),
    "waiting_by_the_stores_time": (
        "none",
        Rules(judge=lambda fence, applied, now, store: fence.verdict(applied, store)),
    ),
    "reads_without_a_lease": ("none", Rules(leases=False)),
    "no_wait_after_a_failover": (
        "failover",
        Rules(judge=lambda fence, applied, now, store: replace(fence, settles_at=-inf).verdict(applied, now)),
    ),
    "old_log_taken_for_new": ("rollback", Rules(holder=NeverStartsOver)),
    "nothing_put_back": ("lost", Rules(restores=False)),
}
