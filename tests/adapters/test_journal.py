"""Journals on a real disk: cut, full, left behind, and killed while they write."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worlds.memory_state import SetClock
from ztproxy.adapters.journal import FileJournal, file_name, read_all
from ztproxy.adapters.revocation_codec import line
from ztproxy.core.locks import Entry, Lift, Lock, Target, TargetKind
from ztproxy.errors import OperatorError

NOW = 1_000_000.0
KEEP = 3600.0
ALICE = Target(TargetKind.USER, "alice", "https://op.test")


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOW)


@contextmanager
def journal(directory: Path, clock: SetClock, name: str = "w1") -> Iterator[FileJournal]:
    opened = FileJournal(directory / file_name(name), KEEP, clock)
    try:
        yield opened
    finally:
        opened.close()


def lock(name: str, **more: object) -> Lock:
    return replace(Lock(name, ALICE, made_at=NOW, number=1), **more)  # type: ignore[arg-type]


def ids(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.id for entry in entries]


def lines(directory: Path, name: str = "w1") -> int:
    return (directory / file_name(name)).read_bytes().count(b"\n")


@pytest.mark.parametrize("sure", [True, False])
def test_what_was_kept_is_read_now_and_later(tmp_path: Path, clock: SetClock, sure: bool) -> None:
    entries = (lock("a", message="Älice\n‮"), Lift("b", "a", made_at=NOW, number=2))
    with journal(tmp_path, clock) as first:
        first.keep(entries, sure=sure)
        assert first.read() == entries
    with journal(tmp_path, clock) as second:
        assert second.read() == entries


def test_nothing_kept_is_nothing(tmp_path: Path, clock: SetClock) -> None:
    with journal(tmp_path, clock) as opened:
        opened.keep([], sure=True)
        assert opened.read() == ()


def test_the_file_is_for_this_user_alone(tmp_path: Path, clock: SetClock) -> None:
    former = os.umask(0)
    try:
        with journal(tmp_path, clock):
            (file,) = tmp_path.iterdir()
            assert file.name == "revocations-w1.jsonl"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(former)


def test_a_file_others_could_read_is_theirs_no_more(tmp_path: Path, clock: SetClock) -> None:
    path = tmp_path / file_name("w1")
    path.write_bytes(line(lock("a"), NOW))
    path.chmod(0o644)
    with journal(tmp_path, clock) as opened:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ids(opened.read()) == ["a"]


def test_an_entry_is_written_once(tmp_path: Path, clock: SetClock) -> None:
    for _ in range(2):
        with journal(tmp_path, clock) as opened:
            for _ in range(2):
                opened.keep([lock("a"), lock("b"), lock("a")], sure=True)
    assert lines(tmp_path) == 2


def test_a_number_learnt_later_is_the_one_that_counts(tmp_path: Path, clock: SetClock) -> None:
    # who revokes writes it down before the store has given it a number
    with journal(tmp_path, clock, "admin") as revoker, journal(tmp_path, clock, "w1") as worker:
        revoker.keep([Lock("a", ALICE)], sure=True)
        clock.now += 1
        worker.keep([lock("a", number=7)], sure=False)
        assert revoker.read() == (lock("a", number=7),)


# ── lines cut short ──

WHOLE = [lock("a"), lock("b", message="ü")]


@pytest.mark.parametrize("cut", range(1, len(line(WHOLE[1], NOW)) + 1, 7))
def test_a_line_cut_short_costs_only_itself(tmp_path: Path, clock: SetClock, cut: int) -> None:
    path = tmp_path / file_name("w1")
    path.write_bytes(b"".join(line(entry, NOW) for entry in WHOLE)[:-cut])
    whole = cut == 1  # only its end is missing
    assert ids(read_all(tmp_path, KEEP, NOW)) == (["a", "b"] if whole else ["a"])
    with journal(tmp_path, clock) as opened:
        opened.keep([lock("c")], sure=True)
        assert ids(opened.read()) == (["a", "b", "c"] if whole else ["a", "c"])


@pytest.mark.parametrize(
    "junk", [b"\0" * 4096, b"\n\n\n", b"{}\n", b"\xff\xfe\n", b'{"at":1,"entry":{"type":"burn","id":"x"}}\n']
)
def test_what_is_no_entry_is_passed_over(tmp_path: Path, clock: SetClock, junk: bytes) -> None:
    path = tmp_path / file_name("w1")
    path.write_bytes(line(lock("a"), NOW) + junk + b"\n" + line(lock("b"), NOW))
    with journal(tmp_path, clock) as opened:
        assert ids(opened.read()) == ["a", "b"]


@contextmanager
def room(path: Path, octets: int) -> Iterator[None]:
    """Files end after so many octets more than `path` has: a full disk, but for this process alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("octets", [0, 1, 40, 150])
def test_a_full_disk_is_said_and_the_next_line_is_a_line(
    tmp_path: Path, clock: SetClock, octets: int
) -> None:
    with journal(tmp_path, clock) as opened:
        opened.keep([lock("a")], sure=True)
        for _ in range(2):
            with (
                room(tmp_path / file_name("w1"), octets),
                pytest.raises(OperatorError, match="journal cannot be"),
            ):
                opened.keep([lock("b", message="long" * 50)], sure=True)
        assert ids(opened.read()) == ["a"]
        opened.keep([lock("b"), lock("c")], sure=True)
        assert ids(opened.read()) == ["a", "b", "c"]


