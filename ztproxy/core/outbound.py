"""What leaves us: the head the app receives, and what of its answer the client may see.

Knows: the golden upstream request of the wire policy, the plain identity header families, the claims of the
assertion, and the response fields by which an app could subvert the edge (T27, T28, T41). Promises: the head
is rebuilt from parsed parts, never relayed; what we say about the client and the person comes after all the
client said, and stands alone, because `normalise` let nothing through that folds onto it. Leaves to the
caller: signing the claims, hop-by-hop framing of the answer, and choosing the endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from ztproxy.core.fields import fold
from ztproxy.core.identity import JSON, Session
from ztproxy.core.normalise import our_cookies
from ztproxy.core.request import Block, Field, FieldLines, Fields, Framing, Request, lines_of
from ztproxy.core.routes import Forwarding, IdentityPreset, Route
from ztproxy.core.service_tokens import shows_bearer

_TOKEN: Final = frozenset({b"authorization"})
_NO_BODY: Final = Framing.NONE  # a member looked up through its class costs 90 ns on Python 3.11
ASSERTION_LIFETIME = 300
"""Seconds an identity assertion is valid."""


class OutboundRequest(NamedTuple):
    """A rebuilt request head, all but the Host, which may depend on the endpoint chosen.

    On the wire: `{method} {target} HTTP/1.1\\r\\nHost: {host or endpoint.authority}\\r\\n{block}\\r\\n`.
    `block` is complete field lines, each ending in CRLF, framing included.
    """

    method: bytes
    target: bytes
    host: bytes | None
    block: bytes


@dataclass(frozen=True, slots=True)
class ResponseSettings:
    """What a listener adds to or keeps from every answer of an app."""

    hsts: str | None
    cookie_prefixes: tuple[str, ...] = ("__Host-ztp", "__Secure-ztp")


def outbound_request(
    request: Request, route: Route, forwarding: Forwarding, request_id: str, identity: bytes
) -> OutboundRequest:
    """The head for the app, in the golden order: the client's fields as it wrote them, framing, the upgrade,
    what we know of the client, the route's own fields, and last `identity` (from `identity_block`).

    A field the route sets replaces every field of the same folded name, ours about the client included. The
    configuration must not let a route set Host, Connection or framing: what it sets is believed here.

    INVARIANT: a bearer token that was for us ends here unless the route says otherwise, as the session cookie
    does: an app, or whoever broke into it, could use it wherever else its service may go (RFC 9700 2.3). What
    the app is to know stands in the assertion, which is for that app alone.
    """
    scheme, host, port, peer = request.scheme, request.host, request.port, request.peer
    authority = host if port == (443 if scheme == "https" else 80) else f"{host}:{port}"
    chain = f"{peer.forwarded_for}, {peer.address}" if peer.forwarded_for else peer.address
    if request.framing is _NO_BODY and request.upgrade is None:
        framing = ""
    else:
        framing = _framing(request)
    ours = (
        f"{framing}X-Forwarded-For: {chain}\r\nX-Forwarded-Proto: {scheme}\r\n"
        f"X-Forwarded-Host: {authority}\r\nX-Request-Id: {request_id}\r\n"
    ).encode("latin-1")
    fields = request.fields
    block = (fields.lines if type(fields) is Fields else lines_of(fields)) + ours
    services, gone = route.services, forwarding.remove_request
    if services is not None and not services.forward_token and shows_bearer(request, services):
        gone |= _TOKEN
    if forwarding.set_request or gone:
        block = _replaced(block, forwarding.set_request, gone)

    host_sent: str | None = authority if forwarding.preserve_host else None
    if forwarding.host is not None:
        host_sent = forwarding.host
    target = _target(request, route, forwarding) + request.query
    return OutboundRequest(
        request.method.encode("ascii"),
        target.encode("ascii"),
        None if host_sent is None else host_sent.encode("ascii"),
        block + identity,
    )


def _framing(request: Request) -> str:
    lines = ""
    if request.framing is Framing.LENGTH:
        lines = f"Content-Length: {request.length}\r\n"
    elif request.framing is Framing.CHUNKED:
        lines = "Transfer-Encoding: chunked\r\n"
    if request.upgrade is not None:
        lines += f"Connection: Upgrade\r\nUpgrade: {request.upgrade}\r\n"
    return lines


def _replaced(block: bytes, ours: tuple[Field, ...], removed: Set[bytes]) -> bytes:
    """The field lines without those that are removed or ours, and then ours."""
    gone = {_folded(name) for name, _ in ours} | set(map(_folded, removed))
    lines = block.split(b"\r\n")[:-1]
    kept = [line for line in lines if _folded(line.partition(b":")[0]) not in gone]
    kept += map(b": ".join, ours)
    return b"".join([line + b"\r\n" for line in kept])


# Spellings repeat from request to request; only where fields are set or removed one comes here.
_folded = lru_cache(maxsize=4096)(fold)


# Segments that are empty where an app splits at `%2F` or cuts at `;`, before or after it decodes.
_EMPTY_IN_FRONT: Final = re.compile(r"\A(?:/|%2F|(?:;|%3B)[^/]*+(?:/|\Z))++")


def _target(request: Request, route: Route, forwarding: Forwarding) -> str:
    """The canonical path with the route's prefix stripped or replaced; it starts with one `/`.

    The prefix is cut from the canonical text segment by segment: the first reading of a path is exactly its
    text, decoded, and every reading led to this route.
    """
    text = request.path.text
    prefix = forwarding.rewrite_prefix
    if prefix is None:
        if not forwarding.strip_prefix:
            return text
        prefix = ""
    rest = text.split("/")[1 + len(route.segments) :] if route.segments else [text[1:]]
    # `//` in front, however an app comes to it, would be a network-path reference; the reading without the
    # empty segments is allowed too.
    tail = "/" + _EMPTY_IN_FRONT.sub("", "/".join(rest)) if rest else ""
    return prefix.rstrip("/") + tail or "/"


# ---- who the person is, told to the app ------------------------------------------------------------------

# A value that a parser would trim or split is somebody else's value; see `_text`.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ELEMENT_UNSAFE = re.compile(rb"[^\x20-\x7e]|[,%]|^ | $")


def identity_block(route: Route, session: Session | None, assertion: str | None) -> bytes:
    """The identity field lines for the app (presets, then the assertion); cacheable per session and route."""
    lines: list[bytes] = []
    if session is not None:
        for preset in route.identity.presets:
            lines.extend(b"%b: %b\r\n" % field for field in _plain(preset, route, session))
    if assertion is not None:
        lines.append(b"X-Ztproxy-Assertion: %b\r\n" % assertion.encode("ascii"))
    return b"".join(lines)


def assertion_claims(route: Route, session: Session, now: float, jti: str, site: str) -> dict[str, JSON]:
    """The claims of the signed assertion for this route's app. `site` is the origin the browser sees.

    `groups` is the route's selection and a list even when it is empty; claims the person does not have are
    absent. `device` is the id of the device the session is bound to, `scope` what a service's token covers
    (RFC 8693 4.2). Claims of the provider never replace these.
    """
    who = session.identity
    claims: dict[str, JSON] = {
        "iss": site,
        "aud": route.identity.audience,
        "sub": who.subject,
        "iat": int(now),
        "exp": int(now) + ASSERTION_LIFETIME,
        "jti": jti,
        "sid": session.id,
        "idp": who.issuer,
        "groups": list(_groups(route, session)),
        "auth_time": int(session.authenticated_at),
        "amr": list(session.amr),
    }
    optional: dict[str, JSON] = {
        "email": who.email,
        "name": who.name,
        "preferred_username": who.username,
        "acr": session.acr,
        "device": session.device,
        "scope": " ".join(sorted(session.scopes)) or None,
    }
    claims.update({name: value for name, value in optional.items() if value is not None})
    return claims


def _groups(route: Route, session: Session) -> tuple[str, ...]:
    only = route.identity.groups
    groups = session.identity.groups
    return groups if only is None else tuple(group for group in groups if group in only)


# What each family calls the facts. `login` is the short name apps show: username, else e-mail, else subject.
_FAMILIES: dict[IdentityPreset, tuple[tuple[bytes, str], ...]] = {
    IdentityPreset.OAUTH2_PROXY: (
        (b"X-Forwarded-User", "subject"),
        (b"X-Forwarded-Email", "email"),
        (b"X-Forwarded-Groups", "groups"),
        (b"X-Forwarded-Preferred-Username", "username"),
    ),
    IdentityPreset.AUTHELIA: (
        (b"Remote-User", "login"),
        (b"Remote-Groups", "groups"),
        (b"Remote-Name", "name"),
        (b"Remote-Email", "email"),
    ),
    IdentityPreset.POMERIUM: (
        (b"X-Pomerium-Claim-Sub", "subject"),
        (b"X-Pomerium-Claim-Email", "email"),
        (b"X-Pomerium-Claim-Name", "name"),
        (b"X-Pomerium-Claim-Groups", "groups"),
    ),
    IdentityPreset.GRAFANA: (
        (b"X-WEBAUTH-USER", "login"),
        (b"X-WEBAUTH-EMAIL", "email"),
        (b"X-WEBAUTH-NAME", "name"),
        (b"X-WEBAUTH-GROUPS", "groups"),
    ),
}


def _plain(preset: IdentityPreset, route: Route, session: Session) -> list[Field]:
    who = session.identity
    facts = {
        "subject": _text(who.subject),
        "email": _text(who.email),
        "name": _text(who.name),
        "username": _text(who.username),
        "login": _text(who.username) or _text(who.email) or _text(who.subject),
        "groups": b",".join(filter(None, map(_element, _groups(route, session)))),
    }
    return [(name, facts[fact]) for name, fact in _FAMILIES[preset] if facts[fact]]


def _text(value: str | None) -> bytes:
    """A claim as a field value, or nothing when it cannot be one unchanged (I24).

    A value with a control would end the field; one with space around it would lose it on the way, and turn
    ` admin` into `admin`. Such a person is simply not named.
    """
    if value is None or value != value.strip() or _UNSAFE.search(value):
        return b""
    return value.encode()


def _element(group: str) -> bytes:
    """One element of a comma-joined list, percent-encoded where it would not survive as one (I25)."""
    return _ELEMENT_UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], group.encode(errors="surrogatepass"))


# ---- what of the answer the client may see ---------------------------------------------------------------

_KEEP, _DROP, _COOKIE, _CACHE, _VARY, _CLEAR, _WORKER, _CONNECTION = range(8)
_RESPONSE = {
    # Hop-by-hop (RFC 9110 7.6.1). Framing and connection are `wire`'s to write anew.
    b"connection": _CONNECTION,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"proxy-authenticate": _DROP,
    b"te": _DROP,
    b"trailer": _DROP,
    b"transfer-encoding": _DROP,
    b"content-length": _DROP,
    b"upgrade": _DROP,
    # An app does not speak for the edge: no other address for this site.
    b"alt-svc": _DROP,
    b"set-cookie": _COOKIE,
    b"clear-site-data": _CLEAR,
    b"service-worker-allowed": _WORKER,
    b"cache-control": _CACHE,
    b"vary": _VARY,
}
_OPTIONS = (b"close", b"keep-alive", b"upgrade")
_OWN_SCOPE = b"/.ztproxy/"
_MOST_BLOCKS = 256


class ResponseFilter:
    """Per route: `fields(...)` gives what of an app's answer goes to the client.

    Content-Length and all hop-by-hop fields are left out: `wire` frames the answer and writes them. The
    route's `remove_response` and `set_response` come last and win, over our HSTS too.
    """

    __slots__ = ("_added", "_caching_set", "_ours", "_remembered", "_treatments", "_vary_set")

    def __init__(self, route: Route, forwarding: Forwarding, settings: ResponseSettings) -> None:
        replaced = {name.lower() for name, _ in forwarding.set_response}
        removed = {name.lower() for name in forwarding.remove_response}
        self._treatments = dict(_RESPONSE)
        self._added = forwarding.set_response
        if settings.hsts is not None and b"strict-transport-security" not in replaced | removed:
            hsts = (b"Strict-Transport-Security", settings.hsts.encode("ascii"))
            self._added = (hsts, *forwarding.set_response)
            self._treatments[b"strict-transport-security"] = _DROP
        self._treatments |= dict.fromkeys(replaced | removed, _DROP)
        self._caching_set = b"cache-control" in replaced
        self._vary_set = b"vary" in replaced
        self._ours = our_cookies(settings.cookie_prefixes)
        # INVARIANT: a memo of `_filtered`, which is a pure function of the block and of who asked. Nothing of
        # the request may go in but whether there is a person.
        self._remembered: tuple[dict[bytes, FieldLines], dict[bytes, FieldLines]] = ({}, {})

    def fields(self, fields: list[Field], *, authenticated: bool) -> Sequence[Field]:
        """The app's fields, in order, without what it may not say; then ours."""
        if type(fields) is not Block:
            return self._filtered(fields, authenticated)
        remembered = self._remembered[authenticated]
        known = remembered.get(fields.octets)
        if known is None:
            if len(remembered) >= _MOST_BLOCKS:
                remembered.clear()
            known = remembered[fields.octets] = FieldLines(self._filtered(fields, authenticated))
        return known

    def _filtered(self, fields: list[Field], authenticated: bool) -> list[Field]:
        kept: list[Field] = []
        treatments = self._treatments
        silent = not self._caching_set
        varies = self._vary_set
        named: list[bytes] = []
        for field in fields:
            name = field[0].lower()
            treatment = treatments.get(name, _KEEP)
            if treatment == _KEEP:
                if not name.startswith(b"x-ztproxy"):
                    kept.append(field)
            elif treatment == _COOKIE:
                if not self._ours.match(field[1]):
                    kept.append(field)
            elif treatment == _CACHE:
                silent = False
                kept.append(field)
            elif treatment == _VARY:
                varies = varies or not {b"*", b"cookie"}.isdisjoint(_elements(field[1].lower()))
                kept.append(field)
            elif treatment == _CLEAR:
                value = b", ".join(part for part in _elements(field[1]) if _may_clear(part))
                if value:
                    kept.append((field[0], value))
            elif treatment == _WORKER:
                if _may_scope(field[1]):
                    kept.append(field)
            elif treatment == _CONNECTION:
                named += [name for name in _elements(field[1].lower()) if name not in _OPTIONS]
        if named:
            kept = [field for field in kept if field[0].lower() not in named]
        if authenticated:
            # T41: an answer made for one person must not be served to the next by a cache in between.
            if silent:
                kept.append((b"Cache-Control", b"private"))
            if not varies:
                kept.append((b"Vary", b"Cookie"))
        kept.extend(self._added)
        return kept


def _elements(value: bytes) -> list[bytes]:
    return [part.strip(b" \t") for part in value.split(b",")]


def _may_clear(directive: bytes) -> bool:
    """Whether an app may clear this: anything but cookies, which would end our session (U37)."""
    directive = directive.lower()
    return directive not in (b"", b'""') and b"cookies" not in directive and b"*" not in directive


def _may_scope(scope: bytes) -> bool:
    """Whether a service worker may have this scope: a plain path that neither covers nor lies under ours.

    A worker over `/.ztproxy/` would see every callback and page of ours (U38). `/` covers it; an app that
    needs it there gets it by the route's `set_response`. What is no plain path is resolved by rules we would
    have to repeat, so it is refused.
    """
    return (
        scope.startswith(b"/")
        and not scope.startswith((b"//", b"/\\"))
        and b"/." not in scope
        and b"%" not in scope
        and not _OWN_SCOPE.startswith(scope)
    )
