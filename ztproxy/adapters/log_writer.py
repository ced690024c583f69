"""The access log and the decision log: JSON lines, gathered in memory and written in batches by a thread.

Knows: the two records and how bytes reach standard output or a file. Promises: `add` and `flush` never wait
for the sink, be it a full pipe, a full disk or a stalled one (fault FI48); what does not fit in
`max_pending_bytes` is dropped whole and counted in `dropped`. Leaves to its caller: calling `flush` every 200
ms or so, `reopen` on SIGUSR1, and showing `dropped`. The event log does not go through here.

Redaction (threat T39): a record has the fields written below and no others, so there is no place for cookies,
authorisation headers, tokens, codes or bodies. `path` never holds a query: one that is given is cut off, for
queries carry codes, tickets and other people's secrets; an operator who wants it says so, and it goes into
`query`. `session` is the public id of a session, never its handle. `email` stands in the decision
log alone. What a client chose is cut where a line would grow too long, and JSON escapes every
control character: one record is one line.

A line of at most PIPE_BUF bytes is written to a pipe in one piece, so that workers sharing one do not mix
theirs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import ClassVar

import msgspec

from ztproxy.errors import OperatorError

FILE_MODE = 0o640
RETRY_SECONDS = 0.2
BEHIND = 10
"""The nice value of the thread that writes."""

RECENT_BYTES = 65_536
_PIPE_BUF = select.PIPE_BUF
# A line beyond PIPE_BUF is written again with what the client chose cut to these lengths.
LONGEST = {"method": 32, "host": 255, "path": 1024, "query": 512, "user_agent": 256}

_log = logging.getLogger("ztproxy.log_writer")


class _Record(msgspec.Struct, omit_defaults=True, gc=False, tag_field="log"):
    """What both logs begin with. `time` is ISO 8601 in UTC (`iso_time`), `client` an IP address."""

    time: str
    request_id: str
    client: str
    method: str
    host: str
    path: str

    def __post_init__(self) -> None:
        # INVARIANT: no query in `path`, whoever filled it in.
        if "?" in self.path:
            self.path = self.path.partition("?")[0]


class AccessRecord(_Record, omit_defaults=True, gc=False, tag="access"):
    """One exchange when it has ended. Bytes are those of the bodies; `user` is the subject.

    Given by position it costs a tenth of what it costs by name: a microsecond less for each request.
    """

    status: int
    bytes_in: int
    bytes_out: int
    duration_ms: float
    route: str | None = None
    decision: str | None = None
    reasons: tuple[str, ...] = ()
    user: str | None = None
    session: str | None = None
    upstream: str | None = None
    user_agent: str | None = None
    trace_id: str | None = None
    email: str | None = None
    query: str | None = None


class DecisionRecord(_Record, omit_defaults=True, gc=False, tag="decision"):
    """One decision when it was made; `acr` is how strongly the person had signed in, `device` on what."""

    decision: str
    reasons: tuple[str, ...]
    route: str | None = None
    user: str | None = None
    session: str | None = None
    acr: str | None = None
    trace_id: str | None = None
    email: str | None = None
    device: str | None = None
    query: str | None = None


class _Last:
    """The second and the millisecond written last: formatting them anew costs as much as the whole record."""

    second: ClassVar = -1
    millisecond: ClassVar = -1
    prefix: ClassVar = ""
    text: ClassVar = ""


def iso_time(now: float) -> str:
    """Seconds since the epoch as `2026-11-22T10:11:12.345Z`; milliseconds are cut, not rounded."""
    millisecond = int(now * 1000)
    if millisecond != _Last.millisecond:
        second = millisecond // 1000
        if second != _Last.second:
            _Last.prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            _Last.second = second
        _Last.text = f"{_Last.prefix}.{millisecond % 1000:03d}Z"
        _Last.millisecond = millisecond
    return _Last.text


def _cut(record: _Record) -> None:
    for field, longest in LONGEST.items():
        value = getattr(record, field, None)
        if value is not None:
            setattr(record, field, value[:longest])


class LogWriter:
    """Writes to `target`, None being standard output. Raises `OperatorError` if it cannot be opened.

    `recent` is a file that always holds the last lines, up to `RECENT_BYTES`, for whoever wants to look.

    One thread writes, because no flag makes a write to a file or to another's pipe return at once, and
    O_NONBLOCK on standard output would change it for every process that shares it.
    """

    def __init__(
        self,
        target: Path | None = None,
        *,
        max_pending_bytes: int = 4 * 1024 * 1024,
        recent: Path | None = None,
    ) -> None:
        self.dropped = 0
        self._target, self._limit, self._recent = target, max_pending_bytes, recent
        self._tail = b""
        self._encode = msgspec.json.Encoder().encode
        self._gathered = bytearray()
        self._in_flight = 0
        self._batches: SimpleQueue[bytearray | None] = SimpleQueue()
        self._reopen = self._closed = self._troubled = False
        self._closing = threading.Event()
        self._file = _open(target)
        self._writing = threading.Thread(target=self._write_batches, name="log writer", daemon=True)
        self._writing.start()

    @property
    def pending(self) -> int:
        """Bytes gathered or being written."""
        return len(self._gathered) + self._in_flight

    def add(self, record: AccessRecord | DecisionRecord) -> None:
        """Takes one record, or drops and counts it."""
        gathered = self._gathered
        if len(gathered) + self._in_flight >= self._limit or self._closed:
            self.dropped += 1
            return
        try:
            line = self._encode(record)
            if len(line) >= _PIPE_BUF:
                _cut(record)
                line = self._encode(record)
        except (UnicodeEncodeError, TypeError):
            # A lone surrogate from somewhere: a record is lost, the request it tells of is not.
            self.dropped += 1
            return
        gathered += line
        gathered += b"\n"

    def flush(self) -> None:
        """Hands what was gathered to the thread, unless it still writes the batch before."""
        if self._gathered and not self._in_flight:
            self._hand_over()

    def reopen(self) -> None:
        """Opens the file again under its name before the next write; the old one stays if that fails."""
        self._reopen = True
        self._batches.put(bytearray())

    def close(self, timeout: float = 1.0) -> None:
        """Writes what is left, for at most `timeout` seconds; what a sink does not take by then is lost."""
        if self._closed:
            return
        self._closed = True
        self._closing.set()
        self._hand_over()
        self._batches.put(None)
        self._writing.join(timeout)

    def _hand_over(self) -> None:
        batch, self._gathered = self._gathered, bytearray()
        self._in_flight += len(batch)
        self._batches.put(batch)

    # What follows runs in the thread. It alone touches the descriptor.

    def _write_batches(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            # Whoever shares a core with it goes first: writing a batch out is milliseconds of the kernel's
            # time, and a request that comes meanwhile waited for them.
            thread = threading.get_native_id()
            with contextlib.suppress(OSError):  # what was started further behind may not come forward
                os.setpriority(os.PRIO_PROCESS, thread, BEHIND)
        while (batch := self._batches.get()) is not None:
            self._keep_recent(batch)
            self._write(memoryview(batch))
            self._in_flight = 0
        os.close(self._file)

    def _keep_recent(self, batch: bytearray) -> None:
        if self._recent is None or not batch:
            return
        tail = (self._tail + bytes(batch[-RECENT_BYTES:]))[-RECENT_BYTES:]
        if len(tail) == RECENT_BYTES:
            tail = tail[tail.find(b"\n") + 1 :]  # whole lines
        self._tail = tail
        fresh = self._recent.with_suffix(".new")
        with contextlib.suppress(OSError):  # nobody's record hangs on it
            fresh.write_bytes(tail)
            fresh.replace(self._recent)

    def _write(self, rest: memoryview) -> None:
        while True:
            if self._reopen:
                self._open_again()
            if not rest:
                return
            try:
                rest = rest[os.write(self._file, _piece(self._file, rest)) :]
                self._troubled = False
            except OSError as error:
                if not self._troubled:
                    _log.error(
                        "the log cannot be written: %s; records are kept, then dropped", error.strerror
                    )
                self._troubled = True
                if self._closing.wait(RETRY_SECONDS):
                    return

    def _open_again(self) -> None:
        self._reopen = False
        if self._target is None:
            return
        try:
            opened = _open(self._target)
        except OperatorError as error:
            _log.error("%s; the file opened before is written on", error)
            return
        os.close(self._file)
        self._file = opened


def _open(target: Path | None) -> int:
    if target is None:
        return os.dup(1)
    try:
        # O_NONBLOCK: a FIFO nobody reads is an error here, not a wait.
        opened = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OperatorError(f"`{target}` cannot be opened for the log: {why}") from error
    os.set_blocking(opened, True)
    return opened


def _piece(file: int, rest: memoryview) -> memoryview:
    """All of it for a file, where appending is one piece; for a pipe the whole lines that PIPE_BUF holds."""
    if len(rest) <= select.PIPE_BUF or stat.S_ISREG(os.fstat(file).st_mode):
        return rest
    end = bytes(rest[: select.PIPE_BUF]).rfind(b"\n") + 1
    if end == 0:  # one line longer than that
        end = bytes(rest).index(b"\n") + 1
    return rest[:end]
