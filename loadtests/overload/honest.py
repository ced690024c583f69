"""Honest traffic: people who are signed in and go on with their work, whatever else happens.

Knows: requests at a constant rate over connections that stay, WebSockets whose messages come back, downloads
that go on. Promises: requests leave when they are due, whether or not those before were answered, and are
timed from the moment they leave; anything but the right answer is counted by what it was. Leaves to its owner
which phase it is: what happens is noted under the one in which it began. Times are milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from bench.revocation_clients import get
from loadtests.overload.speaking import Speaker, upgrade

RATE = 150.0
"""Requests a second: modest, so that one core has room for them and an attack."""

SOCKETS = 6
DOWNLOADS = 2
PATIENCE = 10.0
_MOST = 64
_TOLD = 8
"""Of the slowest answers so many are told, with the second they began in."""

_SAY_EVERY = 0.5
_A_STALL = 2.0
"""Seconds without a piece of a stream that has one each 0.1 s: it no longer goes on."""


@dataclass(slots=True)
class Phase:
    """What honest people met: `answers` and `echoes` in milliseconds, `wrong` by what it was. `begun`: when
    each of the answered requests left, in seconds of the phase. `held_up`: by how many milliseconds this
    process itself was late at the worst moment: whoever waited then did not wait for ztproxy alone."""

    since: float = field(default_factory=perf_counter)
    answers: list[float] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    echoes: list[float] = field(default_factory=list)
    pieces: int = 0
    held_up: float = 0.0
    wrong: Counter[str] = field(default_factory=Counter)

    def as_data(self) -> dict[str, Any]:
        return {
            "requests": len(self.answers),
            "p50": quantile(self.answers, 0.5),
            "p99": quantile(self.answers, 0.99),
            "max": quantile(self.answers, 1.0),
            "slowest": sorted(
                ((round(ms, 1), round(at, 2)) for ms, at in zip(self.answers, self.begun, strict=True)),
                reverse=True,
            )[:_TOLD],
            "echo_p99": quantile(self.echoes, 0.99),
            "pieces": self.pieces,
            "held_up": round(self.held_up, 1),
            "wrong": dict(self.wrong),
        }


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above; 0 of none."""
    if not values:
        return 0.0
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 2)


class Honest:
    """Everybody who is honest. `enter` begins a phase, by name."""

    def __init__(
        self,
        port: int,
        cookies: Sequence[str],
        *,
        rate: float = RATE,
        tls: ssl.SSLContext | None = None,
        streams: bool = True,
    ) -> None:
        self._port, self._cookies, self._rate, self._tls = port, cookies, rate, tls
        self._idle: list[Speaker] = []
        self._busy = 0
        self._over = asyncio.Event()
        self._streams = streams
        self._begun: list[Speaker] = []
        self.phases: dict[str, Phase] = {}
        self._now = Phase()

    def enter(self, name: str) -> None:
        self._now = self.phases.setdefault(name, Phase())

    async def run(self) -> None:
        """Until `stop`."""
        began, sent = perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            if self._streams:
                for number in range(SOCKETS):
                    group.create_task(self._talk(self._cookies[number % len(self._cookies)]))
                for number in range(DOWNLOADS):
                    group.create_task(self._download(self._cookies[number % len(self._cookies)]))
            while not self._over.is_set():
                due = int((perf_counter() - began) * self._rate)
                for number in range(sent, due):
                    group.create_task(self._ask(self._cookies[number % len(self._cookies)]))
                sent, asleep = max(sent, due), perf_counter()
                await asyncio.sleep(1 / self._rate)
                late = 1000 * (perf_counter() - asleep - 1 / self._rate)
                self._now.held_up = max(self._now.held_up, late)
            for one in self._begun:
                one.close()
        for one in self._idle:
            one.close()

    def stop(self) -> None:
        self._over.set()

    async def _ask(self, cookie: str) -> None:
        phase = self._now
        if self._busy >= _MOST:
            phase.wrong["nobody left to ask"] += 1
            return
        self._busy += 1
        one = self._idle.pop() if self._idle else Speaker(self._port, tls=self._tls)
        began = perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await one.ask(get(cookie))
        except TimeoutError:
            phase.wrong["no answer in time"] += 1
            one.close()
            return
        except OSError as error:
            phase.wrong[type(error).__name__] += 1
            one.close()
            return
        finally:
            self._busy -= 1
        if answer.status == 200 and answer.body == b"ok":
            phase.answers.append(1000 * (answer.at - began))
            phase.begun.append(began - phase.since)
        else:
            phase.wrong[f"{answer.status} {answer.body[:60].decode('latin-1').strip()}"] += 1
        if one.open:
            self._idle.append(one)

    async def _talk(self, cookie: str) -> None:
        """A WebSocket: says something, and it comes back. One that is lost is opened again."""
        while not self._over.is_set():
            one = Speaker(self._port, tls=self._tls)
            self._begun.append(one)
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = await one.ask(upgrade(cookie))
                if answer.status != 101:
                    self._now.wrong[f"WebSocket {answer.status}"] += 1
                    await self._pause()
                    continue
                while not self._over.is_set():
                    phase, began = self._now, perf_counter()
                    async with asyncio.timeout(PATIENCE):
                        one.write(b"\x82\x84\0\0\0\0ping")
                        await one.more()
                    phase.echoes.append(1000 * (perf_counter() - began))
                    await self._pause()
            except (OSError, TimeoutError) as error:
                if not self._over.is_set():
                    self._now.wrong[f"WebSocket {type(error).__name__}"] += 1
                    await self._pause()
            finally:
                self._begun.remove(one)
                one.close()

    async def _download(self, cookie: str) -> None:
        while not self._over.is_set():
            one = Speaker(self._port, tls=self._tls)
            self._begun.append(one)
            try:
                one.streams = True
                async with asyncio.timeout(PATIENCE):
                    answer = await one.ask(get(cookie, "/stream"))
                if answer.status != 200:
                    self._now.wrong[f"download {answer.status}"] += 1
                    await self._pause()
                    continue
                while not self._over.is_set():
                    async with asyncio.timeout(_A_STALL):
                        await one.more()
                    self._now.pieces += 1
            except (OSError, TimeoutError) as error:
                if not self._over.is_set():
                    self._now.wrong[f"download {type(error).__name__}"] += 1
                    await self._pause()
            finally:
                self._begun.remove(one)
                one.close()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), _SAY_EVERY)


@contextlib.asynccontextmanager
async def beside(honest: Honest) -> AsyncIterator[Honest]:
    """The block, with them at work."""
    running = asyncio.create_task(honest.run())
    try:
        yield honest
    finally:
        honest.stop()
        await running
