"""`ztproxy run`: the supervisor, with the embedded state and the operations listener beside it.

Knows: what has to be there before a worker can start. Promises: a mistake is told before anything listens;
keys are made once, private, and never replaced; the embedded Valkey is started again if it ends. Leaves
serving to the workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from pathlib import Path

import typer

from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.keys import KeyRing, fresh_keys, write_private
from ztproxy.adapters.metrics import Metrics, forget_place, render, share_between_processes
from ztproxy.cli.worker import METRICS_DIR, STATE_URL
from ztproxy.config import load
from ztproxy.config.settings import Settings
from ztproxy.config.watch import Watch
from ztproxy.processes import Supervisor
from ztproxy.surfaces.operations import operations_app, serve_operations
from ztproxy.wire.listener import check_free, open_socket

POLL = 1.0

_log = logging.getLogger("ztproxy")


def run(path: Path) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises `OperatorError` before anything is started."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load(path)
    for warning in settings.warnings:
        _log.warning("%s", warning)
    for one in settings.listeners:
        check_free(str(one.address))
    _make_keys(settings)
    with tempfile.TemporaryDirectory(prefix="ztproxy-metrics-") as directory:
        os.environ[METRICS_DIR] = directory
        state = None if settings.state_url is not None else EmbeddedValkey(settings.state_dir)
        if state is not None:
            os.environ[STATE_URL] = state.start()
        try:
            asyncio.run(_supervise(path, settings, state, Path(directory)))
        finally:
            if state is not None:
                state.stop()


async def _supervise(path: Path, settings: Settings, state: EmbeddedValkey | None, metrics_dir: Path) -> None:
    share_between_processes(metrics_dir, "supervisor")
    metrics, watch = Metrics(), Watch(settings.files)

    def check() -> None:
        nonlocal watch
        watch = Watch(load(path).files)

    def reloaded(accepted: bool) -> None:
        metrics.config_reload("ok" if accepted else "refused")

    supervisor = Supervisor(
        argv=lambda index: [sys.executable, "-m", "ztproxy.cli.worker", str(path)],
        workers=settings.workers or os.cpu_count() or 1,
        check=check,
        changed=lambda: bool(watch.changed()),
        reloaded=reloaded,
        ended=lambda index: forget_place(metrics_dir, f"worker-{index}"),
        drain=settings.drain,
    )

    def status() -> tuple[bool, dict[str, str]]:
        now = supervisor.status()
        return now.ready, now.checks

    def measured() -> tuple[bytes, str]:
        metrics.publish()
        return render(metrics_dir)

    stop_operations = None
    if settings.operations is not None:
        app = operations_app(status, measured)
        stop_operations = await serve_operations(app, open_socket(str(settings.operations), shared=False))
    keeping = None if state is None else asyncio.create_task(_keep_state(state))
    _announce(settings)
    await supervisor.run()
    if keeping is not None:
        keeping.cancel()
    if stop_operations is not None:
        await stop_operations()


async def _keep_state(state: EmbeddedValkey) -> None:
    while True:
        await asyncio.sleep(POLL)
        if not state.running:
            _log.error("the embedded Valkey has ended; starting it again")
            # Blocks this loop on purpose: it must be started from the main thread, and there is nothing to
            # supervise without it that the workers do not see for themselves.
            state.start()


def _make_keys(settings: Settings) -> None:
    """The key ring of a first start, beside the embedded state. A ring that is named must be there."""
    if not settings.keys_file.exists():
        settings.keys_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(settings.keys_file, fresh_keys())
        _log.info("made fresh keys in %s", settings.keys_file)
    KeyRing.load(settings.keys_file)


def _announce(settings: Settings) -> None:
    where = ", ".join(str(one.address) for one in settings.listeners)
    typer.echo(f"ztproxy listens on {where}", err=True)
    for origin in dict.fromkeys(route.origin for route in settings.routes.routes):
        typer.echo(f"  {origin}", err=True)
