"""Answers as people read them on a terminal.

Knows: that names, agents and messages are written by strangers. Promises: what is shown moves no cursor,
changes no colour and turns no neighbour round: every character that cannot be seen is written out as JSON
escapes it. Leaves the meaning of the fields to the commands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from ztproxy.core.identity import JSON

_WIDEST = 48
_NONE = "-"
_FRACTION = re.compile(r"\.[0-9]+(?=Z\Z)")


def plain(text: object) -> str:
    """`str.isprintable` is false for control and format characters (directions among them), surrogates, and
    every space but the plain one."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in str(text))


def shown(value: JSON) -> str:
    """Any value in one line."""
    if value is None or value in ("", [], {}):
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{plain(name)} {shown(one)}" for name, one in value.items())
    return plain(value)


def when(time: str) -> str:
    """A time of the API (RFC 3339) to the second, which is enough for a list."""
    return _FRACTION.sub("", time)


def at(record: JSON, path: str) -> JSON:
    """What is at `user.email`; None where there is no such thing."""
    for step in path.split("."):
        if not isinstance(record, dict):
            return None
        record = record.get(step)
    return record


def table(columns: Sequence[str], rows: Iterable[Sequence[JSON]]) -> list[str]:
    """Aligned columns below their names. All but the first are cut where they are too wide: the first is what
    other commands take."""
    cells = [tuple(columns)]
    cells += [tuple(_cut(shown(one), whole=not at) for at, one in enumerate(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def facts(record: Mapping[str, JSON]) -> list[str]:
    """A name and a value on each line; what is a record itself is given with its own names, `user.email`."""
    found = _flat(record, "")
    width = max((len(name) for name, _ in found), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in found]


def report(value: Mapping[str, JSON]) -> list[str]:
    """Any report: its facts, then each list of records (or mapping to records) in it as a table."""
    tables = {name: records for name, inner in value.items() if (records := _records(inner))}
    lines = facts({name: inner for name, inner in value.items() if name not in tables})
    for name, records in tables.items():
        columns = list(dict.fromkeys(key for record in records for key in record))
        lines += ["", plain(name)]
        lines += table(
            [plain(key) for key in columns], ([one.get(key) for key in columns] for one in records)
        )
    return lines


def data(value: JSON) -> str:
    """For programs: one line of JSON in ASCII, so that it is harmless on a terminal too."""
    return json.dumps(value)


def _cut(text: str, *, whole: bool) -> str:
    return text if whole or len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _flat(record: Mapping[str, JSON], before: str) -> list[tuple[str, str]]:
    found = []
    for name, value in record.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{before}{plain(name)}.")
        else:
            found.append((f"{before}{plain(name)}", shown(value)))
    return found


def _records(value: JSON) -> list[dict[str, JSON]]:
    """The records in a list of them, or in a mapping to them with its keys as the first column."""
    if isinstance(value, dict):
        named = [{"": key, **one} for key, one in value.items() if isinstance(one, dict)]
        return named if len(named) == len(value) else []
    if isinstance(value, list):
        listed = [one for one in value if isinstance(one, dict)]
        return listed if len(listed) == len(value) else []
    return []
