"""How a device is written down: msgpack, by field name, so that a newer program reads an older record.

Knows: the stored form. Promises: what was packed comes back equal; unknown fields are passed over, and bytes
that are no device raise `ValueError`. Leaves to the caller: sealing, and a device's `id` and `revision`,
which are not read back but follow from where the record lies.
"""

from __future__ import annotations

from types import MappingProxyType

import msgspec

from ztproxy.adapters.decoding import reader
from ztproxy.adapters.session_codec import pack
from ztproxy.core.device import Device, Fact, Status

pack_device = pack


class _Record(msgspec.Struct):
    status: Status
    name: str = ""
    platform: str = ""
    owners: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    posture: dict[str, Fact] = msgspec.field(default_factory=dict)
    created_at: float = 0.0
    changed_at: float = 0.0


_record = reader(msgspec.msgpack.Decoder(_Record).decode)


def unpack_device(raw: bytes, id: str, revision: int) -> Device:
    """The device packed in `raw`. Raises `ValueError`."""
    fields = msgspec.structs.asdict(_record(raw))
    fields["posture"] = MappingProxyType(fields["posture"])
    return Device(id=id, revision=revision, **fields)
