"""The embedded server: alone, private, keeping what it acknowledged, and gone when its parent is."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.redis_connection import check_state, connect
from ztproxy.errors import OperatorError


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path, so that the socket fits; pytest's own are too long at times."""
    with tempfile.TemporaryDirectory(prefix="zt-") as name:
        yield Path(name)


def gone(pid: int) -> bool:
    """Waits, at most until pytest's own time-out, for a process that is not our child."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)


async def ask(url: str, *words: str) -> Any:
    client: Redis = connect(url)
    execute: Any = client.execute_command
    try:
        return await execute(*words)
    finally:
        await client.aclose()


async def test_it_answers_durably_and_only_on_its_socket(directory: Path) -> None:
    with EmbeddedValkey(directory / "state") as server:
        assert server.url == f"unix://{directory}/state/valkey.sock"
        assert server.pid is not None
        told: dict[str, str] = {}
        for name in ("appendonly", "appendfsync", "maxmemory-policy", "port", "save"):
            pair = await ask(server.url, "CONFIG", "GET", name)
            told[pair[0].decode()] = pair[1].decode()
        expected = {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "port": "0",
            "save": "",
        }
        assert told == expected
        client = connect(server.url)
        await check_state(client)
        await client.aclose()
    assert server.pid is None


def test_only_this_user_can_open_it(directory: Path) -> None:
    state = directory / "state"
    state.mkdir(mode=0o755)
    with EmbeddedValkey(state):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "valkey.sock").stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "valkey.lock").stat().st_mode) == 0o600


async def test_what_was_acknowledged_survives_a_kill(directory: Path) -> None:
    server = EmbeddedValkey(directory)
    server.start()
    for number in range(20):
        await ask(server.url, "SET", f"key-{number}", "value")
        pid = server.pid
        assert pid is not None
        if number % 5 == 4:
            os.kill(pid, signal.SIGKILL)
            server.stop()
            server.start()
            assert await ask(server.url, "DBSIZE") == number + 1
    server.stop()


async def test_a_stale_socket_is_cleared_away(directory: Path) -> None:
    server = EmbeddedValkey(directory)
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    assert (directory / "valkey.sock").exists()
    with EmbeddedValkey(directory) as again:
        assert await ask(again.url, "PING")


async def test_a_second_one_in_the_same_directory_is_refused_and_the_first_goes_on(directory: Path) -> None:
    with EmbeddedValkey(directory) as first:
        await ask(first.url, "SET", "a", "1")
        second = EmbeddedValkey(directory, lock_seconds=0.0)
        with pytest.raises(OperatorError) as caught:
            second.start()
        message = "another ztproxy keeps its state here, stop it, or give this one another state directory"
        assert str(caught.value) == f"{directory}: {message}"
        assert not second.running
        second.stop()
        assert await ask(first.url, "GET", "a") == b"1"


async def test_a_server_that_is_just_ending_is_waited_for(directory: Path) -> None:
    first = EmbeddedValkey(directory)
    first.start()
    ending = threading.Timer(0.2, lambda: os.kill(first.pid or 0, signal.SIGTERM) if first.pid else None)
    ending.start()
    with EmbeddedValkey(directory, lock_seconds=30.0) as second:
        assert await ask(second.url, "PING")
    ending.join()
    first.stop()


async def test_a_long_path_is_kept_away_from_the_socket(directory: Path) -> None:
    deep = directory / ("d" * 60) / ("e" * 60)
    server = EmbeddedValkey(deep)
    url = server.start()
    short = Path(url.removeprefix("unix://"))
    try:
        assert len(os.fsencode(short)) <= 100
        assert stat.S_IMODE(short.parent.stat().st_mode) == 0o700
        await ask(url, "SET", "a", "1")
        assert (deep / "appendonlydir").is_dir()
    finally:
        server.stop()
    assert not short.parent.exists()
    assert await ask(server.start(), "GET", "a") == b"1"
    server.stop()


async def test_a_directory_with_a_space_and_a_quote_is_served(directory: Path) -> None:
    with EmbeddedValkey(directory / "my state's") as server:
        assert await ask(server.url, "PING")


def test_stopping_twice_or_before_the_start_is_harmless(directory: Path) -> None:
    server = EmbeddedValkey(directory)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert not server.running


def test_a_frozen_server_is_stopped_too(directory: Path) -> None:
    server = EmbeddedValkey(directory)
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert gone(pid)


async def test_a_server_that_hears_nothing_is_ended_by_force(directory: Path) -> None:
    server = EmbeddedValkey(directory, stop_seconds=0.1)
    url = server.start()
    pid = server.pid
    assert pid is not None
    with pytest.raises(RedisError):  # our time-out: the script never ends
        await ask(url, "EVAL", "redis.call('SET', 'a', '1') while true do end", "0")
    server.stop()
    assert gone(pid)
    with EmbeddedValkey(directory) as again:
        assert await ask(again.url, "PING")


def test_a_server_that_is_not_ready_in_time_is_not_left_behind(directory: Path) -> None:
    server = EmbeddedValkey(directory, start_seconds=0.0)
    with pytest.raises(OperatorError, match="the embedded Valkey does not start"):
        server.start()
    with EmbeddedValkey(directory, lock_seconds=0.0) as again:  # so nobody holds the lock
        assert again.running


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_it_dies_with_its_parent(directory: Path, how: signal.Signals) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from ztproxy.adapters.embedded_valkey import EmbeddedValkey;"
        "server = EmbeddedValkey(Path(sys.argv[1])); server.start();"
        "sys.stdout.write(f'{server.pid}\\n'); sys.stdout.flush(); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(how)
        parent.wait()
    assert gone(pid)
    with EmbeddedValkey(directory) as server:
        assert server.running


def test_ctrl_c_in_the_terminal_does_not_reach_it(directory: Path) -> None:
    with EmbeddedValkey(directory) as server:
        assert os.getpgid(server.pid or 0) != os.getpgid(0)


def test_a_server_that_cannot_read_its_data_says_why(directory: Path) -> None:
    (directory / "appendonlydir").mkdir()
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    server = EmbeddedValkey(directory)
    with pytest.raises(OperatorError, match=r"does not start: invalid aof manifest file format$"):
        server.start()
    assert not server.running


def test_a_state_directory_that_cannot_be_made_is_the_operators_error(directory: Path) -> None:
    (directory / "file").write_text("")
    with pytest.raises(OperatorError, match="the state directory cannot be used"):
        EmbeddedValkey(directory / "file" / "state").start()


def test_without_the_wheel_the_mend_is_named(directory: Path) -> None:
    # a process in which the package cannot be found: -S leaves site-packages out of its path
    packages = directory / "packages"
    packages.mkdir()
    for name in ("ztproxy",):
        (packages / name).symlink_to(Path(__file__).parents[2] / name)
    code = (
        "from pathlib import Path; from ztproxy.adapters.embedded_valkey import EmbeddedValkey;"
        "EmbeddedValkey(Path('state')).start()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=directory,
        env={"PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "pip install 'ztproxy[embedded]'" in done.stderr.splitlines()[-1]
    assert not (directory / "state").exists()


def test_it_wants_the_main_thread(directory: Path) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            EmbeddedValkey(directory).start()
        except AssertionError as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(failures) == 1
    assert not (directory / "valkey.lock").exists()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
