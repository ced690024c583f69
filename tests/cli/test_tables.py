"""Answers on a terminal: aligned, and harmless whoever wrote the names in them."""

from __future__ import annotations

import json

import pytest

from ztproxy.cli.tables import at, data, facts, plain, report, shown, table, when
from ztproxy.core.identity import JSON


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("Zoë 李", "Zoë 李", id="letters"),
        pytest.param("\x1b[2J\x1b]0;x\x07", r"\u001b[2J\u001b]0;x\u0007", id="clears the screen"),
        pytest.param("a\nrevoked b", r"a\nrevoked b", id="a line of its own"),
        pytest.param("a\rb", r"a\rb", id="over the line's beginning"),
        pytest.param("\u202eecila", r"\u202eecila", id="turned round"),
        pytest.param("\u2066a\u2069", r"\u2066a\u2069", id="isolated"),
        pytest.param("a\u200bb", r"a\u200bb", id="nothing between"),
        pytest.param("a\u00a0b", r"a\u00a0b", id="a space that is none"),
        pytest.param("\x9b2J", r"\u009b2J", id="one octet that begins a sequence"),
        pytest.param("\ud800", r"\ud800", id="half a character"),
        pytest.param("\U000e0041", r"\udb40\udc41", id="an invisible tag"),
    ],
)
def test_plain(text: str, told: str) -> None:
    assert plain(text) == told
    assert plain(text).isprintable()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (0.0, "0"),
        (1.5, "1.5"),
        (12, "12"),
        (["a", None, "\x1b"], r"a, -, \u001b"),
        ({"a\x1b": 1, "b": [2]}, r"a\u001b 1, b 2"),
    ],
)
def test_shown(value: JSON, told: str) -> None:
    assert shown(value) == told


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("2026-11-22T05:58:06.260000Z", "2026-11-22T05:58:06Z"),
        ("2026-11-22T05:58:06Z", "2026-11-22T05:58:06Z"),
        ("1.5", "1.5"),
        ("", ""),
    ],
)
def test_when(time: str, told: str) -> None:
    assert when(time) == told


def test_at() -> None:
    assert at({"user": {"email": "a"}}, "user.email") == "a"
    assert at({"user": {}}, "user.email") is None
    assert at({"user": "a"}, "user.email") is None


def test_a_table_is_aligned() -> None:
    rows: list[list[JSON]] = [["1", "alice", None], ["22", "b" * 60, "\x1b[31m"]]
    assert table(("ID", "NAME", "X"), rows) == [
        "ID  NAME                                              X",
        "1   alice                                             -",
        "22  " + "b" * 47 + r"…  \u001b[31m",
    ]


def test_the_first_column_is_never_cut() -> None:
    assert table(("ID",), [["x" * 100]])[1] == "x" * 100


def test_facts() -> None:
    assert facts({"id": "s1", "user": {"email": "a", "groups": ["x", "y"]}, "seen": None}) == [
        "id           s1",
        "user.email   a",
        "user.groups  x, y",
        "seen         -",
    ]
    assert facts({}) == []


def test_a_report() -> None:
    value: dict[str, JSON] = {
        "number": 3,
        "workers": [{"worker": "w1", "applied": 3}, {"worker": "w2", "behind": 1}],
        "by_name": {"a": {"x": 1}},
        "mixed": [1, {"x": 1}],
        "topology": {"kind": "standalone"},
    }
    assert report(value) == [
        "number         3",
        "mixed          1, x 1",
        "topology.kind  standalone",
        "",
        "workers",
        "worker  applied  behind",
        "w1      3        -",
        "w2      -        1",
        "",
        "by_name",
        "   x",
        "a  1",
    ]


def test_data_is_ascii_on_one_line() -> None:
    value: JSON = {"agent": "\x1b[2J\u202e\x9b"}
    assert data(value).isascii() and data(value).isprintable()
    assert json.loads(data(value)) == value
