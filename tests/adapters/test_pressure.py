"""Pressure as the kernel's files tell it: made-up trees of /proc and cgroups, and this very process."""

from __future__ import annotations

import mmap
import os
import resource
from pathlib import Path

import pytest

from ztproxy.adapters.pressure import Meter, give_back, soft_limit

Tree = dict[str, str]
MIB = 1 << 20
V1_NONE = "9223372036854771712\n"


def v2(path: str, limit: str, used: int, inactive: int = 0, active: int = 0, slab: int = 0) -> Tree:
    return {
        f"cgroup/{path}memory.max": f"{limit}\n",
        f"cgroup/{path}memory.current": f"{used}\n",
        f"cgroup/{path}memory.stat": f"anon 5\nfile 50\ninactive_anon 77\ninactive_file {inactive}\n"
        f"active_file {active}\nslab_reclaimable {slab}\nslab_unreclaimable 60\nslab 99\n",
    }


def v1(path: str, limit: str, used: int, inactive: int = 0, active: int = 0) -> Tree:
    return {
        f"cgroup/memory/{path}memory.limit_in_bytes": f"{limit}\n",
        f"cgroup/memory/{path}memory.usage_in_bytes": f"{used}\n",
        f"cgroup/memory/{path}memory.stat": f"inactive_file 3\nactive_file 4\n"
        f"total_inactive_file {inactive}\ntotal_active_file {active}\ntotal_active_anon 50\n",
    }


IN_POD = {"proc/cgroup": "0::/pod/one\n"}
IN_V1 = {"proc/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/ab\n0::/\n"}
RESIDENT = {"proc/statm": f"5000 {40 * MIB // mmap.PAGESIZE} 300 1 0 2000 0\n"}


def made(folder: Path, tree: Tree, memory: int | None = None) -> Meter:
    for name, text in tree.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "cgroup").mkdir(exist_ok=True)
    return Meter(memory, proc=folder / "proc", cgroups=folder / "cgroup", allowed=lambda: 100)


@pytest.mark.parametrize(
    ("tree", "memory", "expected"),
    [
        pytest.param({}, None, 0.0, id="nothing is known"),
        pytest.param(RESIDENT, None, 0.0, id="no limit of its own"),
        pytest.param(RESIDENT, 80 * MIB, 0.5, id="a limit of its own"),
        pytest.param({"proc/statm": "nonsense"}, MIB, 0.0, id="a statm that cannot be read"),
        pytest.param(IN_POD | v2("pod/one/", "1000", 900), None, 0.9, id="v2"),
        pytest.param(
            IN_POD | v2("pod/one/", "1000", 900, 300), None, 0.6, id="v2: file pages to be had back"
        ),
        pytest.param(
            IN_POD | v2("pod/one/", "1000", 990, 100, active=600),
            None,
            0.29,
            id="v2: file pages that were read twice",
        ),
        pytest.param(
            IN_POD | v2("pod/one/", "1000", 990, slab=400),
            None,
            0.59,
            id="v2: names of files the kernel keeps",
        ),
        pytest.param(IN_POD | v2("pod/one/", "max", 900), None, 0.0, id="v2: no limit"),
        pytest.param(
            IN_POD | v2("pod/one/", "1000", 100) | v2("pod/", "2000", 1900), None, 0.95, id="v2: the pod's"
        ),
        pytest.param(IN_POD | v2("", "1000", 800), None, 0.8, id="v2: only the root is to be seen"),
        pytest.param({"proc/cgroup": "0::/\n"} | v2("", "1000", 800), None, 0.8, id="v2: in a namespace"),
        pytest.param(
            IN_POD | {"cgroup/pod/one/memory.max": "1000\n"}, None, 0.0, id="v2: a file is gone meanwhile"
        ),
        pytest.param(IN_POD | v2("pod/one/", "0", 900), None, 0.0, id="v2: a limit of nothing"),
        pytest.param(IN_POD | v2("pod/one/", "many", 900), None, 0.0, id="v2: what is no number"),
        pytest.param(IN_V1 | v1("docker/ab/", "1000", 900, 400), None, 0.5, id="v1"),
        pytest.param(
            IN_V1 | v1("docker/ab/", "1000", 990, 100, active=600),
            None,
            0.29,
            id="v1: file pages that were read twice",
        ),
        pytest.param(IN_V1 | v1("docker/ab/", V1_NONE, 900), None, 0.0, id="v1: no limit"),
        pytest.param(IN_V1 | v1("", "1000", 700), None, 0.7, id="v1: in a container"),
        pytest.param(
            IN_POD | v2("pod/one/", "1000", 700) | RESIDENT, 80 * MIB, 0.7, id="both, the cgroup's is tighter"
        ),
        pytest.param(
            IN_POD | v2("pod/one/", "1000", 300) | RESIDENT, 80 * MIB, 0.5, id="both, its own is tighter"
        ),
    ],
)
def test_memory(tmp_path: Path, tree: Tree, memory: int | None, expected: float) -> None:
    found = made(tmp_path, tree, memory)()
    assert found.memory == pytest.approx(expected)
    assert found.descriptors == 0.0


