"""The audit log's records: each signed, each naming the one before, so that none can be changed unseen.

Knows: the line a record becomes, and what makes a row of lines whole. Promises: `verify_chain` finds a record
that was changed, removed, moved, repeated, inserted or shortened, and says which; and it tells a line that a
crash cut short from one that somebody cut. Leaves to the caller: files, the clock, and that the detail of an
event holds no secret (an admin token in it is struck out all the same).

    {"number":7,"time":"2026-11-22T10:11:12.345Z","kind":"event","by":"node-1 4711",
     "actor":"carol","action":"lock.create","outcome":"done","target":"user alice","request_id":"…",
     "detail":{…},"prev":"<hash of record 6>","key":"<key id>","hash":"<of all before this field>"}

The hash is HMAC-SHA-256 of the very bytes before it, so it needs no canonical form of JSON. A plain SHA-256
would only show accidents: who can write the file could compute a whole new chain. The key is derived from a
record key of the server's ring, and its id stands in each record: a rotation changes the key from one record
to the next, and whoever verifies needs the keys of the time (older key files included).

A file begins with a `start`, where nothing is known of a record before, or with a `continue`, whose `prev` is
the last record of the file that was moved away. What a crash cut short stays, and the next record names it
(`cut`: its length and SHA-256); that is a record of kind `cut` where the file had one before it.

What a file alone cannot show: that records are missing at its end. Compare the last number and hash, which
`Verified` holds, with what was noted elsewhere. Nor does it bind who has the keys and the file.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from ztproxy.core.identity import JSON


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something an administrator, or a sign-out from elsewhere, did or was refused.

    `actor` is a token's name, a person or `provider:<name>`; `action` is like `lock.create`; `outcome` is
    `intent` before a write, `done`, `unconfirmed`, `refused` or `failed` after it. `detail` holds no secret.
    """

    actor: str
    action: str
    outcome: str
    target: str = ""
    request_id: str = ""
    detail: Mapping[str, JSON] = field(default_factory=dict)


class Happened(NamedTuple):
    """An event and when it happened, as `moment` writes it."""

    time: str
    event: AuditEvent


class Kind(StrEnum):
    START = "start"  # the first record there is, as far as is known
    CONTINUE = "continue"  # the first record of a file that follows one moved away
    CUT = "cut"  # what stands above was cut short
    EVENT = "event"
    WAITING = "waiting"  # in the file of those that could not be written yet; never part of a chain


class Link(NamedTuple):
    """What the next record hangs on: the number and the hash of this one."""

    number: int
    hash: str


NOTHING = Link(0, "0" * 64)
"""What the very first record hangs on."""

_ID_BYTES = 8
_FORM = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}\n')
_ADMIN_TOKEN = re.compile(r"ztp_[A-Za-z0-9_-]{20,}", re.ASCII)


class ChainKeys:
    """The keys of a chain, from the server's record keys: signs with the first, accepts any."""

    __slots__ = ("_current", "_keys")

    def __init__(self, server_keys: Sequence[bytes]) -> None:
        named = [
            (_key_id(key), hmac.digest(key, b"ztproxy audit key", hashlib.sha256)) for key in server_keys
        ]
        self._current = named[0][0]
        self._keys = dict(named)

    @property
    def current(self) -> str:
        """The id of the key that signs."""
        return self._current

    def sign(self, key_id: str, text: bytes) -> str | None:
        """The hash of `text` under the key of that id; None where it is not at hand."""
        key = self._keys.get(key_id)
        return None if key is None else hmac.digest(key, text, hashlib.sha256).hex()


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"ztproxy audit key id", hashlib.sha256)[:_ID_BYTES].hex()


# ── writing ──


