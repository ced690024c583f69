"""What a page of the console is given, and what it answers.

Knows: one line of the table of pages. Promises: when a page is asked, its visitor was found and counted and
may see it; a form that comes was sent by that visitor from a page of ours. Leaves rendering to `app`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ztproxy.gateway.ports.administration import Role
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.console.entrance import Visitor
from ztproxy.surfaces.console.forms import Fields


@dataclass(frozen=True, slots=True)
class Room:
    """What the pages reach: the desk, the names of the providers, and where work is left for later."""

    desk: Desk
    providers: Callable[[], Sequence[str]]
    later: Callable[[Awaitable[object]], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `id` is the step of the path that is no name, `fields` the query of a GET and the form of
    a POST."""

    visitor: Visitor
    request_id: str
    id: str
    fields: Fields

    def may(self, role: Role) -> bool:
        return self.visitor.caller.may(role)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page to be rendered: a template and its values."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200


class Page(NamedTuple):
    """`path` is below `/console`; a step in braces is the id. `role` is what it takes to see it; a POST that
    changes something is judged by the API's own table besides."""

    method: str
    path: str
    role: Role
    show: Callable[[Room, Ask], Awaitable[Sheet]]
