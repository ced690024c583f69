"""`ztproxy run`: the supervisor, with the embedded state and the operations listener beside it.

Knows: what has to be there before a worker can start. Promises: a mistake is told before anything listens;
keys are made once, private, and never replaced; the embedded Valkey is started again if it ends. Leaves
serving to the workers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typer

from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.keys import KeyRing, fresh_keys, write_private
from ztproxy.adapters.metrics import Metrics, forget_place, render, share_between_processes
from ztproxy.app.devices import see_that_files_hold
from ztproxy.cli.worker import ACCEPTED, METRICS_DIR, SOCKETS, STATE_URL
from ztproxy.config import load, parse, text_of
from ztproxy.config.settings import Settings
from ztproxy.config.watch import Watch
from ztproxy.errors import OperatorError
from ztproxy.processes import Supervisor
from ztproxy.surfaces.operations import operations_app, serve_operations
from ztproxy.wire.listener import check_free, open_socket

POLL = 1.0
ACCEPTED_FILE = "accepted.yaml"

_log = logging.getLogger("ztproxy")


def run(path: Path) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises `OperatorError` before anything is started."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load(path)
    for warning in settings.warnings:
        _log.warning("%s", warning)
    for one in settings.listeners:
        check_free(str(one.address))
    _make_state_dir(settings)
    _make_keys(settings)
    sockets = _open_unix_sockets(settings)
    with tempfile.TemporaryDirectory(prefix="ztproxy-") as private:
        os.environ[METRICS_DIR] = private
        os.environ[ACCEPTED] = str(Path(private) / ACCEPTED_FILE)
        _accept(path, Path(private))
        state = None if settings.state_url is not None else EmbeddedValkey(settings.state_dir)
        if state is not None:
            os.environ[STATE_URL] = state.start()
        try:
            asyncio.run(_supervise(path, settings, state, Path(private), sockets))
        finally:
            if state is not None:
                state.stop()


async def _supervise(
    path: Path,
    settings: Settings,
    state: EmbeddedValkey | None,
    private: Path,
    sockets: Sequence[socket.socket],
) -> None:
    share_between_processes(private, "supervisor")
    metrics, watch = Metrics(), Watch(settings.files)

    def check() -> None:
        nonlocal watch
        watch = Watch(_accept(path, private, settings).files)

    administrator = [sys.executable, "-m", "ztproxy.cli.administrator", str(path)]

    def reloaded(accepted: bool) -> None:
        metrics.config_reload("ok" if accepted else "refused")

    workers = settings.workers or os.cpu_count() or 1

    def ended(index: int) -> None:
        forget_place(private, f"worker-{index}" if index < workers else "administrator")

    supervisor = Supervisor(
        argv=lambda index: [sys.executable, "-m", "ztproxy.cli.worker", str(path)],
        workers=workers,
        check=check,
        changed=lambda: bool(watch.changed()),
        reloaded=reloaded,
        ended=ended,
        beside={} if settings.admin is None else {"administrator": administrator},
        drain=settings.drain,
        inherit=[one.fileno() for one in sockets],
    )

    def status() -> tuple[bool, dict[str, str]]:
        now = supervisor.status()
        return now.ready, now.checks

    def measured() -> tuple[bytes, str]:
        # Where no worker lives to say so, nobody has a lease.
        metrics.lease_seconds = math.inf if supervisor.status().ready else 0.0
        metrics.publish()
        return render(private)

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


def _accept(path: Path, private: Path, running: Settings | None = None) -> Settings:
    """Checks the configuration, also against the one that is `running`, and keeps a private copy of exactly
    the text that was checked."""
    text = text_of(path)
    settings = parse(text, path)
    if running is not None:
        settings.takes_over_from(running)
    see_that_files_hold(settings, running)
    fresh = private / f"{ACCEPTED_FILE}.new"
    fresh.write_bytes(text)
    fresh.replace(private / ACCEPTED_FILE)
    return settings


def _open_unix_sockets(settings: Settings) -> list[socket.socket]:
    """Unix sockets cannot be shared by address, so they are opened here and inherited by each worker."""
    addresses = [str(one.address) for one in settings.listeners if one.address.path is not None]
    opened = [open_socket(address) for address in addresses]
    numbers = {address: one.fileno() for address, one in zip(addresses, opened, strict=True)}
    os.environ[SOCKETS] = json.dumps(numbers)
    return opened


def _make_state_dir(settings: Settings) -> None:
    """Journals, the audit log and the admin socket live there, also where the state is elsewhere."""
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        said = (error.strerror or "error").lower()
        raise OperatorError(f"the state directory `{settings.state_dir}` cannot be made: {said}") from error


def _make_keys(settings: Settings) -> None:
    """The key ring of a first start, beside the embedded state. A ring that is named must be there."""
    if not settings.keys_file.exists():
        settings.keys_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(settings.keys_file, fresh_keys())
        _log.info("made fresh keys in %s", settings.keys_file)
    KeyRing.load(settings.keys_file)


def _announce(settings: Settings) -> None:
    if settings.admin is not None:
        typer.echo(f"the admin API is at {settings.admin.address}", err=True)
    where = ", ".join(str(one.address) for one in settings.listeners)
    typer.echo(f"ztproxy listens on {where}", err=True)
    for origin in dict.fromkeys(route.origin for route in settings.routes.routes):
        typer.echo(f"  {origin}", err=True)
