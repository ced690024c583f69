"""Who someone is, since when, and how strongly: the values a login leaves behind.

Knows: the shape of a verified login. Promises: frozen values; nothing secret is in them (tokens stay in the
session record of the store, `SessionSecrets`). Leaves to the caller: verifying claims (`core.claims`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

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


@dataclass(frozen=True, slots=True)
class Session:
    """A login that held when it was read from the store. All times are seconds since the epoch.

    `id` is public (a hash of the secret session id): it may be logged and shown. `authenticated_at` is the
    provider's `auth_time`, or the login's time where the provider gives none. `verified_at` is when the
    provider last vouched for this person: login, step-up or refresh. `expires_at` is absolute. `revision`
    grows with every write. `refreshable` says whether a refresh token is on record. `rank` is the acr rank,
    and 1 is the least a sign-in can have. `as_of` is the number of the last lock its sign-in or step-up began
    after (`core.locks`), and `log` says of which log while that is not on record yet: a number of a log that
    is gone means nothing. `device` is the id of the device it is bound to.
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


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """What only the sign-in code may hold; the repr hides it so that no log can show it."""

    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)
