"""Counts, inside a measured process, what cannot be seen from outside: allocations, and collector pauses.

Python runs this at start-up where `bench.footprint` puts its folder on the path. Knows: `bench/counters.c`,
and the file that the bench reads. Promises: the counters are those of this process alone; where the
environment names no folder, nothing happens. Leaves reading, and setting to zero, to the bench.

The file `<pid>.counters` is of int64: blocks and bytes asked for (counters.c); for each generation of the
garbage collector how many collections, their ns, and the ns of the longest.
"""

import ctypes
import gc
import os
import time

FOLDER = "ZTPROXY_BENCH_COUNTERS"
COUNTERS = 2 + 3 * 3


def _count(folder: str) -> None:
    library = ctypes.CDLL(f"{folder}/counters")
    library.count_into.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    library.count_into.restype = ctypes.c_void_p
    address = library.count_into(f"{folder}/{os.getpid()}.counters".encode(), COUNTERS)
    if not address:
        raise OSError("the counters cannot be written")
    counters = (ctypes.c_int64 * COUNTERS).from_address(address)
    began = 0

    def collecting(phase: str, told: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter_ns()
            return
        taken, at = time.perf_counter_ns() - began, 2 + 3 * told["generation"]
        counters[at] += 1
        counters[at + 1] += taken
        counters[at + 2] = max(counters[at + 2], taken)

    gc.callbacks.append(collecting)


if FOLDER in os.environ:
    _count(os.environ[FOLDER])
