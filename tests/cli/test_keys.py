"""`ztproxy keys`: new files and rotations."""

from __future__ import annotations

import stat
from pathlib import Path

from typer.testing import CliRunner, Result

from ztproxy.adapters.keys import KeyRing
from ztproxy.cli import main


def keys(*words: str) -> Result:
    return CliRunner().invoke(main, ["keys", *words])


def test_new_keys_are_private(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    result = keys("new", str(file))
    assert (result.exit_code, result.stdout) == (
        0,
        f"wrote {file}; keep it secret, and the same on every node\n",
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(KeyRing.load(file).assertions) == 2


def test_new_keys_never_replace_others(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys("new", str(file))
    before = file.read_text()
    result = keys("new", str(file))
    assert (result.exit_code, result.stderr) == (1, f"{file}: `{file}` exists already, move it away first\n")
    assert file.read_text() == before


def test_a_rotation_keeps_what_was_current(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys("new", str(file))
    before = KeyRing.load(file)
    assert keys("rotate", str(file)).exit_code == 0
    after = KeyRing.load(file)
    assert after.handles[:2] == (before.handles[1], before.handles[0])
    assert after.records[:2] == (before.records[1], before.records[0])
    assert [key.kid for key in after.assertions[:2]] == [key.kid for key in before.assertions[::-1]]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_keys_others_can_read_are_not_rotated(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    keys("new", str(file))
    file.chmod(0o644)
    before = file.read_text()
    result = keys("rotate", str(file))
    assert result.exit_code == 1
    assert "lets others read the keys" in result.stderr
    assert file.read_text() == before


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = keys("rotate", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert "there is no key file" in result.stderr
