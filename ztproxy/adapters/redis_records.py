"""Where sessions lie in Redis, and what opens them: for `redis_sessions`, which changes them, and for
`redis_directory`, which lists them.

Knows: the names of keys, the places that seals are bound to. Promises: a seal that does not open is a value
that is not there, and a loud line in the log. Leaves the layout's description to `redis_sessions`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from redis.asyncio import Redis

from ztproxy.adapters.redis_connection import translate
from ztproxy.adapters.sealing import Breach, SealBroken, Sealer
from ztproxy.adapters.session_scripts import SCRIPTS
from ztproxy.core.locks import Target, TargetKind

PREFIX = "{ztp}:"
"""Of every key. INVARIANT: its braces are a hash tag: they keep the whole state in one slot of a Redis
Cluster, without which no script could reach for a session, its handles and its indexes at once."""

_INDEXES = {TargetKind.USER: "u", TargetKind.IDP_SESSION: "i", TargetKind.DEVICE: "d"}

_log = logging.getLogger("ztproxy.state")
T = TypeVar("T")


class Records:
    """Keys, seals and scripts under one prefix."""

    def __init__(self, client: Redis, sealer: Sealer, prefix: str) -> None:
        self.client, self.sealer, self.prefix = client, sealer, prefix
        self.all = f"{prefix}all"
        self._scripts: dict[str, Any] = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    async def run(self, name: str, *arguments: Any) -> Any:
        """The answer of one of `SCRIPTS`; raises `WorldError`."""
        with translate():
            return await self._scripts[name](keys=[self.all], args=[self.prefix, *arguments])

    # ── keys ──

    def handle_key(self, handle: str) -> str:
        return f"{self.prefix}h:{hashlib.sha256(handle.encode()).hexdigest()}"

    def record_key(self, session_id: str) -> str:
        return f"{self.prefix}s:{session_id}"

    def index(self, target: Target) -> str | None:
        """The index that holds the sessions of a target; None where there is none."""
        if target.kind is TargetKind.ALL:
            return self.all
        kind = _INDEXES.get(target.kind)
        # The length keeps (`ab`, `c`) and (`a`, `bc`) apart.
        text = f"{len(target.issuer)}:{target.issuer}{target.name}"
        return None if kind is None else f"{self.prefix}{kind}:{hashlib.sha256(text.encode()).hexdigest()}"

    # ── seals ──

    def place(self, session_id: str, name: str, revision: bytes = b"") -> bytes:
        """What the seal of a record's field is bound to."""
        return f"{self.record_key(session_id)}:{name}:".encode() + revision

    def seal_openly(self, session_id: str, name: str, plain: bytes) -> bytes:
        """Sealed under the server's key alone: whoever holds that can read it, without the session's
        secret."""
        return self.sealer.seal(session_id.encode(), self.place(session_id, name), plain)

    def open_openly(
        self, session_id: str, name: str, sealed: bytes | None, unpack: Callable[[bytes], T]
    ) -> T | None:
        return self.open(sealed, session_id.encode(), self.place(session_id, name), unpack)

    def open(
        self, sealed: bytes | None, secret: bytes, place: bytes, unpack: Callable[[bytes], T]
    ) -> T | None:
        """See `opened`."""
        return opened(self.sealer, sealed, secret, place, unpack)


def opened(
    sealer: Sealer, sealed: bytes | None, secret: bytes, place: bytes, unpack: Callable[[bytes], T]
) -> T | None:
    """What was sealed, or None where there is nothing, where it does not open and where it cannot be read."""
    if sealed is None:
        return None
    try:
        return unpack(sealer.open(secret, place, sealed))
    except SealBroken as broken:
        # An old key is an operator's choice; anything else means somebody writes into our state.
        level = logging.WARNING if broken.breach is Breach.KEY else logging.CRITICAL
        _log.log(level, "the seal at `%s` does not open: %s", place.decode("ascii", "replace"), broken)
    except ValueError:
        _log.critical("the record at `%s` cannot be read", place.decode("ascii", "replace"))
    return None


def milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
