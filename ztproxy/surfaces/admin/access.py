"""Who asks, and how often they may.

Knows: bearer tokens (RFC 6750), client certificates and roles. Promises: a credential counts in the
`Authorization` field or in the TLS handshake and nowhere else: a cookie would come along with requests of
other sites, and queries and bodies end up in logs (A04). No token is ever in a message. Leaves what a role
may do to the table of endpoints.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from aiohttp import web

from ztproxy.core.rates import Rate, Spent
from ztproxy.gateway.ports.administration import Role
from ztproxy.gateway.rates import Buckets
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem

# INVARIANT: a feed is no lesser viewer: what reports about devices cannot look at people.
_MAY: dict[Role, frozenset[Role]] = {
    "viewer": frozenset({"viewer"}),
    "operator": frozenset({"viewer", "operator"}),
    "admin": frozenset({"viewer", "operator", "admin", "feed"}),
    "feed": frozenset({"feed"}),
}

PER_SECOND: dict[Role, int] = {"viewer": 20, "operator": 50, "admin": 100, "feed": 10}
"""Requests a second; twice as many at once. Reading, writing and shutting out have a bucket each: neither a
console that looks too often nor an import in a loop keeps anybody from revoking (A21)."""

UNKNOWN_PER_SECOND = 5
"""Tokens looked up for one address that were not seen to be good before; ten times as many at once."""
_UNKNOWN = Rate(UNKNOWN_PER_SECOND, 1.0, 10 * UNKNOWN_PER_SECOND)

# RFC 6750 2.1, stricter: one space, and nothing that could not be a token of ours reaches the store.
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] (ztp_[A-Za-z0-9_-]{1,256})")
_KNOWN = 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `id` is never reused and never shared, `name` is for the record. `expires_at` is None for a
    certificate, whose end TLS knows."""

    id: str
    name: str
    role: Role
    by: str
    expires_at: float | None = None

    def may(self, role: Role) -> bool:
        """Whether this role is enough where `role` is asked for."""
        return role in _MAY[self.role]


class Access:
    """Finds out who asks, and counts."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = Buckets(desk.monotonic)
        self._lookups = Buckets(desk.monotonic)
        self._known: OrderedDict[bytes, None] = OrderedDict()

    async def caller(self, request: web.Request) -> Caller:
        """Raises a `Problem` for everybody who is nobody."""
        fields = request.headers.getall("Authorization", [])
        if len(fields) > 1:
            raise Problem(Kind.BAD_REQUEST, "there are two credentials", "Authorization")
        if not fields:
            return self._by_certificate(request)
        # INVARIANT: whoever shows a token is judged by it alone; a bad one does not fall back on a
        # certificate.
        found = _BEARER.fullmatch(fields[0])
        if found is None:
            raise _unauthenticated("this is not a bearer token of ztproxy", "invalid_token")
        return await self._by_token(found[1], network(request.remote))

    def count(self, caller: Caller, *, changes: bool, ends: bool = False) -> None:
        """Raises a `Problem` for whoever asks too often. `ends` is a change that shuts somebody out."""
        rate = PER_SECOND[caller.role]
        kind = "end" if ends else "change" if changes else "read"
        _within(self._requests.spend(kind, caller.id, Rate(rate, 1.0, 2 * rate)))

    async def _by_token(self, secret: str, address: str) -> Caller:
        # 256 bits are not guessed; the limit keeps guessing from loading the store. What was good before is
        # looked up beyond it, so that noise from an operator's own address cannot lock the operator out.
        digest = hashlib.sha256(secret.encode()).digest()
        if digest not in self._known:
            _within(self._lookups.spend("unknown", address, _UNKNOWN))
        token = await self._desk.tokens.find(secret)
        if token is None:
            self._known.pop(digest, None)
            raise _unauthenticated("this token is unknown, revoked or expired", "invalid_token")
        if digest not in self._known:
            self._lookups.give_back("unknown", address, _UNKNOWN)
        self._known[digest] = None
        self._known.move_to_end(digest)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return Caller(f"token:{token.id}", token.name, token.role, "token", token.expires_at)

    def _by_certificate(self, request: web.Request) -> Caller:
        tls = None if request.transport is None else request.transport.get_extra_info("ssl_object")
        certificate: bytes | None = None if tls is None else tls.getpeercert(binary_form=True)
        role = None if certificate is None else self._desk.certificate_role(certificate)
        if certificate is None or role is None:
            raise _unauthenticated("send `Authorization: Bearer` and a token")
        name = f"certificate:{hashlib.sha256(certificate).hexdigest()}"
        return Caller(name, name, role, "certificate")


def _unauthenticated(detail: str, error: str = "") -> Problem:
    """RFC 6750 3.1: no error code for whoever showed no token."""
    code = f', error="{error}"' if error else ""
    return Problem(
        Kind.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": f'Bearer realm="ztproxy admin"{code}'}
    )


def _within(spent: Spent) -> None:
    if not spent.allowed:
        headers = {"Retry-After": str(math.ceil(spent.wait))}
        raise Problem(Kind.RATE_LIMITED, "wait a moment", headers=headers)


def network(remote: str | None) -> str:
    """Whom failures are counted for: an address, or the /64 that one IPv6 host has to itself."""
    try:
        address = ip_address(remote or "")
    except ValueError:
        return "unix"
    if isinstance(address, IPv6Address):
        return str(int(address) >> 64)
    return str(address)
