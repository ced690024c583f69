"""One suite for `AuditSink` on every backend; then what only a file has: processes, crashes, full disks."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.worlds.memory_admin import MemoryAudit
from tests.worlds.memory_state import SetClock
from ztproxy.adapters.audit_log import AuditLog, last_known
from ztproxy.core.audit import (
    AuditEvent,
    Broken,
    ChainKeys,
    Kind,
    Link,
    Verified,
    Why,
    moment,
    read,
    verify_chain,
)
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.gateway.ports.administration import AuditSink

ROOT = Path(__file__).parent.parent.parent
OLD, NEW = (bytes([number]) * 32 for number in (1, 2))
NOW = 1_795_342_272.345


def event(number: int) -> AuditEvent:
    return AuditEvent("carol", "lock.create", "done", f"user {number}", f"req-{number}", {"matched": number})


class World(Protocol):
    sink: Any

    def written(self) -> list[tuple[str, bool]]:
        """The targets of the events, each with whether it was written late."""
        ...

    def fail(self) -> None: ...

    def mend(self) -> None: ...

    async def close(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.sink = MemoryAudit()

    def written(self) -> list[tuple[str, bool]]:
        return [(event.target, late) for event, late in self.sink.events]

    def fail(self) -> None:
        self.sink.full = True

    def mend(self) -> None:
        self.sink.full = False

    async def close(self) -> None:
        pass


class FileWorld:
    """The log, and a directory in its place where it is to fail: that stops even root."""

    def __init__(self, folder: Path, *keys: bytes) -> None:
        self.clock, self.keys = SetClock(NOW), keys or (OLD,)
        self.path, self.aside = folder / "audit.log", folder / "aside"
        self.last, self.late = folder / "audit.log.last", folder / "audit.log.late"
        self.logs: list[AuditLog] = []
        self.sink = self.another("node 1")

    def another(self, who: str, **options: Any) -> AuditLog:
        """The same file, as another process has it."""
        self.logs.append(AuditLog(self.path, self.keys, self.clock, who=who, **options))
        return self.logs[-1]

    def written(self) -> list[tuple[str, bool]]:
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else []
        fields = [record.fields for record in map(read, lines) if record and record.kind is Kind.EVENT]
        return [(one["target"], one.get("late", False)) for one in fields]

    def fail(self) -> None:
        if self.path.exists():
            self.path.rename(self.aside)
        self.path.mkdir()

    def mend(self) -> None:
        self.path.rmdir()
        if self.aside.exists():
            self.aside.rename(self.path)

    def verified(self, *files: Path) -> Verified:
        """Of these files, or else of the one there is."""
        link = None
        for file in files or (self.path,):
            found = verify_chain(file.read_bytes().splitlines(keepends=True), ChainKeys(self.keys), link)
            assert isinstance(found, Verified), (file, found)
            last, link = found, found.link
        return last

    async def close(self) -> None:
        for log in self.logs:
            await log.close()


@pytest.fixture(params=["memory", "file"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made: World = MemoryWorld() if request.param == "memory" else FileWorld(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[FileWorld]:
    made = FileWorld(tmp_path)
    yield made
    await made.close()


# ── the port ──


async def test_events_are_written_in_order(world: World) -> None:
    sink: AuditSink = world.sink
    for number in range(5):
        await sink.write(event(number))
    assert world.written() == [(f"user {number}", False) for number in range(5)]


async def test_what_cannot_be_written_is_refused(world: World) -> None:
    await world.sink.write(event(1))
    world.fail()
    with pytest.raises(WorldError) as refused:
        await world.sink.write(event(2))
    assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
    assert (world.sink.failures, world.sink.queued) == (1, 0)
    world.mend()
    assert world.written() == [("user 1", False)]
    await world.sink.write(event(3))
    assert world.written() == [("user 1", False), ("user 3", False)]


async def test_late_events_are_written_before_the_next_one(world: World) -> None:
    world.fail()
    await world.sink.write_late(event(1))
    await world.sink.write_late(event(2))
    assert world.sink.queued == 2
    with pytest.raises(WorldError):
        await world.sink.write(event(3))
    assert world.sink.queued == 2
    world.mend()
    await world.sink.write(event(4))
    assert world.written() == [("user 1", True), ("user 2", True), ("user 4", False)]
    assert world.sink.queued == 0


async def test_what_may_be_late_is_not_where_it_need_not(world: World) -> None:
    await world.sink.write_late(event(1))
    assert world.written() == [("user 1", False)]
    assert world.sink.queued == 0


async def test_a_late_event_is_written_once(world: World) -> None:
    world.fail()
    await world.sink.write_late(event(1))
    world.mend()
    assert await world.sink.flush()
    await world.sink.write_late(event(2))
    assert world.written() == [("user 1", True), ("user 2", False)]


# ── the file ──


async def test_the_file_is_private_and_whole(file: FileWorld) -> None:
    await file.sink.write(event(1))
    for path in (file.path, file.last):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = file.verified()
    assert (found.records, found.begins) == (2, Kind.START)
    assert last_known(file.path) == found.link
    assert json.loads(file.path.read_bytes().splitlines()[1])["by"] == "node 1"


async def test_a_process_is_named_after_its_host_and_number(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", [OLD], SetClock(NOW))
    await log.write(event(1))
    await log.close()
    assert f' {os.getpid()}",' in (tmp_path / "audit.log").read_text()


async def test_several_share_one_chain(file: FileWorld) -> None:
    other = file.another("node 2")
    for number in range(6):
        await (file.sink if number % 2 else other).write(event(number))
    assert file.verified().records == 7
    assert [target for target, _ in file.written()] == [f"user {number}" for number in range(6)]


async def test_a_restart_goes_on(file: FileWorld) -> None:
    await file.sink.write(event(1))
    await file.another("after the restart").write(event(2))
    assert file.verified().records == 3


async def test_a_rotation_of_keys_goes_on(file: FileWorld) -> None:
    await file.sink.write(event(1))
    file.sink.use_keys([NEW, OLD])
    await file.sink.write(event(2))
    file.keys = (NEW, OLD)
    assert file.verified().records == 3
    keys = [json.loads(line)["key"] for line in file.path.read_bytes().splitlines()]
    assert keys == [ChainKeys([OLD]).current] * 2 + [ChainKeys([NEW]).current]


async def test_a_file_moved_away_is_continued(file: FileWorld) -> None:
    moved = file.path.with_name("audit.log.1")
    await file.sink.write(event(1))
    await file.another("node 2").write(event(2))
    file.path.rename(moved)
    await file.sink.write(event(3))
    found = file.verified(moved, file.path)
    assert (found.begins, found.link.number) == (Kind.CONTINUE, 5)


async def test_an_empty_file_in_its_place_is_continued_even_after_a_restart(file: FileWorld) -> None:
    moved = file.path.with_name("audit.log.1")
    await file.sink.write(event(1))
    file.path.rename(moved)
    file.path.touch(0o640)
    await file.another("after the restart").write(event(2))
    assert file.verified(moved, file.path).link.number == 4
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640  # as the operator made it


async def test_where_nothing_is_remembered_it_starts_anew(file: FileWorld) -> None:
    await file.sink.write(event(1))
    file.path.unlink()
    file.last.unlink()
    assert last_known(file.path) is None
    await file.sink.write(event(2))
    assert file.verified().begins is Kind.START


async def test_records_removed_from_the_end_leave_a_gap(
    file: FileWorld, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        await file.sink.write(event(number))
    lines = file.path.read_bytes().splitlines(keepends=True)
    file.path.write_bytes(b"".join(lines[:3]))
    await file.sink.write(event(9))
    lines = file.path.read_bytes().splitlines(keepends=True)
    assert verify_chain(lines, ChainKeys([OLD])) == Broken(4, Why.MISSING)
    assert "ends with record 3, but 5 was written" in caplog.text


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a number", id="damaged"),
        pytest.param(b"%020d %s\n" % (1, b"a" * 64), id="older"),
    ],
)
async def test_the_file_is_believed_over_a_memory_that_is_behind(file: FileWorld, memory: bytes) -> None:
    await file.sink.write(event(1))
    file.last.write_bytes(memory)
    await file.sink.write(event(2))
    found = file.verified()
    assert found.records == 3
    assert last_known(file.path) == found.link


# ── crashes ──


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(b'{"number":3,"time":"2026', id="a-line-cut-short"),
        pytest.param(b'{"number":3,"ti\n', id="and-ended-by-a-crash-while-closing-it-off"),
        pytest.param(b'{"number":3,"ti\n{"number":3', id="twice"),
        pytest.param(b"\0" * 200_000, id="more-than-one-block-of-zeroes"),
    ],
)
async def test_what_a_crash_cut_short_is_closed_off(
    file: FileWorld, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await file.sink.write(event(1))
    before = file.path.read_bytes()
    with file.path.open("ab") as opened:
        opened.write(torn)
    await file.another("after the crash").write(event(2))
    assert file.path.read_bytes().startswith(before + torn)
    found = file.verified()
    assert (found.records, found.cuts, found.cut) == (4, 1, False)
    assert "cut short" in caplog.text


async def test_a_first_line_cut_short_is_closed_off(file: FileWorld) -> None:
    file.path.write_bytes(b'{"number":1,"ti')
    await file.sink.write(event(1))
    found = file.verified()
    assert (found.records, found.cuts, found.begins) == (2, 1, Kind.START)


async def test_records_longer_than_a_block_are_found(file: FileWorld) -> None:
    long = AuditEvent("carol", "lock.create", "done", detail={"reason": "x" * 200_000})
    for one in (long, long, event(1)):
        await file.sink.write(one)
    assert file.verified().records == 4


async def test_a_file_that_holds_something_else_is_left_alone(file: FileWorld) -> None:
    with file.path.open("wb") as opened:
        opened.truncate(20 * 1024 * 1024)
    with pytest.raises(WorldError, match="its end holds no record"):
        await file.sink.write(event(1))
    assert file.path.stat().st_size == 20 * 1024 * 1024


# ── disks ──

# Nothing may grow beyond the limit, as on a full disk: what fits is written, then an error comes.
FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from ztproxy.adapters.audit_log import AuditLog
from ztproxy.core.audit import AuditEvent
from ztproxy.errors import WorldError

async def main(path, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    log = AuditLog(path, [bytes([1]) * 32], lambda: 1_795_342_272.0, who="child")
    said, written = [], 0
    for number in range(20):
        try:
            await log.write(AuditEvent("carol", "lock.create", "done", f"user {number}"))
            written += 1
        except WorldError as error:
            said.append(str(error))
    size = path.stat().st_size
    await log.write_late(AuditEvent("carol", "lock.create", "done", "late"))
    print(written, log.failures, log.queued, size == path.stat().st_size, set(said))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    assert await log.flush()
    await log.write(AuditEvent("carol", "lock.create", "done", "after"))
    print(log.queued)
    await log.close()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def child(source: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_a_full_disk_refuses_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    world = FileWorld(tmp_path)
    said, _ = child(FULL_DISK, str(world.path), "2000").communicate(timeout=60)
    full, mended = said.splitlines()
    count = int(full.split()[0])
    assert 0 < count < 20
    assert full == f"{count} {20 - count} 1 True {{'audit: file too large'}}"
    assert mended == "0"
    found = world.verified()
    assert (found.records, found.cuts, found.late) == (count + 3, 0, 1)
    assert [target for target, _ in world.written()[-2:]] == ["late", "after"]
    assert not world.late.exists()


@pytest.mark.parametrize(
    ("at", "why"),
    [
        pytest.param("none/audit.log", "no such file or directory", id="missing-directory"),
        pytest.param("fifo", "not a regular file", id="a-pipe-in-its-place"),
        pytest.param("folder", "is a directory", id="a-directory-in-its-place"),
    ],
)
async def test_where_there_is_no_file_to_be(tmp_path: Path, at: str, why: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    log = AuditLog(tmp_path / at, [OLD], SetClock(NOW))
    with pytest.raises(WorldError, match=f"^audit: {why}$"):
        await log.write(event(1))
    await log.close()


async def test_who_stands_still_with_the_lock_keeps_nobody_waiting_for_ever(file: FileWorld) -> None:
    impatient = file.another("node 2", lock_seconds=0.05)
    await file.sink.write(event(1))
    with file.last.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(WorldError, match="another process holds its lock"):
            await impatient.write(event(2))
        await impatient.write_late(event(3))
        assert impatient.queued == 1  # in memory alone
    assert await impatient.flush()
    assert file.written() == [("user 1", False), ("user 3", True)]


async def test_a_lock_whose_file_was_replaced_is_taken_anew(file: FileWorld) -> None:
    await file.sink.write(event(1))
    with file.last.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        file.last.unlink()
        await file.sink.write(event(2))
    assert file.verified().records == 3


# ── events that wait ──


async def test_late_events_outlive_their_process(file: FileWorld) -> None:
    file.fail()
    await file.sink.write_late(event(1))
    assert stat.S_IMODE(file.late.stat().st_mode) == 0o600
    file.mend()
    after = file.another("after the restart")
    assert await after.flush()
    assert file.written() == [("user 1", True)]
    assert not file.late.exists()
    assert await file.sink.flush()  # finds them written by another
    assert file.sink.queued == 0
    assert file.written() == [("user 1", True)]


async def test_late_events_keep_their_order_wherever_they_waited(file: FileWorld) -> None:
    file.fail()
    await file.sink.write_late(event(1))
    file.clock.now += 1
    file.late.rename(file.late.with_name("kept"))
    file.late.mkdir()
    await file.sink.write_late(event(2))  # in memory alone
    file.clock.now += 1
    file.late.rmdir()
    file.late.with_name("kept").rename(file.late)
    await file.sink.write_late(event(3))
    file.mend()
    file.clock.now += 60
    assert await file.sink.flush()
    assert file.written() == [("user 1", True), ("user 2", True), ("user 3", True)]
    assert file.verified().late == 3
    times = [json.loads(line)["time"] for line in file.path.read_bytes().splitlines()[1:]]
    assert times == [moment(NOW), moment(NOW + 1), moment(NOW + 2)]  # when it happened


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param(b'{"actor":"mallory"}\n', id="words-put-in"),
        pytest.param(b'\n{"number":1,"ti', id="cut-short-by-a-crash"),
        pytest.param(b"\n\n", id="nothing"),
    ],
)
async def test_foreign_lines_among_the_waiting_are_left_out(file: FileWorld, foreign: bytes) -> None:
    file.fail()
    file.late.write_bytes(foreign)
    await file.sink.write_late(event(1))
    file.mend()
    assert await file.sink.flush()
    assert file.written() == [("user 1", True)]
    assert not file.late.exists()


async def test_a_waiting_event_of_a_stranger_is_told(
    file: FileWorld, caplog: pytest.LogCaptureFixture
) -> None:
    await file.sink.write(event(1))
    record = read(file.path.read_bytes().splitlines(keepends=True)[1])
    assert record is not None
    file.late.write_bytes(file.path.read_bytes())  # records of the log once more
    assert await file.sink.flush()
    assert file.written() == [("user 1", False)]
    assert [one.levelno for one in caplog.records] == [logging.CRITICAL]
    assert last_known(file.path) == Link(2, record.link.hash)


async def test_what_was_never_written_is_told_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(tmp_path / "none" / "audit.log", [OLD], SetClock(NOW))
    await log.write_late(event(1))
    assert log.queued == 1
    await log.close()
    (told,) = [one.getMessage() for one in caplog.records if one.levelno == logging.CRITICAL]
    assert '"target":"user 1"' in told


async def test_what_waits_is_tried_again_by_itself(file: FileWorld) -> None:
    file.fail()
    await file.sink.write_late(event(1))
    await file.sink.write_late(event(2))
    file.mend()
    while file.sink.queued:  # noqa: ASYNC110  # nothing tells when it is done
        await asyncio.sleep(0.01)
    assert file.written() == [("user 1", True), ("user 2", True)]


async def test_what_waits_is_written_at_the_end(file: FileWorld) -> None:
    file.fail()
    await file.sink.write_late(event(1))
    file.mend()
    await file.sink.close()
    assert file.written() == [("user 1", True)]


# ── processes ──

APPENDING = """
import asyncio, sys, time
from pathlib import Path
from ztproxy.adapters.audit_log import AuditLog
from ztproxy.core.audit import AuditEvent

