"""The sessions there are: what those who look after them ask of the store.

Knows: the questions. Promises and leaves: as `ports`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ztproxy.core.identity import Session
from ztproxy.core.locks import Lock, Target, targets_of
from ztproxy.gateway.ports import Seen


@dataclass(frozen=True, slots=True)
class Listed:
    """A session as lists show it, without its claims and its revision. Nothing here lets anyone in.

    Times are seconds since the epoch; `seen_at` is when the store last heard of its use, `created_from` and
    `seen` where that was."""

    session: Session
    seen_at: float
    seen: Seen | None = None
    created_from: Seen | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions to list: all that fit every field that is given, to the letter; `text` is a part of the
    person's subject, e-mail or name, in any case."""

    target: Target | None = None
    provider: str | None = None
    text: str | None = None

    def fits(self, session: Session) -> bool:
        """Whether a session is among those wanted. Nobody is on a route: that target fits none."""
        who = session.identity
        return (
            (self.target is None or self.target in targets_of(session))
            and (self.provider is None or self.provider == session.provider)
            and (
                self.text is None
                or any(
                    self.text.casefold() in (it or "").casefold() for it in (who.subject, who.email, who.name)
                )
            )
        )


class ListedPage(NamedTuple):
    """`cursor` asks for the next page; None after the last. A page may be short and yet not the last."""

    sessions: tuple[Listed, ...]
    cursor: str | None


class SessionDirectory(Protocol):
    """The sessions there are, for those who look after them. Raises as `SessionStore` does."""

    async def page(self, wanted: Wanted, cursor: str | None, limit: int) -> ListedPage:
        """Newest first. Raises `ClientError(HTTP_SYNTAX)` for a cursor that this directory did not make for
        this very question (it carries a MAC)."""
        ...

    async def show(self, session_id: str) -> Listed | None: ...

    async def of(self, target: Target) -> tuple[Listed, ...] | None:
        """The live sessions a revocation of `target` would end, oldest first; None for a kind that only a
        search through all can tell (group, all), and for a route, on which no session is."""
        ...

    async def count(self) -> int:
        """How many sessions there are, about: some may have expired a moment ago."""
        ...

    async def join(self, session: Session, group: str, most: int) -> tuple[str, ...]:
        """Notes that a session is used in a group of routes; the ids of its person's sessions that were there
        before and are too many now, first come first. Saying it twice is saying it once."""
        ...

    async def clear(self, lock: Lock) -> int:
        """Removes the records of what a revocation ended; how many. Housekeeping: safety never hangs on it.

        A session that began after the lock stays, and so do those of a lock that does not revoke. What a
        revocation of a group met stays until its own end: finding it is a search through all."""
        ...
