"""Looking on: recent decisions as they come, and how revocation stands.

Knows: the records of the decision log by their names. Promises: what is unknown in a record is left out, not
guessed. Leaves keeping them to the workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ztproxy.core.identity import JSON
from ztproxy.core.reasons import Reason
from ztproxy.surfaces.console.asked import Ask, Room, Sheet
from ztproxy.surfaces.console.views import facts, plain, sections, where

_LOOKED_AT = 200
_NO = frozenset({"deny", "refuse", "fail"})


class DecisionRow(NamedTuple):
    """One decision. `reasons` are their names, each with the sentence a person reads."""

    time: str
    person: str
    route: str
    request: str
    client: str
    decision: str
    reasons: tuple[tuple[str, str], ...]
    session: str
    no: bool
    request_id: str


async def show_decisions(room: Room, ask: Ask) -> Sheet:
    return Sheet("console_decisions.html", await _decisions(room, ask))


async def show_rows(room: Room, ask: Ask) -> Sheet:
    """The table alone, for who follows live."""
    return Sheet("console_decisions_rows.html", await _decisions(room, ask))


async def _decisions(room: Room, ask: Ask) -> dict[str, object]:
    one = ask.fields.one
    person, route, denied = one("person").strip(), one("route").strip(), one("denied") == "yes"
    live = one("follow") != "no"
    kept = room.desk.decisions
    rows = []
    for record in [] if kept is None else await kept(_LOOKED_AT):
        if denied and record.get("decision") not in _NO:
            continue
        if route and record.get("route") != route:
            continue
        whose = (str(record.get(name) or "").casefold() for name in ("email", "user"))
        if person and not any(person.casefold() in one for one in whose):
            continue
        rows.append(_row(record))
    asked = {"person": person, "route": route, "denied": "yes" if denied else ""}
    return {
        "rows": rows,
        "kept": kept is not None,
        "person": person,
        "route": route,
        "denied": denied,
        "live": live,
        "fragment": where("/decisions/rows", **asked),
        "here": where("/decisions", **asked, follow="" if live else "no"),
        "other": where("/decisions", **asked, follow="no" if live else ""),
        "routes": [str(one.get("name", "")) for one in room.desk.routes()],
    }


def _row(record: Mapping[str, JSON]) -> DecisionRow:
    def text(name: str) -> str:
        value = record.get(name)
        return plain(value) if isinstance(value, str) else ""

    reasons = record.get("reasons")
    named = [str(one) for one in reasons] if isinstance(reasons, list | tuple) else []
    session = record.get("session")
    return DecisionRow(
        time=text("time"),
        person=text("email") or text("user"),
        route=text("route"),
        request=" ".join(filter(None, (text("method"), text("host") + text("path")))),
        client=text("client"),
        decision=text("decision"),
        reasons=tuple((plain(one), _SENTENCES.get(one, "")) for one in named),
        session=where(f"/sessions/{session}") if isinstance(session, str) and session.isalnum() else "",
        no=record.get("decision") in _NO,
        request_id=text("request_id"),
    )


_SENTENCES = {str(reason): reason.sentence for reason in Reason}


_SAID_ABOVE = frozenset({"promise", "topology", "why"})


async def show_status(room: Room, ask: Ask) -> Sheet:
    report = {name: value for name, value in (await room.desk.status()).items() if name not in _SAID_ABOVE}
    values: dict[str, object] = {
        "topology": room.desk.topology(),
        "facts": facts(report),
        "sections": sections(report),
    }
    return Sheet("console_status.html", values)
