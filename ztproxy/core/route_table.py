"""The table of routes: how a request finds its own.

Knows: hosts, wildcards, prefixes and exact paths. Promises: exactly one answer, the most specific one, or a
reason why there is none; the `Route` object found here is the one that is forwarded to (never looked up
twice, the lesson of Pomerium GHSA-pvrc-wvj2-f59p). Leaves to the caller: everything after the match.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from ztproxy.core.conditions import ascii_lower, fold
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Path
from ztproxy.core.routes import Route


class _Paths:
    """The routes of one host, in matching order, found by as many look-ups as a path has segments: how many
    there are does not matter."""

    __slots__ = ("_exact", "_folded", "_lengths", "_literal", "routes")

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        # The place of the first route for an exact path (True) or for a prefix.
        self._literal: dict[tuple[bool, tuple[str, ...]], int] = {}
        self._folded: dict[tuple[bool, tuple[str, ...]], int] = {}
        for place, route in enumerate(routes):
            # `/` has one reading, of one empty segment; both ways to write the route mean it.
            segments = route.segments or ("",) if route.exact else route.segments
            if route.case_insensitive:
                self._folded.setdefault((route.exact, _fold_all(segments)), place)
            else:
                self._literal.setdefault((route.exact, segments), place)
        self._exact = any(route.exact for route in routes)
        self._lengths = sorted({len(r.segments) for r in routes if not r.exact}, reverse=True)

    def first(self, reading: tuple[str, ...]) -> Route | None:
        """The route that one reading of a path leads to."""
        found = self._at(True, reading) if self._exact else None
        if found is None:
            size = len(reading)
            for length in self._lengths:
                if length <= size:
                    found = self._at(False, reading[:length])
                    if found is not None:
                        break
        return None if found is None else self.routes[found]

    def _at(self, exact: bool, segments: tuple[str, ...]) -> int | None:
        found = self._literal.get((exact, segments))
        if not self._folded:
            return found
        folded = self._folded.get((exact, _fold_all(segments)))
        if found is None or folded is None:
            return folded if found is None else found
        return min(found, folded)


def _fold_all(segments: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(fold, segments))


class RouteTable:
    """All routes, found by host and then by the longest path; at equal length an exact one goes first.

    Immutable after construction. `match` answers a `Route` or the `Reason` why there is none. Where a path
    has several readings, every one must lead to the same route, else the request is ambiguous and refused.
    """

    __slots__ = ("_by_host", "_wildcards", "routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        by_host: dict[str, list[Route]] = {}
        for route in self.routes:
            by_host.setdefault(route.host, []).append(route)
        ordered = {
            host: tuple(sorted(them, key=lambda r: (r.exact, len(r.segments)), reverse=True))
            for host, them in by_host.items()
        }
        self._by_host = {host: _Paths(them) for host, them in ordered.items() if not host.startswith("*.")}
        self._wildcards = {host[1:]: _Paths(them) for host, them in ordered.items() if host.startswith("*.")}

    def of_host(self, host: str) -> tuple[Route, ...]:
        """The routes of a canonical host, in matching order; empty for a host that is not ours. A host with
        routes of its own never falls back to a wildcard's."""
        paths = self._paths(host)
        return () if paths is None else paths.routes

    def _paths(self, host: str) -> _Paths | None:
        found = self._by_host.get(host)
        if found is None:
            dot = host.find(".")
            found = self._wildcards.get(host[dot:]) if dot > 0 else None
        return found

    def match(self, host: str, path: Path) -> Route | Reason:
        """The route of a canonical host and path, else NO_SUCH_HOST, NO_SUCH_ROUTE, or HTTP_PATH where the
        path could be read in more than one way and the route does not tolerate it."""
        paths = self._paths(host)
        if paths is None:
            return Reason.NO_SUCH_HOST
        chosen = paths.first(path.readings[0])
        for reading in path.readings[1:]:
            if paths.first(reading) is not chosen:
                return Reason.HTTP_PATH
        if chosen is None:
            return Reason.HTTP_PATH if path.ambiguities else Reason.NO_SUCH_ROUTE
        if not path.ambiguities <= chosen.tolerates:
            return Reason.HTTP_PATH
        # Case-insensitive apps disagree about letters outside ASCII (is the Kelvin sign a `k`, is `ß` `ss`?):
        # a path on which they could differ is ambiguous, and no rule can be written for it (T03).
        if chosen.case_insensitive and any(map(_folds_in_two_ways, chain(*path.readings))):
            return Reason.HTTP_PATH
        return chosen


def _folds_in_two_ways(text: str) -> bool:
    return fold(text) != ascii_lower(text)
