"""Active health checks: asking each endpoint, over the same client the requests use, whether it is well.

Knows: one `HealthCheck`. Promises: an endpoint changes sides only after so many equal verdicts in a row; a
probe never lasts longer than its time-out and its connection is never lent to a request. Leaves to the pool
what follows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ztproxy.core.reasons import Reason
from ztproxy.core.upstream import HealthCheck
from ztproxy.wire.answer import Answer

if TYPE_CHECKING:
    from ztproxy.wire.pool import Pool, Target


class _Probe:
    """Receives one answer and cares for its status alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.status: asyncio.Future[int] = loop.create_future()

    def answered(self, answer: Answer, payload: bytes, ended: bool) -> None:
        self._settle(answer.status)

    def failed(self, reason: Reason, stale: bool) -> None:
        self._settle(0)

    def switched(self, answer: Answer, rest: bytes) -> None:
        self._settle(0)

    def continued(self, payload: bytes, ended: bool) -> None:
        """The body does not matter."""

    def upstream_full(self) -> None:
        """A probe is one small write."""

    def upstream_drained(self) -> None:
        """A probe is one small write."""

    def _settle(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)


async def probe(pool: Pool, target: Target, check: HealthCheck) -> bool:
    """One question: is this endpoint well?"""
    try:
        async with asyncio.timeout(check.timeout):
            connection = await pool.connect(target)
            asked = _Probe(pool.loop)
            try:
                # INVARIANT: `sending` stays true, so the pool never gets this connection back as idle.
                connection.start(
                    asked,
                    b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: ztproxy-health\r\nConnection: close\r\n\r\n"
                    % (check.path.encode("ascii"), target.host),
                    "GET",
                    sending=True,
                    upgrade=False,
                )
                status = await asked.status
            finally:
                connection.discard()
    except OSError:
        return False
    return check.low <= status <= check.high


async def watch(pool: Pool, target: Target, check: HealthCheck) -> None:
    """Asks for as long as the pool lives."""
    same = 0
    while True:
        well = await probe(pool, target, check)
        same = 0 if well == target.healthy else same + 1
        if same >= (check.healthy_after if well else check.unhealthy_after):
            target.healthy = well
            same = 0
        await asyncio.sleep(check.interval)
