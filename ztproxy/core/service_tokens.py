"""What a service shows, judged: a bearer token whose signature was verified, or a certificate that was.

Knows: RFC 9068 4 and RFC 8725, and where we are stricter. Promises: six checks for a token: its signature (by
whoever calls, `adapters.service_tokens`), `iss`, `aud`, `exp`, `nbf` with `iat`, and what it may do (scopes
and roles); a token made for something else (an ID token, a logout token) is none of these; a value of the
wrong kind is never coerced. Who passes gets a `Session` that is never stored. Leaves to its caller: the
session's `as_of` (`LockBook.as_of`), and whether a token that is bound to a certificate came with it.

A refusal is `ClientError(TOKEN_INVALID)`, its message beginning with the claim's name, and
`ClientError(SCOPE_MISSING)` for a good token that does not cover this. Both are for the log; who sent it is
told the reason alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

from ztproxy.core.assurance import Levels
from ztproxy.core.certificate import Certificate
from ztproxy.core.claims import ClaimRules, Claims, describe
from ztproxy.core.identity import JSON, Credential, Identity, Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request
from ztproxy.core.routes import Services
from ztproxy.core.spiffe import matches
from ztproxy.errors import ClientError

MAX_TOKEN = 16384  # octets; a token is sent with each request, and a longer one is refused before it is read
_LATEST = 2.0**40  # a time stamp beyond this (the year 36812) is no time stamp
_MAX_SCOPES = 1000
_SUBJECT = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")
_TEXT = re.compile(r"[ -~]{1,255}")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,255}")  # RFC 6749 3.3
# Claims by which another kind of token of the same issuer gives itself away: an ID token (Core 2, 3.3.2.11),
# a logout token (Back-Channel Logout 2.4). Each would have the right issuer and signature.
_OF_OTHERS = ("nonce", "at_hash", "c_hash", "s_hash", "events")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What the tokens of one issuer must be. `name` is the issuer's in the configuration.

    The names of claims may be dotted (`realm_access.roles`). `keep` are further claims for the policy. `skew`
    is seconds. `remembered` is for how many seconds a revocation is: a token that was issued longer ago could
    have outlived one, and is refused.
    """

    name: str
    issuer: str
    roles_claim: str = "roles"
    scopes_claim: str = "scope"
    keep: tuple[str, ...] = ()
    skew: float = 60.0
    remembered: float = 43200.0
    levels: Levels = field(default_factory=Levels)


def shows_bearer(request: Request, services: Services) -> bool:
    """Whether a request shows a bearer token that counts here, well-formed or not."""
    shown = request.authorization
    return shown is not None and bool(services.issuers) and shown[:6].lower() == b"bearer"


def issuer_named_in(token: str) -> str | None:
    """The `iss` in the claims of a compact token, nothing of it verified, or None.

    Good for one thing: to choose by which issuer's rules the token is to be refused or accepted.
    """
    if len(token) > MAX_TOKEN:
        return None
    try:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        issuer = claims.get("iss")
    except (ValueError, IndexError, AttributeError, RecursionError):
        return None
    return issuer if isinstance(issuer, str) else None


def judge_token(rules: TokenRules, services: Services, claims: Claims, now: float) -> Session:
    """The session of a service whose token holds for `services` at `now`, in seconds since the epoch.

    RFC 9068 2.2 requires `iat`, and we do of every token: without it nobody could tell whether a revocation
    came before it or after. `Session.certificate` is that of its `cnf` (RFC 8705 3.1). Its `acr`, `amr` and
    `auth_time` are those of the person who delegated it, if one did (RFC 9068 2.2.1, RFC 9470 6.1).
    """
    if claims.get("iss") != rules.issuer:
        raise _refuse("iss: not the issuer that was chosen")
    for name in _OF_OTHERS:
        if name in claims:
            raise _refuse(f"{name}: a token of another kind")
    _for(services, claims)
    issued, expires = _timely(rules, services, claims, now)
    authenticated = _moment(claims, "auth_time") if "auth_time" in claims else issued
    if authenticated > now + rules.skew:
        raise _refuse("auth_time: in the future")
    identity = _identity(rules, claims)
    scopes = _scopes(rules, claims)
    if not services.scopes <= scopes:
        raise ClientError(Reason.SCOPE_MISSING, f"{rules.scopes_claim}: a scope is missing")
    if services.roles and services.roles.isdisjoint(identity.groups):
        raise ClientError(Reason.SCOPE_MISSING, f"{rules.roles_claim}: no role that may come here")
    acr, amr = _text(claims, "acr"), _amr(claims)
    return Session(
        id=_public_id(identity, claims),
        identity=identity,
        provider=rules.name,
        created_at=min(issued, now),
        authenticated_at=min(authenticated, now),
        verified_at=min(issued, now),
        expires_at=expires,
        acr=acr,
        amr=amr,
        rank=rules.levels.rank(acr, amr),
        idp_session=_text(claims, "sid"),
        certificate=_confirmation(claims),
        by=Credential.TOKEN,
        scopes=scopes,
    )


