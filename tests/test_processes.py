"""A real supervisor over small real workers: they crash, hang, drain, reload and lose their supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ztproxy.errors import OperatorError
from ztproxy.processes import Link, Supervisor

# `worker.py MODE EVENTS`: beats, and writes a line `EVENT PID` for all that happens to it.
WORKER = """
import asyncio, os, signal, sys
from ztproxy.processes import Link

mode, path = sys.argv[1:]

def note(event):
    with open(path, "a") as events:
        events.write(f"{event} {os.getpid()}\\n")

async def main():
    note("started")
    if mode == "crash":
        sys.exit(3)
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    link = Link.from_environment()
    assert link is not None and "ZTPROXY_LINK" not in os.environ
    link.watch_parent(lambda: (note("gone"), over.set()))
    if mode == "late":
        await asyncio.sleep(0.3)  # no handler stands yet
    loop.add_signal_handler(signal.SIGTERM, lambda: note("told") if mode == "stubborn" else over.set())
    loop.add_signal_handler(signal.SIGINT, lambda: note("interrupted"))
    loop.add_signal_handler(signal.SIGHUP, lambda: note("reload"))
    loop.add_signal_handler(signal.SIGUSR1, lambda: note("reopen"))
    if mode == "nonsense":
        link._socket.send(b'{"ready": \\n')
    while not over.is_set():
        if mode not in ("silent", "nonsense"):
            why = "state is away" if mode == "unready" else ""
            link.beat(mode != "unready", why, connections=7, promise="strict" if mode == "promising" else "")
        try:
            await asyncio.wait_for(over.wait(), 0.02)
        except TimeoutError:
            pass
    if mode == "slow":
        await asyncio.sleep(0.3)
    note("drained")

asyncio.run(main())
"""

# `supervisor.py WORKER MODE EVENTS`: the same from outside, for signals.
SUPERVISOR = """
import asyncio, sys
from ztproxy.processes import Supervisor

async def main():
    await Supervisor(lambda index: [sys.executable, *sys.argv[1:]], 2, drain=30.0).run()

asyncio.run(main())
"""


class World:
    def __init__(self, folder: Path) -> None:
        self.worker, self.supervisor = folder / "worker.py", folder / "supervisor.py"
        self.events = folder / "events"
        self.worker.write_text(WORKER)
        self.supervisor.write_text(SUPERVISOR)
        self.events.touch()

    def argv(self, *modes: str) -> Callable[[int], list[str]]:
        return lambda index: [sys.executable, str(self.worker), modes[index], str(self.events)]

    def pids(self, event: str) -> list[int]:
        """The processes the event happened to, in order."""
        lines = [line.split() for line in self.events.read_text().splitlines()]
        return [int(pid) for name, pid in lines if name == event]

    @asynccontextmanager
    async def running(self, supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
        """Runs it, and on leaving tells it to stop at once."""
        async with asyncio.timeout(40):
            task = asyncio.create_task(supervisor.run())
            try:
                yield task
            finally:
                supervisor.stop()
                supervisor.stop()
                await task
        assert all(not alive(pid) for pid in self.pids("started"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def alive(pid: int) -> bool:
    """False for a zombie too: what nobody reaps in a container has still ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  # another process makes it true, there is no event to await
        await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_workers_run_say_how_they_are_and_drain(world: World) -> None:
    ended: list[int] = []
    supervisor = Supervisor(world.argv("steady", "steady"), 2, ended=ended.append)
    assert supervisor.status() == (False, {"worker 0": "not running", "worker 1": "not running"}, 0)
    async with world.running(supervisor) as task:
        await until(lambda: list(supervisor.status().checks.values()) == ["ready", "ready"])
        assert supervisor.status().ready
        assert supervisor.status().connections == 14
        supervisor.stop()
        assert not supervisor.status().ready
        await task
    assert sorted(world.pids("drained")) == sorted(world.pids("started"))
    assert sorted(ended) == [0, 1]
    assert not world.pids("gone")


@pytest.mark.parametrize(
    ("mode", "condition"),
    [
        pytest.param("unready", "state is away", id="says why it is not ready"),
        pytest.param("silent", "starting", id="has not said anything yet"),
    ],
)
async def test_a_node_is_ready_while_one_worker_is(world: World, mode: str, condition: str) -> None:
    supervisor = Supervisor(world.argv(mode, "steady"), 2)
    async with world.running(supervisor):
        await until(lambda: supervisor.status().checks == {"worker 0": condition, "worker 1": "ready"})
        assert supervisor.status().ready
    alone = Supervisor(world.argv(mode), 1)
    async with world.running(alone):
        await until(lambda: alone.status().checks == {"worker 0": condition})
        assert not alone.status().ready


