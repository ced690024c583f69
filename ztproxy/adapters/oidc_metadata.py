"""What a provider says of itself (OpenID Connect Discovery 1.0), judged before anything is sent there.

Knows: which members we rely on. Promises: a `Metadata` is of the configured issuer byte for byte (Authlib
does not compare, D01), and every endpoint is https on a host that is allowed: one the operator named, or one
of the first good document, whoever of all workers read it and however often they were restarted since (D02).
Leaves fetching and keeping to `oidc_fetch`.

An endpoint may be at a private address, where the providers of companies are, but on this machine only for an
issuer on this machine: what listens to nobody but us is not to be asked because a document says so (T26).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ztproxy.adapters.oidc_fetch import away, is_off_limits
from ztproxy.core.identity import JSON
from ztproxy.errors import OperatorError
from ztproxy.gateway.ports.providers import FirstHosts

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
    """An absolute https URL without user or fragment, not at an address no provider is at; http only on this
    machine, unless allowed everywhere."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or port == 0 or "@" in parts.netloc or "#" in url or "\\" in url:
        return False
    if is_off_limits(parts.hostname):
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


class Pins:
    """The hosts the endpoints of one issuer may be on.

    The issuer's own always, and those `configured` by the operator; without these, those of the first good
    document, which `first` remembers for everybody under `name`, or without it this object alone. `mend` is
    what an operator does about a move that is right.
    """

    def __init__(
        self, name: str, issuer: str, configured: frozenset[str], first: FirstHosts | None, mend: str
    ) -> None:
        self._name, self._own, self._first = name, frozenset({host_of(issuer)}), first
        self._mend = mend
        self._hosts = configured and configured | self._own

    async def hold(self, hosts: frozenset[str]) -> None:
        """Raises `WorldError` where one of `hosts` is none of them: the last good document serves on.

        INVARIANT: nothing is sent to, or believed of, an endpoint before this. A document that is right in
        its issuer could else move the token endpoint to where it would collect our codes and our secret.
        """
        if not self._hosts:
            found = hosts | self._own
            self._hosts = found if self._first is None else await self._first.first(self._name, found)
        moved = sorted(hosts - self._hosts)
        if moved:
            raise away(f"an endpoint moved to `{moved[0]}`; if that is right, {self._mend}")


def host_of(url: str) -> str:
    """The host of a URL that `is_allowed_url` allowed."""
    return urlsplit(url).hostname or ""


def is_here_without_reason(url: str, issuer: str) -> bool:
    """Whether `url` is on this machine though `issuer` is not."""
    return _is_loopback(host_of(url)) and not _is_loopback(host_of(issuer))


def read_metadata(
    document: Mapping[str, JSON], *, issuer: str, require_pkce: bool, dangerous_allow_http: bool
) -> Metadata:
    """Judges a discovery document; whether its hosts are allowed is for `Pins` to say.

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
        if is_here_without_reason(value, issuer):
            raise away(f"discovery: `{name}` is on this machine, its issuer is not")
        found[name] = value
    try:
        return Metadata(
            authorization_endpoint=found["authorization_endpoint"],
            token_endpoint=found["token_endpoint"],
            jwks_uri=found["jwks_uri"],
            userinfo_endpoint=found.get("userinfo_endpoint"),
            end_session_endpoint=found.get("end_session_endpoint"),
            iss_parameter=document.get("authorization_response_iss_parameter_supported") is True,
            hosts=frozenset(map(host_of, found.values())),
        )
    except KeyError as missing:
        raise away(f"discovery: {missing} is missing") from None


def _list(document: Mapping[str, JSON], name: str, default: list[JSON]) -> list[JSON]:
    value = document.get(name, default)
    return value if isinstance(value, list) else []
