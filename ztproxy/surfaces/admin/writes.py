"""Writes, and the audit log before and after each of them (A25, A27).

Knows: the order of things. Promises: no effect begins before its intent is on the disk, and nobody is
answered before its outcome is; what is refused is on record too. An emergency goes on without the disk, and
the records are written as soon as they can be. Leaves the effect to the handler.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from ztproxy.core.identity import JSON
from ztproxy.errors import WorldError
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.administration import AuditEvent, AuditSink
from ztproxy.surfaces.admin.access import Caller
from ztproxy.surfaces.admin.problems import Kind, Problem

_log = logging.getLogger("ztproxy.admin")

_DAY = 86_400


@dataclass(slots=True)
class Record:
    """What the audit log is told of one write. `begun`: the effect may have begun. `late`: some of it
    could not be written yet."""

    audit: AuditSink
    caller: Caller
    request_id: str
    action: str
    target: str = ""
    late: bool = False
    begun: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)

    async def intent(
        self, target: str, detail: Mapping[str, JSON] | None = None, *, emergency: bool = False
    ) -> None:
        """Before the effect. Raises `Problem` when the log cannot be written and it is no emergency."""
        self.target = target
        more: dict[str, JSON] = {"emergency": True} if emergency else {}
        event = self._event("intent", {**(detail or {}), **more})
        try:
            await self.audit.write(event)
        except WorldError:
            if not emergency:
                raise Problem(Kind.AUDIT_UNAVAILABLE, "try again later") from None
            self.late = True
            await self.audit.write_late(event)
        self.begun = True

    async def outcome(self, outcome: str, detail: Mapping[str, JSON] | None = None) -> None:
        """After the effect, which nothing here can take back any more."""
        self._ended = True
        event = self._event(outcome, detail or {})
        try:
            await self.audit.write(event)
        except WorldError as error:
            _log.warning("audit: %s of request %s is written later: %s", outcome, self.request_id, error)
            self.late = True
            await self.audit.write_late(event)

    async def refused_or_failed(self, kind: Kind, field: str = "") -> None:
        """The request ends with a problem: `refused` before the effect, `failed` when it had begun. Nothing
        when the outcome is on record already."""
        if self._ended:
            return
        detail: dict[str, JSON] = {"problem": str(kind)}
        if field:
            detail["field"] = field
        if self.begun:
            await self.outcome("failed", detail)
            return
        try:
            await self.audit.write(self._event("refused", detail))
        except WorldError as error:  # nothing was changed; refusals kept for later would be without end
            _log.warning("audit: a refusal, request %s, is not on record: %s", self.request_id, error)

    def _event(self, outcome: str, detail: Mapping[str, JSON]) -> AuditEvent:
        return AuditEvent(self.caller.name, self.action, outcome, self.target, self.request_id, detail)


def question_of(method: str, target: str, body: bytes) -> bytes:
    """What was asked, for telling repeats apart."""
    return hashlib.sha256(
        b"\0".join((method.encode(), target.encode(errors="surrogateescape"), body))
    ).digest()


def entry_id(caller: Caller, key: str, question: bytes, clock: Clock) -> str:
    """The id of the log's entry that a request with this idempotency key makes, so that a retry after a crash
    of ours, or after an unconfirmed answer, is the same entry.

    INVARIANT: the log takes an id once, so the id must differ where the request is another one: by what was
    asked, and by the day, for after a day a key is forgotten and names a new request. Else the second of two
    revocations would be answered with the first and do nothing.
    """
    day = str(int(clock() // _DAY))
    parts = (caller.id.encode(), key.encode(), question, day.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
