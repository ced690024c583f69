"""What reading costs before anybody is asked who they are: the dearest heads and bodies a client may send.

Each input goes through exactly what a connection would do with it (the byte grammar, the meaning, llhttp's
second opinion; or the body's reader), in one process with nothing else. CPU is the least of several runs,
which is the work itself; memory is the most that was held beyond the input while it was read, as
`tracemalloc` counts.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer, Request
from ztproxy.wire.agreement import SecondOpinion
from ztproxy.wire.bodies import ChunkedBody
from ztproxy.wire.head import find_head, parse_request

RUNS = 7
MOST_CPU_MS = 50.0
MOST_TIMES_ITS_SIZE = 10.0
SMALLEST = 16 * 1024
"""What is shorter is weighed as this: objects have their own size, and 160 KiB for a moment harm nobody."""

_READ = 64 * 1024  # what a transport gives at once
_PEER = Peer("203.0.113.9", False)
_READING = Reading(secure=False, cookie="__Host-ztproxy")


class Cost(NamedTuple):
    """`cpu_ms` and `held` (bytes) for reading `size` bytes; `outcome` is `read` or the reason."""

    size: int
    cpu_ms: float
    held: int
    outcome: str

    @property
    def times_its_size(self) -> float:
        return self.held / max(self.size, SMALLEST)


def _get(*fields: bytes, target: bytes = b"/u") -> bytes:
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: app.test", *fields, b"", b""))


def _browser() -> bytes:
    agent = (
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
    )
    return _get(
        b"User-Agent: " + agent,
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        b"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Cookie: __Host-ztproxy=v1." + b"a" * 43 + b"; theme=dark; consent=1",
        b"Sec-Fetch-Dest: document",
        b"Sec-Fetch-Mode: navigate",
        b"Sec-Fetch-Site: same-origin",
        b"Referer: https://app.test/reports",
        target=b"/reports/2026/11?page=3",
    )


HEADS: Mapping[str, bytes] = {
    "as a browser sends it": _browser(),
    "a path of 8,000 bytes, all escapes": _get(target=b"/" + b"%C3%A9" * 1333),
    "a path of 4,000 segments": _get(target=b"/a" * 4000),
    "2,000 segments, decoded again": _get(target=b"/a" * 2000 + b"%2541%3F"),
    "a path of 4,000 bytes, many readings": _get(target=b"/%2541%3F" + b"/%C3%A9" * 570),
    "a query of 8,000 bytes": _get(target=b"/?" + b"a=b&" * 2000),
    "97 fields of 300 bytes": _get(*(b"X-%d: " % number + b"v" * 300 for number in range(97))),
    "97 names nobody has sent before": _get(*(b"X%040d: v" % number for number in range(97))),
    "a cookie of 1,600 pairs": _get(b"Cookie: " + b"; ".join([b"a=b"] * 1600)),
    "four cookies of 8,000 bytes of separators": _get(*[b"Cookie: " + b";" * 8000] * 3),
    "a Connection list of 4,000 names": _get(b"Connection: " + b",".join([b"a"] * 4000)),
    "X-Forwarded-For of 2,000 addresses": _get(b"X-Forwarded-For: " + b",".join([b"::1"] * 2000)),
    "80 KiB of fields": _get(*(b"X%d: " % number + b"a" * 4000 for number in range(20))),
    "a target of 9,000 bytes": _get(target=b"/" + b"a" * 9000),
    "60 KiB without a line's end": b"GET /" + b"a" * 60_000,
}


def _chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"


BODIES: Mapping[str, tuple[bytes, int]] = {
    "20,000 chunks of one byte": (_chunked(*[b"a"] * 20_000), _READ),
    "20,000 chunks of one byte, 100 bytes a read": (_chunked(*[b"a"] * 20_000), 100),
    "2,000 chunks, a byte a read": (_chunked(*[b"a"] * 2_000), 1),
    "one chunk of 1 MiB": (_chunked(bytes(1 << 20)), _READ),
    "4 KiB of extensions, a byte a read": (b"1;" + b"x" * 4000 + b"\r\na\r\n0\r\n\r\n", 1),
    "4 KiB of trailers, a byte a read": (
        b"0\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"t" * 240) for n in range(15)) + b"\r\n",
        1,
    ),
    "70 KB of extensions": (b"3;" + b"x" * 70_000 + b"\r\nabc\r\n0\r\n\r\n", _READ),
}


def measure() -> dict[str, Cost]:
    """Every input, by its name."""
    heads = {name: _cost(data, lambda data=data: read_head(data)) for name, data in HEADS.items()}
    bodies = {
        name: _cost(data, lambda data=data, size=size: read_body(data, size))
        for name, (data, size) in BODIES.items()
    }
    return heads | bodies


def read_head(data: bytes) -> str:
    end = find_head(data)
    if isinstance(end, Reason):
        return end
    assert end, "the row holds no whole head"
    raw = parse_request(data[:end])
    if isinstance(raw, Reason):
        return raw
    # A new one each time: what a client sends for the first time is what costs most.
    request = Normaliser(_READING).read(raw, _PEER)
    if not isinstance(request, Request):
        return request
    return "read" if SecondOpinion().agrees(data[:end], False) else Reason.HTTP_SYNTAX


def read_body(data: bytes, size: int) -> str:
    reader = ChunkedBody()
    for start in range(0, len(data), size):
        if reader.feed(data[start : start + size]) is None:
            return Reason.HTTP_BODY
    return "read" if reader.ended else "unfinished"


def _cost(data: bytes, read: Callable[[], str]) -> Cost:
    outcome = read()
    least = min(_cpu(read) for _ in range(RUNS))
    gc.collect()
    tracemalloc.start()
    try:
        read()
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return Cost(len(data), round(least * 1000, 3), held, outcome)


def _cpu(read: Callable[[], str]) -> float:
    begun = time.process_time()
    read()
    return time.process_time() - begun


def report(costs: Mapping[str, Cost]) -> list[str]:
    """The table, and whether both bounds hold for all of them."""
    worst = max(cost.cpu_ms for cost in costs.values())
    most = max(cost.times_its_size for cost in costs.values())
    verdict = "met" if worst <= MOST_CPU_MS and most <= MOST_TIMES_ITS_SIZE else "NOT met"
    return [
        "",
        "reading, before anything is known of who asks (CPU, and memory held beyond the input)",
        *(
            f"  {name:<46}{cost.size:>9,} B  {cost.cpu_ms:>8.3f} ms  {cost.held:>9,} B  {cost.outcome}"
            for name, cost in costs.items()
        ),
        f"  at most {worst:.1f} ms (aim {MOST_CPU_MS:g}) and {most:.1f} times its size "
        f"(aim {MOST_TIMES_ITS_SIZE:g}): {verdict}",
    ]
