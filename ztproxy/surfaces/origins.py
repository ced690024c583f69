"""Which origins are ours: those of the configuration, and nothing a header or a parameter makes up.

Knows: the routes and the auth host. Promises: an origin given back is one an operator wrote, a wildcard's
label filled in with a plain host name. Leaves to `core.normalise` that a request's host is canonical.
"""

from __future__ import annotations

import re

from ztproxy.core.request import Request
from ztproxy.core.route_table import RouteTable

# INVARIANT: the host of an origin holds letters, digits, hyphens and dots only. Where a wildcard route fills
# in a label, a browser would read `https://3232235777\x.example.com` as the host before the backslash.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")


class Origins:
    """`auth` is the origin at which sign-ins live, None where each host has its own."""

    def __init__(self, routes: RouteTable, auth: str | None) -> None:
        self.auth = auth
        self.auth_host = None if auth is None else host_of(auth)
        self._routes = routes

    def of(self, request: Request) -> str | None:
        """The origin of the request's host as the configuration writes it (F17); None for no host of ours."""
        if self.auth is not None and request.host == self.auth_host:
            return self.auth
        routes = self._routes.of_host(request.host)
        return routes[0].site(request) if routes else None

    def is_an_apps(self, origin: str) -> bool:
        """Whether this text, whoever wrote it, is exactly the origin of a route."""
        host = host_of(origin)
        return any(
            origin
            == (route.origin.replace(route.host, host, 1) if route.host.startswith("*.") else route.origin)
            for route in self._routes.of_host(host)
        )


def host_of(origin: str) -> str:
    """The host of an origin, or nothing when this is none."""
    found = _ORIGIN.fullmatch(origin)
    return found[1] if found else ""
