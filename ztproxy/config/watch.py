"""Whether the configuration, or a file it names, is another one than when it was loaded.

Knows: modification time, size and inode, which an editor, a certificate renewer and Kubernetes' symlink swap
all change. Promises: a change is told once; a file that goes away is a change too. Leaves when to look, and
loading, to its caller: polling costs a `stat` for each file, and needs no notification service that could
miss one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_Stamp = tuple[int, int, int, int] | None


class Watch:
    """Remembers `files` as they are now."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._seen = {file: _stamp(file) for file in files}

    def changed(self) -> tuple[Path, ...]:
        """The files that are not as they were at the last call (or at first)."""
        now = {file: _stamp(file) for file in self._seen}
        changed = tuple(file for file, stamp in now.items() if stamp != self._seen[file])
        self._seen = now
        return changed


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
