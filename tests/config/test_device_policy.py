"""What a policy may ask of a device and of a service, and what the core is told."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import pytest

from tests.config.test_policy import say
from tests.config.words import device_policy, mistakes, the_route, warnings
from ztproxy.core import conditions as core
from ztproxy.core.device_conditions import (
    AtLeast,
    AtMost,
    CertificateIs,
    DeviceApproved,
    DeviceKnown,
    DeviceOwned,
    Equals,
    OneOf,
    PlatformIs,
    PostureIs,
)

DAY = 86400.0
DIGEST = "XohImNooBHFR0OVvjcYpJ3NgPQ1qq73WKhHvch0VQtg"
HEX = "5E884898DA28047151D0E56F8DC6292773603D0D6AABBDD62A11EF721D1542D8"
WORDS = (
    "devices: {authorities: [{name: corp, ca_file: ca.pem, trust_domain: corp.test}], facts: {risk: number, "
    "fido_key: boolean, build: text}, compliance: {good: {disk_encrypted: true}, best: {within: 1h, "
    "edr_running: true, os_patch_age: {at_most: 30}}}}"
)
GOOD = PostureIs("disk_encrypted", Equals(True), DAY)
BEST = (
    "all",
    PostureIs("edr_running", Equals(True), 3600.0),
    PostureIs("os_patch_age", AtMost(30), 3600.0),
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("true", ("all", DeviceKnown(), DeviceApproved()), id="true-is-known-and-approved"),
        pytest.param("{known: true}", DeviceKnown(), id="known"),
        pytest.param("{approved: true}", DeviceApproved(), id="approved"),
        pytest.param("{owned: true}", DeviceOwned(), id="owned"),
        pytest.param("{platform: macos}", PlatformIs(frozenset({"macos"})), id="platform"),
        pytest.param("{platform: [macOS, linux]}", PlatformIs(frozenset({"macos", "linux"})), id="platforms"),
        pytest.param("{compliant: good}", GOOD, id="compliant"),
        pytest.param("{compliant: [good, best]}", ("any", GOOD, BEST), id="compliant-with-any"),
        pytest.param("{posture: {firewall_on: true}}", PostureIs("firewall_on", Equals(True), DAY), id="posture-is-of-today"),
        pytest.param("{posture: {jailbroken: false}, within: 5m}", PostureIs("jailbroken", Equals(False), 300.0), id="posture-of-now"),
        pytest.param("{posture: {os_version: '14.1'}}", PostureIs("os_version", Equals("14.1"), DAY), id="text"),
        pytest.param("{posture: {build: [A, B]}}", PostureIs("build", OneOf(("A", "B")), DAY), id="list-is-any"),
        pytest.param("{posture: {build: {one_of: [A, B]}}}", PostureIs("build", OneOf(("A", "B")), DAY), id="one-of"),
        pytest.param("{posture: {risk: {at_least: 1, at_most: 2.5}}}", ("all", PostureIs("risk", AtMost(2.5), DAY), PostureIs("risk", AtLeast(1), DAY)), id="bounds"),
        pytest.param("{certificate: true}", CertificateIs(), id="any-certificate"),
        pytest.param("{certificate: {authority: corp}}", CertificateIs(authorities=frozenset({"corp"})), id="authority"),
        pytest.param(f"{{certificate: {{fingerprint: {HEX}}}}}", CertificateIs(thumbprints=frozenset({DIGEST})), id="fingerprint"),
        pytest.param(f"{{certificate: {{fingerprint: '{':'.join(HEX[i:i + 2] for i in range(0, 64, 2)).lower()}'}}}}", CertificateIs(thumbprints=frozenset({DIGEST})), id="fingerprint-with-colons"),
        pytest.param(f"{{certificate: {{fingerprint: {DIGEST}}}}}", CertificateIs(thumbprints=frozenset({DIGEST})), id="fingerprint-as-the-console-shows-it"),
        pytest.param(f"{{certificate: {{key_pin: sha256//{DIGEST}=}}}}", CertificateIs(keys=frozenset({DIGEST})), id="pin-as-curl-has-it"),
        pytest.param(f"{{certificate: {{key_pin: [{HEX}]}}}}", CertificateIs(keys=frozenset({DIGEST})), id="pin-in-hex"),
        pytest.param("{certificate: {issuer: 'CN=CA,O=Corp', subject: CN=a}}", CertificateIs(issuers=frozenset({"CN=CA,O=Corp"}), subjects=frozenset({"CN=a"})), id="names"),
        pytest.param("{certificate: {san_dns: A.corp.test, san_email: A@corp.test, san_uri: 'urn:a'}}", CertificateIs(dns=frozenset({"a.corp.test"}), emails=frozenset({"a@corp.test"}), uris=frozenset({"urn:a"})), id="alternative-names"),
        pytest.param("{certificate: {spiffe: ['spiffe://corp.test/device/*']}}", CertificateIs(spiffe=("spiffe://corp.test/device/*",)), id="spiffe"),
        pytest.param(
            "{posture: {disk_encrypted: true}, owned: true, certificate: true, known: true}",
            ("all", CertificateIs(), DeviceKnown(), DeviceOwned(), GOOD),
            id="the-certificate-is-asked-for-first",
        ),
    ],
)  # fmt: skip
def test_a_device_condition_means(written: str, meant: object) -> None:
    text = device_policy(f"allow: {{group: a, device: {written}}}", devices=WORDS)
    (rule,) = the_route(text).policy.rules
    assert isinstance(rule.condition, core.AllOf)
    assert say(rule.condition.parts[1]) == meant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param("{}", "the condition is empty, write `true` for a device that is known and approved", id="empty"),
        pytest.param("false", "`false` says nothing about a device, write `true`, or a mapping like `{known: true, platform: macos}`", id="false"),
        pytest.param("{known: false}", ".known: `false` says nothing here, write `true` or remove the key", id="not-known"),
        pytest.param("{aproved: true}", ".aproved: unknown key `aproved`, did you mean `approved`?", id="misspelled"),
        pytest.param("{compliant: god}", ".compliant: there is no set of posture `god`, did you mean `good`?", id="no-such-set"),
        pytest.param("{posture: {}}", ".posture: no fact is asked for, write one, like `{disk_encrypted: true}`", id="no-fact"),
        pytest.param("{posture: {disk_encryptd: true}}", ".posture.disk_encryptd: there is no fact `disk_encryptd`, did you mean `disk_encrypted`?", id="no-such-fact"),
        pytest.param("{posture: {disk_encrypted: 1}}", ".posture.disk_encrypted: `1` is never equal to `disk_encrypted`, which is true or false, write `true` or `false`", id="number-for-a-flag"),
        pytest.param("{posture: {disk_encrypted: 'true'}}", ".posture.disk_encrypted: `true` is never equal to `disk_encrypted`, which is true or false, write `true` or `false`", id="text-for-a-flag"),
        pytest.param("{posture: {os_patch_age: true}}", ".posture.os_patch_age: `true` is never equal to `os_patch_age`, which is a whole number, write one, or like `{at_most: 30}`", id="flag-for-a-number"),
        pytest.param("{posture: {risk: 1.5}}", ".posture.risk: `1.5` is never equal to `risk`, which is a whole number, write one, or like `{at_most: 30}`", id="fraction"),
        pytest.param("{posture: {os_version: 14.1}}", '.posture.os_version: `14.1` is never equal to `os_version`, which is text, write text, in quotes: `"14.1"`', id="version-without-quotes"),
        pytest.param("{posture: {os_version: {at_least: 14}}}", '.posture.os_version.at_least: `os_version` is text, which is not more or less than anything, write text, in quotes: `"14.1"`', id="version-compared"),
        pytest.param("{posture: {risk: {at_most: high}}}", ".posture.risk.at_most: `high` is not a number, write one, like `30`", id="no-number"),
        pytest.param("{posture: {risk: {atmost: 3}}}", ".posture.risk.atmost: unknown test `atmost`, did you mean `at_most`?", id="misspelled-test"),
        pytest.param("{posture: {risk: {}}}", ".posture.risk: the test is empty, write a value, or like `{at_most: 30}`", id="empty-test"),
        pytest.param("{posture: {risk: []}}", ".posture.risk: the list is empty, write at least one entry or remove the key", id="none-of-them"),
        pytest.param("{posture: {risk: [[1]]}}", ".posture.risk: a list cannot be compared, write text, a number, `true` or `false`", id="list-in-a-list"),
        pytest.param("{posture: {risk: {at_least: 3, at_most: 2}}}", ".posture.risk.at_least: nothing is as much as this and as little, write a smaller `at_least`", id="bounds-reversed"),
        pytest.param("{known: true, within: 1h}", ".within: this is how old facts may be, and none is asked for, write `posture`; a set of `devices.compliance` has a `within` of its own", id="age-of-nothing"),
        pytest.param("{posture: {edr_running: true}, within: off}", ".within: `off` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`", id="facts-of-any-age"),
        pytest.param("{certificate: {}}", ".certificate: the condition is empty, write `true` for any certificate", id="empty-certificate"),
        pytest.param("{certificate: {authority: crop}}", ".certificate.authority: there is no authority `crop`, did you mean `corp`?", id="no-such-authority"),
        pytest.param("{certificate: {fingerprint: abcd}}", ".certificate.fingerprint: `abcd` is not a SHA-256 digest, `openssl x509 -noout -fingerprint -sha256 -in FILE` shows it", id="short-digest"),
        pytest.param(f"{{certificate: {{key_pin: {DIGEST[:-1]}h}}}}", f".certificate.key_pin: `{DIGEST[:-1]}h` is not a SHA-256 digest, `openssl x509 -noout -pubkey -in FILE | openssl pkey -pubin -outform der | openssl dgst -sha256` shows it", id="digest-in-two-spellings"),
        pytest.param("{certificate: {subject: CN = a}}", ".certificate.subject: `CN = a` is not a name as RFC 4514 writes it, write it like `CN=laptop-7,O=Corp`; `openssl x509 -noout -subject -issuer -nameopt rfc2253` does", id="openssl-s-own-spelling"),
        pytest.param("{certificate: {issuer: /CN=a}}", ".certificate.issuer: `/CN=a` is not a name as RFC 4514 writes it, write it like `CN=laptop-7,O=Corp`; `openssl x509 -noout -subject -issuer -nameopt rfc2253` does", id="openssl-s-old-spelling"),
        pytest.param("{certificate: {san_dns: '*.corp.test'}}", ".certificate.san_dns: `*.corp.test` is not a domain, write `corp.test`, and each sub-domain of its own", id="wildcard"),
        pytest.param("{certificate: {spiffe: 'spiffe://corp.test/'}}", ".certificate.spiffe: `spiffe://corp.test/` is not a SPIFFE ID, write it like `spiffe://example.com/ci/builder`, or `spiffe://example.com/ci/*` for all beneath", id="spiffe-root"),
        pytest.param("{certificate: {spiffe: 'spiffe://evil.test/x'}}", ".certificate.spiffe: no authority vouches for `evil.test`, write `trust_domain: evil.test` at the one of `devices.authorities` that does", id="another-trust-domain"),
    ],
)  # fmt: skip
def test_a_wrong_device_condition_is_told(written: str, message: str) -> None:
    dot = "" if message.startswith(".") else ": "
    expected = f"8: routes[0].policy[0].allow.device{dot}{message}"
    assert mistakes(device_policy(f"allow: {{group: a, device: {written}}}", devices=WORDS)) == [expected]


def test_a_set_that_is_nowhere_is_told() -> None:
    assert mistakes(device_policy("allow: {group: a, device: {compliant: good}}")) == [
        "8: routes[0].policy[0].allow.device.compliant: there is no set of posture `good`, write `devices.compliance`"
    ]


def test_a_device_in_one_branch_does_not_excuse_another() -> None:
    assert mistakes(device_policy("allow: {any_of: [{group: a, device: true}, {method: GET}]}")) == [
        "8: routes[0].policy[0].allow: this rule allows without asking who someone is, add `authenticated: true`, or "
        "`public: true` to open it to the world"
    ]


BY_DEVICE = [
    "8: routes[0].policy[0].allow: this allows by device alone; a device is not a person: add who, or `public: true` "
    "to mean it"
]


@pytest.mark.parametrize(
    ("rules", "warned"),
    [
        pytest.param(["allow: {device: true}"], BY_DEVICE, id="device-alone"),
        pytest.param(
            ["allow: {device: {certificate: true}, method: GET}"], BY_DEVICE, id="certificate-alone"
        ),
        pytest.param(["allow: {any_of: [{group: a}, {device: true}]}"], BY_DEVICE, id="device-or-person"),
        pytest.param(["allow: {none_of: [{device: {platform: linux}}]}"], BY_DEVICE, id="any-but-one-kind"),
        pytest.param(
            ["allow: {device: true, source_network: 10.0.0.0/8}"], BY_DEVICE, id="device-at-a-place"
        ),
        pytest.param(["allow: {device: {owned: true}}"], [], id="its-owner"),
        pytest.param(["allow: {device: true, authenticated: true}"], [], id="device-and-person"),
        pytest.param(["allow: {device: true, public: true}"], [], id="device-and-meant"),
        pytest.param(
            ["allow: {group: a}", "deny: {device: {posture: {jailbroken: true}}}"], [], id="deny-by-device"
        ),
    ],
)
def test_a_device_is_not_a_person(rules: list[str], warned: list[str]) -> None:
    assert warnings(device_policy(*rules)) == warned
