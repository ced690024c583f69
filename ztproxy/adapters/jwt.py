"""JOSE: signing our assertions, and reading the compact tokens of others without trusting a word of them.

Knows: the compact form (RFC 7515 §7.1), strict JSON, JWKS (RFC 7517), and PyJWT as the signature primitive.
Promises: a token is looked at in this order, each step before the next one costs anything: size, header,
form; then one key, found by exact `kid`, and one algorithm, fixed beforehand. Every refusal is
`ClientError(LOGIN_TOKEN)` with a short code: `size format json header alg typ kid sig jwks`. Leaves to the
caller: fetching key sets, and all claims (`core.claims`).

Stricter than the RFCs: a header may hold `alg`, `kid` and `typ` and nothing else, but for what a caller names
as not looked at. `jwk`, `jku`, `x5u` and `x5c` let the token choose its own key; `crit` and `b64` change what
was signed.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ztproxy.adapters.keys import AssertionKey
from ztproxy.core.identity import JSON
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError

ALGORITHMS: Final = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
ID_TOKEN_TYPES: Final = frozenset({"JWT", "application/jwt"})
# Back-Channel Logout 2.4 recommends the first; older providers write what they write on every token. What the
# two kinds have in common here, `core.logout` and `core.claims` tell apart by `events` and `nonce`.
LOGOUT_TOKEN_TYPES: Final = frozenset({"logout+jwt", "application/logout+jwt", "JWT"})
MAX_TOKEN_BYTES: Final = 16384
MAX_KEYS: Final = 64
_MAX_DEPTH = 32
_MAX_DIGITS = 20
_MAX_KID = 256
_HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ASSERTION_TYPES = frozenset({"JWT"})
_SKEW = 30
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
# Ed25519 (RFC 8032 5.1): the y coordinates of the eight points whose order divides 8. Under such a key a
# signature over any message is found by trying a few, without any secret; RFC 8032 leaves them in, and so
# does OpenSSL. An all-zero key, which is what an export that failed looks like, is among them.
_ED25519_PRIME = 2**255 - 19
_ED25519_EIGHTH = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_ED25519_SMALL = frozenset({0, 1, _ED25519_PRIME - 1, _ED25519_EIGHTH, _ED25519_PRIME - _ED25519_EIGHTH})

_log = logging.getLogger("ztproxy.jose")

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


# ── our own assertions ──


class AssertionJWTs:
    """Fulfils `AssertionSigner`: signs with the first key, publishes the public half of all."""

    def __init__(self, keys: Sequence[AssertionKey]) -> None:
        self._current = keys[0]
        self._jwks: dict[str, Any] = {"keys": [_public_jwk(key) for key in keys]}

    def sign(self, claims: Mapping[str, JSON]) -> str:
        key = self._current
        return jwt.encode(dict(claims), key.private, "ES256", {"kid": key.kid, "typ": "JWT"})

    def jwks(self) -> dict[str, Any]:
        return self._jwks


class AssertionVerifier:
    """Knows an assertion of our own again, for a page of ours that is reached through ztproxy itself."""

    def __init__(self, keys: Sequence[AssertionKey]) -> None:
        self._keys = usable_keys({"keys": [_public_jwk(key) for key in keys]})

    def verify(self, assertion: str, audience: str, now: float) -> dict[str, JSON] | None:
        """The claims of an assertion made for `audience` and good at `now`; None for anything else."""
        try:
            claims = claims_of(decode_compact(assertion, types=_ASSERTION_TYPES), "ES256", self._keys)
        except ClientError:
            return None
        expires, issued = claims.get("exp"), claims.get("iat")
        if claims.get("aud") != audience or not isinstance(expires, int) or not isinstance(issued, int):
            return None
        # One clock made it and reads it, or one kept in step with it: a little is allowed, as apps are told.
        return claims if issued - _SKEW <= now < expires + _SKEW else None


def _public_jwk(key: AssertionKey) -> dict[str, Any]:
    numbers = key.private.public_key().public_numbers()
    # RFC 7518 §6.2.1.2: the coordinates are always 32 bytes, with their leading zeros.
    x, y = (_encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": key.kid, "use": "sig", "alg": "ES256"}


# ── the tokens of others ──


class Compact(NamedTuple):
    """A token taken apart, nothing of it verified."""

    header: dict[str, JSON]
    payload: bytes
    signing_input: bytes
    signature: bytes


def decode_compact(
    token: str,
    *,
    max_size: int = MAX_TOKEN_BYTES,
    types: Collection[str] | None = ID_TOKEN_TYPES,
    unread: Collection[str] = (),
) -> Compact:
    """`token` in its parts. `types` are the values `typ` may have, as they are written; it may always be
    absent. None leaves `typ` to the caller. `unread` are further members its header may have.

    A token of another type (`logout+jwt`, `at+jwt`) signed by the same provider must not pass for this one.
    """
    if len(token) > max_size:
        raise _refused("size")
    segments = token.split(".")
    if len(segments) != 3:
        raise _refused("format")
    header = read_object(_decode(segments[0]))
    if any(name not in _HEADER_MEMBERS and name not in unread for name in header):
        raise _refused("header")
    alg, kid, typ = header.get("alg"), header.get("kid", ""), header.get("typ", "")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise _refused("alg")
    if not isinstance(kid, str) or len(kid) > _MAX_KID:
        raise _refused("header")
    if "typ" in header and not (isinstance(typ, str) and (types is None or typ in types)):
        raise _refused("typ")
    payload, signature = _decode(segments[1]), _decode(segments[2])
    return Compact(header, payload, token.rpartition(".")[0].encode("ascii"), signature)


def read_object(raw: bytes) -> dict[str, JSON]:
    """The JSON object in `raw`; code `json` for anything that two readers could read differently.

    Stricter than RFC 8259: no name twice (§4 leaves open which of two `sub` counts), no NaN or infinity, no
    lone surrogates, at most 20 digits to an integer, at most 32 levels.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_each_name_once,
            parse_constant=_no_constant,
            parse_int=_short_integer,
            parse_float=_finite,
        )
        _plain(value, _MAX_DEPTH)
    except (ValueError, RecursionError):
        raise _refused("json") from None
    if not isinstance(value, dict):
        raise _refused("json")
    return value


