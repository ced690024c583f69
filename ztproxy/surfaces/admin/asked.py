"""One line of the table of endpoints, and one request to it.

Knows: what a handler is given. Promises: when a handler is called, whoever asks was found, counted and has
the role; the form was read strictly. Leaves the rest to the handler, which answers with a `Shape` or raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ztproxy.gateway.ports.administration import Role
from ztproxy.surfaces.admin.access import Caller
from ztproxy.surfaces.admin.bodies import Form, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.writes import Record

F = TypeVar("F", bound=Form)
F_co = TypeVar("F_co", bound=Form, covariant=True)


@dataclass(frozen=True, slots=True)
class Asked(Generic[F_co]):
    """`id` is the one in the path, "" where there is none. `form` is the query of a GET or DELETE and the
    body of a POST or PUT. `entry_id` is for the log's entry, if one is made. `record` is where a write is put
    on record. `later` takes work that the answer need not wait for."""

    caller: Caller
    request_id: str
    id: str
    form: F_co
    entry_id: str
    record: Record
    later: Callable[[Awaitable[object]], None]


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[F]):
    """`path` is below `/api/v1`; a step in braces is the id. `action` is what the audit log calls it; "" for
    what changes nothing. `also` are roles that may besides, without ranking above `role`. `bulk`: the body
    may be large, and the handler judges its texts. `ends`: it shuts somebody out, and is counted apart from
    all else."""

    method: str
    path: str
    role: Role
    summary: str
    form: type[F]
    answer: type[Shape]
    handle: Callable[[Desk, Asked[F]], Awaitable[Shape]]
    action: str = ""
    description: str = ""
    also: tuple[Role, ...] = ()
    bulk: bool = False
    ends: bool = False

    def open_to(self, caller: Caller) -> bool:
        return caller.may(self.role) or caller.role in self.also


AnyEndpoint = Endpoint[Any]
