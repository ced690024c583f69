"""How a session is written down: msgpack, by field name, so that a newer program reads an older record.

Knows: the stored form. Promises: what was packed comes back equal; unknown fields are passed over, and bytes
that are no session raise `ValueError`. Leaves to the caller: sealing, and a session's `id` and `revision`,
which are not read back but follow from where the record lies.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, cast

import msgspec

from ztproxy.core.identity import Identity, Session, SessionSecrets


class SessionFacts(msgspec.Struct, frozen=True):
    """What a list of someone's sessions shows. Nothing here lets anyone in."""

    id: str
    provider: str
    created_at: float
    verified_at: float
    expires_at: float
    acr: str | None = None
    amr: tuple[str, ...] = ()
    rank: int = 1


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


# Claims are read-only mappings, which msgspec does not know either; they are the only values of that kind.
pack = msgspec.msgpack.Encoder(
    enc_hook=lambda mapping: dict(cast("MappingProxyType[str, Any]", mapping))
).encode
_record = msgspec.msgpack.Decoder(_Record).decode
unpack_secrets = msgspec.msgpack.Decoder(SessionSecrets).decode
unpack_handle = msgspec.msgpack.Decoder(HandleRecord).decode
unpack_facts = msgspec.msgpack.Decoder(SessionFacts).decode


def facts_of(session: Session) -> SessionFacts:
    return msgspec.convert(session, SessionFacts, from_attributes=True)


def unpack_session(raw: bytes, public_id: str, revision: int) -> Session:
    """The session packed in `raw`. Raises `ValueError`."""
    fields = msgspec.structs.asdict(_record(raw))
    who = msgspec.structs.asdict(fields.pop("identity"))
    who["claims"] = MappingProxyType(who["claims"])
    return Session(id=public_id, identity=Identity(**who), revision=revision, **fields)
