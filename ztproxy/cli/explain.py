"""`ztproxy explain`: what would be decided, and why, by the very function that decides.

Knows: how a person, a moment and a URL on the command line become the values of the core. Promises: no state,
no network and no clock but `--at`; the answer is `core.decision.decide`'s. Leaves the words to `words`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, assert_never
from urllib.parse import urlsplit

import typer

from ztproxy.cli.options import Config
from ztproxy.cli.words import say, summary
from ztproxy.config import Settings, load
from ztproxy.config.values import host_of
from ztproxy.core.conditions import Fails, Holds, Needs, Truth
from ztproxy.core.decision import Decision, Deny, Forward, Login, StepUp, decide
from ztproxy.core.evidence import Evidence, Facts, NoSession
from ztproxy.core.identity import JSON, Identity, Session
from ztproxy.core.normalise import canonical_path
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Path as RequestPath
from ztproxy.core.request import Peer, Request
from ztproxy.core.routes import Route
from ztproxy.errors import OperatorError

NOWHERE = "192.0.2.1"  # an address of nobody (RFC 5737), in no network a policy would name


@dataclass(frozen=True, slots=True)
class Question:
    """Who opens what, when. `user` is an e-mail; without it and without `subject` nobody is signed in.

    `now` is seconds since the epoch, `age` the seconds since the sign-in.
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


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and every rule's own answer, over the reading of the path that decided."""

    decision: Decision
    route: Route | None = None
    rules: tuple[tuple[str, str, str, Truth], ...] = ()


def answer(settings: Settings, question: Question) -> Explanation:
    """Raises `OperatorError` for a question that cannot be understood."""
    request = _request(question)
    if isinstance(request, Reason):
        return Explanation(Deny((request,)))
    route = settings.routes.match(request.host, request.path)
    if isinstance(route, Reason):
        return Explanation(Deny((route,)))
    session = _session(settings, question)
    evidence = Evidence(session or NoSession(), question.now)
    facts = Facts(request, request.path.readings[0], session, question.now)
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
    if canonical.readings[0][0] == ".ztproxy":
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
    return Session(
        id="explain",
        identity=identity,
        provider=provider.name,
        created_at=signed_in,
        authenticated_at=signed_in,
        verified_at=signed_in,
        expires_at=signed_in + settings.session.absolute,
        acr=question.acr,
        amr=tuple(question.amr),
        rank=settings.levels.rank(question.acr, question.amr),
    )


def explain(
    url: Annotated[str, typer.Option(help="What is opened.")],
    config: Config = Path("ztproxy.yaml"),
    user: Annotated[
        str | None, typer.Option(help="Their verified e-mail; without it nobody is signed in.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Their `sub`, if it is not the e-mail.")] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Who vouches for them; default: the first provider.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group they are in; may be repeated.")] = None,
    claim: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; dots nest; may be repeated.")] = None,
    acr: Annotated[str | None, typer.Option(help="What the provider says of the sign-in.")] = None,
    amr: Annotated[list[str] | None, typer.Option(help="A method used; may be repeated.")] = None,
    method: Annotated[str, typer.Option(help="The request's method.")] = "GET",
    ip: Annotated[str, typer.Option(help="Where they are.")] = NOWHERE,
    at: Annotated[str | None, typer.Option(help="When, like 2026-12-31T23:00+01:00; default: now.")] = None,
    age: Annotated[int, typer.Option(min=0, help="Seconds since they signed in.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what would be decided and why. Ends with 0 if the request would be forwarded, else with 1."""
    settings = load(config, look=False)
    question = Question(
        url,
        _moment(at),
        method,
        user,
        subject,
        issuer,
        group or (),
        _claims(claim or ()),
        acr,
        amr or (),
        _address(ip),
        float(age),
    )
    explanation = answer(settings, question)
    if as_json:
        typer.echo(json.dumps(as_data(explanation), indent=2))
    else:
        for line in _lines(explanation):
            typer.echo(line)
    if not isinstance(explanation.decision, Forward):
        raise typer.Exit(1)


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise OperatorError(f"`{text}` is not a moment", "write it like `2026-12-31T23:00+01:00`") from None
    if moment.tzinfo is None:
        raise OperatorError(f"`{text}` says no zone", f"write `{text}Z` or an offset like `+01:00`")
    return moment.timestamp()


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise OperatorError(f"`{text}` is not an IP address", "write it like `10.1.2.3`") from None


def _claims(texts: Sequence[str]) -> dict[str, JSON]:
    """`a.b=1` nests; a value that reads as JSON is that value, else it is text; repeated, it is a list."""
    values: dict[str, list[JSON]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise OperatorError(f"`{text}` is not a claim", "write `--claim department=finance`")
        try:
            parsed: JSON = json.loads(value)
        except ValueError:
            parsed = value
        values.setdefault(name, []).append(parsed)
    claims: dict[str, JSON] = {}
    for name, found in values.items():
        *outer, last = name.split(".")
        into = claims
        for step in outer:
            inner = into.setdefault(step, {})
            if not isinstance(inner, dict):
                raise OperatorError(f"the claim `{name}` is below one that has a value", "give one of them")
            into = inner
        into[last] = found[0] if len(found) == 1 else found
    return claims


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
    if isinstance(decision, StepUp):
        data |= {"rank": decision.rank, "max_age": decision.max_age}
    data["route"] = explanation.route.name if explanation.route is not None else None
    data["rules"] = [
        {
            "name": name,
            "effect": effect,
            "condition": condition,
            "answer": _word(truth),
            "reasons": _why(truth),
        }
        for name, effect, condition, truth in explanation.rules
    ]
    return data


def _word(truth: Truth) -> str:
    match truth:
        case Holds():
            return "holds"
        case Fails():
            return "fails"
        case Needs(ask):
            return f"needs_{ask.name.lower()}"
        case _:
            assert_never(truth)


def _why(truth: Truth) -> list[str]:
    return [] if isinstance(truth, Holds) else [reason.value for reason in truth.reasons]


def _lines(explanation: Explanation) -> list[str]:
    decision = explanation.decision
    reasons = ", ".join(decision.reasons)
    head = {"forward": "FORWARD", "login": "LOGIN", "step_up": "STEP UP", "deny": "DENY"}[kind(decision)]
    lines = [f"{head}: {reasons}", *(f"  {reason.sentence}" for reason in decision.reasons)]
    if isinstance(decision, StepUp):
        wanted = [f"rank {decision.rank}"] if decision.rank > 1 else []
        wanted += [f"a sign-in within {decision.max_age:.0f} s"] if decision.max_age is not None else []
        lines.append(f"  asked for: {' and '.join(wanted)}")
    if explanation.route is not None:
        lines += ["", f"route {explanation.route.name}: {summary(explanation.route)[0]}"]
    for name, effect, condition, truth in explanation.rules:
        why = ", ".join(_why(truth))
        lines.append(
            f"  {_word(truth).replace('_', ' '):13} {effect:5} {condition} ({name})"
            + (f": {why}" if why else "")
        )
    return lines
