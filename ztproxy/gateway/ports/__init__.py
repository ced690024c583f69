"""What the gateway asks of the world: short protocols, each fulfilled by one adapter.

Knows: the questions. Promises: an implementation raises `WorldError` when its technology is away,
`ClientError` when what a client brought is wrong, and nothing else. Leaves the technology to `adapters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ztproxy.core.identity import JSON, Session, SessionSecrets


class Clock(Protocol):
    """Seconds since the epoch; the wall clock, read once per request."""

    def __call__(self) -> float: ...


class Loaded(NamedTuple):
    """A session as the store holds it, and the host its handle is for.

    `bookmark` is the store's own: handed back to `load` with the same handle it makes reading again cheaper.
    It holds secrets, which its repr hides; keep it no longer than the session it came with.
    """

    session: Session
    host: str
    bookmark: Any = None


class Seen(NamedTuple):
    """Where a session was used last: for lists of sessions, never for a decision."""

    address: str
    route: str
    agent: str


class SessionStore(Protocol):
    """Sessions by handle. A handle is a secret for one host; a session may have several handles.

    A session that is not used for as long as the store's limit says, or its own `idle` where that is shorter,
    is gone.

    INVARIANT: no method but `create` brings a session into being; every other write is compare-and-set and
    fails on a session that is gone. What a service shows is never stored (`Session.by`): a write of such a
    session is our mistake, `ValueError`. All raise `WorldError(STATE_UNAVAILABLE)` when the store is away.
    """

    async def create(
        self,
        session: Session,
        secrets: SessionSecrets,
        host: str,
        replaces: str | None,
        seen: Seen | None = None,
    ) -> str:
        """Stores a new session and answers its first handle. `replaces` is a handle whose whole session dies
        in the same script. `session.id` is ignored and assigned by the store (read it back by `load`).

        INVARIANT: with `session.log` it is stored only where that is the log in force, and has come to
        `session.as_of`: else no lock of this log could meet it. Raises `ClientError(LOGIN_REVOKED)`.
        """
        ...

    async def attach(self, handle: str, host: str) -> str | None:
        """A further handle, for another host, of the session behind `handle`; None if that is gone."""
        ...

    async def load(self, handle: str, bookmark: Any = None) -> Loaded | None:
        """The session as it is now, or None. `bookmark` is from an earlier `Loaded` of this handle, if there
        is one; it changes the cost and never the answer."""
        ...

    async def secrets(self, handle: str) -> SessionSecrets | None: ...

    async def replace(self, handle: str, session: Session, secrets: SessionSecrets) -> str | None:
        """Step-up: writes the record and answers a new handle for the same host; every handle the session
        had, on any host, dies in the same script, so that none copied before is stepped up with it (T12).
        None if the session is gone or its revision is no longer `session.revision`. Looks at `session.log` as
        `create` does."""
        ...

    async def update(self, handle: str, session: Session, secrets: SessionSecrets) -> bool:
        """Refresh: writes the record if it is there at revision `session.revision`, and bumps that. The idle
        time does not begin anew, but is cut to `session.idle` from now on."""
        ...

    async def touch(self, handle: str, seen: Seen | None = None) -> bool:
        """Starts the idle time anew and notes where; False if the session is gone."""
        ...

    async def end(self, handle: str) -> bool:
        """Ends the whole session, all its handles; True if there was one."""
        ...


class OneTimeStore(Protocol):
    """Small secrets that are taken once: sign-in transactions and tickets. Values are encrypted at rest."""

    async def put(self, kind: str, key: str, value: bytes, ttl: float) -> None: ...

    async def take(self, kind: str, key: str) -> bytes | None:
        """Answers and forgets, atomically."""
        ...

    async def claim(self, kind: str, key: str, ttl: float) -> bool:
        """True for the first who claims `key` within `ttl` seconds, False for everybody after: replays."""
        ...


class Locks(Protocol):
    """Short locks across all workers."""

    async def acquire(self, name: str, ttl: float) -> str | None:
        """A fencing token, or None if somebody else holds it."""
        ...

    async def release(self, name: str, token: str) -> None: ...


class HandleSigner(Protocol):
    """The cookie's outside: a signed handle. Forged ones are refused without touching the store."""

    def seal(self, handle: str) -> str: ...

    def open(self, value: str) -> str | None: ...


class AssertionSigner(Protocol):
    """Signs identity assertions; `jwks` is the public set, old keys included while they overlap."""

    def sign(self, claims: Mapping[str, JSON]) -> str: ...

    def jwks(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token endpoint answered; never shown in a repr."""

    id_token: str | None = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_in: float | None = None


class IdentityProvider(Protocol):
    """One configured OpenID provider.

    Network trouble is `WorldError(PROVIDER_UNAVAILABLE)`; an answer that breaks a rule is a `ClientError`
    with a `LOGIN_*` reason. `verify` checks the signature and form of an ID token and answers its raw claims;
    the claims themselves are judged by `core.claims`. `verify_logout` does so for a logout token, with the
    reason `LOGOUT_TOKEN`; `core.logout` judges its claims. Each refuses what says it is of the other type.
    """

    name: str
    issuer: str
    client_id: str

    async def authorization_url(
        self,
        *,
        redirect_uri: str,
        state: str,
        nonce: str,
        code_verifier: str,
        acr_values: Sequence[str] = (),
        max_age: int | None = None,
        prompt: str | None = None,
        login_hint: str | None = None,
        claims: str | None = None,
    ) -> str:
        """Where to send the browser. `claims` is the JSON of OpenID Connect Core 5.5."""
        ...

    async def requires_iss_parameter(self) -> bool: ...

    async def exchange(self, *, code: str, code_verifier: str, redirect_uri: str) -> Tokens: ...

    async def refresh(self, refresh_token: str) -> Tokens: ...

    async def verify(self, id_token: str) -> dict[str, JSON]: ...

    async def verify_logout(self, token: str) -> dict[str, JSON]: ...

    async def userinfo(self, access_token: str) -> dict[str, JSON] | None:
        """The userinfo claims, or None when not configured to ask."""
        ...

    async def end_session_url(self, *, id_token_hint: str | None, return_to: str) -> str | None: ...
