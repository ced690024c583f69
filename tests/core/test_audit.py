"""The chain of the audit log: what a record is, and every way in which somebody might tamper with it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ztproxy.core.audit import (
    NOTHING,
    AuditEvent,
    Broken,
    ChainKeys,
    Happened,
    Kind,
    Link,
    Verified,
    Why,
    event_record,
    moment,
    own_record,
    read,
    read_waiting,
    verify_chain,
    waiting_record,
)

OLD, NEW, STRANGE = (bytes([number]) * 32 for number in (1, 2, 9))
KEYS, FOREIGN = ChainKeys([OLD]), ChainKeys([STRANGE])
TIME = "2026-11-22T10:11:12.345Z"
EVENT = AuditEvent("carol", "lock.create", "done", "user alice", "req-1", {"reason": "left", "matched": 3})


def happened(number: int) -> Happened:
    return Happened(
        f"2026-11-22T10:11:{number:02}.000Z", AuditEvent("carol", "lock.create", f"done {number}")
    )


def chain(
    count: int, *, keys: ChainKeys = KEYS, after: Link = NOTHING, kind: Kind = Kind.START
) -> list[bytes]:
    """A file of `count` records, the first of which is of `kind`."""
    line, link = own_record(kind, TIME, "node", after, keys)
    lines = [line]
    for number in range(2, count + 1):
        line, link = event_record(happened(number), "node", link, keys)
        lines.append(line)
    return lines


def link_of(line: bytes) -> Link:
    record = read(line)
    assert record is not None
    return record.link


GOOD = chain(6)


# ── records ──


def test_a_record_says_what_happened() -> None:
    line, link = event_record(Happened(TIME, EVENT), "node 7", Link(6, "ab" * 32), KEYS)
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "number": 7,
        "time": TIME,
        "kind": "event",
        "by": "node 7",
        "actor": "carol",
        "action": "lock.create",
        "outcome": "done",
        "target": "user alice",
        "request_id": "req-1",
        "detail": {"reason": "left", "matched": 3},
        "prev": "ab" * 32,
        "key": KEYS.current,
        "hash": link.hash,
    }
    assert link.number == 7


def test_a_late_record_says_so() -> None:
    line, _ = event_record(Happened(TIME, EVENT), "node", NOTHING, KEYS, late=True)
    assert json.loads(line)["late"] is True


def test_the_form_is_stable() -> None:
    # written by an earlier run of this program: what is on the disk must verify after an upgrade
    line, _ = own_record(Kind.START, TIME, "node", NOTHING, KEYS)
    assert line == (
        b'{"number":1,"time":"2026-11-22T10:11:12.345Z","kind":"start","by":"node","prev":"'
        + b"0" * 64
        + b'",'
        b'"key":"ebb4a71e4a91fbb3","hash":"28714f1113c4a4577d71b6c3e1ce6bab3c1825f00f149e1c750baed12a2d0f22"}\n'
    )


@pytest.mark.parametrize(
    ("now", "text"),
    [
        pytest.param(0.0, "1970-01-01T00:00:00.000Z", id="the-epoch"),
        pytest.param(1_795_342_272.3459, "2026-11-22T10:11:12.345Z", id="cut-not-rounded"),
    ],
)
def test_moment(now: float, text: str) -> None:
    assert moment(now) == text


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param('x"}\n{"number":2', id="a-line-break-and-a-record"),
        pytest.param('","hash":"' + "0" * 64 + '"}', id="a-hash-of-ones-own"),
        pytest.param("\x1b[2J\x00\x7f", id="escape-sequences"),
        pytest.param("half \ud800", id="half-a-surrogate-pair"),
        pytest.param("\u2028\u202e", id="unicode-line-break"),
    ],
)
def test_what_people_write_stays_text(hostile: str) -> None:
    event = AuditEvent(hostile, hostile, hostile, hostile, hostile, {hostile: hostile})
    line, link = event_record(Happened(TIME, event), hostile, link_of(GOOD[0]), KEYS)
    assert line.count(b"\n") == 1
    assert line.isascii()
    record = read(line)
    assert record is not None
    assert (record.fields["actor"], record.fields["detail"]) == (hostile, {hostile: hostile})
    assert verify_chain([GOOD[0], line], KEYS) == Verified(2, link, Kind.START, TIME, TIME)


def test_an_admin_token_is_struck_out() -> None:
    token = "ztp_" + "aB3-_" * 8 + "xyz"
    event = AuditEvent("carol", "lock.create", "refused", token, detail={"reason": f"pasted {token}, sorry"})
    line, _ = event_record(Happened(TIME, event), "node", NOTHING, KEYS)
    assert b"aB3" not in line
    assert json.loads(line)["detail"] == {"reason": "pasted ztp_(redacted), sorry"}


def test_a_key_shows_nothing_of_itself() -> None:
    assert OLD.hex() not in repr(KEYS)
    assert KEYS.current not in (OLD.hex(), FOREIGN.current)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"\n", id="empty-line"),
        pytest.param(GOOD[0][:-1], id="no-line-break"),
        pytest.param(GOOD[0][:40] + b"\n", id="shortened"),
        pytest.param(GOOD[0] + GOOD[1], id="two"),
        pytest.param(GOOD[0].replace(b'"number":1', b'"number":"1"'), id="a-number-that-is-text"),
        pytest.param(GOOD[0].replace(b'"prev"', b'"before"'), id="a-field-missing"),
        pytest.param(GOOD[0].replace(b'"start"', b'"restart"'), id="unknown-kind"),
        pytest.param(GOOD[0].replace(b'"number":1,', b'"number":1,,'), id="not-json"),
        pytest.param(GOOD[0].replace(b"node", b"n\xffde"), id="not-utf-8"),
        pytest.param(GOOD[0].replace(b'"node"', b"[" * 100_000), id="deeper-than-the-stack"),
        pytest.param(GOOD[0].replace(b'"number":1', b'"number":' + b"9" * 10_000), id="a-number-without-end"),
    ],
)
def test_what_is_no_record(line: bytes) -> None:
    assert read(line) is None
    assert verify_chain([line, *GOOD], KEYS) == Broken(1, Why.FORM)


# ── whole chains ──


def test_a_whole_chain() -> None:
    assert verify_chain(GOOD, KEYS) == Verified(
        6, link_of(GOOD[-1]), Kind.START, TIME, "2026-11-22T10:11:06.000Z"
    )


def test_no_lines_are_no_records() -> None:
    assert verify_chain([], KEYS) == Verified(0, NOTHING)
    assert verify_chain([], KEYS, Link(7, "a" * 64)).link == Link(7, "a" * 64)  # type: ignore[union-attr]


def test_a_file_follows_the_one_moved_away() -> None:
    last = link_of(GOOD[-1])
    second = chain(3, after=last, kind=Kind.CONTINUE)
    found = verify_chain(second, KEYS, last)
    assert isinstance(found, Verified)
    assert (found.records, found.link.number, found.begins) == (3, 9, Kind.CONTINUE)
    assert verify_chain(second, KEYS) == found  # and alone, where the one before is not looked at


def test_a_rotation_of_keys_goes_through_the_chain() -> None:
    lines = chain(3)
    line, link = event_record(happened(4), "node", link_of(lines[-1]), ChainKeys([NEW, OLD]))
    lines.append(line)
    assert json.loads(line)["key"] == ChainKeys([NEW]).current != KEYS.current
    assert verify_chain(lines, ChainKeys([NEW, OLD])) == Verified(
        4, link, Kind.START, TIME, "2026-11-22T10:11:04.000Z"
    )
    assert verify_chain(lines, ChainKeys([NEW])) == Broken(1, Why.KEY)
    assert verify_chain(lines, KEYS) == Broken(4, Why.KEY)


def test_late_records_are_counted() -> None:
    line, _ = event_record(happened(1), "node", link_of(GOOD[0]), KEYS, late=True)
    found = verify_chain([GOOD[0], line], KEYS)
    assert isinstance(found, Verified)
    assert (found.records, found.late) == (2, 1)


# ── crashes ──


def closed_off(kind: Kind, lines: list[bytes], torn: bytes, named: bytes | None = None) -> list[bytes]:
    """`lines`, then `torn` and the record that names it, then one more."""
    after = link_of(lines[-1]) if lines else NOTHING
    own, link = own_record(kind, TIME, "node", after, KEYS, cut=torn if named is None else named)
    last, _ = event_record(happened(9), "node", link, KEYS)
    return [*lines, *(torn + b"\n").splitlines(keepends=True), own, last]


@pytest.mark.parametrize(
    ("kind", "lines", "torn"),
    [
        pytest.param(Kind.CUT, GOOD, GOOD[1][:50], id="in-the-middle-of-a-file"),
        pytest.param(Kind.CUT, GOOD, GOOD[1][:50] + b"\n" + GOOD[2][:60], id="twice-in-a-row"),
        pytest.param(Kind.CUT, GOOD, b"\0" * 512, id="zeroes-after-a-loss-of-power"),
        pytest.param(Kind.START, [], GOOD[0][:50], id="the-first-record-of-all"),
        pytest.param(Kind.CONTINUE, [], GOOD[0][:50], id="the-first-record-of-a-file"),
    ],
)
def test_what_a_crash_cut_short_is_closed_off(kind: Kind, lines: list[bytes], torn: bytes) -> None:
    found = verify_chain(closed_off(kind, lines, torn), KEYS)
    assert isinstance(found, Verified)
    assert (found.records, found.cuts, found.cut) == (len(lines) + 2, 1, False)


def test_a_last_line_cut_short_is_told_apart() -> None:
    found = verify_chain([*GOOD[:3], GOOD[3][:-20]], KEYS)
    assert isinstance(found, Verified)
    assert (found.records, found.link, found.cut) == (3, link_of(GOOD[2]), True)


def test_a_last_line_that_only_lacks_its_end_is_not_counted() -> None:
    found = verify_chain([*GOOD[:3], GOOD[3][:-1]], KEYS)
    assert isinstance(found, Verified)
    assert (found.records, found.cut) == (3, True)


# ── attacks ──


def forged(lines: list[bytes], at: int) -> list[bytes]:
    """From `at` on written anew, by somebody who knows the form and has a key of his own."""
    link = link_of(lines[at - 1])
    out = lines[:at]
    for number in range(at, len(lines)):
        line, link = event_record(happened(number + 40), "node", link, FOREIGN)
        out.append(line.replace(FOREIGN.current.encode(), KEYS.current.encode()))
    return out


WAITING = waiting_record(happened(2), "node", KEYS)
REST = chain(4, after=Link(6, "0" * 64), kind=Kind.CONTINUE)


@pytest.mark.parametrize(
    ("tamper", "broken"),
    [
        pytest.param(
            lambda g: [g[0], g[1].replace(b"carol", b"mallory"), *g[2:]], Broken(2, Why.CHANGED), id="changed"
        ),
        pytest.param(
            lambda g: [*g[:2], g[2].replace(b"10:11:03", b"10:11:02"), *g[3:]],
            Broken(3, Why.CHANGED),
            id="dated-back",
        ),
        pytest.param(lambda g: [*g[:-1], g[-1].replace(b"done", b"dine")], Broken(6, Why.CHANGED), id="last"),
        pytest.param(lambda g: [*g[:2], *g[3:]], Broken(3, Why.MISSING), id="removed"),
        pytest.param(lambda g: g[1:], Broken(1, Why.BEGINNING), id="head-removed"),
        pytest.param(lambda g: [g[0], g[2], g[1], *g[3:]], Broken(2, Why.MISSING), id="swapped"),
        pytest.param(lambda g: [*g[:3], g[1], *g[3:]], Broken(4, Why.ORDER), id="repeated"),
        pytest.param(lambda g: [*g, g[0]], Broken(7, Why.ANEW), id="a-start-in-the-middle"),
        pytest.param(lambda g: [*g[:2], *chain(4)], Broken(3, Why.ANEW), id="another-log-put-behind"),
        pytest.param(
            lambda g: [*g, *chain(2, after=Link(6, "f" * 64), kind=Kind.CONTINUE)],
            Broken(7, Why.PREVIOUS),
            id="a-record-of-another-chain",
        ),
        pytest.param(lambda g: forged(g, 3), Broken(4, Why.CHANGED), id="rewritten-from-the-middle"),
        pytest.param(
            lambda g: [*g[:2], *chain(3, keys=FOREIGN, after=link_of(g[1]), kind=Kind.CONTINUE)],
            Broken(3, Why.KEY),
            id="rewritten-under-a-key-of-ones-own",
        ),
        pytest.param(lambda g: [*g[:2], g[2][:50] + b"\n", *g[3:]], Broken(3, Why.FORM), id="shortened"),
        pytest.param(lambda g: [*g[:2], g[2][:50], *g[3:]], Broken(3, Why.FORM), id="shortened-and-joined"),
        pytest.param(lambda g: [*g[:2], b"# note\n", *g[2:]], Broken(3, Why.FORM), id="a-line-inserted"),
        pytest.param(lambda g: [*g, b"# note\n"], Broken(7, Why.FORM), id="a-line-appended"),
        pytest.param(lambda g: [*g[:3], b"\n", *g[3:]], Broken(4, Why.FORM), id="an-empty-line"),
        pytest.param(lambda g: [g[0], WAITING, *g[2:]], Broken(2, Why.FORM), id="a-waiting-record-moved-in"),
        pytest.param(
            lambda g: closed_off(Kind.CUT, g, b"torn", named=b"corn"), Broken(7, Why.FORM), id="another-cut"
        ),
        pytest.param(
            lambda g: [line for line in closed_off(Kind.CUT, g, b"torn") if line != b"torn\n"],
            Broken(7, Why.CUT),
            id="what-was-cut-removed",
        ),
        pytest.param(
            lambda g: closed_off(Kind.CUT, g, b"torn")[6:],
            Broken(1, Why.FORM),
            id="head-removed-up-to-a-cut",
        ),
    ],
)
def test_tampering_is_found(tamper: Callable[[list[bytes]], list[bytes]], broken: Broken) -> None:
    assert verify_chain(tamper(list(GOOD)), KEYS) == broken


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        pytest.param(REST, Why.MISSING, id="a-file-left-out"),
        pytest.param(GOOD, Why.ANEW, id="a-log-begun-anew"),
        pytest.param(GOOD[1:], Why.ORDER, id="in-the-wrong-order"),
    ],
)
def test_files_that_do_not_follow(lines: list[bytes], why: Why) -> None:
    assert verify_chain(lines, KEYS, link_of(GOOD[3])) == Broken(1, why)


def test_every_changed_byte_is_noticed() -> None:
    for position in range(len(GOOD[1]) - 1):
        changed = bytearray(GOOD[1])
        changed[position] ^= 1
        assert isinstance(verify_chain([GOOD[0], bytes(changed), *GOOD[2:]], KEYS), Broken)


def test_an_end_removed_cannot_be_seen_and_shows_in_the_link() -> None:
    found = verify_chain(GOOD[:4], KEYS)
    assert isinstance(found, Verified)
    assert found.link == link_of(GOOD[3]) != link_of(GOOD[-1])


# ── events that wait ──


def test_a_waiting_event_comes_back() -> None:
    line = waiting_record(Happened(TIME, EVENT), "node", ChainKeys([OLD]))
    assert read_waiting(line, ChainKeys([NEW, OLD])) == Happened(TIME, EVENT)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(WAITING[:-9] + b"\n", id="shortened"),
        pytest.param(WAITING.replace(b"carol", b"mallory"), id="changed"),
        pytest.param(waiting_record(happened(2), "node", FOREIGN), id="signed-by-somebody-else"),
        pytest.param(GOOD[1], id="a-record-of-the-log-once-more"),
    ],
)
def test_what_is_no_waiting_event(line: bytes) -> None:
    assert read_waiting(line, KEYS) is None
