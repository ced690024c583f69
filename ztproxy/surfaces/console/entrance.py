"""Who may come in, and whose form it is that comes back.

Knows: the two ways in. A request that ztproxy itself forwarded carries an assertion of who asks; and whoever
has the API's trust can ask for a link, which opens the console once and leaves a cookie. Promises: neither is
any good at the API, and the API's tokens and certificates are not looked at here: a browser adds a
certificate to whatever another site has it send. A form counts only when it comes from a page of this very
console, shown to this very visitor. Leaves verifying assertions to whoever gives `who`, and what a role may
do to the API's table.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import web

from ztproxy.core.conditions import ascii_lower
from ztproxy.gateway.ports import Clock, OneTimeStore
from ztproxy.gateway.ports.administration import Rank
from ztproxy.surfaces.admin.access import Caller
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem

PREFIX = "/console"
COOKIE = "ztproxy_console"
ASSERTION = "X-Ztproxy-Assertion"

LINK_SECONDS = 120.0
"""For how long a link opens the console, once."""

VISIT_SECONDS = 8 * 3600.0
"""How long one may stay after that; not longer than the token it was asked for with."""

_VISITS = 1024
_KIND = "console"
_RANKS: tuple[Rank, ...] = ("admin", "operator", "viewer")


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a verified assertion names. `site` is its `iss`: the origin the browser shows for the console.
    `issuer` and `subject` are the person's key, `session` the public id of their session."""

    site: str
    issuer: str
    subject: str
    session: str
    email: str | None = None
    groups: tuple[str, ...] = ()


Who = Callable[[str], Person | None]
"""The person an assertion names; None unless it is good and made for the console's own route."""


@dataclass(frozen=True, slots=True)
class People:
    """Which persons have which role: members of these groups, owners of these verified addresses (in lower
    case)."""

    groups: Mapping[Rank, frozenset[str]]
    emails: Mapping[Rank, frozenset[str]]

    def role(self, person: Person) -> Rank | None:
        """The highest that anything gives them."""
        # ASCII alone is folded: `K` would become `k` else, and somebody else's address.
        email = ascii_lower(person.email or "")
        for role in _RANKS:
            if email in self.emails.get(role, ()) or not self.groups.get(role, frozenset()).isdisjoint(
                person.groups
            ):
                return role
        return None


NOBODY = People({}, {})


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page. `site` is the origin its forms come from, `form_key` what they must carry,
    `session` their own session, "" for who came by a link."""

    caller: Caller
    site: str
    form_key: str
    session: str = ""


class Links:
    """Links that open the console, each once and for two minutes. `store` may be shared by processes."""

    def __init__(self, store: OneTimeStore) -> None:
        self._store = store

    async def make(self, caller: Caller) -> str:
        """The path and query of a link that lets in whoever has it as `caller`. It is a secret."""
        code = secrets.token_urlsafe(32)
        value = json.dumps([caller.id, caller.name, caller.role, caller.expires_at])
        await self._store.put(_KIND, code, value.encode(), LINK_SECONDS)
        return f"{PREFIX}/enter?code={code}"

    async def take(self, code: str) -> Caller | None:
        """Who made the link; None for one that is made up, used or too old."""
        value = await self._store.take(_KIND, code)
        if value is None:
            return None
        id, name, role, expires_at = json.loads(value)
        return Caller(id, name, role, "link", expires_at)


class _Visit(NamedTuple):
    caller: Caller
    until: float


class Visits:
    """Those who came by a link, in the memory of this process: a restart sends everybody out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._visits: OrderedDict[bytes, _Visit] = OrderedDict()

    def begin(self, caller: Caller) -> tuple[str, float]:
        """The cookie's value, and for how many seconds it is good."""
        now, value = self._clock(), secrets.token_urlsafe(32)
        until = now + VISIT_SECONDS
        if caller.expires_at is not None:
            until = min(until, caller.expires_at)
        self._visits[_digest(value)] = _Visit(caller, until)
        if len(self._visits) > _VISITS:
            self._visits.popitem(last=False)
        return value, until - now

    def find(self, value: str) -> Caller | None:
        visit = self._visits.get(_digest(value))
        if visit is None or self._clock() >= visit.until:
            self.end(value)
            return None
        return visit.caller

    def end(self, value: str) -> None:
        self._visits.pop(_digest(value), None)


