"""What a lock is aimed at, as the API takes and shows it; and how many sessions it would end.

Knows: the kinds of targets and who may aim at them. Promises: a target is compared to the letter, there are
no patterns (A17); one that names nothing is refused, so that no slip of a script aims at everything. Leaves
the search to the directory.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from ztproxy.core.identity import JSON
from ztproxy.core.locks import Target, TargetKind
from ztproxy.errors import WorldError
from ztproxy.gateway.ports.directory import Wanted
from ztproxy.surfaces.admin.access import Caller
from ztproxy.surfaces.admin.bodies import MAX_TEXT, Form, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem

Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]

PAGE = 200
_SEARCH_SECONDS = 1.0

_WITH_ISSUER = frozenset({TargetKind.USER, TargetKind.IDP_SESSION})
_FOR_ADMINS = frozenset({TargetKind.ROUTE, TargetKind.ALL})


class TargetForm(Form, frozen=True):
    """What a lock is aimed at, compared to the letter. `name` is a session's id, a subject, a `sid`, a
    device's id, a group or a route's name. `issuer` goes with `user` and `idp_session`. `all` has neither."""

    kind: TargetKind
    name: Text = ""
    issuer: Text = ""


class TargetShown(Shape, frozen=True):
    """What a lock is aimed at."""

    kind: TargetKind
    name: str
    issuer: str


class Matched(NamedTuple):
    """How many sessions; `exact` False when it is an estimate, or the search did not come to its end. None:
    nobody can tell at the moment."""

    number: int | None
    exact: bool


def target_of(kind: TargetKind, name: str, issuer: str, field: str = "target") -> Target:
    """The target, if it is one. Raises `Problem` naming the field below `field`."""
    at = f"{field}." if field else ""
    if (kind is TargetKind.ALL) != (name == ""):
        said = "`all` has no name" if name else "it must name something"
        raise Problem(Kind.INVALID, said, f"{at}name")
    if name and not name.strip():
        raise Problem(Kind.INVALID, "it must name something", f"{at}name")
    if (kind in _WITH_ISSUER) != (issuer.strip() != ""):
        said = f"only a {TargetKind.USER} or {TargetKind.IDP_SESSION} has one" if issuer.strip() else "whose?"
        raise Problem(Kind.INVALID, said, f"{at}issuer")
    return Target(kind, name, issuer if kind in _WITH_ISSUER else "")


def may_aim(caller: Caller, target: Target) -> None:
    """A route or everybody is for admins. Raises `Problem`."""
    if target.kind in _FOR_ADMINS and not caller.may("admin"):
        raise Problem(Kind.FORBIDDEN, f"a lock on `{target.kind}` needs the role admin")


def shown(target: Target) -> TargetShown:
    return TargetShown(kind=target.kind, name=target.name, issuer=target.issuer)


def on_record(target: Target) -> dict[str, JSON]:
    return {"kind": str(target.kind), "name": target.name, "issuer": target.issuer}


async def matched(desk: Desk, target: Target) -> Matched:
    """How many sessions a revocation of `target` meets. Counting is for people: it keeps nobody waiting for
    long, and nothing hangs on it."""
    try:
        if target.kind in _FOR_ADMINS:  # a route can meet anyone who comes there
            return Matched(await desk.sessions.count(), exact=False)
        found = await desk.sessions.of(target)
        if found is not None:
            return Matched(len(found), exact=True)
        return await _search(desk, target)
    except WorldError:
        return Matched(None, exact=False)


async def _search(desk: Desk, target: Target) -> Matched:
    number, cursor, end = 0, None, desk.monotonic() + _SEARCH_SECONDS
    while True:
        page = await desk.sessions.page(Wanted(target), cursor, PAGE)
        number += len(page.sessions)
        cursor = page.cursor
        if cursor is None:
            return Matched(number, exact=True)
        if desk.monotonic() >= end:
            return Matched(number, exact=False)
