"""Rows about devices: what is read of them, every way in which one is wrong, and what one changes on file."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from ztproxy.core.device import Device, Fact, Status
from ztproxy.core.device_files import Placed, placed_items, read_csv, read_json
from ztproxy.core.device_rows import (
    MOST_LISTED,
    MOST_NAMED,
    BadRow,
    DeviceRow,
    Mistake,
    device_of,
    devices_of,
    report_of,
)

NOW = 1_800_000_000.0
DIGEST = bytes(range(32))
HEX = DIGEST.hex()
COLONS = ":".join(f"{byte:02X}" for byte in DIGEST)
X5T = base64.urlsafe_b64encode(DIGEST).decode().rstrip("=")
OWN_FACTS = {"crowd_zta": int}


def read(row: dict[str, Any]) -> DeviceRow:
    return device_of(row, OWN_FACTS, "import", NOW)


# ── one row ──


def test_a_whole_row() -> None:
    row = {
        "id": "C02-XYZ",
        "name": " Älice's laptop ",
        "platform": "macOS",
        "owners": ["Alice@Corp.Test", "https://op.test|A-1", "a-1"],
        "status": "Approved",
        "certificates": [COLONS],
        "posture": {"disk_encrypted": True, "crowd_zta": {"value": 88, "source": "edr", "at": 5}},
        "posture_at": 1_700_000_000,
    }
    assert read(row) == DeviceRow(
        "C02-XYZ",
        Status.APPROVED,
        "Älice's laptop",
        "macos",
        frozenset({"alice@corp.test", "https://op.test|A-1", "a-1"}),
        frozenset({X5T}),
        {"disk_encrypted": Fact(True, "import", 1_700_000_000.0), "crowd_zta": Fact(88, "edr", 5.0)},
    )


def test_a_row_says_nothing_of_what_it_does_not_name() -> None:
    assert read({"id": "d"}) == DeviceRow("d")
    cleared = read({"id": "d", "name": "", "platform": "", "owners": [], "certificates": " ; "})
    assert cleared == DeviceRow("d", None, "", "", frozenset(), frozenset())


def test_posture_may_come_in_columns() -> None:
    row = read({"id": "d", "posture.disk_encrypted": "yes", "posture.crowd_zta": "7"})
    assert row.posture == {
        "disk_encrypted": Fact(True, "import", NOW),
        "crowd_zta": Fact(7, "import", NOW),
    }


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        HEX.upper(),
        COLONS,
        COLONS.lower(),
        X5T,
        X5T + "=",
    ],
)
def test_every_form_of_a_fingerprint_is_the_same(text: str) -> None:
    assert read({"id": "d", "certificates": text}).certificates == frozenset({X5T})


@pytest.mark.parametrize(
    ("owners", "found"),
    [
        pytest.param("a@x.test;b@x.test", {"a@x.test", "b@x.test"}, id="semicolon"),
        pytest.param(" a@x.test  b@x.test; ", {"a@x.test", "b@x.test"}, id="spaces"),
        pytest.param("A@X.test a@x.test", {"a@x.test"}, id="once"),
        pytest.param("Auth0|Abc@x", {"Auth0|Abc@x"}, id="subject-with-a-bar"),
        pytest.param("Abc", {"Abc"}, id="subject-keeps-its-case"),
        pytest.param("=cmd()", {"=cmd()"}, id="formula-is-text"),
        pytest.param(("a",), {"a"}, id="tuple"),
        pytest.param(["a" * 255 + "|" + "b" * 255], {"a" * 255 + "|" + "b" * 255}, id="longest"),
    ],
)
def test_owners(owners: Any, found: set[str]) -> None:
    assert read({"id": "d", "owners": owners}).owners == found


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        pytest.param({}, "id", "is missing", id="no-id"),
        pytest.param({"id": 7}, "id", "write it in quotes", id="number"),
        pytest.param({"id": None}, "id", "write it in quotes", id="null"),
        pytest.param({"id": "=cmd()"}, "id", "use letters, digits", id="formula"),
        pytest.param({"id": "../etc"}, "id", "use letters, digits", id="path"),
        pytest.param({"id": "{ztp}:x"}, "id", "use letters, digits", id="key"),
        pytest.param({"id": "x" * 129}, "id", "1 to 128", id="long"),
        pytest.param({"id": "ü"}, "id", "use letters, digits", id="umlaut"),
        pytest.param({"id": "d", "owner": "a"}, "owner", "did you mean `owners`", id="nearest-key"),
        pytest.param({"id": "d", "qqqq": "a"}, "qqqq", "leave it out", id="unknown-key"),
        pytest.param({"id": "d", "\x1b[2J": "a"}, "\x1b[2J", r"`\?\[2J`", id="terminal"),
        pytest.param(
            {"id": "d", "posture.disk_encryptd": "yes"},
            "posture.disk_encryptd",
            "did you mean `posture.disk_encrypted`",
            id="nearest-column",
        ),
        pytest.param(
            {"id": "d", "posture.edr_running": "ja"}, "posture.edr_running", "write `true`", id="fact"
        ),
        pytest.param(
            {"id": "d", "posture": {}, "posture.edr_running": "yes"}, "posture", "twice", id="both-ways"
        ),
        pytest.param({"id": "d", "posture_at": "2026-01-01T00:00:00"}, "posture_at", "no zone", id="zone"),
        pytest.param({"id": "d", "name": "a\nb"}, "name", "printable", id="two-lines"),
        pytest.param({"id": "d", "name": None}, "name", "in quotes", id="null-name"),
        pytest.param({"id": "d", "platform": "Mac OS"}, "platform", "one word", id="platform"),
        pytest.param({"id": "d", "status": "stolen"}, "status", "`pending`, `approved`, `lost`", id="status"),
        pytest.param({"id": "d", "status": ""}, "status", "printable", id="no-status"),
        pytest.param({"id": "d", "owners": 7}, "owners", "no list", id="owner-number"),
        pytest.param({"id": "d", "owners": ["a", 7]}, "owners", "not a text", id="owner-entry"),
        pytest.param({"id": "d", "owners": [""]}, "owners", "e-mail address", id="owner-empty"),
        pytest.param({"id": "d", "owners": ["a b"]}, "owners", "e-mail address", id="owner-space"),
        pytest.param({"id": "d", "owners": "älice@x"}, "owners", "e-mail address", id="owner-umlaut"),
        pytest.param({"id": "d", "owners": "a" * 256}, "owners", "e-mail address", id="owner-long"),
        pytest.param({"id": "d", "owners": "a|" + "b" * 256}, "owners", "e-mail address", id="subject-long"),
        pytest.param(
            {"id": "d", "owners": ["a"] * (MOST_LISTED + 1)}, "owners", "at most 32", id="many-owners"
        ),
        pytest.param({"id": "d", "certificates": "ab:cd"}, "certificates", "SHA-256", id="short"),
        pytest.param({"id": "d", "certificates": HEX[:40]}, "certificates", "SHA-1", id="sha1"),
        pytest.param({"id": "d", "certificates": COLONS[:59]}, "certificates", "SHA-1", id="sha1-colons"),
        pytest.param(
            {"id": "d", "certificates": X5T[:-1] + "9"}, "certificates", "in hex", id="not-canonical"
        ),
        pytest.param({"id": "d", "certificates": HEX[:63] + "g"}, "certificates", "in hex", id="no-hex"),
    ],
)
def test_a_row_that_is_wrong_names_the_field_and_the_mend(row: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(BadRow, match=says) as refused:
        read(row)
    assert refused.value.field == field
    assert str(refused.value).isprintable()


# ── what a row changes ──


def test_a_new_device_is_pending_unless_the_row_says_otherwise() -> None:
    assert DeviceRow("d").onto(None, NOW) == Device("d", created_at=NOW, changed_at=NOW)
    assert DeviceRow("d", Status.APPROVED).onto(None, NOW).status is Status.APPROVED


ON_FILE = Device(
    "d",
    Status.APPROVED,
    "old",
    "linux",
    frozenset({"a"}),
    frozenset({"c"}),
    frozenset({"k"}),
    {"edr_running": Fact(True, "edr", 10.0)},
    1.0,
    2.0,
    7,
)


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"name": "old", "status": Status.APPROVED}, {}, id="the-same"),
        pytest.param({"name": "new"}, {"name": "new", "changed_at": NOW}, id="name"),
        pytest.param({"name": ""}, {"name": "", "changed_at": NOW}, id="name-cleared"),
        pytest.param({"platform": "macos"}, {"platform": "macos", "changed_at": NOW}, id="platform"),
        pytest.param(
            {"owners": frozenset({"b"})}, {"owners": frozenset({"b"}), "changed_at": NOW}, id="owners"
        ),
        pytest.param(
            {"certificates": frozenset()}, {"certificates": frozenset(), "changed_at": NOW}, id="certificates"
        ),
        pytest.param({"status": Status.LOST}, {"status": Status.LOST, "changed_at": NOW}, id="status"),
        pytest.param({"posture": {"edr_running": Fact(False, "x", 9.0)}}, {}, id="late-fact"),
        pytest.param(
            {"posture": {"edr_running": Fact(False, "x", 11.0)}},
            {"posture": {"edr_running": Fact(False, "x", 11.0)}},
            id="newer-fact-alone",
        ),
    ],
)
def test_a_row_changes_what_it_says_and_nothing_else(row: dict[str, Any], changes: dict[str, Any]) -> None:
    assert DeviceRow("d", **row).onto(ON_FILE, NOW) == replace(ON_FILE, **changes)


@pytest.mark.parametrize("shut_out", [Status.LOST, Status.RETIRED])
@pytest.mark.parametrize("asked", list(Status))
def test_no_row_brings_back_what_is_shut_out(shut_out: Status, asked: Status) -> None:
    lost = replace(ON_FILE, status=shut_out)
    row = DeviceRow("d", asked, name="new")
    after = row.onto(lost, NOW)
    held = asked in (Status.PENDING, Status.APPROVED)
    assert row.held(lost) is held and not row.held(ON_FILE) and not row.held(None)
    assert after.status is (shut_out if held else asked)
    assert after.name == "new"
    assert not DeviceRow("d").held(lost)


# ── many rows ──


def rows(*raw: dict[str, Any]) -> list[Placed]:
    return placed_items(raw)


def test_every_mistake_is_found_in_one_go() -> None:
    found = devices_of(
        rows({"id": "a"}, {"id": "-"}, {"id": "b", "status": "x"}, {"id": "c"}), {}, "import", NOW
    )
    assert [row.id for row in found.rows] == ["a", "c"]
    assert [(one.place, one.field) for one in found.mistakes] == [("item 2", "id"), ("item 3", "status")]
    assert str(found.mistakes[1]).startswith("item 3: `status` is `x`: write one of")
    assert found.more == 0


def test_no_more_than_a_few_mistakes_are_named_and_the_rest_counted() -> None:
    found = devices_of(rows(*({"id": "-"} for _ in range(MOST_NAMED + 5))), {}, "import", NOW)
    assert len(found.mistakes) == MOST_NAMED and found.more == 5 and found.rows == ()


@pytest.mark.parametrize(
    ("later", "field", "says"),
    [
        pytest.param({"id": "a"}, "id", "item 3: `id` has `a`, and so has item 1: keep one of them", id="id"),
        pytest.param(
            {"id": "b", "certificates": X5T},
            "certificates",
            f"item 3: `certificates` has `{X5T}`, and so has item 1: keep one of them",
            id="certificate",
        ),
    ],
)
def test_a_device_that_is_there_twice_names_both_places(later: dict[str, Any], field: str, says: str) -> None:
    found = devices_of(rows({"id": "a", "certificates": HEX}, {"id": "z"}, later), {}, "import", NOW)
    assert found.mistakes == (Mistake("item 3", field, says.removeprefix("item 3: ")),)
    assert str(found.mistakes[0]) == says


def test_ids_of_another_case_are_other_devices() -> None:
    assert devices_of(rows({"id": "a"}, {"id": "A"}), {}, "import", NOW).mistakes == ()


def test_a_file_of_a_hundred_thousand_rows() -> None:
    text = "id,status,posture.disk_encrypted\n" + "".join(f"d{n},approved,yes\n" for n in range(100_000))
    found = devices_of(read_csv(text.encode()), {}, "import", NOW)
    assert len(found.rows) == 100_000 and found.mistakes == ()


def test_an_escaped_nul_is_refused_where_it_stands() -> None:
    found = devices_of(read_json(json.dumps([{"id": "a", "name": "x\0"}]).encode()), {}, "import", NOW)
    assert [(one.place, one.field) for one in found.mistakes] == [("item 1", "name")]


# ── reports ──


def test_a_report_is_of_its_feed() -> None:
    item = {"device": "d", "at": 100, "facts": {"edr_running": True, "crowd_zta": {"value": 3, "at": 200}}}
    assert report_of(item, OWN_FACTS, "crowdstrike", NOW) == (
        "d",
        {"edr_running": Fact(True, "crowdstrike", 100.0), "crowd_zta": Fact(3, "crowdstrike", 200.0)},
    )
    bare = {"device": "d", "facts": {"edr_running": True}}
    assert report_of(bare, {}, "edr", NOW)[1] == {"edr_running": Fact(True, "edr", NOW)}


@pytest.mark.parametrize(
    ("item", "says"),
    [
        pytest.param({"facts": {}}, "`device` is missing", id="no-device"),
        pytest.param({"device": "d"}, "`facts` is missing", id="no-facts"),
        pytest.param({"device": "-", "facts": {}}, "`device` is `-`", id="device"),
        pytest.param({"device": "d", "facts": {}, "fact": 1}, "did you mean `facts`", id="unknown"),
        pytest.param({"device": "d", "facts": {}, "at": NOW + 301}, "`at` is in the future", id="future"),
        pytest.param({"device": "d", "facts": {"edr_running": 1}}, "`facts.edr_running`", id="value"),
        pytest.param(
            {"device": "d", "facts": {"edr_running": {"value": True, "source": "jamf"}}},
            "`facts.edr_running.source` is unknown",
            id="speaks-for-another",
        ),
    ],
)
def test_a_report_that_is_wrong(item: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRow, match=says):
        report_of(item, {}, "edr", NOW)