class Entrance:
    """Finds out who looks at the console. `people` is asked anew for every request."""

    def __init__(self, desk: Desk, who: Who, people: Callable[[], People]) -> None:
        self._desk, self._who, self._people = desk, who, people
        self._key = secrets.token_bytes(32)
        self.visits = Visits(desk.clock)

    async def visitor(self, request: web.Request) -> Visitor:
        """Raises a `Problem` for everybody who is nobody, `WorldError` when nobody can tell."""
        assertions = request.headers.getall(ASSERTION, [])
        if assertions:
            # INVARIANT: whoever shows an assertion is judged by it alone; with a bad one no cookie helps.
            return self._person(assertions)
        cookie = request.cookies.get(COOKIE, "")
        caller = self.visits.find(cookie) if cookie else None
        if caller is None or not await self._still_good(caller):
            self.visits.end(cookie)
            raise stranger("Ask for a link with `ztproxy console`, and open it within two minutes.")
        return Visitor(caller, own_site(request), self._form_key("link", _digest(cookie).hex()))

    def _person(self, assertions: list[str]) -> Visitor:
        person = self._who(assertions[0]) if len(assertions) == 1 else None
        if person is None:
            raise stranger("The assertion of who you are is not one for this console.")
        role = self._people().role(person)
        if role is None:
            raise Problem(Kind.FORBIDDEN, "You have no role here; roles are given in the configuration.")
        # INVARIANT: no token's name has a colon, so nobody passes for one in the audit log.
        caller = Caller(
            f"person:{json.dumps([person.issuer, person.subject])}",
            f"person:{person.email or person.subject}",
            role,
            "person",
        )
        return Visitor(caller, person.site, self._form_key(caller.id, person.session), person.session)

    async def _still_good(self, caller: Caller) -> bool:
        """A token that was revoked takes those it let in with it."""
        if not caller.id.startswith("token:"):
            return True
        return any(f"token:{token.id}" == caller.id for token in await self._desk.tokens.all())

    def _form_key(self, *whose: str) -> str:
        return hmac.digest(self._key, json.dumps(whose).encode(), hashlib.sha256).hex()


def own_site(request: web.Request) -> str:
    """The origin of a page that was asked for at the listener itself."""
    return f"{request.scheme}://{request.host}".lower()


def check_from(request: web.Request, site: str) -> None:
    """Raises a `Problem` unless a page of `site` sent this form. Whoever says nothing of where it comes from
    is refused: every browser of today says it."""
    fetched = request.headers.getall("Sec-Fetch-Site", [])
    origins = request.headers.getall("Origin", [])
    if any(one != "same-origin" for one in fetched) or any(one.lower() != site.lower() for one in origins):
        raise Problem(Kind.CROSS_SITE, "Another site sent this form, so nothing was done.")
    if not fetched and not origins:
        raise Problem(Kind.CROSS_SITE, "It does not say which page sent it, so nothing was done.")


def check_key(visitor: Visitor, key: str) -> None:
    """Raises a `Problem` unless the form was shown to this visitor."""
    if not hmac.compare_digest(visitor.form_key.encode(), key.encode(errors="replace")):
        raise Problem(
            Kind.CROSS_SITE,
            "This form is not of your visit, so nothing was done. Go back, reload, try again.",
        )


def stranger(detail: str) -> Problem:
    """RFC 9110 11.6.1 wants a challenge; the scheme is our own, so that no browser asks for a password."""
    return Problem(
        Kind.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": 'Ztproxy realm="admin console"'}
    )


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode(errors="replace")).digest()
