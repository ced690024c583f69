"""A worker for the bench alone: `python -m bench.revocation_worker on|off CONFIG`, without a supervisor.

`on` is the product's. `off` is what the product has no setting for, and must not have: it never asks for a
lease, takes it to be there for ever, and its data plane has no gate. What is left of it are two comparisons
a request. It shows what the lease costs, and is not part of what is installed.
"""

from __future__ import annotations

import asyncio
import sys
from math import inf
from typing import Any

from ztproxy.app import state, worker
from ztproxy.cli import worker as command
from ztproxy.gateway.keeper import Keeper
from ztproxy.surfaces.proxy import ProxySurface


class _Endless(Keeper):
    """A lease without end, on a book that stays empty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.until = inf
        self._over = asyncio.Event()

    async def run(self) -> None:
        await self._over.wait()

    def stop(self) -> None:
        super().stop()
        self._over.set()


class _Ungated(ProxySurface):
    """What is forwarded for a person passes no gate, as for a stranger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate: Any = None


def main() -> None:
    lease = sys.argv.pop(1)
    if lease == "off":
        vars(state)["Keeper"] = _Endless
        vars(worker)["ProxySurface"] = _Ungated
    command.main()


if __name__ == "__main__":
    main()
