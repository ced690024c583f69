"""Workers as processes: a supervisor that keeps them running, reloads and ends them; and the link to it.

Knows: starting, watching and ending processes; nothing of proxying, configuration or TLS. Promises: a worker
that ends is started again with a growing pause; the end of the supervisor, however it comes, reaches each
worker as the end of its link; a reload that the check refuses changes nothing. Leaves to its caller: what a
worker runs, what the check checks, and what a worker does when told to reload, drain or that its supervisor
is gone.

The link is a socket pair for each worker, inherited as the descriptor that `ZTPROXY_LINK` names. The worker
writes a line of JSON each second, `{"ready": bool, "why": str, "connections": int, "promise": str}`; the
supervisor writes nothing. Only the supervisor holds the other end, so the kernel closes the link when it dies
(fault FI50).

Signals: TERM and INT drain (a second one ends at once), HUP reloads, USR1 is passed on (logs are reopened).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ztproxy.errors import OperatorError

LINK = "ZTPROXY_LINK"
WORKER = "ZTPROXY_WORKER"

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
STEADY = 30.0  # a worker that lived this long starts again without delay

_log = logging.getLogger("ztproxy.processes")


class Beat(NamedTuple):
    """What a worker says of itself; `why` is empty when it is ready. `promise` is what a revocation is
    worth."""

    ready: bool
    why: str
    connections: int
    promise: str = ""


class Status(NamedTuple):
    """Whether this node should get traffic, and for each worker why it does or does not."""

    ready: bool
    checks: dict[str, str]
    connections: int


@dataclass(slots=True)
class _Worker:
    """One place for a worker; processes come and go in it."""

    index: int
    name: str
    process: asyncio.subprocess.Process | None = None
    beat: Beat | None = None
    heard: float = 0.0
    owed: set[signal.Signals] = field(default_factory=set)
    pause: float = FIRST_PAUSE

    def condition(self, now: float, silence: float) -> str:
        if self.process is None:
            return "not running"
        if self.beat is None:
            return "starting"
        if now - self.heard > silence:
            return "no sign of life"
        return "ready" if self.beat.ready else self.beat.why or "not ready"


def _nothing() -> None:
    pass


def _never() -> bool:
    return False


@dataclass(slots=True)
class Supervisor:
    """Keeps `workers` processes running until told to stop.

    `beside` are further processes by name, kept running, reloaded and ended in the same way; whether this
    node should get traffic does not hang on them. `argv(index)` is asked at every start, so a worker that
    starts anew can be given the configuration accepted last and not a bad file that came after it. `check`
    raises `OperatorError` to refuse a reload; `changed` is polled every `poll` seconds; both run in a thread.
    `reloaded(accepted)` and `ended(index)` are for metrics. `drain` is how many seconds workers have to end
    by themselves; one that did not beat for `silence` seconds is not ready. `inherit` are descriptors passed
    to each.
    """

    argv: Callable[[int], Sequence[str]]
    workers: int
    check: Callable[[], None] = _nothing
    changed: Callable[[], bool] = _never
    reloaded: Callable[[bool], None] = lambda accepted: None
    ended: Callable[[int], None] = lambda index: None
    drain: float = 30.0
    poll: float = 1.0
    silence: float = 5.0
    inherit: Sequence[int] = ()
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _places: list[_Worker] = field(init=False)
    _stopping: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _asked: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._places = [_Worker(index, f"worker {index}") for index in range(self.workers)]
        self._places += [_Worker(self.workers + n, name) for n, name in enumerate(self.beside)]

    async def run(self) -> None:
        """Starts the workers and returns when all have ended after `stop` or a signal."""
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self.reload,
            signal.SIGUSR1: lambda: self._signal(signal.SIGUSR1),
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        beside = [asyncio.create_task(self._keep_reloading()), asyncio.create_task(self._end_in_time())]
        try:
            async with asyncio.TaskGroup() as group:
                for place in self._places:
                    group.create_task(self._keep(place))
        finally:
            for task in beside:
                task.cancel()
            for number in handlers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Tells the workers to drain; asked a second time, ends them at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def reload(self) -> None:
        """Asks for a check and, if it passes, for every worker to reload."""
        self._asked.set()

    def status(self) -> Status:
        """Ready while one worker is: one that is away does not listen, so it gets no connections."""
        now = time.monotonic()
        conditions = {place.name: place.condition(now, self.silence) for place in self._places}
        workers = self._places[: self.workers]
        some = any(conditions[place.name] == "ready" for place in workers)
        beats = [place.beat for place in workers if place.beat is not None]
        promises = sorted({beat.promise for beat in beats if beat.promise})
        if promises:
            conditions["revocation"] = "; ".join(promises)
        return Status(
            some and not self._stopping.is_set(), conditions, sum(beat.connections for beat in beats)
        )

    async def _keep(self, place: _Worker) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                await self._live(place)
            except OSError as error:
                _log.error("%s cannot be started: %s", place.name, error)
            if self._stopping.is_set():
                return
            if time.monotonic() - started >= STEADY:
                place.pause = FIRST_PAUSE
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), place.pause)
            place.pause = min(2 * place.pause, LONGEST_PAUSE)

    async def _live(self, place: _Worker) -> None:
        """The life of one process: start, beats, end."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(self.beside.get(place.name) or self.argv(place.index)),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), *self.inherit],
                    env={**os.environ, LINK: str(theirs.fileno()), WORKER: str(place.index)},
                    # A Ctrl-C at the terminal is for the supervisor, which tells the workers to drain.
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        listening = asyncio.create_task(self._listen(place, ours))
        try:
            place.process = process
            if self._stopping.is_set():  # said while this one was being started
                self._signal_one(place, signal.SIGKILL if self._hurry.is_set() else signal.SIGTERM)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            listening.cancel()
            place.process = place.beat = None
            place.owed.clear()
        self.ended(place.index)
        if not self._stopping.is_set():
            _log.error("%s (pid %d) ended with %d", place.name, process.pid, code)

    async def _listen(self, place: _Worker, link: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=link, limit=4096)
        try:
            while line := await reader.readline():
                said = json.loads(line)
                place.beat = Beat(
                    bool(said["ready"]),
                    str(said["why"]),
                    int(said["connections"]),
                    str(said.get("promise", "")),
                )
                place.heard = time.monotonic()
                while place.owed:
                    self._signal_one(place, place.owed.pop())
        except (OSError, ValueError, KeyError, TypeError) as error:
            # The link is closed, which the worker takes for our end: it drains and is started anew.
            _log.error("%s says what cannot be understood: %r", place.name, error)
        finally:
            writer.close()

    async def _keep_reloading(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self.poll)
            try:
                if not self._asked.is_set() and not await asyncio.to_thread(self.changed):
                    continue
                self._asked.clear()
                await asyncio.to_thread(self.check)
            except OperatorError as error:
                _log.error("not reloaded, the configuration before stays: %s", error)
                self.reloaded(False)
            except Exception:
                # INVARIANT: whatever the check runs into, the workers live on as they are.
                _log.exception("not reloaded, the check itself failed")
                self.reloaded(False)
            else:
                _log.info("reloading")
                self.reloaded(True)
                self._signal(signal.SIGHUP)

    async def _end_in_time(self) -> None:
        await self._stopping.wait()
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self.drain)
        self._hurry.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for place in self._places:
            self._signal_one(place, number)

    def _signal_one(self, place: _Worker, number: signal.Signals) -> None:
        if place.process is None:
            return
        if place.beat is None and number in (signal.SIGHUP, signal.SIGUSR1):
            # Before its first beat a worker may have no handler yet, and these signals would end it.
            place.owed.add(number)
            return
        with contextlib.suppress(ProcessLookupError):
            place.process.send_signal(number)


class Link:
    """The worker's end. `from_environment` gives None for a worker that somebody runs by hand."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        # INVARIANT: no child of the worker inherits the link: it would outlive the worker in it.
        self._socket.set_inheritable(False)

    @classmethod
    def from_environment(cls) -> Link | None:
        descriptor = os.environ.pop(LINK, None)
        return None if descriptor is None else cls(int(descriptor))

    def beat(self, ready: bool, why: str = "", connections: int = 0, promise: str = "") -> None:
        """To be called each second, and first when the signal handlers stand; never blocks. A beat that
        nobody takes is dropped."""
        said = {"ready": ready, "why": why[:500], "connections": connections, "promise": promise[:200]}
        line = json.dumps(said) + "\n"
        with contextlib.suppress(OSError):
            self._socket.send(line.encode())

    def watch_parent(self, on_gone: Callable[[], None]) -> None:
        """Calls `on_gone` once, from the running loop, when the supervisor is gone."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            try:
                if self._socket.recv(1024):
                    return  # nothing is expected; it is read so that the end behind it is seen
            except BlockingIOError:
                return
            except OSError:
                pass
            loop.remove_reader(self._socket)
            on_gone()

        loop.add_reader(self._socket, readable)
