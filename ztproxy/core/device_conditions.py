"""Conditions about the device: its certificate, its standing, its owner, and what is reported of it.

Knows: what each question makes of the evidence. Promises, for every one of them and for its negation:

    nobody was asked, no certificate that holds, a lost device    fails: there is no device to speak of
    the inventory or a revocation check is away                   fails, with the world's reason
    a person's session that is bound to no certificate            needs a sign-in on this device
    a fact that is not known, or not recent enough                fails: what cannot be told is not compliant

What is wrong with the device comes before the sign-in, which would not mend it. A service has no session
that could be bound: it shows its credential with each request. Leaves to the caller that a session bound to
another certificate is none (`core.decision`), and to ask again as time passes (`posture_until`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import ClassVar, TypeGuard

from ztproxy.core.certificate import Certificate
from ztproxy.core.conditions import (
    HOLDS,
    LOGIN,
    AllOf,
    AnyOf,
    Ask,
    Condition,
    Fails,
    Holds,
    Needs,
    Not,
    Source,
    Truth,
    ascii_lower,
    untold,
)
from ztproxy.core.device import Device, NotAsked, OnDevice, Status, Value
from ztproxy.core.evidence import Facts
from ztproxy.core.identity import Credential
from ztproxy.core.reasons import Reason
from ztproxy.core.spiffe import matches

AHEAD = 300.0
"""How far a reporter's clock may be ahead of ours, in seconds. A fact from further ahead would never age."""

_UNBOUND = Needs(Ask.LOGIN, (Reason.DEVICE_UNBOUND,))
_NOBODY_ASKED = untold(Reason.DEVICE_CERTIFICATE_REQUIRED)
_NOT_REGISTERED = untold(Reason.DEVICE_UNKNOWN)
_NO_PLATFORM = untold(Reason.DEVICE_PLATFORM)
_NO_FACT = untold(Reason.POSTURE_UNKNOWN)
_OLD_FACT = untold(Reason.POSTURE_STALE)
_FACT_OF_ANOTHER_TYPE = untold(Reason.POSTURE_MISMATCH)


class _AboutDevice(ABC):
    """Shared by all that ask about a device: `about` is asked only where there is one."""

    __slots__ = ()
    reads: ClassVar[frozenset[Source]] = frozenset({Source.SESSION, Source.DEVICE})

    def ask(self, facts: Facts) -> Truth:
        shown = facts.device
        if isinstance(shown, NotAsked):
            return _NOBODY_ASKED
        if not isinstance(shown, OnDevice):
            return untold(shown.reason)
        truth = self.about(shown, facts)
        session = facts.session
        if session is None or session.by is not Credential.COOKIE or session.certificate is not None:
            return truth
        # INVARIANT: neither the answer nor its opposite holds for an unbound session: a stolen cookie beside
        # a device of one's own would profit from both (T32).
        if isinstance(truth, Holds):
            return _UNBOUND
        return Fails(truth.reasons, truth.negation or _UNBOUND) if isinstance(truth, Fails) else truth

    @abstractmethod
    def about(self, shown: OnDevice, facts: Facts) -> Truth: ...


class _AboutRecord(_AboutDevice):
    """Shared by all that ask what the inventory says: of an unregistered device it says nothing."""

    __slots__ = ()

    def about(self, shown: OnDevice, facts: Facts) -> Truth:
        return _NOT_REGISTERED if shown.device is None else self.recorded(shown.device, facts)

    @abstractmethod
    def recorded(self, device: Device, facts: Facts) -> Truth: ...


@dataclass(frozen=True, slots=True)
class CertificateIs(_AboutDevice):
    """Holds for a certificate that meets every field that is not empty, by any of its values; with all empty,
    for any certificate that holds.

    `authorities` are configured names; `thumbprints` and `keys` as in `Certificate`; `issuers` and `subjects`
    are names as RFC 4514 writes them, exact. Names of hosts and mailboxes are ASCII case-insensitive, nothing
    else is folded. `spiffe` are patterns.
    """

    authorities: frozenset[str] = frozenset()
    thumbprints: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    dns: frozenset[str] = frozenset()
    emails: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    spiffe: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "dns", _lower(self.dns))
        object.__setattr__(self, "emails", _lower(self.emails))

    def about(self, shown: OnDevice, facts: Facts) -> Truth:
        return HOLDS if self._met_by(shown.certificate) else _OTHER_CERTIFICATE

    def _met_by(self, certificate: Certificate) -> bool:
        asked = (
            (self.authorities, (certificate.authority,)),
            (self.thumbprints, (certificate.thumbprint,)),
            (self.keys, (certificate.spki,)),
            (self.issuers, (certificate.issuer,)),
            (self.subjects, (certificate.subject,)),
            (self.dns, map(ascii_lower, certificate.dns)),
            (self.emails, map(ascii_lower, certificate.emails)),
            (self.uris, certificate.uris),
        )
        if not all(not wanted or not wanted.isdisjoint(values) for wanted, values in asked):
            return False
        name = certificate.spiffe
        return not self.spiffe or (name is not None and any(matches(one, name) for one in self.spiffe))