async def test_what_runs_beside_is_kept_and_does_not_count(world: World) -> None:
    beside = {"helper": world.argv("steady")(0)}
    supervisor = Supervisor(world.argv("promising"), 1, beside=beside)
    async with world.running(supervisor):
        await until(lambda: supervisor.status().ready)
        await until(lambda: supervisor.status().checks.get("helper") == "ready")
        status = supervisor.status()
        assert status.checks == {"worker 0": "ready", "helper": "ready", "revocation": "strict"}
        assert status.connections == 7  # those of the worker
        os.kill(world.pids("started")[-1], signal.SIGKILL)
        await until(lambda: len(world.pids("started")) == 3)
        await until(lambda: len(supervisor.status().checks) == 3)
        supervisor.reload()
        await until(lambda: len(world.pids("reload")) == 2)
    alone = Supervisor(world.argv("unready"), 1, beside=beside)
    async with world.running(alone):
        await until(lambda: alone.status().checks.get("helper") == "ready")
        assert not alone.status().ready


async def test_a_worker_that_falls_silent_is_not_ready(world: World) -> None:
    supervisor = Supervisor(world.argv("steady"), 1, silence=0.5)
    async with world.running(supervisor):
        await until(lambda: supervisor.status().ready)
        os.kill(world.pids("started")[0], signal.SIGSTOP)
        await until(lambda: supervisor.status().checks == {"worker 0": "no sign of life"})
        assert not supervisor.status().ready
        os.kill(world.pids("started")[0], signal.SIGCONT)
        await until(lambda: supervisor.status().ready)
        assert len(world.pids("started")) == 1


async def test_a_killed_worker_is_replaced_and_the_other_not_touched(world: World) -> None:
    supervisor = Supervisor(world.argv("steady", "steady"), 2)
    async with world.running(supervisor):
        await until(lambda: len(world.pids("started")) == 2 and supervisor.status().ready)
        victim, other = world.pids("started")
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(world.pids("started")) == 3)
        await until(lambda: list(supervisor.status().checks.values()) == ["ready", "ready"])
        assert alive(other)


async def test_a_crash_loop_is_slowed_down(world: World, caplog: pytest.LogCaptureFixture) -> None:
    pauses: list[float] = []

    def argv(index: int) -> list[str]:
        pauses.append(supervisor._places[index].pause)
        return world.argv("crash")(index)

    supervisor = Supervisor(argv, 1)
    async with world.running(supervisor):
        await until(lambda: len(pauses) == 4)
        assert not supervisor.status().ready
    assert pauses == sorted(set(pauses))
    assert "ended with 3" in caplog.text


async def test_a_worker_that_cannot_be_started(world: World, caplog: pytest.LogCaptureFixture) -> None:
    programs = iter(["/nonexistent/python", *[sys.executable] * 9])
    supervisor = Supervisor(lambda index: [next(programs), str(world.worker), "steady", str(world.events)], 1)
    async with world.running(supervisor):
        await until(lambda: supervisor.status().ready)
    assert "worker 0 cannot be started" in caplog.text


