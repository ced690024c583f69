"""Everybody who does something during a history, and the app they do it to; each writes down what happened.

Knows: what a client sees of a worker. Promises: the times of `checker`: a start is taken before anything is
sent, an end after the answer. Leaves trouble to `nemesis`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any, Protocol

from loadtests.history import http
from loadtests.history.checker import Event
from loadtests.history.http import Answer, Connection
from loadtests.history.people import Member, People, begin_sign_in, end_sign_in, name_of
from tests.worlds.lying_provider import LyingProvider
from ztproxy.app.state import State
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.errors import WorldError

KINDS = ("socket", "down", "up")
THINK = 0.03
"""Seconds between two requests of one client."""

REGULARS = 20
_AGAIN = 0.2
_STREAM_LIFE = (1.0, 8.0)
_GONE = (OSError, EOFError, TimeoutError)


class Asked(Protocol):
    """A worker as clients know it: `name` is another after each start."""

    port: int

    @property
    def name(self) -> str: ...


class App:
    """The app behind all workers. Every path tells it who asks: `/KIND/WORKER/SESSION/...`."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serves one request; whether there may be another."""
        asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
        kind, worker, session, *more = asked.strip("/").split("/")
        if kind == "once":
            began = float(more[0])
            self._events.append(Event("reached", worker, session, began, time.monotonic(), "reached"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return True
        writer.write(http.accepting(kind))
        talking = asyncio.create_task(http.talk(writer, http.APP_SENDS.get(kind)))
        await http.listen(reader, lambda sent: self._came(worker, session, sent))
        talking.cancel()
        return False

    def _came(self, worker: str, session: str, sent: float) -> None:
        self._events.append(Event("up", worker, session, sent, time.monotonic(), "relayed"))


async def asking(
    worker: Asked, people: People, regulars: deque[Member], fond: bool, rng: Random, over: asyncio.Event
) -> None:
    """One client that makes requests, as one and another; a `fond` one as the worker's regulars alone, whom
    it knows and need not ask the store about: while the store does not answer, only those come in."""
    connection = Connection(worker.port)
    while not over.is_set():
        member = people.pick() if not fond else rng.choice(regulars) if regulars else None
        if member is not None:
            outcome = await ask(connection, worker, member, people.events)
            if outcome in ("refused", "revoked"):
                people.drop(member)
            if outcome == "allowed" and not fond:
                regulars.append(member)
        await asyncio.sleep(THINK * (0.5 + rng.random()))
    connection.close()


async def ask(connection: Connection, worker: Asked, member: Member, events: list[Event]) -> str:
    """One request; its outcome, which is written down."""
    began, name = time.monotonic(), worker.name
    try:
        await connection.open()
        began, name = time.monotonic(), worker.name
        answer = await connection.ask(
            f"/once/{name}/{member.id}/{began:.9f}", f"__Host-ztproxy={member.cookie}"
        )
    except _GONE:
        outcome = "lost"
    else:
        outcome = _outcome(answer)
    events.append(Event("request", name, member.id, began, time.monotonic(), outcome))
    return outcome


def _outcome(answer: Answer) -> str:
    if answer.status == 200:
        return "allowed"
    if answer.status >= 500:
        return "unavailable"
    return "revoked" if b'"session_revoked"' in answer.body else "refused"


async def streaming(worker: Asked, kind: str, people: People, rng: Random, over: asyncio.Event) -> None:
    """One client with a stream that is open most of the time."""
    while not over.is_set():
        member = people.live()
        if member is not None:
            people.streaming[member.id] = member
            await _stream(worker, kind, member, people.events, rng.uniform(*_STREAM_LIFE), over)
            people.streaming.pop(member.id, None)
        await asyncio.sleep(THINK)


async def _stream(
    worker: Asked, kind: str, member: Member, events: list[Event], life: float, over: asyncio.Event
) -> None:
    name, id = worker.name, member.id
    try:
        async with asyncio.timeout(http.PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    except _GONE:
        return
    writer.write(http.asking_for(kind, f"/{kind}/{name}/{id}", f"__Host-ztproxy={member.cookie}"))

    def came(sent: float) -> None:
        events.append(Event("down", name, id, sent, time.monotonic(), "relayed"))

    sending = asyncio.create_task(http.talk(writer, http.CLIENT_SENDS.get(kind)))
    listening = asyncio.create_task(http.listen(reader, came))
    ending = asyncio.create_task(over.wait())
    await asyncio.wait({listening, ending}, timeout=life, return_when=asyncio.FIRST_COMPLETED)
    for task in (sending, listening, ending):
        task.cancel()
    writer.transport.abort()


class Revoking:
    """Whoever revokes: through the state as the admin API does it, and now and then as the provider that
    calls a worker. What is not confirmed is asked for again, with the same id, until it is or all is over."""

    def __init__(
        self,
        state: State,
        people: People,
        workers: Sequence[Asked],
        provider: LyingProvider,
        every: float,
        rng: Random,
    ) -> None:
        self._state, self._people, self._workers, self._provider = state, people, workers, provider
        self._every, self._rng = every, rng
        self._under_way: set[asyncio.Task[None]] = set()
        self.given_up = asyncio.Event()

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(self._every * (0.5 + self._rng.random()))
            target = self._people.aim()
            if target is not None:
                by_provider = target.kind is TargetKind.IDP_SESSION and self._rng.random() < 0.5
                self._begin(self._by_provider(target) if by_provider else self.revoke(target))

    def _begin(self, revoking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(revoking)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def settle(self, seconds: float) -> None:
        """Waits for what is under way, at most so long."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=seconds)
        self.given_up.set()
        await asyncio.gather(*self._under_way)

    async def revoke(self, target: Target) -> None:
        """Revokes until it is confirmed."""
        lock = Lock(secrets.token_hex(8), target, created_by="history")
        began, outcome, number = time.monotonic(), "failed", 0
        while True:
            try:
                revoked = await self._state.revoke(lock)
            except WorldError:
                pass
            else:
                number, outcome = revoked.number, "confirmed" if revoked.confirmed else "unconfirmed"
            if outcome == "confirmed" or self.given_up.is_set():
                break
            await asyncio.sleep(_AGAIN)
        self._note(target, began, outcome, lock.id, number)

    async def _by_provider(self, target: Target) -> None:
        """A logout call, answered by 200 or not; its lock has an id that nobody outside knows."""
        token = self._provider.logout_token(sid=target.name)
        began = time.monotonic()
        connection = Connection(self._rng.choice(self._workers).port)
        try:
            answer = await connection.ask("/.ztproxy/logout/back/op", form=f"logout_token={token}".encode())
        except _GONE:
            outcome = "failed"
        else:
            outcome = "confirmed" if answer.status == 200 else "failed"
        connection.close()
        self._note(target, began, outcome)
        if outcome == "failed":
            await self.revoke(target)

    def _note(self, target: Target, began: float, outcome: str, id: str = "", number: int = 0) -> None:
        names = frozenset((name_of(target),))
        self._people.events.append(
            Event("revoke", "", "", began, time.monotonic(), outcome, number, id, names)
        )


async def signing_in(
    who: str,
    workers: Sequence[Asked],
    people: People,
    provider: LyingProvider,
    revoking: Revoking,
    rng: Random,
    over: asyncio.Event,
) -> None:
    """People who walk through the sign-in; half of them are revoked on the way, and must not arrive."""
    number = 0
    while not over.is_set():
        await asyncio.sleep(THINK)
        number += 1
        subject = f"{who}.{number}"
        first, second = (Connection(rng.choice(workers).port) for _ in range(2))
        try:
            # What it counts from is read in this call at the latest: whatever is revoked later meets it.
            back = await begin_sign_in(first, provider)
            began = time.monotonic()
            if back is None:
                continue
            if number % 2:
                await revoking.revoke(Target(TargetKind.USER, subject, provider.issuer))
            cookie = await end_sign_in(second, provider, subject, back)
            member = None if cookie is None else await people.found(cookie)
            if member is not None:
                people.note(member, began)
                people.hot.append(member)
                people.gone.append(member)
                if not number % 2:
                    people.alive.append([member])
        except (*_GONE, WorldError):
            pass
        finally:
            first.close()
            second.close()
