"""How a session is written down: msgpack, by field name, so that a newer program reads an older record.

Knows: the stored form. Promises: what was packed comes back equal; unknown fields are passed over, and bytes
that are no session raise `ValueError`, as does a session that a service's credential was turned into. Leaves
to the caller: sealing, and a session's `id` and `revision`, which are not read back but follow from where the
record lies.
"""

from __future__ import annotations

from dataclasses import replace
from sys import intern
from types import MappingProxyType
from typing import Any, cast

import msgspec

from ztproxy.adapters.decoding import reader
from ztproxy.core.identity import Credential, Identity, Session, SessionSecrets, Step
from ztproxy.gateway.ports import Seen

MAX_AGENT = 256


class HandleRecord(msgspec.Struct, frozen=True):
    """What a handle stands for: the secret id of its session, and the one host it is for."""

    session_id: bytes
    host: str

    def __repr__(self) -> str:
        return f"HandleRecord(host={self.host!r})"


# msgspec cannot read `core.identity.JSON`, which refers to itself, so the reading side is spelled out here.
class _Person(msgspec.Struct):
    issuer: str
    subject: str
    email: str | None = None
    name: str | None = None
    username: str | None = None
    groups: tuple[str, ...] = ()
    claims: dict[str, Any] = msgspec.field(default_factory=dict)


class _Record(msgspec.Struct):
    identity: _Person
    provider: str
    created_at: float
    authenticated_at: float
    verified_at: float
    expires_at: float
    acr: str | None = None
    amr: tuple[str, ...] = ()
    rank: int = 1
    idp_session: str | None = None
    refreshable: bool = False
    as_of: int = 0
    device: str | None = None
    certificate: str | None = None
    fresh: bool = False
    steps: tuple[Step, ...] = ()
    idle: float | None = None


class _Seen(msgspec.Struct):
    address: str
    route: str
    agent: str


# Claims are read-only mappings, which msgspec does not know either; they are the only values of that kind.
pack = msgspec.msgpack.Encoder(
    enc_hook=lambda mapping: dict(cast("MappingProxyType[str, Any]", mapping))
).encode
_record = reader(msgspec.msgpack.Decoder(_Record).decode)
unpack_secrets = reader(msgspec.msgpack.Decoder(SessionSecrets).decode)
unpack_handle = reader(msgspec.msgpack.Decoder(HandleRecord).decode)
_seen = reader(msgspec.msgpack.Decoder(_Seen).decode)


def pack_session(session: Session) -> bytes:
    """Raises `ValueError` for the session of a service.

    INVARIANT: what a service shows holds for one request at a time. On record it would outlive its token and
    come back as a cookie's: a person's session, whom no sign-in made.
    """
    if session.by is not Credential.COOKIE:
        raise ValueError("a session of a service is not stored")
    return pack(session)


def facts_of(session: Session) -> Session:
    """What lists show of a session, and what a lock could be aimed at: all but the claims."""
    return replace(session, identity=replace(session.identity, claims=MappingProxyType({})))


def pack_seen(seen: Seen) -> bytes:
    """The agent is what anyone may send, and as long as they like: it is cut."""
    return pack(seen._replace(agent=seen.agent[:MAX_AGENT])._asdict())


def unpack_seen(raw: bytes) -> Seen:
    """Raises `ValueError`."""
    return Seen(**msgspec.structs.asdict(_seen(raw)))


def unpack_session(raw: bytes, public_id: str, revision: int) -> Session:
    """The session packed in `raw`. Raises `ValueError`."""
    fields = msgspec.structs.asdict(_record(raw))
    who = msgspec.structs.asdict(fields.pop("identity"))
    who["claims"] = MappingProxyType(who["claims"])
    # What many sessions have in common is kept once: a worker knows tens of thousands of them.
    who["issuer"] = intern(who["issuer"])
    who["groups"] = tuple(map(intern, who["groups"]))
    fields["provider"] = intern(fields["provider"])
    fields["amr"] = tuple(map(intern, fields["amr"]))
    if fields["acr"] is not None:
        fields["acr"] = intern(fields["acr"])
    return Session(id=public_id, identity=Identity(**who), revision=revision, **fields)
