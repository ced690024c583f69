"""A worker process of a history: the real one, behind a network that can be cut, with a mistake if asked for.

Knows: where the harness put what. Promises: of ztproxy nothing is changed but what a named mistake
changes; where this process connects to is translated, as a router would do it. Leaves all else to
`ztproxy.cli.worker`.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from loadtests.history.mutants import commit
from ztproxy.cli import worker

WAYS = "ZTPROXY_HISTORY_WAYS"
"""JSON: a port of the store -> the port of the fault proxy on this worker's way to it."""

MISTAKE = "ZTPROXY_HISTORY_MISTAKE"


def main() -> None:
    ways = json.loads(os.environ.get(WAYS, "{}"))
    connect: Any = asyncio.open_connection

    async def open_connection(host: Any = None, port: Any = None, **more: Any) -> Any:
        return await connect(host, ways.get(str(port), port), **more)

    asyncio.open_connection = open_connection
    commit(os.environ.get(MISTAKE, ""))
    worker.main()


if __name__ == "__main__":
    main()
