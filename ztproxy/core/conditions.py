"""Conditions: questions with three answers, and the three ways to combine them.

A condition answers `Holds`, `Fails(reasons)` or `Needs(ask, reasons)`: it would hold if the person first did
something (`Ask.LOGIN < Ask.STEP_UP`). Nobody writes "if not logged in, redirect" anywhere: a missing session
is a `Needs`, and the algebra below carries it to the decision.

    AllOf   a failure decides, else what is needed for all of it, else it holds
    AnyOf   the mirror: one that holds decides, else the least that is needed, else it fails with every reason
    Not     swaps holds and fails, and leaves needs alone

A failure for want of evidence is no answer that could be turned round ("deny the jailbroken" is not escaped
by showing no device): such a `Fails` brings its own `negation`.

Promises, tested over thousands of trees: supplying what was asked for never overturns an answer that was
settled; the rank asked for is the least that suffices, in one step. What cannot be meant cannot be built
(`ValueError`): an empty `AllOf` or `AnyOf`, a time window without length.
Leaves to the caller: who is asked for what (`core.decision`), and reading configuration (`config`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from enum import Enum, IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import ClassVar, Protocol

from ztproxy.core.evidence import Facts
from ztproxy.core.identity import Identity
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
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Holds:
    """Yes."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Not yet. `rank` is the acr rank a step-up must reach (0: any)."""

    ask: Ask
    reasons: tuple[Reason, ...]
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Fails:
    """No, whatever the person does now. `negation` is the answer to the opposite question where that is not
    yes: it could not be told either (`untold`), or needs something first. Only a single question has one;
    `Not` asks no other."""

    reasons: tuple[Reason, ...]
    negation: Fails | Needs | None = None


Truth = Holds | Fails | Needs
HOLDS = Holds()
LOGIN = Needs(Ask.LOGIN, (Reason.LOGIN_REQUIRED,))


def untold(reason: Reason) -> Fails:
    """No, because nobody can say: neither the question nor its opposite holds."""
    return Fails((reason,), Fails((reason,)))


class Condition(Protocol):
    """One question. `reads` are the sources its answer depends on."""

    @property
    def reads(self) -> frozenset[Source]: ...

    def ask(self, facts: Facts) -> Truth: ...


_SESSION = frozenset({Source.SESSION})


