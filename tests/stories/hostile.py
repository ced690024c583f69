"""Hostile requests by the hundred: building them, sending them all at once, and what each must come to.

A `Row` is bytes and what must become of them: nothing at all (`None`), an answer of ours that is no refusal
of the bytes (a status), or exactly one request for the app (`Forwarded`). `judged` sends rows in every way
asked for and judges each: the app's side tells by a mark in a field of its own whether it got through.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.stories.house import House
from tests.stories.talking import Heard, Sending, until
from ztproxy.core.reasons import Reason

HOST = b"Host: app.test"
MARK = b"X-Mark: here"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"
LISTENERS = ("plain", "tls")


def request(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((line, *fields, b"", b"")) + body


def get(*fields: bytes, target: bytes = b"/u") -> bytes:
    return request(b"GET " + target + b" HTTP/1.1", HOST, *fields)


def post(*fields: bytes, body: bytes = b"abc", version: bytes = b"1.1") -> bytes:
    return request(b"POST /u HTTP/" + version, HOST, *fields, body=body)


# ---- what came back --------------------------------------------------------------------------------------


def is_constant(answer: Heard) -> bool:
    """Whether the body is a sentence of ours, or a JSON problem of such sentences; the request's id may be in
    it, and nothing of the request."""
    of_status = [reason for reason in Reason if reason.status == answer.status]
    if answer.body in [reason.sentence.encode() + b"\n" for reason in of_status]:
        return True
    problem = json.loads(answer.body)
    identifier = problem.pop("request_id")
    known = [
        {"type": "about:blank", "title": problem["title"], "status": reason.status}
        | {"detail": reason.sentence, "reasons": [reason]}
        for reason in of_status
    ]
    titles = ("Misdirected Request", "Bad Request")
    return (
        problem in known
        and problem["title"] in titles
        and re.fullmatch("[0-9a-f]{32}", identifier) is not None
    )


def is_refused(answer: Heard, status: int) -> None:
    """One answer of this status, of constant words, and then the end."""
    assert answer.status == status, answer
    assert answer.data.count(b"HTTP/1.1 ") == 1, "more than one answer"
    assert answer.fields("Connection") == ["close"]
    assert answer.closed and not answer.reset
    assert is_constant(answer), answer.body
    assert answer.fields("Set-Cookie") == []


def refusals(home: House) -> Counter[str]:
    metrics = home.operations("/metrics").body.decode()
    series = re.findall(r'^ztproxy_http_refused_total{reason="(\w+)"} ([\d.]+)$', metrics, re.MULTILINE)
    return Counter({reason: int(float(count)) for reason, count in series})


# ---- what the app got ------------------------------------------------------------------------------------


def golden(
    listener: str, target: bytes, *fields: bytes, method: bytes = b"GET", body: bytes = b"", who: bool = True
) -> bytes:
    """The request the app must receive, with `ID` and `JWS` where a new one is made each time."""
    lines = [method + b" " + target + b" HTTP/1.1", HOST, *fields]
    lines += [b"X-Forwarded-For: 127.0.0.1"]
    lines += [b"X-Forwarded-Proto: " + (b"https" if listener == "tls" else b"http")]
    lines += [b"X-Forwarded-Host: app.test", b"X-Request-Id: ID"]
    lines += [b"X-Ztproxy-Assertion: JWS"] if who else []
    return b"\r\n".join((*lines, b"", body))


def blurred(received: bytes) -> bytes:
    received = re.sub(rb"(?<=\r\nX-Request-Id: )[0-9a-f]{32}(?=\r\n)", b"ID", received)
    return re.sub(rb"(?<=\r\nX-Ztproxy-Assertion: )[\w-]+\.[\w-]+\.[\w-]+(?=\r\n)", b"JWS", received)


def dechunked(received: bytes) -> bytes:
    """Chunks may be cut anew on the way: what they carry is compared, not where they end."""
    head, _, body = received.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked\r\n" not in head + b"\r\n":
        return received
    data = b""
    while size := int(body.partition(b"\r\n")[0], 16):
        start = body.index(b"\r\n") + 2
        data += body[start : start + size]
        assert body[start + size : start + size + 2] == b"\r\n"
        body = body[start + size + 2 :]
    assert body == b"0\r\n\r\n", "the end of the body is not a plain one"
    return head + b"\r\n\r\n" + data


# ---- rows by the hundred ---------------------------------------------------------------------------------


class Forwarded(NamedTuple):
    """What the app must see: the target, what is left of the client's fields, framing included, the body."""

    target: bytes
    fields: tuple[bytes, ...] = ()
    body: bytes = b""
    who: bool = True


