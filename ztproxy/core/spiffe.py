"""SPIFFE IDs: the strict grammar, and patterns that name some of them.

Knows: the grammar of the SPIFFE-ID specification, section 2, and that a workload's has a path (X.509-SVID,
section 2: an ID without one is a trust domain's own). Promises: what is read here has one spelling only, so
that comparing texts is comparing IDs; nothing is repaired, folded or unescaped. Leaves to the caller whether
whoever shows an ID may (`client_certificates` reads it from a verified certificate).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_LONGEST = 2048
# The look-ahead: a segment that is one dot or two is no segment (X15).
_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+)")


class SpiffeID(NamedTuple):
    """One workload: `spiffe://trust_domain/path…`; `path` has at least one segment."""

    trust_domain: str
    path: tuple[str, ...]


@lru_cache(maxsize=1024)
def parse(text: str) -> SpiffeID | None:
    """The ID of a workload, or None for any other text.

    Stricter than a URL: no upper-case scheme or domain, no userinfo, port, query, fragment or escape, no
    empty, `.` or `..` segment, no trailing slash, at most 2048 octets of ASCII (X14, X15).
    """
    found = _ID.fullmatch(text) if len(text) <= _LONGEST else None
    return None if found is None else SpiffeID(found[1], tuple(found[2][1:].split("/")))


def valid_pattern(text: str) -> bool:
    """Whether a text names workloads: one by its ID, or with `/*` at the end all strictly beneath."""
    return parse(f"{text[:-1]}x" if text.endswith("/*") else text) is not None


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is a workload's ID that `pattern` names. `spiffe://corp.test/ci/*` covers `/ci/a` and
    `/ci/a/b`, by whole segments: neither `/ci` nor `/cia`. A pattern that is none names nothing."""
    if parse(text) is None or not valid_pattern(pattern):
        return False
    return text.startswith(pattern[:-1]) if pattern.endswith("/*") else text == pattern
