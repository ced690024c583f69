"""What a provider says of itself (OpenID Connect Discovery 1.0), judged before anything is sent there.

Knows: which members we rely on. Promises: a `Metadata` is of the configured issuer byte for byte (Authlib
does not compare, D01), and every endpoint is https on a host that is allowed: one the operator named, or one
of the first good document, whoever of all workers read it and however often they were restarted since (D02).
Leaves fetching and keeping to `oidc_fetch`.

An endpoint may be at a private address, where the providers of companies are, but on this machine only for an
issuer on this machine: what listens to nobody but us is not to be asked because a document says so (T26).
Addresses are meant, in every spelling, and `localhost`. A name whose DNS leads to this machine is let pass:
what listens there would have to prove by TLS that it is of that name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ztproxy.adapters.oidc_fetch import address_of, away, is_off_limits
from ztproxy.core.identity import JSON
from ztproxy.errors import OperatorError, WorldError
from ztproxy.gateway.ports.providers import FirstHosts

WELL_KNOWN = "/.well-known/openid-configuration"

# Stricter than RFC 3986 3.2.2: a name as DNS has it (RFC 1123 2.1, RFC 1035 2.3.4), or a plain address. What
# else may stand there (`%2e`, `;`, `'`) is for each reader to read otherwise, and as long as it likes.
_NETLOC = re.compile(r"([a-z0-9._-]{1,253}|\[[0-9a-f:.]+\])(:[0-9]*)?", re.ASCII | re.IGNORECASE)

_log = logging.getLogger("ztproxy.providers")


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
    if not _NETLOC.fullmatch(parts.netloc) or port == 0 or "#" in url or "\\" in url:
        return False
    host = host_of(url)
    if is_off_limits(host):
        return False
    if parts.scheme == "https":
        return True
    return parts.scheme == "http" and (dangerous_allow_http or _is_loopback(host))


def _is_loopback(host: str) -> bool:
    address = address_of(host)
    if address is not None:
        return address.is_loopback
    name = host.rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def check_issuer(issuer: str, *, dangerous_allow_http: bool) -> None:
    """Raises `OperatorError` for an issuer that cannot be one (Discovery 3: https, no query, no fragment)."""
    if "?" in issuer or not is_allowed_url(issuer, dangerous_allow_http=dangerous_allow_http):
        raise OperatorError(f"`{issuer}` cannot be an issuer", "write its https URL as the provider does")


class Pins:
    """The hosts the endpoints of one issuer may be on.

    The issuer's own always, and those `configured` by the operator; without these, those of the first good
    document, which `first` remembers for everybody under `name`, or without it this object alone. `mend` is
    what an operator does about a move that is right; `{}` in it are all hosts besides the issuer's own.

    A port is not pinned: a certificate is of a host, not of a port, so another port of it proves no less.
    """

    def __init__(
        self, name: str, issuer: str, configured: frozenset[str], first: FirstHosts | None, mend: str
    ) -> None:
        self._name, self._own, self._first = name, frozenset({host_of(issuer)}), first
        self._configured, self._mend = configured, mend
        self._seen: frozenset[str] = frozenset()

    async def hold(self, hosts: frozenset[str]) -> None:
        """Raises `WorldError` where some of `hosts` are none of them: the last good document serves on.

        INVARIANT: nothing is sent to, or believed of, an endpoint before this. A document that is right in
        its issuer could else move the token endpoint to where it would collect our codes and our secret.
        """
        allowed = self._own | (self._configured or await self._first_seen(hosts))
        moved = hosts - allowed
        if moved:
            mend = self._mend.format(_told(hosts - self._own))
            raise away(f"an endpoint moved to {_told(moved)}; if that is right, {mend}")

    async def _first_seen(self, hosts: frozenset[str]) -> frozenset[str]:
        """The hosts seen first; `hosts` if there were none.

        INVARIANT: what was seen here stays, and is told to `first` each time. A store that lost its data, or
        whose first word after that came from a document that had moved, would else outvote all who know.
        """
        known = self._seen or hosts | self._own
        if self._first is not None:
            try:
                remembered = await self._first.first(self._name, known)
            except WorldError:
                if not self._seen:
                    raise
                return known
            if self._seen and remembered != known:
                _log.warning(
                    "`%s` was first on %s, the state says %s", self._name, _told(known), _told(remembered)
                )
                return known
            known = remembered
        if not self._seen:
            _log.info("`%s` is on %s, as seen first", self._name, _told(known))
        self._seen = known
        return known


def _told(hosts: Iterable[str]) -> str:
    return ", ".join(f"`{host}`" for host in sorted(hosts))


def host_of(url: str) -> str:
    """The host of a URL that `is_allowed_url` allowed."""
    return urlsplit(url).hostname or ""


def is_here_without_reason(url: str, issuer: str) -> bool:
    """Whether `url` is on this machine though `issuer` is not, as far as their hosts say: no name is looked
    up."""
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
