"""Whether what policies ask can be answered: certificates somebody is asked for, services that may come."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import pytest

from tests.config.words import DEVICES, LISTEN, device_policy, mistakes, policy, site, warnings

BY_DEVICE = "allow: {group: a, device: true}"
CI = "token_issuers: [{name: ci, issuer: https://ci.test}]"
TLS = "\ntls: {certificate: c.pem, key: k.pem}"
UNASKED = "this asks about devices, and nobody who comes to `app.test` is asked for a certificate"


def listening(written: str, origin: str = "https://app.test", rule: str = BY_DEVICE) -> str:
    """A site at `origin` behind a listener that says `client_certificates: written`; the rule is on line 8."""
    routes = f"routes:\n  - from: {origin}\n    to: http://127.0.0.1:1\n    policy:\n      - {rule}"
    listen = f"listen: {{address: 127.0.0.1:8443, client_certificates: {written}}}{TLS}"
    return site(DEVICES, listen=listen, routes=routes)


@pytest.mark.parametrize(
    ("written", "origin", "good"),
    [
        pytest.param("true", "https://app.test", True, id="everybody-is-asked"),
        pytest.param("{hosts: app.test}", "https://app.test", True, id="this-host"),
        pytest.param("{hosts: ['*.test', x.test]}", "https://app.test", True, id="a-pattern"),
        pytest.param("{hosts: '*.app.test'}", "https://*.app.test", True, id="pattern-and-wildcard"),
        pytest.param("{hosts: a.app.test}", "https://*.app.test", True, id="one-of-a-wildcard"),
        pytest.param("{hosts: [x.test]}", "https://app.test", False, id="another-host"),
        pytest.param("{hosts: '*.app.test'}", "https://app.test", False, id="only-beneath"),
        pytest.param("{hosts: '*.test'}", "https://a.app.test", False, id="a-star-is-one-label"),
        pytest.param("false", "https://app.test", False, id="nobody"),
    ],
)
def test_a_host_is_asked(written: str, origin: str, good: bool) -> None:
    assert (mistakes(listening(written, origin)) == []) is good


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(policy(BY_DEVICE), f"7: routes[0].policy[0].allow: {UNASKED}, add `client_certificates: true` to the listener", id="no-listener-asks"),
        pytest.param(policy("allow: {group: a}", "deny: {device: {posture: {jailbroken: true}}}"), f"8: routes[0].policy[1].deny: {UNASKED}, add `client_certificates: true` to the listener", id="a-deny-rule-asks-too"),
        pytest.param(policy("allow: {group: a, none_of: [{device: {platform: linux}}]}"), f"7: routes[0].policy[0].allow: {UNASKED}, add `client_certificates: true` to the listener", id="a-negation-asks-too"),
        pytest.param(listening("{hosts: b.test}"), f"8: routes[0].policy[0].allow: {UNASKED}, add `app.test` to the `hosts` of `client_certificates`", id="elsewhere"),
        pytest.param(policy("allow: {service: x}"), "7: routes[0].policy[0].allow: this asks about services, and none may come here, add `services` to the route", id="no-service"),
        pytest.param(policy("allow: {any_of: [{group: a}, {scope: b}]}"), "7: routes[0].policy[0].allow: this asks about services, and none may come here, add `services` to the route", id="no-token"),
        pytest.param(device_policy("allow: {person: true}", services="{tokens: ci, people: false}", more=CI), "8: routes[0].policy[0].allow: this allows people, and only services may come here, remove `person`, or let people in at `services`", id="no-people"),
        pytest.param(site("devices: {enrolment: {ca_certificate: a, ca_key: b, may: {group: s}}}"), "7: devices.enrolment: nobody is asked for the certificates that are given out here, add `client_certificates: true` to the listener", id="given-out-for-nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_told(text: str, message: str) -> None:
    assert mistakes(text) == [message]


def test_a_certificate_of_a_service_must_be_asked_for() -> None:
    text = site(
        f"{DEVICES}",
        listen=LISTEN + TLS,
        routes="routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1\n"
        "    allow_any_authenticated_user: true\n    services: {spiffe: 'spiffe://corp.test/ci'}",
    )
    assert mistakes(text) == [
        "8: routes[0].services.spiffe: nobody who comes to `app.test` is asked for a certificate, add "
        "`client_certificates: true` to the listener"
    ]


def test_our_own_authority_must_be_among_those_asked_for() -> None:
    devices = "devices: {authorities: {name: corp, ca_file: ca.pem}, enrolment: {ca_certificate: a, ca_key: b, may: {group: s}}}"
    listen = f"listen: {{address: 127.0.0.1:8443, client_certificates: {{authorities: corp}}}}{TLS}"
    assert mistakes(site(devices, listen=listen)) == [
        "8: devices.enrolment: nobody is asked for the certificates that are given out here, add `enrolment` to the "
        "`authorities` of `client_certificates`"
    ]


def test_a_proxy_in_front_answers_for_every_host() -> None:
    fronted = f"{DEVICES[:-1]}, certificates_from_proxies: xfcc, enrolment: {{ca_certificate: a, ca_key: b, may: {{group: s}}}}}}"
    assert mistakes(policy(BY_DEVICE) + f"{fronted}\ntrusted_proxies: 10.0.0.0/8\n") == []


def test_services_alone_may_be_told_from_people_by_a_deny_rule() -> None:
    text = device_policy(
        "allow: {authenticated: true}",
        "deny: {person: true}",
        services="{tokens: ci, people: false}",
        more=CI,
    )
    assert mistakes(text) == []


def test_hosts_without_a_route_are_warned_of() -> None:
    assert warnings(listening("{hosts: [app.test, finanse.test, '*.lab.test']}")) == [
        "1: listen.client_certificates.hosts: there is no route at `*.lab.test`",
        "1: listen.client_certificates.hosts: there is no route at `finanse.test`",
    ]


@pytest.mark.parametrize(
    ("pattern", "warned"),
    [
        pytest.param("spiffe://ours.test/*", True, id="everything-of-the-domain"),
        pytest.param("spiffe://ours.test/device/*", True, id="every-device"),
        pytest.param("spiffe://ours.test/device/d-aaaaaaaaaaaaaaaa", False, id="one-device"),
        pytest.param("spiffe://ours.test/ci/*", False, id="beside-the-devices"),
        pytest.param("spiffe://corp.test/*", False, id="another-domain"),
    ],
)
def test_a_pattern_that_makes_services_of_enrolled_devices_is_warned_of(pattern: str, warned: bool) -> None:
    own = "enrolment: {ca_certificate: o.pem, ca_key: o.key, trust_domain: ours.test, may: {group: a}}"
    text = device_policy(f"allow: {{service: '{pattern}'}}", services=f"{{spiffe: '{pattern}'}}",
                         devices=f"{DEVICES[:-1]}, {own}}}")  # fmt: skip
    assert mistakes(text) == []
    said = f"`{pattern}` takes the device of everybody who may enrol one for a service"
    assert [one.endswith(said) for one in warnings(text)] == [True] * warned


@pytest.mark.parametrize(
    ("asked", "good"),
    [
        pytest.param("[app.corp.test]", False, id="nobody-is-asked-where-sessions-begin"),
        pytest.param("[app.corp.test, login.corp.test]", True, id="both"),
        pytest.param("['*.corp.test']", True, id="a-pattern"),
    ],
)
def test_where_one_cookie_is_for_all_sessions_begin_where_certificates_are_asked_for(
    asked: str, good: bool
) -> None:
    written = listening(f"{{hosts: {asked}}}", "https://app.corp.test")
    shared = "\nauth_host: https://login.corp.test\ncookie: {domain: corp.test}"
    found = mistakes(written + shared)
    assert (found == []) is good
    assert good or "sessions begin at `login.corp.test`, where nobody is asked" in found[0]
    assert mistakes(written + "\nauth_host: https://login.corp.test") == [], "each host binds by itself"
