"""The admin API as the command line uses it: questions, and changes that are made once however often asked.

Knows: the API's problems (RFC 9457) and what an `Idempotency-Key` promises. Promises: a change is sent again
under the same key while its effect is in doubt and there is time; when it ends without a confirmation, the
error says what is in force and what is not, as the worst that any of the attempts may have done. No error
holds the token. Leaves what the answers mean to the commands.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple, NoReturn
from urllib.parse import quote, urlencode

from ztproxy.cli.admin_http import Door, Reply, Unreachable, exchange
from ztproxy.cli.tables import at, plain
from ztproxy.core.identity import JSON
from ztproxy.errors import OperatorError

Answer = dict[str, JSON]

_PREFIX = "/api/v1"
_KIND = "urn:ztproxy:problem:"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_LONGEST_DETAIL = 400
_PAGE = 200

_IN_DOUBT = frozenset(
    {"applied_unconfirmed", "not_applied", "idempotency_pending", "unavailable", "rate_limited"}
)
"""Problems after which the same request under the same key may well be confirmed."""


class Known(IntEnum):
    """What may have come of a change so far. INVARIANT: it never goes down again: that a later attempt did
    nothing takes nothing back."""

    NOTHING = 0
    PERHAPS = 1
    HEARD = 2


_AFTER = {
    "applied_unconfirmed": Known.HEARD,
    "idempotency_pending": Known.PERHAPS,
    "unavailable": Known.PERHAPS,
    "internal": Known.PERHAPS,
}


class Problem(NamedTuple):
    """A refusal or failure. `said` is fit to be shown; `document` is what it was made of, as it came."""

    kind: str
    said: str
    document: Answer


class Refused(OperatorError):
    """A change that was refused as a whole. `document` is the problem, as it came."""

    def __init__(self, problem: str, document: Answer) -> None:
        super().__init__(problem)
        self.document = document


class Client:
    """One door, and how many seconds each command may go on trying there."""

    def __init__(self, door: Door, wait: float) -> None:
        self.door, self.wait = door, wait

    def get(self, *steps: str, **query: str) -> Answer:
        """A question. Raises `OperatorError`."""
        return self._once("GET", _target(steps, query), None)

    def pages(self, what: str, limit: int, **query: str) -> Iterator[Answer]:
        """Pages of `what` there are, with at most `limit` of them together. One may be empty and yet not the
        last."""
        cursor = ""
        while limit > 0:
            page = self.get(what, limit=str(min(limit, _PAGE)), cursor=cursor, **query)
            yield page
            limit -= len(records(page, what))
            last, cursor = cursor, text(page, "next")
            if cursor in ("", last):
                return

    def post(self, *steps: str, form: Mapping[str, JSON]) -> Answer:
        """What changes nothing that must be known for certain; asked once. Raises `OperatorError`."""
        return self._once("POST", _target(steps, {}), form)

    def change(
        self, what: str, method: str, *steps: str, form: Mapping[str, JSON] | None = None, **query: str
    ) -> Answer:
        """Makes a change and sees to it that it is known what became of it. `what` is what would be in force
        then, for the error. Raises `OperatorError`."""
        target, deadline, pause = _target(steps, query), time.monotonic() + self.wait, _FIRST_PAUSE
        fields = {"Idempotency-Key": str(uuid.uuid4())}
        known = Known.NOTHING
        while True:
            wait = pause
            try:
                reply = self._ask(method, target, form, deadline, fields)
            except Unreachable as error:
                known = max(known, Known.PERHAPS if error.sent else Known.NOTHING)
                why, again = str(error), known is not Known.NOTHING
            else:
                if reply.status == 200:
                    return self._read(reply, what, known)
                found = self._problem(reply)
                if found is None and reply.status < 500:
                    _end(known, what, str(self._stranger(reply)))
                if found is not None and known is Known.NOTHING and found.kind not in {*_AFTER, *_IN_DOUBT}:
                    raise Refused(f"{what} is not in force: {found.said}", found.document)
                kind, why = found[:2] if found else ("unavailable", str(self._stranger(reply)))
                known, again = max(known, _AFTER.get(kind, Known.NOTHING)), kind in _IN_DOUBT
                wait = max(pause, reply.retry_after) if kind == "rate_limited" else pause
            if not again or time.monotonic() + wait >= deadline:
                _end(known, what, why)
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _once(self, method: str, target: str, form: Mapping[str, JSON] | None) -> Answer:
        reply = self._ask(method, target, form, time.monotonic() + self.wait, {})
        if reply.status == 200:
            return self._read(reply)
        problem = self._problem(reply)
        if problem is None:
            raise self._stranger(reply)
        raise OperatorError(problem.said)

    def _ask(
        self,
        method: str,
        target: str,
        form: Mapping[str, JSON] | None,
        deadline: float,
        fields: Mapping[str, str],
    ) -> Reply:
        if form is None:
            return exchange(self.door, method, target, fields, None, deadline)
        fields = {**fields, "Content-Type": "application/json"}
        return exchange(self.door, method, target, fields, json.dumps(form).encode(), deadline)

    def _read(self, reply: Reply, what: str = "", known: Known = Known.NOTHING) -> Answer:
        """The answer to what succeeded; `what` is the change, if it was one."""
        value = _object(reply, "application/json")
        if value is None:
            error = self._stranger(reply)
            if what:
                _end(max(known, Known.PERHAPS), what, str(error))
            raise error
        return value

    def _problem(self, reply: Reply) -> Problem | None:
        """None for what the admin API never says."""
        value = _object(reply, "application/problem+json") or {}
        type = value.get("type")
        if not isinstance(type, str) or not type.startswith(_KIND):
            return None
        kind = type.removeprefix(_KIND)
        said = str(value.get("detail") or value.get("title") or kind)
        if value.get("field"):
            said = f"`{value['field']}`: {said}"
        if kind == "unauthenticated":
            said += ", give a token that is good with `--token-file` or in ZTPROXY_ADMIN_TOKEN"
        elif kind == "audit_unavailable":
            said += f" ({value.get('title')})"
        if value.get("instance"):
            said += f" (request {value['instance']})"
        # A server that is not what it seems could send the token back to have it logged.
        token = self.door.token
        said = said.replace(token, "(token)") if token else said
        return Problem(kind, plain(said)[:_LONGEST_DETAIL], value)

    def _stranger(self, reply: Reply) -> OperatorError:
        if 300 <= reply.status < 400:
            problem = f"{self.door.name}: it answers with a redirect ({reply.status}), which is not followed"
            return OperatorError(problem, "give the address of the admin listener itself")
        problem = f"{self.door.name}: what it answers ({reply.status}) is not of ztproxy's admin API"
        return OperatorError(problem, "is this the address of the admin listener?")


def records(answer: Answer, name: str) -> list[Answer]:
    """The list of records that `answer` has under `name`. Raises `OperatorError` when it has none."""
    found = answer.get(name)
    if not isinstance(found, list):
        raise OperatorError(f"the answer has no `{name}`", "do the command and the server fit together?")
    return [one for one in found if isinstance(one, dict)]


def text(record: JSON, path: str) -> str:
    """The text at `user.email`; "" where there is none."""
    found = at(record, path)
    return found if isinstance(found, str) else ""


def _target(steps: tuple[str, ...], query: Mapping[str, str]) -> str:
    # INVARIANT: a step is quoted whole, so that an id with a slash in it is no other path.
    path = "/".join((_PREFIX, *(quote(step, safe="", errors="surrogateescape") for step in steps)))
    asked = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(asked, errors='surrogateescape')}" if asked else path


def _object(reply: Reply, media: str) -> Answer | None:
    if reply.media != media:
        return None
    try:
        value = json.loads(reply.body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _end(known: Known, what: str, why: str) -> NoReturn:
    if known is Known.NOTHING:
        raise OperatorError(f"{what} is not in force: {why}")
    if known is Known.PERHAPS:
        raise OperatorError(f"it is not known whether {what} is in force: {why}", "look, and run this again")
    problem = f"{what} is in force wherever it was heard, but not confirmed everywhere: {why}"
    raise OperatorError(problem, "run this again until it is confirmed")
