"""Conditions: questions with three answers, and the three ways to combine them.

A condition answers `Holds`, `Fails(reasons)` or `Needs(ask, reasons)`: it would hold if the person first did
something (`Ask.LOGIN < Ask.STEP_UP`). Nobody writes "if not logged in, redirect" anywhere: a missing session
is a `Needs`, and the algebra below carries it to the decision.

    AllOf   a failure decides, else the smallest need, else it holds
    AnyOf   the mirror: one that holds decides, else the smallest need, else it fails with every reason
    Not     swaps holds and fails, and leaves needs alone

Promises: supplying what was asked for never overturns an answer that was settled (tested over thousands of
trees). An empty `AllOf` or `AnyOf` cannot be built: it would decide without asking anything.
Leaves to the caller: who is asked for what (`core.decision`), and reading configuration (`config`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, tzinfo
from enum import Enum, IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Protocol

from ztproxy.core.evidence import Facts
from ztproxy.core.identity import JSON, Identity
from ztproxy.core.reasons import Reason


class Ask(IntEnum):
    """What a person can still do, the least demanding first."""

    LOGIN = 1
    STEP_UP = 2


class Source(Enum):
    """What a condition reads; a decision may be reused only while all its sources are unchanged."""

    SESSION = "session"
    METHOD = "method"
    PATH = "path"
    TIME = "time"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class Holds:
    """Yes."""


@dataclass(frozen=True, slots=True)
class Fails:
    """No, whatever the person does now."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """Not yet. `rank` is the acr rank a step-up must reach (0: any)."""

    ask: Ask
    reasons: tuple[Reason, ...]
    rank: int = 0


Truth = Holds | Fails | Needs
HOLDS = Holds()
LOGIN = Needs(Ask.LOGIN, (Reason.LOGIN_REQUIRED,))


class Condition(Protocol):
    """One question. `reads` are the sources its answer depends on."""

    @property
    def reads(self) -> frozenset[Source]: ...

    def ask(self, facts: Facts) -> Truth: ...


_NOTHING: frozenset[Source] = frozenset()
_SESSION = frozenset({Source.SESSION})


@dataclass(frozen=True, slots=True)
class Anyone:
    """Holds for the whole world. Its configuration name, `public`, wears the danger."""

    reads: frozenset[Source] = _NOTHING

    def ask(self, facts: Facts) -> Truth:
        return HOLDS


class _AboutIdentity:
    """Shared by all that ask about a person: without a session they need a login."""

    __slots__ = ()
    reads = _SESSION

    def ask(self, facts: Facts) -> Truth:
        if facts.session is None:
            return LOGIN
        return HOLDS if self._of(facts.session.identity) else Fails((self._reason(),))

    def _of(self, identity: Identity) -> bool:
        raise NotImplementedError

    def _reason(self) -> Reason:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Authenticated(_AboutIdentity):
    """Holds for everyone who is signed in."""

    def _of(self, identity: Identity) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class UserIs(_AboutIdentity):
    """Holds for the listed subjects (`sub`), or `issuer|sub` where several providers are configured."""

    subjects: frozenset[str]

    def _of(self, identity: Identity) -> bool:
        return identity.subject in self.subjects or f"{identity.issuer}|{identity.subject}" in self.subjects

    def _reason(self) -> Reason:
        return Reason.USER_MISMATCH


@dataclass(frozen=True, slots=True)
class EmailIs(_AboutIdentity):
    """Holds for the listed verified addresses; ASCII case-insensitive, nothing else is folded."""

    emails: frozenset[str]

    def _of(self, identity: Identity) -> bool:
        return identity.email is not None and ascii_lower(identity.email) in self.emails

    def _reason(self) -> Reason:
        return Reason.EMAIL_MISMATCH


@dataclass(frozen=True, slots=True)
class DomainIs(_AboutIdentity):
    """Holds for verified addresses of exactly these domains; a sub-domain is another domain."""

    domains: frozenset[str]

    def _of(self, identity: Identity) -> bool:
        if identity.email is None or identity.email.count("@") != 1:
            return False
        return ascii_lower(identity.email.rpartition("@")[2]) in self.domains

    def _reason(self) -> Reason:
        return Reason.DOMAIN_MISMATCH


@dataclass(frozen=True, slots=True)
class InGroup(_AboutIdentity):
    """Holds for members of any listed group; exact, byte for byte (`Admin ` and `admin` differ)."""

    groups: frozenset[str]

    def _of(self, identity: Identity) -> bool:
        return not self.groups.isdisjoint(identity.groups)

    def _reason(self) -> Reason:
        return Reason.GROUP_MISSING


@dataclass(frozen=True, slots=True)
class ClaimIs(_AboutIdentity):
    """Holds when the claim at a dotted path equals, or as a list contains, one of the values.

    Types must agree: `true`, `1` and `"1"` are three values. A claim that is absent or null never holds.
    """

    path: tuple[str, ...]
    values: tuple[str | int | float | bool, ...]

    def _of(self, identity: Identity) -> bool:
        found: JSON = dict(identity.claims)
        for step in self.path:
            if not isinstance(found, dict) or step not in found:
                return False
            found = found[step]
        candidates: Sequence[JSON] = found if isinstance(found, list) else [found]
        return any(type(one) is type(value) and one == value for one in candidates for value in self.values)

    def _reason(self) -> Reason:
        return Reason.CLAIM_MISMATCH


@dataclass(frozen=True, slots=True)
class RankAtLeast:
    """Holds when the session's acr rank reaches `rank`; a weaker session needs a step-up."""

    rank: int
    reads: frozenset[Source] = _SESSION

    def ask(self, facts: Facts) -> Truth:
        if facts.session is None:
            return LOGIN
        if facts.session.rank >= self.rank:
            return HOLDS
        return Needs(Ask.STEP_UP, (Reason.STEP_UP_REQUIRED,), self.rank)


