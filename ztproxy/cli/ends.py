"""When something ends, as the command line says it: `--until` a moment, or `--for` a length of time.

Knows: how both are written. Promises: what it gives is a field of the API's forms; a mistake is an error of
usage that says what to write. Leaves how long is too long to the API.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import typer

from ztproxy.core.identity import JSON

Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="The end, like 2026-12-31T18:00Z.")
]
For = Annotated[str | None, typer.Option("--for", metavar="LENGTH", help="The end, like 30m, 2h or 90d.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def end_of(until: str | None, length: str | None) -> dict[str, JSON]:
    """The field for the API; none where no end is given."""
    if until is not None and length is not None:
        raise typer.BadParameter("give `--until` or `--for`, not both")
    if until is not None:
        return {"until": _moment(until)}
    if length is not None:
        return {"expires_in": _seconds(length)}
    return {}


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"`{text}` is not a moment, write it like `2026-12-31T18:00Z`") from None
    if moment.tzinfo is None:
        raise typer.BadParameter(f"`{text}` says no zone, write `{text}Z` or an offset like `+01:00`")
    return moment.isoformat()


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII)
    if found is None or not int(found[1]):
        raise typer.BadParameter(f"`{text}` is not a length of time, write it like `30m`, `2h` or `90d`")
    return int(found[1]) * _UNITS[found[2]]
