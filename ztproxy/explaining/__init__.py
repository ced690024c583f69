"""What would be decided, and why, by the very function that decides: for the command line and the admin API.

Knows: how a person, a moment and a URL become the values of the core. Promises: no state, no network and no
clock; the answer is `core.decision.decide`'s. Leaves asking, and showing the answer, to its callers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, assert_never
from urllib.parse import urlsplit

from ztproxy.config import Settings
from ztproxy.config.values import host_of
from ztproxy.core.conditions import Fails, Holds, Needs, Truth
from ztproxy.core.decision import Decision, Deny, Forward, Login, StepUp, decide
from ztproxy.core.device import OnDevice
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, Evidence, Facts, NoSession
from ztproxy.core.identity import JSON, Identity, Session
from ztproxy.core.lock_book import LockBook
from ztproxy.core.paths import canonical_path, is_own
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Path as RequestPath
from ztproxy.core.request import Peer, Request
from ztproxy.core.routes import Route
from ztproxy.core.sessions import at, device_id, limits_for
from ztproxy.errors import OperatorError
from ztproxy.explaining.words import say

NOWHERE = "192.0.2.1"  # an address of nobody (RFC 5737), in no network a policy would name


@dataclass(frozen=True, slots=True)
class Question:
    """Who opens what, when. `user` is an e-mail; without it and without `subject` nobody is signed in.

    `now` is seconds since the epoch, `age` the seconds since the sign-in. `session` is a real one, in place
    of all that is said of a person here. `device` is what is known of the one they use (`devices`): somebody
    made up signed in on it.
    """

    url: str
    now: float
    method: str = "GET"
    user: str | None = None
    subject: str | None = None
    issuer: str | None = None
    groups: Sequence[str] = ()
    claims: Mapping[str, JSON] = field(default_factory=dict)
    acr: str | None = None
    amr: Sequence[str] = ()
    ip: str = NOWHERE
    age: float = 0.0
    session: Session | None = None
    device: DeviceEvidence = NOT_ASKED


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and every rule's own answer, over the reading of the path that decided."""

    decision: Decision
    route: Route | None = None
    rules: tuple[tuple[str, str, str, Truth], ...] = ()


def answer(settings: Settings, question: Question, book: LockBook | None = None) -> Explanation:
    """`book`: the locks in force, where they are known. Raises `OperatorError` for a question that cannot be
    understood."""
    request = _request(question)
    if isinstance(request, Reason):
        return Explanation(Deny((request,)))
    route = settings.routes.match(request.host, request.path)
    if isinstance(route, Reason):
        return Explanation(Deny((route,)))
    session = question.session or _session(settings, question)
    locks = () if book is None else book.meeting(session, route.name, question.now)
    evidence = Evidence(session or NoSession(), question.now, locks, question.device)
    facts = Facts(request, request.path.readings[0], session, question.now, question.device)
    rules = tuple(
        (rule.name, rule.effect.value, say(rule.condition), truth)
        for rule, truth in route.policy.explain(facts)
    )
    return Explanation(decide(route, request, evidence), route, rules)


def _request(question: Question) -> Request | Reason:
    parts = urlsplit(question.url)
    host = host_of(parts.hostname or "")
    if parts.scheme not in ("http", "https") or host is None:
        raise OperatorError(f"`{question.url}` is not a URL", "write it like `https://app.example.com/path`")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise OperatorError(f"`{question.url}` has no port of this world", "leave it out") from None
    target = question.url.split("://", 1)[1].partition("#")[0]
    path, mark, query = target.partition("?")
    raw = "/" + path.partition("/")[2]
    canonical: RequestPath | Reason = canonical_path(raw.encode())
    if isinstance(canonical, Reason):
        return canonical
    if is_own(canonical):
        raise OperatorError("`/.ztproxy/` is ztproxy's own on every host", "ask about another path")
    peer = Peer(question.ip, parts.scheme == "https")
    method = question.method.upper()
    return Request(method, parts.scheme, host, port, canonical, mark + query, (), peer)


def _session(settings: Settings, question: Question) -> Session | None:
    if question.user is None and question.subject is None:
        given = question.groups or question.claims or question.acr or question.amr
        if given:
            raise OperatorError("groups, claims and acr belong to somebody", "add `--user alice@example.com`")
        return None
    provider = settings.providers[0]
    identity = Identity(
        question.issuer or provider.issuer,
        question.subject or question.user or "",
        question.user,
        groups=tuple(question.groups),
        claims=MappingProxyType(dict(question.claims)),
    )
    signed_in = question.now - question.age
    until = signed_in + limits_for(settings.session, question.groups)[1]
    rank = settings.levels.rank(question.acr, question.amr)
    on = question.device if isinstance(question.device, OnDevice) else None
    session = Session(
        id="explain",
        identity=identity,
        provider=provider.name,
        created_at=signed_in,
        authenticated_at=signed_in,
        verified_at=signed_in,
        expires_at=until,
        acr=question.acr,
        amr=tuple(question.amr),
        rank=rank,
        fresh=True,
        steps=settings.levels.steps(rank, signed_in, until),
        certificate=None if on is None else on.certificate.thumbprint,
        device=None if on is None else device_id(on),
    )
    return at(session, question.now)


def kind(decision: Decision) -> str:
    """The decision's one word."""
    match decision:
        case Forward():
            return "forward"
        case Login():
            return "login"
        case StepUp():
            return "step_up"
        case Deny():
            return "deny"
        case _:
            assert_never(decision)


def as_data(explanation: Explanation) -> dict[str, Any]:
    """For programs, and for the decision cases of the tests."""
    decision = explanation.decision
    data: dict[str, Any] = {
        "decision": kind(decision),
        "reasons": [reason.value for reason in decision.reasons],
    }
    if isinstance(decision, Deny):
        data["status"] = decision.status
        if decision.message:
            data["message"] = decision.message
    if isinstance(decision, StepUp):
        data |= {"rank": decision.rank, "max_age": decision.max_age}
    data["route"] = explanation.route.name if explanation.route is not None else None
    data["rules"] = [
        {
            "name": name,
            "effect": effect,
            "condition": condition,
            "answer": word(truth),
            "reasons": why(truth),
        }
        for name, effect, condition, truth in explanation.rules
    ]
    return data


def word(truth: Truth) -> str:
    """A rule's own answer, in one word."""
    match truth:
        case Holds():
            return "holds"
        case Fails():
            return "fails"
        case Needs(ask):
            return f"needs_{ask.name.lower()}"
        case _:
            assert_never(truth)


def why(truth: Truth) -> list[str]:
    """The reasons of an answer that does not hold."""
    return [] if isinstance(truth, Holds) else [reason.value for reason in truth.reasons]
