"""Posture: what is reported of a device, read from texts and numbers, and put together over time.

Knows: the types of facts, RFC 3339. Promises: a fact is of its declared type and not from the future, or the
error names it and the mend; of two facts about one thing the newer by its own time stays, whichever came
first, so that a report that comes late or twice changes nothing. Leaves `now` and the known facts to its
caller, and what follows from a fact to `device_conditions`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from difflib import get_close_matches
from types import MappingProxyType

from ztproxy.core.device import Fact, FactType, Value

LEAD = 300.0
"""How far a source's clock may be ahead of ours, in seconds."""

MAX_TEXT = 128
"""Characters of a fact that is a text, and of a source's name."""

MAX_NUMBER = 1 << 53
"""RFC 8259 6: beyond it readers of JSON differ."""

_WORDS = MappingProxyType({"true": True, "yes": True, "false": False, "no": False})
_INTEGER = re.compile(r"-?[0-9]{1,16}")
_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


class BadRow(ValueError):
    """One field of what somebody brought is wrong; the text says what, and what to write instead."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"`{shown(field)}` {text}" if field else text)
        self.field = field


def merged(on_file: Mapping[str, Fact], brought: Mapping[str, Fact]) -> Mapping[str, Fact]:
    """Both together: for each fact the newest by its own time; of two of one time that on file.

    Answers `on_file` itself where nothing of `brought` is newer.
    """
    newer = {
        name: fact for name, fact in brought.items() if name not in on_file or on_file[name].at < fact.at
    }
    return MappingProxyType({**on_file, **newer}) if newer else on_file


def facts_of(
    raw: object,
    types: Mapping[str, FactType],
    source: str,
    at: float,
    now: float,
    *,
    field: str,
    own_source: bool = True,
) -> Mapping[str, Fact]:
    """The facts of a mapping `{name: value}` or `{name: {"value": …, "source": …, "at": …}}`.

    `source` and `at` hold where a fact has none of its own; with `own_source` False it may have no source of
    its own. Raises `BadRow`, which names `field.name`.
    """
    if not isinstance(raw, Mapping):
        raise BadRow(field, "is not an object: write it as `{name: value}`")
    facts = {}
    for name, given in raw.items():
        here = f"{field}.{name}"
        if name not in types:
            raise unknown(here, [f"{field}.{one}" for one in types])
        keys = ("value", "source", "at") if own_source else ("value", "at")
        told = given if isinstance(given, Mapping) else {"value": given}
        for key in told:
            if key not in keys:
                raise unknown(f"{here}.{key}", [f"{here}.{one}" for one in keys])
        if "value" not in told:
            raise BadRow(f"{here}.value", "is missing")
        facts[name] = Fact(
            value_of(here, told["value"], types[name]),
            line_of(f"{here}.source", told["source"]) if "source" in told else source,
            time_of(f"{here}.at", told["at"], now) if "at" in told else at,
        )
    return MappingProxyType(facts)


def value_of(field: str, raw: object, kind: FactType) -> Value:
    """The value of a fact of this type, from JSON or from text. Raises `BadRow`."""
    if kind is bool:
        word = _WORDS.get(raw.strip().lower()) if isinstance(raw, str) else raw
        if not isinstance(word, bool):
            raise BadRow(field, "is neither true nor false: write `true` or `false`")
        return word
    if kind is int:
        number = int(raw) if isinstance(raw, str) and _INTEGER.fullmatch(raw) else raw
        if not isinstance(number, int) or isinstance(number, bool) or abs(number) > MAX_NUMBER:
            raise BadRow(field, "is not a whole number: write it in digits, such as `14`")
        return number
    return line_of(field, raw)


def line_of(field: str, raw: object) -> str:
    """One line of text, not empty. Raises `BadRow`."""
    if not isinstance(raw, str):
        raise BadRow(field, "is not a text: write it in quotes")
    text = raw.strip()
    if not 0 < len(text) <= MAX_TEXT or not text.isprintable():
        raise BadRow(field, f"is not a line of 1 to {MAX_TEXT} printable characters")
    return text


def time_of(field: str, raw: object, now: float) -> float:
    """A time in seconds since the epoch, from such seconds or from RFC 3339 with a zone. Raises `BadRow`.

    Stricter than RFC 3339: without a zone, and more than `LEAD` in the future, it is no time, for a fact from
    the future would outlive every later one.
    """
    if isinstance(raw, str) and _SECONDS.fullmatch(raw):
        at = float(raw)
    elif isinstance(raw, str):
        at = _rfc_3339(field, raw)
    elif isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) < MAX_NUMBER:
        at = float(raw)
    else:
        raise _no_time(field)
    if math.isnan(at) or at < 0:
        raise _no_time(field)
    if at > now + LEAD:
        raise BadRow(field, "is in the future: write seconds since the epoch, not milliseconds")
    return at


def _rfc_3339(field: str, text: str) -> float:
    form = _RFC_3339.fullmatch(text)
    if form is None:
        raise _no_time(field)
    if form["zone"] is None:
        raise BadRow(field, "has no zone: write `Z` or an offset such as `+02:00` behind it")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise _no_time(field) from None


def _no_time(field: str) -> BadRow:
    return BadRow(field, "is not a time: write seconds since the epoch or `2026-01-31T12:00:00Z`")


def unknown(name: str, known: Iterable[str]) -> BadRow:
    """The error for a name that is none of the known ones; it names the nearest."""
    near = get_close_matches(name, known, n=1)
    return BadRow(name, f"is unknown: did you mean `{near[0]}`?" if near else "is unknown: leave it out")


def shown(text: str) -> str:
    """What somebody wrote, for an error: short, and nothing that a terminal would obey."""
    cut = text if len(text) <= 64 else f"{text[:63]}…"
    return "".join(one if one.isprintable() and one != "`" else "?" for one in cut)
