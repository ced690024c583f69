"""A token for whoever is on this machine as this user: a private file, made anew at each start.

Knows: the file's name and mode. Promises: the token is good while the process that made it lives, and nobody
but its user can read it; every other token is the other store's. Leaves what it may do to its role: an
administrator's, for whoever can read this file can read the keys beside it too.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from ztproxy.adapters.keys import write_private
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.administration import LONGEST_TOKEN_SECONDS, AdminToken, Role, TokenStore

FILE = "admin-token"


class LocalToken:
    """Fulfils `TokenStore` with one token more than `others` have. Raises `OperatorError` if the file cannot
    be written."""

    def __init__(self, directory: Path, others: TokenStore, clock: Clock) -> None:
        self._path, self._others = directory / FILE, others
        self._secret = f"ztp_{secrets.token_urlsafe(32)}"
        now = clock()
        self._token = AdminToken("local", "local", "admin", "ztproxy run", now, now + LONGEST_TOKEN_SECONDS)
        write_private(self._path, self._secret + "\n", replace=True)

    def close(self) -> None:
        """The file goes with the process."""
        self._path.unlink(missing_ok=True)

    async def find(self, secret: str) -> AdminToken | None:
        """This token, without asking anybody, or one of the others."""
        if hmac.compare_digest(secret.encode(), self._secret.encode()):
            return self._token
        return await self._others.find(secret)

    async def create(self, name: str, role: Role, seconds: float, created_by: str) -> tuple[str, AdminToken]:
        return await self._others.create(name, role, seconds, created_by)

    async def all(self) -> tuple[AdminToken, ...]:
        return (self._token, *await self._others.all())

    async def revoke(self, token_id: str) -> bool:
        return await self._others.revoke(token_id)
