"""Conditions about services: which one it is, and what its token covers.

Knows: sessions that are made of a token or a certificate for one request (`Session.by`), and those of people.
Promises: a person never passes for a service, nor a service for a person, whatever their subjects read; a
SPIFFE ID counts only where a certificate proved it, never where a token merely says it. Leaves to the gateway
that token and certificate were verified, and to `config` that patterns are valid and that SPIFFE IDs are
listed as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ztproxy.core.conditions import HOLDS, LOGIN, Fails, Source, Truth, is_among
from ztproxy.core.evidence import Facts
from ztproxy.core.identity import Credential, Session
from ztproxy.core.reasons import Reason
from ztproxy.core.spiffe import matches

_SESSION = frozenset({Source.SESSION})
_OTHER_SERVICE = Fails((Reason.SERVICE_MISMATCH,))
_NOT_COVERED = Fails((Reason.SCOPE_MISSING,))
_NO_PERSON = Fails((Reason.USER_MISMATCH,))


@dataclass(frozen=True, slots=True)
class ServiceIs:
    """Holds for the listed services: by subject or `issuer|subject`, or by SPIFFE ID (`spiffe.matches`)."""

    reads: ClassVar[frozenset[Source]] = _SESSION
    names: frozenset[str]
    spiffe: tuple[str, ...] = ()

    def ask(self, facts: Facts) -> Truth:
        if facts.session is None:
            return LOGIN
        return HOLDS if self._lists(facts.session) else _OTHER_SERVICE

    def _lists(self, service: Session) -> bool:
        if service.by is Credential.COOKIE:
            return False
        if is_among(service.identity, self.names):
            return True
        subject = service.identity.subject
        return service.by is Credential.CERTIFICATE and any(matches(one, subject) for one in self.spiffe)


@dataclass(frozen=True, slots=True)
class HasScopes:
    """Holds for a token with all of these scopes. A person's session has none."""

    reads: ClassVar[frozenset[Source]] = _SESSION
    scopes: frozenset[str]

    def ask(self, facts: Facts) -> Truth:
        session = facts.session
        if session is None:
            return LOGIN
        covered = session.by is not Credential.COOKIE and self.scopes <= session.scopes
        return HOLDS if covered else _NOT_COVERED


@dataclass(frozen=True, slots=True)
class IsPerson:
    """Holds for everyone who signed in themselves, and for no service."""

    reads: ClassVar[frozenset[Source]] = _SESSION

    def ask(self, facts: Facts) -> Truth:
        if facts.session is None:
            return LOGIN
        return HOLDS if facts.session.by is Credential.COOKIE else _NO_PERSON
