"""What becomes of each field name, in each of its spellings."""

import pytest

from ztproxy.core.fields import (
    COOKIE,
    DROP,
    KEEP,
    LISTED,
    ONCE,
    REFUSE,
    TAKEN,
    TRACE,
    FieldNames,
    fold,
    is_reserved,
)

NAMES = FieldNames({"x-team", "authorization"}, underscores_dropped=False)

TREATMENTS = [
    pytest.param(b"Accept", KEEP, id="an ordinary field"),
    pytest.param(b"X-Custom.Name", KEEP, id="a dot in a name that is nobody's"),
    pytest.param(b"X-Team", KEEP, id="a route's field is left to outbound"),
    pytest.param(b"X.Team", REFUSE, id="a look-alike of a route's field"),
    pytest.param(b"Cookie", COOKIE, id="cookie"),
    pytest.param(b"cOOKIE", COOKIE, id="cookie in any case"),
    pytest.param(b"Content-Type", ONCE, id="a singleton that travels on"),
    pytest.param(b"Authorization", ONCE, id="authorization stays a singleton where a route sets it"),
    pytest.param(b"Host", TAKEN, id="host"),
    pytest.param(b"CONTENT-LENGTH", TAKEN, id="framing"),
    pytest.param(b"Connection", LISTED, id="connection"),
    pytest.param(b"X-Forwarded-For", LISTED, id="forwarded-for is looked at"),
    pytest.param(b"traceparent", TRACE, id="trace context"),
    pytest.param(b"TE", DROP, id="hop-by-hop"),
    pytest.param(b"Proxy", DROP, id="H122 httpoxy"),
    pytest.param(b"X-Ztproxy-User", DROP, id="I01 ours"),
    pytest.param(b"X-ZTPROXY-USER", DROP, id="I02 ours in capitals"),
    pytest.param(b"X-Ztproxy", DROP, id="ours without a suffix"),
    pytest.param(b"X-Ztproxy_User", REFUSE, id="I04 underscore"),
    pytest.param(b"X_Ztproxy-User", REFUSE, id="I04 underscore first"),
    pytest.param(b"X_Custom", REFUSE, id="underscore in a name that is nobody's"),
    pytest.param(b"Content_Length", REFUSE, id="H14 underscore twin of framing"),
    pytest.param(b"X.Ztproxy.User", REFUSE, id="I05 dots"),
    pytest.param(b"X!Ztproxy!User", REFUSE, id="I05 exclamation marks"),
    pytest.param(b"X~Ztproxy~User", REFUSE, id="I05 tildes"),
    pytest.param(b"X'Ztproxy'User", REFUSE, id="I05 quotes"),
    pytest.param(b"Transfer.Encoding", REFUSE, id="a look-alike of framing"),
    pytest.param(b"X.Forwarded-For", REFUSE, id="a look-alike of a forwarding field"),
    pytest.param(b"Remote*User", REFUSE, id="a look-alike of a preset's field"),
    pytest.param(b"Impersonate-User", REFUSE, id="a field without which the request may do more"),
    pytest.param(b"IMPERSONATE-EXTRA-x", REFUSE, id="in capitals"),
    pytest.param(b"Impersonate.Group", REFUSE, id="a look-alike of one"),
]


@pytest.mark.parametrize(("name", "treatment"), TREATMENTS)
def test_treatment(name: bytes, treatment: int) -> None:
    assert NAMES[name] == (treatment, name.lower())
    assert NAMES[name] == (treatment, name.lower())  # and remembered the same


@pytest.mark.parametrize("name", [b"X_Custom", b"X-Ztproxy_User", b"Content_Length"])
def test_underscores_can_be_dropped_but_never_pass(name: bytes) -> None:
    assert FieldNames((), underscores_dropped=True)[name] == (DROP, name.lower())


