"""What a provider says of itself (OpenID Connect Discovery 1.0), judged before anything is sent there.

Knows: which members we rely on. Promises: a `Metadata` is of the configured issuer byte for byte (Authlib
does not compare, D01), and every endpoint is https on a host that is allowed. Leaves fetching and keeping to
`oidc_fetch`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ztproxy.adapters.oidc_fetch import away
from ztproxy.core.identity import JSON
from ztproxy.errors import OperatorError

WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Metadata:
    """The endpoints, all checked. `hosts` are the hosts they are on."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    iss_parameter: bool
    hosts: frozenset[str]


def is_allowed_url(url: str, *, dangerous_allow_http: bool) -> bool:
    """An absolute https URL without user or fragment; http only on this machine, unless allowed
    everywhere."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or port == 0 or "@" in parts.netloc or "#" in url or "\\" in url:
        return False
    if parts.scheme == "https":
        return True
    return parts.scheme == "http" and (dangerous_allow_http or _is_loopback(parts.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_issuer(issuer: str, *, dangerous_allow_http: bool) -> None:
    """Raises `OperatorError` for an issuer that cannot be one (Discovery 3: https, no query, no fragment)."""
    if "?" in issuer or not is_allowed_url(issuer, dangerous_allow_http=dangerous_allow_http):
        raise OperatorError(f"`{issuer}` cannot be an issuer", "write its https URL as the provider does")


def read_metadata(
    document: Mapping[str, JSON],
    *,
    issuer: str,
    hosts: frozenset[str],
    require_pkce: bool,
    dangerous_allow_http: bool,
) -> Metadata:
    """Judges a discovery document. `hosts`, where not empty, are the only ones an endpoint may be on (D02).

    Raises `WorldError`: the last good document serves on.
    """
    if document.get("issuer") != issuer:
        raise away("discovery: it is of another issuer")
    if "code" not in _list(document, "response_types_supported", ["code"]):
        raise away("discovery: no code flow")
    if require_pkce and "S256" not in _list(document, "code_challenge_methods_supported", []):
        raise away("discovery: no PKCE with S256")
    # What is sent to an http endpoint of an https issuer is readable on the way; one machine is no exception.
    dangerous = dangerous_allow_http and issuer.startswith("http:")
    found: dict[str, str] = {}
    for name in (
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "userinfo_endpoint",
        "end_session_endpoint",
    ):
        value = document.get(name)
        if value is None:
            continue
        secure = isinstance(value, str) and (value.startswith("https:") or issuer.startswith("http:"))
        if not isinstance(value, str) or not secure:
            raise away(f"discovery: `{name}` is not https")
        if not is_allowed_url(value, dangerous_allow_http=dangerous):
            raise away(f"discovery: `{name}` is no usable URL")
        if hosts and urlsplit(value).hostname not in hosts:
            raise away(f"discovery: `{name}` moved to a host that is not allowed")
        found[name] = value
    try:
        return Metadata(
            authorization_endpoint=found["authorization_endpoint"],
            token_endpoint=found["token_endpoint"],
            jwks_uri=found["jwks_uri"],
            userinfo_endpoint=found.get("userinfo_endpoint"),
            end_session_endpoint=found.get("end_session_endpoint"),
            iss_parameter=document.get("authorization_response_iss_parameter_supported") is True,
            hosts=frozenset(urlsplit(url).hostname or "" for url in found.values()),
        )
    except KeyError as missing:
        raise away(f"discovery: {missing} is missing") from None


def _list(document: Mapping[str, JSON], name: str, default: list[JSON]) -> list[JSON]:
    value = document.get(name, default)
    return value if isinstance(value, list) else []
