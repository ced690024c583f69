"""Who someone is, since when, and how strongly: the values a login leaves behind.

Knows: the shape of a verified login. Promises: frozen values; nothing secret is in them (tokens stay in the
session record of the store, `SessionSecrets`). Leaves to the caller: verifying claims (`core.claims`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

JSON = str | int | float | bool | None | list["JSON"] | dict[str, "JSON"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at one issuer. The key is `(issuer, subject)`, never the e-mail (mailboxes are reassigned).

    `email` is present only when the issuer says it is verified (or the operator trusts it unverified).
    `claims` are the other verified claims kept for policy, read-only.
    """

    issuer: str
    subject: str
    email: str | None = None
    name: str | None = None
    username: str | None = None
    groups: tuple[str, ...] = ()
    claims: Mapping[str, JSON] = field(default_factory=lambda: MappingProxyType({}))


class Credential(StrEnum):
    """By what somebody is known here: a session cookie (people), or what a service shows with each
    request."""

    COOKIE = "cookie"
    TOKEN = "token"  # noqa: S105 (a name)
    CERTIFICATE = "certificate"


class Step(NamedTuple):
    """A rank somebody proved, and until when that is remembered, in seconds since the epoch."""

    rank: int
    until: float


@dataclass(frozen=True, slots=True)
class Session:
    """A login that held when it was read from the store. All times are seconds since the epoch.

    `id` is public (a hash of the secret session id): it may be logged and shown. `authenticated_at` is the
    provider's `auth_time`, or the login's time where the provider gives none. `verified_at` is when the
    provider last vouched for this person: login, step-up or refresh. `expires_at` is absolute. `revision`
    grows with every write. `refreshable` says whether a refresh token is on record. `rank` is the acr rank,
    and 1 is the least a sign-in can have. `as_of` is the number of the last lock its sign-in or step-up began
    after (`core.locks`), and `log` says of which log while that is not on record yet: a number of a log that
    is gone means nothing.

    `certificate` is the x5t#S256 of the device certificate it is bound to, `device` the id of that device.
    `fresh`: the person showed who they are for this very session, instead of being remembered by the
    provider. `steps` are the ranks proved that are remembered for a time of their own; without any, `rank`
    holds as long as the session does. `idle` is how many seconds it lives without a request, None for the
    store's own limit. A service has no session in the store: what it shows is turned into one for as long as
    it holds, with `by` saying so, and with its token's `scopes`.
    """

    id: str
    identity: Identity
    provider: str
    created_at: float
    authenticated_at: float
    verified_at: float
    expires_at: float
    acr: str | None = None
    amr: tuple[str, ...] = ()
    rank: int = 1
    idp_session: str | None = None
    refreshable: bool = False
    revision: int = 0
    as_of: int = 0
    log: str = ""
    device: str | None = None
    certificate: str | None = None
    fresh: bool = False
    steps: tuple[Step, ...] = ()
    idle: float | None = None
    by: Credential = Credential.COOKIE
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """What only the sign-in code may hold; the repr hides it so that no log can show it."""

    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)
