"""What is remembered of a provider beyond a process: where its endpoints were when it was first seen.

Knows: the question. Promises and leaves what the other ports do (`gateway.ports`).
"""

from __future__ import annotations

from typing import Protocol


class FirstHosts(Protocol):
    """The hosts each issuer's endpoints were on at first, the same for every worker and after a restart."""

    async def first(self, name: str, hosts: frozenset[str]) -> frozenset[str]:
        """The hosts written under `name` first: `hosts`, which are not empty, if there were none.

        A store may lose them; who knows them asks with them again, and so puts them back.

        INVARIANT: of many who ask at once, all get the hosts of one of them, also where what was written is
        found broken. Raises `WorldError(STATE_UNAVAILABLE)` when the store is away, or holds what this worker
        cannot read though another may: who cannot know is not to guess.
        """
        ...
