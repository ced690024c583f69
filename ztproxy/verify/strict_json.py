"""JSON as RFC 8259 means it, where Python's reader is more generous: one object, each name once, no NaN.

Two readers that disagree on `{"sub": "alice", "sub": "mallory"}` are two identities; so the text is refused,
and so is every other that programs are known to read differently: lone surrogates, numbers beyond all bounds,
and nesting that ends some readers. The same rules as ztproxy's own, in a file of their own, since an
application has nothing else of ztproxy.
"""

import json
import math
from typing import NoReturn, cast

_MAX_DEPTH = 32
_MAX_DIGITS = 20


def _each_name_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is given twice")
    return members


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is not JSON")


def _short_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number is too long")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _plain(value: object, levels: int) -> None:
    if levels == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate is a `str` to Python but no text
    elif isinstance(value, list):
        for item in value:
            _plain(item, levels - 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            _plain(name, levels)
            _plain(item, levels - 1)


def read_object(raw: bytes) -> dict[str, object]:
    """The object in `raw`, UTF-8 without a byte order mark. Raises `ValueError` on anything else."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_each_name_once,
            parse_constant=_refuse_constant,
            parse_int=_short_integer,
            parse_float=_finite,
        )
        _plain(value, _MAX_DEPTH)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return cast("dict[str, object]", value)
