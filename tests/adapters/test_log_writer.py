"""What a line holds and never holds; and sinks that are full, stuck, gone, or renamed under us."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ztproxy.adapters.log_writer import (
    LONGEST,
    RECENT_BYTES,
    AccessRecord,
    DecisionRecord,
    LogWriter,
    iso_time,
)
from ztproxy.errors import OperatorError


def access(**fields: Any) -> AccessRecord:
    usual: dict[str, Any] = {
        "time": "2026-11-22T10:11:12.345Z",
        "request_id": "r1",
        "client": "203.0.113.9",
        "method": "GET",
        "host": "app.test",
        "path": "/a",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": 5,
        "duration_ms": 1.5,
    }
    return AccessRecord(**usual | fields)


def decision(**fields: Any) -> DecisionRecord:
    usual: dict[str, Any] = {
        "time": "2026-11-22T10:11:12.345Z",
        "request_id": "r1",
        "client": "203.0.113.9",
        "method": "GET",
        "host": "app.test",
        "path": "/a",
        "decision": "deny",
        "reasons": ("group_missing", "rule_denied"),
    }
    return DecisionRecord(**usual | fields)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogWriter]:
    writer = LogWriter(tmp_path / "access.log")
    yield writer
    writer.close()


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def written(writer: LogWriter, path: Path, *records: AccessRecord | DecisionRecord) -> list[dict[str, Any]]:
    for record in records:
        writer.add(record)
    writer.close()
    return lines(path)


# Records


def test_a_whole_access_record(log: LogWriter, tmp_path: Path) -> None:
    record = access(
        query="q=1",
        route="app",
        decision="forward",
        reasons=("rule_allowed",),
        user="u-1",
        email="alice@example.test",
        session="s-public",
        upstream="10.0.0.1:8000",
        user_agent="curl/8",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )
    assert written(log, tmp_path / "access.log", record) == [
        {
            "log": "access",
            "time": "2026-11-22T10:11:12.345Z",
            "request_id": "r1",
            "client": "203.0.113.9",
            "method": "GET",
            "host": "app.test",
            "path": "/a",
            "query": "q=1",
            "route": "app",
            "decision": "forward",
            "reasons": ["rule_allowed"],
            "user": "u-1",
            "email": "alice@example.test",
            "session": "s-public",
            "status": 200,
            "bytes_in": 0,
            "bytes_out": 5,
            "duration_ms": 1.5,
            "upstream": "10.0.0.1:8000",
            "user_agent": "curl/8",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        }
    ]


def test_what_is_not_known_is_not_written(log: LogWriter, tmp_path: Path) -> None:
    first, second = written(log, tmp_path / "access.log", access(), decision())
    assert set(first) == {
        *("log", "time", "request_id", "client", "method", "host", "path"),
        *("status", "bytes_in", "bytes_out", "duration_ms"),
    }
    assert second["log"] == "decision"
    assert (second["decision"], second["reasons"]) == ("deny", ["group_missing", "rule_denied"])


@pytest.mark.parametrize(
    "field", ["cookie", "authorization", "headers", "token", "assertion", "body", "handle"]
)
def test_there_is_no_place_for_a_secret(field: str) -> None:
    for make in (access, decision):
        with pytest.raises(TypeError):
            make(**{field: "a-secret"})
        with pytest.raises(AttributeError):
            setattr(make(), field, "a-secret")


@pytest.mark.parametrize("make", [access, decision])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("/cb?code=a-secret&state=a-secret", "/cb", id="an authorisation code"),
        pytest.param("/a?", "/a", id="an empty query"),
        pytest.param("/a?b?c", "/a", id="two question marks"),
        pytest.param("/a%3Fcode", "/a%3Fcode", id="an encoded one is path"),
    ],
)
def test_a_query_does_not_slip_in_with_the_path(
    log: LogWriter, tmp_path: Path, make: Callable[..., AccessRecord], given: str, kept: str
) -> None:
    (line,) = written(log, tmp_path / "access.log", make(path=given))
    assert line["path"] == kept
    assert "a-secret" not in (tmp_path / "access.log").read_text()


@pytest.mark.parametrize("field", LONGEST)
def test_what_a_client_chose_is_bounded(log: LogWriter, tmp_path: Path, field: str) -> None:
    (line,) = written(log, tmp_path / "access.log", access(**{field: "x" * 9000}))
    assert line[field] == "x" * LONGEST[field]


def test_a_long_line_that_fits_is_left_as_it_is(log: LogWriter, tmp_path: Path) -> None:
    (line,) = written(log, tmp_path / "access.log", decision(path="/" + "x" * 3000))
    assert line["path"] == "/" + "x" * 3000


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param('\n{"log":"access","user":"admin"}', id="a forged line"),
        pytest.param("\r\n\x00\x1b[2J\x7f", id="control characters"),
        pytest.param('"},{"', id="quotes"),
        pytest.param("\u2028\u2029\x85", id="other line ends"),
    ],
)
def test_one_record_is_one_line(log: LogWriter, tmp_path: Path, hostile: str) -> None:
    log.add(access(user_agent=hostile))
    log.close()
    raw = (tmp_path / "access.log").read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"\n")
    assert json.loads(raw)["user_agent"] == hostile
    assert not any(byte < 0x20 for byte in raw[:-1])


def test_what_is_no_text_costs_its_record_alone(log: LogWriter, tmp_path: Path) -> None:
    got = written(log, tmp_path / "access.log", access(), access(user_agent="\udcff"), access(path="/b"))
    assert [line["path"] for line in got] == ["/a", "/b"]
    assert log.dropped == 1


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795342272.345678, "2026-11-22T10:11:12.345Z"),
        (1795342272.9999, "2026-11-22T10:11:12.999Z"),
        (1795342273.0, "2026-11-22T10:11:13.000Z"),
    ],
)
def test_time(now: float, text: str) -> None:
    assert iso_time(now) == text
    assert iso_time(now) == text


# Sinks


def test_a_flush_writes_and_an_empty_one_does_not(log: LogWriter, tmp_path: Path) -> None:
    log.flush()
    assert log.pending == 0
    log.add(access())
    assert log.pending > 0
    assert lines(tmp_path / "access.log") == []
    log.flush()
    eventually(lambda: log.pending == 0)
    assert len(lines(tmp_path / "access.log")) == 1


def test_what_was_there_is_kept_and_the_file_is_not_for_everyone(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    for _ in range(2):
        written(LogWriter(path), path, access())
    assert len(lines(path)) == 2
    assert path.stat().st_mode & 0o007 == 0


def test_a_renamed_file_is_left_after_reopening(log: LogWriter, tmp_path: Path) -> None:
    log.add(access(path="/before"))
    log.flush()
    eventually(lambda: log.pending == 0)
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    log.reopen()
    eventually((tmp_path / "access.log").exists)
    log.add(access(path="/after"))
    log.close()
    assert [line["path"] for line in lines(tmp_path / "access.log.1")] == ["/before"]
    assert [line["path"] for line in lines(tmp_path / "access.log")] == ["/after"]


def test_a_file_that_cannot_be_reopened_is_written_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = LogWriter(folder / "access.log")
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.add(access())
    log.close(timeout=20)
    assert len(lines(tmp_path / "moved" / "access.log")) == 1
    assert "written on" in caplog.text


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda path: path.mkdir(), "is a directory", id="a folder"),
        pytest.param(lambda path: os.mkfifo(path), "cannot be opened", id="a FIFO nobody reads"),
        pytest.param(lambda path: path.symlink_to("/nonexistent/x"), "no such file", id="a link to nowhere"),
    ],
)
def test_a_target_that_cannot_be_opened(
    tmp_path: Path, prepare: Callable[[Path], object], message: str
) -> None:
    prepare(tmp_path / "log")
    with pytest.raises(OperatorError, match=message):
        LogWriter(tmp_path / "log")


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A FIFO whose reader is us."""
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield tmp_path / "pipe", reading
    os.close(reading)