async def main(path, who):
    log = AuditLog(path, [bytes([1]) * 32], time.time, who=who, lock_seconds=60.0)
    for number in range(200):
        await log.write(AuditEvent(who, "lock.create", "done", str(number)))
    await log.close()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_processes_append_at_once_while_the_file_is_moved_away(tmp_path: Path) -> None:
    world = FileWorld(tmp_path)
    children = [child(APPENDING, str(world.path), f"node {number}") for number in range(3)]
    files: list[Path] = []
    while any(one.poll() is None for one in children):
        if world.path.exists() and world.path.stat().st_size > 40_000:
            files.append(tmp_path / f"audit.log.{len(files)}")
            world.path.rename(files[-1])
    for one in children:
        one.communicate()
        assert one.returncode == 0
    files += [world.path] if world.path.exists() else []
    assert len(files) > 1
    assert world.verified(*files).link.number == 600 + len(files)
    told: dict[str, list[int]] = {}
    for line in b"".join(path.read_bytes() for path in files).splitlines():
        fields = json.loads(line)
        if fields["kind"] == "event":
            told.setdefault(fields["actor"], []).append(int(fields["target"]))
    assert told == {f"node {number}": list(range(200)) for number in range(3)}


def test_a_process_killed_at_any_moment_leaves_a_chain_that_goes_on(tmp_path: Path) -> None:
    world = FileWorld(tmp_path)
    for size in (300, 5_000, 12_000):
        killed = child(APPENDING, str(world.path), "killed")
        while not (world.path.exists() and world.path.stat().st_size > size):
            assert killed.poll() is None
        killed.kill()
        killed.communicate()
    goes_on = child(APPENDING, str(world.path), "goes on")
    goes_on.communicate(timeout=60)
    assert world.verified().records > 200