def certificate_session(
    services: Services, certificate: Certificate, now: float, device: str | None = None
) -> Session | Reason:
    """The session of a service that showed a certificate with an accepted SPIFFE ID, else why not.

    The handshake proved the key just now, and the certificate was judged at `now`, so that it was verified
    and authenticated then. `device` is the id of the device it belongs to, if any.

    INVARIANT: its `as_of` is to be that of `not_before`. A lock on the principal ends every certificate that
    was issued before it, and passes one that was issued after.
    """
    principal = certificate.spiffe
    if principal is None or not any(matches(pattern, principal) for pattern in services.spiffe):
        return Reason.SERVICE_MISMATCH
    domain = "/".join(principal.split("/")[:3])
    return Session(
        id="c-" + _digest([certificate.thumbprint]),
        identity=Identity(domain, principal),
        provider=certificate.authority,
        created_at=certificate.not_before,
        authenticated_at=now,
        verified_at=now,
        expires_at=certificate.not_after,
        device=certificate.device if device is None else device,
        certificate=certificate.thumbprint,
        by=Credential.CERTIFICATE,
    )


def _refuse(message: str) -> ClientError:
    return ClientError(Reason.TOKEN_INVALID, message)


def _for(services: Services, claims: Claims) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    # Whole strings only: `in` on a text is a test for a part of it.
    if not all(isinstance(one, str) for one in audiences) or services.audience not in audiences:
        raise _refuse("aud: not for this service")
    if not services.audience:
        raise _refuse("aud: this route names none")


def _timely(rules: TokenRules, services: Services, claims: Claims, now: float) -> tuple[float, float]:
    """When it was issued, and the moment at which it ends here: it is refused from then on, not after."""
    issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
    if issued > now + rules.skew:
        raise _refuse("iat: issued in the future")
    if expires < issued or now >= expires + rules.skew:
        raise _refuse("exp: expired")
    if "nbf" in claims and _moment(claims, "nbf") > now + rules.skew:
        raise _refuse("nbf: not valid yet")
    if now >= issued + rules.remembered:
        raise _refuse("iat: issued longer ago than revocations are remembered")
    ends = min(expires + rules.skew, issued + rules.remembered)
    if services.token_within is not None:
        ends = min(ends, issued + services.token_within)
    if now >= ends:
        raise _refuse("iat: issued too long ago for this service")
    return issued, ends


def _moment(claims: Claims, name: str) -> float:
    value = claims.get(name)
    # `bool` is an `int` to Python and not to JSON; a NaN fails every comparison.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise _refuse(f"{name}: missing or no time")
    return float(value)


def _text(claims: Claims, name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise _refuse(f"{name}: malformed")
    return value


def _amr(claims: Claims) -> tuple[str, ...]:
    methods = claims.get("amr", [])
    if not isinstance(methods, list):
        raise _refuse("amr: malformed")
    texts = tuple(one for one in methods if isinstance(one, str) and _TEXT.fullmatch(one))
    if len(texts) != len(methods) or len(texts) > 32:
        raise _refuse("amr: malformed")
    return texts


def _identity(rules: TokenRules, claims: Claims) -> Identity:
    subject = claims.get("sub")
    # RFC 9068 2.2 requires it. ASCII without controls, as in an ID token: it stands in headers and logs.
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise _refuse("sub: missing or malformed")
    wanted = ClaimRules(rules.issuer, "", groups_claim=rules.roles_claim, keep=rules.keep)
    try:
        return describe(wanted, subject, claims, None, [])
    except ClientError as refusal:  # the address
        raise _refuse(str(refusal)) from refusal


def _scopes(rules: TokenRules, claims: Claims) -> frozenset[str]:
    """RFC 8693 4.2: one text with spaces between; some issuers write a list."""
    value = _at(claims, rules.scopes_claim)
    if value is None or value == "":
        return frozenset()
    listed = value.split(" ") if isinstance(value, str) else value
    if not isinstance(listed, list) or len(listed) > _MAX_SCOPES:
        raise _refuse(f"{rules.scopes_claim}: malformed")
    scopes = frozenset(one for one in listed if isinstance(one, str) and _SCOPE.fullmatch(one))
    if not all(isinstance(one, str) and one in scopes for one in listed):
        raise _refuse(f"{rules.scopes_claim}: malformed")
    return scopes


def _at(claims: Claims, name: str) -> JSON:
    """The claim of that name, or at that dotted path."""
    if name in claims:
        return claims[name]
    found: JSON = dict(claims)
    for step in name.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _confirmation(claims: Claims) -> str | None:
    """The certificate a token is bound to. One that is bound to anything else (DPoP's `jkt`) is no bearer
    token: whoever stole it must not get in because nobody here can check what it is bound to."""
    if "cnf" not in claims:
        return None
    bound = claims["cnf"]
    thumbprint = bound.get("x5t#S256") if isinstance(bound, Mapping) and len(bound) == 1 else None
    if not isinstance(thumbprint, str) or not thumbprint:
        raise _refuse("cnf: bound to something that cannot be checked here")
    return thumbprint


def _public_id(identity: Identity, claims: Claims) -> str:
    """The same for each use of a token, and no part of it: it stands in logs, and a lock can name it."""
    jti = _text(claims, "jti")
    which: list[JSON] = [jti] if jti is not None else [identity.subject, claims.get("iat"), claims.get("exp")]
    return "t-" + _digest([identity.issuer, *which])


def _digest(parts: list[JSON]) -> str:
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
