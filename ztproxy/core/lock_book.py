"""The book: the log of locks as one worker has applied it, ready to be asked on every request.

Knows: every entry applied and not yet forgotten. Promises: entries count in the order of the log and once; a
gap is refused, never passed over; asking costs a few look-ups however long the book is, and nothing while it
is empty. It is changed in place and holds no clock. Leaves to `lease` when it may be relied on, and to its
keeper when to forget.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from math import inf

from ztproxy.core.identity import Session
from ztproxy.core.locks import ALL, Entry, Lift, Lock, Target, TargetKind, meets, targets_of


class LockBook:
    """`applied` is the number of the last entry applied; `revision` grows with whatever may change an
    answer."""

    __slots__ = (
        "_entries",
        "_forgotten",
        "_latest",
        "_lifted",
        "_revoked",
        "_standing",
        "applied",
        "revision",
    )

    def __init__(self) -> None:
        self.applied = 0
        self.revision = 0
        self._entries: dict[str, Entry] = {}
        self._forgotten = 0
        self._lifted: set[str] = set()
        # Of plain revocations of one target the newest says it all; the other locks can be lifted one by one.
        self._revoked: dict[Target, Lock] = {}
        self._standing: dict[Target, dict[str, Lock]] = {}
        # The entries that were made later than every one before them: (made_at, number), both growing.
        self._latest: list[tuple[float, int]] = []

    def apply(self, entries: Sequence[Entry], first: int = 1) -> tuple[Lock, ...]:
        """Applies what is new of `entries`, which are in order, and answers the new locks.

        `first` is the oldest number the log still keeps. What comes with a smaller one are the locks with an
        end that outlived their place in it, all of them (`Synced`). Raises `ValueError`, and changes nothing,
        where a number is missing.
        """
        new = [entry for entry in entries if entry.number > self.applied]
        if 0 < self.applied < first - 1:
            raise ValueError(f"the log begins at {first}, after {self.applied}")
        expected = max(self.applied + 1, first)
        for entry in new:
            if entry.number >= first:
                if entry.number != expected:
                    raise ValueError(f"entry {expected} is missing before {entry.number}")
                expected += 1
        for entry in new:
            self._take(entry)
        if new:
            self.revision += 1
        self.applied = expected - 1
        return tuple(entry for entry in new if isinstance(entry, Lock))

    def _take(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._date(entry)
        if isinstance(entry, Lift):
            self._lifted.add(entry.lifts)
            lifted = self._entries.get(entry.lifts)
            if isinstance(lifted, Lock):
                self._remove(lifted)
        elif entry.revokes:
            self._revoked[entry.target] = entry
        elif entry.id not in self._lifted:
            # After a loss of data two nodes may put a lock and its lift back in the wrong order.
            self._standing.setdefault(entry.target, {})[entry.id] = entry

    def _date(self, entry: Entry) -> None:
        made_at = entry.made_at or inf  # not known: as if made after everything
        if not self._latest or made_at > self._latest[-1][0]:
            self._latest.append((made_at, entry.number))

    def _remove(self, lock: Lock) -> None:
        """Takes a lock that can be lifted out of force."""
        group = self._standing.get(lock.target, {})
        group.pop(lock.id, None)
        if not group:
            self._standing.pop(lock.target, None)

    def meeting(self, session: Session | None, route: str, now: float) -> tuple[Lock, ...]:
        """The locks that concern this session on this route at `now`, seconds since the epoch.

        A stranger (None) can meet a lock of the route or one of all, so that leaving the cookie at home opens
        nothing.
        """
        if not self._revoked and not self._standing:
            return ()
        found: list[Lock] = []
        self._look(Target(TargetKind.ROUTE, route), session, now, found)
        if session is None:
            self._look(ALL, None, now, found)
        else:
            for target in targets_of(session):
                self._look(target, session, now, found)
        return tuple(found)

    def _look(self, target: Target, session: Session | None, now: float, found: list[Lock]) -> None:
        revoked = self._revoked.get(target)
        if revoked is not None and meets(revoked, session, now):
            found.append(revoked)
        group = self._standing.get(target)
        if group is not None:
            found.extend(lock for lock in group.values() if meets(lock, session, now))

    def as_of(self, moment: float) -> int:
        """The number of the last entry before the first that was made after `moment`, in seconds since the
        epoch by the store's clock: the `Session.as_of` of who has no place in the log, a token issued then.

        INVARIANT: never too large, or a revocation would be passed over. So an entry whose time is not known
        counts as made after every moment, and one made earlier than that which it follows (the store's clock
        was set back) as made with it. What is forgotten meets nobody; who asks about a moment before that
        refuses the credential by its age.
        """
        after = bisect_right(self._latest, (moment, self.applied))
        return self.applied if after == len(self._latest) else self._latest[after][1] - 1

    def newest_revocation(self, session: Session) -> Lock | None:
        """The newest revocation aimed at this session or its person, whether it meets the session or not: who
        was revoked must have proved themselves since, and not only have asked since (INV-5)."""
        found = [lock for target in targets_of(session) if (lock := self._revoked.get(target)) is not None]
        return max(found, key=lambda lock: lock.number, default=None)

    def standing(self, now: float) -> tuple[Lock, ...]:
        """All locks with an end that has not come, oldest first."""
        locks = [lock for group in self._standing.values() for lock in group.values()]
        return tuple(
            sorted(
                (lock for lock in locks if lock.until is not None and now < lock.until),
                key=lambda lock: lock.number,
            )
        )

    def has(self, id: str) -> bool:
        """Whether the log had an entry of this id, lifted or not."""
        return id in self._entries

    def knows(self, entry: Entry) -> bool:
        """Whether it was applied as this number, or may have been and is forgotten."""
        there = self._entries.get(entry.id)
        return entry.number <= self._forgotten if there is None else entry.number == there.number

    def entries(self) -> tuple[Entry, ...]:
        """Everything not yet forgotten, in order: for a store that lost it."""
        return tuple(self._entries.values())

    def lacks(self, known: Iterable[Entry]) -> tuple[Entry, ...]:
        """Which of the entries known from elsewhere are to be in the log and are not; each once, as told
        last.

        A lock that was lifted is not asked for again, whoever knows of the lift.
        """
        latest = {entry.id: entry for entry in known}
        lifted = self._lifted | {entry.lifts for entry in latest.values() if isinstance(entry, Lift)}
        return tuple(
            entry
            for id, entry in latest.items()
            if id not in self._entries and (isinstance(entry, Lift) or entry.revokes or id not in lifted)
        )

    def forget_before(self, number: int, now: float) -> None:
        """Drops what is numbered below `number` and can meet nobody any more.

        INVARIANT: every session that began before entry `number` is past its absolute lifetime. That is for
        the caller to know by a clock that cannot be set: forgetting early brings the revoked back (INV-4).
        """
        self._forgotten = max(self._forgotten, number - 1)
        dropped: dict[str, Entry] = {}
        for entry in self._entries.values():
            if entry.number < number and (
                entry.lifts in dropped or entry.lifts not in self._entries
                if isinstance(entry, Lift)
                else entry.until is None or entry.until <= now
            ):
                dropped[entry.id] = entry
        for id, entry in dropped.items():
            del self._entries[id]
            if isinstance(entry, Lift):
                self._lifted.discard(entry.lifts)
            elif not entry.revokes:
                self._remove(entry)
            elif self._revoked[entry.target].id == id:
                del self._revoked[entry.target]
        if dropped:
            self._latest.clear()
            for entry in self._entries.values():
                self._date(entry)

    def reset(self) -> None:
        """Forgets everything: the log begins anew, or is another."""
        self._entries.clear()
        self._forgotten = 0
        self._latest.clear()
        self._lifted.clear()
        self._revoked.clear()
        self._standing.clear()
        self.applied = 0
        self.revision += 1
