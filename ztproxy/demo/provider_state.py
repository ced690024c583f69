"""What the demo's OpenID provider remembers: people, sessions, codes, tokens and keys. All in memory, no I/O.

It promises that a code works once, that a used refresh token ends its whole family (RFC 9700 §4.14.2), and
that nothing outlives its person: a disabled person's sessions and tokens are worth nothing from that moment.
It takes the time as an argument and leaves HTTP, and the checks of who may ask, to `ztproxy.demo.provider`.

Tests and the demo reach in through `ProviderState`: `set_groups`, `disable`, `rotate_keys`, `faults`, `hits`.
"""

import base64
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from ztproxy.demo.people import METHODS, Method, Person
from ztproxy.demo.webauthn import Credential

T = TypeVar("T")
Algorithm = Literal["ES256", "RS256"]
Endpoint = Literal[
    "discovery",
    "jwks",
    "authorize",
    "sign_in",
    "security_key",
    "security_key_script",
    "token",
    "userinfo",
    "logout",
    "logout_confirmed",
    "home",
]

CODE_SECONDS = 60
ID_TOKEN_SECONDS = 300
SIGN_IN_SECONDS = 1800
BACKCHANNEL_EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True, slots=True)
class Client:
    """An application registered at the provider. All URIs are compared as exact strings (RFC 9700 §4.1.3).

    A service (one with an `audience`) may ask for access tokens in its own name, with any of `scopes`.
    """

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: tuple[str, ...]
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout_uri: str | None = None
    id_token_signed_response_alg: Algorithm = "ES256"
    audience: str = ""
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """How an endpoint misbehaves: after `delay` seconds it answers with `status` and `body`, or as usual."""

    delay: float = 0.0
    status: int | None = None
    body: str = ""
    content_type: str = "text/plain"


@dataclass(slots=True)
class SSOSession:
    """A browser signed in at the provider. A step-up keeps `sid` and changes the cookie that names it."""

    sid: str
    username: str
    method: Method
    auth_time: int
    clients: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request that passed every check and may be answered at `redirect_uri`."""

    client: Client
    redirect_uri: str
    scope: tuple[str, ...]
    code_challenge: str
    state: str | None
    nonce: str | None
    prompt: frozenset[str]
    max_age: int | None
    acr_values: tuple[str, ...]
    login_hint: str | None
    hinted_sub: str | None


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """A sign-in page that was shown; only the browser it was shown to may send it back."""

    request: AuthorizationRequest
    browser: str
    expires: float


class KeyQuestion(NamedTuple):
    """What a security key was asked on a sign-in page: to use a key, or to make one."""

    username: str
    challenge: str
    registers: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody's sign-in gave to a client: the content of a code, and of the tokens made from it."""

    family: str
    client_id: str
    username: str
    sid: str
    scope: tuple[str, ...]
    acr: str
    amr: tuple[str, ...]
    auth_time: int
    nonce: str | None
    redirect_uri: str
    code_challenge: str


class Expiring(NamedTuple):
    """A grant under a code or an access token, until a moment."""

    grant: Grant
    expires: float


