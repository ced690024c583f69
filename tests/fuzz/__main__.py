"""`make fuzz`: every target for a while under libFuzzer, one after the other, and what came of it.

    python -m tests.fuzz [--seconds N] [--target NAME ...] [--keep]
    python -m tests.fuzz --adopt FILE --target NAME --name "what it is"

What is found goes to `build/fuzz/NAME`; `--keep` takes the least of it that reaches as much into the
committed corpus. An input that breaks a property is printed, kept in `tests/fuzz/found`, and the exit status
is 1; once the cause is mended, `--adopt` makes it a named entry of the corpus. `build/fuzz.json` has the
figures. Without atheris (it is for Linux on x86-64) the hypothesis twins run longer instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz import corpus

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
FOUND = Path(__file__).parent / "found"
SECONDS = 15.0
"""For each target by default: all of them within ten minutes."""
MEMORY_MB = 1024
HANGS = 5
"""Seconds after which one input counts as one that hangs."""


def main() -> int:
    from tests.fuzz.registry import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="coverage-guided fuzzing")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), metavar="NAME")
    parser.add_argument("--keep", action="store_true", help="take what was found into the committed corpus")
    parser.add_argument("--adopt", type=Path, metavar="FILE", help="make an input a named entry of a corpus")
    parser.add_argument("--name", help="what the adopted input is")
    asked = parser.parse_args()
    names = asked.target or list(TARGETS)
    if asked.adopt is not None:
        if len(names) != 1 or not asked.name:
            parser.error("--adopt needs one --target and a --name")
        corpus.write(names[0], [*corpus.read(names[0]), corpus.Entry(asked.name, asked.adopt.read_bytes())])
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed: the hypothesis twins run longer instead")
        return _twins(names)
    figures = []
    for name in names:
        target = TARGETS[name]
        figures.append(_fuzz(name, target.longest, target.words, asked.seconds, asked.keep))
        print(_line(figures[-1]), flush=True)
    BUILD.mkdir(exist_ok=True)
    (BUILD / "fuzz.json").write_text(
        json.dumps({"seconds": asked.seconds, "targets": figures}, indent=1) + "\n"
    )
    broken = [one for one in figures if one["crashes"]]
    print(f"fuzz: {len(figures)} targets, {sum(one['executions'] for one in figures)} executions, ", end="")
    print(f"{len(broken)} broken; see build/fuzz.json")
    return 1 if broken else 0


def _twins(names: list[str]) -> int:
    wanted = " or ".join(f"[{name}]" for name in names)
    command = [sys.executable, "-m", "pytest", "-q", "tests/fuzz/test_properties.py", "-k", wanted]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"FUZZ_EXAMPLES": "1000"}).returncode


def _fuzz(name: str, longest: int, words: tuple[bytes, ...], seconds: float, keep: bool) -> dict[str, Any]:
    """One run: the figures of it, with the inputs that broke something by their file."""
    found = BUILD / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ztproxy-fuzz-") as folder:
        known, broken = Path(folder) / "known", Path(folder) / "broken"
        broken.mkdir()
        _unpack(corpus.read(name), known)
        dictionary = Path(folder) / "words"
        dictionary.write_text("".join(f'"{_quoted(word)}"\n' for word in words))
        before = len(list(found.iterdir()))
        begun = time.monotonic()
        run = _guided(
            name,
            broken,
            f"-max_total_time={max(1, round(seconds))}",
            f"-max_len={longest}",
            f"-timeout={HANGS}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-dict={dictionary}",
            "-detect_leaks=0",
            "-print_final_stats=1",
            "-verbosity=1",
            str(found),
            str(known),
        )
        figures = _figures(name, run.stderr, time.monotonic() - begun)
        figures["new"] = len(list(found.iterdir())) - before
        figures["crashes"] = _broken(name, broken, run)
        if keep and not figures["crashes"]:
            figures["kept"] = _keep(name, found, Path(folder))
    return figures


def _guided(name: str, broken: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(broken), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


def _unpack(entries: list[corpus.Entry], folder: Path) -> None:
    folder.mkdir()
    for number, entry in enumerate(entries):
        (folder / f"{number:04}").write_bytes(entry.data)


def _figures(name: str, said: str, seconds: float) -> dict[str, Any]:
    """What libFuzzer tells at its end; the last line that names the coverage is the whole of it."""

    def number(pattern: str) -> int:
        told = re.findall(pattern, said)
        return int(told[-1]) if told else 0

    executions = number(r"stat::number_of_executed_units:\s+(\d+)")
    fuzzing = number(r"Done \d+ runs in (\d+) second") or seconds  # without the time to start
    return {
        "target": name,
        "seconds": round(seconds, 1),
        "executions": executions,
        "per_second": round(executions / fuzzing),
        "edges": number(r"\bcov: (\d+)"),
        "features": number(r"\bft: (\d+)"),
        "peak_mb": number(r"stat::peak_rss_mb:\s+(\d+)"),
    }


def _broken(name: str, broken: Path, run: subprocess.CompletedProcess[str]) -> list[str]:
    """Prints and keeps what broke a property. A run that failed without an input is a failure too."""
    kept = []
    for file in sorted(broken.iterdir()):
        FOUND.mkdir(exist_ok=True)
        kind, _, digest = file.name.partition("-")
        to = FOUND / f"{name}-{kind}-{digest[:12]}"
        shutil.copyfile(file, to)
        kept.append(str(to.relative_to(ROOT)))
        print(f"fuzz: `{name}` is broken by {to.read_bytes()!r}, kept in {kept[-1]}")
    if run.returncode and not kept:
        kept.append(f"the fuzzer ended with status {run.returncode}")
        print(f"fuzz: `{name}`: {kept[0]}")
    if kept:
        told = (run.stdout + run.stderr).splitlines()
        print("\n".join([line for line in told if line and not line.startswith(("#", "INFO:"))][-40:]))
    return kept


def _keep(name: str, found: Path, folder: Path) -> int:
    """The named entries stay; of everything else the least set that covers as much, by libFuzzer's merge."""
    entries = corpus.read(name)
    named = [entry for entry in entries if entry.name]
    least, rest = folder / "least", folder / "rest"
    _unpack(named, least)
    _unpack([entry for entry in entries if not entry.name], rest)
    given = {file.read_bytes() for file in least.iterdir()}
    _guided(name, folder, "-merge=1", f"-max_len={corpus.LONGEST}", str(least), str(rest), str(found))
    more = sorted((file.read_bytes() for file in least.iterdir()), key=len)
    more = [data for data in more if data not in given and 0 < len(data) <= corpus.LONGEST]
    more = more[: corpus.MOST_FOUND]
    corpus.write(name, [*named, *(corpus.Entry("", data) for data in more)])
    return len(more)


def _line(one: dict[str, Any]) -> str:
    text = f"{one['target']:20}{one['executions']:9} inputs{one['per_second']:7}/s{one['edges']:6} edges"
    text += f"{one['new']:6} new{one['peak_mb']:5} MB"
    return text + (f"  {len(one['crashes'])} BROKEN" if one["crashes"] else "")


if __name__ == "__main__":
    raise SystemExit(main())
