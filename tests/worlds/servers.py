"""Real servers, as they are run: one Valkey, three under Sentinel, a cluster of three. Killed, stopped, back.

Everything dies with this process, at the latest when the kernel sees it go. The timers are as short as the
servers take, so that a failover is a matter of two seconds.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ztproxy.adapters.embedded_valkey import _binary
from ztproxy.demo.running import free_port

HOST = "127.0.0.1"
_PATIENCE = 60.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


def _die_with_us() -> None:
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def until(done: Callable[[], object], what: str) -> None:
    """Waits, blocking, until `done` answers something true; errors of the network count as not yet."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if done():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


class Server:
    """One valkey-server on a `port` of its own, with a directory of its own; `options` are its configuration.

    A free port may be somebody else's a moment later, so it has one only once it was started, and keeps it.
    """

    def __init__(self, directory: Path, **options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=directory))
        self.options = {
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            "enable-debug-command": "local",
        } | {name.replace("_", "-"): value for name, value in options.items()}
        self.port = 0
        self.bus = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def start(self) -> Server:
        known = self.port
        while True:
            if not known:
                self.port, self.bus = free_port(), free_port()
            self._spawn(self.words())
            until(lambda: self.gone() or self.ask("PING") == "PONG", f"server {self.port} answers")
            if not self.gone():
                return self
            self.process = None
            assert "in use" in (said := (self.directory / "log").read_text()), said
            time.sleep(0.05)

    def words(self) -> list[str]:
        words = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.directory)]
        if "cluster-enabled" in self.options:
            words += ["--cluster-port", str(self.bus)]
        for name, value in self.options.items():
            words += [f"--{name}", *(value.split(" ") if value else [""])]
        return words

    def gone(self) -> bool:
        """Whether it has ended by itself."""
        return self.process is not None and self.process.poll() is not None

    def _spawn(self, words: list[str]) -> None:
        assert self.process is None
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(_binary()), *words],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_us,
            )

    def ask(self, *words: str) -> str:
        """The answer to one command, as text: lines of a bulk or an array, without their lengths."""
        with socket.create_connection((HOST, self.port), timeout=5) as connection:
            bulks = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{bulks}".encode())
            with connection.makefile("rb") as file:
                return _read(file.readline, file.read)

    def kill(self) -> None:
        """SIGKILL. The data are what was on disk."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """SIGSTOP: connections stand, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def restart(self, *, data: bool = True) -> None:
        """Killed and started again, with what it had on disk or with nothing."""
        self.kill()
        if not data:
            self.forget()
        self.start()

    def forget(self) -> None:
        shutil.rmtree(self.directory)
        self.directory.mkdir()

    def copy(self) -> Path:
        """A copy of what is on disk now, as a backup would be."""
        copied = Path(tempfile.mkdtemp(dir=self.directory.parent))
        shutil.copytree(self.directory, copied, dirs_exist_ok=True)
        return copied

    def restore(self, copied: Path) -> None:
        """Killed and started again with the data of an older copy."""
        self.kill()
        shutil.rmtree(self.directory)
        shutil.copytree(copied, self.directory)
        self.start()


class SentinelProcess(Server):
    """One sentinel, which is the same program."""

    def __init__(self, directory: Path, primary: Server, quorum: int) -> None:
        super().__init__(directory)
        self.primary, self.quorum = primary, quorum

    def words(self) -> list[str]:
        # It writes what it learns into this file, and begins anew with each start.
        (self.directory / "sentinel.conf").write_text(
            f"port {self.port}\nbind {HOST}\n"
            f"sentinel monitor main {HOST} {self.primary.port} {self.quorum}\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
        )
        return ["sentinel.conf", "--sentinel"]

    def watch(self, primary: Server) -> None:
        """Begins anew, knowing this primary and nothing else."""
        self.kill()
        self.primary = primary
        self.start()

    def start(self) -> Server:
        super().start()
        # Else it would look around each ten seconds only, and a failover would take as long.
        quick = {"info-period": 200, "publish-period": 100, "ask-period": 100, "election-timeout": 1000}
        self.ask("SENTINEL", "DEBUG", *(str(word) for pair in quick.items() for word in pair))
        return self


