"""Posture: put together over time, and read from what feeds and operators write."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import pytest

from ztproxy.core.device import KNOWN_FACTS, Fact
from ztproxy.core.posture import LEAD, MAX_NUMBER, BadRow, facts_of, line_of, merged, shown, time_of, value_of

NOW = 1_800_000_000.0
OLD, NEW = Fact(1, "a", 10.0), Fact(2, "b", 20.0)


@pytest.mark.parametrize(
    ("on_file", "brought", "after"),
    [
        pytest.param({"x": OLD}, {"x": NEW}, {"x": NEW}, id="newer"),
        pytest.param({"x": NEW}, {"x": OLD}, {"x": NEW}, id="late"),
        pytest.param({"x": OLD}, {"x": OLD._replace(value=9)}, {"x": OLD}, id="same-time"),
        pytest.param({"x": OLD}, {"y": NEW}, {"x": OLD, "y": NEW}, id="another-fact"),
        pytest.param({}, {"y": NEW}, {"y": NEW}, id="first"),
        pytest.param({"x": OLD}, {}, {"x": OLD}, id="nothing"),
    ],
)
def test_of_two_facts_the_newer_stays(on_file: Any, brought: Any, after: Any) -> None:
    kept = MappingProxyType(dict(on_file))
    assert merged(kept, brought) == after
    assert kept == on_file
    assert (merged(kept, brought) is kept) == (after == on_file)
    assert merged(merged(kept, brought), brought) == after


@pytest.mark.parametrize(
    ("raw", "kind", "value"),
    [
        pytest.param(True, bool, True, id="bool"),
        pytest.param(" YES ", bool, True, id="yes"),
        pytest.param("false", bool, False, id="false"),
        pytest.param("no", bool, False, id="no"),
        pytest.param(14, int, 14, id="integer"),
        pytest.param("-3", int, -3, id="integer-in-text"),
        pytest.param("15.1", str, "15.1", id="text"),
        pytest.param(" =cmd() ", str, "=cmd()", id="formula-is-text"),
    ],
)
def test_values_are_of_their_type(raw: object, kind: Any, value: object) -> None:
    read = value_of("posture.x", raw, kind)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("raw", "kind", "says"),
    [
        pytest.param(1, bool, "write `true` or `false`", id="one-is-not-true"),
        pytest.param("1", bool, "write `true` or `false`", id="one-in-text"),
        pytest.param(None, bool, "write `true` or `false`", id="null"),
        pytest.param("", bool, "write `true` or `false`", id="empty"),
        pytest.param([True], bool, "write `true` or `false`", id="list"),
        pytest.param(True, int, "write it in digits", id="true-is-not-one"),
        pytest.param(1.0, int, "write it in digits", id="float"),
        pytest.param("1e3", int, "write it in digits", id="exponent"),
        pytest.param("٣", int, "write it in digits", id="arabic-digit"),
        pytest.param(MAX_NUMBER + 1, int, "write it in digits", id="too-large"),
        pytest.param("9" * 16 + "9", int, "write it in digits", id="too-long"),
        pytest.param(15.1, str, "write it in quotes", id="number-for-text"),
        pytest.param("a\nb", str, "printable characters", id="two-lines"),
        pytest.param("a\0b", str, "printable characters", id="nul"),
        pytest.param("‮b", str, "printable characters", id="bidi"),
        pytest.param("x" * 129, str, "printable characters", id="long"),
        pytest.param("  ", str, "printable characters", id="blank"),
    ],
)
def test_what_is_of_another_type_is_refused(raw: object, kind: Any, says: str) -> None:
    with pytest.raises(BadRow, match=says) as refused:
        value_of("posture.x", raw, kind)
    assert refused.value.field == "posture.x" and str(refused.value).startswith("`posture.x` ")


@pytest.mark.parametrize(
    ("raw", "at"),
    [
        pytest.param(NOW, NOW, id="seconds"),
        pytest.param(0, 0.0, id="epoch"),
        pytest.param("1700000000.5", 1700000000.5, id="seconds-in-text"),
        pytest.param("2023-11-14T22:13:20Z", 1700000000.0, id="utc"),
        pytest.param("2023-11-15t00:13:20+02:00", 1700000000.0, id="offset"),
        pytest.param("2023-11-14 22:13:20.250z", 1700000000.25, id="space-and-fraction"),
        pytest.param(NOW + LEAD, NOW + LEAD, id="a-clock-ahead"),
    ],
)
def test_times(raw: object, at: float) -> None:
    assert time_of("at", raw, NOW) == at


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param("2023-11-14T22:13:20", "has no zone", id="no-zone"),
        pytest.param("2023-11-14", "not a time", id="day"),
        pytest.param("20231114T221320Z", "not a time", id="basic-form"),
        pytest.param("2023-13-14T22:13:20Z", "not a time", id="month-13"),
        pytest.param("0001-01-01T00:00:00+23:59", "not a time", id="before-time"),
        pytest.param("1900-01-01T00:00:00Z", "not a time", id="before-the-epoch"),
        pytest.param("yesterday", "not a time", id="word"),
        pytest.param("", "not a time", id="empty"),
        pytest.param(-1, "not a time", id="negative"),
        pytest.param(math.nan, "not a time", id="nan"),
        pytest.param(math.inf, "not a time", id="inf"),
        pytest.param(10**400, "not a time", id="huge"),
        pytest.param(True, "not a time", id="true"),
        pytest.param(None, "not a time", id="null"),
        pytest.param(NOW + LEAD + 1, "in the future", id="future"),
        pytest.param(NOW * 1000, "not milliseconds", id="milliseconds"),
        pytest.param("2099-01-01T00:00:00Z", "in the future", id="future-in-words"),
    ],
)
def test_what_is_no_time(raw: object, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        time_of("at", raw, NOW)


def test_facts_have_the_source_and_time_of_the_whole_where_they_have_none() -> None:
    raw = {
        "disk_encrypted": True,
        "os_version": {"value": "15.1", "source": "jamf", "at": 5},
        "edr_running": {"value": "no", "at": "1970-01-01T00:00:07Z"},
    }
    assert facts_of(raw, KNOWN_FACTS, "import", 9.0, NOW, field="posture") == {
        "disk_encrypted": Fact(True, "import", 9.0),
        "os_version": Fact("15.1", "jamf", 5.0),
        "edr_running": Fact(False, "import", 7.0),
    }


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param([], "`posture` is not an object", id="list"),
        pytest.param({"disk_encrypte": True}, "did you mean `posture.disk_encrypted`", id="nearest"),
        pytest.param({"zzzzzzz": True}, "is unknown: leave it out", id="nothing-near"),
        pytest.param({"edr_running": {"at": 5}}, "`posture.edr_running.value` is missing", id="no-value"),
        pytest.param(
            {"edr_running": {"valu": 5}}, "did you mean `posture.edr_running.value`", id="unknown-key"
        ),
        pytest.param(
            {"edr_running": {"value": True, "source": ""}},
            "`posture.edr_running.source` is not a line",
            id="no-source",
        ),
        pytest.param(
            {"edr_running": {"value": True, "at": "x"}}, "`posture.edr_running.at` is not a time", id="time"
        ),
        pytest.param({"edr_running": {"value": {}}}, "write `true` or `false`", id="nested"),
    ],
)
def test_facts_that_are_none(raw: object, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        facts_of(raw, KNOWN_FACTS, "import", 9.0, NOW, field="posture")


def test_a_feed_cannot_speak_for_another() -> None:
    with pytest.raises(BadRow, match=r"facts.edr_running.source` is unknown"):
        told = {"edr_running": {"value": True, "source": "jamf"}}
        facts_of(told, KNOWN_FACTS, "edr", 9.0, NOW, field="facts", own_source=False)


def test_what_is_shown_of_somebody_elses_text_is_short_and_plain() -> None:
    assert shown("a`\x1b[2Jb") == "a??[2Jb"
    assert shown("x" * 64) == "x" * 64 and len(shown("x" * 65)) == 64
    assert line_of("name", " a b ") == "a b"
    assert str(BadRow("", "the file is empty")) == "the file is empty"
