"""The proxy surface: every request that reaches a listener comes here once, is judged, and is acted on.

Knows: what each decision means on the wire. Promises: a request for our own paths never reaches an app; a
request without a route goes nowhere; any exception on the way to a decision is a denial with a reason; the
route that was judged is the route that is forwarded to. Synchronous while every fact is at hand: then no task
is made and the head leaves for the app in the same call. Leaves bytes to `wire`, and signing in to `portal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from ztproxy.core.decision import Deny, Forward, Login, StepUp
from ztproxy.core.identity import Credential
from ztproxy.core.outbound import ResponseFilter, outbound_request
from ztproxy.core.paths import is_own
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Peer, Request
from ztproxy.core.route_table import RouteTable
from ztproxy.core.routes import Forwarding, Redirect, Route, StaticResponse
from ztproxy.gateway.judge import Judge
from ztproxy.gateway.judgement import Judgement, Outcome
from ztproxy.gateway.rates import Limiter, Refusal
from ztproxy.surfaces.answers import PREFIX, Answer, Answers
from ztproxy.surfaces.pages import SAFE_FIELDS
from ztproxy.wire.exchange import Exchange
from ztproxy.wire.gate import Gate
from ztproxy.wire.pool import Pool

HandOver = Callable[[Exchange, Request], None]


class Lane(NamedTuple):
    """A forwarding route's own machinery: its pool, and what of its answers may pass, by who asked."""

    pool: Pool
    to_anyone: Callable[[int, list[Field]], Sequence[Field]]
    to_a_person: Callable[[int, list[Field]], Sequence[Field]]


@dataclass(frozen=True, slots=True)
class Plane:
    """Everything one configuration amounts to, swapped whole at a reload."""

    routes: RouteTable
    judge: Judge
    limiter: Limiter
    lanes: Mapping[str, Lane]
    answers: Answers
    portal: HandOver
    auth_host: str | None


def lane(pool: Pool, passing: ResponseFilter) -> Lane:
    """The lane of a route from its pool and its response filter."""

    def to_anyone(status: int, fields: list[Field]) -> Sequence[Field]:
        return passing.fields(fields, authenticated=False)

    def to_a_person(status: int, fields: list[Field]) -> Sequence[Field]:
        return passing.fields(fields, authenticated=True)

    return Lane(pool, to_anyone, to_a_person)