class SentinelTrio:
    """Three data nodes, the first of them primary, and three sentinels that watch it as `main`."""

    def __init__(self, directory: Path, **options: str) -> None:
        options = {"min_replicas_to_write": "1", "min_replicas_max_lag": "1"} | options
        self.nodes = [Server(directory, **options) for _ in range(3)]
        self.sentinels = [SentinelProcess(directory, self.nodes[0], 2) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/main"

    @property
    def primary(self) -> Server:
        """The one the sentinels name."""
        port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").split("\n")[1]
        return next(node for node in self.nodes if str(node.port) == port)

    @property
    def replicas(self) -> list[Server]:
        primary = self.primary
        return [node for node in self.nodes if node is not primary]

    def start(self) -> None:
        first, *others = self.nodes
        first.start()
        for node in others:
            node.options["replicaof"] = f"{HOST} {first.port}"
            node.start()
        self.copied(2)
        for sentinel in self.sentinels:
            sentinel.start()
        until(self._acquainted, "the sentinels know all of each other")

    def copied(self, replicas: int) -> None:
        """Waits until so many replicas follow the primary."""
        until(
            lambda: self.nodes[0].ask("INFO", "replication").count("state=online") == replicas,
            f"{replicas} replicas follow",
        )

    def _acquainted(self) -> bool:
        said = [sentinel.ask("INFO", "sentinel") for sentinel in self.sentinels]
        return all("status=ok" in each and "slaves=2,sentinels=3" in each for each in said)

    def moved(self, former: Server) -> None:
        """Waits until another than `former` is primary and takes writes."""
        until(lambda: self.primary is not former, "another primary")
        until(lambda: "role:master" in self.primary.ask("INFO", "replication"), "it knows")
        until(lambda: "state=online" in self.primary.ask("INFO", "replication"), "it has a replica")


class Cluster:
    """Three primaries, each with a third of the slots, and no replicas."""

    def __init__(self, directory: Path) -> None:
        options = {"cluster_enabled": "yes", "cluster_node_timeout": "1000"}
        self.nodes = [Server(directory, **options) for _ in range(3)]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        bounds = [0, 5461, 10922, 16384]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(bounds[number]), str(bounds[number + 1] - 1))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", HOST, str(node.port), str(node.bus))
        until(
            lambda: all(
                "cluster_state:ok" in said and "cluster_known_nodes:3" in said
                for said in (node.ask("CLUSTER", "INFO") for node in self.nodes)
            ),
            "the cluster is whole",
        )

    def holder(self, key: str) -> Server:
        """The node that has the slot of `key`."""
        slot = int(self.nodes[0].ask("CLUSTER", "KEYSLOT", key))
        return self.nodes[min(slot // 5461, 2)]


@contextmanager
def server(**options: str) -> Iterator[Server]:
    """One server that runs."""
    with _directory() as (directory, stack):
        one = Server(directory, **options)
        stack.callback(one.kill)
        yield one.start()


@contextmanager
def sentinel_trio(**options: str) -> Iterator[SentinelTrio]:
    """Three nodes and three sentinels that run."""
    with _directory() as (directory, stack):
        trio = SentinelTrio(directory, **options)
        for one in (*trio.nodes, *trio.sentinels):
            stack.callback(one.kill)
        trio.start()
        yield trio


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster that runs."""
    with _directory() as (directory, stack):
        whole = Cluster(directory)
        for one in whole.nodes:
            stack.callback(one.kill)
        whole.start()
        yield whole


@contextmanager
def _directory() -> Iterator[tuple[Path, ExitStack]]:
    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as name, ExitStack() as stack:
        yield Path(name), stack


def _read(line: Callable[[], bytes], exactly: Callable[[int], bytes]) -> str:
    head = line().decode().rstrip("\r\n")
    if not head:
        raise ConnectionResetError
    kind, rest = head[0], head[1:]
    match kind:
        case "$":
            size = int(rest)
            return "" if size < 0 else exactly(size + 2)[:-2].decode("utf-8", "replace")
        case "*" | "%" | "~":
            return "\n".join(_read(line, exactly) for _ in range(max(0, int(rest))))
        case "-":
            return head
    return rest
