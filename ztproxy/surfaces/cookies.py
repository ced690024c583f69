"""The cookies of ours as `Set-Cookie` lines.

Knows: RFC 6265bis and its `__Host-` prefix. Promises: every cookie of ours is `Secure`, `HttpOnly`,
`SameSite=Lax` and of the whole path; only the session cookie ever has a domain, and only where the operator
asked for one. Leaves what is in them to the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ztproxy.core.request import Field
from ztproxy.gateway.parallel import LOOP_WINDOW

_FLAGS = "Path=/; Secure; HttpOnly; SameSite=Lax"


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """How the session travels. Without a `domain` it is a `__Host-` cookie of one host."""

    name: str
    domain: str | None

    def set(self, value: str, max_age: int) -> Field:
        domain = f"Domain={self.domain}; " if self.domain else ""
        return b"Set-Cookie", f"{self.name}={value}; Max-Age={max_age}; {domain}{_FLAGS}".encode()

    def clear(self) -> Field:
        return self.set("", 0)

    def shared_with(self, host: str) -> bool:
        """Whether the browser shows this cookie to `host` because of its domain."""
        return self.domain is not None and (host == self.domain or host.endswith(f".{self.domain}"))


def flow_cookie(name: str, value: str, max_age: int) -> Field:
    """The cookie of one sign-in or ticket under way."""
    return b"Set-Cookie", f"{name}={value}; Max-Age={max_age}; {_FLAGS}".encode()


def clear_flows(names: Iterable[str]) -> list[Field]:
    return [flow_cookie(name, "", 0) for name in names]


def spend_flows(names: Iterable[str], cookies: Mapping[str, str]) -> list[Field]:
    """For flows that succeeded: their cookies open nothing any more, but go on counting for a minute, so that
    a loop in which every single sign-in succeeds stops by itself too (F22, `gateway.parallel`)."""
    return [flow_cookie(name, cookies[name], int(LOOP_WINDOW)) for name in names if name in cookies]
