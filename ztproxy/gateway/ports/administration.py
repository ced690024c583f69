"""What the administration asks of the world: a record nobody can change unseen, tokens, and repeats told
apart.

Knows: the questions. Promises and leaves: as `ports`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, Protocol

from ztproxy.core.audit import AuditEvent as AuditEvent
from ztproxy.core.lease import Revoked
from ztproxy.core.locks import Entry

Rank = Literal["viewer", "operator", "admin"]
"""What people may do here, the least first."""

Role = Literal[Rank, "feed"]
"""What a credential is for. A feed reports the posture of devices, and reads nothing."""

Revoke = Callable[[Entry], Awaitable[Revoked]]
"""Makes an entry of the log hold everywhere (`gateway.revoker`). Raises `WorldError` when it was not even
written: then nothing is in force."""

TOKEN_SECONDS = 90 * 86_400.0
"""How long an admin token lives, unless another time is asked for."""

LONGEST_TOKEN_SECONDS = 400 * 86_400.0
"""How long it may live at most."""


class AuditSink(Protocol):
    async def write(self, event: AuditEvent) -> None:
        """On the disk, in the chain, when this returns. Raises `WorldError(AUDIT_UNAVAILABLE)` else."""
        ...

    async def write_late(self, event: AuditEvent) -> None:
        """Writes the event, or keeps it and writes it as soon as it can be written (`--emergency`)."""
        ...


class AdminToken(NamedTuple):
    """A bearer token, without its secret. Times are seconds since the epoch."""

    id: str
    name: str
    role: Role
    created_by: str
    created_at: float
    expires_at: float


class TokenStore(Protocol):
    """Bearer tokens for the admin API. Only their hashes are kept."""

    async def create(self, name: str, role: Role, seconds: float, created_by: str) -> tuple[str, AdminToken]:
        """A new token; its secret, 256 bits behind `ztp_`, is shown this once. Raises `ValueError` unless
        `seconds` is more than 0 and at most `LONGEST_TOKEN_SECONDS`."""
        ...

    async def find(self, secret: str) -> AdminToken | None:
        """The token of this secret, if it is neither unknown, revoked nor expired."""
        ...

    async def all(self) -> tuple[AdminToken, ...]: ...

    async def revoke(self, token_id: str) -> bool: ...


class Told(NamedTuple):
    """The answer a request got the first time."""

    status: int
    body: bytes


class Repeats(Protocol):
    """Requests that carry an idempotency key, for a day. `actor` and `key` together name one; `question` is a
    digest of method, path and body."""

    async def begin(self, actor: str, key: str, question: bytes) -> Told | None:
        """None for the first time, else what was answered then. Raises
        `ClientError(IDEMPOTENCY_MISMATCH)` for another question under the same key, and
        `ClientError(IDEMPOTENCY_PENDING)` while the first is still under way."""
        ...

    async def finish(self, actor: str, key: str, told: Told | None) -> None:
        """Keeps the answer; None forgets the key, so that what failed can be tried again."""
        ...
