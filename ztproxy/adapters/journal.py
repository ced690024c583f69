"""What a node has heard of the log of locks, on its own disk: for a store that comes back without its data.

Knows: files `revocations-<name>.jsonl`, one for each process, in a directory of the node. Promises: what was
kept with `sure` is on the disk; a line cut short, by a crash or a full disk, costs nothing but itself; a file
is this user's alone (0600). What a process that is gone has left is taken over by the next one that opens a
journal there, so that files do not pile up. Leaves to the caller: a name for each living process, and what to
do with entries the store still has (sending one again is nothing).

A process holds a lock on its file for as long as it lives; the kernel drops it with the process. Entries come
as lines of the time they were written and the entry; the order of lines, of one file or several, means
nothing: locks are given back before what lifts them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ztproxy.adapters.revocation_codec import line, read_line
from ztproxy.core.locks import Entry, Lift, Lock
from ztproxy.errors import OperatorError, Place
from ztproxy.gateway.ports import Clock

_BEGINS, _ENDS = "revocations-", ".jsonl"
_PATTERN = f"{_BEGINS}*{_ENDS}"
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def file_name(process: str) -> str:
    """The name of the journal of the process called so."""
    return f"{_BEGINS}{process}{_ENDS}"


class FileJournal:
    """Fulfils `Journal`. `path` is this process' own `file_name`, in a directory that is there.

    `keep_seconds`: how long an entry without an end can still meet anyone. Raises `OperatorError` when the
    file cannot be used, or another process that lives has it. `gone` are the names of the processes whose
    files were taken over: none of them lives.
    """

    def __init__(self, path: Path, keep_seconds: float, clock: Clock) -> None:
        self._path, self._keep, self._clock = path, keep_seconds, clock
        self._kept: set[str] = set()
        self._torn = False
        self.gone: tuple[str, ...] = ()
        with self._trouble():
            self._file = self._open()

    def keep(self, entries: Sequence[Entry], *, sure: bool) -> None:
        """Appends what is not in the file yet; with `sure` all that is in it is on the disk then."""
        fresh = {entry.id: entry for entry in entries if entry.id not in self._kept}
        now = self._clock()
        with self._trouble():
            if fresh:
                # INVARIANT: an id counts as kept only after it was written whole; after a failure the same
                # entry is written once more, on a line of its own.
                torn, self._torn = self._torn, True
                data = b"".join(line(entry, now) for entry in fresh.values())
                _write(self._file, b"\n" + data if torn else data)
                self._torn = False
            if sure:
                try:
                    os.fdatasync(self._file)
                except OSError:
                    self._kept.clear()  # nobody knows which of the lines are there
                    raise
            self._kept |= fresh.keys()

    def read(self) -> tuple[Entry, ...]:
        """What all processes of this node have kept and is not outdated: locks, then what lifts them."""
        with self._trouble():
            return read_all(self._path.parent, self._keep, self._clock())

    def close(self) -> None:
        """Gives the file free for the next process."""
        os.close(self._file)

    # ── opening ──

    def _open(self) -> int:
        """Takes over what others left, writes it whole to a new file in place of them, and locks that."""
        directory = self._path.parent
        now = self._clock()
        with contextlib.ExitStack() as stack:
            own = _locked(self._path)
            if own is None:
                problem = "another process keeps its journal here"
                raise OperatorError(problem, "give each its own", self._place())
            stack.callback(os.close, own)
            left = {self._path: own}
            for path in directory.glob(_PATTERN):
                if path != self._path and (other := _locked(path)) is not None:
                    stack.callback(os.close, other)
                    left[path] = other
            # Young or not depends on the locks of all files: a lift is kept for as long as its lock may be.
            current = {entry.id for entry in read_all(directory, self._keep, now)}
            written = self._path.with_suffix(".new")
            written.unlink(missing_ok=True)
            descriptor = os.open(written, _FLAGS | os.O_EXCL, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                for at, entry in _once(_lines(left)):
                    if entry.id in current:
                        _write(descriptor, line(entry, at))
                        self._kept.add(entry.id)
                os.fsync(descriptor)
                written.replace(self._path)
                # INVARIANT: what was taken over goes only once it is safely in our own file.
                _sync(directory)
                gone = sorted(left.keys() - {self._path})
                for path in gone:
                    path.unlink(missing_ok=True)
                self.gone = tuple(path.name.removeprefix(_BEGINS).removesuffix(_ENDS) for path in gone)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            said = (error.strerror or type(error).__name__).lower()
            raise OperatorError(f"the journal cannot be used: {said}", place=self._place()) from error

    def _place(self) -> Place:
        return Place(str(self._path), 0, "")


def read_all(directory: Path, keep_seconds: float, now: float) -> tuple[Entry, ...]:
    """What is in the journals of a node and not outdated, each once: locks, then what lifts them."""
    found = list(_once(_lines(sorted(directory.glob(_PATTERN)))))
    locks = [
        entry
        for at, entry in found
        if isinstance(entry, Lock) and max(at + keep_seconds, entry.until or 0.0) > now
    ]
    standing = {lock.id for lock in locks}
    lifts = [
        entry
        for at, entry in found
        if isinstance(entry, Lift) and (at + keep_seconds > now or entry.lifts in standing)
    ]
    return (*locks, *lifts)


def _once(lines: Iterable[tuple[float, Entry]]) -> list[tuple[float, Entry]]:
    """The first line of each entry, oldest first, and with it the number and time it was given later."""
    found: dict[str, tuple[float, Entry]] = {}
    for at, entry in sorted(lines, key=lambda each: each[0]):
        first = found.get(entry.id)
        if first is None:
            found[entry.id] = at, entry
        elif not first[1].made_at:
            found[entry.id] = first[0], entry
    return list(found.values())


def _lines(paths: Iterable[Path]) -> Iterator[tuple[float, Entry]]:
    for path in paths:
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # taken over by another process
            continue
        for raw in data.split(b"\n"):
            # What is no entry is the end of a file that is being written, or was when its process died.
            with contextlib.suppress(ValueError):
                yield read_line(raw)


def _locked(path: Path) -> int | None:
    """The file, open and locked; None if a living process has it, or it was replaced meanwhile."""
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and os.path.samestat(status, path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
