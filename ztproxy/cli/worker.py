"""One worker process: what the supervisor starts, `python -m ztproxy.cli.worker CONFIG`.

Knows: the signals of a worker and its beat. Promises: it drains when told to, and when its supervisor is
gone; a configuration that cannot be loaded again is reported and the one before stays. Leaves the work to
`app.Worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import uvloop

from ztproxy.adapters.metrics import Metrics, share_between_processes
from ztproxy.app import Worker
from ztproxy.config import load, parse, text_of
from ztproxy.config.settings import Settings
from ztproxy.errors import OperatorError
from ztproxy.processes import WORKER, Link
from ztproxy.recorder import Recorder

STATE_URL = "ZTPROXY_STATE_URL"
"""Where the supervisor's embedded Valkey answers; not set when the configuration names a state of its own."""

SOCKETS = "ZTPROXY_SOCKETS"
"""Listening sockets the supervisor opened: JSON, address to descriptor. A unix socket has one opener only."""

ACCEPTED = "ZTPROXY_ACCEPTED"
"""A copy of the configuration as it was accepted last, so that a worker that starts anew while somebody
edits the file does not meet a half-written one."""

METRICS_DIR = "ZTPROXY_METRICS_DIR"
"""Where this node's processes keep their metrics, for the operations listener to add up, and their last
decisions, for the administration to show."""

RECENT = ".recent"

BEAT = 1.0

_log = logging.getLogger("ztproxy.worker")


async def work(path: Path) -> None:
    """Serves until told to stop."""
    settings = accepted(path)
    metrics_dir, place, recent = os.environ.get(METRICS_DIR), f"worker-{os.environ.get(WORKER, '0')}", None
    if metrics_dir is not None:
        share_between_processes(Path(metrics_dir), place)
        recent = Path(metrics_dir) / f"{place}{RECENT}"
    recorder = Recorder(Metrics(), settings.log.access, settings.log.decisions, recent)
    worker = Worker(settings, state_url(settings), recorder, _handed_down(), place)
    stopping, link = asyncio.Event(), Link.from_environment()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, stopping.set)
    changed = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, changed.set)
    loop.add_signal_handler(signal.SIGUSR1, recorder.reopen)
    if link is not None:
        link.watch_parent(stopping.set)
    try:
        await worker.start()
    except OperatorError:
        await worker.close()
        raise
    # What was made so far stays. A full collection that walks through all of it would stop everybody's
    # requests for a tenth of a second, and a flood of sign-ins brings one on.
    gc.collect()
    gc.freeze()
    beating = asyncio.create_task(_beat(worker, recorder, link, stopping))
    writing = asyncio.create_task(recorder.keep_writing())
    reloading = asyncio.create_task(_keep_reloading(worker, path, changed))
    await stopping.wait()
    reloading.cancel()
    await worker.drain(worker.settings.drain)
    await beating
    writing.cancel()
    await worker.close()
    recorder.close()


def state_url(settings: Settings) -> str:
    """Where the state is: configured, or handed down by the supervisor for the embedded one."""
    if settings.state_url is not None:
        return settings.state_url.reveal()
    embedded = os.environ.get(STATE_URL)
    if embedded is None:
        raise OperatorError("the embedded state has not been started", "start ztproxy by `ztproxy run`")
    return embedded


def accepted(path: Path) -> Settings:
    """The configuration to serve by; relative paths in it mean what they mean in `path`."""
    copy = os.environ.get(ACCEPTED)
    return load(path) if copy is None else parse(text_of(Path(copy)), path)


def _handed_down() -> dict[str, socket.socket]:
    opened = json.loads(os.environ.get(SOCKETS, "{}"))
    return {address: socket.socket(fileno=descriptor) for address, descriptor in opened.items()}


READ_AT_ONCE = 32 * 1024
"""Bytes of configuration that are read on the event loop. More go to a thread: reading thousands of routes
takes seconds, in which everybody would wait, and the lease would lapse."""


def _size(path: Path) -> int:
    try:
        return Path(os.environ.get(ACCEPTED, path)).stat().st_size
    except OSError:
        return 0  # reading it says what is wrong


async def _keep_reloading(worker: Worker, path: Path, changed: asyncio.Event) -> None:
    """Loads the configuration again whenever `changed`, one after the other, until cancelled. What is being
    read then is read to its end, and thrown away."""
    loop = asyncio.get_running_loop()
    while True:
        await changed.wait()
        changed.clear()
        try:
            large = _size(path) > READ_AT_ONCE
            settings = await loop.run_in_executor(None, accepted, path) if large else accepted(path)
            worker.reload(settings)
            worker.reload_certificates()
        except OperatorError as error:
            _log.error("not reloaded, the configuration before stays: %s", error)
        except Exception:  # a mistake of ours, and no reason never to try again
            _log.exception("not reloaded, the configuration before stays")


async def _beat(worker: Worker, recorder: Recorder, link: Link | None, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        why = worker.ready()
        worker.measure()
        try:
            worker.reload_revocation_lists()
        except OperatorError as error:
            _log.error("%s", error)
        if link is not None:
            link.beat(not why, why, len(worker.connections), worker.promise())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), BEAT)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The soft limit of 1024 is there for programs that call select(2); we are none.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        uvloop.run(work(Path(sys.argv[1])))
    except OperatorError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
