"""The two answers of a verification: `VerifiedIdentity`, or `AssertionRejected` with its reason.

The reason comes from a closed list and is for the application's own log. The middlewares never show it to the
client, who could use it to learn how far a forgery came.
"""

from dataclasses import dataclass
from enum import StrEnum


class Rejection(StrEnum):
    """Why an assertion was not accepted."""

    MISSING = "missing"
    DUPLICATED = "duplicated"
    SIZE = "size"
    FORMAT = "format"
    HEADER = "header"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    KEYS_UNAVAILABLE = "keys_unavailable"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"


class AssertionRejected(Exception):
    """The request carries no assertion that this application may trust.

    Every reason but one is the caller's doing (401); `KEYS_UNAVAILABLE` means that the key set could not be
    fetched, which is nobody's proof of anything (503).
    """

    def __init__(self, reason: Rejection) -> None:
        super().__init__(f"assertion rejected: {reason.value}")
        self.reason = reason


class FetchNeeded(Exception):
    """`verify(token, may_fetch=False)` would have to fetch the key set: call again where it may block."""


@dataclass(frozen=True, slots=True)
class VerifiedIdentity:
    """Who is calling, in the words of the claims. Times are seconds since the epoch.

    `iss`, `aud`, `sub`, `jti`, `iat` and `exp` are always there; `groups` and `amr` are empty where unknown,
    and the others `None`. Key what you store on `(idp, sub)`: an e-mail address can be given to someone else
    later.
    """

    iss: str
    aud: str
    sub: str
    jti: str
    iat: int
    exp: int
    sid: str | None = None
    email: str | None = None
    name: str | None = None
    preferred_username: str | None = None
    groups: tuple[str, ...] = ()
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
    idp: str | None = None
    device: str | None = None
    scope: str | None = None