def moment(now: float) -> str:
    """Seconds since the epoch as `2026-11-22T10:11:12.345Z`; milliseconds are cut, not rounded."""
    return datetime.fromtimestamp(int(now * 1000) / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def event_record(
    happened: Happened, by: str, after: Link, keys: ChainKeys, *, late: bool = False
) -> tuple[bytes, Link]:
    """The line of an event, and what the next record hangs on. `late` ones were written after the fact."""
    said = _said(happened.event) | ({"late": True} if late else {})
    return _line(Kind.EVENT, happened.time, by, said, after, keys)


def own_record(
    kind: Kind, time: str, by: str, after: Link, keys: ChainKeys, *, cut: bytes | None = None
) -> tuple[bytes, Link]:
    """The line by which a file begins, or what was `cut` short above it is closed off."""
    return _line(kind, time, by, {} if cut is None else {"cut": _fragment(cut)}, after, keys)


def waiting_record(happened: Happened, by: str, keys: ChainKeys) -> bytes:
    """The line of an event that cannot be written yet. Signed, because what is read back from its file is
    signed into the chain: without it, who can write that file could put words into the log."""
    return _line(Kind.WAITING, happened.time, by, _said(happened.event), NOTHING, keys)[0]


def _said(event: AuditEvent) -> dict[str, JSON]:
    return {
        "actor": event.actor,
        "action": event.action,
        "outcome": event.outcome,
        "target": event.target,
        "request_id": event.request_id,
        "detail": dict(event.detail),
    }


def _line(
    kind: Kind, time: str, by: str, said: dict[str, JSON], after: Link, keys: ChainKeys
) -> tuple[bytes, Link]:
    number = after.number + 1
    key = keys.current
    fields = {"number": number, "time": time, "kind": kind, "by": by, **said, "prev": after.hash, "key": key}
    # ASCII alone: a line break, an escape sequence or half a surrogate pair of somebody's choosing stays
    # text.
    text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
    signed = _ADMIN_TOKEN.sub("ztp_(redacted)", text)[:-1].encode("ascii")
    made = keys.sign(key, signed)
    assert made is not None
    return signed + f',"hash":"{made}"}}\n'.encode("ascii"), Link(number, made)


def _fragment(lines: bytes) -> dict[str, JSON]:
    whole = lines.removesuffix(b"\n")
    return {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}


# ── reading ──


@dataclass(frozen=True, slots=True)
class Record:
    """A line of the right form. Nothing says yet that it is true."""

    link: Link
    prev: str
    key: str
    kind: Kind
    time: str
    fields: Mapping[str, Any]
    signed: bytes = field(repr=False)

    def is_signed_by(self, keys: ChainKeys) -> bool | None:
        """Whether the hash is right; None where its key is not at hand."""
        made = keys.sign(self.key, self.signed)
        return None if made is None else hmac.compare_digest(made, self.link.hash)


def read(line: bytes) -> Record | None:
    """The record of a line, its line break included; None if it is none, or not a whole one."""
    found = _FORM.fullmatch(line)
    if found is None:
        return None
    try:
        match json.loads(line):
            case {
                "number": int(number),
                "time": str(time),
                "kind": str(kind),
                "prev": str(prev),
                "key": str(key),
            } as fields:
                return Record(Link(number, found[2].decode()), prev, key, Kind(kind), time, fields, found[1])
    except (ValueError, RecursionError):
        pass  # not JSON, or of a kind there is not
    return None


def read_waiting(line: bytes, keys: ChainKeys) -> Happened | None:
    """The event of a `waiting_record`; None for anything else, and where the hash is wrong."""
    record = read(line)
    if record is None or record.kind is not Kind.WAITING or not record.is_signed_by(keys):
        return None
    return Happened(record.time, AuditEvent(**{name: record.fields[name] for name in _EVENT_FIELDS}))


_EVENT_FIELDS = ("actor", "action", "outcome", "target", "request_id", "detail")


# ── verifying ──


class Why(StrEnum):
    """What is wrong with the first line that does not fit; completes "line 7 …"."""

    FORM = "is not a whole record"
    KEY = "was signed with a key that was not given"
    CHANGED = "was changed, or not written by ztproxy"
    BEGINNING = "is not how a file begins: records before it are missing"
    ANEW = "starts anew: it knows nothing of the records before"
    MISSING = "does not follow: records before it are missing"
    ORDER = "does not follow: it is repeated or moved"
    PREVIOUS = "does not follow from the record before"
    CUT = "speaks of a line cut short that is not there"


class Broken(NamedTuple):
    """The first line, counted from 1, that does not fit."""

    line: int
    why: Why


class Verified(NamedTuple):
    """Every line fits. `begins` is the kind of the first record, `first` and `last` are when things happened;
    `link` is the last record, to be compared with what was noted elsewhere.

    `cuts` counts where a crash had cut a line short and it was closed off, `late` the records written after
    the fact. `cut`: the last line is such a line and nothing was written since.
    """

    records: int
    link: Link
    begins: Kind | None = None
    first: str = ""
    last: str = ""
    late: int = 0
    cuts: int = 0
    cut: bool = False


def verify_chain(lines: Iterable[bytes], keys: ChainKeys, after: Link | None = None) -> Verified | Broken:
    """Whether the lines of one file, their line breaks included, are a whole chain.

    `after` is the last record of the file before, None where that is not looked at.
    """
    begins: Kind | None = None
    link, first, last = after, "", ""
    records = late = cuts = torn_at = 0
    torn = b""  # lines that are no records, since the last one that is
    for number, line in enumerate(lines, 1):
        record = read(line)
        if record is None:
            torn_at, torn = torn_at or number, torn + line
            continue
        why = _wrong(record, keys, link, torn)
        if why is not None:
            # A line shortened by hand is the first that does not fit, not the one after it.
            return Broken(torn_at, Why.FORM) if torn else Broken(number, why)
        records, cuts, late = records + 1, cuts + bool(torn), late + ("late" in record.fields)
        begins, first, last = begins or record.kind, first or record.time, record.time
        link, torn, torn_at = record.link, b"", 0
    if torn.endswith(b"\n"):
        return Broken(torn_at, Why.FORM)
    return Verified(records, link or NOTHING, begins, first, last, late, cuts, bool(torn))


def _wrong(record: Record, keys: ChainKeys, after: Link | None, torn: bytes) -> Why | None:
    """Why a record cannot stand below `torn` and after `after` (None: nothing is looked at before it)."""
    signed = record.is_signed_by(keys)
    if not signed:
        return Why.KEY if signed is None else Why.CHANGED
    if record.kind is Kind.WAITING:
        return Why.FORM
    if record.fields.get("cut") != (_fragment(torn) if torn else None):
        return Why.CUT
    if after is None:
        # INVARIANT: these two only. A file whose head was cut off begins with a record of another kind.
        return None if record.kind in (Kind.START, Kind.CONTINUE) else Why.BEGINNING
    if record.kind is Kind.START:
        return Why.ANEW
    if record.link.number != after.number + 1:
        return Why.MISSING if record.link.number > after.number else Why.ORDER
    return None if record.prev == after.hash else Why.PREVIOUS
