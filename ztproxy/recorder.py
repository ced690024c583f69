"""What is written down of every exchange: an access line, a decision line, and the metrics.

Knows: how a finished exchange becomes records. Promises: nothing here waits for a sink; nothing secret has a
field to go into (see `adapters.log_writer`). Leaves writing to the log writers' threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

from ztproxy.adapters.log_writer import AccessRecord, DecisionRecord, LogWriter, iso_time
from ztproxy.adapters.metrics import Metrics
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Fields
from ztproxy.gateway.judgement import Outcome
from ztproxy.wire.exchange import Exchange

FLUSH_EVERY = 0.2
_FLUSHES_A_PUBLISH = 5

# The client left before there was a decision, or deciding itself failed; `failure` says which.
_UNDECIDED = Outcome("", "undecided", (), "", None, "")
# An app that could not be reached has no address in the exchange, and a client that broke off may have: the
# reason alone says whose failure it was.
_OF_THE_APP = frozenset(
    {Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_INVALID, Reason.UPSTREAM_BUSY}
)


class Recorder:
    """One worker's. `access` and `decisions` are where the two logs go: `stdout`, a file, or None. `recent`
    is a file for the last decisions, for the administration to look at."""

    def __init__(
        self,
        metrics: Metrics,
        access: str | Path | None,
        decisions: str | Path | None,
        recent: Path | None = None,
    ) -> None:
        self.metrics = metrics
        self._access, self._decisions = _writer(access), _writer(decisions, recent)
        self._monotonic = time.monotonic

    def finished(self, exchange: Exchange) -> None:
        """An exchange has ended, however it ended."""
        request, failure = exchange.request, exchange.failure
        route, decision, reasons, subject, email, session, acr, device = exchange.tag or _UNDECIDED
        seconds = self._monotonic() - exchange.started
        if failure is not None and failure not in reasons:
            reasons = (*reasons, failure)
        reason = reasons[0] if reasons else ""
        self.metrics.request(route, decision, reason, exchange.status, seconds)
        if failure in _OF_THE_APP:
            self.metrics.upstream_failure(route, failure)
        if self._access is None and self._decisions is None:
            return
        now = iso_time(time.time())
        fields = request.fields
        if type(fields) is not Fields:
            fields = Fields(fields)
        client, path = request.peer.address, request.path.text
        # By position, which costs a tenth of what names cost; the order is that of the records.
        if self._access is not None:
            self._access.add(
                AccessRecord(
                    now,
                    exchange.request_id,
                    client,
                    request.method,
                    request.host,
                    path,
                    exchange.status,
                    exchange.bytes_in,
                    exchange.bytes_out,
                    int(seconds * 1e6) / 1000,
                    route or None,
                    decision,
                    reasons,
                    subject or None,
                    session or None,
                    exchange.upstream or None,
                    fields.user_agent,
                    fields.trace_id,
                )
            )
        if self._decisions is not None:
            self._decisions.add(
                DecisionRecord(
                    now,
                    exchange.request_id,
                    client,
                    request.method,
                    request.host,
                    path,
                    decision,
                    reasons,
                    route or None,
                    subject or None,
                    session or None,
                    acr,
                    fields.trace_id,
                    email,
                    device,
                )
            )

    def refused(self, reason: Reason) -> None:
        """The wire policy refused a request."""
        self.metrics.refused(reason)

    def login(self, provider: str, outcome: str) -> None:
        self.metrics.login(provider, outcome)

    def certificates(self, expiries: Iterable[tuple[str, float]]) -> None:
        self.metrics.certificates.update(expiries)

    def revocation_lists(self, expiries: Iterable[tuple[str, float]]) -> None:
        self.metrics.revocation_lists.update(expiries)

    def reopen(self) -> None:
        """After logrotate moved the files away."""
        for writer in self._writers():
            writer.reopen()

    async def keep_writing(self) -> None:
        """Hands batches to the writers until cancelled, and shows the metrics once a second."""
        turn = 0
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            for writer in self._writers():
                writer.flush()
            turn = (turn + 1) % _FLUSHES_A_PUBLISH
            if turn == 0:
                self.publish()

    def publish(self) -> None:
        self.metrics.log_dropped = sum(writer.dropped for writer in self._writers())
        self.metrics.publish()

    def close(self) -> None:
        """Writes what is left."""
        for writer in self._writers():
            writer.close()
        self.publish()

    def _writers(self) -> list[LogWriter]:
        return [writer for writer in (self._access, self._decisions) if writer is not None]


def _writer(target: str | Path | None, recent: Path | None = None) -> LogWriter | None:
    if target is None:
        return None
    return LogWriter(target if isinstance(target, Path) else None, recent=recent)
