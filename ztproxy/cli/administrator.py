"""The process of the admin API: what the supervisor starts beside the workers, `python -m
ztproxy.cli.administrator CONFIG`.

Knows: its signals and its beat. Promises: as a worker, it ends when told to and when its supervisor is gone;
a configuration that cannot be loaded again is reported and the one before stays. Leaves the work to
`app.administrator`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from ztproxy.adapters.metrics import Metrics, share_between_processes
from ztproxy.app.administrator import Administrator
from ztproxy.cli.worker import BEAT, METRICS_DIR, accepted, state_url
from ztproxy.errors import OperatorError
from ztproxy.processes import Link

_log = logging.getLogger("ztproxy.administrator")


async def administer(path: Path) -> None:
    """Serves the admin API until told to stop."""
    settings, metrics_dir = accepted(path), os.environ.get(METRICS_DIR)
    private = None if metrics_dir is None else Path(metrics_dir)
    if private is not None:
        share_between_processes(private, "administrator")
    stopping, link = asyncio.Event(), Link.from_environment()
    administrator = Administrator(
        settings, path, state_url(settings), Metrics(), private, supervised=link is not None
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(administrator))
    loop.add_signal_handler(signal.SIGUSR1, lambda: None)  # its files are opened anew for each record
    if link is not None:
        link.watch_parent(stopping.set)
    await administrator.start()
    while not stopping.is_set():
        why = await administrator.beat()
        if link is not None:
            link.beat(not why, why)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), BEAT)
    await administrator.close()


def _reload(administrator: Administrator) -> None:
    try:
        administrator.reload()
    except OperatorError as error:
        _log.error("not reloaded, the configuration before stays: %s", error)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(administer(Path(sys.argv[1])))
    except OperatorError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
