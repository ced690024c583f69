"""Entries of the log of locks, written down and read again."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from ztproxy.adapters.revocation_codec import digest, line, pack, read_line, unpack, unreadable
from ztproxy.core.locks import ALL, Action, Entry, Lift, Lock, Target, TargetKind

FULL = Lock(
    "id\n1",
    Target(TargetKind.USER, "alice", "https://op.test"),
    Action.REQUIRE_STEP_UP,
    "bob",
    "why\r\n",
    "Älice ‮",
    1.5,
    2.5,
    7,
)
ENTRIES = [
    pytest.param(FULL, id="everything"),
    pytest.param(Lock("id", ALL, made_at=1.0, number=1), id="shortest"),
    *(
        pytest.param(Lock("id", Target(kind, "n"), made_at=1.0, number=2**53), id=kind.value)
        for kind in TargetKind
    ),
    pytest.param(Lift("id", "lifted", "bob", "why", 2.5, 9), id="lift"),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_was_packed_comes_back_equal_under_the_number_it_was_given(entry: Entry) -> None:
    assert unpack(pack(entry), 42, 99.0) == replace(entry, number=42)


def test_a_time_is_given_only_to_what_has_none() -> None:
    assert unpack(pack(Lock("id", ALL)), 1, 99.0).made_at == 99.0
    assert unpack(pack(Lift("id", "x")), 1, 99.0).made_at == 99.0


def test_the_same_entry_is_packed_the_same_under_any_number() -> None:
    assert pack(FULL) == pack(replace(FULL, number=8))


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_line_is_one_line_and_keeps_the_number(entry: Entry) -> None:
    written = line(entry, 12.5)
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    assert read_line(written) == (12.5, entry)


def test_a_later_programs_fields_are_passed_over() -> None:
    packed = {"type": "lock", "id": "x", "target": ["all", "", ""], "colour": "red"}
    assert unpack(msgspec.msgpack.encode(packed), 1, 1.0) == Lock("x", ALL, made_at=1.0, number=1)


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="not-msgpack"),
        pytest.param(pack(FULL)[:-1], id="cut"),
        pytest.param(pack(FULL) + b"\0", id="longer"),
        pytest.param(msgspec.msgpack.encode({"type": "lock", "id": "x"}), id="no-target"),
        pytest.param(msgspec.msgpack.encode({"type": "burn", "id": "x"}), id="unknown-type"),
        pytest.param(
            msgspec.msgpack.encode({"type": "lock", "id": "x", "target": ["planet", "", ""]}),
            id="unknown-kind",
        ),
        pytest.param(
            msgspec.msgpack.encode({"type": "lock", "id": 1, "target": ["all", "", ""]}),
            id="id-of-another-type",
        ),
    ],
)
def test_what_is_no_entry_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(packed, 1, 1.0)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"null", line(FULL, 1.0)[:-3], b'{"at":1,"entry":{"type":"lock"}}']
)
def test_what_is_no_line_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read_line(raw)


def test_an_unreadable_entry_revokes_everyone() -> None:
    lock = unreadable(5, 1000.0)
    assert (lock.target, lock.revokes, lock.number, lock.made_at) == (ALL, True, 5, 1000.0)
    assert unreadable(6, 1000.0).id != lock.id


def test_a_digest_is_64_letters_of_any_id() -> None:
    assert {len(digest(name)) for name in ("", "x", "ü" * 1000)} == {64}
