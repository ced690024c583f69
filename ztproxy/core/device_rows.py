"""Rows about devices, as operators and feeds write them in files or send them to the admin API.

Knows: the columns and keys below. Promises: a row is read whole or not at all; what is wrong names its line
or item, its field and the mend, and every wrong row is found in one go, so that nothing has to be half
imported to learn of the next mistake. Leaves files to `device_files`, and writing what was read to
`gateway.inventory`.

    id             required; `DEVICE_ID`
    name           up to 128 printable characters
    platform       `macos`, `windows`, `linux`, `ios`, `android`, `chromeos` or another word; lower-cased
    owners         e-mail addresses (lower-cased), subjects, or `issuer|subject`
    status         `pending`, `approved`, `lost` or `retired`; a device that is new is `pending` without it
    certificates   SHA-256 fingerprints: hex, with or without colons, or base64url (x5t#S256)
    posture        JSON: `{name: value}` or `{name: {"value": …, "source": …, "at": …}}`
    posture.<name> CSV: one column for each fact
    posture_at     when the facts of this row were so, for those that do not say: epoch seconds or RFC 3339

Lists are JSON arrays, or text separated by `;` or spaces. What a row does not name stays as it is on file; so
does what has an empty cell in CSV. An empty text or list in JSON clears it. A cell that looks like a formula
is a text like any other here: nothing is ever evaluated.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from ztproxy.core.device import DEVICE_ID, KNOWN_FACTS, Device, Fact, FactType, Status
from ztproxy.core.device_files import Placed
from ztproxy.core.posture import BadRow as BadRow
from ztproxy.core.posture import facts_of, line_of, merged, shown, time_of, unknown

MOST_NAMED = 20
"""Mistakes that are named; the rest is counted."""

MOST_LISTED = 32
"""Owners, and certificates, one device may have."""

MAX_OWNER = 255
"""Characters of an e-mail address or a subject (OpenID Connect Core 2), and of an issuer before it."""

_KEYS = ("id", "name", "platform", "owners", "status", "certificates", "posture", "posture_at")
_COLUMN = "posture."
_PLATFORM = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_OWNER = re.compile(r"[!-~]+")
_HEX = re.compile(r"[0-9a-f]{64}|[0-9a-f]{2}(?::[0-9a-f]{2}){31}")
_SHA1 = re.compile(r"[0-9a-f]{40}|[0-9a-f]{2}(?::[0-9a-f]{2}){19}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{43}")
_SHUT_OUT = (Status.LOST, Status.RETIRED)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """What one row brings. None: the row does not say."""

    id: str
    status: Status | None = None
    name: str | None = None
    platform: str | None = None
    owners: frozenset[str] | None = None
    certificates: frozenset[str] | None = None
    posture: Mapping[str, Fact] = field(default_factory=lambda: MappingProxyType({}))

    def onto(self, device: Device | None, now: float) -> Device:
        """The device as it is after this row: the same, `==`, where the row brings nothing new.

        What the row says replaces what is on file; of posture the newer stays; keys stay. `changed_at` moves
        only with something other than posture. INVARIANT: no row brings back a device that is lost or
        retired, or tonight's import would undo what somebody did today.
        """
        known = device if device is not None else Device(self.id, created_at=now, changed_at=now)
        said = replace(
            known,
            status=known.status if self.status is None or self.held(device) else self.status,
            name=known.name if self.name is None else self.name,
            platform=known.platform if self.platform is None else self.platform,
            owners=known.owners if self.owners is None else self.owners,
            certificates=known.certificates if self.certificates is None else self.certificates,
        )
        after = said if said == known else replace(said, changed_at=now)
        return replace(after, posture=merged(known.posture, self.posture))

    def held(self, device: Device | None) -> bool:
        """Whether it asks to bring back a device that is shut out, which no row does."""
        return (
            device is not None
            and device.status in _SHUT_OUT
            and self.status is not None
            and self.status not in _SHUT_OUT
        )


class Mistake(NamedTuple):
    """What is wrong with the row at a place; `field` may be empty."""

    place: str
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class DeviceRows(NamedTuple):
    """What was read. Where there are mistakes nothing of it may be used. `more` were not named."""

    rows: tuple[DeviceRow, ...]
    mistakes: tuple[Mistake, ...]
    more: int = 0


def devices_of(
    placed: Iterable[Placed], facts: Mapping[str, FactType], source: str, now: float
) -> DeviceRows:
    """Every row as `device_of` reads it, and every row's first mistake; of two rows with the same device or
    certificate the later is one."""
    rows: list[DeviceRow] = []
    mistakes: list[Mistake] = []
    wrong = 0
    ids: dict[str, str] = {}
    certificates: dict[str, str] = {}
    for place, raw in placed:
        try:
            row = device_of(raw, facts, source, now)
            _see_it_is_new("id", (row.id,), ids, place)
            _see_it_is_new("certificates", row.certificates or (), certificates, place)
        except BadRow as bad:
            wrong += 1
            if wrong <= MOST_NAMED:
                mistakes.append(Mistake(place, bad.field, str(bad)))
        else:
            rows.append(row)
    return DeviceRows(tuple(rows), tuple(mistakes), wrong - len(mistakes))


def device_of(row: Mapping[str, object], facts: Mapping[str, FactType], source: str, now: float) -> DeviceRow:
    """The row, read. `facts` are those that the operator named beside `KNOWN_FACTS`, `source` whom to name
    for facts that do not say, `now` seconds since the epoch. Raises `BadRow`."""
    types = {**KNOWN_FACTS, **facts}
    columns: dict[str, object] = {}
    for key in row:
        if key.startswith(_COLUMN):
            columns[key.removeprefix(_COLUMN)] = row[key]
        elif key not in _KEYS:
            raise unknown(key, (*_KEYS, *(_COLUMN + name for name in types)))
    if "id" not in row:
        raise BadRow("id", "is missing")
    at = time_of("posture_at", row["posture_at"], now) if "posture_at" in row else now
    if columns and "posture" in row:
        raise BadRow("posture", "is given twice: as a whole, and as columns")
    posture = row.get("posture", columns)
    return DeviceRow(
        id=_id("id", row["id"]),
        status=_if_named(row, "status", _status),
        name=_if_named(row, "name", _name),
        platform=_if_named(row, "platform", _platform),
        owners=_if_named(row, "owners", _owners),
        certificates=_if_named(row, "certificates", _certificates),
        posture=facts_of(posture, types, source, at, now, field="posture"),
    )


def report_of(
    item: Mapping[str, object], facts: Mapping[str, FactType], source: str, now: float
) -> tuple[str, Mapping[str, Fact]]:
    """The device and the facts of one report: `{"device": id, "facts": {name: value | {"value", "at"}},
    "at": when all that do not say were so}`; without either time it is `now`. The source is the feed's own
    name, whatever the feed says. Raises `BadRow`."""
    for key in item:
        if key not in ("device", "facts", "at"):
            raise unknown(key, ("device", "facts", "at"))
    for key in ("device", "facts"):
        if key not in item:
            raise BadRow(key, "is missing")
    at = time_of("at", item["at"], now) if "at" in item else now
    types = {**KNOWN_FACTS, **facts}
    device = _id("device", item["device"])
    return device, facts_of(item["facts"], types, source, at, now, field="facts", own_source=False)


# ── fields ──


def _if_named(row: Mapping[str, object], name: str, read: Callable[[str, object], T]) -> T | None:
    return read(name, row[name]) if name in row else None


def _see_it_is_new(name: str, found: Iterable[str], before: dict[str, str], place: str) -> None:
    for one in found:
        if one in before:
            raise BadRow(name, f"has `{one}`, and so has {before[one]}: keep one of them")
    before.update((one, place) for one in found)


def _id(name: str, raw: object) -> str:
    text = line_of(name, raw)
    if not DEVICE_ID.fullmatch(text):
        raise BadRow(
            name, f"is `{shown(text)}`: use letters, digits and `._:@-`, a letter or digit at each end"
        )
    return text


def _name(name: str, raw: object) -> str:
    return "" if raw == "" else line_of(name, raw)


def _status(name: str, raw: object) -> Status:
    text = line_of(name, raw).lower()
    if text not in {str(one) for one in Status}:
        raise BadRow(name, f"is `{shown(text)}`: write one of {', '.join(f'`{one}`' for one in Status)}")
    return Status(text)


def _platform(name: str, raw: object) -> str:
    text = "" if raw == "" else line_of(name, raw).lower()
    if text and not _PLATFORM.fullmatch(text):
        raise BadRow(name, f"is `{shown(text)}`: write one word, such as `macos`")
    return text


def _owners(name: str, raw: object) -> frozenset[str]:
    return frozenset(_owner(name, text) for text in _list(name, raw))


def _owner(name: str, text: str) -> str:
    if not _OWNER.fullmatch(text) or max(map(len, text.split("|", 1))) > MAX_OWNER:
        raise BadRow(name, f"has `{shown(text)}`: write an e-mail address, a subject or `issuer|subject`")
    # An e-mail address; what has a `|` is a subject, and subjects are case-sensitive (OpenID Connect Core 2).
    return text.lower() if "@" in text and "|" not in text else text


def _certificates(name: str, raw: object) -> frozenset[str]:
    return frozenset(_thumbprint(name, text) for text in _list(name, raw))


def _thumbprint(name: str, text: str) -> str:
    """x5t#S256 (RFC 8705 3.1): base64url without padding, in its one canonical form."""
    if _HEX.fullmatch(text.lower()):
        digest = bytes.fromhex(text.replace(":", ""))
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
    if _SHA1.fullmatch(text.lower()):
        raise BadRow(name, f"has `{shown(text)}`, a SHA-1 fingerprint: write that of SHA-256")
    bare = text.removesuffix("=")
    if _BASE64URL.fullmatch(bare):
        canonical = base64.urlsafe_b64encode(base64.urlsafe_b64decode(bare + "=")).decode().rstrip("=")
        if canonical == bare:
            return canonical
    raise BadRow(name, f"has `{shown(text)}`: write a SHA-256 fingerprint in hex or base64url")


def _list(name: str, raw: object) -> Sequence[str]:
    texts = list(_texts(name, raw))
    if len(texts) > MOST_LISTED:
        raise BadRow(name, f"has {len(texts)} entries: at most {MOST_LISTED} are kept")
    return texts


def _texts(name: str, raw: object) -> Iterator[str]:
    if isinstance(raw, str):
        yield from re.split(r"[; ]+", raw.strip("; ")) if raw.strip("; ") else ()
    elif isinstance(raw, list | tuple):
        for one in raw:
            if not isinstance(one, str):
                raise BadRow(name, "has an entry that is not a text: write each in quotes")
            yield one.strip()
    else:
        raise BadRow(name, "is no list of texts")
