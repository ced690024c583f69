"""Compiles the hot modules with mypyc: the same source, the same tests, about half the time of a request.

    python tools/compiled.py            a copy of what git tracks in build/compiled, compiled in place there,
                                        unless nothing has changed since it was

A wheel has them compiled where mypyc and a C compiler are (`tools/hatch_build.py`), and is pure Python
elsewhere. A checkout stays pure: compiled modules beside their source would hide the next change to it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def modules(tree: Path) -> list[str]:
    """What is compiled, as paths in `tree`."""
    settings = tomllib.loads((tree / "pyproject.toml").read_text())
    listed: list[str] = settings["tool"]["ztproxy"]["compiled"]
    return listed


def compile_in(tree: Path) -> list[Path]:
    """Puts the extension modules beside their sources in `tree`, and names them. What it makes besides is
    removed. Raises `subprocess.CalledProcessError`, with the compiler's words in `output`, where that fails.
    """
    with tempfile.TemporaryDirectory(prefix="ztproxy-compiled-") as scratch:
        # In a process of its own: it changes directory, and mypy keeps much of what it saw.
        subprocess.run(
            [sys.executable, __file__, "--in", scratch],
            cwd=tree,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return sorted([*tree.glob("*__mypyc.*.so"), *(tree / "ztproxy").rglob("*.so")])


def _compile(scratch: str) -> None:
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    # Typing is `make lint`'s matter: where a wheel is built, not even our dependencies need to be there.
    lenient = Path(scratch) / "mypy.ini"
    lenient.write_text("[mypy]\nignore_missing_imports = True\n")
    extensions = mypycify(
        [f"--config-file={lenient}", f"--cache-dir={scratch}/cache", *modules(Path())],
        opt_level="2",
        debug_level="0",
        target_dir=f"{scratch}/c",
        group_name="ztproxy",
    )
    building = build_ext(Distribution({"name": "ztproxy", "ext_modules": extensions}))
    building.inplace, building.build_temp, building.build_lib = True, scratch, scratch
    building.ensure_finalized()
    building.run()


def copy(to: Path) -> None:
    """Everything git tracks, as it is now on disk; what is compiled there already stays."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    tracked = {Path(name) for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for there in list(to.rglob("*")):
        if there.is_file() and there.relative_to(to) not in tracked and there.suffix != ".so":
            there.unlink()
    for name in tracked:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)


def digest(tree: Path) -> str:
    """Of all that what is compiled depends on: mypyc writes what it knows of other modules into them."""
    found = hashlib.sha256(f"{sys.version} {version('mypy')} {modules(tree)}".encode())
    for source in (Path(__file__), *sorted((tree / "ztproxy").rglob("*.py"))):
        found.update(source.read_bytes())
    return found.hexdigest()


def main() -> int:
    if sys.argv[1:2] == ["--in"]:
        _compile(sys.argv[2])
        return 0
    to = ROOT / "build" / "compiled"
    stamp, now = to.parent / "compiled.sha256", digest(ROOT)
    if stamp.exists() and stamp.read_text() == now:
        copy(to)
        return 0
    stamp.unlink(missing_ok=True)
    shutil.rmtree(to, ignore_errors=True)
    copy(to)
    try:
        made = compile_in(to)
    except subprocess.CalledProcessError as error:
        print(
            f"{error.output}\ncould not compile; it takes a C compiler: apt-get install gcc", file=sys.stderr
        )
        return 1
    stamp.write_text(now)
    print(f"{len(made)} compiled modules in {to}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
