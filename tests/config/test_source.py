"""YAML's traps, each with what an operator is told."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import pytest

from ztproxy.config.mistakes import ConfigErrors, FromEnv
from ztproxy.config.source import MAX_BYTES, MAX_DEPTH, Source, read


def source(text: str | bytes, **environment: str) -> Source:
    return read(text.encode() if isinstance(text, str) else text, "z.yaml", environment)


def refused(text: str | bytes, **environment: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        source(text, **environment)
    return str(caught.value)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        pytest.param("NO", "NO", id="norway"),
        pytest.param("yes", "yes", id="yes-is-a-word"),
        pytest.param("on", "on", id="on-is-a-word"),
        pytest.param("off", "off", id="off-is-a-word"),
        pytest.param("true", True, id="true"),
        pytest.param("False", False, id="false-capital"),
        pytest.param("12:30", "12:30", id="no-sexagesimal"),
        pytest.param("2026-01-01", "2026-01-01", id="no-date"),
        pytest.param("010", 10, id="no-octal"),
        pytest.param("0x10", "0x10", id="no-hexadecimal"),
        pytest.param("1_000", "1_000", id="no-underscore"),
        pytest.param("-7", -7, id="negative"),
        pytest.param("1.2", 1.2, id="float"),
        pytest.param("1e3", "1e3", id="exponent-needs-a-dot"),
        pytest.param("9" * 30, "9" * 30, id="a-huge-number-is-text"),
        pytest.param('"true"', "true", id="quoted-true-is-text"),
        pytest.param("'1'", "1", id="quoted-number-is-text"),
        pytest.param("!", "!", id="not-a-tag"),
    ],
)
def test_types_are_those_of_yaml_1_2(scalar: str, value: object) -> None:
    if scalar == "!":
        assert "tag" in refused(f"a: {scalar} x")
        return
    tree = source(f"a: {scalar}").tree
    assert tree == {"a": value}
    assert isinstance(tree, dict) and type(tree["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "a: 1\nb: 2\na: 3\n",
            "z.yaml:3: a: the key is written twice, first on line 1, remove one of them",
            id="duplicate-key",
        ),
        pytest.param("a:\n\tb: 1\n", "z.yaml:2: a tab indents this line, indent with spaces", id="tab"),
        pytest.param(
            "a: b: c\n",
            "z.yaml:1: a second `: ` stands on this line, put the value in quotes or start a new line",
            id="two-colons",
        ),
        pytest.param(
            "a: !!python/object/apply:os.system ['id']\n",
            "z.yaml:1: the tag `tag:yaml.org,2002:python/object/apply:os.system` is not accepted, remove it",
            id="python-tag",
        ),
        pytest.param("a: !x 1\n", "z.yaml:1: the tag `!x` is not accepted, remove it", id="own-tag"),
        pytest.param(
            "a: &a {b: 1}\nc:\n  <<: *a\n",
            "z.yaml:3: c: `<<` merges are not part of YAML 1.2, repeat the lines",
            id="merge-key",
        ),
        pytest.param(
            "a: *nobody\n",
            "z.yaml:1: `*nobody` names nothing written above it, write `&nobody` first",
            id="unknown-alias",
        ),
        pytest.param(
            "a: &a [*a]\n",
            "z.yaml:1: `*a` names nothing written above it, write `&a` first",
            id="alias-of-itself",
        ),
        pytest.param(
            "a:\n", "z.yaml:1: a: this key has no value, write one or remove the line", id="no-value"
        ),
        pytest.param("a: ~\n", "z.yaml:1: a: this key has no value, write one or remove the line", id="null"),
        pytest.param(
            "a: 1\n---\nb: 2\n",
            "z.yaml:2: a second document starts here, write one document a file",
            id="two-documents",
        ),
        pytest.param(
            "%YAML 1.1\n---\na: 1\n",
            "z.yaml:2: this is read as YAML 1.2, remove the `%YAML` line",
            id="yaml-1.1",
        ),
        pytest.param(
            "# of old\n%YAML 1.0\n---\na: 1\n",
            "z.yaml:2: this is read as YAML 1.2, remove the `%YAML` line",
            id="%YAML_1.0",
        ),
        pytest.param(
            "%YAML 1.3\n---\na: 1\n",
            "z.yaml:1: this is read as YAML 1.2, remove the `%YAML` line",
            id="%YAML_1.3",
        ),
        pytest.param("", "z.yaml: the file is empty, see `ztproxy init`", id="empty"),
        pytest.param("# nothing\n", "z.yaml: the file is empty, see `ztproxy init`", id="comments-alone"),
        pytest.param("\n- a\n", "z.yaml:2: the file is not a mapping, write `key: value` lines", id="a-list"),
        pytest.param(
            "? [a]\n: 1\n", "z.yaml:1: a key is a list or a mapping, write a word", id="list-as-key"
        ),
        pytest.param(
            "a: 1\nb: \x01\n",
            "z.yaml:2: the file holds a character that YAML does not allow, remove it",
            id="control-character",
        ),
        pytest.param(b"a: 1\nb: \xff\n", "z.yaml:2: the file is not UTF-8, save it as UTF-8", id="not-utf-8"),
        pytest.param(
            "a: [1\n",
            "z.yaml:2: this is not YAML: expected ',' or ']', but got '<stream end>'",
            id="open-bracket",
        ),
        pytest.param(
            "a: " + "[" * 100_000,
            f"z.yaml:1: this is nested too deeply, {MAX_DEPTH} levels are allowed",
            id="deep-nesting",
        ),
        pytest.param(
            b" " * (MAX_BYTES + 1),
            "z.yaml: the file is larger than 4 MiB, split it up or check that it is the right file",
            id="too-large",
        ),
    ],
)
def test_what_has_two_readings_is_refused(text: str | bytes, message: str) -> None:
    assert refused(text) == message


def test_a_bomb_of_aliases_ends_early() -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert refused("\n".join(layers)).endswith(
        "the file expands to more than 200000 values, use fewer aliases"
    )


def test_an_alias_is_what_it_names() -> None:
    read_ = source("a: &who [x, y]\nb: *who\n")
    assert read_.tree == {"a": ["x", "y"], "b": ["x", "y"]}
    assert str(read_.place(("b", 1))) == "z.yaml:1: b[1]"


def test_all_mistakes_of_form_come_at_once() -> None:
    text = "a: 1\na: 2\nb:\nc: ${MISSING}\n"
    assert refused(text).count("\n") == 2


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        pytest.param("${NAME}", "from outside", id="set"),
        pytest.param("'${NAME}'", "from outside", id="quoted"),
        pytest.param("${OTHER:-spare}", "spare", id="default"),
        pytest.param("${NAME:-spare}", "from outside", id="set-beats-default"),
        pytest.param("${EMPTY:-spare}", "", id="empty-is-set"),
        pytest.param("${OTHER:-}", "", id="empty-default"),
        pytest.param("$${NAME}", "${NAME}", id="escaped"),
        pytest.param("$NAME", "$NAME", id="no-braces"),
    ],
)
def test_the_environment_fills_in_whole_values(scalar: str, value: str) -> None:
    assert source(f"a: {scalar}", NAME="from outside", EMPTY="").tree == {"a": value}


@pytest.mark.parametrize(
    ("scalar", "message"),
    [
        pytest.param(
            "${NAME}",
            "z.yaml:1: a: the environment variable `NAME` is not set, set it or write `${NAME:-default}`",
            id="unset",
        ),
        pytest.param(
            "https://${NAME}/",
            "z.yaml:1: a: `${...}` must be the whole value, put all of it into one variable, or write `$${` for "
            "the text `${`",
            id="a-part",
        ),
    ],
)
def test_a_variable_that_cannot_be_filled_in_is_refused(scalar: str, message: str) -> None:
    assert refused(f"a: {scalar}") == message


def test_a_key_is_never_filled_in() -> None:
    assert source("${NAME}: 1", NAME="listen").tree == {"${NAME}": 1}


def test_a_value_from_the_environment_does_not_show_itself() -> None:
    value = source("a: ${TOKEN}", TOKEN="hunter2").tree
    assert "hunter2" not in repr(value)
    assert isinstance(value, dict) and isinstance(value["a"], FromEnv)


def test_every_key_and_entry_knows_its_line() -> None:
    read_ = source("a:\n  b:\n    - c: 1\n\n    - c: 2\n")
    assert [
        str(read_.place(loc)) for loc in [("a",), ("a", "b", 1, "c"), ("a", "b", 1, "missing"), ("z",), ()]
    ] == [
        "z.yaml:1: a",
        "z.yaml:5: a.b[1].c",
        "z.yaml:5: a.b[1]",
        "z.yaml",
        "z.yaml",
    ]
