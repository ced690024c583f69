"""Conditions and routes in plain words, for `check` and `explain`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import time

from ztproxy.core import conditions as core
from ztproxy.core import device_conditions as devices
from ztproxy.core import service_conditions as services
from ztproxy.core.conditions import Condition
from ztproxy.core.device import Value
from ztproxy.core.policy import Effect, Policy
from ztproxy.core.routes import Forwarding, Redirect, Route, StaticResponse

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def either(words: Iterable[object]) -> str:
    """`a, b or c`."""
    listed = [str(word) for word in words]
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def say(condition: Condition) -> str:
    """What a condition asks, as the second half of "allow ..."."""
    match condition:
        case core.Anyone():
            return "everyone, signed in or not"
        case core.Authenticated():
            return "everyone who is signed in"
        case core.UserIs(subjects):
            return f"user {either(sorted(subjects))}"
        case core.EmailIs(emails):
            return f"e-mail {either(sorted(emails))}"
        case core.DomainIs(domains):
            return f"e-mail at {either(sorted(domains))}"
        case core.InGroup(groups):
            return f"group {either(sorted(groups))}"
        case core.ClaimIs(path, values):
            return f"claim {'.'.join(path)} {either(values)}"
        case core.RankAtLeast(rank):
            return f"a sign-in of rank {rank} or more"
        case core.MethodIs(methods):
            return f"method {either(sorted(methods))}"
        case core.PathIs(segments):
            return f"path {path_of(segments)}"
        case core.PathUnder(segments):
            return f"path beneath {path_of(segments)}"
        case core.Within():
            return _window(condition)
        case core.FromNetwork(networks):
            return f"from {either(networks)}"
        case devices.CertificateIs():
            return _certificate(condition)
        case devices.DeviceKnown():
            return "a device of the inventory"
        case devices.DeviceApproved():
            return "an approved device"
        case devices.DeviceOwned():
            return "a device of their own"
        case devices.PlatformIs(platforms):
            return f"platform {either(sorted(platforms))}"
        case devices.PostureIs(name, test, within):
            age = "" if within is None else f" (known for less than {_span(within)})"
            return f"{name} {_test(test)}{age}"
        case services.ServiceIs(names, spiffe):
            return f"service {either([*sorted(names), *spiffe])}"
        case services.HasScopes(scopes):
            return f"a token for {' and '.join(sorted(scopes))}"
        case services.IsPerson():
            return "a person who is signed in"
        case core.AllOf():
            return " and ".join(_distinct(condition))
        case core.AnyOf():
            return " or ".join(_distinct(condition))
        case core.Not():
            return f"not ({say(condition.part)})"
        case Policy():
            return "; ".join(f"{rule.effect.value} {say(rule.condition)}" for rule in condition.rules)
    return type(condition).__name__


def _distinct(group: core.AllOf | core.AnyOf) -> list[str]:
    """Its parts; a claim's dotted name is asked for in two forms that read the same, and is said once."""
    return list(dict.fromkeys(_inner(part) for part in group.parts))


def _inner(condition: Condition) -> str:
    text = say(condition)
    several = isinstance(condition, core.AllOf | core.AnyOf) and len(_distinct(condition)) > 1
    return f"({text})" if several else text


def _certificate(condition: devices.CertificateIs) -> str:
    asked = (
        ("of authority", condition.authorities),
        ("with fingerprint", condition.thumbprints),
        ("with key", condition.keys),
        ("issued by", condition.issuers),
        ("for", condition.subjects),
        ("for host", condition.dns),
        ("for e-mail", condition.emails),
        ("for URI", condition.uris),
        ("for SPIFFE ID", condition.spiffe),
    )
    parts = [f"{words} {either(sorted(values))}" for words, values in asked if values]
    return " ".join(["a client certificate", *([" and ".join(parts)] if parts else [])])


def _test(test: devices.Test) -> str:
    match test:
        case devices.Equals(value):
            return _value(value)
        case devices.OneOf(values):
            return either(map(_value, values))
        case devices.AtMost(number):
            return f"at most {number:g}"
        case devices.AtLeast(number):
            return f"at least {number:g}"


def _value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _span(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _window(window: core.Within) -> str:
    parts = []
    if window.days:
        parts.append("on " + either(_DAYS[day] for day in sorted(window.days)))
    if window.after is not None or window.before is not None:
        parts.append(f"from {_clock(window.after)} to {_clock(window.before)}")
    if window.first is not None:
        parts.append(f"since {window.first}")
    if window.last is not None:
        parts.append(f"until {window.last}")
    return " ".join([*parts, f"({window.zone})"])


def _clock(moment: time | None) -> str:
    return moment.isoformat("minutes") if moment is not None else "midnight"


def path_of(segments: tuple[str, ...]) -> str:
    return "/" + "/".join(segments)


def destination(route: Route) -> str:
    """What stands behind a route."""
    match route.action:
        case Forwarding(upstream):
            scheme = "https" if upstream.tls is not None else "http"
            return ", ".join(f"{scheme}://{endpoint.authority}" for endpoint in upstream.endpoints)
        case Redirect(location, status):
            return f"redirect {status} to {location}"
        case StaticResponse(status):
            return f"a fixed answer {status}"


def summary(route: Route) -> list[str]:
    """A route and who may open it, as lines."""
    end = "" if route.exact else "/*" if route.segments else ""
    path = path_of(route.segments) if route.segments else ""
    lines = [f"{route.origin}{path}{end} -> {destination(route)}"]
    for effect in (Effect.DENY, Effect.ALLOW):  # as they weigh
        lines += [
            f"  {effect.value:5} {say(rule.condition)}"
            for rule in route.policy.rules
            if rule.effect is effect
        ]
    if route.sensitivity.rank > 1:
        lines.append(f"  needs a sign-in of rank {route.sensitivity.rank} or more ({route.sensitivity.name})")
    return lines
