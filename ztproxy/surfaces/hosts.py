"""Which names a listener of the operator's own may be called by, against DNS rebinding (case A12).

Knows: the `Host` fields of a request. Promises: a web page that resolves a name of its own to our address is
not answered. It can only come under a *name*: so an IP address, `localhost` and what is configured are
served, anything else is not. Probes and scripts that ask by address work without configuration. Leaves the
421 to its caller.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address


def names_of(hosts: Iterable[str]) -> frozenset[str]:
    """The names to serve: `localhost` and those configured, without ports, in any case."""
    return frozenset({"localhost", *(host.lower() for host in hosts)})


def is_ours(hosts: list[str], names: frozenset[str]) -> bool:
    """Whether the one `Host` field (with or without a port) names us; two fields are none."""
    if len(hosts) != 1:
        return False
    name = hosts[0].lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name in names:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
