"""How strongly somebody signed in, as an operator writes it: levels, their names, and how long they count.

Knows: a level is written as its number or as its name. Promises: what asks for a level nobody can reach, or
for one that is not there, is a mistake. Leaves ranking a sign-in to `core.assurance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ztproxy.config.mistakes import Findings, Loc, did_you_mean, quoted, wrong
from ztproxy.config.model import Model
from ztproxy.config.values import Duration, Kind, Text, text_of
from ztproxy.core.assurance import LOWEST, MOST, NAMES, Levels


def _level(value: object) -> int | str:
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)  # from the environment, or as the key of a mapping
    if isinstance(value, int) and not isinstance(value, bool):
        if value < LOWEST:
            raise wrong(f"`{value}` is too small", f"write `{LOWEST}` or more")
        return value
    return text_of(value, "multi_factor")


Level = Annotated[
    int | str,
    Kind(_level, anyOf=[{"type": "integer", "minimum": LOWEST}, {"type": "string", "minLength": 1}]),
]
"""A rank, or the name of one; `rank_of` turns it into a rank."""


def _names(value: Any) -> Any:
    if not isinstance(value, list) or not 2 <= len(value) <= MOST:
        mend = f"write them with the lowest first, like `[{', '.join(NAMES)}]`"
        raise wrong(f"there are from 2 to {MOST} levels", mend)
    for name in value:
        if isinstance(name, str) and (name.isdecimal() or value.count(name) > 1):
            raise wrong(f"{quoted(name)} could mean another level", "give each a name of its own")
    return value


class AssuranceModel(Model):
    """What a provider says of a sign-in, as a level. `amr`: methods joined by `+` count together."""

    levels: Annotated[list[Text], BeforeValidator(_names)] = Field(
        default=list(NAMES),
        description="What the ranks 1, 2, 3, ... are called.",
        min_length=2,
        max_length=MOST,
    )
    remember: dict[Level, Duration] = Field(
        default={}, description="How long a level counts once it was proved; default: as the session lives."
    )
    acr: dict[str, Level] | None = None
    amr: dict[str, Level] | None = None


def compile_levels(model: AssuranceModel, absolute: float, findings: Findings) -> Levels:
    """`absolute` is the longest a session lives, in seconds."""
    names = tuple(model.levels)
    bare = Levels({}, (), names)

    def ranks(key: str, written: Mapping[str, int | str]) -> dict[str, int]:
        found = {}
        for text, level in written.items():
            at: Loc = ("assurance", key, text)
            found[text] = rank_of(level, at, bare, findings)
            if found[text] > len(names):
                mend = f"write `{LOWEST}` to `{len(names)}`, or a name of `assurance.levels`"
                findings.wrong(at, f"{quoted(level)} is not a rank", mend)
                found[text] = LOWEST
        return found

    default = Levels()
    acr = {text: min(rank, len(names)) for text, rank in default.acr.items()}
    if model.acr is not None:
        acr = ranks("acr", model.acr)
    amr = tuple((methods, min(rank, len(names))) for methods, rank in default.amr)
    if model.amr is not None:
        written = ranks("amr", model.amr)
        for text in written:
            if not all(text.split("+")):
                mend = "write one, or several joined by `+`, like `pwd+otp`"
                findings.wrong(("assurance", "amr", text), f"{quoted(text)} is not a set of methods", mend)
        amr = tuple((frozenset(text.split("+")), rank) for text, rank in written.items())
    reached = Levels(MappingProxyType(acr), amr, names)
    remember: dict[int, float] = {}
    for level, time in model.remember.items():
        at: Loc = ("assurance", "remember", str(level))
        known = len(findings.errors)
        rank = reachable_rank(level, at, reached, findings)
        if len(findings.errors) > known:
            continue
        if rank == LOWEST:
            findings.wrong(at, "every sign-in has this level as long as it lasts", "remove it")
        elif rank in remember:
            findings.wrong(at, f"rank {rank} is remembered twice", "remove one of them")
        elif time > absolute:
            findings.wrong(at, "this is longer than a session lives", "write a time up to `session.absolute`")
        remember[rank] = time
    return replace(reached, remember=MappingProxyType(remember))


def rank_of(level: int | str, at: Loc, levels: Levels, findings: Findings) -> int:
    """The rank of a level; a name nobody gave goes to the findings."""
    if isinstance(level, int):
        return level
    rank = levels.rank_of(level)
    if rank is not None:
        return rank
    findings.wrong(at, f"there is no level {quoted(level)}", did_you_mean(level, levels.names))
    return LOWEST


def reachable_rank(level: int | str, at: Loc, levels: Levels, findings: Findings) -> int:
    """The same where it is asked of somebody, who must be able to have it."""
    rank = rank_of(level, at, levels, findings)
    check_reachable(rank, at, levels, findings)
    return rank


def check_reachable(rank: int, at: Loc, levels: Levels, findings: Findings) -> None:
    """A rank nobody can ever have is a door without a key."""
    highest = max([LOWEST, *levels.acr.values(), *(rank for _, rank in levels.amr)])
    if rank > highest:
        findings.wrong(at, f"no sign-in reaches rank {rank}", f"the highest of `assurance` is {highest}")
