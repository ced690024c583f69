"""The OpenID Foundation's relying-party test modules, ported: what each checks, the lie, what comes of it.

`MODULES` is the table: a module is a whole sign-in (or refresh, or sign-out) over HTTP through a running
ztproxy, with a provider of its own that misbehaves as the module's does. `NOT_PORTED` are the rest, with the
reason. The names are the Foundation's; the port is ours and nobody certified it.
"""

from __future__ import annotations

from typing import Any

from tests.conformance.plays import (
    ALL,
    BEFORE_KEYS,
    BEFORE_USERINFO,
    DISCOVERY,
    ELSEWHERE,
    KEYS,
    Module,
    Prepare,
    another_algorithm,
    back_from_the_provider,
    badly_signed_userinfo,
    bearer_header,
    begun_by_the_provider,
    by_basic,
    claim,
    claims_by_scope,
    endpoints_by_discovery,
    es256,
    expired,
    forged,
    honest,
    keys_by_discovery,
    logout_token,
    metadata,
    nameless,
    nameless_among_two,
    new_key_for_the_second_login,
    new_key_just_before_signing,
    param,
    refreshing,
    response,
    signed_userinfo,
    somebody_else,
)
from tests.conformance.scripted import APP, spoiled, symmetric, unsigned
from tests.worlds.lying_provider import CLIENT_ID
from ztproxy.core.logout import EVENT
from ztproxy.core.reasons import Reason

BAD_TOKEN, BAD_ISSUER = Reason.LOGIN_TOKEN, Reason.LOGIN_ISSUER
AWAY, NO_ATTEMPT = Reason.PROVIDER_UNAVAILABLE, Reason.LOGIN_STATE

OIDC = "oidcc-client-test"
FAPI = "fapi2-security-profile-final-client-test"


def oidc(
    suffix: str, checks: str, prepare: Prepare = honest, refused: Reason | None = None, **more: Any
) -> Module:
    if refused is not None:
        more.setdefault("asks", BEFORE_USERINFO)
    return Module(OIDC + suffix, checks, prepare, refused, **more)


def fapi(
    suffix: str, checks: str, prepare: Prepare = honest, refused: Reason | None = None, **more: Any
) -> Module:
    if refused is not None:
        more.setdefault("asks", BEFORE_USERINFO)
    return Module(f"{FAPI}-{suffix}", checks, prepare, refused, **more)


NO_SESSION_LEFT = "refused, the session ends"
SIGNED_OUT = "signed out, whatever comes back"
ENDS, STAYS = "200, the session ends", "400, the session stays"
ES256_ALONE = "    algorithm: ES256\n"