@dataclass(frozen=True, slots=True)
class Anyone:
    """Holds for the whole world. Its configuration name, `public`, wears the danger."""

    reads: ClassVar[frozenset[Source]] = frozenset()

    def ask(self, facts: Facts) -> Truth:
        return HOLDS


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Holds for everyone who is signed in."""

    reads: ClassVar[frozenset[Source]] = _SESSION

    def ask(self, facts: Facts) -> Truth:
        return LOGIN if facts.session is None else HOLDS


class _AboutIdentity(ABC):
    """Shared by all that ask about a person: without a session they need a login."""

    __slots__ = ()
    reads: ClassVar[frozenset[Source]] = _SESSION
    mismatch: ClassVar[Fails]

    def ask(self, facts: Facts) -> Truth:
        if facts.session is None:
            return LOGIN
        return HOLDS if self.matches(facts.session.identity) else self.mismatch

    @abstractmethod
    def matches(self, identity: Identity) -> bool: ...


@dataclass(frozen=True, slots=True)
class UserIs(_AboutIdentity):
    """Holds for the listed subjects: `sub`, or `issuer|sub` where several providers are configured."""

    mismatch: ClassVar[Fails] = Fails((Reason.USER_MISMATCH,))
    subjects: frozenset[str]

    def matches(self, identity: Identity) -> bool:
        return is_among(identity, self.subjects)


@dataclass(frozen=True, slots=True)
class EmailIs(_AboutIdentity):
    """Holds for the listed verified addresses; ASCII case-insensitive, nothing else is folded."""

    mismatch: ClassVar[Fails] = Fails((Reason.EMAIL_MISMATCH,))
    emails: frozenset[str]

    def matches(self, identity: Identity) -> bool:
        return identity.email is not None and ascii_lower(identity.email) in self.emails


@dataclass(frozen=True, slots=True)
class DomainIs(_AboutIdentity):
    """Holds for verified addresses of exactly these domains; a sub-domain is another domain."""

    mismatch: ClassVar[Fails] = Fails((Reason.DOMAIN_MISMATCH,))
    domains: frozenset[str]

    def matches(self, identity: Identity) -> bool:
        if identity.email is None or identity.email.count("@") != 1:
            return False
        return ascii_lower(identity.email.rpartition("@")[2]) in self.domains


@dataclass(frozen=True, slots=True)
class InGroup(_AboutIdentity):
    """Holds for members of any listed group; exact, byte for byte (`Admin ` and `admin` differ)."""

    mismatch: ClassVar[Fails] = Fails((Reason.GROUP_MISSING,))
    groups: frozenset[str]

    def matches(self, identity: Identity) -> bool:
        return not self.groups.isdisjoint(identity.groups)


@dataclass(frozen=True, slots=True)
class ClaimIs(_AboutIdentity):
    """Holds when the claim at a dotted path equals, or as a list contains, one of the values.

    Types must agree: `true`, `1` and `"1"` are three values. A claim that is absent or null never holds.
    """

    mismatch: ClassVar[Fails] = Fails((Reason.CLAIM_MISMATCH,))
    path: tuple[str, ...]
    values: tuple[str | int | float | bool, ...]

    def matches(self, identity: Identity) -> bool:
        found: object = identity.claims
        for step in self.path:
            if not isinstance(found, Mapping):
                return False
            found = found.get(step)
        candidates = found if isinstance(found, list) else (found,)
        return any(type(one) is type(value) and one == value for one in candidates for value in self.values)


@dataclass(frozen=True, slots=True)
class RankAtLeast:
    """Holds when the session's acr rank reaches `rank`; a weaker session needs a step-up."""

    reads: ClassVar[frozenset[Source]] = _SESSION
    rank: int

    def ask(self, facts: Facts) -> Truth:
        if facts.session is None:
            return LOGIN
        return HOLDS if facts.session.rank >= self.rank else _step_up(self.rank)


@lru_cache
def _step_up(rank: int) -> Needs:
    return Needs(Ask.STEP_UP, (Reason.STEP_UP_REQUIRED,), rank)


@dataclass(frozen=True, slots=True)
class MethodIs:
    """Holds for the listed methods (upper-case tokens)."""

    reads: ClassVar[frozenset[Source]] = frozenset({Source.METHOD})
    methods: frozenset[str]

    def ask(self, facts: Facts) -> Truth:
        return HOLDS if facts.request.method in self.methods else _WRONG_METHOD


@dataclass(frozen=True, slots=True)
class PathIs:
    """Holds for exactly this path: `/a` and `/a/` differ. With `folded`, letters' case does not matter."""

    reads: ClassVar[frozenset[Source]] = frozenset({Source.PATH})
    segments: tuple[str, ...]
    folded: bool = False

    def ask(self, facts: Facts) -> Truth:
        return HOLDS if _same(facts.reading, self.segments, self.folded) else _WRONG_PATH


@dataclass(frozen=True, slots=True)
class PathUnder:
    """Holds for the prefix itself and everything beneath it, by whole segments: `/a` covers `/a`, `/a/`,
    `/a/b` and never `/ab`. The root prefix `()` covers everything."""

    reads: ClassVar[frozenset[Source]] = frozenset({Source.PATH})
    segments: tuple[str, ...]
    folded: bool = False

    def ask(self, facts: Facts) -> Truth:
        under = _same(facts.reading[: len(self.segments)], self.segments, self.folded)
        return HOLDS if under else _WRONG_PATH