class SigningKey(NamedTuple):
    kid: str
    algorithm: Algorithm
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    def public_jwk(self) -> dict[str, Any]:
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            jwk = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            jwk = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        # pyjwt states `key_ops`; RFC 7517 §4.3 asks to use that or `use`, not both.
        jwk.pop("key_ops", None)
        return {**jwk, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


class ProviderState:
    """Everything the provider knows. One event loop may use it."""

    def __init__(
        self,
        issuer: str,
        clients: Sequence[Client],
        people: Sequence[Person],
        clock: Callable[[], float],
    ) -> None:
        self.issuer = issuer
        self.clock = clock
        self.clients = {client.client_id: client for client in clients}
        self.people = {person.username: person for person in people}
        self.disabled: set[str] = set()
        self.faults: dict[Endpoint, Fault] = {}
        self.hits: Counter[str] = Counter()
        self.alter_id_token: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self.access_token_seconds = 300
        self.max_kept = 10_000
        self.sessions: dict[str, SSOSession] = {}
        self.pending: dict[str, PendingSignIn] = {}
        self.security_keys: dict[str, dict[str, Credential]] = {}
        self._questions: dict[str, KeyQuestion] = {}
        self._codes: dict[str, Expiring] = {}
        self._access: dict[str, Expiring] = {}
        self._refresh: dict[str, Grant] = {}
        self._spent: dict[str, str] = {}
        # An RSA key takes a fifth of a second to find, so there is one only where a client wants it.
        wanted = {client.id_token_signed_response_alg for client in clients}
        self.algorithms: list[Algorithm] = ["ES256", "RS256"] if "RS256" in wanted else ["ES256"]
        self._keys: list[SigningKey] = []
        self.rotate_keys()

    # People

    def set_groups(self, username: str, *groups: str) -> None:
        """From now on `username` is in these groups; the next token and userinfo answer say so."""
        self.people[username] = replace(self.people[username], groups=groups)

    def disable(self, username: str) -> None:
        """Signs `username` out everywhere at the provider and lets them in no more. Clients are not told."""
        self.disabled.add(username)
        for handle in [h for h, session in self.sessions.items() if session.username == username]:
            del self.sessions[handle]
        self._forget(lambda grant: grant.username == username)

    def enable(self, username: str) -> None:
        self.disabled.discard(username)

    # Keys

    def rotate_keys(self, *, withdraw_old: bool = False) -> None:
        """Signs with fresh keys from now on; the old ones stay published unless withdrawn."""
        if withdraw_old:
            self._keys.clear()
        self._keys += [_new_key(algorithm) for algorithm in self.algorithms]

    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.public_jwk() for key in self._keys]}

    def sign(self, claims: Mapping[str, Any], algorithm: Algorithm, typ: str = "JWT") -> str:
        key = next(key for key in reversed(self._keys) if key.algorithm == algorithm)
        return jwt.encode(dict(claims), key.private, algorithm, headers={"kid": key.kid, "typ": typ})

    def read_hint(self, id_token: str) -> dict[str, Any] | None:
        """The claims of an ID token of ours, expired or not (it is a hint), or `None`."""
        try:
            header = jwt.get_unverified_header(id_token)
            key = next(key for key in self._keys if key.kid == header.get("kid"))
            claims = jwt.decode(
                id_token,
                key.private.public_key(),
                [key.algorithm],
                issuer=self.issuer,
                options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
            )
        except (jwt.InvalidTokenError, StopIteration):
            return None
        return claims

    # The provider's own sessions

    def session(self, handle: str | None) -> SSOSession | None:
        return self.sessions.get(handle) if handle else None

    def sign_in(self, old_handle: str | None, username: str, method: Method) -> str:
        """The handle of the session after `username` signed in; the old handle is worth nothing from here on.

        A step-up of the same person keeps the session (`sid`); anyone else gets one of their own.
        """
        old = self.sessions.pop(old_handle, None) if old_handle else None
        if old is not None and old.username != username:
            self.revoke_session(old)
            old = None
        session = old or SSOSession(secrets.token_urlsafe(16), username, method, 0)
        session.method, session.auth_time = method, int(self.clock())
        handle = secrets.token_urlsafe(32)
        self._room_in(self.sessions)[handle] = session
        return handle

    def sign_out(self, handle: str) -> SSOSession | None:
        """Ends the session and the tokens that came of it; what is left is to tell its clients."""
        session = self.sessions.pop(handle, None)
        if session is not None:
            self.revoke_session(session)
        return session

    def revoke_session(self, session: SSOSession) -> None:
        self._forget(lambda grant: grant.sid == session.sid)

    def logout_token(self, client: Client, session: SSOSession) -> str:
        """The token that tells `client` of the end of a session (OpenID Connect Back-Channel Logout §2.4)."""
        now = int(self.clock())
        claims = {
            "iss": self.issuer,
            "aud": client.client_id,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_urlsafe(16),
            "sub": self.people[session.username].sub,
            "sid": session.sid,
            "events": {BACKCHANNEL_EVENT: {}},
        }
        return self.sign(claims, client.id_token_signed_response_alg, "logout+jwt")

    # Sign-in pages that were shown

    def await_sign_in(self, request: AuthorizationRequest, browser: str) -> str:
        name = secrets.token_urlsafe(16)
        self._room_in(self.pending)[name] = PendingSignIn(request, browser, self.clock() + SIGN_IN_SECONDS)
        return name

    def pending_sign_in(self, name: str, browser: str | None) -> PendingSignIn | None:
        pending = self.pending.get(name)
        if pending is None or pending.browser != browser or pending.expires < self.clock():
            return None
        return pending

    # Security keys

    def security_keys_of(self, username: str) -> tuple[Credential, ...]:
        return tuple(self.security_keys.get(username, {}).values())

    def keep_key(self, username: str, key: Credential) -> None:
        self.security_keys.setdefault(username, {})[key.id] = key

    def ask_key(self, sign_in: str, question: KeyQuestion) -> None:
        self._room_in(self._questions)[sign_in] = question

    def asked_key(self, sign_in: str) -> KeyQuestion | None:
        """What was asked last on this sign-in page; it can be answered once."""
        return self._questions.pop(sign_in, None)

    # Codes and tokens

    def issue_code(self, request: AuthorizationRequest, session: SSOSession) -> str:
        session.clients.add(request.client.client_id)
        code = secrets.token_urlsafe(32)
        grant = Grant(
            family=secrets.token_hex(16),
            client_id=request.client.client_id,
            username=session.username,
            sid=session.sid,
            scope=request.scope,
            acr=session.method.acr,
            amr=session.method.amr,
            auth_time=session.auth_time,
            nonce=request.nonce,
            redirect_uri=request.redirect_uri,
            code_challenge=request.code_challenge,
        )
        self._room_in(self._codes)[code] = Expiring(grant, self.clock() + CODE_SECONDS)
        return code

    def spend_code(self, code: str, client: Client, redirect_uri: str | None, verifier: str) -> Grant | None:
        """The grant under `code`, once; `None` for any reason not to honour it.

        RFC 6749 §4.1.2: a second use takes back what the first one gave. A client for which the code was not
        made cannot spoil it for the one it was made for.
        """
        held = self._codes.get(code)
        if held is None:
            self._end_family(self._spent.get(code), client)
            return None
        if held.grant.client_id != client.client_id:
            return None
        del self._codes[code]
        self._room_in(self._spent)[code] = held.grant.family
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        matches = secrets.compare_digest(challenge, held.grant.code_challenge)
        if held.expires < self.clock() or redirect_uri != held.grant.redirect_uri or not matches:
            return None
        return held.grant if held.grant.username not in self.disabled else None

    def spend_refresh_token(self, token: str, client: Client) -> Grant | None:
        """The grant under a refresh token, once. A second use ends the family: one of the two stole it."""
        grant = self._refresh.get(token)
        if grant is None:
            self._end_family(self._spent.get(token), client)
            return None
        if grant.client_id != client.client_id:
            return None
        del self._refresh[token]
        self._room_in(self._spent)[token] = grant.family
        return grant

    def issue_tokens(self, grant: Grant, *, nonce: str | None) -> dict[str, Any]:
        """A token response (RFC 6749 §5.1, OpenID Connect Core §3.1.3.3), with a fresh refresh token.

        A refresh token comes with every grant: a client that keeps a session needs to ask again whether the
        person still is who they were. It dies with the session at the provider.
        """
        client = self.clients[grant.client_id]
        access, refresh = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = int(self.clock())
        self._room_in(self._access)[access] = Expiring(grant, now + self.access_token_seconds)
        self._room_in(self._refresh)[refresh] = grant
        half_hash = hashlib.sha256(access.encode()).digest()[:16]  # Core §3.1.3.6
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": grant.client_id,
            "iat": now,
            "exp": now + ID_TOKEN_SECONDS,
            "auth_time": grant.auth_time,
            "acr": grant.acr,
            "amr": list(grant.amr),
            "sid": grant.sid,
            "at_hash": base64.urlsafe_b64encode(half_hash).rstrip(b"=").decode(),
            **self.personal_claims(grant),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        if self.alter_id_token is not None:
            claims = self.alter_id_token(claims)
        return {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.access_token_seconds,
            "refresh_token": refresh,
            "id_token": self.sign(claims, client.id_token_signed_response_alg),
            "scope": " ".join(grant.scope),
        }

    def issue_service_token(self, client: Client, scope: tuple[str, ...]) -> dict[str, Any]:
        """An access token in a service's own name (RFC 6749 §4.4.3), as RFC 9068 §2 writes it."""
        now = int(self.clock())
        claims = {
            "iss": self.issuer,
            "aud": client.audience,
            "sub": client.client_id,
            "client_id": client.client_id,
            "iat": now,
            "exp": now + self.access_token_seconds,
            "jti": secrets.token_urlsafe(16),
            "scope": " ".join(scope),
        }
        return {
            "access_token": self.sign(claims, "ES256", "at+jwt"),
            "token_type": "Bearer",
            "expires_in": self.access_token_seconds,
            "scope": claims["scope"],
        }

    def personal_claims(self, grant: Grant) -> dict[str, Any]:
        """What the granted scopes tell of the person, as of now."""
        person = self.people[grant.username]
        claims: dict[str, Any] = {"sub": person.sub}
        if "email" in grant.scope:
            claims |= {"email": person.email, "email_verified": True}
        if "profile" in grant.scope:
            claims |= {"name": person.name, "preferred_username": person.username}
        if "profile" in grant.scope or "groups" in grant.scope:
            claims["groups"] = list(person.groups)
        return claims

    def access_grant(self, token: str) -> Grant | None:
        held = self._access.get(token)
        return held.grant if held is not None and held.expires >= self.clock() else None

    def _room_in(self, kept: dict[str, T]) -> dict[str, T]:
        """`kept` with room for one more: a dictionary keeps its order, so the oldest goes first."""
        while len(kept) >= self.max_kept:
            del kept[next(iter(kept))]
        return kept

    def _end_family(self, family: str | None, client: Client) -> None:
        if family is not None:
            self._forget(lambda grant: grant.family == family and grant.client_id == client.client_id)

    def _forget(self, of: Callable[[Grant], bool]) -> None:
        self._codes = {code: held for code, held in self._codes.items() if not of(held.grant)}
        self._access = {token: held for token, held in self._access.items() if not of(held.grant)}
        self._refresh = {token: grant for token, grant in self._refresh.items() if not of(grant)}


def _new_key(algorithm: Algorithm) -> SigningKey:
    kid = f"{algorithm.lower()}-{secrets.token_hex(4)}"
    if algorithm == "RS256":
        return SigningKey(kid, algorithm, rsa.generate_private_key(65537, 2048))
    return SigningKey(kid, algorithm, ec.generate_private_key(ec.SECP256R1()))


def rank(acr: str) -> int | None:
    """The place of `acr` among the demo's methods, from 0; `None` for one the demo does not know."""
    return next((place for place, method in enumerate(METHODS) if method.acr == acr), None)