@dataclass(frozen=True, slots=True)
class MethodIs:
    """Holds for the listed methods (upper-case tokens)."""

    methods: frozenset[str]
    reads: frozenset[Source] = frozenset({Source.METHOD})

    def ask(self, facts: Facts) -> Truth:
        return HOLDS if facts.request.method in self.methods else Fails((Reason.METHOD_MISMATCH,))


@dataclass(frozen=True, slots=True)
class PathIs:
    """Holds for exactly this path: `/a` and `/a/` differ. With `folded`, letters' case does not matter."""

    segments: tuple[str, ...]
    folded: bool = False
    reads: frozenset[Source] = frozenset({Source.PATH})

    def ask(self, facts: Facts) -> Truth:
        return HOLDS if _same(facts.reading, self.segments, self.folded) else Fails((Reason.PATH_MISMATCH,))


@dataclass(frozen=True, slots=True)
class PathUnder:
    """Holds for the prefix itself and everything beneath it, by whole segments: `/a` covers `/a`, `/a/`,
    `/a/b` and never `/ab`. The root prefix `()` covers everything."""

    segments: tuple[str, ...]
    folded: bool = False
    reads: frozenset[Source] = frozenset({Source.PATH})

    def ask(self, facts: Facts) -> Truth:
        under = _same(facts.reading[: len(self.segments)], self.segments, self.folded)
        return HOLDS if under else Fails((Reason.PATH_MISMATCH,))


@dataclass(frozen=True, slots=True)
class Within:
    """Holds inside a time window of a zone. Bounds are half-open: `after <= t < before`; a window that ends
    before it begins spans midnight, and then its days are those on which it began. `days` are 0 (Monday) to
    6, empty meaning every day. `first` and `last` are inclusive dates."""

    zone: tzinfo
    days: frozenset[int] = frozenset()
    after: time | None = None
    before: time | None = None
    first: date | None = None
    last: date | None = None
    reads: frozenset[Source] = frozenset({Source.TIME})

    def ask(self, facts: Facts) -> Truth:
        return HOLDS if self._covers(datetime.fromtimestamp(facts.now, self.zone)) else _WRONG_TIME

    def _covers(self, moment: datetime) -> bool:
        clock, day, weekday = moment.time(), moment.date(), moment.weekday()
        after, before = self.after or time.min, self.before
        if before is None or after < before:
            if clock < after or (before is not None and clock >= before):
                return False
        elif clock < before:
            weekday = (weekday - 1) % 7
        elif clock < after:
            return False
        if self.days and weekday not in self.days:
            return False
        return (self.first is None or day >= self.first) and (self.last is None or day <= self.last)