def read_all(reading: int, done: Callable[[], bool]) -> bytes:
    got = b""
    while True:
        over = done()
        try:
            piece = os.read(reading, 1 << 20)
        except BlockingIOError:
            piece = b""
            time.sleep(0.002)
        got += piece
        if over and not piece:
            return got


def test_a_full_pipe_holds_up_nobody_and_loses_whole_records_only(pipe: tuple[Path, int]) -> None:
    path, reading = pipe
    log = LogWriter(path, max_pending_bytes=100_000)
    for number in range(10_000):  # ~2 MB into a pipe of 64 KiB that nobody empties
        log.add(access(path=f"/{number}"))
        if number % 100 == 0:
            log.flush()
    assert log.dropped > 0
    assert log.pending <= 100_000 + 1000
    dropped = log.dropped

    def empty() -> bool:
        log.flush()
        return log.pending == 0

    got = [json.loads(line) for line in read_all(reading, empty).splitlines()]
    assert len(got) == 10_000 - dropped
    numbers = [int(line["path"][1:]) for line in got]
    assert numbers == sorted(set(numbers))
    log.add(access(path="/again"))
    log.close()
    assert b"/again" in read_all(reading, lambda: True)
    assert log.dropped == dropped


def test_closing_does_not_wait_for_a_full_pipe(pipe: tuple[Path, int]) -> None:
    path, reading = pipe
    log = LogWriter(path)
    for _ in range(1000):
        log.add(access())
    log.close(timeout=0.05)
    log.close()
    before = log.dropped
    log.add(access())
    assert log.dropped == before + 1
    assert read_all(reading, lambda: log.pending == 0).count(b"\n") == 1000  # and lets the thread go


