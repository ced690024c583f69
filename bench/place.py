"""Where a bench happens: two cores, a folder, free ports.

Promises: everything started through it is pinned, logs into the folder, and ends with the block; the folder
is kept, and named, when something could not be measured.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import machine


@dataclass(frozen=True, slots=True)
class Place:
    """`proxy_core` is the measured proxy's alone; upstream, load and provider share `load_core`."""

    proxy_core: int
    load_core: int
    folder: Path

    def sub(self, name: str) -> Path:
        """A new folder below, readable for whoever a server becomes."""
        made = self.folder / name
        made.mkdir()
        return made


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


@contextmanager
def place() -> Iterator[Place]:
    """Pins this process to the load core. Raises `CannotMeasure` on a machine with one core."""
    proxy_core, load_core = machine.cores()
    os.sched_setaffinity(0, {load_core})
    machine.many_files()
    folder = Path(tempfile.mkdtemp(prefix="ztproxy-bench-"))
    folder.chmod(0o755)  # nginx, started as root, serves as somebody else
    kept = False
    try:
        yield Place(proxy_core, load_core, folder)
    except machine.CannotMeasure:
        kept = True
        print(f"bench: logs are kept in {folder}", file=sys.stderr)
        raise
    finally:
        if not kept:
            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
