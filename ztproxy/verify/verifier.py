"""From the text of `X-Ztproxy-Assertion` to a `VerifiedIdentity`, or to a rejection with its reason.

The order is fixed, and nothing of a step is looked at before the step above it has passed:

1. size, then the compact form of RFC 7515 §3.1, canonical base64url (RFC 7515 §2: no padding, no spare bits)
2. the protected header: exactly `alg`, `kid`, `typ`, with `alg` ES256 (RFC 8725 §3.1)
3. the key, by exact `kid` (no attempt with any other key)
4. the signature
5. the claims: `iss`, `aud`, `sub`, `jti`, `iat`, `exp`, and the kinds of the optional ones

What remains for the caller: whether this identity may do what it asks; and replay, for an assertion is a
bearer token for its audience until `exp` (`jti` is there for an application that must see each one once).
"""

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from ztproxy.verify.identity import AssertionRejected, Rejection, VerifiedIdentity
from ztproxy.verify.keys import Keys, RemoteKeys, StaticKeys
from ztproxy.verify.strict_json import read_object

HEADER_NAME = "X-Ztproxy-Assertion"
MAX_TOKEN_LENGTH = 16 * 1024
MAX_KID_LENGTH = 256

# An empty signature passes here, so that `alg: none` is refused for what it is.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")

T = TypeVar("T")


class Verifier:
    """Verifies assertions for one application. Make one and keep it: it holds the key set. Thread-safe.

    `jwks`: the URL of the key set, or the key set itself. `audience`: the audience of the application's
    route, or several. `issuer`: the one origin accepted as `iss`; any by default, since the keys already say
    who signed. `leeway`: how far, in seconds, the two clocks may differ. Raises `ValueError` on settings that
    cannot work.
    """

    def __init__(
        self,
        jwks: str | Mapping[str, object],
        audience: str | Iterable[str],
        issuer: str | None = None,
        leeway: float = 30,
        *,
        unsafe_plain_http: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audiences = frozenset([audience] if isinstance(audience, str) else audience)
        if not self._audiences or "" in self._audiences:
            raise ValueError(
                "an audience is needed: without it, an assertion made for another app would pass"
            )
        self._issuer = issuer
        self._leeway = leeway
        self._clock = clock
        self._keys: Keys
        if isinstance(jwks, str):
            self._keys = RemoteKeys(jwks, unsafe_plain_http=unsafe_plain_http, monotonic=monotonic)
        else:
            self._keys = StaticKeys(jwks)

    def verify(self, token: str, *, may_fetch: bool = True) -> VerifiedIdentity:
        """The identity in `token`. Raises `AssertionRejected`; may block while the key set is fetched.

        With `may_fetch=False` it never blocks and raises `FetchNeeded` instead.
        """
        header, claims, signed, signature = _open_compact(token)
        if header.get("alg") != "ES256":
            raise AssertionRejected(Rejection.ALGORITHM)
        # Stricter than RFC 7515: unknown members are refused, so `jwk`, `jku`, `x5u`, `x5c` (keys brought
        # along by the forger) and `crit`, `b64` (another reading of the same bytes) need no list of their
        # own.
        kid = header.get("kid")
        if header.keys() != {"alg", "kid", "typ"} or header["typ"] != "JWT" or not isinstance(kid, str):
            raise AssertionRejected(Rejection.HEADER)
        if not 0 < len(kid) <= MAX_KID_LENGTH:
            raise AssertionRejected(Rejection.HEADER)
        key = self._keys.get(kid, may_fetch=may_fetch)
        if key is None:
            raise AssertionRejected(Rejection.UNKNOWN_KEY if self._keys.ready else Rejection.KEYS_UNAVAILABLE)
        # RFC 7518 §3.4: two 32-byte numbers, never a DER structure.
        if len(signature) != 64 or not key.Algorithm.verify(signed, key.key, signature):
            raise AssertionRejected(Rejection.SIGNATURE)
        return self._judge(claims)

    def _judge(self, raw: bytes) -> VerifiedIdentity:
        try:
            identity = _read_claims(read_object(raw))
        except ValueError:
            raise AssertionRejected(Rejection.CLAIMS) from None
        now = self._clock()
        if self._issuer is not None and identity.iss != self._issuer:
            raise AssertionRejected(Rejection.ISSUER)
        if identity.aud not in self._audiences:
            raise AssertionRejected(Rejection.AUDIENCE)
        if identity.iat > now + self._leeway:
            raise AssertionRejected(Rejection.NOT_YET_VALID)
        if identity.exp <= now - self._leeway:
            raise AssertionRejected(Rejection.EXPIRED)
        return identity


def _open_compact(token: str) -> tuple[dict[str, object], bytes, bytes, bytes]:
    if not token:
        raise AssertionRejected(Rejection.MISSING)
    if len(token) > MAX_TOKEN_LENGTH:
        raise AssertionRejected(Rejection.SIZE)
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise AssertionRejected(Rejection.FORMAT)
    try:
        header, claims, signature = (_base64url(part) for part in match.groups())
    except ValueError:
        raise AssertionRejected(Rejection.FORMAT) from None
    try:
        return read_object(header), claims, token.rpartition(".")[0].encode("ascii"), signature
    except ValueError:
        raise AssertionRejected(Rejection.HEADER) from None


def _base64url(text: str) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode("ascii"):
        raise ValueError("not canonical base64url")
    return raw


def _read_claims(claims: dict[str, object]) -> VerifiedIdentity:
    identity = VerifiedIdentity(
        iss=_required(_text, claims, "iss"),
        aud=_required(_text, claims, "aud"),
        sub=_required(_text, claims, "sub"),
        jti=_required(_text, claims, "jti"),
        iat=_required(_seconds, claims, "iat"),
        exp=_required(_seconds, claims, "exp"),
        sid=_text(claims, "sid"),
        email=_text(claims, "email"),
        name=_text(claims, "name"),
        preferred_username=_text(claims, "preferred_username"),
        groups=_texts(claims, "groups"),
        acr=_text(claims, "acr"),
        amr=_texts(claims, "amr"),
        auth_time=_seconds(claims, "auth_time"),
        idp=_text(claims, "idp"),
        device=_text(claims, "device"),
        scope=_text(claims, "scope"),
    )
    if identity.exp <= identity.iat:
        raise ValueError("`exp` is not after `iat`")
    return identity


def _required(read: Callable[[dict[str, object], str], T | None], claims: dict[str, object], name: str) -> T:
    value = read(claims, name)
    if value is None or value == "":
        raise ValueError(f"`{name}` is missing")
    return value


def _text(claims: dict[str, object], name: str) -> str | None:
    if name not in claims:
        return None
    return _well_formed(claims[name], name)


def _texts(claims: dict[str, object], name: str) -> tuple[str, ...]:
    listed = claims.get(name, [])
    if not isinstance(listed, list):
        raise ValueError(f"`{name}` is not a list")
    return tuple(_well_formed(item, name) for item in listed)


def _seconds(claims: dict[str, object], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"`{name}` is not a time in whole seconds")
    return value


def _well_formed(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is not a text")
    return value
