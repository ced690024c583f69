"""Changes of files: told once, whatever kind of change it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ztproxy.config.watch import Watch


def rewrite(file: Path) -> None:
    file.write_text("longer than before")


def replace(file: Path) -> None:
    """As editors and renewers do: another file under the same name, of the same length and time."""
    before = file.stat()
    other = file.with_name("other")
    other.write_text(file.read_text())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(file)


def touch(file: Path) -> None:
    os.utime(file, ns=(1, 1))


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("change", [rewrite, replace, touch, remove])
def test_a_change_is_told_once(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file, still = tmp_path / "a", tmp_path / "b"
    file.write_text("a")
    still.write_text("b")
    watch = Watch([file, still])
    assert watch.changed() == ()
    change(file)
    assert watch.changed() == (file,)
    assert watch.changed() == ()


def test_a_swapped_link_is_a_change(tmp_path: Path) -> None:
    """Kubernetes mounts secrets behind a link that it swaps."""
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name)
    (tmp_path / "data").symlink_to("v1")
    file = tmp_path / "data" / "key"
    watch = Watch([file])
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "data")
    assert watch.changed() == (file,)


def test_a_file_that_comes_is_a_change(tmp_path: Path) -> None:
    watch = Watch([tmp_path / "a"])
    (tmp_path / "a").touch()
    assert watch.changed() == (tmp_path / "a",)
