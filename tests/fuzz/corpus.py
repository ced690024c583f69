"""The committed corpus: one file a target, one input a line, readable where it is text.

    {"name": "H28 vertical tab", "text": "GET / HTTP/1.1\\r\\n…"}      kept for what it is
    {"bytes": "FgMBAgA="}                                             found by a fuzzer; may be replaced

Files of thousands of inputs would be thousands of files; a line is one to read in a review too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "corpus"
MOST_FOUND = 120
"""Inputs without a name that are kept for one target."""
LONGEST = 4096


class Entry(NamedTuple):
    """`name` is empty for what a fuzzer found."""

    name: str
    data: bytes


def read(target: str) -> list[Entry]:
    file = FOLDER / f"{target}.jsonl"
    if not file.exists():
        return []
    return [entry_of(json.loads(line)) for line in file.read_text("ascii").splitlines()]


def write(target: str, entries: Iterable[Entry]) -> None:
    """Named ones first, in their order; then those found, by size. Each input once."""
    ordered = sorted(entries, key=lambda entry: (not entry.name, 0 if entry.name else len(entry.data)))
    once: dict[bytes, Entry] = {}
    for entry in ordered:
        once.setdefault(entry.data, entry)
    FOLDER.mkdir(exist_ok=True)
    text = "".join(json.dumps(line_of(entry)) + "\n" for entry in once.values())
    (FOLDER / f"{target}.jsonl").write_text(text, "ascii")


def entry_of(line: dict[str, str]) -> Entry:
    text = line.get("text")
    data = base64.b64decode(line["bytes"]) if text is None else text.encode("latin-1")
    return Entry(line.get("name", ""), data)


def line_of(entry: Entry) -> dict[str, str]:
    named = {"name": entry.name} if entry.name else {}
    plain = sum(32 <= octet < 127 or octet in b"\t\r\n" for octet in entry.data)
    if plain >= 0.9 * len(entry.data):
        return {**named, "text": entry.data.decode("latin-1")}
    return {**named, "bytes": base64.b64encode(entry.data).decode("ascii")}