RESERVED = """
x-ztproxy-user x-ztproxy-assertion x-forwarded-user x-forwarded-email x-forwarded-groups
x-forwarded-preferred-username x-forwarded-access-token x-forwarded-for x-forwarded-host x-forwarded-proto
x-forwarded-port x-forwarded-prefix x-forwarded-uri x-forwarded-client-cert x-auth-request-user
x-pomerium-claim-email x-pomerium-jwt-assertion x-goog-iap-jwt-assertion cf-access-jwt-assertion remote-user
remote-groups remote-name remote-email x-remote-user x-webauth-user x-webauth-role x-real-ip forwarded via
client-cert client-cert-chain x-client-cert x-client-tls-cert-hash x-ssl-client-verify ssl-client-cert
x-original-url x-rewrite-url x-original-uri x-http-method-override x-method-override x-request-id
true-client-ip cf-connecting-ip x-authenticated-user x-authenticated-userid x-vouch-user oidc-claim-email
oidc-access-token x-remote-group x-remote-extra-scopes x-ms-client-principal x-ms-client-principal-name
x-amzn-oidc-data x-authentik-username teleport-jwt-assertion auth-user
tailscale-user-login tailscale-user-name x-consumer-username x-consumer-custom-id x-credential-identifier
x-anonymous-consumer x-userinfo x-apigateway-api-userinfo x-endpoint-api-userinfo iv-user iv-groups iv-creds
sm-user smuser shib-session-id shib-identity-provider x-arr-clientcert x-arr-ssl x-ms-token-aad-id-token
x-appengine-user-email x-appengine-inbound-appid ms-aspnetcore-token ms-aspnetcore-clientcert kubeflow-userid
x-auth-user x-auth-username x-auth-email x-middleware-subrequest x-middleware-subrequest-id x-forwarded
forwarded-for x-host x-http-host x-host-override x-http-host-override x-original-path
x-original-forwarded-for x-original-remote-addr x-envoy-original-path x-envoy-external-address
x-azure-clientip x-azure-socketip cf-connecting-ipv6 front-end-https x-scheme x-url-scheme remote-addr
remote-ip remote-uid x-remote-addr x-remote-ip x-remote-uid
"""


@pytest.mark.parametrize("name", RESERVED.split())
def test_reserved(name: str) -> None:
    assert is_reserved(name.encode())
    treatment, _ = FieldNames((), underscores_dropped=False)[name.title().encode()]
    assert treatment in (DROP, LISTED)


@pytest.mark.parametrize(
    "name",
    [
        *("user", "remote-userx", "x-client-id", "viable", "x-http-method-s", "x-forwardedx", "x-auth-token"),
        *("x-ms-version", "x-appengine", "x-original-name", "shibboleth", "x-hostname", "impersonate"),
    ],
)
def test_not_reserved(name: str) -> None:
    assert not is_reserved(name.encode())


def test_a_front_s_fields_are_looked_at_and_go_no_further() -> None:
    names = FieldNames((), underscores_dropped=False, listed={b"client-cert"})
    assert names[b"Client-Cert"] == (LISTED, b"client-cert")
    assert names[b"Client-Cert-Chain"] == (DROP, b"client-cert-chain")
    assert names[b"Client.Cert"][0] == names[b"Client_Cert"][0] == REFUSE


def test_a_route_that_sets_a_name_opens_it_to_nobody() -> None:
    names = FieldNames({"Impersonate-User", "X-Auth-User"}, underscores_dropped=True)
    assert names[b"Impersonate-User"][0] == REFUSE
    assert names[b"Impersonate_User"][0] == names[b"X-Auth-User"][0] == DROP


def test_fold() -> None:
    assert fold(b"X_Zt.Proxy~U5er") == b"x-zt-proxy-u5er"


def test_hostile_names_do_not_grow_the_memory() -> None:
    names = FieldNames((), underscores_dropped=False)
    for number in range(6000):
        assert names[b"X-%d" % number] == (KEEP, b"x-%d" % number)
    assert len(names) == 4096
    assert names[b"X-Ztproxy-User"][0] == DROP  # still decided, only not remembered
    assert len(names) == 4096
