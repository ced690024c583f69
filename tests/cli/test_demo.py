"""`ztproxy demo` as people start it: a process of its own, real HTTP, and nothing left when it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ztproxy.demo.running import free_port
from ztproxy.demo.stories import STORIES

_PRIVATE = ("ztproxy.yaml", "keys.yaml", "client-secret", "service-secret", "site.key", "device-ca.key")
DEMO = [sys.executable, "-m", "ztproxy.cli", "demo"]
LAST_LINE = "Ctrl-C ends everything"


@contextmanager
def started(tmp_path: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A demo that has said all it has to say, and what it said. Its temporary files go to `tmp_path`."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*DEMO, "--port", str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if LAST_LINE in line:
                break
        yield process, said
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def descendants(pid: int) -> set[int]:
    """All living processes below `pid`."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(family: set[int]) -> bool:
    """Whether all have ended; workers of a supervisor that was killed take their time to drain."""
    for _ in range(200):
        if not any(map(alive, family)):
            return True
        time.sleep(0.1)
    return False


def test_every_story_happens_as_told() -> None:
    done = subprocess.run([*DEMO, "--check"], capture_output=True, text=True, timeout=100)
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == [
        "",
        f"{len(STORIES)} of {len(STORIES)} stories happened as told",
    ], done.stdout + done.stderr
    assert [line.removeprefix("ok").strip() for line in lines if line.startswith("ok ")] == [
        story.told for story in STORIES
    ]
    assert done.returncode == 0


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="ctrl-c"), pytest.param(signal.SIGHUP, id="terminal-closed")],
)
def test_a_signal_ends_it_all(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    with started(tmp_path, port) as (process, said):
        assert any(f"http://home.localhost:{port}" in line for line in said)
        assert any("https://admin.localhost:" in line for line in said)
        family = descendants(process.pid)
        assert len(family) >= 3, "there is a supervisor, a worker and a Valkey"
        assert list(tmp_path.glob("ztproxy-demo-*"))
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert {pid for pid in family if alive(pid)} == set()
        assert list(tmp_path.iterdir()) == []
    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free again


def test_a_proxy_that_ends_by_itself_ends_the_demo(tmp_path: Path) -> None:
    with started(tmp_path, free_port()) as (process, _):
        family = descendants(process.pid)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        assert process.wait(timeout=30) == 1
        assert all_gone(family)
        assert list(tmp_path.glob("ztproxy-demo-*")) == []


def test_what_it_writes_is_private_and_passes_its_own_check(tmp_path: Path) -> None:
    with started(tmp_path, free_port()) as (_, said):
        config = Path(next(line.split()[1] for line in said if line.startswith("configuration")))
        assert config.parent.stat().st_mode & 0o077 == 0
        for name in _PRIVATE:
            assert (config.parent / name).stat().st_mode & 0o077 == 0
        checked = subprocess.run(
            [sys.executable, "-m", "ztproxy.cli", "check", str(config)], capture_output=True, text=True
        )
        assert checked.returncode == 0
        assert re.search(r"good$", checked.stdout.strip()), "it is an example, so it earns no warning"
        # The commands it names find the admin API by this configuration, and may ask.
        assert f"sessions revoke --user alice@example.com --config {config}\n" in "".join(said)
        listed = subprocess.run(
            [sys.executable, "-m", "ztproxy.cli", "sessions", "list", "--config", str(config)],
            capture_output=True,
            text=True,
        )
        assert (listed.returncode, listed.stderr) == (0, "no sessions\n")


@pytest.mark.parametrize("option", ["--port", "--tls-port"])
def test_a_taken_port_is_said_and_the_way_out_named(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*DEMO, "--port", str(free_port()), option, str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
    assert done.returncode == 1
    assert (
        done.stderr == f"port {port} cannot be used: address already in use, choose another with `{option}`\n"
    )
    assert list(tmp_path.iterdir()) == []
