"""The ports of the administration in memory, for tests of the admin surface: a clock one can set, no ciphers.

Fulfil `TokenStore`, `Repeats` and `AuditSink`, and pass the suites of the real ones. `away` makes every call
fail as a store that is gone; `full` makes the audit log one whose disk is full.
"""

from __future__ import annotations

import hashlib
import secrets

from tests.worlds.memory_state import SetClock
from ztproxy.core.audit import AuditEvent
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports.administration import LONGEST_TOKEN_SECONDS, AdminToken, Role, Told


class MemoryTokens:
    def __init__(self, clock: SetClock) -> None:
        self.clock, self.away = clock, False
        self.tokens: dict[str, AdminToken] = {}  # secret → token

    async def create(self, name: str, role: Role, seconds: float, created_by: str) -> tuple[str, AdminToken]:
        self._here()
        if not 0 < seconds <= LONGEST_TOKEN_SECONDS:
            raise ValueError("a token lives for more than 0 seconds and at most 400 days")
        secret, now = f"ztp_{secrets.token_urlsafe(32)}", self.clock()
        id = hashlib.sha256(secret.encode()).hexdigest()[:16]
        self.tokens[secret] = AdminToken(id, name, role, created_by, now, now + seconds)
        return secret, self.tokens[secret]

    async def find(self, secret: str) -> AdminToken | None:
        self._here()
        token = self.tokens.get(secret)
        return token if token is not None and self.clock() < token.expires_at else None

    async def all(self) -> tuple[AdminToken, ...]:
        self._here()
        live = [token for token in self.tokens.values() if self.clock() < token.expires_at]
        return tuple(sorted(live, key=lambda token: (token.created_at, token.id)))

    async def revoke(self, token_id: str) -> bool:
        live = {token.id for token in await self.all()}
        self.tokens = {secret: token for secret, token in self.tokens.items() if token.id != token_id}
        return token_id in live

    def _here(self) -> None:
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")


class MemoryRepeats:
    def __init__(self, clock: SetClock) -> None:
        self.clock, self.away = clock, False
        self.kept: dict[tuple[str, str], tuple[bytes, Told | None, float]] = {}

    async def begin(self, actor: str, key: str, question: bytes) -> Told | None:
        self._here()
        asked, told, ends_at = self.kept.get((actor, key), (b"", None, 0.0))
        if self.clock() >= ends_at:
            self.kept[actor, key] = (question, None, self.clock() + 60)
            return None
        if asked != question:
            raise ClientError(Reason.IDEMPOTENCY_MISMATCH)
        if told is None:
            raise ClientError(Reason.IDEMPOTENCY_PENDING)
        return told

    async def finish(self, actor: str, key: str, told: Told | None) -> None:
        self._here()
        question, _, _ = self.kept.pop((actor, key))
        if told is not None:
            self.kept[actor, key] = (question, told, self.clock() + 86_400)

    def _here(self) -> None:
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")


class MemoryAudit:
    """`events` is what was written, each with whether it was late; `waiting` what could not be yet."""

    def __init__(self) -> None:
        self.full = False
        self.events: list[tuple[AuditEvent, bool]] = []
        self.waiting: list[AuditEvent] = []
        self.failures = 0

    @property
    def queued(self) -> int:
        return len(self.waiting)

    async def write(self, event: AuditEvent) -> None:
        if not await self.flush():
            self.failures += 1
            raise WorldError(Reason.AUDIT_UNAVAILABLE, "audit: no space left on device")
        self.events.append((event, False))

    async def write_late(self, event: AuditEvent) -> None:
        if self.full:
            self.waiting.append(event)
        else:
            await self.write(event)

    async def flush(self) -> bool:
        if not self.full:
            self.events += [(event, True) for event in self.waiting]
            self.waiting.clear()
        return not self.full
