"""Field names: how they fold, which are ours alone, and what becomes of each.

Knows: RFC 9110's hop-by-hop fields, the identity and forwarding fields apps believe, and how CGI, WSGI, PHP
and others fold names into variables. Promises: a name that an app could take for one we manage never travels
on in another spelling (T04; oauth2-proxy GHSA-vjrc-mh2v-45x6, Traefik GHSA-x677-9fxg-v5c5). Leaves the values
to `normalise`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# What becomes of a field. Plain integers: one is compared per field of every request.
KEEP: Final = 0  # travels on
COOKIE: Final = 1  # travels on without our cookies
ONCE: Final = 2  # travels on, at most one, remembered
TAKEN: Final = 3  # at most one, remembered, does not travel on
LISTED: Final = 4  # any number, remembered, does not travel on
TRACE: Final = 5  # travels on when it is well formed
DROP: Final = 6
REFUSE: Final = 7

Known = tuple[int, bytes]
"""What becomes of a field, and its lower-case name."""

_REMEMBERED = 4096  # spellings; more than all honest clients use, too few to fill memory with

_SPECIAL: Final = {
    b"cookie": COOKIE,
    # Rule 5: two of these, and two parsers may each believe another one.
    b"content-type": ONCE,
    b"authorization": ONCE,
    b"origin": ONCE,
    b"sec-websocket-key": ONCE,
    b"sec-websocket-version": ONCE,
    b"host": TAKEN,
    b"content-length": TAKEN,
    b"transfer-encoding": TAKEN,
    b"upgrade": TAKEN,
    b"expect": TAKEN,
    b"connection": LISTED,
    b"x-forwarded-for": LISTED,
    b"x-forwarded-proto": LISTED,
    b"traceparent": TRACE,
    # Rule 10: hop-by-hop (RFC 9110 7.6.1), and `Proxy`, which CGI turns into HTTP_PROXY (httpoxy).
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"te": DROP,
    b"trailer": DROP,
    b"http2-settings": DROP,
    b"proxy": DROP,
}

# Folded names that only we, or a proxy before us, may write. An app that trusts one of them trusts us.
_RESERVED = re.compile(
    rb"""x-ztproxy.*
    # Of proxies that say who it is.
    | x-auth-request-.* | x-auth-(user|username|email) | x-pomerium-.* | x-vouch-.* | x-authentik-.*
    | x-goog-iap-.* | x-goog-authenticated-user-.* | x-appengine-.* | x-(apigateway|endpoint)-api-userinfo
    | cf-access-.* | x-amzn-oidc-.* | x-ms-client-principal.* | x-ms-token-.* | ms-aspnetcore-.*
    | tailscale-.* | teleport-jwt-assertion | kubeflow-userid | x-userinfo
    | x-consumer-.* | x-credential-identifier | x-anonymous-consumer
    | iv-(user|groups|creds) | sm-user | smuser | shib-.* | oidc-claim-.* | oidc-access-token
    | x-webauth-.* | x-authenticated-.* | auth-user | impersonate-.*
    | (x-)?remote-(user|email|groups?|name|uid|addr|ip|extra-.*)
    # Of those that say which certificate was shown.
    | client-cert(-chain)? | x-client-.*cert.* | x-ssl-.* | ssl-client-.* | x-amzn-mtls-.*
    | x-arr-(clientcert|ssl)
    # Who asked, over what, and for what, before us.
    | x-forwarded(-.*)? | forwarded(-for)? | via | x-real-ip | x-request-id | x-envoy-.*
    | (true-|x-|x-cluster-|cf-connecting-|fastly-)client-ip | cf-connecting-ip(v6)? | x-originating-ip
    | x-azure-(clientip|socketip) | front-end-https | x-(url-)?scheme | x-(http-)?host(-override)?
    | x-original-(url|uri|host|method|path|forwarded-for|remote-addr) | x-rewrite-url
    | x-http-method(-override)? | x-method-override | x-middleware-subrequest(-id)?
    """,
    re.VERBOSE,
)
# INVARIANT: refused, not dropped: Kubernetes acts as whoever is named there instead of as the caller, so a
# request without them may do more than the one that was sent.
_LESSENING: Final = b"impersonate-"
_FOLDED_AWAY = re.compile(rb"[^a-z0-9]")


def fold(name: bytes) -> bytes:
    """The name as the most careless app sees it: lower-case, every non-alphanumeric a `-`."""
    return _FOLDED_AWAY.sub(b"-", name.lower())


def is_reserved(folded: bytes) -> bool:
    """Whether a client may never send a field of this folded name on to an app."""
    return _RESERVED.fullmatch(folded) is not None


class FieldNames(dict[bytes, Known]):
    """What becomes of each field name, by its spelling as received; fills itself, up to a bound.

    `managed` are further names the routes set or remove: their exact spelling is kept, because `outbound`
    handles it by route, but no other spelling that folds onto one is let through. `listed` are reserved names
    (lower-case) whose values a trusted proxy may be asked for: remembered, and as little let through.
    """

    __slots__ = ("_listed", "_managed", "_underscored")

    def __init__(
        self, managed: Iterable[str], *, underscores_dropped: bool, listed: Iterable[bytes] = ()
    ) -> None:
        super().__init__()
        self._managed = frozenset(fold(name.encode("latin-1")) for name in managed)
        self._listed = frozenset(listed)
        self._underscored = DROP if underscores_dropped else REFUSE

    def __missing__(self, name: bytes) -> Known:
        lower = name.lower()
        known = (self._treatment(lower), lower)
        if len(self) < _REMEMBERED:
            self[name] = known
        return known

    def _treatment(self, lower: bytes) -> int:
        # INVARIANT: a name with `_` never travels on, whatever it folds onto: CGI cannot tell it from `-`.
        if b"_" in lower:
            return self._underscored
        folded = fold(lower)
        reserved = is_reserved(folded)
        if folded.startswith(_LESSENING):
            return REFUSE
        if folded != lower:
            return REFUSE if reserved or folded in _SPECIAL or folded in self._managed else KEEP
        if lower in self._listed:
            return LISTED
        return _SPECIAL.get(lower, DROP if reserved else KEEP)
