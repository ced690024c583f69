"""How much goes through: ztproxy beside its peers, shape by shape, each with a core to itself.

Knows: the shapes, and when a round counts. Promises: one proxy runs at a time, and whose turn it is not is
stopped, for even an idle one (ztproxy renews its lease ten times a second) takes something from the others;
nobody is always the first; and a round counts only if the proxy answers rightly right before and right after
it, octet by octet as the app does, all through it by status and size, and if ztproxy told the app who asks
and wrote a line for each request in both of its logs. Otherwise ztproxy's failure raises `CannotMeasure`, and
another's is named, and leaves it without a figure in that shape: the figures of a proxy that answers with
errors are no figures. Leaves printing and drawing to others.

TLS is loaded by wrk as well. h2load needs half as much CPU again for each request, on the core that the app
shares, and a faster proxy would have been held back by it; it is the second opinion in the warm-up, where it
is installed, as it says itself which statuses came.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import NamedTuple

from bench import load, machine, subject
from bench.figures import SUBJECT, Aim, Shape, Speed, ratios, rounds
from bench.load import Answer, Load
from bench.peers import Peer, Upstream, apache_oidc, envoy, nginx
from bench.place import Place

MIB = 1 << 20
FULL = 0.95
"""A proxy that used less of its core than this was not the bound of its own rate."""

_PATIENCE = 10.0
_ASSERTION = "x-ztproxy-assertion"

Contender = ModuleType | subject.Ours
"""A module of `bench.peers`, or ztproxy: `NAME`, `missing()` and `running(place, upstream)`."""


class Kind(NamedTuple):
    """A shape of load. Aims hang on the `main` ones, which get more time."""

    what: str
    connections: int
    unit: str = "requests/s"
    path: str = "/"
    upload: int = 0
    tls: bool = False
    sockets: bool = False
    main: bool = False
    opening: int = 0
    """Seconds more for each round, as opening that many connections takes part of the first."""


KINDS: Mapping[str, Kind] = {
    "small": Kind("small GET, 64 connections", 64, main=True),
    "small_1": Kind("small GET, 1 connection", 1),
    "small_512": Kind("small GET, 512 connections", 512, opening=1),
    "100k": Kind("100 KiB responses, 64 connections", 64, path="/100k"),
    "10m": Kind("10 MiB responses, 8 connections", 8, "MiB/s", path="/10m", main=True),
    "upload": Kind("1 MiB uploads, 16 connections", 16, "MiB/s", path="/upload", upload=MIB),
    "tls": Kind("small GET over TLS, 64 connections", 64, tls=True, main=True),
    "websocket": Kind("WebSocket messages, 64 sockets", 64, "messages/s", path="/ws", sockets=True),
}


@dataclass(frozen=True, slots=True)
class Effort:
    """Rounds and seconds a round: of the first shape, of the main ones, of the others (0: left out)."""

    first: tuple[int, int] = (5, 2)
    main: tuple[int, int] = (3, 2)
    other: tuple[int, int] = (3, 1)


QUICK = Effort((1, 1), (1, 1), (0, 1))


async def measure(
    place: Place,
    effort: Effort,
    upstream: Upstream,
    contenders: Sequence[Contender],
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Shape], dict[str, str]]:
    """The shapes, with their ratios; and who is not among the proxies, by name, with what it lacks, or by
    name and shape, with what went wrong there. This process should be pinned to the load core, as
    `place.place` does."""
    skipped: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        running: list[Peer] = []
        only: dict[str, frozenset[str]] = {}
        for one in contenders:
            if lacks := one.missing():
                skipped[one.NAME] = lacks
                say(f"  without {one.NAME}: {lacks}")
                continue
            try:
                running.append(await stack.enter_async_context(one.running(place, upstream)))
            except machine.CannotMeasure as error:
                if isinstance(one, subject.Ours):
                    raise
                skipped[one.NAME] = f"it does not start: {error}"
                say(f"  without {one.NAME}: {skipped[one.NAME]}")
                continue
            only[one.NAME] = getattr(one, "only", frozenset())
        for peer in running:
            stack.callback(_let, peer, signal.SIGCONT)  # who is stopped would not hear that it is to end
            _let(peer, signal.SIGSTOP)
        shapes: dict[str, Shape] = {}
        for number, (name, kind) in enumerate(KINDS.items()):
            times, seconds = effort.first if not number else effort.main if kind.main else effort.other
            peers = [
                peer
                for peer in running
                if (peer.tls or not kind.tls) and (not only[peer.name] or name in only[peer.name])
            ]
            if times:
                measuring = _Measuring(place, upstream, kind, peers, say)
                shapes[name] = await measuring.shape(times, seconds)
                skipped |= {f"{other}, {kind.what}": why for other, why in measuring.void.items()}
    compare(shapes)
    return shapes, skipped


def compare(shapes: Mapping[str, Shape]) -> None:
    """Fills in the ratios of ztproxy to each other, round by round."""
    for shape in shapes.values():
        ours = shape["proxies"].get(SUBJECT)
        shape["ratios"] = (
            {}
            if ours is None
            else {
                name: ratios(ours["rate"]["rounds"], other["rate"]["rounds"])
                for name, other in shape["proxies"].items()
                if name != SUBJECT
            }
        )


_AIMS = (
    ("small GET, 64 connections, to nginx bare", "small", nginx.NAME, 0.45),
    ("small GET, 64 connections, to Envoy bare", "small", envoy.NAME, 1.3),
    ("small GET, 64 connections, to mod_auth_openidc with Redis", "small", apache_oidc.NAME, 10.0),
    ("10 MiB responses, bytes/s, to nginx bare", "10m", nginx.NAME, 0.8),
    ("TLS, requests/s, to nginx TLS", "tls", nginx.NAME, 0.35),
)


def aims(shapes: Mapping[str, Shape], skipped: Mapping[str, str] | None = None) -> list[Aim]:
    """What the issue wants of throughput on one core; `skipped` as `measure` gives it."""
    return [_aim(*row, shapes, skipped or {}) for row in _AIMS]


def _aim(
    what: str, key: str, other: str, aim: float, shapes: Mapping[str, Shape], skipped: Mapping[str, str]
) -> Aim:
    shape = shapes.get(key)
    ratio = shape["ratios"].get(other) if shape is not None else None
    if shape is None or ratio is None:
        why = skipped.get(other) or skipped.get(f"{other}, {KINDS[key].what}", "not measured")
        return Aim(what, None, aim, most=False, why=why)
    ours, theirs = shape["proxies"][SUBJECT], shape["proxies"][other]
    doubts = []
    if theirs["busy"] < FULL:
        by_cpu = theirs["cpu_us"]["median"] / ours["cpu_us"]["median"]
        doubts.append(
            f"{other} used {theirs['busy']:.0%} of its core, so something else held it back (client, app, "
            f"another program); by CPU time alone the ratio is {by_cpu:.2f}"
        )
    if ours["busy"] < FULL:
        doubts.append(f"ztproxy used {ours['busy']:.0%} of its core, so something else held it back")
    return Aim(what, ratio["median"], aim, most=False, why="; ".join(doubts))


@dataclass(slots=True)
class _Taken:
    """Of one proxy, by round."""

    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def speed(self) -> Speed:
        return {
            "rate": rounds(self.rates),
            "cpu_us": rounds(self.costs),
            "busy": round(min(1.0, median(self.busy)), 3),
        }


class _Measuring:
    """One shape, of all who take part in it. `void`: who failed in it, and how."""

    def __init__(
        self, place: Place, upstream: Upstream, kind: Kind, peers: Sequence[Peer], say: Callable[[str], None]
    ) -> None:
        self._place, self._kind, self._peers, self._say = place, kind, peers, say
        self._body = bytes(kind.upload) if kind.upload else None
        path = "/" if kind.sockets else kind.path
        self._path = path
        self.void: dict[str, str] = {}
        self._right = load.ask(upstream.port, path, {}, upload=self._body)

    async def shape(self, times: int, seconds: int) -> Shape:
        taken = {peer.name: _Taken() for peer in self._peers}
        for peer in self._peers:
            await self._turn(peer, 1 + self._kind.opening, None)
        for number in range(times):
            first = number % len(self._peers)
            for peer in (*self._peers[first:], *self._peers[:first]):
                await self._turn(peer, seconds + self._kind.opening, taken[peer.name])
            well = {name: one for name, one in taken.items() if name not in self.void}
            rates = ", ".join(f"{name} {one.rates[-1]:,.0f}" for name, one in well.items())
            self._say(f"  {self._kind.what}, round {number + 1} of {times}: {rates} {self._kind.unit}")
        return {
            "what": self._kind.what,
            "unit": self._kind.unit,
            "connections": self._kind.connections,
            "proxies": {name: one.speed() for name, one in taken.items() if name not in self.void},
            "ratios": {},
        }

    async def _turn(self, peer: Peer, seconds: int, taken: _Taken | None) -> None:
        """One round of one proxy; without `taken` it warms up, and every answer is looked at. Raises
        `CannotMeasure` where ztproxy fails; another that does has no more turns in this shape."""
        if peer.name in self.void:
            return
        try:
            _signal(peer, signal.SIGCONT)
            try:
                # In a thread, for the providers that some have are in this process and have to answer.
                await asyncio.to_thread(self._round, peer, seconds, taken)
            finally:
                _let(peer, signal.SIGSTOP)
        except machine.CannotMeasure as error:
            if peer.name.startswith(SUBJECT):
                raise machine.CannotMeasure(f"{peer.name}, {self._kind.what}: {error}") from error
            self.void[peer.name] = str(error)
            self._say(f"  without {peer.name}, {self._kind.what}: {error}")

    def _round(self, peer: Peer, seconds: int, taken: _Taken | None) -> None:
        # Twice: the first answer for a while may weigh more, by a cookie that says the session lives on.
        right = min(self._rightly(peer, _PATIENCE), self._rightly(peer), key=lambda answer: answer.weight)
        self._told(peer)
        logs = peer.logs if isinstance(peer, subject.Running) else ()
        for log in logs:
            os.truncate(log, 0)  # and disks stay out of it
        before = load.cpu_seconds(peer.pids)
        seen = self._load(peer, seconds, right, exact=taken is None)
        for log in logs:
            grown(log, self._kind.connections if self._kind.sockets else seen.requests)
        spent = load.cpu_seconds(peer.pids) - before  # with the writing of the last lines
        self._rightly(peer)
        self._told(peer)
        if taken is not None:
            work = self._work(seen)
            taken.rates.append(work / seen.seconds)
            taken.costs.append(spent / work * 1e6)
            taken.busy.append(spent / seen.seconds)

    def _load(self, peer: Peer, seconds: int, right: Answer, *, exact: bool) -> Load:
        kind, core = self._kind, self._place.load_core
        port, headers = _way(peer, kind)
        if kind.sockets:
            return load.messages(core, port, kind.path, headers, seconds=seconds, sockets=kind.connections)
        if kind.tls and exact and shutil.which("h2load"):
            load.h2load(
                core, port, kind.path, headers, requests=1000, connections=kind.connections, right=right
            )
        return load.wrk(
            core,
            port,
            kind.path,
            headers,
            self._place.folder,
            seconds=seconds,
            connections=kind.connections,
            right=right,
            upload=kind.upload,
            tls=kind.tls,
            exact=exact,
        )

    def _work(self, seen: Load) -> float:
        """In what the unit counts."""
        if self._kind.unit != "MiB/s":
            return seen.requests
        return (seen.requests * self._kind.upload if self._kind.upload else seen.bytes) / MIB

    def _rightly(self, peer: Peer, patience: float = 0.0) -> Answer:
        """The answer, octet for octet what the app answers. `patience`: seconds for a proxy that has just
        been woken, for without a lease ztproxy lets nobody in (503)."""
        port, headers = _way(peer, self._kind)
        end = time.monotonic() + patience
        while True:
            answer = load.ask(port, self._path, headers, upload=self._body, tls=self._kind.tls)
            if answer[:2] == self._right[:2]:
                return answer
            if answer.status != 503 or time.monotonic() > end:
                raise machine.CannotMeasure(
                    f"`{self._path}` is answered with {answer.status} and {len(answer.body)} bytes instead "
                    f"of {self._right.status} and {len(self._right.body)}: {answer.body[:200]!r}"
                )
            time.sleep(0.05)

    def _told(self, peer: Peer) -> None:
        """Whether the app hears who asks."""
        if not peer.asserts:
            return
        port, headers = _way(peer, self._kind)
        fields = json.loads(load.ask(port, "/head", headers, tls=self._kind.tls).body)
        if not fields.get(_ASSERTION):
            raise machine.CannotMeasure("the app is not told who asks")
        if isinstance(peer, subject.Running):
            peer.verify(fields, tls=self._kind.tls)


def _way(peer: Peer, kind: Kind) -> tuple[int, Mapping[str, str]]:
    return (peer.tls, peer.tls_headers) if kind.tls else (peer.port, peer.headers)


def _signal(peer: Peer, what: signal.Signals) -> None:
    """To all of its processes. Raises `CannotMeasure` if one has ended, after the others have had it."""
    ended = []
    for pid in peer.pids:
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            ended.append(pid)
    if ended:
        raise machine.CannotMeasure(f"its process {ended[0]} has ended")


def _let(peer: Peer, what: signal.Signals) -> None:
    """The same for whoever is there still: who has ended is told of at its next turn."""
    with suppress(machine.CannotMeasure):
        _signal(peer, what)


def grown(log: Path, lines: int, patience: float = _PATIENCE) -> None:
    """Waits until the file has so many: ztproxy writes what it gathers five times a second. Raises
    `CannotMeasure`."""
    end, found = time.monotonic() + patience, 0
    with log.open("rb") as file:
        while True:
            while chunk := file.read(MIB):
                found += chunk.count(b"\n")
            if found >= lines:
                return
            if time.monotonic() > end:
                raise machine.CannotMeasure(f"{log.name} has {found:,} lines for {lines:,} requests")
            time.sleep(0.02)
