"""Where the time of a request goes: the worker sampled under load, and its own work counted exactly.

Two views, for neither suffices. Sampling (py-spy, with the frames of C) sees all that the worker's event loop
does, the kernel's part included, as shares. Counting (callgrind over `bench.hot_path`) sees what is ours
alone, and the same to a thousandth each time, whatever else the machine does. cProfile is used for neither:
what it adds to each Python call makes small functions look dear.

Knows: the form of py-spy's raw stacks and of callgrind's dumps, and which layer a frame belongs to.
Promises: a view whose tool is missing, or fails, is skipped by name. Leaves load, and finding the worker, to
its caller.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypedDict

from bench import hot_path, machine
from bench.figures import Rounds

LAYERS = {
    "reading": "the kernel: reading from sockets",
    "writing": "the kernel: writing to sockets",
    "waiting": "the kernel: waiting for events",
    "uvloop": "uvloop",
    "llhttp": "llhttp, the second opinion on each head",
    "wire": "`wire`: HTTP, connections, pools",
    "core": "`core`: the request, routes, the head for the app",
    "gateway": "`gateway`: session, lease, decision",
    "surfaces": "`surfaces`: acting on the decision",
    "adapters": "`adapters`: log lines, metrics",
    "recorder": "`recorder`: what is written down",
    "store": "the store's client: lease, sessions read again",
    "other": "all else",
}
"""The layers of a worker, in the order in which they are shown."""

OURS = ("wire", "core", "gateway", "surfaces", "adapters", "recorder")
FEW = 300
"""Fewer samples than this say little about shares of a few per cent."""

_LOOP = "ztproxy/cli/worker.py:"  # is below all that a worker's first thread does
_RATE = 250  # samples a second
_MOST = 12  # functions shown
_PATIENCE = 240.0
_MARK = "getpgid"
_CALLS = {
    **dict.fromkeys(("read", "readv", "recv", "recvfrom", "recvmsg"), "reading"),
    **dict.fromkeys(("write", "writev", "send", "sendto", "sendmsg"), "writing"),
    **dict.fromkeys(("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "epoll_ctl"), "waiting"),
}
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*?)(?::\d+)?\)")
_MODULE = re.compile(r"(?:^|/)ztproxy/(?P<module>[\w/]+)\.py$")
_COMPILED = re.compile(r"CPy(?:Def|Py)_(?P<module>\w+?)___(?P<name>\w+)")  # as mypyc calls its functions
_ROOT = Path(__file__).resolve().parent.parent


class Profile(TypedDict):
    """`layers` (by the keys of `LAYERS`) and `functions` are shares of `samples`, which were taken of the
    event loop's thread alone. `cpu_us` and `instructions` are for one request on the hot path, by kind of
    head (`hot_path.HEADS`). `skipped`: `samples` or `instructions`, and why."""

    samples: int
    layers: dict[str, float]
    functions: dict[str, float]
    cpu_us: dict[str, Rounds]
    instructions: dict[str, int]
    skipped: dict[str, str]


class Folded(NamedTuple):
    """Samples, and the shares of layers and of our own functions in them."""

    samples: int
    layers: dict[str, float]
    functions: dict[str, float]


class _Frame(NamedTuple):
    name: str
    file: str


async def measure(
    worker: int,
    load: Callable[[int], Awaitable[object]],
    core: int,
    folder: Path,
    *,
    seconds: int = 6,
    tree: Path | None = None,
) -> Profile:
    """Samples `worker`, a process, under `load(seconds)`, which is to keep it busy for so long; then runs the
    hot path on `core`, of the `ztproxy` in `tree` if that is given. `folder` gets the tools' files. Counts
    nothing yet (`count`). Raises `CannotMeasure` if the hot path does not answer rightly."""
    skipped: dict[str, str] = {}
    folded = Folded(0, {}, {})
    loading = asyncio.ensure_future(load(seconds + 3))
    try:
        folded = await asyncio.to_thread(sampled, worker, seconds, folder)
    except machine.CannotMeasure as error:
        skipped["samples"] = str(error)
    await loading
    return Profile(
        samples=folded.samples,
        layers=folded.layers,
        functions=folded.functions,
        cpu_us=await asyncio.to_thread(_timed, core, tree),
        instructions={},
        skipped=skipped,
    )


async def count(profiles: Sequence[tuple[Profile, Path | None]], folder: Path, requests: int = 500) -> None:
    """Counts the instructions of each, all at once, for that is not disturbed by others; by its tree."""

    async def one(number: int, profile: Profile, tree: Path | None) -> None:
        into = folder / f"count-{number}"
        into.mkdir()
        try:
            profile["instructions"] = await asyncio.to_thread(counted, into, requests, tree)
        except machine.CannotMeasure as error:
            profile["skipped"]["instructions"] = str(error)

    await asyncio.gather(*(one(number, *pair) for number, pair in enumerate(profiles)))


# -- by samples -------------------------------------------------------------------------------------------


def sampled(worker: int, seconds: int, folder: Path) -> Folded:
    """What `worker` does for so long. Raises `CannotMeasure` without py-spy, or where it may not look."""
    beside = Path(sys.executable).with_name("py-spy")
    spy = str(beside) if beside.exists() else shutil.which("py-spy")
    if spy is None:
        raise machine.CannotMeasure("`py-spy` is missing: pip install py-spy")
    raw = folder / "samples.raw"
    _run(
        *(spy, "record", "--native", "--function", "--format", "raw", "--rate", str(_RATE)),
        *("--duration", str(seconds), "--pid", str(worker), "--output", str(raw)),
    )
    found = fold(raw.read_text()) if raw.exists() else Folded(0, {}, {})
    if not found.samples:
        raise machine.CannotMeasure("py-spy saw nothing of the worker's event loop")
    return found


def fold(raw: str) -> Folded:
    """Shares from py-spy's raw format: a line is `frame;frame;…;frame count`, outermost first, a frame
    `name (file:line)`. Stacks of other threads than the event loop's are left out: they wait most of the
    time, which py-spy cannot always tell."""
    layers: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, times = line.rpartition(" ")
        if not times.isdigit() or _LOOP not in stack:
            continue
        frames = [_frame(text) for text in reversed(stack.split(";"))]
        layer = _layer(frames)
        layers[layer] += int(times)
        if layer in OURS:
            functions[_function(frames)] += int(times)
    samples = layers.total()
    return Folded(
        samples,
        {layer: round(layers[layer] / samples, 4) for layer in LAYERS if layers[layer]},
        {name: round(number / samples, 4) for name, number in functions.most_common(_MOST)},
    )


def _frame(text: str) -> _Frame:
    found = _FRAME.fullmatch(text)
    return _Frame(text, "") if found is None else _Frame(found["name"], found["file"])


def _layer(frames: Sequence[_Frame]) -> str:
    """Whose work it is, innermost frame first: the first that belongs to a layer takes all that it calls
    (reference counts, memory, the interpreter itself)."""
    for frame in frames:
        name, file = frame
        if file.startswith("libc") and name in _CALLS:
            return _CALLS[name]
        if file in ("llhttp.c", "api.c", "parser.c") or "httptools/" in file:
            return "llhttp"
        if ours := _ours(frame):
            layer = ours.module.partition("/")[0]
            return layer if layer in OURS else "other"
        if file.startswith(("redis/", "hiredis/", "asyncio/streams.")):
            return "store"
        if file == "loop.c" or file.startswith("uvloop/") or name.startswith(("uv_", "UV")):
            return "uvloop"
    return "other"


def _function(frames: Sequence[_Frame]) -> str:
    ours = next(ours for frame in frames if (ours := _ours(frame)))
    return f"{ours.name} ({ours.module})"


class _Ours(NamedTuple):
    """A function of ours; `module` is its path below `ztproxy`, without the ending."""

    module: str
    name: str


def _ours(frame: _Frame) -> _Ours | None:
    """Whether Python runs it or mypyc compiled it."""
    if found := _MODULE.search(frame.file):
        return _Ours(found["module"], frame.name)
    found = _COMPILED.match(frame.name)
    if found is None or found["module"] not in _compiled():
        return None
    return _Ours(_compiled()[found["module"]], found["name"].replace("___", "."))


@cache
def _compiled() -> Mapping[str, str]:
    """The modules that `tools/compiled.py` compiles, by the last part of their name, which mypyc uses where
    it is the only such."""
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    paths = [Path(name).with_suffix("") for name in settings["tool"].get("ztproxy", {}).get("compiled", ())]
    return {path.name: str(path.relative_to("ztproxy")) for path in paths}


# -- exactly ----------------------------------------------------------------------------------------------


def counted(folder: Path, requests: int, tree: Path | None = None) -> dict[str, int]:
    """Instructions for one request, by kind of head. Takes most of a minute, nearly all of it for starting
    Python. Raises `CannotMeasure` without valgrind."""
    into = folder / "callgrind"
    into.mkdir(exist_ok=True)
    _run(
        # Addresses decide where things lie in dicts: the same each time, if they are.
        *(machine.tool("setarch", "util-linux"), "--addr-no-randomize"),
        *(machine.tool("valgrind", "valgrind"), "--tool=callgrind", f"--dump-before={_MARK}"),
        f"--callgrind-out-file={into / 'counts'}",
        *_hot_path("--count", str(requests)),
        tree=tree,
    )
    dumps = [_total(into / f"counts.{number}") for number in range(2, len(hot_path.HEADS) + 2)]
    # One more than it was asked for: the one that is looked at.
    return {kind: total // (requests + 1) for kind, total in zip(hot_path.HEADS, dumps, strict=True)}


def _total(dump: Path) -> int:
    try:
        return total(dump.read_text())
    except (OSError, ValueError) as error:
        raise machine.CannotMeasure(f"callgrind wrote no counts to {dump}") from error


def total(dump: str) -> int:
    """The instructions that a dump of callgrind's holds: those since the dump before. Raises ValueError."""
    (line,) = (line for line in dump.splitlines() if line.startswith("totals: "))
    return int(line.split()[1])


def _timed(core: int, tree: Path | None) -> dict[str, Rounds]:
    said = _run(*machine.pinned(core, *_hot_path("--json")), tree=tree)
    found: dict[str, Rounds] = json.loads(said)
    return found


def _hot_path(*options: str) -> tuple[str, ...]:
    return sys.executable, "-P", "-m", "bench.hot_path", *options


def _run(*command: str, tree: Path | None = None) -> str:
    """What a tool says; where that is Python, with the `ztproxy` of `tree`, and each time with the same
    hashes. Raises `CannotMeasure` with its last words when it fails."""
    paths = [str(path) for path in (tree, _ROOT) if path is not None]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise machine.CannotMeasure(f"`{Path(command[0]).name}` takes longer than {_PATIENCE:g} s") from error
    if done.returncode:
        # Valgrind goes on after its program's last words, behind its own mark.
        words = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("==")]
        last = words[-1] if words else "nothing"
        raise machine.CannotMeasure(f"`{Path(command[0]).name}` ended with {done.returncode}: {last}")
    return done.stdout
