"""How strongly someone signed in: `acr` and `amr` as providers write them, turned into one rank from 1 to 3.

Knows: which strings mean what, by configuration, with defaults for the names of RFC 8176 and the OpenID EAP
profile. Promises: what is not known ranks lowest; nothing is guessed from the spelling of a string. Leaves to
`core.claims` that the strings were verified, and to the policy which rank a route asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

LOWEST, HIGHEST = 1, 3
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

    Ranks are 1, 2 or 3. The order of `acr` is the order of preference when a rank is asked for.
    Raises `ValueError` for another rank or an empty set of methods, which everyone would satisfy.
    """

    acr: Mapping[str, int] = field(default_factory=lambda: _ACR)
    amr: tuple[tuple[frozenset[str], int], ...] = _AMR
    names: tuple[str, ...] = NAMES
    remember: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        ranks = [*self.acr.values(), *(rank for _, rank in self.amr)]
        if not all(LOWEST <= rank <= HIGHEST for rank in ranks):
            raise ValueError("a rank is 1, 2 or 3")
        if not all(methods for methods, _ in self.amr):
            raise ValueError("a set of methods is not empty")

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
