"""JSON as RFC 8259 means it, where Python's reader is more generous: one object, each name once, no NaN.

Two readers that disagree on `{"sub": "alice", "sub": "mallory"}` are two identities; so the text is refused.
"""

import json
import math
from typing import NoReturn, cast


def _each_name_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name is given twice")
    return members


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def read_object(raw: bytes) -> dict[str, object]:
    """The object in `raw`, UTF-8 without a byte order mark. Raises `ValueError` on anything else."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_each_name_once,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return cast("dict[str, object]", value)
