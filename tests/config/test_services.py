"""Services: whose tokens count, which services a route lets in, and what cannot be meant."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.words import device_policy, mistakes, route, settings, site, the_route, warnings
from ztproxy.config.settings import TokenIssuer
from ztproxy.core.conditions import Condition
from ztproxy.core.routes import Sensitivity, Services
from ztproxy.core.service_conditions import HasScopes, IsPerson, ServiceIs

CI = "token_issuers: [{name: ci, issuer: https://ci.test}]"
HERE = "https://app.test"


def one(*more: str) -> TokenIssuer:
    (found,) = settings(
        site(f"token_issuers: {{name: ci, {', '.join(more) or 'issuer: https://ci.test'}}}")
    ).token_issuers
    return found


def test_an_issuer_without_more_has_careful_defaults() -> None:
    assert one() == TokenIssuer("ci", "https://ci.test")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        pytest.param("algorithms: [ES256, RS256, ES256]", "algorithms", ("ES256", "RS256"), id="algorithms"),
        pytest.param("jwks_file: k.json", "jwks", Path("/etc/k.json"), id="keys-in-a-file"),
        pytest.param("jwks_url: https://k.test/keys?v=1", "jwks_url", "https://k.test/keys?v=1", id="keys-at-a-url"),
        pytest.param("types: [application/AT+JWT]", "types", {"at+jwt"}, id="types-are-lower-case"),
        pytest.param("roles_claim: realm.roles", "roles_claim", "realm.roles", id="roles"),
        pytest.param("scopes_claim: scp", "scopes_claim", "scp", id="scopes"),
        pytest.param("keep_claims: [a, b, a]", "keep", ("a", "b"), id="keep"),
        pytest.param("clock_skew: 5s", "skew", 5.0, id="skew"),
        pytest.param("ca_file: ca.pem", "ca_file", Path("/etc/ca.pem"), id="ca"),
        pytest.param("dangerous_allow_http: true", "dangerous_allow_http", True, id="danger"),
    ],
)  # fmt: skip
def test_a_key_of_the_issuer(line: str, field: str, value: object) -> None:
    assert getattr(one("issuer: https://ci.test", line), field) == value


def test_claims_that_policies_read_are_kept() -> None:
    text = device_policy("allow: {claim/repository: x}", services="{tokens: ci}", more=CI)
    assert settings(text).token_issuers[0].keep == ("repository",)


@pytest.mark.parametrize(
    ("issuer", "message"),
    [
        pytest.param("{issuer: https://ci.test}", ": the key `name` is missing, add `name: ...`", id="no-name"),
        pytest.param("{name: ci}", ": the key `issuer` is missing, add `issuer: ...`", id="no-issuer"),
        pytest.param("{name: C I, issuer: https://ci.test}", ".name: `C I` is not a name for an issuer of tokens, write small letters, digits and `-`, like `corp`", id="name"),
        pytest.param("[{name: a, issuer: https://a.test}, {name: a, issuer: https://b.test}]", "[1].name: two issuers are called `a`, rename one", id="one-name-twice"),
        pytest.param("[{name: a, issuer: https://a.test}, {name: b, issuer: https://a.test}]", "[1].issuer: `https://a.test` is `a` already, join the two", id="one-issuer-twice"),
        pytest.param("{name: a, issuer: http://a.test}", ".issuer: keys that come without TLS let anyone on the way make tokens of any service, write `https://...`", id="without-tls"),
        pytest.param("{name: a, issuer: https://a.test, jwks_url: http://k.test}", ".jwks_url: keys that come without TLS let anyone on the way make tokens of any service, write `https://...`", id="keys-without-tls"),
        pytest.param("{name: a, issuer: https://a.test, jwks_url: https://k.test, jwks_file: k}", ".jwks_url: its keys are in `jwks_file`, and nobody is asked, remove one", id="keys-twice"),
        pytest.param("{name: a, issuer: https://a.test, ca_file: c, jwks_file: k}", ".ca_file: its keys are in `jwks_file`, and nobody is asked, remove one", id="trust-for-nothing"),
        pytest.param("{name: a, issuer: https://a.test, algorithms: HS256}", ".algorithms: `HS256` is not known here, did you mean `RS256`?", id="symmetric"),
        pytest.param("{name: a, issuer: https://a.test, algorithms: none}", ".algorithms: `none` is not known here, write one of `ES256`, `EdDSA`, `PS256`, `RS256`", id="no-signature"),
        pytest.param("{name: a, issuer: https://a.test, types: []}", ".types: the list is empty, write at least one entry or remove the key", id="any-type"),
    ],
)  # fmt: skip
def test_a_wrong_issuer_is_told(issuer: str, message: str) -> None:
    assert mistakes(site(f"token_issuers: {issuer}")) == [f"7: token_issuers{message}"]


@pytest.mark.parametrize(
    ("issuer", "warned"),
    [
        pytest.param("issuer: http://ci.test, dangerous_allow_http: true", 1, id="danger"),
        pytest.param("issuer: http://localhost:1", 0, id="this-machine"),
        pytest.param("issuer: http://ci.test, jwks_file: k", 0, id="a-name-that-is-only-compared"),
        pytest.param("issuer: http://ci.test, jwks_url: https://ci.test", 0, id="keys-over-tls"),
    ],
)
def test_keys_without_tls_are_warned_of(issuer: str, warned: int) -> None:
    told = warnings(site(f"token_issuers: {{name: ci, {issuer}}}"))
    assert (
        told
        == ["7: token_issuers.issuer: without TLS anyone on the way can make tokens of any service"] * warned
    )


@pytest.mark.parametrize(
    ("written", "services"),
    [
        pytest.param("{tokens: ci}", Services(("ci",), HERE), id="tokens"),
        pytest.param("{tokens: ci, audience: api, scopes: [a, b], roles: r, token_within: 5m}", Services(("ci",), "api", frozenset({"a", "b"}), frozenset({"r"}), 300.0), id="what-a-token-needs"),
        pytest.param("{spiffe: 'spiffe://corp.test/ci/*'}", Services(audience=HERE, spiffe=("spiffe://corp.test/ci/*",)), id="spiffe"),
        pytest.param("{tokens: ci, people: false}", Services(("ci",), HERE, people=False), id="services-alone"),
        pytest.param("{tokens: ci, forward_token: true}", Services(("ci",), HERE, forward_token=True), id="the-app-gets-the-token"),
    ],
)  # fmt: skip
def test_which_services_may_come(written: str, services: Services) -> None:
    assert (
        the_route(device_policy("allow: {authenticated: true}", services=written, more=CI)).services
        == services
    )


def test_the_audience_is_that_of_the_route() -> None:
    lines = ("identity: {audience: mine}", "services: {tokens: ci}")
    services = the_route(route(*lines) + CI).services
    assert services is not None and services.audience == "mine"
    assert the_route(route()).services is None


@pytest.mark.parametrize(
    ("written", "services"),
    [
        pytest.param("{tokens: ci}", Services(("ci",), HERE, token_within=300.0, people=False), id="five-minutes"),
        pytest.param("{tokens: ci, token_within: 1m, people: false}", Services(("ci",), HERE, token_within=60.0, people=False), id="shorter"),
    ],
)  # fmt: skip
def test_a_pipeline_is_for_services(written: str, services: Services) -> None:
    found = the_route(route("sensitivity: pipeline", f"services: {written}") + CI)
    assert (found.services, found.sensitivity) == (services, Sensitivity("pipeline", None))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("services: {}", "7: routes[0].services: this does not say which services may come, write `tokens: [...]` with names of `token_issuers`, or `spiffe: [...]`", id="which"),
        pytest.param("services: true", "7: routes[0].services: this does not say which services may come, write `tokens: [...]` with names of `token_issuers`, or `spiffe: [...]`", id="all"),
        pytest.param("services: {people: false}", "7: routes[0].services: this does not say which services may come, write `tokens: [...]` with names of `token_issuers`, or `spiffe: [...]`", id="nobody"),
        pytest.param("services: {tokens: cy}", "7: routes[0].services.tokens: there is no issuer of tokens `cy`, write one of `ci`", id="no-such-issuer"),
        pytest.param("services: {spiffe: 'spiffe://x.test/a', scopes: a}", "7: routes[0].services.scopes: `scopes` is asked of tokens, and none is accepted, add `tokens: [...]`", id="scopes-of-a-certificate"),
        pytest.param("services: {spiffe: 'spiffe://x.test/a', forward_token: true}", "7: routes[0].services.forward_token: `forward_token` is asked of tokens, and none is accepted, add `tokens: [...]`", id="no-token-to-forward"),
        pytest.param("services: {tokens: ci, spiffe: 'https://x.test/a'}", "7: routes[0].services.spiffe: `https://x.test/a` is not a SPIFFE ID, write it like `spiffe://example.com/ci/builder`, or `spiffe://example.com/ci/*` for all beneath", id="not-spiffe"),
        pytest.param("services: {tokens: ci, token_within: 300}", "7: routes[0].services.token_within: `300` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`", id="bare-time"),
        pytest.param("services: {tokens: ci, audience: z}", "", id="another-issuer-s-audience"),
    ],
)  # fmt: skip
def test_a_wrong_service_is_told(line: str, message: str) -> None:
    assert mistakes(route(line) + CI) == ([message] if message else [])


def test_an_issuer_that_is_nowhere_is_told() -> None:
    assert mistakes(route("services: {tokens: ci}")) == [
        "7: routes[0].services.tokens: there is no issuer of tokens `ci`, write `token_issuers: [{name, issuer}]`"
    ]


def test_a_pipeline_has_no_people() -> None:
    assert mistakes(route("sensitivity: pipeline", "services: {tokens: ci, people: true}") + CI) == [
        "8: routes[0].services.people: `sensitivity: pipeline` is for services alone, remove it, or choose another label"
    ]


def test_an_id_token_is_no_service_s_token() -> None:
    """The provider's own client id as audience would let in whoever got hold of a person's ID token."""
    ours = "token_issuers: [{name: ci, issuer: https://idp.test}]"
    assert mistakes(route("services: {tokens: ci, audience: z}") + ours) == [
        "7: routes[0].services.audience: `z` is ztproxy itself, so an ID token would pass for a service's, write an "
        "audience that access tokens alone have"
    ]
    assert mistakes(route("services: {tokens: ci}") + ours) == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("{service: builder}", ServiceIs(frozenset({"builder"})), id="subject"),
        pytest.param("{service: 'ci|repo:corp/app'}", ServiceIs(frozenset({"https://ci.test|repo:corp/app"})), id="issuer-by-name"),
        pytest.param("{service: 'https://ci.test|x|y'}", ServiceIs(frozenset({"https://ci.test|x|y"})), id="issuer-by-url"),
        pytest.param("{service: 'other|x'}", ServiceIs(frozenset({"other|x"})), id="a-bar-of-its-own"),
        pytest.param("{service: ['spiffe://corp.test/ci/*', b]}", ServiceIs(frozenset({"b"}), ("spiffe://corp.test/ci/*",)), id="spiffe"),
        pytest.param("{scope: [a, b]}", HasScopes(frozenset({"a", "b"})), id="scopes"),
        pytest.param("{person: true}", IsPerson(), id="person"),
    ],
)  # fmt: skip
def test_a_condition_about_services_means(written: str, meant: Condition) -> None:
    (rule,) = the_route(device_policy(f"allow: {written}", services="{tokens: ci}", more=CI)).policy.rules
    assert rule.condition == meant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param("{service: 'spiffe://corp.test'}", "service: `spiffe://corp.test` is not a SPIFFE ID, write it like `spiffe://example.com/ci/builder`, or `spiffe://example.com/ci/*` for all beneath", id="trust-domain-alone"),
        pytest.param("{service: 'SPIFFE://corp.test/x'}", "service: `SPIFFE://corp.test/x` is not a SPIFFE ID, write it like `spiffe://example.com/ci/builder`, or `spiffe://example.com/ci/*` for all beneath", id="upper-case"),
        pytest.param("{service: 'spiffe://evil.test/x'}", "service: no authority vouches for `evil.test`, write `trust_domain: evil.test` at the one of `devices.authorities` that does", id="another-trust-domain"),
        pytest.param("{person: false}", "person: `false` says nothing here, write `true` or remove the key", id="no-person"),
    ],
)  # fmt: skip
def test_a_wrong_condition_about_services_is_told(written: str, message: str) -> None:
    text = device_policy(f"allow: {written}", services="{tokens: ci}", more=CI)
    assert mistakes(text) == [f"8: routes[0].policy[0].allow.{message}"]
