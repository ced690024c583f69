"""The admin API on real sockets, over ports in memory; every answer is held against the OpenAPI document.

`World.ask` sends one request byte for byte and reads the whole answer. The log of locks is a list here:
`away` makes it a store that is gone, `confirmed` and `strict` say what it can promise.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from tests.core.words import NOW, person, session
from tests.worlds.memory_admin import MemoryAudit, MemoryRepeats, MemoryTokens
from tests.worlds.memory_devices import MemoryDevices
from tests.worlds.memory_state import MemoryState, SetClock
from ztproxy.core.audit import AuditEvent
from ztproxy.core.identity import SessionSecrets
from ztproxy.core.lease import Revoked, Topology
from ztproxy.core.locks import Entry, Lock
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.gateway.inventory import Inventory
from ztproxy.gateway.ports.administration import Role
from ztproxy.gateway.ports.directory import ListedPage, Wanted
from ztproxy.surfaces.admin.api import admin_app
from ztproxy.surfaces.admin.desk import Desk, Question
from ztproxy.surfaces.admin.serving import serve_admin

DOCUMENT = json.loads((Path(__file__).parents[3] / "docs/openapi.json").read_text())
LIFE = 30 * 86_400.0
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
JSON_TYPE = ("Content-Type", "application/json")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        """What a problem's type ends with."""
        return str(self.json["type"].rpartition(":")[2])

    @property
    def field(self) -> str:
        return str(self.json.get("field", ""))


class State(MemoryState):
    """Sessions whose listing takes its time, and whose clearing waits to be allowed."""

    def __init__(self, clock: SetClock, ticks: SetClock) -> None:
        super().__init__(clock)
        self.ticks, self.page_seconds = ticks, 0.0
        self.cleared: list[Lock] = []
        self.clearing = asyncio.Event()
        self.clearing.set()

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> ListedPage:
        self.ticks.now += self.page_seconds
        return await super().page(wanted, cursor, limit)

    async def clear(self, lock: Lock) -> int:
        self.cleared.append(lock)
        await self.clearing.wait()
        return await super().clear(lock)


class Audit(MemoryAudit):
    """Also notes, before each record, what `look` shows."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__()
        self.look = look
        self.saw: list[tuple[str, object]] = []

    async def write(self, event: AuditEvent) -> None:
        self.saw.append((event.outcome, self.look()))
        await super().write(event)


class MemoryLog:
    """The log of locks, and what making an entry hold would come to. `meanwhile` is called with each."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.away, self.confirmed, self.strict = False, True, True
        self.raises: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def revoke(self, entry: Entry) -> Revoked:
        self.begun.set()
        self.meanwhile()
        await self.go_on.wait()
        if self.raises is not None:
            raise self.raises
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")
        if entry.id not in self.entries:
            self.entries[entry.id] = replace(entry, number=len(self.entries) + 1, made_at=NOW)
        return Revoked(self.entries[entry.id].number, self.confirmed, self.strict, 0.012)

    async def locks(self) -> tuple[Lock, ...]:
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")
        lifted = {getattr(entry, "lifts", "") for entry in self.entries.values()}
        return tuple(one for one in self.entries.values() if isinstance(one, Lock) and one.id not in lifted)

    def topology(self) -> Topology:
        return Topology("standalone", self.strict, True, 0.0, "appendfsync always")


