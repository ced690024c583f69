"""How mistakes are worded and ordered."""

from __future__ import annotations

from pathlib import Path

import pytest

from ztproxy.config.document import Document
from ztproxy.config.mistakes import ConfigErrors, FromEnv, did_you_mean, known_keys, quoted
from ztproxy.errors import OperatorError, Place


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("a", "`a`", id="text"),
        pytest.param(True, "`true`", id="flag"),
        pytest.param(1.5, "`1.5`", id="number"),
        pytest.param({"a": 1}, "a mapping", id="mapping"),
        pytest.param([1], "a list", id="list"),
        pytest.param(FromEnv("hunter2", "TOKEN"), "`${TOKEN}`", id="from-outside"),
        pytest.param("a\x1b[31m\nb", "`a\ufffd[31m\ufffdb`", id="terminal-escape"),
        pytest.param("x" * 100, "`" + "x" * 77 + "...`", id="long"),
        pytest.param(Path("/" + "x" * 100), "`/" + "x" * 100 + "`", id="a-path-in-full"),
    ],
)
def test_input_is_shown_in_backticks(value: object, shown: str) -> None:
    assert quoted(value) == shown


@pytest.mark.parametrize(
    ("word", "mend"),
    [
        pytest.param("polcy", "did you mean `policy`?", id="near"),
        pytest.param("ROUTES", "did you mean `routes`?", id="capitals"),
        pytest.param("out", "did you mean `routes`?", id="a-part"),
        pytest.param("zzz", "write one of `policy`, `routes`", id="far"),
        pytest.param("", "write one of `policy`, `routes`", id="empty"),
    ],
)
def test_the_nearest_word_is_offered(word: str, mend: str) -> None:
    assert did_you_mean(word, ["routes", "policy"]) == mend


def test_errors_come_by_line_and_each_once() -> None:
    later = OperatorError("b", "", Place("z", 9, "k"))
    first = OperatorError("a", "", Place("z", 2, "k"))
    nowhere = OperatorError("c")
    errors = ConfigErrors([later, first, nowhere])
    assert errors.errors == (nowhere, first, later)
    assert str(errors) == "c\nz:2: k: a\nz:9: k: b"


def test_known_keys_follow_the_models() -> None:
    assert "is" in known_keys(Document, ("routes", 0, "policy", 0, "allow", "path"))
    assert known_keys(Document, ("provider", "parameters")) == []
    assert known_keys(Document, ("nonsense", "x")) == []
