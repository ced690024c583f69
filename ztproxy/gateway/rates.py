"""How often: who asked how often of late, in this worker; and the limits of a configuration over it.

Knows: which limit is counted for whom, and in which order. Promises: bounded memory and constant work for
each question; a limit of a session or a route is spent by what is forwarded alone, so that strangers use up
nobody's, and by nothing that another limit refuses (the sender's own is spent by whatever it asks for); a
store that is away lets nobody through unbounded, for then each worker counts by the same rate. Leaves the
arithmetic to `core.rates`, and saying it to the surface.

The order of one request: `arriving` before anything else, `before` once its route is known, and `at_once`
and `exact` when it was decided that it is forwarded. In an order they can rely on: sender, session, route.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ztproxy.core.rates import By, Rate, RateLimit, Spent, source_of, spend
from ztproxy.core.routes import Route
from ztproxy.errors import WorldError
from ztproxy.gateway.ports.rates import RateStore

STORE_AWAY = 1.0
"""Seconds for which a store that did not answer is not asked again; requests would queue up before it."""

_Kept = OrderedDict[tuple[str, str], float]


class Sender(str):
    """A key that costs whoever it is of nothing: by address. Anybody may have very many of them."""

    __slots__ = ()


class Buckets:
    """Counting in this process: one number for each key of each limit, of at most `most` keys, and of as many
    of senders.

    `clock` is monotonic. When there are too many, whoever asked longest ago is forgotten, and so has all of
    the burst again.
    """

    def __init__(self, clock: Callable[[], float], most: int = 65_536) -> None:
        self._clock, self._begin, self._most = clock, clock(), most
        # INVARIANT: apart, so that a flood from many addresses makes forget addresses alone. Among them is
        # nothing that only somebody signed in can have, nor a limit of all.
        self._until: _Kept = OrderedDict()
        self._of_senders: _Kept = OrderedDict()

    def spend(self, limit: str, key: str, rate: Rate) -> Spent:
        """One more of `key` under the limit of that name."""
        now, place, kept = self._now(), (limit, key), self._of(key)
        until = kept.get(place)
        if until is None:
            self._make_room(kept, now)
            spent = spend(rate, now, now)
        else:
            kept.move_to_end(place)
            spent = spend(rate, until, now)
        kept[place] = spent.until
        return spent

    def give_back(self, limit: str, key: str, rate: Rate) -> None:
        """What was spent was not used after all."""
        place, kept = (limit, key), self._of(key)
        if place in kept:
            kept[place] -= rate.interval

    def wait(self, limit: str, key: str, rate: Rate) -> float:
        """Seconds until one more would be allowed, 0 for now; nothing is spent."""
        now = self._now()
        return spend(rate, self._of(key).get((limit, key), now), now).wait

    def hold(self, limit: str, key: str, wait: float) -> None:
        """Nobody need ask elsewhere about `key` for so many seconds: the answer would be the same."""
        now, kept = self._now(), self._of(key)
        self._make_room(kept, now)
        kept[limit, key] = now + wait

    def held(self, limit: str, key: str) -> float:
        """Seconds that are left of it, 0 for none."""
        until = self._of(key).get((limit, key))
        return 0.0 if until is None else max(0.0, until - self._now())

    def __len__(self) -> int:
        return len(self._until) + len(self._of_senders)

    def _of(self, key: str) -> _Kept:
        return self._of_senders if type(key) is Sender else self._until

    def _now(self) -> float:
        # Small numbers, for short intervals are added to them: seconds since the epoch would round each.
        return self._clock() - self._begin

    def _make_room(self, kept: _Kept, now: float) -> None:
        # With each newcomer two of the oldest go whose burst is earned again: so a flood's memory goes with
        # the ordinary traffic after it, and no request pays for looking through all of it.
        for _ in range(2):
            if not kept:
                return
            oldest = next(iter(kept))
            if kept[oldest] > now and len(kept) < self._most:
                return
            del kept[oldest]


class Refusal(NamedTuple):
    """The limit that was met: what it counts by, its rate, and in how many seconds one more would be let
    through."""

    by: By
    rate: Rate
    wait: float


class _Named(NamedTuple):
    """A limit of a route, by the name it is counted under."""

    name: str
    limit: RateLimit


class _Limits(NamedTuple):
    """The limits of one route, by when they are asked."""

    before: tuple[_Named, ...]
    at_once: tuple[_Named, ...]
    exact: tuple[_Named, ...]


_ADDRESS, _SESSION = "address", "session"
_AWAY = "away"
_ORDER = (By.ADDRESS, By.SESSION, By.ROUTE)


class Limiter:
    """The limits of one configuration. `buckets` live as long as the worker, so that a reload is no new
    burst; `address` is always that of `Peer.address`. None for a rate sets no limit."""

    def __init__(
        self, buckets: Buckets, store: RateStore, per_address: Rate | None, per_session: Rate | None
    ) -> None:
        self._buckets, self._store = buckets, store
        self.per_address, self.per_session = per_address, per_session
        self._of: dict[Route, _Limits] = {}

    def arriving(self, address: str) -> Refusal | None:
        """Of whatever a sender asks for."""
        if self.per_address is None:
            return None
        spent = self._buckets.spend(_ADDRESS, Sender(source_of(address)), self.per_address)
        return None if spent.allowed else Refusal(By.ADDRESS, self.per_address, spent.wait)

    def before(self, route: Route, address: str) -> Refusal | None:
        """The route's limits by address, before anybody is judged: strangers have these too."""
        if not route.rates:
            return None
        return self._all(self._limits(route).before, address, None)

    def at_once(self, route: Route, address: str, session_id: str | None) -> Refusal | None:
        """The limits by session and by route of what is forwarded. Whoever has no session (None) is counted
        by address; the limit of all sessions is for sessions alone."""
        rate = self.per_session
        if rate is not None and session_id is not None:
            spent = self._buckets.spend(_SESSION, session_id, rate)
            if not spent.allowed:
                return Refusal(By.SESSION, rate, spent.wait)
        if not route.rates:
            return None
        refusal = self._all(self._limits(route).at_once, address, session_id)
        if refusal is not None and rate is not None and session_id is not None:
            self._buckets.give_back(_SESSION, session_id, rate)
        return refusal

    def exact_on(self, route: Route) -> bool:
        """Whether `exact` has anything to ask about this route."""
        return bool(route.rates) and bool(self._limits(route).exact)

    async def exact(self, route: Route, address: str, session_id: str | None) -> Refusal | None:
        """What is left to ask after `at_once`: the limits counted in the store. What is refused here has cost
        nothing of `at_once` either. Never raises.

        What was spent in the store stays spent. So whoever is known to be refused by a later limit asks
        nobody: a flood costs one of the limits before it for each wait.
        """
        limits = self._limits(route)
        for one in limits.exact:
            wait = self._known(one, address, session_id)
            if wait:
                self._unused(limits.at_once, address, session_id)
                return Refusal(one.limit.by, one.limit.rate, wait)
        for index, (name, limit) in enumerate(limits.exact):
            key = _key(limit.by, address, session_id)
            wait = await self._exactly(name, key, limit.rate) if limit.exact else self._here(name, key, limit)
            if wait:
                here = [other for other in limits.exact[:index] if not other.limit.exact]
                self._unused((*limits.at_once, *here), address, session_id)
                return Refusal(limit.by, limit.rate, wait)
        return None

    def _unused(self, limits: tuple[_Named, ...], address: str, session_id: str | None) -> None:
        """Gives back what was spent for what is not forwarded after all."""
        if self.per_session is not None and session_id is not None:
            self._buckets.give_back(_SESSION, session_id, self.per_session)
        for name, limit in limits:
            self._buckets.give_back(name, _key(limit.by, address, session_id), limit.rate)

    def _all(self, limits: tuple[_Named, ...], address: str, session_id: str | None) -> Refusal | None:
        for index, (name, limit) in enumerate(limits):
            wait = self._here(name, _key(limit.by, address, session_id), limit)
            if wait:
                for name, other in limits[:index]:
                    self._buckets.give_back(name, _key(other.by, address, session_id), other.rate)
                return Refusal(limit.by, limit.rate, wait)
        return None

    def _here(self, name: str, key: str, limit: RateLimit) -> float:
        return self._buckets.spend(name, key, limit.rate).wait

    def _known(self, one: _Named, address: str, session_id: str | None) -> float:
        """For how long this limit is known to refuse, without asking the store and without spending."""
        (name, limit), buckets = one, self._buckets
        key = _key(limit.by, address, session_id)
        wait = buckets.held(_refused(name), key) if limit.exact else 0.0
        if wait or (limit.exact and not buckets.held(_AWAY, "")):
            return wait
        return buckets.wait(name, key, limit.rate)

    async def _exactly(self, name: str, key: str, rate: Rate) -> float:
        """The wait, 0 for none. A refusal holds until the moment it names whatever anybody else does, for
        what is refused is not counted: so the store is asked once for it, and not by every request of a
        flood."""
        buckets = self._buckets
        wait = buckets.held(_refused(name), key)  # learnt meanwhile, while a limit before it was asked about
        if wait:
            return wait
        if not buckets.held(_AWAY, ""):
            try:
                spent = await self._store.spend(name, key, rate)
            except WorldError:
                buckets.hold(_AWAY, "", STORE_AWAY)
            else:
                if not spent.allowed:
                    buckets.hold(_refused(name), key, spent.wait)
                return spent.wait
        # A store that is away is no reason to let a flood through, nor to refuse whoever comes seldom.
        return buckets.spend(name, key, rate).wait

    def _limits(self, route: Route) -> _Limits:
        found = self._of.get(route)
        if found is None:
            found = self._of[route] = _sorted(route)
        return found


