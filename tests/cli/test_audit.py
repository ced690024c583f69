"""`ztproxy audit`: what an operator is told of a log that is whole, and of one that is not."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ztproxy.adapters.audit_log import AuditLog
from ztproxy.adapters.keys import KeyRing, fresh_keys, rotate, write_private
from ztproxy.cli import main
from ztproxy.core.audit import AuditEvent, read

NOW = 1_795_342_272.345


def audit(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, words)])


class Node:
    """A key file and a log, with words for what happens to them."""

    def __init__(self, folder: Path) -> None:
        self.path, self.keys = folder / "audit.log", folder / "keys.yaml"
        write_private(self.keys, fresh_keys())

    def write(self, *targets: str, late: str | None = None) -> None:
        asyncio.run(self._write(targets, late))

    async def _write(self, targets: tuple[str, ...], late: str | None) -> None:
        log = AuditLog(self.path, KeyRing.load(self.keys).records, lambda: NOW, who="node")
        if late is not None:
            self.path.mkdir()  # stands in the way
            await log.write_late(AuditEvent("dave", "session.revoke", "done", late))
            self.path.rmdir()
        for target in targets:
            await log.write(AuditEvent("carol", "lock.create", "done", target, "r1", {"matched": 1}))
        await log.close()

    def move(self, name: str) -> Path:
        return self.path.rename(self.path.with_name(name))

    def edit(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        self.path.write_bytes(b"".join(change(self.path.read_bytes().splitlines(keepends=True))))

    def verify(self, *files: Path) -> Result:
        return audit("verify", "--keys", self.keys, *(files or (self.path,)))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def hash_of(path: Path) -> str:
    record = read(path.read_bytes().splitlines(keepends=True)[-1])
    assert record is not None
    return record.link.hash


def test_a_whole_log(node: Node) -> None:
    node.write("user a", "user b", late="user c")
    result = node.verify()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{node.path}: 4 records from the beginning, 2026-11-22T10:11:12.345Z to 2026-11-22T10:11:12.345Z, "
        "1 written late",
        f"last record 4, hash {hash_of(node.path)}",
    ]


def test_files_moved_away_compressed_and_not(node: Node) -> None:
    node.write("user a")
    oldest = node.path.with_name("audit.log.2.gz")
    with gzip.open(oldest, "wb") as packed:
        packed.write(node.move("x").read_bytes())
    node.write("user b")
    older = node.move("audit.log.1")
    node.write("user c")
    result = node.verify(oldest, older, node.path)
    assert result.exit_code == 0
    assert "2 records after record 4" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("last record 6, hash ")
    left_out = node.verify(oldest, node.path)
    assert (left_out.exit_code, left_out.stderr) == (
        1,
        f"{node.path}:1: does not follow: records before it are missing\n",
    )


def test_older_keys_are_given_again(node: Node) -> None:
    node.write("user a")
    older = node.keys.with_name("older.yaml")
    write_private(older, node.keys.read_text())
    for _ in range(4):
        write_private(node.keys, rotate(node.keys.read_text()), replace=True)
    node.write("user b")
    result = node.verify()
    assert (result.exit_code, result.stderr) == (
        1,
        f"{node.path}:1: was signed with a key that was not given\n",
    )
    assert audit("verify", "--keys", node.keys, "--keys", older, node.path).exit_code == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            lambda lines: [lines[0], lines[1].replace(b"user a", b"user x"), *lines[2:]],
            ":2: was changed, or not written by ztproxy",
            id="changed",
        ),
        pytest.param(
            lambda lines: [lines[0], *lines[2:]],
            ":2: does not follow: records before it are missing",
            id="removed",
        ),
        pytest.param(
            lambda lines: lines[:-1], ": ends with record 3, but this node wrote record 4", id="end-removed"
        ),
        pytest.param(lambda lines: [], ": ends with no record, but this node wrote record 4", id="emptied"),
        pytest.param(
            lambda lines: [*lines[:-1], lines[-1][:30]],
            ": ends with record 3, but this node wrote record 4",
            id="end-cut-off-as-if-by-a-crash",
        ),
    ],
)
def test_tampering_is_told(node: Node, change: Callable[[list[bytes]], list[bytes]], said: str) -> None:
    node.write("user a", "user b", "user c")
    node.edit(change)
    before = node.path.read_bytes()
    result = node.verify()
    assert (result.exit_code, result.stderr) == (1, f"{node.path}{said}\n")
    assert node.path.read_bytes() == before


def test_crashes_are_told(node: Node) -> None:
    node.write("user a")
    node.edit(lambda lines: [*lines, b'{"number":3'])
    assert "the last line is cut short and not closed off yet" in node.verify().stdout
    node.write("user b")
    result = node.verify()
    assert result.exit_code == 0
    assert "1 times cut short by a crash and closed off" in result.stdout


def test_nothing_was_written_yet(node: Node) -> None:
    node.path.write_bytes(b"")
    result = node.verify()
    assert (result.exit_code, result.stdout) == (0, f"{node.path}: no records\n")
    node.path.write_bytes(b'{"nu')
    assert node.verify().stdout == f"{node.path}: no records, but a line that was cut short\n"


def test_a_file_that_is_not_there(node: Node) -> None:
    result = node.verify()
    assert (result.exit_code, result.stderr) == (
        1,
        f"`{node.path}` cannot be read: no such file or directory\n",
    )


def test_a_file_that_is_only_called_compressed(node: Node) -> None:
    packed = node.path.with_name("audit.log.1.gz")
    packed.write_bytes(b"plain")
    result = node.verify(packed)
    assert (result.exit_code, result.stderr) == (
        1,
        f"`{packed}` cannot be read: not a gzipped file (b'pl')\n",
    )


def test_the_configuration_names_file_and_keys(node: Node) -> None:
    config = node.path.with_name("z.yaml")
    config.write_text(
        f"""\
