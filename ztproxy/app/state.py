"""What a process holds of the shared state: connections, the log of locks and this process' lease on it, the
audit.

Knows: which adapter fulfils which port of the state. Promises: one lease a process; no person is let in
before it is there, and none after `close`; a revocation goes through `revoke` and no other way. Leaves what
lives as long as a configuration to `plane`, and what happens when a lock arrives to its owner.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from functools import partial

from ztproxy.adapters.audit_log import AuditLog
from ztproxy.adapters.journal import FileJournal, file_name
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.redis_connection import check_state, connect
from ztproxy.adapters.redis_revocations import RedisRevocations
from ztproxy.adapters.sealing import Sealer
from ztproxy.config.settings import Settings
from ztproxy.core.audit import AuditEvent
from ztproxy.core.lease import Revoked, Why
from ztproxy.core.locks import Entry, Lock
from ztproxy.errors import OperatorError, WorldError
from ztproxy.gateway.keeper import Keeper
from ztproxy.gateway.revoker import Revoker

boottime: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds that cannot be set and that go on while the machine sleeps, where the system has such a clock."""

MARGIN = 3600.0
"""Seconds for which an entry is kept longer than any session it could meet: clocks of nodes may differ."""

FIRST_LEASE = 3.0
"""Seconds a process waits for its first lease before it serves, so that a new one does not begin with
refusals. A store that is away is not waited for: strangers are served without it."""

_RETRY = 0.2

_log = logging.getLogger("ztproxy.state")


class State:
    """What every process of a node has. `place` names this one, as its metrics do; `measured(outcome,
    seconds)` hears of each revocation made here."""

    def __init__(
        self, settings: Settings, url: str, place: str, measured: Callable[[str, float], None]
    ) -> None:
        terms, ring = settings.revocation, KeyRing.load(settings.keys_file)
        self._keep_for = settings.session.absolute + MARGIN
        self.client = connect(url)
        self.sealer = Sealer(ring.records)
        self.log = RedisRevocations.at(
            url,
            self.sealer,
            lease=terms.lease,
            keep=self._keep_for,
            expected_replicas=terms.expected_replicas,
            trust_durability=terms.trust_durability,
        )
        directory = settings.state_dir / "journal"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperatorError(f"`{directory}` cannot be made: {error.strerror}") from error
        # A little shorter than the log keeps it, so that what is outdated is not put back into the log.
        self._name = f"{place}-{secrets.token_hex(8)}"
        self._journal = FileJournal(directory / file_name(self._name), self._keep_for - MARGIN / 2, time.time)
        self.audit = AuditLog(settings.log.audit, ring.records, time.time)
        self._revoker = Revoker(self.log, self._journal, lease=terms.lease, boottime=boottime)
        self._measured = measured
        self._noting: set[asyncio.Task[None]] = set()

    def note(self, event: AuditEvent) -> None:
        """Puts something on record, now or as soon as it can be, without waiting for it."""
        noting = asyncio.get_running_loop().create_task(self.audit.write_late(event))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def revoke(self, entry: Entry) -> Revoked:
        """See `Revoker.revoke`."""
        began = boottime()
        try:
            revoked = await self._revoker.revoke(entry)
        except WorldError:
            self._measured("failed", boottime() - began)
            raise
        self._measured("confirmed" if revoked.confirmed else "unconfirmed", revoked.seconds)
        return revoked

    def heard(self, run: str, data: str) -> None:
        """See `Revoker.heard`: for a process that has no keeper to tell it."""
        self._revoker.heard(run, data)

    def use_keys(self, ring: KeyRing) -> None:
        """After a rotation."""
        self.sealer.use(ring.records)
        self.audit.use_keys(ring.records)

    async def close(self) -> None:
        await self.log.aclose()
        await self.audit.close()
        await self.client.aclose()
        self._journal.close()


class LeasedState(State):
    """What a process has besides that lets people in. `applied` and `started_over` are those of `Keeper`."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        place: str,
        measured: Callable[[str, float], None],
        applied: Callable[[tuple[Lock, ...]], None],
        started_over: Callable[[Why], None],
    ) -> None:
        super().__init__(settings, url, place, measured)
        terms = settings.revocation
        self.keeper = Keeper(
            self.log,
            self._journal,
            worker=self._name,
            lease=terms.lease,
            quarantine=terms.quarantine,
            on_rollback=terms.on_rollback,
            keep=self._keep_for,
            boottime=boottime,
            clock=time.time,
            applied=applied,
            started_over=started_over,
            report=_log.warning,
            heard=self._revoker.heard,
            gone=self._journal.gone,
        )
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._unfit = ""

    async def start(self) -> None:
        """Begins to ask for a lease. Raises `OperatorError` for a store that must not be used, if it is there
        to say so; one that comes later and must not be used never gets this process a lease."""
        checked = await self._check()
        self._keeping = asyncio.create_task(self._keep(checked))
        await self.audit.flush()
        if checked:
            await self.keeper.wait(FIRST_LEASE)

    def missing(self) -> str:
        """Empty while people can be let in, else what is missing."""
        if self._unfit:
            return self._unfit
        if self.keeper.live():
            return ""
        if self.keeper.away:
            return "the state store does not answer"
        return f"no lease yet: {self.keeper.hold.value}" if self.keeper.hold is not None else "no lease yet"

    async def close(self) -> None:
        self._stopping.set()
        await self.keeper.close()
        if self._keeping is not None:
            await self._keeping
        await super().close()

    async def _check(self) -> bool:
        try:
            await check_state(self.client)
        except WorldError:
            return False
        return True

    async def _keep(self, checked: bool) -> None:
        try:
            while not checked and not self._stopping.is_set():
                await asyncio.sleep(_RETRY)
                checked = await self._check()
            if not self._stopping.is_set():
                await self.keeper.run()
        except OperatorError as error:
            # INVARIANT: a store that may drop what was revoked, or a journal that cannot be read, gets this
            # process no lease, however late that is seen.
            _log.critical("%s", error)
            self._unfit = str(error)
