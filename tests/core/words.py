"""The words the core's tests are written in: `person`, `session`, `ask`, `asked`, `site`, `told`.

Each gives a plain, valid value; a test names only what it is about.
"""

from __future__ import annotations

from typing import Any

from ztproxy.core.conditions import Anyone, Condition, InGroup
from ztproxy.core.evidence import Evidence, Facts, NoSession, Unavailable
from ztproxy.core.identity import Identity, Session
from ztproxy.core.policy import Effect, Policy, Rule
from ztproxy.core.request import Ambiguity, Path, Peer, Request
from ztproxy.core.routes import Action, Forwarding, IdentityHeaders, Route
from ztproxy.core.upstream import Endpoint, Upstream

NOW = 1_750_000_000.0
ALICE = "alice-0001"
ISSUER = "https://idp.test"


def person(*groups: str, **more: Any) -> Identity:
    return Identity(**{"issuer": ISSUER, "subject": ALICE, "groups": groups, **more})


def session(*groups: str, identity: Identity | None = None, rank: int = 1, **more: Any) -> Session:
    """Signed in just now, for eight hours."""
    times = {"created_at": NOW, "authenticated_at": NOW, "verified_at": NOW, "expires_at": NOW + 28800}
    return Session(
        id="s1", identity=identity or person(*groups), provider="main", rank=rank, **(times | more)
    )


def path(text: str, *other_readings: str, because: Ambiguity | None = None) -> Path:
    """`/a/b` with its plain reading, and with further ones when it is ambiguous."""
    readings = tuple(tuple(one[1:].split("/")) for one in (text, *other_readings))
    return Path(text, readings, frozenset({because}) if because else frozenset())


def ask(target: str | Path = "/", **more: Any) -> Request:
    where = target if isinstance(target, Path) else path(target)
    plain = {
        "method": "GET",
        "scheme": "https",
        "host": "app.test",
        "port": 443,
        "path": where,
        "query": "",
        "fields": (),
        "peer": Peer("203.0.113.9", True),
    }
    return Request(**(plain | more))


def asked(who: Session | None = None, request: Request | None = None, now: float = NOW) -> Facts:
    request = request or ask()
    return Facts(request, request.path.readings[0], who, now)


def told(known: Session | NoSession | Unavailable | None = None, now: float = NOW) -> Evidence:
    return Evidence(known or NoSession(), now)


def policy(allow: Condition | None = None, deny: Condition | None = None) -> Policy:
    rules = [Rule(Effect.DENY, deny, "deny")] if deny else []
    return Policy([*rules, *([Rule(Effect.ALLOW, allow, "allow")] if allow else [])])


APP = Forwarding(Upstream((Endpoint("127.0.0.1", 8080),)))
EVERYONE = policy(Anyone())
ADMINS = policy(InGroup(frozenset({"admin"})))


def site(rules: Policy = ADMINS, action: Action = APP, **more: Any) -> Route:
    plain = {
        "name": "app",
        "host": "app.test",
        "port": 443,
        "scheme": "https",
        "segments": (),
        "exact": False,
        "identity": IdentityHeaders("https://app.test"),
    }
    return Route(**(plain | more), action=action, policy=rules)