listen: 127.0.0.1:8443
provider: {{issuer: https://idp.test, client_id: z}}
keys_file: {node.keys}
log: {{audit: {node.path}}}
routes:
  - {{from: https://app.test, to: http://10.0.0.1:1, allow_any_authenticated_user: true}}
"""
    )
    node.write("user a")
    result = audit("verify", "--config", config)
    assert result.exit_code == 0, result.output
    assert "2 records" in result.stdout
    assert "user a" in audit("show", "--config", config).stdout


# ── show ──


def test_events_are_listed(node: Node) -> None:
    node.write("user a", late="session s1")
    assert audit("show", node.path).stdout.splitlines() == [
        "2 2026-11-22T10:11:12.345Z dave session.revoke done session s1",
        '3 2026-11-22T10:11:12.345Z carol lock.create done user a {"matched":1}',
    ]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        pytest.param(("--actor", "carol"), 1, id="actor"),
        pytest.param(("--actor", "car"), 0, id="part-of-an-actor"),
        pytest.param(("--action", "lock"), 1, id="action"),
        pytest.param(("--since", "2026-11-22"), 2, id="since"),
        pytest.param(("--since", "2026-11-23"), 0, id="since-later"),
        pytest.param(("--actor", "carol", "--action", "session"), 0, id="both"),
    ],
)
def test_some_events_are_listed(node: Node, options: tuple[str, ...], count: int) -> None:
    node.write("user a", late="session s1")
    assert len(audit("show", node.path, *options).stdout.splitlines()) == count


def test_what_is_listed_moves_no_cursor(node: Node) -> None:
    node.write("user \x1b[2J\u202e\n é")
    listed = audit("show", node.path).stdout
    assert listed.splitlines() == [
        r'2 2026-11-22T10:11:12.345Z carol lock.create done user \u001b[2J\u202e\n é {"matched":1}'
    ]
