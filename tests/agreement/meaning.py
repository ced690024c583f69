"""What a request means, by the letter: the reading every server's own is compared with.

Knows: HTTP/1.1 as ztproxy writes it, and not one spelling more: whatever is not exactly that fails the test.
Promises: `Meaning` is what an app can learn of a request; two are told apart by `differences`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from ztproxy.core.fields import fold, is_reserved
from ztproxy.core.paths import canonical_path
from ztproxy.core.request import Path

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^`|~0-9A-Za-z]+): ([\t\x20-\x7e\x80-\xff]*)")
_TRUSTED = (b"authorization", b"content-type", b"origin")
_ENDED = (
    b"keep-alive",
    b"te",
    b"trailer",
    b"http2-settings",
    b"proxy",
    b"proxy-authorization",
    b"proxy-connection",
)

Field = tuple[bytes, bytes]
Managed = dict[str, tuple[bytes, ...]]


class Meaning(NamedTuple):
    """`managed` are the values of the fields an app must be able to trust, by folded name, in order: those
    only we may write, those of which two would be two requests, and those that end with us. `fields` are all
    of them, names in small letters, where a server tells them one by one. `path` is what a server decoded,
    where it tells. `octets` are what it was read from."""

    method: str
    target: bytes
    host: bytes
    body: bytes
    managed: Managed
    fields: tuple[Field, ...] | None = None
    path: bytes | None = None
    octets: bytes = b""

    @classmethod
    def of(cls, method: str, target: bytes, body: bytes, fields: list[Field]) -> Meaning:
        """Of what a parser tells field by field."""
        hosts = [value for name, value in fields if name.lower() == b"host"]
        lower = tuple((name.lower(), value) for name, value in fields)
        return cls(method, target, b", ".join(hosts), body, managed_of(fields), lower)

    @property
    def mark(self) -> bytes:
        """The id that this request and no other carries."""
        return b"".join(self.managed.get("x-request-id", ()))


class Unreadable(Exception):
    """These are not bytes that ztproxy may write."""


def managed_of(fields: list[Field]) -> Managed:
    found: Managed = {}
    for name, value in fields:
        folded = fold(name)
        if is_reserved(folded) or folded in _TRUSTED or folded in _ENDED:
            found[folded.decode()] = (*found.get(folded.decode(), ()), value)
    return found


def read_one(octets: bytes) -> tuple[Meaning, bytes]:
    """The first request, and what is behind it."""
    head, end, rest = octets.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    asked = _LINE.fullmatch(line)
    matches = [_FIELD.fullmatch(one) for one in lines]
    if not end or asked is None or not all(matches):
        raise Unreadable(head)
    fields = [(found[1], found[2]) for found in matches if found]
    known = [(name.lower(), value) for name, value in fields]
    hosts, lengths, codings = (
        [value for key, value in known if key == name]
        for name in (b"host", b"content-length", b"transfer-encoding")
    )
    if len(hosts) != 1 or len(lengths) + len(codings) > 1 or any(coding != b"chunked" for coding in codings):
        raise Unreadable(head)
    body = b""
    if lengths:
        size = int(lengths[0])
        if lengths[0] != b"%d" % size or len(rest) < size:
            raise Unreadable(head)
        body, rest = rest[:size], rest[size:]
    elif codings:
        body, rest = _dechunked(rest)
    read = len(octets) - len(rest)
    return Meaning.of(asked[1].decode(), asked[2], body, fields)._replace(octets=octets[:read]), rest


def _dechunked(octets: bytes) -> tuple[bytes, bytes]:
    body = []
    while True:
        digits, end, octets = octets.partition(b"\r\n")
        if not end or not re.fullmatch(rb"[0-9a-fA-F]+", digits):
            raise Unreadable(digits)
        size = int(digits, 16)
        if octets[size : size + 2] != b"\r\n":
            raise Unreadable(octets[: size + 2])
        body.append(octets[:size])
        octets = octets[size + 2 :]
        if size == 0:
            return b"".join(body), octets


def read_all(octets: bytes) -> list[Meaning]:
    meanings = []
    while octets:
        meaning, octets = read_one(octets)
        meanings.append(meaning)
    return meanings


def told(words: bytes) -> Meaning:
    """What a server said in JSON. Texts are octets, each a character; a body is base64. `fields` are those it
    got one by one, `variables` what it has made of them.
    """
    said: dict[str, Any] = json.loads(words)
    listed = said.get("fields") or said["variables"]
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in listed]
    target = said["target"].encode("latin-1")
    meaning = Meaning.of(said["method"], target, base64.b64decode(said["body"]), fields)
    if "fields" not in said:
        meaning = meaning._replace(fields=None)
    return meaning._replace(path=said["path"].encode("latin-1")) if "path" in said else meaning


def differences(meant: Meaning, heard: Meaning) -> list[str]:
    """In what a server took a request for another one than the policy was asked about.

    A decoded path may be any of the readings that the policy had to allow: servers split at `%2F`, merge `//`
    and cut at `;` as they like.
    """
    found = [
        f"{name}: {getattr(meant, name)!r} was taken for {getattr(heard, name)!r}"
        for name in ("method", "target", "host", "managed", "fields", "body")
        if getattr(meant, name) != getattr(heard, name) and getattr(heard, name) is not None
    ]
    # Where a server does not decode `%2F` at all it stands for a slash that splits nothing; what would decode
    # to the text `%2F` is never forwarded.
    if heard.path is not None and heard.path.replace(b"%2F", b"/") not in readings(meant):
        found.append(f"path: {meant.target!r} was decoded to {heard.path!r}")
    return found


def readings(meant: Meaning) -> list[bytes]:
    """The decoded paths the policy was asked about."""
    raw = meant.target.partition(b"?")[0]
    path = canonical_path(raw)
    assert isinstance(path, Path) and path.text.encode() == raw, f"{raw!r} is not canonical"
    decoded = [b"/" + "/".join(reading).encode() for reading in path.readings]
    assert unquote_to_bytes(raw) in decoded
    return decoded


async def whole(
    until: Callable[[bytes], Awaitable[bytes]], exactly: Callable[[int], Awaitable[bytes]]
) -> bytes:
    """The octets of the next request on a connection, framed as in RFC 9112 6."""
    octets = await until(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)\r\n", octets, re.IGNORECASE)
    if length:
        octets += await exactly(int(length[1]))
    elif re.search(rb"\r\nTransfer-Encoding: chunked\r\n", octets, re.IGNORECASE):
        size = 1
        while size:
            line = await until(b"\r\n")
            size = int(line, 16)
            octets += line + (await exactly(size + 2))
    return octets
