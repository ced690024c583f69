"""What grows, in which sizes, and why a curve that is not flat is not.

Knows: the causes, found in the code and weighed by themselves. Promises: a cause is told only where its curve
shows it, in the processor time of a request too; a slope that nobody has explained says so. Leaves setting
sizes up to `__main__`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.figures import Aim, Curve, ratios
from bench.growth.house import RECHECK, Sizes
from bench.growth.measuring import Measured

FLAT = 0.95
"""The last size to the first, from which on a curve counts as flat."""

LATER = 1.5
"""So many times the p99 of the first size, and `LATER_MS` more, is a slope too."""

LATER_MS = 0.5

UNEXPLAINED = "not explained yet: profile a worker at the largest size"


@dataclass(frozen=True, slots=True)
class Kind:
    """One curve before it is measured. `why` explains less throughput, `late` a later p99, wherever they
    show."""

    name: str
    what: str
    of: str
    sizes: tuple[int, ...]
    small: tuple[int, ...]
    why: str = ""
    late: str = ""


ROUTES = Kind(
    "routes",
    "routes",
    "each host has one, with an upstream of its own; the last one is asked",
    (1, 10, 100, 1_000, 10_000),
    (1, 100),
)
PATHS = Kind(
    "paths",
    "routes of one host",
    "they differ in their prefix; the one with the shortest is asked",
    (1, 100, 10_000),
    (1, 100),
)
RULES = Kind(
    "rules",
    "rules of a policy",
    "they ask for a group; the last one matches",
    (1, 10, 100, 1_000),
    (1, 100),
)
BY_PATH = Kind(
    "rules_by_path",
    "rules of a policy that ask for the path",
    "they ask for a group and a path; the last one matches",
    (1, 100, 1_000),
    (1, 100),
    why="what depends on the path is decided for each request, and rules are asked one after the other "
    "until one holds (`Judge`, `AnyOf.ask`)",
    late="a request takes that much longer, and those behind it wait",
)
SESSIONS = Kind(
    "sessions",
    "sessions in the store",
    "one of them asks",
    (1, 1_000, 100_000, 1_000_000),
    (1, 2_000),
)
IN_TURN = Kind(
    "sessions_in_turn",
    "sessions in the store, of which up to 256 take turns",
    "each request is the next one's",
    (1, 1_000, 100_000, 1_000_000),
    (1, 2_000),
    why="each session in use is read again every 0.8 s (`known.FRESH`), in a round trip of its own that "
    "costs as much as two requests or more; not how many are in the store matters, but how many are in use",
    late="256 sessions that came together are read again together, every 0.8 s",
)
AT_RANDOM = Kind(
    "sessions_at_random",
    "sessions in the store, of which any may be next",
    "each request is one at random: with many, almost each is the first of its session in this worker",
    (1, 1_000, 100_000, 1_000_000),
    (1, 2_000),
    why="the first request of a session in a worker reads it (two round trips to the store), notes its use "
    "(two more) and signs an assertion (`Witness._ask_store`, `RedisSessions.touch`); not how many are in "
    "the store matters, but how many are new to the worker",
    late="the first request of a session waits for four round trips to the store and a signature",
)
GROUPS = Kind(
    "groups",
    "groups of the person",
    "the policy asks for one of them, and the app is told of that one",
    (1, 10, 100, 1_000, 5_000),
    (1, 100),
)
TOLD = Kind(
    "groups_told",
    "groups of the person, all told to the app",
    "the policy asks for one of them",
    (1, 1_000, 5_000),
    (1, 100),
    why="the assertion names them all, so every request to the app is that much longer: copied, sent and "
    "parsed each time; `identity: {groups: [...]}` on the route leaves out what the app does not need",
    late="every request to the app carries an assertion of so many octets",
)
IDLE = Kind(
    "idle",
    "connections that are open and idle",
    "each had one answer",
    (0, 1_000, 5_000, 20_000),
    (0, 200),
)
SOCKETS = Kind(
    "websockets",
    "WebSockets that are open and idle",
    f"each with a connection to the app, and judged again every {RECHECK} s, which is twice the default",
    (0, 1_000, 10_000),
    (0, 200),
    why="each is judged again after `recheck`, in a task of its own (`Watch.tick`); reckoned, not profiled",
    late="up to 256 of them are judged again in one turn of the loop (`Watch.tick`), and what comes waits; "
    "read in the code, not profiled",
)
WORKERS = Kind(
    "workers",
    "workers",
    "each on a core, of which the second is the load generator's and the app's too",
    (1, 2),
    (1, 2),
    late="the second worker waits for its core, which is the load generator's and the app's too",
)

KINDS = (ROUTES, PATHS, RULES, BY_PATH, SESSIONS, IN_TURN, AT_RANDOM, GROUPS, TOLD, IDLE, SOCKETS, WORKERS)


def sizes_of(kind: Kind, at: int) -> Sizes:
    """What a node of this curve holds at one size. What is not configured (sessions, groups, connections) is
    the same for all."""
    if kind is ROUTES or kind is PATHS:
        return Sizes(routes=at, paths=kind is PATHS and at > 1)
    if kind is RULES or kind is BY_PATH:
        return Sizes(rules=at, by_path=kind is BY_PATH)
    if kind is WORKERS:
        return Sizes(workers=at)
    return Sizes(told=kind is TOLD)


def curve(kind: Kind, measured: Sequence[Measured], void: Mapping[int, str], of: str = "") -> Curve:
    """As the result file has it. The ratio is the median of those of each round, of the last size that has
    any to the first; sizes that have none are part of what is said of the slope."""
    first, last = measured[0], measured[-1]
    ratio = ratios([one.rate for one in last.full], [one.rate for one in first.full])["median"]
    described = of or kind.of
    missing = [f"at {at:,} no round counts: {why}" for at, why in void.items()]
    return {
        "what": kind.what,
        "of": f"{described}; p99 at {first.rate:,.0f} requests/s, or what goes" if described else "",
        "points": [one.point() for one in measured],
        "ratio": ratio,
        "slope": ". ".join(filter(None, [slope(kind, measured, ratio), *missing])),
    }


def slope(kind: Kind, measured: Sequence[Measured], ratio: float) -> str:
    """Empty for a flat curve."""
    if len(measured) < 2:
        return ""
    first, last = (one.point()["p99_ms"]["median"] for one in (measured[0], measured[-1]))
    said = []
    if ratio < FLAT:
        before, after = (median(one.cpu_us) for one in (measured[0], measured[-1]))
        cause = kind.why or UNEXPLAINED
        if before / after >= FLAT:
            # Whoever had the core instead, it was not a request of ours that grew.
            cause = (
                f"a request took {after:.0f} us of processor, and {before:.0f} before: others had the core"
            )
        said.append(f"throughput: {cause}")
    if last > first * LATER and last > first + LATER_MS:
        said.append(f"p99: {kind.late or UNEXPLAINED}")
    return ". ".join(said)


def aims(measured: dict[str, float], why: dict[str, str]) -> list[Aim]:
    """By the names of the curves: the last size to the first. One session that asks is the easiest of three
    ways to use many, so the aim says what the others come to."""
    others = (("256 in turn", IN_TURN), ("any at random", AT_RANDOM))
    beside = [f"{what} {measured[kind.name]:.2f}" for what, kind in others if kind.name in measured]
    said = [why.get(SESSIONS.name, ""), f"with more of them asking: {', '.join(beside)}" if beside else ""]
    why = {**why, SESSIONS.name: "; ".join(filter(None, said))}
    wanted = (
        ("routes", "10,000 routes to 1", FLAT),
        ("sessions", "1,000,000 sessions to 1, one of them asking", FLAT),
        ("workers", "two workers to one", 1.8),
    )
    return [
        Aim(what, measured.get(name), aim, most=False, why=why.get(name, "")) for name, what, aim in wanted
    ]