@dataclass
class World:
    clock: SetClock = field(default_factory=lambda: SetClock(NOW))
    ticks: SetClock = field(default_factory=lambda: SetClock(0.0))
    log: MemoryLog = field(default_factory=MemoryLog)
    raises: Exception | None = None
    questions: list[Question] = field(default_factory=list)
    certificates: dict[bytes, Role] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    address: tuple[str, int] | str = ""
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.state = State(self.clock, self.ticks)
        self.audit = Audit(self.effects)
        self.tokens = MemoryTokens(self.clock)
        self.repeats = MemoryRepeats(self.clock)
        self.devices = MemoryDevices()
        self._ids = itertools.count(1)
        self.reloads, self.keys = 0, 1
        self.desk = Desk(
            revoke=self.log.revoke,
            audit=self.audit,
            tokens=self.tokens,
            repeats=self.repeats,
            sessions=self.state,
            devices=self.devices,
            inventory=Inventory(self.devices, self.log.revoke, self.clock),
            facts=lambda: {"antivirus": str},
            locks=self.log.locks,
            status=self.status,
            topology=self.log.topology,
            routes=lambda: [{"name": "app", "origin": "https://app.test"}],
            explain=self.explain,
            reload=self.reload,
            rotate_keys=self.rotate_keys,
            certificate_role=self.certificates.get,
            clock=self.clock,
            new_id=lambda: f"id-{next(self._ids)}",
            decisions=self.decisions,
            hosts=frozenset({"Admin.test"}),
            monotonic=self.ticks,
        )

    def effects(self) -> object:
        """Everything a write could have changed."""
        return (
            dict(self.log.entries),
            self.reloads,
            self.keys,
            set(self.tokens.tokens),
            self.state.snapshot(),
            dict(self.devices.devices),
        )

    async def status(self) -> dict[str, Any]:
        self._maybe()
        return {"number": len(self.log.entries), "topology": {"kind": "standalone"}}

    def explain(self, question: Question) -> dict[str, Any]:
        self.questions.append(question)
        self._maybe()
        return {"decision": "deny", "reasons": ["group_missing"]}

    async def reload(self) -> str:
        self._maybe()
        self.reloads += 1
        return "loaded"

    async def rotate_keys(self) -> dict[str, Any]:
        self._maybe()
        self.keys += 1
        return {"signing": f"key-{self.keys}"}

    async def decisions(self, limit: int) -> list[dict[str, Any]]:
        return [{"route": "app", "decision": "deny"}][:limit]

    def _maybe(self) -> None:
        if self.raises is not None:
            raise self.raises

    async def sign_in(self, subject: str = "alice", **more: Any) -> str:
        """A session; its public id."""
        names = {name: more.pop(name) for name in ("email", "name", "groups") if name in more}
        who = person(*names.pop("groups", ()), subject=subject, **names)
        one = replace(session(identity=who), **more)
        await self.state.create(one, SessionSecrets("refresh-secret"), "app.test", None)
        return list(self.state.sessions)[-1]

    async def feed(self, name: str = "mdm") -> None:
        """Gives a token to a feed of this name; `role="feed"` asks with it."""
        self.secrets["feed"], _ = await self.tokens.create(name, "feed", LIFE, "test")

    @property
    def outcomes(self) -> list[tuple[str, str, str]]:
        """Of the audit log: action, outcome, target."""
        return [(event.action, event.outcome, event.target) for event, _ in self.audit.events]

    async def ask(
        self,
        method: str,
        path: str,
        *headers: tuple[str, str],
        role: Role | None = "operator",
        host: str | None = "localhost",
        json: Any = None,
        body: bytes | None = None,
    ) -> Answer:
        """One request below `/api/v1`, with the token of a role; `json` is a body with its `Content-Type`."""
        fields: list[tuple[str, str]] = [] if host is None else [("Host", host)]
        if role is not None:
            fields.append(("Authorization", f"Bearer {self.secrets[role]}"))
        if json is not None:
            body = _dump(json)
            fields.append(JSON_TYPE)
        if body is not None:
            fields.append(("Content-Length", str(len(body))))
        answer = await self.raw(f"{method} /api/v1{path} HTTP/1.1", [*fields, *headers], body or b"")
        self.hold_against_document(method, path, answer)
        return answer

    async def raw(self, line: str, fields: Sequence[tuple[str, str]], body: bytes = b"") -> Answer:
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        reader, writer = await self.connect()
        writer.write(f"{line}\r\n{head}Connection: close\r\n\r\n".encode("latin-1") + body)
        try:
            raw = await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
        first, _, rest = raw.partition(b"\r\n\r\n")
        lines = first.decode().split("\r\n")
        named = dict(one.split(": ", 1) for one in lines[1:])
        return Answer(int(lines[0].split()[1]), {name.lower(): value for name, value in named.items()}, rest)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.address, str):
            return await asyncio.open_unix_connection(self.address)
        name = "localhost" if self.tls else None
        return await asyncio.open_connection(*self.address, ssl=self.tls, server_hostname=name)

    def hold_against_document(self, method: str, path: str, answer: Answer) -> None:
        """Every answer has the header fields of every answer, and the shape the document promises."""
        headers = answer.headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["ztproxy-revocation"] == ("strict" if self.log.strict else "bounded")
        assert re.fullmatch(r"id-\d+", headers["x-request-id"])
        assert "server" not in headers
        assert "set-cookie" not in headers
        if answer.status >= 400:
            assert headers["content-type"] == "application/problem+json"
            ref = "#/components/schemas/Problem"
            assert answer.json["status"] == answer.status
            assert answer.json["instance"] == headers["x-request-id"]
            assert b"Traceback" not in answer.body
        else:
            assert headers["content-type"] == "application/json"
            ref = operation(method, path)["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        schema = {"$ref": ref, "components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(answer.json)


def operation(method: str, path: str) -> dict[str, Any]:
    steps = path.partition("?")[0].split("/")
    for template, methods in DOCUMENT["paths"].items():
        wanted = template.split("/")
        if len(wanted) == len(steps) and all(
            one in (step, "{id}") for one, step in zip(wanted, steps, strict=True)
        ):
            found: dict[str, Any] = methods[method.lower()]
            return found
    raise AssertionError(f"{method} {path} is not in the document")


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


@asynccontextmanager
async def serving(
    world: World, tls: ssl.SSLContext | None = None, unix: str = "", body_seconds: float = 10.0
) -> AsyncIterator[World]:
    """The API of `world` on a loopback port, or on a unix socket; a token of each role."""
    for role in ROLES:
        world.secrets[role], _ = await world.tokens.create(f"{role}-1", role, LIFE, "test")
    if unix:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(unix)
        world.address = unix
    else:
        listening = socket.create_server(("127.0.0.1", 0))
        world.address = listening.getsockname()
    stop = await serve_admin(admin_app(world.desk, body_seconds), listening, tls)
    try:
        yield world
    finally:
        await stop()