# ── getting old ──


@pytest.mark.parametrize(
    ("entries", "kept"),
    [
        pytest.param([lock("a")], [], id="a-revocation-meets-nobody-any-more"),
        pytest.param([lock("a", until=NOW + 2 * KEEP)], ["a"], id="a-lock-stands"),
        pytest.param([lock("a", until=NOW + KEEP)], [], id="a-lock-has-ended"),
        pytest.param([Lift("l", "a")], [], id="a-lift-of-nothing"),
        pytest.param(
            [lock("a", until=NOW + 2 * KEEP), Lift("l", "a")], ["a", "l"], id="a-lift-stays-with-its-lock"
        ),
    ],
)
def test_what_is_outdated_is_dropped(
    tmp_path: Path, clock: SetClock, entries: list[Entry], kept: list[str]
) -> None:
    with journal(tmp_path, clock) as opened:
        opened.keep(entries, sure=True)
        clock.now += KEEP - 1
        assert len(opened.read()) == len(entries)
        clock.now += 2
        opened.keep([lock("young")], sure=True)
        assert sorted(ids(opened.read())) == sorted([*kept, "young"])
        assert lines(tmp_path) == len(entries) + 1
    with journal(tmp_path, clock) as again:
        assert sorted(ids(again.read())) == sorted([*kept, "young"])
        assert lines(tmp_path) == len(kept) + 1


def test_its_age_does_not_begin_anew(tmp_path: Path, clock: SetClock) -> None:
    with journal(tmp_path, clock) as opened:
        opened.keep([lock("a", made_at=0.0)], sure=True)
    for _ in range(3):
        clock.now += KEEP / 2
        with journal(tmp_path, clock):
            pass
    assert lines(tmp_path) == 0


# ── several processes ──


def test_all_journals_of_a_node_are_read_together(tmp_path: Path, clock: SetClock) -> None:
    with journal(tmp_path, clock, "w1") as one, journal(tmp_path, clock, "w2") as two:
        two.keep([Lift("l", "a")], sure=False)
        clock.now += 1
        one.keep([lock("a"), lock("b")], sure=False)
        two.keep([lock("b"), lock("c")], sure=False)
        # a lift comes after its lock, whoever wrote it down first
        assert ids(one.read()) == ids(two.read()) == ["a", "b", "c", "l"]


def test_what_a_process_left_is_taken_over_by_the_next(tmp_path: Path, clock: SetClock) -> None:
    with journal(tmp_path, clock, "alive") as alive:
        alive.keep([lock("x")], sure=True)
        for number in range(3):
            with journal(tmp_path, clock, f"dead{number}") as dead:
                dead.keep([lock(f"a{number}")], sure=True)
        with journal(tmp_path, clock, "new") as new:
            assert ids(new.read()) == ["x", "a0", "a1", "a2"]
            assert new.gone == ("dead2",)  # who had taken over the others, and not who lives
            assert {path.name for path in tmp_path.iterdir()} == {file_name("alive"), file_name("new")}
            alive.keep([lock("y")], sure=True)  # goes on in its own file
            assert set(ids(new.read())) == {"x", "y", "a0", "a1", "a2"}


def test_a_living_process_is_not_robbed_of_its_file(tmp_path: Path, clock: SetClock) -> None:
    with journal(tmp_path, clock) as first:
        first.keep([lock("a")], sure=True)
        with pytest.raises(OperatorError, match="another process keeps its journal here"):
            FileJournal(tmp_path / file_name("w1"), KEEP, clock)
        first.keep([lock("b")], sure=True)
        assert ids(first.read()) == ["a", "b"]


@pytest.mark.parametrize("what", ["no-directory", "a-link", "a-directory"])
def test_a_place_that_cannot_be_used(tmp_path: Path, clock: SetClock, what: str) -> None:
    path = tmp_path / "inside" / file_name("w1")
    if what != "no-directory":
        path.parent.mkdir()
    if what == "a-link":
        (tmp_path / "target").write_text("mine")
        path.symlink_to(tmp_path / "target")
    if what == "a-directory":
        path.mkdir()
    with pytest.raises(OperatorError, match="the journal cannot be used"):
        FileJournal(path, KEEP, clock)
    if what == "a-link":
        assert (tmp_path / "target").read_text() == "mine"


WRITER = """
import sys
from pathlib import Path
from ztproxy.adapters.journal import FileJournal, file_name
from ztproxy.core.locks import ALL, Lock

journal = FileJournal(Path(sys.argv[1]) / file_name("writer"), 3600.0, lambda: 1_000_000.0)
for number in range(1_000_000):
    journal.keep([Lock(f"r{number}", ALL)], sure=True)
    print(number, flush=True)
"""


def test_what_a_killed_process_was_sure_of_is_there(tmp_path: Path, clock: SetClock) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    sure = [f"r{number.strip()}" for number in said if number.endswith("\n")]
    with journal(tmp_path, clock, "next") as following:
        kept = ids(following.read())
    assert len(sure) >= 50
    assert kept[: len(sure)] == sure
    assert len(kept) <= len(sure) + 1
