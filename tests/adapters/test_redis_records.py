"""Names of keys and places of seals: no two things may have the same, and all keys lie in one slot."""

from __future__ import annotations

import logging

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from tests.adapters.state_worlds import ISSUER, KEY_A, KEY_B
from ztproxy.adapters.redis_records import PREFIX, Records, milliseconds
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.locks import ALL, Target, TargetKind

ID, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def records(state_client: Redis) -> Records:
    return Records(state_client, Sealer([KEY_A]), PREFIX)


TARGETS = [
    Target(TargetKind.USER, "alice", ISSUER),
    Target(TargetKind.USER, "lice", ISSUER + "a"),
    Target(TargetKind.USER, "alice"),
    Target(TargetKind.USER, ISSUER + "alice"),
    Target(TargetKind.IDP_SESSION, "alice", ISSUER),
    Target(TargetKind.DEVICE, "alice"),
    Target(TargetKind.DEVICE, "}{:*"),
    ALL,
]


def test_every_target_has_an_index_of_its_own(records: Records) -> None:
    indexes = [records.index(target) for target in TARGETS]
    assert None not in indexes and len(set(indexes)) == len(TARGETS)


@pytest.mark.parametrize("kind", [TargetKind.SESSION, TargetKind.GROUP, TargetKind.ROUTE])
def test_some_kinds_have_none(records: Records, kind: TargetKind) -> None:
    assert records.index(Target(kind, "x")) is None


def test_every_key_lies_in_one_slot_of_a_cluster(records: Records) -> None:
    keys = [records.handle_key("h"), records.record_key(ID), records.record_key("}{x}")]
    keys += [str(records.index(target)) for target in TARGETS]
    assert {key_slot(key.encode()) for key in keys} == {key_slot(b"ztp")}


@pytest.mark.parametrize(
    ("session_id", "name"),
    [
        pytest.param(OTHER, "f", id="another-session"),
        pytest.param(ID, "b", id="another-field"),
        pytest.param(ID, "", id="no-field"),
    ],
)
def test_what_was_sealed_for_one_place_opens_at_no_other(
    records: Records, session_id: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    sealed = records.seal_openly(ID, "f", b"facts")
    assert records.open_openly(ID, "f", sealed, bytes) == b"facts"
    assert records.open_openly(session_id, name, sealed, bytes) is None
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert "facts" not in caplog.text


def test_nothing_is_nothing_and_says_nothing(records: Records, caplog: pytest.LogCaptureFixture) -> None:
    assert records.open_openly(ID, "f", None, bytes) is None
    assert caplog.records == []


def test_an_old_key_is_a_warning_and_an_unreadable_record_is_not(
    records: Records, state_client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    other = Records(state_client, Sealer([KEY_B]), PREFIX)
    sealed = records.seal_openly(ID, "f", b"facts")
    assert other.open_openly(ID, "f", sealed, bytes) is None
    assert records.open_openly(ID, "f", sealed, int) is None  # ValueError: `facts` is no number
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.CRITICAL]


@pytest.mark.parametrize(("seconds", "ms"), [(0.0, 1), (-5.0, 1), (0.0004, 1), (0.0016, 2), (60.0, 60_000)])
def test_a_time_to_live_is_never_nothing(seconds: float, ms: int) -> None:
    """Redis refuses a time to live of 0; without any, the value would stay for ever."""
    assert milliseconds(seconds) == ms
