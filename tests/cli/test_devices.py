"""`ztproxy devices`, against the real admin API."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import trustme

from tests.cli.admin_world import Heard, SlowToConfirm, answering, losing, problem, reply, run, served
from tests.surfaces.admin.world import World
from ztproxy.core.device import Device, Fact, Status

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe"
CSV = """\
id,status,owners,posture.disk_encrypted
L-1,approved,alice@example.com,yes

L-2,,"bob; carol@example.com",
"""


def put(world: World, *devices: Device) -> None:
    world.devices.devices |= {device.id: device for device in devices}


def laptop(status: Status = Status.APPROVED) -> Device:
    return Device("L-1", status, "Alice's laptop", "macos", frozenset({"alice@example.com"}), revision=1)


def test_register_list_show(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("laptop.test").cert_chain_pems[0].bytes()
    file = tmp_path / "device.pem"
    file.write_bytes(b"some words before it\n" + certificate)
    with served() as there:
        words = ["--owner", "Alice@Example.com", "--platform", "macos", "--name", "Alice's laptop"]
        made = there.ask("devices", "register", "L-1", *words, "--certificate", str(file))
        assert (made.exit_code, made.stdout) == (0, "created device L-1\n"), made.output
        device = there.world.devices.devices["L-1"]
        assert (device.status, device.owners) == (Status.PENDING, {"alice@example.com"})
        (thumbprint,) = device.certificates
        assert len(thumbprint) == 43

        again = there.ask("devices", "register", "L-1", "--certificate", "ab" * 32)
        assert again.stdout == "updated device L-1\n"
        device = there.world.devices.devices["L-1"]
        assert len(device.certificates) == 1 and thumbprint not in device.certificates
        assert device.owners == {"alice@example.com"}, "what is not given stays"

        listed = there.ask("devices", "list", role="viewer").stdout.splitlines()
        assert listed[0].split() == ["DEVICE", "STATUS", "NAME", "PLATFORM", "OWNERS", "CHANGED"]
        assert listed[1].split()[:2] == ["L-1", "pending"] and "alice@example.com" in listed[1]

        there.sign_in("alice", email="alice@example.com", device="L-1")
        shown = there.ask("devices", "show", "L-1", role="viewer").stdout
        assert "macos" in shown and "alice@example.com" in shown.splitlines()[-1]
        told = json.loads(there.ask("devices", "show", "L-1", "--json").stdout)
        assert told["device"]["id"] == "L-1" and len(told["sessions"]) == 1


def test_the_fingerprint_is_that_of_the_certificate(tmp_path: Path) -> None:
    """SHA-256 of its DER, as `openssl x509 -fingerprint -sha256` has it."""
    import ssl

    pem = trustme.CA().issue_cert("laptop.test").cert_chain_pems[0].bytes()
    file = tmp_path / "device.pem"
    file.write_bytes(pem)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()
    with served() as there:
        there.ask("devices", "register", "A", "--certificate", str(file))
        there.ask("devices", "register", "B", "--certificate", digest)
        assert list(there.world.devices.devices) == ["A"], "they are one certificate"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], ["L-1", "L-2", "P-1"]),
        (["--status", "pending"], ["P-1"]),
        (["--owner", "ALICE@example.com"], ["L-1"]),
        (["--text", "LAPTOP"], ["L-1"]),
        (["--limit", "2"], ["L-1", "L-2"]),
    ],
)
def test_filters(words: list[str], found: list[str]) -> None:
    with served() as there:
        put(there.world, laptop(), Device("L-2", Status.LOST, revision=1), Device("P-1", revision=1))
        told = json.loads(there.ask("devices", "list", "--json", *words).stdout)
        assert [one["id"] for one in told["devices"]] == found
        assert (told["next"] is not None) is ("--limit" in words)


def test_no_devices() -> None:
    with served() as there:
        assert there.ask("devices", "list").stderr == "no devices\n"


@pytest.mark.parametrize(
    ("command", "before", "after"),
    [
        ("approve", Status.PENDING, Status.APPROVED),
        ("approve", Status.LOST, Status.APPROVED),
        ("pending", Status.APPROVED, Status.PENDING),
        ("lost", Status.APPROVED, Status.LOST),
        ("retire", Status.APPROVED, Status.RETIRED),
    ],
)
def test_a_status(command: str, before: Status, after: Status) -> None:
    ends = after in (Status.LOST, Status.RETIRED)
    with served() as there:
        put(there.world, laptop(before))
        there.sign_in("alice", device="L-1")
        result = there.ask("devices", command, "L-1", "--reason", "why not", *(["--yes"] if ends else []))
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"device L-1 is {after}")
        assert ("ended 1 session, confirmed everywhere" in result.stdout) is ends
        assert there.world.devices.devices["L-1"].status is after
        assert there.targets == ([("device", "L-1")] if ends else [])


def test_remove() -> None:
    with served() as there:
        put(there.world, laptop())
        refused = there.ask("devices", "remove", "L-1", "--yes")
        assert (refused.exit_code, list(there.world.devices.devices)) == (1, ["L-1"]), "for admins"
        result = there.ask("devices", "remove", "L-1", "--yes", role="admin")
        assert (result.exit_code, result.stdout) == (0, "removed device L-1\n")
        assert (there.world.devices.devices, there.targets) == ({}, [("device", "L-1")])


@pytest.mark.parametrize(("typed", "status"), [("y\n", Status.LOST), ("n\n", Status.APPROVED)])
def test_asked_first(typed: str, status: Status) -> None:
    with served() as there:
        put(there.world, laptop())
        there.sign_in("alice", device="L-1")
        code, _, err = there.at_terminal("devices", "lost", "L-1", typed=typed)
        assert code == (0 if status is Status.LOST else 1)
        assert "device `L-1`: 1 session" in err
        assert there.world.devices.devices["L-1"].status is status


def test_asked_again_until_it_is_confirmed() -> None:
    log = SlowToConfirm(unconfirmed=2, away=1)
    with served(World(log=log)) as there:
        put(there.world, laptop())
        result = there.ask("devices", "lost", "L-1", "--yes")
        assert result.exit_code == 0, result.output
        assert len(set(log.asked)) == 1 and len(log.asked) == 4
        assert len(there.targets) == 1


def test_never_confirmed() -> None:
    with served(World(log=SlowToConfirm(unconfirmed=10_000))) as there:
        put(there.world, laptop())
        result = there.ask("devices", "retire", "L-1", "--yes", "--wait", "0.5")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "not confirmed everywhere" in result.stderr


def test_an_answer_that_does_not_say_so() -> None:
    body = json.dumps({"device": {"status": "lost"}, "outcome": "updated", "ended": None, "audit": "late"})
    with answering(reply(body)) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("devices", "lost", "L-1", "--yes", env=env)
        assert result.exit_code == 1 and "does not say" in result.stderr
        result = run("devices", "approve", "L-1", "--json", env=env)
        assert (result.exit_code, json.loads(result.stdout)["outcome"]) == (0, "updated")
        assert "audit log" in result.stderr


def test_a_row_brings_nothing_back() -> None:
    with served() as there:
        put(there.world, laptop(Status.LOST))
        result = there.ask("devices", "register", "L-1", "--status", "approved")
        assert result.exit_code == 0
        assert "it stays lost; `ztproxy devices approve` brings it back" in result.stderr


# ── files ──


@pytest.mark.parametrize("format", ["csv", "json"])
def test_import(tmp_path: Path, format: str) -> None:
    file = tmp_path / f"devices.{format}"
    rows = [
        {
            "id": "L-1",
            "status": "approved",
            "owners": ["alice@example.com"],
            "posture": {"disk_encrypted": True},
        },
        {"id": "L-2", "owners": ["bob", "carol@example.com"]},
    ]
    file.write_text(CSV if format == "csv" else json.dumps({"devices": rows}))
    with served() as there:
        dry = there.ask("devices", "import", str(file), "--dry-run")
        assert (dry.stdout, there.world.devices.devices) == (
            "would be: 2 created, 0 updated, 0 unchanged\n",
            {},
        )
        done = there.ask("devices", "import", str(file))
        assert (done.exit_code, done.stdout) == (0, "2 created, 0 updated, 0 unchanged\n"), done.output
        devices = there.world.devices.devices
        assert devices["L-2"].owners == {"bob", "carol@example.com"}
        assert devices["L-1"].posture["disk_encrypted"].value is True
        assert there.ask("devices", "import", str(file)).stdout == "0 created, 0 updated, 2 unchanged\n"


def test_import_from_standard_input_and_what_stays_lost(tmp_path: Path) -> None:
    file = tmp_path / "without-a-suffix"
    file.write_text('[{"id": "L-1", "status": "approved"}]')
    with served() as there:
        put(there.world, laptop(Status.LOST))
        result = there.ask("devices", "import", str(file), "--format", "json")
        assert result.exit_code == 0
        assert "not brought back: L-1" in result.stderr


def test_a_bad_row_is_named_by_its_line_and_nothing_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    file.write_text(CSV + "L 3,,,\n,,,\nL-4,stolen,,\n")
    with served() as there:
        result = there.ask("devices", "import", str(file))
        assert (result.exit_code, result.stdout) == (1, "")
        lines = result.stderr.splitlines()
        assert [line.split(": ")[1] for line in lines[:2]] == ["line 5", "line 7"]
        assert "`status` is `stolen`" in lines[1]
        assert lines[2:] == ["nothing was taken in"]
        assert there.world.devices.devices == {}


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        pytest.param("d.csv", b"name\nx\n", "`id` is not among the columns", id="no id"),
        pytest.param("d.csv", b"id,id\nx,y\n", "is the name of two columns", id="a column twice"),
        pytest.param("d.csv", b"id\n\xff\n", "line 2: it is not UTF-8", id="not UTF-8"),
        pytest.param("d.csv", b"", "the file is empty", id="empty"),
        pytest.param("d.json", b"{", "it is not JSON", id="no JSON"),
        pytest.param("d.json", b'[{"id": "x", "id": "y"}]', "is given twice", id="a key twice"),
        pytest.param("d.json", b"[1]", "item 1", id="no object"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, raw: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(raw)
    heard = Heard()
    with answering(reply("{}"), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("devices", "import", tmp_path / name, env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr and result.stderr.startswith(str(tmp_path))
    assert heard.requests == []


def test_an_import_whose_answer_was_lost(tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    file.write_text(CSV)
    with served() as there, losing(there, 1) as url:
        result = there.ask("devices", "import", str(file), url=url)
        assert (result.exit_code, result.stdout) == (0, "2 created, 0 updated, 0 unchanged\n"), result.output


def test_posture(tmp_path: Path) -> None:
    file = tmp_path / "posture.json"
    file.write_text('[{"device": "L-1", "facts": {"edr_running": true}}, {"device": "L-9", "facts": {}}]')
    with served() as there:
        put(there.world, laptop())
        result = there.ask("devices", "posture", str(file), role="admin")
        assert (result.exit_code, result.stdout) == (0, "reported on 1 devices\n"), result.output
        assert result.stderr == "not in the inventory: L-9\n"
        fact = there.world.devices.devices["L-1"].posture["edr_running"]
        assert isinstance(fact, Fact) and (fact.value, fact.source) == (True, "admin-1")
        assert there.ask("devices", "posture", str(file), role="operator").exit_code == 1
        file.write_text('[{"device": "L-1", "facts": {"edr_running": "perhaps"}}]')
        result = there.ask("devices", "posture", str(file), role="admin")
        assert result.exit_code == 1 and "item 1: `facts.edr_running`" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["lost", "L-1"],
        ["retire", "L-1"],
        ["remove", "L-1"],
        ["lost", " ", "--yes"],
        ["approve", ""],
        ["show", ""],
        ["register", ""],
        ["register", "L-1", "--status", "stolen"],
        ["list", "--status", "stolen"],
        ["import", "devices.xml", "--format", "xml"],
        ["import"],
    ],
)
def test_usage_sends_nothing(words: list[str]) -> None:
    heard = Heard()
    with answering(reply("{}"), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("devices", *words, env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert heard.requests == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["import", "nowhere.csv"], "`nowhere.csv` cannot be read"),
        (["register", "L-1", "--certificate", __file__], "there is no certificate in"),
    ],
)
def test_files_that_are_not_there(words: list[str], said: str) -> None:
    with served() as there:
        result = there.ask("devices", *words)
        assert result.exit_code == 1 and said in result.stderr


def test_what_the_api_refuses() -> None:
    with served() as there:
        assert "there is no such device" in there.ask("devices", "approve", "L-9").stderr
        assert "`certificates`" in there.ask("devices", "register", "L-1", "--certificate", "x").stderr
        assert there.ask("devices", "approve", "L-9", role="viewer").exit_code == 1
        assert there.world.devices.devices == {}


def test_what_is_hostile_moves_no_cursor(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("id\nL-1\n")
    device = {"id": HOSTILE, "name": HOSTILE, "owners": [HOSTILE], "status": HOSTILE}
    mistakes = [{"place": HOSTILE, "field": "x", "text": HOSTILE}, {"place": "item 9", "text": "x"}]
    listed, one = {"devices": [device], "next": None}, {"device": device, "sessions": []}
    imported = {"created": HOSTILE, "held": [HOSTILE], "audit": "late"}
    refused = json.dumps({"type": "urn:ztproxy:problem:invalid", "mistakes": mistakes, "more": 3})
    for words, answer in [
        (["list"], reply(json.dumps(listed))),
        (["show", "L-1"], reply(json.dumps(one))),
        (["import", str(file)], reply(json.dumps(imported))),
        (["import", str(file)], reply(refused, "400 Bad Request", "application/problem+json")),
        (["import", str(file)], problem("invalid", "400 Bad Request", detail=HOSTILE)),
    ]:
        with answering(answer) as url:
            env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
            result = run("devices", *words, env=env)
        assert all(line.isprintable() for line in result.output.split("\n")), words
