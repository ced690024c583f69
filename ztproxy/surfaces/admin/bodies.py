"""Bodies and queries, read in one way or not at all (A14, A15, A17).

Knows: JSON (RFC 8259) and the forms that are described beside the handlers. Promises: what is read has no
unknown or doubled field, no null where a value is asked for, no number JSON has not, no text with control
characters or longer than 1 KiB; the problem names the field. Leaves what the values mean to the handlers,
and the texts of many rows at once to whoever reads rows and names the place of each mistake.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NoReturn, TypeVar

import msgspec

from ztproxy.core.identity import JSON
from ztproxy.surfaces.admin.problems import Kind, Problem

MAX_BODY = 64 * 1024
MAX_BULK = 32 * 1024 * 1024
"""Of a body that lists many devices."""

MAX_VALUES = 1_000_000
"""In such a body: a million empty objects are 3 MiB of text and a hundred of memory, all of it on the heap of
the process that revokes."""

MAX_TEXT = 1024
MAX_DEPTH = 16


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """An answer; what it shows is the fields it declares."""

    def kept(self) -> Shape:
        """The answer as it may be kept for a repeat of the same request: without what is shown once."""
        return self


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody filled in; nothing but the fields it declares."""


class Nothing(Form, frozen=True):
    """No fields at all."""


F = TypeVar("F", bound=Form)

_BEFORE_VALUES = (b",", b"[", b"{")  # one of them stands before every value but the first, or holds it
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`( - at `\$(?P<at>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`( - at `\$(?P<at>.*)`)?")
_AT = re.compile(r"(?P<what>.*?)( - at `\$(?P<at>.*)`)?", re.DOTALL)


def read_body(raw: bytes, form: type[F], *, texts: bool = True) -> F:
    """The form in a JSON object; no body at all is an empty one. With `texts` False they are not judged, nor
    how deeply they lie, but how many there are. Raises a `Problem`."""
    if not texts and sum(map(raw.count, _BEFORE_VALUES)) > MAX_VALUES:
        raise Problem(Kind.TOO_LARGE, f"a body has at most {MAX_VALUES} values: send it in parts")
    try:
        value: JSON = json.loads(
            raw.decode() if raw else "{}",
            object_pairs_hook=_each_once,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_within_reason,
        )
    except UnicodeDecodeError:
        raise Problem(Kind.BAD_REQUEST, "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Problem(Kind.BAD_REQUEST, f"the body is not JSON from character {error.pos} on") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise Problem(Kind.BAD_REQUEST, "the body is not a JSON object")
    if texts:
        for name, text in _texts(value, ()):
            check_text(text, name)
    return _fill(value, form, strict=True)


def read_query(pairs: Iterable[tuple[str, str]], form: type[F]) -> F:
    """The form in a query. Raises a `Problem`."""
    values: dict[str, JSON] = {}
    for name, value in pairs:
        check_text(name, "")
        check_text(value, name)
        if name in values:
            raise Problem(Kind.INVALID, "it is given twice", name)
        values[name] = value
    return _fill(values, form, strict=False)


def check_text(text: str, field: str) -> str:
    """`text`, unless it is too long or no line of text. Surrogates are no text at all."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
        raise Problem(Kind.INVALID, f"it is longer than {MAX_TEXT} bytes", field)
    if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in text):
        raise Problem(Kind.INVALID, "it has a character that is not for one line of text", field)
    return text


def _fill(value: dict[str, JSON], form: type[F], *, strict: bool) -> F:
    try:
        return msgspec.convert(value, form, strict=strict)
    except msgspec.ValidationError as error:
        raise _told(str(error)) from None


def _told(message: str) -> Problem:
    """The field and the fault in msgspec's words: "Expected `str`, got `int` - at `$.target.kind`"."""
    if found := _UNKNOWN.fullmatch(message):
        return Problem(Kind.INVALID, "there is no such field", _path(found["at"], found[1]))
    if found := _MISSING.fullmatch(message):
        return Problem(Kind.INVALID, "it is missing", _path(found["at"], found[1]))
    found = _AT.fullmatch(message)
    assert found is not None
    return Problem(Kind.INVALID, f"{found['what'][:1].lower()}{found['what'][1:]}", _path(found["at"]))


def _path(at: str | None, last: str = "") -> str:
    return ".".join(part for part in ((at or "").removeprefix("."), last) if part)


def _each_once(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        # Two readers that disagree on which of the two counts are two different requests.
        raise Problem(Kind.INVALID, "it is given twice", check_text(twice, ""))
    return members


def _no_constant(text: str) -> NoReturn:
    raise Problem(Kind.BAD_REQUEST, f"`{text}` is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Problem(Kind.BAD_REQUEST, "a number is too large")
    return number


def _within_reason(text: str) -> int:
    """RFC 8259 6: beyond 2^53 readers differ."""
    if len(text) > 17 or abs(int(text)) > 1 << 53:
        raise Problem(Kind.BAD_REQUEST, "a number is too large")
    return int(text)


def _texts(value: JSON, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Every text in `value`, names too, with the field it is in. Raises for what is nested too deeply."""
    if len(path) > MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, str):
        yield ".".join(path), value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield ".".join(path), name
            yield from _texts(inner, (*path, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, (*path, "[]"))


def _too_deep() -> Problem:
    return Problem(Kind.BAD_REQUEST, "the body is nested too deeply")
