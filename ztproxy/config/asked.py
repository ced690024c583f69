"""Whether what policies ask can be answered at all: who is asked for a certificate, and who may come.

Knows: listeners, trusted proxies and routes together. Promises: a rule about devices on a host where nobody
is asked for a certificate is a mistake, for it could never hold, and one about services where none may come,
or about people where they may not. Leaves the rules themselves to `policy`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ztproxy.config.mistakes import Findings, Loc, quoted
from ztproxy.config.policy import mentions
from ztproxy.config.settings import ClientCertificates, Devices, Listener
from ztproxy.core.conditions import Source
from ztproxy.core.policy import Effect
from ztproxy.core.routes import Route
from ztproxy.core.service_conditions import HasScopes, IsPerson, ServiceIs
from ztproxy.core.spiffe import matches


def check_asked(
    routes: Sequence[Route],
    listeners: Sequence[Listener],
    devices: Devices | None,
    signs_in_at: str | None,
    findings: Findings,
) -> None:
    """`signs_in_at` is the host where every session begins and which all others share its cookie with; None
    where each host has a cookie of its own, and so is bound by itself."""
    asking = [one.tls.clients for one in listeners if one.tls is not None and one.tls.clients is not None]
    fronted = devices is not None and devices.fronts is not None
    for index, route in enumerate(routes):
        loc: Loc = ("routes", index)
        asked = fronted or any(_asks(one, route.host) for one in asking)
        _check_rules(route, loc, asked, bool(asking), findings)
        binds = signs_in_at is None or fronted or any(_asks(one, signs_in_at) for one in asking)
        if asked and not binds and Source.DEVICE in route.policy.reads:
            problem = f"sessions begin at `{signs_in_at}`, where nobody is asked for a certificate"
            mend = f"add `{signs_in_at}` to the `hosts` of `client_certificates`, or remove `cookie.domain`"
            findings.wrong((*loc, "policy"), problem, mend)
        if route.services is not None and route.services.spiffe and not asked:
            problem = f"nobody who comes to `{route.host}` is asked for a certificate"
            findings.wrong((*loc, "services", "spiffe"), problem, _mend(route.host, bool(asking)))
        _check_devices_as_services(route, loc, devices, findings)
    _check_enrolment(devices, asking, findings)
    _check_hosts(routes, listeners, findings)


def _check_rules(route: Route, loc: Loc, asked: bool, some_asked: bool, findings: Findings) -> None:
    for place, rule in enumerate(route.policy.rules):
        at: Loc = (*loc, "policy", place, rule.effect.value)
        if Source.DEVICE in rule.condition.reads and not asked:
            problem = (
                f"this asks about devices, and nobody who comes to `{route.host}` is asked for a certificate"
            )
            findings.wrong(at, problem, _mend(route.host, some_asked))
        if route.services is None and mentions(rule.condition, ServiceIs | HasScopes):
            findings.wrong(
                at, "this asks about services, and none may come here", "add `services` to the route"
            )
        only_services = route.services is not None and not route.services.people
        if only_services and rule.effect is Effect.ALLOW and mentions(rule.condition, IsPerson):
            problem = "this allows people, and only services may come here"
            findings.wrong(at, problem, "remove `person`, or let people in at `services`")


def _mend(host: str, some_asked: bool) -> str:
    if some_asked:
        return f"add `{host}` to the `hosts` of `client_certificates`"
    return "add `client_certificates: true` to the listener"


def _asks(asking: ClientCertificates, host: str) -> bool:
    return asking.hosts is None or any(_meet(pattern, host) for pattern in asking.hosts)


def _meet(one: str, other: str) -> bool:
    """Whether some name fits both: each a name, or a pattern whose star is exactly one label."""
    if one.startswith("*.") or other.startswith("*."):
        return one.partition(".")[2] == other.partition(".")[2]
    return one == other


def _check_enrolment(
    devices: Devices | None, asking: Sequence[ClientCertificates], findings: Findings
) -> None:
    if devices is None or devices.enrolment is None or devices.fronts is not None:
        return
    ours = next(one.name for one in devices.authorities if one.ca == devices.enrolment.authority.certificate)
    if not any(ours in one.authorities for one in asking):
        problem = "nobody is asked for the certificates that are given out here"
        mend = "add `client_certificates: true` to the listener"
        if asking:
            mend = f"add `{ours}` to the `authorities` of `client_certificates`"
        findings.wrong(("devices", "enrolment"), problem, mend)


def _check_devices_as_services(route: Route, loc: Loc, devices: Devices | None, findings: Findings) -> None:
    """The certificate of an enrolled laptop has a SPIFFE ID too, and no person behind it where it is shown
    without a cookie."""
    if devices is None or devices.enrolment is None or route.services is None:
        return
    some = f"spiffe://{devices.enrolment.trust_domain}/device/any"
    for pattern in route.services.spiffe:
        if matches(pattern, some):
            text = f"{quoted(pattern)} takes the device of everybody who may enrol one for a service"
            findings.warn((*loc, "services", "spiffe"), text)


def _check_hosts(routes: Sequence[Route], listeners: Sequence[Listener], findings: Findings) -> None:
    for index, listener in enumerate(listeners):
        clients = listener.tls.clients if listener.tls is not None else None
        for host in sorted(clients.hosts or ()) if clients is not None else ():
            if not any(_meet(host, route.host) for route in routes):
                at = ("listen", index, "client_certificates", "hosts")
                findings.warn(at, f"there is no route at {quoted(host)}")
