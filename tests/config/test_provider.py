"""Providers: what they become, and what is refused before anyone signs in."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.words import mistakes, settings, site, warnings
from ztproxy.config.settings import Provider, Secret
from ztproxy.core.claims import ClaimRules


def one(*more: str, issuer: str = "https://idp.test") -> str:
    """A site with one provider that goes on with `more`, on line 5."""
    return site(
        provider="\n".join(["provider:", f"  issuer: {issuer}", "  client_id: z", *(f"  {x}" for x in more)])
    )


def provider(*more: str, **environment: str) -> Provider:
    (only,) = settings(one(*more), environment).providers
    return only


def test_a_provider_without_more_has_careful_defaults() -> None:
    assert provider() == Provider(
        name="default",
        title="idp.test",
        client_secret=None,
        token_auth="none",
        claims=ClaimRules("https://idp.test", "z"),
    )


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        pytest.param("name: corp", "name", "corp", id="name"),
        pytest.param("name: corp", "title", "corp", id="title-is-the-name"),
        pytest.param("title: Corp", "title", "Corp", id="title"),
        pytest.param("client_secret: s", "client_secret", Secret("s"), id="secret"),
        pytest.param("client_secret: s", "token_auth", "client_secret_basic", id="secret-is-sent-as-basic"),
        pytest.param("client_secret: ${S}", "client_secret", Secret("outside"), id="secret-from-outside"),
        pytest.param("token_auth: none", "token_auth", "none", id="public-client"),
        pytest.param("scopes: openid", "scopes", ("openid",), id="scopes"),
        pytest.param("algorithm: ES256", "algorithm", "ES256", id="algorithm"),
        pytest.param("parameters: {ui_locales: en}", "parameters", {"ui_locales": "en"}, id="parameters"),
        pytest.param("asks_by: claims", "asks_by", "claims", id="asks-by"),
        pytest.param("userinfo: true", "userinfo", True, id="userinfo"),
        pytest.param("frontchannel_logout: true", "frontchannel_logout", True, id="frontchannel-logout"),
        pytest.param("logout_exp: optional", "logout_exp_optional", True, id="logout-without-exp"),
        pytest.param("logout_exp: required", "logout_exp_optional", False, id="logout-with-exp"),
        pytest.param("endpoint_hosts: API.idp.test", "endpoint_hosts", {"api.idp.test"}, id="a-host"),
        pytest.param(
            "endpoint_hosts: [a.test, 10.0.0.7]", "endpoint_hosts", {"a.test", "10.0.0.7"}, id="hosts"
        ),
        pytest.param("ca_file: ca.pem", "ca_file", Path("/etc/ca.pem"), id="ca"),
    ],
)
def test_a_key_of_the_provider(line: str, field: str, value: object) -> None:
    assert getattr(provider(line, S="outside"), field) == value


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        pytest.param("groups_claim: realm.groups", "groups_claim", "realm.groups", id="groups"),
        pytest.param("email_claim: mail", "email_claim", "mail", id="email"),
        pytest.param("name_claim: cn", "name_claim", "cn", id="name"),
        pytest.param("username_claim: uid", "username_claim", "uid", id="username"),
        pytest.param("keep_claims: [a, b.c, a]", "keep", ("a", "b.c"), id="keep"),
        pytest.param("trusted_audiences: other", "trusted_audiences", {"other"}, id="audiences"),
        pytest.param("clock_skew: 5s", "skew", 5.0, id="skew"),
    ],
)
def test_a_key_of_its_claims(line: str, field: str, value: object) -> None:
    assert getattr(provider(line).claims, field) == value


def test_an_issuer_is_kept_byte_for_byte() -> None:
    (found,) = settings(one(issuer="https://idp.test/realms/X/")).providers
    assert (found.issuer, found.client_id) == ("https://idp.test/realms/X/", "z")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("name: Corp X", "5: provider.name: `Corp X` is not a provider's name, write small letters, digits and `-`; it is part of the redirect URI", id="name"),
        pytest.param("name: ../x", "5: provider.name: `../x` is not a provider's name, write small letters, digits and `-`; it is part of the redirect URI", id="name-as-path"),
        pytest.param("scopes: [profile]", "5: provider.scopes: without `openid` the provider says nothing about who it is, add it", id="no-openid"),
        pytest.param("algorithm: none", "5: provider.algorithm: `none` is not known here, write one of `ES256`, `EdDSA`, `PS256`, `RS256`", id="no-signature"),
        pytest.param("algorithm: HS256", "5: provider.algorithm: `HS256` is not known here, did you mean `RS256`?", id="symmetric"),
        pytest.param("parameters: {nonce: x}", "5: provider.parameters.nonce: `nonce` is set by the sign-in itself, remove it", id="nonce"),
        pytest.param("parameters: {redirect_uri: x}", "5: provider.parameters.redirect_uri: `redirect_uri` is set by the sign-in itself, remove it", id="redirect-uri"),
        pytest.param("parameters: {max: 1}", '5: provider.parameters.max: `1` is not text, put it in quotes: `"1"`', id="parameter-number"),
        pytest.param("token_auth: client_secret_basic", "5: provider.token_auth: `client_secret_basic` needs a secret, write `client_secret_file`", id="no-secret"),
        pytest.param("token_auth: mtls", "5: provider.token_auth: `mtls` is not known here, write one of `client_secret_basic`, `client_secret_post`, `none`", id="token-auth"),
        pytest.param("client_secret: 123456", '5: provider.client_secret: this is not a secret, write text on one line, in quotes: `"..."`', id="secret-number"),
        pytest.param("insecure_oidc_skip_nonce: true", "5: provider.insecure_oidc_skip_nonce: unknown key `insecure_oidc_skip_nonce`, the nonce is always checked", id="skip-nonce"),
        pytest.param("frontchannel_logout: on", "5: provider.frontchannel_logout: `on` is not a boolean, write `true` or `false`", id="frontchannel-logout"),
        pytest.param("endpoint_hosts: https://a.test", "5: provider.endpoint_hosts: `https://a.test` is not a domain, write it like `example.com`, non-ASCII names as `xn--`", id="endpoint-url"),
        pytest.param("logout_exp: off", "5: provider.logout_exp: `off` is not known here, write one of `optional`, `required`", id="logout-exp"),
        pytest.param("issuer_url: x", "5: provider.issuer_url: unknown key `issuer_url`, did you mean `issuer`?", id="other-name"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told(line: str, message: str) -> None:
    assert mistakes(one(line)) == [message]


def test_one_secret_comes_from_one_place() -> None:
    assert mistakes(one("client_secret: s", "client_secret_file: f")) == [
        "5: provider.client_secret: `client_secret` and `client_secret_file` are both written, write one of them"
    ]
    assert mistakes(one("client_secret: s", "token_auth: none")) == [
        "6: provider.token_auth: `none` sends no secret, but one is given, remove one of the two"
    ]


@pytest.mark.parametrize(
    ("issuer", "refused"),
    [
        pytest.param("http://idp.test", True, id="plain"),
        pytest.param("http://localhost.idp.test", True, id="pretends-to-be-here"),
        pytest.param("http://127.0.0.1:9000", False, id="this-machine"),
        pytest.param("http://idp.localhost", False, id="below-localhost"),
        pytest.param("https://idp.test", False, id="tls"),
    ],
)
def test_an_issuer_without_tls_is_refused(issuer: str, refused: bool) -> None:
    message = "3: provider.issuer: an issuer without TLS lets anyone on the way sign in as anybody, write `https://...`"
    assert mistakes(one(issuer=issuer)) == [message] * refused


def test_dangers_wear_their_names_and_are_warned_of() -> None:
    text = one(
        "dangerous_allow_http_issuer: true", "dangerous_accept_unverified_email: true", issuer="http://i.test"
    )
    (found,) = settings(text).providers
    assert found.dangerous_allow_http
    assert found.claims.dangerous_allow_unverified_email
    assert warnings(text) == [
        "3: provider.issuer: without TLS anyone on the way can sign in as anybody",
        "6: provider.dangerous_accept_unverified_email: whoever may type an address in at this provider owns every "
        "rule that names it",
    ]


TWO = "providers:\n  - {name: a, issuer: https://a.test, client_id: z}\n"


def test_several_providers_keep_their_order() -> None:
    found = settings(site(provider=TWO + "  - {name: b, issuer: https://b.test, client_id: z}")).providers
    assert [each.name for each in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        pytest.param(TWO + "  - {issuer: https://b.test, client_id: z}", "4: providers[1]: one of several providers needs a name, add `name: ...`", id="no-name"),
        pytest.param(TWO + "  - {name: a, issuer: https://b.test, client_id: z}", "4: providers[1].name: two providers are called `a`, rename one", id="twice"),
        pytest.param("provider: {issuer: https://a.test, client_id: z}\nproviders: {name: b, issuer: https://b.test, client_id: z}", "2: provider: `provider` and `providers` are both written, write one of them", id="both"),
        pytest.param("# none", " there is no provider to sign in with, write `provider: {issuer: ..., client_id: ...}`", id="none"),
    ],
)  # fmt: skip
def test_providers_that_do_not_fit_are_told(provider: str, message: str) -> None:
    assert mistakes(site(provider=provider)) == [message]