_WRONG_TIME = Fails((Reason.TIME_MISMATCH,))


@dataclass(frozen=True, slots=True)
class FromNetwork:
    """Holds for clients in the listed networks. A place is not a person: `ztproxy check` warns where a rule
    allows by this alone. IPv4 written as IPv6 (`::ffff:a.b.c.d`) is the IPv4 address."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    reads: frozenset[Source] = frozenset({Source.NETWORK})

    def ask(self, facts: Facts) -> Truth:
        try:
            address = ip_address(facts.request.peer.address)
        except ValueError:  # a unix socket's peer has no address, and no place to be allowed from
            return Fails((Reason.NETWORK_MISMATCH,))
        address = getattr(address, "ipv4_mapped", None) or address
        inside = any(address in network for network in self.networks)
        return HOLDS if inside else Fails((Reason.NETWORK_MISMATCH,))


class AllOf:
    """Holds when every part does. Empty is an error: "no condition" must never mean "yes"."""

    __slots__ = ("parts", "reads")

    def __init__(self, parts: Sequence[Condition]) -> None:
        if not parts:
            raise ValueError("an empty all_of would hold without asking anything")
        self.parts = tuple(parts)
        self.reads = frozenset[Source]().union(*(part.reads for part in self.parts))

    def ask(self, facts: Facts) -> Truth:
        need: Needs | None = None
        for part in self.parts:
            truth = part.ask(facts)
            if isinstance(truth, Fails):
                return truth
            if isinstance(truth, Needs):
                need = _smaller(need, truth)
        return need or HOLDS


class AnyOf:
    """Holds when one part does. Empty is an error too: write `deny`, do not spell it."""

    __slots__ = ("parts", "reads")

    def __init__(self, parts: Sequence[Condition]) -> None:
        if not parts:
            raise ValueError("an empty any_of could never hold")
        self.parts = tuple(parts)
        self.reads = frozenset[Source]().union(*(part.reads for part in self.parts))

    def ask(self, facts: Facts) -> Truth:
        need: Needs | None = None
        reasons: list[Reason] = []
        for part in self.parts:
            truth = part.ask(facts)
            if isinstance(truth, Holds):
                return truth
            if isinstance(truth, Needs):
                need = _smaller(need, truth)
            else:
                reasons += truth.reasons
        return need or Fails(tuple(dict.fromkeys(reasons)))


class Not:
    """Swaps yes and no; a need stays a need. `reason` is what a refusal by this says."""

    __slots__ = ("part", "reads", "reason")

    def __init__(self, part: Condition, reason: Reason = Reason.RULE_DENIED) -> None:
        self.part, self.reason, self.reads = part, reason, part.reads

    def ask(self, facts: Facts) -> Truth:
        truth = self.part.ask(facts)
        if isinstance(truth, Holds):
            return Fails((self.reason,))
        return HOLDS if isinstance(truth, Fails) else truth


def _smaller(one: Needs | None, other: Needs) -> Needs:
    if one is None:
        return other
    return other if (other.ask, other.rank) < (one.ask, one.rank) else one


def _same(reading: tuple[str, ...], segments: tuple[str, ...], folded: bool) -> bool:
    if folded:
        return tuple(s.casefold() for s in reading) == tuple(s.casefold() for s in segments)
    return reading == segments


def ascii_lower(text: str) -> str:
    """Lower-cases A to Z and nothing else: Unicode folding would let look-alikes through."""
    return text.translate(_ASCII_LOWER)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