@dataclass(frozen=True, slots=True)
class Within:
    """Holds inside a time window of a zone, by what a clock on the wall there shows: the hour that daylight
    saving repeats counts twice, the one it skips never comes.

    Bounds are half-open: `after <= t < before`; `None` is midnight. A window that ends before it begins spans
    midnight, and belongs to the day on which it began. `days` are 0 (Monday) to 6, empty meaning every day;
    `first` and `last` are inclusive dates.
    """

    reads: ClassVar[frozenset[Source]] = frozenset({Source.TIME})
    zone: tzinfo
    days: frozenset[int] = frozenset()
    after: time | None = None
    before: time | None = None
    first: date | None = None
    last: date | None = None

    def __post_init__(self) -> None:
        if self.after is not None and self.after == self.before:
            raise ValueError("a time window that ends where it begins is either empty or the whole day")

    def ask(self, facts: Facts) -> Truth:
        return HOLDS if self._covers(datetime.fromtimestamp(facts.now, self.zone)) else _WRONG_TIME

    def _covers(self, moment: datetime) -> bool:
        clock, day = moment.time(), moment.date()
        after, before = self.after or time.min, self.before or time.min
        if before == time.min or after < before:
            if clock < after or (before != time.min and clock >= before):
                return False
        elif clock < before:
            day -= timedelta(days=1)
        elif clock < after:
            return False
        if self.days and day.weekday() not in self.days:
            return False
        return (self.first is None or day >= self.first) and (self.last is None or day <= self.last)


@dataclass(frozen=True, slots=True)
class FromNetwork:
    """Holds for clients in the listed networks. A place is not a person: `ztproxy check` warns where a rule
    allows by this alone. IPv4 written as IPv6 (`::ffff:a.b.c.d`) is the IPv4 address."""

    reads: ClassVar[frozenset[Source]] = frozenset({Source.NETWORK})
    networks: tuple[IPv4Network | IPv6Network, ...]

    def ask(self, facts: Facts) -> Truth:
        address = _address(facts.request.peer.address)
        if address is None:
            return _WRONG_NETWORK
        return HOLDS if any(address in network for network in self.networks) else _WRONG_NETWORK


