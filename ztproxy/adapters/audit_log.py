"""The audit log on the disk: one file a node, that all its processes append to.

Knows: files, locks between processes, what a crash and logrotate leave behind. Promises: an event is on the
disk, in the chain (`core.audit`), when `write` returns, and not at all when it raises; records of several
processes never mix. Leaves to its caller: what is written, `close` at the end, and `use_keys` after a
rotation.

    audit.log        the chain, made with mode 0600; may be moved away at any time, for it is opened each time
    audit.log.last   number and hash of the newest record; also the lock that all processes take in turn
    audit.log.late   events that could not be written (`write_late`), signed; written and removed as soon as
                     may be, by whichever process can

`audit.log.last` is how a file begun after logrotate continues the one before, and how records removed from
the end of a file show: the next one then has the number and the hash it would have had, and the gap is
there for `verify`. It is not on the disk for certain, and only ever believed where it is ahead.

A late event is in `audit.log.late` or, where that cannot be written either, in memory alone, and lost if the
process dies then. One that was written just before a crash may be written twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ztproxy.core.audit import (
    NOTHING,
    AuditEvent,
    ChainKeys,
    Happened,
    Kind,
    Link,
    event_record,
    moment,
    own_record,
    read,
    read_waiting,
    waiting_record,
)
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.gateway.ports import Clock

FILE_MODE = 0o600
LOCK_SECONDS = 2.0
"""A process stopped while it holds the lock must not make the others wait for ever."""
RETRY_SECONDS = 1.0
_LOCK_POLL = 0.002
_TAIL_BYTES = 64 * 1024
_LONGEST_TAIL = 16 * 1024 * 1024
_STATE = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")
_STATE_BYTES = 20 + 1 + 64 + 1

_log = logging.getLogger("ztproxy.audit")
_H = TypeVar("_H")


class AuditLog:
    """Fulfils `AuditSink`. `keys` are the server's record keys; `who` names this process in each record.

    `failures` counts the events that `write` refused, `queued` those that wait to be written late.
    """

    def __init__(
        self,
        path: Path,
        keys: Sequence[bytes],
        clock: Clock,
        *,
        who: str | None = None,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.failures = 0
        self._lock_seconds = lock_seconds
        self._path, self._clock = path, clock
        self._state_path, self._late_path = _beside(path, "last"), _beside(path, "late")
        self._keys = ChainKeys(keys)
        self._who = who if who is not None else f"{socket.gethostname()} {os.getpid()}"
        # One thread: events are written in the order they came, and nothing below needs a lock of its own.
        self._thread = ThreadPoolExecutor(1, "audit log")
        self._waiting: list[Happened] = []
        self._spooled = 0
        self._retrying: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def queued(self) -> int:
        return len(self._waiting) + self._spooled

    def use_keys(self, keys: Sequence[bytes]) -> None:
        """After a rotation: what is written from now on is signed with the first of these."""
        self._keys = ChainKeys(keys)

    async def write(self, event: AuditEvent) -> None:
        """On the disk, in the chain, when this returns. Raises `WorldError(AUDIT_UNAVAILABLE)` else."""
        try:
            await self._in_thread(self._append, Happened(moment(self._clock()), event))
        except OSError as error:
            self.failures += 1
            why = _said(error)
            _log.error("the audit log `%s` cannot be written: %s", self._path, why)
            raise WorldError(Reason.AUDIT_UNAVAILABLE, f"audit: {why}") from None

    async def write_late(self, event: AuditEvent) -> None:
        """Writes the event, or keeps it, writes it as soon as it can be written, and marks it `late` then.
        Raises nothing."""
        await self._in_thread(self._append_or_keep, Happened(moment(self._clock()), event))
        if self.queued and (self._retrying is None or self._retrying.done()):
            self._retrying = asyncio.create_task(self._retry())

    async def flush(self) -> bool:
        """Writes what waits, also what an earlier process left; whether nothing waits any more."""
        try:
            await self._in_thread(self._append, None)
        except OSError:
            return False
        return True

    async def close(self) -> None:
        """Tries once more to write what waits; what is then left in memory alone goes to the event log."""
        self._closing.set()
        if self._retrying is not None:
            await self._retrying
        if self.queued:
            await self.flush()
        self._thread.shutdown(wait=False)
        for happened in self._waiting:
            line = waiting_record(happened, self._who, self._keys)
            _log.critical("an audit record was never written: %s", line.decode("ascii").rstrip())

    async def _retry(self) -> None:
        while not self._closing.is_set() and not await self.flush():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), RETRY_SECONDS)

    async def _in_thread(self, act: Callable[[_H], None], happened: _H) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, act, happened)

    # What follows runs in the thread, and raises `OSError`.

    def _append(self, happened: Happened | None) -> None:
        """Everything that waits, then `happened`: all of it or nothing."""
        with _locked(self._state_path, self._lock_seconds) as state:
            late = sorted([*self._read_late(), *self._waiting], key=lambda one: one.time)
            if late or happened is not None:
                with _opened(self._path) as file:
                    newest = self._chain(file, _link(os.pread(state, _STATE_BYTES, 0)), late, happened)
                self._remember(state, newest)
            if self._spooled:
                self._forget_late()
            self._waiting, self._spooled = [], 0

    def _chain(self, file: int, known: Link | None, late: list[Happened], happened: Happened | None) -> Link:
        found, torn = _tail(file)
        # INVARIANT: hang on the larger number. A file that ends earlier than it did has lost records, and the
        # next one must show it.
        after = max(found or NOTHING, known or NOTHING, key=lambda link: link.number)
        if found is not None and after.number > found.number:
            _log.critical(
                "`%s` ends with record %d, but %d was written", self._path, found.number, after.number
            )
        if torn:
            _log.warning("the end of `%s` was cut short; it is closed off", self._path)
        kind = None
        if found is None:
            kind = Kind.START if after == NOTHING else Kind.CONTINUE
        elif torn:
            kind = Kind.CUT
        lines = [b"\n"] if torn and not torn.endswith(b"\n") else []
        if kind is not None:
            now = moment(self._clock())
            line, after = own_record(kind, now, self._who, after, self._keys, cut=torn or None)
            lines.append(line)
        for one in late:
            line, after = event_record(one, self._who, after, self._keys, late=True)
            lines.append(line)
        if happened is not None:
            line, after = event_record(happened, self._who, after, self._keys)
            lines.append(line)
        _append_whole(file, self._path, b"".join(lines))
        return after

    def _remember(self, state: int, newest: Link) -> None:
        try:
            os.pwrite(state, b"%020d %s\n" % (newest.number, newest.hash.encode("ascii")), 0)
        except OSError as error:  # the record is written, and the file itself says where to go on
            _log.warning("`%s` cannot be written: %s", self._state_path, _said(error))

    def _forget_late(self) -> None:
        try:
            self._late_path.unlink()
        except OSError as error:
            _log.critical("`%s` is written, but cannot be removed: %s", self._late_path, _said(error))

    def _append_or_keep(self, happened: Happened) -> None:
        # While others wait, trying again is the work of `_retry`: each attempt writes all of them.
        try:
            if not self.queued:
                self._append(happened)
                return
        except TimeoutError:  # the file of those that wait is behind the same lock
            self._waiting.append(happened)
            return
        except OSError:
            pass  # what may be late is kept instead
        self._keep(happened)

    def _keep(self, happened: Happened) -> None:
        # The line break before it keeps it apart from a line that a crash cut short.
        line = b"\n" + waiting_record(happened, self._who, self._keys)
        try:
            with _locked(self._state_path, self._lock_seconds), _opened(self._late_path) as file:
                _append_whole(file, self._late_path, line)
        except OSError:
            self._waiting.append(happened)
        else:
            self._spooled += 1

    def _read_late(self) -> list[Happened]:
        try:
            lines = self._late_path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            self._spooled = 0  # another process has written them
            return []
        read_back = [read_waiting(line, self._keys) for line in lines if line != b"\n"]
        self._spooled = max(1, len(read_back))
        kept = [one for one in read_back if one is not None]
        if len(kept) < len(read_back):
            foreign = len(read_back) - len(kept)
            _log.critical("%d lines of `%s` are not ours and are left out", foreign, self._late_path)
        return kept


def last_known(path: Path) -> Link | None:
    """The newest record that this node remembers of the log at `path`; None if it remembers nothing."""
    try:
        return _link(_beside(path, "last").read_bytes())
    except OSError:
        return None


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}")


def _link(text: bytes) -> Link | None:
    found = _STATE.fullmatch(text)
    return None if found is None else Link(int(found[1]), found[2].decode("ascii"))


@contextlib.contextmanager
def _locked(path: Path, patience: float) -> Iterator[int]:
    """The open file at `path`, which this process alone has until the end of the block."""
    give_up = time.monotonic() + patience
    while True:
        with _opened(path, append=False) as file:
            while not _lock(file):
                if time.monotonic() >= give_up:
                    raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock")
                time.sleep(_LOCK_POLL)
            # INVARIANT: the lock is on the file that has the name now; one removed meanwhile keeps nobody
            # out.
            if _has_name(file, path):
                yield file
                return


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _has_name(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _opened(path: Path, *, append: bool = True) -> Iterator[int]:
    # O_NONBLOCK: a pipe in its place must not keep us waiting.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_APPEND if append else 0)
    file = os.open(path, flags, FILE_MODE)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield file
    finally:
        os.close(file)


def _append_whole(file: int, path: Path, data: bytes) -> None:
    """All of `data` at the end and on the disk; or, as far as the disk lets us, nothing of it."""
    size = os.fstat(file).st_size
    if size == 0:
        _sync_directory(path.parent)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except OSError:
        # Where a file may only be appended to (chattr +a), the next write closes it off instead.
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
            os.fsync(file)
        raise


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tail(file: int) -> tuple[Link | None, bytes]:
    """The last record, None if there is none, and what stands after it: nothing, unless it was cut short."""
    size, want = os.fstat(file).st_size, _TAIL_BYTES
    while True:
        start = max(0, size - want)
        block = os.pread(file, size - start, start)
        end = block.rfind(b"\n") + 1
        while end:
            begin = block.rfind(b"\n", 0, end - 1) + 1
            if begin == 0 and start > 0:
                break  # its beginning is not in the block
            record = read(block[begin:end])
            if record is not None:
                return record.link, block[end:]
            end = begin
        if start == 0:
            return None, block
        if want >= _LONGEST_TAIL:
            raise OSError(errno.EFBIG, "its end holds no record")
        want *= 4


def _said(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
