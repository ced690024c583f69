"""One target under libFuzzer, in a process of its own, because libFuzzer ends its process.

    python -m tests.fuzz.guided NAME FOLDER [libFuzzer's arguments]

What breaks the target is written to FOLDER. INVARIANT: the product is imported for the first time with the
target, or atheris could not follow it.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from pathlib import Path

import atheris

from tests.fuzz.registry import TARGETS


def main() -> None:
    name, folder, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["ztproxy"]):
        target = TARGETS[name].run

    def run(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            # libFuzzer writes it too, but now and then its own alarm ends the process before.
            signal.setitimer(signal.ITIMER_REAL, 0)
            (Path(folder) / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)
            raise

    # What libFuzzer calls itself by, for the processes it starts when it merges.
    myself = f"{sys.executable} -m tests.fuzz.guided {name} {folder}"
    atheris.Setup([myself, f"-artifact_prefix={folder}/", *arguments], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