class Row(NamedTuple):
    """`raw` has a line `Host: app.test`, behind which the mark is put, or a `MARK` of its own. `expected`:
    None for a refusal with 400, a reason where the very one is part of the rule, a status for an answer about
    who is asking."""

    name: str
    raw: bytes
    expected: Forwarded | int | Reason | None


class Result(NamedTuple):
    row: Row
    listener: str
    heard: Heard
    received: list[bytes]


def judged(
    home: House, rows: Iterable[Row], *, in_tls: int | None = None, in_bytes: int = 0
) -> tuple[list[str], list[Result]]:
    """What went otherwise than the rows say, in words, and every result.

    Every row is sent whole over plain TCP; so many of them, drawn by lot, over TLS (None: all of them), and
    so many a byte at a time over either. With `in_tls` 0 nothing goes over TLS.
    """
    rows = list(rows)
    assert len({row.name for row in rows}) == len(rows), "two rows of one name"
    lot = random.Random(5)
    over_tls = rows if in_tls is None else lot.sample(rows, in_tls)
    cut = lot.sample(rows, in_bytes)
    tries: list[tuple[Row, str, int | None]] = [(row, "plain", None) for row in rows]
    tries += [(row, "tls", None) for row in over_tls]
    tries += [(row, listener, 0) for listener in LISTENERS[: 1 if in_tls == 0 else 2] for row in cut]
    before, passed = refusals(home), len(home.app.requests)
    sendings = [
        Sending(_marked(row.raw, b"X-Mark: %d." % number), listener, at)
        for number, (row, listener, at) in enumerate(tries)
    ]
    answers = home.send_all(sendings)
    by_mark: dict[int, list[bytes]] = {number: [] for number in range(len(tries))}
    words: list[str] = []
    for one in home.app.requests[passed:]:
        found = re.search(rb"\r\nX-Mark: (\d+)\.\r\n", one)
        if found is None:
            words.append(f"nobody sent this: {one!r}")
        else:
            by_mark[int(found[1])].append(one)
    results = [
        Result(row, listener, answer, by_mark[number])
        for number, ((row, listener, _), answer) in enumerate(zip(tries, answers, strict=True))
    ]
    words += [f"{one.row.name} / {one.listener}: {why}" for one in results if (why := _why_wrong(one))]
    if not words:
        words += _miscounted(home, before, [row.expected for row, _, _ in tries])
    return words, results


def _marked(raw: bytes, mark: bytes) -> bytes:
    place = MARK if MARK in raw else HOST
    return raw.replace(place, mark if place == MARK else HOST + b"\r\n" + mark, 1)


def _miscounted(home: House, before: Counter[str], expected: Sequence[object]) -> list[str]:
    refused = [one for one in expected if one is None or isinstance(one, Reason)]
    until(lambda: (refusals(home) - before).total() >= len(refused))
    counted = refusals(home) - before
    reasons = {one for one in refused if isinstance(one, Reason)}
    words = [f"{reason}: {counted[reason]}" for reason in reasons if counted[reason] != refused.count(reason)]
    return words + ([] if counted.total() == len(refused) else [f"not one count each: {counted}"])


def _why_wrong(one: Result) -> str:
    row, listener, heard, received = one
    expected = row.expected
    try:
        if expected is None or isinstance(expected, Reason):
            is_refused(heard, 400 if expected is None else expected.status)
            assert received == [], "it reached the app"
        elif isinstance(expected, int):
            assert (heard.status, heard.data.count(b"HTTP/1.1 ")) == (expected, 1), heard
            assert received == [], "it reached the app"
        else:
            assert (heard.status, heard.body) == (200, b"ok"), heard
            (got,) = received
            mark = re.search(rb"X-Mark: \d+\.", got)
            assert mark is not None
            method = row.raw.lstrip().partition(b" ")[0]
            due = golden(
                listener,
                expected.target,
                mark[0],
                *expected.fields,
                method=method,
                body=expected.body,
                who=expected.who,
            )
            assert dechunked(blurred(got)) == dechunked(due), got
    except (AssertionError, ValueError) as error:
        return f"{error} (sent {row.raw[:300]!r}, expected {expected!r})"
    return ""