def check_signature(compact: Compact, key: UsableKey, alg: str) -> None:
    """Refuses it unless `key` signed it with `alg`, which the caller fixed before seeing the token. Codes:
    `alg` where header or key are for another algorithm, and `sig`."""
    if compact.header["alg"] != alg or alg not in key.algorithms:
        raise _refused("alg")
    # ES256 in DER, or of any length but 64 bytes, is False here, as RFC 7518 §3.4 asks.
    algorithm = jwt.get_algorithm_by_name(alg)
    if not algorithm.verify(compact.signing_input, key.public, compact.signature):
        raise _refused("sig")


def claims_of(compact: Compact, alg: str, keys: Mapping[str | None, UsableKey]) -> dict[str, JSON]:
    """The claims of a token that was taken apart, if the one key it may be signed with signed it. Codes:
    those of `choose_key`, `check_signature` and `read_object`."""
    kid = compact.header.get("kid")
    check_signature(compact, choose_key(keys, kid if isinstance(kid, str) else None, alg), alg)
    return read_object(compact.payload)


# ── key sets ──


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A public key and the algorithms of ours it may verify."""

    public: PublicKey = field(repr=False)
    algorithms: frozenset[str]


def usable_keys(jwks: Mapping[str, Any]) -> dict[str | None, UsableKey]:
    """The keys of a JWKS that may verify a token, by `kid`; None is the name of one without.

    Left out: symmetric keys, keys that show a private member (then everyone has them), keys for another use,
    operation or algorithm, keys that are weak or no keys at all. A `kid` given twice makes *all* its keys
    unusable, whatever else they are: which of them is meant would depend on the order. Code `jwks` when the
    document is no key set or holds more than 64 keys, so that the caller can keep the last good one.
    """
    listed = jwks.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise _refused("jwks")
    usable: dict[str | None, UsableKey] = {}
    seen: set[str | None] = set()
    for jwk in listed:
        kid = jwk.get("kid") if isinstance(jwk, dict) else None
        if not isinstance(jwk, dict) or not (kid is None or isinstance(kid, str)):
            continue
        key = _usable(jwk)
        if kid is None and key is None:
            continue  # an unnamed key that could never be chosen cannot be confused with another
        if kid in seen:
            _log.warning("a key set names two keys `%s`, neither is used", str(kid)[:64])
            usable.pop(kid, None)
            continue
        seen.add(kid)
        if key is not None:
            usable[kid] = key
    return usable


def choose_key(keys: Mapping[str | None, UsableKey], kid: str | None, alg: str) -> UsableKey:
    """The key for a token: by exact `kid`, or, where it has none, the only one for `alg`. Code `kid`.

    Never "try them all": a token that names one key and is signed by another is not what it says.
    """
    if kid is not None:
        key = keys.get(kid)
        if key is None:
            raise _refused("kid")
        return key
    fitting = [key for key in keys.values() if alg in key.algorithms]
    if len(fitting) != 1:
        raise _refused("kid")
    return fitting[0]


def _usable(jwk: dict[str, Any]) -> UsableKey | None:
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        _log.warning("a key set shows a private or symmetric key, it is not used")
        return None
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        public, fitting = _public_key(jwk)
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm, ClientError):
        return None
    algorithms = frozenset(alg for alg in fitting if jwk.get("alg", alg) == alg)
    return UsableKey(public, algorithms) if algorithms else None


def _public_key(jwk: dict[str, Any]) -> tuple[PublicKey, frozenset[str]]:
    """The key and the algorithms it can be for; raises what its callers catch when it is no such key."""
    match jwk.get("kty"), jwk.get("crv"):
        case "RSA", None:
            n, e = (int.from_bytes(_decode(jwk[name]), "big") for name in ("n", "e"))
            # RFC 7518 §3.3 wants 2048 bits at least; above 8192, or with a long exponent, one verification
            # takes milliseconds that the provider would choose and we would pay.
            if not 2048 <= n.bit_length() <= 8192 or not 3 <= e < 2**32 or n % 2 == 0:
                raise ValueError
            return rsa.RSAPublicNumbers(e, n).public_key(), frozenset({"RS256", "PS256"})
        case "EC", "P-256":
            x, y = _decode(jwk["x"]), _decode(jwk["y"])
            if len(x) != 32 or len(y) != 32:
                raise ValueError
            # Refuses a point that is not on the curve.
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
            return point, frozenset({"ES256"})
        case "OKP", "Ed25519":
            raw = _decode(jwk["x"])
            height = int.from_bytes(raw, "little") % 2**255
            # RFC 8032 5.1.3: a y that is not below the prime is no key. OpenSSL reduces it.
            if height >= _ED25519_PRIME or height in _ED25519_SMALL:
                raise ValueError
            return ed25519.Ed25519PublicKey.from_public_bytes(raw), frozenset({"EdDSA"})
    raise ValueError


# ── small strictness ──


def _refused(code: str) -> ClientError:
    return ClientError(Reason.LOGIN_TOKEN, code)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(segment: Any) -> bytes:
    """base64url without padding; code `format` for a second spelling of the same bytes."""
    if not isinstance(segment, str) or not _SEGMENT.fullmatch(segment):
        raise _refused("format")
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise _refused("format") from None
    # Unused bits that are not zero would give one signature many spellings, and replay caches many keys.
    if _encode(raw) != segment:
        raise _refused("format")
    return raw


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _no_constant(text: str) -> NoReturn:
    raise ValueError


def _short_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _plain(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError
    match value:
        case str():
            value.encode("utf-8")  # a lone surrogate cannot be encoded
        case list():
            for item in value:
                _plain(item, levels - 1)
        case dict():
            for name, item in value.items():
                _plain(name, levels)
                _plain(item, levels - 1)