MODULES: tuple[Module, ...] = (
    oidc("", "authorisation, token and userinfo as they should be"),
    oidc(
        "-client-secret-basic",
        "the client shows its secret by `client_secret_basic`, both halves encoded",
        play=by_basic,
    ),
    oidc(
        "-scope-userinfo-claims", "claims are asked for by scope and read from userinfo", play=claims_by_scope
    ),
    oidc(
        "-userinfo-bearer-header", "the access token goes to userinfo in the header alone", play=bearer_header
    ),
    oidc(
        "-userinfo-invalid-sub",
        "userinfo is about the person of the ID token",
        lambda world: world.userinfo.update(sub="mallory"),
        BAD_TOKEN,
        asks=ALL,
    ),
    oidc("-userinfo-signed", "a signed userinfo answer is read", signed_userinfo),
    oidc(
        "-userinfo-signed (spoiled)",
        "and its signature is checked (ours beside the module)",
        badly_signed_userinfo,
        BAD_TOKEN,
        asks=ALL,
    ),
    oidc("-invalid-iss", "an ID token of another issuer", claim(iss=ELSEWHERE), BAD_ISSUER),
    oidc("-invalid-aud", "an ID token for another client", claim(aud="another"), BAD_TOKEN),
    oidc("-missing-aud", "an ID token without `aud`", claim(aud=...), BAD_TOKEN),
    oidc("-missing-sub", "an ID token without `sub`", claim(sub=...), Reason.LOGIN_CLAIMS),
    oidc("-missing-iat", "an ID token without `iat`", claim(iat=...), BAD_TOKEN),
    oidc("-nonce-invalid", "an ID token of another sign-in", claim(nonce="of another one"), BAD_TOKEN),
    oidc("-idtoken-sig-rs256", "an ID token signed with RS256", config="    algorithm: RS256\n"),
    oidc(
        "-idtoken-sig-none", "an ID token without a signature", forged(unsigned), BAD_TOKEN, asks=BEFORE_KEYS
    ),
    oidc("-invalid-sig-rs256", "a wrong RS256 signature", forged(spoiled), BAD_TOKEN),
    oidc("-invalid-sig-es256", "a wrong ES256 signature", es256, BAD_TOKEN, config=ES256_ALONE),
    oidc("-invalid-sig-hs256", "a wrong HS256 signature", forged(symmetric), BAD_TOKEN, asks=BEFORE_KEYS),
    oidc("-kid-absent-single-jwks", "no `kid`, and one key it can be", nameless),
    oidc(
        "-kid-absent-multiple-jwks",
        "no `kid`, and two keys it could be: none is tried, the keys are asked for once more",
        nameless_among_two,
        BAD_TOKEN,
        asks=(*BEFORE_USERINFO, KEYS),
    ),
    oidc("-invalid-athash", "`at_hash` of another access token", claim(at_hash="x" * 22), BAD_TOKEN),
    oidc("-discovery-openid-config", "the endpoints are those of discovery", play=endpoints_by_discovery),
    oidc("-discovery-jwks-uri-keys", "the keys are those that discovery names", play=keys_by_discovery),
    oidc(
        "-discovery-issuer-mismatch",
        "a discovery document of another issuer",
        metadata(issuer=ELSEWHERE),
        AWAY,
        asks=(DISCOVERY,),
    ),
    oidc("-signing-key-rotation", "a new key between two sign-ins", play=new_key_for_the_second_login),
    oidc(
        "-signing-key-rotation-just-before-signing",
        "a new key while the person is at the provider",
        play=new_key_just_before_signing,
    ),
    oidc("-refresh-token", "a refresh keeps the session", play=refreshing(honest, 200)),
    oidc(
        "-refresh-token-invalid-issuer",
        "a refresh that brings an ID token of another issuer",
        play=refreshing(claim(iss=ELSEWHERE), 401),
        notes=NO_SESSION_LEFT,
    ),
    oidc(
        "-refresh-token-invalid-sub",
        "a refresh that brings another person",
        play=refreshing(somebody_else, 401),
        notes=NO_SESSION_LEFT,
    ),
    oidc(
        "-3rd-party-init-login",
        "the provider begins, at `/.ztproxy/start/<name>` (GET; its `login_hint` is not sent back)",
        play=begun_by_the_provider(f"{APP}/u/v?w=x", f"{APP}/u/v?w=x"),
    ),
    oidc(
        "-3rd-party-init-login (elsewhere)",
        "and one that is to end at another site (ours beside the module)",
        play=begun_by_the_provider(f"{APP}.evil.test/u", f"{APP}/"),
        notes="accepted, and ends at home",
    ),
    oidc(
        "-rp-init-logout",
        "signing out goes on to the provider, and back",
        play=back_from_the_provider(),
        notes=SIGNED_OUT,
    ),
    oidc(
        "-rp-init-logout-other-state",
        "it comes back with a `state` that nobody sent",
        play=back_from_the_provider(state="another"),
        notes=SIGNED_OUT,
    ),
    oidc(
        "-rp-init-logout-no-state",
        "it comes back without a `state` (we send none)",
        play=back_from_the_provider(),
        notes=SIGNED_OUT,
    ),
    oidc("-rp-backchannel-rpinitlogout", "a good logout token", play=logout_token(True), notes=ENDS),
    oidc(
        "-rp-backchannel-rpinitlogout-alg-none",
        "one without a signature",
        play=logout_token(False, unsigned),
        notes=STAYS,
    ),
    oidc(
        "-rp-backchannel-rpinitlogout-no-event",
        "one without `events`",
        play=logout_token(False, events=...),
        notes=STAYS,
    ),
    oidc(
        "-rp-backchannel-rpinitlogout-with-nonce",
        "one with a `nonce`",
        play=logout_token(False, nonce="n"),
        notes=STAYS,
    ),
    oidc(
        "-rp-backchannel-rpinitlogout-wrong-alg",
        "one signed by the provider, with an algorithm that was not agreed on",
        play=logout_token(False, prepare=another_algorithm),
        notes=STAYS,
    ),
    oidc(
        "-rp-backchannel-rpinitlogout-wrong-aud",
        "one for another client",
        play=logout_token(False, aud="another"),
        notes=STAYS,
    ),
    oidc(
        "-rp-backchannel-rpinitlogout-wrong-event",
        "one about another event",
        play=logout_token(False, events={f"{EVENT}ish": {}}),
        notes=STAYS,
    ),
    oidc(
        "-rp-backchannel-rpinitlogout-wrong-iss",
        "one of another issuer",
        play=logout_token(False, iss=ELSEWHERE),
        notes=STAYS,
    ),
    fapi("happy-path", "all as it should be"),
    fapi(
        "discovery-issuer-mismatch",
        "a discovery document of another issuer",
        metadata(issuer=ELSEWHERE),
        AWAY,
        asks=(DISCOVERY,),
    ),
    fapi(
        "invalid-authorization-response-iss",
        "another provider answers (RFC 9207): the code is not sent anywhere",
        refused=BAD_ISSUER,
        answer=param("iss", ELSEWHERE),
        asks=(DISCOVERY,),
    ),
    fapi(
        "remove-authorization-response-iss",
        "no issuer in the answer, of a provider that says it names itself",
        refused=BAD_ISSUER,
        answer=param("iss", None),
        asks=(DISCOVERY,),
    ),
    fapi(
        "ensure-authorization-response-with-invalid-state-fails",
        "an answer to a sign-in that nobody began",
        refused=NO_ATTEMPT,
        answer=param("state", "A" * 43),
        asks=(DISCOVERY,),
    ),
    fapi(
        "ensure-authorization-response-with-invalid-missing-state-fails",
        "an answer without `state`",
        refused=NO_ATTEMPT,
        answer=param("state", None),
        asks=(DISCOVERY,),
    ),
    fapi(
        "invalid-alternate-alg",
        "a good signature with an algorithm that was not agreed on",
        another_algorithm,
        BAD_TOKEN,
        asks=BEFORE_KEYS,
    ),
    fapi(
        "invalid-null-alg", "an ID token without a signature", forged(unsigned), BAD_TOKEN, asks=BEFORE_KEYS
    ),
    fapi("invalid-aud", "an ID token for another client", claim(aud="another"), BAD_TOKEN),
    fapi("invalid-missing-aud", "an ID token without `aud`", claim(aud=...), BAD_TOKEN),
    fapi(
        "invalid-secondary-aud",
        "an ID token for this client and one we do not trust",
        claim(aud=[CLIENT_ID, "another"], azp=CLIENT_ID),
        BAD_TOKEN,
    ),
    fapi("valid-aud-as-array", "an ID token for a list of this client alone", claim(aud=[CLIENT_ID])),
    fapi("invalid-iss", "an ID token of another issuer", claim(iss=ELSEWHERE), BAD_ISSUER),
    fapi("invalid-missing-iss", "an ID token without `iss`", claim(iss=...), BAD_ISSUER),
    fapi("invalid-nonce", "an ID token of another sign-in", claim(nonce="of another one"), BAD_TOKEN),
    fapi("invalid-missing-nonce", "an ID token without `nonce`", claim(nonce=...), BAD_TOKEN),
    fapi("invalid-expired-exp", "an ID token that has expired", expired, BAD_TOKEN),
    fapi("invalid-missing-exp", "an ID token without `exp`", claim(exp=...), BAD_TOKEN),
    fapi(
        "token-endpoint-response-without-expires_in",
        "tokens of which nobody says how long they hold",
        response(expires_in=...),
    ),
    fapi("token-type-case-insensitivity", "`token_type` in odd letters", response(token_type="bEaReR")),
)

