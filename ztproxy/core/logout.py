"""A provider's word that somebody is signed out there, judged: who says so, of whom, and for how long.

Knows: OpenID Connect Back-Channel Logout 1.0 (with errata set 1 of 2023), 2.4 and 2.6, and Front-Channel
Logout 1.0, 3. Promises: what comes out is of the configured issuer and about a session or a person; from a
logout token, also for this client and of now, and an ID token is never taken for one. Leaves to its caller:
the signature and the header (`adapters.oidc`), whether the notice was used before, and ending what it names.

The message of each refusal begins with the claim's name, for the log alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ztproxy.core.claims import ClaimRules, Claims
from ztproxy.core.identity import JSON
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError

EVENT = "http://schemas.openid.net/event/backchannel-logout"

LONGEST = 600.0
"""Seconds a notice counts after it was issued, whatever it says itself: so long its `jti` is remembered."""

_LATEST = 2.0**40
_MAX_JTI = 1024
# The forms `core.claims` accepts at a sign-in: nothing else can be the name of a session of ours.
_SID = re.compile(r"[ -~]{1,255}")
_SUBJECT = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")


@dataclass(frozen=True, slots=True)
class LogoutNotice:
    """`subject` or `sid` is there, or both. `exp` is when it stops counting, with the allowance for clocks:
    seconds since the epoch."""

    issuer: str
    subject: str | None
    sid: str | None
    jti: str
    exp: float

    @property
    def target(self) -> Target:
        """What it ends: the sessions of the provider's session where it names one (2.7), else all of the
        person."""
        if self.sid is not None:
            return Target(TargetKind.IDP_SESSION, self.sid, self.issuer)
        assert self.subject is not None
        return Target(TargetKind.USER, self.subject, self.issuer)

    @property
    def replay_key(self) -> str:
        """One notice of one issuer: a `jti` means nothing without it."""
        return _digest(self.issuer, self.jti)

    def lock(self, created_by: str) -> Lock:
        """The lock it amounts to. The same notice twice is the same lock.

        Its id holds the target too: of two notices that share a `jti`, against the rule, both take effect and
        one is refused as a replay; with `jti` alone, one could be answered with the other's success.
        """
        target = self.target
        name = _digest(self.issuer, self.jti, target.kind, target.name)
        return Lock(id=f"logout-{name}", target=target, created_by=created_by, reason="signed out there")


def read_notice(rules: ClaimRules, claims: Claims, now: float, *, exp_optional: bool = False) -> LogoutNotice:
    """Judges the claims of a logout token. `ClientError(LOGOUT_TOKEN)` where they cannot be accepted.

    `exp_optional` is for providers of before the errata: without `exp`, what was issued lately counts.
    """
    if claims.get("iss") != rules.issuer:
        raise _refuse("iss: not the issuer of this path")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    # Unlike an ID token's, further audiences do no harm: whoever else holds the token can only sign out whom
    # the provider has signed out.
    if rules.client_id not in audiences or not all(isinstance(one, str) for one in audiences):
        raise _refuse("aud: not for this client")
    # 2.4: a token with a nonce could pass for an ID token, or is one.
    if "nonce" in claims:
        raise _refuse("nonce: a logout token has none")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise _refuse("events: no logout")
    exp = _end(rules, claims, now, exp_optional)
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= _MAX_JTI:
        raise _refuse("jti: missing or malformed")
    sid, subject = _name(claims, "sid", _SID), _name(claims, "sub", _SUBJECT)
    if sid is None and subject is None:
        raise _refuse("sid: neither this nor `sub`")
    return LogoutNotice(rules.issuer, subject, sid, jti, exp)


def read_front_channel(rules: ClaimRules, issuer: str | None, sid: str | None) -> Target:
    """What a front-channel notice ends. Stricter than Front-Channel Logout 1.0, 3: both parameters must be
    there. Nothing vouches for them, so what they name must be worth guessing."""
    if issuer != rules.issuer:
        raise _refuse("iss: not the issuer of this path")
    if sid is None or not _SID.fullmatch(sid):
        raise _refuse("sid: missing or malformed")
    return Target(TargetKind.IDP_SESSION, sid, rules.issuer)


def front_channel_lock(target: Target, applied: int, created_by: str) -> Lock:
    """The lock it amounts to, in a log that has come to the number `applied`: heard twice at once it is one
    lock, and heard again after somebody signed in again it is another."""
    name = _digest(target.issuer, target.name, str(applied))
    return Lock(id=f"front-{name}", target=target, created_by=created_by, reason="signed out there")


def _end(rules: ClaimRules, claims: Claims, now: float, exp_optional: bool) -> float:
    """When the token stops counting.

    Stricter than 2.6: never later than ten minutes after it was issued. A `jti` remembered for less time than
    its token counts would let the token in again.
    """
    issued = _moment(claims, "iat")
    if issued > now + rules.skew:
        raise _refuse("iat: issued in the future")
    if "nbf" in claims and _moment(claims, "nbf") > now + rules.skew:
        raise _refuse("nbf: not valid yet")
    end = issued + LONGEST
    if "exp" in claims or not exp_optional:
        expires = _moment(claims, "exp")
        if expires < issued:
            raise _refuse("exp: before it was issued")
        end = min(end, expires)
    if now >= end + rules.skew:
        raise _refuse("exp: expired")
    return end + rules.skew


def _moment(claims: Claims, name: str) -> float:
    value: JSON = claims.get(name)
    # `bool` is an `int` to Python and not to JSON.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise _refuse(f"{name}: missing or no time")
    return float(value)


def _name(claims: Claims, name: str, form: re.Pattern[str]) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _refuse(f"{name}: malformed")
    return value


def _refuse(message: str) -> ClientError:
    return ClientError(Reason.LOGOUT_TOKEN, message)


def _digest(*parts: str) -> str:
    """Names a tuple of texts: each with its length, so that no two tuples are written alike."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]
