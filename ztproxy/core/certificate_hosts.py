"""Which hosts ask a client for its certificate.

Knows: host names, and wildcards of one label. Promises: a connection without a name asks, so that leaving the
name out is never the weaker way in (X24). Leaves to `normalise` refusing a request whose host asks on a
connection that did not (421), and to the listener to ask.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CertificateHosts:
    """`hosts` are names (lower-case, without trailing dot) and `*.` with a name, for one label; None is
    every host."""

    hosts: frozenset[str] | None

    def asks(self, name: str | None) -> bool:
        """Whether a client that names this host (lower-case, without port and trailing dot) is asked."""
        if name is None or self.hosts is None or name in self.hosts:
            return True
        label, dot, parent = name.partition(".")
        return bool(label and dot) and f"*.{parent}" in self.hosts