async def test_a_worker_that_writes_nonsense_is_started_anew(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor(world.argv("nonsense"), 1)
    async with world.running(supervisor):
        await until(lambda: len(world.pids("started")) >= 2)
        assert world.pids("gone")[0] == world.pids("started")[0]
    assert "cannot be understood" in caplog.text


async def test_a_slow_drain_is_waited_for(world: World) -> None:
    supervisor = Supervisor(world.argv("slow"), 1, drain=30.0)
    async with world.running(supervisor) as task:
        await until(lambda: supervisor.status().ready)
        supervisor.stop()
        await task
        assert world.pids("drained") == world.pids("started")


@pytest.mark.parametrize("hurried", [False, True], ids=["the time to drain is over", "told a second time"])
async def test_a_worker_that_does_not_end_is_killed(world: World, hurried: bool) -> None:
    supervisor = Supervisor(world.argv("stubborn"), 1, drain=3600.0 if hurried else 0.3)
    async with world.running(supervisor) as task:
        await until(lambda: supervisor.status().ready)
        supervisor.stop()
        await until(lambda: world.pids("told"))
        if hurried:
            supervisor.stop()
        await task
        assert not world.pids("drained")


async def test_stopping_while_workers_start(world: World) -> None:
    supervisor = Supervisor(world.argv("stubborn", "steady"), 2, drain=1.0)
    async with world.running(supervisor) as task:
        await asyncio.sleep(0)  # the tasks have begun, no process is known yet
        supervisor.stop()
        await task
        assert not supervisor.status().ready


class Configuration:
    """A file being edited: `text` is on disk, `seen` is what `changed` saw last."""

    def __init__(self) -> None:
        self.text = self.seen = "good"

    def changed(self) -> bool:
        changed, self.seen = self.text != self.seen, self.text
        return changed

    def check(self) -> None:
        if "bad" in self.text:
            raise OperatorError(f"`{self.text}` is not a configuration", "write `good`")
        if "strange" in self.text:
            raise ZeroDivisionError


async def test_reloads_good_and_bad(world: World, caplog: pytest.LogCaptureFixture) -> None:
    file, outcomes = Configuration(), list[bool]()
    supervisor = Supervisor(
        world.argv("steady", "steady"),
        2,
        check=file.check,
        changed=file.changed,
        reloaded=outcomes.append,
        poll=0.05,
    )
    caplog.set_level(logging.INFO)
    async with world.running(supervisor):
        await until(lambda: list(supervisor.status().checks.values()) == ["ready", "ready"])
        for refused in ("bad", "strange"):
            file.text = refused
            await until(lambda: outcomes and not outcomes[-1])
            outcomes.clear()
            supervisor.reload()
            await until(lambda: outcomes == [False])
            outcomes.clear()
        assert not world.pids("reload")
        assert "`bad` is not a configuration, write `good`" in caplog.text
        file.text = "better"
        await until(lambda: len(world.pids("reload")) == 2)
        supervisor.reload()
        await until(lambda: len(world.pids("reload")) == 4)
        assert outcomes == [True, True]
        assert len(world.pids("started")) == 2


async def test_a_worker_not_yet_listening_hears_of_the_reload_later(world: World) -> None:
    supervisor = Supervisor(world.argv("late"), 1)
    async with world.running(supervisor):
        await until(lambda: world.pids("started"))
        supervisor.reload()
        await until(lambda: world.pids("reload"))
        assert world.pids("reload") == world.pids("started")


# From outside


@pytest.fixture
def outside(world: World) -> subprocess.Popen[bytes]:
    """A supervisor of two steady workers, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(world.supervisor), str(world.worker), "steady", str(world.events)],
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(world.pids("started")) == 2)
    # Both have handlers once both have noted a signal that ends nobody.
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: len(world.pids("reopen")) == 2)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(world: World, outside: subprocess.Popen[bytes], number: signal.Signals) -> None:
    outside.send_signal(number)
    assert outside.wait(30) == 0
    assert sorted(world.pids("drained")) == sorted(world.pids("started"))
    assert not world.pids("interrupted"), "a Ctrl-C is for the supervisor"


def test_a_hang_up_reloads(world: World, outside: subprocess.Popen[bytes]) -> None:
    outside.send_signal(signal.SIGHUP)
    wait_until(lambda: len(world.pids("reload")) == 2)
    outside.send_signal(signal.SIGTERM)
    assert outside.wait(30) == 0


def test_no_worker_outlives_a_killed_supervisor(world: World, outside: subprocess.Popen[bytes]) -> None:
    outside.kill()
    outside.wait()
    wait_until(lambda: not any(alive(pid) for pid in world.pids("started")))
    assert sorted(world.pids("gone")) == sorted(world.pids("started"))


def test_a_worker_run_by_hand_has_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZTPROXY_LINK", raising=False)
    assert Link.from_environment() is None


async def test_a_link_that_ends_is_heard_once_and_then_takes_beats_without_harm() -> None:
    ours, theirs = socket.socketpair()
    link, heard = Link(theirs.detach()), list[str]()
    link.watch_parent(lambda: heard.append("gone"))
    ours.send(b"unexpected")
    await asyncio.sleep(0.02)
    assert heard == []
    ours.close()
    await until(lambda: heard)
    link.beat(True)
    await asyncio.sleep(0.02)
    assert heard == ["gone"]


async def test_a_supervisor_that_does_not_read_does_not_hold_up_a_worker() -> None:
    ours, theirs = socket.socketpair()
    link = Link(theirs.detach())
    for _ in range(20_000):
        link.beat(True, "x" * 1000, 1)
    first = ours.recv(600)
    assert first.startswith(b'{"ready": true, "why": "xxx')
    assert len(first.splitlines()[0]) < 600
    ours.close()