def _key(by: By, address: str, session_id: str | None) -> str:
    if by is By.ROUTE:
        return ""
    return Sender(source_of(address)) if by is By.ADDRESS or session_id is None else session_id


def _refused(name: str) -> str:
    return f"!{name}"


def _sorted(route: Route) -> _Limits:
    """INVARIANT: a limit of the route comes after every one of a person, be it exact or not. Else one person
    whom a later limit refuses uses up the route for everybody."""
    # By its place among those that count by the same: a reload that writes another one before it is no new
    # burst.
    place = dict.fromkeys(By, 0)
    named = []
    for limit in route.rates:
        place[limit.by] += 1
        named.append(_Named(f"{limit.by} {place[limit.by]}:{route.name}", limit))
    before = [one for one in named if one.limit.by is By.ADDRESS and not one.limit.exact]
    others = [one for one in named if one not in before]
    others.sort(key=lambda one: (_ORDER.index(one.limit.by), one.limit.exact))
    first = next((at for at, one in enumerate(others) if one.limit.exact), len(others))
    return _Limits(tuple(before), tuple(others[:first]), tuple(others[first:]))


class Sparing:
    """Says what there is to say at most so often; what was left out is told with the next that is said."""

    def __init__(self, say: Callable[[str], None], rate: Rate, clock: Callable[[], float]) -> None:
        self._say, self._rate, self._clock = say, rate, clock
        self._until, self._left_out = 0.0, 0

    def __call__(self, what: str) -> None:
        spent = spend(self._rate, self._until, self._clock())
        self._until = spent.until
        if not spent.allowed:
            self._left_out += 1
            return
        more = f" (and {self._left_out} more before it)" if self._left_out else ""
        self._left_out = 0
        self._say(what + more)