def test_a_limit_that_changes_is_seen(tmp_path: Path) -> None:
    meter = made(tmp_path, IN_POD | v2("pod/one/", "max", 900))
    assert meter().memory == 0.0
    made(tmp_path, v2("pod/one/", "1000", 900))
    assert meter().memory == pytest.approx(0.9)


@pytest.fixture
def untold(tmp_path: Path) -> Path:
    """A folder of /proc as it was before Linux 6.2: what is in it is not told by its size."""
    empty = next(
        (one for one in (Path("/proc/self/fdinfo"), Path("/proc/self")) if not one.stat().st_size), None
    )
    if empty is None:
        pytest.skip("this kernel has no folder of /proc without a size")
    (tmp_path / "fd").symlink_to(empty)
    return tmp_path


def test_descriptors_are_listed_where_the_kernel_does_not_tell(untold: Path) -> None:
    meter = Meter(proc=untold, cgroups=untold, allowed=lambda: 1000)
    first = meter().descriptors
    assert first * 1000 == pytest.approx(len(list((untold / "fd").iterdir())), abs=2)
    assert meter().descriptors == first, "not listed again for the next look"


def test_none_left_to_count_them_with_is_all_of_them(untold: Path) -> None:
    meter = Meter(proc=untold, cgroups=untold)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        used = meter().descriptors
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert used == 1.0
    (untold / "fd").unlink()
    assert Meter(proc=untold, cgroups=untold)().descriptors == 0.0


def test_memory_is_given_back_before_a_worker_counts_as_full(tmp_path: Path) -> None:
    """What the C library keeps of what was freed is no reason to refuse anybody."""
    trimmed: list[str] = []

    def trim() -> None:
        trimmed.append((tmp_path / "proc/statm").read_text())
        made(tmp_path, RESIDENT)

    def full(pages: float) -> Tree:
        return {"proc/statm": f"9 {int(pages * 80 * MIB) // mmap.PAGESIZE} 0 0 0 0 0"}

    made(tmp_path, full(0.93))
    meter = Meter(80 * MIB, proc=tmp_path / "proc", cgroups=tmp_path, allowed=lambda: 100, trim=trim)
    assert meter().memory == pytest.approx(0.5, abs=0.01)
    assert meter().memory == pytest.approx(0.5, abs=0.01)
    assert len(trimmed) == 1
    made(tmp_path, full(0.93))
    assert meter().memory == pytest.approx(0.93, abs=0.01), "not tried again at once, as it takes its time"
    assert [meter().memory for _ in range(10)][-1] == pytest.approx(0.5, abs=0.01)
    assert len(trimmed) == 2


def test_this_process() -> None:
    assert Meter()().memory >= 0.0  # whatever this machine's cgroup says
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * mmap.PAGESIZE
    own = Meter(resident * 2, cgroups=Path("/nonexistent"))
    assert 0.3 < own().memory < 0.8
    before = own().descriptors
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
    try:
        assert (own().descriptors - before) * soft_limit() == pytest.approx(50, abs=5)
    finally:
        for one in opened:
            os.close(one)


def test_freed_memory_goes_back_to_the_kernel() -> None:
    """In earnest: half of a heap is freed, in pieces between what stays."""

    def resident() -> float:
        return Meter(MIB, cgroups=Path("/nonexistent"), trim=lambda: None)().memory

    pieces = [os.urandom(16) * 2048 for _ in range(2000)]
    kept = pieces[::2]
    pieces.clear()
    before = resident()
    Meter(MIB, cgroups=Path("/nonexistent"))()
    assert resident() < before - 16
    assert len(kept) == 1000


@pytest.mark.parametrize("library", ["/nonexistent/libc.so", "libm.so.6"], ids=["none", "another"])
def test_a_c_library_that_cannot_give_memory_back(tmp_path: Path, library: str) -> None:
    """As that of a Python that is linked statically, or musl's."""
    made(tmp_path, {"proc/statm": f"9 {76 * MIB // mmap.PAGESIZE} 0 0 0 0 0"})
    meter = Meter(80 * MIB, proc=tmp_path / "proc", cgroups=tmp_path, trim=lambda: give_back(library))
    assert meter().memory == pytest.approx(0.95)
