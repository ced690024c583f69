"""What is remembered of providers, in memory: for tests of who asks."""

from __future__ import annotations

from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError


class MemoryFirstHosts:
    """Fulfils `FirstHosts`; `away` makes it fail as a store that is gone."""

    def __init__(self) -> None:
        self.hosts: dict[str, frozenset[str]] = {}
        self.away = False

    async def first(self, name: str, hosts: frozenset[str]) -> frozenset[str]:
        if self.away:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: away")
        return self.hosts.setdefault(name, hosts)
