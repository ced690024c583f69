"""What came of it, said honestly.

Knows: the ways a write can end. Promises: "done" is said only of what holds everywhere; of everything else
the page says what is known and offers to ask again with the very same form, which is how a revocation that
was not confirmed becomes so. Leaves doing it to `acting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.revoking import Applied
from ztproxy.surfaces.console.asked import Ask, Sheet
from ztproxy.surfaces.console.views import sessions_of

TRY_AGAIN = frozenset({Kind.UNCONFIRMED, Kind.NOT_APPLIED, Kind.AUDIT_UNAVAILABLE, Kind.UNAVAILABLE})
"""Not the asker's fault: the same form may well succeed a moment later."""

_SAID = {
    Kind.UNCONFIRMED: "It is in force wherever it was heard. A worker that has not heard of it lets nobody "
    "in once its lease runs out. Nobody can say yet that it holds everywhere, or that it would survive the "
    "loss of a server. Ask again until it is confirmed.",
    Kind.NOT_APPLIED: "The store is away. Nothing is in force.",
    Kind.AUDIT_UNAVAILABLE: "The audit log cannot be written, so nothing was done.",
    Kind.UNAVAILABLE: "Something broke off half way: it may or may not be in force. Look, or ask again.",
}

Hidden = Sequence[tuple[str, str]]


class Again(NamedTuple):
    """The form once more. `emergency`: it may go on without the audit log."""

    action: str
    hidden: Hidden
    emergency: bool


def result(
    ask: Ask,
    outcomes: Sequence[Applied | Problem],
    *,
    done: str,
    back: tuple[str, str],
    again: tuple[str, Hidden],
    may_hurry: bool = True,
) -> Sheet:
    """The page after a write of one entry or several; problems beyond `TRY_AGAIN` are raised before."""
    applied = [one for one in outcomes if isinstance(one, Applied)]
    problems = [one for one in outcomes if isinstance(one, Problem)]
    # A lift that was not heard everywhere yet answers without a problem: it opens, so nothing is unsafe.
    unheard = [one for one in applied if not one.confirmed]
    lines = _lines([one for one in applied if one.confirmed])
    lines += [f"{number} × {_SAID[kind]}" if number > 1 else _SAID[kind] for kind, number in _kinds(problems)]
    if unheard:
        lines.append("It is in the log, but not everybody has heard of it yet.")
    title, tried = done, None
    if problems or unheard:
        title = "Not confirmed everywhere yet"
        if any(one.kind is not Kind.UNCONFIRMED for one in problems):
            title = "Only a part was done" if applied else "This was not done"
    if problems:
        hurry = may_hurry and any(one.kind is Kind.AUDIT_UNAVAILABLE for one in problems)
        tried = Again(again[0], [("form_key", ask.visitor.form_key), *again[1]], hurry)
    values: dict[str, object] = {"title": title, "lines": lines, "again": tried, "back": back}
    return Sheet("console_result.html", values, 503 if problems else 200)


def _lines(done: Sequence[Applied]) -> list[str]:
    if not done:
        return []
    numbers = [one.matched for one in done]
    known = [one for one in numbers if one is not None]
    lines = []
    if known:
        exact = len(known) == len(done) and all(one.exact for one in done)
        lines.append(f"It holds everywhere, and met {sessions_of(sum(known), exact)}.")
    else:
        lines.append("It holds everywhere.")
    if any(one.topology == "bounded" for one in done):
        lines.append(
            "The store's topology is bounded: the loss of a server could still lose what it confirmed last."
        )
    if any(one.audit == "late" for one in done):
        lines.append("The audit log could not be written in full; the records wait and follow.")
    return lines


def _kinds(problems: Sequence[Problem]) -> list[tuple[Kind, int]]:
    kinds = [one.kind for one in problems]
    return [(kind, kinds.count(kind)) for kind in dict.fromkeys(kinds)]
