"""Who is signed in during a history: families of sessions that one lock or another can be aimed at.

Knows: the store's own adapter, through which sessions are made as a sign-in makes them, without its walk; and
that walk, for some. Promises: a session is used only if the number it counts from was read from the same log
that it was then written beside. Leaves to `clients` what they do.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from loadtests.history.checker import EVERYBODY, Event
from loadtests.history.http import Answer, Connection
from tests.worlds.lying_provider import LyingProvider
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.app.state import State
from ztproxy.config.settings import Settings
from ztproxy.core.identity import Identity, Session, SessionSecrets
from ztproxy.core.locks import ALL, Target, TargetKind, targets_of
from ztproxy.errors import WorldError

HOST = "app.test"
COOKIE = "__Host-ztproxy"
FAMILIES = 20
_HOT = 24
_REMEMBERED = 150
_HOUR = 3600.0


class Member(NamedTuple):
    """A session and the cookie that stands for it. `targets` are the locks' that would meet it."""

    id: str
    cookie: str
    targets: frozenset[Target]


@dataclass(slots=True)
class People:
    """`alive` are families whose sessions may still be good, `hot` sessions that were aimed at of late: those
    are asked for most, because there a mistake would show; `gone` more of those."""

    state: State
    settings: Settings
    rng: Random
    events: list[Event]
    issuer: str
    alive: list[list[Member]] = field(default_factory=list)
    hot: deque[Member] = field(default_factory=lambda: deque(maxlen=_HOT))
    gone: deque[Member] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    streaming: dict[str, Member] = field(default_factory=dict)
    made: int = 0
    _number: int = 0

    def pick(self) -> Member | None:
        """Somebody to make a request as."""
        if self.hot and self.rng.random() < 0.5:
            return self.rng.choice(self.hot)
        return self.live()

    def live(self) -> Member | None:
        """Somebody who has not been revoked, as far as is known here."""
        return self.rng.choice(self.rng.choice(self.alive)) if self.alive else None

    def aim(self) -> Target | None:
        """Whom to revoke next, rather somebody who is busy; their sessions become hot."""
        busy = list(self.streaming.values())
        chosen = self.rng.choice(busy) if busy and self.rng.random() < 0.6 else self.live()
        if chosen is None:
            return None
        rarely = self.rng.random() < 0.01
        target = ALL if rarely else self.rng.choice(sorted(chosen.targets - {ALL}))
        for family in self.alive:
            met = [member for member in family if target in member.targets]
            self.hot += met
            self.gone += met
            family[:] = [member for member in family if target not in member.targets]
        self.alive[:] = [family for family in self.alive if family]
        return target

    def drop(self, gone: Member) -> None:
        """This session is good no more, whyever: the store may have lost it."""
        for family in self.alive:
            if gone in family:
                family.remove(gone)
        self.alive[:] = [family for family in self.alive if family]

    async def keep_up(self, over: asyncio.Event) -> None:
        """Has new families sign in for those that are gone."""
        while not over.is_set():
            if len(self.alive) >= FAMILIES:
                await asyncio.sleep(0.05)
                continue
            try:
                family = await self.family()
            except WorldError:
                family = []
            if family:
                self.alive.append(family)
            else:
                await asyncio.sleep(0.1)

    async def family(self) -> list[Member]:
        """One person with three sessions: two of one session at the provider, one of them on a device."""
        self.made += 1
        n, store, signer = self.made, *self._store()
        who = Identity(self.issuer, f"u{n}", f"u{n}@corp.test", groups=(f"g{n}",))
        before = await self.log()
        began, members = time.monotonic(), []
        for i in range(3):
            now = time.time()
            session = Session(
                "",
                who,
                "op",
                now,
                now,
                now,
                now + _HOUR,
                idp_session=f"i{n}.{i // 2}",
                device=f"d{n}" if i == 1 else None,
                as_of=before[2],
            )
            handle = await store.create(session, SessionSecrets(), HOST, None)
            loaded = await store.load(handle)
            if loaded is None:
                return []
            members.append(self._member(loaded.session, signer.seal(handle)))
        after = await self.log()
        if before[:2] != after[:2]:
            return []  # another server or other data: the number may be another log's
        for member in members:
            self.note(member, began)
        return members

    async def log(self) -> tuple[str, str, int]:
        """Which log there is, and its last number."""
        synced = await self.state.log.read(self._number)
        self._number = synced.number
        return synced.run, synced.data, synced.number

    async def found(self, cookie: str) -> Member | None:
        """The session behind a cookie that a worker has set."""
        store, signer = self._store()
        handle = signer.open(cookie)
        loaded = None if handle is None else await store.load(handle)
        return None if loaded is None else self._member(loaded.session, cookie)

    def note(self, member: Member, began: float) -> None:
        names = frozenset(map(name_of, member.targets))
        self.events.append(Event("session", "", member.id, began, time.monotonic(), "", names=names))

    def _store(self) -> tuple[RedisSessions, SignedHandles]:
        sessions = RedisSessions(self.state.client, self.state.sealer, self.settings.session)
        return sessions, SignedHandles(KeyRing.load(self.settings.keys_file).handles)

    def _member(self, session: Session, cookie: str) -> Member:
        return Member(session.id, cookie, frozenset(targets_of(session)))


def name_of(target: Target) -> str:
    """What `checker` calls it."""
    return EVERYBODY if target.kind is TargetKind.ALL else f"{target.kind}:{target.name}"


async def begin_sign_in(connection: Connection, provider: LyingProvider) -> tuple[str, str] | None:
    """The first half of the walk: where the browser would come back to, and with which cookies."""
    began = await connection.ask("/.ztproxy/sign_in?rd=/", page=True)
    if began.status != 302:
        return None
    came_back = provider.sign_in(began.field("location"))
    return f"{urlsplit(_callback(began)).path}?{urlencode(came_back)}", _cookies(began)


async def end_sign_in(
    connection: Connection, provider: LyingProvider, subject: str, back: tuple[str, str]
) -> str | None:
    """The second half: the session's cookie, if there is one now. Whoever else does this at the same moment
    may be taken for `subject`: the session tells who it is of."""
    provider.person = {"sub": subject}
    ended = await connection.ask(back[0], cookie=back[1], page=True)
    return dict(re.findall(r"([\w-]+)=([^;]*)", _cookies(ended))).get(COOKIE) or None


def _callback(answer: Answer) -> str:
    found = re.search(r"redirect_uri=([^&]+)", answer.field("location"))
    return "" if found is None else found[1].replace("%3A", ":").replace("%2F", "/")


def _cookies(answer: Answer) -> str:
    return "; ".join(line.partition(";")[0] for line in answer.fields("set-cookie"))
