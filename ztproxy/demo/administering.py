"""Who looks after the demo's ztproxy by a program: the admin API, with the token `ztproxy run` leaves behind.

Promises: each call is one request and its answer, whatever it says. Leaves judging the answer to the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=20)


class Answer(NamedTuple):
    status: int
    body: Any

    @property
    def confirmed(self) -> bool:
        """Whether what was asked for is known to hold everywhere."""
        return self.status == 200 and self.body["confirmed"] is True


@dataclass(frozen=True, slots=True)
class Admin:
    """`url` is the admin listener's origin, `token_file` where its token is once it runs."""

    url: str
    token_file: Path

    async def ask(self, method: str, path: str, form: dict[str, Any] | None = None) -> Answer:
        """One request below `/api/v1`. Raises `OSError` or aiohttp's errors when nobody answers."""
        token = self.token_file.read_text(encoding="ascii").strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT) as http,
            http.request(method, f"{self.url}/api/v1{path}", json=form) as answer,
        ):
            return Answer(answer.status, await answer.json(content_type=None))

    async def revoke(self, kind: str, name: str, issuer: str = "", **more: str) -> Answer:
        """Ends all sessions of a target."""
        return await self.ask("POST", "/revocations", {"target": _target(kind, name, issuer), **more})

    async def lock(self, action: str, kind: str, name: str, issuer: str = "", **more: object) -> Answer:
        """`more`: `until` or `expires_in`, `message`, `reason`."""
        form = {"target": _target(kind, name, issuer), "action": action, **more}
        return await self.ask("POST", "/locks", form)

    async def lift(self, lock: str) -> Answer:
        return await self.ask("DELETE", f"/locks/{lock}")


def _target(kind: str, name: str, issuer: str) -> dict[str, str]:
    target = {"kind": kind, "name": name}
    return {**target, "issuer": issuer} if issuer else target
