"""A link that opens the console once, for a person at a browser who has a token in a terminal.

Knows: how it is shown. Promises: the link is a secret and is treated as one: shown once, kept for no repeat.
Leaves making and spending it to the console.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Nothing, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem


class LinkMade(Shape, frozen=True):
    """`path` is below this listener's own address; it is good once and for two minutes."""

    audit: Literal["written", "late"]
    path: str | msgspec.UnsetType = msgspec.UNSET

    def kept(self) -> LinkMade:
        return LinkMade(audit=self.audit)


async def make_link(desk: Desk, asked: Asked[Nothing]) -> LinkMade:
    if desk.console_link is None:
        raise Problem(Kind.NOT_FOUND, "there is no console here")
    await asked.record.intent("console", {"role": asked.caller.role})
    path = await desk.console_link(asked.caller)
    await asked.record.outcome("done", {})
    return LinkMade(audit="late" if asked.record.late else "written", path=path)