@lru_cache(maxsize=4096)  # parsing one costs as much as a whole policy without networks
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """None for a unix socket's peer, who has no address, and no place to be allowed from."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


_WRONG_METHOD = Fails((Reason.METHOD_MISMATCH,))
_WRONG_PATH = Fails((Reason.PATH_MISMATCH,))
_WRONG_TIME = Fails((Reason.TIME_MISMATCH,))
_WRONG_NETWORK = Fails((Reason.NETWORK_MISMATCH,))


def both(one: Truth, other: Truth) -> Truth:
    """The conjunction of two answers. Of two needs the earlier step comes first, and at the same step the
    higher rank, which meets both at once."""
    if isinstance(one, Fails) or isinstance(other, Holds):
        return one
    if isinstance(other, Fails) or isinstance(one, Holds):
        return other
    return one if (one.ask, -one.rank) <= (other.ask, -other.rank) else other


def either(one: Truth, other: Truth) -> Truth:
    """The disjunction of two answers: the less demanding of two needs; all reasons of two failures."""
    if isinstance(one, Holds) or isinstance(other, Holds):
        return HOLDS
    if isinstance(one, Fails):
        return Fails(tuple(dict.fromkeys(one.reasons + other.reasons))) if isinstance(other, Fails) else other
    if isinstance(other, Fails):
        return one
    return one if (one.ask, one.rank) <= (other.ask, other.rank) else other


class AllOf:
    """Holds when every part does. Empty is an error: "no condition" must never mean "yes"."""

    __slots__ = ("parts", "reads")

    def __init__(self, parts: Sequence[Condition]) -> None:
        if not parts:
            raise ValueError("an empty all_of would hold without asking anything")
        self.parts = tuple(parts)
        self.reads = frozenset[Source]().union(*(part.reads for part in self.parts))

    def ask(self, facts: Facts) -> Truth:
        truth: Truth = HOLDS
        for part in self.parts:
            answer = part.ask(facts)
            if type(answer) is Fails:
                return answer
            if type(answer) is not Holds:
                truth = both(truth, answer)
        return truth


class AnyOf:
    """Holds when one part does. Empty is an error too: write `deny`, do not spell it."""

    __slots__ = ("parts", "reads")

    def __init__(self, parts: Sequence[Condition]) -> None:
        if not parts:
            raise ValueError("an empty any_of could never hold")
        self.parts = tuple(parts)
        self.reads = frozenset[Source]().union(*(part.reads for part in self.parts))

    def ask(self, facts: Facts) -> Truth:
        # What `either` says of one after the other, with the reasons put together once, and only if they are
        # wanted: most parts of a policy fail on the way to the one that holds.
        need: Truth | None = None
        reasons: list[Reason] = []
        for part in self.parts:
            answer = part.ask(facts)
            if type(answer) is Holds:
                return answer
            if type(answer) is Fails:
                reasons += answer.reasons
            else:
                need = answer if need is None else either(need, answer)
        return Fails(tuple(dict.fromkeys(reasons))) if need is None else need


class Not:
    """Swaps yes and no; a need stays a need. `reason` is what a refusal by this says.

    INVARIANT: a failure that brings its own `negation` answers with that, never with yes.

    A negation of several conditions is carried inward once, when it is built (De Morgan), so that the `AllOf`
    and `AnyOf` beneath still choose the right one of two needs.
    """

    __slots__ = ("inward", "part", "reads", "reason")

    def __init__(self, part: Condition, reason: Reason = Reason.RULE_DENIED) -> None:
        self.part, self.reason, self.reads = part, reason, part.reads
        self.inward: Condition | None = None
        if isinstance(part, AllOf):
            self.inward = AnyOf([Not(each, reason) for each in part.parts])
        elif isinstance(part, AnyOf):
            self.inward = AllOf([Not(each, reason) for each in part.parts])
        elif isinstance(part, Not):
            self.inward = part.part

    def ask(self, facts: Facts) -> Truth:
        if self.inward is not None:
            return self.inward.ask(facts)
        truth = self.part.ask(facts)
        if isinstance(truth, Holds):
            return Fails((self.reason,))
        return truth.negation or HOLDS if isinstance(truth, Fails) else truth


def forbids_sign_in(condition: Condition) -> bool:
    """Whether somewhere a sign-in, or its strength, is forbidden rather than asked for ("deny whoever has a
    second factor"). Such a condition would ask people to sign in only to refuse those who do."""
    if isinstance(condition, AllOf | AnyOf):
        return any(forbids_sign_in(part) for part in condition.parts)
    if isinstance(condition, Not):
        if condition.inward is not None:
            return forbids_sign_in(condition.inward)
        return isinstance(condition.part, RankAtLeast | Authenticated)
    return False


def is_among(identity: Identity, subjects: frozenset[str]) -> bool:
    """Whether `subjects` has this identity's subject, plainly or as `issuer|sub`."""
    subject = identity.subject
    if f"{identity.issuer}|{subject}" in subjects:
        return True
    # A provider may put any text into `sub`, also one that reads as another provider's qualified subject
    # (T10): such a text is somebody only together with its true issuer, tried above.
    posing = "|" in subject and subject.startswith(("https://", "http://"))
    return subject in subjects and not posing


def _same(reading: tuple[str, ...], segments: tuple[str, ...], folded: bool) -> bool:
    if folded:
        return [fold(text) for text in reading] == [fold(text) for text in segments]
    return reading == segments


def fold(text: str) -> str:
    """One spelling for all that any case-insensitive reader could take for the same text."""
    return text.lower() if text.isascii() else text.upper().casefold()


def ascii_lower(text: str) -> str:
    """Lower-cases A to Z and nothing else: Unicode folding would let look-alikes through."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