@dataclass(frozen=True, slots=True)
class DeviceKnown(_AboutDevice):
    """Holds for a device that the inventory has, in whatever standing short of lost and retired."""

    def about(self, shown: OnDevice, facts: Facts) -> Truth:
        return HOLDS if shown.device is not None else _UNKNOWN


@dataclass(frozen=True, slots=True)
class DeviceApproved(_AboutRecord):
    """Holds for a device that was approved."""

    def recorded(self, device: Device, facts: Facts) -> Truth:
        return HOLDS if device.status is Status.APPROVED else _NOT_APPROVED


@dataclass(frozen=True, slots=True)
class DeviceOwned(_AboutRecord):
    """Holds for a device that belongs to whoever is signed in."""

    def recorded(self, device: Device, facts: Facts) -> Truth:
        if facts.session is None:
            return LOGIN
        return HOLDS if device.belongs_to(facts.session.identity) else _OTHER_OWNER


@dataclass(frozen=True, slots=True)
class PlatformIs(_AboutRecord):
    """Holds for the listed platforms (ASCII case-insensitive). A device without one is of none, and of no
    other either."""

    platforms: frozenset[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "platforms", _lower(self.platforms))

    def recorded(self, device: Device, facts: Facts) -> Truth:
        if not device.platform:
            return _NO_PLATFORM
        return HOLDS if ascii_lower(device.platform) in self.platforms else _OTHER_PLATFORM


_OTHER_CERTIFICATE = Fails((Reason.DEVICE_CERTIFICATE_MISMATCH,))
_UNKNOWN = Fails((Reason.DEVICE_UNKNOWN,))
_NOT_APPROVED = Fails((Reason.DEVICE_NOT_APPROVED,))
_OTHER_OWNER = Fails((Reason.DEVICE_OWNER,))
_OTHER_PLATFORM = Fails((Reason.DEVICE_PLATFORM,))
_NOT_MET = Fails((Reason.POSTURE_MISMATCH,))


@dataclass(frozen=True, slots=True)
class Equals:
    """The value itself. Types must agree: `true`, `1` and `"1"` are three values."""

    value: Value

    def met_by(self, found: Value) -> bool | None:
        """None where a value of that type says nothing."""
        return found == self.value if type(found) is type(self.value) else None


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the values, of the same type."""

    values: tuple[Value, ...]

    def met_by(self, found: Value) -> bool | None:
        alike = [value for value in self.values if type(value) is type(found)]
        return found in alike if alike else None


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number that is not higher."""

    number: float

    def met_by(self, found: Value) -> bool | None:
        return found <= self.number if _is_number(found) else None


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A number that is not lower."""

    number: float

    def met_by(self, found: Value) -> bool | None:
        return found >= self.number if _is_number(found) else None


Test = Equals | OneOf | AtMost | AtLeast


@dataclass(frozen=True, slots=True)
class PostureIs(_AboutRecord):
    """Holds where the fact `name` is known and meets `test`, and is less than `within` seconds old; None asks
    for no age. A fact whose type the test knows nothing of meets neither the test nor its opposite."""

    name: str
    test: Test
    within: float | None = None

    def recorded(self, device: Device, facts: Facts) -> Truth:
        fact = device.posture.get(self.name)
        if fact is None:
            return _NO_FACT
        if self.within is not None and not fact.at - AHEAD <= facts.now < fact.at + self.within:
            return _OLD_FACT
        met = self.test.met_by(fact.value)
        if met is None:
            return _FACT_OF_ANOTHER_TYPE
        return HOLDS if met else _NOT_MET


def posture_limits(condition: Condition) -> frozenset[float]:
    """Every age, in seconds, at which a fact stops counting somewhere in a tree."""
    if isinstance(condition, AllOf | AnyOf):
        return frozenset().union(*map(posture_limits, condition.parts))
    if isinstance(condition, Not):
        return posture_limits(condition.part)
    if isinstance(condition, PostureIs) and condition.within is not None:
        return frozenset({condition.within})
    return frozenset()


def posture_until(device: Device, limits: Iterable[float], now: float) -> float:
    """The first moment after `now` at which one of its facts stops, or begins, to count under one of the
    limits: when an answer can change by time alone. Seconds since the epoch, `inf` where there is none."""
    moments = [fact.at + age for fact in device.posture.values() for age in (-AHEAD, *limits)]
    return min((moment for moment in moments if moment > now), default=inf)


def _lower(texts: frozenset[str]) -> frozenset[str]:
    return frozenset(map(ascii_lower, texts))


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
