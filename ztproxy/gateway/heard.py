"""What this worker has heard of the log of locks, as signing in asks it.

Knows: the lease and the book of locks. Promises: a session that a sign-in, a step-up or a refresh would write
is judged by a log that is live (INV-6) and at least as new as the sign-in itself, so that none of them brings
back what was revoked (INV-5). Leaves the locks that do not revoke to the decision.
"""

from __future__ import annotations

from dataclasses import replace

from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.lease import Lease


class Heard:
    """All methods but `revoked` raise `WorldError(STATE_UNAVAILABLE)` where there is no live lease."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def applied(self) -> int:
        """The number of the newest lock in force here."""
        if not self._lease.live():
            raise WorldError(Reason.STATE_UNAVAILABLE, "locks: no live lease")
        return self._lease.book.applied

    def as_of(self) -> tuple[int, str]:
        """That number, and the log it is of."""
        return self.applied(), self._lease.data

    def revoked(self, session: Session) -> bool:
        """Whether a lock heard so far has ended a session: for what is only counted or listed."""
        return any(lock.revokes for lock in self._lease.book.meeting(session, "", 0.0))

    def check(self, session: Session, as_of: int = 0) -> None:
        """Raises `ClientError(LOGIN_REVOKED)` for a session that was revoked.

        `as_of` is what the log must have come to. Another worker may have begun a sign-in after a lock that
        this one has not heard of yet: it would take the session on record for one that stands.
        """
        if self.applied() < as_of:
            raise WorldError(Reason.STATE_UNAVAILABLE, "locks: this worker has not heard the last ones yet")
        if self.revoked(session):
            raise ClientError(Reason.LOGIN_REVOKED, "revoked: overtaken by a revocation")

    def revoked_at(self, session: Session) -> float | None:
        """When the person of a session was last revoked, as a person, as one of a group or as one of all, in
        seconds since the epoch by the store's clock; None for never. Ends of single sessions do not count."""
        self.applied()
        as_a_person = replace(session, id="", idp_session=None, device=None)
        lock = self._lease.book.newest_revocation(as_a_person)
        return None if lock is None else lock.made_at
