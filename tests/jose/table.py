"""Wycheproof-style vectors for compact JWS and JWKS, of our own making: what is asked of every verifier here.

A `Vector` is a token, the key set that is published while it is shown, and what must come of it: `reason` is
empty where it is valid, and else one word for the first rule it breaks. `vectors.vectors(kind)` makes the
table for one of the four kinds of token that are read here, each around one that is good in all else:

    id       an ID token                    logout   a logout token
    access   the bearer token of a service  app      our own assertion, read by `ztproxy.verify`

Whatever can be is signed well over exactly what is written, so that the rule alone refuses it. The word of a
kind that sees another rule broken first stands in `unlike`: an app reads ES256 and nothing else, so that a
good RS256 token is refused there for its `alg`.

By design valid, though some would refuse it: an ECDSA signature turned from s to n-s (nothing here is told
apart by the bytes of a token: a replay is by `jti`), an RSA exponent of 3 (the padding is compared whole),
and a modulus with a leading zero, which some providers write (RFC 7518 6.3.1.1 asks them not to).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tests.jose.smith import D1, E1, E2, R1, Private, as_json, compact, jwk

Kind = Literal["id", "access", "logout", "app"]
KINDS: tuple[Kind, ...] = ("id", "access", "logout", "app")
NOW = 1_700_000_000
ISSUER, CLIENT, NONCE = "https://op.test", "ztp", "n" * 43
EVENT = "http://schemas.openid.net/event/backchannel-logout"
MOST = 16384

TYP: dict[Kind, str] = {"id": "JWT", "access": "at+jwt", "logout": "logout+jwt", "app": "JWT"}
JWKS = as_json({"keys": [jwk(R1, "r1"), jwk(E1, "e1"), jwk(D1, "d1")]})
SPARE = jwk(E2, "spare")
"""Beside a key that cannot be used, so that the set is one."""


@dataclass(frozen=True, slots=True)
class Vector:
    name: str
    token: str
    reason: str
    jwks: bytes = JWKS


def good_claims(kind: Kind) -> dict[str, Any]:
    claims: dict[str, Any] = {"iss": ISSUER, "aud": CLIENT, "iat": NOW - 1, "exp": NOW + 299, "sub": "alice"}
    if kind == "id":
        return claims | {"nonce": NONCE}
    if kind == "logout":
        return claims | {"jti": "j-1", "events": {EVENT: {}}, "sid": "i-1"}
    return claims | {"jti": "j-1"}


class Table:
    """The vectors of one kind, and the words for making them."""

    def __init__(self, kind: Kind) -> None:
        self.kind, self.claims, self.rows = kind, good_claims(kind), dict[str, Vector]()

    def head(self, alg: Any = "ES256", kid: Any = "e1", **changes: Any) -> dict[str, Any]:
        made = {"alg": alg, "kid": kid, "typ": TYP[self.kind], **changes}
        return {name: value for name, value in made.items() if value is not ...}

    def add(self, name: str, token: str, reason: str = "", jwks: bytes = JWKS, **unlike: str) -> None:
        """`unlike` is what another word is said for, by kind."""
        assert name not in self.rows, name
        self.rows[name] = Vector(name, token, unlike.get(self.kind, reason), jwks)

    def signed(self, key: Private = E1, alg: str = "ES256", kid: str = "e1", **head: Any) -> str:
        return compact(self.head(alg, kid, **head), self.claims, key, alg)


Group = Callable[[Table], None]

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def next_letter(letter: str) -> str:
    """The letter with its lowest bit set: where that bit is spare, the same bytes to a kind reader."""
    return _ALPHABET[_ALPHABET.index(letter) | 1]