_NO_FRAMES = (
    "the endpoint is built and has tests of its own; the modules need a browser in which it is framed"
)

NOT_PORTED: tuple[tuple[str, str], ...] = (
    (f"{OIDC}-userinfo-bearer-body", "the access token is sent in the header, which every provider takes"),
    (f"{OIDC}-nonce-unless-code-flow", "only the code flow is spoken, and a nonce is sent in it"),
    (
        f"{OIDC}-missing-athash, -invalid-chash, -missing-chash",
        "of the implicit and hybrid flows, which are not spoken",
    ),
    (f"{OIDC}-form-post-error", "of `response_mode=form_post`, which is not asked for"),
    (
        f"{OIDC}-aggregated-claims, -distributed-claims",
        "claims held elsewhere are never fetched; they are left out and noted",
    ),
    (f"{OIDC}-mtls-endpoint-aliases", "the client shows a secret, never a certificate"),
    (f"{OIDC}-request-uri-signed-none, -request-uri-signed-rs256", "no request objects by reference"),
    (
        f"{OIDC}-discovery-webfinger-acct, -discovery-webfinger-url",
        "the issuer is configured, never discovered from a name",
    ),
    (f"{OIDC}-dynamic-registration", "the client is configured, never registered"),
    (f"{OIDC}-rp-frontchannel-opinitlogout, -rp-frontchannel-rpinitlogout", _NO_FRAMES),
    (
        f"{OIDC}-session-management",
        "no frame asks the provider every few seconds; it tells us itself (back channel)",
    ),
    (f"{FAPI}: 8 of JARM, 2 of DPoP, 1 of Open Banking", "not spoken"),
    ("openid-ssf-receiver: 7 modules", "a receiver of shared signals (SSF, CAEP) is not built"),
)