def test_a_line_longer_than_a_pipe_takes_in_one_piece_arrives_whole(pipe: tuple[Path, int]) -> None:
    path, reading = pipe
    log = LogWriter(path)
    log.add(access(path="/first"))
    log.add(access(user="u" * 20_000))
    log.add(access(path="/last"))
    log.close(timeout=20)
    got = [json.loads(line) for line in read_all(reading, lambda: True).splitlines()]
    assert [line["path"] for line in got] == ["/first", "/a", "/last"]
    assert got[1]["user"] == "u" * 20_000


WRITER = """
import sys
from pathlib import Path
from ztproxy.adapters.log_writer import AccessRecord, LogWriter
log = LogWriter()
for number in range(3000):
    log.add(AccessRecord(time="t", request_id=sys.argv[1], client="c", method="GET", host="h",
                         path=f"/{number}", status=200, bytes_in=0, bytes_out=0, duration_ms=0.0))
    log.flush()
log.close(timeout=60)
"""


def test_workers_that_share_standard_output_do_not_mix_their_lines() -> None:
    reading, writing = os.pipe()
    workers = [
        subprocess.Popen([sys.executable, "-c", WRITER, name], stdout=writing) for name in ("one", "two")
    ]
    os.close(writing)
    with os.fdopen(reading) as stream:
        got = [json.loads(line) for line in stream]
    assert [worker.wait() for worker in workers] == [0, 0]
    for name in ("one", "two"):
        mine = [line["path"] for line in got if line["request_id"] == name]
        assert mine == [f"/{number}" for number in range(3000)]


def test_a_full_disk_is_told_once_and_its_records_dropped_at_the_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = LogWriter(Path("/dev/full"), max_pending_bytes=2000)
    for _ in range(100):
        log.add(access())
        log.flush()
    eventually(lambda: "no space left" in caplog.text.lower())
    assert log.dropped > 0
    assert 0 < log.pending <= 2000 + 1000
    log.close(timeout=20)
    assert caplog.text.lower().count("no space left") == 1


def test_a_disk_with_room_again_gets_what_was_kept(tmp_path: Path) -> None:
    link = tmp_path / "access.log"
    link.symlink_to("/dev/full")
    log = LogWriter(link)
    log.add(access(path="/kept"))
    log.flush()
    link.unlink()
    log.reopen()
    eventually(lambda: log.pending == 0)
    log.close()
    assert [line["path"] for line in lines(link)] == ["/kept"]


def test_the_last_lines_are_kept_beside_for_whoever_wants_to_look(tmp_path: Path) -> None:
    recent = tmp_path / "worker-0.recent"
    writer = LogWriter(tmp_path / "log", recent=recent)
    for number in range(2000):
        writer.add(AccessRecord("t", f"{number:032}", "192.0.2.1", "GET", "app.test", "/", 200, 0, 0, 1.0))
    writer.close()
    written = (tmp_path / "log").read_bytes()
    kept = recent.read_bytes()
    assert 0 < len(kept) <= RECENT_BYTES < len(written) and written.endswith(kept)
    assert kept.startswith(b'{"log"') and not (tmp_path / "worker-0.new").exists()


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv: apt-get install util-linux")
def test_who_was_started_further_behind_writes_all_the_same(tmp_path: Path) -> None:
    """Coming forward may be forbidden: then it stays where it is."""
    code = "from pathlib import Path; from ztproxy.adapters.log_writer import *; w = LogWriter(Path('x.log'))"
    code += "; w.add(AccessRecord('t', 'r', 'c', 'GET', 'h', '/p', 200, 0, 0, 1.0)); w.close()"
    as_anybody = (
        ["setpriv", "--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"] if os.getuid() == 0 else []
    )
    subprocess.run(["nice", "-n", "15", *as_anybody, sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "x.log").read_text())["path"] == "/p"
