"""What a history happens in: a store, an app, a provider, worker processes on two nodes, an administration.

Knows: how each is started and in which order all of it ends. Promises: everything is on this machine, and
gone when `world` is left, however that happens. Leaves what is done to it to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtests.history import worker as worker_process
from loadtests.history.checker import Event
from loadtests.history.clients import App
from tests.worlds.fault_proxy import FaultProxy, fault_proxy
from tests.worlds.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider, lying_provider
from tests.worlds.servers import HOST, SentinelTrio, Server, sentinel_trio, server
from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.app.state import State
from ztproxy.config import parse
from ztproxy.config.settings import Settings
from ztproxy.demo.running import free_port

_LAST_WORDS = 0.1  # for the ways to see that both of their ends are gone
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl

CONFIG = """\
listen: 127.0.0.1:{port}
providers:
  - name: op
    issuer: {issuer}
    client_id: {client}
    client_secret: {secret!r}
    dangerous_allow_http_issuer: true
state: {state}
state_dir: {node}
keys_file: {keys}
drain: 1s
log: {{access: off, decisions: off, audit: {node}/audit-{name}.log}}
revocation: {{lease: {lease:.0f}ms{terms}}}
routes:
  - from: https://app.test
    to: http://127.0.0.1:{app}
    allow_any_authenticated_user: true
    upgrades: [websocket]
    outlier_detection: off
"""


class WorkerProcess:
    """One worker, as an operating system has it. Its name is another after each start."""

    def __init__(
        self, index: int, port: int, config: Path, ways: dict[int, FaultProxy], mistake: str
    ) -> None:
        self.port, self.ways = port, tuple(ways.values())
        self._index, self._config, self._life = index, config, 0
        self._environment = {
            **os.environ,
            worker_process.WAYS: json.dumps({port: way.port for port, way in ways.items()}),
            worker_process.MISTAKE: mistake,
            "ZTPROXY_WORKER": str(index),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"worker-{self._index}.{self._life}"

    def start(self) -> None:
        assert self._process is None
        self._life += 1
        with self._config.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadtests.history.worker", str(self._config)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_us,
            )

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def log(self) -> str:
        file = self._config.with_suffix(".log")
        return file.read_text(errors="replace") if file.exists() else ""


def _die_with_us() -> None:
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


@dataclass(frozen=True, slots=True)
class World:
    """Everything that runs, before anybody does anything."""

    workers: list[WorkerProcess]
    store: Server | SentinelTrio
    state: State
    settings: Settings
    provider: LyingProvider
    app: App
    events: list[Event]


@contextlib.asynccontextmanager
async def world(workers: int, topology: str, lease: float, mistake: str) -> AsyncIterator[World]:
    """A store, an app, a provider and workers on two nodes, and the state of the administration."""
    events: list[Event] = []
    with tempfile.TemporaryDirectory(prefix="ztproxy-history-") as name, ExitStack() as stack:
        directory = Path(name)
        sentinel = topology == "sentinel"
        store: Server | SentinelTrio
        store = stack.enter_context(sentinel_trio()) if sentinel else stack.enter_context(server())
        nodes = [store] if isinstance(store, Server) else store.nodes
        keys = directory / "keys.yaml"
        write_private(keys, fresh_keys())
        app = App(events)
        await app.start()
        stack.callback(app.stop)
        async with lying_provider(time.time) as provider:

            def configure(name: str, port: int, node: int) -> tuple[Path, Settings]:
                home = directory / f"node-{node}"
                home.mkdir(exist_ok=True)
                text = CONFIG.format(
                    port=port,
                    issuer=provider.issuer,
                    client=CLIENT_ID,
                    secret=CLIENT_SECRET,
                    state=store.url,
                    node=home,
                    name=name,
                    keys=keys,
                    app=app.port,
                    lease=1000 * lease,
                    terms=", expected_replicas: 2" if sentinel else "",
                )
                file = directory / f"{name}.yaml"
                file.write_text(text)
                return file, parse(text.encode(), file, {})

            started: list[WorkerProcess] = []
            for index in range(workers):
                ways = {node.port: stack.enter_context(fault_proxy((HOST, node.port))) for node in nodes}
                port = free_port()
                file, _ = configure(f"worker-{index}", port, index % 2)
                one = WorkerProcess(index, port, file, ways, mistake)
                stack.callback(one.kill)
                one.start()
                started.append(one)
            # On a node of the workers', as in life: what it has on its disk they put back.
            settings = configure("administrator", free_port(), 0)[1]
            state = State(settings, store.url, "administrator", lambda outcome, seconds: None)
            try:
                yield World(started, store, state, settings, provider, app, events)
            finally:
                for one in started:
                    one.kill()
                await state.close()
                await asyncio.sleep(_LAST_WORDS)
