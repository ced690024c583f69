"""How an entry of the log of locks is written down: packed for the store, a line of JSON for a node's disk.

Knows: both forms, by field name, so that a newer program reads an older entry. Promises: what was packed
comes back equal; what is no entry raises `ValueError`. Leaves to the caller: sealing what goes to the store,
and the number there, which the log gives and an entry in the store does not carry.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from ztproxy.adapters.decoding import reader
from ztproxy.core.locks import ALL, Action, Entry, Lift, Lock, Target


class _Lock(msgspec.Struct, frozen=True, tag="lock", omit_defaults=True):
    id: str
    target: Target
    action: Action = Action.DENY
    created_by: str = ""
    reason: str = ""
    message: str = ""
    until: float | None = None
    made_at: float = 0.0
    number: int = 0


class _Lift(msgspec.Struct, frozen=True, tag="lift", omit_defaults=True):
    id: str
    lifts: str
    created_by: str = ""
    reason: str = ""
    made_at: float = 0.0
    number: int = 0


class _Line(msgspec.Struct, frozen=True):
    at: float
    entry: _Lock | _Lift


_unpack = reader(msgspec.msgpack.Decoder[_Lock | _Lift](_Lock | _Lift).decode)
_read_line = reader(msgspec.json.Decoder(_Line).decode)


def digest(entry_id: str) -> str:
    """The name of an entry in the store: 64 letters, whatever its id is made of."""
    return hashlib.sha256(entry_id.encode()).hexdigest()


def pack(entry: Entry) -> bytes:
    """An entry without its number."""
    return msgspec.msgpack.encode(msgspec.structs.replace(_written(entry), number=0))


def unpack(raw: bytes, number: int, made_at: float) -> Entry:
    """The entry packed in `raw`, as `number`; `made_at` is for one that names no time of its own."""
    return _entry(_unpack(raw), number=number, made_at=made_at)


def line(entry: Entry, at: float) -> bytes:
    """One line of a journal, with its end; `at` is when it was written, in seconds since the epoch."""
    return msgspec.json.encode(_Line(at, _written(entry))) + b"\n"


def read_line(raw: bytes) -> tuple[float, Entry]:
    """When a line was written, and its entry."""
    read = _read_line(raw)
    return read.at, _entry(read.entry, number=read.entry.number, made_at=0.0)


def unreadable(number: int, found_at: float) -> Lock:
    """What stands for an entry that nobody can read: nobody knows whom it revoked, so it revokes all.

    Nor does anybody know when it was made: whatever was issued before it was found, seconds since the epoch,
    is met (`LockBook.as_of`). What the row itself says of its time may be as false as the rest of it.
    """
    reason = "an entry of the log cannot be read"
    return Lock(f"unreadable:{number}", ALL, reason=reason, made_at=found_at, number=number)


def _written(entry: Entry) -> _Lock | _Lift:
    if isinstance(entry, Lock):
        return msgspec.convert(entry, _Lock, from_attributes=True)
    return msgspec.convert(entry, _Lift, from_attributes=True)


def _entry(written: _Lock | _Lift, *, number: int, made_at: float) -> Entry:
    fields: dict[str, Any] = msgspec.structs.asdict(written)
    fields |= {"number": number, "made_at": written.made_at or made_at}
    return Lock(**fields) if isinstance(written, _Lock) else Lift(**fields)
