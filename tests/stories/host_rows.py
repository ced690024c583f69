"""Names of a site, by generators: what Host and an absolute target may say, and the rule that judges them.

The rule: a host is letters, digits and hyphens in labels, or an address in its one canonical form, with one
dot behind it at most and a port that is a number; both places name the same site; and it is a site of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import product

from tests.stories.framing_rows import BYTES
from tests.stories.hostile import MARK, Forwarded, Row, request
from ztproxy.core.reasons import Reason

LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")
DIGITS = frozenset(b"0123456789")


def meaning(value: bytes) -> tuple[bytes, int] | None:
    """Host and port (0 for none) of what a Host field holds; None: it is none."""
    value = value.strip(b" \t").lower()
    if any(byte < 33 or byte > 126 for byte in value):
        return None
    literal = value.startswith(b"[")
    if literal and b"]" not in value:
        return None
    end = value.index(b"]") + 1 if literal else len(value.partition(b":")[0])
    name, rest = value[:end], value[end:]
    if rest and not (rest[:1] == b":" and 1 <= len(rest[1:]) <= 5 and DIGITS.issuperset(rest[1:])):
        return None
    if rest.startswith(b":0") or int(rest[1:] or b"0") > 65535:
        return None
    try:
        if literal:
            IPv6Address(name[1:-1].decode())
            return (name, int(rest[1:] or b"0")) if b"%" not in name else None
        labels = name.removesuffix(b".").split(b".")
        if len(name.removesuffix(b".")) > 253:
            return None
        if not all(label and LETTERS.issuperset(label) and len(label) < 64 for label in labels):
            return None
        if any(label.startswith(b"-") or label.endswith(b"-") for label in labels):
            return None
        last = labels[-1]
        number = DIGITS.issuperset(last) or (
            last.startswith(b"0x") and set(last[2:]) <= DIGITS | frozenset(b"abcdef")
        )
        if number:
            IPv4Address(b".".join(labels).decode())
    except AddressValueError:
        return None
    return b".".join(labels), int(rest[1:] or b"0")


def hosts() -> Iterator[bytes]:
    name = b"app.test"
    for byte in bytes(sorted({*BYTES, *b"-.:/\\@%[]#?&=+~*!$()<>{}|^`'"})):
        if byte not in b"\n\r":
            odd = bytes((byte,))
            yield from (odd + name, b"app" + odd + b".test", b"app." + odd + b"test", name + odd, odd)
            yield from (name + b":" + odd, name + b":80" + odd, name + odd + b"evil.test")
    for port in (b"0", b"00080", b"080", b"+80", b"-80", b"8_0", b"80.0", b"65536", b"99999", b"x", b"0x50"):
        yield name + b":" + port
    yield from (
        b"APP.TEST",
        b"App.Test.",
        b"app.test..",
        b".app.test",
        b"app..test",
        b"evil.test",
        b"app",
        b"",
    )
    yield from (b"127.0.0.1", b"127.1", b"0x7f.1", b"2130706433", b"0177.0.0.1", b"127.0.0.1.", b"app.0x7f")
    yield from (
        b"[::1]",
        b"[::1]:80",
        b"[::1",
        b"::1",
        b"[::1%25eth0]",
        b"[::1%eth0]",
        b"[v1.x]",
        b"[127.0.0.1]",
    )
    yield from (
        b"xn--app-test",
        "\u24d0pp.test".encode(),
        "app\u3002test".encode(),
        b"app%2etest",
        b"%61pp.test",
    )
    yield from (b"a" * 63 + b".test", b"a" * 64 + b".test", b"a." * 130 + b"test", b"app.test,app.test")
    yield from (b"http://app.test", b"//app.test", b"app.test:80:80", b"app.test app.test", b"*.test", b"*")


def rows(who: bytes) -> Iterator[Row]:
    fields = (MARK, b"Connection: close", b"Cookie: " + who)
    for number, host in enumerate(dict.fromkeys(hosts())):
        found = meaning(host)
        expected: Forwarded | Reason | None = None
        if found is not None:
            expected = Forwarded(b"/u") if found[0] == b"app.test" else Reason.NO_SUCH_HOST
        if found is None or not found[1]:  # a port is passed on, and the app told of it: another request
            yield Row(
                f"{number} Host: {host!r}", request(b"GET /u HTTP/1.1", b"Host: " + host, *fields), expected
            )
    targets = (b"app.test", b"APP.TEST", b"evil.test", b"app.test@evil.test", b"app.test.evil.test", b"")
    schemes = (b"http", b"HTTP", b"https", b"ftp", b"file", b"javascript", b"http:http", b"")
    for number, (scheme, site, rest) in enumerate(
        product(schemes, targets, (b"/u", b"", b"?x", b"\\u", b"//u"))
    ):
        target = scheme + b"://" + site + rest
        same = scheme.lower() == b"http" and site.lower() == b"app.test"
        left = {b"/u": b"/u", b"": b"/", b"?x": b"/?x"}.get(rest)
        expected = Forwarded(left) if same and left is not None else None
        line = b"GET " + target + b" HTTP/1.1"
        yield Row(f"{number} {target!r}", request(line, b"Host: app.test", *fields), expected)
