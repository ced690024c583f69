"""Claims whose signature was verified, judged: whose they are, for whom, when, and what we believe of them.

Knows: OpenID Connect Core 3.1.3.7 and where we are stricter. Promises: who gets an `Accepted` was vouched for
by the configured issuer, to this client, now, for this very sign-in; a value of the wrong kind is never
coerced. What decides (issuer, audience, times, subject) refuses the sign-in; what only describes (groups,
names) is left out and noted. Leaves to its caller: the signature and the strict reading of JSON
(`adapters.jwt`), and fetching nothing: distributed claims (Core 5.6.2) are never followed.

The message of each refusal begins with the claim's name; the log may show it, pages show the reason's
sentence.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from types import MappingProxyType

from ztproxy.core.identity import JSON, Identity
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError

Claims = Mapping[str, JSON]

OLDEST = 600.0
"""How many seconds ago an ID token may have been issued: a sign-in lasts no longer.

Core 3.1.3.7 (10) leaves it to us, and means it for how long a nonce has to be remembered: ours is taken once
with its sign-in, which ends by then. Less would close nothing more, for the token comes straight from the
token endpoint, for a code that works once, and bears the nonce; and it would shut out honest providers: a
clock that is behind cannot be told from a provider that dates back, as Entra ID does by five minutes. A clock
that is behind shows in `exp`, which is judged to the `skew`, as is an `iat` of the future (FI33).
"""
_LATEST = 2.0**40  # a time stamp beyond this (the year 36812) is no time stamp
_MAX_TEXT = 255
_MAX_GROUPS = 2000

# The addr-spec the HTML standard accepts, which is narrower than RFC 5322: one `@`, ASCII, no quoting, no
# comments, no address literal, no trailing dot. Everything wider is how `"a@corp.test"@evil.test` gets in
# (T36).
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What one provider's claims must be and which of them are kept.

    The names of claims may be dotted (`realm_access.roles`); a claim of exactly that name, dots included,
    comes first. `keep` are further claims for the policy, kept nested as they came. `skew` is seconds.
    `dangerous_allow_unverified_email` believes an address nobody checked: whoever may type one in at the
    provider then owns every rule that names it.
    """

    issuer: str
    client_id: str
    groups_claim: str = "groups"
    email_claim: str = "email"
    name_claim: str = "name"
    username_claim: str = "preferred_username"
    keep: tuple[str, ...] = ()
    trusted_audiences: frozenset[str] = frozenset()
    skew: float = 60.0
    dangerous_allow_unverified_email: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """A person the provider vouched for, and how they signed in. `notes` name what was left out, for the
    audit."""

    identity: Identity
    acr: str | None
    amr: tuple[str, ...]
    auth_time: float | None
    idp_session: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What this sign-in sent, so what must come back.

    `nonce` is None for a refresh alone: we keep none, and Core 12.2 asks providers not to send one.
    """

    nonce: str | None
    state: str | None = None
    access_token: str | None = None
    max_age: float | None = None


def accept(
    rules: ClaimRules, claims: Claims, expected: Expectation, now: float, userinfo: Claims | None = None
) -> Accepted:
    """Judges the claims of an ID token. `ClientError` with a `LOGIN_*` reason where they cannot be
    accepted."""
    _issued_by(rules, claims)
    _for_us(rules, claims)
    _timely(rules, claims, now)
    _for_this_sign_in(claims, expected)
    subject = _subject(claims)
    auth_time = _auth_time(rules, claims, expected.max_age, now)
    notes: list[str] = []
    return Accepted(
        identity=describe(rules, subject, claims, userinfo, notes),
        acr=_short_text(claims, "acr"),
        amr=_amr(claims, notes),
        auth_time=auth_time,
        idp_session=_short_text(claims, "sid"),
        notes=tuple(notes),
    )


def describe(
    rules: ClaimRules, subject: str, claims: Claims, userinfo: Claims | None, notes: list[str]
) -> Identity:
    """The identity of `subject`, from the ID token first and then from userinfo, which must be about the same
    person (Core 5.3.2). Appends to `notes` what was left out."""
    sources = [claims]
    if userinfo is not None:
        if userinfo.get("sub") != subject:
            raise ClientError(Reason.LOGIN_TOKEN, "userinfo: it is about somebody else")
        sources.append(userinfo)
    if any("_claim_names" in source for source in sources):
        notes.append("_claim_names: claims held elsewhere are not fetched")
    return Identity(
        issuer=rules.issuer,
        subject=subject,
        email=_email(rules, sources, notes),
        name=_label(sources, rules.name_claim, notes),
        username=_label(sources, rules.username_claim, notes),
        groups=_groups(sources, rules.groups_claim, notes),
        claims=MappingProxyType(_kept(sources, rules.keep)),
    )


def _refuse(message: str, reason: Reason = Reason.LOGIN_TOKEN) -> ClientError:
    return ClientError(reason, message)


def _issued_by(rules: ClaimRules, claims: Claims) -> None:
    # Byte for byte and a string: `in` on a list or a prefix test is how CVE-2024-53861 came about.
    if claims.get("iss") != rules.issuer:
        raise _refuse("iss: not the issuer that was asked", Reason.LOGIN_ISSUER)


def _for_us(rules: ClaimRules, claims: Claims) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if rules.client_id not in audiences or not all(isinstance(one, str) for one in audiences):
        raise _refuse("aud: not for this client")
    others = [one for one in audiences if one != rules.client_id]
    # Core 3.1.3.7 (3): an audience we do not trust may hold this token too, and present it as ours.
    if any(one not in rules.trusted_audiences for one in others):
        raise _refuse("aud: it names an audience that is not trusted")
    party = claims.get("azp")
    if party != rules.client_id and (others or "azp" in claims):
        raise _refuse("azp: another client was authorised")


def _timely(rules: ClaimRules, claims: Claims, now: float) -> None:
    issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
    if issued > now + rules.skew:
        raise _refuse("iat: issued in the future")
    if issued < now - OLDEST - rules.skew:
        raise _refuse("iat: issued too long ago")
    if expires < issued or now >= expires + rules.skew:
        raise _refuse("exp: expired")
    if "nbf" in claims and _moment(claims, "nbf") > now + rules.skew:
        raise _refuse("nbf: not valid yet")


def _moment(claims: Claims, name: str) -> float:
    value = claims.get(name)
    # `bool` is an `int` to Python and not to JSON.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise _refuse(f"{name}: missing or no time")
    return float(value)


def _for_this_sign_in(claims: Claims, expected: Expectation) -> None:
    if expected.nonce is not None:
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not _same(nonce, expected.nonce):
            raise _refuse("nonce: of another sign-in")
    # Both hashes are optional in the code flow (Core 3.1.3.6); one that is there must be right.
    for name, value in (("at_hash", expected.access_token), ("s_hash", expected.state)):
        if name in claims and value is not None and not _is_hash_of(claims[name], value):
            raise _refuse(f"{name}: of another sign-in")


def _same(one: str, other: str) -> bool:
    return compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def _is_hash_of(claimed: JSON, value: str) -> bool:
    """Core 3.1.3.6: the left half of the hash that the token's algorithm uses. Of the algorithms we accept
    three use SHA-256 and Ed25519 uses SHA-512; the lengths tell the two apart, so the header is not needed
    here."""
    if not isinstance(claimed, str):
        return False
    digests = (digest(value.encode()).digest() for digest in (hashlib.sha256, hashlib.sha512))
    halves = (urlsafe_b64encode(d[: len(d) // 2]).rstrip(b"=").decode() for d in digests)
    return any(_same(claimed, half) for half in halves)


def _subject(claims: Claims) -> str:
    subject = claims.get("sub")
    # Core 2: at most 255 ASCII characters. Without controls and spaces it can stand in a header and a log as
    # it is.
    if not isinstance(subject, str) or not re.fullmatch(r"[!-~](?:[ -~]{0,253}[!-~])?", subject):
        raise _refuse("sub: missing or malformed", Reason.LOGIN_CLAIMS)
    return subject


def _auth_time(rules: ClaimRules, claims: Claims, max_age: float | None, now: float) -> float | None:
    if "auth_time" not in claims and max_age is None:
        return None
    when = _moment(claims, "auth_time")  # required once max_age was sent (Core 3.1.2.1)
    if when > now + rules.skew:
        raise _refuse("auth_time: in the future")
    if max_age is not None and now - when > max_age + rules.skew:
        raise _refuse("auth_time: signed in too long ago", Reason.STEP_UP_FAILED)
    return min(when, now)


def _short_text(claims: Claims, name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[ -~]{1,255}", value):
        raise _refuse(f"{name}: malformed", Reason.LOGIN_CLAIMS)
    return value


def _amr(claims: Claims, notes: list[str]) -> tuple[str, ...]:
    if "amr" not in claims:
        return ()
    methods = _strings(claims["amr"], 32)
    if methods is None:
        notes.append("amr: not a list of strings")
    return methods or ()


def _find(source: Claims, name: str) -> JSON:
    """The claim at a dotted name; None where there is none."""
    if name in source:
        return source[name]
    found: JSON = dict(source)
    for step in name.split("."):
        if not isinstance(found, dict) or step not in found:
            return None
        found = found[step]
    return found


def _email(rules: ClaimRules, sources: Sequence[Claims], notes: list[str]) -> str | None:
    for source in sources:
        address = _find(source, rules.email_claim)
        if address is None:
            continue
        # INVARIANT: the address and the word that it is verified come from one document; `"true"` is not
        # true.
        if source.get("email_verified") is not True and not rules.dangerous_allow_unverified_email:
            notes.append(f"{rules.email_claim}: not verified")
            continue
        if not isinstance(address, str) or len(address) > 254 or not _EMAIL.fullmatch(address):
            raise _refuse(f"{rules.email_claim}: malformed", Reason.LOGIN_EMAIL)
        return address
    return None


def _label(sources: Sequence[Claims], name: str, notes: list[str]) -> str | None:
    """A text for people to read; never one that could end a line or turn the writing round."""
    for source in sources:
        value = _find(source, name)
        if value is None:
            continue
        if isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and _printable(value):
            return value
        notes.append(f"{name}: malformed")
    return None


def _printable(text: str) -> bool:
    return not any(c in _BIDI or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _groups(sources: Sequence[Claims], name: str, notes: list[str]) -> tuple[str, ...]:
    for source in sources:
        value = _find(source, name)
        if value is None:
            continue
        # A string is not a list of its letters, and a list with something else in it is not trusted in part.
        groups = _strings(value, _MAX_GROUPS)
        if groups is not None:
            return groups
        notes.append(f"{name}: not a list of names")
        return ()
    return ()


def _strings(value: JSON, most: int) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > most:
        return None
    texts = tuple(
        one for one in value if isinstance(one, str) and 0 < len(one) <= _MAX_TEXT and _printable(one)
    )
    return texts if len(texts) == len(value) else None


def _kept(sources: Sequence[Claims], keep: tuple[str, ...]) -> dict[str, JSON]:
    kept: dict[str, JSON] = {}
    for name in keep:
        for source in sources:
            value = _find(source, name)
            if value is not None:
                steps = [name] if name in source else name.split(".")
                _put(kept, steps, value)
                break
    return kept


def _put(into: dict[str, JSON], steps: Sequence[str], value: JSON) -> None:
    for step in steps[:-1]:
        inner = into.get(step)
        # A fresh dict at every level: the token's own are never written to.
        into[step] = copied = dict(inner) if isinstance(inner, dict) else {}
        into = copied
    into[steps[-1]] = value
