"""Every input that a fuzzer found worth keeping, and every one with a name, through its target."""

from __future__ import annotations

import json

import pytest

from tests.evidence import Tried
from tests.fuzz import corpus
from tests.fuzz.corpus import Entry
from tests.fuzz.registry import TARGETS

CORPUS = {name: corpus.read(name) for name in TARGETS}
TRIED = tuple(
    Tried(
        "Fuzzing",
        f"{target.what}: the corpus of the fuzzer `{name}`",
        len(CORPUS[name]),
        len(CORPUS[name]),
        "every property holds",
    )
    for name, target in TARGETS.items()
)


@pytest.mark.parametrize("name", TARGETS)
def test_every_property_holds(name: str) -> None:
    assert CORPUS[name], "a target without a corpus finds little"
    for entry in CORPUS[name]:
        try:
            TARGETS[name].run(entry.data)
        except Exception as error:
            raise AssertionError(f"{entry.name or 'found'}: {entry.data!r}") from error


def test_what_is_kept_comes_back() -> None:
    octets = bytes(range(256))
    kept = [
        Entry("", b""),
        Entry("a name", b"GET / HTTP/1.1\r\n"),
        Entry("", octets),
        Entry("\u2028", b"a" * 99 + octets[:9]),
    ]
    for entry in kept + CORPUS["jws"]:
        assert corpus.entry_of(json.loads(json.dumps(corpus.line_of(entry)))) == entry


def test_the_corpus_is_small_and_of_targets_that_exist() -> None:
    assert {file.stem for file in corpus.FOLDER.glob("*.jsonl")} == set(TARGETS)
    for name, entries in CORPUS.items():
        assert len({entry.data for entry in entries}) == len(entries), name
        assert sum(not entry.name for entry in entries) <= corpus.MOST_FOUND, name
        assert all(len(entry.data) <= corpus.LONGEST for entry in entries), name
