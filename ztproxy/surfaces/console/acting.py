"""Doing things, by the very functions the admin API uses.

Knows: the API's table of endpoints. Promises: what is done here asks for the same role, is read into the same
form and stands in the audit log in the same words as if it had come through the API; the same form sent twice
is the same entry of the log of locks. Leaves saying what came of it to the pages.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping

from ztproxy.core.identity import JSON
from ztproxy.errors import WorldError
from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Shape, read_body
from ztproxy.surfaces.admin.endpoints import ENDPOINTS
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.writes import Record, entry_id, question_of
from ztproxy.surfaces.console.asked import Ask, Room

_log = logging.getLogger("ztproxy.admin")

_WRITES = {endpoint.action: endpoint for endpoint in ENDPOINTS if endpoint.action}
_KEY = re.compile(r"[!-~]{1,128}")


async def act(
    room: Room, ask: Ask, action: str, members: Mapping[str, JSON], *, id: str = "", key: str
) -> Shape:
    """Does what the API calls `action`, on record before and after. `key` is the form's own: with the same
    key the same is the same. Raises a `Problem`, which is on record too."""
    endpoint, caller, desk = _WRITES[action], ask.visitor.caller, room.desk
    record = Record(desk.audit, caller, ask.request_id, action, id)
    try:
        if not caller.may(endpoint.role):
            raise Problem(Kind.FORBIDDEN, f"This needs the role {endpoint.role}.")
        if not _KEY.fullmatch(key):
            raise Problem(Kind.INVALID, "it is not one we gave", "key")
        body = dumped(members)
        question = question_of(endpoint.method, endpoint.path.replace("{id}", id), body)
        entry = entry_id(caller, key, question, desk.clock)
        form = read_body(body, endpoint.form)
        asked = Asked(caller, ask.request_id, id, form, entry, record, room.later)
        return await endpoint.handle(desk, asked)
    except Exception as error:
        problem = _problem_of(error, record)
        await record.refused_or_failed(problem.kind, problem.field)
        raise problem from None


def dumped(members: Mapping[str, JSON]) -> bytes:
    """The body that asks the API for the same."""
    return json.dumps(members).encode()


def _problem_of(error: Exception, record: Record) -> Problem:
    """What became of a write that raised; as the API says it."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, WorldError):
        _log.warning("request %s: %s", record.request_id, error)
        if record.begun:
            return Problem(Kind.UNAVAILABLE, "It may or may not be done; look before trying again.")
        return Problem(Kind.NOT_APPLIED, "Nothing was done, try again.")
    _log.error("request %s", record.request_id, exc_info=error)
    return Problem(Kind.INTERNAL, "The log knows more, by the request's id.")
