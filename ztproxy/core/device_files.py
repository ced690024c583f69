"""Files of rows: CSV and JSON, taken apart into rows that know where they stand.

Knows: RFC 4180 and RFC 8259, and where each is read in more than one way. Promises: what cannot be read in
one way only is refused with its line: another encoding, a NUL, a column or a key that is there twice, a row
that is shorter than the header. Leaves what the cells mean to `device_rows`, and opening files to the caller.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import NamedTuple, NoReturn

from ztproxy.core.posture import BadRow


class Placed(NamedTuple):
    """A row as it was written, and where: `line 7`, `item 3`."""

    place: str
    row: Mapping[str, object]


def read_csv(raw: bytes) -> list[Placed]:
    """The rows of a CSV file (RFC 4180, UTF-8, with or without a byte order mark), the first line of which
    names the columns. Raises `BadRow`, which names the line, where it cannot be taken apart into cells."""
    reader = csv.reader(StringIO(_text(raw), newline=""), strict=True)
    header: list[str] | None = None
    placed: list[Placed] = []
    line = 1
    try:
        for cells in reader:
            place, line = f"line {line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells)
            elif len(cells) != len(header):
                raise BadRow("", f"{place}: it has {len(cells)} cells, and the header {len(header)}")
            else:
                named = zip(header, cells, strict=True)
                placed.append(Placed(place, {name: cell.strip() for name, cell in named if cell.strip()}))
    except csv.Error as error:
        raise BadRow("", f"line {line}: it is not CSV: {error}") from None
    if header is None:
        raise BadRow("", "the file is empty: the first line names the columns, among them `id`")
    return placed


def read_json(raw: bytes) -> list[Placed]:
    """The items of a JSON array, or of the array `devices` in an object. Raises `BadRow`."""
    try:
        value = json.loads(_text(raw), object_pairs_hook=_each_once, parse_constant=_no_constant)
    except BadRow:
        raise
    except json.JSONDecodeError as error:
        raise BadRow("", f"line {error.lineno}: it is not JSON from character {error.colno} on") from None
    except (ValueError, RecursionError):
        raise BadRow("", "it is not JSON: a number is too long, or it is nested too deeply") from None
    if isinstance(value, dict) and value.keys() == {"devices"}:
        value = value["devices"]
    if not isinstance(value, list):
        raise BadRow("", "it is no list of devices: write `[{…}, {…}]`")
    return placed_items(value)


def placed_items(items: Iterable[object]) -> list[Placed]:
    """The items of a list that was JSON, each with its place, counted from 1. Raises `BadRow`."""
    placed = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise BadRow("", f'item {number}: it is no object: write `{{"id": …}}`')
        placed.append(Placed(f"item {number}", item))
    return placed


def _text(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadRow("", f"line {line}: it is not UTF-8: save the file in that encoding") from None
    if (at := text.find("\0")) >= 0:
        raise BadRow("", f"line {text.count(chr(10), 0, at) + 1}: it has a NUL character: take it out")
    return text


def _header(cells: Sequence[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if len(header) == 1 and ";" in header[0]:
        raise BadRow("", "line 1: the columns are separated by `;`: separate them by commas")
    if "id" not in header:
        raise BadRow("id", "is not among the columns that the first line names")
    twice = next((name for name, times in Counter(header).items() if times > 1), None)
    if twice is not None:
        raise BadRow(twice, "is the name of two columns" if twice else "a column has no name")
    return header


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Two readers that disagree on which of the two counts read two different devices.
        name = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise BadRow(name, "is given twice in one object")
    return members


def _no_constant(text: str) -> NoReturn:
    raise BadRow("", f"`{text}` is not JSON")
