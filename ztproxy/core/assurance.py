"""How strongly someone signed in: `acr` and `amr` as providers write them, turned into one rank with a name.

Knows: which strings mean what, by configuration, with defaults for the names of RFC 8176 and the OpenID EAP
profile; how to ask for a rank, and for how long one counts. Promises: what is not known ranks lowest; nothing
is guessed from the spelling of a string. Leaves to `core.claims` that the strings were verified, and to the
policy which rank a route asks for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ztproxy.core.identity import JSON, Step

LOWEST, MOST = 1, 9
NAMES = ("password", "multi_factor", "phishing_resistant")

# 2: a second factor. 3: phishing-resistant (OpenID EAP ACR values 1.0, section 2).
_ACR = MappingProxyType({"mfa": 2, "phr": 3, "phrh": 3})
# RFC 8176 section 2; `fido` and `phr` are no registered names but what providers send for a security key.
_AMR = (
    (frozenset({"mfa"}), 2),
    (frozenset({"otp"}), 2),
    (frozenset({"hwk"}), 3),
    (frozenset({"fido"}), 3),
    (frozenset({"phr"}), 3),
)


@dataclass(frozen=True, slots=True)
class Levels:
    """The ranking. `acr`: a context class to its rank. `amr`: sets of methods to the rank they establish
    together. `names` are what operators call the ranks, the lowest first. `remember` is for how many seconds
    after the sign-in that proved it a rank counts; one that is not in it counts as long as the session lives.

    The place of a name is its rank, from 1 on; there are at most nine. The order of `acr` is the order of
    preference when a rank is asked for. Raises `ValueError` for names that are none, for a rank that has no
    name, for an empty set of methods, which everyone would satisfy, and for a time that is none.
    """

    acr: Mapping[str, int] = field(default_factory=lambda: _ACR)
    amr: tuple[tuple[frozenset[str], int], ...] = _AMR
    names: tuple[str, ...] = NAMES
    remember: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MOST or len(set(self.names)) < len(self.names) or not all(self.names):
            raise ValueError(f"there are one to {MOST} names of ranks, all different")
        ranks = [*self.acr.values(), *(rank for _, rank in self.amr), *self.remember]
        if not all(LOWEST <= rank <= len(self.names) for rank in ranks):
            raise ValueError(f"a rank is from {LOWEST} to {len(self.names)}")
        if not all(methods for methods, _ in self.amr):
            raise ValueError("a set of methods is not empty")
        if not all(seconds > 0 for seconds in self.remember.values()):
            raise ValueError("a rank is remembered for more than 0 seconds")

    def rank_of(self, name: str) -> int | None:
        """The rank of this name; None where no rank has it."""
        return self.names.index(name) + 1 if name in self.names else None

    def name_of(self, rank: int) -> str:
        """What a rank is called. Nothing asked for (0) is the lowest; more than there is, the highest."""
        return self.names[min(max(rank, LOWEST), len(self.names)) - 1]

    def rank(self, acr: str | None, amr: Sequence[str]) -> int:
        """The rank of one sign-in.

        A known `acr` is the provider's own verdict and stands alone: `amr` beside it could only raise it, and
        a list of methods says what was used, not how well. Without one, the strongest set of methods counts.
        """
        if acr is not None and acr in self.acr:
            return self.acr[acr]
        used = frozenset(amr)
        return max((rank for methods, rank in self.amr if methods <= used), default=LOWEST)

    def acr_values_for(self, rank: int) -> tuple[str, ...]:
        """The strings to ask the provider for (OpenID Connect Core 3.1.2.1 `acr_values`), the weakest that
        will do first; empty when nothing in particular is asked for or the configuration names nothing strong
        enough."""
        if rank <= LOWEST:
            return ()
        enough = [(found, acr) for acr, found in self.acr.items() if found >= rank]
        return tuple(acr for _, acr in sorted(enough, key=lambda pair: pair[0]))

    def claims_parameter(self, rank: int, max_age: float | None) -> str:
        """The same as OpenID Connect Core 5.5.1.1 asks for it, with the `claims` parameter: JSON, always
        spelled the same; empty when nothing is asked for.

        Essential and by value: a provider that honours it answers an error rather than something weaker.
        """
        asked: dict[str, JSON] = {}
        values = self.acr_values_for(rank)
        if values:
            asked["acr"] = {"essential": True, "values": [*values]}
        if max_age is not None:
            asked["auth_time"] = {"essential": True}
        return json.dumps({"id_token": asked}, separators=(",", ":")) if asked else ""

    def steps(self, rank: int, proved_at: float, until: float) -> tuple[Step, ...]:
        """What a sign-in that proved `rank` at `proved_at` is remembered for, in a session that ends at
        `until`. Who proved a rank has proved those below it, and each counts for a time of its own."""
        return tuple(
            Step(one, proved_at + self.remember[one] if one in self.remember else until)
            for one in range(LOWEST, rank + 1)
        )
