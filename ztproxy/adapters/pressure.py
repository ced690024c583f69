"""How much of its memory and of its descriptors a worker uses, from what Linux tells in files.

Knows: `/proc` and the memory controllers of cgroup v1 and v2. Promises: a look costs some tens of
microseconds, also with ten thousand descriptors; what has no limit, or cannot be read, is no pressure. Leaves
what follows from it to `core.overload`, and when to look to the caller.

The memory that counts is what the kernel could not take back at once: of the process its resident set, of a
cgroup its usage without pages of files, active ones too, and without what can be had back of the kernel's own
(v2 alone tells of that). Less is left than of the kubelet's working set, which has the active ones in it: a
file that is read twice is no reason to refuse anybody.
"""

from __future__ import annotations

import ctypes
import errno
import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ztproxy.core.overload import Pressure

_PAGE = resource.getpagesize()
_UNLIMITED = 1 << 60
"""What cgroup v1 has for no limit is the largest number of pages; nobody has so much."""
_RECLAIMABLE: tuple[bytes, ...] = (b"inactive_file", b"active_file", b"slab_reclaimable")
_RECLAIMABLE_V1: tuple[bytes, ...] = (b"total_inactive_file", b"total_active_file")
_TRIM_FROM = 0.9
_SELDOM = 10
"""So many looks lie between two of what takes milliseconds."""


class _Group(NamedTuple):
    """The files of one cgroup that may have a limit."""

    limit: Path
    used: Path
    stat: Path
    reclaimable: tuple[bytes, ...]

    def pressure(self) -> float:
        try:
            limit = self.limit.read_bytes().strip()
            if limit == b"max" or not 0 < int(limit) < _UNLIMITED:
                return 0.0
            used = int(self.used.read_bytes())
            for line in self.stat.read_bytes().splitlines():
                name, _, value = line.partition(b" ")
                if name in self.reclaimable:
                    used -= int(value)
            return max(0.0, used / int(limit))
        except (OSError, ValueError):
            return 0.0


class Meter:
    """Measures each time it is called. `memory`: bytes this process may use, None: no more than its cgroup
    says; where both are, the tighter one counts. `trim` gives freed memory back to the kernel.
    """

    def __init__(
        self,
        memory: int | None = None,
        *,
        proc: Path = Path("/proc/self"),
        cgroups: Path = Path("/sys/fs/cgroup"),
        allowed: Callable[[], int] = lambda: soft_limit(),
        trim: Callable[[], object] = lambda: give_back(),
    ) -> None:
        self._memory, self._allowed, self._trim = memory, allowed, trim
        self._statm, self._fd = proc / "statm", proc / "fd"
        self._groups = _groups(proc / "cgroup", cgroups)
        self._looks = self._count_at = self._trim_at = 0
        self._counted = 0

    def __call__(self) -> Pressure:
        memory = self._memory_used()
        self._looks += 1
        if memory >= _TRIM_FROM and self._looks >= self._trim_at:
            # What was freed mostly stays with the C library, in pieces between what is in use. Without this a
            # worker that was full once would look full for ever, and never leave its stage.
            self._trim_at = self._looks + _SELDOM
            self._trim()
            memory = self._memory_used()
        return Pressure(memory, self._open() / max(1, self._allowed()))

    def _memory_used(self) -> float:
        found = [group.pressure() for group in self._groups]
        if self._memory is not None:
            found.append(self._resident() / self._memory)
        return max(found, default=0.0)

    def _resident(self) -> int:
        try:
            return int(self._statm.read_bytes().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def _open(self) -> int:
        try:
            # From Linux 6.2 on the folder's size is the number. Before, they must be listed, which takes
            # 12 ms for ten thousand: seldom enough not to be felt, and the caps hold in between.
            told = self._fd.stat().st_size
            if told:
                return told
            if self._looks >= self._count_at:
                self._count_at = self._looks + _SELDOM
                self._counted = sum(1 for _ in self._fd.iterdir())
            return self._counted
        except OSError as error:
            # Listing takes a descriptor itself.
            return self._allowed() if error.errno == errno.EMFILE else 0


def soft_limit() -> int:
    """How many descriptors this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


def most_connections(descriptors: int) -> int:
    """How many client connections so many descriptors are enough for: each may need another one to its app,
    and 128 are for what must never be without, which is the state, the logs and the listeners. A few are let
    in however tight it is; the stages of overload see to the rest."""
    return max(16, (descriptors - 128) // 2)


def _groups(membership: Path, cgroups: Path) -> list[_Group]:
    """The cgroup of the process and those it is in, up to the outermost one to be seen."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            root, names, reclaimable = cgroups, ("memory.max", "memory.current"), _RECLAIMABLE
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            names, reclaimable = ("memory.limit_in_bytes", "memory.usage_in_bytes"), _RECLAIMABLE_V1
        else:
            continue
        # In a container the path may be the host's, of which only the root is to be seen from inside.
        here = root / path.strip("/")
        for folder in (here, *here.parents):
            limit, used = (folder / name for name in names)
            if limit.exists():
                found.append(_Group(limit, used, folder / "memory.stat", reclaimable))
            if folder == root:
                break
    return found


def give_back(library: str | None = None) -> None:
    """What the C library keeps of freed memory goes to the kernel. None: the library of this process."""
    try:
        trim = getattr(ctypes.CDLL(library), "malloc_trim", None)
    except OSError:
        return  # a Python that is linked statically has none to be opened
    # glibc's; another C library may have none.
    if trim is not None:
        trim(0)