class ProxySurface:
    """The `wire.Handler` of the data listeners. What is forwarded for a person passes the `gate`; `record`
    hears of exchanges, `refused` of refusals."""

    def __init__(
        self,
        plane: Plane,
        gate: Gate,
        record: Callable[[Exchange], None],
        refused: Callable[[Reason], None],
    ) -> None:
        self.plane = plane
        self._gate, self._record, self._refused = gate, record, refused
        self._judging: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        request, plane = exchange.request, self.plane
        limiter = plane.limiter
        if limiter.per_address is not None:
            refusal = limiter.arriving(request.peer.address)
            if refusal is not None:
                self._too_many(exchange, request, plane, _UNROUTED, refusal)
                return
        if is_own(request.path):
            self._own(exchange, request, plane)
            return
        route = plane.routes.match(request.host, request.path)
        if isinstance(route, Reason):
            self._missing(exchange, request, plane, route)
            return
        if route.rates:
            refusal = limiter.before(route, request.peer.address)
            if refusal is not None:
                self._too_many(exchange, request, plane, _UNROUTED._replace(route=route.name), refusal)
                return
        judgement = None if route.rates and limiter.exact_on(route) else plane.judge.at_once(request, route)
        if judgement is not None:
            limited = limiter.per_session is not None or route.rates
            if not limited or self._within_limits(exchange, request, plane, judgement):
                self._act(exchange, request, plane, judgement)
            return
        task = asyncio.get_running_loop().create_task(self._judge(exchange, request, plane, route))
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    def refused(self, reason: Reason, peer: Peer) -> None:
        self._refused(reason)

    def finished(self, exchange: Exchange) -> None:
        self._record(exchange)

    async def rejudge(self, request: Request) -> Judgement | None:
        """What would be decided about a request under way if it came now; None without a route for it."""
        plane = self.plane
        route = plane.routes.match(request.host, request.path)
        return None if isinstance(route, Reason) else await plane.judge.judge(request, route)

    def _own(self, exchange: Exchange, request: Request, plane: Plane) -> None:
        if request.host == plane.auth_host or plane.routes.of_host(request.host):
            plane.portal(exchange, request)
        else:
            self._missing(exchange, request, plane, Reason.NO_SUCH_HOST)

    async def _judge(self, exchange: Exchange, request: Request, plane: Plane, route: Route) -> None:
        try:
            judgement = await plane.judge.judge(request, route)
            if not exchange.alive or not self._within_limits(exchange, request, plane, judgement):
                return
            if plane.limiter.exact_on(route) and isinstance(judgement.decision, Forward):
                again = await self._counted_exactly(exchange, request, plane, judgement)
                if again is None:
                    return
                judgement = again
            if plane is not self.plane:
                # Reloaded meanwhile: what is judged by the old is not done by the new. It is counted once
                # more, which does no harm.
                self.handle(exchange)
            else:
                self._act(exchange, request, plane, judgement)
        except Exception as error:
            # INVARIANT: whatever goes wrong on the way to a decision is a denial (authentik CVE-2026-25748).
            # The synchronous way has the same from `wire.downstream`, which fails the exchange.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a request could not be judged", "exception": error}
            )
            exchange.fail()

    async def _counted_exactly(
        self, exchange: Exchange, request: Request, plane: Plane, judgement: Judgement
    ) -> Judgement | None:
        """Has the store count a request that is to be forwarded; the judgement to act by after that, or None
        where nothing is left to do."""
        route = judgement.route
        refusal = await plane.limiter.exact(route, request.peer.address, _counted_as(judgement))
        if refusal is not None:
            self._too_many(exchange, request, plane, judgement.outcome, refusal)
            return None
        # INVARIANT: decided anew, for what was awaited may have been overtaken by a revocation.
        judgement = await plane.judge.judge(request, route)
        return judgement if exchange.alive else None

    def _within_limits(
        self, exchange: Exchange, request: Request, plane: Plane, judgement: Judgement
    ) -> bool:
        """Spends one of each limit of what is forwarded, or answers that there was too much of it."""
        if type(judgement.decision) is not Forward:
            return True
        address = request.peer.address
        refusal = plane.limiter.at_once(judgement.route, address, _counted_as(judgement))
        if refusal is not None:
            self._too_many(exchange, request, plane, judgement.outcome, refusal)
        return refusal is None

    def _too_many(
        self, exchange: Exchange, request: Request, plane: Plane, outcome: Outcome, refusal: Refusal
    ) -> None:
        exchange.tag = outcome._replace(decision="refuse", reasons=(Reason.RATE_LIMITED,))
        answer = plane.answers.too_many(request, exchange.request_id, *refusal)
        self._answer(exchange, plane, answer)

    def _act(self, exchange: Exchange, request: Request, plane: Plane, judgement: Judgement) -> None:
        route, decision, identity, session, exchange.tag = judgement
        match decision:
            case Forward():
                exchange.grant = judgement
                exchange.check_at = exchange.started + route.recheck
                self._forward(exchange, request, plane, route, identity, decision)
            case Login() | StepUp():
                site = route.site(request)
                challenge = plane.answers.challenge(
                    request, decision, exchange.request_id, site, services=route.services
                )
                self._answer(exchange, plane, challenge)
            case Deny():
                refusal = plane.answers.refusal(
                    request,
                    decision,
                    exchange.request_id,
                    session,
                    route.methods,
                    services=route.services,
                )
                self._answer(exchange, plane, refusal)
            case _:
                assert_never(decision)

    def _forward(
        self,
        exchange: Exchange,
        request: Request,
        plane: Plane,
        route: Route,
        identity: bytes,
        decision: Forward,
    ) -> None:
        action = route.action
        match action:
            case Forwarding():
                own = plane.lanes[route.name]
                person = decision.session is not None
                outbound = outbound_request(request, route, action, exchange.request_id, identity)
                exchange.forward(
                    own.pool,
                    outbound,
                    own.to_a_person if person else own.to_anyone,
                    max_body=action.max_body,
                    gate=self._gate if person else None,
                    on_failure=self._upstream_failed,
                )
            case Redirect():
                where = action.location
                if action.keep_path:
                    where = where.rstrip("/") + request.path.text + request.query
                fields = ((b"Location", where.encode()), *_caching(decision))
                self._answer(exchange, plane, Answer(action.status, fields, b""))
            case StaticResponse():
                fields = ((b"Content-Type", action.content_type.encode()), *_caching(decision))
                self._answer(exchange, plane, Answer(action.status, fields, action.body))
            case _:
                assert_never(action)

    def _upstream_failed(self, exchange: Exchange, reason: Reason) -> None:
        plane = self.plane
        self._answer(exchange, plane, plane.answers.failure(exchange.request, reason, exchange.request_id))

    def _missing(self, exchange: Exchange, request: Request, plane: Plane, reason: Reason) -> None:
        if reason is Reason.NO_SUCH_HOST and request.host == plane.auth_host:
            # Where only sign-ins live there is no app, and yet people come to its front door.
            if request.path.text == "/":
                exchange.tag = Outcome("", "portal", (), "", None, "")
                my_apps = (b"Location", f"{PREFIX}/apps".encode())
                self._answer(exchange, plane, Answer(302, (my_apps, *SAFE_FIELDS), b""))
                return
            reason = Reason.NO_SUCH_ROUTE
        exchange.tag = _UNROUTED._replace(reasons=(reason,))
        answer = plane.answers.refused(request, reason, exchange.request_id)
        if reason is Reason.NO_SUCH_ROUTE:
            self._answer(exchange, plane, answer)
            return
        # INVARIANT: what cannot be read in one way, or is for a site that is not here, ends the connection:
        # nothing after it on this connection can be trusted to mean what it says.
        self._refused(reason)
        exchange.respond(answer.status, answer.fields, answer.body, close=True)

    def _answer(self, exchange: Exchange, plane: Plane, answer: Answer) -> None:
        status, fields, body = plane.answers.complete(exchange.request, answer)
        exchange.respond(status, fields, body)


def _caching(decision: Forward) -> tuple[Field, ...]:
    """T41: what was given to one person must not be given to the next by a cache in between."""
    return () if decision.session is None else ((b"Cache-Control", b"no-store"),)


_UNROUTED = Outcome("", "refuse", (), "", None, "")


def _counted_as(judgement: Judgement) -> str | None:
    """Whose budget this is: a session's, a service's whatever token it shows, or (None) the address's."""
    session = judgement.session
    if session is None or session.by is Credential.COOKIE:
        return None if session is None else session.id
    return f"{session.identity.issuer} {session.identity.subject}"
